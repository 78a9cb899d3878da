//! The status document, from what was observed and decided. Pure: `now` comes in.

use crds::{Condition, Status, Worker};

use crate::decide::{PodView, Verdict};
use crate::names;

/// Everything the status says.
pub(crate) struct Input<'a> {
    /// The StreamApp's name.
    pub(crate) app: &'a str,
    /// The generation that was reconciled.
    pub(crate) generation: Option<i64>,
    /// Identity in Kafka.
    pub(crate) application_id: &'a str,
    /// Hash of what pods are made of.
    pub(crate) revision: &'a str,
    /// Image of the workers.
    pub(crate) image: &'a str,
    /// Worker pods that there should be.
    pub(crate) replicas: u32,
    /// Those that there are.
    pub(crate) pods: &'a [PodView],
    /// Tasks of the plan, where known.
    pub(crate) tasks: Option<u32>,
    /// The plan in short.
    pub(crate) topology: Vec<String>,
    /// What people are told.
    pub(crate) verdict: &'a Verdict,
    /// The status before.
    pub(crate) before: &'a Status,
    /// RFC 3339.
    pub(crate) now: &'a str,
}

/// Builds the status.
#[must_use]
pub(crate) fn status(input: &Input<'_>) -> Status {
    let before = input.before;
    let running = |pod: &&PodView| pod.is_ready && !pod.is_deleting;
    let statuses = || input.pods.iter().filter_map(|pod| pod.status.as_ref());
    let ordinals = input.pods.iter().map(|pod| pod.ordinal + 1).max().unwrap_or(0);
    let or_before = |now: &str, before: &str| {
        if now.is_empty() {
            before.to_owned()
        } else {
            now.to_owned()
        }
    };
    Status {
        observed_generation: input.generation,
        application_id: or_before(input.application_id, &before.application_id),
        replicas: count(input.pods.len()),
        ready_replicas: count(input.pods.iter().filter(running).count()),
        selector: names::selector(input.app),
        revision: or_before(input.revision, &before.revision),
        image: or_before(input.image, &before.image),
        lag: statuses().map(|status| status.lag.max(0)).sum(),
        restoring: count(
            statuses()
                .flat_map(|status| &status.tasks)
                .filter(|task| task.state == protocol::TaskState::Restoring)
                .count(),
        ),
        tasks: input.tasks.unwrap_or(before.tasks),
        topology: if input.topology.is_empty() {
            before.topology.clone()
        } else {
            input.topology.clone()
        },
        conditions: conditions(input),
        workers: (0..ordinals.max(input.replicas))
            .map(|ordinal| worker(input.app, ordinal, input.pods))
            .collect(),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn worker(app: &str, ordinal: u32, pods: &[PodView]) -> Worker {
    let Some(pod) = pods.iter().find(|pod| pod.ordinal == ordinal) else {
        return Worker {
            ordinal,
            pod: format!("{app}-{ordinal}"),
            phase: "Missing".to_owned(),
            ..Worker::default()
        };
    };
    let base = Worker {
        ordinal,
        pod: pod.name.clone(),
        node: pod.node.clone(),
        revision: pod.revision.clone(),
        restarts: pod.restarts,
        ..Worker::default()
    };
    match &pod.status {
        Some(status) => Worker {
            phase: format!("{:?}", status.phase),
            reason: status.reason.clone(),
            message: status.message.as_deref().map(bounded),
            tasks: count(status.own_tasks().count()),
            lag: status.lag.max(0),
            restore_remaining: status
                .tasks
                .iter()
                .filter_map(|task| task.restore)
                .map(|restore| restore.remaining.max(0))
                .sum(),
            open_transactions: status.open_transactions,
            ..base
        },
        None => Worker {
            phase: "Silent".to_owned(),
            reason: pod.waiting.as_ref().map(|(reason, _)| reason.clone()),
            message: pod.waiting.as_ref().map(|(_, message)| bounded(message)),
            ..base
        },
    }
}

/// kstatus: `Ready` for people, `Reconciling` and `Stalled` are true only while they are so.
fn conditions(input: &Input<'_>) -> Vec<Condition> {
    let everything = format!("{} workers run", input.replicas);
    let (ready, reconciling, stalled, message) = match input.verdict {
        Verdict::Ready => ("True", "False", "False", everything.as_str()),
        Verdict::Progressing { message, .. } => ("False", "True", "False", message.as_str()),
        Verdict::Stalled { message, .. } => ("False", "False", "True", message.as_str()),
    };
    [
        ("Ready", ready),
        ("Reconciling", reconciling),
        ("Stalled", stalled),
    ]
    .map(|(kind, status)| {
        let earlier = input
            .before
            .conditions
            .iter()
            .find(|condition| condition.kind == kind);
        let since = earlier
            .filter(|condition| condition.status == status)
            .map_or(input.now, |condition| &condition.last_transition_time);
        Condition {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: input.verdict.reason().to_owned(),
            message: bounded(message),
            last_transition_time: since.to_owned(),
            observed_generation: input.generation,
        }
    })
    .into()
}

/// The CRD's bound on strings.
const MESSAGE_CHARS: usize = 1024;

fn bounded(message: &str) -> String {
    message.chars().take(MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input<'a>(verdict: &'a Verdict, before: &'a Status, now: &'a str) -> Input<'a> {
        Input {
            app: "app",
            generation: Some(3),
            application_id: "id",
            revision: "r",
            image: "i",
            replicas: 1,
            pods: &[],
            tasks: Some(2),
            topology: Vec::new(),
            verdict,
            before,
            now,
        }
    }

    fn short(status: &Status) -> Vec<String> {
        let conditions = status.conditions.iter();
        conditions
            .map(|c| format!("{}={} {} {}", c.kind, c.status, c.reason, c.last_transition_time))
            .collect()
    }

    #[test]
    fn conditions_keep_the_time_of_their_last_change() {
        let verdict = Verdict::progressing("Starting", "m");
        let first = status(&input(&verdict, &Status::default(), "t1"));
        assert_eq!(
            short(&first),
            [
                "Ready=False Starting t1",
                "Reconciling=True Starting t1",
                "Stalled=False Starting t1"
            ]
        );
        let second = status(&input(&Verdict::Ready, &first, "t2"));
        assert_eq!(
            short(&second),
            [
                "Ready=True Running t2",
                "Reconciling=False Running t2",
                "Stalled=False Running t1"
            ]
        );
    }

    #[test]
    fn an_ordinal_without_a_pod_is_told() {
        let status = status(&input(&Verdict::Ready, &Status::default(), "t"));
        assert_eq!(status.workers.len(), 1);
        assert_eq!(
            (status.workers[0].pod.as_str(), status.workers[0].phase.as_str()),
            ("app-0", "Missing")
        );
    }

    #[test]
    fn what_is_not_known_now_stays_as_it_was() {
        let before = Status {
            revision: "old".to_owned(),
            tasks: 7,
            ..Status::default()
        };
        let verdict = Verdict::stalled("InvalidSpec", "m");
        let status = status(&Input {
            revision: "",
            tasks: None,
            ..input(&verdict, &before, "t")
        });
        assert_eq!((status.revision.as_str(), status.tasks), ("old", 7));
    }
}
