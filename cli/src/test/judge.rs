//! Runs one case and says what differs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use bumpalo::Bump;
use engine::{Driver, DriverRecord, DriverStore, Processed, StoreRow, store_rows};
use serde_json::Value as Json;
use similar::{ChangeTag, TextDiff};
use topology::plan::Sink;

use super::case::{Expected, Row};
use super::prepare::{Prepared, millis, sinks};
use super::values::{canonical, could_be, json, to_json};

/// What a case has shown: nothing, or what differs.
pub(super) type Verdict = Vec<String>;

impl Prepared<'_> {
    /// Runs the case; then once more, with all tasks begun anew after each record, which must make no difference.
    pub(super) fn run(&self) -> Verdict {
        let straight = self.drive(Restarts::None);
        let restarted = self.drive(Restarts::AfterEachRecord);
        let mut verdict = self.judge(&straight);
        if straight != restarted {
            let defect =
                "the results differ when the tasks are restarted after each record: a defect of this program";
            verdict.push(defect.to_owned());
        }
        verdict
    }

    fn drive(&self, restarts: Restarts) -> Observed {
        let mut driver = Driver::new(Arc::clone(&self.plan), self.case.partitions);
        let mut observed = Observed::default();
        for (index, record) in self.inputs.iter().enumerate() {
            match driver.pipe(record.clone()) {
                Ok(driven) => {
                    observed.outputs.extend(driven.outputs);
                    for reason in driven.processed.iter().filter_map(dropped) {
                        *observed.dropped.entry(reason.to_owned()).or_default() += 1;
                    }
                }
                Err(error) => {
                    observed.error = Some((index, error.to_string()));
                    break;
                }
            }
            if restarts == Restarts::AfterEachRecord {
                driver.restart();
            }
        }
        for name in self.case.stores.iter().flat_map(BTreeMap::keys) {
            observed.stores.insert(name.clone(), rows(&driver, name));
        }
        observed
    }

    fn judge(&self, observed: &Observed) -> Verdict {
        let mut verdict = Verdict::new();
        match (&self.case.error, &observed.error) {
            (None, None) => {}
            (Some(part), Some((_, error))) if error.contains(part.as_str()) => {}
            (None, Some((index, error))) => verdict.push(format!("input {index} stopped its task: {error}")),
            (Some(part), Some((index, error))) => {
                verdict.push(format!(
                    "input {index} stopped its task with another error than `{part}`: {error}"
                ));
            }
            (Some(part), None) => verdict.push(format!("no task stopped, wanted an error with `{part}`")),
        }
        verdict.extend(
            self.outputs
                .as_ref()
                .and_then(|wanted| self.outputs(wanted, &observed.outputs)),
        );
        for (name, wanted) in self.case.stores.iter().flatten() {
            let found = observed.stores.get(name).map_or(&[][..], Vec::as_slice);
            verdict.extend(store(name, wanted, found));
        }
        if let Some(wanted) = &self.case.dropped
            && *wanted != observed.dropped
        {
            let text = |counts: &BTreeMap<String, i64>| serde_json::json!(counts).to_string();
            verdict.push(format!(
                "dropped records:\n- {}\n+ {}",
                text(wanted),
                text(&observed.dropped)
            ));
        }
        verdict
    }

    /// What differs, topic by topic.
    fn outputs(&self, wanted: &BTreeMap<String, Vec<&Expected>>, found: &[DriverRecord]) -> Option<String> {
        let mut by_topic = BTreeMap::<String, Vec<&DriverRecord>>::new();
        for record in found {
            by_topic.entry(record.topic.to_string()).or_default().push(record);
        }
        let topics: BTreeSet<_> = wanted.keys().chain(by_topic.keys()).collect();
        let differences: Vec<_> = topics
            .into_iter()
            .filter_map(|topic| {
                let wanted = wanted.get(topic).map_or(&[][..], Vec::as_slice);
                let found = by_topic.get(topic).map_or(&[][..], Vec::as_slice);
                let before = wanted.iter().map(|expected| expected_line(expected));
                let after = found
                    .iter()
                    .enumerate()
                    .map(|(at, record)| self.record_line(record, wanted.get(at).copied()));
                difference(&format!("topic {topic}"), before.collect(), after.collect())
            })
            .collect();
        (!differences.is_empty()).then(|| differences.join("\n"))
    }

    /// As much of a record as is compared: all, where nothing is expected.
    fn record_line(&self, record: &DriverRecord, expected: Option<&Expected>) -> String {
        let Some(sink) = self.sink(record) else {
            return String::new();
        };
        let key = json(&sink.key, record.key.as_deref());
        let value = json(&sink.value, record.value.as_deref());
        let at = expected
            .is_none_or(|expected| !expected.at.is_null())
            .then_some(record.timestamp);
        let is_compared = expected.is_some_and(|expected| expected.headers.is_some());
        let headers = record.headers.iter();
        let text = |value: &Vec<u8>| String::from_utf8_lossy(value).into_owned();
        let headers = headers.map(|(name, value)| (name.clone(), value.as_ref().map(text)));
        line(&key, &value, at, is_compared.then(|| headers.collect()).as_ref())
    }

    /// What has written a record: several pipelines can write one topic, each in its own form.
    fn sink(&self, record: &DriverRecord) -> Option<&Sink> {
        let of_topic = || sinks(&self.plan).filter(|sink| sink.topic == record.topic);
        let fits = |sink: &&Sink| could_be(&sink.value, record.value.as_deref());
        of_topic().find(fits).or_else(|| of_topic().next())
    }
}

type Headers = BTreeMap<String, Option<String>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Restarts {
    None,
    AfterEachRecord,
}

/// What a run of a case did.
#[derive(Default, PartialEq)]
struct Observed {
    outputs: Vec<DriverRecord>,
    stores: BTreeMap<String, Vec<(Json, Json, i64)>>,
    dropped: BTreeMap<String, i64>,
    /// With the input's place in the list.
    error: Option<(usize, String)>,
}

fn dropped(processed: &Processed) -> Option<&'static str> {
    match processed {
        Processed::Done => None,
        Processed::Dropped(reason) => Some(reason.as_str()),
        Processed::Skipped(_) => Some("skipped"),
        Processed::DeadLettered(_) => Some("dead-lettered"),
    }
}

/// Key, value and timestamp of all that a store holds.
fn rows(driver: &Driver, name: &str) -> Vec<(Json, Json, i64)> {
    let Some(DriverStore { spec, rows }) = driver.store(name) else {
        return Vec::new();
    };
    let arena = Bump::new();
    match store_rows(spec, &rows, &arena) {
        Ok(rows) => {
            let json = |row: StoreRow<'_>| {
                let key = to_json(row.key, &spec.row_key());
                (key, to_json(row.value, &spec.value), row.timestamp)
            };
            rows.into_iter().map(json).collect()
        }
        Err(error) => vec![(Json::Null, Json::String(error.to_string()), 0)],
    }
}

fn store(name: &str, wanted: &[Row], found: &[(Json, Json, i64)]) -> Option<String> {
    let before = wanted
        .iter()
        .map(|row| line(&row.key, &row.value, millis(&row.at), None));
    let is_compared = wanted.iter().any(|row| !row.at.is_null());
    let after = found
        .iter()
        .map(|(key, value, at)| line(key, value, is_compared.then_some(*at), None));
    let (mut before, mut after): (Vec<_>, Vec<_>) = (before.collect(), after.collect());
    // Bytes of keys have another order than what people read.
    before.sort();
    after.sort();
    difference(&format!("store {name}"), before, after)
}

fn expected_line(expected: &Expected) -> String {
    line(
        &expected.key,
        &expected.value,
        millis(&expected.at),
        expected.headers.as_ref(),
    )
}

fn line(key: &Json, value: &Json, at: Option<i64>, headers: Option<&Headers>) -> String {
    let mut line = format!("{} -> {}", canonical(key), canonical(value));
    // Writing to a string cannot fail.
    if let Some(at) = at {
        let _ = write!(line, " at {at}");
    }
    if let Some(headers) = headers {
        let _ = write!(line, " with {}", serde_json::json!(headers));
    }
    line
}

/// Lines that are only wanted (`-`), only found (`+`), or both.
fn difference(what: &str, wanted: Vec<String>, found: Vec<String>) -> Option<String> {
    if wanted == found {
        return None;
    }
    let (wanted, found) = (wanted.join("\n"), found.join("\n"));
    let mut text = format!("{what}: (- wanted, + found)");
    for change in TextDiff::from_lines(&wanted, &found).iter_all_changes() {
        let sign = match change.tag() {
            ChangeTag::Delete => '-',
            ChangeTag::Insert => '+',
            ChangeTag::Equal => ' ',
        };
        let _ = write!(text, "\n{sign} {}", change.value().trim_end_matches('\n'));
    }
    Some(text)
}
