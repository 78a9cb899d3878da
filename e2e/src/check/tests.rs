//! Tests of the tester: a right run passes, and each kind of fault makes it fail with the right count.

use super::along::{Sight, content};
use super::evidence::{Inputs, Order, Record, Topic};
use super::formats::Formats;
use super::formats::encode;
use super::judge::{self, judge, judge_along, judge_stateless};
use super::model::{self, ExposureByCustomer};
use super::verdict::{Repeats, Section, Verdict};
use crate::murmur2;
use crate::orders::{BASE_MS, Orders};

pub(crate) const PARTITIONS: i32 = 4;
pub(crate) const ORDERS: u64 = 4_000;
pub(crate) const SHAPE: Orders = Orders {
    seed: 3,
    customers: 50,
    max_amount_cents: 100_000,
};

#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) inputs: Inputs,
    pub(crate) repartition: Topic,
    pub(crate) outputs: Topic,
    pub(crate) changelog: Topic,
}

impl Run {
    fn judge(&self, sinks: Repeats) -> Verdict {
        let Run {
            inputs,
            repartition,
            outputs,
            changelog,
        } = self;
        judge(
            &judge::Run {
                inputs,
                repartition,
                outputs,
                changelog,
            },
            Formats::Streamapp,
            sinks,
        )
    }
}

/// Appends as a broker would.
fn append(topic: &mut Topic, partition: i32, timestamp: i64, key: &[u8], value: Box<[u8]>) {
    topic.partitions = PARTITIONS;
    let offset = topic.records.iter().filter(|r| r.partition == partition).count() as i64;
    topic.records.push(Record {
        partition,
        offset,
        timestamp,
        key: Some(key.into()),
        value: Some(value),
    });
}

fn inputs() -> Inputs {
    let (mut key, mut value) = (String::new(), String::new());
    let mut orders: Vec<Order> = Vec::new();
    let mut ends = [0_i64; PARTITIONS as usize];
    for index in 0..ORDERS {
        Orders::write_key(index, &mut key);
        SHAPE.write_value(index, &mut value);
        let json: serde_json::Value = serde_json::from_str(&value).unwrap();
        let partition = murmur2::partition(key.as_bytes(), PARTITIONS);
        let end = &mut ends[partition as usize];
        orders.push(Order {
            partition,
            offset: *end,
            order_id: key.as_str().into(),
            customer_id: json["customerId"].as_str().unwrap().into(),
            amount_in_cents: json["amountInCents"].as_i64().unwrap(),
            submitted_at: BASE_MS + index as i64,
        });
        *end += 1;
    }
    Inputs {
        orders,
        malformed: 0,
        malformed_expected: 0,
    }
}

/// A run in which the source partitions are taken in turns of 100 records.
pub(crate) fn right_run() -> Run {
    let inputs = inputs();
    let mut repartition = Topic::default();
    let mut turns: Vec<&Order> = inputs.orders.iter().collect();
    turns.sort_by_key(|order| (order.offset / 100, order.partition, order.offset));
    for order in turns {
        let key = order.customer_id.as_bytes();
        let partition = murmur2::partition(key, PARTITIONS);
        append(
            &mut repartition,
            partition,
            order.submitted_at,
            key,
            encode::repartition(order.amount_in_cents),
        );
    }
    let (mut outputs, mut changelog) = (Topic::default(), Topic::default());
    let mut model = ExposureByCustomer::default();
    for record in &repartition.records {
        let key = record.key.as_deref().unwrap();
        let customer = str::from_utf8(key).unwrap();
        let amount = Formats::Streamapp
            .repartition_amount(record.value.as_deref().unwrap())
            .unwrap();
        if let Some(decision) = model.add(customer, amount, record.timestamp) {
            append(
                &mut outputs,
                record.partition,
                decision.timestamp,
                key,
                decision.value,
            );
        }
        let exposure = model.store[customer];
        let entry = encode::store(exposure.timestamp, exposure.sum);
        append(&mut changelog, record.partition, exposure.timestamp, key, entry);
    }
    Run {
        inputs,
        repartition,
        outputs,
        changelog,
    }
}

fn section<'a>(verdict: &'a Verdict, name: &str) -> &'a Section {
    verdict
        .sections
        .iter()
        .find(|section| section.name == name)
        .unwrap()
}

/// (duplicates, missing, wrong, out of order)
fn counts(section: &Section) -> (u64, u64, u64, u64) {
    (
        section.duplicates,
        section.missing,
        section.wrong,
        section.out_of_order,
    )
}

/// The places of two decisions of one customer that follow each other.
fn neighbours(topic: &Topic) -> (usize, usize) {
    let first = topic.records.len() / 2;
    let key = &topic.records[first].key;
    let second = (first + 1..topic.records.len())
        .find(|i| topic.records[*i].key == *key)
        .unwrap();
    (first, second)
}

fn swap_contents(topic: &mut Topic, a: usize, b: usize) {
    topic.records.swap(a, b);
    let offset = topic.records[a].offset;
    topic.records[a].offset = topic.records[b].offset;
    topic.records[b].offset = offset;
}

fn assert_fails(run: &Run, name: &str, expected: (u64, u64, u64, u64)) {
    let verdict = run.judge(Repeats::Forbidden);
    assert!(!verdict.passed());
    assert_eq!(
        counts(section(&verdict, name)),
        expected,
        "{:?}",
        section(&verdict, name).examples
    );
}

#[test]
fn the_checker_passes_a_right_run() {
    let run = right_run();
    let verdict = run.judge(Repeats::Forbidden);
    assert!(verdict.passed(), "{verdict:?}");
    assert_eq!(verdict.orders, ORDERS);
    assert!(verdict.output().unwrap().found > 1_000);
    assert!(run.judge(Repeats::Allowed).passed());
}

#[test]
fn the_checker_passes_a_changelog_with_one_record_per_key() {
    let mut run = right_run();
    let mut seen = std::collections::BTreeSet::new();
    run.changelog.records.reverse();
    run.changelog
        .records
        .retain(|record| seen.insert(record.key.clone()));
    run.changelog.records.reverse();
    assert!(run.judge(Repeats::Forbidden).passed());
}

#[test]
fn the_checker_fails_when_a_decision_is_duplicated() {
    let mut run = right_run();
    let repeated = run.outputs.records[run.outputs.records.len() / 2].clone();
    run.outputs.records.push(repeated);
    assert_fails(&run, "decisions", (1, 0, 0, 0));
    // Under at_least_once that is no fault, but it is counted.
    let verdict = run.judge(Repeats::Allowed);
    assert!(verdict.passed());
    assert_eq!(section(&verdict, "decisions").duplicates, 1);
}

#[test]
fn the_checker_fails_when_a_decision_is_lost_under_both_guarantees() {
    let mut run = right_run();
    run.outputs.records.remove(run.outputs.records.len() / 2);
    assert_fails(&run, "decisions", (0, 1, 0, 0));
    assert!(!run.judge(Repeats::Allowed).passed());
}

#[test]
fn the_checker_fails_when_the_last_decision_is_lost() {
    let mut run = right_run();
    run.outputs.records.pop();
    assert_fails(&run, "decisions", (0, 1, 0, 0));
}

#[test]
fn the_checker_fails_when_two_decisions_of_a_customer_are_swapped_under_both_guarantees() {
    let mut run = right_run();
    let (a, b) = neighbours(&run.outputs);
    swap_contents(&mut run.outputs, a, b);
    assert_fails(&run, "decisions", (0, 0, 0, 1));
    assert!(!run.judge(Repeats::Allowed).passed());
}

#[test]
fn the_checker_fails_when_a_decision_has_a_wrong_value() {
    let mut run = right_run();
    let middle = run.outputs.records.len() / 2;
    let value = run.outputs.records[middle].value.as_mut().unwrap();
    let last_digit = value.len() - 2;
    value[last_digit] ^= 1;
    assert_fails(&run, "decisions", (0, 1, 1, 0));
    assert!(!run.judge(Repeats::Allowed).passed());
}

#[test]
fn the_checker_fails_when_a_decision_has_a_wrong_timestamp_or_partition() {
    let mut run = right_run();
    let middle = run.outputs.records.len() / 2;
    run.outputs.records[middle].timestamp += 1;
    assert_fails(&run, "decisions", (0, 0, 1, 0));
    let mut run = right_run();
    let partition = &mut run.outputs.records[middle].partition;
    *partition = (*partition + 1) % PARTITIONS;
    assert_fails(&run, "decisions", (0, 0, 1, 0));
}

#[test]
fn the_checker_fails_when_a_final_store_value_is_wrong() {
    let mut run = right_run();
    let last = run.changelog.records.last_mut().unwrap();
    last.value = Some(encode::store(last.timestamp, 1));
    assert_fails(&run, "store", (0, 0, 1, 0));
    let last = run.changelog.records.last_mut().unwrap();
    last.value = Some(Box::new([9, 9, 9]));
    assert_fails(&run, "store", (0, 0, 1, 0));
}

#[test]
fn the_checker_fails_when_a_store_loses_or_invents_a_key() {
    let mut run = right_run();
    let key = run.changelog.records.last().unwrap().key.clone();
    run.changelog.records.retain(|record| record.key != key);
    assert_fails(&run, "store", (0, 1, 0, 0));
    let mut run = right_run();
    append(
        &mut run.changelog,
        0,
        BASE_MS,
        b"c-nobody",
        encode::store(BASE_MS, 5),
    );
    assert_fails(&run, "store", (0, 0, 1, 0));
    // A deleted key is no key.
    run.changelog.records.push(Record {
        value: None,
        ..run.changelog.records.last().unwrap().clone()
    });
    assert!(run.judge(Repeats::Forbidden).passed());
}

#[test]
fn the_checker_fails_when_the_repartition_topic_repeats_or_loses_an_input_under_both_guarantees() {
    let mut run = right_run();
    let middle = run.repartition.records.len() / 2;
    let repeated = run.repartition.records[middle].clone();
    run.repartition.records.push(repeated);
    assert_fails(&run, "repartition", (1, 0, 0, 0));
    assert!(!run.judge(Repeats::Allowed).passed());
    let mut run = right_run();
    run.repartition.records.remove(middle);
    assert_fails(&run, "repartition", (0, 1, 0, 0));
}

#[test]
fn the_checker_fails_when_the_repartition_topic_swaps_two_records_of_a_source_partition() {
    let mut run = right_run();
    // The first two records of one source and destination partition.
    let source = |record: &Record| {
        let order = run
            .inputs
            .orders
            .iter()
            .find(|o| o.submitted_at == record.timestamp)
            .unwrap();
        (order.partition, record.partition)
    };
    let first = source(&run.repartition.records[0]);
    let second = (1..)
        .find(|i| source(&run.repartition.records[*i]) == first)
        .unwrap();
    swap_contents(&mut run.repartition, 0, second);
    assert_fails(&run, "repartition", (0, 0, 0, 1));
}

#[test]
fn the_checker_fails_when_a_repartition_record_is_wrong() {
    let middle = ORDERS as usize / 2;
    let mut run = right_run();
    run.repartition.records[middle].value = Some(encode::repartition(1));
    assert_fails(&run, "repartition", (0, 0, 1, 0));
    let mut run = right_run();
    run.repartition.records[middle].value = None;
    assert_fails(&run, "repartition", (0, 0, 1, 0));
    let mut run = right_run();
    run.repartition.records[middle].key = Some((*b"c-nobody").into());
    assert_fails(&run, "repartition", (0, 0, 1, 0));
    let mut run = right_run();
    run.repartition.records[middle].timestamp = BASE_MS - 1;
    assert_fails(&run, "repartition", (0, 1, 1, 0));
}

#[test]
fn the_checker_fails_when_nothing_was_written() {
    let mut run = right_run();
    run.repartition.records.clear();
    run.outputs.records.clear();
    run.changelog.records.clear();
    assert_fails(&run, "repartition", (0, ORDERS, 0, 0));
}

#[test]
fn the_checker_fails_when_the_number_of_malformed_inputs_is_not_the_expected_one() {
    let mut run = right_run();
    run.inputs.malformed = 1;
    assert!(!run.judge(Repeats::Forbidden).passed());
    run.inputs.malformed_expected = 1;
    assert!(run.judge(Repeats::Forbidden).passed());
}

#[test]
fn the_checker_fails_when_inputs_cannot_be_told_apart() {
    let mut run = right_run();
    run.inputs.orders[1].submitted_at = run.inputs.orders[0].submitted_at;
    assert!(!run.judge(Repeats::Forbidden).passed());
}

fn right_stateless_run() -> (Inputs, Topic) {
    let inputs = inputs();
    let mut outputs = Topic::default();
    for order in &inputs.orders {
        let amount = order.amount_in_cents;
        if let Some(scored) = model::scored(&order.order_id, &order.customer_id, amount, order.submitted_at) {
            let key = order.order_id.as_bytes();
            let partition = murmur2::partition(key, PARTITIONS);
            append(&mut outputs, partition, scored.timestamp, key, scored.value);
        }
    }
    (inputs, outputs)
}

#[test]
fn the_checker_judges_stateless_runs() {
    let (inputs, right) = right_stateless_run();
    let judged = |outputs: &Topic| {
        let verdict = judge_stateless(&inputs, outputs, Repeats::Forbidden);
        assert_eq!(verdict.passed(), counts(&verdict.sections[0]) == (0, 0, 0, 0));
        counts(&verdict.sections[0])
    };
    assert_eq!(judged(&right), (0, 0, 0, 0));
    let middle = right.records.len() / 2;

    let mut outputs = right.clone();
    outputs.records.push(right.records[middle].clone());
    assert_eq!(judged(&outputs), (1, 0, 0, 0));

    let mut outputs = right.clone();
    outputs.records.remove(middle);
    assert_eq!(judged(&outputs), (0, 1, 0, 0));

    let mut outputs = right.clone();
    let partition = right.records[middle].partition;
    let next = (middle + 1..)
        .find(|i| right.records[*i].partition == partition)
        .unwrap();
    swap_contents(&mut outputs, middle, next);
    assert_eq!(judged(&outputs), (0, 0, 0, 1));

    let mut outputs = right.clone();
    outputs.records[middle].value = Some((*b"{}").into());
    assert_eq!(judged(&outputs), (0, 0, 1, 0));
}

fn sight(record: &Record) -> Sight {
    Sight {
        partition: record.partition,
        offset: record.offset,
        content: content(record.timestamp, record.key.as_deref(), record.value.as_deref()),
    }
}

/// (precommitted reads, unseen, out of order)
fn seen_along(seen: &[Sight], topic: &Topic) -> (u64, u64, u64) {
    let section = judge_along(seen, topic);
    let counts = (section.precommitted_reads, section.unseen, section.out_of_order);
    assert_eq!(section.passed(), counts == (0, 0, 0), "{section:?}");
    assert_eq!(section.examples.is_empty(), section.passed(), "{section:?}");
    counts
}

#[test]
fn a_reader_that_saw_what_is_there_passes_however_partitions_came() {
    let topic = right_run().outputs;
    let mut seen: Vec<_> = topic.records.iter().map(sight).collect();
    assert_eq!(seen_along(&seen, &topic), (0, 0, 0));
    seen.sort_by_key(|sight| sight.partition);
    assert_eq!(seen_along(&seen, &topic), (0, 0, 0));
}

#[test]
fn a_reader_that_saw_what_is_not_there_at_the_end_fails_the_checker() {
    let mut topic = right_run().outputs;
    let seen: Vec<_> = topic.records.iter().map(sight).collect();
    let middle = topic.records.len() / 2;
    topic.records[middle].timestamp += 1;
    assert_eq!(seen_along(&seen, &topic), (1, 0, 0));
    topic.records[middle].offset += 1_000_000;
    assert_eq!(seen_along(&seen, &topic), (1, 1, 0));
    topic.records.remove(middle);
    assert_eq!(seen_along(&seen, &topic), (1, 0, 0));
    let empty = (seen.len() as u64, 0, 0);
    assert_eq!(seen_along(&seen, &Topic::default()), empty);
}

#[test]
fn a_reader_that_has_not_seen_what_is_there_fails_the_checker() {
    let topic = right_run().outputs;
    let mut seen: Vec<_> = topic.records.iter().map(sight).collect();
    seen.pop();
    assert_eq!(seen_along(&seen, &topic), (0, 1, 0));
    seen.remove(seen.len() / 2);
    assert_eq!(seen_along(&seen, &topic), (0, 2, 0));
}

#[test]
fn a_reader_that_saw_a_record_again_or_late_fails_the_checker() {
    let topic = right_run().outputs;
    let right: Vec<_> = topic.records.iter().map(sight).collect();
    let mut seen = right.clone();
    seen.push(right[0]);
    assert_eq!(seen_along(&seen, &topic), (0, 0, 1));
    let mut seen = right.clone();
    let late = seen.remove(0);
    seen.push(late);
    assert_eq!(seen_along(&seen, &topic), (0, 0, 1));
}

#[test]
fn the_models_bytes_are_the_declared_ones() {
    let decision = ExposureByCustomer::default().add("c-1", 1_000_000, 5).unwrap();
    assert_eq!(
        str::from_utf8(&decision.value).unwrap(),
        r#"{"customerId":"c-1","decisionId":"risk-exposure:c-1:1000000","exposure":1000000}"#
    );
    assert!(ExposureByCustomer::default().add("c-1", 999_999, 5).is_none());
    let scored = model::scored("o-1", "c-1", 50_001, 5).unwrap();
    assert_eq!(
        str::from_utf8(&scored.value).unwrap(),
        r#"{"amountInCents":50001,"customerId":"c-1","large":true,"orderId":"o-1"}"#
    );
    assert!(model::scored("o-1", "c-1", 9_999, 5).is_none());
}

#[test]
fn a_customers_timestamp_never_goes_back() {
    let mut model = ExposureByCustomer::default();
    model.add("c-1", 2_000_000, 9);
    assert_eq!(model.add("c-1", 1, 4).unwrap().timestamp, 9);
}
