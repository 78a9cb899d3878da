//! What the operator does for a cluster, `streamapp run` does for one machine: internal topics, the claim, the
//! assignment, fencing of ordinals that lost tasks.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control::{Claiming, Ensured, OwnershipError, Reader, TopicError, Topics, Wanted};
use kafka::{Admin, Settings};
use protocol::{ApplicationId, Claimant, Uid};
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
        "{0}. If that run is gone for good, take its state directory, or run with --take-over (its processes are fenced)"
    )]
    Claimed(OwnershipError),
}

impl From<TopicError> for PrepareError {
    fn from(error: TopicError) -> Self {
        match error {
            TopicError::Kafka(error) => Self::Kafka(error),
            TopicError::Missing(_) => Self::TopicMissing(error),
            TopicError::PartitionCount { .. } => Self::Topic(error),
        }
    }
}

impl From<OwnershipError> for PrepareError {
    fn from(error: OwnershipError) -> Self {
        match error {
            OwnershipError::Control(error) => Self::Control(error),
            OwnershipError::Claimed { .. } => Self::Claimed(error),
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
            Self::Control(control::Error::Conflict | control::Error::Blocked { .. }) => true,
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
    pub(crate) workers: u32,
    /// Partitions of topics that are the user's and do not exist.
    pub(crate) create_topics: Option<i32>,
    pub(crate) claiming: Claiming,
    pub(crate) uid: &'a Uid,
    pub(crate) state_dir: &'a Path,
}

/// What was prepared.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    /// Topics that did not exist before.
    pub(crate) created: Vec<String>,
    /// Properties of internal topics that were set back.
    pub(crate) corrected: Vec<String>,
    /// All tasks.
    pub(crate) tasks: usize,
}

impl Preparation<'_> {
    /// Topics, then claim, then assignment, then fences. Each step can be repeated.
    pub(crate) fn prepare(&self) -> Result<Prepared, PrepareError> {
        let admin = Admin::new(self.settings).map_err(control::Error::from)?;
        admin.cluster_id(CONTACT)?;
        let topics = Topics {
            admin: &admin,
            application: self.application,
            plan: self.plan,
            replication_factor: self.replication_factor,
            create_external: self.create_topics,
        };
        let Ensured {
            created,
            corrected,
            tasks,
            positions,
        } = topics.ensure()?;
        let mut reader = Reader::open(self.settings, &admin, self.application)?;
        let end = reader.end()?;
        let world = reader.read_to(end)?;
        let wanted = Wanted {
            claimant: self.claimant(),
            owners: protocol::assign(&tasks, self.workers, positions, world),
        };
        wanted.settle(self.settings, &admin, self.application, self.claiming, now_ms())?;
        Ok(Prepared {
            created,
            corrected,
            tasks: tasks.len(),
        })
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

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
