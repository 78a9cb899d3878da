//! Results of the record under way: encoded at once, sent when the whole record has succeeded.

use std::ops::Range;
use std::sync::Arc;

use topology::plan::{NodeIndex, Sink, SinkHeaders, SinkIndex};
use topology::{EvalError, Header, Scope, Value};

use super::walk::{Moving, lacks_value};
use crate::error::Failure;
use crate::format::Codec;
use crate::{ChosenBy, ErrorCategory, Outgoing, Output, OutputError, Recovery};

/// In the order of sending. The memory is kept from record to record.
#[derive(Default)]
pub(super) struct Results {
    bytes: Vec<u8>,
    headers: Vec<(Arc<str>, Option<Range<usize>>)>,
    sends: Vec<Send>,
}

struct Send {
    sink: SinkIndex,
    /// The sink's node, for errors.
    node: NodeIndex,
    key: Option<Range<usize>>,
    to: To,
    value: Option<Range<usize>>,
    headers: Range<usize>,
    timestamp: i64,
}

/// As [`ChosenBy`].
enum To {
    Key(Option<Range<usize>>),
    Value(i32),
}

impl Results {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.headers.clear();
        self.sends.clear();
    }

    pub(super) fn push(
        &mut self,
        (sink, spec): (SinkIndex, &Sink),
        node: NodeIndex,
        codecs: &(Codec, Codec),
        moving: &Moving<'_>,
        scope: &Scope<'_>,
    ) -> Result<(), Failure> {
        let headers = self.write_headers(&spec.headers, node, scope)?;
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
        let to = match (spec.partition, moving.value) {
            (None, _) => To::Key(key.clone().map(|key| {
                let length = codecs.0.partitioned_by(&self.bytes[key.clone()]).len();
                key.start..key.start + length
            })),
            (Some(field), Value::Struct(fields)) if let Some(Value::Int(partition)) = fields.get(field) => {
                To::Value(i32::try_from(*partition).unwrap_or(i32::MAX))
            }
            (Some(_), _) => {
                let reason = "the value does not say to which partition it goes";
                return Err(Failure::new(ErrorCategory::Serialization, node, reason));
            }
        };
        self.sends.push(Send {
            sink,
            node,
            key,
            to,
            value,
            headers,
            timestamp: moving.timestamp,
        });
        Ok(())
    }

    /// The place of a result's headers.
    fn write_headers(
        &mut self,
        headers: &SinkHeaders,
        node: NodeIndex,
        scope: &Scope<'_>,
    ) -> Result<Range<usize>, Failure> {
        let start = self.headers.len();
        match headers {
            SinkHeaders::None => {}
            SinkHeaders::Forwarded => {
                for (name, value) in scope.headers {
                    self.write_header(Arc::from(*name), *value);
                }
            }
            SinkHeaders::Computed(headers) => {
                for (name, expr) in headers {
                    if lacks_value(expr, scope) {
                        continue;
                    }
                    let failed = |error| {
                        let reason = format!("header `{name}`: {error}");
                        Failure::new(ErrorCategory::Expression, node, reason)
                    };
                    let value = expr.eval(scope).map_err(failed)?;
                    if let Value::String(text) = value {
                        self.write_header(Arc::clone(name), Some(text.as_bytes()));
                    } else if let Value::Bytes(bytes) = value {
                        self.write_header(Arc::clone(name), Some(bytes));
                    } else if !value.is_null() {
                        return Err(failed(EvalError::Layout("header")));
                    }
                }
            }
        }
        Ok(start..self.headers.len())
    }

    fn write_header(&mut self, name: Arc<str>, value: Option<&[u8]>) {
        let value = value.map(|value| {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(value);
            start..self.bytes.len()
        });
        self.headers.push((name, value));
    }

    /// Checks all, then sends all.
    pub(super) fn send(&self, output: &mut impl Output) -> Result<(), Failure> {
        for send in &self.sends {
            let checked = output.check(&self.outgoing(send, &self.headers_of(send)));
            checked.map_err(|error| failure(send.node, &error, Recovery::StopTask))?;
        }
        for send in &self.sends {
            let sent = output.send(&self.outgoing(send, &self.headers_of(send)));
            sent.map_err(|error| failure(send.node, &error, Recovery::AbortTransaction))?;
        }
        Ok(())
    }

    fn headers_of(&self, send: &Send) -> Vec<Header<'_>> {
        let headers = self.headers[send.headers.clone()].iter();
        headers
            .map(|(name, value)| (&**name, self.slice(value.as_ref())))
            .collect()
    }

    #[inline]
    fn outgoing<'r>(&'r self, send: &Send, headers: &'r [Header<'r>]) -> Outgoing<'r> {
        Outgoing {
            sink: send.sink,
            key: self.slice(send.key.as_ref()),
            to: match &send.to {
                To::Key(key) => ChosenBy::Key(self.slice(key.as_ref())),
                To::Value(partition) => ChosenBy::Value(*partition),
            },
            value: self.slice(send.value.as_ref()),
            headers,
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
