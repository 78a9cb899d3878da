//! `streamapp scale FILE --workers N`: another number of workers for a `streamapp run` that goes on. The wish is a file in
//! the state directory; the run takes it away when it is fulfilled.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use protocol::ApplicationId;

use crate::out::say;
use crate::run::{WORKERS, lock, pause, state_dir};
use crate::validate::with_valid;

/// The wish.
const FILE: &str = "workers";
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// The StreamApp file that runs.
    file: PathBuf,
    /// Worker processes; tasks that move are committed by the old worker before the new one begins.
    #[arg(long, value_parser = clap::value_parser!(u32).range(WORKERS))]
    workers: u32,
    /// Where the run's stores live; `.streamapp/<applicationId>` when absent.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Give up waiting after this many seconds; the run goes on with it.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
}

pub(crate) fn scale(args: &ScaleArgs) -> ExitCode {
    with_valid(&args.file, |loaded| {
        ask(args, &ApplicationId(loaded.app.application_id().to_owned()))?;
        Ok(ExitCode::SUCCESS)
    })
}

fn ask(args: &ScaleArgs, application: &ApplicationId) -> anyhow::Result<()> {
    let directory = state_dir(args.state_dir.as_deref(), application);
    if !directory.is_dir() || lock(&directory, application).is_ok() {
        bail!(
            "no `streamapp run` of {application} uses {}; start it with --workers {}",
            directory.display(),
            args.workers
        );
    }
    let file = directory.join(FILE);
    let new = directory.join(format!("{FILE}.new"));
    let written = || format!("write {}", file.display());
    std::fs::write(&new, args.workers.to_string()).with_context(written)?;
    std::fs::rename(&new, &file).with_context(written)?;
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    while file.exists() {
        if Instant::now() > deadline {
            bail!(
                "the run has not finished after {} s; it shows what it waits for",
                args.timeout
            );
        }
        pause(LOOK);
    }
    say!("{application}: {} worker(s)", args.workers);
    Ok(())
}

/// The number of workers that somebody asked for.
pub(crate) fn wanted(directory: &Path) -> anyhow::Result<Option<u32>> {
    let file = directory.join(FILE);
    match std::fs::read_to_string(&file) {
        Ok(text) => {
            let wanted = text
                .trim()
                .parse()
                .ok()
                .filter(|workers| WORKERS.contains(&i64::from(*workers)));
            wanted
                .map(Some)
                .with_context(|| format!("{} holds `{text}`, which is no number of workers", file.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", file.display())),
    }
}

/// Takes a wish away that is fulfilled; one that came meanwhile stays.
pub(crate) fn fulfilled(directory: &Path, workers: u32) -> anyhow::Result<()> {
    if wanted(directory)? == Some(workers) {
        forget(directory)?;
    }
    Ok(())
}

/// Takes any wish away.
pub(crate) fn forget(directory: &Path) -> anyhow::Result<()> {
    let file = directory.join(FILE);
    match std::fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", file.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
