//! The deterministic runtime of one task: records in → outputs, changelog, offsets out.
//!
//! No Kafka, no RocksDB, no thread, no clock: what a task does depends on its records and its stores alone,
//! so replay gives the same result. The way of a record is [`Task::process`]: decode (only the fields that
//! the plan reads) → nodes → buffered outputs and staged writes, which take effect together or not at all.
//!
//! In the steady state nothing is allocated on the heap per record; `tests/alloc.rs` counts.

mod cache;
mod driver;
mod error;
mod format;
mod inputs;
pub mod json;
pub mod partition;
mod record;
pub mod row;
mod staging;
mod store;
mod task;
mod window_rows;

pub use driver::{Driven, Driver, DriverRecord, DriverStore};
pub use error::{ErrorCategory, ProcessError, Recovery};
pub use format::{FormatError, decode};
pub use inputs::{Head, earliest};
pub use record::{
    BadRecord, ChosenBy, DropReason, InputRecord, Origin, Outgoing, Output, OutputError, Processed,
};
pub use staging::Change;
pub use store::{KeyRange, MemoryStore, Store, StoreError, Visit};
pub use task::Task;
pub use window_rows::{StoreRow, store_rows};
