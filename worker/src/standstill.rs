//! Notices a reader whose records do not arrive although they are there, as its partition's leader says: whatever keeps a
//! client from fetching, it does not last.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A record that is there arrives within this time, or its reader is taken for one that does not fetch any more.
const PATIENCE: Duration = Duration::from_secs(30);

/// Records of a partition do not arrive.
#[derive(Debug, thiserror::Error)]
#[error(
    "{topic}/{partition} ends at {end}, but nothing arrived from {at} on for {since:?}; beginning again with new clients"
)]
pub(crate) struct Stalled {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) at: i64,
    pub(crate) end: i64,
    pub(crate) since: Duration,
}

/// How long records that are there may take to arrive. New clients may be as slow as the old ones were: what they fetch may be aborted,
/// and of that nothing arrives. So it doubles as long as nothing has arrived since.
#[derive(Debug)]
pub(crate) struct Patience(Mutex<(Duration, Option<Place>)>);

/// Topic, partition and offset.
type Place = (String, i32, i64);

impl Patience {
    fn get(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Its end.
    pub(crate) fn note(&self, stalled: &Stalled) {
        let mut patience = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (stalled.topic.clone(), stalled.partition, stalled.at);
        let next = if patience.1.as_ref() == Some(&place) {
            patience.0.saturating_mul(2)
        } else {
            PATIENCE
        };
        *patience = (next, Some(place));
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self(Mutex::new((PATIENCE, None)))
    }
}

/// Where a reader stands although there is more, and since when.
#[derive(Debug, Default)]
pub(crate) struct Standstill(Option<(i64, Instant)>);

impl Standstill {
    /// The reader has something, or all.
    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }

    /// Takes down where a reader is that has nothing, although its partition goes on up to `end`; returns how long it has stood
    /// there, if that is too long.
    pub(crate) fn observe(
        &mut self,
        now: Instant,
        position: i64,
        end: i64,
        patience: &Patience,
    ) -> Option<Duration> {
        if position >= end {
            self.clear();
            return None;
        }
        let (at, since) = *self.0.get_or_insert((position, now));
        if at != position {
            self.0 = Some((position, now));
            return None;
        }
        let stood = now.duration_since(since);
        (stood >= patience.get()).then_some(stood)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reader_that_lacks_records_and_does_not_move_stands_still() {
        let (start, patience) = (Instant::now(), Patience::default());
        let mut standstill = Standstill::default();
        let mut lasts = |seconds, position, end| {
            let now = start + Duration::from_secs(seconds);
            standstill.observe(now, position, end, &patience).is_some()
        };
        // All is read, then more is there.
        assert!(!lasts(0, 5, 5) && !lasts(100, 5, 5) && !lasts(101, 5, 7));
        assert!(!lasts(130, 5, 9) && lasts(131, 5, 9));
        // One that moves, however slowly.
        assert!(!lasts(132, 6, 9) && !lasts(161, 6, 9) && !lasts(163, 7, 9) && !lasts(192, 7, 9));
        assert!(lasts(193, 7, 9));
        // Again at the same place: the next session takes longer.
        let stalled = |at| Stalled {
            topic: "t".to_owned(),
            partition: 0,
            at,
            end: 9,
            since: PATIENCE,
        };
        patience.note(&stalled(7));
        assert!(lasts(194, 7, 9));
        patience.note(&stalled(7));
        assert!(!lasts(222, 7, 9) && lasts(223, 7, 9));
        patience.note(&stalled(8));
        assert!(lasts(224, 7, 9));
        standstill.clear();
        let now = start + Duration::from_secs(225);
        assert!(standstill.observe(now, 7, 9, &patience).is_none());
    }
}
