//! A second reader, which reads topics while a run goes on: all other reads are made when it is over, and would not show a
//! record that was there for a while.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use super::evidence::{Topic, read_topic};
use super::judge::judge_along;
use super::verdict::Section;
use crate::broker::{Broker, Isolation};
use crate::reader::{self, Record};

/// How long it may take to see what is there at the end.
const CAUGHT_UP: Duration = Duration::from_secs(30);

/// What was seen of a record: where it was, and a hash of what it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sight {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) content: u64,
}

/// By topic, in the order in which records came.
type Seen = BTreeMap<String, Vec<Sight>>;
/// The last offsets of the committed records, by topic and partition.
type Last = BTreeMap<(String, i32), i64>;

/// Stands for all that a record says.
pub(crate) fn content(timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (timestamp, key, value).hash(&mut hasher);
    hasher.finish()
}

/// A thread that reads topics from their beginning on. Dropping it ends it.
pub(crate) struct Along {
    broker: Broker,
    topics: Vec<String>,
    end: Sender<Last>,
    reading: JoinHandle<Result<Seen>>,
}

impl Along {
    /// Reads topics that exist.
    pub(crate) fn start(broker: &Broker, topics: Vec<String>) -> Result<Self> {
        let consumer = broker.consumer(reader::GROUP, Isolation::Committed)?;
        let mut from = TopicPartitionList::new();
        for topic in &topics {
            for partition in 0..broker.partitions(&consumer, topic)? {
                from.add_partition_offset(topic, partition, Offset::Beginning)?;
            }
        }
        consumer.assign(&from).context("cannot assign topics")?;
        let (end, last) = channel();
        Ok(Self {
            broker: broker.clone(),
            topics,
            end,
            reading: std::thread::spawn(move || read(&consumer, &last)),
        })
    }

    /// Reads the topics whole, now that nothing is written any more, and judges what was seen meanwhile by that.
    pub(crate) fn judge(self, deadline: Duration) -> Result<Vec<Section>> {
        let found: Vec<(String, Topic)> = self
            .topics
            .into_iter()
            .map(|name| {
                let topic = read_topic(&self.broker, &name, deadline)?.topic;
                Ok((name, topic))
            })
            .collect::<Result<_>>()?;
        let mut last = Last::new();
        for (name, topic) in &found {
            for record in &topic.records {
                last.insert((name.clone(), record.partition), record.offset);
            }
        }
        // A thread that has failed says so.
        let _ = self.end.send(last);
        let seen = self
            .reading
            .join()
            .map_err(|_| anyhow!("the second reader panicked"))??;
        let sections = found.iter().map(|(name, topic)| {
            let seen = seen.get(name).map(Vec::as_slice).unwrap_or_default();
            judge_along(seen, topic)
        });
        Ok(sections.collect())
    }
}

/// Until the last records were seen, or their time is over.
fn read(consumer: &rdkafka::consumer::BaseConsumer, end: &Receiver<Last>) -> Result<Seen> {
    let mut seen = Seen::new();
    let mut reached = Last::new();
    let mut until: Option<(Last, Instant)> = None;
    loop {
        match end.try_recv() {
            Ok(last) => {
                ensure!(
                    !seen.is_empty(),
                    "the second reader saw nothing while the run went on"
                );
                until = Some((last, Instant::now() + CAUGHT_UP));
            }
            Err(TryRecvError::Disconnected) if until.is_none() => return Ok(seen),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        }
        if let Some((last, deadline)) = &until {
            let lacks = |(of, offset): (&(String, i32), &i64)| reached.get(of).is_none_or(|at| at < offset);
            if Instant::now() >= *deadline || !last.iter().any(lacks) {
                return Ok(seen);
            }
        }
        match consumer.poll(Duration::from_millis(100)) {
            None | Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => return Err(error).context("reading along"),
            Some(Ok(message)) => {
                let Record {
                    partition,
                    offset,
                    timestamp,
                    key,
                    value,
                    headers: _,
                } = reader::record(&message)?;
                let sight = Sight {
                    partition,
                    offset,
                    content: content(timestamp, key, value),
                };
                let topic = message.topic();
                seen.entry(topic.to_owned()).or_default().push(sight);
                reached.insert((topic.to_owned(), partition), offset);
            }
        }
    }
}
