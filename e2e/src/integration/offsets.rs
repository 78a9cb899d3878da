//! The group's offsets and the inputs are not what positions say: the worker holds, a person decides, and it goes on.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use super::crash::{environment, eventually};
use super::faults::{stateful, status_says, streamapp};
use super::scene::{PARTITIONS, Scene, with_stream_fields};
use super::{Counted, Integration};
use crate::app::{App, signal, tasks};
use crate::broker::Isolation;
use crate::reader::read_all;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// What `streamapp offsets` says with these options: exit code, state per input of the scene's topic, everything.
fn offsets(scene: &Scene<'_>, options: &[&str]) -> Result<(i32, Vec<Value>, String)> {
    let file = path(&scene.file)?;
    let arguments = [&["offsets", file, "-o", "json"], options].concat();
    let (code, said) = streamapp(scene.args, &arguments)?;
    let (from, to) = (said.find('['), said.rfind(']'));
    let list = from.zip(to).and_then(|(from, to)| said.get(from..=to));
    let inputs: Vec<Value> = serde_json::from_str(list.with_context(|| format!("no list in: {said}"))?)?;
    Ok((code, inputs, said))
}

/// Of the input's partition 0.
fn first<'a>(scene: &Scene<'_>, inputs: &'a [Value]) -> Result<&'a Value> {
    let mut inputs = inputs.iter();
    let first = inputs.find(|input| input["topic"] == scene.input().as_str() && input["partition"] == 0);
    first.context("no partition 0")
}

fn number(input: &Value, name: &str) -> Result<i64> {
    input[name]
        .as_i64()
        .with_context(|| format!("no {name}: {input}"))
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}

fn states<'a>(inputs: &'a [Value], state: &'a str) -> impl Iterator<Item = &'a Value> {
    inputs.iter().filter(move |input| input["state"] == state)
}

/// The group's offsets are deleted while nothing runs: the worker holds until they are restored from the positions.
pub(super) fn lost(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    scene.process(0, 1_000)?;
    scene.broker.delete_group(&scene.id)?;
    let mut app = scene.launch().start()?;
    scene.orders(1_000, 1_000, 0, None)?;
    // Of whichever input comes first; all of them are in the list.
    status_says(&app, &["OffsetsLost", &scene.id, "--restore"])?;
    let (code, inputs, said) = offsets(&scene, &[])?;
    ensure!(
        code == 1 && states(&inputs, "OffsetsLost").count() == 12,
        "exit code {code}: {said}"
    );
    let (code, inputs, said) = offsets(&scene, &["--restore"])?;
    ensure!(code == 0 && said.contains("restored"), "exit code {code}: {said}");
    ensure!(states(&inputs, "OffsetsLost").count() == 0, "{said}");
    app.wait_running(1, SECONDS(60))?;
    scene.wait_drained(SECONDS(60))?;
    // Of an application that runs nothing is restored.
    let (code, _, said) = offsets(&scene, &["--restore"])?;
    ensure!(
        code == 0 && !said.contains("restored"),
        "exit code {code}: {said}"
    );
    app.drain()?;
    let mut counted = scene.check(2_000, 0)?;
    counted.losses = 1;
    scene.clean()?;
    Ok(counted)
}

/// One of the group's offsets is set forward while nothing runs, as with any tool that resets offsets: the worker skips nothing,
/// and holds until the offset is restored from its positions.
pub(super) fn altered(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    scene.process(0, 1_000)?;
    scene.orders(1_000, 1_000, 0, None)?;
    let (_, inputs, _) = offsets(&scene, &[])?;
    let position = number(first(&scene, &inputs)?, "position")?;
    let altered = position + 5;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&scene.input(), 0, Offset::Offset(altered))?;
    let group = scene.broker.consumer(&scene.id, Isolation::Committed)?;
    group.commit(&list, CommitMode::Sync)?;
    let mut app = scene.launch().start()?;
    status_says(&app, &["OffsetsAltered", &scene.input(), "--restore"])?;
    let (code, inputs, said) = offsets(&scene, &[])?;
    ensure!(
        code == 1 && first(&scene, &inputs)?["state"] == "OffsetsAltered",
        "exit code {code}: {said}"
    );
    ensure!(states(&inputs, "OffsetsAltered").count() == 1, "{said}");
    let (code, _, said) = offsets(&scene, &["--restore"])?;
    let told = format!("the group's offset {altered} → {position}");
    ensure!(code == 0 && said.contains(&told), "exit code {code}: {said}");
    app.wait_running(1, SECONDS(60))?;
    scene.wait_drained(SECONDS(60))?;
    app.drain()?;
    let counted = scene.check(2_000, 0)?;
    scene.clean()?;
    Ok(counted)
}

/// The input gets more partitions while nothing runs: they are read from their first record, though the stream begins with
/// the latest.
pub(super) fn partitions_added(args: &Integration, name: &str) -> Result<Counted> {
    const MORE: i32 = PARTITIONS + 3;
    let scene = stateful(args, name)?;
    scene.write_file(|text| with_stream_fields(&text, &["offsetReset: Latest"]))?;
    scene.process(0, 1_000)?;
    scene.broker.add_partitions(&scene.input(), MORE)?;
    scene.orders(1_000, 1_000, 0, None)?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    let found = tasks(&app.status(0)?).count();
    let wanted = usize::try_from(MORE + PARTITIONS)?;
    ensure!(found == wanted, "{found} tasks run, not {wanted}");
    scene.wait_drained(SECONDS(60))?;
    app.drain()?;
    let counted = scene.check(2_000, 0)?;
    scene.clean()?;
    Ok(counted)
}

/// An application that begins with the latest record stops before it has processed any: what comes while it is away is not
/// skipped, for where it begins was committed when it started.
pub(super) fn stopped_at_once(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    scene.write_file(|text| with_stream_fields(&text, &["offsetReset: Latest"]))?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    app.drain()?;
    scene.orders(0, 1_000, 0, None)?;
    scene.process(1_000, 1_000)?;
    let counted = scene.check(2_000, 0)?;
    scene.clean()?;
    Ok(counted)
}

/// As [`stopped_at_once`], but it is killed, and commits nothing at its end. It does not say that it runs before it has
/// committed where it begins.
pub(super) fn killed_at_once(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    scene.write_file(|text| with_stream_fields(&text, &["offsetReset: Latest"]))?;
    let mut launch = scene.launch();
    launch.environment = environment(&scene, &["after-offsets:1:hang".to_owned()]);
    let mut app = launch.start()?;
    eventually(
        "one thread to begin, the other to stand still before it has",
        || {
            let status = app.status(0)?;
            let run = tasks(&status).filter(|task| task["state"] == "Running");
            let run: BTreeSet<_> = run.filter_map(|task| task["id"].as_str()).collect();
            let begun = begun(&scene)?;
            ensure!(
                run.iter().eq(&begun),
                "{run:?} run, {begun:?} have committed where they begin"
            );
            Ok(run.len() == 6 && scene.state_dir.join("crashed-after-offsets").exists())
        },
    )?;
    let status = app.status(0)?;
    ensure!(
        status["phase"] != "Running",
        "nobody knows yet where its tasks begin: {status}"
    );
    let hanging = app.pid(0)?;
    signal(hanging, libc::SIGKILL)?;
    app.wait_successor(0, hanging)?;
    app.wait_running(1, SECONDS(60))?;
    // Stopped first: a worker whose run is gone drains.
    let killed = app.pid(0)?;
    signal(killed, libc::SIGSTOP)?;
    drop(app);
    signal(killed, libc::SIGKILL)?;
    eventually("the worker to end", || {
        Ok(!Path::new(&format!("/proc/{killed}")).exists())
    })?;
    scene.orders(0, 1_000, 0, None)?;
    scene.process(1_000, 1_000)?;
    let mut counted = scene.check(2_000, 0)?;
    counted.kills = 2;
    scene.clean()?;
    Ok(counted)
}

/// Tasks that have committed where they begin.
fn begun(scene: &Scene<'_>) -> Result<BTreeSet<String>> {
    let mut begun = BTreeSet::new();
    let topic = format!("{}-positions", scene.id);
    read_all(
        &scene.broker,
        &topic,
        Isolation::Committed,
        SECONDS(30),
        |record| {
            let id = record.key.context("positions without a task")?;
            begun.insert(String::from_utf8(id.to_vec())?);
            Ok(())
        },
    )?;
    Ok(begun)
}

/// Offsets expire though the application runs, for it is idle: they are written again in time.
pub(super) fn of_an_idle_app(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    let mut launch = scene.launch();
    launch.arguments = ["--refresh-offsets", "2"].map(str::to_owned).to_vec();
    let mut app = launch.start()?;
    app.wait_running(1, SECONDS(60))?;
    scene.orders(0, 1_000, 0, None)?;
    scene.wait_drained(SECONDS(60))?;
    scene.broker.delete_group(&scene.id)?;
    eventually("the offsets to be written again", || {
        let (_, inputs, _) = offsets(&scene, &[])?;
        Ok(states(&inputs, "Good").count() == 12)
    })?;
    app.drain()?;
    scene.process(1_000, 1_000)?;
    let mut counted = scene.check(2_000, 0)?;
    counted.losses = 1;
    scene.clean()?;
    Ok(counted)
}

/// Records are deleted before they were processed: their task waits, the others go on, until a person lets them go. What is
/// missing then is what was deleted, so the checker has nothing to compare with.
pub(super) fn input_lost(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    scene.process(0, 1_000)?;
    scene.orders(1_000, 1_000, 0, None)?;
    let (_, inputs, _) = offsets(&scene, &[])?;
    let lost = first(&scene, &inputs)?;
    let (position, high) = (number(lost, "position")?, number(lost, "high")?);
    ensure!(high > position + 10, "nothing to lose: {lost}");
    scene.broker.delete_records(&scene.input(), 0, position + 10)?;
    let mut app = scene.launch().start()?;
    status_says(&app, &["InputLost", &scene.input(), "--skip-lost"])?;
    let (code, inputs, said) = offsets(&scene, &[])?;
    ensure!(
        code == 1 && states(&inputs, "InputLost").count() == 1,
        "exit code {code}: {said}"
    );
    let (code, _, said) = offsets(&scene, &["--skip-lost"])?;
    let told = format!("goes on at {}, not at {position}", position + 10);
    ensure!(code == 0 && said.contains(&told), "exit code {code}: {said}");
    app.wait_running(1, SECONDS(60))?;
    scene.wait_drained(SECONDS(60))?;
    let last = app.drain()?;
    ensure!(last["totals"]["storeWipes"] == 0, "{last}");
    // The task that lost records reads all that is left, each once.
    let (_, inputs, said) = offsets(&scene, &[])?;
    ensure!(states(&inputs, "Good").count() == 12, "{said}");
    let read = 2 * (1_000 - 10);
    ensure!(
        last["totals"]["recordsIn"] == read,
        "990 orders, each of them repartitioned, were to be read: {last}"
    );
    scene.clean()?;
    Ok(Counted {
        losses: 1,
        ..Counted::default()
    })
}

/// The same while it runs: what it has not fetched is deleted. It notices that its position is gone, and does not go on at
/// whatever is there.
pub(super) fn input_lost_while_running(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    scene.orders(0, 1_000, 0, None)?;
    scene.wait_drained(SECONDS(60))?;
    let worker = app.pid(0)?;
    signal(worker, libc::SIGSTOP)?;
    // The broker answers the fetches that wait with the first of them; what comes later the worker does not have.
    scene.orders(1_000, 100, 0, None)?;
    scene.orders(1_100, 900, 0, None)?;
    let all = scene.broker.consumer(&scene.id, Isolation::Uncommitted)?;
    let end = scene.broker.ends(&all, &scene.input())?;
    let low = end.get(&0).context("no partition 0")? - 10;
    scene.broker.delete_records(&scene.input(), 0, low)?;
    signal(worker, libc::SIGCONT)?;
    status_says(&app, &["InputLost", &scene.input(), "--skip-lost"])?;
    let (code, inputs, said) = offsets(&scene, &[])?;
    let input = first(&scene, &inputs)?;
    ensure!(
        code == 1 && input["state"] == "InputLost" && states(&inputs, "InputLost").count() == 1,
        "exit code {code}: {said}"
    );
    let lost = low - number(input, "position")?;
    ensure!(lost > 0, "{input}");
    let (code, _, said) = offsets(&scene, &["--skip-lost"])?;
    ensure!(
        code == 0 && said.contains(&format!("goes on at {low}")),
        "exit code {code}: {said}"
    );
    app.wait_running(1, SECONDS(60))?;
    scene.wait_drained(SECONDS(60))?;
    ensure!(app.events("died") == 0, "the worker died: {}", app.words());
    let last = app.drain()?;
    let read = 2 * (2_000 - lost);
    ensure!(
        last["totals"]["recordsIn"] == read && last["totals"]["storeWipes"] == 0,
        "{lost} of 2,000 orders were lost, the others are to be read, and repartitioned: {last}"
    );
    scene.clean()?;
    Ok(Counted::default())
}

/// An input is deleted and made again, while nothing runs and while it is read: the worker holds until a person says that the
/// new topic is to be read from its beginning. The state stays. There is no input left that the checker could compare with.
pub(super) fn topic_recreated(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    scene.process(0, 1_000)?;
    let recreate = || -> Result<()> {
        scene.broker.delete_topics(&[&scene.input()])?;
        scene.broker.create_topics(&[(&scene.input(), PARTITIONS)])
    };
    let hold_and_go_on = |app: &mut App| -> Result<()> {
        status_says(app, &["TopicRecreated", &scene.input(), "--skip-lost"])?;
        let (code, inputs, said) = offsets(&scene, &[])?;
        ensure!(
            code == 1 && states(&inputs, "TopicRecreated").count() == 6,
            "exit code {code}: {said}"
        );
        let (code, _, said) = offsets(&scene, &["--skip-lost"])?;
        ensure!(
            code == 0 && said.contains("goes on at 0"),
            "exit code {code}: {said}"
        );
        app.wait_running(1, SECONDS(60))
    };
    recreate()?;
    // As many records as the old topic had: no offset shows that they are others.
    scene.orders(1_000, 1_000, 0, None)?;
    let mut app = scene.launch().start()?;
    hold_and_go_on(&mut app)?;
    scene.wait_drained(SECONDS(60))?;
    recreate()?;
    scene.orders(2_000, 2_000, 0, None)?;
    hold_and_go_on(&mut app)?;
    scene.wait_drained(SECONDS(60))?;
    let last = app.drain()?;
    ensure!(
        last["totals"]["recordsIn"] == 2 * 3_000 && last["totals"]["storeWipes"] == 0,
        "3,000 orders, each of them repartitioned, were to be read: {last}"
    );
    scene.clean()?;
    Ok(Counted {
        losses: 2,
        ..Counted::default()
    })
}
