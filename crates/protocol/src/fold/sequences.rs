//! Of any sequence of records, also repeated and late ones: whoever reads a snapshot and the rest knows what a reader of
//! everything knows.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::*;

/// What is appended.
#[derive(Clone, Debug)]
enum Appended {
    /// A record; one of an operator was decided on the log without its last `behind` records.
    New { record: Record, behind: usize },
    /// The same record once more.
    Again(prop::sample::Index),
}

fn ordinals() -> impl Strategy<Value = Ordinal> {
    (0..3u32).prop_map(Ordinal)
}

fn uids() -> impl Strategy<Value = Uid> {
    prop::sample::select(vec!["p", "q", "r"]).prop_map(|name| Uid(name.into()))
}

fn tasks() -> impl Strategy<Value = TaskId> {
    let names = prop::sample::select(vec!["a-0", "a-1", "b-0"]);
    names.prop_map(|name| name.parse().unwrap())
}

fn owners() -> impl Strategy<Value = BTreeMap<TaskId, Owner>> {
    let owner = (ordinals(), 0..4, any::<bool>()).prop_map(|(ordinal, positions_partition, added)| Owner {
        ordinal,
        positions_partition,
        added,
    });
    btree_map(tasks(), owner, 0..4)
}

/// Every kind of record; what an operator's was decided on is filled in.
fn records() -> impl Strategy<Value = Record> {
    let prev = None;
    let standbys = || btree_map(tasks(), btree_set(ordinals(), 0..3), 0..3);
    let speaker = || (ordinals(), uids(), 1..4u64);
    prop_oneof![
        1 => (uids(), uids()).prop_map(move |(uid, cluster)| Record::Claim {
            prev,
            cluster: cluster.0,
            uid,
            description: String::new(),
        }),
        1 => Just(Record::Released { prev }),
        4 => (owners(), standbys()).prop_map(move |(owners, standbys)| Record::Assignment {
            prev,
            owners,
            standbys,
        }),
        3 => (0..20i64, ordinals()).prop_map(move |(assignment, ordinal)| Record::Fenced {
            prev,
            assignment,
            ordinal,
        }),
        1 => Just(Record::Snapshot { prev, world: Box::default() }),
        1 => btree_map(ordinals(), 1..4u32, 0..3)
            .prop_map(move |threads| Record::StartedOver { prev, threads }),
        1 => uids().prop_map(move |uid| Record::Retired { prev, uid }),
        1 => (0..3i64).prop_map(move |offset| Record::Skipped {
            prev,
            record: RecordId {
                topic: "orders".to_owned(),
                topic_id: "id".to_owned(),
                partition: 0,
                offset,
            },
        }),
        3 => (speaker(), 1..4u32).prop_map(|((ordinal, uid, nonce), threads)| Record::Incarnation {
            ordinal,
            uid,
            nonce,
            threads,
        }),
        3 => (0..20i64, speaker()).prop_map(|(assignment, (ordinal, uid, nonce))| Record::Adopted {
            assignment,
            ordinal,
            uid,
            nonce,
        }),
        1 => speaker().prop_map(|(ordinal, uid, nonce)| Record::Barrier { ordinal, uid, nonce }),
    ]
}

fn sequences() -> impl Strategy<Value = Vec<Appended>> {
    let behind = prop_oneof![5 => Just(0), 1 => 1..5usize];
    let new = (records(), behind).prop_map(|(record, behind)| Appended::New { record, behind });
    let again = any::<prop::sample::Index>().prop_map(Appended::Again);
    vec(prop_oneof![5 => new, 1 => again], 0..25)
}

fn decided_on(record: &Record, world: &World) -> Record {
    let mut record = record.clone();
    if let Some(prev) = record.prev_mut() {
        *prev = world.operator_head;
    }
    if let Record::Snapshot { world: says, .. } = &mut record {
        **says = world.clone();
    }
    record
}

/// The records of a sequence, and what the log says before and after each of them.
fn written(sequence: &[Appended]) -> (Vec<Record>, Vec<World>) {
    let (mut records, mut worlds) = (Vec::<Record>::new(), vec![World::default()]);
    for appended in sequence {
        let record = match appended {
            Appended::Again(which) if !records.is_empty() => which.get(&records).clone(),
            Appended::Again(_) => continue,
            Appended::New { record, behind } => {
                let known = worlds.len().saturating_sub(1 + behind);
                decided_on(record, &worlds[known])
            }
        };
        let mut world = worlds[records.len()].clone();
        world.apply(world.next_offset, &record);
        records.push(record);
        worlds.push(world);
    }
    (records, worlds)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_snapshot_and_the_tail_fold_to_what_the_whole_log_folds_to(
        before in sequences(),
        tail in sequences(),
    ) {
        let snapshot = Appended::New {
            record: Record::Snapshot { prev: None, world: Box::default() },
            behind: 0,
        };
        let replaced = written(&before).0.len();
        let (records, worlds) = written(&[before, vec![snapshot], tail].concat());
        let mut world = World::default();
        for (at, record) in records.iter().enumerate().skip(replaced) {
            let text = serde_json::to_string(record).unwrap();
            let offset = worlds[at].next_offset;
            world.apply(offset, &serde_json::from_str(&text).unwrap());
            prop_assert_eq!(&world, &worlds[at + 1]);
        }
    }

    /// What an operator has not decided on all of the operators' records before it changes nothing.
    #[test]
    fn operators_that_decide_on_older_states_change_nothing(sequence in sequences()) {
        let (records, worlds) = written(&sequence);
        for (at, record) in records.iter().enumerate() {
            let (before, mut after) = (&worlds[at], worlds[at + 1].clone());
            let is_stale = record.prev().is_some_and(|prev| prev != before.operator_head);
            if is_stale {
                after.next_offset = before.next_offset;
                prop_assert_eq!(&after, before);
            } else if record.prev().is_some() {
                prop_assert_eq!(after.operator_head, Some(before.next_offset));
            }
        }
    }
}
