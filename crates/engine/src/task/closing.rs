//! How a window closes: its rows are deleted, and its result goes on or, when it cannot, becomes a dead letter.

use bumpalo::Bump;
use topology::plan::{Emit, NodeIndex, SlidingWindows, StoreIndex, SubTopology, Windows};
use topology::{Type, Value};

use super::Codecs;
use super::dead_letter::Letter;
use super::results::Results;
use super::state::State;
use super::walk::{Moving, Walk};
use crate::error::Failure;
use crate::format::windowed_key;
use crate::staging::Location;
use crate::window_rows::{
    Kept, Session, Sliding, Version, begin_sessions, begin_suppressed, closing_row, split_held_row,
    split_session_row, time_of,
};
use crate::{ErrorCategory, InputRecord, Origin, Store, StoreError, row};

/// A row of a store that is to be closed.
pub(super) struct Row {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// Deletes the rows of a window that is closed, and sends its result on where that waits for it.
pub(super) fn close<S: Store>(
    sub: &SubTopology,
    codecs: &Codecs,
    arena: &Bump,
    state: &mut State<S>,
    results: &mut Results,
    (store, row): (StoreIndex, &Row),
) -> Result<(), Failure> {
    let Some((node, emit)) = state.clock(store).map(|clock| (clock.node, clock.emit)) else {
        return Ok(());
    };
    let (window, removed) = remove(sub, arena, state, (store, row))?;
    let Some(removed) = removed.filter(|_| emit == Emit::OnWindowClose) else {
        return Ok(());
    };
    let key = codecs.stores[store].decode(Some(window.key), arena);
    let key = key.map_err(|error| unread(sub, node, store, &error))?;
    let key = match sub.stores[store].windows {
        Some(Windows::Time(_) | Windows::Session(_) | Windows::Sliding(_)) => {
            windowed_key(key, window.start, window.end, arena)
        }
        _ => key,
    };
    let closed = Moving {
        key,
        value: removed.value,
        timestamp: removed.timestamp,
        before: removed.before,
    };
    // Steps behind it do not ask for a record's coordinates.
    let none = InputRecord {
        topic: "",
        partition: state.partition,
        offset: 0,
        timestamp: closed.timestamp,
        key: None,
        value: None,
        headers: &[],
    };
    let mut walk = Walk {
        sub,
        codecs,
        record: &none,
        arena,
        state,
        results,
        dropped: None,
    };
    match sub.stores[store].windows {
        Some(Windows::Join(_)) => walk.forget(store, closed),
        Some(Windows::Held { .. }) => walk.release(node, closed),
        _ => walk.run_children(&sub.nodes[node], closed),
    }
}

/// Stages that a window is not there any more, or goes on as something else; returns it with what was in it and may have a result.
pub(super) fn remove<'a, S: Store>(
    sub: &SubTopology,
    arena: &'a Bump,
    state: &mut State<S>,
    (store, row): (StoreIndex, &'a Row),
) -> Result<(Window<'a>, Option<Removed<'a>>), Failure> {
    let (spec, clock) = (&sub.stores[store], state.clock(store));
    let node = clock.map_or(0, |clock| clock.node);
    let failed = |error: &dyn std::fmt::Display| unread(sub, node, store, error);
    let Some(window) = row.window(spec.windows) else {
        return Err(failed(&"a row that no window has"));
    };
    let one = |value| Some(Removed::of(value, window.timestamp));
    let ty = &spec.value;
    let removed = match (spec.windows, state.row_type(store)) {
        (Some(Windows::Session(_)), Some(list)) => {
            state.remove_session(store, &list, &window, arena).map(one)
        }
        (Some(Windows::Join(_)), _) => state.remove_joined(store, ty, row, arena).map(one),
        (Some(Windows::Sliding(windows)), _) => state.close_slide(store, windows, ty, &window, arena),
        (Some(Windows::Suppress { .. }), _) => state.remove_suppressed(store, ty, &window, arena).map(Some),
        (Some(Windows::Versions { .. }), _) => {
            state.remove_version(store, &window);
            Ok(None)
        }
        _ => decoded(ty, &row.value, arena).map(|(_, value)| one(value)),
    };
    let removed = removed.map_err(|error| failed(&error))?;
    state.delete(store, &row.key, window.timestamp);
    Ok((window, removed))
}

/// What was in a window.
pub(super) struct Removed<'a> {
    value: Value<'a>,
    /// Of its result.
    timestamp: i64,
    /// Of an update: the value before.
    before: Value<'a>,
}

impl<'a> Removed<'a> {
    /// What is no update.
    fn of(value: Value<'a>, timestamp: i64) -> Self {
        Self {
            value,
            timestamp,
            before: Value::Null,
        }
    }
}

/// Timestamp and value of a row.
fn decoded<'a>(ty: &Type, bytes: &'a [u8], arena: &'a Bump) -> Result<(i64, Value<'a>), StoreError> {
    row::decode_timestamped(ty, bytes, arena).map_err(|error| StoreError::new(error.to_string()))
}

/// The same of one that must be there, and whose place is overwritten.
fn taken<'a>(ty: &Type, bytes: Option<&[u8]>, arena: &'a Bump) -> Result<(i64, Value<'a>), StoreError> {
    let bytes =
        bytes.ok_or_else(|| StoreError::new("a row in the order of time is about nothing".to_owned()));
    decoded(ty, arena.alloc_slice_copy(bytes?), arena)
}

#[cold]
fn unread(sub: &SubTopology, node: NodeIndex, store: StoreIndex, error: &dyn std::fmt::Display) -> Failure {
    let reason = format!("store `{}`: {error}", sub.stores[store].name);
    Failure::new(ErrorCategory::StoreRead, node, reason)
}

impl<S: Store> State<S> {
    /// Takes a session from the list of its key; returns its value.
    fn remove_session<'a>(
        &mut self,
        store: StoreIndex,
        list: &Type,
        window: &Window<'_>,
        arena: &'a Bump,
    ) -> Result<Value<'a>, StoreError> {
        let wrong = |reason: &dyn std::fmt::Display| StoreError::new(reason.to_string());
        let (location, bytes) = self.look_up_sessions(store, window.key)?;
        let bytes = arena.alloc_slice_copy(bytes.unwrap_or_default());
        let decoded = row::decode_timestamped(list, bytes, arena).map_err(|error| wrong(&error))?;
        let (timestamp, Value::List(items)) = decoded else {
            return Err(wrong(&"no list of windows"));
        };
        let is_it = |item: &&Value<'a>| {
            Session::of_item(item)
                .is_some_and(|session| (session.start, session.end) == (window.start, window.end))
        };
        let session = items.iter().find(is_it).and_then(Session::of_item);
        let session = session.ok_or_else(|| wrong(&"a window has no value"))?;
        let others = items.iter().filter(|item| !is_it(item)).copied();
        let others = bumpalo::collections::Vec::from_iter_in(others, arena);
        self.next.clear();
        if !others.is_empty() {
            row::encode_timestamped(list, timestamp, Value::List(&others), &mut self.next)
                .map_err(|error| wrong(&error))?;
        }
        if let Some(staging) = self.staging.get_mut(store) {
            let value = (!others.is_empty()).then_some(self.next.as_slice());
            staging.put(location, &self.key, value, timestamp);
        }
        Ok(session.value)
    }

    /// Takes an update that waited.
    fn remove_suppressed<'a>(
        &mut self,
        store: StoreIndex,
        ty: &Type,
        window: &Window<'_>,
        arena: &'a Bump,
    ) -> Result<Removed<'a>, StoreError> {
        let (_, bytes) = self.look_up_suppressed(store, window.key)?;
        let (timestamp, change) = taken(ty, bytes, arena)?;
        let Value::Struct([before, value]) = change else {
            return Err(StoreError::new("no update".to_owned()));
        };
        self.put_row(store, None, timestamp);
        Ok(Removed {
            value: *value,
            timestamp,
            before: *before,
        })
    }

    /// The update of a key with these bytes.
    fn look_up_suppressed(
        &mut self,
        store: StoreIndex,
        key: &[u8],
    ) -> Result<(Location, Option<&[u8]>), StoreError> {
        begin_suppressed(&mut self.key);
        self.key.extend_from_slice(key);
        self.look_up(store)
    }

    /// The row of a sliding window.
    fn look_up_slide(
        &mut self,
        store: StoreIndex,
        window: &Window<'_>,
    ) -> Result<(Location, Option<&[u8]>), StoreError> {
        let (key, start) = (window.key, window.start);
        Sliding { key, start }.row(&mut self.key);
        self.look_up(store)
    }

    /// Closes a sliding window, which is read on for some time, or forgets it.
    fn close_slide<'a>(
        &mut self,
        store: StoreIndex,
        windows: SlidingWindows,
        ty: &Type,
        window: &Window<'_>,
        arena: &'a Bump,
    ) -> Result<Option<Removed<'a>>, StoreError> {
        let forgotten = windows.forgotten(window.start);
        let (_, bytes) = self.look_up_slide(store, window)?;
        if window.end == forgotten {
            self.put_row(store, None, window.timestamp);
            return Ok(None);
        }
        let (timestamp, value) = taken(ty, bytes, arena)?;
        closing_row(forgotten, window.start, window.key, &mut self.key);
        self.open_row(store, timestamp);
        Ok(Some(Removed::of(value, timestamp)))
    }

    /// Forgets a version that has ended.
    fn remove_version(&mut self, store: StoreIndex, window: &Window<'_>) {
        let version = Version {
            key: window.key,
            time: window.start,
        };
        version.row(&mut self.key);
        self.put_row(store, None, window.timestamp);
    }

    /// Takes a record that was kept to be joined; returns what was kept of it.
    fn remove_joined<'a>(
        &mut self,
        store: StoreIndex,
        ty: &Type,
        row: &Row,
        arena: &'a Bump,
    ) -> Result<Value<'a>, StoreError> {
        let (_, bytes) = self.look_up_joined(store, row)?;
        let (timestamp, value) = taken(ty, bytes, arena)?;
        self.put_row(store, None, timestamp);
        Ok(value)
    }

    /// The row of the record that a row in the order of time is about.
    fn look_up_joined(
        &mut self,
        store: StoreIndex,
        row: &Row,
    ) -> Result<(Location, Option<&[u8]>), StoreError> {
        let kept = Kept::of_closing_row(&row.key);
        let kept = kept.ok_or_else(|| StoreError::new("a row that no record has".to_owned()))?;
        kept.row(&mut self.key);
        self.look_up(store)
    }

    /// The list of the windows of a key with these bytes.
    fn look_up_sessions(
        &mut self,
        store: StoreIndex,
        key: &[u8],
    ) -> Result<(Location, Option<&[u8]>), StoreError> {
        begin_sessions(&mut self.key);
        self.key.extend_from_slice(key);
        self.look_up(store)
    }
}

/// What the row of a window says of it.
pub(super) struct Window<'r> {
    /// The key's bytes.
    key: &'r [u8],
    start: i64,
    end: i64,
    /// Of its result.
    timestamp: i64,
}

impl<'r> Window<'r> {
    /// Of one instant.
    fn of(time: i64, key: &'r [u8]) -> Self {
        Self {
            key,
            start: time,
            end: time,
            timestamp: time,
        }
    }
}

impl Row {
    /// `None` when the key is that of no window.
    fn window(&self, windows: Option<Windows>) -> Option<Window<'_>> {
        match windows? {
            Windows::Time(windows) => {
                let (start, key) = (time_of(&self.key)?, self.key.get(8..)?);
                // A row that is too short for it is told when its value is read.
                let timestamp = self.value.get(1..).and_then(<[u8]>::first_chunk);
                Some(Window {
                    key,
                    start,
                    end: start.saturating_add(windows.size_ms),
                    timestamp: timestamp.map_or(0, |bytes| i64::from_be_bytes(*bytes)),
                })
            }
            Windows::Session(_) | Windows::Versions { .. } | Windows::Sliding(_) => {
                let (start, end, key) = split_session_row(&self.key)?;
                let timestamp = end;
                Some(Window {
                    key,
                    start,
                    end,
                    timestamp,
                })
            }
            Windows::Join(_) => {
                let Kept { key, time, .. } = Kept::of_closing_row(&self.key)?;
                Some(Window::of(time, key))
            }
            Windows::Suppress { .. } => Some(Window::of(time_of(&self.key)?, self.key.get(8..)?)),
            Windows::Held { .. } => {
                let (time, key) = split_held_row(&self.key)?;
                Some(Window::of(time, key))
            }
        }
    }
}

/// A window that cannot be closed: what a dead letter has of it.
#[cold]
pub(super) fn letter<'a, S: Store>(
    sub: &SubTopology,
    codecs: &Codecs,
    arena: &'a Bump,
    state: &mut State<S>,
    (store, row): (StoreIndex, &'a Row),
) -> Letter<'a> {
    let spec = &sub.stores[store];
    let Some(window) = row.window(spec.windows) else {
        return Letter {
            origin: Origin::Store(spec.name.clone()),
            key: Some(&row.key),
            value: Some(&row.value),
            timestamp: 0,
            headers: &[],
        };
    };
    let found = match spec.windows {
        Some(Windows::Session(_)) => Some(state.look_up_sessions(store, window.key)),
        Some(Windows::Join(_)) => Some(state.look_up_joined(store, row)),
        Some(Windows::Suppress { .. }) => Some(state.look_up_suppressed(store, window.key)),
        Some(Windows::Sliding(_)) => Some(state.look_up_slide(store, &window)),
        Some(Windows::Time(_) | Windows::Versions { .. } | Windows::Held { .. }) | None => None,
    };
    let value = match found {
        Some(found) => {
            let bytes = found.ok().and_then(|(_, bytes)| bytes);
            bytes.map(|bytes| &*arena.alloc_slice_copy(bytes))
        }
        None => Some(&*row.value),
    };
    let decoded = codecs.stores[store].decode(Some(window.key), arena);
    Letter {
        origin: Origin::Window {
            store: spec.name.clone(),
            key: decoded.map(text).unwrap_or_default(),
            start: window.start,
        },
        key: Some(window.key),
        value,
        timestamp: window.timestamp,
        headers: &[],
    }
}

/// A key for people.
fn text(key: Value<'_>) -> String {
    if let Value::String(text) = key {
        format!("{text:?}")
    } else if let Value::Bytes(bytes) = key {
        format!("{:?}", String::from_utf8_lossy(bytes))
    } else if let Value::Int(number) = key {
        number.to_string()
    } else {
        format!("{key:?}")
    }
}
