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
        let record = DriverRecord {
            topic: TopicName::External("in".into()),
            partition: 0,
            key: Some(b"k".to_vec()),
            value: Some(value.into()),
            headers: Vec::new(),
            timestamp: 7,
        };
        let outputs = driver.pipe(record).unwrap().outputs;
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
