//! Seeded simulation: a simulated broker, simulated processes of one ordinal, faults, and the real control-log fold
//! and acquisition of [`protocol`]. A seed reproduces a run.
//!
//! Each step of a process is one request, so the scheduler can stop it, kill it or let another one run between
//! any two of them. What must hold after every step is in [`world::Simulation::check`]; what a broken protocol
//! would do is shown by [`process::Mutant`]s, each of which must be caught.

pub mod broker;
pub mod model;
pub mod process;
pub mod random;
pub mod world;
