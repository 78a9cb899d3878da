//! Where tasks stand when a session begins: the last committed positions, compared with their mirror, and the
//! start vector of tasks that have never committed.

use std::collections::BTreeMap;
use std::time::Instant;

use kafka::{Category, Consumer, Event, Start};
use protocol::{InputPosition, Owner, Phase, Positions, TaskId, check_mirror};
use topology::plan::{OffsetReset, Plan, TopicName};

use crate::control::REQUEST_TIMEOUT;

/// A first look at a positions partition goes back this far from its end; the last record of a task that runs is
/// almost always the one before the last commit marker.
const TAIL: i64 = 64;

/// Why a partition stays unreadable although this worker's own transactions have ended, and what to do.
const OPEN_TRANSACTION: &str = "another transaction holds them. It ends by itself within its time-out \
    (transaction.timeout.ms), and the worker goes on. If this stays, the broker has lost the transaction's end (a hanging \
    transaction): see docs/hanging-transactions.md, `kafka-transactions.sh find-hanging`";

/// Why the positions of a task cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoveryError {
    /// A Kafka call failed.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// The group's offsets differ from the positions; a person decides.
    #[error(
        "{0}. Stop whoever changes them; to go on from the task's positions, set the group's offsets to them"
    )]
    Mirror(#[from] protocol::MirrorMismatch),
    /// The group has offsets though the task has never committed.
    #[error(
        "group {group} has a committed offset for {topic}/{partition}, but no task of this application has ever committed: another application used this group. Choose another applicationId, or delete the group's offsets"
    )]
    GroupHasOffsets {
        /// The group.
        group: String,
        /// Topic of the input.
        topic: String,
        /// Partition of the input.
        partition: i32,
    },
    /// A position is not in the topic any more.
    #[error(
        "{topic}/{partition}: the next record to read has offset {wanted}, but the topic holds {low}..{high}: records were deleted before they were processed. Restore them, or decide to skip them"
    )]
    InputLost {
        /// Topic of the input.
        topic: String,
        /// Partition of the input.
        partition: i32,
        /// The position.
        wanted: i64,
        /// First offset in the topic.
        low: i64,
        /// End of the topic.
        high: i64,
    },
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
    /// The group's offsets are part of an open transaction.
    #[error("the offsets of group {group} cannot be read: {why}", why = OPEN_TRANSACTION)]
    UnstableOffsets {
        /// The group.
        group: String,
    },
}

impl RecoveryError {
    /// A wait ends by itself; for the others a person is needed.
    pub(crate) fn phase(&self) -> Phase {
        match self {
            Self::Blocked { .. } | Self::UnstableOffsets { .. } => Phase::Acquiring,
            Self::Kafka(_)
            | Self::Mirror(_)
            | Self::GroupHasOffsets { .. }
            | Self::InputLost { .. }
            | Self::Unreadable { .. } => Phase::Hold,
        }
    }

    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Kafka(_) => "BrokerUnreachable",
            Self::Mirror(protocol::MirrorMismatch::OffsetsLost { .. }) => "OffsetsLost",
            Self::Mirror(protocol::MirrorMismatch::OffsetsAltered { .. }) => "OffsetsAltered",
            Self::GroupHasOffsets { .. } => "GroupHasOffsets",
            Self::InputLost { .. } => "InputLost",
            Self::Unreadable { .. } => "PositionsUnreadable",
            Self::Blocked { .. } => "PositionsBlocked",
            Self::UnstableOffsets { .. } => "UnstableOffsets",
        }
    }
}

/// Where a task begins in this session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Recovered {
    /// It goes on from its last committed transaction.
    Continue(Positions),
    /// It has never committed; its first transaction commits this start vector alone.
    Begin(Positions),
}

impl Recovered {
    pub(crate) fn positions(&self) -> &Positions {
        match self {
            Self::Continue(positions) | Self::Begin(positions) => positions,
        }
    }
}

/// Reads positions and mirror of the tasks. `committed` reads committed records, `all` sees high watermarks.
pub(crate) fn recover(
    application: &protocol::ApplicationId,
    plan: &Plan,
    tasks: &BTreeMap<TaskId, Owner>,
    committed: &Consumer,
    all: &Consumer,
) -> Result<BTreeMap<TaskId, Recovered>, RecoveryError> {
    let planned: Vec<_> = tasks
        .keys()
        .filter_map(|task| {
            let sub = plan
                .sub_topologies
                .iter()
                .find(|sub| sub.name == task.sub_topology)?;
            Some((task, sub, sub.source.topic.resolve(&application.0)))
        })
        .collect();
    let inputs: Vec<_> = planned
        .iter()
        .map(|(task, _, topic)| (topic.as_str(), task.partition))
        .collect();
    // librdkafka asks again while the offsets are unstable, so what is seen of that is a time-out.
    let mirror = committed.committed(&inputs, REQUEST_TIMEOUT).map_err(|error| {
        if matches!(error.category(), Category::Timeout | Category::UnstableOffsets) {
            let group = application.0.clone();
            RecoveryError::UnstableOffsets { group }
        } else {
            error.into()
        }
    })?;
    let mut last = last_positions(application, tasks, committed, all)?;
    let mut recovered = BTreeMap::new();
    for ((task, sub, topic), mirror) in planned.iter().zip(mirror) {
        let (low, high) = all.watermarks(topic, task.partition, REQUEST_TIMEOUT)?;
        let found = match last.remove(*task) {
            Some(positions) => {
                for input in &positions.inputs {
                    check_mirror(input, mirror)?;
                    if input.offset < low || input.offset > high {
                        let (topic, partition, wanted) = (input.topic.clone(), input.partition, input.offset);
                        return Err(RecoveryError::InputLost {
                            topic,
                            partition,
                            wanted,
                            low,
                            high,
                        });
                    }
                }
                Recovered::Continue(positions)
            }
            None => {
                let (topic, partition) = (topic.clone(), task.partition);
                if mirror.is_some() {
                    let group = application.0.clone();
                    return Err(RecoveryError::GroupHasOffsets {
                        group,
                        topic,
                        partition,
                    });
                }
                let internal = !matches!(sub.source.topic, TopicName::External(_));
                let offset = match sub.source.offset_reset {
                    OffsetReset::Latest if !internal => high,
                    OffsetReset::Earliest | OffsetReset::Latest => low,
                };
                let start = vec![InputPosition {
                    topic,
                    partition,
                    offset,
                }];
                let task = (*task).clone();
                let inputs = start.clone();
                Recovered::Begin(Positions {
                    task,
                    transaction: 0,
                    inputs,
                    start,
                    stream_time: i64::MIN,
                })
            }
        };
        recovered.insert((*task).clone(), found);
    }
    Ok(recovered)
}

/// Where to look in a task's positions partition.
struct Look<'a> {
    task: &'a TaskId,
    partition: i32,
    low: i64,
    target: i64,
}

/// The last committed positions record of each task. Only its task writes a partition, so the record is near the end;
/// where none is there (aborted transactions), the look goes back further. All partitions are read side by side.
fn last_positions(
    application: &protocol::ApplicationId,
    tasks: &BTreeMap<TaskId, Owner>,
    committed: &Consumer,
    all: &Consumer,
) -> Result<BTreeMap<TaskId, Positions>, RecoveryError> {
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
) -> Result<(), RecoveryError> {
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
            return Err(RecoveryError::Blocked { task });
        }
        match consumer.poll(std::time::Duration::from_millis(100))? {
            Some(Event::Record(message)) => {
                let document: Result<Positions, _> =
                    serde_json::from_slice(message.value().unwrap_or_default());
                let position = document.map_err(|error| RecoveryError::Unreadable {
                    partition: message.partition(),
                    reason: format!("offset {}: {error}", message.offset()),
                })?;
                found.insert(position.task.clone(), position);
            }
            // The end fires at the last stable offset: only one at or after the high watermark counts.
            Some(Event::EndOfPartition {
                partition, offset, ..
            }) if reading.get(&partition).is_some_and(|look| offset >= look.target) => {
                reading.remove(&partition);
            }
            Some(Event::EndOfPartition { .. }) | None => {}
        }
    }
    consumer.assign(&[])?;
    Ok(())
}
