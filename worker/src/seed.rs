//! Everything that a stream thread needs to run a task, made before the thread gets it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kafka::Capacity;
use protocol::{ApplicationId, MemoryBudget, Owner, Phase, Positions, TaskId, World};
use topology::Plan;
use topology::plan::{SubTopology, TopicName};

use crate::limits::Limits;
use crate::recovery::Recovered;
use crate::session_end::SessionEnd;
use crate::shared::TaskShared;
use crate::store::TaskDb;

/// The topics of the plan, by name.
pub(crate) type Topics = BTreeMap<String, KnownTopic>;

/// A topic, as it was when the session began.
#[derive(Clone, Debug)]
pub(crate) struct KnownTopic {
    pub(crate) id: String,
    pub(crate) partitions: i32,
    pub(crate) limits: Limits,
}

/// Longest time that records wait for others, in milliseconds (Kafka Streams' `linger.ms`).
const MOST_LINGER_MS: u32 = 100;

/// The topology with the names and sizes that its topics have in Kafka.
#[derive(Clone)]
pub(crate) struct Outline {
    pub(crate) application: ApplicationId,
    pub(crate) plan: Arc<Plan>,
    pub(crate) topics: Topics,
    /// What all tasks may take.
    pub(crate) budget: MemoryBudget,
    /// How long a record waits for earlier ones of inputs that are at their end.
    pub(crate) max_task_idle: Duration,
}

/// A task, ready to run.
pub(crate) struct Seed {
    pub(crate) shared: Arc<TaskShared>,
    pub(crate) plan: Arc<Plan>,
    /// Its sub-topology's place in the plan.
    pub(crate) sub_topology: usize,
    /// Topics, by source of the plan.
    pub(crate) inputs: Vec<String>,
    pub(crate) max_task_idle: Duration,
    pub(crate) sinks: Vec<SinkOutline>,
    pub(crate) changelogs: Vec<ChangelogOutline>,
    pub(crate) committed: Positions,
    /// Its first transaction commits where it begins, alone.
    pub(crate) begins: bool,
    pub(crate) positions_partition: i32,
    /// Its stores, restored.
    pub(crate) db: Option<TaskDb>,
    /// Its share of what is kept in memory of stores.
    pub(crate) cache_bytes: usize,
    /// Its share of what waits in memory to be written to its stores.
    pub(crate) unwritten_bytes: usize,
}

/// A topic that the task writes.
pub(crate) struct SinkOutline {
    pub(crate) name: String,
    pub(crate) partitions: i32,
    pub(crate) limits: Limits,
    /// Outside the application, and no dead letters.
    pub(crate) external: bool,
}

/// A store and its changelog topic.
pub(crate) struct ChangelogOutline {
    pub(crate) store: String,
    pub(crate) name: String,
    pub(crate) max_record_bytes: usize,
}

impl Outline {
    /// What producers may send at once: batches that every topic takes, records that the most generous one takes.
    ///
    /// Nobody reads a record before its transaction is committed, which flushes: until half of that time it may wait for
    /// others, since each batch costs the broker a request.
    pub(crate) fn capacity(&self, queue_kib: u32, commit_interval: Duration) -> Capacity {
        let sizes = self.topics.values().map(|topic| topic.limits.batch_bytes());
        let bytes =
            |size: Option<usize>, usual| size.map_or(usual, |size| u32::try_from(size).unwrap_or(usual));
        let usual = Capacity::default();
        Capacity {
            queue_kib,
            batch_bytes: bytes(sizes.clone().min(), usual.batch_bytes).min(usual.batch_bytes),
            record_bytes: bytes(sizes.max(), usual.record_bytes),
            linger_ms: u32::try_from(commit_interval.as_millis() / 2)
                .map_or(MOST_LINGER_MS, |half| half.min(MOST_LINGER_MS)),
        }
    }

    /// Partitions of all inputs.
    pub(crate) fn inputs(&self) -> usize {
        let sources = self.plan.sub_topologies.iter().flat_map(|sub| &sub.sources);
        self.count(sources.map(|source| &source.topic))
    }

    /// Partitions of all changelogs.
    pub(crate) fn changelogs(&self) -> usize {
        let stores = self.plan.sub_topologies.iter().flat_map(|sub| &sub.stores);
        self.count(stores.map(|store| &store.changelog))
    }

    fn count<'a>(&self, topics: impl Iterator<Item = &'a TopicName>) -> usize {
        let found = topics.filter_map(|topic| self.topics.get(&topic.resolve(&self.application.0)));
        found
            .map(|topic| usize::try_from(topic.partitions).unwrap_or(0))
            .sum()
    }

    /// The task's sub-topology and its place in the plan.
    pub(crate) fn sub_topology(&self, id: &TaskId) -> Result<(usize, &SubTopology), SessionEnd> {
        let mut all = self.plan.sub_topologies.iter().enumerate();
        all.find(|(_, sub)| sub.name == id.sub_topology)
            .ok_or_else(|| unknown(id))
    }

    /// Offsets that a person lets a task pass over, by source of the plan.
    pub(crate) fn skipped(&self, world: &World, id: &TaskId) -> Vec<BTreeSet<i64>> {
        let sub = self.sub_topology(id);
        let sources = sub.into_iter().flat_map(|(_, sub)| &sub.sources);
        let skipped = sources.map(|source| {
            let name = source.topic.resolve(&self.application.0);
            let topic = self.topics.get(&name);
            topic.map_or_else(BTreeSet::new, |topic| {
                world.skipped_of(&name, &topic.id, id.partition)
            })
        });
        skipped.collect()
    }

    /// Puts a task together.
    pub(crate) fn seed(
        &self,
        shared: &Arc<TaskShared>,
        recovered: &Recovered,
        owner: Owner,
        db: Option<TaskDb>,
    ) -> Result<Seed, SessionEnd> {
        let application = &self.application.0;
        let (sub_topology, sub) = self.sub_topology(&shared.id)?;
        let topic = |name: &str| self.topics.get(name).ok_or_else(|| unknown(&shared.id));
        let is_of_dead_letters = |sink| {
            let mut sources = sub.sources.iter();
            sources.any(|source| source.dead_letters == Some(sink))
        };
        let sinks = sub.sinks.iter().enumerate().map(|(at, sink)| {
            let name = sink.topic.resolve(application);
            let topic = topic(&name)?;
            Ok::<_, SessionEnd>(SinkOutline {
                partitions: topic.partitions,
                limits: topic.limits.clone(),
                external: matches!(sink.topic, TopicName::External(_)) && !is_of_dead_letters(at),
                name,
            })
        });
        let changelogs = sub.stores.iter().map(|store| {
            let name = store.changelog.resolve(application);
            Ok::<_, SessionEnd>(ChangelogOutline {
                store: store.name.clone(),
                max_record_bytes: topic(&name)?.limits.record_bytes,
                name,
            })
        });
        // A worker may come to own every task.
        let share = |bytes: u64| {
            usize::try_from(bytes).unwrap_or(usize::MAX) / self.changelogs().max(1) * sub.stores.len()
        };
        Ok(Seed {
            shared: Arc::clone(shared),
            plan: Arc::clone(&self.plan),
            sub_topology,
            inputs: sub
                .sources
                .iter()
                .map(|source| source.topic.resolve(application))
                .collect(),
            max_task_idle: self.max_task_idle,
            sinks: sinks.collect::<Result<_, _>>()?,
            changelogs: changelogs.collect::<Result<_, _>>()?,
            committed: recovered.positions.clone(),
            begins: recovered.begins,
            positions_partition: owner.positions_partition,
            db,
            cache_bytes: share(self.budget.cached),
            unwritten_bytes: share(self.budget.unwritten),
        })
    }
}

fn unknown(task: &TaskId) -> SessionEnd {
    SessionEnd::Wait {
        phase: Phase::Hold,
        reason: "UnknownTask",
        message: format!("task {task} is not part of this worker's topology"),
    }
}
