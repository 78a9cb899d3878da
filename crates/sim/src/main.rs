//! `streamapp-sim`: the explicit model and the seeded schedules, with their figures.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a terminal program")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use clap::{Parser, Subcommand};
use report::Report;
use serde::Serialize;
use streamapp_sim::model::{Explored, Mutant, Scenario, explore, long_scenarios, scenarios, shortest};
use streamapp_sim::seeded::{self, App, Figures, Simulation, Sums};

/// Shows that the protocol keeps its promises, without Kafka: every interleaving of small scenarios, and random
/// schedules with faults.
#[derive(Debug, Parser)]
#[command(name = "streamapp-sim", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Visit every state of the model's scenarios (reports/model.json)
    Model {
        /// Only scenarios whose name contains this
        #[arg(long)]
        only: Option<String>,
        /// The scenarios that take minutes and gigabytes, too
        #[arg(long)]
        long: bool,
        /// Scenarios at a time
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Run seeded schedules with faults (reports/simulation.json)
    Schedules {
        /// How many
        #[arg(long, default_value_t = 10_000)]
        seeds: u64,
        /// The first seed; a seed reproduces its run
        #[arg(long, default_value_t = 0)]
        first: u64,
        /// Schedules at a time
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
}

fn main() -> ExitCode {
    let passed = match Cli::parse().command {
        Command::Model { only, long, jobs } => model(only.as_deref(), long, jobs),
        Command::Schedules { seeds, first, jobs } => schedules(first..first.saturating_add(seeds), jobs),
    };
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, Default, Serialize)]
struct ModelFigures {
    scenarios: Vec<Row>,
    states: u64,
    steps: u64,
    violations: u64,
}

#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    states: u64,
    steps: u64,
    most_fences: u8,
    seconds: f64,
}

fn model(only: Option<&str>, long: bool, jobs: usize) -> anyhow::Result<bool> {
    let mut all = scenarios();
    if long {
        all.extend(long_scenarios());
    }
    all.retain(|scenario| only.is_none_or(|only| scenario.name.contains(only)));
    anyhow::ensure!(!all.is_empty(), "no scenario has that in its name");
    let report = Report::begin("model", 0);
    let figures = Mutex::new(ModelFigures::default());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(scenario) = all.get(next.fetch_add(1, Ordering::AcqRel)) {
                    visit(scenario, &figures);
                }
            });
        }
    });
    let figures = figures.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.end(figures.violations == 0, &figures)?;
    let ModelFigures {
        states,
        steps,
        violations,
        ..
    } = figures;
    println!(
        "model: scenarios={} states={states} steps={steps} violations={violations}",
        all.len()
    );
    println!(
        "{} passed, {violations} failed, 0 skipped",
        figures.scenarios.len()
    );
    Ok(violations == 0)
}

fn visit(scenario: &Scenario, figures: &Mutex<ModelFigures>) {
    let started = Instant::now();
    let result = explore(scenario, Mutant::Faithful);
    let seconds = started.elapsed().as_secs_f64();
    let name = scenario.name;
    let mut figures = figures.lock().unwrap_or_else(PoisonError::into_inner);
    match result {
        Ok(explored) => {
            let Explored {
                states,
                steps,
                most_fences,
            } = explored;
            println!(
                "model: {name}: {states} states, {steps} steps, at most {most_fences} fences ({seconds:.1} s)"
            );
            figures.states += states;
            figures.steps += steps;
            figures.scenarios.push(Row {
                name,
                states,
                steps,
                most_fences,
                seconds,
            });
        }
        Err(broken) => {
            figures.violations += 1;
            println!("model: {name}: {broken}");
            let steps = shortest(scenario, Mutant::Faithful).unwrap_or_default();
            steps.iter().for_each(|step| println!("  {step:?}"));
        }
    }
}

#[derive(Debug, Default, Serialize)]
struct ScheduleFigures {
    schedules: u64,
    faults: u64,
    violations: u64,
    #[serde(flatten)]
    totals: Figures,
}

/// In so many schedules everything happens that can.
const MANY: u64 = 1_000;

/// What never happened of all that is counted, where there were enough schedules for it.
fn never_happened(schedules: u64, totals: &Figures) -> anyhow::Result<Vec<String>> {
    if schedules < MANY {
        return Ok(Vec::new());
    }
    let totals = serde_json::to_value(totals)?;
    let counted = totals.as_object().into_iter().flatten();
    let never = counted.filter(|(_, count)| count.as_u64() == Some(0));
    Ok(never.map(|(name, _)| name.clone()).collect())
}

fn schedules(seeds: std::ops::Range<u64>, jobs: usize) -> anyhow::Result<bool> {
    let report = Report::begin("simulation", seeds.start);
    let app = |sums| App::new(sums).map(Arc::new);
    let (all, windows, pairs) = (app(Sums::All)?, app(Sums::Windows)?, app(Sums::Pairs)?);
    let figures = Mutex::new(ScheduleFigures::default());
    let next = AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                let seeds = std::iter::from_fn(|| {
                    let seed = next.fetch_add(1, Ordering::AcqRel);
                    (seed < seeds.end).then_some(seed)
                });
                for seed in seeds {
                    let app = match seed % 4 {
                        1 => &windows,
                        3 => &pairs,
                        _ => &all,
                    };
                    let run = Simulation::new(app, seed, seeded::Mutant::Faithful).run();
                    let mut figures = figures.lock().unwrap_or_else(PoisonError::into_inner);
                    figures.schedules += 1;
                    match run {
                        Ok(run) => figures.totals += run,
                        Err(seeded::Violation { step, what, .. }) => {
                            figures.violations += 1;
                            println!("simulation: seed {seed}, step {step}: {what}");
                        }
                    }
                }
            });
        }
    });
    let mut figures = figures.into_inner().unwrap_or_else(PoisonError::into_inner);
    figures.faults = figures.totals.faults();
    let never = never_happened(figures.schedules, &figures.totals)?;
    if !never.is_empty() {
        println!("simulation: never happened: {}", never.join(", "));
    }
    let passed = figures.violations == 0 && never.is_empty();
    report.end(passed, &figures)?;
    let ScheduleFigures {
        schedules,
        faults,
        violations,
        totals,
    } = figures;
    println!(
        "simulation: schedules={schedules} steps={} faults={faults} kills={} handovers={} fences={} results={} violations={violations}",
        totals.steps, totals.kills, totals.handovers, totals.fences, totals.results
    );
    println!(
        "{} passed, {} failed, 0 skipped",
        u8::from(passed),
        u8::from(!passed)
    );
    Ok(passed)
}
