//! A plan as text for people.

use std::fmt::Write as _;

use crate::determinism::Variation;
use crate::plan::{
    Emit, Format, Node, NodeIndex, OffsetReset, OnBadRecord, Op, Plan, Side, SinkHeaders, Source, StoreIndex,
    StoreSpec, SubTopology, Windows,
};
use crate::{Duration, Type};

impl Plan {
    /// The plan as an indented tree: sub-topologies, what they read and write, their steps and stores; and whether it is deterministic.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut out = String::new();
        for sub_topology in &self.sub_topologies {
            describe_sub_topology(sub_topology, &mut out);
        }
        describe_variations(&self.variations(), &mut out);
        out
    }
}

// Writing to a string cannot fail.
fn describe_sub_topology(sub: &SubTopology, out: &mut String) {
    let topics: Vec<_> = sub
        .sources
        .iter()
        .map(|source| source.topic.to_string())
        .collect();
    let _ = writeln!(
        out,
        "sub-topology {}: one task per partition of {}",
        sub.name,
        topics.join(" and ")
    );
    for source in &sub.sources {
        describe_source(source, out);
    }
    for store in &sub.stores {
        describe_store(store, out);
    }
    for sink in &sub.sinks {
        let _ = writeln!(
            out,
            "  writes  {} (key {}, value {}{})",
            sink.topic,
            format(&sink.key),
            format(&sink.value),
            headers(&sink.headers)
        );
    }
    let _ = writeln!(out, "  steps");
    let mut seen = vec![false; sub.nodes.len()];
    for source in &sub.sources {
        let _ = writeln!(out, "    source {}  [{}]", source.name, path(sub, source.node));
        describe_children(sub, source.node, 2, &mut seen, out);
    }
}

fn describe_variations(variations: &[Variation], out: &mut String) {
    let _ = writeln!(out, "deterministic: {}", variations.is_empty());
    for Variation {
        cause, path, message, ..
    } in variations
    {
        let _ = writeln!(out, "  {cause}: {message}  [{path}]");
    }
}

fn headers(headers: &SinkHeaders) -> String {
    match headers {
        SinkHeaders::None => String::new(),
        SinkHeaders::Forwarded => ", headers of the input".to_owned(),
        SinkHeaders::Computed(headers) => {
            let names: Vec<_> = headers.iter().map(|(name, _)| &**name).collect();
            format!(", headers {}", names.join(" "))
        }
    }
}

/// Where a node stands in the declaration.
fn path(sub: &SubTopology, node: NodeIndex) -> String {
    let node = sub.nodes.get(node);
    node.map_or_else(String::new, |node| node.path.to_string())
}

fn describe_source(source: &Source, out: &mut String) {
    let _ = writeln!(
        out,
        "  reads   {} (key {}, value {})",
        source.topic,
        format(&source.key),
        format(&source.value)
    );
    let event_time = match (&source.timestamp, source.max_ahead_ms) {
        (None, _) => "the record's timestamp".to_owned(),
        (Some(_), None) => "computed from the record".to_owned(),
        (Some(_), Some(most)) => {
            format!("computed from the record, at most {most} ms ahead of its timestamp")
        }
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
}

fn describe_store(store: &StoreSpec, out: &mut String) {
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
        let grace = |ms: i64| format!("grace {}", text(ms));
        let kind = match windows {
            Windows::Time(windows) => {
                let (size, advance) = (text(windows.size_ms), text(windows.advance_ms));
                format!("windows of {size} every {advance}, {}", grace(windows.grace_ms))
            }
            Windows::Session(windows) => {
                let gap = text(windows.gap_ms);
                format!("session windows with a gap of {gap}, {}", grace(windows.grace_ms))
            }
            Windows::Sliding(windows) => {
                let difference = text(windows.difference_ms);
                format!("sliding windows of {difference}, {}", grace(windows.grace_ms))
            }
            Windows::Join(windows) => {
                let (before, after) = (text(windows.before_ms), text(windows.after_ms));
                let grace = grace(windows.grace_ms);
                format!(
                    "records of both streams, right up to {before} before and {after} after left, {grace}"
                )
            }
            Windows::Suppress { limit_ms } => format!("updates, for {}", text(limit_ms)),
            Windows::Versions { retention_ms } => format!("versions, for {}", text(retention_ms)),
            Windows::Held { grace_ms } => format!("records that wait, {}", grace(grace_ms)),
        };
        let _ = writeln!(out, "          {kind}");
    }
}

/// What is behind a node; a node that several lead to is told once.
fn describe_children(sub: &SubTopology, index: NodeIndex, depth: usize, seen: &mut [bool], out: &mut String) {
    let Some(node) = sub.nodes.get(index) else { return };
    // A chain stays at one level; only branches are indented.
    let depth = depth + usize::from(node.children.len() > 1);
    for child in &node.children {
        describe_node(sub, *child, depth, seen, out);
    }
}

fn describe_node(sub: &SubTopology, index: NodeIndex, depth: usize, seen: &mut [bool], out: &mut String) {
    let Some(node) = sub.nodes.get(index) else { return };
    if std::mem::replace(&mut seen[index], true) {
        let _ = writeln!(out, "{:indent$}as above  [{}]", "", node.path, indent = depth * 2);
        return;
    }
    let what = label(sub, node);
    let _ = writeln!(out, "{:indent$}{what}  [{}]", "", node.path, indent = depth * 2);
    describe_children(sub, index, depth, seen, out);
}

/// What a node does, in a line.
pub(crate) fn label(sub: &SubTopology, node: &Node) -> String {
    let store = |index: &StoreIndex| sub.stores.get(*index).map_or("?", |store| store.name.as_str());
    match &node.op {
        Op::Forward => "forward".to_owned(),
        Op::Filter(_) | Op::FilterTable { keeps: true, .. } => "filter".to_owned(),
        Op::FilterNot(_) | Op::FilterTable { keeps: false, .. } => "filterNot".to_owned(),
        Op::SelectKey(expr) => format!("selectKey -> {}", type_text(expr.ty())),
        Op::GroupTable { key, value } => {
            format!("groupBy -> {}, {}", type_text(key.ty()), type_text(value.ty()))
        }
        Op::MapValues(expr) | Op::MapTable(expr) => format!("mapValues -> {}", type_text(expr.ty())),
        Op::Map { key, value } => format!("map -> {}, {}", type_text(key.ty()), type_text(value.ty())),
        Op::FlatMapValues(expr) => format!("flatMapValues -> {}", type_text(expr.ty())),
        Op::Aggregate {
            store: index,
            emit,
            first,
            ..
        } => {
            let name = store(index);
            let when = match emit {
                Emit::OnUpdate => "",
                Emit::OnWindowClose => " when its window closes",
            };
            format!("aggregate in {name} -> {}{when}", type_text(first.expr().ty()))
        }
        Op::Deduplicate { store: index, .. } => format!("deduplicate in {}", store(index)),
        Op::Table { store: index } => format!("table in {}", store(index)),
        Op::Suppress { store: index } => format!("suppress in {}", store(index)),
        Op::JoinTable {
            store: index, value, ..
        }
        | Op::JoinTables {
            other: index, value, ..
        } => {
            format!("join with {} -> {}", store(index), type_text(value.ty()))
        }
        Op::JoinStreams {
            store: index,
            side,
            value,
            ..
        } => {
            let side = match side {
                Side::Left => "left",
                Side::Right => "right",
            };
            format!("join, {side}, in {} -> {}", store(index), type_text(value.ty()))
        }
        Op::Subscribe { foreign_key } => format!("subscribe -> {}", type_text(foreign_key.ty())),
        Op::Register { store: index, table } => format!("register in {} for {}", store(index), store(table)),
        Op::Notify { store: index } => format!("notify those in {}", store(index)),
        Op::JoinForeignKey { table, value, .. } => {
            format!(
                "join by foreign key from {} -> {}",
                store(table),
                type_text(value.ty())
            )
        }
        Op::Sink(sink) => {
            let topic = sub
                .sinks
                .get(*sink)
                .map_or_else(String::new, |sink| sink.topic.to_string());
            format!("to {topic}")
        }
        Op::Route { sinks, .. } => {
            let topics: Vec<_> = sinks.iter().map(|(topic, _)| &**topic).collect();
            format!("to one of {}", topics.join(" "))
        }
    }
}

fn format(format: &Format) -> String {
    match format {
        Format::String
        | Format::Bytes
        | Format::Long
        | Format::Integer
        | Format::Double
        | Format::Boolean
        | Format::Uuid => format.name().unwrap_or_default().to_owned(),
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
