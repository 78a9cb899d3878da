//! One table: what a librdkafka error means, and what to do.

use std::ffi::CStr;
use std::fmt;

use rdkafka::bindings as sys;
use rdkafka::types::RDKafkaErrorCode as Code;

/// An error of a Kafka call: what was tried, on what, and how to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    attempted: String,
    code: Code,
    detail: String,
    fatal: bool,
    retriable: bool,
    requires_abort: bool,
}

/// Kind of an error: metric label and reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// No broker answers at the bootstrap address, or the connection broke.
    BrokerUnreachable,
    /// An answer did not come in time.
    Timeout,
    /// A later producer with the same transactional id exists, or the broker ended the transaction.
    Fenced,
    /// The broker refuses the credentials.
    Authentication,
    /// The broker refuses the operation.
    Authorization,
    /// A topic or partition does not exist.
    UnknownTopic,
    /// A wanted offset is not (or no longer) in the topic.
    OffsetOutOfRange,
    /// A record exceeds what broker or topic accept.
    RecordTooLarge,
    /// The group's offsets wait for an open transaction.
    UnstableOffsets,
    /// The client's configuration is wrong.
    Configuration,
    /// The state of a transaction does not allow the call.
    Transaction,
    /// Anything else.
    Other,
}

/// What to do after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Call again, later.
    Retry,
    /// The producer is lost or in doubt: drop staging, go through `acquire()`.
    Reacquire,
    /// Only a person can help.
    Stop,
}

impl Error {
    pub(crate) fn new(attempted: impl Into<String>, code: sys::rd_kafka_resp_err_t, detail: &str) -> Self {
        Self {
            attempted: attempted.into(),
            code: code.into(),
            detail: detail.to_owned(),
            fatal: false,
            retriable: false,
            requires_abort: false,
        }
    }

    /// From a bare code; the detail is librdkafka's description.
    pub(crate) fn from_code(attempted: impl Into<String>, code: sys::rd_kafka_resp_err_t) -> Self {
        // SAFETY: rd_kafka_err2str returns a static NUL-terminated string for every code.
        let detail = unsafe { CStr::from_ptr(sys::rd_kafka_err2str(code)) }
            .to_string_lossy()
            .into_owned();
        Self::new(attempted, code, &detail)
    }

    /// Takes ownership of an error object; `Ok` for null.
    ///
    /// # Safety
    /// `error` is null or was returned by librdkafka and not yet destroyed.
    pub(crate) unsafe fn check(
        attempted: &dyn Fn() -> String,
        error: *mut sys::rd_kafka_error_t,
    ) -> Result<(), Self> {
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: by the caller's promise `error` is a live error object; it is destroyed once, at the end.
        unsafe {
            let detail = CStr::from_ptr(sys::rd_kafka_error_string(error))
                .to_string_lossy()
                .into_owned();
            let mut result = Self::new(attempted(), sys::rd_kafka_error_code(error), &detail);
            result.fatal = sys::rd_kafka_error_is_fatal(error) != 0;
            result.retriable = sys::rd_kafka_error_is_retriable(error) != 0;
            result.requires_abort = sys::rd_kafka_error_txn_requires_abort(error) != 0;
            sys::rd_kafka_error_destroy(error);
            Err(result)
        }
    }

    /// The kind of this error.
    #[must_use]
    pub fn category(&self) -> Category {
        match self.code {
            Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::NetworkException
            | Code::BrokerNotAvailable
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::CoordinatorLoadInProgress
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend => Category::BrokerUnreachable,
            Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::MessageTimedOut
            | Code::TimedOutQueue
            | Code::PreviousInProgress
            | Code::InProgress => Category::Timeout,
            Code::Fenced
            | Code::ProducerFenced
            | Code::InvalidProducerEpoch
            | Code::InvalidProducerIdMapping
            | Code::UnknownProducerId => Category::Fenced,
            Code::Authentication
            | Code::SSL
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState => Category::Authentication,
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed => Category::Authorization,
            Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
                Category::UnknownTopic
            }
            Code::OffsetOutOfRange | Code::AutoOffsetReset | Code::NoOffset => Category::OffsetOutOfRange,
            Code::MessageSizeTooLarge | Code::MessageBatchTooLarge => Category::RecordTooLarge,
            Code::UnstableOffsetCommit => Category::UnstableOffsets,
            Code::InvalidArgument
            | Code::InvalidConfig
            | Code::NotConfigured
            | Code::InvalidTransactionTimeout
            | Code::InvalidReplicationFactor
            | Code::InvalidTopic
            | Code::PolicyViolation
            | Code::InvalidGroupId => Category::Configuration,
            Code::State
            | Code::Conflict
            | Code::InvalidTransactionalState
            | Code::ConcurrentTransactions
            | Code::OutOfOrderSequenceNumber
            | Code::PurgeQueue
            | Code::PurgeInflight => Category::Transaction,
            _ => Category::Other,
        }
    }

    /// What to do. A transactional error never keeps its producer: aborting with records in flight poisons the
    /// next transaction, and librdkafka may still retry what it sent (it speaks neither KIP-588 nor KIP-890).
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match self.category() {
            Category::Authentication
            | Category::Authorization
            | Category::Configuration
            | Category::RecordTooLarge
            | Category::OffsetOutOfRange => Recovery::Stop,
            Category::Fenced | Category::Transaction => Recovery::Reacquire,
            Category::BrokerUnreachable | Category::Timeout | Category::UnstableOffsets => {
                if self.fatal || self.requires_abort {
                    Recovery::Reacquire
                } else {
                    Recovery::Retry
                }
            }
            Category::UnknownTopic => Recovery::Retry,
            Category::Other => {
                if self.retriable {
                    Recovery::Retry
                } else {
                    Recovery::Reacquire
                }
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({:?})", self.attempted, self.detail, self.code)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: sys::rd_kafka_resp_err_t) -> Error {
        Error::from_code("test", code)
    }

    #[test]
    fn a_fenced_producer_goes_through_acquire() {
        let fenced = error(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__FENCED);
        assert_eq!(
            (fenced.category(), fenced.recovery()),
            (Category::Fenced, Recovery::Reacquire)
        );
    }

    #[test]
    fn an_unreachable_broker_is_tried_again_and_a_refused_one_is_not() {
        let down = error(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN);
        assert_eq!(
            (down.category(), down.recovery()),
            (Category::BrokerUnreachable, Recovery::Retry)
        );
        let refused = error(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
        assert_eq!(
            (refused.category(), refused.recovery()),
            (Category::Authorization, Recovery::Stop)
        );
    }

    #[test]
    fn an_unreachable_broker_that_costs_the_transaction_costs_the_producer() {
        let mut down = error(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TRANSPORT);
        down.requires_abort = true;
        assert_eq!(down.recovery(), Recovery::Reacquire);
    }

    #[test]
    fn a_message_says_what_was_tried() {
        let text = error(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TIMED_OUT).to_string();
        assert!(text.starts_with("test: "), "{text}");
    }
}
