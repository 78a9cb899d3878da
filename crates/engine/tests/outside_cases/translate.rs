//! A case's topology, said in the language.

use serde_json::{Value as Json, json};

/// The declaration.
///
/// # Errors
/// What the language cannot say.
pub(super) fn declaration(topology: &Json) -> Result<Json, String> {
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
        Some("session") => Ok(json!({"session": {"gap": ms("gap_ms"), "grace": ms("grace_ms")}})),
        _ => Err(format!("no windows {window}")),
    }
}
