//! `.status`: what the operator says about an application. Conditions follow kstatus: `Ready` is what people wait for,
//! `Reconciling` is true while the operator works towards the spec, `Stalled` while only a person can help.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is. Written by the operator only; unknown fields of later versions are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Identity in Kafka.
    pub application_id: String,
    /// Worker pods that exist.
    pub replicas: u32,
    /// Worker pods that process.
    pub ready_replicas: u32,
    /// Label selector of the worker pods, for the `scale` sub-resource.
    pub selector: String,
    /// Hash of what pods are made of: image, configuration, template.
    pub revision: String,
    /// Image of the workers.
    pub image: String,
    /// Records not yet read, over all inputs of all tasks that run.
    pub lag: i64,
    /// Tasks whose store is being brought up to its changelog.
    pub restoring: u32,
    /// Tasks of the topology.
    pub tasks: u32,
    /// Sub-topologies, as `name×partitions`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub topology: Vec<String>,
    /// `Ready`, `Reconciling`, `Stalled`.
    pub conditions: Vec<Condition>,
    /// One entry per ordinal.
    pub workers: Vec<Worker>,
}

/// One worker pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Worker {
    /// Its ordinal.
    pub ordinal: u32,
    /// Its pod.
    pub pod: String,
    /// The pod's node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The revision that the pod was made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Phase of the process (`Starting`, `Acquiring`, `Restoring`, `Running`, `Hold`, `Draining`, `Stopped`, `Failed`), or
    /// `Missing` without a pod, `Silent` without an answer.
    pub phase: String,
    /// Why it is in that phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Tasks that it runs.
    pub tasks: u32,
    /// Records not yet read.
    pub lag: i64,
    /// Offsets still to restore, an upper bound for records.
    pub restore_remaining: i64,
    /// Transactions open when it was asked.
    pub open_transactions: u32,
    /// Restarts of its container.
    pub restarts: i32,
}

/// A condition, as Kubernetes' API conventions have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// `Ready`, `Reconciling` or `Stalled`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One CamelCase word.
    pub reason: String,
    /// For people, with what to do.
    pub message: String,
    /// When `status` changed last, RFC 3339.
    pub last_transition_time: String,
    /// The generation of the spec that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
