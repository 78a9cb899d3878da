//! Seeded simulation: simulated time, broker and volumes; workers of several ordinals that run the real engine, acquisition, handover
//! and rules for stores; operators that run the real placement; faults at every call. A seed reproduces a run.
//!
//! A thread of a process is a future that pauses before and after each call, so that the schedule can let others act, lose the
//! request or the answer, or kill the process there. What must hold is in [`judge`]; that it would be seen if it did not
//! is shown by [`Mutant`]s.

mod app;
mod broker;
mod client;
mod host;
mod judge;
mod operator;
mod restore;
#[cfg(test)]
mod tests;
mod thread;
mod volume;
mod worker;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{AddAssign, Range};
use std::rc::Rc;
use std::sync::Arc;

use protocol::{Guarantee, Ordinal, TOMBSTONE_RETENTION_MS, TaskId, Uid};
use serde::Serialize;

pub use app::{App, Sums};
use app::{PARTITIONS, Topic, order};
use broker::{Broker, Isolation};
use client::Sim;
use host::Host;
use judge::Judge;
use operator::{Cluster, Operator};
use volume::Volume;
use worker::Worker;

use crate::random::Random;

/// Orders of a run.
const ORDERS: i64 = 40;
/// Steps with faults.
const FAULTY_STEPS: u64 = 10_000;
/// One step in so many brings a fault, or what a broker or a person does by itself.
const FAULT: usize = 4;
/// One step in so many brings an order.
const ORDER: usize = 160;
/// Steps without faults within which everything must be done.
const QUIET_STEPS: u64 = 60_000;
/// Ticks that tombstones live.
const TOMBSTONE_TICKS: i64 = 4_000;
/// Most workers of an application.
pub(crate) const MOST_WORKERS: u32 = 3;
/// Most threads of a worker.
pub(crate) const MOST_THREADS: u32 = 2;
/// A kind of faults, with its share of 3,000.
type Kind = (Range<usize>, fn(&mut Simulation));
const FAULTS: [Kind; 10] = [
    (0..20, Simulation::kill),
    (20..26, Simulation::twin),
    (26..36, Simulation::terminate),
    (36..44, Simulation::kill_operator),
    (44..48, Simulation::start_operator),
    (48..72, Simulation::scale),
    (72..76, Simulation::leap),
    (76..77, Simulation::expire_offsets),
    (77..78, Simulation::lose_control_log),
    (78..110, Simulation::stop),
];
/// In the quiet end each session may be fenced by what was under way, and by operators that do not wait.
const QUIET_FENCES: u64 = 30;

/// Per ordinal how far its copies are behind, in changelog offsets.
type Reports = Rc<RefCell<BTreeMap<Ordinal, BTreeMap<TaskId, i64>>>>;

/// A deliberate mistake; the simulation must catch each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mutant {
    /// None: the protocol as it is.
    #[default]
    Faithful,
    /// Positions are read before the producers are initialised.
    ReadsPositionsBeforeInit,
    /// A commit without an answer is taken for an abort, and the producer is kept.
    TakesTimeoutForAbort,
    /// The producer is kept although a request may still be under way.
    KeepsProducerInDoubt,
    /// The store is written before the broker has committed.
    AppliesBeforeCommit,
    /// A successor is ignored.
    NeverLeaves,
    /// A restore ends where committed readers end, not at the high watermark.
    RestoresToWhatIsStable,
    /// A store is continued however old it is.
    KeepsOldStores,
    /// The changelog's end is noted as contained when its records are sent, not when they are applied.
    NotesWhatIsSent,
    /// Tasks are said to be given up while they run.
    AdoptsWhileItRuns,
    /// Tasks are started before their earlier owners have given them up.
    StartsUnsettled,
    /// Records that a snapshot does not hold are deleted with those before it.
    ShortensWithoutLooking,
    /// The end of a changelog is noted as contained without a commit after it was asked for.
    NotesWithoutCommit,
    /// Copies and restores go on however long they stood still.
    FollowsAtAnyAge,
    /// They look at their age before they read, and not at what they have read.
    LooksAtAgeBeforeReading,
    /// A new control log is begun while those who followed the lost one may still commit.
    StartsOverWithoutFencing,
    /// A thread goes on with a store that could not be written.
    IgnoresFailedWrites,
    /// An operator takes the record that came first for its own.
    TakesOthersRecords,
}

/// What more a run may have: each makes others rare, so none has all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaning {
    Nothing,
    /// Calls of stores fail.
    Stores,
    /// Operators that do not fence each other.
    Rivals,
}

impl Leaning {
    fn of(seed: u64) -> Self {
        match seed % 7 {
            1 => Self::Stores,
            6 => Self::Rivals,
            _ => Self::Nothing,
        }
    }
}

/// A broken promise, with what is needed to see it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The seed.
    pub seed: u64,
    /// The step.
    pub step: u64,
    /// What is wrong.
    pub what: String,
}

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Steps.
    pub steps: u64,
    /// Results that committed readers saw.
    pub results: u64,
    /// Committed transactions of workers.
    pub commits: u64,
    /// Acquisitions that were granted.
    pub acquisitions: u64,
    /// Times that tasks were committed and closed for another worker.
    pub handovers: u64,
    /// Tasks that began with a copy of their store.
    pub promotions: u64,
    /// Ordinals fenced by operators.
    pub fencings: u64,
    /// Producers that found themselves fenced.
    pub fences: u64,
    /// Operator records that were ignored since another came first.
    pub stale_records: u64,
    /// Times that the control log was replaced by a snapshot.
    pub snapshots: u64,
    /// Processes that stood still for some time.
    pub stops: u64,
    /// Times that the control log was lost.
    pub lost_logs: u64,
    /// Records read back from changelogs.
    pub restored: u64,
    /// Stores rebuilt because tombstones may have been gone.
    pub store_wipes: u64,
    /// Tasks that waited for a person.
    pub holds: u64,
    /// Workers killed.
    pub kills: u64,
    /// Of these: with their volume.
    pub lost_volumes: u64,
    /// Of these: an older volume came back.
    pub old_volumes: u64,
    /// Workers that had a second process beside them.
    pub twins: u64,
    /// Workers that were asked to end.
    pub drains: u64,
    /// Operators killed.
    pub operator_kills: u64,
    /// Changes of the number of workers.
    pub scalings: u64,
    /// Requests or answers lost.
    pub lost_calls: u64,
    /// Requests that arrived late.
    pub late_requests: u64,
    /// Transactions that the broker ended.
    pub timeouts: u64,
    /// Leaps of the clock.
    pub leaps: u64,
    /// Times that the group's offsets were lost.
    pub lost_offsets: u64,
    /// Calls of stores that failed.
    pub store_failures: u64,
}

impl Figures {
    /// Faults of all kinds.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.kills
            + self.twins
            + self.drains
            + self.stops
            + self.lost_logs
            + self.operator_kills
            + self.lost_calls
            + self.late_requests
            + self.timeouts
            + self.leaps
            + self.lost_offsets
            + self.store_failures
    }
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.results += other.results;
        self.commits += other.commits;
        self.acquisitions += other.acquisitions;
        self.handovers += other.handovers;
        self.promotions += other.promotions;
        self.fencings += other.fencings;
        self.fences += other.fences;
        self.stale_records += other.stale_records;
        self.snapshots += other.snapshots;
        self.stops += other.stops;
        self.lost_logs += other.lost_logs;
        self.restored += other.restored;
        self.store_wipes += other.store_wipes;
        self.holds += other.holds;
        self.kills += other.kills;
        self.lost_volumes += other.lost_volumes;
        self.old_volumes += other.old_volumes;
        self.twins += other.twins;
        self.drains += other.drains;
        self.operator_kills += other.operator_kills;
        self.scalings += other.scalings;
        self.lost_calls += other.lost_calls;
        self.late_requests += other.late_requests;
        self.timeouts += other.timeouts;
        self.leaps += other.leaps;
        self.lost_offsets += other.lost_offsets;
        self.store_failures += other.store_failures;
    }
}

impl Sim {
    /// Simulated milliseconds.
    pub(crate) fn now_ms(&self) -> i64 {
        self.broker.borrow().now * (TOMBSTONE_RETENTION_MS / TOMBSTONE_TICKS)
    }
}

struct Pod {
    ordinal: u32,
    uid: Uid,
    host: Host,
    volume: Rc<RefCell<Volume>>,
    terminated: Rc<Cell<bool>>,
    /// Another pod of the ordinal was started beside it.
    is_replaced: bool,
    /// Until this step it does nothing.
    stopped_until: u64,
}

/// One run.
pub struct Simulation {
    seed: u64,
    sim: Rc<Sim>,
    cluster: Cluster,
    guarantee: Guarantee,
    pods: Vec<Pod>,
    operators: Vec<Host>,
    /// Begins a new control log.
    person: Option<Host>,
    /// Volumes without a pod.
    volumes: BTreeMap<u32, Volume>,
    /// Older copies of volumes.
    old_volumes: BTreeMap<u32, Volume>,
    judge: Judge,
    /// Which of [`FAULTS`] there are, as bits.
    kinds: usize,
    /// One step in so many writes a marker.
    markers: usize,
    born: u64,
    orders: i64,
    step: u64,
}

impl Simulation {
    /// Prepares the run of a seed.
    #[must_use]
    pub fn new(app: &Arc<App>, seed: u64, mutant: Mutant) -> Self {
        let mut random = Random::new(seed);
        let guarantee = if random.once_in(4) {
            Guarantee::AtLeastOnce
        } else {
            Guarantee::ExactlyOnceV2
        };
        let standbys = u32::from(random.once_in(2));
        let markers = [3, 3, 30, 200][random.below(4)];
        let kinds = random.below(1 << FAULTS.len());
        let replicas = 1 + u32::try_from(random.below(MOST_WORKERS as usize)).unwrap_or(0);
        let cluster = Cluster {
            replicas: Rc::new(Cell::new(replicas)),
            standbys,
            alive: Rc::default(),
            gone: Rc::default(),
            reports: Rc::default(),
        };
        let sim = Rc::new(Sim {
            app: Arc::clone(app),
            mutant,
            broker: RefCell::new(Broker::default()),
            random: RefCell::new(random),
            figures: RefCell::default(),
            faults: Cell::new(true),
            leaning: Leaning::of(seed),
            repeats_control: seed.is_multiple_of(3),
            broken: RefCell::new(None),
        });
        Self {
            seed,
            sim,
            cluster,
            guarantee,
            pods: Vec::new(),
            operators: Vec::new(),
            person: None,
            volumes: BTreeMap::new(),
            old_volumes: BTreeMap::new(),
            judge: Judge::new(app.sums, guarantee, ORDERS),
            kinds,
            markers,
            born: 0,
            orders: 0,
            step: 0,
        }
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The first [`Violation`].
    pub fn run(mut self) -> Result<Figures, Violation> {
        while self.step < FAULTY_STEPS {
            if self.sim.once_in(FAULT) {
                self.fault();
            }
            self.turn()?;
        }
        self.quiet_down();
        let mut fences = self.sim.figures.borrow().fences;
        while !self.is_finished() {
            // Who begins a new control log fences everybody.
            if self.person.is_some() {
                fences = self.sim.figures.borrow().fences;
            }
            if self.step > FAULTY_STEPS + QUIET_STEPS {
                return Err(self.violation(format!("stuck: {}", self.judge.progress())));
            }
            if self.sim.once_in(20) {
                self.restore_offsets();
            }
            self.turn()?;
        }
        let fences = self.sim.figures.borrow().fences - fences;
        if fences > QUIET_FENCES {
            return Err(self.violation(format!("G4: {fences} fences without faults")));
        }
        self.judge_stores()?;
        let mut figures = *self.sim.figures.borrow();
        figures.steps = self.step;
        figures.results = self.judge.results();
        Ok(figures)
    }

    fn violation(&self, what: String) -> Violation {
        Violation {
            seed: self.seed,
            step: self.step,
            what,
        }
    }

    fn below(&self, n: usize) -> usize {
        self.sim.random.borrow_mut().below(n)
    }

    /// Somebody does his next step; what has become visible is judged.
    fn turn(&mut self) -> Result<(), Violation> {
        self.step += 1;
        self.keep_pods();
        let sim = Rc::clone(&self.sim);
        sim.broker.borrow_mut().now += 1;
        if self.orders < ORDERS && sim.once_in(ORDER) {
            let (partition, record) = order(self.orders);
            let _ = sim.broker.borrow_mut().append((Topic::Orders, partition), record);
            self.orders += 1;
        }
        if sim.once_in(16) {
            let ended = sim.broker.borrow_mut().time_out();
            sim.count(|figures| figures.timeouts += u64::try_from(ended).unwrap_or(0));
        }
        if sim.once_in(self.markers) {
            let ending = sim.broker.borrow().ending();
            if !ending.is_empty() {
                let id = &ending[self.below(ending.len())];
                let choose = |n| sim.random.borrow_mut().below(n);
                sim.broker.borrow_mut().write_marker(id, choose);
            }
        }
        let awake = self.pods.iter_mut().filter(|pod| pod.stopped_until <= self.step);
        let hosts = awake.map(|pod| &mut pod.host);
        let mut hosts: Vec<_> = hosts.chain(&mut self.operators).chain(&mut self.person).collect();
        let choose = |n| sim.random.borrow_mut().below(n);
        let which = choose(hosts.len());
        if let Some(host) = hosts.get_mut(which) {
            host.step(choose);
        }
        self.person.take_if(|person| person.has_ended());
        let broken = sim.broken.borrow().clone();
        if let Some(what) = broken {
            return Err(self.violation(what));
        }
        let judged = self.judge.look(&sim.broker.borrow());
        judged.map_err(|what| self.violation(what))
    }

    /// As a StatefulSet: one pod per ordinal, on its volume. Pods that ended are started again.
    fn keep_pods(&mut self) {
        let ended = self
            .pods
            .extract_if(.., |pod| pod.host.has_ended())
            .collect::<Vec<_>>();
        for pod in ended {
            self.bury(pod.uid);
            if !pod.is_replaced {
                self.volumes.insert(pod.ordinal, pod.volume.borrow().crashed());
            }
        }
        for ordinal in 0..self.cluster.replicas.get() {
            if !self.has_pod(ordinal) {
                let volume = self.volumes.remove(&ordinal).unwrap_or_default();
                self.start(ordinal, volume);
            }
        }
        let rivals = self.sim.leaning == Leaning::Rivals && self.sim.faults.get();
        while self.operators.len() < 1 + usize::from(rivals) {
            self.start_operator();
        }
    }

    fn has_pod(&self, ordinal: u32) -> bool {
        self.pods
            .iter()
            .any(|pod| pod.ordinal == ordinal && !pod.is_replaced)
    }

    fn bury(&mut self, uid: Uid) {
        self.cluster.gone.borrow_mut().push(uid);
        self.note_alive();
    }

    fn note_alive(&self) {
        let alive: BTreeSet<_> = self.pods.iter().map(|pod| Ordinal(pod.ordinal)).collect();
        *self.cluster.alive.borrow_mut() = alive;
    }

    fn start(&mut self, ordinal: u32, volume: Volume) {
        self.born += 1;
        let uid = Uid(format!("p{}", self.born));
        let volume = Rc::new(RefCell::new(volume));
        let terminated = Rc::new(Cell::new(false));
        let threads = 1 + u32::from(self.sim.once_in(2));
        let worker = |spawner| Worker {
            sim: Rc::clone(&self.sim),
            spawner,
            ordinal: Ordinal(ordinal),
            uid: uid.clone(),
            threads,
            guarantee: self.guarantee,
            volume: Rc::clone(&volume),
            terminated: Rc::clone(&terminated),
            reports: Rc::clone(&self.cluster.reports),
        };
        let host = Host::new(|spawner| worker(spawner).run());
        self.pods.push(Pod {
            ordinal,
            uid,
            host,
            volume,
            terminated,
            is_replaced: false,
            stopped_until: 0,
        });
        self.note_alive();
    }

    fn start_operator(&mut self) {
        self.born += 1;
        let operator = Operator {
            sim: Rc::clone(&self.sim),
            own_id: (self.sim.leaning == Leaning::Rivals).then_some(self.born),
            cluster: self.cluster.clone(),
        };
        self.operators.push(Host::new(|_| operator.run()));
    }

    fn fault(&mut self) {
        let which = self.below(3_000);
        if let Some(kind) = FAULTS.iter().position(|(share, _)| share.contains(&which)) {
            // A run has only some kinds of faults, so that each kind also meets what others would have prevented (swarm testing,
            // Groce et al., ISSTA 2012).
            if self.kinds & (1 << kind) != 0 {
                (FAULTS[kind].1)(self);
            }
            return;
        }
        match which {
            200..230 => self.restore_offsets(),
            230..440 => {
                let mut broker = self.sim.broker.borrow_mut();
                let which = self.sim.random.borrow_mut().below(broker.late_requests());
                broker.deliver(which);
            }
            440..500 => self.compact(),
            // RocksDB writes memtables when it likes.
            500..560 => self.flush_something(),
            _ => {}
        }
    }

    /// Time passes in which tombstones may go.
    fn age(&mut self) {
        self.compact();
        self.leap();
        self.compact();
    }

    fn expire_offsets(&mut self) {
        self.sim.count(|figures| figures.lost_offsets += 1);
        self.sim.broker.borrow_mut().expire_group();
    }

    fn compact(&self) {
        let mut broker = self.sim.broker.borrow_mut();
        for partition in 0..2 * PARTITIONS {
            broker.compact((Topic::Positions, partition), TOMBSTONE_TICKS);
            broker.compact((Topic::Changelog, partition), TOMBSTONE_TICKS);
        }
    }

    /// SIGSTOP, or a machine that stalls or sleeps: it goes on some time later, and knows nothing of what came meanwhile.
    fn stop(&mut self) {
        if self.pods.is_empty() {
            return;
        }
        self.sim.count(|figures| figures.stops += 1);
        let (which, ticks) = (self.below(self.pods.len()), self.below(3_000));
        self.pods[which].stopped_until = self.step + u64::try_from(ticks).unwrap_or(0);
        if self.sim.once_in(4) {
            self.age();
        }
    }

    /// It is deleted, maybe while a worker stands still and another number of workers is wanted; a person begins another
    /// one. A person may give up in the middle, too, and begin again.
    fn lose_control_log(&mut self) {
        if self.sim.once_in(2) {
            self.stop();
        }
        if self.sim.once_in(2) {
            self.scale();
        }
        self.sim.count(|figures| figures.lost_logs += 1);
        self.sim.broker.borrow_mut().lose_control();
        let sim = Rc::clone(&self.sim);
        self.person = Some(Host::new(|_| operator::start_over(sim)));
    }

    /// kill -9: what comes back is the volume, none, or an older copy of it.
    fn kill(&mut self) {
        if self.pods.is_empty() {
            return;
        }
        let Pod {
            ordinal,
            uid,
            host,
            volume,
            is_replaced,
            ..
        } = self.pods.swap_remove(self.below(self.pods.len()));
        drop(host);
        self.sim.count(|figures| figures.kills += 1);
        self.bury(uid);
        if is_replaced {
            return;
        }
        let crashed = volume.borrow().crashed();
        let old = self.old_volumes.remove(&ordinal);
        let back = match (self.below(8), old) {
            (0, old) => {
                self.sim.count(|figures| figures.lost_volumes += 1);
                self.old_volumes.extend(old.map(|old| (ordinal, old)));
                Volume::default()
            }
            (1 | 2, Some(old)) => {
                self.sim.count(|figures| figures.old_volumes += 1);
                // Long enough for tombstones to go that it has not seen.
                self.age();
                old
            }
            (_, old) => {
                let old = old.filter(|_| self.sim.once_in(2));
                let old = old.unwrap_or_else(|| crashed.crashed());
                self.old_volumes.insert(ordinal, old);
                crashed
            }
        };
        self.volumes.insert(ordinal, back);
    }

    /// A second process of an ordinal while the first one goes on, as on a node that was cut off.
    fn twin(&mut self) {
        if self.pods.is_empty() {
            return;
        }
        let which = self.below(self.pods.len());
        let pod = &mut self.pods[which];
        if std::mem::replace(&mut pod.is_replaced, true) {
            return;
        }
        self.sim.count(|figures| figures.twins += 1);
        let (ordinal, volume) = (pod.ordinal, pod.volume.borrow().crashed());
        self.start(ordinal, volume);
    }

    fn terminate(&mut self) {
        if self.pods.is_empty() {
            return;
        }
        self.sim.count(|figures| figures.drains += 1);
        let which = self.below(self.pods.len());
        self.pods[which].terminated.set(true);
    }

    fn kill_operator(&mut self) {
        if self.operators.is_empty() {
            return;
        }
        self.sim.count(|figures| figures.operator_kills += 1);
        let which = self.below(self.operators.len());
        drop(self.operators.swap_remove(which));
    }

    fn scale(&mut self) {
        let replicas = 1 + u32::try_from(self.below(MOST_WORKERS as usize)).unwrap_or(0);
        if self.cluster.replicas.replace(replicas) != replicas {
            self.sim.count(|figures| figures.scalings += 1);
        }
        // Pods beyond it are asked to end, sooner or later.
        for pod in &self.pods {
            if pod.ordinal >= replicas && self.sim.once_in(2) {
                pod.terminated.set(true);
            }
        }
    }

    fn leap(&mut self) {
        self.sim.count(|figures| figures.leaps += 1);
        let ticks = i64::try_from(self.below(8_000)).unwrap_or(0);
        self.sim.broker.borrow_mut().now += ticks;
    }

    fn flush_something(&mut self) {
        if self.pods.is_empty() {
            return;
        }
        let volume = self.pods[self.below(self.pods.len())].volume.borrow();
        for (_, db) in volume.stores() {
            db.borrow_mut().flush();
        }
    }

    /// What a person does about lost offsets: the group gets the positions again, where nothing is under way.
    fn restore_offsets(&self) {
        let mut broker = self.sim.broker.borrow_mut();
        for partition in 0..2 * PARTITIONS {
            let place = (Topic::Positions, partition);
            let (_, end) = broker.watermarks(place);
            if broker.last_stable(place) < end {
                continue;
            }
            let all = broker.fetch(place, 0, usize::MAX, Isolation::Committed).records;
            let last = all.last().and_then(|(_, record)| record.value.as_deref());
            let positions = last.and_then(|value| serde_json::from_slice::<protocol::Positions>(value).ok());
            for input in positions.into_iter().flat_map(|positions| positions.inputs) {
                let input_place = (self.sim.app.topic(&input.topic), input.partition);
                if broker
                    .group_offset(input_place)
                    .is_some_and(|mirror| mirror != Some(input.offset))
                {
                    broker.commit_offset(input_place, input.offset);
                }
            }
        }
    }

    /// No more faults: the last number of workers stands, whatever is beyond it is killed.
    fn quiet_down(&mut self) {
        self.sim.faults.set(false);
        let replicas = self.cluster.replicas.get();
        let beyond = self
            .pods
            .extract_if(.., |pod| pod.ordinal >= replicas)
            .collect::<Vec<_>>();
        for pod in beyond {
            self.bury(pod.uid);
        }
        self.operators.truncate(1);
        self.pods.iter_mut().for_each(|pod| pod.stopped_until = 0);
    }

    fn is_finished(&self) -> bool {
        self.orders == ORDERS
            && self.person.is_none()
            && self.judge.is_complete()
            && self.pods.iter().all(|pod| !pod.is_replaced)
            && self.sim.app.tasks.iter().all(|task| self.is_caught_up(task))
            && self.sim.broker.borrow().ending().is_empty()
            && self.owned_stores().len() == usize::try_from(PARTITIONS).unwrap_or(0)
    }

    /// Whether everything of a task's inputs is committed.
    fn is_caught_up(&self, task: &TaskId) -> bool {
        let inputs = self.judge.inputs(task);
        inputs.is_some_and(|inputs| {
            inputs.iter().all(|input| {
                let place = (self.sim.app.topic(&input.topic), input.partition);
                self.sim.broker.borrow().watermarks(place).1 == input.offset
            })
        })
    }

    /// The stores of tasks that have applied everything that is committed.
    fn owned_stores(&self) -> Vec<(i32, volume::Image)> {
        let mut found = Vec::new();
        for pod in &self.pods {
            for (task, db) in pod.volume.borrow().stores() {
                let image = &db.borrow().memory;
                let applied = image.positions.task.as_ref();
                let transaction = applied.map_or(0, |positions| positions.transaction);
                if transaction > 0 && self.judge.transactions(task) == transaction {
                    found.push((task.partition, image.clone()));
                }
            }
        }
        found.sort_by_key(|(partition, _)| *partition);
        found.dedup_by_key(|(partition, _)| *partition);
        found
    }

    fn judge_stores(&self) -> Result<(), Violation> {
        let broker = self.sim.broker.borrow();
        for (partition, image) in self.owned_stores() {
            let judged = self.judge.state(&broker, partition, &image);
            judged.map_err(|what| self.violation(what))?;
        }
        Ok(())
    }
}
