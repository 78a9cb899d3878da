//! A stream thread: the loop of the worker over the real engine. Nothing reaches a store before the broker has said that
//! the transaction is committed, and every error ends the session.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use engine::partition::of_result;
use engine::{
    Change, ErrorCategory, Head, InputRecord, Outgoing, Output, OutputError, ProcessError, Task as Engine,
    earliest,
};
use protocol::{Guarantee, Positions, TaskId};
use topology::plan::TopicName;

use super::Mutant;
use super::app::{PARTITIONS, Topic};
use super::broker::{Broker, Isolation, Place, Record};
use super::client::{Lost, Producer, Sim, pause};
use super::volume::{Db, Reader};

/// What the session wants of its threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Run,
    Drain,
    Drop,
}

/// What it asks of one of them.
pub(crate) enum Command {
    Start(Box<Seed>),
    /// Commit and close; then tell.
    GiveUp(BTreeSet<TaskId>, Rc<Cell<bool>>),
}

/// What session and thread share.
pub(crate) struct Post {
    pub(crate) commands: RefCell<VecDeque<Command>>,
    pub(crate) wanted: Cell<Wanted>,
    pub(crate) ended: Cell<bool>,
    /// Tasks given to the thread.
    pub(crate) tasks: RefCell<BTreeSet<TaskId>>,
}

impl Post {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            commands: RefCell::default(),
            wanted: Cell::new(Wanted::Run),
            ended: Cell::new(false),
            tasks: RefCell::default(),
        })
    }
}

/// A task, ready to run.
pub(crate) struct Seed {
    pub(crate) task: TaskId,
    pub(crate) sub_topology: usize,
    pub(crate) committed: Positions,
    pub(crate) positions_partition: i32,
    pub(crate) db: Option<Db>,
}

/// A partition that a task reads.
struct Input {
    place: Place,
    /// Next offset to process.
    position: i64,
    /// Fetched, not processed.
    records: VecDeque<(i64, Record)>,
    /// Behind what was fetched.
    next: i64,
    /// Nothing was behind that.
    at_end: bool,
}

impl Input {
    fn begin(place: Place, position: i64) -> Self {
        Self {
            place,
            position,
            records: VecDeque::new(),
            next: position,
            at_end: false,
        }
    }
}

struct Task {
    id: TaskId,
    engine: Engine<Reader>,
    db: Option<Db>,
    store: Option<String>,
    /// By source of the plan.
    inputs: Vec<Input>,
    sinks: Vec<(Topic, bool)>,
    committed: Positions,
    positions_partition: i32,
    dirty: bool,
    moved_over_markers: bool,
    next: Option<Positions>,
    /// Changes were committed since the changelog's end was asked for.
    unnoted: bool,
    /// The changelog's end before the transaction under way.
    asked: Option<i64>,
}

/// A result that waits to be sent.
struct Sent {
    place: Place,
    external: bool,
    record: Record,
}

/// Takes the results of one record.
struct Collected<'a> {
    sinks: &'a [(Topic, bool)],
    sent: Vec<Sent>,
}

impl Output for Collected<'_> {
    fn check(&self, _: &Outgoing<'_>) -> Result<(), OutputError> {
        Ok(())
    }

    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), OutputError> {
        let (topic, external) = self.sinks[record.sink];
        let partition = of_result(record.to, 0, PARTITIONS);
        self.sent.push(Sent {
            place: (topic, partition),
            external,
            record: Record {
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                timestamp: record.timestamp,
            },
        });
        Ok(())
    }
}

impl Task {
    fn new(sim: &Rc<Sim>, seed: Seed) -> Self {
        let plan = &sim.app.plan;
        let sub = &plan.sub_topologies[seed.sub_topology];
        let topic = |name: &TopicName| sim.app.topic(&name.resolve(&sim.app.id.0));
        let external = |name: &TopicName| matches!(name, TopicName::External(_));
        let reader = |db: &Db| Reader {
            sim: Rc::clone(sim),
            db: Rc::clone(db),
        };
        let readers = seed.db.iter().map(reader).collect();
        let mut engine = Engine::new(plan.clone(), seed.sub_topology, seed.task.partition, readers);
        engine.restore_stream_time(seed.committed.stream_time);
        // Small enough that keys are forgotten now and then.
        engine.set_cache_bytes(2_000);
        let sinks = sub.sinks.iter();
        Self {
            engine,
            db: seed.db,
            store: sub.stores.first().map(|store| store.name.clone()),
            inputs: sub
                .sources
                .iter()
                .zip(&seed.committed.inputs)
                .map(|(source, input)| {
                    Input::begin((topic(&source.topic), seed.task.partition), input.offset)
                })
                .collect(),
            sinks: sinks
                .map(|sink| (topic(&sink.topic), external(&sink.topic)))
                .collect(),
            id: seed.task,
            committed: seed.committed,
            positions_partition: seed.positions_partition,
            dirty: false,
            moved_over_markers: false,
            next: None,
            unnoted: false,
            asked: None,
        }
    }

    fn changes(&self) -> Vec<Record> {
        let record = |change: Change<'_>| Record {
            key: Some(change.key.to_vec()),
            value: change.value.map(<[u8]>::to_vec),
            timestamp: change.timestamp,
        };
        self.engine.changes(0).map(record).collect()
    }

    /// The positions record of the transaction under way.
    fn next_positions(&mut self) -> Record {
        let mut next = self.committed.clone();
        next.transaction += 1;
        next.stream_time = self.engine.stream_time();
        for (next, input) in next.inputs.iter_mut().zip(&self.inputs) {
            next.offset = input.position;
        }
        let record = Record {
            key: Some(next.task.to_string().into_bytes()),
            value: serde_json::to_vec(&next).ok(),
            timestamp: 0,
        };
        self.next = Some(next);
        record
    }

    fn apply(&mut self, sim: &Sim, now_ms: i64) -> Result<(), End> {
        let Some(next) = self.next.take() else {
            return Ok(());
        };
        self.unnoted |= !self.changes().is_empty();
        self.write_store(&next, now_ms);
        let failed = self.db.as_ref().is_some_and(|db| sim.store_fails(db));
        if failed && sim.mutant != Mutant::IgnoresFailedWrites {
            return Err(End::Dropped);
        }
        self.engine.committed();
        self.committed = next;
        self.dirty = false;
        self.moved_over_markers = false;
        Ok(())
    }

    fn write_store(&self, next: &Positions, now_ms: i64) {
        if let Some(db) = &self.db {
            let mut store = db.borrow_mut();
            for change in self.changes() {
                store.change(&change.key.unwrap_or_default(), change.value.as_deref());
            }
            store.memory.positions.task = Some(next.clone());
            store.memory.positions.as_of_ms = now_ms;
        }
    }

    /// What was asked counts as contained.
    fn note(&mut self) {
        if let (Some(db), Some(store), Some(end)) = (&self.db, &self.store, self.asked.take())
            && let Some(position) = db.borrow_mut().memory.positions.changelogs.get_mut(store)
        {
            position.offset = end;
        }
    }

    /// Back to the last commit; the next fetch begins there.
    fn rewind(&mut self) {
        self.engine.discard();
        self.next = None;
        self.dirty = false;
        for (input, committed) in self.inputs.iter_mut().zip(&self.committed.inputs) {
            *input = Input::begin(input.place, committed.offset);
        }
    }

    /// Where the earliest record of all inputs is; nothing as long as one of them may have an earlier one.
    fn next_input(&mut self) -> Option<usize> {
        let head = |(at, input): (usize, &Input)| match input.records.front() {
            Some((offset, record)) => {
                let record = record_of(input.place, *offset, record);
                Head::Record(self.engine.event_time(at, &record))
            }
            None if input.at_end => Head::AtEnd,
            None => Head::Unknown,
        };
        earliest(self.inputs.iter().enumerate().map(head))
    }
}

fn record_of(place: Place, offset: i64, record: &Record) -> InputRecord<'_> {
    InputRecord {
        topic: "input",
        partition: place.1,
        offset,
        timestamp: record.timestamp,
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: &[],
    }
}

/// How a thread ended.
enum End {
    Drained,
    /// With a producer that is not in doubt.
    Dropped,
    Lost,
}

impl From<Lost> for End {
    fn from(_: Lost) -> Self {
        Self::Lost
    }
}

/// A stream thread.
pub(crate) struct StreamThread {
    pub(crate) sim: Rc<Sim>,
    pub(crate) producer: Producer,
    pub(crate) guarantee: Guarantee,
    pub(crate) post: Rc<Post>,
    tasks: Vec<Task>,
    began: bool,
}

impl StreamThread {
    pub(crate) fn new(sim: &Rc<Sim>, producer: Producer, guarantee: Guarantee, post: &Rc<Post>) -> Self {
        Self {
            sim: Rc::clone(sim),
            producer,
            guarantee,
            post: Rc::clone(post),
            tasks: Vec::new(),
            began: false,
        }
    }

    pub(crate) async fn run(mut self) {
        let end = match self.process_until_told().await {
            Ok(end) | Err(end) => end,
        };
        if matches!(end, End::Dropped) && self.began {
            self.producer.abort().await;
        }
        self.post.ended.set(true);
    }

    async fn process_until_told(&mut self) -> Result<End, End> {
        loop {
            match self.post.wanted.get() {
                Wanted::Run => {}
                Wanted::Drain => {
                    if self.began || self.tasks.iter().any(|task| task.dirty) {
                        self.commit().await?;
                    }
                    self.flush().await?;
                    return Ok(End::Drained);
                }
                Wanted::Drop => return Ok(End::Dropped),
            }
            self.obey().await?;
            for at in 0..self.tasks.len() {
                self.step(at).await?;
            }
            let idle = || self.tasks.iter().any(|task| task.moved_over_markers);
            if (self.began && self.sim.once_in(3)) || (!self.began && idle() && self.sim.once_in(8)) {
                self.commit().await?;
            }
            if self.sim.once_in(10) {
                self.flush().await?;
            }
            pause().await;
        }
    }

    fn begin(&mut self) -> Result<(), End> {
        if self.producer.in_doubt() {
            return Err(End::Lost);
        }
        self.began = true;
        Ok(())
    }

    async fn step(&mut self, at: usize) -> Result<(), End> {
        if !self.close_windows(at).await? {
            return Ok(());
        }
        for input in 0..self.tasks[at].inputs.len() {
            self.fetch(at, input).await?;
        }
        while let Some(input) = self.tasks[at].next_input() {
            if !self.began {
                self.begin()?;
            }
            let sent = self.process(at, input)?;
            self.send(sent).await?;
            if !self.close_windows(at).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Fetches some records of an input that has none left.
    async fn fetch(&mut self, at: usize, input: usize) -> Result<(), End> {
        let read = &self.tasks[at].inputs[input];
        if !read.records.is_empty() {
            return Ok(());
        }
        let (place, from) = (read.place, read.next);
        let max = 1 + self.sim.random.borrow_mut().below(3);
        let fetch = |broker: &mut Broker| {
            let is_there = from >= broker.watermarks(place).0;
            is_there.then(|| broker.fetch(place, from, max, Isolation::Committed))
        };
        // Out of range: who stood still may be where the new owner has deleted what it consumed.
        let fetched = self.sim.call(fetch).await.ok_or(End::Lost)?;
        let task = &mut self.tasks[at];
        let read = &mut task.inputs[input];
        read.records.extend(fetched.records);
        (read.next, read.at_end) = (fetched.next, fetched.at_end);
        if read.records.is_empty() && read.at_end && read.next > read.position {
            read.position = read.next;
            task.moved_over_markers = true;
        }
        Ok(())
    }

    /// Closes windows of a task: all, or else a few, and then says that there are more.
    async fn close_windows(&mut self, at: usize) -> Result<bool, End> {
        for _ in 0..3 {
            let task = &mut self.tasks[at];
            match task.engine.is_closing() {
                Ok(true) => {}
                Ok(false) => return Ok(true),
                Err(error) => return Err(refused(&self.sim, &error)),
            }
            if !self.began {
                self.begin()?;
            }
            let task = &mut self.tasks[at];
            let mut output = Collected {
                sinks: &task.sinks,
                sent: Vec::new(),
            };
            let closed = task.engine.close_next(&mut output);
            let sent = output.sent;
            closed.map_err(|error| refused(&self.sim, &error))?;
            let task = &mut self.tasks[at];
            task.dirty = true;
            self.send(sent).await?;
        }
        Ok(false)
    }

    /// Results of one record for one partition are one request, as a client's batch is.
    async fn send(&mut self, results: Vec<Sent>) -> Result<(), End> {
        for batch in results.chunk_by(|one, next| one.place == next.place) {
            let (place, external) = (batch[0].place, batch[0].external);
            let records: Vec<_> = batch.iter().map(|sent| sent.record.clone()).collect();
            if external && self.guarantee == Guarantee::AtLeastOnce {
                let append = |broker: &mut Broker| {
                    for record in &records {
                        let _ = broker.append(place, record.clone());
                    }
                };
                self.sim.call(append).await;
            } else {
                self.producer.send(place, &records).await?;
            }
        }
        Ok(())
    }

    /// Processes the next record of an input.
    fn process(&mut self, at: usize, input: usize) -> Result<Vec<Sent>, End> {
        let task = &mut self.tasks[at];
        let read = &mut task.inputs[input];
        let Some((offset, record)) = read.records.pop_front() else {
            return Ok(Vec::new());
        };
        let mut output = Collected {
            sinks: &task.sinks,
            sent: Vec::new(),
        };
        let record = record_of(read.place, offset, &record);
        let processed = task.engine.process(input, &record, &mut output);
        let sent = output.sent;
        processed.map_err(|error| refused(&self.sim, &error))?;
        read.position = offset + 1;
        task.dirty = true;
        task.moved_over_markers = false;
        Ok(sent)
    }

    async fn commit(&mut self) -> Result<(), End> {
        match self.transaction().await {
            Err(End::Lost) if self.sim.mutant == Mutant::TakesTimeoutForAbort => {
                self.tasks.iter_mut().for_each(Task::rewind);
                self.began = false;
                Ok(())
            }
            result => result,
        }
    }

    /// One transaction: changelog, positions, offsets, commit; then the stores.
    async fn transaction(&mut self) -> Result<(), End> {
        let as_of_ms = self.sim.now_ms();
        if !self.began {
            self.begin()?;
        }
        let mut offsets = BTreeMap::new();
        for task in &mut self.tasks {
            task.dirty |= task.moved_over_markers;
            if !task.dirty {
                continue;
            }
            let changes = task.changes();
            if !changes.is_empty() {
                let place = (Topic::Changelog, task.id.partition);
                self.producer.send(place, &changes).await?;
            }
            if self.sim.mutant == Mutant::NotesWhatIsSent {
                task.asked = ask(&self.sim, task).await;
                task.note();
            }
            let place = (Topic::Positions, task.positions_partition);
            let record = task.next_positions();
            self.producer.send(place, &[record]).await?;
            offsets.extend(task.inputs.iter().map(|input| (input.place, input.position)));
            if self.sim.mutant == Mutant::AppliesBeforeCommit
                && let Some(next) = &task.next
            {
                task.write_store(next, self.sim.now_ms());
            }
        }
        self.producer.send_offsets(&offsets).await?;
        self.producer.commit().await?;
        self.began = false;
        self.sim.count(|figures| figures.commits += 1);
        for task in self.tasks.iter_mut().filter(|task| task.dirty) {
            task.apply(&self.sim, as_of_ms)?;
            pause().await;
        }
        if self.producer.in_doubt() {
            Err(End::Lost)
        } else {
            Ok(())
        }
    }

    async fn obey(&mut self) -> Result<(), End> {
        let mut added = false;
        loop {
            let command = self.post.commands.borrow_mut().pop_front();
            match command {
                None => break,
                Some(Command::Start(seed)) => {
                    self.tasks.push(Task::new(&self.sim, *seed));
                    added = true;
                }
                Some(Command::GiveUp(leaving, done)) => {
                    if std::mem::take(&mut added) {
                        self.begin_added().await?;
                    }
                    self.give_up(&leaving).await?;
                    done.set(true);
                }
            }
        }
        if added { self.begin_added().await } else { Ok(()) }
    }

    /// The first transaction of a task holds its start vector and nothing else of it.
    async fn begin_added(&mut self) -> Result<(), End> {
        let mut any = false;
        for task in self
            .tasks
            .iter_mut()
            .filter(|task| task.committed.transaction == 0)
        {
            task.dirty = true;
            any = true;
        }
        if any { self.commit().await } else { Ok(()) }
    }

    async fn give_up(&mut self, leaving: &BTreeSet<TaskId>) -> Result<(), End> {
        let asked = self.ask_changelog_ends(|id| leaving.contains(id)).await;
        if asked || self.began {
            self.commit().await?;
        }
        self.flush_noting(|id| leaving.contains(id)).await?;
        self.tasks.retain(|task| !leaving.contains(&task.id));
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), End> {
        if self.ask_changelog_ends(|_| true).await {
            self.commit().await?;
        }
        self.flush_noting(|_| true).await
    }

    /// Returns whether a commit must follow, before the ends count as contained: nobody else had written until then.
    async fn ask_changelog_ends(&mut self, of: impl Fn(&TaskId) -> bool) -> bool {
        let commits = self.sim.mutant != Mutant::NotesWithoutCommit;
        let mut any = false;
        for task in self.tasks.iter_mut().filter(|task| of(&task.id)) {
            if task.unnoted || !commits {
                task.asked = ask(&self.sim, task).await;
                task.unnoted = false;
                task.dirty |= commits;
                any |= commits;
            }
        }
        any
    }

    /// Writes stores to disk, with what was asked as contained.
    async fn flush_noting(&mut self, of: impl Fn(&TaskId) -> bool) -> Result<(), End> {
        for task in self.tasks.iter_mut().filter(|task| of(&task.id)) {
            task.note();
            pause().await;
            if let Some(db) = &task.db {
                if self.sim.store_fails(db) {
                    return Err(End::Dropped);
                }
                db.borrow_mut().flush();
            }
        }
        Ok(())
    }
}

/// Only its store may refuse a record.
fn refused(sim: &Sim, error: &ProcessError) -> End {
    if error.category() != ErrorCategory::StoreRead {
        sim.break_promise(error.to_string());
    }
    End::Dropped
}

/// Where the task's changelog ends now.
async fn ask(sim: &Sim, task: &Task) -> Option<i64> {
    task.db.as_ref()?;
    let place = (Topic::Changelog, task.id.partition);
    let (_, end) = sim.call(|broker| broker.watermarks(place)).await;
    Some(end)
}
