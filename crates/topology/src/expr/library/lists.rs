//! Lists and maps, and what has the same name on strings: which of them a value is may be known only per record.

use bumpalo::collections::Vec as ArenaVec;

use super::{Entry, Evaluated};
use crate::Value;
use crate::expr::EvalError;
use crate::expr::eval::{Context, contains};
use crate::expr::node::Arithmetic;
use crate::expr::operators::{self, length};

pub(super) const FUNCTIONS: &[Entry] = &[
    (
        &[
            "size(string) -> int",
            "size(bytes) -> int",
            "size(list(A)) -> int",
            "size(map(A, B)) -> int",
            "string.size() -> int",
            "bytes.size() -> int",
            "list(A).size() -> int",
            "map(A, B).size() -> int",
        ],
        size,
    ),
    (
        &["string.reverse() -> string", "list(A).reverse() -> list(A)"],
        reverse,
    ),
    (&["list(A).slice(int, int) -> list(A)"], slice),
    (&["list(A).distinct() -> list(A)"], distinct),
    (&["list(A).sort() -> list(A)"], sort),
    (&["list(list(A)).flatten() -> list(A)"], flatten),
    (&["lists.range(int) -> list(int)"], range),
    (&["list(int).sum() -> int"], |context, of| {
        sum(context, of, Value::Int(0))
    }),
    (&["list(double).sum() -> double"], |context, of| {
        sum(context, of, Value::Double(0.0))
    }),
    (&["list(duration).sum() -> duration"], |context, of| {
        sum(context, of, Value::Duration(0))
    }),
    (&["list(A).first() -> A?"], first),
    (&["list(A).last() -> A?"], last),
];

fn size<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let size = match arguments {
        [Value::String(text)] => text.chars().count(),
        [Value::Bytes(bytes)] => bytes.len(),
        [Value::List(items)] => items.len(),
        [Value::Map(entries)] => entries.len(),
        _ => return Err(EvalError::NoOverload("size")),
    };
    Ok(Value::Int(length(size)))
}

fn reverse<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::String(text)] => {
            let mut out = context.new_string(text.len());
            out.extend(text.chars().rev());
            context.string(out)
        }
        [Value::List(items)] => {
            let mut out = context.new_list(items.len());
            out.extend(items.iter().rev().copied());
            context.list(out)
        }
        _ => Err(EvalError::NoOverload("reverse")),
    }
}

fn slice<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::List(items), Value::Int(from), Value::Int(to)] = arguments else {
        return Err(EvalError::NoOverload("slice"));
    };
    let range = usize::try_from(*from).ok().zip(usize::try_from(*to).ok());
    let part = range.and_then(|(from, to)| items.get(from..to));
    part.map(Value::List)
        .ok_or_else(|| EvalError::Index(format!("{from} to {to}").into()))
}

/// The first of those that are equal.
fn distinct<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::List(items)] = arguments else {
        return Err(EvalError::NoOverload("distinct"));
    };
    let mut out = context.new_list(0);
    for item in *items {
        context.steps(out.len())?;
        if !contains(&out, item) {
            out.push(*item);
        }
    }
    context.list(out)
}

fn sort<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::List(items)] = arguments else {
        return Err(EvalError::NoOverload("sort"));
    };
    let mut pairs = ArenaVec::with_capacity_in(items.len(), context.scope.arena);
    pairs.extend(items.iter().map(|item| (*item, ())));
    operators::sort(&mut pairs)?;
    let mut out = context.new_list(items.len());
    out.extend(pairs.iter().map(|(item, ())| *item));
    context.list(out)
}

fn flatten<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::List(items)] = arguments else {
        return Err(EvalError::NoOverload("flatten"));
    };
    let mut out = context.new_list(0);
    for item in *items {
        match item {
            Value::List(inner) => out.extend_from_slice(inner),
            other => out.push(*other),
        }
    }
    context.list(out)
}

fn range<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::Int(end)] = arguments else {
        return Err(EvalError::NoOverload("lists.range"));
    };
    context.steps(usize::try_from(*end).unwrap_or(0))?;
    let mut out = context.new_list(0);
    out.extend((0..*end).map(Value::Int));
    Ok(Value::List(out.into_bump_slice()))
}

/// `empty`: of a list without items, whose type is that of the signature.
fn sum<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>], empty: Value<'a>) -> Evaluated<'a> {
    let [Value::List(items)] = arguments else {
        return Err(EvalError::NoOverload("sum"));
    };
    let zero = match items.first() {
        Some(Value::Int(_)) => Value::Int(0),
        Some(Value::Double(_)) => Value::Double(0.0),
        Some(Value::Duration(_)) => Value::Duration(0),
        Some(_) => return Err(EvalError::NoOverload("sum")),
        None => empty,
    };
    items
        .iter()
        .try_fold(zero, |total, item| Arithmetic::Add.apply(context, total, *item))
}

fn first<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::List(items)] => Ok(items.first().copied().unwrap_or(Value::Null)),
        _ => Err(EvalError::NoOverload("first")),
    }
}

fn last<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::List(items)] => Ok(items.last().copied().unwrap_or(Value::Null)),
        _ => Err(EvalError::NoOverload("last")),
    }
}
