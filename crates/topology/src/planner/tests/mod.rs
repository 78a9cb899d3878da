//! Plans of declarations; and what the other tests are made of.

mod errors;
mod joins;
mod policies;
mod tables;
mod types;

use serde_json::{Value as Json, json};

use super::plan;
use super::resolve::NO_AGGREGATION;
use crate::declaration::Topology;
use crate::plan::{Format, OffsetReset, OnBadRecord, Op, Plan, SubTopology, TopicName};
use crate::{PlanError, StructType, Type, ValueReads};

/// The example of the design: `examples/orders-risk/app.yaml`.
fn orders_risk() -> Json {
    json!({
        "language": "v1",
        "types": [{"name": "Order", "fields": {
            "orderId": "string", "customerId": "string", "amountInCents": "int", "note": "string?",
            "submittedAt": "timestampMillis"
        }}],
        "streams": [{
            "name": "orders", "topic": "orders.submitted.v1", "key": {"serde": "String"},
            "value": {"serde": "Json", "type": "Order"}, "timestamp": "value.submittedAt"
        }],
        "pipelines": [{
            "name": "exposure", "from": "orders",
            "steps": [
                {"selectKey": "value.customerId"},
                {"groupByKey": {}},
                {"aggregate": {"store": "by-customer", "initial": "0", "add": "aggregate + value.amountInCents"}},
                {"toStream": {}},
                {"filter": "value >= 1000000"},
                {"mapValues": {"fields": {"exposure": "value", "customerId": "key"}}}
            ],
            "to": {"topic": "risk.decisions.v1", "value": {"serde": "Json"}}
        }]
    })
}

fn declared(json: Json) -> Topology {
    serde_json::from_value(json).unwrap()
}

fn planned(json: Json) -> Plan {
    plan(&declared(json)).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

/// Path, message and suggestion of each error.
fn errors(json: Json) -> Vec<(String, String, String)> {
    let errors = plan(&declared(json)).map(|plan| plan.describe()).unwrap_err();
    errors
        .into_iter()
        .map(
            |PlanError {
                 path,
                 message,
                 suggestion,
                 ..
             }| {
                (
                    path.to_string().replace("spec.topology.", ""),
                    message,
                    suggestion.unwrap_or_default(),
                )
            },
        )
        .collect()
}

fn error(path: &str, message: &str, suggestion: &str) -> (String, String, String) {
    (path.to_owned(), message.to_owned(), suggestion.to_owned())
}

/// The document with one place changed.
fn with(pointer: &str, value: Json) -> Json {
    let mut json = orders_risk();
    *json.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
    json
}

fn field_names(ty: &StructType) -> Vec<&str> {
    ty.fields.iter().map(|field| field.name.as_str()).collect()
}

/// Operators as words, each with its children.
fn shape(sub: &SubTopology) -> Vec<(&'static str, Vec<usize>)> {
    let word = |op: &Op| match op {
        Op::Forward => "forward",
        Op::Filter(_) => "filter",
        Op::FilterNot(_) => "filterNot",
        Op::FilterTable { .. } => "filter of a table",
        Op::MapTable(_) => "mapValues of a table",
        Op::GroupTable { .. } => "groupBy of a table",
        Op::SelectKey(_) => "selectKey",
        Op::MapValues(_) => "mapValues",
        Op::Map { .. } => "map",
        Op::FlatMapValues(_) => "flatMapValues",
        Op::Aggregate { .. } => "aggregate",
        Op::Deduplicate { .. } => "deduplicate",
        Op::Table { .. } => "table",
        Op::Suppress { .. } => "suppress",
        Op::JoinTable { .. } => "join with table",
        Op::JoinTables { .. } => "join of tables",
        Op::JoinStreams { .. } => "join of streams",
        Op::Subscribe { .. } => "subscribe",
        Op::Register { .. } => "register",
        Op::Notify { .. } => "notify",
        Op::JoinForeignKey { .. } => "join by foreign key",
        Op::Route { .. } => "route",
        Op::Sink(_) => "sink",
    };
    sub.nodes
        .iter()
        .map(|node| (word(&node.op), node.children.clone()))
        .collect()
}

#[test]
fn a_changed_key_cuts_the_topology_and_only_read_fields_travel() {
    let plan = planned(orders_risk());
    let [before, after] = plan.sub_topologies.as_slice() else {
        panic!("{}", plan.describe())
    };

    assert_eq!(
        (before.name.as_str(), after.name.as_str()),
        ("orders", "by-customer")
    );
    assert_eq!(
        before.sources[0].topic,
        TopicName::External("orders.submitted.v1".into())
    );
    assert_eq!(before.sources[0].key, Format::String);
    let Format::Json(read) = &before.sources[0].value else {
        panic!("{:?}", before.sources[0].value)
    };
    assert_eq!(field_names(read), ["amountInCents", "customerId", "submittedAt"]);
    assert!(before.sources[0].timestamp.is_some());
    assert_eq!(
        (before.sources[0].on_bad_record, before.sources[0].offset_reset),
        (OnBadRecord::Fail, OffsetReset::Earliest)
    );
    assert_eq!(
        shape(before),
        [
            ("forward", vec![1]),
            ("selectKey", vec![2]),
            ("mapValues", vec![3]),
            ("sink", vec![])
        ]
    );

    let repartition = &before.sinks[0];
    assert_eq!(repartition.topic, TopicName::Repartition("by-customer".into()));
    assert_eq!(repartition.key, Format::String);
    let Format::Row(Type::Struct(row)) = &repartition.value else {
        panic!("{:?}", repartition.value)
    };
    assert_eq!(field_names(row), ["amountInCents"]);
    let Op::MapValues(projection) = &before.nodes[2].op else {
        panic!("{:?}", before.nodes[2])
    };
    assert_eq!(*projection.ty(), Type::Struct(row.clone()));

    assert_eq!(
        (&after.sources[0].topic, &after.sources[0].key),
        (&repartition.topic, &repartition.key)
    );
    assert_eq!(after.sources[0].value, repartition.value);
    assert!(after.sources[0].timestamp.is_none());
    let kinds = shape(after);
    assert_eq!(
        kinds,
        [
            ("forward", vec![1]),
            ("aggregate", vec![2]),
            ("forward", vec![3]),
            ("filter", vec![4]),
            ("mapValues", vec![5]),
            ("sink", vec![])
        ]
    );
    let store = &after.stores[0];
    assert_eq!(
        (store.name.as_str(), &store.key, &store.value),
        ("by-customer", &Format::String, &Type::Int)
    );
    assert_eq!(store.changelog, TopicName::Changelog("by-customer".into()));
    assert_eq!(store.fingerprint, "d2909fc47a5d9132");
    let sink = &after.sinks[0];
    assert_eq!(
        (&sink.topic, &sink.key),
        (&TopicName::External("risk.decisions.v1".into()), &Format::String)
    );
    let Format::Json(written) = &sink.value else {
        panic!("{:?}", sink.value)
    };
    assert_eq!(field_names(written), ["customerId", "exposure"]);
    assert_eq!(
        after.nodes[3].path.to_string(),
        "spec.topology.pipelines[0].steps[4]"
    );
}

#[test]
fn the_projection_and_the_aggregate_agree_on_slots() {
    use crate::{Scope, Value};
    let plan = planned(orders_risk());
    let arena = bumpalo::Bump::new();
    let order = [Value::Int(700), Value::String("c1"), Value::Timestamp(9)];
    let scope = Scope {
        key: Value::String("o1"),
        value: Value::Struct(&order),
        aggregate: Value::Null,
        ts: 1,
        topic: "orders.submitted.v1",
        partition: 0,
        offset: 0,
        headers: &[],
        arena: &arena,
    };
    let before = &plan.sub_topologies[0];
    assert_eq!(
        before.sources[0].timestamp.as_ref().unwrap().eval(&scope),
        Ok(Value::Timestamp(9))
    );
    let Op::SelectKey(key) = &before.nodes[1].op else {
        panic!()
    };
    assert_eq!(key.eval(&scope), Ok(Value::String("c1")));
    let Op::MapValues(projection) = &before.nodes[2].op else {
        panic!()
    };
    let row = projection.eval(&scope).unwrap();
    assert_eq!(row, Value::Struct(&[Value::Int(700)]));
    let Op::Aggregate { first, add, .. } = &plan.sub_topologies[1].nodes[1].op else {
        panic!()
    };
    assert_eq!(first.expr().eval(&scope), Ok(Value::Int(0)));
    assert_eq!(
        add.eval(&Scope {
            value: row,
            aggregate: Value::Int(5),
            ..scope
        }),
        Ok(Value::Int(705))
    );
}

#[test]
fn an_unchanged_key_needs_no_repartition_topic() {
    let mut json = orders_risk();
    json["pipelines"][0]["steps"].as_array_mut().unwrap().remove(0);
    let plan = planned(json);
    let [only] = plan.sub_topologies.as_slice() else {
        panic!("{}", plan.describe())
    };
    assert_eq!(only.name, "orders");
    assert_eq!((only.stores.len(), only.sinks.len()), (1, 1));
}

#[test]
fn a_map_changes_the_key_and_only_what_it_and_the_key_read_is_parsed() {
    let mut json = orders_risk();
    json["streams"][0].as_object_mut().unwrap().remove("timestamp");
    json["pipelines"][0]["steps"][0] = json!({"map": {
        "key": "value.customerId", "fields": {"amountInCents": "value.amountInCents", "unused": "1"}
    }});
    let plan = planned(json);
    let Format::Json(read) = &plan.sub_topologies[0].sources[0].value else {
        panic!("{}", plan.describe())
    };
    assert_eq!(field_names(read), ["amountInCents", "customerId"]);
    let words: Vec<_> = shape(&plan.sub_topologies[0])
        .into_iter()
        .map(|(word, _)| word)
        .collect();
    assert_eq!(words, ["forward", "map", "mapValues", "sink"]);
    let Format::Row(Type::Struct(row)) = &plan.sub_topologies[1].sources[0].value else {
        panic!("{}", plan.describe())
    };
    assert_eq!(field_names(row), ["amountInCents"]);
}

#[test]
fn pipelines_of_one_stream_share_a_sub_topology_up_to_their_cuts() {
    let mut json = orders_risk();
    let second = json!({
        "name": "notes", "from": "orders",
        "steps": [
            {"filter": "has(value.note)"},
            {"groupByKey": {}},
            {"aggregate": {"store": "notes", "initial": "0", "add": "aggregate + 1"}},
            {"toStream": {}},
            {"selectKey": "string(value)"},
            {"groupByKey": {}},
            {"aggregate": {"store": "by-count", "initial": "0", "add": "aggregate + 1"}},
            {"toStream": {}}
        ],
        "to": {"topic": "notes.v1", "value": {"serde": "Long"}}
    });
    json["pipelines"].as_array_mut().unwrap().push(second);
    let plan = planned(json);
    let names: Vec<_> = plan.sub_topologies.iter().map(|sub| sub.name.as_str()).collect();
    assert_eq!(names, ["orders", "by-customer", "by-count"]);
    let shared = &plan.sub_topologies[0];
    let Format::Json(read) = &shared.sources[0].value else {
        panic!("{:?}", shared.sources[0].value)
    };
    assert_eq!(
        field_names(read),
        ["amountInCents", "customerId", "note", "submittedAt"],
        "what either reads"
    );
    let expected = [
        ("forward", vec![1, 4]),
        ("selectKey", vec![2]),
        ("mapValues", vec![3]),
        ("sink", vec![]),
        ("filter", vec![5]),
        ("aggregate", vec![6]),
        ("forward", vec![7]),
        ("selectKey", vec![8]),
        // Nothing reads the value behind the repartition.
        ("mapValues", vec![9]),
        ("sink", vec![]),
    ];
    assert_eq!(shape(shared), expected);
    let stores: Vec<_> = shared.stores.iter().map(|store| store.name.as_str()).collect();
    assert_eq!((stores, shared.sinks.len()), (vec!["notes"], 2));
}

#[test]
fn a_second_change_of_the_key_cuts_again_and_a_group_can_be_named() {
    let mut json = orders_risk();
    let steps = json["pipelines"][0]["steps"].as_array_mut().unwrap();
    steps.extend([
        json!({"selectKey": "'all'"}),
        json!({"groupByKey": {"name": "everything"}}),
        json!({"aggregate": {"store": "total", "initial": "0", "add": "aggregate + value.exposure"}}),
        json!({"toStream": {}}),
    ]);
    json["pipelines"][0]["to"]["value"]["serde"] = json!("Long");
    let plan = planned(json);
    let names: Vec<_> = plan.sub_topologies.iter().map(|sub| sub.name.as_str()).collect();
    assert_eq!(names, ["orders", "by-customer", "everything"]);
    assert_eq!(
        plan.sub_topologies[1].sinks[0].topic,
        TopicName::Repartition("everything".into())
    );
    assert_eq!(
        plan.sub_topologies[2].stores[0].changelog,
        TopicName::Changelog("total".into())
    );
    assert_eq!(plan.sub_topologies[2].sinks[0].value, Format::Long);
}

#[test]
fn a_value_that_passes_through_is_read_whole() {
    let json = with(
        "/pipelines/0/steps",
        json!([{"filterNot": "value.amountInCents < 5"}]),
    );
    let plan = planned(json);
    let Format::Json(read) = &plan.sub_topologies[0].sources[0].value else {
        panic!()
    };
    assert_eq!(
        field_names(read),
        ["amountInCents", "customerId", "note", "orderId", "submittedAt"]
    );
    assert_eq!(plan.sub_topologies[0].sinks[0].value, Format::Json(read.clone()));
}

#[test]
fn the_fingerprint_of_a_store_follows_its_name_key_and_value_only() {
    let fingerprint = |json| {
        planned(json).sub_topologies.last().unwrap().stores[0]
            .fingerprint
            .clone()
    };
    let base = fingerprint(orders_risk());
    let same = with(
        "/pipelines/0/steps/2/aggregate/add",
        json!("aggregate + 2 * value.amountInCents"),
    );
    assert_eq!(fingerprint(same), base);
    let mut value = with("/pipelines/0/steps/2/aggregate/initial", json!("0.0"));
    value["pipelines"][0]["steps"][2]["aggregate"]["add"] = json!("aggregate + 1.0");
    value["pipelines"][0]["steps"][4] = json!({"filter": "value > 1.0"});
    let key = with("/pipelines/0/steps/0/selectKey", json!("value.amountInCents"));
    let name = with("/pipelines/0/steps/2/aggregate/store", json!("other"));
    for changed in [value, key, name] {
        assert_ne!(fingerprint(changed), base);
    }
    let windowed = |windows: Json| {
        let mut json = orders_risk();
        let steps = json["pipelines"][0]["steps"].as_array_mut().unwrap();
        steps.insert(2, json!({"windowedBy": windows}));
        fingerprint(json)
    };
    let tumbling = |size, grace| windowed(json!({"tumbling": {"size": size, "grace": grace}}));
    let hopping = json!({"hopping": {"size": "2m", "advance": "1m", "grace": "0s"}});
    let all = [
        base,
        tumbling("1m", "0s"),
        tumbling("1m", "1s"),
        tumbling("2m", "0s"),
        windowed(hopping),
    ];
    let different: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(different.len(), all.len());
    assert_eq!(tumbling("60s", "1000ms"), tumbling("1m", "1s"));
}

#[test]
fn a_value_that_nothing_reads_does_not_travel() {
    let mut json = orders_risk();
    json["pipelines"][0]["steps"] = json!([
        {"selectKey": "value.customerId"},
        {"mapValues": {"expression": "value.amountInCents"}},
        {"groupByKey": {}},
        {"count": {"store": "s"}},
        {"toStream": {}},
    ]);
    json["pipelines"][0]["to"] = json!({"topic": "t", "value": {"serde": "Long"}});
    let carried = |json: &Json| planned(json.clone()).sub_topologies[1].sources[0].value.ty();
    let Type::Struct(nothing) = carried(&json) else {
        panic!("something travels")
    };
    assert_eq!(nothing.fields, []);
    json["pipelines"][0]["steps"][3] = json!({"sum": {"store": "s", "of": "value"}});
    assert_eq!(carried(&json), Type::Int);
}

#[test]
fn a_declaration_survives_json() {
    let declaration = declared(orders_risk());
    let text = serde_json::to_string(&declaration).unwrap();
    assert_eq!(serde_json::from_str::<Topology>(&text).unwrap(), declaration);
}

/// The pipeline in two: `large` reads what `keyed` ends with, and stands before it.
fn branched() -> Json {
    let mut json = orders_risk();
    let mut large = json["pipelines"][0].clone();
    let steps = large["steps"].as_array_mut().unwrap();
    steps.remove(0);
    (large["name"], large["from"]) = (json!("large"), json!("keyed"));
    let keyed = json!({"name": "keyed", "from": "orders", "steps": [{"selectKey": "value.customerId"}]});
    json["pipelines"] = json!([large, keyed]);
    json
}

#[test]
fn a_pipeline_goes_on_where_the_one_that_it_reads_ends() {
    let plan = planned(branched());
    let whole = planned(orders_risk());
    assert_eq!(plan.sub_topologies.len(), 2);
    for (branched, whole) in plan.sub_topologies.iter().zip(&whole.sub_topologies) {
        assert_eq!(shape(branched), shape(whole));
        assert_eq!(branched.sources[0].value, whole.sources[0].value);
        let fingerprints = |sub: &SubTopology| -> Vec<_> {
            sub.stores.iter().map(|store| store.fingerprint.clone()).collect()
        };
        assert_eq!(fingerprints(branched), fingerprints(whole));
    }
}

#[test]
fn results_go_to_a_topic_and_to_every_pipeline_that_reads_them() {
    let mut json = branched();
    let to = json!({"topic": "keyed", "value": {"serde": "Json"}});
    json["pipelines"][1]["to"] = to;
    let small = json!({
        "name": "small", "from": "keyed", "steps": [{"filter": "value.amountInCents < 10"}],
        "to": {"topic": "small", "value": {"serde": "Json"}},
    });
    json["pipelines"].as_array_mut().unwrap().push(small);
    let plan = planned(json);
    let wanted = [
        ("forward", vec![1]),
        ("selectKey", vec![2, 3, 5]),
        ("sink", vec![]),
        ("mapValues", vec![4]),
        ("sink", vec![]),
        ("filter", vec![6]),
        ("sink", vec![]),
    ];
    assert_eq!(shape(&plan.sub_topologies[0]), wanted);
    // What only one of the readers writes is parsed, too.
    let Format::Json(read) = &plan.sub_topologies[0].sources[0].value else {
        panic!("{}", plan.describe())
    };
    assert!(read.field("note").is_some());
}

#[test]
fn reads_add_up() {
    let fields = |name: &str| ValueReads::Fields([name.to_owned()].into());
    let mut reads = ValueReads::Nothing;
    reads.add(&fields("a"));
    reads.add(&fields("b"));
    assert_eq!(reads, ValueReads::Fields(["a".to_owned(), "b".to_owned()].into()));
    reads.add(&ValueReads::Whole);
    reads.add(&fields("c"));
    assert_eq!(reads, ValueReads::Whole);
}

#[test]
fn the_plan_reads_as_a_tree() {
    let text = planned(orders_risk()).describe();
    let expected = "\
sub-topology orders: one task per partition of orders.submitted.v1
  reads   orders.submitted.v1 (key String, value Json Order{amountInCents: int, customerId: string, submittedAt: timestampMillis})
          event time: computed from the record; bad records stop the task, errors stop the task; first start: earliest
  writes  <application.id>-by-customer-repartition (key String, value Row Order{amountInCents: int})
  steps
    source orders  [spec.topology.streams[0]]
    selectKey -> string  [spec.topology.pipelines[0].steps[0]]
    mapValues -> Order{amountInCents: int}  [spec.topology.pipelines[0].steps[1]]
    to <application.id>-by-customer-repartition  [spec.topology.pipelines[0].steps[1]]
";
    assert!(text.starts_with(expected), "{text}");
}
