//! Tests of the tools themselves on a real broker, the one that `STREAMAPP_TEST_KAFKA` names: `e2e/test broker` starts
//! it. Each test has topics of its own.

mod scenarios;

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::broker::{Broker, Isolation, REQUEST};
use crate::check::evidence::{Record, Topic};
use crate::check::formats::Formats;
use crate::check::tests::{ORDERS, PARTITIONS, SHAPE, right_run};
use crate::check::{self, Check, Example, Guarantee};
use crate::drained::{Lag, Watch};
use crate::generate::{self, Generate, KeyedBy};
use crate::reader;

fn broker() -> Broker {
    Broker {
        bootstrap: std::env::var("STREAMAPP_TEST_KAFKA").expect("STREAMAPP_TEST_KAFKA=HOST:PORT"),
    }
}

/// A name that no other run has used.
fn unique(name: &str) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    format!("{name}-{}", now.as_nanos())
}

fn generated(topic: &str, count: u64, bad_at: Option<u64>) -> Generate {
    Generate {
        broker: broker(),
        topic: topic.to_owned(),
        keyed_by: KeyedBy::Order,
        count,
        first: 0,
        rate: 0,
        customers: SHAPE.customers,
        max_amount_cents: SHAPE.max_amount_cents,
        seed: SHAPE.seed,
        bad_at,
        quiet: true,
    }
}

fn producer(id: &str) -> BaseProducer {
    let producer: BaseProducer = broker().config().set("transactional.id", id).create().unwrap();
    producer.init_transactions(REQUEST).unwrap();
    producer
}

fn send(producer: &BaseProducer, topic: &str, record: &Record) {
    let mut out: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic)
        .partition(record.partition)
        .timestamp(record.timestamp);
    out.key = record.key.as_deref();
    out.payload = record.value.as_deref();
    producer.send(out).map_err(|(error, _)| error).unwrap();
}

/// Writes a topic's records in two committed transactions with an aborted one between them; answers how many aborted
/// records there are.
fn write_with_abort(producer: &BaseProducer, name: &str, topic: &Topic) -> u64 {
    broker().create_topics(&[(name, PARTITIONS)]).unwrap();
    let (first, second) = topic.records.split_at(topic.records.len() / 2);
    for (records, commit) in [
        (first, true),
        (&second[..second.len() / 2], false),
        (second, true),
    ] {
        producer.begin_transaction().unwrap();
        records.iter().for_each(|record| send(producer, name, record));
        // Nothing may be in flight at the abort: it would be purged, and abort nothing.
        while producer.in_flight_count() > 0 {
            producer.poll(Duration::from_millis(10));
        }
        if commit {
            producer.commit_transaction(REQUEST).unwrap();
        } else {
            producer.abort_transaction(REQUEST).unwrap();
        }
    }
    (second.len() / 2) as u64
}

#[test]
#[ignore = "needs the broker of STREAMAPP_TEST_KAFKA"]
fn a_right_run_with_aborted_transactions_passes_and_one_more_record_makes_it_fail() {
    let id = unique("checked");
    let (input, output) = (format!("{id}.in"), format!("{id}.out"));
    broker().create_topics(&[(&input, PARTITIONS)]).unwrap();
    generate::run(&generated(&input, ORDERS, None)).unwrap();
    let run = right_run();
    let writer = producer(&id);
    let aborted = write_with_abort(
        &writer,
        &format!("{id}-exposure-by-customer-repartition"),
        &run.repartition,
    ) + write_with_abort(
        &writer,
        &format!("{id}-exposure-by-customer-changelog"),
        &run.changelog,
    ) + write_with_abort(&writer, &output, &run.outputs);
    let args = Check {
        broker: broker(),
        topology: Example::OrdersRisk,
        application_id: id,
        guarantee: Guarantee::ExactlyOnceV2,
        input,
        output: Some(output.clone()),
        formats: Formats::Streamapp,
        store: "exposure-by-customer".to_owned(),
        malformed: 0,
        deadline: 30,
        json: None,
    };
    let report = check::check(&args).unwrap();
    assert!(report.passed, "{:?}", report.verdict);
    assert_eq!(report.aborted_records, aborted);

    writer.begin_transaction().unwrap();
    send(&writer, &output, run.outputs.records.last().unwrap());
    writer.commit_transaction(REQUEST).unwrap();
    let report = check::check(&args).unwrap();
    assert!(!report.passed);
    assert_eq!(report.verdict.output().unwrap().duplicates, 1);
}

#[test]
#[ignore = "needs the broker of STREAMAPP_TEST_KAFKA"]
fn an_open_transaction_keeps_the_reader_waiting_and_is_named() {
    let topic = unique("open");
    broker().create_topics(&[(&topic, 1)]).unwrap();
    let writer = producer(&topic);
    writer.begin_transaction().unwrap();
    let record = Record {
        partition: 0,
        offset: 0,
        timestamp: 1,
        key: None,
        value: Some((*b"x").into()),
    };
    send(&writer, &topic, &record);
    while writer.in_flight_count() > 0 {
        writer.poll(Duration::from_millis(10));
    }
    let error = reader::settle(&broker(), &topic, Duration::from_millis(300))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("partition 0 is stable up to offset 0, its log goes up to 1"),
        "{error}"
    );
    writer.commit_transaction(REQUEST).unwrap();
    assert_eq!(reader::settle(&broker(), &topic, REQUEST).unwrap(), 1);
}

#[test]
#[ignore = "needs the broker of STREAMAPP_TEST_KAFKA"]
fn a_group_is_drained_when_it_has_passed_the_last_record_whatever_markers_follow() {
    let topic = unique("drained");
    broker().create_topics(&[(&topic, 1)]).unwrap();
    let writer = producer(&topic);
    let record = Record {
        partition: 0,
        offset: 0,
        timestamp: 1,
        key: None,
        value: Some((*b"x").into()),
    };
    for commit in [true, false] {
        writer.begin_transaction().unwrap();
        send(&writer, &topic, &record);
        while writer.in_flight_count() > 0 {
            writer.poll(Duration::from_millis(10));
        }
        if commit {
            writer.commit_transaction(REQUEST).unwrap();
        } else {
            writer.abort_transaction(REQUEST).unwrap();
        }
    }
    let mut watch = Watch::of(&broker(), &topic).unwrap();
    // Record, commit marker, aborted record, abort marker: the end is 4.
    assert_eq!(watch.lag(&broker(), &topic).unwrap(), Lag::Behind(4));
    let group: BaseConsumer = broker().consumer(&topic, Isolation::Committed).unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets
        .add_partition_offset(&topic, 0, rdkafka::Offset::Offset(1))
        .unwrap();
    group.commit(&offsets, CommitMode::Sync).unwrap();
    assert_eq!(watch.lag(&broker(), &topic).unwrap(), Lag::Drained);
}

#[test]
#[ignore = "needs the broker of STREAMAPP_TEST_KAFKA"]
fn the_generator_writes_the_same_records_to_the_same_places_for_a_seed() {
    let read = |topic: &str| {
        let mut records = Vec::new();
        reader::read_all(&broker(), topic, Isolation::Committed, REQUEST, |r| {
            records.push((
                r.partition,
                r.offset,
                r.timestamp,
                r.key.unwrap().to_vec(),
                r.value.unwrap().to_vec(),
            ));
            Ok(())
        })
        .unwrap();
        records.sort();
        records
    };
    let topics = [unique("seed-a"), unique("seed-b")];
    for topic in &topics {
        broker().create_topics(&[(topic, PARTITIONS)]).unwrap();
        generate::run(&generated(topic, 2_000, Some(1_234))).unwrap();
    }
    let records = read(&topics[0]);
    assert_eq!(records, read(&topics[1]));
    assert_eq!(records.len(), 2_000);
    let broken = records
        .iter()
        .filter(|r| serde_json::from_slice::<serde_json::Value>(&r.4).is_err())
        .count();
    assert_eq!(broken, 1);
    for (partition, _, _, key, _) in &records {
        assert_eq!(*partition, crate::murmur2::partition(key, PARTITIONS));
    }
}

#[test]
#[ignore = "needs the broker of STREAMAPP_TEST_KAFKA"]
fn topics_are_gone_once_deleted_and_deleting_them_again_is_no_error() {
    let topic = unique("short-lived");
    broker().create_topics(&[(&topic, 3)]).unwrap();
    assert!(broker().topic_names().unwrap().contains(&topic));
    broker().delete_topics(&[&topic]).unwrap();
    assert!(!broker().topic_names().unwrap().contains(&topic));
    broker().delete_topics(&[&topic]).unwrap();
}
