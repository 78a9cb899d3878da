//! What is there: pods as Kubernetes sees them, and what their workers say.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use protocol::WorkerStatus;

use crate::decide::PodView;
use crate::names;

/// How long a worker may take to say how it is.
const STATUS_TIMEOUT: Duration = Duration::from_millis(1500);
/// Most of a status document that is read: 500 tasks take a tenth of it.
const STATUS_BYTES: u64 = 1024 * 1024;

/// A pod without its worker's words.
#[must_use]
pub(crate) fn view(app: &str, pod: &Pod) -> Option<PodView> {
    let name = pod.name_any();
    let status = pod.status.clone().unwrap_or_default();
    let is_true = |kind: &str| {
        let conditions = status.conditions.iter().flatten();
        conditions
            .into_iter()
            .any(|condition| condition.type_ == kind && condition.status == "True")
    };
    let container = status
        .container_statuses
        .as_ref()
        .and_then(|statuses| statuses.iter().find(|status| status.name == "worker"));
    let waiting = container
        .and_then(|container| container.state.as_ref()?.waiting.clone())
        .map(|waiting| {
            // The last words of the container say more than the wait.
            let last = container
                .and_then(|container| container.last_state.as_ref()?.terminated.clone())
                .and_then(|terminated| terminated.message);
            let message = [waiting.message, last].into_iter().flatten().collect::<Vec<_>>();
            (waiting.reason.unwrap_or_default(), message.join(": "))
        });
    let unscheduled = || {
        let conditions = status.conditions.iter().flatten();
        conditions
            .into_iter()
            .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
            .map(|condition| {
                (
                    condition.reason.clone().unwrap_or_default(),
                    condition.message.clone().unwrap_or_default(),
                )
            })
    };
    Some(PodView {
        ordinal: names::ordinal(app, &name)?,
        uid: pod.uid().unwrap_or_default(),
        address: status.pod_ip.clone().filter(|address| !address.is_empty()),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        revision: pod.annotations().get(names::REVISION).cloned(),
        is_ready: is_true("Ready"),
        is_deleting: pod.metadata.deletion_timestamp.is_some(),
        waiting: waiting.or_else(unscheduled),
        restarts: container.map_or(0, |container| container.restart_count),
        status: None,
        name,
    })
}

/// Asks every worker, side by side.
pub(crate) async fn ask(pods: &mut [PodView]) {
    let asked = pods.iter().map(|pod| {
        let address = pod.address.clone();
        async move {
            let url = format!("http://{}:{}/status", bracketed(&address?), names::WORKER_PORT);
            tokio::task::spawn_blocking(move || worker_status(&url))
                .await
                .ok()?
        }
    });
    let answers = futures::future::join_all(asked).await;
    for (pod, answer) in pods.iter_mut().zip(answers) {
        pod.status = answer;
    }
}

fn bracketed(address: &str) -> String {
    if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    }
}

fn worker_status(url: &str) -> Option<WorkerStatus> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(STATUS_TIMEOUT))
        .build()
        .into();
    let mut answer = agent.get(url).call().ok()?;
    let reader = answer.body_mut().with_config().limit(STATUS_BYTES).reader();
    serde_json::from_reader(reader).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_seen_with_its_reasons() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "app-1", "uid": "u", "annotations": {"streamapp.dev/revision": "r"}},
            "spec": {"nodeName": "n", "containers": []},
            "status": {
                "podIP": "10.0.0.1",
                "conditions": [{"type": "Ready", "status": "False"}],
                "containerStatuses": [{
                    "name": "worker", "image": "i", "imageID": "", "ready": false, "restartCount": 3,
                    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
                    "lastState": {"terminated": {"exitCode": 1, "message": "no such file"}}
                }]
            }
        }))
        .unwrap();
        let seen = view("app", &pod).unwrap();
        assert_eq!(
            seen,
            PodView {
                name: "app-1".to_owned(),
                ordinal: 1,
                uid: "u".to_owned(),
                address: Some("10.0.0.1".to_owned()),
                node: Some("n".to_owned()),
                revision: Some("r".to_owned()),
                waiting: Some((
                    "CrashLoopBackOff".to_owned(),
                    "back-off 10s: no such file".to_owned()
                )),
                restarts: 3,
                ..PodView::default()
            }
        );
        assert_eq!(view("other", &pod), None);
    }
}
