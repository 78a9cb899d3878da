//! What `streamapp run` shows: live counters on a terminal, JSON lines otherwise.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use crate::out::say;
use clap::ValueEnum;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use protocol::{Phase, Totals, WorkerStatus};

/// How often a JSON line is written.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// What a command that answers at once prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For scripts: one JSON document.
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputKind {
    /// Live counters on a terminal, JSON lines otherwise.
    #[default]
    Auto,
    /// Live counters.
    Terminal,
    /// One JSON document per line.
    Json,
}

/// Where progress goes.
pub(crate) enum View {
    Terminal {
        line: ProgressBar,
        last: (Instant, u64),
        rate: f64,
    },
    Json {
        last: Option<Instant>,
    },
}

/// All workers together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overview {
    pub(crate) workers: usize,
    pub(crate) answering: usize,
    pub(crate) running: usize,
    pub(crate) restarts: u64,
    pub(crate) lag: i64,
    pub(crate) open_transactions: u32,
    pub(crate) totals: Totals,
    pub(crate) notes: Vec<String>,
}

impl Overview {
    pub(crate) fn add(&mut self, status: &WorkerStatus) {
        self.answering += 1;
        self.running += usize::from(status.phase == Phase::Running);
        self.lag += status.lag;
        self.open_transactions += status.open_transactions;
        self.totals += status.totals;
        if status.phase != Phase::Running || status.reason.is_some() {
            let reason = status.reason.as_deref().unwrap_or_default();
            let message = status.message.as_deref().unwrap_or_default();
            self.notes.push(
                format!("worker {}: {:?} {reason} {message}", status.ordinal, status.phase)
                    .trim_end()
                    .to_owned(),
            );
        }
        for task in status.tasks.iter().filter(|task| task.error.is_some()) {
            self.notes.push(format!(
                "task {} stopped: {}",
                task.id,
                task.error.as_deref().unwrap_or_default()
            ));
        }
        for (task, restore) in status.tasks.iter().filter_map(|task| Some((task, task.restore?))) {
            self.notes.push(format!(
                "task {} restoring: {} records ({}) read, {} left, {}/s, about {} s",
                task.id,
                restore.records,
                HumanBytes(restore.bytes),
                restore.remaining,
                restore.rate,
                restore.seconds_left
            ));
        }
    }
}

impl View {
    pub(crate) fn new(kind: OutputKind) -> Self {
        let terminal = match kind {
            OutputKind::Auto => std::io::stderr().is_terminal(),
            OutputKind::Terminal => true,
            OutputKind::Json => false,
        };
        if !terminal {
            return Self::Json { last: None };
        }
        let line = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            line.set_style(style);
        }
        line.enable_steady_tick(Duration::from_millis(120));
        Self::Terminal {
            line,
            last: (Instant::now(), 0),
            rate: 0.0,
        }
    }

    /// Something happened that people want to read once.
    pub(crate) fn event(&self, event: &str, message: &str) {
        match self {
            Self::Terminal { line, .. } => line.suspend(|| eprintln!("{message}")),
            Self::Json { .. } => say!("{}", serde_json::json!({"event": event, "message": message})),
        }
    }

    /// Shows where things stand.
    pub(crate) fn show(&mut self, overview: &Overview) {
        let totals = overview.totals;
        match self {
            Self::Terminal { line, last, rate } => {
                let elapsed = last.0.elapsed().as_secs_f64();
                if elapsed >= 1.0 {
                    *rate = totals.records_in.saturating_sub(last.1) as f64 / elapsed;
                    *last = (Instant::now(), totals.records_in);
                }
                let mut text = format!(
                    "{}/{} workers running · {} in · {} out · {:.0}/s · lag {} · {} commits · {} fences · {} restarts   (Ctrl-C drains)",
                    overview.running,
                    overview.workers,
                    totals.records_in,
                    totals.records_out,
                    rate,
                    overview.lag,
                    totals.commits,
                    totals.fences,
                    overview.restarts
                );
                for note in &overview.notes {
                    text.push_str("\n  ");
                    text.push_str(note);
                }
                line.set_message(text);
            }
            Self::Json { last } => {
                if last.is_none_or(|at| at.elapsed() >= LINE_INTERVAL) {
                    *last = Some(Instant::now());
                    say!("{}", Self::document("progress", overview));
                }
            }
        }
    }

    fn document(event: &str, overview: &Overview) -> serde_json::Value {
        serde_json::json!({
            "event": event,
            "workers": overview.workers,
            "answering": overview.answering,
            "running": overview.running,
            "restarts": overview.restarts,
            "lag": overview.lag,
            "openTransactions": overview.open_transactions,
            "totals": overview.totals,
            "notes": overview.notes,
        })
    }

    /// The last word.
    pub(crate) fn finish(self, overview: &Overview) {
        match self {
            Self::Terminal { line, .. } => {
                line.finish_and_clear();
                let totals = overview.totals;
                eprintln!(
                    "drained: {} records in, {} out, {} commits; nothing is open, start again whenever you like",
                    totals.records_in, totals.records_out, totals.commits
                );
            }
            Self::Json { .. } => say!("{}", Self::document("drained", overview)),
        }
    }
}
