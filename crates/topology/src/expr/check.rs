//! From a syntax tree to typed nodes: names, fields, conditionals and null. Operators are in [`super::operators`],
//! functions in [`super::calls`].

use std::collections::BTreeSet;
use std::ops::Range;

use super::node::{
    BoolExpr, BytesExpr, DoubleExpr, IntExpr, Node, OptionalExpr, Place, Root, StringExpr, StructExpr,
};
use super::parse::{Ast, AstKind, Binary, Name};
use super::{Env, ExprError, Reads, ValueReads};
use crate::suggest::did_you_mean;
use crate::{StructType, Type};

/// Types an expression and compiles it.
pub(crate) fn check(source: &str, ast: &Ast, env: &Env) -> Result<(Node, Reads), ExprError> {
    let mut checker = Checker {
        source,
        env,
        present: Vec::new(),
        reads: Reads::default(),
    };
    let node = checker.check(ast)?;
    if matches!(node, Node::Null) {
        return Err(error("`null` alone has no type", &ast.span));
    }
    Ok((node, checker.reads))
}

pub(crate) struct Checker<'e> {
    pub(crate) source: &'e str,
    env: &'e Env,
    /// Places that a surrounding `has(…)` or `!= null` has shown to be there.
    present: Vec<Vec<String>>,
    reads: Reads,
}

/// A place with its type.
struct Typed {
    root: Root,
    slots: Vec<usize>,
    ty: Type,
}

pub(crate) fn error(message: impl Into<String>, span: &Range<usize>) -> ExprError {
    ExprError {
        message: message.into(),
        span: span.clone(),
        suggestion: None,
    }
}

impl ExprError {
    pub(crate) fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }
}

/// The node that reads a place of this type.
pub(crate) fn place_node(place: Place, ty: &Type) -> Node {
    match ty {
        Type::Bool => Node::Bool(BoolExpr::Place(place)),
        Type::Int => Node::Int(IntExpr::Place(place)),
        Type::Double => Node::Double(DoubleExpr::Place(place)),
        Type::String => Node::String(StringExpr::Place(place)),
        Type::Bytes => Node::Bytes(BytesExpr::Place(place)),
        Type::Timestamp => Node::Timestamp(IntExpr::TimestampPlace(place)),
        Type::Struct(ty) => Node::Struct(StructExpr::Place(ty.clone(), place)),
        Type::Optional(inner) => Node::Optional(OptionalExpr::Place((**inner).clone(), place)),
    }
}

impl Checker<'_> {
    pub(crate) fn text(&self, ast: &Ast) -> &str {
        self.source.get(ast.span.clone()).unwrap_or("…")
    }

    /// Any node, also one that may be null.
    pub(crate) fn check(&mut self, ast: &Ast) -> Result<Node, ExprError> {
        match &ast.kind {
            AstKind::Null => Ok(Node::Null),
            AstKind::Bool(value) => Ok(Node::Bool(BoolExpr::Const(*value))),
            AstKind::Int(value) => Ok(Node::Int(IntExpr::Const(*value))),
            AstKind::Double(value) => Ok(Node::Double(DoubleExpr::Const(*value))),
            AstKind::String(value) => Ok(Node::String(StringExpr::Const(value.as_str().into()))),
            AstKind::Bytes(value) => Ok(Node::Bytes(BytesExpr::Const(value.as_slice().into()))),
            AstKind::Ident(name) => self.ident(name, ast),
            AstKind::Select(..) => self.place(ast),
            AstKind::Has(operand, name) => self.has(operand, name),
            AstKind::Not(inner) => Ok(Node::Bool(BoolExpr::Not(Box::new(self.bool(inner, "`!`")?)))),
            AstKind::Negate(inner) => self.negate(inner, ast),
            AstKind::Binary(how, sides) => self.binary(*how, &sides.0, &sides.1, ast),
            AstKind::And(sides) => {
                let sides = self.logical(&sides.0, &sides.1, "`&&`", true)?;
                Ok(Node::Bool(BoolExpr::And(sides)))
            }
            AstKind::Or(sides) => {
                let sides = self.logical(&sides.0, &sides.1, "`||`", false)?;
                Ok(Node::Bool(BoolExpr::Or(sides)))
            }
            AstKind::Conditional(parts) => self.conditional(&parts.0, &parts.1, &parts.2, ast),
            AstKind::Call(name, target, args) => self.call(name, target.as_deref(), args, ast),
            AstKind::List(_) => Err(error("a list can only stand at the right of `in`", &ast.span)),
        }
    }

    /// A node that cannot be null.
    pub(crate) fn present(&mut self, ast: &Ast) -> Result<Node, ExprError> {
        match self.check(ast)? {
            Node::Null => Err(error("a value is needed here, not `null`", &ast.span)),
            Node::Optional(expr) => {
                let text = self.text(ast);
                let default = default_text(expr.inner());
                Err(error(
                    format!("`{text}` may be absent: it has type {}?", expr.inner()),
                    &ast.span,
                )
                .suggest(format!("write `(has({text}) ? {text} : {default})`")))
            }
            node @ (Node::Bool(_)
            | Node::Int(_)
            | Node::Double(_)
            | Node::String(_)
            | Node::Bytes(_)
            | Node::Timestamp(_)
            | Node::Struct(_)) => Ok(node),
        }
    }

    pub(crate) fn bool(&mut self, ast: &Ast, what: &str) -> Result<BoolExpr, ExprError> {
        let node = self.present(ast)?;
        if let Node::Bool(expr) = node {
            Ok(expr)
        } else {
            Err(needs(what, "bool", &node.ty(), ast))
        }
    }

    fn ident(&mut self, name: &str, ast: &Ast) -> Result<Node, ExprError> {
        let node = match name {
            "ts" => Node::Timestamp(IntExpr::RecordTimestamp),
            "topic" => Node::String(StringExpr::Topic),
            "partition" => Node::Int(IntExpr::Partition),
            "offset" => Node::Int(IntExpr::Offset),
            _ => return self.place(ast),
        };
        self.reads.coordinates = true;
        Ok(node)
    }

    /// Reads a root or a field; a test for it makes `T` of `T?`.
    fn place(&mut self, ast: &Ast) -> Result<Node, ExprError> {
        let typed = self.resolve(ast)?;
        self.read(ast, typed.root);
        Ok(place_node(Place::new(typed.root, &typed.slots), &typed.ty))
    }

    fn resolve(&self, ast: &Ast) -> Result<Typed, ExprError> {
        let mut typed = match &ast.kind {
            AstKind::Ident(name) => self.root(name, ast)?,
            AstKind::Select(operand, name) => {
                let outer = self.resolve(operand)?;
                self.field(outer, operand, name)?
            }
            AstKind::Null
            | AstKind::Bool(_)
            | AstKind::Int(_)
            | AstKind::Double(_)
            | AstKind::String(_)
            | AstKind::Bytes(_)
            | AstKind::Has(..)
            | AstKind::Not(_)
            | AstKind::Negate(_)
            | AstKind::Binary(..)
            | AstKind::And(_)
            | AstKind::Or(_)
            | AstKind::Conditional(_)
            | AstKind::Call(..)
            | AstKind::List(_) => {
                return Err(error(
                    "only `value`, `key`, `aggregate` and their fields have fields",
                    &ast.span,
                ));
            }
        };
        if let Type::Optional(inner) = &typed.ty
            && path(ast).is_some_and(|path| self.present.contains(&path))
        {
            typed.ty = (**inner).clone();
        }
        Ok(typed)
    }

    fn root(&self, name: &str, ast: &Ast) -> Result<Typed, ExprError> {
        let (root, ty) = match (name, &self.env.aggregate) {
            ("key", _) => (Root::Key, &self.env.key),
            ("value", _) => (Root::Value, &self.env.value),
            ("aggregate", Some(ty)) => (Root::Aggregate, ty),
            ("aggregate", None) => {
                return Err(error("`aggregate` exists only in `aggregate.add`", &ast.span));
            }
            ("ts" | "topic" | "partition" | "offset", _) => {
                return Err(error(format!("`{name}` has no fields"), &ast.span));
            }
            _ => return Err(self.unknown_name(name, ast)),
        };
        Ok(Typed {
            root,
            slots: Vec::new(),
            ty: ty.clone(),
        })
    }

    fn unknown_name(&self, name: &str, ast: &Ast) -> ExprError {
        let failure = error(format!("unknown name `{name}`"), &ast.span);
        if let Type::Struct(ty) = &self.env.value
            && ty.field(name).is_some()
        {
            return failure.suggest(format!("did you mean `value.{name}`?"));
        }
        let mut names = vec!["key", "value", "ts", "topic", "partition", "offset"];
        if self.env.aggregate.is_some() {
            names.push("aggregate");
        }
        ExprError {
            suggestion: did_you_mean(name, "names", &names),
            ..failure
        }
    }

    fn field(&self, mut outer: Typed, operand: &Ast, name: &Name) -> Result<Typed, ExprError> {
        let text = self.text(operand);
        match &outer.ty {
            Type::Struct(ty) => {
                let (slot, field) = ty.field(&name.text).ok_or_else(|| unknown_field(ty, name))?;
                outer.slots.push(slot);
                outer.ty = field.ty.clone();
                Ok(outer)
            }
            Type::Optional(inner) => Err(error(
                format!("`{text}` may be absent: it has type {inner}?"),
                &operand.span,
            )
            .suggest(format!("test `has({text})` first"))),
            ty @ (Type::Bool | Type::Int | Type::Double | Type::String | Type::Bytes | Type::Timestamp) => {
                Err(error(
                    format!("`{text}` has type {ty}, which has no fields"),
                    &name.span,
                ))
            }
        }
    }

    fn read(&mut self, ast: &Ast, root: Root) {
        match root {
            Root::Key => self.reads.key = true,
            Root::Aggregate => self.reads.aggregate = true,
            Root::Value => {
                let field = path(ast).and_then(|path| path.into_iter().nth(1));
                self.reads.value.add(&field.map_or(ValueReads::Whole, |name| {
                    ValueReads::Fields(BTreeSet::from([name]))
                }));
            }
        }
    }

    /// `has(operand.name)`: whether an optional field is there; always true for others.
    fn has(&mut self, operand: &Ast, name: &Name) -> Result<Node, ExprError> {
        let outer = self.resolve(operand)?;
        let mut inner = path(operand).unwrap_or_default();
        inner.push(name.text.clone());
        let typed = self.field(outer, operand, name)?;
        if !matches!(typed.ty, Type::Optional(_)) {
            return Ok(Node::Bool(BoolExpr::Const(true)));
        }
        match typed.root {
            Root::Key => self.reads.key = true,
            Root::Aggregate => self.reads.aggregate = true,
            Root::Value => {
                let first = inner.into_iter().nth(1).unwrap_or_default();
                self.reads.value.add(&ValueReads::Fields(BTreeSet::from([first])));
            }
        }
        Ok(Node::Bool(BoolExpr::Has(Place::new(typed.root, &typed.slots))))
    }

    fn logical(
        &mut self,
        left: &Ast,
        right: &Ast,
        what: &str,
        polarity: bool,
    ) -> Result<Box<(BoolExpr, BoolExpr)>, ExprError> {
        let first = self.bool(left, what)?;
        let second = self.assuming(left, polarity, |checker| checker.bool(right, what))?;
        Ok(Box::new((first, second)))
    }

    /// Checks a part that is evaluated only where `condition` was `polarity`.
    fn assuming<T>(&mut self, condition: &Ast, polarity: bool, part: impl FnOnce(&mut Self) -> T) -> T {
        let known = self.present.len();
        facts(condition, polarity, &mut self.present);
        let result = part(self);
        self.present.truncate(known);
        result
    }

    fn conditional(
        &mut self,
        condition: &Ast,
        then: &Ast,
        otherwise: &Ast,
        ast: &Ast,
    ) -> Result<Node, ExprError> {
        let test = self.bool(condition, "the condition before `?`")?;
        let left = self.assuming(condition, true, |checker| checker.check(then))?;
        let right = self.assuming(condition, false, |checker| checker.check(otherwise))?;
        Ok(match (left, right) {
            (Node::Bool(a), Node::Bool(b)) => Node::Bool(BoolExpr::Conditional(Box::new((test, a, b)))),
            (Node::Int(a), Node::Int(b)) => Node::Int(IntExpr::Conditional(Box::new((test, a, b)))),
            (Node::Double(a), Node::Double(b)) => {
                Node::Double(DoubleExpr::Conditional(Box::new((test, a, b))))
            }
            (Node::String(a), Node::String(b)) => {
                Node::String(StringExpr::Conditional(Box::new((test, a, b))))
            }
            (Node::Bytes(a), Node::Bytes(b)) => Node::Bytes(BytesExpr::Conditional(Box::new((test, a, b)))),
            (Node::Timestamp(a), Node::Timestamp(b)) => {
                Node::Timestamp(IntExpr::Conditional(Box::new((test, a, b))))
            }
            (left, right) => {
                let (a, b) = (left.ty(), right.ty());
                match (left, right) {
                    (Node::Struct(x), Node::Struct(y)) if a == b => {
                        let ty = x.ty().clone();
                        Node::Struct(StructExpr::Conditional(ty, Box::new((test, x, y))))
                    }
                    (x, y) => match nullable(&x, &y) {
                        Some(ty) => Node::Optional(OptionalExpr::Conditional(ty, Box::new((test, x, y)))),
                        None => return Err(differ(&a, &b, ast)),
                    },
                }
            }
        })
    }
}

/// `T` when both are `T`, `T?` or null, and at least one is not `T` and one is not null.
fn nullable(left: &Node, right: &Node) -> Option<Type> {
    let base = |node: &Node| match node {
        Node::Null => None,
        Node::Optional(expr) => Some(expr.inner().clone()),
        other @ (Node::Bool(_)
        | Node::Int(_)
        | Node::Double(_)
        | Node::String(_)
        | Node::Bytes(_)
        | Node::Timestamp(_)
        | Node::Struct(_)) => Some(other.ty()),
    };
    let may_be_null = |node: &Node| matches!(node, Node::Null | Node::Optional(_));
    if !may_be_null(left) && !may_be_null(right) {
        return None;
    }
    match (base(left), base(right)) {
        (Some(a), Some(b)) => (a == b).then_some(a),
        (Some(ty), None) | (None, Some(ty)) => Some(ty),
        (None, None) => None,
    }
}

fn differ(a: &Type, b: &Type, ast: &Ast) -> ExprError {
    let failure = error(
        format!("both branches of `? :` need one type, these have {a} and {b}"),
        &ast.span,
    );
    match (a, b) {
        (Type::Int, Type::Double) | (Type::Double, Type::Int) => {
            failure.suggest("convert the int with `double(…)`")
        }
        _ => failure,
    }
}

pub(crate) fn needs(what: &str, wanted: &str, found: &Type, ast: &Ast) -> ExprError {
    error(format!("{what} needs {wanted}, this has type {found}"), &ast.span)
}

pub(crate) fn unknown_field(ty: &StructType, name: &Name) -> ExprError {
    let fields: Vec<_> = ty.fields.iter().map(|field| field.name.as_str()).collect();
    ExprError {
        message: format!("{} has no field `{}`", ty.name, name.text),
        span: name.span.clone(),
        suggestion: did_you_mean(&name.text, "fields", &fields),
    }
}

fn default_text(ty: &Type) -> &'static str {
    match ty {
        Type::Bool => "false",
        Type::Int => "0",
        Type::Double => "0.0",
        Type::String => "''",
        Type::Bytes => "b''",
        Type::Timestamp => "ts",
        Type::Struct(_) | Type::Optional(_) => "…",
    }
}

/// `value.a.b` as names.
fn path(ast: &Ast) -> Option<Vec<String>> {
    if let AstKind::Ident(name) = &ast.kind {
        return Some(vec![name.clone()]);
    }
    let AstKind::Select(operand, name) = &ast.kind else {
        return None;
    };
    let mut names = path(operand)?;
    names.push(name.text.clone());
    Some(names)
}

/// Adds the places that must be there when `condition` is `polarity`.
fn facts(condition: &Ast, polarity: bool, out: &mut Vec<Vec<String>>) {
    match &condition.kind {
        AstKind::Has(operand, name) if polarity => {
            if let Some(mut names) = path(operand) {
                names.push(name.text.clone());
                out.push(names);
            }
        }
        AstKind::Not(inner) => facts(inner, !polarity, out),
        AstKind::And(sides) if polarity => {
            facts(&sides.0, true, out);
            facts(&sides.1, true, out);
        }
        AstKind::Or(sides) if !polarity => {
            facts(&sides.0, false, out);
            facts(&sides.1, false, out);
        }
        AstKind::Binary(how, sides) => {
            let shown = if polarity { Binary::NotEqual } else { Binary::Equal };
            let place = match (&sides.0.kind, &sides.1.kind) {
                (AstKind::Null, _) => path(&sides.1),
                (_, AstKind::Null) => path(&sides.0),
                _ => None,
            };
            if *how == shown {
                out.extend(place);
            }
        }
        AstKind::Null
        | AstKind::Bool(_)
        | AstKind::Int(_)
        | AstKind::Double(_)
        | AstKind::String(_)
        | AstKind::Bytes(_)
        | AstKind::Ident(_)
        | AstKind::Select(..)
        | AstKind::Has(..)
        | AstKind::Negate(_)
        | AstKind::And(_)
        | AstKind::Or(_)
        | AstKind::Conditional(_)
        | AstKind::Call(..)
        | AstKind::List(_) => {}
    }
}
