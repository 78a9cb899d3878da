//! Steps on tables: what they need, and what they are refused.

use super::*;
use crate::plan::Windows;

/// A table of Orders, and a pipeline of these steps.
fn grouped(steps: Json) -> Json {
    let mut json = orders_risk();
    let streams = json.as_object_mut().unwrap().remove("streams").unwrap();
    json["tables"] = streams;
    json["pipelines"][0]["steps"] = steps;
    json["pipelines"][0]["to"]["value"]["serde"] = json!("Long");
    json
}

fn group() -> Json {
    json!({"groupBy": {"key": "value.customerId"}})
}

#[test]
fn what_comes_and_goes_carries_only_what_is_read() {
    let sum = json!({"sum": {"store": "by-customer", "of": "value.amountInCents"}});
    let plan = planned(grouped(json!([group(), sum, {"toStream": {}}])));
    let [before, after] = plan.sub_topologies.as_slice() else {
        panic!("{}", plan.describe())
    };
    let wanted = [
        ("forward", vec![1]),
        ("table", vec![2]),
        ("groupBy of a table", vec![3]),
        ("sink", vec![]),
    ];
    assert_eq!(shape(before), wanted);
    assert_eq!(after.name, "by-customer");
    let Format::Row(Type::Struct(change)) = &after.sources[0].value else {
        panic!("{:?}", after.sources[0].value)
    };
    assert_eq!(field_names(change), ["before", "after"]);
    let Type::Optional(value) = &change.fields[0].ty else {
        panic!("{:?}", change.fields[0].ty)
    };
    let Type::Struct(value) = &**value else {
        panic!("{value:?}")
    };
    assert_eq!(field_names(value), ["amountInCents"]);
}

#[test]
fn a_stream_is_grouped_by_another_key_in_one_step() {
    let mut json = orders_risk();
    let steps = json!([
        {"groupBy": {"key": "value.customerId"}},
        {"count": {"store": "by-customer"}},
        {"toStream": {}},
    ]);
    json["pipelines"][0]["steps"] = steps;
    json["pipelines"][0]["to"]["value"]["serde"] = json!("Long");
    let in_one = planned(json.clone());
    json["pipelines"][0]["steps"] = json!([
        {"selectKey": "value.customerId"},
        {"groupByKey": {}},
        {"count": {"store": "by-customer"}},
        {"toStream": {}},
    ]);
    let text = |plan: &Plan| {
        let text = plan.describe();
        // Paths are others.
        let lines = text
            .lines()
            .map(|line| line.split("  [").next().unwrap_or_default());
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(text(&in_one), text(&planned(json)));
}

#[test]
fn each_rule_of_tables_has_its_error() {
    let to_stream = || json!({"toStream": {}});
    let at = |step: usize, field: &str| format!("pipelines[0].steps[{step}].{field}");
    let instead = "use `count`, `sum`, or `aggregate` with `remove`; or take each update as a record with `toStream: {}`";
    for (steps, path, message, help) in [
        (
            json!([group(), {"max": {"store": "s", "of": "value.amountInCents"}}, to_stream()]),
            at(1, "max"),
            "a value that is there no more cannot be taken out of `max`",
            instead,
        ),
        (
            json!([group(), {"aggregate": {"store": "s", "initial": "0", "add": "aggregate + 1"}}, to_stream()]),
            at(1, "aggregate.remove"),
            "values of a table come and go: say what becomes of the aggregate without one",
            "add it, from `aggregate` and `value`, e.g. `aggregate - value`",
        ),
        (
            json!([group(), {"aggregate": {"store": "s", "initial": "0", "add": "aggregate + 1", "remove": "1.5"}}, to_stream()]),
            at(1, "aggregate.remove"),
            "`remove` has type double, but the aggregate has type int",
            "begin with a double, e.g. `0.0`, or convert with `int(…)`",
        ),
        (
            json!([to_stream(), {"groupByKey": {}}, {"reduce": {"store": "s", "add": "value", "remove": "value"}}, to_stream()]),
            at(2, "reduce.remove"),
            "only values of a table leave, and the aggregation is over a stream",
            "leave it out",
        ),
        (
            json!([group(), {"windowedBy": {"tumbling": {"size": "1m", "grace": "0s"}}}, {"count": {"store": "s"}}, to_stream()]),
            at(1, "windowedBy"),
            "the values of a table have no windows, only records have",
            "take each update as a record: `toStream: {}` before the grouping",
        ),
        (
            json!([{"filter": "ts > value.submittedAt"}, group(), {"count": {"store": "s"}}, to_stream()]),
            at(0, "filter"),
            "`ts`, `headers` and the like are those of an update, and a table's value has none when it is computed again",
            "put it into the value before the table",
        ),
        (
            json!([{"toTable": {"store": "s"}}, group(), {"count": {"store": "t"}}, to_stream()]),
            at(0, "toTable"),
            "this is a table that is kept already",
            "leave it out",
        ),
        (
            json!([{"groupByKey": {}}, {"count": {"store": "t"}}, to_stream()]),
            at(0, "groupByKey"),
            "`groupByKey` needs a stream, this is a table",
            "add the step `toStream: {}` before it",
        ),
    ] {
        assert_eq!(errors(grouped(steps)), [error(&path, message, help)]);
    }
}

#[test]
fn each_rule_of_versions_and_of_what_waits_has_its_error() {
    let mut json = orders_risk();
    json["streams"][0]["historyRetention"] = json!("1h");
    let only = error(
        "streams[0].historyRetention",
        "only a table has values that are replaced",
        "leave it out, or declare the topic in `tables`",
    );
    assert_eq!(errors(json), [only]);

    let suppress = json!({"suppress": {"store": "s", "untilTimeLimit": "1m"}});
    let mut json = orders_risk();
    json["pipelines"][0]["steps"] = json!([suppress]);
    let only = error(
        "pipelines[0].steps[0].suppress",
        "`suppress` goes only behind a table",
        "leave it out",
    );
    assert_eq!(errors(json), [only]);

    let joined = |retention: Option<&str>, changes: Json| {
        let mut json = orders_risk();
        let mut table = json["streams"][0].clone();
        (table["name"], table["topic"]) = (json!("t"), json!("t.v1"));
        if let Some(retention) = retention {
            table["historyRetention"] = json!(retention);
        }
        json["tables"] = json!([table]);
        let mut join = json!({"with": "t", "expression": "left.amountInCents"});
        join.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        json["pipelines"][0]["steps"] = json!([{"join": join}]);
        json["pipelines"][0]["to"]["value"]["serde"] = json!("Long");
        json
    };
    let held = json!({"grace": "1m", "name": "held"});
    let plan = planned(joined(Some("1h"), held.clone()));
    let stores: Vec<_> = plan.sub_topologies[0]
        .stores
        .iter()
        .map(|store| store.windows)
        .collect();
    let wanted = [
        Windows::Versions {
            retention_ms: 3_600_000,
        },
        Windows::Held { grace_ms: 60_000 },
    ];
    assert_eq!(stores, wanted.map(Some));
    let only = error(
        "pipelines[0].steps[0].join.grace",
        "records wait for a table that knows what it had at their time, and `t` keeps the last values only",
        "give the table `historyRetention`, or leave `grace` out",
    );
    assert_eq!(errors(joined(None, held)), [only]);
    let only = error(
        "pipelines[0].steps[0].join.name",
        "records wait in a store, which needs a name",
        "add `name`",
    );
    assert_eq!(errors(joined(Some("1h"), json!({"grace": "1m"}))), [only]);
}

/// Orders that are aggregated with payments.
fn together(aggregate: Json) -> Json {
    let mut json = orders_risk();
    let payment = json!({"name": "Payment", "fields": {"paid": "int", "note": "string"}});
    json["types"].as_array_mut().unwrap().push(payment);
    let mut payments = json["streams"][0].clone();
    payments["name"] = json!("payments");
    payments["topic"] = json!("payments.v1");
    payments["value"]["type"] = json!("Payment");
    payments.as_object_mut().unwrap().remove("timestamp");
    json["streams"].as_array_mut().unwrap().push(payments);
    let keyed = json!({"name": "keyed", "from": "payments", "steps": [{"selectKey": "value.note"}]});
    json["pipelines"].as_array_mut().unwrap().push(keyed);
    json["pipelines"][0]["steps"] = json!([
        {"selectKey": "value.customerId"},
        {"groupByKey": {}},
        {"aggregate": aggregate},
        {"toStream": {}},
    ]);
    json
}

#[test]
fn streams_that_are_aggregated_together_meet_behind_their_cuts() {
    let fields = json!({
        "orders": {"initial": "0", "add": "aggregate.orders + 1"},
        "open": {"initial": "0", "add": "aggregate.open + value.amountInCents"},
    });
    let other = json!({"with": "keyed", "fields": {"open": "aggregate.open - value.paid"}});
    let plan = planned(together(
        json!({"store": "open", "fields": fields, "cogroup": [other]}),
    ));
    let topics: Vec<_> = plan
        .sub_topologies
        .iter()
        .map(|sub| {
            sub.sources
                .iter()
                .map(|source| source.topic.to_string())
                .collect::<Vec<_>>()
        })
        .collect();
    let repartition = |name: &str| format!("<application.id>-{name}-repartition");
    assert_eq!(
        topics.last().unwrap(),
        &[repartition("open"), repartition("open-keyed")]
    );
    let last = plan.sub_topologies.last().unwrap();
    let Format::Row(Type::Struct(carried)) = &last.sources[1].value else {
        panic!("{:?}", last.sources[1].value)
    };
    assert_eq!(field_names(carried), ["paid"]);
    assert_eq!(last.stores.len(), 1);
}

#[test]
fn each_rule_of_streams_that_are_aggregated_together_has_its_error() {
    let one = |cogroup: Json| {
        let aggregate =
            json!({"store": "open", "initial": "0", "add": "aggregate + 1", "cogroup": [cogroup]});
        let mut json = together(aggregate);
        json["pipelines"][0]["to"]["value"]["serde"] = json!("Long");
        errors(json)
    };
    let fields = |cogroup: Json| {
        let fields = json!({"orders": {"initial": "0", "add": "aggregate.orders + 1"}});
        errors(together(
            json!({"store": "open", "fields": fields, "cogroup": [cogroup]}),
        ))
    };
    let at = |field: &str| format!("pipelines[0].steps[2].aggregate.cogroup[0]{field}");
    for (found, field, message, help) in [
        (
            one(json!({"with": "payment", "add": "aggregate"})),
            ".with",
            "unknown stream, table or pipeline `payment`",
            "did you mean `payments`?",
        ),
        (
            one(json!({"with": "keyed", "add": "1.5"})),
            ".add",
            "`add` has type double, but the aggregate has type int",
            "begin with a double, e.g. `0.0`, or convert with `int(…)`",
        ),
        (
            one(json!({"with": "keyed", "fields": {"orders": "1"}})),
            "",
            "the aggregate is one value: say what becomes of it with a record of this stream",
            "write `add`, and only that",
        ),
        (
            fields(json!({"with": "keyed", "add": "aggregate"})),
            "",
            "the aggregate has `fields`: say which of them a record of this stream changes",
            "write `fields`, and only that",
        ),
        (
            fields(json!({"with": "keyed", "fields": {"order": "1"}})),
            ".fields.order",
            "the aggregate has no field `order`",
            "did you mean `orders`?",
        ),
    ] {
        // Whoever is not read, since the name is wrong, is told, too.
        let found: Vec<_> = found
            .into_iter()
            .filter(|(path, ..)| *path == at(field))
            .collect();
        assert_eq!(found, [error(&at(field), message, help)]);
    }
    let mut json = together(json!({"store": "open", "initial": "0", "add": "aggregate + 1",
        "cogroup": [{"with": "keyed", "add": "aggregate"}]}));
    json["pipelines"][1]["steps"] = json!([{"selectKey": "value.paid"}]);
    json["pipelines"][0]["to"]["value"]["serde"] = json!("Long");
    let message = "keys of `keyed` have type int, those here string";
    let wanted = error(&at(".with"), message, "give both the same key with `selectKey`");
    assert_eq!(errors(json), [wanted]);
}
