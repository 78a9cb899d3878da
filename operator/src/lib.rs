//! The operator. One reconcile goes
//!
//! ```text
//! dereference → validate → Kafka (topics, claim, assignment) → build → apply → observe → decide → status
//! ```
//!
//! [`build`], [`decide`] and [`status`] are pure; [`reconcile`] is the one place that asks and acts.

pub mod build;
pub mod decide;
pub mod http;
pub mod kafka_state;
pub mod lease;
pub mod names;
pub mod observe;
pub mod reconcile;
pub mod status;
