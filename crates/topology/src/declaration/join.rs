//! Steps that bring several streams and tables together.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// `join`, `leftJoin` and `outerJoin`: a stream with a table, two tables, or two streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Join {
    /// The other side: name of a table, of a stream or of a pipeline.
    pub with: String,
    /// Of two tables: the key of the other side that a value on this side names, from `key` and `value`; it may be absent. Without
    /// it, equal keys are joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cel"))]
    pub foreign_key: Option<String>,
    /// Name of the join: of the store that it keeps, if any, and of the repartition topics where a key was changed before, or with
    /// `foreignKey`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of two streams: how far apart the timestamps of two records are, at most, that are joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Duration<0>>,
    /// How much earlier a record of the other stream may be, at most. Default: `within`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Duration<0>>,
    /// How much later a record of the other stream may be, at most. Default: `within`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Duration<0>>,
    /// Of two streams: how much later than others a record may come and still be joined. What has nothing on the other side has its
    /// result, in `leftJoin` and `outerJoin`, when this is over. Of a stream with a table that has `historyRetention`: how long a record
    /// waits for updates of the table that come late. Default there: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Duration<0>>,
    /// Fields of the new value, each with its expression, from `key`, `left` and `right`; ordered by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("additionalProperties" = {"type": "string", "format": "cel"}))]
    pub fields: Option<BTreeMap<String, String>>,
    /// The new value, from `key`, `left` and `right`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cel"))]
    pub expression: Option<String>,
}

/// Which step a [`Join`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// `join`
    Inner,
    /// `leftJoin`
    Left,
    /// `outerJoin`
    Outer,
}

impl JoinKind {
    /// The step's name in the declaration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Inner => "join",
            Self::Left => "leftJoin",
            Self::Outer => "outerJoin",
        }
    }
}

/// `merge`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Merge {
    /// Names of streams or pipelines, whose keys and values have the same types.
    pub with: Vec<String>,
}

/// `toTable`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToTable {
    /// Name of the state store; also of the repartition topic, where the key was changed before.
    pub store: String,
    /// As `tables[].historyRetention`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_retention: Option<Duration>,
}
