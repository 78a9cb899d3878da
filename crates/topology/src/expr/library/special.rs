//! Functions that the checker types by itself, since they take any number of arguments, or arguments of any type.

use std::cmp::Ordering;
use std::fmt::Write as _;

use super::Evaluated;
use crate::Value;
use crate::expr::EvalError;
use crate::expr::eval::Context;
use crate::expr::{operators, text};

/// `math.greatest` and `math.least` of numbers: the first of those that are equal.
fn extreme<'a>(arguments: &[Value<'a>], wanted: Ordering, name: &'static str) -> Evaluated<'a> {
    let numbers = match arguments {
        [Value::List(items)] => items,
        numbers => numbers,
    };
    let mut best = None;
    for number in numbers {
        if !matches!(number, Value::Int(_) | Value::Uint(_) | Value::Double(_)) {
            return Err(EvalError::NoOverload(name));
        }
        best = match best {
            Some(best) if operators::order(number, &best)? != Some(wanted) => Some(best),
            Some(_) | None => Some(*number),
        };
    }
    best.ok_or(EvalError::NoOverload(name))
}

pub(crate) fn greatest<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    extreme(arguments, Ordering::Greater, "math.greatest")
}

pub(crate) fn least<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    extreme(arguments, Ordering::Less, "math.least")
}

/// `type(…)`
pub(crate) fn type_of<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    Ok(Value::Type(match arguments {
        [Value::Null] => "null_type",
        [Value::Bool(_)] => "bool",
        [Value::Int(_)] => "int",
        [Value::Uint(_)] => "uint",
        [Value::Double(_)] => "double",
        [Value::String(_)] => "string",
        [Value::Bytes(_)] => "bytes",
        [Value::Timestamp(_)] => "google.protobuf.Timestamp",
        [Value::Duration(_)] => "google.protobuf.Duration",
        [Value::List(_)] => "list",
        [Value::Map(_)] => "map",
        [Value::Type(_)] => "type",
        _ => return Err(EvalError::NoOverload("type")),
    }))
}

/// `optional.ofNonZeroValue(…)`: null for what is empty or zero.
pub(crate) fn of_non_zero<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let [value] = arguments else {
        return Err(EvalError::NoOverload("optional.ofNonZeroValue"));
    };
    let zero = match value {
        Value::Bool(value) => !value,
        Value::Int(value) | Value::Duration(value) => *value == 0,
        Value::Uint(value) => *value == 0,
        Value::Double(value) => *value == 0.0,
        Value::String(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
        _ => false,
    };
    Ok(if zero { Value::Null } else { *value })
}

/// `id(parts…)`, ours: 32 hex digits that are the same for the same parts, in every version.
///
/// XXH3, 128 bits, over each part's type, length and bytes. <https://xxhash.com>
pub(crate) fn id<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for part in arguments {
        let kind = match part {
            Value::String(_) => b's',
            Value::Int(_) => b'i',
            Value::Bool(_) => b'b',
            Value::Timestamp(_) => b't',
            Value::Bytes(_) => b'x',
            _ => return Err(EvalError::NoOverload("id")),
        };
        let mut text = context.new_string(20);
        let bytes = match part {
            Value::Bytes(bytes) => *bytes,
            Value::Timestamp(millis) => {
                text::write_int(*millis, &mut text);
                text.as_bytes()
            }
            other => {
                text::write(*other, &mut text)?;
                text.as_bytes()
            }
        };
        context.text(bytes.len())?;
        hash.update(&[kind]);
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    let mut digest = context.new_string(32);
    let _ = write!(digest, "{:032x}", hash.digest128());
    Ok(Value::String(digest.into_bump_str()))
}
