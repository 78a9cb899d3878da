//! The compact encoding of typed values for repartition topics, stores and changelogs; described for other
//! readers in `docs/reference/formats.md`.
//!
//! One value of a type has one encoding only: what could be written in two ways (a number with needless
//! bytes, a flag other than 0 and 1) is refused, so that equal bytes mean equal values.

use bumpalo::Bump;
use topology::{Type, Value};

/// First byte of every row.
pub const VERSION: u8 = 0x01;

/// Bytes that are no row of the wanted type, or a value that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The first byte is another version.
    #[error("row format version {0}; this program reads version {VERSION}")]
    Version(u8),
    /// The bytes end within a value.
    #[error("the row has {0} bytes and ends within a value")]
    Truncated(usize),
    /// This many bytes follow the value.
    #[error("the row has {0} bytes behind its value")]
    Trailing(usize),
    /// A string that is not UTF-8, a number or a flag that no writer makes; with its end, in bytes from 0.
    #[error("the row has a malformed {0} before byte {1}")]
    Malformed(&'static str, usize),
    /// In encoding: the value is not of the type. A defect of this program.
    #[error("a value that is no {0}, a defect of this program")]
    Type(String),
}

/// Appends version and value. After an error `into` may hold a part.
///
/// # Errors
/// [`RowError::Type`] when the value is not of the type.
pub fn encode(ty: &Type, value: Value<'_>, into: &mut Vec<u8>) -> Result<(), RowError> {
    into.push(VERSION);
    put(ty, value, into)
}

/// Appends what a store and its changelog hold: version, timestamp in milliseconds, value.
///
/// # Errors
/// As [`encode`].
pub fn encode_timestamped(
    ty: &Type,
    timestamp: i64,
    value: Value<'_>,
    into: &mut Vec<u8>,
) -> Result<(), RowError> {
    into.push(VERSION);
    into.extend_from_slice(&timestamp.to_be_bytes());
    put(ty, value, into)
}

/// Appends what a store with windows holds as its stream time, in milliseconds: version, timestamp.
pub fn encode_time(timestamp: i64, into: &mut Vec<u8>) {
    into.push(VERSION);
    into.extend_from_slice(&timestamp.to_be_bytes());
}

/// Makes the beginning of keys the first one that is behind all of these. Rows have one: their first byte is [`VERSION`].
pub(crate) fn end_of_prefix(prefix: &mut Vec<u8>) {
    while let Some(last) = prefix.pop() {
        if let Some(next) = last.checked_add(1) {
            prefix.push(next);
            return;
        }
    }
}

/// Reads what [`encode_time`] wrote.
///
/// # Errors
/// As [`decode`].
pub fn decode_time(bytes: &[u8]) -> Result<i64, RowError> {
    let mut reader = Reader { bytes, at: 0 };
    reader.version()?;
    let timestamp = i64::from_be_bytes(reader.fixed()?);
    reader.end()?;
    Ok(timestamp)
}

/// Reads what [`encode`] wrote. Strings and bytes are borrowed, slots live in the arena.
///
/// # Errors
/// [`RowError`], all but [`RowError::Type`].
pub fn decode<'a>(ty: &Type, bytes: &'a [u8], arena: &'a Bump) -> Result<Value<'a>, RowError> {
    let mut reader = Reader { bytes, at: 0 };
    reader.version()?;
    let value = reader.value(ty, arena)?;
    reader.end()?;
    Ok(value)
}

/// Reads what [`encode_timestamped`] wrote: timestamp in milliseconds, and value.
///
/// # Errors
/// As [`decode`].
pub fn decode_timestamped<'a>(
    ty: &Type,
    bytes: &'a [u8],
    arena: &'a Bump,
) -> Result<(i64, Value<'a>), RowError> {
    let mut reader = Reader { bytes, at: 0 };
    reader.version()?;
    let timestamp = i64::from_be_bytes(reader.fixed()?);
    let value = reader.value(ty, arena)?;
    reader.end()?;
    Ok((timestamp, value))
}

fn put(ty: &Type, value: Value<'_>, into: &mut Vec<u8>) -> Result<(), RowError> {
    match (ty, value) {
        (Type::Optional(_), Value::Null) => into.push(0),
        (Type::Optional(inner), value) => {
            into.push(1);
            put(inner, value, into)?;
        }
        (Type::Bool, Value::Bool(value)) => into.push(u8::from(value)),
        (Type::Int, Value::Int(value)) | (Type::Timestamp, Value::Timestamp(value)) => {
            put_varint(zigzag(value), into);
        }
        (Type::Double, Value::Double(value)) => into.extend_from_slice(&value.to_be_bytes()),
        (Type::String, Value::String(text)) => put_bytes(text.as_bytes(), into),
        (Type::Bytes, Value::Bytes(bytes)) => put_bytes(bytes, into),
        (Type::List(item), Value::List(items)) => {
            put_varint(items.len() as u64, into);
            for value in items {
                put(item, *value, into)?;
            }
        }
        (Type::Map(item), Value::Map(entries)) => {
            put_varint(entries.len() as u64, into);
            for (key, value) in entries {
                put(&Type::String, *key, into)?;
                put(item, *value, into)?;
            }
        }
        (Type::Struct(record), Value::Struct(slots)) if slots.len() == record.fields.len() => {
            for (field, slot) in record.fields.iter().zip(slots) {
                put(&field.ty, *slot, into)?;
            }
        }
        (ty, _) => return Err(RowError::Type(ty.to_string())),
    }
    Ok(())
}

fn put_bytes(bytes: &[u8], into: &mut Vec<u8>) {
    put_varint(bytes.len() as u64, into);
    into.extend_from_slice(bytes);
}

/// Small numbers of either sign become small: 0, -1, 1, -2 … are 0, 1, 2, 3 ….
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn put_varint(mut value: u64, into: &mut Vec<u8>) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            into.push(low);
            return;
        }
        into.push(low | 0x80);
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    #[cold]
    fn truncated(&self) -> RowError {
        RowError::Truncated(self.bytes.len())
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], RowError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..length).ok_or_else(|| self.truncated())?;
        self.at += length;
        Ok(taken)
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], RowError> {
        self.take(N)?.try_into().map_err(|_| self.truncated())
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, RowError> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| self.truncated())?;
        self.at += 1;
        Ok(byte)
    }

    fn version(&mut self) -> Result<(), RowError> {
        match self.byte()? {
            VERSION => Ok(()),
            other => Err(RowError::Version(other)),
        }
    }

    fn end(&self) -> Result<(), RowError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            rest => Err(RowError::Trailing(rest)),
        }
    }

    /// Seven bits per byte, the lowest first; as few bytes as possible, at most ten.
    #[inline]
    fn varint(&mut self) -> Result<u64, RowError> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                if bits == 0 {
                    break;
                }
                return Ok(value);
            }
        }
        Err(RowError::Malformed("number", self.at))
    }

    #[inline]
    fn int(&mut self) -> Result<i64, RowError> {
        let zigzag = self.varint()?;
        Ok((zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed()))
    }

    #[inline]
    fn slice(&mut self) -> Result<&'a [u8], RowError> {
        let length = self.varint()?;
        self.take(usize::try_from(length).map_err(|_| self.truncated())?)
    }

    fn flag(&mut self) -> Result<bool, RowError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(RowError::Malformed("flag", self.at)),
        }
    }

    /// A number of items, each of which has a byte at least.
    fn count(&mut self) -> Result<usize, RowError> {
        let count = usize::try_from(self.varint()?).map_err(|_| self.truncated())?;
        if count > self.bytes.len() - self.at {
            return Err(self.truncated());
        }
        Ok(count)
    }

    /// Entries in the order of their keys, which a writer keeps.
    fn map(&mut self, item: &Type, arena: &'a Bump) -> Result<&'a [(Value<'a>, Value<'a>)], RowError> {
        let entries = arena.alloc_slice_fill_copy(self.count()?, (Value::Null, Value::Null));
        let mut before = None;
        for entry in entries.iter_mut() {
            let key = self.value(&Type::String, arena)?;
            if let Value::String(key) = key
                && before.replace(key).is_some_and(|before| before >= key)
            {
                return Err(RowError::Malformed("map", self.at));
            }
            *entry = (key, self.value(item, arena)?);
        }
        Ok(entries)
    }

    fn value(&mut self, ty: &Type, arena: &'a Bump) -> Result<Value<'a>, RowError> {
        Ok(match ty {
            Type::Bool => Value::Bool(self.flag()?),
            Type::Int => Value::Int(self.int()?),
            Type::Timestamp => Value::Timestamp(self.int()?),
            Type::Double => Value::Double(f64::from_be_bytes(self.fixed()?)),
            Type::String => {
                let text = std::str::from_utf8(self.slice()?);
                Value::String(text.map_err(|_| RowError::Malformed("string", self.at))?)
            }
            Type::Bytes => Value::Bytes(self.slice()?),
            Type::Optional(inner) => {
                if self.flag()? {
                    self.value(inner, arena)?
                } else {
                    Value::Null
                }
            }
            Type::List(item) => {
                let slots = arena.alloc_slice_fill_copy(self.count()?, Value::Null);
                for slot in slots.iter_mut() {
                    *slot = self.value(item, arena)?;
                }
                Value::List(slots)
            }
            Type::Map(item) => Value::Map(self.map(item, arena)?),
            Type::Struct(record) => {
                let slots = arena.alloc_slice_fill_copy(record.fields.len(), Value::Null);
                for (slot, field) in slots.iter_mut().zip(&record.fields) {
                    *slot = self.value(&field.ty, arena)?;
                }
                Value::Struct(slots)
            }
        })
    }
}

#[cfg(test)]
mod tests;
