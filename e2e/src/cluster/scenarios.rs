//! What must hold in a cluster while pods, the operator and Kafka come and go.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::Outcome;
use super::app::{App, READY, STORE, TOLD, expect, told};
use super::kafka::OwnBroker;
use super::kubectl::eventually;
use super::place::Place;
use super::pods::{Pod, Process};
use crate::demo::Stream;
use crate::integration::Counted;
use crate::reader::wait_still;

/// Ports of brokers that scenarios have for themselves; each takes three.
const UNREACHABLE_PORT: u16 = 19692;
const DELETED_PORT: u16 = 19792;
/// Orders a second while faults are injected.
const RATE: u64 = 1_000;

pub(super) fn pods_die(place: &Place<'_>) -> Result<Outcome> {
    const HALF: u64 = 10_000;
    let app = place.app("orders", 3);
    app.start()?;
    let look = || app.progress();
    let stream = Stream::start(app.stream(0, HALF, RATE));
    let (process, _) = app.kill_at_work(1)?;
    app.wait_running_again(1, process)?;
    stream.finish(&look)?;
    let stream = Stream::start(app.stream(HALF, HALF, RATE));
    let (process, _) = app.force_delete_at_work(0)?;
    app.wait_running_again(0, process)?;
    stream.finish(&look)?;
    app.wait_drained()?;
    app.wait_ready()?;
    ensure!(app.total("storeWipes")? == 0, "a store was wiped");
    done(&app, 2 * HALF, 2)
}

fn done(app: &App<'_>, orders: u64, kills: u64) -> Result<Outcome> {
    let counted = app.check(orders)?;
    Ok(Outcome::Done(Counted { kills, ..counted }))
}

/// A broker of this scenario's own goes away with nothing under way: an only broker that restarts can leave open
/// transactions hanging (docs/roadmap.md).
pub(super) fn kafka_unreachable(place: &Place<'_>) -> Result<Outcome> {
    let own = OwnBroker::new(place.setting, UNREACHABLE_PORT)?;
    let app = place.app_on(&own.broker(), "orders", 2);
    app.apply()?;
    let message = app.wait_told("Ready", "False", "KafkaUnreachable")?;
    ensure!(
        message.contains(&app.broker.bootstrap),
        "the message does not name {}: {message}",
        app.broker.bootstrap
    );
    expect(&app.object()?, "Reconciling", "True", None)?;
    own.up()?;
    app.create_topics()?;
    app.wait_ready()?;
    app.process(0, 2_000)?;
    let before = app.identities()?;
    wait_still(&app.broker, TOLD)?;
    own.down()?;
    app.wait_told("Ready", "False", "KafkaUnreachable")?;
    app.untouched_since(&before)?;
    own.up()?;
    app.wait_ready()?;
    app.process(2_000, 2_000)?;
    app.untouched_since(&before)?;
    done(&app, 4_000, 0)
}

/// Wakes stopped processes, whatever happens.
struct Stopped([Process; 2]);

impl Drop for Stopped {
    fn drop(&mut self) {
        for process in self.0 {
            // Those that have ended need no waking.
            let _ = process.signal(libc::SIGCONT);
        }
    }
}

/// A worker sleeps, and so does the runtime's shim that could kill it; its pod is force-deleted, and the StatefulSet
/// makes a second pod of its ordinal. When the first process wakes, it must leave without a trace in the records.
pub(super) fn two_pods_of_one_ordinal(place: &Place<'_>) -> Result<Outcome> {
    const ORDERS: u64 = 20_000;
    let app = place.app("orders", 2);
    app.start()?;
    let stream = Stream::start(app.stream(0, ORDERS, RATE));
    let (pod, old, _) = app.stop_at_work(0)?;
    let shim = old.shim()?;
    let stopped = Stopped([old, shim]);
    shim.signal(libc::SIGSTOP)?;
    pod.force_delete(place.cluster())?;
    wait_second_pod(&app, &pod)?;
    ensure!(
        old.alive(),
        "the first process ended before the second pod was there"
    );
    old.signal(libc::SIGCONT)?;
    stream.finish(&|| app.progress())?;
    // The second one may have taken over, or wait for the volume: then the kubelet ends the first.
    drop(stopped);
    eventually("the first process to end", TOLD, || {
        ensure!(!old.alive(), "process {} runs", old.pid);
        Ok(())
    })?;
    app.wait_running_again(0, old)?;
    app.wait_ready()?;
    app.wait_drained()?;
    done(&app, ORDERS, 1)
}

/// Waits until a second pod of ordinal 0 has had a process, or until it is there and its volume keeps it out.
fn wait_second_pod(app: &App<'_>, first: &Pod) -> Result<()> {
    let once_per_pod = app.claims()?.iter().any(|claim| {
        claim["spec"]["accessModes"]
            .to_string()
            .contains("ReadWriteOncePod")
    });
    eventually("a second pod of the ordinal", READY, || {
        let second = app.pod(0)?;
        ensure!(second.uid != first.uid, "pod {} is the first one", second.name);
        // One that finds the volume locked ends at once and is started again.
        if !once_per_pod && second.restarts == 0 {
            second.worker()?;
        }
        Ok(())
    })
}

pub(super) fn operator_down(place: &Place<'_>) -> Result<Outcome> {
    const ORDERS: u64 = 15_000;
    let app = place.app("orders", 2);
    app.start()?;
    let operator = place.setting.operator();
    let away = operator.away()?;
    let stream = Stream::start(app.stream(0, ORDERS, RATE));
    let (process, _) = app.kill_at_work(0)?;
    app.wait_running_again(0, process)?;
    stream.finish(&|| app.progress())?;
    app.wait_drained()?;
    let before = app.identities()?;
    away.end()?;
    wait_looked_at_again(&app)?;
    app.wait_ready()?;
    app.process(ORDERS, 1_000)?;
    app.untouched_since(&before)?;
    done(&app, ORDERS + 1_000, 1)
}

/// Waits until the operator has looked at the pods again: their restarts while it was away are in the status.
fn wait_looked_at_again(app: &App<'_>) -> Result<()> {
    let pods = app.pods()?;
    eventually("the status to tell the restart", TOLD, || {
        let object = app.object()?;
        let workers = object["status"]["workers"].as_array();
        let workers = workers.context("the status has no workers")?;
        for pod in &pods {
            let told = workers.iter().find(|worker| worker["pod"] == pod.name);
            let told = told.with_context(|| format!("pod {} is not told", pod.name))?;
            ensure!(
                told["restarts"].as_u64() == Some(pod.restarts),
                "pod {} has {} restarts, told are {}",
                pod.name,
                pod.restarts,
                told["restarts"]
            );
        }
        Ok(())
    })
}

pub(super) fn operator_upgrade(place: &Place<'_>) -> Result<Outcome> {
    const ORDERS: u64 = 20_000;
    let app = place.app("orders", 2);
    app.start()?;
    let before = app.identities()?;
    let revision = app.object()?["status"]["revision"].clone();
    let operator = place.setting.operator();
    let stream = Stream::start(app.stream(0, ORDERS, RATE));
    let result = operator
        .install(1)
        .and_then(|()| operator.install_with_note(1, "upgraded"))
        .and_then(|()| operator.uninstall())
        .and_then(|()| app.untouched_since(&before));
    // The other scenarios want both.
    operator.install(super::operator::REPLICAS)?;
    result?;
    stream.finish(&|| app.progress())?;
    app.wait_drained()?;
    app.wait_ready()?;
    app.untouched_since(&before)?;
    let after = app.object()?["status"]["revision"].clone();
    ensure!(after == revision, "the revision was {revision} and is {after}");
    done(&app, ORDERS, 0)
}

pub(super) fn delete_at_each_stage(place: &Place<'_>) -> Result<Outcome> {
    // A pod that is deleted before its process can receive signals runs on for its grace period, a minute.
    const DEADLINE: Duration = Duration::from_secs(90);
    const WITHOUT_KAFKA: Duration = Duration::from_secs(120);
    let stage = |name: &str, reached: &dyn Fn(&App<'_>) -> Result<()>| -> Result<()> {
        let app = place.app(name, 1);
        app.create_topics()?;
        app.apply()?;
        reached(&app)?;
        app.delete()?;
        app.wait_gone(DEADLINE)
            .with_context(|| format!("deleted at stage {name}"))
    };
    stage("applied", &|_| Ok(()))?;
    stage("starting", &|app| {
        eventually("a pod", READY, || app.pod(0).map(|_| ()))
    })?;

    let app = place.app("running", 1);
    app.create_topics()?;
    app.apply_with(|app| app["spec"]["retentionPolicy"] = serde_json::json!({"whenDeleted": "Delete"}))?;
    app.wait_ready()?;
    app.process(0, 1_000)?;
    ensure!(
        !app.claims()?.is_empty(),
        "there is no claim state-{}-0",
        app.name
    );
    let counted = app.check(1_000)?;
    app.delete()?;
    app.wait_gone(DEADLINE)?;
    eventually("the volumes to be gone", DEADLINE, || {
        let claims = app.claims()?;
        ensure!(claims.is_empty(), "there are {}", super::place::names(&claims));
        Ok(())
    })?;

    let own = OwnBroker::new(place.setting, DELETED_PORT)?;
    own.up()?;
    let app = place.app_on(&own.broker(), "kafka-away", 1);
    app.create_topics()?;
    app.apply_with(|app| app["spec"]["retentionPolicy"] = serde_json::json!({"whenDeleted": "Retain"}))?;
    app.wait_ready()?;
    own.down()?;
    app.delete()?;
    app.wait_gone(WITHOUT_KAFKA)?;
    ensure!(
        !app.claims()?.is_empty(),
        "whenDeleted is Retain, and the volume is gone"
    );
    Ok(Outcome::Done(counted))
}

pub(super) fn wait_ready_and_scale(place: &Place<'_>) -> Result<Outcome> {
    let cluster = place.cluster();
    let app = place.app("orders", 2);
    app.create_topics()?;
    app.apply()?;
    let streamapp = format!("streamapp/{}", app.name);
    cluster.kubectl_waits(&[
        "wait",
        "-n",
        &app.namespace,
        &streamapp,
        "--for=condition=Ready",
        &format!("--timeout={}s", READY.as_secs()),
    ])?;
    app.wait_ready()?;
    app.process(0, 2_000)?;
    let before = app.identities()?;
    let scale = |replicas: u32| {
        cluster.kubectl(&[
            "scale",
            "-n",
            &app.namespace,
            &streamapp,
            &format!("--replicas={replicas}"),
        ])
    };
    scale(app.replicas + 2)?;
    let message = eventually("the StreamApp to say ScalePending", TOLD, || {
        let object = app.object()?;
        expect(&object, "Ready", "False", Some("ScalePending"))
            .or_else(|_| expect(&object, "Reconciling", "True", Some("ScalePending")))
    })?;
    let wanted = (app.replicas + 2).to_string();
    ensure!(
        message.contains(&wanted),
        "the message does not name the {wanted} replicas: {message}"
    );
    app.process(2_000, 2_000)?;
    app.untouched_since(&before)?;
    scale(app.replicas)?;
    app.wait_ready()?;
    let text = told(&app.object()?);
    ensure!(!text.contains("ScalePending"), "it still says {text}");
    app.untouched_since(&before)?;
    done(&app, 4_000, 0)
}

/// An object goes without a word to its operator; its claim stays in Kafka and is taken over from it, not from a living one.
pub(super) fn claim_of_a_dead_object(place: &Place<'_>) -> Result<Outcome> {
    let first = place.app("first", 1);
    first.start()?;
    first.process(0, 2_000)?;
    let operator = place.setting.operator();
    let away = operator.away()?;
    first.delete()?;
    place.cluster().kubectl(&[
        "patch",
        "-n",
        &first.namespace,
        "streamapp",
        &first.name,
        "--type=merge",
        r#"--patch={"metadata":{"finalizers":null}}"#,
    ])?;
    first.wait_gone(Duration::from_secs(60))?;
    away.end()?;
    let second = App {
        name: "second".to_owned(),
        ..place.app("first", 2)
    };
    second.apply()?;
    second.wait_ready()?;
    second.wait_event("ClaimTakenOver", &first.name)?;
    second.process(2_000, 2_000)?;
    let third = App {
        name: "third".to_owned(),
        ..place.app("first", 2)
    };
    third.apply()?;
    let message = third.wait_told("Stalled", "True", "ApplicationIdConflict")?;
    ensure!(
        message.contains(&second.name),
        "another owner is named: {message}"
    );
    done(&second, 4_000, 0)
}

pub(super) fn two_apps_with_one_id(place: &Place<'_>) -> Result<Outcome> {
    let first = place.app("first", 2);
    first.start()?;
    first.process(0, 2_000)?;
    let before = first.identities()?;
    let second = App {
        name: "second".to_owned(),
        ..place.app("first", 2)
    };
    // It would make other internal topics under the same id.
    let topics = first.broker.topic_names()?;
    second.apply_with(|app| {
        let renamed = app.to_string().replace(STORE, "other");
        *app = serde_json::from_str(&renamed).unwrap_or_default();
    })?;
    let message = second.wait_told("Stalled", "True", "ApplicationIdConflict")?;
    let now = first.broker.topic_names()?;
    let more: Vec<_> = now
        .iter()
        .filter(|topic| topic.starts_with(&first.id) && !topics.contains(topic))
        .collect();
    ensure!(more.is_empty(), "the refused app made topics: {more:?}");
    second.apply()?;
    // It has seen this spec: else the other one could be the first that runs.
    second.wait_told("Stalled", "True", "ApplicationIdConflict")?;
    ensure!(
        message.contains("first") && message.contains("spec.applicationId"),
        "the message does not name the other app and the field: {message}"
    );
    if let Some(pod) = second.pods()?.first() {
        bail!("the second app has a pod: {}", pod.name);
    }
    first.process(2_000, 1_000)?;
    first.untouched_since(&before)?;
    expect(&first.object()?, "Ready", "True", None)?;
    first.delete()?;
    first.wait_gone(Duration::from_secs(60))?;
    second.wait_ready()?;
    second.process(3_000, 2_000)?;
    done(&second, 5_000, 0)
}
