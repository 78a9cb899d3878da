//! Writes of the transaction under way: the last value per key, in memory, in the order of first writes.
//!
//! All bytes lie in one buffer that is kept from transaction to transaction. A value that fits the place of
//! the key's earlier one overwrites it; each record keeps what it overwrote, so that a record that fails is
//! undone to where it began. What reads and applies the changes, and when, is the owner's matter.

use std::collections::BTreeMap;
use std::ops::Range;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use crate::KeyRange;

/// A key that the transaction has written, with its last value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// The key, in the store's key format.
    pub key: &'a [u8],
    /// The value as store and changelog hold it; `None` deletes.
    pub value: Option<&'a [u8]>,
    /// Timestamp of the last update, milliseconds since the Unix epoch.
    pub timestamp: i64,
}

/// The overlay of one store.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    /// Positions in `entries`, by hash of the key. Its order is never observed.
    index: HashTable<usize>,
    /// The same by key, of a store whose rows are scanned.
    ordered: Option<BTreeMap<Box<[u8]>, usize>>,
    /// In the order of first writes.
    entries: Vec<Entry>,
    /// Keys and values of the entries, and places that were outgrown.
    bytes: Vec<u8>,
    /// What the record under way has changed, in order.
    undo: Vec<Undo>,
    /// Bytes that the record under way has overwritten.
    overwritten: Vec<u8>,
    /// Length of `bytes` where the record under way began.
    mark: usize,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    key_start: usize,
    key_length: usize,
    value: Place,
    timestamp: i64,
}

/// Where a value lies in `bytes`.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: usize,
    capacity: usize,
    /// `None`: deleted.
    length: Option<usize>,
}

#[derive(Debug)]
enum Undo {
    /// The last entry is new.
    Insert,
    /// The entry had this value; bytes that were overwritten in its place lie in `overwritten`.
    Update {
        entry: usize,
        value: Place,
        timestamp: i64,
        overwritten: Range<usize>,
    },
}

/// Where a key is, or would be. Good until the next put of any key, or the end of the record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Location {
    hash: u64,
    entry: Option<usize>,
}

impl Location {
    /// Of the key.
    pub(crate) fn hash(self) -> u64 {
        self.hash
    }
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
    /// Of a store whose rows are scanned.
    pub(crate) fn ordered() -> Self {
        Self {
            ordered: Some(BTreeMap::new()),
            ..Self::default()
        }
    }

    /// Whether it was made so.
    pub(crate) fn is_ordered(&self) -> bool {
        self.ordered.is_some()
    }

    /// Looks the key up.
    #[inline]
    pub(crate) fn locate(&self, key: &[u8]) -> Location {
        let hash = xxh3_64(key);
        let is_key = |at: &usize| {
            let entry = &self.entries[*at];
            entry.hash == hash && self.bytes[entry.key()] == *key
        };
        Location {
            hash,
            entry: self.index.find(hash, is_key).copied(),
        }
    }

    pub(crate) fn get(&self, location: Location) -> Staged<'_> {
        match location.entry.map(|at| self.entries[at].value) {
            None => Staged::Unknown,
            Some(place) => match place.bytes() {
                None => Staged::Deleted,
                Some(range) => Staged::Value(&self.bytes[range]),
            },
        }
    }

    /// Begins a record: [`Self::rollback`] comes back to here.
    pub(crate) fn begin_record(&mut self) {
        self.undo.clear();
        self.overwritten.clear();
        self.mark = self.bytes.len();
    }

    /// Writes or, with `None`, deletes. `location` is that of `key`.
    pub(crate) fn put(&mut self, location: Location, key: &[u8], value: Option<&[u8]>, timestamp: i64) {
        match location.entry {
            Some(at) => self.update(at, value, timestamp),
            None => self.insert(location.hash, key, value, timestamp),
        }
    }

    fn insert(&mut self, hash: u64, key: &[u8], value: Option<&[u8]>, timestamp: i64) {
        let key_start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let value = self.append(value);
        let at = self.entries.len();
        if let Some(ordered) = &mut self.ordered {
            ordered.insert(key.into(), at);
        }
        self.entries.push(Entry {
            hash,
            key_start,
            key_length: key.len(),
            value,
            timestamp,
        });
        self.undo.push(Undo::Insert);
        let entries = &self.entries;
        self.index.insert_unique(hash, at, |other| entries[*other].hash);
    }

    fn update(&mut self, at: usize, value: Option<&[u8]>, timestamp: i64) {
        let before = &self.entries[at];
        let (old, old_timestamp) = (before.value, before.timestamp);
        let start = self.overwritten.len();
        let place = match value {
            None => Place { length: None, ..old },
            Some(value) if value.len() <= old.capacity => {
                // Saved even when the key is deleted by now: this record may be who deleted it.
                let range = old.start..old.start + value.len();
                self.overwritten.extend_from_slice(&self.bytes[range.clone()]);
                self.bytes[range].copy_from_slice(value);
                Place {
                    length: Some(value.len()),
                    ..old
                }
            }
            Some(_) => self.append(value),
        };
        let overwritten = start..self.overwritten.len();
        self.undo.push(Undo::Update {
            entry: at,
            value: old,
            timestamp: old_timestamp,
            overwritten,
        });
        let entry = &mut self.entries[at];
        (entry.value, entry.timestamp) = (place, timestamp);
    }

    /// A new place, with some room: numbers grow by single bytes.
    fn append(&mut self, value: Option<&[u8]>) -> Place {
        let value_bytes = value.unwrap_or_default();
        let start = self.bytes.len();
        let capacity = value_bytes.len().next_multiple_of(8);
        self.bytes.extend_from_slice(value_bytes);
        self.bytes.resize(start + capacity, 0);
        Place {
            start,
            capacity,
            length: value.map(<[u8]>::len),
        }
    }

    /// Undoes the record under way.
    pub(crate) fn rollback(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Insert => self.remove_last(),
                Undo::Update {
                    entry,
                    value,
                    timestamp,
                    overwritten,
                } => {
                    let saved = &self.overwritten[overwritten];
                    self.bytes[value.start..value.start + saved.len()].copy_from_slice(saved);
                    let entry = &mut self.entries[entry];
                    (entry.value, entry.timestamp) = (value, timestamp);
                }
            }
        }
        self.bytes.truncate(self.mark);
        self.overwritten.clear();
    }

    fn remove_last(&mut self) {
        let Some(entry) = self.entries.pop() else { return };
        let at = self.entries.len();
        if let Some(ordered) = &mut self.ordered {
            ordered.remove(&self.bytes[entry.key()]);
        }
        if let Ok(found) = self.index.find_entry(entry.hash, |other| *other == at) {
            found.remove();
        }
    }

    pub(crate) fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        self.entries.iter().map(|entry| Change {
            key: &self.bytes[entry.key()],
            value: entry.value.bytes().map(|range| &self.bytes[range]),
            timestamp: entry.timestamp,
        })
    }

    /// Keys of a range in their order, with their last values. Nothing unless made with [`Self::ordered`].
    pub(crate) fn scan<'s>(
        &'s self,
        range: KeyRange<'s>,
    ) -> impl Iterator<Item = (&'s [u8], Option<&'s [u8]>)> + use<'s> {
        let rows = self
            .ordered
            .iter()
            .flat_map(move |ordered| ordered.range::<[u8], _>(range.bounds()));
        rows.map(|(key, at)| {
            let value = self.entries[*at].value.bytes();
            (&**key, value.map(|range| &self.bytes[range]))
        })
    }

    /// Hash, key and last value of each key.
    pub(crate) fn hashed(&self) -> impl Iterator<Item = (u64, &[u8], Option<&[u8]>)> {
        self.entries.iter().map(|entry| {
            let value = entry.value.bytes().map(|range| &self.bytes[range]);
            (entry.hash, &self.bytes[entry.key()], value)
        })
    }

    /// Number of keys.
    pub(crate) fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Memory in use, in bytes; what is allocated beyond is at most twice that of the largest transaction.
    pub(crate) fn staged_bytes(&self) -> usize {
        // The keys once more, and what a tree has around them.
        let ordered = if self.ordered.is_some() {
            self.bytes.len() + self.entries.len() * 2 * size_of::<(Box<[u8]>, usize)>()
        } else {
            0
        };
        self.bytes.len() + self.entries.len() * (size_of::<Entry>() + 2 * size_of::<usize>()) + ordered
    }

    /// Forgets everything; keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.index.clear();
        self.ordered.iter_mut().for_each(BTreeMap::clear);
        self.entries.clear();
        self.bytes.clear();
        self.undo.clear();
        self.overwritten.clear();
        self.mark = 0;
    }
}

impl Entry {
    #[inline]
    fn key(&self) -> Range<usize> {
        self.key_start..self.key_start + self.key_length
    }
}

impl Place {
    #[inline]
    fn bytes(self) -> Option<Range<usize>> {
        self.length.map(|length| self.start..self.start + length)
    }
}

#[cfg(test)]
mod tests;
