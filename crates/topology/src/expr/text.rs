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
        Value::Timestamp(millis) => write_timestamp(millis, out)?,
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

const MILLIS_PER_DAY: i64 = 86_400_000;

/// RFC 3339 in UTC, with as many decimals of a second as are needed.
pub(crate) fn write_timestamp(millis: i64, out: &mut ArenaString<'_>) -> Result<(), EvalError> {
    if !time::RANGE_MILLIS.contains(&millis) {
        return Err(EvalError::Conversion("string(timestampMillis)"));
    }
    let (year, month, day) = civil_from_days(millis.div_euclid(MILLIS_PER_DAY));
    let of_day = millis.rem_euclid(MILLIS_PER_DAY);
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60);
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
    );
    match of_day % 1000 {
        0 => {}
        millis if millis % 100 == 0 => {
            let _ = write!(out, ".{}", millis / 100);
        }
        millis if millis % 10 == 0 => {
            let _ = write!(out, ".{:02}", millis / 10);
        }
        millis => {
            let _ = write!(out, ".{millis:03}");
        }
    }
    out.push('Z');
    Ok(())
}

/// Year, month (1–12), day (1–31) in the proleptic Gregorian calendar, from days since 1970-01-01.
/// <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}
