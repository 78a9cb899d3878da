//! State on disk: one RocksDB per task, one column family per store, positions in the same batch.
//!
//! Nothing uncommitted is ever written here: a batch is applied after Kafka has committed it. Applied changes wait in
//! memory for others of the same keys, and then go to RocksDB together with the positions of the last of them. The
//! write-ahead log is off and flushes are atomic over all column families, so what is on disk is always a committed prefix
//! with its own positions, and a crash costs the changelog's tail.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use protocol::{MemoryBudget, StorePositions, TaskId};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, Direction, ErrorKind, FlushOptions, IteratorMode,
    Options, ReadOptions, WriteBatch, WriteBufferManager, WriteOptions,
};
use serde::{Deserialize, Serialize};

use crate::shared::lock;
use crate::unwritten::Unwritten;

/// Blocks of files that are gone leave the cache with them; else they stay until it is full, and a worker with little state
/// grows for hours. The value is the one that RocksDB's authors mean to make the default.
const UNCACHE: &str = "uncache_aggressiveness=300";
/// Version of the directory's layout.
const FORMAT: u32 = 1;
/// The column family and key that hold [`StorePositions`].
const POSITIONS: &str = "positions";
/// Lies in a store directory whose files are known to be damaged, with the reason: the next opening need not read the
/// damaged place to know.
const DAMAGED: &str = "damaged";
/// Between the directory's name and the time, in the name of one that was set aside.
const ASIDE: &str = ".set-aside-";
/// A store that is damaged again sooner than this was not damaged by chance.
const CHANCE_MS: i64 = 24 * 60 * 60 * 1_000;
/// The most that waits in memory for other changes of the same keys: handing so much to RocksDB takes a few milliseconds,
/// in which the thread processes nothing.
const MOST_UNWRITTEN: usize = 1 << 20;

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The directory belongs to something else.
    #[error("store directory {} {reason}; nothing was changed: choose another state directory, or move this one away", .path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// How it differs.
        reason: String,
    },
    /// RocksDB failed.
    #[error("store in {}: {error}", .path.display())]
    RocksDb {
        /// The directory.
        path: PathBuf,
        /// Its error.
        #[source]
        error: rocksdb::Error,
    },
    /// A file could not be read or written.
    #[error("store directory {}: {error}", .path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        #[source]
        error: std::io::Error,
    },
    /// What should be in the database is not.
    #[error("store in {}: {reason}", .path.display())]
    Incomplete {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Its files are not what was written.
    #[error("store in {} is damaged ({reason}): it is set aside and rebuilt from its changelog", .path.display())]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The same, less than a day after it was rebuilt for that.
    #[error(
        "store in {} is damaged ({reason}), and was less than a day ago ({}): the volume does not keep what is written. Replace it, the store is rebuilt from its changelog; or remove {} to rebuild it once more here",
        .path.display(), .aside.display(), .aside.display()
    )]
    DamagedAgain {
        /// The directory.
        path: PathBuf,
        /// What was found.
        reason: String,
        /// What was set aside the last time.
        aside: PathBuf,
    },
}

impl StoreError {
    /// Whether the volume is full.
    pub(crate) fn is_volume_full(&self) -> bool {
        match self {
            Self::RocksDb { error, .. } => {
                let text = error.to_string();
                text.contains("No space left")
                    || text.contains("quota exceeded")
                    || text.contains("space limit")
            }
            Self::Io { error, .. } => error.raw_os_error() == Some(libc::ENOSPC),
            Self::Foreign { .. }
            | Self::Incomplete { .. }
            | Self::Damaged { .. }
            | Self::DamagedAgain { .. } => false,
        }
    }

    /// What RocksDB said of the store in `path`. Damage is noted there.
    fn of(path: &Path, error: rocksdb::Error) -> Self {
        // A file that is gone is told as a failed call of the system.
        if error.kind() == ErrorKind::Corruption || error.to_string().contains("No such file") {
            return Self::damaged(path, error.to_string());
        }
        Self::RocksDb {
            path: path.to_owned(),
            error,
        }
    }

    fn damaged(path: &Path, reason: String) -> Self {
        let path = path.to_owned();
        // Without a note the damage is found again when it is read again.
        if let Err(error) = fs::write(path.join(DAMAGED), &reason) {
            tracing::warn!(path = %path.display(), %error, "damage cannot be noted");
        }
        Self::Damaged { path, reason }
    }
}

/// What a store directory says of itself; compared before anything is opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Label {
    pub(crate) format: u32,
    pub(crate) application_id: String,
    pub(crate) cluster_id: String,
    pub(crate) task: TaskId,
    /// Fingerprint per store.
    pub(crate) stores: BTreeMap<String, String>,
}

impl Label {
    pub(crate) fn new(
        application_id: &str,
        cluster_id: &str,
        task: &TaskId,
        stores: BTreeMap<String, String>,
    ) -> Self {
        let (application_id, cluster_id) = (application_id.to_owned(), cluster_id.to_owned());
        Self {
            format: FORMAT,
            application_id,
            cluster_id,
            task: task.clone(),
            stores,
        }
    }

    fn difference(&self, found: &Self) -> Option<String> {
        if found.format != self.format {
            Some(format!(
                "has layout version {}, this worker knows {}",
                found.format, self.format
            ))
        } else if found.application_id != self.application_id {
            Some(format!(
                "belongs to application `{}`, not `{}`",
                found.application_id, self.application_id
            ))
        } else if found.cluster_id != self.cluster_id {
            Some(format!(
                "belongs to Kafka cluster {}, not {}",
                found.cluster_id, self.cluster_id
            ))
        } else if found.task != self.task {
            Some(format!("belongs to task {}, not {}", found.task, self.task))
        } else {
            let mut known = self.stores.iter();
            let changed = known.find(|(name, is)| found.stores.get(*name).is_some_and(|was| was != *is));
            changed.map(|(name, _)| format!("has store `{name}` as another version of the topology keeps it"))
        }
    }
}

/// Memory that all stores of the process share.
pub(crate) struct StoreMemory {
    cache: Cache,
    memtables: WriteBufferManager,
}

impl StoreMemory {
    /// What is written and not yet on disk takes its room from the cache.
    pub(crate) fn new(budget: &MemoryBudget) -> Self {
        let bytes = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
        let cache = Cache::new_lru_cache(bytes(budget.stores));
        let memtables = bytes(budget.memtables());
        let memtables =
            WriteBufferManager::new_write_buffer_manager_with_cache(memtables, false, cache.clone());
        Self { cache, memtables }
    }

    fn options(&self) -> Result<Options, rocksdb::Error> {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        table.set_bloom_filter(10.0, false);
        table.set_format_version(5);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_atomic_flush(true);
        options.set_write_buffer_manager(&self.memtables);
        options.set_write_buffer_size(16 << 20);
        options.set_compression_type(rocksdb::DBCompressionType::Lz4);
        options.set_block_based_table_factory(&table);
        options.set_max_background_jobs(2);
        options.set_keep_log_file_num(2);
        // The binding has no method for it.
        options.get_options_from_string(UNCACHE)
    }
}

/// The database of one task.
pub(crate) struct TaskDb {
    opened: Arc<Opened>,
    /// What waits is written before it takes more than this.
    unwritten_limit: usize,
}

/// What a task and the readers of its stores share.
struct Opened {
    db: DB,
    path: PathBuf,
    stores: Vec<String>,
    write: WriteOptions,
    applied: Mutex<Applied>,
    /// Why a reader could not read.
    unread: Mutex<Option<StoreError>>,
}

/// What was applied.
struct Applied {
    /// Changes up to the positions that are not in the database yet.
    unwritten: Unwritten,
    positions: StorePositions,
    /// Positions were applied since the last write.
    moved: bool,
}

impl TaskDb {
    /// Opens or creates the store directory. A directory that belongs to something else, or is damaged, is left alone.
    pub(crate) fn open(
        path: &Path,
        label: &Label,
        stores: Vec<String>,
        memory: &StoreMemory,
    ) -> Result<Self, StoreError> {
        check_label(path, label)?;
        let path = path.to_owned();
        if let Ok(reason) = fs::read_to_string(path.join(DAMAGED)) {
            return Err(StoreError::Damaged { path, reason });
        }
        let rocks = |error| StoreError::of(&path, error);
        let options = memory.options().map_err(rocks)?;
        let directory = path.join("db");
        let there = if directory.join("CURRENT").exists() {
            DB::list_cf(&options, &directory).map_err(rocks)?
        } else {
            Vec::new()
        };
        // RocksDB opens all that it has, those of stores that the topology has no more, too.
        let wanted = stores.iter().map(String::as_str).chain([POSITIONS, "default"]);
        let families: BTreeSet<_> = there.iter().map(String::as_str).chain(wanted).collect();
        let families = families.into_iter();
        let families = families.map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
        let mut db = DB::open_cf_descriptors(&options, directory, families).map_err(rocks)?;
        let mut write = WriteOptions::default();
        write.disable_wal(true);
        let mut positions: StorePositions = match cf(&db, POSITIONS).map(|cf| db.get_cf(&cf, POSITIONS)) {
            Some(Ok(Some(bytes))) => {
                let unreadable = |error| StoreError::damaged(&path, format!("unreadable positions: {error}"));
                serde_json::from_slice(&bytes).map_err(unreadable)?
            }
            Some(Err(error)) => return Err(rocks(error)),
            Some(Ok(None)) | None => StorePositions::default(),
        };
        settle(
            &path,
            &mut db,
            &mut positions,
            (&there, &stores),
            (&options, &write),
        )?;
        let applied = Applied {
            unwritten: Unwritten::new(stores.len()),
            positions,
            moved: false,
        };
        let opened = Opened {
            db,
            path,
            stores,
            write,
            applied: Mutex::new(applied),
            unread: Mutex::default(),
        };
        Ok(Self {
            opened: Arc::new(opened),
            unwritten_limit: 0,
        })
    }

    /// Lets changes wait in memory, up to so many bytes; none wait unless told.
    pub(crate) fn set_unwritten_bytes(&mut self, bytes: usize) {
        self.unwritten_limit = bytes.min(MOST_UNWRITTEN);
    }

    /// Up to where the stores contain their changelogs, and what the task had committed then.
    pub(crate) fn positions(&self) -> StorePositions {
        lock(&self.opened.applied).positions.clone()
    }

    /// Read access for the engine to the store in this place, whose changelog takes so much as one record.
    pub(crate) fn reader(&self, store: usize, max_record_bytes: usize) -> StoreReader {
        StoreReader {
            opened: Arc::clone(&self.opened),
            store,
            max_record_bytes,
        }
    }

    /// Why a reader could not read, if one could not.
    pub(crate) fn unread(&self) -> Option<StoreError> {
        lock(&self.opened.unread).take()
    }

    /// Takes changes, and the positions that belong to them, together.
    pub(crate) fn apply<'a>(
        &mut self,
        changes: impl IntoIterator<Item = (usize, &'a [u8], Option<&'a [u8]>)>,
        positions: StorePositions,
    ) -> Result<(), StoreError> {
        let full = {
            let mut applied = lock(&self.opened.applied);
            for (store, key, value) in changes {
                applied.unwritten.change(store, key, value);
            }
            applied.positions = positions;
            applied.moved = true;
            applied.unwritten.bytes() > self.unwritten_limit
        };
        if full { self.opened.write() } else { Ok(()) }
    }

    /// Writes to disk; what is there afterwards contains everything applied so far.
    pub(crate) fn flush(&mut self, wait: FlushWait) -> Result<(), StoreError> {
        let Opened { db, stores, .. } = &*self.opened;
        self.opened.write()?;
        // A flush that failed in the background is told only to the next one that waits.
        let failed = db
            .property_int_value("rocksdb.background-errors")
            .ok()
            .flatten()
            .unwrap_or(0)
            > 0;
        let mut options = FlushOptions::default();
        options.set_wait(failed || wait == FlushWait::UntilDone);
        let families: Vec<_> = stores
            .iter()
            .map(String::as_str)
            .chain([POSITIONS])
            .filter_map(|name| cf(db, name))
            .collect();
        db.flush_cfs_opt(&families.iter().collect::<Vec<_>>(), &options)
            .map_err(|error| self.opened.rocks(error))
    }
}

impl Opened {
    /// Hands to RocksDB what it does not have yet.
    fn write(&self) -> Result<(), StoreError> {
        let mut applied = lock(&self.applied);
        if !applied.moved {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        for (store, name) in self.stores.iter().enumerate() {
            let family = cf(&self.db, name).ok_or_else(|| self.missing(name))?;
            for (key, value) in applied.unwritten.sorted(store) {
                match value {
                    Some(value) => batch.put_cf(&family, key, value),
                    None => batch.delete_cf(&family, key),
                }
            }
        }
        let unreadable = |error: serde_json::Error| StoreError::Incomplete {
            path: self.path.clone(),
            reason: format!("positions cannot be written: {error}"),
        };
        let bytes = serde_json::to_vec(&applied.positions).map_err(unreadable)?;
        let family = cf(&self.db, POSITIONS).ok_or_else(|| self.missing(POSITIONS))?;
        batch.put_cf(&family, POSITIONS, bytes);
        self.db
            .write_opt(batch, &self.write)
            .map_err(|error| self.rocks(error))?;
        applied.unwritten.clear();
        applied.moved = false;
        Ok(())
    }

    fn rocks(&self, error: rocksdb::Error) -> StoreError {
        StoreError::of(&self.path, error)
    }

    fn missing(&self, name: &str) -> StoreError {
        StoreError::Incomplete {
            path: self.path.clone(),
            reason: format!("column family {name} is missing"),
        }
    }
}

/// Whether a flush is awaited.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlushWait {
    /// Return when the data is on disk.
    UntilDone,
    /// Return at once.
    No,
}

/// What is left in memory goes to RocksDB, which writes it to disk when it is closed: a session that begins anew after an
/// error finds it there.
impl Drop for TaskDb {
    fn drop(&mut self) {
        if let Err(error) = self.opened.write() {
            tracing::debug!(%error, "store closed without its last changes");
        }
    }
}

/// The engine's view of one store.
pub(crate) struct StoreReader {
    opened: Arc<Opened>,
    store: usize,
    max_record_bytes: usize,
}

impl StoreReader {
    fn name(&self) -> &str {
        self.opened.stores.get(self.store).map_or("?", String::as_str)
    }

    fn family(&self) -> Result<&rocksdb::ColumnFamily, engine::StoreError> {
        let missing = || engine::StoreError::new(format!("store {}: column family is missing", self.name()));
        cf(&self.opened.db, self.name()).ok_or_else(missing)
    }

    /// For the engine. That it is no fault of a record is noted.
    #[cold]
    fn unread(&self, error: StoreError) -> engine::StoreError {
        let message = format!("store {}: {error}", self.name());
        *lock(&self.opened.unread) = Some(error);
        engine::StoreError::new(message)
    }
}

impl engine::Store for StoreReader {
    fn get(&self, key: &[u8], into: &mut Vec<u8>) -> Result<bool, engine::StoreError> {
        into.clear();
        if let Some(value) = lock(&self.opened.applied).unwritten.get(self.store, key) {
            into.extend_from_slice(value.unwrap_or_default());
            return Ok(value.is_some());
        }
        match self.opened.db.get_pinned_cf(self.family()?, key) {
            Ok(Some(value)) => {
                into.extend_from_slice(&value);
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(error) => Err(self.unread(self.opened.rocks(error))),
        }
    }

    fn scan(
        &self,
        range: engine::KeyRange<'_>,
        visit: &mut engine::Visit<'_>,
    ) -> Result<(), engine::StoreError> {
        // Only RocksDB has them in order.
        self.opened.write().map_err(|error| self.unread(error))?;
        let mut options = ReadOptions::default();
        // What is closed is read once, and has no end that is known.
        options.fill_cache(range.until.is_some());
        if let Some(until) = range.until {
            options.set_iterate_upper_bound(until);
        }
        let mode = IteratorMode::From(range.from, Direction::Forward);
        for row in self.opened.db.iterator_cf_opt(self.family()?, options, mode) {
            let (key, value) = row.map_err(|error| self.unread(self.opened.rocks(error)))?;
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn max_record_bytes(&self) -> usize {
        self.max_record_bytes
    }
}

fn cf<'a>(db: &'a DB, name: &str) -> Option<&'a rocksdb::ColumnFamily> {
    db.cf_handle(name)
}

/// Forgets stores that the topology has no more: one that comes back begins empty, since it missed deletions. That it has no
/// position is on disk before what it holds is dropped, and what has no position is dropped: a crash in between leaves nothing.
fn settle(
    path: &Path,
    db: &mut DB,
    positions: &mut StorePositions,
    (there, wanted): (&[String], &[String]),
    (options, write): (&Options, &WriteOptions),
) -> Result<(), StoreError> {
    let rocks = |error| StoreError::of(path, error);
    let before = positions.changelogs.len();
    positions.changelogs.retain(|name, _| wanted.contains(name));
    if positions.changelogs.len() < before
        && let Some(family) = cf(db, POSITIONS)
    {
        let bytes = serde_json::to_vec(positions).map_err(|error| StoreError::Incomplete {
            path: path.to_owned(),
            reason: format!("positions cannot be written: {error}"),
        })?;
        db.put_cf_opt(family, POSITIONS, bytes, write).map_err(rocks)?;
        db.flush_cf(family).map_err(rocks)?;
    }
    let is_stale = |name: &&String| {
        !positions.changelogs.contains_key(*name) && *name != POSITIONS && *name != "default"
    };
    for name in there.iter().filter(is_stale) {
        db.drop_cf(name).map_err(rocks)?;
        if wanted.contains(name) {
            db.create_cf(name, options).map_err(rocks)?;
        }
    }
    Ok(())
}

fn check_label(path: &Path, label: &Label) -> Result<(), StoreError> {
    let io = |error| StoreError::Io {
        path: path.to_owned(),
        error,
    };
    let file = path.join("store.json");
    match fs::read(&file) {
        Ok(bytes) => {
            let foreign = |reason| StoreError::Foreign {
                path: path.to_owned(),
                reason,
            };
            let found: Label = serde_json::from_slice(&bytes)
                .map_err(|error| foreign(format!("has an unreadable store.json ({error})")))?;
            if let Some(reason) = label.difference(&found) {
                return Err(foreign(reason));
            }
            // Stores come and go with topologies.
            if *label == found {
                Ok(())
            } else {
                write_atomically(&file, label).map_err(io)
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if path.join("db").exists() {
                let reason = "has a database but no store.json".to_owned();
                return Err(StoreError::Foreign {
                    path: path.to_owned(),
                    reason,
                });
            }
            fs::create_dir_all(path).map_err(io)?;
            write_atomically(&file, label).map_err(io)
        }
        Err(error) => Err(io(error)),
    }
}

/// Writes a JSON document so that a crash leaves the old or the new one.
pub(crate) fn write_atomically(path: &Path, document: &impl Serialize) -> std::io::Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, serde_json::to_vec_pretty(document)?)?;
    fs::File::open(&fresh)?.sync_all()?;
    fs::rename(&fresh, path)
}

/// Sets a store directory aside, to be rebuilt from its changelog; returns where it went. Of each store only the last one
/// is kept, and one that was damaged for as long as that counts.
///
/// # Errors
/// [`StoreError::DamagedAgain`], or what the file system says.
pub(crate) fn set_aside(path: &Path, now_ms: i64) -> Result<PathBuf, StoreError> {
    let io = |error| StoreError::Io {
        path: path.to_owned(),
        error,
    };
    let (damaged, others): (Vec<_>, Vec<_>) = aside_before(path)
        .map_err(io)?
        .into_iter()
        .partition(|(at_ms, aside)| now_ms - at_ms < CHANCE_MS && aside.join(DAMAGED).exists());
    if let Ok(reason) = fs::read_to_string(path.join(DAMAGED))
        && let Some((_, aside)) = damaged.first()
    {
        return Err(StoreError::DamagedAgain {
            path: path.to_owned(),
            reason,
            aside: aside.clone(),
        });
    }
    let aside = path.with_file_name(format!("{}{now_ms}", aside_prefix(path)));
    fs::rename(path, &aside).map_err(io)?;
    for (_, old) in others {
        fs::remove_dir_all(old).map_err(io)?;
    }
    Ok(aside)
}

fn aside_prefix(path: &Path) -> String {
    format!(
        "{}{ASIDE}",
        path.file_name().unwrap_or_default().to_string_lossy()
    )
}

/// What was set aside of the store in `path`, with its times.
fn aside_before(path: &Path) -> std::io::Result<Vec<(i64, PathBuf)>> {
    let prefix = aside_prefix(path);
    let mut found = Vec::new();
    for entry in fs::read_dir(path.parent().unwrap_or(path))? {
        let entry = entry?;
        let name = entry.file_name();
        let at_ms = name.to_str().and_then(|name| name.strip_prefix(&prefix));
        if let Some(at_ms) = at_ms.and_then(|at_ms| at_ms.parse().ok()) {
            found.push((at_ms, entry.path()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
