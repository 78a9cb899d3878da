//! Where tasks stand when a session begins: the last committed positions, compared with their mirror, and the
//! start vector of tasks that have never committed.

use std::collections::BTreeMap;
use std::time::Instant;

use control::{OPEN_TRANSACTION, PositionsError, last_positions};
use kafka::{Category, Consumer};
use protocol::{InputPosition, Owner, Phase, Positions, TaskId, check_mirror};
use topology::plan::{OffsetReset, TopicName};

use crate::control::REQUEST_TIMEOUT;
use crate::seed::Outline;

/// Why the positions of a task cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoveryError {
    /// A Kafka call failed.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// The group's offsets differ from the positions; a person decides.
    #[error(
        "{0}. Stop whoever changes them; `streamapp offsets FILE --restore` sets the group's offsets to the tasks' positions, and the worker goes on"
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
        "{topic}/{partition}: the next record to read has offset {wanted}, but the topic holds {low}..{high}: records were deleted before they were processed. Restore them, or go on without them: `streamapp offsets FILE --skip-lost`"
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
    /// The position belongs to a topic that is gone.
    #[error(
        "{topic} was deleted and made again: what this application had not read of it is gone. `streamapp offsets FILE --skip-lost` reads the new topic from its beginning; the state stays"
    )]
    TopicRecreated {
        /// The topic.
        topic: String,
    },
    /// The positions cannot be read.
    #[error(transparent)]
    Positions(#[from] PositionsError),
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
            Self::Positions(PositionsError::Blocked { .. }) | Self::UnstableOffsets { .. } => {
                Phase::Acquiring
            }
            Self::Kafka(_)
            | Self::Mirror(_)
            | Self::GroupHasOffsets { .. }
            | Self::InputLost { .. }
            | Self::TopicRecreated { .. }
            | Self::Positions(_) => Phase::Hold,
        }
    }

    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Kafka(_) | Self::Positions(PositionsError::Kafka(_)) => "BrokerUnreachable",
            Self::Mirror(protocol::MirrorMismatch::OffsetsLost { .. }) => "OffsetsLost",
            Self::Mirror(protocol::MirrorMismatch::OffsetsAltered { .. }) => "OffsetsAltered",
            Self::GroupHasOffsets { .. } => "GroupHasOffsets",
            Self::InputLost { .. } => "InputLost",
            Self::TopicRecreated { .. } => "TopicRecreated",
            Self::Positions(PositionsError::Unreadable { .. }) => "PositionsUnreadable",
            Self::Positions(PositionsError::Blocked { .. }) => "PositionsBlocked",
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
    outline: &Outline,
    tasks: &BTreeMap<TaskId, Owner>,
    committed: &Consumer,
    all: &Consumer,
) -> Result<BTreeMap<TaskId, Recovered>, RecoveryError> {
    let Outline {
        application, plan, ..
    } = outline;
    let began = Instant::now();
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
    tracing::debug!(after = ?began.elapsed(), "recovery: mirror read");
    let mut last = last_positions(application, tasks, committed, all)?;
    tracing::debug!(after = ?began.elapsed(), "recovery: positions read");
    let mut recovered = BTreeMap::new();
    for ((task, sub, topic), mirror) in planned.iter().zip(mirror) {
        let (low, high) = all.watermarks(topic, task.partition, REQUEST_TIMEOUT)?;
        let topic_id = outline.topics.get(topic).map_or("", |found| found.id.as_str());
        let found = match last.remove(*task) {
            Some(positions) => {
                for input in &positions.inputs {
                    if input.topic_id != topic_id {
                        let topic = topic.clone();
                        return Err(RecoveryError::TopicRecreated { topic });
                    }
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
                let added = tasks.get(*task).is_some_and(|owner| owner.added);
                let offset = match sub.source.offset_reset {
                    OffsetReset::Latest if !internal && !added => high,
                    OffsetReset::Earliest | OffsetReset::Latest => low,
                };
                let start = vec![InputPosition {
                    topic,
                    topic_id: topic_id.to_owned(),
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
