//! Windows on a real broker: each result is computed again from the input, by the rules, while workers are killed at every
//! step of a transaction, between two windows that close, and while they read their stores back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::crash::{OUTSIDE, RUNNING, drain_crashed, environment, restore_row, rows};
use super::scene::Scene;
use super::system::{Pair, Timed, come_and_go, compare, drained, read_timed, write_numbered, written_beside};
use super::{Counted, Integration, Test};
use crate::check::Guarantee;
use crate::orders::{BASE_MS, SplitMix};

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
/// What is read, and what is written.
const NAMES: [&str; 6] = ["data", "tumbling", "hopping", "sliding", "sessions", "unique"];
const PARTITIONS: i32 = 3;
/// As in the file, in milliseconds.
const SIZE: i64 = 100;
const ADVANCE: i64 = 50;
const GRACE: i64 = 40;
const DIFFERENCE: i64 = 40;
/// As late as records are.
const SLIDING_GRACE: i64 = 200;
const GAP: i64 = 30;
const SESSION_GRACE: i64 = 20;
const WITHIN: i64 = 50;
/// Records of a run with crashes: at least so many, and more, up to a bound, until it has crashed.
const RECORDS: u64 = 4_000;
const MOST: u64 = 40_000;

/// Beside those of a running worker: between two windows that close.
const DURING_CLOSE: (&str, u64) = ("during-close", 300);

pub(super) fn tests(args: &Integration) -> Vec<Test<'_>> {
    let mut tests: Vec<Test<'_>> = vec![("windows-under-faults".to_owned(), Box::new(|| under_faults(args)))];
    for (guarantee, prefix, points) in [
        (Guarantee::ExactlyOnceV2, "crash-windows", &RUNNING[..]),
        (Guarantee::AtLeastOnce, "crash-windows-alo", &OUTSIDE[..]),
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
    let along = scene.read_along(&NAMES[1..])?;
    let mut launch = scene.launch();
    launch.environment = environment(&scene, crash_at);
    let mut app = launch.start()?;
    app.wait_running(1, SECONDS(60))?;
    write(&scene, |written| {
        written < RECORDS || (written < MOST && app.events("died") < crash_at.len())
    })?;
    wait_drained(&scene)?;
    let kills = drain_crashed(app, crash_at)?;
    let mut counted = judge(&scene, kills)?;
    counted += scene.judge_along(along)?;
    scene.clean()?;
    Ok(counted)
}

/// Three workers come, are killed and stopped in turn, and go, while records come in all the time.
fn under_faults(args: &Integration) -> Result<Counted> {
    let scene = scene(args, "windows-under-faults", Guarantee::ExactlyOnceV2)?;
    let (data, hopping) = (format!("{}-data", scene.id), format!("{}-hopping", scene.id));
    let target = scene.target(&data, &hopping);
    let mut kills = 0;
    let mut app = scene.launch().start()?;
    written_while(&scene, || {
        app.wait_running(1, SECONDS(60))?;
        kills = come_and_go(&scene, &mut app, &target, 6)?;
        Ok(())
    })?;
    wait_drained(&scene)?;
    app.drain()?;
    let counted = judge(&scene, kills)?;
    scene.clean()?;
    Ok(counted)
}

/// The application, its topics empty.
pub(super) fn scene<'a>(args: &'a Integration, name: &str, guarantee: Guarantee) -> Result<Scene<'a>> {
    let file = include_str!("windows.yaml");
    Scene::of_file(args, name, guarantee, file, &NAMES, PARTITIONS)
}

/// Writes records for as long as something happens.
pub(super) fn written_while(scene: &Scene<'_>, happens: impl FnOnce() -> Result<()>) -> Result<()> {
    let write = |done: &AtomicBool| write(scene, |_| !done.load(Ordering::Acquire));
    written_beside(write, happens)
}

fn write(scene: &Scene<'_>, goes_on: impl Fn(u64) -> bool) -> Result<()> {
    write_numbered(scene, &[&format!("{}-data", scene.id)], numbered, goes_on)
}

pub(super) fn wait_drained(scene: &Scene<'_>) -> Result<()> {
    drained(scene, &["data"], &["sessions"])
}

/// Values below 1,000 under twenty keys; their times go on a millisecond each, and some are late, a few too late.
fn numbered(number: u64) -> (String, i64, Option<i64>) {
    let mut random = SplitMix::of(11, number);
    let (key, value) = (format!("k{}", random.below(20)), random.below(1_000) as i64);
    let late = match random.below(10) {
        0 => random.below(200),
        1 | 2 => random.below(60),
        _ => 0,
    };
    let timestamp = BASE_MS + (number as i64 - late as i64).max(0);
    (key, value, Some(timestamp))
}

/// Computes every result again.
pub(super) fn judge(scene: &Scene<'_>, kills: u64) -> Result<Counted> {
    let input = read_timed(scene, &format!("{}-data", scene.id))?;
    let mut counted = Counted {
        kills,
        ..Counted::default()
    };
    for (name, results) in [
        ("tumbling", tumbling as fn(&[Timed]) -> Vec<Pair>),
        ("hopping", hopping),
        ("sliding", sliding),
        ("sessions", sessions),
        ("unique", unique),
    ] {
        let partitions = input.iter();
        let wanted = partitions.map(|(partition, records)| (*partition, results(records)));
        counted += compare(scene, name, &wanted.collect())?;
    }
    let records = counted.records;
    ensure!(records > 500, "only {records} results: the rules were not tried");
    Ok(counted)
}

/// A key as Kafka Streams writes it behind windows.
fn windowed(key: &[u8], times: &[i64]) -> Box<[u8]> {
    let times = times.iter().flat_map(|time| time.to_be_bytes());
    key.iter().copied().chain(times).collect()
}

fn tumbling(records: &[Timed]) -> Vec<Pair> {
    let (mut open, mut time, mut results) = (BTreeMap::<(i64, &[u8]), i64>::new(), i64::MIN, Vec::new());
    for (key, value, timestamp) in records {
        time = time.max(*timestamp);
        let is_closed = |start: i64| start + SIZE + GRACE <= time;
        let start = timestamp - timestamp % SIZE;
        if !is_closed(start) {
            *open.entry((start, key)).or_default() += value;
        }
        while let Some(first) = open.first_entry().filter(|first| is_closed(first.key().0)) {
            let ((start, key), sum) = first.remove_entry();
            results.push((windowed(key, &[start]), sum));
        }
    }
    results
}

fn hopping(records: &[Timed]) -> Vec<Pair> {
    let (mut sums, mut time, mut results) = (BTreeMap::<(i64, &[u8]), i64>::new(), i64::MIN, Vec::new());
    for (key, value, timestamp) in records {
        time = time.max(*timestamp);
        let last = timestamp - timestamp % ADVANCE;
        for start in [last - ADVANCE, last] {
            if start + SIZE + GRACE > time {
                let sum = sums.entry((start, key)).or_default();
                *sum += value;
                results.push((windowed(key, &[start]), *sum));
            }
        }
    }
    results
}

/// No record is too late: a window that is closed has all records that are near to each other.
fn sliding(records: &[Timed]) -> Vec<Pair> {
    let mut by_key = BTreeMap::<&[u8], BTreeMap<i64, i64>>::new();
    for (key, value, timestamp) in records {
        let of_key = by_key.entry(key).or_default();
        *of_key.entry(*timestamp).or_default() += value;
    }
    let time = records.iter().map(|record| record.2).max().unwrap_or(i64::MIN);
    let mut windows = BTreeSet::<(i64, &[u8])>::new();
    for (key, values) in &by_key {
        let starts = values.keys().flat_map(|at| [at - DIFFERENCE, at + 1]);
        let closed = starts.filter(|start| start + DIFFERENCE + SLIDING_GRACE < time);
        windows.extend(closed.map(|start| (start, *key)));
    }
    let of_window = |(start, key): (i64, &[u8])| {
        let mut values = by_key.get(key)?.range(start..=start + DIFFERENCE).peekable();
        // Those that begin behind a record have another one.
        values.peek()?;
        Some((windowed(key, &[start]), values.map(|(_, value)| value).sum()))
    };
    windows.into_iter().filter_map(of_window).collect()
}

fn sessions(records: &[Timed]) -> Vec<Pair> {
    // End, start, key, sum.
    let (mut open, mut time, mut results) = (Vec::<(i64, i64, &[u8], i64)>::new(), i64::MIN, Vec::new());
    for (key, value, timestamp) in records {
        time = time.max(*timestamp);
        let is_near = |(end, start, of, _): &(i64, i64, &[u8], i64)| {
            *of == &**key && *end >= timestamp - GAP && *start <= timestamp + GAP
        };
        let (near, others): (Vec<_>, Vec<_>) = open.iter().copied().partition(is_near);
        let start = near.iter().map(|session| session.1).fold(*timestamp, i64::min);
        let end = near.iter().map(|session| session.0).fold(*timestamp, i64::max);
        let is_open = |end: i64| end + GAP + SESSION_GRACE >= time;
        if is_open(end) {
            let sum = near.iter().map(|session| session.3).sum::<i64>() + value;
            open = others;
            open.push((end, start, key, sum));
        }
        open.sort_unstable();
        let closed = open.iter().take_while(|session| !is_open(session.0)).count();
        for (end, start, key, sum) in open.drain(..closed) {
            results.push((windowed(key, &[end, start]), sum));
        }
    }
    results
}

fn unique(records: &[Timed]) -> Vec<Pair> {
    let (mut kept, mut time, mut results) = (Vec::<(&[u8], i64, i64)>::new(), i64::MIN, Vec::new());
    for (key, value, timestamp) in records {
        time = time.max(*timestamp);
        kept.retain(|(.., before)| before + WITHIN >= time);
        let same = value % 10;
        let is_same = |(of, by, before): &(&[u8], i64, i64)| {
            *of == &**key && *by == same && (before - timestamp).abs() <= WITHIN
        };
        if timestamp + WITHIN >= time && !kept.iter().any(is_same) {
            kept.push((key, same, *timestamp));
            results.push((key.clone(), *value));
        }
    }
    results
}
