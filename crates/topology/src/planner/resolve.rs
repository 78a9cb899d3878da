//! First pass: every step with the types that flow into and out of it.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::PlanError;
use super::cogroup::{self, Cogrouped};
use super::compile::{
    Over, compile_aggregation, compile_as, compile_by, compile_flat_map_values, compile_initial, compile_key,
    compile_map, compile_map_values, compile_timestamp, of_table,
};
use super::formats;
use super::join::{self, Joined};
use super::origin::{Origin, ResolvedStream, is_read, places_read_by, read_by, unknown_origin};
use super::sink;
use super::types::Types;
use super::windows;
use crate::declaration::{
    self, Aggregation, Deduplicate, Emit, GroupBy, KeySerde, Map, MapValues, OffsetReset, Operator, Pipeline,
    SourceKind, Stream, Suppress, ToTable, Topology,
};
use crate::plan::{Windows, windowed_key};
use crate::suggest::did_you_mean;
use crate::{Duration, Env, Expr, Path, Type, ValueReads};

/// A pipeline without errors.
pub(crate) struct Resolved<'d> {
    pub(crate) pipeline: &'d Pipeline,
    pub(crate) path: Path,
    pub(crate) from: Origin<'d>,
    pub(crate) steps: Vec<Step<'d>>,
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
    /// Of a table: the condition, and what it is for values that stay.
    FilterTable(&'d str, bool),
    /// Of a table.
    MapTable(&'d MapValues),
    /// As `GroupByKey`.
    GroupBy(&'d GroupBy, &'d str),
    /// Of a table.
    GroupTable(&'d GroupBy, &'d str),
    /// With the name of the repartition topic, where the key was changed before.
    GroupByKey(Option<&'d str>),
    WindowedBy,
    /// With the other streams that are aggregated with this one.
    Aggregate(Aggregation<'d>, Over, Vec<Cogrouped<'d>>),
    Merge(Vec<Origin<'d>>),
    Join(Joined<'d>),
    /// With the name of the repartition topic, where the key was changed before.
    ToTable(&'d ToTable, Option<&'d str>),
    Suppress(&'d Suppress),
    ToStream,
}

impl<'d> Step<'d> {
    /// What it brings in beside its own pipeline, and what it reads of it: none where that is what is read later.
    pub(crate) fn others(&self) -> Vec<(&Origin<'d>, Option<&ValueReads>)> {
        if let StepOp::Merge(origins) = &self.op {
            origins.iter().map(|origin| (origin, None)).collect()
        } else if let StepOp::Join(joined) = &self.op {
            // What is joined is kept as it is.
            vec![(&joined.with, Some(&ValueReads::Whole))]
        } else if let StepOp::Aggregate(_, _, others) = &self.op {
            others
                .iter()
                .map(|other| (&other.with, Some(&other.reads)))
                .collect()
        } else {
            Vec::new()
        }
    }
}

pub(crate) fn resolve<'d>(
    declaration: &'d Topology,
    types: &Types,
    errors: &mut Vec<PlanError>,
) -> Vec<Resolved<'d>> {
    let root = Path::topology();
    let mut ends = Ends::new();
    for (source, kind, path) in declaration.sources() {
        let resolved = resolve_stream(source, kind, &path, types, errors);
        ends.insert(&source.name, resolved.map(End::of));
        if !is_read(declaration, &source.name) {
            let message = format!("no pipeline reads {} `{}`", kind.name(), source.name);
            errors.push(PlanError::new(&path.field("name"), message));
        }
    }
    let mut pipelines = Vec::new();
    let mut waiting: Vec<_> = declaration.pipelines.iter().enumerate().collect();
    // Each pipeline after those that it reads.
    loop {
        let known =
            |(_, pipeline): &(usize, &Pipeline)| read_by(pipeline).all(|name| ends.contains_key(name));
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
            let is_good = |name| matches!(ends.get(name), Some(Some(_)));
            let end = match ends.get(pipeline.from.as_str()) {
                Some(Some(from)) if read_by(pipeline).all(is_good) => {
                    resolve_pipeline(pipeline, &path, from, &ends, errors)
                }
                // What it reads has errors of its own.
                _ => None,
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
        let unknown = places_read_by(pipeline, &path).filter(|(name, _)| !ends.contains_key(*name));
        errors.extend(unknown.map(|(name, path)| unknown_origin(declaration, pipeline, name, &path)));
    }
    pipelines
}

/// What can be read, by name; nothing of what has errors.
type Ends<'d> = BTreeMap<&'d str, Option<End<'d>>>;

/// The records that a stream, a table or a pipeline ends with.
pub(super) struct End<'d> {
    pub(super) origin: Origin<'d>,
    pub(super) env: Env,
    pub(super) kind: Kind,
    pub(super) key_changed: bool,
}

impl<'d> End<'d> {
    fn of(source: ResolvedStream<'d>) -> Self {
        let mut env = formats::env(source.declared.key.serde, source.value.clone());
        let kind = match source.kind {
            SourceKind::Stream => Kind::Stream,
            SourceKind::Table => {
                env.is_of_one_record = false;
                Kind::Table(Lookup::kept(source.declared.history_retention))
            }
        };
        Self {
            kind,
            key_changed: env.is_integer_key,
            env,
            origin: Origin::Source(Rc::new(source)),
        }
    }
}

fn resolve_pipeline<'d>(
    pipeline: &'d Pipeline,
    path: &Path,
    from: &End<'d>,
    ends: &Ends<'d>,
    errors: &mut Vec<PlanError>,
) -> Option<(Resolved<'d>, End<'d>)> {
    let before = errors.len();
    let mut walk = Walk {
        env: from.env.clone(),
        kind: from.kind,
        key_changed: from.key_changed,
        path,
        ends,
        errors,
    };
    let steps = walk.pipeline(pipeline);
    let (env, kind, key_changed) = (walk.env, walk.kind, walk.key_changed);
    if errors.len() > before {
        return None;
    }
    let resolved = Resolved {
        pipeline,
        path: path.clone(),
        from: from.origin.clone(),
        steps,
    };
    let end = End {
        origin: Origin::Pipeline(&pipeline.name),
        env,
        kind,
        key_changed,
    };
    Some((resolved, end))
}

fn resolve_stream<'d>(
    stream: &'d Stream,
    kind: SourceKind,
    path: &Path,
    types: &Types,
    errors: &mut Vec<PlanError>,
) -> Option<ResolvedStream<'d>> {
    if kind == SourceKind::Stream && stream.history_retention.is_some() {
        let message = "only a table has values that are replaced";
        let error = PlanError::new(&path.field("historyRetention"), message);
        errors.push(error.suggest("leave it out, or declare the topic in `tables`"));
    }
    if (kind, stream.offset_reset) == (SourceKind::Table, OffsetReset::Latest) {
        let message = "a table is read from its first record on: otherwise it lacks what was written before";
        let error = PlanError::new(&path.field("offsetReset"), message);
        errors.push(error.suggest("leave it out"));
    }
    if (kind, stream.key.serde) == (SourceKind::Table, KeySerde::Integer) {
        let message = "keys are kept as Long, so values of Integer keys would lie in other partitions than what is joined with them";
        let error = PlanError::new(&path.field("key").field("serde"), message);
        errors.push(
            error.suggest("declare the topic in `streams`, and make it a table with `toTable: {store: …}`"),
        );
    }
    if stream.max_ahead.is_some() && stream.timestamp.is_none() {
        let message = "event time is the record's own timestamp, which is not ahead of itself";
        let error = PlanError::new(&path.field("maxAhead"), message);
        errors.push(error.suggest("leave it out: the topic's `message.timestamp.after.max.ms` bounds that"));
    }
    let value = value_type(stream, path, types, errors)?;
    let mut timestamp_reads = ValueReads::Nothing;
    if let Some(source) = &stream.timestamp {
        let path = path.field("timestamp");
        let env = formats::env(stream.key.serde, value.clone());
        match compile_timestamp(source, &env, &path) {
            Ok(expr) => timestamp_reads = expr.reads().value.clone(),
            Err(wrong) => errors.extend(wrong),
        }
    }
    Some(ResolvedStream {
        declared: stream,
        kind,
        path: path.clone(),
        value,
        timestamp_reads,
    })
}

fn value_type(stream: &Stream, path: &Path, types: &Types, errors: &mut Vec<PlanError>) -> Option<Type> {
    let path = path.field("value");
    let scalar = formats::declared_scalar(stream.value.serde).map(|format| format.ty());
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

pub(super) const NO_AGGREGATION: &str = "a grouping needs an aggregation behind it: `aggregate`, `reduce`, `count`, `sum`, `min`, `max`, \
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
pub(super) enum Kind {
    Stream,
    /// What the aggregation is over.
    Grouped(Over),
    Table(Lookup),
}

/// Whether the values of a table can be looked up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    /// They are in a store.
    Kept,
    /// They are in a store, with those that were before them.
    Versions,
    /// They pass by.
    NotKept,
}

impl Lookup {
    /// In a store that keeps what was replaced for so long.
    pub(super) fn kept(history_retention: Option<Duration>) -> Self {
        match history_retention {
            Some(_) => Self::Versions,
            None => Self::Kept,
        }
    }
}

/// Goes through one pipeline.
struct Walk<'e, 'd> {
    env: Env,
    kind: Kind,
    key_changed: bool,
    path: &'e Path,
    ends: &'e Ends<'d>,
    errors: &'e mut Vec<PlanError>,
}

impl<'d> Walk<'_, 'd> {
    fn pipeline(&mut self, pipeline: &'d Pipeline) -> Vec<Step<'d>> {
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
        self.end(pipeline);
        steps
    }

    /// Whether something can be said about the steps behind one with an error. Takes over what is known.
    fn knows_result(&mut self, operator: Option<Operator<'_>>) -> bool {
        match operator {
            Some(Operator::Filter(_) | Operator::FilterNot(_)) => true,
            // `initial` gives the type, whatever is wrong with `add`.
            Some(Operator::Aggregate(aggregation @ Aggregation::Aggregate(aggregate))) => {
                let Kind::Grouped(over) = self.kind else {
                    return false;
                };
                let Ok(initial) = compile_initial(aggregate, &self.env, self.path) else {
                    return false;
                };
                self.aggregated(aggregation, over.windows(), initial.ty().clone());
                true
            }
            Some(
                Operator::SelectKey(_)
                | Operator::MapValues(_)
                | Operator::Map(_)
                | Operator::FlatMapValues(_)
                | Operator::Merge(_)
                | Operator::Join(..)
                | Operator::Deduplicate(_)
                | Operator::GroupBy(_)
                | Operator::GroupByKey(_)
                | Operator::WindowedBy(_)
                | Operator::Aggregate(_)
                | Operator::ToTable(_)
                | Operator::Suppress(_)
                | Operator::ToStream,
            )
            | None => false,
        }
    }

    /// Behind an aggregation whose values have this type.
    fn aggregated(&mut self, aggregation: Aggregation<'_>, windows: Option<Windows>, value: Type) {
        aggregated(&mut self.env, aggregation.emit(), windows, value);
        // What a window has when it closes is not there any more.
        let lookup = match windows {
            None => Lookup::Kept,
            Some(_) => Lookup::NotKept,
        };
        self.kind = Kind::Table(lookup);
    }

    fn end(&mut self, pipeline: &Pipeline) {
        let to = pipeline.to.as_ref();
        let path = to.map_or_else(|| self.path.field("steps"), |_| self.path.field("to"));
        match (self.kind, to) {
            (Kind::Stream | Kind::Table(_), None) => {}
            (Kind::Stream, Some(to)) => {
                self.errors.extend(formats::key(to, &self.env, &path).err());
                self.errors
                    .extend(formats::value(to, &self.env.value, &path).err());
                let headers = sink::headers(to, &self.env, &path).err();
                let route = sink::route(to, &self.env, &path).err();
                self.errors
                    .extend([route, headers].into_iter().flatten().flatten());
            }
            (Kind::Grouped(_), _) => {
                let error = PlanError::new(&self.path.field("steps"), NO_AGGREGATION);
                self.errors.push(error);
            }
            (Kind::Table(_), Some(_)) => {
                let error = PlanError::new(&path, "this is a table, a stream is needed here");
                self.errors.push(error.suggest("add the step `toStream: {}`"));
            }
        }
    }

    fn operator(
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
                self.env.choose_key(expr.ty().clone());
                self.key_changed = true;
                (StepOp::SelectKey(source), expr.reads().value.clone())
            }
            Operator::Filter(source) | Operator::FilterNot(source) => {
                let expr = compile_as(source, &Type::Bool, &self.env, &path)?;
                let keeps = matches!(operator, Operator::Filter(_));
                let reads = expr.reads().value.clone();
                let op = match (self.computed(expr, &path)?, keeps) {
                    (true, _) => StepOp::FilterTable(source, keeps),
                    (false, true) => StepOp::Filter(source),
                    (false, false) => StepOp::FilterNot(source),
                };
                (op, reads)
            }
            Operator::MapValues(map) => {
                let expr = compile_map_values(map, &self.env, &path)?;
                let (ty, reads) = (expr.ty().clone(), expr.reads().value.clone());
                let op = match self.computed(expr, &path)? {
                    true => StepOp::MapTable(map),
                    false => StepOp::MapValues(map),
                };
                self.env.value = ty;
                (op, reads)
            }
            Operator::Map(map) => {
                let (key, value) = compile_map(map, &self.env, &path)?;
                let mut reads = key.reads().value.clone();
                reads.add(&value.reads().value);
                self.env.choose_key(key.ty().clone());
                self.env.value = value.ty().clone();
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
                formats::key_format(&self.env.key, &path)?;
                let reads = by.map(|by| by.reads().value.clone()).unwrap_or_default();
                let cut = self.cut().then_some(declared.store.as_str());
                (StepOp::Deduplicate(declared, cut), reads)
            }
            Operator::Merge(merge) => {
                let path = path.field("with");
                let others = merge.with.iter().enumerate().map(|(index, name)| {
                    let path = path.index(index);
                    Ok((self.end_of(name, &path)?, path))
                });
                let others = others.collect::<Result<Vec<_>, PlanError>>()?;
                join::check_merge(&self.env, &others, &path)?;
                let all = || others.iter().map(|(other, _)| other);
                let is_of_one_record = all().all(|other| other.env.is_of_one_record);
                let key_changed = all().any(|other| other.key_changed);
                let is_integer_key = all().any(|other| other.env.is_integer_key);
                let origins = all().map(|other| other.origin.clone()).collect();
                self.env.is_of_one_record &= is_of_one_record;
                self.env.is_integer_key |= is_integer_key;
                self.key_changed |= key_changed;
                (StepOp::Merge(origins), ValueReads::Nothing)
            }
            Operator::Join(kind, declared) => {
                let with = self.end_of(&declared.with, &path.field("with"))?;
                let here = join::Here {
                    env: &self.env,
                    kind: self.kind,
                    key_changed: self.key_changed,
                };
                let joined = join::resolve(kind, declared, &here, with, &path)?;
                joined.follow(&mut self.env);
                self.kind = joined.result();
                self.key_changed = false;
                self.env.is_integer_key = false;
                let reads = joined.reads.clone();
                (StepOp::Join(joined), reads)
            }
            Operator::ToTable(declared) => {
                formats::key_format(&self.env.key, &path)?;
                let cut = self.cut().then_some(declared.store.as_str());
                self.kind = Kind::Table(Lookup::kept(declared.history_retention));
                self.env.is_of_one_record = false;
                (StepOp::ToTable(declared, cut), ValueReads::Whole)
            }
            Operator::GroupBy(group) => {
                let Some(aggregation) = aggregation_of(behind) else {
                    return Err(PlanError::new(&path, NO_AGGREGATION).into());
                };
                let at = path.field("key");
                let key = compile_key(&group.key, &self.env, &at)?;
                let (ty, reads) = (key.ty().clone(), key.reads().value.clone());
                let name = group.name.as_deref().unwrap_or(aggregation.store());
                let (op, over) = match self.computed(key, &at)? {
                    true => (StepOp::GroupTable(group, name), Over::Table),
                    false => (StepOp::GroupBy(group, name), Over::Stream),
                };
                self.kind = Kind::Grouped(over);
                self.env.choose_key(ty);
                self.env.is_of_one_record = true;
                self.key_changed = false;
                (op, reads)
            }
            Operator::GroupByKey(group) => {
                let Some(aggregation) = aggregation_of(behind) else {
                    return Err(PlanError::new(&path, NO_AGGREGATION).into());
                };
                self.kind = Kind::Grouped(Over::Stream);
                let name = group.name.as_deref().unwrap_or(aggregation.store());
                (
                    StepOp::GroupByKey(self.cut().then_some(name)),
                    ValueReads::Nothing,
                )
            }
            Operator::WindowedBy(declared) => {
                self.kind = Kind::Grouped(Over::Windows(windows::resolve(declared, &path)?));
                (StepOp::WindowedBy, ValueReads::Nothing)
            }
            Operator::Aggregate(aggregation) => {
                let over = match self.kind {
                    Kind::Grouped(over) => over,
                    Kind::Stream | Kind::Table(_) => Over::Stream,
                };
                let windows = over.windows();
                if windows.is_none() && aggregation.emit() != Emit::OnUpdate {
                    let message = "only a window closes, and the aggregation has none";
                    let error = PlanError::new(&path.field("emit"), message);
                    return Err(error
                        .suggest("add the step `windowedBy` before it, or leave `emit` out")
                        .into());
                }
                formats::key_format(&self.env.key, &path)?;
                let folds = compile_aggregation(aggregation, over, &self.env, &path)?;
                let ty = folds.first.expr().ty().clone();
                let others = self.cogroup(aggregation, over, &ty, &path)?;
                self.aggregated(aggregation, windows, ty);
                (StepOp::Aggregate(aggregation, over, others), folds.reads())
            }
            Operator::Suppress(declared) => {
                self.kind = Kind::Table(Lookup::NotKept);
                self.env.is_of_one_record = false;
                (StepOp::Suppress(declared), ValueReads::Whole)
            }
            Operator::ToStream => {
                self.kind = Kind::Stream;
                (StepOp::ToStream, ValueReads::Nothing)
            }
        })
    }

    /// The other streams of an aggregation. On errors: all of them.
    fn cogroup(
        &self,
        aggregation: Aggregation<'d>,
        over: Over,
        ty: &Type,
        path: &Path,
    ) -> Result<Vec<Cogrouped<'d>>, Vec<PlanError>> {
        let path = path.field("cogroup");
        if over == Over::Table && !aggregation.cogroup().is_empty() {
            let message = "only streams are aggregated together, and these are values of a table";
            let error = PlanError::new(&path, message);
            return Err(error
                .suggest("take each update as a record: `toStream: {}` before the grouping")
                .into());
        }
        let (mut others, mut errors) = (Vec::new(), Vec::new());
        for (index, declared) in aggregation.cogroup().iter().enumerate() {
            let path = path.index(index);
            let end = self.end_of(&declared.with, &path.field("with"))?;
            match cogroup::resolve(aggregation, declared, (&self.env.key, ty), end, &path) {
                Ok(other) => others.push(other),
                Err(wrong) => errors.extend(wrong),
            }
        }
        if errors.is_empty() {
            Ok(others)
        } else {
            Err(errors)
        }
    }

    /// Whether a step's expression is computed of a table's values, which are not kept then.
    fn computed(&mut self, expr: Expr, path: &Path) -> Result<bool, PlanError> {
        let is_of_table = matches!(self.kind, Kind::Table(_));
        if is_of_table {
            of_table(expr, path)?;
            self.kind = Kind::Table(Lookup::NotKept);
        }
        Ok(is_of_table)
    }

    /// What has this name.
    fn end_of(&self, name: &str, path: &Path) -> Result<&End<'d>, PlanError> {
        let end = self.ends.get(name).and_then(Option::as_ref);
        end.ok_or_else(|| PlanError::new(path, format!("unknown stream, table or pipeline `{name}`")))
    }

    /// Whether records must go through a repartition topic here; behind it they have coordinates again.
    fn cut(&mut self) -> bool {
        let cut = std::mem::take(&mut self.key_changed);
        self.env.is_of_one_record |= cut;
        self.env.is_integer_key = false;
        cut
    }

    fn allowed(&self, operator: &Operator<'_>, path: &Path) -> Result<(), PlanError> {
        let name = operator.name();
        let path = path.field(name);
        match (operator, self.kind) {
            (Operator::Aggregate(_), Kind::Grouped(_))
            | (Operator::WindowedBy(_), Kind::Grouped(Over::Stream))
            | (Operator::ToTable(_), Kind::Table(Lookup::NotKept))
            | (
                Operator::ToStream
                | Operator::Suppress(_)
                | Operator::Join(..)
                | Operator::Filter(_)
                | Operator::FilterNot(_)
                | Operator::MapValues(_)
                | Operator::GroupBy(_),
                Kind::Table(_),
            ) => Ok(()),
            (Operator::WindowedBy(_), Kind::Grouped(Over::Table)) => {
                let message = "the values of a table have no windows, only records have";
                let error = PlanError::new(&path, message);
                Err(error.suggest("take each update as a record: `toStream: {}` before the grouping"))
            }
            (Operator::ToTable(_), Kind::Table(Lookup::Kept | Lookup::Versions)) => {
                Err(PlanError::new(&path, "this is a table that is kept already").suggest("leave it out"))
            }
            (Operator::Aggregate(_) | Operator::WindowedBy(_), Kind::Stream | Kind::Table(_)) => {
                let error = PlanError::new(&path, format!("`{name}` needs a grouping before it"));
                Err(error.suggest("add the step `groupByKey: {}`"))
            }
            (Operator::ToStream | Operator::Suppress(_), Kind::Stream | Kind::Grouped(_)) => {
                let message = format!("`{name}` goes only behind a table");
                Err(PlanError::new(&path, message).suggest("leave it out"))
            }
            (_, Kind::Stream) => Ok(()),
            (_, Kind::Grouped(Over::Windows(_))) => Err(PlanError::new(
                &path,
                format!("`{name}` cannot follow `windowedBy`"),
            )),
            (_, Kind::Grouped(Over::Stream | Over::Table)) => Err(PlanError::new(
                &path,
                format!("`{name}` cannot follow a grouping"),
            )),
            (_, Kind::Table(_)) => {
                let message = format!("`{name}` needs a stream, this is a table");
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
