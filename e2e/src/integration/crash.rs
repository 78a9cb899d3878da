//! The crash matrix: kill -9 (by itself, at a crash point) at every step, for both topologies and guarantees.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::scene::Scene;
use super::{Counted, Integration, Test};
use crate::app::App;
use crate::check::{Example, Guarantee};
use crate::wait;

/// How long a run may take to process everything again.
const DRAINED: Duration = Duration::from_secs(60);
/// Orders a second: a few dozen transactions.
const RATE: u64 = 1_000;

/// Transactions beside the orders that are aborted, and orders in each.
pub(super) const ABORTS: u64 = 5;
pub(super) const ABORT: u64 = 50;

/// Crash points that a running worker passes: the point, and which pass of it crashes. Up to a dozen transactions with
/// nothing but start vectors come first.
pub(super) const RUNNING: [(&str, u64); 7] = [
    ("after-begin", 5),
    ("after-output", 16),
    ("after-changelog", 16),
    ("after-offsets", 16),
    ("commit-sent", 16),
    ("after-commit", 16),
    ("during-apply", 40),
];

/// Of these, the ones at which outputs that are outside of the transaction may be further than what is in it, for topologies whose
/// rows would be as many again. Behind the commit is where a restore begins.
pub(super) const OUTSIDE: [(&str, u64); 4] = [
    ("after-output", 16),
    ("after-offsets", 16),
    ("commit-sent", 16),
    ("during-apply", 40),
];

/// The first crash leaves a changelog tail behind the store, the second hits while it is read.
pub(super) const RESTORE: [&str; 2] = ["after-commit:16", "during-restore:1"];

/// A row of the matrix: a run that is told its name and where it crashes.
fn row<'a>(
    name: String,
    crash_at: Vec<String>,
    run: impl Fn(&str, &[String]) -> Result<Counted> + Send + Sync + 'a,
) -> Test<'a> {
    (name.clone(), Box::new(move || run(&name, &crash_at)))
}

/// A row for each of these crash points.
pub(super) fn rows<'a, 'p>(
    prefix: &str,
    points: impl IntoIterator<Item = &'p (&'static str, u64)>,
    run: impl Fn(&str, &[String]) -> Result<Counted> + Copy + Send + Sync + 'a,
) -> Vec<Test<'a>> {
    let of_point = |(point, pass): &(&str, u64)| {
        let crash_at = vec![format!("{point}:{pass}")];
        row(format!("{prefix}-{point}"), crash_at, run)
    };
    points.into_iter().map(of_point).collect()
}

/// The row of [`RESTORE`].
pub(super) fn restore_row<'a>(
    name: String,
    run: impl Fn(&str, &[String]) -> Result<Counted> + Send + Sync + 'a,
) -> Test<'a> {
    row(name, RESTORE.map(str::to_owned).to_vec(), run)
}

pub(super) fn tests(args: &Integration) -> Vec<Test<'_>> {
    let mut tests: Vec<Test<'_>> = Vec::new();
    for topology in [Example::OrdersRisk, Example::Stateless] {
        for guarantee in Guarantee::ALL {
            let prefix = format!("crash-{}-{}", name(topology), guarantee.short());
            tests.extend(rows(&prefix, &RUNNING, move |name, crash_at| {
                running(args, name, topology, guarantee, crash_at)
            }));
            let points: &[&str] = match topology {
                Example::OrdersRisk => &["during-drain", "during-flush"],
                Example::Stateless => &["during-drain"],
            };
            for point in points {
                let name = format!("{prefix}-{point}");
                tests.push((
                    name.clone(),
                    Box::new(move || draining(args, &name, topology, guarantee, point)),
                ));
            }
        }
    }
    for guarantee in Guarantee::ALL {
        let name = format!("crash-restore-{}", guarantee.short());
        tests.push(restore_row(name, move |name, crash_at| {
            running(args, name, Example::OrdersRisk, guarantee, crash_at)
        }));
    }
    let name = "crash-standstill-eos";
    tests.push((name.to_owned(), Box::new(move || standstill(args, name))));
    tests
}

fn name(topology: Example) -> &'static str {
    match topology {
        Example::OrdersRisk => "stateful",
        Example::Stateless => "stateless",
    }
}

/// The worker crashes while orders come in, is started again, and everything must be right.
fn running(
    args: &Integration,
    name: &str,
    topology: Example,
    guarantee: Guarantee,
    crash_at: &[String],
) -> Result<Counted> {
    let scene = Scene::new(args, name, topology, guarantee)?;
    let along = scene.read_along(&["out"])?;
    let mut launch = scene.launch();
    launch.environment = environment(&scene, crash_at);
    let mut app = launch.start()?;
    app.wait_running(1, Duration::from_secs(60))?;
    // How many transactions some orders make depends on the machine: they come until the worker has crashed.
    let (written, ()) = scene.orders_while(RATE, || {
        (0..ABORTS).try_for_each(|abort| scene.abort_orders(abort * ABORT, ABORT))?;
        eventually("every crash", || Ok(app.events("died") >= crash_at.len()))
    })?;
    scene.orders(written, args.orders.saturating_sub(written), RATE, None)?;
    scene.wait_drained(DRAINED)?;
    let kills = drain_crashed(app, crash_at)?;
    let counted = scene.check(written.max(args.orders), 0)?;
    let mut counted = Counted { kills, ..counted };
    counted += scene.judge_along(along)?;
    scene.clean()?;
    Ok(counted)
}

/// Ends an application that must have crashed at each of these points, and wiped no store; returns how often it crashed.
pub(super) fn drain_crashed(app: App, crash_at: &[String]) -> Result<u64> {
    let crashes = app.events("died");
    ensure!(
        crashes == crash_at.len(),
        "{crashes} crashes instead of {}: {}",
        crash_at.len(),
        app.words()
    );
    let last = app.drain()?;
    ensure!(last["totals"]["storeWipes"] == 0, "a store was wiped: {last}");
    Ok(crashes as u64)
}

/// A stream thread stands still within a transaction: the worker ends itself and is started again.
fn standstill(args: &Integration, name: &str) -> Result<Counted> {
    let scene = Scene::new(args, name, Example::OrdersRisk, Guarantee::ExactlyOnceV2)?;
    let along = scene.read_along(&["out"])?;
    let mut launch = scene.launch();
    launch.environment = environment(&scene, &["after-changelog:12:hang".to_owned()]);
    launch.arguments = ["--standstill", "3"].map(str::to_owned).to_vec();
    let mut app = launch.start()?;
    app.wait_running(1, Duration::from_secs(60))?;
    scene.orders(0, args.orders, RATE, None)?;
    scene.wait_drained(DRAINED)?;
    let ends = app.events("died");
    ensure!(
        ends == 1 && app.words().contains("signal 6"),
        "{ends} ends: {}",
        app.words()
    );
    app.drain()?;
    let mut counted = scene.check(args.orders, 0)?;
    counted.kills = 1;
    counted += scene.judge_along(along)?;
    scene.clean()?;
    Ok(counted)
}

/// The worker crashes while it drains; the next start goes on.
fn draining(
    args: &Integration,
    name: &str,
    topology: Example,
    guarantee: Guarantee,
    point: &str,
) -> Result<Counted> {
    let scene = Scene::new(args, name, topology, guarantee)?;
    let along = scene.read_along(&["out"])?;
    let mut launch = scene.launch();
    launch.environment = environment(&scene, &[format!("{point}:1")]);
    let mut app = launch.start()?;
    app.wait_running(1, Duration::from_secs(60))?;
    let half = args.orders / 2;
    scene.orders(0, half, 0, None)?;
    app.drain()?;
    let marker = scene.state_dir.join(format!("crashed-{point}"));
    ensure!(marker.exists(), "the crash point {point} was not reached");
    scene.orders(half, args.orders - half, 0, None)?;
    let mut again = scene.launch().start()?;
    again.wait_running(1, Duration::from_secs(60))?;
    scene.wait_drained(DRAINED)?;
    again.drain()?;
    let mut counted = scene.check(args.orders, 0)?;
    counted.kills = 1;
    counted += scene.judge_along(along)?;
    scene.clean()?;
    Ok(counted)
}

/// Each crash point crashes once: a marker file remembers it across restarts.
pub(super) fn environment(scene: &Scene<'_>, crash_at: &[String]) -> Vec<(String, String)> {
    let directory = std::path::absolute(&scene.state_dir).unwrap_or_else(|_| scene.state_dir.clone());
    vec![
        ("STREAMAPP_CRASH_AT".to_owned(), crash_at.join(",")),
        (
            "STREAMAPP_CRASH_MARKERS".to_owned(),
            directory.display().to_string(),
        ),
    ]
}

/// Waits for `check` with a deadline; for faults that take time to be noticed.
pub(super) fn eventually(what: &str, check: impl Fn() -> Result<bool>) -> Result<()> {
    wait::until(what, Duration::from_secs(60), || match check() {
        Ok(true) => Ok(Ok(())),
        Ok(false) => Err("not yet".to_owned()),
        Err(error) => Err(error.to_string()),
    })
}
