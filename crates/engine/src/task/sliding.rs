//! Sliding windows: one for each set of records that are near to each other (KIP-450, `KStreamSlidingWindowAggregate`).
//!
//! A record at time *t* makes the window that ends with it, and the one that begins behind it as soon as a record is there. What a
//! new window has of records that came before is found in the windows around it, also in closed ones: so these are kept for some
//! time.

use std::ops::ControlFlow;

use bumpalo::collections::Vec as ArenaVec;
use topology::Value;
use topology::plan::{Emit, SlidingWindows};

use super::aggregate::{Aggregation, Kept};
use super::walk::{Forward, Moving, Walk};
use crate::error::Failure;
use crate::format::windowed_key;
use crate::window_rows::{Sliding, closing_row};
use crate::{DropReason, Store};

/// A window that is kept.
#[derive(Clone, Copy)]
struct Slide<'a> {
    start: i64,
    /// Of its last record.
    timestamp: i64,
    value: Value<'a>,
}

/// The windows around a record.
#[derive(Default)]
struct Around<'a> {
    /// Ends with the record, or is the first one of all.
    left: Option<Slide<'a>>,
    /// The last one that ends before it.
    before: Option<Slide<'a>>,
    /// The last one that the record is in and that begins later than `left`.
    last: Option<Slide<'a>>,
    /// Time of the last record before this one, where that is known.
    previous: Option<i64>,
    /// Whether the one behind the record is there.
    has_right: bool,
}

/// Where a window is kept.
struct Slot<'a> {
    /// The key's bytes.
    key: &'a [u8],
    start: i64,
    is_open: bool,
}

impl<'a, S: Store> Walk<'_, 'a, S> {
    /// Updates all windows of the record that are not closed, and makes those that it lacks.
    pub(super) fn aggregate_sliding(
        &mut self,
        aggregation: &Aggregation<'a>,
        windows: SlidingWindows,
        moving: &Moving<'a>,
    ) -> Result<Forward<'a>, Failure> {
        let (kept, time, difference) = (&aggregation.kept, moving.timestamp, windows.difference_ms);
        let closed = windows.last_closed(self.observe(kept, moving)?);
        if time.saturating_add(difference) <= closed {
            return Ok(self.drop(DropReason::Late));
        }
        let key = self.key_bytes(kept, moving.key)?;
        // Windows begin at zero, at the earliest: there is one that ends with each of the first records.
        let left = (time - difference).max(0);
        let first = time.saturating_sub(difference.saturating_mul(2)).max(0);
        let windows_there = self.slides(kept, key, (first, time.saturating_add(1)))?;
        let mut around = Around::default();
        let with_record = |slide: &Slide<'a>| Some((slide.timestamp, slide.value));
        let put = |walk: &mut Self, start, base, is_added| {
            let slot = Slot {
                key,
                start,
                is_open: start + difference > closed,
            };
            walk.put_slide(aggregation, windows, &slot, base, is_added, moving)
        };
        for slide in &windows_there {
            if slide.start > time {
                around.has_right = true;
            } else if slide.start > left {
                around.last = Some(*slide);
                put(self, slide.start, with_record(slide), true)?;
            } else if slide.start == left {
                around.left = Some(*slide);
                if slide.timestamp < time {
                    around.previous = Some(slide.timestamp);
                }
            } else {
                around.before = Some(*slide);
                around.previous = Some(slide.timestamp);
            }
        }
        if let Some(start) = around.previous.map(|previous| previous + 1) {
            let is_there = windows_there.iter().any(|slide| slide.start == start);
            if !is_there && start + difference > time {
                put(self, start, None, true)?;
            }
        }
        let base = match (around.left, around.previous) {
            (Some(left), _) => with_record(&left),
            (None, Some(previous)) if previous >= left => around.before.as_ref().and_then(with_record),
            (None, _) => None,
        };
        put(self, left, base, true)?;
        // What comes behind the record was in a window with what was before.
        let later = around.last.or(around.left).filter(|slide| slide.timestamp > time);
        if let (Some(later), false) = (later, around.has_right) {
            put(self, time + 1, with_record(&later), false)?;
        }
        Ok(Forward::Nothing)
    }

    /// The windows of a key that start in a time, the earliest first.
    fn slides(
        &mut self,
        kept: &Kept<'a>,
        key: &'a [u8],
        (first, last): (i64, i64),
    ) -> Result<ArenaVec<'a, Slide<'a>>, Failure> {
        Sliding { key, start: first }.row(&mut self.state.key);
        Sliding {
            key,
            start: last.saturating_add(1),
        }
        .row(&mut self.state.next);
        let mut slides = ArenaVec::new_in(self.arena);
        self.rows(kept, &kept.spec.value, &mut |row, timestamp, value| {
            let Sliding { start, .. } = Sliding::of_row(row).ok_or("a row that no window has")?;
            slides.push(Slide {
                start,
                timestamp,
                value,
            });
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(slides)
    }

    /// Stages a window that is open: what was in it, if anything, and the record, if it is.
    fn put_slide(
        &mut self,
        aggregation: &Aggregation<'a>,
        windows: SlidingWindows,
        slot: &Slot<'a>,
        base: Option<(i64, Value<'a>)>,
        is_added: bool,
        moving: &Moving<'a>,
    ) -> Result<(), Failure> {
        if !slot.is_open {
            return Ok(());
        }
        let (kept, key, start) = (&aggregation.kept, slot.key, slot.start);
        let timestamp = base
            .map_or(i64::MIN, |(timestamp, _)| timestamp)
            .max(moving.timestamp);
        let value = match base {
            Some((_, value)) if !is_added => value,
            base => self.folded(aggregation, base.map(|(_, value)| value), moving)?,
        };
        Sliding { key, start }.row(&mut self.state.key);
        let (location, stored) = self.stored(kept, &kept.spec.value)?;
        self.stage(kept, location, &kept.spec.value, value, timestamp)?;
        // A window that waits for its end is forgotten some time behind that.
        let due = match aggregation.emit {
            Emit::OnUpdate => windows.forgotten(start),
            Emit::OnWindowClose => start + windows.difference_ms,
        };
        closing_row(due, start, key, &mut self.state.key);
        if value.is_null() {
            self.state.put_row(kept.store, None, timestamp);
        } else {
            self.state.open_row(kept.store, timestamp);
        }
        let updated = Moving {
            key: windowed_key(moving.key, start, start + windows.difference_ms, self.arena),
            value,
            timestamp,
            before: stored.map_or(Value::Null, |(_, value)| value),
        };
        self.forward(aggregation, updated)
    }
}
