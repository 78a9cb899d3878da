//! One memory budget per worker, cut from the limit of its container.

const MIB: u64 = 1 << 20;
/// Code, librdkafka's buffers, and what an allocator leaves unused.
const PROCESS: u64 = 48 * MIB;
/// A stream thread with its consumer and producer.
const THREAD: u64 = 16 * MIB;
/// The least that is left to share out.
const LEAST: u64 = 64 * MIB;
/// The least that is fetched ahead per partition, in KiB.
const LEAST_KIB: u64 = 64;

/// What a worker takes for its limit when its container has none.
pub const DEFAULT_MEMORY_BYTES: u64 = 1 << 30;

/// What the parts of a worker may take, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBudget {
    /// Block cache of all stores, with memtables, indexes and filters.
    pub stores: u64,
    /// What stores hold under keys in use, of all tasks.
    pub cached: u64,
    /// Committed changes that wait for others of their keys before they are handed to the stores, of all tasks.
    pub unwritten: u64,
    /// Changes that a thread stages before it commits early.
    pub staged: u64,
    /// Records of a thread that the broker has not taken yet.
    pub sent: u64,
    fetched: u64,
}

/// Why records are fetched ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// To process them.
    Inputs,
    /// Changelogs of stores that are restored.
    Restores,
    /// Changelogs of stores that belong to other workers.
    Copies,
}

/// The limit leaves nothing to work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a worker with {threads} threads needs a memory limit of {} MiB or more, not {} MiB",
    least / MIB,
    limit / MIB
)]
pub struct MemoryTooSmall {
    threads: u32,
    limit: u64,
    least: u64,
}

impl MemoryBudget {
    /// Shares out `limit` bytes: two fifths to the stores (a quarter of that to keys in use, an eighth to changes that are
    /// not written yet), a fifth each to staged changes, to records on their way to the broker, and to records fetched ahead.
    ///
    /// # Errors
    /// [`MemoryTooSmall`].
    pub fn of(limit: u64, threads: u32) -> Result<Self, MemoryTooSmall> {
        let count = u64::from(threads.max(1));
        let fixed = PROCESS + count * THREAD;
        let least = fixed + LEAST;
        let Some(rest) = limit.checked_sub(fixed).filter(|rest| *rest >= LEAST) else {
            return Err(MemoryTooSmall {
                threads,
                limit,
                least,
            });
        };
        Ok(Self {
            stores: rest / 4,
            cached: rest / 10,
            unwritten: rest / 20,
            staged: rest / 5 / count,
            sent: rest / 5 / count,
            fetched: rest / 5,
        })
    }

    /// Of the stores' share, what memtables may take.
    #[must_use]
    pub fn memtables(&self) -> u64 {
        self.stores / 2
    }

    /// What may be fetched ahead per partition, in KiB, when `partitions` may be read at a time.
    #[must_use]
    pub fn prefetch_kib(&self, why: Fetched, partitions: usize) -> u32 {
        let (share, most) = match why {
            Fetched::Inputs => (self.fetched / 2, 4 * 1024),
            Fetched::Restores => (self.fetched / 4, 16 * 1024),
            Fetched::Copies => (self.fetched / 4, 1024),
        };
        let kib = share / 1024 / u64::try_from(partitions.max(1)).unwrap_or(u64::MAX);
        u32::try_from(kib.clamp(LEAST_KIB, most)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_stay_within_the_limit(mib in 1u64..100_000, threads in 1u32..64, partitions in 1usize..500) {
            let limit = mib * MIB;
            let Ok(budget) = MemoryBudget::of(limit, threads) else {
                let least = PROCESS + u64::from(threads) * THREAD + LEAST;
                prop_assert!(limit < least);
                return Ok(());
            };
            let count = u64::from(threads);
            let parts = budget.stores + budget.cached + budget.unwritten + count * (budget.staged + budget.sent) + budget.fetched;
            prop_assert!(PROCESS + count * THREAD + parts <= limit);
            prop_assert!(budget.memtables() < budget.stores);
            let kib: u64 = [Fetched::Inputs, Fetched::Restores, Fetched::Copies]
                .into_iter()
                .map(|why| u64::from(budget.prefetch_kib(why, partitions)))
                .sum();
            let floor = 3 * LEAST_KIB * 1024 * partitions as u64;
            prop_assert!(kib * 1024 * partitions as u64 <= budget.fetched + floor);
        }
    }

    #[test]
    fn a_limit_that_leaves_nothing_is_refused_with_what_would_do() {
        let error = MemoryBudget::of(100 * MIB, 2).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a worker with 2 threads needs a memory limit of 144 MiB or more, not 100 MiB"
        );
        assert!(MemoryBudget::of(144 * MIB, 2).is_ok());
    }
}
