//! `math.…`

use super::{Entry, Evaluated};
use crate::Value;
use crate::expr::EvalError;
use crate::expr::eval::Context;

pub(super) const FUNCTIONS: &[Entry] = &[
    (
        &[
            "math.abs(int) -> int",
            "math.abs(uint) -> uint",
            "math.abs(double) -> double",
        ],
        abs,
    ),
    (
        &[
            "math.sign(int) -> int",
            "math.sign(uint) -> uint",
            "math.sign(double) -> double",
        ],
        sign,
    ),
    (&["math.ceil(double) -> double"], |_, of| {
        double(of, "math.ceil").map(|value| Value::Double(value.ceil()))
    }),
    (&["math.floor(double) -> double"], |_, of| {
        double(of, "math.floor").map(|value| Value::Double(value.floor()))
    }),
    (&["math.round(double) -> double"], |_, of| {
        double(of, "math.round").map(|value| Value::Double(value.round()))
    }),
    (&["math.trunc(double) -> double"], |_, of| {
        double(of, "math.trunc").map(|value| Value::Double(value.trunc()))
    }),
    (
        &[
            "math.sqrt(int) -> double",
            "math.sqrt(uint) -> double",
            "math.sqrt(double) -> double",
        ],
        sqrt,
    ),
    (&["math.isNaN(double) -> bool"], |_, of| {
        double(of, "math.isNaN").map(|value| Value::Bool(value.is_nan()))
    }),
    (&["math.isInf(double) -> bool"], |_, of| {
        double(of, "math.isInf").map(|value| Value::Bool(value.is_infinite()))
    }),
    (&["math.isFinite(double) -> bool"], |_, of| {
        double(of, "math.isFinite").map(|value| Value::Bool(value.is_finite()))
    }),
    (
        &["math.bitAnd(int, int) -> int", "math.bitAnd(uint, uint) -> uint"],
        |_, of| bits(of, "math.bitAnd", |x, y| x & y),
    ),
    (
        &["math.bitOr(int, int) -> int", "math.bitOr(uint, uint) -> uint"],
        |_, of| bits(of, "math.bitOr", |x, y| x | y),
    ),
    (
        &["math.bitXor(int, int) -> int", "math.bitXor(uint, uint) -> uint"],
        |_, of| bits(of, "math.bitXor", |x, y| x ^ y),
    ),
    (&["math.bitNot(int) -> int", "math.bitNot(uint) -> uint"], bit_not),
    (
        &[
            "math.bitShiftLeft(int, int) -> int",
            "math.bitShiftLeft(uint, int) -> uint",
        ],
        |_, of| shifted(of, "math.bitShiftLeft", u64::checked_shl),
    ),
    (
        &[
            "math.bitShiftRight(int, int) -> int",
            "math.bitShiftRight(uint, int) -> uint",
        ],
        |_, of| shifted(of, "math.bitShiftRight", u64::checked_shr),
    ),
];

/// The argument of a function that takes a double.
fn double(arguments: &[Value<'_>], name: &'static str) -> Result<f64, EvalError> {
    match arguments {
        [Value::Double(value)] => Ok(*value),
        _ => Err(EvalError::NoOverload(name)),
    }
}

fn abs<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::Int(value)] => value
            .checked_abs()
            .map(Value::Int)
            .ok_or(EvalError::Overflow("math.abs")),
        [Value::Uint(value)] => Ok(Value::Uint(*value)),
        [Value::Double(value)] => Ok(Value::Double(value.abs())),
        _ => Err(EvalError::NoOverload("math.abs")),
    }
}

fn sign<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::Int(value)] => Ok(Value::Int(value.signum())),
        [Value::Uint(value)] => Ok(Value::Uint(u64::from(*value > 0))),
        [Value::Double(value)] if *value == 0.0 || value.is_nan() => Ok(Value::Double(*value)),
        [Value::Double(value)] => Ok(Value::Double(value.signum())),
        _ => Err(EvalError::NoOverload("math.sign")),
    }
}

#[expect(clippy::cast_precision_loss, reason = "the nearest double, as CEL")]
fn sqrt<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::Int(value)] => Ok(Value::Double((*value as f64).sqrt())),
        [Value::Uint(value)] => Ok(Value::Double((*value as f64).sqrt())),
        _ => double(arguments, "math.sqrt").map(|value| Value::Double(value.sqrt())),
    }
}

/// The bits of an integer.
fn bits_of(value: &Value<'_>) -> Option<u64> {
    match value {
        Value::Int(value) => Some(value.cast_unsigned()),
        Value::Uint(value) => Some(*value),
        _ => None,
    }
}

/// An integer with these bits, of the type that `other` has.
fn of_bits<'a>(bits: u64, other: &Value<'_>) -> Value<'a> {
    match other {
        Value::Int(_) => Value::Int(bits.cast_signed()),
        _ => Value::Uint(bits),
    }
}

fn bits<'a>(arguments: &[Value<'a>], name: &'static str, apply: fn(u64, u64) -> u64) -> Evaluated<'a> {
    if let [x, y] = arguments
        && std::mem::discriminant(x) == std::mem::discriminant(y)
        && let (Some(left), Some(right)) = (bits_of(x), bits_of(y))
    {
        return Ok(of_bits(apply(left, right), x));
    }
    Err(EvalError::NoOverload(name))
}

fn bit_not<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [value] if let Some(bits) = bits_of(value) => Ok(of_bits(!bits, value)),
        _ => Err(EvalError::NoOverload("math.bitNot")),
    }
}

/// Zeros come in, also for a negative `int`; from 64 on, nothing is left.
fn shifted<'a>(
    arguments: &[Value<'a>],
    name: &'static str,
    shift: fn(u64, u32) -> Option<u64>,
) -> Evaluated<'a> {
    match arguments {
        [value, Value::Int(by)] if let Some(bits) = bits_of(value) => {
            if *by < 0 {
                return Err(EvalError::Conversion(name));
            }
            let by = u32::try_from(*by).ok();
            Ok(of_bits(by.and_then(|by| shift(bits, by)).unwrap_or(0), value))
        }
        _ => Err(EvalError::NoOverload(name)),
    }
}
