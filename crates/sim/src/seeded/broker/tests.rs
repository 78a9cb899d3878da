//! The simulated broker answers scripted scenarios as the real one does: `e2e` runs the same file against Kafka.

use serde::Deserialize;

use super::*;

const PLACE: Place = (Topic::Sums, 0);

#[derive(Deserialize)]
struct Scenario {
    name: String,
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
enum Step {
    Init {
        producer: String,
        id: String,
        /// Its transactions may be open for a second only.
        #[serde(default)]
        expires: bool,
    },
    Send {
        producer: String,
        value: String,
        #[serde(default)]
        answer: Answer,
    },
    Append {
        value: String,
    },
    Offsets {
        producer: String,
        offset: i64,
        #[serde(default)]
        answer: Answer,
    },
    Commit {
        producer: String,
        #[serde(default)]
        answer: Answer,
    },
    Abort {
        producer: String,
    },
    Expire,
    Delete {
        before: i64,
    },
    Read {
        values: Vec<String>,
        end: i64,
    },
    Watermarks {
        low: i64,
        high: i64,
    },
    Group {
        #[serde(default)]
        offset: Option<i64>,
        #[serde(default)]
        unstable: bool,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    #[default]
    Ok,
    Fenced,
}

impl From<Result<(), Refusal>> for Answer {
    fn from(result: Result<(), Refusal>) -> Self {
        match result {
            Ok(()) => Self::Ok,
            Err(Refusal::Fenced) => Self::Fenced,
            Err(other) => panic!("{other:?}"),
        }
    }
}

fn record(value: String) -> Record {
    Record {
        key: None,
        value: Some(value.into_bytes()),
        timestamp: 0,
    }
}

fn settle(broker: &mut Broker) {
    while let Some(id) = broker.ending().first() {
        broker.write_marker(id, |_| 0);
    }
}

/// A producer of the scenario.
struct Client {
    id: String,
    epoch: u64,
    expires: bool,
}

fn run(broker: &mut Broker, producers: &mut BTreeMap<String, Client>, step: Step, told: &str) {
    let of = |producer: &str| (producers[producer].id.clone(), producers[producer].epoch);
    match step {
        Step::Init {
            producer,
            id,
            expires,
        } => {
            let epoch = broker.init(&id).or_else(|_| {
                settle(broker);
                broker.init(&id)
            });
            let epoch = epoch.unwrap();
            producers.insert(producer, Client { id, epoch, expires });
        }
        Step::Send {
            producer,
            value,
            answer,
        } => {
            let (id, epoch) = of(&producer);
            let sent = broker.produce(&id, epoch, PLACE, &[record(value)]);
            assert_eq!(Answer::from(sent), answer, "{told}");
        }
        Step::Append { value } => {
            broker.append(PLACE, record(value));
        }
        Step::Offsets {
            producer,
            offset,
            answer,
        } => {
            let (id, epoch) = of(&producer);
            let added = broker.add_offsets(&id, epoch, &BTreeMap::from([(PLACE, offset)]));
            assert_eq!(Answer::from(added), answer, "{told}");
        }
        Step::Commit { producer, answer } => {
            let (id, epoch) = of(&producer);
            let ended = broker.end_transaction(&id, epoch, true);
            assert_eq!(Answer::from(ended), answer, "{told}");
        }
        Step::Abort { producer } => {
            let (id, epoch) = of(&producer);
            broker.end_transaction(&id, epoch, false).unwrap();
        }
        Step::Expire => {
            assert!(producers.values().any(|producer| producer.expires), "{told}");
            broker.now += TRANSACTION_TIMEOUT + 1;
            broker.time_out();
        }
        Step::Delete { before } => broker.delete_records(PLACE, before),
        Step::Read { values, end } => {
            let (low, _) = broker.watermarks(PLACE);
            let fetched = broker.fetch(PLACE, low, usize::MAX, Isolation::Committed);
            let read = fetched.records.into_iter().flat_map(|(_, record)| record.value);
            let read: Vec<_> = read.map(|value| String::from_utf8(value).unwrap()).collect();
            assert_eq!((read, fetched.next), (values, end), "{told}");
        }
        Step::Watermarks { low, high } => assert_eq!(broker.watermarks(PLACE), (low, high), "{told}"),
        Step::Group { offset, unstable } => {
            let wanted = (!unstable).then_some(offset);
            assert_eq!(broker.group_offset(PLACE), wanted, "{told}");
        }
    }
    settle(broker);
}

#[test]
fn it_answers_as_kafka_does() {
    let text = include_str!("../../../../../e2e/broker-scenarios.json");
    let scenarios: Vec<Scenario> = serde_json::from_str(text).unwrap();
    assert!(!scenarios.is_empty());
    for Scenario { name, steps } in scenarios {
        let (mut broker, mut producers) = (Broker::default(), BTreeMap::new());
        for step in steps {
            let told = format!("{name}: {step:?}");
            run(&mut broker, &mut producers, step, &told);
        }
    }
}

#[test]
fn markers_reach_partitions_one_by_one_and_until_then_nothing_else_begins() {
    let mut broker = Broker::default();
    let epoch = broker.init("a").unwrap();
    let (one, two) = ((Topic::Sums, 0), (Topic::Sums, 1));
    for place in [one, two] {
        broker.produce("a", epoch, place, &[record("x".into())]).unwrap();
    }
    broker.end_transaction("a", epoch, true).unwrap();
    broker.write_marker("a", |_| 1);
    assert_eq!((broker.last_stable(one), broker.last_stable(two)), (0, 2));
    let next = broker.produce("a", epoch, two, &[record("y".into())]);
    assert_eq!(next, Err(Refusal::Concurrent));
    broker.write_marker("a", |_| 0);
    assert_eq!(broker.last_stable(one), 2);
    // The same end asked for again is answered as before; another one is refused.
    assert_eq!(broker.end_transaction("a", epoch, true), Ok(()));
    assert_eq!(
        broker.end_transaction("a", epoch, false),
        Err(Refusal::InvalidState)
    );
}

#[test]
fn a_late_commit_ends_whatever_transaction_of_its_epoch_is_open() {
    let mut broker = Broker::default();
    let epoch = broker.init("a").unwrap();
    broker
        .produce("a", epoch, PLACE, &[record("half".into())])
        .unwrap();
    broker.late_commit("a", epoch);
    broker.deliver(0);
    settle(&mut broker);
    let fetched = broker.fetch(PLACE, 0, usize::MAX, Isolation::Committed);
    assert_eq!(fetched.records.len(), 1);
}

#[test]
fn compaction_keeps_the_last_of_each_key_and_tombstones_for_a_while() {
    let mut broker = Broker::default();
    let keyed = |key: &str, value: Option<&str>| Record {
        key: Some(key.into()),
        value: value.map(Into::into),
        timestamp: 0,
    };
    for (key, value) in [("a", Some("1")), ("b", Some("2")), ("a", None), ("b", Some("3"))] {
        broker.append(PLACE, keyed(key, value));
    }
    let read = |broker: &Broker| -> Vec<i64> {
        let records = broker.fetch(PLACE, 0, usize::MAX, Isolation::Committed).records;
        records.iter().map(|(offset, _)| *offset).collect()
    };
    broker.compact(PLACE, 10);
    assert_eq!(read(&broker), [2, 3]);
    broker.now += 10;
    broker.compact(PLACE, 10);
    assert_eq!(read(&broker), [3]);
    assert_eq!(broker.watermarks(PLACE), (0, 4));
}
