//! A stream thread: the read-process-write loop of its tasks, in transactions of one producer.
//!
//! The way of a record, top to bottom, is [`StreamThread::run`]: inputs → engine → outputs; at the commit interval
//! changelog and positions → offsets → commit → stores. Nothing reaches a store before Kafka has committed it, and
//! any error of a transactional call ends the thread: the session goes through `acquire()` again, and positions
//! decide what was committed. No outcome is ever guessed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use engine::Processed;
use kafka::{Consumer, Event, PlainProducer, Wakeup};
use protocol::{TaskId, TaskState};

use crate::acquisition::Producer;
use crate::control::REQUEST_TIMEOUT;
use crate::failpoint::{self, Point};
use crate::seed::Seed;
use crate::shared::{Shared, add};
use crate::standstill::Stalled;
use crate::store::{FlushWait, StoreError};
use crate::stream_task::{SendTargets, StreamTask, Work};
use crate::watchdog::Pulse;

/// Events taken from a partition at once, and windows closed; bounds what a stop throws away.
const BATCH: usize = 512;
/// Longest sleep without work; also how late a stop is seen.
const IDLE: Duration = Duration::from_millis(100);
/// Memtables go to disk at least this often, so that a crash costs at most this much of the changelog,
const FLUSH_INTERVAL: Duration = Duration::from_secs(10);
/// and at most so many of its records.
const FLUSH_RECORDS: u64 = 1_000_000;

/// What the session wants from its threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Process.
    Run,
    /// Commit what is done, close, end.
    Drain,
    /// Stop at once; what is not committed is dropped.
    Drop,
}

/// The session's wish, seen by all its threads.
#[derive(Debug)]
pub(crate) struct Signal(AtomicU8);

impl Signal {
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(Wanted::Run as u8))
    }

    pub(crate) fn set(&self, wanted: Wanted) {
        self.0.store(wanted as u8, Ordering::Release);
    }

    fn get(&self) -> Wanted {
        match self.0.load(Ordering::Acquire) {
            value if value == Wanted::Run as u8 => Wanted::Run,
            value if value == Wanted::Drain as u8 => Wanted::Drain,
            _ => Wanted::Drop,
        }
    }
}

/// What the session asks of one thread.
pub(crate) enum Command {
    /// Run this task, too.
    Start(Box<Seed>),
    /// Commit and close these of its tasks; then tell.
    GiveUp(BTreeSet<TaskId>, Sender<()>),
}

/// How a thread ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Everything done is committed and on disk.
    Drained,
    /// Dropped on request.
    Dropped,
    /// The producer is lost or in doubt.
    Lost(kafka::Error),
    /// A request of a transaction that did commit was never answered: it may still be under way.
    Doubt,
    /// Records that are there do not arrive.
    Stalled(Stalled),
    /// A store failed.
    Store(StoreError),
    /// Only a person can help.
    Stopped(kafka::Error),
}

impl From<kafka::Error> for End {
    fn from(error: kafka::Error) -> Self {
        match error.recovery() {
            kafka::Recovery::Retry | kafka::Recovery::Reacquire => Self::Lost(error),
            kafka::Recovery::Stop => Self::Stopped(error),
        }
    }
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Whether a crash would cost as much of the changelog as it may.
fn is_flush_due(since: Duration, unflushed: u64) -> bool {
    since >= FLUSH_INTERVAL || unflushed >= FLUSH_RECORDS
}

/// Begins a transaction unless one is open; returns whether it did.
fn begin_transaction(
    began: &mut Option<Instant>,
    producer: &Producer,
    shared: &Shared,
) -> Result<bool, kafka::Error> {
    if began.is_some() {
        return Ok(false);
    }
    producer.begin()?;
    *began = Some(Instant::now());
    shared.open_transactions.fetch_add(1, Ordering::AcqRel);
    Ok(true)
}

/// One stream thread of a session.
pub(crate) struct StreamThread {
    pub(crate) application_id: String,
    /// Staged bytes after which a transaction is committed before its interval.
    pub(crate) staged_bytes: usize,
    pub(crate) commit_interval: Duration,
    pub(crate) refresh_offsets: Duration,
    pub(crate) consumer: Consumer,
    /// High watermarks, for the changelog positions of flushes.
    pub(crate) all: Arc<Consumer>,
    pub(crate) producer: Producer,
    /// Writes sinks under `at_least_once`.
    pub(crate) plain: Option<PlainProducer>,
    pub(crate) positions_topic: kafka::TopicHandle,
    pub(crate) commands: Receiver<Command>,
    pub(crate) tasks: Vec<StreamTask>,
    pub(crate) wakeup: Arc<Wakeup>,
    pub(crate) signal: Arc<Signal>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) pulse: Pulse,
    pub(crate) began: Option<Instant>,
    pub(crate) flushed: Instant,
    /// Changelog records that were written since then.
    pub(crate) unflushed: u64,
}

impl StreamThread {
    /// Runs until it is told to stop or cannot go on.
    pub(crate) fn run(mut self) -> End {
        let end = match self.process_until_told() {
            Ok(end) | Err(end) => end,
        };
        if self.began.take().is_some() {
            self.shared.open_transactions.fetch_sub(1, Ordering::AcqRel);
            add(&self.shared.counters.aborts, 1);
        }
        match &end {
            // With a healthy producer the open transaction is ended here, not left to the time-out.
            End::Dropped | End::Stalled(_) | End::Store(_) => self.producer.abort_and_close(),
            End::Lost(error) if error.category() == kafka::Category::Fenced => {
                add(&self.shared.counters.fences, 1);
            }
            End::Drained | End::Lost(_) | End::Doubt | End::Stopped(_) => {}
        }
        end
    }

    fn process_until_told(&mut self) -> Result<End, End> {
        loop {
            match self.signal.get() {
                Wanted::Run => {}
                Wanted::Drain => return self.drain(),
                Wanted::Drop => return Ok(End::Dropped),
            }
            self.pulse.beat();
            self.obey()?;
            let mut events = 0;
            for at in 0..self.tasks.len() {
                events += self.step(at)?;
            }
            self.producer.poll();
            self.consumer.poll(Duration::ZERO)?;
            if self.commit_is_due() {
                self.commit()?;
            }
            if is_flush_due(self.flushed.elapsed(), self.unflushed) {
                self.flush(FlushWait::No)?;
            }
            if events == 0 {
                let idles = self.tasks.iter().filter_map(StreamTask::idles).min();
                self.wakeup
                    .sleep(self.time_to_commit().min(idles.unwrap_or(IDLE)).min(IDLE));
            }
        }
    }

    /// Takes what one task's inputs have, and processes it; what a record has closed comes before the next one.
    fn step(&mut self, at: usize) -> Result<usize, End> {
        let Some(task) = self.tasks.get_mut(at) else {
            return Ok(0);
        };
        if task.has_failed() {
            task.update_lag(&self.consumer);
            return Ok(0);
        }
        task.fill(BATCH)?;
        let targets = SendTargets {
            producer: &self.producer,
            plain: self.plain.as_ref(),
            now_ms: kafka::now_ms(),
        };
        let mut begin = || -> Result<(), End> {
            if begin_transaction(&mut self.began, &self.producer, &self.shared)? {
                failpoint::reach(Point::AfterBegin, || ());
            }
            Ok(())
        };
        let (mut events, mut closed) = (0, 0);
        // A record may close more windows than a transaction takes.
        while closed < BATCH
            && let Some(work) = task.next_work()?
        {
            events += 1;
            let processed = match work {
                Work::Event(input, Event::EndOfPartition { offset, .. }) => {
                    task.end_of_partition(input, offset);
                    continue;
                }
                Work::Event(input, Event::Record(message)) => {
                    begin()?;
                    if task.passes_over(input, message.offset()) {
                        add(&self.shared.counters.skipped_by_hand, 1);
                        continue;
                    }
                    task.process(input, &message, &targets)?
                }
                Work::Close => {
                    closed += 1;
                    begin()?;
                    let processed = task.close_next(&targets)?;
                    failpoint::reach(Point::DuringClose, || ());
                    processed
                }
            };
            match processed {
                Some(Processed::Done) => {}
                Some(Processed::Dropped(reason)) => add(self.shared.counters.dropped(reason), 1),
                Some(Processed::Skipped(bad)) => {
                    add(&self.shared.counters.skipped, 1);
                    tracing::warn!(task = %task.shared().id, %bad, "skipped");
                }
                Some(Processed::DeadLettered(bad)) => {
                    add(&self.shared.counters.dead_letters, 1);
                    tracing::warn!(task = %task.shared().id, %bad, "sent to the dead-letter topic");
                }
                // The task stopped here; the others go on.
                None => break,
            }
        }
        task.update_lag(&self.consumer);
        task.look_for_standstill(&self.shared.patience)?;
        Ok(events)
    }

    fn commit_is_due(&self) -> bool {
        match self.began {
            Some(_) => {
                let staged: usize = self.tasks.iter().map(StreamTask::staged_bytes).sum();
                self.time_to_commit().is_zero() || staged >= self.staged_bytes
            }
            None => self
                .tasks
                .iter()
                .any(|task| task.should_commit_idle(self.refresh_offsets)),
        }
    }

    fn time_to_commit(&self) -> Duration {
        self.began
            .map_or(IDLE, |began| self.commit_interval.saturating_sub(began.elapsed()))
    }

    /// One transaction: changelog, positions, offsets, commit; then the stores.
    fn commit(&mut self) -> Result<(), End> {
        begin_transaction(&mut self.began, &self.producer, &self.shared)?;
        // For crash points: what was sent is there before the process is gone.
        let flush = || {
            let _ = self.producer.flush(REQUEST_TIMEOUT);
            let _ = self.plain.as_ref().map(|plain| plain.flush(REQUEST_TIMEOUT));
        };
        let as_of_ms = kafka::now_ms();
        let open = self.began.map(|began| began.elapsed());
        let started = Instant::now();
        failpoint::reach(Point::AfterOutput, flush);
        let mut sent = 0;
        for task in &mut self.tasks {
            task.join_transaction(self.refresh_offsets);
        }
        for task in self.tasks.iter_mut().filter(|task| task.is_dirty()) {
            sent += task.send_changes(&self.producer, &self.positions_topic)?;
        }
        if let Some(plain) = &self.plain {
            // at_least_once: sinks first, so that a position never covers an output that was not written.
            plain.flush(REQUEST_TIMEOUT)?;
        }
        failpoint::reach(Point::AfterChangelog, flush);
        let offsets: Vec<_> = self
            .tasks
            .iter()
            .filter(|task| task.is_dirty())
            .flat_map(StreamTask::input_offsets)
            .collect();
        let changes = started.elapsed();
        self.producer
            .send_offsets(&self.application_id, &offsets, REQUEST_TIMEOUT)?;
        let offsets_sent = started.elapsed();
        failpoint::reach(Point::AfterOffsets, || ());
        failpoint::reach_in_background(Point::CommitSent);
        self.producer.commit()?;
        let committed = started.elapsed();
        failpoint::reach(Point::AfterCommit, || ());
        self.began = None;
        self.shared.open_transactions.fetch_sub(1, Ordering::AcqRel);
        add(&self.shared.counters.commits, 1);
        add(&self.shared.counters.changelog_records, sent);
        self.unflushed += sent;
        for task in self.tasks.iter_mut().filter(|task| task.is_dirty()) {
            task.apply(as_of_ms, &self.shared.counters)?;
            failpoint::reach(Point::DuringApply, || ());
        }
        let applied = started.elapsed();
        tracing::debug!(
            ?open,
            ?changes,
            ?offsets_sent,
            ?committed,
            ?applied,
            sent,
            "transaction"
        );
        if self.producer.in_doubt() {
            Err(End::Doubt)
        } else {
            Ok(())
        }
    }

    /// Does what the session has asked for since the last look, in its order.
    fn obey(&mut self) -> Result<(), End> {
        let mut added = false;
        loop {
            match self.commands.try_recv() {
                Err(TryRecvError::Empty) => break,
                // The session did not come about.
                Err(TryRecvError::Disconnected) => return Err(End::Dropped),
                Ok(Command::Start(seed)) => {
                    self.add(*seed)?;
                    added = true;
                }
                Ok(Command::GiveUp(leaving, done)) => {
                    // Start vectors are committed alone, before whatever else is.
                    if std::mem::take(&mut added) {
                        self.begin_added()?;
                    }
                    self.give_up(&leaving)?;
                    // A session that has stopped listening will end this thread.
                    let _ = done.send(());
                }
            }
        }
        if added { self.begin_added() } else { Ok(()) }
    }

    fn add(&mut self, seed: Seed) -> Result<(), End> {
        failpoint::reach(Point::BeforeStart, || ());
        let task = StreamTask::new(seed, &self.consumer, &self.producer, self.plain.as_ref())?;
        for start in task.starts() {
            self.consumer.add(&start)?;
        }
        task.wake(&self.wakeup);
        self.tasks.push(task);
        Ok(())
    }

    /// The first transaction of a task that has never committed holds its start vector and nothing else of it.
    fn begin_added(&mut self) -> Result<(), End> {
        let mut any = false;
        for task in &mut self.tasks {
            any |= task.mark_start_vector();
        }
        if any {
            self.commit()?;
        }
        for task in self.tasks.iter().filter(|task| !task.has_failed()) {
            task.shared().set_state(TaskState::Running);
        }
        Ok(())
    }

    /// What is done of the tasks is committed, so that nothing of them is left in an open transaction.
    fn give_up(&mut self, leaving: &BTreeSet<TaskId>) -> Result<(), End> {
        failpoint::reach(Point::HandoverBegun, || ());
        // One commit for both: what is done, and that the ends were this process's own.
        let asked = self.ask_changelog_ends(|task| leaving.contains(task))?;
        if asked || self.began.is_some() {
            self.commit()?;
        }
        self.note_changelog_ends()?;
        failpoint::reach(Point::HandoverCommitted, || ());
        let (leave, stay): (Vec<_>, _) = std::mem::take(&mut self.tasks)
            .into_iter()
            .partition(|task| leaving.contains(&task.shared().id));
        self.tasks = stay;
        for mut task in leave {
            task.flush(FlushWait::UntilDone)?;
            for start in task.starts() {
                self.consumer.remove(&start.topic, start.partition)?;
            }
        }
        failpoint::reach(Point::HandoverClosed, || ());
        Ok(())
    }

    fn drain(&mut self) -> Result<End, End> {
        failpoint::reach(Point::DuringDrain, || ());
        if self.began.is_some() || self.tasks.iter().any(StreamTask::is_dirty) {
            self.commit()?;
        }
        self.flush(FlushWait::UntilDone)?;
        Ok(End::Drained)
    }

    /// Writes memtables to disk, with the changelogs' ends as contained. Without them a crash costs more of the changelog.
    fn flush(&mut self, wait: FlushWait) -> Result<(), End> {
        self.flushed = Instant::now();
        self.unflushed = 0;
        if self.ask_changelog_ends(|_| true)? {
            self.commit()?;
        }
        self.note_changelog_ends()?;
        for task in &mut self.tasks {
            failpoint::reach(Point::DuringFlush, || ());
            task.flush(wait)?;
        }
        Ok(())
    }

    /// Asks where changelogs end; returns whether a commit must follow. See [`StreamTask::ask_changelog_ends`].
    fn ask_changelog_ends(&mut self, of: impl Fn(&TaskId) -> bool) -> Result<bool, End> {
        let mut any = false;
        for task in self.tasks.iter_mut().filter(|task| of(&task.shared().id)) {
            any |= task.ask_changelog_ends(&self.all)?;
        }
        Ok(any)
    }

    /// After that commit.
    fn note_changelog_ends(&mut self) -> Result<(), End> {
        self.tasks
            .iter_mut()
            .try_for_each(StreamTask::note_changelog_ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_costs_is_bounded_in_time_and_in_records() {
        let soon = Duration::from_secs(1);
        assert!(!is_flush_due(soon, FLUSH_RECORDS - 1));
        assert!(is_flush_due(soon, FLUSH_RECORDS));
        assert!(is_flush_due(FLUSH_INTERVAL, 0));
    }
}
