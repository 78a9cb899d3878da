//! The schedule: which process does its next step, which fault happens; and what must hold.

use std::collections::BTreeMap;

use crate::broker::Broker;
use crate::process::{Mutant, Process, Volume, key_of};
use crate::random::Random;

/// Inputs of a run.
const INPUTS: i64 = 40;
/// Steps with faults.
const FAULTY_STEPS: usize = 1_500;
/// Steps without faults in which everything must be done.
const QUIET_STEPS: usize = 6_000;
/// Each incident may fence a session at most this often.
const FENCES_PER_INCIDENT: u64 = 4;

/// A broken promise, with what is needed to see it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The seed.
    pub seed: u64,
    /// The step.
    pub step: usize,
    /// What is wrong.
    pub what: String,
}

/// Figures of a run that kept its promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Processes that were killed.
    pub crashes: u64,
    /// Sessions fenced by a later one.
    pub fences: u64,
    /// Committed outputs.
    pub outputs: u64,
}

/// One run.
pub struct Simulation {
    seed: u64,
    random: Random,
    broker: Broker,
    processes: Vec<Process>,
    mutant: Mutant,
    born: u64,
    incidents: u64,
    crashes: u64,
}

impl Simulation {
    /// Prepares the run of a seed.
    #[must_use]
    pub fn new(seed: u64, mutant: Mutant) -> Self {
        let mut simulation = Self {
            seed,
            random: Random::new(seed),
            broker: Broker::default(),
            processes: Vec::new(),
            mutant,
            born: 0,
            incidents: 0,
            crashes: 0,
        };
        simulation.start(Volume::default());
        simulation
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The first [`Violation`].
    pub fn run(mut self) -> Result<Figures, Violation> {
        for step in 0..FAULTY_STEPS {
            self.fault();
            self.step();
            self.check(step)?;
        }
        if self.processes.iter().all(Process::is_gone) {
            self.start(Volume::default());
        }
        let fences = self.broker.fences;
        for step in FAULTY_STEPS..FAULTY_STEPS + QUIET_STEPS {
            self.step();
            self.check(step)?;
        }
        self.finished(fences)
    }

    fn start(&mut self, volume: Volume) {
        self.born += 1;
        self.incidents += 1;
        self.processes
            .push(Process::new(format!("p{}", self.born), volume, self.mutant));
    }

    fn step(&mut self) {
        if !self.processes.is_empty() {
            let which = self.random.below(self.processes.len());
            self.processes[which].step(&mut self.broker, INPUTS, &mut self.random);
        }
    }

    fn fault(&mut self) {
        match self.random.below(120) {
            // kill -9: the volume stays (or is lost), another process starts on it.
            0..=2 => {
                self.crashes += 1;
                let which = self.random.below(self.processes.len());
                let volume = self.processes.swap_remove(which).volume;
                let lost = self.random.once_in(4);
                self.start(if lost { Volume::default() } else { volume });
            }
            // A second process of the ordinal, while the first one still runs (a node that was cut off).
            3 => {
                let volume = self
                    .processes
                    .first()
                    .map(|process| process.volume.clone())
                    .unwrap_or_default();
                self.start(volume);
            }
            4 => {
                self.incidents += 1;
                self.broker.time_out(0);
            }
            5..=8 => {
                let which = self.random.below(self.broker.delayed());
                self.broker.deliver_delayed(which);
            }
            _ => {}
        }
        self.processes.retain(|process| !process.is_gone());
        if self.processes.is_empty() {
            self.start(Volume::default());
        }
    }

    /// G1 and G3: committed outputs are the inputs in order, each once, each with the sum that a run without
    /// faults gives; position and changelog belong to them.
    fn check(&self, step: usize) -> Result<(), Violation> {
        let violated = |what: String| {
            Err(Violation {
                seed: self.seed,
                step,
                what,
            })
        };
        let mut sums: BTreeMap<i64, i64> = BTreeMap::new();
        for (expected, &(input, found)) in (0..).zip(&self.broker.outputs) {
            let sum = sums.entry(key_of(expected)).or_default();
            *sum += expected;
            if (input, found) != (expected, *sum) {
                return violated(format!(
                    "output {expected} is input {input} with sum {found}, wanted sum {sum}"
                ));
            }
        }
        let outputs = i64::try_from(self.broker.outputs.len()).unwrap_or(i64::MAX);
        let changelog: BTreeMap<_, _> = self.broker.changelog.iter().copied().collect();
        if self.broker.position != outputs || changelog != sums {
            let position = self.broker.position;
            return violated(format!(
                "{outputs} outputs, but position {position}, changelog {changelog:?} for {sums:?}"
            ));
        }
        Ok(())
    }

    fn finished(&self, fences_before: u64) -> Result<Figures, Violation> {
        let step = FAULTY_STEPS + QUIET_STEPS;
        let violated = |what: String| {
            Err(Violation {
                seed: self.seed,
                step,
                what,
            })
        };
        if self.broker.position < INPUTS {
            return violated(format!("stuck at input {} of {INPUTS}", self.broker.position));
        }
        let after = self.broker.fences - fences_before;
        // G4: what was already under way may still fence; after that, nothing does.
        let bound = FENCES_PER_INCIDENT * u64::try_from(self.processes.len()).unwrap_or(u64::MAX) + 20;
        if after > bound {
            return violated(format!("{after} fences in {QUIET_STEPS} steps without faults"));
        }
        let outputs = u64::try_from(self.broker.outputs.len()).unwrap_or(u64::MAX);
        Ok(Figures {
            crashes: self.crashes,
            fences: self.broker.fences,
            outputs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_violation(mutant: Mutant) -> Option<Violation> {
        (0..3_000).find_map(|seed| Simulation::new(seed, mutant).run().err())
    }

    /// `streamapp-sim schedules` runs many more.
    #[test]
    fn nothing_is_lost_repeated_or_reordered_under_any_schedule() {
        for seed in 0..200 {
            let run = Simulation::new(seed, Mutant::Faithful).run();
            assert!(run.is_ok(), "{run:?}");
        }
    }

    #[test]
    fn a_run_is_reproduced_by_its_seed() {
        let run = |seed| Simulation::new(seed, Mutant::Faithful).run();
        assert_eq!(run(42), run(42));
    }

    #[test]
    fn positions_read_before_init_are_caught() {
        assert!(first_violation(Mutant::ReadsPositionsBeforeInit).is_some());
    }

    #[test]
    fn a_timeout_taken_for_an_abort_is_caught() {
        assert!(first_violation(Mutant::TakesTimeoutForAbort).is_some());
    }

    #[test]
    fn a_producer_kept_in_doubt_is_caught() {
        assert!(first_violation(Mutant::KeepsProducerInDoubt).is_some());
    }

    #[test]
    fn a_store_written_before_the_commit_is_caught() {
        assert!(first_violation(Mutant::AppliesBeforeCommit).is_some());
    }

    #[test]
    fn a_process_that_ignores_its_successor_is_caught() {
        assert!(first_violation(Mutant::NeverExits).is_some());
    }
}
