//! Depth-first to visit everything, since it needs little memory; breadth-first to tell a shortest way to a violation.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashMap;

use super::state::{Broken, Rules, State, Step};
use super::{Mutant, Scenario};

/// What was seen of a scenario whose promises hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Explored {
    /// Distinct states.
    pub states: u64,
    /// Steps between them.
    pub steps: u64,
    /// The most fences of live processes on any way.
    pub most_fences: u8,
}

/// Visits every state of a scenario. States are told apart by 64-bit hashes: with ten million of them one is missed with a
/// probability of about one in 400,000. How many processes were fenced on the way does not tell them apart: a state that is
/// reached again over more fences is gone through once more.
///
/// # Errors
/// What is wrong in some state; [`shortest`] tells how it comes about.
pub fn explore(scenario: &Scenario, mutant: Mutant) -> Result<Explored, Broken> {
    let mut rules = Rules::new(scenario, mutant);
    let hasher = RandomState::new();
    // The most fences on a way to each state.
    let mut seen: HashMap<u64, u8> = HashMap::new();
    let mut explored = Explored::default();
    let first = rules.first();
    let mut stack = vec![(hasher.hash_one(&first), first)];
    while let Some((hash, state)) = stack.pop() {
        let known = seen.get(&hash).copied();
        if known.is_some_and(|known| known >= state.fences) {
            continue;
        }
        seen.insert(hash, state.fences);
        let is_new = u64::from(known.is_none());
        explored.states += is_new;
        explored.most_fences = explored.most_fences.max(state.fences);
        for (_, mut next) in rules.next(&state)? {
            explored.steps += is_new;
            let fences = std::mem::take(&mut next.fences);
            let hash = hasher.hash_one(&next);
            if seen.get(&hash).is_none_or(|known| *known < fences) {
                next.fences = fences;
                stack.push((hash, next));
            }
        }
    }
    Ok(explored)
}

/// A shortest way to a violation.
#[must_use]
pub fn shortest(scenario: &Scenario, mutant: Mutant) -> Option<Vec<Step>> {
    let mut rules = Rules::new(scenario, mutant);
    let hasher = RandomState::new();
    let first = rules.first();
    let mut seen = HashSet::from([hasher.hash_one(&first)]);
    // How each state was reached: the one before, and the step.
    let mut ways: Vec<(usize, Option<Step>)> = vec![(0, None)];
    let mut queue: VecDeque<(usize, State)> = VecDeque::from([(0, first)]);
    while let Some((way, state)) = queue.pop_front() {
        let Ok(next) = rules.next(&state) else {
            return Some(trace(&ways, way));
        };
        for (step, state) in next {
            if seen.insert(hasher.hash_one(&state)) {
                ways.push((way, Some(step)));
                queue.push_back((ways.len() - 1, state));
            }
        }
    }
    None
}

fn trace(ways: &[(usize, Option<Step>)], mut way: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    while let (before, Some(step)) = ways[way] {
        steps.push(step);
        way = before;
    }
    steps.reverse();
    steps
}
