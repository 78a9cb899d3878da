//! A task: one sub-topology at one partition.
//!
//! Owns the record's way and the savepoint around it: [`source`] reads, [`walk`] runs the nodes, [`aggregate`] those with
//! stores, [`windows`] finds what closes, [`closing`] closes it, [`results`] holds what is to be sent. Does not commit: the owner takes [`Task::changes`], commits, applies, and says
//! [`Task::committed`].
//!
//! Semantics are Kafka Streams' with caching off, with one simplification: a null value (tombstone) goes
//! through tables and their steps, `merge`, `toStream` and to sinks, every other step drops it as [`DropReason::NullValue`]. What finds
//! something by its key drops a null key as [`DropReason::NullKey`].
//!
//! [`DropReason::NullValue`]: crate::DropReason::NullValue
//! [`DropReason::NullKey`]: crate::DropReason::NullKey

mod aggregate;
mod closing;
mod dead_letter;
mod foreign_keys;
mod held;
mod joins;
mod results;
mod sliding;
mod source;
mod state;
mod tables;
#[cfg(test)]
mod tests;
mod versions;
mod walk;
mod windows;

use std::sync::Arc;

use bumpalo::Bump;
use topology::plan::{OnBadRecord, Plan, SinkIndex, SourceIndex, StoreIndex, SubTopology, Windows};

use crate::error::Failure;
use crate::format::Codec;
use crate::staging::Staging;
use crate::{
    Change, ErrorCategory, InputRecord, MemoryStore, Origin, Output, ProcessError, Processed, Store,
};
use closing::Row;
use dead_letter::Letter;
use results::Results;
use state::State;
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
    /// Of keys and values, by source.
    sources: Vec<(Codec, Codec)>,
    /// The same by sink.
    sinks: Vec<(Codec, Codec)>,
    /// Of keys, by store.
    stores: Vec<Codec>,
}

impl Codecs {
    fn new(sub: &SubTopology) -> Self {
        let (sources, sinks) = (sub.sources.iter(), sub.sinks.iter());
        Self {
            sources: sources
                .map(|source| (Codec::new(&source.key), Codec::new(&source.value)))
                .collect(),
            sinks: sinks
                .map(|sink| (Codec::new(&sink.key), Codec::new(&sink.value)))
                .collect(),
            stores: sub.stores.iter().map(|store| Codec::new(&store.key)).collect(),
        }
    }
}

impl<S: Store> Task<S> {
    /// A task of `plan.sub_topologies[sub_topology]` at a partition over committed stores, one per store of the
    /// sub-topology, in its order. Stream time begins at `i64::MIN`; see [`Self::restore_stream_time`].
    ///
    /// # Panics
    /// When `sub_topology` is out of range.
    #[must_use]
    pub fn new(plan: Arc<Plan>, sub_topology: usize, partition: i32, stores: Vec<S>) -> Self {
        let sub = &plan.sub_topologies[sub_topology];
        let codecs = Codecs::new(sub);
        let state = State::new(sub, partition, stores);
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
        self.state.set_cache_bytes(bytes);
    }

    /// The event time of a record of a source, in milliseconds since the Unix epoch: where a task has several sources, the earliest
    /// record comes first. That of the record itself where it cannot be read; [`Self::process`] will tell.
    #[must_use]
    pub fn event_time(&mut self, source: SourceIndex, record: &InputRecord<'_>) -> i64 {
        let sub = &self.plan.sub_topologies[self.sub_topology];
        let computed = sub
            .sources
            .get(source)
            .filter(|source| source.timestamp.is_some());
        let (Some(computed), Some(codecs)) = (computed, self.codecs.sources.get(source)) else {
            return record.timestamp;
        };
        self.arena.reset();
        let read = source::read(computed, codecs, record, &self.arena);
        read.map_or(record.timestamp, |moving| moving.timestamp)
    }

    /// Processes one record of a source under a savepoint: after an error nothing of it is staged, and nothing of it was
    /// sent unless
    /// [`Output::send`] itself failed. What it closes is for [`Self::close_next`].
    ///
    /// # Errors
    /// [`ProcessError`], with what the owner does next in [`ProcessError::recovery`].
    pub fn process(
        &mut self,
        source: SourceIndex,
        record: &InputRecord<'_>,
        output: &mut impl Output,
    ) -> Result<Processed, ProcessError> {
        self.begin_step();
        let Self {
            plan,
            sub_topology,
            codecs,
            state,
            results,
            arena,
        } = self;
        let sub = &plan.sub_topologies[*sub_topology];
        let (Some(source), Some(formats)) = (sub.sources.get(source), codecs.sources.get(source)) else {
            let reason = format!("the plan has no source {source}");
            return Err(Failure::new(ErrorCategory::Deserialization, 0, reason).error(sub, record.into()));
        };
        let bad = (source.on_bad_record, source.dead_letters);
        let moving = match source::read(source, formats, record, arena) {
            Ok(moving) => moving,
            Err(failure) => return pass_over(sub, bad, record.into(), failure, output),
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
        let walked = walk.run(source.node, moving);
        let dropped = walk.dropped;
        match walked.and_then(|()| results.send(output)) {
            Ok(()) => {
                state.stream_time = state.stream_time.max(moving.timestamp);
                Ok(dropped.map_or(Processed::Done, Processed::Dropped))
            }
            Err(failure) => {
                state.rollback();
                let error = (source.on_error, source.dead_letters);
                let letter = dead_letter::of(source, &moving, record, arena);
                pass_over(sub, error, letter, failure, output)
            }
        }
    }

    /// A savepoint, and nothing of the step before.
    fn begin_step(&mut self) {
        self.arena.reset();
        self.results.clear();
        self.state.begin_record();
    }

    /// Whether a window is to be closed. As long as one is, [`Self::close_next`] comes before the next record, whatever is
    /// committed in between: so the order of results depends on nothing else than the records.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_closing(&mut self) -> Result<bool, ProcessError> {
        Ok(self.closing()?.is_some())
    }

    /// The first store of which a window is to be closed.
    #[inline]
    fn closing(&mut self) -> Result<Option<StoreIndex>, ProcessError> {
        for store in 0..self.state.clocks.len() {
            if self.state.clocks[store].is_some() && self.is_due(store)? {
                return Ok(Some(store));
            }
        }
        Ok(None)
    }

    /// Closes one window: sends its result on, where that waits for it, and deletes its row, under a savepoint of its own. `None`:
    /// there is none to be closed.
    ///
    /// # Errors
    /// As [`Self::process`]; `onError` holds for results of windows, too, but not for updates of tables that waited.
    pub fn close_next(&mut self, output: &mut impl Output) -> Result<Option<Processed>, ProcessError> {
        let Some(store) = self.closing()? else {
            return Ok(None);
        };
        match self.state.take_due(store) {
            Some(row) => self.close(store, row, output).map(Some),
            None => Ok(None),
        }
    }

    fn is_due(&mut self, store: StoreIndex) -> Result<bool, ProcessError> {
        self.state.is_due(store).map_err(|(node, error)| {
            let sub = &self.plan.sub_topologies[self.sub_topology];
            let name = sub.stores[store].name.clone();
            let reason = format!("store `{name}`: {error}");
            Failure::new(ErrorCategory::StoreRead, node, reason).error(sub, Origin::Store(name))
        })
    }

    fn close(
        &mut self,
        store: StoreIndex,
        row: Row,
        output: &mut impl Output,
    ) -> Result<Processed, ProcessError> {
        self.begin_step();
        let Self {
            plan,
            sub_topology,
            codecs,
            state,
            results,
            arena,
        } = self;
        let sub = &plan.sub_topologies[*sub_topology];
        let closed = closing::close(sub, codecs, arena, state, results, (store, &row));
        let failure = match closed.and_then(|()| results.send(output)) {
            Ok(()) => return Ok(Processed::Done),
            Err(failure) => failure,
        };
        state.rollback();
        let letter = closing::letter(sub, codecs, arena, state, (store, &row));
        let policy = match sub.stores[store].windows {
            // The next update would take out of later tables what never came there.
            Some(Windows::Suppress { .. }) => (OnBadRecord::Fail, None),
            _ => sub
                .source_of(failure.node)
                .map_or((OnBadRecord::Fail, None), |source| {
                    (source.on_error, source.dead_letters)
                }),
        };
        let passed = pass_over(sub, policy, letter, failure, output);
        if passed.is_err() {
            state.keep_due(store, row);
            return passed;
        }
        state.begin_record();
        let removed = closing::remove(sub, arena, state, (store, &row));
        removed.map_err(|failure| failure.error(sub, Origin::Store(sub.stores[store].name.clone())))?;
        passed
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
        self.state.committed();
    }

    /// The transaction was aborted: back to the last commit, stream time included.
    pub fn discard(&mut self) {
        self.state.discard();
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
    policy: (OnBadRecord, Option<SinkIndex>),
    letter: Letter<'_>,
    failure: Failure,
    output: &mut impl Output,
) -> Result<Processed, ProcessError> {
    match policy {
        (OnBadRecord::Skip, _) if failure.is_of_the_record() => {
            Ok(Processed::Skipped(failure.bad_record(letter.origin)))
        }
        (OnBadRecord::DeadLetter, Some(sink)) if failure.is_of_the_record() => {
            let sent = dead_letter::send(sub, sink, letter, failure, output);
            sent.map(Processed::DeadLettered)
                .map_err(|(failure, origin)| failure.error(sub, origin))
        }
        (OnBadRecord::Fail | OnBadRecord::Skip | OnBadRecord::DeadLetter, _) => {
            Err(failure.error(sub, letter.origin))
        }
    }
}

impl Task<MemoryStore> {
    /// A task over empty stores in memory.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn in_memory(plan: Arc<Plan>, sub_topology: usize, partition: i32) -> Self {
        let stores = vec![MemoryStore::default(); plan.sub_topologies[sub_topology].stores.len()];
        Self::new(plan, sub_topology, partition, stores)
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
