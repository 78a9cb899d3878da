//! The bench's figures: medians, ratios, the table and the report file.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::Bench;
use super::lines::{Bound, Line, Load, Ratio, Who};
use super::measure::Run;

/// Below this the commit interval and the prefetched records weigh on the figures.
const SHORT_SECONDS: f64 = 2.0;

/// The runs of one subject on one line.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub(super) steady_per_second: Spread,
    pub(super) steady_seconds: Spread,
    pub(super) overall_per_second: Spread,
    pub(super) steady_cpu_per_million: Spread,
    pub(super) overall_cpu_per_million: Spread,
    pub(super) broker_cpu_per_million: Option<Spread>,
    pub(super) peak_rss_mib: Spread,
    pub(super) first_commit_seconds: Spread,
    pub(super) latency_p50_ms: Option<Spread>,
    pub(super) latency_p99_ms: Option<Spread>,
    pub(super) output_records: u64,
}

/// Least, middle and greatest of the repetitions.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

/// One line with all its subjects, and ours in relation to the others.
#[derive(Debug, Serialize)]
pub(super) struct LineFigures {
    line: &'static str,
    records: u64,
    /// How many of them were written a second, when they were not there before.
    rate_per_second: Option<u64>,
    keys: u64,
    commit_interval_ms: u64,
    outputs_agree: bool,
    #[serde(flatten)]
    subjects: BTreeMap<Who, Figures>,
    #[serde(flatten)]
    ratios: BTreeMap<&'static str, f64>,
    aims: Vec<Judged>,
}

/// What became of an aim.
#[derive(Debug, Serialize)]
struct Judged {
    figure: &'static str,
    #[serde(flatten)]
    bound: Bound,
    measured: Option<f64>,
    /// Nothing when it was not measured.
    met: Option<bool>,
}

impl Spread {
    fn of(runs: &[Run], figure: impl Fn(&Run) -> f64) -> Self {
        Spread::among(runs.iter().map(figure).collect())
    }

    /// Of a figure that not every line has.
    fn of_some(runs: &[Run], figure: impl Fn(&Run) -> Option<f64>) -> Option<Self> {
        runs.iter()
            .map(figure)
            .collect::<Option<Vec<f64>>>()
            .map(Spread::among)
    }

    fn among(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let median = (at((values.len().saturating_sub(1)) / 2) + at(values.len() / 2)) / 2.0;
        Spread {
            min: at(0),
            median,
            max: at(values.len().saturating_sub(1)),
        }
    }
}

impl Figures {
    fn of(runs: &[Run]) -> Option<Self> {
        let first = runs.first()?;
        Some(Figures {
            steady_per_second: Spread::of(runs, |run| run.steady_per_second),
            steady_seconds: Spread::of(runs, |run| run.steady_seconds),
            overall_per_second: Spread::of(runs, |run| run.overall_per_second),
            steady_cpu_per_million: Spread::of(runs, |run| run.steady_cpu_per_million),
            overall_cpu_per_million: Spread::of(runs, |run| run.overall_cpu_per_million),
            broker_cpu_per_million: Spread::of_some(runs, |run| run.broker_cpu_per_million),
            peak_rss_mib: Spread::of(runs, |run| run.peak_rss_bytes as f64 / 1_048_576.0),
            first_commit_seconds: Spread::of(runs, |run| run.first_commit_seconds),
            latency_p50_ms: Spread::of_some(runs, |run| Some(run.latency?.p50_ms)),
            latency_p99_ms: Spread::of_some(runs, |run| Some(run.latency?.p99_ms)),
            output_records: first.outputs.count,
        })
    }
}

impl Ratio {
    /// Nothing when one of the two was not measured.
    fn of(self, subjects: &BTreeMap<Who, Figures>) -> Option<f64> {
        let ratio = |one, other, figure: fn(&Figures) -> Option<Spread>| {
            Some(figure(subjects.get(&one)?)?.median / figure(subjects.get(&other)?)?.median)
        };
        let throughput = |figures: &Figures| Some(figures.steady_per_second);
        match self {
            Ratio::Peer => ratio(Who::Ours, Who::Peer, throughput),
            Ratio::Limit => ratio(Who::Ours, Who::Limit, throughput),
            Ratio::CpuPeer => ratio(Who::Ours, Who::Peer, |f| Some(f.steady_cpu_per_million)),
            Ratio::RssPeer => ratio(Who::Ours, Who::Peer, |f| Some(f.peak_rss_mib)),
            Ratio::P99Peer => ratio(Who::Ours, Who::Peer, |f| f.latency_p99_ms),
            Ratio::Overhead => ratio(Who::AtLeastOnce, Who::Ours, throughput).map(|faster| faster - 1.0),
        }
    }
}

impl LineFigures {
    /// Figures from all runs of a line.
    pub(super) fn of(bench: &Bench, line: &Line, runs: &BTreeMap<Who, Vec<Run>>) -> Self {
        let outputs: Vec<_> = runs.values().flatten().map(|run| run.outputs).collect();
        let subjects: BTreeMap<Who, Figures> = runs
            .iter()
            .filter_map(|(who, runs)| Some((*who, Figures::of(runs)?)))
            .collect();
        let aims = line.aims.iter().map(|aim| {
            let measured = aim.ratio.of(&subjects);
            Judged {
                figure: aim.ratio.name(),
                bound: aim.bound,
                measured,
                met: measured.map(|measured| aim.bound.holds(measured)),
            }
        });
        LineFigures {
            line: line.name,
            records: line.records(bench),
            rate_per_second: match line.load {
                Load::Backlog => None,
                Load::Paced => Some(bench.rate),
            },
            keys: line.customers,
            commit_interval_ms: line.commit_interval_ms,
            outputs_agree: outputs.windows(2).all(|pair| pair[0] == pair[1]),
            ratios: Ratio::ALL
                .iter()
                .filter_map(|ratio| Some((ratio.name(), ratio.of(&subjects)?)))
                .collect(),
            aims: aims.collect(),
            subjects,
        }
    }

    /// Whether the outputs of all subjects were the same: without that, no timing counts.
    pub(super) fn outputs_agree(&self) -> bool {
        self.outputs_agree
    }

    /// Whether every aim was reached.
    pub(super) fn aims_met(&self) -> bool {
        self.aims.iter().all(|aim| aim.met == Some(true))
    }

    /// Prints the line's rows.
    pub(super) fn print(&self) {
        println!(
            "\n{}: {} records, outputs {}",
            self.line,
            self.records,
            if self.outputs_agree { "agree" } else { "DIFFER" }
        );
        println!(
            "  {:<13} {:>10} {:>21} {:>9} {:>10} {:>9} {:>7} {:>7} {:>13} {:>8}",
            "",
            "steady/s",
            "min – max",
            "CPU s/M",
            "broker s/M",
            "RSS MiB",
            "p50 ms",
            "p99 ms",
            "min – max",
            "outputs"
        );
        let some = |spread: Option<Spread>, text: fn(Spread) -> String| spread.map_or("-".to_owned(), text);
        let range = |spread: Spread| format!("{:.0} – {:.0}", spread.min, spread.max);
        for (who, f) in &self.subjects {
            println!(
                "  {:<13} {:>10.0} {:>21} {:>9.2} {:>10} {:>9.0} {:>7} {:>7} {:>13} {:>8}",
                who.name(),
                f.steady_per_second.median,
                range(f.steady_per_second),
                f.steady_cpu_per_million.median,
                some(f.broker_cpu_per_million, |spread| format!("{:.2}", spread.median)),
                f.peak_rss_mib.median,
                some(f.latency_p50_ms, |spread| format!("{:.0}", spread.median)),
                some(f.latency_p99_ms, |spread| format!("{:.0}", spread.median)),
                some(f.latency_p99_ms, range),
                f.output_records
            );
        }
        self.warn_of_short_windows();
        for aim in &self.aims {
            let Some(measured) = aim.measured else { continue };
            println!(
                "  {:<15} {measured:.2} (aim {}: {})",
                aim.figure,
                aim.bound,
                if aim.met == Some(true) { "met" } else { "not met" }
            );
        }
    }

    fn warn_of_short_windows(&self) {
        for (who, figures) in &self.subjects {
            if figures.steady_seconds.min < SHORT_SECONDS {
                println!(
                    "  {}: its second half took only {:.1} s; more --records make this line firmer",
                    who.name(),
                    figures.steady_seconds.min
                );
            }
        }
    }
}

/// Prints what there is to measure.
pub(super) fn list(lines: &[Line]) {
    for line in lines {
        let subjects: Vec<_> = line.subjects.iter().map(|who| who.name()).collect();
        let aims: Vec<_> = line
            .aims
            .iter()
            .map(|aim| format!("{} {}", aim.ratio.name(), aim.bound))
            .collect();
        println!(
            "{:<20} {:<22} {}",
            line.name,
            subjects.join(", "),
            aims.join(", ")
        );
    }
}

/// `reports/bench.json`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    name: &'static str,
    passed: bool,
    commit: String,
    command: String,
    seed: u64,
    started: String,
    ended: String,
    figures: Lines<'a>,
}

#[derive(Debug, Serialize)]
struct Lines<'a> {
    threads: u32,
    repetitions: u32,
    peer_cache_bytes: u64,
    /// The machine's load average when the bench began.
    load_before: f64,
    lines: &'a [LineFigures],
}

/// What the report says about the whole bench.
pub(super) struct About {
    pub(super) passed: bool,
    pub(super) seed: u64,
    pub(super) started: SystemTime,
    pub(super) threads: u32,
    pub(super) repetitions: u32,
    pub(super) peer_cache_bytes: u64,
    pub(super) load_before: f64,
}

/// Writes the report file.
pub(super) fn write(file: &Path, about: &About, lines: &[LineFigures]) -> Result<()> {
    let report = Report {
        name: "bench",
        passed: about.passed,
        commit: commit(),
        command: std::env::args().collect::<Vec<_>>().join(" "),
        seed: about.seed,
        started: rfc3339(about.started),
        ended: rfc3339(SystemTime::now()),
        figures: Lines {
            threads: about.threads,
            repetitions: about.repetitions,
            peer_cache_bytes: about.peer_cache_bytes,
            load_before: about.load_before,
            lines,
        },
    };
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let text = serde_json::to_string_pretty(&report)? + "\n";
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn commit() -> String {
    let output = std::process::Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=40"])
        .output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Ok(_) | Err(_) => "unknown".to_owned(),
    }
}

/// UTC, to the second. Days to a date as in Howard Hinnant's `civil_from_days`.
fn rfc3339(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs();
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3_600,
        rest % 3_600 / 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_dates() {
        let at = |seconds| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(at(1_760_000_000), "2025-10-09T08:53:20Z");
    }
}
