//! What a person decides about offsets: positions are the truth, the group's offsets are their mirror for tools, and a
//! worker that finds them different, or its input gone, goes no further by itself.

use std::collections::BTreeMap;

use kafka::{Admin, Consumer, Isolation, PlainProducer, Settings};
use protocol::{ApplicationId, InputPosition, MirrorMismatch, Owner, Positions, TaskId, World, check_mirror};
use serde::Serialize;

use crate::{Error, PositionsError, REQUEST_TIMEOUT, Reader, last_positions};

/// Why offsets cannot be looked at or changed.
#[derive(Debug, thiserror::Error)]
pub enum OffsetsError {
    /// The control log cannot be used.
    #[error(transparent)]
    Control(#[from] Error),
    /// The positions cannot be read.
    #[error(transparent)]
    Positions(#[from] PositionsError),
    /// A Kafka call failed.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// librdkafka refuses the configuration.
    #[error(transparent)]
    Config(#[from] kafka::ConfigError),
}

/// The offsets of an application.
pub struct Offsets<'a> {
    settings: &'a Settings,
    application: &'a ApplicationId,
    owners: BTreeMap<TaskId, Owner>,
    pub(crate) admin: Admin,
    /// Reads committed records, and the group.
    committed: Consumer,
    /// Sees high watermarks.
    all: Consumer,
}

/// An input partition of a task: where the task stands, and what is around it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InputOffsets {
    /// The task.
    pub task: TaskId,
    /// The input's topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// The next offset that the task reads.
    pub position: i64,
    /// The group's committed offset.
    pub group: Option<i64>,
    /// First offset in the topic.
    pub low: i64,
    /// End of the topic.
    pub high: i64,
    /// The topic's id.
    pub topic_id: String,
    /// What that means.
    pub state: OffsetsState,
}

/// How a position compares with its mirror and its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum OffsetsState {
    /// As it should be.
    Good,
    /// The task commits at this moment, so nothing can be said.
    Moving,
    /// The group's offset is missing or lower.
    OffsetsLost,
    /// The group's offset is higher.
    OffsetsAltered,
    /// The next record is not in the topic any more.
    InputLost,
    /// The topic was deleted, and there is another one of its name.
    TopicRecreated,
}

impl InputOffsets {
    fn of(
        task: &TaskId,
        input: &InputPosition,
        again: Option<i64>,
        group: Option<i64>,
        (topic_id, (low, high)): (&str, (i64, i64)),
    ) -> Self {
        let position = input.offset;
        let state = if again != Some(position) {
            OffsetsState::Moving
        } else if topic_id != input.topic_id {
            OffsetsState::TopicRecreated
        } else if position < low || position > high {
            OffsetsState::InputLost
        } else {
            match check_mirror(input, group) {
                Ok(()) => OffsetsState::Good,
                Err(MirrorMismatch::OffsetsAltered { .. }) => OffsetsState::OffsetsAltered,
                Err(MirrorMismatch::OffsetsLost { .. }) => OffsetsState::OffsetsLost,
            }
        };
        Self {
            task: task.clone(),
            topic: input.topic.clone(),
            partition: input.partition,
            position,
            group,
            low,
            high,
            topic_id: topic_id.to_owned(),
            state,
        }
    }

    /// Where the topic goes on when the position is not in it.
    #[must_use]
    pub fn nearest(&self) -> i64 {
        if self.state == OffsetsState::TopicRecreated {
            self.low
        } else {
            self.position.clamp(self.low, self.high)
        }
    }
}

impl<'a> Offsets<'a> {
    /// Reads who owns what.
    ///
    /// # Errors
    /// [`OffsetsError`], also when the application was never started.
    pub fn open(settings: &'a Settings, application: &'a ApplicationId) -> Result<Self, OffsetsError> {
        let admin = Admin::new(settings)?;
        let mut reader = Reader::open(settings, &admin, application)?;
        let end = reader.end()?;
        let World { assignment, .. } = reader.read_to(end)?;
        let owners = assignment.as_ref().map(|(_, owners)| owners.clone());
        Ok(Self {
            settings,
            application,
            owners: owners.unwrap_or_default(),
            admin,
            committed: Consumer::new(settings, &application.0, Isolation::ReadCommitted, 1024)?,
            all: Consumer::new(settings, &application.0, Isolation::ReadUncommitted, 64)?,
        })
    }

    /// Every input of every task that has ever committed. Positions are read before and after the group's offsets and the
    /// topics' ends: a position and its mirror change in one transaction, and a worker deletes what lies below a position, so
    /// a position that stayed had these in between.
    ///
    /// # Errors
    /// [`OffsetsError`]
    pub fn look(&self) -> Result<Vec<InputOffsets>, OffsetsError> {
        let before = self.positions()?;
        let inputs: Vec<_> = before
            .iter()
            .flat_map(|(task, positions)| positions.inputs.iter().map(move |input| (task, input)))
            .collect();
        let partitions: Vec<_> = inputs
            .iter()
            .map(|(_, input)| (input.topic.as_str(), input.partition))
            .collect();
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let mut ids = BTreeMap::new();
        for (topic, _) in &partitions {
            if !ids.contains_key(topic) {
                let found = self.admin.topic(topic, REQUEST_TIMEOUT)?;
                ids.insert(*topic, found.map_or_else(String::new, |found| found.id));
            }
        }
        let group = self.committed.committed(&partitions, REQUEST_TIMEOUT)?;
        let ends = partitions
            .iter()
            .map(|(topic, partition)| self.all.watermarks(topic, *partition, REQUEST_TIMEOUT))
            .collect::<Result<Vec<_>, _>>()?;
        let after = self.positions()?;
        let again = |task: &TaskId, input: &InputPosition| {
            let same =
                |other: &&InputPosition| (&other.topic, other.partition) == (&input.topic, input.partition);
            let inputs = after.get(task).map(|positions| &positions.inputs);
            inputs
                .and_then(|inputs| inputs.iter().find(same))
                .map(|input| input.offset)
        };
        let found = inputs.into_iter().zip(group).zip(ends);
        let found = found.map(|(((task, input), group), ends)| {
            let topic_id = &ids[input.topic.as_str()];
            InputOffsets::of(task, input, again(task, input), group, (topic_id, ends))
        });
        Ok(found.collect())
    }

    /// Sets the group's offsets to the positions where they differ; returns what differed.
    ///
    /// # Errors
    /// [`OffsetsError`]
    pub fn restore(&self) -> Result<Vec<InputOffsets>, OffsetsError> {
        let mut differing = self.look()?;
        differing.retain(|input| {
            matches!(
                input.state,
                OffsetsState::OffsetsLost | OffsetsState::OffsetsAltered
            )
        });
        self.commit(&differing, |input| input.position)?;
        Ok(differing)
    }

    /// Moves positions whose next record, or topic, is gone to where their topic goes on, and the group's offsets with them; returns
    /// what was moved. Their tasks stand still, so nobody else writes their positions.
    ///
    /// # Errors
    /// [`OffsetsError`]; what was done before is complete, and can be repeated.
    pub fn skip_lost(&self) -> Result<Vec<InputOffsets>, OffsetsError> {
        let mut lost = self.look()?;
        lost.retain(|input| {
            matches!(
                input.state,
                OffsetsState::InputLost | OffsetsState::TopicRecreated
            )
        });
        let mut positions = self.positions()?;
        let producer = PlainProducer::of_single_records(self.settings)?;
        let topic = producer.topic(&self.application.positions_topic())?;
        for input in &lost {
            let (Some(owner), Some(next)) = (self.owners.get(&input.task), positions.get_mut(&input.task))
            else {
                continue;
            };
            next.transaction += 1;
            for position in &mut next.inputs {
                if (&position.topic, position.partition) == (&input.topic, input.partition) {
                    position.offset = input.nearest();
                    position.topic_id.clone_from(&input.topic_id);
                }
            }
            let value = serde_json::to_vec(next).map_err(|error| PositionsError::Unreadable {
                partition: owner.positions_partition,
                reason: error.to_string(),
            })?;
            let key = input.task.to_string();
            let record = kafka::Record {
                partition: owner.positions_partition,
                key: Some(key.as_bytes()),
                value: Some(&value),
                headers: &[],
                timestamp: kafka::now_ms(),
            };
            producer.append(&topic, &record, REQUEST_TIMEOUT)?;
        }
        self.commit(&lost, InputOffsets::nearest)?;
        Ok(lost)
    }

    fn positions(&self) -> Result<BTreeMap<TaskId, Positions>, OffsetsError> {
        Ok(last_positions(
            self.application,
            &self.owners,
            &self.committed,
            &self.all,
        )?)
    }

    fn commit(
        &self,
        inputs: &[InputOffsets],
        offset: impl Fn(&InputOffsets) -> i64,
    ) -> Result<(), OffsetsError> {
        let offsets: Vec<_> = inputs
            .iter()
            .map(|input| (input.topic.as_str(), input.partition, offset(input)))
            .collect();
        if offsets.is_empty() {
            return Ok(());
        }
        Ok(self.committed.commit(&offsets)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_judged_only_when_it_stands_still() {
        let input = InputPosition {
            topic: "t".into(),
            topic_id: "id".into(),
            partition: 0,
            offset: 5,
        };
        let task = "a-0".parse().unwrap();
        let judge = |again, group, ends| InputOffsets::of(&task, &input, again, group, ("id", ends));
        let state = |again, group| judge(again, group, (0, 9)).state;
        assert_eq!(state(Some(5), Some(5)), OffsetsState::Good);
        assert_eq!(state(Some(5), Some(4)), OffsetsState::OffsetsLost);
        assert_eq!(state(Some(5), None), OffsetsState::OffsetsLost);
        assert_eq!(state(Some(5), Some(6)), OffsetsState::OffsetsAltered);
        assert_eq!(state(Some(6), Some(6)), OffsetsState::Moving);
        let deleted = judge(Some(5), Some(5), (7, 9));
        assert_eq!((deleted.state, deleted.nearest()), (OffsetsState::InputLost, 7));
        let truncated = judge(Some(5), Some(5), (0, 3));
        assert_eq!(
            (truncated.state, truncated.nearest()),
            (OffsetsState::InputLost, 3)
        );
        let another = InputOffsets::of(&task, &input, Some(5), None, ("other", (0, 9)));
        assert_eq!(
            (another.state, another.nearest()),
            (OffsetsState::TopicRecreated, 0)
        );
    }
}
