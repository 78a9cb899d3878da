//! `streamapp-e2e generate`: writes orders at a set rate, the same ones for the same seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::ToBytes;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use serde::Serialize;

use crate::broker::Broker;
use crate::orders::{BASE_MS, Orders};

/// How long the last records may take to be acknowledged.
const ACKNOWLEDGE: Duration = Duration::from_secs(60);
/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(5);

/// The key of each record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum KeyedBy {
    /// Its order's id
    Order,
    /// Its customer's id
    Customer,
}

impl KeyedBy {
    /// As the command line names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            KeyedBy::Order => "order",
            KeyedBy::Customer => "customer",
        }
    }
}

/// Writes seeded orders: value = JSON, spread over all partitions by their keys as Kafka's own clients would.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Generate {
    #[command(flatten)]
    pub(crate) broker: Broker,
    /// Topic to write to; it must exist
    #[arg(long, default_value = "orders.submitted.v1")]
    pub(crate) topic: String,
    /// The key of each record
    #[arg(long, value_enum, default_value_t = KeyedBy::Order)]
    pub(crate) keyed_by: KeyedBy,
    /// How many orders
    #[arg(long, default_value_t = 200_000)]
    pub(crate) count: u64,
    /// The number of the first order: to continue what an earlier run wrote with the same seed
    #[arg(long, default_value_t = 0)]
    pub(crate) first: u64,
    /// Orders a second; 0 = as fast as possible
    #[arg(long, default_value_t = 5_000)]
    pub(crate) rate: u64,
    /// How many customers share the orders
    #[arg(long, default_value_t = 2_000)]
    pub(crate) customers: u64,
    /// Largest amount, in cents
    #[arg(long, default_value_t = 100_000)]
    pub(crate) max_amount_cents: u64,
    /// Same seed, same orders
    #[arg(long, default_value_t = 7)]
    pub(crate) seed: u64,
    /// Write malformed JSON instead of the order with this number
    #[arg(long, value_name = "N")]
    pub(crate) bad_at: Option<u64>,
    /// Tell no progress
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// The last line of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Generated {
    orders: u64,
    seconds: f64,
    rate: f64,
}

/// Counts what the broker refused.
#[derive(Default)]
struct Deliveries {
    failed: AtomicU64,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {
        if let Err((error, _)) = result
            && self.failed.fetch_add(1, Ordering::Relaxed) == 0
        {
            eprintln!("generate: a record was not delivered: {error}");
        }
    }
}

/// Writes the orders and waits until all of them are acknowledged.
pub(crate) fn run(args: &Generate) -> Result<Generated> {
    run_telling(args, |_| {})
}

/// The same; `sent` gets the number of each order right before the client gets the order.
pub(crate) fn run_telling(args: &Generate, sent: impl FnMut(u64)) -> Result<Generated> {
    let consumer = args
        .broker
        .consumer("streamapp-e2e", crate::broker::Isolation::Uncommitted)?;
    args.broker.partitions(&consumer, &args.topic)?;
    drop(consumer);
    let producer: BaseProducer<Deliveries> = args
        .broker
        .config()
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "5")
        .set("batch.size", "262144")
        .set("queue.buffering.max.messages", "200000")
        .create_with_context(Deliveries::default())
        .context("cannot make a producer")?;
    let start = Instant::now();
    produce(args, &producer, start, sent)?;
    acknowledge(&producer)?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Generated {
        orders: args.count,
        seconds,
        rate: args.count as f64 / seconds,
    })
}

fn produce(
    args: &Generate,
    producer: &BaseProducer<Deliveries>,
    start: Instant,
    mut sent: impl FnMut(u64),
) -> Result<()> {
    let orders = Orders {
        seed: args.seed,
        customers: args.customers,
        max_amount_cents: args.max_amount_cents,
    };
    let (mut key, mut value) = (String::new(), String::new());
    let mut told = start;
    for done in 0..args.count {
        let index = args.first + done;
        match args.keyed_by {
            KeyedBy::Order => Orders::write_key(index, &mut key),
            KeyedBy::Customer => orders.write_customer(index, &mut key),
        }
        if args.bad_at == Some(index) {
            value.clear();
            value.push_str(r#"{"orderId":"bad","customerId":"#);
        } else {
            orders.write_value(index, &mut value);
        }
        let timestamp = BASE_MS.saturating_add_unsigned(index);
        sent(index);
        send(
            producer,
            BaseRecord::to(&args.topic)
                .key(&key)
                .payload(&value)
                .timestamp(timestamp),
        )?;
        if done % 1_000 == 0 {
            producer.poll(Duration::ZERO);
            if !args.quiet && told.elapsed() >= PROGRESS {
                told = Instant::now();
                eprintln!("generate: {done} of {} orders", args.count);
            }
        }
        keep_rate(args.rate, done + 1, producer, start);
    }
    Ok(())
}

/// Hands one record over, waiting while librdkafka's queue is full.
pub(crate) fn send<K: ToBytes + ?Sized, P: ToBytes + ?Sized, C: ProducerContext<DeliveryOpaque = ()>>(
    producer: &BaseProducer<C>,
    mut record: BaseRecord<'_, K, P>,
) -> Result<()> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                record = refused;
                producer.poll(Duration::from_millis(10));
            }
            Err((error, _)) => bail!("cannot produce: {error}"),
        }
    }
}

/// Serves the producer's callbacks until it is time for the next record.
fn keep_rate(rate: u64, done: u64, producer: &BaseProducer<Deliveries>, start: Instant) {
    if rate == 0 {
        return;
    }
    let due = start + Duration::from_secs_f64(done as f64 / rate as f64);
    // Early by less than this is on time: a poll for each record would cost more than the record.
    let tolerance = Duration::from_millis(5);
    while due > Instant::now() + tolerance {
        producer.poll(
            due.saturating_duration_since(Instant::now())
                .min(Duration::from_millis(50)),
        );
    }
}

fn acknowledge(producer: &BaseProducer<Deliveries>) -> Result<()> {
    let start = Instant::now();
    while producer.in_flight_count() > 0 {
        if start.elapsed() > ACKNOWLEDGE {
            bail!(
                "{} records were not acknowledged in time",
                producer.in_flight_count()
            );
        }
        producer.poll(Duration::from_millis(20));
    }
    producer.poll(Duration::ZERO);
    let context: &Arc<Deliveries> = producer.context();
    match context.failed.load(Ordering::Relaxed) {
        0 => Ok(()),
        failed => bail!("{failed} records were not delivered"),
    }
}
