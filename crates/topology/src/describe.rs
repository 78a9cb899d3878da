//! A plan as text for people.

use std::fmt::Write as _;

use crate::plan::{Emit, Format, NodeIndex, OffsetReset, OnBadRecord, Op, Plan, SubTopology, Windows};
use crate::{Duration, Type};

impl Plan {
    /// The plan as an indented tree: sub-topologies, what they read and write, their steps and stores.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut out = String::new();
        for sub_topology in &self.sub_topologies {
            describe_sub_topology(sub_topology, &mut out);
        }
        out
    }
}

// Writing to a string cannot fail.
fn describe_sub_topology(sub: &SubTopology, out: &mut String) {
    let _ = writeln!(
        out,
        "sub-topology {}: one task per partition of {}",
        sub.name, sub.source.topic
    );
    let source = &sub.source;
    let _ = writeln!(
        out,
        "  reads   {} (key {}, value {})",
        source.topic,
        format(&source.key),
        format(&source.value)
    );
    let event_time = if source.timestamp.is_some() {
        "computed from the record"
    } else {
        "the record's timestamp"
    };
    let policy = |policy: OnBadRecord| match policy {
        OnBadRecord::Fail => "stop the task",
        OnBadRecord::Skip => "are skipped and counted",
        OnBadRecord::DeadLetter => "become dead letters",
    };
    let (bad, error) = (policy(source.on_bad_record), policy(source.on_error));
    let reset = match source.offset_reset {
        OffsetReset::Earliest => "earliest",
        OffsetReset::Latest => "latest",
    };
    let _ = writeln!(
        out,
        "          event time: {event_time}; bad records {bad}, errors {error}; first start: {reset}"
    );
    for store in &sub.stores {
        let _ = writeln!(
            out,
            "  store   {} (key {}, value {}), changelog {}, fingerprint {}",
            store.name,
            format(&store.key),
            type_text(&store.value),
            store.changelog,
            store.fingerprint
        );
        if let Some(windows) = store.windows {
            let text = |ms: i64| Duration::<0>::from_millis(ms.unsigned_abs());
            let (kind, grace_ms) = match windows {
                Windows::Time(windows) => {
                    let (size, advance) = (text(windows.size_ms), text(windows.advance_ms));
                    (format!("windows of {size} every {advance}"), windows.grace_ms)
                }
                Windows::Session(windows) => {
                    let gap = text(windows.gap_ms);
                    (format!("session windows with a gap of {gap}"), windows.grace_ms)
                }
            };
            let _ = writeln!(out, "          {kind}, grace {}", text(grace_ms));
        }
    }
    for sink in &sub.sinks {
        let _ = writeln!(
            out,
            "  writes  {} (key {}, value {})",
            sink.topic,
            format(&sink.key),
            format(&sink.value)
        );
    }
    let _ = writeln!(out, "  steps");
    describe_node(sub, 0, 2, out);
}

fn describe_node(sub: &SubTopology, index: NodeIndex, depth: usize, out: &mut String) {
    let Some(node) = sub.nodes.get(index) else { return };
    let what = match &node.op {
        Op::Forward if index == 0 => format!("source {}", sub.source.name),
        Op::Forward => "forward".to_owned(),
        Op::Filter(_) => "filter".to_owned(),
        Op::FilterNot(_) => "filterNot".to_owned(),
        Op::SelectKey(expr) => format!("selectKey -> {}", type_text(expr.ty())),
        Op::MapValues(expr) => format!("mapValues -> {}", type_text(expr.ty())),
        Op::Map { key, value } => format!("map -> {}, {}", type_text(key.ty()), type_text(value.ty())),
        Op::FlatMapValues(expr) => format!("flatMapValues -> {}", type_text(expr.ty())),
        Op::Aggregate {
            store, emit, first, ..
        } => {
            let name = sub.stores.get(*store).map_or("?", |store| store.name.as_str());
            let when = match emit {
                Emit::OnUpdate => "",
                Emit::OnWindowClose => " when its window closes",
            };
            format!("aggregate in {name} -> {}{when}", type_text(first.expr().ty()))
        }
        Op::Deduplicate { store, .. } => {
            let name = sub.stores.get(*store).map_or("?", |store| store.name.as_str());
            format!("deduplicate in {name}")
        }
        Op::Sink(sink) => {
            let topic = sub
                .sinks
                .get(*sink)
                .map_or_else(String::new, |sink| sink.topic.to_string());
            format!("to {topic}")
        }
    };
    let _ = writeln!(out, "{:indent$}{what}  [{}]", "", node.path, indent = depth * 2);
    for child in &node.children {
        // A chain stays at one level; only branches are indented.
        let deeper = usize::from(node.children.len() > 1);
        describe_node(sub, *child, depth + deeper, out);
    }
}

fn format(format: &Format) -> String {
    match format {
        Format::String => "String".to_owned(),
        Format::Bytes => "Bytes".to_owned(),
        Format::Long => "Long".to_owned(),
        Format::Json(ty) => format!("Json {}", type_text(&Type::Struct(ty.clone()))),
        Format::Row(ty) => format!("Row {}", type_text(ty)),
        Format::TimeWindowed { key, .. } => format!("{} with window start", self::format(key)),
        Format::SessionWindowed { key } => format!("{} with window end and start", self::format(key)),
    }
}

fn type_text(ty: &Type) -> String {
    let Type::Struct(ty) = ty else {
        return ty.to_string();
    };
    let fields: Vec<_> = ty
        .fields
        .iter()
        .map(|field| format!("{}: {}", field.name, field.ty))
        .collect();
    format!("{}{{{}}}", ty.name, fields.join(", "))
}
