//! Restore: bring a task's stores up to their changelogs, on a thread of its own, from the position that lies with
//! the data.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kafka::{Admin, Consumer, Isolation, Settings, Start, Wakeup};
use protocol::{ApplicationId, CannotContinue, Positions, StorePositions, TaskState};
use topology::plan::SubTopology;

use crate::control::REQUEST_TIMEOUT;
use crate::failpoint::{self, Point};
use crate::follower::{Follower, Tail};
use crate::shared::{Shared, TaskShared, add};
use crate::store::{FlushWait, Label, StoreError, StoreMemory, TaskDb, set_aside};

/// A restore that reads nothing for this long is given up (and begun again from where it came).
const STALL: Duration = Duration::from_secs(60);

/// Why a restore ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// A Kafka call failed.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// librdkafka refuses the configuration.
    #[error(transparent)]
    Config(#[from] kafka::ConfigError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A changelog topic does not exist.
    #[error("changelog topic {0} does not exist; `streamapp run` or the operator creates it")]
    Missing(String),
    /// The store knows a later transaction than the positions topic.
    #[error(
        "the store of task {task} has applied transaction {store}, the positions topic ends at {topic}: the positions topic lost records, or the end of a committed transaction was never written (docs/hanging-transactions.md)"
    )]
    PositionsLost {
        /// The task.
        task: String,
        /// Transaction in the store.
        store: u64,
        /// Transaction in the topic.
        topic: u64,
    },
    /// No progress.
    #[error(
        "restore of {topic}/{partition} made no progress for {STALL:?} at offset {at} of {target}: another transaction holds it, see docs/hanging-transactions.md"
    )]
    Stalled {
        /// The changelog.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Next offset.
        at: i64,
        /// Offset wanted.
        target: i64,
    },
    /// It stood still for so long that what it reads does not suffice; it is begun again.
    #[error(transparent)]
    CannotContinue(#[from] CannotContinue),
    /// The worker was asked to end, or the task was given to somebody else.
    #[error("not wanted any more")]
    GivenUp,
}

/// What a restore needs, the same for all tasks.
pub(crate) struct Restorer<'a> {
    pub(crate) application: &'a ApplicationId,
    pub(crate) cluster_id: &'a str,
    pub(crate) settings: &'a Settings,
    pub(crate) admin: &'a Admin,
    /// Sees high watermarks.
    pub(crate) all: &'a Consumer,
    pub(crate) state_dir: &'a Path,
    pub(crate) memory: &'a StoreMemory,
    /// What is fetched ahead per changelog partition.
    pub(crate) prefetch_kib: u32,
    pub(crate) shared: &'a Shared,
}

/// Reads changelogs, of one store after the other: a consumer takes a while to make and to connect.
pub(crate) struct ChangelogReader {
    consumer: Consumer,
    wakeup: Wakeup,
}

impl Restorer<'_> {
    /// A reader for [`Self::restore`].
    pub(crate) fn reader(&self) -> Result<ChangelogReader, RestoreError> {
        let (group, committed) = (&self.application.0, Isolation::ReadCommitted);
        let wakeup = Wakeup::new().map_err(|error| StoreError::Io {
            path: self.state_dir.into(),
            error,
        })?;
        Ok(ChangelogReader {
            consumer: Consumer::new(self.settings, group, committed, self.prefetch_kib)?,
            wakeup,
        })
    }

    /// Opens the task's store, unless a copy of it is open, and reads the tail of its changelogs up to high watermarks
    /// taken now, after the acquisition: nobody but this process can write them any more. After an error the reader must not
    /// be used again.
    pub(crate) fn restore(
        &self,
        sub_topology: &SubTopology,
        positions: &Positions,
        task: &TaskShared,
        copy: Option<TaskDb>,
        reader: &ChangelogReader,
    ) -> Result<TaskDb, RestoreError> {
        task.set_state(TaskState::Restoring);
        let db = match copy {
            Some(db) => db,
            None => self.open(sub_topology, task)?,
        };
        let known = db
            .positions()
            .task
            .as_ref()
            .map_or(0, |positions| positions.transaction);
        if known > positions.transaction {
            let (task, topic) = (task.id.to_string(), positions.transaction);
            return Err(RestoreError::PositionsLost {
                task,
                store: known,
                topic,
            });
        }
        // What is below the targets is contained then, whenever it was read.
        let as_of_ms = kafka::now_ms();
        let (db, tails) = self.tails(sub_topology, db, task)?;
        let mut db = self.read(db, tails, task, reader)?;
        let restored = StorePositions {
            task: Some(positions.clone()),
            as_of_ms,
            ..db.positions()
        };
        db.apply([], restored)?;
        // The restored state is on disk before the task runs: a crash now costs no second restore.
        db.flush(FlushWait::UntilDone)?;
        Ok(db)
    }

    /// Opens the task's store and finds what there is to read.
    pub(crate) fn open_copy(
        &self,
        sub_topology: &SubTopology,
        task: &TaskShared,
    ) -> Result<(TaskDb, Vec<Tail>), RestoreError> {
        self.tails(sub_topology, self.open(sub_topology, task)?, task)
    }

    fn path(&self, task: &TaskShared) -> PathBuf {
        self.state_dir.join("tasks").join(task.id.to_string())
    }

    fn open(&self, sub_topology: &SubTopology, task: &TaskShared) -> Result<TaskDb, RestoreError> {
        let stores = &sub_topology.stores;
        let fingerprints = stores
            .iter()
            .map(|store| (store.name.clone(), store.fingerprint.clone()))
            .collect();
        let label = Label::new(&self.application.0, self.cluster_id, &task.id, fingerprints);
        let names: Vec<_> = stores.iter().map(|store| store.name.clone()).collect();
        let path = self.path(task);
        match TaskDb::open(&path, &label, names.clone(), self.memory) {
            Err(StoreError::Damaged { reason, .. }) => {
                self.set_aside(task, &reason)?;
                Ok(TaskDb::open(&path, &label, names, self.memory)?)
            }
            opened => Ok(opened?),
        }
    }

    /// An empty store takes the place of one that cannot be used.
    fn set_aside(&self, task: &TaskShared, why: &dyn std::fmt::Display) -> Result<(), StoreError> {
        let aside = set_aside(&self.path(task), kafka::now_ms())?;
        add(&self.shared.counters.store_wipes, 1);
        tracing::warn!(task = %task.id, %why, aside = %aside.display(), "store set aside, rebuilding it from its changelog");
        Ok(())
    }

    /// What to read per changelog. A store that cannot be continued is set aside, and an empty one begins.
    fn tails(
        &self,
        sub_topology: &SubTopology,
        mut db: TaskDb,
        task: &TaskShared,
    ) -> Result<(TaskDb, Vec<Tail>), RestoreError> {
        let why = match self.continued(sub_topology, &mut db, task.id.partition)? {
            Ok(tails) => return Ok((db, tails)),
            Err(why) => why,
        };
        drop(db);
        self.set_aside(task, &why)?;
        let mut db = self.open(sub_topology, task)?;
        match self.continued(sub_topology, &mut db, task.id.partition)? {
            Ok(tails) => Ok((db, tails)),
            // An empty store continues anything.
            Err(why) => Err(why.into()),
        }
    }

    /// What to read per changelog, or why the store cannot be continued.
    fn continued(
        &self,
        sub_topology: &SubTopology,
        db: &mut TaskDb,
        partition: i32,
    ) -> Result<Result<Vec<Tail>, CannotContinue>, RestoreError> {
        let mut tails = Vec::new();
        let mut positions = db.positions();
        for (store, spec) in sub_topology.stores.iter().enumerate() {
            let topic = spec.changelog.resolve(&self.application.0);
            let found = self.admin.topic(&topic, REQUEST_TIMEOUT)?;
            let topic_id = found.ok_or_else(|| RestoreError::Missing(topic.clone()))?.id;
            let (low, target) = self.all.watermarks(&topic, partition, REQUEST_TIMEOUT)?;
            let resumed = positions.resume(&spec.name, &topic_id, (low, target), kafka::now_ms());
            let offset = match resumed {
                Ok(offset) => offset,
                Err(why) => return Ok(Err(why)),
            };
            tails.push(Tail {
                store,
                name: spec.name.clone(),
                topic_id,
                target,
                at: Start {
                    topic,
                    partition,
                    offset,
                },
            });
        }
        db.apply([], positions)?;
        Ok(Ok(tails))
    }

    fn read(
        &self,
        mut db: TaskDb,
        tails: Vec<Tail>,
        task: &TaskShared,
        reader: &ChangelogReader,
    ) -> Result<TaskDb, RestoreError> {
        let (behind, there): (Vec<_>, Vec<_>) = tails.into_iter().partition(Tail::is_behind);
        let mut positions = db.positions();
        there.iter().for_each(|tail| tail.note(&mut positions));
        db.apply([], positions)?;
        if behind.is_empty() {
            return Ok(db);
        }
        let ChangelogReader { consumer, wakeup } = reader;
        let mut follower = Follower::new(db, behind, consumer, wakeup)?;
        task.restore_remaining
            .store(follower.remaining(), Ordering::Relaxed);
        let mut moved = Instant::now();
        while let Some(tail) = follower.behind() {
            if self.shared.shutdown_requested() || task.is_given_up() {
                return Err(RestoreError::GivenUp);
            }
            if moved.elapsed() > STALL {
                return Err(RestoreError::Stalled {
                    topic: tail.at.topic.clone(),
                    partition: tail.at.partition,
                    at: tail.at.offset,
                    target: tail.target,
                });
            }
            let step = follower.step()?;
            if step.events == 0 {
                consumer.poll(Duration::ZERO)?;
                wakeup.sleep(Duration::from_millis(100));
                continue;
            }
            moved = Instant::now();
            task.restore_records.fetch_add(step.records, Ordering::Relaxed);
            task.restore_bytes.fetch_add(step.bytes, Ordering::Relaxed);
            task.restore_remaining
                .store(follower.remaining(), Ordering::Relaxed);
            add(&self.shared.counters.restored_records, step.records);
            add(&self.shared.counters.restored_bytes, step.bytes);
            failpoint::reach(Point::DuringRestore, || ());
        }
        follower.close(consumer)
    }
}
