//! The bench's figures: medians, ratios, the table and the report file.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::measure::Run;
use super::subjects::{Line, Who};

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
    pub(super) output_records: u64,
}

/// Least, middle and greatest of the repetitions.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

/// One line with all its subjects, and ours in relation to the others (medians).
#[derive(Debug, Serialize)]
pub(super) struct LineFigures {
    line: Line,
    records: u64,
    outputs_agree: bool,
    ours: Option<Figures>,
    peer: Option<Figures>,
    limit: Option<Figures>,
    /// Throughput, ours ÷ peer's, steady.
    ratio_peer: Option<f64>,
    /// Throughput, ours ÷ the limit's, steady.
    ratio_limit: Option<f64>,
    /// CPU for a record, ours ÷ peer's, steady.
    cpu_ratio_peer: Option<f64>,
    /// Peak resident memory, ours ÷ peer's.
    rss_ratio_peer: Option<f64>,
    aims: Vec<Aim>,
}

/// A ratio that the design aims at (docs: performance).
#[derive(Debug, Serialize)]
struct Aim {
    figure: &'static str,
    at_least: Option<f64>,
    at_most: Option<f64>,
    measured: Option<f64>,
    /// Nothing when it was not measured.
    met: Option<bool>,
}

impl Spread {
    fn of(runs: &[Run], figure: impl Fn(&Run) -> f64) -> Self {
        let mut values: Vec<f64> = runs.iter().map(figure).collect();
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
            broker_cpu_per_million: first
                .broker_cpu_per_million
                .map(|_| Spread::of(runs, |run| run.broker_cpu_per_million.unwrap_or(f64::NAN))),
            peak_rss_mib: Spread::of(runs, |run| run.peak_rss_bytes as f64 / 1_048_576.0),
            first_commit_seconds: Spread::of(runs, |run| run.first_commit_seconds),
            output_records: first.outputs.count,
        })
    }
}

impl LineFigures {
    /// Figures from all runs of a line.
    pub(super) fn of(line: Line, records: u64, runs: &[(Who, Run)]) -> Self {
        let of = |who: Who| {
            let runs: Vec<Run> = runs
                .iter()
                .filter(|(ran, _)| *ran == who)
                .map(|(_, run)| run.clone())
                .collect();
            Figures::of(&runs)
        };
        let (ours, peer, limit) = (of(Who::Ours), of(Who::Peer), of(Who::Limit));
        let ratio = |other: &Option<Figures>, figure: fn(&Figures) -> Spread| {
            Some(figure(ours.as_ref()?).median / figure(other.as_ref()?).median)
        };
        let ratio_peer = ratio(&peer, |f| f.steady_per_second);
        let ratio_limit = ratio(&limit, |f| f.steady_per_second);
        let cpu_ratio_peer = ratio(&peer, |f| f.steady_cpu_per_million);
        let rss_ratio_peer = ratio(&peer, |f| f.peak_rss_mib);
        let at_least = |figure, least: f64, measured: Option<f64>| Aim {
            figure,
            at_least: Some(least),
            at_most: None,
            measured,
            met: measured.map(|ratio| ratio >= least),
        };
        let at_most = |figure, most: f64, measured: Option<f64>| Aim {
            figure,
            at_least: None,
            at_most: Some(most),
            measured,
            met: measured.map(|ratio| ratio <= most),
        };
        let aims = match line {
            Line::Stateless => vec![
                at_least("ratio_peer", 2.2, ratio_peer),
                at_least("ratio_limit", 0.8, ratio_limit),
                at_most("cpu_ratio_peer", 1.0 / 3.0, cpu_ratio_peer),
            ],
            Line::OrdersRisk => vec![
                at_least("ratio_peer", 4.0, ratio_peer),
                at_most("cpu_ratio_peer", 1.0 / 6.0, cpu_ratio_peer),
                at_most("rss_ratio_peer", 1.0 / 4.0, rss_ratio_peer),
            ],
        };
        let outputs_agree = runs.windows(2).all(|pair| pair[0].1.outputs == pair[1].1.outputs);
        LineFigures {
            line,
            records,
            outputs_agree,
            ours,
            peer,
            limit,
            ratio_peer,
            ratio_limit,
            cpu_ratio_peer,
            rss_ratio_peer,
            aims,
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
            self.line.name(),
            self.records,
            if self.outputs_agree { "agree" } else { "DIFFER" }
        );
        println!(
            "  {:<6} {:>10} {:>21} {:>9} {:>10} {:>9} {:>8}",
            "", "steady/s", "min – max", "CPU s/M", "broker s/M", "RSS MiB", "outputs"
        );
        for (name, figures) in [("ours", &self.ours), ("peer", &self.peer), ("limit", &self.limit)] {
            let Some(f) = figures else { continue };
            println!(
                "  {name:<6} {:>10.0} {:>21} {:>9.2} {:>10} {:>9.0} {:>8}",
                f.steady_per_second.median,
                format!("{:.0} – {:.0}", f.steady_per_second.min, f.steady_per_second.max),
                f.steady_cpu_per_million.median,
                f.broker_cpu_per_million
                    .map_or("-".to_owned(), |spread| format!("{:.2}", spread.median)),
                f.peak_rss_mib.median,
                f.output_records
            );
        }
        self.warn_of_short_windows();
        for aim in &self.aims {
            let Some(measured) = aim.measured else { continue };
            let bound = match (aim.at_least, aim.at_most) {
                (Some(least), _) => format!("≥ {least:.2}"),
                (None, most) => format!("≤ {:.2}", most.unwrap_or(f64::NAN)),
            };
            println!(
                "  {:<15} {measured:.2} (aim {bound}: {})",
                aim.figure,
                if aim.met == Some(true) { "met" } else { "not met" }
            );
        }
    }
}

impl LineFigures {
    fn warn_of_short_windows(&self) {
        for (name, figures) in [("ours", &self.ours), ("peer", &self.peer), ("limit", &self.limit)] {
            if let Some(figures) = figures
                && figures.steady_seconds.min < SHORT_SECONDS
            {
                println!(
                    "  {name}: its second half took only {:.1} s; more --records make this line firmer",
                    figures.steady_seconds.min
                );
            }
        }
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
    commit_interval_ms: u64,
    threads: u32,
    repetitions: u32,
    /// The machine's load average when the bench began.
    load_before: f64,
    lines: &'a [LineFigures],
}

/// What the report says about the whole bench.
pub(super) struct About {
    pub(super) passed: bool,
    pub(super) seed: u64,
    pub(super) started: SystemTime,
    pub(super) commit_interval_ms: u64,
    pub(super) threads: u32,
    pub(super) repetitions: u32,
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
            commit_interval_ms: about.commit_interval_ms,
            threads: about.threads,
            repetitions: about.repetitions,
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
