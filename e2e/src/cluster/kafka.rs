//! Brokers through the script that runs them: a second one that a scenario may stop, and the password of the first.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::place::Setting;
use crate::broker::Broker;

fn call(script: &Path, arguments: &[&str], directory: &Path) -> Result<()> {
    let output = Command::new(script)
        .args(arguments)
        .arg("--dir")
        .arg(directory)
        .output()
        .context("run the broker script")?;
    ensure!(
        output.status.success(),
        "{} {}: {}",
        script.display(),
        arguments.first().copied().unwrap_or_default(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// A broker of one scenario, on the address that pods reach. Dropping it removes it.
pub(super) struct OwnBroker<'a> {
    script: &'a Path,
    directory: PathBuf,
    host: String,
    port: u16,
}

impl<'a> OwnBroker<'a> {
    /// Not started yet.
    pub(super) fn new(setting: &'a Setting, port: u16) -> Result<Self> {
        let bootstrap = &setting.options.broker.bootstrap;
        let (host, _) = bootstrap
            .rsplit_once(':')
            .with_context(|| format!("{bootstrap} is no host:port"))?;
        Ok(Self {
            script: &setting.options.broker_script,
            directory: std::path::absolute(format!(".state/e2e/broker-{port}"))?,
            host: host.to_owned(),
            port,
        })
    }

    pub(super) fn broker(&self) -> Broker {
        Broker {
            bootstrap: format!("{}:{}", self.host, self.port),
        }
    }

    pub(super) fn up(&self) -> Result<()> {
        self.call("up", None)
    }

    /// Its data stays.
    pub(super) fn down(&self) -> Result<()> {
        self.call("down", None)
    }

    fn call(&self, command: &str, option: Option<&str>) -> Result<()> {
        let port = self.port.to_string();
        let mut arguments = vec![command, "--host", &self.host, "--port", &port];
        arguments.extend(option);
        call(self.script, &arguments, &self.directory)
    }
}

impl Drop for OwnBroker<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.call("down", Some("--purge")) {
            eprintln!("cannot remove the second broker: {error:#}");
        }
    }
}

/// Changes the password of the secure listener's user on the tests' broker.
pub(super) fn change_password(setting: &Setting, password: &str) -> Result<()> {
    let directory = std::path::absolute(&setting.options.broker_dir)?;
    call(
        &setting.options.broker_script,
        &["password", password],
        &directory,
    )
}
