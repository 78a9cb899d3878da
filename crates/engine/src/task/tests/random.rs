//! Topologies made at random: each is planned, or refused with an error; what it does with records does not depend on when its
//! tasks begin anew, nor, where the plan is deterministic, on which task is the first.

use std::collections::BTreeMap;

use proptest::sample::Index;
use serde_json::{Value as Json, json};

use super::*;
use crate::{Driver, DriverRecord};

/// What the steps so far end with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Stream,
    Table,
    /// Whose values are not kept.
    Passing,
}

/// Chooses steps that fit.
struct Steps<'c> {
    choices: std::slice::Iter<'c, Index>,
    steps: Vec<Json>,
    end: End,
    stores: usize,
}

impl Steps<'_> {
    fn choose(&mut self, of: usize) -> usize {
        self.choices.next().map_or(0, |index| index.index(of))
    }

    fn store(&mut self) -> String {
        self.stores += 1;
        format!("s{}", self.stores)
    }

    fn push(&mut self, step: Json) {
        self.steps.push(step);
    }

    fn aggregation(&mut self, emit: &str) -> Json {
        let store = self.store();
        match self.choose(4) {
            0 => json!({"count": {"store": store, "emit": emit}}),
            1 => json!({"sum": {"store": store, "of": "value", "emit": emit}}),
            2 => json!({"max": {"store": store, "of": "value", "emit": emit}}),
            _ => json!({"reduce": {"store": store, "add": "aggregate % 1000 + value", "emit": emit}}),
        }
    }

    fn windows(&mut self) -> Json {
        let ms = |ms: usize| format!("{}ms", ms + 1);
        let (size, grace) = (ms(self.choose(20)), ms(self.choose(20)));
        match self.choose(4) {
            0 => json!({"tumbling": {"size": size, "grace": grace}}),
            1 => json!({"hopping": {"size": "20ms", "advance": "7ms", "grace": grace}}),
            2 => json!({"sliding": {"timeDifference": size, "grace": grace}}),
            _ => json!({"session": {"gap": size, "grace": grace}}),
        }
    }

    fn join(&mut self, mut fields: Json) {
        let kind = ["join", "leftJoin"][self.choose(2)];
        let right = if kind == "join" {
            "right"
        } else {
            "(right == null ? 7 : right)"
        };
        fields["expression"] = json!(format!("(left * 31 + {right}) % 1000"));
        self.push(json!({kind: fields}));
    }

    fn of_stream(&mut self) {
        match self.choose(11) {
            0 => self.push(json!({"filter": "value % 3 != 0"})),
            1 => self.push(json!({"mapValues": {"expression": "value % 100 * 2 + 1"}})),
            2 => self.push(json!({"selectKey": "string(value % 5)"})),
            3 => self.push(json!({"merge": {"with": ["b"]}})),
            4 => {
                let store = self.store();
                self.push(json!({"deduplicate": {"store": store, "by": "value % 4", "within": "15ms"}}));
            }
            5 => {
                self.push(json!({"groupByKey": {}}));
                let aggregation = match self.choose(3) {
                    0 => {
                        let store = self.store();
                        let other = json!({"with": "b", "add": "aggregate * 3 % 1000 + value"});
                        json!({"aggregate": {"store": store, "initial": "1", "add": "aggregate + value", "cogroup": [other]}})
                    }
                    _ => self.aggregation("OnUpdate"),
                };
                self.push(aggregation);
                self.end = End::Table;
            }
            6 => {
                let windows = self.windows();
                let emit = ["OnUpdate", "OnWindowClose"][self.choose(2)];
                let aggregation = self.aggregation(emit);
                let behind = [json!({"toStream": {}}), json!({"selectKey": "key.key"})];
                let before = [json!({"groupByKey": {}}), json!({"windowedBy": windows})];
                self.steps.extend(before);
                self.push(aggregation);
                self.steps.extend(behind);
            }
            7 => {
                let name = self.store();
                let grace = format!("{}ms", self.choose(20));
                let fields = match self.choose(2) {
                    0 => json!({"with": "t", "name": name}),
                    _ => json!({"with": "t", "name": name, "grace": grace}),
                };
                self.join(fields);
            }
            8 => {
                let name = self.store();
                self.join(json!({"with": "b", "name": name, "within": "10ms", "grace": "5ms"}));
            }
            9 => {
                let store = self.store();
                let step = match self.choose(2) {
                    0 => json!({"toTable": {"store": store}}),
                    _ => json!({"toTable": {"store": store, "historyRetention": "30ms"}}),
                };
                self.push(step);
                self.end = End::Table;
            }
            _ => {
                self.push(json!({"groupBy": {"key": "string(value % 3)"}}));
                let aggregation = self.aggregation("OnUpdate");
                self.push(aggregation);
                self.end = End::Table;
            }
        }
    }

    fn of_table(&mut self) {
        match self.choose(7) {
            0 => {
                self.push(json!({"filterNot": "value % 4 == 0"}));
                self.end = End::Passing;
            }
            1 => {
                self.push(json!({"mapValues": {"expression": "value % 50 + 3"}}));
                self.end = End::Passing;
            }
            2 => {
                let store = self.store();
                self.push(json!({"suppress": {"store": store, "untilTimeLimit": "12ms"}}));
                self.end = End::Passing;
            }
            3 => {
                self.push(json!({"groupBy": {"key": "string(value % 3)"}}));
                let store = self.store();
                let sum = json!({"store": store, "of": "value"});
                let remove = "aggregate == value ? null : aggregate - value";
                let kept =
                    json!({"store": store, "initial": "0", "add": "aggregate + value", "remove": remove});
                let steps = [json!({"sum": sum}), json!({"aggregate": kept})];
                let step = steps[self.choose(2)].clone();
                self.push(step);
                self.end = End::Table;
            }
            4 if self.end == End::Table && self.choose(2) == 0 => {
                let name = self.store();
                self.join(json!({"with": "t", "name": name, "foreignKey": "string(value % 4)"}));
            }
            4 if self.end == End::Table => {
                self.join(json!({"with": "t"}));
                self.end = End::Passing;
            }
            4 => {
                let store = self.store();
                self.push(json!({"toTable": {"store": store}}));
                self.end = End::Table;
            }
            _ => {
                self.push(json!({"toStream": {}}));
                self.end = End::Stream;
            }
        }
    }
}

/// A topology that reads the streams `a` and `b` and the table `t`, all of them Long values under String keys.
fn topology(choices: &[Index]) -> Json {
    let mut steps = Steps {
        choices: choices.iter(),
        steps: Vec::new(),
        end: End::Stream,
        stores: 0,
    };
    for _ in 0..=steps.choose(6) {
        match steps.end {
            End::Stream => steps.of_stream(),
            End::Table | End::Passing => steps.of_table(),
        }
    }
    if steps.end != End::Stream {
        steps.push(json!({"toStream": {}}));
    }
    let source = |name: &str| json!({"name": name, "topic": name, "key": {"serde": "String"}, "value": {"serde": "Long"}});
    let mut table = source("t");
    table["historyRetention"] = json!("25ms");
    let to = |topic: &str| json!({"topic": topic, "value": {"serde": "Long"}});
    // What is read is not left out by chance.
    json!({
        "language": "v1",
        "streams": [source("a"), source("b")],
        "tables": [table],
        "pipelines": [
            {"name": "p", "from": "a", "steps": steps.steps, "to": to("out")},
            {"name": "q", "from": "b", "to": to("out-b")},
            {"name": "r", "from": "t", "steps": [{"toStream": {}}], "to": to("out-t")},
        ],
    })
}

/// Index of the topic, key, value and timestamp.
type Input = (usize, u8, Option<i64>, i64);

fn input() -> impl Strategy<Value = Vec<Input>> {
    let record = (
        0..3usize,
        0..4u8,
        proptest::option::weighted(0.8, 0..40i64),
        0..80i64,
    );
    proptest::collection::vec(record, 1..40)
}

/// Topic and partition.
type From = (usize, i32);

/// All results with where the record came from that brought them about, and what stores hold in the end; or what stopped it.
type Outcome = Result<(Vec<(From, DriverRecord)>, Vec<BTreeMap<Vec<u8>, Vec<u8>>>), String>;

fn run(plan: &Arc<Plan>, records: &[Input], restarts: impl Fn(usize) -> bool) -> Outcome {
    let mut driver = Driver::new(Arc::clone(plan), 2);
    let mut outputs = Vec::new();
    for (index, (source, key, value, timestamp)) in records.iter().enumerate() {
        if restarts(index) {
            driver.restart();
        }
        let key = Some(key.to_string().into_bytes());
        let from = (*source, driver.partition(key.as_deref()));
        let record = DriverRecord {
            topic: TopicName::External(["a", "b", "t"][*source].into()),
            partition: from.1,
            key,
            value: value.map(|value| value.to_be_bytes().to_vec()),
            headers: Vec::new(),
            timestamp: *timestamp,
        };
        let driven = driver
            .pipe(record)
            .map_err(|error| format!("record {index}: {error}"))?;
        outputs.extend(driven.outputs.into_iter().map(|output| (from, output)));
    }
    let stores = plan.sub_topologies.iter().flat_map(|sub| &sub.stores);
    let stores = stores.map(|store| driver.store(&store.name).unwrap().rows);
    Ok((outputs, stores.collect()))
}

fn planned(choices: &[Index]) -> Result<(Json, Arc<Plan>), TestCaseError> {
    let declared = topology(choices);
    let plan = topology::plan(&serde_json::from_value(declared.clone()).unwrap());
    let plan = plan.map_err(|errors| TestCaseError::fail(format!("{declared}: {errors:?}")))?;
    Ok((declared, Arc::new(plan)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn any_topology_does_the_same_whenever_its_tasks_begin_anew(
        choices in proptest::collection::vec(any::<Index>(), 40),
        records in input(),
        restarts in proptest::collection::vec(any::<bool>(), 40),
    ) {
        let (declared, plan) = planned(&choices)?;
        let straight = run(&plan, &records, |_| false);
        prop_assert_eq!(&run(&plan, &records, |_| true), &straight, "{}", declared);
        prop_assert_eq!(&run(&plan, &records, |index| restarts[index]), &straight, "{}", declared);
    }

    #[test]
    fn a_deterministic_topology_does_the_same_whichever_partition_comes_first(
        choices in proptest::collection::vec(any::<Index>(), 40),
        records in input(),
        ranks in proptest::collection::vec(any::<u8>(), 6),
    ) {
        let (declared, plan) = planned(&choices)?;
        if !plan.variations().is_empty() {
            return Ok(());
        }
        let driver = Driver::new(Arc::clone(&plan), 2);
        let mut other = records.clone();
        other.sort_by_key(|(source, key, ..)| {
            let partition = driver.partition(Some(key.to_string().as_bytes()));
            ranks[source * 2 + usize::try_from(partition).unwrap()]
        });
        let by_task = |records| {
            run(&plan, records, |_| false).map(|(outputs, stores)| {
                let mut by_task = BTreeMap::<_, Vec<_>>::new();
                for (from, output) in outputs {
                    by_task.entry(from).or_default().push(output);
                }
                (by_task, stores)
            })
        };
        prop_assert_eq!(by_task(&other), by_task(&records), "{}", declared);
    }
}
