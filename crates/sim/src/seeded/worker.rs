//! A worker process: sessions from `acquire()` to the end of its threads, with the acquisition and the duties of
//! [`protocol`].

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use protocol::acquire::{Acquire, Action, Identity, Outcome as Done, Progress, Token};
use protocol::handover::Duty;
use protocol::{Guarantee, Ordinal, Owner, TaskId, Uid};

use super::client::{ControlLog, Producer, Sim, pause};
use super::host::Spawner;
use super::restore::{Copy, Found, Outcome, Preparation, find, inputs, prepare};
use super::thread::{Command, Post, StreamThread, Wanted};
use super::volume::Volume;
use super::{Mutant, Reports};

/// A worker process.
pub(crate) struct Worker {
    pub(crate) sim: Rc<Sim>,
    pub(crate) spawner: Spawner,
    pub(crate) ordinal: Ordinal,
    pub(crate) uid: Uid,
    pub(crate) threads: u32,
    pub(crate) guarantee: Guarantee,
    pub(crate) volume: Rc<RefCell<Volume>>,
    /// SIGTERM was sent.
    pub(crate) terminated: Rc<Cell<bool>>,
    /// How far the copies of all workers are behind, as the operator would read it from their status.
    pub(crate) reports: Reports,
}

enum End {
    Gone,
    Again,
}

impl Worker {
    /// Runs until it is superseded or drained.
    pub(crate) async fn run(self) {
        let mut nonce = 0;
        loop {
            nonce += 1;
            match self.session(nonce).await {
                End::Gone => return,
                End::Again => pause().await,
            }
        }
    }

    async fn session(&self, nonce: u64) -> End {
        let mut control = ControlLog::open(&self.sim).await;
        if !self.may_follow(&mut control).await {
            return End::Again;
        }
        let early = self.early(&mut control).await;
        let (token, producers) = match self.acquire(&mut control, nonce).await {
            Ok(granted) => granted,
            Err(end) => return end,
        };
        self.sim.count(|figures| figures.acquisitions += 1);
        let hire = |producer| {
            let post = Post::new();
            let thread = StreamThread::new(&self.sim, producer, self.guarantee, &post);
            self.spawner.spawn(thread.run());
            post
        };
        let mut session = Session {
            worker: self,
            control,
            token,
            crew: producers.into_iter().map(hire).collect(),
            preparing: BTreeMap::new(),
            copies: BTreeMap::new(),
            early,
        };
        session.run().await
    }

    /// A log that is not the one followed before counts only when a person has said so.
    async fn may_follow(&self, control: &mut ControlLog) -> bool {
        let known = self.volume.borrow().control;
        match (known, control.which) {
            (_, None) => false,
            (Some(known), Some(which)) if known != which => {
                control.read_to_end().await && control.world.started_over
            }
            (_, Some(_)) => true,
        }
    }

    /// What a mutant knows too early.
    async fn early(&self, control: &mut ControlLog) -> BTreeMap<TaskId, Found> {
        let mut early = BTreeMap::new();
        if self.sim.mutant == Mutant::ReadsPositionsBeforeInit {
            control.follow().await;
            for (task, owner) in control.world.startable(self.ordinal) {
                let found = find(&self.sim, &task, owner).await;
                early.insert(task, found);
            }
        }
        early
    }

    async fn acquire(&self, control: &mut ControlLog, nonce: u64) -> Result<(Token, Vec<Producer>), End> {
        let mut acquire = Acquire::new(Identity {
            ordinal: self.ordinal,
            uid: self.uid.clone(),
            nonce,
            threads: self.threads,
        });
        let mut producers = Vec::new();
        loop {
            let outcome = match acquire.action() {
                Action::Append(record) => {
                    let appended = control.append(&record).await;
                    Done::Appended(appended.map_err(|_| End::Again)?)
                }
                Action::ReadThrough(offset) => {
                    control.read_through(offset).await;
                    if control.is_behind {
                        return Err(End::Again);
                    }
                    self.volume.borrow_mut().control = control.which;
                    Done::Read(&control.world)
                }
                Action::InitTransactions(ids) => {
                    for thread in 0..ids {
                        let id = self.sim.app.id.transactional_id(self.ordinal, thread);
                        let producer = Producer::init(&self.sim, id).await;
                        producers.push(producer.map_err(|_| End::Again)?);
                    }
                    Done::Initialised
                }
            };
            match acquire.clone().done(outcome) {
                Ok(Progress::Next(next)) => acquire = next,
                Ok(Progress::Granted(token)) => {
                    producers.truncate(usize::try_from(self.threads).unwrap_or(1));
                    return Ok((token, producers));
                }
                Ok(Progress::Superseded(_)) => return Err(End::Gone),
                Err(error) => {
                    self.sim.break_promise(error.to_string());
                    return Err(End::Gone);
                }
            }
        }
    }
}

/// A session that holds its producers.
struct Session<'a> {
    worker: &'a Worker,
    control: ControlLog,
    token: Token,
    crew: Vec<Rc<Post>>,
    preparing: BTreeMap<TaskId, Rc<Preparation>>,
    copies: BTreeMap<TaskId, Copy>,
    early: BTreeMap<TaskId, Found>,
}

impl Session<'_> {
    async fn run(&mut self) -> End {
        loop {
            self.control.follow().await;
            if self.worker.terminated.get() {
                return self.end(Wanted::Drain, End::Gone).await;
            }
            if self.control.is_behind {
                return self.end(Wanted::Drain, End::Again).await;
            }
            if self.crew.iter().any(|post| post.ended.get()) {
                return self.end(Wanted::Drop, End::Again).await;
            }
            if let Some(end) = self.do_duties().await {
                return self.end(Wanted::Drop, end).await;
            }
            self.start_what_is_ready();
            self.begin_preparations();
            self.follow_copies().await;
            self.report();
            if self.worker.sim.once_in(40) {
                self.purge().await;
            }
            pause().await;
        }
    }

    fn held(&self) -> BTreeSet<TaskId> {
        let wanted = self.preparing.iter().filter(|(_, it)| !it.given_up.get());
        let mut held: BTreeSet<_> = wanted.map(|(task, _)| task.clone()).collect();
        for post in &self.crew {
            held.extend(post.tasks.borrow().iter().cloned());
        }
        held
    }

    async fn do_duties(&mut self) -> Option<End> {
        let mutant = self.worker.sim.mutant;
        loop {
            let held = if mutant == Mutant::AdoptsWhileItRuns {
                // It believes that it holds nothing.
                BTreeSet::new()
            } else {
                self.held()
            };
            match self.token.duty(&self.control.world, &held) {
                None => return None,
                Some(Duty::Leave(_)) if mutant == Mutant::NeverLeaves => return None,
                Some(Duty::Leave(_)) => return Some(End::Gone),
                Some(Duty::GiveUp(leaving)) => {
                    if !self.give_up(&leaving).await {
                        return Some(End::Again);
                    }
                    self.worker.sim.count(|figures| figures.handovers += 1);
                }
                Some(Duty::Append(record)) => {
                    // Without an answer it is repeated at the next turn.
                    let offset = self.control.append(&record).await.ok()?;
                    self.control.read_through(offset).await;
                    if self.control.is_behind {
                        return None;
                    }
                }
            }
        }
    }

    /// `false` when a thread has ended.
    async fn give_up(&mut self, leaving: &BTreeSet<TaskId>) -> bool {
        for (task, preparation) in &self.preparing {
            if leaving.contains(task) {
                preparation.given_up.set(true);
            }
        }
        let mut asked = Vec::new();
        for post in &self.crew {
            let before = post.tasks.borrow().len();
            post.tasks.borrow_mut().retain(|task| !leaving.contains(task));
            if post.tasks.borrow().len() < before {
                let done = Rc::new(Cell::new(false));
                let command = Command::GiveUp(leaving.clone(), Rc::clone(&done));
                post.commands.borrow_mut().push_back(command);
                asked.push(done);
            }
        }
        while asked.iter().any(|done| !done.get()) {
            if self.crew.iter().any(|post| post.ended.get()) {
                return false;
            }
            pause().await;
        }
        true
    }

    fn start_what_is_ready(&mut self) {
        let done =
            |(task, it): (&TaskId, &Rc<Preparation>)| it.outcome.borrow().is_some().then(|| task.clone());
        let ready: Vec<_> = self.preparing.iter().filter_map(done).collect();
        for task in ready {
            let Some(preparation) = self.preparing.remove(&task) else {
                continue;
            };
            let outcome = preparation.outcome.borrow_mut().take();
            if let (Some(Outcome::Ready(seed)), false) = (outcome, preparation.given_up.get()) {
                let fewest = self.crew.iter().min_by_key(|post| post.tasks.borrow().len());
                if let Some(post) = fewest {
                    post.tasks.borrow_mut().insert(task);
                    post.commands.borrow_mut().push_back(Command::Start(seed));
                }
            }
        }
    }

    fn to_start(&self) -> BTreeMap<TaskId, Owner> {
        let world = &self.control.world;
        let held = self.held();
        if self.worker.sim.mutant != Mutant::StartsUnsettled {
            return self.token.to_start(world, &held);
        }
        let owners = world.assignment.iter().flat_map(|(_, owners)| owners);
        owners
            .filter(|(task, owner)| owner.ordinal == self.worker.ordinal && !held.contains(task))
            .map(|(task, owner)| (task.clone(), *owner))
            .collect()
    }

    fn begin_preparations(&mut self) {
        for (task, owner) in self.to_start() {
            // One that was given up is taken again when its first preparation has ended.
            if self.preparing.contains_key(&task) {
                continue;
            }
            let preparation = Rc::new(Preparation {
                given_up: Cell::new(false),
                outcome: RefCell::new(None),
            });
            self.preparing.insert(task.clone(), Rc::clone(&preparation));
            let copy = self.copies.remove(&task);
            if copy.is_some() {
                self.worker.sim.count(|figures| figures.promotions += 1);
            }
            let early = self.early.remove(&task);
            self.worker.spawner.spawn(prepare(
                Rc::clone(&self.worker.sim),
                Rc::clone(&self.worker.volume),
                (task, owner),
                copy,
                early,
                preparation,
            ));
        }
    }

    async fn follow_copies(&mut self) {
        let sim = &self.worker.sim;
        let mut wanted = self.token.to_follow(&self.control.world, &self.held());
        wanted.retain(|task| !self.preparing.contains_key(task) && sim.app.has_store(task));
        self.copies.retain(|task, _| wanted.contains(task));
        for task in wanted {
            if !self.copies.contains_key(&task) {
                let copy = Copy::open(sim, &self.worker.volume, &task).await;
                self.copies.insert(task.clone(), copy);
            }
            if let Some(copy) = self.copies.get_mut(&task)
                && (!copy.follow().await || (sim.once_in(10) && !copy.flush()))
            {
                self.copies.remove(&task);
            }
        }
    }

    fn report(&self) {
        let lags = self.copies.iter().map(|(task, copy)| (task.clone(), copy.lag()));
        let mut reports = self.worker.reports.borrow_mut();
        reports.insert(self.worker.ordinal, lags.collect());
    }

    /// Deletes what was consumed and committed of the repartition topic.
    async fn purge(&self) {
        let sim = &self.worker.sim;
        for post in &self.crew {
            let tasks: Vec<_> = post.tasks.borrow().iter().cloned().collect();
            for task in tasks.into_iter().filter(|task| sim.app.has_store(task)) {
                for (_, input) in inputs(sim, &task) {
                    let committed = sim.call(|broker| broker.group_offset(input)).await;
                    if let Some(Some(offset)) = committed {
                        sim.call(|broker| broker.delete_records(input, offset)).await;
                    }
                }
            }
        }
    }

    async fn end(&mut self, wanted: Wanted, end: End) -> End {
        self.preparing.values().for_each(|it| it.given_up.set(true));
        self.crew.iter().for_each(|post| post.wanted.set(wanted));
        while self.crew.iter().any(|post| !post.ended.get())
            || self.preparing.values().any(|it| it.outcome.borrow().is_none())
        {
            pause().await;
        }
        self.copies.clear();
        end
    }
}
