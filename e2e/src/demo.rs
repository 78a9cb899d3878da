//! `streamapp-e2e demo`: the main job, with faults, judged by the checker.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use report::Report;
use serde::Serialize;

use crate::app::{App, Launch, signal};
use crate::bench::subjects::set;
use crate::broker::Broker;
use crate::check::{Check, Example, Guarantee, check};
use crate::drained::{WaitDrained, run as wait_drained};
use crate::generate::{Generate, KeyedBy, run as generate};
use crate::hit::{Evidence, Target};
use crate::wait;

/// The application id in the example's file.
pub(crate) const APPLICATION: &str = "orders-risk-scoring-v1";
/// The topic that the example reads.
pub(crate) const INPUT: &str = "orders.submitted.v1";
/// The topic that the example writes.
pub(crate) const OUTPUT: &str = "risk.decisions.v1";
const WORKERS: u32 = 2;
/// How long a worker is stopped: longer than the example's transaction time-out of 10 s.
const STOPPED: Duration = Duration::from_secs(13);
/// How often the state of things is told.
const TELL: Duration = Duration::from_secs(3);

/// Streams orders through two workers, kills and stops them, and checks every record
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Demo {
    #[command(flatten)]
    broker: Broker,
    /// How many orders
    #[arg(long, default_value_t = 200_000)]
    orders: u64,
    /// Orders a second
    #[arg(long, default_value_t = 5_000)]
    rate: u64,
    /// The same seed gives the same orders
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// The `streamapp` program
    #[arg(long, default_value = "bin/streamapp")]
    streamapp: PathBuf,
    /// The StreamApp file
    #[arg(long, default_value = "examples/orders-risk/app.yaml")]
    file: PathBuf,
    /// Where stores live; emptied first
    #[arg(long, default_value = ".state/demo")]
    state_dir: PathBuf,
    /// The broker's log, from which fences are counted
    #[arg(long, default_value = ".state/broker/broker.log")]
    broker_log: PathBuf,
}

/// The figures of the last line.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// Worker pods; not told of workers on one machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pods: Option<u32>,
    pub(crate) orders: u64,
    pub(crate) decisions: u64,
    pub(crate) duplicates: u64,
    pub(crate) missing: u64,
    pub(crate) wrong: u64,
    pub(crate) out_of_order: u64,
    pub(crate) aborted_records: u64,
    pub(crate) restarts: u64,
    pub(crate) fences: u64,
    pub(crate) store_wipes: u64,
    pub(crate) seconds: u64,
    pub(crate) evidence: Vec<Evidence>,
}

/// Runs the demo; answers whether the checker found nothing.
pub(crate) fn run(args: &Demo) -> Result<bool> {
    let report = Report::begin("demo", args.seed);
    let started = Instant::now();
    match play(args, started) {
        Ok((passed, figures)) => {
            report.end(passed, &figures)?;
            if passed {
                look_around(args);
            }
            println!("{}", figures.line(passed));
            Ok(passed)
        }
        Err(error) => {
            eprintln!("demo: {error:#}");
            let figures = Figures {
                orders: args.orders,
                seconds: started.elapsed().as_secs(),
                ..Figures::default()
            };
            report.end(false, &figures)?;
            println!("demo: FAIL {error}");
            Ok(false)
        }
    }
}

fn play(args: &Demo, started: Instant) -> Result<(bool, Figures)> {
    say("1/6", "clean slate: topics and stores of an earlier demo go");
    prepare(args)?;
    let fences_before = initialisations(&args.broker_log)?;
    say(
        "2/6",
        &format!(
            "starting {WORKERS} workers: streamapp run {} --workers {WORKERS}",
            args.file.display()
        ),
    );
    let launch = Launch {
        program: args.streamapp.clone(),
        file: file_for(args)?,
        workers: WORKERS,
        state_dir: args.state_dir.clone(),
        arguments: Vec::new(),
        environment: Vec::new(),
    };
    let mut app = launch.start()?;
    app.wait_running(WORKERS, Duration::from_secs(60))?;
    let first_initialisations = initialisations(&args.broker_log)? - fences_before;
    say(
        "3/6",
        &format!(
            "streaming {} orders at {} a second, about {} s",
            args.orders,
            args.rate,
            args.orders / args.rate.max(1)
        ),
    );
    let stream = Stream::start(orders(&args.broker, args.orders, args.rate, args.seed));
    let evidence = faults(args, &app, &stream)?;
    stream.finish(&|| progress(&app))?;
    say("5/6", "waiting until everything is processed");
    wait_for_all(&args.broker)?;
    let last = app.drain()?;
    say("6/6", "checking every record against an independent model");
    let (right, judged) = judge(&args.broker)?;
    let figures = Figures {
        restarts: last["restarts"].as_u64().unwrap_or(0),
        fences: initialisations(&args.broker_log)? - fences_before - first_initialisations,
        store_wipes: set_aside(&args.state_dir),
        seconds: started.elapsed().as_secs(),
        evidence,
        ..judged
    };
    let hit = figures.restarts == 2 && figures.evidence.len() == 3 && figures.orders == args.orders;
    Ok((right && hit && figures.store_wipes == 0, figures))
}

/// The orders of a demo.
pub(crate) fn orders(broker: &Broker, count: u64, rate: u64, seed: u64) -> Generate {
    Generate {
        broker: broker.clone(),
        topic: INPUT.to_owned(),
        keyed_by: KeyedBy::Order,
        count,
        first: 0,
        rate,
        customers: 2_000,
        max_amount_cents: 40_000,
        seed,
        bad_at: None,
        quiet: true,
    }
}

/// Waits until the example has processed everything that was written.
pub(crate) fn wait_for_all(broker: &Broker) -> Result<()> {
    wait_drained(&WaitDrained {
        broker: broker.clone(),
        application_id: APPLICATION.to_owned(),
        topics: vec![INPUT.to_owned()],
        repartitions: vec!["exposure-by-customer".to_owned()],
        deadline: 180,
    })
}

/// The checker's verdict on the example, and its figures.
pub(crate) fn judge(broker: &Broker) -> Result<(bool, Figures)> {
    let judged = check(&Check {
        broker: broker.clone(),
        topology: Example::OrdersRisk,
        application_id: APPLICATION.to_owned(),
        guarantee: Guarantee::ExactlyOnceV2,
        input: INPUT.to_owned(),
        output: None,
        formats: crate::check::Formats::Streamapp,
        store: "exposure-by-customer".to_owned(),
        malformed: 0,
        deadline: 120,
        json: None,
    })?;
    crate::check::print(&judged);
    let verdict = &judged.verdict;
    let figures = Figures {
        orders: verdict.orders,
        decisions: verdict.output().map_or(0, |section| section.found),
        duplicates: verdict.total(|section| section.duplicates),
        missing: verdict.total(|section| section.missing),
        wrong: verdict.total(|section| section.wrong),
        out_of_order: verdict.total(|section| section.out_of_order),
        aborted_records: judged.aborted_records,
        ..Figures::default()
    };
    Ok((verdict.passed(), figures))
}

impl Figures {
    /// The demo's last line.
    pub(crate) fn line(&self, passed: bool) -> String {
        format!(
            "demo: {}{} orders={} decisions={} duplicates={} missing={} wrong={} restarts={} fences={} store_wipes={} seconds={}",
            if passed { "PASS" } else { "FAIL" },
            self.pods.map_or(String::new(), |pods| format!(" pods={pods}")),
            self.orders,
            self.decisions,
            self.duplicates,
            self.missing,
            self.wrong + self.out_of_order,
            self.restarts,
            self.fences,
            self.store_wipes,
            self.seconds
        )
    }
}

/// What is watched of the example while faults hit it.
pub(crate) fn target(broker: &Broker) -> Target<'_> {
    Target {
        broker,
        application_id: APPLICATION,
        input: INPUT,
        written: "orders-risk-scoring-v1-exposure-by-customer-repartition",
    }
}

/// Where the application stands, for a line of progress.
fn progress(app: &App) -> String {
    let progress = app.progress().unwrap_or_default();
    format!(
        "{:>6} behind   {} workers running",
        progress["lag"], progress["running"]
    )
}

/// Kills each worker once and stops one for longer than its transaction may live; each at work.
fn faults(args: &Demo, app: &App, stream: &Stream) -> Result<Vec<Evidence>> {
    let target = target(&args.broker);
    let look = || progress(app);
    let mut evidence = Vec::new();
    let seconds = args.orders / args.rate.max(1);
    for worker in 0..WORKERS {
        stream.tell_until(&look, seconds * u64::from(worker + 1) / 6);
        let found = target.stop_at_work(worker, || app.pid(worker))?;
        signal(found.pid, libc::SIGKILL)?;
        say(
            "4/6",
            &format!(
                "kill -9 of worker {worker} (pid {}) {}",
                found.pid,
                describe(&found)
            ),
        );
        evidence.push(found);
        wait::until("the worker to run again", Duration::from_secs(60), || {
            let status = app.status(worker).map_err(|error| error.to_string())?;
            let pid = status["pid"].as_u64();
            let again = pid.is_some_and(|pid| evidence.iter().all(|e| u64::from(e.pid) != pid));
            if again && status["phase"] == "Running" {
                Ok(Ok(()))
            } else {
                Err(format!("it is {}", status["phase"]))
            }
        })?;
        say("   ", &format!("worker {worker} runs again, its store kept"));
    }
    stream.tell_until(&look, seconds / 2);
    let found = target.stop_at_work(0, || app.pid(0))?;
    say(
        "4/6",
        &format!(
            "SIGSTOP of worker 0 for {} s, longer than its transaction may live {}",
            STOPPED.as_secs(),
            describe(&found)
        ),
    );
    let until = Instant::now() + STOPPED;
    while Instant::now() < until {
        stream.tell(&look);
    }
    signal(found.pid, libc::SIGCONT)?;
    say(
        "   ",
        "worker 0 wakes up: the broker has ended its transaction, so it must acquire again",
    );
    evidence.push(found);
    Ok(evidence)
}

/// The evidence in words.
pub(crate) fn describe(evidence: &Evidence) -> String {
    format!(
        "while its transaction was open (partition {} stable up to {}, written up to {}) and {} records waited",
        evidence.pinned_partition, evidence.last_stable_offset, evidence.high_watermark, evidence.lag
    )
}

/// The generator in the background.
pub(crate) struct Stream {
    thread: JoinHandle<Result<()>>,
    ended: Arc<AtomicBool>,
    started: Instant,
    orders: u64,
    rate: u64,
    told: std::cell::Cell<Instant>,
}

impl Stream {
    /// Starts to write orders.
    pub(crate) fn start(orders: Generate) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (count, rate) = (orders.count, orders.rate);
        let flag = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let result = generate(&orders).map(|_| ());
            flag.store(true, Ordering::Release);
            result
        });
        let (started, told) = (Instant::now(), std::cell::Cell::new(Instant::now()));
        Self {
            thread,
            ended,
            started,
            orders: count,
            rate,
            told,
        }
    }

    /// Tells where things stand, at most every few seconds; `look` says how far the application is.
    pub(crate) fn tell(&self, look: &dyn Fn() -> String) {
        wait::pause();
        if self.told.get().elapsed() < TELL {
            return;
        }
        self.told.set(Instant::now());
        let seconds = self.started.elapsed().as_secs();
        let written = (seconds * self.rate).min(self.orders);
        let left = (self.orders - written) / self.rate.max(1);
        println!(
            "      {seconds:>3} s   {written:>7} orders written   {}   about {left} s of orders left",
            look()
        );
    }

    /// Tells until this second of the stream, or its end.
    pub(crate) fn tell_until(&self, look: &dyn Fn() -> String, second: u64) {
        while self.started.elapsed().as_secs() < second && !self.ended.load(Ordering::Acquire) {
            self.tell(look);
        }
    }

    /// Tells until all orders are written.
    pub(crate) fn finish(self, look: &dyn Fn() -> String) -> Result<()> {
        while !self.ended.load(Ordering::Acquire) {
            self.tell(look);
        }
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("the generator panicked"))?
    }
}

fn prepare(args: &Demo) -> Result<()> {
    new_topics(&args.broker)?;
    if args.state_dir.exists() {
        std::fs::remove_dir_all(&args.state_dir)
            .with_context(|| format!("empty {}", args.state_dir.display()))?;
    }
    Ok(())
}

/// Topics as if no demo had ever run.
pub(crate) fn new_topics(broker: &Broker) -> Result<()> {
    let names = broker.topic_names()?;
    let ours = |name: &&String| name.starts_with(APPLICATION) || *name == INPUT || *name == OUTPUT;
    let old: Vec<&str> = names.iter().filter(ours).map(String::as_str).collect();
    broker.delete_topics(&old)?;
    broker.delete_group(APPLICATION)?;
    broker.create_topics(&[(INPUT, 6), (OUTPUT, 6)])
}

/// The file, pointed at the demo's broker.
fn file_for(args: &Demo) -> Result<PathBuf> {
    let text =
        std::fs::read_to_string(&args.file).with_context(|| format!("read {}", args.file.display()))?;
    if text.contains(&args.broker.bootstrap) {
        return Ok(args.file.clone());
    }
    let text = set(&text, "bootstrapServers", &args.broker.bootstrap)
        .with_context(|| format!("{} has no line for bootstrapServers", args.file.display()))?;
    std::fs::create_dir_all(&args.state_dir)?;
    let file = args.state_dir.join("app.yaml");
    std::fs::write(&file, text)?;
    Ok(file)
}

/// How often the broker has initialised a producer of the application's stream threads, by its own log: each time
/// after the first fences whoever held the id before.
pub(crate) fn initialisations(broker_log: &Path) -> Result<u64> {
    let log = std::fs::read_to_string(broker_log)
        .with_context(|| format!("read the broker's log {}", broker_log.display()))?;
    let ours = format!("transactionalId {APPLICATION}-");
    let count = log
        .lines()
        .filter(|line| line.contains("Initialized transactionalId") && line.contains(&ours))
        .filter(|line| !line.contains("-control-operator"))
        .count();
    Ok(count as u64)
}

/// Store directories that a worker set aside.
fn set_aside(state_dir: &Path) -> u64 {
    let workers = (0..WORKERS).map(|worker| state_dir.join(format!("worker-{worker}/state/tasks")));
    let entries = workers
        .filter_map(|tasks| std::fs::read_dir(tasks).ok())
        .flatten()
        .flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().contains(".set-aside-"))
        .count() as u64
}

/// Tells a step.
pub(crate) fn say(step: &str, text: &str) {
    println!("[{step}] {text}");
}

fn look_around(args: &Demo) {
    println!();
    println!("The broker still runs on {}. Look around:", args.broker.bootstrap);
    println!(
        "  bin/streamapp validate {} --plan     what was run",
        args.file.display()
    );
    println!(
        "  bin/streamapp run {}                 run it yourself",
        args.file.display()
    );
    println!(
        "  bin/streamapp-e2e generate --count 1000 --first {}   more orders",
        args.orders
    );
    println!("  make figures                         the figures of this run (reports/demo.json)");
    println!("  make clean                           stop the broker, remove everything");
    println!();
}
