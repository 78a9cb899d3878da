//! Keys and values of topics: bytes to values and back, by the plan's [`Format`].

use bumpalo::Bump;
use topology::Value;
use topology::plan::Format;

use crate::{json, row};

/// Bytes that are not what the plan reads.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error(transparent)]
    Json(#[from] json::JsonError),
    #[error(transparent)]
    Row(#[from] row::RowError),
    #[error("String: not UTF-8 at byte {0}")]
    Utf8(usize),
    #[error("Long: {0} bytes, not 8")]
    Long(usize),
}

/// A value that the format cannot hold.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    #[error(transparent)]
    Json(#[from] json::WriteError),
    #[error(transparent)]
    Row(#[from] row::RowError),
    #[error("internal error: the value does not fit the format")]
    Mismatch,
}

/// `None` (a null key, a tombstone) is [`Value::Null`].
pub(crate) fn decode<'a>(
    format: &Format,
    bytes: Option<&'a [u8]>,
    arena: &'a Bump,
) -> Result<Value<'a>, DecodeError> {
    let Some(bytes) = bytes else {
        return Ok(Value::Null);
    };
    Ok(match format {
        Format::String => {
            Value::String(std::str::from_utf8(bytes).map_err(|error| DecodeError::Utf8(error.valid_up_to()))?)
        }
        Format::Bytes => Value::Bytes(bytes),
        Format::Long => Value::Int(i64::from_be_bytes(
            bytes.try_into().map_err(|_| DecodeError::Long(bytes.len()))?,
        )),
        Format::Json(ty) => json::read(ty, bytes, arena)?,
        Format::Row(ty) => row::decode(ty, bytes, arena)?,
    })
}

/// Appends the bytes; `false` for null, which has none.
pub(crate) fn encode(format: &Format, value: Value<'_>, into: &mut Vec<u8>) -> Result<bool, EncodeError> {
    match (format, value) {
        (_, Value::Null) => return Ok(false),
        (Format::String, Value::String(text)) => into.extend_from_slice(text.as_bytes()),
        (Format::Bytes, Value::Bytes(bytes)) => into.extend_from_slice(bytes),
        (Format::Long, Value::Int(value)) => into.extend_from_slice(&value.to_be_bytes()),
        (Format::Json(ty), value) => json::write(ty, value, into)?,
        (Format::Row(ty), value) => row::encode(ty, value, into)?,
        (Format::String | Format::Bytes | Format::Long, _) => return Err(EncodeError::Mismatch),
    }
    Ok(true)
}
