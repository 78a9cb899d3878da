//! Sinks of several topics.

use super::*;
use crate::{Driver, DriverRecord};

#[test]
fn each_record_goes_to_the_topic_that_is_computed_and_to_no_other_one() {
    let declaration = json!({
        "language": "v1",
        "streams": [{
            "name": "in", "topic": "in", "key": {"serde": "String"}, "value": {"serde": "String"},
            "onError": "DeadLetter", "deadLetterTopic": "dead",
        }],
        "pipelines": [{"name": "p", "from": "in", "to": {
            "topics": ["long", "short"], "topicOf": "value.size() > 3 ? 'long' : value.size() > 1 ? 'short' : 'none'",
            "value": {"serde": "String"}, "headers": {"size": "string(value.size())"},
        }}],
    });
    let plan = topology::plan(&serde_json::from_value(declaration).unwrap()).unwrap();
    let mut driver = Driver::new(Arc::new(plan), 1);
    for (value, wanted) in [("abcd", "long"), ("ab", "short"), ("a", "dead")] {
        let outputs = driver.pipe(input("in", Some(value))).unwrap().outputs;
        let [output] = outputs.as_slice() else {
            panic!("{outputs:?}")
        };
        assert_eq!(output.topic.to_string(), wanted);
        assert_eq!(output.value.as_deref(), Some(value.as_bytes()));
        let of = |name: &str| output.headers.iter().find(|header| header.0 == name);
        let text = |name: &str| of(name).map(|header| String::from_utf8(header.1.clone().unwrap()).unwrap());
        if wanted == "dead" {
            let reason = "`none` is none of the topics that are declared";
            assert_eq!(text("__streams.errors.message").as_deref(), Some(reason));
        } else {
            assert_eq!(text("size"), Some(value.len().to_string()));
        }
    }
}

fn input(topic: &str, value: Option<&str>) -> DriverRecord {
    DriverRecord {
        topic: TopicName::External(topic.into()),
        partition: 0,
        key: Some(b"k".to_vec()),
        value: value.map(Into::into),
        headers: Vec::new(),
        timestamp: 7,
    }
}

#[test]
fn routes_lead_to_the_same_topics_when_parts_become_one() {
    let source = |name: &str| json!({"name": name, "topic": name, "key": {"serde": "String"}, "value": {"serde": "String"}});
    let to = |topics: [&str; 2]| json!({"topics": topics, "topicOf": "value", "value": {"serde": "String"}});
    let declaration = json!({
        "language": "v1",
        "streams": [source("x"), source("y")],
        "pipelines": [
            {"name": "px", "from": "x", "to": to(["x1", "x2"])},
            {"name": "py", "from": "y", "to": to(["y1", "y2"])},
            {"name": "both", "from": "x", "steps": [{"merge": {"with": ["y"]}}, {"filter": "value == 'y2'"}],
             "to": {"topic": "both", "value": {"serde": "String"}}},
        ],
    });
    let plan = topology::plan(&serde_json::from_value(declaration).unwrap()).unwrap();
    assert_eq!(plan.sub_topologies.len(), 1);
    let mut driver = Driver::new(Arc::new(plan), 1);
    for (topic, value, wanted) in [
        ("x", "x2", &["x2"][..]),
        ("y", "y1", &["y1"]),
        ("y", "y2", &["y2", "both"]),
    ] {
        let mut outputs: Vec<_> = driver
            .pipe(input(topic, Some(value)))
            .unwrap()
            .outputs
            .into_iter()
            .map(|output| output.topic.to_string())
            .collect();
        outputs.sort_by_key(|topic| topic == "both");
        assert_eq!(outputs, wanted);
    }
}

#[test]
fn a_tombstone_goes_where_something_else_than_its_value_says_or_is_dropped() {
    for (by, wanted) in [("key == 'k' ? 'a' : 'b'", Some("a")), ("value", None)] {
        let declaration = json!({
            "language": "v1",
            "tables": [{"name": "t", "topic": "t", "key": {"serde": "String"}, "value": {"serde": "String"}}],
            "pipelines": [{"name": "p", "from": "t", "steps": [{"toStream": {}}], "to": {
                "topics": ["a", "b"], "topicOf": by, "value": {"serde": "String"},
            }}],
        });
        let plan = topology::plan(&serde_json::from_value(declaration).unwrap()).unwrap();
        let mut driver = Driver::new(Arc::new(plan), 1);
        driver.pipe(input("t", Some("a"))).unwrap();
        let driven = driver.pipe(input("t", None)).unwrap();
        let topics: Vec<_> = driven
            .outputs
            .iter()
            .map(|output| output.topic.to_string())
            .collect();
        assert_eq!(topics, Vec::from_iter(wanted));
        let dropped = Processed::Dropped(DropReason::NullValue);
        let processed = if wanted.is_some() {
            Processed::Done
        } else {
            dropped
        };
        assert_eq!(driven.processed, [processed]);
    }
}
