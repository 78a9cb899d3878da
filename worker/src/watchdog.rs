//! Ends the process when a thread that processes records stands still: in an allocator whose memory is corrupt, in a
//! library's lock, wherever no time-out reaches. A process that ends is started again, and loses nothing (its transaction
//! is aborted); one that stands still holds its tasks for good.
//!
//! Time is counted in looks, not read from a clock: a process that was stopped and goes on is not one that stood still.
//! Nothing here allocates or frees, for the allocator may be what stands still.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use crate::shared::Shared;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);
const LAST_WORDS: &[u8] =
    b"{\"level\":\"ERROR\",\"fields\":{\"message\":\"a stream thread stands still; the process ends, to be started again\"}}\n";

/// Threads that have to move.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    threads: Mutex<Vec<Arc<Beats>>>,
    /// Looks in a row for which the list was held by a thread that adds one: it stands still, too.
    held: AtomicU32,
}

#[derive(Debug, Default)]
struct Beats {
    count: AtomicU64,
    ended: AtomicBool,
    /// Of the watchdog: the count at its last look, and how many looks ago that changed.
    seen: AtomicU64,
    still: AtomicU32,
}

/// A thread that is watched while this lives.
#[derive(Debug)]
pub(crate) struct Pulse(Arc<Beats>);

impl Pulse {
    /// The thread moves.
    pub(crate) fn beat(&self) {
        self.0.count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
    }
}

impl Watchdog {
    /// Watches one more thread.
    pub(crate) fn watch(&self) -> Pulse {
        let beats = Arc::new(Beats::default());
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| !thread.ended.load(Ordering::Acquire));
        threads.push(Arc::clone(&beats));
        Pulse(beats)
    }

    /// Whether a thread has not moved for this many looks.
    fn look(&self, most: u32) -> bool {
        let threads = match self.threads.try_lock() {
            Ok(threads) => threads,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return self.held.fetch_add(1, Ordering::Relaxed) >= most,
        };
        self.held.store(0, Ordering::Relaxed);
        let stands_still = |beats: &Arc<Beats>| {
            let count = beats.count.load(Ordering::Relaxed);
            if beats.seen.swap(count, Ordering::Relaxed) != count {
                beats.still.store(0, Ordering::Relaxed);
            }
            beats.still.fetch_add(1, Ordering::Relaxed) >= most && !beats.ended.load(Ordering::Acquire)
        };
        // All of them are looked at, also behind one that stands still.
        threads.iter().filter(|beats| stands_still(beats)).count() > 0
    }
}

/// Looks as long as the process lives; `seconds` of a standstill end it.
///
/// # Errors
/// When there is no thread for it.
pub(crate) fn guard(shared: Arc<Shared>, seconds: u32) -> std::io::Result<()> {
    let looks = move || {
        loop {
            std::thread::park_timeout(LOOK);
            if shared.watchdog.look(seconds) {
                let _ = std::io::stderr().write_all(LAST_WORDS);
                std::process::abort();
            }
        }
    };
    std::thread::Builder::new()
        .name("watchdog".to_owned())
        .spawn(looks)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_does_not_move_is_found_and_one_that_has_ended_is_not() {
        let watchdog = Watchdog::default();
        let (moves, stands) = (watchdog.watch(), watchdog.watch());
        for _ in 0..3 {
            moves.beat();
            assert!(!watchdog.look(3));
        }
        moves.beat();
        assert!(watchdog.look(3));
        stands.beat();
        assert!(!watchdog.look(3));
        drop(stands);
        for _ in 0..10 {
            moves.beat();
            assert!(!watchdog.look(3));
        }
        let held = watchdog.threads.lock();
        assert!((0..3).all(|_| !watchdog.look(3)) && watchdog.look(3));
        drop(held);
        moves.beat();
        assert!(!watchdog.look(3));
        drop(watchdog.watch());
        assert_eq!(watchdog.threads.lock().unwrap().len(), 2);
    }
}
