//! Records, results and stores that stop a task, or are passed over.

use super::*;
use crate::{Driver, DriverRecord, KeyRange, Visit};

#[test]
fn a_failing_record_leaves_everything_as_it_was() {
    let mut task = task(&sums(), 0);
    let mut output = Collected::default();
    task.process(0, &record(0, Some("k"), Some(&order(i64::MAX))), &mut output)
        .unwrap();
    let before: Vec<_> = task
        .changes(0)
        .map(|change| change.value.map(<[u8]>::to_vec))
        .collect();
    let error = task
        .process(0, &record(1, Some("k"), Some(&order(1))), &mut output)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "record in/3@1: integer overflow in `+`; at spec.topology.pipelines[0].steps[1]: give the \
         expression a value for such records, filter them out before, or set \
         `onError: Skip` or `onError: DeadLetter` where its topic is declared"
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
        .process(0, &record(0, Some("k"), Some(&order(1))), &mut output)
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
        fn scan(&self, range: KeyRange<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
            self.0.scan(range, visit)
        }
        fn max_record_bytes(&self) -> usize {
            20
        }
    }
    let mut output = Collected::default();
    let mut task = Task::new(sums(), 0, 0, vec![Small(MemoryStore::default())]);
    let value = order(1);
    task.process(0, &record(0, Some("k"), Some(&value)), &mut output)
        .unwrap();
    let long_key = "k".repeat(20);
    let error = task
        .process(0, &record(1, Some(&long_key), Some(&value)), &mut output)
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
    task.process(0, &record(0, Some("k"), Some(&order(1))), &mut output)
        .unwrap();
    let error = task
        .process(0, &record(1, Some("l"), Some(&order(1))), &mut output)
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
        let source = &mut Arc::get_mut(&mut plan).unwrap().sub_topologies[0].sources[0];
        let Format::Json(ty) = source.value.clone() else {
            panic!("not JSON")
        };
        let env = Env::of_record(Type::String, Type::Struct(ty));
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
        let Ok(Processed::Skipped(skipped)) = skips.process(0, &record, &mut output) else {
            panic!("not skipped")
        };
        assert_eq!(
            skipped.to_string(),
            format!("record in/3@9: stream `orders`, {reason}")
        );
        let error = fails.process(0, &record, &mut output).unwrap_err();
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
        skips.process(0, &negative, &mut output),
        Ok(Processed::Skipped(_))
    ));
    assert!(output.sent.is_empty());
}

#[test]
fn what_is_declared_for_errors_holds_behind_a_repartition_topic() {
    let input = |amount| DriverRecord {
        topic: TopicName::External("in".into()),
        partition: 0,
        key: None,
        value: Some(order(amount).into_bytes()),
        headers: Vec::new(),
        timestamp: 7,
    };
    // What the repartition topic carries is a record, or one number.
    for (choose, amount, carried) in [
        (
            json!({"selectKey": "value.customer"}),
            "value.amount",
            r#"{"amount":0}"#,
        ),
        (
            json!({"map": {"key": "value.customer", "expression": "value.amount"}}),
            "value",
            r#"{"value":0}"#,
        ),
    ] {
        let steps = json!([
            choose,
            {"groupByKey": {}},
            {"aggregate": {"store": "sums", "initial": "100", "add": format!("aggregate / {amount}")}},
            {"toStream": {}}
        ]);
        let stream = json!({"onError": "DeadLetter", "deadLetterTopic": "dead"});
        let mut driver = Driver::new(planned(stream, steps.clone(), "Long"), 1);
        let driven = [0, 2].map(|amount| driver.pipe(input(amount)).unwrap());
        let processed: Vec<_> = driven.iter().flat_map(|driven| &driven.processed).collect();
        assert!(matches!(
            processed.as_slice(),
            [
                Processed::Done,
                Processed::DeadLettered(_),
                Processed::Done,
                Processed::Done
            ]
        ));
        let sent: Vec<_> = driven.iter().flat_map(|driven| &driven.outputs).collect();
        let [letter, result] = sent.as_slice() else {
            panic!("{sent:?}")
        };
        assert_eq!(letter.topic, TopicName::External("dead".into()));
        assert_eq!(letter.key.as_deref(), Some(&b"c"[..]));
        let value = String::from_utf8_lossy(letter.value.as_deref().unwrap());
        assert_eq!(value, carried);
        let (name, topic) = &letter.headers[0];
        assert_eq!(name, "__streams.errors.topic");
        assert!(topic.as_deref().unwrap().ends_with(b"sums-repartition"));
        assert_eq!(result.value.as_deref(), Some(&50_i64.to_be_bytes()[..]));

        let mut driver = Driver::new(planned(json!({}), steps, "Long"), 1);
        let stopped = driver.pipe(input(0)).unwrap_err();
        assert_eq!(stopped.category(), ErrorCategory::Expression);
    }
}

#[test]
fn event_time_too_far_ahead_of_the_records_own_does_not_drag_stream_time() {
    let types = json!([{"name": "Reading", "fields": {"at": "timestampMillis"}}]);
    let declared = serde_json::from_value(json!({
        "language": "v1", "types": types,
        "streams": [{
            "name": "orders", "topic": "in", "key": {"serde": "String"}, "value": {"serde": "Json", "type": "Reading"},
            "timestamp": "value.at", "maxAhead": "5m", "onBadRecord": "Skip"
        }],
        "pipelines": [{"name": "p", "from": "orders", "to": {"topic": "out", "value": {"serde": "Json"}}}]
    }));
    let plan = Arc::new(topology::plan(&declared.unwrap()).unwrap());
    let (mut task, mut output) = (task(&plan, 0), Collected::default());
    let mut process = |at: i64| {
        let value = json!({"at": at}).to_string();
        let record = InputRecord {
            timestamp: 1_000_000,
            ..record(0, Some("k"), Some(&value))
        };
        let processed = task.process(0, &record, &mut output).unwrap();
        (processed, task.stream_time())
    };
    assert_eq!(process(1_300_000), (Processed::Done, 1_300_000));
    let (Processed::Skipped(skipped), 1_300_000) = process(1_300_001) else {
        panic!("not skipped")
    };
    assert_eq!(
        skipped.to_string(),
        "record in/3@0: stream `orders`, timestamp: 300001 ms ahead of the record's own, `maxAhead` is 300000 ms"
    );
    assert!(matches!(process(i64::MAX), (Processed::Skipped(_), 1_300_000)));
    // Late is as late as it likes.
    assert_eq!(process(0), (Processed::Done, 1_300_000));
}

#[test]
fn a_record_that_cannot_be_processed_becomes_a_dead_letter_as_it_was() {
    let stream = json!({"onBadRecord": "DeadLetter", "onError": "DeadLetter", "deadLetterTopic": "dead"});
    let plan = planned(stream, json!([{"filter": "1 / value.amount > 0"}]), "Json");
    let (mut task, mut output) = (task(&plan, 0), Collected::default());
    let sink = plan.sub_topologies[0].sources[0].dead_letters.unwrap();
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
        let failing = InputRecord {
            headers: &[("trace", Some(b"t")), ("empty", None)],
            ..record(9, Some("k"), Some(value))
        };
        let processed = task.process(0, &failing, &mut output);
        assert!(
            matches!(processed, Ok(Processed::DeadLettered(_))),
            "{processed:?}"
        );
        let sent = (sink, Some(b"k".to_vec()), Some(value.as_bytes().to_vec()), 1009);
        assert_eq!(output.sent, [sent]);
        let headers = [
            ("trace", "t"),
            ("empty", "null"),
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
        .process(0, &record(9, Some("k"), Some("{")), &mut output)
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
        .process(0, &record(9, Some("k"), Some("{")), &mut output)
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
    let processed = task.process(0, &record(0, None, Some(&order(0))), &mut Collected::default());
    assert!(matches!(processed, Ok(Processed::Skipped(_))), "{processed:?}");
    let unreadable = task.process(0, &record(1, None, Some("{")), &mut Collected::default());
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
        .process(0, &record(0, None, Some(&order(0))), &mut Collected::default())
        .unwrap_err();
    assert_eq!(error.category(), ErrorCategory::Expression);
    assert_eq!(error.step, "spec.topology.pipelines[0].steps[0]");
}

#[test]
fn a_result_that_its_format_cannot_hold_stops_the_task() {
    let steps = json!([{"mapValues": {"fields": {"r": "has(value.rate) ? 0.0 / value.rate : 0.0"}}}]);
    let mut task = task(&planned(json!({}), steps, "Json"), 0);
    let value = r#"{"customer":"c","amount":1,"rate":0}"#;
    let error = task
        .process(0, &record(0, Some("k"), Some(value)), &mut Collected::default())
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
        fn scan(&self, _: KeyRange<'_>, _: &mut Visit<'_>) -> Result<(), StoreError> {
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
    let broken = Task::new(Arc::clone(&plan), 0, 0, vec![Broken]).process(0, &input, &mut output);
    assert_eq!(reason(broken), "store `sums`: disk");
    let mut damaged = task(&plan, 0);
    damaged.stores_mut()[0].values.insert(b"k".to_vec(), vec![1, 0]);
    assert_eq!(
        reason(damaged.process(0, &input, &mut output)),
        "store `sums`: the row has 2 bytes and ends within a value"
    );
    let missing = Task::new(plan, 0, 0, Vec::<MemoryStore>::new()).process(0, &input, &mut output);
    assert_eq!(reason(missing), "store `sums`: not open");
}
