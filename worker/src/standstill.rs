//! Notices a reader whose records do not arrive although they are there, as its partition's leader says: whatever keeps a
//! client from fetching, it does not last.

use std::time::{Duration, Instant};

/// A record that is there arrives within this time, or the client is taken for one that does not fetch any more.
const STANDSTILL: Duration = Duration::from_secs(30);

/// Records of a partition do not arrive.
#[derive(Debug, thiserror::Error)]
#[error(
    "{topic}/{partition} ends at {end}, but nothing arrived from {at} on for {STANDSTILL:?}; beginning again with new clients"
)]
pub(crate) struct Stalled {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) at: i64,
    pub(crate) end: i64,
}

/// Where a reader stands although there is more, and since when.
#[derive(Debug, Default)]
pub(crate) struct Standstill(Option<(i64, Instant)>);

impl Standstill {
    /// The reader has something, or all.
    pub(crate) fn ends(&mut self) {
        self.0 = None;
    }

    /// Whether a reader that has nothing has stood here too long, although its partition goes on up to `end`.
    pub(crate) fn lasts(&mut self, now: Instant, position: i64, end: i64) -> bool {
        if position >= end {
            self.ends();
            return false;
        }
        let (at, since) = *self.0.get_or_insert((position, now));
        if at != position {
            self.0 = Some((position, now));
        }
        at == position && now.duration_since(since) >= STANDSTILL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reader_that_lacks_records_and_does_not_move_stands_still() {
        let start = Instant::now();
        let mut standstill = Standstill::default();
        let mut lasts =
            |seconds, position, end| standstill.lasts(start + Duration::from_secs(seconds), position, end);
        // All is read, then more is there.
        assert!(!lasts(0, 5, 5) && !lasts(100, 5, 5) && !lasts(101, 5, 7));
        assert!(!lasts(130, 5, 9) && lasts(131, 5, 9));
        // One that moves, however slowly.
        assert!(!lasts(132, 6, 9) && !lasts(161, 6, 9) && !lasts(163, 7, 9) && !lasts(192, 7, 9));
        assert!(lasts(193, 7, 9));
        standstill.ends();
        assert!(!standstill.lasts(start + Duration::from_secs(194), 7, 9));
    }
}
