//! Who owns an application, and who runs its tasks: claim, assignment and fences, written with compare-and-set.

use std::collections::{BTreeMap, BTreeSet};

use kafka::{Admin, Settings};
use protocol::{ApplicationId, Claimant, Owner, Record, TaskId, World};

use crate::{Error, OperatorLog};

/// What the control log should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Who owns the application.
    pub claimant: Claimant,
    /// Who runs which task.
    pub owners: BTreeMap<TaskId, Owner>,
}

/// Whether a claim of somebody else is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claiming {
    /// Refuse.
    Respect,
    /// Take over; everything is fenced.
    TakeOver,
}

/// Why the application is not ours.
#[derive(Debug, thiserror::Error)]
pub enum OwnershipError {
    /// The control log cannot be used.
    #[error(transparent)]
    Control(#[from] Error),
    /// Another object or another run owns the application.
    #[error("applicationId {application} is claimed by {}; choose another applicationId", owner.description)]
    Claimed {
        /// The application.
        application: String,
        /// Who.
        owner: Claimant,
    },
}

impl Wanted {
    /// Whether nothing is left to write.
    #[must_use]
    pub fn is_settled(&self, world: &World) -> bool {
        owns(&self.claimant, world) && self.is_assigned(world) && world.unsettled_ordinals().is_empty()
    }

    fn is_assigned(&self, world: &World) -> bool {
        let assignment = world.assignment.as_ref();
        assignment.is_some_and(|(_, owners)| *owners == self.owners)
    }

    /// Writes the claim, then the assignment, then fences every ordinal that lost tasks. Each step can be repeated.
    ///
    /// # Errors
    /// [`OwnershipError::Claimed`] when somebody else owns the application; errors of the control log.
    pub fn settle(
        &self,
        settings: &Settings,
        admin: &Admin,
        application: &ApplicationId,
        claiming: Claiming,
        now_ms: i64,
    ) -> Result<(), OwnershipError> {
        let mut log = OperatorLog::open(settings, admin, application)?;
        let mut to_fence = BTreeSet::new();
        if !owns(&self.claimant, log.world()) {
            match (&log.world().claim, claiming) {
                (Some(owner), Claiming::Respect) => {
                    let (application, owner) = (application.to_string(), owner.clone());
                    return Err(OwnershipError::Claimed { application, owner });
                }
                (Some(_), Claiming::TakeOver) => to_fence.extend(log.world().ordinals()),
                (None, Claiming::Respect | Claiming::TakeOver) => {}
            }
            let Claimant {
                cluster,
                uid,
                description,
            } = self.claimant.clone();
            log.write(
                |prev| Record::Claim {
                    prev,
                    cluster,
                    uid,
                    description,
                },
                now_ms,
            )?;
        }
        if !self.is_assigned(log.world()) {
            let owners = self.owners.clone();
            log.write(|prev| Record::Assignment { prev, owners }, now_ms)?;
        }
        to_fence.extend(log.world().unsettled_ordinals());
        for ordinal in to_fence {
            log.fence(settings, application, ordinal, now_ms)?;
        }
        Ok(())
    }
}

/// Whether the claim is this object's; its description is for people.
fn owns(claimant: &Claimant, world: &World) -> bool {
    let claim = world.claim.as_ref();
    claim.is_some_and(|claim| (&claim.cluster, &claim.uid) == (&claimant.cluster, &claimant.uid))
}

/// Lets go of an application, if `claimant` owns it: the next claim needs no permission.
///
/// # Errors
/// Errors of the control log.
pub fn release(
    settings: &Settings,
    admin: &Admin,
    application: &ApplicationId,
    claimant: &Claimant,
    now_ms: i64,
) -> Result<(), Error> {
    let mut log = OperatorLog::open(settings, admin, application)?;
    if owns(claimant, log.world()) {
        log.write(|prev| Record::Released { prev }, now_ms)?;
    }
    Ok(())
}
