//! From an assignment to a task that is ready: positions and their mirror are read, the store is brought up to them. Also
//! copies, which follow a changelog for as long as they are wanted.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use protocol::{CannotContinue, ChangelogPosition, InputPosition, Owner, Positions, TaskId, check_mirror};

use super::Mutant;
use super::app::Topic;
use super::broker::{Broker, Isolation, Place};
use super::client::{Sim, pause};
use super::thread::Seed;
use super::volume::{Db, Volume};

/// Id of the only changelog topic.
const TOPIC_ID: &str = "changelog";

/// A task on its way to a thread.
pub(crate) struct Preparation {
    pub(crate) given_up: Cell<bool>,
    pub(crate) outcome: RefCell<Option<Outcome>>,
}

/// What became of it.
pub(crate) enum Outcome {
    Ready(Box<Seed>),
    /// A person has to decide, or it was given up.
    NotReady,
}

/// The last positions and the group's offsets of a task's inputs.
pub(crate) type Found = (Option<Positions>, Vec<Option<i64>>);

/// A task's sub-topology in the plan, and its inputs.
fn outline(sim: &Sim, task: &TaskId) -> (usize, Vec<(String, Place)>) {
    let subs = &sim.app.plan.sub_topologies;
    let sub = subs
        .iter()
        .position(|sub| sub.name == task.sub_topology)
        .unwrap_or(0);
    let inputs = subs[sub].sources.iter().map(|source| {
        let name = source.topic.resolve(&sim.app.id.0);
        let topic = sim.app.topic(&name);
        (name, (topic, task.partition))
    });
    (sub, inputs.collect())
}

/// Names and places of what a task reads.
pub(crate) fn inputs(sim: &Sim, task: &TaskId) -> Vec<(String, Place)> {
    outline(sim, task).1
}

/// The mirror, when no transaction holds it; then the last record of the task's positions partition.
pub(crate) async fn find(sim: &Sim, task: &TaskId, owner: Owner) -> Found {
    let inputs = inputs(sim, task);
    let mirror = loop {
        let offsets = |broker: &mut Broker| {
            let offsets = inputs.iter().map(|(_, place)| broker.group_offset(*place));
            offsets.collect::<Option<Vec<_>>>()
        };
        if let Some(stable) = sim.call(offsets).await {
            break stable;
        }
    };
    let place = (Topic::Positions, owner.positions_partition);
    let (mut at, target) = sim.call(|broker| broker.watermarks(place)).await;
    let mut last = None;
    while at < target {
        let fetched = sim
            .call(|broker| broker.fetch(place, at, 32, Isolation::Committed))
            .await;
        if let Some((_, record)) = fetched.records.last() {
            last = serde_json::from_slice(record.value.as_deref().unwrap_or_default()).ok();
        }
        at = fetched.next;
        pause().await;
    }
    (last, mirror)
}

/// Where the task begins; `None`: a person has to decide.
fn recovered(sim: &Sim, task: &TaskId, (last, mirror): Found) -> Option<Positions> {
    match last {
        Some(positions) => {
            let mut inputs = positions.inputs.iter().zip(mirror);
            inputs
                .all(|(input, mirror)| check_mirror(input, mirror).is_ok())
                .then_some(positions)
        }
        None if mirror.iter().any(Option::is_some) => None,
        None => {
            let begin = |(topic, _)| InputPosition {
                topic,
                topic_id: String::new(),
                partition: task.partition,
                offset: 0,
            };
            let start: Vec<_> = inputs(sim, task).into_iter().map(begin).collect();
            Some(Positions {
                task: task.clone(),
                transaction: 0,
                inputs: start.clone(),
                start,
                stream_time: i64::MIN,
                stores: BTreeMap::new(),
            })
        }
    }
}

/// Prepares a task.
pub(crate) async fn prepare(
    sim: Rc<Sim>,
    volume: Rc<RefCell<Volume>>,
    (task, owner): (TaskId, Owner),
    copy: Option<Copy>,
    early: Option<Found>,
    preparation: Rc<Preparation>,
) {
    let found = match early {
        Some(found) => found,
        None => find(&sim, &task, owner).await,
    };
    let outcome = match recovered(&sim, &task, found) {
        None => {
            sim.count(|figures| figures.holds += 1);
            None
        }
        Some(positions) => {
            let (sub_topology, _) = outline(&sim, &task);
            let has_store = !sim.app.plan.sub_topologies[sub_topology].stores.is_empty();
            let restored = if has_store {
                let copy = match copy {
                    Some(copy) => copy,
                    None => Copy::open(&sim, &volume, &task).await,
                };
                copy.restore(&positions, &preparation.given_up).await.map(Some)
            } else {
                Some(None)
            };
            restored.map(|db| Seed {
                task,
                sub_topology,
                committed: positions,
                positions_partition: owner.positions_partition,
                db,
            })
        }
    };
    let outcome = outcome.map_or(Outcome::NotReady, |seed| Outcome::Ready(Box::new(seed)));
    *preparation.outcome.borrow_mut() = Some(outcome);
}

/// Sets a store aside; an empty one begins.
fn empty(sim: &Sim, volume: &RefCell<Volume>, task: &TaskId) -> Db {
    sim.count(|figures| figures.store_wipes += 1);
    volume.borrow_mut().set_aside(task);
    volume.borrow_mut().open(task)
}

/// A store that reads its changelog.
pub(crate) struct Copy {
    sim: Rc<Sim>,
    db: Db,
    store: String,
    place: Place,
    at: i64,
    /// High watermark when it was opened.
    target: i64,
    /// Nothing was left to read at the last look.
    at_end: bool,
}

impl Copy {
    /// Opens a store. One that cannot be continued is set aside, and an empty one begins.
    pub(crate) async fn open(sim: &Rc<Sim>, volume: &Rc<RefCell<Volume>>, task: &TaskId) -> Self {
        let (sub, _) = outline(sim, task);
        let stores = &sim.app.plan.sub_topologies[sub].stores;
        let store = stores.first().map(|store| store.name.clone()).unwrap_or_default();
        let place = (Topic::Changelog, task.partition);
        let (low, high) = sim.call(|broker| broker.watermarks(place)).await;
        let mut db = volume.borrow_mut().open(task);
        if db.borrow().is_damaged {
            db = empty(sim, volume, task);
        }
        let resume = |db: &Db| {
            let positions = &mut db.borrow_mut().memory.positions;
            positions.resume(&store, TOPIC_ID, (low, high), sim.now_ms())
        };
        let at = match resume(&db) {
            Err(CannotContinue::TooOld { .. }) if sim.mutant == Mutant::KeepsOldStores => {
                let positions = &db.borrow().memory.positions;
                positions.changelogs.get(&store).map_or(low, |known| known.offset)
            }
            Ok(at) => at,
            Err(why) => {
                if !matches!(why, CannotContinue::TooOld { .. }) {
                    sim.break_promise(format!("G2: store of {task} set aside: {why}"));
                }
                db = empty(sim, volume, task);
                resume(&db).unwrap_or(low)
            }
        };
        Self {
            sim: Rc::clone(sim),
            db,
            store,
            place,
            at,
            target: high,
            at_end: false,
        }
    }

    /// Reads what is there; `false` when it has stood still for so long that tombstones may be gone, or the store fails.
    pub(crate) async fn follow(&mut self) -> bool {
        let is_young = || {
            let age = self.db.borrow().memory.positions.check_age(self.sim.now_ms());
            age.is_ok() || self.sim.mutant == Mutant::FollowsAtAnyAge
        };
        let was_young = is_young();
        let (place, at) = (self.place, self.at);
        let fetched = self
            .sim
            .call(|broker| broker.fetch(place, at, 4, Isolation::Committed))
            .await;
        // Only now: it may have stood still before it asked.
        let looked_before = self.sim.mutant == Mutant::LooksAtAgeBeforeReading;
        if !(if looked_before { was_young } else { is_young() }) {
            return false;
        }
        if self.sim.store_fails(&self.db) {
            return false;
        }
        let mut store = self.db.borrow_mut();
        for (_, record) in &fetched.records {
            store.change(record.key.as_deref().unwrap_or_default(), record.value.as_deref());
        }
        // The data is between two transactions: no task positions belong to it.
        store.memory.positions.task = None;
        self.at = fetched.next;
        self.at_end = fetched.at_end;
        let count = u64::try_from(fetched.records.len()).unwrap_or(0);
        self.sim.count(|figures| figures.restored += count);
        let position = ChangelogPosition {
            topic_id: TOPIC_ID.to_owned(),
            offset: self.at,
        };
        let changelogs = &mut store.memory.positions.changelogs;
        changelogs.insert(self.store.clone(), position);
        true
    }

    /// Changelog offsets that it is behind.
    pub(crate) fn lag(&self) -> i64 {
        let (_, end) = self.sim.broker.borrow().watermarks(self.place);
        end - self.at
    }

    /// Writes it to disk; `false` when the store fails. One that lacks nothing has seen every tombstone up to now.
    pub(crate) fn flush(&self) -> bool {
        if self.sim.store_fails(&self.db) {
            return false;
        }
        let mut store = self.db.borrow_mut();
        if self.at_end && self.lag() == 0 {
            store.memory.positions.as_of_ms = self.sim.now_ms();
        }
        store.flush();
        true
    }

    /// Reads up to a high watermark taken now; `None` when it is not wanted any more.
    async fn restore(mut self, positions: &Positions, given_up: &Cell<bool>) -> Option<Db> {
        let known = self
            .db
            .borrow()
            .memory
            .positions
            .task
            .as_ref()
            .map_or(0, |p| p.transaction);
        if known > positions.transaction {
            self.sim.break_promise(format!(
                "the store of {} has applied transaction {known}, the positions topic ends at {}",
                positions.task, positions.transaction
            ));
        }
        let place = self.place;
        // What is below the target is contained then, whenever it was read.
        let as_of_ms = self.sim.now_ms();
        let (_, target) = self.sim.call(|broker| broker.watermarks(place)).await;
        self.target = target;
        loop {
            if !self.follow().await || given_up.get() {
                return None;
            }
            let there = self.at >= self.target || self.sim.mutant == Mutant::RestoresToWhatIsStable;
            if self.at_end && there {
                break;
            }
            pause().await;
        }
        {
            let mut store = self.db.borrow_mut();
            store.memory.positions.task = Some(positions.clone());
            store.memory.positions.as_of_ms = as_of_ms;
        }
        if self.sim.store_fails(&self.db) {
            return None;
        }
        self.db.borrow_mut().flush();
        Some(self.db)
    }
}
