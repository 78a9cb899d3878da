//! Third pass: operators, stores, sinks; cuts at repartition topics.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::compile::{
    Folds, compile_aggregation, compile_as, compile_by, compile_flat_map_values, compile_key, compile_map,
    compile_map_values, compile_timestamp,
};
use super::live::{live, prune};
use super::resolve::{Resolved, ResolvedStream, Step, StepOp, aggregated};
use super::sink::key_format;
use super::{PlanError, sink, windows};
use crate::declaration::{Emit as DeclaredEmit, OffsetReset as DeclaredReset, OnBadRecord as DeclaredBad};
use crate::fingerprint::{canonical_format, canonical_type, digest};
use crate::plan::{
    Emit, Format, Node, NodeIndex, OffsetReset, OnBadRecord, Op, Sink, Source, StoreSpec, SubTopology,
    TopicName, Windows,
};
use crate::{Env, Expr, Field, Path, StructType, Type, ValueReads};

/// The sub-topologies of the pipelines that read one stream, in the order in which records flow.
///
/// # Errors
/// None for pipelines that [`super::resolve`] accepted, unless that and this module disagree.
pub(crate) fn build(pipelines: &[&Resolved<'_>]) -> Result<Vec<SubTopology>, Vec<PlanError>> {
    let Some(first) = pipelines.first() else {
        return Ok(Vec::new());
    };
    let (live, mut reads) = live_of_all(pipelines);
    reads.add(&first.stream.timestamp_reads);
    let (source, env) = source(&first.stream, &reads)?;
    let mut reading = begin(source, &first.stream.path);
    if let Some(topic) = &first.stream.declared.dead_letter_topic {
        reading.source.dead_letters = Some(reading.sinks.len());
        reading.sinks.push(Sink {
            topic: TopicName::External(topic.clone()),
            key: Format::Bytes,
            value: Format::Bytes,
        });
    }
    let mut parts = vec![reading];
    let begin = Place { at: 0, last: 0, env };
    // Where pipelines end.
    let mut ends = BTreeMap::new();
    for (pipeline, live) in pipelines.iter().zip(&live) {
        let place = pipeline
            .parent
            .and_then(|parent| ends.get(parent))
            .unwrap_or(&begin);
        let mut builder = Builder {
            parts: &mut parts,
            place: place.clone(),
        };
        for (step, later) in pipeline.steps.iter().zip(&live[1..]) {
            builder.step(step, later)?;
        }
        ends.insert(pipeline.pipeline.name.as_str(), builder.place.clone());
        builder.end(pipeline)?;
    }
    Ok(parts)
}

/// What is read later, by pipeline and step; and of the stream. A pipeline comes before those that read it.
fn live_of_all(pipelines: &[&Resolved<'_>]) -> (Vec<Vec<ValueReads>>, ValueReads) {
    let mut of_stream = ValueReads::Nothing;
    let mut of_results = BTreeMap::<&str, ValueReads>::new();
    let mut all = Vec::with_capacity(pipelines.len());
    for pipeline in pipelines.iter().rev() {
        let declared = pipeline.pipeline;
        let mut end = of_results.remove(declared.name.as_str()).unwrap_or_default();
        if declared.to.is_some() {
            end.add(&ValueReads::Whole);
        }
        let live = live(pipeline, end);
        let first = live.first().unwrap_or(&ValueReads::Whole);
        match pipeline.parent {
            Some(parent) => of_results.entry(parent).or_default().add(first),
            None => of_stream.add(first),
        }
        all.push(live);
    }
    all.reverse();
    (all, of_stream)
}

/// Where the next node goes.
#[derive(Clone)]
struct Place {
    /// The part that is being built, and the node in it that the next one goes behind.
    at: usize,
    last: NodeIndex,
    /// The types of what is forwarded there.
    env: Env,
}

/// Goes along one pipeline.
struct Builder<'p> {
    /// The first reads the stream; each other one reads a repartition topic.
    parts: &'p mut Vec<SubTopology>,
    place: Place,
}

fn policy(declared: DeclaredBad) -> OnBadRecord {
    match declared {
        DeclaredBad::Fail => OnBadRecord::Fail,
        DeclaredBad::Skip => OnBadRecord::Skip,
        DeclaredBad::DeadLetter => OnBadRecord::DeadLetter,
    }
}

/// The stream as the pipelines read it, and what their first steps see.
fn source(stream: &ResolvedStream<'_>, reads: &ValueReads) -> Result<(Source, Env), Vec<PlanError>> {
    let declared = stream.declared;
    let env = Env::of_record(stream.key.clone(), prune(&stream.value, reads));
    let path = stream.path.field("timestamp");
    let timestamp = declared
        .timestamp
        .as_ref()
        .map(|source| compile_timestamp(source, &env, &path))
        .transpose()?;
    let value = if let Type::Struct(ty) = &env.value {
        Format::Json(ty.clone())
    } else {
        let message = format!("no format for {}", env.value);
        sink::scalar_format(&env.value).ok_or_else(|| PlanError::new(&stream.path, message))?
    };
    let source = Source {
        name: declared.name.clone(),
        topic: TopicName::External(declared.topic.clone()),
        key: key_format(&env.key, &stream.path)?,
        value,
        timestamp,
        on_bad_record: policy(declared.on_bad_record),
        on_error: policy(declared.on_error),
        dead_letters: None,
        offset_reset: match declared.offset_reset {
            DeclaredReset::Earliest => OffsetReset::Earliest,
            DeclaredReset::Latest => OffsetReset::Latest,
        },
    };
    Ok((source, env))
}

impl Builder<'_> {
    fn part(&mut self) -> &mut SubTopology {
        &mut self.parts[self.place.at]
    }

    /// Adds a node behind the last one.
    fn node(&mut self, path: &Path, op: Op) {
        let last = self.place.last;
        let nodes = &mut self.part().nodes;
        let index = nodes.len();
        nodes[last].children.push(index);
        nodes.push(Node {
            path: path.to_string(),
            op,
            children: Vec::new(),
        });
        self.place.last = index;
    }

    /// `later`: what the steps behind this one read of the value that leaves it.
    fn step(&mut self, step: &Step<'_>, later: &ValueReads) -> Result<(), Vec<PlanError>> {
        let path = &step.path;
        match &step.op {
            StepOp::SelectKey(source) => {
                let expr = compile_key(source, &self.place.env, &path.field("selectKey"))?;
                self.place.env.key = expr.ty().clone();
                self.node(path, Op::SelectKey(expr));
            }
            StepOp::Filter(source) => {
                let expr = compile_as(source, &Type::Bool, &self.place.env, &path.field("filter"))?;
                self.node(path, Op::Filter(expr));
            }
            StepOp::FilterNot(source) => {
                let expr = compile_as(source, &Type::Bool, &self.place.env, &path.field("filterNot"))?;
                self.node(path, Op::FilterNot(expr));
            }
            StepOp::MapValues(map) => {
                let expr = compile_map_values(map, &self.place.env, &path.field("mapValues"))?;
                self.place.env.value = expr.ty().clone();
                self.node(path, Op::MapValues(expr));
            }
            StepOp::Map(map) => {
                let (key, value) = compile_map(map, &self.place.env, &path.field("map"))?;
                (self.place.env.key, self.place.env.value) = (key.ty().clone(), value.ty().clone());
                self.node(path, Op::Map { key, value });
            }
            StepOp::FlatMapValues(source) => {
                let (list, item) =
                    compile_flat_map_values(source, &self.place.env, &path.field("flatMapValues"))?;
                self.place.env.value = item;
                self.node(path, Op::FlatMapValues(list));
            }
            StepOp::Deduplicate(declared, cut) => {
                let mut kept = later.clone();
                kept.add(&step.reads);
                if let Some(name) = cut {
                    self.cut(name, path, &kept)?;
                }
                let by = compile_by(declared, &self.place.env, &path.field("deduplicate"))?;
                let key = key_format(&self.place.env.key, path)?;
                let key = match &by {
                    None => key,
                    Some(by) => Format::Row(key_and(key.ty(), by.ty().clone())),
                };
                let windows = windows::of_duplicates(declared.within);
                let store = self.store(&declared.store, key, Type::Bool, Some(windows));
                self.node(path, Op::Deduplicate { store, by });
            }
            StepOp::GroupByKey(None) | StepOp::WindowedBy => {}
            StepOp::GroupByKey(Some(name)) => self.cut(name, path, later)?,
            StepOp::Aggregate(aggregation, windows) => {
                let Folds { first, add, merge } = compile_aggregation(
                    *aggregation,
                    *windows,
                    &self.place.env,
                    &path.field(aggregation.name()),
                )?;
                let value = first.expr().ty().clone();
                let key = key_format(&self.place.env.key, path)?;
                let store = self.store(aggregation.store(), key, value.clone(), *windows);
                aggregated(&mut self.place.env, aggregation.emit(), *windows, value);
                let emit = match aggregation.emit() {
                    DeclaredEmit::OnUpdate => Emit::OnUpdate,
                    DeclaredEmit::OnWindowClose => Emit::OnWindowClose,
                };
                let op = Op::Aggregate {
                    store,
                    emit,
                    first,
                    add,
                    merge,
                };
                self.node(path, op);
            }
            StepOp::ToStream => self.node(path, Op::Forward),
        }
        Ok(())
    }

    fn store(&mut self, name: &str, key: Format, value: Type, windows: Option<Windows>) -> usize {
        let mut parts = vec![
            "store/1".to_owned(),
            name.to_owned(),
            canonical_format(&key),
            canonical_type(&value),
        ];
        parts.extend(windows.map(windows::canonical));
        let fingerprint = digest(&parts.iter().map(String::as_str).collect::<Vec<_>>());
        let changelog = TopicName::Changelog(name.to_owned());
        let stores = &mut self.part().stores;
        stores.push(StoreSpec {
            name: name.to_owned(),
            key,
            value,
            windows,
            fingerprint,
            changelog,
        });
        stores.len() - 1
    }

    /// Writes to a repartition topic what is read later, and goes on behind it.
    fn cut(&mut self, name: &str, path: &Path, later: &ValueReads) -> Result<(), PlanError> {
        let value = carried(&self.place.env.value, later);
        if value != self.place.env.value {
            let projection = match (&self.place.env.value, &value) {
                (Type::Struct(from), Type::Struct(to)) => Expr::project(from, to),
                _ => Some(Expr::build_struct(NOTHING, Vec::new())),
            };
            let projection = projection.ok_or_else(|| PlanError::new(path, "not valid"))?;
            self.node(path, Op::MapValues(projection));
        }
        let topic = TopicName::Repartition(name.to_owned());
        let (key, format) = (key_format(&self.place.env.key, path)?, Format::Row(value.clone()));
        self.sink(
            path,
            Sink {
                topic: topic.clone(),
                key: key.clone(),
                value: format.clone(),
            },
        );
        let source = Source {
            name: name.to_owned(),
            topic,
            key,
            value: format,
            timestamp: None,
            on_bad_record: OnBadRecord::Fail,
            on_error: OnBadRecord::Fail,
            dead_letters: None,
            offset_reset: OffsetReset::Earliest,
        };
        self.parts.push(begin(source, path));
        (self.place.at, self.place.last) = (self.parts.len() - 1, 0);
        self.place.env.value = value;
        self.place.env.is_of_one_record = true;
        Ok(())
    }

    fn sink(&mut self, path: &Path, sink: Sink) {
        let sinks = &mut self.part().sinks;
        sinks.push(sink);
        let index = sinks.len() - 1;
        self.node(path, Op::Sink(index));
    }

    fn end(mut self, pipeline: &Resolved<'_>) -> Result<(), PlanError> {
        let Some(to) = &pipeline.pipeline.to else {
            return Ok(());
        };
        let path = pipeline.path.field("to");
        let key = sink::key(to, &self.place.env, &path)?;
        let value = sink::value(to, &self.place.env.value, &path)?;
        self.sink(
            &path,
            Sink {
                topic: TopicName::External(to.topic.clone()),
                key,
                value,
            },
        );
        Ok(())
    }
}

/// Name of a record without fields.
const NOTHING: &str = "nothing";

/// The type of what a repartition topic carries: the fields that are read later, and nothing of a value that is not read.
fn carried(ty: &Type, later: &ValueReads) -> Type {
    match (ty, later) {
        (Type::Struct(_), _) => prune(ty, later),
        (_, ValueReads::Nothing) => Type::Struct(Arc::new(StructType {
            name: NOTHING.to_owned(),
            fields: Vec::new(),
        })),
        (_, ValueReads::Fields(_) | ValueReads::Whole) => ty.clone(),
    }
}

/// What records are found by that are the same.
fn key_and(key: Type, by: Type) -> Type {
    let fields = [("key", key), ("by", by)].map(|(name, ty)| Field {
        name: name.to_owned(),
        ty,
    });
    let name = "key".to_owned();
    Type::Struct(Arc::new(StructType {
        name,
        fields: fields.into(),
    }))
}

/// A sub-topology with only its root, named after what it reads.
fn begin(source: Source, path: &Path) -> SubTopology {
    let root = Node {
        path: path.to_string(),
        op: Op::Forward,
        children: Vec::new(),
    };
    SubTopology {
        name: source.name.clone(),
        source,
        nodes: vec![root],
        stores: Vec::new(),
        sinks: Vec::new(),
    }
}
