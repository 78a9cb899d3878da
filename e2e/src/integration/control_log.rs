//! The control log is deleted, or loses its end: nothing goes on by itself, a person begins a new one, and whoever worked by the
//! old one cannot commit any more.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use rdkafka::consumer::Consumer as _;
use rdkafka::producer::{BaseRecord, Producer as _};
use serde_json::json;

use super::brokers::Own;
use super::crash::eventually;
use super::faults::{says, stateful, status_says, streamapp};
use super::scene::Scene;
use super::{Counted, Integration};
use crate::app::{App, Launch, signal};
use crate::broker::{Isolation, REQUEST};
use crate::generate::send;
use crate::reader::wait_still;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

pub(super) fn lost(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    let file = scene.file.display().to_string();
    let control = control(&scene);
    let mut launch = scene.launch();
    launch.workers = 2;
    let mut old = launch.start()?;
    old.wait_running(2, SECONDS(60))?;
    let (input, output) = (scene.input(), scene.output());
    let target = scene.target(&input, &output);
    let zombie = std::cell::Cell::new(0);
    scene.orders_beside(0, 8_000, 1_000, || {
        // It has a transaction open, and learns nothing of what comes.
        zombie.set(target.stop_at_work(1, || old.pid(1))?.pid);
        scene.broker.delete_topics(&[&control])
    })?;
    status_says(&old, &["ControlLogLost", &control, "--start-over"])?;
    let (code, said) = streamapp(args, &["control-log", &file])?;
    ensure!(code == 1, "exit code {code}: {said}");
    // Nobody makes a new one unasked, though the positions would be there.
    let mut other = scene.launch();
    other.state_dir = scene.state_dir.join("other");
    let mut refused = other.start()?;
    ensure!(refused.wait_end(SECONDS(60))? == 1, "it was to be refused");
    says(&refused.words(), &["control log", "was lost", "--start-over"])?;
    drop(old);
    let (code, said) = streamapp(args, &["control-log", &file, "--start-over"])?;
    ensure!(code == 0, "exit code {code}: {said}");
    says(&said, &["fenced 256 of 256", "claimed by  nobody"])?;
    // Another state directory, so another placement and no store: everything comes from positions and changelogs.
    let mut new = other.start()?;
    new.wait_running(1, SECONDS(60))?;
    scene.wait_drained(SECONDS(60))?;
    // It wakes with its transaction, which it must not be able to commit; then it ends, for its run is gone.
    signal(zombie.get(), libc::SIGCONT)?;
    eventually("the zombie to end", || {
        Ok(!Path::new(&format!("/proc/{}", zombie.get())).exists())
    })?;
    scene.orders(8_000, 1_000, 0, None)?;
    scene.wait_drained(SECONDS(60))?;
    let (code, said) = streamapp(args, &["control-log", &file])?;
    ensure!(code == 0, "exit code {code}: {said}");
    says(&said, &["other", "worker 0", "orders-0"])?;
    new.drain()?;
    let mut counted = scene.check(9_000, 0)?;
    (counted.stops, counted.losses) = (1, 1);
    scene.clean()?;
    Ok(counted)
}

/// Records that a log has lost.
const CUT: i64 = 2;
/// Orders that are processed before it has, and those that come behind.
const ORDERS: u64 = 1_000;

/// The broker has lost the end of the log, which stays shorter, or has grown again before the workers see it: as long as it was by
/// records of others, longer by those of a second command. Each time a person begins a new one, and nothing is lost or
/// repeated.
pub(super) fn cut(args: &Integration, name: &str) -> Result<Counted> {
    let own = Own::one(args, 19_392)?;
    own.call(&["up"])?;
    let args = own.instead_of(args);
    let scene = stateful(&args, name)?;
    let mut launch = scene.launch();
    launch.workers = 2;

    let app = at_rest(&scene, &launch, 0)?;
    let end = lose_end(&own, &scene)?;
    hold(&app, 2, &format!("it ends at offset {end}, "))?;
    start_over(&scene, app, ORDERS)?;

    let app = at_rest(&scene, &launch, 2 * ORDERS)?;
    let workers = [app.pid(0)?, app.pid(1)?];
    workers.iter().try_for_each(|pid| signal(*pid, libc::SIGSTOP))?;
    let last = lose_end(&own, &scene)? + 1;
    write_others(&scene)?;
    workers.iter().try_for_each(|pid| signal(*pid, libc::SIGCONT))?;
    hold(&app, 2, &format!("at offset {last} is another record"))?;
    start_over(&scene, app, 3 * ORDERS)?;

    at_rest(&scene, &launch, 4 * ORDERS)?.drain()?;
    let last = lose_end(&own, &scene)? + 1;
    // One worker instead of two: all tasks are assigned anew, and the other one's producers are fenced.
    let app = scene.launch().start()?;
    let gone = format!("the record at offset {last}, which this reader has applied, is gone");
    hold(&app, 1, &gone)?;
    start_over(&scene, app, 5 * ORDERS)?;

    let mut app = launch.start()?;
    app.wait_running(2, SECONDS(60))?;
    scene.wait_drained(SECONDS(60))?;
    app.drain()?;
    let mut counted = scene.check(6 * ORDERS, 0)?;
    (counted.stops, counted.losses) = (2, 3);
    std::fs::remove_dir_all(&scene.state_dir)?;
    Ok(counted)
}

fn control(scene: &Scene<'_>) -> String {
    format!("{}-control", scene.id)
}

/// An application that has processed [`ORDERS`] from the given one on, and has nothing under way that a broker which goes away
/// could leave open.
fn at_rest(scene: &Scene<'_>, launch: &Launch, first: u64) -> Result<App> {
    let mut app = launch.start()?;
    app.wait_running(launch.workers, SECONDS(60))?;
    scene.orders(first, ORDERS, 0, None)?;
    scene.wait_drained(SECONDS(60))?;
    wait_still(&scene.broker, SECONDS(60))?;
    Ok(app)
}

/// The broker loses the last [`CUT`] records; returns where the log ends now.
fn lose_end(own: &Own, scene: &Scene<'_>) -> Result<i64> {
    let all = scene.broker.consumer(&scene.id, Isolation::Uncommitted)?;
    let (_, end) = all.fetch_watermarks(&control(scene), 0, REQUEST)?;
    own.lose(&control(scene), end - CUT)?;
    Ok(end - CUT)
}

/// Writes as many records as were lost, which change nothing by themselves.
fn write_others(scene: &Scene<'_>) -> Result<()> {
    let (control, producer) = (control(scene), scene.producer(&[])?);
    for nonce in 0..CUT {
        let barrier = json!({"type": "Barrier", "ordinal": 0, "uid": "another", "nonce": nonce}).to_string();
        let record = BaseRecord::<(), _>::to(&control).partition(0).payload(&barrier);
        send(&producer, record)?;
    }
    Ok(producer.flush(REQUEST)?)
}

fn hold(app: &App, workers: u32, why: &str) -> Result<()> {
    eventually("the workers to hold", || {
        for worker in 0..workers {
            says(
                &app.status(worker)?.to_string(),
                &["ControlLogLost", why, "--start-over"],
            )?;
        }
        Ok(true)
    })
}

/// Ends an application that holds while [`ORDERS`] from the given one on come, and begins a new log.
fn start_over(scene: &Scene<'_>, app: App, first: u64) -> Result<()> {
    scene.orders(first, ORDERS, 0, None)?;
    app.drain()?;
    let file = scene.file.display().to_string();
    let arguments = ["control-log", &file, "--start-over", "--ordinals", "2"];
    let (code, said) = streamapp(scene.args, &arguments)?;
    ensure!(code == 0, "exit code {code}: {said}");
    Ok(())
}
