//! Whether every run of a plan over the same records gives the same, byte for byte (G5), and what it depends on if not.
//!
//! A run is what tasks make of the records of their topics, as these lie there. No step reads a clock, is random or knows when it
//! was started anew, so what is left is where records come from: which one a task meets first, and which one it begins with.

use std::fmt;

use crate::Path;
use crate::plan::{
    NodeIndex, OffsetReset, OnBadRecord, Op, Plan, Source, StoreIndex, SubTopology, TopicName,
};

/// What two runs over the same records may do otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum Cause {
    /// In a repartition topic, records of several partitions follow each other in the order in which their tasks commit.
    RepartitionOrder,
    /// A task of several topics meets their records in the order of event time, as far as they have arrived.
    SeveralTopics,
    /// A stream's record is joined with what a table of another topic has at that moment, whatever the record's time.
    UnversionedTable,
    /// A stream is read from where its topic ended at the first start.
    FirstStart,
    /// A record is passed over when a topic does not take its result's time, which a clock decides (ADR 0025).
    Clock,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Something that two runs over the same records may do otherwise.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Variation {
    /// What.
    pub cause: Cause,
    /// Where in the declaration.
    #[serde(serialize_with = "as_text")]
    pub path: Path,
    /// What that means here.
    pub message: String,
    /// What to write to avoid it, where that can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<&'static str>,
}

fn as_text<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(path)
}

impl Plan {
    /// What two runs over the same records may do otherwise; without any of it the plan is deterministic.
    #[must_use]
    pub fn variations(&self) -> Vec<Variation> {
        let mut found = Vec::new();
        for sub in &self.sub_topologies {
            found.extend(sub.sources.iter().filter_map(|source| repartition(sub, source)));
            found.extend(several_topics(sub));
            found.extend((0..sub.nodes.len()).filter_map(|node| unversioned_table(sub, node)));
            found.extend(sub.sources.iter().filter_map(|source| first_start(sub, source)));
            found.extend(sub.sources.iter().filter_map(|source| clock(sub, source)));
        }
        found
    }
}

fn variation(sub: &SubTopology, node: NodeIndex, cause: Cause, message: String) -> Option<Variation> {
    Some(Variation {
        cause,
        path: sub.nodes.get(node)?.path.clone(),
        message,
        suggestion: None,
    })
}

fn repartition(sub: &SubTopology, source: &Source) -> Option<Variation> {
    let topic = match &source.topic {
        TopicName::Repartition(_) => &source.topic,
        TopicName::External(_) | TopicName::Changelog(_) => return None,
    };
    let message = format!(
        "records that come from different partitions follow each other in {topic} in the order in which they are committed"
    );
    variation(sub, source.node, Cause::RepartitionOrder, message)
}

fn several_topics(sub: &SubTopology) -> Option<Variation> {
    let [first, _, ..] = sub.sources.as_slice() else {
        return None;
    };
    let topics: Vec<_> = sub
        .sources
        .iter()
        .map(|source| source.topic.to_string())
        .collect();
    let message = format!(
        "the tasks `{}` meet the records of {} in the order of event time, but those that come later than `maxTaskIdle` as they come",
        sub.name,
        topics.join(" and ")
    );
    variation(sub, first.node, Cause::SeveralTopics, message)
}

fn unversioned_table(sub: &SubTopology, node: NodeIndex) -> Option<Variation> {
    let Op::JoinTable { store: table, .. } = &sub.nodes.get(node)?.op else {
        return None;
    };
    let store = sub.stores.get(*table)?;
    if store.windows.is_some() || !has_sources_of_its_own(sub, node, *table) {
        return None;
    }
    let message = format!(
        "a record is joined with what `{}` has when the record comes, not with what it had at the record's time",
        store.name
    );
    let suggestion = "give the table `historyRetention`, and the join `grace` for updates that come late";
    Some(Variation {
        suggestion: Some(suggestion),
        ..variation(sub, node, Cause::UnversionedTable, message)?
    })
}

/// Whether a table changes by records of other topics than those that reach a node.
fn has_sources_of_its_own(sub: &SubTopology, node: NodeIndex, table: StoreIndex) -> bool {
    let topics = |node| {
        sub.sources_of(node)
            .map(|source| &source.topic)
            .collect::<Vec<_>>()
    };
    let keeps = |op: &Op| matches!(op, Op::Table { store } | Op::Aggregate { store, .. } | Op::JoinForeignKey { store, .. } if *store == table);
    let mut keepers = (0..sub.nodes.len()).filter(|keeper| keeps(&sub.nodes[*keeper].op));
    let of_records = topics(node);
    of_records.len() > 1 || keepers.any(|keeper| topics(keeper) != of_records)
}

fn first_start(sub: &SubTopology, source: &Source) -> Option<Variation> {
    match source.offset_reset {
        OffsetReset::Earliest => None,
        OffsetReset::Latest => {
            let message = format!(
                "`{}` begins with what is written to {} after the first start",
                source.name, source.topic
            );
            Some(Variation {
                suggestion: Some("`offsetReset: Earliest` begins with the first record"),
                ..variation(sub, source.node, Cause::FirstStart, message)?
            })
        }
    }
}

fn clock(sub: &SubTopology, source: &Source) -> Option<Variation> {
    let what = match source.on_error {
        OnBadRecord::Fail => return None,
        OnBadRecord::Skip => "skipped",
        OnBadRecord::DeadLetter => "a dead letter",
    };
    let message = format!(
        "a record of {} whose result has a time that its topic does not take is {what}, and for the future a clock decides that",
        source.topic
    );
    variation(sub, source.node, Cause::Clock, message)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    /// Causes and paths of a topology with the streams `a` and `b` and the tables `t` and `v`, which keeps versions.
    fn causes(change: impl FnOnce(&mut Json)) -> Vec<(Cause, String)> {
        let source = |name: &str| json!({"name": name, "topic": format!("{name}.v1"), "key": {"serde": "String"}, "value": {"serde": "Long"}});
        let mut versioned = source("v");
        versioned["historyRetention"] = json!("1h");
        let to = json!({"topic": "out.v1", "value": {"serde": "Long"}});
        // All are read, each by itself.
        let reads = |name: &str, steps: Json| json!({"name": format!("of-{name}"), "from": name, "steps": steps, "to": to});
        let stream = json!([{"toStream": {}}]);
        let mut declared = json!({
            "language": "v1",
            "streams": [source("a"), source("b")],
            "tables": [source("t"), versioned],
            "pipelines": [reads("a", json!([])), reads("b", json!([])), reads("t", stream.clone()), reads("v", stream)],
        });
        change(&mut declared);
        let plan = crate::plan(&serde_json::from_value(declared).unwrap());
        let plan = plan.unwrap_or_else(|errors| panic!("{errors:?}"));
        let found = plan.variations().into_iter();
        let short = |path: Path| path.to_string().replace("spec.topology.", "");
        found.map(|found| (found.cause, short(found.path))).collect()
    }

    fn of_steps(steps: Json) -> Vec<(Cause, String)> {
        causes(|declared| declared["pipelines"][0]["steps"] = steps)
    }

    #[test]
    fn a_task_of_one_topic_has_one_order() {
        let join = json!({"with": "own", "expression": "left + right"});
        let all = [
            json!([]),
            json!([{"filter": "value > 1"}, {"mapValues": {"expression": "value + 1"}}]),
            json!([{"groupByKey": {}}, {"sum": {"store": "s", "of": "value"}}, {"toStream": {}}]),
        ];
        for steps in all {
            assert_eq!(of_steps(steps.clone()), [], "{steps}");
        }
        // Nor does a table that is made of the same topic give another one.
        let own = causes(|declared| {
            let own = json!({"name": "own", "from": "a", "steps": [{"toTable": {"store": "own"}}]});
            declared["pipelines"].as_array_mut().unwrap().push(own);
            declared["pipelines"][0]["steps"] = json!([{"join": join}]);
        });
        assert_eq!(own, []);
    }

    #[test]
    fn what_may_be_otherwise_is_named() {
        use Cause::{Clock, FirstStart, RepartitionOrder, SeveralTopics, UnversionedTable};
        let found = |all: &[(Cause, &str)]| -> Vec<_> {
            all.iter()
                .map(|(cause, path)| (*cause, (*path).to_owned()))
                .collect()
        };
        let join = |table: &str| json!([{"join": {"with": table, "expression": "left + right"}}]);
        let grouped = json!([{"selectKey": "string(value)"}, {"groupByKey": {}}, {"count": {"store": "s"}}, {"toStream": {}}]);
        assert_eq!(
            of_steps(grouped),
            found(&[(RepartitionOrder, "pipelines[0].steps[1]")])
        );
        assert_eq!(
            of_steps(join("t")),
            found(&[
                (SeveralTopics, "streams[0]"),
                (UnversionedTable, "pipelines[0].steps[0].join")
            ])
        );
        assert_eq!(of_steps(join("v")), found(&[(SeveralTopics, "streams[0]")]));
        assert_eq!(
            of_steps(json!([{"merge": {"with": ["b"]}}])),
            found(&[(SeveralTopics, "streams[0]")])
        );
        let latest = causes(|declared| declared["streams"][0]["offsetReset"] = json!("Latest"));
        assert_eq!(latest, found(&[(FirstStart, "streams[0]")]));
        let skips = causes(|declared| declared["streams"][0]["onError"] = json!("Skip"));
        assert_eq!(skips, found(&[(Clock, "streams[0]")]));
    }
}
