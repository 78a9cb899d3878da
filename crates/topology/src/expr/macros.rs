//! Typing of what is no plain call: macros over lists and maps, `has`, `cel.bind`, optional values.
//!
//! <https://github.com/google/cel-spec/blob/master/doc/langdef.md#macros>

use super::ExprError;
use super::check::{Checker, Typed, Variable, optional_of};
use super::library;
use super::node::{Const, Loop, LoopKind, Need, Node, Variables};
use super::parse::{Ast, AstKind};
use super::ty::Ty;

/// Functions that are typed here or in [`super::calls`], not by the library, and how they are written.
const FUNCTIONS: [(&str, &str); 11] = [
    ("has", "has(value.field)"),
    ("string", "string(x)"),
    ("dyn", "dyn(x)"),
    ("type", "type(x)"),
    ("id", "id(part, …)"),
    ("cel.bind", "cel.bind(name, value, expression)"),
    ("math.greatest", "math.greatest(x, …)"),
    ("math.least", "math.least(x, …)"),
    ("optional.none", "optional.none()"),
    ("optional.of", "optional.of(x)"),
    ("optional.ofNonZeroValue", "optional.ofNonZeroValue(x)"),
];

/// As [`FUNCTIONS`], on a first argument.
const METHODS: [(&str, &str); 17] = [
    ("all", "items.all(x, condition)"),
    ("exists", "items.exists(x, condition)"),
    ("exists_one", "items.exists_one(x, condition)"),
    ("existsOne", "items.existsOne(x, condition)"),
    ("filter", "items.filter(x, condition)"),
    ("map", "items.map(x, expression)"),
    ("sortBy", "items.sortBy(x, expression)"),
    ("transformList", "items.transformList(key, x, expression)"),
    ("transformMap", "items.transformMap(key, x, expression)"),
    ("transformMapEntry", "items.transformMapEntry(key, x, {key: x})"),
    ("optMap", "optional.optMap(x, expression)"),
    ("optFlatMap", "optional.optFlatMap(x, optional)"),
    ("hasValue", "optional.hasValue()"),
    ("value", "optional.value()"),
    ("orValue", "optional.orValue(default)"),
    ("or", "optional.or(optional)"),
    ("matches", "text.matches('pattern')"),
];

fn forms(is_method: bool) -> &'static [(&'static str, &'static str)] {
    if is_method { &METHODS } else { &FUNCTIONS }
}

/// How a function, or method, is written that the library does not have.
pub(crate) fn form(name: &str, is_method: bool) -> Option<&'static str> {
    forms(is_method)
        .iter()
        .find_map(|(known, form)| (*known == name).then_some(*form))
}

/// Names of all functions, or methods.
pub(crate) fn names(is_method: bool) -> Vec<&'static str> {
    let forms = forms(is_method).iter().map(|(name, _)| *name);
    library::names(is_method).into_iter().chain(forms).collect()
}

impl Checker<'_> {
    /// `None` for a plain call.
    pub(crate) fn macro_call(
        &mut self,
        name: &str,
        target: Option<&Ast>,
        args: &[Ast],
        ast: &Ast,
    ) -> Option<Result<Typed, ExprError>> {
        let Some(target) = target else {
            return match (name, args) {
                ("has", [field]) => Some(self.has_macro(field)),
                ("has", _) => Some(Err(needs_field(ast))),
                _ => self.special(name, args, ast),
            };
        };
        if let AstKind::Ident(space) = &target.kind
            && !self.variables.iter().any(|variable| variable.name == *space)
        {
            if space == "cel" && name == "bind" {
                return Some(self.bind(args, ast));
            }
            if matches!(space.as_str(), "optional" | "math") {
                return self.special(&format!("{space}.{name}"), args, ast);
            }
        }
        Some(match (name, args) {
            ("all" | "exists" | "exists_one" | "existsOne" | "filter" | "map", [_, _])
            | ("map", [_, _, _])
            | ("sortBy", [_, _]) => self.looped(name, target, &args[..1], &args[1..]),
            ("all" | "exists" | "exists_one" | "existsOne", [_, _, _])
            | ("transformList" | "transformMap" | "transformMapEntry", [_, _, _] | [_, _, _, _]) => {
                self.looped(name, target, &args[..2], &args[2..])
            }
            ("optMap", [variable, body]) => self.optional_map(target, variable, body, optional_of),
            ("optFlatMap", [variable, body]) => self.optional_map(target, variable, body, |ty| ty),
            ("hasValue", []) => self
                .optional(target)
                .map(|typed| Typed::new(Node::IsPresent(Box::new(typed.node)), Ty::Bool)),
            ("value", []) => self
                .optional(target)
                .map(|typed| Typed::new(Node::Unwrap(Box::new(typed.node)), typed.ty)),
            ("orValue", [other]) => self.or_else(target, other, ast, |checker| Ok(checker.present(other))),
            ("or", [other]) => self
                .or_else(target, other, ast, |checker| checker.optional(other))
                .map(|typed| Typed::new(typed.node, optional_of(typed.ty))),
            ("matches", [pattern]) => self.matches(target, pattern),
            _ => return None,
        })
    }

    fn has_macro(&mut self, field: &Ast) -> Result<Typed, ExprError> {
        match &field.kind {
            AstKind::Select(operand, name) => self.has(operand, name),
            AstKind::OptionalSelect(..) => {
                let typed = self.check(field);
                Ok(Typed::new(Node::IsPresent(Box::new(typed.node)), Ty::Bool))
            }
            _ => Err(needs_field(field)),
        }
    }

    fn name_of(&self, variable: &Ast) -> Result<String, ExprError> {
        match &variable.kind {
            AstKind::Ident(name) if !name.starts_with('.') => Ok(name.clone()),
            _ => Err(ExprError::new(
                "a variable needs to be a plain name",
                &variable.span,
            )),
        }
    }

    /// Checks a part that sees these variables, too.
    fn within<T>(&mut self, variables: Vec<Variable>, part: impl FnOnce(&mut Self) -> T) -> T {
        let outside = self.variables.len();
        self.variables.extend(variables);
        let result = part(self);
        self.variables.truncate(outside);
        result
    }

    fn bind(&mut self, args: &[Ast], ast: &Ast) -> Result<Typed, ExprError> {
        let [variable, init, body] = args else {
            return Err(ExprError::new(
                "write `cel.bind(name, value, expression)`",
                &ast.span,
            ));
        };
        let name = self.name_of(variable)?;
        let init = self.check(init);
        let variable = Variable { name, ty: init.ty };
        let body = self.within(vec![variable], |checker| checker.check(body));
        Ok(Typed::new(
            Node::Bind(Box::new((init.node, body.node)), Need::Value),
            body.ty,
        ))
    }

    fn looped(
        &mut self,
        name: &str,
        target: &Ast,
        variables: &[Ast],
        parts: &[Ast],
    ) -> Result<Typed, ExprError> {
        let range = self.present(target);
        let (key, value, alone) = match self.bindings.known(&range.ty) {
            Ty::List(item) => (Ty::Int, (*item).clone(), *item),
            Ty::Map(entry) => (entry.0.clone(), entry.1, entry.0),
            Ty::Dyn | Ty::Parameter(_) => (Ty::Dyn, Ty::Dyn, Ty::Dyn),
            other => return Err(self.needs(&format!("`{name}`"), "a list or a map", &other, target)),
        };
        let (seen, types) = match variables {
            [_] => (Variables::One, vec![alone.clone()]),
            _ => (Variables::Two, vec![key.clone(), value]),
        };
        let mut locals = Vec::with_capacity(2);
        for (variable, ty) in variables.iter().zip(types) {
            let name = self.name_of(variable)?;
            if locals.iter().any(|other: &Variable| other.name == name) {
                return Err(ExprError::new(format!("`{name}` is there twice"), &variable.span));
            }
            locals.push(Variable { name, ty });
        }
        let (kind, ty) = self.within(locals, |checker| checker.body(name, parts, &key, alone))?;
        let looped = Loop {
            range: range.node,
            variables: seen,
            kind,
        };
        Ok(Typed::new(Node::Loop(Box::new(looped)), ty))
    }

    /// What is done with the variables. `key` is what a map made of two has as keys, `item` what a list made of one keeps.
    fn body(&mut self, name: &str, parts: &[Ast], key: &Ty, item: Ty) -> Result<(LoopKind, Ty), ExprError> {
        let what = format!("`{name}`");
        let (condition, result) = match parts {
            [result] => (None, result),
            [condition, result, ..] => (Some(condition), result),
            [] => {
                return Err(ExprError::new(
                    "an expression is missing",
                    &(0..self.source.len()),
                ));
            }
        };
        match name {
            "all" => return Ok((LoopKind::All(self.bool(result, &what)), Ty::Bool)),
            "exists" => return Ok((LoopKind::Exists(self.bool(result, &what)), Ty::Bool)),
            "exists_one" | "existsOne" => {
                return Ok((LoopKind::ExistsOne(self.bool(result, &what)), Ty::Bool));
            }
            "filter" => {
                let test = self.bool(result, &what);
                return Ok((LoopKind::Items(Some(test), Node::Local(0)), Ty::list(item)));
            }
            "sortBy" => return self.sort_by(result, item),
            _ => {}
        }
        let test = condition.map(|condition| self.bool(condition, &what));
        let checked = |checker: &mut Self, ast: &Ast| match condition {
            Some(condition) => checker.assuming(condition, true, |checker| checker.check(ast)),
            None => checker.check(ast),
        };
        let (key, value) = match name {
            "transformMap" => (Typed::new(Node::Local(1), key.clone()), checked(self, result)),
            "transformMapEntry" => match &result.kind {
                AstKind::Map(entries) if let [(key, value)] = entries.as_slice() => {
                    (checked(self, key), checked(self, value))
                }
                _ => {
                    let message = "`transformMapEntry` makes one entry, `{key: value}`";
                    return Err(ExprError::new(message, &result.span));
                }
            },
            _ => {
                let typed = checked(self, result);
                return Ok((LoopKind::Items(test, typed.node), Ty::list(typed.ty)));
            }
        };
        let entry = Box::new((key.node, value.node));
        Ok((LoopKind::Entries(test, entry), Ty::map(key.ty, value.ty)))
    }

    fn sort_by(&mut self, by: &Ast, item: Ty) -> Result<(LoopKind, Ty), ExprError> {
        let typed = self.present(by);
        if self.overload("<", &[&typed.ty, &typed.ty]).is_none() {
            return Err(self.needs("`sortBy`", "something with an order", &typed.ty, by));
        }
        Ok((LoopKind::SortBy(typed.node), Ty::list(item)))
    }

    /// A part that may be absent, with the type that it has when it is there.
    fn optional(&mut self, ast: &Ast) -> Result<Typed, ExprError> {
        let typed = self.check(ast);
        match self.bindings.known(&typed.ty) {
            Ty::Optional(inner) => Ok(Typed::new(typed.node, *inner)),
            Ty::Dyn | Ty::Parameter(_) => Ok(Typed::new(typed.node, Ty::Dyn)),
            other => {
                let (text, other) = (self.text(ast), self.bindings.resolve(&other));
                Err(ExprError::new(
                    format!("`{text}` is always there: it has type {other}"),
                    &ast.span,
                ))
            }
        }
    }

    fn or_else(
        &mut self,
        target: &Ast,
        other: &Ast,
        ast: &Ast,
        second: impl FnOnce(&mut Self) -> Result<Typed, ExprError>,
    ) -> Result<Typed, ExprError> {
        let first = self.optional(target)?;
        let second = second(self)?;
        let Some(ty) = self.bindings.join(&first.ty, &second.ty) else {
            return Err(self.mixed("or", (&first.ty, target), (&second.ty, other), ast));
        };
        Ok(Typed::new(Node::OrElse(Box::new((first.node, second.node))), ty))
    }

    fn optional_map(
        &mut self,
        target: &Ast,
        variable: &Ast,
        body: &Ast,
        result: impl FnOnce(Ty) -> Ty,
    ) -> Result<Typed, ExprError> {
        let inner = self.optional(target)?;
        let variable = Variable {
            name: self.name_of(variable)?,
            ty: inner.ty,
        };
        let body = self.within(vec![variable], |checker| checker.check(body));
        Ok(Typed::new(
            Node::Bind(Box::new((inner.node, body.node)), Need::Maybe),
            result(body.ty),
        ))
    }

    fn matches(&mut self, target: &Ast, pattern: &Ast) -> Result<Typed, ExprError> {
        let text = self.present(target);
        if !self.bindings.fits(&text.ty, &Ty::String) {
            return Err(self.needs("`matches`", "a string", &text.ty, target));
        }
        let Node::Const(Const::String(source)) = self.present(pattern).node else {
            return Err(ExprError::new(
                "a pattern needs to be a constant string: it is compiled once",
                &pattern.span,
            ));
        };
        let compiled = regex::RegexBuilder::new(&source)
            .size_limit(MAX_PATTERN_BYTES)
            .build();
        match compiled {
            Ok(regex) => Ok(Typed::new(
                Node::Matches(Box::new(regex), Box::new(text.node)),
                Ty::Bool,
            )),
            Err(failure) => {
                let reason = failure.to_string();
                let reason = reason
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .trim_start_matches("error: ")
                    .to_owned();
                Err(ExprError::new(
                    format!("this is no regular expression: {reason}"),
                    &pattern.span,
                ))
            }
        }
    }
}

/// Most memory of a compiled pattern.
const MAX_PATTERN_BYTES: usize = 1 << 20;

fn needs_field(ast: &Ast) -> ExprError {
    ExprError::new("`has` needs a field, e.g. `has(value.note)`", &ast.span)
}
