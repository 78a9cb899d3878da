//! `acquire()`: the only way to a producer (⚑). What works with one takes a [`Producer`], and only here is one made: together with
//! the token, behind the worker's own barrier in the control log. `scripts/borders` watches that nobody else initialises an id.

use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kafka::{Capacity, TransactionalProducer};
use protocol::Phase;
use protocol::Superseded;
use protocol::acquire::{Acquire, Action, Identity, Outcome, Progress, Token};

use crate::control::{ControlLog, REQUEST_TIMEOUT};
use crate::preparation::panicked;
use crate::session::Worker;
use crate::session_end::SessionEnd;
use crate::shared::add;

/// A producer of a thread of this worker's ordinal.
pub(crate) struct Producer(TransactionalProducer);

impl Producer {
    /// Ends the transaction without effect.
    pub(crate) fn abort_and_close(self) {
        self.0.abort_and_close();
    }
}

impl Deref for Producer {
    type Target = TransactionalProducer;

    fn deref(&self) -> &TransactionalProducer {
        &self.0
    }
}

/// What this process may do from now on.
pub(crate) struct Granted {
    /// It speaks for its ordinal.
    pub(crate) token: Token,
    /// One for each thread.
    pub(crate) producers: Vec<Producer>,
}

impl Worker {
    /// Goes through [`protocol::acquire`].
    pub(crate) fn acquire(
        &self,
        control: &mut ControlLog,
        capacity: Capacity,
    ) -> Result<Result<Granted, Superseded>, SessionEnd> {
        self.shared.enter(Phase::Acquiring);
        let nonce = self.shared.nonce.fetch_add(1, Ordering::AcqRel) + 1;
        if nonce > 1 {
            add(&self.shared.counters.producer_rebuilds, 1);
        }
        let (ordinal, threads) = (self.ordinal, self.config.threads);
        let mut acquire = Acquire::new(Identity {
            ordinal,
            uid: self.shared.uid.clone(),
            nonce,
            threads,
        });
        let mut producers = Vec::new();
        let began = Instant::now();
        loop {
            tracing::debug!(action = ?acquire.action(), after = ?began.elapsed(), "acquire");
            let outcome = match acquire.action() {
                Action::Append(record) => Outcome::Appended(control.append(&record)?),
                Action::ReadThrough(offset) => Outcome::Read(control.read_through(offset)?),
                Action::InitTransactions(ids) => {
                    producers = self.init_transactions(ids, capacity)?;
                    Outcome::Initialised
                }
            };
            let failed = |error: protocol::acquire::OutOfStep| SessionEnd::Failed {
                reason: "Acquire",
                message: error.to_string(),
            };
            match acquire.done(outcome).map_err(failed)? {
                Progress::Next(next) => acquire = next,
                Progress::Granted(token) => {
                    // Ids of threads that this process does not have were only fenced.
                    producers.truncate(usize::try_from(threads).unwrap_or(usize::MAX));
                    let producers = producers.into_iter().map(Producer).collect();
                    return Ok(Ok(Granted { token, producers }));
                }
                Progress::Superseded(by) => return Ok(Err(by)),
            }
        }
    }

    /// Producers of threads `0..ids`, initialised side by side: each may wait for its predecessor's open
    /// transaction to end.
    fn init_transactions(
        &self,
        ids: u32,
        capacity: Capacity,
    ) -> Result<Vec<TransactionalProducer>, SessionEnd> {
        let timeout = Duration::from_millis(self.config.transaction_timeout_ms);
        let init = |thread: u32| -> Result<TransactionalProducer, SessionEnd> {
            let id = self.config.application_id.transactional_id(self.ordinal, thread);
            TransactionalProducer::initialised(
                &self.settings,
                &id,
                timeout,
                capacity,
                REQUEST_TIMEOUT + timeout,
            )
        };
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..ids).map(|thread| scope.spawn(move || init(thread))).collect();
            running
                .into_iter()
                .map(|handle| handle.join().unwrap_or_else(|_| Err(panicked())))
                .collect()
        })
    }
}
