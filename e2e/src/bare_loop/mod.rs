//! `streamapp-e2e bare-loop`: the least that any exactly-once application must do for the stateless example: consume,
//! parse, filter, produce in transactions. The bench measures it as the limit. It recovers from nothing: an error ends
//! it.

mod ffi;

use std::borrow::Cow;
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::broker::{Broker, Isolation};
use ffi::{Consumer, Message, Partitions, Producer};

/// Records taken from librdkafka at once.
const BATCH: usize = 2_000;
/// A batch that does not fill is waited for in slices of this length, so that commits stay punctual.
const SLICE: Duration = Duration::from_millis(5);

/// Runs the stateless example as a bare librdkafka loop, until SIGTERM.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BareLoop {
    #[command(flatten)]
    broker: Broker,
    /// Consumer group, and prefix of the transactional ids
    #[arg(long, value_name = "ID", default_value = "bare-loop")]
    application_id: String,
    /// Input topic
    #[arg(long, default_value = "orders.submitted.v1")]
    input: String,
    /// Output topic
    #[arg(long, default_value = "orders.scored.v1")]
    output: String,
    /// Threads; each has a consumer, a producer and its share of the partitions
    #[arg(long, default_value_t = 2)]
    threads: i32,
    /// Milliseconds between commits
    #[arg(long, default_value_t = 100)]
    commit_interval_ms: u64,
}

/// What the loop did.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Done {
    consumed: u64,
    produced: u64,
    transactions: u64,
}

/// Set by SIGTERM and SIGINT.
static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_: libc::c_int) {
    STOP.store(true, Ordering::SeqCst);
}

/// Runs until a signal; the open transactions are committed before it ends.
pub(crate) fn run(args: &BareLoop) -> Result<Done> {
    let handler = on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { libc::signal(signal, handler) };
    }
    let group = args.broker.consumer(&args.application_id, Isolation::Committed)?;
    let partitions = args.broker.partitions(&group, &args.input)?;
    let offsets = Broker::committed(&group, &args.input, partitions)?;
    drop(group);
    let threads: Vec<_> = (0..args.threads)
        .map(|thread| {
            let args = args.clone();
            let share: Vec<(i32, i64)> = offsets
                .iter()
                .map(|(p, o)| (*p, *o))
                .filter(|(p, _)| p % args.threads == thread)
                .collect();
            std::thread::spawn(move || {
                let done = Worker::new(&args, thread, &share).and_then(|mut worker| worker.run());
                // One thread's end is the end of all: half a loop would measure nothing.
                STOP.store(true, Ordering::SeqCst);
                done
            })
        })
        .collect();
    println!("READY");
    let mut total = Done::default();
    for thread in threads {
        let done = thread.join().map_err(|_| anyhow!("a thread panicked"))??;
        total.consumed += done.consumed;
        total.produced += done.produced;
        total.transactions += done.transactions;
    }
    Ok(total)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Order<'a> {
    #[serde(borrow)]
    order_id: Cow<'a, str>,
    #[serde(borrow)]
    customer_id: Cow<'a, str>,
    amount_in_cents: i64,
    submitted_at: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Scored<'a> {
    amount_in_cents: i64,
    customer_id: &'a str,
    large: bool,
    order_id: &'a str,
}

/// One thread.
struct Worker {
    topic: CString,
    commit_interval: Duration,
    consumer: Consumer,
    out: Out,
}

/// The producing half of a thread: apart from the consumer, which is borrowed while a batch is handed out.
struct Out {
    producer: Producer,
    /// When the open transaction began.
    began: Option<Instant>,
    /// Next offset by partition; -1 where nothing is to be committed.
    next: Vec<i64>,
    value: Vec<u8>,
    done: Done,
}

impl Worker {
    fn new(args: &BareLoop, thread: i32, share: &[(i32, i64)]) -> Result<Self> {
        let (topic, output) = (
            CString::new(args.input.as_str())?,
            CString::new(args.output.as_str())?,
        );
        let bootstrap = ("bootstrap.servers", args.broker.bootstrap.as_str());
        let consumer = Consumer::new(
            &[
                bootstrap,
                ("group.id", &args.application_id),
                ("enable.auto.commit", "false"),
                ("auto.offset.reset", "error"),
                ("isolation.level", "read_committed"),
                ("queued.min.messages", "200000"),
                ("queued.max.messages.kbytes", "65536"),
                ("fetch.wait.max.ms", "100"),
                ("fetch.queue.backoff.ms", "5"),
            ],
            BATCH,
        )?;
        let producer = Producer::new(
            &[
                bootstrap,
                ("transactional.id", &format!("{}-{thread}", args.application_id)),
                ("transaction.timeout.ms", "10000"),
                ("partitioner", "murmur2_random"),
                ("linger.ms", &(args.commit_interval_ms / 2).min(100).to_string()),
                ("batch.size", "1000000"),
                ("batch.num.messages", "10000"),
                ("queue.buffering.max.messages", "2000000"),
                ("queue.buffering.max.kbytes", "1048576"),
                ("delivery.report.only.error", "true"),
            ],
            &output,
        )?;
        consumer.assign(&Partitions::of(&topic, share.iter().copied())?)?;
        let partitions = share.iter().map(|(p, _)| *p as usize + 1).max().unwrap_or(0);
        let out = Out {
            producer,
            began: None,
            next: vec![-1; partitions],
            value: Vec::with_capacity(1_024),
            done: Done::default(),
        };
        Ok(Worker {
            topic,
            commit_interval: Duration::from_millis(args.commit_interval_ms),
            consumer,
            out,
        })
    }

    fn run(&mut self) -> Result<Done> {
        while !STOP.load(Ordering::SeqCst) {
            let out = &mut self.out;
            self.consumer.consume(SLICE, |message| out.process(&message))?;
            self.out.producer.serve(0);
            if self
                .out
                .began
                .is_some_and(|began| began.elapsed() >= self.commit_interval)
            {
                self.commit()?;
            }
        }
        if self.out.began.is_some() {
            self.commit()?;
        }
        Ok(std::mem::take(&mut self.out.done))
    }

    fn commit(&mut self) -> Result<()> {
        let next = self.out.next.iter_mut().enumerate();
        let moved = next
            .filter(|(_, o)| **o >= 0)
            .map(|(p, o)| (p as i32, std::mem::replace(o, -1)));
        self.out
            .producer
            .commit(&self.consumer, &Partitions::of(&self.topic, moved)?)?;
        self.out.began = None;
        self.out.done.transactions += 1;
        Ok(())
    }
}

impl Out {
    fn process(&mut self, message: &Message<'_>) -> Result<()> {
        if self.began.is_none() {
            self.producer.begin()?;
            self.began = Some(Instant::now());
        }
        let order: Order<'_> = sonic_rs::from_slice(message.value)
            .with_context(|| format!("partition {} offset {}", message.partition, message.offset))?;
        if order.amount_in_cents >= 10_000 {
            let scored = Scored {
                order_id: &order.order_id,
                customer_id: &order.customer_id,
                amount_in_cents: order.amount_in_cents,
                large: order.amount_in_cents > 50_000,
            };
            self.value.clear();
            sonic_rs::to_writer(&mut self.value, &scored)?;
            self.producer
                .produce(message.key, &self.value, order.submitted_at)?;
            self.done.produced += 1;
        }
        self.next[message.partition as usize] = message.offset + 1;
        self.done.consumed += 1;
        Ok(())
    }
}
