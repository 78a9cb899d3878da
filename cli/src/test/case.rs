//! The file of test cases that lies beside a topology.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// `NAME.test.yaml`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct TestFile {
    /// Each begins with empty stores.
    pub(crate) tests: Vec<Case>,
}

/// Inputs, and what must come of them. What is left out is not compared.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Case {
    /// What the case shows.
    pub(crate) name: String,
    /// Partitions of each topic. Default: one.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) partitions: i32,
    /// Records, each processed to its end before the next.
    pub(crate) inputs: Vec<Input>,
    /// All records that are written, in the order of each topic.
    #[serde(default)]
    pub(crate) outputs: Option<Vec<Expected>>,
    /// All rows of each store that is named, in the end.
    #[serde(default)]
    pub(crate) stores: Option<BTreeMap<String, Vec<Row>>>,
    /// How many records were dropped, by reason; `skipped` and `dead-lettered` count what the stream's policies did.
    #[serde(default)]
    pub(crate) dropped: Option<BTreeMap<String, i64>>,
    /// A part of the error at which the task stops. Inputs behind it are not processed.
    #[serde(default)]
    pub(crate) error: Option<String>,
}

fn one() -> i32 {
    1
}

/// A record that is read. Keys and values are written as YAML: a string, a number, an object, by the serde of the stream;
/// bytes as a string, or as `{base64: …}`; null, or nothing, is a null key or a tombstone.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Input {
    /// Name of the stream. May be left out where there is one only.
    #[serde(default)]
    pub(crate) stream: Option<String>,
    /// Partition. Default: that of the key.
    #[serde(default)]
    pub(crate) partition: Option<i32>,
    /// The key.
    #[serde(default)]
    pub(crate) key: Value,
    /// The value.
    #[serde(default)]
    pub(crate) value: Value,
    /// The value's bytes as text, for what is no proper value.
    #[serde(default)]
    pub(crate) raw: Option<String>,
    /// The record's timestamp: RFC 3339, or milliseconds since the Unix epoch. Default: that of the input before, 0 for the first.
    #[serde(default)]
    pub(crate) at: Value,
    /// Headers, in the order of their names; null is a header without a value.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, Option<String>>,
}

/// A record that must have been written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Expected {
    /// The topic. May be left out where the topology writes to one only.
    #[serde(default)]
    pub(crate) topic: Option<String>,
    /// The key.
    #[serde(default)]
    pub(crate) key: Value,
    /// The value.
    #[serde(default)]
    pub(crate) value: Value,
    /// The timestamp; not compared when left out.
    #[serde(default)]
    pub(crate) at: Value,
    /// Headers, of which null is one without a value; not compared when left out.
    #[serde(default)]
    pub(crate) headers: Option<BTreeMap<String, Option<String>>>,
}

/// A row that must be in a store.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Row {
    /// The key.
    pub(crate) key: Value,
    /// The value.
    pub(crate) value: Value,
    /// The timestamp; not compared when no row of the store has one.
    #[serde(default)]
    pub(crate) at: Value,
}
