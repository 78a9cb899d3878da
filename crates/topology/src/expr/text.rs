//! Values as text. Writes to arena strings, which cannot fail.

use std::fmt::Write as _;

use bumpalo::collections::String as ArenaString;

use super::EvalError;
use super::time;
use crate::Value;

/// `string(…)`
///
/// # Errors
/// For types without a text of their own, bytes that are no UTF-8, timestamps outside of years 1 to 9999.
pub(crate) fn write(value: Value<'_>, out: &mut ArenaString<'_>) -> Result<(), EvalError> {
    match value {
        Value::String(text) => out.push_str(text),
        Value::Int(value) => write_int(value, out),
        Value::Uint(value) => out.push_str(itoa::Buffer::new().format(value)),
        Value::Double(value) => write_double(value, out),
        Value::Bool(value) => out.push_str(if value { "true" } else { "false" }),
        Value::Bytes(bytes) => {
            out.push_str(std::str::from_utf8(bytes).map_err(|_| EvalError::Conversion("string(bytes)"))?);
        }
        Value::Timestamp(millis) => time::write_timestamp(millis, out)?,
        Value::Duration(nanos) => time::write_duration(nanos, out),
        Value::Null => return Err(EvalError::Null("string")),
        Value::Struct(_) | Value::List(_) | Value::Map(_) | Value::Type(_) => {
            return Err(EvalError::NoOverload("string"));
        }
    }
    Ok(())
}

/// A value in a message, shortened.
#[cold]
pub(crate) fn show(value: &Value<'_>) -> Box<str> {
    const LONGEST: usize = 40;
    let text = match value {
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => format!("{value}u"),
        Value::Double(value) => value.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::String(text) => format!("'{}'", &text[..text.floor_char_boundary(LONGEST)]),
        Value::Null
        | Value::Bytes(_)
        | Value::Timestamp(_)
        | Value::Duration(_)
        | Value::Struct(_)
        | Value::List(_)
        | Value::Map(_)
        | Value::Type(_) => "a value of another type".to_owned(),
    };
    text.into()
}

/// Decimal digits.
pub(crate) fn write_int(value: i64, out: &mut ArenaString<'_>) {
    out.push_str(itoa::Buffer::new().format(value));
}

/// Shortest digits that read back as the same double, never with an exponent; `NaN`, `+Inf`, `-Inf`.
pub(crate) fn write_double(value: f64, out: &mut ArenaString<'_>) {
    if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        let _ = write!(out, "{value}");
    }
}
