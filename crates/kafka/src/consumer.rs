//! The assigned consumer: partitions are assigned, never subscribed, so there is no group membership.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_void};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::client::{Client, Kind, records_in};
use crate::{ConfigError, Error, Settings};

const NO_ERROR: sys::rd_kafka_resp_err_t = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

/// How long to wait for the leaders of a topic.
const LEADERS: Duration = Duration::from_secs(1);

/// Which records a consumer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the last stable offset, aborted records left out.
    ReadCommitted,
    /// Everything.
    ReadUncommitted,
}

/// Where to begin in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset wanted; it must exist, there is no reset.
    pub offset: i64,
}

/// An assigned consumer.
pub struct Consumer {
    client: Arc<Client>,
    /// Topics whose leaders it has asked for.
    known: Mutex<BTreeSet<String>>,
}

/// What a poll brings.
#[derive(Debug)]
pub enum Event {
    /// A record.
    Record(Message),
    /// The end of the partition as this consumer may see it: everything below the offset was delivered.
    EndOfPartition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The next offset.
        offset: i64,
    },
}

impl Consumer {
    /// Makes a consumer; connects in the background. `group_id` is the group whose offsets [`Self::committed`] reads;
    /// `prefetch_kib` bounds the memory of what is fetched ahead per partition.
    ///
    /// # Errors
    /// [`ConfigError`] when librdkafka refuses a property.
    pub fn new(
        settings: &Settings,
        group_id: &str,
        isolation: Isolation,
        prefetch_kib: u32,
    ) -> Result<Self, ConfigError> {
        let isolation = match isolation {
            Isolation::ReadCommitted => "read_committed",
            Isolation::ReadUncommitted => "read_uncommitted",
        };
        let prefetch = prefetch_kib.to_string();
        let records = records_in(prefetch_kib).to_string();
        // One answer adds to what is there already.
        let answer = (prefetch_kib / 4).clamp(16, 1024) * 1024;
        let answer = answer.to_string();
        let own = [
            ("group.id", group_id),
            ("isolation.level", isolation),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("enable.partition.eof", "true"),
            ("auto.offset.reset", "error"),
            ("queued.max.messages.kbytes", &prefetch),
            ("queued.min.messages", &records),
            ("max.partition.fetch.bytes", &answer),
            // A fetch that finds its queue full waits this long; the default second stalls small queues.
            ("fetch.queue.backoff.ms", "5"),
            ("fetch.wait.max.ms", "100"),
            ("fetch.error.backoff.ms", "100"),
        ];
        let client = Arc::new(Client::new(Kind::Consumer, settings, &own)?);
        // SAFETY: the handle is live; events then arrive through rd_kafka_consumer_poll.
        unsafe { sys::rd_kafka_poll_set_consumer(client.raw()) };
        Ok(Self {
            client,
            known: Mutex::default(),
        })
    }

    #[cfg(test)]
    pub(crate) fn raw(&self) -> *mut sys::rd_kafka_t {
        self.client.raw()
    }

    /// Asks for a topic's leaders, once. Left to itself, librdkafka looks once a second for assigned partitions without one.
    fn learn(&self, topic: &str) -> Result<(), Error> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.insert(topic.to_owned()) {
            return Ok(());
        }
        let name = c_string(topic, &|| format!("ask for the leaders of {topic}"))?;
        // SAFETY: handle and name are live; topic and answer are ours and destroyed once.
        unsafe {
            let raw = sys::rd_kafka_topic_new(self.client.raw(), name.as_ptr(), std::ptr::null_mut());
            if raw.is_null() {
                return Ok(()); // assigning it says why
            }
            let mut answer = std::ptr::null();
            let code = sys::rd_kafka_metadata(self.client.raw(), 0, raw, &raw mut answer, millis(LEADERS));
            sys::rd_kafka_topic_destroy(raw);
            if code == NO_ERROR {
                sys::rd_kafka_metadata_destroy(answer);
            }
        }
        Ok(())
    }

    /// Takes the partition's records out of [`Self::poll`] into a queue of its own. Before [`Self::assign`] or [`Self::add`].
    ///
    /// # Errors
    /// When librdkafka cannot make the queue.
    pub fn partition_queue(&self, topic: &str, partition: i32) -> Result<PartitionQueue, Error> {
        let attempted = || format!("queue of {topic}/{partition}");
        let name = c_string(topic, &attempted)?;
        // SAFETY: handle and name are live; the queue keeps the client alive through its Arc.
        let raw = unsafe { sys::rd_kafka_queue_get_partition(self.client.raw(), name.as_ptr(), partition) };
        if raw.is_null() {
            let code = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION;
            return Err(Error::from_code(attempted(), code));
        }
        // SAFETY: the queue is live; forwarding to null detaches it from the consumer's queue.
        unsafe { sys::rd_kafka_queue_forward(raw, std::ptr::null_mut()) };
        Ok(PartitionQueue {
            raw,
            _client: Arc::clone(&self.client),
            batch: Vec::new(),
        })
    }

    /// Begins to fetch; replaces the assignment.
    ///
    /// # Errors
    /// When librdkafka refuses the list.
    pub fn assign(&self, starts: &[Start]) -> Result<(), Error> {
        for start in starts {
            self.learn(&start.topic)?;
        }
        let attempted = || format!("assign {} partitions", starts.len());
        let list = PartitionList::new(
            starts
                .iter()
                .map(|start| (start.topic.as_str(), start.partition, start.offset)),
            &attempted,
        )?;
        // SAFETY: handle and list are live.
        match unsafe { sys::rd_kafka_assign(self.client.raw(), list.raw) } {
            NO_ERROR => Ok(()),
            code => Err(Error::from_code(attempted(), code)),
        }
    }

    /// Begins to fetch one more partition; the others are not touched.
    ///
    /// # Errors
    /// When librdkafka refuses the partition, such as one that is assigned already.
    pub fn add(&self, start: &Start) -> Result<(), Error> {
        self.learn(&start.topic)?;
        let attempted = || format!("assign {}/{}", start.topic, start.partition);
        let one = [(start.topic.as_str(), start.partition, start.offset)];
        let list = PartitionList::new(one.into_iter(), &attempted)?;
        // SAFETY: handle and list are live; a returned error is ours.
        let error = unsafe { sys::rd_kafka_incremental_assign(self.client.raw(), list.raw) };
        // SAFETY: as above.
        unsafe { Error::check(&attempted, error) }
    }

    /// Ends fetching a partition; the others are not touched. Its queue must not be read any more.
    ///
    /// # Errors
    /// When the partition is not assigned.
    pub fn remove(&self, topic: &str, partition: i32) -> Result<(), Error> {
        let attempted = || format!("unassign {topic}/{partition}");
        let unknown = sys::RD_KAFKA_OFFSET_INVALID as i64;
        let list = PartitionList::new([(topic, partition, unknown)].into_iter(), &attempted)?;
        // SAFETY: handle and list are live; a returned error is ours.
        let error = unsafe { sys::rd_kafka_incremental_unassign(self.client.raw(), list.raw) };
        // SAFETY: as above.
        unsafe { Error::check(&attempted, error) }
    }

    /// The next event of partitions that have no queue of their own; also serves callbacks.
    ///
    /// # Errors
    /// Errors of fetching, such as an offset that is out of range.
    pub fn poll(&self, timeout: Duration) -> Result<Option<Event>, Error> {
        self.client.remember_brokers();
        // SAFETY: the handle is live; a returned message is owned by us.
        let raw = unsafe { sys::rd_kafka_consumer_poll(self.client.raw(), millis(timeout)) };
        // SAFETY: non-null messages are ours.
        (!raw.is_null()).then(|| unsafe { event(raw) }).transpose()
    }

    /// The group's committed offset per partition, stable: waits while a transaction holds them.
    ///
    /// # Errors
    /// [`crate::Category::UnstableOffsets`] or a time-out when they do not become stable.
    pub fn committed(
        &self,
        partitions: &[(&str, i32)],
        timeout: Duration,
    ) -> Result<Vec<Option<i64>>, Error> {
        let attempted = || "read the group's committed offsets".to_owned();
        let unknown = sys::RD_KAFKA_OFFSET_INVALID as i64;
        let list = PartitionList::new(partitions.iter().map(|&(t, p)| (t, p, unknown)), &attempted)?;
        self.client.remember_brokers();
        // SAFETY: handle and list are live.
        let code = unsafe { sys::rd_kafka_committed(self.client.raw(), list.raw, millis(timeout)) };
        if code != NO_ERROR {
            return Err(Error::from_code(attempted(), code));
        }
        list.entries()
            .map(|entry| match entry.err {
                NO_ERROR => Ok((entry.offset >= 0).then_some(entry.offset)),
                code => Err(Error::from_code(attempted(), code)),
            })
            .collect()
    }

    /// Sets the group's committed offsets, as one that is no member of it; the broker refuses while it has members.
    ///
    /// # Errors
    /// The broker's refusal, or no answer.
    pub fn commit(&self, offsets: &[(&str, i32, i64)]) -> Result<(), Error> {
        let attempted = || "set the group's committed offsets".to_owned();
        let list = PartitionList::new(offsets.iter().copied(), &attempted)?;
        // SAFETY: handle and list are live; without `async` the call waits for the answer.
        match unsafe { sys::rd_kafka_commit(self.client.raw(), list.raw, 0) } {
            NO_ERROR => {}
            code => return Err(Error::from_code(attempted(), code)),
        }
        let failed = list.entries().find(|entry| entry.err != NO_ERROR);
        failed.map_or(Ok(()), |entry| Err(Error::from_code(attempted(), entry.err)))
    }

    /// First offset and end of a partition, asked from its leader. The end is the last stable offset for a
    /// `ReadCommitted` consumer, the high watermark otherwise.
    ///
    /// # Errors
    /// When the leader does not answer in time.
    pub fn watermarks(&self, topic: &str, partition: i32, timeout: Duration) -> Result<(i64, i64), Error> {
        let attempted = || format!("read the offsets of {topic}/{partition}");
        let name = c_string(topic, &attempted)?;
        self.client.remember_brokers();
        let (mut low, mut high) = (0, 0);
        // SAFETY: handle, name and the two out-parameters are live.
        let code = unsafe {
            sys::rd_kafka_query_watermark_offsets(
                self.client.raw(),
                name.as_ptr(),
                partition,
                &raw mut low,
                &raw mut high,
                millis(timeout),
            )
        };
        match code {
            NO_ERROR => Ok((low, high)),
            code => Err(Error::from_code(attempted(), code)),
        }
    }

    /// The end of a partition as the last fetch told it; `None` before the first. No request is made.
    #[must_use]
    pub fn known_end(&self, topic: &CStr, partition: i32) -> Option<i64> {
        let (mut low, mut high) = (0, 0);
        // SAFETY: handle, name and the two out-parameters are live.
        let code = unsafe {
            sys::rd_kafka_get_watermark_offsets(
                self.client.raw(),
                topic.as_ptr(),
                partition,
                &raw mut low,
                &raw mut high,
            )
        };
        (code == NO_ERROR && high >= 0).then_some(high)
    }
}

/// The records of one partition, in order.
pub struct PartitionQueue {
    raw: *mut sys::rd_kafka_queue_t,
    _client: Arc<Client>,
    batch: Vec<*mut sys::rd_kafka_message_t>,
}

// SAFETY: librdkafka's queues are thread-safe; `batch` is only used through `&mut self`.
unsafe impl Send for PartitionQueue {}

impl PartitionQueue {
    /// Appends what is there, at most `max` events, without waiting.
    ///
    /// # Errors
    /// Errors of fetching this partition. Events before it are in `into`.
    pub fn take(&mut self, max: usize, into: &mut impl Extend<Event>) -> Result<usize, Error> {
        self.batch.resize(max, std::ptr::null_mut());
        // SAFETY: the queue is live and the buffer holds `max` pointers.
        let taken = unsafe { sys::rd_kafka_consume_batch_queue(self.raw, 0, self.batch.as_mut_ptr(), max) };
        let taken = usize::try_from(taken).unwrap_or(0);
        let mut failed = None;
        for raw in &self.batch[..taken] {
            // SAFETY: librdkafka filled the first `taken` entries with messages that are ours.
            match unsafe { event(*raw) } {
                Ok(event) => into.extend(Some(event)),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(taken), Err)
    }

    /// Writes to `wakeup` whenever the queue stops being empty.
    pub fn wake(&self, wakeup: &Wakeup) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the queue is live, librdkafka copies the payload; the descriptor outlives the queue because
        // `disarm` (Drop) runs before the owner drops the Wakeup.
        unsafe {
            sys::rd_kafka_queue_io_event_enable(
                self.raw,
                wakeup.fd.as_raw_fd(),
                one.as_ptr().cast::<c_void>(),
                one.len(),
            );
        }
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // SAFETY: the queue is live; -1 disables the events; destroy gives back our reference.
        unsafe {
            sys::rd_kafka_queue_io_event_enable(self.raw, -1, std::ptr::null(), 0);
            sys::rd_kafka_queue_destroy(self.raw);
        }
    }
}

/// A descriptor that a thread sleeps on until a queue has records, or somebody wakes it.
pub struct Wakeup {
    fd: OwnedFd,
}

impl Wakeup {
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd returns a new descriptor or -1.
        let raw = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and ours.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        Ok(Self { fd })
    }

    /// Wakes the sleeper, now or at its next sleep.
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the descriptor is live; a full counter is as good as a wake-up.
        unsafe { libc::write(self.fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Sleeps until woken, at most `timeout`.
    pub fn sleep(&self, timeout: Duration) {
        let mut poll = libc::pollfd {
            fd: self.fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let mut count = [0u8; 8];
        // SAFETY: one pollfd and an eight-byte buffer, both live.
        unsafe {
            libc::poll(&raw mut poll, 1, millis(timeout));
            libc::read(self.fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len());
        }
    }
}

/// A record that librdkafka holds; key and value borrow from it.
pub struct Message {
    raw: *mut sys::rd_kafka_message_t,
    _owned: PhantomData<sys::rd_kafka_message_t>,
}

// SAFETY: a message is not bound to a thread. It is read, which parses its headers at first, by one thread at a time: it is not `Sync`.
unsafe impl Send for Message {}

impl Message {
    fn native(&self) -> &sys::rd_kafka_message_t {
        // SAFETY: the message is live until drop.
        unsafe { &*self.raw }
    }

    /// The key's bytes; `None` for a null key.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        let native = self.native();
        // SAFETY: librdkafka's pointer and length describe bytes that live as long as the message.
        (!native.key.is_null())
            .then(|| unsafe { std::slice::from_raw_parts(native.key.cast(), native.key_len) })
    }

    /// The value's bytes; `None` for a tombstone.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        let native = self.native();
        (!native.payload.is_null())
            // SAFETY: as for the key.
            .then(|| unsafe { std::slice::from_raw_parts(native.payload.cast(), native.len) })
    }

    /// Its headers, in their order. A name that is not UTF-8, which Kafka's protocol does not allow, is empty; of headers that cannot
    /// be read there are none.
    #[must_use]
    pub fn headers(&self) -> Vec<(&str, Option<&[u8]>)> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: message and out-parameter are live; the list belongs to the message.
        if unsafe { sys::rd_kafka_message_headers(self.raw, &raw mut raw) } != NO_ERROR {
            return Vec::new();
        }
        let mut headers = Vec::new();
        loop {
            let (mut name, mut value, mut length) = (std::ptr::null(), std::ptr::null(), 0);
            // SAFETY: the list is live, and so are the out-parameters.
            let code = unsafe {
                sys::rd_kafka_header_get_all(
                    raw,
                    headers.len(),
                    &raw mut name,
                    &raw mut value,
                    &raw mut length,
                )
            };
            if code != NO_ERROR {
                return headers;
            }
            // SAFETY: name and value live as long as the message; a null value has no bytes.
            unsafe {
                let value =
                    (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), length));
                headers.push((CStr::from_ptr(name).to_str().unwrap_or_default(), value));
            }
        }
    }

    /// Its offset.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.native().offset
    }

    /// Its partition.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.native().partition
    }

    /// Its timestamp, in milliseconds since the Unix epoch; -1 when it has none.
    #[must_use]
    pub fn timestamp(&self) -> i64 {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: message and out-parameter are live.
        unsafe { sys::rd_kafka_message_timestamp(self.raw, &raw mut kind) }
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("partition", &self.partition())
            .field("offset", &self.offset())
            .finish_non_exhaustive()
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: the message is ours and destroyed once.
        unsafe { sys::rd_kafka_message_destroy(self.raw) };
    }
}

/// # Safety
/// `raw` is a message that belongs to the caller.
unsafe fn event(raw: *mut sys::rd_kafka_message_t) -> Result<Event, Error> {
    let message = Message {
        raw,
        _owned: PhantomData,
    };
    let native = message.native();
    if native.err == NO_ERROR {
        return Ok(Event::Record(message));
    }
    // SAFETY: a partition event names its topic; both the object and its name live as long as the message.
    let topic = unsafe {
        if native.rkt.is_null() {
            "the consumer".to_owned()
        } else {
            CStr::from_ptr(sys::rd_kafka_topic_name(native.rkt))
                .to_string_lossy()
                .into_owned()
        }
    };
    if Code::from(native.err) == Code::PartitionEOF {
        return Ok(Event::EndOfPartition {
            topic,
            partition: native.partition,
            offset: native.offset,
        });
    }
    let detail = message
        .value()
        .map(String::from_utf8_lossy)
        .unwrap_or_default()
        .into_owned();
    Err(Error::new(
        format!("read {topic}/{}", native.partition),
        native.err,
        &detail,
    ))
}

/// An owned list of partitions with offsets.
pub(crate) struct PartitionList {
    pub(crate) raw: *mut sys::rd_kafka_topic_partition_list_t,
}

// SAFETY: the list is plain memory with one owner.
unsafe impl Send for PartitionList {}

impl PartitionList {
    pub(crate) fn new<'a>(
        entries: impl Iterator<Item = (&'a str, i32, i64)>,
        attempted: &dyn Fn() -> String,
    ) -> Result<Self, Error> {
        // SAFETY: the list is ours; each added element is live until the list is destroyed.
        let raw = unsafe { sys::rd_kafka_topic_partition_list_new(8) };
        let list = Self { raw };
        for (topic, partition, offset) in entries {
            let name = c_string(topic, attempted)?;
            // SAFETY: as above; librdkafka copies the name.
            unsafe {
                let element = sys::rd_kafka_topic_partition_list_add(list.raw, name.as_ptr(), partition);
                (*element).offset = offset;
            }
        }
        Ok(list)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &sys::rd_kafka_topic_partition_t> {
        // SAFETY: `elems` points to `cnt` elements that live as long as the list.
        unsafe {
            let list = &*self.raw;
            let count = usize::try_from(list.cnt).unwrap_or(0);
            (0..count).map(move |at| &*list.elems.add(at))
        }
    }
}

impl Drop for PartitionList {
    fn drop(&mut self) {
        // SAFETY: the list is ours and destroyed once.
        unsafe { sys::rd_kafka_topic_partition_list_destroy(self.raw) };
    }
}

pub(crate) fn c_string(text: &str, attempted: &dyn Fn() -> String) -> Result<CString, Error> {
    CString::new(text).map_err(|_| {
        let code = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__INVALID_ARG;
        Error::new(attempted(), code, "a name contains a NUL byte")
    })
}

pub(crate) fn millis(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}
