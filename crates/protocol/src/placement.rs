//! Which ordinal runs which task, and which ones keep copies of its stores.
//!
//! A task with stores moves in two steps: its new owner follows the changelogs first, and becomes the owner when it is
//! nearly caught up, so that the move costs one commit and the rest of the tail (Kafka Streams' warm-up, KIP-441).

use std::collections::{BTreeMap, BTreeSet};

use crate::{Ordinal, Owner, Phase, Standbys, TaskId, WorkerStatus, World};

/// Changelog records that a copy may be behind to take its task over (Kafka Streams' `acceptable.recovery.lag`).
pub const ACCEPTABLE_LAG: i64 = 10_000;

/// What an assignment is to be.
pub struct Wanted<'a> {
    /// Every task of the plan.
    pub tasks: &'a [TaskId],
    /// Sub-topologies with stores.
    pub stateful: &'a BTreeSet<String>,
    /// Workers that share the tasks.
    pub workers: u32,
    /// Copies of the stores of each task, beside its owner's (Kafka Streams' `num.standby.replicas`).
    pub standbys: u32,
    /// Partitions of the positions topic.
    pub positions: i32,
    /// When tasks may move.
    pub warm_up: WarmUp<'a>,
}

/// When a task may move.
#[derive(Clone, Copy, Debug)]
pub enum WarmUp<'a> {
    /// At once: nothing runs that it would interrupt.
    No,
    /// When its new owner does not hold and, of a task with stores, has a copy that is at most [`ACCEPTABLE_LAG`] behind.
    By(&'a BTreeMap<Ordinal, WorkerStatus>),
}

/// An assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Who runs what.
    pub owners: BTreeMap<TaskId, Owner>,
    /// Who has copies of what.
    pub standbys: Standbys,
    /// Tasks that stay where they are until their new owner is ready, with that owner.
    pub warming: BTreeMap<TaskId, Ordinal>,
}

impl WarmUp<'_> {
    fn allows(self, task: &TaskId, to: Ordinal, stateful: bool) -> bool {
        match self {
            Self::No => true,
            Self::By(statuses) => statuses.get(&to).is_some_and(|status| {
                let works = matches!(status.phase, Phase::Running | Phase::Restoring);
                let lag = status.copy_lag(task);
                works && (!stateful || lag.is_some_and(|lag| lag <= ACCEPTABLE_LAG))
            }),
        }
    }
}

impl Wanted<'_> {
    /// Spreads tasks over workers: each has its share of every sub-topology, and as few tasks move as that allows. A task
    /// keeps its positions partition for life.
    #[must_use]
    pub fn place(&self, world: &World) -> Placement {
        let known = world.assignment.as_ref().map(|(_, owners)| owners);
        let before = |task: &TaskId| known.and_then(|owners| owners.get(task)).copied();
        let kept = |task: &TaskId| before(task).map(|owner| owner.positions_partition);
        let taken: BTreeSet<i32> = self.tasks.iter().filter_map(kept).collect();
        let mut free = (0..self.positions).filter(|partition| !taken.contains(partition));
        let former = |task: &TaskId| before(task).map(|owner| owner.ordinal);
        let began: BTreeSet<&String> = known
            .iter()
            .flat_map(|owners| owners.keys().map(|task| &task.sub_topology))
            .collect();
        let goals = spread(self.tasks, self.workers.max(1), former, &world.standbys);
        let mut owners = BTreeMap::new();
        let mut warming = BTreeMap::new();
        for (task, goal) in goals {
            let Some(positions_partition) = kept(&task).or_else(|| free.next()) else {
                continue;
            };
            let stateful = self.stateful.contains(&task.sub_topology);
            let stays =
                former(&task).filter(|from| *from != goal && !self.warm_up.allows(&task, goal, stateful));
            if stays.is_some() {
                warming.insert(task.clone(), goal);
            }
            let added = before(&task).map_or(began.contains(&task.sub_topology), |owner| owner.added);
            let ordinal = stays.unwrap_or(goal);
            owners.insert(
                task,
                Owner {
                    ordinal,
                    positions_partition,
                    added,
                },
            );
        }
        let standbys = self.copies(&owners, &warming, former, &world.standbys);
        Placement {
            owners,
            standbys,
            warming,
        }
    }

    /// Copies stay where they are, or come where the task was before, as long as no worker has more than its share.
    fn copies(
        &self,
        owners: &BTreeMap<TaskId, Owner>,
        warming: &BTreeMap<TaskId, Ordinal>,
        former: impl Fn(&TaskId) -> Option<Ordinal>,
        before: &Standbys,
    ) -> Standbys {
        let workers = self.workers.max(1);
        let wanted = usize::try_from(self.standbys.min(workers - 1)).unwrap_or(usize::MAX);
        let stateful = || {
            owners
                .iter()
                .filter(|(task, _)| self.stateful.contains(&task.sub_topology))
        };
        let share = (stateful().count() * wanted).div_ceil(usize::try_from(workers).unwrap_or(1));
        let mut loads: BTreeMap<Ordinal, usize> = (0..workers).map(|ordinal| (Ordinal(ordinal), 0)).collect();
        let mut standbys = Standbys::new();
        for (task, owner) in stateful() {
            let has = |ordinal: &Ordinal| before.get(task).is_some_and(|copies| copies.contains(ordinal));
            let mut candidates: Vec<(Ordinal, usize)> =
                loads.iter().map(|(ordinal, load)| (*ordinal, *load)).collect();
            candidates.retain(|(ordinal, _)| *ordinal != owner.ordinal);
            candidates.sort_by_key(|(ordinal, load)| {
                let room = *load < share;
                let was_owner = former(task) == Some(*ordinal);
                (!(room && has(ordinal)), !(room && was_owner), *load, *ordinal)
            });
            let mut copies: BTreeSet<_> = candidates
                .iter()
                .map(|(ordinal, _)| *ordinal)
                .take(wanted)
                .collect();
            for ordinal in &copies {
                *loads.entry(*ordinal).or_default() += 1;
            }
            copies.extend(warming.get(task));
            if !copies.is_empty() {
                standbys.insert(task.clone(), copies);
            }
        }
        standbys
    }
}

/// Of each sub-topology every worker gets `n / workers` tasks, and the rest go to those that stay within their share of all
/// tasks, then to those that had more of it, then to those that have the fewest of all. A task that must move goes where it
/// has a copy, if there is room.
fn spread(
    tasks: &[TaskId],
    workers: u32,
    former: impl Fn(&TaskId) -> Option<Ordinal>,
    standbys: &Standbys,
) -> BTreeMap<TaskId, Ordinal> {
    let mut by_sub_topology: BTreeMap<&str, BTreeSet<&TaskId>> = BTreeMap::new();
    for task in tasks {
        by_sub_topology
            .entry(&task.sub_topology)
            .or_default()
            .insert(task);
    }
    let mut placed = BTreeMap::new();
    let mut totals: BTreeMap<Ordinal, usize> = (0..workers).map(|ordinal| (Ordinal(ordinal), 0)).collect();
    let mut so_far = 0;
    for group in by_sub_topology.into_values() {
        so_far += group.len();
        let mut has: BTreeMap<Ordinal, Vec<&TaskId>> = totals.keys().map(|o| (*o, Vec::new())).collect();
        for task in &group {
            if let Some(tasks) = former(task).and_then(|ordinal| has.get_mut(&ordinal)) {
                tasks.push(task);
            }
        }
        let (share, rest) = (group.len() / totals.len(), group.len() % totals.len());
        let mut order: Vec<Ordinal> = totals.keys().copied().collect();
        order.sort_by_key(|ordinal| {
            let total = totals[ordinal];
            let beyond = total + share + 1 > so_far / totals.len();
            (beyond, has[ordinal].len() <= share, total, *ordinal)
        });
        let mut left: BTreeSet<&TaskId> = group;
        let mut room = Vec::new();
        for (place, ordinal) in order.into_iter().enumerate() {
            let quota = share + usize::from(place < rest);
            let keeps = has.remove(&ordinal).unwrap_or_default().into_iter().take(quota);
            let mut kept = 0;
            for task in keeps {
                left.remove(task);
                placed.insert(task.clone(), ordinal);
                kept += 1;
            }
            room.extend(std::iter::repeat_n(ordinal, quota - kept));
            *totals.entry(ordinal).or_default() += quota;
        }
        left.retain(|task| {
            let copies = standbys.get(*task);
            let place = room
                .iter()
                .position(|ordinal| copies.is_some_and(|copies| copies.contains(ordinal)));
            place.is_none_or(|at| {
                placed.insert((*task).clone(), room.swap_remove(at));
                false
            })
        });
        // In turns, so that neighbours land on different workers.
        room.sort_by_key(|ordinal| *ordinal);
        for (task, ordinal) in left.into_iter().zip(interleave(&room)) {
            placed.insert(task.clone(), ordinal);
        }
    }
    placed
}

/// One of each, then one of each again: `0 0 1 1 2` gives `0 1 2 0 1`.
fn interleave(ordinals: &[Ordinal]) -> Vec<Ordinal> {
    let mut seen: BTreeMap<Ordinal, usize> = BTreeMap::new();
    let mut turns: Vec<(usize, Ordinal)> = ordinals
        .iter()
        .map(|ordinal| {
            let turn = seen.entry(*ordinal).or_default();
            *turn += 1;
            (*turn, *ordinal)
        })
        .collect();
    turns.sort_unstable();
    turns.into_iter().map(|(_, ordinal)| ordinal).collect()
}

#[cfg(test)]
mod tests;
