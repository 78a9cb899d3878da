//! The applications that the simulation runs: orders → repartition by customer → sums → results. Two sub-topologies, one
//! with a store. Either each sum is a result, and is deleted when it exceeds a limit; or sums are of windows, and results
//! when these close; or orders are joined with each other, behind two repartition topics that one task reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use protocol::{ApplicationId, TaskId};
use topology::Plan;

use super::broker::Record;

/// Partitions of every topic of the application; of the positions topic twice as many.
pub(crate) const PARTITIONS: i32 = 2;
/// Customers whose orders come in rows, and customers that come again and again.
const CUSTOMERS: (i64, i64) = (3, 2);
/// Orders of a row.
const ROW: i64 = 6;
/// A sum beyond it is deleted: every sixth order of a customer does that.
const LIMIT: i64 = 60;
/// Of windows: order numbers are their times. Partitions advance side by side, and grace is short enough for late orders.
const SIZE: i64 = 5;
const GRACE: i64 = 2;

/// Of joins: how near two orders are. Others are never too late, since in which order a task meets those of two topics is open.
const NEAR: i64 = 6;
/// What the left side of a result is multiplied by.
const SIDE: i64 = 1_000;

/// Topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Topic {
    Control,
    Positions,
    Orders,
    Repartition,
    /// Of the right side of a join.
    RightRepartition,
    Changelog,
    Sums,
}

/// What is summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sums {
    /// All orders of a customer.
    All,
    /// Those of each window.
    Windows,
    /// None: each order is joined with those of its customer that have an even number and are near in time.
    Pairs,
}

/// The application.
#[derive(Debug)]
pub struct App {
    pub(crate) sums: Sums,
    pub(crate) id: ApplicationId,
    pub(crate) plan: Arc<Plan>,
    /// Every task of the plan.
    pub(crate) tasks: Vec<TaskId>,
    topics: BTreeMap<String, Topic>,
}

impl App {
    /// Plans it.
    ///
    /// # Errors
    /// When the language has changed under it.
    pub fn new(sums: Sums) -> anyhow::Result<Self> {
        let mut pipelines = Vec::new();
        let add = format!("aggregate + value.amount > {LIMIT} ? null : aggregate + value.amount");
        let mut steps = vec![
            serde_json::json!({"selectKey": "value.customer"}),
            serde_json::json!({"groupByKey": {}}),
        ];
        match sums {
            Sums::All => steps.extend([
                serde_json::json!({"aggregate": {"store": "by-customer", "initial": "0", "add": add}}),
                serde_json::json!({"toStream": {}}),
            ]),
            Sums::Windows => {
                let (size, grace) = (format!("{SIZE}ms"), format!("{GRACE}ms"));
                let sum = serde_json::json!({"store": "by-customer", "of": "value.amount", "emit": "OnWindowClose"});
                steps.extend([
                    serde_json::json!({"windowedBy": {"tumbling": {"size": size, "grace": grace}}}),
                    serde_json::json!({"sum": sum}),
                    serde_json::json!({"toStream": {}}),
                    serde_json::json!({"selectKey": "key.key"}),
                ]);
            }
            Sums::Pairs => {
                let keyed = serde_json::json!({"map": {"key": "value.customer", "expression": "int(ts)"}});
                let even = serde_json::json!({"filter": "int(ts) % 2 == 0"});
                pipelines.push(serde_json::json!({"name": "even", "from": "orders", "steps": [even, keyed]}));
                let join = serde_json::json!({
                    "with": "even", "name": "by-customer", "within": format!("{NEAR}ms"), "grace": "1h",
                    "expression": format!("left * {SIDE} + right"),
                });
                steps = vec![keyed, serde_json::json!({"join": join})];
            }
        }
        pipelines.push(serde_json::json!({
            "name": "by-order", "from": "orders", "to": {"topic": "sums", "value": {"serde": "Long"}},
            "steps": steps,
        }));
        let declaration = serde_json::json!({
            "language": "v1",
            "types": [{"name": "Order", "fields": {"customer": "string", "amount": "int"}}],
            "streams": [{
                "name": "orders", "topic": "orders", "key": {"serde": "String"},
                "value": {"serde": "Json", "type": "Order"},
            }],
            "pipelines": pipelines,
        });
        let plan = topology::plan(&serde_json::from_value(declaration)?)
            .map_err(|errors| anyhow::anyhow!("the simulated application: {errors:?}"))?;
        let id = ApplicationId("simulated".to_owned());
        let mut topics = BTreeMap::from([
            ("orders".to_owned(), Topic::Orders),
            ("sums".to_owned(), Topic::Sums),
        ]);
        let mut tasks = Vec::new();
        for sub in &plan.sub_topologies {
            for store in &sub.stores {
                topics.insert(store.changelog.resolve(&id.0), Topic::Changelog);
            }
            for sink in &sub.sinks {
                let name = sink.topic.resolve(&id.0);
                let topic = if name.ends_with("-right-repartition") {
                    Topic::RightRepartition
                } else {
                    Topic::Repartition
                };
                topics.entry(name).or_insert(topic);
            }
            tasks.extend((0..PARTITIONS).map(|partition| TaskId {
                sub_topology: sub.name.clone(),
                partition,
            }));
        }
        Ok(Self {
            sums,
            id,
            plan: Arc::new(plan),
            tasks,
            topics,
        })
    }

    /// Whether a task has a store.
    pub(crate) fn has_store(&self, task: &TaskId) -> bool {
        let mut subs = self.plan.sub_topologies.iter();
        subs.any(|sub| sub.name == task.sub_topology && !sub.stores.is_empty())
    }

    /// The topic of a name in Kafka.
    pub(crate) fn topic(&self, name: &str) -> Topic {
        // The application's own topics are all in the list.
        self.topics.get(name).copied().unwrap_or(Topic::Control)
    }
}

/// The order of a number, and its partition.
pub(crate) fn order(number: i64) -> (i32, Record) {
    let value = format!(
        r#"{{"customer":"{}","amount":{}}}"#,
        customer(number),
        amount(number)
    );
    let partition = i32::try_from(number % i64::from(PARTITIONS)).unwrap_or(0);
    let record = Record {
        key: Some(format!("o{number}").into_bytes()),
        value: Some(value.into_bytes()),
        timestamp: number,
    };
    (partition, record)
}

/// Whose order it is.
pub(crate) fn customer(number: i64) -> String {
    let (nth, (in_rows, again)) = (number / 2, CUSTOMERS);
    if number % 2 == 0 {
        format!("row{}", nth / ROW % in_rows)
    } else {
        format!("again{}", nth % again)
    }
}

/// What it adds.
pub(crate) fn amount(number: i64) -> i64 {
    10 + number % 3
}

/// The sum after an order; `None`: deleted. The simulation's own idea of it.
pub(crate) fn added(sum: Option<i64>, number: i64) -> Option<i64> {
    let next = sum.unwrap_or(0) + amount(number);
    (next <= LIMIT).then_some(next)
}

/// The results of joins among the first orders: customer and value. The simulation's own idea of them.
pub(crate) fn pairs(orders: i64) -> BTreeSet<(String, i64)> {
    let even = |left: i64| (left - NEAR..=left + NEAR).filter(move |right| right % 2 == 0);
    let pairs = (0..orders).flat_map(|left| even(left).map(move |right| (left, right)));
    let pairs =
        pairs.filter(|(left, right)| (0..orders).contains(right) && customer(*left) == customer(*right));
    pairs
        .map(|(left, right)| (customer(left), left * SIDE + right))
        .collect()
}

/// The windows of a partition. The simulation's own idea of them.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    time: i64,
    /// Sums by start and customer.
    pub(crate) open: BTreeMap<(i64, String), i64>,
}

impl Windows {
    /// Takes an order; returns the results of the windows that are closed now, in their order.
    pub(crate) fn add(&mut self, number: i64) -> Vec<(String, i64)> {
        self.time = self.time.max(number);
        let time = self.time;
        let is_closed = |start: i64| start + SIZE + GRACE <= time;
        let start = number - number % SIZE;
        if !is_closed(start) {
            *self.open.entry((start, customer(number))).or_default() += amount(number);
        }
        let mut results = Vec::new();
        while let Some(first) = self.open.first_entry().filter(|first| is_closed(first.key().0)) {
            let ((_, customer), sum) = first.remove_entry();
            results.push((customer, sum));
        }
        results
    }
}
