//! Where tasks stand: the last records of the positions topic.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka::{Consumer, Event, Start};
use protocol::{ApplicationId, Owner, Positions, TaskId};

use crate::REQUEST_TIMEOUT;

/// A first look at a positions partition goes back this far from its end; the last record of a task that runs is
/// almost always the one before the last commit marker.
const TAIL: i64 = 64;

/// Why a partition stays unreadable although a worker's own transactions have ended, and what to do.
pub const OPEN_TRANSACTION: &str = "another transaction holds them. It ends by itself within its time-out \
    (transaction.timeout.ms), and the worker goes on. If this stays, the broker has lost the transaction's end (a hanging \
    transaction): see docs/hanging-transactions.md, `kafka-transactions.sh find-hanging`";

/// Why positions cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PositionsError {
    /// A Kafka call failed.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// A positions record is not readable.
    #[error("partition {partition} of the positions topic is not readable: {reason}")]
    Unreadable {
        /// The partition.
        partition: i32,
        /// What is wrong.
        reason: String,
    },
    /// The broker did not let the positions be read to their end.
    #[error("positions of task {task} could not be read to their end: {why}", why = OPEN_TRANSACTION)]
    Blocked {
        /// The task.
        task: TaskId,
    },
}

/// Where to look in a task's positions partition.
struct Look<'a> {
    task: &'a TaskId,
    partition: i32,
    low: i64,
    target: i64,
}

impl Look<'_> {
    /// Whether a partition that ends here for readers of committed records has been read. The end fires at the last stable
    /// offset: only one at or after the high watermark counts.
    fn is_complete_at(&self, end: i64) -> bool {
        end >= self.target
    }
}

/// The last committed positions record of each task. Only its task writes a partition, so the record is near the end;
/// where none is there (aborted transactions), the look goes back further. All partitions are read side by side.
/// `committed` reads committed records, `all` sees high watermarks.
///
/// # Errors
/// [`PositionsError`]
pub fn last_positions(
    application: &ApplicationId,
    tasks: &BTreeMap<TaskId, Owner>,
    committed: &Consumer,
    all: &Consumer,
) -> Result<BTreeMap<TaskId, Positions>, PositionsError> {
    let topic = application.positions_topic();
    let mut found = BTreeMap::new();
    let mut open = Vec::new();
    for (task, owner) in tasks {
        let partition = owner.positions_partition;
        let (low, target) = all.watermarks(&topic, partition, REQUEST_TIMEOUT)?;
        open.push(Look {
            task,
            partition,
            low,
            target,
        });
    }
    let mut back = TAIL;
    loop {
        open.retain(|look| look.low < look.target && !found.contains_key(look.task));
        if open.is_empty() {
            return Ok(found);
        }
        read_tails(&topic, &open, back, committed, &mut found)?;
        open.retain(|look| look.target - back > look.low);
        back *= 16;
    }
}

fn read_tails(
    topic: &str,
    looks: &[Look<'_>],
    back: i64,
    consumer: &Consumer,
    found: &mut BTreeMap<TaskId, Positions>,
) -> Result<(), PositionsError> {
    let start = |look: &Look<'_>| Start {
        topic: topic.to_owned(),
        partition: look.partition,
        offset: look.low.max(look.target - back),
    };
    consumer.assign(&looks.iter().map(start).collect::<Vec<_>>())?;
    let deadline = Instant::now() + REQUEST_TIMEOUT * 2;
    let mut reading: BTreeMap<i32, &Look<'_>> = looks.iter().map(|look| (look.partition, look)).collect();
    while let Some(look) = reading.values().next() {
        if Instant::now() > deadline {
            let task = look.task.clone();
            return Err(PositionsError::Blocked { task });
        }
        match consumer.poll(Duration::from_millis(100))? {
            Some(Event::Record(message)) => {
                let document: Result<Positions, _> =
                    serde_json::from_slice(message.value().unwrap_or_default());
                let position = document.map_err(|error| PositionsError::Unreadable {
                    partition: message.partition(),
                    reason: format!("offset {}: {error}", message.offset()),
                })?;
                found.insert(position.task.clone(), position);
            }
            Some(Event::EndOfPartition {
                partition, offset, ..
            }) if reading
                .get(&partition)
                .is_some_and(|look| look.is_complete_at(offset)) =>
            {
                reading.remove(&partition);
            }
            Some(Event::EndOfPartition { .. }) | None => {}
        }
    }
    consumer.assign(&[])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_before_the_high_watermark_is_not_the_end() {
        let task = "orders-0".parse().unwrap();
        let look = Look {
            task: &task,
            partition: 0,
            low: 0,
            target: 5,
        };
        assert!(!look.is_complete_at(4));
        assert!(look.is_complete_at(5) && look.is_complete_at(6));
    }
}
