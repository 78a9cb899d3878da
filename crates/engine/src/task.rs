//! A task: one sub-topology at one partition.

use std::ops::Range;
use std::sync::Arc;

use bumpalo::Bump;
use topology::plan::{NodeIndex, OnBadRecord, Op, Plan, StoreSpec, SubTopology};
use topology::{Expr, Scope, Type, Value};

use crate::staging::{Staged, Staging};
use crate::{
    BadRecord, Change, DropReason, ErrorCategory, InputRecord, Output, ProcessError, Processed, Store,
    format, row,
};

/// The runtime of a task over its committed stores.
pub struct Task<S> {
    plan: Arc<Plan>,
    sub_topology: usize,
    state: State<S>,
    results: Results,
    /// Strings and records made for one record; emptied before the next.
    arena: Bump,
}

/// Stores and time of a task, committed and staged.
struct State<S> {
    stores: Vec<S>,
    staging: Vec<Staging>,
    /// Scratch for keys and values of stores.
    key: Vec<u8>,
    stored: Vec<u8>,
    next: Vec<u8>,
    stream_time: i64,
    committed_stream_time: i64,
}

/// Results of the record under way, sent when it has succeeded.
#[derive(Default)]
struct Results {
    bytes: Vec<u8>,
    sends: Vec<Send>,
}

struct Send {
    sink: usize,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    timestamp: i64,
}

/// A record between two nodes.
#[derive(Clone, Copy)]
struct Moving<'a> {
    key: Value<'a>,
    value: Value<'a>,
    timestamp: i64,
}

/// What stops a record within the nodes; the step is added by the caller.
struct Failure {
    category: ErrorCategory,
    reason: String,
    node: NodeIndex,
}

impl<S: Store> Task<S> {
    /// A task over committed stores, in the order of the sub-topology's stores. `sub_topology` is an index into the plan.
    #[must_use]
    pub fn new(plan: Arc<Plan>, sub_topology: usize, stores: Vec<S>) -> Self {
        let staging = stores.iter().map(|_| Staging::default()).collect();
        let state = State {
            stores,
            staging,
            key: Vec::new(),
            stored: Vec::new(),
            next: Vec::new(),
            stream_time: i64::MIN,
            committed_stream_time: i64::MIN,
        };
        Self {
            plan,
            sub_topology,
            state,
            results: Results::default(),
            arena: Bump::new(),
        }
    }

    /// Processes one record under a savepoint.
    ///
    /// # Errors
    /// [`ProcessError`]: nothing of the record is staged. For [`ErrorCategory::Output`] from [`Output::send`], earlier
    /// results of the record may be in the transaction, which must be dropped.
    pub fn process(
        &mut self,
        record: &InputRecord<'_>,
        output: &mut impl Output,
    ) -> Result<Processed, ProcessError> {
        self.arena.reset();
        self.results.bytes.clear();
        self.results.sends.clear();
        self.state.staging.iter_mut().for_each(Staging::begin_record);
        let Some(sub) = self.plan.sub_topologies.get(self.sub_topology) else {
            return Err(failure(
                record,
                ErrorCategory::Expression,
                "plan",
                "no such sub-topology".to_owned(),
            ));
        };
        let moving = match read(sub, record, &self.arena) {
            Ok(moving) => moving,
            Err(reason) => {
                let at = (record.topic.to_owned(), record.partition, record.offset);
                let bad = BadRecord { at, reason };
                return match sub.source.on_bad_record {
                    OnBadRecord::Skip => Ok(Processed::Skipped(bad)),
                    OnBadRecord::Fail => {
                        let step = format!("stream {}", sub.source.name);
                        Err(ProcessError {
                            category: ErrorCategory::Deserialization,
                            step,
                            record: bad,
                        })
                    }
                };
            }
        };
        let mut walk = Walk {
            sub,
            record,
            arena: &self.arena,
            state: &mut self.state,
            results: &mut self.results,
            dropped: None,
        };
        let walked = walk.node(0, moving);
        let dropped = walk.dropped;
        let sent = walked.and_then(|()| self.results.send(sub, output));
        if let Err(failed) = sent {
            self.state.staging.iter_mut().for_each(Staging::rollback);
            let step = sub
                .nodes
                .get(failed.node)
                .map_or("sink", |node| node.path.as_str());
            return Err(failure(record, failed.category, step, failed.reason));
        }
        self.state.staging.iter_mut().for_each(Staging::end_record);
        self.state.stream_time = self.state.stream_time.max(moving.timestamp);
        Ok(dropped.map_or(Processed::Done, Processed::Dropped))
    }

    /// Bytes that staging holds.
    #[must_use]
    pub fn staged_bytes(&self) -> usize {
        self.state.staging.iter().map(Staging::staged_bytes).sum()
    }

    /// Each key of a store that was written since the last commit, once, with its last value, in the order of first
    /// writes.
    pub fn changes(&self, store: usize) -> impl Iterator<Item = Change<'_>> {
        self.state
            .staging
            .get(store)
            .into_iter()
            .flat_map(Staging::changes)
    }

    /// The stores, for the owner to apply [`Self::changes`] to.
    pub fn stores_mut(&mut self) -> &mut [S] {
        &mut self.state.stores
    }

    /// The changes are committed and applied: forgets them, keeps the memory.
    pub fn committed(&mut self) {
        self.state.staging.iter_mut().for_each(Staging::clear);
        self.state.committed_stream_time = self.state.stream_time;
    }

    /// The transaction was dropped: back to the last commit.
    pub fn discard(&mut self) {
        self.state.staging.iter_mut().for_each(Staging::clear);
        self.state.stream_time = self.state.committed_stream_time;
    }

    /// Stream time, the staged records included; `i64::MIN` before the first.
    #[must_use]
    pub fn stream_time(&self) -> i64 {
        self.state.stream_time
    }

    /// Sets stream time to what was committed.
    pub fn restore_stream_time(&mut self, stream_time: i64) {
        self.state.stream_time = stream_time;
        self.state.committed_stream_time = stream_time;
    }
}

fn failure(record: &InputRecord<'_>, category: ErrorCategory, step: &str, reason: String) -> ProcessError {
    let at = (record.topic.to_owned(), record.partition, record.offset);
    ProcessError {
        category,
        step: step.to_owned(),
        record: BadRecord { at, reason },
    }
}

/// Bytes to values, and the event time.
fn read<'a>(sub: &SubTopology, record: &InputRecord<'a>, arena: &'a Bump) -> Result<Moving<'a>, String> {
    let key = format::decode(&sub.source.key, record.key, arena).map_err(|error| format!("key: {error}"))?;
    let value =
        format::decode(&sub.source.value, record.value, arena).map_err(|error| format!("value: {error}"))?;
    let mut moving = Moving {
        key,
        value,
        timestamp: record.timestamp,
    };
    if let (Some(expr), false) = (&sub.source.timestamp, value == Value::Null) {
        let scope = scope(&moving, Value::Null, record, arena);
        moving.timestamp = match eval_timestamp(expr, &scope) {
            Ok(timestamp) if timestamp >= 0 => timestamp,
            Ok(timestamp) => return Err(format!("timestamp: {timestamp} is negative")),
            Err(reason) => return Err(format!("timestamp: {reason}")),
        };
    }
    Ok(moving)
}

fn eval_timestamp(expr: &Expr, scope: &Scope<'_>) -> Result<i64, String> {
    match expr.eval(scope) {
        Ok(Value::Int(at) | Value::Timestamp(at)) => Ok(at),
        Ok(_) => Err("not a number of milliseconds".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn scope<'a>(
    moving: &Moving<'a>,
    aggregate: Value<'a>,
    record: &InputRecord<'a>,
    arena: &'a Bump,
) -> Scope<'a> {
    Scope {
        key: moving.key,
        value: moving.value,
        aggregate,
        ts: moving.timestamp,
        topic: record.topic,
        partition: record.partition,
        offset: record.offset,
        arena,
    }
}

/// One record on its way through the nodes.
struct Walk<'w, 'a, S> {
    sub: &'a SubTopology,
    record: &'w InputRecord<'a>,
    arena: &'a Bump,
    state: &'w mut State<S>,
    results: &'w mut Results,
    dropped: Option<DropReason>,
}

impl<'a, S: Store> Walk<'_, 'a, S> {
    fn node(&mut self, index: NodeIndex, moving: Moving<'a>) -> Result<(), Failure> {
        let Some(node) = self.sub.nodes.get(index) else {
            return Ok(());
        };
        let forward = match &node.op {
            Op::Forward => Some(moving),
            Op::Sink(sink) => {
                self.results
                    .push(self.sub, *sink, &moving)
                    .map_err(|reason| Failure {
                        category: ErrorCategory::Output,
                        reason,
                        node: index,
                    })?;
                None
            }
            // An expression over a tombstone has nothing to read.
            Op::Filter(_) | Op::FilterNot(_) | Op::SelectKey(_) | Op::MapValues(_) | Op::Aggregate { .. }
                if moving.value == Value::Null =>
            {
                self.dropped = Some(DropReason::NullValue);
                None
            }
            Op::Filter(condition) => self
                .eval(index, condition, &moving)?
                .eq(&Value::Bool(true))
                .then_some(moving),
            Op::FilterNot(condition) => self
                .eval(index, condition, &moving)?
                .eq(&Value::Bool(false))
                .then_some(moving),
            Op::SelectKey(key) => Some(Moving {
                key: self.eval(index, key, &moving)?,
                ..moving
            }),
            Op::MapValues(value) => Some(Moving {
                value: self.eval(index, value, &moving)?,
                ..moving
            }),
            Op::Aggregate { .. } if moving.key == Value::Null => {
                self.dropped = Some(DropReason::NullKey);
                None
            }
            Op::Aggregate { store, initial, add } => {
                Some(self.aggregate(index, *store, initial, add, &moving)?)
            }
        };
        if let Some(moving) = forward {
            for child in &node.children {
                self.node(*child, moving)?;
            }
        }
        Ok(())
    }

    fn eval(&self, node: NodeIndex, expr: &'a Expr, moving: &Moving<'a>) -> Result<Value<'a>, Failure> {
        self.eval_with(node, expr, moving, Value::Null)
    }

    fn eval_with(
        &self,
        node: NodeIndex,
        expr: &'a Expr,
        moving: &Moving<'a>,
        aggregate: Value<'a>,
    ) -> Result<Value<'a>, Failure> {
        expr.eval(&scope(moving, aggregate, self.record, self.arena))
            .map_err(|error| Failure {
                category: ErrorCategory::Expression,
                reason: error.to_string(),
                node,
            })
    }

    /// Reads the key's aggregate, adds the record, stages the result. Its timestamp is the later of the two, as in
    /// Kafka Streams' timestamped stores.
    fn aggregate(
        &mut self,
        node: NodeIndex,
        store: usize,
        initial: &'a Expr,
        add: &'a Expr,
        moving: &Moving<'a>,
    ) -> Result<Moving<'a>, Failure> {
        let failed = |reason: String| Failure {
            category: ErrorCategory::Store,
            reason,
            node,
        };
        let Some(spec) = self.sub.stores.get(store) else {
            return Err(failed(format!("no store {store}")));
        };
        self.state.key.clear();
        format::encode(&spec.key, moving.key, &mut self.state.key)
            .map_err(|error| failed(error.to_string()))?;
        let (stored_at, aggregate) = match self.stored(store, spec).map_err(failed)? {
            Some(stored) => stored,
            None => (i64::MIN, self.eval(node, initial, moving)?),
        };
        let value = self.eval_with(node, add, moving, aggregate)?;
        let timestamp = moving.timestamp.max(stored_at);
        let State {
            next, key, staging, ..
        } = &mut *self.state;
        next.clear();
        row::encode_timestamped(&spec.value, timestamp, value, next)
            .map_err(|error| failed(error.to_string()))?;
        if let Some(staging) = staging.get_mut(store) {
            staging.put(key, Some(next), timestamp);
        }
        Ok(Moving {
            key: moving.key,
            value,
            timestamp,
        })
    }

    /// The key's value, staged or committed.
    fn stored(&mut self, store: usize, spec: &StoreSpec) -> Result<Option<(i64, Value<'a>)>, String> {
        let State {
            staging,
            stores,
            key,
            stored,
            ..
        } = &mut *self.state;
        let (Some(staging), Some(store)) = (staging.get(store), stores.get(store)) else {
            return Err(format!("store {} is not open", spec.name));
        };
        let bytes = match staging.get(key) {
            Staged::Value(bytes) => bytes,
            Staged::Deleted => return Ok(None),
            Staged::Unknown => {
                if !store.get(key, stored).map_err(|error| error.to_string())? {
                    return Ok(None);
                }
                stored.as_slice()
            }
        };
        let bytes: &'a [u8] = match &spec.value {
            // Values without text are copied out by decoding: no need to keep their bytes.
            Type::Int | Type::Double | Type::Bool | Type::Timestamp => {
                let scratch = self.arena;
                return decode(spec, bytes, scratch).map(Some);
            }
            _ => self.arena.alloc_slice_copy(bytes),
        };
        row::decode_timestamped(&spec.value, bytes, self.arena)
            .map(Some)
            .map_err(|error| error.to_string())
    }
}

/// Decodes a value that borrows nothing from its bytes.
fn decode<'a>(spec: &StoreSpec, bytes: &[u8], arena: &Bump) -> Result<(i64, Value<'a>), String> {
    // The result of a fixed-size type borrows neither from `bytes` nor from `arena`.
    let (timestamp, value) =
        row::decode_timestamped(&spec.value, bytes, arena).map_err(|error| error.to_string())?;
    let value = match value {
        Value::Int(value) => Value::Int(value),
        Value::Double(value) => Value::Double(value),
        Value::Bool(value) => Value::Bool(value),
        Value::Timestamp(value) => Value::Timestamp(value),
        Value::Null | Value::String(_) | Value::Bytes(_) | Value::Struct(_) => {
            return Err("a value of another type".to_owned());
        }
    };
    Ok((timestamp, value))
}

impl Results {
    fn push(&mut self, sub: &SubTopology, sink: usize, moving: &Moving<'_>) -> Result<(), String> {
        let Some(spec) = sub.sinks.get(sink) else {
            return Err(format!("no sink {sink}"));
        };
        let key = self.encode(&spec.key, moving.key)?;
        let value = self.encode(&spec.value, moving.value)?;
        self.sends.push(Send {
            sink,
            key,
            value,
            timestamp: moving.timestamp,
        });
        Ok(())
    }

    fn encode(
        &mut self,
        format: &topology::plan::Format,
        value: Value<'_>,
    ) -> Result<Option<Range<usize>>, String> {
        let start = self.bytes.len();
        let some = format::encode(format, value, &mut self.bytes).map_err(|error| error.to_string())?;
        Ok(some.then_some(start..self.bytes.len()))
    }

    fn send(&self, sub: &SubTopology, output: &mut impl Output) -> Result<(), Failure> {
        let size = |range: &Option<Range<usize>>| range.as_ref().map_or(0, ExactSizeIterator::len);
        let failed = |sink: usize, error: crate::OutputError| Failure {
            category: ErrorCategory::Output,
            reason: error.to_string(),
            node: sub
                .nodes
                .iter()
                .position(|node| matches!(node.op, Op::Sink(at) if at == sink))
                .unwrap_or(0),
        };
        for send in &self.sends {
            output
                .check(send.sink, size(&send.key), size(&send.value))
                .map_err(|error| failed(send.sink, error))?;
        }
        for send in &self.sends {
            let bytes = |range: &Option<Range<usize>>| range.clone().map(|range| &self.bytes[range]);
            output
                .send(send.sink, bytes(&send.key), bytes(&send.value), send.timestamp)
                .map_err(|error| failed(send.sink, error))?;
        }
        Ok(())
    }
}
