//! A session: from `acquire()` to the end of the stream threads. Whatever goes wrong ends the session, and the next
//! one begins at the beginning; there is no other way to go on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka::{Admin, Category, Consumer, GroupState, Isolation, PlainProducer, Settings};
use protocol::{DEFAULT_MAX_TASK_IDLE_MS, Fetched, Guarantee, MemoryBudget, Ordinal, Phase, WorkerConfig};
use topology::Plan;

use crate::acquisition::{Granted, Producer};
use crate::control::{ControlLog, REQUEST_TIMEOUT};
use crate::crew::Crew;
use crate::limits::Limits;
use crate::preparation::{Preparation, Preparer};
use crate::running::{GLANCE, Running};
use crate::seed::{KnownTopic, Outline, Topics};
use crate::session_end::SessionEnd;
use crate::shared::Shared;
use crate::standby::Standbys;
use crate::store::StoreMemory;
use crate::stream_thread::StreamThread;

/// How long a session waits, at its start, for every broker to say whether the group has members.
const MOMENT: Duration = Duration::from_millis(500);

/// How often offsets are written again where nobody knows how long they are kept.
const UNKNOWN_RETENTION: Duration = Duration::from_secs(6 * 3600);

/// How often offsets are written again that are kept for so long.
fn refresh_interval(kept: Duration) -> Duration {
    (kept / 4).min(Duration::from_secs(24 * 3600))
}

/// The worker process between sessions.
pub(crate) struct Worker {
    pub(crate) config: WorkerConfig,
    pub(crate) ordinal: Ordinal,
    pub(crate) plan: Arc<Plan>,
    pub(crate) settings: Settings,
    pub(crate) state_dir: PathBuf,
    pub(crate) admin: Admin,
    pub(crate) memory: StoreMemory,
    pub(crate) budget: MemoryBudget,
    pub(crate) shared: Arc<Shared>,
    /// Longest time that a task's offsets in the group are not written again, if somebody said so.
    pub(crate) refresh_offsets: Option<Duration>,
    pub(crate) purge_repartitions: Purge,
    pub(crate) control: Option<ControlLog>,
}

/// Whether consumed records of repartition topics are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purge {
    /// So often.
    Every(Duration),
    /// Never: a checker wants to read them.
    Never,
}

impl Worker {
    /// Runs one session.
    pub(crate) fn session(&mut self) -> Result<SessionEnd, SessionEnd> {
        let mut control = match self.control.take() {
            Some(control) => control,
            None => ControlLog::open(
                &self.settings,
                &self.admin,
                &self.config.application_id,
                self.ordinal,
                &self.state_dir,
            )?,
        };
        let end = self.session_on(&mut control);
        // After a failure the log is opened anew, too, and folded again from its first record: its consumer may have failed.
        if !matches!(end, Ok(SessionEnd::Wait { .. }) | Err(SessionEnd::Wait { .. })) {
            self.control = Some(control);
        }
        end
    }

    fn session_on(&self, control: &mut ControlLog) -> Result<SessionEnd, SessionEnd> {
        match self.refuse_live_group(MOMENT) {
            // Every broker must say that it knows of no members. One that is down cannot, and stops nothing: they are asked
            // again while the session runs.
            Err(SessionEnd::Wait {
                reason: "BrokerUnreachable",
                message,
                ..
            }) => tracing::warn!(%message, "whether the group has members is not known yet"),
            answer => answer?,
        }
        let outline = Outline {
            application: self.config.application_id.clone(),
            plan: Arc::clone(&self.plan),
            topics: self.topics()?,
            budget: self.budget,
            max_task_idle: Duration::from_millis(
                self.config.max_task_idle_ms.unwrap_or(DEFAULT_MAX_TASK_IDLE_MS),
            ),
        };
        let capacity = outline.capacity(self.queue_kib(), self.commit_interval());
        let Granted { token, producers } = match self.acquire(control, capacity)? {
            Ok(granted) => granted,
            Err(superseded) => return Ok(SessionEnd::Superseded(superseded)),
        };
        self.shared.set_tasks(Vec::new());
        let all = Arc::new(self.consumer(Isolation::ReadUncommitted, 64)?);
        let preparer = Preparer {
            outline: &outline,
            cluster_id: control.cluster_id().to_owned(),
            settings: &self.settings,
            admin: &self.admin,
            all: &all,
            state_dir: &self.state_dir,
            memory: &self.memory,
            budget: &self.budget,
            shared: &self.shared,
            threads: usize::try_from(self.config.threads).unwrap_or(1),
        };
        std::thread::scope(|scope| {
            let mut running = Running {
                worker: self,
                control,
                token,
                outline: &outline,
                crew: self.crew(producers, &outline, &all)?,
                preparation: Preparation::new(scope, &preparer),
                standbys: Standbys::new(scope, &preparer),
                unanswered: None,
                checked: Instant::now(),
                purged: Instant::now(),
                complete: false,
            };
            let (wanted, decided) = running.until_the_end();
            running.end(wanted, decided)
        })
    }

    fn crew(
        &self,
        producers: Vec<Producer>,
        outline: &Outline,
        all: &Arc<Consumer>,
    ) -> Result<Crew, SessionEnd> {
        let prefetch_kib = self.budget.prefetch_kib(Fetched::Inputs, outline.inputs());
        let refresh_offsets = match self.refresh_offsets {
            Some(said) => said,
            None => self.offsets_kept().map_or(UNKNOWN_RETENTION, refresh_interval),
        };
        let mut crew = Crew::new();
        for producer in producers {
            crew.hire(|post| {
                let plain = match self.config.guarantee {
                    Guarantee::ExactlyOnceV2 => None,
                    Guarantee::AtLeastOnce => Some(PlainProducer::new(
                        &self.settings,
                        outline.capacity(self.queue_kib(), self.commit_interval()),
                    )?),
                };
                Ok(StreamThread {
                    application_id: self.config.application_id.0.clone(),
                    staged_bytes: usize::try_from(self.budget.staged).unwrap_or(usize::MAX),
                    commit_interval: self.commit_interval(),
                    refresh_offsets,
                    consumer: self.consumer(Isolation::ReadCommitted, prefetch_kib)?,
                    all: Arc::clone(all),
                    positions_topic: producer.topic(&self.config.application_id.positions_topic())?,
                    producer,
                    plain,
                    commands: post.commands,
                    tasks: Vec::new(),
                    wakeup: post.wakeup,
                    signal: post.signal,
                    pulse: self.shared.watchdog.watch(),
                    shared: Arc::clone(&self.shared),
                    began: None,
                    flushed: Instant::now(),
                    unflushed: 0,
                })
            })?;
        }
        Ok(crew)
    }

    /// A group with members means that somebody else consumes under this `application.id`.
    pub(crate) fn refuse_live_group(&self, timeout: Duration) -> Result<(), SessionEnd> {
        let group = &self.config.application_id.0;
        match self.admin.group_state(group, timeout)? {
            GroupState::Unused => Ok(()),
            GroupState::Live => Err(SessionEnd::Wait {
                phase: Phase::Hold,
                reason: "GroupInUse",
                message: format!(
                    "group {group} has live members, so another application uses this applicationId; \
                     stop it, or choose another applicationId. The worker goes on when the group is empty"
                ),
            }),
        }
    }

    /// Every topic of the plan must exist.
    fn topics(&self) -> Result<Topics, SessionEnd> {
        let application = &self.config.application_id.0;
        let subs = &self.plan.sub_topologies;
        let changelogs = subs
            .iter()
            .flat_map(|sub| &sub.stores)
            .map(|store| &store.changelog);
        let sinks = subs.iter().flat_map(|sub| &sub.sinks).map(|sink| &sink.topic);
        let written: BTreeSet<_> = changelogs.chain(sinks).collect();
        let sources = subs.iter().flat_map(|sub| &sub.sources);
        let read = sources.map(|source| &source.topic);
        let mut topics = Topics::new();
        for topic in written.iter().copied().chain(read) {
            let name = topic.resolve(application);
            if topics.contains_key(&name) {
                continue;
            }
            let found = self.admin.topic(&name, REQUEST_TIMEOUT)?;
            let found = found.ok_or_else(|| missing(&name))?;
            let config = if written.contains(topic) {
                self.topic_config(&name)?
            } else {
                BTreeMap::new()
            };
            let known = KnownTopic {
                id: found.id,
                partitions: found.partitions,
                limits: Limits::of(&config),
            };
            topics.insert(name, known);
        }
        Ok(topics)
    }

    /// How long the brokers keep offsets of a group without members; nothing when nobody tells us: no reason to stop.
    fn offsets_kept(&self) -> Option<Duration> {
        match self.admin.broker_config(GLANCE) {
            Ok(config) => {
                let minutes = config.get("offsets.retention.minutes")?.parse().ok();
                minutes.map(|minutes: u64| Duration::from_secs(minutes.saturating_mul(60)))
            }
            Err(error) => {
                tracing::info!(%error, "how long offsets are kept is not known");
                None
            }
        }
    }

    /// A topic's configuration; nothing when nobody lets us see it.
    fn topic_config(&self, topic: &str) -> Result<BTreeMap<String, String>, SessionEnd> {
        match self.admin.topic_config(topic, REQUEST_TIMEOUT) {
            Err(error) if error.category() == Category::Authorization => Ok(BTreeMap::new()),
            config => Ok(config?),
        }
    }

    fn commit_interval(&self) -> Duration {
        Duration::from_millis(self.config.commit_interval_ms)
    }

    fn queue_kib(&self) -> u32 {
        // Sinks of `at_least_once` have a producer of their own.
        let producers = match self.config.guarantee {
            Guarantee::ExactlyOnceV2 => 1,
            Guarantee::AtLeastOnce => 2,
        };
        u32::try_from(self.budget.sent / 1024 / producers).unwrap_or(u32::MAX)
    }

    fn consumer(&self, isolation: Isolation, prefetch_kib: u32) -> Result<Consumer, SessionEnd> {
        let group = &self.config.application_id.0;
        Ok(Consumer::new(&self.settings, group, isolation, prefetch_kib)?)
    }
}

/// A topic of the plan that does not exist.
pub(crate) fn missing(name: &str) -> SessionEnd {
    SessionEnd::Wait {
        phase: Phase::Hold,
        reason: "TopicMissing",
        message: format!(
            "topic {name} does not exist; create it, or correct its name in spec.topology. The worker goes on when it is there"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ⚑ The group's offsets are a mirror that must not expire while the application runs.
    #[test]
    fn offsets_are_written_again_long_before_they_expire() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        assert_eq!(refresh_interval(hours(7 * 24)), hours(24));
        assert_eq!(refresh_interval(hours(8)), hours(2));
    }
}
