//! Whether a document has the shape that the JSON schema says. Finds everything that is wrong, not only the first.
//!
//! Knows the part of JSON schema that `schemars` makes of our types: `type`, `properties`, `required`,
//! `additionalProperties`, `items`, `enum`, `const` in `oneOf`, `anyOf` with null, `minimum`/`maximum`,
//! `minProperties`/`maxProperties`, and our own `format`s.

use std::ops::Range;

use serde_json::{Map, Value};
use topology::{Path, nearest};

use crate::Diagnostic;
use crate::check::check_format;
use crate::source::{Source, key_text, quote};
use crate::yaml::{Node, NodeKind, Position, Resolved, Scalar};

pub(crate) struct Shape<'s> {
    source: &'s Source<'s>,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Whether something is wrong that leaves no document to look at further.
    pub(crate) is_broken: bool,
}

/// What a node stands behind, for messages.
#[derive(Clone, Copy)]
struct At<'a> {
    path: &'a Path,
    /// The key in front of the node, and whether both stand in `{ }`.
    key: Option<(&'a Node, bool)>,
}

impl<'s> Shape<'s> {
    pub(crate) fn new(source: &'s Source<'s>) -> Self {
        Self {
            source,
            diagnostics: Vec::new(),
            is_broken: false,
        }
    }

    /// Checks a document and returns it as JSON, unknown fields left out.
    pub(crate) fn document(&mut self, node: &Node, schema: &Value) -> Value {
        let path = Path::default();
        self.walk(
            node,
            schema,
            At {
                path: &path,
                key: None,
            },
        )
        .unwrap_or(Value::Null)
    }

    fn error(
        &mut self,
        path: &Path,
        range: Range<Position>,
        message: impl Into<String>,
        suggestion: Option<String>,
    ) {
        self.diagnostics
            .push(self.source.diagnostic(path, range, message, suggestion));
    }

    fn walk(&mut self, node: &Node, schema: &Value, at: At<'_>) -> Option<Value> {
        let schema = without_null(schema);
        if let Some(allowed) = choices(schema) {
            return self.choice(node, &allowed, at);
        }
        match (type_of(schema), &node.kind) {
            ("object", NodeKind::Map(entries)) => self.object(node, entries, schema, at.path),
            ("array", NodeKind::List(items)) => {
                let schema = schema.get("items").unwrap_or(&Value::Bool(true));
                let walked = items.iter().enumerate().map(|(index, item)| {
                    let path = at.path.index(index);
                    self.walk(
                        item,
                        schema,
                        At {
                            path: &path,
                            key: None,
                        },
                    )
                });
                // All items first: each may have errors.
                walked.collect::<Vec<_>>().into_iter().collect()
            }
            ("string", NodeKind::Scalar(scalar)) => self.string(node, scalar, schema, at),
            ("integer", NodeKind::Scalar(scalar)) => self.integer(node, scalar, schema, at),
            ("boolean", NodeKind::Scalar(_)) if as_json(node).is_boolean() => Some(as_json(node)),
            ("any", _) => Some(as_json(node)),
            (wanted, _) => self.wrong_type(node, expected(wanted, schema), at),
        }
    }

    fn wrong_type(&mut self, node: &Node, wanted: &str, at: At<'_>) -> Option<Value> {
        self.is_broken = true;
        let found = found(node);
        let suggestion = (wanted == "an object" && found == Resolved::Null.name())
            .then(|| {
                at.key
                    .and_then(|(key, _)| key_text(key))
                    .map(|key| format!("write `{key}: {{}}`"))
            })
            .flatten();
        self.error(
            at.path,
            self.source.range(node),
            format!("expected {wanted}, found {found}"),
            suggestion,
        );
        None
    }

    fn object(
        &mut self,
        node: &Node,
        entries: &[(Node, Node)],
        schema: &Value,
        path: &Path,
    ) -> Option<Value> {
        let none = Map::new();
        let properties = schema
            .get("properties")
            .and_then(Value::as_object)
            .unwrap_or(&none);
        let others = schema.get("additionalProperties");
        let is_flow = self
            .source
            .line(node.start.line)
            .chars()
            .nth(node.start.column - 1)
            == Some('{');
        let exactly_one = schema.get("maxProperties").and_then(Value::as_u64) == Some(1);
        let mut result = Map::new();
        let mut seen: Vec<&str> = Vec::new();
        let mut complete = true;
        for (key, value) in entries {
            let Some(name) = key_text(key) else {
                self.error(
                    path,
                    self.source.range(key),
                    "a field's name needs to be a string",
                    None,
                );
                continue;
            };
            let path = path.field(name);
            if let NodeKind::Scalar(scalar) = &key.kind
                && scalar.resolved() == Resolved::Yaml11Bool
            {
                let what = Resolved::Yaml11Bool.name();
                let message = format!("`{name}` is {what}: applied, the field would have another name");
                let instead = format!("write `{}:`", quote(name));
                self.error(&path, key.start..key.end, message, Some(instead));
            }
            if seen.contains(&name) {
                self.error(
                    &path,
                    key.start..key.end,
                    format!("field `{name}` is there twice"),
                    None,
                );
                continue;
            }
            seen.push(name);
            let schema = match (properties.get(name), others) {
                (Some(schema), _) => schema,
                (None, Some(Value::Bool(false))) => {
                    self.unknown_field(key, name, properties, &path);
                    continue;
                }
                (None, Some(schema)) => schema,
                (None, None) => continue,
            };
            // Kubernetes takes null as absent. In a step it is most likely a forgotten value.
            if is_null(value)
                && !exactly_one
                && !is_required(schema_required(schema), name)
                && nullable(schema)
            {
                continue;
            }
            match self.walk(
                value,
                schema,
                At {
                    path: &path,
                    key: Some((key, is_flow)),
                },
            ) {
                Some(value) => _ = result.insert(name.to_owned(), value),
                None => complete = false,
            }
        }
        if exactly_one {
            self.exactly_one(node, entries, properties, path);
        }
        let missing: Vec<_> = schema_required(schema)
            .filter(|name| !seen.contains(name))
            .map(str::to_owned)
            .collect();
        for name in &missing {
            self.is_broken = true;
            let what = example(properties.get(name));
            let message = format!("missing field `{name}`");
            self.error(
                path,
                self.source.range(node),
                message,
                Some(format!("add `{name}: {what}`")),
            );
        }
        (complete && missing.is_empty()).then_some(Value::Object(result))
    }

    fn unknown_field(&mut self, key: &Node, name: &str, properties: &Map<String, Value>, path: &Path) {
        let known: Vec<_> = properties.keys().map(String::as_str).collect();
        let suggestion = match nearest(name, known.iter().copied()) {
            Some(found) => Some(format!("did you mean `{found}`?")),
            None if known.len() <= 12 => Some(format!("known fields: {}", list(&known))),
            None => None,
        };
        self.error(
            path,
            key.start..key.end,
            format!("unknown field `{name}`"),
            suggestion,
        );
    }

    fn exactly_one(
        &mut self,
        node: &Node,
        entries: &[(Node, Node)],
        properties: &Map<String, Value>,
        path: &Path,
    ) {
        let known: Vec<_> = entries
            .iter()
            .filter(|(key, _)| key_text(key).is_some_and(|name| properties.contains_key(name)))
            .collect();
        match known.as_slice() {
            [_] => {}
            [] if entries.is_empty() => {
                let names: Vec<_> = properties.keys().map(String::as_str).collect();
                let message = format!("exactly one field is needed: {}", list(&names));
                self.is_broken = true;
                self.error(path, self.source.range(node), message, None);
            }
            // The unknown field has its own error.
            [] => self.is_broken = true,
            [_, (second, _), ..] => {
                let names: Vec<_> = known.iter().filter_map(|(key, _)| key_text(key)).collect();
                let message = format!(
                    "exactly one field is allowed here, there are {}: {}",
                    names.len(),
                    list(&names)
                );
                self.is_broken = true;
                let in_list = matches!(path.segments().last(), Some(topology::Segment::Index(_)));
                let help = in_list.then(|| "begin each step with `- `".to_owned());
                self.error(path, second.start..second.end, message, help);
            }
        }
    }

    fn choice(&mut self, node: &Node, allowed: &[&str], at: At<'_>) -> Option<Value> {
        let NodeKind::Scalar(scalar) = &node.kind else {
            return self.wrong_type(node, &format!("one of {}", list(allowed)), at);
        };
        if allowed.contains(&scalar.text.as_str()) {
            return Some(Value::String(scalar.text.clone()));
        }
        self.is_broken = true;
        let message = match allowed {
            [only] => format!("`{}` is not possible here, only `{only}` is", scalar.text),
            several => format!("`{}` is not one of {}", scalar.text, list(several)),
        };
        let suggestion =
            nearest(&scalar.text, allowed.iter().copied()).map(|near| format!("did you mean `{near}`?"));
        self.error(at.path, node.start..node.end, message, suggestion);
        None
    }

    fn integer(&mut self, node: &Node, scalar: &Scalar, schema: &Value, at: At<'_>) -> Option<Value> {
        let number = (scalar.resolved() == Resolved::Number)
            .then(|| scalar.text.parse::<i64>().ok())
            .flatten();
        let Some(number) = number else {
            let unquoted = scalar
                .text
                .parse::<i64>()
                .ok()
                .map(|number| format!("write `{number}` without quotes"));
            self.is_broken = true;
            let message = format!("expected a whole number, found {}", found(node));
            self.error(at.path, node.start..node.end, message, unquoted);
            return None;
        };
        let bound = |name: &str| schema.get(name).and_then(Value::as_i64);
        if bound("minimum").is_some_and(|minimum| number < minimum)
            || bound("maximum").is_some_and(|maximum| number > maximum)
        {
            self.is_broken = true;
            let text = |bound: Option<i64>| bound.map_or("any".to_owned(), |bound| bound.to_string());
            let message = format!(
                "{number} is out of range: {} to {}",
                text(bound("minimum")),
                text(bound("maximum"))
            );
            self.error(at.path, node.start..node.end, message, None);
            return None;
        }
        Some(Value::from(number))
    }

    fn string(&mut self, node: &Node, scalar: &Scalar, schema: &Value, at: At<'_>) -> Option<Value> {
        let format = schema.get("format").and_then(Value::as_str).unwrap_or("");
        let is_expression = format == "cel";
        let what = if is_expression {
            "an expression"
        } else {
            "a string"
        };
        if let Some(tag) = &scalar.tag {
            let raw = self.behind_key(node, at);
            let message = format!("YAML reads `{tag}` as a tag, not as part of {what}");
            self.error(
                at.path,
                self.source.range(node),
                message,
                Some(self.write(at, &raw)),
            );
            return Some(Value::String(raw));
        }
        let resolved = scalar.resolved();
        match resolved {
            Resolved::String => {}
            Resolved::Null => {
                self.is_broken = true;
                let message = format!("{what} is missing");
                self.error(at.path, self.source.range(node), message, None);
                return None;
            }
            Resolved::Bool | Resolved::Number | Resolved::Yaml11Bool => {
                let message = format!("`{}` is {}; {what} is needed here", scalar.text, resolved.name());
                self.error(
                    at.path,
                    node.start..node.end,
                    message,
                    Some(self.write(at, &scalar.text)),
                );
            }
        }
        if let Err((message, suggestion)) = check_format(format, &scalar.text) {
            self.is_broken |= format.starts_with("streamapp-duration");
            self.error(at.path, node.start..node.end, message, suggestion);
        }
        Some(Value::String(scalar.text.clone()))
    }

    fn write(&self, at: At<'_>, text: &str) -> String {
        let key = at
            .key
            .and_then(|(key, _)| key_text(key))
            .map_or_else(String::new, |key| format!("{key}: "));
        format!("put it in quotes: `{key}{}`", quote(text))
    }

    /// What a person wrote behind the key, where YAML made something else of it.
    fn behind_key(&self, node: &Node, at: At<'_>) -> String {
        let (line, column, is_flow) = match at.key {
            Some((key, is_flow)) => (key.end.line, key.end.column, is_flow),
            None => (node.start.line, node.start.column, true),
        };
        let rest: String = self.source.line(line).chars().skip(column - 1).collect();
        let rest = rest
            .trim_start_matches(['"', '\''])
            .trim_start()
            .trim_start_matches(':')
            .trim();
        let end = if is_flow {
            rest.find([',', '}', ']']).unwrap_or(rest.len())
        } else {
            rest.len()
        };
        rest[..end].trim_end().to_owned()
    }
}

/// `anyOf: [schema, {type: null}]` is `schema`.
fn without_null(schema: &Value) -> &Value {
    let Some(options) = schema.get("anyOf").and_then(Value::as_array) else {
        return schema;
    };
    options
        .iter()
        .find(|option| option.get("type").and_then(Value::as_str) != Some("null"))
        .unwrap_or(schema)
}

fn nullable(schema: &Value) -> bool {
    schema.get("anyOf").is_some()
        || schema.get("default").is_some()
        || schema
            .get("type")
            .and_then(Value::as_array)
            .is_some_and(|types| types.contains(&Value::from("null")))
}

fn type_of(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(name)) => name,
        Some(Value::Array(names)) => names
            .iter()
            .filter_map(Value::as_str)
            .find(|name| *name != "null")
            .unwrap_or("any"),
        _ => "any",
    }
}

fn choices(schema: &Value) -> Option<Vec<&str>> {
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return Some(values.iter().filter_map(Value::as_str).collect());
    }
    if let Some(value) = schema.get("const").and_then(Value::as_str) {
        return Some(vec![value]);
    }
    let options = schema.get("oneOf").and_then(Value::as_array)?;
    let nested: Vec<Vec<&str>> = options.iter().map(choices).collect::<Option<_>>()?;
    Some(nested.into_iter().flatten().collect())
}

fn schema_required(schema: &Value) -> impl Iterator<Item = &str> {
    schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn is_required<'a>(mut required: impl Iterator<Item = &'a str>, name: &str) -> bool {
    required.any(|required| required == name)
}

fn is_null(node: &Node) -> bool {
    matches!(&node.kind, NodeKind::Scalar(scalar) if scalar.tag.is_none() && scalar.resolved() == Resolved::Null)
}

/// A document of any shape, as YAML 1.2 reads it. Of keys that are there twice the last counts.
fn as_json(node: &Node) -> Value {
    match &node.kind {
        NodeKind::Scalar(scalar) => match scalar.resolved() {
            Resolved::Null => Value::Null,
            Resolved::Bool => Value::Bool(scalar.text.eq_ignore_ascii_case("true")),
            Resolved::Number => {
                serde_json::from_str(&scalar.text).unwrap_or_else(|_| Value::String(scalar.text.clone()))
            }
            Resolved::Yaml11Bool | Resolved::String => Value::String(scalar.text.clone()),
        },
        NodeKind::List(items) => items.iter().map(as_json).collect(),
        NodeKind::Map(entries) => {
            let entries = entries
                .iter()
                .map(|(key, value)| (key_text(key).unwrap_or_default().to_owned(), as_json(value)));
            Value::Object(entries.collect())
        }
    }
}

fn found(node: &Node) -> &'static str {
    match &node.kind {
        NodeKind::Scalar(scalar) => scalar.resolved().name(),
        NodeKind::List(_) => "a list",
        NodeKind::Map(_) => "an object",
    }
}

fn expected(wanted: &str, schema: &Value) -> &'static str {
    match wanted {
        "string" if schema.get("format").and_then(Value::as_str) == Some("cel") => "an expression (a string)",
        "string" => "a string",
        "integer" => "a whole number",
        "boolean" => "true or false",
        "array" => "a list",
        _ => "an object",
    }
}

/// What to write behind a missing field's name.
fn example(schema: Option<&Value>) -> String {
    let Some(schema) = schema.map(without_null) else {
        return "…".to_owned();
    };
    match (choices(schema), type_of(schema)) {
        (Some(allowed), _) if !allowed.is_empty() => allowed.join("|"),
        (_, "object") => "{…}".to_owned(),
        (_, "array") => "[…]".to_owned(),
        _ => "…".to_owned(),
    }
}

fn list(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}
