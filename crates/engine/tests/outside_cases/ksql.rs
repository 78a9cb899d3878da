//! ksql's query validation tests. Their statements are SQL; what they are as a topology is in `ksql/<file>.yaml`, or the reason why
//! there is none.
//!
//! Values are replayed as JSON, whatever format a case has: the columns of a value that is one line of text are named where the topology
//! is. Cases of several formats count once.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use bumpalo::Bump;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use streamapp_engine::{Driver, DriverRecord, decode};
use topology::plan::{Format, Plan, Source, TopicName};
use topology::{StructType, Type, Value};

use super::{Replayed, translation};

/// `ksql/<file>.yaml`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Translations {
    cases: Vec<Translation>,
}

/// What cases are in this language.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Translation {
    /// Their names.
    cases: Vec<String>,
    /// By topic, the columns of values that are lines of text, in order.
    #[serde(default)]
    columns: BTreeMap<String, Vec<String>>,
    /// Of a statement that must be refused: part of the message that says why the topology is.
    #[serde(default)]
    refused: Option<String>,
    /// Without one the language cannot say it.
    #[serde(default)]
    topology: Option<topology::declaration::Topology>,
    /// Why another result, or none, is right.
    #[serde(default)]
    declined: Option<String>,
    /// What the language cannot say yet.
    #[serde(default)]
    missing: Option<String>,
}

#[derive(Deserialize)]
struct File {
    tests: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    name: String,
    inputs: Vec<Record>,
    outputs: Vec<Record>,
    expected_exception: Option<Json>,
}

#[derive(Deserialize)]
struct Record {
    topic: String,
    key: Json,
    value: Json,
    timestamp: i64,
    window: Option<Window>,
}

#[derive(Clone, Deserialize)]
struct Window {
    start: i64,
    end: i64,
}

/// Replays all cases of a directory.
///
/// # Panics
/// When a translation is not valid, or stands for no case.
pub(super) fn replay(data: &Path) -> Vec<Replayed> {
    let mut files: Vec<_> = std::fs::read_dir(data)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    // For work at one of them.
    let only = std::env::var("KSQL_FILE").ok();
    let stem = |file: &Path| file.file_stem().unwrap().to_string_lossy().into_owned();
    let chosen = |file: &&std::path::PathBuf| only.as_ref().is_none_or(|only| *only == stem(file));
    files
        .iter()
        .filter(chosen)
        .flat_map(|file| replay_file(file, &stem(file)))
        .collect()
}

fn replay_file(file: &Path, stem: &str) -> Vec<Replayed> {
    let cases: File = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let translations: Translations = translation::read("ksql", stem);
    // Of equal names each is one case.
    let mut by_name = BTreeMap::<_, VecDeque<_>>::new();
    for translation in &translations.cases {
        for name in &translation.cases {
            by_name.entry(name.as_str()).or_default().push_back(translation);
        }
    }
    let replayed = cases.tests.iter().map(|case| {
        let translation = by_name.get_mut(case.name.as_str()).and_then(VecDeque::pop_front);
        let name = format!("ksql: {stem}: {}", case.name);
        let result = translation.map(|translation| case.replay(translation));
        Replayed {
            result: result.unwrap_or_else(|| Err("there is no translation".to_owned())),
            entry: translation
                .and_then(|of| translation::entry(&name, of.declined.as_ref(), of.missing.as_ref())),
            name,
        }
    });
    let replayed = replayed.collect();
    by_name.retain(|_, left| !left.is_empty());
    assert!(by_name.is_empty(), "{stem}: no such cases: {:?}", by_name.keys());
    replayed
}

impl Case {
    fn replay(&self, translation: &Translation) -> Result<(), String> {
        let Some(declared) = &translation.topology else {
            return Err("there is no topology".to_owned());
        };
        let plan = match (topology::plan(declared), &self.expected_exception) {
            (Ok(plan), None) => Arc::new(plan),
            (Err(errors), Some(_)) => {
                let errors = format!("{errors:?}");
                let is_why = |part: &String| errors.contains(part);
                return match translation.refused.as_ref().is_some_and(is_why) {
                    true => Ok(()),
                    false => Err(format!("refused because of {errors}")),
                };
            }
            (Ok(_), Some(_)) => return Err("it is not refused".to_owned()),
            (Err(errors), None) => {
                let errors: Vec<_> = errors.iter().map(|error| format!("{error:?}")).collect();
                return Err(errors.join("\n    "));
            }
        };
        let columns = &translation.columns;
        let found = self.observe(&plan, columns, false)?;
        if self.observe(&plan, columns, true)? != found {
            return Err("begun anew after each record, the results differ".to_owned());
        }
        let wanted = self.outputs.iter().map(|record| record.wanted(columns));
        let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
        if wanted == found {
            return Ok(());
        }
        let shown = |list: &[Json]| {
            let lines: Vec<_> = list.iter().map(Json::to_string).collect();
            lines.join("\n      ")
        };
        Err(format!(
            "wanted\n      {}\n    found\n      {}",
            shown(&wanted),
            shown(&found)
        ))
    }

    fn observe(
        &self,
        plan: &Arc<Plan>,
        columns: &BTreeMap<String, Vec<String>>,
        restarts: bool,
    ) -> Result<Vec<Json>, String> {
        let mut driver = Driver::new(Arc::clone(plan), 1);
        let mut found = Vec::new();
        for (index, input) in self.inputs.iter().enumerate() {
            if restarts {
                driver.restart();
            }
            let driven = input
                .driven(plan, columns)
                .and_then(|record| driver.pipe(record).map_err(|error| error.to_string()));
            let driven = driven.map_err(|error| format!("input {index}: {error}"))?;
            found.extend(driven.outputs.iter().map(|record| output(plan, record, columns)));
        }
        Ok(found)
    }
}

impl Record {
    fn driven(&self, plan: &Plan, columns: &BTreeMap<String, Vec<String>>) -> Result<DriverRecord, String> {
        if self.window.is_some() {
            return Err("no topic has keys in windows".to_owned());
        }
        let topic = TopicName::External(self.topic.clone());
        let mut sources = plan.sub_topologies.iter().flat_map(|sub| &sub.sources);
        let source = sources.find(|source| source.topic == topic);
        let source = source.ok_or_else(|| format!("nothing reads {}", self.topic))?;
        Ok(DriverRecord {
            topic,
            partition: 0,
            key: key(&self.key).map(String::into_bytes),
            value: self.value_for(source, columns)?,
            headers: Vec::new(),
            timestamp: self.timestamp,
        })
    }

    fn value_for(
        &self,
        source: &Source,
        columns: &BTreeMap<String, Vec<String>>,
    ) -> Result<Option<Vec<u8>>, String> {
        let value = match (&self.value, &source.value) {
            (Json::Null, _) => return Ok(None),
            (Json::String(line), Format::Json(ty)) => {
                let columns = columns
                    .get(&self.topic)
                    .ok_or_else(|| format!("no columns of {}", self.topic))?;
                let cells = cells(line, columns)?;
                let cells = cells.filter_map(|(name, text)| Some((name.clone(), cell(text, ty, name)?)));
                Json::Object(cells.collect())
            }
            (Json::String(text), Format::String) => return Ok(Some(text.clone().into_bytes())),
            (value, _) => value.clone(),
        };
        Ok(Some(value.to_string().into_bytes()))
    }

    /// As [`output`] has it.
    fn wanted(&self, columns: &BTreeMap<String, Vec<String>>) -> Result<Json, String> {
        let value = match &self.value {
            Json::String(text) if text == "null" => Json::Null,
            Json::String(line) => match columns.get(&self.topic) {
                Some(columns) => {
                    let cells = cells(line, columns)?.filter(|(_, text)| !text.is_empty());
                    Json::Object(cells.map(|(name, text)| (name.clone(), json!(text))).collect())
                }
                None => json!(line),
            },
            value => value.clone(),
        };
        Ok(json!({
            "topic": self.topic,
            "key": key(&self.key),
            "window": self.window.as_ref().map(|window| [window.start, window.end]),
            "value": canonical(&value, columns.contains_key(&self.topic)),
            "at": self.timestamp,
        }))
    }
}

/// The cells of a line by column.
fn cells<'l>(
    line: &'l str,
    columns: &'l [String],
) -> Result<impl Iterator<Item = (&'l String, &'l str)>, String> {
    if line.split(',').count() != columns.len() {
        return Err(format!("`{line}` has not the columns {columns:?}"));
    }
    Ok(columns.iter().zip(line.split(',')))
}

/// Keys are text; a number stands for its digits.
fn key(key: &Json) -> Option<String> {
    match key {
        Json::Null => None,
        Json::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// A column's value, by the field's type; none where there is no such field, or no text.
fn cell(text: &str, ty: &StructType, name: &str) -> Option<Json> {
    let (_, field) = ty.field(name)?;
    match &field.ty {
        Type::String => Some(json!(text)),
        _ if text.is_empty() => None,
        Type::Optional(inner) if **inner == Type::String => Some(json!(text)),
        _ => serde_json::from_str(text).ok().or_else(|| Some(json!(text))),
    }
}

/// Without nulls, which are absent; numbers by value. Of a line, which has no types, all scalars as text.
fn canonical(value: &Json, is_line: bool) -> Json {
    match value {
        Json::Object(fields) => {
            let there = fields.iter().filter(|(_, value)| !value.is_null());
            let fields: Map<_, _> = there
                .map(|(name, value)| (name.to_uppercase(), canonical(value, is_line)))
                .collect();
            Json::Object(fields)
        }
        Json::Array(items) => items.iter().map(|item| canonical(item, is_line)).collect(),
        Json::Number(number) if is_line => json!(number_or_text(&number.to_string())),
        Json::Number(number) => json!([number_or_text(&number.to_string())]),
        Json::Bool(yes) if is_line => json!(yes.to_string()),
        Json::String(text) if is_line => json!(number_or_text(text)),
        Json::Bool(_) | Json::String(_) | Json::Null => value.clone(),
    }
}

/// A number in one form: a whole one with all its digits and no others.
fn number_or_text(text: &str) -> String {
    match (text.parse::<i64>(), text.parse::<f64>()) {
        (Ok(whole), _) => whole.to_string(),
        (Err(_), Ok(number)) => number.to_string(),
        (Err(_), Err(_)) => text.to_owned(),
    }
}

fn output(plan: &Plan, record: &DriverRecord, columns: &BTreeMap<String, Vec<String>>) -> Json {
    let mut sinks = plan.sub_topologies.iter().flat_map(|sub| &sub.sinks);
    let sink = sinks.find(|sink| sink.topic == record.topic).unwrap();
    let arena = Bump::new();
    let decoded = |format, bytes| decode(format, bytes, &arena).unwrap();
    let (key, window) = match decoded(&sink.key, record.key.as_deref()) {
        Value::Struct([key, Value::Timestamp(start), Value::Timestamp(end)]) => (*key, json!([start, end])),
        key => (key, Json::Null),
    };
    let value = match (&sink.value, record.value.as_deref()) {
        (_, None) => Json::Null,
        (Format::Json(_), Some(bytes)) => serde_json::from_slice(bytes).unwrap(),
        (format, bytes) => text(decoded(format, bytes)),
    };
    json!({
        "topic": record.topic.to_string(),
        "key": text(key),
        "window": window,
        "value": canonical(&value, columns.contains_key(&record.topic.to_string())),
        "at": record.timestamp,
    })
}

fn text(value: Value<'_>) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::String(text) => json!(text),
        Value::Int(number) => json!(number.to_string()),
        Value::Double(number) => json!(number.to_string()),
        Value::Bool(yes) => json!(yes.to_string()),
        other => panic!("{other:?}"),
    }
}
