//! What pipelines read: streams, tables, and other pipelines, by their names.

use std::rc::Rc;

use super::PlanError;
use crate::declaration::{Operator, Pipeline, SourceKind, Stream, Topology};
use crate::suggest::did_you_mean;
use crate::{Path, Type, ValueReads};

/// Where records come from.
#[derive(Clone)]
pub(crate) enum Origin<'d> {
    Source(Rc<ResolvedStream<'d>>),
    Pipeline(&'d str),
}

/// Tells origins apart: pipelines have names of their own.
pub(crate) type OriginId<'d> = (SourceOrPipeline, &'d str);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SourceOrPipeline {
    Source,
    Pipeline,
}

impl<'d> Origin<'d> {
    pub(crate) fn id(&self) -> OriginId<'d> {
        match self {
            Self::Source(source) => (SourceOrPipeline::Source, &source.declared.name),
            Self::Pipeline(name) => (SourceOrPipeline::Pipeline, name),
        }
    }
}

/// A stream or a table without errors.
pub(crate) struct ResolvedStream<'d> {
    pub(crate) declared: &'d Stream,
    pub(crate) kind: SourceKind,
    pub(crate) path: Path,
    /// Types of its records, with all fields.
    pub(crate) value: Type,
    /// What its `timestamp` reads.
    pub(crate) timestamp_reads: ValueReads,
}

/// Names of what a pipeline reads, with their places.
pub(super) fn places_read_by<'d>(
    pipeline: &'d Pipeline,
    path: &Path,
) -> impl Iterator<Item = (&'d str, Path)> + use<'d> {
    let mut places = vec![(pipeline.from.as_str(), path.field("from"))];
    for (index, step) in pipeline.steps.iter().enumerate() {
        let path = path.field("steps").index(index);
        match step.operator() {
            Ok(Operator::Join(kind, join)) => {
                places.push((&join.with, path.field(kind.name()).field("with")));
            }
            Ok(Operator::Aggregate(aggregation)) => {
                let path = path.field(aggregation.name()).field("cogroup");
                let others = aggregation.cogroup().iter().enumerate();
                places.extend(
                    others.map(|(index, other)| (other.with.as_str(), path.index(index).field("with"))),
                );
            }
            Ok(Operator::Merge(merge)) => {
                let path = path.field("merge").field("with");
                let with = merge.with.iter().enumerate();
                places.extend(with.map(|(index, name)| (name.as_str(), path.index(index))));
            }
            _ => {}
        }
    }
    places.into_iter()
}

/// Their names alone.
pub(super) fn read_by(pipeline: &Pipeline) -> impl Iterator<Item = &str> {
    places_read_by(pipeline, &Path::topology()).map(|(name, _)| name)
}

/// Whether a pipeline reads what has this name.
pub(super) fn is_read(declaration: &Topology, name: &str) -> bool {
    let mut pipelines = declaration.pipelines.iter();
    pipelines.any(|pipeline| read_by(pipeline).any(|read| read == name))
}

/// Why a pipeline reads what is not there.
pub(super) fn unknown_origin(
    declaration: &Topology,
    pipeline: &Pipeline,
    name: &str,
    path: &Path,
) -> PlanError {
    let pipelines = declaration.pipelines.iter().map(|other| other.name.as_str());
    if pipelines.clone().any(|other| other == name) {
        let message = format!(
            "pipeline `{name}` reads no stream in the end: it is read in a circle, or reads what is not there"
        );
        return PlanError::new(path, message);
    }
    let sources = declaration.sources().map(|(source, ..)| source.name.as_str());
    let names: Vec<_> = sources
        .chain(pipelines.filter(|name| *name != pipeline.name))
        .collect();
    PlanError {
        suggestion: did_you_mean(name, "streams, tables and pipelines", &names),
        ..PlanError::new(path, format!("unknown stream, table or pipeline `{name}`"))
    }
}
