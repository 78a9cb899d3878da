//! What a worker may take: memory, and what topics take of it: the size of records.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::producer::{BaseRecord, Producer as _};
use serde_json::Value;

use super::faults::stateful;
use super::scene::Scene;
use super::{Counted, Integration};
use crate::app::App;
use crate::bench::process::memory_bytes;
use crate::broker::{Isolation, REQUEST};
use crate::check::Guarantee;
use crate::generate::send;
use crate::generate::{Generate, KeyedBy, run as generate};
use crate::reader::read_all;
use crate::wait;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// A backlog, many keys, and commits so rare that staged changes reach their bound: the worker stays below its limit.
pub(super) fn memory(args: &Integration, name: &str) -> Result<Counted> {
    const LIMIT_MIB: u64 = 224;
    const ORDERS: u64 = 400_000;
    let scene = stateful(args, name)?;
    scene.write_file(|text| {
        text.replace(
            "  threads: 2\n",
            &format!("  threads: 2\n  resources: {{limits: {{memory: {LIMIT_MIB}Mi}}}}\n"),
        )
        .replace(
            "    commitInterval: 100ms\n",
            "    commitInterval: 30s\n    transactionTimeout: 60s\n",
        )
    })?;
    generate(&Generate {
        broker: scene.broker.clone(),
        topic: scene.input(),
        keyed_by: KeyedBy::Order,
        count: ORDERS,
        first: 0,
        rate: 0,
        customers: 300_000,
        max_amount_cents: 200_000,
        seed: 7,
        bad_at: None,
        quiet: true,
    })?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    let pid = app.pid(0)?;
    let mut commits = 0;
    wait::until("all orders to be processed", SECONDS(180), || {
        let totals = &app.status(0).map_err(|error| format!("{error:#}"))?["totals"];
        commits = totals["commits"].as_u64().unwrap_or(0);
        let read = totals["recordsIn"].as_u64().unwrap_or(0);
        // Each order is repartitioned, and read again.
        if read >= 2 * ORDERS {
            Ok(Ok(()))
        } else {
            Err(format!("{read} are"))
        }
    })?;
    let peak = memory_bytes(pid, "VmHWM").context("the worker is gone")? >> 20;
    app.drain()?;
    println!("memory: limit_mib={LIMIT_MIB} peak_mib={peak} commits={commits}");
    ensure!(
        peak <= LIMIT_MIB,
        "the worker took {peak} MiB, its limit is {LIMIT_MIB}"
    );
    let counted = scene.check(ORDERS, 0)?;
    scene.clean()?;
    Ok(counted)
}

/// Topics take records of different sizes: one that a topic takes is written however large, one that it does not take stops
/// its task, and no other.
pub(super) fn record_sizes(args: &Integration, name: &str) -> Result<Counted> {
    const TOPICS: [&str; 4] = ["documents", "copies", "parts", "sizes"];
    let scene = sizes(args, name, &TOPICS)?;
    let topic = |name: &str| format!("{}-{name}", scene.id);
    for (name, bytes) in [("documents", "5000000"), ("copies", "3500000")] {
        scene
            .broker
            .set_topic_config(&topic(name), "max.message.bytes", bytes)?;
    }
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    let producer = scene.producer(&[("message.max.bytes", "5000000")])?;
    let send = |name: &str, partition: i32, bytes: usize| -> Result<()> {
        let (topic, value) = (topic(name), "x".repeat(bytes));
        let record = BaseRecord::to(&topic)
            .partition(partition)
            .key("k")
            .payload(&value);
        send(&producer, record)?;
        Ok(producer.flush(REQUEST)?)
    };
    send("documents", 0, 3_000_000)?;
    send("documents", 0, 4_000_000)?;
    send("documents", 1, 10)?;
    // The changelog has the broker's limit, a little over a million.
    for _ in 0..3 {
        send("parts", 0, 400_000)?;
    }
    failed(
        &app,
        "documents-0",
        &[
            "4000001 bytes",
            &topic("copies"),
            "takes 3499488",
            "max.message.bytes",
            "@1",
        ],
    )?;
    failed(&app, "parts-0", &["store `whole`", "its changelog takes", "@2"])?;
    send("documents", 1, 20)?;
    wait::until("the other task's output", SECONDS(60), || {
        let found = lengths(&scene, &topic("copies")).map_err(|error| format!("{error:#}"))?;
        if found == [10, 20, 3_000_000] {
            Ok(Ok(()))
        } else {
            Err(format!("records of {found:?} bytes"))
        }
    })?;
    let sizes = lengths(&scene, &topic("sizes"))?;
    ensure!(sizes == [6, 6], "400000 and 800000 were to be written: {sizes:?}");
    app.drain()?;
    scene.clean()?;
    Ok(Counted::default())
}

/// A result whose timestamp or missing key its topic would refuse stops its task, and no other. What the application keeps
/// for itself takes any time. When the topics take it, everything is written.
pub(super) fn times_and_keys(args: &Integration, name: &str) -> Result<Counted> {
    const TOPICS: [&str; 4] = ["documents", "copies", "parts", "sizes"];
    const ANY: (&str, &str) = ("message.timestamp.after.max.ms", "9223372036854775807");
    let scene = sizes(args, name, &TOPICS)?;
    let topic = |name: &str| format!("{}-{name}", scene.id);
    for name in ["documents", "parts", "sizes"] {
        scene.broker.set_topic_config(&topic(name), ANY.0, ANY.1)?;
    }
    scene
        .broker
        .set_topic_config(&topic("copies"), "cleanup.policy", "compact")?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    let producer = scene.producer(&[])?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let soon = i64::try_from(now.as_millis())? + 2 * 3_600_000;
    let send = |name: &str, partition: i32, key: Option<&str>| -> Result<()> {
        let topic = topic(name);
        let record = BaseRecord::<str, str>::to(&topic)
            .partition(partition)
            .payload("value")
            .timestamp(soon);
        let record = match key {
            Some(key) => record.key(key),
            None => record.timestamp(soon - 2 * 3_600_000),
        };
        send(&producer, record)?;
        Ok(producer.flush(REQUEST)?)
    };
    send("documents", 0, Some("k"))?;
    send("documents", 1, None)?;
    send("parts", 0, Some("k"))?;
    failed(
        &app,
        "documents-0",
        &[&topic("copies"), "after this machine's clock", ANY.0, "@0"],
    )?;
    failed(&app, "documents-1", &[&topic("copies"), "no key", "@0"])?;
    let written = |app: &App, name: &str, wanted: &[usize]| {
        wait::until(&format!("the records of {name}"), SECONDS(60), || {
            let found = lengths(&scene, &topic(name)).map_err(|error| format!("{error:#}"))?;
            if found == wanted {
                Ok(Ok(()))
            } else {
                Err(format!("records of {found:?} bytes: {}", app.words()))
            }
        })
    };
    written(&app, "sizes", &[1])?;
    ensure!(app.events("died") == 0, "the worker died: {}", app.words());
    app.drain()?;
    scene.broker.set_topic_config(&topic("copies"), ANY.0, ANY.1)?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    written(&app, "copies", &[5, 5])?;
    app.drain()?;
    scene.clean()?;
    Ok(Counted::default())
}

fn sizes<'a>(args: &'a Integration, name: &str, topics: &[&str]) -> Result<Scene<'a>> {
    let file = include_str!("sizes.yaml");
    Scene::of_file(args, name, Guarantee::ExactlyOnceV2, file, topics, 2)
}

/// Waits until a task has stopped and says why.
fn failed(app: &App, task: &str, parts: &[&str]) -> Result<()> {
    wait::until(
        &format!("task {task} to stop with {parts:?}"),
        SECONDS(60),
        || {
            let status = app.status(0).map_err(|error| format!("{error:#}"))?;
            let tasks = status["tasks"].as_array().cloned().unwrap_or_default();
            let task: Value = tasks
                .into_iter()
                .find(|found| found["id"] == task)
                .unwrap_or_default();
            let error = task["error"].as_str().unwrap_or_default();
            if task["state"] == "Failed" && parts.iter().all(|part| error.contains(part)) {
                Ok(Ok(()))
            } else {
                Err(task.to_string())
            }
        },
    )
}

/// Lengths of a topic's values, in their order.
fn lengths(scene: &Scene<'_>, topic: &str) -> Result<Vec<usize>> {
    let mut lengths = Vec::new();
    read_all(
        &scene.broker,
        topic,
        Isolation::Committed,
        SECONDS(30),
        |record| {
            lengths.push(record.value.map_or(0, <[u8]>::len));
            Ok(())
        },
    )?;
    lengths.sort_unstable();
    Ok(lengths)
}
