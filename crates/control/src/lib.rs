//! The control log in Kafka: [`Reader`] folds it, [`Appender`] writes records of workers, [`OperatorLog`] writes
//! operator records with compare-and-set. What the records mean is [`protocol`]'s business.
//!
//! [`Application::settle`] is what comes before workers can start: claim, topics, assignment, fences.

mod landmark;
mod offsets;
mod ownership;
mod positions;
mod skip;
mod start_over;
mod topics;

pub use landmark::Landmark;
pub use offsets::{InputOffsets, Offsets, OffsetsError, OffsetsState};
pub use ownership::{Application, Claiming, SNAPSHOT_AFTER, SettleError, Settled};
pub use positions::{OPEN_TRANSACTION, PositionsError, last_positions};
pub use skip::{SkipError, skip};
pub use start_over::StartOver;
pub use topics::{TopicError, at_risk};

use std::time::{Duration, Instant};

use kafka::{
    Admin, Capacity, Category, Consumer, Event, Isolation, PlainProducer, Settings, Start, TopicHandle,
    TransactionalProducer,
};
use landmark::Recognition;
use protocol::{ApplicationId, Folded, KafkaConfig, Ordinal, Record, World};

/// How long one request to the broker may take before it counts as failed.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the control log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A Kafka call failed.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// librdkafka refuses the configuration.
    #[error(transparent)]
    Config(#[from] kafka::ConfigError),
    /// The topic does not exist (yet).
    #[error(
        "control topic {0} does not exist: nobody has claimed and assigned this application yet; start it with `streamapp run`, or wait for the operator"
    )]
    Missing(String),
    /// A record that was acknowledged cannot be read.
    #[error(
        "control log record {offset} was acknowledged but cannot be read (read up to {read}); an operator transaction may be open"
    )]
    Blocked {
        /// The wanted offset.
        offset: i64,
        /// Next offset.
        read: i64,
    },
    /// Records were deleted that this reader had not read: a snapshot holds them.
    #[error(
        "the beginning of control log {topic} was replaced by a snapshot while it was read; it is read again"
    )]
    Behind {
        /// The topic.
        topic: String,
    },
    /// What it said is gone, or a part of it.
    #[error(
        "control log {topic} was lost: {why}. Who owns which task is unknown, so nothing goes on; `streamapp control-log FILE --start-over` fences everybody and begins a new one"
    )]
    Lost {
        /// The topic.
        topic: String,
        /// How that shows.
        why: String,
    },
    /// A record is not readable.
    #[error(
        "control log record at offset {offset} is not readable: {reason}; a newer version may have written it"
    )]
    Unreadable {
        /// Its offset.
        offset: i64,
        /// What is wrong.
        reason: String,
    },
    /// Somebody else wrote an operator record first.
    #[error("another operator, or another `streamapp run`, decided at the same time; try again")]
    Conflict,
}

/// How to reach the cluster of an application.
#[must_use]
pub fn settings(kafka: &KafkaConfig) -> Settings {
    Settings {
        bootstrap_servers: kafka.bootstrap_servers.clone(),
        properties: kafka.client_config.clone(),
    }
}

/// Reads and folds the log, from its first record.
pub struct Reader {
    consumer: Consumer,
    topic: String,
    topic_id: String,
    world: World,
    /// First offset when it was opened.
    low: i64,
    /// The offset up to which everything was read.
    read_to: i64,
    /// Records read.
    records: u64,
    snapshot: Option<Snapshot>,
    recognition: Recognition,
    /// The operator record that counts.
    head: Option<Landmark>,
}

/// A snapshot that was read.
#[derive(Clone, Copy)]
struct Snapshot {
    offset: i64,
    /// Records read before it.
    before: u64,
}

impl Reader {
    /// Opens the log.
    ///
    /// # Errors
    /// [`Error::Missing`] when nobody has created it.
    pub fn open(settings: &Settings, admin: &Admin, application: &ApplicationId) -> Result<Self, Error> {
        let topic = application.control_topic();
        let found = admin
            .topic(&topic, REQUEST_TIMEOUT)?
            .ok_or_else(|| Error::Missing(topic.clone()))?;
        let consumer = Consumer::new(settings, &application.0, Isolation::ReadCommitted, 1024)?;
        let (low, _) = consumer.watermarks(&topic, 0, REQUEST_TIMEOUT)?;
        consumer.assign(&[Start {
            topic: topic.clone(),
            partition: 0,
            offset: low,
        }])?;
        Ok(Self {
            consumer,
            topic,
            topic_id: found.id,
            world: World::default(),
            low,
            read_to: low,
            records: 0,
            snapshot: None,
            recognition: Recognition::default(),
            head: None,
        })
    }

    /// The log must have this record, unless it begins behind it; before anything is read.
    pub fn expect(&mut self, known: Landmark) {
        self.recognition.expect(known, self.low);
    }

    /// The record that was read last.
    #[must_use]
    pub fn last(&self) -> Option<&Landmark> {
        self.recognition.last.as_ref()
    }

    /// As [`Self::open`] for a log that was made: a broker that has not heard of it yet will.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_made(settings: &Settings, admin: &Admin, application: &ApplicationId) -> Result<Self, Error> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        loop {
            match Self::open(settings, admin, application) {
                Err(Error::Missing(_)) if Instant::now() < deadline => {}
                opened => return opened,
            }
        }
    }

    /// Offsets since the log's first record, or since its last snapshot.
    #[must_use]
    pub fn length(&self) -> i64 {
        let snapshot = self.snapshot.map_or(self.low, |snapshot| snapshot.offset);
        self.world.next_offset - snapshot
    }

    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The topic's id (KIP-516).
    #[must_use]
    pub fn topic_id(&self) -> &str {
        &self.topic_id
    }

    /// The offset up to which everything was read.
    #[must_use]
    pub fn position(&self) -> i64 {
        self.read_to
    }

    /// What the log says so far.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The log's end, as committed readers see it.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn end(&self) -> Result<i64, Error> {
        Ok(self.consumer.watermarks(&self.topic, 0, REQUEST_TIMEOUT)?.1)
    }

    /// Applies what arrives within `timeout`; returns the offset up to which everything was read, if known.
    ///
    /// # Errors
    /// Errors of fetching, unreadable records, [`Error::Behind`] when the log was shortened beyond what was read.
    pub fn follow(&mut self, timeout: Duration) -> Result<Option<i64>, Error> {
        let mut wait = timeout;
        let mut read_to = None;
        while let Some(event) = self.consumer.poll(wait).map_err(|error| self.failed(error))? {
            wait = Duration::ZERO;
            match event {
                Event::Record(message) => {
                    let offset = message.offset();
                    self.apply(offset, message.value().unwrap_or_default())?;
                    read_to = Some(offset + 1);
                }
                Event::EndOfPartition { offset, .. } => read_to = Some(offset),
            }
            self.read_to = read_to.unwrap_or(self.read_to);
        }
        Ok(read_to)
    }

    fn failed(&self, error: kafka::Error) -> Error {
        if error.category() == Category::OffsetOutOfRange {
            let topic = self.topic.clone();
            Error::Behind { topic }
        } else {
            error.into()
        }
    }

    fn apply(&mut self, offset: i64, bytes: &[u8]) -> Result<(), Error> {
        let record: Record = serde_json::from_slice(bytes).map_err(|error| Error::Unreadable {
            offset,
            reason: error.to_string(),
        })?;
        let seen = Landmark::new(offset, bytes);
        let met = self.recognition.meet(self.low, seen.clone(), &record);
        met.map_err(|why| Error::Lost {
            topic: self.topic.clone(),
            why,
        })?;
        match self.world.apply(offset, &record) {
            Folded::Stale => tracing::warn!(offset, ?record, "stale operator record ignored"),
            Folded::Applied if matches!(record, Record::Snapshot { .. }) => {
                let before = self.records;
                self.snapshot = Some(Snapshot { offset, before });
            }
            Folded::Applied => {}
        }
        if self.world.operator_head == Some(offset) {
            self.head = Some(seen);
        }
        self.records += 1;
        Ok(())
    }

    /// Reads through the record at `offset`.
    ///
    /// # Errors
    /// [`Error::Blocked`] when it does not become readable.
    pub fn read_through(&mut self, offset: i64) -> Result<&World, Error> {
        let deadline = Instant::now() + REQUEST_TIMEOUT * 3;
        while self.world.next_offset <= offset {
            self.follow(Duration::from_millis(100))?;
            if Instant::now() > deadline {
                return Err(Error::Blocked {
                    offset,
                    read: self.world.next_offset,
                });
            }
        }
        Ok(&self.world)
    }

    /// Reads everything below `end`, which may be a commit marker.
    ///
    /// # Errors
    /// [`Error::Blocked`] when it does not become readable.
    pub fn read_to(&mut self, end: i64) -> Result<&World, Error> {
        let deadline = Instant::now() + REQUEST_TIMEOUT * 3;
        while self.world.next_offset < end {
            if self
                .follow(Duration::from_millis(100))?
                .is_some_and(|read_to| read_to >= end)
            {
                break;
            }
            if Instant::now() > deadline {
                return Err(Error::Blocked {
                    offset: end,
                    read: self.world.next_offset,
                });
            }
        }
        Ok(&self.world)
    }
}

/// Appends records of workers.
pub struct Appender {
    producer: PlainProducer,
    topic: TopicHandle,
}

impl Appender {
    /// Makes a producer for the application's log.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(settings: &Settings, application: &ApplicationId) -> Result<Self, Error> {
        // Repeated records change nothing: the simulation repeats and delays them.
        let producer = PlainProducer::of_single_records(settings)?;
        let topic = producer.topic(&application.control_topic())?;
        Ok(Self { producer, topic })
    }

    /// Appends a record, acknowledged by all replicas; returns its offset. After a time-out it may lie in the log all
    /// the same; appending it again is harmless.
    ///
    /// # Errors
    /// Time-out, or the broker's refusal.
    pub fn append(&self, record: &Record) -> Result<i64, Error> {
        let value = encode(record)?;
        let record = kafka::Record {
            partition: 0,
            key: None,
            value: Some(&value),
            headers: &[],
            timestamp: kafka::now_ms(),
        };
        Ok(self.producer.append(&self.topic, &record, REQUEST_TIMEOUT)?)
    }
}

/// Writes operator records: in transactions under one id, so that a deposed writer is fenced, and with `prev`, so
/// that one that was decided on an older state is ignored.
pub struct OperatorLog {
    reader: Reader,
    producer: TransactionalProducer,
    topic: TopicHandle,
}

impl OperatorLog {
    /// Reads the log to its end, to write to it. Fences whoever wrote operator records before.
    ///
    /// # Errors
    /// When the log cannot be read, or the id not be initialised.
    pub fn open(settings: &Settings, application: &ApplicationId, mut reader: Reader) -> Result<Self, Error> {
        let id = application.operator_transactional_id();
        let producer = initialised(settings, &id)?;
        let end = reader.end()?;
        reader.read_to(end)?;
        let topic = producer.topic(&application.control_topic())?;
        Ok(Self {
            reader,
            producer,
            topic,
        })
    }

    /// What the log says so far.
    #[must_use]
    pub fn world(&self) -> &World {
        self.reader.world()
    }

    /// Writes the record that `decide` makes of the offset to name as `prev`; returns its offset.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another operator record came first.
    pub fn write(&mut self, decide: impl FnOnce(Option<i64>) -> Record) -> Result<i64, Error> {
        let before = self.reader.world().operator_head;
        let value = encode(&decide(before))?;
        self.producer.begin()?;
        let record = kafka::Record {
            partition: 0,
            key: None,
            value: Some(&value),
            headers: &[],
            timestamp: kafka::now_ms(),
        };
        self.producer.send(&self.topic, &record)?;
        self.producer.commit()?;
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        // Ours is the first operator record after `before`, or it was ignored: then another one is the head.
        loop {
            self.reader.follow(Duration::from_millis(20))?;
            match &self.reader.head {
                Some(head) if Some(head.offset) != before && head.is_of(&value) => return Ok(head.offset),
                Some(head) if Some(head.offset) != before => return Err(Error::Conflict),
                _ if Instant::now() > deadline => return Err(Error::Conflict),
                Some(_) | None => {}
            }
        }
    }

    /// Writes what the log says into it, and deletes what came before; nothing when a record came in between, which the
    /// snapshot would not hold.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another operator record came first.
    pub fn shorten(&mut self, admin: &Admin) -> Result<(), Error> {
        let (world, records) = (Box::new(self.world().clone()), self.reader.records);
        self.write(|prev| Record::Snapshot { prev, world })?;
        if let Some(Snapshot { offset, before }) = self.reader.snapshot
            && before == records
        {
            let topic = self.topic.name();
            match admin.delete_records(&[(topic, 0, offset)], REQUEST_TIMEOUT) {
                Ok(()) => tracing::info!(topic, offset, "control log begins with a snapshot"),
                // A long log costs time, nothing else; the next snapshot is an occasion to try again.
                Err(error) => tracing::warn!(topic, %error, "control log not shortened"),
            }
        }
        Ok(())
    }

    /// Fences every producer of an ordinal, then says so.
    ///
    /// # Errors
    /// When an id cannot be initialised, or the record not be written.
    pub fn fence(
        &mut self,
        settings: &Settings,
        application: &ApplicationId,
        ordinal: Ordinal,
    ) -> Result<(), Error> {
        for thread in 0..self.world().threads(ordinal) {
            initialised(settings, &application.transactional_id(ordinal, thread))?;
        }
        let assignment = self.world().assignment.as_ref().map_or(-1, |(offset, _)| *offset);
        self.write(|prev| Record::Fenced {
            prev,
            assignment,
            ordinal,
        })
        .map(|_| ())
    }
}

/// A producer of this id; whoever had it before is fenced.
fn initialised(settings: &Settings, id: &str) -> Result<TransactionalProducer, Error> {
    let (alive, capacity) = (REQUEST_TIMEOUT, Capacity::default());
    TransactionalProducer::initialised(settings, id, alive, capacity, REQUEST_TIMEOUT * 2)
}

fn encode(record: &Record) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(record).map_err(|error| Error::Unreadable {
        offset: -1,
        reason: error.to_string(),
    })
}
