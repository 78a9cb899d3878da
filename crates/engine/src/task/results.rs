//! Results of the record under way: encoded at once, sent when the whole record has succeeded.

use std::ops::Range;

use topology::plan::{NodeIndex, SinkIndex};

use super::walk::Moving;
use crate::error::Failure;
use crate::format::Codec;
use crate::{ErrorCategory, Outgoing, Output, OutputError, Recovery};

/// In the order of sending. The memory is kept from record to record.
#[derive(Default)]
pub(super) struct Results {
    bytes: Vec<u8>,
    sends: Vec<Send>,
}

struct Send {
    sink: SinkIndex,
    /// The sink's node, for errors.
    node: NodeIndex,
    key: Option<Range<usize>>,
    partition_key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    timestamp: i64,
}

impl Results {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.sends.clear();
    }

    pub(super) fn push(
        &mut self,
        sink: SinkIndex,
        node: NodeIndex,
        codecs: &(Codec, Codec),
        moving: &Moving<'_>,
    ) -> Result<(), Failure> {
        let mut encode = |codec: &Codec, value, what| {
            let start = self.bytes.len();
            match codec.encode(value, &mut self.bytes) {
                Ok(is_some) => Ok(is_some.then_some(start..self.bytes.len())),
                Err(error) => {
                    let reason = format!("the result's {what} cannot be written {error}");
                    Err(Failure::new(ErrorCategory::Serialization, node, reason))
                }
            }
        };
        let key = encode(&codecs.0, moving.key, "key")?;
        let value = encode(&codecs.1, moving.value, "value")?;
        let partition_key = key.clone().map(|key| {
            let length = codecs.0.partitioned_by(&self.bytes[key.clone()]).len();
            key.start..key.start + length
        });
        self.sends.push(Send {
            sink,
            node,
            key,
            partition_key,
            value,
            timestamp: moving.timestamp,
        });
        Ok(())
    }

    /// Checks all, then sends all.
    pub(super) fn send(&self, output: &mut impl Output) -> Result<(), Failure> {
        for send in &self.sends {
            let checked = output.check(&self.outgoing(send));
            checked.map_err(|error| failure(send.node, &error, Recovery::StopTask))?;
        }
        for send in &self.sends {
            let sent = output.send(&self.outgoing(send));
            sent.map_err(|error| failure(send.node, &error, Recovery::AbortTransaction))?;
        }
        Ok(())
    }

    #[inline]
    fn outgoing(&self, send: &Send) -> Outgoing<'_> {
        Outgoing {
            sink: send.sink,
            key: self.slice(send.key.as_ref()),
            partition_key: self.slice(send.partition_key.as_ref()),
            value: self.slice(send.value.as_ref()),
            headers: &[],
            timestamp: send.timestamp,
        }
    }

    fn slice(&self, range: Option<&Range<usize>>) -> Option<&[u8]> {
        range.map(|range| &self.bytes[range.start..range.end])
    }
}

#[cold]
fn failure(node: NodeIndex, error: &OutputError, recovery: Recovery) -> Failure {
    Failure {
        recovery,
        ..Failure::new(ErrorCategory::Output, node, error)
    }
}
