//! Cases of other products, replayed in memory: what Kafka Streams' own tests expect of its operators, ksql's of its statements,
//! Arroyo's of its queries, and what Flink's files of change events tell of a table. Each passes or stands in a ledger
//! (`ledger.txt`, `ksql/`, `arroyo/`), as declined (the language differs on purpose) or as missing (it cannot say that yet).
//!
//! The cases lie outside of the repository, in `$STREAMAPP_TESTDATA` or beside it; without them this is skipped. Every case is
//! replayed twice, the second time with all tasks begun anew from their stores after each record.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test"
)]

mod arroyo;
mod case;
mod debezium;
mod ksql;
mod translate;
mod translation;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use case::Case;

const LEDGER: &str = include_str!("ledger.txt");

/// Suites that are replayed; the cases of each are in `kafka-streams-joins/<name>.json`.
const SUITES: [&str; 11] = [
    "stream-stream-join",
    "stream-stream-join-unit",
    "stream-table-join",
    "stream-table-join-unit",
    "table-table-join",
    "time-windows",
    "session-windows",
    "sliding-windows",
    "suppress-scenarios",
    "suppress-processor",
    "foreign-key-join",
];

#[derive(Debug, Default, serde::Serialize)]
struct Counts {
    passed: usize,
    declined: usize,
    missing: usize,
    failed: usize,
}

impl Counts {
    fn is_empty(&self) -> bool {
        self.passed + self.declined + self.missing + self.failed == 0
    }
}

/// Why a case does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Declined,
    Missing,
}

/// A case and what came of it.
struct Replayed {
    name: String,
    /// What differs, or why the language cannot say it.
    result: Result<(), String>,
    entry: Option<Entry>,
}

fn main() -> ExitCode {
    // Cargo runs tests in their package.
    let workspace = Path::new("../..");
    let data = std::env::var_os("STREAMAPP_TESTDATA")
        .map_or_else(|| workspace.join("../shared/testdata"), PathBuf::from);
    if !data.exists() {
        println!("outside cases: {} is not there", data.display());
        println!("0 passed, 0 failed, 1 skipped");
        return ExitCode::SUCCESS;
    }
    // For work at some of them: no report, and there must be some.
    let is_part = ["KSQL_FILE", "ARROYO_QUERY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some());
    let report = report::Report::begin("outside-cases", 0);
    let mut suites = kafka_streams(&data.join("kafka-streams-joins"));
    suites.push((
        "ksql",
        ksql::replay(&data.join("ksql-apache/query-validation-tests")),
    ));
    suites.push(("change-events", debezium::replay(&data.join("debezium"))));
    suites.push(("arroyo", arroyo::replay(&data.join("arroyo"))));
    let (mut figures, mut passed, mut wrong) = (BTreeMap::new(), 0, Vec::new());
    for (suite, cases) in suites {
        let mut counts = Counts::default();
        for Replayed { name, result, entry } in cases {
            match (result, entry) {
                (Ok(()), None) => counts.passed += 1,
                (Err(_), Some(Entry::Declined)) => counts.declined += 1,
                (Err(_), Some(Entry::Missing)) => counts.missing += 1,
                (Err(reason), None) => {
                    counts.failed += 1;
                    wrong.push(format!("{name}\n    {reason}"));
                }
                (Ok(()), Some(_)) => {
                    counts.failed += 1;
                    wrong.push(format!("{name}\n    passes, but stands in the ledger"));
                }
            }
        }
        println!("outside cases: {suite}: {counts:?}");
        passed += counts.passed;
        figures.insert(suite, counts);
    }
    // Reports are written where the workspace is.
    std::env::set_current_dir(workspace).unwrap();
    if !is_part {
        report.end(wrong.is_empty(), &figures).unwrap();
    } else if figures.values().any(Counts::is_empty) {
        wrong.push("nothing of this name".to_owned());
    }
    wrong.iter().for_each(|line| println!("{line}"));
    println!("{passed} passed, {} failed, 0 skipped", wrong.len());
    ExitCode::from(u8::from(!wrong.is_empty()))
}

/// The cases of each suite of Kafka Streams.
fn kafka_streams(data: &Path) -> Vec<(&'static str, Vec<Replayed>)> {
    let mut ledger = ledger();
    let suites = SUITES.map(|suite| {
        let text = std::fs::read_to_string(data.join(format!("{suite}.json"))).unwrap();
        let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
        // Their tests may have the same names.
        let several = cases.iter().map(Case::class).collect::<BTreeSet<_>>().len() > 1;
        let mut names = BTreeSet::new();
        let replayed = cases.iter().map(|case| {
            let name = match case.class() {
                Some(class) if several => format!("{suite}: {class}.{}", case.name),
                _ => format!("{suite}: {}", case.name),
            };
            assert!(names.insert(name.clone()), "{name} is there twice");
            Replayed {
                result: case.replay(),
                entry: ledger.remove(&*name),
                name,
            }
        });
        (suite, replayed.collect())
    });
    assert!(
        ledger.is_empty(),
        "stand in the ledger, but there are no such cases: {:?}",
        ledger.keys()
    );
    suites.into()
}

/// Cases that do not pass, by name; the kind stands above them, in brackets, with the reason behind it.
fn ledger() -> BTreeMap<&'static str, Entry> {
    let (mut entries, mut kind) = (BTreeMap::new(), None);
    for line in LEDGER.lines().filter(|line| !line.is_empty()) {
        if line.starts_with("[declined] ") {
            kind = Some(Entry::Declined);
        } else if line.starts_with("[missing] ") {
            kind = Some(Entry::Missing);
        } else {
            entries.insert(line, kind.expect("the ledger begins with a kind"));
        }
    }
    entries
}
