//! Streams that are aggregated together.

use super::PlanError;
use super::compile::{compile, compile_as, compile_changed, field_of};
use super::origin::Origin;
use super::resolve::{End, Kind};
use crate::declaration::{Aggregation, Cogroup};
use crate::suggest::did_you_mean;
use crate::{Env, Expr, Path, Type, ValueReads};

/// Another stream, without errors.
pub(crate) struct Cogrouped<'d> {
    pub(crate) declared: &'d Cogroup,
    pub(crate) with: Origin<'d>,
    /// Name of the repartition topic, where its key was changed before.
    pub(crate) cut: Option<String>,
    /// What is read of its values.
    pub(crate) reads: ValueReads,
}

/// Name of the repartition topic that such a stream may need.
pub(super) fn repartition(aggregation: Aggregation<'_>, other: &Cogroup) -> String {
    format!("{}-{}", aggregation.store(), other.with)
}

/// Checks another stream of an aggregation of this type.
///
/// # Errors
/// No stream; other keys; an expression that is not valid.
pub(super) fn resolve<'d>(
    aggregation: Aggregation<'_>,
    declared: &'d Cogroup,
    (key, ty): (&Type, &Type),
    end: &End<'d>,
    path: &Path,
) -> Result<Cogrouped<'d>, Vec<PlanError>> {
    let (name, at) = (&declared.with, path.field("with"));
    if end.kind != Kind::Stream {
        let message = format!("`{name}` is a table, only streams are aggregated together");
        let error = PlanError::new(&at, message);
        return Err(error
            .suggest("take each update as a record: `toStream: {}`")
            .into());
    }
    if end.env.key != *key {
        let message = format!("keys of `{name}` have type {}, those here {key}", end.env.key);
        let error = PlanError::new(&at, message);
        return Err(error.suggest("give both the same key with `selectKey`").into());
    }
    let add = compile_add(declared, ty, &end.env, path)?;
    Ok(Cogrouped {
        declared,
        with: end.origin.clone(),
        cut: end.key_changed.then(|| repartition(aggregation, declared)),
        reads: add.reads().value.clone(),
    })
}

/// How an aggregate of this type goes on with a record of another stream.
pub(super) fn compile_add(
    declared: &Cogroup,
    ty: &Type,
    env: &Env,
    path: &Path,
) -> Result<Expr, Vec<PlanError>> {
    match (&declared.add, &declared.fields, ty) {
        (Some(add), None, ty) if !matches!(ty, Type::Struct(_)) => {
            compile_changed(add, "add", ty, env, &path.field("add"))
        }
        (None, Some(fields), Type::Struct(record)) => {
            let env = Env {
                aggregate: Some(ty.clone()),
                ..env.clone()
            };
            let path = path.field("fields");
            let names: Vec<_> = record.fields.iter().map(|field| field.name.as_str()).collect();
            let unknown = fields.keys().filter(|name| !names.contains(&name.as_str()));
            let unknown = unknown.map(|name| PlanError {
                suggestion: did_you_mean(name, "fields", &names),
                ..PlanError::new(&path.field(name), format!("the aggregate has no field `{name}`"))
            });
            let mut errors: Vec<_> = unknown.collect();
            let mut built = Vec::new();
            for name in names {
                let field = match fields.get(name) {
                    Some(source) => compile_as(source, field_of(ty, name), &env, &path.field(name)),
                    None => compile(&format!("aggregate.{name}"), &env, &path),
                };
                match field {
                    Ok(expr) => built.push((name.to_owned(), expr)),
                    Err(wrong) => errors.extend(wrong),
                }
            }
            if errors.is_empty() {
                Ok(Expr::build_struct("aggregate", built))
            } else {
                Err(errors)
            }
        }
        (_, _, Type::Struct(_)) => {
            let message = "the aggregate has `fields`: say which of them a record of this stream changes";
            Err(PlanError::new(path, message)
                .suggest("write `fields`, and only that")
                .into())
        }
        _ => {
            let message = "the aggregate is one value: say what becomes of it with a record of this stream";
            Err(PlanError::new(path, message)
                .suggest("write `add`, and only that")
                .into())
        }
    }
}
