//! Committed state, as a task reads it.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

/// Takes key and value of a row, and says whether it wants the next one.
pub type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'v;

/// Keys in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRange<'k> {
    /// The first one that may be in it.
    pub from: &'k [u8],
    /// The first one behind it; none where it has no end. Known beforehand, it spares a look at what was deleted behind it.
    pub until: Option<&'k [u8]>,
}

impl KeyRange<'_> {
    /// As bounds of a map.
    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let until = match self.until {
            // A range that ends before it begins holds nothing.
            Some(until) => Bound::Excluded(until.max(self.from)),
            None => Bound::Unbounded,
        };
        (Bound::Included(self.from), until)
    }
}

/// A store of committed values. Writes go through the task's staging; the owner applies them after the
/// commit.
pub trait Store {
    /// Fills `into` with the value of `key`; `false` and an empty `into` when there is none. `into` is
    /// cleared first.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, key: &[u8], into: &mut Vec<u8>) -> Result<bool, StoreError>;

    /// Visits the rows of a range in the order of keys, until `visit` says that it is enough.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn scan(&self, range: KeyRange<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// Most bytes that a key and its value may have together: what the changelog takes as one record.
    fn max_record_bytes(&self) -> usize {
        usize::MAX
    }
}

/// A store that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(String);

impl StoreError {
    /// With a message for people: which store, and why.
    #[must_use]
    pub fn new(message: String) -> Self {
        Self(message)
    }
}

/// A store in memory, for tests, simulation and the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryStore {
    /// Values by key, as RocksDB and the changelog hold them.
    pub values: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl MemoryStore {
    /// Applies a change: puts or, without a value, deletes.
    pub fn apply(&mut self, key: &[u8], value: Option<&[u8]>) {
        match (value, self.values.get_mut(key)) {
            (Some(value), Some(slot)) => {
                slot.clear();
                slot.extend_from_slice(value);
            }
            (Some(value), None) => {
                self.values.insert(key.to_vec(), value.to_vec());
            }
            (None, _) => {
                self.values.remove(key);
            }
        }
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8], into: &mut Vec<u8>) -> Result<bool, StoreError> {
        into.clear();
        let value = self.values.get(key);
        if let Some(value) = value {
            into.extend_from_slice(value);
        }
        Ok(value.is_some())
    }

    fn scan(&self, range: KeyRange<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let mut rows = self.values.range::<[u8], _>(range.bounds());
        let _ = rows.try_for_each(|(key, value)| visit(key, value));
        Ok(())
    }
}
