//! What the operator does for a cluster, `streamapp run` does for one machine: internal topics, the claim, the
//! assignment, fencing of ordinals that lost tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control::OperatorLog;
use kafka::{Admin, NewTopic, Settings};
use protocol::{ApplicationId, Ordinal, Owner, Record, TaskId, Uid, World};
use topology::Plan;
use topology::plan::TopicName;

const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a first answer may take: after it, the user is told what is waited for.
const CONTACT: Duration = Duration::from_secs(3);
/// Tombstones of changelogs live a week: so long may a store be away before it is rebuilt.
const TOMBSTONE_RETENTION_MS: &str = "604800000";

/// Why an application cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    /// A Kafka call failed.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// The control log cannot be used.
    #[error(transparent)]
    Control(#[from] control::Error),
    /// A topic of the user's does not exist.
    #[error(
        "topic {0} does not exist; create it, correct its name in spec.topology, or run with --create-topics N"
    )]
    TopicMissing(String),
    /// An internal topic has another shape than the plan needs.
    #[error(
        "internal topic {topic} has {found} partitions, the topology needs {wanted}: the partition count of its source changed; choose another applicationId"
    )]
    PartitionCount {
        /// The topic.
        topic: String,
        /// Its partitions.
        found: i32,
        /// What the plan needs.
        wanted: i32,
    },
    /// Another object or another run owns the application.
    #[error(
        "applicationId {application} is claimed by {owner}; choose another applicationId. If that run is gone for good, take its state directory, or run with --take-over (its processes are fenced)"
    )]
    Claimed {
        /// The application.
        application: String,
        /// Who.
        owner: String,
    },
}

impl PrepareError {
    /// Whether trying again later can help.
    pub(crate) fn is_transient(&self) -> bool {
        let kafka = match self {
            Self::Kafka(error) | Self::Control(control::Error::Kafka(error)) => error,
            Self::Control(control::Error::Conflict | control::Error::Blocked { .. }) => return true,
            Self::Control(_) | Self::TopicMissing(_) | Self::PartitionCount { .. } | Self::Claimed { .. } => {
                return false;
            }
        };
        kafka.recovery() != kafka::Recovery::Stop
    }
}

/// Whether a claim of somebody else is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claiming {
    /// Refuse.
    Respect,
    /// Take over; everything is fenced.
    TakeOver,
}

/// What to prepare.
pub(crate) struct Preparation<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) application: &'a ApplicationId,
    pub(crate) plan: &'a Plan,
    pub(crate) replication_factor: i32,
    pub(crate) workers: u32,
    /// Partitions of topics that are the user's and do not exist.
    pub(crate) create_topics: Option<i32>,
    pub(crate) claiming: Claiming,
    pub(crate) uid: &'a Uid,
    pub(crate) state_dir: &'a Path,
}

/// What was prepared.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    /// Topics that did not exist before.
    pub(crate) created: Vec<String>,
    /// All tasks.
    pub(crate) tasks: usize,
}

impl Preparation<'_> {
    /// Topics, then claim, then assignment, then fences. Each step can be repeated.
    pub(crate) fn prepare(&self) -> Result<Prepared, PrepareError> {
        let admin = Admin::new(self.settings).map_err(control::Error::from)?;
        admin.cluster_id(CONTACT)?;
        let mut created = Vec::new();
        let partitions = self.topics(&admin, &mut created)?;
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
        let positions = self.positions_topic(&admin, tasks.len(), &mut created)?;
        let control = self.internal(
            &self.application.control_topic(),
            1,
            &[
                ("cleanup.policy", "delete"),
                ("retention.ms", "-1"),
                ("retention.bytes", "-1"),
            ],
        );
        self.ensure(&admin, &control, &mut created)?;
        let mut log = OperatorLog::open(self.settings, &admin, self.application)?;
        self.claim(&mut log)?;
        let owners = assign(&tasks, self.workers, positions, log.world());
        if log
            .world()
            .assignment
            .as_ref()
            .is_none_or(|(_, current)| *current != owners)
        {
            log.write(
                |prev| Record::Assignment {
                    prev,
                    owners: owners.clone(),
                },
                now_ms(),
            )?;
        }
        let mut to_fence = log.world().unsettled_ordinals();
        if self.claiming == Claiming::TakeOver {
            to_fence.extend(log.world().ordinals().collect::<BTreeSet<_>>());
        }
        for ordinal in to_fence {
            log.fence(self.settings, self.application, ordinal, now_ms())?;
        }
        Ok(Prepared {
            created,
            tasks: tasks.len(),
        })
    }

    /// Creates what is missing; returns the partition count per sub-topology.
    fn topics(
        &self,
        admin: &Admin,
        created: &mut Vec<String>,
    ) -> Result<BTreeMap<String, i32>, PrepareError> {
        let mut counts: BTreeMap<String, i32> = BTreeMap::new();
        let mut by_sub_topology = BTreeMap::new();
        // Sub-topologies come in the order in which records flow, so a repartition topic's count is known here.
        for sub in &self.plan.sub_topologies {
            let source = sub.source.topic.resolve(&self.application.0);
            let count = match counts.get(&source) {
                Some(count) => *count,
                None => self.external(admin, &source, created)?,
            };
            by_sub_topology.insert(sub.name.clone(), count);
            for store in &sub.stores {
                let name = store.changelog.resolve(&self.application.0);
                let config = [
                    ("cleanup.policy", "compact"),
                    ("delete.retention.ms", TOMBSTONE_RETENTION_MS),
                ];
                self.ensure(admin, &self.internal(&name, count, &config), created)?;
            }
            for sink in &sub.sinks {
                let name = sink.topic.resolve(&self.application.0);
                match sink.topic {
                    TopicName::External(_) => {
                        self.external(admin, &name, created)?;
                    }
                    TopicName::Repartition(_) | TopicName::Changelog(_) => {
                        let config = [("cleanup.policy", "delete"), ("retention.ms", "-1")];
                        self.ensure(admin, &self.internal(&name, count, &config), created)?;
                        counts.insert(name, count);
                    }
                }
            }
        }
        Ok(by_sub_topology)
    }

    fn external(&self, admin: &Admin, name: &str, created: &mut Vec<String>) -> Result<i32, PrepareError> {
        if let Some(topic) = admin.topic(name, TIMEOUT)? {
            return Ok(topic.partitions);
        }
        let Some(partitions) = self.create_topics else {
            return Err(PrepareError::TopicMissing(name.to_owned()));
        };
        self.ensure(admin, &self.internal(name, partitions, &[]), created)?;
        Ok(partitions)
    }

    /// The positions topic holds one partition per task; it grows when tasks are added, never shrinks.
    fn positions_topic(
        &self,
        admin: &Admin,
        tasks: usize,
        created: &mut Vec<String>,
    ) -> Result<i32, PrepareError> {
        let name = self.application.positions_topic();
        if let Some(topic) = admin.topic(&name, TIMEOUT)? {
            return Ok(topic.partitions);
        }
        let count = i32::try_from(tasks).unwrap_or(i32::MAX).max(1);
        let config = [
            ("cleanup.policy", "compact"),
            ("segment.ms", "3600000"),
            ("min.cleanable.dirty.ratio", "0.1"),
        ];
        self.ensure(admin, &self.internal(&name, count, &config), created)?;
        Ok(count)
    }

    fn internal(&self, name: &str, partitions: i32, config: &[(&str, &str)]) -> NewTopic {
        NewTopic {
            name: name.to_owned(),
            partitions,
            replication_factor: self.replication_factor,
            config: config
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    fn ensure(
        &self,
        admin: &Admin,
        wanted: &NewTopic,
        created: &mut Vec<String>,
    ) -> Result<(), PrepareError> {
        match admin.topic(&wanted.name, TIMEOUT)? {
            Some(found) if found.partitions != wanted.partitions => Err(PrepareError::PartitionCount {
                topic: wanted.name.clone(),
                found: found.partitions,
                wanted: wanted.partitions,
            }),
            Some(_) => Ok(()),
            None => {
                admin.create_topic(wanted, TIMEOUT)?;
                created.push(wanted.name.clone());
                // The broker answers before every metadata cache knows the topic.
                let deadline = std::time::Instant::now() + TIMEOUT;
                while admin.topic(&wanted.name, TIMEOUT)?.is_none() && std::time::Instant::now() < deadline {}
                Ok(())
            }
        }
    }

    fn claim(&self, log: &mut OperatorLog) -> Result<(), PrepareError> {
        match &log.world().claim {
            Some((uid, _)) if uid == self.uid => return Ok(()),
            Some((_, owner)) if self.claiming == Claiming::Respect => {
                let (application, owner) = (self.application.to_string(), owner.clone());
                return Err(PrepareError::Claimed { application, owner });
            }
            Some(_) | None => {}
        }
        let directory = self
            .state_dir
            .canonicalize()
            .unwrap_or_else(|_| self.state_dir.to_owned());
        let description = format!("`streamapp run` with state directory {}", directory.display());
        log.write(
            |prev| Record::Claim {
                prev,
                uid: self.uid.clone(),
                description,
            },
            now_ms(),
        )?;
        Ok(())
    }
}

/// Spreads tasks over workers: partition by partition, so that each worker has its share of every sub-topology. A task
/// keeps its positions partition for life.
fn assign(tasks: &[TaskId], workers: u32, positions: i32, world: &World) -> BTreeMap<TaskId, Owner> {
    let known = world.assignment.as_ref().map(|(_, owners)| owners);
    let kept = |task: &TaskId| {
        known
            .and_then(|owners| owners.get(task))
            .map(|owner| owner.positions_partition)
    };
    let taken: BTreeSet<i32> = tasks.iter().filter_map(kept).collect();
    let mut free = (0..positions).filter(|partition| !taken.contains(partition));
    tasks
        .iter()
        .filter_map(|task| {
            let positions_partition = kept(task).or_else(|| free.next())?;
            let ordinal = Ordinal(u32::try_from(task.partition).unwrap_or(0) % workers.max(1));
            Some((
                task.clone(),
                Owner {
                    ordinal,
                    positions_partition,
                },
            ))
        })
        .collect()
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(names: &[&str]) -> Vec<TaskId> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn each_worker_gets_its_share_of_every_sub_topology() {
        let tasks = tasks(&["a-0", "a-1", "b-0", "b-1"]);
        let owners = assign(&tasks, 2, 4, &World::default());
        let of = |ordinal| {
            owners
                .iter()
                .filter(|(_, o)| o.ordinal == Ordinal(ordinal))
                .map(|(t, _)| t.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(of(0), ["a-0", "b-0"]);
        assert_eq!(of(1), ["a-1", "b-1"]);
    }

    #[test]
    fn a_task_keeps_its_positions_partition_when_others_come_and_workers_change() {
        let first = assign(&tasks(&["b-0"]), 1, 2, &World::default());
        let mut world = World::default();
        world.apply(
            0,
            &Record::Assignment {
                prev: None,
                owners: first.clone(),
            },
        );
        let second = assign(&tasks(&["a-0", "b-0"]), 3, 2, &world);
        let b = "b-0".parse().unwrap();
        assert_eq!(second[&b].positions_partition, first[&b].positions_partition);
        let partitions: BTreeSet<_> = second.values().map(|owner| owner.positions_partition).collect();
        assert_eq!(partitions.len(), 2);
    }
}
