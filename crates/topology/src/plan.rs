//! The typed plan: what a worker runs, and what the operator and the command line prepare for it.
//!
//! A plan is pure data plus compiled expressions. It names internal topics without the `application.id`;
//! [`TopicName::resolve`] adds it.

use std::fmt;
use std::sync::Arc;

use crate::{Expr, StructType, Type};

/// Index into [`SubTopology::nodes`].
pub type NodeIndex = usize;
/// Index into [`SubTopology::sources`].
pub type SourceIndex = usize;
/// Index into [`SubTopology::stores`].
pub type StoreIndex = usize;
/// Index into [`SubTopology::sinks`].
pub type SinkIndex = usize;

/// A checked topology.
#[derive(Debug)]
pub struct Plan {
    /// In the order in which records flow: a sub-topology comes after those that feed it.
    pub sub_topologies: Vec<SubTopology>,
}

/// A part of the topology that runs in one task per partition; parts are cut at repartition topics.
#[derive(Debug)]
pub struct SubTopology {
    /// Name of its first source; `<name>-<partition>` is the task id.
    pub name: String,
    /// Where records come from: at least one. A task reads the same partition of each, in the order of event time.
    pub sources: Vec<Source>,
    /// What is done with them.
    pub nodes: Vec<Node>,
    /// State stores of a task.
    pub stores: Vec<StoreSpec>,
    /// Topics that a task writes, changelogs apart.
    pub sinks: Vec<Sink>,
}

impl SubTopology {
    /// The source whose rules hold for what goes wrong at a node when there is no record: the first one that leads there.
    #[must_use]
    pub fn source_of(&self, node: NodeIndex) -> Option<&Source> {
        self.sources_of(node).next()
    }

    /// The sources that lead to a node.
    pub(crate) fn sources_of(&self, node: NodeIndex) -> impl Iterator<Item = &Source> {
        let sources = self.sources.iter();
        sources.filter(move |source| self.leads(source.node, node))
    }

    /// Whether rows of a store are visited in the order of their keys.
    #[must_use]
    pub fn is_ordered(&self, store: StoreIndex) -> bool {
        let has_windows = self
            .stores
            .get(store)
            .is_some_and(|store| store.windows.is_some());
        let visits = |node: &Node| matches!(node.op, Op::Notify { store: of } if of == store);
        has_windows || self.nodes.iter().any(visits)
    }

    /// Whether an expression of it reads headers.
    pub(crate) fn reads_headers(&self) -> bool {
        let nodes = self.nodes.iter().flat_map(|node| node.op.expressions());
        let computed = self.sinks.iter().flat_map(|sink| match &sink.headers {
            SinkHeaders::Computed(headers) => headers.as_slice(),
            SinkHeaders::None | SinkHeaders::Forwarded => &[],
        });
        let timestamps = self.sources.iter().filter_map(|source| source.timestamp.as_ref());
        let mut all = nodes.chain(computed.map(|(_, expr)| expr)).chain(timestamps);
        all.any(|expr| expr.reads().headers)
    }

    /// The declaration's path of a node.
    #[must_use]
    pub fn path(&self, node: NodeIndex) -> &str {
        self.nodes.get(node).map_or("", |node| node.path.as_str())
    }

    pub(crate) fn leads(&self, from: NodeIndex, to: NodeIndex) -> bool {
        let (mut seen, mut next) = (vec![false; self.nodes.len()], vec![from]);
        while let Some(at) = next.pop() {
            if at == to {
                return true;
            }
            if seen.get(at) == Some(&false) {
                seen[at] = true;
                next.extend(&self.nodes[at].children);
            }
        }
        false
    }
}

/// One processor and what it forwards to.
#[derive(Debug)]
pub struct Node {
    /// Path of the step in the declaration, e.g. `spec.topology.pipelines[0].steps[2]`.
    pub path: String,
    /// What it does.
    pub op: Op,
    /// Nodes that receive its results, in declared order.
    pub children: Vec<NodeIndex>,
}

/// What a node does with a record.
#[derive(Debug)]
pub enum Op {
    /// Forwards the record unchanged (where a source begins, where several ways meet; `toStream`).
    Forward,
    /// Forwards the record when the expression is true.
    Filter(Expr),
    /// Forwards the record when the expression is false.
    FilterNot(Expr),
    /// Replaces the key.
    SelectKey(Expr),
    /// Replaces the value.
    MapValues(Expr),
    /// Replaces both; each reads the record as it was.
    Map {
        /// The new key.
        key: Expr,
        /// The new value.
        value: Expr,
    },
    /// Forwards a record for each item of the list, with the same key.
    FlatMapValues(Expr),
    /// Updates the aggregate of the record's key and forwards (key, new aggregate). A null key or value drops
    /// the record (counted). A null aggregate deletes the key and is forwarded as a tombstone. The result's timestamp is
    /// max(record, stored), as in Kafka Streams. In a store with windows: for each window of the record that is not closed,
    /// with the windowed key; a record whose windows are all closed is dropped (counted).
    Aggregate {
        /// The store that holds the aggregates.
        store: StoreIndex,
        /// When results are forwarded.
        emit: Emit,
        /// What a key begins with.
        first: First,
        /// New value from `aggregate`, `key`, `value`.
        add: Expr,
        /// For session windows: the aggregate of two windows that become one, from `aggregate`, the earlier one's, and `value`, the
        /// later one's.
        merge: Option<Box<Expr>>,
        /// Of a table that was grouped anew: the aggregate without a value that is there no more, from `aggregate`, `key`, `value`.
        /// Records are those of [`Self::GroupTable`].
        remove: Option<Box<Expr>>,
    },
    /// Forwards the record unless there is one like it in the store, whose session windows are as long as a record is kept.
    Deduplicate {
        /// The store that holds when records came.
        store: StoreIndex,
        /// What they are found by, beside their key.
        by: Option<Expr>,
    },
    /// Keeps the last value of each key and forwards it as an update; a null value deletes the key and is a tombstone. A null key
    /// drops the record (counted).
    Table {
        /// The store that holds the values.
        store: StoreIndex,
    },
    /// Forwards an update of a table where its value, or the one before, is one for which the expression is this: with a null in
    /// the place of one for which it is not (`KTableFilter`).
    FilterTable {
        /// The condition.
        condition: Expr,
        /// What it is for values that stay.
        keeps: bool,
    },
    /// Replaces an update's value and the one before (`KTableMapValues`).
    MapTable(Expr),
    /// Forwards an update under another key: a record of `before` and `after`, of the value that is there no more and of the new
    /// one, either of which may be null. Where their keys differ these are two records, `before` first (`KTableRepartitionMap`,
    /// KIP-904).
    GroupTable {
        /// The other key.
        key: Expr,
        /// What goes on of each value.
        value: Expr,
    },
    /// Forwards a stream's record with what a table has under its key, at the record's own time (`KStreamKTableJoin`).
    JoinTable {
        /// The table's store.
        store: StoreIndex,
        /// The store where records wait until none of the table can come that is as early as they.
        held: Option<StoreIndex>,
        /// What becomes of a record for whose key the table has nothing.
        unmatched: Unmatched,
        /// The new value, from `left`, the record's, and `right`, the table's.
        value: Expr,
    },
    /// Forwards the last of a table's updates of a key, some time after the first one (`KTableSuppressProcessor`).
    Suppress {
        /// The store where they wait.
        store: StoreIndex,
    },
    /// Forwards an update of one of two tables with what the other one has under its key, at the later of both times; a tombstone
    /// where there is no result any more (`KTableKTableInnerJoin` and the like).
    JoinTables {
        /// The other table's store.
        other: StoreIndex,
        /// Which of the two this is.
        side: Side,
        /// What becomes of a value of the left table alone.
        left: Unmatched,
        /// What becomes of a value of the right table alone.
        right: Unmatched,
        /// The new value, from `left` and `right`.
        value: Expr,
    },
    /// Forwards a record of one of two streams with each of the other one's that has its key and is near in time, at the later of both
    /// times, and keeps it for those that come later (`KStreamKStreamJoin`).
    JoinStreams {
        /// The store that holds the records of both.
        store: StoreIndex,
        /// Which of the two this is.
        side: Side,
        /// What becomes of a record of the left stream that nothing was joined with when its time is over.
        left: Unmatched,
        /// What becomes of such a record of the right stream.
        right: Unmatched,
        /// The new value, from `left` and `right`.
        value: Expr,
    },
    /// Forwards what an update of a table says to those whose key it names: a record of [`subscription`] under the key that is named
    /// now, and one under the key that was named before, where that is another one (`SubscriptionSendProcessorSupplier`, KIP-213).
    Subscribe {
        /// The key that a value names; null where it names none.
        foreign_key: Expr,
    },
    /// Keeps who names a key, and answers with a record of [`response`] what the table has under it
    /// (`SubscriptionReceiveProcessorSupplier`).
    Register {
        /// The store of those who name a key, by that and by their own.
        store: StoreIndex,
        /// The table's store.
        table: StoreIndex,
    },
    /// Forwards an update of the table to all who name its key, as a record of [`response`] each
    /// (`ForeignTableJoinProcessorSupplier`).
    Notify {
        /// As of [`Self::Register`].
        store: StoreIndex,
    },
    /// Keeps and forwards the value of a key that names one of another table, with what is there under that; a tombstone where there
    /// is no result any more. Of an update of the own table only what needs no answer (`ResponseJoinProcessorSupplier`).
    JoinForeignKey {
        /// The own table's store.
        table: StoreIndex,
        /// The store of the results.
        store: StoreIndex,
        /// [`Side::Left`]: of updates of the own table; [`Side::Right`]: of records of [`response`].
        side: Side,
        /// What becomes of a value that names nothing.
        unmatched: Unmatched,
        /// As of [`Self::Subscribe`].
        foreign_key: Expr,
        /// The new value, from `left` and `right`.
        value: Expr,
    },
    /// Writes the record to a topic.
    Sink(SinkIndex),
    /// Writes the record to one of these topics.
    Route {
        /// The topic's name.
        by: Expr,
        /// The sinks, by their topics' names.
        sinks: Vec<(Box<str>, SinkIndex)>,
    },
}

impl Op {
    /// Everything that it computes.
    fn expressions(&self) -> Vec<&Expr> {
        match self {
            Self::Forward
            | Self::Table { .. }
            | Self::Suppress { .. }
            | Self::Register { .. }
            | Self::Notify { .. }
            | Self::Sink(_) => Vec::new(),
            Self::Filter(expr)
            | Self::FilterNot(expr)
            | Self::SelectKey(expr)
            | Self::MapValues(expr)
            | Self::FlatMapValues(expr)
            | Self::MapTable(expr)
            | Self::FilterTable { condition: expr, .. }
            | Self::JoinTable { value: expr, .. }
            | Self::JoinTables { value: expr, .. }
            | Self::JoinStreams { value: expr, .. }
            | Self::Subscribe { foreign_key: expr }
            | Self::Route { by: expr, .. } => vec![expr],
            Self::Map { key, value } | Self::GroupTable { key, value } => vec![key, value],
            Self::JoinForeignKey {
                foreign_key, value, ..
            } => vec![foreign_key, value],
            Self::Deduplicate { by, .. } => by.iter().collect(),
            Self::Aggregate {
                first,
                add,
                merge,
                remove,
                ..
            } => {
                let optional = [merge, remove].into_iter().flatten().map(|expr| &**expr);
                [first.expr(), add].into_iter().chain(optional).collect()
            }
        }
    }
}

/// What becomes of one side of a join for which the other side has nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmatched {
    /// There is no result.
    Dropped,
    /// There is a result without a value of the other side.
    Forwarded,
}

/// One of the two sides of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one whose pipeline has the join as a step.
    Left,
    /// The one that is joined with it.
    Right,
}

impl Side {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// What an aggregate is for the first record of a key.
#[derive(Clone, Debug)]
pub enum First {
    /// This, to which the record is added.
    Initial(Expr),
    /// What this says of the record.
    Record(Expr),
}

impl First {
    /// The expression; it has the aggregate's type.
    #[must_use]
    pub fn expr(&self) -> &Expr {
        match self {
            Self::Initial(expr) | Self::Record(expr) => expr,
        }
    }
}

/// The input of a sub-topology.
#[derive(Debug)]
pub struct Source {
    /// Declared name of the stream, or of the repartition.
    pub name: String,
    /// The topic.
    pub topic: TopicName,
    /// The node that receives its records.
    pub node: NodeIndex,
    /// How keys are read.
    pub key: Format,
    /// How values are read.
    pub value: Format,
    /// Event time; the record's own timestamp when absent.
    pub timestamp: Option<Expr>,
    /// How many milliseconds event time may be ahead of the record's own timestamp; any when absent.
    pub max_ahead_ms: Option<i64>,
    /// What a record that cannot be read, or whose timestamp cannot be computed, does.
    pub on_bad_record: OnBadRecord,
    /// What a record does that a step or a sink of this sub-topology refuses.
    pub on_error: OnBadRecord,
    /// Where records go that either sends away.
    pub dead_letters: Option<SinkIndex>,
    /// Where a task begins that has never committed. Internal topics: always the beginning.
    pub offset_reset: OffsetReset,
    /// Whether its records are to be given with their headers.
    pub headers: bool,
}

/// A topic that a sub-topology writes.
#[derive(Clone, Debug)]
pub struct Sink {
    /// The topic.
    pub topic: TopicName,
    /// How keys are written.
    pub key: Format,
    /// How values are written.
    pub value: Format,
    /// The field of the values that says the partition; without one it is chosen by the key.
    pub partition: Option<usize>,
    /// Which headers its records have.
    pub headers: SinkHeaders,
}

/// Headers of a topic's records.
#[derive(Clone, Debug, Default)]
pub enum SinkHeaders {
    /// None; dead letters have some of their own.
    #[default]
    None,
    /// Those of the record that is processed: somebody reads them behind a repartition topic.
    Forwarded,
    /// These, by name. An absent value: none of that name.
    Computed(Vec<(Arc<str>, Expr)>),
}

/// How bytes become values and back. A null record key or value (tombstone) is [`crate::Value::Null`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// UTF-8 bytes.
    String,
    /// Bytes as they are.
    Bytes,
    /// Big-endian, 8 bytes, as Kafka's `LongSerializer`.
    Long,
    /// Big-endian, 4 bytes, as Kafka's `IntegerSerializer`.
    Integer,
    /// IEEE 754, big-endian, 8 bytes, as Kafka's `DoubleSerializer`.
    Double,
    /// One byte, 0 or 1, as Kafka's `BooleanSerializer`.
    Boolean,
    /// UTF-8 in the form 8-4-4-4-12, as Kafka's `UUIDSerializer`.
    Uuid,
    /// A JSON object. Reading: only these fields are parsed, all others are skipped (but must be well-formed).
    /// Writing: fields in this order, no spaces.
    Json(Arc<StructType>),
    /// StreamApp's own compact encoding of a typed value (see `docs/reference/formats.md`).
    Row(Type),
    /// A key in a window for topics: the key, and the window's start (big-endian, 8 bytes), as Kafka Streams'
    /// `TimeWindowedSerializer` writes it. Partitions are chosen by the key alone, as there.
    TimeWindowed {
        /// Of the key.
        key: Box<Format>,
        /// Of the windows, in milliseconds.
        size_ms: i64,
    },
    /// A key in a session window for topics: the key, the window's end and its start (8 bytes each), as Kafka Streams'
    /// `SessionWindowedSerializer` writes it.
    SessionWindowed {
        /// Of the key.
        key: Box<Format>,
    },
}

impl Format {
    /// The name of one of Kafka's own encodings.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        Some(match self {
            Self::String => "String",
            Self::Bytes => "Bytes",
            Self::Long => "Long",
            Self::Integer => "Integer",
            Self::Double => "Double",
            Self::Boolean => "Boolean",
            Self::Uuid => "UUID",
            Self::Json(_) | Self::Row(_) | Self::TimeWindowed { .. } | Self::SessionWindowed { .. } => {
                return None;
            }
        })
    }

    /// Type of the values.
    #[must_use]
    pub fn ty(&self) -> Type {
        match self {
            Self::String | Self::Uuid => Type::String,
            Self::Bytes => Type::Bytes,
            Self::Long | Self::Integer => Type::Int,
            Self::Double => Type::Double,
            Self::Boolean => Type::Bool,
            Self::Json(ty) => Type::Struct(Arc::clone(ty)),
            Self::Row(ty) => ty.clone(),
            Self::TimeWindowed { key, .. } | Self::SessionWindowed { key } => windowed_key(key.ty()),
        }
    }
}

/// A record of `key`, `windowStart` and `windowEnd`.
#[must_use]
pub fn windowed_key(key: Type) -> Type {
    let fields = [
        ("key", key),
        ("windowStart", Type::Timestamp),
        ("windowEnd", Type::Timestamp),
    ];
    Type::record("windowed key", fields)
}

/// What a store holds of a record that is joined with others: whether it was, and its value on its side.
#[must_use]
pub fn joined_row(left: &Type, right: &Type) -> Type {
    let side = |ty: &Type| Type::Optional(Box::new(ty.clone()));
    let fields = [
        ("joined", Type::Bool),
        ("left", side(left)),
        ("right", side(right)),
    ];
    Type::record("joined", fields)
}

/// What a table forwards when it is grouped anew: the value that was there `before`, and the one `after`.
#[must_use]
pub fn change(ty: &Type) -> Type {
    let side = || ty.clone().or_absent();
    Type::record("change", [("before", side()), ("after", side())])
}

/// What the row of a subscription is found by: the key that is named, and the one whose value names it.
#[must_use]
pub fn subscriber(foreign_key: &Type, key: &Type) -> Type {
    let fields = [("foreignKey", foreign_key.clone()), ("key", key.clone())];
    Type::record("subscriber", fields)
}

/// What says under a key whether that of another table names it, and in which partition that one lies.
#[must_use]
pub fn subscription(key: &Type) -> Type {
    let fields = [
        ("key", key.clone()),
        ("isThere", Type::Bool),
        ("partition", Type::Int),
    ];
    Type::record("subscription", fields)
}

/// What is said of a key that is named: which it is, and its value, if there is one; and to which partition.
#[must_use]
pub fn response(foreign_key: &Type, value: &Type) -> Type {
    let fields = [
        ("foreignKey", foreign_key.clone()),
        ("value", value.clone().or_absent()),
        ("partition", Type::Int),
    ];
    Type::record("response", fields)
}

/// The field of a [`response`] that says where it goes.
pub(crate) const RESPONSE_PARTITION: usize = 2;

/// How event time is divided for an aggregation. With the meaning that each kind has in Kafka Streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    /// Windows of one size.
    Time(TimeWindows),
    /// Windows of a key's records that are near to each other.
    Session(SessionWindows),
    /// Windows of one length, one for each set of a key's records that are near to each other.
    Sliding(SlidingWindows),
    /// Windows around each record, in which it is joined.
    Join(JoinWindows),
    /// From a table's first update of a key until its last one is forwarded.
    Suppress {
        /// How long that is, in milliseconds.
        limit_ms: i64,
    },
    /// From one value of a table's key to the next (KIP-889).
    Versions {
        /// How long after its end it can still be found, in milliseconds.
        retention_ms: i64,
    },
    /// From a record's time until it is joined with a table (KIP-923).
    Held {
        /// How long that is, in milliseconds.
        grace_ms: i64,
    },
}

impl Windows {
    /// The time up to which rows are closed at a stream time: of the starts of time windows, of the ends of sessions, sliding windows and versions,
    /// of the last partners of records that are joined, of the first updates and of the records that wait.
    #[must_use]
    pub fn last_closed(self, stream_time: i64) -> i64 {
        match self {
            Self::Time(windows) => windows.last_closed(stream_time),
            Self::Session(windows) => windows.last_closed(stream_time),
            Self::Sliding(windows) => windows.last_closed(stream_time),
            Self::Join(windows) => windows.last_closed(stream_time),
            Self::Suppress { limit_ms: wait }
            | Self::Versions { retention_ms: wait }
            | Self::Held { grace_ms: wait } => stream_time.saturating_sub(wait),
        }
    }
}

/// Windows of one size, whose starts are a fixed time apart, from the Unix epoch on; in milliseconds (`TimeWindows`,
/// `KStreamWindowAggregate`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeWindows {
    /// From start, which belongs to a window, to end, which does not. Above zero.
    pub size_ms: i64,
    /// From one start to the next: above zero, at most the size.
    pub advance_ms: i64,
    /// How long after its end a window takes records.
    pub grace_ms: i64,
}

/// Windows from a key's first to its last record, both inside; records further apart than the gap are in different ones; in
/// milliseconds (`SessionWindows`, `KStreamSessionWindowAggregate`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionWindows {
    /// Most time between two records of one window that have none between them. Above zero.
    pub gap_ms: i64,
    /// How long after its end and the gap a window takes records.
    pub grace_ms: i64,
}

/// Windows from a time to another one that is this much later, both inside, that end with a record or begin just behind one; in
/// milliseconds (KIP-450, `SlidingWindows`, `KStreamSlidingWindowAggregate`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlidingWindows {
    /// Most time between two records of one window.
    pub difference_ms: i64,
    /// How long after its end a window takes records.
    pub grace_ms: i64,
}

impl SlidingWindows {
    /// Windows that end at or before this are closed at a stream time.
    #[must_use]
    pub fn last_closed(self, stream_time: i64) -> i64 {
        stream_time.saturating_sub(self.grace_ms).saturating_sub(1)
    }

    /// The time of the row in the order of ends with which a window of this start is forgotten. A record that is as late as may be
    /// reads windows that ended up to twice the difference before it.
    #[must_use]
    pub fn forgotten(self, start: i64) -> i64 {
        start
            .saturating_add(self.difference_ms.saturating_mul(3))
            .saturating_add(2)
    }
}

/// How near in time records are that are joined; in milliseconds (`JoinWindows`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinWindows {
    /// How much earlier than a record of the left stream one of the right stream may be.
    pub before_ms: i64,
    /// How much later it may be.
    pub after_ms: i64,
    /// How long after that others may come.
    pub grace_ms: i64,
}

impl JoinWindows {
    /// How much later than a record of this side one of the other side may be.
    #[must_use]
    pub fn reach(self, side: Side) -> i64 {
        match side {
            Side::Left => self.after_ms,
            Side::Right => self.before_ms,
        }
    }

    /// First and last timestamp of records of the other side that one of this side is joined with.
    #[must_use]
    pub fn around(self, side: Side, timestamp: i64) -> (i64, i64) {
        let (earlier, later) = (self.reach(side.other()), self.reach(side));
        let first = timestamp.saturating_sub(earlier).max(0);
        (first, timestamp.saturating_add(later))
    }

    /// Records are not joined any more whose last partner could be of this time or before.
    #[must_use]
    pub fn last_closed(self, stream_time: i64) -> i64 {
        stream_time.saturating_sub(self.grace_ms).saturating_sub(1)
    }
}

impl TimeWindows {
    /// Starts of the windows that a timestamp is in, the earliest first. Timestamps are not negative.
    pub fn starts(self, timestamp: i64) -> impl Iterator<Item = i64> {
        let last = timestamp - timestamp.rem_euclid(self.advance_ms);
        let earlier = (self.size_ms - 1 - (timestamp - last)).max(0) / self.advance_ms;
        let first = last
            .saturating_sub(earlier.saturating_mul(self.advance_ms))
            .max(0);
        (0..=(last - first) / self.advance_ms).map(move |nth| first + nth * self.advance_ms)
    }

    /// Windows that start at or before this are closed at a stream time: their end and grace are not after it.
    #[must_use]
    pub fn last_closed(self, stream_time: i64) -> i64 {
        stream_time
            .saturating_sub(self.size_ms)
            .saturating_sub(self.grace_ms)
    }
}

impl SessionWindows {
    /// Windows that end at or before this are closed at a stream time: gap and grace behind their end are over.
    #[must_use]
    pub fn last_closed(self, stream_time: i64) -> i64 {
        let open = stream_time
            .saturating_sub(self.gap_ms)
            .saturating_sub(self.grace_ms);
        open.saturating_sub(1)
    }
}

/// When an aggregation forwards its results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    /// Each time one changes.
    OnUpdate,
    /// Once, when its window is closed.
    OnWindowClose,
}

/// A state store of a sub-topology.
#[derive(Debug)]
pub struct StoreSpec {
    /// Declared name.
    pub name: String,
    /// Format of the keys; in a store with windows, of the keys in the windows.
    pub key: Format,
    /// Type of the stored value; store and changelog hold the timestamp and the value (`formats.md`).
    pub value: Type,
    /// Of a store with windows. How its rows lie is told in `formats.md`.
    pub windows: Option<Windows>,
    /// Hex digest of everything that must not change while the store lives.
    pub fingerprint: String,
    /// The changelog topic.
    pub changelog: TopicName,
}

impl StoreSpec {
    /// Type of what a row is found by: the key, or the key in its window.
    #[must_use]
    pub fn row_key(&self) -> Type {
        match self.windows {
            Some(Windows::Time(_) | Windows::Session(_) | Windows::Sliding(_)) => windowed_key(self.key.ty()),
            None
            | Some(
                Windows::Join(_) | Windows::Suppress { .. } | Windows::Versions { .. } | Windows::Held { .. },
            ) => self.key.ty(),
        }
    }
}

/// A topic, with internal names still without the `application.id`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicName {
    /// Owned by others.
    External(String),
    /// `<application.id>-<name>-repartition`
    Repartition(String),
    /// `<application.id>-<name>-changelog`
    Changelog(String),
}

/// `spec.topology.streams[].onBadRecord` and `.onError`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBadRecord {
    /// Stop the task at this record.
    Fail,
    /// Count it and go on.
    Skip,
    /// Send it to the dead-letter topic, in the same transaction as the offset that passes it, and go on.
    DeadLetter,
}

/// `spec.topology.streams[].offsetReset`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetReset {
    /// From the first record that the topic still holds.
    Earliest,
    /// From the records written after the first start.
    Latest,
}

impl TopicName {
    /// The topic's name in Kafka.
    #[must_use]
    pub fn resolve(&self, application_id: &str) -> String {
        match self {
            Self::External(name) => name.clone(),
            Self::Repartition(name) => format!("{application_id}-{name}-repartition"),
            Self::Changelog(name) => format!("{application_id}-{name}-changelog"),
        }
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resolve("<application.id>"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_in_all_windows_that_start_not_after_it_and_end_after_it() {
        let starts = |size_ms, advance_ms, timestamp| {
            let windows = TimeWindows {
                size_ms,
                advance_ms,
                grace_ms: 0,
            };
            windows.starts(timestamp).collect::<Vec<_>>()
        };
        for (size, advance) in [(10, 10), (10, 5), (10, 3), (10, 4), (7, 1), (1, 1)] {
            for timestamp in 0..60 {
                let all = (0..=timestamp).filter(|start| start % advance == 0);
                let wanted: Vec<_> = all.filter(|start| start + size > timestamp).collect();
                assert_eq!(
                    starts(size, advance, timestamp),
                    wanted,
                    "{size} {advance} {timestamp}"
                );
            }
        }
        assert_eq!(starts(i64::MAX, i64::MAX, i64::MAX - 1), [0]);
    }
}
