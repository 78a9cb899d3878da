//! Kafka clients: the only product crate that names rdkafka.
//!
//! It owns the assigned consumer, the transactional and the plain producer, the admin calls, and one table of
//! librdkafka errors ([`Error::category`], [`Error::recovery`]). It knows nothing of tasks, stores or plans.
//!
//! librdkafka is driven through its C API: rust-rdkafka's `flush` waits in 100 ms steps, its partition queues
//! hand out one message at a time, and it drops the offset of an end-of-partition event.

mod admin;
mod client;
mod consumer;
mod error;
mod producer;
mod watch;

pub use admin::{Admin, Ends, GroupState, NewTopic, Topic};
pub use client::{ConfigError, Settings};
pub use consumer::{Consumer, Event, Isolation, Message, PartitionQueue, Start, Wakeup};
pub use error::{Category, Error, Recovery};
pub use producer::{Capacity, Offsets, PlainProducer, Record, TopicHandle, TransactionalProducer};

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, as records are stamped: milliseconds since the Unix epoch.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
