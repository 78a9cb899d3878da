//! The cluster, through `kubectl` and `helm`; only the one that `STREAMAPP_TEST_KUBECONFIG` names, because pods are
//! killed here.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::wait;

/// Names the only cluster that is acted on.
const VARIABLE: &str = "STREAMAPP_TEST_KUBECONFIG";
/// Ends a request that hangs; far above any healthy answer.
const REQUEST: &str = "--request-timeout=20s";
/// Between two looks at the cluster: each starts a program.
const BETWEEN: Duration = Duration::from_millis(300);

/// The cluster of the tests.
pub(super) struct Cluster {
    kubeconfig: PathBuf,
}

/// What a program answered.
pub(super) struct Answer {
    pub(super) accepted: bool,
    /// Standard output when it was accepted, else standard error.
    pub(super) text: String,
}

impl Cluster {
    /// The cluster that the variable names; its address is told.
    pub(super) fn named() -> Result<Self> {
        let Some(file) = std::env::var_os(VARIABLE).filter(|file| !file.is_empty()) else {
            bail!(
                "{VARIABLE} is not set: it names the kubeconfig of a test cluster (KUBECONFIG alone is never used: \
                 pods are killed here)"
            );
        };
        let cluster = Self {
            kubeconfig: PathBuf::from(file),
        };
        let config = cluster.json(&["config", "view", "--minify"])?;
        let server = &config["clusters"][0]["cluster"]["server"];
        println!(
            "cluster: {} ({VARIABLE}={})",
            server.as_str().unwrap_or("no server"),
            cluster.kubeconfig.display()
        );
        Ok(cluster)
    }

    fn call(&self, program: &str, arguments: &[&str], input: Option<&str>) -> Result<Answer> {
        let mut child = Command::new(program)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments)
            .env_remove("KUBECONFIG")
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        // Dropped at once: the program reads to the end of its input before it answers.
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            stdin.write_all(input.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let accepted = output.status.success();
        let text = if accepted { output.stdout } else { output.stderr };
        Ok(Answer {
            accepted,
            text: String::from_utf8_lossy(&text).trim().to_owned(),
        })
    }

    /// One request; a refusal is an answer.
    pub(super) fn ask(&self, arguments: &[&str]) -> Result<Answer> {
        self.call("kubectl", &[&[REQUEST], arguments].concat(), None)
    }

    /// One request; a refusal is an error.
    pub(super) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        accepted(&format!("kubectl {}", arguments.join(" ")), self.ask(arguments)?)
    }

    /// A call that keeps its own deadline, such as `wait` and `rollout status`.
    pub(super) fn kubectl_waits(&self, arguments: &[&str]) -> Result<String> {
        accepted(
            &format!("kubectl {}", arguments.join(" ")),
            self.call("kubectl", arguments, None)?,
        )
    }

    /// One request whose answer is JSON.
    pub(super) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("kubectl {}: no JSON", arguments.join(" ")))
    }

    /// An object, or that there is none.
    pub(super) fn find(&self, namespace: &str, kind: &str, name: &str) -> Result<Option<Value>> {
        let text = self.kubectl(&[
            "get",
            "-n",
            namespace,
            kind,
            name,
            "--ignore-not-found",
            "-o",
            "json",
        ])?;
        if text.is_empty() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&text)?))
    }

    /// The objects of these kinds (with commas) in a namespace.
    pub(super) fn list(&self, namespace: &str, kinds: &str, selector: &str) -> Result<Vec<Value>> {
        let answer = self.json(&["get", "-n", namespace, kinds, "-l", selector])?;
        let items = answer["items"].as_array();
        Ok(items
            .with_context(|| format!("the list of {kinds} has no items"))?
            .clone())
    }

    /// `kubectl apply`; a refusal is an answer.
    pub(super) fn try_apply(&self, object: &Value) -> Result<Answer> {
        self.call(
            "kubectl",
            &[REQUEST, "apply", "-f", "-"],
            Some(&object.to_string()),
        )
    }

    /// `kubectl apply`; a refusal is an error.
    pub(super) fn apply(&self, object: &Value) -> Result<()> {
        let what = format!("kubectl apply of {}", object["metadata"]["name"]);
        accepted(&what, self.try_apply(object)?).map(|_| ())
    }

    /// Deletes without waiting; what is not there is no error.
    pub(super) fn delete(&self, namespace: &str, kind: &str, name: &str) -> Result<()> {
        self.kubectl(&[
            "delete",
            "-n",
            namespace,
            kind,
            name,
            "--wait=false",
            "--ignore-not-found",
        ])
        .map(|_| ())
    }

    /// Deletes a namespace and waits until it is gone.
    pub(super) fn delete_namespace(&self, namespace: &str, deadline: Duration) -> Result<()> {
        self.kubectl(&[
            "delete",
            "namespace",
            namespace,
            "--wait=false",
            "--ignore-not-found",
        ])?;
        eventually(
            &format!("namespace {namespace} to be gone"),
            deadline,
            || match self.find("default", "namespace", namespace)? {
                None => Ok(()),
                Some(object) => bail!("it is there: {}", object["status"]),
            },
        )
    }

    /// A namespace in which only restricted pods may run.
    pub(super) fn create_namespace(&self, namespace: &str) -> Result<()> {
        self.apply(&serde_json::json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": namespace,
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            },
        }))
    }

    /// Runs `helm`.
    pub(super) fn helm(&self, arguments: &[&str]) -> Result<String> {
        accepted(
            &format!("helm {}", arguments.join(" ")),
            self.call("helm", arguments, None)?,
        )
    }
}

fn accepted(what: &str, answer: Answer) -> Result<String> {
    if answer.accepted {
        return Ok(answer.text);
    }
    bail!("{what}: {}", answer.text)
}

/// Looks at the cluster until `look` gives a value. Its errors say what is still missing; the last one is told when
/// the deadline has passed.
pub(super) fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut looked: Option<Instant> = None;
    wait::until(what, deadline, || {
        while looked.is_some_and(|at| at.elapsed() < BETWEEN) {
            wait::pause();
        }
        let found = look();
        looked = Some(Instant::now());
        found.map(Ok).map_err(|error| format!("{error:#}"))
    })
}
