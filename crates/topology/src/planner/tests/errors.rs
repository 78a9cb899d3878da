//! What is refused, where, and with which way out.

use super::*;

fn step(steps: Json) -> Json {
    with("/pipelines/0/steps", steps)
}

#[test]
fn a_dead_letter_topic_and_who_sends_records_there_belong_together() {
    let with = |stream: serde_json::Value| {
        let mut json = orders_risk();
        for (name, value) in stream.as_object().unwrap() {
            json["streams"][0][name] = value.clone();
        }
        errors(json)
    };
    let path = "streams[0].deadLetterTopic";
    assert_eq!(
        with(json!({"onError": "DeadLetter"})),
        [error(
            path,
            "stream `orders` sends records to a topic that is not named",
            "name one in `deadLetterTopic`"
        )]
    );
    assert_eq!(
        with(json!({"onBadRecord": "Skip", "deadLetterTopic": "dead"})),
        [error(
            path,
            "nothing of stream `orders` goes to topic `dead`",
            "set `onBadRecord` or `onError` to `DeadLetter`"
        )]
    );
    assert_eq!(
        with(json!({"onBadRecord": "DeadLetter", "deadLetterTopic": "orders.submitted.v1"})),
        [error(
            path,
            "topic `orders.submitted.v1` is also read by a stream or table: records would go round",
            ""
        )]
    );
}

#[test]
fn all_errors_of_a_declaration_are_told_at_once() {
    let mut json = orders_risk();
    json["types"][0]["fields"]["amountInCents"] = json!("integer");
    json["types"][0]["fields"]["a-b"] = json!("string");
    json["streams"][0]["topic"] = json!("orders submitted");
    json["streams"][0]["timestamp"] = json!("value.orderId");
    json["pipelines"][0]["name"] = json!("ex posure");
    json["pipelines"][0]["steps"][0]["selectKey"] = json!("value.custmerId");
    let found = errors(json);
    let expected = [
        error(
            "streams[0].topic",
            "`orders submitted` cannot be a topic in Kafka: 1 to 249 letters, digits, `-`, `_`, `.` are allowed",
            "",
        ),
        error(
            "pipelines[0].name",
            "`ex posure` cannot be a name: 1 to 63 letters, digits, `-`, `_`, `.` are allowed, it becomes part of topic names",
            "",
        ),
        error(
            "types[0].fields.a-b",
            "field `a-b` cannot be named in an expression: use letters, digits and `_`",
            "",
        ),
        error(
            "types[0].fields.amountInCents",
            "unknown type `integer`",
            "did you mean `int`?",
        ),
        error(
            "streams[0].timestamp",
            "`timestamp` needs timestampMillis, the expression has type string",
            "declare the field as `timestampMillis`",
        ),
        error(
            "pipelines[0].steps[0].selectKey",
            "Order has no field `custmerId`",
            "did you mean `customerId`?",
        ),
    ];
    assert_eq!(found, expected);
}

#[test]
fn each_rule_of_a_pipeline_has_its_error() {
    let aggregate = json!({"aggregate": {"store": "s", "initial": "0", "add": "aggregate + 1"}});
    let cases = [
        (
            with("/streams/0/value/type", json!("Ordr")),
            "streams[0].value.type",
            "unknown type `Ordr`",
            "did you mean `Order`?",
        ),
        (
            with("/streams/0/value", json!({"serde": "Json"})),
            "streams[0].value",
            "`serde: Json` needs `type`, the name of a declared type",
            "",
        ),
        (
            with("/streams/0/value", json!({"serde": "Long", "type": "Order"})),
            "streams[0].value.type",
            "`type` goes only with `serde: Json`",
            "leave it out",
        ),
        (
            step(json!([aggregate])),
            "pipelines[0].steps[0].aggregate",
            "`aggregate` needs a grouping before it",
            "add the step `groupByKey: {}`",
        ),
        (
            step(json!([{"groupByKey": {}}])),
            "pipelines[0].steps[0].groupByKey",
            NO_AGGREGATION,
            "",
        ),
        (
            step(json!([{"toStream": {}}])),
            "pipelines[0].steps[0].toStream",
            "`toStream` goes only behind a table",
            "leave it out",
        ),
        (
            step(json!([{"groupByKey": {}}, aggregate])),
            "pipelines[0].to",
            "this is a table, a stream is needed here",
            "add the step `toStream: {}`",
        ),
        (
            step(json!([{}])),
            "pipelines[0].steps[0]",
            "the step has no operator",
            "",
        ),
        (
            step(json!([{"filter": "true", "filterNot": "true"}])),
            "pipelines[0].steps[0]",
            "the step has 2 operators: `filter`, `filterNot`",
            "make each a step of its own",
        ),
        (
            step(json!([{"filter": "value.amountInCents"}])),
            "pipelines[0].steps[0].filter",
            "needs bool, the expression has type int",
            "",
        ),
        (
            step(json!([{"selectKey": "value.note"}])),
            "pipelines[0].steps[0].selectKey",
            "a key cannot be absent, the expression has type string?",
            "filter with `has(…)` and use `has(x) ? x : default`",
        ),
        (
            step(json!([{"selectKey": "true"}])),
            "pipelines[0].steps[0].selectKey",
            "a key needs string, int or bytes, the expression has type bool",
            "convert it, e.g. `string(…)`",
        ),
        (
            step(json!([{"mapValues": {}}])),
            "pipelines[0].steps[0].mapValues",
            "`mapValues` needs exactly one of `fields` and `expression`",
            "",
        ),
        (
            step(json!([{"mapValues": {"fields": {}}}])),
            "pipelines[0].steps[0].mapValues.fields",
            "`fields` is empty",
            "",
        ),
        (
            step(json!([{"mapValues": {"expression": "value.amountInCents"}}])),
            "pipelines[0].to.value.serde",
            "the value has type int, which Json does not write",
            "give it fields with `mapValues: {fields: {…}}`",
        ),
        (
            with(
                "/pipelines/0/to",
                json!({"topic": "t", "key": {"serde": "Long"}, "value": {"serde": "Json"}}),
            ),
            "pipelines[0].to.key.serde",
            "the key has type string, which Long does not write",
            "write `serde: String`, or leave `key` out",
        ),
        (
            with("/pipelines/0/to/topic", json!("orders.submitted.v1")),
            "pipelines[0].to.topic",
            "topic `orders.submitted.v1` is also read by a stream or table: records would go round",
            "",
        ),
        (
            with(
                "/pipelines/0/steps/2/aggregate/initial",
                json!("value.amountInCents"),
            ),
            "pipelines[0].steps[2].aggregate.initial",
            "`initial` is the value before any record: it can only be a constant",
            "",
        ),
        (
            with(
                "/pipelines/0/steps/2/aggregate/add",
                json!("double(aggregate) * 1.1"),
            ),
            "pipelines[0].steps[2].aggregate.add",
            "`add` has type double, but the aggregate has type int",
            "begin with a double, e.g. `0.0`, or convert with `int(…)`",
        ),
        (
            with(
                "/pipelines/0/steps/2",
                json!({"sum": {"store": "s", "of": "value.customerId"}}),
            ),
            "pipelines[0].steps[2].sum.of",
            "a sum needs int or double, the expression has type string",
            "",
        ),
        (
            with(
                "/pipelines/0/steps/2",
                json!({"max": {"store": "s", "of": "[value.amountInCents]"}}),
            ),
            "pipelines[0].steps[2].max.of",
            "values of type list(int) cannot be compared",
            "",
        ),
        (
            with(
                "/pipelines/0/steps/2",
                json!({"latest": {"store": "s", "of": "value.note"}}),
            ),
            "pipelines[0].steps[2].latest.of",
            "an aggregate cannot be absent, the expression has type string?",
            "filter with `has(…)`, or use `.orValue(…)`",
        ),
        (
            with(
                "/pipelines/0/steps/2",
                json!({"reduce": {"store": "s", "add": "aggregate.amountInCents"}}),
            ),
            "pipelines[0].steps[2].reduce.add",
            "`add` has type int, but the aggregate has type Order",
            "",
        ),
        (
            with("/pipelines/0/steps/2/aggregate/store", json!("orders")),
            "pipelines[0].steps[2].aggregate.store",
            "the name `orders` is already taken by a stream",
            "",
        ),
    ];
    for (json, path, message, suggestion) in cases {
        assert_eq!(errors(json), [error(path, message, suggestion)]);
    }
}

/// The pipeline of orders-risk with windows, up to its aggregation.
fn windowed(
    windows: serde_json::Value,
    aggregation: serde_json::Value,
    behind: &[serde_json::Value],
) -> Json {
    let mut steps = vec![
        json!({"groupByKey": {}}),
        json!({"windowedBy": windows}),
        aggregation,
        json!({"toStream": {}}),
    ];
    steps.extend_from_slice(behind);
    let mut json = step(json!(steps));
    json["pipelines"][0]["to"] = json!({"topic": "t", "value": {"serde": "Long"}});
    json
}

#[test]
fn each_rule_of_windows_has_its_error() {
    let tumbling = || json!({"tumbling": {"size": "5m", "grace": "0s"}});
    let count = || json!({"count": {"store": "s"}});
    let closes = || json!({"count": {"store": "s", "emit": "OnWindowClose"}});
    let at = "pipelines[0].steps[1].windowedBy";
    let hopping = |size, advance| json!({"hopping": {"size": size, "advance": advance, "grace": "1m"}});
    let session = || json!({"session": {"gap": "1m", "grace": "0s"}});
    let aggregate = |merge: Option<&str>| json!({"aggregate": {"store": "s", "initial": "0", "add": "aggregate + 1", "merge": merge}});
    let mut with_key = windowed(tumbling(), count(), &[]);
    with_key["pipelines"][0]["to"]["key"] = json!({"serde": "String"});
    let again = [
        json!({"groupByKey": {}}),
        json!({"count": {"store": "again"}}),
        json!({"toStream": {}}),
    ];
    let cases = [
        (
            windowed(json!({}), count(), &[]),
            at.to_owned(),
            "`windowedBy` needs exactly one of `tumbling`, `hopping`, `sliding` and `session`",
            "",
        ),
        (
            windowed(hopping("1m", "2m"), count(), &[]),
            format!("{at}.hopping.advance"),
            "windows of 1m that start 2m apart leave gaps: records between them would be lost",
            "make it at most `size`, or filter those records out before",
        ),
        (
            windowed(hopping("1d", "1s"), count(), &[]),
            format!("{at}.hopping.advance"),
            "each record would be in 86400 windows, at most 1000 are allowed",
            "make `advance` longer",
        ),
        (
            step(
                json!([{"groupByKey": {}}, closes(), {"toStream": {}}, {"mapValues": {"fields": {"n": "value"}}}]),
            ),
            "pipelines[0].steps[1].count.emit".to_owned(),
            "only a window closes, and the aggregation has none",
            "add the step `windowedBy` before it, or leave `emit` out",
        ),
        (
            step(json!([{"windowedBy": tumbling()}])),
            "pipelines[0].steps[0].windowedBy".to_owned(),
            "`windowedBy` needs a grouping before it",
            "add the step `groupByKey: {}`",
        ),
        (
            windowed(tumbling(), json!({"filter": "true"}), &[]),
            "pipelines[0].steps[0].groupByKey".to_owned(),
            NO_AGGREGATION,
            "",
        ),
        (
            windowed(tumbling(), closes(), &[json!({"filter": "offset > 1"})]),
            "pipelines[0].steps[4].filter".to_owned(),
            "there is no `offset` here: the result of a window comes from many records",
            "identify it by its key and `key.windowStart`",
        ),
        (
            windowed(tumbling(), count(), &again),
            "pipelines[0].steps[5].count".to_owned(),
            "a key of type windowed key cannot be kept or sent on as it is",
            "choose one with `selectKey`, e.g. `selectKey: key.key`",
        ),
        (
            with_key,
            "pipelines[0].to.key.serde".to_owned(),
            "the key has type windowed key, which String does not write",
            "leave `key` out: it is written as Kafka Streams writes windowed keys",
        ),
        (
            windowed(session(), aggregate(None), &[]),
            "pipelines[0].steps[2].aggregate.merge".to_owned(),
            "two session windows can become one: say what becomes of their values",
            "add it, from `aggregate` and `value`, e.g. `aggregate + value`",
        ),
        (
            windowed(tumbling(), aggregate(Some("aggregate + value")), &[]),
            "pipelines[0].steps[2].aggregate.merge".to_owned(),
            "only session windows become one, and the aggregation has none",
            "leave it out",
        ),
        (
            windowed(session(), aggregate(Some("string(aggregate)")), &[]),
            "pipelines[0].steps[2].aggregate.merge".to_owned(),
            "needs int, the expression has type string",
            "",
        ),
    ];
    for (json, path, message, suggestion) in cases {
        let found = errors(json);
        assert_eq!(
            found.first(),
            Some(&error(&path, message, suggestion)),
            "{found:?}"
        );
    }
}

#[test]
fn what_is_listed_has_its_errors() {
    let with_step = |aggregation: Json| {
        errors(step(
            json!([{"groupByKey": {}}, aggregation, {"toStream": {}}, {"mapValues": {"fields": {"v": "value"}}}]),
        ))
    };
    let at = |field: &str| format!("pipelines[0].steps[1].{field}");
    let top = |by: &str, limit: u32| json!({"topK": {"store": "s", "by": by, "limit": limit}});
    for (aggregation, path, message, suggestion) in [
        (
            json!({"collect": {"store": "s", "of": "value.note", "limit": 3}}),
            "collect.of",
            "an aggregate cannot be absent, the expression has type string?",
            "filter with `has(…)`, or use `.orValue(…)`",
        ),
        (
            json!({"collect": {"store": "s", "of": "value.orderId", "limit": 1001}}),
            "collect.limit",
            "1001 cannot be kept: from 1 to 1000",
            "",
        ),
        (
            top("value.amountInCents", 0),
            "topK.limit",
            "0 cannot be kept: from 1 to 1000",
            "",
        ),
        (
            top("value", 3),
            "topK.by",
            "values of type Order cannot be compared",
            "",
        ),
        (
            top("value.amountInCents + int(ts)", 3),
            "topK.by",
            "records are compared by their values alone: `key`, `ts` and the like are not kept",
            "put it into the value with `mapValues`",
        ),
    ] {
        assert_eq!(with_step(aggregation), [error(&at(path), message, suggestion)]);
    }
}

#[test]
fn records_that_are_the_same_meet_in_one_task() {
    let deduplicate = |by: &str| json!({"deduplicate": {"store": "seen", "by": by, "within": "1h"}});
    let first = errors(step(json!([deduplicate("value.note")])));
    let at = "pipelines[0].steps[0].deduplicate.by";
    let instead = "filter with `has(…)` and use `has(x) ? x : default`";
    assert_eq!(
        first.first(),
        Some(&error(
            at,
            "a key cannot be absent, the expression has type string?",
            instead
        ))
    );
    let fields = json!({"mapValues": {"fields": {"id": "value.orderId"}}});
    let plan = planned(step(json!([deduplicate("value.orderId"), fields])));
    assert_eq!(plan.sub_topologies.len(), 1);
    let plan = planned(step(
        json!([{"selectKey": "value.customerId"}, deduplicate("value.orderId"), fields]),
    ));
    assert_eq!(plan.sub_topologies[1].name, "seen");
    let Format::Row(Type::Struct(carried)) = &plan.sub_topologies[1].sources[0].value else {
        panic!("no record")
    };
    assert_eq!(carried.fields.len(), 1, "only what is read behind it");
}

#[test]
fn each_field_of_an_aggregate_has_its_errors() {
    let with_fields = |fields: Json| {
        step(json!([
            {"groupByKey": {}}, {"aggregate": {"store": "s", "fields": fields}}, {"toStream": {}},
        ]))
    };
    let at = |field: &str| format!("pipelines[0].steps[1].aggregate{field}");
    let found = errors(with_fields(json!({
        "a-b": {"initial": "value.amountInCents", "add": "1"},
        "n": {"initial": "0", "add": "aggregate.n + 1", "merge": "aggregate.n + value.n"},
    })));
    let wanted = [
        error(
            &at(".fields.a-b"),
            "`a-b` cannot be a field: use letters, digits and `_`",
            "",
        ),
        error(
            &at(".fields.a-b.initial"),
            "`initial` is the value before any record: it can only be a constant",
            "",
        ),
    ];
    assert_eq!(found, wanted);
    let found = errors(with_fields(json!({
        "n": {"initial": "0", "add": "aggregate.m"},
        "x": {"initial": "0.0", "add": "aggregate.n"},
    })));
    let wanted = [
        error(
            &at(".fields.n.add"),
            "aggregate has no field `m`",
            "did you mean `n`?",
        ),
        error(
            &at(".fields.x.add"),
            "needs double, the expression has type int",
            "",
        ),
    ];
    assert_eq!(found, wanted);
    let found = errors(with_fields(
        json!({"n": {"initial": "0", "add": "1", "merge": "2"}}),
    ));
    let message = "only session windows become one, and the aggregation has none";
    assert_eq!(found, [error(&at(".fields.n.merge"), message, "leave it out")]);
    let message = "`aggregate` needs either `initial` and `add`, or `fields` with at least one field";
    assert_eq!(errors(with_fields(json!({}))), [error(&at(""), message, "")]);
    let mut beside = with_fields(json!({"n": {"initial": "0", "add": "1"}}));
    beside["pipelines"][0]["steps"][1]["aggregate"]["merge"] = json!("aggregate");
    let message = "with `fields`, each field has its own `merge`";
    assert_eq!(
        errors(beside),
        [error(&at(".merge"), message, "put `merge` into the fields")]
    );
}

#[test]
fn the_result_of_a_window_has_a_partition_again_behind_a_repartition() {
    let tumbling = json!({"tumbling": {"size": "5m", "grace": "0s"}});
    let closes = json!({"count": {"store": "s", "emit": "OnWindowClose"}});
    let behind = [
        json!({"selectKey": "key.key"}),
        json!({"groupByKey": {}}),
        json!({"sum": {"store": "again", "of": "value + offset"}}),
        json!({"toStream": {}}),
    ];
    assert_eq!(
        planned(windowed(tumbling, closes, &behind)).sub_topologies.len(),
        2
    );
}

#[test]
fn errors_behind_a_wrong_filter_or_aggregate_are_told_too() {
    let mut json = orders_risk();
    json["pipelines"][0]["steps"][2]["aggregate"]["add"] = json!("aggregate + value.amount");
    json["pipelines"][0]["steps"][4]["filter"] = json!("value >= 1.5");
    json["pipelines"][0]["steps"][5]["mapValues"]["fields"] = json!({"a": "kye", "b": "valu"});
    let paths: Vec<_> = errors(json).into_iter().map(|(path, _, _)| path).collect();
    let expected = [
        "pipelines[0].steps[2].aggregate.add",
        "pipelines[0].steps[4].filter",
        "pipelines[0].steps[5].mapValues.fields.a",
        "pipelines[0].steps[5].mapValues.fields.b",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn pipelines_that_lead_nowhere_or_in_a_circle_are_refused() {
    let mut json = branched();
    json["pipelines"][1]["from"] = json!("large");
    let circle = |name: &str| {
        format!(
            "pipeline `{name}` reads no stream in the end: it is read in a circle, or reads what is not there"
        )
    };
    let found: Vec<_> = errors(json).into_iter().skip(1).collect();
    let wanted = [
        error("pipelines[0].from", &circle("keyed"), ""),
        error("pipelines[1].from", &circle("large"), ""),
    ];
    assert_eq!(found, wanted);

    let mut json = branched();
    json["pipelines"][0].as_object_mut().unwrap().remove("to");
    let help = "add `to`, or a pipeline that reads it";
    let nowhere = error("pipelines[0]", "the results of pipeline `large` go nowhere", help);
    assert_eq!(errors(json), [nowhere]);

    // An error is told once, not again by those that read the pipeline.
    let mut json = branched();
    json["pipelines"][1]["steps"] = json!([{"filter": "value.amount > 1"}, {"groupByKey": {}}]);
    let paths: Vec<_> = errors(json).into_iter().map(|(path, _, _)| path).collect();
    assert_eq!(
        paths,
        ["pipelines[1].steps[0].filter", "pipelines[1].steps[1].groupByKey"]
    );

    let mut json = branched();
    json["pipelines"][1]["steps"] = json!([{"groupByKey": {}}, {"count": {"store": "s"}}]);
    let message = "`groupByKey` needs a stream, this is a table";
    assert_eq!(
        errors(json),
        [error(
            "pipelines[0].steps[0].groupByKey",
            message,
            "add the step `toStream: {}` before it"
        )]
    );
}

#[test]
fn two_readers_of_one_topic_are_refused() {
    let mut json = orders_risk();
    let stream = json["streams"][0].clone();
    json["streams"].as_array_mut().unwrap().push(stream);
    json["streams"][1]["name"] = json!("copy");
    let found: Vec<_> = errors(json)
        .into_iter()
        .map(|(path, message, _)| (path, message))
        .collect();
    let expected = [
        (
            "streams[1].topic",
            "topic `orders.submitted.v1` is already read by another stream",
        ),
        ("streams[1].name", "no pipeline reads stream `copy`"),
    ];
    assert_eq!(
        found,
        expected.map(|(path, message)| (path.to_owned(), message.to_owned()))
    );
}

#[test]
fn a_forgotten_to_stream_is_told_once() {
    let aggregate = json!({"aggregate": {"store": "s", "initial": "0", "add": "aggregate + 1"}});
    let mut json = with(
        "/pipelines/0/steps",
        json!([{"groupByKey": {}}, aggregate, {"selectKey": "'k'"}, {"filter": "true"}]),
    );
    json["pipelines"][0]["to"]["value"]["serde"] = json!("Long");
    let message = "`selectKey` needs a stream, this is a table";
    let help = "add the step `toStream: {}` before it";
    assert_eq!(
        errors(json),
        [error("pipelines[0].steps[2].selectKey", message, help)]
    );
}

#[test]
fn an_unknown_stream_is_told_where_it_is_read() {
    let expected = [
        error("streams[0].name", "no pipeline reads stream `orders`", ""),
        error(
            "pipelines[0].from",
            "unknown stream, table or pipeline `order`",
            "did you mean `orders`?",
        ),
    ];
    assert_eq!(errors(with("/pipelines/0/from", json!("order"))), expected);
    let itself = errors(with("/pipelines/0/from", json!("exposure"))).remove(1);
    let message =
        "pipeline `exposure` reads no stream in the end: it is read in a circle, or reads what is not there";
    assert_eq!(itself, error("pipelines[0].from", message, ""));
}

#[test]
fn one_topic_is_named_or_chosen_for_each_record() {
    let value = || json!({"serde": "Json"});
    let cases = [
        (
            json!({"value": value()}),
            "",
            "needs `topic`, or `topics` and `topicOf`",
            "",
        ),
        (
            json!({"topic": "a", "topics": ["b"], "value": value()}),
            ".topics",
            "`topic` is one and `topics` are others",
            "write one of them",
        ),
        (
            json!({"topic": "a", "topicOf": "'a'", "value": value()}),
            ".topicOf",
            "`topicOf` chooses one of `topics`",
            "list them",
        ),
        (
            json!({"topics": ["a"], "value": value()}),
            ".topics",
            "nothing says which record goes to which topic",
            "write `topicOf`, e.g. `topicOf: \"value.kind\"`",
        ),
        (
            json!({"topics": ["a", "b", "a"], "topicOf": "key", "value": value()}),
            ".topics[2]",
            "topic `a` is there twice",
            "",
        ),
        (
            json!({"topics": ["a", "b"], "topicOf": "value.exposure", "value": value()}),
            ".topicOf",
            "needs string, the expression has type int",
            "",
        ),
        (
            json!({"topics": ["a", "orders.submitted.v1"], "topicOf": "key", "value": value()}),
            ".topics[1]",
            "topic `orders.submitted.v1` is also read by a stream or table: records would go round",
            "",
        ),
    ];
    for (to, path, message, suggestion) in cases {
        let path = format!("pipelines[0].to{path}");
        assert_eq!(
            errors(with("/pipelines/0/to", to)),
            [error(&path, message, suggestion)]
        );
    }
}

#[test]
fn headers_are_text_or_bytes_of_one_record() {
    let mut json = windowed(
        json!({"tumbling": {"size": "5m", "grace": "0s"}}),
        json!({"count": {"store": "s", "emit": "OnWindowClose"}}),
        &[],
    );
    json["pipelines"][0]["to"]["headers"] = json!({
        "bytes": "b'x'", "": "'x'", "count": "value", "start": "string(key.windowStart)", "trace": "headers.?trace",
    });
    let wanted = [
        error(
            "pipelines[0].to.headers[\"\"]",
            "a header needs a name, without a NUL",
            "",
        ),
        error(
            "pipelines[0].to.headers.count",
            "a header needs string or bytes, the expression has type int",
            "convert it, e.g. `string(…)`",
        ),
        error(
            "pipelines[0].to.headers.trace",
            "there are no `headers` here: it comes from several records",
            "put what is needed of them into the value before",
        ),
    ];
    assert_eq!(errors(json), wanted);
}

#[test]
fn names_of_let_are_new_ones_and_come_one_after_the_other() {
    let one = |name: &str, expression: &str| json!({"name": name, "expression": expression});
    let total = || one("total", "value.amountInCents");
    let cases = [
        (
            json!([one("a-b", "1")]),
            "let[0].name",
            "`a-b` cannot be a name: use letters, digits and `_`",
        ),
        (json!([total(), total()]), "let[1].name", "`total` is there twice"),
        (
            json!([one("ts", "1")]),
            "let[0].name",
            "`ts` is the name of something else in every expression",
        ),
        (
            json!([one("twice", "total * 2"), total()]),
            "let[0].expression",
            "unknown name `total`",
        ),
        (json!([total()]), "expression", "unknown name `twice`"),
    ];
    for (lets, path, message) in cases {
        let map = json!({"let": lets, "expression": "total + twice"});
        let (at, told, _) = errors(step(json!([{"mapValues": map}]))).remove(0);
        let path = format!("pipelines[0].steps[0].mapValues.{path}");
        assert_eq!((at, told), (path, message.to_owned()));
    }
}

#[test]
fn how_far_ahead_event_time_may_be_needs_an_event_time() {
    let mut json = orders_risk();
    json["streams"][0]["maxAhead"] = json!("1h");
    let plan = planned(json.clone());
    assert_eq!(plan.sub_topologies[0].sources[0].max_ahead_ms, Some(3_600_000));
    assert_eq!(plan.sub_topologies[1].sources[0].max_ahead_ms, None);
    json["streams"][0].as_object_mut().unwrap().remove("timestamp");
    assert_eq!(
        errors(json),
        [error(
            "streams[0].maxAhead",
            "event time is the record's own timestamp, which is not ahead of itself",
            "leave it out: the topic's `message.timestamp.after.max.ms` bounds that"
        )]
    );
}
