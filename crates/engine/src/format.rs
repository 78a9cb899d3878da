//! Keys and values of topics: bytes to values and back, by the plan's [`Format`].

use bumpalo::Bump;
use topology::plan::Format;
use topology::{Type, Value};

use crate::json::{JsonCodec, JsonError, WriteError};
use crate::row::{self, RowError};

/// A [`Format`], prepared.
#[derive(Debug)]
pub(crate) enum Codec {
    String,
    Bytes,
    Long,
    Json(JsonCodec),
    Row(Type),
    TimeWindowed { key: Box<Codec>, size_ms: i64 },
    SessionWindowed(Box<Codec>),
}

/// Reads one key or value of a topic or store, where it is not worth preparing; no bytes are [`Value::Null`].
///
/// # Errors
/// When the bytes are not of the format.
pub fn decode<'a>(
    format: &Format,
    bytes: Option<&'a [u8]>,
    arena: &'a Bump,
) -> Result<Value<'a>, FormatError> {
    Codec::new(format).decode(bytes, arena)
}

/// Bytes that are not of a format.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Of [`Format::Json`].
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Of [`Format::Row`].
    #[error(transparent)]
    Row(#[from] RowError),
    /// Of [`Format::String`], with the first byte that is wrong, from 0.
    #[error("String, byte {0}: not UTF-8")]
    Utf8(usize),
    /// Of [`Format::Long`], with the number of bytes.
    #[error("Long: {0} bytes instead of 8")]
    Long(usize),
    /// Of [`Format::TimeWindowed`] and [`Format::SessionWindowed`], with the number of bytes.
    #[error("windowed key: {0} bytes, which has no room for a window")]
    Windowed(usize),
}

/// A value that the format cannot hold.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    #[error("as JSON: {0}")]
    Json(#[from] WriteError),
    #[error("{0}")]
    Row(#[from] RowError),
    #[error("as {0}: a value of another type, a defect of this program")]
    Type(&'static str),
}

impl Codec {
    pub(crate) fn new(format: &Format) -> Self {
        match format {
            Format::String => Self::String,
            Format::Bytes => Self::Bytes,
            Format::Long => Self::Long,
            Format::Json(ty) => Self::Json(JsonCodec::new(ty)),
            Format::Row(ty) => Self::Row(ty.clone()),
            Format::TimeWindowed { key, size_ms } => Self::TimeWindowed {
                key: Box::new(Self::new(key)),
                size_ms: *size_ms,
            },
            Format::SessionWindowed { key } => Self::SessionWindowed(Box::new(Self::new(key))),
        }
    }

    /// `None` (a null key, a tombstone) is [`Value::Null`].
    #[inline]
    pub(crate) fn decode<'a>(
        &self,
        bytes: Option<&'a [u8]>,
        arena: &'a Bump,
    ) -> Result<Value<'a>, FormatError> {
        let Some(bytes) = bytes else {
            return Ok(Value::Null);
        };
        Ok(match self {
            Self::String => {
                let text = std::str::from_utf8(bytes);
                Value::String(text.map_err(|error| FormatError::Utf8(error.valid_up_to()))?)
            }
            Self::Bytes => Value::Bytes(bytes),
            Self::Long => {
                let array = bytes.try_into().map_err(|_| FormatError::Long(bytes.len()))?;
                Value::Int(i64::from_be_bytes(array))
            }
            Self::Json(codec) => codec.read(bytes, arena)?,
            Self::Row(ty) => row::decode(ty, bytes, arena)?,
            Self::TimeWindowed { key, size_ms } => {
                let split = bytes.split_last_chunk();
                let (of, start) = split.ok_or(FormatError::Windowed(bytes.len()))?;
                let start = i64::from_be_bytes(*start);
                let key = key.decode(Some(of), arena)?;
                windowed_key(key, start, start.saturating_add(*size_ms), arena)
            }
            Self::SessionWindowed(key) => {
                let split = bytes.split_last_chunk::<16>();
                let (of, window) = split.ok_or(FormatError::Windowed(bytes.len()))?;
                let (end, start) = window.split_at(8);
                let time = |bytes: &[u8]| bytes.try_into().map_or(0, i64::from_be_bytes);
                let key = key.decode(Some(of), arena)?;
                windowed_key(key, time(start), time(end), arena)
            }
        })
    }

    /// Appends the bytes; `false` for [`Value::Null`], which has none. After an error `into` may hold a part.
    #[inline]
    pub(crate) fn encode(&self, value: Value<'_>, into: &mut Vec<u8>) -> Result<bool, EncodeError> {
        match (self, value) {
            (_, Value::Null) => return Ok(false),
            (Self::String, Value::String(text)) => into.extend_from_slice(text.as_bytes()),
            (Self::Bytes, Value::Bytes(bytes)) => into.extend_from_slice(bytes),
            (Self::Long, Value::Int(value)) => into.extend_from_slice(&value.to_be_bytes()),
            (Self::Json(codec), value) => codec.write(value, into)?,
            (Self::Row(ty), value) => row::encode(ty, value, into)?,
            (Self::TimeWindowed { key, .. }, Value::Struct([of, Value::Timestamp(start), _])) => {
                let is_some = key.encode(*of, into)?;
                into.extend_from_slice(&start.to_be_bytes());
                return Ok(is_some);
            }
            (
                Self::SessionWindowed(key),
                Value::Struct([of, Value::Timestamp(start), Value::Timestamp(end)]),
            ) => {
                let is_some = key.encode(*of, into)?;
                into.extend_from_slice(&end.to_be_bytes());
                into.extend_from_slice(&start.to_be_bytes());
                return Ok(is_some);
            }
            (Self::TimeWindowed { .. } | Self::SessionWindowed(_), _) => {
                return Err(EncodeError::Type("windowed key"));
            }
            (Self::String, _) => return Err(EncodeError::Type("String")),
            (Self::Bytes, _) => return Err(EncodeError::Type("Bytes")),
            (Self::Long, _) => return Err(EncodeError::Type("Long")),
        }
        Ok(true)
    }
}

impl Codec {
    /// The part of an encoded key by which its partition is chosen.
    pub(crate) fn partitioned_by<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        let window = match self {
            Self::TimeWindowed { .. } => 8,
            Self::SessionWindowed(_) => 16,
            Self::String | Self::Bytes | Self::Long | Self::Json(_) | Self::Row(_) => 0,
        };
        &key[..key.len().saturating_sub(window)]
    }
}

/// A value of [`topology::plan::windowed_key`].
pub(crate) fn windowed_key<'a>(key: Value<'a>, start: i64, end: i64, arena: &'a Bump) -> Value<'a> {
    Value::Struct(arena.alloc([key, Value::Timestamp(start), Value::Timestamp(end)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kafka_encodings_are_kafkas_own() {
        let arena = Bump::new();
        for (codec, value, bytes) in [
            (Codec::String, Value::String("é"), &b"\xc3\xa9"[..]),
            (Codec::Bytes, Value::Bytes(&[0, 255]), &[0, 255]),
            (
                Codec::Long,
                Value::Int(-2),
                &[255, 255, 255, 255, 255, 255, 255, 254],
            ),
        ] {
            let mut encoded = Vec::new();
            assert!(codec.encode(value, &mut encoded).unwrap());
            assert_eq!(encoded, bytes);
            assert_eq!(codec.decode(Some(bytes), &arena).unwrap(), value);
            assert_eq!(codec.decode(None, &arena).unwrap(), Value::Null);
            assert!(!codec.encode(Value::Null, &mut encoded).unwrap());
            assert!(codec.encode(Value::Bool(true), &mut encoded).is_err());
        }
    }

    #[test]
    fn bytes_of_another_format_are_refused_with_a_reason() {
        let arena = Bump::new();
        let reason = |codec: Codec, bytes| codec.decode(Some(bytes), &arena).unwrap_err().to_string();
        assert_eq!(reason(Codec::Long, &[0; 4]), "Long: 4 bytes instead of 8");
        assert_eq!(reason(Codec::String, b"a\xff"), "String, byte 1: not UTF-8");
        assert_eq!(
            reason(Codec::Row(Type::Int), &[7, 0]),
            "row format version 7; this program reads version 1"
        );
    }

    /// As Kafka Streams' `WindowKeySchema.toBinary` and `SessionKeySchema.toBinary` have it, but for the sequence number that
    /// only stores have.
    #[test]
    fn windowed_keys_are_kafka_streams_own() {
        let arena = Bump::new();
        let key = || Box::new(Format::String);
        let time = Format::TimeWindowed {
            key: key(),
            size_ms: 10,
        };
        let session = Format::SessionWindowed { key: key() };
        for (format, bytes) in [
            (time, &b"ab\0\0\0\0\0\0\x01\x02"[..]),
            (session, b"ab\0\0\0\0\0\0\x01\x0c\0\0\0\0\0\0\x01\x02"),
        ] {
            let (codec, mut encoded) = (Codec::new(&format), Vec::new());
            let windowed = windowed_key(Value::String("ab"), 258, 268, &arena);
            assert!(codec.encode(windowed, &mut encoded).unwrap());
            assert_eq!(encoded, bytes);
            assert_eq!(codec.partitioned_by(bytes), b"ab");
            assert_eq!(codec.decode(Some(bytes), &arena).unwrap(), windowed);
            assert!(codec.decode(Some(&[0; 7]), &arena).is_err());
        }
    }
}
