//! A YAML document as a tree in which every node knows its place. JSON is YAML.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

/// Deepest nesting of a document.
const MAX_DEPTH: usize = 64;
/// Most nodes of a document, aliases counted as what they stand for.
const MAX_NODES: usize = 100_000;

/// A place in the text; line and column from 1, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
    /// In characters from the start of the text.
    pub(crate) offset: usize,
}

impl From<Marker> for Position {
    fn from(marker: Marker) -> Self {
        Self {
            line: marker.line().max(1),
            column: marker.col() + 1,
            offset: marker.index(),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) start: Position,
    pub(crate) end: Position,
    pub(crate) kind: NodeKind,
}

#[derive(Clone, Debug)]
pub(crate) enum NodeKind {
    Scalar(Scalar),
    List(Vec<Node>),
    /// Keys in the order of the text, also those that are there twice.
    Map(Vec<(Node, Node)>),
}

#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    pub(crate) style: ScalarStyle,
    /// A tag such as `!x`, other than YAML's own `!!str`.
    pub(crate) tag: Option<String>,
    /// Whether the tag `!!str` says that this is a string.
    pub(crate) is_tagged_string: bool,
}

/// What YAML makes of a scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    Null,
    Bool,
    /// `yes`, `off` and the like: a string in YAML 1.2, a boolean in YAML 1.1, which kubectl uses.
    Yaml11Bool,
    Number,
    String,
}

impl Resolved {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Null => "nothing (null)",
            Self::Bool => "a boolean",
            Self::Yaml11Bool => "a boolean (in YAML 1.1, which kubectl uses)",
            Self::Number => "a number",
            Self::String => "a string",
        }
    }
}

impl Scalar {
    pub(crate) fn resolved(&self) -> Resolved {
        if self.style != ScalarStyle::Plain || self.is_tagged_string {
            return Resolved::String;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Resolved::Null,
            "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Resolved::Bool,
            "y" | "Y" | "yes" | "Yes" | "YES" | "n" | "N" | "no" | "No" | "NO" | "on" | "On" | "ON"
            | "off" | "Off" | "OFF" => Resolved::Yaml11Bool,
            text if is_number(text) => Resolved::Number,
            _ => Resolved::String,
        }
    }
}

fn is_number(text: &str) -> bool {
    if matches!(
        text.trim_start_matches(['+', '-']),
        ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN"
    ) {
        return true;
    }
    let plain = text.replace('_', "");
    let digits = plain.trim_start_matches(['+', '-']);
    if digits
        .strip_prefix("0x")
        .is_some_and(|hex| u64::from_str_radix(hex, 16).is_ok())
        || digits
            .strip_prefix("0o")
            .is_some_and(|octal| u64::from_str_radix(octal, 8).is_ok())
    {
        return true;
    }
    let starts = digits
        .trim_start_matches('.')
        .starts_with(|c: char| c.is_ascii_digit());
    starts && plain.parse::<f64>().is_ok()
}

/// Why there is no tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) position: Position,
    pub(crate) message: String,
}

enum Open {
    List(Vec<Node>),
    Map(Vec<(Node, Node)>, Option<Node>),
}

struct Frame {
    start: Position,
    anchor: usize,
    /// Within braces or brackets.
    is_flow: bool,
    open: Open,
}

#[derive(Default)]
struct Builder {
    text: Vec<char>,
    stack: Vec<Frame>,
    anchors: BTreeMap<usize, Node>,
    root: Option<Node>,
    nodes: usize,
    documents: usize,
}

/// Reads a text with exactly one document.
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let mut builder = Builder {
        text: text.chars().collect(),
        ..Builder::default()
    };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| SyntaxError {
            position: Position::from(*error.marker()),
            message: format!("not valid YAML: {}", error.info()),
        })?;
        builder.event(event, span)?;
    }
    builder.root.ok_or_else(|| SyntaxError {
        position: Position {
            line: 1,
            column: 1,
            offset: 0,
        },
        message: "the file is empty".to_owned(),
    })
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), SyntaxError> {
        let start = Position::from(span.start);
        let end = Position::from(span.end);
        let error = |message: &str| SyntaxError {
            position: start,
            message: message.to_owned(),
        };
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(error(
                        "the file has several documents; put each StreamApp into its own file",
                    ));
                }
            }
            Event::Alias(anchor) => {
                let target = self.anchors.get(&anchor).cloned();
                let target = target.ok_or_else(|| error("this alias stands inside its own anchor"))?;
                self.count(size(&target), start)?;
                self.add(Node { start, end, ..target });
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.count(1, start)?;
                let is_flow = self.stack.last().is_some_and(|frame| frame.is_flow);
                // YAML 1.1 ends a plain text there.
                if is_flow && style == ScalarStyle::Plain && text.contains('?') {
                    let message = format!(
                        "kubectl does not read `{text}` between braces or brackets because of its `?`: write `\"{text}\"`"
                    );
                    return Err(error(&message));
                }
                let is_tagged_string = tag
                    .as_ref()
                    .is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
                let tag = tag.filter(|_| !is_tagged_string).map(|tag| tag.to_string());
                let scalar = Scalar {
                    text: text.into_owned(),
                    style,
                    tag,
                    is_tagged_string,
                };
                self.done(
                    Node {
                        start,
                        end,
                        kind: NodeKind::Scalar(scalar),
                    },
                    anchor,
                );
            }
            Event::SequenceStart(anchor, _) => self.open(start, anchor, Open::List(Vec::new()))?,
            Event::MappingStart(anchor, _) => self.open(start, anchor, Open::Map(Vec::new(), None))?,
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Frame {
                    start, anchor, open, ..
                }) = self.stack.pop()
                else {
                    return Ok(());
                };
                let kind = match open {
                    Open::List(items) => NodeKind::List(items),
                    Open::Map(entries, _) => NodeKind::Map(entries),
                };
                self.done(Node { start, end, kind }, anchor);
            }
        }
        Ok(())
    }

    fn open(&mut self, start: Position, anchor: usize, open: Open) -> Result<(), SyntaxError> {
        self.count(1, start)?;
        if self.stack.len() >= MAX_DEPTH {
            let message = format!("nested more than {MAX_DEPTH} levels deep");
            return Err(SyntaxError {
                position: start,
                message,
            });
        }
        let is_within = self.stack.last().is_some_and(|frame| frame.is_flow);
        let is_flow = is_within || matches!(self.text.get(start.offset), Some('{' | '['));
        self.stack.push(Frame {
            start,
            anchor,
            is_flow,
            open,
        });
        Ok(())
    }

    fn count(&mut self, nodes: usize, position: Position) -> Result<(), SyntaxError> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            let message = format!("the document has more than {MAX_NODES} values");
            return Err(SyntaxError { position, message });
        }
        Ok(())
    }

    fn done(&mut self, node: Node, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        self.add(node);
    }

    fn add(&mut self, node: Node) {
        match self.stack.last_mut().map(|frame| &mut frame.open) {
            None => self.root = Some(node),
            Some(Open::List(items)) => items.push(node),
            Some(Open::Map(entries, pending)) => match pending.take() {
                None => *pending = Some(node),
                Some(key) => entries.push((key, node)),
            },
        }
    }
}

fn size(node: &Node) -> usize {
    match &node.kind {
        NodeKind::Scalar(_) => 1,
        NodeKind::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        NodeKind::Map(entries) => {
            1 + entries
                .iter()
                .map(|(key, value)| size(key) + size(value))
                .sum::<usize>()
        }
    }
}
