//! A child process under measurement: its CPU time and memory, those of its children included.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::wait;

/// How long a subject may take to end after SIGTERM.
const END: Duration = Duration::from_secs(60);

/// A running subject; it is killed when it is dropped before its end.
pub(super) struct Subject {
    child: Child,
    name: String,
}

impl Subject {
    /// Starts a command with both outputs in `log`.
    pub(super) fn start(command: &[String], log: &Path, bootstrap: &str) -> Result<Self> {
        let (program, arguments) = command.split_first().context("an empty command")?;
        let out = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new(program)
            .args(arguments)
            .env("STREAMAPP_BOOTSTRAP", bootstrap)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        Ok(Subject {
            child,
            name: command.join(" "),
        })
    }

    /// An error when the process has ended by itself.
    pub(super) fn assert_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("`{}` ended by itself: {status}", self.name),
        }
    }

    /// CPU seconds used so far.
    pub(super) fn cpu_seconds(&self) -> f64 {
        tree(self.child.id()).into_iter().filter_map(cpu_seconds).sum()
    }

    /// The sum of the peak resident sizes of its live processes, in bytes.
    pub(super) fn peak_rss_bytes(&self) -> u64 {
        let processes = tree(self.child.id()).into_iter();
        processes.filter_map(|pid| memory_bytes(pid, "VmHWM")).sum()
    }

    /// Asks the process to end, and waits for it.
    pub(super) fn stop(mut self) -> Result<ExitStatus> {
        // SAFETY: the child has not been waited for, so its id is still its own.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        let name = self.name.clone();
        wait::until(&format!("`{name}` to end after SIGTERM"), END, || {
            match self.child.try_wait() {
                Ok(Some(status)) => Ok(Ok(status)),
                Ok(None) => Err("it still runs".to_owned()),
                Err(error) => Ok(Err(error.into())),
            }
        })
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            for pid in tree(self.child.id()) {
                // SAFETY: a signal to a process of the subject's own tree, which has just been listed.
                unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
            }
            let _ = self.child.wait();
        }
    }
}

/// The process and all that descend from it.
fn tree(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(parent) = stat(pid).and_then(|fields| fields.get(1)?.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.get(pid).cloned().unwrap_or_default());
        next += 1;
    }
    found
}

/// The fields of `/proc/PID/stat` after the name: state, parent, …
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// CPU seconds of a process, its ended children included.
pub(crate) fn cpu_seconds(pid: u32) -> Option<f64> {
    let fields = stat(pid)?;
    let ticks: u64 = fields
        .get(11..15)?
        .iter()
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    // SAFETY: asks for a constant.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Some(ticks as f64 / per_second as f64)
}

/// Memory of a process: `VmRSS`, or `VmHWM` for the most that it ever had.
pub(crate) fn memory_bytes(pid: u32, what: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(what)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1_024)
}
