//! Names: their characters, and that none is there twice.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{PlanError, cogroup, join};
use crate::Path;
use crate::declaration::{
    GroupBy, GroupByKey, OnBadRecord, Operator, SourceKind, Stream, Suppress, ToTable, Topology,
};

/// Longest declared name; internal topic names add the application id and a suffix to it.
const MAX_NAME_BYTES: usize = 63;
/// Longest topic name in Kafka.
const MAX_TOPIC_BYTES: usize = 249;

/// Names that were seen, with what has them.
type Seen<'a> = BTreeMap<Cow<'a, str>, &'static str>;

pub(crate) fn check(declaration: &Topology, errors: &mut Vec<PlanError>) {
    let root = Path::topology();
    let mut seen = Seen::new();
    for (index, record_type) in declaration.types.iter().enumerate() {
        let path = root.field("types").index(index).field("name");
        unique(&mut seen, record_type.name.as_str(), "type", &path, errors);
    }
    // Streams, stores and repartitions give their names to tasks and topics.
    let (mut seen, mut topics) = (Seen::new(), Seen::new());
    for (stream, kind, path) in declaration.sources() {
        name(&stream.name, &path.field("name"), errors);
        unique(
            &mut seen,
            stream.name.as_str(),
            kind.name(),
            &path.field("name"),
            errors,
        );
        topic(&stream.topic, &path.field("topic"), errors);
        if let Some(other) = topics.insert(Cow::Borrowed(&stream.topic), kind.name()) {
            let message = format!("topic `{}` is already read by another {other}", stream.topic);
            let error = PlanError::new(&path.field("topic"), message);
            errors.push(error.suggest("declare one stream or table per topic"));
        }
    }
    for (stream, kind, path) in declaration.sources() {
        dead_letters(stream, kind, &path, &topics, errors);
    }
    let mut pipelines = Seen::new();
    for (index, pipeline) in declaration.pipelines.iter().enumerate() {
        let path = root.field("pipelines").index(index);
        name(&pipeline.name, &path.field("name"), errors);
        unique(
            &mut pipelines,
            pipeline.name.as_str(),
            "pipeline",
            &path.field("name"),
            errors,
        );
        let Some(to) = &pipeline.to else { continue };
        for (name, path) in to.topics(&path.field("to")) {
            topic(name, &path, errors);
            if topics.contains_key(name) {
                let message =
                    format!("topic `{name}` is also read by a stream or table: records would go round");
                errors.push(PlanError::new(&path, message));
            }
        }
    }
    for (index, pipeline) in declaration.pipelines.iter().enumerate() {
        for (step, declared) in pipeline.steps.iter().enumerate() {
            let path = root.field("pipelines").index(index).field("steps").index(step);
            match declared.operator() {
                Ok(Operator::Aggregate(aggregation)) => {
                    let inner = path.field(aggregation.name());
                    let path = inner.field("store");
                    name(aggregation.store(), &path, errors);
                    unique(&mut seen, aggregation.store(), "store", &path, errors);
                    for (index, other) in aggregation.cogroup().iter().enumerate() {
                        let path = inner.field("cogroup").index(index).field("with");
                        let name = cogroup::repartition(aggregation, other);
                        unique(&mut seen, name, "repartition", &path, errors);
                    }
                }
                Ok(Operator::Deduplicate(declared)) => {
                    let path = path.field("deduplicate").field("store");
                    name(&declared.store, &path, errors);
                    unique(&mut seen, declared.store.as_str(), "store", &path, errors);
                }
                Ok(
                    operator @ (Operator::ToTable(ToTable { store, .. })
                    | Operator::Suppress(Suppress { store, .. })),
                ) => {
                    let path = path.field(operator.name()).field("store");
                    name(store, &path, errors);
                    unique(&mut seen, store.as_str(), "store", &path, errors);
                }
                Ok(Operator::Join(kind, join)) => {
                    if let Some(given) = &join.name {
                        let path = path.field(kind.name()).field("name");
                        name(given, &path, errors);
                        unique(&mut seen, given.as_str(), "join", &path, errors);
                        for part in join::names(join) {
                            unique(&mut seen, format!("{given}-{part}"), "join", &path, errors);
                        }
                    }
                }
                Ok(
                    operator @ (Operator::GroupByKey(GroupByKey { name: given })
                    | Operator::GroupBy(GroupBy { name: given, .. })),
                ) => {
                    if let Some(given) = given {
                        let path = path.field(operator.name()).field("name");
                        name(given, &path, errors);
                        unique(&mut seen, given.as_str(), "repartition", &path, errors);
                    }
                }
                Ok(
                    Operator::SelectKey(_)
                    | Operator::Filter(_)
                    | Operator::FilterNot(_)
                    | Operator::MapValues(_)
                    | Operator::Map(_)
                    | Operator::FlatMapValues(_)
                    | Operator::Merge(_)
                    | Operator::WindowedBy(_)
                    | Operator::ToStream,
                )
                | Err(_) => {}
            }
        }
    }
}

fn unique<'a>(
    seen: &mut Seen<'a>,
    name: impl Into<Cow<'a, str>>,
    what: &'static str,
    path: &Path,
    errors: &mut Vec<PlanError>,
) {
    let name = name.into();
    if let Some(other) = seen.insert(name.clone(), what) {
        let message = format!("the name `{name}` is already taken by a {other}");
        errors.push(PlanError::new(path, message));
    }
}

fn name(name: &str, path: &Path, errors: &mut Vec<PlanError>) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(allowed) || name.starts_with('.') {
        let message = format!(
            "`{name}` cannot be a name: 1 to {MAX_NAME_BYTES} letters, digits, `-`, `_`, `.` are allowed, \
             it becomes part of topic names"
        );
        errors.push(PlanError::new(path, message));
    }
}

/// A dead-letter topic and who sends records there belong together.
fn dead_letters(
    stream: &Stream,
    kind: SourceKind,
    path: &Path,
    read: &Seen<'_>,
    errors: &mut Vec<PlanError>,
) {
    let kind = kind.name();
    let wanted = [stream.on_bad_record, stream.on_error].contains(&OnBadRecord::DeadLetter);
    let path = path.field("deadLetterTopic");
    match &stream.dead_letter_topic {
        None if wanted => {
            let message = format!(
                "{kind} `{}` sends records to a topic that is not named",
                stream.name
            );
            errors.push(PlanError::new(&path, message).suggest("name one in `deadLetterTopic`"));
        }
        Some(name) if !wanted => {
            let message = format!("nothing of {kind} `{}` goes to topic `{name}`", stream.name);
            errors.push(
                PlanError::new(&path, message).suggest("set `onBadRecord` or `onError` to `DeadLetter`"),
            );
        }
        Some(name) => {
            topic(name, &path, errors);
            if read.contains_key(name.as_str()) {
                let message =
                    format!("topic `{name}` is also read by a stream or table: records would go round");
                errors.push(PlanError::new(&path, message));
            }
        }
        None => {}
    }
}

fn topic(name: &str, path: &Path, errors: &mut Vec<PlanError>) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let fits = !name.is_empty() && name.len() <= MAX_TOPIC_BYTES && name.chars().all(allowed);
    if !fits || name == "." || name == ".." {
        let message = format!(
            "`{name}` cannot be a topic in Kafka: 1 to {MAX_TOPIC_BYTES} letters, digits, `-`, `_`, `.` are allowed"
        );
        errors.push(PlanError::new(path, message));
    }
}
