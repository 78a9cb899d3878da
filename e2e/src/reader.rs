//! Reads a whole topic up to the end that it has now.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::broker::{Broker, Isolation, Offsets, REQUEST};
use crate::wait;

/// A group id that is never committed to: librdkafka wants one even for assigned partitions.
pub(crate) const GROUP: &str = "streamapp-e2e-reader";

/// One record, borrowed from the client's buffer.
#[derive(Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// Milliseconds since 1970.
    pub(crate) timestamp: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Option<&'a BorrowedHeaders>,
}

/// Waits until no transaction is open before the topic's present high watermark, and returns how many partitions
/// the topic has. From then on a committed read to the end is complete.
pub(crate) fn settle(broker: &Broker, topic: &str, deadline: Duration) -> Result<i32> {
    let all = broker.consumer(GROUP, Isolation::Uncommitted)?;
    let stable = broker.consumer(GROUP, Isolation::Committed)?;
    let targets = broker.ends(&all, topic)?;
    for partition in targets.keys() {
        let (first, _) = all.fetch_watermarks(topic, *partition, REQUEST)?;
        if first > 0 {
            bail!(
                "topic {topic} partition {partition} begins at offset {first}: records were deleted, so that it cannot \
                 be read whole (repartition topics are purged by their application: run it with \
                 --keep-repartition-records)"
            );
        }
    }
    wait::until(
        &format!("the open transactions of topic {topic}"),
        deadline,
        || {
            let ends = broker
                .ends(&stable, topic)
                .map_err(|error| format!("{error:#}"))?;
            match behind(&ends, &targets) {
                None => Ok(Ok(())),
                Some((partition, end, target)) => Err(format!(
                    "partition {partition} is stable up to offset {end}, its log goes up to {target} \
                 (a transaction is open: has its producer died without a successor?)"
                )),
            }
        },
    )?;
    Ok(targets.len() as i32)
}

/// Waits until nothing is written for a second to any topic of a broker, and no transaction is open.
pub(crate) fn wait_still(broker: &Broker, deadline: Duration) -> Result<()> {
    const STILL: Duration = Duration::from_secs(1);
    let all = broker.consumer(GROUP, Isolation::Uncommitted)?;
    let stable = broker.consumer(GROUP, Isolation::Committed)?;
    let topics = broker.topic_names()?;
    let mut before = (Vec::new(), Instant::now());
    let mut look = || -> Result<bool> {
        let ends = |consumer| {
            topics
                .iter()
                .map(|topic| broker.ends(consumer, topic))
                .collect::<Result<Vec<_>>>()
        };
        let (ends, stable) = (ends(&all)?, ends(&stable)?);
        if ends != stable || ends != before.0 {
            before = (ends, Instant::now());
        }
        Ok(before.1.elapsed() >= STILL)
    };
    wait::until("nothing to be under way", deadline, || match look() {
        Ok(true) => Ok(Ok(())),
        Ok(false) => Err("transactions go on".to_owned()),
        Err(error) => Err(format!("{error:#}")),
    })
}

/// The first partition whose end has not reached its target.
pub(crate) fn behind(ends: &Offsets, targets: &Offsets) -> Option<(i32, i64, i64)> {
    targets.iter().find_map(|(partition, target)| {
        let end = ends.get(partition).copied().unwrap_or(0);
        (end < *target).then_some((*partition, end, *target))
    })
}

/// Hands every record of `topic` to `each`, partition by partition in offset order (partitions interleaved).
///
/// It ends at what is the end when the last partition reports it; call [`settle`] before, so that a committed read
/// misses nothing that was there. `deadline` bounds the whole read.
pub(crate) fn read_all(
    broker: &Broker,
    topic: &str,
    isolation: Isolation,
    deadline: Duration,
    each: impl FnMut(Record<'_>) -> Result<()>,
) -> Result<()> {
    let consumer = broker.consumer(GROUP, isolation)?;
    let partitions = broker.partitions(&consumer, topic)?;
    let from: Vec<_> = (0..partitions)
        .map(|partition| (partition, Offset::Beginning))
        .collect();
    read_on(&consumer, topic, &from, deadline, each)
}

/// The same from these offsets on.
pub(crate) fn read_on(
    consumer: &BaseConsumer,
    topic: &str,
    from: &[(i32, Offset)],
    deadline: Duration,
    mut each: impl FnMut(Record<'_>) -> Result<()>,
) -> Result<()> {
    assign(consumer, topic, from.iter().copied())?;
    let mut open: BTreeSet<i32> = from.iter().map(|(partition, _)| *partition).collect();
    let start = Instant::now();
    while !open.is_empty() {
        if start.elapsed() > deadline {
            bail!(
                "reading topic {topic} took longer than {} s; open: partitions {open:?}",
                deadline.as_secs()
            );
        }
        match consumer.poll(Duration::from_millis(200)) {
            None => {}
            Some(Ok(message)) if open.contains(&message.partition()) => each(record(&message)?)?,
            // Written after the end that this read goes up to.
            Some(Ok(_)) => {}
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(error)) => return Err(error).with_context(|| format!("reading topic {topic}")),
        }
    }
    Ok(())
}

/// A client at the beginning of a topic, and how many partitions that has.
pub(crate) fn from_beginning(
    broker: &Broker,
    topic: &str,
    isolation: Isolation,
) -> Result<(BaseConsumer, i32)> {
    let consumer = broker.consumer(GROUP, isolation)?;
    let partitions = broker.partitions(&consumer, topic)?;
    let from = (0..partitions).map(|partition| (partition, Offset::Beginning));
    assign(&consumer, topic, from)?;
    Ok((consumer, partitions))
}

/// Assigns partitions of one topic at the given offsets.
pub(crate) fn assign(
    consumer: &BaseConsumer,
    topic: &str,
    from: impl IntoIterator<Item = (i32, Offset)>,
) -> Result<()> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in from {
        list.add_partition_offset(topic, partition, offset)?;
    }
    consumer
        .assign(&list)
        .with_context(|| format!("cannot assign topic {topic}"))
}

pub(crate) fn record<'a>(message: &'a BorrowedMessage<'_>) -> Result<Record<'a>> {
    let timestamp = message.timestamp().to_millis().ok_or_else(|| {
        anyhow!(
            "a record without timestamp at partition {} offset {}",
            message.partition(),
            message.offset()
        )
    })?;
    Ok(Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp,
        key: message.key(),
        value: message.payload(),
        headers: message.headers(),
    })
}
