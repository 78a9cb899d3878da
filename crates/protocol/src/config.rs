//! Worker configuration: one JSON document, written by the operator or by `streamapp run`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ApplicationId;

/// `spec.processing.maxTaskIdle` unless said: what a broker may take to tell of a record (`fetch.wait.max.ms`).
pub const DEFAULT_MAX_TASK_IDLE_MS: u64 = 100;

/// What all workers of an application need to know before they start. Which ordinal one speaks for is told to it alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkerConfig {
    /// The application.
    pub application_id: ApplicationId,
    /// Stream threads.
    pub threads: u32,
    /// Processing guarantee.
    pub guarantee: Guarantee,
    /// Longest time a transaction stays open, in milliseconds.
    pub commit_interval_ms: u64,
    /// `transaction.timeout.ms` of the producers.
    pub transaction_timeout_ms: u64,
    /// How long a record waits for earlier ones of inputs that are at their end, in milliseconds;
    /// [`DEFAULT_MAX_TASK_IDLE_MS`] unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_task_idle_ms: Option<u64>,
    /// The Kafka cluster.
    pub kafka: KafkaConfig,
    /// The declared topology.
    pub topology: topology::declaration::Topology,
    /// Where stores live.
    pub state_dir: PathBuf,
    /// Memory limit of each worker, in bytes; [`DEFAULT_MEMORY_BYTES`](crate::DEFAULT_MEMORY_BYTES) without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Address of `/livez /readyz /status /metrics`, e.g. `127.0.0.1:0`.
    pub http_listen: String,
}

/// How to reach Kafka.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaConfig {
    /// `host:port[,host:port…]`
    pub bootstrap_servers: String,
    /// More librdkafka properties.
    #[serde(default)]
    pub client_config: BTreeMap<String, String>,
}

/// `spec.processing.guarantee`, in Kafka's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guarantee {
    /// Outputs, state and positions become visible together, once.
    #[default]
    #[serde(rename = "exactly_once_v2")]
    ExactlyOnceV2,
    /// State and positions are exact; sinks may repeat.
    AtLeastOnce,
}
