//! Headers: read in expressions, written by sinks, carried as far as somebody reads them.

use super::*;
use crate::{Driver, DriverRecord};

type Written = Vec<(String, Option<String>)>;

/// Words that are counted, with headers at the end.
fn counting(headers: &serde_json::Value) -> Arc<Plan> {
    let declaration = json!({
        "language": "v1",
        "streams": [{"name": "words", "topic": "words", "key": {"serde": "String"}, "value": {"serde": "String"}}],
        "pipelines": [{
            "name": "p", "from": "words",
            "steps": [{"selectKey": "value"}, {"groupByKey": {}}, {"count": {"store": "counts"}}, {"toStream": {}}],
            "to": {"topic": "out", "value": {"serde": "Long"}, "headers": headers},
        }],
    });
    Arc::new(topology::plan(&serde_json::from_value(declaration).unwrap()).unwrap())
}

fn word(headers: &[(&str, Option<&str>)]) -> DriverRecord {
    let headers = headers.iter();
    DriverRecord {
        topic: TopicName::External("words".into()),
        partition: 0,
        key: None,
        value: Some(b"word".to_vec()),
        headers: headers
            .map(|(name, value)| ((*name).to_owned(), value.map(Into::into)))
            .collect(),
        timestamp: 0,
    }
}

fn written(driver: &mut Driver, record: DriverRecord) -> Written {
    let mut outputs = driver.pipe(record).unwrap().outputs;
    let headers = outputs.pop().unwrap().headers.into_iter();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    headers.map(|(name, value)| (name, value.map(text))).collect()
}

fn named(headers: &[(&str, &str)]) -> Written {
    let headers = headers.iter();
    headers
        .map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned())))
        .collect()
}

#[test]
fn headers_are_read_behind_a_repartition_and_written_by_their_names() {
    let headers = json!({"trace": "headers.?trace", "count": "string(value)"});
    let mut driver = Driver::new(counting(&headers), 2);
    let mut pipe = |headers: &[(&str, Option<&str>)]| written(&mut driver, word(headers));
    // The last one of a name counts, and one without a value is none.
    let twice = [("trace", Some("a")), ("other", Some("x")), ("trace", Some("b"))];
    assert_eq!(pipe(&twice), named(&[("count", "1"), ("trace", "b")]));
    assert_eq!(pipe(&[("trace", None)]), named(&[("count", "2")]));
    assert_eq!(pipe(&[]), named(&[("count", "3")]));
}

#[test]
fn headers_go_over_as_many_repartitions_as_it_takes() {
    let group = |store: &str, key: &str| json!([{"selectKey": key}, {"groupByKey": {}}, {"latest": {"store": store, "of": "value"}}, {"toStream": {}}]);
    let mut steps = group("a", "value").as_array().unwrap().clone();
    steps.extend(group("b", "value + '!'").as_array().unwrap().clone());
    let readers = [
        json!({"topic": "out", "headers": {"trace": "headers.?trace"}}),
        json!({"topics": ["out"], "topicOf": "string(headers.topic)", "headers": {"trace": "'b'"}}),
    ];
    for mut to in readers {
        to["value"] = json!({"serde": "String"});
        let declaration = json!({
            "language": "v1",
            "streams": [{"name": "words", "topic": "words", "key": {"serde": "String"}, "value": {"serde": "String"}}],
            "pipelines": [{"name": "p", "from": "words", "steps": steps, "to": to}],
        });
        let plan = topology::plan(&serde_json::from_value(declaration).unwrap()).unwrap();
        assert_eq!(plan.sub_topologies.len(), 3);
        let mut driver = Driver::new(Arc::new(plan), 3);
        let record = word(&[("topic", Some("out")), ("trace", Some("b"))]);
        assert_eq!(written(&mut driver, record), named(&[("trace", "b")]));
    }
}

#[test]
fn headers_that_nobody_reads_go_nowhere() {
    let plan = counting(&json!({"count": "string(value)"}));
    assert!(
        plan.sub_topologies
            .iter()
            .flat_map(|sub| &sub.sources)
            .all(|source| !source.headers)
    );
    let mut driver = Driver::new(plan, 1);
    assert_eq!(
        written(&mut driver, word(&[("trace", Some("a"))])),
        named(&[("count", "1")])
    );
}

#[test]
fn a_tombstone_has_the_headers_that_do_not_read_its_value() {
    let declaration = json!({
        "language": "v1",
        "tables": [{"name": "t", "topic": "words", "key": {"serde": "String"}, "value": {"serde": "String"}}],
        "pipelines": [{
            "name": "p", "from": "t", "steps": [{"toStream": {}}],
            "to": {"topic": "out", "value": {"serde": "String"}, "headers": {"upper": "value.upperAscii()", "id": "key"}},
        }],
    });
    let plan = topology::plan(&serde_json::from_value(declaration).unwrap()).unwrap();
    let mut driver = Driver::new(Arc::new(plan), 1);
    let update = |value: Option<&str>| DriverRecord {
        key: Some(b"k".to_vec()),
        value: value.map(Into::into),
        ..word(&[])
    };
    assert_eq!(
        written(&mut driver, update(Some("a"))),
        named(&[("id", "k"), ("upper", "A")])
    );
    assert_eq!(written(&mut driver, update(None)), named(&[("id", "k")]));
}

#[test]
fn a_header_that_cannot_be_computed_is_an_error_of_its_record() {
    let mut driver = Driver::new(counting(&json!({"trace": "headers['trace']"})), 1);
    let error = driver.pipe(word(&[])).unwrap_err();
    assert_eq!(error.category(), ErrorCategory::Expression);
    let reason = "header `trace`: no such key: 'trace'; at spec.topology.pipelines[0].to";
    assert!(error.to_string().contains(reason), "{error}");
}
