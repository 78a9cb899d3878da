//! The fold: control log in, state of the world out. One pure function for operator, worker and simulation.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Ordinal, Owner, Record, RecordId, Standbys, TaskId, Uid};

/// What the control log says so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct World {
    /// Offset after the last record applied.
    pub next_offset: i64,
    /// Offset of the last accepted operator record: what the next one must name as `prev`.
    pub operator_head: Option<i64>,
    /// Who owns the application.
    pub claim: Option<Claimant>,
    /// The current assignment and its offset.
    pub assignment: Option<(i64, BTreeMap<TaskId, Owner>)>,
    /// The copies that belong to it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub standbys: Standbys,
    /// Per task: earlier owners that have not yet given it up, with the offset of the assignment that took it.
    unsettled: BTreeMap<TaskId, BTreeMap<Ordinal, i64>>,
    /// Per task: the record that settled its last move.
    settled_at: BTreeMap<TaskId, i64>,
    ordinals: BTreeMap<Ordinal, Speakers>,
    retired: BTreeSet<Uid>,
    /// Records that a person lets their tasks pass over.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub skipped: BTreeSet<RecordId>,
    /// Whether this log stands in place of one that was lost: processes that followed that one may follow this.
    #[serde(default)]
    pub started_over: bool,
}

/// Who owns an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Claimant {
    /// Kubernetes cluster, or `run`.
    pub cluster: String,
    /// The object, or the state directory.
    pub uid: Uid,
    /// For people.
    pub description: String,
}

impl Claimant {
    /// Whether both are the same object or run; the description is for people.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        (&self.cluster, &self.uid) == (&other.cluster, &other.uid)
    }
}

/// The processes that have spoken for an ordinal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Speakers {
    /// First incarnation of each process, by offset.
    first_seen: BTreeMap<Uid, i64>,
    /// Highest nonce of each process.
    nonces: BTreeMap<Uid, u64>,
    /// The process whose first incarnation is the latest.
    current: Option<Uid>,
    /// Highest thread count ever recorded.
    threads: u32,
}

/// What the fold did with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folded {
    /// It changed the world.
    Applied,
    /// An operator record decided on an older state; ignored.
    Stale,
}

impl World {
    /// Applies the record at `offset`; offsets must rise. A log whose beginning was deleted begins with a snapshot.
    pub fn apply(&mut self, offset: i64, record: &Record) -> Folded {
        if let Record::Snapshot { world, .. } = record
            && self.next_offset == 0
        {
            self.clone_from(world);
        }
        self.next_offset = offset + 1;
        if let Some(prev) = record.prev() {
            if prev != self.operator_head {
                return Folded::Stale;
            }
            self.operator_head = Some(offset);
        }
        match record {
            Record::Claim {
                cluster,
                uid,
                description,
                ..
            } => {
                self.claim = Some(Claimant {
                    cluster: cluster.clone(),
                    uid: uid.clone(),
                    description: description.clone(),
                });
            }
            Record::Released { .. } => self.claim = None,
            Record::StartedOver { threads, .. } => {
                self.started_over = true;
                for (ordinal, threads) in threads {
                    let speakers = self.ordinals.entry(*ordinal).or_default();
                    speakers.threads = speakers.threads.max(*threads);
                }
            }
            Record::Assignment { owners, standbys, .. } => {
                self.assign(offset, owners);
                self.standbys.clone_from(standbys);
            }
            Record::Fenced {
                assignment, ordinal, ..
            } => self.settle(offset, *assignment, *ordinal),
            Record::Retired { uid, .. } => {
                self.retired.insert(uid.clone());
            }
            Record::Skipped { record, .. } => {
                self.skipped.insert(record.clone());
            }
            Record::Incarnation {
                ordinal,
                uid,
                nonce,
                threads,
            } => {
                let speakers = self.ordinals.entry(*ordinal).or_default();
                if !speakers.first_seen.contains_key(uid) {
                    speakers.first_seen.insert(uid.clone(), offset);
                    speakers.current = Some(uid.clone());
                }
                let highest = speakers.nonces.entry(uid.clone()).or_default();
                *highest = (*highest).max(*nonce);
                speakers.threads = speakers.threads.max(*threads);
            }
            // Its words count only while it speaks: a record that was long on its way may mean another log's assignment.
            Record::Adopted {
                assignment,
                ordinal,
                uid,
                nonce,
            } => {
                let speakers = self.ordinals.get(ordinal);
                let nonces = speakers.map(|speakers| &speakers.nonces);
                if nonces.and_then(|nonces| nonces.get(uid)) == Some(nonce) {
                    self.settle(offset, *assignment, *ordinal);
                }
            }
            Record::Snapshot { .. } | Record::Barrier { .. } => {}
        }
        Folded::Applied
    }

    fn assign(&mut self, offset: i64, owners: &BTreeMap<TaskId, Owner>) {
        let before = self
            .assignment
            .take()
            .map(|(_, owners)| owners)
            .unwrap_or_default();
        for (task, owner) in &before {
            let stays = owners.get(task).is_some_and(|new| new.ordinal == owner.ordinal);
            if !stays {
                self.unsettled
                    .entry(task.clone())
                    .or_default()
                    .insert(owner.ordinal, offset);
            }
        }
        for (task, owner) in owners {
            if let Some(waiting) = self.unsettled.get_mut(task) {
                // Work of the new owner's own past is fenced by its own acquisition.
                if waiting.remove(&owner.ordinal).is_some() && waiting.is_empty() {
                    self.settled_at.insert(task.clone(), offset);
                }
            }
        }
        self.assignment = Some((offset, owners.clone()));
    }

    fn settle(&mut self, offset: i64, assignment: i64, ordinal: Ordinal) {
        for (task, waiting) in &mut self.unsettled {
            if waiting
                .get(&ordinal)
                .is_some_and(|lost_at| *lost_at <= assignment)
            {
                waiting.remove(&ordinal);
                if waiting.is_empty() {
                    self.settled_at.insert(task.clone(), offset);
                }
            }
        }
    }

    /// Tasks that `ordinal` owns and may start: every earlier owner has given them up, with proof.
    #[must_use]
    pub fn startable(&self, ordinal: Ordinal) -> BTreeMap<TaskId, Owner> {
        self.owned(ordinal)
            .filter(|(task, _)| self.is_settled(task))
            .map(|(t, o)| (t.clone(), *o))
            .collect()
    }

    /// Tasks that `ordinal` owns but that an earlier owner could still commit to.
    #[must_use]
    pub fn waiting(&self, ordinal: Ordinal) -> BTreeSet<TaskId> {
        self.owned(ordinal)
            .filter(|(task, _)| !self.is_settled(task))
            .map(|(task, _)| task.clone())
            .collect()
    }

    /// Tasks whose changelogs `ordinal` follows: it has a copy of them, or will own them as soon as an earlier owner has
    /// given them up.
    #[must_use]
    pub fn followed(&self, ordinal: Ordinal) -> BTreeSet<TaskId> {
        let mut followed = self.waiting(ordinal);
        let copies = self
            .standbys
            .iter()
            .filter(|(_, ordinals)| ordinals.contains(&ordinal));
        followed.extend(
            copies
                .map(|(task, _)| task.clone())
                .filter(|task| !self.owns(ordinal, task)),
        );
        followed
    }

    /// Earlier owners that must still be fenced (or adopt), over all tasks.
    #[must_use]
    pub fn unsettled_ordinals(&self) -> BTreeSet<Ordinal> {
        self.unsettled
            .values()
            .flat_map(|waiting| waiting.keys().copied())
            .collect()
    }

    /// The assignment through which the ordinal must still give tasks up, if any.
    #[must_use]
    pub fn owes(&self, ordinal: Ordinal) -> Option<i64> {
        self.unsettled
            .values()
            .filter_map(|waiting| waiting.get(&ordinal).copied())
            .max()
    }

    /// Whether the ordinal owns a task, startable or not.
    #[must_use]
    pub fn owns(&self, ordinal: Ordinal, task: &TaskId) -> bool {
        let owners = self.assignment.as_ref().map(|(_, owners)| owners);
        owners
            .and_then(|owners| owners.get(task))
            .is_some_and(|owner| owner.ordinal == ordinal)
    }

    fn owned(&self, ordinal: Ordinal) -> impl Iterator<Item = (&TaskId, &Owner)> {
        self.assignment
            .iter()
            .flat_map(|(_, owners)| owners)
            .filter(move |(_, owner)| owner.ordinal == ordinal)
    }

    fn is_settled(&self, task: &TaskId) -> bool {
        self.unsettled.get(task).is_none_or(BTreeMap::is_empty)
    }

    /// Threads whose transactional ids are initialised by whoever acquires or fences the ordinal (⚑): as many as were ever recorded for
    /// it, and one where nobody ever spoke.
    #[must_use]
    pub fn threads(&self, ordinal: Ordinal) -> u32 {
        let known = self.ordinals.get(&ordinal);
        known.map_or(1, |speakers| speakers.threads.max(1))
    }

    /// Offsets of a partition that a person lets its task pass over.
    #[must_use]
    pub fn skipped_of(&self, topic: &str, topic_id: &str, partition: i32) -> BTreeSet<i64> {
        let place = (topic, topic_id, partition);
        let records = self.skipped.iter();
        let here = records.filter(|it| (it.topic.as_str(), it.topic_id.as_str(), it.partition) == place);
        here.map(|record| record.offset).collect()
    }

    /// Ordinals for which a process has ever spoken.
    pub fn ordinals(&self) -> impl Iterator<Item = Ordinal> {
        self.ordinals.keys().copied()
    }

    /// The process that replaced (`uid`, `nonce`), if any: a process that appeared later for the same ordinal,
    /// a later acquisition of the same uid by somebody else, or a `Retired` record.
    #[must_use]
    pub fn superseded(&self, ordinal: Ordinal, uid: &Uid, nonce: u64) -> Option<Superseded> {
        if self.retired.contains(uid) {
            return Some(Superseded::Retired);
        }
        let speakers = self.ordinals.get(&ordinal)?;
        let first_seen = speakers.first_seen.get(uid)?;
        if speakers.nonces.get(uid).is_some_and(|highest| *highest > nonce) {
            return Some(Superseded::SameUid);
        }
        let current = speakers.current.as_ref()?;
        let successor = speakers
            .first_seen
            .get(current)
            .is_some_and(|seen| seen > first_seen);
        successor.then(|| Superseded::By(current.clone()))
    }
}

/// Why a process must exit for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Superseded {
    /// A process that appeared later speaks for the ordinal.
    By(Uid),
    /// Another process uses the same uid.
    SameUid,
    /// The operator has declared the process gone.
    Retired,
}

impl std::fmt::Display for Superseded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::By(uid) => write!(f, "process {uid} has taken over this ordinal"),
            Self::SameUid => f.write_str("another process acquires under this uid"),
            Self::Retired => f.write_str("this process was declared gone"),
        }
    }
}

#[cfg(test)]
mod sequences;

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(name: &str) -> Uid {
        Uid(name.into())
    }

    fn owners(list: &[(&str, u32)]) -> BTreeMap<TaskId, Owner> {
        let owner = |ordinal| Owner {
            ordinal: Ordinal(ordinal),
            positions_partition: 0,
            added: false,
        };
        list.iter()
            .map(|(task, ordinal)| (task.parse().unwrap(), owner(*ordinal)))
            .collect()
    }

    fn assignment(prev: Option<i64>, list: &[(&str, u32)]) -> Record {
        Record::Assignment {
            prev,
            owners: owners(list),
            standbys: Standbys::new(),
        }
    }

    fn incarnation(ordinal: u32, name: &str, nonce: u64, threads: u32) -> Record {
        Record::Incarnation {
            ordinal: Ordinal(ordinal),
            uid: uid(name),
            nonce,
            threads,
        }
    }

    fn folded(records: &[Record]) -> World {
        let mut world = World::default();
        for (offset, record) in (0..).zip(records) {
            world.apply(offset, record);
        }
        world
    }

    #[test]
    fn records_that_are_skipped_are_told_by_their_topics_id() {
        let record = |topic_id: &str, offset| RecordId {
            topic: "orders".into(),
            topic_id: topic_id.into(),
            partition: 1,
            offset,
        };
        let skipped = |prev, record| Record::Skipped { prev, record };
        let world = folded(&[
            skipped(None, record("a", 5)),
            skipped(Some(0), record("b", 7)),
            skipped(Some(0), record("a", 9)),
        ]);
        assert_eq!(world.skipped_of("orders", "a", 1), BTreeSet::from([5]));
        assert_eq!(world.skipped_of("orders", "b", 1), BTreeSet::from([7]));
        assert_eq!(world.skipped_of("orders", "a", 0), BTreeSet::new());
    }

    #[test]
    fn an_operator_record_decided_on_an_older_state_is_ignored() {
        let mut world = World::default();
        let claim = |name: &str, prev| Record::Claim {
            prev,
            cluster: "here".to_owned(),
            uid: uid(name),
            description: String::new(),
        };
        let owner = |world: &World| world.claim.as_ref().map(|claimant| claimant.uid.clone());
        assert_eq!(world.apply(0, &claim("a", None)), Folded::Applied);
        assert_eq!(world.apply(3, &claim("b", None)), Folded::Stale);
        assert_eq!(owner(&world), Some(uid("a")));
        assert_eq!(world.apply(5, &claim("c", Some(0))), Folded::Applied);
        assert_eq!(world.operator_head, Some(5));
        assert_eq!(world.apply(6, &Record::Released { prev: Some(0) }), Folded::Stale);
        assert_eq!(owner(&world), Some(uid("c")));
        assert_eq!(
            world.apply(7, &Record::Released { prev: Some(5) }),
            Folded::Applied
        );
        assert_eq!(owner(&world), None);
    }

    #[test]
    fn a_moved_task_starts_only_when_its_old_owner_is_fenced_at_that_assignment() {
        let mut world = folded(&[
            assignment(None, &[("a-0", 0), ("a-1", 1)]),
            assignment(Some(0), &[("a-0", 0), ("a-1", 0)]),
        ]);
        assert_eq!(world.startable(Ordinal(0)), owners(&[("a-0", 0)]));
        assert_eq!(
            world.waiting(Ordinal(0)),
            BTreeSet::from(["a-1".parse().unwrap()])
        );
        // A fence that belongs to an earlier assignment proves nothing.
        world.apply(
            2,
            &Record::Fenced {
                prev: Some(1),
                assignment: 0,
                ordinal: Ordinal(1),
            },
        );
        assert_eq!(world.startable(Ordinal(0)).len(), 1);
        world.apply(
            3,
            &Record::Fenced {
                prev: Some(2),
                assignment: 1,
                ordinal: Ordinal(1),
            },
        );
        assert_eq!(world.startable(Ordinal(0)).len(), 2);
        assert!(world.unsettled_ordinals().is_empty());
    }

    #[test]
    fn a_task_that_moves_away_and_back_waits_for_the_owner_in_between() {
        let world = folded(&[
            assignment(None, &[("a-0", 0)]),
            assignment(Some(0), &[("a-0", 1)]),
            assignment(Some(1), &[("a-0", 0)]),
        ]);
        assert!(world.startable(Ordinal(0)).is_empty());
        assert_eq!(world.unsettled_ordinals(), BTreeSet::from([Ordinal(1)]));
    }

    #[test]
    fn an_owner_that_adopts_gives_up_what_that_assignment_and_earlier_ones_took() {
        let adopted = |assignment, nonce| Record::Adopted {
            assignment,
            ordinal: Ordinal(1),
            uid: uid("p"),
            nonce,
        };
        let mut world = folded(&[
            assignment(None, &[("a-0", 1), ("a-1", 1)]),
            assignment(Some(0), &[("a-0", 0), ("a-1", 1)]),
            assignment(Some(1), &[("a-0", 0), ("a-1", 0)]),
            incarnation(1, "p", 2, 1),
        ]);
        assert_eq!(world.owes(Ordinal(1)), Some(2));
        // Of a session before the one that speaks.
        world.apply(4, &adopted(2, 1));
        assert!(world.startable(Ordinal(0)).is_empty());
        world.apply(5, &adopted(1, 2));
        assert_eq!(world.startable(Ordinal(0)), owners(&[("a-0", 0)]));
        assert_eq!(world.owes(Ordinal(1)), Some(2));
        world.apply(6, &adopted(2, 2));
        assert_eq!(world.startable(Ordinal(0)).len(), 2);
        assert_eq!(world.owes(Ordinal(1)), None);
    }

    #[test]
    fn an_ordinal_follows_its_copies_and_what_earlier_owners_must_still_give_up() {
        let followed = |world: &World, ordinal| {
            let tasks = world.followed(Ordinal(ordinal)).into_iter();
            tasks.map(|task| task.to_string()).collect::<Vec<_>>()
        };
        let mut world = World::default();
        let copies = |list: &[(&str, u32)]| -> Standbys {
            let copy =
                |(task, ordinal): &(&str, u32)| (task.parse().unwrap(), BTreeSet::from([Ordinal(*ordinal)]));
            list.iter().map(copy).collect()
        };
        world.apply(
            0,
            &Record::Assignment {
                prev: None,
                owners: owners(&[("a-0", 0), ("a-1", 1)]),
                standbys: copies(&[("a-0", 1)]),
            },
        );
        assert_eq!(
            (followed(&world, 0), followed(&world, 1)),
            (vec![], vec!["a-0".to_owned()])
        );
        world.apply(
            1,
            &Record::Assignment {
                prev: Some(0),
                owners: owners(&[("a-0", 1), ("a-1", 1)]),
                standbys: copies(&[("a-0", 0)]),
            },
        );
        // The old owner has no copy to follow before it has given the task up; that is its process's business.
        assert_eq!(
            (followed(&world, 0), followed(&world, 1)),
            (vec!["a-0".to_owned()], vec!["a-0".to_owned()])
        );
        world.apply(
            2,
            &Record::Fenced {
                prev: Some(1),
                assignment: 1,
                ordinal: Ordinal(0),
            },
        );
        assert_eq!(
            (followed(&world, 0), followed(&world, 1)),
            (vec!["a-0".to_owned()], vec![])
        );
    }

    #[test]
    fn a_later_process_supersedes_and_an_earlier_one_cannot_come_back() {
        let world = folded(&[
            incarnation(0, "p", 1, 2),
            incarnation(0, "q", 1, 2),
            incarnation(0, "p", 2, 2),
        ]);
        assert_eq!(
            world.superseded(Ordinal(0), &uid("p"), 2),
            Some(Superseded::By(uid("q")))
        );
        assert_eq!(world.superseded(Ordinal(0), &uid("q"), 1), None);
    }

    #[test]
    fn a_later_nonce_of_the_same_uid_supersedes() {
        let world = folded(&[incarnation(0, "p", 1, 2), incarnation(0, "p", 2, 2)]);
        assert_eq!(
            world.superseded(Ordinal(0), &uid("p"), 1),
            Some(Superseded::SameUid)
        );
        assert_eq!(world.superseded(Ordinal(0), &uid("p"), 2), None);
    }

    #[test]
    fn a_fence_reaches_every_thread_that_there_ever_was() {
        let world = folded(&[incarnation(0, "p", 1, 4), incarnation(0, "q", 1, 2)]);
        assert_eq!(world.threads(Ordinal(0)), 4);
        assert_eq!(world.threads(Ordinal(7)), 1);
    }
}
