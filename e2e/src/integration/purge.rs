//! Consumed records of the repartition topic are deleted while workers are killed and tasks move: nothing goes before it is
//! committed, and what has gone is judged like everything else.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::crash::{drain_crashed, environment, eventually};
use super::faults::stateful;
use super::handover::{scale, wait_spread};
use super::proxy::{Deletion, Proxy};
use super::scene::{PARTITIONS, Scene};
use super::{Counted, Integration, Test};
use crate::app::{App, Launch, signal};
use crate::broker::{Broker, Isolation, Offsets, REQUEST};
use crate::check::evidence::{Record, Topic};
use crate::reader::{behind, read_on};
use crate::wait;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
/// Orders a second.
const RATE: u64 = 1_000;
/// Some 20 transactions and one deletion come in a second: deletions lie before each crash.
const CRASH_AT: [&str; 5] = [
    "after-offsets:40",
    "commit-sent:40",
    "after-commit:40",
    "during-restore:1",
    "during-purge:2",
];

pub(super) fn tests(args: &Integration) -> Vec<Test<'_>> {
    vec![
        (
            "repartition-purged-under-faults".to_owned(),
            Box::new(|| under_faults(args, "repartition-purged-under-faults")),
        ),
        (
            "repartition-purge-refused".to_owned(),
            Box::new(|| refused(args, "repartition-purge-refused")),
        ),
    ]
}

fn purging(scene: &Scene<'_>) -> Launch {
    let arguments = ["--purge-interval", "1"].map(str::to_owned).to_vec();
    Launch {
        arguments,
        ..scene.launch()
    }
}

/// The broker does not delete what is to be deleted: that is told, and nothing else is the matter.
fn refused(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    let mut app = purging(&scene).start()?;
    app.wait_running(1, SECONDS(60))?;
    let topic = format!("{}-exposure-by-customer-repartition", scene.id);
    scene
        .broker
        .set_topic_config(&topic, "cleanup.policy", "compact")?;
    scene.orders(0, 1_000, 0, None)?;
    let log = scene.launch().state_dir.join("worker-0/worker.log");
    eventually("the worker to say so", || {
        let log = std::fs::read_to_string(&log)?;
        let told = |line: &str| line.contains("not deleted yet") && line.contains("PolicyViolation");
        Ok(log.lines().any(told))
    })?;
    scene.wait_drained(SECONDS(60))?;
    app.drain()?;
    let counted = scene.check(1_000, 0)?;
    scene.clean()?;
    Ok(counted)
}

fn under_faults(args: &Integration, name: &str) -> Result<Counted> {
    let scene = stateful(args, name)?;
    let along = Arc::new(Along::of(&scene)?);
    let witness = Arc::clone(&along);
    let proxy = Proxy::with_witness(&scene.broker.bootstrap, move |deletions| witness.note(deletions))?;
    proxy.between(&scene)?;
    let crash_at = CRASH_AT.map(str::to_owned);
    let mut launch = purging(&scene);
    launch.environment = environment(&scene, &crash_at);
    let mut app = launch.start()?;
    app.wait_running(1, SECONDS(60))?;
    let (written, looks) = scene.orders_while(RATE, || {
        let (mut looks, until) = (0, Instant::now() + SECONDS(90));
        while app.events("died") < crash_at.len() {
            ensure!(Instant::now() < until, "too few crashes: {}", app.words());
            along.look(&scene, &app, 1)?;
            looks += 1;
        }
        for workers in [2, 1] {
            scale(&scene, &app, workers)?;
            along.look(&scene, &app, 2)?;
            let share = 12 / workers;
            wait_spread(&app, &vec![usize::try_from(share)?; usize::try_from(workers)?])?;
            along.look(&scene, &app, workers)?;
            looks += 2;
        }
        Ok(looks)
    })?;
    scene.wait_drained(SECONDS(60))?;
    eventually("all that was consumed to be deleted", || {
        let (lows, committed) = (along.lows()?, along.committed()?);
        Ok(lows == committed && lows.values().all(|low| *low > 0))
    })?;
    let kills = drain_crashed(app, &crash_at)?;
    println!("{name}: deletions={} looks={looks}", along.reading().deletions);
    let counted = scene.check_purged(written, along.all()?)?;
    scene.clean()?;
    Ok(Counted { kills, ..counted })
}

/// Reads the repartition topic along: what is to be deleted is read before the broker hears of it.
struct Along {
    broker: Broker,
    topic: String,
    /// In the application's group; it only looks.
    watch: BaseConsumer,
    reading: Mutex<Reading>,
}

struct Reading {
    consumer: BaseConsumer,
    /// Up to where everything was read, by partition.
    next: Offsets,
    records: Vec<Record>,
    deletions: u64,
    failure: Option<String>,
}

impl Along {
    fn of(scene: &Scene<'_>) -> Result<Self> {
        Ok(Self {
            broker: scene.broker.clone(),
            topic: format!("{}-exposure-by-customer-repartition", scene.id),
            // It does not wait for offsets of open transactions.
            watch: scene.broker.consumer(&scene.id, Isolation::Uncommitted)?,
            reading: Mutex::new(Reading {
                consumer: scene
                    .broker
                    .consumer(&format!("{}-reader", scene.id), Isolation::Committed)?,
                next: (0..PARTITIONS).map(|partition| (partition, 0)).collect(),
                records: Vec::new(),
                deletions: 0,
                failure: None,
            }),
        })
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is to be deleted.
    fn note(&self, deletions: &[Deletion]) -> Result<()> {
        let ours = deletions.iter().filter(|deletion| deletion.topic == self.topic);
        let before: Offsets = ours
            .map(|deletion| (deletion.partition, deletion.before))
            .collect();
        let mut reading = self.reading();
        reading.deletions += u64::from(!before.is_empty());
        let read = reading.read_through(&self.topic, &before);
        if let Err(error) = &read {
            reading.failure = Some(format!("{error:#}"));
        }
        read
    }

    /// First offsets that are there.
    fn lows(&self) -> Result<Offsets> {
        let low = |partition| {
            let (low, _) = self.watch.fetch_watermarks(&self.topic, partition, REQUEST)?;
            Ok((partition, low))
        };
        (0..PARTITIONS).map(low).collect()
    }

    fn committed(&self) -> Result<Offsets> {
        Broker::committed(&self.watch, &self.topic, PARTITIONS)
    }

    /// Stops the workers when records have just been deleted, so that nobody processes what should not have gone yet: it all
    /// lies below what is committed.
    fn look(&self, scene: &Scene<'_>, app: &App, workers: u32) -> Result<()> {
        let before = self.lows()?;
        wait::until("records to be deleted", SECONDS(30), || {
            if let Some(failure) = &self.reading().failure {
                return Ok(Err(anyhow!("{failure}")));
            }
            match self.lows() {
                Ok(lows) if lows != before => Ok(Ok(())),
                Ok(lows) => Err(format!("{lows:?}; said:\n{}", app.words())),
                Err(error) => Err(format!("{error:#}")),
            }
        })?;
        let _stopped = Stopped::of(scene, app, workers);
        let lows = self.lows()?;
        // A transaction that is decided may not be written to the group's offsets yet.
        wait::until("what was deleted to be committed", SECONDS(5), || {
            let committed = self.committed().map_err(|error| format!("{error:#}"))?;
            match behind(&committed, &lows) {
                None => Ok(Ok(())),
                Some((partition, committed, low)) => Err(format!(
                    "partition {partition} begins at {low}, its task is at {committed}"
                )),
            }
        })
    }

    /// All that was ever in the topic, when nobody writes any more.
    fn all(&self) -> Result<Topic> {
        let consumer = self.broker.consumer(&self.topic, Isolation::Committed)?;
        let ends = self.broker.ends(&consumer, &self.topic)?;
        let mut reading = self.reading();
        reading.read_through(&self.topic, &ends)?;
        Ok(Topic {
            partitions: PARTITIONS,
            records: std::mem::take(&mut reading.records),
        })
    }
}

impl Reading {
    /// Reads these partitions to their ends, which must not lie before the given offsets.
    fn read_through(&mut self, topic: &str, offsets: &Offsets) -> Result<()> {
        if offsets.is_empty() {
            return Ok(());
        }
        let next = |partition: &i32| self.next.get(partition).copied().unwrap_or(0);
        let from: Vec<_> = offsets
            .keys()
            .map(|partition| (*partition, Offset::Offset(next(partition))))
            .collect();
        let (records, next) = (&mut self.records, &mut self.next);
        read_on(&self.consumer, topic, &from, REQUEST, |record| {
            next.insert(record.partition, record.offset + 1);
            records.push(record.into());
            Ok(())
        })?;
        self.consumer.unassign()?;
        for (partition, offset) in offsets {
            let (_, end) = self.consumer.fetch_watermarks(topic, *partition, REQUEST)?;
            ensure!(
                end >= *offset,
                "{topic}/{partition} is to be deleted up to {offset}, readers of committed records see it up to {end}"
            );
            // What lies between the last record and here are commit markers.
            let next = next.entry(*partition).or_default();
            *next = (*next).max(*offset);
        }
        Ok(())
    }
}

/// Workers that stand still.
struct Stopped(Vec<u32>);

impl Stopped {
    /// Those that are there: one may just be started again.
    fn of(scene: &Scene<'_>, app: &App, workers: u32) -> Self {
        let pid = |worker| {
            let status = app.status(worker).ok()?;
            let is_ours = status["applicationId"] == scene.id.as_str();
            let pid = u32::try_from(status["pid"].as_u64()?).ok()?;
            (is_ours && signal(pid, libc::SIGSTOP).is_ok()).then_some(pid)
        };
        Self((0..workers).filter_map(pid).collect())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for pid in &self.0 {
            // One that was to be killed is gone.
            let _ = signal(*pid, libc::SIGCONT);
        }
    }
}
