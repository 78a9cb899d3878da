//! `examples/orders-risk` as two tasks in memory, for the allocation test and the example.
#![allow(unreachable_pub, dead_code, clippy::unwrap_used, reason = "a part of tests")]

use std::sync::Arc;

use streamapp_engine::{InputRecord, Outgoing, Output, OutputError, Processed, Store, Task};
use topology::Plan;

/// Customers, each with one key.
pub const KEYS: usize = 100;

/// Stage 1: JSON → selectKey → repartition. Stage 2: row → aggregate → filter → mapValues → JSON.
pub fn plan() -> Arc<Plan> {
    let declaration = serde_json::json!({
        "language": "v1",
        "types": [{"name": "Order", "fields": {
            "orderId": "string", "customerId": "string", "amountInCents": "int", "note": "string?",
            "submittedAt": "timestampMillis"
        }}],
        "streams": [{
            "name": "orders", "topic": "orders.submitted.v1", "key": {"serde": "String"},
            "value": {"serde": "Json", "type": "Order"}, "timestamp": "value.submittedAt"
        }],
        "pipelines": [{
            "name": "exposure", "from": "orders",
            "steps": [
                {"selectKey": "value.customerId"},
                {"groupByKey": {}},
                {"aggregate": {
                    "store": "exposure-by-customer", "initial": "0", "add": "aggregate + value.amountInCents"
                }},
                {"toStream": {}},
                {"filter": "value >= 1000000"},
                {"mapValues": {"fields": {
                    "decisionId": "'risk-exposure:' + key + ':' + string(value)", "customerId": "key",
                    "exposure": "value"
                }}}
            ],
            "to": {"topic": "risk.decisions.v1", "value": {"serde": "Json"}}
        }]
    });
    Arc::new(topology::plan(&serde_json::from_value(declaration).unwrap()).unwrap())
}

/// An order's amount: a customer is beyond the limit with the seventh order.
pub fn amount(number: usize) -> i64 {
    i64::try_from(150_000 + number % 50_000).unwrap()
}

/// An order's value, about 200 bytes as in the benches; every tenth note has an escape.
pub fn order(number: usize, keys: usize) -> String {
    let note = if number.is_multiple_of(10) {
        r#"said \"soon\""#
    } else {
        "nothing to be said"
    };
    format!(
        concat!(
            r#"{{"orderId":"order-{:012}","customerId":"customer-{:06}","amountInCents":{},"note":"{}","#,
            r#""items":[{{"sku":"A-17","count":2}}],"submittedAt":{}}}"#
        ),
        number,
        // Each key comes once per `keys` orders, in an order that is no sequence.
        number * 7919 % keys,
        amount(number),
        note,
        1_760_000_000_000_i64 + i64::try_from(number).unwrap(),
    )
}

/// Keeps the last result of a sink, and counts.
pub struct Last {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub timestamp: i64,
    pub count: usize,
    pub bytes: usize,
}

impl Last {
    pub fn new() -> Self {
        let room = || Vec::with_capacity(1024);
        Self {
            key: room(),
            value: room(),
            timestamp: 0,
            count: 0,
            bytes: 0,
        }
    }
}

impl Output for Last {
    fn check(&self, record: &Outgoing<'_>) -> Result<(), OutputError> {
        assert!(record.value.is_some_and(|value| value.len() < 1_000_000));
        Ok(())
    }

    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), OutputError> {
        let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
        self.key.clear();
        self.key.extend_from_slice(key);
        self.value.clear();
        self.value.extend_from_slice(value);
        self.timestamp = record.timestamp;
        self.count += 1;
        self.bytes += key.len() + value.len();
        Ok(())
    }
}

/// A task of a stage.
pub fn task<S: Store>(plan: &Arc<Plan>, stage: usize, stores: Vec<S>) -> Task<S> {
    Task::new(Arc::clone(plan), stage, 0, stores)
}

/// Runs one record and asserts that it was processed.
pub fn process<S: Store>(
    task: &mut Task<S>,
    offset: usize,
    key: &[u8],
    value: &[u8],
    ts: i64,
    output: &mut Last,
) {
    let record = InputRecord {
        topic: "in",
        partition: 0,
        offset: i64::try_from(offset).unwrap(),
        timestamp: ts,
        key: Some(key),
        value: Some(value),
        headers: &[],
    };
    assert_eq!(task.process(0, &record, output), Ok(Processed::Done));
}
