//! `streamapp-e2e integration`: the product on a real broker, crashed at every step and given bad input; each run with
//! records is judged by the checker.

mod crash;
mod faults;
mod scene;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

use crate::broker::Broker;
use crate::report::Report;

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
    /// Print the names of the tests
    #[arg(long)]
    list: bool,
}

/// What a test counted.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(crate) struct Counted {
    pub(crate) kills: u64,
    pub(crate) records: u64,
    pub(crate) duplicates: u64,
    pub(crate) missing: u64,
    pub(crate) wrong: u64,
}

impl std::ops::AddAssign for Counted {
    fn add_assign(&mut self, other: Self) {
        self.kills += other.kills;
        self.records += other.records;
        self.duplicates += other.duplicates;
        self.missing += other.missing;
        self.wrong += other.wrong;
    }
}

type Test<'a> = (String, Box<dyn Fn() -> Result<Counted> + 'a>);

/// The figures of `reports/crash-local.json`.
#[derive(Debug, Default, Serialize)]
struct Figures {
    runs: u64,
    failed: u64,
    #[serde(flatten)]
    counted: Counted,
    failures: Vec<String>,
}

/// Runs all tests in turn; the last line has the totals.
pub(crate) fn run(args: &Integration) -> Result<bool> {
    let mut tests: Vec<Test<'_>> = crash::tests(args);
    tests.extend(faults::tests(args));
    if let Some(only) = &args.only {
        tests.retain(|(name, _)| name.contains(only.as_str()));
    }
    if args.list {
        tests.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(true);
    }
    let report = Report::begin("crash-local", 7);
    let mut figures = Figures::default();
    for (name, test) in &tests {
        let started = Instant::now();
        figures.runs += 1;
        match test() {
            Ok(counted) => {
                figures.counted += counted;
                println!(
                    "test {name} ... ok ({:.1} s, {} records)",
                    started.elapsed().as_secs_f64(),
                    counted.records
                );
            }
            Err(error) => {
                figures.failed += 1;
                figures.failures.push(format!("{name}: {error:#}"));
                println!(
                    "test {name} ... FAILED ({:.1} s): {error:#}",
                    started.elapsed().as_secs_f64()
                );
            }
        }
    }
    let passed = figures.failed == 0;
    report.end(passed, &figures)?;
    let Counted {
        kills,
        records,
        duplicates,
        missing,
        wrong,
    } = figures.counted;
    println!(
        "crash-local: runs={} kills={kills} records={records} duplicates={duplicates} missing={missing} wrong={wrong}",
        figures.runs
    );
    println!(
        "{} passed, {} failed, 0 skipped",
        figures.runs - figures.failed,
        figures.failed
    );
    Ok(passed)
}
