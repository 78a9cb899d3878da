//! Positions: how far a task has come. The same document is a record of every transaction, in the task's own
//! partition of the positions topic, and lies in the task's store beside the data it belongs to.

use serde::{Deserialize, Serialize};

use crate::TaskId;

/// Progress of one task as of a committed transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Positions {
    /// The task.
    pub task: TaskId,
    /// Counts the task's committed transactions, from 1 (which commits the start vector alone).
    pub transaction: u64,
    /// Next offset to read, per input partition.
    pub inputs: Vec<InputPosition>,
    /// Where the task began, per input partition.
    pub start: Vec<InputPosition>,
    /// Stream time, in milliseconds since the Unix epoch.
    pub stream_time: i64,
}

/// An offset of an input partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InputPosition {
    /// The topic's name in Kafka.
    pub topic: String,
    /// The topic's id: another one under the same name is another topic (KIP-516).
    pub topic_id: String,
    /// The partition.
    pub partition: i32,
    /// The next offset to read.
    pub offset: i64,
}

/// How the positions of a task compare with the group's committed offsets, their mirror.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MirrorMismatch {
    /// The group has no offset, or a lower one: it expired or was reset.
    #[error("{topic}/{partition}: the group's offset is {}, the task's position is {position}: the group's offsets were lost or reset", show(*.mirror))]
    OffsetsLost {
        /// Topic of the input.
        topic: String,
        /// Partition of the input.
        partition: i32,
        /// The group's committed offset.
        mirror: Option<i64>,
        /// The task's position.
        position: i64,
    },
    /// The group has a higher offset: somebody moved it.
    #[error(
        "{topic}/{partition}: the group's offset is {mirror}, the task's position is {position}: the group's offsets were altered"
    )]
    OffsetsAltered {
        /// Topic of the input.
        topic: String,
        /// Partition of the input.
        partition: i32,
        /// The group's committed offset.
        mirror: i64,
        /// The task's position.
        position: i64,
    },
}

fn show(offset: Option<i64>) -> String {
    offset.map_or_else(|| "missing".to_owned(), |offset| offset.to_string())
}

/// Compares one input's position with its mirror.
///
/// # Errors
/// [`MirrorMismatch`] when they differ; a person decides.
pub fn check_mirror(position: &InputPosition, mirror: Option<i64>) -> Result<(), MirrorMismatch> {
    let InputPosition {
        topic,
        partition,
        offset,
        ..
    } = position.clone();
    match mirror {
        Some(mirror) if mirror == offset => Ok(()),
        Some(mirror) if mirror > offset => Err(MirrorMismatch::OffsetsAltered {
            topic,
            partition,
            mirror,
            position: offset,
        }),
        _ => Err(MirrorMismatch::OffsetsLost {
            topic,
            partition,
            mirror,
            position: offset,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_equal_mirror_passes() {
        let position = InputPosition {
            topic: "t".into(),
            topic_id: "id".into(),
            partition: 1,
            offset: 5,
        };
        assert!(check_mirror(&position, Some(5)).is_ok());
        assert!(matches!(
            check_mirror(&position, Some(6)),
            Err(MirrorMismatch::OffsetsAltered { .. })
        ));
        assert!(matches!(
            check_mirror(&position, Some(4)),
            Err(MirrorMismatch::OffsetsLost { .. })
        ));
        assert!(matches!(
            check_mirror(&position, None),
            Err(MirrorMismatch::OffsetsLost { .. })
        ));
    }
}
