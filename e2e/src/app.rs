//! A running application: `streamapp run` as a child, followed through its JSON lines and its workers' status documents.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::wait;

/// How long a status request may take.
const STATUS: Duration = Duration::from_millis(1_000);
/// How long a drain may take.
const DRAIN: Duration = Duration::from_secs(60);

/// How to start an application.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    /// The `streamapp` program.
    pub(crate) program: PathBuf,
    /// The StreamApp file.
    pub(crate) file: PathBuf,
    pub(crate) workers: u32,
    pub(crate) state_dir: PathBuf,
    /// More arguments of `streamapp run`.
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
}

/// The child. Dropping it ends it.
pub(crate) struct App {
    child: Child,
    state_dir: PathBuf,
    said: Arc<Mutex<Said>>,
}

/// What the child has said so far.
#[derive(Debug, Default)]
struct Said {
    events: Vec<Value>,
    progress: Option<Value>,
    errors: String,
}

impl Launch {
    /// Starts the application.
    pub(crate) fn start(&self) -> Result<App> {
        let mut child = Command::new(&self.program)
            .arg("run")
            .arg(&self.file)
            .args(["--output", "json", "--keep-repartition-records"])
            .args(["--workers", &self.workers.to_string()])
            .arg("--state-dir")
            .arg(&self.state_dir)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let said = Arc::new(Mutex::new(Said::default()));
        if let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) {
            let lines = Arc::clone(&said);
            std::thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    let Ok(document) = serde_json::from_str::<Value>(&line) else {
                        continue;
                    };
                    let mut said = lines.lock().unwrap_or_else(PoisonError::into_inner);
                    match document["event"].as_str() {
                        Some("progress" | "drained") => said.progress = Some(document),
                        Some(_) => said.events.push(document),
                        None => {}
                    }
                }
            });
            let errors = Arc::clone(&said);
            std::thread::spawn(move || {
                for line in BufReader::new(err).lines().map_while(Result::ok) {
                    let mut said = errors.lock().unwrap_or_else(PoisonError::into_inner);
                    said.errors.push_str(&line);
                    said.errors.push('\n');
                }
            });
        }
        Ok(App {
            child,
            state_dir: self.state_dir.clone(),
            said,
        })
    }
}

impl App {
    fn said<T>(&self, look: impl FnOnce(&Said) -> T) -> T {
        look(&self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The last progress document.
    pub(crate) fn progress(&self) -> Option<Value> {
        self.said(|said| said.progress.clone())
    }

    /// How many events of this kind there were.
    pub(crate) fn events(&self, kind: &str) -> usize {
        self.said(|said| said.events.iter().filter(|event| event["event"] == kind).count())
    }

    /// Everything it has said, for a failure's report.
    pub(crate) fn words(&self) -> String {
        self.said(|said| {
            let events: Vec<_> = said.events.iter().map(ToString::to_string).collect();
            let progress = said
                .progress
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default();
            format!("{}\n{progress}\n{}", events.join("\n"), said.errors)
        })
    }

    /// A worker's status document.
    pub(crate) fn status(&self, worker: u32) -> Result<Value> {
        status(&self.state_dir.join(format!("worker-{worker}")).join("address"))
    }

    /// The process of a worker.
    pub(crate) fn pid(&self, worker: u32) -> Result<u32> {
        let pid = self.status(worker)?["pid"].as_u64();
        Ok(u32::try_from(pid.context("the status has no pid")?)?)
    }

    /// Waits until a worker is another process than `before`.
    pub(crate) fn wait_successor(&self, worker: u32, before: u32) -> Result<()> {
        let what = format!("a successor of worker {worker}");
        wait::until(&what, Duration::from_secs(30), || match self.pid(worker) {
            Ok(now) if now != before => Ok(Ok(())),
            Ok(_) => Err(format!("process {before} is still there")),
            Err(error) => Err(format!("{error:#}")),
        })
    }

    /// Waits until all workers run their tasks.
    pub(crate) fn wait_running(&mut self, workers: u32, deadline: Duration) -> Result<()> {
        wait::until("the workers to run", deadline, || {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Ok(Err(anyhow::anyhow!(
                    "streamapp ended with {status}:\n{}",
                    self.words()
                )));
            }
            let running =
                (0..workers).filter(|worker| self.status(*worker).is_ok_and(|s| s["phase"] == "Running"));
            match running.count() {
                count if count == workers as usize => Ok(Ok(())),
                count => Err(format!("{count} of {workers} run; said:\n{}", self.words())),
            }
        })
    }

    /// Waits for the end of `streamapp` itself; its exit code.
    pub(crate) fn wait_end(&mut self, deadline: Duration) -> Result<i32> {
        wait::until("streamapp to end", deadline, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(Ok(status.code().unwrap_or(-1))),
            Ok(None) => Err(format!("it runs; said:\n{}", self.words())),
            Err(error) => Err(error.to_string()),
        })
    }

    /// SIGTERM, then the end: everything is drained and committed.
    pub(crate) fn drain(mut self) -> Result<Value> {
        signal(self.child.id(), libc::SIGTERM)?;
        match self.wait_end(DRAIN)? {
            0 => Ok(self.progress().unwrap_or_default()),
            code => bail!("streamapp ended with code {code}:\n{}", self.words()),
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // Its workers end with their standard input.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The tasks of a worker's status.
pub(crate) fn tasks(status: &Value) -> impl Iterator<Item = &Value> {
    status["tasks"].as_array().into_iter().flatten()
}

/// Reads `/status` at the address that a file names.
pub(crate) fn status(address_file: &Path) -> Result<Value> {
    let address = std::fs::read_to_string(address_file)?;
    Ok(serde_json::from_str(&read_status(address.parse()?)?)?)
}

/// The text of a worker's status document.
pub(crate) fn read_status(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, STATUS)?;
    stream.set_read_timeout(Some(STATUS))?;
    write!(
        stream,
        "GET /status HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").context("no body")?.1.to_owned())
}

/// Sends a signal to a process that this program (or its child) started.
pub(crate) fn signal(pid: u32, signal: i32) -> Result<()> {
    let pid = i32::try_from(pid)?;
    // SAFETY: kill has no memory effects.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => bail!(
            "signal {signal} to process {pid}: {}",
            std::io::Error::last_os_error()
        ),
    }
}
