//! An operator: claims the application, assigns its tasks to the wanted number of workers, and fences ordinals that do
//! not give up what they owe. Several may run at a time.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use protocol::{
    Ordinal, Phase, Record, TaskId, TaskState, TaskStatus, Totals, Uid, Wanted, WarmUp, WorkerStatus, World,
};

use super::app::PARTITIONS;
use super::broker::Broker;
use super::client::{CONTROL, ControlLog, Lost, Producer, Sim, control, pause};
use super::{MOST_THREADS, MOST_WORKERS, Mutant, Reports};

/// Offsets after which the control log is replaced by a snapshot.
const LONG: i64 = 40;

/// What operators see of the world beside the control log.
#[derive(Clone)]
pub(crate) struct Cluster {
    /// Workers that there should be.
    pub(crate) replicas: Rc<Cell<u32>>,
    pub(crate) standbys: u32,
    /// Ordinals with a live pod.
    pub(crate) alive: Rc<std::cell::RefCell<BTreeSet<Ordinal>>>,
    /// Processes whose pod is gone.
    pub(crate) gone: Rc<std::cell::RefCell<Vec<Uid>>>,
    pub(crate) reports: Reports,
}

/// An operator process.
pub(crate) struct Operator {
    pub(crate) sim: Rc<Sim>,
    /// Of one that no other operator fences.
    pub(crate) own_id: Option<u64>,
    pub(crate) cluster: Cluster,
}

/// An operator with the right to write.
struct Log {
    control: ControlLog,
    producer: Producer,
}

impl Operator {
    /// Runs for ever.
    pub(crate) async fn run(self) {
        loop {
            let Ok(mut log) = self.open().await else {
                pause().await;
                continue;
            };
            while self.look(&mut log).await.is_ok() {
                pause().await;
            }
        }
    }

    async fn open(&self) -> Result<Log, ()> {
        let mut id = self.sim.app.id.operator_transactional_id();
        if let Some(own) = self.own_id {
            id = format!("{id}-{own}");
        }
        let producer = Producer::init(&self.sim, id).await.map_err(drop)?;
        Log::open(&self.sim, producer).await.ok_or(())
    }

    /// Does one thing that is to be done.
    async fn look(&self, log: &mut Log) -> Result<(), Lost> {
        log.control.follow().await;
        if log.control.is_behind {
            return Err(Lost::Doubt);
        }
        let world = &log.control.world;
        if world.claim.is_none() {
            return log
                .write(|prev| Record::Claim {
                    prev,
                    cluster: "simulated".to_owned(),
                    uid: Uid("app".to_owned()),
                    description: String::new(),
                })
                .await
                .map(drop);
        }
        let placement = self.place(world);
        let owners = world.assignment.as_ref().map(|(_, owners)| owners);
        if owners != Some(&placement.owners) || world.standbys != placement.standbys {
            return log
                .write(|prev| Record::Assignment {
                    prev,
                    owners: placement.owners,
                    standbys: placement.standbys,
                })
                .await
                .map(drop);
        }
        // One that does not give up in time is fenced, too.
        let dead = |ordinal: &Ordinal| !self.cluster.alive.borrow().contains(ordinal) || self.sim.once_in(30);
        if let Some(ordinal) = world.unsettled_ordinals().into_iter().find(dead) {
            return self.fence(log, ordinal).await;
        }
        let gone = self.cluster.gone.borrow_mut().pop();
        if let Some(uid) = gone {
            return log.write(|prev| Record::Retired { prev, uid }).await.map(drop);
        }
        if log.control.length() > LONG {
            log.shorten(&self.sim).await?;
        }
        Ok(())
    }

    fn place(&self, world: &World) -> protocol::Placement {
        let statuses = self.statuses();
        let stateful = self
            .sim
            .app
            .tasks
            .iter()
            .filter(|task| self.sim.app.has_store(task));
        let wanted = Wanted {
            tasks: &self.sim.app.tasks,
            stateful: &stateful.map(|task| task.sub_topology.clone()).collect(),
            workers: self.cluster.replicas.get(),
            standbys: self.cluster.standbys,
            positions: 2 * PARTITIONS,
            warm_up: if self.cluster.standbys > 0 {
                WarmUp::By(&statuses)
            } else {
                WarmUp::No
            },
        };
        wanted.place(world)
    }

    fn statuses(&self) -> BTreeMap<Ordinal, WorkerStatus> {
        let reports = self.cluster.reports.borrow();
        let status = |(ordinal, lags): (&Ordinal, &BTreeMap<TaskId, i64>)| {
            let copy = |(task, lag): (&TaskId, &i64)| TaskStatus {
                id: task.clone(),
                state: TaskState::Standby,
                // What is nearly caught up in a store of five keys.
                lag: if *lag > 4 { i64::MAX } else { *lag },
                restore: None,
                error: None,
            };
            let status = WorkerStatus {
                application_id: self.sim.app.id.0.clone(),
                ordinal: *ordinal,
                uid: Uid(String::new()),
                pid: 0,
                nonce: 0,
                phase: Phase::Running,
                reason: None,
                message: None,
                open_transactions: 0,
                lag: 0,
                totals: Totals::default(),
                tasks: lags.iter().map(copy).collect(),
            };
            (*ordinal, status)
        };
        reports.iter().map(status).collect()
    }

    /// Every id of the ordinal, then the record that says so.
    async fn fence(&self, log: &mut Log, ordinal: Ordinal) -> Result<(), Lost> {
        for thread in 0..log.control.world.threads(ordinal) {
            let id = self.sim.app.id.transactional_id(ordinal, thread);
            Producer::init(&self.sim, id).await.map_err(|_| Lost::Doubt)?;
        }
        self.sim.count(|figures| figures.fencings += 1);
        let assignment = log.control.world.assignment.as_ref().map_or(-1, |(at, _)| *at);
        log.write(|prev| Record::Fenced {
            prev,
            assignment,
            ordinal,
        })
        .await
        .map(drop)
    }
}

/// A person begins a new control log in place of one that was lost.
pub(crate) async fn start_over(sim: Rc<Sim>) {
    sim.call(Broker::lose_control).await;
    let threads =
        || (0..MOST_WORKERS).flat_map(|ordinal| (0..MOST_THREADS).map(move |thread| (ordinal, thread)));
    for (ordinal, thread) in threads() {
        let id = sim.app.id.transactional_id(Ordinal(ordinal), thread);
        while sim.mutant != Mutant::StartsOverWithoutFencing
            && Producer::init(&sim, id.clone()).await.is_err()
        {
            pause().await;
        }
    }
    sim.call(Broker::make_control).await;
    let threads: BTreeMap<_, _> = (0..MOST_WORKERS)
        .map(|ordinal| (Ordinal(ordinal), MOST_THREADS))
        .collect();
    loop {
        let id = sim.app.id.operator_transactional_id();
        if let Ok(producer) = Producer::init(&sim, id).await
            && let Some(mut log) = Log::open(&sim, producer).await
        {
            let threads = threads.clone();
            let written = log.write(|prev| Record::StartedOver { prev, threads }).await;
            if written.is_ok() && log.control.world.started_over {
                return;
            }
        }
        pause().await;
    }
}

impl Log {
    async fn open(sim: &Rc<Sim>, producer: Producer) -> Option<Self> {
        let mut control = ControlLog::open(sim).await;
        let is_read = control.read_to_end().await;
        is_read.then_some(Self { control, producer })
    }

    /// Writes what the log says into it, and deletes what came before, unless a record came in between.
    async fn shorten(&mut self, sim: &Sim) -> Result<(), Lost> {
        let (world, records) = (Box::new(self.control.world.clone()), self.control.records());
        let is_ours = self.write(|prev| Record::Snapshot { prev, world }).await?;
        if let (true, Some(offset)) = (is_ours, self.control.replaces(records)) {
            sim.count(|figures| figures.snapshots += 1);
            sim.call(|broker| broker.delete_records(CONTROL, offset)).await;
        }
        Ok(())
    }

    /// Writes a record that was decided on what was read; `false`: another operator's came first, and it is ignored.
    async fn write(&mut self, decide: impl FnOnce(Option<i64>) -> Record) -> Result<bool, Lost> {
        if self.producer.in_doubt() {
            return Err(Lost::Doubt);
        }
        let before = self.control.world.operator_head;
        let record = control(&decide(before));
        self.producer.send(CONTROL, std::slice::from_ref(&record)).await?;
        self.producer.commit().await?;
        while self.control.world.operator_head == before {
            self.control.follow().await;
            if self.control.is_behind {
                return Err(Lost::Doubt);
            }
        }
        Ok(self.control.is_head(&record))
    }
}
