//! Types while an expression is checked: those of records, and those that only live inside of expressions.
//!
//! Inference is CEL's: type parameters are bound by the arguments of a call, `dyn` fits everywhere, and of two types
//! that fit the more general one is kept.
//! <https://github.com/google/cel-spec/blob/master/doc/langdef.md#gradual-type-checking>

use std::fmt;
use std::sync::Arc;

use crate::{StructType, Type};

/// A type of an expression's part.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ty {
    /// Known only when the expression is evaluated.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Box<Ty>),
    Map(Box<(Ty, Ty)>),
    Struct(Arc<StructType>),
    /// `T?`, which is also what `optional.of(…)` and `.?` give.
    Optional(Box<Ty>),
    /// The type of a type.
    Type(Box<Ty>),
    /// A type parameter, bound in [`Bindings`].
    Parameter(usize),
}

impl Ty {
    pub(crate) fn list(item: Self) -> Self {
        Self::List(Box::new(item))
    }

    pub(crate) fn map(key: Self, value: Self) -> Self {
        Self::Map(Box::new((key, value)))
    }

    /// `T?` of `T`; `T?` and what may be null anyway stay as they are.
    pub(crate) fn optional(self) -> Self {
        match self {
            already @ (Self::Optional(_) | Self::Null | Self::Dyn) => already,
            other @ (Self::Bool
            | Self::Int
            | Self::Uint
            | Self::Double
            | Self::String
            | Self::Bytes
            | Self::Timestamp
            | Self::Duration
            | Self::List(_)
            | Self::Map(_)
            | Self::Struct(_)
            | Self::Type(_)
            | Self::Parameter(_)) => Self::Optional(Box::new(other)),
        }
    }

    /// What a record can hold.
    ///
    /// # Errors
    /// What to do instead, for a type that no record can hold.
    pub(crate) fn of_record(&self) -> Result<Type, &'static str> {
        match self {
            Self::Bool => Ok(Type::Bool),
            Self::Int => Ok(Type::Int),
            Self::Double => Ok(Type::Double),
            Self::String => Ok(Type::String),
            Self::Bytes => Ok(Type::Bytes),
            Self::Timestamp => Ok(Type::Timestamp),
            Self::List(item) => item.of_record().map(|ty| Type::List(Box::new(ty))),
            Self::Map(entry) if entry.0 == Self::String => {
                entry.1.of_record().map(|ty| Type::Map(Box::new(ty)))
            }
            Self::Map(_) => Err("the keys of a record's map are strings"),
            Self::Struct(ty) => Ok(Type::Struct(Arc::clone(ty))),
            Self::Optional(inner) => inner.of_record().map(|ty| Type::Optional(Box::new(ty))),
            Self::Uint => Err("convert it with `int(…)`"),
            Self::Duration => Err("convert it with `int(…)`, to milliseconds, or with `string(…)`"),
            Self::Dyn | Self::Parameter(_) => Err(
                "nothing says its type: convert it, e.g. with `string(…)`; an empty list has one as `[0].filter(x, false)`",
            ),
            Self::Null | Self::Type(_) => Err("write a value"),
        }
    }
}

impl From<&Type> for Ty {
    fn from(ty: &Type) -> Self {
        match ty {
            Type::Bool => Self::Bool,
            Type::Int => Self::Int,
            Type::Double => Self::Double,
            Type::String => Self::String,
            Type::Bytes => Self::Bytes,
            Type::Timestamp => Self::Timestamp,
            Type::List(item) => Self::list(Self::from(&**item)),
            Type::Map(value) => Self::map(Self::String, Self::from(&**value)),
            Type::Struct(ty) => Self::Struct(Arc::clone(ty)),
            Type::Optional(inner) => Self::Optional(Box::new(Self::from(&**inner))),
        }
    }
}

/// As CEL writes them, but for the types of records.
impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn | Self::Parameter(_) => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestampMillis"),
            Self::Duration => f.write_str("duration"),
            Self::List(item) => write!(f, "list({item})"),
            Self::Map(entry) => write!(f, "map({}, {})", entry.0, entry.1),
            Self::Struct(ty) => f.write_str(&ty.name),
            Self::Optional(inner) => write!(f, "{inner}?"),
            Self::Type(inner) => write!(f, "type({inner})"),
        }
    }
}

/// What the type parameters of an expression stand for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bindings(Vec<Option<Ty>>);

impl Bindings {
    /// A parameter that stands for nothing yet.
    pub(crate) fn parameter(&mut self) -> Ty {
        self.0.push(None);
        Ty::Parameter(self.0.len() - 1)
    }

    /// `ty` with its parameters numbered from 0 replaced by new ones.
    pub(crate) fn instantiate(&mut self, ty: &Ty, parameters: &mut Vec<Ty>) -> Ty {
        map(ty, &mut |index| {
            while parameters.len() <= index {
                parameters.push(self.parameter());
            }
            parameters.get(index).cloned().unwrap_or(Ty::Dyn)
        })
    }

    /// What a parameter stands for; other types as they are.
    pub(crate) fn known(&self, ty: &Ty) -> Ty {
        let mut ty = ty;
        while let Ty::Parameter(index) = ty {
            match self.0.get(*index) {
                Some(Some(bound)) => ty = bound,
                Some(None) | None => break,
            }
        }
        ty.clone()
    }

    /// `ty` with all its parameters replaced, those that stand for nothing by `dyn`.
    pub(crate) fn resolve(&self, ty: &Ty) -> Ty {
        map(ty, &mut |index| match self.known(&Ty::Parameter(index)) {
            Ty::Parameter(_) => Ty::Dyn,
            known => self.resolve(&known),
        })
    }

    /// Whether a value of type `from` fits where `to` is wanted. Binds parameters of both if it does, and changes
    /// nothing if it does not.
    pub(crate) fn fits(&mut self, from: &Ty, to: &Ty) -> bool {
        let before = self.0.clone();
        let fits = self.unify(from, to);
        if !fits {
            self.0 = before;
        }
        fits
    }

    fn unify(&mut self, a: &Ty, b: &Ty) -> bool {
        if let (Ty::Parameter(x), Ty::Parameter(y)) = (&self.known(a), &self.known(b))
            && x == y
        {
            return true;
        }
        match (a, b) {
            (_, Ty::Parameter(index)) => match self.bound(*index) {
                Some(bound) => self.widen(*index, a, &bound),
                None => self.bind(*index, a),
            },
            (Ty::Parameter(index), _) => match self.bound(*index) {
                Some(bound) => self.widen(*index, b, &bound),
                None => self.bind(*index, b),
            },
            (Ty::Dyn, _) | (_, Ty::Dyn) => true,
            (Ty::List(x), Ty::List(y)) | (Ty::Optional(x), Ty::Optional(y)) => self.unify(x, y),
            (Ty::Map(x), Ty::Map(y)) => self.unify(&x.0, &y.0) && self.unify(&x.1, &y.1),
            (Ty::Type(_), Ty::Type(_)) => true,
            (Ty::Null, Ty::Optional(_)) | (Ty::Optional(_), Ty::Null) => true,
            (a, b) => a == b,
        }
    }

    fn bound(&self, index: usize) -> Option<Ty> {
        self.0.get(index).cloned().flatten()
    }

    /// A second argument for a parameter: the more general of both types is kept.
    fn widen(&mut self, index: usize, ty: &Ty, bound: &Ty) -> bool {
        if !self.unify(ty, bound) {
            return false;
        }
        if self.more_general(ty, bound) {
            self.bind(index, ty);
        }
        true
    }

    fn bind(&mut self, index: usize, ty: &Ty) -> bool {
        if self.mentions(ty, index) {
            return false;
        }
        if let Some(slot) = self.0.get_mut(index) {
            *slot = Some(ty.clone());
        }
        true
    }

    fn mentions(&self, ty: &Ty, index: usize) -> bool {
        let mut found = false;
        map(ty, &mut |other| {
            let bound = self.bound(other);
            found |= other == index || bound.is_some_and(|bound| self.mentions(&bound, index));
            Ty::Dyn
        });
        found
    }

    /// Whether `a` is `b` or says less.
    fn more_general(&self, a: &Ty, b: &Ty) -> bool {
        match (&self.known(a), &self.known(b)) {
            (Ty::Dyn | Ty::Parameter(_), _) => true,
            (_, Ty::Dyn | Ty::Parameter(_)) => false,
            (Ty::List(x), Ty::List(y)) | (Ty::Optional(x), Ty::Optional(y)) => self.more_general(x, y),
            (Ty::Map(x), Ty::Map(y)) => self.more_general(&x.0, &y.0) && self.more_general(&x.1, &y.1),
            (Ty::Optional(_), Ty::Null) => true,
            (a, b) => a == b,
        }
    }

    /// A type for values of both types: the more general one, `T?` of `T` and null. `None` when there is none.
    pub(crate) fn join(&mut self, a: &Ty, b: &Ty) -> Option<Ty> {
        match (self.known(a), self.known(b)) {
            (Ty::Null, Ty::Null) => Some(Ty::Null),
            (Ty::Null, other) | (other, Ty::Null) => Some(other.optional()),
            (Ty::Optional(x), Ty::Optional(y)) => self.join(&x, &y).map(|ty| Ty::Optional(Box::new(ty))),
            (Ty::Optional(x), y) | (y, Ty::Optional(x)) => {
                self.join(&x, &y).map(|ty| Ty::Optional(Box::new(ty)))
            }
            (x, y) => {
                if !self.fits(&y, &x) {
                    return None;
                }
                Some(if self.more_general(&x, &y) { x } else { y })
            }
        }
    }
}

/// `ty` with each parameter replaced.
fn map(ty: &Ty, replace: &mut impl FnMut(usize) -> Ty) -> Ty {
    match ty {
        Ty::Parameter(index) => replace(*index),
        Ty::List(inner) => Ty::list(map(inner, replace)),
        Ty::Map(entry) => Ty::map(map(&entry.0, replace), map(&entry.1, replace)),
        Ty::Optional(inner) => Ty::Optional(Box::new(map(inner, replace))),
        Ty::Type(inner) => Ty::Type(Box::new(map(inner, replace))),
        Ty::Dyn
        | Ty::Null
        | Ty::Bool
        | Ty::Int
        | Ty::Uint
        | Ty::Double
        | Ty::String
        | Ty::Bytes
        | Ty::Timestamp
        | Ty::Duration
        | Ty::Struct(_) => ty.clone(),
    }
}
