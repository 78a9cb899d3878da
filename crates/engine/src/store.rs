//! Committed state, as a task reads it.

use std::collections::BTreeMap;

/// A store of committed values. Writes go through the task's staging and are applied by the owner after the commit.
pub trait Store {
    /// Fills `into` with the value of `key`; `false` (and an empty `into`) if there is none.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, key: &[u8], into: &mut Vec<u8>) -> Result<bool, StoreError>;
}

/// A store that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(String);

impl StoreError {
    /// With a message for people.
    #[must_use]
    pub fn new(message: String) -> Self {
        Self(message)
    }
}

/// A store in memory, for tests and simulation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryStore {
    /// Values by key.
    pub values: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl MemoryStore {
    /// Puts or, with `None`, deletes.
    pub fn apply(&mut self, key: &[u8], value: Option<&[u8]>) {
        match value {
            Some(value) => {
                if let Some(slot) = self.values.get_mut(key) {
                    slot.clear();
                    slot.extend_from_slice(value);
                } else {
                    self.values.insert(key.to_vec(), value.to_vec());
                }
            }
            None => {
                self.values.remove(key);
            }
        }
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8], into: &mut Vec<u8>) -> Result<bool, StoreError> {
        into.clear();
        Ok(self.values.get(key).is_some_and(|value| {
            into.extend_from_slice(value);
            true
        }))
    }
}
