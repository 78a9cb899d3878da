//! The `StreamApp` resource as a plain document: its shape, its defaults, and how a file becomes one.
//!
//! [`load`] reads YAML or JSON and tells everything that is wrong with it at once, each with its place in the file
//! ([`Diagnostic`]). No I/O happens here.

mod app;
mod check;
mod crd;
mod diagnostic;
mod load;
mod quantity;
pub mod reasons;
mod shape;
mod source;
mod status;
mod worker;
mod yaml;

pub use app::{
    ApiVersion, Authentication, CertificateSource, Guarantee, Ignored, InternalTopics, Kafka, Kind,
    Mechanism, Metadata, NamedReference, PasswordSource, PodTemplate, Processing, REFUSED_CLIENT_PROPERTIES,
    Resources, Retention, RetentionPolicy, Spec, State, StreamApp, Tls, Volume, json_schema,
};
pub use crd::{GROUP, PLURAL, VERSION, definition};
pub use diagnostic::Diagnostic;
pub use load::{Document, Loaded, load};
pub use status::{Condition, Status, Worker};
pub use topology::{Duration, DurationError};
pub use worker::{Place, SecretKey};
