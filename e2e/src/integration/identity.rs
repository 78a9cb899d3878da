//! Two processes of one ordinal: one goes on, the other one leaves for good, whether both are awake, begin at the same moment,
//! or one sleeps with a transaction open (a zombie). What they cost each other is told by the broker's answers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use report::Report;
use serde::Serialize;
use serde_json::Value;

use super::faults::says;
use super::keyed;
use super::proxy::{Api, Fault, Proxy};
use super::recovery::Moments;
use super::scene::Scene;
use super::system::{drained, written_beside};
use super::{Counted, Integration, Test};
use crate::app::{self, signal};
use crate::check::{Example, Guarantee};
use crate::wait;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
/// Orders a second.
const RATE: u64 = 1_000;
/// How long the answer to a transaction's offsets is held: long enough to be seen, shorter than a worker waits for it.
const HELD: Duration = Duration::from_secs(2);
/// From its awakening a zombie has so long to leave.
const LEAVES: Duration = Duration::from_secs(5);
/// Most fences of two processes with one thread each, as in the explicit model.
const MOST_FENCES: usize = 2;
/// What the best of the acquisitions takes at most, in seconds; a busy machine may spoil one.
const ACQUIRE_SECONDS: f64 = 1.0;

/// Applications whose transactions have ever more in them.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Outputs and positions.
    Stateless,
    /// Changes of a store, too.
    Stateful,
    /// Records for another sub-topology, too.
    Repartitioned,
}

pub(super) fn tests(args: &Integration) -> Vec<Test<'_>> {
    let mut tests: Vec<Test<'_>> = Vec::new();
    for (kind, name) in [
        (Kind::Stateless, "stateless"),
        (Kind::Stateful, "stateful"),
        (Kind::Repartitioned, "repartitioned"),
    ] {
        for guarantee in Guarantee::ALL {
            let name = format!("zombie-{name}-{}", guarantee.short());
            let plot = {
                let name = name.clone();
                move || Ok(zombie(args, &name, kind, guarantee)?.counted)
            };
            tests.push((name, Box::new(plot)));
        }
    }
    tests
}

impl Kind {
    /// The application, its topics empty.
    fn scene<'a>(self, args: &'a Integration, name: &str, guarantee: Guarantee) -> Result<Scene<'a>> {
        let example = match self {
            Self::Stateless => Example::Stateless,
            Self::Repartitioned => Example::OrdersRisk,
            Self::Stateful => return keyed::scene(args, name, guarantee, 6),
        };
        Scene::new(args, name, example, guarantee)
    }

    /// Writes for as long as something happens, then waits until all is processed; returns how many orders, and its result.
    fn fed<T>(self, scene: &Scene<'_>, happens: impl FnOnce() -> Result<T>) -> Result<(u64, T)> {
        match self {
            Self::Stateless | Self::Repartitioned => {
                let fed = scene.orders_while(RATE, happens)?;
                scene.wait_drained(SECONDS(60))?;
                Ok(fed)
            }
            Self::Stateful => {
                let mut result = None;
                written_beside(
                    |done| keyed::write(scene, |_| !done.load(Ordering::Acquire)),
                    || {
                        result = Some(happens()?);
                        Ok(())
                    },
                )?;
                drained(scene, &["in"], &[])?;
                Ok((0, result.context("nothing happened")?))
            }
        }
    }

    fn judge(self, scene: &Scene<'_>, orders: u64) -> Result<Counted> {
        match self {
            Self::Stateless | Self::Repartitioned => scene.check(orders, 0),
            Self::Stateful => {
                let counted = keyed::judge(scene, 0)?;
                ensure!(counted.records > 500, "only {} sums", counted.records);
                Ok(counted)
            }
        }
    }
}

/// A worker process of ordinal 0 that nobody starts again. Dropping it ends it.
struct Pod {
    child: Child,
    directory: PathBuf,
}

impl Pod {
    /// With the configuration that the application's first worker was given, and a volume of its own.
    fn start(scene: &Scene<'_>, name: &str, bootstrap: &str) -> Result<Self> {
        let text = std::fs::read_to_string(scene.launch().state_dir.join("worker-0/config.json"))?;
        let mut config: Value = serde_json::from_str(&text)?;
        let directory = scene.state_dir.join(name);
        std::fs::create_dir_all(&directory)?;
        config["stateDir"] = directory.join("state").display().to_string().into();
        config["kafka"]["bootstrapServers"] = bootstrap.into();
        let file = directory.join("config.json");
        std::fs::write(&file, config.to_string())?;
        let log = std::fs::File::create(directory.join("worker.log"))?;
        let child = Command::new(scene.args.streamapp.with_file_name("streamapp-worker"))
            .arg("--config")
            .arg(&file)
            .arg("--address-file")
            .arg(directory.join("address"))
            .args(["--ordinal", "0", "--keep-repartition-records", "--end-with-stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start a worker")?;
        Ok(Self { child, directory })
    }

    /// Its exit code, once it has ended.
    fn ended(&mut self) -> Result<Option<i32>> {
        let ended = self.child.try_wait()?;
        Ok(ended.map(|status| status.code().unwrap_or(-1)))
    }

    /// Waits until it has committed something.
    fn wait_commit(&mut self) -> Result<()> {
        wait::until("a commit of the other process", SECONDS(60), || {
            if let Ok(Some(code)) = self.ended() {
                return Ok(Err(anyhow::anyhow!(
                    "it ended with code {code}, its log is in {}",
                    self.directory.display()
                )));
            }
            let status =
                app::status(&self.directory.join("address")).map_err(|error| format!("{error:#}"))?;
            match status["totals"]["commits"].as_u64() {
                Some(commits) if commits > 0 && status["phase"] == "Running" => Ok(Ok(())),
                Some(_) | None => Err(status.to_string()),
            }
        })
    }

    fn acquire_seconds(&self) -> Result<f64> {
        Ok(Moments::read(&self.directory.join("worker.log"))?.acquire_seconds())
    }

    fn drain(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let code = wait::until("a worker to drain", SECONDS(60), || match self.ended() {
            Ok(Some(code)) => Ok(Ok(code)),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Ok(Err(error)),
        })?;
        ensure!(code == 0, "a worker drained with exit code {code}");
        Ok(())
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What became of a zombie.
struct Zombie {
    counted: Counted,
    /// From its awakening to its end.
    seconds: f64,
    /// Of its successor; unknown where nothing is restored.
    acquire_seconds: Option<f64>,
}

/// A worker sleeps (SIGSTOP) with a transaction open that lacks little more than its end, while another process of its ordinal
/// takes over. When it wakes it commits nothing, and leaves for good.
fn zombie(args: &Integration, name: &str, kind: Kind, guarantee: Guarantee) -> Result<Zombie> {
    let scene = kind.scene(args, name, guarantee)?;
    let proxy = Proxy::start(&scene.broker.bootstrap)?;
    proxy.between(&scene)?;
    let (input, positions) = (scene.input(), format!("{}-positions", scene.id));
    // Every transaction writes positions, whatever the guarantee.
    let target = scene.target(&input, &positions);
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    let (orders, (successor, seconds)) = kind.fed(&scene, || {
        let stopped = target.stop_at_work(0, || {
            proxy.arm(Api::TxnOffsetCommit, Fault::DelayAnswer(HELD));
            app.pid(0)
        })?;
        let mut successor = Pod::start(&scene, "successor", &scene.broker.bootstrap)?;
        successor.wait_commit()?;
        let commits = proxy.commits();
        ensure!(commits > 0, "the proxy has seen no commit of the zombie's");
        let woken = Instant::now();
        signal(stopped.pid, libc::SIGCONT)?;
        let code = app.wait_end(LEAVES).context("a zombie that woke")?;
        let seconds = woken.elapsed().as_secs_f64();
        ensure!(
            code == 1,
            "streamapp ended with {code} when its worker was replaced"
        );
        says(&app.words(), &["exit code 3", "taken over"])?;
        let late = proxy.commits() - commits;
        ensure!(
            late == 0,
            "the zombie has committed {late} transactions when it woke"
        );
        Ok((successor, seconds))
    })?;
    let acquire_seconds = successor.acquire_seconds().ok();
    successor.drain()?;
    let mut counted = kind.judge(&scene, orders)?;
    counted.stops = 1;
    counted.faults = u64::try_from(proxy.fired())?;
    scene.clean()?;
    Ok(Zombie {
        counted,
        seconds,
        acquire_seconds,
    })
}

/// The figures of `reports/identity.json`.
#[derive(Debug, Serialize)]
struct Figures {
    /// Times that the broker took the transactional id of one of two processes for the other, at most.
    two_pods_fences: usize,
    /// From the awakening of one that was replaced to its end.
    zombie_seconds: f64,
    /// From the first record of the control log to restoring, with a predecessor that works or has a transaction open: the
    /// best of three.
    acquire_seconds: f64,
    /// All of them.
    acquisitions_seconds: Vec<f64>,
}

/// Times that an id went from one process to another, from the epochs that each was given.
fn fences(processes: &[Vec<(String, i16)>]) -> usize {
    let mut ids = BTreeMap::<&str, BTreeMap<i16, usize>>::new();
    for (process, epochs) in processes.iter().enumerate() {
        for (id, epoch) in epochs {
            ids.entry(id).or_default().insert(*epoch, process);
        }
    }
    let changes = |holders: &BTreeMap<i16, usize>| {
        let holders: Vec<_> = holders.values().collect();
        holders.windows(2).filter(|pair| pair[0] != pair[1]).count()
    };
    ids.values().map(changes).sum()
}

/// Waits until one of two processes leaves, as one that was replaced does; the other one then works.
fn one_is_left(mut pods: [Pod; 2]) -> Result<Pod> {
    let left = wait::until("one of two processes to leave", SECONDS(30), || {
        for (at, pod) in pods.iter_mut().enumerate() {
            match pod.ended() {
                Ok(Some(3)) => return Ok(Ok(1 - at)),
                Ok(Some(code)) => return Ok(Err(anyhow::anyhow!("process {at} ended with code {code}"))),
                Ok(None) => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        Err("both are there".to_owned())
    })?;
    let mut left = pods.into_iter().nth(left).context("no process is left")?;
    left.wait_commit()?;
    Ok(left)
}

/// While orders come in, a second process appears beside one that works; then two begin at the same moment; then one sleeps.
/// Each time one leaves and the other one goes on.
pub(super) fn two_processes(args: &Integration, name: &str) -> Result<Counted> {
    let report = Report::begin("identity", 7);
    let scene = Kind::Repartitioned.scene(args, name, Guarantee::ExactlyOnceV2)?;
    scene.write_file(|text| text.replace("  threads: 2\n", "  threads: 1\n"))?;
    let proxies = (0..4)
        .map(|_| Proxy::start(&scene.broker.bootstrap))
        .collect::<Result<Vec<_>>>()?;
    let between = |two: [usize; 2]| fences(&two.map(|at| proxies[at].epochs()));
    proxies[0].between(&scene)?;
    let mut app = scene.launch().start()?;
    app.wait_running(1, SECONDS(60))?;
    let (orders, (left, acquisitions)) = Kind::Repartitioned.fed(&scene, || {
        wait::until("the first process to work", SECONDS(30), || {
            match proxies[0].commits() {
                0 => Err("no commit".to_owned()),
                _ => Ok(Ok(())),
            }
        })?;
        let mut second = Pod::start(&scene, "second", &proxies[1].address())?;
        let code = app.wait_end(SECONDS(30))?;
        ensure!(
            code == 1,
            "streamapp ended with {code} when its worker was replaced"
        );
        says(&app.words(), &["exit code 3", "taken over"])?;
        second.wait_commit()?;
        let first_acquired = second.acquire_seconds()?;
        second.drain()?;
        let pods = [("third", 2), ("fourth", 3)]
            .map(|(name, proxy): (&str, usize)| Pod::start(&scene, name, &proxies[proxy].address()));
        let [third, fourth] = pods;
        let left = one_is_left([third?, fourth?])?;
        let acquired = left.acquire_seconds()?;
        Ok((left, [first_acquired, acquired]))
    })?;
    left.drain()?;
    let mut counted = scene.check(orders, 0)?;
    let (beside, at_once) = (between([0, 1]), between([2, 3]));
    let asleep = format!("{name}-asleep");
    let zombie = zombie(args, &asleep, Kind::Repartitioned, Guarantee::ExactlyOnceV2)?;
    let acquisitions: Vec<_> = acquisitions.into_iter().chain(zombie.acquire_seconds).collect();
    let figures = Figures {
        two_pods_fences: beside.max(at_once),
        zombie_seconds: zombie.seconds,
        acquire_seconds: acquisitions.iter().copied().fold(f64::INFINITY, f64::min),
        acquisitions_seconds: acquisitions,
    };
    let line = format!(
        "identity: two_pods_fences={} (one works: {beside}, both begin: {at_once}) zombie_seconds={:.2} acquire_seconds={:.2} (of {:.2?})",
        figures.two_pods_fences,
        figures.zombie_seconds,
        figures.acquire_seconds,
        figures.acquisitions_seconds
    );
    println!("{line}");
    let passed = beside > 0
        && figures.two_pods_fences <= MOST_FENCES
        && figures.acquisitions_seconds.len() == 3
        && figures.acquire_seconds <= ACQUIRE_SECONDS;
    report.end(passed, &figures)?;
    ensure!(passed, "{line}");
    scene.clean()?;
    counted += zombie.counted;
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(epochs: &[(&str, i16)]) -> Vec<(String, i16)> {
        epochs
            .iter()
            .map(|(id, epoch)| ((*id).to_owned(), *epoch))
            .collect()
    }

    #[test]
    fn a_fence_is_an_id_that_goes_to_another_process() {
        // Its own producer before is not fenced, it is replaced.
        let alone = epochs(&[("a-0-0", 0), ("a-0-0", 2), ("a-0-1", 0)]);
        assert_eq!(fences(&[alone.clone(), Vec::new()]), 0);
        assert_eq!(fences(&[alone.clone(), epochs(&[("b-0-0", 1)])]), 0);
        assert_eq!(fences(&[alone.clone(), epochs(&[("a-0-0", 3)])]), 1);
        assert_eq!(fences(&[alone.clone(), epochs(&[("a-0-0", 3), ("a-0-1", 1)])]), 2);
        // To and fro.
        let fighting = epochs(&[("a-0-0", 1), ("a-0-0", 3)]);
        assert_eq!(fences(&[alone, fighting]), 3);
    }
}
