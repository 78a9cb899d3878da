//! From a declaration to a plan.
//!
//! Three passes. [`resolve`] gives every name, type and expression its meaning, with whole record types. [`live`]
//! finds, from the end of each pipeline backwards, which fields are read later. [`build`] compiles each expression
//! again, against records that hold only those fields, and cuts sub-topologies at repartition topics.
//!
//! A topic is read once, since committed positions are per topic and partition: all pipelines that read a stream share
//! one sub-topology up to their cuts, and pipelines that read another pipeline go on where that ends. Where streams and tables are
//! joined or merged, their sub-topologies become one. It is named after what it reads: the stream or repartition (named by the
//! store, by `groupByKey.name` or by the join) that was met first, or else the table.

mod build;
mod cogroup;
mod compile;
mod formats;
mod join;
mod live;
mod names;
mod origin;
mod parts;
mod resolve;
mod sink;
#[cfg(test)]
mod tests;
mod types;
mod windows;

pub(crate) use windows::canonical as windows_text;

use std::fmt;
use std::ops::Range;

use crate::declaration::Topology;
use crate::plan::Plan;
use crate::{ExprError, Path};

/// Something that is wrong with a declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// Where.
    pub path: Path,
    /// What is wrong.
    pub message: String,
    /// The part of the expression at `path` that is meant, in bytes.
    pub span: Option<Range<usize>>,
    /// What to write instead.
    pub suggestion: Option<String>,
}

impl PlanError {
    pub(crate) fn new(path: &Path, message: impl Into<String>) -> Self {
        Self {
            path: path.clone(),
            message: message.into(),
            span: None,
            suggestion: None,
        }
    }

    pub(crate) fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    pub(crate) fn in_expression(path: &Path, error: ExprError) -> Self {
        Self {
            path: path.clone(),
            message: error.message,
            span: Some(error.span),
            suggestion: error.suggestion,
        }
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)?;
        if let Some(span) = &self.span {
            write!(f, " (at {})", span.start)?;
        }
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; {suggestion}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PlanError {}

/// One error, where all errors are told.
impl From<PlanError> for Vec<PlanError> {
    fn from(error: PlanError) -> Self {
        vec![error]
    }
}

/// Checks a declaration and compiles it.
///
/// # Errors
/// Everything that is wrong with it, in the order of the declaration's parts: types, streams, pipelines.
pub fn plan(declaration: &Topology) -> Result<Plan, Vec<PlanError>> {
    let mut errors = Vec::new();
    names::check(declaration, &mut errors);
    let types = types::resolve(&declaration.types, &mut errors);
    let pipelines = resolve::resolve(declaration, &types, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let sub_topologies = build::build(&pipelines)?;
    Ok(Plan { sub_topologies })
}
