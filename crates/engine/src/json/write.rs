//! Values to objects.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use topology::Value;

use super::WriteError;
use super::layout::{Item, Kind, Layout};
use super::scan::plain_length;

pub(super) fn write(layout: &Layout, value: Value<'_>, into: &mut Vec<u8>) -> Result<(), WriteError> {
    let Value::Struct(slots) = value else {
        return Err(WriteError::new("not a record"));
    };
    if slots.len() != layout.fields.len() {
        return Err(WriteError::new("a record with other fields"));
    }
    if slots.is_empty() {
        into.push(b'{');
    }
    for (field, slot) in layout.fields.iter().zip(slots) {
        into.extend_from_slice(&field.prefix);
        write_item(&field.item, *slot, into).map_err(|error| error.within(&field.name))?;
    }
    into.push(b'}');
    Ok(())
}

fn write_item(item: &Item, value: Value<'_>, into: &mut Vec<u8>) -> Result<(), WriteError> {
    match (&item.kind, value) {
        (Kind::String, Value::String(text)) => write_string(text, into),
        (Kind::Int, Value::Int(value)) | (Kind::Timestamp, Value::Timestamp(value)) => {
            into.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        }
        (Kind::Bool, Value::Bool(value)) => into.extend_from_slice(if value { b"true" } else { b"false" }),
        (Kind::Double, Value::Double(value)) => {
            if !value.is_finite() {
                return Err(WriteError::new(format!("JSON has no number {value}")));
            }
            // The shortest digits that read back as the same double, always with a point or an exponent.
            into.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
        }
        (Kind::Bytes, Value::Bytes(bytes)) => write_base64(bytes, into)?,
        (Kind::Object(layout), value @ Value::Struct(_)) => write(layout, value, into)?,
        (Kind::Array(inner), Value::List(items)) => {
            into.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    into.push(b',');
                }
                write_item(inner, *item, into).map_err(|error| error.within(&format!("[{at}]")))?;
            }
            into.push(b']');
        }
        (Kind::Map(inner), Value::Map(entries)) => write_map(inner, entries, into)?,
        (_, Value::Null) if item.optional => into.extend_from_slice(b"null"),
        (kind, _) => return Err(WriteError::new(format!("not {}", kind.name()))),
    }
    Ok(())
}

fn write_map(item: &Item, entries: &[(Value<'_>, Value<'_>)], into: &mut Vec<u8>) -> Result<(), WriteError> {
    into.push(b'{');
    for (at, (key, value)) in entries.iter().enumerate() {
        let Value::String(key) = key else {
            return Err(WriteError::new("a map whose keys are no strings"));
        };
        if at > 0 {
            into.push(b',');
        }
        write_string(key, into);
        into.push(b':');
        write_item(item, *value, into).map_err(|error| error.within(key))?;
    }
    into.push(b'}');
    Ok(())
}

fn write_base64(bytes: &[u8], into: &mut Vec<u8>) -> Result<(), WriteError> {
    let too_long = || WriteError::new("too long for base64");
    into.push(b'"');
    let start = into.len();
    let length = base64::encoded_len(bytes.len(), true).ok_or_else(too_long)?;
    into.resize(start + length, 0);
    BASE64_STANDARD
        .encode_slice(bytes, &mut into[start..])
        .map_err(|_| too_long())?;
    into.push(b'"');
    Ok(())
}

/// In quotes; only what must be escaped is.
pub(super) fn write_string(text: &str, into: &mut Vec<u8>) {
    into.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (plain, special) = rest.split_at(plain_length(rest));
        into.extend_from_slice(plain);
        let Some((byte, behind)) = special.split_first() else {
            break;
        };
        write_escape(*byte, into);
        rest = behind;
    }
    into.push(b'"');
}

#[cold]
fn write_escape(byte: u8, into: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let letter = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        control => {
            into.extend_from_slice(b"\\u00");
            into.extend_from_slice(&[HEX[usize::from(control >> 4)], HEX[usize::from(control & 15)]]);
            return;
        }
    };
    into.extend_from_slice(&[b'\\', letter]);
}
