//! `streamapp validate FILE`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::view::Format;

/// Exit code of a file that is not valid.
pub(crate) const INVALID: u8 = 3;

#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// The StreamApp file (YAML or JSON).
    file: PathBuf,
    /// Also print the plan: sub-topologies, internal topics, stores.
    #[arg(long)]
    plan: bool,
    /// How to print errors.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Reads and checks a file; prints what is wrong with it for people.
pub(crate) fn load(file: &Path) -> Result<crds::Loaded, ExitCode> {
    crds::load(&read(file)?).map_err(|diagnostics| refused(file, &diagnostics, "nothing was started"))
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
    match args.output {
        Format::Text => match load(&args.file) {
            Ok(loaded) => {
                println!("{}: valid ({})", args.file.display(), loaded.app.application_id());
                if args.plan {
                    print!("{}", loaded.plan.describe());
                }
                ExitCode::SUCCESS
            }
            Err(code) => code,
        },
        Format::Json => {
            let result = match read(&args.file) {
                Ok(text) => crds::load(&text),
                Err(code) => return code,
            };
            let (valid, errors) = match &result {
                Ok(_) => (true, serde_json::json!([])),
                Err(diagnostics) => (false, serde_json::json!(diagnostics)),
            };
            println!(
                "{}",
                serde_json::json!({"file": args.file, "valid": valid, "errors": errors})
            );
            if valid {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(INVALID)
            }
        }
    }
}
