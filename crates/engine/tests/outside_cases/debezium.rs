//! Flink's files of change events: each as a topology (`debezium/`) that makes the table again which the events tell of.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value as Json;
use streamapp_engine::Driver;

use super::translation::unkeyed;
use super::{Replayed, translation};

/// The file whose last event is a deletion that does not say of what.
const WITHOUT_ROW: &str = "debezium-postgres-data-replica-identity";
const FILES: [&str; 4] = [
    "canal-data",
    "debezium-postgres-data-schema-exclude",
    WITHOUT_ROW,
    "maxwell-data",
];

/// The name of a file's topology: both files of Debezium have the same events.
fn translated(file: &str) -> &str {
    if file.starts_with("debezium-") {
        "debezium-postgres"
    } else {
        file
    }
}

/// `debezium/<name>.yaml`: reads the topic `changes`, whose records have no keys, and writes the table to `products`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Translation {
    topology: topology::declaration::Topology,
}

/// Replays the files.
///
/// # Panics
/// When a translation is not valid.
pub(super) fn replay(data: &Path) -> Vec<Replayed> {
    let tables = std::fs::read_to_string(data.join("expected-final-tables.json")).unwrap();
    let tables: BTreeMap<String, Vec<Json>> = serde_json::from_str(&tables).unwrap();
    let replayed = FILES.map(|file| {
        let events = std::fs::read_to_string(data.join(format!("{file}.txt"))).unwrap();
        Replayed {
            name: format!("debezium: {file}"),
            result: [false, true].into_iter().try_for_each(|restarts| {
                let wanted = tables.get(&format!("{file}.txt"));
                compare(file, table(file, &events, restarts), wanted)
            }),
            entry: None,
        }
    });
    replayed.into()
}

fn compare(file: &str, found: Result<Vec<Json>, String>, wanted: Option<&Vec<Json>>) -> Result<(), String> {
    match (found, wanted) {
        (Ok(found), Some(wanted)) if found == *wanted => Ok(()),
        (Err(error), None) if file == WITHOUT_ROW => {
            let says = [
                "event 15",
                "record changes/0@15: `value()` is null; at spec.topology.pipelines[0].steps[0]",
            ];
            let says_so = says.iter().all(|part| error.contains(part));
            if says_so { Ok(()) } else { Err(error) }
        }
        (found, wanted) => Err(format!("wanted {wanted:?}, found {found:?}")),
    }
}

/// The rows that are there in the end, by id; with `restarts`, all tasks begin anew from their stores after each event.
fn table(file: &str, events: &str, restarts: bool) -> Result<Vec<Json>, String> {
    let translation: Translation = translation::read("debezium", translated(file));
    let plan = topology::plan(&translation.topology).map_err(|errors| format!("{errors:?}"))?;
    let mut driver = Driver::new(Arc::new(plan), 1);
    let mut rows = BTreeMap::new();
    for (index, event) in events.lines().enumerate() {
        if restarts {
            driver.restart();
        }
        let record = unkeyed("changes", event.into(), i64::try_from(index).unwrap());
        let driven = driver
            .pipe(record)
            .map_err(|error| format!("event {index}: {error}"))?;
        for row in driven.outputs {
            match row.value {
                None => rows.remove(&row.key),
                Some(value) => rows.insert(row.key, serde_json::from_slice::<Json>(&value).unwrap()),
            };
        }
    }
    Ok(rows.into_values().collect())
}
