//! Why a task cannot go past a record.

use topology::plan::{NodeIndex, SubTopology};

use crate::{BadRecord, Origin};

/// Why a task cannot go past a record. Nothing of the record is staged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{record}; at {step}: {}", .record.category.advice())]
pub struct ProcessError {
    /// The record or window, the kind of fault, the reason.
    pub record: BadRecord,
    /// Path of the step in the declaration, e.g. `spec.topology.pipelines[0].steps[2]`; of the pipeline, for
    /// a record that cannot be read.
    pub step: String,
    recovery: Recovery,
}

/// Kind of a [`ProcessError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCategory {
    /// Key or value of the record are not what the plan reads, or its timestamp is negative or too far ahead.
    Deserialization,
    /// An expression has no value for the record.
    Expression,
    /// A store cannot be read, or holds what is no row of its type.
    StoreRead,
    /// A result cannot be written in the format of its topic.
    Serialization,
    /// A result cannot be sent.
    Output,
}

/// What the owner of a task does after a [`ProcessError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The task stops before the record. What earlier records have staged and sent stays good and can be
    /// committed.
    StopTask,
    /// Some results of the record are in the transaction: abort it, then [`crate::Task::discard`].
    AbortTransaction,
}

impl ProcessError {
    /// The kind.
    #[must_use]
    pub fn category(&self) -> ErrorCategory {
        self.record.category
    }

    /// What the owner of the task does.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }
}

impl ErrorCategory {
    /// For metric labels and Event reasons.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deserialization => "Deserialization",
            Self::Expression => "Expression",
            Self::StoreRead => "StoreRead",
            Self::Serialization => "Serialization",
            Self::Output => "Output",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Deserialization => {
                "correct the producer or the declared type, or set `onBadRecord: Skip` or `onBadRecord: DeadLetter` where the topic is declared"
            }
            Self::Expression => {
                "give the expression a value for such records, filter them out before, or set `onError: Skip` or `onError: DeadLetter` where its topic is declared"
            }
            Self::StoreRead => {
                "the state store is damaged or was written by another version; see the worker's log"
            }
            Self::Serialization => {
                "change the step so that its result can be written, filter such records out before, or set `onError: Skip` or `onError: DeadLetter` where the topic is declared"
            }
            Self::Output => "change the step so that the topic takes its result, or change the topic",
        }
    }
}

/// What stops a record, before it is known which record it is.
pub(crate) struct Failure {
    pub(crate) category: ErrorCategory,
    pub(crate) reason: String,
    pub(crate) node: NodeIndex,
    pub(crate) recovery: Recovery,
}

impl Failure {
    #[cold]
    pub(crate) fn new(category: ErrorCategory, node: NodeIndex, reason: impl ToString) -> Self {
        Self {
            category,
            reason: reason.to_string(),
            node,
            recovery: Recovery::StopTask,
        }
    }

    /// Whether the record is to blame, and nothing of it was sent: only then may it be passed over.
    pub(crate) fn is_of_the_record(&self) -> bool {
        match (self.recovery, self.category) {
            (Recovery::AbortTransaction, _) | (_, ErrorCategory::StoreRead) => false,
            (Recovery::StopTask, _) => true,
        }
    }

    #[cold]
    pub(crate) fn bad_record(self, origin: Origin) -> BadRecord {
        BadRecord {
            origin,
            category: self.category,
            reason: self.reason,
        }
    }

    #[cold]
    pub(crate) fn error(self, sub: &SubTopology, origin: Origin) -> ProcessError {
        let step = sub
            .nodes
            .get(self.node)
            .map_or_else(|| sub.name.clone(), |node| node.path.to_string());
        ProcessError {
            recovery: self.recovery,
            record: self.bad_record(origin),
            step,
        }
    }
}
