//! One table: what a librdkafka error means, and what to do.
//!
//! A call of a transaction (initialise, begin, send, flush, send offsets, commit) costs its producer whatever the error is: the session
//! ends, and the next one goes through `acquire()`. What differs is whether that is worth trying before a person has done something
//! ([`Recovery::Stop`]). Calls that only read or administrate are made again where [`Error::recovery`] says [`Recovery::Retry`].

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
    /// The topic does not take a record: it is too large, has no key though the topic is compacted, or a timestamp
    /// too far from the broker's clock.
    RecordRefused,
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
            | Code::DestroyBroker
            | Code::Resolve
            | Code::NetworkException
            | Code::BrokerNotAvailable
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::CoordinatorLoadInProgress
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::ReplicaNotAvailable
            | Code::EligibleLeadersNotAvailable
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::OffsetNotAvailable
            | Code::KafkaStorageError
            | Code::TransactionCoordinatorFenced
            | Code::NotController
            | Code::RebootstrapRequired
            | Code::WaitingForCoordinator
            | Code::ISRInsufficient => Category::BrokerUnreachable,
            Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::MessageTimedOut
            | Code::TimedOutQueue
            | Code::PreviousInProgress
            | Code::InProgress
            | Code::ThrottlingQuotaExceeded => Category::Timeout,
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
            Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::UnknownPartition
            | Code::UnknownTopicId => Category::UnknownTopic,
            // The last: an unclean election took records away (KIP-320).
            Code::OffsetOutOfRange | Code::AutoOffsetReset | Code::NoOffset | Code::LogTruncation => {
                Category::OffsetOutOfRange
            }
            Code::MessageSizeTooLarge
            | Code::MessageBatchTooLarge
            | Code::InvalidRecord
            | Code::InvalidTimestamp => Category::RecordRefused,
            Code::UnstableOffsetCommit => Category::UnstableOffsets,
            Code::InvalidArgument
            | Code::InvalidConfig
            | Code::NotConfigured
            | Code::InvalidTransactionTimeout
            | Code::InvalidReplicationFactor
            | Code::InvalidTopic
            | Code::PolicyViolation
            | Code::UnsupportedVersion
            | Code::UnsupportedFeature
            | Code::UnsupportedForMessageFormat
            | Code::UnsupportedCompressionType
            | Code::SecurityDisabled
            | Code::InvalidPartitions
            | Code::InvalidReplicaAssignment
            | Code::InvalidRequiredAcks
            | Code::InvalidGroupId => Category::Configuration,
            Code::State
            | Code::Conflict
            | Code::InvalidTransactionalState
            | Code::ConcurrentTransactions
            | Code::OutOfOrderSequenceNumber
            | Code::DuplicateSequenceNumber
            | Code::GaplessGuarantee
            | Code::Inconsistent
            | Code::Fatal
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
            | Category::RecordRefused
            | Category::OffsetOutOfRange => Recovery::Stop,
            _ if self.fatal || self.requires_abort => Recovery::Reacquire,
            Category::Fenced | Category::Transaction => Recovery::Reacquire,
            Category::BrokerUnreachable
            | Category::Timeout
            | Category::UnstableOffsets
            | Category::UnknownTopic => Recovery::Retry,
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

    /// The table, from its outside: what a call can bring, and what is done about it.
    #[test]
    fn every_error_has_its_place_in_the_table() {
        use sys::rd_kafka_resp_err_t as code;
        let retried = [
            (code::RD_KAFKA_RESP_ERR__TRANSPORT, Category::BrokerUnreachable),
            (
                code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN,
                Category::BrokerUnreachable,
            ),
            (
                code::RD_KAFKA_RESP_ERR__DESTROY_BROKER,
                Category::BrokerUnreachable,
            ),
            (code::RD_KAFKA_RESP_ERR__RESOLVE, Category::BrokerUnreachable),
            (
                code::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE,
                Category::BrokerUnreachable,
            ),
            (
                code::RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
                Category::BrokerUnreachable,
            ),
            (
                code::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
                Category::BrokerUnreachable,
            ),
            (
                code::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
                Category::BrokerUnreachable,
            ),
            (
                code::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
                Category::BrokerUnreachable,
            ),
            (code::RD_KAFKA_RESP_ERR__TIMED_OUT, Category::Timeout),
            (code::RD_KAFKA_RESP_ERR__MSG_TIMED_OUT, Category::Timeout),
            (code::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, Category::Timeout),
            (
                code::RD_KAFKA_RESP_ERR_UNSTABLE_OFFSET_COMMIT,
                Category::UnstableOffsets,
            ),
            (code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC, Category::UnknownTopic),
            (
                code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
                Category::UnknownTopic,
            ),
        ];
        let producer_lost = [
            (code::RD_KAFKA_RESP_ERR__FENCED, Category::Fenced),
            (code::RD_KAFKA_RESP_ERR_PRODUCER_FENCED, Category::Fenced),
            (code::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, Category::Fenced),
            (
                code::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_ID_MAPPING,
                Category::Fenced,
            ),
            (code::RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID, Category::Fenced),
            (code::RD_KAFKA_RESP_ERR_INVALID_TXN_STATE, Category::Transaction),
            (
                code::RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS,
                Category::Transaction,
            ),
            (
                code::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
                Category::Transaction,
            ),
            (code::RD_KAFKA_RESP_ERR__PURGE_QUEUE, Category::Transaction),
            (code::RD_KAFKA_RESP_ERR__STATE, Category::Transaction),
            (code::RD_KAFKA_RESP_ERR_UNKNOWN, Category::Other),
        ];
        let stopped = [
            (code::RD_KAFKA_RESP_ERR__AUTHENTICATION, Category::Authentication),
            (code::RD_KAFKA_RESP_ERR__SSL, Category::Authentication),
            (
                code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
                Category::Authorization,
            ),
            (
                code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED,
                Category::Authorization,
            ),
            (
                code::RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
                Category::Authorization,
            ),
            (
                code::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE,
                Category::OffsetOutOfRange,
            ),
            (
                code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET,
                Category::OffsetOutOfRange,
            ),
            (
                code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
                Category::RecordRefused,
            ),
            (code::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP, Category::RecordRefused),
            (code::RD_KAFKA_RESP_ERR_INVALID_RECORD, Category::RecordRefused),
            (code::RD_KAFKA_RESP_ERR__INVALID_ARG, Category::Configuration),
            (
                code::RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT,
                Category::Configuration,
            ),
        ];
        let retry = retried.map(|line| (line, Recovery::Retry)).into_iter();
        let lost = producer_lost.map(|line| (line, Recovery::Reacquire)).into_iter();
        let stop = stopped.map(|line| (line, Recovery::Stop)).into_iter();
        for ((code, category), recovery) in retry.chain(lost).chain(stop) {
            let error = error(code);
            assert_eq!(
                (error.category(), error.recovery()),
                (category, recovery),
                "{error}"
            );
        }
    }

    /// Codes of which nothing more is known than that they are errors: of groups that have members, of delegation tokens, of
    /// requests that are never sent.
    #[rustfmt::skip]
    const OTHER: &[&str] = &[
        "BadMessage", "BadCompression", "BrokerDestroy", "Fail", "CriticalSystemResource",
        "PartitionEOF", "FileSystem", "QueueFull", "NodeUpdate", "UnknownGroup",
        "ExistingSubscription", "AssignPartitions", "RevokePartitions", "UnknownProtocol", "NotImplemented",
        "Outdated", "WaitCache", "Interrupted", "KeySerialization", "ValueSerialization",
        "KeyDeserialization", "ValueDeserialization", "Partial", "ReadOnly", "NoEnt",
        "Underflow", "InvalidType", "Retry", "PollExceeded", "UnknownBroker",
        "Application", "AssignmentLost", "Noop", "InvalidDifferentRecord", "Unknown",
        "InvalidMessage", "InvalidMessageSize", "StaleControllerEpoch", "OffsetMetadataTooLarge", "IllegalGeneration",
        "InconsistentGroupProtocol", "UnknownMemberId", "InvalidSessionTimeout", "RebalanceInProgress", "InvalidCommitOffsetSize",
        "TopicAlreadyExists", "InvalidRequest", "OperationNotAttempted", "LogDirNotFound", "ReassignmentInProgress",
        "DelegationTokenAuthDisabled", "DelegationTokenNotFound", "DelegationTokenOwnerMismatch", "DelegationTokenRequestNotAllowed", "DelegationTokenAuthorizationFailed",
        "DelegationTokenExpired", "InvalidPrincipalType", "NonEmptyGroup", "GroupIdNotFound", "FetchSessionIdNotFound",
        "InvalidFetchSessionEpoch", "ListenerNotFound", "TopicDeletionDisabled", "StaleBrokerEpoch", "MemberIdRequired",
        "PreferredLeaderNotAvailable", "GroupMaxSizeReached", "FencedInstanceId", "ElectionNotNeeded", "NoReassignmentInProgress",
        "GroupSubscribedToTopic", "ResourceNotFound", "DuplicateResource", "UnacceptableCredential", "InconsistentVoterSet",
        "InvalidUpdateVersion", "FeatureUpdateFailed", "PrincipalDeserializationFailure", "FencedMemberEpoch", "UnreleasedInstanceId",
        "UnsupportedAssignor", "StaleMemberEpoch", "UnknownSubscriptionId", "TelemetryTooLarge",
    ];

    #[test]
    fn a_code_that_nobody_has_thought_of_is_noticed() {
        let (mut all, mut count) = (std::ptr::null(), 0);
        // SAFETY: librdkafka returns its static table and how long it is; descriptions of holes are null.
        let codes = unsafe {
            sys::rd_kafka_get_err_descs(&raw mut all, &raw mut count);
            std::slice::from_raw_parts(all, count)
        };
        let known = codes.iter().filter(|known| {
            !known.desc.is_null() && known.code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        });
        let others = known
            .map(|known| error(known.code))
            .filter(|error| error.category() == Category::Other);
        let found: Vec<_> = others.map(|error| format!("{:?}", error.code)).collect();
        assert_eq!(found, OTHER);
    }

    /// What costs the transaction costs the producer, whatever else it may be.
    #[test]
    fn an_error_that_requires_an_abort_never_keeps_its_producer() {
        use sys::rd_kafka_resp_err_t as code;
        for code in [
            code::RD_KAFKA_RESP_ERR__TRANSPORT,
            code::RD_KAFKA_RESP_ERR__TIMED_OUT,
            code::RD_KAFKA_RESP_ERR_UNSTABLE_OFFSET_COMMIT,
            code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
            code::RD_KAFKA_RESP_ERR_UNKNOWN,
        ] {
            for fatal in [false, true] {
                let mut error = error(code);
                error.retriable = true;
                (error.fatal, error.requires_abort) = (fatal, !fatal);
                assert_eq!(error.recovery(), Recovery::Reacquire, "{error}");
            }
        }
    }

    #[test]
    fn a_message_says_what_was_tried() {
        let text = error(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TIMED_OUT).to_string();
        assert!(text.starts_with("test: "), "{text}");
    }
}
