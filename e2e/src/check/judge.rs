//! The judging: pure functions from the records of a run to a verdict.

use std::borrow::Cow;
use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};

use super::along::{Sight, content};
use super::evidence::{Inputs, Order, Record, Topic};
use super::formats::Formats;
use super::model::{self, Expected, Exposure, ExposureByCustomer};
use super::verdict::{Repeats, Section, Verdict};
use crate::murmur2;
use crate::orders::{ABORTED, BASE_MS};

/// Matches found records with expected ones: each expected record has a number, a lane in which order is promised,
/// and a position in that lane.
struct Tally {
    section: Section,
    seen: Vec<bool>,
    /// The furthest position reached in each lane.
    reached: HashMap<(i64, i64), i64>,
}

impl Tally {
    fn new(name: &'static str, repeats: Repeats, expected: usize, found: usize) -> Self {
        let mut section = Section::new(name, repeats);
        section.expected = expected as u64;
        section.found = found as u64;
        Tally {
            section,
            seen: vec![false; expected],
            reached: HashMap::new(),
        }
    }

    /// Notes that expected record `number` was found.
    fn place(&mut self, number: usize, lane: (i64, i64), position: i64, what: impl Fn() -> String) {
        if std::mem::replace(&mut self.seen[number], true) {
            self.section.duplicate(what);
            return;
        }
        let reached = self.reached.entry(lane).or_insert(i64::MIN);
        if position < *reached {
            self.section.out_of_order(what);
        }
        *reached = (*reached).max(position);
    }

    /// Counts what was not found among the expected records that are `wanted`.
    fn finish(mut self, wanted: impl Fn(usize) -> bool, what: impl Fn(usize) -> String) -> Section {
        for number in 0..self.seen.len() {
            if wanted(number) && !self.seen[number] {
                self.section.missing(|| what(number));
            }
        }
        self.section
    }
}

/// What a run of orders-risk was given and what it wrote.
pub(crate) struct Run<'a> {
    pub(crate) inputs: &'a Inputs,
    pub(crate) repartition: &'a Topic,
    pub(crate) outputs: &'a Topic,
    pub(crate) changelog: &'a Topic,
}

/// Judges a run of orders-risk: the repartition topic against the input; what follows from *that* repartition topic
/// against the outputs and the store's changelog.
pub(crate) fn judge(run: &Run<'_>, formats: Formats, sinks: Repeats) -> Verdict {
    let Run {
        inputs,
        repartition,
        outputs,
        changelog,
    } = run;
    let replayed = replay(repartition, formats);
    Verdict {
        orders: inputs.orders.len() as u64,
        malformed: inputs.malformed,
        malformed_expected: inputs.malformed_expected,
        sections: vec![
            judge_repartition(&inputs.orders, repartition, formats),
            judge_decisions(&replayed.decisions, outputs, sinks),
            judge_store(&replayed.store, changelog, formats),
        ],
    }
}

/// Judges a run of the stateless example.
pub(crate) fn judge_stateless(inputs: &Inputs, outputs: &Topic, sinks: Repeats) -> Verdict {
    Verdict {
        orders: inputs.orders.len() as u64,
        malformed: inputs.malformed,
        malformed_expected: inputs.malformed_expected,
        sections: vec![judge_scored(&inputs.orders, outputs, sinks)],
    }
}

/// Judges what a reader saw of a topic while it was written, by what is there at the end: all of that, nothing else, and each
/// partition in its order.
pub(crate) fn judge_along(seen: &[Sight], topic: &Topic) -> Section {
    let mut section = Section::new("seen", Repeats::Forbidden);
    section.expected = topic.records.len() as u64;
    section.found = seen.len() as u64;
    let found: HashMap<(i32, i64), &Record> = topic
        .records
        .iter()
        .map(|record| ((record.partition, record.offset), record))
        .collect();
    let places: HashSet<(i32, i64)> = seen.iter().map(|s| (s.partition, s.offset)).collect();
    let mut reached: HashMap<i32, i64> = HashMap::new();
    for sight in seen {
        let what = || format!("partition {} offset {}", sight.partition, sight.offset);
        let before = reached.insert(sight.partition, sight.offset);
        if before.is_some_and(|before| sight.offset <= before) {
            section.out_of_order(what);
        }
        let is_same = |record: &&Record| {
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            content(record.timestamp, key, value) == sight.content
        };
        if !found.get(&(sight.partition, sight.offset)).is_some_and(is_same) {
            section.precommitted_read(what);
        }
    }
    for record in &topic.records {
        if !places.contains(&(record.partition, record.offset)) {
            section.unseen(|| at(record));
        }
    }
    section
}

/// Each input once, in the partition of its customer, with the order of its source partition kept.
fn judge_repartition(orders: &[Order], topic: &Topic, formats: Formats) -> Section {
    let mut tally = Tally::new(
        "repartition",
        Repeats::Forbidden,
        orders.len(),
        topic.records.len(),
    );
    let by_time = by_submitted_at(orders, &mut tally.section);
    for record in &topic.records {
        let Some(number) = by_time.get(&record.timestamp).copied() else {
            from_nothing(&mut tally.section, record);
            continue;
        };
        let order = &orders[number];
        let what = || format!("{} for order {}", at(record), order.order_id);
        let partition = murmur2::partition(order.customer_id.as_bytes(), topic.partitions);
        let amount = record.value.as_deref().ok_or_else(|| "no value".to_owned());
        let fault = match amount.and_then(|value| formats.repartition_amount(value)) {
            Err(fault) => Some(fault),
            Ok(amount) if amount != order.amount_in_cents => {
                Some(format!("amount {amount} is not {}", order.amount_in_cents))
            }
            Ok(_) => key_or_partition_fault(record, order.customer_id.as_bytes(), partition),
        };
        if let Some(fault) = fault {
            tally.section.wrong(|| format!("{}: {fault}", what()));
        }
        let lane = (i64::from(order.partition), i64::from(record.partition));
        tally.place(number, lane, order.offset, what);
    }
    tally.finish(|_| true, |number| format!("order {}", orders[number].order_id))
}

/// Each order that passes the filter once, with its key, in the order of its source partition.
fn judge_scored(orders: &[Order], topic: &Topic, repeats: Repeats) -> Section {
    let expected: Vec<Option<Expected>> = orders
        .iter()
        .map(|o| model::scored(&o.order_id, &o.customer_id, o.amount_in_cents, o.submitted_at))
        .collect();
    let mut tally = Tally::new("scored", repeats, orders.len(), topic.records.len());
    tally.section.expected = expected.iter().flatten().count() as u64;
    let by_time = by_submitted_at(orders, &mut tally.section);
    for record in &topic.records {
        let number = by_time.get(&record.timestamp).copied();
        let Some((number, right)) = number.and_then(|n| expected[n].as_ref().map(|right| (n, right))) else {
            from_nothing(&mut tally.section, record);
            continue;
        };
        let order = &orders[number];
        let what = || format!("{} for order {}", at(record), order.order_id);
        let key = order.order_id.as_bytes();
        let partition = murmur2::partition(key, topic.partitions);
        if let Some(fault) =
            value_fault(record, right).or_else(|| key_or_partition_fault(record, key, partition))
        {
            tally.section.wrong(|| format!("{}: {fault}", what()));
        }
        let lane = (i64::from(order.partition), i64::from(record.partition));
        tally.place(number, lane, order.offset, what);
    }
    tally.finish(
        |number| expected[number].is_some(),
        |number| format!("order {}", orders[number].order_id),
    )
}

/// Notes a record of a time at which no committed input was submitted.
fn from_nothing(section: &mut Section, record: &Record) {
    let what = || format!("{} follows from no input", at(record));
    if record.timestamp >= BASE_MS.saturating_add_unsigned(ABORTED) {
        section.aborted_read(what);
    } else {
        section.wrong(what);
    }
}

/// Inputs by `submittedAt`, which the generator makes unique; two alike could not be told apart downstream.
fn by_submitted_at(orders: &[Order], section: &mut Section) -> HashMap<i64, usize> {
    let mut by_time = HashMap::with_capacity(orders.len());
    for (number, order) in orders.iter().enumerate() {
        if by_time.insert(order.submitted_at, number).is_some() {
            section.wrong(|| {
                format!(
                    "two inputs have submittedAt {}: this input cannot be judged",
                    order.submitted_at
                )
            });
        }
    }
    by_time
}

/// What follows from a repartition topic.
struct Replayed {
    decisions: Vec<(Box<str>, Expected)>,
    store: BTreeMap<Box<str>, (i32, Exposure)>,
}

/// Runs the model over the repartition topic, partition by partition. Records that cannot be read are skipped here:
/// [`judge_repartition`] has counted them.
fn replay(repartition: &Topic, formats: Formats) -> Replayed {
    let mut tasks: BTreeMap<i32, ExposureByCustomer> = BTreeMap::new();
    let mut decisions = Vec::new();
    for record in &repartition.records {
        let (Some(key), Some(value)) = (record.key.as_deref(), record.value.as_deref()) else {
            continue;
        };
        let (Ok(customer), Ok(amount)) = (str::from_utf8(key), formats.repartition_amount(value)) else {
            continue;
        };
        let task = tasks.entry(record.partition).or_default();
        if let Some(decision) = task.add(customer, amount, record.timestamp) {
            decisions.push((customer.into(), decision));
        }
    }
    let store = tasks
        .into_iter()
        .flat_map(|(partition, task)| {
            task.store
                .into_iter()
                .map(move |(customer, exposure)| (customer, (partition, exposure)))
        })
        .collect();
    Replayed { decisions, store }
}

/// The decisions of each customer, in order, byte for byte.
fn judge_decisions(expected: &[(Box<str>, Expected)], topic: &Topic, repeats: Repeats) -> Section {
    let mut tally = Tally::new("decisions", repeats, expected.len(), topic.records.len());
    let mut customers: HashMap<&[u8], i64> = HashMap::new();
    // Equal values of one customer (possible with amounts of 0) are matched in order.
    let mut numbers: HashMap<(&[u8], &[u8]), Vec<usize>> = HashMap::with_capacity(expected.len());
    for (number, (customer, decision)) in expected.iter().enumerate() {
        let next = customers.len() as i64;
        customers.entry(customer.as_bytes()).or_insert(next);
        numbers
            .entry((customer.as_bytes(), &decision.value))
            .or_default()
            .push(number);
    }
    for record in &topic.records {
        let key = record.key.as_deref().unwrap_or_default();
        let value = record.value.as_deref().unwrap_or_default();
        let (Some(lane), Some(candidates)) = (customers.get(key), numbers.get(&(key, value))) else {
            tally
                .section
                .wrong(|| format!("{} {} follows from no input", at(record), text(value)));
            continue;
        };
        let what = || format!("{} {}", at(record), text(value));
        let first = candidates[0];
        let number = candidates
            .iter()
            .copied()
            .find(|n| !tally.seen[*n])
            .unwrap_or(first);
        let partition = murmur2::partition(key, topic.partitions);
        let fault = value_fault(record, &expected[number].1)
            .or_else(|| key_or_partition_fault(record, key, partition));
        if let Some(fault) = fault {
            tally.section.wrong(|| format!("{}: {fault}", what()));
        }
        tally.place(number, (*lane, 0), number as i64, what);
    }
    tally.finish(|_| true, |number| text(&expected[number].1.value).into_owned())
}

/// The last value of each key of the changelog. Earlier ones are free: how often a key is written is not promised.
fn judge_store(
    expected: &BTreeMap<Box<str>, (i32, Exposure)>,
    changelog: &Topic,
    formats: Formats,
) -> Section {
    let mut section = Section::new("store", Repeats::Forbidden);
    let mut last: BTreeMap<(&[u8], i32), &Record> = BTreeMap::new();
    for record in &changelog.records {
        last.insert(
            (record.key.as_deref().unwrap_or_default(), record.partition),
            record,
        );
    }
    last.retain(|_, record| record.value.is_some());
    section.expected = expected.len() as u64;
    section.found = last.len() as u64;
    for (customer, (partition, exposure)) in expected {
        let Some(record) = last.remove(&(customer.as_bytes(), *partition)) else {
            section.missing(|| format!("customer {customer} in partition {partition}"));
            continue;
        };
        match formats.store_entry(record.value.as_deref().unwrap_or_default(), record.timestamp) {
            Ok(entry) if entry == (exposure.timestamp, exposure.sum) => {}
            Ok((timestamp, sum)) => section.wrong(|| {
                format!(
                    "{} for {customer}: exposure {sum} at {timestamp}, should be {} at {}",
                    at(record),
                    exposure.sum,
                    exposure.timestamp
                )
            }),
            Err(fault) => section.wrong(|| format!("{} for {customer}: {fault}", at(record))),
        }
    }
    for ((key, _), record) in last {
        section.wrong(|| {
            format!(
                "{} for {}: the store should not have this key",
                at(record),
                text(key)
            )
        });
    }
    section
}

fn value_fault(record: &Record, right: &Expected) -> Option<String> {
    let value = record.value.as_deref().unwrap_or_default();
    if *value != *right.value {
        return Some(format!("{} is not {}", text(value), text(&right.value)));
    }
    (record.timestamp != right.timestamp)
        .then(|| format!("timestamp {} is not {}", record.timestamp, right.timestamp))
}

fn key_or_partition_fault(record: &Record, key: &[u8], partition: i32) -> Option<String> {
    if record.key.as_deref() != Some(key) {
        let found = record.key.as_deref().map_or(Cow::Borrowed("no key"), text);
        return Some(format!("key {found} is not {}", text(key)));
    }
    (record.partition != partition).then(|| format!("its key belongs to partition {partition}"))
}

fn at(record: &Record) -> String {
    format!(
        "partition {} offset {} (timestamp {})",
        record.partition, record.offset, record.timestamp
    )
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
