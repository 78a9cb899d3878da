//! From text to a syntax tree with positions. The only module that names the `cel` crate.

use std::ops::Range;

use cel::common::ast::{CallExpr, EntryExpr, Expr as CelExpr, IdedExpr, LiteralValue, SourceInfo, operators};

use super::ExprError;
use super::node::{Arithmetic, Comparison};

/// Longest expression, in bytes.
pub(crate) const MAX_SOURCE_BYTES: usize = 4096;
/// Deepest nesting; a sum of n terms nests n deep.
pub(crate) const MAX_DEPTH: usize = 200;
/// Most `?` in one expression: the parser calls itself for each conditional.
const MAX_CONDITIONALS: usize = 64;

/// A part of an expression, and where it stands in bytes of the source.
#[derive(Debug)]
pub(crate) struct Ast {
    pub(crate) kind: AstKind,
    pub(crate) span: Range<usize>,
}

#[derive(Debug)]
pub(crate) enum AstKind {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
    Ident(String),
    /// `operand.field`
    Select(Box<Ast>, Name),
    /// `operand.?field`
    OptionalSelect(Box<Ast>, Name),
    /// `operand[index]`
    Index(Box<(Ast, Ast)>),
    /// `operand[?index]`
    OptionalIndex(Box<(Ast, Ast)>),
    Not(Box<Ast>),
    Negate(Box<Ast>),
    Binary(Binary, Box<(Ast, Ast)>),
    And(Box<(Ast, Ast)>),
    Or(Box<(Ast, Ast)>),
    Conditional(Box<(Ast, Ast, Ast)>),
    /// `name(args)` or `target.name(args)`, macros included.
    Call(String, Option<Box<Ast>>, Vec<Ast>),
    List(Vec<Ast>),
    Map(Vec<(Ast, Ast)>),
}

/// A field's name and where it stands.
#[derive(Debug)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) span: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    Arithmetic(Arithmetic),
    Comparison(Comparison),
    In,
}

/// Parses an expression.
pub(crate) fn parse(source: &str) -> Result<Ast, ExprError> {
    let whole = |message: &str| ExprError::new(message, &(0..source.len()));
    if source.trim().is_empty() {
        return Err(whole("the expression is empty"));
    }
    if source.len() > MAX_SOURCE_BYTES {
        return Err(whole(&format!(
            "the expression has {} bytes, at most {MAX_SOURCE_BYTES} are allowed",
            source.len()
        )));
    }
    if source.matches('?').count() > MAX_CONDITIONALS {
        return Err(whole(&format!(
            "the expression has more than {MAX_CONDITIONALS} conditionals `? :`"
        )));
    }
    // An environment without macros: the checker expands them, so that its errors show what was written.
    let (tree, positions) = cel::Env::default()
        .parser()
        .enable_ident_escape_syntax(true)
        .parse_with_source_info(source)
        .map_err(|errors| syntax_error(source, &errors.errors))?;
    Converter { source, positions }.convert(&tree, 0)
}

fn syntax_error(source: &str, errors: &[cel::ParseError]) -> ExprError {
    let Some(error) = errors.first() else {
        return ExprError::new("syntax error", &(0..source.len()));
    };
    let message = error
        .msg
        .trim_start_matches("Syntax error: ")
        .replace("'<EOF>'", "the end")
        .replace("<EOF>", "the end");
    // What could stand there instead is nearly everything.
    let message = match message.strip_prefix("token recognition error at: '") {
        Some(token) if token.starts_with(['\'', '"']) => "the string does not end".to_owned(),
        Some(token) => format!("unexpected `{}`", token.trim_end_matches('\'')),
        None => message
            .split(" expecting {")
            .next()
            .unwrap_or_default()
            .to_owned(),
    };
    let span = match (usize::try_from(error.pos.0), usize::try_from(error.pos.1)) {
        (Ok(line @ 1..), Ok(column @ 1..)) => {
            let before: usize = source.split_inclusive('\n').take(line - 1).map(str::len).sum();
            // The column counts characters.
            let rest = source.get(before..).unwrap_or_default();
            let within = rest
                .char_indices()
                .nth(column - 1)
                .map_or(rest.len(), |(at, _)| at);
            let start = floor(source, before + within);
            start..next(source, start)
        }
        _ => 0..source.len(),
    };
    ExprError::new(format!("syntax error: {message}"), &span)
}

fn floor(source: &str, mut offset: usize) -> usize {
    offset = offset.min(source.len());
    while !source.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

fn next(source: &str, offset: usize) -> usize {
    source[offset..]
        .chars()
        .next()
        .map_or(offset, |c| offset + c.len_utf8())
}

struct Converter<'s> {
    source: &'s str,
    positions: SourceInfo,
}

impl Converter<'_> {
    fn convert(&self, node: &IdedExpr, depth: usize) -> Result<Ast, ExprError> {
        let token = self.token(node.id);
        if depth > MAX_DEPTH {
            let message = format!("the expression is nested more than {MAX_DEPTH} levels deep");
            return Err(ExprError::new(message, &token).suggest("split it into several steps"));
        }
        let (kind, span) = match &node.expr {
            CelExpr::Literal(literal) => return self.literal(literal, token),
            CelExpr::Ident(name) => (AstKind::Ident(name.clone()), token),
            CelExpr::Select(select) => {
                let operand = self.convert(&select.operand, depth + 1)?;
                let name = self.name_after(&select.field, token.end);
                let span = operand.span.start..name.span.end;
                (AstKind::Select(Box::new(operand), name), span)
            }
            CelExpr::Call(call) => return self.call(call, token, depth),
            CelExpr::List(list) => {
                if !list.optional_indices.is_empty() {
                    return Err(ExprError::new(
                        "optional items `[?…]` are not part of the language",
                        &token,
                    ));
                }
                let items: Vec<_> = list
                    .elements
                    .iter()
                    .map(|item| self.convert(item, depth + 1))
                    .collect::<Result<_, _>>()?;
                let end = items.last().map_or(token.end, |item| item.span.end);
                (AstKind::List(items), token.start..self.closing(end, ']'))
            }
            CelExpr::Map(map) => {
                let mut entries = Vec::with_capacity(map.entries.len());
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return Err(ExprError::new("syntax error", &token));
                    };
                    if entry.optional {
                        return Err(ExprError::new(
                            "optional entries `{?…}` are not part of the language",
                            &token,
                        ));
                    }
                    let key = self.convert(&entry.key, depth + 1)?;
                    entries.push((key, self.convert(&entry.value, depth + 1)?));
                }
                let end = entries.last().map_or(token.end, |(_, value)| value.span.end);
                (AstKind::Map(entries), token.start..self.closing(end, '}'))
            }
            CelExpr::Comprehension(_) => return Err(ExprError::new("syntax error", &token)),
            CelExpr::Struct(_) => {
                return Err(ExprError::new(
                    "message literals are not part of the language",
                    &token,
                ));
            }
            CelExpr::Unspecified => return Err(ExprError::new("syntax error", &token)),
        };
        Ok(Ast {
            kind,
            span: self.balanced(span),
        })
    }

    fn literal(&self, literal: &LiteralValue, token: Range<usize>) -> Result<Ast, ExprError> {
        let kind = match literal {
            LiteralValue::Null => AstKind::Null,
            LiteralValue::Boolean(value) => AstKind::Bool(*value.inner()),
            LiteralValue::Int(value) => AstKind::Int(*value.inner()),
            LiteralValue::Double(value) => AstKind::Double(*value.inner()),
            LiteralValue::String(value) => AstKind::String(value.inner().to_owned()),
            LiteralValue::Bytes(value) => AstKind::Bytes(value.inner().to_vec()),
            LiteralValue::UInt(value) => AstKind::Uint(*value.inner()),
        };
        // The token of a negative number is without its sign.
        let mut span = token;
        let negative = match kind {
            AstKind::Int(value) => value < 0,
            AstKind::Double(value) => value.is_sign_negative(),
            _ => false,
        };
        let before = self.source[..span.start].trim_end();
        if negative && before.ends_with('-') {
            span.start = before.len() - 1;
        }
        Ok(Ast { kind, span })
    }

    fn call(&self, call: &CallExpr, token: Range<usize>, depth: usize) -> Result<Ast, ExprError> {
        let target = call
            .target
            .as_ref()
            .map(|target| self.convert(target, depth + 1))
            .transpose()?;
        let args: Vec<_> = call
            .args
            .iter()
            .map(|arg| self.convert(arg, depth + 1))
            .collect::<Result<_, _>>()?;
        let first = target
            .as_ref()
            .or(args.first())
            .map_or(token.start, |ast| ast.span.start);
        let name = call.func_name.as_str();
        let mut start = first.min(token.start);
        if target.is_none() && name.chars().all(|c| c.is_alphanumeric() || c == '_') {
            // The token of a function is its `(`.
            let before = self.source[..token.start].trim_end();
            start = start.min(floor(self.source, before.len().saturating_sub(name.len())));
        }
        let end = args.last().map_or(token.end, |ast| ast.span.end).max(token.end);
        let mut span = start..end;
        let kind = match (name, target, <[Ast; 1]>::try_from(args)) {
            (operators::LOGICAL_NOT, None, Ok([a])) => AstKind::Not(Box::new(a)),
            (operators::NEGATE, None, Ok([a])) => AstKind::Negate(Box::new(a)),
            (_, target, args) => {
                let args = args.map_or_else(|args| args, Vec::from);
                let kind = self.operator(name, target, args, &token)?;
                if matches!(kind, AstKind::Call(..)) {
                    // After the arguments, or after `name(` without any.
                    span.end = self.closing(span.end, ')');
                } else if matches!(kind, AstKind::Index(_) | AstKind::OptionalIndex(_)) {
                    span.end = self.closing(span.end, ']');
                } else if let AstKind::OptionalSelect(_, name) = &kind {
                    span.end = name.span.end;
                }
                kind
            }
        };
        Ok(Ast {
            kind,
            span: self.balanced(span),
        })
    }

    fn operator(
        &self,
        name: &str,
        target: Option<Ast>,
        args: Vec<Ast>,
        token: &Range<usize>,
    ) -> Result<AstKind, ExprError> {
        let args = match (name, <[Ast; 3]>::try_from(args)) {
            (operators::CONDITIONAL, Ok([a, b, c])) => return Ok(AstKind::Conditional(Box::new((a, b, c)))),
            (_, args) => args.map_or_else(|args| args, Vec::from),
        };
        let arithmetic = |how| Some(Binary::Arithmetic(how));
        let comparison = |how| Some(Binary::Comparison(how));
        let binary = match name {
            operators::LOGICAL_AND | operators::LOGICAL_OR => None,
            operators::ADD => arithmetic(Arithmetic::Add),
            operators::SUBSTRACT => arithmetic(Arithmetic::Subtract),
            operators::MULTIPLY => arithmetic(Arithmetic::Multiply),
            operators::DIVIDE => arithmetic(Arithmetic::Divide),
            operators::MODULO => arithmetic(Arithmetic::Modulo),
            operators::EQUALS => comparison(Comparison::Equal),
            operators::NOT_EQUALS => comparison(Comparison::NotEqual),
            operators::LESS => comparison(Comparison::Less),
            operators::LESS_EQUALS => comparison(Comparison::LessEqual),
            operators::GREATER => comparison(Comparison::Greater),
            operators::GREATER_EQUALS => comparison(Comparison::GreaterEqual),
            operators::IN => Some(Binary::In),
            operators::INDEX | operators::OPT_INDEX | operators::OPT_SELECT => None,
            _ => return Ok(AstKind::Call(name.to_owned(), target.map(Box::new), args)),
        };
        let Ok([a, b]) = <[Ast; 2]>::try_from(args) else {
            return Err(ExprError::new("syntax error", token));
        };
        if let (operators::OPT_SELECT, AstKind::String(field)) = (name, &b.kind) {
            let field = self.name_after(field, token.end);
            return Ok(AstKind::OptionalSelect(Box::new(a), field));
        }
        let sides = Box::new((a, b));
        Ok(match (binary, name) {
            (Some(binary), _) => AstKind::Binary(binary, sides),
            (None, operators::INDEX) => AstKind::Index(sides),
            (None, operators::OPT_INDEX) => AstKind::OptionalIndex(sides),
            (None, operators::LOGICAL_AND) => AstKind::And(sides),
            (None, _) => AstKind::Or(sides),
        })
    }

    fn token(&self, id: u64) -> Range<usize> {
        // Both ends are part of the token.
        let (start, end) = self.positions.offset_for(id).unwrap_or((0, u32::MAX - 1));
        let start = floor(self.source, start as usize);
        let end = floor(self.source, end as usize);
        start..next(self.source, end).max(start)
    }

    fn while_chars(&self, from: usize, wanted: impl Fn(char) -> bool) -> usize {
        let rest = self.source.get(from..).unwrap_or("");
        from + rest.find(|c| !wanted(c)).unwrap_or(rest.len())
    }

    fn skip_space(&self, from: usize) -> usize {
        self.while_chars(from, char::is_whitespace)
    }

    /// The name after a dot that stands at or before `from`.
    fn name_after(&self, text: &str, from: usize) -> Name {
        let start = self.while_chars(from, |c| c.is_whitespace() || matches!(c, '.' | '?'));
        let end = if self.source[start..].starts_with('`') {
            next(self.source, self.while_chars(start + 1, |c| c != '`'))
        } else {
            self.while_chars(start, |c| c.is_alphanumeric() || c == '_')
        };
        Name {
            text: text.to_owned(),
            span: start..end,
        }
    }

    /// Just behind the next closing bracket, if only space, `(` and a comma stand before it.
    fn closing(&self, from: usize, bracket: char) -> usize {
        let at = self.while_chars(from, |c| c.is_whitespace() || matches!(c, '(' | ','));
        if self.source[at..].starts_with(bracket) {
            at + 1
        } else {
            from
        }
    }

    /// Takes in the parentheses around an outer operand: `a + b) * c` becomes `(a + b) * c`.
    fn balanced(&self, mut span: Range<usize>) -> Range<usize> {
        let Some(text) = self.source.get(span.clone()) else {
            return 0..self.source.len();
        };
        let (mut open, mut missing) = (0_usize, 0_usize);
        for c in text.chars() {
            match c {
                '(' => open += 1,
                ')' if open > 0 => open -= 1,
                ')' => missing += 1,
                _ => {}
            }
        }
        for _ in 0..missing {
            let before = self.source[..span.start].trim_end();
            if before.ends_with('(') {
                span.start = before.len() - 1;
            }
        }
        for _ in 0..open {
            let at = self.skip_space(span.end);
            if self.source[at..].starts_with(')') {
                span.end = at + 1;
            }
        }
        span
    }
}
