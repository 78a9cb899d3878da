//! A new control log in place of one that was lost. Positions and stores are as they were; only who owns what is unknown.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use kafka::{Admin, Settings};
use protocol::{ApplicationId, Ordinal, Record};

use crate::topics::create_control_log;
use crate::{Error, OperatorLog, REQUEST_TIMEOUT, Reader, SettleError, initialised};

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
    pub fn run(&self, progress: &(dyn Fn(u32) + Sync)) -> Result<(), SettleError> {
        let topic = self.id.control_topic();
        self.delete(&topic)?;
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

    /// Whoever is fenced could come back by a log that is still there.
    fn delete(&self, topic: &str) -> Result<(), Error> {
        self.admin.delete_topic(topic, REQUEST_TIMEOUT)?;
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        while self.admin.topic(topic, REQUEST_TIMEOUT)?.is_some() {
            if Instant::now() > deadline {
                return Err(Error::Lost {
                    topic: topic.to_owned(),
                    why: "it was deleted and is still there, try again".to_owned(),
                });
            }
        }
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
                        match initialised(self.settings, &id) {
                            Ok(_) => progress(done.fetch_add(1, Ordering::Relaxed) + 1),
                            Err(error) => {
                                next.store(all, Ordering::Relaxed);
                                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                                failed.get_or_insert(error);
                            }
                        }
                    }
                });
            }
        });
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.map_or(Ok(()), Err)
    }
}
