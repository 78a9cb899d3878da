//! Cases of other products, replayed in memory: what Kafka Streams' own tests expect of its operators. Each passes or stands
//! in `ledger.txt`, as declined (the language differs on purpose) or as missing (it cannot say that yet).
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

mod case;
mod translate;

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

/// Why a case does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Declined,
    Missing,
}

fn main() -> ExitCode {
    // Cargo runs tests in their package.
    let workspace = Path::new("../..");
    let data = std::env::var_os("STREAMAPP_TESTDATA")
        .map_or_else(|| workspace.join("../shared/testdata"), PathBuf::from);
    let data = data.join("kafka-streams-joins");
    if !data.exists() {
        println!("outside cases: {} is not there", data.display());
        println!("0 passed, 0 failed, 1 skipped");
        return ExitCode::SUCCESS;
    }
    let report = report::Report::begin("outside-cases", 0);
    let mut ledger = ledger();
    let mut suites = BTreeMap::<_, Counts>::new();
    let mut wrong = Vec::new();
    for suite in SUITES {
        let text = std::fs::read_to_string(data.join(format!("{suite}.json"))).unwrap();
        let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
        let counts = suites.entry(suite).or_default();
        // Their tests may have the same names.
        let several = cases.iter().map(Case::class).collect::<BTreeSet<_>>().len() > 1;
        let mut names = BTreeSet::new();
        for case in &cases {
            let name = match case.class() {
                Some(class) if several => format!("{suite}: {class}.{}", case.name),
                _ => format!("{suite}: {}", case.name),
            };
            assert!(names.insert(name.clone()), "{name} is there twice");
            match (case.replay(), ledger.remove(&*name)) {
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
    }
    wrong.extend(
        ledger
            .keys()
            .map(|name| format!("{name}\n    stands in the ledger, but there is no such case")),
    );
    // Reports are written where the workspace is.
    std::env::set_current_dir(workspace).unwrap();
    report.end(wrong.is_empty(), &suites).unwrap();
    let sum = |of: fn(&Counts) -> usize| suites.values().map(of).sum::<usize>();
    wrong.iter().for_each(|line| println!("{line}"));
    println!(
        "{} passed, {} failed, 0 skipped",
        sum(|counts| counts.passed),
        wrong.len()
    );
    ExitCode::from(u8::from(!wrong.is_empty()))
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
