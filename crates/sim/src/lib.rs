//! Two ways to look for a schedule that breaks a promise of [`protocol`], without Kafka: [`model`] visits every interleaving of small
//! scenarios, [`seeded`] runs whole workers through random schedules with faults.

pub mod model;
pub mod random;
pub mod seeded;
