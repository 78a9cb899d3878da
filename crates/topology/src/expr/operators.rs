//! What operators do with values, by the values' own types: the checker lets through what can work.

use std::cmp::Ordering;

use super::EvalError;
use super::eval::{Context, contains};
use super::node::{Arithmetic, Comparison};
use super::text::show;
use super::time;
use crate::Value;

type Evaluated<'a> = Result<Value<'a>, EvalError>;

/// As CEL: numbers of different types are equal when their values are, values of other types are not equal.
/// <https://github.com/google/cel-spec/blob/master/doc/langdef.md#equality>
pub(crate) fn equal(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (Value::Int(x), Value::Int(y)) => x == y,
        (Value::String(x), Value::String(y)) => x == y,
        (Value::List(x), Value::List(y)) | (Value::Struct(x), Value::Struct(y)) => {
            x.len() == y.len() && x.iter().zip(*y).all(|(x, y)| equal(x, y))
        }
        (Value::Map(x), Value::Map(y)) => {
            // Both are in the order of their keys.
            x.len() == y.len()
                && x.iter()
                    .zip(*y)
                    .all(|(x, y)| equal(&x.0, &y.0) && equal(&x.1, &y.1))
        }
        (Value::Bytes(x), Value::Bytes(y)) => x == y,
        (Value::Bool(x), Value::Bool(y)) => x == y,
        (Value::Timestamp(x), Value::Timestamp(y)) | (Value::Duration(x), Value::Duration(y)) => x == y,
        (Value::Type(x), Value::Type(y)) => x == y,
        (Value::Null, Value::Null) => true,
        (a, b) => numbers(a, b).is_some_and(|order| order == Some(Ordering::Equal)),
    }
}

/// The order of two numbers, `None` inside for NaN; `None` when one is no number.
fn numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Option<Ordering>> {
    match (a, b) {
        (Value::Int(x), Value::Int(y)) => Some(Some(x.cmp(y))),
        (Value::Uint(x), Value::Uint(y)) => Some(Some(x.cmp(y))),
        (Value::Double(x), Value::Double(y)) => Some(x.partial_cmp(y)),
        (Value::Int(x), Value::Uint(y)) => Some(Some(i128::from(*x).cmp(&i128::from(*y)))),
        (Value::Uint(x), Value::Int(y)) => Some(Some(i128::from(*x).cmp(&i128::from(*y)))),
        (Value::Int(_) | Value::Uint(_), Value::Double(y)) => Some(nearest(a).partial_cmp(y)),
        (Value::Double(x), Value::Int(_) | Value::Uint(_)) => Some(x.partial_cmp(&nearest(b))),
        _ => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "the nearest double, as CEL")]
fn nearest(value: &Value<'_>) -> f64 {
    match value {
        Value::Int(value) => *value as f64,
        Value::Uint(value) => *value as f64,
        Value::Double(value) => *value,
        _ => f64::NAN,
    }
}

/// The order of two values of one kind; `None` inside for NaN.
pub(crate) fn order(a: &Value<'_>, b: &Value<'_>) -> Result<Option<Ordering>, EvalError> {
    match (a, b) {
        (Value::String(x), Value::String(y)) => Ok(Some(x.cmp(y))),
        (Value::Bytes(x), Value::Bytes(y)) => Ok(Some(x.cmp(y))),
        (Value::Bool(x), Value::Bool(y)) => Ok(Some(x.cmp(y))),
        (Value::Timestamp(x), Value::Timestamp(y)) | (Value::Duration(x), Value::Duration(y)) => {
            Ok(Some(x.cmp(y)))
        }
        (a, b) => numbers(a, b).ok_or(EvalError::NoOverload("<")),
    }
}

impl Comparison {
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
        }
    }

    /// Whether values in this order compare so.
    #[inline]
    pub(crate) fn of(self, order: Ordering) -> bool {
        let [less, equal, greater] = match self {
            Self::Equal => [false, true, false],
            Self::NotEqual => [true, false, true],
            Self::Less => [true, false, false],
            Self::LessEqual => [true, true, false],
            Self::Greater => [false, false, true],
            Self::GreaterEqual => [false, true, true],
        };
        match order {
            Ordering::Less => less,
            Ordering::Equal => equal,
            Ordering::Greater => greater,
        }
    }

    /// Equality looks at the lengths first.
    #[inline]
    pub(crate) fn of_strings(self, left: &str, right: &str) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Less | Self::LessEqual | Self::Greater | Self::GreaterEqual => self.of(left.cmp(right)),
        }
    }

    pub(crate) fn holds(self, left: &Value<'_>, right: &Value<'_>) -> Result<bool, EvalError> {
        match self {
            Self::Equal => Ok(equal(left, right)),
            Self::NotEqual => Ok(!equal(left, right)),
            // Nothing compares with NaN.
            Self::Less | Self::LessEqual | Self::Greater | Self::GreaterEqual => {
                Ok(order(left, right)?.is_some_and(|order| self.of(order)))
            }
        }
    }
}

/// Arithmetic of integers of one type, by that type's own checked operators.
macro_rules! integers {
    ($name:ident, $integer:ty) => {
        #[inline]
        pub(crate) fn $name(self, left: $integer, right: $integer) -> Result<$integer, EvalError> {
            let result = match self {
                Self::Add => left.checked_add(right),
                Self::Subtract => left.checked_sub(right),
                Self::Multiply => left.checked_mul(right),
                Self::Divide | Self::Modulo if right == 0 => {
                    return Err(EvalError::DivisionByZero(self.symbol()));
                }
                Self::Divide => left.checked_div(right),
                Self::Modulo => left.checked_rem(right),
            };
            result.ok_or(EvalError::Overflow(self.symbol()))
        }
    };
}

impl Arithmetic {
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
        }
    }

    #[inline]
    pub(crate) fn apply<'a>(
        self,
        context: &Context<'_, 'a>,
        left: Value<'a>,
        right: Value<'a>,
    ) -> Evaluated<'a> {
        match (left, right) {
            (Value::Int(x), Value::Int(y)) => self.ints(x, y).map(Value::Int),
            (Value::Double(x), Value::Double(y)) => self.doubles(x, y).map(Value::Double),
            (Value::Uint(x), Value::Uint(y)) => self.uints(x, y).map(Value::Uint),
            (left, right) => match self {
                Self::Add => add(context, left, right),
                Self::Subtract => subtract(left, right),
                Self::Multiply | Self::Divide | Self::Modulo => Err(EvalError::NoOverload(self.symbol())),
            },
        }
    }

    integers!(ints, i64);
    integers!(uints, u64);

    fn doubles(self, left: f64, right: f64) -> Result<f64, EvalError> {
        match self {
            Self::Add => Ok(left + right),
            Self::Subtract => Ok(left - right),
            Self::Multiply => Ok(left * right),
            Self::Divide => Ok(left / right),
            Self::Modulo => Err(EvalError::NoOverload(self.symbol())),
        }
    }
}

fn add<'a>(context: &Context<'_, 'a>, left: Value<'a>, right: Value<'a>) -> Evaluated<'a> {
    match (left, right) {
        (Value::String(x), Value::String(y)) => {
            let mut text = context.new_string(x.len() + y.len());
            text.push_str(x);
            text.push_str(y);
            context.string(text)
        }
        (Value::Bytes(x), Value::Bytes(y)) => {
            context.text(x.len() + y.len())?;
            let mut bytes =
                bumpalo::collections::Vec::with_capacity_in(x.len() + y.len(), context.scope.arena);
            bytes.extend_from_slice(x);
            bytes.extend_from_slice(y);
            Ok(Value::Bytes(bytes.into_bump_slice()))
        }
        (Value::List(x), Value::List(y)) => {
            let mut items = context.new_list(x.len() + y.len());
            items.extend_from_slice(x);
            items.extend_from_slice(y);
            context.list(items)
        }
        (Value::Timestamp(millis), Value::Duration(nanos))
        | (Value::Duration(nanos), Value::Timestamp(millis)) => {
            time::shift(millis, nanos).map(Value::Timestamp)
        }
        (Value::Duration(x), Value::Duration(y)) => {
            let sum = x.checked_add(y).ok_or(EvalError::Overflow("+"));
            sum.map(Value::Duration)
        }
        _ => Err(EvalError::NoOverload("+")),
    }
}

fn subtract<'a>(left: Value<'a>, right: Value<'a>) -> Evaluated<'a> {
    match (left, right) {
        (Value::Timestamp(x), Value::Timestamp(y)) => time::between(x, y).map(Value::Duration),
        (Value::Timestamp(millis), Value::Duration(nanos)) => {
            let back = nanos.checked_neg().ok_or(EvalError::Overflow("-"))?;
            time::shift(millis, back).map(Value::Timestamp)
        }
        (Value::Duration(x), Value::Duration(y)) => {
            let difference = x.checked_sub(y).ok_or(EvalError::Overflow("-"));
            difference.map(Value::Duration)
        }
        _ => Err(EvalError::NoOverload("-")),
    }
}

pub(crate) fn negate(value: Value<'_>) -> Evaluated<'_> {
    match value {
        Value::Int(value) => value
            .checked_neg()
            .map(Value::Int)
            .ok_or(EvalError::Overflow("-")),
        Value::Double(value) => Ok(Value::Double(-value)),
        _ => Err(EvalError::NoOverload("-")),
    }
}

pub(crate) fn is_in(needle: &Value<'_>, range: &Value<'_>) -> Result<bool, EvalError> {
    match range {
        Value::List(items) => Ok(contains(items, needle)),
        Value::Map(entries) => Ok(find(entries, needle).is_some()),
        _ => Err(EvalError::NoOverload("in")),
    }
}

/// An item of a list, the value of a map's key, `None` where there is none. Null where the operand is.
pub(crate) fn lookup<'a>(operand: Value<'a>, index: &Value<'_>) -> Result<Option<Value<'a>>, EvalError> {
    match operand {
        Value::List(items) => {
            let at = whole(index).and_then(|at| usize::try_from(at).ok());
            Ok(at.and_then(|at| items.get(at)).copied())
        }
        Value::Map(entries) => Ok(find(entries, index)),
        Value::Null => Ok(Some(Value::Null)),
        _ => Err(EvalError::NoOverload("[ ]")),
    }
}

/// As [`lookup`]; what is not there is an error.
pub(crate) fn index<'a>(operand: Value<'a>, index: &Value<'_>) -> Evaluated<'a> {
    lookup(operand, index)?.ok_or_else(|| match operand {
        Value::Map(_) => EvalError::NoSuchKey(show(index)),
        _ => EvalError::Index(show(index)),
    })
}

fn find<'a>(entries: &[(Value<'a>, Value<'a>)], key: &Value<'_>) -> Option<Value<'a>> {
    let key = match key {
        Value::Double(_) => Value::Int(i64::try_from(whole(key)?).ok()?),
        other => *other,
    };
    key_rank(&key)?;
    let at = entries.binary_search_by(|entry| key_order(&entry.0, &key)).ok()?;
    entries.get(at).map(|entry| entry.1)
}

/// A number without a fraction.
fn whole(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Int(value) => Some(i128::from(*value)),
        Value::Uint(value) => Some(i128::from(*value)),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the range was tested, there is no fraction"
        )]
        Value::Double(value) if value.fract() == 0.0 && value.abs() < 1e30 => Some(*value as i128),
        _ => None,
    }
}

/// What a map's keys can be.
///
/// # Errors
/// For other types, which only `dyn` brings here.
pub(crate) fn key(value: Value<'_>) -> Evaluated<'_> {
    if key_rank(&value).is_some() {
        Ok(value)
    } else {
        Err(EvalError::NoOverload("a map's key"))
    }
}

fn key_rank(value: &Value<'_>) -> Option<u8> {
    match value {
        Value::Bool(_) => Some(0),
        Value::Int(_) | Value::Uint(_) => Some(1),
        Value::String(_) => Some(2),
        _ => None,
    }
}

/// The order of a map's keys: bools, numbers, strings.
pub(crate) fn key_order(a: &Value<'_>, b: &Value<'_>) -> Ordering {
    let same = || order(a, b).ok().flatten().unwrap_or(Ordering::Equal);
    key_rank(a).cmp(&key_rank(b)).then_with(same)
}

/// Sorts by the first of each pair; equal ones stay in their order, NaN comes last.
///
/// # Errors
/// When two cannot be compared.
pub(crate) fn sort<T>(items: &mut [(Value<'_>, T)]) -> Result<(), EvalError> {
    let kind = |value: &Value<'_>| match value {
        Value::Int(_) | Value::Uint(_) | Value::Double(_) => Some(0),
        Value::String(_) => Some(1),
        Value::Bytes(_) => Some(2),
        Value::Bool(_) => Some(3),
        Value::Timestamp(_) => Some(4),
        Value::Duration(_) => Some(5),
        _ => None,
    };
    let first = items.first().and_then(|item| kind(&item.0));
    if items
        .iter()
        .any(|item| kind(&item.0).is_none() || kind(&item.0) != first)
    {
        return Err(EvalError::NoOverload("sort"));
    }
    // Ints and doubles compare as doubles, and ints that are one double by themselves: an order that is total.
    items.sort_by(|a, b| match kind(&a.0) {
        Some(0) => {
            let exactly = || whole(&a.0).cmp(&whole(&b.0));
            nearest(&a.0).total_cmp(&nearest(&b.0)).then_with(exactly)
        }
        _ => order(&a.0, &b.0).ok().flatten().unwrap_or(Ordering::Equal),
    });
    Ok(())
}

/// A count as `int`.
pub(crate) fn length(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
