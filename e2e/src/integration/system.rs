//! Two of Kafka's own system tests, written anew: `streams_eos_test.py` (workers are added, stopped and killed in its
//! order, each result is computed again from the input) and `transactions_test.py` (100,000 messages in transactions of
//! 750 are copied while the copier is bounced, and read meanwhile).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseRecord, Producer as _};

use super::handover::{scale, wait_spread};
use super::scene::Scene;
use super::{Counted, Integration, Test};
use crate::app::{App, signal};
use crate::broker::{Isolation, REQUEST};
use crate::check::Guarantee;
use crate::check::verdict::Repeats;
use crate::drained::{WaitDrained, run as wait_drained};
use crate::generate::send;
use crate::hit::Target;
use crate::orders::SplitMix;
use crate::reader::{from_beginning, read_all, settle};
use crate::wait;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

pub(super) fn tests(args: &Integration) -> Vec<Test<'_>> {
    vec![
        (
            "system-eos-test".to_owned(),
            Box::new(|| eos_test(args, "eos-test", Guarantee::ExactlyOnceV2)),
        ),
        (
            "system-eos-test-alo".to_owned(),
            Box::new(|| eos_test(args, "eos-test-alo", Guarantee::AtLeastOnce)),
        ),
        (
            "system-transactions-test".to_owned(),
            Box::new(|| transactions_test(args)),
        ),
    ]
}

/// Key and value of a record.
pub(super) type Pair = (Box<[u8]>, i64);
/// Records in the order of their offsets, by partition.
pub(super) type Topic = BTreeMap<i32, Vec<Pair>>;

/// What EosTest writes for its input, by name of the output. A key stays in its partition, also behind the repartition, so
/// the order within each partition is known.
pub(super) fn results(data: &Topic) -> BTreeMap<&'static str, Topic> {
    let over = |first: i64, add: fn(i64, i64) -> i64| -> Topic {
        let partition = |(partition, records): (&i32, &Vec<Pair>)| {
            let mut sums = BTreeMap::new();
            let results = records.iter().map(|(key, value)| {
                let sum = sums.entry(key.clone()).or_insert(first);
                *sum = add(*sum, *value);
                (key.clone(), *sum)
            });
            (*partition, results.collect())
        };
        data.iter().map(partition).collect()
    };
    BTreeMap::from([
        ("echo", data.clone()),
        ("min", over(i64::MAX, i64::min)),
        ("sum", over(0, |sum, value| sum + value)),
        ("max", over(i64::MIN, i64::max)),
        ("cnt", over(0, |count, _| count + 1)),
    ])
}

/// The first place in `found` that is not as it should be, and the one in `wanted` that it should be as. Where records may come
/// again they do after their turn has come: whoever does again what was not committed begins further back, and goes on from there.
pub(super) fn departure<T: Ord>(found: &[T], wanted: &[T], repeats: Repeats) -> Option<(usize, usize)> {
    let (mut seen, mut next) = (BTreeSet::new(), 0);
    for (at, record) in found.iter().enumerate() {
        if wanted.get(next) == Some(record) {
            seen.insert(record);
            next += 1;
        } else if repeats == Repeats::Forbidden || !seen.contains(record) {
            return Some((at, next));
        }
    }
    (next < wanted.len()).then_some((found.len(), next))
}

/// The first record that is not as it should be.
fn difference(found: &Topic, wanted: &Topic, repeats: Repeats) -> Option<String> {
    wanted.iter().find_map(|(partition, wanted)| {
        let found = found.get(partition).map_or(&[][..], Vec::as_slice);
        let tell = |pair: Option<&Pair>| {
            pair.map_or("nothing".to_owned(), |(key, value)| {
                format!("{} = {value}", String::from_utf8_lossy(key))
            })
        };
        let (at, next) = departure(found, wanted, repeats)?;
        Some(format!(
            "record {at} of partition {partition} is {}, wanted {}",
            tell(found.get(at)),
            tell(wanted.get(next))
        ))
    })
}

/// Key, value and timestamp of a record.
pub(super) type Timed = (Box<[u8]>, i64, i64);

/// The records of a topic of Longs, in the order of their offsets, by partition.
pub(super) fn read_timed(scene: &Scene<'_>, topic: &str) -> Result<BTreeMap<i32, Vec<Timed>>> {
    let partitions = settle(&scene.broker, topic, SECONDS(60))?;
    let mut found: BTreeMap<_, _> = (0..partitions).map(|partition| (partition, Vec::new())).collect();
    read_all(
        &scene.broker,
        topic,
        Isolation::Committed,
        SECONDS(60),
        |record| {
            let value = record.value.context("a record without value")?;
            let value = i64::from_be_bytes(value.try_into().context("a value that is no Long")?);
            let key = record.key.unwrap_or_default().into();
            let records = found.entry(record.partition).or_default();
            records.push((key, value, record.timestamp));
            Ok(())
        },
    )?;
    Ok(found)
}

pub(super) fn read(scene: &Scene<'_>, topic: &str) -> Result<Topic> {
    let pairs = |records: Vec<Timed>| records.into_iter().map(|(key, value, _)| (key, value)).collect();
    let found = read_timed(scene, topic)?.into_iter();
    Ok(found
        .map(|(partition, records)| (partition, pairs(records)))
        .collect())
}

/// Whether the scene's topic of this name holds just that, as its guarantee has it; returns how many records, and how many came
/// again.
pub(super) fn compare(scene: &Scene<'_>, name: &str, wanted: &Topic) -> Result<Counted> {
    let found = read(scene, &format!("{}-{name}", scene.id))?;
    let difference = difference(&found, wanted, scene.guarantee.sinks());
    ensure!(difference.is_none(), "{name}: {}", difference.unwrap_or_default());
    let count = |topic: &Topic| topic.values().map(Vec::len).sum();
    counted(count(&found), count(wanted))
}

/// So many results were found, so many wanted, and none was missing.
pub(super) fn counted(found: usize, wanted: usize) -> Result<Counted> {
    Ok(Counted {
        records: u64::try_from(wanted)?,
        repeats: u64::try_from(found - wanted)?,
        ..Counted::default()
    })
}

/// Writes for as long as the plot goes on.
pub(super) fn written_beside(
    write: impl FnOnce(&AtomicBool) -> Result<()> + Send,
    plot: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let written = threads.spawn(|| write(&done));
        let result = plot();
        done.store(true, Ordering::Release);
        let written = written
            .join()
            .map_err(|_| anyhow::anyhow!("the producer panicked"))?;
        written.and(result)
    })
}

/// Key, value and, where it is not the time of writing, timestamp of the record of a number.
pub(super) type Numbered = fn(u64) -> (String, i64, Option<i64>);

/// Writes records with consecutive numbers to several topics in turn, a thousand a second, as long as that goes on, by the number
/// of those written.
pub(super) fn write_numbered(
    scene: &Scene<'_>,
    topics: &[&str],
    numbered: Numbered,
    goes_on: impl Fn(u64) -> bool,
) -> Result<()> {
    const RATE: f64 = 1_000.0;
    let producer = scene.producer(&[])?;
    let (start, mut written) = (Instant::now(), 0);
    let mut topic = topics.iter().cycle();
    while goes_on(written) {
        let due = (start.elapsed().as_secs_f64() * RATE) as u64;
        while written < due {
            let (key, value, timestamp) = numbered(written);
            let value = value.to_be_bytes();
            let topic = topic.next().context("no topic")?;
            let record = BaseRecord::to(topic).key(&key).payload(&value[..]);
            let record = match timestamp {
                Some(timestamp) => record.timestamp(timestamp),
                None => record,
            };
            send(&producer, record)?;
            written += 1;
        }
        producer.poll(Duration::ZERO);
        wait::pause();
    }
    producer.flush(REQUEST).context("flush the input")
}

pub(super) fn drained(scene: &Scene<'_>, inputs: &[&str], repartitions: &[&str]) -> Result<()> {
    wait_drained(&WaitDrained {
        broker: scene.broker.clone(),
        application_id: scene.id.clone(),
        topics: inputs
            .iter()
            .map(|input| format!("{}-{input}", scene.id))
            .collect(),
        repartitions: repartitions.iter().map(|&name| name.to_owned()).collect(),
        deadline: 90,
    })
}

/// Kills the worker while it has a transaction open and records wait, or asks it to end; waits for its successor.
pub(super) fn bounce(app: &mut App, worker: u32, hard: Option<&Target<'_>>, workers: u32) -> Result<()> {
    let before = match hard {
        Some(target) => {
            let before = target.stop_at_work(worker, || app.pid(worker))?.pid;
            signal(before, libc::SIGKILL)?;
            before
        }
        None => {
            let before = app.pid(worker)?;
            signal(before, libc::SIGTERM)?;
            before
        }
    };
    app.wait_successor(worker, before)?;
    app.wait_running(workers, SECONDS(60))
}

/// Three workers come, are killed and stopped in turn, and go, all but one; returns how many were killed.
pub(super) fn come_and_go(
    scene: &Scene<'_>,
    app: &mut App,
    target: &Target<'_>,
    tasks: usize,
) -> Result<u64> {
    let mut kills = 0;
    scale(scene, app, 3)?;
    wait_spread(app, &[tasks / 3; 3])?;
    for worker in [0, 2, 1, 0] {
        bounce(app, worker, Some(target), 3)?;
        kills += 1;
    }
    bounce(app, 1, None, 3)?;
    scale(scene, app, 1)?;
    wait_spread(app, &[tasks])?;
    Ok(kills)
}

/// Three workers come, are stopped and killed in turn, and go, while records come in all the time.
fn eos_test(args: &Integration, name: &str, guarantee: Guarantee) -> Result<Counted> {
    const NAMES: [&str; 6] = ["data", "echo", "min", "sum", "max", "cnt"];
    let scene = Scene::of_file(args, name, guarantee, include_str!("eos.yaml"), &NAMES, 5)?;
    // In the transaction under both guarantees.
    let (data, written) = (
        format!("{}-data", scene.id),
        format!("{}-max-repartition", scene.id),
    );
    let target = scene.target(&data, &written);
    let mut kills = 0;
    let mut app = scene.launch().start()?;
    let write =
        |done: &AtomicBool| write_numbered(&scene, &[&data], eos_data, |_| !done.load(Ordering::Acquire));
    written_beside(write, || {
        app.wait_running(1, SECONDS(60))?;
        // Rebalances: each worker is added, stopped and added again.
        scale(&scene, &app, 2)?;
        scale(&scene, &app, 3)?;
        wait_spread(&app, &[5, 5, 5])?;
        bounce(&mut app, 0, None, 3)?;
        bounce(&mut app, 1, None, 3)?;
        scale(&scene, &app, 2)?;
        scale(&scene, &app, 1)?;
        wait_spread(&app, &[15])?;
        // Failure and recovery.
        scale(&scene, &app, 2)?;
        scale(&scene, &app, 3)?;
        wait_spread(&app, &[5, 5, 5])?;
        for worker in [0, 2, 1] {
            bounce(&mut app, worker, Some(&target), 3)?;
            kills += 1;
        }
        scale(&scene, &app, 2)?;
        scale(&scene, &app, 1)?;
        wait_spread(&app, &[15])
    })?;
    drained(&scene, &["data"], &["max", "cnt"])?;
    app.drain()?;
    let mut counted = Counted {
        kills,
        ..Counted::default()
    };
    for (name, wanted) in results(&read(&scene, &data)?) {
        counted += compare(&scene, name, &wanted)?;
    }
    scene.clean()?;
    Ok(counted)
}

/// Values below 10,000 under a hundred keys.
fn eos_data(number: u64) -> (String, i64, Option<i64>) {
    let mut random = SplitMix::of(7, number);
    (
        format!("k{}", random.below(100)),
        random.below(10_000) as i64,
        None,
    )
}

/// Messages are copied in their order, once, while the copier is killed and asked to end; a reader sees them come.
fn transactions_test(args: &Integration) -> Result<Counted> {
    const MESSAGES: usize = 100_000;
    let file = include_str!("copy.yaml");
    let guarantee = Guarantee::ExactlyOnceV2;
    let scene = Scene::of_file(args, "transactions-test", guarantee, file, &["in", "out"], 2)?;
    let (input, output) = (scene.input(), scene.output());
    let target = scene.target(&input, &output);
    let mut kills = 0;
    let bounced = AtomicBool::new(false);
    let mut app = scene.launch().start()?;
    let seen = std::thread::scope(|threads| {
        let written = threads.spawn(|| write_transactions(&scene, &input, MESSAGES, &bounced));
        let seen = threads.spawn(|| read_along(&scene, &output, MESSAGES));
        let plot = (|| {
            app.wait_running(1, SECONDS(60))?;
            for hard in [true, false, true, false, true] {
                bounce(&mut app, 0, hard.then_some(&target), 1)?;
                kills += u64::from(hard);
            }
            Ok(())
        })();
        bounced.store(true, Ordering::Release);
        let written = written
            .join()
            .map_err(|_| anyhow::anyhow!("the producer panicked"))?;
        let seen = seen.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
        written.and(plot).and(seen)
    })?;
    drained(&scene, &["in"], &[])?;
    app.drain()?;
    let (wanted, found) = (read(&scene, &input)?, read(&scene, &output)?);
    let count: usize = wanted.values().map(Vec::len).sum();
    ensure!(
        count == MESSAGES,
        "{count} messages were written, wanted {MESSAGES}"
    );
    let difference_of = |what: &str, found: &Topic| match difference(found, &wanted, guarantee.sinks()) {
        Some(difference) => Err(anyhow::anyhow!("{what}: {difference}")),
        None => Ok(()),
    };
    difference_of("the copy", &found)?;
    difference_of("what was seen meanwhile", &seen)?;
    scene.clean()?;
    Ok(Counted {
        kills,
        records: u64::try_from(MESSAGES)?,
        ..Counted::default()
    })
}

/// Numbered messages in transactions of 750, of which every fifth is aborted and written again. They last until the copier
/// was `bounced`, so that each bounce finds some that wait.
fn write_transactions(scene: &Scene<'_>, topic: &str, messages: usize, bounced: &AtomicBool) -> Result<()> {
    const SIZE: usize = 750;
    const RATE: f64 = 1_000.0;
    let id = format!("{}-source", scene.id);
    let producer = scene.producer(&[("transactional.id", &id)])?;
    producer.init_transactions(REQUEST)?;
    let write = |first: usize| -> Result<()> {
        producer.begin_transaction()?;
        for number in first..messages.min(first + SIZE) {
            let (key, value) = (number.to_string(), i64::try_from(number)?.to_be_bytes());
            let record = BaseRecord::to(topic).key(&key).payload(&value[..]);
            send(&producer, record)?;
        }
        // Deliveries are told to whoever polls, and the end of a transaction waits for them.
        Ok(producer.flush(REQUEST)?)
    };
    let start = Instant::now();
    for (transaction, first) in (0..messages).step_by(SIZE).enumerate() {
        if transaction % 5 == 4 {
            write(first)?;
            producer.abort_transaction(REQUEST)?;
        }
        write(first)?;
        producer.commit_transaction(REQUEST)?;
        let due = start + Duration::from_secs_f64(first as f64 / RATE);
        while Instant::now() < due && !bounced.load(Ordering::Acquire) {
            wait::pause();
        }
    }
    Ok(())
}

/// A reader of committed records, there from the beginning, that ends with the last message.
fn read_along(scene: &Scene<'_>, topic: &str, messages: usize) -> Result<Topic> {
    let (consumer, partitions) = from_beginning(&scene.broker, topic, Isolation::Committed)?;
    let deadline = Instant::now() + SECONDS(180);
    let mut seen: Topic = (0..partitions).map(|partition| (partition, Vec::new())).collect();
    let mut count = 0;
    while count < messages {
        ensure!(
            Instant::now() < deadline,
            "{count} of {messages} messages came within 180 s"
        );
        match consumer.poll(Duration::from_millis(100)) {
            None | Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => return Err(error).context("read along"),
            Some(Ok(message)) => {
                let value = message.payload().context("a message without value")?;
                let value = i64::from_be_bytes(value.try_into().context("a value that is no Long")?);
                let key = message.key().unwrap_or_default().into();
                seen.entry(message.partition()).or_default().push((key, value));
                count += 1;
            }
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(pairs: &[(&str, i64)]) -> Topic {
        let pairs = pairs.iter().map(|(key, value)| (key.as_bytes().into(), *value));
        Topic::from([(0, pairs.collect())])
    }

    #[test]
    fn results_are_those_of_each_record() {
        let results = results(&topic(&[("a", 5), ("b", 7), ("a", 3), ("a", 9)]));
        let wanted = [
            ("cnt", topic(&[("a", 1), ("b", 1), ("a", 2), ("a", 3)])),
            ("echo", topic(&[("a", 5), ("b", 7), ("a", 3), ("a", 9)])),
            ("max", topic(&[("a", 5), ("b", 7), ("a", 5), ("a", 9)])),
            ("min", topic(&[("a", 5), ("b", 7), ("a", 3), ("a", 3)])),
            ("sum", topic(&[("a", 5), ("b", 7), ("a", 8), ("a", 17)])),
        ];
        assert_eq!(results, BTreeMap::from(wanted));
    }

    #[test]
    fn a_repeated_a_lost_and_a_swapped_record_are_found() {
        let wanted = topic(&[("a", 1), ("b", 1), ("a", 2)]);
        assert_eq!(difference(&wanted, &wanted, Repeats::Forbidden), None);
        let faults = [
            topic(&[("a", 1), ("a", 1), ("b", 1), ("a", 2)]),
            topic(&[("a", 1), ("a", 2)]),
            topic(&[("b", 1), ("a", 1), ("a", 2)]),
            topic(&[("a", 1), ("b", 1)]),
            topic(&[("a", 1), ("b", 1), ("a", 2), ("a", 2)]),
        ];
        for fault in faults {
            assert!(
                difference(&fault, &wanted, Repeats::Forbidden).is_some(),
                "{fault:?}"
            );
        }
    }

    #[test]
    fn what_may_come_again_comes_behind_its_turn_and_is_not_missed_before() {
        let allowed = |found: &[u8]| departure(found, &[1, 2, 3, 2], Repeats::Allowed);
        for right in [&[1, 2, 3, 2][..], &[1, 1, 2, 3, 2, 3, 2], &[1, 2, 3, 1, 2, 3, 2]] {
            assert_eq!(allowed(right), None, "{right:?}");
        }
        assert_eq!(allowed(&[1, 3, 2, 3, 2]), Some((1, 1)), "out of turn");
        assert_eq!(allowed(&[1, 2, 9, 3, 2]), Some((2, 2)), "from nothing");
        assert_eq!(allowed(&[1, 2, 1, 2, 3]), Some((5, 3)), "the last one is missing");
    }
}
