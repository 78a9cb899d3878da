//! Two ways to look for a schedule that breaks a promise of [`protocol`], without Kafka: [`model`] visits every interleaving of small
//! scenarios, [`seeded`] runs whole workers through random schedules with faults.

pub mod model;
pub mod random;
pub mod seeded;

use protocol::{Record, World};

/// The record of an operator as if it had been decided on what the log says now: what a fold takes it for that compares
/// nothing. A snapshot says itself what it was decided on.
fn as_decided_now(record: &Record, world: &World) -> Record {
    let mut record = record.clone();
    let is_snapshot = matches!(record, Record::Snapshot { .. });
    if let Some(prev) = record.prev_mut().filter(|_| !is_snapshot) {
        *prev = world.operator_head;
    }
    record
}
