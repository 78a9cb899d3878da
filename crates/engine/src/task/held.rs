//! What waits: updates of a table for later ones, and records for late updates of a table.

use topology::Value;
use topology::plan::{NodeIndex, Op, Windows};

use super::aggregate::Kept;
use super::joins::Lookup;
use super::walk::{Forward, Moving, Walk};
use crate::Store;
use crate::error::Failure;
use crate::window_rows::{begin_suppressed, encode_time, held_row};

impl<'a, S: Store> Walk<'_, 'a, S> {
    /// Keeps an update in the place of others of its key that wait. The first one says when the last one goes on.
    pub(super) fn suppress(&mut self, kept: &Kept<'a>, moving: &Moving<'a>) -> Result<Forward<'a>, Failure> {
        self.observe(kept, moving)?;
        let key = self.key_bytes(kept, moving.key)?;
        begin_suppressed(&mut self.state.key);
        self.state.key.extend_from_slice(key);
        let (location, stored) = self.stored(kept, &kept.spec.value)?;
        let before = match stored {
            Some((_, Value::Struct([before, _]))) => *before,
            Some(_) => return Err(kept.unread(&"no update")),
            None => moving.before,
        };
        let change = Value::Struct(self.arena.alloc([before, moving.value]));
        self.stage(kept, location, &kept.spec.value, change, moving.timestamp)?;
        if stored.is_none() {
            let state = &mut *self.state;
            state.key.clear();
            state.key.extend_from_slice(&encode_time(moving.timestamp));
            state.key.extend_from_slice(key);
            state.open_row(kept.store, moving.timestamp);
        }
        Ok(Forward::Nothing)
    }

    /// Keeps a record until its time is over, unless it is.
    pub(super) fn hold(
        &mut self,
        kept: &Kept<'a>,
        windows: Windows,
        moving: &Moving<'a>,
    ) -> Result<bool, Failure> {
        let closed = windows.last_closed(self.observe(kept, moving)?);
        if moving.timestamp <= closed {
            return Ok(false);
        }
        let key = self.key_bytes(kept, moving.key)?;
        let time = moving.timestamp;
        self.next_number(kept, |number, row| held_row(time, key, number, row))?;
        let location = self.state.staging[kept.store].locate(&self.state.key);
        self.stage(kept, location, &kept.spec.value, moving.value, time)?;
        self.state.opened(kept.store);
        Ok(true)
    }

    /// A record has waited at this join for long enough.
    pub(super) fn release(&mut self, index: NodeIndex, held: Moving<'a>) -> Result<(), Failure> {
        let node = &self.sub.nodes[index];
        let Op::JoinTable {
            store,
            unmatched,
            value,
            ..
        } = &node.op
        else {
            return Ok(());
        };
        let kept = Kept::of(self.sub, index, *store)?;
        let lookup = Lookup {
            node: index,
            unmatched: *unmatched,
            value,
        };
        match self.join_table(&kept, &lookup, held)? {
            Forward::One(joined) => self.run_children(node, joined),
            Forward::Nothing | Forward::Each(_) => Ok(()),
        }
    }
}
