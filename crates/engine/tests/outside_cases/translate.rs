//! A case's topology, said in the language.

use serde_json::{Value as Json, json};

/// The declaration.
///
/// # Errors
/// What the language cannot say.
pub(super) fn declaration(topology: &Json) -> Result<Json, String> {
    match topology["operator"].as_str() {
        Some("stream-table-join" | "table-table-join") => joins(topology),
        Some("stream-stream-join") => streams(topology),
        Some("table-table-foreign-key-join") => foreign_keys(topology),
        Some("suppress") if topology.get("mode").is_some() => suppressed_alone(topology),
        Some("suppress") => suppressed_first(topology),
        Some("count") if topology["group"] == "by the value of the table row" => suppressed(topology),
        _ => windowed(topology),
    }
}

fn windowed(topology: &Json) -> Result<Json, String> {
    let text = |field: &str| topology[field].as_str().unwrap_or_default();
    let aggregation = aggregation(topology)?;
    let windows = windows(&topology["window"])?;
    let serde = match text("value_type") {
        "int64" => "Long",
        _ => "String",
    };
    let pipeline = |name: &str, emit: &str, topic: &str| {
        let (operator, mut fields) = aggregation.clone();
        fields["store"] = json!(name);
        fields["emit"] = json!(emit);
        let mut steps = vec![json!({"groupByKey": {}}), json!({"windowedBy": windows})];
        steps.extend([json!({operator: fields}), json!({"toStream": {}})]);
        json!({"name": name, "from": "input", "steps": steps, "to": {"topic": topic, "value": {"serde": serde}}})
    };
    let emit = match text("emit") {
        "on_window_close" => "OnWindowClose",
        _ => "OnUpdate",
    };
    let mut pipelines = vec![pipeline("updates", emit, text("output"))];
    // What is held back until the window closes is what is sent then.
    if let Some(then) = topology.get("then") {
        if then["until"] != "window closes" {
            return Err(format!("no {then}"));
        }
        pipelines.push(pipeline(
            "finals",
            "OnWindowClose",
            then["output"].as_str().unwrap_or_default(),
        ));
    }
    let input = json!({
        "name": "input", "topic": text("input"), "key": {"serde": "String"}, "value": {"serde": "String"},
    });
    Ok(json!({"language": "v1", "streams": [input], "pipelines": pipelines}))
}

/// Operator and fields.
fn aggregation(topology: &Json) -> Result<(&str, Json), String> {
    let how = topology["aggregate"].as_str().unwrap_or_default();
    let operator = topology["operator"].as_str().unwrap_or_default();
    let fields = match operator {
        "count" => json!({}),
        "reduce" => json!({"add": "aggregate + '+' + value"}),
        "aggregate" => {
            let quoted = how.split('\'').nth(1).unwrap_or_default();
            let add = if how.ends_with("sorted order") {
                "(aggregate + value).split('').sort().join('')"
            } else {
                "aggregate + '+' + value"
            };
            json!({"initial": format!("'{quoted}'"), "add": add})
        }
        other => return Err(format!("no {other}")),
    };
    Ok((operator, fields))
}

fn windows(window: &Json) -> Result<Json, String> {
    let ms = |field: &str| format!("{}ms", window[field]);
    match window["type"].as_str() {
        Some("tumbling") => Ok(json!({"tumbling": {"size": ms("size_ms"), "grace": ms("grace_ms")}})),
        Some("hopping") => {
            let hopping =
                json!({"size": ms("size_ms"), "advance": ms("advance_ms"), "grace": ms("grace_ms")});
            Ok(json!({"hopping": hopping}))
        }
        Some("sliding") => {
            let sliding = json!({"timeDifference": ms("time_difference_ms"), "grace": ms("grace_ms")});
            Ok(json!({"sliding": sliding}))
        }
        Some("session") => Ok(json!({"session": {"gap": ms("gap_ms"), "grace": ms("grace_ms")}})),
        _ => Err(format!("no windows {window}")),
    }
}

/// Joins, and a second one on the result of the first.
fn joins(topology: &Json) -> Result<Json, String> {
    let text = |field: &str| topology[field].as_str().unwrap_or_default();
    let of_streams = text("operator") == "stream-table-join";
    let (left, right) = if of_streams {
        ("stream", "table")
    } else {
        ("left", "right")
    };
    let source = |side: &str, topic: &str, ty: &str, store: &str| {
        let serde = |ty: &str| json!({"serde": if ty.starts_with("int") { "Long" } else { "String" }});
        let topic = topic.split(' ').next().unwrap_or_default();
        let mut source =
            json!({"name": side, "topic": topic, "key": serde(text("key_type")), "value": serde(ty)});
        if let Some(retention) = store.strip_prefix("versioned, history retention ") {
            source["historyRetention"] = json!(retention.replace(' ', ""));
        }
        source
    };
    let sources = json!([source("left", text(left), "string", text("left_store"))]);
    let right_store = if of_streams { "table_store" } else { "right_store" };
    let others = json!([source("right", text(right), "string", text(right_store))]);
    let (mut from, mut with, mut pipelines) = ("left", "right", Vec::new());
    if topology
        .get("suppress")
        .is_some_and(|suppress| suppress["side"] == "right")
    {
        with = "waited";
    }
    let mut steps = vec![join(topology, with)];
    if topology.get("grace_ms").is_some() {
        steps[0]["join"]["grace"] = json!(format!("{}ms", topology["grace_ms"]));
        steps[0]["join"]["name"] = json!("held");
    }
    if let Some(suppress) = topology.get("suppress") {
        // What waits is looked up by the other side.
        let side = suppress["side"].as_str().unwrap_or_default();
        let steps = json!([suppress_of(suppress)?, {"toTable": {"store": "waited-for"}}]);
        pipelines.push(json!({"name": "waited", "from": side, "steps": steps}));
        if side == "left" {
            from = "waited";
        }
    }
    if let Some(then) = topology.get("then") {
        // The second join looks up the results of the first.
        steps[0]
            .as_object_mut()
            .into_iter()
            .flat_map(|step| step.values_mut())
            .for_each(|join| join["name"] = json!("first"));
        steps.push(join(then, with));
    }
    if !of_streams {
        steps.push(json!({"toStream": {}}));
    }
    let to = json!({"topic": text("output"), "value": {"serde": "String"}});
    pipelines.push(json!({"name": "joined", "from": from, "steps": steps, "to": to}));
    Ok(if of_streams {
        json!({"language": "v1", "streams": sources, "tables": others, "pipelines": pipelines})
    } else {
        let tables = [sources, others]
            .iter()
            .flat_map(|list| list.as_array().cloned())
            .flatten()
            .collect::<Vec<_>>();
        json!({"language": "v1", "tables": tables, "pipelines": pipelines})
    })
}

/// A join by foreign keys, and a second join of its results with one of the tables.
fn foreign_keys(topology: &Json) -> Result<Json, String> {
    let text = |field: &str| topology[field].as_str().unwrap_or_default();
    let serde = |ty: &str| json!({"serde": if ty.starts_with("int") { "Long" } else { "String" }});
    let source = |side: &str| {
        let key = serde(text("key_type"));
        let mut source = json!({"name": side, "topic": text(side), "key": key, "value": {"serde": "String"}});
        if let Some(retention) = text(&format!("{side}_store")).strip_prefix("versioned, history retention ")
        {
            source["historyRetention"] = json!(retention.replace(' ', ""));
        }
        source
    };
    let foreign_key = match text("foreign_key") {
        "the part of the left value after '|'" => "value.split('|')[1]",
        "the part of the left value after '|'; null when that part is returnNull" => {
            "value.split('|')[1] == 'returnNull' ? optional.none() : optional.of(value.split('|')[1])"
        }
        "always null" => "value == '' ? optional.of(value) : optional.none()",
        "the integer before '-' in the left value" => "int(value.split('-')[0])",
        other => return Err(format!("no foreign key {other}")),
    };
    let mut first = join(topology, "right");
    for join in first
        .as_object_mut()
        .into_iter()
        .flat_map(|step| step.values_mut())
    {
        join["foreignKey"] = json!(foreign_key);
        join["name"] = json!("first");
    }
    let to = |topology: &Json| json!({"topic": topology["output"], "value": {"serde": "String"}});
    let mut pipelines = vec![json!({"name": "joined", "from": "left", "steps": [first]})];
    if topology.get("output").is_some() {
        let steps = json!([{"toStream": {}}]);
        pipelines.push(json!({"name": "sent", "from": "joined", "steps": steps, "to": to(topology)}));
    }
    if let Some(then) = topology.get("then") {
        let (from, with) = match then["left"].as_str() {
            Some("result of the foreign-key join") => ("joined", "left"),
            _ => ("left", "joined"),
        };
        let steps = json!([join(then, with), {"toStream": {}}]);
        pipelines.push(json!({"name": "again", "from": from, "steps": steps, "to": to(then)}));
    }
    Ok(json!({"language": "v1", "tables": [source("left"), source("right")], "pipelines": pipelines}))
}

/// A table that is counted by its values, whose counts wait.
fn suppressed(topology: &Json) -> Result<Json, String> {
    let then = &topology["then"];
    let to = |topology: &Json| json!({"topic": topology["output"], "value": {"serde": "Long"}});
    let counted = json!([{"groupBy": {"key": "value"}}, {"count": {"store": "counts"}}]);
    let waited = json!([suppress_of(then)?, {"toStream": {}}]);
    Ok(
        json!({"language": "v1", "tables": [table(topology)], "pipelines": [
            {"name": "counted", "from": "table", "steps": counted},
            {"name": "raw", "from": "counted", "steps": [{"toStream": {}}], "to": to(topology)},
            {"name": "waited", "from": "counted", "steps": waited, "to": to(then)},
        ]}),
    )
}

/// A table whose updates wait before they are counted.
fn suppressed_first(topology: &Json) -> Result<Json, String> {
    let then = &topology["then"];
    let steps = json!([suppress_of(topology)?, {"groupBy": {"key": "key"}}, {"count": {"store": "counts"}}, {"toStream": {}}]);
    let to = json!({"topic": then["output"], "value": {"serde": "Long"}});
    Ok(
        json!({"language": "v1", "tables": [table(topology)], "pipelines": [
            {"name": "counted", "from": "table", "steps": steps, "to": to},
        ]}),
    )
}

/// A table whose updates wait.
fn suppressed_alone(topology: &Json) -> Result<Json, String> {
    if topology["mode"] != "until time limit" {
        return Err(format!("no `suppress` {}", topology["mode"]));
    }
    let long = json!({"serde": "Long"});
    let table = json!({"name": "table", "topic": "input", "key": {"serde": "String"}, "value": long});
    let steps = json!([suppress_of(topology)?, {"toStream": {}}]);
    let to = json!({"topic": "output", "value": long});
    Ok(json!({"language": "v1", "tables": [table], "pipelines": [
        {"name": "waited", "from": "table", "steps": steps, "to": to},
    ]}))
}

fn table(topology: &Json) -> Json {
    let input = topology["input"].as_str().unwrap_or_default();
    // The name behind which it is said that it is one; the records' topic may be called otherwise.
    let topic = if input.starts_with("topic") {
        "input"
    } else {
        input.split(' ').next().unwrap_or_default()
    };
    json!({"name": "table", "topic": topic, "key": {"serde": "String"}, "value": {"serde": "String"}})
}

fn suppress_of(topology: &Json) -> Result<Json, String> {
    if topology["buffer"] != "unbounded" {
        return Err(format!("no buffer {}", topology["buffer"]));
    }
    let limit = format!("{}ms", topology["time_limit_ms"]);
    Ok(json!({"suppress": {"store": "waiting", "untilTimeLimit": limit}}))
}

/// Joins of two streams, of which one may be read twice.
fn streams(topology: &Json) -> Result<Json, String> {
    let text = |field: &str| topology[field].as_str().unwrap_or_default();
    let source = |side: &str| {
        let serde = |ty: &str| json!({"serde": if ty.starts_with("int") { "Long" } else { "String" }});
        let value = serde(text(&format!("{side}_value_type")));
        // An expression has no value for a null key.
        let on_error = if topology.get("pre").is_some() {
            "Skip"
        } else {
            "Fail"
        };
        let key = serde(text("key_type"));
        json!({"name": side, "topic": text(side), "key": key, "value": value, "onError": on_error})
    };
    let is_of_itself = text("left") == text("right");
    let sources = if is_of_itself {
        json!([source("left")])
    } else {
        json!([source("left"), source("right")])
    };
    let with = if is_of_itself { "left" } else { "right" };
    let windowed = |topology: &Json, name: &str, with: &str| {
        let mut step = join(topology, with);
        let window = |field: &str| format!("{}ms", topology["window"][field]);
        for join in step
            .as_object_mut()
            .into_iter()
            .flat_map(|step| step.values_mut())
        {
            join["name"] = json!(name);
            for (field, ms) in [
                ("before", "before_ms"),
                ("after", "after_ms"),
                ("grace", "grace_ms"),
            ] {
                join[field] = json!(window(ms));
            }
        }
        step
    };
    let (mut steps, mut pipelines, mut with) = (Vec::new(), Vec::new(), with);
    if topology.get("pre").is_some() {
        steps.push(json!({"map": {"key": "key", "expression": "value"}}));
        with = "keyed";
        pipelines.push(json!({"name": with, "from": "right", "steps": [{"selectKey": "key"}]}));
    }
    steps.push(windowed(topology, "first", with));
    if let Some(then) = topology.get("then") {
        steps.push(windowed(then, "second", with));
    }
    let to = json!({"topic": text("output"), "value": {"serde": "String"}});
    pipelines.push(json!({"name": "joined", "from": "left", "steps": steps, "to": to}));
    Ok(json!({"language": "v1", "streams": sources, "pipelines": pipelines}))
}

/// A join whose values are those of both sides with a sign between them; one that is missing prints as null.
fn join(topology: &Json, with: &str) -> Json {
    let (step, optional) = match topology["kind"].as_str() {
        Some("left") => ("leftJoin", [false, true]),
        Some("outer") => ("outerJoin", [true, true]),
        _ => ("join", [false, false]),
    };
    let joiner = topology["joiner"].as_str().unwrap_or_default();
    let joiner = joiner.split(" (a missing").next().unwrap_or_default();
    let side = |name: &str, is_optional: bool| match is_optional {
        true => format!("({name} == null ? 'null' : string({name}))"),
        false => format!("string({name})"),
    };
    let parts = joiner.split(" + ").map(|part| match part {
        "left" | "stream" => side("left", optional[0]),
        "right" | "table" => side("right", optional[1]),
        quoted => quoted.to_owned(),
    });
    let expression = parts.collect::<Vec<_>>().join(" + ");
    json!({step: {"with": with, "expression": expression}})
}
