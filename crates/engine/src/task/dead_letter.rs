//! A record that goes to another topic because it cannot be processed, as it is, with the reasons beside it.
//!
//! Header names are Kafka Streams' (KIP-1034) where it has one; values are UTF-8.

use topology::plan::{SinkIndex, SubTopology};

use crate::error::Failure;
use crate::{BadRecord, ErrorCategory, InputRecord, Outgoing, Output, Recovery};

/// Most bytes of the reason: it may quote the record.
const REASON: usize = 1_000;

/// Sends the record, with its own key, value and timestamp.
///
/// # Errors
/// When the topic does not take it either; the reason then has both.
#[cold]
pub(super) fn send(
    sub: &SubTopology,
    sink: SinkIndex,
    record: &InputRecord<'_>,
    failure: Failure,
    output: &mut impl Output,
) -> Result<BadRecord, Failure> {
    let step = sub.nodes.get(failure.node).map_or("", |node| node.path.as_str());
    let (partition, offset) = (record.partition.to_string(), record.offset.to_string());
    let reason = &failure.reason[..failure.reason.floor_char_boundary(REASON)];
    let letter = Outgoing {
        sink,
        key: record.key,
        value: record.value,
        headers: &[
            ("__streams.errors.topic", record.topic.as_bytes()),
            ("__streams.errors.partition", partition.as_bytes()),
            ("__streams.errors.offset", offset.as_bytes()),
            ("__streams.errors.exception", failure.category.as_str().as_bytes()),
            ("__streams.errors.message", reason.as_bytes()),
            ("streamapp.errors.step", step.as_bytes()),
        ],
        timestamp: record.timestamp,
    };
    let refused = |error: crate::OutputError, recovery| Failure {
        category: ErrorCategory::Output,
        reason: format!(
            "{}; it cannot become a dead letter either: {error}",
            failure.reason
        ),
        node: failure.node,
        recovery,
    };
    output
        .check(&letter)
        .map_err(|error| refused(error, Recovery::StopTask))?;
    output
        .send(&letter)
        .map_err(|error| refused(error, Recovery::AbortTransaction))?;
    Ok(failure.bad_record(record))
}
