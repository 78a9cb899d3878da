//! Copies of the stores of tasks that other workers run. One thread follows all their changelogs; a task that this worker
//! is to run takes its copy as it is, so that only the last records are left to read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::Scope;
use std::time::{Duration, Instant};

use kafka::{Consumer, Ends, Isolation, Wakeup};
use protocol::{TaskId, TaskState};

use crate::follower::Follower;
use crate::preparation::Preparer;
use crate::restore::RestoreError;
use crate::running::GLANCE;
use crate::session_end::SessionEnd;
use crate::shared::{TaskShared, add};
use crate::store::{FlushWait, TaskDb};

/// Longest sleep without work.
const IDLE: Duration = Duration::from_millis(100);
/// How often copies go to disk.
const FLUSH_INTERVAL: Duration = Duration::from_secs(10);
/// Until a copy that failed is begun again.
const AGAIN: Duration = Duration::from_secs(5);

/// The copies of a session.
pub(crate) struct Standbys<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    preparer: &'env Preparer<'env>,
    copies: BTreeMap<TaskId, Arc<TaskShared>>,
    /// Made with the first copy.
    thread: Option<Handle>,
}

struct Handle {
    commands: Sender<Command>,
    wakeup: Arc<Wakeup>,
}

/// What becomes of a copy that is let go: it comes open, closed, or there was none.
pub(crate) type Released = Receiver<Option<TaskDb>>;

enum Command {
    Follow(Arc<TaskShared>),
    Release(TaskId, Sender<Option<TaskDb>>),
}

impl<'scope, 'env> Standbys<'scope, 'env> {
    pub(crate) fn new(scope: &'scope Scope<'scope, 'env>, preparer: &'env Preparer<'env>) -> Self {
        Self {
            scope,
            preparer,
            copies: BTreeMap::new(),
            thread: None,
        }
    }

    /// Their facts for the outside.
    pub(crate) fn shared(&self) -> impl Iterator<Item = &Arc<TaskShared>> {
        self.copies.values()
    }

    /// Has copies of these tasks' stores, as far as they have any, and no others.
    pub(crate) fn keep(&mut self, wanted: &BTreeSet<TaskId>) -> Result<(), SessionEnd> {
        let gone: Vec<_> = self
            .copies
            .keys()
            .filter(|task| !wanted.contains(task))
            .cloned()
            .collect();
        for task in gone {
            // Nobody listens: it is closed.
            self.release(&task);
        }
        for task in wanted {
            if self.copies.contains_key(task) || !self.preparer.has_stores(task) {
                continue;
            }
            let shared = Arc::new(TaskShared::new(task.clone(), Vec::new()));
            self.copies.insert(task.clone(), Arc::clone(&shared));
            let thread = self.thread()?;
            let _ = thread.commands.send(Command::Follow(shared));
            thread.wakeup.wake();
        }
        Ok(())
    }

    /// Lets a copy go. What was let go before is closed when this one comes.
    pub(crate) fn release(&mut self, task: &TaskId) -> Option<Released> {
        self.copies.remove(task);
        let thread = self.thread.as_ref()?;
        let (sender, released) = channel();
        thread
            .commands
            .send(Command::Release(task.clone(), sender))
            .ok()?;
        thread.wakeup.wake();
        Some(released)
    }

    fn thread(&mut self) -> Result<&Handle, SessionEnd> {
        if self.thread.is_none() {
            let preparer = self.preparer;
            let none_left = |error: std::io::Error| SessionEnd::Failed {
                reason: "NoDescriptors",
                message: error.to_string(),
            };
            let wakeup = Arc::new(Wakeup::new().map_err(none_left)?);
            let group = &preparer.outline.application.0;
            let (sender, commands) = channel();
            let thread = StandbyThread {
                preparer,
                commands,
                wakeup: Arc::clone(&wakeup),
                consumer: Consumer::new(
                    preparer.settings,
                    group,
                    Isolation::ReadCommitted,
                    preparer.copy_prefetch_kib(),
                )?,
                copies: Vec::new(),
                flushed: Instant::now(),
            };
            self.scope.spawn(move || thread.run());
            self.thread = Some(Handle {
                commands: sender,
                wakeup,
            });
        }
        self.thread.as_ref().ok_or_else(crate::preparation::panicked)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Without a sender it ends.
        self.commands = channel().0;
        self.wakeup.wake();
    }
}

struct StandbyThread<'env> {
    preparer: &'env Preparer<'env>,
    commands: Receiver<Command>,
    // The copies' queues write to `wakeup` and belong to `consumer`: they go first.
    copies: Vec<Copy>,
    consumer: Consumer,
    wakeup: Arc<Wakeup>,
    flushed: Instant,
}

struct Copy {
    task: Arc<TaskShared>,
    follower: Option<Follower>,
    /// When to begin (again).
    not_before: Instant,
}

impl StandbyThread<'_> {
    fn run(mut self) {
        while self.obey() {
            let mut events = 0;
            for at in 0..self.copies.len() {
                match self.step(at) {
                    Ok(taken) => events += taken,
                    Err(error) => self.set_back(at, &error),
                }
            }
            if self.flushed.elapsed() >= FLUSH_INTERVAL {
                let asked_ms = kafka::now_ms();
                let ends = self.ask_for_ends();
                self.flush(asked_ms, &ends, FlushWait::No);
            }
            if events == 0 {
                // Errors of the connection: the copies fall behind, and say so.
                if let Err(error) = self.consumer.poll(Duration::ZERO) {
                    tracing::debug!(%error, "copies of stores");
                }
                self.wakeup.sleep(IDLE);
            }
        }
        // Whether more was written does not matter any more.
        self.flush(kafka::now_ms(), &Ends::new(), FlushWait::UntilDone);
    }

    /// Does what it was asked for; `false` at the end of the session.
    fn obey(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
                Ok(Command::Follow(task)) => self.copies.push(Copy {
                    task,
                    follower: None,
                    not_before: Instant::now(),
                }),
                Ok(Command::Release(id, sender)) => {
                    let at = self.copies.iter().position(|copy| copy.task.id == id);
                    let follower = at.and_then(|at| self.copies.swap_remove(at).follower);
                    let db = follower.and_then(|follower| match follower.close(&self.consumer) {
                        Ok(db) => Some(db),
                        Err(error) => {
                            tracing::warn!(task = %id, %error, "copy of a store closed");
                            None
                        }
                    });
                    // Without a listener the copy is closed here.
                    let _ = sender.send(db);
                }
            }
        }
    }

    fn step(&mut self, at: usize) -> Result<usize, RestoreError> {
        let Some(copy) = self.copies.get_mut(at) else {
            return Ok(0);
        };
        let Some(follower) = &mut copy.follower else {
            if Instant::now() >= copy.not_before {
                copy.follower = Some(self.preparer.follow(&copy.task, &self.consumer, &self.wakeup)?);
                copy.task.explain(None);
            }
            return Ok(0);
        };
        let step = follower.step()?;
        copy.task
            .lag
            .store(follower.lag(&self.consumer), Ordering::Relaxed);
        // Not before its lag is known.
        copy.task.set_state(TaskState::Standby);
        add(&self.preparer.shared.counters.standby_records, step.records);
        Ok(step.events)
    }

    /// A copy that failed is closed, and begun again later. It keeps nobody from work.
    fn set_back(&mut self, at: usize, error: &RestoreError) {
        let Some(copy) = self.copies.get_mut(at) else {
            return;
        };
        tracing::warn!(task = %copy.task.id, %error, "copy of a store set back");
        copy.task.explain(Some(error.to_string()));
        copy.task.set_state(TaskState::Created);
        copy.not_before = Instant::now() + AGAIN;
        let closed = copy
            .follower
            .take()
            .map(|follower| follower.close(&self.consumer));
        if let Some(Err(error)) = closed {
            tracing::warn!(%error, "copy of a store closed");
        }
    }

    /// Where the changelogs end; nothing when the broker does not say.
    fn ask_for_ends(&self) -> Ends {
        let followers = self.copies.iter().filter_map(|copy| copy.follower.as_ref());
        let places: Vec<_> = followers.flat_map(Follower::places).collect();
        if places.is_empty() {
            return Ends::new();
        }
        let asked = self.preparer.admin.ends(&places, GLANCE);
        asked.unwrap_or_else(|error| {
            tracing::debug!(%error, "copies of stores");
            Ends::new()
        })
    }

    fn flush(&mut self, asked_ms: i64, ends: &Ends, wait: FlushWait) {
        self.flushed = Instant::now();
        for at in 0..self.copies.len() {
            let follower = self.copies.get_mut(at).and_then(|copy| copy.follower.as_mut());
            let flushed = follower.map(|follower| follower.flush(asked_ms, ends, wait));
            if let Some(Err(error)) = flushed {
                self.set_back(at, &error);
            }
        }
    }
}
