//! Versions of a table, records that wait for them, and updates that wait: by the rules, wherever transactions end.

use std::collections::BTreeMap;

use super::breaks::{Given, breaks, drive, lines};
use super::*;

fn planned_of(mut declaration: serde_json::Value) -> Arc<Plan> {
    for list in ["streams", "tables"] {
        let sources = declaration
            .get_mut(list)
            .and_then(serde_json::Value::as_array_mut);
        for source in sources.into_iter().flatten() {
            let source = source.as_object_mut().unwrap();
            source.insert("topic".to_owned(), source["name"].clone());
            source.insert("key".to_owned(), json!({"serde": "String"}));
            source.insert("value".to_owned(), json!({"serde": "String"}));
        }
    }
    declaration["language"] = json!("v1");
    Arc::new(topology::plan(&serde_json::from_value(declaration).unwrap()).unwrap())
}

/// A stream that is joined with a table as it was at the record's time.
fn as_of(retention_ms: i64, grace_ms: Option<i64>) -> Arc<Plan> {
    let mut join =
        json!({"with": "right", "name": "held", "expression": "left + '+' + (right == null ? '-' : right)"});
    if let Some(grace_ms) = grace_ms {
        join["grace"] = json!(format!("{grace_ms}ms"));
    }
    planned_of(json!({
        "streams": [{"name": "left"}],
        "tables": [{"name": "right", "historyRetention": format!("{retention_ms}ms")}],
        "pipelines": [{"name": "p", "from": "left", "steps": [{"leftJoin": join}], "to": {"topic": "out", "value": {"serde": "String"}}}],
    }))
}

fn suppressed(limit_ms: i64) -> Arc<Plan> {
    let suppress = json!({"store": "waiting", "untilTimeLimit": format!("{limit_ms}ms")});
    planned_of(json!({
        "tables": [{"name": "in"}],
        "pipelines": [{"name": "p", "from": "in", "steps": [{"suppress": suppress}, {"toStream": {}}], "to": {"topic": "out", "value": {"serde": "String"}}}],
    }))
}

/// What a table keeps, by the rules.
#[derive(Default)]
struct Versions {
    retention: i64,
    time: Option<i64>,
    /// By key and time.
    all: BTreeMap<String, BTreeMap<i64, Option<String>>>,
}

impl Versions {
    fn closed(&self) -> i64 {
        self.time.map_or(i64::MIN, |time| time - self.retention)
    }

    fn put(&mut self, given: &Given) {
        self.time = self.time.max(Some(given.timestamp));
        if given.timestamp >= self.closed() {
            let versions = self.all.entry(given.key.clone()).or_default();
            versions.insert(given.timestamp, given.value.clone());
        }
    }

    fn at(&self, key: &str, time: i64) -> Option<&String> {
        let versions = self.all.get(key)?;
        if time >= self.closed() {
            return versions.range(..=time).next_back()?.1.as_ref();
        }
        let (latest, value) = versions.last_key_value()?;
        value.as_ref().filter(|_| *latest <= time)
    }

    /// How many rows that takes, with those that say when one goes.
    fn rows(&self) -> usize {
        let closed = self.closed();
        let of_key = |versions: &BTreeMap<i64, Option<String>>| -> usize {
            let ends = versions.keys().skip(1).map(Some).chain([None]);
            let rows = |((time, value), end): ((&i64, &Option<String>), Option<&i64>)| match (value, end) {
                (Some(_), None) => 1,
                (Some(_), Some(end)) if *end > closed => 2,
                (None, _) if *time > closed => 2,
                _ => 0,
            };
            versions.iter().zip(ends).map(rows).sum()
        };
        usize::from(self.time.is_some()) + self.all.values().map(of_key).sum::<usize>()
    }
}

fn input(sources: usize) -> impl Strategy<Value = Vec<Given>> {
    let record = (0..sources, 0..3u8, any::<bool>(), 0..60i64);
    let given = |(number, (source, key, is_there, timestamp)): (usize, (usize, u8, bool, i64))| Given {
        source,
        key: format!("k{key}"),
        value: is_there.then(|| format!("v{number}")),
        timestamp,
    };
    proptest::collection::vec(record, 1..50)
        .prop_map(move |records| records.into_iter().enumerate().map(given).collect())
}

fn joined_by_the_rules(versions: &mut Versions, grace: Option<i64>, records: &[Given]) -> Vec<String> {
    let (mut results, mut time) = (Vec::new(), i64::MIN);
    let mut waiting = Vec::<(i64, String, usize, String)>::new();
    for (number, given) in records.iter().enumerate() {
        if given.source == 1 {
            versions.put(given);
            continue;
        }
        let Some(value) = &given.value else { continue };
        let join = |versions: &Versions, key: &str, value: &str, time: i64| {
            let right = versions.at(key, time).map_or("-", String::as_str);
            format!("{key}={value}+{right} at {time}")
        };
        time = time.max(given.timestamp);
        let closed = grace.map_or(i64::MAX, |grace| time - grace);
        if given.timestamp <= closed {
            results.push(join(versions, &given.key, value, given.timestamp));
        } else {
            waiting.push((given.timestamp, given.key.clone(), number, value.clone()));
        }
        waiting.sort();
        waiting.retain(|(at, key, _, value)| {
            if *at <= closed {
                results.push(join(versions, key, value, *at));
            }
            *at > closed
        });
    }
    results
}

fn suppressed_by_the_rules(limit: i64, records: &[Given]) -> Vec<String> {
    let (mut results, mut time) = (Vec::new(), i64::MIN);
    // By key: when the first update came, and the last one.
    let mut waiting = BTreeMap::<String, (i64, Given)>::new();
    for given in records {
        time = time.max(given.timestamp);
        let waits = waiting.entry(given.key.clone());
        waits
            .and_modify(|(_, last)| *last = given.clone())
            .or_insert_with(|| (given.timestamp, given.clone()));
        let mut due: Vec<_> = waiting
            .values()
            .filter(|(first, _)| *first <= time - limit)
            .cloned()
            .collect();
        due.sort_by_key(|(first, last)| (*first, last.key.clone()));
        for (_, last) in due {
            waiting.remove(&last.key);
            let value = last.value.as_deref().unwrap_or("null");
            results.push(format!("{}={value} at {}", last.key, last.timestamp));
        }
    }
    results
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(700))]

    #[test]
    fn a_record_is_joined_with_what_a_table_had_at_its_time(
        retention in 1..40i64,
        grace in proptest::option::of(0..20i64),
        records in input(2),
        breaks in breaks(),
    ) {
        let plan = as_of(retention, grace);
        let straight = drive(&plan, &records, &[]);
        let mut versions = Versions { retention, ..Versions::default() };
        let wanted = joined_by_the_rules(&mut versions, grace, &records);
        prop_assert_eq!(lines(straight.0.clone()), wanted);
        // What cannot be found any more is not there any more.
        let sub = &plan.sub_topologies[0];
        let table = sub.stores.iter().position(|store| store.name == "right").unwrap();
        prop_assert_eq!(straight.1[table].values.len(), versions.rows());
        prop_assert_eq!(drive(&plan, &records, &breaks), straight);
    }

    #[test]
    fn the_last_update_goes_on_when_the_first_one_has_waited_for_long_enough(
        limit in 0..30i64,
        records in input(1),
        breaks in breaks(),
    ) {
        let plan = suppressed(limit);
        let straight = drive(&plan, &records, &[]);
        prop_assert_eq!(lines(straight.0.clone()), suppressed_by_the_rules(limit, &records));
        prop_assert_eq!(drive(&plan, &records, &breaks), straight);
    }
}

#[test]
fn an_update_that_is_not_the_latest_is_none_of_the_table() {
    let plan = planned_of(json!({
        "tables": [{"name": "in", "historyRetention": "10ms"}],
        "pipelines": [{"name": "p", "from": "in", "steps": [{"toStream": {}}], "to": {"topic": "out", "value": {"serde": "String"}}}],
    }));
    let given = |value: &str, timestamp| Given {
        source: 0,
        key: "k".to_owned(),
        value: Some(value.to_owned()),
        timestamp,
    };
    let records = [
        given("a", 5),
        given("earlier", 4),
        given("b", 20),
        given("too late", 9),
    ];
    assert_eq!(lines(drive(&plan, &records, &[]).0), ["k=a at 5", "k=b at 20"]);
}

#[test]
fn of_two_updates_that_wait_the_last_one_goes_on_with_what_was_known_before() {
    let plan = planned_of(json!({
        "tables": [{"name": "in"}],
        "pipelines": [{"name": "p", "from": "in", "to": {"topic": "out", "value": {"serde": "Long"}}, "steps": [
            {"suppress": {"store": "waiting", "untilTimeLimit": "10ms"}},
            {"groupBy": {"key": "value"}},
            {"count": {"store": "counts"}},
            {"toStream": {}},
        ]}],
    }));
    let given = |key: &str, value: &str, timestamp| Given {
        source: 0,
        key: key.to_owned(),
        value: Some(value.to_owned()),
        timestamp,
    };
    let records = [
        given("k", "a", 0),
        given("tick", "t", 10),
        given("k", "b", 11),
        given("k", "c", 12),
        given("tick", "t", 30),
    ];
    let sent = drive(&plan, &records, &[]).0;
    let keys: Vec<_> = sent
        .into_iter()
        .map(|(_, key, ..)| String::from_utf8(key.unwrap()).unwrap())
        .collect();
    // Of `k`: `a` comes; then `a` goes and `c` comes, and nobody hears of `b`.
    assert_eq!(keys, ["a", "t", "a", "c"]);
}

/// Else what never came to a later table would be taken out of it.
#[test]
fn an_update_that_waited_and_fails_is_never_passed_over() {
    let plan = planned_of(json!({
        "tables": [{"name": "in", "onError": "Skip"}],
        "pipelines": [{"name": "p", "from": "in", "to": {"topic": "out", "value": {"serde": "Long"}}, "steps": [
            {"suppress": {"store": "waiting", "untilTimeLimit": "10ms"}},
            {"mapValues": {"expression": "int(value)"}},
            {"toStream": {}},
        ]}],
    }));
    let mut task = task(&plan, 0);
    let mut output = Collected::default();
    for (value, timestamp) in [("no number", 0), ("1", 20)] {
        let record = InputRecord {
            timestamp,
            ..record(0, Some(value), Some(value))
        };
        assert_eq!(task.process(0, &record, &mut output), Ok(Processed::Done));
    }
    for _ in 0..2 {
        let failed = task.close_next(&mut output).unwrap_err();
        assert_eq!(failed.category(), ErrorCategory::Expression);
    }
    assert_eq!(output.sent, []);
}
