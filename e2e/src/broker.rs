//! What the subcommands ask of a Kafka broker, through plain librdkafka clients.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::wait;

/// How long one request may take: far above any healthy answer, so that it only ends a hang.
pub(crate) const REQUEST: Duration = Duration::from_secs(15);

/// Where the broker is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Broker {
    /// Bootstrap servers
    #[arg(
        long,
        env = "STREAMAPP_BOOTSTRAP",
        default_value = "127.0.0.1:19092",
        value_name = "HOST:PORT"
    )]
    pub(crate) bootstrap: String,
}

/// Which records a reader sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// Committed transactions only, up to the last stable offset.
    Committed,
    /// Everything in the log, up to the high watermark.
    Uncommitted,
}

impl Isolation {
    fn level(self) -> &'static str {
        match self {
            Isolation::Committed => "read_committed",
            Isolation::Uncommitted => "read_uncommitted",
        }
    }
}

/// Offsets by partition.
pub(crate) type Offsets = BTreeMap<i32, i64>;

impl Broker {
    /// The settings that every client starts from.
    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("client.id", "streamapp-e2e");
        config
    }

    /// A consumer for assigned partitions; it commits nothing and `group` is only read.
    pub(crate) fn consumer(&self, group: &str, isolation: Isolation) -> Result<BaseConsumer> {
        self.config()
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("isolation.level", isolation.level())
            .set("fetch.wait.max.ms", "50")
            .set("queued.min.messages", "100000")
            .set("queued.max.messages.kbytes", "65536")
            .create()
            .with_context(|| format!("cannot make a consumer for {}", self.bootstrap))
    }

    /// How many partitions `topic` has; an error when it does not exist.
    pub(crate) fn partitions(&self, consumer: &BaseConsumer, topic: &str) -> Result<i32> {
        let metadata = consumer
            .fetch_metadata(Some(topic), REQUEST)
            .with_context(|| format!("no metadata of topic {topic} from {}", self.bootstrap))?;
        let count = metadata
            .topics()
            .iter()
            .find(|t| t.name() == topic)
            .map_or(0, |t| t.partitions().len());
        if count == 0 {
            bail!("topic {topic} does not exist on {}", self.bootstrap);
        }
        Ok(count as i32)
    }

    /// Where each partition of `topic` ends for readers of the consumer's isolation level.
    pub(crate) fn ends(&self, consumer: &BaseConsumer, topic: &str) -> Result<Offsets> {
        let mut ends = Offsets::new();
        for partition in 0..self.partitions(consumer, topic)? {
            let (_, end) = consumer
                .fetch_watermarks(topic, partition, REQUEST)
                .with_context(|| format!("no end offset of {topic} partition {partition}"))?;
            ends.insert(partition, end);
        }
        Ok(ends)
    }

    /// What the consumer's group has committed for `partitions` of `topic`; partitions without a commit are at 0.
    pub(crate) fn committed(consumer: &BaseConsumer, topic: &str, partitions: i32) -> Result<Offsets> {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions - 1);
        let committed = consumer
            .committed_offsets(list, REQUEST)
            .with_context(|| format!("no committed offsets for topic {topic}"))?;
        let offset = |offset: Offset| match offset {
            Offset::Offset(offset) => offset,
            Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => 0,
        };
        Ok(committed
            .elements()
            .iter()
            .map(|e| (e.partition(), offset(e.offset())))
            .collect())
    }

    /// Creates topics with the brokers' default of replicas and waits until all partitions have a leader.
    pub(crate) fn create_topics(&self, topics: &[(&str, i32)]) -> Result<()> {
        let new: Vec<NewTopic<'_>> = topics
            .iter()
            .map(|(name, partitions)| NewTopic::new(name, *partitions, TopicReplication::Fixed(-1)))
            .collect();
        let results =
            self.admin(|admin, options| async move { admin.create_topics(&new, &options).await })?;
        for result in results {
            result.map_err(|(topic, code)| anyhow!("cannot create topic {topic}: {code}"))?;
        }
        let consumer = self.consumer("streamapp-e2e", Isolation::Uncommitted)?;
        for (topic, partitions) in topics {
            wait::until(&format!("leaders of topic {topic}"), REQUEST, || {
                match self.ends(&consumer, topic) {
                    Ok(ends) if ends.len() as i32 == *partitions => Ok(Ok(())),
                    Ok(ends) => Err(format!("{} of {partitions} partitions", ends.len())),
                    Err(error) => Err(format!("{error:#}")),
                }
            })?;
        }
        Ok(())
    }

    /// Sets one property of a topic; all others fall back to the broker's defaults, as with any tool that alters configurations
    /// as a whole.
    pub(crate) fn set_topic_config(&self, topic: &str, property: &str, value: &str) -> Result<()> {
        self.set_topic_configs(topic, &[(property, value)])
    }

    /// As [`Self::set_topic_config`], several.
    pub(crate) fn set_topic_configs(&self, topic: &str, properties: &[(&str, &str)]) -> Result<()> {
        let config = AlterConfig::new(ResourceSpecifier::Topic(topic));
        let configs = [properties
            .iter()
            .fold(config, |config, (property, value)| config.set(property, value))];
        let results =
            self.admin(|admin, options| async move { admin.alter_configs(&configs, &options).await })?;
        for result in results {
            result.map_err(|(_, code)| anyhow!("cannot configure topic {topic}: {code}"))?;
        }
        Ok(())
    }

    /// Gives a topic more partitions, so many in all, and waits until all have a leader.
    pub(crate) fn add_partitions(&self, topic: &str, total: i32) -> Result<()> {
        let new = [NewPartitions::new(topic, usize::try_from(total)?)];
        let results =
            self.admin(|admin, options| async move { admin.create_partitions(&new, &options).await })?;
        for result in results {
            result.map_err(|(topic, code)| anyhow!("cannot give topic {topic} more partitions: {code}"))?;
        }
        let consumer = self.consumer("streamapp-e2e", Isolation::Uncommitted)?;
        wait::until(&format!("partitions of topic {topic}"), REQUEST, || {
            match self.ends(&consumer, topic) {
                Ok(ends) if ends.len() as i32 == total => Ok(Ok(())),
                Ok(ends) => Err(format!("{} of {total} partitions", ends.len())),
                Err(error) => Err(format!("{error:#}")),
            }
        })
    }

    /// Deletes topics and waits until they are gone; topics that do not exist are no error.
    pub(crate) fn delete_topics(&self, topics: &[&str]) -> Result<()> {
        if topics.is_empty() {
            return Ok(());
        }
        let results =
            self.admin(|admin, options| async move { admin.delete_topics(topics, &options).await })?;
        for result in results {
            match result {
                Ok(_)
                | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {}
                Err((topic, code)) => bail!("cannot delete topic {topic}: {code}"),
            }
        }
        wait::until("deleted topics to disappear", REQUEST, || {
            let names = self.topic_names().map_err(|error| format!("{error:#}"))?;
            match topics
                .iter()
                .find(|topic| names.iter().any(|name| name == *topic))
            {
                Some(topic) => Err(format!("{topic} is still there")),
                None => Ok(Ok(())),
            }
        })
    }

    /// The names of all topics.
    pub(crate) fn topic_names(&self) -> Result<Vec<String>> {
        let consumer = self.consumer("streamapp-e2e", Isolation::Uncommitted)?;
        let metadata = consumer
            .fetch_metadata(None, REQUEST)
            .with_context(|| format!("no metadata from {}", self.bootstrap))?;
        Ok(metadata
            .topics()
            .iter()
            .map(|topic| topic.name().to_owned())
            .collect())
    }

    /// Deletes the records of a partition before an offset.
    pub(crate) fn delete_records(&self, topic: &str, partition: i32, before: i64) -> Result<()> {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(before))?;
        self.admin(|admin, options| async move { admin.delete_records(&offsets, &options).await })
            .map(|_| ())
    }

    /// Deletes a consumer group; one that does not exist is no error.
    pub(crate) fn delete_group(&self, group: &str) -> Result<()> {
        use RDKafkaErrorCode as Code;
        wait::until(&format!("group {group} to be deleted"), REQUEST, || {
            let deleted = self
                .admin(|admin, options| async move { admin.delete_groups(&[group], &options).await })
                .map_err(|error| format!("{error:#}"))?;
            match deleted.into_iter().next() {
                None | Some(Ok(_) | Err((_, Code::GroupIdNotFound))) => Ok(Ok(())),
                // A broker that has just started does not coordinate groups yet.
                Some(Err((
                    _,
                    code @ (Code::NotCoordinator
                    | Code::CoordinatorNotAvailable
                    | Code::CoordinatorLoadInProgress),
                ))) => Err(code.to_string()),
                Some(Err((group, code))) => Ok(Err(anyhow!("cannot delete group {group}: {code}"))),
            }
        })
    }

    /// Runs one admin call to its end: rust-rdkafka answers admin calls with futures only.
    fn admin<T, F>(
        &self,
        call: impl FnOnce(std::sync::Arc<AdminClient<DefaultClientContext>>, AdminOptions) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T, KafkaError>>,
    {
        let admin: AdminClient<DefaultClientContext> = self
            .config()
            .create()
            .with_context(|| format!("cannot make a client for {}", self.bootstrap))?;
        let options = AdminOptions::new()
            .operation_timeout(Some(REQUEST))
            .request_timeout(Some(REQUEST));
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        runtime
            .block_on(call(std::sync::Arc::new(admin), options))
            .with_context(|| format!("an admin call to {} failed", self.bootstrap))
    }
}
