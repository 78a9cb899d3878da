//! Where scenarios happen: the cluster and its options, and one namespace for each scenario.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::app::App;
use super::kubectl::{Cluster, eventually};
use super::operator::{Operator, REPLICAS};
use crate::broker::Broker;

/// How long the clean-up of an application or a namespace may take.
const CLEAN: Duration = Duration::from_secs(120);

/// Options of both cluster commands
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(super) broker: Broker,
    /// The StreamApp file
    #[arg(long, default_value = "examples/orders-risk/app.yaml")]
    pub(super) file: PathBuf,
    /// Directory of the charts
    #[arg(long, default_value = "charts")]
    pub(super) charts: PathBuf,
    /// Tag of the operator's and the worker's image
    #[arg(long, default_value = "0.1.0")]
    pub(super) image_tag: String,
    /// Take the operator that is installed
    #[arg(long)]
    pub(super) no_install: bool,
    /// The broker's directory: its log tells the fences
    #[arg(long, default_value = ".state/broker")]
    pub(super) broker_dir: PathBuf,
    /// The script that runs brokers
    #[arg(long, default_value = "e2e/broker")]
    pub(super) broker_script: PathBuf,
}

/// The cluster with an operator in it.
pub(super) struct Setting {
    pub(super) cluster: Cluster,
    pub(super) options: Options,
    /// The example's StreamApp.
    pub(super) example: Value,
}

impl Setting {
    /// Finds the cluster, installs the operator and reads the example.
    pub(super) fn prepare(options: &Options) -> Result<Self> {
        let cluster = Cluster::named()?;
        let mut setting = Self {
            cluster,
            options: options.clone(),
            example: Value::Null,
        };
        if !options.no_install {
            setting.operator().install(REPLICAS)?;
        }
        // kubectl reads YAML; a dry run changes nothing and answers in JSON.
        setting.example = setting.cluster.json(&[
            "create",
            "--dry-run=client",
            "--validate=false",
            "-f",
            &options.file.display().to_string(),
        ])?;
        ensure!(
            setting.example["kind"] == "StreamApp",
            "{} is no StreamApp",
            options.file.display()
        );
        Ok(setting)
    }

    pub(super) fn operator(&self) -> Operator<'_> {
        Operator {
            cluster: &self.cluster,
            charts: &self.options.charts,
            tag: &self.options.image_tag,
        }
    }

    /// Deletes a namespace, its StreamApps first: they need the operator, and say it when they cannot go.
    pub(super) fn remove_namespace(&self, namespace: &str) -> Result<()> {
        if self.cluster.find("default", "namespace", namespace)?.is_none() {
            return Ok(());
        }
        self.cluster
            .kubectl(&["delete", "streamapps", "--all", "-n", namespace, "--wait=false"])?;
        let gone = eventually(
            &format!("the StreamApps of {namespace} to be gone"),
            CLEAN,
            || {
                let left = self.cluster.list(namespace, "streamapps", "")?;
                ensure!(left.is_empty(), "there are {}", names(&left));
                Ok(())
            },
        );
        if gone.is_err() {
            // The namespace must go all the same.
            for app in self.cluster.list(namespace, "streamapps", "")? {
                self.cluster.kubectl(&[
                    "patch",
                    "streamapp",
                    "-n",
                    namespace,
                    app["metadata"]["name"].as_str().unwrap_or_default(),
                    "--type=merge",
                    "-p",
                    r#"{"metadata":{"finalizers":null}}"#,
                ])?;
            }
        }
        self.cluster.delete_namespace(namespace, CLEAN)?;
        gone
    }
}

/// The names of objects, with commas.
pub(super) fn names(objects: &[Value]) -> String {
    let names: Vec<_> = objects
        .iter()
        .filter_map(|object| {
            Some(format!(
                "{}/{}",
                object["kind"].as_str()?,
                object["metadata"]["name"].as_str()?
            ))
        })
        .collect();
    names.join(", ")
}

/// The namespace of one scenario.
pub(super) struct Place<'a> {
    pub(super) setting: &'a Setting,
    pub(super) namespace: String,
    /// Begins the ids of its applications and the names of their topics.
    prefix: String,
}

impl<'a> Place<'a> {
    /// A new namespace; what an earlier run left of it goes first.
    pub(super) fn open(setting: &'a Setting, scenario: &str) -> Result<Self> {
        let place = Self {
            setting,
            namespace: format!("e2e-{scenario}"),
            prefix: format!("e2e-{scenario}-"),
        };
        setting.remove_namespace(&place.namespace)?;
        place.delete_topics(&setting.options.broker)?;
        setting.cluster.create_namespace(&place.namespace)?;
        Ok(place)
    }

    pub(super) fn cluster(&self) -> &'a Cluster {
        &self.setting.cluster
    }

    /// An application of this place on the tests' broker; nothing is applied yet.
    pub(super) fn app(&self, name: &str, replicas: u32) -> App<'_> {
        self.app_on(&self.setting.options.broker, name, replicas)
    }

    /// An application of this place on another broker.
    pub(super) fn app_on(&self, broker: &Broker, name: &str, replicas: u32) -> App<'_> {
        // The process id keeps the groups of two runs apart.
        let id = format!("{}{}-{name}", self.prefix, std::process::id());
        App {
            setting: self.setting,
            namespace: self.namespace.clone(),
            name: name.to_owned(),
            input: format!("{id}-in"),
            output: format!("{id}-out"),
            id,
            broker: broker.clone(),
            replicas,
        }
    }

    fn delete_topics(&self, broker: &Broker) -> Result<()> {
        let names = broker.topic_names()?;
        let ours: Vec<_> = names
            .iter()
            .filter(|name| name.starts_with(&self.prefix))
            .map(String::as_str)
            .collect();
        broker.delete_topics(&ours)
    }

    /// Writes what a person would look at after a failure into `reports/e2e-<scenario>.log`.
    pub(super) fn record(&self, scenario: &str, error: &anyhow::Error) -> Result<PathBuf> {
        let mut text = format!("{scenario} failed: {error:#}\n");
        let namespace = self.namespace.as_str();
        let mut tell = |arguments: &[&str]| {
            let answer = match self.cluster().ask(arguments) {
                Ok(answer) => answer.text,
                Err(error) => format!("{error:#}"),
            };
            // A String takes everything.
            let _ = writeln!(text, "\n$ kubectl {}\n{answer}", arguments.join(" "));
        };
        tell(&["get", "all,pvc,streamapps", "-n", namespace, "-o", "wide"]);
        tell(&["describe", "streamapps", "-n", namespace]);
        tell(&["describe", "pods", "-n", namespace]);
        tell(&["get", "events", "-n", namespace, "--sort-by=.lastTimestamp"]);
        let logs = ["logs", "--all-containers", "--prefix", "--tail=200", "-n"];
        let workers = ["-l", "app.kubernetes.io/name=streamapp-worker"];
        tell(&[&logs[..], &[namespace], &workers].concat());
        tell(&[&logs[..], &[namespace, "--previous"], &workers].concat());
        let operator = ["-l", "app.kubernetes.io/name=streamapp-operator"];
        tell(&[&logs[..], &[super::operator::NAMESPACE], &operator].concat());
        std::fs::create_dir_all("reports").context("create reports")?;
        let file = PathBuf::from(format!("reports/e2e-{scenario}.log"));
        std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        Ok(file)
    }

    /// Removes everything that the scenario made.
    pub(super) fn close(&self) -> Result<()> {
        let removed = self.setting.remove_namespace(&self.namespace);
        let topics = self.delete_topics(&self.setting.options.broker);
        match (removed, topics) {
            (Ok(()), Ok(())) => Ok(()),
            (Err(error), Ok(())) | (Ok(()), Err(error)) => Err(error.context("clean up")),
            (Err(removed), Err(topics)) => bail!("clean up: {removed:#}; {topics:#}"),
        }
    }
}
