//! How a session ends: every error of a worker, as what the process does next and what people are told.

use protocol::{Phase, Superseded};

use crate::control::ControlError;
use control::PositionsError;

use crate::recovery::RecoveryError;
use crate::restore::RestoreError;
use crate::standstill::Stalled;
use crate::store::StoreError;

/// How a session ended, and what the process does next.
#[derive(Clone, Debug)]
pub(crate) enum SessionEnd {
    /// Everything is committed and closed, by request.
    Drained,
    /// Somebody else speaks for the ordinal: exit for good.
    Superseded(Superseded),
    /// Begin again at once.
    Restart,
    /// Begin again later; until then the phase and the reason are shown.
    Wait {
        phase: Phase,
        reason: &'static str,
        message: String,
    },
    /// Only a person can help, and waiting does not.
    Failed { reason: &'static str, message: String },
}

impl From<kafka::Error> for SessionEnd {
    fn from(error: kafka::Error) -> Self {
        use kafka::Category;
        let (phase, reason) = match error.category() {
            Category::BrokerUnreachable | Category::Timeout => (Phase::Starting, "BrokerUnreachable"),
            Category::Fenced => (Phase::Acquiring, "Fenced"),
            Category::Authentication => (Phase::Hold, "AuthenticationFailed"),
            Category::Authorization => (Phase::Hold, "AuthorizationFailed"),
            Category::UnknownTopic => (Phase::Hold, "TopicMissing"),
            Category::OffsetOutOfRange => (Phase::Hold, "InputLost"),
            Category::RecordRefused => (Phase::Hold, "RecordRefused"),
            Category::UnstableOffsets => (Phase::Acquiring, "UnstableOffsets"),
            Category::Configuration => (Phase::Hold, "InvalidConfiguration"),
            Category::Transaction | Category::Other => (Phase::Acquiring, "KafkaError"),
        };
        Self::Wait {
            phase,
            reason,
            message: error.to_string(),
        }
    }
}

impl From<kafka::ConfigError> for SessionEnd {
    fn from(error: kafka::ConfigError) -> Self {
        Self::Failed {
            reason: "InvalidConfiguration",
            message: error.to_string(),
        }
    }
}

impl From<ControlError> for SessionEnd {
    fn from(error: ControlError) -> Self {
        use control::Error as Log;
        let message = error.to_string();
        let wait = |phase, reason| Self::Wait {
            phase,
            reason,
            message: message.clone(),
        };
        match error {
            ControlError::Log(Log::Kafka(error)) => error.into(),
            ControlError::Log(Log::Config(error)) => error.into(),
            ControlError::Log(Log::Missing(_)) => wait(Phase::Starting, "NotAssigned"),
            ControlError::Log(Log::Blocked { .. } | Log::Conflict) => {
                wait(Phase::Acquiring, "ControlLogBlocked")
            }
            ControlError::Log(Log::Behind { .. }) => wait(Phase::Acquiring, "ControlLogBehind"),
            ControlError::Log(Log::Lost { .. }) => wait(Phase::Hold, "ControlLogLost"),
            ControlError::Log(Log::Unreadable { .. }) => wait(Phase::Hold, "ControlLogUnreadable"),
            ControlError::File(error) => error.into(),
            ControlError::StateDir { .. } => Self::Failed {
                reason: "StateDirectory",
                message,
            },
        }
    }
}

impl From<RecoveryError> for SessionEnd {
    fn from(error: RecoveryError) -> Self {
        if let RecoveryError::Kafka(error) | RecoveryError::Positions(PositionsError::Kafka(error)) = error {
            return error.into();
        }
        Self::Wait {
            phase: error.phase(),
            reason: error.reason(),
            message: error.to_string(),
        }
    }
}

impl From<StoreError> for SessionEnd {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        if error.is_volume_full() {
            let message = format!("{message}; nothing is lost: free or add space, the worker tries again");
            return Self::Wait {
                phase: Phase::Hold,
                reason: "VolumeFull",
                message,
            };
        }
        match error {
            StoreError::Foreign { .. } => Self::Failed {
                reason: "StoreForeign",
                message,
            },
            StoreError::RocksDb { .. } | StoreError::Io { .. } | StoreError::Incomplete { .. } => {
                Self::Wait {
                    phase: Phase::Hold,
                    reason: "StoreFailed",
                    message,
                }
            }
            StoreError::Damaged { .. } => Self::Wait {
                phase: Phase::Restoring,
                reason: "StoreDamaged",
                message,
            },
            StoreError::DamagedAgain { .. } => Self::Wait {
                phase: Phase::Hold,
                reason: "StoreDamaged",
                message,
            },
        }
    }
}

impl From<Stalled> for SessionEnd {
    fn from(stalled: Stalled) -> Self {
        Self::Wait {
            phase: Phase::Acquiring,
            reason: "RecordsDoNotArrive",
            message: stalled.to_string(),
        }
    }
}

impl From<RestoreError> for SessionEnd {
    fn from(error: RestoreError) -> Self {
        let message = error.to_string();
        match error {
            RestoreError::Kafka(error) => error.into(),
            RestoreError::Config(error) => error.into(),
            RestoreError::Store(error) => error.into(),
            RestoreError::Missing(_) => Self::Wait {
                phase: Phase::Hold,
                reason: "TopicMissing",
                message,
            },
            RestoreError::PositionsLost { .. } => Self::Wait {
                phase: Phase::Hold,
                reason: "PositionsLost",
                message,
            },
            RestoreError::Stalled { .. } => Self::Wait {
                phase: Phase::Restoring,
                reason: "RestoreStalled",
                message,
            },
            RestoreError::CannotContinue(_) => Self::Wait {
                phase: Phase::Restoring,
                reason: "RestoreBegunAnew",
                message,
            },
            RestoreError::GivenUp => Self::Drained,
        }
    }
}
