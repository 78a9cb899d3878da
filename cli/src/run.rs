//! `streamapp run FILE`: the whole application on this machine.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use control::Claiming;
use crds::{Place, SecretKey};
use kafka::Settings;
use protocol::{ApplicationId, Ordinal, Uid, WarmUp, WorkerStatus};

use crate::prepare::{Preparation, PrepareError};
use crate::scale;
use crate::supervise::{Change, Supervised};
use crate::validate::with_valid;
use crate::view::{OutputKind, Overview, View};

/// How many workers a run may have.
pub(crate) const WORKERS: RangeInclusive<i64> = 1..=64;
/// How often workers are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long workers have to give tasks up before they are fenced.
const GIVE_UP: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The StreamApp file (YAML or JSON).
    file: PathBuf,
    /// Worker processes; tasks are spread over them. One is enough for one machine.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(WORKERS))]
    workers: u32,
    /// Where stores live; `.streamapp/<applicationId>` when absent.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// What to show.
    #[arg(long, value_enum, default_value_t)]
    output: OutputKind,
    /// Create source and sink topics that do not exist, with N partitions.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1000))]
    create_topics: Option<i32>,
    /// Take the application over from a claim whose owner is gone; its processes end.
    #[arg(long)]
    take_over: bool,
    /// Where Secrets are that the file names: DIR/<secret>/<key>.
    #[arg(long, value_name = "DIR")]
    secrets: Option<PathBuf>,
    /// Give up when the cluster cannot be reached for this many seconds (default: keep trying).
    #[arg(long, value_name = "SECONDS")]
    connect_timeout: Option<u64>,
    /// Give up draining after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    drain_timeout: u64,
    /// Keep consumed records in repartition topics, for a checker to read.
    #[arg(long, hide = true)]
    keep_repartition_records: bool,
    /// Delete consumed records of repartition topics this often, whatever was said before.
    #[arg(
        long,
        hide = true,
        value_name = "SECONDS",
        overrides_with = "keep_repartition_records"
    )]
    purge_interval: Option<u64>,
    /// Commit positions of idle tasks this often.
    #[arg(long, hide = true, value_name = "SECONDS")]
    refresh_offsets: Option<u64>,
    /// End a worker when a stream thread of it has stood still for so long.
    #[arg(long, hide = true, value_name = "SECONDS")]
    standstill: Option<u64>,
    /// Replace the control log by a snapshot when it has this many offsets.
    #[arg(long, hide = true, value_name = "OFFSETS", default_value_t = control::SNAPSHOT_AFTER)]
    snapshot_after: i64,
}

pub(crate) fn run(args: &RunArgs) -> ExitCode {
    with_valid(&args.file, |loaded| run_loaded(args, loaded))
}

fn run_loaded(args: &RunArgs, loaded: &crds::Loaded) -> anyhow::Result<ExitCode> {
    let application = ApplicationId(loaded.app.application_id().to_owned());
    let state_dir = state_dir(args.state_dir.as_deref(), &application);
    std::fs::create_dir_all(&state_dir).with_context(|| format!("create {}", state_dir.display()))?;
    let _lock = lock(&state_dir, &application)?;
    let uid = claim_uid(&state_dir, &application)?;
    let interrupts = interrupts()?;
    let view = View::new(args.output);
    let kafka = loaded
        .app
        .kafka_config(|key| secret(args.secrets.as_deref(), key))?;
    let settings = control::settings(&kafka);
    let preparation = Preparation {
        settings: &settings,
        application: &application,
        plan: &loaded.plan,
        replication_factor: loaded.app.spec.kafka.internal_topics.replication_factor,
        standbys: loaded.app.spec.standbys,
        create_topics: args.create_topics,
        claiming: if args.take_over {
            Claiming::TakeOver
        } else {
            Claiming::Respect
        },
        uid: &uid,
        state_dir: &state_dir,
        snapshot_after: args.snapshot_after,
    };
    if !prepare(args, &preparation, &view, &interrupts)? {
        return Ok(ExitCode::SUCCESS);
    }
    let binary = worker_binary()?;
    let hire = |ordinal: u32| -> anyhow::Result<Supervised> {
        let directory = state_dir.join(format!("worker-{ordinal}"));
        let place = Place {
            state_dir: directory.join("state"),
            http_listen: "127.0.0.1:0".to_owned(),
        };
        let config = loaded.app.worker_config(kafka.clone(), place);
        let mut arguments = vec!["--ordinal".to_owned(), ordinal.to_string()];
        if args.keep_repartition_records {
            arguments.push("--keep-repartition-records".to_owned());
        }
        if let Some(seconds) = args.purge_interval {
            arguments.extend(["--purge-interval".to_owned(), seconds.to_string()]);
        }
        if let Some(seconds) = args.refresh_offsets {
            arguments.extend(["--refresh-offsets".to_owned(), seconds.to_string()]);
        }
        if let Some(seconds) = args.standstill {
            arguments.extend(["--standstill".to_owned(), seconds.to_string()]);
        }
        Ok(Supervised::new(binary.clone(), directory, &config, arguments)?)
    };
    let supervisor = Supervisor {
        args,
        preparation: &preparation,
        hire: &hire,
        workers: (0..args.workers).map(hire).collect::<Result<_, _>>()?,
        leaving: Vec::new(),
        scaling: None,
        view,
    };
    supervisor.run(&interrupts)
}

/// Prepares, waiting for a cluster that is not there yet; `false` when interrupted.
fn prepare(
    args: &RunArgs,
    preparation: &Preparation<'_>,
    view: &View,
    interrupts: &AtomicUsize,
) -> anyhow::Result<bool> {
    let started = Instant::now();
    let mut said = false;
    loop {
        // Nothing of the application runs yet that could give tasks up.
        match preparation.prepare(args.workers, WarmUp::No, &|_| true) {
            Ok(prepared) => {
                if !prepared.created.is_empty() {
                    view.event(
                        "topics",
                        &format!("created topics: {}", prepared.created.join(", ")),
                    );
                }
                if !prepared.corrected.is_empty() {
                    view.event(
                        "topics",
                        &format!("somebody had changed {}", prepared.corrected.join(", ")),
                    );
                }
                if let Some(text) = control::at_risk(&prepared.at_risk) {
                    view.event("topics", &text);
                }
                let tasks = prepared.tasks.len();
                view.event(
                    "assigned",
                    &format!(
                        "{}: {tasks} tasks on {} worker(s)",
                        preparation.application, args.workers
                    ),
                );
                return Ok(true);
            }
            Err(error) if error.is_transient() => {
                let waited = started.elapsed().as_secs();
                if args.connect_timeout.is_some_and(|limit| waited >= limit) {
                    return Err(give_up(error, &preparation.settings.bootstrap_servers, waited));
                }
                if !said {
                    let servers = &preparation.settings.bootstrap_servers;
                    view.event("waiting", &format!("no answer from Kafka at {servers}: {error}. Trying until it is there (Ctrl-C ends); is spec.kafka.bootstrapServers right?"));
                    said = true;
                }
            }
            Err(error) => return Err(error.into()),
        }
        if interrupts.load(Ordering::Acquire) > 0 {
            return Ok(false);
        }
        pause(Duration::from_millis(500));
    }
}

/// How a command reaches the file's Kafka cluster.
pub(crate) fn settings(loaded: &crds::Loaded, secrets: Option<&Path>) -> anyhow::Result<Settings> {
    let kafka = loaded.app.kafka_config(|key| secret(secrets, key))?;
    Ok(control::settings(&kafka))
}

/// A value that the file expects in a Secret, from a directory of the same shape.
fn secret(directory: Option<&Path>, key: &SecretKey) -> anyhow::Result<String> {
    let directory = directory.with_context(|| {
        format!(
            "{} names Secret `{}`: put its value into DIR/{}/{} and run with --secrets DIR",
            key.path, key.secret, key.secret, key.key
        )
    })?;
    let file = directory.join(&key.secret).join(&key.key);
    std::fs::read_to_string(&file).with_context(|| format!("{}: read {}", key.path, file.display()))
}

fn give_up(error: PrepareError, servers: &str, waited: u64) -> anyhow::Error {
    anyhow::Error::from(error).context(format!("no Kafka cluster at {servers} within {waited} s"))
}

/// Keeps workers alive until they are told to drain, or one fails for good.
struct Supervisor<'a> {
    args: &'a RunArgs,
    preparation: &'a Preparation<'a>,
    hire: &'a dyn Fn(u32) -> anyhow::Result<Supervised>,
    workers: Vec<Supervised>,
    /// Workers without tasks that drain.
    leaving: Vec<Supervised>,
    scaling: Option<Scaling>,
    view: View,
}

/// A change of the number of workers that is under way.
struct Scaling {
    to: u32,
    since: Instant,
    /// Since when a worker owes tasks.
    owing: Option<Instant>,
    /// Tasks whose new owner is not ready yet.
    warming: usize,
}

impl Supervisor<'_> {
    fn run(mut self, interrupts: &AtomicUsize) -> anyhow::Result<ExitCode> {
        scale::forget(self.preparation.state_dir)?;
        let mut failed = None;
        let mut overview = Overview::default();
        while interrupts.load(Ordering::Acquire) == 0 && failed.is_none() {
            failed = self.look_after()?;
            self.scale()?;
            overview = look_at(&self.workers);
            self.view.show(&overview);
            pause(LOOK);
        }
        self.workers.append(&mut self.leaving);
        self.drain(interrupts, &mut overview);
        match failed {
            None => {
                self.view.finish(&overview);
                Ok(ExitCode::SUCCESS)
            }
            Some(message) => Err(anyhow::anyhow!(message)),
        }
    }

    /// Starts workers that died; why one failed for good.
    fn look_after(&mut self) -> anyhow::Result<Option<String>> {
        let view = &self.view;
        for (ordinal, worker) in self.workers.iter_mut().enumerate() {
            match worker.look()? {
                Change::None => {}
                Change::Started(pid) => view.event(
                    "started",
                    &format!("worker {ordinal}: pid {pid}, log {}", worker.log().display()),
                ),
                Change::Died(how) => {
                    view.event("died", &format!("worker {ordinal}: {how}; starting it again"))
                }
                Change::Ended(code, error) => {
                    return Ok(Some(format!("worker {ordinal} (exit code {code}): {error}")));
                }
            }
        }
        self.leaving.retain_mut(|worker| !worker.is_gone());
        Ok(None)
    }

    /// Goes on with a change of the number of workers, or begins one that was asked for. New workers come first; tasks move
    /// when their new owner is ready; workers that lose all their tasks go when they have given them up.
    fn scale(&mut self) -> anyhow::Result<()> {
        let Some(scaling) = &mut self.scaling else {
            let Some(to) = scale::wanted(self.preparation.state_dir)? else {
                return Ok(());
            };
            let have = u32::try_from(self.workers.len()).unwrap_or(u32::MAX);
            // A worker that drains still has the directory of its ordinal.
            if to > have && !self.leaving.is_empty() {
                return Ok(());
            }
            for ordinal in have..to {
                self.workers.push((self.hire)(ordinal)?);
            }
            self.view.event("scaling", &format!("{have} → {to} workers"));
            self.scaling = Some(Scaling {
                to,
                since: Instant::now(),
                owing: None,
                warming: 0,
            });
            return Ok(());
        };
        let (to, since) = (scaling.to, scaling.since);
        let overdue = scaling.owing.is_some_and(|since| since.elapsed() > GIVE_UP);
        let statuses = statuses(&self.workers);
        let settled = match self.preparation.prepare(to, WarmUp::By(&statuses), &|_| overdue) {
            Ok(settled) => settled,
            Err(error) if error.is_transient() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let warming = settled.warming.len();
        if warming != scaling.warming {
            scaling.warming = warming;
            let behind: i64 = settled
                .warming
                .iter()
                .filter_map(|task| statuses.values().find_map(|status| status.copy_lag(task)))
                .sum();
            self.view.event(
                "warming",
                &format!(
                    "{warming} tasks move when their new worker is ready; {behind} changelog records to read"
                ),
            );
        }
        scaling.owing = (!settled.owing.is_empty()).then(|| scaling.owing.unwrap_or_else(Instant::now));
        if warming > 0 || scaling.owing.is_some() {
            return Ok(());
        }
        let wanted = usize::try_from(to).unwrap_or(usize::MAX);
        let mut surplus = self.workers.split_off(wanted.min(self.workers.len()));
        surplus.iter_mut().for_each(Supervised::drain);
        self.leaving.append(&mut surplus);
        self.scaling = None;
        scale::fulfilled(self.preparation.state_dir, to)?;
        let elapsed = since.elapsed().as_secs_f64();
        self.view
            .event("scaled", &format!("{to} workers after {elapsed:.1} s"));
        Ok(())
    }

    fn drain(&mut self, interrupts: &AtomicUsize, overview: &mut Overview) {
        let workers = &mut self.workers;
        workers.iter_mut().for_each(Supervised::drain);
        let deadline = Instant::now() + Duration::from_secs(self.args.drain_timeout);
        while !workers.iter_mut().all(Supervised::is_gone) {
            if Instant::now() > deadline || interrupts.load(Ordering::Acquire) > 1 {
                self.view.event(
                    "killed",
                    "draining was cut short; nothing is lost, the next start goes on from the last commit",
                );
                workers.iter_mut().for_each(Supervised::kill);
                break;
            }
            let latest = look_at(workers);
            if latest.answering == workers.len() {
                *overview = latest;
                self.view.show(overview);
            }
            pause(Duration::from_millis(20));
        }
    }
}

/// What the workers that answer say, by ordinal.
fn statuses(workers: &[Supervised]) -> BTreeMap<Ordinal, WorkerStatus> {
    let answers = workers.iter().filter_map(Supervised::status);
    answers.map(|status| (status.ordinal, status)).collect()
}

fn look_at(workers: &[Supervised]) -> Overview {
    let restarts = workers.iter().map(|worker| worker.restarts).sum();
    let mut overview = Overview {
        workers: workers.len(),
        restarts,
        ..Overview::default()
    };
    workers
        .iter()
        .filter_map(Supervised::status)
        .for_each(|status| overview.add(&status));
    overview
}

/// The worker lies beside this program.
fn worker_binary() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find this program's own path")?;
    let beside = own.with_file_name("streamapp-worker");
    anyhow::ensure!(
        beside.exists(),
        "{} is missing; `make build` makes it",
        beside.display()
    );
    Ok(beside)
}

/// Where an application's stores live, unless told otherwise.
pub(crate) fn state_dir(told: Option<&Path>, application: &ApplicationId) -> PathBuf {
    told.map_or_else(|| Path::new(".streamapp").join(&application.0), Path::to_owned)
}

pub(crate) fn lock(state_dir: &Path, application: &ApplicationId) -> anyhow::Result<std::fs::File> {
    let path = state_dir.join("run.lock");
    let file = std::fs::File::create(&path).with_context(|| format!("open {}", path.display()))?;
    file.try_lock().map_err(|_| {
        anyhow::anyhow!(
            "another `streamapp run` of {application} uses {}; end it first, or use --workers for more processes",
            state_dir.display()
        )
    })?;
    Ok(file)
}

/// The identity of this state directory: whoever has the directory may run the application again.
fn claim_uid(state_dir: &Path, application: &ApplicationId) -> anyhow::Result<Uid> {
    let path = state_dir.join("claim.json");
    let broken = || format!("read {}", path.display());
    match std::fs::read(&path) {
        Ok(bytes) => {
            let (owner, uid): (String, Uid) = serde_json::from_slice(&bytes).with_context(broken)?;
            anyhow::ensure!(
                owner == application.0,
                "state directory {} belongs to application `{owner}`, not `{application}`; choose another with --state-dir",
                state_dir.display()
            );
            Ok(uid)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let uid = Uid(uuid::Uuid::new_v4().to_string());
            let text = serde_json::to_vec(&(&application.0, &uid))?;
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            Ok(uid)
        }
        Err(error) => Err(error).with_context(broken),
    }
}

/// Counts SIGINT and SIGTERM.
fn interrupts() -> anyhow::Result<Arc<AtomicUsize>> {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    let mut signals =
        signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])?;
    std::thread::spawn(move || {
        for _ in &mut signals {
            seen.fetch_add(1, Ordering::AcqRel);
        }
    });
    Ok(count)
}

/// The pause between two looks.
#[expect(
    clippy::disallowed_methods,
    reason = "the one pause of this program; every loop around it has an end"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
