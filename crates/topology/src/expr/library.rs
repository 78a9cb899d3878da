//! The functions of the language: what they take and give, and what they do.
//!
//! Names and meanings are those of CEL's standard library and of its `strings`, `math`, `lists` and `encoders`
//! extensions, `sum` is Kubernetes'; those that are ours say so.
//! <https://github.com/google/cel-spec/blob/master/doc/langdef.md#list-of-standard-definitions>,
//! <https://github.com/google/cel-go/blob/master/ext/README.md>
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bumpalo::collections::Vec as ArenaVec;

use super::EvalError;
use super::eval::{Context, contains};
use super::node::{Arithmetic, Call, Function};
use super::operators::{self, length};
use super::text;
use super::time::{self, Part};
use super::ty::Ty;
use crate::Value;

type Evaluated<'a> = Result<Value<'a>, EvalError>;

/// One way to call a function.
#[derive(Debug)]
pub(crate) struct Overload {
    /// As in [`FUNCTIONS`].
    pub(crate) signature: &'static str,
    /// Whether it is called on its first argument.
    pub(crate) is_method: bool,
    /// Type parameters are numbered from 0.
    pub(crate) parameters: Vec<Ty>,
    pub(crate) result: Ty,
    pub(crate) function: Function,
}

/// Signatures of the operators; they have nodes of their own.
const OPERATORS: &[&str] = &[
    "+(int, int) -> int",
    "+(double, double) -> double",
    "+(string, string) -> string",
    "+(uint, uint) -> uint",
    "+(bytes, bytes) -> bytes",
    "+(list(A), list(A)) -> list(A)",
    "+(timestamp, duration) -> timestamp",
    "+(duration, timestamp) -> timestamp",
    "+(duration, duration) -> duration",
    "-(int, int) -> int",
    "-(double, double) -> double",
    "-(uint, uint) -> uint",
    "-(timestamp, timestamp) -> duration",
    "-(timestamp, duration) -> timestamp",
    "-(duration, duration) -> duration",
    "-(int) -> int",
    "-(double) -> double",
    "*(int, int) -> int",
    "*(double, double) -> double",
    "*(uint, uint) -> uint",
    "/(int, int) -> int",
    "/(double, double) -> double",
    "/(uint, uint) -> uint",
    "%(int, int) -> int",
    "%(uint, uint) -> uint",
    "==(A, A) -> bool",
    "!=(A, A) -> bool",
    "in(A, list(A)) -> bool",
    "in(A, map(A, B)) -> bool",
    "[](list(A), int) -> A",
    "[](map(A, B), A) -> B",
];

/// Types whose values have an order.
const ORDERED: [Ty; 8] = [
    Ty::Int,
    Ty::Double,
    Ty::String,
    Ty::Uint,
    Ty::Bytes,
    Ty::Bool,
    Ty::Timestamp,
    Ty::Duration,
];

const FUNCTIONS: &[(&str, Call)] = &[
    // Standard library.
    ("size(string) -> int", size),
    ("size(bytes) -> int", size),
    ("size(list(A)) -> int", size),
    ("size(map(A, B)) -> int", size),
    ("string.size() -> int", size),
    ("bytes.size() -> int", size),
    ("list(A).size() -> int", size),
    ("map(A, B).size() -> int", size),
    ("string.startsWith(string) -> bool", starts_with),
    ("string.endsWith(string) -> bool", ends_with),
    ("string.contains(string) -> bool", contains_text),
    ("int(int) -> int", to_int),
    ("int(uint) -> int", to_int),
    ("int(double) -> int", to_int),
    ("int(string) -> int", to_int),
    ("int(timestamp) -> int", to_int),
    ("int(duration) -> int", to_int),
    ("uint(uint) -> uint", to_uint),
    ("uint(int) -> uint", to_uint),
    ("uint(double) -> uint", to_uint),
    ("uint(string) -> uint", to_uint),
    ("double(double) -> double", to_double),
    ("double(int) -> double", to_double),
    ("double(uint) -> double", to_double),
    ("double(string) -> double", to_double),
    ("bool(bool) -> bool", to_bool),
    ("bool(string) -> bool", to_bool),
    ("bytes(bytes) -> bytes", to_bytes),
    ("bytes(string) -> bytes", to_bytes),
    ("timestamp(timestamp) -> timestamp", to_timestamp),
    ("timestamp(int) -> timestamp", to_timestamp),
    ("timestamp(string) -> timestamp", to_timestamp),
    ("duration(duration) -> duration", to_duration),
    ("duration(string) -> duration", to_duration),
    ("timestamp.getFullYear() -> int", full_year),
    ("timestamp.getFullYear(string) -> int", full_year),
    ("timestamp.getMonth() -> int", month),
    ("timestamp.getMonth(string) -> int", month),
    ("timestamp.getDate() -> int", date),
    ("timestamp.getDate(string) -> int", date),
    ("timestamp.getDayOfMonth() -> int", day_of_month),
    ("timestamp.getDayOfMonth(string) -> int", day_of_month),
    ("timestamp.getDayOfWeek() -> int", day_of_week),
    ("timestamp.getDayOfWeek(string) -> int", day_of_week),
    ("timestamp.getDayOfYear() -> int", day_of_year),
    ("timestamp.getDayOfYear(string) -> int", day_of_year),
    ("timestamp.getHours() -> int", hours),
    ("timestamp.getHours(string) -> int", hours),
    ("duration.getHours() -> int", hours),
    ("timestamp.getMinutes() -> int", minutes),
    ("timestamp.getMinutes(string) -> int", minutes),
    ("duration.getMinutes() -> int", minutes),
    ("timestamp.getSeconds() -> int", seconds),
    ("timestamp.getSeconds(string) -> int", seconds),
    ("duration.getSeconds() -> int", seconds),
    ("timestamp.getMilliseconds() -> int", milliseconds),
    ("timestamp.getMilliseconds(string) -> int", milliseconds),
    ("duration.getMilliseconds() -> int", milliseconds),
    // Strings.
    ("string.charAt(int) -> string", char_at),
    ("string.indexOf(string) -> int", index_of),
    ("string.indexOf(string, int) -> int", index_of),
    ("string.lastIndexOf(string) -> int", last_index_of),
    ("string.lastIndexOf(string, int) -> int", last_index_of),
    ("string.lowerAscii() -> string", lower_ascii),
    ("string.upperAscii() -> string", upper_ascii),
    ("string.replace(string, string) -> string", replace),
    ("string.replace(string, string, int) -> string", replace),
    ("string.split(string) -> list(string)", split),
    ("string.split(string, int) -> list(string)", split),
    ("string.substring(int) -> string", substring),
    ("string.substring(int, int) -> string", substring),
    ("string.trim() -> string", trim),
    ("string.reverse() -> string", reverse),
    ("list(string).join() -> string", join),
    ("list(string).join(string) -> string", join),
    ("strings.quote(string) -> string", quote),
    // Encoders.
    ("base64.encode(bytes) -> string", base64_encode),
    ("base64.decode(string) -> bytes", base64_decode),
    // Numbers.
    ("math.abs(int) -> int", abs),
    ("math.abs(uint) -> uint", abs),
    ("math.abs(double) -> double", abs),
    ("math.sign(int) -> int", sign),
    ("math.sign(uint) -> uint", sign),
    ("math.sign(double) -> double", sign),
    ("math.ceil(double) -> double", ceil),
    ("math.floor(double) -> double", floor),
    ("math.round(double) -> double", round),
    ("math.trunc(double) -> double", trunc),
    ("math.sqrt(int) -> double", sqrt),
    ("math.sqrt(uint) -> double", sqrt),
    ("math.sqrt(double) -> double", sqrt),
    ("math.isNaN(double) -> bool", is_nan),
    ("math.isInf(double) -> bool", is_inf),
    ("math.isFinite(double) -> bool", is_finite),
    ("math.bitAnd(int, int) -> int", bit_and),
    ("math.bitAnd(uint, uint) -> uint", bit_and),
    ("math.bitOr(int, int) -> int", bit_or),
    ("math.bitOr(uint, uint) -> uint", bit_or),
    ("math.bitXor(int, int) -> int", bit_xor),
    ("math.bitXor(uint, uint) -> uint", bit_xor),
    ("math.bitNot(int) -> int", bit_not),
    ("math.bitNot(uint) -> uint", bit_not),
    ("math.bitShiftLeft(int, int) -> int", shift_left),
    ("math.bitShiftLeft(uint, int) -> uint", shift_left),
    ("math.bitShiftRight(int, int) -> int", shift_right),
    ("math.bitShiftRight(uint, int) -> uint", shift_right),
    // Lists.
    ("list(A).slice(int, int) -> list(A)", slice),
    ("list(A).reverse() -> list(A)", reverse),
    ("list(A).distinct() -> list(A)", distinct),
    ("list(A).sort() -> list(A)", sort),
    ("list(list(A)).flatten() -> list(A)", flatten),
    ("lists.range(int) -> list(int)", range),
    ("list(int).sum() -> int", sum_of_ints),
    ("list(double).sum() -> double", sum_of_doubles),
    ("list(duration).sum() -> duration", sum_of_durations),
    ("list(A).first() -> A?", first),
    ("list(A).last() -> A?", last),
];

/// Overloads by name; of a namespace, with it.
static LIBRARY: LazyLock<BTreeMap<&'static str, Vec<Overload>>> = LazyLock::new(|| {
    let operators = OPERATORS.iter().map(|signature| (*signature, no_call as Call));
    let mut library = BTreeMap::<_, Vec<_>>::new();
    for (signature, call) in operators.chain(FUNCTIONS.iter().copied()) {
        let Some((name, overload)) = read(signature, call) else {
            continue;
        };
        library.entry(name).or_default().push(overload);
    }
    for name in ["<", "<=", ">", ">="] {
        let overloads = ORDERED.iter().map(|ty| Overload {
            signature: name,
            is_method: false,
            parameters: vec![ty.clone(), ty.clone()],
            result: Ty::Bool,
            function: Function { name, call: no_call },
        });
        library.insert(name, overloads.collect());
    }
    library
});

/// Ways to call a function, or operator.
pub(crate) fn overloads(name: &str) -> &'static [Overload] {
    LIBRARY.get(name).map_or(&[], Vec::as_slice)
}

/// Names of functions, or of methods.
pub(crate) fn names(methods: bool) -> Vec<&'static str> {
    let is_name = |name: &str| name.starts_with(|c: char| c.is_alphabetic());
    let entries = LIBRARY.iter().filter(|(name, overloads)| {
        is_name(name) && overloads.iter().any(|overload| overload.is_method == methods)
    });
    entries.map(|(name, _)| *name).collect()
}

/// Reads `name(T, …) -> T` or `T.name(T, …) -> T`.
fn read(signature: &'static str, call: Call) -> Option<(&'static str, Overload)> {
    let (head, result) = signature.split_once(" -> ")?;
    let open = matching(head)?;
    let (before, arguments) = (&head[..open], &head[open + 1..head.len() - 1]);
    let (receiver, name) = match before.rsplit_once('.') {
        Some((receiver, name)) if !matches!(receiver, "strings" | "base64" | "math" | "lists") => {
            (Some(receiver), name)
        }
        Some(_) | None => (None, before),
    };
    let mut parameters: Vec<_> = receiver.map(parse_type).into_iter().collect::<Option<_>>()?;
    for argument in split_types(arguments) {
        parameters.push(parse_type(argument)?);
    }
    let overload = Overload {
        signature,
        is_method: receiver.is_some(),
        parameters,
        result: parse_type(result)?,
        function: Function { name, call },
    };
    Some((name, overload))
}

/// Where the parenthesis opens that the last character closes.
fn matching(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices().rev() {
        match c {
            ')' => depth += 1,
            '(' if depth == 1 => return Some(at),
            '(' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

fn split_types(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() {
        parts.push(text[start..].trim());
    }
    parts
}

fn parse_type(text: &str) -> Option<Ty> {
    if let Some(inner) = text.strip_suffix('?') {
        return parse_type(inner).map(Ty::optional);
    }
    if let Some(inner) = text.strip_prefix("list(").and_then(|text| text.strip_suffix(')')) {
        return parse_type(inner).map(Ty::list);
    }
    if let Some(inner) = text.strip_prefix("map(").and_then(|text| text.strip_suffix(')')) {
        return match split_types(inner)[..] {
            [key, value] => Some(Ty::map(parse_type(key)?, parse_type(value)?)),
            _ => None,
        };
    }
    Some(match text {
        "bool" => Ty::Bool,
        "int" => Ty::Int,
        "uint" => Ty::Uint,
        "double" => Ty::Double,
        "string" => Ty::String,
        "bytes" => Ty::Bytes,
        "timestamp" => Ty::Timestamp,
        "duration" => Ty::Duration,
        "A" => Ty::Parameter(0),
        "B" => Ty::Parameter(1),
        _ => return None,
    })
}

fn no_call<'a>(_: &Context<'_, 'a>, _: &[Value<'a>]) -> Evaluated<'a> {
    Err(EvalError::Layout("operator"))
}

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

fn starts_with<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::String(text), Value::String(start)] => Ok(Value::Bool(text.starts_with(start))),
        _ => Err(EvalError::NoOverload("startsWith")),
    }
}

fn ends_with<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::String(text), Value::String(end)] => Ok(Value::Bool(text.ends_with(end))),
        _ => Err(EvalError::NoOverload("endsWith")),
    }
}

fn contains_text<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::String(text), Value::String(part)] => {
            context.text(text.len())?;
            Ok(Value::Bool(text.contains(part)))
        }
        _ => Err(EvalError::NoOverload("contains")),
    }
}

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

fn part<'a>(part: Part, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::Timestamp(millis)] => part.of_timestamp(*millis, "UTC").map(Value::Int),
        [Value::Timestamp(millis), Value::String(zone)] => part.of_timestamp(*millis, zone).map(Value::Int),
        [Value::Duration(nanos)] => {
            let value = part.of_duration(*nanos).map(Value::Int);
            value.ok_or(EvalError::NoOverload("a part of a duration"))
        }
        _ => Err(EvalError::NoOverload("a part of a time")),
    }
}

fn full_year<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    part(Part::FullYear, arguments)
}

fn month<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    part(Part::Month, arguments)
}

fn date<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    part(Part::Date, arguments)
}

fn day_of_month<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    part(Part::DayOfMonth, arguments)
}

fn day_of_week<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    part(Part::DayOfWeek, arguments)
}

fn day_of_year<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    part(Part::DayOfYear, arguments)
}

fn hours<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    part(Part::Hours, arguments)
}

fn minutes<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    part(Part::Minutes, arguments)
}

fn seconds<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    part(Part::Seconds, arguments)
}

fn milliseconds<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    part(Part::Milliseconds, arguments)
}

/// The byte at which the character with this number starts; the end for the number behind the last.
fn byte_of(text: &str, number: i64) -> Result<usize, EvalError> {
    let outside = || EvalError::Index(number.to_string().into());
    let wanted = usize::try_from(number).map_err(|_| outside())?;
    let starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    starts.into_iter().nth(wanted).ok_or_else(outside)
}

fn characters(text: &str) -> i64 {
    length(text.chars().count())
}

fn char_at<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(text), Value::Int(number)] = arguments else {
        return Err(EvalError::NoOverload("charAt"));
    };
    let at = byte_of(text, *number)?;
    let end = text[at..].chars().next().map_or(at, |c| at + c.len_utf8());
    Ok(Value::String(&text[at..end]))
}

fn index_of<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let (text, part, from) = match arguments {
        [Value::String(text), Value::String(part)] => (text, part, 0),
        [Value::String(text), Value::String(part), Value::Int(from)] => (text, part, *from),
        _ => return Err(EvalError::NoOverload("indexOf")),
    };
    context.text(text.len())?;
    let start = byte_of(text, from)?;
    let found = text[start..]
        .find(part)
        .map(|at| from + characters(&text[start..start + at]));
    Ok(Value::Int(found.unwrap_or(-1)))
}

fn last_index_of<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let (text, part, from) = match arguments {
        [Value::String(text), Value::String(part)] => (text, part, characters(text)),
        [Value::String(text), Value::String(part), Value::Int(from)] => (text, part, *from),
        _ => return Err(EvalError::NoOverload("lastIndexOf")),
    };
    context.text(text.len())?;
    let last = byte_of(text, from)?;
    let starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    let mut found = None;
    for at in starts.take_while(|at| *at <= last) {
        context.text(part.len())?;
        if text[at..].starts_with(part) {
            found = Some(at);
        }
    }
    Ok(Value::Int(found.map_or(-1, |at| characters(&text[..at]))))
}

fn lower_ascii<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(text)] = arguments else {
        return Err(EvalError::NoOverload("lowerAscii"));
    };
    let mut out = context.new_string(text.len());
    out.extend(text.chars().map(|c| c.to_ascii_lowercase()));
    context.string(out)
}

fn upper_ascii<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(text)] = arguments else {
        return Err(EvalError::NoOverload("upperAscii"));
    };
    let mut out = context.new_string(text.len());
    out.extend(text.chars().map(|c| c.to_ascii_uppercase()));
    context.string(out)
}

/// A limit below 0 is none.
fn limit(value: i64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn replace<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let (text, from, to, most) = match arguments {
        [Value::String(text), Value::String(from), Value::String(to)] => (text, *from, to, -1),
        [
            Value::String(text),
            Value::String(from),
            Value::String(to),
            Value::Int(most),
        ] => (text, *from, to, *most),
        _ => return Err(EvalError::NoOverload("replace")),
    };
    let mut out = context.new_string(text.len());
    let mut rest = 0;
    for (at, _) in text.match_indices(from).take(limit(most)) {
        // Before it grows, not afterwards: an empty `from` matches everywhere.
        context.text(to.len())?;
        out.push_str(&text[rest..at]);
        out.push_str(to);
        rest = at + from.len();
    }
    out.push_str(&text[rest..]);
    context.string(out)
}

fn split<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let (text, by, most) = match arguments {
        [Value::String(text), Value::String(by)] => (*text, *by, usize::MAX),
        [Value::String(text), Value::String(by), Value::Int(most)] => (*text, *by, limit(*most)),
        _ => return Err(EvalError::NoOverload("split")),
    };
    context.text(text.len())?;
    let mut items = context.new_list(0);
    if by.is_empty() {
        // One character each.
        let mut rest = text;
        while !rest.is_empty() && items.len() < most {
            let next = if items.len() + 1 == most {
                rest.len()
            } else {
                rest.chars().next().map_or(0, char::len_utf8)
            };
            items.push(Value::String(&rest[..next]));
            rest = &rest[next..];
        }
    } else {
        items.extend(text.splitn(most, by).map(Value::String));
    }
    context.list(items)
}

fn substring<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let (text, from, to) = match arguments {
        [Value::String(text), Value::Int(from)] => (*text, *from, None),
        [Value::String(text), Value::Int(from), Value::Int(to)] => (*text, *from, Some(*to)),
        _ => return Err(EvalError::NoOverload("substring")),
    };
    let start = byte_of(text, from)?;
    let end = to.map_or(Ok(text.len()), |to| byte_of(text, to))?;
    let part = text.get(start..end);
    part.map(Value::String)
        .ok_or_else(|| EvalError::Index(from.to_string().into()))
}

/// White space as Unicode has it.
fn trim<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::String(text)] => Ok(Value::String(text.trim())),
        _ => Err(EvalError::NoOverload("trim")),
    }
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

fn join<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let (items, by) = match arguments {
        [Value::List(items)] => (items, ""),
        [Value::List(items), Value::String(by)] => (items, *by),
        _ => return Err(EvalError::NoOverload("join")),
    };
    let mut out = context.new_string(0);
    for (index, item) in items.iter().enumerate() {
        let Value::String(text) = item else {
            return Err(EvalError::NoOverload("join"));
        };
        context.text(text.len() + by.len())?;
        if index > 0 {
            out.push_str(by);
        }
        out.push_str(text);
    }
    context.string(out)
}

/// In double quotes, printable.
fn quote<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(text)] = arguments else {
        return Err(EvalError::NoOverload("quote"));
    };
    let mut out = context.new_string(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        let escaped = match c {
            '\u{7}' => "\\a",
            '\u{8}' => "\\b",
            '\u{c}' => "\\f",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\u{b}' => "\\v",
            '\\' => "\\\\",
            '"' => "\\\"",
            other => {
                out.push(other);
                continue;
            }
        };
        out.push_str(escaped);
    }
    out.push('"');
    context.string(out)
}

fn base64_encode<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::Bytes(bytes)] = arguments else {
        return Err(EvalError::NoOverload("base64.encode"));
    };
    let length = base64::encoded_len(bytes.len(), true).ok_or(EvalError::Steps)?;
    context.text(length)?;
    let encoded = context.scope.arena.alloc_slice_fill_copy(length, 0);
    let written = STANDARD.encode_slice(bytes, encoded);
    let text = written.ok().and_then(|_| std::str::from_utf8(encoded).ok());
    text.map(Value::String)
        .ok_or(EvalError::Conversion("base64.encode(bytes)"))
}

/// With or without padding.
fn base64_decode<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(text)] = arguments else {
        return Err(EvalError::NoOverload("base64.decode"));
    };
    let text = text.trim_end_matches('=');
    context.text(text.len() / 4 * 3)?;
    let room = base64::decoded_len_estimate(text.len());
    let decoded = context.scope.arena.alloc_slice_fill_copy(room, 0);
    match STANDARD_NO_PAD.decode_slice(text, decoded) {
        Ok(length) => Ok(Value::Bytes(&decoded[..length])),
        Err(_) => Err(EvalError::Conversion("base64.decode(string)")),
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

fn of_double<'a>(arguments: &[Value<'a>], name: &'static str) -> Result<f64, EvalError> {
    match arguments {
        [Value::Double(value)] => Ok(*value),
        _ => Err(EvalError::NoOverload(name)),
    }
}

fn ceil<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    of_double(arguments, "math.ceil").map(|value| Value::Double(value.ceil()))
}

fn floor<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    of_double(arguments, "math.floor").map(|value| Value::Double(value.floor()))
}

/// Halves away from zero.
fn round<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    of_double(arguments, "math.round").map(|value| Value::Double(value.round()))
}

fn trunc<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    of_double(arguments, "math.trunc").map(|value| Value::Double(value.trunc()))
}

#[expect(clippy::cast_precision_loss, reason = "the nearest double, as CEL")]
fn sqrt<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::Int(value)] => Ok(Value::Double((*value as f64).sqrt())),
        [Value::Uint(value)] => Ok(Value::Double((*value as f64).sqrt())),
        _ => of_double(arguments, "math.sqrt").map(|value| Value::Double(value.sqrt())),
    }
}

fn is_nan<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    of_double(arguments, "math.isNaN").map(|value| Value::Bool(value.is_nan()))
}

fn is_inf<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    of_double(arguments, "math.isInf").map(|value| Value::Bool(value.is_infinite()))
}

fn is_finite<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    of_double(arguments, "math.isFinite").map(|value| Value::Bool(value.is_finite()))
}

fn bit_and<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::Int(x), Value::Int(y)] => Ok(Value::Int(x & y)),
        [Value::Uint(x), Value::Uint(y)] => Ok(Value::Uint(x & y)),
        _ => Err(EvalError::NoOverload("math.bitAnd")),
    }
}

fn bit_or<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::Int(x), Value::Int(y)] => Ok(Value::Int(x | y)),
        [Value::Uint(x), Value::Uint(y)] => Ok(Value::Uint(x | y)),
        _ => Err(EvalError::NoOverload("math.bitOr")),
    }
}

fn bit_xor<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::Int(x), Value::Int(y)] => Ok(Value::Int(x ^ y)),
        [Value::Uint(x), Value::Uint(y)] => Ok(Value::Uint(x ^ y)),
        _ => Err(EvalError::NoOverload("math.bitXor")),
    }
}

fn bit_not<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::Int(value)] => Ok(Value::Int(!value)),
        [Value::Uint(value)] => Ok(Value::Uint(!value)),
        _ => Err(EvalError::NoOverload("math.bitNot")),
    }
}

/// All bits are shifted out from 64 on.
fn shift_left<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let (value, by) = shifted(arguments, "math.bitShiftLeft")?;
    Ok(match value {
        Value::Int(value) => Value::Int(by.and_then(|by| value.checked_shl(by)).unwrap_or(0)),
        Value::Uint(value) => Value::Uint(by.and_then(|by| value.checked_shl(by)).unwrap_or(0)),
        other => other,
    })
}

/// Zeros come in, also for a negative `int`.
#[expect(
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "the bits are meant, not the number"
)]
fn shift_right<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let (value, by) = shifted(arguments, "math.bitShiftRight")?;
    Ok(match value {
        Value::Int(value) => Value::Int(by.and_then(|by| (value as u64).checked_shr(by)).unwrap_or(0) as i64),
        Value::Uint(value) => Value::Uint(by.and_then(|by| value.checked_shr(by)).unwrap_or(0)),
        other => other,
    })
}

fn shifted<'a>(arguments: &[Value<'a>], name: &'static str) -> Result<(Value<'a>, Option<u32>), EvalError> {
    match arguments {
        [Value::Int(_) | Value::Uint(_), Value::Int(by)] if *by < 0 => Err(EvalError::Conversion(name)),
        [value @ (Value::Int(_) | Value::Uint(_)), Value::Int(by)] => Ok((*value, u32::try_from(*by).ok())),
        _ => Err(EvalError::NoOverload(name)),
    }
}

/// `math.greatest` and `math.least` of numbers: the first of those that are equal.
pub(crate) fn extreme<'a>(
    arguments: &[Value<'a>],
    wanted: std::cmp::Ordering,
    name: &'static str,
) -> Evaluated<'a> {
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
    extreme(arguments, std::cmp::Ordering::Greater, "math.greatest")
}

pub(crate) fn least<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    extreme(arguments, std::cmp::Ordering::Less, "math.least")
}

fn slice<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::List(items), Value::Int(from), Value::Int(to)] = arguments else {
        return Err(EvalError::NoOverload("slice"));
    };
    let range = usize::try_from(*from).ok().zip(usize::try_from(*to).ok());
    let part = range.and_then(|(from, to)| items.get(from..to));
    part.map(Value::List)
        .ok_or_else(|| EvalError::Index(from.to_string().into()))
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

/// From `zero` on, which is what an empty list has.
fn sum<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>], zero: Value<'a>) -> Evaluated<'a> {
    let [Value::List(items)] = arguments else {
        return Err(EvalError::NoOverload("sum"));
    };
    items
        .iter()
        .try_fold(zero, |total, item| Arithmetic::Add.apply(context, total, *item))
}

fn sum_of_ints<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    sum(context, arguments, Value::Int(0))
}

fn sum_of_doubles<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    sum(context, arguments, Value::Double(0.0))
}

fn sum_of_durations<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    sum(context, arguments, Value::Duration(0))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signature_is_read() {
        for signature in OPERATORS
            .iter()
            .chain(FUNCTIONS.iter().map(|(signature, _)| signature))
        {
            assert!(read(signature, no_call).is_some(), "{signature}");
        }
        let (name, overload) = read("list(list(A)).flatten() -> list(A)", no_call).unwrap();
        assert_eq!((name, overload.is_method), ("flatten", true));
        assert_eq!(overload.parameters, [Ty::list(Ty::list(Ty::Parameter(0)))]);
    }

    #[test]
    fn every_function_is_in_the_reference() {
        let reference = include_str!("../../../../docs/reference/expressions.md");
        for name in names(false).into_iter().chain(names(true)) {
            assert!(
                name == "in" || reference.contains(&format!("`{name}`")),
                "{name} is not told"
            );
        }
    }
}
