//! Aggregations: one value per key, or per key and window.

use bumpalo::collections::Vec as ArenaVec;
use topology::plan::{
    Emit, First, Node, NodeIndex, Op, SessionWindows, StoreIndex, StoreSpec, SubTopology, TimeWindows,
    Windows,
};
use topology::{Expr, Type, Value};

use super::walk::{Forward, Moving, Walk};
use crate::error::Failure;
use crate::format::windowed_key;
use crate::staging::Location;
use crate::window_rows::{Session, begin_sessions, encode_time};
use crate::{DropReason, ErrorCategory, Store, row};

/// An [`Op::Aggregate`] at its node.
pub(super) struct Aggregation<'a> {
    node: &'a Node,
    index: NodeIndex,
    store: StoreIndex,
    spec: &'a StoreSpec,
    emit: Emit,
    first: &'a First,
    add: &'a Expr,
    merge: Option<&'a Expr>,
}

impl<'a> Aggregation<'a> {
    /// That of a node, if it is one and the plan has its store.
    pub(super) fn of(sub: &'a SubTopology, index: NodeIndex, node: &'a Node) -> Option<Self> {
        let Op::Aggregate {
            store,
            emit,
            first,
            add,
            merge,
        } = &node.op
        else {
            return None;
        };
        Some(Self {
            node,
            index,
            store: *store,
            spec: sub.stores.get(*store)?,
            emit: *emit,
            first,
            add,
            merge: merge.as_ref(),
        })
    }

    fn failure(&self, category: ErrorCategory, reason: &dyn std::fmt::Display) -> Failure {
        Failure::new(
            category,
            self.index,
            format!("store `{}`: {reason}", self.spec.name),
        )
    }

    #[cold]
    fn unread(&self, reason: &dyn std::fmt::Display) -> Failure {
        self.failure(ErrorCategory::StoreRead, reason)
    }
}

impl<'a, S: Store> Walk<'_, 'a, S> {
    /// Updates what the record belongs to.
    pub(super) fn aggregate(
        &mut self,
        aggregation: &Aggregation<'a>,
        moving: &Moving<'a>,
    ) -> Result<Forward<'a>, Failure> {
        match aggregation.spec.windows {
            None => {
                let (value, timestamp) = self.update(aggregation, None, moving)?;
                let key = moving.key;
                Ok(Forward::One(Moving {
                    key,
                    value,
                    timestamp,
                }))
            }
            Some(Windows::Time(windows)) => self.aggregate_time(aggregation, windows, moving),
            Some(Windows::Session(windows)) => self.aggregate_session(aggregation, windows, moving),
        }
    }

    /// Updates all windows of the record that are not closed, the earliest first.
    fn aggregate_time(
        &mut self,
        aggregation: &Aggregation<'a>,
        windows: TimeWindows,
        moving: &Moving<'a>,
    ) -> Result<Forward<'a>, Failure> {
        let time = self.state.observe(aggregation.store, moving.timestamp);
        let closed = windows.last_closed(time.map_err(|error| aggregation.unread(&error))?);
        let mut is_late = true;
        for start in windows.starts(moving.timestamp).filter(|start| *start > closed) {
            is_late = false;
            let (value, timestamp) = self.update(aggregation, Some(start), moving)?;
            self.state.opened(aggregation.store);
            let end = start.saturating_add(windows.size_ms);
            let key = windowed_key(moving.key, start, end, self.arena);
            self.forward(
                aggregation,
                Moving {
                    key,
                    value,
                    timestamp,
                },
            )?;
        }
        Ok(if is_late {
            self.drop(DropReason::Late)
        } else {
            Forward::Nothing
        })
    }

    /// Makes one window of the record and those of its key that are near to it; a result that is no more goes on as a
    /// tombstone before the new one.
    fn aggregate_session(
        &mut self,
        aggregation: &Aggregation<'a>,
        windows: SessionWindows,
        moving: &Moving<'a>,
    ) -> Result<Forward<'a>, Failure> {
        let (store, timestamp) = (aggregation.store, moving.timestamp);
        let time = self.state.observe(store, timestamp);
        let closed = windows.last_closed(time.map_err(|error| aggregation.unread(&error))?);
        begin_sessions(&mut self.state.key);
        let prefix = self.state.key.len();
        self.encode_key(aggregation, moving.key)?;
        let key_bytes = self.arena.alloc_slice_copy(&self.state.key[prefix..]);
        let list = self.state.sessions_type(store);
        let list = list.ok_or_else(|| aggregation.unread(&"no windows"))?;
        let (location, stored) = self.stored(aggregation, &list)?;
        let items = match stored {
            Some((_, Value::List(items))) => items,
            Some(_) | None => &[],
        };
        let (mut near, mut others) = (ArenaVec::new_in(self.arena), ArenaVec::new_in(self.arena));
        for session in items.iter().filter_map(Session::of_item) {
            let is_near = session.end >= timestamp.saturating_sub(windows.gap_ms)
                && session.start <= timestamp.saturating_add(windows.gap_ms);
            if is_near {
                near.push(session);
            } else {
                others.push(session);
            }
        }
        let start = near
            .iter()
            .fold(timestamp, |start, session| start.min(session.start));
        let end = near.iter().fold(timestamp, |end, session| end.max(session.end));
        if end <= closed {
            return Ok(self.drop(DropReason::Late));
        }
        let merged = self.merged(aggregation, &near, moving)?;
        let value = self.folded(aggregation, merged, moving)?;
        let session = Session { start, end, value };
        // What ends earlier comes first.
        let at = others.partition_point(|other| (other.end, other.start) < (end, start));
        if !matches!(value, Value::Null) {
            others.insert(at, session);
        }
        let items = others.iter().map(|session| session.to_item(self.arena));
        let items = self.arena.alloc_slice_fill_iter(items);
        let list_value = if items.is_empty() {
            Value::Null
        } else {
            Value::List(items)
        };
        let latest = others.last().map_or(end, |session| session.end);
        self.stage(aggregation, location, &list, list_value, latest)?;
        self.state.replace_sessions(store, key_bytes, &near, &session);
        // A window of this instant alone stays where it is.
        let is_replaced = (start, end) != (timestamp, timestamp);
        for session in near.iter().filter(|_| is_replaced) {
            let key = windowed_key(moving.key, session.start, session.end, self.arena);
            let (value, timestamp) = (Value::Null, session.end);
            self.forward(
                aggregation,
                Moving {
                    key,
                    value,
                    timestamp,
                },
            )?;
        }
        let key = windowed_key(moving.key, start, end, self.arena);
        let timestamp = end;
        self.forward(
            aggregation,
            Moving {
                key,
                value,
                timestamp,
            },
        )?;
        Ok(Forward::Nothing)
    }

    /// The aggregate of windows that become one, if there are any.
    fn merged(
        &self,
        aggregation: &Aggregation<'a>,
        near: &[Session<'a>],
        moving: &Moving<'a>,
    ) -> Result<Option<Value<'a>>, Failure> {
        let Some((first, later)) = near.split_first() else {
            return Ok(None);
        };
        let mut scope = self.scope(moving);
        scope.aggregate = first.value;
        for session in later {
            scope.value = session.value;
            if let Some(merge) = aggregation.merge {
                let merged = merge.eval(&scope);
                scope.aggregate = merged
                    .map_err(|error| Failure::new(ErrorCategory::Expression, aggregation.index, error))?;
            }
        }
        Ok(Some(scope.aggregate))
    }

    fn forward(&mut self, aggregation: &Aggregation<'a>, moving: Moving<'a>) -> Result<(), Failure> {
        match aggregation.emit {
            Emit::OnUpdate => self.run_children(aggregation.node, moving),
            Emit::OnWindowClose => Ok(()),
        }
    }

    /// Reads the aggregate of the record's key, in the window that starts then, adds the record, and stages the result; a null one
    /// deletes it. Its timestamp is the later of the two, as in Kafka Streams (KIP-258, `KStreamAggregate`).
    fn update(
        &mut self,
        aggregation: &Aggregation<'a>,
        start: Option<i64>,
        moving: &Moving<'a>,
    ) -> Result<(Value<'a>, i64), Failure> {
        self.state.key.clear();
        if let Some(start) = start {
            self.state.key.extend_from_slice(&encode_time(start));
        }
        self.encode_key(aggregation, moving.key)?;
        let (location, stored) = self.stored(aggregation, &aggregation.spec.value)?;
        let value = self.folded(aggregation, stored.map(|(_, value)| value), moving)?;
        let timestamp = stored.map_or(i64::MIN, |(at, _)| at).max(moving.timestamp);
        self.stage(aggregation, location, &aggregation.spec.value, value, timestamp)?;
        Ok((value, timestamp))
    }

    /// The aggregate with the record.
    fn folded(
        &self,
        aggregation: &Aggregation<'a>,
        stored: Option<Value<'a>>,
        moving: &Moving<'a>,
    ) -> Result<Value<'a>, Failure> {
        let failed = |error| Failure::new(ErrorCategory::Expression, aggregation.index, error);
        let mut scope = self.scope(moving);
        scope.aggregate = match (stored, aggregation.first) {
            (Some(stored), _) => stored,
            (None, First::Initial(initial)) => initial.eval(&scope).map_err(failed)?,
            (None, First::Record(first)) => return first.eval(&scope).map_err(failed),
        };
        aggregation.add.eval(&scope).map_err(failed)
    }

    /// Appends the key to `state.key`.
    fn encode_key(&mut self, aggregation: &Aggregation<'a>, key: Value<'a>) -> Result<(), Failure> {
        let Some(codec) = self.codecs.stores.get(aggregation.store) else {
            return Err(aggregation.unread(&"no format of keys"));
        };
        let encoded = codec.encode(key, &mut self.state.key);
        encoded
            .map(drop)
            .map_err(|error| aggregation.unread(&format!("the key cannot be written {error}")))
    }

    /// Timestamp and value under `state.key`, staged or else committed; and where it is staged.
    fn stored(
        &mut self,
        aggregation: &Aggregation<'a>,
        ty: &Type,
    ) -> Result<(Location, Option<(i64, Value<'a>)>), Failure> {
        let found = self.state.look_up(aggregation.store);
        let (location, bytes) = found.map_err(|error| aggregation.unread(&error))?;
        let Some(bytes) = bytes else {
            return Ok((location, None));
        };
        // The value may be forwarded while its place is overwritten.
        let bytes = self.arena.alloc_slice_copy(bytes);
        let stored = row::decode_timestamped(ty, bytes, self.arena);
        let stored = stored.map_err(|error| aggregation.unread(&error))?;
        Ok((location, Some(stored)))
    }

    /// Stages a value under `state.key`; null deletes.
    fn stage(
        &mut self,
        aggregation: &Aggregation<'a>,
        location: Location,
        ty: &Type,
        value: Value<'a>,
        timestamp: i64,
    ) -> Result<(), Failure> {
        let state = &mut *self.state;
        state.next.clear();
        let deleted = matches!(value, Value::Null);
        if !deleted {
            row::encode_timestamped(ty, timestamp, value, &mut state.next)
                .map_err(|error| aggregation.failure(ErrorCategory::Serialization, &error))?;
        }
        let bytes = state.key.len() + state.next.len();
        let most = state
            .stores
            .get(aggregation.store)
            .map_or(usize::MAX, Store::max_record_bytes);
        if bytes > most {
            let reason = format!("key and value have {bytes} bytes, its changelog takes {most}");
            return Err(aggregation.failure(ErrorCategory::Output, &reason));
        }
        if let Some(staging) = state.staging.get_mut(aggregation.store) {
            let value = (!deleted).then_some(state.next.as_slice());
            staging.put(location, &state.key, value, timestamp);
        }
        Ok(())
    }
}
