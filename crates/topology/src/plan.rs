//! The typed plan: what a worker runs, and what the operator and the command line prepare for it.
//!
//! A plan is pure data plus compiled expressions. It names internal topics without the `application.id`;
//! [`TopicName::resolve`] adds it.

mod format;
mod windows;

use std::fmt;
use std::sync::Arc;

use crate::{Expr, Path, Type};

pub(crate) use format::RESPONSE_PARTITION;
pub use format::{Format, change, joined_row, response, subscriber, subscription, windowed_key};
pub use windows::{JoinWindows, SessionWindows, SlidingWindows, TimeWindows, Windows};

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
    /// Where the step stands in the declaration, e.g. `spec.topology.pipelines[0].steps[2]`.
    pub path: Path,
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
