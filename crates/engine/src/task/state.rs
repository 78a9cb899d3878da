//! Stores and time of a task, committed and staged.

use topology::plan::{StoreIndex, SubTopology};

use super::windows::{Clock, scan};
use crate::cache::Cache;
use crate::staging::{Location, Staged, Staging};
use crate::{KeyRange, Store, StoreError, Visit};

/// What is said of a store that the task was not given.
const NOT_OPEN: &str = "not open";

pub(super) struct State<S> {
    /// Of the task.
    pub(super) partition: i32,
    pub(super) stores: Vec<S>,
    /// Of what the stores hold.
    cached: Vec<Cache>,
    pub(super) staging: Vec<Staging>,
    /// Of the stores that have windows.
    pub(super) clocks: Vec<Option<Clock>>,
    /// Scratch: a store's key, the value found there, the value to be staged.
    pub(super) key: Vec<u8>,
    found: Vec<u8>,
    pub(super) next: Vec<u8>,
    pub(super) stream_time: i64,
    pub(super) committed_stream_time: i64,
}

impl<S> State<S> {
    pub(super) fn new(sub: &SubTopology, partition: i32, stores: Vec<S>) -> Self {
        let clocks: Vec<_> = (0..stores.len()).map(|store| Clock::of(sub, store)).collect();
        let staging = (0..stores.len()).map(|store| match sub.is_ordered(store) {
            true => Staging::ordered(),
            false => Staging::default(),
        });
        Self {
            partition,
            staging: staging.collect(),
            cached: stores.iter().map(|_| Cache::default()).collect(),
            clocks,
            stores,
            key: Vec::new(),
            found: Vec::new(),
            next: Vec::new(),
            stream_time: i64::MIN,
            committed_stream_time: i64::MIN,
        }
    }

    pub(super) fn set_cache_bytes(&mut self, bytes: usize) {
        let share = bytes / self.cached.len().max(1);
        self.cached.iter_mut().for_each(|cache| cache.set_limit(share));
    }

    pub(super) fn begin_record(&mut self) {
        self.staging.iter_mut().for_each(Staging::begin_record);
        self.clocks.iter_mut().flatten().for_each(Clock::begin_record);
    }

    pub(super) fn rollback(&mut self) {
        self.staging.iter_mut().for_each(Staging::rollback);
        self.clocks.iter_mut().flatten().for_each(Clock::rollback);
    }

    /// What is staged is in the stores.
    pub(super) fn committed(&mut self) {
        for (staging, cache) in self.staging.iter_mut().zip(&mut self.cached) {
            for (hash, key, value) in staging.hashed() {
                match value {
                    // Windows that were closed are not asked for again.
                    None if staging.is_ordered() => cache.remove(hash, key),
                    value => cache.put(hash, key, value),
                }
            }
            staging.clear();
        }
        self.committed_stream_time = self.stream_time;
    }

    /// Back to the last commit.
    pub(super) fn discard(&mut self) {
        self.staging.iter_mut().for_each(Staging::clear);
        self.clocks.iter_mut().flatten().for_each(Clock::forget);
        self.stream_time = self.committed_stream_time;
    }

    /// Stages what is under `self.key`; none deletes.
    pub(super) fn put_row(&mut self, store: StoreIndex, value: Option<&[u8]>, timestamp: i64) {
        if let Some(staging) = self.staging.get_mut(store) {
            staging.put(staging.locate(&self.key), &self.key, value, timestamp);
        }
    }

    /// Stages that a key is not there any more.
    pub(super) fn delete(&mut self, store: StoreIndex, key: &[u8], timestamp: i64) {
        if let Some(staging) = self.staging.get_mut(store) {
            staging.put(staging.locate(key), key, None, timestamp);
        }
    }
}

impl<S: Store> State<S> {
    /// Visits the rows from `self.key` to the last one before `self.next`, with what is staged over them.
    pub(super) fn visit_rows(&self, store: StoreIndex, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let (Some(committed), Some(staging)) = (self.stores.get(store), self.staging.get(store)) else {
            return Err(StoreError::new(NOT_OPEN.to_owned()));
        };
        let range = KeyRange {
            from: &self.key,
            until: Some(&self.next),
        };
        scan(committed, staging, range, visit)
    }

    /// What is staged under `self.key`, or else committed; and where it is staged.
    pub(super) fn look_up(&mut self, store: StoreIndex) -> Result<(Location, Option<&[u8]>), StoreError> {
        let (Some(staging), Some(committed), Some(cache)) = (
            self.staging.get(store),
            self.stores.get(store),
            self.cached.get_mut(store),
        ) else {
            return Err(StoreError::new(NOT_OPEN.to_owned()));
        };
        let (key, found) = (&self.key, &mut self.found);
        let location = staging.locate(key);
        let value = match staging.get(location) {
            Staged::Value(bytes) => Some(bytes),
            Staged::Deleted => None,
            Staged::Unknown => {
                found.clear();
                let is_there = match cache.get(location.hash(), key) {
                    Some(known) => {
                        found.extend_from_slice(known.unwrap_or_default());
                        known.is_some()
                    }
                    None => {
                        let is_there = committed.get(key, found)?;
                        cache.put(location.hash(), key, is_there.then_some(found.as_slice()));
                        is_there
                    }
                };
                is_there.then_some(found.as_slice())
            }
        };
        Ok((location, value))
    }
}
