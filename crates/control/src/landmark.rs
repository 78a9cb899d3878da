//! A record by which a log is known again: offsets alone do not tell a log that lost its end and grew again from the one that was
//! read.

use protocol::Record;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// A record of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landmark {
    /// Its offset.
    pub offset: i64,
    /// Of its bytes; 16 hex digits.
    digest: String,
}

impl Landmark {
    pub(crate) fn new(offset: i64, bytes: &[u8]) -> Self {
        let digest = format!("{:016x}", xxh3_64(bytes));
        Self { offset, digest }
    }

    /// Whether it has the same content.
    pub(crate) fn is_of(&self, bytes: &[u8]) -> bool {
        *self == Self::new(self.offset, bytes)
    }

    /// Why a log in which this is the next record is not the one that this landmark was seen in, if it is not.
    fn contradicts(&self, next: &Self) -> Option<String> {
        if next.offset < self.offset || next == self {
            return None;
        }
        let was = self.offset;
        Some(if next.offset == was {
            format!(
                "at offset {was} is another record than this reader has applied: it lost its end, and others were written"
            )
        } else {
            format!("the record at offset {was}, which this reader has applied, is gone")
        })
    }
}

/// What the records of a log must be for it to be the one that was read before, and a whole one.
#[derive(Debug, Default)]
pub(crate) struct Recognition {
    /// Last seen by an earlier reader.
    expected: Option<Landmark>,
    /// Last seen by this one.
    pub(crate) last: Option<Landmark>,
}

impl Recognition {
    /// The log begins at `low` and is read from there: what lies before it cannot be compared any more.
    pub(crate) fn expect(&mut self, landmark: Landmark, low: i64) {
        if landmark.offset >= low {
            self.expected = Some(landmark);
        }
    }

    /// Takes the next record of a log that begins at `low`.
    ///
    /// # Errors
    /// What is wrong with the log.
    pub(crate) fn meet(&mut self, low: i64, seen: Landmark, record: &Record) -> Result<(), String> {
        if self.last.is_none() && low > 0 && !matches!(record, Record::Snapshot { .. }) {
            let offset = seen.offset;
            return Err(format!(
                "it begins at offset {offset} with a record that is no snapshot"
            ));
        }
        if let Some(expected) = &self.expected {
            if let Some(why) = expected.contradicts(&seen) {
                return Err(why);
            }
            if expected.offset == seen.offset {
                self.expected = None;
            }
        }
        self.last = Some(seen);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: Record = Record::Released { prev: None };

    fn snapshot() -> Record {
        let world = Box::default();
        Record::Snapshot { prev: None, world }
    }

    /// Reads records, of which each is its text, from the first offset on; `known` was read before.
    fn read(known: Option<Landmark>, low: i64, records: &[(i64, &str)]) -> Result<(), String> {
        let mut recognition = Recognition::default();
        if let Some(known) = known {
            recognition.expect(known, low);
        }
        for (offset, text) in records {
            let record = if *text == "snapshot" { snapshot() } else { RECORD };
            recognition.meet(low, Landmark::new(*offset, text.as_bytes()), &record)?;
        }
        Ok(())
    }

    /// ⚑ A log that lost its end does not become the same one by growing again.
    #[test]
    fn a_log_whose_last_known_record_is_another_one_is_not_the_same() {
        let known = || Some(Landmark::new(4, b"d"));
        assert_eq!(
            read(known(), 0, &[(0, "a"), (2, "b"), (4, "d"), (6, "e")]),
            Ok(())
        );
        let other = read(known(), 0, &[(0, "a"), (2, "b"), (4, "x")]).unwrap_err();
        assert!(other.contains("at offset 4 is another record"), "{other}");
        let gone = read(known(), 0, &[(0, "a"), (2, "b"), (5, "x")]).unwrap_err();
        assert!(
            gone.contains("at offset 4, which this reader has applied, is gone"),
            "{gone}"
        );
        // What a snapshot has replaced is not there to be compared.
        assert_eq!(read(known(), 5, &[(5, "snapshot"), (7, "x")]), Ok(()));
    }

    #[test]
    fn a_log_that_begins_late_begins_with_a_snapshot() {
        let lost = read(None, 3, &[(3, "a")]).unwrap_err();
        assert!(
            lost.contains("begins at offset 3 with a record that is no snapshot"),
            "{lost}"
        );
        assert_eq!(read(None, 3, &[(3, "snapshot"), (4, "a")]), Ok(()));
    }
}
