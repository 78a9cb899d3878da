//! Typing of arithmetic, comparisons and `in`.

use super::ExprError;
use super::check::{Checker, error, needs};
use super::node::{Arithmetic, BoolExpr, Comparison, DoubleExpr, IntExpr, Node, StringExpr};
use super::parse::{Ast, AstKind, Binary};
use crate::Type;

impl Checker<'_> {
    pub(crate) fn negate(&mut self, inner: &Ast, ast: &Ast) -> Result<Node, ExprError> {
        let node = self.present(inner)?;
        match node {
            Node::Int(expr) => Ok(Node::Int(IntExpr::Negate(Box::new(expr)))),
            Node::Double(expr) => Ok(Node::Double(DoubleExpr::Negate(Box::new(expr)))),
            other @ (Node::Null
            | Node::Bool(_)
            | Node::String(_)
            | Node::Bytes(_)
            | Node::Timestamp(_)
            | Node::Struct(_)
            | Node::Optional(_)) => Err(needs("`-`", "int or double", &other.ty(), ast)),
        }
    }

    pub(crate) fn binary(
        &mut self,
        how: Binary,
        left: &Ast,
        right: &Ast,
        ast: &Ast,
    ) -> Result<Node, ExprError> {
        match how {
            Binary::Add => self.arithmetic(Arithmetic::Add, how, left, right, ast),
            Binary::Subtract => self.arithmetic(Arithmetic::Subtract, how, left, right, ast),
            Binary::Multiply => self.arithmetic(Arithmetic::Multiply, how, left, right, ast),
            Binary::Divide => self.arithmetic(Arithmetic::Divide, how, left, right, ast),
            Binary::Modulo => self.arithmetic(Arithmetic::Modulo, how, left, right, ast),
            Binary::Equal => self.comparison(Comparison::Equal, how, left, right, ast),
            Binary::NotEqual => self.comparison(Comparison::NotEqual, how, left, right, ast),
            Binary::Less => self.comparison(Comparison::Less, how, left, right, ast),
            Binary::LessEqual => self.comparison(Comparison::LessEqual, how, left, right, ast),
            Binary::Greater => self.comparison(Comparison::Greater, how, left, right, ast),
            Binary::GreaterEqual => self.comparison(Comparison::GreaterEqual, how, left, right, ast),
            Binary::In => self.is_in(left, right),
        }
    }

    fn arithmetic(
        &mut self,
        how: Arithmetic,
        symbol: Binary,
        left: &Ast,
        right: &Ast,
        ast: &Ast,
    ) -> Result<Node, ExprError> {
        match (self.present(left)?, self.present(right)?) {
            (Node::Int(a), Node::Int(b)) => Ok(Node::Int(IntExpr::Arithmetic(how, Box::new((a, b))))),
            (Node::String(a), Node::String(b)) if how == Arithmetic::Add => Ok(Node::String(concat(a, b))),
            (Node::Double(a), Node::Double(b)) => match how {
                Arithmetic::Add => Ok(Node::Double(DoubleExpr::Add(Box::new((a, b))))),
                Arithmetic::Subtract => Ok(Node::Double(DoubleExpr::Subtract(Box::new((a, b))))),
                Arithmetic::Multiply => Ok(Node::Double(DoubleExpr::Multiply(Box::new((a, b))))),
                Arithmetic::Divide => Ok(Node::Double(DoubleExpr::Divide(Box::new((a, b))))),
                Arithmetic::Modulo => Err(needs("`%`", "int on both sides", &Type::Double, ast)),
            },
            (a, b) => Err(self.mixed(symbol, (&a.ty(), left), (&b.ty(), right), ast)),
        }
    }

    fn comparison(
        &mut self,
        how: Comparison,
        symbol: Binary,
        left: &Ast,
        right: &Ast,
        ast: &Ast,
    ) -> Result<Node, ExprError> {
        if matches!(left.kind, AstKind::Null) || matches!(right.kind, AstKind::Null) {
            return self.null_test(how, left, right, ast);
        }
        let expr = match (self.present(left)?, self.present(right)?) {
            (Node::Int(a), Node::Int(b)) | (Node::Timestamp(a), Node::Timestamp(b)) => {
                BoolExpr::CompareInt(how, Box::new((a, b)))
            }
            (Node::Double(a), Node::Double(b)) => BoolExpr::CompareDouble(how, Box::new((a, b))),
            (Node::String(a), Node::String(b)) => BoolExpr::CompareString(how, Box::new((a, b))),
            (Node::Bytes(a), Node::Bytes(b)) => BoolExpr::CompareBytes(how, Box::new((a, b))),
            (Node::Bool(a), Node::Bool(b)) => BoolExpr::CompareBool(how, Box::new((a, b))),
            (a, b) => return Err(self.mixed(symbol, (&a.ty(), left), (&b.ty(), right), ast)),
        };
        Ok(Node::Bool(expr))
    }

    fn null_test(&mut self, how: Comparison, left: &Ast, right: &Ast, ast: &Ast) -> Result<Node, ExprError> {
        let side = if matches!(left.kind, AstKind::Null) {
            right
        } else {
            left
        };
        let expr = match self.check(side)? {
            Node::Optional(expr) => BoolExpr::IsNull(Box::new(expr)),
            Node::Null => BoolExpr::Const(true),
            other @ (Node::Bool(_)
            | Node::Int(_)
            | Node::Double(_)
            | Node::String(_)
            | Node::Bytes(_)
            | Node::Timestamp(_)
            | Node::Struct(_)) => {
                let text = self.text(side);
                let message = format!("`{text}` is never null: it has type {}", other.ty());
                return Err(error(message, &ast.span));
            }
        };
        match how {
            Comparison::Equal => Ok(Node::Bool(expr)),
            Comparison::NotEqual => Ok(Node::Bool(BoolExpr::Not(Box::new(expr)))),
            Comparison::Less | Comparison::LessEqual | Comparison::Greater | Comparison::GreaterEqual => {
                Err(error(
                    "`null` has no order; only `==` and `!=` compare with it",
                    &ast.span,
                ))
            }
        }
    }

    fn mixed(&self, symbol: Binary, left: (&Type, &Ast), right: (&Type, &Ast), ast: &Ast) -> ExprError {
        let symbol = symbol.symbol();
        let failure = error(
            format!("`{symbol}` does not work on {} and {}", left.0, right.0),
            &ast.span,
        );
        let (a, b) = (self.text(left.1), self.text(right.1));
        match (left.0, right.0) {
            (Type::Int, Type::Double) => failure.suggest(format!("write `double({a}) {symbol} {b}`")),
            (Type::Double, Type::Int) => failure.suggest(format!("write `{a} {symbol} double({b})`")),
            (Type::String, Type::Int | Type::Double | Type::Bool | Type::Timestamp) => {
                failure.suggest(format!("write `{a} {symbol} string({b})`"))
            }
            (Type::Int | Type::Double | Type::Bool | Type::Timestamp, Type::String) => {
                failure.suggest(format!("write `string({a}) {symbol} {b}`"))
            }
            (Type::Timestamp, Type::Int) => {
                failure.suggest(format!("write `int({a}) {symbol} {b}`: milliseconds"))
            }
            (Type::Int, Type::Timestamp) => {
                failure.suggest(format!("write `{a} {symbol} int({b})`: milliseconds"))
            }
            (Type::Timestamp, Type::Timestamp) => {
                failure.suggest(format!("write `int({a}) {symbol} int({b})`: milliseconds"))
            }
            _ => failure,
        }
    }

    /// `needle in [constants]`
    fn is_in(&mut self, left: &Ast, right: &Ast) -> Result<Node, ExprError> {
        let AstKind::List(items) = &right.kind else {
            return Err(error("`in` needs a list of constants at its right", &right.span));
        };
        match self.present(left)? {
            Node::Int(needle) => {
                let list = items.iter().map(int_constant).collect::<Result<_, _>>()?;
                Ok(Node::Bool(BoolExpr::InInts(Box::new(needle), list)))
            }
            Node::String(needle) => {
                let list = items.iter().map(string_constant).collect::<Result<_, _>>()?;
                Ok(Node::Bool(BoolExpr::InStrings(Box::new(needle), list)))
            }
            other @ (Node::Null
            | Node::Bool(_)
            | Node::Double(_)
            | Node::Bytes(_)
            | Node::Timestamp(_)
            | Node::Struct(_)
            | Node::Optional(_)) => Err(needs("`in`", "int or string at its left", &other.ty(), left)),
        }
    }
}

fn int_constant(item: &Ast) -> Result<i64, ExprError> {
    if let AstKind::Int(value) = &item.kind {
        Ok(*value)
    } else {
        Err(error(
            "every item of this list needs to be an int constant",
            &item.span,
        ))
    }
}

fn string_constant(item: &Ast) -> Result<Box<str>, ExprError> {
    if let AstKind::String(value) = &item.kind {
        Ok(value.as_str().into())
    } else {
        Err(error(
            "every item of this list needs to be a string constant",
            &item.span,
        ))
    }
}

/// Flat, so that `a + b + c` is written into one string.
fn concat(left: StringExpr, right: StringExpr) -> StringExpr {
    let mut parts = Vec::new();
    for side in [left, right] {
        if let StringExpr::Concat(inner) = side {
            parts.extend(inner);
        } else {
            parts.push(side);
        }
    }
    StringExpr::Concat(parts.into_boxed_slice())
}
