//! The `StreamApp` resource as a plain document: its shape, its defaults, and how a file becomes one.
//!
//! [`load`] reads YAML or JSON and tells everything that is wrong with it at once, each with its place in the file
//! ([`Diagnostic`]). No I/O happens here.

mod app;
mod check;
mod diagnostic;
mod duration;
mod load;
mod shape;
mod source;
mod yaml;

pub use app::{
    ApiVersion, Guarantee, Ignored, InternalTopics, Kafka, Kind, Metadata, Processing,
    REFUSED_CLIENT_PROPERTIES, Spec, StreamApp, json_schema,
};
pub use diagnostic::Diagnostic;
pub use duration::{Duration, DurationError};
pub use load::{Loaded, load};
