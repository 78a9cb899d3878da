//! Typing of functions: conversions and methods of strings.

use super::ExprError;
use super::check::{Checker, error};
use super::node::{BoolExpr, DoubleExpr, IntExpr, Node, StringExpr};
use super::parse::Ast;
use crate::Type;
use crate::suggest::did_you_mean;

const FUNCTIONS: [&str; 5] = ["string", "int", "double", "size", "has"];
const METHODS: [&str; 4] = ["size", "startsWith", "endsWith", "contains"];

impl Checker<'_> {
    pub(crate) fn call(
        &mut self,
        name: &str,
        target: Option<&Ast>,
        args: &[Ast],
        ast: &Ast,
    ) -> Result<Node, ExprError> {
        match (name, target, args) {
            ("string", None, [arg]) => self.convert_to_string(arg, ast),
            ("int", None, [arg]) => self.convert_to_int(arg, ast),
            ("double", None, [arg]) => self.convert_to_double(arg, ast),
            ("size", None, [arg]) | ("size", Some(arg), []) => self.size(arg, ast),
            ("has", None, _) => Err(error("`has` needs a field, e.g. `has(value.note)`", &ast.span)),
            ("startsWith", Some(target), [arg]) => {
                Ok(Node::Bool(BoolExpr::StartsWith(self.strings(name, target, arg)?)))
            }
            ("endsWith", Some(target), [arg]) => {
                Ok(Node::Bool(BoolExpr::EndsWith(self.strings(name, target, arg)?)))
            }
            ("contains", Some(target), [arg]) => {
                Ok(Node::Bool(BoolExpr::Contains(self.strings(name, target, arg)?)))
            }
            ("size" | "startsWith" | "endsWith" | "contains", Some(_), _) => {
                let wanted = if name == "size" {
                    "no argument"
                } else {
                    "one argument"
                };
                Err(error(
                    format!("`{name}` takes {wanted}, not {}", args.len()),
                    &ast.span,
                ))
            }
            ("string" | "int" | "double" | "size", None, _) => Err(error(
                format!("`{name}` takes one argument, not {}", args.len()),
                &ast.span,
            )),
            ("startsWith" | "endsWith" | "contains", None, _) => {
                Err(error(format!("`{name}` is a method of strings"), &ast.span)
                    .suggest(format!("write `value.field.{name}('…')`")))
            }
            ("now" | "timestamp" | "duration", None, _) => {
                let message = format!("`{name}` is not part of the language: there is no clock");
                Err(error(message, &ast.span).suggest("record time is `ts`"))
            }
            _ => Err(unknown_function(name, target.is_some(), ast)),
        }
    }

    fn convert_to_string(&mut self, arg: &Ast, ast: &Ast) -> Result<Node, ExprError> {
        Ok(Node::String(match self.present(arg)? {
            Node::String(expr) => expr,
            Node::Int(expr) => StringExpr::FromInt(Box::new(expr)),
            Node::Double(expr) => StringExpr::FromDouble(Box::new(expr)),
            Node::Bool(expr) => StringExpr::FromBool(Box::new(expr)),
            Node::Timestamp(expr) => StringExpr::FromTimestamp(Box::new(expr)),
            other @ (Node::Null | Node::Bytes(_) | Node::Struct(_) | Node::Optional(_)) => {
                return Err(no_conversion("string", &other.ty(), ast));
            }
        }))
    }

    fn convert_to_int(&mut self, arg: &Ast, ast: &Ast) -> Result<Node, ExprError> {
        Ok(Node::Int(match self.present(arg)? {
            // A timestamp is its milliseconds.
            Node::Int(expr) | Node::Timestamp(expr) => expr,
            Node::Double(expr) => IntExpr::FromDouble(Box::new(expr)),
            Node::String(expr) => IntExpr::FromString(Box::new(expr)),
            other @ (Node::Null | Node::Bool(_) | Node::Bytes(_) | Node::Struct(_) | Node::Optional(_)) => {
                return Err(no_conversion("int", &other.ty(), ast));
            }
        }))
    }

    fn convert_to_double(&mut self, arg: &Ast, ast: &Ast) -> Result<Node, ExprError> {
        Ok(Node::Double(match self.present(arg)? {
            Node::Double(expr) => expr,
            Node::Int(expr) => DoubleExpr::FromInt(Box::new(expr)),
            Node::String(expr) => DoubleExpr::FromString(Box::new(expr)),
            other @ (Node::Null
            | Node::Bool(_)
            | Node::Bytes(_)
            | Node::Timestamp(_)
            | Node::Struct(_)
            | Node::Optional(_)) => return Err(no_conversion("double", &other.ty(), ast)),
        }))
    }

    fn size(&mut self, arg: &Ast, ast: &Ast) -> Result<Node, ExprError> {
        Ok(Node::Int(match self.present(arg)? {
            Node::String(expr) => IntExpr::StringSize(Box::new(expr)),
            Node::Bytes(expr) => IntExpr::BytesSize(Box::new(expr)),
            other @ (Node::Null
            | Node::Bool(_)
            | Node::Int(_)
            | Node::Double(_)
            | Node::Timestamp(_)
            | Node::Struct(_)
            | Node::Optional(_)) => {
                let message = format!("`size` needs string or bytes, this has type {}", other.ty());
                return Err(error(message, &ast.span));
            }
        }))
    }

    fn strings(
        &mut self,
        name: &str,
        target: &Ast,
        arg: &Ast,
    ) -> Result<Box<(StringExpr, StringExpr)>, ExprError> {
        let mut string = |ast: &Ast| match self.present(ast)? {
            Node::String(expr) => Ok(expr),
            other @ (Node::Null
            | Node::Bool(_)
            | Node::Int(_)
            | Node::Double(_)
            | Node::Bytes(_)
            | Node::Timestamp(_)
            | Node::Struct(_)
            | Node::Optional(_)) => Err(error(
                format!("`{name}` needs strings, this has type {}", other.ty()),
                &ast.span,
            )),
        };
        Ok(Box::new((string(target)?, string(arg)?)))
    }
}

fn no_conversion(to: &str, from: &Type, ast: &Ast) -> ExprError {
    error(format!("`{to}(…)` cannot convert {from}"), &ast.span)
}

fn unknown_function(name: &str, is_method: bool, ast: &Ast) -> ExprError {
    let (what, known): (_, &[&str]) = if is_method {
        ("method", &METHODS)
    } else {
        ("function", &FUNCTIONS)
    };
    ExprError {
        message: format!("unknown {what} `{name}`"),
        span: ast.span.clone(),
        suggestion: did_you_mean(name, &format!("{what}s"), known),
    }
}
