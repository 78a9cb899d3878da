//! Crash points for tests: `STREAMAPP_CRASH_AT=<point>:<n>[,…]` makes the process kill itself with SIGKILL when it
//! reaches the point for the n-th time, once if `STREAMAPP_CRASH_MARKERS` names a directory; `<point>:<n>:hang` makes the
//! thread stand still there. Without the variable a point costs one load.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Places in the life of a transaction, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// A transaction has begun, nothing was sent.
    AfterBegin,
    /// A window is closed, others that the same record has closed are not.
    DuringClose,
    /// Outputs were sent and acknowledged; no changelog, no offsets.
    AfterOutput,
    /// Changelog and positions were sent and acknowledged; no offsets.
    AfterChangelog,
    /// Offsets are in the transaction; not committed.
    AfterOffsets,
    /// The commit has been requested; its answer has not been seen.
    CommitSent,
    /// Kafka has committed; the stores do not know.
    AfterCommit,
    /// Some stores have applied the transaction, others have not.
    DuringApply,
    /// A store is about to flush its memtables.
    DuringFlush,
    /// A changelog has been read in part.
    DuringRestore,
    /// Tasks are to be given up; nothing is committed yet.
    HandoverBegun,
    /// The last transaction of tasks that leave is committed; they are not closed.
    HandoverCommitted,
    /// Tasks that leave are closed; nobody has been told.
    HandoverClosed,
    /// `Adopted` is written.
    Adopted,
    /// A task is restored, and has not begun.
    BeforeStart,
    /// The process was asked to stop and has not yet committed.
    DuringDrain,
    /// Consumed records of repartition topics are being deleted.
    DuringPurge,
}

impl Point {
    fn name(self) -> &'static str {
        match self {
            Self::AfterBegin => "after-begin",
            Self::DuringClose => "during-close",
            Self::AfterOutput => "after-output",
            Self::AfterChangelog => "after-changelog",
            Self::AfterOffsets => "after-offsets",
            Self::CommitSent => "commit-sent",
            Self::AfterCommit => "after-commit",
            Self::DuringApply => "during-apply",
            Self::DuringFlush => "during-flush",
            Self::DuringRestore => "during-restore",
            Self::HandoverBegun => "handover-begun",
            Self::HandoverCommitted => "handover-committed",
            Self::HandoverClosed => "handover-closed",
            Self::Adopted => "adopted",
            Self::BeforeStart => "before-start",
            Self::DuringDrain => "during-drain",
            Self::DuringPurge => "during-purge",
        }
    }
}

struct Armed {
    point: String,
    hangs: bool,
    remaining: AtomicU64,
    /// Remembers across restarts that this point has crashed.
    marker: Option<PathBuf>,
}

fn armed() -> &'static [Armed] {
    static ARMED: OnceLock<Vec<Armed>> = OnceLock::new();
    ARMED.get_or_init(|| {
        let points = std::env::var("STREAMAPP_CRASH_AT").unwrap_or_default();
        let markers = std::env::var_os("STREAMAPP_CRASH_MARKERS").map(PathBuf::from);
        let armed = points.split(',').filter(|text| !text.is_empty()).map(|text| {
            let (point, rest) = text.split_once(':').unwrap_or((text, "1"));
            let (count, how) = rest.split_once(':').unwrap_or((rest, ""));
            Armed {
                point: point.to_owned(),
                hangs: how == "hang",
                remaining: AtomicU64::new(count.parse().unwrap_or(1)),
                marker: markers
                    .as_ref()
                    .map(|directory| directory.join(format!("crashed-{point}"))),
            }
        });
        armed
            .filter(|armed| armed.marker.as_ref().is_none_or(|marker| !marker.exists()))
            .collect()
    })
}

/// What is armed for this pass of the point. A process crashes once: what other threads reach until it is gone is for the next one.
fn hit(point: Point) -> Option<&'static Armed> {
    static CRASHES: AtomicBool = AtomicBool::new(false);
    armed().iter().find(|armed| {
        let hit = armed.point == point.name()
            && armed.remaining.fetch_sub(1, Ordering::AcqRel) == 1
            && (armed.hangs || !CRASHES.swap(true, Ordering::AcqRel));
        if hit && let Some(marker) = &armed.marker {
            let _ = std::fs::write(marker, "");
        }
        hit
    })
}

/// Crashes here if armed; `before` makes what was sent so far visible to the broker first.
pub(crate) fn reach(point: Point, before: impl FnOnce()) {
    if let Some(armed) = hit(point) {
        before();
        if armed.hangs {
            loop {
                std::thread::park();
            }
        }
        crash(point);
    }
}

/// Crashes on another thread, at about the time when a request that the caller is about to send reaches the
/// broker.
pub(crate) fn reach_in_background(point: Point) {
    if hit(point).is_some() {
        std::thread::spawn(move || {
            let started = std::time::Instant::now();
            while started.elapsed().as_micros() < 700 {
                std::hint::spin_loop();
            }
            crash(point);
        });
    }
}

fn crash(point: Point) {
    tracing::error!(point = point.name(), "crash point reached");
    // SIGKILL to itself: no destructor, no flush, as a machine that loses power would.
    let _ = std::process::Command::new("kill")
        .arg("-9")
        .arg(std::process::id().to_string())
        .status();
}
