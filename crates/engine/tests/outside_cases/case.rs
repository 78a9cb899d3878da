//! A case: topology, inputs, what must have come out behind which input.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bumpalo::Bump;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use streamapp_engine::{Driver, DriverRecord, Processed, decode, store_rows};
use topology::Value;
use topology::plan::{Format, Plan, Sink, TopicName};

use super::translate::declaration;

#[derive(Deserialize)]
pub(super) struct Case {
    #[serde(rename = "case")]
    pub(super) name: String,
    source: Json,
    topology: Json,
    compare: String,
    inputs: Vec<Input>,
    expected_per_input: Vec<Option<Vec<Expected>>>,
    restart_before_input_index: Option<usize>,
    expected_dropped: Option<usize>,
    dropped_input_index: Option<usize>,
}

/// What a replay has shown.
#[derive(PartialEq)]
struct Observed {
    /// What had come out by then, for each input with an expectation.
    outputs: Vec<Vec<Json>>,
    /// Inputs that an operator has dropped.
    dropped: Vec<usize>,
    /// What the stores hold in the end.
    stored: Vec<Json>,
}

#[derive(Deserialize)]
struct Input {
    topic: String,
    key: Json,
    value: Json,
    timestamp: Option<i64>,
    window: Option<Window>,
}

/// A record; what it does not have is not compared.
#[derive(Clone, Debug, Deserialize)]
struct Expected {
    topic: Option<String>,
    key: Json,
    value: Json,
    timestamp: Option<i64>,
    window: Option<Window>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Window {
    start: i64,
    end: i64,
}

impl Case {
    /// The class that it is from.
    pub(super) fn class(&self) -> Option<&str> {
        let file = self.source["path"].as_str()?.rsplit('/').next()?;
        file.strip_suffix(".java")
    }

    /// Replays it.
    ///
    /// # Errors
    /// What differs, or why the language cannot say it.
    pub(super) fn replay(&self) -> Result<(), String> {
        let declaration = declaration(&self.topology)?;
        let declared = serde_json::from_value(declaration).map_err(|error| error.to_string())?;
        let plan = topology::plan(&declared).map_err(|errors| format!("{errors:?}"))?;
        let plan = Arc::new(plan);
        let straight = self.observe(&plan, false)?;
        if self.observe(&plan, true)? != straight {
            return Err("begun anew after each record, the results differ".to_owned());
        }
        self.compare(&straight)
    }

    fn observe(&self, plan: &Arc<Plan>, restarts: bool) -> Result<Observed, String> {
        let mut driver = Driver::new(Arc::clone(plan), 1);
        let (mut outputs, mut since, mut at, mut dropped) = (Vec::new(), Vec::new(), 0, Vec::new());
        for (index, (input, expected)) in self.inputs.iter().zip(&self.expected_per_input).enumerate() {
            if restarts || self.restart_before_input_index == Some(index) {
                driver.restart();
            }
            at = input.timestamp.unwrap_or(at);
            let driven = driver
                .pipe(input.record(plan, at)?)
                .map_err(|error| format!("input {index}: {error}"))?;
            since.extend(driven.outputs.iter().map(|record| output(plan, record)));
            if expected.is_some() {
                outputs.push(std::mem::take(&mut since));
            }
            let is_drop = |processed: &Processed| matches!(processed, Processed::Dropped(_));
            dropped.extend(driven.processed.iter().any(is_drop).then_some(index));
        }
        let mut stored = Vec::new();
        for spec in plan.sub_topologies.iter().flat_map(|sub| &sub.stores) {
            let (store, arena) = (driver.store(&spec.name).unwrap(), Bump::new());
            let rows = store_rows(spec, &store.rows, &arena).map_err(|error| error.to_string())?;
            stored.extend(rows.iter().map(|row| {
                let (key, window) = windowed(row.key);
                json!({"topic": null, "key": key, "window": window, "value": scalar(row.value), "at": null})
            }));
        }
        Ok(Observed {
            outputs,
            dropped,
            stored,
        })
    }

    fn compare(&self, observed: &Observed) -> Result<(), String> {
        let found = &observed.outputs;
        let all = || self.expected_per_input.iter().flatten().flatten();
        let topics: BTreeSet<_> = all().map(|record| &record.topic).collect();
        let record = |record: &Expected| record.record(topics.len() > 1);
        let wanted: Vec<_> = self.expected_per_input.iter().flatten().collect();
        // Elsewhere windows are counted, here records.
        if self.compare == "dropped_only" {
            let wanted = (self.expected_dropped, self.dropped_input_index);
            let found = (Some(observed.dropped.len()), observed.dropped.first().copied());
            return if wanted == found {
                Ok(())
            } else {
                Err(format!("dropped {found:?}, not {wanted:?}"))
            };
        }
        if self.compare == "store_content" {
            let wanted: Vec<_> = wanted.last().unwrap().iter().map(record).collect();
            let found = &observed.stored;
            return if wanted == *found {
                Ok(())
            } else {
                Err(format!("stored {found:?}, not {wanted:?}"))
            };
        }
        let shown = |list: &[Json]| {
            list.iter()
                .map(Json::to_string)
                .collect::<Vec<_>>()
                .join("\n      ")
        };
        if self.compare == "exact" {
            for (wanted, found) in wanted.iter().zip(found) {
                let (wanted, found) = (
                    by_topic(wanted.iter().map(record)),
                    by_topic(found.iter().cloned()),
                );
                if wanted != found {
                    let text = |by_topic: BTreeMap<String, Vec<Json>>| {
                        by_topic
                            .values()
                            .map(|list| shown(list))
                            .collect::<Vec<_>>()
                            .join("\n      ")
                    };
                    return Err(format!(
                        "wanted\n      {}\n    found\n      {}",
                        text(wanted),
                        text(found)
                    ));
                }
            }
            return Ok(());
        }
        if self.compare == "last_value_per_key" {
            for (wanted, found) in wanted.iter().zip(found) {
                let (wanted, found) = (
                    last_values(wanted.iter().map(record)),
                    last_values(found.iter().cloned()),
                );
                if wanted != found {
                    return Err(format!("wanted {wanted:?}, found {found:?}"));
                }
            }
            return Ok(());
        }
        let wanted = wanted.iter().flat_map(|list| list.iter().map(record));
        let (wanted, found) = (by_window(wanted), by_window(found.iter().flatten().cloned()));
        let reduce = |mut list: Vec<Json>| -> Result<Vec<Json>, String> {
            match &*self.compare {
                "exact_order_per_window" => {}
                "set_per_window" => {
                    list.sort_by_key(Json::to_string);
                    list.dedup();
                }
                "last_value_per_window" => list = list.pop().into_iter().collect(),
                other => return Err(format!("{other} is not compared")),
            }
            Ok(list)
        };
        for (window, list) in &wanted {
            let found = reduce(found.get(window).cloned().unwrap_or_default())?;
            let wanted = reduce(list.clone())?;
            if wanted != found {
                return Err(format!(
                    "wanted\n      {}\n    found\n      {}",
                    shown(&wanted),
                    shown(&found)
                ));
            }
        }
        // Windows that became part of another one end with a null, and are not in the list.
        let is_gone = |list: &Vec<Json>| {
            self.compare == "last_value_per_window" && list.last().is_some_and(|last| last["value"].is_null())
        };
        let mut others = found
            .iter()
            .filter(|(window, list)| !wanted.contains_key(*window) && !is_gone(list));
        match others.next().map(|(window, _)| window) {
            Some(window) => Err(format!("nothing wanted of {window}, found {:?}", found[window])),
            None => Ok(()),
        }
    }
}

fn by_topic(records: impl Iterator<Item = Json>) -> BTreeMap<String, Vec<Json>> {
    let mut by_topic = BTreeMap::<_, Vec<_>>::new();
    for record in records {
        by_topic
            .entry(record["topic"].to_string())
            .or_default()
            .push(record);
    }
    by_topic
}

/// The last value of each topic and key.
fn last_values(records: impl Iterator<Item = Json>) -> BTreeMap<String, Json> {
    records
        .map(|record| {
            (
                format!("{} {}", record["topic"], record["key"]),
                record["value"].clone(),
            )
        })
        .collect()
}

fn by_window(records: impl Iterator<Item = Json>) -> BTreeMap<String, Vec<Json>> {
    let mut by_window = BTreeMap::<_, Vec<_>>::new();
    for record in records {
        let window = format!("{} {}", record["key"], record["window"]);
        by_window.entry(window).or_default().push(record);
    }
    by_window
}

impl Expected {
    /// As [`output`] has it.
    fn record(&self, has_topic: bool) -> Json {
        let window = self.window.as_ref();
        json!({
            "topic": self.topic.as_ref().filter(|_| has_topic),
            "key": self.key,
            "window": window.map(|window| [window.start, window.end]),
            "value": self.value,
            "at": self.timestamp,
        })
    }
}

impl Input {
    fn record(&self, plan: &Plan, timestamp: i64) -> Result<DriverRecord, String> {
        if let Some(window) = &self.window {
            return Err(format!("no topic with keys in windows, as {window:?}"));
        }
        let sources = plan.sub_topologies.iter().flat_map(|sub| &sub.sources);
        let topic = TopicName::External(self.topic.clone());
        let source = sources.into_iter().find(|source| source.topic == topic);
        let source = source.ok_or_else(|| format!("nothing reads {}", self.topic))?;
        Ok(DriverRecord {
            topic,
            partition: 0,
            key: bytes(&source.key, &self.key)?,
            value: bytes(&source.value, &self.value)?,
            headers: Vec::new(),
            timestamp,
        })
    }
}

fn bytes(format: &Format, value: &Json) -> Result<Option<Vec<u8>>, String> {
    match (format, value) {
        (_, Json::Null) => Ok(None),
        (Format::String, Json::String(text)) => Ok(Some(text.clone().into_bytes())),
        (Format::Long, value) if value.is_i64() => {
            Ok(value.as_i64().map(|value| value.to_be_bytes().to_vec()))
        }
        (format, value) => Err(format!("{value} is no {format:?}")),
    }
}

/// A result as JSON; its topic only where there are several.
fn output(plan: &Plan, record: &DriverRecord) -> Json {
    let sinks: Vec<&Sink> = plan
        .sub_topologies
        .iter()
        .flat_map(|sub| &sub.sinks)
        .filter(|sink| matches!(sink.topic, TopicName::External(_)))
        .collect();
    let sink = sinks.iter().find(|sink| sink.topic == record.topic).unwrap();
    let arena = Bump::new();
    let decoded = |format, bytes: &Option<Vec<u8>>| {
        decode(
            format,
            bytes.as_deref().map(|bytes| &*arena.alloc_slice_copy(bytes)),
            &arena,
        )
        .unwrap()
    };
    let (key, window) = windowed(decoded(&sink.key, &record.key));
    json!({
        "topic": (sinks.len() > 1).then(|| record.topic.to_string()),
        "key": key,
        "window": window,
        "value": scalar(decoded(&sink.value, &record.value)),
        "at": record.timestamp,
    })
}

/// A key, and the window where it has one.
fn windowed(key: Value<'_>) -> (Json, Json) {
    match key {
        Value::Struct([key, Value::Timestamp(start), Value::Timestamp(end)]) => {
            (scalar(*key), json!([start, end]))
        }
        key => (scalar(key), Json::Null),
    }
}

fn scalar(value: Value<'_>) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::String(text) => json!(text),
        Value::Int(number) => json!(number),
        Value::Bool(yes) => json!(yes),
        Value::Struct(fields) => fields.iter().map(|field| scalar(*field)).collect(),
        other => panic!("{other:?}"),
    }
}
