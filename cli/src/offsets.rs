//! `streamapp offsets FILE`: where the tasks stand, how the group's offsets compare, and what a person may decide when they
//! differ or records are gone.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use control::{InputOffsets, Offsets, OffsetsState};
use protocol::ApplicationId;

use crate::out::say;
use crate::run::settings;
use crate::validate::with_valid;
use crate::view::Format;

#[derive(Debug, Args)]
pub(crate) struct OffsetsArgs {
    /// The StreamApp file.
    file: PathBuf,
    /// Set the group's offsets to the tasks' positions where they differ. Positions are the truth; nothing is lost or
    /// repeated. Workers that hold for it go on.
    #[arg(long, conflicts_with = "skip_lost")]
    restore: bool,
    /// Go on where the topic goes on for tasks whose next records, or whose topic, were deleted: those records are never
    /// processed. A topic that was made again is read from its beginning.
    #[arg(long)]
    skip_lost: bool,
    /// What to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Where Secrets are that the file names: DIR/<secret>/<key>.
    #[arg(long, value_name = "DIR")]
    secrets: Option<PathBuf>,
}

pub(crate) fn offsets(args: &OffsetsArgs) -> ExitCode {
    with_valid(&args.file, |loaded| look(args, loaded))
}

fn look(args: &OffsetsArgs, loaded: &crds::Loaded) -> anyhow::Result<ExitCode> {
    let application = ApplicationId(loaded.app.application_id().to_owned());
    let settings = settings(loaded, args.secrets.as_deref())?;
    let offsets = Offsets::open(&settings, &application)?;
    if args.restore {
        for input in offsets.restore()? {
            let (position, group) = (input.position, shown(input.group));
            eprintln!(
                "restored {}/{}: the group's offset {group} → {position}",
                input.topic, input.partition
            );
        }
    }
    if args.skip_lost {
        for input in offsets.skip_lost()? {
            let (position, nearest) = (input.position, input.nearest());
            eprintln!(
                "skipped {}/{}: {} goes on at {nearest}, not at {position}",
                input.topic, input.partition, input.task
            );
        }
    }
    let found = offsets.look()?;
    match args.output {
        Format::Json => say!("{}", serde_json::to_string_pretty(&found)?),
        Format::Text => print(&found),
    }
    let wrong = |input: &&InputOffsets| !matches!(input.state, OffsetsState::Good | OffsetsState::Moving);
    match found.iter().find(wrong) {
        None => Ok(ExitCode::SUCCESS),
        Some(input) => {
            let way_out = match input.state {
                OffsetsState::InputLost => "--skip-lost goes on where the topic goes on",
                OffsetsState::TopicRecreated => "--skip-lost goes on at the beginning of the new topic",
                OffsetsState::Good
                | OffsetsState::Moving
                | OffsetsState::OffsetsLost
                | OffsetsState::OffsetsAltered => "--restore sets the group's offsets to the positions",
            };
            eprintln!(
                "{}/{}: {:?}; {way_out}",
                input.topic, input.partition, input.state
            );
            Ok(ExitCode::from(1))
        }
    }
}

fn shown(offset: Option<i64>) -> String {
    offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string())
}

fn print(found: &[InputOffsets]) {
    let header = ["TASK", "INPUT", "POSITION", "GROUP", "TOPIC", "STATE"].map(str::to_owned);
    let row = |input: &InputOffsets| {
        [
            input.task.to_string(),
            format!("{}/{}", input.topic, input.partition),
            input.position.to_string(),
            shown(input.group),
            format!("{}..{}", input.low, input.high),
            format!("{:?}", input.state),
        ]
    };
    let rows: Vec<_> = std::iter::once(header).chain(found.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    for row in &rows {
        let cells: Vec<_> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        say!("{}", cells.join("  ").trim_end());
    }
}
