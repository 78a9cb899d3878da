//! What is refused, where, and with which way out.

use super::*;

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
            "topic `orders.submitted.v1` is also read by a stream: records would go round",
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
    let step = |steps: Json| with("/pipelines/0/steps", steps);
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
            "`toStream` goes only behind an aggregation",
            "leave it out",
        ),
        (
            step(json!([{"groupByKey": {}}, aggregate])),
            "pipelines[0].to",
            "the result of an aggregation is a table, a stream is needed here",
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
            "topic `orders.submitted.v1` is also read by a stream: records would go round",
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
    let message = "the result of an aggregation is a table, a stream is needed here";
    assert_eq!(
        errors(json),
        [error(
            "pipelines[1].steps",
            message,
            "add the step `toStream: {}`"
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
        json!([{"groupByKey": {}}, aggregate, {"filter": "true"}]),
    );
    json["pipelines"][0]["to"]["value"]["serde"] = json!("Long");
    let message = "`filter` needs a stream, the result of an aggregation is a table";
    let help = "add the step `toStream: {}` before it";
    assert_eq!(
        errors(json),
        [error("pipelines[0].steps[2].filter", message, help)]
    );
}

#[test]
fn an_unknown_stream_is_told_where_it_is_read() {
    let expected = [
        error("streams[0].name", "no pipeline reads stream `orders`", ""),
        error(
            "pipelines[0].from",
            "unknown stream or pipeline `order`",
            "did you mean `orders`?",
        ),
    ];
    assert_eq!(errors(with("/pipelines/0/from", json!("order"))), expected);
    let itself = errors(with("/pipelines/0/from", json!("exposure"))).remove(1);
    let message =
        "pipeline `exposure` reads no stream in the end: it is read in a circle, or reads what is not there";
    assert_eq!(itself, error("pipelines[0].from", message, ""));
}
