//! Writes of the transaction under way: the last value per key, in memory, in the order of first writes.
//!
//! All bytes lie in one buffer that is kept from transaction to transaction. A record that fails is undone to where it
//! began.

use std::ops::Range;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

/// A key that the transaction has written, with its last value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value as store and changelog hold it; `None` deletes.
    pub value: Option<&'a [u8]>,
    /// Timestamp of the last update, milliseconds since the Unix epoch.
    pub timestamp: i64,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    key: Range<usize>,
    value: Option<Range<usize>>,
    timestamp: i64,
}

#[derive(Debug)]
struct Undo {
    entry: usize,
    /// `None`: the entry is new.
    before: Option<(Option<Range<usize>>, i64)>,
}

/// The overlay of one store.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    index: HashTable<usize>,
    entries: Vec<Entry>,
    bytes: Vec<u8>,
    undo: Vec<Undo>,
    /// Length of `bytes` where the record under way began.
    mark: usize,
}

/// What staging knows of a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Staged<'a> {
    /// Nothing: ask the store.
    Unknown,
    /// It was deleted.
    Deleted,
    /// It was written.
    Value(&'a [u8]),
}

impl Staging {
    fn find(&self, hash: u64, key: &[u8]) -> Option<usize> {
        self.index
            .find(hash, |&at| {
                self.entries[at].hash == hash && self.bytes[self.entries[at].key.clone()] == *key
            })
            .copied()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Staged<'_> {
        match self.find(xxh3_64(key), key).map(|at| &self.entries[at].value) {
            None => Staged::Unknown,
            Some(None) => Staged::Deleted,
            Some(Some(value)) => Staged::Value(&self.bytes[value.clone()]),
        }
    }

    /// Begins a record: [`Self::rollback`] comes back to here.
    pub(crate) fn begin_record(&mut self) {
        self.undo.clear();
        self.mark = self.bytes.len();
    }

    pub(crate) fn put(&mut self, key: &[u8], value: Option<&[u8]>, timestamp: i64) {
        let hash = xxh3_64(key);
        if let Some(at) = self.find(hash, key) {
            let entry = &self.entries[at];
            self.undo.push(Undo {
                entry: at,
                before: Some((entry.value.clone(), entry.timestamp)),
            });
            let stored = value.map(|value| self.store_over(at, value));
            let entry = &mut self.entries[at];
            (entry.value, entry.timestamp) = (stored, timestamp);
        } else {
            let at = self.entries.len();
            let key = append(&mut self.bytes, key);
            let value = value.map(|value| append(&mut self.bytes, value));
            self.entries.push(Entry {
                hash,
                key,
                value,
                timestamp,
            });
            self.undo.push(Undo {
                entry: at,
                before: None,
            });
            let entries = &self.entries;
            self.index.insert_unique(hash, at, |&other| entries[other].hash);
        }
    }

    /// A value written by this same record may be overwritten in place; an older one is kept for a rollback, so the new
    /// one is appended.
    fn store_over(&mut self, at: usize, value: &[u8]) -> Range<usize> {
        match &self.entries[at].value {
            Some(old) if old.start >= self.mark && old.len() == value.len() => {
                let range = old.clone();
                self.bytes[range.clone()].copy_from_slice(value);
                range
            }
            _ => append(&mut self.bytes, value),
        }
    }

    /// Undoes the record under way.
    pub(crate) fn rollback(&mut self) {
        while let Some(Undo { entry, before }) = self.undo.pop() {
            if let Some((value, timestamp)) = before {
                let entry = &mut self.entries[entry];
                (entry.value, entry.timestamp) = (value, timestamp);
            } else {
                let hash = self.entries[entry].hash;
                if let Ok(found) = self.index.find_entry(hash, |&at| at == entry) {
                    found.remove();
                }
                self.entries.truncate(entry);
            }
        }
        self.bytes.truncate(self.mark);
    }

    /// Ends the record under way: its writes stay, and space that only a rollback needed is reused when it can be.
    pub(crate) fn end_record(&mut self) {
        // The common case: one key, whose old value had the same length. The new value moves into the old place.
        if let [
            Undo {
                entry,
                before: Some((Some(old), _)),
            },
        ] = self.undo.as_slice()
            && let Some(new) = self.entries[*entry].value.clone()
            && new.start == self.mark
            && new.end == self.bytes.len()
            && old.len() == new.len()
        {
            self.bytes.copy_within(new, old.start);
            self.entries[*entry].value = Some(old.clone());
            self.bytes.truncate(self.mark);
        }
        self.undo.clear();
    }

    pub(crate) fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        self.entries.iter().map(|entry| Change {
            key: &self.bytes[entry.key.clone()],
            value: entry.value.clone().map(|value| &self.bytes[value]),
            timestamp: entry.timestamp,
        })
    }

    pub(crate) fn staged_bytes(&self) -> usize {
        self.bytes.len() + self.entries.len() * size_of::<Entry>()
    }

    /// Forgets everything; keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.index.clear();
        self.entries.clear();
        self.bytes.clear();
        self.undo.clear();
        self.mark = 0;
    }
}

fn append(bytes: &mut Vec<u8>, more: &[u8]) -> Range<usize> {
    let start = bytes.len();
    bytes.extend_from_slice(more);
    start..bytes.len()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Put = (u8, Option<Vec<u8>>, i64);

    proptest! {
        #[test]
        fn staging_with_rollbacks_equals_a_map(
            records in proptest::collection::vec(
                (proptest::collection::vec((0u8..6, proptest::option::of(proptest::collection::vec(any::<u8>(), 0..5)), any::<i64>()), 0..4), any::<bool>()),
                0..40,
            )
        ) {
            let mut staging = Staging::default();
            let mut model: BTreeMap<u8, (Option<Vec<u8>>, i64)> = BTreeMap::new();
            for (puts, fails) in records {
                let puts: Vec<Put> = puts;
                staging.begin_record();
                let before = model.clone();
                for (key, value, timestamp) in puts {
                    staging.put(&[key], value.as_deref(), timestamp);
                    model.insert(key, (value, timestamp));
                }
                if fails {
                    staging.rollback();
                    model = before;
                } else {
                    staging.end_record();
                }
                let found: BTreeMap<u8, (Option<Vec<u8>>, i64)> = staging
                    .changes()
                    .map(|change| (change.key[0], (change.value.map(<[u8]>::to_vec), change.timestamp)))
                    .collect();
                prop_assert_eq!(&found, &model);
                for key in 0u8..6 {
                    let expected = match model.get(&key) {
                        None => Staged::Unknown,
                        Some((None, _)) => Staged::Deleted,
                        Some((Some(value), _)) => Staged::Value(value),
                    };
                    prop_assert_eq!(staging.get(&[key]), expected);
                }
            }
        }
    }

    #[test]
    fn changes_come_in_the_order_of_first_writes() {
        let mut staging = Staging::default();
        for key in [b"b", b"a", b"b", b"c"] {
            staging.begin_record();
            staging.put(key, Some(b"12345678"), 1);
            staging.end_record();
        }
        let keys: Vec<_> = staging.changes().map(|change| change.key.to_vec()).collect();
        assert_eq!(keys, [b"b", b"a", b"c"]);
        assert_eq!(
            staging.bytes.len(),
            3 * 9,
            "an update of the same length takes no space"
        );
    }
}
