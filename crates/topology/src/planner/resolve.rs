//! First pass: every step with the types that flow into and out of it.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::PlanError;
use super::compile::{
    Folds, compile_aggregation, compile_as, compile_by, compile_flat_map_values, compile_initial,
    compile_key, compile_map, compile_map_values, compile_timestamp,
};
use super::sink;
use super::types::Types;
use super::windows;
use crate::declaration::{
    self, Aggregation, Deduplicate, Emit, KeySerde, Map, MapValues, Operator, Pipeline, SinkTopic, Stream,
    Topology, ValueSerde,
};
use crate::plan::{Windows, windowed_key};
use crate::suggest::did_you_mean;
use crate::{Env, Path, Type, ValueReads};

/// A pipeline without errors.
pub(crate) struct Resolved<'d> {
    pub(crate) pipeline: &'d Pipeline,
    pub(crate) path: Path,
    /// The stream that its records come from in the end.
    pub(crate) stream: Rc<ResolvedStream<'d>>,
    /// The pipeline that it reads, unless that is the stream.
    pub(crate) parent: Option<&'d str>,
    pub(crate) steps: Vec<Step<'d>>,
}

/// A stream without errors.
pub(crate) struct ResolvedStream<'d> {
    pub(crate) declared: &'d Stream,
    pub(crate) path: Path,
    /// Types of its records, with all fields.
    pub(crate) key: Type,
    pub(crate) value: Type,
    /// What its `timestamp` reads.
    pub(crate) timestamp_reads: ValueReads,
}

/// One step, with what it reads of a record's value.
pub(crate) struct Step<'d> {
    pub(crate) path: Path,
    pub(crate) op: StepOp<'d>,
    pub(crate) reads: ValueReads,
}

pub(crate) enum StepOp<'d> {
    SelectKey(&'d str),
    Filter(&'d str),
    FilterNot(&'d str),
    MapValues(&'d MapValues),
    Map(&'d Map),
    FlatMapValues(&'d str),
    /// With the name of the repartition topic, where the key was changed before.
    Deduplicate(&'d Deduplicate, Option<&'d str>),
    /// The same.
    GroupByKey(Option<&'d str>),
    WindowedBy,
    Aggregate(Aggregation<'d>, Option<Windows>),
    ToStream,
}

pub(crate) fn resolve<'d>(
    declaration: &'d Topology,
    types: &Types,
    errors: &mut Vec<PlanError>,
) -> Vec<Resolved<'d>> {
    let root = Path::topology();
    let mut ends = Ends::new();
    for (index, stream) in declaration.streams.iter().enumerate() {
        let path = root.field("streams").index(index);
        let resolved = resolve_stream(stream, &path, types, errors);
        ends.insert(&stream.name, resolved.map(End::of));
        if !is_read(declaration, &stream.name) {
            let message = format!("no pipeline reads stream `{}`", stream.name);
            errors.push(PlanError::new(&path.field("name"), message));
        }
    }
    let mut pipelines = Vec::new();
    let mut waiting: Vec<_> = declaration.pipelines.iter().enumerate().collect();
    // Each pipeline after the one that it reads.
    loop {
        let known = |(_, pipeline): &(usize, &Pipeline)| ends.contains_key(pipeline.from.as_str());
        let (ready, others): (Vec<_>, Vec<_>) = waiting.into_iter().partition(known);
        waiting = others;
        if ready.is_empty() {
            break;
        }
        for (index, pipeline) in ready {
            let path = root.field("pipelines").index(index);
            if pipeline.to.is_none() && !is_read(declaration, &pipeline.name) {
                let message = format!("the results of pipeline `{}` go nowhere", pipeline.name);
                errors.push(PlanError::new(&path, message).suggest("add `to`, or a pipeline that reads it"));
            }
            let end = match ends.get(pipeline.from.as_str()) {
                Some(Some(from)) => resolve_pipeline(pipeline, &path, from, errors),
                // What it reads has errors of its own.
                Some(None) | None => None,
            };
            let end = end.map(|(resolved, end)| {
                pipelines.push(resolved);
                end
            });
            ends.entry(&pipeline.name).or_insert(end);
        }
    }
    for (index, pipeline) in waiting {
        let path = root.field("pipelines").index(index);
        errors.push(unknown_from(declaration, pipeline, &path));
    }
    pipelines
}

/// What can be read, by name; nothing of what has errors.
type Ends<'d> = BTreeMap<&'d str, Option<End<'d>>>;

/// The records that a stream or a pipeline ends with.
struct End<'d> {
    stream: Rc<ResolvedStream<'d>>,
    pipeline: Option<&'d str>,
    env: Env,
    key_changed: bool,
}

impl<'d> End<'d> {
    fn of(stream: ResolvedStream<'d>) -> Self {
        Self {
            env: Env::of_record(stream.key.clone(), stream.value.clone()),
            stream: Rc::new(stream),
            pipeline: None,
            key_changed: false,
        }
    }
}

fn is_read(declaration: &Topology, name: &str) -> bool {
    declaration.pipelines.iter().any(|pipeline| pipeline.from == name)
}

fn resolve_pipeline<'d>(
    pipeline: &'d Pipeline,
    path: &Path,
    from: &End<'d>,
    errors: &mut Vec<PlanError>,
) -> Option<(Resolved<'d>, End<'d>)> {
    let before = errors.len();
    let mut walk = Walk {
        env: from.env.clone(),
        kind: Kind::Stream,
        key_changed: from.key_changed,
        path,
        errors,
    };
    let steps = walk.pipeline(pipeline);
    let (env, key_changed) = (walk.env, walk.key_changed);
    if errors.len() > before {
        return None;
    }
    let resolved = Resolved {
        pipeline,
        path: path.clone(),
        stream: Rc::clone(&from.stream),
        parent: from.pipeline,
        steps,
    };
    let end = End {
        stream: Rc::clone(&from.stream),
        pipeline: Some(&pipeline.name),
        env,
        key_changed,
    };
    Some((resolved, end))
}

/// Why a pipeline reads nothing that is there.
fn unknown_from(declaration: &Topology, pipeline: &Pipeline, path: &Path) -> PlanError {
    let path = path.field("from");
    let from = &pipeline.from;
    let pipelines = declaration.pipelines.iter().map(|other| other.name.as_str());
    if pipelines.clone().any(|name| name == from) {
        let message = format!(
            "pipeline `{from}` reads no stream in the end: it is read in a circle, or reads what is not there"
        );
        return PlanError::new(&path, message);
    }
    let streams = declaration.streams.iter().map(|stream| stream.name.as_str());
    let names: Vec<_> = streams
        .chain(pipelines.filter(|name| *name != pipeline.name))
        .collect();
    PlanError {
        suggestion: did_you_mean(from, "streams and pipelines", &names),
        ..PlanError::new(&path, format!("unknown stream or pipeline `{from}`"))
    }
}

fn resolve_stream<'d>(
    stream: &'d Stream,
    path: &Path,
    types: &Types,
    errors: &mut Vec<PlanError>,
) -> Option<ResolvedStream<'d>> {
    let key = key_type(stream.key.serde);
    let value = value_type(stream, path, types, errors)?;
    let mut timestamp_reads = ValueReads::Nothing;
    if let Some(source) = &stream.timestamp {
        let path = path.field("timestamp");
        let env = Env::of_record(key.clone(), value.clone());
        match compile_timestamp(source, &env, &path) {
            Ok(expr) => timestamp_reads = expr.reads().value.clone(),
            Err(wrong) => errors.extend(wrong),
        }
    }
    Some(ResolvedStream {
        declared: stream,
        path: path.clone(),
        key,
        value,
        timestamp_reads,
    })
}

fn key_type(serde: KeySerde) -> Type {
    match serde {
        KeySerde::String => Type::String,
        KeySerde::Bytes => Type::Bytes,
        KeySerde::Long => Type::Int,
    }
}

fn value_type(stream: &Stream, path: &Path, types: &Types, errors: &mut Vec<PlanError>) -> Option<Type> {
    let path = path.field("value");
    let scalar = match stream.value.serde {
        ValueSerde::Json => None,
        ValueSerde::String => Some(Type::String),
        ValueSerde::Bytes => Some(Type::Bytes),
        ValueSerde::Long => Some(Type::Int),
    };
    let error = match (&stream.value.type_name, scalar) {
        (None, Some(scalar)) => return Some(scalar),
        (Some(name), None) => match types.get(name) {
            Some(ty) => return Some(Type::Struct(ty.clone())),
            None => {
                let names: Vec<_> = types.keys().map(String::as_str).collect();
                PlanError {
                    suggestion: did_you_mean(name, "types", &names),
                    ..PlanError::new(&path.field("type"), format!("unknown type `{name}`"))
                }
            }
        },
        (None, None) => PlanError::new(&path, "`serde: Json` needs `type`, the name of a declared type"),
        (Some(_), Some(_)) => {
            PlanError::new(&path.field("type"), "`type` goes only with `serde: Json`").suggest("leave it out")
        }
    };
    errors.push(error);
    None
}

pub(super) const NO_AGGREGATION: &str = "`groupByKey` needs an aggregation behind it: `aggregate`, `reduce`, `count`, `sum`, `min`, `max`, \
                              `earliest`, `latest`, `collect` or `topK`";

/// The types behind an aggregation.
pub(super) fn aggregated(env: &mut Env, emit: Emit, windows: Option<Windows>, value: Type) {
    env.value = value;
    if windows.is_some() {
        env.key = windowed_key(env.key.clone());
    }
    env.windows = windows;
    env.is_of_one_record &= emit == Emit::OnUpdate;
}

/// The aggregation that a grouping is for, in the steps behind it.
fn aggregation_of(behind: &[declaration::Step]) -> Option<Aggregation<'_>> {
    let mut operators = behind.iter().map(|step| step.operator().ok());
    let mut next = operators.next()?;
    if let Some(Operator::WindowedBy(_)) = next {
        next = operators.next()?;
    }
    if let Some(Operator::Aggregate(aggregation)) = next {
        Some(aggregation)
    } else {
        None
    }
}

/// What the previous step allows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stream,
    Grouped,
    Windowed(Windows),
    Table,
}

/// Goes through one pipeline.
struct Walk<'e> {
    env: Env,
    kind: Kind,
    key_changed: bool,
    path: &'e Path,
    errors: &'e mut Vec<PlanError>,
}

impl Walk<'_> {
    fn pipeline<'d>(&mut self, pipeline: &'d Pipeline) -> Vec<Step<'d>> {
        let mut steps: Vec<Step<'d>> = Vec::new();
        for (index, declared) in pipeline.steps.iter().enumerate() {
            let path = self.path.field("steps").index(index);
            let resolved = match declared.operator() {
                Ok(operator) => self.operator(operator, &pipeline.steps[index + 1..], &path),
                Err(set) => Err(not_one(&set, &path).into()),
            };
            match resolved {
                Ok((op, reads)) => steps.push(Step { path, op, reads }),
                Err(errors) => {
                    self.errors.extend(errors);
                    if !self.knows_result(declared.operator().ok()) {
                        return steps;
                    }
                }
            }
        }
        self.end(pipeline.to.as_ref());
        steps
    }

    /// Whether something can be said about the steps behind one with an error. Takes over what is known.
    fn knows_result(&mut self, operator: Option<Operator<'_>>) -> bool {
        match operator {
            Some(Operator::Filter(_) | Operator::FilterNot(_)) => {
                // A forgotten `toStream` is told once.
                if self.kind == Kind::Table {
                    self.kind = Kind::Stream;
                }
                true
            }
            // `initial` gives the type, whatever is wrong with `add`.
            Some(Operator::Aggregate(aggregation @ Aggregation::Aggregate(aggregate))) => {
                let windows = match self.kind {
                    Kind::Grouped => None,
                    Kind::Windowed(windows) => Some(windows),
                    Kind::Stream | Kind::Table => return false,
                };
                let Ok(initial) = compile_initial(aggregate, &self.env, self.path) else {
                    return false;
                };
                self.aggregated(aggregation, windows, initial.ty().clone());
                true
            }
            Some(
                Operator::SelectKey(_)
                | Operator::MapValues(_)
                | Operator::Map(_)
                | Operator::FlatMapValues(_)
                | Operator::Deduplicate(_)
                | Operator::GroupByKey(_)
                | Operator::WindowedBy(_)
                | Operator::Aggregate(_)
                | Operator::ToStream,
            )
            | None => false,
        }
    }

    /// Behind an aggregation whose values have this type.
    fn aggregated(&mut self, aggregation: Aggregation<'_>, windows: Option<Windows>, value: Type) {
        aggregated(&mut self.env, aggregation.emit(), windows, value);
        self.kind = Kind::Table;
    }

    fn end(&mut self, to: Option<&SinkTopic>) {
        let path = to.map_or_else(|| self.path.field("steps"), |_| self.path.field("to"));
        match (self.kind, to) {
            (Kind::Stream, None) => {}
            (Kind::Stream, Some(to)) => {
                self.errors.extend(sink::key(to, &self.env, &path).err());
                self.errors.extend(sink::value(to, &self.env.value, &path).err());
            }
            (Kind::Grouped | Kind::Windowed(_), _) => {
                let error = PlanError::new(&self.path.field("steps"), NO_AGGREGATION);
                self.errors.push(error);
            }
            (Kind::Table, _) => {
                let message = "the result of an aggregation is a table, a stream is needed here";
                let error = PlanError::new(&path, message);
                self.errors.push(error.suggest("add the step `toStream: {}`"));
            }
        }
    }

    fn operator<'d>(
        &mut self,
        operator: Operator<'d>,
        behind: &'d [declaration::Step],
        path: &Path,
    ) -> Result<(StepOp<'d>, ValueReads), Vec<PlanError>> {
        self.allowed(&operator, path)?;
        let path = path.field(operator.name());
        Ok(match operator {
            Operator::SelectKey(source) => {
                let expr = compile_key(source, &self.env, &path)?;
                self.env.key = expr.ty().clone();
                self.key_changed = true;
                (StepOp::SelectKey(source), expr.reads().value.clone())
            }
            Operator::Filter(source) => {
                let expr = compile_as(source, &Type::Bool, &self.env, &path)?;
                (StepOp::Filter(source), expr.reads().value.clone())
            }
            Operator::FilterNot(source) => {
                let expr = compile_as(source, &Type::Bool, &self.env, &path)?;
                (StepOp::FilterNot(source), expr.reads().value.clone())
            }
            Operator::MapValues(map) => {
                let expr = compile_map_values(map, &self.env, &path)?;
                self.env.value = expr.ty().clone();
                (StepOp::MapValues(map), expr.reads().value.clone())
            }
            Operator::Map(map) => {
                let (key, value) = compile_map(map, &self.env, &path)?;
                let mut reads = key.reads().value.clone();
                reads.add(&value.reads().value);
                (self.env.key, self.env.value) = (key.ty().clone(), value.ty().clone());
                self.key_changed = true;
                (StepOp::Map(map), reads)
            }
            Operator::FlatMapValues(source) => {
                let (expr, item) = compile_flat_map_values(source, &self.env, &path)?;
                self.env.value = item;
                (StepOp::FlatMapValues(source), expr.reads().value.clone())
            }
            Operator::Deduplicate(declared) => {
                let by = compile_by(declared, &self.env, &path)?;
                sink::key_format(&self.env.key, &path)?;
                let reads = by.map(|by| by.reads().value.clone()).unwrap_or_default();
                let cut = self.cut().then_some(declared.store.as_str());
                (StepOp::Deduplicate(declared, cut), reads)
            }
            Operator::GroupByKey(group) => {
                let Some(aggregation) = aggregation_of(behind) else {
                    return Err(PlanError::new(&path, NO_AGGREGATION).into());
                };
                self.kind = Kind::Grouped;
                let name = group.name.as_deref().unwrap_or(aggregation.store());
                (
                    StepOp::GroupByKey(self.cut().then_some(name)),
                    ValueReads::Nothing,
                )
            }
            Operator::WindowedBy(declared) => {
                self.kind = Kind::Windowed(windows::resolve(declared, &path)?);
                (StepOp::WindowedBy, ValueReads::Nothing)
            }
            Operator::Aggregate(aggregation) => {
                let windows = match self.kind {
                    Kind::Windowed(windows) => Some(windows),
                    Kind::Stream | Kind::Grouped | Kind::Table => None,
                };
                if windows.is_none() && aggregation.emit() != Emit::OnUpdate {
                    let message = "only a window closes, and the aggregation has none";
                    let error = PlanError::new(&path.field("emit"), message);
                    return Err(error
                        .suggest("add the step `windowedBy` before it, or leave `emit` out")
                        .into());
                }
                sink::key_format(&self.env.key, &path)?;
                let Folds { first, add, .. } = compile_aggregation(aggregation, windows, &self.env, &path)?;
                let mut reads = first.expr().reads().value.clone();
                reads.add(&add.reads().value);
                self.aggregated(aggregation, windows, first.expr().ty().clone());
                (StepOp::Aggregate(aggregation, windows), reads)
            }
            Operator::ToStream => {
                self.kind = Kind::Stream;
                (StepOp::ToStream, ValueReads::Nothing)
            }
        })
    }

    /// Whether records must go through a repartition topic here; behind it they have coordinates again.
    fn cut(&mut self) -> bool {
        let cut = std::mem::take(&mut self.key_changed);
        self.env.is_of_one_record |= cut;
        cut
    }

    fn allowed(&self, operator: &Operator<'_>, path: &Path) -> Result<(), PlanError> {
        let name = operator.name();
        let path = path.field(name);
        match (operator, self.kind) {
            (Operator::Aggregate(_), Kind::Grouped | Kind::Windowed(_))
            | (Operator::WindowedBy(_), Kind::Grouped)
            | (Operator::ToStream, Kind::Table) => Ok(()),
            (Operator::Aggregate(_) | Operator::WindowedBy(_), Kind::Stream | Kind::Table) => {
                let error = PlanError::new(&path, format!("`{name}` needs a grouping before it"));
                Err(error.suggest("add the step `groupByKey: {}`"))
            }
            (Operator::ToStream, Kind::Stream | Kind::Grouped | Kind::Windowed(_)) => Err(PlanError::new(
                &path,
                "`toStream` goes only behind an aggregation",
            )
            .suggest("leave it out")),
            (_, Kind::Stream) => Ok(()),
            (_, Kind::Grouped) => Err(PlanError::new(
                &path,
                format!("`{name}` cannot follow `groupByKey`"),
            )),
            (_, Kind::Windowed(_)) => Err(PlanError::new(
                &path,
                format!("`{name}` cannot follow `windowedBy`"),
            )),
            (_, Kind::Table) => {
                let message = format!("`{name}` needs a stream, the result of an aggregation is a table");
                Err(PlanError::new(&path, message).suggest("add the step `toStream: {}` before it"))
            }
        }
    }
}

fn not_one(set: &[&str], path: &Path) -> PlanError {
    if set.is_empty() {
        return PlanError::new(path, "the step has no operator");
    }
    let names: Vec<_> = set.iter().map(|name| format!("`{name}`")).collect();
    PlanError::new(
        path,
        format!("the step has {} operators: {}", set.len(), names.join(", ")),
    )
    .suggest("make each a step of its own")
}
