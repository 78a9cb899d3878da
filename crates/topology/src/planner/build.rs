//! Third pass: operators, stores, sinks; cuts at repartition topics.

use super::compile::{compile_aggregate, compile_as, compile_key, compile_map_values, compile_timestamp};
use super::live::{live, prune};
use super::resolve::{Resolved, Step, StepOp};
use super::{PlanError, sink};
use crate::declaration::{OffsetReset as DeclaredReset, OnBadRecord as DeclaredBad};
use crate::fingerprint::{canonical_format, canonical_type, digest};
use crate::plan::{
    Format, Node, OffsetReset, OnBadRecord, Op, Sink, Source, StoreSpec, SubTopology, TopicName,
};
use crate::{Env, Expr, Path, Type, ValueReads};

/// The sub-topologies of a pipeline, in the order in which records flow.
///
/// # Errors
/// None for a pipeline that [`super::resolve`] accepted, unless that and this module disagree.
pub(crate) fn build(pipeline: &Resolved<'_>) -> Result<Vec<SubTopology>, PlanError> {
    let live = live(pipeline);
    let mut builder = Builder::start(pipeline, &live)?;
    for (step, later) in pipeline.steps.iter().zip(&live[1..]) {
        builder.step(step, later)?;
    }
    builder.end(pipeline)
}

struct Builder {
    done: Vec<SubTopology>,
    current: SubTopology,
    env: Env,
}

fn one(errors: Vec<PlanError>, path: &Path) -> PlanError {
    errors
        .into_iter()
        .next()
        .unwrap_or_else(|| PlanError::new(path, "not valid"))
}

impl Builder {
    fn start(pipeline: &Resolved<'_>, live: &[ValueReads]) -> Result<Self, PlanError> {
        let stream = pipeline.stream;
        let mut reads = pipeline.timestamp_reads.clone();
        reads.add(live.first().unwrap_or(&ValueReads::Whole));
        let value = prune(&pipeline.value, &reads);
        let env = Env {
            key: pipeline.key.clone(),
            value,
            aggregate: None,
        };
        let path = pipeline.stream_path.field("timestamp");
        let timestamp = stream
            .timestamp
            .as_ref()
            .map(|source| compile_timestamp(source, &env, &path))
            .transpose()?;
        let source = Source {
            name: stream.name.clone(),
            topic: TopicName::External(stream.topic.clone()),
            key: key_format(&env.key, &pipeline.stream_path)?,
            value: match &env.value {
                Type::Struct(ty) => Format::Json(ty.clone()),
                Type::String => Format::String,
                Type::Int => Format::Long,
                Type::Bytes => Format::Bytes,
                ty @ (Type::Bool | Type::Double | Type::Timestamp | Type::Optional(_)) => {
                    return Err(PlanError::new(
                        &pipeline.stream_path,
                        format!("no format for {ty}"),
                    ));
                }
            },
            timestamp,
            on_bad_record: match stream.on_bad_record {
                DeclaredBad::Fail => OnBadRecord::Fail,
                DeclaredBad::Skip => OnBadRecord::Skip,
            },
            offset_reset: match stream.offset_reset {
                DeclaredReset::Earliest => OffsetReset::Earliest,
                DeclaredReset::Latest => OffsetReset::Latest,
            },
        };
        let current = begin(&pipeline.pipeline.name, &pipeline.path, source);
        Ok(Self {
            done: Vec::new(),
            current,
            env,
        })
    }

    /// Adds a node behind the last one.
    fn node(&mut self, path: &Path, op: Op) {
        let index = self.current.nodes.len();
        if let Some(parent) = self.current.nodes.last_mut() {
            parent.children.push(index);
        }
        self.current.nodes.push(Node {
            path: path.to_string(),
            op,
            children: Vec::new(),
        });
    }

    /// `later`: what the steps behind this one read of the value that leaves it.
    fn step(&mut self, step: &Step<'_>, later: &ValueReads) -> Result<(), PlanError> {
        let path = &step.path;
        match &step.op {
            StepOp::SelectKey(source) => {
                let expr = compile_key(source, &self.env, &path.field("selectKey"))?;
                self.env.key = expr.ty().clone();
                self.node(path, Op::SelectKey(expr));
            }
            StepOp::Filter(source) => {
                let expr = compile_as(source, &Type::Bool, &self.env, &path.field("filter"))?;
                self.node(path, Op::Filter(expr));
            }
            StepOp::FilterNot(source) => {
                let expr = compile_as(source, &Type::Bool, &self.env, &path.field("filterNot"))?;
                self.node(path, Op::FilterNot(expr));
            }
            StepOp::MapValues(map) => {
                let expr = compile_map_values(map, &self.env, &path.field("mapValues"))
                    .map_err(|errors| one(errors, path))?;
                self.env.value = expr.ty().clone();
                self.node(path, Op::MapValues(expr));
            }
            StepOp::GroupByKey(None) => {}
            StepOp::GroupByKey(Some(name)) => self.cut(name, path, later)?,
            StepOp::Aggregate(aggregate) => {
                let (initial, add) = compile_aggregate(aggregate, &self.env, &path.field("aggregate"))
                    .map_err(|errors| one(errors, path))?;
                self.env.value = initial.ty().clone();
                let store = self.store(&aggregate.store, path)?;
                self.node(path, Op::Aggregate { store, initial, add });
            }
            StepOp::ToStream => self.node(path, Op::Forward),
        }
        Ok(())
    }

    /// A store for the current key and value types.
    fn store(&mut self, name: &str, path: &Path) -> Result<usize, PlanError> {
        let (key, value) = (key_format(&self.env.key, path)?, self.env.value.clone());
        let fingerprint = digest(&["store/1", name, &canonical_format(&key), &canonical_type(&value)]);
        let changelog = TopicName::Changelog(name.to_owned());
        self.current.stores.push(StoreSpec {
            name: name.to_owned(),
            key,
            value,
            fingerprint,
            changelog,
        });
        Ok(self.current.stores.len() - 1)
    }

    /// Writes to a repartition topic what is read later, and goes on behind it.
    fn cut(&mut self, name: &str, path: &Path, later: &ValueReads) -> Result<(), PlanError> {
        let value = prune(&self.env.value, later);
        if let (Type::Struct(from), Type::Struct(to)) = (&self.env.value, &value)
            && from != to
        {
            let projection = Expr::project(from, to).ok_or_else(|| PlanError::new(path, "not valid"))?;
            self.node(path, Op::MapValues(projection));
        }
        let topic = TopicName::Repartition(name.to_owned());
        let (key, format) = (key_format(&self.env.key, path)?, Format::Row(value.clone()));
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
            offset_reset: OffsetReset::Earliest,
        };
        self.done
            .push(std::mem::replace(&mut self.current, begin(name, path, source)));
        self.env.value = value;
        Ok(())
    }

    fn sink(&mut self, path: &Path, sink: Sink) {
        self.current.sinks.push(sink);
        self.node(path, Op::Sink(self.current.sinks.len() - 1));
    }

    fn end(mut self, pipeline: &Resolved<'_>) -> Result<Vec<SubTopology>, PlanError> {
        let path = pipeline.path.field("to");
        let to = &pipeline.pipeline.to;
        let key = sink::key(to, &self.env.key, &path)?;
        let value = sink::value(to, &self.env.value, &path)?;
        self.sink(
            &path,
            Sink {
                topic: TopicName::External(to.topic.clone()),
                key,
                value,
            },
        );
        self.done.push(self.current);
        Ok(self.done)
    }
}

/// A sub-topology with only its root.
fn begin(name: &str, path: &Path, source: Source) -> SubTopology {
    let root = Node {
        path: path.to_string(),
        op: Op::Forward,
        children: Vec::new(),
    };
    SubTopology {
        name: name.to_owned(),
        source,
        nodes: vec![root],
        stores: Vec::new(),
        sinks: Vec::new(),
    }
}

fn key_format(ty: &Type, path: &Path) -> Result<Format, PlanError> {
    sink::key_format(ty).ok_or_else(|| PlanError::new(path, format!("a key of type {ty} cannot be written")))
}
