//! One StreamApp in the cluster: applied, waited for, hit at work, judged, deleted.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::kubectl::{Cluster, eventually};
use super::place::{Setting, names};
use super::pods::{Identity, Pod, Process};
use crate::broker::Broker;
use crate::check::{Check, Example, Formats, Guarantee, check};
use crate::demo::{INPUT, OUTPUT};
use crate::drained::{WaitDrained, run as wait_drained};
use crate::generate::{Generate, KeyedBy, run as generate};
use crate::hit::{Evidence, Target};
use crate::integration::Counted;

/// How long an application may take to become ready, or to come back after a fault.
pub(super) const READY: Duration = Duration::from_secs(180);
/// How long something may take to be told.
pub(super) const TOLD: Duration = Duration::from_secs(120);
/// How long records may take to be processed.
const DRAINED: Duration = Duration::from_secs(180);
pub(super) const STORE: &str = "exposure-by-customer";

/// A StreamApp. Where it runs in the cluster, and what it is in Kafka.
pub(super) struct App<'a> {
    pub(super) setting: &'a Setting,
    pub(super) namespace: String,
    pub(super) name: String,
    /// `spec.applicationId`
    pub(super) id: String,
    /// The topic that it reads.
    pub(super) input: String,
    /// The topic that it writes.
    pub(super) output: String,
    pub(super) broker: Broker,
    pub(super) replicas: u32,
}

impl App<'_> {
    fn cluster(&self) -> &Cluster {
        &self.setting.cluster
    }

    fn repartition(&self) -> String {
        format!("{}-{STORE}-repartition", self.id)
    }

    /// Creates the topics that the operator does not create.
    pub(super) fn create_topics(&self) -> Result<()> {
        self.broker.create_topics(&[(&self.input, 6), (&self.output, 6)])
    }

    /// The example with this application's names.
    pub(super) fn manifest(&self) -> Result<Value> {
        let text = self
            .setting
            .example
            .to_string()
            .replace(INPUT, &self.input)
            .replace(OUTPUT, &self.output);
        let mut app: Value = serde_json::from_str(&text)?;
        app["metadata"] = json!({
            "name": self.name,
            "namespace": self.namespace,
            // For the checker: it compares the repartition topic with the input.
            "annotations": {"streamapp.dev/keep-repartition-records": "true"},
        });
        app["spec"]["applicationId"] = json!(self.id);
        app["spec"]["replicas"] = json!(self.replicas);
        app["spec"]["kafka"]["bootstrapServers"] = json!(self.broker.bootstrap);
        Ok(app)
    }

    pub(super) fn apply(&self) -> Result<()> {
        self.cluster().apply(&self.manifest()?)
    }

    pub(super) fn apply_with(&self, edit: impl FnOnce(&mut Value)) -> Result<()> {
        let mut app = self.manifest()?;
        edit(&mut app);
        self.cluster().apply(&app)
    }

    /// Topics, then the application, then the wait until it is ready.
    pub(super) fn start(&self) -> Result<()> {
        self.create_topics()?;
        self.apply()?;
        self.wait_ready()
    }

    /// The StreamApp as the cluster has it.
    pub(super) fn object(&self) -> Result<Value> {
        self.cluster()
            .find(&self.namespace, "streamapp", &self.name)?
            .with_context(|| format!("StreamApp {} is not there", self.name))
    }

    pub(super) fn wait_ready(&self) -> Result<()> {
        eventually(&format!("StreamApp {} to be Ready", self.name), READY, || {
            let app = self.object()?;
            expect(&app, "Ready", "True", None)?;
            let ready = &app["status"]["readyReplicas"];
            ensure!(
                *ready == self.replicas,
                "readyReplicas is {ready} of {}; {}",
                self.replicas,
                told(&app)
            );
            Ok(())
        })
    }

    /// Waits for a condition with this reason; its message.
    pub(super) fn wait_told(&self, kind: &str, status: &str, reason: &str) -> Result<String> {
        let what = format!("StreamApp {} to say {kind}={status} {reason}", self.name);
        eventually(&what, TOLD, || {
            expect(&self.object()?, kind, status, Some(reason))
        })
    }

    /// Waits for an Event about this application whose text names `about`.
    pub(super) fn wait_event(&self, reason: &str, about: &str) -> Result<()> {
        let what = format!("an Event {reason} of StreamApp {}", self.name);
        eventually(&what, TOLD, || {
            let events = self.cluster().list(&self.namespace, "events.events.k8s.io", "")?;
            let told = events.iter().any(|event| {
                event["reason"] == reason
                    && event["regarding"]["name"] == *self.name
                    && event["note"].as_str().is_some_and(|note| note.contains(about))
            });
            ensure!(told, "there are {} other Events", events.len());
            Ok(())
        })
    }

    /// The worker pods, by ordinal; those that are going away are passed over.
    pub(super) fn pods(&self) -> Result<Vec<Pod>> {
        let selector = format!(
            "app.kubernetes.io/name=streamapp-worker,app.kubernetes.io/instance={}",
            self.name
        );
        let mut pods: Vec<Pod> = self
            .cluster()
            .list(&self.namespace, "pods", &selector)?
            .iter()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .map(Pod::of)
            .collect();
        pods.sort_by_key(|pod| {
            let (_, ordinal) = pod.name.rsplit_once('-').unwrap_or_default();
            ordinal.parse().unwrap_or(u32::MAX)
        });
        Ok(pods)
    }

    pub(super) fn pod(&self, ordinal: u32) -> Result<Pod> {
        let name = format!("{}-{ordinal}", self.name);
        self.pods()?
            .into_iter()
            .find(|pod| pod.name == name)
            .with_context(|| format!("there is no pod {name}"))
    }

    /// Uids and restarts of all worker pods.
    pub(super) fn identities(&self) -> Result<Vec<Identity>> {
        Ok(self.pods()?.iter().map(Pod::identity).collect())
    }

    /// That no pod was replaced, restarted, added or removed since.
    pub(super) fn untouched_since(&self, before: &[Identity]) -> Result<()> {
        let now = self.identities()?;
        ensure!(
            now == before,
            "pods (name, uid, restarts) were {before:?} and are {now:?}"
        );
        Ok(())
    }

    /// Waits until another process than `before` runs the tasks of an ordinal.
    pub(super) fn wait_running_again(&self, ordinal: u32, before: Process) -> Result<Process> {
        let what = format!("pod {}-{ordinal} to run its tasks again", self.name);
        eventually(&what, READY, || {
            let pod = self.pod(ordinal)?;
            let process = pod.worker()?;
            ensure!(process != before, "process {} is the old one", process.pid);
            let status = pod.status(self.cluster())?;
            ensure!(
                status["phase"] == "Running",
                "it is {}, {} {}",
                status["phase"],
                status["reason"],
                status["message"]
            );
            Ok(process)
        })
    }

    /// One count of the workers' status documents, summed; since each process started.
    pub(super) fn total(&self, count: &str) -> Result<u64> {
        let mut sum = 0;
        for pod in self.pods()? {
            let status = pod.status(self.cluster())?;
            sum += status["totals"][count]
                .as_u64()
                .with_context(|| format!("pod {} tells no {count}", pod.name))?;
        }
        Ok(sum)
    }

    /// Stops the worker of an ordinal at a moment at which it has a transaction open while records wait.
    pub(super) fn stop_at_work(&self, ordinal: u32) -> Result<(Pod, Process, Evidence)> {
        let target = Target {
            broker: &self.broker,
            application_id: &self.id,
            input: &self.input,
            written: &self.repartition(),
        };
        let evidence = target.stop_at_work(ordinal, || Ok(self.pod(ordinal)?.worker()?.pid))?;
        let pod = self.pod(ordinal)?;
        let process = pod.worker()?;
        ensure!(
            process.pid == evidence.pid,
            "pod {} was replaced meanwhile",
            pod.name
        );
        Ok((pod, process, evidence))
    }

    /// kill -9 of a worker process at work.
    pub(super) fn kill_at_work(&self, ordinal: u32) -> Result<(Process, Evidence)> {
        let (_, process, evidence) = self.stop_at_work(ordinal)?;
        process.signal(libc::SIGKILL)?;
        Ok((process, evidence))
    }

    /// `kubectl delete pod --force` of a pod at work. Its process is woken: the next pod may meet it.
    pub(super) fn force_delete_at_work(&self, ordinal: u32) -> Result<(Process, Evidence)> {
        let (pod, process, evidence) = self.stop_at_work(ordinal)?;
        let deleted = pod.force_delete(self.cluster());
        // The kubelet may have been faster.
        let _ = process.signal(libc::SIGCONT);
        deleted?;
        Ok((process, evidence))
    }

    /// Orders `first..first + count` for this application.
    pub(super) fn stream(&self, first: u64, count: u64, rate: u64) -> Generate {
        Generate {
            broker: self.broker.clone(),
            topic: self.input.clone(),
            keyed_by: KeyedBy::Order,
            count,
            first,
            rate,
            customers: 200,
            max_amount_cents: 200_000,
            seed: 7,
            bad_at: None,
            quiet: true,
        }
    }

    /// Writes orders, and waits until they are processed.
    pub(super) fn process(&self, first: u64, count: u64) -> Result<()> {
        generate(&self.stream(first, count, 0))?;
        self.wait_drained()
    }

    pub(super) fn wait_drained(&self) -> Result<()> {
        wait_drained(&WaitDrained {
            broker: self.broker.clone(),
            application_id: self.id.clone(),
            topics: vec![self.input.clone()],
            repartitions: vec![STORE.to_owned()],
            deadline: DRAINED.as_secs(),
        })
    }

    /// The checker's verdict on everything that the application did.
    pub(super) fn check(&self, orders: u64) -> Result<Counted> {
        let report = check(&Check {
            broker: self.broker.clone(),
            topology: Example::OrdersRisk,
            application_id: self.id.clone(),
            guarantee: Guarantee::ExactlyOnceV2,
            input: self.input.clone(),
            output: Some(self.output.clone()),
            formats: Formats::Streamapp,
            store: STORE.to_owned(),
            malformed: 0,
            deadline: 120,
            json: None,
        })?;
        let verdict = &report.verdict;
        if !verdict.passed() {
            let faults: Vec<_> = verdict
                .sections
                .iter()
                .flat_map(|section| &section.examples)
                .take(5)
                .collect();
            bail!(
                "the checker found duplicates={} missing={} wrong={} out_of_order={}: {faults:?}",
                verdict.total(|section| section.duplicates),
                verdict.total(|section| section.missing),
                verdict.total(|section| section.wrong),
                verdict.total(|section| section.out_of_order),
            );
        }
        ensure!(
            verdict.orders == orders,
            "{} orders were judged, {orders} were written",
            verdict.orders
        );
        Ok(Counted {
            records: verdict.orders,
            ..Counted::default()
        })
    }

    pub(super) fn delete(&self) -> Result<()> {
        self.cluster().delete(&self.namespace, "streamapp", &self.name)
    }

    /// Waits until the StreamApp is gone, then until its children are.
    pub(super) fn wait_gone(&self, deadline: Duration) -> Result<()> {
        eventually(
            &format!("StreamApp {} to be gone", self.name),
            deadline,
            || match self.cluster().find(&self.namespace, "streamapp", &self.name)? {
                None => Ok(()),
                Some(app) => bail!(
                    "it is there with finalizers {}; {}",
                    app["metadata"]["finalizers"],
                    told(&app)
                ),
            },
        )?;
        eventually(
            &format!("the children of {} to be gone", self.name),
            Duration::from_secs(60),
            || {
                let children = self.children()?;
                ensure!(children.is_empty(), "there are {}", names(&children));
                Ok(())
            },
        )
    }

    /// Everything in the namespace that was made for this application, volumes apart.
    fn children(&self) -> Result<Vec<Value>> {
        const KINDS: &str = "statefulsets,pods,services,serviceaccounts,secrets,configmaps,poddisruptionbudgets,networkpolicies";
        let mut children = self.cluster().list(&self.namespace, KINDS, "")?;
        children.retain(|child| {
            let name = child["metadata"]["name"].as_str().unwrap_or_default();
            let instance = &child["metadata"]["labels"]["app.kubernetes.io/instance"];
            *instance == *self.name
                || name == self.name
                || name.starts_with(&format!("{}-config-", self.name))
        });
        Ok(children)
    }

    /// The claims of its volumes.
    pub(super) fn claims(&self) -> Result<Vec<Value>> {
        let mut claims = self
            .cluster()
            .list(&self.namespace, "persistentvolumeclaims", "")?;
        let prefix = format!("state-{}-", self.name);
        claims.retain(|claim| {
            claim["metadata"]["name"]
                .as_str()
                .is_some_and(|name| name.starts_with(&prefix))
        });
        Ok(claims)
    }

    /// Where it stands, for a line of progress.
    pub(super) fn progress(&self) -> String {
        let status = self.object().map_or(Value::Null, |app| app["status"].clone());
        format!(
            "{:>6} behind   {} pods ready",
            status["lag"].as_i64().unwrap_or(0),
            status["readyReplicas"].as_u64().unwrap_or(0)
        )
    }
}

/// A condition of the present generation with this status and reason; its message.
pub(super) fn expect(app: &Value, kind: &str, status: &str, reason: Option<&str>) -> Result<String> {
    let seen = app["status"]["observedGeneration"].as_i64();
    ensure!(
        seen >= app["metadata"]["generation"].as_i64(),
        "generation {} is not observed: {}",
        app["metadata"]["generation"],
        told(app)
    );
    let condition = app["status"]["conditions"]
        .as_array()
        .and_then(|all| all.iter().find(|condition| condition["type"] == kind))
        .with_context(|| format!("there is no condition {kind}: {}", told(app)))?;
    let right = condition["status"] == status && reason.is_none_or(|reason| condition["reason"] == reason);
    ensure!(right, "{}", told(app));
    Ok(condition["message"].as_str().unwrap_or_default().to_owned())
}

/// All conditions in a line.
pub(super) fn told(app: &Value) -> String {
    let conditions: Vec<_> = app["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|condition| {
            let text = |field: &str| condition[field].as_str().unwrap_or_default();
            format!(
                "{}={} {} ({})",
                text("type"),
                text("status"),
                text("reason"),
                text("message")
            )
        })
        .collect();
    if conditions.is_empty() {
        return "it says nothing yet".to_owned();
    }
    conditions.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(observed: i64) -> Value {
        json!({
            "metadata": {"generation": 2},
            "status": {
                "observedGeneration": observed,
                "conditions": [{"type": "Stalled", "status": "True", "reason": "SecretMissing", "message": "there is no s"}],
            },
        })
    }

    #[test]
    fn a_condition_counts_only_with_its_reason_and_for_the_present_generation() {
        let message = expect(&app(2), "Stalled", "True", Some("SecretMissing")).unwrap();
        assert_eq!(message, "there is no s");
        assert!(expect(&app(1), "Stalled", "True", Some("SecretMissing")).is_err());
        assert!(expect(&app(2), "Stalled", "True", Some("TopicMissing")).is_err());
        assert!(expect(&app(2), "Stalled", "False", None).is_err());
        assert!(expect(&app(2), "Ready", "True", None).is_err());
    }

    #[test]
    fn all_conditions_are_told() {
        assert_eq!(
            told(&app(2)),
            "Stalled=True SecretMissing (there is no s)".to_owned()
        );
        assert_eq!(told(&json!({})), "it says nothing yet");
    }
}
