//! Producers. The transactional one drives librdkafka's flush itself and remembers doubt.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::client::{Client, Kind, records_in};
use crate::consumer::{PartitionList, c_string, millis};
use crate::watch::watch;
use crate::{Category, ConfigError, Error, Settings};

const NO_ERROR: sys::rd_kafka_resp_err_t = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

/// Common to both producers.
const PRODUCER: [(&str, &str); 2] = [("enable.idempotence", "true"), ("batch.num.messages", "10000")];
/// The brokers' default of `message.max.bytes` is a little more.
const MESSAGE_BYTES: u32 = 1_000_000;

/// How much a producer may hold and send at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Memory of records that no broker has taken yet, in KiB.
    pub queue_kib: u32,
    /// Largest batch: no more than each topic's `max.message.bytes`.
    pub batch_bytes: u32,
    /// Largest record: the largest `max.message.bytes` of the topics. The caller keeps to that of each topic.
    pub record_bytes: u32,
    /// How long a record may wait for others of its partition, in milliseconds (`linger.ms`). A flush does not wait.
    pub linger_ms: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            queue_kib: 4 * 1024,
            batch_bytes: MESSAGE_BYTES,
            record_bytes: MESSAGE_BYTES,
            linger_ms: 5,
        }
    }
}

/// How much later than its time-out a call may come back.
const GRACE: Duration = Duration::from_secs(3);
/// How long a producer that initialises its id waits before it looks whether it was told to ask again.
const SOON: Duration = Duration::from_millis(100);
/// How long an abort may take.
const ABORT: Duration = Duration::from_secs(5);

/// A record to send. The partition is always chosen by the caller.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The partition.
    pub partition: i32,
    /// The key; `None` for null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
}

/// A topic of one producer.
pub struct TopicHandle {
    raw: *mut sys::rd_kafka_topic_t,
    name: String,
    /// The handle must go before its client.
    _client: Arc<Client>,
}

// SAFETY: rd_kafka_topic_t is thread-safe.
unsafe impl Send for TopicHandle {}
// SAFETY: as above.
unsafe impl Sync for TopicHandle {}

impl TopicHandle {
    /// The topic's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for TopicHandle {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and destroyed once.
        unsafe { sys::rd_kafka_topic_destroy(self.raw) };
    }
}

/// Offsets for `send_offsets_to_transaction`.
pub type Offsets<'a> = [(&'a str, i32, i64)];

/// A producer for transactions. Only `acquire()` makes one.
pub struct TransactionalProducer {
    client: Arc<Client>,
    transactional_id: String,
    transaction_timeout: Duration,
}

impl TransactionalProducer {
    /// A producer whose id is initialised (`InitProducerId`): predecessors are fenced, their open transaction is ended.
    ///
    /// The broker ends a predecessor's transaction within moments, but answers the request that makes it do so with "ask
    /// again", which librdkafka does after half a second, a fixed time. A new producer asks at once; the first one is gone by
    /// then. It also looks for the coordinator anew.
    ///
    /// # Errors
    /// A property that librdkafka refuses; time-out, authorization, configuration.
    pub fn initialised<E: From<ConfigError> + From<Error>>(
        settings: &Settings,
        transactional_id: &str,
        transaction_timeout: Duration,
        capacity: Capacity,
        timeout: Duration,
    ) -> Result<Self, E> {
        // Not one that was fenced meanwhile: whoever did that may speak for the ordinal now.
        let again = [
            Category::Timeout,
            Category::BrokerUnreachable,
            Category::Transaction,
        ];
        let deadline = Instant::now() + timeout;
        loop {
            let producer = Self::new(settings, transactional_id, transaction_timeout, capacity)?;
            // Each call goes on with what the one before has begun.
            let error = loop {
                let left = deadline.saturating_duration_since(Instant::now());
                let answers = &producer.client.notes.init_answers;
                match producer.init_transactions(left.min(SOON)) {
                    Ok(()) => return Ok(producer),
                    Err(error) if left <= SOON || !again.contains(&error.category()) => {
                        return Err(error.into());
                    }
                    Err(error)
                        if error.category() == Category::Timeout && answers.load(Ordering::Acquire) == 0 => {}
                    Err(error) => break error,
                }
            };
            tracing::debug!(%error, "asked again by a new producer");
        }
    }

    /// Makes a producer; no request yet.
    fn new(
        settings: &Settings,
        transactional_id: &str,
        transaction_timeout: Duration,
        capacity: Capacity,
    ) -> Result<Self, ConfigError> {
        let timeout = millis(transaction_timeout).to_string();
        let own = [
            ("transactional.id", transactional_id),
            ("transaction.timeout.ms", timeout.as_str()),
            ("delivery.report.only.error", "true"),
        ];
        Ok(Self {
            client: client(settings, &own, capacity)?,
            transactional_id: transactional_id.to_owned(),
            transaction_timeout,
        })
    }

    /// Makes a call that has a time-out, and does not trust it: librdkafka may wait for an answer that a broker which
    /// went away never gave, for as long as that connection lasts. Then the call is left to itself, on its own thread, and
    /// the producer is lost. So it is as soon as a connection breaks that had a request of the transaction under way: the
    /// call might still succeed, but the producer would be [in doubt](Self::in_doubt) all the same.
    fn watched(
        &self,
        what: &str,
        timeout: Duration,
        call: impl FnOnce(*mut sys::rd_kafka_t) -> *mut sys::rd_kafka_error_t + Send + 'static,
    ) -> Result<(), Error> {
        let attempted = format!("{what} as {}", self.transactional_id);
        let client = Arc::clone(&self.client);
        let told = attempted.clone();
        // SAFETY: the error object is librdkafka's answer to this very call.
        let call = move || unsafe { Error::check(&|| told.clone(), call(client.raw())) };
        watch(call, timeout + GRACE, || self.is_broken()).unwrap_or_else(|given_up| {
            let (code, why) = given_up.reason();
            Err(Error::new(attempted, code, &why))
        })
    }

    /// Whether a connection broke that had a request of a transaction under way.
    fn is_broken(&self) -> bool {
        self.client.notes.broken.load(Ordering::Acquire)
    }

    fn init_transactions(&self, timeout: Duration) -> Result<(), Error> {
        self.watched("initialise transactions", timeout, move |raw| {
            // SAFETY: the handle is live.
            unsafe { sys::rd_kafka_init_transactions(raw, millis(timeout)) }
        })
    }

    /// Begins a transaction (local; nothing is sent yet).
    ///
    /// # Errors
    /// When the producer is fenced, [in doubt](Self::in_doubt), or in a wrong state.
    pub fn begin(&self) -> Result<(), Error> {
        self.client.poll(0);
        let attempted = || format!("begin a transaction as {}", self.transactional_id);
        if self.in_doubt() {
            let code = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__STATE;
            let why = "a request of an earlier transaction was never answered and may still arrive";
            return Err(Error::new(attempted(), code, why));
        }
        // SAFETY: the handle is live, and an error that is returned is ours.
        unsafe { Error::check(&attempted, sys::rd_kafka_begin_transaction(self.client.raw())) }
    }

    /// Whether a request that changes a transaction was sent and has no answer, between transactions: librdkafka repeats it
    /// and goes on, but it may still arrive and change a later transaction of the same epoch (KIP-890). Such a producer
    /// must not begin another one.
    #[must_use]
    pub fn in_doubt(&self) -> bool {
        self.client.notes.unanswered.load(Ordering::Acquire) != 0
    }

    /// A topic to send to.
    ///
    /// # Errors
    /// When the name is invalid.
    pub fn topic(&self, name: &str) -> Result<TopicHandle, Error> {
        topic(&self.client, name)
    }

    /// Copies the record into the producer's queue.
    ///
    /// # Errors
    /// When the producer cannot take it (fenced, too large, topic unknown).
    pub fn send(&self, topic: &TopicHandle, record: &Record<'_>) -> Result<(), Error> {
        send(&self.client, topic, record, std::ptr::null_mut())
    }

    /// Serves callbacks without waiting.
    pub fn poll(&self) {
        self.client.poll(0);
    }

    /// Waits until every record sent so far is acknowledged.
    ///
    /// # Errors
    /// Time-out.
    pub fn flush(&self, timeout: Duration) -> Result<(), Error> {
        flush(&self.client, timeout)
    }

    /// Adds the group's offsets to the transaction.
    ///
    /// # Errors
    /// As librdkafka's call; with any error the producer is lost.
    pub fn send_offsets(&self, group: &str, offsets: &Offsets<'_>, timeout: Duration) -> Result<(), Error> {
        let attempted = || format!("send offsets as {}", self.transactional_id);
        let list = PartitionList::new(offsets.iter().copied(), &attempted)?;
        let name = c_string(group, &attempted)?;
        self.watched("send offsets", timeout, move |raw| {
            let list = list;
            // SAFETY: handle, list and metadata are live during the call; the metadata is destroyed once.
            unsafe {
                let metadata = sys::rd_kafka_consumer_group_metadata_new(name.as_ptr());
                let error =
                    sys::rd_kafka_send_offsets_to_transaction(raw, list.raw, metadata, millis(timeout));
                sys::rd_kafka_consumer_group_metadata_destroy(metadata);
                error
            }
        })
    }

    /// Commits. Waits as long as the transaction may live: any other time-out desynchronises librdkafka.
    ///
    /// # Errors
    /// Any error leaves the outcome open: `acquire()` and the positions decide.
    pub fn commit(&self) -> Result<(), Error> {
        self.watched("commit", self.transaction_timeout, |raw| {
            // SAFETY: the handle is live.
            unsafe { sys::rd_kafka_commit_transaction(raw, -1) }
        })
    }

    /// Ends the transaction without effect. The producer must not be used afterwards.
    pub fn abort_and_close(self) {
        let aborted = self.watched("abort", ABORT, |raw| {
            // SAFETY: the handle is live.
            unsafe { sys::rd_kafka_abort_transaction(raw, millis(ABORT)) }
        });
        // An error changes nothing: the successor's init ends the transaction.
        if let Err(error) = aborted {
            tracing::debug!(%error, "abort failed");
        }
    }
}

/// A producer without transactions, acknowledged by all replicas.
pub struct PlainProducer {
    client: Arc<Client>,
}

impl PlainProducer {
    /// Makes a producer; connects in the background.
    ///
    /// # Errors
    /// [`ConfigError`] when librdkafka refuses a property.
    pub fn new(settings: &Settings, capacity: Capacity) -> Result<Self, ConfigError> {
        Ok(Self {
            client: client(settings, &[], capacity)?,
        })
    }

    /// A producer of single records, one after the other, that may be written twice: librdkafka needs half a second for the
    /// id that would prevent it.
    ///
    /// # Errors
    /// [`ConfigError`] when librdkafka refuses a property.
    pub fn of_single_records(settings: &Settings) -> Result<Self, ConfigError> {
        let own = [("enable.idempotence", "false"), ("acks", "all")];
        Ok(Self {
            client: client(settings, &own, Capacity::default())?,
        })
    }

    /// A topic to send to.
    ///
    /// # Errors
    /// When the name is invalid.
    pub fn topic(&self, name: &str) -> Result<TopicHandle, Error> {
        topic(&self.client, name)
    }

    /// Copies the record into the producer's queue.
    ///
    /// # Errors
    /// When the producer cannot take it.
    pub fn send(&self, topic: &TopicHandle, record: &Record<'_>) -> Result<(), Error> {
        send(&self.client, topic, record, std::ptr::null_mut())
    }

    /// Serves callbacks without waiting.
    pub fn poll(&self) {
        self.client.poll(0);
    }

    /// Waits until all records are acknowledged; fails if any record since the producer was made was not.
    ///
    /// # Errors
    /// Time-out, or a record that was not delivered.
    pub fn flush(&self, timeout: Duration) -> Result<(), Error> {
        flush(&self.client, timeout)?;
        let failed = self.client.notes.failed_deliveries.load(Ordering::Acquire);
        if failed > 0 {
            let code = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__MSG_TIMED_OUT;
            return Err(Error::new(
                "flush",
                code,
                &format!("{failed} records were not delivered"),
            ));
        }
        Ok(())
    }

    /// Sends one record and waits for its offset.
    ///
    /// # Errors
    /// Time-out, or the broker's refusal. After a time-out the record may still be written.
    pub fn append(&self, topic: &TopicHandle, record: &Record<'_>, timeout: Duration) -> Result<i64, Error> {
        let mut receipt: Box<Option<Result<i64, sys::rd_kafka_resp_err_t>>> = Box::new(None);
        let opaque: *mut Option<_> = &raw mut *receipt;
        send(&self.client, topic, record, opaque.cast())?;
        let deadline = Instant::now() + timeout;
        loop {
            self.client.poll(10);
            // SAFETY: the callback writes on this thread, inside poll; the box is live.
            match unsafe { *opaque } {
                Some(Ok(offset)) => return Ok(offset),
                Some(Err(code)) => {
                    return Err(Error::from_code(format!("append to {}", topic.name), code));
                }
                None if Instant::now() >= deadline => break,
                None => {}
            }
        }
        // The callback may still come: the receipt must outlive it.
        Box::leak(receipt);
        let code = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TIMED_OUT;
        Err(Error::from_code(format!("append to {}", topic.name), code))
    }
}

fn client(settings: &Settings, own: &[(&str, &str)], capacity: Capacity) -> Result<Arc<Client>, ConfigError> {
    let Capacity {
        queue_kib,
        batch_bytes,
        record_bytes,
        linger_ms,
    } = capacity;
    let bounds = [
        ("queue.buffering.max.kbytes", queue_kib),
        ("queue.buffering.max.messages", records_in(queue_kib)),
        ("linger.ms", linger_ms),
        ("batch.size", batch_bytes),
        ("message.max.bytes", record_bytes.max(1_000)),
    ]
    .map(|(name, bound)| (name, bound.to_string()));
    let bounds = bounds.iter().map(|(name, bound)| (*name, bound.as_str()));
    let all: Vec<_> = PRODUCER
        .into_iter()
        .chain(bounds)
        .chain(own.iter().copied())
        .collect();
    Ok(Arc::new(Client::new(Kind::Producer, settings, &all)?))
}

fn topic(client: &Arc<Client>, name: &str) -> Result<TopicHandle, Error> {
    let attempted = || format!("open topic {name}");
    let native = c_string(name, &attempted)?;
    // SAFETY: handle and name are live; a null configuration means defaults.
    let raw = unsafe { sys::rd_kafka_topic_new(client.raw(), native.as_ptr(), std::ptr::null_mut()) };
    if raw.is_null() {
        return Err(Error::from_code(
            attempted(),
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__INVALID_ARG,
        ));
    }
    Ok(TopicHandle {
        raw,
        name: name.to_owned(),
        _client: Arc::clone(client),
    })
}

fn send(client: &Client, topic: &TopicHandle, record: &Record<'_>, opaque: *mut c_void) -> Result<(), Error> {
    let bytes = |bytes: Option<&[u8]>| {
        bytes.map_or((std::ptr::null_mut::<c_void>(), 0usize), |bytes| {
            // An empty slice must not become a null: a null value is a tombstone.
            (bytes.as_ptr().cast_mut().cast::<c_void>(), bytes.len())
        })
    };
    let ((key, key_len), (value, value_len)) = (bytes(record.key), bytes(record.value));
    // Null where there are none.
    let headers = Headers::new(record.headers, || {
        format!("send to {}/{}", topic.name, record.partition)
    })?;
    loop {
        // SAFETY: all pointers are live during the call, which copies key and value (MSG_F_COPY) and takes the headers when
        // it succeeds; the argument list is pairs of tag and values as rd_kafka_producev documents, ended by VTYPE_END.
        let code = unsafe {
            use sys::rd_kafka_vtype_t as tag;
            sys::rd_kafka_producev(
                client.raw(),
                tag::RD_KAFKA_VTYPE_RKT,
                topic.raw,
                tag::RD_KAFKA_VTYPE_PARTITION,
                record.partition,
                tag::RD_KAFKA_VTYPE_MSGFLAGS,
                sys::RD_KAFKA_MSG_F_COPY,
                tag::RD_KAFKA_VTYPE_VALUE,
                value,
                value_len,
                tag::RD_KAFKA_VTYPE_KEY,
                key,
                key_len,
                tag::RD_KAFKA_VTYPE_TIMESTAMP,
                record.timestamp,
                tag::RD_KAFKA_VTYPE_HEADERS,
                headers.0,
                tag::RD_KAFKA_VTYPE_OPAQUE,
                opaque,
                tag::RD_KAFKA_VTYPE_END,
            )
        };
        match code {
            NO_ERROR => {
                headers.taken();
                return Ok(());
            }
            // The queue is bounded on purpose: wait until the broker has taken some.
            code if Code::from(code) == Code::QueueFull && !client.notes.broken.load(Ordering::Acquire) => {
                client.poll(10);
            }
            code => {
                return Err(Error::from_code(
                    format!("send to {}/{}", topic.name, record.partition),
                    code,
                ));
            }
        }
    }
}

/// Headers until a record has taken them.
struct Headers(*mut sys::rd_kafka_headers_t);

impl Headers {
    fn new(headers: &[(&str, Option<&[u8]>)], attempted: impl Fn() -> String) -> Result<Self, Error> {
        if headers.is_empty() {
            return Ok(Self(std::ptr::null_mut()));
        }
        // SAFETY: any number of headers is allowed; names and values are copied.
        let made = unsafe { Self(sys::rd_kafka_headers_new(headers.len())) };
        for (name, value) in headers {
            let native = c_string(name, &attempted)?;
            // Without a value the pointer is null, and the length does not matter.
            let (value, length) = value.map_or((std::ptr::null(), 0), |value| (value.as_ptr(), value.len()));
            // SAFETY: the list is ours; -1: the name ends with its null.
            let code = unsafe {
                sys::rd_kafka_header_add(made.0, native.as_ptr(), -1, value.cast(), length as isize)
            };
            if code != NO_ERROR {
                return Err(Error::from_code(attempted(), code));
            }
        }
        Ok(made)
    }

    fn taken(self) {
        std::mem::forget(self);
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: nobody has taken them.
            unsafe { sys::rd_kafka_headers_destroy(self.0) };
        }
    }
}

fn flush(client: &Client, timeout: Duration) -> Result<(), Error> {
    // SAFETY: the handle is live.
    match unsafe { sys::rd_kafka_flush(client.raw(), millis(timeout)) } {
        NO_ERROR => Ok(()),
        code => Err(Error::from_code("flush", code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::tests::blocking;

    const LONG: Duration = Duration::from_secs(60);

    /// A producer that reaches no broker.
    fn producer() -> TransactionalProducer {
        let settings = Settings {
            bootstrap_servers: "127.0.0.1:1".to_owned(),
            ..Settings::default()
        };
        TransactionalProducer::new(&settings, "app-0-0", LONG, Capacity::default()).unwrap()
    }

    #[test]
    fn a_call_has_its_time_out_and_the_grace() {
        const TIMEOUT: Duration = Duration::from_millis(100);
        let (_hold, call) = blocking();
        let began = Instant::now();
        let made = producer().watched("commit", TIMEOUT, move |_| {
            call();
            std::ptr::null_mut()
        });
        let error = made.unwrap_err();
        assert_eq!(error.category(), Category::Timeout);
        assert!(error.to_string().contains("commit as app-0-0"), "{error}");
        let most = TIMEOUT + GRACE + Duration::from_secs(20);
        assert!(
            (TIMEOUT + GRACE..most).contains(&began.elapsed()),
            "{:?}",
            began.elapsed()
        );
    }

    #[test]
    fn a_broken_connection_ends_a_call_at_once() {
        let producer = producer();
        let notes = Arc::clone(&producer.client.notes);
        let (_hold, block) = blocking();
        let began = Instant::now();
        let made = producer.watched("commit", LONG, move |_| {
            notes.broken.store(true, Ordering::Release);
            block();
            std::ptr::null_mut()
        });
        let error = made.unwrap_err();
        assert!(error.to_string().contains("a connection broke"), "{error}");
        assert!(began.elapsed() < LONG / 2, "{:?}", began.elapsed());
    }

    #[test]
    fn a_producer_in_doubt_begins_no_transaction() {
        let producer = producer();
        let begin = || producer.begin().unwrap_err().to_string();
        assert!(!producer.in_doubt());
        assert!(!begin().contains("never answered"), "{}", begin());
        producer.client.notes.unanswered.fetch_add(1, Ordering::AcqRel);
        assert!(producer.in_doubt());
        assert!(begin().contains("never answered"), "{}", begin());
        producer.client.notes.unanswered.fetch_sub(1, Ordering::AcqRel);
        assert!(!begin().contains("never answered"), "{}", begin());
    }
}
