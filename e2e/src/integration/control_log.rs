//! The control log is deleted while workers run: nothing goes on by itself, a person begins a new one, and whoever worked by
//! the old one cannot commit any more.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::crash::eventually;
use super::faults::{says, stateful, status_says, streamapp};
use super::{Counted, Integration};
use crate::app::signal;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

pub(super) fn lost(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    let file = scene.file.display().to_string();
    let control = format!("{}-control", scene.id);
    let mut launch = scene.launch();
    launch.workers = 2;
    let mut old = launch.start()?;
    old.wait_running(2, SECONDS(60))?;
    let (input, output) = (scene.input(), scene.output());
    let target = scene.target(&input, &output);
    let zombie = std::cell::Cell::new(0);
    scene.orders_beside(0, 8_000, 1_000, || {
        // It has a transaction open, and learns nothing of what comes.
        zombie.set(target.stop_at_work(1, || old.pid(1))?.pid);
        scene.broker.delete_topics(&[&control])
    })?;
    status_says(&old, &["ControlLogLost", &control, "--start-over"])?;
    let (code, said) = streamapp(args, &["control-log", &file])?;
    ensure!(code == 1, "exit code {code}: {said}");
    // Nobody makes a new one unasked, though the positions would be there.
    let mut other = scene.launch();
    other.state_dir = scene.state_dir.join("other");
    let mut refused = other.start()?;
    ensure!(refused.wait_end(SECONDS(60))? == 1, "it was to be refused");
    says(&refused.words(), &["control log", "was lost", "--start-over"])?;
    drop(old);
    let (code, said) = streamapp(args, &["control-log", &file, "--start-over"])?;
    ensure!(code == 0, "exit code {code}: {said}");
    says(&said, &["fenced 256 of 256", "claimed by  nobody"])?;
    // Another state directory, so another placement and no store: everything comes from positions and changelogs.
    let mut new = other.start()?;
    new.wait_running(1, SECONDS(60))?;
    scene.wait_drained(SECONDS(60))?;
    // It wakes with its transaction, which it must not be able to commit; then it ends, for its run is gone.
    signal(zombie.get(), libc::SIGCONT)?;
    eventually("the zombie to end", || {
        Ok(!Path::new(&format!("/proc/{}", zombie.get())).exists())
    })?;
    scene.orders(8_000, 1_000, 0, None)?;
    scene.wait_drained(SECONDS(60))?;
    let (code, said) = streamapp(args, &["control-log", &file])?;
    ensure!(code == 0, "exit code {code}: {said}");
    says(&said, &["other", "worker 0", "orders-0"])?;
    new.drain()?;
    let mut counted = scene.check(9_000, 0)?;
    (counted.stops, counted.losses) = (1, 1);
    scene.clean()?;
    Ok(counted)
}
