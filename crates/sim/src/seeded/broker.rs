//! A simulated broker: partitions, transactions, a coordinator, the offsets of one group.
//!
//! What it does as Kafka does (transactions of KIP-98 without KIP-890's epochs, since librdkafka speaks these):
//! - `InitProducerId` raises the epoch, ends what is open, and is answered only when that end is complete.
//! - `EndTxn` is answered when the decision is written; markers reach the partitions and the group's offsets one by one
//!   afterwards, in any order. Until they have, the next transaction has to wait.
//! - An `EndTxn` that is repeated after its transaction has ended alike is answered like the first one; one that arrives while the next
//!   transaction of the same epoch is open ends *that* one.
//! - Committed readers end at the last stable offset; a marker takes an offset, too.
//! - Compaction keeps the last committed record of each key; tombstones and markers go when they are old enough.

use std::collections::{BTreeMap, BTreeSet};

use super::app::Topic;

/// A partition of a topic.
pub(crate) type Place = (Topic, i32);
/// Number of a transaction.
pub(crate) type Txn = u64;

/// How long a transaction may be open, in ticks.
pub(crate) const TRANSACTION_TIMEOUT: i64 = 400;

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) timestamp: i64,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A later epoch exists.
    Fenced,
    /// The end of the transaction before is not complete: ask again.
    Concurrent,
    /// There is no transaction to end.
    InvalidState,
}

#[derive(Clone, Debug)]
struct Entry {
    offset: i64,
    txn: Option<Txn>,
    /// `None`: a marker.
    record: Option<Record>,
    /// When it was first compacted: tombstones and markers go a while after that (KIP-534).
    compacted: Option<i64>,
}

#[derive(Clone, Debug, Default)]
struct Partition {
    entries: Vec<Entry>,
    low: i64,
    end: i64,
    /// First offset of each open transaction.
    open: BTreeMap<Txn, i64>,
    aborted: BTreeSet<Txn>,
}

#[derive(Clone, Debug, Default)]
struct Producer {
    epoch: u64,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// No transaction is open; how the last one of this epoch ended.
    Idle(Option<bool>),
    Open {
        txn: Txn,
        since: i64,
        places: BTreeSet<Place>,
        offsets: BTreeMap<Place, i64>,
    },
    /// Decided; markers and offsets are on their way.
    Ending {
        txn: Txn,
        commit: bool,
        places: BTreeSet<Place>,
        offsets: BTreeMap<Place, i64>,
    },
}

impl Default for State {
    fn default() -> Self {
        Self::Idle(None)
    }
}

/// A request that a client has sent again, and whose first copy is still on its way.
#[derive(Clone, Debug)]
struct Late {
    id: String,
    epoch: u64,
    request: LateRequest,
}

#[derive(Clone, Debug)]
enum LateRequest {
    Commit,
    Control(Record),
    Offsets(BTreeMap<Place, i64>),
}

/// What a fetch gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) records: Vec<(i64, Record)>,
    /// Everything below was delivered.
    pub(crate) next: i64,
    /// Nothing more can be read now.
    pub(crate) at_end: bool,
}

/// Which records a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    Committed,
    Uncommitted,
}

/// The broker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Broker {
    pub(crate) now: i64,
    partitions: BTreeMap<Place, Partition>,
    producers: BTreeMap<String, Producer>,
    group: BTreeMap<Place, i64>,
    late: Vec<Late>,
    last_txn: Txn,
    /// Times that the control log was made again.
    controls: u32,
    is_control_gone: bool,
}

/// The control log, which can be lost.
const CONTROL: Place = (Topic::Control, 0);

impl Partition {
    fn last_stable(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.end)
    }

    fn append(&mut self, txn: Option<Txn>, record: Option<Record>) -> i64 {
        let offset = self.end;
        if let (Some(txn), Some(_)) = (txn, &record) {
            self.open.entry(txn).or_insert(offset);
        }
        self.entries.push(Entry {
            offset,
            txn,
            record,
            compacted: None,
        });
        self.end += 1;
        offset
    }

    fn end_transaction(&mut self, txn: Txn, commit: bool) {
        self.append(Some(txn), None);
        self.open.remove(&txn);
        if !commit {
            self.aborted.insert(txn);
        }
    }

    fn is_committed(&self, entry: &Entry) -> bool {
        entry.txn.is_none_or(|txn| !self.aborted.contains(&txn))
    }

    fn compact(&mut self, now: i64, retention: i64) {
        let stable = self.last_stable();
        let mut last: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
        for entry in self.entries.iter().filter(|entry| entry.offset < stable) {
            if let (Some(record), true) = (&entry.record, self.is_committed(entry)) {
                last.insert(record.key.clone().unwrap_or_default(), entry.offset);
            }
        }
        let entries = std::mem::take(&mut self.entries);
        self.entries = entries
            .into_iter()
            .filter_map(|mut entry| {
                if entry.offset >= stable {
                    return Some(entry);
                }
                let young = now - *entry.compacted.get_or_insert(now) < retention;
                let stays = match &entry.record {
                    None => young,
                    Some(record) => {
                        let key = record.key.as_deref().unwrap_or_default();
                        let is_last = last.get(key) == Some(&entry.offset);
                        is_last && (record.value.is_some() || young)
                    }
                };
                stays.then_some(entry)
            })
            .collect();
    }
}

impl Broker {
    fn partition(&mut self, place: Place) -> &mut Partition {
        self.partitions.entry(place).or_default()
    }

    /// Records from an offset on, at most `max`.
    pub(crate) fn fetch(&self, place: Place, from: i64, max: usize, isolation: Isolation) -> Fetched {
        let Some(partition) = self.partitions.get(&place) else {
            return Fetched {
                records: Vec::new(),
                next: from,
                at_end: true,
            };
        };
        let bound = match isolation {
            Isolation::Committed => partition.last_stable(),
            Isolation::Uncommitted => partition.end,
        };
        let mut records = Vec::new();
        let first = partition.entries.partition_point(|entry| entry.offset < from);
        for entry in &partition.entries[first..] {
            if entry.offset >= bound {
                break;
            }
            if records.len() == max {
                let next = entry.offset;
                return Fetched {
                    records,
                    next,
                    at_end: false,
                };
            }
            if let Some(record) = &entry.record
                && (isolation == Isolation::Uncommitted || partition.is_committed(entry))
            {
                records.push((entry.offset, record.clone()));
            }
        }
        Fetched {
            records,
            next: bound.max(from),
            at_end: true,
        }
    }

    /// First offset and high watermark.
    pub(crate) fn watermarks(&self, place: Place) -> (i64, i64) {
        let partition = self.partitions.get(&place);
        partition.map_or((0, 0), |partition| (partition.low, partition.end))
    }

    /// What committed readers can reach.
    pub(crate) fn last_stable(&self, place: Place) -> i64 {
        self.partitions.get(&place).map_or(0, Partition::last_stable)
    }

    /// Which control log there is, if there is one.
    pub(crate) fn control(&self) -> Option<u32> {
        (!self.is_control_gone).then_some(self.controls)
    }

    /// The control log is deleted, with what open transactions have written to it.
    pub(crate) fn lose_control(&mut self) {
        self.is_control_gone = true;
        self.partitions.remove(&CONTROL);
        let ids: Vec<_> = self.producers.keys().cloned().collect();
        for id in ids {
            if let Some(producer) = self.producers.get_mut(&id)
                && let State::Open { places, .. } | State::Ending { places, .. } = &mut producer.state
            {
                places.remove(&CONTROL);
            }
            self.complete(&id);
        }
    }

    /// There is a control log again, another one.
    pub(crate) fn make_control(&mut self) {
        if std::mem::take(&mut self.is_control_gone) {
            self.controls += 1;
        }
    }

    /// Writes to the control log outside a transaction; `None` when there is none.
    pub(crate) fn append_control(&mut self, record: Record) -> Option<i64> {
        self.control()?;
        Some(self.append(CONTROL, record))
    }

    /// Writes outside a transaction.
    pub(crate) fn append(&mut self, place: Place, record: Record) -> i64 {
        self.partition(place).append(None, Some(record))
    }

    /// `InitProducerId`.
    pub(crate) fn init(&mut self, id: &str) -> Result<u64, Refusal> {
        let producer = self.producers.entry(id.to_owned()).or_default();
        match &producer.state {
            State::Idle(_) => {
                producer.epoch += 1;
                producer.state = State::Idle(None);
                Ok(producer.epoch)
            }
            State::Open { .. } => {
                producer.epoch += 1;
                self.decide(id, false);
                Err(Refusal::Concurrent)
            }
            State::Ending { .. } => Err(Refusal::Concurrent),
        }
    }

    /// `AddPartitionsToTxn` and `Produce`.
    pub(crate) fn produce(
        &mut self,
        id: &str,
        epoch: u64,
        place: Place,
        records: &[Record],
    ) -> Result<(), Refusal> {
        if place == CONTROL && self.is_control_gone {
            return Err(Refusal::InvalidState);
        }
        let txn = self.open(id, epoch)?;
        if let Some(State::Open { places, .. }) = self.producers.get_mut(id).map(|p| &mut p.state) {
            places.insert(place);
        }
        let partition = self.partition(place);
        for record in records {
            partition.append(Some(txn), Some(record.clone()));
        }
        Ok(())
    }

    /// `AddOffsetsToTxn` and `TxnOffsetCommit`.
    pub(crate) fn add_offsets(
        &mut self,
        id: &str,
        epoch: u64,
        added: &BTreeMap<Place, i64>,
    ) -> Result<(), Refusal> {
        self.open(id, epoch)?;
        if let Some(State::Open { offsets, .. }) = self.producers.get_mut(id).map(|p| &mut p.state) {
            offsets.extend(added);
        }
        Ok(())
    }

    /// The open transaction of a producer, begun if there is none.
    fn open(&mut self, id: &str, epoch: u64) -> Result<Txn, Refusal> {
        let now = self.now;
        let producer = self.producers.get_mut(id).filter(|p| p.epoch == epoch);
        let producer = producer.ok_or(Refusal::Fenced)?;
        match &producer.state {
            State::Open { txn, .. } => Ok(*txn),
            State::Ending { .. } => Err(Refusal::Concurrent),
            State::Idle(_) => {
                self.last_txn += 1;
                producer.state = State::Open {
                    txn: self.last_txn,
                    since: now,
                    places: BTreeSet::new(),
                    offsets: BTreeMap::new(),
                };
                Ok(self.last_txn)
            }
        }
    }

    /// `EndTxn`.
    pub(crate) fn end_transaction(&mut self, id: &str, epoch: u64, commit: bool) -> Result<(), Refusal> {
        let producer = self.producers.get(id).filter(|p| p.epoch == epoch);
        match &producer.ok_or(Refusal::Fenced)?.state {
            State::Open { .. } => {
                self.decide(id, commit);
                Ok(())
            }
            State::Ending { commit: decided, .. } if *decided == commit => Err(Refusal::Concurrent),
            State::Idle(Some(ended)) if *ended == commit => Ok(()),
            State::Ending { .. } | State::Idle(_) => Err(Refusal::InvalidState),
        }
    }

    fn decide(&mut self, id: &str, commit: bool) {
        let Some(producer) = self.producers.get_mut(id) else {
            return;
        };
        if let State::Open {
            txn, places, offsets, ..
        } = std::mem::take(&mut producer.state)
        {
            producer.state = State::Ending {
                txn,
                commit,
                places,
                offsets,
            };
            self.complete(id);
        }
    }

    /// Producers whose transactions are decided and not complete.
    pub(crate) fn ending(&self) -> Vec<String> {
        let ending = |(id, producer): (&String, &Producer)| {
            matches!(producer.state, State::Ending { .. }).then(|| id.clone())
        };
        self.producers.iter().filter_map(ending).collect()
    }

    /// Writes the next marker of a decided transaction, or the group's offsets; `choose(n)` is below `n`.
    pub(crate) fn write_marker(&mut self, id: &str, choose: impl FnOnce(usize) -> usize) {
        let Some(State::Ending {
            txn,
            commit,
            places,
            offsets,
        }) = self.producers.get_mut(id).map(|p| &mut p.state)
        else {
            return;
        };
        let (txn, commit) = (*txn, *commit);
        let chosen = choose(places.len() + usize::from(!offsets.is_empty()));
        match places.iter().nth(chosen).copied() {
            Some(place) => {
                places.remove(&place);
                self.partition(place).end_transaction(txn, commit);
            }
            None => {
                let offsets = std::mem::take(offsets);
                if commit {
                    self.group.extend(offsets);
                }
            }
        }
        self.complete(id);
    }

    fn complete(&mut self, id: &str) {
        let Some(producer) = self.producers.get_mut(id) else {
            return;
        };
        if let State::Ending {
            commit,
            places,
            offsets,
            ..
        } = &producer.state
            && places.is_empty()
            && offsets.is_empty()
        {
            producer.state = State::Idle(Some(*commit));
        }
    }

    /// Aborts transactions that have been open for too long; their producers are fenced.
    pub(crate) fn time_out(&mut self) -> usize {
        let due = self.now - TRANSACTION_TIMEOUT;
        let old = |(id, producer): (&String, &Producer)| match producer.state {
            State::Open { since, .. } if since < due => Some(id.clone()),
            State::Open { .. } | State::Idle(_) | State::Ending { .. } => None,
        };
        let old: Vec<_> = self.producers.iter().filter_map(old).collect();
        for id in &old {
            if let Some(producer) = self.producers.get_mut(id) {
                producer.epoch += 1;
            }
            self.decide(id, false);
        }
        old.len()
    }

    /// `OffsetFetch` with `require_stable`: `None` while an open or undecided transaction holds one of them.
    pub(crate) fn group_offset(&self, place: Place) -> Option<Option<i64>> {
        let holds = |producer: &Producer| match &producer.state {
            State::Open { offsets, .. } | State::Ending { offsets, .. } => offsets.contains_key(&place),
            State::Idle(_) => false,
        };
        let unstable = self.producers.values().any(holds);
        (!unstable).then(|| self.group.get(&place).copied())
    }

    /// The group's offsets are lost.
    pub(crate) fn expire_group(&mut self) {
        self.group.clear();
    }

    /// Commits an offset of the group outside a transaction.
    pub(crate) fn commit_offset(&mut self, place: Place, offset: i64) {
        self.group.insert(place, offset);
    }

    /// The client sends its commit again: the first copy may still arrive.
    pub(crate) fn late_commit(&mut self, id: &str, epoch: u64) {
        self.late(id, epoch, LateRequest::Commit);
    }

    /// The client sends its offsets again: the first copy may still arrive.
    pub(crate) fn late_offsets(&mut self, id: &str, epoch: u64, offsets: &BTreeMap<Place, i64>) {
        self.late(id, epoch, LateRequest::Offsets(offsets.clone()));
    }

    /// The client sends a record of the control log again, or gives it up: the first copy may still arrive.
    pub(crate) fn late_control(&mut self, record: Record) {
        self.late("", 0, LateRequest::Control(record));
    }

    fn late(&mut self, id: &str, epoch: u64, request: LateRequest) {
        let id = id.to_owned();
        self.late.push(Late { id, epoch, request });
    }

    /// Requests on their way.
    pub(crate) fn late_requests(&self) -> usize {
        self.late.len()
    }

    /// One of them arrives; nobody hears the answer.
    pub(crate) fn deliver(&mut self, which: usize) {
        if which >= self.late.len() {
            return;
        }
        let Late { id, epoch, request } = self.late.swap_remove(which);
        let open = matches!(
            self.producers.get(&id).map(|p| &p.state),
            Some(State::Open { .. })
        );
        match request {
            LateRequest::Commit => {
                let _ = self.end_transaction(&id, epoch, true);
            }
            LateRequest::Control(record) => {
                let _ = self.append_control(record);
            }
            // The coordinator knows no transaction that these offsets belong to.
            LateRequest::Offsets(_) if !open => {}
            LateRequest::Offsets(offsets) => {
                let _ = self.add_offsets(&id, epoch, &offsets);
            }
        }
    }

    /// Compacts a partition; tombstones and markers that were first compacted `retention` ticks ago go.
    pub(crate) fn compact(&mut self, place: Place, retention: i64) {
        let now = self.now;
        self.partition(place).compact(now, retention);
    }

    /// `DeleteRecords`.
    pub(crate) fn delete_records(&mut self, place: Place, before: i64) {
        let partition = self.partition(place);
        partition.low = partition.low.max(before.min(partition.end));
        let low = partition.low;
        partition.entries.retain(|entry| entry.offset >= low);
    }
}

#[cfg(test)]
mod tests;
