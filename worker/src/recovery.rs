//! Where tasks stand when a session begins: the last committed positions, compared with their mirror, and the
//! start vector of tasks that have never committed.

use std::collections::BTreeMap;
use std::time::Instant;

use control::{OPEN_TRANSACTION, PositionsError, last_positions};
use kafka::{Category, Consumer};
use protocol::{ApplicationId, InputPosition, Owner, Phase, Positions, TaskId, check_mirror};
use topology::plan::{OffsetReset, Source, TopicName};

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
    /// A store is to be kept in another way than it was.
    #[error(transparent)]
    StoreChanged(#[from] protocol::StoreChanged),
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
            | Self::StoreChanged(_)
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
            Self::StoreChanged(_) => "StoreChanged",
            Self::Positions(PositionsError::Unreadable { .. }) => "PositionsUnreadable",
            Self::Positions(PositionsError::Blocked { .. }) => "PositionsBlocked",
            Self::UnstableOffsets { .. } => "UnstableOffsets",
        }
    }
}

/// Where a task begins in this session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recovered {
    pub(crate) positions: Positions,
    /// It has never committed, or never read one of its inputs: its first transaction commits where it begins, alone.
    pub(crate) begins: bool,
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
        .iter()
        .filter_map(|(task, owner)| {
            let mut subs = plan.sub_topologies.iter();
            let sub = subs.find(|sub| sub.name == task.sub_topology)?;
            Some((task, *owner, sub))
        })
        .collect();
    let names: Vec<Vec<_>> = planned
        .iter()
        .map(|(.., sub)| {
            sub.sources
                .iter()
                .map(|source| source.topic.resolve(&application.0))
                .collect()
        })
        .collect();
    let inputs: Vec<_> = planned
        .iter()
        .zip(&names)
        .flat_map(|((task, ..), names)| names.iter().map(|name| (name.as_str(), task.partition)))
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
    let mut mirror = mirror.into_iter();
    for ((task, owner, sub), names) in planned.into_iter().zip(&names) {
        let last = last.remove(task);
        let (mut found, mut start) = (Vec::new(), Vec::new());
        for ((source, topic), mirror) in sub.sources.iter().zip(names).zip(&mut mirror) {
            let id = outline.topics.get(topic).map_or("", |found| found.id.as_str());
            let partition = Partition {
                topic,
                id,
                partition: task.partition,
                mirror,
                ends: all.watermarks(topic, task.partition, REQUEST_TIMEOUT)?,
            };
            let known = last.iter().flat_map(|positions| &positions.inputs);
            let known = known.into_iter().find(|input| input.topic == *topic);
            match known {
                Some(known) => {
                    partition.check(known)?;
                    found.push(known.clone());
                }
                None => {
                    let begun = partition.begin(application, source, owner)?;
                    start.push(begun.clone());
                    found.push(begun);
                }
            }
        }
        let begins = !start.is_empty();
        let mut positions = match last {
            Some(positions) => Positions {
                inputs: found,
                start: positions.start.into_iter().chain(start).collect(),
                ..positions
            },
            None => Positions {
                task: task.clone(),
                transaction: 0,
                inputs: found,
                start,
                stream_time: i64::MIN,
                stores: BTreeMap::new(),
            },
        };
        let stores = sub.stores.iter();
        positions.note_stores(stores.map(|store| (store.name.as_str(), store.fingerprint.as_str())))?;
        recovered.insert(task.clone(), Recovered { positions, begins });
    }
    Ok(recovered)
}

/// A partition that a task reads, as it is in Kafka.
struct Partition<'a> {
    topic: &'a String,
    id: &'a str,
    partition: i32,
    /// The group's committed offset.
    mirror: Option<i64>,
    ends: (i64, i64),
}

impl Partition<'_> {
    /// Whether a task can go on there.
    fn check(&self, known: &InputPosition) -> Result<(), RecoveryError> {
        let (topic, (low, high)) = (self.topic.clone(), self.ends);
        if known.topic_id != self.id {
            return Err(RecoveryError::TopicRecreated { topic });
        }
        check_mirror(known, self.mirror)?;
        if known.offset < low || known.offset > high {
            return Err(RecoveryError::InputLost {
                topic,
                partition: self.partition,
                wanted: known.offset,
                low,
                high,
            });
        }
        Ok(())
    }

    /// Where a task begins that has never read it.
    fn begin(
        &self,
        application: &ApplicationId,
        source: &Source,
        owner: Owner,
    ) -> Result<InputPosition, RecoveryError> {
        let (topic, partition, (low, high)) = (self.topic.clone(), self.partition, self.ends);
        if self.mirror.is_some() {
            let group = application.0.clone();
            return Err(RecoveryError::GroupHasOffsets {
                group,
                topic,
                partition,
            });
        }
        let is_external = matches!(source.topic, TopicName::External(_));
        let offset = match source.offset_reset {
            OffsetReset::Latest if is_external && !owner.added => high,
            OffsetReset::Earliest | OffsetReset::Latest => low,
        };
        Ok(InputPosition {
            topic,
            topic_id: self.id.to_owned(),
            partition,
            offset,
        })
    }
}
