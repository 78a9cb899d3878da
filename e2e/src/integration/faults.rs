//! Bad input and faults: each ends in a clear error or state, and nothing is lost or repeated.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::bounds;
use super::brokers;
use super::changelogs;
use super::clock;
use super::control_log;
use super::crash::eventually;
use super::expiry;
use super::hanging;
use super::headers;
use super::identity;
use super::offsets;
use super::recovery;
use super::scene::{Scene, with_stream_fields};
use super::topologies;
use super::{Counted, Integration, Test};
use crate::app::{App, signal};
use crate::check::{Example, Guarantee};

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

type Plot = fn(&Integration, &str) -> Result<Counted>;

/// Faults that concern one application only.
pub(super) fn tests(args: &Integration) -> Vec<Test<'_>> {
    let tests: [(&str, Plot); 33] = [
        ("fault-unknown-field", unknown_field),
        ("fault-wrong-type-in-expression", wrong_type),
        ("fault-missing-topic", missing_topic),
        ("fault-wrong-bootstrap-address", wrong_address),
        ("fault-malformed-record-fail", malformed_fail),
        ("fault-malformed-record-skip", malformed_skip),
        ("fault-malformed-record-skipped-by-hand", malformed_by_hand),
        ("fault-live-consumer-in-group", live_consumer),
        ("fault-hanging-transaction", hanging::of_offsets),
        (
            "fault-hanging-transactions-in-internal-topics",
            hanging::in_internal_topics,
        ),
        ("fault-offsets-lost", offsets::lost),
        ("fault-offsets-altered", offsets::altered),
        ("fault-offsets-of-an-idle-app", offsets::of_an_idle_app),
        ("fault-input-lost", offsets::input_lost),
        (
            "fault-input-lost-while-running",
            offsets::input_lost_while_running,
        ),
        ("fault-partitions-added", offsets::partitions_added),
        ("fault-stopped-before-the-first-record", offsets::stopped_at_once),
        ("fault-killed-before-the-first-record", offsets::killed_at_once),
        ("fault-topic-recreated", offsets::topic_recreated),
        ("fault-control-log-lost", control_log::lost),
        ("fault-internal-topics-changed", topics_changed),
        ("fault-second-run-with-the-same-id", second_run),
        ("fault-full-disk", full_disk),
        ("fault-store-of-another-application", foreign_store),
        ("fault-lost-volume", lost_volume),
        ("fault-damaged-store", damaged_store),
        ("fault-changelog-recreated", changelogs::recreated),
        ("fault-clock-jumps", clock::jumps),
        ("topology-with-a-store-added", topologies::store_added),
        ("topology-with-a-store-changed", topologies::store_changed),
        ("headers-are-carried", headers::carried),
        ("bounds-of-records", bounds::record_sizes),
        ("bounds-of-times-and-keys", bounds::times_and_keys),
    ];
    named(args, &tests)
}

/// They have brokers of their own, beside the others; one waits for more than a minute.
pub(super) fn longest(args: &Integration) -> Vec<Test<'_>> {
    named(
        args,
        &[
            ("fault-expired-ids-and-offsets", expiry::of_ids_and_offsets),
            ("fault-old-volume", changelogs::old_volume),
            ("fault-changelog-cut", changelogs::cut),
            ("fault-control-log-cut", control_log::cut),
        ],
    )
}

/// Faults with brokers of their own, or that are timed: they need the machine for themselves.
pub(super) fn lone_tests(args: &Integration) -> Vec<Test<'_>> {
    let tests: [(&str, Plot); 5] = [
        ("fault-two-processes-of-one-ordinal", identity::two_processes),
        ("recovery-after-kill", recovery::after_kill),
        ("bounds-of-memory", bounds::memory),
        ("fault-broker-down-at-start-and-midstream", brokers::one_goes_away),
        ("fault-brokers-killed-of-three", brokers::three_are_killed_in_turn),
    ];
    named(args, &tests)
}

fn named<'a>(args: &'a Integration, tests: &[(&'static str, Plot)]) -> Vec<Test<'a>> {
    let test = |&(name, plot): &(&'static str, Plot)| -> Test<'a> {
        (name.to_owned(), Box::new(move || plot(args, name)))
    };
    tests.iter().map(test).collect()
}

pub(super) fn stateful<'a>(args: &'a Integration, name: &str) -> Result<Scene<'a>> {
    Scene::new(args, name, Example::OrdersRisk, Guarantee::ExactlyOnceV2)
}

/// Runs `streamapp` to its end.
pub(super) fn streamapp(args: &Integration, arguments: &[&str]) -> Result<(i32, String)> {
    let output = Command::new(&args.streamapp)
        .args(arguments)
        .output()
        .context("run streamapp")?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok((output.status.code().unwrap_or(-1), text))
}

pub(super) fn says(text: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    Ok(())
}

pub(super) fn status_says(app: &App, parts: &[&str]) -> Result<()> {
    eventually(&format!("a status with {parts:?}"), || {
        let status = app.status(0)?.to_string();
        match parts.iter().find(|part| !status.contains(**part)) {
            None => Ok(true),
            Some(part) => anyhow::bail!("`{part}` is not in {status}"),
        }
    })
}

fn unknown_field(args: &Integration, name: &str) -> Result<Counted> {
    let scene = Scene::without_topics(args, name, Example::OrdersRisk, Guarantee::ExactlyOnceV2)?;
    scene.write_file(|text| {
        text.replace("threads:", "threds:")
            .replace("selectKey:", "selectkey:")
    })?;
    let file = scene.file.display().to_string();
    let (code, text) = streamapp(args, &["run", &file])?;
    ensure!(code == 3, "exit code {code}: {text}");
    says(
        &text,
        &["threds", "threads", "selectkey", "selectKey", "app.yaml:", "^"],
    )?;
    let (code, text) = streamapp(args, &["validate", &file, "--output", "json"])?;
    let document: serde_json::Value = serde_json::from_str(&text).context("JSON output")?;
    ensure!(
        code == 3 && document["valid"] == false,
        "exit code {code}: {text}"
    );
    let errors = document["files"][0]["errors"].as_array().map_or(0, Vec::len);
    ensure!(errors == 2, "{errors} errors instead of 2: {text}");
    Ok(Counted::default())
}

fn wrong_type(args: &Integration, name: &str) -> Result<Counted> {
    let scene = Scene::without_topics(args, name, Example::OrdersRisk, Guarantee::ExactlyOnceV2)?;
    scene
        .write_file(|text| text.replace("aggregate + value.amountInCents", "aggregate + value.customerId"))?;
    let (code, text) = streamapp(args, &["validate", &scene.file.display().to_string()])?;
    ensure!(code == 3, "exit code {code}: {text}");
    says(&text, &["int", "string", "aggregate.add", "^"])?;
    Ok(Counted::default())
}

fn missing_topic(args: &Integration, name: &str) -> Result<Counted> {
    let scene = Scene::without_topics(args, name, Example::OrdersRisk, Guarantee::ExactlyOnceV2)?;
    let mut app = scene.launch().start()?;
    let code = app.wait_end(SECONDS(60))?;
    ensure!(code == 1, "exit code {code}");
    says(
        &app.words(),
        &[&scene.input(), "does not exist", "--create-topics"],
    )?;
    Ok(Counted::default())
}

fn wrong_address(args: &Integration, name: &str) -> Result<Counted> {
    let scene = Scene::without_topics(args, name, Example::OrdersRisk, Guarantee::ExactlyOnceV2)?;
    scene.write_file(|text| text.replace(&args.broker.bootstrap, "127.0.0.1:9"))?;
    let mut launch = scene.launch();
    launch.arguments = vec!["--connect-timeout".to_owned(), "1".to_owned()];
    let mut app = launch.start()?;
    let code = app.wait_end(SECONDS(60))?;
    ensure!(code == 1, "exit code {code}");
    says(&app.words(), &["127.0.0.1:9"])?;
    Ok(Counted::default())
}

fn malformed_fail(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    scene.orders(0, 2_000, 0, Some(1_000))?;
    status_says(&app, &["\"Failed\"", &scene.input(), "@", "onBadRecord: Skip"])?;
    // The other five partitions go on to their ends.
    eventually("the other tasks to finish", || {
        let status = app.status(0)?;
        let tasks = status["tasks"].as_array().context("tasks")?;
        let behind = tasks
            .iter()
            .filter(|task| task["state"] != "Failed" && task["lag"].as_i64().unwrap_or(0) > 3);
        Ok(behind.count() == 0)
    })?;
    ensure!(app.events("died") == 0, "the worker died");
    app.drain()?;
    // Once the stream is told to skip it, the task goes on from that very record.
    scene.write_file(|text| with_stream_fields(&text, &["onBadRecord: Skip"]))?;
    let mut again = scene.launch().start()?;
    again.wait_running(1, SECONDS(60))?;
    scene.wait_drained(SECONDS(60))?;
    again.drain()?;
    let counted = scene.check(1_999, 1)?;
    scene.clean()?;
    Ok(counted)
}

fn malformed_skip(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    scene.write_file(|text| with_stream_fields(&text, &["onBadRecord: Skip"]))?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    scene.orders(0, 2_000, 0, Some(1_000))?;
    scene.wait_drained(SECONDS(60))?;
    let last = app.drain()?;
    ensure!(last["totals"]["skipped"] == 1, "skipped is not 1: {last}");
    let counted = scene.check(1_999, 1)?;
    scene.clean()?;
    Ok(counted)
}

/// A person lets the task pass over its record; that is decided once, whatever crashes.
fn malformed_by_hand(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    scene.orders(0, 2_000, 0, Some(1_000))?;
    let bad = stopped_at(&app)?;
    let not_there = Stopped {
        offset: "1000000".to_owned(),
        ..bad.clone()
    };
    let not_read = Stopped {
        topic: "other".to_owned(),
        ..bad.clone()
    };
    not_there.skip(args, &scene, 1, "does not exist")?;
    not_read.skip(args, &scene, 1, "no task reads other")?;
    bad.skip(args, &scene, 0, "passes over")?;
    scene.wait_drained(SECONDS(60))?;
    let totals = app.status(0)?["totals"].clone();
    ensure!(totals["skippedByHand"] == 1, "{totals}");
    bad.skip(args, &scene, 1, "was processed")?;
    // The process that hears of it is killed, before its commit or behind it.
    for round in 1..=2 {
        scene.orders(round * 2_000, 2_000, 0, Some(round * 2_000 + 1_000))?;
        let bad = stopped_at(&app)?;
        let pid = app.pid(0)?;
        bad.skip(args, &scene, 0, "passes over")?;
        signal(pid, libc::SIGKILL)?;
        scene.wait_drained(SECONDS(60))?;
    }
    app.drain()?;
    let mut counted = scene.check(5_997, 3)?;
    counted.kills = 2;
    scene.clean()?;
    Ok(counted)
}

/// Where a task has stopped, in the words of the command.
#[derive(Clone)]
struct Stopped {
    topic: String,
    partition: String,
    offset: String,
}

impl Stopped {
    fn skip(&self, args: &Integration, scene: &Scene<'_>, wanted: i32, words: &str) -> Result<()> {
        let file = scene.file.display().to_string();
        let Self {
            topic,
            partition,
            offset,
        } = self;
        let place = ["--topic", topic, "--partition", partition, "--offset", offset];
        let (code, said) = streamapp(args, &[&["skip", &file][..], &place].concat())?;
        ensure!(code == wanted, "exit code {code}: {said}");
        says(&said, &[words])
    }
}

fn stopped_at(app: &App) -> Result<Stopped> {
    status_says(app, &["\"Failed\"", "streamapp skip FILE"])?;
    let status = app.status(0)?.to_string();
    let after = |option: &str| {
        let value = status.split(option).nth(1).and_then(|rest| {
            rest.split(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c)))
                .find(|word| !word.is_empty())
        });
        value
            .map(str::to_owned)
            .with_context(|| format!("{option} in {status}"))
    };
    Ok(Stopped {
        topic: after("--topic ")?,
        partition: after("--partition ")?,
        offset: after("--offset ")?,
    })
}

fn live_consumer(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    let consumer: BaseConsumer = scene.broker.config().set("group.id", &scene.id).create()?;
    consumer.subscribe(&[&scene.input()])?;
    eventually("the consumer to join", || {
        let _ = consumer.poll(Duration::from_millis(100));
        Ok(consumer.assignment()?.count() > 0)
    })?;
    let mut app = scene.launch().start()?;
    eventually("the worker to hold", || {
        let _ = consumer.poll(Duration::from_millis(10));
        Ok(app.status(0)?.to_string().contains("GroupInUse"))
    })?;
    drop(consumer);
    app.wait_running(1, SECONDS(60))?;
    scene.orders(0, 1_000, 0, None)?;
    scene.wait_drained(SECONDS(60))?;
    app.drain()?;
    let counted = scene.check(1_000, 0)?;
    scene.clean()?;
    Ok(counted)
}

/// Somebody gives internal topics another retention and another policy: both are set back and told, nothing is lost.
fn topics_changed(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    scene.process(0, 1_000)?;
    let internal = |part: &str| format!("{}-exposure-by-customer-{part}", scene.id);
    scene
        .broker
        .set_topic_config(&internal("repartition"), "retention.ms", "86400000")?;
    scene
        .broker
        .set_topic_config(&internal("changelog"), "cleanup.policy", "delete")?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    let changed = [
        format!("{}: retention.ms 86400000 → -1", internal("repartition")),
        format!("{}: cleanup.policy delete → compact", internal("changelog")),
    ];
    says(&app.words(), &["somebody had changed", &changed[0], &changed[1]])?;
    app.drain()?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    ensure!(
        !app.words().contains("somebody had changed"),
        "the topics were not set back: {}",
        app.words()
    );
    scene.orders(1_000, 1_000, 0, None)?;
    scene.wait_drained(SECONDS(60))?;
    app.drain()?;
    let counted = scene.check(2_000, 0)?;
    scene.clean()?;
    Ok(counted)
}

fn second_run(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    let mut same_directory = scene.launch().start()?;
    ensure!(
        same_directory.wait_end(SECONDS(30))? == 1,
        "a second run in the same directory must fail"
    );
    says(&same_directory.words(), &["another `streamapp run`"])?;
    let mut elsewhere = scene.launch();
    elsewhere.state_dir = scene.state_dir.join("elsewhere");
    let mut elsewhere = elsewhere.start()?;
    ensure!(
        elsewhere.wait_end(SECONDS(30))? == 1,
        "a second run elsewhere must fail"
    );
    says(&elsewhere.words(), &["is claimed by", "--take-over"])?;
    scene.orders(0, 1_000, 0, None)?;
    scene.wait_drained(SECONDS(60))?;
    ensure!(
        app.progress().is_some_and(|last| last["totals"]["fences"] == 0),
        "the first run was fenced"
    );
    app.drain()?;
    let counted = scene.check(1_000, 0)?;
    scene.clean()?;
    Ok(counted)
}

/// A small file system of its own.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path, size: &str) -> Result<Self> {
        std::fs::create_dir_all(at)?;
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(at)
            .status()?;
        ensure!(status.success(), "cannot mount a small tmpfs (root is needed)");
        Ok(Self(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// Appends until nothing fits any more.
fn fill(filler: &Path) -> Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::File::options().create(true).append(true).open(filler)?;
    while file.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
    Ok(())
}

fn full_disk(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    let at = scene.state_dir.join("app");
    let disk = SmallDisk::mount(&at, "24m")?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    scene.orders(0, args.orders, 0, None)?;
    scene.wait_drained(SECONDS(60))?;
    // All space goes, again and again: the next flush cannot be written.
    let filler = at.join("filler");
    fill(&filler)?;
    scene.orders(args.orders, args.orders, 0, None)?;
    eventually("the worker to hold for a full volume", || {
        fill(&filler)?;
        Ok(app.status(0)?["reason"] == "VolumeFull")
    })?;
    std::fs::remove_file(&filler)?;
    scene.wait_drained(SECONDS(60))?;
    app.drain()?;
    let mut counted = scene.check(args.orders * 2, 0)?;
    counted.losses = 1;
    drop(disk);
    scene.clean()?;
    Ok(counted)
}

fn foreign_store(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    app.drain()?;
    let other = Scene::new(args, "other-app", Example::OrdersRisk, Guarantee::ExactlyOnceV2)?;
    let mut launch = other.launch();
    launch.state_dir = scene.launch().state_dir;
    let mut refused = launch.start()?;
    ensure!(
        refused.wait_end(SECONDS(30))? == 1,
        "another application's directory must be refused"
    );
    says(&refused.words(), &["belongs to application", &scene.id])?;
    // The same, found by the worker: only its own directory is another's.
    let workers = (
        scene.launch().state_dir.join("worker-0"),
        other.launch().state_dir.join("worker-0"),
    );
    std::fs::create_dir_all(&workers.1)?;
    let copied = Command::new("cp")
        .arg("-r")
        .arg(workers.0.join("state"))
        .arg(&workers.1)
        .status()?;
    ensure!(copied.success(), "cannot copy the directory");
    let mut refused = other.launch().start()?;
    ensure!(
        refused.wait_end(SECONDS(60))? == 1,
        "another application's store must be refused"
    );
    says(&refused.words(), &["belongs to application", &scene.id])?;
    scene.clean()?;
    other.clean()?;
    Ok(Counted::default())
}

/// Data blocks of every store are overwritten: each is rebuilt, once. When it happens again at once the worker waits for a
/// person.
fn damaged_store(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    scene.process(0, args.orders)?;
    let tasks = scene.launch().state_dir.join("worker-0/state/tasks");
    let damaged = damage(&tasks)?;
    ensure!(damaged > 0, "there is nothing to damage in {}", tasks.display());
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    scene.orders(args.orders, args.orders, 0, None)?;
    scene.wait_drained(SECONDS(60))?;
    let last = app.drain()?;
    ensure!(
        last["totals"]["storeWipes"] == damaged,
        "{damaged} stores were damaged: {last}"
    );
    damage(&tasks)?;
    let mut app = scene.launch().start()?;
    scene.orders(args.orders * 2, args.orders, 0, None)?;
    status_says(
        &app,
        &["StoreDamaged", "does not keep what is written", ".set-aside-"],
    )?;
    for (path, _) in directories(&tasks)?.iter().filter(|(_, aside)| *aside) {
        std::fs::remove_dir_all(path)?;
    }
    app.wait_running(1, SECONDS(60))?;
    scene.wait_drained(SECONDS(60))?;
    app.drain()?;
    let mut counted = scene.check(args.orders * 3, 0)?;
    counted.losses = 2;
    scene.clean()?;
    Ok(counted)
}

/// Directories of stores, and whether they were set aside.
fn directories(tasks: &Path) -> Result<Vec<(PathBuf, bool)>> {
    let entries = std::fs::read_dir(tasks)?.map(|entry| {
        let entry = entry?;
        let aside = entry.file_name().to_string_lossy().contains(".set-aside-");
        Ok((entry.path(), aside))
    });
    entries.collect()
}

/// Overwrites data blocks, not those of the positions: only a read finds that. Returns how many stores were damaged.
fn damage(tasks: &Path) -> Result<u64> {
    let mut damaged = 0;
    for (path, _) in directories(tasks)?.iter().filter(|(_, aside)| !aside) {
        let mut hit = false;
        for file in std::fs::read_dir(path.join("db"))? {
            let file = file?.path();
            if file.extension().is_none_or(|extension| extension != "sst") {
                continue;
            }
            let mut bytes = std::fs::read(&file)?;
            if !bytes.windows(6).any(|part| part == b"asOfMs") {
                bytes[..32].fill(0xAA);
                std::fs::write(&file, bytes)?;
                hit = true;
            }
        }
        damaged += u64::from(hit);
    }
    Ok(damaged)
}

fn lost_volume(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    scene.orders(0, args.orders, 0, None)?;
    scene.wait_drained(SECONDS(60))?;
    app.drain()?;
    let volume = scene.launch().state_dir.join("worker-0").join("state");
    std::fs::remove_dir_all(&volume)?;
    let mut again = scene.launch().start()?;
    again.wait_running(1, SECONDS(60))?;
    scene.orders(args.orders, args.orders, 0, None)?;
    scene.wait_drained(SECONDS(60))?;
    let last = again.drain()?;
    ensure!(
        last["totals"]["restoredRecords"].as_u64() > Some(0),
        "nothing was restored: {last}"
    );
    let mut counted = scene.check(args.orders * 2, 0)?;
    counted.losses = 1;
    scene.clean()?;
    Ok(counted)
}
