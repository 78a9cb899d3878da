//! One record on its way through the nodes.

use bumpalo::Bump;
use topology::plan::{Node, NodeIndex, Op, Side, SinkIndex, SubTopology, Unmatched};
use topology::{EvalError, Expr, Scope, Value, ValueReads};

use super::Codecs;
use super::aggregate::{Aggregation, Kept};
use super::foreign_keys::ForeignKey;
use super::joins;
use super::results::Results;
use super::state::State;
use super::tables;
use crate::error::Failure;
use crate::{DropReason, ErrorCategory, InputRecord, Store};

/// A record between two nodes.
#[derive(Clone, Copy)]
pub(super) struct Moving<'a> {
    pub(super) key: Value<'a>,
    pub(super) value: Value<'a>,
    pub(super) timestamp: i64,
    /// Of an update of a table: the key's value before; null where there was none.
    pub(super) before: Value<'a>,
}

/// Whether an expression reads the value of a tombstone.
pub(super) fn lacks_value(expr: &Expr, scope: &Scope<'_>) -> bool {
    scope.value.is_null() && expr.reads().value != ValueReads::Nothing
}

/// What a node passes on.
pub(super) enum Forward<'a> {
    Nothing,
    One(Moving<'a>),
    /// The record with each of these values.
    Each(&'a [Value<'a>]),
}

/// What the nodes work on.
pub(super) struct Walk<'w, 'a, S> {
    pub(super) sub: &'a SubTopology,
    pub(super) codecs: &'w Codecs,
    pub(super) record: &'w InputRecord<'a>,
    pub(super) arena: &'a Bump,
    pub(super) state: &'w mut State<S>,
    pub(super) results: &'w mut Results,
    /// The first drop.
    pub(super) dropped: Option<DropReason>,
}

impl<'a, S: Store> Walk<'_, 'a, S> {
    /// The node and all behind it, children in declared order. A chain takes no stack, only branches do.
    pub(super) fn run(&mut self, node: NodeIndex, moving: Moving<'a>) -> Result<(), Failure> {
        let (mut index, mut moving) = (node, moving);
        loop {
            let Some(node) = self.sub.nodes.get(index) else {
                return Ok(());
            };
            let forward = match self.node(index, node, moving)? {
                Forward::Nothing => return Ok(()),
                Forward::One(forward) => forward,
                Forward::Each(items) => return self.run_each(node, moving, items),
            };
            let Some((last, branches)) = node.children.split_last() else {
                return Ok(());
            };
            for child in branches {
                self.run(*child, forward)?;
            }
            (index, moving) = (*last, forward);
        }
    }

    /// All that is behind the node, for one value after the other.
    fn run_each(
        &mut self,
        node: &'a Node,
        moving: Moving<'a>,
        items: &'a [Value<'a>],
    ) -> Result<(), Failure> {
        for value in items {
            let value = *value;
            self.run_children(node, Moving { value, ..moving })?;
        }
        Ok(())
    }

    /// All that is behind the node.
    pub(super) fn run_children(&mut self, node: &Node, moving: Moving<'a>) -> Result<(), Failure> {
        for child in &node.children {
            self.run(*child, moving)?;
        }
        Ok(())
    }

    /// What the node passes on.
    fn node(&mut self, index: NodeIndex, node: &'a Node, moving: Moving<'a>) -> Result<Forward<'a>, Failure> {
        let scope = || self.scope(&moving);
        let failed = |error| Failure::new(ErrorCategory::Expression, index, error);
        let kept = |is_kept| {
            if is_kept {
                Forward::One(moving)
            } else {
                Forward::Nothing
            }
        };
        Ok(match &node.op {
            Op::Forward => Forward::One(moving),
            Op::Sink(sink) => self.write(*sink, index, &moving)?,
            Op::Route { by, .. } if lacks_value(by, &scope()) => self.drop(DropReason::NullValue),
            Op::Route { by, sinks } => {
                let Value::String(topic) = by.eval(&scope()).map_err(failed)? else {
                    return Err(failed(EvalError::Layout("topicOf")));
                };
                let Some((_, sink)) = sinks.iter().find(|(name, _)| **name == *topic) else {
                    let reason = format!("`{topic}` is none of the topics that are declared");
                    return Err(Failure::new(ErrorCategory::Expression, index, reason));
                };
                self.write(*sink, index, &moving)?
            }
            // Without a key there is nothing on the other side.
            Op::JoinTable {
                unmatched: Unmatched::Forwarded,
                value,
                ..
            }
            | Op::JoinStreams {
                side: Side::Left,
                left: Unmatched::Forwarded,
                value,
                ..
            } if matches!(moving.key, Value::Null) && !matches!(moving.value, Value::Null) => {
                Forward::One(self.joined(index, value, moving, (moving.value, Value::Null))?)
            }
            Op::JoinStreams {
                side: Side::Right,
                right: Unmatched::Forwarded,
                value,
                ..
            } if matches!(moving.key, Value::Null) && !matches!(moving.value, Value::Null) => {
                Forward::One(self.joined(index, value, moving, (Value::Null, moving.value))?)
            }
            Op::Aggregate { .. }
            | Op::Deduplicate { .. }
            | Op::Table { .. }
            | Op::Suppress { .. }
            | Op::JoinTable { .. }
            | Op::JoinTables { .. }
            | Op::JoinStreams { .. }
                if matches!(moving.key, Value::Null) =>
            {
                self.drop(DropReason::NullKey)
            }
            // Expressions over a tombstone have nothing to read.
            Op::Filter(_)
            | Op::FilterNot(_)
            | Op::SelectKey(_)
            | Op::MapValues(_)
            | Op::Map { .. }
            | Op::FlatMapValues(_)
            | Op::Aggregate { .. }
            | Op::Deduplicate { .. }
            | Op::JoinTable { .. }
            | Op::JoinStreams { .. }
                if matches!(moving.value, Value::Null) =>
            {
                self.drop(DropReason::NullValue)
            }
            Op::Filter(condition) => kept(condition.eval_bool(&scope()).map_err(failed)?),
            Op::FilterNot(condition) => kept(!condition.eval_bool(&scope()).map_err(failed)?),
            Op::SelectKey(key) => Forward::One(Moving {
                key: key.eval(&scope()).map_err(failed)?,
                ..moving
            }),
            Op::MapValues(value) => Forward::One(Moving {
                value: value.eval(&scope()).map_err(failed)?,
                ..moving
            }),
            Op::Map { key, value } => Forward::One(Moving {
                key: key.eval(&scope()).map_err(failed)?,
                value: value.eval(&scope()).map_err(failed)?,
                ..moving
            }),
            Op::FlatMapValues(list) => {
                let Value::List(items) = list.eval(&scope()).map_err(failed)? else {
                    return Err(failed(EvalError::Layout("list")));
                };
                Forward::Each(items)
            }
            Op::FilterTable { condition, keeps } => {
                let filtered = self.evaluated(moving, |scope| {
                    let stays = !scope.value.is_null() && condition.eval_bool(scope)? == *keeps;
                    Ok(if stays { scope.value } else { Value::Null })
                });
                tables::changed(filtered.map_err(failed)?)
            }
            Op::MapTable(value) => {
                let mapped = self.evaluated(moving, |scope| tables::mapped(value, scope));
                Forward::One(mapped.map_err(failed)?)
            }
            Op::GroupTable { key, value } => self.group_table((index, node), key, value, moving)?,
            Op::Aggregate {
                store,
                emit,
                first,
                add,
                merge,
                remove,
            } => {
                let kept = Kept::of(self.sub, index, *store)?;
                let (merge, remove) = (merge.as_deref(), remove.as_deref());
                let aggregation = Aggregation {
                    kept,
                    node,
                    emit: *emit,
                    first,
                    add,
                    merge,
                    remove,
                };
                self.aggregate(&aggregation, &moving)?
            }
            Op::Deduplicate { store, by } => {
                let kept = Kept::of(self.sub, index, *store)?;
                self.deduplicate(&kept, by.as_ref(), &moving)?
            }
            Op::Table { store } => {
                let kept = Kept::of(self.sub, index, *store)?;
                self.keep(&kept, moving)?
            }
            Op::JoinTable {
                store,
                held,
                unmatched,
                value,
            } => {
                if let Some(held) = held {
                    let held = Kept::of(self.sub, index, *held)?;
                    if let Some(windows) = held.spec.windows
                        && self.hold(&held, windows, &moving)?
                    {
                        return Ok(Forward::Nothing);
                    }
                }
                let kept = Kept::of(self.sub, index, *store)?;
                let join = joins::Lookup {
                    node: index,
                    unmatched: *unmatched,
                    value,
                };
                self.join_table(&kept, &join, moving)?
            }
            Op::Suppress { store } => {
                let kept = Kept::of(self.sub, index, *store)?;
                self.suppress(&kept, &moving)?
            }
            Op::JoinTables {
                other,
                side,
                left,
                right,
                value,
            } => {
                let kept = Kept::of(self.sub, index, *other)?;
                let join = joins::Tables {
                    node: index,
                    side: *side,
                    alone: (*left, *right),
                    value,
                };
                self.join_tables(&kept, &join, moving)?
            }
            Op::Subscribe { foreign_key } => self.subscribe((index, node), foreign_key, moving)?,
            Op::Register { store, table } => {
                let kept = Kept::of(self.sub, index, *store)?;
                let table = Kept::of(self.sub, index, *table)?;
                self.register(&kept, &table, moving)?
            }
            Op::Notify { store } => {
                let kept = Kept::of(self.sub, index, *store)?;
                self.notify(&kept, node, moving)?
            }
            Op::JoinForeignKey {
                table,
                store,
                side,
                unmatched,
                foreign_key,
                value,
            } => {
                let table = Kept::of(self.sub, index, *table)?;
                let join = ForeignKey {
                    node: index,
                    results: Kept::of(self.sub, index, *store)?,
                    unmatched: *unmatched,
                    foreign_key,
                    value,
                };
                match side {
                    Side::Left => self.join_named(&join, moving)?,
                    Side::Right => self.join_response(&table, &join, moving)?,
                }
            }
            Op::JoinStreams {
                store,
                side,
                left,
                right,
                value,
            } => {
                let kept = Kept::of(self.sub, index, *store)?;
                let join = joins::Streams {
                    node: (index, node),
                    side: *side,
                    alone: (*left, *right),
                    value,
                };
                self.join_streams(&kept, &join, moving)?
            }
        })
    }

    fn write(
        &mut self,
        sink: SinkIndex,
        node: NodeIndex,
        moving: &Moving<'a>,
    ) -> Result<Forward<'a>, Failure> {
        let (Some(codecs), Some(spec)) = (self.codecs.sinks.get(sink), self.sub.sinks.get(sink)) else {
            let reason = format!("the plan has no sink {sink}");
            return Err(Failure::new(ErrorCategory::Output, node, reason));
        };
        let scope = self.scope(moving);
        self.results.push((sink, spec), node, codecs, moving, &scope)?;
        Ok(Forward::Nothing)
    }

    pub(super) fn drop(&mut self, reason: DropReason) -> Forward<'a> {
        self.dropped.get_or_insert(reason);
        Forward::Nothing
    }

    pub(super) fn scope(&self, moving: &Moving<'a>) -> Scope<'a> {
        moving.scope(Value::Null, self.record, self.arena)
    }
}
