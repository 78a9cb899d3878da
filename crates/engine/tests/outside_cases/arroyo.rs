//! Arroyo's queries over its own input files, with its golden outputs. What a query is as a topology is in `arroyo/<query>.yaml`, or the
//! reason why there is none.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use streamapp_engine::Driver;
use topology::plan::Plan;

use super::translation::unkeyed;
use super::{Replayed, translation};

/// `arroyo/<query>.yaml`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Translation {
    /// The input file; the topology reads a topic of its name, whose records have no keys.
    #[serde(default)]
    input: Option<Input>,
    /// Records behind the input's, so late that they close every window of the input.
    #[serde(default)]
    flush: Vec<Json>,
    /// The golden file has changes of a table, not rows: what the table holds in the end is compared.
    #[serde(default)]
    table: bool,
    #[serde(default)]
    topology: Option<topology::declaration::Topology>,
    /// Why another result, or none, is right.
    #[serde(default)]
    declined: Option<String>,
    /// What the language cannot say yet.
    #[serde(default)]
    missing: Option<String>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Input {
    Cars,
    Impulse,
    AggregateUpdates,
}

impl Input {
    fn name(self) -> &'static str {
        match self {
            Self::Cars => "cars",
            Self::Impulse => "impulse",
            Self::AggregateUpdates => "aggregate_updates",
        }
    }
}

/// Replays all queries of a directory.
///
/// # Panics
/// When a translation is not valid.
pub(super) fn replay(data: &Path) -> Vec<Replayed> {
    let goldens = std::fs::read_dir(data.join("golden_outputs")).unwrap();
    let mut queries: Vec<_> = goldens.map(|file| file.unwrap().path()).collect();
    queries.sort();
    // For work at one of them.
    let only = std::env::var("ARROYO_QUERY").ok();
    let stem = |file: &Path| file.file_stem().unwrap().to_string_lossy().into_owned();
    let chosen = |file: &&std::path::PathBuf| only.as_ref().is_none_or(|only| *only == stem(file));
    let replayed = queries.iter().filter(chosen).map(|golden| {
        let query = stem(golden);
        let of: Translation = translation::read("arroyo", &query);
        Replayed {
            name: format!("arroyo: {query}"),
            result: result(data, golden, &of),
            entry: translation::entry(&query, of.declined.as_ref(), of.missing.as_ref()),
        }
    });
    replayed.collect()
}

fn result(data: &Path, golden: &Path, translation: &Translation) -> Result<(), String> {
    let (Some(declared), Some(input)) = (&translation.topology, translation.input) else {
        return Err("there is no topology".to_owned());
    };
    let plan = topology::plan(declared).map_err(|errors| format!("{errors:?}"))?;
    let plan = Arc::new(plan);
    let golden = lines(golden);
    let wanted = match translation.table {
        true => last_rows(golden),
        false => golden,
    };
    let input = Records {
        topic: input.name(),
        values: lines(&data.join("inputs").join(format!("{}.json", input.name()))),
        flush: &translation.flush,
    };
    for restarts in [false, true] {
        let found = input.results(&plan, translation.table, restarts)?;
        let (wanted, found) = (in_order(&wanted), in_order(&found));
        if wanted != found {
            let missing: Vec<_> = wanted.iter().filter(|row| !found.contains(row)).take(5).collect();
            let wrong: Vec<_> = found.iter().filter(|row| !wanted.contains(row)).take(5).collect();
            let counts = (wanted.len(), found.len());
            return Err(format!(
                "{} rows wanted, {} found\n    missing, e.g. {missing:?}\n    not wanted, e.g. {wrong:?}",
                counts.0, counts.1
            ));
        }
    }
    Ok(())
}

fn lines(file: &Path) -> Vec<Json> {
    let text = std::fs::read_to_string(file).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What a table holds after changes.
fn last_rows(changes: Vec<Json>) -> Vec<Json> {
    let mut rows = Vec::new();
    for change in changes {
        let at = |rows: &[Json], row: &Json| rows.iter().position(|other| other == row);
        if let Some(at) = Some(&change["before"])
            .filter(|row| !row.is_null())
            .and_then(|row| at(&rows, row))
        {
            rows.swap_remove(at);
        }
        if !change["after"].is_null() {
            rows.push(change["after"].clone());
        }
    }
    rows
}

struct Records<'r> {
    topic: &'static str,
    values: Vec<Json>,
    flush: &'r [Json],
}

impl Records<'_> {
    /// What is written; of a table what it holds in the end. With `restarts`, all tasks begin anew from their stores again and again.
    fn results(&self, plan: &Arc<Plan>, is_table: bool, restarts: bool) -> Result<Vec<Json>, String> {
        let mut driver = Driver::new(Arc::clone(plan), 1);
        let (mut rows, mut table) = (Vec::new(), BTreeMap::new());
        for (index, value) in self.values.iter().chain(self.flush).enumerate() {
            if restarts && index % 7 == 3 {
                driver.restart();
            }
            let record = unkeyed(self.topic, value.to_string().into_bytes(), 0);
            let driven = driver
                .pipe(record)
                .map_err(|error| format!("input {index}: {error}"))?;
            for record in driven.outputs {
                let value = record
                    .value
                    .map(|value| serde_json::from_slice::<Json>(&value).unwrap());
                match value {
                    Some(value) if is_table => drop(table.insert(record.key, value)),
                    Some(value) => rows.push(value),
                    None if is_table => drop(table.remove(&record.key)),
                    None => return Err(format!("input {index}: a deletion, where rows are wanted")),
                }
            }
        }
        rows.extend(table.into_values());
        Ok(rows)
    }
}

/// In one form and order.
fn in_order(rows: &[Json]) -> Vec<String> {
    let mut rows: Vec<_> = rows.iter().map(|row| canonical(row).to_string()).collect();
    rows.sort();
    rows
}

/// Without nulls, which are absent; times without a zone, which is UTC; numbers by value.
fn canonical(value: &Json) -> Json {
    match value {
        Json::Object(fields) => {
            let there = fields.iter().filter(|(_, value)| !value.is_null());
            let fields: Map<_, _> = there
                .map(|(name, value)| (name.clone(), canonical(value)))
                .collect();
            Json::Object(fields)
        }
        Json::Array(items) => items.iter().map(canonical).collect(),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => json!(whole.to_string()),
            None => json!(number.as_f64().unwrap_or_default().to_string()),
        },
        Json::String(text) if text.as_bytes().get(10) == Some(&b'T') => {
            let time = text.trim_end_matches('Z').trim_end_matches("+00:00");
            let (time, decimals) = time.split_once('.').unwrap_or((time, ""));
            json!(format!("{time}.{}", decimals.trim_end_matches('0')))
        }
        Json::String(_) | Json::Bool(_) | Json::Null => value.clone(),
    }
}
