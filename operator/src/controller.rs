//! Watches StreamApps and their children, and reconciles what changed. What the operator itself writes into a status is no
//! reason to reconcile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, Predicate as _, WatchStreamExt as _, predicates, reflector, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};

use crate::context::Context;
use crate::names;
use crate::reconcile::App;

/// Longest wait after a failed reconcile.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// Why a reconcile could not be finished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Kubernetes refuses or does not answer.
    #[error("Kubernetes: {0}")]
    Kube(#[from] kube::Error),
    /// A document cannot be written.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A blocking call was cut off.
    #[error("a call to Kafka was cut off")]
    CutOff,
}

/// The kind, as the API server knows it.
#[must_use]
pub(crate) fn resource() -> ApiResource {
    let kind = GroupVersionKind::gvk(crds::GROUP, crds::VERSION, "StreamApp");
    ApiResource::from_gvk_with_plural(&kind, crds::PLURAL)
}

/// Reconciles until the process ends. Without namespaces: all of the cluster.
pub(crate) async fn run(context: Arc<Context>, namespaces: Vec<String>) {
    let controllers: Vec<_> = if namespaces.is_empty() {
        vec![controller(Arc::clone(&context), None)]
    } else {
        let each = namespaces.iter();
        each.map(|namespace| controller(Arc::clone(&context), Some(namespace)))
            .collect()
    };
    futures::future::join_all(controllers).await;
}

fn api<K>(client: &Client, namespace: Option<&str>, kind: &K::DynamicType) -> Api<K>
where
    K: Resource<Scope = kube::core::DynamicResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, kind),
        None => Api::all_with(client.clone(), kind),
    }
}

fn children_api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

async fn controller(context: Arc<Context>, namespace: Option<&String>) {
    let (client, namespace) = (context.client.clone(), namespace.map(String::as_str));
    let kind = resource();
    let writer = reflector::store::Writer::<DynamicObject>::new(kind.clone());
    let store = writer.as_reader();
    let apps = watcher(api(&client, namespace, &kind), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .applied_objects()
        .predicate_filter(
            predicates::generation
                .combine(predicates::annotations)
                .combine(predicates::finalizers),
            Default::default(),
        );
    if namespace.is_none() {
        let _ = context.apps.set(store.clone());
    }
    let (label, value) = names::COMPONENT;
    let ours = watcher::Config::default().labels(&format!("{label}={value}"));
    let dyntype = kind.clone();
    Controller::for_stream_with(apps, store, kind)
        .owns(children_api::<StatefulSet>(&client, namespace), ours.clone())
        .watches(children_api::<Pod>(&client, namespace), ours, move |pod| {
            let app = pod.labels().get(names::INSTANCE)?;
            let namespace = pod.namespace()?;
            Some(ObjectRef::new_with(app, dyntype.clone()).within(&namespace))
        })
        .run(reconcile, failed, context)
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(%error, "reconcile");
            }
        })
        .await;
}

fn failed(object: Arc<DynamicObject>, error: &Error, context: Arc<Context>) -> Action {
    let uid = object.uid().unwrap_or_default();
    let failures = context.remember(&uid, |memory| {
        memory.failures = memory.failures.saturating_add(1);
        memory.failures
    });
    tracing::warn!(%error, app = object.name_any(), namespace = object.namespace(), failures, "reconcile failed");
    context.metrics.reconciled("error", Duration::ZERO);
    let backoff = Duration::from_secs(1 << failures.min(6));
    Action::requeue(backoff.min(LONGEST_BACKOFF))
}

#[tracing::instrument(skip_all, fields(app = object.name_any(), namespace = object.namespace()))]
async fn reconcile(object: Arc<DynamicObject>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let app = App::new(&object, &context);
    let (outcome, again) = if object.metadata.deletion_timestamp.is_some() {
        ("deleting", app.delete().await?)
    } else {
        app.finalizer().await?;
        app.reconcile().await?
    };
    context.remember(&app.owner.uid, |memory| memory.failures = 0);
    context.note(&app.owner.uid, again.map(|_| outcome));
    context.metrics.reconciled(outcome, started.elapsed());
    Ok(again.map_or_else(Action::await_change, Action::requeue))
}
