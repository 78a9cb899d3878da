//! `/livez /readyz /metrics` of the operator.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds of the reconcile duration, in seconds.
const SECONDS: [f64; 8] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];

/// What a reconcile ended with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Outcome {
    /// `ready`, `progressing`, `stalled`, `deleting` or `error`.
    pub(crate) outcome: String,
}

/// The operator's metrics.
#[derive(Clone)]
pub(crate) struct Metrics {
    /// Reconciles by outcome.
    pub(crate) reconciles: Family<Outcome, Counter>,
    /// How long a reconcile took.
    pub(crate) duration: Histogram,
    /// Applications by outcome of their last reconcile.
    pub(crate) apps: Family<Outcome, Gauge>,
    /// Pods that were replaced by a roll.
    pub(crate) replaced: Counter,
    /// 1 on the operator that acts.
    pub(crate) leader: Gauge<i64, AtomicI64>,
    registry: Arc<Registry>,
}

impl Default for Metrics {
    fn default() -> Self {
        let reconciles = Family::<Outcome, Counter>::default();
        let apps = Family::<Outcome, Gauge>::default();
        let duration = Histogram::new(SECONDS);
        let replaced = Counter::default();
        let leader = Gauge::default();
        let mut registry = Registry::with_prefix("streamapp_operator");
        registry.register("reconciles", "Reconciles by outcome", reconciles.clone());
        registry.register(
            "apps",
            "StreamApps by outcome of their last reconcile",
            apps.clone(),
        );
        registry.register_with_unit(
            "reconcile_duration",
            "How long a reconcile took",
            Unit::Seconds,
            duration.clone(),
        );
        registry.register(
            "pods_replaced",
            "Worker pods replaced by a roll",
            replaced.clone(),
        );
        registry.register("leader", "1 on the operator that acts", leader.clone());
        Self {
            reconciles,
            duration,
            apps,
            replaced,
            leader,
            registry: Arc::new(registry),
        }
    }
}

impl Metrics {
    /// Notes a reconcile.
    pub(crate) fn reconciled(&self, outcome: &str, took: Duration) {
        let outcome = Outcome {
            outcome: outcome.to_owned(),
        };
        self.reconciles.get_or_create(&outcome).inc();
        self.duration.observe(took.as_secs_f64());
    }
}

/// Serves until the process ends.
///
/// # Errors
/// When the address cannot be used.
pub(crate) async fn serve(listen: &str, metrics: Metrics) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(|| async { "ok" }))
        // An operator that waits for the lease is as ready as the one that has it.
        .route("/readyz", get(|| async { "ok" }))
        .route("/metrics", get(move || async move { text(&metrics.registry) }));
    axum::serve(tokio::net::TcpListener::bind(listen).await?, router).await
}

fn text(registry: &Registry) -> (StatusCode, [(&'static str, &'static str); 1], String) {
    let mut text = String::new();
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match encode(&mut text, registry) {
        Ok(()) => (StatusCode::OK, [("content-type", kind)], text),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [("content-type", "text/plain")],
            error.to_string(),
        ),
    }
}
