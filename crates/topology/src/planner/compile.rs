//! Expressions of the declaration, with the rules of the place where each stands.

use super::PlanError;
use super::types::is_identifier;
use crate::declaration::{Aggregate, MapValues};
use crate::{Env, Expr, Path, Type};

/// An expression of any type. On errors: all of them, as for the functions below.
pub(crate) fn compile(source: &str, env: &Env, path: &Path) -> Result<Expr, Vec<PlanError>> {
    Expr::compile(source, env).map_err(|errors| {
        let errors = errors.into_iter();
        errors
            .map(|error| PlanError::in_expression(path, error))
            .collect()
    })
}

/// An expression that must have one type.
pub(crate) fn compile_as(
    source: &str,
    wanted: &Type,
    env: &Env,
    path: &Path,
) -> Result<Expr, Vec<PlanError>> {
    let expr = compile(source, env, path)?;
    if expr.ty() == wanted {
        return Ok(expr);
    }
    let message = format!("needs {wanted}, the expression has type {}", expr.ty());
    Err(PlanError::new(path, message).into())
}

/// `selectKey`
pub(crate) fn compile_key(source: &str, env: &Env, path: &Path) -> Result<Expr, Vec<PlanError>> {
    let expr = compile(source, env, path)?;
    match expr.ty() {
        Type::String | Type::Int | Type::Bytes => Ok(expr),
        Type::Optional(inner) => {
            let message = format!("a key cannot be absent, the expression has type {inner}?");
            let error = PlanError::new(path, message);
            Err(error
                .suggest("filter with `has(…)` and use `has(x) ? x : default`")
                .into())
        }
        ty @ (Type::Bool
        | Type::Double
        | Type::Timestamp
        | Type::List(_)
        | Type::Map(_)
        | Type::Struct(_)) => {
            let message = format!("a key needs string, int or bytes, the expression has type {ty}");
            Err(PlanError::new(path, message)
                .suggest("convert it, e.g. `string(…)`")
                .into())
        }
    }
}

/// `mapValues`. On errors: all of its fields'.
pub(crate) fn compile_map_values(map: &MapValues, env: &Env, path: &Path) -> Result<Expr, Vec<PlanError>> {
    match (&map.fields, &map.expression) {
        (Some(fields), None) => {
            let path = path.field("fields");
            if fields.is_empty() {
                return Err(PlanError::new(&path, "`fields` is empty").into());
            }
            let (mut built, mut errors) = (Vec::new(), Vec::new());
            for (name, source) in fields {
                let path = path.field(name);
                if !is_identifier(name) {
                    let message = format!("`{name}` cannot be a field: use letters, digits and `_`");
                    errors.push(PlanError::new(&path, message));
                }
                match compile(source, env, &path) {
                    Ok(expr) => built.push((name.clone(), expr)),
                    Err(wrong) => errors.extend(wrong),
                }
            }
            if errors.is_empty() {
                Ok(Expr::build_struct("mapValues", built))
            } else {
                Err(errors)
            }
        }
        (None, Some(source)) => {
            let path = path.field("expression");
            let expr = compile(source, env, &path)?;
            if let Type::Optional(inner) = expr.ty() {
                let message = format!("a value cannot be absent, the expression has type {inner}?");
                return Err(PlanError::new(&path, message)
                    .suggest("write `has(x) ? x : default`")
                    .into());
            }
            Ok(expr)
        }
        (None, None) | (Some(_), Some(_)) => {
            Err(PlanError::new(path, "`mapValues` needs exactly one of `fields` and `expression`").into())
        }
    }
}

/// `initial` and `add`, which may be null (the key is deleted). On errors: all of them.
pub(crate) fn compile_aggregate(
    aggregate: &Aggregate,
    env: &Env,
    path: &Path,
) -> Result<(Expr, Expr), Vec<PlanError>> {
    let initial_path = path.field("initial");
    let initial = compile(&aggregate.initial, env, &initial_path)?;
    if !initial.reads().is_nothing() {
        let message = "`initial` is the value before any record: it can only be a constant";
        return Err(PlanError::new(&initial_path, message).into());
    }
    if matches!(initial.ty(), Type::Optional(_) | Type::Struct(_)) {
        let message = format!("an aggregate cannot have type {}", initial.ty());
        return Err(PlanError::new(&initial_path, message).into());
    }
    let env = Env {
        aggregate: Some(initial.ty().clone()),
        ..env.clone()
    };
    let path = path.field("add");
    let add = compile(&aggregate.add, &env, &path)?;
    let deletes = matches!(add.ty(), Type::Optional(inner) if **inner == *initial.ty());
    if add.ty() == initial.ty() || deletes {
        return Ok((initial, add));
    }
    let message = format!(
        "`add` has type {}, but `initial` has type {}",
        add.ty(),
        initial.ty()
    );
    let error = PlanError::new(&path, message);
    Err(match (initial.ty(), add.ty()) {
        (Type::Int, Type::Double) => error.suggest(format!("write `initial: \"{}.0\"`", aggregate.initial)),
        _ => error,
    }
    .into())
}

/// `timestamp` of a stream.
pub(crate) fn compile_timestamp(source: &str, env: &Env, path: &Path) -> Result<Expr, Vec<PlanError>> {
    let expr = compile(source, env, path)?;
    if *expr.ty() == Type::Timestamp {
        return Ok(expr);
    }
    let message = format!(
        "`timestamp` needs timestampMillis, the expression has type {}",
        expr.ty()
    );
    Err(PlanError::new(path, message)
        .suggest("declare the field as `timestampMillis`")
        .into())
}
