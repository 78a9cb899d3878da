//! What a person declares in `spec.topology`: plain data, read from YAML or JSON and written back unchanged.
//!
//! Shapes only; names, types and expressions are checked by [`crate::plan()`]. Every type refuses unknown fields.
//! Fields that hold an expression have `format: cel` in the JSON schema, so that tools can tell them from other
//! strings. Optional fields are left out when they are not set.

mod aggregation;
mod join;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, Path};

pub use aggregation::{
    Aggregate, AggregateField, Aggregation, Cogroup, Collect, Count, Emit, Fold, Hopping, Reduce, Session,
    Sliding, TopK, Tumbling, WindowedBy,
};
pub use join::{Join, JoinKind, Merge, ToTable};

/// `spec.topology`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Topology {
    /// Version of the topology language.
    pub language: Language,
    /// Record types, used by `streams[].value.type` and by fields of other types.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<RecordType>,
    /// Topics that are read, record by record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<Stream>,
    /// Topics that are read as tables: the last value of each key counts, a null value deletes the key. Each is kept in a store of its
    /// name, and read from the first record on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<Stream>,
    /// What is done with them.
    pub pipelines: Vec<Pipeline>,
}

impl Topology {
    /// All topics that are read, with their places.
    pub fn sources(&self) -> impl Iterator<Item = (&Stream, SourceKind, Path)> {
        let lists = [
            (&self.streams, SourceKind::Stream, "streams"),
            (&self.tables, SourceKind::Table, "tables"),
        ];
        lists.into_iter().flat_map(|(list, kind, field)| {
            let sources = list.iter().enumerate();
            sources.map(move |(index, source)| (source, kind, Path::topology().field(field).index(index)))
        })
    }
}

/// How a topic is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// Record by record.
    Stream,
    /// The last value of each key counts.
    Table,
}

impl SourceKind {
    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Table => "table",
        }
    }
}

/// Version of the topology language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Language {
    /// The first version.
    #[serde(rename = "v1")]
    V1,
}

/// A named record type. Fields are ordered by name, whatever the order in the document: Kubernetes does not keep
/// the order of an object's fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordType {
    /// Name, unique among types.
    pub name: String,
    /// Field name to type: `string int double bool bytes timestampMillis`, another type's name, `list(T)`,
    /// `map(string, T)`, or any of these with `?` for a field that may be absent or null.
    pub fields: BTreeMap<String, String>,
}

/// A topic that is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stream {
    /// Name, unique among streams, tables, stores and repartitions; its tasks are named after it.
    pub name: String,
    /// The Kafka topic.
    pub topic: String,
    /// How keys are read.
    pub key: KeyFormat,
    /// How values are read.
    pub value: ValueFormat,
    /// Event time: an expression of type `timestampMillis`. Default: the record's own timestamp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cel"))]
    pub timestamp: Option<String>,
    /// With `timestamp`: how far event time may be ahead of the record's own timestamp. A record whose event time is further ahead
    /// would close windows of others, and counts as one that cannot be read. Default: any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ahead: Option<Duration<0>>,
    /// What a record does that cannot be read.
    #[serde(default)]
    pub on_bad_record: OnBadRecord,
    /// What a record does that a step or a sink refuses: an expression without a value, a result that its topic does not
    /// take. Holds behind repartition topics, too, where several streams meet the strictest; but not for updates of tables behind
    /// `groupBy` or a join with `foreignKey`: the task stops at one of these, since the next one takes back what it would have brought.
    #[serde(default, skip_serializing_if = "OnBadRecord::is_fail")]
    pub on_error: OnBadRecord,
    /// Where records go with `DeadLetter`: with their own key, value, headers and timestamp, and more headers that say where they come
    /// from and what is wrong. They are written in the same transaction as the offset that passes them, also with
    /// `at_least_once`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter_topic: Option<String>,
    /// Where to begin when the application has never committed.
    #[serde(default)]
    pub offset_reset: OffsetReset,
    /// Of a table, and only there: how long a value can still be found that was replaced, by the timestamps of the table's records. A
    /// stream's record is then joined with what the table had at its own time. Default: only the last value is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_retention: Option<Duration>,
}

/// Kafka encodings of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeySerde {
    /// UTF-8.
    String,
    /// Bytes as they are.
    Bytes,
    /// Big-endian, 8 bytes.
    Long,
    /// Big-endian, 4 bytes.
    Integer,
    /// UTF-8 in the form 8-4-4-4-12.
    #[serde(rename = "UUID")]
    Uuid,
}

/// Kafka encodings of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ValueSerde {
    /// A JSON object with the fields of a declared type.
    Json,
    /// UTF-8.
    String,
    /// Bytes as they are.
    Bytes,
    /// Big-endian, 8 bytes.
    Long,
    /// Big-endian, 4 bytes.
    Integer,
    /// IEEE 754, big-endian, 8 bytes.
    Double,
    /// One byte, 0 or 1.
    Boolean,
    /// UTF-8 in the form 8-4-4-4-12.
    #[serde(rename = "UUID")]
    Uuid,
}

/// How keys are read or written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyFormat {
    /// The encoding.
    pub serde: KeySerde,
}

/// How values are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValueFormat {
    /// The encoding.
    pub serde: ValueSerde,
    /// Name of a declared type; with `serde: Json`, and only then.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_name: Option<String>,
}

/// How values are written; the type is that of the pipeline's last step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SinkValueFormat {
    /// The encoding.
    pub serde: ValueSerde,
}

/// What a record does that cannot be read, whose timestamp cannot be computed, or that cannot be processed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnBadRecord {
    /// The task stops at the record.
    #[default]
    Fail,
    /// The record is counted and skipped.
    Skip,
    /// The record goes to the stream's `deadLetterTopic`.
    DeadLetter,
}

impl OnBadRecord {
    /// Left out of configurations, so that these stay as they were before there was a choice.
    fn is_fail(&self) -> bool {
        *self == Self::Fail
    }
}

/// Where to begin when the application has never committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OffsetReset {
    /// The first record that the topic still holds.
    #[default]
    Earliest,
    /// Records written after the first start.
    Latest,
}

/// Steps from a stream, or from the results of another pipeline, to a topic or to pipelines that read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pipeline {
    /// Name, unique among pipelines.
    pub name: String,
    /// Name of a stream, of a table or of another pipeline; several pipelines may read one. If several have the name, the stream or
    /// table is meant.
    pub from: String,
    /// What happens to each record, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// Where results go. May be left out where another pipeline reads them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<SinkTopic>,
}

/// The topic that a pipeline writes, or topics of which each record goes to one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SinkTopic {
    /// The Kafka topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Instead of `topic`: Kafka topics of which `topicOf` chooses one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 64))]
    pub topics: Vec<String>,
    /// The name of the record's topic, an expression of type string. A record for which it is none of `topics` cannot be processed;
    /// a tombstone is dropped if it reads the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cel"))]
    pub topic_of: Option<String>,
    /// How keys are written. Default: the encoding that fits the key's type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyFormat>,
    /// How values are written.
    pub value: SinkValueFormat,
    /// Headers, in the order of their names: expressions of type string or bytes. One without a value is left out, and so is one
    /// that reads the value of a tombstone. Default: none; those of the input are not passed on by themselves.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "format": "cel"}))]
    pub headers: BTreeMap<String, String>,
}

impl SinkTopic {
    /// The topics, each with its place in the declaration.
    pub(crate) fn topics(&self, path: &Path) -> impl Iterator<Item = (&str, Path)> {
        let one = self
            .topic
            .iter()
            .map(|topic| (topic.as_str(), path.field("topic")));
        let several = self.topics.iter().enumerate();
        let path = path.field("topics");
        one.chain(several.map(move |(at, topic)| (topic.as_str(), path.index(at))))
    }
}

/// One step: exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct Step {
    /// Replaces the key by the expression's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cel"))]
    pub select_key: Option<String>,
    /// Keeps records for which the expression is true; of a table the values, and deletes the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cel"))]
    pub filter: Option<String>,
    /// Keeps records for which the expression is false; of a table the values, and deletes the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cel"))]
    pub filter_not: Option<String>,
    /// Replaces the value; behind a table each of its values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_values: Option<MapValues>,
    /// Replaces key and value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<Map>,
    /// Makes a record of each item of a list, in its order, with the same key: an expression of type `list(T)`. An empty list makes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cel"))]
    pub flat_map_values: Option<String>,
    /// Goes on with the records of other streams, too, as they come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<Merge>,
    /// Joins with what has the same key on the other side; what is on one side only has no result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<Join>,
    /// As `join`; what is on this side only has a result, too, in which `right` is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_join: Option<Join>,
    /// As `leftJoin`; what is on the other side only has a result, too, in which `left` is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outer_join: Option<Join>,
    /// Drops records that came before: with the same key and the same value of an expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deduplicate: Option<Deduplicate>,
    /// Groups records by a new key for the aggregation that follows; behind a table its values by theirs, where each value counts as
    /// long as it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_by: Option<GroupBy>,
    /// Groups records by their key for the aggregation that follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_by_key: Option<GroupByKey>,
    /// Lets the aggregation that follows keep one value per key and window of event time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windowed_by: Option<WindowedBy>,
    /// Keeps one value per key and updates it with each record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregate: Option<Aggregate>,
    /// Keeps the number of records per key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<Count>,
    /// Keeps the sum of an expression per key: of `int` or `double`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sum: Option<Fold>,
    /// Keeps the smallest value of an expression per key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Fold>,
    /// Keeps the largest value of an expression per key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Fold>,
    /// Keeps the value that an expression had for the first record per key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earliest: Option<Fold>,
    /// Keeps the value that an expression had for the last record per key, in the order of processing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<Fold>,
    /// Keeps the last values of an expression per key, in the order of processing, as a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collect: Option<Collect>,
    /// Keeps the records per key for which an expression is largest, as a list, the largest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<TopK>,
    /// Keeps one value per key, the first record's at first, and combines it with each further record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduce: Option<Reduce>,
    /// Keeps the last value of each key; behind the steps of a table, its values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_table: Option<ToTable>,
    /// Sends only the last of a table's updates of a key on, some time after the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppress: Option<Suppress>,
    /// Takes each update of a table as a record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_stream: Option<ToStream>,
}

/// The operator of a [`Step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator<'a> {
    /// [`Step::select_key`]
    SelectKey(&'a str),
    /// [`Step::filter`]
    Filter(&'a str),
    /// [`Step::filter_not`]
    FilterNot(&'a str),
    /// [`Step::map_values`]
    MapValues(&'a MapValues),
    /// [`Step::map`]
    Map(&'a Map),
    /// [`Step::flat_map_values`]
    FlatMapValues(&'a str),
    /// [`Step::merge`]
    Merge(&'a Merge),
    /// [`Step::join`], [`Step::left_join`] or [`Step::outer_join`]
    Join(JoinKind, &'a Join),
    /// [`Step::deduplicate`]
    Deduplicate(&'a Deduplicate),
    /// [`Step::group_by`]
    GroupBy(&'a GroupBy),
    /// [`Step::group_by_key`]
    GroupByKey(&'a GroupByKey),
    /// [`Step::windowed_by`]
    WindowedBy(&'a WindowedBy),
    /// Any of the steps that keep one value per key.
    Aggregate(Aggregation<'a>),
    /// [`Step::to_table`]
    ToTable(&'a ToTable),
    /// [`Step::suppress`]
    Suppress(&'a Suppress),
    /// [`Step::to_stream`]
    ToStream,
}

impl Operator<'_> {
    /// The operator's name in the declaration.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::SelectKey(_) => "selectKey",
            Self::Filter(_) => "filter",
            Self::FilterNot(_) => "filterNot",
            Self::MapValues(_) => "mapValues",
            Self::Map(_) => "map",
            Self::FlatMapValues(_) => "flatMapValues",
            Self::Merge(_) => "merge",
            Self::Join(kind, _) => kind.name(),
            Self::Deduplicate(_) => "deduplicate",
            Self::GroupBy(_) => "groupBy",
            Self::GroupByKey(_) => "groupByKey",
            Self::WindowedBy(_) => "windowedBy",
            Self::Aggregate(aggregation) => aggregation.name(),
            Self::ToTable(_) => "toTable",
            Self::Suppress(_) => "suppress",
            Self::ToStream => "toStream",
        }
    }
}

impl Step {
    /// The operator that is set.
    ///
    /// # Errors
    /// The names of the operators that are set, when it is not exactly one.
    pub fn operator(&self) -> Result<Operator<'_>, Vec<&'static str>> {
        let aggregations = [
            self.aggregate.as_ref().map(Aggregation::Aggregate),
            self.count.as_ref().map(Aggregation::Count),
            self.sum.as_ref().map(Aggregation::Sum),
            self.min.as_ref().map(Aggregation::Min),
            self.max.as_ref().map(Aggregation::Max),
            self.earliest.as_ref().map(Aggregation::Earliest),
            self.latest.as_ref().map(Aggregation::Latest),
            self.collect.as_ref().map(Aggregation::Collect),
            self.top_k.as_ref().map(Aggregation::TopK),
            self.reduce.as_ref().map(Aggregation::Reduce),
        ];
        let joins = [
            (JoinKind::Inner, &self.join),
            (JoinKind::Left, &self.left_join),
            (JoinKind::Outer, &self.outer_join),
        ];
        let joins = joins.map(|(kind, join)| join.as_ref().map(|join| Operator::Join(kind, join)));
        let set: Vec<_> = [
            self.select_key.as_deref().map(Operator::SelectKey),
            self.filter.as_deref().map(Operator::Filter),
            self.filter_not.as_deref().map(Operator::FilterNot),
            self.map_values.as_ref().map(Operator::MapValues),
            self.map.as_ref().map(Operator::Map),
            self.flat_map_values.as_deref().map(Operator::FlatMapValues),
            self.merge.as_ref().map(Operator::Merge),
            self.deduplicate.as_ref().map(Operator::Deduplicate),
            self.group_by.as_ref().map(Operator::GroupBy),
            self.group_by_key.as_ref().map(Operator::GroupByKey),
            self.windowed_by.as_ref().map(Operator::WindowedBy),
            self.to_table.as_ref().map(Operator::ToTable),
            self.suppress.as_ref().map(Operator::Suppress),
            self.to_stream.as_ref().map(|_| Operator::ToStream),
        ]
        .into_iter()
        .chain(joins)
        .chain(aggregations.map(|aggregation| aggregation.map(Operator::Aggregate)))
        .flatten()
        .collect();
        match set.as_slice() {
            [operator] => Ok(*operator),
            several => Err(several.iter().map(Operator::name).collect()),
        }
    }
}

/// A name for what expressions beside it need more than once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Let {
    /// The name.
    pub name: String,
    /// What it stands for. Names of the list before it can be used.
    #[schemars(extend("format" = "cel"))]
    pub expression: String,
}

/// `mapValues`: either `fields` or `expression`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["fields"]}, {"required": ["expression"]}]))]
pub struct MapValues {
    /// Names for what the expressions need more than once; computed once for each record.
    #[serde(default, rename = "let", skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 32))]
    pub lets: Vec<Let>,
    /// Fields of the new value, each with its expression; ordered by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("additionalProperties" = {"type": "string", "format": "cel"}))]
    pub fields: Option<BTreeMap<String, String>>,
    /// The new value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cel"))]
    pub expression: Option<String>,
}

/// `map`: `key`, and one of the others. All of them read the record as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Map {
    /// As in `mapValues`; for the key, too.
    #[serde(default, rename = "let", skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 32))]
    pub lets: Vec<Let>,
    /// The new key.
    #[schemars(extend("format" = "cel"))]
    pub key: String,
    /// Fields of the new value, each with its expression; ordered by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("additionalProperties" = {"type": "string", "format": "cel"}))]
    pub fields: Option<BTreeMap<String, String>>,
    /// The new value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cel"))]
    pub expression: Option<String>,
}

/// `deduplicate`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Deduplicate {
    /// Name of the state store; also of the repartition topic, where the key was changed before.
    pub store: String,
    /// What two records have in common that are the same, beside their key: an expression of type `string`, `int` or `bytes`. Default:
    /// nothing else than the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cel"))]
    pub by: Option<String>,
    /// How far apart the timestamps of two records are, at most, that are the same. A record that is so much late that this is not known
    /// any more is dropped, too.
    pub within: Duration,
}

/// `groupBy`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GroupBy {
    /// The new key.
    #[schemars(extend("format" = "cel"))]
    pub key: String,
    /// Name of the repartition topic. Default: the name of the store that follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// `groupByKey`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GroupByKey {
    /// Name of the repartition topic, if one is needed. Default: the name of the store that follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// `suppress`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Suppress {
    /// Name of the state store.
    pub store: String,
    /// How long after the first update of a key its last one is sent on, by the timestamps of records.
    pub until_time_limit: Duration<0>,
}

/// `toStream`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToStream {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_says_which_operators_are_set_when_it_is_not_one() {
        let step: Step = serde_json::from_str(r#"{"filter":"true","toStream":{}}"#).unwrap();
        assert_eq!(step.operator(), Err(vec!["filter", "toStream"]));
        assert_eq!(Step::default().operator(), Err(vec![]));
    }
}
