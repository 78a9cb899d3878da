//! A task: one sub-topology at one partition.
//!
//! Owns the record's way and the savepoint around it: [`source`] reads, [`walk`] runs the nodes, [`results`]
//! holds what is to be sent. Does not commit: the owner takes [`Task::changes`], commits, applies, and says
//! [`Task::committed`].
//!
//! Semantics are Kafka Streams' with caching off, with one simplification: a null value (tombstone) goes
//! through `toStream` and to sinks, every other step drops it as [`DropReason::NullValue`]. `aggregate` drops
//! a null key as
//! [`DropReason::NullKey`].
//!
//! [`DropReason::NullValue`]: crate::DropReason::NullValue
//! [`DropReason::NullKey`]: crate::DropReason::NullKey

mod dead_letter;
mod results;
mod source;
#[cfg(test)]
mod tests;
mod walk;

use std::sync::Arc;

use bumpalo::Bump;
use topology::plan::{OnBadRecord, Plan, StoreIndex, SubTopology};

use crate::cache::Cache;
use crate::error::Failure;
use crate::format::Codec;
use crate::staging::Staging;
use crate::{Change, InputRecord, MemoryStore, Output, ProcessError, Processed, Store};
use results::Results;
use walk::Walk;

/// The runtime of a task over its committed stores.
pub struct Task<S> {
    plan: Arc<Plan>,
    sub_topology: usize,
    codecs: Codecs,
    state: State<S>,
    results: Results,
    /// Strings and records made for one record; emptied before the next.
    arena: Bump,
}

/// The formats of a sub-topology, prepared.
struct Codecs {
    key: Codec,
    value: Codec,
    /// Of keys and values, by sink.
    sinks: Vec<(Codec, Codec)>,
    /// Of keys, by store.
    stores: Vec<Codec>,
}

/// Stores and time of a task, committed and staged.
struct State<S> {
    stores: Vec<S>,
    /// Of what the stores hold.
    cached: Vec<Cache>,
    staging: Vec<Staging>,
    /// Scratch: a store's key, the value found there, the value to be staged.
    key: Vec<u8>,
    found: Vec<u8>,
    next: Vec<u8>,
    stream_time: i64,
    committed_stream_time: i64,
}

impl Codecs {
    fn new(sub: &SubTopology) -> Self {
        let sinks = sub.sinks.iter();
        Self {
            key: Codec::new(&sub.source.key),
            value: Codec::new(&sub.source.value),
            sinks: sinks
                .map(|sink| (Codec::new(&sink.key), Codec::new(&sink.value)))
                .collect(),
            stores: sub.stores.iter().map(|store| Codec::new(&store.key)).collect(),
        }
    }
}

impl<S> State<S> {
    fn begin_record(&mut self) {
        self.staging.iter_mut().for_each(Staging::begin_record);
    }

    fn rollback(&mut self) {
        self.staging.iter_mut().for_each(Staging::rollback);
    }
}

impl<S: Store> Task<S> {
    /// A task of `plan.sub_topologies[sub_topology]` over committed stores, one per store of the
    /// sub-topology, in its order. Stream time begins at `i64::MIN`; see [`Self::restore_stream_time`].
    ///
    /// # Panics
    /// When `sub_topology` is out of range.
    #[must_use]
    pub fn new(plan: Arc<Plan>, sub_topology: usize, stores: Vec<S>) -> Self {
        let codecs = Codecs::new(&plan.sub_topologies[sub_topology]);
        let state = State {
            staging: stores.iter().map(|_| Staging::default()).collect(),
            cached: stores.iter().map(|_| Cache::default()).collect(),
            stores,
            key: Vec::new(),
            found: Vec::new(),
            next: Vec::new(),
            stream_time: i64::MIN,
            committed_stream_time: i64::MIN,
        };
        Self {
            plan,
            sub_topology,
            codecs,
            state,
            results: Results::default(),
            arena: Bump::new(),
        }
    }

    /// Keeps so many bytes of what the stores hold in memory, so that keys in use are not read again; none unless told.
    pub fn set_cache_bytes(&mut self, bytes: usize) {
        let share = bytes / self.state.cached.len().max(1);
        self.state
            .cached
            .iter_mut()
            .for_each(|cache| cache.set_limit(share));
    }

    /// Processes one record under a savepoint: after an error nothing of it is staged, and nothing of it was
    /// sent unless
    /// [`Output::send`] itself failed.
    ///
    /// # Errors
    /// [`ProcessError`], with what the owner does next in [`ProcessError::recovery`].
    pub fn process(
        &mut self,
        record: &InputRecord<'_>,
        output: &mut impl Output,
    ) -> Result<Processed, ProcessError> {
        self.arena.reset();
        self.results.clear();
        self.state.begin_record();
        let Self {
            plan,
            sub_topology,
            codecs,
            state,
            results,
            arena,
        } = self;
        let sub = &plan.sub_topologies[*sub_topology];
        let moving = match source::read(&sub.source, codecs, record, arena) {
            Ok(moving) => moving,
            Err(failure) => return pass_over(sub, sub.source.on_bad_record, record, failure, output),
        };
        let mut walk = Walk {
            sub,
            codecs,
            record,
            arena,
            state,
            results,
            dropped: None,
        };
        let walked = walk.run(0, moving);
        let dropped = walk.dropped;
        match walked.and_then(|()| results.send(output)) {
            Ok(()) => {
                state.stream_time = state.stream_time.max(moving.timestamp);
                Ok(dropped.map_or(Processed::Done, Processed::Dropped))
            }
            Err(failure) => {
                state.rollback();
                pass_over(sub, sub.source.on_error, record, failure, output)
            }
        }
    }

    /// Memory that staging uses, in bytes: the owner commits before it grows beyond its budget.
    #[must_use]
    pub fn staged_bytes(&self) -> usize {
        self.state.staging.iter().map(Staging::staged_bytes).sum()
    }

    /// Keys written since the last commit, over all stores: records that the changelogs will get.
    #[must_use]
    pub fn staged_entries(&self) -> usize {
        self.state.staging.iter().map(Staging::entries).sum()
    }

    /// Each key of a store that was written since the last commit, once, with its last value, in the order of
    /// first writes. Nothing for a store that does not exist.
    pub fn changes(&self, store: StoreIndex) -> impl Iterator<Item = Change<'_>> {
        self.state
            .staging
            .get(store)
            .into_iter()
            .flat_map(Staging::changes)
    }

    /// The committed stores.
    #[must_use]
    pub fn stores(&self) -> &[S] {
        &self.state.stores
    }

    /// The committed stores, for an owner that applies [`Self::changes`] to them.
    pub fn stores_mut(&mut self) -> &mut [S] {
        &mut self.state.stores
    }

    /// The transaction is committed and its changes are applied: forgets them, keeps the memory.
    pub fn committed(&mut self) {
        for (staging, cache) in self.state.staging.iter_mut().zip(&mut self.state.cached) {
            for (hash, key, value) in staging.hashed() {
                cache.put(hash, key, value);
            }
            staging.clear();
        }
        self.state.committed_stream_time = self.state.stream_time;
    }

    /// The transaction was aborted: back to the last commit, stream time included.
    pub fn discard(&mut self) {
        self.state.staging.iter_mut().for_each(Staging::clear);
        self.state.stream_time = self.state.committed_stream_time;
    }

    /// Largest timestamp of the records processed, those of the transaction under way included, in
    /// milliseconds since the Unix epoch; `i64::MIN` before the first. To be committed with the positions.
    #[must_use]
    pub fn stream_time(&self) -> i64 {
        self.state.stream_time
    }

    /// Stream time of the last commit.
    #[must_use]
    pub fn committed_stream_time(&self) -> i64 {
        self.state.committed_stream_time
    }

    /// Sets both stream times to what the committed positions say. Before the first record.
    pub fn restore_stream_time(&mut self, stream_time: i64) {
        self.state.stream_time = stream_time;
        self.state.committed_stream_time = stream_time;
    }
}

/// What becomes of a record that failed, when nothing of it is staged.
#[cold]
fn pass_over(
    sub: &SubTopology,
    policy: OnBadRecord,
    record: &InputRecord<'_>,
    failure: Failure,
    output: &mut impl Output,
) -> Result<Processed, ProcessError> {
    match (policy, sub.source.dead_letters) {
        (OnBadRecord::Skip, _) if failure.is_of_the_record() => {
            Ok(Processed::Skipped(failure.bad_record(record)))
        }
        (OnBadRecord::DeadLetter, Some(sink)) if failure.is_of_the_record() => {
            let sent = dead_letter::send(sub, sink, record, failure, output);
            sent.map(Processed::DeadLettered)
                .map_err(|failure| failure.error(sub, record))
        }
        (OnBadRecord::Fail | OnBadRecord::Skip | OnBadRecord::DeadLetter, _) => {
            Err(failure.error(sub, record))
        }
    }
}

impl Task<MemoryStore> {
    /// A task over empty stores in memory.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn in_memory(plan: Arc<Plan>, sub_topology: usize) -> Self {
        let stores = vec![MemoryStore::default(); plan.sub_topologies[sub_topology].stores.len()];
        Self::new(plan, sub_topology, stores)
    }

    /// Applies the changes to the stores and says [`Self::committed`]: a commit where there is no broker.
    pub fn commit_in_memory(&mut self) {
        for (store, staging) in self.state.stores.iter_mut().zip(&self.state.staging) {
            for change in staging.changes() {
                store.apply(change.key, change.value);
            }
        }
        self.committed();
    }
}
