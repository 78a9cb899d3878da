//! `streamapp-e2e check`: judges a run with real records. It reads the topics and compares them with an independent
//! model of the example topologies.
//!
//! [`evidence`] reads, [`judge`] judges; the two meet only here and in [`along`], so that tests can show faults to the judge.

pub(crate) mod along;
pub(crate) mod evidence;
pub(crate) mod formats;
mod judge;
mod model;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod verdict;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::Serialize;

use crate::broker::Broker;
use evidence::{Read, Topic, read_inputs, read_topic};
pub(crate) use formats::Formats;
use verdict::{Repeats, Verdict};

/// Judges what an application made of its input, from the topics alone.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) broker: Broker,
    /// Which example ran
    #[arg(long, value_enum, default_value_t = Example::OrdersRisk)]
    pub(crate) topology: Example,
    /// The application's id: the prefix of its internal topics
    #[arg(long, value_name = "ID", default_value = "orders-risk")]
    pub(crate) application_id: String,
    /// Under which guarantee it ran: `at_least_once` may repeat output records
    #[arg(long, value_enum, default_value_t = Guarantee::ExactlyOnceV2)]
    pub(crate) guarantee: Guarantee,
    /// Input topic
    #[arg(long, default_value = "orders.submitted.v1")]
    pub(crate) input: String,
    /// Output topic [default: risk.decisions.v1, stateless: orders.scored.v1]
    #[arg(long)]
    pub(crate) output: Option<String>,
    /// Whose internal topics these are; the peer's serve to try the checker on an application that is not ours
    #[arg(long, value_enum, default_value_t = Formats::Streamapp)]
    pub(crate) formats: Formats,
    /// Name of the aggregate's store
    #[arg(long, default_value = "exposure-by-customer")]
    pub(crate) store: String,
    /// How many input records are malformed on purpose
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) malformed: u64,
    /// How long reading one topic, or waiting for its open transactions, may take, in seconds
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    pub(crate) deadline: u64,
    /// Also write the verdict as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// The examples that the checker has a model of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Example {
    /// examples/orders-risk: repartition by customer, aggregate, decide
    OrdersRisk,
    /// examples/orders-risk/stateless.yaml: filter and map
    Stateless,
}

/// The processing guarantees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Guarantee {
    /// Each input is reflected once in outputs and stores
    #[value(name = "exactly_once_v2")]
    ExactlyOnceV2,
    /// Outputs may repeat; nothing is lost
    AtLeastOnce,
}

impl Guarantee {
    /// Both, the stronger one first.
    pub(crate) const ALL: [Self; 2] = [Self::ExactlyOnceV2, Self::AtLeastOnce];

    /// As a StreamApp file has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Guarantee::ExactlyOnceV2 => "exactly_once_v2",
            Guarantee::AtLeastOnce => "at_least_once",
        }
    }

    /// In the name of a test.
    pub(crate) fn short(self) -> &'static str {
        match self {
            Guarantee::ExactlyOnceV2 => "eos",
            Guarantee::AtLeastOnce => "alo",
        }
    }

    /// Whether outputs may come again.
    pub(crate) fn sinks(self) -> Repeats {
        match self {
            Guarantee::ExactlyOnceV2 => Repeats::Forbidden,
            Guarantee::AtLeastOnce => Repeats::Allowed,
        }
    }
}

/// The JSON form of a run's judgement.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) passed: bool,
    topology: Example,
    guarantee: Guarantee,
    application_id: String,
    /// Records of aborted transactions in the internal and the output topics.
    pub(crate) aborted_records: u64,
    pub(crate) verdict: Verdict,
}

/// Reads, judges and prints; answers whether the run was right.
pub(crate) fn run(args: &Check) -> Result<bool> {
    let report = check(args)?;
    print(&report);
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(report.passed)
}

/// Reads and judges.
pub(crate) fn check(args: &Check) -> Result<Report> {
    check_with(args, None)
}

/// The same of an application that deletes the records of its repartition topic, which somebody has read before.
pub(crate) fn check_purged(args: &Check, repartition: Topic) -> Result<Report> {
    let aborted = 0; // nobody has counted them
    let topic = repartition;
    check_with(args, Some(Read { topic, aborted }))
}

fn check_with(args: &Check, repartition: Option<Read>) -> Result<Report> {
    let deadline = Duration::from_secs(args.deadline);
    let inputs = read_inputs(&args.broker, &args.input, args.malformed, deadline)?;
    let output = args.output.as_deref().unwrap_or(match args.topology {
        Example::OrdersRisk => "risk.decisions.v1",
        Example::Stateless => "orders.scored.v1",
    });
    let read = |topic: &str| -> Result<Read> {
        eprintln!("check: reading {topic}");
        read_topic(&args.broker, topic, deadline)
    };
    let outputs = read(output)?;
    let sinks = args.guarantee.sinks();
    let (verdict, aborted_records) = match args.topology {
        Example::OrdersRisk => {
            let internal = |kind: &str| format!("{}-{}-{kind}", args.application_id, args.store);
            let repartition = match repartition {
                Some(repartition) => repartition,
                None => read(&internal("repartition"))?,
            };
            let changelog = read(&internal("changelog"))?;
            let run = judge::Run {
                inputs: &inputs,
                repartition: &repartition.topic,
                outputs: &outputs.topic,
                changelog: &changelog.topic,
            };
            let verdict = judge::judge(&run, args.formats, sinks);
            (verdict, outputs.aborted + repartition.aborted + changelog.aborted)
        }
        Example::Stateless => (
            judge::judge_stateless(&inputs, &outputs.topic, sinks),
            outputs.aborted,
        ),
    };
    Ok(Report {
        passed: verdict.passed(),
        topology: args.topology,
        guarantee: args.guarantee,
        application_id: args.application_id.clone(),
        aborted_records,
        verdict,
    })
}

pub(crate) fn print(report: &Report) {
    let verdict = &report.verdict;
    if verdict.malformed > 0 || verdict.malformed_expected > 0 {
        println!(
            "input        {} malformed, {} expected",
            verdict.malformed, verdict.malformed_expected
        );
    }
    for section in &verdict.sections {
        let judgement = if section.passed() { "ok" } else { "FAIL" };
        println!(
            "{:<12} {judgement}: {} expected, {} found, duplicates={} missing={} wrong={} out_of_order={}",
            section.name,
            section.expected,
            section.found,
            section.duplicates,
            section.missing,
            section.wrong,
            section.out_of_order
        );
        section
            .examples
            .iter()
            .for_each(|example| println!("             {example}"));
    }
    println!(
        "check: {} orders={} {} duplicates={} missing={} wrong={} out_of_order={} aborted_records={}",
        if report.passed { "PASS" } else { "FAIL" },
        verdict.orders,
        verdict.output().map_or(String::new(), |output| format!(
            "{}={}",
            output.name, output.found
        )),
        verdict.total(|s| s.duplicates),
        verdict.total(|s| s.missing),
        verdict.total(|s| s.wrong),
        verdict.total(|s| s.out_of_order),
        report.aborted_records
    );
}
