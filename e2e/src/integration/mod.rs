//! `streamapp-e2e integration`: the product on a real broker, crashed at every step and given bad input; each run with
//! records is judged by the checker.

mod bounds;
mod brokers;
mod changelogs;
mod clock;
mod control_log;
mod crash;
mod dead_letters;
mod expiry;
mod faults;
mod frame;
mod gap;
mod granted;
mod handover;
mod hanging;
mod headers;
mod identity;
mod joins;
mod keyed;
mod offsets;
mod proxy;
mod purge;
mod recovery;
mod requests;
mod scene;
mod soak;
mod standby;
mod system;
mod topologies;
mod windows;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use report::Report;
use serde::Serialize;

use crate::broker::Broker;

/// Crashes at every step of the loop, both guarantees, both topologies; then faults and bad input
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Integration {
    #[command(flatten)]
    pub(crate) broker: Broker,
    /// The `streamapp` program; `streamapp-worker` lies beside it
    #[arg(long, default_value = "bin/streamapp")]
    pub(crate) streamapp: PathBuf,
    /// The script that starts brokers, for the tests that stop one
    #[arg(long, default_value = "e2e/broker")]
    pub(crate) broker_script: PathBuf,
    /// Only tests whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Where stores and files of the tests live
    #[arg(long, default_value = ".state/integration")]
    pub(crate) state_dir: PathBuf,
    /// Orders of a crash test
    #[arg(long, default_value_t = 4_000)]
    pub(crate) orders: u64,
    /// Keys in the store of the recovery test
    #[arg(long, default_value_t = 100_000)]
    pub(crate) recovery_keys: u64,
    /// Tests at a time: they wait more than they work
    #[arg(long, default_value_t = 3)]
    jobs: usize,
    /// Instead of the tests: faults of every kind at random for so many minutes
    #[arg(long, value_name = "MINUTES")]
    soak: Option<u64>,
    /// Same seed, same choices of the soak
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Of the rows of the matrix and of the longest tests only every Nth, from the Ith on (0-based)
    #[arg(long, value_name = "I/N", conflicts_with = "only")]
    share: Option<Share>,
    /// Print the names of the tests
    #[arg(long)]
    list: bool,
}

/// Which tests stand for those that are like them.
#[derive(Debug, Clone, Copy)]
struct Share {
    at: usize,
    of: usize,
}

impl FromStr for Share {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (at, of) = text.split_once('/').context("I/N, such as 0/3")?;
        let share = Self {
            at: at.parse()?,
            of: of.parse()?,
        };
        ensure!(share.at < share.of, "{at} is not below {of}");
        Ok(share)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.at, self.of)
    }
}

impl Share {
    /// The rows differ in where a worker dies; the longest tests take as long as all others that are no rows.
    const SAMPLED: [&str; 14] = [
        "crash-",
        "zombie-",
        "handover-",
        "standby-",
        "dead-letters-",
        "proxy-late-",
        "system-eos-test",
        "windows-under-faults",
        "joins-under-faults",
        "fault-brokers-killed",
        "fault-expired",
        "fault-old-volume",
        "fault-changelog-cut",
        "fault-control-log-cut",
    ];

    /// Leaves its own tests of those that are sampled, and all others.
    fn choose(self, tests: &mut Vec<Test<'_>>) {
        let mut seen = 0;
        tests.retain(|(name, _)| {
            let is_sampled = Self::SAMPLED.iter().any(|kind| name.starts_with(kind));
            seen += usize::from(is_sampled);
            !is_sampled || (seen - 1) % self.of == self.at
        });
    }
}

/// What a test counted.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(crate) struct Counted {
    pub(crate) kills: u64,
    /// Requests and answers that were lost, delayed or repeated.
    pub(crate) faults: u64,
    /// Processes that were stopped, and went on.
    pub(crate) stops: u64,
    /// Volumes, topics, offsets and ids that were lost, damaged, full or forgotten.
    pub(crate) losses: u64,
    pub(crate) records: u64,
    pub(crate) duplicates: u64,
    /// Results that came again where they may, under `at_least_once`.
    pub(crate) repeats: u64,
    pub(crate) missing: u64,
    pub(crate) wrong: u64,
    pub(crate) out_of_order: u64,
    /// Results of records whose transaction was aborted.
    pub(crate) aborted_reads: u64,
    /// Results that a reader saw while a run went on, and that are not there at its end.
    pub(crate) precommitted_reads: u64,
    /// Results that are there at the end, and that it did not see.
    pub(crate) unseen: u64,
}

impl Counted {
    /// Everything that happened to the product.
    fn incidents(&self) -> u64 {
        self.kills + self.faults + self.stops + self.losses
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kills,
            faults,
            stops,
            losses,
            records,
            duplicates,
            repeats,
            missing,
            wrong,
            out_of_order,
            aborted_reads,
            precommitted_reads,
            unseen,
        } = self;
        write!(
            f,
            "kills={kills} faults={faults} stops={stops} losses={losses} records={records} duplicates={duplicates} repeats={repeats} missing={missing} wrong={wrong} out_of_order={out_of_order} aborted_reads={aborted_reads} precommitted_reads={precommitted_reads} unseen={unseen}"
        )
    }
}

impl std::ops::AddAssign for Counted {
    fn add_assign(&mut self, other: Self) {
        self.kills += other.kills;
        self.faults += other.faults;
        self.stops += other.stops;
        self.losses += other.losses;
        self.records += other.records;
        self.duplicates += other.duplicates;
        self.repeats += other.repeats;
        self.missing += other.missing;
        self.wrong += other.wrong;
        self.out_of_order += other.out_of_order;
        self.aborted_reads += other.aborted_reads;
        self.precommitted_reads += other.precommitted_reads;
        self.unseen += other.unseen;
    }
}

/// Kills, faults, stops and losses that all tests, and those of each share, have at least.
const LEAST_INCIDENTS: u64 = 100;

type Test<'a> = (String, Box<dyn Fn() -> Result<Counted> + Send + Sync + 'a>);

/// The figures of `reports/crash-matrix.json`.
#[derive(Debug, Default, Serialize)]
struct Figures {
    runs: u64,
    failed: u64,
    /// Which tests ran, if not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<String>,
    #[serde(flatten)]
    counted: Counted,
    /// One per test.
    rows: Vec<Row>,
}

/// A row of the crash matrix, or another test.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    guarantee: &'static str,
    /// One, as of each row of a run.
    runs: u64,
    seconds: f64,
    #[serde(flatten)]
    counted: Counted,
    /// Why it failed.
    failure: Option<String>,
}

impl Figures {
    /// A run that has met few faults proves little.
    fn passed(&self) -> bool {
        self.failed == 0 && self.counted.incidents() >= LEAST_INCIDENTS
    }
}

/// Tests that run side by side, and those that run in turn.
fn all(args: &Integration) -> [Vec<Test<'_>>; 2] {
    // Long ones first.
    let mut beside = faults::longest(args);
    beside.extend(system::tests(args));
    beside.extend(purge::tests(args));
    beside.extend(windows::tests(args));
    beside.extend(joins::tests(args));
    beside.extend(requests::tests(args));
    beside.extend(standby::tests(args));
    beside.extend(handover::tests(args));
    beside.extend(crash::tests(args));
    beside.extend(keyed::tests(args));
    beside.extend(identity::tests(args));
    beside.extend(dead_letters::tests(args));
    beside.extend(faults::tests(args));
    [beside, faults::lone_tests(args)]
}

/// Runs tests side by side, then those with brokers of their own in turn; the last line has the totals.
pub(crate) fn run(args: &Integration) -> Result<bool> {
    if let Some(minutes) = args.soak {
        return soak::run(args, minutes, args.seed);
    }
    let [mut beside, mut in_turn] = all(args);
    if let Some(only) = &args.only {
        beside.retain(|(name, _)| name.contains(only.as_str()));
        in_turn.retain(|(name, _)| name.contains(only.as_str()));
        ensure!(
            beside.len() + in_turn.len() > 0,
            "no test has `{only}` in its name"
        );
    }
    if let Some(share) = args.share {
        let all = beside.len() + in_turn.len();
        share.choose(&mut beside);
        share.choose(&mut in_turn);
        println!(
            "{} of {all} tests; all of them: make soak",
            beside.len() + in_turn.len()
        );
    }
    if args.list {
        beside
            .iter()
            .chain(&in_turn)
            .for_each(|(name, _)| println!("{name}"));
        return Ok(true);
    }
    let report = Report::begin("crash-matrix", 7);
    let figures = Mutex::new(Figures {
        share: args.share.map(|share| share.to_string()),
        ..Figures::default()
    });
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                while let Some(test) = beside.get(next.fetch_add(1, Ordering::AcqRel)) {
                    run_test(test, &figures);
                }
            });
        }
    });
    in_turn.iter().for_each(|test| run_test(test, &figures));
    let figures = figures.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("crash-matrix: runs={} {}", figures.runs, figures.counted);
    // A part of the matrix that somebody has picked is not the matrix.
    let passed = if args.only.is_some() {
        figures.failed == 0
    } else {
        let passed = figures.passed();
        report.end(passed, &figures)?;
        let incidents = figures.counted.incidents();
        println!(
            "crash-matrix: {incidents} kills, faults, stops and losses, wanted at least {LEAST_INCIDENTS}"
        );
        passed
    };
    println!(
        "{} passed, {} failed, 0 skipped",
        figures.runs - figures.failed,
        figures.failed
    );
    Ok(passed)
}

fn run_test((name, test): &Test<'_>, figures: &Mutex<Figures>) {
    let started = Instant::now();
    let result = test();
    let seconds = started.elapsed().as_secs_f64();
    let mut figures = figures.lock().unwrap_or_else(PoisonError::into_inner);
    figures.runs += 1;
    let (counted, failure) = match result {
        Ok(counted) => {
            figures.counted += counted;
            println!("test {name} ... ok ({seconds:.1} s, {} records)", counted.records);
            (counted, None)
        }
        Err(error) => {
            figures.failed += 1;
            println!("test {name} ... FAILED ({seconds:.1} s): {error:#}");
            (Counted::default(), Some(format!("{error:#}")))
        }
    };
    figures.rows.push(Row {
        name: name.clone(),
        guarantee: if name.contains("-alo") {
            "at_least_once"
        } else {
            "exactly_once_v2"
        },
        runs: 1,
        seconds,
        counted,
        failure,
    });
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        integration: Integration,
    }

    #[test]
    fn a_run_without_failures_passes_if_it_has_met_enough() {
        let figures = |failed, kills, faults, stops, losses| Figures {
            failed,
            counted: Counted {
                kills,
                faults,
                stops,
                losses,
                ..Counted::default()
            },
            ..Figures::default()
        };
        assert!(figures(0, 60, 30, 8, 2).passed());
        assert!(!figures(0, 60, 30, 8, 1).passed());
        assert!(!figures(1, 60, 30, 8, 2).passed());
    }

    #[test]
    fn shares_together_have_each_sampled_test_once_and_every_kind_has_tests() {
        let args = Command::parse_from(["e2e"]).integration;
        let names = |share: Option<Share>| -> Vec<String> {
            let chosen = all(&args).map(|mut tests| {
                share.inspect(|share| share.choose(&mut tests));
                tests
            });
            chosen.into_iter().flatten().map(|(name, _)| name).collect()
        };
        let shares: Vec<_> = (0..3).map(|at| names(Some(Share { at, of: 3 }))).collect();
        for name in names(None) {
            let times = shares.iter().filter(|share| share.contains(&name)).count();
            let is_sampled = Share::SAMPLED.iter().any(|kind| name.starts_with(kind));
            assert_eq!(times, if is_sampled { 1 } else { 3 }, "{name}");
        }
        for kind in Share::SAMPLED {
            assert!(names(None).iter().any(|name| name.starts_with(kind)), "{kind}");
        }
    }
}
