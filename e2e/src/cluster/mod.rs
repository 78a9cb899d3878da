//! StreamApps on a real Kubernetes cluster, from outside: `kubectl`, `helm`, signals and the topics are all that is used.
//!
//! [`demo`] is the main job with faults; the scenarios are tests, each in a namespace of its own.

mod app;
mod demo;
mod footprint;
mod kafka;
mod kubectl;
mod manifests;
mod operator;
mod place;
mod pods;
mod scenarios;
mod secrets;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::Result;
use report::Report;
use serde::Serialize;

pub(crate) use demo::{Demo, run as run_demo};
pub(crate) use footprint::{Footprint, run as run_footprint};

use crate::integration::Counted;
use place::{Options, Place, Setting};

/// Tests on a cluster: pods die, manifests are wrong, Kafka and the operator come and go
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Test {
    #[command(flatten)]
    options: Options,
    /// Only scenarios whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Print the names of the scenarios
    #[arg(long)]
    list: bool,
    /// Scenarios at a time, of those that leave the operator alone: they wait more than they work
    #[arg(long, default_value_t = 3)]
    jobs: usize,
}

/// How a scenario ended, if it did not fail.
enum Outcome {
    Done(Counted),
    /// What it needs is not there.
    Skipped(String),
}

/// Whether others may run beside a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Company {
    Welcome,
    /// It stops or upgrades the operator.
    Alone,
}

struct Scenario {
    name: &'static str,
    company: Company,
    plot: fn(&Place<'_>) -> Result<Outcome>,
}

/// All scenarios.
fn scenarios() -> [Scenario; 11] {
    let shared = |name, plot| Scenario {
        name,
        company: Company::Welcome,
        plot,
    };
    let alone = |name, plot| Scenario {
        name,
        company: Company::Alone,
        plot,
    };
    [
        // Long ones first.
        shared("kafka-unreachable-then-back", scenarios::kafka_unreachable),
        shared("delete-at-each-stage", scenarios::delete_at_each_stage),
        shared("invalid-manifests", manifests::invalid),
        shared("secrets-missing-wrong-rotated", secrets::secrets),
        shared("pods-die-nothing-is-lost", scenarios::pods_die),
        shared("two-pods-of-one-ordinal", scenarios::two_pods_of_one_ordinal),
        shared("kubectl-wait-ready-and-scale", scenarios::wait_ready_and_scale),
        shared("two-apps-with-one-id", scenarios::two_apps_with_one_id),
        alone(
            "worker-restarts-while-the-operator-is-down",
            scenarios::operator_down,
        ),
        alone("claim-of-a-dead-object", scenarios::claim_of_a_dead_object),
        alone("operator-upgrade-restarts-no-worker", scenarios::operator_upgrade),
    ]
}

/// The figures of `reports/e2e.json`.
#[derive(Debug, Default, Serialize)]
struct Figures {
    passed: u64,
    failed: u64,
    skipped: u64,
    scenarios: BTreeMap<&'static str, Row>,
}

/// One scenario's figures.
#[derive(Debug, Serialize)]
struct Row {
    verdict: &'static str,
    #[serde(flatten)]
    counted: Counted,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// Runs the scenarios; the last line has the totals.
pub(crate) fn run_test(args: &Test) -> Result<bool> {
    let mut scenarios = Vec::from(scenarios());
    if let Some(only) = &args.only {
        scenarios.retain(|scenario| scenario.name.contains(only.as_str()));
        anyhow::ensure!(!scenarios.is_empty(), "no scenario has `{only}` in its name");
    }
    if args.list {
        scenarios
            .iter()
            .for_each(|scenario| println!("{}", scenario.name));
        return Ok(true);
    }
    let report = Report::begin("e2e", 7);
    let setting = Setting::prepare(&args.options)?;
    let figures = Mutex::new(Figures::default());
    let (shared, alone): (Vec<_>, Vec<_>) = scenarios
        .iter()
        .partition(|scenario| scenario.company == Company::Welcome);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                while let Some(scenario) = shared.get(next.fetch_add(1, Ordering::AcqRel)) {
                    run_scenario(&setting, scenario, &figures);
                }
            });
        }
    });
    alone
        .iter()
        .for_each(|scenario| run_scenario(&setting, scenario, &figures));
    let figures = figures.into_inner().unwrap_or_else(PoisonError::into_inner);
    let passed = figures.failed == 0;
    report.end(passed, &figures)?;
    println!(
        "{} passed, {} failed, {} skipped",
        figures.passed, figures.failed, figures.skipped
    );
    Ok(passed)
}

fn run_scenario(setting: &Setting, scenario: &Scenario, figures: &Mutex<Figures>) {
    let Scenario { name, plot, .. } = scenario;
    let started = Instant::now();
    let result = in_its_place(setting, name, *plot);
    let seconds = started.elapsed().as_secs_f64();
    let mut figures = figures.lock().unwrap_or_else(PoisonError::into_inner);
    let (verdict, counted, why) = match result {
        Ok(Outcome::Done(counted)) => {
            figures.passed += 1;
            println!("test {name} ... ok ({seconds:.1} s, {} records)", counted.records);
            ("passed", counted, None)
        }
        Ok(Outcome::Skipped(why)) => {
            figures.skipped += 1;
            println!("test {name} ... skipped: {why}");
            ("skipped", Counted::default(), Some(why))
        }
        Err(error) => {
            figures.failed += 1;
            println!("test {name} ... FAILED ({seconds:.1} s): {error:#}");
            ("failed", Counted::default(), Some(format!("{error:#}")))
        }
    };
    figures.scenarios.insert(
        name,
        Row {
            verdict,
            counted,
            seconds,
            why,
        },
    );
}

/// Plays a scenario in a namespace of its own, which is gone afterwards.
fn in_its_place(setting: &Setting, name: &str, plot: fn(&Place<'_>) -> Result<Outcome>) -> Result<Outcome> {
    let place = Place::open(setting, name)?;
    let result = plot(&place);
    if let Err(error) = &result {
        match place.record(name, error) {
            Ok(file) => println!("test {name}: what it looked like is in {}", file.display()),
            Err(error) => eprintln!("test {name}: {error:#}"),
        }
    }
    match (result, place.close()) {
        (Ok(outcome), Ok(())) => Ok(outcome),
        (Ok(_), Err(error)) => Err(error),
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(also)) => Err(error.context(format!("{also:#}; before"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenarios_name_fits_a_namespace_and_an_application_id() {
        for scenario in scenarios() {
            let namespace = format!("e2e-{}", scenario.name);
            assert!(namespace.len() <= 63, "{namespace}");
            let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(namespace.chars().all(letters), "{namespace}");
        }
    }
}
