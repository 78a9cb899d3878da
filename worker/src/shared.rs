//! What the worker's threads tell the outside: counters, phase, tasks. Written with atomics by the threads that
//! own the facts, read by the HTTP endpoint.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use engine::DropReason;
use protocol::{Ordinal, Phase, Restore, TaskId, TaskState, TaskStatus, Totals, Uid, WorkerStatus};

use crate::standstill::Patience;
use crate::watchdog::Watchdog;

/// One counter per field of [`Totals`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) records_in: AtomicU64,
    pub(crate) records_out: AtomicU64,
    pub(crate) changelog_records: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) aborts: AtomicU64,
    pub(crate) fences: AtomicU64,
    pub(crate) producer_rebuilds: AtomicU64,
    pub(crate) skipped: AtomicU64,
    pub(crate) skipped_by_hand: AtomicU64,
    pub(crate) dead_letters: AtomicU64,
    dropped_null_key: AtomicU64,
    dropped_null_value: AtomicU64,
    dropped_late: AtomicU64,
    dropped_duplicate: AtomicU64,
    pub(crate) restored_records: AtomicU64,
    pub(crate) restored_bytes: AtomicU64,
    pub(crate) standby_records: AtomicU64,
    pub(crate) store_wipes: AtomicU64,
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Counters {
    /// Records dropped for this reason.
    pub(crate) fn dropped(&self, reason: DropReason) -> &AtomicU64 {
        match reason {
            DropReason::NullKey => &self.dropped_null_key,
            DropReason::NullValue => &self.dropped_null_value,
            DropReason::Late => &self.dropped_late,
            DropReason::Duplicate => &self.dropped_duplicate,
        }
    }

    fn totals(&self) -> Totals {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let dropped = DropReason::ALL.map(|reason| get(self.dropped(reason)));
        let [
            dropped_null_key,
            dropped_null_value,
            dropped_late,
            dropped_duplicate,
        ] = dropped;
        Totals {
            records_in: get(&self.records_in),
            records_out: get(&self.records_out),
            changelog_records: get(&self.changelog_records),
            commits: get(&self.commits),
            aborts: get(&self.aborts),
            fences: get(&self.fences),
            producer_rebuilds: get(&self.producer_rebuilds),
            skipped: get(&self.skipped),
            skipped_by_hand: get(&self.skipped_by_hand),
            dead_letters: get(&self.dead_letters),
            dropped: dropped.iter().sum(),
            dropped_null_key,
            dropped_null_value,
            dropped_late,
            dropped_duplicate,
            restored_records: get(&self.restored_records),
            restored_bytes: get(&self.restored_bytes),
            standby_records: get(&self.standby_records),
            store_wipes: get(&self.store_wipes),
        }
    }
}

/// One task as its thread sees it.
#[derive(Debug)]
pub(crate) struct TaskShared {
    pub(crate) id: TaskId,
    /// Offsets that a person lets it pass over, by source of the plan.
    pub(crate) skipped: Vec<BTreeSet<i64>>,
    state: AtomicU8,
    given_up: AtomicBool,
    pub(crate) lag: AtomicI64,
    /// Ends of the task's inputs as the broker told when it was asked, by source of the plan.
    pub(crate) ends: Mutex<Vec<Option<i64>>>,
    /// Committed offsets of the task's inputs, by source of the plan; what lies below may be purged from a repartition topic.
    pub(crate) committed: Mutex<Vec<i64>>,
    pub(crate) restore_remaining: AtomicI64,
    pub(crate) restore_records: AtomicU64,
    pub(crate) restore_bytes: AtomicU64,
    restore_started: Mutex<Option<Instant>>,
    error: Mutex<Option<String>>,
}

impl TaskShared {
    pub(crate) fn new(id: TaskId, skipped: Vec<BTreeSet<i64>>) -> Self {
        Self {
            id,
            skipped,
            state: AtomicU8::new(0),
            given_up: AtomicBool::new(false),
            lag: AtomicI64::new(0),
            ends: Mutex::default(),
            committed: Mutex::default(),
            restore_remaining: AtomicI64::new(0),
            restore_records: AtomicU64::new(0),
            restore_bytes: AtomicU64::new(0),
            restore_started: Mutex::new(None),
            error: Mutex::new(None),
        }
    }

    pub(crate) fn set_state(&self, state: TaskState) {
        if state == TaskState::Restoring {
            *lock(&self.restore_started) = Some(Instant::now());
        }
        self.state.store(state as u8, Ordering::Release);
    }

    /// Tells whoever prepares the task to stop.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    pub(crate) fn fail(&self, error: String) {
        self.explain(Some(error));
        self.set_state(TaskState::Failed);
    }

    /// What is in the way of the task, if anything is.
    pub(crate) fn explain(&self, error: Option<String>) {
        *lock(&self.error) = error;
    }

    pub(crate) fn state(&self) -> TaskState {
        TaskState::ALL
            .into_iter()
            .find(|state| *state as u8 == self.state.load(Ordering::Acquire))
            .unwrap_or(TaskState::Created)
    }

    fn status(&self) -> TaskStatus {
        let state = self.state();
        let restore = (state == TaskState::Restoring).then(|| {
            let seconds = lock(&self.restore_started).map_or(1.0, |at| at.elapsed().as_secs_f64());
            Restore::new(
                self.restore_remaining.load(Ordering::Relaxed),
                self.restore_records.load(Ordering::Relaxed),
                self.restore_bytes.load(Ordering::Relaxed),
                seconds,
            )
        });
        let lag = self.lag.load(Ordering::Relaxed);
        TaskStatus {
            id: self.id.clone(),
            state,
            lag,
            restore,
            error: lock(&self.error).clone(),
        }
    }
}

/// Why the worker is in its phase.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Situation {
    phase: Phase,
    reason: Option<&'static str>,
    message: Option<String>,
}

/// Facts about this process that threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) application_id: String,
    pub(crate) ordinal: Ordinal,
    pub(crate) uid: Uid,
    pub(crate) counters: Counters,
    pub(crate) nonce: AtomicU64,
    pub(crate) open_transactions: AtomicU32,
    pub(crate) watchdog: Watchdog,
    pub(crate) patience: Patience,
    situation: Mutex<Situation>,
    tasks: Mutex<Vec<Arc<TaskShared>>>,
    shutdown: AtomicBool,
}

impl Shared {
    pub(crate) fn new(application_id: &str, ordinal: Ordinal, uid: Uid) -> Self {
        Self {
            application_id: application_id.to_owned(),
            ordinal,
            uid,
            counters: Counters::default(),
            nonce: AtomicU64::new(0),
            open_transactions: AtomicU32::new(0),
            watchdog: Watchdog::default(),
            patience: Patience::default(),
            situation: Mutex::new(Situation {
                phase: Phase::Starting,
                reason: None,
                message: None,
            }),
            tasks: Mutex::new(Vec::new()),
            shutdown: AtomicBool::new(false),
        }
    }

    /// Asks the process to drain and end.
    pub(crate) fn request_shutdown(&self) {
        self.shutdown.store(true, Ordering::Release);
    }

    pub(crate) fn shutdown_requested(&self) -> bool {
        self.shutdown.load(Ordering::Acquire)
    }

    /// Enters a phase that needs no explanation.
    pub(crate) fn enter(&self, phase: Phase) {
        self.set(Situation {
            phase,
            reason: None,
            message: None,
        });
    }

    /// Enters a phase, or says why it lasts. Logged when it changes.
    pub(crate) fn explain(&self, phase: Phase, reason: &'static str, message: String) {
        self.set(Situation {
            phase,
            reason: Some(reason),
            message: Some(message),
        });
    }

    fn set(&self, situation: Situation) {
        let mut current = lock(&self.situation);
        if *current != situation {
            let (reason, message) = (situation.reason, situation.message.as_deref());
            let phase = situation.phase;
            match phase {
                Phase::Failed => tracing::error!(reason, message, "worker failed"),
                Phase::Hold => tracing::warn!(reason, message, "worker holds"),
                Phase::Starting
                | Phase::Acquiring
                | Phase::Restoring
                | Phase::Running
                | Phase::Draining
                | Phase::Stopped => tracing::info!(?phase, reason, message, "worker"),
            }
            *current = situation;
        }
    }

    pub(crate) fn set_tasks(&self, tasks: Vec<Arc<TaskShared>>) {
        *lock(&self.tasks) = tasks;
    }

    pub(crate) fn phase(&self) -> Phase {
        lock(&self.situation).phase
    }

    /// The document served at `/status`.
    pub(crate) fn status(&self) -> WorkerStatus {
        let situation = lock(&self.situation).clone();
        let tasks: Vec<_> = lock(&self.tasks).iter().map(|task| task.status()).collect();
        WorkerStatus {
            application_id: self.application_id.clone(),
            ordinal: self.ordinal,
            uid: self.uid.clone(),
            pid: std::process::id(),
            nonce: self.nonce.load(Ordering::Relaxed),
            phase: situation.phase,
            reason: situation.reason.map(str::to_owned),
            message: situation.message,
            open_transactions: self.open_transactions.load(Ordering::Relaxed),
            lag: tasks
                .iter()
                .filter(|task| task.state != TaskState::Standby)
                .map(|task| task.lag)
                .sum(),
            totals: self.counters.totals(),
            tasks,
        }
    }
}

/// A poisoned lock means that a thread panicked; the facts are still the facts.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
