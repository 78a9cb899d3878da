//! The Kafka side of an application: topics, claim, assignment. Every call here blocks; callers use a thread of their own.

use std::time::Duration;

use control::{Claiming, SettleError, TopicError};
use kafka::{Admin, Category, GroupState};
use protocol::{ApplicationId, Claimant, KafkaConfig, WarmUp};
use topology::Plan;

use crate::decide::Verdict;

/// How long the first answer of a cluster may take.
const CONTACT: Duration = Duration::from_secs(5);

/// An application as Kafka should know it.
#[derive(Clone, Debug)]
pub(crate) struct Application {
    /// Its id.
    pub(crate) id: ApplicationId,
    /// The cluster, with credentials.
    pub(crate) kafka: KafkaConfig,
    /// Replicas of internal topics.
    pub(crate) replication_factor: i32,
    /// Worker pods.
    pub(crate) replicas: u32,
    /// Copies of each task's stores, beside its owner's.
    pub(crate) standbys: u32,
    /// Who owns it: this object.
    pub(crate) claimant: Claimant,
}

/// What was found or made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Topics that did not exist before.
    pub(crate) created: Vec<String>,
    /// Properties of internal topics that were set back.
    pub(crate) corrected: Vec<String>,
    /// Topics that can lose acknowledged records with a broker.
    pub(crate) at_risk: Vec<String>,
    /// Tasks of the plan.
    pub(crate) tasks: u32,
    /// Sub-topologies, as `name×partitions`.
    pub(crate) topology: Vec<String>,
}

/// Why Kafka does not let the application run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// A Kafka call failed.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// librdkafka refuses the configuration.
    #[error("spec.kafka.clientConfig: {0}")]
    Config(#[from] kafka::ConfigError),
    /// Topics do not serve.
    #[error(transparent)]
    Topic(TopicError),
    /// The control log cannot be used.
    #[error(transparent)]
    Control(control::Error),
    /// Somebody else owns the application.
    #[error("spec.applicationId: `{application}` belongs to {}. Choose another applicationId, or delete that one", owner.description)]
    Claimed {
        /// The application.
        application: String,
        /// Who.
        owner: Claimant,
        /// Whether that is an object of this cluster.
        here: Neighbour,
    },
    /// Another consumer is in the application's group.
    #[error(
        "spec.applicationId: group {0} has live members, so another application uses this id; stop it, or choose another applicationId"
    )]
    GroupInUse(ApplicationId),
}

/// Where the owner of a claim is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Neighbour {
    /// A StreamApp of this cluster.
    SameCluster,
    /// Of another cluster, or a `streamapp run`.
    Elsewhere,
}

impl From<TopicError> for Problem {
    fn from(error: TopicError) -> Self {
        match error {
            TopicError::Kafka(error) => Self::Kafka(error),
            TopicError::Missing(_)
            | TopicError::PartitionCount { .. }
            | TopicError::NotCopartitioned { .. } => Self::Topic(error),
        }
    }
}

impl From<control::Error> for Problem {
    fn from(error: control::Error) -> Self {
        match error {
            control::Error::Kafka(error) => Self::Kafka(error),
            control::Error::Config(error) => Self::Config(error),
            control::Error::Missing(_)
            | control::Error::Blocked { .. }
            | control::Error::Behind { .. }
            | control::Error::Lost { .. }
            | control::Error::Unreadable { .. }
            | control::Error::Conflict => Self::Control(error),
        }
    }
}

impl Problem {
    /// What people are told; `servers` is where the cluster was looked for.
    #[must_use]
    pub(crate) fn verdict(&self, servers: &str) -> Verdict {
        let message = self.to_string();
        match self {
            Self::Kafka(error) => {
                let message = format!("Kafka at {servers}: {message}");
                match error.category() {
                    Category::Authentication => Verdict::stalled("AuthenticationFailed", message),
                    Category::Authorization => Verdict::stalled("AuthorizationFailed", message),
                    Category::Configuration => Verdict::stalled("InvalidConfiguration", message),
                    Category::BrokerUnreachable | Category::Timeout => {
                        Verdict::progressing("KafkaUnreachable", message)
                    }
                    Category::Fenced
                    | Category::UnknownTopic
                    | Category::OffsetOutOfRange
                    | Category::RecordRefused
                    | Category::UnstableOffsets
                    | Category::Transaction
                    | Category::Other => Verdict::progressing("KafkaError", message),
                }
            }
            Self::Config(_) => Verdict::stalled("InvalidConfiguration", message),
            Self::Topic(TopicError::Missing(_)) => Verdict::stalled("TopicMissing", message),
            Self::Topic(TopicError::NotCopartitioned { .. }) => Verdict::stalled("NotCopartitioned", message),
            Self::Topic(_) => Verdict::stalled("PartitionCountChanged", message),
            Self::Control(control::Error::Lost { .. }) => Verdict::stalled("ControlLogLost", message),
            Self::Control(_) => Verdict::progressing("ControlLogBusy", message),
            Self::Claimed { here, .. } => match here {
                Neighbour::SameCluster => Verdict::stalled("ApplicationIdConflict", message),
                Neighbour::Elsewhere => Verdict::stalled("ClaimedElsewhere", message),
            },
            Self::GroupInUse(_) => Verdict::stalled("GroupInUse", message),
        }
    }
}

impl Application {
    /// Makes claim, topics and assignment what they should be. Can be repeated.
    ///
    /// # Errors
    /// [`Problem`]
    pub(crate) fn settle(&self, plan: &Plan, claiming: Claiming<'_>) -> Result<Settled, Problem> {
        let settings = control::settings(&self.kafka);
        let admin = Admin::new(&settings)?;
        admin.cluster_id(CONTACT)?;
        if admin.group_state(&self.id.0, control::REQUEST_TIMEOUT)? == GroupState::Live {
            return Err(Problem::GroupInUse(self.id.clone()));
        }
        let control::Settled {
            created,
            corrected,
            at_risk,
            tasks,
            warming: _,
            owing: _,
        } = control::Application {
            settings: &settings,
            admin: &admin,
            id: &self.id,
            plan,
            claimant: self.claimant.clone(),
            workers: self.replicas,
            standbys: self.standbys,
            warm_up: WarmUp::No,
            replication_factor: self.replication_factor,
            create_external: None,
            // Assignments change only when nothing of the application runs.
            fences: &|_| true,
            snapshot_after: control::SNAPSHOT_AFTER,
        }
        .settle(claiming)
        .map_err(|error| match error {
            SettleError::Control(error) => error.into(),
            SettleError::Topic(error) => error.into(),
            SettleError::Claimed { application, owner } => Problem::Claimed {
                here: if owner.cluster == self.claimant.cluster {
                    Neighbour::SameCluster
                } else {
                    Neighbour::Elsewhere
                },
                application,
                owner,
            },
        })?;
        let topology = plan.sub_topologies.iter().map(|sub| {
            let partitions = tasks.iter().filter(|task| task.sub_topology == sub.name).count();
            format!("{}×{partitions}", sub.name)
        });
        Ok(Settled {
            created,
            corrected,
            at_risk,
            tasks: u32::try_from(tasks.len()).unwrap_or(u32::MAX),
            topology: topology.collect(),
        })
    }

    /// Lets go of the application.
    ///
    /// # Errors
    /// [`Problem`]
    pub(crate) fn release(&self) -> Result<(), Problem> {
        let settings = control::settings(&self.kafka);
        let admin = Admin::new(&settings)?;
        admin.cluster_id(CONTACT)?;
        match control::Application::release(&settings, &admin, &self.id, &self.claimant) {
            // Never claimed.
            Ok(()) | Err(control::Error::Missing(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_has_a_reason_of_the_reference_and_names_what_it_is_about() {
        let owner = Claimant {
            cluster: "c".to_owned(),
            uid: protocol::Uid("u".to_owned()),
            description: "StreamApp shop/first".to_owned(),
        };
        let claimed = |here| Problem::Claimed {
            application: "id".to_owned(),
            owner: owner.clone(),
            here,
        };
        let problems = [
            (
                Problem::Topic(TopicError::Missing("orders".to_owned())),
                "TopicMissing",
                "orders",
            ),
            (
                claimed(Neighbour::SameCluster),
                "ApplicationIdConflict",
                "shop/first",
            ),
            (claimed(Neighbour::Elsewhere), "ClaimedElsewhere", "shop/first"),
            (
                Problem::GroupInUse(ApplicationId("id".to_owned())),
                "GroupInUse",
                "id",
            ),
            (
                Problem::Control(control::Error::Conflict),
                "ControlLogBusy",
                "at the same time",
            ),
        ];
        for (problem, reason, named) in problems {
            let verdict = problem.verdict("kafka:9092");
            assert_eq!(verdict.reason(), reason);
            assert!(
                crds::reasons::REASONS.iter().any(|(known, ..)| *known == reason),
                "{reason}"
            );
            assert!(problem.to_string().contains(named), "{problem}");
        }
    }
}
