//! Restore: bring a task's stores up to their changelogs, on a thread of its own, from the position that lies with
//! the data.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kafka::{Admin, Consumer, Event, Isolation, Settings, Start};
use protocol::{ApplicationId, Positions, TaskState};
use topology::plan::SubTopology;

use crate::control::REQUEST_TIMEOUT;
use crate::failpoint::{self, Point};
use crate::shared::{Shared, TaskShared, add};
use crate::store::{ChangelogPosition, FlushWait, Label, StoreError, StoreMemory, TaskDb, set_aside};

/// Records applied to the store at once.
const BATCH: usize = 2_000;
/// `delete.retention.ms` of changelogs: tombstones live this long, so a store that was caught up more than half
/// of it ago may have missed some.
pub(crate) const TOMBSTONE_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
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
    pub(crate) state_dir: &'a Path,
    pub(crate) memory: &'a StoreMemory,
    pub(crate) shared: &'a Shared,
}

/// A changelog to read: where its store stands, and how far to go.
struct Tail {
    store: usize,
    name: String,
    topic: String,
    from: i64,
    target: i64,
}

impl Restorer<'_> {
    /// Opens the task's store and reads the tail of its changelogs up to high watermarks taken now, after the
    /// acquisition: nobody but this process can write them any more.
    pub(crate) fn restore(
        &self,
        sub_topology: &SubTopology,
        positions: &Positions,
        task: &TaskShared,
    ) -> Result<TaskDb, RestoreError> {
        task.set_state(TaskState::Restoring);
        let path = self.state_dir.join("tasks").join(task.id.to_string());
        let fingerprints = sub_topology
            .stores
            .iter()
            .map(|store| (store.name.clone(), store.fingerprint.clone()))
            .collect();
        let label = Label::new(&self.application.0, self.cluster_id, &task.id, fingerprints);
        let names: Vec<_> = sub_topology
            .stores
            .iter()
            .map(|store| store.name.clone())
            .collect();
        let mut db = TaskDb::open(&path, &label, names.clone(), self.memory)?;
        let known = db
            .positions
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
        let tails = match self.tails(sub_topology, &db, task.id.partition)? {
            Ok(tails) => tails,
            Err(why) => {
                drop(db);
                let aside = set_aside(&path, kafka::now_ms())?;
                add(&self.shared.counters.store_wipes, 1);
                tracing::warn!(task = %task.id, why, aside = %aside.display(), "store set aside, rebuilding it from its changelog");
                db = TaskDb::open(&path, &label, names, self.memory)?;
                match self.tails(sub_topology, &db, task.id.partition)? {
                    Ok(tails) => tails,
                    Err(_) => return Err(RestoreError::Missing(path.display().to_string())),
                }
            }
        };
        let remaining = tails.iter().map(|tail| tail.target - tail.from).sum();
        task.restore_remaining.store(remaining, Ordering::Relaxed);
        for tail in &tails {
            self.read(tail, &mut db, task)?;
        }
        db.positions.task = Some(positions.clone());
        db.positions.as_of_ms = kafka::now_ms();
        db.batch().apply(&db.positions)?;
        // The restored state is on disk before the task runs: a crash now costs no second restore.
        db.flush(FlushWait::UntilDone)?;
        Ok(db)
    }

    /// What to read per changelog, or why the store cannot be continued.
    fn tails(
        &self,
        sub_topology: &SubTopology,
        db: &TaskDb,
        partition: i32,
    ) -> Result<Result<Vec<Tail>, String>, RestoreError> {
        let all = Consumer::new(self.settings, &self.application.0, Isolation::ReadUncommitted, 64)?;
        let mut tails = Vec::new();
        for (store, spec) in sub_topology.stores.iter().enumerate() {
            let topic = spec.changelog.resolve(&self.application.0);
            let found = self.admin.topic(&topic, REQUEST_TIMEOUT)?;
            let id = found.ok_or_else(|| RestoreError::Missing(topic.clone()))?.id;
            let (low, target) = all.watermarks(&topic, partition, REQUEST_TIMEOUT)?;
            let known = db.positions.changelogs.get(&spec.name);
            if let Some(why) =
                known.and_then(|known| cannot_continue(known, &id, target, db.positions.as_of_ms))
            {
                return Ok(Err(why));
            }
            let from = known.map_or(low, |known| known.offset.max(low));
            tails.push(Tail {
                store,
                name: spec.name.clone(),
                topic,
                from,
                target,
            });
        }
        Ok(Ok(tails))
    }

    fn read(&self, tail: &Tail, db: &mut TaskDb, task: &TaskShared) -> Result<(), RestoreError> {
        let partition = task.id.partition;
        let id = self.admin.topic(&tail.topic, REQUEST_TIMEOUT)?;
        let topic_id = id.ok_or_else(|| RestoreError::Missing(tail.topic.clone()))?.id;
        let mut at = tail.from;
        if tail.from < tail.target {
            let isolation = Isolation::ReadCommitted;
            let consumer = Consumer::new(self.settings, &self.application.0, isolation, 16 * 1024)?;
            let mut queue = consumer.partition_queue(&tail.topic, partition)?;
            let wakeup = kafka::Wakeup::new().map_err(|error| StoreError::Io {
                path: self.state_dir.into(),
                error,
            })?;
            queue.wake(&wakeup);
            consumer.assign(&[Start {
                topic: tail.topic.clone(),
                partition,
                offset: tail.from,
            }])?;
            let mut moved = Instant::now();
            let mut events = Vec::with_capacity(BATCH);
            let mut done = false;
            while !done {
                if self.shared.shutdown_requested() || task.is_given_up() {
                    return Err(RestoreError::GivenUp);
                }
                events.clear();
                queue.take(BATCH, &mut events)?;
                if events.is_empty() {
                    consumer.poll(Duration::ZERO)?;
                    wakeup.sleep(Duration::from_millis(100));
                    if moved.elapsed() > STALL {
                        let (topic, target) = (tail.topic.clone(), tail.target);
                        return Err(RestoreError::Stalled {
                            topic,
                            partition,
                            at,
                            target,
                        });
                    }
                    continue;
                }
                moved = Instant::now();
                // Only an end at or after the target counts: the end fires at the last stable offset.
                done = self.apply(tail, &events, db, &mut at, &topic_id, task)?;
                failpoint::reach(Point::DuringRestore, || ());
            }
        }
        let end = ChangelogPosition {
            topic_id,
            offset: at.max(tail.target),
        };
        db.positions.changelogs.insert(tail.name.clone(), end);
        Ok(())
    }

    fn apply(
        &self,
        tail: &Tail,
        events: &[Event],
        db: &mut TaskDb,
        at: &mut i64,
        topic_id: &str,
        task: &TaskShared,
    ) -> Result<bool, RestoreError> {
        let mut done = false;
        let mut records = 0;
        let mut batch = db.batch();
        for event in events {
            match event {
                Event::Record(message) => {
                    *at = message.offset() + 1;
                    batch.change(tail.store, message.key().unwrap_or_default(), message.value());
                    records += 1;
                }
                Event::EndOfPartition { offset, .. } => {
                    *at = *offset;
                    done = *offset >= tail.target;
                }
            }
        }
        let mut positions = db.positions.clone();
        // While a restore runs, the data is between two transactions: no task positions belong to it.
        positions.task = None;
        let position = ChangelogPosition {
            topic_id: topic_id.to_owned(),
            offset: *at,
        };
        positions.changelogs.insert(tail.name.clone(), position);
        batch.apply(&positions)?;
        db.positions = positions;
        task.restore_records.fetch_add(records, Ordering::Relaxed);
        task.restore_remaining
            .store((tail.target - *at).max(0), Ordering::Relaxed);
        add(&self.shared.counters.restored_records, records);
        Ok(done)
    }
}

/// Why a store with this changelog position cannot be brought up to date by reading on.
fn cannot_continue(known: &ChangelogPosition, topic_id: &str, high: i64, as_of_ms: i64) -> Option<String> {
    if known.topic_id != topic_id {
        Some("the changelog topic was re-created".to_owned())
    } else if known.offset > high {
        Some(format!(
            "the store stands at changelog offset {}, the topic ends at {high}",
            known.offset
        ))
    } else {
        let age = kafka::now_ms() - as_of_ms;
        let bound = i64::try_from(TOMBSTONE_RETENTION.as_millis() / 2).unwrap_or(i64::MAX);
        (as_of_ms > 0 && age > bound).then(|| {
            format!(
                "the store was last caught up {} hours ago; tombstones may be gone",
                age / 3_600_000
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(offset: i64) -> ChangelogPosition {
        ChangelogPosition {
            topic_id: "a".into(),
            offset,
        }
    }

    #[test]
    fn a_store_goes_on_only_from_a_place_its_changelog_still_vouches_for() {
        let now = kafka::now_ms();
        assert_eq!(cannot_continue(&position(5), "a", 5, now), None);
        assert!(cannot_continue(&position(5), "b", 5, now).is_some());
        assert!(cannot_continue(&position(6), "a", 5, now).is_some());
        let old = now - i64::try_from(TOMBSTONE_RETENTION.as_millis()).unwrap() / 2 - 1;
        assert!(cannot_continue(&position(5), "a", 5, old).is_some());
    }
}
