//! The first step of a record: bytes and metadata to typed values and event time.

use bumpalo::Bump;
use topology::plan::Source;
use topology::{Scope, Value};

use super::walk::Moving;
use crate::error::Failure;
use crate::format::Codec;
use crate::{ErrorCategory, InputRecord};

/// Key, value and event time. A tombstone keeps the record's own timestamp: there is no value to compute one
/// from.
///
/// # Errors
/// Of the root node: bytes that are not of the format, a timestamp that has no value, is negative (Kafka
/// Streams' `FailOnInvalidTimestamp` refuses these too) or too far ahead.
pub(super) fn read<'a>(
    source: &'a Source,
    codecs: &(Codec, Codec),
    record: &InputRecord<'a>,
    arena: &'a Bump,
) -> Result<Moving<'a>, Failure> {
    let key = codecs
        .0
        .decode(record.key, arena)
        .map_err(|error| unread(source, "key", error))?;
    let value = codecs
        .1
        .decode(record.value, arena)
        .map_err(|error| unread(source, "value", error))?;
    let mut moving = Moving {
        key,
        value,
        timestamp: record.timestamp,
        before: Value::Null,
    };
    if let Some(expr) = &source.timestamp
        && !matches!(value, Value::Null)
    {
        let scope = moving.scope(Value::Null, record, arena);
        moving.timestamp = expr.eval_int(&scope).map_err(|error| {
            let reason = format!("stream `{}`, timestamp: {error}", source.name);
            Failure::new(ErrorCategory::Expression, source.node, reason)
        })?;
    }
    if moving.timestamp < 0 {
        return Err(unread(
            source,
            "timestamp",
            format!("{} ms is negative", moving.timestamp),
        ));
    }
    if let Some(most) = source.max_ahead_ms {
        let ahead = moving.timestamp.saturating_sub(record.timestamp);
        let reason = match record.timestamp {
            ..0 => "the record has none of its own, and `maxAhead` goes by that".to_owned(),
            _ if ahead <= most => return Ok(moving),
            _ => format!("{ahead} ms ahead of the record's own, `maxAhead` is {most} ms"),
        };
        return Err(unread(source, "timestamp", reason));
    }
    Ok(moving)
}

#[cold]
fn unread(source: &Source, what: &str, error: impl std::fmt::Display) -> Failure {
    let reason = format!("stream `{}`, {what}: {error}", source.name);
    Failure::new(ErrorCategory::Deserialization, source.node, reason)
}

impl<'a> Moving<'a> {
    /// What expressions see of it.
    #[inline]
    pub(super) fn scope(&self, aggregate: Value<'a>, record: &InputRecord<'a>, arena: &'a Bump) -> Scope<'a> {
        Scope {
            key: self.key,
            value: self.value,
            aggregate,
            ts: self.timestamp,
            topic: record.topic,
            partition: record.partition,
            offset: record.offset,
            headers: record.headers,
            arena,
        }
    }
}
