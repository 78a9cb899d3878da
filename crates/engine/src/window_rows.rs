//! How the rows of stores with windows lie (ADR 0034; `formats.md` for other readers).
//!
//! Under the empty key: the stream time of the operator. Time windows: start and key, in the order of time. Session windows:
//! under each key the list of its windows, to find what a record is near to; beside it a row for each window, in the order of
//! their ends, to find what closes. Sliding windows: by key and start; beside each a row in the order in which they close or are
//! forgotten. Joins: a row for each record of both streams, by side, key and time; beside it one in the order in
//! which records are forgotten. Suppressed updates: under each key the last one, beside it a row in the order of the first ones.
//! Versions: by key, the latest first; beside each that has ended a row in the order of the ends. Records that wait: in the order of
//! time.

use std::collections::BTreeMap;

use bumpalo::Bump;
use topology::plan::{Side, StoreSpec, Windows};
use topology::{Type, Value};

use crate::StoreError;
use crate::format::{Codec, windowed_key};
use crate::row;

/// Key of the row that holds the stream time: before all others.
pub(crate) const STREAM_TIME: &[u8] = b"";
/// What the rows with a key's sessions begin with: less than any time.
const SESSIONS: u8 = 1;

/// What the rows with the records that are joined begin with: less than any time.
const JOINED: u8 = 2;
/// The same, of the versions of a key.
const VERSIONS: u8 = 3;
/// The same, of updates that wait.
const SUPPRESSED: u8 = 4;
/// The same, of the sliding windows of a key.
const SLIDING: u8 = 5;

/// The order of bytes is the order of time.
pub(crate) fn encode_time(time: i64) -> [u8; 8] {
    (time ^ i64::MIN).to_be_bytes()
}

/// The time that a row begins with; `None` for one that has none.
pub(crate) fn time_of(row: &[u8]) -> Option<i64> {
    row.first_chunk()
        .map(|bytes| i64::from_be_bytes(*bytes) ^ i64::MIN)
}

/// What a row with a key's sessions begins with.
pub(crate) fn begin_sessions(row: &mut Vec<u8>) {
    row.clear();
    row.push(SESSIONS);
}

/// What the row with a key's suppressed update begins with.
pub(crate) fn begin_suppressed(row: &mut Vec<u8>) {
    row.clear();
    row.push(SUPPRESSED);
}

/// Key of the row of a record that waits; the number tells apart those of one time and key.
pub(crate) fn held_row(time: i64, key: &[u8], number: u32, into: &mut Vec<u8>) {
    into.clear();
    into.extend_from_slice(&encode_time(time));
    into.extend_from_slice(key);
    into.extend_from_slice(&number.to_be_bytes());
}

/// Time and the key's bytes of such a row.
pub(crate) fn split_held_row(row: &[u8]) -> Option<(i64, &[u8])> {
    let (_, rest) = row.split_first_chunk::<8>()?;
    let (key, _) = rest.split_last_chunk::<4>()?;
    Some((time_of(row)?, key))
}

/// A window of a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Session<'a> {
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) value: Value<'a>,
}

impl<'a> Session<'a> {
    /// An item of [`sessions_type`].
    pub(crate) fn to_item(self, arena: &'a Bump) -> Value<'a> {
        let (start, end) = (Value::Timestamp(self.start), Value::Timestamp(self.end));
        Value::Struct(arena.alloc([start, end, self.value]))
    }

    /// Of an item of [`sessions_type`].
    pub(crate) fn of_item(item: &Value<'a>) -> Option<Self> {
        let Value::Struct([Value::Timestamp(start), Value::Timestamp(end), value]) = item else {
            return None;
        };
        Some(Self {
            start: *start,
            end: *end,
            value: *value,
        })
    }

    /// Key of the window's own row, of a key with these bytes.
    pub(crate) fn row(&self, key: &[u8], into: &mut Vec<u8>) {
        closing_row(self.end, self.start, key, into);
    }
}

/// Key of a row in the order of time: of what ends then, or is to be looked at then, and begins with this time.
pub(crate) fn closing_row(end: i64, start: i64, key: &[u8], into: &mut Vec<u8>) {
    into.clear();
    into.extend_from_slice(&encode_time(end));
    into.extend_from_slice(&encode_time(start));
    into.extend_from_slice(key);
}

/// Start, end and the key's bytes of a window's own row.
pub(crate) fn split_session_row(row: &[u8]) -> Option<(i64, i64, &[u8])> {
    let (end, rest) = row.split_first_chunk::<8>()?;
    let (start, key) = rest.split_first_chunk::<8>()?;
    Some((time_of(start)?, time_of(end)?, key))
}

/// Of the list of a key's windows, for aggregates of this type.
pub(crate) fn sessions_type(value: &Type) -> Type {
    let fields = [
        ("start", Type::Timestamp),
        ("end", Type::Timestamp),
        ("value", value.clone()),
    ];
    Type::List(Box::new(Type::record("session", fields)))
}

/// What a key had from a time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version<'a> {
    /// The key's bytes.
    pub(crate) key: &'a [u8],
    pub(crate) time: i64,
}

impl<'a> Version<'a> {
    /// Key of its row: those of one key lie together, the latest first.
    pub(crate) fn row(&self, into: &mut Vec<u8>) {
        begin_key(&[VERSIONS], self.key, into);
        into.extend_from_slice(&encode_time(!self.time));
    }

    /// Of such a row.
    pub(crate) fn of_row(row: &'a [u8]) -> Option<Self> {
        let (key, time) = split_key(row.strip_prefix(&[VERSIONS])?)?;
        let time = !last_time(time)?;
        Some(Self { key, time })
    }
}

/// A sliding window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sliding<'a> {
    /// The key's bytes.
    pub(crate) key: &'a [u8],
    pub(crate) start: i64,
}

impl<'a> Sliding<'a> {
    /// Key of its row: those of one key lie together, the earliest first.
    pub(crate) fn row(&self, into: &mut Vec<u8>) {
        begin_key(&[SLIDING], self.key, into);
        into.extend_from_slice(&encode_time(self.start));
    }

    /// Of such a row.
    pub(crate) fn of_row(row: &'a [u8]) -> Option<Self> {
        let (key, start) = split_key(row.strip_prefix(&[SLIDING])?)?;
        let start = last_time(start)?;
        Some(Self { key, start })
    }
}

/// Begins the row of something that a key has several of: with the key's length, so that no other key's rows lie between.
fn begin_key(kind: &[u8], key: &[u8], into: &mut Vec<u8>) {
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    into.clear();
    into.extend_from_slice(kind);
    into.extend_from_slice(&length.to_be_bytes());
    into.extend_from_slice(key);
}

/// The key's bytes and what is behind them, of such a row without its kind.
fn split_key(row: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = row.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    rest.split_at_checked(length)
}

/// The time that a row ends with.
fn last_time(time: &[u8]) -> Option<i64> {
    time_of(time).filter(|_| time.len() == 8)
}

/// A record that is kept to be joined with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept<'a> {
    pub(crate) side: Side,
    /// The key's bytes.
    pub(crate) key: &'a [u8],
    pub(crate) time: i64,
    /// Tells apart those of one side, key and time.
    pub(crate) number: u32,
}

impl<'a> Kept<'a> {
    /// What the rows of a side and a key begin with.
    pub(crate) fn begin(side: Side, key: &[u8], into: &mut Vec<u8>) {
        begin_key(&[JOINED, u8::from(side == Side::Right)], key, into);
    }

    /// Key of the row with its value: those of one key and side in the order of time.
    pub(crate) fn row(&self, into: &mut Vec<u8>) {
        Self::begin(self.side, self.key, into);
        into.extend_from_slice(&encode_time(self.time));
        into.extend_from_slice(&self.number.to_be_bytes());
    }

    /// Of such a row.
    pub(crate) fn of_row(row: &'a [u8]) -> Option<Self> {
        let (side, rest) = row.strip_prefix(&[JOINED])?.split_first()?;
        let (key, rest) = split_key(rest)?;
        let (time, number) = rest.split_first_chunk::<8>()?;
        Some(Self {
            side: if *side == 0 { Side::Left } else { Side::Right },
            key,
            time: time_of(time)?,
            number: u32::from_be_bytes(number.try_into().ok()?),
        })
    }

    /// Key of its row in the order in which records are forgotten: of the last time of others that it is joined with, then of its
    /// own; of the right stream first, as in Kafka Streams.
    pub(crate) fn closing_row(&self, last: i64, into: &mut Vec<u8>) {
        into.clear();
        into.extend_from_slice(&encode_time(last));
        into.extend_from_slice(&encode_time(self.time));
        into.push(u8::from(self.side == Side::Left));
        into.extend_from_slice(self.key);
        into.extend_from_slice(&self.number.to_be_bytes());
    }

    /// Of such a row.
    pub(crate) fn of_closing_row(row: &'a [u8]) -> Option<Self> {
        let (_, rest) = row.split_first_chunk::<8>()?;
        let (time, rest) = rest.split_first_chunk::<8>()?;
        let (side, rest) = rest.split_first()?;
        let (key, number) = rest.split_last_chunk::<4>()?;
        Some(Self {
            side: if *side == 0 { Side::Right } else { Side::Left },
            key,
            time: time_of(time)?,
            number: u32::from_be_bytes(*number),
        })
    }
}

/// What a store holds under one key, or under one key and window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StoreRow<'a> {
    /// Of [`StoreSpec::row_key`].
    pub key: Value<'a>,
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// Of [`StoreSpec::value`].
    pub value: Value<'a>,
}

/// What a store with these rows holds.
///
/// # Errors
/// When they are not of the store's types.
pub fn store_rows<'a>(
    spec: &StoreSpec,
    rows: &'a BTreeMap<Vec<u8>, Vec<u8>>,
    arena: &'a Bump,
) -> Result<Vec<StoreRow<'a>>, StoreError> {
    let failed = |error: &dyn std::fmt::Display| StoreError::new(format!("store `{}`: {error}", spec.name));
    let codec = Codec::new(&spec.key);
    let decode = |key| codec.decode(Some(key), arena).map_err(|error| failed(&error));
    let (sessions, versions) = (sessions_type(&spec.value), spec.value.clone().or_absent());
    let mut latest = None;
    let mut all = Vec::with_capacity(rows.len());
    for (key, value) in rows {
        let timestamped =
            |ty: &Type| row::decode_timestamped(ty, value, arena).map_err(|error| failed(&error));
        match (spec.windows, time_of(key)) {
            (None, _) => {
                let (timestamp, value) = timestamped(&spec.value)?;
                let key = decode(key)?;
                all.push(StoreRow {
                    key,
                    timestamp,
                    value,
                });
            }
            // The stream time.
            (Some(_), _) if key.is_empty() => {}
            (Some(Windows::Time(windows)), Some(start)) => {
                let (timestamp, value) = timestamped(&spec.value)?;
                let key = decode(key.get(8..).unwrap_or_default())?;
                let end = start.saturating_add(windows.size_ms);
                all.push(StoreRow {
                    key: windowed_key(key, start, end, arena),
                    timestamp,
                    value,
                });
            }
            (Some(Windows::Session(_)), _) if key.first() == Some(&SESSIONS) => {
                let (_, Value::List(items)) = timestamped(&sessions)? else {
                    return Err(failed(&"no list of windows"));
                };
                let key = decode(key.get(1..).unwrap_or_default())?;
                for session in items.iter().filter_map(Session::of_item) {
                    all.push(StoreRow {
                        key: windowed_key(key, session.start, session.end, arena),
                        timestamp: session.end,
                        value: session.value,
                    });
                }
            }
            (Some(Windows::Join(_)), _) if key.first() == Some(&JOINED) => {
                let kept = Kept::of_row(key).ok_or_else(|| failed(&"a row that no record has"))?;
                let (timestamp, value) = timestamped(&spec.value)?;
                all.push(StoreRow {
                    key: decode(kept.key)?,
                    timestamp,
                    value,
                });
            }
            (Some(Windows::Sliding(windows)), _) if key.first() == Some(&SLIDING) => {
                let sliding = Sliding::of_row(key).ok_or_else(|| failed(&"a row that no window has"))?;
                let (timestamp, value) = timestamped(&spec.value)?;
                let end = sliding.start.saturating_add(windows.difference_ms);
                all.push(StoreRow {
                    key: windowed_key(decode(sliding.key)?, sliding.start, end, arena),
                    timestamp,
                    value,
                });
            }
            (Some(Windows::Suppress { .. }), _) if key.first() == Some(&SUPPRESSED) => {
                let (timestamp, value) = timestamped(&spec.value)?;
                all.push(StoreRow {
                    key: decode(key.get(1..).unwrap_or_default())?,
                    timestamp,
                    value,
                });
            }
            (Some(Windows::Versions { .. }), _) if key.first() == Some(&VERSIONS) => {
                let version = Version::of_row(key).ok_or_else(|| failed(&"a row that no version has"))?;
                let (timestamp, value) = timestamped(&versions)?;
                let key = decode(version.key)?;
                // What the table holds is the latest one.
                if latest.replace(version.key) != Some(version.key) && !value.is_null() {
                    all.push(StoreRow {
                        key,
                        timestamp,
                        value,
                    });
                }
            }
            (Some(Windows::Held { .. }), _) => {
                let (timestamp, value) = timestamped(&spec.value)?;
                let (_, key) = split_held_row(key).ok_or_else(|| failed(&"a row that no record has"))?;
                all.push(StoreRow {
                    key: decode(key)?,
                    timestamp,
                    value,
                });
            }
            // A row in the order of time says nothing more.
            (
                Some(
                    Windows::Session(_)
                    | Windows::Sliding(_)
                    | Windows::Join(_)
                    | Windows::Suppress { .. }
                    | Windows::Versions { .. },
                ),
                Some(_),
            ) => {}
            (Some(_), _) => return Err(failed(&"a row that no window has")),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_the_order_of_time() {
        let times = [0, 1, 255, 256, i64::MAX - 1, i64::MAX];
        assert!(times.map(encode_time).is_sorted());
        for time in times {
            assert_eq!(time_of(&encode_time(time)), Some(time));
        }
        let rows = [(5, 9, "b"), (7, 9, "a"), (0, 10, "a")].map(|(start, end, key)| {
            let value = Value::Null;
            let mut row = Vec::new();
            Session { start, end, value }.row(key.as_bytes(), &mut row);
            assert_eq!(split_session_row(&row), Some((start, end, key.as_bytes())));
            row
        });
        assert!(rows.is_sorted());
        assert!(vec![SESSIONS, 0xff] < rows[0], "lists lie before windows");
    }
}
