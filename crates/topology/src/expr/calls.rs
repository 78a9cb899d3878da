//! Typing of operators and of functions: an overload of the [`library`] has to fit.

use super::ExprError;
use super::check::{Checker, Typed, optional_of};
use super::library::{self, Overload, special};
use super::macros;
use super::node::{Arithmetic, Call, Comparison, Const, Function, Node, Operands};
use super::parse::{Ast, AstKind, Binary};
use super::ty::Ty;
use crate::suggest::did_you_mean;

impl Checker<'_> {
    /// The result of the overload that takes arguments of these types; `dyn` when several do.
    pub(crate) fn overload(&mut self, name: &str, arguments: &[&Ty]) -> Option<(Ty, &'static Overload)> {
        self.overload_of(name, arguments, false)
    }

    fn overload_of(
        &mut self,
        name: &str,
        arguments: &[&Ty],
        is_method: bool,
    ) -> Option<(Ty, &'static Overload)> {
        let mut found: Option<(Ty, &'static Overload)> = None;
        for overload in library::overloads(name) {
            if overload.is_method != is_method || overload.parameters.len() != arguments.len() {
                continue;
            }
            let mut parameters = Vec::new();
            let bindings = &mut self.bindings;
            let wanted: Vec<_> = overload
                .parameters
                .iter()
                .map(|ty| bindings.instantiate(ty, &mut parameters))
                .collect();
            let before = bindings.clone();
            if !arguments
                .iter()
                .zip(&wanted)
                .all(|(argument, wanted)| bindings.fits(argument, wanted))
            {
                *bindings = before;
                continue;
            }
            let result = bindings.instantiate(&overload.result, &mut parameters);
            found = Some(match found {
                Some((ty, first)) if self.bindings.resolve(&ty) != self.bindings.resolve(&result) => {
                    (Ty::Dyn, first)
                }
                Some(first) => first,
                None => (result, overload),
            });
        }
        found
    }

    pub(crate) fn negate(&mut self, inner: &Ast, ast: &Ast) -> Result<Typed, ExprError> {
        let typed = self.present(inner);
        match self.overload("-", &[&typed.ty]) {
            Some((ty, _)) => Ok(Typed::new(Node::Negate(Box::new(typed.node)), ty)),
            None => Err(self.needs("`-`", "int or double", &typed.ty, ast)),
        }
    }

    pub(crate) fn binary(
        &mut self,
        how: Binary,
        left: &Ast,
        right: &Ast,
        ast: &Ast,
    ) -> Result<Typed, ExprError> {
        match how {
            Binary::Arithmetic(how) => Ok(self.arithmetic(how, left, right, ast)),
            Binary::Comparison(how) => self.comparison(how, left, right, ast),
            Binary::In => {
                let (a, b) = (self.present(left), self.present(right));
                let ty = self.result("in", (&a.ty, left), (&b.ty, right), ast);
                Ok(Typed::new(Node::In(Box::new((a.node, b.node))), ty))
            }
        }
    }

    fn arithmetic(&mut self, how: Arithmetic, left: &Ast, right: &Ast, ast: &Ast) -> Typed {
        let (a, b) = (self.present(left), self.present(right));
        let ty = self.result(how.symbol(), (&a.ty, left), (&b.ty, right), ast);
        let operands = match self.bindings.known(&ty) {
            Ty::Int => self.operands(&a.ty, &b.ty),
            _ => Operands::Any,
        };
        let node = match a.node {
            // Flat, so that `a + b + c` is written into one string.
            Node::Concat(parts) => Node::Concat(parts.into_iter().chain([b.node]).collect()),
            a if how == Arithmetic::Add && self.bindings.known(&ty) == Ty::String => {
                Node::Concat([a, b.node].into())
            }
            a => Node::Arithmetic(how, operands, Box::new((a, b.node))),
        };
        Typed::new(node, ty)
    }

    fn operands(&self, left: &Ty, right: &Ty) -> Operands {
        match (self.bindings.known(left), self.bindings.known(right)) {
            (Ty::Int, Ty::Int) | (Ty::Timestamp, Ty::Timestamp) => Operands::Ints,
            (Ty::String, Ty::String) => Operands::Strings,
            _ => Operands::Any,
        }
    }

    /// The result's type of an operator; an error is told.
    fn result(&mut self, symbol: &str, left: (&Ty, &Ast), right: (&Ty, &Ast), ast: &Ast) -> Ty {
        match self.overload(symbol, &[left.0, right.0]) {
            Some((ty, _)) => ty,
            None => {
                let error = self.mixed(symbol, left, right, ast);
                self.report(error)
            }
        }
    }

    fn comparison(
        &mut self,
        how: Comparison,
        left: &Ast,
        right: &Ast,
        ast: &Ast,
    ) -> Result<Typed, ExprError> {
        match (&left.kind, &right.kind) {
            (AstKind::Null, _) => return self.null_test(how, right, ast),
            (_, AstKind::Null) => return self.null_test(how, left, ast),
            _ => {}
        }
        let (mut a, mut b) = (self.check(left), self.check(right));
        let optional =
            |checker: &Self, typed: &Typed| matches!(checker.bindings.known(&typed.ty), Ty::Optional(_));
        let equality = matches!(how, Comparison::Equal | Comparison::NotEqual);
        if !(equality && optional(self, &a) && optional(self, &b)) {
            [a, b] = self.compared(how, [(a, left), (b, right)], ast);
        }
        let ty = match self.result(how.symbol(), (&a.ty, left), (&b.ty, right), ast) {
            Ty::Dyn => Ty::Bool,
            ty => ty,
        };
        let operands = self.operands(&a.ty, &b.ty);
        Ok(Typed::new(
            Node::Compare(how, operands, Box::new((a.node, b.node))),
            ty,
        ))
    }

    pub(crate) fn mixed(&self, symbol: &str, left: (&Ty, &Ast), right: (&Ty, &Ast), ast: &Ast) -> ExprError {
        let types = (self.bindings.resolve(left.0), self.bindings.resolve(right.0));
        let failure = ExprError::new(
            format!("`{symbol}` does not work on {} and {}", types.0, types.1),
            &ast.span,
        );
        let (a, b) = (self.text(left.1), self.text(right.1));
        match types {
            (Ty::Int, Ty::Double) => failure.suggest(format!("write `double({a}) {symbol} {b}`")),
            (Ty::Double, Ty::Int) => failure.suggest(format!("write `{a} {symbol} double({b})`")),
            (Ty::Int, Ty::Uint) => failure.suggest(format!("write `{a} {symbol} int({b})`")),
            (Ty::Uint, Ty::Int) => failure.suggest(format!("write `int({a}) {symbol} {b}`")),
            (Ty::String, Ty::Int | Ty::Double | Ty::Bool | Ty::Timestamp) => {
                failure.suggest(format!("write `{a} {symbol} string({b})`"))
            }
            (Ty::Int | Ty::Double | Ty::Bool | Ty::Timestamp, Ty::String) => {
                failure.suggest(format!("write `string({a}) {symbol} {b}`"))
            }
            (Ty::Timestamp | Ty::Duration, Ty::Int) => {
                failure.suggest(format!("write `int({a}) {symbol} {b}`: milliseconds"))
            }
            (Ty::Int, Ty::Timestamp | Ty::Duration) => {
                failure.suggest(format!("write `{a} {symbol} int({b})`: milliseconds"))
            }
            _ => failure,
        }
    }

    pub(crate) fn call(
        &mut self,
        name: &str,
        target: Option<&Ast>,
        args: &[Ast],
        ast: &Ast,
    ) -> Result<Typed, ExprError> {
        if let Some(typed) = self.macro_call(name, target, args, ast) {
            return typed;
        }
        // `math.abs(…)`: a namespace, unless something else has that name.
        let qualified = match target.map(|target| &target.kind) {
            Some(AstKind::Ident(space)) if !self.variables.iter().any(|variable| variable.name == *space) => {
                Some(format!("{space}.{name}"))
            }
            Some(_) | None => None,
        };
        let (name, target) = match &qualified {
            Some(qualified) if macros::names(false).contains(&qualified.as_str()) => {
                (qualified.as_str(), None)
            }
            Some(_) | None => (name, target),
        };
        let is_method = target.is_some();
        let of_kind = |overload: &&Overload| overload.is_method == is_method;
        let known: Vec<_> = library::overloads(name).iter().filter(of_kind).collect();
        if known.is_empty() {
            return Err(unknown_function(name, is_method, ast));
        }
        let counts: Vec<_> = known
            .iter()
            .map(|overload| overload.parameters.len() - usize::from(is_method))
            .collect();
        if !counts.contains(&args.len()) {
            let wanted = counts.first().copied().unwrap_or_default();
            let plural = if wanted == 1 { "argument" } else { "arguments" };
            let message = format!("`{name}` takes {wanted} {plural}, not {}", args.len());
            return Err(ExprError::new(message, &ast.span));
        }
        let mut typed = Vec::with_capacity(args.len() + 1);
        for arg in target.into_iter().chain(args) {
            typed.push(self.present(arg));
        }
        let types: Vec<_> = typed.iter().map(|typed| &typed.ty).collect();
        let Some((ty, overload)) = self.overload_of(name, &types, is_method) else {
            let types: Vec<_> = types
                .iter()
                .map(|ty| self.bindings.resolve(ty).to_string())
                .collect();
            let message = format!("`{name}` does not take {}", types.join(", "));
            let signatures: Vec<_> = known
                .iter()
                .map(|overload| format!("`{}`", overload.signature))
                .collect();
            return Err(
                ExprError::new(message, &ast.span).suggest(format!("there is {}", signatures.join(", ")))
            );
        };
        if let ("sort", Ty::List(item)) = (name, self.bindings.known(&ty))
            // Not of an empty list: that would give its items a type.
            && !matches!(self.bindings.known(&item), Ty::Parameter(_))
            && self.overload("<", &[&item, &item]).is_none()
        {
            return Err(self.needs("`sort`", "items that have an order", &ty, target.unwrap_or(ast)));
        }
        let nodes: Box<[Node]> = typed.into_iter().map(|typed| typed.node).collect();
        Ok(Typed::new(Node::Call(overload.function, nodes), ty))
    }

    /// Functions whose arguments have any number or any type.
    pub(crate) fn special(
        &mut self,
        name: &str,
        args: &[Ast],
        ast: &Ast,
    ) -> Option<Result<Typed, ExprError>> {
        let call = |name, call: Call| Function { name, call };
        Some(match (name, args) {
            ("string", [arg]) => self.convert_to_string(arg, ast),
            ("dyn", [arg]) => {
                let typed = self.check(arg);
                self.no_record(&typed.ty, arg)
                    .map(|()| Typed::new(typed.node, Ty::Dyn))
            }
            ("type", [arg]) => {
                let typed = self.check(arg);
                let node = Node::Call(call("type", special::type_of), [typed.node].into());
                self.no_record(&typed.ty, arg)
                    .map(|()| Typed::new(node, Ty::Type(Box::new(typed.ty))))
            }
            ("optional.none", []) => {
                let ty = self.bindings.parameter();
                Ok(Typed::new(Node::Const(Const::Null), optional_of(ty)))
            }
            ("optional.of", [arg]) => {
                let typed = self.present(arg);
                Ok(Typed::new(typed.node, optional_of(typed.ty)))
            }
            ("optional.ofNonZeroValue", [arg]) => {
                let typed = self.present(arg);
                let function = call("optional.ofNonZeroValue", special::of_non_zero);
                Ok(Typed::new(
                    Node::Call(function, [typed.node].into()),
                    optional_of(typed.ty),
                ))
            }
            ("math.greatest", [_, ..]) => self.extreme(call("math.greatest", special::greatest), args),
            ("math.least", [_, ..]) => self.extreme(call("math.least", special::least), args),
            ("id", [_, ..]) => self.id(call("id", special::id), args),
            _ => return None,
        })
    }

    fn convert_to_string(&mut self, arg: &Ast, ast: &Ast) -> Result<Typed, ExprError> {
        let typed = self.present(arg);
        match self.bindings.known(&typed.ty) {
            Ty::String => Ok(typed),
            Ty::Int
            | Ty::Uint
            | Ty::Double
            | Ty::Bool
            | Ty::Bytes
            | Ty::Timestamp
            | Ty::Duration
            | Ty::Dyn
            | Ty::Parameter(_) => Ok(Typed::new(Node::Text(Box::new(typed.node)), Ty::String)),
            other => {
                let other = self.bindings.resolve(&other);
                Err(ExprError::new(
                    format!("`string(…)` cannot convert {other}"),
                    &ast.span,
                ))
            }
        }
    }

    /// Several numbers, or a list of them.
    fn extreme(&mut self, function: Function, args: &[Ast]) -> Result<Typed, ExprError> {
        let mut result = None;
        let mut nodes = Vec::with_capacity(args.len());
        for arg in args {
            let typed = self.present(arg);
            let ty = match self.bindings.known(&typed.ty) {
                Ty::List(item) if args.len() == 1 => self.bindings.known(&item),
                other => other,
            };
            if !matches!(ty, Ty::Int | Ty::Uint | Ty::Double | Ty::Dyn | Ty::Parameter(_)) {
                return Err(self.needs(&format!("`{}`", function.name), "numbers", &typed.ty, arg));
            }
            result = Some(match result {
                Some(before) if before != ty => Ty::Dyn,
                Some(_) | None => ty,
            });
            nodes.push(typed.node);
        }
        let ty = result.unwrap_or(Ty::Dyn);
        Ok(Typed::new(Node::Call(function, nodes.into_boxed_slice()), ty))
    }

    fn id(&mut self, function: Function, args: &[Ast]) -> Result<Typed, ExprError> {
        let mut nodes = Vec::with_capacity(args.len());
        for arg in args {
            let typed = self.present(arg);
            let ty = self.bindings.known(&typed.ty);
            if !matches!(ty, Ty::String | Ty::Int | Ty::Bool | Ty::Timestamp | Ty::Bytes) {
                let wanted = "string, int, bool, bytes or timestampMillis";
                return Err(self.needs("`id`", wanted, &typed.ty, arg));
            }
            nodes.push(typed.node);
        }
        Ok(Typed::new(
            Node::Call(function, nodes.into_boxed_slice()),
            Ty::String,
        ))
    }
}

fn unknown_function(name: &str, is_method: bool, ast: &Ast) -> ExprError {
    if !is_method && name == "now" {
        let message = format!("`{name}` is not part of the language: there is no clock");
        return ExprError::new(message, &ast.span).suggest("record time is `ts`");
    }
    if let Some(form) = macros::form(name, is_method) {
        let message = format!("`{name}` does not take these arguments");
        return ExprError::new(message, &ast.span).suggest(format!("write `{form}`"));
    }
    let kind = if is_method { "method" } else { "function" };
    let known = macros::names(is_method);
    if macros::names(!is_method).contains(&name) {
        let failure = ExprError::new(format!("`{name}` is no {kind}"), &ast.span);
        return failure.suggest(if is_method {
            format!("write `{name}(…)`")
        } else {
            format!("write `value.field.{name}(…)`")
        });
    }
    let failure = ExprError::new(format!("unknown {kind} `{name}`"), &ast.span);
    // What other languages call it, or a function where it is a method here, and the other way round.
    let other = ELSEWHERE.iter().find(|(other, _)| *other == name);
    let in_math = format!("math.{name}");
    let here = other.map_or(in_math.as_str(), |(_, here)| here);
    for is_method in [is_method, !is_method] {
        if macros::names(is_method).contains(&here) {
            let form = macros::form(here, is_method).map(str::to_owned);
            let call = if is_method {
                format!("value.field.{here}(…)")
            } else {
                format!("{here}(…)")
            };
            return failure.suggest(format!("write `{}`", form.unwrap_or(call)));
        }
    }
    ExprError {
        suggestion: did_you_mean(name, &format!("{kind}s"), &known),
        ..failure
    }
}

/// Names that functions and methods have in other languages.
const ELSEWHERE: [(&str, &str); 9] = [
    ("len", "size"),
    ("length", "size"),
    ("lower", "lowerAscii"),
    ("max", "math.greatest"),
    ("min", "math.least"),
    ("substr", "substring"),
    ("toLowerCase", "lowerAscii"),
    ("toUpperCase", "upperAscii"),
    ("upper", "upperAscii"),
];
