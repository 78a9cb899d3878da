//! From a file's text to a checked application.

use saphyr_parser::ScalarStyle;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use topology::determinism::Variation;
use topology::{Path, Plan, PlanError};

use crate::Diagnostic;
use crate::app::{StreamApp, schema_of};
use crate::check::check;
use crate::shape::Shape;
use crate::source::{Source, find, quote};
use crate::yaml::{self, Node, NodeKind, Position, SyntaxError};

/// A valid application with its plan.
#[derive(Debug)]
pub struct Loaded {
    /// The document.
    pub app: StreamApp,
    /// What `spec.topology` compiles to.
    pub plan: Plan,
    /// What may differ from one run over the same records to another, as far as something can be done about it.
    pub warnings: Vec<Diagnostic>,
}

/// Reads a `StreamApp` from YAML or JSON and plans its topology.
///
/// # Errors
/// Everything that is wrong with the document, in the order of the text. Only YAML that cannot be read at all, and
/// values that leave no document (a missing field, a wrong type), hide what would be found behind them.
pub fn load(text: &str) -> Result<Loaded, Vec<Diagnostic>> {
    let source = Source::new(text);
    let root = yaml::parse(text).map_err(|error| vec![syntax_error(&source, &error)])?;
    let mut diagnostics = Vec::new();
    let app: Option<StreamApp> = shaped(&source, &root, &mut diagnostics);
    let loaded = app.and_then(|app| {
        look(
            &source,
            &root,
            StreamApp { status: None, ..app },
            &mut diagnostics,
        )
    });
    match loaded {
        Some(loaded) if diagnostics.is_empty() => Ok(loaded),
        _ => Err(in_order(diagnostics)),
    }
}

/// In the order of the text.
fn in_order(mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    diagnostics.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
    diagnostics
}

/// A document that is no `StreamApp`, read as strictly: nothing unknown, and every error with its place.
pub struct Document<T> {
    /// What it says.
    pub value: T,
    text: String,
    root: Node,
}

impl<T: DeserializeOwned + JsonSchema> Document<T> {
    /// Reads YAML or JSON.
    ///
    /// # Errors
    /// As [`load`].
    pub fn read(text: &str) -> Result<Self, Vec<Diagnostic>> {
        let source = Source::new(text);
        let root = yaml::parse(text).map_err(|error| vec![syntax_error(&source, &error)])?;
        let mut diagnostics = Vec::new();
        match shaped(&source, &root, &mut diagnostics) {
            Some(value) if diagnostics.is_empty() => Ok(Self {
                value,
                text: text.to_owned(),
                root,
            }),
            _ => Err(in_order(diagnostics)),
        }
    }
}

impl<T> Document<T> {
    /// Something that is wrong with the field at `path`, beyond the document's shape.
    #[must_use]
    pub fn diagnostic(&self, path: &Path, message: String, suggestion: Option<String>) -> Diagnostic {
        let source = Source::new(&self.text);
        let range = source.range(find(&self.root, path));
        source.diagnostic(path, range, message, suggestion)
    }
}

/// The document as a value of its type, unless something is wrong that leaves none.
fn shaped<T: DeserializeOwned + JsonSchema>(
    source: &Source<'_>,
    root: &Node,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<T> {
    let mut shape = Shape::new(source);
    let document = shape.document(root, &schema_of::<T>());
    diagnostics.append(&mut shape.diagnostics);
    if shape.is_broken {
        return None;
    }
    match serde_json::from_value(document) {
        Ok(value) => Some(value),
        // The schema and the types disagree: not for a person to solve, but never hidden.
        Err(error) if diagnostics.is_empty() => {
            let range = source.range(root);
            diagnostics.push(source.diagnostic(&Path::default(), range, error.to_string(), None));
            None
        }
        Err(_) => None,
    }
}

fn look(
    source: &Source<'_>,
    root: &Node,
    app: StreamApp,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Loaded> {
    for (path, (message, suggestion)) in check(&app) {
        let range = source.range(find(root, &path));
        diagnostics.push(source.diagnostic(&path, range, message, suggestion));
    }
    match topology::plan(&app.spec.topology) {
        Ok(plan) => {
            let warnings = plan
                .variations()
                .into_iter()
                .filter(|variation| variation.suggestion.is_some())
                .map(|variation| warning(source, root, variation))
                .collect();
            Some(Loaded { app, plan, warnings })
        }
        Err(errors) => {
            let told: Vec<_> = diagnostics
                .iter()
                .map(|diagnostic| diagnostic.path.clone())
                .collect();
            for error in errors.into_iter().map(|error| plan_error(source, root, error)) {
                // What YAML made of an expression is told already; what that means as an expression is noise.
                if !told.contains(&error.path) {
                    diagnostics.push(error);
                }
            }
            None
        }
    }
}

fn warning(source: &Source<'_>, root: &Node, variation: Variation) -> Diagnostic {
    let Variation {
        cause,
        path,
        message,
        suggestion,
    } = variation;
    let range = source.range(find(root, &path));
    Diagnostic {
        warning: Some(cause.to_string()),
        ..source.diagnostic(&path, range, message, suggestion.map(str::to_owned))
    }
}

fn plan_error(source: &Source<'_>, root: &Node, error: PlanError) -> Diagnostic {
    let PlanError {
        path,
        message,
        span,
        suggestion,
    } = error;
    let node = find(root, &path);
    let mut suggestion = suggestion;
    let range = match (&node.kind, &span) {
        (NodeKind::Scalar(scalar), Some(span)) => {
            let line: String = source
                .line(node.end.line)
                .chars()
                .skip(node.end.column - 1)
                .collect();
            if scalar.style == ScalarStyle::Plain && line.trim_start().starts_with('#') {
                let whole = format!("{}{}", scalar.text, line.trim_end());
                let key = path
                    .segments()
                    .last()
                    .map_or_else(String::new, |segment| match segment {
                        topology::Segment::Field(name) => format!("{name}: "),
                        topology::Segment::Index(_) => String::new(),
                    });
                suggestion = Some(format!(
                    "YAML takes ` #` for a comment; if it is part of the expression, put it in quotes: `{key}{}`",
                    quote(&whole)
                ));
            }
            source.inside(node, scalar, span)
        }
        (NodeKind::Scalar(_) | NodeKind::List(_) | NodeKind::Map(_), _) => source.range(node),
    };
    source.diagnostic(&path, range, message, suggestion)
}

/// YAML cannot be read. Often the reason is an expression without quotes.
fn syntax_error(source: &Source<'_>, error: &SyntaxError) -> Diagnostic {
    let line = source.line(error.position.line);
    let column = error.position.column.min(line.chars().count() + 1);
    let start = Position {
        column,
        ..error.position
    };
    let range = start..Position {
        column: column + 1,
        ..start
    };
    source.diagnostic(&Path::default(), range, error.message.clone(), quoted_line(line))
}

fn quoted_line(line: &str) -> Option<String> {
    let (key, value) = line.trim_start_matches([' ', '-']).split_once(": ")?;
    let value = value.trim();
    let is_name = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_name || value.is_empty() || value.starts_with(['"', '\'', '{', '[', '|', '>']) {
        return None;
    }
    Some(format!(
        "if this is an expression, put it in quotes: `{key}: {}`",
        quote(value)
    ))
}

#[cfg(test)]
mod tests;
