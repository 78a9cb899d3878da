//! Sliding windows: there is one for each set of records that are near to each other, and nothing depends on where transactions end.

use std::collections::{BTreeMap, BTreeSet};

use super::breaks::{Given, breaks, drive};
use super::*;

/// The values of a window, one behind the other.
fn planned_sliding(difference: i64, grace: i64, emit: &str) -> Arc<Plan> {
    let windows =
        json!({"sliding": {"timeDifference": format!("{difference}ms"), "grace": format!("{grace}ms")}});
    let aggregate = json!({"store": "s", "initial": "''", "add": "aggregate + value", "emit": emit});
    let declaration = json!({
        "language": "v1",
        "streams": [{"name": "in", "topic": "in", "key": {"serde": "String"}, "value": {"serde": "String"}}],
        "pipelines": [{
            "name": "p", "from": "in", "to": {"topic": "out", "value": {"serde": "String"}},
            "steps": [{"groupByKey": {}}, {"windowedBy": windows}, {"aggregate": aggregate}, {"toStream": {}}],
        }],
    });
    Arc::new(topology::plan(&serde_json::from_value(declaration).unwrap()).unwrap())
}

fn input() -> impl Strategy<Value = Vec<Given>> {
    let given = |(number, (key, timestamp)): (usize, (u8, i64))| Given {
        source: 0,
        key: format!("k{key}"),
        value: Some(char::from_u32('a' as u32 + number as u32).unwrap().to_string()),
        timestamp,
    };
    proptest::collection::vec((0..2u8, 0..60i64), 1..40)
        .prop_map(move |records| records.into_iter().enumerate().map(given).collect())
}

/// Key and start of a window, and its value.
type Results = Vec<((String, i64), String)>;

fn results(sent: &[Sent]) -> Results {
    let result = |(_, key, value, _): &Sent| {
        let (key, start) = key.as_ref().unwrap().split_last_chunk::<8>().unwrap();
        let key = String::from_utf8(key.to_vec()).unwrap();
        let value = String::from_utf8(value.clone().unwrap()).unwrap();
        ((key, i64::from_be_bytes(*start)), value)
    };
    sent.iter().map(result).collect()
}

/// The windows that end with a record or begin behind one, with the records that are in them, in the order in which they came.
fn by_the_rules(difference: i64, records: &[Given]) -> BTreeMap<(String, i64), String> {
    let starts = records.iter().flat_map(|record| {
        let starts = [(record.timestamp - difference).max(0), record.timestamp + 1];
        starts.map(|start| (record.key.clone(), start))
    });
    let value = |(key, start): &(String, i64)| -> String {
        let is_in =
            |record: &&Given| record.key == *key && (*start..=start + difference).contains(&record.timestamp);
        records
            .iter()
            .filter(is_in)
            .filter_map(|record| record.value.as_deref())
            .collect()
    };
    let windows: BTreeSet<_> = starts.collect();
    windows
        .into_iter()
        .map(|window| (window.clone(), value(&window)))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn there_is_a_window_for_each_set_of_records(difference in 0..25i64, records in input(), breaks in breaks()) {
        let plan = planned_sliding(difference, 1_000, "OnUpdate");
        let straight = drive(&plan, &records, &[]);
        let last: BTreeMap<_, _> = results(&straight.0).into_iter().collect();
        prop_assert_eq!(last, by_the_rules(difference, &records));
        prop_assert_eq!(drive(&plan, &records, &breaks), straight);
    }

    /// In the order of time nothing is late: whatever grace is, each window is sent once, with all of its records.
    #[test]
    fn a_window_is_sent_once_with_all_of_its_records(
        difference in 0..25i64,
        grace in 0..20i64,
        mut records in input(),
        breaks in breaks(),
    ) {
        records.sort_by_key(|record| record.timestamp);
        let wanted = by_the_rules(difference, &records);
        records.push(Given { source: 0, key: "end".to_owned(), value: Some("end".to_owned()), timestamp: 1_000 });
        let plan = planned_sliding(difference, grace, "OnWindowClose");
        let straight = drive(&plan, &records, &[]);
        let sent = results(&straight.0);
        prop_assert_eq!(sent.len(), wanted.len());
        prop_assert_eq!(sent.into_iter().collect::<BTreeMap<_, _>>(), wanted);
        prop_assert_eq!(drive(&plan, &records, &breaks), straight);
    }

    /// Late records, too: a window that is sent is not sent again, and what is read no more is gone.
    #[test]
    fn what_is_closed_stays_closed(
        difference in 0..25i64,
        grace in 0..20i64,
        mut records in input(),
        breaks in breaks(),
    ) {
        let plan = planned_sliding(difference, grace, "OnWindowClose");
        records.push(Given { source: 0, key: "end".to_owned(), value: Some("end".to_owned()), timestamp: 1_000 });
        let straight = drive(&plan, &records, &[]);
        let sent = results(&straight.0);
        let windows: BTreeSet<_> = sent.iter().map(|(window, _)| window).collect();
        prop_assert_eq!(windows.len(), sent.len());
        // The stream time, and the window that ends with the last record, twice.
        prop_assert_eq!(straight.1[0].values.len(), 3);
        prop_assert_eq!(drive(&plan, &records, &breaks), straight);
    }
}

/// The first window that is open lies behind a record whose own windows are closed.
#[test]
fn a_closed_window_is_read_as_long_as_one_behind_its_last_record_is_open() {
    let plan = planned_sliding(10, 0, "OnWindowClose");
    let given = |key: &str, value: &str, timestamp| Given {
        source: 0,
        key: key.to_owned(),
        value: Some(value.to_owned()),
        timestamp,
    };
    for late in 20..=29 {
        let records = [
            given("k", "a", 19),
            given("other", "x", 30),
            given("k", "b", late),
            given("other", "x", 100),
        ];
        let sent = results(&drive(&plan, &records, &[]).0);
        let of_k: Vec<_> = sent.into_iter().filter(|((key, _), _)| key == "k").collect();
        let window = |start, value: &str| (("k".to_owned(), start), value.to_owned());
        assert_eq!(of_k, [window(9, "a"), window(20, "b")], "{late}");
    }
}
