//! One task of a stream thread: its inputs, its engine, its store, its positions.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use engine::{
    ChosenBy, Head, InputRecord, Origin, Outgoing, Output, OutputError, ProcessError, Processed, Task,
    earliest,
};
use kafka::{Consumer, Event, Message, PartitionQueue, PlainProducer, Record, Start, TopicHandle, Wakeup};
use protocol::{Positions, StorePositions};
use topology::Header;

use crate::acquisition::Producer;
use crate::control::REQUEST_TIMEOUT;
use crate::limits::Limits;
use crate::seed::Seed;
use crate::shared::{Counters, TaskShared, add, lock};
use crate::standstill::{Patience, Standstill};
use crate::store::{FlushWait, StoreReader, TaskDb};
use crate::stream_thread::End;

/// A position that only moved over commit markers is committed when the task has been idle this long.
const MARKER_COMMIT: Duration = Duration::from_secs(1);

/// A topic that the task writes.
struct SinkTopic {
    topic: TopicHandle,
    partitions: i32,
    /// Outside the application, and no dead letters: what `at_least_once` writes outside the transaction.
    external: bool,
    limits: Limits,
}

/// A store's changelog.
struct Changelog {
    store: String,
    name: String,
    topic: TopicHandle,
}

/// The producers that outputs go to.
pub(crate) struct SendTargets<'a> {
    pub(crate) producer: &'a Producer,
    pub(crate) plain: Option<&'a PlainProducer>,
    /// This machine's clock, a moment ago.
    pub(crate) now_ms: i64,
}

/// What a task does next.
pub(crate) enum Work {
    /// With the input's place among the sources of the plan.
    Event(usize, Event),
    /// A window closes.
    Close,
}

/// A partition that the task reads.
struct Input {
    // Messages must go before the queue that they came from.
    events: VecDeque<Event>,
    queue: PartitionQueue,
    topic: String,
    topic_native: CString,
    /// Somebody reads the headers of its records.
    with_headers: bool,
    /// Next offset to process.
    position: i64,
    /// The last event was the end of the partition.
    at_end: bool,
    /// Event time of the next record, where it was asked for.
    time: Option<i64>,
    /// When its events were taken.
    taken: Instant,
    standstill: Standstill,
}

/// A task.
pub(crate) struct StreamTask {
    parts: Parts,
    /// Where it begins is not committed yet.
    begins: bool,
    /// Something of this task belongs into the next transaction.
    dirty: bool,
    failed: bool,
    /// Since when only commit markers have moved the position.
    moved_over_markers: Option<Instant>,
    /// When the task last committed, hence its offsets in the group.
    mirrored: Instant,
    pending: Pending,
    /// The positions record of the transaction under way.
    next: Option<Positions>,
    /// Changes were committed since the changelogs' ends were asked for.
    unnoted: bool,
    /// The changelogs' ends before the transaction under way, by store.
    asked: BTreeMap<String, i64>,
}

/// Counts of the transaction under way.
#[derive(Default)]
struct Pending {
    records_in: u64,
    records_out: u64,
}

/// What a task is made of.
struct Parts {
    shared: Arc<TaskShared>,
    /// By source of the plan.
    inputs: Vec<Input>,
    max_task_idle: Duration,
    /// Until when records wait for earlier ones.
    idle_until: Option<Instant>,
    engine: Task<StoreReader>,
    db: Option<TaskDb>,
    sinks: Vec<SinkTopic>,
    changelogs: Vec<Changelog>,
    committed: Positions,
    positions_partition: i32,
}

impl StreamTask {
    /// Makes a task for the thread that has these clients; its input is not fetched yet.
    pub(crate) fn new(
        seed: Seed,
        consumer: &Consumer,
        producer: &Producer,
        plain: Option<&PlainProducer>,
    ) -> Result<Self, kafka::Error> {
        let sinks = seed.sinks.into_iter().map(|sink| {
            let topic = match plain {
                Some(plain) if sink.external => plain.topic(&sink.name)?,
                Some(_) | None => producer.topic(&sink.name)?,
            };
            Ok(SinkTopic {
                topic,
                partitions: sink.partitions,
                external: sink.external,
                limits: sink.limits,
            })
        });
        let sinks = sinks.collect::<Result<_, kafka::Error>>()?;
        let mut db = seed.db;
        if let Some(db) = &mut db {
            db.set_unwritten_bytes(seed.unwritten_bytes);
        }
        let readers = db.iter().flat_map(|db| {
            let limits = seed.changelogs.iter().enumerate();
            limits.map(|(store, changelog)| db.reader(store, changelog.max_record_bytes))
        });
        let readers = readers.collect();
        let changelogs = seed.changelogs.into_iter().map(|changelog| {
            Ok(Changelog {
                topic: producer.topic(&changelog.name)?,
                store: changelog.store,
                name: changelog.name,
            })
        });
        let changelogs = changelogs.collect::<Result<_, kafka::Error>>()?;
        let offsets = seed.committed.inputs.iter().map(|input| input.offset);
        let sub = seed.plan.sub_topologies.get(seed.sub_topology);
        let headers = sub
            .into_iter()
            .flat_map(|sub| &sub.sources)
            .map(|source| source.headers);
        let inputs = seed.inputs.into_iter().zip(headers).zip(offsets);
        let inputs = inputs.map(|((topic, with_headers), position)| {
            Ok(Input {
                events: VecDeque::new(),
                queue: consumer.partition_queue(&topic, seed.shared.id.partition)?,
                // The queue was made of this name.
                topic_native: CString::new(topic.as_str()).unwrap_or_default(),
                topic,
                with_headers,
                position,
                at_end: false,
                time: None,
                taken: Instant::now(),
                standstill: Standstill::default(),
            })
        });
        let inputs = inputs.collect::<Result<Vec<_>, kafka::Error>>()?;
        let mut engine = Task::new(seed.plan, seed.sub_topology, seed.shared.id.partition, readers);
        engine.restore_stream_time(seed.committed.stream_time);
        engine.set_cache_bytes(seed.cache_bytes);
        let parts = Parts {
            shared: seed.shared,
            inputs,
            max_task_idle: seed.max_task_idle,
            idle_until: None,
            engine,
            db,
            sinks,
            changelogs,
            committed: seed.committed,
            positions_partition: seed.positions_partition,
        };
        parts.tell_committed();
        Ok(Self {
            parts,
            begins: seed.begins,
            dirty: false,
            failed: false,
            moved_over_markers: None,
            mirrored: Instant::now(),
            pending: Pending::default(),
            next: None,
            unnoted: false,
            asked: BTreeMap::new(),
        })
    }

    /// The task's id and facts for the outside.
    pub(crate) fn shared(&self) -> &TaskShared {
        &self.parts.shared
    }

    /// Where to fetch from.
    pub(crate) fn starts(&self) -> impl Iterator<Item = Start> {
        self.parts.inputs.iter().map(|input| Start {
            topic: input.topic.clone(),
            partition: self.parts.shared.id.partition,
            offset: input.position,
        })
    }

    /// Wakes the thread when records arrive.
    pub(crate) fn wake(&self, wakeup: &Wakeup) {
        self.parts
            .inputs
            .iter()
            .for_each(|input| input.queue.wake(wakeup));
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }

    pub(crate) fn staged_bytes(&self) -> usize {
        self.parts.engine.staged_bytes()
    }

    /// Takes events from the input queues when all taken before are processed.
    pub(crate) fn fill(&mut self, max: usize) -> Result<(), kafka::Error> {
        let inputs = self.parts.inputs.iter_mut();
        for input in inputs.filter(|input| input.events.is_empty()) {
            if input.queue.take(max, &mut input.events)? > 0 {
                input.taken = Instant::now();
            }
        }
        Ok(())
    }

    /// How long records still wait for earlier ones, if they do.
    pub(crate) fn idles(&self) -> Option<Duration> {
        let until = self.parts.idle_until?;
        Some(until.saturating_duration_since(Instant::now()))
    }

    /// What comes next of what is there. Nothing, too, when the task stopped.
    pub(crate) fn next_work(&mut self) -> Result<Option<Work>, End> {
        match self.parts.engine.is_closing() {
            Ok(true) => Ok(Some(Work::Close)),
            Ok(false) => Ok(self.parts.next_event()),
            Err(error) => self.stop_at(&error).map(|()| None),
        }
    }

    /// Passes over a record, if a person said so.
    pub(crate) fn passes_over(&mut self, input: usize, offset: i64) -> bool {
        let skipped = self.parts.shared.skipped.get(input);
        let is_skipped = skipped.is_some_and(|skipped| skipped.contains(&offset));
        if is_skipped && let Some(input) = self.parts.inputs.get_mut(input) {
            input.position = offset + 1;
            self.dirty = true;
            self.moved_over_markers = None;
            tracing::warn!(task = %self.parts.shared.id, topic = input.topic, offset, "skipped by hand");
        }
        is_skipped
    }

    /// Processes one record of an input. `None` when the task stopped at it.
    pub(crate) fn process(
        &mut self,
        input: usize,
        message: &Message,
        targets: &SendTargets<'_>,
    ) -> Result<Option<Processed>, End> {
        let processed = self.with_output(targets, |engine, inputs, output| {
            let headers = inputs
                .get(input)
                .map_or(Vec::new(), |input| headers(input.with_headers, message));
            let topic = inputs.get(input).map_or("", |input| &input.topic);
            engine.process(input, &record(topic, message, &headers), output)
        })?;
        if processed.is_some() {
            if let Some(input) = self.parts.inputs.get_mut(input) {
                input.position = message.offset() + 1;
            }
            self.moved_over_markers = None;
            self.pending.records_in += 1;
        }
        Ok(processed)
    }

    /// Closes one window. `None` when the task stopped at it.
    pub(crate) fn close_next(&mut self, targets: &SendTargets<'_>) -> Result<Option<Processed>, End> {
        let closed = self.with_output(targets, |engine, _, output| engine.close_next(output))?;
        Ok(closed.flatten())
    }

    /// What the engine does with the task's outputs. `None` when the task stopped.
    fn with_output<T>(
        &mut self,
        targets: &SendTargets<'_>,
        run: impl FnOnce(&mut Task<StoreReader>, &[Input], &mut ThreadOutput<'_>) -> Result<T, ProcessError>,
    ) -> Result<Option<T>, End> {
        let mut output = ThreadOutput {
            targets,
            sinks: &self.parts.sinks,
            source_partition: self.parts.shared.id.partition,
            sent: 0,
            failed: None,
        };
        let result = run(&mut self.parts.engine, &self.parts.inputs, &mut output);
        let (sent, failed) = (output.sent, output.failed.take());
        if let Some(error) = failed {
            return Err(error.into());
        }
        match result {
            Ok(done) => {
                self.dirty = true;
                self.pending.records_out += sent;
                Ok(Some(done))
            }
            Err(error) => self.stop_at(&error).map(|()| None),
        }
    }

    /// The task goes no further, unless its store is the reason: then the session ends.
    fn stop_at(&mut self, error: &ProcessError) -> Result<(), End> {
        if let Some(unread) = self.parts.db.as_ref().and_then(TaskDb::unread) {
            return Err(unread.into());
        }
        self.failed = true;
        self.parts
            .inputs
            .iter_mut()
            .for_each(|input| input.events.clear());
        let message = match &error.record.origin {
            Origin::Record {
                topic,
                partition,
                offset,
            } => format!(
                "{error}; to pass over this record: streamapp skip FILE --topic {topic} --partition {partition} --offset {offset}"
            ),
            Origin::Window { .. } | Origin::Store(_) => error.to_string(),
        };
        tracing::error!(task = %self.parts.shared.id, error = message, "task stopped; the other tasks go on");
        self.parts.shared.fail(message);
        Ok(())
    }

    /// Everything of an input below `offset` was delivered: what is between the last record and here are commit markers.
    pub(crate) fn end_of_partition(&mut self, input: usize, offset: i64) {
        if let Some(input) = self.parts.inputs.get_mut(input)
            && offset > input.position
        {
            input.position = offset;
            self.moved_over_markers.get_or_insert_with(Instant::now);
        }
    }

    /// Whether an idle task should commit: only markers moved its position, a while ago, or its offsets in the group grow
    /// old and could expire.
    pub(crate) fn should_commit_idle(&self, refresh: Duration) -> bool {
        let moved = self
            .moved_over_markers
            .is_some_and(|at| at.elapsed() >= MARKER_COMMIT);
        !self.failed && (moved || self.mirrored.elapsed() >= refresh)
    }

    /// Puts positions of idle tasks that should be committed into the transaction that is about to be.
    pub(crate) fn join_transaction(&mut self, refresh: Duration) {
        self.dirty |= self.moved_over_markers.is_some() || self.should_commit_idle(refresh);
    }

    /// Makes the start vector part of the next transaction; `false` if it is committed.
    pub(crate) fn mark_start_vector(&mut self) -> bool {
        self.dirty |= self.begins;
        self.begins
    }

    pub(crate) fn update_lag(&self, consumer: &Consumer) {
        let shared = &self.parts.shared;
        let asked = lock(&shared.ends);
        let lags = self.parts.inputs.iter().enumerate().map(|(at, input)| {
            let known = consumer.known_end(&input.topic_native, shared.id.partition);
            let end = known.max(asked.get(at).copied().flatten())?;
            Some((end - input.position).max(0))
        });
        if let Some(lag) = lags.sum() {
            shared.lag.store(lag, Ordering::Relaxed);
        }
    }

    /// Finds an input whose records do not arrive.
    pub(crate) fn look_for_standstill(&mut self, patience: &Patience) -> Result<(), End> {
        let asked = lock(&self.parts.shared.ends);
        for (input, end) in self.parts.inputs.iter_mut().zip(asked.iter().copied()) {
            let Some(end) = end.filter(|_| input.events.is_empty()) else {
                input.standstill.clear();
                continue;
            };
            let place = (
                input.topic.as_str(),
                self.parts.shared.id.partition,
                input.position,
            );
            let observed = input.standstill.observe(Instant::now(), place, end, patience);
            observed.map_err(End::Stalled)?;
        }
        Ok(())
    }

    /// Sends each changed key once, and the positions. Returns the number of changelog records.
    pub(crate) fn send_changes(
        &mut self,
        producer: &Producer,
        positions_topic: &TopicHandle,
    ) -> Result<u64, End> {
        let mut sent = 0;
        let partition = self.parts.shared.id.partition;
        for (store, changelog) in self.parts.changelogs.iter().enumerate() {
            for change in self.parts.engine.changes(store) {
                let record = Record {
                    partition,
                    key: Some(change.key),
                    value: change.value,
                    headers: &[],
                    timestamp: change.timestamp,
                };
                producer.send(&changelog.topic, &record)?;
                sent += 1;
            }
        }
        let mut next = self.parts.committed.clone();
        next.transaction += 1;
        next.stream_time = self.parts.engine.stream_time();
        for (next, input) in next.inputs.iter_mut().zip(&self.parts.inputs) {
            next.offset = input.position;
        }
        let key = next.task.to_string();
        let value = serde_json::to_vec(&next).unwrap_or_default();
        let record = Record {
            partition: self.parts.positions_partition,
            key: Some(key.as_bytes()),
            value: Some(&value),
            headers: &[],
            timestamp: kafka::now_ms(),
        };
        producer.send(positions_topic, &record)?;
        self.next = Some(next);
        Ok(sent)
    }

    /// The inputs' positions for the group's mirror.
    pub(crate) fn input_offsets(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        let partition = self.parts.shared.id.partition;
        let inputs = self.parts.inputs.iter();
        inputs.map(move |input| (input.topic.as_str(), partition, input.position))
    }

    /// After Kafka has committed: changes and positions go to the store together. `as_of_ms`: before the commit.
    pub(crate) fn apply(&mut self, as_of_ms: i64, counters: &Counters) -> Result<(), End> {
        let Some(next) = self.next.take() else {
            return Ok(());
        };
        if let Some(db) = &mut self.parts.db {
            let positions = StorePositions {
                task: Some(next.clone()),
                as_of_ms,
                ..db.positions()
            };
            let engine = &self.parts.engine;
            self.unnoted |= engine.staged_entries() > 0;
            let changes = (0..self.parts.changelogs.len()).flat_map(|store| {
                let changes = engine.changes(store);
                changes.map(move |change| (store, change.key, change.value))
            });
            db.apply(changes, positions)?;
        }
        self.parts.engine.committed();
        self.parts.tell_committed();
        self.parts.committed = next;
        self.begins = false;
        self.dirty = false;
        self.moved_over_markers = None;
        self.mirrored = Instant::now();
        let Pending {
            records_in,
            records_out,
        } = std::mem::take(&mut self.pending);
        add(&counters.records_in, records_in);
        add(&counters.records_out, records_out);
        Ok(())
    }

    /// Asks where the changelogs end, if something was committed since the last time, and makes the task part of the next
    /// transaction: when that is committed, nobody had replaced this process before, so nobody else had written what lies
    /// below. Returns whether there was something to ask for. What that transaction itself changes lies after those ends.
    pub(crate) fn ask_changelog_ends(&mut self, all: &Consumer) -> Result<bool, End> {
        if !self.unnoted {
            return Ok(false);
        }
        let partition = self.parts.shared.id.partition;
        for changelog in &self.parts.changelogs {
            let (_, end) = all.watermarks(&changelog.name, partition, REQUEST_TIMEOUT)?;
            self.asked.insert(changelog.store.clone(), end);
        }
        self.unnoted = false;
        self.dirty = true;
        Ok(true)
    }

    /// After that commit: what was asked is contained in the stores.
    pub(crate) fn note_changelog_ends(&mut self) -> Result<(), End> {
        let asked = std::mem::take(&mut self.asked);
        let Some(db) = self.parts.db.as_mut().filter(|_| !asked.is_empty()) else {
            return Ok(());
        };
        let mut positions = db.positions();
        for (store, end) in asked {
            if let Some(position) = positions.changelogs.get_mut(&store) {
                position.offset = end;
            }
        }
        Ok(db.apply([], positions)?)
    }

    pub(crate) fn flush(&mut self, wait: FlushWait) -> Result<(), End> {
        self.parts.db.as_mut().map_or(Ok(()), |db| Ok(db.flush(wait)?))
    }
}

impl Parts {
    /// The next event of all inputs: their ends first, then the record with the earliest event time. Nothing as long as an input
    /// has no event but may have some: it could be earlier.
    fn next_event(&mut self) -> Option<Work> {
        let at = self.next_input()?;
        let input = self.inputs.get_mut(at)?;
        let event = input.events.pop_front()?;
        input.time = None;
        input.at_end = matches!(event, Event::EndOfPartition { .. });
        Some(Work::Event(at, event))
    }

    fn next_input(&mut self) -> Option<usize> {
        if self.inputs.len() == 1 {
            return Some(0);
        }
        self.idle_until = None;
        let is_end = |input: &Input| matches!(input.events.front(), Some(Event::EndOfPartition { .. }));
        if let Some(at) = self.inputs.iter().position(is_end) {
            return Some(at);
        }
        let head = |(at, input): (usize, &mut Input)| match input.events.front() {
            Some(Event::Record(message)) => {
                let event_time = || {
                    let headers = headers(input.with_headers, message);
                    self.engine
                        .event_time(at, &record(&input.topic, message, &headers))
                };
                Head::Record(*input.time.get_or_insert_with(event_time))
            }
            Some(Event::EndOfPartition { .. }) | None if input.at_end => Head::AtEnd,
            Some(Event::EndOfPartition { .. }) | None => Head::Unknown,
        };
        let first = earliest(self.inputs.iter_mut().enumerate().map(head))?;
        // What was at its end when this record came may have an earlier one that is on its way.
        if self.inputs.iter().any(|input| input.events.is_empty()) {
            let until = self.inputs.get(first)?.taken + self.max_task_idle;
            if Instant::now() < until {
                self.idle_until = Some(until);
                return None;
            }
        }
        Some(first)
    }

    fn tell_committed(&self) {
        let positions = self.inputs.iter().map(|input| input.position);
        *lock(&self.shared.committed) = positions.collect();
    }
}

fn headers(are_read: bool, message: &Message) -> Vec<Header<'_>> {
    if are_read { message.headers() } else { Vec::new() }
}

fn record<'m>(topic: &'m str, message: &'m Message, headers: &'m [Header<'m>]) -> InputRecord<'m> {
    InputRecord {
        topic,
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp(),
        key: message.key(),
        value: message.value(),
        headers,
    }
}

/// Sends the outputs of one record.
struct ThreadOutput<'a> {
    targets: &'a SendTargets<'a>,
    sinks: &'a [SinkTopic],
    source_partition: i32,
    sent: u64,
    failed: Option<kafka::Error>,
}

impl ThreadOutput<'_> {
    fn sink(&self, sink: usize) -> Result<&SinkTopic, OutputError> {
        let found = self.sinks.get(sink);
        found.ok_or_else(|| OutputError::new(format!("sink {sink} does not exist")))
    }
}

impl Output for ThreadOutput<'_> {
    fn check(&self, record: &Outgoing<'_>) -> Result<(), OutputError> {
        let target = self.sink(record.sink)?;
        if let ChosenBy::Value(partition) = record.to
            && !(0..target.partitions).contains(&partition)
        {
            let topic = target.topic.name();
            return Err(OutputError::new(format!(
                "topic {topic} has no partition {partition}"
            )));
        }
        match target.limits.refusal(record, self.targets.now_ms) {
            Some(why) => Err(OutputError::new(format!("topic {}: {why}", target.topic.name()))),
            None => Ok(()),
        }
    }

    fn send(&mut self, outgoing: &Outgoing<'_>) -> Result<(), OutputError> {
        let target = self.sink(outgoing.sink)?;
        let partition = engine::partition::of_result(outgoing.to, self.source_partition, target.partitions);
        let record = Record {
            partition,
            key: outgoing.key,
            value: outgoing.value,
            headers: outgoing.headers,
            timestamp: outgoing.timestamp,
        };
        let result = match self.targets.plain {
            Some(plain) if target.external => plain.send(&target.topic, &record),
            Some(_) | None => self.targets.producer.send(&target.topic, &record),
        };
        result.map_err(|error| {
            let output = OutputError::new(error.to_string());
            self.failed = Some(error);
            output
        })?;
        self.sent += 1;
        Ok(())
    }
}
