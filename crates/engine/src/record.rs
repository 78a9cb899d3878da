//! What goes into a task and what comes out of it.

use std::fmt;

use topology::Header;
use topology::plan::SinkIndex;

use crate::ErrorCategory;

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
    /// Its headers; may be left out where [`topology::plan::Source::headers`] does not ask for them.
    pub headers: &'a [Header<'a>],
}

/// The lengths of a header's name and value: two numbers of at most five bytes.
const HEADER: usize = 10;

/// A record that leaves a task, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Its topic.
    pub sink: SinkIndex,
    /// The key; `None` for null.
    pub key: Option<&'a [u8]>,
    /// What its partition is chosen by.
    pub to: ChosenBy<'a>,
    /// The value; `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values.
    pub headers: &'a [Header<'a>],
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
}

/// What the partition of a result is chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChosenBy<'a> {
    /// The key, of a windowed one only the key in the window.
    Key(Option<&'a [u8]>),
    /// The value says it.
    Value(i32),
}

impl Outgoing<'_> {
    /// Of key, value and headers, with what frames each header in a batch.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let headers = self.headers.iter();
        self.key.map_or(0, <[u8]>::len)
            + self.value.map_or(0, <[u8]>::len)
            + headers
                .map(|(name, value)| HEADER + name.len() + value.map_or(0, <[u8]>::len))
                .sum::<usize>()
    }
}

/// Where results go. Called only after the whole record has succeeded, and for dead letters.
pub trait Output {
    /// Whether this result can be sent; asked for all results of a record before the first is sent, so that one
    /// that its topic would refuse stops its task only and leaves the transaction whole.
    ///
    /// # Errors
    /// When it cannot.
    fn check(&self, record: &Outgoing<'_>) -> Result<(), OutputError>;

    /// Sends a result.
    ///
    /// # Errors
    /// When the producer does not take it. The transaction must then be aborted, because earlier results of
    /// the record are in it: [`crate::Recovery::AbortTransaction`].
    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), OutputError>;
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

/// What became of a record. In each case the task goes on behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Processed {
    /// Processed; whatever it had to send and to stage is sent and staged.
    Done,
    /// An operator dropped it, as its semantics say. Where a topology branches, other branches may have
    /// processed it; the reason is that of the first branch in declared order.
    Dropped(DropReason),
    /// It could not be read or processed, and the stream says `Skip` for that. It does not move stream time.
    Skipped(BadRecord),
    /// The same with `DeadLetter`: it was sent to the stream's `deadLetterTopic`.
    DeadLettered(BadRecord),
}

/// Why an operator drops a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// An aggregation met a null key.
    NullKey,
    /// An operator that works on values met a null value (a tombstone).
    NullValue,
    /// All windows of the record were closed.
    Late,
    /// The same record came before.
    Duplicate,
}

impl DropReason {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::NullKey, Self::NullValue, Self::Late, Self::Duplicate];

    /// For metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NullKey => "null-key",
            Self::NullValue => "null-value",
            Self::Late => "late",
            Self::Duplicate => "duplicate",
        }
    }
}

/// A record, or a window, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// Which it is.
    pub origin: Origin,
    /// What kind of fault it is.
    pub category: ErrorCategory,
    /// What is wrong.
    pub reason: String,
}

/// Where the results of a step come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A record of the input.
    Record {
        /// The topic's name in Kafka.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
    },
    /// A window that was closed.
    Window {
        /// The declared name.
        store: String,
        /// The record key, for people.
        key: String,
        /// Milliseconds since the Unix epoch.
        start: i64,
    },
    /// The windows of a store as a whole, by its declared name.
    Store(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record {
                topic,
                partition,
                offset,
            } => write!(f, "record {topic}/{partition}@{offset}"),
            Self::Window { store, key, start } => {
                write!(f, "window from {start} of key {key} in store `{store}`")
            }
            Self::Store(store) => write!(f, "windows of store `{store}`"),
        }
    }
}

impl From<&InputRecord<'_>> for Origin {
    fn from(record: &InputRecord<'_>) -> Self {
        Self::Record {
            topic: record.topic.to_owned(),
            partition: record.partition,
            offset: record.offset,
        }
    }
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.reason)
    }
}
