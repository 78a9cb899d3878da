//! Tables that keep what was replaced: the versions of a key, from the time of each to that of the next (KIP-889, KIP-914).

use std::ops::ControlFlow;

use topology::Value;
use topology::plan::Windows;

use super::aggregate::Kept;
use super::walk::{Forward, Moving, Walk};
use crate::error::Failure;
use crate::window_rows::{Version, closing_row};
use crate::{DropReason, Store};

/// A value that a key had from a time on; null where it was deleted then.
#[derive(Clone, Copy)]
struct Was<'a> {
    time: i64,
    value: Value<'a>,
}

/// What is kept around a time: the next version behind it, the one that begins then, and the last one before.
#[derive(Default)]
struct Around<'a> {
    next: Option<i64>,
    same: Option<Was<'a>>,
    last: Option<Was<'a>>,
}

impl<'a, S: Store> Walk<'_, 'a, S> {
    /// Keeps the value from its time on. It is an update of the table only where there is none of a later time.
    pub(super) fn keep_version(
        &mut self,
        kept: &Kept<'a>,
        windows: Windows,
        moving: Moving<'a>,
    ) -> Result<Forward<'a>, Failure> {
        let time = moving.timestamp;
        let closed = windows.last_closed(self.observe(kept, &moving)?);
        if time < closed {
            return Ok(self.drop(DropReason::Late));
        }
        let key = self.key_bytes(kept, moving.key)?;
        let Around { next, same, last } = self.around(kept, key, time)?;
        // What ended with the next version ends with this one now.
        if let (None, Some(last)) = (same, last)
            && !last.value.is_null()
        {
            if let Some(next) = next {
                self.unplan(kept, key, last.time, next);
            }
            self.plan_end(kept, key, last.time, time);
        }
        // A version goes when it has ended for long enough, a deletion when it has begun.
        let end = |value: &Value<'_>| if value.is_null() { Some(time) } else { next };
        if let Some(end) = same.and_then(|same| end(&same.value)) {
            self.unplan(kept, key, time, end);
        }
        if let Some(end) = end(&moving.value) {
            self.plan_end(kept, key, time, end);
        }
        self.stage_version(
            kept,
            key,
            Was {
                time,
                value: moving.value,
            },
        )?;
        let before = same.or(last).map_or(Value::Null, |was| was.value);
        Ok(match next {
            Some(_) => Forward::Nothing,
            None => Forward::One(Moving { before, ..moving }),
        })
    }

    /// What a key had at a time, or has by now, and since when.
    pub(super) fn version(
        &mut self,
        kept: &Kept<'a>,
        windows: Windows,
        key: Value<'a>,
        at: Option<i64>,
    ) -> Result<Option<(i64, Value<'a>)>, Failure> {
        let time = self.state.time(kept.store).map_err(|error| kept.unread(&error))?;
        let Some(time) = time else { return Ok(None) };
        let closed = windows.last_closed(time);
        let key = self.key_bytes(kept, key)?;
        // Of times that are over for too long only the last version is known.
        let from = at.filter(|at| *at >= closed);
        let mut found = None;
        self.versions(kept, key, from, &mut |was| {
            found = Some(was);
            ControlFlow::Break(())
        })?;
        let found = found.filter(|was| at.is_none_or(|at| was.time <= at));
        let found = found.filter(|was| !was.value.is_null());
        Ok(found.map(|was| (was.time, was.value)))
    }

    fn around(&mut self, kept: &Kept<'a>, key: &'a [u8], time: i64) -> Result<Around<'a>, Failure> {
        let mut around = Around::default();
        self.versions(kept, key, None, &mut |was| {
            if was.time > time {
                around.next = Some(was.time);
            } else if was.time == time {
                around.same = Some(was);
            } else {
                around.last = Some(was);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(around)
    }

    /// Visits the versions of a key, the latest first, beginning with the one that holds at a time.
    fn versions(
        &mut self,
        kept: &Kept<'a>,
        key: &'a [u8],
        at: Option<i64>,
        visit: &mut dyn FnMut(Was<'a>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let ty = self.state.row_type(kept.store);
        let ty = ty.ok_or_else(|| kept.unread(&"no versions"))?;
        let version = |time| Version { key, time };
        version(at.unwrap_or(i64::MAX)).row(&mut self.state.key);
        version(i64::MIN).row(&mut self.state.next);
        self.rows(kept, &ty, &mut |row, _, value| {
            let Version { time, .. } = Version::of_row(row).ok_or("a row that no version has")?;
            Ok(visit(Was { time, value }))
        })
    }

    fn stage_version(&mut self, kept: &Kept<'a>, key: &[u8], was: Was<'a>) -> Result<(), Failure> {
        let ty = self.state.row_type(kept.store);
        let ty = ty.ok_or_else(|| kept.unread(&"no versions"))?;
        Version { key, time: was.time }.row(&mut self.state.key);
        let location = self.state.staging[kept.store].locate(&self.state.key);
        self.stage_row(kept, location, &ty, Some(was.value), was.time)
    }

    /// A version that ends then is not needed any more some time later.
    fn plan_end(&mut self, kept: &Kept<'a>, key: &[u8], time: i64, end: i64) {
        closing_row(end, time, key, &mut self.state.key);
        self.state.open_row(kept.store, end);
    }

    fn unplan(&mut self, kept: &Kept<'a>, key: &[u8], time: i64, end: i64) {
        closing_row(end, time, key, &mut self.state.key);
        self.state.put_row(kept.store, None, end);
    }
}
