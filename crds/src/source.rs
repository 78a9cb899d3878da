//! The text of a file: from places in a document to places in the text.

use std::ops::Range;

use saphyr_parser::ScalarStyle;
use topology::{Path, Segment};

use crate::Diagnostic;
use crate::yaml::{Node, NodeKind, Position, Scalar};

pub(crate) struct Source<'t> {
    text: &'t str,
    lines: Vec<&'t str>,
}

impl<'t> Source<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self {
            text,
            lines: text.lines().collect(),
        }
    }

    /// Line, from 1.
    pub(crate) fn line(&self, line: usize) -> &'t str {
        self.lines.get(line.saturating_sub(1)).copied().unwrap_or("")
    }

    /// The text between two places.
    pub(crate) fn between(&self, start: Position, end: Position) -> String {
        self.text
            .chars()
            .skip(start.offset)
            .take(end.offset.saturating_sub(start.offset))
            .collect()
    }

    /// A diagnostic with a marker from `start` to `end`, at most to the end of the line.
    pub(crate) fn diagnostic(
        &self,
        path: &Path,
        range: Range<Position>,
        message: impl Into<String>,
        suggestion: Option<String>,
    ) -> Diagnostic {
        let start = range.start;
        let snippet = self.line(start.line).replace('\t', " ");
        let room = snippet.chars().count().saturating_sub(start.column - 1);
        let length = if range.end.line == start.line {
            range.end.column.saturating_sub(start.column)
        } else {
            self.line(start.line)
                .trim_end()
                .chars()
                .count()
                .saturating_sub(start.column - 1)
        };
        Diagnostic {
            warning: None,
            path: path.to_string(),
            line: start.line,
            column: start.column,
            length: length.min(room).max(1),
            message: message.into(),
            suggestion,
            snippet,
        }
    }

    /// What is meant by a node: a scalar as it is; of a list or object its first line only.
    pub(crate) fn range(&self, node: &Node) -> Range<Position> {
        match &node.kind {
            NodeKind::Scalar(_) => node.start..node.end,
            NodeKind::List(_) | NodeKind::Map(_) => {
                let line = self.line(node.start.line).trim_end().chars().count();
                let end = Position {
                    column: line + 1,
                    ..node.start
                };
                node.start..end
            }
        }
    }

    /// Where a range of bytes of a scalar's value stands. The scalar's start when that cannot be said: when it goes
    /// over several lines.
    pub(crate) fn inside(&self, node: &Node, scalar: &Scalar, span: &Range<usize>) -> Range<Position> {
        let one_line = node.start.line == node.end.line;
        let raw: Vec<char> = self.between(node.start, node.end).chars().collect();
        let positions = match scalar.style {
            ScalarStyle::Plain if one_line => Some((0..=raw.len()).collect()),
            ScalarStyle::SingleQuoted if one_line => Some(quoted(&raw, '\'')),
            ScalarStyle::DoubleQuoted if one_line => Some(quoted(&raw, '"')),
            ScalarStyle::Plain
            | ScalarStyle::SingleQuoted
            | ScalarStyle::DoubleQuoted
            | ScalarStyle::Literal
            | ScalarStyle::Folded => None,
        };
        let at = |byte: usize| {
            let characters = scalar.text.get(..byte)?.chars().count();
            positions.as_ref()?.get(characters).copied()
        };
        match (at(span.start), at(span.end)) {
            (Some(start), Some(end)) => {
                let shift = |by: usize| Position {
                    column: node.start.column + by,
                    offset: node.start.offset + by,
                    ..node.start
                };
                shift(start)..shift(end)
            }
            _ => {
                node.start..Position {
                    column: node.start.column + 1,
                    ..node.start
                }
            }
        }
    }
}

/// For each character of a quoted scalar's value, and for its end, the index in the quoted text.
fn quoted(raw: &[char], quote: char) -> Vec<usize> {
    let mut positions = Vec::new();
    let mut index = 1;
    while index < raw.len() {
        positions.push(index);
        index += match (raw[index], raw.get(index + 1)) {
            (c, Some(next)) if c == quote && quote == '\'' && *next == quote => 2,
            (c, _) if c == quote => break,
            ('\\', Some(escape)) if quote == '"' => match escape {
                'x' => 4,
                'u' => 6,
                'U' => 10,
                _ => 2,
            },
            _ => 1,
        };
    }
    positions
}

/// The node at a path, or the innermost one on the way to it that there is.
pub(crate) fn find<'n>(root: &'n Node, path: &Path) -> &'n Node {
    let mut node = root;
    for segment in path.segments() {
        let next = match (segment, &node.kind) {
            (Segment::Field(name), NodeKind::Map(entries)) => entries
                .iter()
                .find(|(key, _)| key_text(key) == Some(name))
                .map(|(_, value)| value),
            (Segment::Index(index), NodeKind::List(items)) => items.get(*index),
            (Segment::Field(_) | Segment::Index(_), _) => None,
        };
        match next {
            Some(next) => node = next,
            None => break,
        }
    }
    node
}

pub(crate) fn key_text(key: &Node) -> Option<&str> {
    match &key.kind {
        NodeKind::Scalar(scalar) => Some(&scalar.text),
        NodeKind::List(_) | NodeKind::Map(_) => None,
    }
}

/// A text as YAML in quotes.
pub(crate) fn quote(text: &str) -> String {
    if text.contains(['"', '\\']) {
        format!("'{}'", text.replace('\'', "''"))
    } else {
        format!("\"{text}\"")
    }
}
