//! `streamapp-e2e cluster-footprint`: what the operator costs, idle and with many applications, and how large things are.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use report::Report;
use serde::Serialize;
use serde_json::Value;

use super::app::{App, expect};
use super::kubectl::eventually;
use super::place::{Options, Setting};
use super::pods::Process;
use crate::bench::process::memory_bytes;
use crate::wait;

const NAMESPACE: &str = "streamapp-footprint";
const INPUT: &str = "footprint-in";
const OUTPUT: &str = "footprint-out";
/// How long all applications together may take to be ready.
const READY: Duration = Duration::from_secs(300);

/// Measures operator, worker, images and definition
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Footprint {
    #[command(flatten)]
    options: Options,
    /// StreamApps, without pods: the operator's work is the same, and the machine has room
    #[arg(long, default_value_t = 50)]
    apps: u32,
    /// How long CPU is measured, in seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Directory of the image archives
    #[arg(long, default_value = ".state/images")]
    images: PathBuf,
}

#[derive(Debug, Serialize)]
struct Figures {
    operator_idle: Cost,
    operator_with_apps: Cost,
    apps: u32,
    apps_ready_after_seconds: f64,
    worker_rss_mib: f64,
    operator_image_bytes: u64,
    worker_image_bytes: u64,
    crd_bytes: u64,
}

/// What a process takes.
#[derive(Debug, Serialize)]
struct Cost {
    /// Of one core, in percent.
    cpu_percent: f64,
    rss_mib: f64,
}

/// Runs the measurement; it judges nothing.
pub(crate) fn run(args: &Footprint) -> Result<bool> {
    let report = Report::begin("footprint", 7);
    let setting = Setting::prepare(&args.options)?;
    setting.remove_namespace(NAMESPACE)?;
    setting.cluster.create_namespace(NAMESPACE)?;
    let figures = measure(args, &setting);
    setting.remove_namespace(NAMESPACE)?;
    let figures = figures?;
    report.end(true, &figures)?;
    println!(
        "footprint: operator idle {:.1} % of a core, {:.0} MiB; with {} apps {:.1} %, {:.0} MiB, all ready after {:.0} s; worker {:.0} MiB",
        figures.operator_idle.cpu_percent,
        figures.operator_idle.rss_mib,
        figures.apps,
        figures.operator_with_apps.cpu_percent,
        figures.operator_with_apps.rss_mib,
        figures.apps_ready_after_seconds,
        figures.worker_rss_mib,
    );
    Ok(true)
}

fn measure(args: &Footprint, setting: &Setting) -> Result<Figures> {
    let operator = setting.operator().leader()?.operator()?;
    let operator_idle = cost(operator, args.seconds)?;
    let broker = &args.options.broker;
    let names = broker.topic_names()?;
    let old: Vec<&str> = names
        .iter()
        .filter(|name| name.starts_with("footprint-"))
        .map(String::as_str)
        .collect();
    broker.delete_topics(&old)?;
    broker.create_topics(&[(INPUT, 1), (OUTPUT, 1)])?;
    let worker = app(setting, "footprint-worker", 1);
    worker.apply()?;
    worker.wait_ready()?;
    worker.process(0, 2_000)?;
    let worker_rss_mib = rss_mib(worker.pod(0)?.worker()?)?;
    let started = Instant::now();
    let apps: Vec<_> = (0..args.apps)
        .map(|number| app(setting, &format!("footprint-{number}"), 0))
        .collect();
    apps.iter().try_for_each(App::apply)?;
    eventually("all applications to be ready", READY, || {
        let all = setting.cluster.list(NAMESPACE, "streamapps", "")?;
        let ready = |app: &&Value| expect(app, "Ready", "True", None).is_ok();
        let ready = all.iter().filter(ready).count();
        ensure!(ready == apps.len() + 1, "{ready} of {} are", apps.len() + 1);
        Ok(())
    })?;
    let apps_ready_after_seconds = started.elapsed().as_secs_f64();
    let operator_with_apps = cost(operator, args.seconds)?;
    Ok(Figures {
        operator_idle,
        operator_with_apps,
        apps: args.apps,
        apps_ready_after_seconds,
        worker_rss_mib,
        operator_image_bytes: size(&args.images.join("streamapp-operator.tar"))?,
        worker_image_bytes: size(&args.images.join("streamapp-worker.tar"))?,
        crd_bytes: size(
            &args
                .options
                .charts
                .join("streamapp-crds/templates/streamapps.yaml"),
        )?,
    })
}

fn app<'a>(setting: &'a Setting, name: &str, replicas: u32) -> App<'a> {
    App {
        setting,
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
        id: name.to_owned(),
        input: INPUT.to_owned(),
        output: OUTPUT.to_owned(),
        broker: setting.options.broker.clone(),
        replicas,
    }
}

fn cost(process: Process, seconds: u64) -> Result<Cost> {
    let (before, started) = (process.cpu_seconds()?, Instant::now());
    while started.elapsed() < Duration::from_secs(seconds) {
        wait::pause();
    }
    let used = process.cpu_seconds()? - before;
    Ok(Cost {
        cpu_percent: 100.0 * used / started.elapsed().as_secs_f64(),
        rss_mib: rss_mib(process)?,
    })
}

fn rss_mib(process: Process) -> Result<f64> {
    let bytes = memory_bytes(process.pid, "VmRSS").context("the process tells no VmRSS")?;
    Ok(bytes as f64 / f64::from(1 << 20))
}

fn size(file: &Path) -> Result<u64> {
    let metadata = std::fs::metadata(file).with_context(|| format!("look at {}", file.display()))?;
    Ok(metadata.len())
}
