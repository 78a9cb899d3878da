//! From one type to another.

use super::{Entry, Evaluated};
use crate::Value;
use crate::expr::EvalError;
use crate::expr::eval::Context;
use crate::expr::time;

pub(super) const FUNCTIONS: &[Entry] = &[
    (
        &[
            "int(int) -> int",
            "int(uint) -> int",
            "int(double) -> int",
            "int(string) -> int",
            "int(timestamp) -> int",
            "int(duration) -> int",
        ],
        to_int,
    ),
    (
        &[
            "uint(uint) -> uint",
            "uint(int) -> uint",
            "uint(double) -> uint",
            "uint(string) -> uint",
        ],
        to_uint,
    ),
    (
        &[
            "double(double) -> double",
            "double(int) -> double",
            "double(uint) -> double",
            "double(string) -> double",
        ],
        to_double,
    ),
    (&["bool(bool) -> bool", "bool(string) -> bool"], to_bool),
    (&["bytes(bytes) -> bytes", "bytes(string) -> bytes"], to_bytes),
    (
        &[
            "timestamp(timestamp) -> timestamp",
            "timestamp(int) -> timestamp",
            "timestamp(string) -> timestamp",
        ],
        to_timestamp,
    ),
    (
        &["duration(duration) -> duration", "duration(string) -> duration"],
        to_duration,
    ),
];

/// A timestamp and a duration are their milliseconds (in CEL, a timestamp is its seconds).
fn to_int<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let value = match arguments {
        [Value::Int(value) | Value::Timestamp(value)] => Some(*value),
        [Value::Duration(nanos)] => Some(nanos / 1_000_000),
        [Value::Uint(value)] => i64::try_from(*value).ok(),
        [Value::Double(value)] => return int_from_double(*value).map(Value::Int),
        [Value::String(text)] => return parsed(text, "int(string)").map(Value::Int),
        _ => return Err(EvalError::NoOverload("int")),
    };
    value.map(Value::Int).ok_or(EvalError::Conversion("int(uint)"))
}

fn parsed<T: std::str::FromStr>(text: &str, what: &'static str) -> Result<T, EvalError> {
    text.parse().map_err(|_| EvalError::Conversion(what))
}

/// Towards zero; as CEL, not for doubles at or beyond the ends of 64 bits.
fn int_from_double(value: f64) -> Result<i64, EvalError> {
    const END: f64 = 9_223_372_036_854_775_808.0;
    if value > -END && value < END {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the range was tested; the fraction is to be cut"
        )]
        return Ok(value as i64);
    }
    Err(EvalError::Conversion("int(double)"))
}

fn to_uint<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    const END: f64 = 18_446_744_073_709_551_616.0;
    let value = match arguments {
        [Value::Uint(value)] => Ok(*value),
        [Value::Int(value)] => u64::try_from(*value).map_err(|_| EvalError::Conversion("uint(int)")),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range was tested; the fraction is to be cut"
        )]
        [Value::Double(value)] if *value >= 0.0 && *value < END => Ok(*value as u64),
        [Value::Double(_)] => Err(EvalError::Conversion("uint(double)")),
        [Value::String(text)] => parsed(text, "uint(string)"),
        _ => Err(EvalError::NoOverload("uint")),
    };
    value.map(Value::Uint)
}

fn to_double<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    #[expect(clippy::cast_precision_loss, reason = "the nearest double, as CEL")]
    let value = match arguments {
        [Value::Double(value)] => Ok(*value),
        [Value::Int(value)] => Ok(*value as f64),
        [Value::Uint(value)] => Ok(*value as f64),
        [Value::String(text)] => parsed(text, "double(string)"),
        _ => Err(EvalError::NoOverload("double")),
    };
    value.map(Value::Double)
}

fn to_bool<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::Bool(value)] => Ok(Value::Bool(*value)),
        [Value::String("1" | "t" | "T" | "true" | "TRUE" | "True")] => Ok(Value::Bool(true)),
        [Value::String("0" | "f" | "F" | "false" | "FALSE" | "False")] => Ok(Value::Bool(false)),
        [Value::String(_)] => Err(EvalError::Conversion("bool(string)")),
        _ => Err(EvalError::NoOverload("bool")),
    }
}

fn to_bytes<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::Bytes(bytes)] => Ok(Value::Bytes(bytes)),
        [Value::String(text)] => Ok(Value::Bytes(text.as_bytes())),
        _ => Err(EvalError::NoOverload("bytes")),
    }
}

/// An `int` is milliseconds (in CEL, seconds).
fn to_timestamp<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::Timestamp(millis)] => Ok(Value::Timestamp(*millis)),
        [Value::Int(millis)] if time::RANGE_MILLIS.contains(millis) => Ok(Value::Timestamp(*millis)),
        [Value::Int(_)] => Err(EvalError::Conversion("timestamp(int)")),
        [Value::String(text)] => time::parse_timestamp(text).map(Value::Timestamp),
        _ => Err(EvalError::NoOverload("timestamp")),
    }
}

fn to_duration<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::Duration(nanos)] => Ok(Value::Duration(*nanos)),
        [Value::String(text)] => time::parse_duration(text).map(Value::Duration),
        _ => Err(EvalError::NoOverload("duration")),
    }
}
