//! `streamapp skip FILE`: lets a task pass over one record that it cannot process.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use protocol::ApplicationId;
use serde_json::json;

use crate::out::say;
use crate::run::settings;
use crate::validate::with_valid;
use crate::view::Format;

#[derive(Debug, Args)]
pub(crate) struct SkipArgs {
    /// The StreamApp file.
    file: PathBuf,
    /// Topic of the record, as the task's error names it.
    #[arg(long, value_name = "NAME")]
    topic: String,
    /// Its partition.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: i32,
    /// Its offset.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    offset: i64,
    /// What to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Where Secrets are that the file names: DIR/<secret>/<key>.
    #[arg(long, value_name = "DIR")]
    secrets: Option<PathBuf>,
}

pub(crate) fn skip(args: &SkipArgs) -> ExitCode {
    with_valid(&args.file, |loaded| decide(args, loaded))
}

fn decide(args: &SkipArgs, loaded: &crds::Loaded) -> anyhow::Result<ExitCode> {
    let application = ApplicationId(loaded.app.application_id().to_owned());
    let settings = settings(loaded, args.secrets.as_deref())?;
    let SkipArgs {
        topic,
        partition,
        offset,
        ..
    } = args;
    let place = (topic.as_str(), *partition, *offset);
    let (input, is_news) = control::skip(&settings, &application, place)?;
    let (task, position) = (input.task, input.position);
    match args.output {
        Format::Json => {
            let said = json!({
                "task": task, "topic": topic, "partition": partition, "offset": offset, "position": position, "isNew": is_news,
            });
            say!("{said:#}");
        }
        Format::Text => {
            let before = if is_news { "" } else { "was told before: " };
            say!("{before}{task} passes over {topic}/{partition}@{offset}; it stands at {position}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
