//! What the checker judges: the records of the input, the internal and the output topics; and reading them.

use std::time::Duration;

use anyhow::{Result, bail};
use hashbrown::HashSet;
use serde::Deserialize;

use crate::broker::{Broker, Isolation};
use crate::reader;

/// An input record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) order_id: Box<str>,
    pub(crate) customer_id: Box<str>,
    pub(crate) amount_in_cents: i64,
    pub(crate) submitted_at: i64,
}

/// A record of any other topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Box<[u8]>>,
    pub(crate) value: Option<Box<[u8]>>,
}

impl From<reader::Record<'_>> for Record {
    fn from(record: reader::Record<'_>) -> Self {
        Self {
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.map(Into::into),
            value: record.value.map(Into::into),
        }
    }
}

/// The committed records of one topic: in offset order within each partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) partitions: i32,
    pub(crate) records: Vec<Record>,
}

/// The input of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Inputs {
    pub(crate) orders: Vec<Order>,
    pub(crate) malformed: u64,
    /// How many of them the run was given on purpose.
    pub(crate) malformed_expected: u64,
}

/// A topic as read, with the number of its records that no committed reader sees.
pub(crate) struct Read {
    pub(crate) topic: Topic,
    pub(crate) aborted: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OrderJson<'a> {
    #[serde(borrow)]
    order_id: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    customer_id: std::borrow::Cow<'a, str>,
    amount_in_cents: i64,
    submitted_at: i64,
}

/// Reads the input topic.
pub(crate) fn read_inputs(
    broker: &Broker,
    topic: &str,
    malformed_expected: u64,
    deadline: Duration,
) -> Result<Inputs> {
    reader::settle(broker, topic, deadline)?;
    let mut inputs = Inputs {
        malformed_expected,
        ..Inputs::default()
    };
    reader::read_all(broker, topic, Isolation::Committed, deadline, |record| {
        let parsed = record.value.map(serde_json::from_slice::<OrderJson<'_>>);
        let Some(Ok(order)) = parsed else {
            inputs.malformed += 1;
            return Ok(());
        };
        inputs.orders.push(Order {
            partition: record.partition,
            offset: record.offset,
            order_id: order.order_id.into(),
            customer_id: order.customer_id.into(),
            amount_in_cents: order.amount_in_cents,
            submitted_at: order.submitted_at,
        });
        Ok(())
    })?;
    Ok(inputs)
}

/// Reads a topic committed, then once more uncommitted, to count what was aborted.
pub(crate) fn read_topic(broker: &Broker, topic: &str, deadline: Duration) -> Result<Read> {
    let partitions = reader::settle(broker, topic, deadline)?;
    let mut records = Vec::new();
    reader::read_all(broker, topic, Isolation::Committed, deadline, |record| {
        records.push(record.into());
        Ok(())
    })?;
    let aborted = count_aborted(broker, topic, &records, deadline)?;
    Ok(Read {
        topic: Topic { partitions, records },
        aborted,
    })
}

/// The records that only an uncommitted reader sees. The committed ones must be among what it sees: else one of the
/// two reads was not the topic, and nothing may be judged from it.
fn count_aborted(broker: &Broker, topic: &str, committed: &[Record], deadline: Duration) -> Result<u64> {
    let mut left: HashSet<(i32, i64)> = committed.iter().map(|r| (r.partition, r.offset)).collect();
    if left.len() != committed.len() {
        bail!("topic {topic}: a committed read gave the same offset twice");
    }
    let mut aborted = 0;
    reader::read_all(broker, topic, Isolation::Uncommitted, deadline, |record| {
        if !left.remove(&(record.partition, record.offset)) {
            aborted += 1;
        }
        Ok(())
    })?;
    match left.iter().next() {
        None => Ok(aborted),
        Some((partition, offset)) => bail!(
            "topic {topic}: {} committed records were not seen by an uncommitted read, e.g. partition {partition} \
             offset {offset}",
            left.len()
        ),
    }
}
