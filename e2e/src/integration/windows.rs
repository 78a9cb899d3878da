//! Windows on a real broker: each result is computed again from the input, by the rules, while workers are killed at every
//! step of a transaction, between two windows that close, and while they read their stores back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rdkafka::producer::{BaseRecord, Producer as _};

use super::crash::environment;
use super::handover::{scale, wait_spread};
use super::scene::Scene;
use super::system::{Pair, Topic, bounce, difference, drained};
use super::{Counted, Integration, Test};
use crate::broker::{Isolation, REQUEST};
use crate::orders::{BASE_MS, SplitMix};
use crate::reader::{read_all, settle};
use crate::wait;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
const NAMES: [&str; 5] = ["data", "tumbling", "hopping", "sessions", "unique"];
const PARTITIONS: i32 = 3;
/// As in the file, in milliseconds.
const SIZE: i64 = 100;
const ADVANCE: i64 = 50;
const GRACE: i64 = 40;
const GAP: i64 = 30;
const SESSION_GRACE: i64 = 20;
const WITHIN: i64 = 50;
/// Records of a run with one crash, and records a second.
const RECORDS: u64 = 4_000;
const RATE: f64 = 1_000.0;

/// Crash points, and which pass of each crashes.
const POINTS: [(&str, u64); 7] = [
    ("during-close", 300),
    ("after-output", 16),
    ("after-changelog", 16),
    ("after-offsets", 16),
    ("commit-sent", 16),
    ("after-commit", 16),
    ("during-apply", 40),
];

pub(super) fn tests(args: &Integration) -> Vec<Test<'_>> {
    let mut tests: Vec<Test<'_>> = vec![("windows-under-faults".to_owned(), Box::new(|| under_faults(args)))];
    for (point, pass) in POINTS {
        let name = format!("crash-windows-{point}");
        tests.push((
            name.clone(),
            Box::new(move || crashed(args, &name, &[format!("{point}:{pass}")])),
        ));
    }
    let name = "crash-windows-restore";
    let twice = ["after-commit:16".to_owned(), "during-restore:1".to_owned()];
    tests.push((name.to_owned(), Box::new(move || crashed(args, name, &twice))));
    tests
}

/// The worker crashes while records come in, and is started again.
fn crashed(args: &Integration, name: &str, crash_at: &[String]) -> Result<Counted> {
    let scene = Scene::of_file(args, name, include_str!("windows.yaml"), &NAMES, PARTITIONS)?;
    let mut launch = scene.launch();
    launch.environment = environment(&scene, crash_at);
    let mut app = launch.start()?;
    app.wait_running(1, SECONDS(60))?;
    write(&scene, |written| written < RECORDS)?;
    drained(&scene, "data", &["sessions"])?;
    let crashes = app.events("died");
    ensure!(
        crashes == crash_at.len(),
        "{crashes} crashes instead of {}: {}",
        crash_at.len(),
        app.words()
    );
    let last = app.drain()?;
    ensure!(last["totals"]["storeWipes"] == 0, "a store was wiped: {last}");
    let counted = judge(&scene, crash_at.len() as u64)?;
    scene.clean()?;
    Ok(counted)
}

/// Three workers come, are killed and stopped in turn, and go, while records come in all the time.
fn under_faults(args: &Integration) -> Result<Counted> {
    let file = include_str!("windows.yaml");
    let scene = Scene::of_file(args, "windows-under-faults", file, &NAMES, PARTITIONS)?;
    let (data, hopping) = (format!("{}-data", scene.id), format!("{}-hopping", scene.id));
    let target = scene.target(&data, &hopping);
    let done = AtomicBool::new(false);
    let mut kills = 0;
    let mut app = scene.launch().start()?;
    std::thread::scope(|threads| {
        let written = threads.spawn(|| write(&scene, |_| !done.load(Ordering::Acquire)));
        let plot = (|| {
            app.wait_running(1, SECONDS(60))?;
            scale(&scene, &app, 3)?;
            wait_spread(&app, &[2, 2, 2])?;
            for worker in [0, 2, 1, 0] {
                bounce(&mut app, worker, Some(&target), 3)?;
                kills += 1;
            }
            bounce(&mut app, 1, None, 3)?;
            scale(&scene, &app, 1)?;
            wait_spread(&app, &[6])
        })();
        done.store(true, Ordering::Release);
        let written = written
            .join()
            .map_err(|_| anyhow::anyhow!("the producer panicked"))?;
        written.and(plot)
    })?;
    drained(&scene, "data", &["sessions"])?;
    app.drain()?;
    let counted = judge(&scene, kills)?;
    scene.clean()?;
    Ok(counted)
}

/// Values below 1,000 under twenty keys; their times go on a millisecond each, and some are late, a few too late.
fn write(scene: &Scene<'_>, goes_on: impl Fn(u64) -> bool) -> Result<()> {
    let producer = scene.producer(&[])?;
    let topic = format!("{}-data", scene.id);
    let (start, mut written) = (Instant::now(), 0);
    while goes_on(written) {
        let due = (start.elapsed().as_secs_f64() * RATE) as u64;
        while written < due && goes_on(written) {
            let mut random = SplitMix::of(11, written);
            let (key, value) = (format!("k{}", random.below(20)), random.below(1_000) as i64);
            let late = match random.below(10) {
                0 => random.below(200),
                1 | 2 => random.below(60),
                _ => 0,
            };
            let timestamp = BASE_MS + (written as i64 - late as i64).max(0);
            let value = value.to_be_bytes();
            let record = BaseRecord::to(&topic)
                .key(&key)
                .payload(&value[..])
                .timestamp(timestamp);
            producer.send(record).map_err(|(error, _)| error)?;
            written += 1;
        }
        producer.poll(Duration::ZERO);
        wait::pause();
    }
    producer.flush(REQUEST).context("flush the input")
}

/// Key, value and time of the input's records, by partition.
type Input = BTreeMap<i32, Vec<(Vec<u8>, i64, i64)>>;

fn judge(scene: &Scene<'_>, kills: u64) -> Result<Counted> {
    let mut input = Input::new();
    let topic = format!("{}-data", scene.id);
    settle(&scene.broker, &topic, SECONDS(60))?;
    read_all(
        &scene.broker,
        &topic,
        Isolation::Committed,
        SECONDS(60),
        |record| {
            let value = record.value.context("a record without value")?;
            let value = i64::from_be_bytes(value.try_into().context("a value that is no Long")?);
            let key = record.key.unwrap_or_default().to_vec();
            input
                .entry(record.partition)
                .or_default()
                .push((key, value, record.timestamp));
            Ok(())
        },
    )?;
    let mut records = 0;
    for (name, results) in [
        ("tumbling", tumbling as fn(&[(Vec<u8>, i64, i64)]) -> Vec<Pair>),
        ("hopping", hopping),
        ("sessions", sessions),
        ("unique", unique),
    ] {
        let wanted: Topic = input
            .iter()
            .map(|(partition, records)| (*partition, results(records)))
            .collect();
        let found = super::system::read(scene, &format!("{}-{name}", scene.id))?;
        let difference = difference(&found, &wanted);
        ensure!(difference.is_none(), "{name}: {}", difference.unwrap_or_default());
        records += wanted.values().map(Vec::len).sum::<usize>();
    }
    ensure!(records > 500, "only {records} results: the rules were not tried");
    Ok(Counted {
        kills,
        records: u64::try_from(records)?,
        ..Counted::default()
    })
}

/// A key as Kafka Streams writes it behind windows.
fn windowed(key: &[u8], times: &[i64]) -> Box<[u8]> {
    let times = times.iter().flat_map(|time| time.to_be_bytes());
    key.iter().copied().chain(times).collect()
}

fn tumbling(records: &[(Vec<u8>, i64, i64)]) -> Vec<Pair> {
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

fn hopping(records: &[(Vec<u8>, i64, i64)]) -> Vec<Pair> {
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

fn sessions(records: &[(Vec<u8>, i64, i64)]) -> Vec<Pair> {
    // End, start, key, sum.
    let (mut open, mut time, mut results) = (Vec::<(i64, i64, &[u8], i64)>::new(), i64::MIN, Vec::new());
    for (key, value, timestamp) in records {
        time = time.max(*timestamp);
        let is_near = |(end, start, of, _): &(i64, i64, &[u8], i64)| {
            *of == key.as_slice() && *end >= timestamp - GAP && *start <= timestamp + GAP
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

fn unique(records: &[(Vec<u8>, i64, i64)]) -> Vec<Pair> {
    let (mut kept, mut time, mut results) = (Vec::<(&[u8], i64, i64)>::new(), i64::MIN, Vec::new());
    for (key, value, timestamp) in records {
        time = time.max(*timestamp);
        kept.retain(|(.., before)| before + WITHIN >= time);
        let same = value % 10;
        let is_same = |(of, by, before): &(&[u8], i64, i64)| {
            *of == key.as_slice() && *by == same && (before - timestamp).abs() <= WITHIN
        };
        if timestamp + WITHIN >= time && !kept.iter().any(is_same) {
            kept.push((key, same, *timestamp));
            results.push((key.clone().into_boxed_slice(), *value));
        }
    }
    results
}
