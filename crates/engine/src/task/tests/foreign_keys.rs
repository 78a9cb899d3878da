//! Joins by foreign keys: what is told between tasks comes late, and in any order but that of one topic's partition. Which partition
//! a value lies in is for those to say who write it.

use std::collections::VecDeque;

use super::*;
use crate::{driver, partition};

const PARTITIONS: i32 = 2;

/// Tables of Long values under String keys. A value names the key `value % 4`, or none.
fn planned_join(kind: &str, tables: [&str; 2]) -> Arc<Plan> {
    let table = |name: &&str| json!({"name": name, "topic": name, "key": {"serde": "String"}, "value": {"serde": "Long"}});
    let foreign_key = "value % 5 == 0 ? optional.none() : optional.of(string(value % 4))";
    let right = if kind == "join" {
        "right"
    } else {
        "(right == null ? 7 : right)"
    };
    let join = json!({
        "with": tables[1], "name": "named", "foreignKey": foreign_key, "expression": format!("left * 100 + {right}"),
    });
    let long = |topic: &str| json!({"topic": topic, "value": {"serde": "Long"}});
    let remove = "aggregate == value ? null : aggregate - value";
    let sums = json!({"store": "sums", "initial": "0", "add": "aggregate + value", "remove": remove});
    let mut all: Vec<_> = tables.iter().map(table).collect();
    all.dedup();
    let declared = json!({
        "language": "v1",
        "tables": all,
        "pipelines": [
            {"name": "joined", "from": tables[0], "steps": [{kind: join}]},
            {"name": "out", "from": "joined", "steps": [{"toStream": {}}], "to": long("out")},
            {"name": "sums", "from": "joined", "to": long("sums"),
             "steps": [{"groupBy": {"key": "string(value % 3)"}}, {"aggregate": sums}, {"toStream": {}}]},
        ],
    });
    Arc::new(topology::plan(&serde_json::from_value(declared).unwrap()).unwrap())
}

/// A record on its way: key, value, timestamp.
type Waiting = (Option<Vec<u8>>, Option<Vec<u8>>, i64);

/// Takes results, each with its sink and partition.
#[derive(Default)]
struct Routed(Vec<(usize, i32, Waiting)>);

impl Output for Routed {
    fn check(&self, _: &Outgoing<'_>) -> Result<(), OutputError> {
        Ok(())
    }

    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), OutputError> {
        let bytes = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let sent = (bytes(record.key), bytes(record.value), record.timestamp);
        let partition = partition::of_result(record.to, 0, PARTITIONS);
        self.0.push((record.sink, partition, sent));
        Ok(())
    }
}

/// All tasks, with what waits for each in the partitions that it reads.
struct Cluster {
    plan: Arc<Plan>,
    tasks: Vec<Vec<Task<MemoryStore>>>,
    queues: BTreeMap<(TopicName, i32), VecDeque<Waiting>>,
    /// The last result of each topic and key that is not deleted.
    shown: BTreeMap<(String, String), i64>,
}

impl Cluster {
    fn new(plan: Arc<Plan>) -> Self {
        Self {
            tasks: driver::tasks(&plan, PARTITIONS),
            plan,
            queues: BTreeMap::new(),
            shown: BTreeMap::new(),
        }
    }

    fn subscribers(&self) -> usize {
        let subs = self.plan.sub_topologies.iter().zip(&self.tasks);
        let rows = subs.flat_map(|(sub, tasks)| {
            let store = sub
                .stores
                .iter()
                .position(|store| store.name == "named-subscriptions");
            store
                .into_iter()
                .flat_map(|store| tasks.iter().map(move |task| task.stores()[store].values.len()))
        });
        rows.sum()
    }

    fn send(&mut self, topic: &TopicName, partition: i32, record: Waiting) {
        let queue = self.queues.entry((topic.clone(), partition)).or_default();
        queue.push_back(record);
    }

    /// Processes the next record of one of the partitions that have some, by a task that is committed and begun anew before, or goes
    /// on in its transaction; `false`: there is none.
    fn step(&mut self, choice: usize, is_begun_anew: bool) -> bool {
        let waiting: Vec<_> = self.queues.keys().cloned().collect();
        let Some(place) = waiting.get(choice % waiting.len().max(1)) else {
            return false;
        };
        let queue = self.queues.get_mut(place).unwrap();
        let (key, value, timestamp) = queue.pop_front().unwrap();
        if queue.is_empty() {
            self.queues.remove(place);
        }
        let (topic, partition) = place;
        let read = |sub: &SubTopology| sub.sources.iter().position(|source| source.topic == *topic);
        let mut subs = self.plan.sub_topologies.iter().enumerate();
        let found = subs.find_map(|(at, sub)| Some((at, read(sub)?)));
        let Some((sub, source)) = found else {
            let key = (topic.to_string(), String::from_utf8(key.unwrap()).unwrap());
            keep_last(&mut self.shown, key, value.map(number));
            return true;
        };
        let task = &mut self.tasks[sub][*partition as usize];
        if is_begun_anew {
            task.commit_in_memory();
            *task = Task::new(Arc::clone(&self.plan), sub, *partition, task.stores().to_vec());
        }
        let mut routed = Routed::default();
        let input = InputRecord {
            timestamp,
            key: key.as_deref(),
            value: value.as_deref(),
            ..record(0, None, None)
        };
        task.process(source, &input, &mut routed).unwrap();
        let plan = Arc::clone(&self.plan);
        for (sink, partition, sent) in routed.0 {
            self.send(&plan.sub_topologies[sub].sinks[sink].topic, partition, sent);
        }
        true
    }
}

/// Whether it is the right table, key, value.
type Update = (bool, u8, Option<i64>);

/// Feeds both tables, which may be one, and lets all come to an end: the last results, and what they must be.
fn run(
    kind: &str,
    tables: [&'static str; 2],
    updates: &[Update],
    choices: &[(u8, u8, bool)],
) -> [BTreeMap<(String, String), i64>; 2] {
    let mut cluster = Cluster::new(planned_join(kind, tables));
    let mut contents = BTreeMap::from(tables.map(|table| (table, BTreeMap::new())));
    let mut choices = choices.iter().copied().cycle();
    for (time, (is_right, key, value)) in updates.iter().enumerate() {
        let (key, table) = (key.to_string(), tables[usize::from(*is_right)]);
        let bytes = value.map(|value| value.to_be_bytes().to_vec());
        let topic = TopicName::External(table.into());
        // Keys that are named lie where they are looked for, others elsewhere.
        let of_key = partition::partition_for(key.as_bytes(), PARTITIONS);
        let partition = if *is_right || tables[0] == tables[1] {
            of_key
        } else {
            (of_key + 1) % PARTITIONS
        };
        cluster.send(
            &topic,
            partition,
            (Some(key.clone().into_bytes()), bytes, time as i64),
        );
        let contents = contents.get_mut(table).unwrap();
        keep_last(contents, key, *value);
        // So many of those that wait go on before the next update.
        let (steps, choice, anew) = choices.next().unwrap();
        (0..steps).for_each(|_| {
            cluster.step(choice.into(), anew);
        });
    }
    while cluster.step(choices.next().unwrap().1.into(), false) {}
    cluster
        .tasks
        .iter_mut()
        .flatten()
        .for_each(Task::commit_in_memory);
    // Nobody is told of what it does not name any more.
    let naming = contents[tables[0]].values().filter(|value| **value % 5 != 0);
    assert_eq!(cluster.subscribers(), naming.count());
    let wanted = wanted(kind, &contents[tables[0]], &contents[tables[1]]);
    [cluster.shown, wanted]
}

/// What must be shown in the end.
fn wanted(
    kind: &str,
    left: &BTreeMap<String, i64>,
    right: &BTreeMap<String, i64>,
) -> BTreeMap<(String, String), i64> {
    let mut wanted = BTreeMap::new();
    for (key, value) in left {
        let named = (value % 5 != 0).then(|| (value % 4).to_string());
        let found = named.and_then(|named| right.get(&named)).copied();
        if let Some(right) = found.or_else(|| (kind == "leftJoin").then_some(7)) {
            let value = value * 100 + right;
            wanted.insert(("out".to_owned(), key.clone()), value);
            *wanted
                .entry(("sums".to_owned(), (value % 3).to_string()))
                .or_insert(0) += value;
        }
    }
    wanted
}

fn updates() -> impl Strategy<Value = Vec<Update>> {
    proptest::collection::vec(
        (any::<bool>(), 0..4u8, proptest::option::weighted(0.8, 1..30i64)),
        1..40,
    )
}

fn choices() -> impl Strategy<Value = Vec<(u8, u8, bool)>> {
    proptest::collection::vec((0..6u8, any::<u8>(), any::<bool>()), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn in_the_end_each_value_is_joined_with_what_it_names(
        updates in updates(), choices in choices(), kind in prop_oneof![Just("join"), Just("leftJoin")],
    ) {
        let [shown, wanted] = run(kind, ["left", "right"], &updates, &choices);
        prop_assert_eq!(shown, wanted);
    }

    #[test]
    fn values_may_name_keys_of_their_own_table(updates in updates(), choices in choices()) {
        let [shown, wanted] = run("leftJoin", ["one", "one"], &updates, &choices);
        prop_assert_eq!(shown, wanted);
    }
}

#[test]
fn an_update_of_the_other_table_reaches_all_who_name_its_key_and_no_others() {
    let tables = ["left", "right"];
    let mut cluster = Cluster::new(planned_join("join", tables));
    let long = |value: i64| Some(value.to_be_bytes().to_vec());
    let mut update = |side: usize, key: &str, value: i64| {
        let topic = TopicName::External(tables[side].into());
        let partition = partition::partition_for(key.as_bytes(), PARTITIONS);
        cluster.send(&topic, partition, (Some(key.into()), long(value), 0));
        while cluster.step(0, false) {}
        let shown = cluster.shown.iter().filter(|((topic, _), _)| topic == "out");
        shown
            .map(|((_, key), value)| format!("{key}={value}"))
            .collect::<Vec<_>>()
    };
    update(0, "a", 1);
    update(0, "b", 9);
    update(0, "c", 2);
    // Of 5 it is said that it names nothing.
    update(0, "d", 5);
    assert_eq!(update(1, "1", 42), ["a=142", "b=942"]);
    assert_eq!(update(1, "2", 43), ["a=142", "b=942", "c=243"]);
    assert_eq!(update(0, "a", 6), ["a=643", "b=942", "c=243"]);
    assert_eq!(update(1, "1", 44), ["a=643", "b=944", "c=243"]);
}
