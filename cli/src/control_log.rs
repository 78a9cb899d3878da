//! `streamapp control-log FILE`: who owns the application and its tasks, and a new log when that was lost.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use control::{Reader, StartOver};
use kafka::{Admin, Settings};
use protocol::{ApplicationId, Ordinal, TaskId, World};
use serde::Serialize;

use crate::out::say;
use crate::run::settings;
use crate::validate::with_valid;
use crate::view::Format;

#[derive(Debug, Args)]
pub(crate) struct ControlLogArgs {
    /// The StreamApp file.
    file: PathBuf,
    /// Begin a new log in place of one that was lost: whatever is left of it is deleted, every producer of the application
    /// is fenced, and workers that followed it may follow the new one. Positions, offsets and stores stay as they are, so
    /// nothing is lost or repeated. The operator, or `streamapp run`, then claims and assigns anew.
    #[arg(long)]
    start_over: bool,
    /// Workers that there may ever have been: those from 0 to N-1 are fenced. Default: 32, or `spec.replicas` if that is
    /// more.
    #[arg(long, value_name = "N", requires = "start_over", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    ordinals: Option<u32>,
    /// Threads that a worker may ever have had. Default: 8, or `spec.threads` if that is more.
    #[arg(long, value_name = "N", requires = "start_over", value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: Option<u32>,
    /// What to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Where Secrets are that the file names: DIR/<secret>/<key>.
    #[arg(long, value_name = "DIR")]
    secrets: Option<PathBuf>,
}

/// What the log says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    topic: String,
    next_offset: i64,
    /// Offsets since its beginning or its last snapshot.
    length: i64,
    started_over: bool,
    claimed_by: Option<String>,
    tasks: BTreeMap<Ordinal, Vec<TaskId>>,
    /// Ordinals that must still give tasks up.
    owing: Vec<Ordinal>,
}

impl Said {
    fn of(reader: &Reader) -> Self {
        let world: &World = reader.world();
        let mut tasks: BTreeMap<Ordinal, Vec<TaskId>> = BTreeMap::new();
        for (task, owner) in world.assignment.iter().flat_map(|(_, owners)| owners) {
            tasks.entry(owner.ordinal).or_default().push(task.clone());
        }
        Self {
            topic: reader.topic().to_owned(),
            next_offset: world.next_offset,
            length: reader.length(),
            started_over: world.started_over,
            claimed_by: world.claim.as_ref().map(|claim| claim.description.clone()),
            tasks,
            owing: world.unsettled_ordinals().into_iter().collect(),
        }
    }

    fn print(&self) {
        let Self {
            topic,
            next_offset,
            length,
            claimed_by,
            ..
        } = self;
        say!("{topic}: next offset {next_offset}, {length} since its beginning");
        say!("claimed by  {}", claimed_by.as_deref().unwrap_or("nobody"));
        for (ordinal, tasks) in &self.tasks {
            let tasks: Vec<_> = tasks.iter().map(ToString::to_string).collect();
            let owes = if self.owing.contains(ordinal) {
                " (must still give up others)"
            } else {
                ""
            };
            say!("worker {ordinal}{owes}  {}", tasks.join(" "));
        }
    }
}

pub(crate) fn control_log(args: &ControlLogArgs) -> ExitCode {
    with_valid(&args.file, |loaded| look(args, loaded))
}

fn look(args: &ControlLogArgs, loaded: &crds::Loaded) -> anyhow::Result<ExitCode> {
    let application = ApplicationId(loaded.app.application_id().to_owned());
    let settings = settings(loaded, args.secrets.as_deref())?;
    let admin = Admin::new(&settings)?;
    if args.start_over {
        start_over(args, loaded, &application, &settings, &admin)?;
    }
    let mut reader = Reader::open(&settings, &admin, &application)?;
    let end = reader.end()?;
    reader.read_to(end)?;
    let said = Said::of(&reader);
    match args.output {
        Format::Json => say!("{}", serde_json::to_string_pretty(&said)?),
        Format::Text => said.print(),
    }
    Ok(ExitCode::SUCCESS)
}

fn start_over(
    args: &ControlLogArgs,
    loaded: &crds::Loaded,
    application: &ApplicationId,
    settings: &Settings,
    admin: &Admin,
) -> anyhow::Result<()> {
    let spec = &loaded.app.spec;
    let ordinals = args.ordinals.unwrap_or_else(|| spec.replicas.max(32));
    let threads = args.threads.unwrap_or_else(|| spec.threads.max(8));
    let all = ordinals * threads;
    eprintln!(
        "fencing {all} producers: workers 0 to {}, {threads} threads each",
        ordinals.max(1) - 1
    );
    let start_over = StartOver {
        settings,
        admin,
        id: application,
        replication_factor: spec.kafka.internal_topics.replication_factor,
        ordinals,
        threads,
    };
    start_over.run(&|done| {
        if done % 50 == 0 || done == all {
            eprintln!("fenced {done} of {all}");
        }
    })?;
    Ok(())
}
