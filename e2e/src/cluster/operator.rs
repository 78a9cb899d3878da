//! The operator in the cluster: installed by its charts, found by its Lease, stopped and started.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::kubectl::{Cluster, eventually};
use super::pods::Pod;

pub(super) const NAMESPACE: &str = "streamapp-system";
const DEPLOYMENT: &str = "deployment/streamapp-operator";
const LEASE: &str = "streamapp-operator";
const LABEL: &str = "app.kubernetes.io/name=streamapp-operator";
/// Operator pods that the charts are installed with.
pub(super) const REPLICAS: u32 = 2;
/// How long pods of the operator may take to start, or to go.
const DEADLINE: Duration = Duration::from_secs(180);

/// The operator of a cluster.
pub(super) struct Operator<'a> {
    pub(super) cluster: &'a Cluster,
    /// Directory of the charts.
    pub(super) charts: &'a std::path::Path,
    /// Tag of both images.
    pub(super) tag: &'a str,
}

impl Operator<'_> {
    /// Installs both charts, or upgrades what is installed, and waits until it is ready.
    pub(super) fn install(&self, replicas: u32) -> Result<()> {
        self.upgrade(replicas, &[])
    }

    /// The same with another note at its pods: all of them are replaced, as with another image.
    pub(super) fn install_with_note(&self, replicas: u32, note: &str) -> Result<()> {
        let value = format!("podAnnotations.note={note}");
        self.upgrade(replicas, &["--set-string", &value])
    }

    fn upgrade(&self, replicas: u32, more: &[&str]) -> Result<()> {
        let chart = |name: &str| self.charts.join(name).display().to_string();
        self.cluster.helm(&[
            "upgrade",
            "--install",
            "streamapp-crds",
            &chart("streamapp-crds"),
            "--namespace",
            NAMESPACE,
            "--create-namespace",
        ])?;
        self.cluster.kubectl_waits(&[
            "wait",
            "--for=condition=Established",
            "crd/streamapps.streamapp.dev",
            "--timeout=60s",
        ])?;
        let (operator, tag, worker, replicas, timeout) = (
            chart("streamapp-operator"),
            format!("image.tag={}", self.tag),
            format!("worker.image=localhost/streamapp-worker:{}", self.tag),
            format!("replicas={replicas}"),
            format!("{}s", DEADLINE.as_secs()),
        );
        let arguments = [
            "upgrade",
            "--install",
            "streamapp-operator",
            &operator,
            "--namespace",
            NAMESPACE,
            "--create-namespace",
            "--set",
            "image.repository=localhost/streamapp-operator",
            "--set-string",
            &tag,
            "--set",
            &worker,
            "--set",
            &replicas,
            "--wait",
            "--timeout",
            &timeout,
        ];
        self.cluster.helm(&[&arguments, more].concat())?;
        self.leader().map(|_| ())
    }

    /// Removes the operator; StreamApps, their definition and their workers stay.
    pub(super) fn uninstall(&self) -> Result<()> {
        self.cluster.helm(&[
            "uninstall",
            "streamapp-operator",
            "--namespace",
            NAMESPACE,
            "--wait",
        ])?;
        eventually("the operator's pods to be gone", DEADLINE, || {
            let pods = self.cluster.list(NAMESPACE, "pods", LABEL)?;
            ensure!(pods.is_empty(), "{} are there", pods.len());
            Ok(())
        })
    }

    fn pods(&self) -> Result<Vec<Pod>> {
        Ok(self
            .cluster
            .list(NAMESPACE, "pods", LABEL)?
            .iter()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .map(Pod::of)
            .collect())
    }

    /// The pod that holds the Lease, once a living one does.
    pub(super) fn leader(&self) -> Result<Pod> {
        eventually("a living operator pod to hold the Lease", DEADLINE, || {
            let lease = self
                .cluster
                .find(NAMESPACE, "lease", LEASE)?
                .context("there is no Lease")?;
            let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
            let pods = self.pods()?;
            match pods.iter().find(|pod| holder.starts_with(&pod.name)) {
                Some(pod) => Ok(pod.clone()),
                None => bail!(
                    "its holder is {holder:?}, the pods are {:?}",
                    pods.iter().map(|pod| &pod.name).collect::<Vec<_>>()
                ),
            }
        })
    }

    fn rolled_out(&self) -> Result<()> {
        self.cluster
            .kubectl_waits(&[
                "rollout",
                "status",
                "-n",
                NAMESPACE,
                DEPLOYMENT,
                &format!("--timeout={}s", DEADLINE.as_secs()),
            ])
            .map(|_| ())
    }

    fn scale(&self, replicas: u32) -> Result<()> {
        self.cluster
            .kubectl(&[
                "scale",
                "-n",
                NAMESPACE,
                DEPLOYMENT,
                &format!("--replicas={replicas}"),
            ])
            .map(|_| ())
    }

    /// Takes all operator pods away until the answer is dropped or ended.
    pub(super) fn away(&self) -> Result<Away<'_>> {
        self.scale(0)?;
        let away = Away(Some(self));
        eventually("the operator's pods to be gone", DEADLINE, || {
            let pods = self.cluster.list(NAMESPACE, "pods", LABEL)?;
            ensure!(pods.is_empty(), "{} are there", pods.len());
            Ok(())
        })?;
        Ok(away)
    }
}

/// While this lives, there is no operator.
pub(super) struct Away<'a>(Option<&'a Operator<'a>>);

impl Away<'_> {
    /// The operator comes back, and leads.
    pub(super) fn end(mut self) -> Result<()> {
        let Some(operator) = self.0.take() else {
            return Ok(());
        };
        operator.scale(REPLICAS)?;
        operator.rolled_out()?;
        operator.leader().map(|_| ())
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        if let Some(operator) = self.0
            && let Err(error) = operator.scale(REPLICAS)
        {
            eprintln!("cannot scale the operator up again: {error:#}");
        }
    }
}
