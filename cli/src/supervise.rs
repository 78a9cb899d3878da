//! Worker processes as children: started, watched, restarted when they die, drained at the end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use protocol::{WorkerConfig, WorkerStatus};

/// First and longest wait before a worker that died soon after its start is started again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// A worker that ran this long is started again at once.
const HEALTHY: Duration = Duration::from_secs(5);
/// How long a status request may take.
const STATUS_TIMEOUT: Duration = Duration::from_millis(500);

/// A worker process that is kept alive.
pub(crate) struct Supervised {
    binary: PathBuf,
    directory: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
    started: Instant,
    backoff: Duration,
    /// Starts after the first.
    pub(crate) restarts: u64,
    agent: ureq::Agent,
}

/// What happened to a worker since the last look.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// It died and will be started again.
    Died(String),
    /// It was started (again).
    Started(u32),
    /// It ended for good: exit code and the last error of its log.
    Ended(i32, String),
}

impl Supervised {
    /// Writes the worker's configuration; starts nothing yet.
    pub(crate) fn new(
        binary: PathBuf,
        directory: PathBuf,
        config: &WorkerConfig,
        arguments: Vec<String>,
    ) -> std::io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join("config.json"), serde_json::to_vec_pretty(config)?)?;
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(STATUS_TIMEOUT))
            .build()
            .into();
        Ok(Self {
            binary,
            directory,
            arguments,
            child: None,
            started: Instant::now(),
            backoff: Duration::ZERO,
            restarts: 0,
            agent,
        })
    }

    fn start(&mut self) -> std::io::Result<u32> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let address = self.directory.join("address");
        let _ = std::fs::remove_file(&address);
        let child = Command::new(&self.binary)
            .arg("--config")
            .arg(self.directory.join("config.json"))
            .arg("--address-file")
            .arg(address)
            .arg("--end-with-stdin")
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let pid = child.id();
        self.child = Some(child);
        self.started = Instant::now();
        Ok(pid)
    }

    /// The worker's log file.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("worker.log")
    }

    /// Looks after the process: notices its end, starts it when it is time.
    pub(crate) fn look(&mut self) -> std::io::Result<Change> {
        let Some(child) = &mut self.child else {
            if self.started.elapsed() < self.backoff {
                return Ok(Change::None);
            }
            return Ok(Change::Started(self.start()?));
        };
        let Some(status) = child.try_wait()? else {
            return Ok(Change::None);
        };
        self.child = None;
        if let Some(code @ (1..=3)) = status.code() {
            return Ok(Change::Ended(code, last_error(&self.log())));
        }
        self.restarts += 1;
        self.backoff = if self.started.elapsed() > HEALTHY {
            Duration::ZERO
        } else {
            (self.backoff * 2).clamp(BACKOFF.0, BACKOFF.1)
        };
        self.started = Instant::now();
        Ok(Change::Died(describe(status)))
    }

    /// The worker's status document; `None` while it does not answer.
    pub(crate) fn status(&self) -> Option<WorkerStatus> {
        self.child.as_ref()?;
        let address = std::fs::read_to_string(self.directory.join("address")).ok()?;
        let mut answer = self.agent.get(format!("http://{address}/status")).call().ok()?;
        serde_json::from_reader(answer.body_mut().as_reader()).ok()
    }

    /// Asks the process to drain: its standard input ends.
    pub(crate) fn drain(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.stdin.take());
        }
    }

    /// Whether the process is gone.
    pub(crate) fn is_gone(&mut self) -> bool {
        match &mut self.child {
            Some(child) => !matches!(child.try_wait(), Ok(None)),
            None => true,
        }
    }

    /// Ends the process at once.
    pub(crate) fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(0), _) => "it ended by itself (SIGTERM)".to_owned(),
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// The last error line of a worker's log, for people.
fn last_error(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let error = text
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    error
        .filter(|line| line.get("level").is_some_and(|level| level == "ERROR"))
        .find_map(|line| {
            let fields = line.get("fields")?;
            let text = |name: &str| {
                fields
                    .get(name)
                    .and_then(|value| value.as_str())
                    .map(str::to_owned)
            };
            match (text("error"), text("message")) {
                (Some(error), _) => Some(error),
                (None, message) => message,
            }
        })
        .unwrap_or_else(|| format!("see {}", log.display()))
}
