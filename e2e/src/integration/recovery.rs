//! What a kill -9 costs an application with much state, as readers of its output see it: the changelog's tail, whatever the
//! number of keys.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use report::Report;
use serde::Serialize;
use serde_json::Value;

use super::faults::stateful;
use super::gap::{self, Reading};
use super::handover::total;
use super::scene::Scene;
use super::{Counted, Integration};
use crate::app::{App, signal};
use crate::broker::Isolation;
use crate::generate::{Generate, run as generate};
use crate::orders::Orders;
use crate::reader::read_all;
use crate::wait;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
/// Orders a second around the kill.
const RATE: u64 = 5_000;
const SEED: u64 = 7;
/// Of them this many seconds; the kill comes when a flush to disk is behind (they come every ten seconds).
const LOAD: u64 = 36;
const KILL_AFTER: Duration = Duration::from_secs(16);
/// What may pass until the first output, beside the time to restore: the aim, in seconds.
const AIM: f64 = 2.0;
/// What must not pass on the busiest machine, in seconds.
const LIMIT: f64 = 10.0;

/// The figures of `reports/recovery.json`.
#[derive(Debug, Serialize)]
struct Figures {
    /// Distinct keys in the store.
    keys: usize,
    /// Changelog records that the successor read.
    tail_records: u64,
    /// Of them per second.
    restore_rate: f64,
    /// From the first record of the control log to restoring.
    acquire_seconds: f64,
    /// From the last output before the kill to the next one that readers of committed records see.
    first_output_seconds: f64,
    stores_deleted: u64,
    /// Changelog records that a worker with an empty volume read, then.
    bulk_records: u64,
    /// Of them per second.
    bulk_rate: f64,
    /// Records a second that a bare consumer reads from the same changelog.
    bare_rate: f64,
    aim_seconds: f64,
    aim_met: bool,
}

/// Moments of a worker's life, in seconds of the day.
pub(super) struct Moments {
    acquiring: f64,
    restoring: f64,
    running: f64,
}

pub(super) fn after_kill(args: &Integration, name: &str) -> Result<Counted> {
    let report = Report::begin("recovery", SEED);
    let scene = stateful(args, name)?;
    let orders = Orders {
        seed: SEED,
        customers: args.recovery_keys,
        // Nearly each order gives an output at once, so that readers see every commit.
        max_amount_cents: 100_000_000,
    };
    let write = |first, count, rate| {
        generate(&Generate {
            broker: scene.broker.clone(),
            topic: scene.input(),
            count,
            first,
            rate,
            customers: orders.customers,
            max_amount_cents: orders.max_amount_cents,
            seed: orders.seed,
            bad_at: None,
            quiet: true,
        })
    };
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    let filled = orders.customers * 3;
    write(0, filled, 0)?;
    scene.wait_drained(SECONDS(300))?;
    let pid = app.pid(0)?;
    let first_output = gap::longest(&scene, Reading::Everything, || {
        std::thread::scope(|scope| {
            let load = scope.spawn(|| write(filled, RATE * LOAD, RATE));
            let kill = Instant::now() + KILL_AFTER;
            while Instant::now() < kill {
                wait::pause();
            }
            signal(pid, libc::SIGKILL)?;
            load.join()
                .map_err(|_| anyhow::anyhow!("the generator panicked"))?
                .map(|_| ())
        })
    })?
    .as_secs_f64();
    app.wait_running(1, SECONDS(60))?;
    scene.wait_drained(SECONDS(120))?;
    let moments = Moments::read(&scene.launch().state_dir.join("worker-0/worker.log"))?;
    let keys: BTreeSet<_> = (0..filled).map(|index| orders.customer(index)).collect();
    let (tail_records, stores_deleted) = (total(&app, 0, "restoredRecords")?, total(&app, 0, "storeWipes")?);
    let restoring = moments.restore_seconds();
    app.drain()?;
    let (bulk_records, bulk_seconds) = empty_volume(&scene)?;
    let bare_rate = bare_consumer(&scene)?;
    let figures = Figures {
        keys: keys.len(),
        tail_records,
        restore_rate: tail_records as f64 / restoring,
        acquire_seconds: moments.acquire_seconds(),
        first_output_seconds: first_output,
        stores_deleted,
        bulk_records,
        bulk_rate: bulk_records as f64 / bulk_seconds,
        bare_rate,
        aim_seconds: AIM + restoring,
        aim_met: first_output <= AIM + restoring,
    };
    let line = format!(
        "recovery: keys={} tail_records={tail_records} restore_rate={:.0} acquire_seconds={:.2} first_output_seconds={first_output:.2} aim_seconds={:.2} aim_met={} stores_deleted={stores_deleted} bulk_records={bulk_records} bulk_rate={:.0} bare_rate={bare_rate:.0}",
        figures.keys,
        figures.restore_rate,
        figures.acquire_seconds,
        figures.aim_seconds,
        figures.aim_met,
        figures.bulk_rate,
    );
    println!("{line}");
    let passed = tail_records > 0 && stores_deleted == 0 && first_output <= LIMIT;
    report.end(passed, &figures)?;
    ensure!(passed, "{line}");
    let written = filled + RATE * LOAD;
    let mut counted = scene.check(written, 0)?;
    counted.kills = 1;
    scene.clean()?;
    Ok(counted)
}

/// A volume is lost: records that were read back, and seconds that it took.
fn empty_volume(scene: &Scene<'_>) -> Result<(u64, f64)> {
    let worker = scene.launch().state_dir.join("worker-0");
    std::fs::remove_dir_all(worker.join("state")).context("lose the volume")?;
    let app = scene.launch().start()?;
    told_while_restoring(&app)?;
    let records = total(&app, 0, "restoredRecords")?;
    app.drain()?;
    Ok((
        records,
        Moments::read(&worker.join("worker.log"))?.restore_seconds(),
    ))
}

/// Looks at what the worker tells until it runs: what each task has left becomes less and never more, while what it has read
/// becomes more.
fn told_while_restoring(app: &App) -> Result<()> {
    let mut told = BTreeMap::<String, Vec<(i64, u64, u64)>>::new();
    wait::until("the worker to restore", SECONDS(300), || {
        let status = app.status(0).map_err(|error| format!("{error:#}"))?;
        for task in status["tasks"].as_array().into_iter().flatten() {
            let restore = &task["restore"];
            let number = |name: &str| restore[name].as_u64().unwrap_or(0);
            if number("records") > 0 {
                let left = restore["remaining"].as_i64().unwrap_or(-1);
                let of_task = told.entry(task["id"].to_string()).or_default();
                of_task.push((left, number("records"), number("bytes")));
            }
        }
        match status["phase"].as_str() {
            Some("Running") => Ok(Ok(())),
            phase => Err(format!("it is {phase:?}")),
        }
    })?;
    let pairs = || told.values().flat_map(|looks| looks.windows(2));
    let goes_back = pairs().find(|pair| {
        let ((left, records, bytes), now) = (pair[0], pair[1]);
        now.0 > left || now.1 < records || now.2 < bytes
    });
    ensure!(goes_back.is_none(), "a restore went back: {told:?}");
    let goes_on = |pair: &[(i64, u64, u64)]| pair[1].0 < pair[0].0 && pair[1].2 > pair[0].2;
    ensure!(pairs().any(goes_on), "no restore was seen to go on: {told:?}");
    Ok(())
}

/// Records a second of the store's changelog that a consumer reads that does nothing with them.
fn bare_consumer(scene: &Scene<'_>) -> Result<f64> {
    let changelog = format!("{}-exposure-by-customer-changelog", scene.id);
    let (started, mut records) = (Instant::now(), 0_u64);
    read_all(
        &scene.broker,
        &changelog,
        Isolation::Committed,
        SECONDS(300),
        |_| {
            records += 1;
            Ok(())
        },
    )?;
    Ok(records as f64 / started.elapsed().as_secs_f64())
}

impl Moments {
    pub(super) fn acquire_seconds(&self) -> f64 {
        since(self.acquiring, self.restoring)
    }

    fn restore_seconds(&self) -> f64 {
        since(self.restoring, self.running).max(0.001)
    }

    /// The last life in a worker's log.
    pub(super) fn read(log: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(log).with_context(|| format!("read {}", log.display()))?;
        let lines: Vec<Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let last = |phase: &str| {
            let entered =
                |line: &&Value| line["fields"]["message"] == "worker" && line["fields"]["phase"] == phase;
            let line = lines.iter().rev().find(entered);
            line.and_then(|line| second_of_day(line["timestamp"].as_str()?))
                .with_context(|| format!("{} tells no phase {phase}", log.display()))
        };
        Ok(Self {
            acquiring: last("Acquiring")?,
            restoring: last("Restoring")?,
            running: last("Running")?,
        })
    }
}

/// Seconds between two moments, also over midnight.
fn since(from: f64, to: f64) -> f64 {
    (to - from).rem_euclid(86_400.0)
}

/// Of `2026-11-27T17:37:36.426798Z`.
fn second_of_day(timestamp: &str) -> Option<f64> {
    let (_, time) = timestamp.trim_end_matches('Z').split_once('T')?;
    let mut parts = time.split(':').map(str::parse::<f64>);
    let mut next = || parts.next()?.ok();
    Some(next()? * 3600.0 + next()? * 60.0 + next()?)
}
