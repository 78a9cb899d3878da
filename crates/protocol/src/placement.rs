//! Which ordinal runs which task.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Ordinal, Owner, TaskId, World};

/// Spreads tasks over workers: partition by partition, so that each worker has its share of every sub-topology. A task
/// keeps its positions partition for life.
#[must_use]
pub fn assign(tasks: &[TaskId], workers: u32, positions: i32, world: &World) -> BTreeMap<TaskId, Owner> {
    let known = world.assignment.as_ref().map(|(_, owners)| owners);
    let kept = |task: &TaskId| {
        known
            .and_then(|owners| owners.get(task))
            .map(|owner| owner.positions_partition)
    };
    let taken: BTreeSet<i32> = tasks.iter().filter_map(kept).collect();
    let mut free = (0..positions).filter(|partition| !taken.contains(partition));
    tasks
        .iter()
        .filter_map(|task| {
            let positions_partition = kept(task).or_else(|| free.next())?;
            let ordinal = Ordinal(u32::try_from(task.partition).unwrap_or(0) % workers.max(1));
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
