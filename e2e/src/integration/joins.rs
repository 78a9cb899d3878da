//! Joins and merges on a real broker: each result is computed again from the inputs, while workers are killed at every step of
//! a transaction, while records are forgotten, and while they read their stores back. In which order a task meets records of
//! several topics is nobody's promise, so what is compared does not depend on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rdkafka::producer::{BaseRecord, Producer as _};

use super::crash::{OUTSIDE, RUNNING, drain_crashed, environment, eventually, restore_row, rows};
use super::scene::Scene;
use super::system::{
    Numbered, Timed, come_and_go, counted, departure, drained, read_timed, write_numbered, written_beside,
};
use super::{Counted, Integration, Test};
use crate::broker::{Isolation, REQUEST};
use crate::check::Guarantee;
use crate::check::verdict::Repeats;
use crate::generate::send;
use crate::orders::{BASE_MS, SplitMix};
use crate::reader::read_all;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
const NAMES: [&str; 16] = [
    "left", "right", "rates", "limits", "paired", "moved", "enriched", "merged", "totals", "grouped",
    "priced", "calm", "owners", "named", "sums", "together",
];
/// Those that are written.
const OUTPUTS: [&str; 11] = [
    "paired", "moved", "enriched", "merged", "totals", "grouped", "priced", "calm", "named", "sums",
    "together",
];
const PARTITIONS: i32 = 3;
/// Tasks of all sub-topologies.
const TASKS: usize = 15;
/// Repartition topics, each behind those that feed it.
const REPARTITIONS: [&str; 6] = [
    "moved-left",
    "moved-right",
    "grouped",
    "named-subscriptions",
    "named-responses",
    "named-sums",
];
const KEYS: u64 = 40;
/// As in the file, in milliseconds.
const WITHIN: i64 = 50;
const BEFORE: i64 = 20;
const AFTER: i64 = 40;
const GRACE: i64 = 5_000;
const CALM: i64 = 30;
/// Records of a run with crashes: at least so many, and more, up to a bound, until it has crashed.
const RECORDS: u64 = 4_000;
const MOST: u64 = 40_000;
/// Beside the crash points of a running worker: between two records that are forgotten.
const DURING_CLOSE: (&str, u64) = ("during-close", 300);
/// When the last records of the streams come, in milliseconds.
const END: i64 = 100_000_000;
/// What the left side of a result is multiplied by.
const SIDE: i64 = 1_000_000;

pub(super) fn tests(args: &Integration) -> Vec<Test<'_>> {
    let mut tests: Vec<Test<'_>> = vec![
        ("joins-under-faults".to_owned(), Box::new(|| under_faults(args))),
        (
            "joins-in-the-order-of-time".to_owned(),
            Box::new(|| in_order(args)),
        ),
        ("joins-added-later".to_owned(), Box::new(|| added_later(args))),
    ];
    for (guarantee, prefix, points) in [
        (Guarantee::ExactlyOnceV2, "crash-joins", &RUNNING[..]),
        (Guarantee::AtLeastOnce, "crash-joins-alo", &OUTSIDE[..]),
    ] {
        let run = move |name: &str, crash_at: &[String]| crashed(args, name, guarantee, crash_at);
        tests.extend(rows(prefix, points.iter().chain([&DURING_CLOSE]), run));
        tests.push(restore_row(format!("{prefix}-restore"), run));
    }
    tests
}

/// The worker crashes while records come in, and is started again.
fn crashed(args: &Integration, name: &str, guarantee: Guarantee, crash_at: &[String]) -> Result<Counted> {
    let scene = scene(args, name, guarantee)?;
    let along = scene.read_along(&OUTPUTS)?;
    let mut launch = scene.launch();
    launch.environment = environment(&scene, crash_at);
    let mut app = launch.start()?;
    app.wait_running(1, SECONDS(60))?;
    // Tombstones of `limits`, and what is known of `rates` before the first record of a stream.
    tables(&scene, 0)?;
    write(&scene, |written| {
        written < RECORDS || (written < MOST && app.events("died") < crash_at.len())
    })?;
    tables(&scene, 1)?;
    complete(&scene)?;
    let kills = drain_crashed(app, crash_at)?;
    let mut counted = judge(&scene, kills)?;
    counted += scene.judge_along(along)?;
    scene.clean()?;
    Ok(counted)
}

/// Three workers come, are killed and stopped in turn, and go, while records come in all the time.
fn under_faults(args: &Integration) -> Result<Counted> {
    let scene = scene(args, "joins-under-faults", Guarantee::ExactlyOnceV2)?;
    let (left, merged) = (format!("{}-left", scene.id), format!("{}-merged", scene.id));
    let target = scene.target(&left, &merged);
    let mut kills = 0;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    tables(&scene, 0)?;
    written_while(&scene, || {
        kills = come_and_go(&scene, &mut app, &target, TASKS)?;
        Ok(())
    })?;
    tables(&scene, 1)?;
    complete(&scene)?;
    app.drain()?;
    let counted = judge(&scene, kills)?;
    scene.clean()?;
    Ok(counted)
}

/// What waits in several topics is read in the order of time.
fn in_order(args: &Integration) -> Result<Counted> {
    let scene = scene(args, "joins-in-order", Guarantee::ExactlyOnceV2)?;
    let numbered: Numbered = |number| {
        let (key, value, _) = numbered(number);
        (key, value, Some(BASE_MS + number as i64))
    };
    write_to_both(&scene, numbered, |written| written < RECORDS)?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    drained(&scene, &["left", "right"], &[])?;
    app.drain()?;
    let merged = read_timed(&scene, &format!("{}-merged", scene.id))?;
    let records: usize = merged.values().map(Vec::len).sum();
    for (partition, records) in &merged {
        let early = records.windows(2).find(|pair| pair[0].2 > pair[1].2);
        ensure!(early.is_none(), "partition {partition}: {early:?}");
    }
    ensure!(records as u64 >= RECORDS, "{records} of {RECORDS} records");
    scene.clean()?;
    Ok(Counted {
        records: u64::try_from(records)?,
        ..Counted::default()
    })
}

/// A stream that is merged in later is read from where it ended then, and the other one from where it was, though the worker is
/// killed at the first record: where the new one begins was committed before.
fn added_later(args: &Integration) -> Result<Counted> {
    let file = include_str!("merge.yaml");
    let scene = Scene::of_file(
        args,
        "joins-added",
        Guarantee::ExactlyOnceV2,
        file,
        &["left", "right", "merged"],
        PARTITIONS,
    )?;
    let both = std::fs::read_to_string(&scene.file)?;
    let lines = both.lines();
    let one: String = lines
        .filter(|line| {
            !["name: right", "steps:", "merge: {"]
                .iter()
                .any(|part| line.contains(part))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(&scene.file, one)?;
    let left = format!("{}-left", scene.id);
    write_numbered(&scene, &[&left], numbered, |written| written < 1_000)?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    drained(&scene, &["left"], &[])?;
    app.drain()?;

    std::fs::write(&scene.file, both)?;
    let mut launch = scene.launch();
    let crash_at = ["after-begin:1".to_owned()];
    launch.environment = environment(&scene, &crash_at);
    let mut app = launch.start()?;
    app.wait_running(1, SECONDS(60))?;
    // A worker that runs may not have begun each of its tasks yet.
    eventually("every task to begin", || {
        let status = app.status(0)?;
        let tasks = status["tasks"].as_array().context("no tasks")?;
        Ok(tasks.len() == 3 && tasks.iter().all(|task| task["state"] == "Running"))
    })?;
    write(&scene, |written| written < 2_000)?;
    drained(&scene, &["left", "right"], &[])?;
    let kills = drain_crashed(app, &crash_at)?;
    let mut wanted: Results = Vec::new();
    for (left, right) in inputs(&scene)?.into_values() {
        wanted.extend(left.into_iter().chain(right));
    }
    wanted.sort_unstable();
    same(&scene, "merged", &found(&scene, "merged")?, &wanted)?;
    scene.clean()?;
    Ok(Counted {
        kills,
        records: u64::try_from(wanted.len())?,
        ..Counted::default()
    })
}

/// The application, its topics empty.
pub(super) fn scene<'a>(args: &'a Integration, name: &str, guarantee: Guarantee) -> Result<Scene<'a>> {
    let file = include_str!("joins.yaml");
    Scene::of_file(args, name, guarantee, file, &NAMES, PARTITIONS)
}

/// Writes records of both streams for as long as something happens.
pub(super) fn written_while(scene: &Scene<'_>, happens: impl FnOnce() -> Result<()>) -> Result<()> {
    let write = |done: &AtomicBool| write(scene, |_| !done.load(Ordering::Acquire));
    written_beside(write, happens)
}

fn write(scene: &Scene<'_>, goes_on: impl Fn(u64) -> bool) -> Result<()> {
    write_to_both(scene, numbered, goes_on)
}

fn write_to_both(scene: &Scene<'_>, numbered: Numbered, goes_on: impl Fn(u64) -> bool) -> Result<()> {
    let topics = ["left", "right"].map(|name| format!("{}-{name}", scene.id));
    write_numbered(scene, &topics.each_ref().map(String::as_str), numbered, goes_on)
}

/// Values below 1,000 under few keys; their times go on a millisecond each, and some are late.
fn numbered(number: u64) -> (String, i64, Option<i64>) {
    let mut random = SplitMix::of(13, number);
    let (key, value) = (format!("k{}", random.below(KEYS)), 1 + random.below(999) as i64);
    let late = if random.below(5) == 0 {
        random.below(100)
    } else {
        0
    };
    let timestamp = BASE_MS + (number as i64 - late as i64).max(0);
    (key, value, Some(timestamp))
}

/// Writes rows of both tables and waits until they are there: first before all records of the streams, then behind them.
pub(super) fn tables(scene: &Scene<'_>, round: u64) -> Result<()> {
    let producer = scene.producer(&[])?;
    // Streams come while the first ones hold, one after the other.
    let timestamp = |number: u64| match round {
        0 => BASE_MS - 1 + number as i64 * 25,
        _ => BASE_MS + 2 * END,
    };
    if round > 0 {
        drained(scene, &["left", "right"], &[])?;
    }
    for number in 0..4 * KEYS {
        let mut random = SplitMix::of(17 + round, number);
        let key = format!("k{}", random.below(KEYS));
        let value = (1 + random.below(999)).to_be_bytes();
        // Streams find a rate for each key; afterwards rates go, too.
        let (name, value) = match random.below(6) {
            0 if round > 0 => ("rates", None),
            0 | 1 => ("rates", Some(value)),
            2 => ("limits", None),
            3 => ("limits", Some(value)),
            4 if round > 0 => ("owners", None),
            _ => ("owners", Some(value)),
        };
        let topic = format!("{}-{name}", scene.id);
        let record = BaseRecord::to(&topic).key(&key).timestamp(timestamp(number));
        let record = match &value {
            Some(value) => record.payload(&value[..]),
            None => record,
        };
        send(&producer, record)?;
    }
    producer.flush(REQUEST).context("flush the tables")?;
    drained(scene, &["rates", "limits", "owners"], &REPARTITIONS)
}

/// Ends all waiting of records for others, and waits for what comes of it.
pub(super) fn complete(scene: &Scene<'_>) -> Result<()> {
    let producer = scene.producer(&[])?;
    // Behind all others, on both sides.
    for name in ["left", "right"] {
        let topic = format!("{}-{name}", scene.id);
        for partition in 0..PARTITIONS {
            let (key, value) = (format!("end-{name}-{partition}"), 1i64.to_be_bytes());
            let record = BaseRecord::to(&topic).partition(partition);
            let record = record.key(&key).payload(&value[..]).timestamp(BASE_MS + END);
            send(&producer, record)?;
        }
    }
    producer.flush(REQUEST).context("flush the ends")?;
    drained(scene, &["left", "right"], &REPARTITIONS)?;
    eventually("every record to be forgotten", || {
        let (found, wanted) = paired(scene)?;
        same(scene, "paired", &found, &wanted).map(|_| true)
    })
}

/// Results of all partitions, in an order of their own.
type Results = Vec<(Box<[u8]>, i64, i64)>;

/// Records of the left and of the right stream.
type Sides = (Vec<Timed>, Vec<Timed>);

fn inputs(scene: &Scene<'_>) -> Result<BTreeMap<i32, Sides>> {
    let mut right = read_timed(scene, &format!("{}-right", scene.id))?;
    let left = read_timed(scene, &format!("{}-left", scene.id))?;
    let both = left.into_iter().map(|(partition, left)| {
        let right = right.remove(&partition).unwrap_or_default();
        (partition, (left, right))
    });
    Ok(both.collect())
}

fn found(scene: &Scene<'_>, name: &str) -> Result<Results> {
    let partitions = read_timed(scene, &format!("{}-{name}", scene.id))?;
    let mut found: Results = partitions.into_values().flatten().collect();
    found.sort_unstable();
    Ok(found)
}

/// All pairs of one partition: left and right record whose times are near.
fn pairs<'r>(
    left: &'r [Timed],
    right: &'r [Timed],
    (before, after): (i64, i64),
) -> Vec<(&'r Timed, &'r Timed)> {
    let mut by_key = BTreeMap::<&[u8], Vec<&Timed>>::new();
    for record in right {
        by_key.entry(&record.0).or_default().push(record);
    }
    by_key
        .values_mut()
        .for_each(|records| records.sort_by_key(|record| record.2));
    let mut pairs = Vec::new();
    for left in left {
        let others = by_key.get(&*left.0).map(Vec::as_slice).unwrap_or_default();
        let first = others.partition_point(|right| right.2 < left.2 - before);
        let near = others[first..]
            .iter()
            .take_while(|right| right.2 <= left.2 + after);
        pairs.extend(near.map(|right| (left, *right)));
    }
    pairs
}

fn joined((left, right): (&Timed, &Timed)) -> (Box<[u8]>, i64, i64) {
    (left.0.clone(), left.1 * SIDE + right.1, left.2.max(right.2))
}

/// Results of the outer join, found and wanted.
fn paired(scene: &Scene<'_>) -> Result<(Results, Results)> {
    let mut wanted = Results::new();
    for (left, right) in inputs(scene)?.values() {
        let met = pairs(left, right, (WITHIN, WITHIN));
        let latest = left.iter().chain(right).map(|record| record.2).max().unwrap_or(0);
        let alone = |side: &[Timed], is_met: &dyn Fn(&Timed) -> bool, factor: i64| -> Results {
            let is_over = |record: &&Timed| record.2 + WITHIN + GRACE < latest && !is_met(record);
            let alone = side.iter().filter(is_over);
            alone
                .map(|(key, value, at)| (key.clone(), value * factor, *at))
                .collect()
        };
        // Records by where they lie: there are equal ones.
        let (met_left, met_right): (BTreeSet<_>, BTreeSet<_>) = met
            .iter()
            .map(|(left, right)| (std::ptr::from_ref(*left), std::ptr::from_ref(*right)))
            .unzip();
        let is_met_left = |record: &Timed| met_left.contains(&std::ptr::from_ref(record));
        let is_met_right = |record: &Timed| met_right.contains(&std::ptr::from_ref(record));
        wanted.extend(alone(left, &is_met_left, SIDE));
        wanted.extend(alone(right, &is_met_right, 1));
        wanted.extend(met.iter().copied().map(joined));
    }
    wanted.sort_unstable();
    Ok((found(scene, "paired")?, wanted))
}

/// Computes every result again.
pub(super) fn judge(scene: &Scene<'_>, kills: u64) -> Result<Counted> {
    let inputs = inputs(scene)?;
    let (rates, limits) = (versions(scene, "rates")?, last(scene, "limits", BASE_MS + END)?);
    let mut moved: Results = inputs
        .values()
        .flat_map(|(left, right)| pairs(left, right, (BEFORE, AFTER)))
        .map(joined)
        .collect();
    let mut merged: Results = inputs
        .values()
        .flat_map(|(left, right)| left.iter().chain(right).cloned())
        .collect();
    let left = || inputs.values().flat_map(|(left, _)| left);
    let mut enriched: Results = left()
        .filter_map(|(key, value, at)| {
            let limit = limits.get(key)?.as_ref()?;
            Some((key.clone(), value * SIDE + limit, *at))
        })
        .collect();
    let mut priced: Results = left()
        .filter_map(|(key, value, at)| {
            let (_, rate) = rates.get(key)?.range(..=at).next_back()?;
            Some((key.clone(), value * SIDE + rate, *at))
        })
        .collect();
    let mut calm: Results = inputs
        .values()
        .flat_map(|(left, _)| last_of_each_wait(left))
        .collect();
    for results in [&mut moved, &mut merged, &mut enriched, &mut priced, &mut calm] {
        results.sort_unstable();
    }
    let (pairs, wanted) = paired(scene)?;
    let mut counted = Counted {
        kills,
        ..Counted::default()
    };
    for (name, found, wanted) in [
        ("paired", pairs, wanted),
        ("moved", found(scene, "moved")?, moved),
        ("merged", found(scene, "merged")?, merged),
        ("enriched", found(scene, "enriched")?, enriched),
        ("priced", found(scene, "priced")?, priced),
        ("calm", found(scene, "calm")?, calm),
    ] {
        counted += same(scene, name, &found, &wanted)?;
        ensure!(
            wanted.len() > 500,
            "only {} results of {name}: the rules were not tried",
            wanted.len()
        );
    }
    counted += grouped(scene, &inputs)?;
    counted += together(scene, &inputs)?;
    counted.records += u64::try_from(totals(scene)? + named(scene, &inputs)?)?;
    Ok(counted)
}

/// Whether these are the results, as the scene's guarantee has them.
fn same(scene: &Scene<'_>, name: &str, found: &Results, wanted: &Results) -> Result<Counted> {
    let tell = |result: Option<&(Box<[u8]>, i64, i64)>| {
        result.map_or("nothing".to_owned(), |(key, value, at)| {
            format!("{} = {value} at {at}", String::from_utf8_lossy(key))
        })
    };
    match departure(found, wanted, scene.guarantee.sinks()) {
        None => counted(found.len(), wanted.len()),
        Some((at, next)) => bail!(
            "{name}: {} results, wanted {}; the first that differs is {}, wanted {}",
            found.len(),
            wanted.len(),
            tell(found.get(at)),
            tell(wanted.get(next))
        ),
    }
}

/// Whether so many results are there, as the scene's guarantee has it: of those that depend on the order in which a task met its
/// records no more is known.
fn as_many(scene: &Scene<'_>, name: &str, wanted: usize) -> Result<Counted> {
    let found = found(scene, name)?.len();
    let right = match scene.guarantee.sinks() {
        Repeats::Forbidden => found == wanted,
        Repeats::Allowed => found >= wanted,
    };
    ensure!(right, "{name}: {found} results, wanted {wanted}");
    counted(found, wanted)
}

/// Visits key, value and timestamp of all records of a topic.
fn read_values(
    scene: &Scene<'_>,
    name: &str,
    mut visit: impl FnMut(Box<[u8]>, Option<i64>, i64),
) -> Result<()> {
    let topic = format!("{}-{name}", scene.id);
    read_all(
        &scene.broker,
        &topic,
        Isolation::Committed,
        SECONDS(60),
        |record| {
            let value = record.value.map(|value| value.try_into().map(i64::from_be_bytes));
            visit(
                record.key.unwrap_or_default().into(),
                value.transpose()?,
                record.timestamp,
            );
            Ok(())
        },
    )
    .map(drop)
}

/// Last values by key.
type Last = BTreeMap<Box<[u8]>, Option<i64>>;

/// Tells the first key whose last value is another one.
fn same_values(name: &str, found: &Last, wanted: &Last) -> Result<()> {
    let keys: BTreeSet<_> = found.keys().chain(wanted.keys()).collect();
    for key in keys {
        let (found, wanted) = (found.get(key), wanted.get(key));
        ensure!(
            found == wanted,
            "{name}: {} is {found:?} in the end, wanted {wanted:?}",
            String::from_utf8_lossy(key)
        );
    }
    Ok(())
}

/// The last value of each key, a null one too, of the records up to a time.
fn last(scene: &Scene<'_>, name: &str, until: i64) -> Result<Last> {
    let mut last = BTreeMap::new();
    read_values(scene, name, |key, value, timestamp| {
        if timestamp <= until {
            last.insert(key, value);
        }
    })?;
    Ok(last)
}

/// What keys had, from which time on.
type Versions = BTreeMap<Box<[u8]>, BTreeMap<i64, i64>>;

/// Those of a table.
fn versions(scene: &Scene<'_>, name: &str) -> Result<Versions> {
    let mut versions = Versions::new();
    read_values(scene, name, |key, value, timestamp| {
        // Others come when the streams have ended.
        if let Some(value) = value
            && timestamp < BASE_MS + END
        {
            versions.entry(key).or_default().insert(timestamp, value);
        }
    })?;
    Ok(versions)
}

/// The updates of a partition that go on: of each key the last one when the first one has waited for long enough.
fn last_of_each_wait(records: &[Timed]) -> Vec<Timed> {
    let (mut waiting, mut gone, mut time) = (BTreeMap::<&[u8], (i64, &Timed)>::new(), Vec::new(), 0);
    for record in records {
        time = time.max(record.2);
        waiting.entry(&record.0).or_insert((record.2, record)).1 = record;
        waiting.retain(|_, (first, last)| {
            let waits = *first > time - CALM;
            if !waits {
                gone.push((*last).clone());
            }
            waits
        });
    }
    gone
}

/// Each value that came counts in its group until the next one of its key: the last result of each group is the sum of those that
/// are there, and each change was told.
fn grouped(scene: &Scene<'_>, inputs: &BTreeMap<i32, Sides>) -> Result<Counted> {
    let group = |value: &i64| (value % 5 != 0).then(|| (value % 7).to_string().into_bytes());
    let (mut latest, mut changes) = (BTreeMap::new(), 0);
    for (key, value, _) in inputs.values().flat_map(|(left, _)| left) {
        let before = latest.insert(key, *value).and_then(|before| group(&before));
        // Within a group old and new value make one change.
        changes += BTreeSet::from([before, group(value)]).iter().flatten().count();
    }
    let mut wanted = BTreeMap::<Box<[u8]>, i64>::new();
    for value in latest.values() {
        let Some(group) = group(value) else { continue };
        *wanted.entry(group.into()).or_default() += value;
    }
    let counted = as_many(scene, "grouped", changes)?;
    let mut sums = last(scene, "grouped", i64::MAX)?;
    // Groups that are empty.
    sums.retain(|_, sum| *sum != Some(0));
    let wanted = wanted.into_iter().map(|(group, sum)| (group, Some(sum)));
    same_values("grouped", &sums, &wanted.collect())?;
    Ok(counted)
}

/// In the end each value of the left stream has what it names, and groups hold the sums of these; returns how many results there
/// were.
fn named(scene: &Scene<'_>, inputs: &BTreeMap<i32, Sides>) -> Result<usize> {
    let owners = last(scene, "owners", i64::MAX)?;
    let mut wanted = BTreeMap::<Box<[u8]>, i64>::new();
    for (key, value, _) in inputs.values().flat_map(|(left, _)| left) {
        let owner = (value % 3 != 0).then(|| format!("k{}", value % 40));
        let owner = owner.and_then(|owner| owners.get(owner.as_bytes()).copied().flatten());
        wanted.insert(key.clone(), value * SIDE + owner.unwrap_or(0));
    }
    let mut sums = BTreeMap::<Box<[u8]>, i64>::new();
    for value in wanted.values() {
        *sums
            .entry((value % 7).to_string().into_bytes().into())
            .or_default() += value;
    }
    for (name, wanted) in [("named", &wanted), ("sums", &sums)] {
        let mut found = last(scene, name, i64::MAX)?;
        // Groups that are empty.
        found.retain(|_, value| value.is_some_and(|value| value != 0));
        let wanted = wanted.iter().map(|(key, value)| (key.clone(), Some(*value)));
        same_values(name, &found, &wanted.collect())?;
    }
    Ok(found(scene, "named")?.len())
}

/// Each record of either stream made one result, and the last one of a key is the sum of all.
fn together(scene: &Scene<'_>, inputs: &BTreeMap<i32, Sides>) -> Result<Counted> {
    let (mut wanted, mut records) = (Last::new(), 0);
    for (left, right) in inputs.values() {
        let factors = [(left, 1), (right, SIDE)];
        for (key, value) in factors
            .iter()
            .flat_map(|(side, factor)| side.iter().map(move |(key, value, _)| (key, value * factor)))
        {
            let sum = wanted.entry(key.clone()).or_insert(Some(0));
            *sum = sum.map(|sum| sum + value);
            records += 1;
        }
    }
    let counted = as_many(scene, "together", records)?;
    same_values("together", &last(scene, "together", i64::MAX)?, &wanted)?;
    Ok(counted)
}

/// What is known in the end is the join of both tables; returns of how many keys.
fn totals(scene: &Scene<'_>) -> Result<usize> {
    let (rates, limits) = (last(scene, "rates", i64::MAX)?, last(scene, "limits", i64::MAX)?);
    let of = |table: &Last, key: &[u8]| table.get(key).copied().flatten();
    let keys: BTreeSet<_> = rates.keys().chain(limits.keys()).collect();
    let wanted = keys
        .into_iter()
        .filter_map(|key| match (of(&rates, key), of(&limits, key)) {
            (None, None) => None,
            (left, right) => Some((key.clone(), Some(left.unwrap_or(0) * SIDE + right.unwrap_or(0)))),
        });
    let wanted: Last = wanted.collect();
    let mut found = last(scene, "totals", i64::MAX)?;
    found.retain(|_, value| value.is_some());
    same_values("totals", &found, &wanted)?;
    Ok(wanted.len())
}
