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
    Integer,
    Double,
    Boolean,
    Uuid,
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
    /// Of one of the formats of one length: its name, the number of bytes, and how many there should be.
    #[error("{0}: {1} bytes instead of {2}")]
    Length(&'static str, usize, usize),
    /// Of [`Format::Boolean`], with the byte.
    #[error("Boolean: {0} instead of 0 or 1")]
    Boolean(u8),
    /// Of [`Format::Uuid`].
    #[error("UUID: not of the form 8-4-4-4-12")]
    Uuid,
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
    #[error("as Integer: {0} needs more than 32 bits")]
    Integer(i64),
    #[error("as UUID: not of the form 8-4-4-4-12")]
    Uuid,
}

impl Codec {
    pub(crate) fn new(format: &Format) -> Self {
        match format {
            Format::String => Self::String,
            Format::Bytes => Self::Bytes,
            Format::Long => Self::Long,
            Format::Integer => Self::Integer,
            Format::Double => Self::Double,
            Format::Boolean => Self::Boolean,
            Format::Uuid => Self::Uuid,
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
            Self::Long => Value::Int(i64::from_be_bytes(array("Long", bytes)?)),
            Self::Integer => Value::Int(i32::from_be_bytes(array("Integer", bytes)?).into()),
            Self::Double => Value::Double(f64::from_be_bytes(array("Double", bytes)?)),
            Self::Boolean => match array("Boolean", bytes)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => return Err(FormatError::Boolean(other)),
            },
            Self::Uuid => match std::str::from_utf8(bytes) {
                Ok(text) if is_uuid(text) => Value::String(text),
                Ok(_) | Err(_) => return Err(FormatError::Uuid),
            },
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
            (Self::Integer, Value::Int(value)) => {
                let short = i32::try_from(value).map_err(|_| EncodeError::Integer(value))?;
                into.extend_from_slice(&short.to_be_bytes());
            }
            (Self::Double, Value::Double(value)) => into.extend_from_slice(&value.to_be_bytes()),
            (Self::Boolean, Value::Bool(value)) => into.push(value.into()),
            (Self::Uuid, Value::String(text)) if is_uuid(text) => into.extend_from_slice(text.as_bytes()),
            (Self::Uuid, Value::String(_)) => return Err(EncodeError::Uuid),
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
            (Self::Integer, _) => return Err(EncodeError::Type("Integer")),
            (Self::Double, _) => return Err(EncodeError::Type("Double")),
            (Self::Boolean, _) => return Err(EncodeError::Type("Boolean")),
            (Self::Uuid, _) => return Err(EncodeError::Type("UUID")),
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
            Self::String
            | Self::Bytes
            | Self::Long
            | Self::Integer
            | Self::Double
            | Self::Boolean
            | Self::Uuid
            | Self::Json(_)
            | Self::Row(_) => 0,
        };
        &key[..key.len().saturating_sub(window)]
    }
}

fn array<const N: usize>(format: &'static str, bytes: &[u8]) -> Result<[u8; N], FormatError> {
    bytes
        .try_into()
        .map_err(|_| FormatError::Length(format, bytes.len(), N))
}

/// Whether it is what RFC 9562 calls a UUID as text, in either case of letters.
fn is_uuid(text: &str) -> bool {
    let is_dash = |at| matches!(at, 8 | 13 | 18 | 23);
    let mut bytes = text.bytes().enumerate();
    text.len() == 36
        && bytes.all(|(at, byte)| {
            if is_dash(at) {
                byte == b'-'
            } else {
                byte.is_ascii_hexdigit()
            }
        })
}

/// A value of [`topology::plan::windowed_key`].
pub(crate) fn windowed_key<'a>(key: Value<'a>, start: i64, end: i64, arena: &'a Bump) -> Value<'a> {
    Value::Struct(arena.alloc([key, Value::Timestamp(start), Value::Timestamp(end)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0198c82c-C000-7000-8000-0123456789ab";

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
            (Codec::Integer, Value::Int(-2), &[255, 255, 255, 254]),
            (
                Codec::Double,
                Value::Double(-0.5),
                &[0xbf, 0xe0, 0, 0, 0, 0, 0, 0],
            ),
            (Codec::Boolean, Value::Bool(true), &[1]),
            (Codec::Boolean, Value::Bool(false), &[0]),
            (Codec::Uuid, Value::String(ID), ID.as_bytes()),
        ] {
            let mut encoded = Vec::new();
            assert!(codec.encode(value, &mut encoded).unwrap());
            assert_eq!(encoded, bytes);
            assert_eq!(codec.decode(Some(bytes), &arena).unwrap(), value);
            assert_eq!(codec.decode(None, &arena).unwrap(), Value::Null);
            assert!(!codec.encode(Value::Null, &mut encoded).unwrap());
            assert!(codec.encode(Value::Timestamp(0), &mut encoded).is_err());
        }
    }

    #[test]
    fn bytes_of_another_format_are_refused_with_a_reason() {
        let arena = Bump::new();
        let reason = |codec: Codec, bytes| codec.decode(Some(bytes), &arena).unwrap_err().to_string();
        assert_eq!(reason(Codec::Long, &[0; 4]), "Long: 4 bytes instead of 8");
        assert_eq!(reason(Codec::Integer, &[0; 8]), "Integer: 8 bytes instead of 4");
        assert_eq!(reason(Codec::Double, &[]), "Double: 0 bytes instead of 8");
        assert_eq!(reason(Codec::Boolean, &[2]), "Boolean: 2 instead of 0 or 1");
        let wrong = [ID.replace('C', "g"), ID.replace('-', "0"), format!("{ID}0")];
        for text in wrong.iter().map(String::as_str).chain(["", "0198c82c"]) {
            assert_eq!(
                reason(Codec::Uuid, text.as_bytes()),
                "UUID: not of the form 8-4-4-4-12"
            );
        }
        assert_eq!(reason(Codec::String, b"a\xff"), "String, byte 1: not UTF-8");
        assert_eq!(
            reason(Codec::Row(Type::Int), &[7, 0]),
            "row format version 7; this program reads version 1"
        );
    }

    #[test]
    fn what_an_encoding_cannot_hold_is_refused_with_a_reason() {
        let reason = |codec: Codec, value| codec.encode(value, &mut Vec::new()).unwrap_err().to_string();
        for value in [i64::from(i32::MAX) + 1, i64::from(i32::MIN) - 1] {
            let expected = format!("as Integer: {value} needs more than 32 bits");
            assert_eq!(reason(Codec::Integer, Value::Int(value)), expected);
        }
        assert_eq!(
            reason(Codec::Uuid, Value::String("c-17")),
            "as UUID: not of the form 8-4-4-4-12"
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
