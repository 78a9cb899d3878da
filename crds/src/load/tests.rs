use super::*;
use crate::Guarantee;

const EXAMPLE: &str = include_str!("../../../examples/orders-risk/app.yaml");
const STATELESS: &str = include_str!("../../../examples/orders-risk/stateless.yaml");
const KEYED: &str = include_str!("../../../examples/orders-risk/keyed.yaml");

/// All diagnostics as people see them.
fn rendered(text: &str) -> String {
    let diagnostics = load(text).map(|loaded| loaded.app).unwrap_err();
    diagnostics
        .iter()
        .map(|diagnostic| diagnostic.render("app.yaml"))
        .collect()
}

/// The example with parts of its text replaced.
fn changed(replacements: &[(&str, &str)]) -> String {
    replacements.iter().fold(EXAMPLE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

/// The example with another expression, YAML and all, behind `filter:`.
fn with_filter(yaml: &str) -> String {
    changed(&[("\"value >= 1000000\"", yaml)])
}

#[test]
fn the_examples_are_valid() {
    let loaded = load(EXAMPLE).unwrap_or_else(|_| panic!("{}", rendered(EXAMPLE)));
    assert_eq!(loaded.app.application_id(), "orders-risk-scoring-v1");
    assert_eq!((loaded.app.spec.replicas, loaded.app.spec.threads), (1, 2));
    let processing = &loaded.app.spec.processing;
    assert_eq!(processing.guarantee, Guarantee::ExactlyOnceV2);
    assert_eq!(
        (
            processing.commit_interval.as_millis(),
            processing.transaction_timeout.as_millis()
        ),
        (100, 10_000)
    );
    assert_eq!(loaded.app.spec.kafka.internal_topics.replication_factor, 1);
    let names: Vec<_> = loaded
        .plan
        .sub_topologies
        .iter()
        .map(|sub| sub.name.as_str())
        .collect();
    assert_eq!(names, ["orders", "exposure-by-customer"]);
    let stateless = load(STATELESS).unwrap_or_else(|_| panic!("{}", rendered(STATELESS)));
    assert_eq!(stateless.app.application_id(), "orders-scored-v1");
    assert!(
        stateless
            .plan
            .sub_topologies
            .iter()
            .all(|sub| sub.stores.is_empty())
    );
    let keyed = load(KEYED).unwrap_or_else(|_| panic!("{}", rendered(KEYED)));
    let stores: Vec<_> = keyed
        .plan
        .sub_topologies
        .iter()
        .map(|sub| (sub.name.as_str(), sub.stores.len()))
        .collect();
    assert_eq!(stores, [("orders", 1)]);
}

#[test]
fn the_same_document_as_json_and_as_stored_by_kubernetes_is_valid() {
    let app = load(EXAMPLE).unwrap().app;
    let mut json = serde_json::to_value(&app).unwrap();
    json["metadata"]["uid"] = "1".into();
    json["metadata"]["managedFields"] = serde_json::json!([{"manager": "x"}]);
    json["status"] = serde_json::json!({"observedGeneration": 3});
    let again = load(&serde_json::to_string(&json).unwrap()).map(|loaded| loaded.app);
    assert_eq!(again.unwrap(), app);
    let pretty = serde_json::to_string_pretty(&json).unwrap();
    assert_eq!(load(&pretty).map(|loaded| loaded.app).unwrap(), app);
}

#[test]
fn the_application_id_defaults_to_the_name() {
    let text = changed(&[("  applicationId: orders-risk-scoring-v1\n", "")]);
    assert_eq!(load(&text).unwrap().app.application_id(), "orders-risk");
}

#[test]
fn every_error_of_a_file_is_told_with_its_place() {
    let text = changed(&[
        ("threads: 2", "thread: 2"),
        (
            "commitInterval: 100ms",
            "commitInterval: 100ms\n    commitInterval: 200ms",
        ),
        ("initial: \"0\"", "initial: 0"),
        ("value.amountInCents\"", "value.amountInCent\""),
        ("\"value >= 1000000\"", "!value"),
        ("\"key\"", "\"kye\""),
    ]);
    let expected = r#"error: unknown field `thread`
 --> app.yaml:8:3 (spec.thread)
  |
8 |   thread: 2
  |   ^^^^^^
  = help: did you mean `threads`?
error: field `commitInterval` is there twice
  --> app.yaml:12:5 (spec.processing.commitInterval)
   |
12 |     commitInterval: 200ms
   |     ^^^^^^^^^^^^^^
error: `0` is a number; an expression is needed here
  --> app.yaml:32:63 (spec.topology.pipelines[0].steps[2].aggregate.initial)
   |
32 |           - aggregate: {store: exposure-by-customer, initial: 0, add: "aggregate + value.amountInCent"}
   |                                                               ^
   = help: put it in quotes: `initial: "0"`
error: Order has no field `amountInCent`
  --> app.yaml:32:90 (spec.topology.pipelines[0].steps[2].aggregate.add)
   |
32 |           - aggregate: {store: exposure-by-customer, initial: 0, add: "aggregate + value.amountInCent"}
   |                                                                                          ^^^^^^^^^^^^
   = help: did you mean `amountInCents`?
error: YAML reads `!value` as a tag, not as part of an expression
  --> app.yaml:34:21 (spec.topology.pipelines[0].steps[4].filter)
   |
34 |           - filter: !value
   |                     ^^^^^^
   = help: put it in quotes: `filter: "!value"`
error: unknown name `kye`
  --> app.yaml:38:30 (spec.topology.pipelines[0].steps[5].mapValues.fields.customerId)
   |
38 |                 customerId: "kye"
   |                              ^^^
   = help: did you mean `key`?
"#;
    assert_eq!(rendered(&text), expected);
}

#[test]
fn the_caret_stands_inside_plain_and_quoted_expressions() {
    let caret = |yaml: &str| {
        let text = with_filter(yaml);
        let diagnostic = load(&text).map(|loaded| loaded.app).unwrap_err().remove(0);
        let line: Vec<char> = diagnostic.snippet.chars().collect();
        line[diagnostic.column - 1..diagnostic.column - 1 + diagnostic.length]
            .iter()
            .collect::<String>()
    };
    assert_eq!(caret("key == 'a' && value >= 1.5"), "value >= 1.5");
    assert_eq!(caret("'key == ''a'' && value >= 1.5'"), "value >= 1.5");
    assert_eq!(caret(r#""key == \"a\\u0041\" && value >= 1.5""#), "value >= 1.5");
    assert_eq!(caret("\"'éü' == key && value >= 1.5\""), "value >= 1.5");
    // Over several lines the start of the text has to do.
    assert_eq!(
        caret("|\n              key == 'a' &&\n              value >= 1.5"),
        "k"
    );
    assert_eq!(caret("key == 'a' &&\n              value >= 1.5"), "k");
}

#[test]
fn what_kubectl_does_not_read_is_refused_here_too() {
    let text = changed(&[("note: \"string?\"", "note: string?")]);
    let found = load(&text).unwrap_err();
    let message =
        "kubectl does not read `string?` between braces or brackets because of its `?`: write `\"string?\"`";
    assert_eq!((found.len(), found[0].message.as_str()), (1, message));
    assert!(
        found[0].snippet[found[0].column - 1..].starts_with("string?"),
        "{found:?}"
    );
    // It does in lines of their own, and between quotes.
    for file in ["a: b?", "a: {b: 'c?'}", "a: [\"c?\"]", "- a?"] {
        assert!(crate::yaml::parse(file).is_ok(), "{file}");
    }
    for file in [
        "a: {b: c?}",
        "{a: {b?: c}}",
        "a: [b, c?d]",
        "a: [{b: 'c', d: e?}]",
    ] {
        assert!(crate::yaml::parse(file).is_err(), "{file}");
    }
}

#[test]
fn names_of_fields_that_kubectl_would_change_are_refused() {
    for name in ["on", "y", "No"] {
        let out = rendered(&changed(&[("customerId: \"key\"", &format!("{name}: \"key\""))]));
        let message = format!(
            "error: `{name}` is a boolean (in YAML 1.1, which kubectl uses): applied, the field would have another name\n"
        );
        assert!(out.starts_with(&message), "{out}");
        assert!(out.contains(&format!("help: write `\"{name}\":`")), "{out}");
    }
    assert!(load(&changed(&[("customerId: \"key\"", "\"on\": \"key\"")])).is_ok());
}

#[test]
fn what_yaml_makes_of_an_expression_is_told_with_the_quoted_form() {
    let cases = [
        (
            "!value",
            "YAML reads `!value` as a tag, not as part of an expression",
            "put it in quotes: `filter: \"!value\"`",
        ),
        (
            "!has(value.x) && key == \"a\"",
            "YAML reads `!has(value.x)` as a tag, not as part of an expression",
            "put it in quotes: `filter: '!has(value.x) && key == \"a\"'`",
        ),
        (
            "true",
            "`true` is a boolean; an expression is needed here",
            "put it in quotes: `filter: \"true\"`",
        ),
        (
            "on",
            "`on` is a boolean (in YAML 1.1, which kubectl uses); an expression is needed here",
            "put it in quotes: `filter: \"on\"`",
        ),
        (
            "1_000",
            "`1_000` is a number; an expression is needed here",
            "put it in quotes: `filter: \"1_000\"`",
        ),
        (
            "*value",
            "not valid YAML: while parsing node, found unknown anchor",
            "if this is an expression, put it in quotes: `filter: \"*value\"`",
        ),
        (
            "value > 1 ? a : b",
            "not valid YAML: mapping values are not allowed in this context",
            "if this is an expression, put it in quotes: `filter: \"value > 1 ? a : b\"`",
        ),
        (
            "key == 'a #b'",
            "syntax error: the string does not end",
            "YAML takes ` #` for a comment; if it is part of the expression, put it in quotes: `filter: \"key == 'a #b'\"`",
        ),
        (
            "{value: 1}",
            "expected an expression (a string), found an object",
            "",
        ),
        ("", "an expression is missing", ""),
    ];
    for (yaml, message, suggestion) in cases {
        let first = load(&with_filter(yaml))
            .map(|loaded| loaded.app)
            .expect_err(yaml)
            .remove(0);
        let found = (first.message.as_str(), first.suggestion.as_deref().unwrap_or(""));
        assert_eq!(found, (message, suggestion), "{yaml}");
    }
}

#[test]
fn each_kind_of_wrong_shape_has_its_error() {
    type Case = (
        &'static [(&'static str, &'static str)],
        &'static str,
        &'static str,
        &'static str,
    );
    let cases: &[Case] = &[
        (
            &[("guarantee: exactly_once_v2", "guarantee: exactly_once")],
            "spec.processing.guarantee",
            "`exactly_once` is not one of `exactly_once_v2`, `at_least_once`",
            "did you mean `exactly_once_v2`?",
        ),
        (
            &[("language: v1", "language: v2")],
            "spec.topology.language",
            "`v2` is not possible here, only `v1` is",
            "did you mean `v1`?",
        ),
        (
            &[("    language: v1\n", "")],
            "spec.topology",
            "missing field `language`",
            "add `language: v1`",
        ),
        (
            &[("threads: 2", "threads: many")],
            "spec.threads",
            "expected a whole number, found a string",
            "",
        ),
        (
            &[("threads: 2", "threads: '2'")],
            "spec.threads",
            "expected a whole number, found a string",
            "write `2` without quotes",
        ),
        (
            &[("threads: 2", "threads: 0")],
            "spec.threads",
            "0 is out of range: 1 to 256",
            "",
        ),
        (
            &[("commitInterval: 100ms", "commitInterval: 100")],
            "spec.processing.commitInterval",
            "`100` is a number; a string is needed here",
            "put it in quotes: `commitInterval: \"100\"`",
        ),
        (
            &[("commitInterval: 100ms", "commitInterval: 100 ms")],
            "spec.processing.commitInterval",
            "`100 ms` is not a duration: write a whole number and a unit, `100ms`, `10s`, `5m`, `1h` or `1d`",
            "",
        ),
        (
            &[("commitInterval: 100ms", "commitInterval: 1m")],
            "spec.processing.commitInterval",
            "commitInterval 1m needs to be shorter than transactionTimeout 10s: the broker would abort each transaction",
            "",
        ),
        (
            &[("threads: 2", "threads: 4\n  resources: {limits: {memory: 150M}}")],
            "spec.resources.limits.memory",
            "a worker with 4 threads needs a memory limit of 176 MiB or more, not 143 MiB",
            "",
        ),
        (
            &[(
                "applicationId: orders-risk-scoring-v1",
                "applicationId: orders risk",
            )],
            "spec.applicationId",
            "` ` cannot be in an application id: letters, digits, `.`, `_`, `-` are allowed",
            "e.g. `orders-risk`",
        ),
        (
            &[("name: orders-risk", "name: Orders_Risk")],
            "metadata.name",
            "`Orders_Risk` is no name for a Kubernetes object: lower-case letters, digits, `-` and `.`, at most 253",
            "",
        ),
        (
            &[("127.0.0.1:19092", "kafka.example")],
            "spec.kafka.bootstrapServers",
            "`kafka.example` has no port",
            "e.g. `kafka.example:9092`",
        ),
        (
            &[("127.0.0.1:19092", "a:1,b:99999")],
            "spec.kafka.bootstrapServers",
            "`99999` is no port: 1 to 65535",
            "write `host:port`, several with commas",
        ),
        (
            &[("127.0.0.1:19092", "SSL://a:1")],
            "spec.kafka.bootstrapServers",
            "`SSL://a:1` has a protocol in front",
            "write only `host:port`; TLS is `tls: {}`",
        ),
        (
            &[(
                "127.0.0.1:19092",
                "127.0.0.1:19092\n    clientConfig: {acks: \"1\"}",
            )],
            "spec.kafka.clientConfig.acks",
            "`acks` cannot be set here: exactly-once needs `all`",
            "leave it out",
        ),
        (
            &[(
                "127.0.0.1:19092",
                "127.0.0.1:19092\n    clientConfig: {group.id: \"1\"}",
            )],
            "spec.kafka.clientConfig[\"group.id\"]",
            "`group.id` cannot be set here: it is applicationId",
            "leave it out",
        ),
        (
            &[(
                "127.0.0.1:19092",
                "127.0.0.1:19092\n    clientConfig: {linger.ms: 5}",
            )],
            "spec.kafka.clientConfig[\"linger.ms\"]",
            "`5` is a number; a string is needed here",
            "put it in quotes: `linger.ms: \"5\"`",
        ),
        (
            &[("groupByKey: {}", "groupByKey:")],
            "spec.topology.pipelines[0].steps[1].groupByKey",
            "expected an object, found nothing (null)",
            "write `groupByKey: {}`",
        ),
        (
            &[("- toStream: {}", "  toStream: {}")],
            "spec.topology.pipelines[0].steps[2]",
            "exactly one field is allowed here, there are 2: `aggregate`, `toStream`",
            "begin each step with `- `",
        ),
        (
            &[("toStream: {}", "tostream: {}")],
            "spec.topology.pipelines[0].steps[3].tostream",
            "unknown field `tostream`",
            "did you mean `toStream`?",
        ),
        (
            &[("toStream: {}", "")],
            "spec.topology.pipelines[0].steps[3]",
            "expected an object, found nothing (null)",
            "",
        ),
    ];
    for (replacements, path, message, suggestion) in cases {
        let first = load(&changed(replacements))
            .map(|loaded| loaded.app)
            .expect_err(message)
            .remove(0);
        let found = (
            first.path.as_str(),
            first.message.as_str(),
            first.suggestion.as_deref().unwrap_or(""),
        );
        assert_eq!(found, (*path, *message, *suggestion));
    }
}

#[test]
fn fields_of_map_values_are_expressions_too() {
    let first = load(&changed(&[("exposure: \"value\"", "exposure: 5")]))
        .map(|loaded| loaded.app)
        .unwrap_err()
        .remove(0);
    assert_eq!(first.message, "`5` is a number; an expression is needed here");
    assert_eq!(
        first.suggestion.as_deref(),
        Some("put it in quotes: `exposure: \"5\"`")
    );
}

#[test]
fn a_file_has_exactly_one_document() {
    assert!(rendered("").starts_with("error: the file is empty\n --> app.yaml:1:1\n"));
    assert!(rendered("a: b\n---\nc: d\n").starts_with("error: the file has several documents;"));
    assert!(rendered("[1, 2]").starts_with("error: expected an object, found a list"));
    assert!(load(&format!("---\n{EXAMPLE}")).is_ok());
}

#[test]
fn diagnostics_serialize_for_scripts() {
    let diagnostics = load(&changed(&[("threads: 2", "thread: 2")]))
        .map(|loaded| loaded.app)
        .unwrap_err();
    let expected = serde_json::json!([{
        "path": "spec.thread", "line": 8, "column": 3, "length": 6, "message": "unknown field `thread`",
        "suggestion": "did you mean `threads`?", "snippet": "  thread: 2"
    }]);
    assert_eq!(serde_json::to_value(diagnostics).unwrap(), expected);
}

#[test]
fn what_may_differ_from_run_to_run_is_a_warning_with_its_place() {
    let enrichment = include_str!("../../../examples/order-enrichment/app.yaml");
    let loaded = load(enrichment).unwrap_or_else(|_| panic!("{}", rendered(enrichment)));
    let [warning] = loaded.warnings.as_slice() else {
        panic!("{:?}", loaded.warnings);
    };
    let text = warning.render("app.yaml");
    assert!(
        text.starts_with("warning[UnversionedTable]: a record is joined with what `customers` has"),
        "{text}"
    );
    assert!(
        text.contains("(spec.topology.pipelines[0].steps[1].leftJoin)"),
        "{text}"
    );
    assert!(text.contains("help: give the table `historyRetention`"), "{text}");
    assert_eq!(load(EXAMPLE).unwrap().warnings, []);
}

#[test]
fn hostile_yaml_is_refused_within_bounds() {
    let deep = "[".repeat(100);
    assert!(load(&deep).is_err());
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..8 {
        let (this, last) = (char::from(b'a' + level), char::from(b'a' + level - 1));
        bomb += &format!("{this}: &{this} [{}]\n", vec![format!("*{last}"); 10].join(", "));
    }
    assert!(rendered(&bomb).contains("more than 100000 values"));
    assert!(load("a: &a [*a]").is_err());
}

proptest::proptest! {
    #[test]
    fn no_change_of_a_few_characters_makes_loading_panic(at in 0..EXAMPLE.len(), cut in 0..6_usize, put in "[-:{}\\[\\]#&*!|>'\"%@` ,?\\na0é\\t]{0,4}") {
        let end = (at + cut).min(EXAMPLE.len());
        let text = format!("{}{put}{}", &EXAMPLE[..at], &EXAMPLE[end..]);
        if let Err(diagnostics) = load(&text) {
            proptest::prop_assert!(!diagnostics.is_empty());
            for diagnostic in diagnostics {
                proptest::prop_assert!(diagnostic.render("app.yaml").contains(&diagnostic.message));
            }
        }
    }
}
