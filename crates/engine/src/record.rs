//! What goes into a task, what comes out, and what can go wrong between.

use std::fmt;

/// A record of the task's input, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct InputRecord<'a> {
    /// The topic's name in Kafka.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// The key; `None` for null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` for a tombstone.
    pub value: Option<&'a [u8]>,
}

/// Where results go. Called only after the whole record has succeeded.
pub trait Output {
    /// Whether a result of this size can be sent; asked for all results of a record before the first is sent.
    ///
    /// # Errors
    /// When it cannot.
    fn check(&self, sink: usize, key_bytes: usize, value_bytes: usize) -> Result<(), OutputError>;

    /// Sends a result. After an error the transaction must be dropped: earlier results of the record are in it.
    ///
    /// # Errors
    /// When the producer does not take it.
    fn send(
        &mut self,
        sink: usize,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp: i64,
    ) -> Result<(), OutputError>;
}

/// A result that cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OutputError(String);

impl OutputError {
    /// With a message for people.
    #[must_use]
    pub fn new(message: String) -> Self {
        Self(message)
    }
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Processed {
    /// Processed.
    Done,
    /// An operator dropped it, as its semantics say.
    Dropped(DropReason),
    /// It could not be read, and `onBadRecord` is `Skip`.
    Skipped(BadRecord),
}

/// Why an operator drops a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// A grouping met a null key.
    NullKey,
    /// An operator that needs a value met a tombstone.
    NullValue,
}

/// Where a record is and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// Topic, partition, offset.
    pub at: (String, i32, i64),
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (topic, partition, offset) = &self.at;
        write!(f, "record {topic}/{partition}@{offset}: {}", self.reason)
    }
}

/// Kind of a [`ProcessError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCategory {
    /// The record's bytes are not what the plan reads.
    Deserialization,
    /// An expression has no value for it.
    Expression,
    /// A store could not be read.
    Store,
    /// A result could not be written.
    Output,
}

/// Why a task cannot go past a record. Nothing of the record is staged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{record} (step {step}); {}", advice(*.category))]
pub struct ProcessError {
    /// The kind.
    pub category: ErrorCategory,
    /// Path of the step in the declaration.
    pub step: String,
    /// Where the record is and what is wrong.
    pub record: BadRecord,
}

fn advice(category: ErrorCategory) -> &'static str {
    match category {
        ErrorCategory::Deserialization => {
            "correct the producer or the declared type, or set onBadRecord: Skip for this stream"
        }
        ErrorCategory::Expression => {
            "change the expression so that it has a value for this record, or filter the record before"
        }
        ErrorCategory::Store => "the store cannot be read; see the worker's log",
        ErrorCategory::Output => "make the result smaller, or raise the topic's max.message.bytes",
    }
}
