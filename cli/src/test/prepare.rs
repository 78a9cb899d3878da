//! What a case names, looked up in the topology.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::{Driver, DriverRecord};
use serde_json::Value as Json;
use topology::plan::{Plan, Sink, Source, TopicName};
use topology::{Path, did_you_mean};

use super::case::{Case, Expected, Input};
use super::values::bytes;

/// Something in the file that the topology does not have: path, message, suggestion.
pub(super) type Misfit = (Path, String, Option<String>);

/// A case, in the topology's terms.
pub(super) struct Prepared<'c> {
    pub(super) case: &'c Case,
    pub(super) plan: Arc<Plan>,
    pub(super) inputs: Vec<DriverRecord>,
    /// By topic.
    pub(super) outputs: Option<BTreeMap<String, Vec<&'c Expected>>>,
}

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
                match topic(expected.topic.as_deref(), &path, plan) {
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
}

/// Of all sub-topologies.
pub(super) fn sinks(plan: &Plan) -> impl Iterator<Item = &Sink> {
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
        Some(_) if !declared.value.is_null() => {
            let message = "the record has `value` and `raw`: one of them is its value".to_owned();
            return Err((path.field("raw"), message, None));
        }
        Some(raw) => Some(raw.clone().into_bytes()),
        None => encode(&source.value, &declared.value, "value")?,
    };
    let partition = declared
        .partition
        .unwrap_or_else(|| driver.partition(key.as_deref()));
    if !driver.has_partition(partition) {
        let message = format!("there is no partition {partition}");
        let suggestion = "say how many there are in `partitions` of the case; they count from 0";
        return Err((path.field("partition"), message, Some(suggestion.to_owned())));
    }
    let headers = declared.headers.iter().map(|(name, value)| {
        let value = value.as_ref().map(|value| value.clone().into_bytes());
        (name.clone(), value)
    });
    Ok(DriverRecord {
        topic: source.topic.clone(),
        partition,
        key,
        value,
        headers: headers.collect(),
        timestamp: time(&declared.at, &path.field("at"))?.unwrap_or(before),
    })
}

/// The stream of that name, or the only one.
fn source<'p>(name: Option<&str>, path: &Path, plan: &'p Plan) -> Result<&'p Source, Misfit> {
    let sources = plan.sub_topologies.iter().flat_map(|sub| &sub.sources);
    let streams = sources.filter(|source| matches!(source.topic, TopicName::External(_)));
    let streams = streams.map(|source| (source.name.clone(), source)).collect();
    chosen(name, ("stream", "unknown stream"), path, &streams).copied()
}

/// The topic of an expected record, or the only one.
fn topic(name: Option<&str>, path: &Path, plan: &Plan) -> Result<String, Misfit> {
    let topics = sinks(plan).map(|sink| &sink.topic);
    let topics = topics.filter(|topic| matches!(topic, TopicName::External(_)));
    let topics = topics
        .map(|topic| (topic.to_string(), topic.to_string()))
        .collect();
    chosen(name, ("topic", "nothing writes topic"), path, &topics).cloned()
}

/// What the field called `what` names, or the only one that there is. An unknown name's error begins with `unknown`.
fn chosen<'t, T>(
    name: Option<&str>,
    (what, unknown): (&str, &str),
    path: &Path,
    all: &'t BTreeMap<String, T>,
) -> Result<&'t T, Misfit> {
    let names: Vec<_> = all.keys().map(String::as_str).collect();
    match (name, names.as_slice()) {
        (None, [only]) => Ok(&all[*only]),
        (None, _) => {
            let message = format!("`{what}` is needed: there are {}", names.join(", "));
            Err((path.clone(), message, None))
        }
        (Some(name), _) => all.get(name).ok_or_else(|| {
            let suggestion = did_you_mean(name, &format!("{what}s"), &names);
            (path.field(what), format!("{unknown} `{name}`"), suggestion)
        }),
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

/// The time that a file gives, if it does.
pub(super) fn millis(at: &Json) -> Option<i64> {
    let timestamp = at.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    timestamp
        .map(jiff::Timestamp::as_millisecond)
        .or_else(|| at.as_i64())
}
