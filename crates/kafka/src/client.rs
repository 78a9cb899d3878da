//! Settings and the native handle that consumers, producers and admin share.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::bindings as sys;

use crate::{Category, Error};

/// How to reach a cluster.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `host:port[,host:port…]`
    pub bootstrap_servers: String,
    /// More librdkafka properties; what the product sets itself wins.
    pub properties: BTreeMap<String, String>,
}

/// librdkafka does not accept a property.
#[derive(Debug, thiserror::Error)]
#[error("client configuration `{property}`: {reason}")]
pub struct ConfigError {
    property: String,
    reason: String,
}

impl ConfigError {
    pub(crate) fn new(property: &str, reason: impl Into<String>) -> Self {
        Self {
            property: property.to_owned(),
            reason: reason.into(),
        }
    }
}

/// Kafka's numbers of the requests that change a transaction: Produce, AddPartitionsToTxn, AddOffsetsToTxn, EndTxn,
/// TxnOffsetCommit.
const TRANSACTIONAL: [i16; 5] = [0, 24, 25, 26, 28];
const INIT_PRODUCER_ID: i16 = 22;
/// The interceptors' name.
const NAME: &CStr = c"streamapp";

/// What callbacks note down. librdkafka calls them on the thread that polls; the interceptors on its own threads.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Requests that change a transaction, were sent, and have no answer. One whose connection broke, or whose answer was
    /// too late, stays here for good: it may still reach the broker.
    pub(crate) unanswered: AtomicI64,
    /// Answers to `InitProducerId`, whatever they say.
    pub(crate) init_answers: AtomicU64,
    /// A connection broke that had such requests under way.
    pub(crate) broken: AtomicBool,
    /// Records that the broker did not take, ever.
    pub(crate) failed_deliveries: AtomicU64,
    /// The last refusal of credentials or certificates: connections are tried again, so calls only time out.
    refusal: Mutex<Option<(sys::rd_kafka_resp_err_t, String)>>,
    /// Brokers that librdkafka knows, connected or not: each has a thread.
    brokers: AtomicI64,
    /// None is known any more, and nobody has named the bootstrap servers again.
    forgotten: AtomicBool,
}

/// Records that may lie in a queue of so many KiB: each takes some 500 bytes beside its own.
pub(crate) fn records_in(kib: u32) -> u32 {
    kib.saturating_mul(2)
}

/// Whether the callbacks belong to a consumer or a producer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Consumer,
    Producer,
}

/// Owns an `rd_kafka_t`.
pub(crate) struct Client {
    raw: *mut sys::rd_kafka_t,
    bootstrap_servers: CString,
    pub(crate) notes: Arc<Notes>,
}

// SAFETY: rd_kafka_t is thread-safe (librdkafka's INTRODUCTION.md, "Threads and callbacks").
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl Client {
    pub(crate) fn new(kind: Kind, settings: &Settings, own: &[(&str, &str)]) -> Result<Self, ConfigError> {
        let notes = Arc::new(Notes::default());
        let bootstrap_servers = text("bootstrap.servers", &settings.bootstrap_servers)?;
        // SAFETY: the configuration object is created here and either handed to rd_kafka_new, which takes it,
        // or destroyed, or lost; strings live during the calls. `notes` outlives the handle: Client drops the handle first.
        unsafe {
            let conf = sys::rd_kafka_conf_new();
            if let Err(error) = set_all(conf, settings, own) {
                sys::rd_kafka_conf_destroy(conf);
                return Err(error);
            }
            let opaque = Arc::as_ptr(&notes).cast_mut().cast();
            sys::rd_kafka_conf_set_opaque(conf, opaque);
            sys::rd_kafka_conf_interceptor_add_on_new(conf, NAME.as_ptr(), Some(on_new), opaque);
            sys::rd_kafka_conf_set_error_cb(conf, Some(on_error));
            sys::rd_kafka_conf_set_log_cb(conf, Some(on_log));
            let native_kind = match kind {
                Kind::Consumer => sys::rd_kafka_type_t::RD_KAFKA_CONSUMER,
                Kind::Producer => {
                    sys::rd_kafka_conf_set_dr_msg_cb(conf, Some(on_delivery));
                    sys::rd_kafka_type_t::RD_KAFKA_PRODUCER
                }
            };
            let mut message = [0 as c_char; 512];
            let raw = sys::rd_kafka_new(native_kind, conf, message.as_mut_ptr(), message.len());
            if raw.is_null() {
                // The configuration is lost: librdkafka has freed its interceptors already, and would free them again
                // (its issue 4142, mended in 2.13).
                let reason = CStr::from_ptr(message.as_ptr()).to_string_lossy().into_owned();
                return Err(ConfigError::new("client", reason));
            }
            Ok(Self {
                raw,
                bootstrap_servers,
                notes,
            })
        }
    }

    pub(crate) fn raw(&self) -> *mut sys::rd_kafka_t {
        self.raw
    }

    /// The reason behind a time-out, if a broker has refused this client meanwhile.
    pub(crate) fn explain(&self, error: Error, attempted: &dyn Fn() -> String) -> Error {
        if !matches!(error.category(), Category::BrokerUnreachable | Category::Timeout) {
            return error;
        }
        self.poll(0);
        let refusal = self.notes.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        match &*refusal {
            Some((code, reason)) => Error::new(attempted(), *code, reason),
            None => error,
        }
    }

    /// A broker has answered: earlier refusals explain nothing any more.
    pub(crate) fn accepted(&self) {
        *self.notes.refusal.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Names the bootstrap servers again when no broker is known any more. A broker that has just started answers that there
    /// are none, so librdkafka 2.12 forgets all of them, the bootstrap servers, too; that it may never look for them again is
    /// its issue 5301.
    pub(crate) fn remember_brokers(&self) {
        if self.notes.forgotten.swap(false, Ordering::AcqRel) {
            tracing::info!("no broker is known any more; asking the bootstrap servers again");
            // SAFETY: handle and list are live; librdkafka copies the list.
            unsafe { sys::rd_kafka_brokers_add(self.raw, self.bootstrap_servers.as_ptr()) };
        }
    }

    /// Serves callbacks, waiting at most `timeout_ms`.
    pub(crate) fn poll(&self, timeout_ms: i32) {
        self.remember_brokers();
        // SAFETY: the handle is live.
        unsafe { sys::rd_kafka_poll(self.raw, timeout_ms) };
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // While a handle ends, its main thread frees the texts of a transaction's errors, and a broker's thread that gets a
        // late answer to a Produce request frees them again (librdkafka 2.12, `rd_kafka_txn_set_fatal_error`). So no
        // Produce request may be waiting then. Purging waits for each broker's thread; on a consumer it does nothing.
        let all = sys::RD_KAFKA_PURGE_F_QUEUE | sys::RD_KAFKA_PURGE_F_INFLIGHT;
        // SAFETY: the handle is live and not used afterwards. Consumers are never group members: no close.
        unsafe {
            sys::rd_kafka_purge(self.raw, all);
            sys::rd_kafka_destroy_flags(self.raw, sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
        }
    }
}

fn text(property: &str, text: &str) -> Result<CString, ConfigError> {
    CString::new(text).map_err(|_| ConfigError::new(property, "contains a NUL byte"))
}

unsafe fn set_all(
    conf: *mut sys::rd_kafka_conf_t,
    settings: &Settings,
    own: &[(&str, &str)],
) -> Result<(), ConfigError> {
    let users = settings
        .properties
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    // A broker that comes back is found within a second, not within the default ten.
    let bootstrap = [
        ("bootstrap.servers", settings.bootstrap_servers.as_str()),
        ("reconnect.backoff.max.ms", "1000"),
    ];
    for (name, value) in users.chain(bootstrap).chain(own.iter().copied()) {
        let (native_name, native_value) = (text(name, name)?, text(name, value)?);
        let mut message = [0 as c_char; 512];
        // SAFETY: `conf` is live by the caller's promise; the strings and the buffer outlive the call.
        let result = unsafe {
            sys::rd_kafka_conf_set(
                conf,
                native_name.as_ptr(),
                native_value.as_ptr(),
                message.as_mut_ptr(),
                message.len(),
            )
        };
        if result != sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK {
            // SAFETY: librdkafka NUL-terminates the message within the buffer.
            let reason = unsafe { CStr::from_ptr(message.as_ptr()) }
                .to_string_lossy()
                .into_owned();
            return Err(ConfigError::new(name, reason));
        }
    }
    Ok(())
}

unsafe extern "C" fn on_error(
    _client: *mut sys::rd_kafka_t,
    code: c_int,
    reason: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: the opaque is the Notes of a live Client; librdkafka passes a NUL-terminated reason.
    let (notes, reason) = unsafe { (&*opaque.cast::<Notes>(), CStr::from_ptr(reason)) };
    let refusals = [
        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__AUTHENTICATION,
        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__SSL,
    ];
    if let Some(refusal) = refusals.into_iter().find(|refusal| *refusal as c_int == code) {
        let mut last = notes.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((refusal, reason.to_string_lossy().into_owned()));
    }
    tracing::debug!(code, reason = %reason.to_string_lossy(), "Kafka client error");
}

thread_local! {
    /// Whether this is one of librdkafka's broker threads: they send requests and receive answers, no others do.
    static SENDS: Cell<bool> = const { Cell::new(false) };
    /// Requests of this broker thread that change a transaction and have no answer.
    static UNANSWERED: Cell<i64> = const { Cell::new(0) };
    /// This thread serves a broker that was named or found, not one of librdkafka's own kinds of brokers.
    static SERVES: Cell<bool> = const { Cell::new(false) };
}

/// Brokers are counted by their threads. Of producers, requests and answers are counted where librdkafka sends and receives
/// them: it tells nobody of a connection that broke.
unsafe extern "C" fn on_new(
    client: *mut sys::rd_kafka_t,
    _conf: *const sys::rd_kafka_conf_t,
    opaque: *mut c_void,
    _error: *mut c_char,
    _size: usize,
) -> sys::rd_kafka_resp_err_t {
    // SAFETY: the client is the one that is being made; the opaque is its Notes.
    unsafe {
        sys::rd_kafka_interceptor_add_on_thread_start(client, NAME.as_ptr(), Some(on_thread_start), opaque);
        sys::rd_kafka_interceptor_add_on_thread_exit(client, NAME.as_ptr(), Some(on_thread_exit), opaque);
        if sys::rd_kafka_type(client) == sys::rd_kafka_type_t::RD_KAFKA_CONSUMER {
            return sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        }
        sys::rd_kafka_interceptor_add_on_request_sent(client, NAME.as_ptr(), Some(on_sent), opaque);
        sys::rd_kafka_interceptor_add_on_broker_state_change(client, NAME.as_ptr(), Some(on_state), opaque);
        sys::rd_kafka_interceptor_add_on_response_received(client, NAME.as_ptr(), Some(on_received), opaque)
    }
}

/// Whether a broker's thread has this name: `host:port/id` or `host:port/bootstrap`, cut to what librdkafka has room for. Of its own
/// are `:0/internal`, `GroupCoordinator` and the like.
fn is_of_broker(thread: &str) -> bool {
    const ROOM: usize = 63;
    (thread.contains('/') || thread.len() >= ROOM) && !thread.ends_with("/internal")
}

unsafe extern "C" fn on_thread_start(
    _client: *mut sys::rd_kafka_t,
    kind: sys::rd_kafka_thread_type_t,
    name: *const c_char,
    opaque: *mut c_void,
) -> sys::rd_kafka_resp_err_t {
    // SAFETY: librdkafka passes a NUL-terminated name; the opaque is the Notes of a live Client.
    let (name, notes) = unsafe { (CStr::from_ptr(name).to_string_lossy(), &*opaque.cast::<Notes>()) };
    if kind == sys::rd_kafka_thread_type_t::RD_KAFKA_THREAD_BROKER && is_of_broker(&name) {
        SERVES.set(true);
        notes.brokers.fetch_add(1, Ordering::AcqRel);
    }
    sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// It is not in librdkafka's list of brokers any more.
unsafe extern "C" fn on_thread_exit(
    _client: *mut sys::rd_kafka_t,
    _kind: sys::rd_kafka_thread_type_t,
    _name: *const c_char,
    opaque: *mut c_void,
) -> sys::rd_kafka_resp_err_t {
    if SERVES.get() {
        // SAFETY: the opaque is the Notes of a live Client.
        let notes = unsafe { &*opaque.cast::<Notes>() };
        if notes.brokers.fetch_sub(1, Ordering::AcqRel) == 1 {
            notes.forgotten.store(true, Ordering::Release);
        }
    }
    sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

unsafe extern "C" fn on_sent(
    _client: *mut sys::rd_kafka_t,
    _socket: c_int,
    _broker: *const c_char,
    _id: i32,
    api: i16,
    _version: i16,
    _correlation: i32,
    _size: usize,
    opaque: *mut c_void,
) -> sys::rd_kafka_resp_err_t {
    SENDS.set(true);
    if TRANSACTIONAL.contains(&api) {
        UNANSWERED.set(UNANSWERED.get() + 1);
        // SAFETY: the opaque is the Notes of a live Client.
        unsafe {
            (*opaque.cast::<Notes>())
                .unanswered
                .fetch_add(1, Ordering::AcqRel)
        };
    }
    sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

unsafe extern "C" fn on_received(
    _client: *mut sys::rd_kafka_t,
    _socket: c_int,
    _broker: *const c_char,
    _id: i32,
    api: i16,
    _version: i16,
    _correlation: i32,
    size: usize,
    _rtt: i64,
    _error: sys::rd_kafka_resp_err_t,
    opaque: *mut c_void,
) -> sys::rd_kafka_resp_err_t {
    // It is called for requests that are given up, too: then there is no answer that has a size. For an answer that another
    // thread handles it is called again, there.
    if size > 0 && api == INIT_PRODUCER_ID {
        // SAFETY: the opaque is the Notes of a live Client.
        unsafe {
            (*opaque.cast::<Notes>())
                .init_answers
                .fetch_add(1, Ordering::AcqRel)
        };
    }
    if size > 0 && SENDS.get() && TRANSACTIONAL.contains(&api) {
        UNANSWERED.set(UNANSWERED.get() - 1);
        // SAFETY: the opaque is the Notes of a live Client.
        unsafe {
            (*opaque.cast::<Notes>())
                .unanswered
                .fetch_sub(1, Ordering::AcqRel)
        };
    }
    sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// A thread of librdkafka's serves one broker and tells the states of its connection.
unsafe extern "C" fn on_state(
    _client: *mut sys::rd_kafka_t,
    _broker: i32,
    _protocol: *const c_char,
    _name: *const c_char,
    _port: c_int,
    state: *const c_char,
    opaque: *mut c_void,
) -> sys::rd_kafka_resp_err_t {
    // SAFETY: the state is a NUL-terminated name, the opaque is the Notes of a live Client.
    unsafe {
        if UNANSWERED.get() > 0 && CStr::from_ptr(state) == c"DOWN" {
            (*opaque.cast::<Notes>()).broken.store(true, Ordering::Release);
        }
    }
    sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

unsafe extern "C" fn on_delivery(
    _client: *mut sys::rd_kafka_t,
    message: *const sys::rd_kafka_message_t,
    opaque: *mut c_void,
) {
    // SAFETY: the opaque is the Notes of a live Client; the message lives during the callback. A non-null
    // per-message opaque is the receipt of a `PlainProducer::append`, which waits for this callback.
    unsafe {
        let message = &*message;
        if message.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            (*opaque.cast::<Notes>())
                .failed_deliveries
                .fetch_add(1, Ordering::AcqRel);
        }
        if !message._private.is_null() {
            let receipt = message
                ._private
                .cast::<Option<Result<i64, sys::rd_kafka_resp_err_t>>>();
            *receipt = Some(match message.err {
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(message.offset),
                error => Err(error),
            });
        }
    }
}

unsafe extern "C" fn on_log(
    _client: *const sys::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    text: *const c_char,
) {
    // SAFETY: librdkafka passes NUL-terminated strings that live during the callback.
    let (facility, text) = unsafe { (CStr::from_ptr(facility), CStr::from_ptr(text)) };
    let (facility, text) = (facility.to_string_lossy(), text.to_string_lossy());
    match level {
        0..=2 => tracing::error!(target: "librdkafka", %facility, "{text}"),
        // Connection errors repeat every second while a broker is away; the worker reports the state itself.
        3..=4 => tracing::debug!(target: "librdkafka", %facility, "{text}"),
        _ => tracing::trace!(target: "librdkafka", %facility, "{text}"),
    }
}

#[cfg(test)]
mod tests;
