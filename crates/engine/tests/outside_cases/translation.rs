//! What the suites share whose cases are written in other languages: the documents with their topologies, and topics without keys.

use crds::Document;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use streamapp_engine::DriverRecord;
use topology::plan::TopicName;

use super::Entry;

/// Reads `<suite>/<name>.yaml`.
///
/// # Panics
/// When there is none, or it is not valid.
pub(super) fn read<T: DeserializeOwned + JsonSchema>(suite: &str, name: &str) -> T {
    let file = format!("tests/outside_cases/{suite}/{name}.yaml");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let document = Document::read(&text).unwrap_or_else(|errors| {
        let errors: Vec<_> = errors.iter().map(|error| error.render(&file)).collect();
        panic!("{}", errors.join("\n"))
    });
    document.value
}

/// What stands there of a case that does not pass.
///
/// # Panics
/// When it is declined and missing.
pub(super) fn entry(case: &str, declined: Option<&String>, missing: Option<&String>) -> Option<Entry> {
    match (declined, missing) {
        (Some(_), None) => Some(Entry::Declined),
        (None, Some(_)) => Some(Entry::Missing),
        (None, None) => None,
        (Some(_), Some(_)) => panic!("{case} is declined and missing"),
    }
}

/// A record without a key.
pub(super) fn unkeyed(topic: &str, value: Vec<u8>, timestamp: i64) -> DriverRecord {
    DriverRecord {
        topic: TopicName::External(topic.to_owned()),
        partition: 0,
        key: None,
        value: Some(value),
        headers: Vec::new(),
        timestamp,
    }
}
