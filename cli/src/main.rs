//! `streamapp`: check and run StreamApp files.
//!
//! Exit codes: 0 done · 1 failed, the message says why · 2 wrong usage · 3 the file is not valid · 4 a migration is needed.

#![allow(clippy::print_stderr, reason = "a terminal program")]

mod control_log;
mod explain;
mod files;
mod offsets;
mod out;
mod plan;
mod prepare;
mod run;
mod scale;
mod skip;
mod supervise;
mod test;
mod validate;
mod view;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

/// Exactly-once Kafka streaming applications, declared in one file.
#[derive(Debug, Parser)]
#[command(
    name = "streamapp",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done; 1 failed, the message says why; 2 wrong usage; 3 the file is not valid; 4 a migration is needed."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a StreamApp file on this machine.
    Run(run::RunArgs),
    /// Change the number of workers of a `streamapp run` that goes on.
    Scale(scale::ScaleArgs),
    /// Show where the tasks stand and how the group's offsets compare; restore the offsets, or skip lost records.
    Offsets(offsets::OffsetsArgs),
    /// Let a task pass over one record that it cannot process: it is never processed, and counted.
    Skip(skip::SkipArgs),
    /// Show who owns the application and its tasks; begin a new control log when it was lost.
    ControlLog(control_log::ControlLogArgs),
    /// Check StreamApp files: every error with its line, column and a way out.
    Validate(validate::ValidateArgs),
    /// Show what a StreamApp file becomes: sub-topologies, internal topics, stores and steps, as text or as a picture.
    Explain(explain::ExplainArgs),
    /// Tell what becomes of an application when its topology is replaced: what goes on, and what needs a migration.
    Plan(plan::PlanArgs),
    /// Print the JSON Schema of StreamApp files, for editors: put
    /// `# yaml-language-server: $schema=FILE` into the first line of a file.
    Schema,
    /// Run the test cases of StreamApp files, without a broker.
    Test(test::TestArgs),
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Scale(args) => scale::scale(&args),
        Command::Offsets(args) => offsets::offsets(&args),
        Command::Skip(args) => skip::skip(&args),
        Command::ControlLog(args) => control_log::control_log(&args),
        Command::Validate(args) => validate::validate(&args),
        Command::Plan(args) => plan::plan(&args),
        Command::Schema => validate::schema(),
        Command::Explain(args) => explain::explain(&args),
        Command::Test(args) => test::test(&args),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "streamapp", &mut script);
            out::text(format_args!("{}", String::from_utf8_lossy(&script)));
            ExitCode::SUCCESS
        }
    }
}
