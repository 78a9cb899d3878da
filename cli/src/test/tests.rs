use super::*;

/// Cargo runs tests in their package.
const EXAMPLES: &str = "../examples";
const APP: &str = include_str!("../../../examples/orders-risk/app.yaml");
const CASES: &str = include_str!("../../../examples/orders-risk/app.test.yaml");

/// What differs, by case.
fn verdicts(cases: &str) -> Vec<Verdict> {
    let plan = Arc::new(crds::load(APP).unwrap().plan);
    let document = Document::<TestFile>::read(cases).unwrap();
    let cases = document.value.tests.iter();
    cases
        .map(|case| {
            Prepared::new(case, &topology::Path::default(), &plan)
                .unwrap_or_else(|_| panic!())
                .run()
        })
        .collect()
}

#[test]
fn the_examples_pass_their_cases() {
    let apps = apps(&[PathBuf::from(EXAMPLES)]).unwrap();
    assert!(!apps.is_empty());
    for app in apps {
        for outcome in cases(&app, None).unwrap() {
            assert!(
                outcome.passed,
                "{}, {}: {:?}",
                app.display(),
                outcome.name,
                outcome.differences
            );
        }
    }
}

#[test]
fn whatever_differs_is_told() {
    for (from, to, wanted) in [
        (
            "exposure: 1000001}",
            "exposure: 1}",
            "topic risk.decisions.v1: (- wanted, + found)",
        ),
        ("at: 3000\n      # ", "at: 3001\n      # ", "+ \"c-1\" -> "),
        (
            "value: 999999, at",
            "value: 999998, at",
            "- \"c-2\" -> 999998 at 2000\n+ \"c-2\" -> 999999 at 2000",
        ),
        (
            "- {key: c-2, value: 999999, at: 2000}",
            "",
            "+ \"c-2\" -> 999999 at 2000",
        ),
        (
            "{null-value: 1}",
            "{null-value: 2}",
            "- {\"null-value\":2}\n+ {\"null-value\":1}",
        ),
        (
            "error: customerId",
            "error: customerName",
            "with another error than `customerName`",
        ),
        (
            "    error: customerId",
            "",
            "input 0 stopped its task: record orders.submitted.v1/0@0",
        ),
        (
            "outputs: []\n    dropped",
            "error: x\n    dropped",
            "no task stopped, wanted an error with `x`",
        ),
        (
            "outputs: []\n    dropped",
            "outputs: [{key: k}]\n    dropped",
            "- \"k\" -> null",
        ),
    ] {
        assert!(CASES.contains(from), "{from}");
        let verdicts = verdicts(&CASES.replace(from, to)).concat();
        assert!(
            verdicts.iter().any(|text| text.contains(wanted)),
            "{to}: {verdicts:?}"
        );
    }
}

#[test]
fn what_the_topology_does_not_have_is_refused() {
    for (from, to, wanted) in [
        (
            "stores:\n      exposure-by-customer",
            "stores:\n      exposure",
            "unknown store `exposure`",
        ),
        ("key: o-1\n", "key: 1\n", "a string is needed here, found `1`"),
        (
            "key: o-1\n",
            "key: o-1\n        stream: order\n",
            "unknown stream `order`",
        ),
        (
            "key: o-1\n",
            "key: o-1\n        partition: 1\n",
            "there is no partition 1",
        ),
        (
            "key: o-1\n",
            "key: o-1\n        raw: x\n",
            "the record has `value` and `raw`",
        ),
        ("key: o-1\n", "key: o-1\n        at: soon\n", "not `\"soon\"`"),
        (
            "- {key: c-1, value: 1000001, at: 3000}",
            "- {key: c-1, value: 1000001, at: now}",
            "not `\"now\"`",
        ),
        ("outputs: []\n    dropped: {null-value: 1}", "", "it cannot fail"),
        (
            "outputs: []",
            "outputs: [{topic: decisions}]",
            "nothing writes topic `decisions`",
        ),
    ] {
        assert!(CASES.contains(from), "{from}");
        let plan = Arc::new(crds::load(APP).unwrap().plan);
        let document =
            Document::<TestFile>::read(&CASES.replace(from, to)).unwrap_or_else(|wrong| panic!("{wrong:?}"));
        let cases = document.value.tests.iter();
        let misfits: Vec<_> = cases
            .filter_map(|case| Prepared::new(case, &topology::Path::default(), &plan).err())
            .flatten()
            .map(|(_, message, _)| message)
            .collect();
        assert!(
            misfits.iter().any(|message| message.contains(wanted)),
            "{to}: {misfits:?}"
        );
    }
}

/// Both write objects to one topic, with other fields.
#[test]
fn a_topic_that_two_pipelines_write_is_read_as_each_has_written_it() {
    const TWO: &str = r#"
        apiVersion: streamapp.dev/v1alpha1
        kind: StreamApp
        metadata: {name: two}
        spec:
          kafka: {bootstrapServers: "127.0.0.1:19092"}
          topology:
            language: v1
            streams: [{name: in, topic: in.v1, key: {serde: String}, value: {serde: Long}}]
            pipelines:
              - {name: a, from: in, steps: [{mapValues: {fields: {x: "value"}}}], to: {topic: out.v1, value: {serde: Json}}}
              - {name: b, from: in, steps: [{mapValues: {fields: {x: "value", z: "value"}}}], to: {topic: out.v1, value: {serde: Json}}}
    "#;
    let plan = Arc::new(crds::load(TWO).unwrap().plan);
    let verdict = |outputs: &str| {
        let cases = format!("tests: [{{name: t, inputs: [{{key: k, value: 1}}], outputs: {outputs}}}]");
        let document = Document::<TestFile>::read(&cases).unwrap();
        let case = &document.value.tests[0];
        Prepared::new(case, &topology::Path::default(), &plan)
            .unwrap_or_else(|_| panic!())
            .run()
    };
    assert_eq!(
        verdict("[{key: k, value: {x: 1}}, {key: k, value: {x: 1, z: 1}}]"),
        Vec::<String>::new()
    );
    assert!(!verdict("[{key: k, value: {x: 1}}, {key: k, value: {x: 1}}]").is_empty());
}
