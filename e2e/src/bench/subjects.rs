//! The programs that run a line.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::Bench;
use super::lines::{Line, Who};

/// The names of one run.
pub(super) struct Names {
    pub(super) application_id: String,
    pub(super) input: String,
    pub(super) output: String,
    /// A directory of the run's own; it is removed afterwards.
    pub(super) directory: PathBuf,
}

/// The command that runs `line` by `who`.
pub(super) fn command(bench: &Bench, line: &Line, who: Who, names: &Names) -> Result<Vec<String>> {
    let state = path(&names.directory.join("state"))?;
    let mut command: Vec<String> = match who {
        Who::Ours | Who::AtLeastOnce => {
            let file = write_declaration(bench, line, who, names)?;
            let mut command = words(&bench.ours);
            command.extend(["run".to_owned(), path(&file)?, "--state-dir".to_owned(), state]);
            command.extend(["--output".to_owned(), "json".to_owned()]);
            return Ok(command);
        }
        Who::Peer => {
            let mut command = words(&bench.peer);
            command.extend(["--topology".to_owned(), line.topology.name().to_owned()]);
            command.extend(["--state-dir".to_owned(), state]);
            command.extend(["--cache-bytes".to_owned(), bench.peer_cache_bytes.to_string()]);
            command
        }
        Who::Limit => {
            vec![
                path(&std::env::current_exe().context("where is this program?")?)?,
                "bare-loop".to_owned(),
            ]
        }
    };
    for (option, value) in [
        ("--bootstrap", bench.broker.bootstrap.clone()),
        ("--application-id", names.application_id.clone()),
        ("--input", names.input.clone()),
        ("--output", names.output.clone()),
        ("--threads", bench.threads.to_string()),
        ("--commit-interval-ms", line.commit_interval_ms.to_string()),
    ] {
        command.extend([option.to_owned(), value]);
    }
    Ok(command)
}

/// Writes the example's file with this run's names in place of its own.
fn write_declaration(bench: &Bench, line: &Line, who: Who, names: &Names) -> Result<PathBuf> {
    let example = bench.examples.join(line.topology.file());
    let text = std::fs::read_to_string(&example).with_context(|| format!("no {}", example.display()))?;
    let (input, output) = line.topology.topics();
    let mut text = text.replace(input, &names.input).replace(output, &names.output);
    text = set(&text, "applicationId", &names.application_id)
        .with_context(|| format!("{} has no applicationId", example.display()))?;
    let same_as_the_others = [
        ("guarantee", who.guarantee().to_owned()),
        ("bootstrapServers", bench.broker.bootstrap.clone()),
        ("threads", bench.threads.to_string()),
        ("commitInterval", format!("{}ms", line.commit_interval_ms)),
    ];
    for (key, value) in same_as_the_others {
        match set(&text, key, &value) {
            Some(changed) => text = changed,
            None => eprintln!(
                "bench: {} has no line for {key}: its default stands",
                example.display()
            ),
        }
    }
    for setting in &bench.ours_set {
        let (key, value) = setting.split_once('=').context("--ours-set wants KEY=VALUE")?;
        text =
            set(&text, key, value).with_context(|| format!("{} has no line for {key}", example.display()))?;
    }
    let file = names.directory.join(line.topology.file());
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// Replaces the value of every line `key: …`; nothing when there is no such line.
pub(crate) fn set(text: &str, key: &str, value: &str) -> Option<String> {
    let mut found = false;
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            match line
                .trim_start()
                .strip_prefix(key)
                .and_then(|rest| rest.strip_prefix(':'))
            {
                Some(_) => {
                    found = true;
                    let indent = line.len() - line.trim_start().len();
                    format!("{}{key}: {value}", &line[..indent])
                }
                None => line.to_owned(),
            }
        })
        .collect();
    found.then(|| lines.join("\n") + "\n")
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn path(path: &Path) -> Result<String> {
    match path.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => bail!("{} is not UTF-8", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gets_its_new_value_where_it_stands() {
        let text = "spec:\n  applicationId: orders-risk # why\n  topology: {}\n";
        assert_eq!(
            set(text, "applicationId", "b-1").unwrap(),
            "spec:\n  applicationId: b-1\n  topology: {}\n"
        );
        assert_eq!(set(text, "commitInterval", "1s"), None);
    }
}
