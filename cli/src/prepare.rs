//! What the operator does for a cluster, `streamapp run` does for one machine: the claim, internal topics, the
//! assignment, fencing of ordinals that lost tasks.

use std::path::Path;
use std::time::Duration;

use control::{Application, Claiming, SettleError, Settled, TopicError};
use kafka::{Admin, Settings};
use protocol::{ApplicationId, Claimant, Ordinal, Uid, WarmUp};
use topology::Plan;

/// How long a first answer may take: after it, the user is told what is waited for.
const CONTACT: Duration = Duration::from_secs(3);
/// What stands for the Kubernetes cluster in the claim of a `streamapp run`.
const CLUSTER: &str = "run";

/// Why an application cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    /// A Kafka call failed.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// The control log cannot be used.
    #[error(transparent)]
    Control(#[from] control::Error),
    /// A topic of the user's does not exist.
    #[error("{0}, or run with --create-topics N")]
    TopicMissing(TopicError),
    /// An internal topic does not fit.
    #[error(transparent)]
    Topic(TopicError),
    /// Another object or another run owns the application.
    #[error(
        "{0}. If that run is gone for good, take its state directory, or run with --take-over (its processes end)"
    )]
    Claimed(SettleError),
}

impl From<TopicError> for PrepareError {
    fn from(error: TopicError) -> Self {
        match error {
            TopicError::Kafka(error) => Self::Kafka(error),
            TopicError::Missing(_) => Self::TopicMissing(error),
            TopicError::PartitionCount { .. } | TopicError::NotCopartitioned { .. } => Self::Topic(error),
        }
    }
}

impl From<SettleError> for PrepareError {
    fn from(error: SettleError) -> Self {
        match error {
            SettleError::Control(error) => Self::Control(error),
            SettleError::Topic(error) => error.into(),
            SettleError::Claimed { .. } => Self::Claimed(error),
        }
    }
}

impl PrepareError {
    /// Whether trying again later can help.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Kafka(error) | Self::Control(control::Error::Kafka(error)) => {
                error.recovery() != kafka::Recovery::Stop
            }
            Self::Control(
                control::Error::Conflict | control::Error::Blocked { .. } | control::Error::Behind { .. },
            ) => true,
            Self::Control(_) | Self::TopicMissing(_) | Self::Topic(_) | Self::Claimed(_) => false,
        }
    }
}

/// What to prepare.
pub(crate) struct Preparation<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) application: &'a ApplicationId,
    pub(crate) plan: &'a Plan,
    pub(crate) replication_factor: i32,
    /// Copies of each task's stores, beside its owner's.
    pub(crate) standbys: u32,
    /// Partitions of topics that are the user's and do not exist.
    pub(crate) create_topics: Option<i32>,
    pub(crate) claiming: Claiming<'a>,
    pub(crate) uid: &'a Uid,
    pub(crate) state_dir: &'a Path,
    /// So long may the control log get, in offsets.
    pub(crate) snapshot_after: i64,
}

impl Preparation<'_> {
    /// Claim, then topics, then assignment to so many workers, then fences. Each step can be repeated. `warm_up` says when
    /// tasks move, `fences` which ordinals cannot give their tasks up by themselves.
    pub(crate) fn prepare(
        &self,
        workers: u32,
        warm_up: WarmUp<'_>,
        fences: &dyn Fn(Ordinal) -> bool,
    ) -> Result<Settled, PrepareError> {
        let admin = Admin::new(self.settings).map_err(control::Error::from)?;
        admin.cluster_id(CONTACT)?;
        let application = Application {
            settings: self.settings,
            admin: &admin,
            id: self.application,
            plan: self.plan,
            claimant: self.claimant(),
            workers,
            standbys: self.standbys,
            warm_up,
            replication_factor: self.replication_factor,
            create_external: self.create_topics,
            fences,
            snapshot_after: self.snapshot_after,
        };
        Ok(application.settle(self.claiming)?)
    }

    fn claimant(&self) -> Claimant {
        let directory = self
            .state_dir
            .canonicalize()
            .unwrap_or_else(|_| self.state_dir.to_owned());
        Claimant {
            cluster: CLUSTER.to_owned(),
            uid: self.uid.clone(),
            description: format!("`streamapp run` with state directory {}", directory.display()),
        }
    }
}
