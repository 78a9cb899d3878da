//! Joins and merges: what meets, in which order results come, and that nothing of it depends on where transactions end.

use topology::plan::{JoinWindows, Side, Unmatched};

use super::breaks::{Given, breaks, drive, lines};
use super::*;
use crate::{Driver, DriverRecord};

/// Two sources of String values under String keys, `left` and `right`, of these kinds, and a pipeline that reads `left`.
fn planned_join(kinds: (&str, &str), steps: serde_json::Value) -> Arc<Plan> {
    let source = |name: &str| json!({"name": name, "topic": name, "key": {"serde": "String"}, "value": {"serde": "String"}});
    let mut declaration = json!({
        "language": "v1",
        "pipelines": [{"name": "p", "from": "left", "steps": steps, "to": {"topic": "out", "value": {"serde": "String"}}}],
    });
    for (name, kind) in [("left", kinds.0), ("right", kinds.1)] {
        let lists = declaration.as_object_mut().unwrap();
        let list = lists.entry(kind).or_insert_with(|| json!([]));
        list.as_array_mut().unwrap().push(source(name));
    }
    Arc::new(topology::plan(&serde_json::from_value(declaration).unwrap()).unwrap())
}

/// A join whose values are those of both sides, `-` for one that is absent.
fn joining(step: &str, fields: serde_json::Value) -> serde_json::Value {
    let side = |name: &str, is_optional: bool| match is_optional {
        true => format!("({name} == null ? '-' : {name})"),
        false => name.to_owned(),
    };
    let (left, right) = (side("left", step == "outerJoin"), side("right", step != "join"));
    let mut join = json!({"with": "right", "expression": format!("{left} + '+' + {right}")});
    join.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    json!({step: join})
}

fn given(source: usize, key: &str, value: &str, timestamp: i64) -> Given {
    Given {
        source,
        key: key.to_owned(),
        value: (!value.is_empty()).then(|| value.to_owned()),
        timestamp,
    }
}

fn results(plan: &Arc<Plan>, records: &[Given]) -> Vec<String> {
    lines(drive(plan, records, &[]).0)
}

#[test]
fn a_record_is_joined_with_what_a_table_has_at_that_moment() {
    let records = [
        given(0, "k", "early", 10),
        given(1, "k", "a", 50),
        given(0, "k", "x", 20),
        given(1, "k", "b", 5),
        given(0, "k", "y", 30),
        given(1, "k", "", 60),
        given(0, "k", "late", 40),
    ];
    let plan = planned_join(("streams", "tables"), json!([joining("join", json!({}))]));
    assert_eq!(results(&plan, &records), ["k=x+a at 20", "k=y+b at 30"]);
    let plan = planned_join(("streams", "tables"), json!([joining("leftJoin", json!({}))]));
    let wanted = ["k=early+- at 10", "k=x+a at 20", "k=y+b at 30", "k=late+- at 40"];
    assert_eq!(results(&plan, &records), wanted);
}

#[test]
fn merged_streams_go_on_as_one() {
    let plan = planned_join(
        ("streams", "streams"),
        json!([{"filter": "value != 'no'"}, {"merge": {"with": ["right"]}}, {"mapValues": {"expression": "value + '!'"}}]),
    );
    let records = [
        given(0, "k", "no", 1),
        given(1, "k", "no", 2),
        given(0, "l", "yes", 3),
    ];
    assert_eq!(results(&plan, &records), ["k=no! at 2", "l=yes! at 3"]);
}

#[test]
fn records_of_two_streams_meet_within_their_time() {
    let fields = json!({"name": "j", "before": "10ms", "after": "5ms", "grace": "3ms"});
    let plan = planned_join(("streams", "streams"), json!([joining("join", fields)]));
    let records = [
        given(0, "k", "l20", 20),
        given(0, "k", "l20again", 20),
        given(0, "other", "x", 20),
        given(1, "k", "r10", 10),
        given(1, "k", "r9", 9),
        given(1, "k", "r25", 25),
        given(1, "k", "r26", 26),
        // Stream time 26: what could still be joined with the left records of 20 is of 25 at most, and may come until 28.
        given(1, "k", "r28", 28),
        given(1, "k", "late", 25),
        given(1, "k", "r29", 29),
        given(1, "k", "too late", 25),
    ];
    let wanted = [
        "k=l20+r10 at 20",
        "k=l20again+r10 at 20",
        "k=l20+r25 at 25",
        "k=l20again+r25 at 25",
        "k=l20+late at 25",
        "k=l20again+late at 25",
    ];
    assert_eq!(results(&plan, &records), wanted);
}

#[test]
fn more_records_of_one_time_than_can_be_told_apart_by_one_look_are_all_kept() {
    let fields = json!({"name": "j", "within": "1ms", "grace": "0ms"});
    let plan = planned_join(("streams", "streams"), json!([joining("join", fields)]));
    let mut records: Vec<_> = (0..100)
        .map(|number| given(0, "k", &format!("{number:02}"), 5))
        .collect();
    records.push(given(1, "k", "r", 5));
    let wanted: Vec<_> = (0..100).map(|number| format!("k={number:02}+r at 5")).collect();
    assert_eq!(results(&plan, &records), wanted);
}

#[test]
fn a_stream_is_joined_with_itself() {
    let join = json!({"with": "left", "name": "j", "within": "10ms", "grace": "0ms", "expression": "left + '+' + right"});
    let declaration = json!({
        "language": "v1",
        "streams": [{"name": "left", "topic": "left", "key": {"serde": "String"}, "value": {"serde": "String"}}],
        "pipelines": [{"name": "p", "from": "left", "steps": [{"join": join}], "to": {"topic": "out", "value": {"serde": "String"}}}],
    });
    let plan = Arc::new(topology::plan(&serde_json::from_value(declaration).unwrap()).unwrap());
    let records = [given(0, "k", "a", 1), given(0, "k", "b", 2)];
    let wanted = ["k=a+a at 1", "k=b+a at 2", "k=a+b at 2", "k=b+b at 2"];
    assert_eq!(results(&plan, &records), wanted);
}

#[test]
fn a_record_whose_join_fails_when_its_time_is_over_is_passed_over_where_the_stream_says_so() {
    let fields = json!({"name": "j", "within": "1ms", "grace": "0ms"});
    let mut join = joining("leftJoin", fields);
    join["leftJoin"]["expression"] = json!("right == null ? string(1 / int(left)) : right");
    let mut declaration = json!({
        "language": "v1",
        "streams": [
            {"name": "left", "topic": "left", "key": {"serde": "String"}, "value": {"serde": "String"}, "onError": "Skip"},
            {"name": "right", "topic": "right", "key": {"serde": "String"}, "value": {"serde": "String"}},
        ],
        "pipelines": [{"name": "p", "from": "left", "steps": [join], "to": {"topic": "out", "value": {"serde": "String"}}}],
    });
    let plan = |declaration: &serde_json::Value| {
        Arc::new(topology::plan(&serde_json::from_value(declaration.clone()).unwrap()).unwrap())
    };
    let records = [
        given(0, "k", "0", 1),
        given(0, "l", "1", 1),
        given(0, "m", "1", 100),
    ];
    let (sent, mut stores) = drive(&plan(&declaration), &records, &[]);
    assert_eq!(lines(sent), ["l=1 at 1"]);
    assert_eq!(stores.remove(0).values.len(), 3, "stream time, and two rows of m");

    declaration["streams"][0]["onError"] = json!("Fail");
    let plan = plan(&declaration);
    let mut task = task(&plan, 0);
    let mut output = Collected::default();
    for (at, key, value) in [(1, "k", "0"), (100, "m", "1")] {
        let record = InputRecord {
            timestamp: at,
            ..record(at, Some(key), Some(value))
        };
        task.process(0, &record, &mut output).unwrap();
    }
    let error = task.close_next(&mut output).unwrap_err().to_string();
    assert!(
        error.contains("store `j`") && error.contains("division by zero"),
        "{error}"
    );
}

/// Kinds of joins of two streams, and of tables: what becomes of a value alone.
fn kinds() -> impl Strategy<Value = (&'static str, Unmatched, Unmatched)> {
    prop_oneof![
        Just(("join", Unmatched::Dropped, Unmatched::Dropped)),
        Just(("leftJoin", Unmatched::Forwarded, Unmatched::Dropped)),
        Just(("outerJoin", Unmatched::Forwarded, Unmatched::Forwarded)),
    ]
}

fn input() -> impl Strategy<Value = Vec<Given>> {
    let time = prop_oneof![4 => 0..40i64, 1 => 0..200i64];
    let record = (0..2usize, 0..3u8, 0..5u8, time);
    let given = |(number, (source, key, value, timestamp)): (usize, (usize, u8, u8, i64))| {
        let value = if value == 0 {
            String::new()
        } else {
            format!("v{number}")
        };
        given(source, &format!("k{key}"), &value, timestamp)
    };
    proptest::collection::vec(record, 1..40)
        .prop_map(move |records| records.into_iter().enumerate().map(given).collect())
}

/// A record that is kept, in the order in which it is forgotten.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Remembered {
    last: i64,
    time: i64,
    is_left: bool,
    key: String,
    number: usize,
    value: String,
    is_joined: bool,
}

/// Joins of streams, by the rules.
fn streams_by_the_rules(
    windows: JoinWindows,
    alone: (Unmatched, Unmatched),
    records: &[Given],
) -> Vec<String> {
    let (mut kept, mut time, mut results) = (Vec::<Remembered>::new(), i64::MIN, Vec::new());
    let has_alone = |is_left: bool| {
        let alone = if is_left { alone.0 } else { alone.1 };
        alone == Unmatched::Forwarded
    };
    let line = |key: &str, is_left: bool, own: &str, other: &str, at: i64| {
        let (left, right) = if is_left { (own, other) } else { (other, own) };
        format!("{key}={left}+{right} at {at}")
    };
    for (number, given) in records.iter().enumerate() {
        let Some(value) = &given.value else { continue };
        let (is_left, at) = (given.source == 0, given.timestamp);
        let side = if is_left { Side::Left } else { Side::Right };
        time = time.max(at);
        // How much earlier and later than this record one of the other stream may be.
        let (earlier, later) = match side {
            Side::Left => (windows.before_ms, windows.after_ms),
            Side::Right => (windows.after_ms, windows.before_ms),
        };
        kept.sort_by_key(|kept| (kept.time, kept.number));
        let mut is_joined = false;
        for other in kept
            .iter_mut()
            .filter(|other| other.is_left != is_left && other.key == given.key)
        {
            if (at - earlier..=at + later).contains(&other.time) {
                is_joined = true;
                other.is_joined = true;
                results.push(line(&given.key, is_left, value, &other.value, at.max(other.time)));
            }
        }
        let last = at + later;
        if last + windows.grace_ms >= time {
            kept.push(Remembered {
                last,
                time: at,
                is_left,
                key: given.key.clone(),
                number,
                value: value.clone(),
                is_joined,
            });
        } else if !is_joined && has_alone(is_left) {
            results.push(line(&given.key, is_left, value, "-", at));
        }
        kept.sort();
        kept.retain(|kept| {
            let is_over = kept.last + windows.grace_ms < time;
            if is_over && !kept.is_joined && has_alone(kept.is_left) {
                results.push(line(&kept.key, kept.is_left, &kept.value, "-", kept.time));
            }
            !is_over
        });
    }
    results
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn streams_are_joined_by_the_rules_wherever_transactions_end_or_tasks_crash(
        (step, left, right) in kinds(),
        (before_ms, after_ms, grace_ms) in (0..15i64, 0..15i64, 0..15i64),
        records in input(),
        breaks in breaks(),
    ) {
        let windows = JoinWindows { before_ms, after_ms, grace_ms };
        let [before, after, grace] = [before_ms, after_ms, grace_ms].map(|ms| format!("{ms}ms"));
        let fields = json!({"name": "j", "before": before, "after": after, "grace": grace});
        let plan = planned_join(("streams", "streams"), json!([joining(step, fields)]));
        let straight = drive(&plan, &records, &[]);
        let wanted = streams_by_the_rules(windows, (left, right), &records);
        prop_assert_eq!(lines(straight.0.clone()), wanted);
        prop_assert_eq!(drive(&plan, &records, &breaks), straight);
    }

    /// The results, taken as a table, are the join of both tables after each record, and nothing is said that was known.
    #[test]
    fn the_join_of_tables_is_a_table(
        (step, left, right) in kinds(),
        records in input(),
        breaks in breaks(),
    ) {
        let steps = json!([joining(step, json!({"name": "kept"})), {"toStream": {}}]);
        let plan = planned_join(("tables", "tables"), steps);
        let straight = drive(&plan, &records, &[]);
        let mut tables = [BTreeMap::new(), BTreeMap::new()];
        let mut results = straight.0.clone().into_iter();
        let mut joined = BTreeMap::new();
        for given in &records {
            let was = joined.contains_key(&given.key);
            match &given.value {
                Some(value) => tables[given.source].insert(given.key.clone(), (value.clone(), given.timestamp)),
                None => tables[given.source].remove(&given.key),
            };
            let value = match (tables[0].get(&given.key), tables[1].get(&given.key)) {
                (Some((left, _)), Some((right, _))) => Some(format!("{left}+{right}")),
                (Some((value, _)), None) if left == Unmatched::Forwarded => Some(format!("{value}+-")),
                (None, Some((value, _))) if right == Unmatched::Forwarded => Some(format!("-+{value}")),
                _ => None,
            };
            if was || value.is_some() {
                let (_, key, found, at) = results.next().unwrap();
                prop_assert_eq!(key.unwrap(), given.key.clone().into_bytes());
                prop_assert_eq!(found, value.clone().map(String::into_bytes));
                let other = tables[1 - given.source].get(&given.key).map_or(i64::MIN, |(_, at)| *at);
                prop_assert_eq!(at, given.timestamp.max(other));
            }
            match value {
                Some(value) => joined.insert(given.key.clone(), value),
                None => joined.remove(&given.key),
            };
        }
        prop_assert_eq!(results.next(), None);
        prop_assert_eq!(straight.1.last().unwrap().values.len(), joined.len());
        prop_assert_eq!(drive(&plan, &records, &breaks), straight);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// An update changes several tables that are joined with each other: each join takes back what it had sent.
    #[test]
    fn a_table_is_joined_with_what_is_made_of_it(
        records in proptest::collection::vec((0..3u8, proptest::option::of(1..12i64)), 1..30),
    ) {
        let long = |topic: &str| json!({"topic": topic, "value": {"serde": "Long"}});
        let remove = "aggregate == value ? null : aggregate - value";
        let sums = json!({"store": "sums", "initial": "0", "add": "aggregate + value", "remove": remove});
        let made = json!([{"filter": "value % 3 != 0"}, {"mapValues": {"expression": "value * 10"}}, {"toTable": {"store": "made"}}]);
        let joined = json!([
            {"join": {"with": "in", "name": "once", "expression": "left + right"}},
            {"join": {"with": "in", "name": "twice", "expression": "left * 100 + right"}},
        ]);
        let declared = json!({
            "language": "v1",
            "tables": [{"name": "in", "topic": "in", "key": {"serde": "String"}, "value": {"serde": "Long"}}],
            "pipelines": [
                {"name": "made", "from": "in", "steps": made},
                {"name": "joined", "from": "made", "steps": joined},
                {"name": "out", "from": "joined", "steps": [{"toStream": {}}], "to": long("out")},
                {"name": "sums", "from": "joined", "to": long("sums"),
                 "steps": [{"groupBy": {"key": "string(value % 2)"}}, {"aggregate": sums}, {"toStream": {}}]},
            ],
        });
        let plan = Arc::new(topology::plan(&serde_json::from_value(declared).unwrap()).unwrap());
        let mut driver = Driver::new(plan, 1);
        let (mut table, mut shown) = (BTreeMap::new(), BTreeMap::new());
        for (key, value) in records {
            let key = key.to_string();
            let record = DriverRecord {
                topic: TopicName::External("in".into()),
                partition: 0,
                key: Some(key.clone().into_bytes()),
                value: value.map(|value| value.to_be_bytes().to_vec()),
                headers: Vec::new(),
                timestamp: 0,
            };
            for output in driver.pipe(record).unwrap().outputs {
                let place = (output.topic.to_string(), String::from_utf8(output.key.unwrap()).unwrap());
                keep_last(&mut shown, place, output.value.map(number));
            }
            keep_last(&mut table, key, value);
            let mut wanted = BTreeMap::new();
            for (key, value) in table.iter().filter(|(_, value)| *value % 3 != 0) {
                let twice = value * 11 * 100 + value;
                wanted.insert(("out".to_owned(), key.clone()), twice);
                *wanted.entry(("sums".to_owned(), (twice % 2).to_string())).or_insert(0) += twice;
            }
            prop_assert_eq!(&shown, &wanted);
        }
    }
}
