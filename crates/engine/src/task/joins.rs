//! Tables, and joins of tables and streams.

use std::ops::ControlFlow;

use bumpalo::collections::Vec as ArenaVec;
use topology::plan::{JoinWindows, Node, NodeIndex, Op, Side, StoreIndex, Unmatched, Windows};
use topology::{Expr, Scope, Value};

use super::aggregate::Kept;
use super::tables;
use super::walk::{Forward, Moving, Walk};
use crate::error::Failure;
use crate::window_rows::{self, encode_time};
use crate::{ErrorCategory, Store};

/// An [`Op::JoinStreams`](topology::plan::Op::JoinStreams) at its node.
pub(super) struct Streams<'a> {
    pub(super) node: (NodeIndex, &'a Node),
    pub(super) side: Side,
    /// What becomes of a record of the left stream, and of the right one, that nothing was joined with.
    pub(super) alone: (Unmatched, Unmatched),
    pub(super) value: &'a Expr,
}

impl Streams<'_> {
    fn alone(&self, side: Side) -> Unmatched {
        match side {
            Side::Left => self.alone.0,
            Side::Right => self.alone.1,
        }
    }
}

/// An [`Op::JoinTable`](topology::plan::Op::JoinTable) at its node.
pub(super) struct Lookup<'a> {
    pub(super) node: NodeIndex,
    /// What becomes of a record for which there is nothing.
    pub(super) unmatched: Unmatched,
    pub(super) value: &'a Expr,
}

/// A record of the other stream that one is joined with.
struct Partner<'a> {
    row: &'a [u8],
    kept: window_rows::Kept<'a>,
    value: Value<'a>,
    is_joined: bool,
}

/// An [`Op::JoinTables`](topology::plan::Op::JoinTables) at its node.
pub(super) struct Tables<'a> {
    pub(super) node: NodeIndex,
    pub(super) side: Side,
    /// What becomes of a value of the left table, and of the right one, alone.
    pub(super) alone: (Unmatched, Unmatched),
    pub(super) value: &'a Expr,
}

impl Tables<'_> {
    /// Whether there is a result of what is there on this side and on the other one.
    fn has_result(&self, here: bool, there: bool) -> bool {
        let (left, right) = match self.side {
            Side::Left => (here, there),
            Side::Right => (there, here),
        };
        match (left, right) {
            (true, true) => true,
            (true, false) => self.alone.0 == Unmatched::Forwarded,
            (false, true) => self.alone.1 == Unmatched::Forwarded,
            (false, false) => false,
        }
    }
}

impl<'a, S: Store> Walk<'_, 'a, S> {
    /// Stages the value in the place of the key's last one, whichever is older (`KTableSource`); beside it where the table keeps what
    /// is replaced.
    pub(super) fn keep(&mut self, kept: &Kept<'a>, moving: Moving<'a>) -> Result<Forward<'a>, Failure> {
        if let Some(windows) = kept.spec.windows {
            return self.keep_version(kept, windows, moving);
        }
        self.state.key.clear();
        self.encode_key(kept, moving.key)?;
        let (location, stored) = self.stored(kept, &kept.spec.value)?;
        self.stage(kept, location, &kept.spec.value, moving.value, moving.timestamp)?;
        let before = stored.map_or(Value::Null, |(_, value)| value);
        Ok(Forward::One(Moving { before, ..moving }))
    }

    /// What a table has under a key; or had at a time, where it keeps what is replaced.
    pub(super) fn found(
        &mut self,
        kept: &Kept<'a>,
        key: Value<'a>,
        at: Option<i64>,
    ) -> Result<Option<(i64, Value<'a>)>, Failure> {
        if let Some(windows) = kept.spec.windows {
            return self.version(kept, windows, key, at);
        }
        self.state.key.clear();
        self.encode_key(kept, key)?;
        self.stored(kept, &kept.spec.value).map(|(_, stored)| stored)
    }

    pub(super) fn join_table(
        &mut self,
        kept: &Kept<'a>,
        join: &Lookup<'a>,
        moving: Moving<'a>,
    ) -> Result<Forward<'a>, Failure> {
        let found = self.found(kept, moving.key, Some(moving.timestamp))?;
        let right = match (found, join.unmatched) {
            (Some((_, right)), _) => right,
            (None, Unmatched::Forwarded) => Value::Null,
            (None, Unmatched::Dropped) => return Ok(Forward::Nothing),
        };
        let joined = self.joined(join.node, join.value, moving, (moving.value, right))?;
        Ok(Forward::One(joined))
    }

    /// An update goes on where there is a result now, or was one before.
    pub(super) fn join_tables(
        &mut self,
        kept: &Kept<'a>,
        join: &Tables<'a>,
        moving: Moving<'a>,
    ) -> Result<Forward<'a>, Failure> {
        let found = self.found(kept, moving.key, None)?;
        let (time, there) = found.unwrap_or((i64::MIN, Value::Null));
        let timestamp = moving.timestamp.max(time);
        let joined = self.evaluated(Moving { timestamp, ..moving }, |scope| {
            if !join.has_result(!scope.value.is_null(), found.is_some()) {
                return Ok(Value::Null);
            }
            let (left, right) = match join.side {
                Side::Left => (scope.value, there),
                Side::Right => (there, scope.value),
            };
            join.value.eval(&Scope {
                value: left,
                aggregate: right,
                ..*scope
            })
        });
        let joined = joined.map_err(|error| Failure::new(ErrorCategory::Expression, join.node, error))?;
        Ok(tables::changed(joined))
    }

    /// The record with the joined value of a left and a right one.
    pub(super) fn joined(
        &self,
        node: NodeIndex,
        value: &'a Expr,
        moving: Moving<'a>,
        (left, right): (Value<'a>, Value<'a>),
    ) -> Result<Moving<'a>, Failure> {
        let mut scope = self.scope(&moving);
        (scope.value, scope.aggregate) = (left, right);
        let value = value.eval(&scope);
        let value = value.map_err(|error| Failure::new(ErrorCategory::Expression, node, error))?;
        Ok(Moving { value, ..moving })
    }

    pub(super) fn join_streams(
        &mut self,
        kept: &Kept<'a>,
        join: &Streams<'a>,
        moving: Moving<'a>,
    ) -> Result<Forward<'a>, Failure> {
        let Some(Windows::Join(windows)) = kept.spec.windows else {
            return Err(kept.unread(&"no windows"));
        };
        let closed = windows.last_closed(self.observe(kept, &moving)?);
        let key = self.key_bytes(kept, moving.key)?;
        let partners = self.partners(kept, windows, join.side, key, moving.timestamp)?;
        for partner in &partners {
            if !partner.is_joined && join.alone(join.side.other()) == Unmatched::Forwarded {
                self.mark_joined(kept, partner)?;
            }
            let sides = match join.side {
                Side::Left => (moving.value, partner.value),
                Side::Right => (partner.value, moving.value),
            };
            let timestamp = moving.timestamp.max(partner.kept.time);
            let moving = Moving { timestamp, ..moving };
            let joined = self.joined(join.node.0, join.value, moving, sides)?;
            self.run_children(join.node.1, joined)?;
        }
        let is_joined = !partners.is_empty();
        let last = moving.timestamp.saturating_add(windows.reach(join.side));
        if last > closed {
            self.remember(kept, join.side, key, (moving, is_joined), last)?;
            return Ok(Forward::Nothing);
        }
        // Too late for others to come.
        if is_joined || join.alone(join.side) == Unmatched::Dropped {
            return Ok(Forward::Nothing);
        }
        let sides = alone(join.side, moving.value);
        Ok(Forward::One(self.joined(
            join.node.0,
            join.value,
            moving,
            sides,
        )?))
    }

    /// A record's time is over: it has a result of its own where nothing was joined with it and that is wanted.
    pub(super) fn forget(&mut self, store: StoreIndex, closed: Moving<'a>) -> Result<(), Failure> {
        let Value::Struct([Value::Bool(is_joined), left, right]) = closed.value else {
            let reason = "no record that is joined";
            return Err(Failure::new(ErrorCategory::StoreRead, 0, reason));
        };
        let side_of_it = if matches!(left, Value::Null) {
            Side::Right
        } else {
            Side::Left
        };
        let mut nodes = self.sub.nodes.iter().enumerate();
        let join = nodes.find_map(|(index, node)| {
            if let Op::JoinStreams {
                store: of,
                side,
                left,
                right,
                value,
            } = &node.op
                && (*of, *side) == (store, side_of_it)
            {
                Some(Streams {
                    node: (index, node),
                    side: *side,
                    alone: (*left, *right),
                    value,
                })
            } else {
                None
            }
        });
        match join {
            Some(join) if !is_joined && join.alone(join.side) == Unmatched::Forwarded => {
                let joined = self.joined(join.node.0, join.value, closed, (*left, *right))?;
                self.run_children(join.node.1, joined)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The records of the other stream with this key that are near to this time, the earliest first.
    fn partners(
        &mut self,
        kept: &Kept<'a>,
        windows: JoinWindows,
        side: Side,
        key: &[u8],
        timestamp: i64,
    ) -> Result<ArenaVec<'a, Partner<'a>>, Failure> {
        let (first, last) = windows.around(side, timestamp);
        let state = &mut *self.state;
        for (bound, time) in [(&mut state.key, first), (&mut state.next, last)] {
            window_rows::Kept::begin(side.other(), key, bound);
            bound.extend_from_slice(&encode_time(time));
        }
        // Behind all numbers of the last time.
        state.next.extend_from_slice(&[0xff; 5]);
        let arena = self.arena;
        let mut partners = ArenaVec::new_in(arena);
        self.rows(kept, &kept.spec.value, &mut |row, _, value| {
            let row: &'a [u8] = arena.alloc_slice_copy(row);
            let kept = window_rows::Kept::of_row(row).ok_or("a row that no record has")?;
            let Value::Struct([Value::Bool(is_joined), left, right]) = value else {
                return Err("no record that is joined");
            };
            partners.push(Partner {
                row,
                kept,
                value: match kept.side {
                    Side::Left => *left,
                    Side::Right => *right,
                },
                is_joined: *is_joined,
            });
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(partners)
    }

    /// Something was joined with a record that is kept.
    fn mark_joined(&mut self, kept: &Kept<'a>, partner: &Partner<'a>) -> Result<(), Failure> {
        self.state.key.clear();
        self.state.key.extend_from_slice(partner.row);
        let location = self.state.staging[kept.store].locate(&self.state.key);
        let value = encoded(partner.kept.side, true, partner.value, self.arena);
        self.stage(kept, location, &kept.spec.value, value, partner.kept.time)
    }

    /// Keeps a record for those of the other stream that come later, up to this time.
    fn remember(
        &mut self,
        kept: &Kept<'a>,
        side: Side,
        key: &'a [u8],
        (moving, is_joined): (Moving<'a>, bool),
        last: i64,
    ) -> Result<(), Failure> {
        let time = moving.timestamp;
        let record = |number| window_rows::Kept {
            side,
            key,
            time,
            number,
        };
        // Those of one side, key and time are forgotten together.
        let number = self.next_number(kept, |number, row| record(number).row(row))?;
        let record = record(number);
        let location = self.state.staging[kept.store].locate(&self.state.key);
        let value = encoded(side, is_joined, moving.value, self.arena);
        self.stage(kept, location, &kept.spec.value, value, time)?;
        record.closing_row(last, &mut self.state.key);
        self.state.open_row(kept.store, time);
        Ok(())
    }

    /// The first number whose row is not there, of rows that are numbered without gaps; its row's key is in `state.key`.
    pub(super) fn next_number(
        &mut self,
        kept: &Kept<'a>,
        row: impl Fn(u32, &mut Vec<u8>),
    ) -> Result<u32, Failure> {
        let mut is_taken = |number: u32| -> Result<bool, Failure> {
            row(number, &mut self.state.key);
            let found = self.state.look_up(kept.store);
            found
                .map(|(_, found)| found.is_some())
                .map_err(|error| kept.unread(&error))
        };
        let (mut free, mut step) = (0, 1);
        while is_taken(free)? {
            (free, step) = (free + step, step * 2);
        }
        let mut taken = free.saturating_sub(step / 2);
        while free > 0 && free - taken > 1 {
            let middle = taken + (free - taken) / 2;
            if is_taken(middle)? {
                taken = middle
            } else {
                free = middle
            }
        }
        row(free, &mut self.state.key);
        Ok(free)
    }
}

/// What a join sees of a value that is alone.
pub(super) fn alone<'a>(side: Side, value: Value<'a>) -> (Value<'a>, Value<'a>) {
    match side {
        Side::Left => (value, Value::Null),
        Side::Right => (Value::Null, value),
    }
}

/// What is kept of a record: see [`topology::plan::joined_row`].
fn encoded<'a>(side: Side, is_joined: bool, value: Value<'a>, arena: &'a bumpalo::Bump) -> Value<'a> {
    let (left, right) = alone(side, value);
    Value::Struct(arena.alloc([Value::Bool(is_joined), left, right]))
}
