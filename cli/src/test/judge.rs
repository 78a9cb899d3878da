//! Runs one case and says what differs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use bumpalo::Bump;
use engine::{Driver, DriverRecord, DriverStore, Processed, row};
use serde_json::Value as Json;
use similar::{ChangeTag, TextDiff};
use topology::plan::{Plan, Sink, Source, TopicName};
use topology::{Path, did_you_mean};

use super::case::{Case, Expected, Input, Row};
use super::values::{bytes, canonical, json, to_json};

/// Something in the file that the topology does not have: path, message, suggestion.
pub(super) type Misfit = (Path, String, Option<String>);

/// A case, in the topology's terms.
pub(super) struct Prepared<'c> {
    case: &'c Case,
    plan: Arc<Plan>,
    inputs: Vec<DriverRecord>,
    /// By topic.
    outputs: Option<BTreeMap<String, Vec<&'c Expected>>>,
}

/// What a case has shown: nothing, or what differs.
pub(super) type Verdict = Vec<String>;

impl<'c> Prepared<'c> {
    /// Looks up what the case names.
    ///
    /// # Errors
    /// All that the topology does not have.
    pub(super) fn new(case: &'c Case, path: &Path, plan: &Arc<Plan>) -> Result<Self, Vec<Misfit>> {
        let mut misfits = Vec::new();
        let driver = Driver::new(Arc::clone(plan), case.partitions);
        let (mut inputs, mut at) = (Vec::new(), 0);
        for (index, declared) in case.inputs.iter().enumerate() {
            let path = path.field("inputs").index(index);
            match input(declared, &path, plan, &driver, at) {
                Ok(record) => {
                    at = record.timestamp;
                    inputs.push(record);
                }
                Err(misfit) => misfits.push(misfit),
            }
        }
        let outputs = case.outputs.as_ref().map(|declared| {
            let mut outputs = BTreeMap::<_, Vec<_>>::new();
            for (index, expected) in declared.iter().enumerate() {
                let path = path.field("outputs").index(index);
                match topic(expected, &path, plan) {
                    Ok(topic) => outputs.entry(topic).or_default().push(expected),
                    Err(misfit) => misfits.push(misfit),
                }
                misfits.extend(time(&expected.at, &path.field("at")).err());
            }
            outputs
        });
        for (name, rows) in case.stores.iter().flatten() {
            let path = path.field("stores").field(name);
            if driver.store(name).is_none() {
                let stores = plan.sub_topologies.iter().flat_map(|sub| &sub.stores);
                let stores: Vec<_> = stores.map(|store| store.name.as_str()).collect();
                let suggestion = did_you_mean(name, "stores", &stores);
                misfits.push((path.clone(), format!("unknown store `{name}`"), suggestion));
            }
            for (index, row) in rows.iter().enumerate() {
                misfits.extend(time(&row.at, &path.index(index).field("at")).err());
            }
        }
        if case.outputs.is_none() && case.stores.is_none() && case.dropped.is_none() && case.error.is_none() {
            let message = "the case expects nothing, so it cannot fail".to_owned();
            let suggestion =
                "add `outputs`, `stores`, `dropped` or `error`; `outputs: []` says that nothing is written";
            misfits.push((path.clone(), message, Some(suggestion.to_owned())));
        }
        if misfits.is_empty() {
            Ok(Self {
                case,
                plan: Arc::clone(plan),
                inputs,
                outputs,
            })
        } else {
            Err(misfits)
        }
    }

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
        let mut sinks = sinks(&self.plan);
        let Some(sink) = sinks.find(|sink| sink.topic == record.topic) else {
            return String::new();
        };
        let key = json(&sink.key, record.key.as_deref());
        let value = json(&sink.value, record.value.as_deref());
        let at = expected
            .is_none_or(|expected| !expected.at.is_null())
            .then_some(record.timestamp);
        let is_compared = expected.is_some_and(|expected| expected.headers.is_some());
        let headers = record.headers.iter();
        let headers =
            headers.map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into_owned()));
        line(&key, &value, at, is_compared.then(|| headers.collect()).as_ref())
    }
}

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

/// Key, value and timestamp of all rows of a store, in the order of keys.
fn rows(driver: &Driver, name: &str) -> Vec<(Json, Json, i64)> {
    let Some(DriverStore { spec, values }) = driver.store(name) else {
        return Vec::new();
    };
    let arena = Bump::new();
    let rows = values.iter().map(|(key, stored)| {
        let key = json(&spec.key, Some(key));
        match row::decode_timestamped(&spec.value, stored, &arena) {
            Ok((timestamp, value)) => (key, to_json(value, &spec.value), timestamp),
            Err(error) => (key, Json::String(error.to_string()), 0),
        }
    });
    rows.collect()
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

fn line(key: &Json, value: &Json, at: Option<i64>, headers: Option<&BTreeMap<String, String>>) -> String {
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

fn sinks(plan: &Plan) -> impl Iterator<Item = &Sink> {
    plan.sub_topologies.iter().flat_map(|sub| &sub.sinks)
}

fn input(
    declared: &Input,
    path: &Path,
    plan: &Plan,
    driver: &Driver,
    before: i64,
) -> Result<DriverRecord, Misfit> {
    let source = source(declared.stream.as_deref(), path, plan)?;
    let encode = |format, value, field: &str| {
        bytes(format, value).map_err(|message| (path.field(field), message, None))
    };
    let key = encode(&source.key, &declared.key, "key")?;
    let value = match &declared.raw {
        Some(raw) => Some(raw.clone().into_bytes()),
        None => encode(&source.value, &declared.value, "value")?,
    };
    Ok(DriverRecord {
        topic: source.topic.clone(),
        partition: declared
            .partition
            .unwrap_or_else(|| driver.partition(key.as_deref())),
        key,
        value,
        headers: Vec::new(),
        timestamp: time(&declared.at, &path.field("at"))?.unwrap_or(before),
    })
}

/// The stream of that name, or the only one.
fn source<'p>(name: Option<&str>, path: &Path, plan: &'p Plan) -> Result<&'p Source, Misfit> {
    let sources = plan.sub_topologies.iter().map(|sub| &sub.source);
    let streams: Vec<_> = sources
        .filter(|source| matches!(source.topic, TopicName::External(_)))
        .collect();
    let names: Vec<_> = streams.iter().map(|source| source.name.as_str()).collect();
    let found = match (name, streams.as_slice()) {
        (None, [only]) => Some(*only),
        (None, _) => {
            let message = format!("`stream` is needed: there are {}", names.join(", "));
            return Err((path.clone(), message, None));
        }
        (Some(name), _) => streams.iter().find(|source| source.name == name).copied(),
    };
    let name = name.unwrap_or_default();
    found.ok_or_else(|| {
        let suggestion = did_you_mean(name, "streams", &names);
        (
            path.field("stream"),
            format!("unknown stream `{name}`"),
            suggestion,
        )
    })
}

/// The topic of an expected record, or the only one.
fn topic(expected: &Expected, path: &Path, plan: &Plan) -> Result<String, Misfit> {
    let topics: BTreeSet<_> = sinks(plan)
        .filter(|sink| matches!(sink.topic, TopicName::External(_)))
        .map(|sink| sink.topic.to_string())
        .collect();
    let names: Vec<_> = topics.iter().map(String::as_str).collect();
    match (&expected.topic, names.as_slice()) {
        (None, [only]) => Ok((*only).to_owned()),
        (None, _) => {
            let message = format!("`topic` is needed: there are {}", names.join(", "));
            Err((path.clone(), message, None))
        }
        (Some(name), _) if topics.contains(name) => Ok(name.clone()),
        (Some(name), _) => {
            let suggestion = did_you_mean(name, "topics", &names);
            Err((
                path.field("topic"),
                format!("nothing writes topic `{name}`"),
                suggestion,
            ))
        }
    }
}

/// Milliseconds since the Unix epoch; nothing for null.
fn time(at: &Json, path: &Path) -> Result<Option<i64>, Misfit> {
    match millis(at) {
        None if !at.is_null() => {
            let message = format!("`at` is RFC 3339, or milliseconds since the Unix epoch, not `{at}`");
            Err((
                path.clone(),
                message,
                Some("write `2026-01-31T12:00:00Z`".to_owned()),
            ))
        }
        millis => Ok(millis),
    }
}

fn millis(at: &Json) -> Option<i64> {
    let timestamp = at.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    timestamp
        .map(jiff::Timestamp::as_millisecond)
        .or_else(|| at.as_i64())
}
