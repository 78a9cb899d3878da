//! Values while a record is being processed: borrowed, never owned.
//!
//! A value borrows from the record's bytes, from a store's bytes, or from the arena of the batch, so that
//! the steady state allocates nothing per record.

/// A typed value. Its [`crate::Type`] is known from the plan and is not repeated here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Absent or null; only where the type is optional, or a tombstone.
    Null,
    /// `bool`
    Bool(bool),
    /// `int`
    Int(i64),
    /// `double`
    Double(f64),
    /// `string`
    String(&'a str),
    /// `bytes`
    Bytes(&'a [u8]),
    /// `timestampMillis`
    Timestamp(i64),
    /// One slot per field of the struct type, in its order.
    Struct(&'a [Value<'a>]),
    /// `list(T)`
    List(&'a [Value<'a>]),
    /// `map(K, V)`: in the order of the keys, each once.
    Map(&'a [(Value<'a>, Value<'a>)]),
    /// `uint`; as those below, only inside of an expression: no record holds one.
    Uint(u64),
    /// `duration`: nanoseconds.
    Duration(i64),
    /// A type as a value, by CEL's name for it.
    Type(&'static str),
}

impl Value<'_> {
    /// Whether it is [`Self::Null`].
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

/// Name and value of a record's header; a value may be null.
pub type Header<'a> = (&'a str, Option<&'a [u8]>);

/// What an expression can read.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// `key`
    pub key: Value<'a>,
    /// `value`
    pub value: Value<'a>,
    /// `aggregate`, in `aggregate.add`; [`Value::Null`] elsewhere.
    pub aggregate: Value<'a>,
    /// `ts`: the record's timestamp, milliseconds since the Unix epoch.
    pub ts: i64,
    /// `topic`
    pub topic: &'a str,
    /// `partition`
    pub partition: i32,
    /// `offset`
    pub offset: i64,
    /// `headers`, in the record's order; of those with the same name the last one counts.
    pub headers: &'a [Header<'a>],
    /// Where strings and structs made by expressions live. Reset between batches by the owner.
    pub arena: &'a bumpalo::Bump,
}
