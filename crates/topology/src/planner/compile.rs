//! Expressions of the declaration, with the rules of the place where each stands.

use std::collections::BTreeMap;

use super::PlanError;
use super::types::is_identifier;
use crate::declaration::{
    Aggregate, AggregateField, Aggregation, Deduplicate, Fold, Let, Map, MapValues, TopK,
};
use crate::plan::{First, Windows};
use crate::{Env, Expr, Path, Type, ValueReads};

/// Most items of a list that an aggregation keeps.
const MOST_KEPT: u32 = 1_000;

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

/// What is computed of a table's value is computed again when the value leaves: of nothing else than key and value.
pub(crate) fn of_table(expr: Expr, path: &Path) -> Result<Expr, PlanError> {
    if expr.reads().coordinates {
        let message = "`ts`, `headers` and the like are those of an update, and a table's value has none when it is computed again";
        let error = PlanError::new(path, message);
        return Err(error.suggest("put it into the value before the table"));
    }
    Ok(expr)
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

/// What `deduplicate` finds records by, beside their key.
pub(crate) fn compile_by(
    declared: &Deduplicate,
    env: &Env,
    path: &Path,
) -> Result<Option<Expr>, Vec<PlanError>> {
    let by = declared.by.as_ref();
    by.map(|by| compile_key(by, env, &path.field("by"))).transpose()
}

/// `mapValues`. On errors: all of its fields'.
pub(crate) fn compile_map_values(map: &MapValues, env: &Env, path: &Path) -> Result<Expr, Vec<PlanError>> {
    let lets = Lets::compile(&map.lets, env, path)?;
    let (fields, expression) = (map.fields.as_ref(), map.expression.as_deref());
    let value = compile_value("mapValues", fields, expression, &lets.env, path)?;
    Ok(lets.around(value))
}

/// `map`: key and value. On errors: all of both.
pub(crate) fn compile_map(map: &Map, env: &Env, path: &Path) -> Result<(Expr, Expr), Vec<PlanError>> {
    let lets = Lets::compile(&map.lets, env, path)?;
    let key = compile_key(&map.key, &lets.env, &path.field("key"));
    let (fields, expression) = (map.fields.as_ref(), map.expression.as_deref());
    match (key, compile_value("map", fields, expression, &lets.env, path)) {
        (Ok(key), Ok(value)) => Ok((lets.around(key), lets.around(value))),
        (key, value) => Err([key.err(), value.err()].into_iter().flatten().flatten().collect()),
    }
}

/// Names of `let`.
struct Lets {
    /// In their order.
    values: Vec<Expr>,
    /// With the names.
    env: Env,
}

impl Lets {
    /// On errors: all up to the first wrong one, whose name has no type.
    fn compile(lets: &[Let], env: &Env, path: &Path) -> Result<Self, Vec<PlanError>> {
        let mut found = Self {
            values: Vec::new(),
            env: env.clone(),
        };
        for (at, declared) in lets.iter().enumerate() {
            let (path, name) = (path.field("let").index(at), &declared.name);
            let message = if !is_identifier(name) {
                format!("`{name}` cannot be a name: use letters, digits and `_`")
            } else if found.env.lets.iter().any(|(other, _)| other == name) {
                format!("`{name}` is there twice")
            } else if Expr::has_name(name) {
                format!("`{name}` is the name of something else in every expression")
            } else {
                let value = compile(&declared.expression, &found.env, &path.field("expression"))?;
                found.env.lets.push((name.clone(), value.ty().clone()));
                found.values.push(value);
                continue;
            };
            return Err(PlanError::new(&path.field("name"), message).into());
        }
        Ok(found)
    }

    /// The expression that was compiled with all the names.
    fn around(&self, body: Expr) -> Expr {
        let outwards = self.values.iter().rev();
        outwards.fold(body, |body, value| value.clone().bind(body))
    }
}

/// `flatMapValues`, and the type of the items.
pub(crate) fn compile_flat_map_values(
    source: &str,
    env: &Env,
    path: &Path,
) -> Result<(Expr, Type), Vec<PlanError>> {
    let expr = compile(source, env, path)?;
    let Type::List(item) = expr.ty() else {
        let message = format!("needs a list, the expression has type {}", expr.ty());
        return Err(PlanError::new(path, message).into());
    };
    if matches!(**item, Type::Optional(_)) {
        let message = format!("a value cannot be absent, the items have type {item}");
        return Err(PlanError::new(path, message).into());
    }
    let item = Type::clone(item);
    Ok((expr, item))
}

/// A new value, from fields or from one expression.
pub(super) fn compile_value(
    operator: &str,
    fields: Option<&BTreeMap<String, String>>,
    expression: Option<&str>,
    env: &Env,
    path: &Path,
) -> Result<Expr, Vec<PlanError>> {
    match (fields, expression) {
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
                Ok(Expr::build_struct(operator, built))
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
            let message = format!("`{operator}` needs exactly one of `fields` and `expression`");
            Err(PlanError::new(path, message).into())
        }
    }
}

/// What an aggregation begins with, how it goes on, for session windows how two of them become one, and for tables how a value
/// leaves.
pub(crate) struct Folds {
    pub(crate) first: First,
    pub(crate) add: Expr,
    pub(crate) merge: Option<Expr>,
    pub(crate) remove: Option<Expr>,
}

impl Folds {
    /// What it reads of the values that come.
    pub(crate) fn reads(&self) -> ValueReads {
        let mut reads = self.first.expr().reads().value.clone();
        for expr in [Some(&self.add), self.remove.as_ref()].into_iter().flatten() {
            reads.add(&expr.reads().value);
        }
        reads
    }
}

/// What an aggregation is over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// Records.
    Stream,
    /// Records in windows.
    Windows(Windows),
    /// Values that come and go.
    Table,
}

impl Over {
    /// Of records in windows.
    pub(crate) fn windows(self) -> Option<Windows> {
        match self {
            Self::Windows(windows) => Some(windows),
            Self::Stream | Self::Table => None,
        }
    }
}

/// What an aggregation does. On errors: all of them.
pub(crate) fn compile_aggregation(
    aggregation: Aggregation<'_>,
    over: Over,
    env: &Env,
    path: &Path,
) -> Result<Folds, Vec<PlanError>> {
    let (first, add) = compile_add_to(aggregation, env, path)?;
    let ty = first.expr().ty();
    let has_sessions = matches!(over, Over::Windows(Windows::Session(_)));
    let merge = compile_merge(aggregation, has_sessions, ty, env, path)?;
    let remove = compile_remove(aggregation, over == Over::Table, ty, env, path)?;
    Ok(Folds {
        first,
        add,
        merge,
        remove,
    })
}

/// How two session windows of an aggregation of this type become one.
fn compile_merge(
    aggregation: Aggregation<'_>,
    has_sessions: bool,
    ty: &Type,
    env: &Env,
    path: &Path,
) -> Result<Option<Expr>, Vec<PlanError>> {
    let env = &Env {
        value: ty.clone(),
        aggregate: Some(ty.clone()),
        ..env.clone()
    };
    let merge = match aggregation {
        Aggregation::Aggregate(aggregate) => {
            return Extra::Merge.compile(aggregate, has_sessions, ty, env, path);
        }
        _ if !has_sessions => return Ok(None),
        Aggregation::Reduce(reduce) => compile_as(&reduce.add, ty, env, &path.field("add"))?,
        Aggregation::Count(_) | Aggregation::Sum(_) => compile("aggregate + value", env, path)?,
        Aggregation::Min(_) => compile("value < aggregate ? value : aggregate", env, path)?,
        Aggregation::Max(_) => compile("value > aggregate ? value : aggregate", env, path)?,
        Aggregation::Earliest(_) => compile("aggregate", env, path)?,
        Aggregation::Latest(_) => compile("value", env, path)?,
        Aggregation::Collect(collect) => compile(&last("value", collect.limit), env, path)?,
        Aggregation::TopK(top) => compile(&largest("value", top), env, path)?,
    };
    Ok(Some(merge))
}

/// How a value of a table leaves an aggregation of this type.
fn compile_remove(
    aggregation: Aggregation<'_>,
    is_of_table: bool,
    ty: &Type,
    env: &Env,
    path: &Path,
) -> Result<Option<Expr>, Vec<PlanError>> {
    let with_aggregate = || Env {
        aggregate: Some(ty.clone()),
        ..env.clone()
    };
    let remove = match aggregation {
        Aggregation::Aggregate(aggregate) => {
            return Extra::Remove.compile(aggregate, is_of_table, ty, &with_aggregate(), path);
        }
        Aggregation::Reduce(reduce) => match (&reduce.remove, is_of_table) {
            (None, false) => return Ok(None),
            (given, true) => Extra::Remove.changed(given.as_ref(), ty, env, path)?,
            (Some(_), false) => return Err(Extra::Remove.refused(path).into()),
        },
        _ if !is_of_table => return Ok(None),
        Aggregation::Count(_) => compile("aggregate - 1", &with_aggregate(), path)?,
        Aggregation::Sum(fold) => {
            let of = compile_of(fold, env, path)?;
            combined(fold, "aggregate - of", &of, env, path)?
        }
        Aggregation::Min(_)
        | Aggregation::Max(_)
        | Aggregation::Earliest(_)
        | Aggregation::Latest(_)
        | Aggregation::Collect(_)
        | Aggregation::TopK(_) => {
            let name = aggregation.name();
            let message = format!("a value that is there no more cannot be taken out of `{name}`");
            let instead = "use `count`, `sum`, or `aggregate` with `remove`; or take each update as a record with `toStream: {}`";
            return Err(PlanError::new(path, message).suggest(instead).into());
        }
    };
    Ok(Some(remove))
}

/// What an aggregation says for one kind of grouping, and only there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extra {
    /// How two session windows become one.
    Merge,
    /// How a value of a table leaves.
    Remove,
}

impl Extra {
    fn name(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::Remove => "remove",
        }
    }

    fn of(self, aggregate: &Aggregate) -> Option<&String> {
        match self {
            Self::Merge => aggregate.merge.as_ref(),
            Self::Remove => aggregate.remove.as_ref(),
        }
    }

    fn of_field(self, field: &AggregateField) -> Option<&String> {
        match self {
            Self::Merge => field.merge.as_ref(),
            Self::Remove => field.remove.as_ref(),
        }
    }

    /// It must be there.
    fn given<'s>(self, given: Option<&'s String>, path: &Path) -> Result<&'s String, PlanError> {
        let (message, instead) = match self {
            Self::Merge => (
                "two session windows can become one: say what becomes of their values",
                "add it, from `aggregate` and `value`, e.g. `aggregate + value`",
            ),
            Self::Remove => (
                "values of a table come and go: say what becomes of the aggregate without one",
                "add it, from `aggregate` and `value`, e.g. `aggregate - value`",
            ),
        };
        given.ok_or_else(|| PlanError::new(&path.field(self.name()), message).suggest(instead))
    }

    /// It must not be there.
    fn refused(self, path: &Path) -> PlanError {
        let message = match self {
            Self::Merge => "only session windows become one, and the aggregation has none",
            Self::Remove => "only values of a table leave, and the aggregation is over a stream",
        };
        PlanError::new(&path.field(self.name()), message).suggest("leave it out")
    }

    /// An expression for how an aggregate of this type goes on, which must be there.
    fn changed(
        self,
        given: Option<&String>,
        ty: &Type,
        env: &Env,
        path: &Path,
    ) -> Result<Expr, Vec<PlanError>> {
        let source = self.given(given, path)?;
        compile_changed(source, self.name(), ty, env, &path.field(self.name()))
    }

    /// That of an `aggregate` of this type.
    fn compile(
        self,
        aggregate: &Aggregate,
        is_needed: bool,
        ty: &Type,
        env: &Env,
        path: &Path,
    ) -> Result<Option<Expr>, Vec<PlanError>> {
        if !is_needed {
            return self.refuse(aggregate, path).map(|()| None);
        }
        let compiled = |given: Option<&String>, ty: &Type, path: &Path| {
            let source = self.given(given, path)?;
            compile_as(source, ty, env, &path.field(self.name()))
        };
        match (parts(aggregate, path)?, self) {
            (Parts::One { .. }, Self::Merge) => compiled(aggregate.merge.as_ref(), ty, path),
            (Parts::One { .. }, Self::Remove) => self.changed(aggregate.remove.as_ref(), ty, env, path),
            (Parts::Fields(fields), _) => each_field(fields, path, |name, field, path| {
                compiled(self.of_field(field), field_of(ty, name), path)
            }),
        }
        .map(Some)
    }

    fn refuse(self, aggregate: &Aggregate, path: &Path) -> Result<(), Vec<PlanError>> {
        let one = self.of(aggregate).map(|_| path.clone());
        let fields = aggregate.fields.iter().flatten();
        let fields = fields.filter(|(_, field)| self.of_field(field).is_some());
        let fields = fields.map(|(name, _)| path.field("fields").field(name));
        let errors: Vec<_> = one
            .into_iter()
            .chain(fields)
            .map(|path| self.refused(&path))
            .collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// What it begins with, and how it goes on.
fn compile_add_to(
    aggregation: Aggregation<'_>,
    env: &Env,
    path: &Path,
) -> Result<(First, Expr), Vec<PlanError>> {
    match aggregation {
        Aggregation::Aggregate(aggregate) => {
            let initial = compile_initial(aggregate, env, path)?;
            let add = match parts(aggregate, path)? {
                Parts::One { add, .. } => compile_add(add, initial.ty(), env, &path.field("add"))?,
                Parts::Fields(fields) => {
                    let env = Env {
                        aggregate: Some(initial.ty().clone()),
                        ..env.clone()
                    };
                    let add = |name: &str, field: &AggregateField, path: &Path| {
                        compile_as(&field.add, field_of(initial.ty(), name), &env, &path.field("add"))
                    };
                    each_field(fields, path, add)?
                }
            };
            Ok((First::Initial(initial), add))
        }
        Aggregation::Count(_) => {
            let initial = compile("0", env, path)?;
            let add = compile_add("aggregate + 1", &Type::Int, env, path)?;
            Ok((First::Initial(initial), add))
        }
        Aggregation::Sum(fold) => {
            let of = compile_of(fold, env, path)?;
            let zeros = [(Type::Int, "0"), (Type::Double, "0.0")];
            let Some((_, zero)) = zeros.iter().find(|(ty, _)| ty == of.ty()) else {
                let message = format!("a sum needs int or double, the expression has type {}", of.ty());
                return Err(PlanError::new(&path.field("of"), message).into());
            };
            let add = combined(fold, "aggregate + of", &of, env, path)?;
            Ok((First::Initial(compile(zero, env, path)?), add))
        }
        Aggregation::Min(fold) => extreme(fold, "of < aggregate ? of : aggregate", env, path),
        Aggregation::Max(fold) => extreme(fold, "of > aggregate ? of : aggregate", env, path),
        Aggregation::Earliest(fold) => {
            let of = compile_of(fold, env, path)?;
            let add = compile_add("aggregate", of.ty(), env, path)?;
            Ok((First::Record(of), add))
        }
        Aggregation::Latest(fold) => {
            let of = compile_of(fold, env, path)?;
            let add = compile_of(fold, env, path)?;
            Ok((First::Record(of), add))
        }
        Aggregation::Collect(collect) => {
            bounded(collect.limit, path)?;
            let of = compile_kept(&collect.of, env, &path.field("of"))?;
            // A comment in the expression ends with its line.
            let item = format!("[{}\n]", collect.of);
            let first = compile(&item, env, path)?;
            let list = Type::List(Box::new(of.ty().clone()));
            let add = compile_add(&last(&item, collect.limit), &list, env, path).map_err(unplaced)?;
            Ok((First::Record(first), add))
        }
        Aggregation::TopK(top) => {
            bounded(top.limit, path)?;
            compile_compared(&top.by, env, &path.field("by"))?;
            let first = compile("[value]", env, path)?;
            let add = compile_add(&largest("[value]", top), first.ty(), env, path).map_err(unplaced)?;
            Ok((First::Record(first), add))
        }
        Aggregation::Reduce(reduce) => {
            let first = compile("value", env, path)?;
            let add = compile_add(&reduce.add, first.ty(), env, &path.field("add"))?;
            Ok((First::Record(first), add))
        }
    }
}

/// What an `aggregate` keeps.
enum Parts<'d> {
    One { initial: &'d str, add: &'d str },
    Fields(&'d BTreeMap<String, AggregateField>),
}

fn parts<'d>(aggregate: &'d Aggregate, path: &Path) -> Result<Parts<'d>, PlanError> {
    let Aggregate {
        initial, add, fields, ..
    } = aggregate;
    let mut extras = [Extra::Merge, Extra::Remove].into_iter();
    let extra = extras.find(|extra| extra.of(aggregate).is_some());
    if let (None, None, Some(_), Some(extra)) = (initial, add, fields, extra) {
        let name = extra.name();
        let message = format!("with `fields`, each field has its own `{name}`");
        let error = PlanError::new(&path.field(name), message);
        return Err(error.suggest(format!("put `{name}` into the fields")));
    }
    match (initial, add, fields) {
        (Some(initial), Some(add), None) => Ok(Parts::One { initial, add }),
        (None, None, Some(fields)) if !fields.is_empty() => Ok(Parts::Fields(fields)),
        _ => {
            let message = "`aggregate` needs either `initial` and `add`, or `fields` with at least one field";
            Err(PlanError::new(path, message))
        }
    }
}

/// A record of the fields, each compiled. On errors: all of them.
fn each_field(
    fields: &BTreeMap<String, AggregateField>,
    path: &Path,
    compile: impl Fn(&str, &AggregateField, &Path) -> Result<Expr, Vec<PlanError>>,
) -> Result<Expr, Vec<PlanError>> {
    let (mut built, mut errors) = (Vec::new(), Vec::new());
    for (name, field) in fields {
        let path = path.field("fields").field(name);
        if !is_identifier(name) {
            let message = format!("`{name}` cannot be a field: use letters, digits and `_`");
            errors.push(PlanError::new(&path, message));
        }
        match compile(name, field, &path) {
            Ok(expr) => built.push((name.clone(), expr)),
            Err(wrong) => errors.extend(wrong),
        }
    }
    if errors.is_empty() {
        Ok(Expr::build_struct("aggregate", built))
    } else {
        Err(errors)
    }
}

/// The type of a field of a record that has it.
pub(super) fn field_of<'t>(ty: &'t Type, name: &str) -> &'t Type {
    let Type::Struct(record) = ty else { return ty };
    record.field(name).map_or(ty, |(_, field)| &field.ty)
}

/// What an aggregate is before any record.
pub(crate) fn compile_initial(aggregate: &Aggregate, env: &Env, path: &Path) -> Result<Expr, Vec<PlanError>> {
    match parts(aggregate, path)? {
        Parts::One { initial, .. } => compile_constant(initial, env, &path.field("initial")),
        Parts::Fields(fields) => each_field(fields, path, |_, field, path| {
            compile_constant(&field.initial, env, &path.field("initial"))
        }),
    }
}

/// An expression that reads no record.
fn compile_constant(source: &str, env: &Env, path: &Path) -> Result<Expr, Vec<PlanError>> {
    let initial = compile(source, env, path)?;
    if !initial.reads().is_nothing() {
        let message = "`initial` is the value before any record: it can only be a constant";
        return Err(PlanError::new(path, message).into());
    }
    if matches!(initial.ty(), Type::Optional(_) | Type::Struct(_)) {
        let message = format!("an aggregate cannot have type {}", initial.ty());
        return Err(PlanError::new(path, message).into());
    }
    Ok(initial)
}

/// How an aggregate of this type goes on; null, if it can be that, deletes the key.
fn compile_add(source: &str, ty: &Type, env: &Env, path: &Path) -> Result<Expr, Vec<PlanError>> {
    compile_changed(source, "add", ty, env, path)
}

/// The same, of a field with this name.
pub(super) fn compile_changed(
    source: &str,
    name: &str,
    ty: &Type,
    env: &Env,
    path: &Path,
) -> Result<Expr, Vec<PlanError>> {
    let env = Env {
        aggregate: Some(ty.clone()),
        ..env.clone()
    };
    let changed = compile(source, &env, path)?;
    let deletes = matches!(changed.ty(), Type::Optional(inner) if **inner == *ty);
    if changed.ty() == ty || deletes {
        return Ok(changed);
    }
    let message = format!(
        "`{name}` has type {}, but the aggregate has type {ty}",
        changed.ty()
    );
    let error = PlanError::new(path, message);
    Err(match (ty, changed.ty()) {
        (Type::Int, Type::Double) => {
            error.suggest("begin with a double, e.g. `0.0`, or convert with `int(…)`")
        }
        _ => error,
    }
    .into())
}

/// What is kept of each record.
fn compile_of(fold: &Fold, env: &Env, path: &Path) -> Result<Expr, Vec<PlanError>> {
    compile_kept(&fold.of, env, &path.field("of"))
}

/// What cannot be absent, since it is kept.
fn compile_kept(source: &str, env: &Env, path: &Path) -> Result<Expr, Vec<PlanError>> {
    let of = compile(source, env, path)?;
    if let Type::Optional(inner) = of.ty() {
        let message = format!("an aggregate cannot be absent, the expression has type {inner}?");
        let error = PlanError::new(path, message);
        return Err(error.suggest("filter with `has(…)`, or use `.orValue(…)`").into());
    }
    Ok(of)
}

/// What records are compared by: it is asked for again when others have come.
fn compile_compared(source: &str, env: &Env, path: &Path) -> Result<(), Vec<PlanError>> {
    let by = compile_kept(source, env, path)?;
    comparable(&by, path)?;
    let reads = by.reads();
    if reads.key || reads.coordinates {
        let message = "records are compared by their values alone: `key`, `ts` and the like are not kept";
        return Err(PlanError::new(path, message)
            .suggest("put it into the value with `mapValues`")
            .into());
    }
    Ok(())
}

fn comparable(expr: &Expr, path: &Path) -> Result<(), PlanError> {
    if matches!(expr.ty(), Type::List(_) | Type::Map(_) | Type::Struct(_)) {
        let message = format!("values of type {} cannot be compared", expr.ty());
        return Err(PlanError::new(path, message));
    }
    Ok(())
}

fn bounded(limit: u32, path: &Path) -> Result<(), PlanError> {
    if (1..=MOST_KEPT).contains(&limit) {
        return Ok(());
    }
    let message = format!("{limit} cannot be kept: from 1 to {MOST_KEPT}");
    Err(PlanError::new(&path.field("limit"), message))
}

/// The list `aggregate` with another one behind it, as far as it may grow.
fn last(list: &str, limit: u32) -> String {
    format!(
        "cel.bind(items, aggregate + {list}, \
         items.size() > {limit} ? items.slice(items.size() - {limit}, items.size()) : items)"
    )
}

/// The largest of the list `aggregate` and another one.
fn largest(list: &str, top: &TopK) -> String {
    let TopK { by, limit, .. } = top;
    // The items are called as what `by` reads.
    format!(
        "cel.bind(items, (aggregate + {list}).sortBy(value, {by}\n).reverse(), \
         items.size() > {limit} ? items.slice(0, {limit}) : items)"
    )
}

/// Errors of an expression of which a part is a person's have no place in that.
fn unplaced(errors: Vec<PlanError>) -> Vec<PlanError> {
    let errors = errors.into_iter();
    errors.map(|error| PlanError { span: None, ..error }).collect()
}

/// The smallest or the largest of an expression.
fn extreme(fold: &Fold, rule: &str, env: &Env, path: &Path) -> Result<(First, Expr), Vec<PlanError>> {
    let of = compile_of(fold, env, path)?;
    comparable(&of, &path.field("of"))?;
    let add = combined(fold, rule, &of, env, path)?;
    Ok((First::Record(of), add))
}

/// An expression over `aggregate` and `of`, which has the same type. What is wrong with it, its size for instance, has no
/// place in what a person wrote.
fn combined(fold: &Fold, rule: &str, of: &Expr, env: &Env, path: &Path) -> Result<Expr, Vec<PlanError>> {
    // A comment in the expression ends with its line.
    let source = format!("cel.bind(of, {}\n, {rule})", fold.of);
    compile_add(&source, of.ty(), env, &path.field("of")).map_err(unplaced)
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
