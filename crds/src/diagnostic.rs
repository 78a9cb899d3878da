//! One thing to say about a place in a file, for people and for scripts.

use std::fmt::Write as _;

use serde::Serialize;

/// One thing that is wrong with a file, or that whoever wrote it should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// Of what is not wrong: its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// Field of the document, e.g. `spec.topology.pipelines[0].steps[2].filter`; empty for the whole document.
    pub path: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters; inside an expression, that of the part which is meant.
    pub column: usize,
    /// How many characters from `column` are meant; at least 1, all in this line.
    pub length: usize,
    /// What is wrong, or what to know.
    pub message: String,
    /// What to write instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// The line of the file, tabs shown as spaces.
    pub snippet: String,
}

impl Diagnostic {
    /// The diagnostic for people: message, place, line with a marker, help. Ends with a newline.
    #[must_use]
    pub fn render(&self, file_name: &str) -> String {
        let mut out = match &self.warning {
            Some(name) => format!("warning[{name}]: {}\n", self.message),
            None => format!("error: {}\n", self.message),
        };
        let gutter = self.line.to_string();
        let indent = " ".repeat(gutter.len());
        // Writing to a string cannot fail.
        let _ = write!(out, "{indent}--> {file_name}:{}:{}", self.line, self.column);
        if !self.path.is_empty() {
            let _ = write!(out, " ({})", self.path);
        }
        let blank = " ".repeat(self.column - 1);
        let marker = "^".repeat(self.length);
        let _ = write!(
            out,
            "\n{indent} |\n{gutter} | {}\n{indent} | {blank}{marker}\n",
            self.snippet
        );
        if let Some(suggestion) = &self.suggestion {
            let _ = writeln!(out, "{indent} = help: {suggestion}");
        }
        out
    }
}
