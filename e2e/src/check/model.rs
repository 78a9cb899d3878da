//! The checker's own model of the two example topologies: written from their declarations, sharing nothing with the
//! worker.

use hashbrown::HashMap;
use serde::Serialize;

/// `filter: value >= 1000000` of orders-risk.
const RISK_THRESHOLD: i64 = 1_000_000;
/// `filter: value.amountInCents >= 10000` of the stateless example.
const SCORED_FROM: i64 = 10_000;
/// `large: value.amountInCents > 50000` of the stateless example.
const LARGE_ABOVE: i64 = 50_000;

/// A record that the topology should have written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) value: Box<[u8]>,
    pub(crate) timestamp: i64,
}

/// The state of one customer: the sum, and the largest record timestamp so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exposure {
    pub(crate) sum: i64,
    pub(crate) timestamp: i64,
}

/// The aggregation of orders-risk for one partition of the repartition topic.
#[derive(Debug, Default)]
pub(crate) struct ExposureByCustomer {
    /// The order of this map is never observed.
    pub(crate) store: HashMap<Box<str>, Exposure>,
}

impl ExposureByCustomer {
    /// Takes one repartition record and answers with the decision that it causes, if any.
    pub(crate) fn add(&mut self, customer: &str, amount: i64, timestamp: i64) -> Option<Expected> {
        let before = self
            .store
            .get(customer)
            .copied()
            .unwrap_or(Exposure { sum: 0, timestamp });
        let exposure = Exposure {
            sum: before.sum + amount,
            timestamp: before.timestamp.max(timestamp),
        };
        self.store.insert(customer.into(), exposure);
        (exposure.sum >= RISK_THRESHOLD).then(|| Expected {
            value: decision(customer, exposure.sum),
            timestamp: exposure.timestamp,
        })
    }
}

/// Fields in the order of their names, as records are written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Decision<'a> {
    customer_id: &'a str,
    decision_id: String,
    exposure: i64,
}

fn decision(customer: &str, exposure: i64) -> Box<[u8]> {
    let decision_id = format!("risk-exposure:{customer}:{exposure}");
    json(&Decision {
        decision_id,
        customer_id: customer,
        exposure,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Scored<'a> {
    amount_in_cents: i64,
    customer_id: &'a str,
    large: bool,
    order_id: &'a str,
}

/// What the stateless example writes for one order, if anything.
pub(crate) fn scored(order: &str, customer: &str, amount: i64, submitted_at: i64) -> Option<Expected> {
    (amount >= SCORED_FROM).then(|| Expected {
        value: json(&Scored {
            order_id: order,
            customer_id: customer,
            amount_in_cents: amount,
            large: amount > LARGE_ABOVE,
        }),
        timestamp: submitted_at,
    })
}

/// Structs of strings and numbers always have a JSON form: an impossible failure gives a value that equals nothing.
fn json(value: &impl Serialize) -> Box<[u8]> {
    serde_json::to_vec(value).unwrap_or_default().into()
}
