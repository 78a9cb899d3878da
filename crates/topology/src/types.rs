//! The types that expressions and records have.

use std::fmt;
use std::sync::Arc;

/// A type of a key, a value, a field or an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// `bool`
    Bool,
    /// `int`: signed, 64 bits; overflow is an error.
    Int,
    /// `double`: IEEE 754, 64 bits.
    Double,
    /// `string`: UTF-8.
    String,
    /// `bytes`
    Bytes,
    /// `timestampMillis`: milliseconds since the Unix epoch.
    Timestamp,
    /// `list(T)`
    List(Box<Type>),
    /// `map(string, T)`: `T`. A value of this type has its entries in the order of the keys.
    Map(Box<Type>),
    /// A record with named fields.
    Struct(Arc<StructType>),
    /// `T?`: the value may be absent or null.
    Optional(Box<Type>),
}

impl Type {
    /// A record of this name with these fields, in this order.
    #[must_use]
    pub fn record<'f>(name: &str, fields: impl IntoIterator<Item = (&'f str, Self)>) -> Self {
        let fields = fields.into_iter().map(|(name, ty)| Field {
            name: name.to_owned(),
            ty,
        });
        Self::Struct(Arc::new(StructType {
            name: name.to_owned(),
            fields: fields.collect(),
        }))
    }

    /// The type of a value of this type that may be absent, too.
    #[must_use]
    pub fn or_absent(self) -> Self {
        if let Self::Optional(_) = self {
            self
        } else {
            Self::Optional(Box::new(self))
        }
    }
}

/// The fields of a record, in declared order. A value of this type has one slot per field, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StructType {
    /// The declared name, or an invented one for a `fields:` literal (only used in messages).
    pub name: String,
    /// Fields by slot.
    pub fields: Vec<Field>,
}

/// One field of a [`StructType`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name as in the declaration and in JSON.
    pub name: String,
    /// Type of the field.
    pub ty: Type,
}

impl StructType {
    /// Slot and type of the field called `name`.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<(usize, &Field)> {
        self.fields
            .iter()
            .enumerate()
            .find(|(_, field)| field.name == name)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestampMillis"),
            Self::List(item) => write!(f, "list({item})"),
            Self::Map(value) => write!(f, "map(string, {value})"),
            Self::Struct(ty) => f.write_str(&ty.name),
            Self::Optional(inner) => write!(f, "{inner}?"),
        }
    }
}
