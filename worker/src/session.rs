//! A session: from `acquire()` to the end of the stream threads. Whatever goes wrong ends the session, and the next
//! one begins at the beginning; there is no other way to go on.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kafka::{
    Admin, Consumer, ConsumerOptions, GroupState, Isolation, PlainProducer, Settings, Start,
    TransactionalProducer, Wakeup,
};
use protocol::acquire::{Acquire, Action, Identity, Outcome, Progress, Token};
use protocol::{Guarantee, Ordinal, Owner, Phase, Positions, Superseded, TaskId, WorkerConfig, World};
use topology::Plan;
use topology::plan::{SubTopology, TopicName};

use crate::control::{ControlError, ControlLog, REQUEST_TIMEOUT};
use crate::recovery::{Recovered, recover};
use crate::restore::{RestoreError, Restorer};
use crate::session_end::SessionEnd;
use crate::shared::{Shared, TaskShared, add};
use crate::store::{StoreMemory, TaskDb};
use crate::stream_task::{Changelog, Parts, SinkTopic, StreamTask};
use crate::stream_thread::{End, Signal, StreamThread, Wanted};

/// Prefetched bytes per input partition, in KiB: about 20,000 small records.
const PREFETCH_KIB: u32 = 4 * 1024;
/// librdkafka's `message.max.bytes`, less what a record's own framing may take.
const MAX_RECORD_BYTES: usize = 1_000_000 - 512;
/// How often a running worker looks for members in its group.
const GROUP_CHECK: Duration = Duration::from_secs(5);
/// How long that look may take: the loop that follows the control log waits for it.
const GLANCE: Duration = Duration::from_secs(2);
/// How often consumed records of repartition topics are deleted (Kafka Streams' `repartition.purge.interval.ms`).
const PURGE_INTERVAL: Duration = Duration::from_secs(30);

/// The worker process between sessions.
pub(crate) struct Worker {
    pub(crate) config: WorkerConfig,
    pub(crate) ordinal: Ordinal,
    pub(crate) plan: Arc<Plan>,
    pub(crate) settings: Settings,
    pub(crate) state_dir: PathBuf,
    pub(crate) admin: Admin,
    pub(crate) memory: StoreMemory,
    pub(crate) shared: Arc<Shared>,
    pub(crate) purge_repartitions: Purge,
    pub(crate) control: Option<ControlLog>,
}

/// Whether consumed records of repartition topics are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purge {
    /// Every [`PURGE_INTERVAL`].
    Regularly,
    /// Never: a checker wants to read them.
    Never,
}

/// Counts of partitions by topic, for the sinks.
type Partitions = BTreeMap<String, i32>;

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
        // A log whose consumer failed is opened anew; the world is folded again from its first record.
        if !matches!(end, Err(SessionEnd::Wait { .. })) {
            self.control = Some(control);
        }
        end
    }

    fn session_on(&self, control: &mut ControlLog) -> Result<SessionEnd, SessionEnd> {
        self.refuse_live_group(REQUEST_TIMEOUT)?;
        let partitions = self.topics()?;
        let (token, producers) = match self.acquire(control)? {
            Ok(granted) => granted,
            Err(superseded) => return Ok(SessionEnd::Superseded(superseded)),
        };
        let owned = control.world().startable(self.ordinal);
        if owned.is_empty() {
            let waiting = control.world().waiting(self.ordinal).len();
            let message = format!(
                "ordinal {} has no task to run ({waiting} wait for earlier owners)",
                self.ordinal
            );
            self.shared.set_tasks(Vec::new());
            self.shared.explain(Phase::Running, "NoTasks", message);
            return self.follow(control, &token, &owned, Vec::new(), &Arc::new(Signal::new()), &[]);
        }
        let recovered = self.recover(&owned)?;
        let tasks: Vec<_> = recovered
            .keys()
            .map(|id| Arc::new(TaskShared::new(id.clone())))
            .collect();
        self.shared.set_tasks(tasks.clone());
        let stores = self.restore(control.cluster_id(), &recovered, &tasks)?;
        let signal = Arc::new(Signal::new());
        let wakeups = (0..self.config.threads)
            .map(|_| Wakeup::new().map(Arc::new))
            .collect::<Result<Vec<_>, _>>();
        let wakeups = wakeups.map_err(|error| SessionEnd::Failed {
            reason: "NoDescriptors",
            message: error.to_string(),
        })?;
        let threads = self.threads(
            &owned,
            &recovered,
            &tasks,
            stores,
            producers,
            &partitions,
            &signal,
            &wakeups,
        )?;
        self.shared.enter(Phase::Running);
        let handles = threads.into_iter().map(spawn).collect::<Result<Vec<_>, _>>()?;
        self.follow(control, &token, &owned, handles, &signal, &wakeups)
    }

    /// A group with members means that somebody else consumes under this `application.id`.
    fn refuse_live_group(&self, timeout: Duration) -> Result<(), SessionEnd> {
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

    /// Every topic of the plan must exist; returns their partition counts.
    fn topics(&self) -> Result<Partitions, SessionEnd> {
        let application = &self.config.application_id.0;
        let mut partitions = Partitions::new();
        for sub_topology in &self.plan.sub_topologies {
            let changelogs = sub_topology.stores.iter().map(|store| &store.changelog);
            let sinks = sub_topology.sinks.iter().map(|sink| &sink.topic);
            for topic in changelogs.chain(sinks).chain([&sub_topology.source.topic]) {
                let name = topic.resolve(application);
                match self.admin.topic(&name, REQUEST_TIMEOUT)? {
                    Some(found) => partitions.insert(name, found.partitions),
                    None => {
                        return Err(SessionEnd::Wait {
                            phase: Phase::Hold,
                            reason: "TopicMissing",
                            message: format!(
                                "topic {name} does not exist; create it, or correct its name in spec.topology. \
                                 The worker goes on when it is there"
                            ),
                        });
                    }
                };
            }
        }
        Ok(partitions)
    }

    /// The only way to a producer; see [`protocol::acquire`].
    fn acquire(
        &self,
        control: &mut ControlLog,
    ) -> Result<Result<(Token, Vec<TransactionalProducer>), Superseded>, SessionEnd> {
        self.shared.enter(Phase::Acquiring);
        let nonce = self.shared.nonce.fetch_add(1, Ordering::AcqRel) + 1;
        if nonce > 1 {
            add(&self.shared.counters.producer_rebuilds, 1);
        }
        let (ordinal, threads) = (self.ordinal, self.config.threads);
        let mut acquire = Acquire::new(Identity {
            ordinal,
            uid: self.shared.uid.clone(),
            nonce,
            threads,
        });
        let mut producers = Vec::new();
        loop {
            let outcome = match acquire.action() {
                Action::Append(record) => Outcome::Appended(control.append(&record)?),
                Action::ReadThrough(offset) => Outcome::Read(control.read_through(offset)?),
                Action::InitTransactions(ids) => {
                    producers = self.init_transactions(ids)?;
                    Outcome::Initialised
                }
            };
            let failed = |error: protocol::acquire::OutOfStep| SessionEnd::Failed {
                reason: "Acquire",
                message: error.to_string(),
            };
            match acquire.done(outcome).map_err(failed)? {
                Progress::Next(next) => acquire = next,
                Progress::Granted(token) => {
                    // Ids of threads that this process does not have were only fenced.
                    producers.truncate(usize::try_from(threads).unwrap_or(usize::MAX));
                    return Ok(Ok((token, producers)));
                }
                Progress::Superseded(by) => return Ok(Err(by)),
            }
        }
    }

    /// Producers of threads `0..ids`, initialised side by side: each may wait for its predecessor's open
    /// transaction to end.
    fn init_transactions(&self, ids: u32) -> Result<Vec<TransactionalProducer>, SessionEnd> {
        let timeout = Duration::from_millis(self.config.transaction_timeout_ms);
        let init = |thread: u32| -> Result<TransactionalProducer, SessionEnd> {
            let id = self.config.application_id.transactional_id(self.ordinal, thread);
            let producer = TransactionalProducer::new(&self.settings, &id, timeout)?;
            producer.init_transactions(REQUEST_TIMEOUT + timeout)?;
            Ok(producer)
        };
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..ids).map(|thread| scope.spawn(move || init(thread))).collect();
            running
                .into_iter()
                .map(|handle| handle.join().unwrap_or_else(|_| Err(panicked())))
                .collect()
        })
    }

    fn consumer(
        &self,
        isolation: Isolation,
        prefetch_kib_per_partition: u32,
    ) -> Result<Consumer, SessionEnd> {
        let group_id = self.config.application_id.0.clone();
        Ok(Consumer::new(
            &self.settings,
            &ConsumerOptions {
                group_id,
                isolation,
                prefetch_kib_per_partition,
            },
        )?)
    }

    fn recover(&self, owned: &BTreeMap<TaskId, Owner>) -> Result<BTreeMap<TaskId, Recovered>, SessionEnd> {
        let committed = self.consumer(Isolation::ReadCommitted, 1024)?;
        let all = self.consumer(Isolation::ReadUncommitted, 64)?;
        Ok(recover(
            &self.config.application_id,
            &self.plan,
            owned,
            &committed,
            &all,
        )?)
    }

    fn sub_topology(&self, id: &TaskId) -> Option<(usize, &SubTopology)> {
        self.plan
            .sub_topologies
            .iter()
            .enumerate()
            .find(|(_, sub)| sub.name == id.sub_topology)
    }

    /// Restores the stateful tasks, on as many threads as the worker has stream threads.
    fn restore(
        &self,
        cluster_id: &str,
        recovered: &BTreeMap<TaskId, Recovered>,
        tasks: &[Arc<TaskShared>],
    ) -> Result<BTreeMap<TaskId, TaskDb>, SessionEnd> {
        let stateful: Vec<_> = tasks
            .iter()
            .filter_map(|task| {
                let (_, sub) = self.sub_topology(&task.id)?;
                (!sub.stores.is_empty()).then_some((task, sub, recovered.get(&task.id)?.positions()))
            })
            .collect();
        if stateful.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.shared.enter(Phase::Restoring);
        let restorer = Restorer {
            application: &self.config.application_id,
            cluster_id,
            settings: &self.settings,
            admin: &self.admin,
            state_dir: &self.state_dir,
            memory: &self.memory,
            shared: &self.shared,
        };
        let share = stateful
            .len()
            .div_ceil(usize::try_from(self.config.threads).unwrap_or(1).max(1));
        let started = Instant::now();
        let stores = std::thread::scope(|scope| {
            let running: Vec<_> = stateful
                .chunks(share)
                .map(|tasks| {
                    let restorer = &restorer;
                    scope.spawn(move || {
                        let restore =
                            |(task, sub, positions): &(&Arc<TaskShared>, &SubTopology, &Positions)| {
                                Ok((task.id.clone(), restorer.restore(sub, positions, task)?))
                            };
                        tasks
                            .iter()
                            .map(restore)
                            .collect::<Result<Vec<_>, RestoreError>>()
                    })
                })
                .collect();
            let mut stores = BTreeMap::new();
            for handle in running {
                stores.extend(handle.join().map_err(|_| panicked())??);
            }
            Ok::<_, SessionEnd>(stores)
        })?;
        let records = self.shared.counters.restored_records.load(Ordering::Relaxed);
        tracing::info!(stores = stores.len(), records, elapsed = ?started.elapsed(), "stores restored");
        Ok(stores)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the one place where a session's parts come together"
    )]
    fn threads(
        &self,
        owned: &BTreeMap<TaskId, Owner>,
        recovered: &BTreeMap<TaskId, Recovered>,
        shared: &[Arc<TaskShared>],
        mut stores: BTreeMap<TaskId, TaskDb>,
        producers: Vec<TransactionalProducer>,
        partitions: &Partitions,
        signal: &Arc<Signal>,
        wakeups: &[Arc<Wakeup>],
    ) -> Result<Vec<StreamThread>, SessionEnd> {
        let all = Arc::new(self.consumer(Isolation::ReadUncommitted, 64)?);
        let mut threads = Vec::new();
        for (index, producer) in producers.into_iter().enumerate() {
            let consumer = self.consumer(Isolation::ReadCommitted, PREFETCH_KIB)?;
            let plain = match self.config.guarantee {
                Guarantee::ExactlyOnceV2 => None,
                Guarantee::AtLeastOnce => Some(PlainProducer::new(&self.settings)?),
            };
            let mut tasks = Vec::new();
            let mut starts = Vec::new();
            for task in shared.iter().skip(index).step_by(wakeups.len()) {
                let (Some(start), Some(owner)) = (recovered.get(&task.id), owned.get(&task.id)) else {
                    continue;
                };
                let db = stores.remove(&task.id);
                let context = TaskContext {
                    consumer: &consumer,
                    producer: &producer,
                    plain: plain.as_ref(),
                    partitions,
                };
                let task = self.task(task, start, *owner, db, &context)?;
                for input in &start.positions().inputs {
                    let (topic, partition, offset) = (input.topic.clone(), input.partition, input.offset);
                    starts.push(Start {
                        topic,
                        partition,
                        offset,
                    });
                }
                task.wake(&wakeups[index]);
                tasks.push(task);
            }
            consumer.assign(&starts)?;
            threads.push(StreamThread {
                application_id: self.config.application_id.0.clone(),
                commit_interval: Duration::from_millis(self.config.commit_interval_ms),
                consumer,
                all: Arc::clone(&all),
                positions_topic: producer.topic(&self.config.application_id.positions_topic())?,
                producer,
                plain,
                tasks,
                wakeup: Arc::clone(&wakeups[index]),
                signal: Arc::clone(signal),
                shared: Arc::clone(&self.shared),
                began: None,
                flushed: Instant::now(),
            });
        }
        Ok(threads)
    }

    fn task(
        &self,
        shared: &Arc<TaskShared>,
        start: &Recovered,
        owner: Owner,
        db: Option<TaskDb>,
        context: &TaskContext<'_>,
    ) -> Result<StreamTask, SessionEnd> {
        let application = &self.config.application_id.0;
        let unknown = || SessionEnd::Wait {
            phase: Phase::Hold,
            reason: "UnknownTask",
            message: format!("task {} is not part of this worker's topology", shared.id),
        };
        let (index, sub_topology) = self.sub_topology(&shared.id).ok_or_else(unknown)?;
        let topic = sub_topology.source.topic.resolve(application);
        let sinks = sub_topology.sinks.iter().map(|sink| {
            let name = sink.topic.resolve(application);
            let external = matches!(sink.topic, TopicName::External(_));
            let topic = match context.plain {
                Some(plain) if external => plain.topic(&name)?,
                Some(_) | None => context.producer.topic(&name)?,
            };
            let partitions = context.partitions.get(&name).copied().ok_or_else(unknown)?;
            Ok::<_, SessionEnd>(SinkTopic {
                topic,
                partitions,
                external,
                max_record_bytes: MAX_RECORD_BYTES,
            })
        });
        let changelogs = sub_topology.stores.iter().map(|store| {
            let name = store.changelog.resolve(application);
            let topic = context.producer.topic(&name)?;
            Ok::<_, SessionEnd>(Changelog {
                store: store.name.clone(),
                name,
                topic,
            })
        });
        let readers = db.as_ref().map(TaskDb::readers).unwrap_or_default();
        Ok(StreamTask::new(Parts {
            shared: Arc::clone(shared),
            topic_native: CString::new(topic.as_str()).map_err(|_| unknown())?,
            queue: context.consumer.partition_queue(&topic, shared.id.partition)?,
            topic,
            engine: engine::Task::new(Arc::clone(&self.plan), index, readers),
            db,
            sinks: sinks.collect::<Result<_, _>>()?,
            changelogs: changelogs.collect::<Result<_, _>>()?,
            committed: start.positions().clone(),
            positions_partition: owner.positions_partition,
        }))
    }

    /// Follows the control log while the threads run; ends them when it, a signal or one of them says so.
    fn follow(
        &self,
        control: &mut ControlLog,
        token: &Token,
        owned: &BTreeMap<TaskId, Owner>,
        threads: Vec<JoinHandle<End>>,
        signal: &Signal,
        wakeups: &[Arc<Wakeup>],
    ) -> Result<SessionEnd, SessionEnd> {
        let mut checked = Instant::now();
        let mut purged = Instant::now();
        let (wanted, decided) = loop {
            let followed = control.follow(Duration::from_millis(50));
            if self.shared.shutdown_requested() {
                self.shared.enter(Phase::Draining);
                break (Wanted::Drain, Some(SessionEnd::Drained));
            }
            if let Some(end) = self.judge(control.world(), token, owned) {
                let wanted = if matches!(end, SessionEnd::Superseded(_)) {
                    Wanted::Drop
                } else {
                    Wanted::Drain
                };
                break (wanted, Some(end));
            }
            if threads.iter().any(JoinHandle::is_finished) {
                break (Wanted::Drop, None);
            }
            match followed {
                Ok(()) => {}
                // While the broker is away the threads wait, too; what they committed is decided by positions.
                Err(ControlError::Log(control::Error::Kafka(error)))
                    if error.recovery() == kafka::Recovery::Retry =>
                {
                    tracing::debug!(%error, "control log");
                }
                Err(error) => break (Wanted::Drain, Some(error.into())),
            }
            if checked.elapsed() >= GROUP_CHECK {
                checked = Instant::now();
                match self.refuse_live_group(GLANCE) {
                    Err(
                        end @ SessionEnd::Wait {
                            reason: "GroupInUse", ..
                        },
                    ) => break (Wanted::Drain, Some(end)),
                    // Not by itself a reason to stop: without records nothing is at stake, and with records a
                    // commit will tell.
                    Err(SessionEnd::Wait { reason, message, .. }) => {
                        self.shared.explain(Phase::Running, reason, message);
                    }
                    Ok(()) if !owned.is_empty() => self.shared.enter(Phase::Running),
                    Ok(()) | Err(_) => {}
                }
            }
            if self.purge_repartitions == Purge::Regularly && purged.elapsed() >= PURGE_INTERVAL {
                purged = Instant::now();
                self.purge(owned);
            }
        };
        signal.set(wanted);
        wakeups.iter().for_each(|wakeup| wakeup.wake());
        let ends: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| panicked()))
            .collect();
        self.shared.open_transactions.store(0, Ordering::Release);
        let mut verdict = decided;
        for end in ends {
            match end? {
                End::Drained | End::Dropped => {}
                End::Doubt => verdict = verdict.or(Some(SessionEnd::Restart)),
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

    /// What the world demands of this session.
    fn judge(&self, world: &World, token: &Token, owned: &BTreeMap<TaskId, Owner>) -> Option<SessionEnd> {
        let Identity {
            ordinal, uid, nonce, ..
        } = token.identity();
        if let Some(by) = world.superseded(*ordinal, uid, *nonce) {
            return Some(SessionEnd::Superseded(by));
        }
        (world.startable(*ordinal) != *owned).then_some(SessionEnd::Restart)
    }

    /// Deletes what was consumed and committed from the repartition topics that this worker's tasks read.
    fn purge(&self, owned: &BTreeMap<TaskId, Owner>) {
        let status = self.shared.committed_offsets();
        let before: Vec<_> = owned
            .keys()
            .filter_map(|id| {
                let topic = &self.sub_topology(id)?.1.source.topic;
                let internal = matches!(topic, TopicName::Repartition(_));
                let offset = *status.get(id)?;
                (internal && offset > 0)
                    .then(|| (topic.resolve(&self.config.application_id.0), id.partition, offset))
            })
            .collect();
        let before: Vec<_> = before
            .iter()
            .map(|(topic, partition, at)| (topic.as_str(), *partition, *at))
            .collect();
        if !before.is_empty()
            && let Err(error) = self.admin.delete_records(&before, REQUEST_TIMEOUT)
        {
            tracing::warn!(%error, "consumed repartition records are not deleted yet");
        }
    }
}

/// What the tasks of one thread share while they are made.
struct TaskContext<'a> {
    consumer: &'a Consumer,
    producer: &'a TransactionalProducer,
    plain: Option<&'a PlainProducer>,
    partitions: &'a Partitions,
}

fn spawn(thread: StreamThread) -> Result<JoinHandle<End>, SessionEnd> {
    std::thread::Builder::new()
        .name("stream-thread".to_owned())
        .spawn(move || thread.run())
        .map_err(|error| SessionEnd::Failed {
            reason: "NoThread",
            message: error.to_string(),
        })
}

fn panicked() -> SessionEnd {
    SessionEnd::Failed {
        reason: "Panic",
        message: "a thread of the worker panicked; see its log".to_owned(),
    }
}
