//! How long readers of committed outputs waited, at worst, while something happened.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::scene::Scene;
use crate::broker::Isolation;

/// The longest time between two outputs while `happens` ran; before the first and after the last one nobody waits.
pub(super) fn longest(scene: &Scene<'_>, happens: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let reader = reader(scene)?;
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let watch = threads.spawn(|| {
            let (mut last, mut longest) = (None, Duration::ZERO);
            while !done.load(Ordering::Acquire) {
                if reader
                    .poll(Duration::from_millis(20))
                    .is_some_and(|record| record.is_ok())
                {
                    longest = longest.max(last.map_or(Duration::ZERO, |last: Instant| last.elapsed()));
                    last = Some(Instant::now());
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
