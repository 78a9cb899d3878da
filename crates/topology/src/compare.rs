//! What becomes of an application that runs when its topology is replaced by another one.
//!
//! An application is more than its plan: tasks have positions under their names, stores have contents, repartition topics have
//! records on their way. Where the new plan cannot go on with these under the same `application.id`, that is a reason for a
//! migration.

use std::collections::BTreeMap;
use std::fmt;

use crate::declaration::{Pipeline, Topology};
use crate::fingerprint::{canonical_format, canonical_type};
use crate::plan::{Format, Plan, Sink, Source, StoreSpec, TopicName};
use crate::planner::windows_text;

/// A topology with its plan.
#[derive(Clone, Copy, Debug)]
pub struct Version<'t> {
    /// As it is declared.
    pub topology: &'t Topology,
    /// What is made of it.
    pub plan: &'t Plan,
}

/// Whether an application can go on with another topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum Verdict {
    /// With what it has.
    Compatible,
    /// Only under another `application.id`, to which what it has is brought.
    NeedsMigration,
}

/// Something that is another thing in the new topology.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// What this alone would say.
    pub verdict: Verdict,
    /// What differs, and what that means.
    pub message: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// All that differs, what needs a migration first.
#[must_use]
pub fn compare(old: Version<'_>, new: Version<'_>) -> Vec<Difference> {
    let mut found = Differences::default();
    let (before, after) = (readers(old.plan), readers(new.plan));
    found.tasks(&before, &after);
    found.stores(old.plan, new.plan);
    found.repartitions(&before, &after);
    found.outputs(old.plan, new.plan);
    found.pipelines(old, new);
    found
        .0
        .sort_by_key(|difference| std::cmp::Reverse(difference.verdict));
    found.0
}

/// What all of them say together.
#[must_use]
pub fn verdict(differences: &[Difference]) -> Verdict {
    let verdicts = differences.iter().map(|difference| difference.verdict);
    verdicts.max().unwrap_or(Verdict::Compatible)
}

#[derive(Default)]
struct Differences(Vec<Difference>);

impl Differences {
    fn add(&mut self, verdict: Verdict, message: impl Into<String>) {
        let message = message.into();
        self.0.push(Difference { verdict, message });
    }

    fn migration(&mut self, message: impl Into<String>) {
        self.add(Verdict::NeedsMigration, message);
    }

    fn note(&mut self, message: impl Into<String>) {
        self.add(Verdict::Compatible, message);
    }

    /// Positions are kept by task and topic.
    fn tasks(&mut self, before: &Readers<'_>, after: &Readers<'_>) {
        for (topic, (sub, source)) in before {
            match after.get(topic) {
                Some((other, _)) if other == sub => {}
                Some((other, _)) => self.migration(format!(
                    "topic {topic} is read by the tasks `{other}`, before by `{sub}`: where it was read up to is kept under the old name, \
                     so it would be read again or in part not at all"
                )),
                None if matches!(topic, TopicName::External(_)) => {
                    self.note(format!("topic {topic} is not read any more (`{}`)", source.name));
                }
                // Told as what it is.
                None => {}
            }
        }
        for (topic, (sub, source)) in after {
            if !before.contains_key(topic) && matches!(topic, TopicName::External(_)) {
                self.note(format!(
                    "topic {topic} is new, and read by the tasks `{sub}` from where `{}` says",
                    source.name
                ));
            }
        }
        for (topic, (_, source)) in after {
            let Some((_, was)) = before.get(topic) else {
                continue;
            };
            if let TopicName::External(_) = topic
                && (has_other_encoding(&was.key, &source.key)
                    || has_other_encoding(&was.value, &source.value))
            {
                self.note(format!(
                    "records of topic {topic} are read as {} under {}, before as {} under {}: those that wait are read so, too",
                    encoding(&source.value),
                    encoding(&source.key),
                    encoding(&was.value),
                    encoding(&was.key)
                ));
            }
            if was.max_ahead_ms != source.max_ahead_ms {
                let bound =
                    |most: Option<i64>| most.map_or("any time".to_owned(), |most| format!("{most} ms"));
                let (now, was) = (bound(source.max_ahead_ms), bound(was.max_ahead_ms));
                self.note(format!(
                    "event time of topic {topic} may be ahead by {now}, before by {was}: other records are refused"
                ));
            }
        }
    }

    /// Stores go on with what they hold.
    fn stores(&mut self, old: &Plan, new: &Plan) {
        let (before, after) = (stores(old), stores(new));
        for (name, (sub, store)) in &before {
            let Some((other, replaced)) = after.get(name) else {
                self.note(format!(
                    "store `{name}` is not used any more; its changelog stays"
                ));
                continue;
            };
            if other != sub {
                self.migration(format!(
                    "store `{name}` belongs to the tasks `{other}`, before to `{sub}`: what it holds lies in other partitions, or may"
                ));
            }
            for what in differences_of(store, replaced) {
                self.migration(format!("store `{name}`: {what}"));
            }
        }
        for (name, (sub, _)) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
            let begins = if old.sub_topologies.iter().any(|old| old.name == *sub) {
                "is new and begins empty: it lacks what the records said that were read before"
            } else {
                "is new"
            };
            self.note(format!("store `{name}` {begins}"));
        }
    }

    /// Records are on their way in them.
    fn repartitions(&mut self, before: &Readers<'_>, after: &Readers<'_>) {
        for (topic, (_, source)) in before {
            if !matches!(topic, TopicName::Repartition(_)) {
                continue;
            }
            let Some((_, replaced)) = after.get(topic) else {
                self.migration(format!(
                    "{topic} is not read any more: records that are on their way there would be lost"
                ));
                continue;
            };
            let forms = [(&source.key, &replaced.key), (&source.value, &replaced.value)];
            for form in other_forms(forms) {
                self.migration(format!(
                    "{topic}: {form}; records that are on their way have the old form"
                ));
            }
        }
    }

    /// Others read them.
    fn outputs(&mut self, old: &Plan, new: &Plan) {
        let (before, after) = (outputs(old), outputs(new));
        for (topic, sink) in &before {
            let Some(replaced) = after.get(topic) else {
                self.note(format!("topic {topic} is not written any more"));
                continue;
            };
            for form in other_forms([(&sink.key, &replaced.key), (&sink.value, &replaced.value)]) {
                self.note(format!("topic {topic}: {form}"));
            }
        }
        for topic in after.keys().filter(|topic| !before.contains_key(*topic)) {
            self.note(format!("topic {topic} is written from now on"));
        }
    }

    /// Stores hold what other steps have made.
    fn pipelines(&mut self, old: Version<'_>, new: Version<'_>) {
        let keeps = stores(old.plan)
            .keys()
            .any(|store| stores(new.plan).contains_key(store));
        let after: BTreeMap<_, _> = new.topology.pipelines.iter().map(by_name).collect();
        let before: BTreeMap<_, _> = old.topology.pipelines.iter().map(by_name).collect();
        for (name, pipeline) in before {
            let Some(replaced) = after.get(name) else {
                continue;
            };
            let steps = pipeline.steps.iter().zip(&replaced.steps);
            let same = steps.take_while(|(was, is)| was == is).count();
            if pipeline.steps == replaced.steps {
                continue;
            }
            let what = if same < pipeline.steps.len().min(replaced.steps.len()) {
                format!("`steps[{same}]` is another one")
            } else {
                "has more or fewer steps".to_owned()
            };
            let kept = if keeps {
                "; what stores hold by now was made by the old steps, and stays"
            } else {
                ""
            };
            self.note(format!("pipeline `{name}`: {what}{kept}"));
        }
    }
}

fn by_name(pipeline: &Pipeline) -> (&str, &Pipeline) {
    (&pipeline.name, pipeline)
}

/// What differs of two stores of one name.
fn differences_of(was: &StoreSpec, is: &StoreSpec) -> Vec<String> {
    let mut found = Vec::new();
    if canonical_format(&was.key) != canonical_format(&is.key) {
        found.push(format!(
            "its keys are {}, before {}",
            canonical_format(&is.key),
            canonical_format(&was.key)
        ));
    }
    if canonical_type(&was.value) != canonical_type(&is.value) {
        let (was, is) = (canonical_type(&was.value), canonical_type(&is.value));
        found.push(format!("its values are {is}, before {was}"));
    }
    if was.windows != is.windows {
        let windows = |store: &StoreSpec| {
            store
                .windows
                .map_or_else(|| "no windows".to_owned(), windows_text)
        };
        found.push(format!("it has {}, before {}", windows(is), windows(was)));
    }
    if found.is_empty() && was.fingerprint != is.fingerprint {
        found.push("it is kept in another way".to_owned());
    }
    found
}

/// What differs of the keys and of the values of a topic: each as it was and as it is.
fn other_forms(forms: [(&Format, &Format); 2]) -> Vec<String> {
    let named = ["keys", "values"].into_iter().zip(forms);
    let differ = named.filter_map(|(what, (was, is))| {
        let (was, is) = (canonical_format(was), canonical_format(is));
        (was != is).then(|| format!("{what} are {is}, before {was}"))
    });
    differ.collect()
}

type Readers<'p> = BTreeMap<&'p TopicName, (&'p str, &'p Source)>;

fn readers(plan: &Plan) -> Readers<'_> {
    plan.sub_topologies
        .iter()
        .flat_map(|sub| {
            sub.sources
                .iter()
                .map(|source| (&source.topic, (sub.name.as_str(), source)))
        })
        .collect()
}

fn stores(plan: &Plan) -> BTreeMap<&str, (&str, &StoreSpec)> {
    let subs = plan.sub_topologies.iter();
    subs.flat_map(|sub| {
        sub.stores
            .iter()
            .map(|store| (store.name.as_str(), (sub.name.as_str(), store)))
    })
    .collect()
}

fn outputs(plan: &Plan) -> BTreeMap<&TopicName, &Sink> {
    let sinks = plan.sub_topologies.iter().flat_map(|sub| &sub.sinks);
    let external = sinks.filter(|sink| matches!(sink.topic, TopicName::External(_)));
    external.map(|sink| (&sink.topic, sink)).collect()
}

/// Fields of a record that are read are no matter of its encoding.
fn has_other_encoding(was: &Format, is: &Format) -> bool {
    encoding(was) != encoding(is)
}

fn encoding(format: &Format) -> String {
    if let Format::Json(_) = format {
        "Json".to_owned()
    } else {
        canonical_format(format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn sums(steps: Json) -> Json {
        json!({
            "language": "v1",
            "types": [{"name": "Order", "fields": {"customer": "string", "amount": "int"}}],
            "streams": [{"name": "orders", "topic": "orders.v1", "key": {"serde": "String"}, "value": {"serde": "Json", "type": "Order"}}],
            "pipelines": [{"name": "sums", "from": "orders", "steps": steps, "to": {"topic": "sums.v1", "value": {"serde": "Long"}}}],
        })
    }

    fn steps() -> Json {
        json!([
            {"filter": "value.amount > 0"},
            {"selectKey": "value.customer"},
            {"groupByKey": {}},
            {"sum": {"store": "by-customer", "of": "value.amount"}},
            {"toStream": {}},
        ])
    }

    /// What is told of two declarations, one after the other.
    fn told(old: &Json, new: &Json) -> (Verdict, Vec<String>) {
        let [old, new] = [old, new].map(|json| {
            let topology: Topology = serde_json::from_value(json.clone()).unwrap();
            let plan = crate::plan(&topology).unwrap();
            (topology, plan)
        });
        let differences = compare(
            Version {
                topology: &old.0,
                plan: &old.1,
            },
            Version {
                topology: &new.0,
                plan: &new.1,
            },
        );
        let messages = differences.iter().map(Difference::to_string).collect();
        (verdict(&differences), messages)
    }

    #[test]
    fn the_same_topology_differs_in_nothing() {
        assert_eq!(
            told(&sums(steps()), &sums(steps())),
            (Verdict::Compatible, vec![])
        );
    }

    #[test]
    fn another_rule_goes_on_with_what_was_made_by_the_old_one() {
        let mut other = steps();
        other[0] = json!({"filter": "value.amount > 10"});
        let message = "pipeline `sums`: `steps[0]` is another one; what stores hold by now was made by the old steps, and stays";
        let wanted = (Verdict::Compatible, vec![message.to_owned()]);
        assert_eq!(told(&sums(steps()), &sums(other)), wanted);
    }

    #[test]
    fn another_type_of_a_store_needs_a_migration() {
        let mut other = steps();
        other[3] = json!({"sum": {"store": "by-customer", "of": "double(value.amount)"}});
        other
            .as_array_mut()
            .unwrap()
            .push(json!({"mapValues": {"expression": "int(value)"}}));
        let (verdict, messages) = told(&sums(steps()), &sums(other));
        assert_eq!(verdict, Verdict::NeedsMigration);
        assert_eq!(
            messages[0],
            "store `by-customer`: its values are double, before int"
        );
    }

    #[test]
    fn windows_are_the_stores() {
        let windowed = |size: &str| {
            let mut steps = steps();
            let windows = json!({"windowedBy": {"tumbling": {"size": size, "grace": "0s"}}});
            steps.as_array_mut().unwrap().insert(3, windows);
            sums(steps)
        };
        let (verdict, messages) = told(&windowed("1m"), &windowed("2m"));
        assert_eq!(verdict, Verdict::NeedsMigration);
        let message = "store `by-customer`: it has windows of 120000 every 120000, grace 0, before windows of 60000 every 60000, grace 0";
        assert_eq!(messages[0], message);
    }

    #[test]
    fn records_on_their_way_have_the_form_of_their_topic() {
        let mut other = steps();
        other[3] = json!({"topK": {"store": "by-customer", "by": "value.amount", "limit": 1}});
        let mut json = sums(other);
        json["pipelines"][0]["to"] = json!({"topic": "sums.v1", "value": {"serde": "Long"}});
        json["pipelines"][0]["steps"]
            .as_array_mut()
            .unwrap()
            .push(json!({"mapValues": {"expression": "value.size()"}}));
        let (verdict, messages) = told(&sums(steps()), &json);
        assert_eq!(verdict, Verdict::NeedsMigration);
        let changed = "<application.id>-by-customer-repartition: values are Row";
        assert!(
            messages.iter().any(|message| message.starts_with(changed)),
            "{messages:?}"
        );
    }

    #[test]
    fn a_cut_that_is_gone_would_lose_records_and_a_moved_store_would_lie_elsewhere() {
        let direct = json!([
            {"filter": "value.amount > 0"},
            {"groupByKey": {}},
            {"sum": {"store": "by-customer", "of": "value.amount"}},
            {"toStream": {}},
        ]);
        let (verdict, messages) = told(&sums(steps()), &sums(direct));
        assert_eq!(verdict, Verdict::NeedsMigration);
        let wanted = [
            "store `by-customer` belongs to the tasks `orders`, before to `by-customer`: what it holds lies in other partitions, or may",
            "<application.id>-by-customer-repartition is not read any more: records that are on their way there would be lost",
        ];
        assert_eq!(messages[..2], wanted);
    }

    #[test]
    fn what_is_added_and_what_is_left_out_is_told() {
        let mut other = sums(steps());
        other["streams"].as_array_mut().unwrap().push(
            json!({"name": "more", "topic": "more.v1", "key": {"serde": "String"}, "value": {"serde": "Long"}}),
        );
        other["pipelines"].as_array_mut().unwrap().push(json!({
            "name": "more", "from": "more", "to": {"topic": "counts.v1", "value": {"serde": "Long"}},
            "steps": [{"groupByKey": {}}, {"count": {"store": "counts"}}, {"toStream": {}}],
        }));
        let (verdict, messages) = told(&sums(steps()), &other);
        let wanted = [
            "topic more.v1 is new, and read by the tasks `more` from where `more` says",
            "store `counts` is new",
            "topic counts.v1 is written from now on",
        ];
        assert_eq!(
            (verdict, messages),
            (Verdict::Compatible, wanted.map(str::to_owned).to_vec())
        );
        let (verdict, messages) = told(&other, &sums(steps()));
        let wanted = [
            "topic more.v1 is not read any more (`more`)",
            "store `counts` is not used any more; its changelog stays",
            "topic counts.v1 is not written any more",
        ];
        assert_eq!(
            (verdict, messages),
            (Verdict::Compatible, wanted.map(str::to_owned).to_vec())
        );
    }
}
