//! A session that holds its producers: follows the control log, starts the tasks that it owns, gives up those that it
//! owns no longer, and ends when the log, a signal or a thread says so. Tasks that do not move are not touched.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use protocol::acquire::Token;
use protocol::handover::Duty;
use protocol::{Phase, Record, TaskId, TaskState};
use topology::plan::TopicName;

use crate::control::{ControlError, ControlLog, REQUEST_TIMEOUT};
use crate::crew::{Crew, Ended};
use crate::failpoint::{self, Point};
use crate::preparation::Preparation;
use crate::recovery::RecoveryError;
use crate::seed::Outline;
use crate::session::{Purge, Worker, missing};
use crate::session_end::SessionEnd;
use crate::shared::{TaskShared, lock};
use crate::standby::Standbys;
use crate::stream_thread::{End, Wanted};

/// How long one look at the control log waits for news.
const LOOK: Duration = Duration::from_millis(50);
/// The same while tasks are prepared.
const SOON: Duration = Duration::from_millis(5);
/// How often a running worker looks for members in its group, and at its inputs.
const LOOK_AROUND: Duration = Duration::from_secs(5);
/// How long a request may take that other work waits for, such as following the control log.
pub(crate) const GLANCE: Duration = Duration::from_secs(2);

/// A session from its grant to its end.
pub(crate) struct Running<'a, 'scope, 'env> {
    pub(crate) worker: &'a Worker,
    pub(crate) control: &'a mut ControlLog,
    pub(crate) token: Token,
    pub(crate) outline: &'a Outline,
    pub(crate) crew: Crew,
    pub(crate) preparation: Preparation<'scope, 'env>,
    pub(crate) standbys: Standbys<'scope, 'env>,
    /// What the last look around found, if it was not answered.
    pub(crate) unanswered: Option<(&'static str, String)>,
    pub(crate) checked: Instant,
    pub(crate) purged: Instant,
    /// Every task that could be started has been, once.
    pub(crate) complete: bool,
}

/// How the threads are to end, and how the session does; `None`: as the threads say.
pub(crate) type Verdict = (Wanted, Option<SessionEnd>);

impl Running<'_, '_, '_> {
    /// Runs; returns how the session should end.
    pub(crate) fn until_the_end(&mut self) -> Verdict {
        loop {
            match self.turn() {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(verdict)) => return verdict,
                // What is done is worth a commit; if that fails, positions decide.
                Err(end) => return (Wanted::Drain, Some(end)),
            }
        }
    }

    fn turn(&mut self) -> Result<ControlFlow<Verdict>, SessionEnd> {
        let soon = if self.preparation.tasks().is_empty() {
            LOOK
        } else {
            SOON
        };
        let followed = self.control.follow(soon);
        if self.worker.shared.shutdown_requested() {
            self.worker.shared.enter(Phase::Draining);
            return Ok(ControlFlow::Break((Wanted::Drain, Some(SessionEnd::Drained))));
        }
        if self.crew.has_ended() {
            return Ok(ControlFlow::Break((Wanted::Drop, None)));
        }
        // While the broker is away the threads wait, too; what they committed is decided by positions.
        if unless_away(followed)? {
            if let ControlFlow::Break(verdict) = self.do_duties()? {
                return Ok(ControlFlow::Break(verdict));
            }
            for seed in self.preparation.ready()? {
                self.crew.start(seed);
            }
            // They begin again where they stand, and pass over what they are to.
            let told = self.told_to_skip();
            if !told.is_empty()
                && let Err(Ended) = self.give_up(&told)
            {
                return Ok(ControlFlow::Break((Wanted::Drop, None)));
            }
            let startable = self.token.to_start(self.control.world(), &self.held());
            self.preparation.begin(startable, self.control.world(), |task| {
                self.standbys.release(task)
            });
            let mut followed = self.token.to_follow(self.control.world(), &self.held());
            followed.retain(|task| !self.preparation.occupies(task));
            self.standbys.keep(&followed)?;
        }
        self.look_around()?;
        self.tell();
        match self.worker.purge_repartitions {
            Purge::Every(interval) if self.purged.elapsed() >= interval => {
                self.purged = Instant::now();
                self.purge();
            }
            Purge::Every(_) | Purge::Never => {}
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Tasks of threads that do not know yet which records a person lets them pass over.
    fn told_to_skip(&self) -> BTreeSet<TaskId> {
        let world = self.control.world();
        let told = |task: &&Arc<TaskShared>| task.skipped != self.outline.skipped(world, &task.id);
        self.crew
            .tasks()
            .filter(told)
            .map(|task| task.id.clone())
            .collect()
    }

    /// Tasks that run or will.
    fn held(&self) -> BTreeSet<TaskId> {
        let mut held = self.preparation.tasks();
        held.extend(self.crew.tasks().map(|task| task.id.clone()));
        held
    }

    fn do_duties(&mut self) -> Result<ControlFlow<Verdict>, SessionEnd> {
        while let Some(duty) = self.token.duty(self.control.world(), &self.held()) {
            match duty {
                Duty::Leave(by) => {
                    return Ok(ControlFlow::Break((
                        Wanted::Drop,
                        Some(SessionEnd::Superseded(by)),
                    )));
                }
                Duty::GiveUp(leaving) => {
                    if let Err(Ended) = self.give_up(&leaving) {
                        return Ok(ControlFlow::Break((Wanted::Drop, None)));
                    }
                }
                // Without an answer it is repeated at the next turn.
                Duty::Append(record) => {
                    if !self.append(&record)? {
                        break;
                    }
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn give_up(&mut self, leaving: &BTreeSet<TaskId>) -> Result<(), Ended> {
        let started = Instant::now();
        self.preparation.give_up(leaving);
        self.crew.give_up(leaving)?;
        let leaving: Vec<_> = leaving.iter().map(ToString::to_string).collect();
        tracing::info!(?leaving, elapsed = ?started.elapsed(), "tasks given up");
        Ok(())
    }

    /// Appends a record and reads it; `false` when the broker is away.
    fn append(&mut self, record: &Record) -> Result<bool, SessionEnd> {
        let appended = self.control.append(record);
        failpoint::reach(Point::Adopted, || ());
        unless_away(appended.and_then(|offset| self.control.read_through(offset).map(|_| ())))
    }

    /// Nobody else may be in the group, the inputs must be the topics that the positions are about, and the control log the
    /// one that is followed.
    fn look_around(&mut self) -> Result<(), SessionEnd> {
        if self.checked.elapsed() < LOOK_AROUND {
            return Ok(());
        }
        self.checked = Instant::now();
        let looked = self
            .worker
            .refuse_live_group(GLANCE)
            .and_then(|()| self.refuse_other_inputs())
            .and_then(|()| Ok(self.control.is_there(&self.worker.admin, GLANCE)?));
        let asked = self.ask_for_ends().map_err(SessionEnd::from);
        if let Ok(Some(end)) = asked {
            let patience = &self.worker.shared.patience;
            let arrives = self.control.arrives(end, patience);
            arrives.inspect_err(|stalled| patience.note(stalled))?;
        }
        self.unanswered = match looked.and(asked.map(drop)) {
            Err(
                end @ SessionEnd::Wait {
                    reason: "GroupInUse" | "TopicRecreated" | "TopicMissing" | "ControlLogLost",
                    ..
                },
            ) => return Err(end),
            // Not by itself a reason to stop: without records nothing is at stake, and with records a commit will tell.
            Err(SessionEnd::Wait { reason, message, .. }) => Some((reason, message)),
            Ok(()) | Err(_) => None,
        };
        Ok(())
    }

    fn refuse_other_inputs(&self) -> Result<(), SessionEnd> {
        let Outline {
            application, plan, ..
        } = self.outline;
        for source in plan.sub_topologies.iter().flat_map(|sub| &sub.sources) {
            let topic = source.topic.resolve(&application.0);
            let known = self.outline.topics.get(&topic).map(|topic| &topic.id);
            match self.worker.admin.topic(&topic, GLANCE)? {
                None => return Err(missing(&topic)),
                Some(found) if known.is_some_and(|known| *known != found.id) => {
                    return Err(RecoveryError::TopicRecreated { topic }.into());
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Where inputs and control log end, from the broker itself: a client that does not fetch any more knows nothing of new
    /// records. Tells the tasks, and returns the control log's.
    fn ask_for_ends(&self) -> Result<Option<i64>, kafka::Error> {
        let tasks: Vec<_> = self.crew.tasks().map(|task| (task, self.inputs(task))).collect();
        let places = tasks.iter().flat_map(|(task, topics)| {
            let partition = task.id.partition;
            topics.iter().map(move |(_, topic)| (topic.as_str(), partition))
        });
        let (log, log_partition) = self.control.place();
        let places: Vec<_> = places.chain([(log, log_partition)]).collect();
        let ends = self.worker.admin.ends(&places, GLANCE)?;
        for (task, topics) in tasks {
            let end = |(_, topic)| ends.get(&(topic, task.id.partition)).copied();
            *lock(&task.ends) = topics.into_iter().map(end).collect();
        }
        Ok(ends.get(&(log.to_owned(), log_partition)).copied())
    }

    /// The topics that a task reads, by source of the plan.
    fn inputs(&self, task: &TaskShared) -> Vec<(&TopicName, String)> {
        let application = &self.worker.config.application_id.0;
        let mut all = self.worker.plan.sub_topologies.iter();
        let sub = all.find(|sub| sub.name == task.id.sub_topology);
        let topics = sub
            .into_iter()
            .flat_map(|sub| &sub.sources)
            .map(|source| &source.topic);
        topics.map(|topic| (topic, topic.resolve(application))).collect()
    }

    /// What people are shown.
    fn tell(&mut self) {
        let shared = &self.worker.shared;
        let own = || self.crew.tasks().chain(self.preparation.shared());
        let nothing_to_run = own().next().is_none();
        let all: BTreeMap<_, _> = self
            .standbys
            .shared()
            .chain(own())
            .map(|task| (task.id.clone(), Arc::clone(task)))
            .collect();
        // A task that was given to its thread has begun when it is committed where it begins.
        let begins =
            |task: &Arc<TaskShared>| matches!(task.state(), TaskState::Created | TaskState::Restoring);
        let prepared = self.preparation.tasks().is_empty() && !self.crew.tasks().any(begins);
        shared.set_tasks(all.into_values().collect());
        if let Some((phase, reason, message)) = self.preparation.in_the_way() {
            shared.explain(*phase, reason, message.clone());
        } else if !prepared && !self.complete {
            if self.preparation.restores() {
                shared.enter(Phase::Restoring);
            }
        } else if let Some((reason, message)) = &self.unanswered {
            shared.explain(Phase::Running, reason, message.clone());
        } else if nothing_to_run {
            let ordinal = self.worker.ordinal;
            let waiting = self.control.world().waiting(ordinal).len();
            let message = format!("ordinal {ordinal} has no task to run ({waiting} wait for earlier owners)");
            shared.explain(Phase::Running, "NoTasks", message);
        } else {
            self.complete = true;
            shared.enter(Phase::Running);
        }
    }

    /// Deletes what was consumed and committed from the repartition topics that this worker's tasks read.
    fn purge(&self) {
        let before: Vec<_> = self.crew.tasks().flat_map(|task| self.consumed(task)).collect();
        let before: Vec<_> = before
            .iter()
            .map(|(topic, partition, at)| (topic.as_str(), *partition, *at))
            .collect();
        if before.is_empty() {
            return;
        }
        failpoint::reach_in_background(Point::DuringPurge);
        if let Err(error) = self.worker.admin.delete_records(&before, REQUEST_TIMEOUT) {
            tracing::warn!(%error, "consumed repartition records are not deleted yet");
        }
    }

    /// How far a task has consumed the repartition topics that it reads.
    fn consumed(&self, task: &TaskShared) -> Vec<(String, i32, i64)> {
        let offsets = lock(&task.committed);
        let consumed = self.inputs(task).into_iter().zip(offsets.iter().copied());
        consumed
            .filter(|((topic, _), offset)| matches!(topic, TopicName::Repartition(_)) && *offset > 0)
            .map(|((_, topic), offset)| (topic, task.id.partition, offset))
            .collect()
    }

    /// Ends threads and preparation; what the session comes to.
    pub(crate) fn end(
        mut self,
        wanted: Wanted,
        decided: Option<SessionEnd>,
    ) -> Result<SessionEnd, SessionEnd> {
        let held = self.held();
        self.preparation.give_up(&held);
        let ends = self.crew.end(wanted);
        self.worker.shared.open_transactions.store(0, Ordering::Release);
        let mut verdict = decided;
        for end in ends {
            match end? {
                End::Drained | End::Dropped => {}
                End::Doubt => verdict = verdict.or(Some(SessionEnd::Restart)),
                End::Stalled(stalled) => {
                    self.worker.shared.patience.note(&stalled);
                    verdict = verdict.or_else(|| Some(stalled.into()));
                }
                // A drain that could not commit is repeated by whoever comes next; nothing is lost.
                End::Lost(error) if verdict.is_some() => tracing::warn!(%error, "stream thread ended"),
                End::Lost(error) => {
                    tracing::warn!(%error, "producer lost; acquiring again");
                    let away = matches!(
                        error.category(),
                        kafka::Category::BrokerUnreachable | kafka::Category::Timeout
                    );
                    verdict = Some(if away { error.into() } else { SessionEnd::Restart });
                }
                End::Store(error) => verdict = Some(error.into()),
                End::Stopped(error) => verdict = Some(error.into()),
            }
        }
        Ok(verdict.unwrap_or(SessionEnd::Restart))
    }
}

/// `false` when the broker is away for a while.
fn unless_away(result: Result<(), ControlError>) -> Result<bool, SessionEnd> {
    match result {
        Ok(()) => Ok(true),
        Err(ControlError::Log(control::Error::Kafka(error)))
            if error.recovery() == kafka::Recovery::Retry =>
        {
            tracing::debug!(%error, "control log");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}
