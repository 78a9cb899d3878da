//! One run of one subject: samples its progress and its use of the machine until everything is processed.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::latency::{self, Latency};
use super::lines::{Line, Topology};
use super::process::{self, Subject};
use super::subjects::Names;
use crate::broker::{Broker, Isolation};
use crate::drained::{Lag, Watch};
use crate::generate::Generate;
use crate::{reader, wait};

/// What one run gave. "Steady" is the second half of the input: the first half warms up.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Run {
    /// Input records a second, second half.
    pub(super) steady_per_second: f64,
    /// How long the second half took: the shorter, the coarser are the figures.
    pub(super) steady_seconds: f64,
    /// Input records a second, from the first commit on.
    pub(super) overall_per_second: f64,
    /// CPU seconds of the subject for a million input records, second half.
    pub(super) steady_cpu_per_million: f64,
    /// CPU seconds of the subject for a million input records, start included.
    pub(super) overall_cpu_per_million: f64,
    /// CPU seconds of the broker for a million input records; nothing when its process is not known.
    pub(super) broker_cpu_per_million: Option<f64>,
    pub(super) peak_rss_bytes: u64,
    /// From the start of the process to its first commit.
    pub(super) first_commit_seconds: f64,
    /// Of lines whose input is paced.
    pub(super) latency: Option<Latency>,
    pub(super) outputs: Outputs,
}

/// What a run wrote, in a form that does not depend on the order in which partitions were processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Outputs {
    /// Output records (stateless), customers with a decision (the others).
    pub(super) count: u64,
    pub(super) digest: u64,
}

#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    cpu: f64,
    broker_cpu: f64,
    /// Committed offsets: of the input, or of the repartition topic that follows it.
    progress: i64,
}

/// The fixed facts of a run.
pub(super) struct Task<'a> {
    pub(super) broker: &'a Broker,
    pub(super) line: &'a Line,
    pub(super) names: &'a Names,
    pub(super) records: u64,
    /// What is to be written while the subject runs.
    pub(super) paced: Option<Generate>,
    pub(super) broker_pid: Option<u32>,
    pub(super) deadline: Duration,
}

impl Task<'_> {
    /// Samples the running subject until it has processed everything.
    pub(super) fn measure(&self, mut subject: Subject, started: Instant) -> Result<Run> {
        let (samples, latency) = match &self.paced {
            None => (self.sample(&mut subject, started)?, None),
            Some(orders) => {
                let work = || self.sample(&mut subject, started);
                let (samples, latency) = latency::beside(orders, &self.names.output, work)?;
                (samples, Some(latency))
            }
        };
        let peak_rss_bytes = subject.peak_rss_bytes();
        let status = subject.stop()?;
        if !status.success() && status.code() != Some(143) {
            bail!("the subject ended with {status} after SIGTERM");
        }
        let outputs = self.outputs()?;
        self.evaluate(&samples, started, peak_rss_bytes, latency, outputs)
    }

    fn sample(&self, subject: &mut Subject, started: Instant) -> Result<Vec<Sample>> {
        let broker = self.broker;
        let mut watch = Watch::of(broker, &self.names.application_id)?;
        let input = &self.names.input;
        let partitions = broker
            .ends(&broker.consumer("streamapp-e2e", Isolation::Committed)?, input)?
            .len() as i32;
        let repartition = self.line.topology.repartition(&self.names.application_id);
        let mut samples: Vec<Sample> = Vec::new();
        loop {
            subject.assert_running()?;
            if started.elapsed() > self.deadline {
                let last = samples.last().map_or(0, |sample| sample.progress);
                bail!("not done after {} s; committed: {last}", self.deadline.as_secs());
            }
            let consumed: i64 = watch.offsets(input, partitions)?.values().sum();
            let input_done = consumed >= self.records as i64;
            let progress = match &repartition {
                None => consumed,
                // The application creates its topic: until then there is no progress.
                Some(_) if consumed == 0 => 0,
                Some(topic) => watch.offsets(topic, partitions)?.values().sum(),
            };
            let cpu = subject.cpu_seconds();
            let broker_cpu = self.broker_pid.and_then(process::cpu_seconds).unwrap_or(0.0);
            samples.push(Sample {
                at: Instant::now(),
                cpu,
                broker_cpu,
                progress,
            });
            let done = input_done
                && match &repartition {
                    None => true,
                    Some(topic) => watch.lag(broker, topic)? == Lag::Drained,
                };
            if done {
                return Ok(samples);
            }
            wait::pause();
        }
    }

    fn evaluate(
        &self,
        samples: &[Sample],
        started: Instant,
        peak_rss_bytes: u64,
        latency: Option<Latency>,
        outputs: Outputs,
    ) -> Result<Run> {
        let last = samples.last().context("no samples")?.progress;
        let reached = |progress: i64| samples.iter().find(|sample| sample.progress >= progress);
        let first = reached(1).context("no progress was seen")?;
        let half = reached(last / 2).context("no half was seen")?;
        let end = reached(last).context("no end was seen")?;
        if half.progress == last {
            bail!("all was processed between two looks: use more records");
        }
        // Offsets count commit markers too, which are spread evenly: scaled to input records.
        let scale = self.records as f64 / last as f64;
        let between = |from: &Sample| (last - from.progress) as f64 * scale;
        let per_second = |from: &Sample| between(from) / (end.at - from.at).as_secs_f64();
        let million = 1e6;
        let all = self.records as f64 / million;
        Ok(Run {
            steady_per_second: per_second(half),
            steady_seconds: (end.at - half.at).as_secs_f64(),
            overall_per_second: if first.progress == last {
                0.0
            } else {
                per_second(first)
            },
            steady_cpu_per_million: (end.cpu - half.cpu) / (between(half) / million),
            overall_cpu_per_million: end.cpu / all,
            broker_cpu_per_million: self
                .broker_pid
                .map(|_| (end.broker_cpu - samples[0].broker_cpu) / all),
            peak_rss_bytes,
            first_commit_seconds: (first.at - started).as_secs_f64(),
            latency,
            outputs,
        })
    }

    fn outputs(&self) -> Result<Outputs> {
        match self.line.topology {
            Topology::Stateless => self.every_record(),
            Topology::OrdersRisk | Topology::KeyedAggregate => self.last_exposures(),
        }
    }

    /// Key, value and timestamp of every record.
    fn every_record(&self) -> Result<Outputs> {
        let mut outputs = Outputs { count: 0, digest: 0 };
        self.read_output(|record| {
            outputs.count += 1;
            outputs.digest = outputs
                .digest
                .wrapping_add(hash(&(record.key, record.value, record.timestamp)));
            Ok(())
        })?;
        Ok(outputs)
    }

    /// The last exposure of every customer. The steps on the way depend on the order in which source partitions are
    /// processed, which is nobody's promise.
    fn last_exposures(&self) -> Result<Outputs> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Decision<'a> {
            customer_id: &'a str,
            exposure: i64,
        }
        let mut last: HashMap<String, i64> = HashMap::new();
        self.read_output(|record| {
            let decision: Decision<'_> = sonic_rs::from_slice(record.value.unwrap_or_default())?;
            *last.entry_ref(decision.customer_id).or_insert(0) = decision.exposure;
            Ok(())
        })?;
        let digest = last
            .iter()
            .fold(0_u64, |sum, entry| sum.wrapping_add(hash(&entry)));
        Ok(Outputs {
            count: last.len() as u64,
            digest,
        })
    }

    fn read_output(&self, each: impl FnMut(reader::Record<'_>) -> Result<()>) -> Result<()> {
        let output = &self.names.output;
        reader::settle(self.broker, output, self.deadline)?;
        reader::read_all(self.broker, output, Isolation::Committed, self.deadline, each)
    }
}

fn hash(value: &impl std::hash::Hash) -> u64 {
    use std::hash::{DefaultHasher, Hasher as _};
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
