//! Records of the control log, as JSON values with a `type`.
//!
//! Operator records (written by the operator, or by `streamapp run` where there is none) carry `prev`: the
//! offset of the operator record that they were decided on. The fold ignores one whose `prev` is not the
//! latest, so that a deposed leader cannot act (compare-and-set).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Ordinal, TaskId, Uid, World};

/// One record of the control log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Record {
    /// This object owns the `application.id`; others refuse.
    Claim {
        /// Offset of the operator record this was decided on.
        prev: Option<i64>,
        /// Where: the Kubernetes cluster's id (uid of its `kube-system` namespace), or `run` for a state directory.
        cluster: String,
        /// Who: the StreamApp object's uid, or the state directory's uid of `streamapp run`.
        uid: Uid,
        /// For people: cluster and namespace, or host and directory.
        description: String,
    },
    /// The owner has let go: the next claim needs no permission.
    Released {
        /// Offset of the operator record this was decided on.
        prev: Option<i64>,
    },
    /// Who owns which task from now on.
    Assignment {
        /// Offset of the operator record this was decided on.
        prev: Option<i64>,
        /// Every task of the plan.
        owners: BTreeMap<TaskId, Owner>,
        /// Who follows the changelogs of which task, ready to own it.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        standbys: Standbys,
    },
    /// All producers of an ordinal are fenced: it can no longer commit what it owned before that assignment.
    Fenced {
        /// Offset of the operator record this was decided on.
        prev: Option<i64>,
        /// Offset of the assignment that took tasks from the ordinal.
        assignment: i64,
        /// The fenced ordinal.
        ordinal: Ordinal,
    },
    /// What the log says up to here: everything before it may be deleted.
    Snapshot {
        /// Offset of the operator record this was decided on.
        prev: Option<i64>,
        /// The fold of all records before this one.
        world: Box<World>,
    },
    /// A person begins this log in place of one that was lost. Written after every id of these ordinals' threads was
    /// initialised, so that nobody who worked by the lost log can commit.
    StartedOver {
        /// Offset of the operator record this was decided on.
        prev: Option<i64>,
        /// Threads of each ordinal.
        threads: BTreeMap<Ordinal, u32>,
    },
    /// The process of that uid is gone for good.
    Retired {
        /// Offset of the operator record this was decided on.
        prev: Option<i64>,
        /// The process.
        uid: Uid,
    },
    /// A person lets the task that reads this record pass over it.
    Skipped {
        /// Offset of the operator record this was decided on.
        prev: Option<i64>,
        /// The record.
        record: RecordId,
    },
    /// A process speaks for an ordinal. Written before `init_transactions`, so that whoever it fences can see
    /// its successor.
    Incarnation {
        /// The ordinal.
        ordinal: Ordinal,
        /// The process.
        uid: Uid,
        /// Counts the process's own acquisitions, from 1.
        nonce: u64,
        /// Stream threads, hence transactional ids, of this process.
        threads: u32,
    },
    /// Every task that the assignment took from the ordinal is committed and closed; see [`crate::handover`].
    Adopted {
        /// Offset of the assignment that took tasks from the ordinal.
        assignment: i64,
        /// The ordinal that gave them up.
        ordinal: Ordinal,
        /// The process.
        uid: Uid,
        /// The nonce of its incarnation.
        nonce: u64,
    },
    /// Written after `init_transactions`; the process reads the log through this record before it begins.
    Barrier {
        /// The ordinal.
        ordinal: Ordinal,
        /// The process.
        uid: Uid,
        /// The nonce of its incarnation.
        nonce: u64,
    },
}

/// One record of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordId {
    /// Its topic.
    pub topic: String,
    /// Id of the topic: another one of the same name has other records.
    pub topic_id: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
}

/// Per task the ordinals that keep a copy of its stores.
pub type Standbys = BTreeMap<TaskId, BTreeSet<Ordinal>>;

/// Where a task lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Owner {
    /// The ordinal that runs it.
    pub ordinal: Ordinal,
    /// Its partition of the positions topic; never changes while the task exists.
    pub positions_partition: i32,
    /// Its input partition was added when its sub-topology had tasks already: it is read from its first record, whatever
    /// `offsetReset` says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub added: bool,
}

impl Record {
    /// The operator record this one was decided on; `None` for records of workers.
    #[must_use]
    pub fn prev(&self) -> Option<Option<i64>> {
        match self {
            Self::Claim { prev, .. }
            | Self::Released { prev }
            | Self::Assignment { prev, .. }
            | Self::Fenced { prev, .. }
            | Self::Snapshot { prev, .. }
            | Self::StartedOver { prev, .. }
            | Self::Retired { prev, .. }
            | Self::Skipped { prev, .. } => Some(*prev),
            Self::Incarnation { .. } | Self::Adopted { .. } | Self::Barrier { .. } => None,
        }
    }

    /// As [`Self::prev`], to be changed.
    pub fn prev_mut(&mut self) -> Option<&mut Option<i64>> {
        match self {
            Self::Claim { prev, .. }
            | Self::Released { prev }
            | Self::Assignment { prev, .. }
            | Self::Fenced { prev, .. }
            | Self::Snapshot { prev, .. }
            | Self::StartedOver { prev, .. }
            | Self::Retired { prev, .. }
            | Self::Skipped { prev, .. } => Some(prev),
            Self::Incarnation { .. } | Self::Adopted { .. } | Self::Barrier { .. } => None,
        }
    }
}
