//! Preparation of tasks beside the running ones: their positions are read, their stores restored. What comes out is a
//! [`Seed`] for a stream thread.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::Scope;
use std::time::{Duration, Instant};

use kafka::{Admin, Consumer, Isolation, Settings, Wakeup};
use protocol::{Fetched, MemoryBudget, Owner, Phase, TaskId, TaskState, World};

use crate::follower::Follower;
use crate::recovery::{Recovered, recover};
use crate::restore::{ChangelogReader, RestoreError, Restorer};
use crate::seed::{Outline, Seed};
use crate::session_end::SessionEnd;
use crate::shared::{Shared, TaskShared, lock};
use crate::standby::Released;
use crate::store::StoreMemory;

/// Between two attempts to prepare tasks that something is in the way of.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// Prepares tasks; shared by all threads that do.
pub(crate) struct Preparer<'a> {
    pub(crate) outline: &'a Outline,
    pub(crate) cluster_id: String,
    pub(crate) settings: &'a Settings,
    pub(crate) admin: &'a Admin,
    /// Sees high watermarks.
    pub(crate) all: &'a Consumer,
    pub(crate) state_dir: &'a Path,
    pub(crate) memory: &'a StoreMemory,
    pub(crate) budget: &'a MemoryBudget,
    pub(crate) shared: &'a Shared,
    /// Tasks restored side by side.
    pub(crate) threads: usize,
}

/// A task to prepare.
struct Order {
    task: Arc<TaskShared>,
    owner: Owner,
    /// Brings the copy of its stores, if there is one.
    copy: Option<Released>,
}

/// Why a task is not ready: what is shown until it is.
pub(crate) type InTheWay = (Phase, &'static str, String);

/// What became of a task.
enum Report {
    Ready(Box<Seed>),
    NotReady(TaskId, SessionEnd),
}

impl Preparer<'_> {
    /// Whether a task has stores.
    pub(crate) fn has_stores(&self, task: &TaskId) -> bool {
        let sub = self.outline.sub_topology(task);
        sub.is_ok_and(|(_, sub)| !sub.stores.is_empty())
    }

    /// Begins a copy of a task's stores.
    pub(crate) fn follow(
        &self,
        task: &Arc<TaskShared>,
        consumer: &Consumer,
        wakeup: &Wakeup,
    ) -> Result<Follower, RestoreError> {
        // Only tasks of the plan have stores to follow.
        let unknown = |_| RestoreError::Missing(task.id.to_string());
        let (_, sub) = self.outline.sub_topology(&task.id).map_err(unknown)?;
        let (db, tails) = self.restorer().open_copy(sub, task)?;
        Follower::new(db, tails, consumer, wakeup)
    }

    /// What a copy may fetch ahead per changelog partition.
    pub(crate) fn copy_prefetch_kib(&self) -> u32 {
        self.budget
            .prefetch_kib(Fetched::Copies, self.outline.changelogs())
    }

    fn restorer(&self) -> Restorer<'_> {
        Restorer {
            application: &self.outline.application,
            cluster_id: &self.cluster_id,
            settings: self.settings,
            admin: self.admin,
            all: self.all,
            state_dir: self.state_dir,
            memory: self.memory,
            prefetch_kib: self.budget.prefetch_kib(Fetched::Restores, self.threads),
            shared: self.shared,
        }
    }

    fn prepare(&self, batch: BTreeMap<TaskId, Order>, reports: &Sender<Report>) {
        let report = |task: &TaskId, outcome: Result<Seed, SessionEnd>| {
            let report = match outcome {
                Ok(seed) => Report::Ready(Box::new(seed)),
                Err(why) => Report::NotReady(task.clone(), why),
            };
            // Nobody listens any more when the session has ended.
            let _ = reports.send(report);
        };
        let recovered = match self.recover(&batch) {
            Ok(recovered) => recovered,
            Err(why) => return batch.keys().for_each(|task| report(task, Err(why.clone()))),
        };
        let started = Instant::now();
        let (stateful, stateless): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|(id, _)| self.has_stores(id));
        let one = |reader: &mut Option<ChangelogReader>, (id, order): (TaskId, Order)| {
            let outcome = catch_unwind(AssertUnwindSafe(|| self.seed(order, recovered.get(&id), reader)));
            report(&id, outcome.unwrap_or_else(|_| Err(panicked())));
        };
        stateless.into_iter().for_each(|task| one(&mut None, task));
        if stateful.is_empty() {
            return;
        }
        let stores = stateful.len();
        let queue = Mutex::new(stateful.into_iter());
        let next = || lock(&queue).next();
        std::thread::scope(|scope| {
            for _ in 0..self.threads.clamp(1, stores) {
                scope.spawn(|| {
                    let mut reader = None;
                    std::iter::from_fn(next).for_each(|task| one(&mut reader, task));
                });
            }
        });
        tracing::info!(stores, elapsed = ?started.elapsed(), "stores restored");
    }

    fn seed(
        &self,
        order: Order,
        recovered: Option<&Recovered>,
        reader: &mut Option<ChangelogReader>,
    ) -> Result<Seed, SessionEnd> {
        let Order { task, owner, copy } = order;
        let (_, sub) = self.outline.sub_topology(&task.id)?;
        // What is recovered is what was asked for.
        let recovered = recovered.ok_or_else(panicked)?;
        let db = if sub.stores.is_empty() {
            None
        } else {
            // A sender that is gone had none.
            let copy = copy.and_then(|copy| copy.recv().ok().flatten());
            let restorer = self.restorer();
            let used = match reader.take() {
                Some(reader) => reader,
                None => restorer.reader()?,
            };
            let db = restorer.restore(sub, &recovered.positions, &task, copy, &used)?;
            *reader = Some(used);
            Some(db)
        };
        self.outline.seed(&task, recovered, owner, db)
    }

    fn recover(&self, batch: &BTreeMap<TaskId, Order>) -> Result<BTreeMap<TaskId, Recovered>, SessionEnd> {
        let application = &self.outline.application;
        let committed = Consumer::new(self.settings, &application.0, Isolation::ReadCommitted, 1024)?;
        let owners = batch
            .iter()
            .map(|(id, order)| (id.clone(), order.owner))
            .collect();
        Ok(recover(self.outline, &owners, &committed, self.all)?)
    }
}

/// The tasks of a session that are not given to a thread yet.
pub(crate) struct Preparation<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    preparer: &'env Preparer<'env>,
    sender: Sender<Report>,
    receiver: Receiver<Report>,
    under_way: BTreeMap<TaskId, Arc<TaskShared>>,
    /// Why the last attempt did not succeed, by task.
    in_the_way: BTreeMap<TaskId, InTheWay>,
    not_before: Instant,
    wait: Duration,
}

impl<'scope, 'env> Preparation<'scope, 'env> {
    pub(crate) fn new(scope: &'scope Scope<'scope, 'env>, preparer: &'env Preparer<'env>) -> Self {
        let (sender, receiver) = channel();
        Self {
            scope,
            preparer,
            sender,
            receiver,
            under_way: BTreeMap::new(),
            in_the_way: BTreeMap::new(),
            not_before: Instant::now(),
            wait: AGAIN.0,
        }
    }

    /// Tasks that will become ready, unless they are given up.
    pub(crate) fn tasks(&self) -> BTreeSet<TaskId> {
        let wanted = self.under_way.iter().filter(|(_, task)| !task.is_given_up());
        wanted.map(|(id, _)| id.clone()).collect()
    }

    /// Their facts for the outside.
    pub(crate) fn shared(&self) -> impl Iterator<Item = &Arc<TaskShared>> {
        self.under_way.values()
    }

    /// Whether the task's stores may be open here, though it may be given up.
    pub(crate) fn occupies(&self, task: &TaskId) -> bool {
        self.under_way.contains_key(task)
    }

    /// Whether a store is being restored.
    pub(crate) fn restores(&self) -> bool {
        self.shared().any(|task| task.state() == TaskState::Restoring)
    }

    /// What is in the way of a task, if anything is.
    pub(crate) fn in_the_way(&self) -> Option<&InTheWay> {
        self.in_the_way.values().next()
    }

    /// Begins to prepare tasks, unless an attempt failed just now.
    pub(crate) fn begin(
        &mut self,
        mut tasks: BTreeMap<TaskId, Owner>,
        world: &World,
        mut copy: impl FnMut(&TaskId) -> Option<Released>,
    ) {
        // One that was given up is taken again when its first preparation has ended.
        tasks.retain(|id, _| !self.under_way.contains_key(id));
        self.in_the_way
            .retain(|id, _| tasks.contains_key(id) || self.under_way.contains_key(id));
        if tasks.is_empty() || Instant::now() < self.not_before {
            return;
        }
        let mut batch = BTreeMap::new();
        for (id, owner) in tasks {
            let skipped = self.preparer.outline.skipped(world, &id);
            let task = Arc::new(TaskShared::new(id.clone(), skipped));
            self.under_way.insert(id.clone(), Arc::clone(&task));
            let copy = copy(&id);
            batch.insert(id, Order { task, owner, copy });
        }
        let (preparer, reports) = (self.preparer, self.sender.clone());
        self.scope.spawn(move || preparer.prepare(batch, &reports));
    }

    /// Gives tasks up; those under way end as soon as they can.
    pub(crate) fn give_up(&mut self, tasks: &BTreeSet<TaskId>) {
        for (id, task) in &self.under_way {
            if tasks.contains(id) {
                task.give_up();
            }
        }
    }

    /// Takes what became ready. An error that no other attempt can mend ends the session.
    pub(crate) fn ready(&mut self) -> Result<Vec<Seed>, SessionEnd> {
        let mut seeds = Vec::new();
        while let Ok(report) = self.receiver.try_recv() {
            match report {
                Report::Ready(seed) => {
                    let id = &seed.shared.id;
                    self.under_way.remove(id);
                    self.in_the_way.remove(id);
                    self.wait = AGAIN.0;
                    if !seed.shared.is_given_up() {
                        seeds.push(*seed);
                    }
                }
                Report::NotReady(id, why) => {
                    let given_up = self.under_way.remove(&id).is_some_and(|task| task.is_given_up());
                    if given_up {
                        continue;
                    }
                    match why {
                        SessionEnd::Wait {
                            phase,
                            reason,
                            message,
                        } => {
                            self.in_the_way.insert(id, (phase, reason, message));
                            if Instant::now() >= self.not_before {
                                self.not_before = Instant::now() + self.wait;
                                self.wait = (self.wait * 2).min(AGAIN.1);
                            }
                        }
                        end @ (SessionEnd::Drained
                        | SessionEnd::Superseded(_)
                        | SessionEnd::Restart
                        | SessionEnd::Failed { .. }) => return Err(end),
                    }
                }
            }
        }
        Ok(seeds)
    }
}

pub(crate) fn panicked() -> SessionEnd {
    SessionEnd::Failed {
        reason: "Panic",
        message: "a thread of the worker panicked; see its log".to_owned(),
    }
}
