//! Positions: how far a task has come. The same document is a record of every transaction, in the task's own
//! partition of the positions topic, and lies in the task's store beside the data it belongs to.

use std::collections::BTreeMap;

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
    /// Fingerprint of each store that the task has or had: how its changelog is to be read. Unknown of what was committed before
    /// there were any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stores: BTreeMap<String, String>,
}

impl Positions {
    /// Notes the stores that the task has now, by name and fingerprint.
    ///
    /// # Errors
    /// [`StoreChanged`] for the first one that is kept in another way than before. Nothing is noted then.
    pub fn note_stores<'s>(
        &mut self,
        stores: impl Iterator<Item = (&'s str, &'s str)> + Clone,
    ) -> Result<(), StoreChanged> {
        let is_changed = |(name, is): &(&str, &str)| self.stores.get(*name).is_some_and(|was| was != is);
        if let Some((name, _)) = stores.clone().find(is_changed) {
            let (task, store) = (self.task.clone(), name.to_owned());
            return Err(StoreChanged { task, store });
        }
        let owned = stores.map(|(name, fingerprint)| (name.to_owned(), fingerprint.to_owned()));
        self.stores.extend(owned);
        Ok(())
    }
}

/// A store has other keys, values or windows than those that are in its changelog.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "store `{store}` of task {task} was written by another version of the topology, which keeps it in another way (types of keys or values, windows). Go back to that version, or give the store another name, with which it begins empty; `streamapp plan FILE --offline OLD` tells what differs"
)]
pub struct StoreChanged {
    /// The task.
    pub task: TaskId,
    /// The store's declared name.
    pub store: String,
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
    fn a_store_stays_as_it_is_also_when_it_was_away() {
        let mut positions = Positions {
            task: "t-0".parse().unwrap(),
            transaction: 1,
            inputs: Vec::new(),
            start: Vec::new(),
            stream_time: 0,
            stores: BTreeMap::new(),
        };
        positions
            .note_stores([("a", "1"), ("b", "1")].into_iter())
            .unwrap();
        positions
            .note_stores([("b", "1"), ("c", "1")].into_iter())
            .unwrap();
        let changed = positions.note_stores([("d", "1"), ("a", "2")].into_iter());
        let (task, store) = (positions.task.clone(), "a".to_owned());
        assert_eq!(changed, Err(StoreChanged { task, store }));
        let names: Vec<_> = positions.stores.keys().map(String::as_str).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

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
