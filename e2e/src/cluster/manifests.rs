//! Wrong manifests: each is refused at apply, or ends in `Stalled` with a reason and the field's path, and running pods
//! do not notice.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::Outcome;
use super::app::{App, TOLD, expect};
use super::kubectl::eventually;
use super::place::Place;
use crate::integration::Counted;

/// One mistake.
struct Wrong {
    name: &'static str,
    /// Where the mistake is made, as a JSON pointer.
    at: &'static str,
    /// What stands there then; `null` takes the field away.
    value: Value,
    /// Must be in the refusal, or in the message of `Stalled`.
    named: &'static str,
    /// The reason of `Stalled`, if the API server lets it pass.
    reason: &'static str,
}

fn wrong(
    name: &'static str,
    at: &'static str,
    value: impl Into<Value>,
    named: &'static str,
    reason: &'static str,
) -> Wrong {
    Wrong {
        name,
        at,
        value: value.into(),
        named,
        reason,
    }
}

/// Mistakes in a new application.
fn new_ones() -> Vec<Wrong> {
    const SPEC: &str = "InvalidSpec";
    const TOPOLOGY: &str = "InvalidTopology";
    const ADD: &str = "/spec/topology/pipelines/0/steps/2/aggregate/add";
    const ADD_PATH: &str = "spec.topology.pipelines[0].steps[2].aggregate.add";
    let long = "a".repeat(201);
    vec![
        wrong("unknown-field", "/spec/threds", 2, "spec.threds", SPEC),
        wrong("no-threads", "/spec/threads", 0, "spec.threads", SPEC),
        wrong("threads-as-text", "/spec/threads", "two", "spec.threads", SPEC),
        wrong("negative-replicas", "/spec/replicas", -1, "spec.replicas", SPEC),
        wrong(
            "long-name",
            "/metadata/name",
            "n".repeat(53),
            "metadata.name",
            SPEC,
        ),
        wrong(
            "id-with-a-space",
            "/spec/applicationId",
            "a b",
            "spec.applicationId",
            SPEC,
        ),
        wrong(
            "id-too-long",
            "/spec/applicationId",
            long,
            "spec.applicationId",
            SPEC,
        ),
        wrong(
            "generic-id",
            "/spec/applicationId",
            "my-app",
            "spec.applicationId",
            SPEC,
        ),
        wrong(
            "unknown-guarantee",
            "/spec/processing/guarantee",
            "exactly_twice",
            "spec.processing.guarantee",
            SPEC,
        ),
        wrong(
            "interval-without-a-number",
            "/spec/processing/commitInterval",
            "fast",
            "spec.processing.commitInterval",
            SPEC,
        ),
        wrong(
            "interval-above-the-transactions-timeout",
            "/spec/processing/commitInterval",
            "60s",
            "spec.processing.commitInterval",
            SPEC,
        ),
        wrong("no-kafka", "/spec/kafka", Value::Null, "spec.kafka", SPEC),
        wrong(
            "server-without-a-port",
            "/spec/kafka/bootstrapServers",
            "kafka.example",
            "spec.kafka.bootstrapServers",
            SPEC,
        ),
        wrong(
            "client-property-of-the-guarantee",
            "/spec/kafka/clientConfig",
            json!({"acks": "1"}),
            "spec.kafka.clientConfig",
            SPEC,
        ),
        wrong(
            "unknown-mechanism",
            "/spec/kafka/authentication",
            json!({"type": "hope", "username": "u", "passwordSecret": {"secretName": "s", "password": "p"}}),
            "spec.kafka.authentication.type",
            SPEC,
        ),
        wrong(
            "certificate-in-no-secret",
            "/spec/kafka/tls",
            json!({"trustedCertificates": [{"secretName": "no-such-secret", "certificate": "ca.crt"}]}),
            "no-such-secret",
            "SecretMissing",
        ),
        wrong(
            "volume-without-a-size",
            "/spec/state/volume/size",
            "big",
            "spec.state.volume.size",
            SPEC,
        ),
        wrong(
            "unknown-retention",
            "/spec/retentionPolicy/whenDeleted",
            "Burn",
            "spec.retentionPolicy.whenDeleted",
            SPEC,
        ),
        wrong(
            "memory-as-a-word",
            "/spec/resources/limits/memory",
            "lots",
            "spec.resources.limits",
            SPEC,
        ),
        wrong(
            "memory-for-nothing",
            "/spec/resources/limits/memory",
            "64Mi",
            "spec.resources.limits.memory",
            SPEC,
        ),
        wrong(
            "no-topology",
            "/spec/topology",
            Value::Null,
            "spec.topology",
            SPEC,
        ),
        wrong(
            "unknown-step",
            "/spec/topology/pipelines/0/steps/0",
            json!({"selectkey": "value.customerId"}),
            "spec.topology.pipelines[0].steps[0]",
            TOPOLOGY,
        ),
        wrong(
            "unknown-stream",
            "/spec/topology/pipelines/0/from",
            "nowhere",
            "spec.topology.pipelines[0].from",
            TOPOLOGY,
        ),
        wrong(
            "unknown-type",
            "/spec/topology/streams/0/value/type",
            "Nothing",
            "spec.topology.streams[0].value.type",
            TOPOLOGY,
        ),
        wrong(
            "two-streams-of-one-name",
            "/spec/topology/streams/1",
            json!({"name": "orders", "topic": "t", "key": {"serde": "String"}, "value": {"serde": "String"}}),
            "spec.topology.streams[1]",
            TOPOLOGY,
        ),
        wrong(
            "expression-of-two-types",
            ADD,
            "aggregate + value.customerId",
            ADD_PATH,
            TOPOLOGY,
        ),
        wrong(
            "expression-with-an-unknown-field",
            ADD,
            "aggregate + value.amount",
            ADD_PATH,
            TOPOLOGY,
        ),
        wrong(
            "expression-that-does-not-end",
            ADD,
            "aggregate + (",
            ADD_PATH,
            TOPOLOGY,
        ),
        wrong(
            "topic-that-is-not-there",
            "/spec/topology/streams/0/topic",
            "e2e-no-such-topic",
            "e2e-no-such-topic",
            "TopicMissing",
        ),
    ]
}

/// Mistakes in a change of an application that runs.
fn changes() -> Vec<Wrong> {
    vec![
        wrong(
            "another-id",
            "/spec/applicationId",
            "e2e-another-id",
            "applicationId",
            "InvalidSpec",
        ),
        wrong(
            "smaller-volume",
            "/spec/state/volume/size",
            "512Mi",
            "spec.state.volume.size",
            "InvalidSpec",
        ),
        wrong(
            "wrong-expression",
            "/spec/topology/pipelines/0/steps/4/filter",
            "value >= 'much'",
            "spec.topology.pipelines[0].steps[4].filter",
            "InvalidTopology",
        ),
        wrong(
            "store-of-other-tasks",
            "/spec/topology/pipelines/0/steps",
            json!([
                {"groupByKey": {}},
                {"sum": {"store": "exposure-by-customer", "of": "value.amountInCents"}},
                {"toStream": {}},
                {"mapValues": {"fields": {"exposure": "value"}}},
            ]),
            "exposure-by-customer",
            "NeedsMigration",
        ),
    ]
}

impl Wrong {
    fn manifest(&self, app: &App<'_>, correct: &Value) -> Result<Value> {
        let mut object = correct.clone();
        object["metadata"]["name"] = json!(app.name);
        object["spec"]["applicationId"] = json!(app.id);
        put(&mut object, self.at, self.value.clone()).with_context(|| format!("make {}", self.name))?;
        Ok(object)
    }

    /// Applies it; answers whether the API server let it pass.
    fn passes(&self, app: &App<'_>, correct: &Value) -> Result<bool> {
        let answer = app.setting.cluster.try_apply(&self.manifest(app, correct)?)?;
        ensure!(
            answer.accepted || answer.text.contains(self.named),
            "it was refused without naming {}: {}",
            self.named,
            answer.text
        );
        Ok(answer.accepted)
    }

    fn stalls(&self, app: &App<'_>) -> Result<()> {
        let what = format!(
            "{} to be Stalled with {} and {}",
            self.name, self.reason, self.named
        );
        eventually(&what, TOLD, || {
            let message = expect(&app.object()?, "Stalled", "True", Some(self.reason))?;
            ensure!(message.contains(self.named), "it says: {message}");
            Ok(())
        })
    }
}

/// Kubectl reads each example, and the API server takes it.
fn examples_are_accepted(place: &Place<'_>) -> Result<()> {
    for example in std::fs::read_dir("examples")? {
        let file = example?.path().join("app.yaml");
        let file = file.to_str().context("a path that is no UTF-8")?;
        let accepted = place
            .cluster()
            .kubectl(&["apply", "--dry-run=server", "-f", file]);
        accepted.with_context(|| file.to_owned())?;
    }
    Ok(())
}

pub(super) fn invalid(place: &Place<'_>) -> Result<Outcome> {
    examples_are_accepted(place)?;
    let good = place.app("good", 2);
    let mut correct = good.manifest()?;
    put(&mut correct, "/spec/state/volume/size", json!("1Gi"))?;
    good.create_topics()?;
    place.cluster().apply(&correct)?;
    good.wait_ready()?;
    good.process(0, 1_000)?;
    let before = good.identities()?;

    let mut faults = Vec::new();
    let new_ones = new_ones();
    let mut passed = Vec::new();
    for wrong in &new_ones {
        let app = place.app(wrong.name, 1);
        match wrong.passes(&app, &correct) {
            Ok(true) => passed.push((wrong, app)),
            Ok(false) => {}
            Err(error) => faults.push(format!("{}: {error:#}", wrong.name)),
        }
    }
    for (wrong, app) in &passed {
        if let Err(error) = wrong.stalls(app) {
            faults.push(format!("{}: {error:#}", wrong.name));
        }
        if !app.pods()?.is_empty() {
            faults.push(format!("{}: it has pods", wrong.name));
        }
        app.delete()?;
    }
    let changes = changes();
    for wrong in &changes {
        let result = match wrong.passes(&good, &correct) {
            Ok(true) => wrong.stalls(&good),
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            faults.push(format!("{}: {error:#}", wrong.name));
        }
        place.cluster().apply(&correct)?;
        good.wait_ready()?;
    }
    good.untouched_since(&before)?;
    ensure!(
        faults.is_empty(),
        "{} of {} manifests: {}",
        faults.len(),
        new_ones.len() + changes.len(),
        faults.join("; ")
    );
    println!(
        "invalid-manifests: {} kinds, of which {} passed the API server and were stalled",
        new_ones.len() + changes.len(),
        passed.len()
    );
    good.process(1_000, 1_000)?;
    let counted: Counted = good.check(2_000)?;
    good.untouched_since(&before)?;
    Ok(Outcome::Done(counted))
}

/// Sets, adds (an item just behind a list's end, too) or takes away (`null`) what a JSON pointer names.
fn put(document: &mut Value, pointer: &str, value: Value) -> Result<()> {
    let (parents, last) = pointer.rsplit_once('/').context("an empty pointer")?;
    let mut at = document;
    for name in parents.split('/').skip(1) {
        at = match at {
            Value::Object(map) => map.entry(name).or_insert_with(|| json!({})),
            Value::Array(items) => items
                .get_mut(name.parse::<usize>()?)
                .with_context(|| format!("{pointer}: there is no item {name}"))?,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                bail!("{pointer}: {name} is in no object")
            }
        };
    }
    match at {
        Value::Object(map) if value.is_null() => drop(map.remove(last)),
        Value::Object(map) => drop(map.insert(last.to_owned(), value)),
        Value::Array(items) => {
            let index: usize = last.parse()?;
            ensure!(index <= items.len(), "{pointer}: there are {} items", items.len());
            items.splice(index..items.len().min(index + 1), [value]);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            bail!("{pointer}: {last} is in no object")
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_set_added_and_taken_away() {
        let mut document = json!({"spec": {"steps": [{"a": 1}, {"b": 2}], "kafka": {}}});
        put(&mut document, "/spec/steps/0", json!({"c": 3})).unwrap();
        put(&mut document, "/spec/steps/1/b", json!(4)).unwrap();
        put(&mut document, "/spec/steps/2", json!("new")).unwrap();
        put(&mut document, "/spec/kafka", Value::Null).unwrap();
        put(&mut document, "/spec/state/volume/size", json!("1Gi")).unwrap();
        assert_eq!(
            document,
            json!({"spec": {"steps": [{"c": 3}, {"b": 4}, "new"], "state": {"volume": {"size": "1Gi"}}}})
        );
        assert!(put(&mut document, "/spec/steps/9", json!(1)).is_err());
        assert!(put(&mut document, "/spec/steps/9/a", json!(1)).is_err());
        assert!(put(&mut document, "/spec/steps/2/a", json!(1)).is_err());
    }

    #[test]
    fn there_are_enough_kinds_and_each_has_its_own_name() {
        let mut names: Vec<_> = new_ones()
            .iter()
            .chain(&changes())
            .map(|wrong| wrong.name)
            .collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(all >= 15, "{all}");
    }
}
