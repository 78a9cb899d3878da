//! From a declared topology to a typed plan.
//!
//! [`declaration`] holds what a person writes in `spec.topology`, [`plan()`] checks it and compiles it to a
//! [`Plan`], [`Expr`] is the expression language. Nothing here does I/O, reads a clock or is random: the same
//! declaration always gives the same plan.

pub mod compare;
pub mod declaration;
mod describe;
pub mod determinism;
mod draw;
mod duration;
mod expr;
mod fingerprint;
mod path;
pub mod plan;
mod planner;
mod suggest;
mod types;
mod value;

pub use draw::Drawing;
pub use duration::{Duration, DurationError};
pub use expr::{Env, EvalError, Expr, ExprError, Reads, ValueReads};
pub use path::{Path, Segment};
pub use plan::Plan;
pub use planner::{PlanError, plan};
pub use suggest::{did_you_mean, nearest};
pub use types::{Field, StructType, Type};
pub use value::{Header, Scope, Value};
