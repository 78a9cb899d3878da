//! A store that reads its changelogs: up to a target when it is restored, for as long as it is wanted when it is a copy.

use kafka::{Consumer, Ends, Event, PartitionQueue, Start, Wakeup};

use protocol::{ChangelogPosition, StorePositions};

use crate::restore::RestoreError;
use crate::store::{FlushWait, TaskDb};

/// Records applied to the store at once.
const BATCH: usize = 10_000;

/// A changelog to read.
pub(crate) struct Tail {
    /// Place of its store in the sub-topology.
    pub(crate) store: usize,
    /// Name of its store.
    pub(crate) name: String,
    /// The topic's id (KIP-516).
    pub(crate) topic_id: String,
    /// Where the store stands.
    pub(crate) at: Start,
    /// High watermark when the store was opened.
    pub(crate) target: i64,
}

impl Tail {
    pub(crate) fn is_behind(&self) -> bool {
        self.at.offset < self.target
    }

    /// Whether it has read up to the end that was told; an end further on is the next target.
    fn has_read_to(&mut self, ends: &Ends) -> bool {
        let place = (self.at.topic.clone(), self.at.partition);
        let Some(&end) = ends.get(&place) else {
            return false;
        };
        self.target = self.target.max(end);
        self.at.offset >= end
    }

    /// Writes where the store stands into the positions that lie with the data.
    pub(crate) fn note(&self, positions: &mut StorePositions) {
        let position = ChangelogPosition {
            topic_id: self.topic_id.clone(),
            offset: self.at.offset,
        };
        positions.changelogs.insert(self.name.clone(), position);
    }
}

/// A store and the changelogs that it reads.
pub(crate) struct Follower {
    db: TaskDb,
    reads: Vec<Read>,
    events: Vec<Event>,
}

struct Read {
    tail: Tail,
    queue: PartitionQueue,
    /// Where the partition ended, if that was the last event.
    end: Option<i64>,
}

/// Whether a changelog is read up to its target. An end fires at the last stable offset: one before the target says that a
/// transaction is open there, and that records behind it are still to come.
fn is_complete(end: Option<i64>, target: i64) -> bool {
    end.is_some_and(|end| end >= target)
}

/// What one step has read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Step {
    pub(crate) events: usize,
    pub(crate) records: u64,
    /// Of keys and values.
    pub(crate) bytes: u64,
}

impl Follower {
    /// Begins to read. `consumer` reads committed records; `wakeup` is woken when there are some, and lives longer.
    pub(crate) fn new(
        db: TaskDb,
        tails: Vec<Tail>,
        consumer: &Consumer,
        wakeup: &Wakeup,
    ) -> Result<Self, RestoreError> {
        let mut follower = Self {
            db,
            reads: Vec::with_capacity(tails.len()),
            events: Vec::with_capacity(BATCH),
        };
        for tail in tails {
            let queue = consumer.partition_queue(&tail.at.topic, tail.at.partition)?;
            queue.wake(wakeup);
            consumer.add(&tail.at)?;
            follower.reads.push(Read {
                tail,
                queue,
                end: None,
            });
        }
        Ok(follower)
    }

    /// Applies what has arrived.
    ///
    /// # Errors
    /// Also when it has stood still so long that tombstones may be gone: the store is begun again, then.
    pub(crate) fn step(&mut self) -> Result<Step, RestoreError> {
        let mut step = Step::default();
        for at in 0..self.reads.len() {
            self.events.clear();
            let taken = self.reads[at].queue.take(BATCH, &mut self.events)?;
            // Only now: it may have stood still before it took them.
            self.db.positions().check_age(kafka::now_ms())?;
            if taken > 0 {
                step.events += taken;
                self.apply(at, &mut step)?;
            }
        }
        Ok(step)
    }

    fn apply(&mut self, at: usize, step: &mut Step) -> Result<(), RestoreError> {
        let Read { tail, end, .. } = &mut self.reads[at];
        let mut records = Vec::with_capacity(self.events.len());
        for event in &self.events {
            match event {
                Event::Record(message) => {
                    tail.at.offset = message.offset() + 1;
                    *end = None;
                    records.push((message.key().unwrap_or_default(), message.value()));
                }
                Event::EndOfPartition { offset, .. } => {
                    tail.at.offset = *offset;
                    *end = Some(*offset);
                }
            }
        }
        step.records += u64::try_from(records.len()).unwrap_or(u64::MAX);
        let bytes = |(key, value): &(&[u8], Option<&[u8]>)| key.len() + value.map_or(0, <[u8]>::len);
        step.bytes += u64::try_from(records.iter().map(bytes).sum::<usize>()).unwrap_or(u64::MAX);
        let mut positions = self.db.positions();
        // The data is between two transactions: no task positions belong to it.
        positions.task = None;
        tail.note(&mut positions);
        let store = tail.store;
        let changes = records.into_iter().map(|(key, value)| (store, key, value));
        Ok(self.db.apply(changes, positions)?)
    }

    /// A changelog that was not read to its target.
    pub(crate) fn behind(&self) -> Option<&Tail> {
        let mut reads = self.reads.iter();
        let unread = |read: &&Read| !is_complete(read.end, read.tail.target);
        reads.find(unread).map(|read| &read.tail)
    }

    /// Offsets up to the targets.
    pub(crate) fn remaining(&self) -> i64 {
        let tails = self.reads.iter().map(|read| &read.tail);
        tails.map(|tail| (tail.target - tail.at.offset).max(0)).sum()
    }

    /// The partitions that it reads.
    pub(crate) fn places(&self) -> impl Iterator<Item = (&str, i32)> {
        let starts = self.reads.iter().map(|read| &read.tail.at);
        starts.map(|at| (at.topic.as_str(), at.partition))
    }

    /// Offsets up to the ends that the last fetches told, or to the targets when these are later.
    pub(crate) fn lag(&self, consumer: &Consumer) -> i64 {
        let lag = |read: &Read| {
            let Start {
                topic,
                partition,
                offset,
            } = &read.tail.at;
            let end = std::ffi::CString::new(topic.as_str())
                .ok()
                .and_then(|topic| consumer.known_end(&topic, *partition));
            (end.unwrap_or(0).max(read.tail.target) - offset).max(0)
        };
        self.reads.iter().map(lag).sum()
    }

    /// Writes to disk what was read. A store that has read up to the ends that the broker told after `asked_ms` has seen every
    /// tombstone up to then. What the last fetches told does not say that: they may be old.
    pub(crate) fn flush(&mut self, asked_ms: i64, ends: &Ends, wait: FlushWait) -> Result<(), RestoreError> {
        self.db.positions().check_age(asked_ms)?;
        let mut lacks_nothing = true;
        for Read { tail, .. } in &mut self.reads {
            lacks_nothing &= tail.has_read_to(ends);
        }
        if lacks_nothing {
            let mut positions = self.db.positions();
            positions.as_of_ms = asked_ms;
            self.db.apply([], positions)?;
        }
        Ok(self.db.flush(wait)?)
    }

    /// Stops reading; the store stays open.
    pub(crate) fn close(self, consumer: &Consumer) -> Result<TaskDb, RestoreError> {
        for Read { tail, queue, .. } in self.reads {
            drop(queue);
            consumer.remove(&tail.at.topic, tail.at.partition)?;
        }
        Ok(self.db)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_before_the_target_is_not_the_end() {
        assert!(!is_complete(Some(4), 5));
        assert!(is_complete(Some(5), 5) && is_complete(Some(6), 5));
    }

    #[test]
    fn what_was_read_is_complete_only_when_an_end_came_last() {
        assert!(!is_complete(None, 0));
    }

    #[test]
    fn a_copy_has_seen_all_only_up_to_an_end_that_was_told() {
        let mut tail = Tail {
            store: 0,
            name: "counts".to_owned(),
            topic_id: "a".to_owned(),
            at: Start {
                topic: "counts-changelog".to_owned(),
                partition: 1,
                offset: 5,
            },
            target: 5,
        };
        let told = |end| Ends::from([(("counts-changelog".to_owned(), 1), end)]);
        assert!(!tail.has_read_to(&Ends::new()));
        assert!(tail.has_read_to(&told(5)) && !tail.is_behind());
        assert!(!tail.has_read_to(&told(9)) && tail.is_behind());
    }
}
