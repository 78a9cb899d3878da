//! `integration --soak MINUTES`: three workers with copies of each other's stores, and faults of every kind at random, all
//! the time; the checker judges at the end. Worker 0 is never killed, so that it would show what it loses. Before, the same for
//! the applications with windows and with joins, for a third of the time each.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use report::Report;
use serde::Serialize;

use super::handover::scale;
use super::proxy::{Api, Fault, Proxy};
use super::scene::Scene;
use super::{Counted, Integration, joins, windows};
use crate::app::{App, signal};
use crate::bench::process::memory_bytes;
use crate::check::{Example, Guarantee};
use crate::orders::SplitMix;
use crate::wait;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
/// Orders a second.
const RATE: u64 = 1_000;
/// From here on what a process takes is looked at, after each fault: caches are full by then.
const WARM_MINUTES: u64 = 10;
/// Most growth an hour that is noise, in percent; judged when the storm lasts an hour.
const GROWTH_PERCENT: f64 = 1.0;

/// The figures of `reports/soak.json`.
#[derive(Debug, Default, Serialize)]
struct Figures {
    minutes: u64,
    /// Requests and answers that were lost, repeated or late.
    requests: u64,
    kills: u64,
    /// Processes that were stopped for some time.
    stops: u64,
    /// Processes that were asked to end.
    ends: u64,
    scalings: u64,
    /// Orders, or results of windows.
    records: u64,
    /// Without a fault, or the soak ends before.
    judged: Counted,
    store_wipes: u64,
    /// Producers that worker 0 made anew.
    producer_rebuilds: u64,
    /// Of worker 0.
    memory_kib: Size,
    descriptors: Size,
    threads: Size,
}

impl Figures {
    fn faults(&self) -> u64 {
        self.requests + self.kills + self.stops + self.ends + self.scalings
    }

    fn grows(&self) -> bool {
        let sizes = [&self.memory_kib, &self.descriptors, &self.threads];
        self.minutes >= 60 && sizes.iter().any(|size| size.percent_an_hour > GROWTH_PERCENT)
    }
}

/// What a process takes of something. How much that is depends on how many tasks it has at the moment.
#[derive(Debug, Default, Serialize)]
struct Size {
    /// Median of the first third of the time.
    first: u64,
    /// Median of the last third.
    last: u64,
    /// From the one to the other.
    percent_an_hour: f64,
    #[serde(skip)]
    samples: Vec<u64>,
}

impl Size {
    /// Of samples from so many minutes.
    fn sum_up(&mut self, minutes: u64) {
        let third = self.samples.len() / 3;
        let median = |samples: &[u64]| {
            let mut sorted = samples.to_vec();
            sorted.sort_unstable();
            sorted.get(sorted.len() / 2).copied().unwrap_or(0)
        };
        self.first = median(&self.samples[..third]);
        self.last = median(&self.samples[self.samples.len() - third..]);
        if self.first > 0 && minutes > 0 {
            let growth = self.last as f64 / self.first as f64 - 1.0;
            // From the middle of the first third to that of the last.
            self.percent_an_hour = growth * 100.0 * 60.0 / (minutes as f64 * 2.0 / 3.0);
        }
    }
}

/// Of all storms.
#[derive(Debug, Serialize)]
struct Storms {
    #[serde(flatten)]
    orders: Figures,
    windows: Figures,
    joins: Figures,
}

pub(super) fn run(args: &Integration, minutes: u64, seed: u64) -> Result<bool> {
    let report = Report::begin("soak", seed);
    let storms = Storms {
        windows: windowed(args, minutes.div_ceil(3), seed)?,
        joins: joined(args, minutes.div_ceil(3), seed)?,
        orders: orders(args, minutes, seed)?,
    };
    let all = [&storms.orders, &storms.windows, &storms.joins];
    let passed = all
        .iter()
        .all(|figures| figures.store_wipes == 0 && !figures.grows());
    report.end(passed, &storms)?;
    let faults: u64 = all.iter().map(|figures| figures.faults()).sum();
    println!("soak: faults={faults} {}", serde_json::to_string(&storms)?);
    println!(
        "{} passed, {} failed, 0 skipped",
        u8::from(passed),
        u8::from(!passed)
    );
    Ok(passed)
}

fn orders(args: &Integration, minutes: u64, seed: u64) -> Result<Figures> {
    let scene = Scene::new(args, "soak", Example::OrdersRisk, Guarantee::ExactlyOnceV2)?;
    let (mut app, proxy) = start(&scene)?;
    let (written, mut figures) =
        scene.orders_while(RATE, || storm(&scene, &mut app, &proxy, minutes, seed))?;
    scene.wait_drained(SECONDS(180))?;
    figures.end(app)?;
    figures.records = written;
    figures.judged = scene.check(written, 0)?;
    scene.clean()?;
    Ok(figures)
}

fn windowed(args: &Integration, minutes: u64, seed: u64) -> Result<Figures> {
    let scene = windows::scene(args, "soak-windows", Guarantee::ExactlyOnceV2)?;
    let (mut app, proxy) = start(&scene)?;
    let mut figures = Figures::default();
    windows::written_while(&scene, || {
        figures = storm(&scene, &mut app, &proxy, minutes, seed)?;
        Ok(())
    })?;
    windows::wait_drained(&scene)?;
    figures.end(app)?;
    figures.judge(&scene, windows::judge)
}

fn joined(args: &Integration, minutes: u64, seed: u64) -> Result<Figures> {
    let scene = joins::scene(args, "soak-joins", Guarantee::ExactlyOnceV2)?;
    let (mut app, proxy) = start(&scene)?;
    joins::tables(&scene, 0)?;
    let mut figures = Figures::default();
    joins::written_while(&scene, || {
        figures = storm(&scene, &mut app, &proxy, minutes, seed)?;
        Ok(())
    })?;
    joins::tables(&scene, 1)?;
    joins::complete(&scene)?;
    figures.end(app)?;
    figures.judge(&scene, joins::judge)
}

/// Three workers with copies, and faults between them and the broker.
fn start(scene: &Scene<'_>) -> Result<(App, Proxy)> {
    let proxy = Proxy::start(&scene.broker.bootstrap)?;
    let text = std::fs::read_to_string(&scene.file).context("read the StreamApp file")?;
    let text = text.replace("  threads: 2\n", "  threads: 2\n  standbys: 1\n");
    std::fs::write(&scene.file, text).context("write the StreamApp file")?;
    proxy.between(scene)?;
    let mut launch = scene.launch();
    launch.workers = 3;
    let mut app = launch.start()?;
    app.wait_running(3, SECONDS(60))?;
    Ok((app, proxy))
}

/// One fault after the other, until the time is over.
fn storm(scene: &Scene<'_>, app: &mut App, proxy: &Proxy, minutes: u64, seed: u64) -> Result<Figures> {
    let mut figures = Figures {
        minutes,
        ..Figures::default()
    };
    let begun = Instant::now();
    let (mut workers, mut told) = (3, 0);
    for step in 0.. {
        let elapsed = begun.elapsed();
        if elapsed >= SECONDS(60 * minutes) {
            break;
        }
        if elapsed.as_secs() / 60 > told {
            told = elapsed.as_secs() / 60;
            figures.requests = u64::try_from(proxy.fired())?;
            eprintln!("soak: minute {told} of {minutes}, {} faults", figures.faults());
        }
        if told >= WARM_MINUTES {
            figures.look(app)?;
        }
        let mut random = SplitMix::of(seed, step);
        let other = u32::try_from(1 + random.below(2))?.min(workers - 1);
        match random.below(20) {
            0..14 => {
                let fault = match random.below(5) {
                    0 => Fault::LoseRequest,
                    1 => Fault::LoseAnswer,
                    2 => Fault::Repeat,
                    3 => Fault::LateRequest {
                        after: Duration::from_millis(100 + random.below(5_000)),
                        before: Api::Produce,
                    },
                    _ => Fault::DelayAnswer(Duration::from_millis(100 + random.below(2_000))),
                };
                let api = Api::TRANSACTIONAL[usize::try_from(random.below(Api::TRANSACTIONAL.len() as u64))?];
                let before = proxy.fired();
                proxy.arm(api, fault);
                // Producers are initialised only now and then: the fault waits for that.
                let until = Instant::now() + SECONDS(1);
                while proxy.fired() == before && Instant::now() < until {
                    wait::pause();
                }
            }
            14..17 if other > 0 => {
                signal(pid(app, other)?, libc::SIGKILL)?;
                figures.kills += 1;
                settle(app, workers)?;
            }
            17 => {
                let worker = u32::try_from(random.below(u64::from(workers)))?;
                let (pid, until) = (pid(app, worker)?, Instant::now() + SECONDS(1 + random.below(14)));
                signal(pid, libc::SIGSTOP)?;
                while Instant::now() < until {
                    wait::pause();
                }
                signal(pid, libc::SIGCONT)?;
                figures.stops += 1;
                settle(app, workers)?;
            }
            18 if other > 0 => {
                signal(pid(app, other)?, libc::SIGTERM)?;
                figures.ends += 1;
                settle(app, workers)?;
            }
            _ => {
                workers = u32::try_from(1 + random.below(3))?;
                scale(scene, app, workers)?;
                figures.scalings += 1;
                settle(app, workers)?;
            }
        }
    }
    scale(scene, app, 3)?;
    settle(app, 3)?;
    for size in [
        &mut figures.memory_kib,
        &mut figures.descriptors,
        &mut figures.threads,
    ] {
        size.sum_up(minutes.saturating_sub(WARM_MINUTES));
    }
    figures.requests = u64::try_from(proxy.fired())?;
    ensure!(figures.faults() > 0, "nothing happened");
    Ok(figures)
}

/// The process of a worker, which may be starting.
fn pid(app: &App, worker: u32) -> Result<u32> {
    wait::until(&format!("worker {worker} to answer"), SECONDS(60), || {
        app.pid(worker).map(Ok).map_err(|error| format!("{error:#}"))
    })
}

/// Waits until every worker runs again.
fn settle(app: &mut App, workers: u32) -> Result<()> {
    // The supervisor notices a death within a moment; until then the dead one's address leads nowhere.
    app.wait_running(workers, SECONDS(120))
}

impl Figures {
    /// Notes what worker 0 says at last, and ends the application.
    fn end(&mut self, app: App) -> Result<()> {
        let status = app.status(0)?;
        self.store_wipes = status["totals"]["storeWipes"].as_u64().unwrap_or(0);
        self.producer_rebuilds = status["totals"]["producerRebuilds"].as_u64().unwrap_or(0);
        app.drain().map(|_| ())
    }

    /// Adds what the results are.
    fn judge(mut self, scene: &Scene<'_>, judge: fn(&Scene<'_>, u64) -> Result<Counted>) -> Result<Self> {
        self.judged = judge(scene, 0)?;
        self.records = self.judged.records;
        scene.clean()?;
        Ok(self)
    }

    /// Notes what worker 0 takes.
    fn look(&mut self, app: &App) -> Result<()> {
        let pid = pid(app, 0)?;
        let entries = |name: &str| -> Result<u64> {
            Ok(u64::try_from(
                std::fs::read_dir(format!("/proc/{pid}/{name}"))?.count(),
            )?)
        };
        let memory = memory_bytes(pid, "VmRSS").context("worker 0 is gone")? >> 10;
        self.memory_kib.samples.push(memory);
        self.descriptors.samples.push(entries("fd")?);
        self.threads.samples.push(entries("task")?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_between_the_thirds_and_an_hour_s() {
        let mut size = Size {
            // 1,000, then 1,010 half an hour later.
            samples: [vec![1_000; 150], vec![5_000; 150], vec![1_010; 150]].concat(),
            ..Size::default()
        };
        size.sum_up(45);
        assert_eq!((size.first, size.last), (1_000, 1_010));
        assert!(
            (size.percent_an_hour - 2.0).abs() < 1e-6,
            "{}",
            size.percent_an_hour
        );
        Size::default().sum_up(45);
    }
}
