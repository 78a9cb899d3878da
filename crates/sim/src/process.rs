//! A simulated worker process: the real acquisition, then transactions over inputs `0, 1, 2, …` into running sums by
//! key, in a store that is written after the commit, flushed now and then, and brought up to date from its changelog.

use std::collections::BTreeMap;

use protocol::acquire::{Acquire, Action, Identity, Outcome, Progress};
use protocol::{Ordinal, Uid, World};

use crate::broker::{Broker, Refusal};
use crate::random::Random;

/// A deliberate mistake; the simulation must catch each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mutant {
    /// None: the protocol as it is.
    #[default]
    Faithful,
    /// Positions are read before the producer is initialised.
    ReadsPositionsBeforeInit,
    /// A commit without an answer is taken for an abort, and the producer is kept.
    TakesTimeoutForAbort,
    /// The producer is kept although a request may still be under way.
    KeepsProducerInDoubt,
    /// The store is written before Kafka has committed.
    AppliesBeforeCommit,
    /// A successor is ignored.
    NeverExits,
}

/// A store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Sums by key.
    pub sums: BTreeMap<i64, i64>,
    /// Everything below this offset of the changelog is in the store.
    pub changelog: usize,
}

/// Keys of the inputs.
const KEYS: i64 = 3;

/// The key of an input.
#[must_use]
pub fn key_of(input: i64) -> i64 {
    input % KEYS
}

/// Where a process stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Acquiring(Acquire),
    Recovering,
    Idle,
    Writing {
        left: usize,
        next: i64,
        staged: BTreeMap<i64, i64>,
    },
    Positions {
        next: i64,
        staged: BTreeMap<i64, i64>,
    },
    Committing {
        next: i64,
        staged: BTreeMap<i64, i64>,
    },
    Applying {
        next: i64,
        staged: BTreeMap<i64, i64>,
    },
    Gone,
}

/// A process of the ordinal.
#[derive(Clone, Debug)]
pub struct Process {
    uid: Uid,
    nonce: u64,
    world: World,
    epoch: u64,
    early: Option<(i64, usize)>,
    position: i64,
    memory: Volume,
    stage: Stage,
    mutant: Mutant,
    /// A request of this session may still be under way.
    doubt: bool,
    /// What is on disk.
    pub volume: Volume,
}

/// The producer of the only thread.
const PRODUCER: u32 = 0;

impl Process {
    /// A new process on a volume.
    #[must_use]
    pub fn new(name: String, volume: Volume, mutant: Mutant) -> Self {
        let mut process = Self {
            uid: Uid(name),
            nonce: 0,
            world: World::default(),
            epoch: 0,
            early: None,
            position: 0,
            memory: volume.clone(),
            stage: Stage::Gone,
            mutant,
            doubt: false,
            volume,
        };
        process.acquire();
        process
    }

    fn acquire(&mut self) {
        self.nonce += 1;
        self.doubt = false;
        let identity = Identity {
            ordinal: Ordinal(0),
            uid: self.uid.clone(),
            nonce: self.nonce,
            threads: 1,
        };
        self.stage = Stage::Acquiring(Acquire::new(identity));
    }

    /// Whether it has ended for good.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.stage == Stage::Gone
    }

    /// Does one request.
    pub fn step(&mut self, broker: &mut Broker, inputs: i64, random: &mut Random) {
        match self.stage.clone() {
            Stage::Acquiring(acquire) => self.step_acquire(acquire, broker),
            Stage::Recovering => {
                // Positions decide; the store is brought to them from its changelog's tail.
                let (position, end) = self
                    .early
                    .take()
                    .unwrap_or((broker.position, broker.changelog.len()));
                self.memory = self.volume.clone();
                let from = self.memory.changelog.min(end);
                self.memory
                    .sums
                    .extend(broker.changelog[from..end].iter().copied());
                self.memory.changelog = end;
                self.position = position;
                self.stage = Stage::Idle;
            }
            Stage::Idle => {
                if random.once_in(6) {
                    self.volume = self.memory.clone();
                }
                let left = usize::try_from(inputs - self.position)
                    .unwrap_or(0)
                    .min(1 + random.below(3));
                if left > 0 {
                    let (next, staged) = (self.position, BTreeMap::new());
                    self.stage = Stage::Writing { left, next, staged };
                }
            }
            Stage::Writing {
                left: 0,
                next,
                staged,
            } => self.stage = Stage::Positions { next, staged },
            Stage::Writing {
                left,
                next,
                mut staged,
            } => {
                let key = key_of(next);
                let stored = || self.memory.sums.get(&key).copied().unwrap_or(0);
                let sum = staged.get(&key).copied().unwrap_or_else(stored) + next;
                staged.insert(key, sum);
                let written = broker.write(PRODUCER, self.epoch, |open| open.outputs.push((next, sum)));
                self.on(
                    written,
                    Stage::Writing {
                        left: left - 1,
                        next: next + 1,
                        staged,
                    },
                );
            }
            Stage::Positions { next, staged } => {
                let written = broker.write(PRODUCER, self.epoch, |open| {
                    open.changelog = staged.clone().into_iter().collect();
                    open.position = Some(next);
                });
                if self.mutant == Mutant::AppliesBeforeCommit {
                    self.memory.sums.extend(staged.clone());
                    self.volume = self.memory.clone();
                }
                self.on(written, Stage::Committing { next, staged });
            }
            Stage::Committing { next, staged } => self.commit(next, staged, broker, random),
            Stage::Applying { next, staged } => {
                self.memory.changelog += staged.len();
                self.memory.sums.extend(staged);
                self.position = next;
                self.stage = Stage::Idle;
                if self.doubt && self.mutant != Mutant::KeepsProducerInDoubt {
                    self.acquire();
                }
            }
            Stage::Gone => {}
        }
    }

    fn commit(&mut self, next: i64, staged: BTreeMap<i64, i64>, broker: &mut Broker, random: &mut Random) {
        if random.once_in(12) {
            // The connection breaks: the client sends again, and the first request may arrive at any time.
            broker.delay_commit(PRODUCER, self.epoch);
            self.doubt = true;
        }
        if random.once_in(12) {
            // The answer is lost; the request may or may not have been carried out.
            if random.once_in(2) {
                let _ = broker.commit(PRODUCER, self.epoch);
            } else {
                broker.delay_commit(PRODUCER, self.epoch);
            }
            if self.mutant == Mutant::TakesTimeoutForAbort {
                self.stage = Stage::Idle;
            } else {
                self.acquire();
            }
            return;
        }
        let committed = broker.commit(PRODUCER, self.epoch);
        self.on(committed, Stage::Applying { next, staged });
    }

    fn on(&mut self, result: Result<(), Refusal>, next: Stage) {
        match result {
            Ok(()) => self.stage = next,
            Err(Refusal::Fenced | Refusal::InvalidState) => self.acquire(),
        }
    }

    fn step_acquire(&mut self, acquire: Acquire, broker: &mut Broker) {
        let outcome = match acquire.action() {
            Action::Append(record) => Outcome::Appended(broker.append(record)),
            Action::ReadThrough(offset) => {
                let known = usize::try_from(self.world.next_offset).unwrap_or(0);
                let wanted = usize::try_from(offset + 1).unwrap_or(0).max(known);
                for (at, record) in (self.world.next_offset..).zip(&broker.control[known..wanted]) {
                    self.world.apply(at, record);
                }
                Outcome::Read(&self.world)
            }
            Action::InitTransactions(_) => {
                if self.mutant == Mutant::ReadsPositionsBeforeInit && self.early.is_none() {
                    self.early = Some((broker.position, broker.changelog.len()));
                    return;
                }
                self.epoch = broker.init(PRODUCER);
                Outcome::Initialised
            }
        };
        match acquire.clone().done(outcome) {
            Ok(Progress::Next(next)) => self.stage = Stage::Acquiring(next),
            Ok(Progress::Granted(_)) => self.stage = Stage::Recovering,
            Ok(Progress::Superseded(_)) if self.mutant == Mutant::NeverExits => {
                self.stage = Stage::Recovering
            }
            Ok(Progress::Superseded(_)) | Err(_) => self.stage = Stage::Gone,
        }
    }
}
