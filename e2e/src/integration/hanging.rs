//! Transactions that nobody ends, as after a broker that lost their ends: the worker says so, waits for what they hold, and
//! goes on when they are gone.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use super::crash::eventually;
use super::faults::{stateful, status_says};
use super::scene::Scene;
use super::{Counted, Integration};
use crate::app::{App, tasks};
use crate::broker::REQUEST;
use crate::generate::send;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// Somebody else's producer, with an open transaction that the broker does not end by itself.
fn open(scene: &Scene<'_>, name: &str) -> Result<BaseProducer> {
    let id = format!("{}-foreign-{name}", scene.id);
    let producer = scene.producer(&[("transactional.id", &id), ("transaction.timeout.ms", "600000")])?;
    producer.init_transactions(REQUEST)?;
    producer.begin_transaction()?;
    Ok(producer)
}

/// An open transaction that has a record in partition 0 of an internal topic.
fn hold(scene: &Scene<'_>, name: &str) -> Result<BaseProducer> {
    let producer = open(scene, name)?;
    let topic = format!("{}-{name}", scene.id);
    let record = BaseRecord::to(&topic).partition(0).key("foreign").payload("{}");
    send(&producer, record)?;
    producer.flush(REQUEST)?;
    Ok(producer)
}

/// The group's offsets are held.
pub(super) fn of_offsets(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    scene.process(0, 1_000)?;
    let foreign = open(&scene, "offsets")?;
    let consumer: BaseConsumer = scene.broker.config().set("group.id", &scene.id).create()?;
    let group = consumer.group_metadata().context("the group's metadata")?;
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&scene.input(), 0, Offset::Offset(1))?;
    foreign.send_offsets_to_transaction(&offsets, &group, SECONDS(30))?;
    let mut app = scene.launch().start()?;
    scene.orders(1_000, 1_000, 0, None)?;
    status_says(&app, &["UnstableOffsets", &scene.id, "hanging-transactions.md"])?;
    foreign.abort_transaction(SECONDS(30))?;
    app.wait_running(1, SECONDS(60))?;
    scene.wait_drained(SECONDS(60))?;
    app.drain()?;
    let counted = scene.check(2_000, 0)?;
    scene.clean()?;
    Ok(counted)
}

/// A partition of the positions and one of a changelog are held, with records of the application behind: an end that a reader
/// of committed records is told lies before them. Nothing is done by what lies before.
pub(super) fn in_internal_topics(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    scene.orders(0, 1_000, 0, None)?;
    scene.wait_drained(SECONDS(60))?;
    let positions = hold(&scene, "positions")?;
    let changelog = hold(&scene, "exposure-by-customer-changelog")?;
    scene.orders(1_000, 1_000, 0, None)?;
    scene.wait_drained(SECONDS(60))?;
    app.drain()?;
    // Without its volume it needs the changelog.
    std::fs::remove_dir_all(scene.launch().state_dir.join("worker-0").join("state"))?;
    scene.orders(2_000, 1_000, 0, None)?;
    let mut app = scene.launch().start()?;
    status_says(&app, &["PositionsBlocked", "hanging-transactions.md"])?;
    let status = app.status(0)?;
    ensure!(
        tasks(&status).all(|task| task["state"] != "Running"),
        "tasks run without their positions: {status}"
    );
    positions.abort_transaction(SECONDS(30))?;
    // The others have processed what there is for them; it had as much time.
    eventually("all tasks but one to run", || one_restores(&app))?;
    let status = app.status(0)?;
    ensure!(
        status["phase"] != "Running",
        "the worker runs without a store: {status}"
    );
    changelog.abort_transaction(SECONDS(30))?;
    app.wait_running(1, SECONDS(60))?;
    scene.wait_drained(SECONDS(60))?;
    app.drain()?;
    let counted = scene.check(3_000, 0)?;
    scene.clean()?;
    Ok(counted)
}

/// Whether the task whose changelog is held is the only one that does not run, and the others have nothing left to do.
fn one_restores(app: &App) -> Result<bool> {
    let status = app.status(0)?;
    let others = tasks(&status)
        .filter(|task| task["state"] == "Running" && task["lag"].as_i64().is_some_and(|lag| lag <= 3));
    let held = |task: &Value| task["restore"]["remaining"].as_i64() > Some(0);
    let restoring = tasks(&status).filter(|task| task["state"] == "Restoring" && held(task));
    let counts = (others.count(), restoring.count());
    ensure!(counts == (11, 1), "{counts:?} tasks run and restore: {status}");
    Ok(true)
}
