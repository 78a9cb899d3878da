//! `streamapp validate FILE…` and `streamapp schema`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::files::below;
use crate::out::{say, text};
use crate::view::Format;

/// Exit code of a file that is not valid.
pub(crate) const INVALID: u8 = 3;

#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// StreamApp files (YAML or JSON). Of a directory: all YAML files of the kind StreamApp below it.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Also print the plan: sub-topologies, internal topics, stores, and what keeps it from being deterministic.
    #[arg(long)]
    plan: bool,
    /// How to print errors.
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Reads and checks a file; prints what is wrong with it for people.
pub(crate) fn load(file: &Path) -> Result<crds::Loaded, ExitCode> {
    crds::load(&read(file)?).map_err(|diagnostics| refused(file, &diagnostics, "nothing was started"))
}

/// Does what a command is to do with a file that is valid; prints what is wrong with the file, or why it failed.
pub(crate) fn with_valid(
    file: &Path,
    command: impl FnOnce(&crds::Loaded) -> anyhow::Result<ExitCode>,
) -> ExitCode {
    let loaded = match load(file) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    command(&loaded).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(1)
    })
}

/// Prints for people what is wrong with a file.
pub(crate) fn refused(file: &Path, diagnostics: &[crds::Diagnostic], consequence: &str) -> ExitCode {
    let name = file.display().to_string();
    for diagnostic in diagnostics {
        eprintln!("{}", diagnostic.render(&name));
    }
    let count = diagnostics.len();
    let plural = if count == 1 { "" } else { "s" };
    eprintln!("{name}: {count} error{plural}; {consequence}");
    ExitCode::from(INVALID)
}

/// The text of a file.
pub(crate) fn read(file: &Path) -> Result<String, ExitCode> {
    std::fs::read_to_string(file).map_err(|error| {
        eprintln!("error: cannot read {}: {error}", file.display());
        ExitCode::from(1)
    })
}

pub(crate) fn validate(args: &ValidateArgs) -> ExitCode {
    match below(&args.files, is_stream_app, "is a StreamApp") {
        Ok(files) => match args.output {
            Format::Text => for_people(&files, args.plan),
            Format::Json => for_scripts(&files),
        },
        Err(code) => code,
    }
}

fn for_people(files: &[PathBuf], with_plan: bool) -> ExitCode {
    let mut result = ExitCode::SUCCESS;
    for file in files {
        match load(file) {
            Ok(loaded) => {
                let name = file.display().to_string();
                for warning in &loaded.warnings {
                    eprintln!("{}", warning.render(&name));
                }
                say!("{name}: valid ({})", loaded.app.application_id());
                if with_plan {
                    text(format_args!("{}", loaded.plan.describe()));
                }
            }
            Err(code) => result = code,
        }
    }
    result
}

/// One document, whatever the number of files.
fn for_scripts(files: &[PathBuf]) -> ExitCode {
    let (mut told, mut all_valid) = (Vec::new(), true);
    for file in files {
        let result = match read(file) {
            Ok(text) => crds::load(&text),
            Err(code) => return code,
        };
        all_valid &= result.is_ok();
        told.push(match result {
            Ok(loaded) => {
                let variations = loaded.plan.variations();
                serde_json::json!({
                    "file": file, "valid": true, "errors": [], "warnings": loaded.warnings,
                    "deterministic": variations.is_empty(), "variations": variations,
                })
            }
            Err(errors) => serde_json::json!({"file": file, "valid": false, "errors": errors}),
        });
    }
    say!("{}", serde_json::json!({"valid": all_valid, "files": told}));
    if all_valid {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(INVALID)
    }
}

/// Prints the schema of the files.
pub(crate) fn schema() -> ExitCode {
    say!("{:#}", crds::json_schema());
    ExitCode::SUCCESS
}

/// Whether a file says that it is one; others lie beside it.
fn is_stream_app(file: &Path) -> bool {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().any(|line| {
        let kind = line.strip_prefix("kind:").map(str::trim);
        kind.is_some_and(|kind| kind.trim_matches(['"', '\'']) == "StreamApp")
    })
}
