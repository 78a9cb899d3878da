//! A record type, prepared for reading and writing JSON.

use std::cell::Cell;
use std::sync::Arc;

use topology::{StructType, Type};

use super::write::write_string;

/// The fields of a record type, by slot.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) fields: Box<[Field]>,
    /// What is compared first to find a field: apart, so that one cache line holds several.
    keys: Box<[Key]>,
    /// Which slot followed in the record read last, by slot + 1; the first item is for the start. Records of
    /// a topic repeat their order. A guess only: results never depend on it.
    followers: Box<[Cell<usize>]>,
}

/// One field.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: Box<str>,
    /// `{"name":` or `,"name":`
    pub(super) prefix: Box<[u8]>,
    pub(super) item: Item,
}

/// What a field, or an item of an array, is.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) kind: Kind,
    pub(super) optional: bool,
}

/// A type, optional or not.
#[derive(Debug)]
pub(super) enum Kind {
    Bool,
    Int,
    Double,
    String,
    Bytes,
    Timestamp,
    Object(Layout),
    Array(Box<Item>),
    /// An object whose names are the keys of a map.
    Map(Box<Item>),
}

/// Length and first eight bytes of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    length: usize,
    head: u64,
}

impl Key {
    #[inline]
    fn new(name: &[u8]) -> Self {
        let head = if let Some(chunk) = name.first_chunk::<8>() {
            u64::from_le_bytes(*chunk)
        } else {
            name.iter()
                .rev()
                .fold(0, |head, byte| head << 8 | u64::from(*byte))
        };
        Self {
            length: name.len(),
            head,
        }
    }
}

impl Item {
    fn new(ty: &Type) -> Self {
        let kind = match ty {
            Type::Bool => Kind::Bool,
            Type::Int => Kind::Int,
            Type::Double => Kind::Double,
            Type::String => Kind::String,
            Type::Bytes => Kind::Bytes,
            Type::Timestamp => Kind::Timestamp,
            Type::Struct(ty) => Kind::Object(Layout::new(ty)),
            Type::List(item) => Kind::Array(Box::new(Self::new(item))),
            Type::Map(value) => Kind::Map(Box::new(Self::new(value))),
            Type::Optional(inner) => {
                return Self {
                    optional: true,
                    ..Self::new(inner)
                };
            }
        };
        Self {
            kind,
            optional: false,
        }
    }
}

impl Kind {
    /// For messages, as in declarations.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Bool => "a bool",
            Self::Int => "an int",
            Self::Double => "a double",
            Self::String => "a string",
            Self::Bytes => "bytes as a base64 string",
            Self::Timestamp => "an int of milliseconds",
            Self::Object(_) | Self::Map(_) => "an object",
            Self::Array(_) => "an array",
        }
    }
}

impl Layout {
    pub(super) fn new(ty: &Arc<StructType>) -> Self {
        let fields: Box<[_]> = ty
            .fields
            .iter()
            .enumerate()
            .map(|(slot, field)| Field::new(slot, field))
            .collect();
        Self {
            keys: fields
                .iter()
                .map(|field| Key::new(field.name.as_bytes()))
                .collect(),
            followers: (0..=fields.len()).map(Cell::new).collect(),
            fields,
        }
    }

    /// The slot of a field; `before`: the one found last in this record.
    #[inline]
    pub(super) fn slot(&self, name: &str, before: Option<usize>) -> Option<usize> {
        let key = Key::new(name.as_bytes());
        let is_at = |slot: usize| {
            self.keys.get(slot) == Some(&key)
                && (key.length <= 8 || self.fields.get(slot).is_some_and(|field| *field.name == *name))
        };
        let follower = self.followers.get(before.map_or(0, |slot| slot + 1))?;
        if is_at(follower.get()) {
            return Some(follower.get());
        }
        let found = (0..self.keys.len()).find(|slot| is_at(*slot))?;
        follower.set(found);
        Some(found)
    }
}

impl Field {
    fn new(slot: usize, field: &topology::Field) -> Self {
        let mut prefix = vec![if slot == 0 { b'{' } else { b',' }];
        write_string(&field.name, &mut prefix);
        prefix.push(b':');
        Self {
            name: field.name.as_str().into(),
            prefix: prefix.into(),
            item: Item::new(&field.ty),
        }
    }
}
