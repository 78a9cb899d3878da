//! From a syntax tree to nodes with types: names, fields, conditionals, null. Calls are in [`super::calls`], macros in
//! [`super::macros`].

use std::collections::BTreeSet;

use super::node::{Comparison, Const, Coordinate, Need, Node, Place, Root, Slots};
use super::parse::{Ast, AstKind, Binary, Name};
use super::ty::{Bindings, Ty};
use super::{Env, ExprError, Reads, ValueReads};
use crate::suggest::did_you_mean;
use crate::{StructType, Type};

/// Names of a record's coordinates.
pub(super) const COORDINATES: [&str; 5] = ["ts", "topic", "partition", "offset", "headers"];

/// A part of an expression, checked.
pub(crate) struct Typed {
    pub(crate) node: Node,
    pub(crate) ty: Ty,
}

impl Typed {
    pub(crate) fn new(node: Node, ty: Ty) -> Self {
        Self { node, ty }
    }
}

/// A variable of a macro.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) ty: Ty,
}

/// Types an expression that may use `variables`, the innermost last. Also returns what is wrong with it: the checker goes
/// on behind an error, with `dyn` in its place, so that all of them are told at once.
pub(crate) fn check(source: &str, ast: &Ast, env: &Env, variables: Vec<Variable>) -> (Typed, Vec<ExprError>) {
    let mut checker = Checker {
        source,
        env,
        variables,
        bindings: Bindings::default(),
        present: Vec::new(),
        errors: Vec::new(),
    };
    let typed = checker.check(ast);
    let ty = checker.bindings.resolve(&typed.ty);
    (Typed::new(typed.node, ty), checker.errors)
}

/// What a checked expression reads of a record.
pub(crate) fn reads(node: &Node, env: &Env) -> Reads {
    let mut reads = Reads::default();
    node.leaves(&mut |leaf| match leaf {
        Node::Place(place) => match place.root {
            Root::Key => reads.key = true,
            Root::Aggregate | Root::Right => reads.aggregate = true,
            Root::Value | Root::Left => reads.value.add(&read_of_value(&place.slots, &env.value)),
        },
        Node::Coordinate(coordinate) => {
            reads.coordinates = true;
            reads.headers |= *coordinate == Coordinate::Headers;
        }
        _ => {}
    });
    reads
}

fn read_of_value(slots: &Slots, ty: &Type) -> ValueReads {
    let Type::Struct(ty) = ty else {
        return ValueReads::Whole;
    };
    match slots.first().and_then(|slot| ty.fields.get(slot)) {
        Some(field) => ValueReads::Fields(BTreeSet::from([field.name.clone()])),
        None => ValueReads::Whole,
    }
}

pub(crate) struct Checker<'e> {
    pub(crate) source: &'e str,
    env: &'e Env,
    pub(crate) variables: Vec<Variable>,
    pub(crate) bindings: Bindings,
    /// Places that a surrounding `has(…)` or `!= null` has shown to be there.
    present: Vec<Vec<String>>,
    errors: Vec<ExprError>,
}

fn constant(constant: Const, ty: Ty) -> Typed {
    Typed::new(Node::Const(constant), ty)
}

impl Checker<'_> {
    pub(crate) fn text(&self, ast: &Ast) -> &str {
        self.source.get(ast.span.clone()).unwrap_or("…")
    }

    /// Any part, also one that may be null. Of one with an error nothing is known.
    pub(crate) fn check(&mut self, ast: &Ast) -> Typed {
        self.try_check(ast).unwrap_or_else(|error| {
            self.errors.push(error);
            Typed::new(Node::Refused, Ty::Dyn)
        })
    }

    fn try_check(&mut self, ast: &Ast) -> Result<Typed, ExprError> {
        match &ast.kind {
            AstKind::Null => Ok(constant(Const::Null, Ty::Null)),
            AstKind::Bool(value) => Ok(constant(Const::Bool(*value), Ty::Bool)),
            AstKind::Int(value) => Ok(constant(Const::Int(*value), Ty::Int)),
            AstKind::Uint(value) => Ok(constant(Const::Uint(*value), Ty::Uint)),
            AstKind::Double(value) => Ok(constant(Const::Double(*value), Ty::Double)),
            AstKind::String(value) => Ok(constant(Const::String(value.as_str().into()), Ty::String)),
            AstKind::Bytes(value) => Ok(constant(Const::Bytes(value.as_slice().into()), Ty::Bytes)),
            AstKind::Ident(name) => self.ident(name, ast),
            AstKind::Select(operand, name) => self.select(operand, name, ast),
            AstKind::OptionalSelect(operand, name) => {
                let outer = self.check(operand);
                self.optional_field(outer, operand, name)
            }
            AstKind::Index(sides) => self.index(&sides.0, &sides.1, ast, Need::Value),
            AstKind::OptionalIndex(sides) => self.index(&sides.0, &sides.1, ast, Need::Maybe),
            AstKind::Not(inner) => {
                let inner = self.bool(inner, "`!`");
                Ok(Typed::new(Node::Not(Box::new(inner)), Ty::Bool))
            }
            AstKind::Negate(inner) => self.negate(inner, ast),
            AstKind::Binary(how, sides) => self.binary(*how, &sides.0, &sides.1, ast),
            AstKind::And(sides) => {
                let sides = self.logical(&sides.0, &sides.1, "`&&`", true);
                Ok(Typed::new(Node::And(sides), Ty::Bool))
            }
            AstKind::Or(sides) => {
                let sides = self.logical(&sides.0, &sides.1, "`||`", false);
                Ok(Typed::new(Node::Or(sides), Ty::Bool))
            }
            AstKind::Conditional(parts) => Ok(self.conditional(&parts.0, &parts.1, &parts.2, ast)),
            AstKind::Call(name, target, args) => self.call(name, target.as_deref(), args, ast),
            AstKind::List(items) => self.list(items),
            AstKind::Map(entries) => self.map(entries),
        }
    }

    /// A part that cannot be null.
    pub(crate) fn present(&mut self, ast: &Ast) -> Typed {
        let typed = self.check(ast);
        self.not_absent(typed, ast)
    }

    pub(crate) fn not_absent(&mut self, typed: Typed, ast: &Ast) -> Typed {
        let (error, ty) = match self.bindings.known(&typed.ty) {
            Ty::Null => (
                ExprError::new("a value is needed here, not `null`", &ast.span),
                Ty::Dyn,
            ),
            Ty::Optional(inner) => (self.may_be_absent(ast, &inner), *inner),
            _ => return typed,
        };
        self.errors.push(error);
        Typed::new(typed.node, ty)
    }

    /// Both sides of a comparison that an absent one would leave without a result.
    pub(crate) fn compared(
        &mut self,
        how: Comparison,
        sides: [(Typed, &Ast); 2],
        comparison: &Ast,
    ) -> [Typed; 2] {
        let absent = sides
            .iter()
            .filter(|(typed, _)| matches!(self.bindings.known(&typed.ty), Ty::Optional(_)));
        // The others may have parts that are absent.
        let tests = absent.map(|(_, side)| path(side).map(|_| test(side, self.text(side))));
        let tests: Option<Vec<_>> = tests.collect();
        let whole = self.text(comparison);
        // What is absent is not equal to anything.
        let instead = tests.map(|tests| match how {
            Comparison::NotEqual => format!("write `!{} || {whole}`", tests.join(" || !")),
            Comparison::Equal
            | Comparison::Less
            | Comparison::LessEqual
            | Comparison::Greater
            | Comparison::GreaterEqual => format!("write `{} && {whole}`", tests.join(" && ")),
        });
        sides.map(|(typed, side)| match (self.bindings.known(&typed.ty), &instead) {
            (Ty::Optional(inner), Some(instead)) => {
                let error = self.absent(side, &inner).suggest(instead.clone());
                self.errors.push(error);
                Typed::new(typed.node, *inner)
            }
            _ => self.not_absent(typed, side),
        })
    }

    fn absent(&self, ast: &Ast, inner: &Ty) -> ExprError {
        let text = self.text(ast);
        ExprError::new(format!("`{text}` may be absent: it has type {inner}?"), &ast.span)
    }

    fn may_be_absent(&self, ast: &Ast, inner: &Ty) -> ExprError {
        let (text, default) = (self.text(ast), default_text(inner));
        let failure = self.absent(ast, inner);
        match path(ast) {
            Some(_) => failure.suggest(format!("write `({} ? {text} : {default})`", test(ast, text))),
            None => failure.suggest(format!("write `{text}.orValue({default})`")),
        }
    }

    pub(crate) fn bool(&mut self, ast: &Ast, what: &str) -> Node {
        let typed = self.present(ast);
        if !self.bindings.fits(&typed.ty, &Ty::Bool) {
            let error = self.needs(what, "bool", &typed.ty, ast);
            self.errors.push(error);
        }
        typed.node
    }

    /// Tells an error behind which the type is not known.
    pub(crate) fn report(&mut self, error: ExprError) -> Ty {
        self.errors.push(error);
        Ty::Dyn
    }

    pub(crate) fn needs(&self, what: &str, wanted: &str, found: &Ty, ast: &Ast) -> ExprError {
        let found = self.bindings.resolve(found);
        ExprError::new(format!("{what} needs {wanted}, this has type {found}"), &ast.span)
    }

    fn ident(&self, name: &str, ast: &Ast) -> Result<Typed, ExprError> {
        if let Some(at) = self.variables.iter().rposition(|variable| variable.name == name) {
            let variable = &self.variables[at];
            return Ok(Typed::new(
                Node::Local(self.variables.len() - 1 - at),
                variable.ty.clone(),
            ));
        }
        let coordinate = |coordinate, ty| Ok(Typed::new(Node::Coordinate(coordinate), ty));
        let (root, ty) = match (name, &self.env.aggregate) {
            ("left", _) if self.env.right.is_some() => (Root::Left, &self.env.value),
            ("right", _) if let Some(ty) = &self.env.right => (Root::Right, ty),
            ("value" | "aggregate", _) if self.env.right.is_some() => {
                let message = format!("there is no `{name}` here: a join has a value on each side");
                return Err(ExprError::new(message, &ast.span).suggest("write `left` or `right`"));
            }
            ("ts", _) => return coordinate(Coordinate::Timestamp, Ty::Timestamp),
            ("topic" | "partition" | "offset" | "headers", _) if !self.env.is_of_one_record => {
                let (why, instead) = match self.env.windows {
                    _ if name == "headers" => (
                        "it comes from several records",
                        "put what is needed of them into the value before",
                    ),
                    Some(_) => (
                        "the result of a window comes from many records",
                        "identify it by its key and `key.windowStart`",
                    ),
                    None => ("it comes from several records", "identify it by its key"),
                };
                let verb = if name == "headers" { "are" } else { "is" };
                let message = format!("there {verb} no `{name}` here: {why}");
                return Err(ExprError::new(message, &ast.span).suggest(instead));
            }
            ("topic", _) => return coordinate(Coordinate::Topic, Ty::String),
            ("partition", _) => return coordinate(Coordinate::Partition, Ty::Int),
            ("offset", _) => return coordinate(Coordinate::Offset, Ty::Int),
            ("headers", _) => return coordinate(Coordinate::Headers, Ty::map(Ty::String, Ty::Bytes)),
            ("key", _) => (Root::Key, &self.env.key),
            ("value", _) => (Root::Value, &self.env.value),
            ("aggregate", Some(ty)) => (Root::Aggregate, ty),
            ("aggregate", None) => {
                return Err(ExprError::new(
                    "`aggregate` exists only in `aggregate.add`",
                    &ast.span,
                ));
            }
            _ => return named_type(name).ok_or_else(|| self.unknown_name(name, ast)),
        };
        let ty = match Ty::from(ty) {
            Ty::Optional(inner) if self.present.contains(&vec![name.to_owned()]) => *inner,
            ty => ty,
        };
        let place = Place {
            root,
            slots: Slots::None,
            need: need(&ty),
        };
        Ok(Typed::new(Node::Place(place), ty))
    }

    fn unknown_name(&self, name: &str, ast: &Ast) -> ExprError {
        let failure = ExprError::new(format!("unknown name `{name}`"), &ast.span);
        if let Type::Struct(ty) = &self.env.value
            && ty.field(name).is_some()
        {
            return failure.suggest(format!("did you mean `value.{name}`?"));
        }
        let mut names = match self.env.right {
            None => vec!["key", "value"],
            Some(_) => vec!["key", "left", "right"],
        };
        names.extend(COORDINATES);
        if self.env.aggregate.is_some() {
            names.push("aggregate");
        }
        names.extend(self.variables.iter().map(|variable| variable.name.as_str()));
        ExprError {
            suggestion: did_you_mean(name, "names", &names),
            ..failure
        }
    }

    fn select(&mut self, operand: &Ast, name: &Name, ast: &Ast) -> Result<Typed, ExprError> {
        let outer = self.check(operand);
        if let Ty::Optional(inner) = self.bindings.known(&outer.ty) {
            if path(operand).is_none() {
                // Behind `.?`, the chain goes on.
                return self.optional_field(outer, operand, name);
            }
            let text = self.text(operand);
            let test = test(operand, text);
            let instead = format!("test `{test}` first, or write `{text}.?{}`", name.text);
            return Err(self.absent(operand, &inner).suggest(instead));
        }
        let mut typed = self.field(outer, operand, name, Need::Value)?;
        if let Ty::Optional(inner) = &typed.ty
            && self.path(ast).is_some_and(|path| self.present.contains(&path))
        {
            typed.ty = (**inner).clone();
            set_need(&mut typed.node, Need::Value);
        }
        Ok(typed)
    }

    /// `operand.?name`, and what follows it.
    fn optional_field(&mut self, outer: Typed, operand: &Ast, name: &Name) -> Result<Typed, ExprError> {
        let outer = match self.bindings.known(&outer.ty) {
            Ty::Optional(inner) => Typed::new(outer.node, *inner),
            _ => outer,
        };
        let mut typed = self.field(outer, operand, name, Need::Maybe)?;
        set_need(&mut typed.node, Need::Maybe);
        typed.ty = optional_of(typed.ty);
        Ok(typed)
    }

    /// A field of a record, the value of a map's key.
    fn field(&mut self, outer: Typed, operand: &Ast, name: &Name, missing: Need) -> Result<Typed, ExprError> {
        let key = || Node::Const(Const::String(name.text.as_str().into()));
        match self.bindings.known(&outer.ty) {
            Ty::Struct(ty) => {
                let (slot, field) = ty.field(&name.text).ok_or_else(|| unknown_field(&ty, name))?;
                let ty = Ty::from(&field.ty);
                let node = match outer.node {
                    Node::Place(place) => Node::Place(Place {
                        slots: place.slots.and(slot),
                        need: need(&ty),
                        ..place
                    }),
                    node => Node::Field(Box::new(node), slot, need(&ty)),
                };
                Ok(Typed::new(node, ty))
            }
            Ty::Map(entry) if self.bindings.fits(&entry.0, &Ty::String) => {
                let node = Node::Index(Box::new((outer.node, key())), missing);
                Ok(Typed::new(node, entry.1.clone()))
            }
            Ty::Dyn | Ty::Parameter(_) => {
                let node = Node::Index(Box::new((outer.node, key())), missing);
                Ok(Typed::new(node, Ty::Dyn))
            }
            ty => {
                let (text, ty) = (self.text(operand), self.bindings.resolve(&ty));
                Err(ExprError::new(
                    format!("`{text}` has type {ty}, which has no fields"),
                    &name.span,
                ))
            }
        }
    }

    fn index(&mut self, operand: &Ast, index: &Ast, ast: &Ast, missing: Need) -> Result<Typed, ExprError> {
        let outer = self.check(operand);
        let (outer, missing) = match (self.bindings.known(&outer.ty), path(operand)) {
            (Ty::Optional(inner), None) => (Typed::new(outer.node, *inner), Need::Maybe),
            (Ty::Optional(inner), Some(_)) if missing == Need::Value => {
                return Err(self.may_be_absent(operand, &inner));
            }
            (Ty::Optional(inner), Some(_)) => (Typed::new(outer.node, *inner), missing),
            _ => (outer, missing),
        };
        if let Ty::Struct(ty) = self.bindings.known(&outer.ty) {
            let failure = ExprError::new(
                format!("{} is a record, its fields have names", ty.name),
                &ast.span,
            );
            return Err(failure.suggest(format!("write `{}.field`", self.text(operand))));
        }
        let at = self.present(index);
        let ty = match self.overload("[]", &[&outer.ty, &at.ty]) {
            Some((ty, _)) => ty,
            None => {
                let (ty, by) = (self.bindings.resolve(&outer.ty), self.bindings.resolve(&at.ty));
                let error = ExprError::new(format!("`[ ]` does not work on {ty} and {by}"), &ast.span);
                self.report(match (&ty, &by) {
                    (Ty::String, Ty::Int) if path(operand).is_some() => {
                        let (text, at) = (self.text(operand), self.text(index));
                        error.suggest(format!("write `{text}.charAt({at})`"))
                    }
                    _ => error,
                })
            }
        };
        let node = Node::Index(Box::new((outer.node, at.node)), missing);
        let ty = if missing == Need::Maybe {
            optional_of(ty)
        } else {
            ty
        };
        Ok(Typed::new(node, ty))
    }

    /// `has(operand.name)`: whether an optional field or a map's key is there; always true for other fields.
    pub(crate) fn has(&mut self, operand: &Ast, name: &Name) -> Result<Typed, ExprError> {
        let outer = self.check(operand);
        let known = self.bindings.known(&outer.ty);
        if let Ty::Optional(inner) = &known {
            if path(operand).is_some() {
                let instead = format!("test `{}` first", test(operand, self.text(operand)));
                return Err(self.absent(operand, inner).suggest(instead));
            }
            let field = self.optional_field(outer, operand, name)?;
            return Ok(Typed::new(Node::IsPresent(Box::new(field.node)), Ty::Bool));
        }
        if matches!(known, Ty::Map(_) | Ty::Dyn | Ty::Parameter(_)) {
            let key = Node::Const(Const::String(name.text.as_str().into()));
            return Ok(Typed::new(Node::HasKey(Box::new((outer.node, key))), Ty::Bool));
        }
        let field = self.field(outer, operand, name, Need::Value)?;
        if !matches!(field.ty, Ty::Optional(_)) {
            return Ok(constant(Const::Bool(true), Ty::Bool));
        }
        Ok(Typed::new(Node::IsPresent(Box::new(field.node)), Ty::Bool))
    }

    fn logical(&mut self, left: &Ast, right: &Ast, what: &str, polarity: bool) -> Box<(Node, Node)> {
        let first = self.bool(left, what);
        let second = self.assuming(left, polarity, |checker| checker.bool(right, what));
        Box::new((first, second))
    }

    /// Checks a part that is evaluated only where `condition` was `polarity`.
    pub(crate) fn assuming<T>(
        &mut self,
        condition: &Ast,
        polarity: bool,
        part: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let known = self.present.len();
        let mut facts = Vec::new();
        self.facts(condition, polarity, &mut facts);
        self.present.extend(facts);
        let result = part(self);
        self.present.truncate(known);
        result
    }

    fn conditional(&mut self, condition: &Ast, then: &Ast, otherwise: &Ast, ast: &Ast) -> Typed {
        let test = self.bool(condition, "the condition before `?`");
        let left = self.assuming(condition, true, |checker| checker.check(then));
        let right = self.assuming(condition, false, |checker| checker.check(otherwise));
        let ty = match self.bindings.join(&left.ty, &right.ty) {
            Some(ty) => ty,
            None => {
                let error = self.differ(&left.ty, &right.ty, ast);
                self.report(error)
            }
        };
        Typed::new(Node::Conditional(Box::new((test, left.node, right.node))), ty)
    }

    fn differ(&self, a: &Ty, b: &Ty, ast: &Ast) -> ExprError {
        let (a, b) = (self.bindings.resolve(a), self.bindings.resolve(b));
        let failure = ExprError::new(
            format!("both branches of `? :` need one type, these have {a} and {b}"),
            &ast.span,
        );
        match (a, b) {
            (Ty::Int, Ty::Double) | (Ty::Double, Ty::Int) => {
                failure.suggest("convert the int with `double(…)`")
            }
            _ => failure,
        }
    }

    fn list(&mut self, items: &[Ast]) -> Result<Typed, ExprError> {
        let mut item_ty = None;
        let mut nodes = Vec::with_capacity(items.len());
        for item in items {
            let typed = self.check(item);
            item_ty = Some(self.join_item(item_ty, &typed.ty, item)?);
            nodes.push(typed.node);
        }
        let ty = Ty::list(item_ty.unwrap_or_else(|| self.bindings.parameter()));
        let constants: Option<Vec<_>> = nodes.iter().map(as_constant).collect();
        Ok(match constants {
            Some(constants) => constant(Const::List(constants.into_boxed_slice()), ty),
            None => Typed::new(Node::List(nodes.into_boxed_slice()), ty),
        })
    }

    /// The type of items so far and of one more: `dyn` when they differ, as in CEL, also for null.
    fn join_item(&mut self, before: Option<Ty>, item: &Ty, ast: &Ast) -> Result<Ty, ExprError> {
        let Some(before) = before else {
            return Ok(item.clone());
        };
        let is_null = |ty: &Ty| matches!(ty, Ty::Null);
        if is_null(&before) == is_null(item)
            && let Some(joined) = self.bindings.join(&before, item)
        {
            return Ok(joined);
        }
        self.no_record(&before, ast)?;
        self.no_record(item, ast)?;
        Ok(Ty::Dyn)
    }

    /// A record has no `dyn` form: its fields have slots, not names, when it is evaluated.
    pub(crate) fn no_record(&self, ty: &Ty, ast: &Ast) -> Result<(), ExprError> {
        match self.bindings.known(ty) {
            Ty::Struct(ty) => {
                let message = format!(
                    "{} is a record and cannot stand beside values of other types",
                    ty.name
                );
                Err(ExprError::new(message, &ast.span))
            }
            _ => Ok(()),
        }
    }

    fn map(&mut self, entries: &[(Ast, Ast)]) -> Result<Typed, ExprError> {
        let (mut key_ty, mut value_ty) = (None, None);
        let mut nodes = Vec::with_capacity(entries.len());
        for (key_ast, value_ast) in entries {
            let key = self.present(key_ast);
            if !matches!(
                self.bindings.known(&key.ty),
                Ty::Bool | Ty::Int | Ty::Uint | Ty::String | Ty::Dyn | Ty::Parameter(_)
            ) {
                return Err(self.needs("a map's key", "bool, int, uint or string", &key.ty, key_ast));
            }
            let value = self.check(value_ast);
            key_ty = Some(self.join_item(key_ty, &key.ty, key_ast)?);
            value_ty = Some(self.join_item(value_ty, &value.ty, value_ast)?);
            nodes.push((key.node, value.node));
        }
        let key_ty = key_ty.unwrap_or_else(|| self.bindings.parameter());
        let value_ty = value_ty.unwrap_or_else(|| self.bindings.parameter());
        Ok(Typed::new(
            Node::Map(nodes.into_boxed_slice()),
            Ty::map(key_ty, value_ty),
        ))
    }

    /// `x == null` and `x != null`.
    pub(crate) fn null_test(&mut self, how: Comparison, side: &Ast, ast: &Ast) -> Result<Typed, ExprError> {
        let typed = self.check(side);
        let present = match (self.bindings.known(&typed.ty), typed.node) {
            // A key has a type, and yet a record may have none.
            (_, Node::Place(place)) if place.root == Root::Key && matches!(place.slots, Slots::None) => {
                let need = Need::Maybe;
                Node::IsPresent(Box::new(Node::Place(Place { need, ..place })))
            }
            (Ty::Optional(_) | Ty::Dyn | Ty::Parameter(_), node) => Node::IsPresent(Box::new(node)),
            (Ty::Null, _) => Node::Const(Const::Bool(false)),
            (other, _) => {
                let (text, other) = (self.text(side), self.bindings.resolve(&other));
                return Err(ExprError::new(
                    format!("`{text}` is never null: it has type {other}"),
                    &ast.span,
                ));
            }
        };
        match how {
            Comparison::Equal => Ok(Typed::new(Node::Not(Box::new(present)), Ty::Bool)),
            Comparison::NotEqual => Ok(Typed::new(present, Ty::Bool)),
            Comparison::Less | Comparison::LessEqual | Comparison::Greater | Comparison::GreaterEqual => {
                let message = "`null` has no order; only `==` and `!=` compare with it";
                Err(ExprError::new(message, &ast.span))
            }
        }
    }

    /// `value.a.b` as names; a variable's name has its number, since an inner one may have the same name.
    fn path(&self, ast: &Ast) -> Option<Vec<String>> {
        let mut names = path(ast)?;
        let first = names.first_mut()?;
        if let Some(at) = self
            .variables
            .iter()
            .rposition(|variable| variable.name == *first)
        {
            *first = format!("{first}#{at}");
        }
        Some(names)
    }

    /// Adds the places that must be there when `condition` is `polarity`.
    fn facts(&self, condition: &Ast, polarity: bool, out: &mut Vec<Vec<String>>) {
        match &condition.kind {
            AstKind::Call(name, None, args) if name == "has" && polarity => {
                if let [field] = args.as_slice() {
                    out.extend(self.path(field));
                }
            }
            AstKind::Not(inner) => self.facts(inner, !polarity, out),
            AstKind::And(sides) if polarity => {
                self.facts(&sides.0, true, out);
                self.facts(&sides.1, true, out);
            }
            AstKind::Or(sides) if !polarity => {
                self.facts(&sides.0, false, out);
                self.facts(&sides.1, false, out);
            }
            AstKind::Binary(how, sides) => {
                let shown = if polarity {
                    Comparison::NotEqual
                } else {
                    Comparison::Equal
                };
                let place = match (&sides.0.kind, &sides.1.kind) {
                    (AstKind::Null, _) => self.path(&sides.1),
                    (_, AstKind::Null) => self.path(&sides.0),
                    _ => None,
                };
                if *how == Binary::Comparison(shown) {
                    out.extend(place);
                }
            }
            _ => {}
        }
    }
}

fn named_type(name: &str) -> Option<Typed> {
    let (name, ty) = match name {
        "bool" => ("bool", Ty::Bool),
        "int" => ("int", Ty::Int),
        "uint" => ("uint", Ty::Uint),
        "double" => ("double", Ty::Double),
        "string" => ("string", Ty::String),
        "bytes" => ("bytes", Ty::Bytes),
        "list" => ("list", Ty::list(Ty::Dyn)),
        "map" => ("map", Ty::map(Ty::Dyn, Ty::Dyn)),
        "null_type" => ("null_type", Ty::Null),
        "type" => ("type", Ty::Type(Box::new(Ty::Dyn))),
        _ => return None,
    };
    Some(constant(Const::Type(name), Ty::Type(Box::new(ty))))
}

pub(crate) fn need(ty: &Ty) -> Need {
    if matches!(ty, Ty::Optional(_)) {
        Need::Maybe
    } else {
        Need::Value
    }
}

fn set_need(node: &mut Node, wanted: Need) {
    if let Node::Place(Place { need, .. }) | Node::Field(_, _, need) | Node::Index(_, need) = node {
        *need = wanted;
    }
}

/// As [`Ty::optional`], also of what is known per record only: `.?` of it gives an optional value.
pub(crate) fn optional_of(ty: Ty) -> Ty {
    match ty {
        already @ Ty::Optional(_) => already,
        other => Ty::Optional(Box::new(other)),
    }
}

fn as_constant(node: &Node) -> Option<Const> {
    match node {
        Node::Const(constant) => Some(constant.clone()),
        _ => None,
    }
}

fn unknown_field(ty: &StructType, name: &Name) -> ExprError {
    let fields: Vec<_> = ty.fields.iter().map(|field| field.name.as_str()).collect();
    ExprError {
        message: format!("{} has no field `{}`", ty.name, name.text),
        span: name.span.clone(),
        suggestion: did_you_mean(&name.text, "fields", &fields),
    }
}

fn default_text(ty: &Ty) -> &'static str {
    match ty {
        Ty::Bool => "false",
        Ty::Int => "0",
        Ty::Double => "0.0",
        Ty::String => "''",
        Ty::Bytes => "b''",
        Ty::Timestamp => "ts",
        Ty::List(_) => "[]",
        Ty::Map(_) => "{}",
        _ => "…",
    }
}

/// What shows that a place is there: `has` is for fields.
fn test(ast: &Ast, text: &str) -> String {
    match ast.kind {
        AstKind::Ident(_) => format!("{text} != null"),
        _ => format!("has({text})"),
    }
}

/// `value.a.b` as names.
pub(crate) fn path(ast: &Ast) -> Option<Vec<String>> {
    match &ast.kind {
        AstKind::Ident(name) => Some(vec![name.clone()]),
        AstKind::Select(operand, name) => {
            let mut names = path(operand)?;
            names.push(name.text.clone());
            Some(names)
        }
        _ => None,
    }
}
