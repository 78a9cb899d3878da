//! Windows: which records they take, when they close, and that nothing of it depends on where transactions end.

use super::breaks::{Break, Given, breaks};
use super::*;

fn windowed(windowed_by: serde_json::Value, emit: &str, stream: serde_json::Value) -> Arc<Plan> {
    let steps = json!([
        {"groupByKey": {}},
        {"windowedBy": windowed_by},
        {"sum": {"store": "sums", "of": "value.amount", "emit": emit}},
        {"toStream": {}},
        {"map": {
            "key": "key.key + '@' + string(int(key.windowStart)) + '-' + string(int(key.windowEnd))",
            "expression": "12 / value * value",
        }},
    ]);
    planned(stream, steps, "Long")
}

fn hopping(emit: &str) -> Arc<Plan> {
    let windows = json!({"hopping": {"size": "10ms", "advance": "5ms", "grace": "3ms"}});
    windowed(windows, emit, json!({}))
}

/// Processes a record at this time and closes what it closes; results as text.
fn pipe(task: &mut Task<MemoryStore>, key: &str, amount: i64, timestamp: i64) -> (Processed, Vec<String>) {
    let mut output = Collected::default();
    let value = order(amount);
    let record = InputRecord {
        timestamp,
        ..record(0, Some(key), Some(&value))
    };
    let processed = task.process(0, &record, &mut output).unwrap();
    while let Some(closed) = task.close_next(&mut output).unwrap() {
        assert_eq!(closed, Processed::Done);
    }
    (processed, lines(output.sent))
}

fn lines(sent: Vec<Sent>) -> Vec<String> {
    let line = |(_, key, value, timestamp): Sent| {
        let key = String::from_utf8(key.unwrap()).unwrap();
        let value = value.map(|value| i64::from_be_bytes(value.try_into().unwrap()));
        format!("{key}={} at {timestamp}", value.unwrap())
    };
    sent.into_iter().map(line).collect()
}

#[test]
fn each_update_goes_on_until_grace_is_over() {
    let mut task = task(&hopping("OnUpdate"), 0);
    let done = |lines: &[&str]| {
        let lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
        (Processed::Done, lines)
    };
    assert_eq!(pipe(&mut task, "k", 1, 3), done(&["k@0-10=12 at 3"]));
    assert_eq!(
        pipe(&mut task, "k", 2, 7),
        done(&["k@0-10=12 at 7", "k@5-15=12 at 7"])
    );
    // Stream time 12: the first window's grace ends at 13.
    assert_eq!(
        pipe(&mut task, "k", 4, 12),
        done(&["k@5-15=12 at 12", "k@10-20=12 at 12"])
    );
    assert_eq!(pipe(&mut task, "k", 3, 0), done(&["k@0-10=12 at 7"]));
    assert_eq!(pipe(&mut task, "l", 1, 13).0, Processed::Done);
    // Of two windows one is closed, of one that one.
    assert_eq!(pipe(&mut task, "k", 6, 9), done(&["k@5-15=12 at 12"]));
    assert_eq!(
        pipe(&mut task, "k", 1, 4),
        (Processed::Dropped(DropReason::Late), vec![])
    );
    task.commit_in_memory();
    let keys = task.stores()[0].values.keys();
    let starts: Vec<_> = keys.map(|key| key.get(7).copied()).collect();
    assert_eq!(
        starts,
        [None, Some(5), Some(5), Some(10), Some(10)],
        "stream time, and no closed window"
    );
}

#[test]
fn a_result_goes_on_once_when_its_window_closes() {
    let mut task = task(&hopping("OnWindowClose"), 0);
    for (key, amount, timestamp) in [("b", 1, 3), ("a", 2, 4), ("b", 1, 8), ("a", 2, 12)] {
        assert_eq!(pipe(&mut task, key, amount, timestamp), (Processed::Done, vec![]));
    }
    let closed = ["a@0-10=12 at 4", "b@0-10=12 at 8"].map(str::to_owned).to_vec();
    assert_eq!(pipe(&mut task, "c", 1, 13), (Processed::Done, closed));
    // The next record closes all that others have left.
    let closed = [
        "a@5-15=12 at 12",
        "b@5-15=12 at 8",
        "c@5-15=12 at 13",
        "a@10-20=12 at 12",
        "c@10-20=12 at 13",
    ];
    assert_eq!(
        pipe(&mut task, "d", 1, 1_000_000),
        (Processed::Done, closed.map(str::to_owned).to_vec())
    );
    task.commit_in_memory();
    assert_eq!(
        task.stores()[0].values.len(),
        1 + 2,
        "stream time and the windows of d"
    );
}

#[test]
fn more_windows_than_are_taken_at_once_close_in_order() {
    let windows = json!({"tumbling": {"size": "10ms", "grace": "0s"}});
    let mut task = task(&windowed(windows, "OnWindowClose", json!({})), 0);
    for number in 0..1_000 {
        pipe(&mut task, &format!("k{number:04}"), 1, 5);
        if number == 600 {
            task.commit_in_memory();
        }
    }
    let (_, closed) = pipe(&mut task, "z", 1, 10);
    let wanted: Vec<_> = (0..1_000)
        .map(|number| format!("k{number:04}@0-10=12 at 5"))
        .collect();
    assert_eq!(closed, wanted);
    assert_eq!(pipe(&mut task, "z", 1, 19), (Processed::Done, vec![]));
}

#[test]
fn a_window_whose_result_fails_is_passed_over_where_the_stream_says_so() {
    let windows = json!({"tumbling": {"size": "10ms", "grace": "0s"}});
    let plan = |stream| windowed(windows.clone(), "OnWindowClose", stream);
    let letters = json!({"onError": "DeadLetter", "deadLetterTopic": "dead"});
    for (stream, wanted) in [
        (json!({}), "fail"),
        (json!({"onError": "Skip"}), "skip"),
        (letters, "letter"),
    ] {
        let plan = plan(stream);
        let mut task = task(&plan, 0);
        for (key, amount) in [("a", 1), ("b", 0), ("c", 1)] {
            pipe(&mut task, key, amount, 7);
        }
        let mut output = Collected::default();
        let value = order(1);
        let next = InputRecord {
            timestamp: 20,
            ..record(0, Some("d"), Some(&value))
        };
        task.process(0, &next, &mut output).unwrap();
        assert_eq!(task.close_next(&mut output), Ok(Some(Processed::Done)));
        let second = task.close_next(&mut output);
        let place = "window from 0 of key \"b\" in store `sums`: division by zero in `/`";
        match wanted {
            "fail" => {
                let error = second.unwrap_err();
                assert!(error.to_string().starts_with(place), "{error}");
                assert_eq!(error.step, "spec.topology.pipelines[0].steps[4]");
                // It stays where it is.
                assert_eq!(task.close_next(&mut output), Err(error));
                continue;
            }
            "skip" => {
                let Ok(Some(Processed::Skipped(bad))) = second else {
                    panic!("{second:?}")
                };
                assert_eq!(bad.to_string(), place);
            }
            _ => {
                let Ok(Some(Processed::DeadLettered(bad))) = second else {
                    panic!("{second:?}")
                };
                assert_eq!(bad.to_string(), place);
                let (sink, key, _, timestamp) = output.sent.pop().unwrap();
                let dead = plan.sub_topologies[0].sources[0].dead_letters.unwrap();
                assert_eq!((sink, key, timestamp), (dead, Some(b"b".to_vec()), 7));
                let headers: Vec<_> = output
                    .headers
                    .iter()
                    .map(|(name, value)| (&**name, &**value))
                    .collect();
                assert_eq!(
                    headers[..2],
                    [
                        ("streamapp.errors.store", "sums"),
                        ("streamapp.errors.window-start", "0")
                    ]
                );
            }
        }
        assert_eq!(task.close_next(&mut output), Ok(Some(Processed::Done)));
        assert_eq!(task.close_next(&mut output), Ok(None));
        assert_eq!(lines(output.sent), ["a@0-10=12 at 7", "c@0-10=12 at 7"]);
        task.commit_in_memory();
        assert_eq!(task.stores()[0].values.len(), 2, "stream time and d");
    }
}

#[test]
fn a_record_that_fails_does_not_move_the_operators_time() {
    let windows = json!({"tumbling": {"size": "10ms", "grace": "0s"}});
    let mut task = task(&windowed(windows, "OnUpdate", json!({"onError": "Skip"})), 0);
    pipe(&mut task, "k", 1, 5);
    // Its result cannot be divided by.
    let (processed, _) = pipe(&mut task, "l", 0, 100);
    assert!(matches!(processed, Processed::Skipped(_)), "{processed:?}");
    assert_eq!(pipe(&mut task, "k", 1, 6).1, ["k@0-10=12 at 6"]);
}

#[test]
fn a_damaged_row_stops_the_task_with_the_stores_name() {
    let mut task = task(&hopping("OnWindowClose"), 0);
    pipe(&mut task, "k", 1, 5);
    task.commit_in_memory();
    let damage = |row: &mut Vec<u8>| row.truncate(3);
    task.stores_mut()[0].values.values_mut().skip(1).for_each(damage);
    let (mut output, value) = (Collected::default(), order(1));
    let next = InputRecord {
        timestamp: 50,
        ..record(0, Some("d"), Some(&value))
    };
    task.process(0, &next, &mut output).unwrap();
    let error = task.close_next(&mut output).unwrap_err();
    assert_eq!(error.category(), ErrorCategory::StoreRead);
    assert!(
        error.to_string().contains("store `sums`: the row has 3 bytes"),
        "{error}"
    );
    task.discard();
    task.stores_mut()[0].values.values_mut().for_each(damage);
    let error = task.process(0, &next, &mut output).unwrap_err();
    assert!(
        error.to_string().contains("store `sums`: stream time: the row"),
        "{error}"
    );
    let error = task.close_next(&mut output).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("windows of store `sums`: store `sums`: stream time"),
        "{error}"
    );
}

#[test]
fn records_that_are_near_to_each_other_are_one_session() {
    let windows = json!({"session": {"gap": "10ms", "grace": "5ms"}});
    let mut task = task(&windowed(windows, "OnWindowClose", json!({})), 0);
    for (key, timestamp) in [("k", 0), ("l", 3), ("k", 11), ("k", 5)] {
        assert_eq!(pipe(&mut task, key, 1, timestamp), (Processed::Done, vec![]));
    }
    // A session is over when gap and grace behind its end are: that of l before stream time 19.
    assert_eq!(pipe(&mut task, "m", 1, 18).1, Vec::<String>::new());
    assert_eq!(pipe(&mut task, "m", 1, 19).1, ["l@3-3=12 at 3"]);
    assert_eq!(
        pipe(&mut task, "l", 1, 3),
        (Processed::Dropped(DropReason::Late), vec![])
    );
    assert_eq!(pipe(&mut task, "l", 1, 4), (Processed::Done, vec![]));
    assert_eq!(
        pipe(&mut task, "z", 1, 1_000).1,
        ["l@4-4=12 at 4", "k@0-11=12 at 11", "m@18-19=12 at 19"]
    );
    task.commit_in_memory();
    assert_eq!(
        task.stores()[0].values.len(),
        3,
        "stream time, the list of z and its window"
    );
}

#[test]
fn a_session_that_cannot_be_closed_is_passed_over_with_both_of_its_rows() {
    let windows = json!({"session": {"gap": "10ms", "grace": "0s"}});
    let stream = json!({"onError": "DeadLetter", "deadLetterTopic": "dead"});
    let mut task = task(&windowed(windows, "OnWindowClose", stream), 0);
    pipe(&mut task, "k", 0, 1);
    let (mut output, value) = (Collected::default(), order(1));
    let next = InputRecord {
        timestamp: 100,
        ..record(0, Some("z"), Some(&value))
    };
    task.process(0, &next, &mut output).unwrap();
    let closed = task.close_next(&mut output);
    assert!(
        matches!(closed, Ok(Some(Processed::DeadLettered(_)))),
        "{closed:?}"
    );
    let (_, key, list, timestamp) = output.sent.pop().unwrap();
    assert_eq!((key, list.unwrap().len()), (Some(b"k".to_vec()), 13));
    assert_eq!(timestamp, 1, "that of the window's end");
    let deleted: Vec<_> = task.changes(0).filter(|change| change.value.is_none()).collect();
    assert_eq!(
        deleted.iter().map(|change| change.timestamp).collect::<Vec<_>>(),
        [1, 1]
    );
    task.commit_in_memory();
    assert_eq!(
        task.stores()[0].values.len(),
        3,
        "stream time, the list of z and its window"
    );
}

fn deduplicating(step: serde_json::Value) -> Arc<Plan> {
    planned(
        json!({"onError": "Skip"}),
        json!([{"deduplicate": step}, {"mapValues": {"expression": "6 / value.amount"}}]),
        "Long",
    )
}

#[test]
fn a_record_that_came_before_is_dropped() {
    let step = json!({"store": "seen", "by": "value.amount", "within": "10ms"});
    let mut task = task(&deduplicating(step), 0);
    let dropped = |reason| (Processed::Dropped(reason), vec![]);
    let sent = |line: &str| (Processed::Done, vec![line.to_owned()]);
    assert_eq!(pipe(&mut task, "k", 1, 20), sent("k=6 at 20"));
    assert_eq!(pipe(&mut task, "k", 1, 30), dropped(DropReason::Duplicate));
    assert_eq!(pipe(&mut task, "k", 2, 30), sent("k=3 at 30"));
    assert_eq!(pipe(&mut task, "l", 1, 30), sent("l=6 at 30"));
    // Before the first one, but near to it.
    assert_eq!(pipe(&mut task, "k", 1, 20), dropped(DropReason::Duplicate));
    // One that fails was not there.
    assert!(matches!(pipe(&mut task, "k", 0, 30).0, Processed::Skipped(_)));
    assert!(matches!(pipe(&mut task, "k", 0, 30).0, Processed::Skipped(_)));
    assert_eq!(pipe(&mut task, "k", 1, 31), sent("k=6 at 31"));
    assert_eq!(pipe(&mut task, "m", 1, 20), dropped(DropReason::Late));
    assert_eq!(pipe(&mut task, "m", 1, 21), sent("m=6 at 21"));
    // All that is forgotten leaves the store.
    assert_eq!(pipe(&mut task, "z", 1, 1_000), sent("z=6 at 1000"));
    task.commit_in_memory();
    assert_eq!(task.stores()[0].values.len(), 3);
}

#[test]
fn without_an_expression_the_key_says_what_is_the_same() {
    let mut task = task(&deduplicating(json!({"store": "seen", "within": "10ms"})), 0);
    assert_eq!(pipe(&mut task, "k", 1, 20).0, Processed::Done);
    assert_eq!(
        pipe(&mut task, "k", 2, 20).0,
        Processed::Dropped(DropReason::Duplicate)
    );
    assert_eq!(pipe(&mut task, "l", 2, 20).0, Processed::Done);
}

/// Kinds of windows; records with key, amount and time.
fn input() -> impl Strategy<Value = (serde_json::Value, Vec<(u8, i8, i64)>)> {
    let windows = (1..12i64, 1..12i64, 0..12i64).prop_map(|(size, advance, grace)| {
        let (size, advance) = (size.max(advance), advance);
        json!({"hopping": {"size": format!("{size}ms"), "advance": format!("{advance}ms"), "grace": format!("{grace}ms")}})
    });
    let time = prop_oneof![4 => 0..40i64, 1 => 0..400i64];
    let records = proptest::collection::vec((0u8..4, 1i8..100, time), 1..40);
    (windows, records)
}

/// Sessions, by the rules: all windows of a key that a record is near to become one with it.
fn sessions_by_the_rules(windows: topology::plan::SessionWindows, records: &[(u8, i8, i64)]) -> Vec<String> {
    let mut open = Vec::<(i64, i64, u8, i64)>::new();
    let (mut time, mut results) = (i64::MIN, Vec::new());
    let close = |open: &mut Vec<(i64, i64, u8, i64)>, time: i64, results: &mut Vec<String>| {
        open.sort_unstable();
        let (closed, still) = open
            .iter()
            .partition::<Vec<_>, _>(|(end, ..)| end + windows.gap_ms + windows.grace_ms < time);
        results.extend(
            closed
                .into_iter()
                .map(|(end, start, key, sum)| format!("{key}@{start}-{end}={} at {end}", 12 / sum * sum)),
        );
        *open = still;
    };
    for (key, amount, timestamp) in records {
        time = time.max(*timestamp);
        let is_near = |(end, start, of, _): &(i64, i64, u8, i64)| {
            of == key && *end >= timestamp - windows.gap_ms && *start <= timestamp + windows.gap_ms
        };
        let (near, mut others) = open.iter().copied().partition::<Vec<_>, _>(is_near);
        let start = near.iter().map(|session| session.1).fold(*timestamp, i64::min);
        let end = near.iter().map(|session| session.0).fold(*timestamp, i64::max);
        if end + windows.gap_ms + windows.grace_ms >= time {
            let sum = near.iter().map(|session| session.3).sum::<i64>() + i64::from(*amount);
            others.push((end, start, *key, sum));
            open = others;
        }
        close(&mut open, time, &mut results);
    }
    results
}

/// The committed results and the store.
fn drive(
    plan: &Arc<Plan>,
    records: &[(u8, i8, i64)],
    breaks: &[Option<Break>],
) -> (Vec<String>, MemoryStore) {
    let records = records.iter().map(|(key, amount, timestamp)| Given {
        source: 0,
        key: key.to_string(),
        value: Some(order((*amount).into())),
        timestamp: *timestamp,
    });
    let (sent, mut stores) = breaks::drive(plan, &records.collect::<Vec<_>>(), breaks);
    (lines(sent), stores.remove(0))
}

/// The same by the rules, over all records so far.
fn by_the_rules(windows: topology::plan::TimeWindows, records: &[(u8, i8, i64)]) -> Vec<String> {
    let mut open = std::collections::BTreeMap::<(i64, u8), (i64, i64)>::new();
    let (mut time, mut results) = (i64::MIN, Vec::new());
    let is_closed = |start: i64, time: i64| start + windows.size_ms + windows.grace_ms <= time;
    for (key, amount, timestamp) in records {
        time = time.max(*timestamp);
        for start in (0..=*timestamp).filter(|start| start % windows.advance_ms == 0) {
            if start + windows.size_ms > *timestamp && !is_closed(start, time) {
                let (sum, at) = open.entry((start, *key)).or_insert((0, i64::MIN));
                *sum += i64::from(*amount);
                *at = (*at).max(*timestamp);
            }
        }
        while let Some(first) = open.first_entry().filter(|first| is_closed(first.key().0, time)) {
            let ((start, key), (sum, at)) = first.remove_entry();
            let (end, value) = (start + windows.size_ms, 12 / sum * sum);
            results.push(format!("{key}@{start}-{end}={value} at {at}"));
        }
    }
    results
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn duplicates_are_the_same_ones_wherever_transactions_end_or_tasks_crash(
        within in 1..20i64,
        (_, records) in input(),
        breaks in breaks(),
    ) {
        let records: Vec<_> = records.into_iter().map(|(key, amount, at)| (key, amount % 2 + 2, at)).collect();
        let step = json!({"store": "sums", "by": "value.amount", "within": format!("{within}ms")});
        let plan = deduplicating(step);
        let straight = drive(&plan, &records, &[]);
        let (mut kept, mut time, mut wanted) = (Vec::<(u8, i8, i64)>::new(), i64::MIN, Vec::new());
        for (key, amount, at) in &records {
            time = time.max(*at);
            kept.retain(|(.., before)| before + within >= time);
            let is_same = |(of, by, before): &(u8, i8, i64)| (of, by) == (key, amount) && (before - at).abs() <= within;
            if at + within >= time && !kept.iter().any(is_same) {
                kept.push((*key, *amount, *at));
                wanted.push(format!("{key}={} at {at}", 6 / i64::from(*amount)));
            }
        }
        prop_assert_eq!(&straight.0, &wanted);
        prop_assert_eq!(&drive(&plan, &records, &breaks), &straight);
    }

    #[test]
    fn sessions_close_by_the_rules_wherever_transactions_end_or_tasks_crash(
        (gap, grace) in (1..12i64, 0..12i64),
        (_, records) in input(),
        breaks in breaks(),
    ) {
        let windows = json!({"session": {"gap": format!("{gap}ms"), "grace": format!("{grace}ms")}});
        let plan = windowed(windows.clone(), "OnWindowClose", json!({}));
        let straight = drive(&plan, &records, &[]);
        let rules = topology::plan::SessionWindows { gap_ms: gap, grace_ms: grace };
        prop_assert_eq!(&straight.0, &sessions_by_the_rules(rules, &records));
        prop_assert_eq!(&drive(&plan, &records, &breaks), &straight);
        let plan = windowed(windows, "OnUpdate", json!({}));
        prop_assert_eq!(drive(&plan, &records, &breaks), drive(&plan, &records, &[]));
    }

    #[test]
    fn windows_close_by_the_rules_wherever_transactions_end_or_tasks_crash(
        (windows, records) in input(),
        breaks in breaks(),
    ) {
        let plan = windowed(windows.clone(), "OnWindowClose", json!({}));
        let straight = drive(&plan, &records, &[]);
        let Some(topology::plan::Windows::Time(rules)) = plan.sub_topologies[0].stores[0].windows else {
            panic!("other windows")
        };
        prop_assert_eq!(&straight.0, &by_the_rules(rules, &records));
        prop_assert_eq!(&drive(&plan, &records, &breaks), &straight);
        let plan = windowed(windows, "OnUpdate", json!({}));
        prop_assert_eq!(drive(&plan, &records, &breaks), drive(&plan, &records, &[]));
    }
}
