//! `streamapp-e2e wait-drained`: waits until an application has processed all that its topics hold.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;

use crate::broker::{Broker, Isolation, Offsets, REQUEST};
use crate::reader::{assign, behind};
use crate::wait;

/// Up to this many offsets behind, what lies between may be commit markers only, and is looked at.
const MARKERS: i64 = 2_000;

/// Waits until the group's committed offsets have passed every committed record of the topics.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WaitDrained {
    #[command(flatten)]
    pub(crate) broker: Broker,
    /// The application's id: its consumer group, and the prefix of its internal topics
    #[arg(long, value_name = "ID")]
    pub(crate) application_id: String,
    /// Topics to be drained, upstream first
    #[arg(long = "topic", default_value = "orders.submitted.v1", value_name = "TOPIC")]
    pub(crate) topics: Vec<String>,
    /// Names of repartition steps: `exposure-by-customer` waits for `<application id>-exposure-by-customer-repartition`
    #[arg(long = "repartition", value_name = "NAME")]
    pub(crate) repartitions: Vec<String>,
    /// How long to wait, in seconds
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    pub(crate) deadline: u64,
}

/// Waits for every topic in turn; upstream topics first, so that nothing new arrives in one already passed.
pub(crate) fn run(args: &WaitDrained) -> Result<()> {
    let internal = args
        .repartitions
        .iter()
        .map(|name| format!("{}-{name}-repartition", args.application_id));
    let deadline = Duration::from_secs(args.deadline);
    let start = Instant::now();
    for topic in args.topics.iter().cloned().chain(internal) {
        let left = deadline.saturating_sub(start.elapsed());
        topic_drained(&args.broker, &args.application_id, &topic, left)?;
        eprintln!("drained: {topic}");
    }
    Ok(())
}

fn topic_drained(broker: &Broker, group: &str, topic: &str, deadline: Duration) -> Result<()> {
    let mut watch = Watch::of(broker, group)?;
    let mut told = Instant::now();
    wait::until(&format!("{group} to process all of {topic}"), deadline, || {
        let lag = watch.lag(broker, topic).map_err(|error| format!("{error:#}"))?;
        if lag == Lag::Drained {
            return Ok(Ok(()));
        }
        if told.elapsed() > Duration::from_secs(5) {
            told = Instant::now();
            eprintln!("drained: {topic}: {lag}");
        }
        Err(lag.to_string())
    })
}

/// How far a group is behind in one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lag {
    /// Every committed record is processed, and no transaction is open.
    Drained,
    /// About this many offsets are left, control records included.
    Behind(i64),
    /// A transaction is open in this partition: more may become visible.
    Open(i32),
}

impl std::fmt::Display for Lag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Lag::Drained => write!(f, "drained"),
            Lag::Behind(offsets) => write!(f, "{offsets} offsets behind"),
            Lag::Open(partition) => write!(f, "a transaction is open in partition {partition}"),
        }
    }
}

/// The clients that look at one group's progress.
pub(crate) struct Watch {
    /// In the watched group; it only reads.
    committed: BaseConsumer,
    uncommitted: BaseConsumer,
}

impl Watch {
    /// Clients for the group of the application `group`.
    pub(crate) fn of(broker: &Broker, group: &str) -> Result<Self> {
        Ok(Watch {
            committed: broker.consumer(group, Isolation::Committed)?,
            uncommitted: broker.consumer(group, Isolation::Uncommitted)?,
        })
    }

    /// The group's committed offsets in `topic`, as they are: a reader of committed records would wait while a transaction
    /// holds them.
    pub(crate) fn offsets(&self, topic: &str, partitions: i32) -> Result<Offsets> {
        Broker::committed(&self.uncommitted, topic, partitions)
    }

    /// How far the group is behind in `topic`.
    pub(crate) fn lag(&mut self, broker: &Broker, topic: &str) -> Result<Lag> {
        let written = broker.ends(&self.uncommitted, topic)?;
        let stable = broker.ends(&self.committed, topic)?;
        if let Some((partition, _, _)) = behind(&stable, &written) {
            return Ok(Lag::Open(partition));
        }
        let offsets = self.offsets(topic, stable.len() as i32)?;
        let left: Offsets = stable
            .iter()
            .filter_map(|(partition, end)| {
                let done = offsets.get(partition).copied().unwrap_or(0);
                (done < *end).then_some((*partition, done))
            })
            .collect();
        let lag: i64 = left
            .iter()
            .map(|(partition, done)| stable[partition] - done)
            .sum();
        if left.is_empty() || (lag <= MARKERS * stable.len() as i64 && !self.any_record(topic, &left)?) {
            return Ok(Lag::Drained);
        }
        Ok(Lag::Behind(lag))
    }

    /// Whether a committed record stands at or after the given offsets. An application that has processed the last
    /// record has committed the offset after it, and commit markers may follow.
    fn any_record(&self, topic: &str, from: &Offsets) -> Result<bool> {
        assign(
            &self.committed,
            topic,
            from.iter().map(|(p, o)| (*p, Offset::Offset(*o))),
        )?;
        let found = self.poll_to_end(topic, from.len());
        self.committed.unassign().context("cannot unassign")?;
        found
    }

    fn poll_to_end(&self, topic: &str, partitions: usize) -> Result<bool> {
        let start = Instant::now();
        let mut ended = 0;
        while ended < partitions {
            if start.elapsed() > REQUEST {
                return Err(anyhow!(
                    "the end of topic {topic} was not reached within {} s",
                    REQUEST.as_secs()
                ));
            }
            match self.committed.poll(Duration::from_millis(100)) {
                None => {}
                Some(Ok(_)) => return Ok(true),
                Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
                Some(Err(error)) => return Err(error).with_context(|| format!("reading topic {topic}")),
            }
        }
        Ok(false)
    }
}
