//! What goes to another topic because it cannot be processed: a record as it is, or a window as its store had it, with the
//! reasons beside it.
//!
//! Header names are Kafka Streams' (KIP-1034) where it has one; values are UTF-8.

use std::sync::Arc;

use bumpalo::Bump;
use topology::plan::{Format, OnBadRecord, SinkIndex, Source, SubTopology};
use topology::{Field, Header, StructType, Type, Value};

use super::walk::Moving;
use crate::error::Failure;
use crate::json::JsonCodec;
use crate::{BadRecord, ChosenBy, ErrorCategory, InputRecord, Origin, Outgoing, Output, Recovery};

/// Most bytes of the reason: it may quote the record.
const REASON: usize = 1_000;

/// A record or a window that failed.
pub(super) struct Letter<'a> {
    pub(super) origin: Origin,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) timestamp: i64,
    pub(super) headers: &'a [Header<'a>],
}

impl<'a> From<&InputRecord<'a>> for Letter<'a> {
    #[cold]
    fn from(record: &InputRecord<'a>) -> Self {
        Self {
            origin: Origin::from(record),
            key: record.key,
            value: record.value,
            timestamp: record.timestamp,
            headers: record.headers,
        }
    }
}

/// Of a record that was read. One of a repartition topic has its value as JSON: nobody else reads rows.
#[cold]
pub(super) fn of<'a>(
    source: &Source,
    moving: &Moving<'a>,
    record: &InputRecord<'a>,
    arena: &'a Bump,
) -> Letter<'a> {
    let letter = Letter::from(record);
    let (OnBadRecord::DeadLetter, Format::Row(ty), Some(_)) = (source.on_error, &source.value, record.value)
    else {
        return letter;
    };
    let mut json = Vec::new();
    let written = if let Type::Struct(ty) = ty {
        JsonCodec::new(ty).write(moving.value, &mut json)
    } else {
        let wrapped = StructType {
            name: "value".to_owned(),
            fields: vec![Field {
                name: "value".to_owned(),
                ty: ty.clone(),
            }],
        };
        let value = Value::Struct(arena.alloc([moving.value]));
        JsonCodec::new(&Arc::new(wrapped)).write(value, &mut json)
    };
    match written {
        Ok(()) => Letter {
            value: Some(arena.alloc_slice_copy(&json)),
            ..letter
        },
        // What JSON does not have: as it is.
        Err(_) => letter,
    }
}

/// Sends it.
///
/// # Errors
/// When the topic does not take it either; the reason then has both.
#[cold]
pub(super) fn send(
    sub: &SubTopology,
    sink: SinkIndex,
    letter: Letter<'_>,
    failure: Failure,
    output: &mut impl Output,
) -> Result<BadRecord, (Failure, Origin)> {
    let step = sub.nodes.get(failure.node).map(|node| node.path.to_string());
    let step = step.unwrap_or_default();
    let from = match &letter.origin {
        Origin::Record {
            topic,
            partition,
            offset,
        } => vec![
            ("__streams.errors.topic", topic.clone()),
            ("__streams.errors.partition", partition.to_string()),
            ("__streams.errors.offset", offset.to_string()),
        ],
        Origin::Window { store, start, .. } => vec![
            ("streamapp.errors.store", store.clone()),
            ("streamapp.errors.window-start", start.to_string()),
        ],
        Origin::Store(store) => vec![("streamapp.errors.store", store.clone())],
    };
    let reason = &failure.reason[..failure.reason.floor_char_boundary(REASON)];
    let why = [
        ("__streams.errors.exception", failure.category.as_str()),
        ("__streams.errors.message", reason),
        ("streamapp.errors.step", step.as_str()),
    ];
    let from = from.iter().map(|(name, value)| (*name, Some(value.as_bytes())));
    // Behind the record's own, which may be those of an earlier letter.
    let own = letter.headers.iter().copied();
    let headers: Vec<_> = own
        .chain(from)
        .chain(why.map(|(name, value)| (name, Some(value.as_bytes()))))
        .collect();
    let outgoing = Outgoing {
        sink,
        key: letter.key,
        to: ChosenBy::Key(letter.key),
        value: letter.value,
        headers: &headers,
        timestamp: letter.timestamp,
    };
    let sent = match output.check(&outgoing) {
        Ok(()) => output
            .send(&outgoing)
            .map_err(|error| (error, Recovery::AbortTransaction)),
        Err(error) => Err((error, Recovery::StopTask)),
    };
    match sent {
        Ok(()) => Ok(failure.bad_record(letter.origin)),
        Err((error, recovery)) => {
            let failure = Failure {
                category: ErrorCategory::Output,
                reason: format!(
                    "{}; it cannot become a dead letter either: {error}",
                    failure.reason
                ),
                node: failure.node,
                recovery,
            };
            Err((failure, letter.origin))
        }
    }
}
