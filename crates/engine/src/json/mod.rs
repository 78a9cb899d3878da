//! JSON objects of topics (RFC 8259), read and written by a declared record type.
//!
//! Reading is one pass over the bytes: wanted fields become values by slot, every other value is skipped but
//! must be well-formed. Strings without escapes are borrowed from the record; those with escapes, byte fields
//! and the slots live in the arena. Of equal names the last wins, as in Jackson and serde_json; an optional
//! field may be absent or null; a number for an `int` has neither fraction nor exponent. Writing keeps the
//! type's order of fields and the order of a map's keys, has no spaces, escapes only what must be escaped, and writes `null` for optional
//! fields that are null.
//!
//! What a type is and which fields are read is the plan's matter, not this module's.

mod layout;
mod read;
mod scan;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;
use std::sync::Arc;

use bumpalo::Bump;
use layout::Layout;
use topology::{StructType, Value};

/// Levels of nesting that a document may have.
pub const MAX_DEPTH: u32 = 128;

/// Reads and writes objects of one record type. Holds what can be prepared once.
#[derive(Debug)]
pub struct JsonCodec {
    layout: Layout,
}

impl JsonCodec {
    /// For the fields of a type; all others are skipped in reading.
    #[must_use]
    pub fn new(ty: &Arc<StructType>) -> Self {
        Self {
            layout: Layout::new(ty),
        }
    }

    /// The object's fields as [`Value::Struct`], by slot.
    ///
    /// # Errors
    /// [`JsonError`]: malformed JSON, a missing field, a value of another type than its field.
    pub fn read<'a>(&self, bytes: &'a [u8], arena: &'a Bump) -> Result<Value<'a>, JsonError> {
        read::read(&self.layout, bytes, arena)
    }

    /// Appends the object. After an error `into` holds a part of it.
    ///
    /// # Errors
    /// [`WriteError`]: a double that is not finite; a value of another type (a defect of the caller).
    pub fn write(&self, value: Value<'_>, into: &mut Vec<u8>) -> Result<(), WriteError> {
        write::write(&self.layout, value, into)
    }
}

/// Why bytes are not the wanted record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError(Box<Detail>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Detail {
    at: usize,
    field: String,
    reason: String,
}

impl JsonError {
    #[cold]
    fn new(at: usize, reason: impl Into<String>) -> Self {
        Self(Box::new(Detail {
            at,
            field: String::new(),
            reason: reason.into(),
        }))
    }

    /// Of a field of an object.
    #[cold]
    fn within(mut self, name: &str) -> Self {
        self.0.field = within(name, &self.0.field);
        self
    }

    /// Where in the document, in bytes from 0.
    #[must_use]
    pub fn at(&self) -> usize {
        self.0.at
    }

    /// The wanted field that is meant, e.g. `customer.name`; empty when it is none.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.0.field
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Detail { at, field, reason } = &*self.0;
        write!(f, "JSON, byte {at}: ")?;
        if !field.is_empty() {
            write!(f, "field `{field}`: ")?;
        }
        f.write_str(reason)
    }
}

impl std::error::Error for JsonError {}

/// Why a value cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteError(Box<Unwritable>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Unwritable {
    field: String,
    reason: String,
}

impl WriteError {
    #[cold]
    fn new(reason: impl Into<String>) -> Self {
        Self(Box::new(Unwritable {
            field: String::new(),
            reason: reason.into(),
        }))
    }

    #[cold]
    fn within(mut self, name: &str) -> Self {
        self.0.field = within(name, &self.0.field);
        self
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unwritable { field, reason } = &*self.0;
        if field.is_empty() {
            f.write_str(reason)
        } else {
            write!(f, "field `{field}`: {reason}")
        }
    }
}

impl std::error::Error for WriteError {}

fn within(name: &str, inner: &str) -> String {
    if inner.is_empty() || inner.starts_with('[') {
        format!("{name}{inner}")
    } else {
        format!("{name}.{inner}")
    }
}
