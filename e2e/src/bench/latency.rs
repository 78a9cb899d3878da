//! Latency: how long after an order is handed to its producer its result reaches a reader of committed records.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use rdkafka::error::KafkaError;
use serde::Serialize;

use crate::broker::Isolation;
use crate::generate::{Generate, run_telling};
use crate::orders::BASE_MS;
use crate::reader::{from_beginning, record};

/// Quantiles over all results of the second half of the orders: the first half warms up.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Latency {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// The result of an order.
struct Arrival {
    /// The order's number: a result has the timestamp of the order that it follows.
    index: usize,
    at: Instant,
}

/// Writes the orders and reads their results until `work` has ended.
pub(super) fn beside<T>(
    orders: &Generate,
    output: &str,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Latency)> {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| sent(orders));
        let arrivals = scope.spawn(|| arrivals(orders, output, &ended));
        let done = work();
        ended.store(true, Ordering::Relaxed);
        let (sent, arrivals) = (join(sent), join(arrivals));
        Ok((done?, Latency::of(&sent?, &arrivals?)?))
    })
}

fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread panicked"))?
}

/// When each order was handed over.
fn sent(orders: &Generate) -> Result<Vec<Instant>> {
    let mut sent = Vec::with_capacity(orders.count as usize);
    run_telling(orders, |_| sent.push(Instant::now()))?;
    Ok(sent)
}

/// When each result arrived.
fn arrivals(orders: &Generate, output: &str, ended: &AtomicBool) -> Result<Vec<Arrival>> {
    let (consumer, _) = from_beginning(&orders.broker, output, Isolation::Committed)?;
    let mut arrivals = Vec::with_capacity(orders.count as usize);
    loop {
        match consumer.poll(Duration::from_millis(200)) {
            None if ended.load(Ordering::Relaxed) => return Ok(arrivals),
            None | Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Ok(message)) => arrivals.push(Arrival {
                index: usize::try_from(record(&message)?.timestamp - BASE_MS)?,
                at: Instant::now(),
            }),
            Some(Err(error)) => return Err(error).with_context(|| format!("reading topic {output}")),
        }
    }
}

impl Latency {
    fn of(sent: &[Instant], arrivals: &[Arrival]) -> Result<Self> {
        let second_half = arrivals.iter().filter(|arrival| arrival.index >= sent.len() / 2);
        let mut latencies: Vec<Duration> = second_half
            .map(|arrival| arrival.at.saturating_duration_since(sent[arrival.index]))
            .collect();
        latencies.sort();
        let quantile_ms = |quantile: f64| {
            let rank = (latencies.len() as f64 * quantile).ceil() as usize;
            let latency = latencies.get(rank.saturating_sub(1));
            latency
                .map(|latency| latency.as_secs_f64() * 1e3)
                .context("no result of the second half arrived")
        };
        Ok(Latency {
            p50_ms: quantile_ms(0.5)?,
            p99_ms: quantile_ms(0.99)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_second_half() {
        let sent = vec![Instant::now(); 200];
        let arrivals: Vec<_> = sent
            .iter()
            .enumerate()
            .map(|(index, sent)| Arrival {
                index,
                at: *sent + Duration::from_millis(index as u64),
            })
            .collect();
        let latency = Latency::of(&sent, &arrivals).unwrap();
        // 100 to 199 ms.
        assert_eq!((latency.p50_ms, latency.p99_ms), (149.0, 198.0));
        assert!(Latency::of(&sent, &arrivals[..100]).is_err());
    }
}
