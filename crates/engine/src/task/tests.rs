use proptest::prelude::*;
use serde_json::json;
use topology::plan::{First, Format, Node, OffsetReset, Op, Sink, Source, TopicName};
use topology::{Env, Expr, Type, Value};

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
            .extend(headers.map(|(name, value)| ((*name).to_owned(), text(value))));
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

fn task(plan: &Arc<Plan>, sub: usize) -> Task<MemoryStore> {
    Task::in_memory(Arc::clone(plan), sub)
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
        let done = first.process(&record(offset as i64, None, Some(&value)), &mut output);
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
        assert_eq!(second.process(&record, &mut decisions), Ok(Processed::Done));
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
fn a_failing_record_leaves_everything_as_it_was() {
    let mut task = task(&sums(), 0);
    let mut output = Collected::default();
    task.process(&record(0, Some("k"), Some(&order(i64::MAX))), &mut output)
        .unwrap();
    let before: Vec<_> = task
        .changes(0)
        .map(|change| change.value.map(<[u8]>::to_vec))
        .collect();
    let error = task
        .process(&record(1, Some("k"), Some(&order(1))), &mut output)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "record in/3@1: integer overflow in `+`; at spec.topology.pipelines[0].steps[1]: give the \
         expression a value for such records, filter them out before, or set \
         `onError: Skip` or `onError: DeadLetter` for the stream"
    );
    assert_eq!(
        (error.category(), error.recovery()),
        (ErrorCategory::Expression, Recovery::StopTask)
    );
    let after: Vec<_> = task
        .changes(0)
        .map(|change| change.value.map(<[u8]>::to_vec))
        .collect();
    assert_eq!((after, task.stream_time(), output.sent.len()), (before, 1000, 1));
}

#[test]
fn a_result_that_is_too_large_stops_the_task_before_anything_is_sent() {
    let mut task = task(&sums(), 0);
    let mut output = Collected {
        max_value_bytes: Some(7),
        ..Collected::default()
    };
    let error = task
        .process(&record(0, Some("k"), Some(&order(1))), &mut output)
        .unwrap_err();
    assert_eq!(
        (error.category(), error.recovery()),
        (ErrorCategory::Output, Recovery::StopTask)
    );
    assert_eq!(error.step, "spec.topology.pipelines[0].to");
    assert_eq!((output.sent.len(), task.staged_entries()), (0, 0));
}

#[test]
fn a_state_that_its_changelog_does_not_take_stops_the_task_before_anything_is_staged() {
    struct Small(MemoryStore);
    impl Store for Small {
        fn get(&self, key: &[u8], into: &mut Vec<u8>) -> Result<bool, StoreError> {
            self.0.get(key, into)
        }
        fn max_record_bytes(&self) -> usize {
            20
        }
    }
    let mut output = Collected::default();
    let mut task = Task::new(sums(), 0, vec![Small(MemoryStore::default())]);
    let value = order(1);
    task.process(&record(0, Some("k"), Some(&value)), &mut output)
        .unwrap();
    let long_key = "k".repeat(20);
    let error = task
        .process(&record(1, Some(&long_key), Some(&value)), &mut output)
        .unwrap_err();
    assert_eq!(
        (error.category(), error.recovery(), error.step.as_str()),
        (
            ErrorCategory::Output,
            Recovery::StopTask,
            "spec.topology.pipelines[0].steps[1]"
        )
    );
    let reason = &error.record.reason;
    assert!(
        reason.starts_with("store `sums`: key and value have 3")
            && reason.ends_with("its changelog takes 20"),
        "{reason}"
    );
    assert_eq!((task.staged_entries(), output.sent.len()), (1, 1));
}

#[test]
fn a_send_that_fails_asks_for_an_abort() {
    let mut task = task(&sums(), 0);
    let mut output = Collected {
        fails_at: Some(1),
        ..Collected::default()
    };
    task.process(&record(0, Some("k"), Some(&order(1))), &mut output)
        .unwrap();
    let error = task
        .process(&record(1, Some("l"), Some(&order(1))), &mut output)
        .unwrap_err();
    assert_eq!(
        (error.category(), error.recovery()),
        (ErrorCategory::Output, Recovery::AbortTransaction)
    );
    assert_eq!(task.staged_entries(), 1, "the record's own writes are undone");
    task.discard();
    assert_eq!((task.staged_entries(), task.stream_time()), (0, i64::MIN));
}

#[test]
fn a_record_that_cannot_be_read_is_skipped_or_stops_the_task_as_declared() {
    let steps = json!([{"filter": "value.amount > 0"}]);
    let timestamped = |on_bad| {
        let mut plan = planned(json!({"onBadRecord": on_bad}), steps.clone(), "Json");
        let source = &mut Arc::get_mut(&mut plan).unwrap().sub_topologies[0].source;
        let Format::Json(ty) = source.value.clone() else {
            panic!("not JSON")
        };
        let env = Env {
            key: Type::String,
            value: Type::Struct(ty),
            aggregate: None,
        };
        source.timestamp = Some(Expr::compile("value.amount - 100", &env).unwrap());
        plan
    };
    let mut output = Collected::default();
    let bad = order(7);
    let (mut skips, mut fails) = (task(&timestamped("Skip"), 0), task(&timestamped("Fail"), 0));
    for (value, category, reason) in [
        (
            "{",
            ErrorCategory::Deserialization,
            "value: JSON, byte 1: expected a field name in quotes, found the end",
        ),
        (
            bad.as_str(),
            ErrorCategory::Deserialization,
            "timestamp: -93 ms is negative",
        ),
        (
            r#"{"customer":"c","amount":-9223372036854775808}"#,
            ErrorCategory::Expression,
            "timestamp: integer overflow in `-`",
        ),
    ] {
        let record = record(9, Some("k"), Some(value));
        let Ok(Processed::Skipped(skipped)) = skips.process(&record, &mut output) else {
            panic!("not skipped")
        };
        assert_eq!(
            skipped.to_string(),
            format!("record in/3@9: stream `orders`, {reason}")
        );
        let error = fails.process(&record, &mut output).unwrap_err();
        assert_eq!(
            (error.category(), error.recovery()),
            (category, Recovery::StopTask)
        );
        assert_eq!(
            (&error.record, error.step.as_str()),
            (&skipped, "spec.topology.streams[0]")
        );
    }
    assert_eq!(
        skips.stream_time(),
        i64::MIN,
        "a skipped record does not move stream time"
    );
    let negative = InputRecord {
        timestamp: -1,
        ..record(0, Some("k"), None)
    };
    assert!(matches!(
        skips.process(&negative, &mut output),
        Ok(Processed::Skipped(_))
    ));
    assert!(output.sent.is_empty());
}

#[test]
fn a_record_that_cannot_be_processed_becomes_a_dead_letter_as_it_was() {
    let stream = json!({"onBadRecord": "DeadLetter", "onError": "DeadLetter", "deadLetterTopic": "dead"});
    let plan = planned(stream, json!([{"filter": "1 / value.amount > 0"}]), "Json");
    let (mut task, mut output) = (task(&plan, 0), Collected::default());
    let sink = plan.sub_topologies[0].source.dead_letters.unwrap();
    assert_eq!(
        plan.sub_topologies[0].sinks[sink].topic,
        TopicName::External("dead".into())
    );
    for (value, category, step, reason) in [
        (
            "{",
            "Deserialization",
            "spec.topology.streams[0]",
            "stream `orders`, value: JSON, byte 1: expected a field name in quotes, found the end",
        ),
        (
            &order(0),
            "Expression",
            "spec.topology.pipelines[0].steps[0]",
            "division by zero in `/`",
        ),
    ] {
        let processed = task.process(&record(9, Some("k"), Some(value)), &mut output);
        assert!(
            matches!(processed, Ok(Processed::DeadLettered(_))),
            "{processed:?}"
        );
        let sent = (sink, Some(b"k".to_vec()), Some(value.as_bytes().to_vec()), 1009);
        assert_eq!(output.sent, [sent]);
        let headers = [
            ("__streams.errors.topic", "in"),
            ("__streams.errors.partition", "3"),
            ("__streams.errors.offset", "9"),
            ("__streams.errors.exception", category),
            ("__streams.errors.message", reason),
            ("streamapp.errors.step", step),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(output.headers, headers);
        output = Collected::default();
    }
    assert_eq!(
        task.stream_time(),
        i64::MIN,
        "a dead letter does not move stream time"
    );
    output.max_value_bytes = Some(0);
    let error = task
        .process(&record(9, Some("k"), Some("{")), &mut output)
        .unwrap_err();
    assert_eq!(
        (error.category(), error.recovery()),
        (ErrorCategory::Output, Recovery::StopTask)
    );
    let both = [
        "found the end",
        "it cannot become a dead letter either: 1 bytes, at most 0",
    ];
    assert!(
        both.iter().all(|part| error.to_string().contains(part)),
        "{error}"
    );
    output = Collected {
        fails_at: Some(0),
        ..Collected::default()
    };
    let error = task
        .process(&record(9, Some("k"), Some("{")), &mut output)
        .unwrap_err();
    assert_eq!(error.recovery(), Recovery::AbortTransaction);
}

#[test]
fn errors_of_steps_are_skipped_where_the_stream_says_so() {
    let plan = planned(
        json!({"onError": "Skip"}),
        json!([{"filter": "1 / value.amount > 0"}]),
        "Json",
    );
    let mut task = task(&plan, 0);
    let processed = task.process(&record(0, None, Some(&order(0))), &mut Collected::default());
    assert!(matches!(processed, Ok(Processed::Skipped(_))), "{processed:?}");
    let unreadable = task.process(&record(1, None, Some("{")), &mut Collected::default());
    assert!(unreadable.is_err());
}

#[test]
fn expressions_behind_the_source_stop_the_task_even_where_bad_records_are_skipped() {
    let plan = planned(
        json!({"onBadRecord": "Skip"}),
        json!([{"filter": "1 / value.amount > 0"}]),
        "Json",
    );
    let error = task(&plan, 0)
        .process(&record(0, None, Some(&order(0))), &mut Collected::default())
        .unwrap_err();
    assert_eq!(error.category(), ErrorCategory::Expression);
    assert_eq!(error.step, "spec.topology.pipelines[0].steps[0]");
}

#[test]
fn null_keys_and_values_are_dropped_where_there_is_nothing_to_work_on() {
    let mut output = Collected::default();
    let mut sums = task(&sums(), 0);
    let drop = |reason| Ok(Processed::Dropped(reason));
    assert_eq!(
        sums.process(&record(0, None, Some(&order(1))), &mut output),
        drop(DropReason::NullKey)
    );
    assert_eq!(
        sums.process(&record(1, None, None), &mut output),
        drop(DropReason::NullKey)
    );
    assert_eq!(
        sums.process(&record(2, Some("k"), None), &mut output),
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
            task.process(&record(0, Some("k"), None), &mut output),
            drop(DropReason::NullValue)
        );
    }
    assert!(output.sent.is_empty());
    // Without a step in between, a tombstone stays a tombstone.
    let mut through = task(&planned(json!({}), json!([]), "Json"), 0);
    assert_eq!(
        through.process(&record(0, Some("k"), None), &mut output),
        Ok(Processed::Done)
    );
    assert_eq!(output.sent, [(0, Some(b"k".to_vec()), None, 1000)]);
}

#[test]
fn a_result_has_the_later_timestamp_of_record_and_aggregate() {
    let plan = sums();
    let mut task = task(&plan, 0);
    let mut output = Collected::default();
    for timestamp in [500, 400] {
        let record = InputRecord {
            timestamp,
            ..record(0, Some("k"), None)
        };
        let value = order(1);
        task.process(
            &InputRecord {
                value: Some(value.as_bytes()),
                ..record
            },
            &mut output,
        )
        .unwrap();
        task.commit_in_memory();
    }
    let expected = [
        (0, Some(b"k".to_vec()), long(1), 500),
        (0, Some(b"k".to_vec()), long(2), 500),
    ];
    assert_eq!(output.sent, expected, "the second found the first in the store");
}

#[test]
fn a_null_aggregate_deletes_the_key_and_goes_on_as_a_tombstone() {
    let add = "aggregate + value.amount > 2 ? null : aggregate + value.amount";
    let aggregate = json!({"store": "sums", "initial": "0", "add": add});
    let plan = planned(
        json!({}),
        json!([{"groupByKey": {}}, {"aggregate": aggregate}, {"toStream": {}}]),
        "Long",
    );
    let mut task = task(&plan, 0);
    let mut output = Collected::default();
    for offset in 0..2 {
        task.process(&record(offset, Some("k"), Some(&order(2))), &mut output)
            .unwrap();
        task.commit_in_memory();
    }
    assert_eq!(task.stores()[0].values.len(), 0, "deleted");
    task.process(&record(2, Some("k"), Some(&order(1))), &mut output)
        .unwrap();
    let key = || Some(b"k".to_vec());
    let expected = [
        (0, key(), long(2), 1000),
        (0, key(), None, 1001),
        (0, key(), long(1), 1002),
    ];
    assert_eq!(output.sent, expected, "the key begins anew");
}

#[test]
fn stream_time_is_staged_and_committed_with_the_writes() {
    let mut task = task(&sums(), 0);
    let mut output = Collected::default();
    task.restore_stream_time(1001);
    for offset in [0, 5, 4] {
        task.process(&record(offset, Some("k"), Some(&order(1))), &mut output)
            .unwrap();
    }
    assert_eq!((task.stream_time(), task.committed_stream_time()), (1005, 1001));
    task.discard();
    assert_eq!((task.stream_time(), task.committed_stream_time()), (1001, 1001));
    task.process(&record(9, Some("k"), Some(&order(1))), &mut output)
        .unwrap();
    task.commit_in_memory();
    assert_eq!((task.stream_time(), task.committed_stream_time()), (1009, 1009));
}

#[test]
fn text_in_an_aggregate_survives_being_overwritten_in_place() {
    let aggregate = json!({"store": "last", "initial": "'-'", "add": "value.customer"});
    let plan = planned(
        json!({}),
        json!([{"groupByKey": {}}, {"aggregate": aggregate}, {"toStream": {}}]),
        "String",
    );
    let mut task = task(&plan, 0);
    let mut output = Collected::default();
    for customer in ["ann", "bob"] {
        let value = format!(r#"{{"customer":"{customer}","amount":1}}"#);
        task.process(&record(0, Some("k"), Some(&value)), &mut output)
            .unwrap();
    }
    let values: Vec<_> = output
        .sent
        .into_iter()
        .map(|(_, _, value, _)| value.unwrap())
        .collect();
    assert_eq!(values, [b"ann", b"bob"]);
}

#[test]
fn a_result_that_its_format_cannot_hold_stops_the_task() {
    let steps = json!([{"mapValues": {"fields": {"r": "has(value.rate) ? 0.0 / value.rate : 0.0"}}}]);
    let mut task = task(&planned(json!({}), steps, "Json"), 0);
    let value = r#"{"customer":"c","amount":1,"rate":0}"#;
    let error = task
        .process(&record(0, Some("k"), Some(value)), &mut Collected::default())
        .unwrap_err();
    assert_eq!(error.category(), ErrorCategory::Serialization);
    assert_eq!(
        error.record.reason,
        "the result's value cannot be written as JSON: field `r`: JSON has no number NaN"
    );
}

#[test]
fn a_damaged_or_unreadable_store_stops_the_task_with_its_name() {
    struct Broken;
    impl Store for Broken {
        fn get(&self, _: &[u8], _: &mut Vec<u8>) -> Result<bool, StoreError> {
            Err(StoreError::new("disk".into()))
        }
    }
    let (plan, mut output) = (sums(), Collected::default());
    let value = order(1);
    let input = record(0, Some("k"), Some(&value));
    let reason = |result: Result<Processed, ProcessError>| {
        let error = result.unwrap_err();
        assert_eq!(error.category(), ErrorCategory::StoreRead);
        error.record.reason
    };
    let broken = Task::new(Arc::clone(&plan), 0, vec![Broken]).process(&input, &mut output);
    assert_eq!(reason(broken), "store `sums`: disk");
    let mut damaged = task(&plan, 0);
    damaged.stores_mut()[0].values.insert(b"k".to_vec(), vec![1, 0]);
    assert_eq!(
        reason(damaged.process(&input, &mut output)),
        "store `sums`: the row has 2 bytes and ends within a value"
    );
    let missing = Task::new(plan, 0, Vec::<MemoryStore>::new()).process(&input, &mut output);
    assert_eq!(reason(missing), "store `sums`: not open");
}

/// Root with three branches: a sink, an aggregate with a sink behind it, a sink.
fn branches() -> Arc<Plan> {
    let env = Env {
        key: Type::String,
        value: Type::String,
        aggregate: Some(Type::Int),
    };
    let compile = |source| Expr::compile(source, &env).unwrap();
    let node = |op, children: &[usize]| Node {
        path: "n".into(),
        op,
        children: children.to_vec(),
    };
    let aggregate = Op::Aggregate {
        store: 0,
        first: First::Initial(compile("0")),
        add: compile("aggregate + int(value)"),
    };
    let sink = |value| Sink {
        topic: TopicName::External("t".into()),
        key: Format::String,
        value,
    };
    let source = Source {
        name: "s".into(),
        topic: TopicName::External("in".into()),
        key: Format::String,
        value: Format::String,
        timestamp: None,
        on_bad_record: OnBadRecord::Fail,
        on_error: OnBadRecord::Fail,
        dead_letters: None,
        offset_reset: OffsetReset::Earliest,
    };
    let store = topology::plan::StoreSpec {
        name: "sums".into(),
        key: Format::String,
        value: Type::Int,
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
        source,
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
        task.process(&record(0, Some("k"), Some("5")), &mut output),
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
    let dropped = task.process(&record(1, None, Some("6")), &mut output);
    assert_eq!(dropped, Ok(Processed::Dropped(DropReason::NullKey)));
    assert_eq!(
        output.sent,
        [(0, None, text("6"), 1001), (2, None, text("6"), 1001)]
    );
    output.sent.clear();
    assert!(
        task.process(&record(2, Some("k"), Some("no number")), &mut output)
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
            task.process(&record(offset as i64, Some(&key), Some(&value)), &mut output)
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
fn each_aggregation_keeps_what_its_name_says() {
    for (aggregation, wanted) in [
        (json!({"count": {"store": "s"}}), ["1", "2", "3"]),
        (
            json!({"sum": {"store": "s", "of": "value.amount"}}),
            ["3", "4", "6"],
        ),
        (
            json!({"sum": {"store": "s", "of": "double(value.amount) / 2.0"}}),
            ["1.5", "2.0", "3.0"],
        ),
        (
            json!({"min": {"store": "s", "of": "value.amount // of each order"}}),
            ["3", "1", "1"],
        ),
        (
            json!({"max": {"store": "s", "of": "string(value.amount)"}}),
            ["\"3\"", "\"3\"", "\"3\""],
        ),
        (
            json!({"earliest": {"store": "s", "of": "value.amount"}}),
            ["3", "3", "3"],
        ),
        (
            json!({"latest": {"store": "s", "of": "value.amount"}}),
            ["3", "1", "2"],
        ),
        // The second deletes the key, the third begins anew.
        (
            json!({"aggregate": {"store": "s", "initial": "10", "add": "value.amount == 1 ? null : aggregate + value.amount"}}),
            ["13", "null", "12"],
        ),
    ] {
        let steps = json!([{"groupByKey": {}}, aggregation, {"toStream": {}}]);
        let to_json = json!({"mapValues": {"fields": {"v": "value"}}});
        let steps: Vec<_> = steps
            .as_array()
            .unwrap()
            .iter()
            .cloned()
            .chain([to_json])
            .collect();
        let plan = planned(json!({}), json!(steps), "Json");
        let mut task = task(&plan, 0);
        let mut output = Collected::default();
        for (offset, amount) in [3, 1, 2].into_iter().enumerate() {
            task.process(
                &record(offset as i64, Some("k"), Some(&order(amount))),
                &mut output,
            )
            .unwrap();
            task.commit_in_memory();
        }
        let values = output.sent.iter().filter_map(|sent| sent.2.clone());
        let values: Vec<_> = values.map(|value| String::from_utf8(value).unwrap()).collect();
        let wanted = wanted.into_iter().filter(|value| *value != "null");
        assert_eq!(
            values,
            wanted
                .map(|value| format!(r#"{{"v":{value}}}"#))
                .collect::<Vec<_>>(),
            "{aggregation}"
        );
    }
}

#[test]
fn a_reduction_begins_with_the_first_record_and_again_after_it_was_deleted() {
    let steps = json!([
        {"mapValues": {"expression": "value.amount"}},
        {"groupByKey": {}},
        {"reduce": {"store": "s", "add": "aggregate + value > 9 ? null : aggregate + value"}},
        {"toStream": {}},
    ]);
    let plan = planned(json!({}), steps, "Long");
    let mut task = task(&plan, 0);
    let mut output = Collected::default();
    for (offset, amount) in [8, 1, 5, 4].into_iter().enumerate() {
        task.process(
            &record(offset as i64, Some("k"), Some(&order(amount))),
            &mut output,
        )
        .unwrap();
    }
    let values: Vec<_> = output.sent.into_iter().map(|sent| sent.2).collect();
    assert_eq!(values, [long(8), long(9), None, long(4)]);
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
    let mut process = |amount| task.process(&record(0, Some("k"), Some(&order(amount))), &mut output);
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
