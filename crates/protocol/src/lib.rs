//! What operator, workers and command line say to each other: control log and its fold, acquisition of
//! producers, positions, worker configuration, worker status. No I/O, no clock.

pub mod acquire;
mod config;
mod fold;
pub mod handover;
mod ids;
mod memory;
mod placement;
mod positions;
mod record;
mod status;
mod store;

pub use config::{DEFAULT_MAX_TASK_IDLE_MS, Guarantee, KafkaConfig, WorkerConfig};
pub use fold::{Claimant, Folded, Superseded, World};
pub use ids::{ApplicationId, Ordinal, TaskId, TaskIdError, Uid};
pub use memory::{DEFAULT_MEMORY_BYTES, Fetched, MemoryBudget, MemoryTooSmall};
pub use placement::{ACCEPTABLE_LAG, Placement, Wanted, WarmUp};
pub use positions::{InputPosition, MirrorMismatch, Positions, StoreChanged, check_mirror};
pub use record::{Owner, Record, RecordId, Standbys};
pub use status::{Phase, Restore, TaskState, TaskStatus, Totals, WorkerStatus};
pub use store::{CannotContinue, ChangelogPosition, StorePositions, TOMBSTONE_RETENTION_MS};
