//! What the steps keep that keep one value per key.

use super::*;

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
            0,
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
        task.process(0, &record(offset, Some("k"), Some(&order(2))), &mut output)
            .unwrap();
        task.commit_in_memory();
    }
    assert_eq!(task.stores()[0].values.len(), 0, "deleted");
    task.process(0, &record(2, Some("k"), Some(&order(1))), &mut output)
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
        task.process(0, &record(0, Some("k"), Some(&value)), &mut output)
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
                0,
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
            0,
            &record(offset as i64, Some("k"), Some(&order(amount))),
            &mut output,
        )
        .unwrap();
    }
    let values: Vec<_> = output.sent.into_iter().map(|sent| sent.2).collect();
    assert_eq!(values, [long(8), long(9), None, long(4)]);
}

/// Results as text; each record in a transaction of its own.
fn lists(aggregation: serde_json::Value, behind: &str, orders: &[(i64, i64)]) -> Vec<String> {
    let steps = json!([
        {"groupByKey": {}},
        {"windowedBy": {"session": {"gap": "10ms", "grace": "100ms"}}},
        aggregation,
        {"toStream": {}},
        {"filter": "key.windowEnd >= timestamp(0)"},
        {"mapValues": {"fields": {"list": behind}}},
    ]);
    let mut task = task(&planned(json!({}), steps, "Json"), 0);
    let mut output = Collected::default();
    for (amount, timestamp) in orders {
        let value = order(*amount);
        let record = InputRecord {
            timestamp: *timestamp,
            ..record(0, Some("k"), Some(&value))
        };
        task.process(0, &record, &mut output).unwrap();
        task.commit_in_memory();
    }
    let values = output.sent.into_iter().map(|sent| sent.2.unwrap());
    values.map(|value| String::from_utf8(value).unwrap()).collect()
}

#[test]
fn the_last_and_the_largest_are_kept_up_to_a_limit_also_of_sessions_that_become_one() {
    // Two sessions, and one of both.
    let orders = [(5, 0), (2, 1), (9, 20), (5, 22), (1, 11)];
    let collect = json!({"collect": {"store": "s", "of": "value.amount // all of them", "limit": 3}});
    assert_eq!(
        lists(collect, "value", &orders),
        [
            r#"{"list":[5]}"#,
            r#"{"list":[5,2]}"#,
            r#"{"list":[9]}"#,
            r#"{"list":[9,5]}"#,
            r#"{"list":[9,5,1]}"#
        ]
    );
    let top = json!({"topK": {"store": "s", "by": "value.amount % 5", "limit": 2}});
    assert_eq!(
        lists(top, "value.map(o, o.amount)", &orders),
        [
            r#"{"list":[5]}"#,
            r#"{"list":[2,5]}"#,
            r#"{"list":[9]}"#,
            r#"{"list":[9,5]}"#,
            r#"{"list":[9,2]}"#
        ],
        "the largest first, of equal ones the later first"
    );
}

#[test]
fn a_list_can_be_as_long_as_the_language_allows() {
    let orders: Vec<_> = (0..1_100).map(|n| (n * 7_919 % 1_100, 5)).collect();
    let top = json!({"topK": {"store": "s", "by": "value.amount", "limit": 1000}});
    let results = lists(
        top,
        "[value[0].amount, value[value.size() - 1].amount, value.size()]",
        &orders,
    );
    assert_eq!(results.last().unwrap(), r#"{"list":[1099,100,1000]}"#);
}

/// Records of two streams of Long values under String keys, of which the second one takes away what the first one adds.
fn balance(aggregate: &serde_json::Value, windows: Option<serde_json::Value>) -> Arc<Plan> {
    let stream = |name: &str| json!({"name": name, "topic": name, "key": {"serde": "String"}, "value": {"serde": "Long"}});
    let mut steps = vec![json!({"groupByKey": {}})];
    steps.extend(windows.map(|windows| json!({"windowedBy": windows})));
    steps.extend([json!({"aggregate": aggregate}), json!({"toStream": {}})]);
    let declared = json!({
        "language": "v1",
        "streams": [stream("paid"), stream("spent")],
        "pipelines": [
            {"name": "moved", "from": "spent", "steps": [{"selectKey": "key"}]},
            {"name": "balance", "from": "paid", "steps": steps, "to": {"topic": "out", "value": {"serde": "Long"}}},
        ],
    });
    Arc::new(topology::plan(&serde_json::from_value(declared).unwrap()).unwrap())
}

/// What comes of records: stream, key, value, timestamp.
fn piped(plan: Arc<Plan>, records: &[(&str, &str, i64, i64)]) -> Vec<(i64, i64)> {
    let mut driver = crate::Driver::new(plan, 2);
    let long = |bytes: Vec<u8>| i64::from_be_bytes(bytes.try_into().unwrap());
    let mut results = Vec::new();
    for (stream, key, value, timestamp) in records {
        driver.restart();
        let record = crate::DriverRecord {
            topic: TopicName::External((*stream).into()),
            partition: driver.partition(Some(key.as_bytes())),
            key: Some((*key).into()),
            value: Some(value.to_be_bytes().to_vec()),
            headers: Vec::new(),
            timestamp: *timestamp,
        };
        let outputs = driver.pipe(record).unwrap().outputs.into_iter();
        results.extend(outputs.map(|output| (long(output.value.unwrap()), output.timestamp)));
    }
    results
}

#[test]
fn streams_are_aggregated_together() {
    let mut aggregate = json!({
        "store": "balances", "initial": "0", "add": "aggregate + value",
        "cogroup": [{"with": "moved", "add": "aggregate - value"}],
    });
    let records = [
        ("paid", "a", 10, 1),
        ("spent", "b", 7, 2),
        ("spent", "a", 4, 3),
        ("paid", "a", 5, 2),
        ("paid", "b", 7, 14),
        ("spent", "a", 1, 25),
    ];
    let updates = [(10, 1), (-7, 2), (6, 3), (11, 3), (0, 14), (10, 25)];
    assert_eq!(piped(balance(&aggregate, None), &records), updates);
    // A window closes with a record of either stream.
    aggregate["emit"] = json!("OnWindowClose");
    let windows = json!({"tumbling": {"size": "10ms", "grace": "0ms"}});
    let closed = piped(balance(&aggregate, Some(windows)), &records);
    assert_eq!(closed, [(11, 3), (-7, 2), (7, 14)]);
}
