//! The worker's status document, served at `/status`.

use serde::{Deserialize, Serialize};

use crate::{Ordinal, TaskId, Uid};

/// What a worker is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerStatus {
    /// The application.
    pub application_id: String,
    /// The ordinal it speaks for.
    pub ordinal: Ordinal,
    /// The process.
    pub uid: Uid,
    /// Operating system's process id.
    pub pid: u32,
    /// Acquisitions so far.
    pub nonce: u64,
    /// Phase of the process.
    pub phase: Phase,
    /// Why it is in that phase, as one CamelCase word (`GroupInUse`, `BrokerUnreachable`, …).
    pub reason: Option<String>,
    /// The same for people, with what to do.
    pub message: Option<String>,
    /// Transactions open at this moment, over all stream threads.
    pub open_transactions: u32,
    /// Records not yet read, over all inputs of the worker's tasks.
    pub lag: i64,
    /// Totals since the process started.
    pub totals: Totals,
    /// The worker's tasks, and those whose stores it has a copy of.
    pub tasks: Vec<TaskStatus>,
}

impl WorkerStatus {
    /// Tasks that are the worker's own.
    pub fn own_tasks(&self) -> impl Iterator<Item = &TaskStatus> {
        self.tasks.iter().filter(|task| task.state != TaskState::Standby)
    }

    /// How far the worker's copy of a task's stores is behind, in changelog records; `None` without a copy.
    #[must_use]
    pub fn copy_lag(&self, task: &TaskId) -> Option<i64> {
        let copies = self.tasks.iter().filter(|task| task.state == TaskState::Standby);
        copies.clone().find(|copy| copy.id == *task).map(|copy| copy.lag)
    }
}

/// Phase of a worker process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Reading its configuration, waiting for the broker.
    Starting,
    /// In `acquire()`.
    Acquiring,
    /// Bringing stores up to their changelogs.
    Restoring,
    /// Processing.
    Running,
    /// Refusing to process until a person or a condition changes something; see `reason`.
    Hold,
    /// Committing and closing.
    Draining,
    /// Gone, by request.
    Stopped,
    /// Gone for good: see `reason`.
    Failed,
}

/// Totals since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Totals {
    /// Records read and processed in transactions that were committed.
    pub records_in: u64,
    /// Records written to sinks and repartition topics in those transactions.
    pub records_out: u64,
    /// Changelog records written in those transactions.
    pub changelog_records: u64,
    /// Committed transactions.
    pub commits: u64,
    /// Transactions that ended otherwise.
    pub aborts: u64,
    /// Producers fenced by the broker.
    pub fences: u64,
    /// Acquisitions after the first one.
    pub producer_rebuilds: u64,
    /// Records skipped by `onBadRecord: Skip` or `onError: Skip`.
    pub skipped: u64,
    /// Records that a person let a task pass over (`streamapp skip`).
    pub skipped_by_hand: u64,
    /// Records sent to a dead-letter topic.
    #[serde(default)]
    pub dead_letters: u64,
    /// Records dropped by an operator's semantics.
    pub dropped: u64,
    /// Of these: with a null key.
    pub dropped_null_key: u64,
    /// With a null value.
    pub dropped_null_value: u64,
    /// Later than any of their windows takes.
    pub dropped_late: u64,
    /// That came before.
    pub dropped_duplicate: u64,
    /// Records read back from changelogs.
    pub restored_records: u64,
    /// Keys and values of these, in bytes.
    pub restored_bytes: u64,
    /// Records that copies of other workers' stores have read.
    pub standby_records: u64,
    /// Stores set aside and rebuilt from the start of their changelog.
    pub store_wipes: u64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.records_in += other.records_in;
        self.records_out += other.records_out;
        self.changelog_records += other.changelog_records;
        self.commits += other.commits;
        self.aborts += other.aborts;
        self.fences += other.fences;
        self.producer_rebuilds += other.producer_rebuilds;
        self.skipped += other.skipped;
        self.skipped_by_hand += other.skipped_by_hand;
        self.dead_letters += other.dead_letters;
        self.dropped += other.dropped;
        self.dropped_null_key += other.dropped_null_key;
        self.dropped_null_value += other.dropped_null_value;
        self.dropped_late += other.dropped_late;
        self.dropped_duplicate += other.dropped_duplicate;
        self.restored_records += other.restored_records;
        self.restored_bytes += other.restored_bytes;
        self.standby_records += other.standby_records;
        self.store_wipes += other.store_wipes;
    }
}

/// One task of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskStatus {
    /// Task id.
    pub id: TaskId,
    /// State of the task.
    pub state: TaskState,
    /// Records not yet read: of the input, or of the changelogs by a copy.
    pub lag: i64,
    /// Records and target of the restore, while it runs.
    pub restore: Option<Restore>,
    /// Why it stopped.
    pub error: Option<String>,
}

/// State of a task, in Kafka Streams' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskState {
    /// Assigned, not yet looked at; or an earlier owner has not given it up.
    Created,
    /// Reading its changelog's tail.
    Restoring,
    /// Processing.
    Running,
    /// Another worker runs it; a copy of its stores follows their changelogs.
    Standby,
    /// Stopped at a record; the others go on.
    Failed,
}

impl TaskState {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Created,
        Self::Restoring,
        Self::Running,
        Self::Standby,
        Self::Failed,
    ];
}

/// Progress of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restore {
    /// Offsets still to read, an upper bound for records.
    pub remaining: i64,
    /// Records read so far.
    pub records: u64,
    /// Keys and values of these, in bytes.
    #[serde(default)]
    pub bytes: u64,
    /// Records per second so far.
    pub rate: u64,
    /// Seconds until nothing remains, if it goes on at that rate: an upper bound, as `remaining` is.
    #[serde(default)]
    pub seconds_left: i64,
}

impl Restore {
    /// Of a restore that has read so much in so many seconds.
    #[must_use]
    pub fn new(remaining: i64, records: u64, bytes: u64, seconds: f64) -> Self {
        let rate = (records as f64 / seconds.max(0.001)) as u64;
        let per_second = i64::try_from(rate.max(1)).unwrap_or(i64::MAX);
        Self {
            remaining,
            records,
            bytes,
            rate,
            seconds_left: remaining.div_euclid(per_second) + i64::from(remaining.rem_euclid(per_second) > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_takes_as_long_as_the_rate_says() {
        let left = |remaining, records, seconds| Restore::new(remaining, records, 0, seconds).seconds_left;
        assert_eq!(left(1_000, 500, 2.0), 4);
        assert_eq!(left(1_001, 500, 2.0), 5);
        assert_eq!(left(0, 500, 2.0), 0);
        // Nothing is known yet.
        assert_eq!(left(7, 0, 0.0), 7);
    }
}
