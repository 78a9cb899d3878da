//! Time and closing of stores with windows (ADR 0034).
//!
//! The operator's stream time is a row of its store. A window is closed when grace behind its end is over by that time; then
//! its row is deleted, and with it goes its result, where that waits for the close. So what is closed and still in the store
//! was not sent, and nothing else has to be remembered.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use topology::plan::{Emit, NodeIndex, Op, StoreIndex, SubTopology, Windows};
use topology::{Type, Value};

use super::closing::Row;
use super::state::State;
use crate::staging::Staging;
use crate::window_rows::{STREAM_TIME, Session, encode_time, sessions_type, time_of};
use crate::{KeyRange, Store, StoreError, Visit, row};

/// Most rows taken from a store at once, and most bytes of them.
const ROWS: usize = 256;
const BYTES: usize = 256 << 10;
/// What a row in the order of time holds: that it is there.
const PRESENT: &[u8] = &[row::VERSION];

/// The stream time of a windowed aggregation, and what it has closed.
pub(super) struct Clock {
    pub(super) node: NodeIndex,
    windows: Windows,
    pub(super) emit: Emit,
    /// Nothing before the first record; unknown until it is read from the store.
    time: Known,
    /// As it was before the record under way.
    before: Known,
    /// Of rows that hold something else than a value: the list of a key's sessions, or a version.
    row: Option<Arc<Type>>,
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
            } else if let Op::JoinStreams { store: of, .. } | Op::Suppress { store: of } = op {
                (*of == store).then_some(Emit::OnWindowClose)
            } else if let Op::JoinTable { held, .. } = op {
                (*held == Some(store)).then_some(Emit::OnWindowClose)
            } else if let Op::Table { store: of } = op {
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
            row: match windows {
                Windows::Session(_) => Some(Arc::new(sessions_type(&sub.stores[store].value))),
                Windows::Versions { .. } => {
                    // A deletion has a row, too.
                    Some(Arc::new(sub.stores[store].value.clone().or_absent()))
                }
                Windows::Time(_)
                | Windows::Sliding(_)
                | Windows::Join(_)
                | Windows::Suppress { .. }
                | Windows::Held { .. } => None,
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

    /// The stream time of the store's operator; none before its first record.
    pub(super) fn time(&mut self, store: StoreIndex) -> Result<Option<i64>, StoreError> {
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
            && let Some(last) = time.map(|time| clock.windows.last_closed(time))
            && last >= clock.floor
        {
            clock
                .take(last, committed, staging)
                .map_err(|error| (clock.node, error))?;
        }
        Ok(!clock.due.is_empty())
    }

    /// Stages that the row under `self.key`, which is in the order of time, is there from now on.
    pub(super) fn open_row(&mut self, store: StoreIndex, timestamp: i64) {
        self.put_row(store, Some(PRESENT), timestamp);
        self.opened(store);
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

    /// Of rows that hold something else than a value.
    pub(super) fn row_type(&self, store: StoreIndex) -> Option<Arc<Type>> {
        self.clock(store)?.row.clone()
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
                session.row(key, &mut self.key);
                self.put_row(store, None, session.end);
            }
        }
        if is_there {
            new.row(key, &mut self.key);
            self.open_row(store, new.end);
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

impl Clock {
    /// Takes rows of windows whose time is `last` or before.
    fn take(&mut self, last: i64, committed: &impl Store, staging: &Staging) -> Result<(), StoreError> {
        let (mut bytes, mut behind) = (0, None);
        let due = &mut self.due;
        let all = KeyRange {
            from: &self.from,
            until: None,
        };
        scan(committed, staging, all, &mut |key, value| {
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

/// Visits the rows of a range with what is staged over them, in the order of keys, until `visit` says that it is enough.
pub(super) fn scan(
    committed: &impl Store,
    staging: &Staging,
    range: KeyRange<'_>,
    visit: &mut Visit<'_>,
) -> Result<(), StoreError> {
    let mut staged = staging.scan(range).peekable();
    let mut flow = ControlFlow::Continue(());
    committed.scan(range, &mut |key, value| {
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
