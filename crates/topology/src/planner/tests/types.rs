//! Declared record types.

use super::*;

#[test]
fn record_types_nest_but_never_contain_themselves() {
    let types = json!([
        {"name": "Order", "fields": {
            "customerId": "string", "amountInCents": "int", "submittedAt": "timestampMillis", "to": "Address?"
        }},
        {"name": "Address", "fields": {"city": "string"}}
    ]);
    let mut json = with("/types", types);
    json["pipelines"][0]["steps"][0]["selectKey"] = json!("has(value.to) ? value.to.city : ''");
    let plan = planned(json.clone());
    let Format::Json(read) = &plan.sub_topologies[0].sources[0].value else {
        panic!()
    };
    assert_eq!(field_names(read), ["amountInCents", "submittedAt", "to"]);

    json["types"][1]["fields"]["again"] = json!("Order?");
    assert_eq!(
        errors(json)[0],
        error("types[1].fields.again", "type `Order` contains itself", "")
    );
}

#[test]
fn fields_can_be_lists_and_maps() {
    let types = json!([
        {"name": "Order", "fields": {
            "customerId": "string", "submittedAt": "timestampMillis", "lines": "list(Line)",
            "labels": "map(string, list(string))?"
        }},
        {"name": "Line", "fields": {"amountInCents": "int"}}
    ]);
    let mut json = with("/types", types);
    let steps = &mut json["pipelines"][0]["steps"];
    steps[0]["selectKey"] = json!("value.?labels.tenant.orValue(['']).join('/')");
    steps[2]["aggregate"]["add"] =
        json!("value.lines.exists(line, line.amountInCents < 0) ? 0 : aggregate + 1");
    let plan = planned(json.clone());
    let Format::Json(read) = &plan.sub_topologies[0].sources[0].value else {
        panic!()
    };
    assert_eq!(field_names(read), ["labels", "lines", "submittedAt"]);
    assert!(
        plan.describe()
            .contains("labels: map(string, list(string))?, lines: list(Line)")
    );

    json["types"][1]["fields"] =
        json!({"amountInCents": "int", "a": "list(Lin)", "b": "map(int, string)", "c": "list(Line)"});
    let expected = [
        error("types[1].fields.a", "unknown type `Lin`", "did you mean `Line`?"),
        error(
            "types[1].fields.b",
            "a map's keys are strings, as JSON's are, not int",
            "",
        ),
        error("types[1].fields.c", "type `Line` contains itself", ""),
    ];
    assert_eq!(errors(json)[..3], expected);
}

#[test]
fn keys_of_32_bits_are_kept_as_long_behind_a_repartition_topic() {
    let app = |source: &str, steps: Json, to: Json| {
        json!({
            "language": "v1",
            source: [{"name": "in", "topic": "in.v1", "key": {"serde": "Integer"}, "value": {"serde": "Double"}}],
            "pipelines": [{"name": "p", "from": "in", "steps": steps, "to": to}]
        })
    };
    let to = |key: &str| json!({"topic": "out.v1", "key": {"serde": key}, "value": {"serde": "Double"}});
    let sum = || json!([{"groupByKey": {}}, {"sum": {"store": "by-key", "of": "value"}}, {"toStream": {}}]);
    let plan = planned(app("streams", sum(), to("Integer")));
    let [first, second] = plan.sub_topologies.as_slice() else {
        panic!("{plan:?}")
    };
    let keys = |sub: &SubTopology| (sub.sources[0].key.clone(), sub.sinks[0].key.clone());
    assert_eq!(keys(first), (Format::Integer, Format::Long));
    assert_eq!(keys(second), (Format::Long, Format::Integer));
    assert_eq!(
        (&second.stores[0].key, &second.sinks[0].value),
        (&Format::Long, &Format::Double)
    );

    let stateless = planned(app("streams", json!([{"filter": "value > 0.5"}]), to("Integer")));
    assert_eq!(stateless.sub_topologies.len(), 1);

    let found = errors(app("tables", json!([{"toStream": {}}]), to("Integer")));
    assert_eq!(
        found,
        [error(
            "tables[0].key.serde",
            "keys are kept as Long, so values of Integer keys would lie in other partitions than what is joined with them",
            "declare the topic in `streams`, and make it a table with `toTable: {store: …}`"
        )]
    );
    let found = errors(app("streams", json!([]), to("UUID")));
    assert_eq!(
        found,
        [error(
            "pipelines[0].to.key.serde",
            "the key has type int, which UUID does not write",
            "write `serde: Long`, or leave `key` out"
        )]
    );
}

#[test]
fn values_of_kafkas_own_encodings_have_one_type_each() {
    for (serde, ty) in [
        ("String", Type::String),
        ("Bytes", Type::Bytes),
        ("Long", Type::Int),
        ("Integer", Type::Int),
        ("Double", Type::Double),
        ("Boolean", Type::Bool),
        ("UUID", Type::String),
    ] {
        let plan = planned(json!({
            "language": "v1",
            "streams": [{"name": "in", "topic": "in.v1", "key": {"serde": "UUID"}, "value": {"serde": serde}}],
            "pipelines": [{"name": "p", "from": "in", "to": {"topic": "out.v1", "value": {"serde": serde}}}]
        }));
        let sub = &plan.sub_topologies[0];
        assert_eq!(
            (sub.sources[0].value.name(), sub.sources[0].value.ty()),
            (Some(serde), ty)
        );
        assert_eq!(sub.sinks[0].value, sub.sources[0].value);
        assert_eq!(
            (sub.sources[0].key.name(), &sub.sinks[0].key),
            (Some("UUID"), &Format::String)
        );
    }
}

/// Whatever finds something by a key finds it by the one encoding that all keys of a type have there.
#[test]
fn no_task_that_keeps_something_reads_keys_of_32_bits() {
    let to = json!({"topic": "out", "key": {"serde": "Integer"}, "value": {"serde": "Long"}});
    let count = json!({"count": {"store": "s"}});
    let windows =
        json!({"with": "longs", "name": "j", "within": "1s", "grace": "1s", "expression": "left + right"});
    for steps in [
        json!([{"groupByKey": {}}, count, {"toStream": {}}]),
        json!([{"groupByKey": {}}, {"windowedBy": {"tumbling": {"size": "1s", "grace": "0ms"}}}, count, {"toStream": {}},
               {"selectKey": "key.key"}]),
        json!([{"deduplicate": {"store": "s", "within": "1s"}}]),
        json!([{"toTable": {"store": "s"}}, {"toStream": {}}]),
        json!([{"filter": "true"}, {"merge": {"with": ["longs"]}}, {"groupByKey": {}}, count, {"toStream": {}}]),
        json!([{"join": {"with": "table", "name": "j", "expression": "left + right"}}]),
        json!([{"join": windows}]),
        json!([{"groupByKey": {}}, {"aggregate": {"store": "s", "initial": "0", "add": "aggregate + value",
               "cogroup": [{"with": "longs", "add": "aggregate - value"}]}}, {"toStream": {}}]),
    ] {
        for (from, with) in [("Integer", "Long"), ("Long", "Integer")] {
            let source = |name: &str, key: &str| json!({"name": name, "topic": name, "key": {"serde": key}, "value": {"serde": "Long"}});
            let plan = planned(json!({
                "language": "v1",
                "streams": [source("in", from), source("longs", with)],
                "tables": [source("table", "Long")],
                "pipelines": [
                    {"name": "p", "from": "in", "steps": steps, "to": to},
                    {"name": "q", "from": "longs", "to": to},
                    {"name": "r", "from": "table", "steps": [{"toStream": {}}], "to": to}
                ]
            }));
            for sub in plan.sub_topologies.iter().filter(|sub| !sub.stores.is_empty()) {
                let keys: Vec<_> = sub.sources.iter().map(|source| &source.key).collect();
                assert!(keys.iter().all(|key| **key == Format::Long), "{steps}: {keys:?}");
            }
        }
    }
}

#[test]
fn how_keys_of_32_bits_are_written_has_to_be_said() {
    let app = |steps: Json| {
        json!({
            "language": "v1",
            "streams": [
                {"name": "in", "topic": "in.v1", "key": {"serde": "Integer"}, "value": {"serde": "Long"}},
                {"name": "longs", "topic": "longs.v1", "key": {"serde": "Long"}, "value": {"serde": "Long"}}
            ],
            "pipelines": [
                {"name": "p", "from": "in", "steps": steps, "to": {"topic": "out.v1", "value": {"serde": "Long"}}},
                {"name": "q", "from": "longs", "to": {"topic": "out.v1", "value": {"serde": "Long"}}}
            ]
        })
    };
    for steps in [
        json!([]),
        json!([{"filter": "value > 0"}]),
        json!([{"merge": {"with": ["longs"]}}]),
    ] {
        assert_eq!(
            errors(app(steps)),
            [error(
                "pipelines[0].to.key",
                "keys are read as Integer: say whether they are written so, or as Long",
                "add `key: {serde: Integer}`"
            )]
        );
    }
    // Others are not those that were read.
    for steps in [
        json!([{"selectKey": "value"}]),
        json!([{"groupByKey": {}}, {"count": {"store": "s"}}, {"toStream": {}}]),
        json!([{"deduplicate": {"store": "s", "within": "1s"}}]),
    ] {
        let plan = planned(app(steps));
        let mut sinks = plan.sub_topologies.iter().flat_map(|sub| &sub.sinks);
        assert!(sinks.all(|sink| sink.key == Format::Long));
    }
    // With all that is wrong beside it.
    let mut json = app(json!([]));
    json["pipelines"][0]["to"]["value"]["serde"] = json!("String");
    assert_eq!(errors(json).len(), 2);
}
