use super::*;
use crate::{Phase, Record, TaskState, TaskStatus, Totals, Uid};

fn tasks(names: &[&str]) -> Vec<TaskId> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// Sub-topologies `a` (with stores) and `b` (without), seven tasks each.
fn fourteen() -> Vec<TaskId> {
    let names: Vec<_> = ["a", "b"]
        .iter()
        .flat_map(|sub| (0..7).map(move |partition| format!("{sub}-{partition}")))
        .collect();
    tasks(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

fn wanted<'a>(
    tasks: &'a [TaskId],
    stateful: &'a BTreeSet<String>,
    workers: u32,
    warm_up: WarmUp<'a>,
) -> Wanted<'a> {
    Wanted {
        tasks,
        stateful,
        workers,
        standbys: 0,
        positions: 14,
        warm_up,
    }
}

fn at_once(tasks: &[TaskId], workers: u32, world: &World) -> BTreeMap<TaskId, Owner> {
    wanted(tasks, &BTreeSet::new(), workers, WarmUp::No)
        .place(world)
        .owners
}

/// The world after an assignment that follows it.
fn assigned(mut world: World, placement: &Placement) -> World {
    let record = Record::Assignment {
        prev: world.operator_head,
        owners: placement.owners.clone(),
        standbys: placement.standbys.clone(),
    };
    world.apply(world.next_offset, &record);
    world
}

fn owned(owners: &BTreeMap<TaskId, Owner>) -> World {
    let placement = Placement {
        owners: owners.clone(),
        standbys: Standbys::new(),
        warming: BTreeMap::new(),
    };
    assigned(World::default(), &placement)
}

fn moves(before: &BTreeMap<TaskId, Owner>, after: &BTreeMap<TaskId, Owner>) -> usize {
    let moved = |(task, owner): &(&TaskId, &Owner)| before[*task].ordinal != owner.ordinal;
    after.iter().filter(moved).count()
}

/// A worker that answers and has copies, each so many records behind.
fn worker(ordinal: u32, copies: &[(&TaskId, i64)]) -> (Ordinal, WorkerStatus) {
    let copy = |(id, lag): &(&TaskId, i64)| TaskStatus {
        id: (*id).clone(),
        state: TaskState::Standby,
        lag: *lag,
        restore: None,
        error: None,
    };
    let status = WorkerStatus {
        application_id: "app".to_owned(),
        ordinal: Ordinal(ordinal),
        uid: Uid(ordinal.to_string()),
        pid: 1,
        nonce: 1,
        phase: Phase::Running,
        reason: None,
        message: None,
        open_transactions: 0,
        lag: 0,
        totals: Totals::default(),
        tasks: copies.iter().map(copy).collect(),
    };
    (Ordinal(ordinal), status)
}

#[test]
fn each_worker_gets_its_share_of_every_sub_topology() {
    let owners = at_once(&tasks(&["a-0", "a-1", "b-0", "b-1"]), 2, &World::default());
    let of = |ordinal| {
        let mine = owners
            .iter()
            .filter(|(_, owner)| owner.ordinal == Ordinal(ordinal));
        mine.map(|(task, _)| task.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(of(0), ["a-0", "b-0"]);
    assert_eq!(of(1), ["a-1", "b-1"]);
}

#[test]
fn workers_stay_balanced_and_nothing_moves_that_need_not() {
    let tasks = fourteen();
    for before in 1..=8 {
        for after in 1..=8 {
            let first = at_once(&tasks, before, &World::default());
            let second = at_once(&tasks, after, &owned(&first));
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
            assert_eq!(at_once(&tasks, after, &owned(&second)), second);
        }
    }
}

#[test]
fn a_task_keeps_its_positions_partition_when_others_come_and_workers_change() {
    let first = at_once(&tasks(&["b-0"]), 1, &World::default());
    let second = at_once(&tasks(&["a-0", "b-0"]), 3, &owned(&first));
    let b = "b-0".parse().unwrap();
    assert_eq!(second[&b].positions_partition, first[&b].positions_partition);
    let partitions: BTreeSet<_> = second.values().map(|owner| owner.positions_partition).collect();
    assert_eq!(partitions.len(), 2);
}

#[test]
fn a_task_of_a_partition_that_was_added_is_known_for_life() {
    let first = at_once(&tasks(&["a-0"]), 1, &World::default());
    let second = at_once(&tasks(&["a-0", "a-1", "b-0"]), 1, &owned(&first));
    let third = at_once(&tasks(&["a-0", "a-1", "b-0", "b-1"]), 2, &owned(&second));
    let added = |placement: &BTreeMap<TaskId, Owner>| {
        let added = placement.iter().filter(|(_, owner)| owner.added);
        added.map(|(task, _)| task.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(added(&first), [""; 0]);
    assert_eq!(added(&second), ["a-1"], "b begins");
    assert_eq!(added(&third), ["a-1", "b-1"]);
}

#[test]
fn a_task_with_stores_moves_when_its_new_owner_is_warm_and_each_task_moves_once() {
    let tasks = fourteen();
    let stateful = BTreeSet::from(["a".to_owned()]);
    for before in 1..=5 {
        for after in 1..=5 {
            let first = at_once(&tasks, before, &World::default());
            let goal = at_once(&tasks, after, &owned(&first));
            let mut world = owned(&first);
            let mut moved = 0;
            for step in 0.. {
                assert!(step < 20, "{before} → {after} does not end");
                // The last of the copies that are asked for becomes warm, one per step; the others are far behind.
                let now = world.standbys.clone();
                let copies = |ordinal| {
                    let mine = now
                        .iter()
                        .filter(move |(_, copies)| copies.contains(&Ordinal(ordinal)));
                    let lag = |task| {
                        if now.keys().next_back() == Some(task) {
                            ACCEPTABLE_LAG
                        } else {
                            ACCEPTABLE_LAG + 1
                        }
                    };
                    mine.map(|(task, _)| (task, lag(task))).collect::<Vec<_>>()
                };
                let statuses = (0..before.max(after))
                    .map(|ordinal| worker(ordinal, &copies(ordinal)))
                    .collect();
                let next = wanted(&tasks, &stateful, after, WarmUp::By(&statuses)).place(&world);
                let owners = &world.assignment.as_ref().unwrap().1;
                let steps = moves(owners, &next.owners);
                // Without stores: at once. With stores: the one that is warm.
                let stateless = next.owners.iter().filter(|(task, owner)| {
                    task.sub_topology == "b" && owners[*task].ordinal != owner.ordinal
                });
                assert!(steps - stateless.count() <= 1);
                moved += steps;
                let done = next.warming.is_empty();
                world = assigned(world, &next);
                if done {
                    break;
                }
            }
            assert_eq!(moved, moves(&first, &goal), "{before} → {after}");
            assert!(world.standbys.is_empty());
        }
    }
}

#[test]
fn what_does_not_divide_is_spread_over_all_workers() {
    let names: Vec<_> = ["a", "b", "c"]
        .iter()
        .flat_map(|sub| (0..5).map(move |partition| format!("{sub}-{partition}")))
        .collect();
    let tasks = tasks(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let none = BTreeSet::new();
    let mut world = World::default();
    for workers in [1, 2, 3, 2, 3, 1, 3] {
        let wanted = Wanted {
            positions: 15,
            ..wanted(&tasks, &none, workers, WarmUp::No)
        };
        let placement = wanted.place(&world);
        let mut totals = BTreeMap::<Ordinal, usize>::new();
        for owner in placement.owners.values() {
            *totals.entry(owner.ordinal).or_default() += 1;
        }
        let (least, most) = (totals.values().min().unwrap(), totals.values().max().unwrap());
        assert!(most - least <= 1, "{workers} workers: {totals:?}");
        world = assigned(world, &placement);
        assert_eq!(wanted.place(&world).owners, placement.owners, "it stays as it is");
    }
}

#[test]
fn a_worker_that_holds_or_does_not_answer_gets_nothing() {
    let tasks = fourteen();
    let first = at_once(&tasks, 1, &World::default());
    let stateful = BTreeSet::from(["a".to_owned()]);
    let silent = BTreeMap::from([worker(0, &[])]);
    let (ordinal, mut status) = worker(1, &[]);
    status.phase = Phase::Hold;
    let holds = BTreeMap::from([worker(0, &[]), (ordinal, status)]);
    for statuses in [silent, holds] {
        let next = wanted(&tasks, &stateful, 2, WarmUp::By(&statuses)).place(&owned(&first));
        assert_eq!(next.owners, first);
        assert_eq!(next.warming.len(), 7);
    }
}

#[test]
fn copies_lie_beside_the_owner_are_spread_and_stay() {
    let tasks = fourteen();
    let stateful = BTreeSet::from(["a".to_owned()]);
    let place = |workers, standbys, world: &World| {
        let wanted = Wanted {
            standbys,
            ..wanted(&tasks, &stateful, workers, WarmUp::No)
        };
        wanted.place(world)
    };
    let first = place(3, 1, &World::default());
    assert_eq!(first.standbys.len(), 7);
    let mut loads = BTreeMap::new();
    for (task, copies) in &first.standbys {
        assert_eq!(task.sub_topology, "a");
        assert_eq!(copies.len(), 1);
        assert!(!copies.contains(&first.owners[task].ordinal));
        *loads.entry(*copies.first().unwrap()).or_insert(0) += 1;
    }
    assert!(loads.values().all(|load| *load <= 3), "{loads:?}");
    let world = assigned(World::default(), &first);
    assert_eq!(place(3, 1, &world), first);
    // A worker that goes leaves its tasks to those that have a copy of them, as far as they have room.
    let second = place(2, 1, &world);
    let promoted = first
        .owners
        .iter()
        .filter(|(task, owner)| owner.ordinal == Ordinal(2) && stateful.contains(&task.sub_topology));
    let (with_copy, all) = promoted.fold((0, 0), |(with, all), (task, _)| {
        (
            with + usize::from(first.standbys[task].contains(&second.owners[task].ordinal)),
            all + 1,
        )
    });
    assert_eq!((with_copy, all), (2, 2));
    // More copies than other workers: one on each of them.
    assert!(
        place(3, 9, &world)
            .standbys
            .values()
            .all(|copies| copies.len() == 2)
    );
    assert!(place(1, 1, &world).standbys.is_empty());
}
