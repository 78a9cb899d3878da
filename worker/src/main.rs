//! The worker process: runs the tasks of one ordinal until it is told to drain, or somebody else speaks for it.
//!
//! Exit codes: 0 drained · 1 failed, the message says why · 2 wrong usage · 3 superseded, never restart.

mod acquisition;
mod control;
mod crew;
mod failpoint;
mod follower;
mod http;
mod limits;
mod memory;
mod preparation;
mod recovery;
mod restore;
mod running;
mod seed;
mod session;
mod session_end;
mod shared;
mod standby;
mod standstill;
mod store;
mod stream_task;
mod stream_thread;
mod unwritten;
mod watchdog;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use kafka::{Admin, Wakeup};
use protocol::{DEFAULT_MEMORY_BYTES, MemoryBudget, Ordinal, Phase, Uid, WorkerConfig};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::session::{Purge, Worker};
use crate::session_end::SessionEnd;
use crate::shared::Shared;
use crate::store::StoreMemory;

/// First and longest wait before a session is tried again: each try writes two records to the control log.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// A session that lasted this long was a good one: the next wait is short again.
const GOOD: Duration = Duration::from_secs(30);

/// Least time that a stream thread may stand still: a step waits for brokers and for RocksDB, each with a time-out.
const STANDSTILL_SECONDS: u32 = 120;

/// Runs the tasks of one ordinal of a StreamApp.
#[derive(Debug, Parser)]
#[command(name = "streamapp-worker", version)]
struct Args {
    /// Worker configuration (JSON), written by the operator or by `streamapp run`.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The ordinal that this worker speaks for; in Kubernetes the index of its pod.
    #[arg(long, env = "STREAMAPP_ORDINAL", value_name = "N")]
    ordinal: u32,
    /// The pod's uid, for people: in the control log this process is named after it.
    #[arg(long, env = "STREAMAPP_POD_UID", value_name = "UID")]
    pod_uid: Option<String>,
    /// Drain when standard input ends.
    #[arg(long)]
    end_with_stdin: bool,
    /// Write the address of the status endpoint into this file.
    #[arg(long, value_name = "FILE")]
    address_file: Option<PathBuf>,
    /// Keep consumed records in repartition topics, for a checker to read.
    #[arg(long)]
    keep_repartition_records: bool,
    /// Delete consumed records of repartition topics this often (Kafka Streams' `repartition.purge.interval.ms`).
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 30,
        conflicts_with = "keep_repartition_records"
    )]
    purge_interval: u64,
    /// Commit positions of idle tasks this often, so that their offsets in the group do not expire. Default: a quarter of the time
    /// that the brokers keep them, a day at most.
    #[arg(long, value_name = "SECONDS")]
    refresh_offsets: Option<u64>,
    /// End the process when a stream thread has stood still for so long. Default: four times the transaction's time-out,
    /// two minutes at least.
    #[arg(long, value_name = "SECONDS")]
    standstill: Option<u32>,
}

fn main() -> ExitCode {
    // Before anything that takes time: in a container this is process 1, to which a signal that it does not handle is as
    // good as not sent. A pod that is deleted right after its start would run on until it is killed.
    let signals = Signals::new([SIGINT, SIGTERM]);
    let args = Args::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("STREAMAPP_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(&args, signals) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "worker failed");
            ExitCode::from(1)
        }
    }
}

fn run(args: &Args, signals: std::io::Result<Signals>) -> anyhow::Result<ExitCode> {
    let text = std::fs::read(&args.config).with_context(|| format!("read {}", args.config.display()))?;
    let config: WorkerConfig =
        serde_json::from_slice(&text).with_context(|| format!("parse {}", args.config.display()))?;
    let plan = topology::plan(&config.topology).map_err(|errors| {
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("the topology is not valid: {}", errors.join("; "))
    })?;
    let state_dir = config.state_dir.clone();
    std::fs::create_dir_all(&state_dir).with_context(|| format!("create {}", state_dir.display()))?;
    let _lock = lock_directory(&state_dir)?;
    let settings = ::control::settings(&config.kafka);
    let limit = config.memory_bytes.unwrap_or(DEFAULT_MEMORY_BYTES);
    let budget = MemoryBudget::of(limit, config.threads)?;
    let ordinal = Ordinal(args.ordinal);
    let shared = Arc::new(Shared::new(
        &config.application_id.0,
        ordinal,
        process_uid(args.pod_uid.as_deref()),
    ));
    drain_at_signal(signals.context("receive signals")?, Arc::clone(&shared))?;
    let listener = TcpListener::bind(&config.http_listen)
        .with_context(|| format!("listen on {}", config.http_listen))?;
    let address = listener.local_addr()?;
    http::serve(listener, Arc::clone(&shared), args.end_with_stdin)?;
    if let Some(file) = &args.address_file {
        std::fs::write(file, address.to_string()).with_context(|| format!("write {}", file.display()))?;
    }
    tracing::info!(%address, ordinal = ordinal.0, uid = %shared.uid, "status endpoint");
    let longest = u32::try_from(config.transaction_timeout_ms / 250).unwrap_or(u32::MAX);
    watchdog::guard(
        Arc::clone(&shared),
        args.standstill.unwrap_or(longest.max(STANDSTILL_SECONDS)),
    )
    .context("start the watchdog")?;
    let worker = Worker {
        admin: Admin::new(&settings)?,
        config,
        ordinal,
        plan: Arc::new(plan),
        settings,
        state_dir,
        memory: StoreMemory::new(&budget),
        budget,
        shared,
        refresh_offsets: args.refresh_offsets.map(Duration::from_secs),
        purge_repartitions: if args.keep_repartition_records {
            Purge::Never
        } else {
            Purge::Every(Duration::from_secs(args.purge_interval))
        },
        control: None,
    };
    sessions(worker)
}

fn drain_at_signal(mut signals: Signals, shared: Arc<Shared>) -> anyhow::Result<()> {
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if signals.forever().next().is_some() {
                shared.request_shutdown();
            }
        })?;
    Ok(())
}

/// One uid per process: a container that starts again in its pod is another process, and supersedes the one before.
fn process_uid(pod_uid: Option<&str>) -> Uid {
    let own = uuid::Uuid::new_v4();
    Uid(pod_uid.map_or_else(|| own.to_string(), |pod| format!("{pod}/{own}")))
}

fn sessions(mut worker: Worker) -> anyhow::Result<ExitCode> {
    let shared = Arc::clone(&worker.shared);
    let pause = Wakeup::new()?;
    let mut again = AGAIN.0;
    loop {
        if shared.shutdown_requested() {
            shared.enter(Phase::Stopped);
            return Ok(ExitCode::SUCCESS);
        }
        let began = Instant::now();
        let ended = worker.session();
        if began.elapsed() > GOOD {
            again = AGAIN.0;
        }
        match ended {
            Ok(end) | Err(end) => match end {
                SessionEnd::Drained => shared.request_shutdown(),
                SessionEnd::Restart => {}
                SessionEnd::Superseded(by) => {
                    shared.explain(
                        Phase::Failed,
                        "Superseded",
                        format!("{by}; this process ends for good"),
                    );
                    return Ok(ExitCode::from(3));
                }
                SessionEnd::Wait {
                    phase,
                    reason,
                    message,
                } => {
                    shared.explain(phase, reason, message);
                    // A broker that is away costs nothing to ask again; whatever comes later has written records.
                    let wait = if phase == Phase::Starting { AGAIN.0 } else { again };
                    let until = Instant::now() + wait;
                    while Instant::now() < until && !shared.shutdown_requested() {
                        pause.sleep(Duration::from_millis(100));
                    }
                    again = (wait * 2).min(AGAIN.1);
                }
                SessionEnd::Failed { reason, message } => {
                    shared.explain(Phase::Failed, reason, message);
                    return Ok(ExitCode::from(1));
                }
            },
        }
    }
}

/// One process per state directory: a second one would corrupt the stores.
fn lock_directory(state_dir: &Path) -> anyhow::Result<std::fs::File> {
    let path = state_dir.join("lock");
    let file = std::fs::File::create(&path).with_context(|| format!("open {}", path.display()))?;
    file.try_lock().map_err(|error| {
        anyhow::anyhow!(
            "{} is locked ({error}): another worker uses this state directory",
            path.display()
        )
    })?;
    Ok(file)
}
