//! Tasks in memory: their way of a record, branches, transactions; and what the other tests are made of.

mod aggregates;
mod breaks;
mod failures;
mod foreign_keys;
mod headers;
mod held;
mod joins;
mod random;
mod routes;
mod sliding;
mod tables;
mod windows;

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;
use topology::plan::{Emit, First, Format, Node, OffsetReset, Op, Sink, Source, TopicName};
use topology::{Env, Expr, Path, Type, Value};

use super::*;
use crate::{DropReason, ErrorCategory, Outgoing, OutputError, Recovery, StoreError, row};

/// A result: sink, key, value, timestamp.
type Sent = (usize, Option<Vec<u8>>, Option<Vec<u8>>, i64);

#[derive(Default)]
struct Collected {
    sent: Vec<Sent>,
    headers: Vec<(String, String)>,
    max_value_bytes: Option<usize>,
    fails_at: Option<usize>,
}

impl Output for Collected {
    fn check(&self, record: &Outgoing<'_>) -> Result<(), OutputError> {
        let value_bytes = record.value.map_or(0, <[u8]>::len);
        match self.max_value_bytes {
            Some(max) if value_bytes > max => {
                Err(OutputError::new(format!("{value_bytes} bytes, at most {max}")))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), OutputError> {
        if self.fails_at == Some(self.sent.len()) {
            return Err(OutputError::new("the producer is gone".into()));
        }
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let headers = record.headers.iter();
        self.headers
            .extend(headers.map(|(name, value)| ((*name).to_owned(), value.map_or("null".to_owned(), text))));
        self.sent.push((
            record.sink,
            record.key.map(<[u8]>::to_vec),
            record.value.map(<[u8]>::to_vec),
            record.timestamp,
        ));
        Ok(())
    }
}

fn record<'a>(offset: i64, key: Option<&'a str>, value: Option<&'a str>) -> InputRecord<'a> {
    let (key, value) = (key.map(str::as_bytes), value.map(str::as_bytes));
    InputRecord {
        topic: "in",
        partition: 3,
        offset,
        timestamp: 1000 + offset,
        key,
        value,
        headers: &[],
    }
}

/// A pipeline from records {customer, amount, at?} with String keys.
fn planned(stream: serde_json::Value, steps: serde_json::Value, serde: &str) -> Arc<Plan> {
    let mut source = json!({
        "name": "orders", "topic": "in", "key": {"serde": "String"},
        "value": {"serde": "Json", "type": "Order"},
    });
    source
        .as_object_mut()
        .unwrap()
        .extend(stream.as_object().unwrap().clone());
    let fields = json!({"customer": "string", "amount": "int", "at": "timestampMillis?", "rate": "double?"});
    let to = json!({"topic": "out", "value": {"serde": serde}});
    let declaration = json!({
        "language": "v1",
        "types": [{"name": "Order", "fields": fields}],
        "streams": [source],
        "pipelines": [{"name": "p", "from": "orders", "steps": steps, "to": to}],
    });
    Arc::new(topology::plan(&serde_json::from_value(declaration).unwrap()).unwrap())
}

fn sums() -> Arc<Plan> {
    let aggregate = json!({"store": "sums", "initial": "0", "add": "aggregate + value.amount"});
    planned(
        json!({}),
        json!([{"groupByKey": {}}, {"aggregate": aggregate}, {"toStream": {}}]),
        "Long",
    )
}

/// Keeps the last value of a key; none deletes.
fn keep_last<K: Ord>(last: &mut BTreeMap<K, i64>, key: K, value: Option<i64>) {
    match value {
        Some(value) => last.insert(key, value),
        None => last.remove(&key),
    };
}

/// The number that a value of eight bytes is.
fn number(bytes: Vec<u8>) -> i64 {
    i64::from_be_bytes(bytes.try_into().unwrap())
}

fn task(plan: &Arc<Plan>, sub: usize) -> Task<MemoryStore> {
    Task::in_memory(Arc::clone(plan), sub, 0)
}

fn order(amount: i64) -> String {
    format!(r#"{{"customer":"c","amount":{amount},"x":[1]}}"#)
}

fn long(value: i64) -> Option<Vec<u8>> {
    Some(value.to_be_bytes().to_vec())
}

#[test]
fn two_stages_sum_orders_and_write_decisions() {
    let steps = json!([
        {"selectKey": "value.customer"},
        {"groupByKey": {}},
        {"aggregate": {"store": "sums", "initial": "0", "add": "aggregate + value.amount"}},
        {"toStream": {}},
        {"filter": "value >= 100"},
        {"mapValues": {"fields": {"sum": "value", "id": "key + ':' + string(value)"}}},
    ]);
    let plan = planned(json!({}), steps, "Json");
    let mut output = Collected::default();
    let mut first = task(&plan, 0);
    for (offset, (customer, amount)) in [("ann", 60), ("bob", 10), ("ann", 70)].into_iter().enumerate() {
        let value = format!(r#"{{"note":"not read","customer":"{customer}","amount":{amount}}}"#);
        let done = first.process(0, &record(offset as i64, None, Some(&value)), &mut output);
        assert_eq!(done, Ok(Processed::Done));
    }
    let mut second = task(&plan, 1);
    let mut decisions = Collected::default();
    for (offset, (_, key, value, timestamp)) in output.sent.iter().enumerate() {
        let (key, value) = (key.as_deref(), value.as_deref());
        let record = InputRecord {
            key,
            value,
            timestamp: *timestamp,
            ..record(offset as i64, None, None)
        };
        assert_eq!(second.process(0, &record, &mut decisions), Ok(Processed::Done));
    }
    let decision = br#"{"id":"ann:130","sum":130}"#.to_vec();
    assert_eq!(decisions.sent, [(0, Some(b"ann".to_vec()), Some(decision), 1002)]);
    let stored = |sum, timestamp| {
        let mut row = Vec::new();
        row::encode_timestamped(&Type::Int, timestamp, Value::Int(sum), &mut row).unwrap();
        row
    };
    let changes: Vec<_> = second
        .changes(0)
        .map(|change| (change.key, change.value.unwrap(), change.timestamp))
        .collect();
    assert_eq!(
        changes,
        [
            (&b"ann"[..], &stored(130, 1002)[..], 1002),
            (&b"bob"[..], &stored(10, 1001)[..], 1001)
        ],
        "each key once, in the order of first writes"
    );
    assert_eq!(second.staged_entries(), 2);
}

#[test]
fn null_keys_and_values_are_dropped_where_there_is_nothing_to_work_on() {
    let mut output = Collected::default();
    let mut sums = task(&sums(), 0);
    let drop = |reason| Ok(Processed::Dropped(reason));
    assert_eq!(
        sums.process(0, &record(0, None, Some(&order(1))), &mut output),
        drop(DropReason::NullKey)
    );
    assert_eq!(
        sums.process(0, &record(1, None, None), &mut output),
        drop(DropReason::NullKey)
    );
    assert_eq!(
        sums.process(0, &record(2, Some("k"), None), &mut output),
        drop(DropReason::NullValue)
    );
    assert_eq!((sums.staged_entries(), sums.stream_time()), (0, 1002));
    for steps in [
        json!([{"filter": "true"}]),
        json!([{"filterNot": "false"}]),
        json!([{"selectKey": "key"}]),
        json!([{"mapValues": {"fields": {"a": "1"}}}]),
    ] {
        let mut task = task(&planned(json!({}), steps, "Json"), 0);
        assert_eq!(
            task.process(0, &record(0, Some("k"), None), &mut output),
            drop(DropReason::NullValue)
        );
    }
    assert!(output.sent.is_empty());
    // Without a step in between, a tombstone stays a tombstone.
    let mut through = task(&planned(json!({}), json!([]), "Json"), 0);
    assert_eq!(
        through.process(0, &record(0, Some("k"), None), &mut output),
        Ok(Processed::Done)
    );
    assert_eq!(output.sent, [(0, Some(b"k".to_vec()), None, 1000)]);
}

#[test]
fn stream_time_is_staged_and_committed_with_the_writes() {
    let mut task = task(&sums(), 0);
    let mut output = Collected::default();
    task.restore_stream_time(1001);
    for offset in [0, 5, 4] {
        task.process(0, &record(offset, Some("k"), Some(&order(1))), &mut output)
            .unwrap();
    }
    assert_eq!((task.stream_time(), task.committed_stream_time()), (1005, 1001));
    task.discard();
    assert_eq!((task.stream_time(), task.committed_stream_time()), (1001, 1001));
    task.process(0, &record(9, Some("k"), Some(&order(1))), &mut output)
        .unwrap();
    task.commit_in_memory();
    assert_eq!((task.stream_time(), task.committed_stream_time()), (1009, 1009));
}

/// Root with three branches: a sink, an aggregate with a sink behind it, a sink.
fn branches() -> Arc<Plan> {
    let env = Env {
        aggregate: Some(Type::Int),
        ..Env::of_record(Type::String, Type::String)
    };
    let compile = |source| Expr::compile(source, &env).unwrap();
    let node = |op, children: &[usize]| Node {
        path: Path::default().field("n"),
        op,
        children: children.to_vec(),
    };
    let aggregate = Op::Aggregate {
        remove: None,
        store: 0,
        emit: Emit::OnUpdate,
        first: First::Initial(compile("0")),
        add: compile("aggregate + int(value)"),
        merge: None,
    };
    let sink = |value| Sink {
        topic: TopicName::External("t".into()),
        key: Format::String,
        value,
        partition: None,
        headers: topology::plan::SinkHeaders::None,
    };
    let source = Source {
        name: "s".into(),
        node: 0,
        topic: TopicName::External("in".into()),
        key: Format::String,
        value: Format::String,
        timestamp: None,
        max_ahead_ms: None,
        on_bad_record: OnBadRecord::Fail,
        on_error: OnBadRecord::Fail,
        dead_letters: None,
        offset_reset: OffsetReset::Earliest,
        headers: false,
    };
    let store = topology::plan::StoreSpec {
        name: "sums".into(),
        key: Format::String,
        value: Type::Int,
        windows: None,
        fingerprint: String::new(),
        changelog: TopicName::Changelog("sums".into()),
    };
    let nodes = vec![
        node(Op::Forward, &[1, 2, 4]),
        node(Op::Sink(0), &[]),
        node(aggregate, &[3]),
        node(Op::Sink(1), &[]),
        node(Op::Sink(2), &[]),
    ];
    let sinks = vec![sink(Format::String), sink(Format::Long), sink(Format::String)];
    let sub = SubTopology {
        name: "b".into(),
        sources: vec![source],
        nodes,
        stores: vec![store],
        sinks,
    };
    Arc::new(Plan {
        sub_topologies: vec![sub],
    })
}

#[test]
fn branches_run_in_declared_order_and_one_that_drops_stops_no_other() {
    let mut task = task(&branches(), 0);
    let mut output = Collected::default();
    assert_eq!(
        task.process(0, &record(0, Some("k"), Some("5")), &mut output),
        Ok(Processed::Done)
    );
    let key = || Some(b"k".to_vec());
    let text = |text: &str| Some(text.as_bytes().to_vec());
    assert_eq!(
        output.sent,
        [
            (0, key(), text("5"), 1000),
            (1, key(), long(5), 1000),
            (2, key(), text("5"), 1000)
        ]
    );
    output.sent.clear();
    let dropped = task.process(0, &record(1, None, Some("6")), &mut output);
    assert_eq!(dropped, Ok(Processed::Dropped(DropReason::NullKey)));
    assert_eq!(
        output.sent,
        [(0, None, text("6"), 1001), (2, None, text("6"), 1001)]
    );
    output.sent.clear();
    assert!(
        task.process(0, &record(2, Some("k"), Some("no number")), &mut output)
            .is_err()
    );
    assert!(
        output.sent.is_empty(),
        "the first branch had succeeded, but not the record"
    );
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Commit,
    /// Discarded and processed again.
    Abort,
}

/// The committed outputs and the store, with transactions of these lengths and so much cache.
fn run(
    orders: &[(u8, i8)],
    transactions: &[(usize, End)],
    cache_bytes: usize,
) -> (Vec<Sent>, MemoryStore, i64) {
    let mut task = task(&sums(), 0);
    task.set_cache_bytes(cache_bytes);
    let (mut committed, mut at) = (Vec::new(), 0);
    let mut transactions = transactions.iter().copied();
    while at < orders.len() {
        let (length, end) = transactions.next().unwrap_or((orders.len(), End::Commit));
        let until = orders.len().min(at + length);
        let mut output = Collected::default();
        for (offset, (key, amount)) in orders.iter().enumerate().take(until).skip(at) {
            let (key, value) = (key.to_string(), order((*amount).into()));
            task.process(0, &record(offset as i64, Some(&key), Some(&value)), &mut output)
                .unwrap();
        }
        match end {
            End::Commit => {
                task.commit_in_memory();
                committed.append(&mut output.sent);
                at = until;
            }
            End::Abort => task.discard(),
        }
    }
    let stream_time = task.stream_time();
    (committed, std::mem::take(&mut task.stores_mut()[0]), stream_time)
}

fn transactions() -> impl Strategy<Value = Vec<(usize, End)>> {
    let end = prop_oneof![Just(End::Commit), Just(End::Abort)];
    proptest::collection::vec((1usize..10, end), 0..20)
}

proptest! {
    /// Design G5, as far as one task goes.
    #[test]
    fn results_do_not_depend_on_where_transactions_end_or_abort(
        orders in proptest::collection::vec((0u8..5, any::<i8>()), 1..40),
        transactions in transactions(),
        cache_bytes in 0..1_000usize,
    ) {
        prop_assert_eq!(run(&orders, &transactions, cache_bytes), run(&orders, &[], 0));
    }
}

#[test]
fn a_task_can_move_to_its_stream_thread() {
    fn is_send<T: Send>() {}
    is_send::<Task<MemoryStore>>();
}

#[test]
fn each_item_of_a_list_becomes_a_record_and_none_is_sent_when_one_fails() {
    let steps = json!([
        {"flatMapValues": "value.amount > 3 ? [] : [1, 0, value.amount]"},
        {"map": {"key": "key + string(value)", "expression": "6 / (value - 2)"}},
    ]);
    let plan = planned(json!({}), steps, "Long");
    let mut task = task(&plan, 0);
    let mut output = Collected::default();
    let mut process = |amount| task.process(0, &record(0, Some("k"), Some(&order(amount))), &mut output);
    assert_eq!(process(3), Ok(Processed::Done));
    // The third item cannot be divided by.
    assert!(process(2).unwrap_err().to_string().contains("division by zero"));
    assert_eq!(process(4), Ok(Processed::Done));
    let sent: Vec<_> = output
        .sent
        .into_iter()
        .map(|sent| (sent.1.unwrap(), sent.2))
        .collect();
    let wanted = [("k1", -6), ("k0", -3), ("k3", 6)];
    assert_eq!(
        sent,
        wanted.map(|(key, value)| (key.as_bytes().to_vec(), long(value)))
    );
}

#[test]
fn what_let_names_is_there_for_key_and_value_and_only_its_fields_are_parsed() {
    let lets = json!([
        {"name": "total", "expression": "value.amount * 2"},
        {"name": "label", "expression": "value.customer + ':' + string(total)"},
    ]);
    let steps = json!([
        {"map": {"let": lets, "key": "label", "fields": {"label": "label", "twice": "total + total"}}},
        {"mapValues": {"let": [{"name": "half", "expression": "value.twice / 2"}], "expression": "half + [1, 2].map(x, x + half)[1]"}},
    ]);
    let plan = planned(json!({}), steps, "Long");
    let Format::Json(ty) = &plan.sub_topologies[0].sources[0].value else {
        panic!()
    };
    let fields: Vec<_> = ty.fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(fields, ["amount", "customer"]);
    let mut output = Collected::default();
    let value = order(3);
    let record = record(0, Some("k"), Some(&value));
    assert_eq!(
        task(&plan, 0).process(0, &record, &mut output),
        Ok(Processed::Done)
    );
    assert_eq!(output.sent, [(0, Some(b"c:6".to_vec()), long(14), 1000)]);
}
