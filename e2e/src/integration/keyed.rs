//! A store without a repartition: the worker is killed at every step under both guarantees, also while it drains, flushes and
//! reads its store back, and keys are deleted all the time.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::producer::{BaseRecord, Producer as _};

use super::crash::{ABORT, ABORTS, RUNNING, drain_crashed, environment, eventually, restore_row, rows};
use super::scene::Scene;
use super::system::{Pair, compare, drained, read, write_numbered, written_beside};
use super::{Counted, Integration, Test};
use crate::broker::{Isolation, REQUEST};
use crate::check::{Formats, Guarantee};
use crate::generate::send;
use crate::orders::{BASE_MS, SplitMix};
use crate::reader::{read_all, settle};

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
const PARTITIONS: i32 = 3;
/// Records of a run: at least so many.
const RECORDS: u64 = 3_000;

pub(super) fn tests(args: &Integration) -> Vec<Test<'_>> {
    let mut tests: Vec<Test<'_>> = Vec::new();
    for guarantee in Guarantee::ALL {
        let prefix = format!("crash-keyed-{}", guarantee.short());
        let run = move |name: &str, crash_at: &[String]| running(args, name, guarantee, crash_at);
        tests.extend(rows(&prefix, &RUNNING, run));
        tests.push(restore_row(format!("{prefix}-restore"), run));
        for point in ["during-drain", "during-flush"] {
            let name = format!("{prefix}-{point}");
            tests.push((
                name.clone(),
                Box::new(move || draining(args, &name, guarantee, point)),
            ));
        }
    }
    tests
}

/// The worker crashes while records come in, beside others whose transactions are aborted, and is started again.
fn running(args: &Integration, name: &str, guarantee: Guarantee, crash_at: &[String]) -> Result<Counted> {
    let scene = scene(args, name, guarantee, PARTITIONS)?;
    let mut launch = scene.launch();
    launch.environment = environment(&scene, crash_at);
    let mut app = launch.start()?;
    app.wait_running(1, SECONDS(60))?;
    written_beside(
        |done| {
            write(&scene, |written| {
                written < RECORDS || !done.load(Ordering::Acquire)
            })
        },
        || {
            (0..ABORTS).try_for_each(|abort| scene.abort_orders(abort * ABORT, ABORT))?;
            eventually("every crash", || Ok(app.events("died") >= crash_at.len()))
        },
    )?;
    drained(&scene, &["in"], &[])?;
    let kills = drain_crashed(app, crash_at)?;
    let counted = judge(&scene, kills)?;
    let is_sent = crash_at.iter().any(|at| at.starts_with("after-output"));
    ensure!(
        guarantee == Guarantee::ExactlyOnceV2 || !is_sent || counted.repeats > 0,
        "what was sent and not committed was to come again"
    );
    scene.clean()?;
    Ok(counted)
}

/// The worker crashes while it drains; the next start goes on.
fn draining(args: &Integration, name: &str, guarantee: Guarantee, point: &str) -> Result<Counted> {
    let scene = scene(args, name, guarantee, PARTITIONS)?;
    let mut launch = scene.launch();
    launch.environment = environment(&scene, &[format!("{point}:1")]);
    let mut app = launch.start()?;
    app.wait_running(1, SECONDS(60))?;
    write(&scene, |written| written < RECORDS)?;
    app.drain()?;
    let marker = scene.state_dir.join(format!("crashed-{point}"));
    ensure!(marker.exists(), "the crash point {point} was not reached");
    let mut again = scene.launch().start()?;
    again.wait_running(1, SECONDS(60))?;
    write(&scene, |written| written < RECORDS)?;
    drained(&scene, &["in"], &[])?;
    let last = again.drain()?;
    ensure!(last["totals"]["storeWipes"] == 0, "a store was wiped: {last}");
    let counted = judge(&scene, 1)?;
    scene.clean()?;
    Ok(counted)
}

/// The application, its topics empty.
pub(super) fn scene<'a>(
    args: &'a Integration,
    name: &str,
    guarantee: Guarantee,
    partitions: i32,
) -> Result<Scene<'a>> {
    let file = include_str!("keyed.yaml");
    Scene::of_file(args, name, guarantee, file, &["in", "out"], partitions)
}

/// The store's changelog.
pub(super) fn changelog(scene: &Scene<'_>) -> String {
    format!("{}-sums-changelog", scene.id)
}

/// Writes its input for as long as wanted.
pub(super) fn write(scene: &Scene<'_>, goes_on: impl Fn(u64) -> bool) -> Result<()> {
    write_numbered(scene, &[&scene.input()], numbered, goes_on)
}

/// Values below 1,000 under fifty keys; every tenth record deletes its key.
fn numbered(number: u64) -> (String, i64, Option<i64>) {
    let mut random = SplitMix::of(19, number);
    let (key, value) = (format!("k{}", random.below(50)), random.below(1_000) as i64);
    let deletes = random.below(10) == 0;
    (key, if deletes { -1 } else { value }, None)
}

/// Writes records, whose time depends on no clock, and waits until they are processed.
pub(super) fn put(scene: &Scene<'_>, records: &[(&str, i64)]) -> Result<()> {
    let (producer, topic) = (scene.producer(&[])?, scene.input());
    for (key, value) in records {
        let value = value.to_be_bytes();
        let record = BaseRecord::to(&topic).key(*key).payload(&value[..]);
        send(&producer, record.timestamp(BASE_MS))?;
    }
    producer.flush(REQUEST).context("flush the input")?;
    drained(scene, &["in"], &[])
}

/// What a store holds.
type Sums = BTreeMap<Box<[u8]>, i64>;

/// Computes every result again, and what the store holds in the end.
pub(super) fn judge(scene: &Scene<'_>, kills: u64) -> Result<Counted> {
    let mut sums = Sums::new();
    let input = read(scene, &scene.input())?.into_iter();
    let wanted = input.map(|(partition, records)| (partition, results(&mut sums, &records)));
    let mut counted = compare(scene, "out", &wanted.collect())?;
    counted.kills = kills;
    let stored = stored(scene)?;
    ensure!(
        stored == sums,
        "the changelog holds {stored:?} in the end, wanted {sums:?}"
    );
    Ok(counted)
}

fn results(sums: &mut Sums, records: &[Pair]) -> Vec<Pair> {
    let mut results = Vec::new();
    for (key, value) in records {
        if *value < 0 {
            sums.remove(key);
        } else {
            let sum = sums.entry(key.clone()).or_default();
            *sum += value;
            results.push((key.clone(), *sum));
        }
    }
    results
}

/// What the changelog says that the store holds. Each key lies in one partition.
fn stored(scene: &Scene<'_>) -> Result<Sums> {
    let (topic, mut sums) = (changelog(scene), Sums::new());
    settle(&scene.broker, &topic, SECONDS(60))?;
    read_all(
        &scene.broker,
        &topic,
        Isolation::Committed,
        SECONDS(60),
        |record| {
            let key = record.key.unwrap_or_default();
            match record.value {
                None => sums.remove(key),
                Some(value) => {
                    let entry = Formats::Streamapp.store_entry(value, record.timestamp);
                    let (_, sum) = entry.map_err(anyhow::Error::msg)?;
                    sums.insert(key.into(), sum)
                }
            };
            Ok(())
        },
    )?;
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_was_deleted_begins_anew() {
        let records = [("a", 1), ("b", 2), ("a", 3), ("a", -1), ("b", 4), ("a", 5)];
        let pairs = |pairs: &[(&str, i64)]| -> Vec<Pair> {
            let pairs = pairs.iter().map(|(key, value)| (key.as_bytes().into(), *value));
            pairs.collect()
        };
        let mut sums = Sums::new();
        let results = results(&mut sums, &pairs(&records));
        assert_eq!(
            results,
            pairs(&[("a", 1), ("b", 2), ("a", 4), ("b", 6), ("a", 5)])
        );
        let left = pairs(&[("a", 5), ("b", 6)]);
        assert_eq!(sums, left.into_iter().collect());
    }
}
