//! Kafka answers the scripted scenarios of `broker-scenarios.json`; the simulated broker is held to the same file.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde::Deserialize;

use super::{broker, unique};
use crate::broker::{Isolation, REQUEST};
use crate::{reader, wait};

/// Until markers must be written, those of expired transactions included.
const SETTLED: Duration = Duration::from_secs(15);
/// How long offsets must be held to count as held.
const HELD: Duration = Duration::from_millis(400);

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

impl Answer {
    fn of(result: Result<(), KafkaError>) -> Self {
        match result.map_err(|error| (error.rdkafka_error_code(), error)) {
            Ok(()) => Self::Ok,
            Err((
                Some(
                    RDKafkaErrorCode::Fenced
                    | RDKafkaErrorCode::ProducerFenced
                    | RDKafkaErrorCode::InvalidProducerEpoch,
                ),
                _,
            )) => Self::Fenced,
            Err((code, error)) => panic!("{code:?}: {error}"),
        }
    }
}

/// A producer, and whether a transaction is begun.
struct Producer {
    client: BaseProducer,
    began: bool,
}

impl Producer {
    fn begin(&mut self) -> Result<(), KafkaError> {
        if std::mem::replace(&mut self.began, true) {
            return Ok(());
        }
        self.client.begin_transaction()
    }

    fn send(&mut self, topic: &str, value: &str) -> Result<(), KafkaError> {
        self.begin()?;
        let record = BaseRecord::<(), str>::to(topic).partition(0).payload(value);
        self.client.send(record).map_err(|(error, _)| error)?;
        self.client.flush(REQUEST)?;
        match self.client.client().fatal_error() {
            Some((code, _)) => Err(KafkaError::MessageProduction(code)),
            None => Ok(()),
        }
    }
}

/// A scenario under way, on a topic and with a group of its own.
struct Stage {
    topic: String,
    producers: BTreeMap<String, Producer>,
    plain: BaseProducer,
    committed: BaseConsumer,
}

impl Stage {
    fn new() -> Self {
        let topic = unique("scenario");
        broker().create_topics(&[(&topic, 1)]).unwrap();
        Self {
            plain: broker().config().create().unwrap(),
            committed: broker().consumer(&topic, Isolation::Committed).unwrap(),
            producers: BTreeMap::new(),
            topic,
        }
    }

    fn of(&mut self, producer: &str) -> &mut Producer {
        self.producers.get_mut(producer).unwrap()
    }

    fn run(&mut self, step: Step) {
        let topic = self.topic.clone();
        match step {
            Step::Init {
                producer,
                id,
                expires,
            } => {
                let timeout = if expires { "1000" } else { "60000" };
                let mut config = broker().config();
                config.set("transactional.id", format!("{topic}-{id}"));
                let client: BaseProducer = config
                    .set("transaction.timeout.ms", timeout)
                    .set("message.timeout.ms", timeout)
                    .create()
                    .unwrap();
                client.init_transactions(REQUEST).unwrap();
                let client = Producer { client, began: false };
                self.producers.insert(producer, client);
            }
            Step::Send {
                producer,
                value,
                answer,
            } => assert_eq!(Answer::of(self.of(&producer).send(&topic, &value)), answer),
            Step::Append { value } => {
                let record = BaseRecord::<(), str>::to(&topic).partition(0).payload(&value);
                self.plain.send(record).map_err(|(error, _)| error).unwrap();
                self.plain.flush(REQUEST).unwrap();
            }
            Step::Offsets {
                producer,
                offset,
                answer,
            } => {
                let mut offsets = TopicPartitionList::new();
                offsets
                    .add_partition_offset(&topic, 0, rdkafka::Offset::Offset(offset))
                    .unwrap();
                let group: ConsumerGroupMetadata = self.committed.group_metadata().unwrap();
                let producer = self.of(&producer);
                let sent = producer.begin().and_then(|()| {
                    let client = &producer.client;
                    client.send_offsets_to_transaction(&offsets, &group, REQUEST)
                });
                assert_eq!(Answer::of(sent), answer);
            }
            Step::Commit { producer, answer } => {
                let producer = self.of(&producer);
                producer.began = false;
                assert_eq!(Answer::of(producer.client.commit_transaction(REQUEST)), answer);
            }
            Step::Abort { producer } => {
                let producer = self.of(&producer);
                producer.began = false;
                producer.client.abort_transaction(REQUEST).unwrap();
            }
            // What follows waits for it.
            Step::Expire => {}
            Step::Delete { before } => broker().delete_records(&topic, 0, before).unwrap(),
            Step::Read { values, end } => self.read(&values, end),
            Step::Watermarks { low, high } => {
                let all: BaseConsumer = broker().consumer(&topic, Isolation::Uncommitted).unwrap();
                assert_eq!(all.fetch_watermarks(&topic, 0, REQUEST).unwrap(), (low, high));
            }
            Step::Group { offset, unstable } => self.group(offset, unstable),
        }
    }

    /// Committed records and the end of committed readers, as soon as markers are written.
    fn read(&self, values: &[String], end: i64) {
        let look = || {
            let mut found = Vec::new();
            let (_, stable) = self.committed.fetch_watermarks(&self.topic, 0, REQUEST).unwrap();
            if stable == end {
                reader::read_all(&broker(), &self.topic, Isolation::Committed, REQUEST, |record| {
                    found.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
                    Ok(())
                })
                .unwrap();
            }
            if (found.as_slice(), stable) == (values, end) {
                Ok(Ok(()))
            } else {
                Err(format!("{found:?} to {stable}, wanted {values:?} to {end}"))
            }
        };
        wait::until("what committed readers see", SETTLED, look).unwrap();
    }

    fn group(&self, offset: Option<i64>, unstable: bool) {
        let mut place = TopicPartitionList::new();
        place.add_partition(&self.topic, 0);
        let timeout = if unstable { HELD } else { REQUEST };
        let found = self.committed.committed_offsets(place, timeout);
        match (found, unstable) {
            (Err(_), true) => {}
            (Ok(found), false) => {
                let found = found.elements()[0].offset().to_raw();
                assert_eq!(found.filter(|offset| *offset >= 0), offset);
            }
            (found, _) => panic!("{found:?}, wanted offset {offset:?}, unstable {unstable}"),
        }
    }
}

#[test]
#[ignore = "needs the broker of STREAMAPP_TEST_KAFKA"]
fn kafka_answers_as_the_scenarios_say() {
    let scenarios: Vec<Scenario> = serde_json::from_str(include_str!("../../broker-scenarios.json")).unwrap();
    assert!(!scenarios.is_empty());
    for Scenario { name, steps } in scenarios {
        let mut stage = Stage::new();
        for step in steps {
            let told = format!("{name}: {step:?}");
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| stage.run(step)));
            assert!(done.is_ok(), "{told}");
        }
    }
}
