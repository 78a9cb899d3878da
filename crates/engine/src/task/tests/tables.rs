//! Steps on tables: what is computed of a value, and what is taken out when it is there no more.

use super::breaks::{Given, breaks, drive};
use super::*;
use crate::{Driver, DriverRecord};

/// Pipelines over a table of Long values under String keys.
fn planned_table(pipelines: serde_json::Value) -> Arc<Plan> {
    let table = json!({"name": "in", "topic": "in", "key": {"serde": "String"}, "value": {"serde": "Long"}});
    let declaration = json!({"language": "v1", "tables": [table], "pipelines": pipelines});
    Arc::new(topology::plan(&serde_json::from_value(declaration).unwrap()).unwrap())
}

fn pipeline(steps: serde_json::Value) -> serde_json::Value {
    json!([{"name": "p", "from": "in", "steps": steps, "to": {"topic": "out", "value": {"serde": "Long"}}}])
}

/// A record of the table.
fn update(driver: &Driver, key: &str, value: Option<i64>, timestamp: i64) -> DriverRecord {
    DriverRecord {
        topic: TopicName::External("in".into()),
        partition: driver.partition(Some(key.as_bytes())),
        key: Some(key.into()),
        value: value.map(|value| value.to_be_bytes().to_vec()),
        headers: Vec::new(),
        timestamp,
    }
}

fn pipe(
    driver: &mut Driver,
    key: &str,
    value: Option<i64>,
    timestamp: i64,
) -> Vec<(String, Option<i64>, i64)> {
    let outputs = driver
        .pipe(update(driver, key, value, timestamp))
        .unwrap()
        .outputs
        .into_iter();
    let long = |bytes: Vec<u8>| i64::from_be_bytes(bytes.try_into().unwrap());
    let result = |record: DriverRecord| {
        let key = String::from_utf8(record.key.unwrap()).unwrap();
        (key, record.value.map(long), record.timestamp)
    };
    outputs.map(result).collect()
}

#[test]
fn a_filter_deletes_what_it_kept_before_and_says_nothing_of_others() {
    let steps = json!([{"filter": "value > 3"}, {"filterNot": "value > 7"}, {"toStream": {}}]);
    let mut driver = Driver::new(planned_table(pipeline(steps)), 1);
    let result = |value| vec![("k".to_owned(), value, 5)];
    for (value, wanted) in [
        (Some(1), vec![]),
        (Some(4), result(Some(4))),
        (Some(5), result(Some(5))),
        (Some(9), result(None)),
        (None, vec![]),
        (Some(6), result(Some(6))),
        (None, result(None)),
    ] {
        assert_eq!(pipe(&mut driver, "k", value, 5), wanted, "{value:?}");
    }
}

#[test]
fn a_value_that_moves_leaves_its_group_before_it_comes_to_the_other() {
    let steps = json!([
        {"groupBy": {"key": "value % 2 == 0 ? 'even' : 'odd'"}},
        {"aggregate": {"store": "sums", "initial": "0", "add": "aggregate + value", "remove": "aggregate == value ? null : aggregate - value"}},
        {"toStream": {}},
    ]);
    let mut driver = Driver::new(planned_table(pipeline(steps)), 1);
    let result = |key: &str, value, timestamp| (key.to_owned(), value, timestamp);
    assert_eq!(pipe(&mut driver, "a", Some(2), 10), [result("even", Some(2), 10)]);
    assert_eq!(pipe(&mut driver, "b", Some(4), 20), [result("even", Some(6), 20)]);
    // Within its group there is one update, at the later of both times.
    assert_eq!(
        pipe(&mut driver, "a", Some(8), 15),
        [result("even", Some(12), 20)]
    );
    let moved = [result("even", Some(4), 30), result("odd", Some(3), 30)];
    assert_eq!(pipe(&mut driver, "a", Some(3), 30), moved);
    assert_eq!(pipe(&mut driver, "b", None, 40), [result("even", None, 40)]);
}

#[test]
fn a_table_is_reduced_by_what_comes_and_goes() {
    let steps = json!([
        {"groupBy": {"key": "'all'"}},
        {"reduce": {"store": "reduced", "add": "aggregate * value", "remove": "aggregate / value"}},
        {"toStream": {}},
    ]);
    let mut driver = Driver::new(planned_table(pipeline(steps)), 1);
    let mut values = Vec::new();
    for (key, value) in [("a", Some(2)), ("b", Some(3)), ("a", Some(5)), ("b", None)] {
        values.extend(
            pipe(&mut driver, key, value, 0)
                .into_iter()
                .map(|(_, value, _)| value),
        );
    }
    assert_eq!(values, [Some(2), Some(6), Some(15), Some(5)]);
}

fn input() -> impl Strategy<Value = Vec<(u8, Option<i64>, i64)>> {
    let record = (0..4u8, proptest::option::of(1..12i64), 0..50i64);
    proptest::collection::vec(record, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever comes, moves and goes, and whenever tasks begin anew: the groups are those of what the table holds, and results are
    /// the stores' contents.
    #[test]
    fn groups_are_those_of_the_table(records in input(), restarts in proptest::collection::vec(any::<bool>(), 40)) {
        let group = |name: &str, aggregation: serde_json::Value| json!({
            "name": name, "from": "mapped", "to": {"topic": name, "value": {"serde": "Long"}},
            "steps": [{"groupBy": {"key": "string(value % 3)"}}, aggregation, {"toStream": {}}],
        });
        let remove = "aggregate == value ? null : aggregate - value";
        let sums = json!({"store": "sums", "initial": "0", "add": "aggregate + value", "remove": remove});
        let plan = planned_table(json!([
            {"name": "mapped", "from": "in", "steps": [{"filter": "value != 4"}, {"mapValues": {"expression": "value * 2"}}]},
            group("sums", json!({"aggregate": sums})),
            group("counts", json!({"count": {"store": "counts"}})),
        ]));
        let mut driver = Driver::new(plan, 3);
        let mut table = BTreeMap::new();
        // The last result of each group.
        let mut shown = BTreeMap::<(String, Vec<u8>), i64>::new();
        for ((key, value, timestamp), restart) in records.into_iter().zip(restarts) {
            if restart {
                driver.restart();
            }
            let key = key.to_string();
            let record = update(&driver, &key, value, timestamp);
            for output in driver.pipe(record).unwrap().outputs {
                let place = (output.topic.to_string(), output.key.unwrap());
                keep_last(&mut shown, place, output.value.map(number));
            }
            keep_last(&mut table, key, value);
            let mut wanted = BTreeMap::new();
            for value in table.values().filter(|value| **value != 4).map(|value| value * 2) {
                let group = (value % 3).to_string().into_bytes();
                *wanted.entry(("sums".to_owned(), group.clone())).or_insert(0) += value;
                *wanted.entry(("counts".to_owned(), group)).or_insert(0) += 1;
            }
            // Groups that are empty are counted on.
            shown.retain(|(topic, _), value| topic != "counts" || *value != 0);
            prop_assert_eq!(&shown, &wanted);
        }
    }

    #[test]
    fn what_a_group_is_sent_does_not_depend_on_transactions(records in input(), breaks in breaks()) {
        let steps = json!([{"groupBy": {"key": "value"}}, {"count": {"store": "counts"}}, {"toStream": {}}]);
        let table = json!({"name": "in", "topic": "in", "key": {"serde": "String"}, "value": {"serde": "String"}});
        let declaration = json!({"language": "v1", "tables": [table], "pipelines": pipeline(steps)});
        let plan = Arc::new(topology::plan(&serde_json::from_value(declaration).unwrap()).unwrap());
        let given = |(key, value, timestamp): (u8, Option<i64>, i64)| Given {
            source: 0,
            key: key.to_string(),
            value: value.map(|value| value.to_string()),
            timestamp,
        };
        let records: Vec<_> = records.into_iter().map(given).collect();
        prop_assert_eq!(drive(&plan, &records, &breaks), drive(&plan, &records, &[]));
    }
}
