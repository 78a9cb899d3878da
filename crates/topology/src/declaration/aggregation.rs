//! Steps that keep values: windows, aggregations.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::{Operator, Step};
use crate::Duration;

/// `windowedBy`: exactly one field is set. Time is that of the records: a window closes when a record of the task is late enough.
/// Behind a repartition records of several partitions meet, as far apart as these are read: grace must cover that, too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct WindowedBy {
    /// Windows of one size, one after the other: each record is in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tumbling: Option<Tumbling>,
    /// Windows of one size that overlap: each record is in several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hopping: Option<Hopping>,
    /// Windows of one size, one for each set of a key's records that are as near to each other as that: each ends with a record, or
    /// begins just behind one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding: Option<Sliding>,
    /// Windows from a key's first record to its last, as long as they are near to each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
}

/// `windowedBy.tumbling`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tumbling {
    /// From a window's start, which belongs to it, to its end, which does not. Windows start at multiples of it since the Unix epoch.
    pub size: Duration,
    /// How long after its end, by the timestamps of records, a window takes records that come late.
    pub grace: Duration<0>,
}

/// `windowedBy.hopping`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hopping {
    /// From a window's start, which belongs to it, to its end, which does not.
    pub size: Duration,
    /// From one window's start to the next one's; at most `size`. Windows start at multiples of it since the Unix epoch.
    pub advance: Duration,
    /// How long after its end, by the timestamps of records, a window takes records that come late.
    pub grace: Duration<0>,
}

/// `windowedBy.sliding`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sliding {
    /// Most time between two records of one window; from its start to its end, which both belong to it.
    pub time_difference: Duration<0>,
    /// How long after its end, by the timestamps of records, a window takes records that come late.
    pub grace: Duration<0>,
}

/// `windowedBy.session`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Session {
    /// Most time between two records of one window that have none between them.
    pub gap: Duration,
    /// How long after its end and the gap, by the timestamps of records, a window takes records that come late.
    pub grace: Duration<0>,
}

/// When a windowed aggregation sends its results on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Emit {
    /// Each time one changes.
    #[default]
    OnUpdate,
    /// Once, when the window is over and its grace, too.
    OnWindowClose,
}

impl Emit {
    /// Left out of configurations, so that these stay as they were before there was a choice.
    fn is_on_update(&self) -> bool {
        *self == Self::OnUpdate
    }
}

/// `aggregate`: `initial` and `add` for one value, or `fields` for a record of several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Aggregate {
    /// Name of the state store.
    pub store: String,
    /// Value of a key before its first record; reads no record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cel"))]
    pub initial: Option<String>,
    /// New value from `aggregate` (the value so far), `key` and `value`; has the type of `initial`. `null` deletes the key, and
    /// its next record begins with `initial` again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cel"))]
    pub add: Option<String>,
    /// With session windows, and only there: the value of two windows that become one, from `aggregate`, the earlier one's value, and
    /// `value`, the later one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cel"))]
    pub merge: Option<String>,
    /// Behind `groupBy` of a table, and only there: the value without one that is there no more, from `aggregate` (the value so far),
    /// `key` and `value`. `null` deletes the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cel"))]
    pub remove: Option<String>,
    /// Fields of the value, ordered by name; each reads all of them as they were, as `aggregate.<name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<BTreeMap<String, AggregateField>>,
    /// Other streams whose records are aggregated with these, under equal keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cogroup: Vec<Cogroup>,
    /// When results are sent on; anything but `OnUpdate` only behind `windowedBy`.
    #[serde(default, skip_serializing_if = "Emit::is_on_update")]
    pub emit: Emit,
}

/// Another stream of an `aggregate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cogroup {
    /// Name of a stream or pipeline whose keys have the same type.
    pub with: String,
    /// New value from `aggregate` (the value so far), `key` and `value`, of that stream. `null` deletes the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cel"))]
    pub add: Option<String>,
    /// Where the aggregate has `fields`: the new values of those that a record of that stream changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("additionalProperties" = {"type": "string", "format": "cel"}))]
    pub fields: Option<BTreeMap<String, String>>,
}

/// A field of an aggregate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AggregateField {
    /// Its value before the first record; reads no record.
    #[schemars(extend("format" = "cel"))]
    pub initial: String,
    /// Its new value, of the same type.
    #[schemars(extend("format" = "cel"))]
    pub add: String,
    /// With session windows, and only there: its value in two windows that become one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cel"))]
    pub merge: Option<String>,
    /// Behind `groupBy` of a table, and only there: its value without one that is there no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cel"))]
    pub remove: Option<String>,
}

/// `count`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Count {
    /// Name of the state store.
    pub store: String,
    /// When results are sent on; anything but `OnUpdate` only behind `windowedBy`.
    #[serde(default, skip_serializing_if = "Emit::is_on_update")]
    pub emit: Emit,
}

/// `sum`, `min`, `max`, `earliest`, `latest`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fold {
    /// Name of the state store.
    pub store: String,
    /// What is kept of each record.
    #[schemars(extend("format" = "cel"))]
    pub of: String,
    /// When results are sent on; anything but `OnUpdate` only behind `windowedBy`.
    #[serde(default, skip_serializing_if = "Emit::is_on_update")]
    pub emit: Emit,
}

/// `collect`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Collect {
    /// Name of the state store.
    pub store: String,
    /// What is kept of each record.
    #[schemars(extend("format" = "cel"))]
    pub of: String,
    /// How many are kept; older ones go.
    #[schemars(range(min = 1, max = 1000))]
    pub limit: u32,
    /// When results are sent on; anything but `OnUpdate` only behind `windowedBy`.
    #[serde(default, skip_serializing_if = "Emit::is_on_update")]
    pub emit: Emit,
}

/// `topK`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TopK {
    /// Name of the state store.
    pub store: String,
    /// What is compared, of `value` alone; of equal ones the later comes first.
    #[schemars(extend("format" = "cel"))]
    pub by: String,
    /// How many are kept.
    #[schemars(range(min = 1, max = 1000))]
    pub limit: u32,
    /// When results are sent on; anything but `OnUpdate` only behind `windowedBy`.
    #[serde(default, skip_serializing_if = "Emit::is_on_update")]
    pub emit: Emit,
}

/// `reduce`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reduce {
    /// Name of the state store.
    pub store: String,
    /// New value from `aggregate` (the value so far), `key` and `value`; has the type of `value`. `null` deletes the key.
    #[schemars(extend("format" = "cel"))]
    pub add: String,
    /// Behind `groupBy` of a table, and only there: the value without one that is there no more. `null` deletes the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cel"))]
    pub remove: Option<String>,
    /// When results are sent on; anything but `OnUpdate` only behind `windowedBy`.
    #[serde(default, skip_serializing_if = "Emit::is_on_update")]
    pub emit: Emit,
}

/// An [`Operator`] that keeps one value per key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation<'a> {
    /// [`Step::aggregate`]
    Aggregate(&'a Aggregate),
    /// [`Step::count`]
    Count(&'a Count),
    /// [`Step::sum`]
    Sum(&'a Fold),
    /// [`Step::min`]
    Min(&'a Fold),
    /// [`Step::max`]
    Max(&'a Fold),
    /// [`Step::earliest`]
    Earliest(&'a Fold),
    /// [`Step::latest`]
    Latest(&'a Fold),
    /// [`Step::collect`]
    Collect(&'a Collect),
    /// [`Step::top_k`]
    TopK(&'a TopK),
    /// [`Step::reduce`]
    Reduce(&'a Reduce),
}

impl<'a> Aggregation<'a> {
    /// The operator's name in the declaration.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Aggregate(_) => "aggregate",
            Self::Count(_) => "count",
            Self::Sum(_) => "sum",
            Self::Min(_) => "min",
            Self::Max(_) => "max",
            Self::Earliest(_) => "earliest",
            Self::Latest(_) => "latest",
            Self::Collect(_) => "collect",
            Self::TopK(_) => "topK",
            Self::Reduce(_) => "reduce",
        }
    }

    /// The name of its state store.
    #[must_use]
    pub fn store(&self) -> &'a str {
        match self {
            Self::Aggregate(aggregate) => &aggregate.store,
            Self::Count(count) => &count.store,
            Self::Sum(fold)
            | Self::Min(fold)
            | Self::Max(fold)
            | Self::Earliest(fold)
            | Self::Latest(fold) => &fold.store,
            Self::Collect(collect) => &collect.store,
            Self::TopK(top) => &top.store,
            Self::Reduce(reduce) => &reduce.store,
        }
    }

    /// Other streams that are aggregated with this one.
    #[must_use]
    pub fn cogroup(&self) -> &'a [Cogroup] {
        if let Self::Aggregate(aggregate) = self {
            &aggregate.cogroup
        } else {
            &[]
        }
    }

    /// When its results are sent on.
    #[must_use]
    pub fn emit(&self) -> Emit {
        match self {
            Self::Aggregate(aggregate) => aggregate.emit,
            Self::Count(count) => count.emit,
            Self::Sum(fold)
            | Self::Min(fold)
            | Self::Max(fold)
            | Self::Earliest(fold)
            | Self::Latest(fold) => fold.emit,
            Self::Collect(collect) => collect.emit,
            Self::TopK(top) => top.emit,
            Self::Reduce(reduce) => reduce.emit,
        }
    }
}
