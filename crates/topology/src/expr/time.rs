//! Timestamps and durations. The time zone database is compiled in: every worker has the same one.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::LazyLock;

use bumpalo::collections::String as ArenaString;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp, Zoned};

use super::EvalError;

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// Timestamps of CEL: 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999Z.
pub(crate) const RANGE_MILLIS: Range<i64> = -62_135_596_800_000..253_402_300_800_000;

const NANOS_PER_MILLI: i128 = 1_000_000;
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// `timestamp(string)`: RFC 3339, cut to milliseconds.
pub(crate) fn parse_timestamp(text: &str) -> Result<i64, EvalError> {
    let failed = || EvalError::Conversion("timestamp(string)");
    if !is_rfc_3339(text) {
        return Err(failed());
    }
    let timestamp: Timestamp = text.parse().map_err(|_| failed())?;
    in_range(timestamp.as_nanosecond().div_euclid(NANOS_PER_MILLI)).ok_or_else(failed)
}

/// Whether it has the form `2026-01-31T12:00:00.5+01:00`, with or without decimals, or with `Z`. `jiff` takes more: other forms of
/// ISO 8601, names of zones, and a second 60 that it takes for 59.
fn is_rfc_3339(text: &str) -> bool {
    let has_form = |text: &str, form: &str| {
        let mut pairs = text.bytes().zip(form.bytes());
        text.len() == form.len()
            && pairs.all(|(byte, form)| {
                if form == b'0' {
                    byte.is_ascii_digit()
                } else {
                    byte == form
                }
            })
    };
    let Some((time, rest)) = text.split_at_checked("0000-00-00T00:00:00".len()) else {
        return false;
    };
    let zone = match rest.strip_prefix('.') {
        Some(rest) => {
            let zone = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            if zone.len() == rest.len() {
                return false;
            }
            zone
        }
        None => rest,
    };
    has_form(time, "0000-00-00T00:00:00")
        && !time.ends_with("60")
        && ["Z", "+00:00", "-00:00"].iter().any(|form| has_form(zone, form))
        && (zone == "Z" || &zone[1..3] < "24")
}

fn in_range(millis: i128) -> Option<i64> {
    i64::try_from(millis)
        .ok()
        .filter(|millis| RANGE_MILLIS.contains(millis))
}

/// A timestamp plus a duration.
pub(crate) fn shift(millis: i64, nanos: i64) -> Result<i64, EvalError> {
    let sum = i128::from(millis) * NANOS_PER_MILLI + i128::from(nanos);
    in_range(sum.div_euclid(NANOS_PER_MILLI)).ok_or(EvalError::Overflow("timestamp + duration"))
}

/// RFC 3339 in UTC, with as many decimals of a second as are needed.
///
/// # Errors
/// Outside of [`RANGE_MILLIS`].
pub(crate) fn write_timestamp(millis: i64, out: &mut ArenaString<'_>) -> Result<(), EvalError> {
    let from_epoch = SignedDuration::from_millis(millis);
    let utc = DateTime::constant(1970, 1, 1, 0, 0, 0, 0).checked_add(from_epoch);
    let in_range = utc.ok().filter(|_| RANGE_MILLIS.contains(&millis));
    let utc = in_range.ok_or(EvalError::Conversion("string(timestampMillis)"))?;
    let _ = write!(out, "{utc}Z");
    Ok(())
}

/// From `earlier` to `later`, in nanoseconds.
pub(crate) fn between(later: i64, earlier: i64) -> Result<i64, EvalError> {
    let nanos = (i128::from(later) - i128::from(earlier)) * NANOS_PER_MILLI;
    i64::try_from(nanos).map_err(|_| EvalError::Overflow("timestamp - timestamp"))
}

const UNITS: [(&str, i64); 7] = [
    ("h", 3_600 * NANOS_PER_SECOND),
    ("ms", 1_000_000),
    ("m", 60 * NANOS_PER_SECOND),
    ("s", NANOS_PER_SECOND),
    ("us", 1_000),
    ("µs", 1_000),
    ("ns", 1),
];

/// `duration(string)`: decimal numbers with units, `1h30m`, `-1.5s`. <https://pkg.go.dev/time#ParseDuration>
pub(crate) fn parse_duration(text: &str) -> Result<i64, EvalError> {
    sum_of_units(text).ok_or(EvalError::Conversion("duration(string)"))
}

fn sum_of_units(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0_i128;
    loop {
        let number = rest.len()
            - rest
                .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
                .len();
        let (number, unit) = rest.split_at(number);
        let unit_end = unit
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(unit.len());
        let (unit, behind) = unit.split_at(unit_end);
        let nanos = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        total += in_nanos(number, i128::from(nanos))?;
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// A decimal number times a unit, without a rounding error.
fn in_nanos(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = |text: &str| {
        if text.is_empty() {
            Some(0)
        } else {
            text.parse::<u64>().ok().map(i128::from)
        }
    };
    // More than nanoseconds of an hour cannot be told apart.
    let fraction = &fraction[..fraction.len().min(15)];
    let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    Some(digits(whole)? * unit + digits(fraction)? * unit / scale)
}

/// `string(duration)`: seconds, as in JSON of protocol buffers.
pub(crate) fn write_duration(nanos: i64, out: &mut ArenaString<'_>) {
    let (seconds, rest) = (
        nanos / NANOS_PER_SECOND,
        (nanos % NANOS_PER_SECOND).unsigned_abs(),
    );
    if nanos < 0 && seconds == 0 {
        out.push('-');
    }
    let _ = write!(out, "{seconds}");
    if rest > 0 {
        let _ = write!(out, ".{rest:09}");
        out.truncate(out.trim_end_matches('0').len());
    }
    out.push('s');
}

/// A part of a date or a time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    FullYear,
    /// From 0.
    Month,
    /// From 1.
    Date,
    /// From 0.
    DayOfMonth,
    /// From 0, Sunday.
    DayOfWeek,
    /// From 0.
    DayOfYear,
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
}

impl Part {
    /// Of a timestamp, in a time zone: a name of the IANA database, or an offset such as `+02:00`.
    pub(crate) fn of_timestamp(self, millis: i64, zone: &str) -> Result<i64, EvalError> {
        let timestamp = Timestamp::from_millisecond(millis).map_err(|_| EvalError::Overflow("timestamp"))?;
        let zone = time_zone(zone).ok_or_else(|| EvalError::TimeZone(zone.into()))?;
        let at: Zoned = timestamp.to_zoned(zone);
        Ok(match self {
            Self::FullYear => i64::from(at.year()),
            Self::Month => i64::from(at.month()) - 1,
            Self::Date => i64::from(at.day()),
            Self::DayOfMonth => i64::from(at.day()) - 1,
            Self::DayOfWeek => i64::from(at.weekday().to_sunday_zero_offset()),
            Self::DayOfYear => i64::from(at.day_of_year()) - 1,
            Self::Hours => i64::from(at.hour()),
            Self::Minutes => i64::from(at.minute()),
            Self::Seconds => i64::from(at.second()),
            Self::Milliseconds => i64::from(at.millisecond()),
        })
    }

    /// Of a duration: all of it in hours, minutes, seconds; the milliseconds behind the seconds.
    pub(crate) fn of_duration(self, nanos: i64) -> Option<i64> {
        match self {
            Self::Hours => Some(nanos / (3_600 * NANOS_PER_SECOND)),
            Self::Minutes => Some(nanos / (60 * NANOS_PER_SECOND)),
            Self::Seconds => Some(nanos / NANOS_PER_SECOND),
            Self::Milliseconds => Some(nanos % NANOS_PER_SECOND / 1_000_000),
            Self::FullYear
            | Self::Month
            | Self::Date
            | Self::DayOfMonth
            | Self::DayOfWeek
            | Self::DayOfYear => None,
        }
    }
}

fn time_zone(name: &str) -> Option<TimeZone> {
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    let (sign, digits) = match name.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, name.strip_prefix('+').unwrap_or(name)),
    };
    if let Some((hours, minutes)) = digits.split_once(':') {
        let (hours, minutes) = (hours.parse::<u8>().ok()?, minutes.parse::<u8>().ok()?);
        if hours > 23 || minutes > 59 {
            return None;
        }
        let seconds = sign * (i32::from(hours) * 3_600 + i32::from(minutes) * 60);
        return Offset::from_seconds(seconds).ok().map(TimeZone::fixed);
    }
    ZONES.get(name).ok()
}
