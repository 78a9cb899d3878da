//! What a process that was granted its producers owes the control log while it runs.
//!
//! ```text
//! an assignment takes tasks from the ordinal ── GiveUp: commit and close them ──▶ Append(Adopted)
//!   ──▶ the tasks are settled, their new owner starts them
//! a later process of the ordinal ──▶ Leave
//! ```
//!
//! Tasks that do not move are not touched. `Adopted` says that the *ordinal* commits nothing more of those tasks, though a
//! process can speak only for itself: it may do so because it has read the log up to the assignment and found no successor. A
//! successor that appears later has its barrier, and everything it knows, after that assignment; predecessors were fenced
//! by the acquisition. So a process must look for a successor in the same reading in which it found the assignment, and
//! `Adopted` must name that assignment. The explicit model of the simulation visits every interleaving of this.

use std::collections::{BTreeMap, BTreeSet};

use crate::acquire::Token;
use crate::{Owner, Record, Superseded, TaskId, World};

/// What a process has to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Exit for good.
    Leave(Superseded),
    /// Commit and close these tasks: they are held, and owned no longer.
    GiveUp(BTreeSet<TaskId>),
    /// Append this record to the control log.
    Append(Record),
}

impl Token {
    /// What to do now; `held` are the tasks that the process runs or prepares.
    #[must_use]
    pub fn duty(&self, world: &World, held: &BTreeSet<TaskId>) -> Option<Duty> {
        let identity = self.identity();
        let ordinal = identity.ordinal;
        if let Some(by) = world.superseded(ordinal, &identity.uid, identity.nonce) {
            return Some(Duty::Leave(by));
        }
        let leaving: BTreeSet<_> = held
            .iter()
            .filter(|task| !world.owns(ordinal, task))
            .cloned()
            .collect();
        if !leaving.is_empty() {
            return Some(Duty::GiveUp(leaving));
        }
        world.owes(ordinal).map(|assignment| {
            Duty::Append(Record::Adopted {
                assignment,
                ordinal,
                uid: identity.uid.clone(),
                nonce: identity.nonce,
            })
        })
    }

    /// Tasks whose changelogs to follow: not held, and owned by others, or still theirs to give up.
    #[must_use]
    pub fn to_follow(&self, world: &World, held: &BTreeSet<TaskId>) -> BTreeSet<TaskId> {
        let followed = world.followed(self.identity().ordinal);
        followed.difference(held).cloned().collect()
    }

    /// Tasks to start: owned, given up by every earlier owner, and not held.
    #[must_use]
    pub fn to_start(&self, world: &World, held: &BTreeSet<TaskId>) -> BTreeMap<TaskId, Owner> {
        let mut tasks = world.startable(self.identity().ordinal);
        tasks.retain(|task, _| !held.contains(task));
        tasks
    }
}
