//! `streamapp test FILE…`: runs the cases of `NAME.test.yaml` on the topology of `NAME.yaml`, in memory.
//!
//! The steps, stores and formats are those that workers run. Kafka, its transactions and what is between tasks are not
//! there.

mod case;
mod judge;
mod prepare;
mod values;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use crds::Document;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;

use crate::files::below;
use crate::out::say;
use crate::validate::{load, read, refused};
use crate::view::Format;
use case::TestFile;
use judge::Verdict;
use prepare::Prepared;

/// What comes instead of the extension in the name of the file with the cases.
const TESTS: &str = "test.yaml";
const HONEST: &str = "This shows what the topology does with records, not the transactions of a broker.";

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// StreamApp files, each with its cases beside it: `app.yaml` and `app.test.yaml`. Of a directory: all that have cases.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Run only cases whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// How to print results.
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// Also write the results to this file, as JUnit does.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// A case that was run.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    file: PathBuf,
    name: String,
    passed: bool,
    /// What differs.
    differences: Verdict,
    #[serde(skip)]
    took: Duration,
}

pub(crate) fn test(args: &TestArgs) -> ExitCode {
    match run(args) {
        Ok(code) | Err(code) => code,
    }
}

fn run(args: &TestArgs) -> Result<ExitCode, ExitCode> {
    let mut outcomes = Vec::new();
    for app in apps(&args.files)? {
        let these = cases(&app, args.only.as_deref())?;
        if args.output == Format::Text {
            print(&app, &these);
        }
        outcomes.extend(these);
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.passed).count();
    let passed = outcomes.len() - failed;
    if outcomes.is_empty() {
        let why = match &args.only {
            Some(part) => format!("no name contains `{part}`"),
            None => "`tests` is empty".to_owned(),
        };
        eprintln!("error: no case was run: {why}");
        return Err(ExitCode::FAILURE);
    }
    match args.output {
        Format::Text => say!("{passed} passed, {failed} failed. {HONEST}"),
        Format::Json => say!(
            "{}",
            serde_json::json!({"passed": passed, "failed": failed, "cases": outcomes})
        ),
    }
    if let Some(path) = &args.junit {
        junit(&outcomes, path)?;
    }
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The StreamApp files that are meant: of a directory those that have cases.
fn apps(files: &[PathBuf]) -> Result<Vec<PathBuf>, ExitCode> {
    let nothing = format!("has cases beside it (`NAME.yaml` and `NAME.{TESTS}`)");
    below(files, |path| path.with_extension(TESTS).is_file(), &nothing)
}

/// Runs the cases of one file.
fn cases(app: &Path, only: Option<&str>) -> Result<Vec<Outcome>, ExitCode> {
    let plan = Arc::new(load(app)?.plan);
    let file = app.with_extension(TESTS);
    if !file.is_file() {
        eprintln!(
            "error: {} has no cases: write them into {}",
            app.display(),
            file.display()
        );
        return Err(ExitCode::FAILURE);
    }
    let invalid = |diagnostics: Vec<_>| refused(&file, &diagnostics, "nothing was run");
    let document = Document::<TestFile>::read(&read(&file)?).map_err(invalid)?;
    let (mut prepared, mut wrong) = (Vec::new(), Vec::new());
    for (index, case) in document.value.tests.iter().enumerate() {
        let path = topology::Path::default().field("tests").index(index);
        match Prepared::new(case, &path, &plan) {
            Ok(ready) => prepared.push((case, ready)),
            Err(misfits) => wrong.extend(
                misfits
                    .into_iter()
                    .map(|(path, message, suggestion)| document.diagnostic(&path, message, suggestion)),
            ),
        }
    }
    if !wrong.is_empty() {
        return Err(invalid(wrong));
    }
    let wanted = prepared
        .iter()
        .filter(|(case, _)| only.is_none_or(|part| case.name.contains(part)));
    let outcomes = wanted.map(|(case, ready)| {
        let begin = Instant::now();
        let differences = ready.run();
        Outcome {
            file: file.clone(),
            name: case.name.clone(),
            passed: differences.is_empty(),
            differences,
            took: begin.elapsed(),
        }
    });
    Ok(outcomes.collect())
}

fn print(app: &Path, outcomes: &[Outcome]) {
    say!("{}", app.display());
    for outcome in outcomes {
        say!(
            "  {}  {}",
            if outcome.passed { "ok  " } else { "FAIL" },
            outcome.name
        );
        for line in outcome
            .differences
            .iter()
            .flat_map(|difference| difference.lines())
        {
            say!("          {line}");
        }
    }
}

fn junit(outcomes: &[Outcome], path: &Path) -> Result<(), ExitCode> {
    let mut report = Report::new("streamapp test");
    for of_file in outcomes.chunk_by(|one, next| one.file == next.file) {
        let name = of_file
            .first()
            .map_or_else(String::new, |outcome| outcome.file.display().to_string());
        let mut suite = TestSuite::new(name);
        for outcome in of_file {
            let mut status = TestCaseStatus::success();
            if !outcome.passed {
                status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_description(outcome.differences.join("\n"));
            }
            let mut case = TestCase::new(outcome.name.clone(), status);
            case.set_time(outcome.took);
            suite.add_test_case(case);
        }
        report.add_test_suite(suite);
    }
    let written = report
        .to_string()
        .map_err(std::io::Error::other)
        .and_then(|text| std::fs::write(path, text));
    written.map_err(|error| {
        eprintln!("error: cannot write {}: {error}", path.display());
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests;
