//! One record on its way through the nodes.

use bumpalo::Bump;
use topology::plan::{First, Node, NodeIndex, Op, StoreIndex, StoreSpec, SubTopology};
use topology::{EvalError, Expr, Scope, Value};

use super::results::Results;
use super::{Codecs, State};
use crate::error::Failure;
use crate::staging::{Location, Staged};
use crate::{DropReason, ErrorCategory, InputRecord, Store, row};

/// A record between two nodes.
#[derive(Clone, Copy)]
pub(super) struct Moving<'a> {
    pub(super) key: Value<'a>,
    pub(super) value: Value<'a>,
    pub(super) timestamp: i64,
}

/// What a node passes on.
enum Forward<'a> {
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
            for child in &node.children {
                self.run(
                    *child,
                    Moving {
                        value: *value,
                        ..moving
                    },
                )?;
            }
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
            Op::Sink(sink) => {
                let Some(codecs) = self.codecs.sinks.get(*sink) else {
                    let reason = format!("the plan has no sink {sink}");
                    return Err(Failure::new(ErrorCategory::Output, index, reason));
                };
                self.results.push(*sink, index, codecs, &moving)?;
                Forward::Nothing
            }
            Op::Aggregate { .. } if matches!(moving.key, Value::Null) => self.drop(DropReason::NullKey),
            // Expressions over a tombstone have nothing to read.
            Op::Filter(_)
            | Op::FilterNot(_)
            | Op::SelectKey(_)
            | Op::MapValues(_)
            | Op::Map { .. }
            | Op::FlatMapValues(_)
            | Op::Aggregate { .. }
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
            Op::Aggregate { store, first, add } => {
                Forward::One(self.aggregate(index, *store, (first, add), &moving)?)
            }
        })
    }

    fn drop(&mut self, reason: DropReason) -> Forward<'a> {
        self.dropped.get_or_insert(reason);
        Forward::Nothing
    }

    fn scope(&self, moving: &Moving<'a>) -> Scope<'a> {
        moving.scope(Value::Null, self.record, self.arena)
    }

    /// Reads the key's aggregate, adds the record, stages and forwards the result; a null one deletes the key. Its timestamp is the later
    /// of the two, as in Kafka Streams (KIP-258, `KStreamAggregate`).
    fn aggregate(
        &mut self,
        node: NodeIndex,
        store: StoreIndex,
        (first, add): (&'a First, &'a Expr),
        moving: &Moving<'a>,
    ) -> Result<Moving<'a>, Failure> {
        let expression = |error| Failure::new(ErrorCategory::Expression, node, error);
        let Some(spec) = self.sub.stores.get(store) else {
            return Err(Failure::new(
                ErrorCategory::StoreRead,
                node,
                format!("the plan has no store {store}"),
            ));
        };
        let (location, stored) = self.stored(node, store, spec, moving)?;
        let mut scope = self.scope(moving);
        let begins = stored.is_none();
        let (stored_at, aggregate) = match stored {
            Some(stored) => stored,
            None => (i64::MIN, first.expr().eval(&scope).map_err(expression)?),
        };
        scope.aggregate = aggregate;
        let value = match first {
            First::Record(_) if begins => aggregate,
            First::Record(_) | First::Initial(_) => add.eval(&scope).map_err(expression)?,
        };
        let timestamp = moving.timestamp.max(stored_at);
        let State {
            staging,
            stores,
            key,
            next,
            ..
        } = &mut *self.state;
        next.clear();
        let deleted = matches!(value, Value::Null);
        if !deleted {
            row::encode_timestamped(&spec.value, timestamp, value, next).map_err(|error| {
                let reason = format!("store `{}`: {error}", spec.name);
                Failure::new(ErrorCategory::Serialization, node, reason)
            })?;
        }
        let bytes = key.len() + next.len();
        let most = stores.get(store).map_or(usize::MAX, Store::max_record_bytes);
        if bytes > most {
            let reason = format!(
                "store `{}`: key and value have {bytes} bytes, its changelog takes {most}",
                spec.name
            );
            return Err(Failure::new(ErrorCategory::Output, node, reason));
        }
        if let Some(staging) = staging.get_mut(store) {
            staging.put(location, key, (!deleted).then_some(next.as_slice()), timestamp);
        }
        Ok(Moving {
            key: moving.key,
            value,
            timestamp,
        })
    }

    /// Timestamp and value of the record's key, staged or else committed; and where the key is staged.
    fn stored(
        &mut self,
        node: NodeIndex,
        store: StoreIndex,
        spec: &StoreSpec,
        moving: &Moving<'a>,
    ) -> Result<(Location, Option<(i64, Value<'a>)>), Failure> {
        let unread = |reason: &dyn std::fmt::Display| {
            let reason = format!("store `{}`: {reason}", spec.name);
            Failure::new(ErrorCategory::StoreRead, node, reason)
        };
        let State {
            staging,
            stores,
            cached,
            key,
            found,
            ..
        } = &mut *self.state;
        let (Some(staging), Some(committed), Some(cache), Some(codec)) = (
            staging.get(store),
            stores.get(store),
            cached.get_mut(store),
            self.codecs.stores.get(store),
        ) else {
            return Err(unread(&"not open"));
        };
        key.clear();
        codec
            .encode(moving.key, key)
            .map_err(|error| unread(&format!("the key cannot be written {error}")))?;
        let location = staging.locate(key);
        let bytes = match staging.get(location) {
            Staged::Value(bytes) => bytes,
            Staged::Deleted => return Ok((location, None)),
            Staged::Unknown => {
                found.clear();
                let is_there = match cache.get(location.hash(), key) {
                    Some(known) => {
                        found.extend_from_slice(known.unwrap_or_default());
                        known.is_some()
                    }
                    None => {
                        let is_there = committed.get(key, found).map_err(|error| unread(&error))?;
                        cache.put(location.hash(), key, is_there.then_some(found.as_slice()));
                        is_there
                    }
                };
                if !is_there {
                    return Ok((location, None));
                }
                found
            }
        };
        // The value may be forwarded while its place is overwritten.
        let bytes = self.arena.alloc_slice_copy(bytes);
        let stored =
            row::decode_timestamped(&spec.value, bytes, self.arena).map_err(|error| unread(&error))?;
        Ok((location, Some(stored)))
    }
}
