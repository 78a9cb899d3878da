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
            (Self::String, _) => return Err(EncodeError::Type("String")),
            (Self::Bytes, _) => return Err(EncodeError::Type("Bytes")),
            (Self::Long, _) => return Err(EncodeError::Type("Long")),
        }
        Ok(true)
    }
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
}
