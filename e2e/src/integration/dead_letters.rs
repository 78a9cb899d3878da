//! Records that cannot be read go to another topic: each once, as it was, with where it came from, also when the worker is
//! killed in the middle.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::message::{BorrowedHeaders, Header, Headers as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::crash::environment;
use super::scene::{PARTITIONS, Scene, with_stream_fields};
use super::{Counted, Integration, Test};
use crate::broker::Isolation;
use crate::check::{Example, Guarantee};
use crate::generate::send;
use crate::orders::BASE_MS;
use crate::reader::{Record, read_all, settle};

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
/// Orders a second.
const RATE: u64 = 1_000;
/// Orders, and behind them records that cannot be read: so often that each transaction has letters of each partition.
const PART: u64 = 50;
const UNREADABLE: u64 = 20;
const PARTS: u64 = 40;
const CRASHES: [&str; 2] = ["after-output:16", "after-offsets:24"];

/// A record as it lies in its topic, without what a dead letter's headers say of it.
type Whole = (Option<Vec<u8>>, Option<Vec<u8>>, i64, Headers);
type Headers = Vec<(String, Option<Vec<u8>>)>;

pub(super) fn tests(args: &Integration) -> Vec<Test<'_>> {
    let guarantees = [("eos", Guarantee::ExactlyOnceV2), ("alo", Guarantee::AtLeastOnce)];
    let tests = guarantees.into_iter().map(|(short, guarantee)| {
        let name = format!("dead-letters-{short}-killed");
        let test: Test<'_> = (name.clone(), Box::new(move || killed(args, &name, guarantee)));
        test
    });
    tests.collect()
}

fn killed(args: &Integration, name: &str, guarantee: Guarantee) -> Result<Counted> {
    let scene = Scene::new(args, name, Example::OrdersRisk, guarantee)?;
    let letters = format!("{}-dead", scene.id);
    scene.broker.create_topics(&[(&letters, 3)])?;
    let topic = format!("deadLetterTopic: {letters}");
    scene.write_file(|text| with_stream_fields(&text, &["onBadRecord: DeadLetter", &topic]))?;
    let mut launch = scene.launch();
    launch.environment = environment(&scene, &CRASHES.map(str::to_owned));
    let mut app = launch.start()?;
    app.wait_running(1, SECONDS(60))?;
    let producer = scene.producer(&[])?;
    for part in 0..PARTS {
        scene.orders(part * PART, PART, RATE, None)?;
        unreadable(&scene, &producer, part * UNREADABLE)?;
    }
    scene.wait_drained(SECONDS(60))?;
    let crashes = app.events("died");
    ensure!(crashes == CRASHES.len(), "{crashes} crashes: {}", app.words());
    app.drain()?;
    every_letter_is_its_record(&scene, &letters)?;
    let mut counted = scene.check(PARTS * PART, PARTS * UNREADABLE)?;
    counted.kills = crashes as u64;
    scene.clean()?;
    Ok(counted)
}

/// Records that are no JSON, over all partitions.
fn unreadable(scene: &Scene<'_>, producer: &BaseProducer, first: u64) -> Result<()> {
    let input = scene.input();
    for number in first..first + UNREADABLE {
        let (key, value) = (
            format!("bad-{number}"),
            format!("{{\"orderId\":\"bad-{number}\",\"customerId\":"),
        );
        let timestamp = BASE_MS.saturating_add_unsigned(number);
        let header = |key, value| Header { key, value };
        let headers = OwnedHeaders::new()
            .insert(header("trace", Some(&key)))
            .insert(header("empty", None));
        let record = BaseRecord::to(&input)
            .key(&key)
            .payload(&value)
            .timestamp(timestamp)
            .headers(headers);
        send(producer, record)?;
    }
    Ok(producer.flush(SECONDS(30))?)
}

fn every_letter_is_its_record(scene: &Scene<'_>, letters: &str) -> Result<()> {
    let mut input: BTreeMap<(i32, i64), Whole> = BTreeMap::new();
    let own = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    let is_own = |name: &str| !name.starts_with("__streams.") && !name.starts_with("streamapp.");
    let whole = |record: &Record<'_>| -> Whole {
        let headers = record.headers.into_iter().flat_map(BorrowedHeaders::iter);
        let headers = headers.filter(|header| is_own(header.key));
        let headers = headers.map(|header| (header.key.to_owned(), own(header.value)));
        (
            own(record.key),
            own(record.value),
            record.timestamp,
            headers.collect(),
        )
    };
    settle(&scene.broker, &scene.input(), SECONDS(30))?;
    read_all(
        &scene.broker,
        &scene.input(),
        Isolation::Committed,
        SECONDS(60),
        |record| {
            input.insert((record.partition, record.offset), whole(&record));
            Ok(())
        },
    )?;
    ensure!(input.keys().map(|(partition, _)| partition).max() < Some(&PARTITIONS));
    let mut found = 0;
    settle(&scene.broker, letters, SECONDS(30))?;
    read_all(
        &scene.broker,
        letters,
        Isolation::Committed,
        SECONDS(60),
        |record| {
            let headers = record.headers.context("a dead letter without headers")?;
            let header = |name: &str| -> Result<String> {
                let header = headers.iter().find(|header| header.key == name);
                let value = header.and_then(|header| header.value).unwrap_or_default();
                String::from_utf8(value.to_vec()).with_context(|| format!("header {name}"))
            };
            ensure!(header("__streams.errors.topic")? == scene.input());
            let place = (
                header("__streams.errors.partition")?.parse()?,
                header("__streams.errors.offset")?.parse()?,
            );
            // Taken out: a second letter of the same record finds nothing.
            let original = input
                .remove(&place)
                .with_context(|| format!("two letters of {place:?}"))?;
            let letter = whole(&record);
            ensure!(letter == original, "{place:?}: {letter:?} was {original:?}");
            ensure!(header("__streams.errors.exception")? == "Deserialization");
            let message = header("__streams.errors.message")?;
            ensure!(message.contains("value: JSON"), "{message}");
            found += 1;
            Ok(())
        },
    )?;
    let wanted = PARTS * UNREADABLE;
    ensure!(found == wanted, "{found} dead letters instead of {wanted}");
    Ok(())
}
