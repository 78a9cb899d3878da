//! How a process calls: every call may lose its request or its answer, and between any two calls somebody else may act.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use protocol::{Folded, Record as Control, World};

use super::app::{App, Topic};
use super::broker::{Broker, Isolation, Place, Record, Refusal};
use super::volume::Db;
use super::{Figures, Leaning, Mutant};
use crate::random::Random;

/// One request in so many loses its way, while there are faults.
const LOSS: usize = 60;
/// One call of a store in so many fails, in runs in which stores do.
const STORE_FAILURE: usize = 12;

/// What all processes of a run share.
pub(crate) struct Sim {
    pub(crate) app: Arc<App>,
    pub(crate) mutant: Mutant,
    pub(crate) broker: RefCell<Broker>,
    pub(crate) random: RefCell<Random>,
    pub(crate) figures: RefCell<Figures>,
    /// Whether there are faults.
    pub(crate) faults: Cell<bool>,
    pub(crate) leaning: Leaning,
    /// Whether control records that were answered may come again, late. Not in every run: late requests are delivered one
    /// at a time, and these would crowd the others out.
    pub(crate) repeats_control: bool,
    /// What a process has found that must never be.
    pub(crate) broken: RefCell<Option<String>>,
}

/// No answer came: what was asked may be done, not done, or be done later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoAnswer;

/// The producer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    Fenced,
    Doubt,
}

/// Lets the others act.
pub(crate) fn pause() -> impl Future<Output = ()> {
    struct Pause(bool);
    impl Future for Pause {
        type Output = ();
        fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            if std::mem::replace(&mut self.0, true) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }
    }
    Pause(false)
}

impl Sim {
    /// True once in `n` times.
    pub(crate) fn once_in(&self, n: usize) -> bool {
        self.random.borrow_mut().once_in(n)
    }

    pub(crate) fn count(&self, what: impl FnOnce(&mut Figures)) {
        what(&mut self.figures.borrow_mut());
    }

    /// Says that something is that must never be.
    pub(crate) fn break_promise(&self, what: String) {
        self.broken.borrow_mut().get_or_insert(what);
    }

    fn loses(&self) -> bool {
        let loses = self.faults.get() && self.once_in(LOSS);
        if loses {
            self.count(|figures| figures.lost_calls += 1);
        }
        loses
    }

    /// Whether a call of a store fails. Who called uses it no more; the next one finds everything, what was on disk, or damage.
    pub(crate) fn store_fails(&self, db: &Db) -> bool {
        let fails = self.leaning == Leaning::Stores && self.faults.get() && self.once_in(STORE_FAILURE);
        if fails {
            self.count(|figures| figures.store_failures += 1);
            db.borrow_mut().fail(self.random.borrow_mut().below(3));
        }
        fails
    }

    /// A call that is repeated until it is answered: reads, and writes that the client repeats without effect.
    pub(crate) async fn call<T>(&self, mut request: impl FnMut(&mut Broker) -> T) -> T {
        loop {
            pause().await;
            if !self.loses() {
                break;
            }
        }
        let answer = request(&mut self.broker.borrow_mut());
        pause().await;
        answer
    }

    /// A call that is made once.
    pub(crate) async fn call_once<T>(
        &self,
        mut request: impl FnMut(&mut Broker) -> T,
    ) -> Result<T, NoAnswer> {
        pause().await;
        if self.loses() {
            return Err(NoAnswer);
        }
        let answer = request(&mut self.broker.borrow_mut());
        pause().await;
        if self.loses() {
            return Err(NoAnswer);
        }
        Ok(answer)
    }
}

/// A transactional producer.
pub(crate) struct Producer {
    sim: Rc<Sim>,
    id: String,
    epoch: u64,
    unanswered: Cell<bool>,
    /// Something was asked of the broker since the last commit.
    has_begun: Cell<bool>,
}

impl Producer {
    /// `init_transactions`: waits until what the predecessor left is ended.
    pub(crate) async fn init(sim: &Rc<Sim>, id: String) -> Result<Self, NoAnswer> {
        loop {
            match sim.call_once(|broker| broker.init(&id)).await? {
                Ok(epoch) => {
                    return Ok(Self {
                        sim: Rc::clone(sim),
                        id,
                        epoch,
                        unanswered: Cell::new(false),
                        has_begun: Cell::new(false),
                    });
                }
                Err(_) => pause().await,
            }
        }
    }

    /// Whether a request of an earlier transaction may still arrive.
    pub(crate) fn in_doubt(&self) -> bool {
        self.unanswered.get() && self.sim.mutant != Mutant::KeepsProducerInDoubt
    }

    pub(crate) async fn send(&self, place: Place, records: &[Record]) -> Result<(), Lost> {
        self.has_begun.set(true);
        let produce = |broker: &mut Broker| broker.produce(&self.id, self.epoch, place, records);
        self.until_free(produce).await
    }

    pub(crate) async fn send_offsets(&self, offsets: &BTreeMap<Place, i64>) -> Result<(), Lost> {
        if offsets.is_empty() {
            return Ok(());
        }
        self.has_begun.set(true);
        if self.repeats() {
            let mut broker = self.sim.broker.borrow_mut();
            broker.late_offsets(&self.id, self.epoch, offsets);
        }
        self.until_free(|broker| broker.add_offsets(&self.id, self.epoch, offsets))
            .await
    }

    /// As librdkafka does it: a transaction for which the broker was asked nothing ends without it, also when the producer is
    /// fenced.
    pub(crate) async fn commit(&self) -> Result<(), Lost> {
        if !self.has_begun.take() {
            return Ok(());
        }
        if self.repeats() {
            self.sim.broker.borrow_mut().late_commit(&self.id, self.epoch);
        }
        let end = |broker: &mut Broker| broker.end_transaction(&self.id, self.epoch, true);
        pause().await;
        if self.sim.loses() {
            // Not done, done without an answer, or done some time.
            match self.sim.random.borrow_mut().below(3) {
                0 => {}
                1 => self.sim.broker.borrow_mut().late_commit(&self.id, self.epoch),
                _ => drop(end(&mut self.sim.broker.borrow_mut())),
            }
            return Err(Lost::Doubt);
        }
        self.until_free(end).await
    }

    pub(crate) async fn abort(&self) {
        let end = |broker: &mut Broker| broker.end_transaction(&self.id, self.epoch, false);
        let _ = self.sim.call_once(end).await;
    }

    /// The connection breaks: the client sends again, and the first request may still arrive.
    fn repeats(&self) -> bool {
        let repeats = self.sim.faults.get() && self.sim.once_in(LOSS / 4);
        if repeats {
            self.sim.count(|figures| figures.late_requests += 1);
            self.unanswered.set(true);
        }
        repeats
    }

    /// The client asks again while the end before is not complete, and repeats without effect what gets no answer.
    async fn until_free(
        &self,
        mut request: impl FnMut(&mut Broker) -> Result<(), Refusal>,
    ) -> Result<(), Lost> {
        loop {
            match self.sim.call(&mut request).await {
                Ok(()) => return Ok(()),
                Err(Refusal::Concurrent) => pause().await,
                Err(Refusal::Fenced) => {
                    self.sim.count(|figures| figures.fences += 1);
                    return Err(Lost::Fenced);
                }
                Err(Refusal::InvalidState) => return Err(Lost::Doubt),
            }
        }
    }
}

/// The control log, read in order.
pub(crate) struct ControlLog {
    sim: Rc<Sim>,
    pub(crate) world: World,
    /// Which log it is; `None`: there was none.
    pub(crate) which: Option<u32>,
    next: i64,
    /// Records that it had not read were replaced by a snapshot, or the log is gone: it must be opened again.
    pub(crate) is_behind: bool,
    records: u64,
    /// The last snapshot, and how many records were read before it.
    snapshot: Option<(i64, u64)>,
    /// The operator record that counts.
    head: Option<Record>,
}

/// Where the control log lies.
pub(crate) const CONTROL: Place = (Topic::Control, 0);

/// A control record as Kafka keeps it.
pub(crate) fn control(record: &Control) -> Record {
    Record {
        key: None,
        value: serde_json::to_vec(record).ok(),
        timestamp: 0,
    }
}

impl ControlLog {
    /// From the first record that is there.
    pub(crate) async fn open(sim: &Rc<Sim>) -> Self {
        let look = |broker: &mut Broker| (broker.control(), broker.watermarks(CONTROL).0);
        let (which, low) = sim.call(look).await;
        Self {
            sim: Rc::clone(sim),
            world: World::default(),
            which,
            next: low,
            is_behind: false,
            records: 0,
            snapshot: None,
            head: None,
        }
    }

    /// Offsets since the first record, or since the last snapshot.
    pub(crate) fn length(&self) -> i64 {
        self.next - self.snapshot.map_or(0, |(offset, _)| offset)
    }

    /// Records read.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Whether this is the operator record that counts.
    pub(crate) fn is_head(&self, record: &Record) -> bool {
        self.head.as_ref() == Some(record) || self.sim.mutant == Mutant::TakesOthersRecords
    }

    /// The snapshot, when it holds all of the first `records` records and nothing came in between.
    pub(crate) fn replaces(&self, records: u64) -> Option<i64> {
        let tolerant = self.sim.mutant == Mutant::ShortensWithoutLooking;
        self.snapshot
            .filter(|(_, before)| *before == records || tolerant)
            .map(|(offset, _)| offset)
    }

    /// Reads what is there; the offset up to which everything was read.
    pub(crate) async fn follow(&mut self) -> i64 {
        let from = self.next;
        let which = self.which;
        let fetch = |broker: &mut Broker| {
            let same = which.is_some() && which == broker.control();
            let there = same && from >= broker.watermarks(CONTROL).0;
            there.then(|| broker.fetch(CONTROL, from, 16, Isolation::Committed))
        };
        let Some(fetched) = self.sim.call(fetch).await else {
            self.is_behind = true;
            return from;
        };
        for (offset, record) in fetched.records {
            match serde_json::from_slice(record.value.as_deref().unwrap_or_default()) {
                Ok(decoded) => {
                    let folded = self.world.apply(offset, &decoded);
                    if folded == Folded::Stale {
                        self.sim.count(|figures| figures.stale_records += 1);
                    } else if matches!(decoded, Control::Snapshot { .. }) {
                        self.snapshot = Some((offset, self.records));
                    }
                    if self.world.operator_head == Some(offset) {
                        self.head = Some(record);
                    }
                    self.records += 1;
                }
                Err(error) => self
                    .sim
                    .break_promise(format!("control record {offset}: {error}")),
            }
        }
        self.next = fetched.next;
        self.next
    }

    /// Reads what there is now; `false` when it has to be opened again.
    pub(crate) async fn read_to_end(&mut self) -> bool {
        let (_, end) = self.sim.call(|broker| broker.watermarks(CONTROL)).await;
        while self.follow().await < end && !self.is_behind {}
        !self.is_behind
    }

    /// Reads through the record at `offset`.
    pub(crate) async fn read_through(&mut self, offset: i64) {
        while self.world.next_offset <= offset && !self.is_behind {
            self.follow().await;
        }
    }

    /// Appends a record of a worker. Without an answer it may lie in the log all the same; and the client may have asked
    /// again, so that it comes twice, the second time late.
    pub(crate) async fn append(&self, record: &Control) -> Result<i64, NoAnswer> {
        let record = control(record);
        let appended = self.sim.call_once(|broker| broker.append_control(record.clone()));
        let answer = appended.await;
        let again = match answer {
            Ok(_) => self.sim.repeats_control && self.sim.faults.get() && self.sim.once_in(10),
            Err(_) => self.sim.once_in(3),
        };
        if again {
            self.sim.broker.borrow_mut().late_control(record);
        }
        answer?.ok_or(NoAnswer)
    }
}
