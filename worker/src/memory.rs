//! The process's allocator, and what it knows.
//!
//! RocksDB and librdkafka allocate with it, too. Its settings are compiled in, from `.cargo/config.toml` (ADR 0030).

use tikv_jemalloc_ctl::{Result, epoch, stats};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Bytes of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// What is in use: what grows without end is lost.
    pub(crate) allocated: usize,
    /// What the allocator holds for it, in use or not.
    pub(crate) resident: usize,
}

impl Memory {
    /// What is in use now.
    ///
    /// # Errors
    /// When the allocator was built without statistics.
    pub(crate) fn now() -> Result<Self> {
        epoch::advance()?;
        Ok(Self {
            allocated: stats::allocated::read()?,
            resident: stats::resident::read()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_settings_are_those_of_the_build() {
        assert_eq!(tikv_jemalloc_ctl::opt::narenas::read(), Ok(4));
        assert_eq!(tikv_jemalloc_ctl::opt::background_thread::read(), Ok(true));
    }

    #[test]
    fn rocksdb_allocates_with_it() {
        const BYTES: usize = 64 << 20;
        let before = Memory::now().unwrap();
        let buffer = rocksdb::WriteBatch::with_capacity_bytes(BYTES);
        let after = Memory::now().unwrap();
        // Other tests allocate and free a little meanwhile.
        assert!(
            after.allocated >= before.allocated + BYTES / 2,
            "{before:?} {after:?}"
        );
        drop(buffer);
    }
}
