//! Typed nodes: one enum per result type, so that evaluation needs no type tests and no names.

use std::sync::Arc;

use crate::{StructType, Type};

/// An expression of any type.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    /// The literal `null`; only compared, or a branch of a conditional.
    Null,
    Bool(BoolExpr),
    Int(IntExpr),
    Double(DoubleExpr),
    String(StringExpr),
    Bytes(BytesExpr),
    /// Milliseconds.
    Timestamp(IntExpr),
    Struct(StructExpr),
    Optional(OptionalExpr),
}

/// Condition and two branches.
pub(crate) type Conditional<T> = Box<(BoolExpr, T, T)>;

/// What a [`Place`] starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    Key,
    Value,
    Aggregate,
}

impl Root {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Value => "value",
            Self::Aggregate => "aggregate",
        }
    }
}

/// A root, or a field in there.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) root: Root,
    pub(crate) slots: Slots,
}

#[derive(Clone, Debug)]
pub(crate) enum Slots {
    None,
    One(usize),
    Several(Box<[usize]>),
}

impl Place {
    pub(crate) fn new(root: Root, slots: &[usize]) -> Self {
        let slots = match slots {
            [] => Slots::None,
            [slot] => Slots::One(*slot),
            several => Slots::Several(several.into()),
        };
        Self { root, slots }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

#[derive(Clone, Debug)]
pub(crate) enum BoolExpr {
    Const(bool),
    Place(Place),
    Conditional(Conditional<BoolExpr>),
    Not(Box<BoolExpr>),
    And(Box<(BoolExpr, BoolExpr)>),
    Or(Box<(BoolExpr, BoolExpr)>),
    CompareInt(Comparison, Box<(IntExpr, IntExpr)>),
    CompareDouble(Comparison, Box<(DoubleExpr, DoubleExpr)>),
    CompareString(Comparison, Box<(StringExpr, StringExpr)>),
    CompareBytes(Comparison, Box<(BytesExpr, BytesExpr)>),
    CompareBool(Comparison, Box<(BoolExpr, BoolExpr)>),
    /// `has(place)`
    Has(Place),
    IsNull(Box<OptionalExpr>),
    InInts(Box<IntExpr>, Box<[i64]>),
    InStrings(Box<StringExpr>, Box<[Box<str>]>),
    StartsWith(Box<(StringExpr, StringExpr)>),
    EndsWith(Box<(StringExpr, StringExpr)>),
    Contains(Box<(StringExpr, StringExpr)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

#[derive(Clone, Debug)]
pub(crate) enum IntExpr {
    Const(i64),
    Place(Place),
    /// A place that holds a timestamp.
    TimestampPlace(Place),
    Conditional(Conditional<IntExpr>),
    /// `ts`
    RecordTimestamp,
    /// `partition`
    Partition,
    /// `offset`
    Offset,
    Negate(Box<IntExpr>),
    Arithmetic(Arithmetic, Box<(IntExpr, IntExpr)>),
    FromDouble(Box<DoubleExpr>),
    FromString(Box<StringExpr>),
    /// Number of code points.
    StringSize(Box<StringExpr>),
    /// Number of bytes.
    BytesSize(Box<BytesExpr>),
}

#[derive(Clone, Debug)]
pub(crate) enum DoubleExpr {
    Const(f64),
    Place(Place),
    Conditional(Conditional<DoubleExpr>),
    Negate(Box<DoubleExpr>),
    Add(Box<(DoubleExpr, DoubleExpr)>),
    Subtract(Box<(DoubleExpr, DoubleExpr)>),
    Multiply(Box<(DoubleExpr, DoubleExpr)>),
    Divide(Box<(DoubleExpr, DoubleExpr)>),
    FromInt(Box<IntExpr>),
    FromString(Box<StringExpr>),
}

#[derive(Clone, Debug)]
pub(crate) enum StringExpr {
    Const(Box<str>),
    Place(Place),
    Conditional(Conditional<StringExpr>),
    /// `topic`
    Topic,
    Concat(Box<[StringExpr]>),
    FromInt(Box<IntExpr>),
    FromDouble(Box<DoubleExpr>),
    FromBool(Box<BoolExpr>),
    FromTimestamp(Box<IntExpr>),
}

#[derive(Clone, Debug)]
pub(crate) enum BytesExpr {
    Const(Box<[u8]>),
    Place(Place),
    Conditional(Conditional<BytesExpr>),
}

#[derive(Clone, Debug)]
pub(crate) enum StructExpr {
    Place(Arc<StructType>, Place),
    Conditional(Arc<StructType>, Conditional<StructExpr>),
    /// One node per field, in the type's order.
    Build(Arc<StructType>, Box<[Node]>),
}

impl StructExpr {
    pub(crate) fn ty(&self) -> &Arc<StructType> {
        match self {
            Self::Place(ty, _) | Self::Conditional(ty, _) | Self::Build(ty, _) => ty,
        }
    }
}

/// A value that may be null.
#[derive(Clone, Debug)]
pub(crate) enum OptionalExpr {
    /// A place of type `T?`; `T` is kept.
    Place(Type, Place),
    /// Branches of type `T`, `T?` or null; `T` is kept.
    Conditional(Type, Conditional<Node>),
}

impl OptionalExpr {
    /// `T` of `T?`.
    pub(crate) fn inner(&self) -> &Type {
        match self {
            Self::Place(ty, _) | Self::Conditional(ty, _) => ty,
        }
    }
}

impl Node {
    /// Type of the result. `null` alone is `Optional(Bool)`; the checker lets it stand nowhere.
    pub(crate) fn ty(&self) -> Type {
        match self {
            Self::Null => Type::Optional(Box::new(Type::Bool)),
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Double(_) => Type::Double,
            Self::String(_) => Type::String,
            Self::Bytes(_) => Type::Bytes,
            Self::Timestamp(_) => Type::Timestamp,
            Self::Struct(expr) => Type::Struct(Arc::clone(expr.ty())),
            Self::Optional(expr) => Type::Optional(Box::new(expr.inner().clone())),
        }
    }
}
