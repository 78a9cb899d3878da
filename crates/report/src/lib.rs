//! `reports/<name>.json`: the figures of a proof, with what it takes to run it again. Knows nothing of the product.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// A report under way.
pub struct Report {
    name: &'static str,
    seed: u64,
    started: u64,
    /// What was checked out then: the tree may move on while a long proof runs.
    commit: String,
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl Report {
    /// Begins; the time counts from here.
    #[must_use]
    pub fn begin(name: &'static str, seed: u64) -> Self {
        let commit = Command::new("git")
            .args(["rev-parse", "--short", "HEAD"])
            .output();
        let commit = commit
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
            .unwrap_or_default();
        Self {
            name,
            seed,
            started: now(),
            commit,
        }
    }

    /// Writes the report.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn end(&self, passed: bool, figures: &impl Serialize) -> std::io::Result<()> {
        let document = serde_json::json!({
            "name": self.name,
            "passed": passed,
            "commit": self.commit,
            "command": std::env::args().collect::<Vec<_>>().join(" "),
            "seed": self.seed,
            "started": self.started,
            "ended": now(),
            "figures": figures,
        });
        std::fs::create_dir_all("reports")?;
        let text = serde_json::to_string_pretty(&document)?;
        std::fs::write(
            Path::new("reports").join(format!("{}.json", self.name)),
            text + "\n",
        )
    }
}
