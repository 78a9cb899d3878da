//! The simulated broker: a control log, producers with epochs, transactions, delayed requests.
//!
//! It behaves as a Kafka broker towards a client without KIP-890: all transactions of a producer session share one
//! epoch, so an `EndTxn` that was delayed in the network ends whatever transaction of that epoch is open when it
//! arrives.

use std::collections::BTreeMap;

use protocol::Record;

/// An output: the input's offset and its key's running sum after it.
pub type Output = (i64, i64);

/// What a transaction holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Outputs so far.
    pub outputs: Vec<Output>,
    /// Changelog records: key and sum.
    pub changelog: Vec<(i64, i64)>,
    /// The positions record: next input offset.
    pub position: Option<i64>,
}

/// Why the broker refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The epoch is not the latest.
    Fenced,
    /// No transaction is open.
    InvalidState,
}

/// The broker.
#[derive(Clone, Debug, Default)]
pub struct Broker {
    /// The control log; offsets are indices.
    pub control: Vec<Record>,
    /// Committed outputs in order.
    pub outputs: Vec<Output>,
    /// Committed changelog records in order: key and sum.
    pub changelog: Vec<(i64, i64)>,
    /// Committed position.
    pub position: i64,
    epochs: BTreeMap<u32, u64>,
    open: BTreeMap<u32, Transaction>,
    /// Commit requests still under way: producer and epoch.
    delayed: Vec<(u32, u64)>,
    /// `init_transactions` that fenced a live session.
    pub fences: u64,
}

impl Broker {
    /// Appends to the control log; returns the offset.
    pub fn append(&mut self, record: Record) -> i64 {
        self.control.push(record);
        i64::try_from(self.control.len()).unwrap_or(i64::MAX) - 1
    }

    /// `InitProducerId`: aborts what is open, returns the new epoch.
    pub fn init(&mut self, producer: u32) -> u64 {
        self.open.remove(&producer);
        let epoch = self.epochs.entry(producer).or_default();
        if *epoch > 0 {
            self.fences += 1;
        }
        *epoch += 1;
        *epoch
    }

    fn session(&mut self, producer: u32, epoch: u64) -> Result<(), Refusal> {
        if self.epochs.get(&producer) == Some(&epoch) {
            Ok(())
        } else {
            Err(Refusal::Fenced)
        }
    }

    /// Adds to the open transaction (opening it if need be).
    ///
    /// # Errors
    /// [`Refusal::Fenced`] for an older epoch.
    pub fn write(
        &mut self,
        producer: u32,
        epoch: u64,
        add: impl FnOnce(&mut Transaction),
    ) -> Result<(), Refusal> {
        self.session(producer, epoch)?;
        add(self.open.entry(producer).or_default());
        Ok(())
    }

    /// `EndTxn(commit)`.
    ///
    /// # Errors
    /// [`Refusal`] when there is nothing to commit or the epoch is old.
    pub fn commit(&mut self, producer: u32, epoch: u64) -> Result<(), Refusal> {
        self.session(producer, epoch)?;
        let transaction = self.open.remove(&producer).ok_or(Refusal::InvalidState)?;
        self.outputs.extend(transaction.outputs);
        self.changelog.extend(transaction.changelog);
        self.position = transaction.position.unwrap_or(self.position);
        Ok(())
    }

    /// A commit request that stays in the network, to arrive at any later time.
    pub fn delay_commit(&mut self, producer: u32, epoch: u64) {
        self.delayed.push((producer, epoch));
    }

    /// Delivers one delayed request; its answer goes nowhere.
    pub fn deliver_delayed(&mut self, which: usize) {
        if which < self.delayed.len() {
            let (producer, epoch) = self.delayed.remove(which);
            let _ = self.commit(producer, epoch);
        }
    }

    /// Number of delayed requests.
    #[must_use]
    pub fn delayed(&self) -> usize {
        self.delayed.len()
    }

    /// The transaction time-out: aborts and fences the producer.
    pub fn time_out(&mut self, producer: u32) {
        if self.open.remove(&producer).is_some() {
            *self.epochs.entry(producer).or_default() += 1;
        }
    }
}
