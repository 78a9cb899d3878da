//! `streamapp plan FILE --offline OLD`: what becomes of an application that runs with another topology.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use crds::Loaded;
use topology::compare::{Verdict, Version, compare, verdict};

use crate::out::say;
use crate::validate::load;
use crate::view::Format;

/// Exit code of a topology that cannot go on with what the application has.
const NEEDS_MIGRATION: u8 = 4;

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The StreamApp file (YAML or JSON) as it shall be.
    file: PathBuf,
    /// The StreamApp file as it is: nothing that runs is asked.
    #[arg(long, value_name = "FILE")]
    offline: PathBuf,
    /// How to print what differs.
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    output: Format,
}

pub(crate) fn plan(args: &PlanArgs) -> ExitCode {
    match (load(&args.offline), load(&args.file)) {
        (Ok(old), Ok(new)) => tell(args, &old, &new),
        (Err(code), _) | (_, Err(code)) => code,
    }
}

fn tell(args: &PlanArgs, old: &Loaded, new: &Loaded) -> ExitCode {
    let (old_id, new_id) = (old.app.application_id(), new.app.application_id());
    if old_id != new_id {
        eprintln!(
            "error: {} is the application `{new_id}`, {} is `{old_id}`: an application with another id begins anew; \
             give both the same `spec.applicationId` to compare their topologies",
            args.file.display(),
            args.offline.display()
        );
        return ExitCode::FAILURE;
    }
    let differences = compare(of(old), of(new));
    let verdict = verdict(&differences);
    match args.output {
        Format::Json => say!(
            "{}",
            serde_json::json!({"applicationId": new_id, "verdict": verdict, "differences": differences})
        ),
        Format::Text => {
            for difference in &differences {
                let mark = match difference.verdict {
                    Verdict::Compatible => " ",
                    Verdict::NeedsMigration => "!",
                };
                say!("{mark} {difference}");
            }
            say!(
                "{new_id}: {}",
                match verdict {
                    Verdict::Compatible if differences.is_empty() => "Compatible, nothing differs",
                    Verdict::Compatible => "Compatible: it goes on with what it has",
                    Verdict::NeedsMigration =>
                        "NeedsMigration: with this topology it cannot go on with what it has; give what differs (!) other names, or the application another id",
                }
            );
        }
    }
    match verdict {
        Verdict::Compatible => ExitCode::SUCCESS,
        Verdict::NeedsMigration => ExitCode::from(NEEDS_MIGRATION),
    }
}

fn of(loaded: &Loaded) -> Version<'_> {
    Version {
        topology: &loaded.app.spec.topology,
        plan: &loaded.plan,
    }
}
