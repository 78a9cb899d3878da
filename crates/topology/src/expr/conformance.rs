//! CEL's own conformance suite, replayed: each case that needs no protocol buffers passes, or stands in the ledger
//! with the reason why the language differs.
//!
//! `scripts/cel-cases` fetches the cases (npm `@bufbuild/cel-spec`, which has those of
//! <https://github.com/google/cel-spec/tree/master/tests/simple/testdata> and of cel-go's checker).

use std::collections::{BTreeMap, BTreeSet};

use bumpalo::Bump;
use bumpalo::collections::Vec as ArenaVec;
use serde_json::Value as Json;

use super::Env;
use super::check::{self, Variable};
use super::eval::{self, Local};
use super::operators;
use super::parse;
use super::tests::nothing;
use super::ty::Ty;
use crate::{Type, Value};

const LEDGER: &str = include_str!("conformance-ledger.txt");

/// Sections of the standard language; the others are extensions.
const CORE: [&str; 15] = [
    "basic",
    "comparisons",
    "conversions",
    "fields",
    "fp_math",
    "integer_math",
    "lists",
    "logic",
    "macros",
    "macros2",
    "namespace",
    "parse",
    "plumbing",
    "string",
    "timestamps",
];

#[derive(Debug, Default, serde::Serialize)]
struct Counts {
    passed: usize,
    declined: usize,
    failed: usize,
}

#[derive(Debug, serde::Serialize)]
struct Figures {
    passed: usize,
    declined: usize,
    failed: usize,
    /// Of the cases of the standard language that need no protocol buffers.
    core_percent: f64,
    /// Cases that need protocol buffers, which the language does not have.
    protobuf: usize,
    sections: BTreeMap<String, Counts>,
}

#[test]
fn cases_of_the_conformance_suite_pass_or_stand_in_the_ledger() {
    let report = report::Report::begin("cel-conformance", 0);
    let cache = std::env::var("STREAMAPP_CACHE");
    let cache = cache.unwrap_or_else(|_| format!("{}/.cache/streamapp", std::env::var("HOME").unwrap()));
    let path = format!("{cache}/cel-spec-0.6.1/cases.json");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{path}: {error}; run scripts/cel-cases"));
    let cases: Vec<Json> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() > 2_400, "only {} cases", cases.len());

    let ledger = ledger();
    let mut seen = BTreeSet::new();
    let mut sections = BTreeMap::<String, Counts>::new();
    let (mut protobuf, mut wrong) = (0, Vec::new());
    for case in &cases {
        if needs_protobuf(case) {
            protobuf += 1;
            continue;
        }
        let name = name_of(case);
        let section = sections.entry(section_of(case).to_owned()).or_default();
        let outcome = replay(case);
        match (outcome, ledger.contains_key(name.as_str())) {
            (Ok(()), false) => section.passed += 1,
            (Err(_), true) => section.declined += 1,
            (Err(reason), false) => {
                section.failed += 1;
                wrong.push(format!("{name}\n    {}\n    {reason}", case["original"]["expr"]));
            }
            (Ok(()), true) => {
                section.failed += 1;
                wrong.push(format!("{name}\n    passes, but stands in the ledger"));
            }
        }
        seen.insert(name);
    }
    for name in ledger.keys() {
        if !seen.contains(*name) {
            wrong.push(format!(
                "{name}\n    stands in the ledger, but there is no such case"
            ));
        }
    }
    let sum = |of: fn(&Counts) -> usize| sections.values().map(of).sum::<usize>();
    let core: Vec<_> = CORE.iter().map(|name| &sections[*name]).collect();
    let passed: usize = core.iter().map(|counts| counts.passed).sum();
    let all: usize = core
        .iter()
        .map(|counts| counts.passed + counts.declined + counts.failed)
        .sum();
    let figures = Figures {
        passed: sum(|counts| counts.passed),
        declined: sum(|counts| counts.declined),
        failed: sum(|counts| counts.failed),
        core_percent: (passed as f64 * 10_000.0 / all as f64).round() / 100.0,
        protobuf,
        sections,
    };
    // Reports are written where the workspace is; cargo runs tests in their package.
    std::env::set_current_dir("../..").unwrap();
    report.end(wrong.is_empty(), &figures).unwrap();
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    assert!(figures.core_percent >= 97.0, "{figures:?}");
}

/// Names of the cases that the language answers otherwise, with the reason above them.
fn ledger() -> BTreeMap<&'static str, &'static str> {
    let (mut entries, mut reason) = (BTreeMap::new(), "");
    for line in LEDGER.lines() {
        if let Some(text) = line.strip_prefix("# ") {
            reason = text;
        } else if !line.is_empty() {
            assert!(!reason.is_empty(), "{line} has no reason");
            assert!(entries.insert(line, reason).is_none(), "{line} is there twice");
        }
    }
    entries
}

fn needs_protobuf(case: &Json) -> bool {
    let original = case["original"].to_string();
    [
        "google.protobuf",
        "proto2",
        "proto3",
        "TestAllTypes",
        "objectValue",
        "enumValue",
    ]
    .iter()
    .any(|word| original.contains(word))
}

fn section_of(case: &Json) -> &str {
    case["path"][0]
        .as_str()
        .unwrap_or_else(|| case["file"].as_str().unwrap())
}

/// One word, unique: expressions of cases without a name have their spaces replaced.
fn name_of(case: &Json) -> String {
    let mut parts = vec![case["file"].as_str().unwrap()];
    parts.extend(
        case["path"]
            .as_array()
            .unwrap()
            .iter()
            .map(|part| part.as_str().unwrap()),
    );
    let name = case["original"]["name"]
        .as_str()
        .or_else(|| case["original"]["expr"].as_str());
    parts.push(name.unwrap());
    parts.join("/").split_whitespace().collect::<Vec<_>>().join("_")
}

fn replay(case: &Json) -> Result<(), String> {
    let original = &case["original"];
    let arena = Bump::new();
    let env = Env::of_record(Type::String, Type::String);
    let mut variables = declared(original)?;
    let mut values = BTreeMap::new();
    if let Some(bindings) = original["bindings"].as_object() {
        for (name, binding) in bindings {
            values.insert(name.clone(), value_of(&binding["value"], &arena)?);
            if !variables.iter().any(|variable| variable.name == *name) {
                let name = name.clone();
                variables.push(Variable { name, ty: Ty::Dyn });
            }
        }
    }
    let source = original["expr"].as_str().ok_or("no expression")?;
    let wants_error =
        case["file"] == "checking" && case["error"].is_string() || original["evalError"].is_object();
    let ast = match parse::parse(source) {
        // What is refused is never evaluated.
        Err(_) if wants_error => return Ok(()),
        Err(error) => return Err(format!("refused: {error}")),
        Ok(ast) => ast,
    };
    let (typed, errors) = check::check(source, &ast, &env, variables.clone());
    match errors.first() {
        Some(_) if wants_error => return Ok(()),
        // The suite wants to see what a language without a checker does: nothing that passes the checker is lost by it.
        Some(_) if original["disableCheck"] == true => {}
        Some(error) => return Err(format!("refused: {error}")),
        None => {}
    }
    if let Some(wanted) = case["type"].as_str() {
        let found = cel_name(&typed.ty);
        if errors.is_empty() && found != wanted {
            return Err(format!("has type {found}, not {wanted}"));
        }
    }
    if case["file"] == "checking" || original["checkOnly"] == true {
        return if wants_error {
            Err("is accepted".to_owned())
        } else {
            Ok(())
        };
    }
    let scope = nothing(&arena);
    let node = arena.alloc(typed.node);
    let found = with_locals(&variables, &values, None, &mut |locals| {
        eval::evaluate(&scope, locals, |context| node.eval(context)).map_err(|error| error.to_string())
    });
    let wanted = match (&original["value"], &original["typedResult"]["result"]) {
        (Json::Null, Json::Null) => Value::Bool(true),
        (Json::Null, result) => value_of(result, &arena)?,
        (value, _) => value_of(value, &arena)?,
    };
    match found {
        Err(_) if wants_error => Ok(()),
        Err(error) => Err(format!("error: {error}")),
        Ok(found) if wants_error => Err(format!("gives {found:?}, not an error")),
        Ok(found) if same(&found, &wanted) => Ok(()),
        Ok(found) => Err(format!("gives {found:?}, not {wanted:?}")),
    }
}

/// The name of a type in the suite.
fn cel_name(ty: &Ty) -> String {
    match ty {
        Ty::Optional(inner) => format!("optional_type({})", cel_name(inner)),
        Ty::List(item) => format!("list({})", cel_name(item)),
        Ty::Map(entry) => format!("map({}, {})", cel_name(&entry.0), cel_name(&entry.1)),
        Ty::Type(inner) => format!("type({})", cel_name(inner)),
        Ty::Timestamp => "timestamp".to_owned(),
        other => other.to_string(),
    }
}

fn with_locals<'a, T>(
    variables: &[Variable],
    values: &BTreeMap<String, Value<'a>>,
    outer: Option<&Local<'_, 'a>>,
    run: &mut impl FnMut(Option<&Local<'_, 'a>>) -> T,
) -> T {
    let [first, rest @ ..] = variables else {
        return run(outer);
    };
    let value = values.get(&first.name).copied().unwrap_or(Value::Null);
    with_locals(rest, values, Some(&Local { value, outer }), run)
}

/// Equal, and of the same type.
fn same(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        // The reader of JSON is not exact in the last bit.
        (Value::Double(a), Value::Double(b)) => {
            a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= f64::EPSILON * a.abs()
        }
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(*b).all(|(a, b)| same(a, b)),
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len()
                && a.iter()
                    .zip(*b)
                    .all(|(a, b)| same(&a.0, &b.0) && same(&a.1, &b.1))
        }
        (a, b) => a == b,
    }
}

fn declared(original: &Json) -> Result<Vec<Variable>, String> {
    // Those of cel-go's checker tests.
    let mut variables: Vec<_> = [
        ("is", Ty::String),
        ("ii", Ty::Int),
        ("iu", Ty::Uint),
        ("iz", Ty::Bool),
        ("id", Ty::Double),
        ("ix", Ty::Null),
        ("ib", Ty::Bytes),
    ]
    .into_iter()
    .map(|(name, ty)| Variable {
        name: name.to_owned(),
        ty,
    })
    .collect();
    for declaration in original["typeEnv"].as_array().into_iter().flatten() {
        let ident = &declaration["ident"]["type"];
        if ident.is_null() {
            return Err("declares a function".to_owned());
        }
        variables.push(Variable {
            name: declaration["name"]
                .as_str()
                .ok_or("a variable without a name")?
                .to_owned(),
            ty: type_of(ident)?,
        });
    }
    Ok(variables)
}

fn type_of(json: &Json) -> Result<Ty, String> {
    let of = |key: &str| &json[key];
    if let Some(name) = of("primitive").as_str() {
        return Ok(match name {
            "BOOL" => Ty::Bool,
            "INT64" => Ty::Int,
            "UINT64" => Ty::Uint,
            "DOUBLE" => Ty::Double,
            "STRING" => Ty::String,
            "BYTES" => Ty::Bytes,
            other => return Err(format!("declares a {other}")),
        });
    }
    if of("dyn").is_object() || of("typeParam").is_string() {
        return Ok(Ty::Dyn);
    }
    if of("null").is_null() && json.as_object().is_some_and(|json| json.contains_key("null")) {
        return Ok(Ty::Null);
    }
    if of("listType").is_object() {
        return type_of(&of("listType")["elemType"]).map(Ty::list);
    }
    if of("mapType").is_object() {
        let map = of("mapType");
        return Ok(Ty::map(type_of(&map["keyType"])?, type_of(&map["valueType"])?));
    }
    if of("abstractType")["name"] == "optional_type" {
        return type_of(&of("abstractType")["parameterTypes"][0]).map(|ty| Ty::Optional(Box::new(ty)));
    }
    Err(format!("declares {json}"))
}

fn value_of<'a>(json: &Json, arena: &'a Bump) -> Result<Value<'a>, String> {
    let (kind, value) = json
        .as_object()
        .and_then(|json| json.iter().next())
        .ok_or("no value")?;
    let text = value.as_str().unwrap_or_default();
    Ok(match kind.as_str() {
        "nullValue" => Value::Null,
        "boolValue" => Value::Bool(value.as_bool().ok_or("a bool")?),
        "int64Value" => Value::Int(text.parse().map_err(|_| "an int")?),
        "uint64Value" => Value::Uint(text.parse().map_err(|_| "a uint")?),
        "doubleValue" => Value::Double(match text {
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            "NaN" => f64::NAN,
            _ => value.as_f64().ok_or("a double")?,
        }),
        "stringValue" => Value::String(arena.alloc_str(text)),
        "bytesValue" => {
            use base64::Engine as _;
            let bytes = base64::engine::general_purpose::STANDARD.decode(text);
            Value::Bytes(arena.alloc_slice_copy(&bytes.map_err(|error| error.to_string())?))
        }
        "typeValue" => Value::Type(arena.alloc_str(text).to_owned().leak()),
        "listValue" => {
            let mut items = ArenaVec::new_in(arena);
            for item in value["values"].as_array().into_iter().flatten() {
                items.push(value_of(item, arena)?);
            }
            Value::List(items.into_bump_slice())
        }
        "mapValue" => {
            let mut entries = ArenaVec::new_in(arena);
            for entry in value["entries"].as_array().into_iter().flatten() {
                entries.push((value_of(&entry["key"], arena)?, value_of(&entry["value"], arena)?));
            }
            entries.sort_by(|a, b| operators::key_order(&a.0, &b.0));
            Value::Map(entries.into_bump_slice())
        }
        other => return Err(format!("{other} is no value of the language")),
    })
}
