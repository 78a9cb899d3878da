//! Notices a reader whose records do not arrive although they are there, as its partition's leader says: whatever keeps a
//! client from fetching, it does not last.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A record that is there arrives within this time, or its reader is taken for one that does not fetch any more.
const PATIENCE: Duration = Duration::from_secs(30);

/// Records of a partition do not arrive.
#[derive(Debug, thiserror::Error)]
#[error(
    "{topic}/{partition} ends at {end}, but nothing arrived from {at} on for {stood:?}; beginning again with new clients"
)]
pub(crate) struct Stalled {
    topic: String,
    partition: i32,
    at: i64,
    end: i64,
    stood: Duration,
}

/// How long records that are there may take to arrive, by partition. New clients may be as slow as the old ones were: what they fetch
/// may be aborted, and of that nothing arrives. So it doubles as long as nothing has arrived since.
#[derive(Debug, Default)]
pub(crate) struct Patience(Mutex<BTreeMap<(String, i32), (i64, Duration)>>);

impl Patience {
    /// At this offset.
    fn at(&self, topic: &str, partition: i32, offset: i64) -> Option<Duration> {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = places.get(&(topic.to_owned(), partition));
        found
            .filter(|(at, _)| *at == offset)
            .map(|(_, patience)| *patience)
    }

    /// Its end.
    pub(crate) fn note(&self, stalled: &Stalled) {
        let Stalled {
            topic, partition, at, ..
        } = stalled;
        let next = self
            .at(topic, *partition, *at)
            .map_or(PATIENCE, |before| before.saturating_mul(2));
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.insert((topic.clone(), *partition), (*at, next));
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

    /// Takes down that a reader has nothing at this place although its partition goes on up to `end`.
    ///
    /// # Errors
    /// It has stood there for too long.
    pub(crate) fn observe(
        &mut self,
        now: Instant,
        (topic, partition, position): (&str, i32, i64),
        end: i64,
        patience: &Patience,
    ) -> Result<(), Stalled> {
        if position >= end {
            self.clear();
            return Ok(());
        }
        let (at, since) = *self.0.get_or_insert((position, now));
        if at != position {
            self.0 = Some((position, now));
            return Ok(());
        }
        let stood = now.duration_since(since);
        if stood < patience.at(topic, partition, at).unwrap_or(PATIENCE) {
            return Ok(());
        }
        Err(Stalled {
            topic: topic.to_owned(),
            partition,
            at,
            end,
            stood,
        })
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
            standstill
                .observe(now, ("t", 0, position), end, &patience)
                .is_err()
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
            stood: PATIENCE,
        };
        patience.note(&stalled(7));
        assert!(lasts(194, 7, 9));
        patience.note(&stalled(7));
        // Whatever happens to another partition.
        patience.note(&Stalled {
            partition: 1,
            ..stalled(7)
        });
        assert!(!lasts(222, 7, 9) && lasts(223, 7, 9));
        patience.note(&stalled(8));
        assert!(lasts(224, 7, 9));
        standstill.clear();
        let now = start + Duration::from_secs(225);
        assert!(standstill.observe(now, ("t", 0, 7), 9, &patience).is_ok());
    }
}
