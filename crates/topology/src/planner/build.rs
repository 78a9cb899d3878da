//! Third pass: operators, stores, sinks; cuts at repartition topics.

mod joins;

use std::collections::BTreeMap;

use super::cogroup::{self, Cogrouped};
use super::compile::{
    Folds, Over, compile, compile_aggregation, compile_as, compile_by, compile_flat_map_values, compile_key,
    compile_map, compile_map_values, compile_timestamp,
};
use super::formats::key_format;
use super::live::{live, prune};
use super::origin::{Origin, OriginId, ResolvedStream, SourceOrPipeline};
use super::parts::{Parts, Place};
use super::resolve::{Resolved, Step, StepOp, aggregated};
use super::{PlanError, formats, sink, windows};
use crate::declaration::{
    Aggregation, Emit as DeclaredEmit, GroupBy, OffsetReset as DeclaredReset, OnBadRecord as DeclaredBad,
    SinkTopic, SourceKind,
};
use crate::fingerprint::{canonical_format, canonical_type, digest};
use crate::plan::{
    Emit, Format, Node, NodeIndex, OffsetReset, OnBadRecord, Op, Sink, SinkHeaders, SinkIndex, Source,
    StoreIndex, StoreSpec, SubTopology, TopicName, Windows, change,
};
use crate::{Env, Expr, Path, Type, ValueReads};

/// The sub-topologies of pipelines, of which each comes after those that it reads; in the order in which records flow.
///
/// # Errors
/// None for pipelines that [`super::resolve`] accepted, unless that and this module disagree.
pub(crate) fn build(pipelines: &[Resolved<'_>]) -> Result<Vec<SubTopology>, Vec<PlanError>> {
    let (live, reads) = live_of_all(pipelines);
    let mut builder = Builder::default();
    let mut errors = Vec::new();
    for source in sources(pipelines) {
        let mut reads = reads.get(&source.id()).cloned().unwrap_or_default();
        if let Origin::Source(source) = &source {
            reads.add(&source.timestamp_reads);
            let begun = builder.source(source, &reads);
            errors.extend(begun.err().into_iter().flatten());
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    for (pipeline, live) in pipelines.iter().zip(&live) {
        builder.pipeline(pipeline, live)?;
    }
    Ok(builder.parts.in_order())
}

/// What the pipelines read that is no pipeline, in the order in which they do.
fn sources<'d>(pipelines: &[Resolved<'d>]) -> Vec<Origin<'d>> {
    let mut found = Vec::<Origin<'d>>::new();
    for pipeline in pipelines {
        let others = pipeline.steps.iter().flat_map(|step| step.others());
        let others = others.map(|(origin, _)| origin);
        for origin in std::iter::once(&pipeline.from).chain(others) {
            let is_new = found.iter().all(|other| other.id() != origin.id());
            if matches!(origin, Origin::Source(_)) && is_new {
                found.push(origin.clone());
            }
        }
    }
    found
}

/// What is read later: by pipeline and step, and of each origin. A pipeline comes before those that read it.
fn live_of_all<'d>(pipelines: &[Resolved<'d>]) -> (Vec<Vec<ValueReads>>, BTreeMap<OriginId<'d>, ValueReads>) {
    let mut of = BTreeMap::<OriginId<'d>, ValueReads>::new();
    let mut all = Vec::with_capacity(pipelines.len());
    for pipeline in pipelines.iter().rev() {
        let declared = pipeline.pipeline;
        let own = (SourceOrPipeline::Pipeline, declared.name.as_str());
        let mut end = of.remove(&own).unwrap_or_default();
        if declared.to.is_some() {
            end.add(&ValueReads::Whole);
        }
        let live = live(pipeline, end);
        for (step, later) in pipeline.steps.iter().zip(&live[1..]) {
            for (other, reads) in step.others() {
                of.entry(other.id()).or_default().add(reads.unwrap_or(later));
            }
        }
        let first = live.first().unwrap_or(&ValueReads::Whole);
        of.entry(pipeline.from.id()).or_default().add(first);
        all.push(live);
    }
    all.reverse();
    (all, of)
}

/// Builds all parts.
#[derive(Default)]
struct Builder<'d> {
    parts: Parts,
    /// Where sources begin and pipelines end.
    ends: BTreeMap<OriginId<'d>, Place>,
}

impl<'d> Builder<'d> {
    /// Begins a part that reads a stream or a table.
    fn source(&mut self, source: &ResolvedStream<'d>, reads: &ValueReads) -> Result<(), Vec<PlanError>> {
        let declared = source.declared;
        let whole = ValueReads::Whole;
        let reads = match source.kind {
            SourceKind::Stream => reads,
            SourceKind::Table => &whole,
        };
        let (mut planned, env) = planned(source, reads)?;
        let mut sinks = Vec::new();
        if let Some(topic) = &declared.dead_letter_topic {
            planned.dead_letters = Some(sinks.len());
            sinks.push(dead_letters(TopicName::External(topic.clone())));
        }
        let place = Place {
            at: self.parts.begin(planned, sinks, source.kind, &source.path),
            last: 0,
            store: None,
            env,
        };
        let mut track = Track { builder: self, place };
        if source.kind == SourceKind::Table {
            let versions = windows::of_versions(declared.history_retention);
            track.table(&declared.name, versions, &source.path)?;
        }
        let place = track.place;
        let id = (SourceOrPipeline::Source, declared.name.as_str());
        self.ends.insert(id, place);
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Resolved<'d>, live: &[ValueReads]) -> Result<(), Vec<PlanError>> {
        let place = self.end(&pipeline.from, &pipeline.path)?;
        let mut track = Track { builder: self, place };
        for (step, later) in pipeline.steps.iter().zip(&live[1..]) {
            track.step(step, later)?;
        }
        if let Some(to) = &pipeline.pipeline.to {
            track.end(to, &pipeline.path.field("to"))?;
        }
        let place = track.place;
        let id = (SourceOrPipeline::Pipeline, pipeline.pipeline.name.as_str());
        self.ends.insert(id, place);
        Ok(())
    }

    fn end(&self, origin: &Origin<'d>, path: &Path) -> Result<Place, PlanError> {
        let end = self.ends.get(&origin.id());
        end.cloned().ok_or_else(|| PlanError::new(path, "not valid"))
    }
}

/// Goes along one pipeline.
struct Track<'b, 'd> {
    builder: &'b mut Builder<'d>,
    place: Place,
}

fn policy(declared: DeclaredBad) -> OnBadRecord {
    match declared {
        DeclaredBad::Fail => OnBadRecord::Fail,
        DeclaredBad::Skip => OnBadRecord::Skip,
        DeclaredBad::DeadLetter => OnBadRecord::DeadLetter,
    }
}

/// A stream or a table as the pipelines read it, and what their first steps see.
fn planned(stream: &ResolvedStream<'_>, reads: &ValueReads) -> Result<(Source, Env), Vec<PlanError>> {
    let declared = stream.declared;
    let env = formats::env(declared.key.serde, prune(&stream.value, reads));
    let path = stream.path.field("timestamp");
    let timestamp = declared
        .timestamp
        .as_ref()
        .map(|source| compile_timestamp(source, &env, &path))
        .transpose()?;
    let value = formats::declared_value(declared.value.serde, &env.value).ok_or_else(|| {
        let message = format!("no format for {}", env.value);
        PlanError::new(&stream.path, message)
    })?;
    let source = Source {
        name: declared.name.clone(),
        topic: TopicName::External(declared.topic.clone()),
        node: 0,
        key: formats::declared_key(declared.key.serde),
        value,
        timestamp,
        max_ahead_ms: declared.max_ahead.map(windows::millis),
        on_bad_record: policy(declared.on_bad_record),
        on_error: policy(declared.on_error),
        dead_letters: None,
        offset_reset: match declared.offset_reset {
            DeclaredReset::Earliest => OffsetReset::Earliest,
            DeclaredReset::Latest => OffsetReset::Latest,
        },
        headers: false,
    };
    Ok((source, env))
}

impl<'d> Track<'_, 'd> {
    fn part(&mut self) -> Result<&mut SubTopology, PlanError> {
        let part = self.builder.parts.get_mut(self.place.at);
        part.ok_or_else(|| PlanError::new(&Path::topology(), "not valid"))
    }

    /// Adds a node behind the last one.
    fn node(&mut self, path: &Path, op: Op) -> Result<(), PlanError> {
        let last = self.place.last;
        let index = self.meet(path, op, &[last])?;
        self.place.last = index;
        Ok(())
    }

    /// Adds a node behind several.
    fn meet(&mut self, path: &Path, op: Op, behind: &[NodeIndex]) -> Result<NodeIndex, PlanError> {
        let nodes = &mut self.part()?.nodes;
        let index = nodes.len();
        for before in behind {
            nodes[*before].children.push(index);
        }
        nodes.push(Node {
            path: path.clone(),
            op,
            children: Vec::new(),
        });
        Ok(index)
    }

    /// Lets this part and that of another place be one; returns the other place as it is then.
    fn unite(&mut self, other: Place) -> Place {
        let [other] = self.unite_all([other]);
        other
    }

    /// The same, with those of several.
    fn unite_all<O: AsMut<[Place]>>(&mut self, mut others: O) -> O {
        for at in 0..others.as_mut().len() {
            let (here, there) = (self.place.at, others.as_mut()[at].at);
            let ends = self.builder.ends.values_mut();
            let places = ends.chain([&mut self.place]).chain(others.as_mut());
            self.builder.parts.unite(here, there, places);
        }
        others
    }

    /// Goes on from another place, and comes back with where that leads.
    fn aside(
        &mut self,
        from: Place,
        walk: impl FnOnce(&mut Self) -> Result<(), PlanError>,
    ) -> Result<Place, PlanError> {
        let here = std::mem::replace(&mut self.place, from);
        let result = walk(self);
        let there = std::mem::replace(&mut self.place, here);
        result.map(|()| there)
    }

    /// `later`: what the steps behind this one read of the value that leaves it.
    fn step(&mut self, step: &Step<'d>, later: &ValueReads) -> Result<(), Vec<PlanError>> {
        let path = &step.path;
        match &step.op {
            StepOp::SelectKey(source) => {
                let expr = compile_key(source, &self.place.env, &path.field("selectKey"))?;
                self.place.env.choose_key(expr.ty().clone());
                self.node(path, Op::SelectKey(expr))?;
            }
            StepOp::Filter(source) => {
                let expr = compile_as(source, &Type::Bool, &self.place.env, &path.field("filter"))?;
                self.node(path, Op::Filter(expr))?;
            }
            StepOp::FilterNot(source) => {
                let expr = compile_as(source, &Type::Bool, &self.place.env, &path.field("filterNot"))?;
                self.node(path, Op::FilterNot(expr))?;
            }
            StepOp::FilterTable(source, keeps) => {
                let condition = compile_as(source, &Type::Bool, &self.place.env, path)?;
                self.place.store = None;
                let keeps = *keeps;
                self.node(path, Op::FilterTable { condition, keeps })?;
            }
            StepOp::MapValues(map) | StepOp::MapTable(map) => {
                let expr = compile_map_values(map, &self.place.env, &path.field("mapValues"))?;
                self.place.env.value = expr.ty().clone();
                self.place.store = None;
                let is_of_table = matches!(step.op, StepOp::MapTable(_));
                self.node(
                    path,
                    if is_of_table {
                        Op::MapTable(expr)
                    } else {
                        Op::MapValues(expr)
                    },
                )?;
            }
            StepOp::Map(map) => {
                let (key, value) = compile_map(map, &self.place.env, &path.field("map"))?;
                self.place.env.choose_key(key.ty().clone());
                self.place.env.value = value.ty().clone();
                self.node(path, Op::Map { key, value })?;
            }
            StepOp::FlatMapValues(source) => {
                let (list, item) =
                    compile_flat_map_values(source, &self.place.env, &path.field("flatMapValues"))?;
                self.place.env.value = item;
                self.node(path, Op::FlatMapValues(list))?;
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
                    Some(by) => {
                        Format::Row(Type::record("key", [("key", key.ty()), ("by", by.ty().clone())]))
                    }
                };
                let windows = windows::of_duplicates(declared.within);
                let store = self.store(&declared.store, key, Type::Bool, Some(windows))?;
                self.node(path, Op::Deduplicate { store, by })?;
            }
            StepOp::Merge(origins) => self.merge(origins, later, path)?,
            StepOp::Join(joined) => self.join(joined, path)?,
            StepOp::ToTable(declared, cut) => {
                if let Some(name) = cut {
                    self.cut(name, path, &ValueReads::Whole)?;
                }
                self.table(
                    &declared.store,
                    windows::of_versions(declared.history_retention),
                    path,
                )?;
            }
            StepOp::GroupByKey(None) | StepOp::WindowedBy => {}
            StepOp::GroupByKey(Some(name)) => self.cut(name, path, later)?,
            StepOp::GroupBy(group, name) => {
                let expr = compile_key(&group.key, &self.place.env, &path.field("groupBy").field("key"))?;
                self.place.env.choose_key(expr.ty().clone());
                self.node(path, Op::SelectKey(expr))?;
                self.cut(name, path, later)?;
            }
            StepOp::GroupTable(group, name) => self.group_table(group, name, later, path)?,
            StepOp::Aggregate(aggregation, over, others) => {
                self.aggregate(*aggregation, *over, others, path)?;
            }
            StepOp::Suppress(declared) => {
                // A windowed key, too.
                let key = Format::Row(self.place.env.key.clone());
                let value = change(&self.place.env.value);
                let limit_ms = windows::millis(declared.until_time_limit);
                let windows = Windows::Suppress { limit_ms };
                let store = self.store(&declared.store, key, value, Some(windows))?;
                self.place.store = None;
                self.place.env.is_of_one_record = false;
                self.node(path, Op::Suppress { store })?;
            }
            StepOp::ToStream => self.node(path, Op::Forward)?,
        }
        Ok(())
    }

    /// Keeps one value per key, of this stream and of those that are aggregated with it.
    fn aggregate(
        &mut self,
        aggregation: Aggregation<'d>,
        over: Over,
        cogroup: &[Cogrouped<'d>],
        path: &Path,
    ) -> Result<(), Vec<PlanError>> {
        let inner = path.field(aggregation.name());
        let mut others = Vec::new();
        for cogrouped in cogroup {
            let other = self.builder.end(&cogrouped.with, path)?;
            others.push(match &cogrouped.cut {
                Some(name) => self.aside(other, |track| track.cut(name, path, &cogrouped.reads))?,
                None => other,
            });
        }
        let others = self.unite_all(others);
        let Folds {
            first,
            add,
            merge,
            remove,
        } = compile_aggregation(aggregation, over, &self.place.env, &inner)?;
        let windows = over.windows();
        let value = first.expr().ty().clone();
        let key = key_format(&self.place.env.key, path)?;
        let store = self.store(aggregation.store(), key, value.clone(), windows)?;
        let emit = match aggregation.emit() {
            DeclaredEmit::OnUpdate => Emit::OnUpdate,
            DeclaredEmit::OnWindowClose => Emit::OnWindowClose,
        };
        let op = |add| Op::Aggregate {
            store,
            emit,
            first: first.clone(),
            add,
            merge: merge.clone().map(Box::new),
            remove: remove.clone().map(Box::new),
        };
        self.node(path, op(add))?;
        let mut behind = vec![self.place.last];
        for ((index, cogrouped), other) in cogroup.iter().enumerate().zip(others) {
            let inner = inner.field("cogroup").index(index);
            let add = cogroup::compile_add(cogrouped.declared, &value, &other.env, &inner)?;
            self.place.env.is_of_one_record &= other.env.is_of_one_record;
            let other = self.aside(other, |track| track.node(&inner, op(add)))?;
            behind.push(other.last);
        }
        if behind.len() > 1 {
            self.place.last = self.meet(path, Op::Forward, &behind)?;
        }
        aggregated(&mut self.place.env, aggregation.emit(), windows, value);
        self.place.store = Some(store);
        Ok(())
    }

    /// Keeps what comes as a table.
    fn table(&mut self, name: &str, versions: Option<Windows>, path: &Path) -> Result<(), PlanError> {
        let (key, value) = (
            key_format(&self.place.env.key, path)?,
            self.place.env.value.clone(),
        );
        let store = self.store(name, key, value, versions)?;
        self.place.store = Some(store);
        self.place.env.is_of_one_record = false;
        self.node(path, Op::Table { store })
    }

    /// Sends what comes and goes of a table to where its new key is.
    fn group_table(
        &mut self,
        group: &GroupBy,
        name: &str,
        later: &ValueReads,
        path: &Path,
    ) -> Result<(), Vec<PlanError>> {
        let key = compile_key(&group.key, &self.place.env, &path.field("groupBy").field("key"))?;
        let carried = carried(&self.place.env.value, later);
        let value = match self.projection(&carried, path)? {
            Some(projection) => projection,
            None => compile("value", &self.place.env, path)?,
        };
        self.place.env.choose_key(key.ty().clone());
        self.place.env.value = change(&carried);
        self.node(path, Op::GroupTable { key, value })?;
        let way = Way {
            kind: SourceKind::Stream,
            partition: None,
            is_of_updates: true,
        };
        self.cut_as(way, name, path, &ValueReads::Whole)?;
        self.place.env.value = carried;
        Ok(())
    }

    fn merge(&mut self, origins: &[Origin<'d>], later: &ValueReads, path: &Path) -> Result<(), PlanError> {
        let value = prune(&self.place.env.value, later);
        let others = origins.iter().map(|origin| self.builder.end(origin, path));
        let others = self.unite_all(others.collect::<Result<Vec<_>, _>>()?);
        self.project(&value, path)?;
        let mut behind = vec![self.place.last];
        for other in others {
            self.place.env.is_of_one_record &= other.env.is_of_one_record;
            self.place.env.is_integer_key |= other.env.is_integer_key;
            let other = self.aside(other, |track| track.project(&value, path))?;
            behind.push(other.last);
        }
        self.place.env.value = value;
        self.place.last = self.meet(path, Op::Forward, &behind)?;
        Ok(())
    }

    /// Leaves out the fields that this type does not have.
    fn project(&mut self, to: &Type, path: &Path) -> Result<(), PlanError> {
        match self.projection(to, path)? {
            Some(projection) => self.node(path, Op::MapValues(projection)),
            None => Ok(()),
        }
    }

    /// What leaves them out, where there are any.
    fn projection(&self, to: &Type, path: &Path) -> Result<Option<Expr>, PlanError> {
        let from = &self.place.env.value;
        if canonical_type(from) == canonical_type(to) {
            return Ok(None);
        }
        let projection = match (from, to) {
            (Type::Struct(from), Type::Struct(to)) => Expr::project(from, to),
            _ => Some(Expr::build_struct(NOTHING, Vec::new())),
        };
        let not_valid = || PlanError::new(path, "not valid");
        projection.map(Some).ok_or_else(not_valid)
    }

    fn store(
        &mut self,
        name: &str,
        key: Format,
        value: Type,
        windows: Option<Windows>,
    ) -> Result<StoreIndex, PlanError> {
        let mut parts = vec![
            "store/1".to_owned(),
            name.to_owned(),
            canonical_format(&key),
            canonical_type(&value),
        ];
        parts.extend(windows.map(windows::canonical));
        let fingerprint = digest(&parts.iter().map(String::as_str).collect::<Vec<_>>());
        let changelog = TopicName::Changelog(name.to_owned());
        let stores = &mut self.part()?.stores;
        stores.push(StoreSpec {
            name: name.to_owned(),
            key,
            value,
            windows,
            fingerprint,
            changelog,
        });
        Ok(stores.len() - 1)
    }

    /// Writes to a repartition topic what is read later, and goes on behind it.
    fn cut(&mut self, name: &str, path: &Path, later: &ValueReads) -> Result<(), PlanError> {
        let way = Way {
            kind: SourceKind::Stream,
            partition: None,
            is_of_updates: false,
        };
        self.cut_as(way, name, path, later)
    }

    fn cut_as(&mut self, way: Way, name: &str, path: &Path, later: &ValueReads) -> Result<(), PlanError> {
        let value = carried(&self.place.env.value, later);
        self.project(&value, path)?;
        let topic = TopicName::Repartition(name.to_owned());
        let (key, format) = (key_format(&self.place.env.key, path)?, Format::Row(value.clone()));
        let (on_error, letters) = match way.is_of_updates {
            true => (OnBadRecord::Fail, None),
            false => self.on_error()?,
        };
        self.sink(
            path,
            Sink {
                topic: topic.clone(),
                key: key.clone(),
                value: format.clone(),
                partition: way.partition,
                headers: SinkHeaders::None,
            },
        )?;
        let source = Source {
            name: name.to_owned(),
            topic,
            node: 0,
            key,
            value: format,
            timestamp: None,
            max_ahead_ms: None,
            on_bad_record: OnBadRecord::Fail,
            on_error,
            dead_letters: letters.is_some().then_some(0),
            offset_reset: OffsetReset::Earliest,
            headers: false,
        };
        let sinks = letters.map(dead_letters).into_iter().collect();
        self.place.at = self.builder.parts.begin(source, sinks, way.kind, path);
        self.place.last = 0;
        self.place.env.value = value;
        self.place.env.is_of_one_record = true;
        self.place.env.is_integer_key = false;
        Ok(())
    }

    /// What becomes of a record that comes here and cannot be processed later, and where dead letters go: what its source says; of
    /// several sources the strictest.
    fn on_error(&mut self) -> Result<(OnBadRecord, Option<TopicName>), PlanError> {
        let last = self.place.last;
        let part = self.part()?;
        let sources: Vec<_> = part.sources_of(last).collect();
        if sources.iter().any(|source| source.on_error == OnBadRecord::Fail) {
            return Ok((OnBadRecord::Fail, None));
        }
        let sends = |source: &&&Source| source.on_error == OnBadRecord::DeadLetter;
        let letters = sources.iter().find(sends).and_then(|source| source.dead_letters);
        Ok(match letters.and_then(|sink| part.sinks.get(sink)) {
            Some(sink) => (OnBadRecord::DeadLetter, Some(sink.topic.clone())),
            None => (OnBadRecord::Skip, None),
        })
    }

    /// Writes what comes here to a topic, beside whatever else becomes of it.
    fn sink(&mut self, path: &Path, sink: Sink) -> Result<(), PlanError> {
        let index = self.add(sink)?;
        let last = self.place.last;
        self.meet(path, Op::Sink(index), &[last]).map(drop)
    }

    fn add(&mut self, sink: Sink) -> Result<SinkIndex, PlanError> {
        let sinks = &mut self.part()?.sinks;
        sinks.push(sink);
        Ok(sinks.len() - 1)
    }

    fn end(&mut self, to: &SinkTopic, path: &Path) -> Result<(), Vec<PlanError>> {
        let env = &self.place.env;
        let route = sink::route(to, env, path)?;
        let sink = Sink {
            topic: TopicName::External(String::new()),
            key: formats::key(to, env, path)?,
            value: formats::value(to, &env.value, path)?,
            partition: None,
            headers: sink::headers(to, env, path)?,
        };
        let mut sinks = Vec::new();
        for (name, _) in to.topics(path) {
            let topic = TopicName::External(name.to_owned());
            sinks.push((
                name.into(),
                self.add(Sink {
                    topic,
                    ..sink.clone()
                })?,
            ));
        }
        let op = match (route, sinks.as_slice()) {
            (None, [(_, sink)]) => Op::Sink(*sink),
            (None, _) => return Err(PlanError::new(path, "one topic is needed here").into()),
            (Some(by), _) => Op::Route { by, sinks },
        };
        let last = self.place.last;
        self.meet(path, op, &[last])?;
        Ok(())
    }
}

/// How records go through a repartition topic.
struct Way {
    /// What its reader is: a part that reads only tables gives its name to no other one.
    kind: SourceKind,
    /// As [`Sink::partition`].
    partition: Option<usize>,
    /// Records are updates of a table. None of them can be left out: the next one takes back what it brought.
    is_of_updates: bool,
}

/// The topic of records that cannot be processed.
fn dead_letters(topic: TopicName) -> Sink {
    Sink {
        topic,
        key: Format::Bytes,
        value: Format::Bytes,
        partition: None,
        headers: SinkHeaders::None,
    }
}

/// Name of a record without fields.
const NOTHING: &str = "nothing";

/// The type of what a repartition topic carries: the fields that are read later, and nothing of a value that is not read.
fn carried(ty: &Type, later: &ValueReads) -> Type {
    match (ty, later) {
        (Type::Struct(_), _) => prune(ty, later),
        (_, ValueReads::Nothing) => Type::record(NOTHING, []),
        (_, ValueReads::Fields(_) | ValueReads::Whole) => ty.clone(),
    }
}
