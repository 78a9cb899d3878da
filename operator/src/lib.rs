//! The operator. One reconcile goes
//!
//! ```text
//! dereference → validate → Kafka (topics, claim, assignment) → build → apply → observe → decide → status
//! ```
//!
//! [`build`], [`decide`] and [`status`] are pure; `reconcile` (with `desired` and `deletion`) is the one place that asks and acts.

pub mod build;
pub mod context;
pub mod controller;
pub mod decide;
mod deletion;
mod desired;
pub mod http;
pub mod kafka_state;
pub mod lease;
pub mod names;
pub mod observe;
mod reconcile;
pub mod status;
