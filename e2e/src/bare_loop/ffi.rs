//! The few librdkafka calls of the bare loop, without rust-rdkafka's layer: safe to call from one thread.

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{self, NonNull};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rdkafka::bindings as sys;

/// How long one call to the transaction coordinator may take.
const TRANSACTION_MS: i32 = 30_000;

/// `RD_KAFKA_MSG_F_COPY`: librdkafka copies key and value before the call returns.
const COPY: i32 = 2;

/// A librdkafka handle.
struct Handle(NonNull<sys::rd_kafka_t>);

impl Handle {
    fn new(kind: sys::rd_kafka_type_t, settings: &[(&str, &str)]) -> Result<Self> {
        let mut message: [c_char; 512] = [0; 512];
        // SAFETY: makes an owned configuration; it is handed to rd_kafka_new below, or lost on a wrong setting, which
        // ends the program.
        let config = unsafe { sys::rd_kafka_conf_new() };
        for (name, value) in settings {
            let (name, value) = (CString::new(*name)?, CString::new(*value)?);
            // SAFETY: config is owned here, the strings are NUL-terminated, and the buffer's size is its own.
            let set = unsafe {
                sys::rd_kafka_conf_set(
                    config,
                    name.as_ptr(),
                    value.as_ptr(),
                    message.as_mut_ptr(),
                    message.len(),
                )
            };
            if set != sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK {
                bail!("librdkafka refuses {name:?}: {}", text(message.as_ptr()));
            }
        }
        // SAFETY: config is owned and given away here; the buffer's size is its own.
        let handle = unsafe { sys::rd_kafka_new(kind, config, message.as_mut_ptr(), message.len()) };
        let handle = NonNull::new(handle)
            .with_context(|| format!("no librdkafka client: {}", text(message.as_ptr())))?;
        Ok(Handle(handle))
    }

    fn as_ptr(&self) -> *mut sys::rd_kafka_t {
        self.0.as_ptr()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle is owned, and whatever was made from it is dropped before it (field order of its owners).
        unsafe { sys::rd_kafka_destroy(self.as_ptr()) }
    }
}

/// An owned list of partitions with offsets.
pub(super) struct Partitions(NonNull<sys::rd_kafka_topic_partition_list_t>);

impl Partitions {
    /// Partitions of one topic with the offset to start from, or to commit.
    pub(super) fn of(topic: &CStr, offsets: impl IntoIterator<Item = (i32, i64)>) -> Result<Self> {
        // SAFETY: makes an owned list; it grows as needed.
        let list =
            NonNull::new(unsafe { sys::rd_kafka_topic_partition_list_new(16) }).context("no memory")?;
        for (partition, offset) in offsets {
            // SAFETY: the list is owned, the topic NUL-terminated; the new element lives in the list.
            unsafe {
                let element =
                    sys::rd_kafka_topic_partition_list_add(list.as_ptr(), topic.as_ptr(), partition);
                (*element).offset = offset;
            }
        }
        Ok(Partitions(list))
    }
}

impl Drop for Partitions {
    fn drop(&mut self) {
        // SAFETY: the list is owned and used by no call any more.
        unsafe { sys::rd_kafka_topic_partition_list_destroy(self.0.as_ptr()) }
    }
}

/// A consumer with assigned partitions, read in batches.
pub(super) struct Consumer {
    queue: NonNull<sys::rd_kafka_queue_t>,
    batch: Vec<*mut sys::rd_kafka_message_t>,
    handle: Handle,
}

/// One record, borrowed from its batch.
pub(super) struct Message<'a> {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

impl Consumer {
    pub(super) fn new(settings: &[(&str, &str)], batch: usize) -> Result<Self> {
        let handle = Handle::new(sys::rd_kafka_type_t::RD_KAFKA_CONSUMER, settings)?;
        // SAFETY: the handle is a live consumer; the queue is owned and destroyed before the handle.
        let queue = unsafe {
            check(sys::rd_kafka_poll_set_consumer(handle.as_ptr()))?;
            NonNull::new(sys::rd_kafka_queue_get_consumer(handle.as_ptr())).context("no consumer queue")?
        };
        Ok(Consumer {
            queue,
            batch: vec![ptr::null_mut(); batch],
            handle,
        })
    }

    pub(super) fn assign(&self, partitions: &Partitions) -> Result<()> {
        // SAFETY: both are live; librdkafka copies the list.
        check(unsafe { sys::rd_kafka_assign(self.handle.as_ptr(), partitions.0.as_ptr()) })
    }

    /// Hands each record of the next batch to `each`; waits at most `wait` for the batch to fill.
    pub(super) fn consume(
        &mut self,
        wait: Duration,
        mut each: impl FnMut(Message<'_>) -> Result<()>,
    ) -> Result<()> {
        let wait = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is live and the array as long as said.
        let count = unsafe {
            sys::rd_kafka_consume_batch_queue(
                self.queue.as_ptr(),
                wait,
                self.batch.as_mut_ptr(),
                self.batch.len(),
            )
        };
        let mut outcome = Ok(());
        for message in &self.batch[..usize::try_from(count).unwrap_or(0)] {
            if outcome.is_ok() {
                // SAFETY: librdkafka has just given this message to us; it lives until it is destroyed below.
                outcome = unsafe { borrow(*message) }.and_then(&mut each);
            }
            // SAFETY: the message is owned and nothing borrows from it any more.
            unsafe { sys::rd_kafka_message_destroy(*message) }
        }
        outcome
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // SAFETY: both are live and owned; the handle's own drop comes after.
        unsafe {
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
            sys::rd_kafka_consumer_close(self.handle.as_ptr());
        }
    }
}

/// Borrows a message's fields.
///
/// # Safety
/// `message` must be live as long as the result.
unsafe fn borrow<'a>(message: *mut sys::rd_kafka_message_t) -> Result<Message<'a>> {
    // SAFETY: live by the caller's promise.
    let m = unsafe { &*message };
    check(m.err).context("consuming")?;
    // SAFETY: pointer and length belong together, and live as long as the message.
    let (key, value) = unsafe { (bytes(m.key, m.key_len), bytes(m.payload, m.len)) };
    Ok(Message {
        partition: m.partition,
        offset: m.offset,
        key,
        value,
    })
}

/// # Safety
/// `length` bytes must be readable at `start`, unless that is null, for `'a`.
unsafe fn bytes<'a>(start: *const c_void, length: usize) -> &'a [u8] {
    if start.is_null() {
        return &[];
    }
    // SAFETY: by the caller's promise.
    unsafe { std::slice::from_raw_parts(start.cast(), length) }
}

/// A transactional producer for one topic.
pub(super) struct Producer {
    topic: NonNull<sys::rd_kafka_topic_t>,
    handle: Handle,
}

impl Producer {
    /// Makes the producer and takes over its transactional id.
    pub(super) fn new(settings: &[(&str, &str)], topic: &CStr) -> Result<Self> {
        let handle = Handle::new(sys::rd_kafka_type_t::RD_KAFKA_PRODUCER, settings)?;
        // SAFETY: the handle is live; the topic is owned and destroyed before the handle.
        let topic = unsafe { sys::rd_kafka_topic_new(handle.as_ptr(), topic.as_ptr(), ptr::null_mut()) };
        let producer = Producer {
            topic: NonNull::new(topic).context("no topic handle")?,
            handle,
        };
        // SAFETY: the handle is live.
        succeed(unsafe { sys::rd_kafka_init_transactions(producer.handle.as_ptr(), TRANSACTION_MS) })
            .context("init_transactions")?;
        Ok(producer)
    }

    pub(super) fn begin(&self) -> Result<()> {
        // SAFETY: the handle is live.
        succeed(unsafe { sys::rd_kafka_begin_transaction(self.handle.as_ptr()) }).context("begin_transaction")
    }

    /// Queues one record; serves callbacks while librdkafka's queue is full.
    pub(super) fn produce(&self, key: &[u8], value: &[u8], timestamp: i64) -> Result<()> {
        use sys::rd_kafka_vtype_t as field;
        loop {
            // SAFETY: the arguments are (tag, value) pairs as rd_kafka_producev wants them, ended by END; key and
            // value are copied before it returns.
            let code = unsafe {
                sys::rd_kafka_producev(
                    self.handle.as_ptr(),
                    field::RD_KAFKA_VTYPE_RKT,
                    self.topic.as_ptr(),
                    field::RD_KAFKA_VTYPE_MSGFLAGS,
                    COPY,
                    field::RD_KAFKA_VTYPE_VALUE,
                    value.as_ptr().cast::<c_void>(),
                    value.len(),
                    field::RD_KAFKA_VTYPE_KEY,
                    key.as_ptr().cast::<c_void>(),
                    key.len(),
                    field::RD_KAFKA_VTYPE_TIMESTAMP,
                    timestamp,
                    field::RD_KAFKA_VTYPE_END,
                )
            };
            if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__QUEUE_FULL {
                return check(code).context("producing");
            }
            self.serve(1);
        }
    }

    /// Serves delivery reports and other callbacks.
    pub(super) fn serve(&self, wait_ms: i32) {
        // SAFETY: the handle is live.
        unsafe { sys::rd_kafka_poll(self.handle.as_ptr(), wait_ms) };
    }

    /// Commits the open transaction, with the consumer's offsets in it.
    pub(super) fn commit(&self, consumer: &Consumer, offsets: &Partitions) -> Result<()> {
        // SAFETY: all handles are live; the metadata is owned here and destroyed after its one use.
        unsafe {
            let group = sys::rd_kafka_consumer_group_metadata(consumer.handle.as_ptr());
            let sent = sys::rd_kafka_send_offsets_to_transaction(
                self.handle.as_ptr(),
                offsets.0.as_ptr(),
                group,
                TRANSACTION_MS,
            );
            sys::rd_kafka_consumer_group_metadata_destroy(group);
            succeed(sent).context("send_offsets_to_transaction")?;
            succeed(sys::rd_kafka_commit_transaction(
                self.handle.as_ptr(),
                TRANSACTION_MS,
            ))
            .context("commit_transaction")
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // SAFETY: the topic is owned; the handle's own drop comes after.
        unsafe { sys::rd_kafka_topic_destroy(self.topic.as_ptr()) }
    }
}

fn check(code: sys::rd_kafka_resp_err_t) -> Result<()> {
    if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    // SAFETY: librdkafka gives a static string for every code.
    bail!("{}", text(unsafe { sys::rd_kafka_err2str(code) }))
}

/// Takes an error object, which is null for success.
fn succeed(error: *mut sys::rd_kafka_error_t) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the error is owned; its text is copied before it is destroyed.
    let message = unsafe {
        let message = text(sys::rd_kafka_error_string(error));
        sys::rd_kafka_error_destroy(error);
        message
    };
    bail!("{message}")
}

/// Copies a NUL-terminated text of librdkafka's.
fn text(start: *const c_char) -> String {
    // SAFETY: only called with texts that librdkafka has just written or owns.
    unsafe { CStr::from_ptr(start) }.to_string_lossy().into_owned()
}
