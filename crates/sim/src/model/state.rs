//! A state of the model, and the states that can come next.

use std::collections::BTreeSet;
use std::rc::Rc;

use protocol::acquire::{Acquire, Action, Identity, Outcome, Progress, Token};
use protocol::handover::Duty;
use protocol::{Ordinal, Record, TaskId, Uid, World};

use super::log::{Log, Logs};
use super::{Birth, Mutant, Scenario, owners, task};

/// Transactional ids per ordinal.
const IDS: usize = 2;

/// Everything that is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    log: Log,
    processes: Vec<Process>,
    operators: Vec<Operator>,
    /// Commits whose answer was lost, still on their way.
    requests: BTreeSet<Request>,
    crashes: u8,
    lost_answers: u8,
    fencings: u8,
    /// Live processes that were fenced, ids counted one by one.
    pub(crate) fences: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Process {
    read: Log,
    /// Whether its producer of each id has the latest epoch.
    latest: [bool; IDS],
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Acquiring { acquire: Acquire, initialised: u32 },
    Granted { token: Token, held: Vec<Holding> },
    Gone,
}

/// What a process has of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Holding {
    Nothing,
    /// It read the positions, and nobody else has committed since.
    Latest,
    /// Somebody else has committed since.
    Outdated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Operator {
    /// Whose it is: counts where operators claim.
    object: usize,
    read: Log,
    fencing: Option<Fencing>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Fencing {
    ordinal: u32,
    prev: Option<i64>,
    assignment: i64,
    next: u32,
    written: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Request {
    ordinal: usize,
    id: usize,
    task: usize,
    outdated: bool,
}

/// What happened, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A process takes a step of its acquisition.
    Acquire(usize),
    /// A process reads the log to its end.
    Read(usize),
    /// A process leaves.
    Leave(usize),
    /// A process closes the tasks that leave it.
    Close(usize),
    /// A process writes `Adopted`.
    Adopt(usize),
    /// A process starts a task.
    Start(usize, usize),
    /// A process commits work of a task.
    Commit(usize, usize),
    /// A process finds its producer fenced.
    FindFenced(usize),
    /// A commit's answer is lost.
    LoseAnswer(usize, usize),
    /// The request arrives.
    Arrive(usize),
    /// kill -9.
    Crash(usize),
    /// An operator reads the log to its end.
    OperatorReads(usize),
    /// An operator claims the application for its object.
    Claim(usize),
    /// An operator writes the next assignment.
    Assign(usize),
    /// An operator decides to fence an ordinal.
    BeginFencing(usize),
    /// An operator initialises an id of the ordinal.
    Fence(usize),
    /// An operator writes `Fenced`.
    WriteFenced(usize),
}

impl Step {
    /// Whether it may never come.
    fn is_optional(self) -> bool {
        matches!(
            self,
            Self::Crash(_) | Self::LoseAnswer(..) | Self::Arrive(_) | Self::Commit(..)
        )
    }
}

/// A commit that did not stand on the latest one, or a state that nothing leads out of.
pub type Broken = String;

/// Makes successors.
pub(crate) struct Rules<'a> {
    scenario: &'a Scenario,
    mutant: Mutant,
    logs: Logs,
}

type Next = Vec<(Step, State)>;

impl<'a> Rules<'a> {
    pub(crate) fn new(scenario: &'a Scenario, mutant: Mutant) -> Self {
        Self {
            scenario,
            mutant,
            logs: Logs::new(mutant == Mutant::FoldsWhateverItWasDecidedOn),
        }
    }

    /// The first assignment is written, unless the application must be claimed before; processes that run have all that is
    /// theirs, others have read nothing.
    pub(crate) fn first(&mut self) -> State {
        let log = if self.scenario.claims {
            Logs::EMPTY
        } else {
            self.assign(Logs::EMPTY, 0, None)
        };
        let process = |index: usize| Process {
            read: Logs::EMPTY,
            latest: [false; IDS],
            phase: Phase::Acquiring {
                acquire: Acquire::new(self.identity(index, 1)),
                initialised: 0,
            },
        };
        let mut state = State {
            log,
            processes: (0..self.scenario.processes.len()).map(process).collect(),
            operators: Vec::new(),
            requests: BTreeSet::new(),
            crashes: self.scenario.crashes,
            lost_answers: self.scenario.lost_answers,
            fencings: self.scenario.fencings,
            fences: 0,
        };
        for index in 0..state.processes.len() {
            while self.scenario.processes[index].runs
                && let Phase::Acquiring { acquire, initialised } = state.processes[index].phase.clone()
            {
                state = self.acquire(&state, index, &acquire, initialised);
            }
        }
        let world = self.logs.world(state.log);
        for (index, Birth { ordinal, runs, .. }) in self.scenario.processes.iter().enumerate() {
            if *runs {
                state.processes[index].read = state.log;
                let owned = |at: &usize| world.owns(Ordinal(*ordinal), &task(*at));
                for at in (0..self.scenario.assignments[0].len()).filter(owned) {
                    state.hold(index, at, Holding::Latest);
                }
            }
        }
        let operator = |object| Operator {
            object: if self.scenario.claims { object } else { 0 },
            read: state.log,
            fencing: None,
        };
        state.operators = (0..self.scenario.operators).map(operator).collect();
        state
    }

    /// The log with the assignment of that number.
    fn assign(&mut self, log: Log, number: usize, prev: Option<i64>) -> Log {
        let record = Record::Assignment {
            prev,
            owners: owners(&self.scenario.assignments[number]),
            standbys: protocol::Standbys::new(),
        };
        self.logs.append(log, record)
    }

    fn identity(&self, process: usize, nonce: u64) -> Identity {
        let birth = self.scenario.processes[process];
        Identity {
            ordinal: Ordinal(birth.ordinal),
            uid: Uid(process.to_string()),
            nonce,
            threads: birth.threads,
        }
    }

    fn ordinal(&self, process: usize) -> usize {
        self.scenario.processes[process].ordinal as usize
    }

    fn id_of(&self, process: usize, task: usize) -> usize {
        task % self.scenario.processes[process].threads as usize
    }

    /// All states that can come next.
    pub(crate) fn next(&mut self, state: &State) -> Result<Next, Broken> {
        let mut next = Next::new();
        if state.fences > self.scenario.most_fences {
            let (fences, most) = (state.fences, self.scenario.most_fences);
            return Err(format!(
                "{fences} fences of live processes, at most {most} are due"
            ));
        }
        for process in 0..state.processes.len() {
            self.of_process(state, process, &mut next)?;
        }
        for operator in 0..state.operators.len() {
            self.of_operator(state, operator, &mut next)?;
        }
        for request in &state.requests {
            let mut after = state.clone();
            after.requests.remove(request);
            if request.outdated {
                return Err(outdated(request.task));
            }
            after.committed(request.task, None);
            next.push((Step::Arrive(request.task), after));
        }
        if next.iter().all(|(step, _)| step.is_optional()) {
            self.settled(state)?;
        }
        Ok(next
            .into_iter()
            .map(|(step, state)| (step, self.normal(state)))
            .collect())
    }

    fn of_process(&mut self, state: &State, index: usize, next: &mut Next) -> Result<(), Broken> {
        let process = &state.processes[index];
        match &process.phase {
            Phase::Acquiring { acquire, initialised } => {
                if self.may_announce(state, index) {
                    let after = self.acquire(state, index, acquire, *initialised);
                    next.push((Step::Acquire(index), after));
                }
            }
            Phase::Granted { token, held } => {
                if process.read != state.log {
                    let mut after = state.clone();
                    after.processes[index].read = state.log;
                    next.push((Step::Read(index), after));
                }
                self.duty(state, index, token, held, next);
                self.work(state, index, token, held, next)?;
            }
            Phase::Gone => return Ok(()),
        }
        if state.crashes > 0 && !self.is_unborn(state, index) {
            let mut after = state.clone();
            after.crashes -= 1;
            after.processes[index] = Process::gone();
            next.push((Step::Crash(index), after));
        }
        Ok(())
    }

    /// Processes of one ordinal are alike: they appear in order.
    fn may_announce(&self, state: &State, index: usize) -> bool {
        let births = &self.scenario.processes;
        (0..index)
            .filter(|before| births[*before].ordinal == births[index].ordinal)
            .all(|before| !self.is_unborn(state, before))
    }

    fn is_unborn(&self, state: &State, index: usize) -> bool {
        let first = Acquire::new(self.identity(index, 1));
        matches!(&state.processes[index].phase, Phase::Acquiring { acquire, .. } if *acquire == first)
    }

    fn acquire(&mut self, state: &State, index: usize, acquire: &Acquire, initialised: u32) -> State {
        let mut after = state.clone();
        let mut world: Option<Rc<World>> = None;
        let mut count = initialised;
        let outcome = match acquire.action() {
            Action::Append(record) => {
                after.log = self.logs.append(state.log, record);
                Outcome::Appended(self.logs.length(state.log))
            }
            Action::ReadThrough(offset) => {
                let through = self.logs.through(state.log, offset);
                let skipped = self.mutant == Mutant::SkipsBarrier
                    && matches!(self.logs.record(through), Some(Record::Barrier { .. }));
                if skipped {
                    let mut unread = World::clone(&self.logs.world(after.processes[index].read));
                    unread.next_offset = offset + 1;
                    world = Some(Rc::new(unread));
                } else {
                    after.processes[index].read = through;
                    world = Some(self.logs.world(through));
                }
                Outcome::Initialised
            }
            Action::InitTransactions(ids) => {
                let own = self.scenario.processes[index].threads;
                let wanted = if self.mutant == Mutant::InitialisesOwnThreadsOnly {
                    own
                } else {
                    ids
                };
                self.init(&mut after, index, count as usize);
                count += 1;
                if count < wanted {
                    after.processes[index].phase = Phase::Acquiring {
                        acquire: acquire.clone(),
                        initialised: count,
                    };
                    return after;
                }
                Outcome::Initialised
            }
        };
        let outcome = world.as_deref().map_or(outcome, Outcome::Read);
        after.processes[index].phase = match acquire.clone().done(outcome) {
            Ok(Progress::Next(acquire)) => Phase::Acquiring {
                acquire,
                initialised: 0,
            },
            Ok(Progress::Granted(token)) => Phase::Granted {
                token,
                held: vec![Holding::Nothing; self.scenario.assignments[0].len()],
            },
            Ok(Progress::Superseded(_)) | Err(_) => {
                after.processes[index] = Process::gone();
                return after;
            }
        };
        after
    }

    fn duty(&mut self, state: &State, index: usize, token: &Token, held: &[Holding], next: &mut Next) {
        let world = self.logs.world(state.processes[index].read);
        let mut after = state.clone();
        let step = match token.duty(&world, &names(held)) {
            None => return,
            Some(Duty::Leave(_)) => {
                let owed = world.owes(token.identity().ordinal);
                if let (Some(assignment), Mutant::AdoptsInSpiteOfSuccessor) = (owed, self.mutant) {
                    let Identity {
                        ordinal, uid, nonce, ..
                    } = token.identity().clone();
                    let adopted = Record::Adopted {
                        assignment,
                        ordinal,
                        uid,
                        nonce,
                    };
                    after.log = self.logs.append(state.log, adopted);
                }
                after.processes[index] = Process::gone();
                Step::Leave(index)
            }
            Some(Duty::GiveUp(leaving)) => {
                if self.mutant != Mutant::AdoptsBeforeClosing {
                    for at in (0..held.len()).filter(|at| leaving.contains(&task(*at))) {
                        after.hold(index, at, Holding::Nothing);
                    }
                } else if let Some(Duty::Append(record)) = token.duty(&world, &BTreeSet::new()) {
                    after.log = self.logs.append(state.log, record);
                    after.processes[index].read = after.log;
                } else {
                    return;
                }
                Step::Close(index)
            }
            Some(Duty::Append(record)) => {
                after.log = self.logs.append(state.log, record);
                // It reads its own record before it decides again.
                after.processes[index].read = after.log;
                Step::Adopt(index)
            }
        };
        next.push((step, after));
    }

    /// Starts and commits.
    fn work(
        &mut self,
        state: &State,
        index: usize,
        token: &Token,
        held: &[Holding],
        next: &mut Next,
    ) -> Result<(), Broken> {
        let ordinal = self.ordinal(index);
        let world = self.logs.world(state.processes[index].read);
        let startable = token.to_start(&world, &names(held));
        for (at, holding) in held.iter().enumerate() {
            let unsettled = self.mutant == Mutant::StartsUnsettled
                && *holding == Holding::Nothing
                && world.owns(Ordinal(self.scenario.processes[index].ordinal), &task(at));
            if startable.contains_key(&task(at)) || unsettled {
                let mut after = state.clone();
                after.hold(index, at, Holding::Latest);
                next.push((Step::Start(index, at), after));
            }
        }
        let mut fenced = false;
        for (at, holding) in held.iter().enumerate() {
            if *holding == Holding::Nothing {
                continue;
            }
            let id = self.id_of(index, at);
            if !state.processes[index].latest[id] {
                fenced = true;
                continue;
            }
            if *holding == Holding::Outdated {
                return Err(outdated(at));
            }
            let mut after = state.clone();
            after.committed(at, Some(index));
            if after != *state {
                next.push((Step::Commit(index, at), after));
            }
            if state.lost_answers > 0 {
                let mut after = state.clone();
                after.lost_answers -= 1;
                after.requests.insert(Request {
                    ordinal,
                    id,
                    task: at,
                    outdated: false,
                });
                if self.mutant != Mutant::TakesLostAnswerForAbort {
                    self.acquire_again(&mut after, index, token);
                }
                next.push((Step::LoseAnswer(index, at), after));
            }
        }
        if fenced {
            let mut after = state.clone();
            self.acquire_again(&mut after, index, token);
            next.push((Step::FindFenced(index), after));
        }
        Ok(())
    }

    fn acquire_again(&self, after: &mut State, index: usize, token: &Token) {
        let nonce = token.identity().nonce + 1;
        after.processes[index].phase = Phase::Acquiring {
            acquire: Acquire::new(self.identity(index, nonce)),
            initialised: 0,
        };
    }

    fn of_operator(&mut self, state: &State, index: usize, next: &mut Next) -> Result<(), Broken> {
        let operator = state.operators[index];
        if let Some(fencing) = operator.fencing {
            self.fence(state, index, fencing, next);
            return Ok(());
        }
        let may_act = state.fencings > 0 || self.assigned(operator.read) < self.scenario.assignments.len();
        if operator.read != state.log && may_act {
            let mut after = state.clone();
            after.operators[index].read = state.log;
            next.push((Step::OperatorReads(index), after));
        }
        let world = self.logs.world(operator.read);
        let mut prev = world.operator_head;
        if self.mutant == Mutant::IgnoresCompareAndSet {
            prev = self.logs.world(state.log).operator_head;
        }
        if self.scenario.claims && world.claim.is_none() {
            let record = Record::Claim {
                prev,
                cluster: String::new(),
                uid: of_object(operator.object),
                description: String::new(),
            };
            let mut after = state.clone();
            after.log = self.logs.append(state.log, record);
            after.operators[index].read = after.log;
            next.push((Step::Claim(index), after));
            return Ok(());
        }
        // Somebody else's is respected.
        if !self.owns(&world, operator) {
            return Ok(());
        }
        let assigned = self.assigned(operator.read);
        // The same decision twice is no news.
        if assigned < self.scenario.assignments.len() && self.assigned(state.log) == assigned {
            let mut after = state.clone();
            after.log = self.assign(state.log, assigned, prev);
            if self.accepted(after.log) && !self.owns(&self.logs.world(after.log), operator) {
                let object = operator.object;
                return Err(format!(
                    "object {object} assigns tasks of an application that another one has claimed"
                ));
            }
            next.push((Step::Assign(index), after));
        }
        if let (true, Some((assignment, _))) = (state.fencings > 0, &world.assignment) {
            for ordinal in world.unsettled_ordinals() {
                let mut after = state.clone();
                after.fencings -= 1;
                after.operators[index].fencing = Some(Fencing {
                    ordinal: ordinal.0,
                    prev: world.operator_head,
                    assignment: *assignment,
                    next: 0,
                    written: false,
                });
                next.push((Step::BeginFencing(index), after));
            }
        }
        Ok(())
    }

    fn owns(&self, world: &World, operator: Operator) -> bool {
        let claim = world.claim.as_ref();
        !self.scenario.claims || claim.is_some_and(|claim| claim.uid == of_object(operator.object))
    }

    /// The same state, written in one way.
    fn normal(&self, state: State) -> State {
        let last = self.assigned(state.log) == self.scenario.assignments.len();
        state.normal(last)
    }

    /// Assignments that a log holds and the fold accepted.
    fn assigned(&self, log: Log) -> usize {
        // Assignments of a scenario may repeat: count them through their records.
        let mut found = 0;
        let mut at = log;
        while self.logs.length(at) > 0 {
            if matches!(self.logs.record(at), Some(Record::Assignment { .. })) && self.accepted(at) {
                found += 1;
            }
            at = self.logs.through(at, self.logs.length(at) - 2);
        }
        found
    }

    fn accepted(&self, log: Log) -> bool {
        self.logs.world(log).operator_head == Some(self.logs.length(log) - 1)
    }

    fn fence(&mut self, state: &State, index: usize, fencing: Fencing, next: &mut Next) {
        let world = self.logs.world(state.operators[index].read);
        let ids = world.threads(Ordinal(fencing.ordinal));
        let record_first = self.mutant == Mutant::FencesAfterTheRecord;
        let mut after = state.clone();
        let all_fenced = fencing.next >= ids;
        if !fencing.written && (all_fenced || record_first) {
            let (prev, assignment) = if self.mutant == Mutant::IgnoresCompareAndSet {
                let now = self.logs.world(state.log);
                let current = now.assignment.as_ref().map_or(-1, |(offset, _)| *offset);
                (now.operator_head, current)
            } else {
                (fencing.prev, fencing.assignment)
            };
            let ordinal = Ordinal(fencing.ordinal);
            let record = Record::Fenced {
                prev,
                assignment,
                ordinal,
            };
            after.log = self.logs.append(state.log, record);
            after.operators[index].fencing = (!all_fenced).then_some(Fencing {
                written: true,
                ..fencing
            });
            next.push((Step::WriteFenced(index), after));
            return;
        }
        self.fence_id(&mut after, fencing.ordinal, fencing.next as usize);
        let fencing = Fencing {
            next: fencing.next + 1,
            ..fencing
        };
        let done = fencing.written && fencing.next >= ids;
        after.operators[index].fencing = (!done).then_some(fencing);
        next.push((Step::Fence(index), after));
    }

    /// `InitProducerId` by a process.
    fn init(&self, after: &mut State, process: usize, id: usize) {
        // Its own producer before is not fenced, it is replaced.
        after.processes[process].latest[id] = false;
        self.fence_id(after, self.scenario.processes[process].ordinal, id);
        after.processes[process].latest[id] = true;
    }

    /// A new epoch: what was under way is aborted, and whoever had the one before is fenced.
    fn fence_id(&self, after: &mut State, ordinal: u32, id: usize) {
        for (process, birth) in after.processes.iter_mut().zip(&self.scenario.processes) {
            if birth.ordinal == ordinal && std::mem::take(&mut process.latest[id]) {
                let live = matches!(process.phase, Phase::Granted { .. });
                after.fences += u8::from(live);
            }
        }
        let ordinal = ordinal as usize;
        after
            .requests
            .retain(|request| (request.ordinal, request.id) != (ordinal, id));
    }

    /// Nothing happens any more by itself: whoever owns a task that was given up must run it.
    fn settled(&self, state: &State) -> Result<(), Broken> {
        let world = self.logs.world(state.log);
        for at in 0..self.scenario.assignments[0].len() {
            let alive = |ordinal: u32| {
                state.processes.iter().enumerate().any(|(index, process)| {
                    self.scenario.processes[index].ordinal == ordinal && !matches!(process.phase, Phase::Gone)
                })
            };
            let runs = state.processes.iter().any(|process| match &process.phase {
                Phase::Granted { held, .. } => held[at] != Holding::Nothing,
                Phase::Acquiring { .. } | Phase::Gone => false,
            });
            let owner = world
                .assignment
                .as_ref()
                .and_then(|(_, owners)| owners.get(&task(at)));
            let owner_lives = owner.is_some_and(|owner| alive(owner.ordinal.0));
            let waits = world.unsettled_ordinals().iter().any(|ordinal| !alive(ordinal.0));
            if owner_lives && !runs && !waits {
                return Err(format!("task {at} is owned by a live process and nobody runs it"));
            }
        }
        Ok(())
    }
}

fn of_object(object: usize) -> Uid {
    Uid(format!("object-{object}"))
}

fn outdated(task: usize) -> Broken {
    format!("the broker accepts a transaction of task {task} that does not stand on the latest one")
}

fn names(held: &[Holding]) -> BTreeSet<TaskId> {
    let held = held.iter().enumerate();
    held.filter(|(_, holding)| **holding != Holding::Nothing)
        .map(|(at, _)| task(at))
        .collect()
}

impl Process {
    fn gone() -> Self {
        Self {
            read: Logs::EMPTY,
            latest: [false; IDS],
            phase: Phase::Gone,
        }
    }
}

impl State {
    /// The same state, written in one way: operators are alike, and what they know counts only while they may act.
    fn normal(mut self, last: bool) -> Self {
        for operator in &mut self.operators {
            if last && self.fencings == 0 && operator.fencing.is_none() {
                operator.read = self.log;
            }
        }
        self.operators.sort_unstable();
        self
    }

    fn hold(&mut self, process: usize, at: usize, holding: Holding) {
        if let Phase::Granted { held, .. } = &mut self.processes[process].phase {
            held[at] = holding;
        }
    }

    /// The broker accepts a transaction of a task: whoever else holds it does not stand on the latest one any more.
    fn committed(&mut self, at: usize, by: Option<usize>) {
        for (index, process) in self.processes.iter_mut().enumerate() {
            if let Phase::Granted { held, .. } = &mut process.phase
                && Some(index) != by
                && held[at] == Holding::Latest
            {
                held[at] = Holding::Outdated;
            }
        }
        self.requests = std::mem::take(&mut self.requests)
            .into_iter()
            .map(|request| Request {
                outdated: request.outdated || request.task == at,
                ..request
            })
            .collect();
    }
}
