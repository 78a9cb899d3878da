//! Second pass: what is read later of a record's value, from the end of a pipeline backwards.

use std::sync::Arc;

use super::resolve::{Resolved, StepOp};
use crate::{StructType, Type, ValueReads};

/// For each step, what is read of the value that enters it, by the step and by those behind it. The last item is `end`: what
/// is read of the pipeline's results.
pub(crate) fn live(pipeline: &Resolved<'_>, end: ValueReads) -> Vec<ValueReads> {
    let mut later = end;
    let mut result = vec![later.clone()];
    for step in pipeline.steps.iter().rev() {
        match &step.op {
            // These make a new value: nothing behind them reads the old one.
            StepOp::MapValues(_)
            | StepOp::MapTable(_)
            | StepOp::Map(_)
            | StepOp::FlatMapValues(_)
            | StepOp::Aggregate(..)
            | StepOp::Join(_)
            | StepOp::Suppress(_)
            | StepOp::ToTable(..) => later = step.reads.clone(),
            StepOp::SelectKey(_)
            | StepOp::Filter(_)
            | StepOp::FilterNot(_)
            | StepOp::FilterTable(..)
            | StepOp::GroupBy(..)
            | StepOp::GroupTable(..)
            | StepOp::Deduplicate(..)
            | StepOp::GroupByKey(_)
            | StepOp::Merge(_)
            | StepOp::WindowedBy
            | StepOp::ToStream => later.add(&step.reads),
        }
        result.push(later.clone());
    }
    result.reverse();
    result
}

/// The type, reduced to fields that are read; other types than structs stay as they are.
pub(crate) fn prune(ty: &Type, reads: &ValueReads) -> Type {
    let Type::Struct(full) = ty else { return ty.clone() };
    let kept = |name: &str| match reads {
        ValueReads::Nothing => false,
        ValueReads::Fields(names) => names.contains(name),
        ValueReads::Whole => true,
    };
    let fields = full
        .fields
        .iter()
        .filter(|field| kept(&field.name))
        .cloned()
        .collect();
    Type::Struct(Arc::new(StructType {
        name: full.name.clone(),
        fields,
    }))
}
