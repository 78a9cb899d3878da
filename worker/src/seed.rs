//! Everything that a stream thread needs to run a task, made before the thread gets it.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::{ApplicationId, Owner, Phase, Positions, TaskId};
use topology::Plan;
use topology::plan::{SubTopology, TopicName};

use crate::session_end::SessionEnd;
use crate::shared::TaskShared;
use crate::store::TaskDb;

/// Counts of partitions by topic.
pub(crate) type Partitions = BTreeMap<String, i32>;

/// The topology with the names and sizes that its topics have in Kafka.
#[derive(Clone)]
pub(crate) struct Outline {
    pub(crate) application: ApplicationId,
    pub(crate) plan: Arc<Plan>,
    pub(crate) partitions: Partitions,
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
    /// Outside the application.
    pub(crate) external: bool,
}

/// A store and its changelog topic.
pub(crate) struct ChangelogOutline {
    pub(crate) store: String,
    pub(crate) name: String,
}

impl Outline {
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
        let sinks = sub.sinks.iter().map(|sink| {
            let name = sink.topic.resolve(application);
            let partitions = self.partitions.get(&name).copied();
            Ok::<_, SessionEnd>(SinkOutline {
                partitions: partitions.ok_or_else(|| unknown(&shared.id))?,
                external: matches!(sink.topic, TopicName::External(_)),
                name,
            })
        });
        let changelogs = sub.stores.iter().map(|store| ChangelogOutline {
            store: store.name.clone(),
            name: store.changelog.resolve(application),
        });
        Ok(Seed {
            shared: Arc::clone(shared),
            plan: Arc::clone(&self.plan),
            sub_topology,
            input: sub.source.topic.resolve(application),
            sinks: sinks.collect::<Result<_, _>>()?,
            changelogs: changelogs.collect(),
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
