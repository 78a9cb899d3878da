//! An explicit model of control log, acquisition, handover and fencing: every interleaving of a few processes and two
//! operators, within a scenario's bounds.
//!
//! What decides is the real code: the fold ([`protocol::World`]), the acquisition ([`protocol::acquire`]), the
//! handover ([`protocol::handover`]). The broker is reduced to what matters here: the log, the epoch of each transactional id, and
//! per task whose transaction is the latest. A process that starts a task reads its positions; a commit that the broker
//! accepts must stand on the latest transaction. If it does not, two processes have committed work of one task (G3), and records are
//! lost or repeated (G1).

mod explore;
mod log;
mod state;

pub use explore::{Explored, explore, shortest};
pub use state::{Broken, Step};

use std::collections::BTreeMap;

use protocol::{Ordinal, Owner, TaskId};

/// The bounds of a scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// For people and reports.
    pub name: &'static str,
    /// The ordinal of each task, for every assignment that an operator may write, in this order.
    pub assignments: Vec<Vec<u32>>,
    /// Stream threads of each process that may appear, with its ordinal. They may appear at any time, also while an earlier
    /// process of their ordinal runs.
    pub processes: Vec<Birth>,
    /// Operators that believe to be the leader.
    pub operators: usize,
    /// kill -9.
    pub crashes: u8,
    /// Commits whose answer is lost: the request arrives at any later time, or never.
    pub lost_answers: u8,
    /// Times that an operator may begin to fence.
    pub fencings: u8,
    /// Each operator acts for an object of its own, and none before it has claimed the application.
    pub claims: bool,
    /// G4: so often live processes are fenced at most, ids counted one by one.
    pub most_fences: u8,
}

/// A process that may appear.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    /// Its ordinal.
    pub ordinal: u32,
    /// Its stream threads.
    pub threads: u32,
    /// From the beginning, with all tasks that are its own. There is one such process of an ordinal at most.
    pub runs: bool,
}

/// A rule that is left out, to show that the model would notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The product's rules.
    Faithful,
    /// `Adopted` is written while the task still runs.
    AdoptsBeforeClosing,
    /// A process that was replaced writes `Adopted` before it leaves.
    AdoptsInSpiteOfSuccessor,
    /// A task starts as soon as it is owned.
    StartsUnsettled,
    /// Transactions begin without reading through the barrier.
    SkipsBarrier,
    /// Only the ids of the process's own threads are initialised.
    InitialisesOwnThreadsOnly,
    /// The operator writes `Fenced` before it has fenced.
    FencesAfterTheRecord,
    /// An operator names the latest record as `prev`, whatever its decision stood on.
    IgnoresCompareAndSet,
    /// The fold takes an operator's record whatever it was decided on.
    FoldsWhateverItWasDecidedOn,
    /// After a lost answer the process goes on from what it had before.
    TakesLostAnswerForAbort,
}

pub(crate) fn task(index: usize) -> TaskId {
    TaskId {
        sub_topology: "t".to_owned(),
        partition: i32::try_from(index).unwrap_or(i32::MAX),
    }
}

pub(crate) fn owners(ordinals: &[u32]) -> BTreeMap<TaskId, Owner> {
    let owner = |(index, ordinal): (usize, &u32)| {
        let positions_partition = i32::try_from(index).unwrap_or(i32::MAX);
        let ordinal = Ordinal(*ordinal);
        (
            task(index),
            Owner {
                ordinal,
                positions_partition,
                added: false,
            },
        )
    };
    ordinals.iter().enumerate().map(owner).collect()
}

fn base() -> Scenario {
    Scenario {
        name: "",
        assignments: Vec::new(),
        processes: Vec::new(),
        operators: 1,
        crashes: 0,
        lost_answers: 0,
        fencings: 0,
        claims: false,
        most_fences: 0,
    }
}

/// Processes with one thread each.
fn of_ordinals(ordinals: &[u32]) -> Vec<Birth> {
    let one = |ordinal: &u32| Birth {
        ordinal: *ordinal,
        threads: 1,
        runs: false,
    };
    ordinals.iter().map(one).collect()
}

/// The same, of different ordinals, which run from the beginning.
fn running(ordinals: &[u32]) -> Vec<Birth> {
    let births = of_ordinals(ordinals).into_iter();
    births.map(|birth| Birth { runs: true, ..birth }).collect()
}

/// What is explored, to the last state.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "a pod exists three times",
            assignments: vec![vec![0]],
            processes: of_ordinals(&[0, 0, 0]),
            crashes: 1,
            lost_answers: 1,
            most_fences: 2,
            ..base()
        },
        Scenario {
            name: "fewer threads than before",
            assignments: vec![vec![0, 0]],
            processes: vec![
                Birth {
                    ordinal: 0,
                    threads: 2,
                    runs: false,
                },
                Birth {
                    ordinal: 0,
                    threads: 1,
                    runs: false,
                },
            ],
            crashes: 1,
            lost_answers: 1,
            most_fences: 2,
            ..base()
        },
        Scenario {
            name: "a task moves under two operators",
            assignments: vec![vec![0, 1], vec![1, 1]],
            processes: of_ordinals(&[0, 1]),
            operators: 2,
            lost_answers: 1,
            fencings: 1,
            most_fences: 1,
            ..base()
        },
        Scenario {
            name: "a task moves from a pod that exists twice",
            assignments: vec![vec![0], vec![1]],
            processes: of_ordinals(&[0, 0, 1]),
            most_fences: 1,
            ..base()
        },
        Scenario {
            name: "a task moves away and back",
            assignments: vec![vec![0], vec![1], vec![0]],
            processes: of_ordinals(&[0, 1]),
            ..base()
        },
        Scenario {
            name: "a task moves from a pod that dies",
            assignments: vec![vec![0], vec![1]],
            processes: of_ordinals(&[0, 1]),
            crashes: 1,
            lost_answers: 1,
            fencings: 1,
            most_fences: 1,
            ..base()
        },
        Scenario {
            name: "two objects claim an application",
            assignments: vec![vec![0], vec![1]],
            processes: of_ordinals(&[0, 1]),
            operators: 2,
            claims: true,
            ..base()
        },
        Scenario {
            name: "a task moves under two operators from a pod that dies",
            assignments: vec![vec![0], vec![1]],
            processes: of_ordinals(&[0, 1]),
            operators: 2,
            crashes: 1,
            fencings: 1,
            most_fences: 1,
            ..base()
        },
        Scenario {
            name: "two tasks move among three pods",
            assignments: vec![vec![0, 1], vec![1, 2]],
            processes: running(&[0, 1, 2]),
            crashes: 1,
            fencings: 1,
            most_fences: 1,
            ..base()
        },
    ]
}

/// More of the same: minutes, and gigabytes of memory. Nobody has explored them to the end, so how often processes are fenced
/// is not known.
#[must_use]
pub fn long_scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "a task moves from a pod that exists twice and is fenced",
            assignments: vec![vec![0], vec![1]],
            processes: of_ordinals(&[0, 0, 1]),
            fencings: 1,
            most_fences: u8::MAX,
            ..base()
        },
        Scenario {
            name: "a task moves away and back while its owners are fenced",
            assignments: vec![vec![0], vec![1], vec![0]],
            processes: of_ordinals(&[0, 1]),
            fencings: 1,
            most_fences: u8::MAX,
            ..base()
        },
        Scenario {
            name: "two tasks move while an operator sleeps",
            assignments: vec![vec![0, 0], vec![1, 0], vec![1, 1]],
            processes: of_ordinals(&[0, 1]),
            operators: 2,
            fencings: 1,
            most_fences: u8::MAX,
            ..base()
        },
        Scenario {
            name: "two tasks of running pods move while an operator sleeps",
            assignments: vec![vec![0, 0], vec![1, 0], vec![1, 1]],
            processes: running(&[0, 1]),
            operators: 2,
            fencings: 1,
            most_fences: u8::MAX,
            ..base()
        },
        Scenario {
            name: "a task moves on while its owner is dead",
            assignments: vec![vec![0], vec![1], vec![2]],
            processes: of_ordinals(&[0, 1, 2]),
            crashes: 1,
            fencings: 1,
            most_fences: u8::MAX,
            ..base()
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(mutant: Mutant, scenario: &str) -> String {
        let all = scenarios();
        let mut scenario = all.into_iter().find(|known| known.name == scenario).unwrap();
        // What it breaks beside that is not what is looked for.
        scenario.most_fences = u8::MAX;
        explore(&scenario, mutant).expect_err("the mutant breaks nothing")
    }

    /// In a scenario that tells what the rule is for, the mutant has somebody commit what does not stand on the latest.
    fn caught(mutant: Mutant, scenario: &str) {
        let broken = broken(mutant, scenario);
        assert!(broken.contains("does not stand on the latest"), "{broken}");
    }

    fn caught_with_claims(mutant: Mutant) {
        let broken = broken(mutant, "two objects claim an application");
        assert!(broken.contains("another one has claimed"), "{broken}");
    }

    #[test]
    fn two_pods_of_one_ordinal_fence_at_most_twice() {
        let scenario = Scenario {
            name: "two pods",
            assignments: vec![vec![0]],
            processes: of_ordinals(&[0, 0]),
            most_fences: 2,
            ..base()
        };
        let explored = explore(&scenario, Mutant::Faithful).unwrap();
        assert!((1..=2).contains(&explored.most_fences), "{explored:?}");
    }

    #[test]
    fn an_adoption_of_a_task_that_still_runs_is_caught() {
        caught(Mutant::AdoptsBeforeClosing, "a task moves away and back");
    }

    #[test]
    fn an_adoption_by_a_process_that_was_replaced_is_caught() {
        caught(
            Mutant::AdoptsInSpiteOfSuccessor,
            "a task moves from a pod that exists twice",
        );
    }

    #[test]
    fn a_task_that_starts_unsettled_is_caught() {
        caught(Mutant::StartsUnsettled, "a task moves away and back");
    }

    #[test]
    fn a_barrier_that_is_not_read_is_caught() {
        caught(Mutant::SkipsBarrier, "a task moves from a pod that exists twice");
    }

    #[test]
    fn an_id_of_a_former_thread_that_is_not_initialised_is_caught() {
        caught(Mutant::InitialisesOwnThreadsOnly, "fewer threads than before");
    }

    #[test]
    fn a_fence_that_comes_after_its_record_is_caught() {
        caught(Mutant::FencesAfterTheRecord, "a task moves from a pod that dies");
    }

    #[test]
    fn an_operator_that_names_what_it_has_not_read_is_caught() {
        caught_with_claims(Mutant::IgnoresCompareAndSet);
    }

    #[test]
    fn a_fold_without_compare_and_set_is_caught() {
        caught_with_claims(Mutant::FoldsWhateverItWasDecidedOn);
    }

    #[test]
    fn a_lost_answer_taken_for_an_abort_is_caught() {
        caught(Mutant::TakesLostAnswerForAbort, "fewer threads than before");
    }
}
