//! The document's types. Text of fields is what `kubectl explain` shows.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};

use crate::{Duration, Status};

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
    /// What is: written by the operator, ignored in files.
    #[serde(default, skip_serializing)]
    #[schemars(with = "Option<Ignored>")]
    pub status: Option<Status>,
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
    /// Copies of each task's stores on other workers, ready to take the task over.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub standbys: u32,
    /// Image of the workers. Default: the one that the operator was installed with, pinned when the app was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Secrets with credentials for the image's registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<NamedReference>,
    /// CPU and memory of each worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// What else the pods get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
    /// Where stores live.
    #[serde(default)]
    pub state: State,
    /// What happens to volumes that are not needed any more.
    #[serde(default)]
    pub retention_policy: RetentionPolicy,
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
    /// How long a record waits for earlier ones of other topics that its task reads and that are at their end (Kafka's
    /// `max.task.idle.ms`). Only for tasks with several topics: joins and merges. Default: 100ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_task_idle: Option<Duration<0>>,
}

impl Default for Processing {
    fn default() -> Self {
        Self {
            guarantee: Guarantee::default(),
            commit_interval: Duration::from_millis(100),
            transaction_timeout: Duration::from_millis(10_000),
            max_task_idle: None,
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
    /// TLS. Without it the connection is not encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Who the application is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
    /// More librdkafka properties. Those that StreamApp sets itself are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub client_config: BTreeMap<String, String>,
    /// Repartition, changelog, control and position topics.
    #[serde(default)]
    pub internal_topics: InternalTopics,
}

/// Properties that `clientConfig` may not set, because the guarantees rest on them or another field sets them.
pub const REFUSED_CLIENT_PROPERTIES: [(&str, &str); 13] = [
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
    ("security.protocol", "it follows from `tls` and `authentication`"),
    ("sasl.mechanism", "set `authentication.type`"),
    ("sasl.username", "set `authentication.username`"),
    ("sasl.password", "set `authentication.passwordSecret`"),
    ("ssl.ca.pem", "set `tls.trustedCertificates`"),
];

/// TLS to the brokers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tls {
    /// Certificates of the authorities that signed the brokers'. Default: those of the image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trusted_certificates: Vec<CertificateSource>,
}

/// A certificate in a Secret, as Strimzi writes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateSource {
    /// Name of the Secret, in the app's namespace.
    pub secret_name: String,
    /// Key in the Secret: PEM.
    pub certificate: String,
}

/// SASL authentication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Authentication {
    /// The mechanism.
    #[serde(rename = "type")]
    pub mechanism: Mechanism,
    /// The user.
    pub username: String,
    /// Where the password is.
    pub password_secret: PasswordSource,
}

/// SASL mechanisms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// SCRAM with SHA-512.
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
    /// SCRAM with SHA-256.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// The password as it is; with TLS only.
    Plain,
}

/// A password in a Secret, as Strimzi writes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PasswordSource {
    /// Name of the Secret, in the app's namespace.
    pub secret_name: String,
    /// Key in the Secret.
    pub password: String,
}

/// An object of the app's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamedReference {
    /// Its name.
    pub name: String,
}

/// CPU and memory of a container, e.g. `{cpu: 500m, memory: 1Gi}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Resources {
    /// What the scheduler reserves.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("additionalProperties" = {"type": "string", "format": "quantity"}))]
    pub requests: BTreeMap<String, String>,
    /// What the container may use. A worker shares `memory` out among its stores, queues and caches; without a limit it uses up to 1 GiB.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("additionalProperties" = {"type": "string", "format": "quantity"}))]
    pub limits: BTreeMap<String, String>,
}

/// What the pods get besides what the operator gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PodTemplate {
    /// Labels; those of the operator win.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Labels that a node needs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Name of a PriorityClass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
}

/// Where stores live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct State {
    /// The volume of each worker.
    pub volume: Volume,
}

/// The volume of each worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Volume {
    /// Its size; it can only grow.
    #[schemars(extend("format" = "quantity"))]
    pub size: String,
    /// Its StorageClass. Default: the cluster's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
}

impl Default for Volume {
    fn default() -> Self {
        Self {
            size: "1Gi".to_owned(),
            storage_class_name: None,
        }
    }
}

/// What happens to volumes that are not needed any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RetentionPolicy {
    /// When the StreamApp is deleted.
    pub when_deleted: Retention,
    /// When it gets fewer replicas.
    pub when_scaled: Retention,
}

/// What happens to a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Retention {
    /// It stays; a later app of the same name finds its stores there.
    #[default]
    Retain,
    /// It goes; stores are rebuilt from their changelogs when they are wanted again.
    Delete,
}

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
    schema_of::<StreamApp>()
}

pub(crate) fn schema_of<T: JsonSchema>() -> serde_json::Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().into()
}
