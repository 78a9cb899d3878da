//! Joins of a table with the values of another one that its own name (KIP-213).
//!
//! Four steps. In the tasks of the own table: what a value names is told to the tasks of the other table. There: it is kept who
//! names what, and answered; each update goes to all who name it. Back: an answer is joined with what the own table has by now, as
//! long as that names the same key. So what was answered for a value that was replaced meanwhile does no harm, and the last
//! answer is of the last value of both.

use std::ops::ControlFlow;

use bumpalo::collections::Vec as ArenaVec;
use topology::plan::{Node, NodeIndex, Unmatched};
use topology::{Expr, Type, Value};

use super::aggregate::Kept;
use super::tables;
use super::walk::{Forward, Moving, Walk};
use crate::error::Failure;
use crate::{ErrorCategory, Store, row};

/// An [`Op::JoinForeignKey`](topology::plan::Op::JoinForeignKey) at its node.
pub(super) struct ForeignKey<'a> {
    pub(super) node: NodeIndex,
    pub(super) results: Kept<'a>,
    /// What becomes of a value that names nothing.
    pub(super) unmatched: Unmatched,
    pub(super) foreign_key: &'a Expr,
    pub(super) value: &'a Expr,
}

impl<'a, S: Store> Walk<'_, 'a, S> {
    /// Tells the key that is named, and the one that is not named any more. One that is named still is told again: its answer brings
    /// the new value's result.
    pub(super) fn subscribe(
        &mut self,
        (index, node): (NodeIndex, &'a Node),
        foreign_key: &'a Expr,
        moving: Moving<'a>,
    ) -> Result<Forward<'a>, Failure> {
        let named = self.evaluated(moving, |scope| tables::mapped(foreign_key, scope));
        let named = named.map_err(|error| Failure::new(ErrorCategory::Expression, index, error))?;
        let partition = Value::Int(self.state.partition.into());
        let subscription = |foreign_key, is_there| Moving {
            key: foreign_key,
            value: Value::Struct(self.arena.alloc([moving.key, Value::Bool(is_there), partition])),
            before: Value::Null,
            ..moving
        };
        let (left, joined) = (subscription(named.before, false), subscription(named.value, true));
        if !named.before.is_null() && named.before != named.value {
            self.run_children(node, left)?;
        }
        Ok(if named.value.is_null() {
            Forward::Nothing
        } else {
            Forward::One(joined)
        })
    }

    /// Keeps or forgets who names a key, and answers one who does.
    pub(super) fn register(
        &mut self,
        kept: &Kept<'a>,
        table: &Kept<'a>,
        moving: Moving<'a>,
    ) -> Result<Forward<'a>, Failure> {
        let foreign_key = moving.key;
        let Value::Struct([key, Value::Bool(is_there), partition]) = moving.value else {
            return Err(kept.unread(&"no subscription"));
        };
        let subscriber = Value::Struct(self.arena.alloc([foreign_key, *key]));
        self.state.key.clear();
        self.encode_key(kept, subscriber)?;
        let location = self.state.staging[kept.store].locate(&self.state.key);
        let row = if *is_there { *partition } else { Value::Null };
        self.stage(kept, location, &kept.spec.value, row, moving.timestamp)?;
        if !is_there {
            return Ok(Forward::Nothing);
        }
        let found = self.found(table, foreign_key, None)?;
        let (time, value) = found.unwrap_or((i64::MIN, Value::Null));
        let response = self.response(foreign_key, value, *partition);
        Ok(Forward::One(Moving {
            key: *key,
            value: response,
            timestamp: moving.timestamp.max(time),
            ..moving
        }))
    }

    /// Answers all who name the key of an update.
    pub(super) fn notify(
        &mut self,
        kept: &Kept<'a>,
        node: &'a Node,
        moving: Moving<'a>,
    ) -> Result<Forward<'a>, Failure> {
        let subscriber_type = kept.spec.key.ty();
        let Type::Struct(fields) = &subscriber_type else {
            return Err(kept.unread(&"no subscribers"));
        };
        let foreign_key = fields.fields.first();
        let foreign_key = foreign_key.ok_or_else(|| kept.unread(&"no subscribers"))?;
        // A row's fields follow each other, and none is the beginning of another one of its type.
        let state = &mut *self.state;
        state.key.clear();
        row::encode(&foreign_key.ty, moving.key, &mut state.key).map_err(|error| kept.unread(&error))?;
        state.next.clear();
        state.next.extend_from_slice(&state.key);
        row::end_of_prefix(&mut state.next);
        let (arena, ty) = (self.arena, &kept.spec.value);
        let mut subscribers = ArenaVec::new_in(arena);
        self.rows(kept, ty, &mut |row, time, partition| {
            let row = row::decode(&subscriber_type, arena.alloc_slice_copy(row), arena);
            let Ok(Value::Struct([_, key])) = row else {
                return Err("a row that no subscriber has");
            };
            subscribers.push((*key, partition, time));
            Ok(ControlFlow::Continue(()))
        })?;
        for (key, partition, time) in subscribers {
            let response = Moving {
                key,
                value: self.response(moving.key, moving.value, partition),
                timestamp: moving.timestamp.max(time),
                before: Value::Null,
            };
            self.run_children(node, response)?;
        }
        Ok(Forward::Nothing)
    }

    /// What has no answer: a value that names nothing, and a deletion.
    pub(super) fn join_named(
        &mut self,
        join: &ForeignKey<'a>,
        moving: Moving<'a>,
    ) -> Result<Forward<'a>, Failure> {
        if self.named(join, &moving)?.is_null() {
            self.join_with(join, moving, Value::Null)
        } else {
            Ok(Forward::Nothing)
        }
    }

    /// An answer to a value that names that key still.
    pub(super) fn join_response(
        &mut self,
        table: &Kept<'a>,
        join: &ForeignKey<'a>,
        moving: Moving<'a>,
    ) -> Result<Forward<'a>, Failure> {
        let Value::Struct([foreign_key, right, _]) = moving.value else {
            return Err(table.unread(&"no response"));
        };
        let Some((time, left)) = self.found(table, moving.key, None)? else {
            return Ok(Forward::Nothing);
        };
        let now = Moving {
            value: left,
            timestamp: moving.timestamp.max(time),
            ..moving
        };
        if self.named(join, &now)? != *foreign_key {
            return Ok(Forward::Nothing);
        }
        self.join_with(join, now, *right)
    }

    /// Keeps the result of a value, or that there is none, and forwards it where it is another one.
    fn join_with(
        &mut self,
        join: &ForeignKey<'a>,
        moving: Moving<'a>,
        right: Value<'a>,
    ) -> Result<Forward<'a>, Failure> {
        let left = moving.value;
        let is_alone = right.is_null() && join.unmatched == Unmatched::Dropped;
        let result = if left.is_null() || is_alone {
            let value = Value::Null;
            Moving { value, ..moving }
        } else {
            self.joined(join.node, join.value, moving, (left, right))?
        };
        match self.keep(&join.results, result)? {
            Forward::One(kept) => Ok(tables::changed(kept)),
            forward @ (Forward::Nothing | Forward::Each(_)) => Ok(forward),
        }
    }

    /// The key that a value names.
    fn named(&self, join: &ForeignKey<'a>, moving: &Moving<'a>) -> Result<Value<'a>, Failure> {
        let named = tables::mapped(join.foreign_key, &self.scope(moving));
        named.map_err(|error| Failure::new(ErrorCategory::Expression, join.node, error))
    }

    /// See [`topology::plan::response`].
    fn response(&self, foreign_key: Value<'a>, value: Value<'a>, partition: Value<'a>) -> Value<'a> {
        Value::Struct(self.arena.alloc([foreign_key, value, partition]))
    }
}
