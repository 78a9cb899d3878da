//! A whole topology in memory, record by record: Kafka Streams' `TopologyTestDriver`.
//!
//! Owns one task per sub-topology and partition, and the repartition topics between them. Each record is processed to its
//! end, through all repartition topics, before the next one: what there is of it to see is the same in every run. There is
//! no broker, hence no transaction; each record is a commit.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use topology::Plan;
use topology::plan::{Sink, StoreSpec, TopicName};

use crate::{
    ChosenBy, InputRecord, MemoryStore, Outgoing, Output, OutputError, ProcessError, Processed, Task,
    partition,
};

/// A topology under test.
pub struct Driver {
    plan: Arc<Plan>,
    partitions: i32,
    /// By sub-topology and partition.
    tasks: Vec<Vec<Task<MemoryStore>>>,
    /// Offset of the last record of each topic and partition that is read.
    ends: BTreeMap<(TopicName, i32), i64>,
}

/// A record of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverRecord {
    /// The topic; names of internal ones are without the `application.id`.
    pub topic: TopicName,
    /// The partition.
    pub partition: i32,
    /// The key; `None` for null.
    pub key: Option<Vec<u8>>,
    /// The value; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// Names and values.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
}

/// A store, with its contents of all partitions.
pub struct DriverStore<'a> {
    /// What it is.
    pub spec: &'a StoreSpec,
    /// As stores hold them, in the order of keys.
    pub rows: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What came of an input record.
#[derive(Debug, Default)]
pub struct Driven {
    /// What the topology wrote to topics that are not its own, in order.
    pub outputs: Vec<DriverRecord>,
    /// What became of the record, of the windows that it closed, and of each that it was on repartition topics, in order.
    pub processed: Vec<Processed>,
}

impl Driver {
    /// A topology without state. Each topic has so many partitions, at least one.
    #[must_use]
    pub fn new(plan: Arc<Plan>, partitions: i32) -> Self {
        let partitions = partitions.max(1);
        Self {
            tasks: tasks(&plan, partitions),
            plan,
            partitions,
            ends: BTreeMap::new(),
        }
    }

    /// Replaces every task by a new one that has its stores and its stream time, as a crash does.
    pub fn restart(&mut self) {
        for (sub, tasks) in self.tasks.iter_mut().enumerate() {
            for (before, partition) in tasks.iter_mut().zip(0..) {
                let stores = before.stores().to_vec();
                let stream_time = before.committed_stream_time();
                *before = Task::new(Arc::clone(&self.plan), sub, partition, stores);
                before.restore_stream_time(stream_time);
            }
        }
    }

    /// Partition of a record with this key, as Kafka's default partitioner chooses it; null keys go to the first.
    #[must_use]
    pub fn partition(&self, key: Option<&[u8]>) -> i32 {
        partition::of_result(ChosenBy::Key(key), 0, self.partitions)
    }

    /// Whether topics have this partition.
    #[must_use]
    pub fn has_partition(&self, partition: i32) -> bool {
        (0..self.partitions).contains(&partition)
    }

    /// Processes one record of an input topic. One of a topic that no sub-topology reads is an output; one of a partition
    /// that is not there is passed over.
    ///
    /// # Errors
    /// What stops the task. What the record had done before, in other sub-topologies, stays done.
    pub fn pipe(&mut self, record: DriverRecord) -> Result<Driven, ProcessError> {
        let mut driven = Driven::default();
        let mut queue = VecDeque::from([record]);
        while let Some(record) = queue.pop_front() {
            let subs = self.plan.sub_topologies.iter().enumerate();
            let mut sources =
                subs.flat_map(|(at, sub)| (0..sub.sources.len()).map(move |source| (at, source)));
            let is_read = |&(sub, source): &(usize, usize)| {
                self.plan.sub_topologies[sub].sources[source].topic == record.topic
            };
            let Some((sub, source)) = sources.find(is_read) else {
                driven.outputs.push(record);
                continue;
            };
            let at = usize::try_from(record.partition).ok();
            let Some(task) = at.and_then(|at| self.tasks[sub].get_mut(at)) else {
                continue;
            };
            let end = self.ends.entry((record.topic.clone(), record.partition));
            let offset = *end.and_modify(|offset| *offset += 1).or_default();
            let name = record.topic.to_string();
            let headers = record.headers.iter();
            let headers: Vec<_> = headers
                .map(|(name, value)| (name.as_str(), value.as_deref()))
                .collect();
            let input = InputRecord {
                topic: &name,
                partition: record.partition,
                offset,
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &headers,
            };
            let mut sent = Sent {
                sinks: &self.plan.sub_topologies[sub].sinks,
                partitions: self.partitions,
                source_partition: record.partition,
                queue: &mut queue,
            };
            driven.processed.push(task.process(source, &input, &mut sent)?);
            task.commit_in_memory();
            while let Some(processed) = task.close_next(&mut sent)? {
                driven.processed.push(processed);
                task.commit_in_memory();
            }
        }
        Ok(driven)
    }

    /// A store by its declared name.
    #[must_use]
    pub fn store(&self, name: &str) -> Option<DriverStore<'_>> {
        self.plan
            .sub_topologies
            .iter()
            .zip(&self.tasks)
            .find_map(|(sub, tasks)| {
                let at = sub.stores.iter().position(|store| store.name == name)?;
                let rows = tasks.iter().filter_map(|task| task.stores().get(at));
                let rows = rows.flat_map(|store| store.values.clone());
                Some(DriverStore {
                    spec: &sub.stores[at],
                    rows: rows.collect(),
                })
            })
    }
}

/// By sub-topology and partition, without state.
pub(crate) fn tasks(plan: &Arc<Plan>, partitions: i32) -> Vec<Vec<Task<MemoryStore>>> {
    let subs = 0..plan.sub_topologies.len();
    let of_one = |sub| {
        let partitions = 0..partitions;
        partitions.map(move |partition| Task::in_memory(Arc::clone(plan), sub, partition))
    };
    subs.map(|sub| of_one(sub).collect()).collect()
}

/// Outputs go behind what is still to be processed.
struct Sent<'a> {
    sinks: &'a [Sink],
    partitions: i32,
    source_partition: i32,
    queue: &'a mut VecDeque<DriverRecord>,
}

impl Output for Sent<'_> {
    fn check(&self, record: &Outgoing<'_>) -> Result<(), OutputError> {
        match self.sinks.get(record.sink) {
            Some(_) => Ok(()),
            None => Err(OutputError::new(format!("sink {} does not exist", record.sink))),
        }
    }

    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), OutputError> {
        let Some(sink) = self.sinks.get(record.sink) else {
            return self.check(record);
        };
        let headers = record.headers.iter();
        self.queue.push_back(DriverRecord {
            topic: sink.topic.clone(),
            partition: partition::of_result(record.to, self.source_partition, self.partitions),
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: headers
                .map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec)))
                .collect(),
            timestamp: record.timestamp,
        });
        Ok(())
    }
}
