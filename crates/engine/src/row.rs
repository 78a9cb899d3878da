//! The compact encoding of typed values for repartition topics, changelogs and stores; described for other readers in
//! `docs/reference/formats.md`.

use bumpalo::Bump;
use bumpalo::collections::Vec as ArenaVec;
use topology::{Type, Value};

/// Version byte at the start of every row.
pub const VERSION: u8 = 0x01;

/// Bytes that are no row of the wanted type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The first byte is another version.
    #[error("row format version {0}, this program knows 1")]
    Version(u8),
    /// The bytes end within a value.
    #[error("the row ends at byte {0}, within a value")]
    Truncated(usize),
    /// Bytes follow the value.
    #[error("the row has {0} bytes after its value")]
    Trailing(usize),
    /// A string that is not UTF-8, a number or a flag out of its range.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// A value of another type than the plan says: a fault of this program.
    #[error("internal error: the value is no {0}")]
    Type(String),
}

/// Appends version and value.
///
/// # Errors
/// [`RowError::Type`] when the value is not of the type.
pub fn encode(ty: &Type, value: Value<'_>, into: &mut Vec<u8>) -> Result<(), RowError> {
    into.push(VERSION);
    put(ty, value, into)
}

/// Appends what a store and its changelog hold: version, timestamp, value.
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

/// Reads what [`encode`] wrote.
///
/// # Errors
/// [`RowError`].
pub fn decode<'a>(ty: &Type, bytes: &'a [u8], arena: &'a Bump) -> Result<Value<'a>, RowError> {
    let mut reader = Reader { bytes, at: 0 };
    reader.version()?;
    let value = reader.value(ty, arena)?;
    reader.end()?;
    Ok(value)
}

/// Reads what [`encode_timestamped`] wrote.
///
/// # Errors
/// [`RowError`].
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
            put_varint(zigzag(value), into)
        }
        (Type::Double, Value::Double(value)) => into.extend_from_slice(&value.to_be_bytes()),
        (Type::String, Value::String(text)) => put_bytes(text.as_bytes(), into),
        (Type::Bytes, Value::Bytes(bytes)) => put_bytes(bytes, into),
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

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn put_varint(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], RowError> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(RowError::Truncated(self.bytes.len()))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], RowError> {
        self.take(N)?
            .try_into()
            .map_err(|_| RowError::Truncated(self.bytes.len()))
    }

    fn byte(&mut self) -> Result<u8, RowError> {
        Ok(self.fixed::<1>()?[0])
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

    fn varint(&mut self) -> Result<u64, RowError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RowError::Malformed("number"))
    }

    fn int(&mut self) -> Result<i64, RowError> {
        let raw = self.varint()?;
        Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
    }

    fn slice(&mut self) -> Result<&'a [u8], RowError> {
        let length = usize::try_from(self.varint()?).map_err(|_| RowError::Malformed("length"))?;
        self.take(length)
    }

    fn flag(&mut self) -> Result<bool, RowError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(RowError::Malformed("flag")),
        }
    }

    fn value(&mut self, ty: &Type, arena: &'a Bump) -> Result<Value<'a>, RowError> {
        Ok(match ty {
            Type::Bool => Value::Bool(self.flag()?),
            Type::Int => Value::Int(self.int()?),
            Type::Timestamp => Value::Timestamp(self.int()?),
            Type::Double => Value::Double(f64::from_be_bytes(self.fixed()?)),
            Type::String => {
                Value::String(std::str::from_utf8(self.slice()?).map_err(|_| RowError::Malformed("string"))?)
            }
            Type::Bytes => Value::Bytes(self.slice()?),
            Type::Optional(inner) => {
                if self.flag()? {
                    self.value(inner, arena)?
                } else {
                    Value::Null
                }
            }
            Type::Struct(record) => {
                let mut slots = ArenaVec::with_capacity_in(record.fields.len(), arena);
                for field in &record.fields {
                    slots.push(self.value(&field.ty, arena)?);
                }
                Value::Struct(slots.into_bump_slice())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use topology::{Field, StructType};

    use super::*;

    fn record(fields: Vec<Type>) -> Type {
        let field = |(at, ty)| Field {
            name: format!("f{at}"),
            ty,
        };
        let fields = fields.into_iter().enumerate().map(field).collect();
        Type::Struct(Arc::new(StructType {
            name: "R".into(),
            fields,
        }))
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_documented_examples_hold() {
        let mut bytes = Vec::new();
        encode(
            &record(vec![Type::Int]),
            Value::Struct(&[Value::Int(12_345)]),
            &mut bytes,
        )
        .unwrap();
        assert_eq!(hex(&bytes), "01f2c001");
        bytes.clear();
        encode_timestamped(&Type::Int, 1_760_000_000_000, Value::Int(-1), &mut bytes).unwrap();
        assert_eq!(hex(&bytes), "0100000199c82cc00001");
        bytes.clear();
        let ty = record(vec![
            Type::Bool,
            Type::Optional(Box::new(Type::String)),
            Type::String,
        ]);
        encode(
            &ty,
            Value::Struct(&[Value::Bool(true), Value::Null, Value::String("é")]),
            &mut bytes,
        )
        .unwrap();
        assert_eq!(hex(&bytes), "01010002c3a9");
    }

    #[test]
    fn what_is_no_row_is_refused() {
        let arena = Bump::new();
        let read = |hex: &[u8]| decode(&Type::Int, hex, &arena).unwrap_err();
        assert_eq!(read(&[]), RowError::Truncated(0));
        assert_eq!(read(&[2, 0]), RowError::Version(2));
        assert_eq!(read(&[1]), RowError::Truncated(1));
        assert_eq!(read(&[1, 0, 0]), RowError::Trailing(1));
        assert_eq!(
            read(&[1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2]),
            RowError::Malformed("number")
        );
        assert_eq!(
            decode(&Type::String, &[1, 200, 1, 65], &arena),
            Err(RowError::Truncated(4))
        );
        assert_eq!(
            decode(&Type::String, &[1, 1, 0xff], &arena),
            Err(RowError::Malformed("string"))
        );
    }

    proptest! {
        #[test]
        fn rows_come_back(int in any::<i64>(), double in any::<f64>(), text in ".*", bytes in any::<Vec<u8>>(), note in proptest::option::of(".*"), ts in any::<i64>()) {
            let arena = Bump::new();
            let ty = record(vec![Type::Int, Type::Double, Type::String, Type::Bytes, Type::Optional(Box::new(Type::String)), Type::Timestamp]);
            let note = note.as_deref().map_or(Value::Null, Value::String);
            let slots = [Value::Int(int), Value::Double(double), Value::String(&text), Value::Bytes(&bytes), note, Value::Timestamp(ts)];
            let mut row = Vec::new();
            encode_timestamped(&ty, ts, Value::Struct(&slots), &mut row).unwrap();
            let (stamp, found) = decode_timestamped(&ty, &row, &arena).unwrap();
            prop_assert_eq!(stamp, ts);
            prop_assert_eq!(format!("{found:?}"), format!("{:?}", Value::Struct(&slots)));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in any::<Vec<u8>>()) {
            let arena = Bump::new();
            let ty = record(vec![Type::Int, Type::Optional(Box::new(Type::Bytes)), Type::String, Type::Double]);
            let _ = decode(&ty, &bytes, &arena);
            let _ = decode_timestamped(&ty, &bytes, &arena);
        }
    }
}
