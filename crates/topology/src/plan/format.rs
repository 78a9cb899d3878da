//! How keys and values are written, and the types of rows that this program makes up.

use std::sync::Arc;

use crate::{StructType, Type};

/// How bytes become values and back. A null record key or value (tombstone) is [`crate::Value::Null`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// UTF-8 bytes.
    String,
    /// Bytes as they are.
    Bytes,
    /// Big-endian, 8 bytes, as Kafka's `LongSerializer`.
    Long,
    /// Big-endian, 4 bytes, as Kafka's `IntegerSerializer`.
    Integer,
    /// IEEE 754, big-endian, 8 bytes, as Kafka's `DoubleSerializer`.
    Double,
    /// One byte, 0 or 1, as Kafka's `BooleanSerializer`.
    Boolean,
    /// UTF-8 in the form 8-4-4-4-12, as Kafka's `UUIDSerializer`.
    Uuid,
    /// A JSON object. Reading: only these fields are parsed, all others are skipped (but must be well-formed).
    /// Writing: fields in this order, no spaces.
    Json(Arc<StructType>),
    /// StreamApp's own compact encoding of a typed value (see `docs/reference/formats.md`).
    Row(Type),
    /// A key in a window for topics: the key, and the window's start (big-endian, 8 bytes), as Kafka Streams'
    /// `TimeWindowedSerializer` writes it. Partitions are chosen by the key alone, as there.
    TimeWindowed {
        /// Of the key.
        key: Box<Format>,
        /// Of the windows, in milliseconds.
        size_ms: i64,
    },
    /// A key in a session window for topics: the key, the window's end and its start (8 bytes each), as Kafka Streams'
    /// `SessionWindowedSerializer` writes it.
    SessionWindowed {
        /// Of the key.
        key: Box<Format>,
    },
}

impl Format {
    /// The name of one of Kafka's own encodings.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        Some(match self {
            Self::String => "String",
            Self::Bytes => "Bytes",
            Self::Long => "Long",
            Self::Integer => "Integer",
            Self::Double => "Double",
            Self::Boolean => "Boolean",
            Self::Uuid => "UUID",
            Self::Json(_) | Self::Row(_) | Self::TimeWindowed { .. } | Self::SessionWindowed { .. } => {
                return None;
            }
        })
    }

    /// Type of the values.
    #[must_use]
    pub fn ty(&self) -> Type {
        match self {
            Self::String | Self::Uuid => Type::String,
            Self::Bytes => Type::Bytes,
            Self::Long | Self::Integer => Type::Int,
            Self::Double => Type::Double,
            Self::Boolean => Type::Bool,
            Self::Json(ty) => Type::Struct(Arc::clone(ty)),
            Self::Row(ty) => ty.clone(),
            Self::TimeWindowed { key, .. } | Self::SessionWindowed { key } => windowed_key(key.ty()),
        }
    }
}

/// A record of `key`, `windowStart` and `windowEnd`.
#[must_use]
pub fn windowed_key(key: Type) -> Type {
    let fields = [
        ("key", key),
        ("windowStart", Type::Timestamp),
        ("windowEnd", Type::Timestamp),
    ];
    Type::record("windowed key", fields)
}

/// What a store holds of a record that is joined with others: whether it was, and its value on its side.
#[must_use]
pub fn joined_row(left: &Type, right: &Type) -> Type {
    let side = |ty: &Type| Type::Optional(Box::new(ty.clone()));
    let fields = [
        ("joined", Type::Bool),
        ("left", side(left)),
        ("right", side(right)),
    ];
    Type::record("joined", fields)
}

/// What a table forwards when it is grouped anew: the value that was there `before`, and the one `after`.
#[must_use]
pub fn change(ty: &Type) -> Type {
    let side = || ty.clone().or_absent();
    Type::record("change", [("before", side()), ("after", side())])
}

/// What the row of a subscription is found by: the key that is named, and the one whose value names it.
#[must_use]
pub fn subscriber(foreign_key: &Type, key: &Type) -> Type {
    let fields = [("foreignKey", foreign_key.clone()), ("key", key.clone())];
    Type::record("subscriber", fields)
}

/// What says under a key whether that of another table names it, and in which partition that one lies.
#[must_use]
pub fn subscription(key: &Type) -> Type {
    let fields = [
        ("key", key.clone()),
        ("isThere", Type::Bool),
        ("partition", Type::Int),
    ];
    Type::record("subscription", fields)
}

/// What is said of a key that is named: which it is, and its value, if there is one; and to which partition.
#[must_use]
pub fn response(foreign_key: &Type, value: &Type) -> Type {
    let fields = [
        ("foreignKey", foreign_key.clone()),
        ("value", value.clone().or_absent()),
        ("partition", Type::Int),
    ];
    Type::record("response", fields)
}

/// The field of a [`response`] that says where it goes.
pub(crate) const RESPONSE_PARTITION: usize = 2;
