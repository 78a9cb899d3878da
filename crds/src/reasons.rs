//! Reasons of conditions and Events, with what they mean: the source of the reference.

/// Which condition is true with a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `Ready`.
    Ready,
    /// `Reconciling`: it ends by itself.
    Reconciling,
    /// `Stalled`: a person is needed.
    Stalled,
    /// An Event only.
    Event,
}

/// A reason and its meaning, with what to do.
pub type Reason = (&'static str, Kind, &'static str);

/// Reasons of the operator, and those of workers that it passes on.
pub const REASONS: [Reason; 50] = [
    (
        "Running",
        Kind::Ready,
        "Every worker runs at the current revision.",
    ),
    (
        "Starting",
        Kind::Reconciling,
        "Workers start, acquire or restore; the message says which, and what each waits for.",
    ),
    (
        "Rolling",
        Kind::Reconciling,
        "Pods of another revision are replaced, one at a time.",
    ),
    (
        "KafkaUnreachable",
        Kind::Reconciling,
        "No broker answers; it goes on when one does.",
    ),
    (
        "KafkaError",
        Kind::Reconciling,
        "A call to Kafka failed and is tried again.",
    ),
    (
        "ControlLogBusy",
        Kind::Reconciling,
        "Another operator, or a `streamapp run`, wrote the control log at the same time; tried again.",
    ),
    (
        "ScalePending",
        Kind::Reconciling,
        "`spec.replicas` differs from the number of workers: scaling is not supported yet.",
    ),
    (
        "VolumeGrowthPending",
        Kind::Reconciling,
        "`spec.state.volume.size` differs from the volumes' size: growing is not supported yet.",
    ),
    (
        "InvalidSpec",
        Kind::Stalled,
        "The message names the field and what is wrong. Pods of the last good spec go on.",
    ),
    (
        "InvalidTopology",
        Kind::Stalled,
        "As InvalidSpec, inside `spec.topology`.",
    ),
    (
        "NeedsMigration",
        Kind::Stalled,
        "With the new topology the application could not go on with what it has; the message says why. Pods of the last topology go on.",
    ),
    (
        "SecretMissing",
        Kind::Stalled,
        "A Secret or a key in it, named by the message, is not there; it goes on when it is.",
    ),
    (
        "TopicMissing",
        Kind::Stalled,
        "A source or sink topic does not exist; it goes on when it does.",
    ),
    (
        "PartitionCountChanged",
        Kind::Stalled,
        "An internal topic has another number of partitions than its source.",
    ),
    (
        "NotCopartitioned",
        Kind::Stalled,
        "Topics that are joined or merged have different numbers of partitions; the message names them.",
    ),
    (
        "ApplicationIdConflict",
        Kind::Stalled,
        "Another StreamApp of this cluster owns the `applicationId`; the message names it.",
    ),
    (
        "ClaimedElsewhere",
        Kind::Stalled,
        "An object of another cluster, or a `streamapp run`, owns the `applicationId`.",
    ),
    (
        "GroupInUse",
        Kind::Stalled,
        "A consumer that is not ours is in the group of the `applicationId`.",
    ),
    (
        "AuthenticationFailed",
        Kind::Stalled,
        "Kafka refuses the credentials or the certificate.",
    ),
    (
        "AuthorizationFailed",
        Kind::Stalled,
        "Kafka refuses an operation; the message names it.",
    ),
    (
        "InvalidConfiguration",
        Kind::Stalled,
        "librdkafka or the broker refuses a property.",
    ),
    (
        "TaskFailed",
        Kind::Stalled,
        "A task stopped at a record that it cannot process, or at a window that it cannot close; the message names which, and `streamapp skip` lets the task pass over one record. The others go on.",
    ),
    (
        "OffsetsLost",
        Kind::Stalled,
        "The group's offsets are missing or behind the task's positions.",
    ),
    (
        "OffsetsAltered",
        Kind::Stalled,
        "The group's offsets are ahead of the task's positions.",
    ),
    (
        "GroupHasOffsets",
        Kind::Stalled,
        "The group has offsets though no task has ever committed.",
    ),
    (
        "InputLost",
        Kind::Stalled,
        "Records that were not yet processed are not in the topic any more.",
    ),
    (
        "TopicRecreated",
        Kind::Stalled,
        "An input topic was deleted and made again under its name; `streamapp offsets` tells the way out.",
    ),
    (
        "StoreChanged",
        Kind::Stalled,
        "A store is to be kept in another way than it was: the topology needs a migration; `streamapp plan` tells what differs.",
    ),
    (
        "PositionsLost",
        Kind::Stalled,
        "A store is ahead of the positions topic.",
    ),
    (
        "PositionsUnreadable",
        Kind::Stalled,
        "A record of the positions topic cannot be read.",
    ),
    (
        "ControlLogLost",
        Kind::Stalled,
        "The control log was deleted or truncated; `streamapp control-log FILE --start-over` begins a new one.",
    ),
    (
        "ControlLogUnreadable",
        Kind::Stalled,
        "A record of the control log cannot be read; a newer version may have written it.",
    ),
    (
        "RecordRefused",
        Kind::Stalled,
        "The broker refuses a result: it is too large, has no key though the topic is compacted, or a timestamp that the topic does not take.",
    ),
    (
        "VolumeFull",
        Kind::Stalled,
        "The volume is full; nothing is lost, the worker tries again.",
    ),
    (
        "StoreFailed",
        Kind::Stalled,
        "RocksDB or the file system refuses a call; the message has its words.",
    ),
    (
        "StoreDamaged",
        Kind::Stalled,
        "Files of a store are not what was written. It is set aside and rebuilt from its changelog; if that happens twice within a day the worker waits for another volume.",
    ),
    (
        "StoreForeign",
        Kind::Stalled,
        "The volume holds stores of another application.",
    ),
    (
        "Superseded",
        Kind::Stalled,
        "Another process speaks for the ordinal; this one ends.",
    ),
    (
        "CrashLoopBackOff",
        Kind::Stalled,
        "The worker ends again and again; the message has its last words. A roll stops here.",
    ),
    (
        "ImagePullBackOff",
        Kind::Stalled,
        "The image cannot be pulled. A roll stops here.",
    ),
    (
        "UnstableOffsets",
        Kind::Reconciling,
        "A transaction of somebody else holds the group's offsets; see hanging-transactions.md if it stays.",
    ),
    (
        "PositionsBlocked",
        Kind::Reconciling,
        "As UnstableOffsets, for a partition of the positions topic.",
    ),
    (
        "Unschedulable",
        Kind::Reconciling,
        "No node takes a pod; the message is the scheduler's.",
    ),
    ("TopicsCreated", Kind::Event, "Internal topics were created."),
    (
        "ClaimTakenOver",
        Kind::Event,
        "The id was claimed by a StreamApp of this cluster that does not exist any more.",
    ),
    (
        "TopicsCorrected",
        Kind::Event,
        "Somebody had changed the configuration of internal topics; it was set back.",
    ),
    (
        "TopicsAtRisk",
        Kind::Event,
        "Topics have fewer than 3 replicas, `min.insync.replicas` below 2, or unclean leader elections: a broker that is lost can take acknowledged records with it. Internal topics get the last two by themselves; `spec.kafka.internalTopics.replicationFactor` says how many replicas new ones have.",
    ),
    (
        "PodReplaced",
        Kind::Event,
        "A pod was deleted by a roll: old and new revision.",
    ),
    (
        "WorkersLeft",
        Kind::Event,
        "A deletion went on though pods were left at its deadline.",
    ),
    (
        "ClaimNotReleased",
        Kind::Event,
        "A deletion went on though Kafka did not take the release of the claim.",
    ),
];
