//! Where tasks stand when a session begins: the last committed positions, compared with their mirror, and the
//! start vector of tasks that have never committed.

use std::collections::BTreeMap;
use std::time::Instant;

use kafka::{Consumer, Event, Start};
use protocol::{InputPosition, Owner, Positions, TaskId, check_mirror};
use topology::plan::{OffsetReset, Plan, TopicName};

use crate::control::REQUEST_TIMEOUT;

/// A first look at a positions partition goes back this far from its end; the last record of a task that runs is
/// almost always the one before the last commit marker.
const TAIL: i64 = 64;

/// Why the positions of a task cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoveryError {
    /// A Kafka call failed.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// The group's offsets differ from the positions; a person decides.
    #[error("{0}. Stop whoever changes them; to go on from the task's positions, set the group's offsets to them")]
    Mirror(#[from] protocol::MirrorMismatch),
    /// The group has offsets though the task has never committed.
    #[error("group {group} has a committed offset for {topic}/{partition}, but no task of this application has ever committed: another application used this group. Choose another applicationId, or delete the group's offsets")]
    GroupHasOffsets {
        /// The group.
        group: String,
        /// Topic of the input.
        topic: String,
        /// Partition of the input.
        partition: i32,
    },
    /// A position is not in the topic any more.
    #[error("{topic}/{partition}: the next record to read has offset {wanted}, but the topic holds {low}..{high}: records were deleted before they were processed. Restore them, or decide to skip them")]
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
    #[error("positions of task {task} are not readable: {reason}")]
    Unreadable {
        /// The task.
        task: TaskId,
        /// What is wrong.
        reason: String,
    },
    /// The broker did not let the positions be read to their end.
    #[error("positions of task {0} could not be read to their end in time; a transaction of an earlier owner may still be open")]
    Blocked(TaskId),
}

impl RecoveryError {
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Kafka(_) => "BrokerUnreachable",
            Self::Mirror(protocol::MirrorMismatch::OffsetsLost { .. }) => "OffsetsLost",
            Self::Mirror(protocol::MirrorMismatch::OffsetsAltered { .. }) => "OffsetsAltered",
            Self::GroupHasOffsets { .. } => "GroupHasOffsets",
            Self::InputLost { .. } => "InputLost",
            Self::Unreadable { .. } => "PositionsUnreadable",
            Self::Blocked(_) => "PositionsBlocked",
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
    let mut recovered = BTreeMap::new();
    for (task, owner) in tasks {
        let Some(sub_topology) = plan.sub_topologies.iter().find(|sub| sub.name == task.sub_topology) else {
            continue;
        };
        let topic = sub_topology.source.topic.resolve(&application.0);
        let mirror = committed.committed(&[(&topic, task.partition)], REQUEST_TIMEOUT)?;
        let mirror = mirror.first().copied().flatten();
        let last = last_positions(application, task, owner.positions_partition, committed, all)?;
        let (low, high) = all.watermarks(&topic, task.partition, REQUEST_TIMEOUT)?;
        let found = match last {
            Some(positions) => {
                for input in &positions.inputs {
                    check_mirror(input, mirror)?;
                    if input.offset < low || input.offset > high {
                        let (topic, partition, wanted) = (input.topic.clone(), input.partition, input.offset);
                        return Err(RecoveryError::InputLost { topic, partition, wanted, low, high });
                    }
                }
                Recovered::Continue(positions)
            }
            None => {
                if mirror.is_some() {
                    let (group, partition) = (application.0.clone(), task.partition);
                    return Err(RecoveryError::GroupHasOffsets { group, topic, partition });
                }
                let internal = !matches!(sub_topology.source.topic, TopicName::External(_));
                let offset = match sub_topology.source.offset_reset {
                    OffsetReset::Latest if !internal => high,
                    OffsetReset::Earliest | OffsetReset::Latest => low,
                };
                let start = vec![InputPosition { topic, partition: task.partition, offset }];
                Recovered::Begin(Positions {
                    task: task.clone(),
                    transaction: 0,
                    inputs: start.clone(),
                    start,
                    stream_time: i64::MIN,
                })
            }
        };
        recovered.insert(task.clone(), found);
    }
    Ok(recovered)
}

/// The last committed positions record of a task. Only its task writes that partition, so the record is near the
/// end; if none is there (aborted transactions), the look goes back further.
fn last_positions(
    application: &protocol::ApplicationId,
    task: &TaskId,
    partition: i32,
    committed: &Consumer,
    all: &Consumer,
) -> Result<Option<Positions>, RecoveryError> {
    let topic = application.positions_topic();
    let (low, target) = all.watermarks(&topic, partition, REQUEST_TIMEOUT)?;
    let mut back = TAIL;
    loop {
        let from = low.max(target - back);
        if let Some(found) = last_record(&topic, task, partition, from, target, committed)? {
            return Ok(Some(found));
        }
        if from == low {
            return Ok(None);
        }
        back *= 16;
    }
}

fn last_record(
    topic: &str,
    task: &TaskId,
    partition: i32,
    from: i64,
    target: i64,
    consumer: &Consumer,
) -> Result<Option<Positions>, RecoveryError> {
    if from >= target {
        return Ok(None);
    }
    consumer.assign(&[Start { topic: topic.to_owned(), partition, offset: from }])?;
    let deadline = Instant::now() + REQUEST_TIMEOUT * 2;
    let mut last = None;
    loop {
        match consumer.poll(std::time::Duration::from_millis(100))? {
            Some(Event::Record(message)) => {
                let document = serde_json::from_slice(message.value().unwrap_or_default());
                last = Some(document.map_err(|error| RecoveryError::Unreadable {
                    task: task.clone(),
                    reason: format!("offset {}: {error}", message.offset()),
                })?);
            }
            // The end fires at the last stable offset: only one at or after the high watermark counts.
            Some(Event::EndOfPartition { offset, .. }) if offset >= target => break,
            Some(Event::EndOfPartition { .. }) | None => {}
        }
        if Instant::now() > deadline {
            return Err(RecoveryError::Blocked(task.clone()));
        }
    }
    consumer.assign(&[])?;
    Ok(last)
}
