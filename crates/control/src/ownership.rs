//! What comes before workers can start: claim, topics, assignment, fences.

use std::collections::BTreeSet;

use kafka::{Admin, Settings};
use protocol::{ApplicationId, Claimant, Ordinal, Placement, Record, TaskId, Wanted, WarmUp, World};
use topology::Plan;

use crate::topics::{Ensured, TopicError};
use crate::{Error, OperatorLog, Reader};

/// An application as Kafka should know it.
pub struct Application<'a> {
    /// How to reach its cluster.
    pub settings: &'a Settings,
    /// Asks and creates.
    pub admin: &'a Admin,
    /// Its id.
    pub id: &'a ApplicationId,
    /// What it does.
    pub plan: &'a Plan,
    /// Who owns it.
    pub claimant: Claimant,
    /// Processes that share its tasks.
    pub workers: u32,
    /// Copies of each task's stores, beside its owner's.
    pub standbys: u32,
    /// When tasks may move.
    pub warm_up: WarmUp<'a>,
    /// Replicas of internal topics.
    pub replication_factor: i32,
    /// Partitions of the user's topics that do not exist; `None`: they must exist.
    pub create_external: Option<i32>,
    /// Whether an ordinal that owes tasks cannot give them up by itself, and is fenced.
    pub fences: &'a dyn Fn(Ordinal) -> bool,
    /// Offsets after which the control log is replaced by a snapshot; see [`SNAPSHOT_AFTER`].
    pub snapshot_after: i64,
}

/// So long may the control log get, in offsets: some hundred acquisitions, read in a few milliseconds.
pub const SNAPSHOT_AFTER: i64 = 1_000;

/// What is done about a claim of somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claiming<'a> {
    /// It is respected.
    Respect,
    /// It is taken over if it is this one, whose owner is known to be gone for good.
    From(&'a Claimant),
    /// It is taken over: a person said so.
    TakeOver,
}

/// What was found or made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Topics that did not exist before.
    pub created: Vec<String>,
    /// Properties of internal topics that somebody had changed, and what they were set back to.
    pub corrected: Vec<String>,
    /// Topics that can lose acknowledged records with a broker, each with what it lacks.
    pub at_risk: Vec<String>,
    /// Every task of the plan.
    pub tasks: Vec<TaskId>,
    /// Tasks that will move when their new owner is ready.
    pub warming: BTreeSet<TaskId>,
    /// Ordinals that must still give tasks up.
    pub owing: BTreeSet<Ordinal>,
}

/// Why the application cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The control log cannot be used.
    #[error(transparent)]
    Control(#[from] Error),
    /// Topics do not serve.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// Another object or another run owns the application.
    #[error("applicationId {application} is claimed by {}; choose another applicationId", owner.description)]
    Claimed {
        /// The application.
        application: String,
        /// Who.
        owner: Claimant,
    },
}

impl Claiming<'_> {
    fn allows(self, owner: &Claimant) -> bool {
        match self {
            Self::Respect => false,
            Self::From(gone) => owner.is(gone),
            Self::TakeOver => true,
        }
    }
}

impl Application<'_> {
    /// Claims the application before anything of it is touched, then makes its topics, then assigns its tasks, then
    /// fences ordinals that lost some and cannot give them up by themselves. Each step can be repeated. Processes of an
    /// earlier owner that keep their tasks go when a successor speaks for their ordinal.
    ///
    /// # Errors
    /// [`SettleError`]
    pub fn settle(&self, claiming: Claiming<'_>) -> Result<Settled, SettleError> {
        let made = self.ensure_control_log()?;
        let mut reader = self.reader()?;
        let end = reader.end()?;
        reader.read_to(end)?;
        let is_long = reader.length() >= self.snapshot_after;
        let world = reader.world();
        let mut log = if owns(&self.claimant, world) {
            None
        } else {
            self.may_claim(world, claiming)?;
            Some(self.claim(claiming)?)
        };
        let Ensured {
            created,
            corrected,
            at_risk,
            tasks,
            positions,
        } = self.ensure_topics()?;
        let world = log.as_ref().map_or(world, OperatorLog::world);
        let mut placement = self.place(&tasks, positions, world);
        let mut owing = world.unsettled_ordinals();
        if !is_assigned(world, &placement) || owing.iter().any(|ordinal| (self.fences)(*ordinal)) {
            let log = match &mut log {
                Some(log) => log,
                None => log.insert(self.log()?),
            };
            placement = self.assign(log, &tasks, positions)?;
            owing = log.world().unsettled_ordinals();
        }
        if is_long {
            let log = match &mut log {
                Some(log) => log,
                None => log.insert(self.log()?),
            };
            if owns(&self.claimant, log.world()) {
                log.shorten(self.admin)?;
            }
        }
        Ok(Settled {
            created: made.into_iter().chain(created).collect(),
            corrected,
            at_risk,
            tasks,
            warming: placement.warming.into_keys().collect(),
            owing,
        })
    }

    /// Lets go of the application, if it is ours: the next claim needs no permission.
    ///
    /// # Errors
    /// Errors of the control log.
    pub fn release(
        settings: &Settings,
        admin: &Admin,
        id: &ApplicationId,
        claimant: &Claimant,
    ) -> Result<(), Error> {
        let mut log = OperatorLog::open(settings, id, Reader::open(settings, admin, id)?)?;
        if owns(claimant, log.world()) {
            log.write(|prev| Record::Released { prev })?;
        }
        Ok(())
    }

    fn reader(&self) -> Result<Reader, Error> {
        Reader::open_made(self.settings, self.admin, self.id)
    }

    fn log(&self) -> Result<OperatorLog, Error> {
        OperatorLog::open(self.settings, self.id, self.reader()?)
    }

    fn place(&self, tasks: &[TaskId], positions: i32, world: &World) -> Placement {
        let stateful = self
            .plan
            .sub_topologies
            .iter()
            .filter(|sub| !sub.stores.is_empty());
        let wanted = Wanted {
            tasks,
            stateful: &stateful.map(|sub| sub.name.clone()).collect(),
            workers: self.workers,
            standbys: self.standbys,
            positions,
            warm_up: self.warm_up,
        };
        wanted.place(world)
    }

    fn may_claim(&self, world: &World, claiming: Claiming<'_>) -> Result<(), SettleError> {
        match &world.claim {
            Some(owner) if !owner.is(&self.claimant) && !claiming.allows(owner) => {
                Err(SettleError::Claimed {
                    application: self.id.to_string(),
                    owner: owner.clone(),
                })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn claim(&self, claiming: Claiming<'_>) -> Result<OperatorLog, SettleError> {
        let mut log = self.log()?;
        self.may_claim(log.world(), claiming)?;
        let Claimant {
            cluster,
            uid,
            description,
        } = self.claimant.clone();
        log.write(|prev| Record::Claim {
            prev,
            cluster,
            uid,
            description,
        })?;
        Ok(log)
    }

    fn assign(
        &self,
        log: &mut OperatorLog,
        tasks: &[TaskId],
        positions: i32,
    ) -> Result<Placement, SettleError> {
        if !owns(&self.claimant, log.world()) {
            // Lost or let go since it was read.
            self.may_claim(log.world(), Claiming::Respect)?;
            return Err(Error::Conflict.into());
        }
        let placement = self.place(tasks, positions, log.world());
        if !is_assigned(log.world(), &placement) {
            let Placement { owners, standbys, .. } = placement.clone();
            log.write(|prev| Record::Assignment {
                prev,
                owners,
                standbys,
            })?;
        }
        for ordinal in log.world().unsettled_ordinals() {
            if (self.fences)(ordinal) {
                log.fence(self.settings, self.id, ordinal)?;
            }
        }
        Ok(placement)
    }
}

fn owns(claimant: &Claimant, world: &World) -> bool {
    world.claim.as_ref().is_some_and(|claim| claim.is(claimant))
}

fn is_assigned(world: &World, placement: &Placement) -> bool {
    let assignment = world.assignment.as_ref();
    assignment.is_some_and(|(_, owners)| *owners == placement.owners) && world.standbys == placement.standbys
}
