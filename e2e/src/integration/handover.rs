//! Tasks that move between workers that run: nothing is lost or repeated, nobody is fenced, and tasks that stay do not
//! stop; also when a worker is killed at any step of the handover, on either side.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rdkafka::consumer::Consumer as _;

use super::crash::environment;
use super::gap::{self, Reading};
use super::scene::Scene;
use super::{Counted, Integration, Test};
use crate::app::{App, signal};
use crate::broker::{Isolation, REQUEST};
use crate::check::{Example, Guarantee};
use crate::wait;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
/// Orders a second while tasks move.
const RATE: u64 = 1_000;
/// What readers of a partition never wait for a task that moves, on the busiest machine, in seconds.
const LONGEST_PAUSE: f64 = 10.0;

/// Crash points of a handover, with the number of workers before and after: of two workers the second gives its tasks up,
/// of one worker that gets company the first gives some up and the second starts them.
const POINTS: [(&str, u32, u32); 7] = [
    ("handover-begun", 2, 1),
    ("handover-committed", 2, 1),
    ("handover-closed", 2, 1),
    ("adopted", 2, 1),
    ("handover-committed", 1, 2),
    ("adopted", 1, 2),
    // Each worker starts six tasks, then the first gets those of the second.
    ("before-start:8", 2, 1),
];

pub(super) fn tests(args: &Integration) -> Vec<Test<'_>> {
    let mut tests: Vec<Test<'_>> = Vec::new();
    for guarantee in [Guarantee::ExactlyOnceV2, Guarantee::AtLeastOnce] {
        let short = match guarantee {
            Guarantee::ExactlyOnceV2 => "eos",
            Guarantee::AtLeastOnce => "alo",
        };
        let name = format!("handover-{short}-1-3-2");
        tests.push((
            name.clone(),
            Box::new(move || up_and_down(args, &name, guarantee)),
        ));
        for (point, before, after) in POINTS {
            let at = point.split(':').next().unwrap_or(point);
            let name = format!("handover-{short}-{at}-{before}-{after}");
            tests.push((
                name.clone(),
                Box::new(move || crash(args, &name, guarantee, point, (before, after))),
            ));
        }
    }
    let name = "handover-down-and-up-at-once";
    tests.push((name.to_owned(), Box::new(move || down_and_up(args, name))));
    let name = "handover-log-shortened";
    tests.push((name.to_owned(), Box::new(move || shortened(args, name))));
    let name = "handover-stopped-owner";
    tests.push((name.to_owned(), Box::new(move || stopped_owner(args, name))));
    tests
}

/// Asks a run for another number of workers, and waits until it has it.
pub(super) fn scale(scene: &Scene<'_>, app: &App, workers: u32) -> Result<()> {
    let launch = scene.launch();
    let output = Command::new(&launch.program)
        .arg("scale")
        .arg(&launch.file)
        .arg("--state-dir")
        .arg(&launch.state_dir)
        .args(["--workers", &workers.to_string()])
        .output()
        .context("run streamapp scale")?;
    ensure!(
        output.status.success(),
        "streamapp scale: {}; the run said:\n{}",
        String::from_utf8_lossy(&output.stderr),
        app.words()
    );
    Ok(())
}

/// Tasks that each worker runs; fails while one of them is not running.
fn tasks(app: &App, workers: u32) -> Result<Vec<usize>> {
    (0..workers)
        .map(|worker| {
            let status = app.status(worker)?;
            ensure!(status["phase"] == "Running", "worker {worker}: {status}");
            let tasks = status["tasks"].as_array().cloned().unwrap_or_default();
            Ok(tasks.iter().filter(|task| task["state"] != "Standby").count())
        })
        .collect()
}

pub(super) fn wait_spread(app: &App, wanted: &[usize]) -> Result<()> {
    let workers = u32::try_from(wanted.len())?;
    wait::until(
        &format!("tasks spread as {wanted:?}"),
        SECONDS(60),
        || match tasks(app, workers) {
            Ok(found) if found == wanted => Ok(Ok(())),
            Ok(found) => Err(format!("they are {found:?}; said:\n{}", app.words())),
            Err(error) => Err(format!("{error:#}; said:\n{}", app.words())),
        },
    )
}

/// What a worker says of a count.
pub(super) fn total(app: &App, worker: u32, name: &str) -> Result<u64> {
    let status = app.status(worker)?;
    status["totals"][name]
        .as_u64()
        .with_context(|| format!("worker {worker} tells no {name}"))
}

fn up_and_down(args: &Integration, name: &str, guarantee: Guarantee) -> Result<Counted> {
    const ORDERS: u64 = 12_000;
    let scene = Scene::new(args, name, Example::OrdersRisk, guarantee)?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    let pause = gap::longest(&scene, Reading::OnePartition, || {
        scene.orders_beside(0, ORDERS, RATE, || {
            scale(&scene, &app, 3)?;
            wait_spread(&app, &[4, 4, 4])?;
            scale(&scene, &app, 2)?;
            wait_spread(&app, &[6, 6])
        })
    })?
    .as_secs_f64();
    println!("{name}: longest_pause_seconds={pause:.2}");
    ensure!(
        pause <= LONGEST_PAUSE,
        "readers of a partition waited {pause:.1} s for tasks that moved"
    );
    scene.wait_drained(SECONDS(60))?;
    for worker in 0..2 {
        let status = app.status(worker)?;
        ensure!(
            status["nonce"] == 1,
            "worker {worker} acquired again, so tasks that stay have stopped: {status}"
        );
        ensure!(
            total(&app, worker, "fences")? == 0,
            "worker {worker} was fenced: {status}"
        );
        ensure!(
            total(&app, worker, "aborts")? == 0,
            "worker {worker} aborted: {status}"
        );
        ensure!(
            total(&app, worker, "storeWipes")? == 0,
            "worker {worker} wiped a store: {status}"
        );
    }
    ensure!(app.events("died") == 0, "a worker died: {}", app.words());
    app.drain()?;
    let counted = scene.check(ORDERS, 0)?;
    scene.clean()?;
    Ok(counted)
}

/// A worker is wanted again while its predecessor, which has given its tasks up, still drains.
fn down_and_up(args: &Integration, name: &str) -> Result<Counted> {
    const ORDERS: u64 = 6_000;
    let scene = Scene::new(args, name, Example::OrdersRisk, Guarantee::ExactlyOnceV2)?;
    let mut launch = scene.launch();
    launch.workers = 2;
    let mut app = launch.start()?;
    app.wait_running(2, SECONDS(60))?;
    scene.orders_beside(0, ORDERS, RATE, || {
        let leaving = app.pid(1)?;
        scale(&scene, &app, 1)?;
        // It stands still while it drains, unless it was faster.
        let _ = signal(leaving, libc::SIGSTOP);
        std::thread::scope(|threads| {
            let again = threads.spawn(|| scale(&scene, &app, 2));
            let until = Instant::now() + SECONDS(2);
            while Instant::now() < until && !again.is_finished() {
                wait::pause();
            }
            let _ = signal(leaving, libc::SIGCONT);
            again
                .join()
                .map_err(|_| anyhow::anyhow!("streamapp scale panicked"))?
        })?;
        wait_spread(&app, &[6, 6])
    })?;
    scene.wait_drained(SECONDS(60))?;
    ensure!(app.events("died") == 0, "a worker died: {}", app.words());
    app.drain()?;
    let mut counted = scene.check(ORDERS, 0)?;
    counted.stops = 1;
    scene.clean()?;
    Ok(counted)
}

/// The worker that passes the point first is killed there, and started again.
fn crash(
    args: &Integration,
    name: &str,
    guarantee: Guarantee,
    point: &str,
    (before, after): (u32, u32),
) -> Result<Counted> {
    const ORDERS: u64 = 6_000;
    let scene = Scene::new(args, name, Example::OrdersRisk, guarantee)?;
    let along = scene.read_along(&["out"])?;
    let mut launch = scene.launch();
    launch.workers = before;
    launch.environment = environment(&scene, &[point.to_owned()]);
    let mut app = launch.start()?;
    app.wait_running(before, SECONDS(60))?;
    scene.orders_beside(0, ORDERS, RATE, || {
        scale(&scene, &app, after)?;
        let share = 12 / usize::try_from(after)?;
        wait_spread(&app, &vec![share; usize::try_from(after)?])
    })?;
    scene.wait_drained(SECONDS(60))?;
    // A worker that has given everything up may be on its way out: it is not started again.
    let at = point.split(':').next().unwrap_or(point);
    let marker = scene.state_dir.join(format!("crashed-{at}"));
    ensure!(
        marker.exists(),
        "the crash point {at} was not reached: {}",
        app.words()
    );
    app.drain()?;
    let mut counted = scene.check(ORDERS, 0)?;
    counted.kills = 1;
    counted += scene.judge_along(along)?;
    scene.clean()?;
    Ok(counted)
}

/// A worker without anything under way stands still while its tasks are taken from it, and wakes when somebody else has
/// written their changelogs: what it then believes of its stores must not be wrong when the tasks come back to it.
fn stopped_owner(args: &Integration, name: &str) -> Result<Counted> {
    const ORDERS: u64 = 4_000;
    let scene = Scene::new(args, name, Example::OrdersRisk, Guarantee::ExactlyOnceV2)?;
    let mut launch = scene.launch();
    launch.workers = 2;
    let mut app = launch.start()?;
    app.wait_running(2, SECONDS(60))?;
    scene.orders(0, ORDERS, 0, None)?;
    scene.wait_drained(SECONDS(60))?;
    let stopped = app.pid(1)?;
    // Nothing is under way that would be found lost before anything else.
    let (mut commits, mut since) = (0, Instant::now());
    wait::until("worker 1 to be idle", SECONDS(60), || {
        let now = total(&app, 1, "commits").map_err(|error| format!("{error:#}"))?;
        if now != commits {
            (commits, since) = (now, Instant::now());
        }
        if since.elapsed() > SECONDS(3) {
            Ok(Ok(()))
        } else {
            Err(format!("{now} commits"))
        }
    })?;
    signal(stopped, libc::SIGSTOP)?;
    // It does not answer, so it is fenced after a while.
    scale(&scene, &app, 1)?;
    wait_spread(&app, &[12])?;
    scene.orders(ORDERS, ORDERS, 0, None)?;
    scene.wait_drained(SECONDS(60))?;
    signal(stopped, libc::SIGCONT)?;
    wait::until("the stopped worker to end", SECONDS(60), || {
        if Path::new(&format!("/proc/{stopped}")).exists() {
            Err("it is there".to_owned())
        } else {
            Ok(Ok(()))
        }
    })?;
    scale(&scene, &app, 2)?;
    wait_spread(&app, &[6, 6])?;
    scene.orders(2 * ORDERS, ORDERS, 0, None)?;
    scene.wait_drained(SECONDS(60))?;
    for worker in 0..2 {
        ensure!(total(&app, worker, "storeWipes")? == 0, "{}", app.status(worker)?);
    }
    app.drain()?;
    let mut counted = scene.check(3 * ORDERS, 0)?;
    counted.stops = 1;
    scene.clean()?;
    Ok(counted)
}

/// The control log is replaced by a snapshot again and again, while workers follow it and tasks move; those who come later
/// begin with the snapshot.
fn shortened(args: &Integration, name: &str) -> Result<Counted> {
    const ORDERS: u64 = 8_000;
    let scene = Scene::new(args, name, Example::OrdersRisk, Guarantee::ExactlyOnceV2)?;
    let mut launch = scene.launch();
    launch.arguments = ["--snapshot-after", "4"].map(str::to_owned).to_vec();
    let mut lows = vec![0];
    for (run, first) in [0, ORDERS / 2].into_iter().enumerate() {
        let mut app = launch.start()?;
        app.wait_running(1, SECONDS(60))?;
        scene.orders_beside(first, ORDERS / 2, RATE, || {
            scale(&scene, &app, 2)?;
            wait_spread(&app, &[6, 6])
        })?;
        scene.wait_drained(SECONDS(60))?;
        for worker in 0..2 {
            let status = app.status(worker)?;
            ensure!(
                status["nonce"] == 1,
                "run {run}, worker {worker} was disturbed: {status}"
            );
        }
        app.drain()?;
        let all = scene.broker.consumer(&scene.id, Isolation::Uncommitted)?;
        let (low, high) = all.fetch_watermarks(&format!("{}-control", scene.id), 0, REQUEST)?;
        ensure!(
            lows.last().is_some_and(|before| *before < low) && low < high,
            "run {run}: the control log has the offsets {low}..{high}, after {lows:?}"
        );
        lows.push(low);
    }
    let counted = scene.check(ORDERS, 0)?;
    scene.clean()?;
    Ok(counted)
}
