//! Evaluation. Nothing here allocates outside the arena, wraps, or panics.

use bumpalo::collections::String as ArenaString;

use super::EvalError;
use super::node::{
    Arithmetic, BoolExpr, BytesExpr, Comparison, DoubleExpr, IntExpr, Node, OptionalExpr, Place, Root, Slots,
    StringExpr, StructExpr,
};
use super::text::{write_double, write_int, write_timestamp};
use crate::{Scope, Value};

impl Place {
    /// The value there; null when it, or a struct on the way, is null.
    #[inline]
    fn get<'a>(&self, scope: &Scope<'a>) -> Result<Value<'a>, EvalError> {
        let mut value = match self.root {
            Root::Key => scope.key,
            Root::Value => scope.value,
            Root::Aggregate => scope.aggregate,
        };
        match &self.slots {
            Slots::None => {}
            Slots::One(slot) => value = self.step(value, *slot)?,
            Slots::Several(slots) => {
                for slot in slots {
                    value = self.step(value, *slot)?;
                }
            }
        }
        Ok(value)
    }

    #[inline]
    fn step<'a>(&self, value: Value<'a>, slot: usize) -> Result<Value<'a>, EvalError> {
        match value {
            Value::Struct(fields) => fields
                .get(slot)
                .copied()
                .ok_or(EvalError::Layout(self.root.name())),
            Value::Null => Ok(Value::Null),
            Value::Bool(_)
            | Value::Int(_)
            | Value::Double(_)
            | Value::String(_)
            | Value::Bytes(_)
            | Value::Timestamp(_) => Err(EvalError::Layout(self.root.name())),
        }
    }

    #[inline]
    fn bool(&self, scope: &Scope<'_>) -> Result<bool, EvalError> {
        let value = self.get(scope)?;
        if let Value::Bool(value) = value {
            Ok(value)
        } else {
            Err(self.unexpected(value))
        }
    }

    #[inline]
    fn int(&self, scope: &Scope<'_>) -> Result<i64, EvalError> {
        let value = self.get(scope)?;
        if let Value::Int(value) = value {
            Ok(value)
        } else {
            Err(self.unexpected(value))
        }
    }

    #[inline]
    fn timestamp(&self, scope: &Scope<'_>) -> Result<i64, EvalError> {
        let value = self.get(scope)?;
        if let Value::Timestamp(value) = value {
            Ok(value)
        } else {
            Err(self.unexpected(value))
        }
    }

    #[inline]
    fn double(&self, scope: &Scope<'_>) -> Result<f64, EvalError> {
        let value = self.get(scope)?;
        if let Value::Double(value) = value {
            Ok(value)
        } else {
            Err(self.unexpected(value))
        }
    }

    #[inline]
    fn string<'a>(&self, scope: &Scope<'a>) -> Result<&'a str, EvalError> {
        let value = self.get(scope)?;
        if let Value::String(value) = value {
            Ok(value)
        } else {
            Err(self.unexpected(value))
        }
    }

    #[inline]
    fn bytes<'a>(&self, scope: &Scope<'a>) -> Result<&'a [u8], EvalError> {
        let value = self.get(scope)?;
        if let Value::Bytes(value) = value {
            Ok(value)
        } else {
            Err(self.unexpected(value))
        }
    }

    /// The error for a value of another type than the place has.
    #[cold]
    fn unexpected(&self, value: Value<'_>) -> EvalError {
        if value == Value::Null {
            EvalError::Null(self.root.name())
        } else {
            EvalError::Layout(self.root.name())
        }
    }
}

impl Node {
    pub(crate) fn eval<'a>(&'a self, scope: &Scope<'a>) -> Result<Value<'a>, EvalError> {
        match self {
            Self::Null => Ok(Value::Null),
            Self::Bool(expr) => expr.eval(scope).map(Value::Bool),
            Self::Int(expr) => expr.eval(scope).map(Value::Int),
            Self::Double(expr) => expr.eval(scope).map(Value::Double),
            Self::String(expr) => expr.eval(scope).map(Value::String),
            Self::Bytes(expr) => expr.eval(scope).map(Value::Bytes),
            Self::Timestamp(expr) => expr.eval(scope).map(Value::Timestamp),
            Self::Struct(expr) => expr.eval(scope),
            Self::Optional(expr) => expr.eval(scope),
        }
    }
}

impl Comparison {
    #[inline]
    fn holds<T: PartialOrd + ?Sized>(self, left: &T, right: &T) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Less => left < right,
            Self::LessEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterEqual => left >= right,
        }
    }
}

impl BoolExpr {
    pub(crate) fn eval(&self, scope: &Scope<'_>) -> Result<bool, EvalError> {
        match self {
            Self::Const(value) => Ok(*value),
            Self::Place(place) => place.bool(scope),
            Self::Conditional(parts) => if parts.0.eval(scope)? { &parts.1 } else { &parts.2 }.eval(scope),
            Self::Not(inner) => Ok(!inner.eval(scope)?),
            Self::And(sides) => decide(false, sides, scope),
            Self::Or(sides) => decide(true, sides, scope),
            Self::CompareInt(how, sides) => Ok(how.holds(&sides.0.eval(scope)?, &sides.1.eval(scope)?)),
            Self::CompareDouble(how, sides) => Ok(how.holds(&sides.0.eval(scope)?, &sides.1.eval(scope)?)),
            Self::CompareString(how, sides) => Ok(how.holds(sides.0.eval(scope)?, sides.1.eval(scope)?)),
            Self::CompareBytes(how, sides) => Ok(how.holds(sides.0.eval(scope)?, sides.1.eval(scope)?)),
            Self::CompareBool(how, sides) => Ok(how.holds(&sides.0.eval(scope)?, &sides.1.eval(scope)?)),
            Self::Has(place) => Ok(place.get(scope)? != Value::Null),
            Self::IsNull(expr) => Ok(expr.eval(scope)? == Value::Null),
            Self::InInts(needle, list) => Ok(list.contains(&needle.eval(scope)?)),
            Self::InStrings(needle, list) => {
                let needle = needle.eval(scope)?;
                Ok(list.iter().any(|item| **item == *needle))
            }
            Self::StartsWith(sides) => Ok(sides.0.eval(scope)?.starts_with(sides.1.eval(scope)?)),
            Self::EndsWith(sides) => Ok(sides.0.eval(scope)?.ends_with(sides.1.eval(scope)?)),
            Self::Contains(sides) => Ok(sides.0.eval(scope)?.contains(sides.1.eval(scope)?)),
        }
    }
}

/// `&&` (`deciding` is false) and `||` (true): one side with the deciding value decides, even when the other has
/// an error. <https://github.com/google/cel-spec/blob/master/doc/langdef.md#logical-operators>
#[inline]
fn decide(deciding: bool, sides: &(BoolExpr, BoolExpr), scope: &Scope<'_>) -> Result<bool, EvalError> {
    match sides.0.eval(scope) {
        Ok(value) if value == deciding => Ok(deciding),
        Ok(_) => sides.1.eval(scope),
        Err(error) => match sides.1.eval(scope) {
            Ok(value) if value == deciding => Ok(deciding),
            Ok(_) | Err(_) => Err(error),
        },
    }
}

impl IntExpr {
    pub(crate) fn eval(&self, scope: &Scope<'_>) -> Result<i64, EvalError> {
        match self {
            Self::Const(value) => Ok(*value),
            Self::Place(place) => place.int(scope),
            Self::TimestampPlace(place) => place.timestamp(scope),
            Self::Conditional(parts) => if parts.0.eval(scope)? { &parts.1 } else { &parts.2 }.eval(scope),
            Self::RecordTimestamp => Ok(scope.ts),
            Self::Partition => Ok(i64::from(scope.partition)),
            Self::Offset => Ok(scope.offset),
            Self::Negate(inner) => inner.eval(scope)?.checked_neg().ok_or(EvalError::Overflow("-")),
            Self::Arithmetic(how, sides) => how.apply(sides.0.eval(scope)?, sides.1.eval(scope)?),
            Self::FromDouble(inner) => int_from_double(inner.eval(scope)?),
            Self::FromString(inner) => inner
                .eval(scope)?
                .parse()
                .map_err(|_| EvalError::Conversion("int(string)")),
            Self::StringSize(inner) => Ok(length(inner.eval(scope)?.chars().count())),
            Self::BytesSize(inner) => Ok(length(inner.eval(scope)?.len())),
        }
    }
}

fn length(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
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

impl Arithmetic {
    #[inline]
    fn apply(self, left: i64, right: i64) -> Result<i64, EvalError> {
        match self {
            Self::Add => left.checked_add(right).ok_or(EvalError::Overflow("+")),
            Self::Subtract => left.checked_sub(right).ok_or(EvalError::Overflow("-")),
            Self::Multiply => left.checked_mul(right).ok_or(EvalError::Overflow("*")),
            Self::Divide if right == 0 => Err(EvalError::DivisionByZero("/")),
            Self::Divide => left.checked_div(right).ok_or(EvalError::Overflow("/")),
            Self::Modulo if right == 0 => Err(EvalError::DivisionByZero("%")),
            Self::Modulo => left.checked_rem(right).ok_or(EvalError::Overflow("%")),
        }
    }
}

impl DoubleExpr {
    pub(crate) fn eval(&self, scope: &Scope<'_>) -> Result<f64, EvalError> {
        match self {
            Self::Const(value) => Ok(*value),
            Self::Place(place) => place.double(scope),
            Self::Conditional(parts) => if parts.0.eval(scope)? { &parts.1 } else { &parts.2 }.eval(scope),
            Self::Negate(inner) => Ok(-inner.eval(scope)?),
            Self::Add(sides) => Ok(sides.0.eval(scope)? + sides.1.eval(scope)?),
            Self::Subtract(sides) => Ok(sides.0.eval(scope)? - sides.1.eval(scope)?),
            Self::Multiply(sides) => Ok(sides.0.eval(scope)? * sides.1.eval(scope)?),
            Self::Divide(sides) => Ok(sides.0.eval(scope)? / sides.1.eval(scope)?),
            #[expect(clippy::cast_precision_loss, reason = "the nearest double, as CEL")]
            Self::FromInt(inner) => Ok(inner.eval(scope)? as f64),
            Self::FromString(inner) => inner
                .eval(scope)?
                .parse()
                .map_err(|_| EvalError::Conversion("double(string)")),
        }
    }
}

impl StringExpr {
    pub(crate) fn eval<'a>(&'a self, scope: &Scope<'a>) -> Result<&'a str, EvalError> {
        match self {
            Self::Const(value) => Ok(value),
            Self::Place(place) => place.string(scope),
            Self::Conditional(parts) => if parts.0.eval(scope)? { &parts.1 } else { &parts.2 }.eval(scope),
            Self::Topic => Ok(scope.topic),
            Self::FromBool(inner) => Ok(if inner.eval(scope)? { "true" } else { "false" }),
            Self::Concat(_) | Self::FromInt(_) | Self::FromDouble(_) | Self::FromTimestamp(_) => {
                let mut out = ArenaString::with_capacity_in(self.expected_bytes(), scope.arena);
                self.write(scope, &mut out)?;
                Ok(out.into_bump_str())
            }
        }
    }

    /// Room to start with.
    fn expected_bytes(&self) -> usize {
        match self {
            Self::Const(text) => text.len(),
            Self::Concat(parts) => parts.iter().map(Self::expected_bytes).sum(),
            Self::Place(_)
            | Self::Conditional(_)
            | Self::Topic
            | Self::FromInt(_)
            | Self::FromDouble(_)
            | Self::FromBool(_)
            | Self::FromTimestamp(_) => 20,
        }
    }

    fn write<'a>(&'a self, scope: &Scope<'a>, out: &mut ArenaString<'_>) -> Result<(), EvalError> {
        match self {
            Self::Concat(parts) => return parts.iter().try_for_each(|part| part.write(scope, out)),
            Self::FromInt(inner) => write_int(inner.eval(scope)?, out),
            Self::FromDouble(inner) => write_double(inner.eval(scope)?, out),
            Self::FromTimestamp(inner) => write_timestamp(inner.eval(scope)?, out)?,
            Self::Const(_) | Self::Place(_) | Self::Conditional(_) | Self::Topic | Self::FromBool(_) => {
                out.push_str(self.eval(scope)?);
            }
        }
        Ok(())
    }
}

impl BytesExpr {
    fn eval<'a>(&'a self, scope: &Scope<'a>) -> Result<&'a [u8], EvalError> {
        match self {
            Self::Const(value) => Ok(value),
            Self::Place(place) => place.bytes(scope),
            Self::Conditional(parts) => if parts.0.eval(scope)? { &parts.1 } else { &parts.2 }.eval(scope),
        }
    }
}

impl StructExpr {
    fn eval<'a>(&'a self, scope: &Scope<'a>) -> Result<Value<'a>, EvalError> {
        match self {
            Self::Place(_, place) => {
                let value = place.get(scope)?;
                if matches!(value, Value::Struct(_)) {
                    Ok(value)
                } else {
                    Err(place.unexpected(value))
                }
            }
            Self::Conditional(_, parts) => if parts.0.eval(scope)? { &parts.1 } else { &parts.2 }.eval(scope),
            Self::Build(_, fields) => {
                let slots = scope.arena.alloc_slice_fill_copy(fields.len(), Value::Null);
                for (slot, field) in slots.iter_mut().zip(fields) {
                    *slot = field.eval(scope)?;
                }
                Ok(Value::Struct(slots))
            }
        }
    }
}

impl OptionalExpr {
    fn eval<'a>(&'a self, scope: &Scope<'a>) -> Result<Value<'a>, EvalError> {
        match self {
            Self::Place(_, place) => place.get(scope),
            Self::Conditional(_, parts) => if parts.0.eval(scope)? { &parts.1 } else { &parts.2 }.eval(scope),
        }
    }
}
