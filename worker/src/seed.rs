//! Everything that a stream thread needs to run a task, made before the thread gets it.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka::Capacity;
use protocol::{ApplicationId, Owner, Phase, Positions, TaskId};
use topology::Plan;
use topology::plan::{SubTopology, TopicName};

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
    /// Most bytes that key and value of a record may have together.
    pub(crate) max_record_bytes: usize,
}

/// The topology with the names and sizes that its topics have in Kafka.
#[derive(Clone)]
pub(crate) struct Outline {
    pub(crate) application: ApplicationId,
    pub(crate) plan: Arc<Plan>,
    pub(crate) topics: Topics,
}

/// A task, ready to run.
pub(crate) struct Seed {
    pub(crate) shared: Arc<TaskShared>,
    pub(crate) plan: Arc<Plan>,
    /// Its sub-topology's place in the plan.
    pub(crate) sub_topology: usize,
    pub(crate) input: String,
    pub(crate) sinks: Vec<SinkOutline>,
    pub(crate) changelogs: Vec<ChangelogOutline>,
    pub(crate) committed: Positions,
    pub(crate) positions_partition: i32,
    /// Its stores, restored.
    pub(crate) db: Option<TaskDb>,
}

/// A topic that the task writes.
pub(crate) struct SinkOutline {
    pub(crate) name: String,
    pub(crate) partitions: i32,
    pub(crate) max_record_bytes: usize,
    /// Outside the application.
    pub(crate) external: bool,
}

/// A store and its changelog topic.
pub(crate) struct ChangelogOutline {
    pub(crate) store: String,
    pub(crate) name: String,
    pub(crate) max_record_bytes: usize,
}

/// What a record's own framing may take in a batch.
const FRAMING: usize = 512;

impl KnownTopic {
    /// A topic with this `max.message.bytes`; the brokers' default when nobody may read it.
    pub(crate) fn new(topic: kafka::Topic, max_message_bytes: Option<usize>) -> Self {
        let usual = usize::try_from(Capacity::default().record_bytes).unwrap_or(usize::MAX);
        Self {
            id: topic.id,
            partitions: topic.partitions,
            max_record_bytes: max_message_bytes.unwrap_or(usual).saturating_sub(FRAMING),
        }
    }
}

impl Outline {
    /// What producers may send at once: batches that every topic takes, records that the most generous one takes.
    pub(crate) fn capacity(&self, queue_kib: u32) -> Capacity {
        let sizes = self.topics.values().map(|topic| topic.max_record_bytes + FRAMING);
        let bytes =
            |size: Option<usize>, usual| size.map_or(usual, |size| u32::try_from(size).unwrap_or(usual));
        let usual = Capacity::default();
        Capacity {
            queue_kib,
            batch_bytes: bytes(sizes.clone().min(), usual.batch_bytes).min(usual.batch_bytes),
            record_bytes: bytes(sizes.max(), usual.record_bytes),
        }
    }

    /// Partitions of all inputs.
    pub(crate) fn inputs(&self) -> usize {
        self.count(self.plan.sub_topologies.iter().map(|sub| &sub.source.topic))
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

    /// Puts a task together.
    pub(crate) fn seed(
        &self,
        shared: &Arc<TaskShared>,
        committed: &Positions,
        owner: Owner,
        db: Option<TaskDb>,
    ) -> Result<Seed, SessionEnd> {
        let application = &self.application.0;
        let (sub_topology, sub) = self.sub_topology(&shared.id)?;
        let topic = |name: &str| self.topics.get(name).ok_or_else(|| unknown(&shared.id));
        let sinks = sub.sinks.iter().map(|sink| {
            let name = sink.topic.resolve(application);
            let topic = topic(&name)?;
            Ok::<_, SessionEnd>(SinkOutline {
                partitions: topic.partitions,
                max_record_bytes: topic.max_record_bytes,
                external: matches!(sink.topic, TopicName::External(_)),
                name,
            })
        });
        let changelogs = sub.stores.iter().map(|store| {
            let name = store.changelog.resolve(application);
            Ok::<_, SessionEnd>(ChangelogOutline {
                store: store.name.clone(),
                max_record_bytes: topic(&name)?.max_record_bytes,
                name,
            })
        });
        Ok(Seed {
            shared: Arc::clone(shared),
            plan: Arc::clone(&self.plan),
            sub_topology,
            input: sub.source.topic.resolve(application),
            sinks: sinks.collect::<Result<_, _>>()?,
            changelogs: changelogs.collect::<Result<_, _>>()?,
            committed: committed.clone(),
            positions_partition: owner.positions_partition,
            db,
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
