//! The operator process: takes the lease, then reconciles StreamApps until it loses it or is told to end. One reconcile goes
//!
//! ```text
//! dereference → validate → Kafka (topics, claim, assignment) → build → apply → observe → decide → status
//! ```
//!
//! [`build`], [`decide`] and [`status`] are pure; `reconcile` (with `desired` and `deletion`) is the one place that asks and acts.

mod build;
mod context;
mod controller;
mod decide;
mod deletion;
mod desired;
mod http;
mod kafka_state;
mod lease;
mod names;
mod observe;
mod reconcile;
mod status;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use kube::Client;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::context::Context;
use crate::controller::run;
use crate::http::Metrics;
use crate::lease::Leadership;

/// Reconciles StreamApps into StatefulSets, Kafka topics and assignments.
#[derive(Debug, Parser)]
#[command(name = "streamapp-operator", version)]
struct Args {
    /// Image of the workers of apps that name none.
    #[arg(long, env = "STREAMAPP_WORKER_IMAGE")]
    worker_image: String,
    /// Namespaces to look at; all when empty.
    #[arg(long, env = "STREAMAPP_WATCH_NAMESPACES", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// Address of `/livez /readyz /metrics`.
    #[arg(long, env = "STREAMAPP_HTTP_LISTEN", default_value = "0.0.0.0:8080")]
    http_listen: String,
    /// Namespace of the lease: the operator's own.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    namespace: String,
    /// This operator among its replicas.
    #[arg(long, env = "POD_NAME", default_value = "streamapp-operator")]
    identity: String,
}

/// Name of the lease.
const LEASE: &str = "streamapp-operator";

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    // Before anything that takes time: to process 1 of a container, a signal that it does not handle is as good as not sent.
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let args = Args::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("STREAMAPP_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match operate(args, signals).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "operator failed");
            ExitCode::from(1)
        }
    }
}

type Received = std::io::Result<Signal>;

async fn operate(args: Args, (terminate, interrupt): (Received, Received)) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (terminate?, interrupt?);
    let client = Client::try_default()
        .await
        .context("find the Kubernetes API (in a pod, or through KUBECONFIG)")?;
    let metrics = Metrics::default();
    let served = tokio::spawn({
        let (listen, metrics) = (args.http_listen.clone(), metrics.clone());
        async move { http::serve(&listen, metrics).await }
    });
    let ended = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let mut leadership = Leadership::new(client.clone(), &args.namespace, LEASE, &args.identity);
    let acted = async {
        tracing::info!(identity = args.identity, "waiting for the lease");
        leadership.acquire().await;
        tracing::info!(identity = args.identity, "this operator acts");
        metrics.leader.set(1);
        let namespaces = args
            .watch_namespaces
            .into_iter()
            .filter(|namespace| !namespace.is_empty())
            .collect();
        let context = Context::new(client, metrics.clone(), args.worker_image, &args.identity).await?;
        tokio::select! {
            // Whoever lost the lease begins anew as a process: nothing of what it knew may act.
            () = leadership.hold() => anyhow::bail!("the lease was lost"),
            () = run(context, namespaces) => anyhow::bail!("the controller ended"),
        }
    };
    tokio::select! {
        result = acted => return result,
        served = served => return served?.context("serve the status endpoint"),
        () = ended => {}
    }
    leadership.release().await;
    Ok(())
}
