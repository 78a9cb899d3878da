//! The topics of an application: its sources and sinks must exist, its internal topics are made with the counts and the
//! configuration that the plan needs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka::{Admin, Category, NewTopic, Topic};
use protocol::{ApplicationId, TaskId};
use topology::plan::{SubTopology, TopicName};

use crate::{Application, Error, SettleError};

const TIMEOUT: Duration = Duration::from_secs(10);
/// [`protocol::TOMBSTONE_RETENTION_MS`], as topics are configured.
const TOMBSTONE_RETENTION_MS: &str = "604800000";

/// Records keep the times that they have, however far from the broker's clock: their input had them, or a worker's clock
/// is wrong (the brokers' default would refuse what is an hour ahead, KIP-937).
const TYPE_OF_TIME: (&str, &str) = ("message.timestamp.type", "CreateTime");
const ANY_TIME_BEFORE: (&str, &str) = ("message.timestamp.before.max.ms", "9223372036854775807");
const ANY_TIME_AFTER: (&str, &str) = ("message.timestamp.after.max.ms", "9223372036854775807");

/// What was acknowledged outlives its broker, whatever the cluster's default is.
const CLEAN_ELECTION: (&str, &str) = ("unclean.leader.election.enable", "false");

/// Configuration of the topics that hold a compacted table per partition of their tasks.
const CHANGELOG: &[(&str, &str)] = &[
    ("cleanup.policy", "compact"),
    ("delete.retention.ms", TOMBSTONE_RETENTION_MS),
    TYPE_OF_TIME,
    ANY_TIME_BEFORE,
    ANY_TIME_AFTER,
    CLEAN_ELECTION,
];
/// Consumed records are deleted by their consumer, never by age.
const REPARTITION: &[(&str, &str)] = &[
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    TYPE_OF_TIME,
    ANY_TIME_BEFORE,
    ANY_TIME_AFTER,
    CLEAN_ELECTION,
];
const POSITIONS: &[(&str, &str)] = &[
    TYPE_OF_TIME,
    ANY_TIME_BEFORE,
    ANY_TIME_AFTER,
    CLEAN_ELECTION,
    ("cleanup.policy", "compact"),
    ("segment.ms", "3600000"),
    ("min.cleanable.dirty.ratio", "0.1"),
];
const CONTROL: &[(&str, &str)] = &[
    TYPE_OF_TIME,
    ANY_TIME_BEFORE,
    ANY_TIME_AFTER,
    CLEAN_ELECTION,
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
];

/// Why the topics do not serve.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// A Kafka call failed.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// A topic of the user's does not exist.
    #[error("topic {0} does not exist; create it, or correct its name in spec.topology")]
    Missing(String),
    /// An internal topic has another shape than the plan needs.
    #[error(
        "internal topic {topic} has {found} partitions, the topology needs {wanted}: the partition count of its source changed, and its keys would be elsewhere. Put a selectKey before the groupByKey, so that a repartition topic lies between them, or give the source its old partitions in another topic; either way under another applicationId"
    )]
    PartitionCount {
        /// The topic.
        topic: String,
        /// Its partitions.
        found: i32,
        /// What the plan needs.
        wanted: i32,
    },
    /// Topics that are read together have different numbers of partitions.
    #[error(
        "topics {} and {} are joined or merged, but have {} and {} partitions: equal keys would not meet. Give them the same number, or put a selectKey with a join of a name before, so that a repartition topic lies between them",
        topics.0, topics.1, counts.0, counts.1
    )]
    NotCopartitioned {
        /// Two of the topics.
        topics: (String, String),
        /// Their partitions.
        counts: (i32, i32),
    },
}

/// What is there after [`Application::ensure_topics`].
pub(crate) struct Ensured {
    /// Topics that did not exist before.
    pub(crate) created: Vec<String>,
    /// Properties of internal topics that somebody had changed, and what they were set back to.
    pub(crate) corrected: Vec<String>,
    /// Topics that can lose records with a broker, and why.
    pub(crate) at_risk: Vec<String>,
    /// Every task of the plan.
    pub(crate) tasks: Vec<TaskId>,
    /// Partitions of the positions topic.
    pub(crate) positions: i32,
}

#[derive(Default)]
struct Done {
    created: Vec<String>,
    corrected: Vec<String>,
    at_risk: Vec<String>,
}

/// `min.insync.replicas` of internal topics with so many replicas: one broker may be away.
fn least_in_sync(replicas: i32) -> i32 {
    (replicas - 1).max(1)
}

/// What keeps a topic's acknowledged records when a broker is lost.
#[derive(Clone, Copy, Debug)]
struct Durability {
    replicas: i32,
    in_sync: i32,
    unclean: bool,
}

impl Durability {
    fn new(replicas: i32, config: &BTreeMap<String, String>) -> Self {
        let in_sync = config
            .get("min.insync.replicas")
            .and_then(|value| value.parse().ok());
        Self {
            replicas,
            in_sync: in_sync.unwrap_or(1),
            unclean: config.get(CLEAN_ELECTION.0).is_some_and(|value| value == "true"),
        }
    }

    /// What the guarantees ask for and a topic does not have (`docs/guarantees.md`).
    fn lacks(self) -> Option<String> {
        let lacks = [
            (self.replicas < 3).then(|| format!("replication factor {}", self.replicas)),
            (self.in_sync < 2).then(|| format!("min.insync.replicas {}", self.in_sync)),
            self.unclean.then(|| format!("{} true", CLEAN_ELECTION.0)),
        ];
        let lacks: Vec<_> = lacks.into_iter().flatten().collect();
        (!lacks.is_empty()).then(|| lacks.join(", "))
    }
}

/// For people: which topics can lose acknowledged records, if any can.
#[must_use]
pub fn at_risk(topics: &[String]) -> Option<String> {
    const SHOWN: usize = 3;
    let (first, rest) = topics.split_at(topics.len().min(SHOWN));
    let more = match rest.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!first.is_empty()).then(|| {
        format!(
            "a broker that is lost can take acknowledged records with it: {}{more}; exactly-once needs 3 replicas, min.insync.replicas 2 and no unclean elections",
            first.join(", ")
        )
    })
}

impl Done {
    fn look(&mut self, topic: &str, durability: Durability) {
        if let Some(lacks) = durability.lacks() {
            self.at_risk.push(format!("{topic} ({lacks})"));
        }
    }
}

impl Application<'_> {
    /// Creates the control log if it is missing, and touches nothing else: the claim comes before the other topics.
    /// Returns its name if it did not exist. It comes before the positions topic, too: with one of these, it was lost.
    pub(crate) fn ensure_control_log(&self) -> Result<Option<String>, SettleError> {
        let name = self.id.control_topic();
        let is_there = |name: &str| self.admin.topic(name, TIMEOUT).map_err(TopicError::from);
        if is_there(&name)?.is_some() {
            return Ok(None);
        }
        let positions = self.id.positions_topic();
        if is_there(&positions)?.is_none() {
            create_control_log(self.admin, self.id, self.replication_factor)?;
            return Ok(Some(name));
        }
        // The broker that was asked first may not have heard of it yet.
        let deadline = Instant::now() + TIMEOUT;
        while is_there(&name)?.is_none() {
            if Instant::now() > deadline {
                let why = format!("it does not exist, but {positions} does");
                return Err(Error::Lost { topic: name, why }.into());
            }
        }
        Ok(None)
    }

    /// Creates what is missing and sets back what somebody changed. Can be repeated.
    pub(crate) fn ensure_topics(&self) -> Result<Ensured, TopicError> {
        let mut done = Done::default();
        let partitions = self.of_the_plan(&mut done)?;
        let tasks: Vec<TaskId> = self
            .plan
            .sub_topologies
            .iter()
            .flat_map(|sub| {
                let count = partitions.get(&sub.name).copied().unwrap_or(0);
                (0..count).map(|partition| TaskId {
                    sub_topology: sub.name.clone(),
                    partition,
                })
            })
            .collect();
        let positions = self.positions(tasks.len(), &mut done)?;
        let control = self.id.control_topic();
        self.ensure_one(&control, 1, CONTROL, &mut done)?;
        Ok(Ensured {
            created: done.created,
            corrected: done.corrected,
            at_risk: done.at_risk,
            tasks,
            positions,
        })
    }

    /// Returns the partition count per sub-topology.
    fn of_the_plan(&self, done: &mut Done) -> Result<BTreeMap<String, i32>, TopicError> {
        // Partitions of what feeds a repartition topic: sub-topologies come in the order in which records flow.
        let mut fed: BTreeMap<&TopicName, i32> = BTreeMap::new();
        let mut by_sub_topology = BTreeMap::new();
        for sub in &self.plan.sub_topologies {
            let count = self.sources(sub, &fed, done)?;
            by_sub_topology.insert(sub.name.clone(), count);
            for store in &sub.stores {
                let name = store.changelog.resolve(&self.id.0);
                self.ensure_one(&name, count, CHANGELOG, done)?;
            }
            for sink in &sub.sinks {
                match sink.topic {
                    TopicName::External(_) => {
                        self.external(&sink.topic.resolve(&self.id.0), done)?;
                    }
                    TopicName::Repartition(_) | TopicName::Changelog(_) => {
                        let most = fed.entry(&sink.topic).or_default();
                        *most = count.max(*most);
                    }
                }
            }
        }
        Ok(by_sub_topology)
    }

    /// The partitions of what a sub-topology reads, which are as many in each topic: equal keys meet. Repartition topics are made
    /// with them.
    fn sources(
        &self,
        sub: &SubTopology,
        fed: &BTreeMap<&TopicName, i32>,
        done: &mut Done,
    ) -> Result<i32, TopicError> {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for source in &sub.sources {
            let name = source.topic.resolve(&self.id.0);
            match source.topic {
                TopicName::External(_) => found.push((self.external(&name, done)?, name)),
                TopicName::Repartition(_) | TopicName::Changelog(_) => {
                    // It keeps its partitions when those of its source become more: what lies behind it has its keys where they
                    // are.
                    match self.admin.topic(&name, TIMEOUT)? {
                        Some(topic) => {
                            self.correct(&name, &topic, REPARTITION, done)?;
                            found.push((topic.partitions, name));
                        }
                        None => missing.push((fed.get(&source.topic).copied().unwrap_or(1), name)),
                    }
                }
            }
        }
        let wanted = missing.iter().map(|(count, _)| *count).max();
        let count = found.first().map(|(count, _)| *count).or(wanted).unwrap_or(0);
        if let Some((other, topic)) = found.iter().find(|(other, _)| *other != count) {
            return Err(TopicError::NotCopartitioned {
                topics: (found[0].1.clone(), topic.clone()),
                counts: (count, *other),
            });
        }
        for (_, name) in &missing {
            self.ensure_one(name, count, REPARTITION, done)?;
        }
        Ok(count)
    }

    fn external(&self, name: &str, done: &mut Done) -> Result<i32, TopicError> {
        if let Some(topic) = self.admin.topic(name, TIMEOUT)? {
            match self.admin.topic_config(name, TIMEOUT) {
                Ok(config) => done.look(name, Durability::new(topic.replicas, &config)),
                // Not everybody may see it.
                Err(error) if error.category() == Category::Authorization => {}
                Err(error) => return Err(error.into()),
            }
            return Ok(topic.partitions);
        }
        let Some(partitions) = self.create_external else {
            return Err(TopicError::Missing(name.to_owned()));
        };
        self.ensure_one(name, partitions, &[], done)?;
        Ok(partitions)
    }

    /// The positions topic holds one partition per task; it grows with them, and never shrinks.
    fn positions(&self, tasks: usize, done: &mut Done) -> Result<i32, TopicError> {
        let name = self.id.positions_topic();
        let count = i32::try_from(tasks).unwrap_or(i32::MAX).max(1);
        let found = self.ensure_kept(&name, count, POSITIONS, done)?;
        if found < count {
            self.admin.add_partitions(&name, count, TIMEOUT)?;
            await_partitions(self.admin, &name, count)?;
        }
        Ok(found.max(count))
    }

    /// A topic that keeps the partitions that it has; returns how many these are.
    fn ensure_kept(
        &self,
        name: &str,
        partitions: i32,
        config: &[(&str, &str)],
        done: &mut Done,
    ) -> Result<i32, TopicError> {
        if let Some(topic) = self.admin.topic(name, TIMEOUT)? {
            self.correct(name, &topic, config, done)?;
            return Ok(topic.partitions);
        }
        self.ensure_one(name, partitions, config, done)?;
        Ok(partitions)
    }

    fn ensure_one(
        &self,
        name: &str,
        partitions: i32,
        config: &[(&str, &str)],
        done: &mut Done,
    ) -> Result<(), TopicError> {
        match self.admin.topic(name, TIMEOUT)? {
            Some(found) if found.partitions != partitions => Err(TopicError::PartitionCount {
                topic: name.to_owned(),
                found: found.partitions,
                wanted: partitions,
            }),
            Some(found) => self.correct(name, &found, config, done),
            None => {
                create(self.admin, self.replication_factor, name, partitions, config)?;
                done.created.push(name.to_owned());
                let durability = Durability {
                    replicas: self.replication_factor,
                    in_sync: least_in_sync(self.replication_factor),
                    unclean: false,
                };
                done.look(name, durability);
                Ok(())
            }
        }
    }

    /// Sets back what somebody changed: another retention or policy would lose state or positions.
    fn correct(
        &self,
        name: &str,
        topic: &Topic,
        config: &[(&str, &str)],
        done: &mut Done,
    ) -> Result<(), TopicError> {
        let mut found = self.admin.topic_config(name, TIMEOUT)?;
        let mut drift: Vec<_> = config
            .iter()
            .map(|(property, value)| (*property, (*value).to_owned()))
            .filter(|(property, value)| found.get(*property).is_some_and(|found| found != value))
            .collect();
        let least = least_in_sync(topic.replicas);
        // More is a person's choice.
        if Durability::new(topic.replicas, &found).in_sync < least {
            drift.push(("min.insync.replicas", least.to_string()));
        }
        if !drift.is_empty() {
            self.admin.set_topic_config(name, &drift, TIMEOUT)?;
        }
        for (property, value) in drift {
            let was = found
                .insert(property.to_owned(), value.clone())
                .unwrap_or_default();
            done.corrected.push(format!("{name}: {property} {was} → {value}"));
        }
        done.look(name, Durability::new(topic.replicas, &found));
        Ok(())
    }
}

/// Makes the control log.
pub(crate) fn create_control_log(
    admin: &Admin,
    id: &ApplicationId,
    replication_factor: i32,
) -> Result<(), TopicError> {
    create(admin, replication_factor, &id.control_topic(), 1, CONTROL)
}

fn create(
    admin: &Admin,
    replication_factor: i32,
    name: &str,
    partitions: i32,
    config: &[(&str, &str)],
) -> Result<(), TopicError> {
    let in_sync = (
        "min.insync.replicas",
        least_in_sync(replication_factor).to_string(),
    );
    let config = config.iter().map(|(name, value)| (*name, (*value).to_owned()));
    let wanted = NewTopic {
        name: name.to_owned(),
        partitions,
        replication_factor,
        config: config
            .chain([in_sync])
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    };
    admin.create_topic(&wanted, TIMEOUT)?;
    await_partitions(admin, name, partitions)
}

/// The broker answers before every metadata cache knows a topic's partitions.
fn await_partitions(admin: &Admin, name: &str, count: i32) -> Result<(), TopicError> {
    let deadline = Instant::now() + TIMEOUT;
    let known = || Ok::<_, TopicError>(admin.topic(name, TIMEOUT)?.map_or(0, |topic| topic.partitions));
    while known()? < count && Instant::now() < deadline {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tombstones_live_as_long_as_stores_count_on() {
        assert_eq!(
            TOMBSTONE_RETENTION_MS,
            protocol::TOMBSTONE_RETENTION_MS.to_string()
        );
        assert!(CHANGELOG.contains(&("delete.retention.ms", TOMBSTONE_RETENTION_MS)));
        let week = 7 * 24 * 3_600_000;
        assert!(protocol::TOMBSTONE_RETENTION_MS >= week);
    }

    /// ⚑ A broker that deletes by age would lose windows that are open, of stores with windows, too.
    #[test]
    fn changelogs_and_positions_are_compacted_and_never_deleted() {
        for config in [CHANGELOG, POSITIONS] {
            let policies = config.iter().filter(|(name, _)| *name == "cleanup.policy");
            assert_eq!(policies.collect::<Vec<_>>(), [&("cleanup.policy", "compact")]);
        }
        for config in [REPARTITION, CONTROL] {
            assert!(config.contains(&("retention.ms", "-1")));
        }
        for config in [CHANGELOG, POSITIONS, REPARTITION, CONTROL] {
            assert!(config.contains(&CLEAN_ELECTION));
        }
    }

    #[test]
    fn a_topic_that_can_lose_records_with_a_broker_is_named() {
        let config = |in_sync: &str, unclean: &str| {
            BTreeMap::from([
                ("min.insync.replicas".to_owned(), in_sync.to_owned()),
                (CLEAN_ELECTION.0.to_owned(), unclean.to_owned()),
            ])
        };
        let lacks = |replicas, config| Durability::new(replicas, &config).lacks();
        assert_eq!(lacks(3, config("2", "false")), None);
        assert_eq!(
            lacks(1, config("1", "false")).unwrap(),
            "replication factor 1, min.insync.replicas 1"
        );
        assert_eq!(
            lacks(3, config("2", "true")).unwrap(),
            "unclean.leader.election.enable true"
        );
        assert_eq!([1, 2, 3, 5].map(least_in_sync), [1, 1, 2, 4]);
    }
}
