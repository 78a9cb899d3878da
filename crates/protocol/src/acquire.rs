//! `acquire()`: the only way to a producer.
//!
//! A process that wants to write for an ordinal goes through these steps, in this order:
//!
//! ```text
//! Announce ── Incarnation appended ──▶ ReadIncarnation ── log read through it ──▶ Init
//!   Init ── init_transactions on every id of the ordinal ──▶ PlantBarrier ── Barrier appended ──▶ ReadBarrier
//!   ReadBarrier ── log read through it ──▶ Granted(token)
//! any read that shows a successor ──▶ Superseded
//! ```
//!
//! `Incarnation` comes before `init_transactions`, so whoever is fenced by it always finds its successor in the
//! log. The log is read through the barrier's *own offset*, never "to the end": a process whose successor
//! announced itself before the barrier sees it and leaves; one that announces itself later initialises the
//! ids later, too, and fences this process. Start, a lost producer and every doubt go through here.
//!
//! The machine is pure: [`Acquire::action`] says what to do, [`Acquire::done`] takes the outcome.

use crate::{Ordinal, Record, Superseded, Uid, World};

/// Who acquires.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The ordinal it speaks for.
    pub ordinal: Ordinal,
    /// The process.
    pub uid: Uid,
    /// Counts acquisitions of this process, from 1.
    pub nonce: u64,
    /// Its stream threads.
    pub threads: u32,
}

/// State of an acquisition; see the [module](self) for the transitions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Acquire {
    identity: Identity,
    step: Step,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    Announce,
    ReadIncarnation { incarnation: i64 },
    Init { incarnation: i64, ids: u32 },
    PlantBarrier { incarnation: i64 },
    ReadBarrier { incarnation: i64, barrier: i64 },
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Append this record to the control log, acknowledged by all replicas.
    Append(Record),
    /// Read the control log through this offset.
    ReadThrough(i64),
    /// `init_transactions` on the transactional ids of threads `0..n`.
    InitTransactions(u32),
}

/// The outcome of an action.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// The record lies at this offset.
    Appended(i64),
    /// The log was read through the wanted offset (or further).
    Read(&'a World),
    /// All ids are initialised.
    Initialised,
}

/// Where an acquisition stands after an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Go on with [`Acquire::action`].
    Next(Acquire),
    /// The process may begin transactions.
    Granted(Token),
    /// The process must exit for good.
    Superseded(Superseded),
}

/// Permission to begin transactions for an ordinal. Only a finished acquisition makes one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    identity: Identity,
    incarnation: i64,
    barrier: i64,
}

impl Token {
    /// Who holds it.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Offset of the barrier: the control log is known up to here.
    #[must_use]
    pub fn barrier(&self) -> i64 {
        self.barrier
    }

    /// Offset of the incarnation.
    #[must_use]
    pub fn incarnation(&self) -> i64 {
        self.incarnation
    }
}

/// The driver reported an outcome that does not answer the action asked for.
#[derive(Debug, thiserror::Error)]
#[error("acquire: outcome {outcome} does not answer {action:?}")]
pub struct OutOfStep {
    action: Action,
    outcome: String,
}

impl Acquire {
    /// Begins an acquisition.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            step: Step::Announce,
        }
    }

    /// What to do now.
    #[must_use]
    pub fn action(&self) -> Action {
        let Identity {
            ordinal,
            uid,
            nonce,
            threads,
        } = self.identity.clone();
        match self.step {
            Step::Announce => Action::Append(Record::Incarnation {
                ordinal,
                uid,
                nonce,
                threads,
            }),
            Step::ReadIncarnation { incarnation } => Action::ReadThrough(incarnation),
            Step::Init { ids, .. } => Action::InitTransactions(ids),
            Step::PlantBarrier { .. } => Action::Append(Record::Barrier { ordinal, uid, nonce }),
            Step::ReadBarrier { barrier, .. } => Action::ReadThrough(barrier),
        }
    }

    /// Takes the outcome of [`Self::action`].
    ///
    /// # Errors
    /// [`OutOfStep`] when the outcome belongs to another action, or the log was not read far enough.
    pub fn done(self, outcome: Outcome<'_>) -> Result<Progress, OutOfStep> {
        let identity = self.identity.clone();
        let next = |step| {
            Ok(Progress::Next(Self {
                identity: identity.clone(),
                step,
            }))
        };
        match (&self.step, outcome) {
            (Step::Announce, Outcome::Appended(incarnation)) => next(Step::ReadIncarnation { incarnation }),
            (&Step::ReadIncarnation { incarnation }, Outcome::Read(world))
                if world.next_offset > incarnation =>
            {
                match self.superseded(world) {
                    Some(by) => Ok(Progress::Superseded(by)),
                    None => next(Step::Init {
                        incarnation,
                        ids: world.threads(identity.ordinal),
                    }),
                }
            }
            (&Step::Init { incarnation, .. }, Outcome::Initialised) => {
                next(Step::PlantBarrier { incarnation })
            }
            (&Step::PlantBarrier { incarnation }, Outcome::Appended(barrier)) => {
                next(Step::ReadBarrier { incarnation, barrier })
            }
            (&Step::ReadBarrier { incarnation, barrier }, Outcome::Read(world))
                if world.next_offset > barrier =>
            {
                match self.superseded(world) {
                    Some(by) => Ok(Progress::Superseded(by)),
                    None => Ok(Progress::Granted(Token {
                        identity,
                        incarnation,
                        barrier,
                    })),
                }
            }
            (_, outcome) => Err(OutOfStep {
                action: self.action(),
                outcome: format!("{outcome:?}").chars().take(80).collect(),
            }),
        }
    }

    fn superseded(&self, world: &World) -> Option<Superseded> {
        world.superseded(self.identity.ordinal, &self.identity.uid, self.identity.nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs an acquisition against a log, with `interfere` called before each action.
    fn run(
        identity: Identity,
        log: &mut Vec<Record>,
        mut interfere: impl FnMut(&Action, &mut Vec<Record>),
    ) -> (Progress, Vec<u32>) {
        let mut acquire = Acquire::new(identity);
        let mut inits = Vec::new();
        loop {
            let action = acquire.action();
            interfere(&action, log);
            let mut world = World::default();
            let outcome = match action {
                Action::Append(record) => {
                    log.push(record);
                    Outcome::Appended(log.len() as i64 - 1)
                }
                Action::ReadThrough(offset) => {
                    for (at, record) in (0..=offset).zip(log.iter()) {
                        world.apply(at, record);
                    }
                    Outcome::Read(&world)
                }
                Action::InitTransactions(ids) => {
                    inits.push(ids);
                    Outcome::Initialised
                }
            };
            match acquire.done(outcome).unwrap() {
                Progress::Next(next) => acquire = next,
                end @ (Progress::Granted(_) | Progress::Superseded(_)) => return (end, inits),
            }
        }
    }

    fn identity(uid: &str, threads: u32) -> Identity {
        Identity {
            ordinal: Ordinal(0),
            uid: Uid(uid.into()),
            nonce: 1,
            threads,
        }
    }

    fn announces(uid: &str, threads: u32) -> Record {
        Record::Incarnation {
            ordinal: Ordinal(0),
            uid: Uid(uid.into()),
            nonce: 1,
            threads,
        }
    }

    #[test]
    fn an_undisturbed_acquisition_is_granted_after_its_barrier() {
        let mut log = Vec::new();
        let (end, inits) = run(identity("p", 2), &mut log, |_, _| {});
        assert!(matches!(end, Progress::Granted(token) if token.barrier() == 1 && token.incarnation() == 0));
        assert_eq!(inits, [2]);
    }

    #[test]
    fn all_ids_that_the_ordinal_ever_had_are_initialised() {
        let mut log = vec![announces("old", 5)];
        let (_, inits) = run(identity("p", 2), &mut log, |_, _| {});
        assert_eq!(inits, [5]);
    }

    #[test]
    fn a_successor_that_appears_before_the_barrier_ends_the_acquisition() {
        let mut log = Vec::new();
        let (end, _) = run(identity("p", 2), &mut log, |action, log| {
            if matches!(action, Action::InitTransactions(_)) {
                log.push(announces("q", 2));
            }
        });
        assert_eq!(end, Progress::Superseded(Superseded::By(Uid("q".into()))));
    }

    #[test]
    fn an_outcome_out_of_step_is_refused() {
        assert!(Acquire::new(identity("p", 1)).done(Outcome::Initialised).is_err());
    }
}
