//! Copies of stores on other workers: they follow, they take tasks over without a replay, and crashes cost nothing.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::handover::{scale, total, wait_spread};
use super::scene::Scene;
use super::{Counted, Integration, Test};
use crate::app::{App, signal};
use crate::check::{Example, Guarantee};
use crate::wait;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
/// Stores that each of two workers has a copy of: half of the six partitions.
const COPIES: usize = 3;

pub(super) fn tests(args: &Integration) -> Vec<Test<'_>> {
    let mut tests: Vec<Test<'_>> = Vec::new();
    for (guarantee, short) in [(Guarantee::ExactlyOnceV2, "eos"), (Guarantee::AtLeastOnce, "alo")] {
        let name = format!("standby-{short}-takes-over");
        tests.push((name.clone(), Box::new(move || takes_over(args, &name, guarantee))));
        let name = format!("standby-{short}-killed");
        tests.push((name.clone(), Box::new(move || killed(args, &name, guarantee))));
    }
    tests
}

/// Two workers, and a copy of each store on the one that does not own it.
fn two_with_copies<'a>(args: &'a Integration, name: &str, guarantee: Guarantee) -> Result<(Scene<'a>, App)> {
    let scene = Scene::new(args, name, Example::OrdersRisk, guarantee)?;
    scene.write_file(|text| text.replace("  threads: 2\n", "  threads: 2\n  standbys: 1\n"))?;
    let mut launch = scene.launch();
    launch.workers = 2;
    let mut app = launch.start()?;
    app.wait_running(2, SECONDS(60))?;
    Ok((scene, app))
}

/// Waits until a worker's copies lack nothing.
fn wait_copies(app: &App, worker: u32) -> Result<()> {
    wait::until(
        &format!("{COPIES} copies of worker {worker} without lag"),
        SECONDS(60),
        || {
            let status = app.status(worker).map_err(|error| format!("{error:#}"))?;
            let tasks = status["tasks"].as_array().cloned().unwrap_or_default();
            let copies = tasks
                .iter()
                .filter(|task| task["state"] == "Standby" && task["lag"] == 0);
            if copies.count() == COPIES {
                Ok(Ok(()))
            } else {
                Err(status.to_string())
            }
        },
    )
}

/// A worker leaves; the other one has copies of its stores, and goes on without reading the changelogs again.
fn takes_over(args: &Integration, name: &str, guarantee: Guarantee) -> Result<Counted> {
    const BEFORE: u64 = 20_000;
    const DURING: u64 = 4_000;
    let (scene, app) = two_with_copies(args, name, guarantee)?;
    scene.orders(0, BEFORE, 5_000, None)?;
    scene.wait_drained(SECONDS(60))?;
    wait_copies(&app, 0)?;
    let (copied, restored) = (
        total(&app, 0, "standbyRecords")?,
        total(&app, 0, "restoredRecords")?,
    );
    scene.orders_beside(BEFORE, DURING, 1_000, || {
        scale(&scene, &app, 1)?;
        wait_spread(&app, &[12])
    })?;
    scene.wait_drained(SECONDS(60))?;
    // What was written between the last look of the copy and the end of the old owner.
    let tail = total(&app, 0, "restoredRecords")? - restored;
    ensure!(
        copied > 0 && tail < copied / 5,
        "the copies had read {copied} records, and {tail} were read again: {}",
        app.status(0)?
    );
    for count in ["fences", "aborts", "storeWipes"] {
        ensure!(total(&app, 0, count)? == 0, "{count}: {}", app.status(0)?);
    }
    ensure!(
        app.status(0)?["nonce"] == 1,
        "worker 0 acquired again: {}",
        app.status(0)?
    );
    // Whoever comes back finds its old stores, and both have copies again.
    scale(&scene, &app, 2)?;
    wait_spread(&app, &[6, 6])?;
    wait_copies(&app, 0)?;
    wait_copies(&app, 1)?;
    app.drain()?;
    let counted = scene.check(BEFORE + DURING, 0)?;
    scene.clean()?;
    Ok(counted)
}

/// Both workers are killed in turn while they own tasks and follow those of the other one; then one leaves.
fn killed(args: &Integration, name: &str, guarantee: Guarantee) -> Result<Counted> {
    const ORDERS: u64 = 16_000;
    let (scene, mut app) = two_with_copies(args, name, guarantee)?;
    let along = scene.read_along(&["out"])?;
    scene.orders_beside(0, ORDERS, 1_000, || {
        for worker in [0, 1, 0] {
            wait_copies(&app, worker)?;
            let pid = app.pid(worker)?;
            signal(pid, libc::SIGKILL)?;
            app.wait_successor(worker, pid)?;
            app.wait_running(2, SECONDS(60))?;
        }
        scale(&scene, &app, 1)?;
        wait_spread(&app, &[12])
    })?;
    scene.wait_drained(SECONDS(60))?;
    ensure!(total(&app, 0, "storeWipes")? == 0, "{}", app.status(0)?);
    app.drain()?;
    let mut counted = scene.check(ORDERS, 0)?;
    counted.kills = 3;
    counted += scene.judge_along(along)?;
    scene.clean()?;
    Ok(counted)
}
