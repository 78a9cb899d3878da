//! A new control log in place of one that was lost. Positions and stores are as they were; only who owns what is unknown.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use kafka::{Admin, Capacity, Settings, TransactionalProducer};
use protocol::{ApplicationId, Ordinal, Record};

use crate::topics::create_control_log;
use crate::{Error, OperatorLog, REQUEST_TIMEOUT, Reader, TopicError};

/// Ids that are initialised side by side; each waits for its coordinator for about a second.
const AT_A_TIME: u32 = 32;

/// What is to be begun anew.
pub struct StartOver<'a> {
    /// The Kafka cluster.
    pub settings: &'a Settings,
    /// A client of it.
    pub admin: &'a Admin,
    /// `spec.applicationId`
    pub id: &'a ApplicationId,
    /// Replicas of the new log.
    pub replication_factor: i32,
    /// Workers that there may ever have been.
    pub ordinals: u32,
    /// Threads that each may ever have had.
    pub threads: u32,
}

impl StartOver<'_> {
    /// Deletes what is left of the log; then fences every producer that may have worked by it, so that none can commit any
    /// more, and none can come back, for there is no log to come back by; then makes the new log. Can be repeated.
    /// `progress` gets the number of producers fenced so far.
    ///
    /// # Errors
    /// Errors of Kafka; the application stands still then.
    pub fn run(&self, progress: &(dyn Fn(u32) + Sync)) -> Result<(), StartOverError> {
        let topic = self.id.control_topic();
        self.admin.delete_topic(&topic, REQUEST_TIMEOUT)?;
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        while self.admin.topic(&topic, REQUEST_TIMEOUT)?.is_some() && Instant::now() < deadline {}
        self.fence(progress)?;
        create_control_log(self.admin, self.id, self.replication_factor)?;
        let reader = Reader::open_made(self.settings, self.admin, self.id)?;
        let mut log = OperatorLog::open(self.settings, self.id, reader)?;
        let threads: BTreeMap<_, _> = (0..self.ordinals)
            .map(|ordinal| (Ordinal(ordinal), self.threads))
            .collect();
        log.write(|prev| Record::StartedOver { prev, threads })?;
        Ok(())
    }

    fn fence(&self, progress: &(dyn Fn(u32) + Sync)) -> Result<(), Error> {
        let all = self.ordinals * self.threads;
        let (next, done) = (AtomicU32::new(0), AtomicU32::new(0));
        let failed = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..AT_A_TIME.min(all) {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        if at >= all {
                            break;
                        }
                        let id = self
                            .id
                            .transactional_id(Ordinal(at / self.threads), at % self.threads);
                        match self.initialise(&id) {
                            Ok(()) => progress(done.fetch_add(1, Ordering::Relaxed) + 1),
                            Err(error) => {
                                next.store(all, Ordering::Relaxed);
                                let mut failed =
                                    failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                                failed.get_or_insert(error);
                            }
                        }
                    }
                });
            }
        });
        let failed = failed
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        failed.map_or(Ok(()), Err)
    }

    fn initialise(&self, id: &str) -> Result<(), Error> {
        let producer = TransactionalProducer::new(self.settings, id, REQUEST_TIMEOUT, Capacity::default())?;
        Ok(producer.init_transactions(REQUEST_TIMEOUT * 2)?)
    }
}

/// Why there is no new log.
#[derive(Debug, thiserror::Error)]
pub enum StartOverError {
    /// A producer could not be fenced, or the log not be written.
    #[error(transparent)]
    Control(#[from] Error),
    /// The topic could not be made.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// A Kafka call failed.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
}
