//! `streamapp-e2e bench`: ours, Kafka Streams and the bare loop in turns on the same broker and input.

mod latency;
mod lines;
mod measure;
pub(crate) mod process;
mod report;
pub(crate) mod subjects;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

use crate::broker::{Broker, Isolation};
use crate::generate::{self, Generate};
use lines::{LINES, Line, Load, Who};
use measure::{Run, Task};
use process::Subject;
use report::{About, LineFigures};
use subjects::Names;

/// Partitions of the input and the output topics.
const PARTITIONS: i32 = 12;

/// Measures StreamApp beside Kafka Streams and a bare loop, interleaved; writes reports/bench.json.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Bench {
    #[command(flatten)]
    pub(crate) broker: Broker,
    /// The broker's process, for its CPU time (`e2e/broker env` gives it)
    #[arg(long, env = "STREAMAPP_BROKER_PID", value_name = "PID")]
    broker_pid: Option<u32>,
    /// Lines to measure, instead of all
    #[arg(long, value_parser = Line::named, value_delimiter = ',', value_name = "LINE")]
    only: Vec<&'static Line>,
    /// Name the lines, their subjects and their aims, and measure nothing
    #[arg(long)]
    list: bool,
    /// Who runs them
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Who::Ours, Who::AtLeastOnce, Who::Peer, Who::Limit])]
    subjects: Vec<Who>,
    /// Input records of a line that is about throughput, written before its first run; three times as many for those
    /// that compare guarantees
    #[arg(long, default_value_t = 2_000_000)]
    records: u64,
    /// Input records a second of a line that is about latency
    #[arg(long, default_value_t = 5_000)]
    rate: u64,
    /// How long the input of such a line is written; the first half warms up
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Seed of the input
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// How often each subject runs
    #[arg(long, default_value_t = 3)]
    reps: u32,
    /// Threads of every subject (ours: if its file has a line `threads: …`)
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Command of StreamApp's command line
    #[arg(long, default_value = "bin/streamapp", value_name = "COMMAND")]
    ours: String,
    /// Another line of our file to change: every `KEY: …` becomes `KEY: VALUE`
    #[arg(long, value_name = "KEY=VALUE")]
    ours_set: Vec<String>,
    /// Directory of our declarations
    #[arg(long, default_value = "examples/orders-risk", value_name = "DIR")]
    examples: PathBuf,
    /// Command of the Kafka Streams peer
    #[arg(long, default_value = "e2e/peer/run", value_name = "COMMAND")]
    peer: String,
    /// Cache of the peer's stores; without one each update is passed on, as by ours
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    peer_cache_bytes: u64,
    /// How long one run may take, in seconds
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    deadline: u64,
    /// Fail when an aim of the design is missed
    #[arg(long)]
    require_aims: bool,
    /// Report file
    #[arg(long, default_value = "reports/bench.json", value_name = "FILE")]
    report: PathBuf,
    /// Where the runs' logs and state go; logs stay
    #[arg(long, env = "STREAMAPP_STATE", default_value = ".state", value_name = "DIR")]
    state: PathBuf,
}

/// Measures everything, prints the tables, writes the report; answers whether it passed.
pub(crate) fn run(bench: &Bench) -> Result<bool> {
    if bench.list {
        report::list(&LINES);
        return Ok(true);
    }
    let started = SystemTime::now();
    let load_before = load();
    if bench.subjects.contains(&Who::Peer) {
        build_peer(bench)?;
    }
    let only = |line: &&Line| bench.only.is_empty() || bench.only.iter().any(|only| only.name == line.name);
    let mut lines = Vec::new();
    for line in LINES.iter().filter(only) {
        let figures = LineFigures::of(bench, line, &measure_line(bench, line, started)?);
        figures.print();
        lines.push(figures);
    }
    let passed = lines.iter().all(LineFigures::outputs_agree)
        && (!bench.require_aims || lines.iter().all(LineFigures::aims_met));
    let about = About {
        passed,
        seed: bench.seed,
        started,
        threads: bench.threads,
        repetitions: bench.reps,
        peer_cache_bytes: bench.peer_cache_bytes,
        load_before,
    };
    report::write(&bench.report, &about, &lines)?;
    println!(
        "\nbench: {} {}",
        if passed { "PASS" } else { "FAIL" },
        bench.report.display()
    );
    Ok(passed)
}

/// Builds the peer before any clock runs.
fn build_peer(bench: &Bench) -> Result<()> {
    if bench.peer != "e2e/peer/run" {
        return Ok(());
    }
    let status = std::process::Command::new(&bench.peer)
        .arg("--build")
        .stdout(std::process::Stdio::null())
        .status()
        .with_context(|| format!("cannot run {} (is this the repository's root?)", bench.peer))?;
    anyhow::ensure!(status.success(), "building the peer failed");
    Ok(())
}

/// The orders that `line` reads from `topic`.
fn orders(bench: &Bench, line: &Line, topic: &str) -> Generate {
    Generate {
        broker: bench.broker.clone(),
        topic: topic.to_owned(),
        keyed_by: line.topology.keyed_by(),
        count: line.records(bench),
        first: 0,
        rate: match line.load {
            Load::Backlog => 0,
            Load::Paced => bench.rate,
        },
        customers: line.customers,
        // Ten times the demo's amounts: about nine in ten orders are followed by a decision when each customer has
        // ten or more of them.
        max_amount_cents: 1_000_000,
        seed: bench.seed,
        bad_at: None,
        quiet: true,
    }
}

/// Writes the input, unless an earlier run left the same one; its name.
fn preload(bench: &Bench, line: &Line) -> Result<String> {
    let records = line.records(bench);
    let topic = format!(
        "bench.orders-by-{}.{records}.{}.{}",
        line.topology.keyed_by().name(),
        line.customers,
        bench.seed
    );
    if bench.broker.topic_names()?.contains(&topic) {
        let consumer = bench.broker.consumer("streamapp-e2e", Isolation::Committed)?;
        let written: i64 = bench.broker.ends(&consumer, &topic)?.values().sum();
        if written == records as i64 {
            return Ok(topic);
        }
        bench.broker.delete_topics(&[&topic])?;
    }
    eprintln!("bench: writing {records} orders to {topic}");
    bench.broker.create_topics(&[(&topic, PARTITIONS)])?;
    generate::run(&orders(bench, line, &topic))?;
    Ok(topic)
}

fn measure_line(bench: &Bench, line: &Line, started: SystemTime) -> Result<BTreeMap<Who, Vec<Run>>> {
    let stamp = started.duration_since(UNIX_EPOCH)?.as_secs();
    let mut runs: BTreeMap<Who, Vec<Run>> = BTreeMap::new();
    for repetition in 1..=bench.reps {
        for who in line.subjects.iter().filter(|who| bench.subjects.contains(who)) {
            let id = format!("bench-{}-{}-{repetition}-{stamp}", line.name, who.name());
            let names = Names {
                input: match line.load {
                    Load::Backlog => preload(bench, line)?,
                    Load::Paced => format!("{id}.in"),
                },
                output: format!("{id}.out"),
                directory: bench.state.join("bench").join(&id),
                application_id: id,
            };
            let run = measure_one(bench, line, *who, &names)
                .with_context(|| format!("{} by {}, repetition {repetition}", line.name, who.name()))?;
            eprintln!(
                "bench: {} {} {repetition}/{}: {:.0}/s steady, {:.2} CPU s/M, {} MiB{}",
                line.name,
                who.name(),
                bench.reps,
                run.steady_per_second,
                run.steady_cpu_per_million,
                run.peak_rss_bytes / 1_048_576,
                run.latency
                    .map_or(String::new(), |latency| format!(", p99 {:.0} ms", latency.p99_ms))
            );
            runs.entry(*who).or_default().push(run);
        }
    }
    Ok(runs)
}

fn measure_one(bench: &Bench, line: &Line, who: Who, names: &Names) -> Result<Run> {
    std::fs::create_dir_all(&names.directory)
        .with_context(|| format!("cannot make {}", names.directory.display()))?;
    bench.broker.create_topics(&[(&names.output, PARTITIONS)])?;
    let paced = match line.load {
        Load::Backlog => None,
        Load::Paced => {
            bench.broker.create_topics(&[(&names.input, PARTITIONS)])?;
            Some(orders(bench, line, &names.input))
        }
    };
    let command = subjects::command(bench, line, who, names)?;
    let log = names.directory.with_extension("log");
    let task = Task {
        broker: &bench.broker,
        line,
        names,
        records: line.records(bench),
        paced,
        broker_pid: bench.broker_pid,
        deadline: Duration::from_secs(bench.deadline),
    };
    let start = Instant::now();
    let run = Subject::start(&command, &log, &bench.broker.bootstrap)
        .and_then(|subject| task.measure(subject, start))
        .with_context(|| format!("its log is {}", log.display()));
    clean(bench, names)?;
    run
}

/// Removes what a run left in the broker and on the disk, so that the next one finds the machine as it was.
fn clean(bench: &Bench, names: &Names) -> Result<()> {
    let topics = bench.broker.topic_names()?;
    let own: Vec<&str> = topics
        .iter()
        .map(String::as_str)
        .filter(|topic| topic.starts_with(&names.application_id))
        .collect();
    bench.broker.delete_topics(&own)?;
    if let Err(error) = bench.broker.delete_group(&names.application_id) {
        eprintln!("bench: {error:#}");
    }
    std::fs::remove_dir_all(&names.directory)
        .with_context(|| format!("cannot remove {}", names.directory.display()))
}

/// The load average of the last minute.
fn load() -> f64 {
    std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(f64::NAN)
}
