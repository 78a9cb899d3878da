//! Which ordinal runs which task.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Ordinal, Owner, TaskId, World};

/// Spreads tasks over workers: each has its share of every sub-topology, and as few tasks move as that allows. A task
/// keeps its positions partition for life.
#[must_use]
pub fn assign(tasks: &[TaskId], workers: u32, positions: i32, world: &World) -> BTreeMap<TaskId, Owner> {
    let known = world.assignment.as_ref().map(|(_, owners)| owners);
    let before = |task: &TaskId| known.and_then(|owners| owners.get(task)).copied();
    let kept = |task: &TaskId| before(task).map(|owner| owner.positions_partition);
    let taken: BTreeSet<i32> = tasks.iter().filter_map(kept).collect();
    let mut free = (0..positions).filter(|partition| !taken.contains(partition));
    let former = |task: &TaskId| before(task).map(|owner| owner.ordinal);
    let ordinals = place(tasks, workers.max(1), former);
    tasks
        .iter()
        .filter_map(|task| {
            let positions_partition = kept(task).or_else(|| free.next())?;
            let ordinal = *ordinals.get(task)?;
            Some((
                task.clone(),
                Owner {
                    ordinal,
                    positions_partition,
                },
            ))
        })
        .collect()
}

/// Of each sub-topology every worker gets `n / workers` tasks, and the rest go to those that had more of it, then to those
/// that have the fewest of all.
fn place(
    tasks: &[TaskId],
    workers: u32,
    former: impl Fn(&TaskId) -> Option<Ordinal>,
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
    for group in by_sub_topology.into_values() {
        let mut has: BTreeMap<Ordinal, Vec<&TaskId>> = totals.keys().map(|o| (*o, Vec::new())).collect();
        for task in &group {
            if let Some(tasks) = former(task).and_then(|ordinal| has.get_mut(&ordinal)) {
                tasks.push(task);
            }
        }
        let (share, rest) = (group.len() / totals.len(), group.len() % totals.len());
        let mut order: Vec<Ordinal> = totals.keys().copied().collect();
        order.sort_by_key(|ordinal| (has[ordinal].len() <= share, totals[ordinal], *ordinal));
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
mod tests {
    use super::*;
    use crate::Record;

    fn tasks(names: &[&str]) -> Vec<TaskId> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn each_worker_gets_its_share_of_every_sub_topology() {
        let tasks = tasks(&["a-0", "a-1", "b-0", "b-1"]);
        let owners = assign(&tasks, 2, 4, &World::default());
        let of = |ordinal| {
            owners
                .iter()
                .filter(|(_, o)| o.ordinal == Ordinal(ordinal))
                .map(|(t, _)| t.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(of(0), ["a-0", "b-0"]);
        assert_eq!(of(1), ["a-1", "b-1"]);
    }

    fn assigned(owners: &BTreeMap<TaskId, Owner>) -> World {
        let mut world = World::default();
        let owners = owners.clone();
        world.apply(0, &Record::Assignment { prev: None, owners });
        world
    }

    fn moves(before: &BTreeMap<TaskId, Owner>, after: &BTreeMap<TaskId, Owner>) -> usize {
        after
            .iter()
            .filter(|(task, owner)| before[*task].ordinal != owner.ordinal)
            .count()
    }

    #[test]
    fn workers_stay_balanced_and_nothing_moves_that_need_not() {
        let names: Vec<_> = ["a", "b"]
            .iter()
            .flat_map(|sub| (0..7).map(move |partition| format!("{sub}-{partition}")))
            .collect();
        let tasks = tasks(&names.iter().map(String::as_str).collect::<Vec<_>>());
        for before in 1..=8 {
            for after in 1..=8 {
                let first = assign(&tasks, before, 14, &World::default());
                let second = assign(&tasks, after, 14, &assigned(&first));
                for sub in ["a", "b"] {
                    let count = |ordinal| {
                        let of = |(task, owner): &(&TaskId, &Owner)| {
                            task.sub_topology == sub && owner.ordinal == Ordinal(ordinal)
                        };
                        second.iter().filter(of).count()
                    };
                    let counts: Vec<_> = (0..after).map(count).collect();
                    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
                    assert!(most - least <= 1, "{before} → {after}: {counts:?}");
                }
                // Only what workers that go leave behind moves, or what workers that come get.
                let share = |workers: u32| 7_usize.div_ceil(workers as usize);
                let most = 2 * before.abs_diff(after) as usize * share(before.max(after));
                assert!(moves(&first, &second) <= most, "{before} → {after}");
                assert_eq!(assign(&tasks, after, 14, &assigned(&second)), second);
            }
        }
    }

    #[test]
    fn a_task_keeps_its_positions_partition_when_others_come_and_workers_change() {
        let first = assign(&tasks(&["b-0"]), 1, 2, &World::default());
        let mut world = World::default();
        world.apply(
            0,
            &Record::Assignment {
                prev: None,
                owners: first.clone(),
            },
        );
        let second = assign(&tasks(&["a-0", "b-0"]), 3, 2, &world);
        let b = "b-0".parse().unwrap();
        assert_eq!(second[&b].positions_partition, first[&b].positions_partition);
        let partitions: BTreeSet<_> = second.values().map(|owner| owner.positions_partition).collect();
        assert_eq!(partitions.len(), 2);
    }
}
