//! The clock of a worker's machine jumps. No decision about a record hangs on it; a store whose date cannot be trusted is
//! rebuilt.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::faults::stateful;
use super::scene::PARTITIONS;
use super::{Counted, Integration};
use crate::app::{App, Launch};

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
/// In seconds.
const HOUR: i64 = 3_600;
pub(super) const DAY: i64 = 24 * HOUR;

/// The time of day that programs see: how far it is from the real one.
pub(super) struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    pub(super) fn new(directory: &Path) -> Result<Self> {
        let directory = std::path::absolute(directory)?;
        let (source, library) = (directory.join("clock.c"), directory.join("clock.so"));
        std::fs::write(&source, include_str!("clock.c"))?;
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .status()
            .context("run cc")?;
        ensure!(compiled.success(), "{} does not compile", source.display());
        let file = directory.join("clock");
        Ok(Self { library, file })
    }

    /// In seconds. Programs that run see it at once.
    pub(super) fn set(&self, distance: i64) -> Result<()> {
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.file)?;
        Ok(file.write_all(&distance.to_ne_bytes())?)
    }

    pub(super) fn start(&self, mut launch: Launch) -> Result<App> {
        let variables = [("LD_PRELOAD", &self.library), ("CLOCK_DISTANCE", &self.file)];
        let variables = variables.map(|(name, path)| (name.to_owned(), path.display().to_string()));
        launch.environment.extend(variables);
        let mut app = launch.start()?;
        app.wait_running(1, SECONDS(60))?;
        Ok(app)
    }
}

/// First the clock is five days late, so that the stores seem old when it is right again: tombstones may be gone. Then it
/// jumps to and fro while orders come in, and is two hours early at the end: nobody knows how old the stores are.
pub(super) fn jumps(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    let clock = Clock::new(&scene.state_dir)?;
    let wipes = |app: App| -> Result<u64> {
        let last = app.drain()?;
        last["totals"]["storeWipes"].as_u64().context("storeWipes")
    };
    let stores = u64::try_from(PARTITIONS)?;
    clock.set(-5 * DAY)?;
    let app = clock.start(scene.launch())?;
    scene.orders(0, 1_000, 0, None)?;
    scene.wait_drained(SECONDS(60))?;
    ensure!(wipes(app)? == 0, "new stores were wiped");

    clock.set(0)?;
    let app = clock.start(scene.launch())?;
    scene.orders_beside(1_000, 4_000, 1_000, || {
        for (jump, distance) in [2 * HOUR, -2 * HOUR, 30 * DAY, -DAY, 2 * HOUR]
            .into_iter()
            .enumerate()
        {
            let so_far = app.status(0)?["totals"]["recordsIn"].as_u64().unwrap_or(0);
            clock.set(distance)?;
            crate::wait::until(&format!("work after jump {jump}"), SECONDS(30), || {
                let status = app.status(0).map_err(|error| format!("{error:#}"))?;
                match status["totals"]["recordsIn"].as_u64() {
                    Some(now) if now > so_far + 500 => Ok(Ok(())),
                    now => Err(format!("{now:?} records, {so_far} before it")),
                }
            })?;
        }
        Ok(())
    })?;
    scene.wait_drained(SECONDS(60))?;
    ensure!(app.events("died") == 0, "the worker died: {}", app.words());
    let old = wipes(app)?;
    ensure!(old == stores, "{old} old stores were rebuilt, not {stores}");

    clock.set(0)?;
    let app = clock.start(scene.launch())?;
    scene.orders(5_000, 1_000, 0, None)?;
    scene.wait_drained(SECONDS(60))?;
    let future = wipes(app)?;
    ensure!(
        future == stores,
        "{future} stores of the future were rebuilt, not {stores}"
    );

    let app = clock.start(scene.launch())?;
    ensure!(wipes(app)? == 0, "stores with a right date were wiped");
    let counted = scene.check(6_000, 0)?;
    scene.clean()?;
    Ok(counted)
}
