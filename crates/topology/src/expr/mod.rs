//! Compiled expressions.
//!
//! The grammar is CEL's, read by the `cel` crate ([`parse`] is the only module that names it). [`check`] types an
//! expression against an [`Env`] and turns it into [`node`]s, whose evaluation ([`eval`]) looks up nothing by name and
//! allocates only in the arena of the [`Scope`], and only for what the expression makes. Differences from CEL, all of
//! which `docs/reference/expressions.md` tells: timestamps are milliseconds, also as `int`; doubles print without an
//! exponent; fields that may be absent must be tested before they are used, and `T?` is also CEL's optional value; maps
//! are in the order of their keys; patterns are constants.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "types, values and syntax have many kinds, of which each place takes few; all others are one and the same error there"
)]

mod calls;
mod check;
#[cfg(test)]
mod conformance;
mod eval;
mod library;
mod macros;
mod node;
mod operators;
mod parse;
#[cfg(test)]
mod tests;
mod text;
mod time;
mod ty;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use check::{Typed, Variable};
use node::{Need, Node, Place, Root, Slots};
use ty::Ty;

use crate::plan::Windows;
use crate::{Scope, StructType, Type, Value};

/// A typed, compiled expression.
#[derive(Clone, Debug)]
pub struct Expr {
    ty: Type,
    node: Node,
    reads: Reads,
}

/// What an expression may name, with types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Env {
    /// Type of `key`.
    pub key: Type,
    /// Type of `value`.
    pub value: Type,
    /// Type of `aggregate`, where there is one.
    pub aggregate: Option<Type>,
    /// In a join: type of `right`, which is evaluated in the place of an aggregate, and `value` is called `left`.
    pub right: Option<Type>,
    /// Whether it is about one record, which has a `topic`, a `partition`, an `offset` and `headers`: the result of a window that was closed
    /// comes from many.
    pub is_of_one_record: bool,
    /// Of a windowed key, what its windows are.
    pub windows: Option<Windows>,
    /// Whether the key is as a topic has it, in 32 bits; it is kept and sent on as `Long`.
    pub is_integer_key: bool,
    /// Names of [`Expr::bind`] with their types, the innermost last.
    pub lets: Vec<(String, Type)>,
}

impl Env {
    /// Of a record with these types.
    #[must_use]
    pub fn of_record(key: Type, value: Type) -> Self {
        Self {
            key,
            value,
            aggregate: None,
            right: None,
            is_of_one_record: true,
            windows: None,
            is_integer_key: false,
            lets: Vec::new(),
        }
    }

    fn variables(&self) -> Vec<Variable> {
        let lets = self.lets.iter();
        lets.map(|(name, ty)| Variable {
            name: name.clone(),
            ty: Ty::from(ty),
        })
        .collect()
    }

    /// Behind a step that chooses another key: whatever windows the one before had.
    pub(crate) fn choose_key(&mut self, key: Type) {
        self.key = key;
        self.windows = None;
        self.is_integer_key = false;
    }
}

/// What an expression reads of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// `key`
    pub key: bool,
    /// `value`
    pub value: ValueReads,
    /// `aggregate`
    pub aggregate: bool,
    /// `ts`, `topic`, `partition`, `offset` or `headers`.
    pub coordinates: bool,
    /// `headers`
    pub headers: bool,
}

/// What is read of a record's value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ValueReads {
    /// Nothing.
    #[default]
    Nothing,
    /// These fields of a struct.
    Fields(BTreeSet<String>),
    /// The value as it is.
    Whole,
}

impl ValueReads {
    /// Adds what `other` reads.
    pub fn add(&mut self, other: &Self) {
        match (&mut *self, other) {
            (_, Self::Nothing) | (Self::Whole, _) => {}
            (_, Self::Whole) => *self = Self::Whole,
            (Self::Nothing, Self::Fields(_)) => *self = other.clone(),
            (Self::Fields(mine), Self::Fields(theirs)) => mine.extend(theirs.iter().cloned()),
        }
    }
}

impl Reads {
    /// Whether the expression is the same for every record.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    fn add(&mut self, other: &Self) {
        self.key |= other.key;
        self.aggregate |= other.aggregate;
        self.coordinates |= other.coordinates;
        self.headers |= other.headers;
        self.value.add(&other.value);
    }
}

/// Why an expression has no value for this record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// An `int` operation left 64 bits.
    #[error("integer overflow in `{0}`")]
    Overflow(&'static str),
    /// The right side of `/` or `%` was zero.
    #[error("division by zero in `{0}`")]
    DivisionByZero(&'static str),
    /// A value is needed and there is none: the record has a null key or value.
    #[error("`{0}` is null")]
    Null(&'static str),
    /// A conversion has no result for its argument.
    #[error("`{0}` cannot convert this value")]
    Conversion(&'static str),
    /// A value whose type is known only per record has one that does not work there.
    #[error("`{0}` does not work on a value of this type")]
    NoOverload(&'static str),
    /// A list has no such item, a string no such character.
    #[error("there is nothing at index {0}")]
    Index(Box<str>),
    /// A map has no such key.
    #[error("no such key: {0}")]
    NoSuchKey(Box<str>),
    /// A map would have one key twice.
    #[error("the key {0} is there twice")]
    RepeatedKey(Box<str>),
    /// Neither a name of the IANA time zone database nor an offset.
    #[error("unknown time zone '{0}'")]
    TimeZone(Box<str>),
    /// The evaluation would take too long or make too much.
    #[error("the expression takes more than {} steps for this record", eval::MAX_STEPS)]
    Steps,
    /// The scope does not have the types for which the expression was compiled: a defect of the caller.
    #[error("`{0}` does not have the type for which the expression was compiled")]
    Layout(&'static str),
}

/// Why an expression is not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExprError {
    /// What is wrong.
    pub message: String,
    /// Where, in bytes of the expression's source; within the source, at character borders.
    pub span: Range<usize>,
    /// What to write instead.
    pub suggestion: Option<String>,
}

impl ExprError {
    fn new(message: impl Into<String>, span: &Range<usize>) -> Self {
        Self {
            message: message.into(),
            span: span.clone(),
            suggestion: None,
        }
    }

    fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }
}

impl fmt::Display for ExprError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at {})", self.message, self.span.start)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; {suggestion}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ExprError {}

impl Expr {
    /// Whether expressions know this name by themselves, in one place or another.
    pub(crate) fn has_name(name: &str) -> bool {
        Root::ALL.iter().any(|root| root.name() == name) || check::COORDINATES.contains(&name)
    }

    /// Parses, types and compiles an expression.
    ///
    /// # Errors
    /// All that is wrong with it, in the order of the text.
    pub fn compile(source: &str, env: &Env) -> Result<Self, Vec<ExprError>> {
        let ast = parse::parse(source).map_err(|error| vec![error])?;
        let (Typed { node, ty }, mut errors) = check::check(source, &ast, env, env.variables());
        if !errors.is_empty() {
            errors.sort_by_key(|error| error.span.start);
            return Err(errors);
        }
        if ty == Ty::Null {
            return Err(vec![ExprError::new("`null` alone has no type", &ast.span)]);
        }
        let record_ty = ty.of_record().map_err(|instead| {
            let message = format!("no record can hold the result, of type {ty}");
            vec![ExprError::new(message, &ast.span).suggest(instead)]
        })?;
        let reads = check::reads(&node, env);
        Ok(Self {
            ty: record_ty,
            node,
            reads,
        })
    }

    /// `body`, which was compiled with the last of [`Env::lets`], where that is the value of this expression.
    #[must_use]
    pub fn bind(self, body: Self) -> Self {
        let mut reads = self.reads;
        reads.add(&body.reads);
        Self {
            ty: body.ty,
            node: Node::Bind(Box::new((self.node, body.node)), Need::Value),
            reads,
        }
    }

    /// A new struct called `name` from named expressions; its fields have the expressions' types, in this order.
    #[must_use]
    pub fn build_struct(name: &str, fields: Vec<(String, Self)>) -> Self {
        let mut reads = Reads::default();
        let mut types = Vec::with_capacity(fields.len());
        let mut nodes = Vec::with_capacity(fields.len());
        for (name, expr) in fields {
            reads.add(&expr.reads);
            types.push(crate::Field { name, ty: expr.ty });
            nodes.push(expr.node);
        }
        let ty = Arc::new(StructType {
            name: name.to_owned(),
            fields: types,
        });
        Self {
            ty: Type::Struct(ty),
            node: Node::Struct(nodes.into_boxed_slice()),
            reads,
        }
    }

    /// The value of type `from`, reduced to the fields of `to`. `None` when `to` has a field that `from` lacks.
    pub(crate) fn project(from: &StructType, to: &StructType) -> Option<Self> {
        let mut fields = Vec::with_capacity(to.fields.len());
        for field in &to.fields {
            let (slot, found) = from.field(&field.name)?;
            let value = ValueReads::Fields(BTreeSet::from([field.name.clone()]));
            let reads = Reads {
                value,
                ..Reads::default()
            };
            let node = Node::Place(Place {
                root: Root::Value,
                slots: Slots::One(slot),
                need: check::need(&Ty::from(&found.ty)),
            });
            fields.push((
                field.name.clone(),
                Self {
                    ty: found.ty.clone(),
                    node,
                    reads,
                },
            ));
        }
        Some(Self::build_struct(&to.name, fields))
    }

    /// Type of the result.
    #[must_use]
    pub fn ty(&self) -> &Type {
        &self.ty
    }

    /// What the expression reads.
    #[must_use]
    pub fn reads(&self) -> &Reads {
        &self.reads
    }

    /// The value for one record.
    ///
    /// # Errors
    /// [`EvalError`]: overflow, division by zero, null where a value is needed.
    pub fn eval<'a>(&'a self, scope: &Scope<'a>) -> Result<Value<'a>, EvalError> {
        eval::evaluate(scope, None, |context| self.node.eval(context))
    }

    /// As [`Expr::eval`], for an expression of type `bool`.
    ///
    /// # Errors
    /// As [`Expr::eval`]; [`EvalError::NoOverload`] when the expression has another type.
    pub fn eval_bool<'a>(&'a self, scope: &Scope<'a>) -> Result<bool, EvalError> {
        eval::evaluate(scope, None, |context| self.node.eval_bool(context))
    }

    /// As [`Expr::eval`], for an expression of type `int` or `timestampMillis` (then milliseconds).
    ///
    /// # Errors
    /// As [`Expr::eval`]; [`EvalError::Layout`] when the expression has another type.
    pub fn eval_int<'a>(&'a self, scope: &Scope<'a>) -> Result<i64, EvalError> {
        if let Value::Int(value) | Value::Timestamp(value) = self.eval(scope)? {
            Ok(value)
        } else {
            Err(EvalError::Layout("expression"))
        }
    }
}
