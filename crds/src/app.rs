//! The document's types. Text of fields is what `kubectl explain` shows.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// A stream processing application on Kafka.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StreamApp {
    /// Version of this document's shape.
    pub api_version: ApiVersion,
    /// What the document is.
    pub kind: Kind,
    /// Name and labels.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: Spec,
    /// What is: written by the operator, ignored here.
    #[serde(default, skip_serializing)]
    pub status: Option<Ignored>,
}

/// `apiVersion`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApiVersion {
    /// The first version.
    #[serde(rename = "streamapp.dev/v1alpha1")]
    V1Alpha1,
}

/// `kind`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Kind {
    /// A stream application.
    StreamApp,
}

/// Any object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ignored {}

/// The parts of Kubernetes' object metadata that are used here; others are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Name of the object.
    pub name: String,
    /// Namespace of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Identity in Kafka: consumer group, prefix of internal topics and transactional ids. Default: `metadata.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "application-id"))]
    pub application_id: Option<String>,
    /// Worker processes.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: u32,
    /// Stream threads of each worker.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 256))]
    pub threads: u32,
    /// How records are processed.
    #[serde(default)]
    pub processing: Processing,
    /// The Kafka cluster.
    pub kafka: Kafka,
    /// What is done with records.
    pub topology: topology::declaration::Topology,
}

fn one() -> u32 {
    1
}

fn two() -> u32 {
    2
}

/// How records are processed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Processing {
    /// Processing guarantee, in Kafka's words.
    pub guarantee: Guarantee,
    /// Longest time between two commits.
    pub commit_interval: Duration,
    /// Time after which the broker aborts the transaction of a worker that is gone.
    pub transaction_timeout: Duration,
}

impl Default for Processing {
    fn default() -> Self {
        Self {
            guarantee: Guarantee::default(),
            commit_interval: Duration::from_millis(100),
            transaction_timeout: Duration::from_millis(10_000),
        }
    }
}

/// Processing guarantee, in Kafka's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Guarantee {
    /// Outputs, state and positions become visible together, once.
    #[default]
    #[serde(rename = "exactly_once_v2")]
    ExactlyOnceV2,
    /// State and positions are exact; outputs may repeat.
    #[serde(rename = "at_least_once")]
    AtLeastOnce,
}

/// The Kafka cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kafka {
    /// `host:port[,host:port…]`
    #[schemars(extend("format" = "bootstrap-servers"))]
    pub bootstrap_servers: String,
    /// More librdkafka properties. Those that StreamApp sets itself are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub client_config: BTreeMap<String, String>,
    /// Repartition, changelog, control and position topics.
    #[serde(default)]
    pub internal_topics: InternalTopics,
}

/// Properties that `clientConfig` may not set, because the guarantees rest on them or another field sets them.
pub const REFUSED_CLIENT_PROPERTIES: [(&str, &str); 8] = [
    ("transactional.id", "StreamApp makes it from applicationId"),
    ("acks", "exactly-once needs `all`"),
    ("isolation.level", "exactly-once needs `read_committed`"),
    ("enable.idempotence", "exactly-once needs it"),
    ("group.id", "it is applicationId"),
    (
        "enable.auto.commit",
        "positions are committed with the transaction",
    ),
    ("auto.offset.reset", "set `offsetReset` of the stream"),
    ("bootstrap.servers", "set `bootstrapServers`"),
];

/// Internal topics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct InternalTopics {
    /// Replicas of each partition.
    #[schemars(range(min = 1, max = 32))]
    pub replication_factor: i32,
}

impl Default for InternalTopics {
    fn default() -> Self {
        Self {
            replication_factor: 1,
        }
    }
}

impl StreamApp {
    /// `spec.applicationId`, or `metadata.name` when that is not set.
    #[must_use]
    pub fn application_id(&self) -> &str {
        self.spec.application_id.as_deref().unwrap_or(&self.metadata.name)
    }
}

/// JSON schema of the document, without references. `format` is `cel` where an expression is wanted.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings
        .into_generator()
        .into_root_schema_for::<StreamApp>()
        .into()
}
