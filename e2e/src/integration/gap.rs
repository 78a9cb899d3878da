//! How long readers of committed outputs waited, at worst, while something happened.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use super::scene::Scene;
use crate::broker::Isolation;

/// Whose outputs are waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// All that the application writes.
    Everything,
    /// Those of one partition, whichever waits longest.
    OnePartition,
}

/// The longest time between two outputs while `happens` ran; before the first and after the last one nobody waits.
pub(super) fn longest(
    scene: &Scene<'_>,
    reading: Reading,
    happens: impl FnOnce() -> Result<()>,
) -> Result<Duration> {
    let reader = reader(scene)?;
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let watch = threads.spawn(|| {
            let (mut last, mut longest) = (BTreeMap::<i32, Instant>::new(), Duration::ZERO);
            while !done.load(Ordering::Acquire) {
                if let Some(Ok(record)) = reader.poll(Duration::from_millis(20)) {
                    let partition = match reading {
                        Reading::Everything => 0,
                        Reading::OnePartition => record.partition(),
                    };
                    let before = last.insert(partition, Instant::now());
                    longest = longest.max(before.map_or(Duration::ZERO, |before| before.elapsed()));
                }
            }
            longest
        });
        let result = happens();
        done.store(true, Ordering::Release);
        let longest = watch.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
        result.map(|()| longest)
    })
}

/// Reads committed outputs from now on.
fn reader(scene: &Scene<'_>) -> Result<BaseConsumer> {
    let consumer = scene
        .broker
        .consumer(&format!("{}-reader", scene.id), Isolation::Committed)?;
    let mut from = TopicPartitionList::new();
    for (partition, end) in scene.broker.ends(&consumer, &scene.output())? {
        from.add_partition_offset(&scene.output(), partition, Offset::Offset(end))?;
    }
    consumer.assign(&from)?;
    Ok(consumer)
}
