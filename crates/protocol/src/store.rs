//! What a store keeps beside its data: how far it has come, and whether it can go on from there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Positions;

/// `delete.retention.ms` of changelogs, in milliseconds: tombstones live at least this long.
pub const TOMBSTONE_RETENTION_MS: i64 = 7 * 24 * 3_600_000;
/// How far clocks may be apart, in milliseconds: a date that is later than this was written by a clock that was wrong.
const CLOCK_SKEW_MS: i64 = 3_600_000;

/// Positions as a store keeps them: the task's, and where its changelogs are known to be contained.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StorePositions {
    /// The task's positions as of the last applied transaction; absent while a first restore runs.
    pub task: Option<Positions>,
    /// Per store: everything below this offset of its changelog is in the store.
    pub changelogs: BTreeMap<String, ChangelogPosition>,
    /// When the store was last known to be caught up, or was begun empty, in milliseconds since the Unix epoch: tombstones
    /// written since then are still there to be read (a tombstone lives on for its retention after it was first compacted,
    /// KIP-534).
    pub as_of_ms: i64,
}

/// A lower bound of what a store contains of its changelog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangelogPosition {
    /// The topic's id (KIP-516).
    pub topic_id: String,
    /// Everything below this offset is contained.
    pub offset: i64,
}

/// Why a store cannot be brought up to date by reading on: it must be rebuilt from the start of its changelog.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotContinue {
    /// Offsets of another topic mean nothing.
    #[error("the changelog topic was re-created")]
    Recreated,
    /// The changelog lost its end.
    #[error("the store stands at changelog offset {offset}, the topic ends at {high}")]
    BeyondEnd {
        /// Where the store stands.
        offset: i64,
        /// The topic's high watermark.
        high: i64,
    },
    /// Tombstones that it has not read may be gone, so what they deleted would stay in it for ever.
    #[error("the store was last caught up {hours} hours ago; tombstones may be gone")]
    TooOld {
        /// Hours since it was caught up.
        hours: i64,
    },
    /// A clock was wrong when the store was dated, so nobody knows how old it is.
    #[error("the store was last caught up {hours} hours from now: a clock was wrong, tombstones may be gone")]
    FromTheFuture {
        /// Hours until then.
        hours: i64,
    },
}

impl StorePositions {
    /// Where reading a store's changelog goes on: behind what is contained, or, for a store that contains nothing, at the
    /// topic's first offset `low`; its `as_of_ms` is then the time of this call.
    ///
    /// # Errors
    /// [`CannotContinue`] when the store must be rebuilt.
    pub fn resume(
        &mut self,
        store: &str,
        topic_id: &str,
        (low, high): (i64, i64),
        now_ms: i64,
    ) -> Result<i64, CannotContinue> {
        if self.changelogs.is_empty() {
            self.as_of_ms = now_ms;
        }
        let Some(known) = self.changelogs.get(store) else {
            return Ok(low);
        };
        if known.topic_id != topic_id {
            Err(CannotContinue::Recreated)
        } else if known.offset > high {
            let offset = known.offset;
            Err(CannotContinue::BeyondEnd { offset, high })
        } else {
            self.check_age(now_ms).map(|()| known.offset.max(low))
        }
    }

    /// Whether tombstones that the store has not read may be gone. Whoever reads a changelog asks this after each read, before it takes
    /// over what it has read: it may have stood still before it asked the broker. The other half of the retention is for what it
    /// believed to know when the store was dated and was as old.
    ///
    /// # Errors
    /// [`CannotContinue::TooOld`]
    pub fn check_age(&self, now_ms: i64) -> Result<(), CannotContinue> {
        let age = now_ms - self.as_of_ms;
        if age > TOMBSTONE_RETENTION_MS / 2 {
            let hours = age / 3_600_000;
            Err(CannotContinue::TooOld { hours })
        } else if age < -CLOCK_SKEW_MS {
            let hours = -age / 3_600_000;
            Err(CannotContinue::FromTheFuture { hours })
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_goes_on_only_from_a_place_its_changelog_still_vouches_for() {
        let now = 2 * TOMBSTONE_RETENTION_MS;
        let position = ChangelogPosition {
            topic_id: "a".into(),
            offset: 5,
        };
        let mut positions = StorePositions {
            changelogs: BTreeMap::from([("s".into(), position)]),
            as_of_ms: now - TOMBSTONE_RETENTION_MS / 2,
            ..StorePositions::default()
        };
        assert_eq!(positions.resume("s", "a", (0, 5), now), Ok(5));
        assert_eq!(positions.resume("s", "a", (7, 9), now), Ok(7), "compacted");
        assert_eq!(positions.resume("other", "a", (2, 5), now), Ok(2));
        let mut empty = StorePositions::default();
        assert_eq!(
            (empty.resume("s", "a", (2, 5), now), empty.as_of_ms),
            (Ok(2), now)
        );
        assert_eq!(
            positions.resume("s", "b", (0, 5), now),
            Err(CannotContinue::Recreated)
        );
        let beyond = CannotContinue::BeyondEnd { offset: 5, high: 4 };
        assert_eq!(positions.resume("s", "a", (0, 4), now), Err(beyond));
        positions.as_of_ms -= 1;
        assert_eq!(
            positions.resume("s", "a", (0, 5), now),
            Err(CannotContinue::TooOld { hours: 84 })
        );
        positions.as_of_ms = now + CLOCK_SKEW_MS;
        assert_eq!(positions.check_age(now), Ok(()));
        positions.as_of_ms += 1;
        assert_eq!(
            positions.check_age(now),
            Err(CannotContinue::FromTheFuture { hours: 1 })
        );
    }
}
