//! `/livez /readyz /status /metrics`, on a small runtime of their own: the data path has no async.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use engine::DropReason;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use protocol::{Phase, Totals, WorkerStatus};
use tokio::io::AsyncReadExt;

use crate::memory::Memory;
use crate::shared::Shared;

/// Serves on `listener`, and turns the end of standard input, if asked, into a drain.
pub(crate) fn serve(
    listener: std::net::TcpListener,
    shared: Arc<Shared>,
    end_with_stdin: bool,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("http".to_owned())
        .spawn(move || {
            runtime.block_on(async move {
                if end_with_stdin {
                    tokio::spawn(drain_at_end_of_stdin(Arc::clone(&shared)));
                }
                if let Err(error) = listen(listener, shared).await {
                    tracing::error!(%error, "status endpoint");
                }
            });
        })?;
    Ok(())
}

async fn listen(listener: std::net::TcpListener, shared: Arc<Shared>) -> std::io::Result<()> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics(Arc::clone(&shared))));
    let registry = Arc::new(registry);
    let router = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route(
            "/status",
            get(|State(shared): State<Arc<Shared>>| async move { Json(shared.status()) }),
        )
        .route("/metrics", get(move || async move { metrics(&registry) }))
        .with_state(shared);
    axum::serve(tokio::net::TcpListener::from_std(listener)?, router).await
}

async fn readyz(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    let phase = shared.phase();
    if phase == Phase::Running {
        (StatusCode::OK, "ok".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{phase:?}"))
    }
}

fn metrics(registry: &Registry) -> (StatusCode, [(&'static str, &'static str); 1], String) {
    let mut text = String::new();
    let status = match encode(&mut text, registry) {
        Ok(()) => StatusCode::OK,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (
        status,
        [(
            "content-type",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    )
}

/// `streamapp run` holds the other end: when it is gone, however it ended, the worker drains.
async fn drain_at_end_of_stdin(shared: Arc<Shared>) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0u8; 64];
    while !matches!(stdin.read(&mut buffer).await, Ok(0) | Err(_)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    shared.request_shutdown();
}

/// Reads the shared facts at scrape time.
#[derive(Debug)]
struct Metrics(Arc<Shared>);

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let status = self.0.status();
        let totals = status.totals;
        let counters = [
            (
                "streamapp_records_in",
                "Records processed in committed transactions",
                totals.records_in,
            ),
            (
                "streamapp_records_out",
                "Records written to sinks and repartition topics",
                totals.records_out,
            ),
            (
                "streamapp_changelog_records",
                "Records written to changelogs",
                totals.changelog_records,
            ),
            (
                "streamapp_transaction_commits",
                "Committed transactions",
                totals.commits,
            ),
            (
                "streamapp_transaction_aborts",
                "Transactions that ended without a commit",
                totals.aborts,
            ),
            (
                "streamapp_producer_fences",
                "Producers fenced by the broker",
                totals.fences,
            ),
            (
                "streamapp_producer_rebuilds",
                "Acquisitions after the first",
                totals.producer_rebuilds,
            ),
            ("streamapp_skipped_records", "Bad records skipped", totals.skipped),
            (
                "streamapp_records_skipped_by_hand",
                "Records that a person let a task pass over",
                totals.skipped_by_hand,
            ),
            (
                "streamapp_dead_letters",
                "Records sent to a dead-letter topic",
                totals.dead_letters,
            ),
            (
                "streamapp_restored_records",
                "Records read from changelogs",
                totals.restored_records,
            ),
            (
                "streamapp_restored_bytes",
                "Keys and values read from changelogs",
                totals.restored_bytes,
            ),
            (
                "streamapp_standby_records",
                "Records read from changelogs by copies of other workers' stores",
                totals.standby_records,
            ),
            (
                "streamapp_store_wipes",
                "Stores set aside and rebuilt",
                totals.store_wipes,
            ),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let help = "Records dropped by an operator's semantics";
        let mut family =
            encoder.encode_descriptor("streamapp_dropped_records", help, None, MetricType::Counter)?;
        for reason in DropReason::ALL {
            let counter = ConstCounter::new(dropped(&totals, reason));
            counter.encode(family.encode_family(&[("reason", reason.as_str())])?)?;
        }
        let memory = Memory::now().map_err(|_| std::fmt::Error)?;
        for (name, help, unit, value) in gauges(&status, memory) {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, unit.as_ref(), gauge.metric_type())?)?;
        }
        Ok(())
    }
}

fn dropped(totals: &Totals, reason: DropReason) -> u64 {
    match reason {
        DropReason::NullKey => totals.dropped_null_key,
        DropReason::NullValue => totals.dropped_null_value,
        DropReason::Late => totals.dropped_late,
        DropReason::Duplicate => totals.dropped_duplicate,
    }
}

fn gauges(status: &WorkerStatus, memory: Memory) -> [(&'static str, &'static str, Option<Unit>, i64); 7] {
    let bytes = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
    let failed = status
        .tasks
        .iter()
        .filter(|task| task.state == protocol::TaskState::Failed)
        .count();
    let restores = status.tasks.iter().filter_map(|task| task.restore);
    let remaining = restores.clone().map(|restore| restore.remaining).sum();
    let seconds_left = restores.map(|restore| restore.seconds_left).max();
    [
        (
            "streamapp_consumer_lag",
            "Records not yet read",
            Some(Unit::Other("records".to_owned())),
            status.lag,
        ),
        (
            "streamapp_open_transactions",
            "Transactions open now",
            None,
            i64::from(status.open_transactions),
        ),
        (
            "streamapp_failed_tasks",
            "Tasks stopped at a record",
            None,
            i64::try_from(failed).unwrap_or(i64::MAX),
        ),
        (
            "streamapp_restore_remaining",
            "Offsets still to restore",
            Some(Unit::Other("records".to_owned())),
            remaining,
        ),
        (
            "streamapp_restore_left",
            "Until the last store is restored, at the rate so far",
            Some(Unit::Seconds),
            seconds_left.unwrap_or(0),
        ),
        (
            "streamapp_memory_allocated",
            "Memory in use",
            Some(Unit::Bytes),
            bytes(memory.allocated),
        ),
        (
            "streamapp_memory_resident",
            "Memory that the allocator holds, in use or not",
            Some(Unit::Bytes),
            bytes(memory.resident),
        ),
    ]
}
