//! Joins and merges: which kinds there are, and what each side must be.

use super::compile::{compile_value, of_table};
use super::origin::Origin;
use super::resolve::{End, Kind, Lookup};
use super::{PlanError, formats, windows};
use crate::declaration::{Join, JoinKind};
use crate::fingerprint::canonical_type;
use crate::plan::{JoinWindows, Unmatched};
use crate::{Duration, Env, Expr, Path, Type, ValueReads};

/// A join without errors.
pub(crate) struct Joined<'d> {
    pub(crate) declared: &'d Join,
    pub(crate) kind: JoinKind,
    pub(crate) with: Origin<'d>,
    pub(crate) how: How,
    /// Names of the repartition topics that this side and the other one need.
    pub(crate) cuts: (Option<String>, Option<String>),
    /// What it reads of the values on this side.
    pub(crate) reads: ValueReads,
    value: Type,
}

/// How values of a table become ones that can be looked up.
const KEEP: &str = "keep them: add the step `toTable: {store: …}`";

/// What is joined.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// A stream with a table, and how long its records wait, if they do.
    StreamTable(Option<i64>),
    /// Two tables.
    Tables,
    /// Two tables, of which the values of one name keys of the other.
    ForeignKey,
    /// Two streams.
    Streams(JoinWindows),
}

/// The side that has the join as a step.
pub(super) struct Here<'e> {
    pub(super) env: &'e Env,
    pub(super) kind: Kind,
    pub(super) key_changed: bool,
}

impl Joined<'_> {
    /// What becomes of a value that is alone, of the left and of the right side.
    pub(crate) fn unmatched(&self) -> (Unmatched, Unmatched) {
        match self.kind {
            JoinKind::Inner => (Unmatched::Dropped, Unmatched::Dropped),
            JoinKind::Left => (Unmatched::Forwarded, Unmatched::Dropped),
            JoinKind::Outer => (Unmatched::Forwarded, Unmatched::Forwarded),
        }
    }

    /// What the result is.
    pub(super) fn result(&self) -> Kind {
        match (self.how, &self.declared.name) {
            (How::StreamTable(_) | How::Streams(_), _) => Kind::Stream,
            (How::Tables | How::ForeignKey, Some(_)) => Kind::Table(Lookup::Kept),
            (How::Tables | How::ForeignKey, None) => Kind::Table(Lookup::NotKept),
        }
    }

    /// The types behind it.
    pub(super) fn follow(&self, env: &mut Env) {
        env.value = self.value.clone();
        env.is_of_one_record &= self.how == How::StreamTable(None);
        env.right = None;
    }
}

/// Checks a join.
///
/// # Errors
/// Sides that cannot be joined; an expression that is not valid.
pub(super) fn resolve<'d>(
    kind: JoinKind,
    declared: &'d Join,
    here: &Here<'_>,
    with: &End<'d>,
    path: &Path,
) -> Result<Joined<'d>, Vec<PlanError>> {
    let how = sides(kind, declared, here, with, path)?;
    if how == How::ForeignKey {
        let foreign_key = compile_foreign_key(declared, here.env, path)?;
        if *present(foreign_key.ty()) != with.env.key {
            let message = format!(
                "keys of `{}` have type {}, the expression has type {}",
                declared.with,
                with.env.key,
                foreign_key.ty()
            );
            return Err(PlanError::new(&path.field("foreignKey"), message).into());
        }
        formats::key_format(&with.env.key, &path.field("with"))?;
    } else if here.env.key != with.env.key {
        let message = format!(
            "keys of `{}` have type {}, those here {}: only equal keys are joined",
            declared.with, with.env.key, here.env.key
        );
        let error = PlanError::new(&path.field("with"), message);
        return Err(error.suggest("give both the same key with `selectKey`").into());
    }
    formats::key_format(&here.env.key, path)?;
    let cut = |is_changed: bool, side: &str| -> Result<Option<String>, PlanError> {
        match (&declared.name, is_changed) {
            (_, false) => Ok(None),
            (Some(name), true) => Ok(Some(format!("{name}-{side}"))),
            (None, true) => {
                let message = "records go through a repartition topic here, which needs a name: a key was changed before, or is an Integer";
                Err(PlanError::new(path, message).suggest("add `name`"))
            }
        }
    };
    let cuts = (cut(here.key_changed, "left")?, cut(with.key_changed, "right")?);
    let env = env(kind, how, here.env, &with.env.value);
    let value = compile(declared, kind, &env, path)?;
    let value = match how {
        How::Tables | How::ForeignKey => of_table(value, path)?,
        How::StreamTable(_) | How::Streams(_) => value,
    };
    let reads = match how {
        How::StreamTable(None) => value.reads().value.clone(),
        // They are kept as they are.
        How::StreamTable(Some(_)) | How::Tables | How::ForeignKey | How::Streams(_) => ValueReads::Whole,
    };
    Ok(Joined {
        declared,
        kind,
        with: with.origin.clone(),
        how,
        cuts,
        reads,
        value: value.ty().clone(),
    })
}

/// What is added to the name of a join for the repartition topics that it may need.
pub(super) fn names(declared: &Join) -> [&'static str; 2] {
    match declared.foreign_key {
        // Who names which keys, which is a store, too; and what there is under these.
        Some(_) => ["subscriptions", "responses"],
        None => ["left", "right"],
    }
}

/// The key that a value on this side names.
pub(super) fn compile_foreign_key(declared: &Join, env: &Env, path: &Path) -> Result<Expr, Vec<PlanError>> {
    let path = &path.field("foreignKey");
    let source = declared.foreign_key.as_deref().unwrap_or_default();
    let expr = super::compile::compile(source, env, path)?;
    Ok(of_table(expr, path)?)
}

/// The type of the key, where it may be absent.
fn present(ty: &Type) -> &Type {
    if let Type::Optional(inner) = ty { inner } else { ty }
}

/// The new value.
pub(crate) fn compile(
    declared: &Join,
    kind: JoinKind,
    env: &Env,
    path: &Path,
) -> Result<Expr, Vec<PlanError>> {
    let (fields, expression) = (declared.fields.as_ref(), declared.expression.as_deref());
    compile_value(kind.name(), fields, expression, env, path)
}

/// What its expressions see.
pub(crate) fn env(kind: JoinKind, how: How, left: &Env, right: &Type) -> Env {
    let optional = |ty: &Type| Type::Optional(Box::new(ty.clone()));
    let (value, right) = match kind {
        JoinKind::Inner => (left.value.clone(), right.clone()),
        JoinKind::Left => (left.value.clone(), optional(right)),
        JoinKind::Outer => (optional(&left.value), optional(right)),
    };
    Env {
        value,
        right: Some(right),
        is_of_one_record: left.is_of_one_record && how == How::StreamTable(None),
        ..left.clone()
    }
}

/// Two streams.
fn streams(declared: &Join, path: &Path) -> Result<How, PlanError> {
    let needed = |field: &str, what: &str| {
        let message = format!("two streams are joined, and that needs `{field}`: {what}");
        PlanError::new(&path.field(field), message)
    };
    let time = |own: Option<Duration<0>>| {
        let time = own.or(declared.within).map(windows::millis);
        time.ok_or_else(|| needed("within", "how far apart records may be that are joined"))
    };
    if let (Some(_), Some(_), Some(_)) = (declared.within, declared.before, declared.after) {
        let message = "`within` is the default of `before` and `after`, and both are given";
        return Err(PlanError::new(&path.field("within"), message).suggest("leave it out"));
    }
    let (before_ms, after_ms) = (time(declared.before)?, time(declared.after)?);
    let grace = declared
        .grace
        .ok_or_else(|| needed("grace", "how much later than others a record may come"))?;
    if declared.name.is_none() {
        return Err(needed(
            "name",
            "the name of the store that keeps the records of both",
        ));
    }
    Ok(How::Streams(JoinWindows {
        before_ms,
        after_ms,
        grace_ms: windows::millis(grace),
    }))
}

fn sides(
    kind: JoinKind,
    declared: &Join,
    here: &Here<'_>,
    with: &End<'_>,
    path: &Path,
) -> Result<How, PlanError> {
    let name = &declared.with;
    let at = path.field("with");
    let are_tables = matches!((here.kind, with.kind), (Kind::Table(_), Kind::Table(_)));
    if declared.foreign_key.is_some() && !are_tables {
        let message = "only a value of a table names a key of another table";
        let error = PlanError::new(&path.field("foreignKey"), message);
        return Err(error.suggest("choose the stream's key with `selectKey`, or make both sides tables"));
    }
    let how = match (here.kind, with.kind) {
        (_, Kind::Table(Lookup::NotKept)) => {
            let message = format!("the values of `{name}` are not kept: they cannot be looked up");
            return Err(PlanError::new(&at, message).suggest(KEEP));
        }
        (Kind::Stream, Kind::Table(Lookup::Kept | Lookup::Versions)) if kind == JoinKind::Outer => {
            let message = format!("`{name}` is a table: a stream and a table have no outer join");
            let instead = "write `leftJoin`; an update of the table alone is no record of the stream";
            return Err(PlanError::new(path, message).suggest(instead));
        }
        (Kind::Stream, Kind::Table(lookup)) => How::StreamTable(held(declared, lookup, path)?),
        (Kind::Table(Lookup::Kept | Lookup::Versions), Kind::Table(_)) => tables(kind, declared, path)?,
        (Kind::Table(Lookup::NotKept), Kind::Table(_)) => {
            let message = "the values on this side are not kept, and the other side looks them up";
            return Err(PlanError::new(path, message).suggest(KEEP));
        }
        (Kind::Table(_), _) => {
            let message = format!("`{name}` is a stream: a table is joined with tables");
            let instead = "make it a table with `toTable`, or this one a stream with `toStream: {}`";
            return Err(PlanError::new(&at, message).suggest(instead));
        }
        (Kind::Stream | Kind::Grouped(_), _) => return streams(declared, path),
    };
    let grace = declared.grace.filter(|_| !matches!(how, How::StreamTable(_)));
    let times = [
        ("within", declared.within),
        ("before", declared.before),
        ("after", declared.after),
        ("grace", grace),
    ];
    match times.iter().find(|(_, time)| time.is_some()) {
        Some((field, _)) => {
            let message = format!("`{field}` is for two streams, `{name}` is a table");
            Err(PlanError::new(&path.field(field), message).suggest("leave it out"))
        }
        None => Ok(how),
    }
}

/// Two tables.
fn tables(kind: JoinKind, declared: &Join, path: &Path) -> Result<How, PlanError> {
    if declared.foreign_key.is_none() {
        return Ok(How::Tables);
    }
    if kind == JoinKind::Outer {
        let message = "with `foreignKey` there is no outer join: nothing says of a value of the other table that it has no partner";
        return Err(PlanError::new(path, message).suggest("write `leftJoin`"));
    }
    if declared.name.is_none() {
        let message = "with `foreignKey`, updates go through repartition topics, which need a name";
        return Err(PlanError::new(&path.field("name"), message).suggest("add `name`"));
    }
    Ok(How::ForeignKey)
}

/// How long records wait for a table, if they do.
fn held(declared: &Join, table: Lookup, path: &Path) -> Result<Option<i64>, PlanError> {
    let Some(grace) = declared.grace else {
        return Ok(None);
    };
    if table != Lookup::Versions {
        let name = &declared.with;
        let message = format!(
            "records wait for a table that knows what it had at their time, and `{name}` keeps the last values only"
        );
        let error = PlanError::new(&path.field("grace"), message);
        return Err(error.suggest("give the table `historyRetention`, or leave `grace` out"));
    }
    if declared.name.is_none() {
        let message = "records wait in a store, which needs a name";
        return Err(PlanError::new(&path.field("name"), message).suggest("add `name`"));
    }
    Ok(Some(windows::millis(grace)))
}

/// Checks that other streams can be merged with one that has these types.
///
/// # Errors
/// All that differ.
pub(super) fn check_merge(
    here: &Env,
    others: &[(&End<'_>, Path)],
    path: &Path,
) -> Result<(), Vec<PlanError>> {
    if others.is_empty() {
        return Err(PlanError::new(path, "nothing to merge with").into());
    }
    let is_like = |here: &Type, other: &Type| canonical_type(here) == canonical_type(other);
    let errors = others.iter().filter_map(|(other, path)| {
        let (_, name) = other.origin.id();
        let message = if other.kind != Kind::Stream {
            format!("`{name}` is a table, only streams are merged")
        } else if !is_like(&here.key, &other.env.key) || here.windows != other.env.windows {
            let (other, here) = (&other.env.key, &here.key);
            format!("keys of `{name}` have type {other}, those here {here}")
        } else if !is_like(&here.value, &other.env.value) {
            let (other, here) = (&other.env.value, &here.value);
            format!("values of `{name}` have type {other}, those here {here}, which has other fields")
        } else {
            return None;
        };
        Some(PlanError::new(path, message))
    });
    let errors: Vec<_> = errors.collect();
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}
