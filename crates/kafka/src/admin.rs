//! Admin calls: topics, groups, cluster. Each waits for its answer.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::client::{Client, Kind};
use crate::consumer::{PartitionList, c_string, millis};
use crate::{Category, ConfigError, Error, Settings};

const NO_ERROR: sys::rd_kafka_resp_err_t = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

/// How long a request waits for its answer before a new client asks again.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Admin client. A request that has no answer is made again by a new client: librdkafka may keep asking a controller that is
/// gone, for as long as that is gone. All requests here can be repeated.
pub struct Admin {
    settings: Settings,
    client: Mutex<Arc<Client>>,
}

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Replicas of each partition.
    pub replication_factor: i32,
    /// Topic configuration.
    pub config: BTreeMap<String, String>,
}

/// A topic as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its id: another one under the same name means that it was re-created (KIP-516).
    pub id: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Replicas of the partition that has fewest.
    pub replicas: i32,
}

/// Whether a group has members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// No such group, or no members.
    Unused,
    /// It has live members.
    Live,
}

impl Admin {
    /// Makes a client; connects in the background.
    ///
    /// # Errors
    /// [`ConfigError`] when librdkafka refuses a property.
    pub fn new(settings: &Settings) -> Result<Self, ConfigError> {
        Ok(Self {
            settings: settings.clone(),
            client: Mutex::new(Arc::new(Client::new(Kind::Producer, settings, &[])?)),
        })
    }

    fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The error of a call by that client.
    fn failed(&self, client: &Client, error: Error, attempted: &dyn Fn() -> String) -> Error {
        let error = client.explain(error, attempted);
        if matches!(error.category(), Category::Timeout | Category::BrokerUnreachable)
            && let Ok(fresh) = Client::new(Kind::Producer, &self.settings, &[])
        {
            *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        }
        error
    }

    /// The cluster's id.
    ///
    /// # Errors
    /// Time-out: no broker answers.
    pub fn cluster_id(&self, timeout: Duration) -> Result<String, Error> {
        let client = self.client();
        // SAFETY: the handle is live; the string is ours and freed once.
        unsafe {
            let raw = sys::rd_kafka_clusterid(client.raw(), millis(timeout));
            if raw.is_null() {
                let code = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TIMED_OUT;
                let attempted = || "reach the cluster".to_owned();
                let error = Error::new(attempted(), code, "no broker answered");
                return Err(self.failed(&client, error, &attempted));
            }
            let id = CStr::from_ptr(raw).to_string_lossy().into_owned();
            sys::rd_kafka_mem_free(client.raw(), raw.cast());
            Ok(id)
        }
    }

    /// The topic, or `None` where it does not exist.
    ///
    /// # Errors
    /// Time-out, authorization.
    pub fn topic(&self, name: &str, timeout: Duration) -> Result<Option<Topic>, Error> {
        let attempted = || format!("describe topic {name}");
        let native = c_string(name, &attempted)?;
        let event = self.call(
            &attempted,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            timeout,
            // SAFETY: client, options and queue are live; the collection is destroyed after the call copied it.
            |client, options, queue| unsafe {
                let mut names: [*const c_char; 1] = [native.as_ptr()];
                let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1);
                sys::rd_kafka_DescribeTopics(client, topics, options, queue);
                sys::rd_kafka_TopicCollection_destroy(topics);
            },
        )?;
        // SAFETY: the event is a DescribeTopics result (checked by `call`) and lives until the end of this block.
        unsafe {
            let result = sys::rd_kafka_event_DescribeTopics_result(event.raw);
            let mut count = 0;
            let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            if count == 0 {
                return Ok(None);
            }
            let topic = *topics;
            let error = sys::rd_kafka_TopicDescription_error(topic);
            let code = if error.is_null() {
                NO_ERROR
            } else {
                sys::rd_kafka_error_code(error)
            };
            match Code::from(code) {
                Code::NoError => {}
                Code::UnknownTopic | Code::UnknownTopicOrPartition => return Ok(None),
                _ => return Err(Error::from_code(attempted(), code)),
            }
            let id = sys::rd_kafka_Uuid_base64str(sys::rd_kafka_TopicDescription_topic_id(topic));
            let mut partitions = 0;
            let described = sys::rd_kafka_TopicDescription_partitions(topic, &raw mut partitions);
            let replicas = (0..partitions).map(|at| {
                let mut replicas = 0;
                sys::rd_kafka_TopicPartitionInfo_replicas(*described.add(at), &raw mut replicas);
                i32::try_from(replicas).unwrap_or(i32::MAX)
            });
            Ok(Some(Topic {
                id: CStr::from_ptr(id).to_string_lossy().into_owned(),
                partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
                replicas: replicas.min().unwrap_or(0),
            }))
        }
    }

    /// Creates a topic; one that exists already is left as it is.
    ///
    /// # Errors
    /// Time-out, authorization, the broker's refusal.
    pub fn create_topic(&self, topic: &NewTopic, timeout: Duration) -> Result<(), Error> {
        let attempted = || format!("create topic {} with {} partitions", topic.name, topic.partitions);
        let native = c_string(&topic.name, &attempted)?;
        let config = topic
            .config
            .iter()
            .map(|(name, value)| Ok((c_string(name, &attempted)?, c_string(value, &attempted)?)))
            .collect::<Result<Vec<(CString, CString)>, Error>>()?;
        let mut message = [0 as c_char; 256];
        // SAFETY: name and buffer are live; the object is ours and destroyed after the call.
        let mut new = unsafe {
            sys::rd_kafka_NewTopic_new(
                native.as_ptr(),
                topic.partitions,
                topic.replication_factor,
                message.as_mut_ptr(),
                message.len(),
            )
        };
        if new.is_null() {
            // SAFETY: librdkafka NUL-terminates the message.
            return Err(unsafe { refused(&message, &attempted) });
        }
        for (name, value) in &config {
            // SAFETY: object and strings are live.
            unsafe { sys::rd_kafka_NewTopic_set_config(new, name.as_ptr(), value.as_ptr()) };
        }
        let event = self.call(
            &attempted,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATETOPICS,
            timeout,
            // SAFETY: all objects are live; the array has one element.
            |client, options, queue| unsafe {
                sys::rd_kafka_CreateTopics(client, &raw mut new, 1, options, queue);
            },
        );
        // SAFETY: the object is ours and destroyed once.
        unsafe { sys::rd_kafka_NewTopic_destroy(new) };
        let event = event?;
        // SAFETY: the event is a CreateTopics result and lives until the end of this block.
        unsafe {
            let result = sys::rd_kafka_event_CreateTopics_result(event.raw);
            let mut count = 0;
            let topics = sys::rd_kafka_CreateTopics_result_topics(result, &raw mut count);
            check_topic(topics, count, &[Code::TopicAlreadyExists], &attempted)
        }
    }

    /// Gives a topic more partitions: so many in all.
    ///
    /// # Errors
    /// Time-out, authorization, the broker's refusal.
    pub fn add_partitions(&self, name: &str, total: i32, timeout: Duration) -> Result<(), Error> {
        let attempted = || format!("give topic {name} {total} partitions");
        let native = c_string(name, &attempted)?;
        let total = usize::try_from(total).unwrap_or(0);
        let mut message = [0 as c_char; 256];
        // SAFETY: name and buffer are live; the object is ours and destroyed after the call.
        let mut new = unsafe {
            sys::rd_kafka_NewPartitions_new(native.as_ptr(), total, message.as_mut_ptr(), message.len())
        };
        if new.is_null() {
            // SAFETY: librdkafka NUL-terminates the message.
            return Err(unsafe { refused(&message, &attempted) });
        }
        let event = self.call(
            &attempted,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATEPARTITIONS,
            timeout,
            // SAFETY: all objects are live; the array has one element.
            |client, options, queue| unsafe {
                sys::rd_kafka_CreatePartitions(client, &raw mut new, 1, options, queue);
            },
        );
        // SAFETY: the object is ours and destroyed once.
        unsafe { sys::rd_kafka_NewPartitions_destroy(new) };
        let event = event?;
        // SAFETY: the event is a CreatePartitions result and lives until the end of this block.
        unsafe {
            let result = sys::rd_kafka_event_CreatePartitions_result(event.raw);
            let mut count = 0;
            let topics = sys::rd_kafka_CreatePartitions_result_topics(result, &raw mut count);
            check_topic(topics, count, &[], &attempted)
        }
    }

    /// Deletes a topic; one that does not exist is no error. Brokers forget it one after the other.
    ///
    /// # Errors
    /// Time-out, authorization.
    pub fn delete_topic(&self, name: &str, timeout: Duration) -> Result<(), Error> {
        let attempted = || format!("delete topic {name}");
        let native = c_string(name, &attempted)?;
        // SAFETY: the name is live; the object copies it and is destroyed after the call.
        let mut delete = unsafe { sys::rd_kafka_DeleteTopic_new(native.as_ptr()) };
        let event = self.call(
            &attempted,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DELETETOPICS,
            timeout,
            // SAFETY: all objects are live; the array has one element.
            |client, options, queue| unsafe {
                sys::rd_kafka_DeleteTopics(client, &raw mut delete, 1, options, queue);
            },
        );
        // SAFETY: the object is ours and destroyed once.
        unsafe { sys::rd_kafka_DeleteTopic_destroy(delete) };
        let event = event?;
        // SAFETY: the event is a DeleteTopics result and lives until the end of this block.
        unsafe {
            let result = sys::rd_kafka_event_DeleteTopics_result(event.raw);
            let mut count = 0;
            let topics = sys::rd_kafka_DeleteTopics_result_topics(result, &raw mut count);
            check_topic(topics, count, &[Code::UnknownTopicOrPartition], &attempted)
        }
    }

    /// Deletes the records of partitions below the offsets.
    ///
    /// # Errors
    /// Time-out, authorization, the first partition's refusal: the others may be done.
    pub fn delete_records(&self, before: &[(&str, i32, i64)], timeout: Duration) -> Result<(), Error> {
        let attempted = || "delete consumed records".to_owned();
        let list = PartitionList::new(before.iter().copied(), &attempted)?;
        // SAFETY: the list is live; the object copies it and is destroyed after the call.
        let mut delete = unsafe { sys::rd_kafka_DeleteRecords_new(list.raw) };
        let event = self.call(
            &attempted,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DELETERECORDS,
            timeout,
            // SAFETY: all objects are live; the array has one element.
            |client, options, queue| unsafe {
                sys::rd_kafka_DeleteRecords(client, &raw mut delete, 1, options, queue);
            },
        );
        // SAFETY: the object is ours and destroyed once.
        unsafe { sys::rd_kafka_DeleteRecords_destroy(delete) };
        let event = event?;
        // SAFETY: the event is a DeleteRecords result and lives until the end of this block, with its list.
        unsafe {
            let result = sys::rd_kafka_event_DeleteRecords_result(event.raw);
            let list = &*sys::rd_kafka_DeleteRecords_result_offsets(result);
            let mut places = (0..usize::try_from(list.cnt).unwrap_or(0)).map(|at| &*list.elems.add(at));
            let Some(refused) = places.find(|place| place.err != NO_ERROR) else {
                return Ok(());
            };
            let topic = CStr::from_ptr(refused.topic).to_string_lossy();
            let attempted = format!("delete consumed records of {topic}/{}", refused.partition);
            Err(Error::from_code(attempted, refused.err))
        }
    }

    /// Ends of partitions as their leaders tell them to readers of committed records: the last stable offsets. Partitions
    /// whose leaders do not answer are left out.
    ///
    /// # Errors
    /// Time-out, authorization.
    pub fn ends(&self, of: &[(&str, i32)], timeout: Duration) -> Result<Ends, Error> {
        use sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED as COMMITTED;
        let attempted = || format!("ask for the ends of {} partitions", of.len());
        let latest = sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST as i64;
        let list = PartitionList::new(of.iter().map(|&(topic, at)| (topic, at, latest)), &attempted)?;
        let event = self.call(
            &attempted,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS,
            timeout,
            // SAFETY: all objects are live and the options are ours to change; the call copies the list.
            |client, options, queue| unsafe {
                // It takes each of its constants.
                let refused = sys::rd_kafka_AdminOptions_set_isolation_level(options.cast_mut(), COMMITTED);
                debug_assert!(refused.is_null());
                sys::rd_kafka_ListOffsets(client, list.raw, options, queue);
            },
        )?;
        // SAFETY: the event is a ListOffsets result and lives until the end of this block, with what it has.
        unsafe {
            let result = sys::rd_kafka_event_ListOffsets_result(event.raw);
            let mut count = 0;
            let infos = sys::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
            let place = |at| &*sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos.add(at));
            Ok(told((0..count).map(place)))
        }
    }

    /// Whether the group has members, of either group protocol.
    ///
    /// # Errors
    /// Time-out, authorization.
    pub fn group_state(&self, group: &str, timeout: Duration) -> Result<GroupState, Error> {
        use sys::rd_kafka_consumer_group_state_t as State;
        let attempted = || format!("look at group {group}");
        let event = self.call(
            &attempted,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS,
            timeout,
            // SAFETY: all objects are live.
            |client, options, queue| unsafe { sys::rd_kafka_ListConsumerGroups(client, options, queue) },
        )?;
        // SAFETY: the event is a ListConsumerGroups result and lives until the end of this block.
        unsafe {
            let result = sys::rd_kafka_event_ListConsumerGroups_result(event.raw);
            let mut count = 0;
            // Each broker answers for its own groups: one that does not may be the one that knows.
            let errors = sys::rd_kafka_ListConsumerGroups_result_errors(result, &raw mut count);
            if count > 0 {
                let code = sys::rd_kafka_error_code(*errors);
                return Err(Error::from_code(attempted(), code));
            }
            let groups = sys::rd_kafka_ListConsumerGroups_result_valid(result, &raw mut count);
            for at in 0..count {
                let listing = *groups.add(at);
                let id = CStr::from_ptr(sys::rd_kafka_ConsumerGroupListing_group_id(listing));
                if id.to_bytes() == group.as_bytes() {
                    return Ok(match sys::rd_kafka_ConsumerGroupListing_state(listing) {
                        State::RD_KAFKA_CONSUMER_GROUP_STATE_EMPTY
                        | State::RD_KAFKA_CONSUMER_GROUP_STATE_DEAD => GroupState::Unused,
                        // States that librdkafka does not know belong to groups with members.
                        _ => GroupState::Live,
                    });
                }
            }
        }
        Ok(GroupState::Unused)
    }

    /// The configuration of a topic as it is in force, defaults included.
    ///
    /// # Errors
    /// Time-out, authorization, an unknown topic.
    pub fn topic_config(&self, name: &str, timeout: Duration) -> Result<BTreeMap<String, String>, Error> {
        let attempted = || format!("describe the configuration of topic {name}");
        self.config_of(&Resource::topic(name, &attempted)?, timeout, &attempted)
    }

    /// The configuration of a broker, defaults included.
    ///
    /// # Errors
    /// Time-out, authorization.
    pub fn broker_config(&self, timeout: Duration) -> Result<BTreeMap<String, String>, Error> {
        let attempted = || "describe the configuration of a broker".to_owned();
        let client = self.client();
        // SAFETY: the handle is live.
        let id = unsafe { sys::rd_kafka_controllerid(client.raw(), millis(timeout)) };
        if id < 0 {
            let code = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TIMED_OUT;
            return Err(self.failed(&client, Error::from_code(attempted(), code), &attempted));
        }
        self.config_of(&Resource::broker(id, &attempted)?, timeout, &attempted)
    }

    fn config_of(
        &self,
        resource: &Resource,
        timeout: Duration,
        attempted: &dyn Fn() -> String,
    ) -> Result<BTreeMap<String, String>, Error> {
        let event = self.call(
            attempted,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS,
            timeout,
            // SAFETY: all objects are live; the array has one element.
            |client, options, queue| unsafe {
                let mut resources = [resource.raw];
                sys::rd_kafka_DescribeConfigs(client, resources.as_mut_ptr(), 1, options, queue);
            },
        )?;
        // SAFETY: the event is a DescribeConfigs result and lives until the end of this block; names and values are
        // NUL-terminated and live as long.
        unsafe {
            let result = sys::rd_kafka_event_DescribeConfigs_result(event.raw);
            let mut count = 0;
            let resources = sys::rd_kafka_DescribeConfigs_result_resources(result, &raw mut count);
            check_resource(resources, count, attempted)?;
            let mut found = BTreeMap::new();
            if count > 0 {
                let mut entries = 0;
                let configs = sys::rd_kafka_ConfigResource_configs(*resources, &raw mut entries);
                for index in 0..entries {
                    let entry = *configs.add(index);
                    let value = sys::rd_kafka_ConfigEntry_value(entry);
                    if !value.is_null() {
                        let name = CStr::from_ptr(sys::rd_kafka_ConfigEntry_name(entry));
                        let (name, value) = (name.to_string_lossy(), CStr::from_ptr(value).to_string_lossy());
                        found.insert(name.into_owned(), value.into_owned());
                    }
                }
            }
            Ok(found)
        }
    }

    /// Sets properties of a topic; the others stay as they are.
    ///
    /// # Errors
    /// Time-out, authorization, the broker's refusal.
    pub fn set_topic_config(
        &self,
        name: &str,
        values: &[(&str, String)],
        timeout: Duration,
    ) -> Result<(), Error> {
        let attempted = || format!("set the configuration of topic {name}");
        let resource = Resource::topic(name, &attempted)?;
        for (property, value) in values {
            let (property, value) = (c_string(property, &attempted)?, c_string(value, &attempted)?);
            // SAFETY: resource and strings are live; a returned error is ours.
            unsafe {
                Error::check(
                    &attempted,
                    sys::rd_kafka_ConfigResource_add_incremental_config(
                        resource.raw,
                        property.as_ptr(),
                        sys::rd_kafka_AlterConfigOpType_t::RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET,
                        value.as_ptr(),
                    ),
                )?;
            }
        }
        let event = self.call(
            &attempted,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_INCREMENTALALTERCONFIGS,
            timeout,
            // SAFETY: all objects are live; the array has one element.
            |client, options, queue| unsafe {
                let mut resources = [resource.raw];
                sys::rd_kafka_IncrementalAlterConfigs(client, resources.as_mut_ptr(), 1, options, queue);
            },
        )?;
        // SAFETY: the event is an IncrementalAlterConfigs result and lives until the end of this block.
        unsafe {
            let result = sys::rd_kafka_event_IncrementalAlterConfigs_result(event.raw);
            let mut count = 0;
            let resources = sys::rd_kafka_IncrementalAlterConfigs_result_resources(result, &raw mut count);
            check_resource(resources, count, &attempted)
        }
    }

    fn call(
        &self,
        attempted: &dyn Fn() -> String,
        operation: sys::rd_kafka_admin_op_t,
        timeout: Duration,
        mut start: impl FnMut(
            *mut sys::rd_kafka_t,
            *const sys::rd_kafka_AdminOptions_t,
            *mut sys::rd_kafka_queue_t,
        ),
    ) -> Result<AdminEvent, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.attempt(attempted, operation, left.min(ATTEMPT), &mut start) {
                Err(error) if error.category() == Category::Timeout && left > ATTEMPT => {}
                answer => return answer,
            }
        }
    }

    fn attempt(
        &self,
        attempted: &dyn Fn() -> String,
        operation: sys::rd_kafka_admin_op_t,
        timeout: Duration,
        start: &mut dyn FnMut(
            *mut sys::rd_kafka_t,
            *const sys::rd_kafka_AdminOptions_t,
            *mut sys::rd_kafka_queue_t,
        ),
    ) -> Result<AdminEvent, Error> {
        let owned = self.client();
        let client = owned.raw();
        let mut message = [0 as c_char; 256];
        // SAFETY: options and queue are made here and destroyed once; the wait is longer than the request's own
        // time-out, so the event arrives before the queue goes (otherwise librdkafka drops it).
        let event = unsafe {
            let options = sys::rd_kafka_AdminOptions_new(client, operation);
            sys::rd_kafka_AdminOptions_set_request_timeout(
                options,
                millis(timeout),
                message.as_mut_ptr(),
                message.len(),
            );
            let queue = sys::rd_kafka_queue_new(client);
            start(client, options, queue);
            let event = sys::rd_kafka_queue_poll(queue, millis(timeout + Duration::from_secs(1)));
            sys::rd_kafka_queue_destroy(queue);
            sys::rd_kafka_AdminOptions_destroy(options);
            event
        };
        if event.is_null() {
            let code = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TIMED_OUT;
            return Err(self.failed(&owned, Error::from_code(attempted(), code), attempted));
        }
        let event = AdminEvent {
            raw: event,
            client: owned,
        };
        // SAFETY: the event is live.
        let (code, detail) = unsafe {
            (
                sys::rd_kafka_event_error(event.raw),
                sys::rd_kafka_event_error_string(event.raw),
            )
        };
        if code != NO_ERROR {
            // SAFETY: a non-null error string is NUL-terminated and lives as long as the event.
            let detail = (!detail.is_null()).then(|| unsafe { CStr::from_ptr(detail) }.to_string_lossy());
            let error = Error::new(attempted(), code, &detail.unwrap_or_default());
            return Err(self.failed(&event.client, error, attempted));
        }
        event.client.accepted();
        Ok(event)
    }
}

/// Ends of partitions, by topic and partition.
pub type Ends = BTreeMap<(String, i32), i64>;

/// The ends that leaders have told. A leader that does not answer leaves its partitions as librdkafka has filled them in: without
/// an error, and without an offset (2.12, `rd_kafka_ListOffsets_response_merge`).
fn told<'p>(places: impl Iterator<Item = &'p sys::rd_kafka_topic_partition_t>) -> Ends {
    let told = places.filter(|place| place.err == NO_ERROR && place.offset >= 0);
    told.map(|place| {
        // SAFETY: a list's element has a NUL-terminated topic that lives as long as the list.
        let topic = unsafe { CStr::from_ptr(place.topic) };
        (
            (topic.to_string_lossy().into_owned(), place.partition),
            place.offset,
        )
    })
    .collect()
}

/// Why librdkafka does not make an object.
///
/// # Safety
/// `message` holds a NUL-terminated text.
unsafe fn refused(message: &[c_char], attempted: &dyn Fn() -> String) -> Error {
    // SAFETY: by the caller's promise.
    let detail = unsafe { CStr::from_ptr(message.as_ptr()) }.to_string_lossy();
    let code = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__INVALID_ARG;
    Error::new(attempted(), code, &detail)
}

/// The error of the one topic of an answer, unless it is `harmless`.
///
/// # Safety
/// `topics` has `count` live elements.
unsafe fn check_topic(
    topics: *mut *const sys::rd_kafka_topic_result_t,
    count: usize,
    harmless: &[Code],
    attempted: &dyn Fn() -> String,
) -> Result<(), Error> {
    if count == 0 {
        return Ok(());
    }
    // SAFETY: by the caller's promise the first element is live; its error text lives as long.
    unsafe {
        let code = sys::rd_kafka_topic_result_error(*topics);
        if code == NO_ERROR || harmless.contains(&Code::from(code)) {
            return Ok(());
        }
        let detail = sys::rd_kafka_topic_result_error_string(*topics);
        if detail.is_null() {
            return Err(Error::from_code(attempted(), code));
        }
        let detail = CStr::from_ptr(detail).to_string_lossy();
        Err(Error::new(attempted(), code, &detail))
    }
}

/// The error of the one resource of an answer.
///
/// # Safety
/// `resources` has `count` live elements.
unsafe fn check_resource(
    resources: *mut *const sys::rd_kafka_ConfigResource_t,
    count: usize,
    attempted: &dyn Fn() -> String,
) -> Result<(), Error> {
    if count == 0 {
        return Ok(());
    }
    // SAFETY: by the caller's promise the first element is live; its error text lives as long.
    unsafe {
        let code = sys::rd_kafka_ConfigResource_error(*resources);
        if code == NO_ERROR {
            return Ok(());
        }
        let detail = sys::rd_kafka_ConfigResource_error_string(*resources);
        let detail = if detail.is_null() {
            String::new()
        } else {
            CStr::from_ptr(detail).to_string_lossy().into_owned()
        };
        Err(Error::new(attempted(), code, &detail))
    }
}

/// Owns the name of a topic or broker whose configuration is asked for or set.
struct Resource {
    raw: *mut sys::rd_kafka_ConfigResource_t,
}

impl Resource {
    fn topic(name: &str, attempted: &dyn Fn() -> String) -> Result<Self, Error> {
        Self::new(
            sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC,
            name,
            attempted,
        )
    }

    fn broker(id: i32, attempted: &dyn Fn() -> String) -> Result<Self, Error> {
        let broker = sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_BROKER;
        Self::new(broker, &id.to_string(), attempted)
    }

    fn new(
        kind: sys::rd_kafka_ResourceType_t,
        name: &str,
        attempted: &dyn Fn() -> String,
    ) -> Result<Self, Error> {
        let native = c_string(name, attempted)?;
        // SAFETY: the name is live during the call, which copies it.
        let raw = unsafe { sys::rd_kafka_ConfigResource_new(kind, native.as_ptr()) };
        Ok(Self { raw })
    }
}

impl Drop for Resource {
    fn drop(&mut self) {
        // SAFETY: the object is ours and destroyed once.
        unsafe { sys::rd_kafka_ConfigResource_destroy(self.raw) };
    }
}

/// Owns the answer to an admin call.
struct AdminEvent {
    raw: *mut sys::rd_kafka_event_t,
    /// It outlives the answer.
    client: Arc<Client>,
}

impl Drop for AdminEvent {
    fn drop(&mut self) {
        // SAFETY: the event is ours and destroyed once.
        unsafe { sys::rd_kafka_event_destroy(self.raw) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_does_not_answer_tells_no_end() {
        let unanswered = sys::RD_KAFKA_OFFSET_INVALID as i64;
        let places = [("t", 0, 5), ("t", 1, unanswered), ("u", 0, 0)];
        let list = PartitionList::new(places.into_iter(), &String::new).unwrap();
        let ends = [(("t".to_owned(), 0), 5), (("u".to_owned(), 0), 0)];
        assert_eq!(told(list.entries()), Ends::from(ends));
    }
}
