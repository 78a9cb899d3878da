//! The one format for durations.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration: a whole number and a unit, `100ms`, `10s`, `5m`, `1h` or `1d`; of at least `LEAST` milliseconds, above zero
/// unless said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration<const LEAST: u64 = 1> {
    millis: u64,
}

const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];
/// Longest duration: 10 000 days.
const MAX_MILLIS: u64 = 10_000 * 86_400_000;

/// A text that is no [`Duration`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// No number and unit.
    #[error("`{0}` is not a duration: write a whole number and a unit, `100ms`, `10s`, `5m`, `1h` or `1d`")]
    Format(String),
    /// Only a number.
    #[error("`{0}` has no unit: write `{0}ms` or `{0}s`")]
    NoUnit(String),
    /// Less than is allowed there, or more than 10 000 days.
    #[error("`{0}` is out of range: from `{1}ms` to `10000d`")]
    Range(String, u64),
}

impl<const LEAST: u64> Duration<LEAST> {
    /// A duration of so many milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self { millis }
    }

    /// In milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.millis
    }
}

impl<const LEAST: u64> From<Duration<LEAST>> for std::time::Duration {
    fn from(duration: Duration<LEAST>) -> Self {
        Self::from_millis(duration.millis)
    }
}

impl<const LEAST: u64> FromStr for Duration<LEAST> {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        if number.is_empty() {
            return Err(DurationError::Format(text.to_owned()));
        }
        if unit.is_empty() {
            return Err(DurationError::NoUnit(text.to_owned()));
        }
        let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(DurationError::Format(text.to_owned()));
        };
        let millis = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(*factor));
        match millis {
            Some(millis) if (LEAST..=MAX_MILLIS).contains(&millis) => Ok(Self { millis }),
            Some(_) | None => Err(DurationError::Range(text.to_owned(), LEAST)),
        }
    }
}

impl<const LEAST: u64> fmt::Display for Duration<LEAST> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let largest = UNITS
            .iter()
            .find(|(_, factor)| self.millis != 0 && self.millis.is_multiple_of(*factor));
        let (unit, factor) = largest.copied().unwrap_or(("ms", 1));
        write!(f, "{}{unit}", self.millis / factor)
    }
}

impl<const LEAST: u64> Serialize for Duration<LEAST> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const LEAST: u64> Deserialize<'de> for Duration<LEAST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl<const LEAST: u64> JsonSchema for Duration<LEAST> {
    fn schema_name() -> Cow<'static, str> {
        match LEAST {
            1 => "Duration".into(),
            least => format!("DurationFrom{least}").into(),
        }
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let format = match LEAST {
            0 => "streamapp-duration-or-zero",
            _ => "streamapp-duration",
        };
        json_schema!({"type": "string", "format": format, "pattern": "^[0-9]+(ms|s|m|h|d)$"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_in_one_format() {
        for (text, millis) in [
            ("100ms", 100),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
        ] {
            let duration: Duration = text.parse().unwrap();
            assert_eq!(
                (duration.as_millis(), duration.to_string()),
                (millis, text.to_owned())
            );
        }
        assert_eq!("60000ms".parse::<Duration>().unwrap().to_string(), "1m");
    }

    #[test]
    fn other_texts_are_refused_with_what_to_write() {
        let error = |text: &str| text.parse::<Duration>().unwrap_err().to_string();
        assert_eq!(error("100"), "`100` has no unit: write `100ms` or `100s`");
        for text in ["", "ms", "1.5s", "-1s", "1 s", "10sec", "5M", "PT5M"] {
            assert!(
                error(text).starts_with(&format!("`{text}` is not a duration")),
                "{text}"
            );
        }
        for text in ["0s", "10001d", "99999999999999999999ms"] {
            assert!(error(text).contains("out of range: from `1ms`"), "{text}");
        }
        assert_eq!("0s".parse::<Duration<0>>().unwrap().to_string(), "0ms");
    }
}
