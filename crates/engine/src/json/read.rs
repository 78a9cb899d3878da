//! Objects to values: one pass, wanted fields by slot, all others skipped.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bumpalo::Bump;
use bumpalo::collections::{String as ArenaString, Vec as ArenaVec};
use topology::Value;

use super::layout::{Item, Kind, Layout};
use super::scan::{Raw, Scanner, unescape};
use super::{JsonError, MAX_DEPTH};

pub(super) fn read<'a>(layout: &Layout, bytes: &'a [u8], arena: &'a Bump) -> Result<Value<'a>, JsonError> {
    let mut reader = Reader {
        scanner: Scanner::new(bytes)?,
        arena,
    };
    reader.scanner.space();
    let value = reader.object(layout, 1)?;
    reader.scanner.end()?;
    Ok(value)
}

struct Reader<'a> {
    scanner: Scanner<'a>,
    arena: &'a Bump,
}

impl<'a> Reader<'a> {
    /// `depth`: of this object, from 1.
    fn object(&mut self, layout: &Layout, depth: u32) -> Result<Value<'a>, JsonError> {
        if depth > MAX_DEPTH {
            return Err(self.scanner.too_deep());
        }
        let start = self.scanner.at;
        self.scanner.open_object()?;
        // Null stands for absent: a field that is not optional never becomes null.
        let slots = self.arena.alloc_slice_fill_copy(layout.fields.len(), Value::Null);
        let mut before = None;
        let mut is_first = true;
        while let Some(name) = self.scanner.next_field(is_first)? {
            is_first = false;
            match self.slot(layout, name, before) {
                Some(slot) => {
                    let field = &layout.fields[slot];
                    slots[slot] = self
                        .value(&field.item, depth)
                        .map_err(|error| error.within(&field.name))?;
                    before = Some(slot);
                }
                None => self.scanner.skip(depth)?,
            }
        }
        for (field, slot) in layout.fields.iter().zip(&*slots) {
            if matches!(slot, Value::Null) && !field.item.optional {
                return Err(JsonError::new(start, "is missing").within(&field.name));
            }
        }
        Ok(Value::Struct(slots))
    }

    #[inline]
    fn slot(&self, layout: &Layout, name: Raw<'a>, before: Option<usize>) -> Option<usize> {
        let name = if name.escaped {
            self.unescaped(name)
        } else {
            name.text
        };
        layout.slot(name, before)
    }

    /// `depth`: of the object or array that it is in.
    #[inline]
    fn value(&mut self, item: &Item, depth: u32) -> Result<Value<'a>, JsonError> {
        match (&item.kind, self.scanner.peek()) {
            (Kind::String, b'"') => Ok(Value::String(self.string()?)),
            (Kind::Int, b'-' | b'0'..=b'9') => Ok(Value::Int(self.int(&item.kind)?)),
            (Kind::Timestamp, b'-' | b'0'..=b'9') => Ok(Value::Timestamp(self.int(&item.kind)?)),
            (Kind::Double, b'-' | b'0'..=b'9') => self.double(),
            (Kind::Bool, b't') => self.scanner.literal("true").map(|()| Value::Bool(true)),
            (Kind::Bool, b'f') => self.scanner.literal("false").map(|()| Value::Bool(false)),
            (Kind::Bytes, b'"') => self.bytes(),
            (Kind::Object(layout), b'{') => self.object(layout, depth + 1),
            (Kind::Array(inner), b'[') => self.array(inner, depth + 1),
            (Kind::Map(inner), b'{') => self.map(inner, depth + 1),
            (_, b'n') if item.optional => self.scanner.literal("null").map(|()| Value::Null),
            (kind, _) => Err(self.scanner.error(format!(
                "expected {}, found {}",
                kind.name(),
                self.scanner.found()
            ))),
        }
    }

    fn array(&mut self, item: &Item, depth: u32) -> Result<Value<'a>, JsonError> {
        if depth > MAX_DEPTH {
            return Err(self.scanner.too_deep());
        }
        self.scanner.open_array();
        let mut items = ArenaVec::new_in(self.arena);
        while self.scanner.next_item(items.is_empty())? {
            let value = self.value(item, depth);
            items.push(value.map_err(|error| error.within(&format!("[{}]", items.len())))?);
        }
        Ok(Value::List(items.into_bump_slice()))
    }

    /// Of equal names the last wins, as for fields.
    fn map(&mut self, item: &Item, depth: u32) -> Result<Value<'a>, JsonError> {
        if depth > MAX_DEPTH {
            return Err(self.scanner.too_deep());
        }
        self.scanner.open_object()?;
        let mut entries = ArenaVec::<(&'a str, Value<'a>)>::new_in(self.arena);
        while let Some(name) = self.scanner.next_field(entries.is_empty())? {
            let name = if name.escaped {
                self.unescaped(name)
            } else {
                name.text
            };
            let value = self.value(item, depth).map_err(|error| error.within(name))?;
            entries.push((name, value));
        }
        // Stable: the last of equal names stays behind the others.
        entries.sort_by_key(|entry| entry.0);
        let mut map = ArenaVec::with_capacity_in(entries.len(), self.arena);
        for (at, (name, value)) in entries.iter().enumerate() {
            if entries.get(at + 1).is_none_or(|next| next.0 != *name) {
                map.push((Value::String(name), *value));
            }
        }
        Ok(Value::Map(map.into_bump_slice()))
    }

    #[inline]
    fn string(&mut self) -> Result<&'a str, JsonError> {
        let raw = self.scanner.string()?;
        Ok(if raw.escaped {
            self.unescaped(raw)
        } else {
            raw.text
        })
    }

    #[cold]
    fn unescaped(&self, raw: Raw<'_>) -> &'a str {
        let mut text = ArenaString::with_capacity_in(raw.text.len(), self.arena);
        unescape(raw.text, |part| text.push_str(part));
        text.into_bump_str()
    }

    #[inline]
    fn int(&mut self, kind: &Kind) -> Result<i64, JsonError> {
        let start = self.scanner.at;
        let number = self.scanner.number()?;
        number.int.ok_or_else(|| {
            let reason = format!(
                "expected {} of at most 64 bits, found {}",
                kind.name(),
                short(number.text)
            );
            JsonError::new(start, reason)
        })
    }

    fn double(&mut self) -> Result<Value<'a>, JsonError> {
        let start = self.scanner.at;
        let text = self.scanner.number()?.text;
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Value::Double(value)),
            Ok(_) | Err(_) => Err(JsonError::new(
                start,
                format!("{} is out of the range of a double", short(text)),
            )),
        }
    }

    fn bytes(&mut self) -> Result<Value<'a>, JsonError> {
        let start = self.scanner.at;
        let text = self.string()?;
        let mut bytes = ArenaVec::new_in(self.arena);
        bytes.resize(base64::decoded_len_estimate(text.len()), 0);
        match BASE64_STANDARD.decode_slice(text, &mut bytes) {
            Ok(length) => {
                bytes.truncate(length);
                Ok(Value::Bytes(bytes.into_bump_slice()))
            }
            Err(error) => Err(JsonError::new(
                start,
                format!("no base64 (RFC 4648, padded): {error}"),
            )),
        }
    }
}

/// The start of a token, for a message.
#[cold]
fn short(token: &str) -> String {
    const MAX: usize = 40;
    match token.char_indices().nth(MAX) {
        Some((end, _)) => format!("`{}…`", token.get(..end).unwrap_or_default()),
        None => format!("`{token}`"),
    }
}
