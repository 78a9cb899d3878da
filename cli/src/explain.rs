//! `streamapp explain FILE`: what a file becomes, as text or as a picture.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use topology::Drawing;

use crate::out;
use crate::validate::load;

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The StreamApp file (YAML or JSON).
    file: PathBuf,
    /// As what.
    #[arg(long, value_enum, default_value_t = Form::Text)]
    output: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Sub-topologies, topics, stores and steps as indented text.
    Text,
    /// A flowchart for Mermaid, which Markdown viewers draw.
    Mermaid,
    /// A graph for Graphviz: `… --output dot | dot -Tsvg`.
    Dot,
}

pub(crate) fn explain(args: &ExplainArgs) -> ExitCode {
    match load(&args.file) {
        Ok(loaded) => {
            let text = match args.output {
                Form::Text => loaded.plan.describe(),
                Form::Mermaid => loaded.plan.draw(Drawing::Mermaid),
                Form::Dot => loaded.plan.draw(Drawing::Dot),
            };
            out::text(format_args!("{text}"));
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}
