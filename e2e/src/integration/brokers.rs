//! Brokers that go away: the only one, with nothing under way; and of three replicas one after the other, in the middle of
//! the work.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::crash::eventually;
use super::frame::batches;
use super::gap::{self, Reading};
use super::scene::Scene;
use super::{Counted, Integration};
use crate::broker::Broker;
use crate::check::{Example, Guarantee};
use crate::reader::wait_still;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// A broker, or a cluster of three, of one test. Dropping it removes it.
pub(super) struct Own {
    script: PathBuf,
    directory: PathBuf,
    port: u16,
}

impl Own {
    pub(super) fn one(args: &Integration, port: u16) -> Result<Self> {
        Self::new(args, args.broker_script.clone(), port)
    }

    fn three(args: &Integration, port: u16) -> Result<Self> {
        Self::new(args, args.broker_script.with_file_name("brokers"), port)
    }

    fn new(args: &Integration, script: PathBuf, port: u16) -> Result<Self> {
        Ok(Self {
            script,
            directory: std::path::absolute(args.state_dir.join(format!("broker-{port}")))?,
            port,
        })
    }

    pub(super) fn call(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new(&self.script)
            .args(arguments)
            .arg("--dir")
            .arg(&self.directory)
            .args(["--port", &self.port.to_string()])
            .output()
            .context("run the broker script")?;
        ensure!(
            output.status.success(),
            "{} {arguments:?}: {}",
            self.script.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Goes down, and comes back without what a topic of one partition has from this offset on, where a batch begins. Nothing may be
    /// under way.
    pub(super) fn lose(&self, topic: &str, from: i64) -> Result<()> {
        self.call(&["down"])?;
        for file in std::fs::read_dir(self.directory.join(format!("data/{topic}-0")))? {
            let log = file?.path();
            if log.extension().is_some_and(|extension| extension == "log") {
                lose_from(&log, from)?;
            }
        }
        self.call(&["up"])
    }

    /// What a test is told, with this broker.
    pub(super) fn instead_of(&self, args: &Integration) -> Integration {
        let broker = Broker {
            bootstrap: format!("127.0.0.1:{}", self.port),
        };
        Integration {
            broker,
            ..args.clone()
        }
    }
}

/// Takes the batches from this offset on out of one of a partition's files.
fn lose_from(log: &Path, from: i64) -> Result<()> {
    let bytes = std::fs::read(log)?;
    let batches = batches(&bytes).with_context(|| format!("{} ends within a batch", log.display()))?;
    let Some((_, begins)) = batches.iter().find(|(offset, _)| *offset >= from) else {
        return Ok(());
    };
    match begins {
        0 => std::fs::remove_file(log)?,
        length => File::options().write(true).open(log)?.set_len(*length)?,
    }
    // The broker makes them anew of what is there.
    for index in ["index", "timeindex"] {
        std::fs::remove_file(log.with_extension(index))?;
    }
    Ok(())
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.call(&["down", "--purge"]);
    }
}

pub(super) fn one_goes_away(args: &Integration, name: &str) -> Result<Counted> {
    const PORT: u16 = 19592;
    let own = Own::one(args, PORT)?;
    let mut scene = Scene::without_topics(args, name, Example::OrdersRisk, Guarantee::ExactlyOnceV2)?;
    scene.broker = Broker {
        bootstrap: format!("127.0.0.1:{PORT}"),
    };
    scene.write_file(|text| text)?;
    let mut launch = scene.launch();
    launch.arguments = vec!["--create-topics".to_owned(), "6".to_owned()];
    let mut app = launch.start()?;
    eventually("the application to say that it waits", || {
        Ok(app.events("waiting") > 0)
    })?;
    own.call(&["up"])?;
    app.wait_running(1, SECONDS(60))?;
    let half = args.orders / 2;
    scene.orders(0, half, 2_000, None)?;
    // With nothing under way: a restart of the only broker can leave open transactions hanging (docs/roadmap.md).
    scene.wait_drained(SECONDS(60))?;
    wait_still(&scene.broker, SECONDS(60))?;
    own.call(&["down"])?;
    eventually("the worker to say so", || {
        Ok(app.status(0)?["reason"] == "BrokerUnreachable")
    })?;
    own.call(&["up"])?;
    scene.orders(half, args.orders - half, 2_000, None)?;
    scene.wait_drained(SECONDS(120))?;
    ensure!(app.events("died") == 0, "the worker died: {}", app.words());
    app.drain()?;
    let counted = scene.check(args.orders, 0)?;
    std::fs::remove_dir_all(&scene.state_dir)?;
    Ok(counted)
}

/// Three replicas, two in sync: what the guarantees ask for. Each broker is killed once while transactions are open, and
/// comes back before the next one is.
pub(super) fn three_are_killed_in_turn(args: &Integration, name: &str) -> Result<Counted> {
    const PORT: u16 = 19892;
    const RATE: u64 = 1_000;
    let own = Own::three(args, PORT)?;
    own.call(&["up"])?;
    let mut scene = Scene::without_topics(args, name, Example::OrdersRisk, Guarantee::ExactlyOnceV2)?;
    let nodes: Vec<_> = (0..3)
        .map(|node| format!("127.0.0.1:{}", PORT + node * 10))
        .collect();
    scene.broker = Broker {
        bootstrap: nodes.join(","),
    };
    scene.write_file(|text| {
        let line = "  kafka:\n";
        text.replacen(
            line,
            &format!("{line}    internalTopics: {{replicationFactor: 3}}\n"),
            1,
        )
    })?;
    scene.create_topics()?;
    let mut launch = scene.launch();
    launch.workers = 2;
    let mut app = launch.start()?;
    app.wait_running(2, SECONDS(60))?;
    let mut orders = 0;
    let standstill = gap::longest(&scene, Reading::Everything, || {
        (orders, ()) = scene.orders_while(RATE, || {
            for node in ["1", "2", "3"] {
                eventually("an open transaction", || {
                    Ok(app.status(0)?["openTransactions"].as_u64() > Some(0))
                })?;
                own.call(&["kill", node])?;
                own.call(&["up"])?;
            }
            Ok(())
        })?;
        scene.wait_drained(SECONDS(120))
    })?;
    println!(
        "brokers: kills=3 longest_standstill_seconds={:.1}",
        standstill.as_secs_f64()
    );
    ensure!(app.events("died") == 0, "a worker died: {}", app.words());
    app.drain()?;
    let mut counted = scene.check(orders, 0)?;
    counted.kills = 3;
    std::fs::remove_dir_all(&scene.state_dir)?;
    Ok(counted)
}
