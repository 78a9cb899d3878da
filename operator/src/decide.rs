//! What the state of things means, and what to do next. Pure: everything observed comes in, nothing is asked.

use protocol::{Phase, TaskState, WorkerStatus};
use topology::compare::{self, Version, compare};
use topology::declaration::Topology;

use crate::names;

/// A worker pod, as seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodView {
    /// Its name.
    pub(crate) name: String,
    /// Its ordinal.
    pub(crate) ordinal: u32,
    /// Its uid.
    pub(crate) uid: String,
    /// Its address, once it has one.
    pub(crate) address: Option<String>,
    /// Its node.
    pub(crate) node: Option<String>,
    /// The revision that it was made of.
    pub(crate) revision: Option<String>,
    /// Kubernetes calls it ready: the worker processes.
    pub(crate) is_ready: bool,
    /// It is being deleted.
    pub(crate) is_deleting: bool,
    /// Why its container does not run, or why no node takes it: reason and message.
    pub(crate) waiting: Option<(String, String)>,
    /// Restarts of its container.
    pub(crate) restarts: i32,
    /// What the worker says; `None`: it does not answer.
    pub(crate) status: Option<WorkerStatus>,
}

impl PodView {
    /// The worker says that no broker answers it.
    #[must_use]
    pub(crate) fn has_lost_kafka(&self) -> bool {
        let reason = self.status.as_ref().and_then(|status| status.reason.as_deref());
        reason == Some("BrokerUnreachable")
    }
}

/// What people are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every worker runs what the spec says.
    Ready,
    /// The operator, or a worker, works towards it.
    Progressing {
        /// One CamelCase word.
        reason: String,
        /// What is waited for.
        message: String,
    },
    /// Only a person can help.
    Stalled {
        /// One CamelCase word.
        reason: String,
        /// What is wrong, where, and what to do.
        message: String,
    },
}

impl Verdict {
    /// A [`Self::Progressing`].
    pub(crate) fn progressing(reason: impl Into<String>, message: impl Into<String>) -> Self {
        let (reason, message) = (reason.into(), message.into());
        Self::Progressing { reason, message }
    }

    /// A [`Self::Stalled`].
    pub(crate) fn stalled(reason: impl Into<String>, message: impl Into<String>) -> Self {
        let (reason, message) = (reason.into(), message.into());
        Self::Stalled { reason, message }
    }

    /// The reason.
    #[must_use]
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Ready => "Running",
            Self::Progressing { reason, .. } | Self::Stalled { reason, .. } => reason,
        }
    }
}

/// Why an application cannot go on with another topology, if it cannot; `generation` is that of the spec that has it.
#[must_use]
pub(crate) fn needs_migration(running: &Topology, new: Version<'_>, generation: i64) -> Option<Verdict> {
    if running == new.topology {
        return None;
    }
    // One that this version does not accept any more cannot be compared with.
    let plan = topology::plan(running).ok()?;
    let running = Version {
        topology: running,
        plan: &plan,
    };
    let differences = compare(running, new).into_iter();
    let told: Vec<_> = differences
        .filter(|difference| difference.verdict == compare::Verdict::NeedsMigration)
        .map(|difference| difference.to_string())
        .collect();
    (!told.is_empty()).then(|| {
        let message = format!(
            "spec.topology: {}; the workers go on with the topology before. Go back, or give the application another id. Where \
             nothing is read and nothing is on its way, the annotation {}={generation} lets it pass",
            told.join("; "),
            names::ACCEPT_TOPOLOGY
        );
        Verdict::stalled("NeedsMigration", message)
    })
}

/// Waits of containers that end only when somebody changes something.
const STUCK: [&str; 6] = [
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ImagePullBackOff",
    "InvalidImageName",
];

/// The pod to replace now, if any: one at a time, and only while no other is away. A pod of an old revision that does
/// not run never blocks its own fix.
#[must_use]
pub(crate) fn to_replace<'a>(revision: &str, replicas: u32, pods: &'a [PodView]) -> Option<&'a PodView> {
    let is_outdated = |pod: &&PodView| pod.revision.as_deref() != Some(revision) && !pod.is_deleting;
    if let Some(broken) = pods
        .iter()
        .filter(is_outdated)
        .find(|pod| !pod.is_ready && !is_restoring(pod))
    {
        return Some(broken);
    }
    let all_run = pods.len() == replicas as usize && pods.iter().all(|pod| pod.is_ready && !pod.is_deleting);
    if all_run {
        pods.iter().filter(is_outdated).max_by_key(|pod| pod.ordinal)
    } else {
        None
    }
}

fn is_restoring(pod: &PodView) -> bool {
    pod.status
        .as_ref()
        .is_some_and(|status| matches!(status.phase, Phase::Restoring | Phase::Acquiring))
}

/// What the pods say, when the spec itself is in order.
#[must_use]
pub(crate) fn judge(revision: &str, replicas: u32, pods: &[PodView]) -> Verdict {
    if let Some(stalled) = pods.iter().find_map(stalled) {
        return stalled;
    }
    let outdated = pods
        .iter()
        .filter(|pod| pod.revision.as_deref() != Some(revision))
        .count();
    if outdated > 0 {
        let message = format!("{outdated} of {replicas} workers are not yet of revision {revision}");
        return Verdict::progressing("Rolling", message);
    }
    let ready = pods.iter().filter(|pod| pod.is_ready && !pod.is_deleting).count();
    if ready == replicas as usize {
        return Verdict::Ready;
    }
    let waits: Vec<_> = (0..replicas)
        .filter_map(|ordinal| wait(ordinal, pods.iter().find(|pod| pod.ordinal == ordinal)))
        .collect();
    let message = format!("{ready} of {replicas} workers run; {}", waits.join("; "));
    Verdict::progressing("Starting", message)
}

/// A worker that only a person can help.
fn stalled(pod: &PodView) -> Option<Verdict> {
    if pod.is_deleting {
        return None;
    }
    if let Some((reason, message)) = &pod.waiting
        && STUCK.contains(&reason.as_str())
    {
        return Some(Verdict::stalled(reason, format!("{}: {message}", pod.name)));
    }
    let status = pod.status.as_ref()?;
    if matches!(status.phase, Phase::Hold | Phase::Failed) {
        let reason = status
            .reason
            .clone()
            .unwrap_or_else(|| format!("{:?}", status.phase));
        let message = status.message.clone().unwrap_or_default();
        return Some(Verdict::stalled(reason, format!("{}: {message}", pod.name)));
    }
    let failed = status.tasks.iter().find(|task| task.state == TaskState::Failed)?;
    let error = failed.error.clone().unwrap_or_default();
    let message = format!(
        "{}: task {} stopped, the others go on: {error}",
        pod.name, failed.id
    );
    Some(Verdict::stalled("TaskFailed", message))
}

/// What an ordinal waits for; `None`: nothing.
fn wait(ordinal: u32, pod: Option<&PodView>) -> Option<String> {
    let Some(pod) = pod else {
        return Some(format!("worker {ordinal} has no pod yet"));
    };
    if pod.is_deleting {
        return Some(format!("{} ends", pod.name));
    }
    if let Some((reason, message)) = &pod.waiting {
        return Some(format!("{}: {reason} {message}", pod.name));
    }
    if pod.is_ready {
        return None;
    }
    let Some(status) = &pod.status else {
        return Some(format!("{} does not answer yet", pod.name));
    };
    let mut text = format!("{}: {:?}", pod.name, status.phase);
    for part in [&status.reason, &status.message].into_iter().flatten() {
        text = format!("{text}, {part}");
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use protocol::{Ordinal, Totals, Uid};

    use super::*;

    fn worker(phase: Phase) -> WorkerStatus {
        WorkerStatus {
            application_id: "app".to_owned(),
            ordinal: Ordinal(0),
            uid: Uid("u".to_owned()),
            pid: 1,
            nonce: 1,
            phase,
            reason: None,
            message: None,
            open_transactions: 0,
            lag: 0,
            totals: Totals::default(),
            tasks: Vec::new(),
        }
    }

    fn pod(ordinal: u32, revision: &str, phase: Phase) -> PodView {
        PodView {
            name: format!("app-{ordinal}"),
            ordinal,
            uid: format!("uid-{ordinal}"),
            revision: Some(revision.to_owned()),
            is_ready: phase == Phase::Running,
            status: Some(worker(phase)),
            ..PodView::default()
        }
    }

    #[test]
    fn a_topology_that_cannot_go_on_is_told_with_its_reasons() {
        let topology = |of: &str| -> Topology {
            let declared = serde_json::json!({
                "language": "v1",
                "streams": [{"name": "in", "topic": "in.v1", "key": {"serde": "String"}, "value": {"serde": "Long"}}],
                "pipelines": [{
                    "name": "p", "from": "in", "to": {"topic": "out.v1", "value": {"serde": "String"}},
                    "steps": [
                        {"groupByKey": {}},
                        {"sum": {"store": "sums", "of": of}},
                        {"toStream": {}},
                        {"mapValues": {"expression": "string(value)"}},
                    ],
                }],
            });
            serde_json::from_value(declared).unwrap()
        };
        let judged = |old: &Topology, new: &Topology| {
            let plan = topology::plan(new).unwrap();
            let new = Version {
                topology: new,
                plan: &plan,
            };
            needs_migration(old, new, 7)
        };
        let (int, other, double) = (
            topology("value"),
            topology("value * 2"),
            topology("double(value)"),
        );
        assert_eq!(judged(&int, &int), None);
        assert_eq!(judged(&int, &other), None);
        let Some(Verdict::Stalled { reason, message }) = judged(&int, &double) else {
            panic!("it is let through")
        };
        assert_eq!(reason, "NeedsMigration");
        for part in [
            "store `sums`: its values are double, before int",
            "accept-topology=7 ",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn pods_are_replaced_one_at_a_time_from_the_highest_ordinal() {
        let mut pods = [
            pod(0, "old", Phase::Running),
            pod(1, "old", Phase::Running),
            pod(2, "old", Phase::Running),
        ];
        assert_eq!(to_replace("new", 3, &pods).map(|pod| pod.ordinal), Some(2));
        pods[2] = pod(2, "new", Phase::Restoring);
        assert_eq!(to_replace("new", 3, &pods), None);
        pods[2] = pod(2, "new", Phase::Running);
        assert_eq!(to_replace("new", 3, &pods).map(|pod| pod.ordinal), Some(1));
        assert_eq!(
            to_replace("new", 3, &pods[1..]),
            None,
            "a missing pod is waited for"
        );
    }

    #[test]
    fn a_bad_revision_stops_at_the_first_pod() {
        let mut bad = pod(2, "bad", Phase::Starting);
        bad.waiting = Some(("CrashLoopBackOff".to_owned(), "back-off".to_owned()));
        let pods = [pod(0, "old", Phase::Running), pod(1, "old", Phase::Running), bad];
        assert_eq!(to_replace("bad", 3, &pods), None);
        assert_eq!(judge("bad", 3, &pods).reason(), "CrashLoopBackOff");
        // And the fix is not blocked by the pod that it fixes.
        assert_eq!(to_replace("fixed", 3, &pods).map(|pod| pod.ordinal), Some(2));
    }

    #[test]
    fn a_pod_that_restores_is_not_taken_for_broken() {
        let pods = [pod(0, "old", Phase::Restoring), pod(1, "old", Phase::Running)];
        assert_eq!(to_replace("new", 2, &pods), None);
    }

    #[test]
    fn a_pod_that_ends_is_neither_replaced_again_nor_judged() {
        let mut ends = pod(0, "old", Phase::Hold);
        ends.is_deleting = true;
        assert_eq!(to_replace("new", 1, std::slice::from_ref(&ends)), None);
        assert_eq!(judge("old", 1, &[ends]).reason(), "Starting");
    }

    #[test]
    fn a_worker_that_holds_is_told_with_its_own_words() {
        let mut holds = pod(0, "r", Phase::Hold);
        if let Some(status) = &mut holds.status {
            status.reason = Some("GroupInUse".to_owned());
            status.message = Some("group x has live members".to_owned());
        }
        assert_eq!(
            judge("r", 1, &[holds]),
            Verdict::stalled("GroupInUse", "app-0: group x has live members")
        );
    }

    #[test]
    fn ready_means_every_ordinal_at_the_revision() {
        let pods = [pod(0, "r", Phase::Running), pod(1, "r", Phase::Running)];
        assert_eq!(judge("r", 2, &pods), Verdict::Ready);
        assert_eq!(judge("r", 3, &pods).reason(), "Starting");
        assert_eq!(judge("s", 2, &pods).reason(), "Rolling");
    }
}
