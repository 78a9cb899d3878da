//! Time and closing of stores with windows (ADR 0034).
//!
//! The operator's stream time is a row of its store. A window is closed when grace behind its end is over by that time; then
//! its row is deleted, and with it goes its result, where that waits for the close. So what is closed and still in the store
//! was not sent, and nothing else has to be remembered.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use bumpalo::Bump;
use topology::plan::{Emit, NodeIndex, Op, StoreIndex, SubTopology, Windows};
use topology::{Type, Value};

use super::Codecs;
use super::dead_letter::Letter;
use super::results::Results;
use super::state::State;
use super::walk::{Moving, Walk};
use crate::error::Failure;
use crate::format::windowed_key;
use crate::staging::{Location, Staging};
use crate::window_rows::{
    STREAM_TIME, Session, begin_sessions, encode_time, sessions_type, split_session_row, time_of,
};
use crate::{ErrorCategory, InputRecord, Origin, Store, StoreError, Visit, row};

/// Most rows taken from a store at once, and most bytes of them.
const ROWS: usize = 256;
const BYTES: usize = 256 << 10;
/// What a session's own row holds: that it is there.
const PRESENT: &[u8] = &[row::VERSION];

/// A row of a store that is to be closed.
pub(super) struct Row {
    key: Vec<u8>,
    value: Vec<u8>,
}

/// The stream time of a windowed aggregation, and what it has closed.
pub(super) struct Clock {
    node: NodeIndex,
    windows: Windows,
    emit: Emit,
    /// Nothing before the first record; unknown until it is read from the store.
    time: Known,
    /// As it was before the record under way.
    before: Known,
    /// Of the list of a key's windows, where the store has such.
    sessions: Option<Arc<Type>>,
    /// Every window's row before this key is gone, or in `due`.
    from: Vec<u8>,
    /// No window's row that is not in `due` has an earlier time.
    floor: i64,
    /// To be closed, in order.
    due: VecDeque<Row>,
}

/// A stream time, where it was looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    No,
    Yes(Option<i64>),
}

impl Clock {
    /// That of a store of the sub-topology, if it has windows.
    pub(super) fn of(sub: &SubTopology, store: StoreIndex) -> Option<Self> {
        let windows = sub.stores.get(store)?.windows?;
        let emit = |op: &Op| {
            if let Op::Aggregate { store: of, emit, .. } = op {
                (*of == store).then_some(*emit)
            } else if let Op::Deduplicate { store: of, .. } = op {
                // What is forgotten is no result.
                (*of == store).then_some(Emit::OnUpdate)
            } else {
                None
            }
        };
        let mut nodes = sub.nodes.iter().enumerate();
        let (node, emit) = nodes.find_map(|(node, found)| Some((node, emit(&found.op)?)))?;
        Some(Self {
            node,
            windows,
            emit,
            time: Known::No,
            before: Known::No,
            sessions: match windows {
                Windows::Time(_) => None,
                Windows::Session(_) => Some(Arc::new(sessions_type(&sub.stores[store].value))),
            },
            from: encode_time(0).to_vec(),
            floor: 0,
            due: VecDeque::new(),
        })
    }

    pub(super) fn begin_record(&mut self) {
        self.before = self.time;
    }

    pub(super) fn rollback(&mut self) {
        self.time = self.before;
    }

    /// A window's row is there from now on.
    fn opened(&mut self, row: &[u8]) {
        self.floor = self.floor.min(time_of(row).unwrap_or(i64::MIN));
        if *row < *self.from {
            self.from.clear();
            self.from.extend_from_slice(row);
        }
    }

    /// The time up to which rows are closed at a stream time.
    fn last_closed(&self, stream_time: i64) -> i64 {
        match self.windows {
            Windows::Time(windows) => windows.last_closed(stream_time),
            Windows::Session(windows) => windows.last_closed(stream_time),
        }
    }

    /// Back to what is committed.
    pub(super) fn forget(&mut self) {
        (self.time, self.before) = (Known::No, Known::No);
        self.from.clear();
        self.from.extend_from_slice(&encode_time(0));
        self.floor = 0;
        self.due.clear();
    }
}

impl<S: Store> State<S> {
    /// The stream time of the store's operator behind a record with this timestamp, staged with the record's other effects.
    pub(super) fn observe(&mut self, store: StoreIndex, timestamp: i64) -> Result<i64, StoreError> {
        if let Some(time) = self.time(store)?
            && time >= timestamp
        {
            return Ok(time);
        }
        self.next.clear();
        row::encode_time(timestamp, &mut self.next);
        if let (Some(staging), Some(Some(clock))) = (self.staging.get_mut(store), self.clocks.get_mut(store))
        {
            staging.put(
                staging.locate(STREAM_TIME),
                STREAM_TIME,
                Some(&self.next),
                timestamp,
            );
            clock.time = Known::Yes(Some(timestamp));
        }
        Ok(timestamp)
    }

    fn time(&mut self, store: StoreIndex) -> Result<Option<i64>, StoreError> {
        if let Some(Known::Yes(time)) = self.clock(store).map(|clock| clock.time) {
            return Ok(time);
        }
        self.key.clear();
        self.key.extend_from_slice(STREAM_TIME);
        let (_, stored) = self.look_up(store)?;
        let time = stored.map(row::decode_time).transpose();
        let time = time.map_err(|error| StoreError::new(format!("stream time: {error}")))?;
        if let Some(Some(clock)) = self.clocks.get_mut(store) {
            clock.time = Known::Yes(time);
            // Whatever the record under way changes of it, that was so before.
            if clock.before == Known::No {
                clock.before = clock.time;
            }
        }
        Ok(time)
    }

    /// Whether a window of the store is to be closed.
    pub(super) fn is_due(&mut self, store: StoreIndex) -> Result<bool, (NodeIndex, StoreError)> {
        let time = self.time(store);
        let (Some(Some(clock)), Some(committed), Some(staging)) = (
            self.clocks.get_mut(store),
            self.stores.get(store),
            self.staging.get(store),
        ) else {
            return Ok(false);
        };
        let time = time.map_err(|error| (clock.node, error))?;
        if clock.due.is_empty()
            && let Some(last) = time.map(|time| clock.last_closed(time))
            && last >= clock.floor
        {
            clock
                .take(last, committed, staging)
                .map_err(|error| (clock.node, error))?;
        }
        Ok(!clock.due.is_empty())
    }

    /// The row under `self.key` is a window's, and is there from now on.
    pub(super) fn opened(&mut self, store: StoreIndex) {
        if let Some(Some(clock)) = self.clocks.get_mut(store) {
            clock.opened(&self.key);
        }
    }

    /// That of a store with windows.
    pub(super) fn clock(&self, store: StoreIndex) -> Option<&Clock> {
        self.clocks.get(store)?.as_ref()
    }

    /// Of the list of a key's windows.
    pub(super) fn sessions_type(&self, store: StoreIndex) -> Option<Arc<Type>> {
        self.clock(store)?.sessions.clone()
    }

    /// Puts the own row of a session of this key in the place of others'. One without a value has none.
    pub(super) fn replace_sessions(
        &mut self,
        store: StoreIndex,
        key: &[u8],
        old: &[Session<'_>],
        new: &Session<'_>,
    ) {
        let is_there = !matches!(new.value, Value::Null);
        for session in old {
            if !is_there || (session.start, session.end) != (new.start, new.end) {
                session.row(key, &mut self.next);
                let row = std::mem::take(&mut self.next);
                self.delete(store, &row, session.end);
                self.next = row;
            }
        }
        if is_there && let Some(staging) = self.staging.get_mut(store) {
            new.row(key, &mut self.key);
            staging.put(staging.locate(&self.key), &self.key, Some(PRESENT), new.end);
            self.opened(store);
        }
    }

    /// Takes the next window that is to be closed.
    pub(super) fn take_due(&mut self, store: StoreIndex) -> Option<Row> {
        self.clocks.get_mut(store)?.as_mut()?.due.pop_front()
    }

    /// Puts one back that could not be closed.
    pub(super) fn keep_due(&mut self, store: StoreIndex, row: Row) {
        if let Some(Some(clock)) = self.clocks.get_mut(store) {
            clock.due.push_front(row);
        }
    }
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
    let (window, value) = remove(sub, arena, state, (store, row))?;
    if emit == Emit::OnUpdate {
        return Ok(());
    }
    let key = codecs.stores[store].decode(Some(window.key), arena);
    let key = key.map_err(|error| unread(sub, node, store, &error))?;
    let closed = Moving {
        key: windowed_key(key, window.start, window.end, arena),
        value,
        timestamp: window.timestamp,
    };
    // Steps behind it do not ask for a record's coordinates.
    let none = InputRecord {
        topic: "",
        partition: 0,
        offset: 0,
        timestamp: closed.timestamp,
        key: None,
        value: None,
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
    walk.run_children(&sub.nodes[node], closed)
}

/// Stages that a window is not there any more; returns it with its value.
pub(super) fn remove<'a, S: Store>(
    sub: &SubTopology,
    arena: &'a Bump,
    state: &mut State<S>,
    (store, row): (StoreIndex, &'a Row),
) -> Result<(Window<'a>, Value<'a>), Failure> {
    let (spec, clock) = (&sub.stores[store], state.clock(store));
    let node = clock.map_or(0, |clock| clock.node);
    let failed = |error: &dyn std::fmt::Display| unread(sub, node, store, error);
    let Some(window) = row.window(spec.windows) else {
        return Err(failed(&"a row that no window has"));
    };
    let value = match state.sessions_type(store) {
        Some(list) => state.remove_session(store, &list, &window, arena),
        None => row::decode_timestamped(&spec.value, &row.value, arena)
            .map(|(_, value)| value)
            .map_err(|error| StoreError::new(error.to_string())),
    };
    let value = value.map_err(|error| failed(&error))?;
    state.delete(store, &row.key, window.timestamp);
    Ok((window, value))
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
            Windows::Session(_) => {
                let (start, end, key) = split_session_row(&self.key)?;
                let timestamp = end;
                Some(Window {
                    key,
                    start,
                    end,
                    timestamp,
                })
            }
        }
    }
}

impl Clock {
    /// Takes rows of windows whose time is `last` or before.
    fn take(&mut self, last: i64, committed: &impl Store, staging: &Staging) -> Result<(), StoreError> {
        let (mut bytes, mut behind) = (0, None);
        let due = &mut self.due;
        scan(committed, staging, &self.from, &mut |key, value| {
            let time = time_of(key).unwrap_or(i64::MAX);
            if time > last || due.len() >= ROWS || bytes >= BYTES {
                behind = Some((time, key.to_vec()));
                return ControlFlow::Break(());
            }
            bytes += key.len() + value.len();
            due.push_back(Row {
                key: key.to_vec(),
                value: value.to_vec(),
            });
            ControlFlow::Continue(())
        })?;
        // Behind all rows, where there is none.
        (self.floor, self.from) = behind.unwrap_or((i64::MAX, vec![0xff; 9]));
        Ok(())
    }
}

/// Visits the rows of a store with what is staged over them, in the order of keys, until `visit` says that it is enough.
fn scan(
    committed: &impl Store,
    staging: &Staging,
    from: &[u8],
    visit: &mut Visit<'_>,
) -> Result<(), StoreError> {
    let mut staged = staging.scan(from).peekable();
    let mut flow = ControlFlow::Continue(());
    committed.scan(from, &mut |key, value| {
        while let Some((key, value)) = staged.next_if(|(other, _)| *other < key) {
            flow = value.map_or(flow, |value| visit(key, value));
            if flow.is_break() {
                return flow;
            }
        }
        flow = match staged.next_if(|(other, _)| *other == key) {
            Some((_, Some(value))) => visit(key, value),
            Some((_, None)) => flow,
            None => visit(key, value),
        };
        flow
    })?;
    while flow.is_continue() {
        let Some((key, value)) = staged.next() else { break };
        flow = value.map_or(flow, |value| visit(key, value));
    }
    Ok(())
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
        };
    };
    let value = match state.sessions_type(store) {
        Some(_) => {
            let list = state.look_up_sessions(store, window.key).ok();
            list.and_then(|(_, list)| list.map(|list| &*arena.alloc_slice_copy(list)))
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
