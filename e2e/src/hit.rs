//! Faults that hit work: a worker is stopped, the broker is asked whether a transaction of it is open and records wait,
//! and only then it is killed.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rdkafka::consumer::BaseConsumer;

use crate::app::signal;
use crate::broker::{Broker, Isolation, Offsets};
use crate::wait;

/// How long a suitable moment is waited for.
const MOMENT: Duration = Duration::from_secs(30);
/// Longer than any transaction of a worker that runs: what still pins the last stable offset then belongs to the
/// stopped one.
const PINNED: Duration = Duration::from_millis(300);

/// Evidence from the broker at the moment of a fault.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Evidence {
    pub(crate) worker: u32,
    pub(crate) pid: u32,
    /// Partition of the watched topic whose last stable offset did not move while the worker was stopped.
    pub(crate) pinned_partition: i32,
    pub(crate) last_stable_offset: i64,
    pub(crate) high_watermark: i64,
    /// Input records not yet committed as processed.
    pub(crate) lag: i64,
}

/// What is watched.
pub(crate) struct Target<'a> {
    pub(crate) broker: &'a Broker,
    pub(crate) application_id: &'a str,
    pub(crate) input: &'a str,
    /// A topic that the worker writes throughout a transaction.
    pub(crate) written: &'a str,
}

impl Target<'_> {
    /// Stops the worker (SIGSTOP) at a moment at which it holds an open transaction while records wait. `pid` finds its
    /// process: another one after each restart.
    pub(crate) fn stop_at_work(&self, worker: u32, pid: impl Fn() -> Result<u32>) -> Result<Evidence> {
        let stable = self.broker.consumer(self.application_id, Isolation::Committed)?;
        let all = self
            .broker
            .consumer(self.application_id, Isolation::Uncommitted)?;
        let started = Instant::now();
        let mut tries = 0;
        loop {
            let pid = pid()?;
            self.aim(&stable, &all, started + MOMENT)?;
            signal(pid, libc::SIGSTOP)?;
            let written = self.broker.ends(&all, self.written)?;
            // Transactions of the other workers end, the stopped one's stays open.
            pause(PINNED);
            let early = self.broker.ends(&stable, self.written)?;
            pause(PINNED);
            let late = self.broker.ends(&stable, self.written)?;
            let lag = self.lag(&all)?;
            if let Some((partition, last_stable_offset, high_watermark)) = pinned(&early, &late, &written)
                && lag > 0
            {
                return Ok(Evidence {
                    worker,
                    pid,
                    pinned_partition: partition,
                    last_stable_offset,
                    high_watermark,
                    lag,
                });
            }
            signal(pid, libc::SIGCONT)?;
            if started.elapsed() > MOMENT {
                bail!("worker {worker} was never caught with an open transaction and records waiting");
            }
            // Woken, it first ends what it has open: let it get to work again, each time a little longer.
            tries += 1;
            pause(Duration::from_millis(150 + 37 * tries));
        }
    }

    /// Waits until somebody has a transaction open. Bursts of records are committed sooner than a blind shot hits: without
    /// this a worker with pauses between its transactions is met by chance only.
    fn aim(&self, stable: &BaseConsumer, all: &BaseConsumer, until: Instant) -> Result<()> {
        loop {
            let written = self.broker.ends(all, self.written)?;
            let stable = self.broker.ends(stable, self.written)?;
            if pinned(&stable, &stable, &written).is_some() || Instant::now() > until {
                return Ok(());
            }
        }
    }

    /// Input records above the group's offsets. Asked without waiting for stable offsets: a worker that was stopped
    /// after it sent offsets would keep the answer back until its transaction times out.
    fn lag(&self, all: &BaseConsumer) -> Result<i64> {
        let ends = self.broker.ends(all, self.input)?;
        let committed = Broker::committed(all, self.input, i32::try_from(ends.len())?)?;
        Ok(ends
            .iter()
            .map(|(partition, end)| end - committed.get(partition).copied().unwrap_or(0))
            .sum())
    }
}

fn pause(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        wait::pause();
    }
}

/// A partition whose last stable offset does not move, and lies below what was already written at the stop.
fn pinned(early: &Offsets, late: &Offsets, written: &Offsets) -> Option<(i32, i64, i64)> {
    early.iter().find_map(|(partition, offset)| {
        let written = *written.get(partition)?;
        (*offset < written && late.get(partition) == Some(offset)).then_some((*partition, *offset, written))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stable_offset_that_stays_below_written_records_is_pinned() {
        let offsets = |offset| Offsets::from([(0, offset)]);
        assert_eq!(pinned(&offsets(5), &offsets(5), &offsets(9)), Some((0, 5, 9)));
        assert_eq!(pinned(&offsets(5), &offsets(9), &offsets(9)), None);
        assert_eq!(pinned(&offsets(9), &offsets(9), &offsets(9)), None);
    }
}
