//! Joins and merges: what becomes one sub-topology, and what is refused.

use super::*;
use crate::plan::{JoinWindows, Windows};

/// Orders, payments and customers under String keys, and one pipeline `p` that reads `orders`.
fn shop(steps: Json) -> Json {
    let source = |name: &str, ty: &str| json!({"name": name, "topic": format!("{name}.v1"), "key": {"serde": "String"}, "value": {"serde": "Json", "type": ty}});
    json!({
        "language": "v1",
        "types": [
            {"name": "Order", "fields": {"customer": "string", "amount": "int", "note": "string?"}},
            {"name": "Payment", "fields": {"order": "string", "paid": "int"}},
            {"name": "Customer", "fields": {"name": "string", "limit": "int?"}},
        ],
        "streams": [source("orders", "Order"), source("payments", "Payment"), source("returns", "Order")],
        "tables": [source("customers", "Customer"), source("regions", "Customer")],
        "pipelines": [
            {"name": "p", "from": "orders", "steps": steps, "to": {"topic": "out", "value": {"serde": "Json"}}},
            // All are read.
            {"name": "rest", "from": "payments", "to": {"topic": "rest", "value": {"serde": "Json"}}},
            {"name": "back", "from": "returns", "to": {"topic": "back", "value": {"serde": "Json"}}},
            {"name": "who", "from": "customers", "steps": [{"toStream": {}}], "to": {"topic": "who", "value": {"serde": "Json"}}},
            {"name": "where", "from": "regions", "steps": [{"toStream": {}}], "to": {"topic": "where", "value": {"serde": "Json"}}},
        ],
    })
}

fn names(plan: &Plan) -> Vec<(&str, Vec<String>)> {
    let sources = |sub: &SubTopology| {
        sub.sources
            .iter()
            .map(|source| source.topic.to_string())
            .collect()
    };
    let subs = plan.sub_topologies.iter();
    subs.map(|sub| (sub.name.as_str(), sources(sub))).collect()
}

#[test]
fn a_stream_and_a_table_become_one_sub_topology_behind_the_cut() {
    let join = json!({"with": "customers", "name": "who-ordered", "fields": {"amount": "left.amount", "name": "right.name"}});
    let plan = planned(shop(json!([{"selectKey": "value.customer"}, {"join": join}])));
    let read = |topic: &str| vec![topic.to_owned()];
    let repartition = "<application.id>-who-ordered-left-repartition";
    assert_eq!(
        names(&plan),
        [
            ("orders", read("orders.v1")),
            ("payments", read("payments.v1")),
            ("returns", read("returns.v1")),
            ("regions", read("regions.v1")),
            (
                "who-ordered-left",
                vec![repartition.to_owned(), "customers.v1".to_owned()]
            ),
        ]
    );
    let joined = plan.sub_topologies.last().unwrap();
    assert_eq!(
        shape(joined),
        [
            ("forward", vec![3]),
            ("forward", vec![2]),
            ("table", vec![5]),
            ("join with table", vec![4]),
            ("sink", vec![]),
            ("forward", vec![6]),
            ("sink", vec![]),
        ]
    );
    // What travels is what the join reads; the table keeps all.
    let Format::Row(Type::Struct(carried)) = &joined.sources[0].value else {
        panic!("{:?}", joined.sources[0].value)
    };
    assert_eq!(field_names(carried), ["amount"]);
    let Type::Struct(kept) = &joined.stores[0].value else {
        panic!("{}", joined.stores[0].value)
    };
    assert_eq!(field_names(kept), ["limit", "name"]);
    let text = plan.describe();
    assert!(
        text.contains(
            "one task per partition of <application.id>-who-ordered-left-repartition and customers.v1"
        ),
        "{text}"
    );
    assert!(
        text.contains("join with customers -> join{amount: int, name: string}"),
        "{text}"
    );
}

#[test]
fn both_streams_lead_into_one_store_and_one_way_on() {
    let join = json!({
        "with": "payments", "name": "paid", "within": "1h", "grace": "1m",
        "fields": {"amount": "left.amount", "paid": "right == null ? 0 : right.paid"},
    });
    let plan = planned(shop(json!([{"leftJoin": join}])));
    let joined = &plan.sub_topologies[0];
    assert_eq!(
        names(&plan)[0],
        ("orders", vec!["orders.v1".to_owned(), "payments.v1".to_owned()])
    );
    assert_eq!(
        shape(joined),
        [
            ("forward", vec![2]),
            ("forward", vec![3, 6]),
            ("join of streams", vec![4]),
            ("join of streams", vec![4]),
            ("forward", vec![5]),
            ("sink", vec![]),
            ("sink", vec![]),
        ]
    );
    let windows = Windows::Join(JoinWindows {
        before_ms: 3_600_000,
        after_ms: 3_600_000,
        grace_ms: 60_000,
    });
    assert_eq!(joined.stores[0].windows, Some(windows));
    assert!(
        plan.describe()
            .contains("right up to 1h before and 1h after left, grace 1m")
    );
}

#[test]
fn what_is_joined_in_later_renames_no_task() {
    let customers = |name: &str| json!({"join": {"with": "customers", "name": name, "expression": "left"}});
    // A table that was read by itself before.
    let plan = planned(shop(json!([{"selectKey": "value.customer"}, customers("j")])));
    let joined = |plan: &Plan| {
        let mut subs = plan.sub_topologies.iter();
        let sub = subs.find(|sub| sub.stores.iter().any(|store| store.name == "customers"));
        sub.map(|sub| sub.name.clone()).unwrap()
    };
    assert_eq!(joined(&plan), "j-left");
    // Another pipeline that joins the same table, behind a cut.
    let mut json = shop(json!([customers("of-orders")]));
    assert_eq!(joined(&planned(json.clone())), "orders");
    json["pipelines"][1]["steps"] = json!([{"selectKey": "value.order"}, customers("of-payments")]);
    let plan = planned(json);
    assert_eq!(joined(&plan), "orders");
    let topics = [
        "orders.v1",
        "customers.v1",
        "<application.id>-of-payments-left-repartition",
    ];
    assert!(names(&plan).contains(&("orders", topics.map(str::to_owned).to_vec())));
}

#[test]
fn two_changed_keys_meet_behind_two_cuts() {
    let join = json!({"with": "keyed", "name": "j", "within": "1h", "grace": "1m", "expression": "left"});
    let mut json = shop(json!([{"selectKey": "value.customer"}, {"join": join}]));
    let keyed = json!({"name": "keyed", "from": "payments", "steps": [{"selectKey": "value.order"}]});
    json["pipelines"].as_array_mut().unwrap().push(keyed);
    let plan = planned(json);
    let last = names(&plan).pop();
    let topics = ["left", "right"].map(|side| format!("<application.id>-j-{side}-repartition"));
    assert_eq!(last, Some(("j-left", topics.to_vec())));
    assert_eq!(plan.sub_topologies.len(), 6, "orders and payments stay apart");
}

#[test]
fn merged_streams_carry_the_same_fields() {
    let steps =
        json!([{"merge": {"with": ["returns"]}}, {"mapValues": {"fields": {"amount": "value.amount"}}}]);
    let mut json = shop(steps);
    json["pipelines"][2]["steps"] = json!([{"mapValues": {"fields": {"note": "value.note"}}}]);
    let plan = planned(json);
    let merged = &plan.sub_topologies[0];
    assert_eq!(
        names(&plan)[0],
        ("orders", vec!["orders.v1".to_owned(), "returns.v1".to_owned()])
    );
    // The second one reads `note`, too, and leaves it out before they meet.
    assert_eq!(
        shape(merged),
        [
            ("forward", vec![3]),
            ("forward", vec![2, 6]),
            ("mapValues", vec![3]),
            ("forward", vec![4]),
            ("mapValues", vec![5]),
            ("sink", vec![]),
            ("mapValues", vec![7]),
            ("sink", vec![]),
        ]
    );
}

#[test]
fn the_join_of_tables_is_one_itself() {
    let first = json!({"with": "regions", "name": "placed", "expression": "left"});
    let second = json!({"with": "placed", "expression": "right"});
    let mut json = shop(json!([{"join": second}]));
    json["pipelines"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "placed", "from": "customers", "steps": [{"join": first}]}));
    let plan = planned(json.clone());
    let subs = plan.sub_topologies.iter();
    let stores: Vec<_> = subs
        .flat_map(|sub| &sub.stores)
        .map(|store| store.name.as_str())
        .collect();
    assert_eq!(stores, ["customers", "regions", "placed"]);

    json["pipelines"][5]["steps"][0]["join"]
        .as_object_mut()
        .unwrap()
        .remove("name");
    let message = "the values of `placed` are not kept: they cannot be looked up";
    let wanted = error(
        "pipelines[0].steps[0].join.with",
        message,
        "keep them: add the step `toTable: {store: …}`",
    );
    assert_eq!(errors(json.clone()), [wanted]);

    let steps = json["pipelines"][5]["steps"].as_array_mut().unwrap();
    steps.push(json!({"toTable": {"store": "placed"}}));
    planned(json);
}

#[test]
fn what_a_value_names_is_asked_for_where_it_is_kept() {
    let mut json = shop(json!([]));
    let join =
        json!({"with": "regions", "name": "region-of", "foreignKey": "value.name", "expression": "right"});
    json["pipelines"][3]["steps"] = json!([{"leftJoin": join}, {"toStream": {}}]);
    json["pipelines"][3]["steps"][0]["leftJoin"]["expression"] = json!("left");
    let plan = planned(json);
    let sub = |name: &str| plan.sub_topologies.iter().find(|sub| sub.name == name).unwrap();
    let (own, other) = (sub("customers"), sub("regions"));
    let read = |sub: &SubTopology| {
        let sources = sub.sources.iter();
        sources.map(|source| source.topic.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        read(own),
        ["customers.v1", "<application.id>-region-of-responses-repartition"]
    );
    assert_eq!(
        read(other),
        [
            "regions.v1",
            "<application.id>-region-of-subscriptions-repartition"
        ]
    );
    let stores = |sub: &SubTopology| {
        sub.stores
            .iter()
            .map(|store| store.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(stores(own), ["customers", "region-of"]);
    assert_eq!(stores(other), ["regions", "region-of-subscriptions"]);
    assert!(other.is_ordered(1) && !other.is_ordered(0));
}

#[test]
fn each_rule_of_foreign_keys_has_its_error() {
    let good = json!({"with": "regions", "name": "n", "foreignKey": "value.name", "expression": "left"});
    for (kind, changes, field, message, help) in [
        (
            "outerJoin",
            json!({}),
            "",
            "with `foreignKey` there is no outer join: nothing says of a value of the other table that it has no partner",
            "write `leftJoin`",
        ),
        (
            "join",
            json!({"name": null}),
            ".name",
            "with `foreignKey`, updates go through repartition topics, which need a name",
            "add `name`",
        ),
        (
            "join",
            json!({"foreignKey": "value.limit"}),
            ".foreignKey",
            "keys of `regions` have type string, the expression has type int?",
            "",
        ),
        (
            "join",
            json!({"foreignKey": "string(ts)"}),
            ".foreignKey",
            "`ts`, `headers` and the like are those of an update, and a table's value has none when it is computed again",
            "put it into the value before the table",
        ),
        (
            "join",
            json!({"grace": "1s"}),
            ".grace",
            "`grace` is for two streams, `regions` is a table",
            "leave it out",
        ),
        (
            "join",
            json!({"with": "orders"}),
            ".foreignKey",
            "only a value of a table names a key of another table",
            "choose the stream's key with `selectKey`, or make both sides tables",
        ),
    ] {
        let mut join = good.clone();
        join.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        let mut json = shop(json!([]));
        json["pipelines"][3]["steps"] = json!([{kind: join}, {"toStream": {}}]);
        let wanted = error(&format!("pipelines[3].steps[0].{kind}{field}"), message, help);
        assert_eq!(errors(json), [wanted], "{message}");
    }
}

#[test]
fn each_rule_of_joins_has_its_error() {
    let good = json!({"with": "customers", "expression": "left"});
    let case = |kind: &str, changes: Json| {
        let mut join = good.clone();
        join.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        errors(shop(json!([{kind: join}])))
    };
    let at = |kind: &str, field: &str| format!("pipelines[0].steps[0].{kind}{field}");
    for (kind, changes, field, message, help) in [
        (
            "outerJoin",
            json!({}),
            "",
            "`customers` is a table: a stream and a table have no outer join",
            "write `leftJoin`; an update of the table alone is no record of the stream",
        ),
        (
            "join",
            json!({"within": "1m"}),
            ".within",
            "`within` is for two streams, `customers` is a table",
            "leave it out",
        ),
        (
            "join",
            json!({"with": "customer"}),
            ".with",
            "unknown stream, table or pipeline `customer`",
            "did you mean `customers`?",
        ),
        (
            "join",
            json!({"with": "payments"}),
            ".within",
            "two streams are joined, and that needs `within`: how far apart records may be that are joined",
            "",
        ),
        (
            "join",
            json!({"with": "payments", "within": "1m"}),
            ".grace",
            "two streams are joined, and that needs `grace`: how much later than others a record may come",
            "",
        ),
        (
            "join",
            json!({"with": "payments", "within": "1m", "grace": "0s"}),
            ".name",
            "two streams are joined, and that needs `name`: the name of the store that keeps the records of both",
            "",
        ),
        (
            "join",
            json!({"with": "payments", "name": "n", "within": "1m", "before": "1m", "after": "1m", "grace": "0s"}),
            ".within",
            "`within` is the default of `before` and `after`, and both are given",
            "leave it out",
        ),
        (
            "join",
            json!({"expression": "value"}),
            ".expression",
            "there is no `value` here: a join has a value on each side",
            "write `left` or `right`",
        ),
        (
            "leftJoin",
            json!({"expression": "right.name"}),
            ".expression",
            "`right` may be absent: it has type Customer?",
            "test `right != null` first, or write `right.?name`",
        ),
        (
            "leftJoin",
            json!({"expression": "right"}),
            ".expression",
            "a value cannot be absent, the expression has type Customer?",
            "write `has(x) ? x : default`",
        ),
        (
            "join",
            json!({"fields": {"a": "left"}}),
            "",
            "`join` needs exactly one of `fields` and `expression`",
            "",
        ),
    ] {
        assert_eq!(
            case(kind, changes),
            [error(&at(kind, field), message, help)],
            "{message}"
        );
    }

    let keyed = |step: Json| errors(shop(json!([{"selectKey": "value.amount"}, step])));
    let message = "keys of `customers` have type string, those here int: only equal keys are joined";
    let wanted = error(
        "pipelines[0].steps[1].join.with",
        message,
        "give both the same key with `selectKey`",
    );
    assert_eq!(keyed(json!({"join": good})), [wanted]);
    let unnamed = errors(shop(json!([{"selectKey": "value.customer"}, {"join": good}])));
    let message = "records go through a repartition topic here, which needs a name: a key was changed before, or is an Integer";
    assert_eq!(
        unnamed,
        [error("pipelines[0].steps[1].join", message, "add `name`")]
    );

    let merge = |with: Json| errors(shop(json!([{"merge": {"with": with}}])));
    for (with, at, message, help) in [
        (json!([]), "", "nothing to merge with", ""),
        (
            json!(["customers"]),
            "[0]",
            "`customers` is a table, only streams are merged",
            "",
        ),
        (
            json!(["payments"]),
            "[0]",
            "values of `payments` have type Payment, those here Order, which has other fields",
            "",
        ),
        (
            json!(["retuns"]),
            "[0]",
            "unknown stream, table or pipeline `retuns`",
            "did you mean `returns`?",
        ),
    ] {
        let path = format!("pipelines[0].steps[0].merge.with{at}");
        assert_eq!(merge(with), [error(&path, message, help)]);
    }

    let mut json = shop(json!([{"join": good}]));
    json["tables"][0]["offsetReset"] = json!("Latest");
    let message = "a table is read from its first record on: otherwise it lacks what was written before";
    assert_eq!(
        errors(json),
        [error("tables[0].offsetReset", message, "leave it out")]
    );

    let mut json =
        shop(json!([{"toTable": {"store": "last"}}, {"join": {"with": "payments", "expression": "left"}}]));
    json["pipelines"][0].as_object_mut().unwrap().remove("to");
    json["pipelines"][1]["from"] = json!("p");
    let message = "`payments` is a stream: a table is joined with tables";
    let help = "make it a table with `toTable`, or this one a stream with `toStream: {}`";
    assert_eq!(
        errors(json)[0],
        error("pipelines[0].steps[1].join.with", message, help)
    );
}

#[test]
fn names_of_joins_are_names_of_topics() {
    let join = json!({"with": "customers", "name": "orders", "expression": "left"});
    let message = "the name `orders` is already taken by a stream";
    assert_eq!(
        errors(shop(json!([{"join": join}]))),
        [error("pipelines[0].steps[0].join.name", message, "")]
    );
    // The repartition topic of a side.
    let steps = json!([
        {"selectKey": "value.customer"},
        {"join": {"with": "customers", "name": "j", "expression": "left"}},
        {"deduplicate": {"store": "j-left", "within": "1m"}},
    ]);
    let message = "the name `j-left` is already taken by a join";
    assert_eq!(
        errors(shop(steps)),
        [error("pipelines[0].steps[2].deduplicate.store", message, "")]
    );
    // The other way round.
    let steps = json!([
        {"deduplicate": {"store": "j-left", "within": "1m"}},
        {"selectKey": "value.customer"},
        {"join": {"with": "customers", "name": "j", "expression": "left"}},
    ]);
    let message = "the name `j-left` is already taken by a store";
    assert_eq!(
        errors(shop(steps)),
        [error("pipelines[0].steps[2].join.name", message, "")]
    );
}

/// Found by a topology made at random: the windows of a key outlived it.
#[test]
fn a_key_that_is_chosen_behind_windows_has_none() {
    let source = |name: &str| json!({"name": name, "topic": name, "key": {"serde": "String"}, "value": {"serde": "Long"}});
    let key = |step: Json| {
        json!({
            "language": "v1",
            "streams": [source("a"), source("b")],
            "pipelines": [{
                "name": "p", "from": "a", "to": {"topic": "out", "value": {"serde": "Long"}},
                "steps": [
                    {"groupByKey": {}},
                    {"windowedBy": {"tumbling": {"size": "1m", "grace": "0s"}}},
                    {"count": {"store": "counts"}},
                    {"toStream": {}},
                    step,
                    {"merge": {"with": ["b"]}},
                ],
            }],
        })
    };
    planned(key(json!({"selectKey": "key.key"})));
    planned(key(json!({"map": {"key": "key.key", "expression": "value"}})));
}
