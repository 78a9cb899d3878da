//! Nodes with stores: aggregations, which keep one value per key or per key and window, and what drops duplicates.

use std::ops::ControlFlow;
use std::sync::Arc;

use bumpalo::collections::Vec as ArenaVec;
use topology::plan::{
    Emit, First, Node, NodeIndex, SessionWindows, StoreIndex, StoreSpec, SubTopology, TimeWindows, Windows,
};
use topology::{EvalError, Expr, Type, Value};

use super::walk::{Forward, Moving, Walk};
use crate::error::Failure;
use crate::format::windowed_key;
use crate::staging::Location;
use crate::window_rows::{Session, begin_sessions, encode_time};
use crate::{DropReason, ErrorCategory, Store, row};

/// Takes key, timestamp and value of a row; says whether that is enough, or what is wrong with it.
type VisitValues<'v, 'a> = dyn FnMut(&[u8], i64, Value<'a>) -> Result<ControlFlow<()>, &'static str> + 'v;

/// The store of a node.
#[derive(Clone, Copy)]
pub(super) struct Kept<'a> {
    node: NodeIndex,
    pub(super) store: StoreIndex,
    pub(super) spec: &'a StoreSpec,
}

impl<'a> Kept<'a> {
    /// Of the plan.
    ///
    /// # Errors
    /// When the plan does not have it.
    pub(super) fn of(sub: &'a SubTopology, node: NodeIndex, store: StoreIndex) -> Result<Self, Failure> {
        match sub.stores.get(store) {
            Some(spec) => Ok(Self { node, store, spec }),
            None => {
                let reason = format!("the plan has no store {store}");
                Err(Failure::new(ErrorCategory::StoreRead, node, reason))
            }
        }
    }

    fn failure(&self, category: ErrorCategory, reason: &dyn std::fmt::Display) -> Failure {
        Failure::new(
            category,
            self.node,
            format!("store `{}`: {reason}", self.spec.name),
        )
    }

    #[cold]
    pub(super) fn unread(&self, reason: &dyn std::fmt::Display) -> Failure {
        self.failure(ErrorCategory::StoreRead, reason)
    }

    #[cold]
    pub(super) fn no_value(&self, error: EvalError) -> Failure {
        Failure::new(ErrorCategory::Expression, self.node, error)
    }
}

/// An [`Op::Aggregate`](topology::plan::Op::Aggregate) at its node.
pub(super) struct Aggregation<'a> {
    pub(super) kept: Kept<'a>,
    pub(super) node: &'a Node,
    pub(super) emit: Emit,
    pub(super) first: &'a First,
    pub(super) add: &'a Expr,
    pub(super) merge: Option<&'a Expr>,
    pub(super) remove: Option<&'a Expr>,
}

/// What is known of a key's windows.
struct Sessions<'a> {
    /// The row of the list.
    location: Location,
    ty: Arc<Type>,
    /// The key's bytes.
    key: &'a [u8],
    /// Near to the record, and others.
    near: ArenaVec<'a, Session<'a>>,
    others: ArenaVec<'a, Session<'a>>,
}

impl<'a, S: Store> Walk<'_, 'a, S> {
    /// Updates what the record belongs to.
    pub(super) fn aggregate(
        &mut self,
        aggregation: &Aggregation<'a>,
        moving: &Moving<'a>,
    ) -> Result<Forward<'a>, Failure> {
        match aggregation.kept.spec.windows {
            None => Ok(Forward::One(self.update(aggregation, None, moving)?)),
            Some(Windows::Time(windows)) => self.aggregate_time(aggregation, windows, moving),
            Some(Windows::Session(windows)) => self.aggregate_session(aggregation, windows, moving),
            Some(Windows::Sliding(windows)) => self.aggregate_sliding(aggregation, windows, moving),
            Some(
                Windows::Join(_) | Windows::Suppress { .. } | Windows::Versions { .. } | Windows::Held { .. },
            ) => Err(aggregation.kept.unread(&"windows of another kind")),
        }
    }

    /// Updates all windows of the record that are not closed, the earliest first.
    fn aggregate_time(
        &mut self,
        aggregation: &Aggregation<'a>,
        windows: TimeWindows,
        moving: &Moving<'a>,
    ) -> Result<Forward<'a>, Failure> {
        let kept = &aggregation.kept;
        let closed = windows.last_closed(self.observe(kept, moving)?);
        let mut is_late = true;
        for start in windows.starts(moving.timestamp).filter(|start| *start > closed) {
            is_late = false;
            let updated = self.update(aggregation, Some(start), moving)?;
            self.state.opened(kept.store);
            let end = start.saturating_add(windows.size_ms);
            let key = windowed_key(moving.key, start, end, self.arena);
            self.forward(aggregation, Moving { key, ..updated })?;
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
        let (kept, timestamp) = (&aggregation.kept, moving.timestamp);
        let closed = windows.last_closed(self.observe(kept, moving)?);
        let sessions = self.sessions(kept, windows, moving.key, timestamp)?;
        let near = &sessions.near;
        let start = near
            .iter()
            .fold(timestamp, |start, session| start.min(session.start));
        let end = near.iter().fold(timestamp, |end, session| end.max(session.end));
        if end <= closed {
            return Ok(self.drop(DropReason::Late));
        }
        let merged = self.merged(aggregation, near, moving)?;
        let value = self.folded(aggregation, merged, moving)?;
        let near = self.replace(kept, sessions, Session { start, end, value })?;
        // A window of this instant alone stays where it is.
        let is_replaced = (start, end) != (timestamp, timestamp);
        for session in near.iter().filter(|_| is_replaced) {
            let key = windowed_key(moving.key, session.start, session.end, self.arena);
            let (value, timestamp) = (Value::Null, session.end);
            let gone = Moving {
                key,
                value,
                timestamp,
                before: session.value,
            };
            self.forward(aggregation, gone)?;
        }
        let updated = Moving {
            key: windowed_key(moving.key, start, end, self.arena),
            value,
            timestamp: end,
            before: Value::Null,
        };
        self.forward(aggregation, updated)?;
        Ok(Forward::Nothing)
    }

    /// Forwards the record unless one like it came within the time of the store's windows, each of which is one record.
    pub(super) fn deduplicate(
        &mut self,
        kept: &Kept<'a>,
        by: Option<&'a Expr>,
        moving: &Moving<'a>,
    ) -> Result<Forward<'a>, Failure> {
        let Some(Windows::Session(windows)) = kept.spec.windows else {
            return Err(kept.unread(&"no windows"));
        };
        let key = match by {
            None => moving.key,
            Some(by) => {
                let by = by
                    .eval(&self.scope(moving))
                    .map_err(|error| kept.no_value(error))?;
                Value::Struct(self.arena.alloc([moving.key, by]))
            }
        };
        let closed = windows.last_closed(self.observe(kept, moving)?);
        let (start, end) = (moving.timestamp, moving.timestamp);
        let sessions = self.sessions(kept, windows, key, start)?;
        if !sessions.near.is_empty() {
            return Ok(self.drop(DropReason::Duplicate));
        }
        if end <= closed {
            return Ok(self.drop(DropReason::Late));
        }
        let value = Value::Bool(true);
        self.replace(kept, sessions, Session { start, end, value })?;
        Ok(Forward::One(*moving))
    }

    /// The stream time of the store's operator behind this record.
    pub(super) fn observe(&mut self, kept: &Kept<'a>, moving: &Moving<'a>) -> Result<i64, Failure> {
        let time = self.state.observe(kept.store, moving.timestamp);
        time.map_err(|error| kept.unread(&error))
    }

    /// The windows of a key, with those apart that a record at this time is near to.
    fn sessions(
        &mut self,
        kept: &Kept<'a>,
        windows: SessionWindows,
        key: Value<'a>,
        timestamp: i64,
    ) -> Result<Sessions<'a>, Failure> {
        begin_sessions(&mut self.state.key);
        let prefix = self.state.key.len();
        self.encode_key(kept, key)?;
        let key = self.arena.alloc_slice_copy(&self.state.key[prefix..]);
        let ty = self.state.row_type(kept.store);
        let ty = ty.ok_or_else(|| kept.unread(&"no windows"))?;
        let (location, stored) = self.stored(kept, &ty)?;
        let items = match stored {
            Some((_, Value::List(items))) => items,
            Some(_) | None => &[],
        };
        let is_near = |session: &Session<'_>| {
            session.end >= timestamp.saturating_sub(windows.gap_ms)
                && session.start <= timestamp.saturating_add(windows.gap_ms)
        };
        let (mut near, mut others) = (ArenaVec::new_in(self.arena), ArenaVec::new_in(self.arena));
        for session in items.iter().filter_map(Session::of_item) {
            let list = if is_near(&session) { &mut near } else { &mut others };
            list.push(session);
        }
        Ok(Sessions {
            location,
            ty,
            key,
            near,
            others,
        })
    }

    /// Stages a window in the place of those that are near; returns these. One without a value is not kept.
    fn replace(
        &mut self,
        kept: &Kept<'a>,
        sessions: Sessions<'a>,
        new: Session<'a>,
    ) -> Result<ArenaVec<'a, Session<'a>>, Failure> {
        let Sessions {
            location,
            ty,
            key,
            near,
            mut others,
        } = sessions;
        if !matches!(new.value, Value::Null) {
            // What ends earlier comes first.
            let at = others.partition_point(|other| (other.end, other.start) < (new.end, new.start));
            others.insert(at, new);
        }
        let items = others.iter().map(|session| session.to_item(self.arena));
        let items = self.arena.alloc_slice_fill_iter(items);
        let list = if items.is_empty() {
            Value::Null
        } else {
            Value::List(items)
        };
        let latest = others.last().map_or(new.end, |session| session.end);
        self.stage(kept, location, &ty, list, latest)?;
        self.state.replace_sessions(kept.store, key, &near, &new);
        Ok(near)
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
                scope.aggregate = merged.map_err(|error| aggregation.kept.no_value(error))?;
            }
        }
        Ok(Some(scope.aggregate))
    }

    pub(super) fn forward(
        &mut self,
        aggregation: &Aggregation<'a>,
        moving: Moving<'a>,
    ) -> Result<(), Failure> {
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
    ) -> Result<Moving<'a>, Failure> {
        self.state.key.clear();
        if let Some(start) = start {
            self.state.key.extend_from_slice(&encode_time(start));
        }
        let kept = &aggregation.kept;
        self.encode_key(kept, moving.key)?;
        let (location, stored) = self.stored(kept, &kept.spec.value)?;
        let value = self.folded(aggregation, stored.map(|(_, value)| value), moving)?;
        let timestamp = stored.map_or(i64::MIN, |(at, _)| at).max(moving.timestamp);
        self.stage(kept, location, &kept.spec.value, value, timestamp)?;
        Ok(Moving {
            key: moving.key,
            value,
            timestamp,
            before: stored.map_or(Value::Null, |(_, value)| value),
        })
    }

    /// The aggregate with the record.
    pub(super) fn folded(
        &self,
        aggregation: &Aggregation<'a>,
        stored: Option<Value<'a>>,
        moving: &Moving<'a>,
    ) -> Result<Value<'a>, Failure> {
        let Some(remove) = aggregation.remove else {
            return self.added(aggregation, stored, moving, moving.value);
        };
        let Value::Struct([before, after]) = moving.value else {
            return Err(aggregation.kept.no_value(EvalError::Layout("change")));
        };
        // What was not added is not taken out (`KTableAggregate`).
        let rest = match (stored, before) {
            (None, _) | (_, Value::Null) => stored,
            (Some(aggregate), before) => {
                let mut scope = self.scope(moving);
                (scope.aggregate, scope.value) = (aggregate, *before);
                let rest = remove
                    .eval(&scope)
                    .map_err(|error| aggregation.kept.no_value(error))?;
                (!rest.is_null()).then_some(rest)
            }
        };
        if after.is_null() {
            return Ok(rest.unwrap_or(Value::Null));
        }
        self.added(aggregation, rest, moving, *after)
    }

    /// The aggregate with a value.
    fn added(
        &self,
        aggregation: &Aggregation<'a>,
        stored: Option<Value<'a>>,
        moving: &Moving<'a>,
        value: Value<'a>,
    ) -> Result<Value<'a>, Failure> {
        let failed = |error| aggregation.kept.no_value(error);
        let mut scope = self.scope(moving);
        scope.value = value;
        scope.aggregate = match (stored, aggregation.first) {
            (Some(stored), _) => stored,
            (None, First::Initial(initial)) => initial.eval(&scope).map_err(failed)?,
            (None, First::Record(first)) => return first.eval(&scope).map_err(failed),
        };
        aggregation.add.eval(&scope).map_err(failed)
    }

    /// The key's bytes.
    pub(super) fn key_bytes(&mut self, kept: &Kept<'a>, key: Value<'a>) -> Result<&'a [u8], Failure> {
        self.state.key.clear();
        self.encode_key(kept, key)?;
        Ok(self.arena.alloc_slice_copy(&self.state.key))
    }

    /// Appends the key to `state.key`.
    pub(super) fn encode_key(&mut self, kept: &Kept<'a>, key: Value<'a>) -> Result<(), Failure> {
        let Some(codec) = self.codecs.stores.get(kept.store) else {
            return Err(kept.unread(&"no format of keys"));
        };
        let encoded = codec.encode(key, &mut self.state.key);
        encoded
            .map(drop)
            .map_err(|error| kept.unread(&format!("the key cannot be written {error}")))
    }

    /// Visits the rows from `state.key` to `state.next` with their timestamps and values; `visit` may say what is wrong with one.
    pub(super) fn rows(
        &self,
        kept: &Kept<'a>,
        ty: &Type,
        visit: &mut VisitValues<'_, 'a>,
    ) -> Result<(), Failure> {
        let (arena, mut wrong) = (self.arena, None);
        let visited = self.state.visit_rows(kept.store, &mut |row, bytes| {
            let decoded = row::decode_timestamped(ty, arena.alloc_slice_copy(bytes), arena);
            let flow = match decoded {
                Ok((timestamp, value)) => visit(row, timestamp, value).map_err(str::to_owned),
                Err(error) => Err(error.to_string()),
            };
            flow.unwrap_or_else(|reason| {
                wrong = Some(reason);
                ControlFlow::Break(())
            })
        });
        visited.map_err(|error| kept.unread(&error))?;
        wrong.map_or(Ok(()), |reason| Err(kept.unread(&reason)))
    }

    /// Timestamp and value under `state.key`, staged or else committed; and where it is staged.
    pub(super) fn stored(
        &mut self,
        kept: &Kept<'a>,
        ty: &Type,
    ) -> Result<(Location, Option<(i64, Value<'a>)>), Failure> {
        let found = self.state.look_up(kept.store);
        let (location, bytes) = found.map_err(|error| kept.unread(&error))?;
        let Some(bytes) = bytes else {
            return Ok((location, None));
        };
        // The value may be forwarded while its place is overwritten.
        let bytes = self.arena.alloc_slice_copy(bytes);
        let stored = row::decode_timestamped(ty, bytes, self.arena);
        let stored = stored.map_err(|error| kept.unread(&error))?;
        Ok((location, Some(stored)))
    }

    /// Stages a value under `state.key`; null deletes.
    pub(super) fn stage(
        &mut self,
        kept: &Kept<'a>,
        location: Location,
        ty: &Type,
        value: Value<'a>,
        timestamp: i64,
    ) -> Result<(), Failure> {
        let value = (!value.is_null()).then_some(value);
        self.stage_row(kept, location, ty, value, timestamp)
    }

    /// Stages a row under `state.key`; none deletes.
    pub(super) fn stage_row(
        &mut self,
        kept: &Kept<'a>,
        location: Location,
        ty: &Type,
        value: Option<Value<'a>>,
        timestamp: i64,
    ) -> Result<(), Failure> {
        let state = &mut *self.state;
        state.next.clear();
        if let Some(value) = value {
            row::encode_timestamped(ty, timestamp, value, &mut state.next)
                .map_err(|error| kept.failure(ErrorCategory::Serialization, &error))?;
        }
        let bytes = state.key.len() + state.next.len();
        let most = state
            .stores
            .get(kept.store)
            .map_or(usize::MAX, Store::max_record_bytes);
        if bytes > most {
            let reason = format!("key and value have {bytes} bytes, its changelog takes {most}");
            return Err(kept.failure(ErrorCategory::Output, &reason));
        }
        if let Some(staging) = state.staging.get_mut(kept.store) {
            let value = value.is_some().then_some(state.next.as_slice());
            staging.put(location, &state.key, value, timestamp);
        }
        Ok(())
    }
}
