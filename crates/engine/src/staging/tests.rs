use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Value and timestamp per key.
type Model = BTreeMap<Vec<u8>, (Option<Vec<u8>>, i64)>;

#[derive(Clone, Debug)]
enum Step {
    Record {
        puts: Vec<(u8, Option<Vec<u8>>, i64)>,
        fails: bool,
    },
    Clear,
}

/// Keys of one and of several bytes, so that some share a prefix.
fn key(number: u8) -> Vec<u8> {
    vec![b'k'; usize::from(number % 3) + 1]
        .into_iter()
        .chain([number])
        .collect()
}

fn put(staging: &mut Staging, key: &[u8], value: Option<&[u8]>, timestamp: i64) {
    let location = staging.locate(key);
    staging.put(location, key, value, timestamp);
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = proptest::option::weighted(0.8, proptest::collection::vec(any::<u8>(), 0..40));
    let puts = proptest::collection::vec((0u8..8, value, any::<i64>()), 0..5);
    let step = prop_oneof![
        20 => (puts, any::<bool>()).prop_map(|(puts, fails)| Step::Record { puts, fails }),
        1 => Just(Step::Clear),
    ];
    proptest::collection::vec(step, 0..50)
}

/// Runs a record on both; the order of first writes is that of `order`.
fn record(
    staging: &mut Staging,
    model: &mut Model,
    order: &mut Vec<Vec<u8>>,
    puts: Vec<(u8, Option<Vec<u8>>, i64)>,
) {
    for (number, value, timestamp) in puts {
        let key = key(number);
        put(staging, &key, value.as_deref(), timestamp);
        if model.insert(key.clone(), (value, timestamp)).is_none() {
            order.push(key);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn staging_with_failing_records_equals_a_map(steps in steps()) {
        let mut staging = Staging::default();
        let mut model = Model::new();
        let mut order = Vec::new();
        for step in steps {
            match step {
                Step::Clear => {
                    staging.clear();
                    model.clear();
                    order.clear();
                }
                Step::Record { puts, fails } => {
                    let before = (model.clone(), order.clone(), staging.staged_bytes());
                    staging.begin_record();
                    record(&mut staging, &mut model, &mut order, puts);
                    if fails {
                        staging.rollback();
                        prop_assert_eq!(staging.staged_bytes(), before.2, "a failed record takes no room");
                        (model, order) = (before.0, before.1);
                    }
                }
            }
            let found: Vec<_> = staging
                .changes()
                .map(|change| (change.key.to_vec(), change.value.map(<[u8]>::to_vec), change.timestamp))
                .collect();
            let expected: Vec<_> = order
                .iter()
                .map(|key| {
                    let (value, timestamp) = model[key].clone();
                    (key.clone(), value, timestamp)
                })
                .collect();
            prop_assert_eq!(found, expected);
            for number in 0u8..8 {
                let key = key(number);
                let expected = match model.get(&key) {
                    None => Staged::Unknown,
                    Some((None, _)) => Staged::Deleted,
                    Some((Some(value), _)) => Staged::Value(value),
                };
                prop_assert_eq!(staging.get(staging.locate(&key)), expected);
            }
        }
    }
}

#[test]
fn updates_that_fit_take_no_room() {
    let mut staging = Staging::default();
    for (key, value) in [
        (b"b", &b"123456789"[..]),
        (b"a", b"1"),
        (b"b", b"1234567890"),
        (b"c", b""),
        (b"b", b"1"),
    ] {
        staging.begin_record();
        put(&mut staging, key, Some(value), 1);
    }
    let changes: Vec<_> = staging
        .changes()
        .map(|change| (change.key, change.value))
        .collect();
    let expected: [(&[u8], Option<&[u8]>); 3] = [(b"b", Some(b"1")), (b"a", Some(b"1")), (b"c", Some(b""))];
    assert_eq!(changes, expected, "in the order of first writes");
    assert_eq!(staging.bytes.len(), (1 + 16) + (1 + 8) + 1);
}
