//! One reconcile of one StreamApp: asks, decides by pure functions, acts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions};
use kube::core::GroupVersionKind;
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, Predicate as _, WatchStreamExt as _, predicates, reflector, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use protocol::{ApplicationId, Claimant, Uid};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::build::{self, Children, Owner};
use crate::decide::{PodView, Verdict, judge, to_replace};
use crate::http::Metrics;
use crate::kafka_state::{Application, Problem, Settled};
use crate::{names, observe, status};

/// When to look again at an application that runs: lag in its status is this old at most.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// When to look again while something is under way.
const SOON: Duration = Duration::from_secs(2);
/// How long topics, claim and assignment are taken for settled.
const SETTLED: Duration = Duration::from_secs(60);
/// Longest wait after a failed reconcile.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// How long a deletion may take before it goes on without its workers' end or Kafka: their grace period and some.
const DELETION: Duration = Duration::from_secs(75);
/// How long a claim's release may take.
const RELEASE: Duration = Duration::from_secs(15);

/// Why a reconcile could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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

/// What an application was like at its last reconcile.
#[derive(Debug, Default)]
struct Memory {
    /// What was settled, when, and what came of it.
    settled: Option<(String, Instant, Settled)>,
    outcome: Option<&'static str>,
    /// The reason that people were told last.
    told: Option<String>,
    failures: u32,
}

/// What all reconciles share.
pub struct Context {
    client: Client,
    recorder: Recorder,
    metrics: Metrics,
    worker_image: String,
    /// The cluster's id: the uid of its `kube-system` namespace.
    cluster: String,
    memory: Mutex<BTreeMap<String, Memory>>,
    /// Every StreamApp of the cluster; empty when only some namespaces are watched.
    apps: OnceLock<Store<DynamicObject>>,
}

impl Context {
    /// Looks up the cluster's id.
    ///
    /// # Errors
    /// When Kubernetes does not answer.
    pub async fn new(
        client: Client,
        metrics: Metrics,
        worker_image: String,
        identity: &str,
    ) -> Result<Arc<Self>, kube::Error> {
        let system = Api::<Namespace>::all(client.clone()).get("kube-system").await?;
        let reporter = Reporter {
            controller: names::MANAGER.to_owned(),
            instance: Some(identity.to_owned()),
        };
        Ok(Arc::new(Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            metrics,
            worker_image,
            cluster: system.uid().unwrap_or_default(),
            memory: Mutex::default(),
            apps: OnceLock::new(),
        }))
    }

    fn remember<T>(&self, uid: &str, change: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        change(memory.entry(uid.to_owned()).or_default())
    }

    fn note(&self, uid: &str, outcome: Option<&'static str>) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Some(_) => memory.entry(uid.to_owned()).or_default().outcome = outcome,
            None => {
                memory.remove(uid);
            }
        }
        for outcome in ["ready", "progressing", "stalled", "deleting"] {
            let count = memory.values().filter(|app| app.outcome == Some(outcome)).count();
            self.metrics
                .apps
                .get_or_create(&crate::http::Outcome {
                    outcome: outcome.to_owned(),
                })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

/// The kind, as the API server knows it.
#[must_use]
pub fn resource() -> ApiResource {
    let kind = GroupVersionKind::gvk(crds::GROUP, crds::VERSION, "StreamApp");
    ApiResource::from_gvk_with_plural(&kind, crds::PLURAL)
}

/// Reconciles until the process ends. Without namespaces: all of the cluster.
pub async fn run(context: Arc<Context>, namespaces: Vec<String>) {
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
    // What the operator itself writes into the status is no reason to reconcile.
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

/// One StreamApp under reconcile.
struct App<'a> {
    object: &'a DynamicObject,
    context: &'a Context,
    owner: Owner,
}

/// What a spec that is in order leads to.
struct Desired {
    children: Children,
    application: Application,
    image: String,
    settled: Settled,
    /// What the spec wants and is not done (yet).
    pending: Option<Verdict>,
}

impl<'a> App<'a> {
    fn new(object: &'a DynamicObject, context: &'a Context) -> Self {
        Self {
            owner: Owner {
                namespace: object.namespace().unwrap_or_default(),
                name: object.name_any(),
                uid: object.uid().unwrap_or_default(),
            },
            object,
            context,
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.context.client.clone(), &self.owner.namespace)
    }

    fn own_api(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.context.client.clone(), &self.owner.namespace, &resource())
    }

    async fn reconcile(&self) -> Result<(&'static str, Option<Duration>), Error> {
        let before: crds::Status = self
            .object
            .data
            .get("status")
            .and_then(|status| serde_json::from_value(status.clone()).ok())
            .unwrap_or_default();
        let existing = self.api::<StatefulSet>().get_opt(&self.owner.name).await?;
        let desired = self.desired(existing.as_ref()).await?;
        if let Ok(desired) = &desired {
            self.apply_all(&desired.children).await?;
        }
        let mut pods = self.pods().await?;
        observe::ask(&mut pods).await;
        let replicas = match (&desired, &existing) {
            (Ok(desired), _) => desired.application.replicas,
            (Err(_), existing) => existing.as_ref().and_then(replicas_of).unwrap_or(0),
        };
        let verdict = match &desired {
            Ok(desired) => {
                let revision = &desired.children.revision;
                if let Some(pod) = to_replace(revision, replicas, &pods) {
                    self.replace(pod, revision).await?;
                }
                let verdict = judge(revision, replicas, &pods);
                match (&verdict, &desired.pending) {
                    (Verdict::Ready, Some(pending)) => pending.clone(),
                    _ => verdict,
                }
            }
            Err(verdict) => verdict.clone(),
        };
        if let (Ok(desired), Verdict::Ready) = (&desired, &verdict) {
            self.forget_old_configurations(&desired.children).await?;
        }
        self.tell(&before, &verdict).await;
        let now = Timestamp::now().to_string();
        let desired = desired.ok();
        let now = status::status(&status::Input {
            app: &self.owner.name,
            generation: self.object.metadata.generation,
            application_id: desired.as_ref().map_or("", |desired| &desired.application.id.0),
            revision: desired.as_ref().map_or("", |desired| &desired.children.revision),
            image: desired.as_ref().map_or("", |desired| &desired.image),
            replicas,
            pods: &pods,
            tasks: desired.as_ref().map(|desired| desired.settled.tasks),
            topology: desired
                .as_ref()
                .map(|desired| desired.settled.topology.clone())
                .unwrap_or_default(),
            verdict: &verdict,
            before: &before,
            now: &now,
        });
        if now != before {
            let patch = Patch::Merge(json!({"status": now}));
            self.own_api()
                .patch_status(&self.owner.name, &PatchParams::default(), &patch)
                .await?;
        }
        Ok(match verdict {
            Verdict::Ready => ("ready", Some(LOOK_AGAIN)),
            Verdict::Progressing { .. } => ("progressing", Some(SOON)),
            Verdict::Stalled { .. } => ("stalled", Some(LOOK_AGAIN)),
        })
    }

    /// Validates, dereferences, settles the Kafka side and builds; or what is in the way.
    async fn desired(&self, existing: Option<&StatefulSet>) -> Result<Result<Desired, Verdict>, Error> {
        let loaded = match self.load()? {
            Ok(loaded) => loaded,
            Err(verdict) => return Ok(Err(verdict)),
        };
        let kafka = match self.kafka_config(&loaded.app).await? {
            Ok(kafka) => kafka,
            Err(verdict) => return Ok(Err(verdict)),
        };
        let wanted = loaded.app.spec.replicas;
        let replicas = existing.and_then(replicas_of).unwrap_or(wanted);
        let config = loaded.app.worker_config(kafka.clone(), build::place());
        let application = self.application(&loaded.app, kafka, replicas);
        // The image of an app that names none stays what it was: an operator of another version restarts nothing.
        let image = loaded
            .app
            .spec
            .image
            .clone()
            .or_else(|| existing.and_then(image_of))
            .unwrap_or_else(|| self.context.worker_image.clone());
        let mut spec = loaded.app.spec.clone();
        let mut pending = (replicas != wanted).then(|| {
            Verdict::progressing(
                "ScalePending",
                format!("spec.replicas is {wanted}, {replicas} workers run: scaling is not supported yet; everything goes on with {replicas}"),
            )
        });
        if let Some(size) = existing.and_then(volume_size_of)
            && size != spec.state.volume.size
        {
            pending = pending.or(Some(Verdict::progressing(
                "VolumeGrowthPending",
                format!(
                    "spec.state.volume.size is {}, the volumes have {size}: growing is not supported yet",
                    spec.state.volume.size
                ),
            )));
            spec.state.volume.size = size;
        }
        let annotations = self.object.annotations();
        let children = build::children(&build::Input {
            owner: &self.owner,
            spec: &spec,
            image: &image,
            replicas,
            config: &config,
            keep_repartition_records: annotations
                .get(names::KEEP_REPARTITION)
                .is_some_and(|value| value == "true"),
        })?;
        let settled = match self.settle(&application, loaded.plan, &children).await? {
            Ok(settled) => settled,
            Err(problem) => return Ok(Err(problem.verdict(&application.kafka.bootstrap_servers))),
        };
        Ok(Ok(Desired {
            children,
            application,
            image,
            settled,
            pending,
        }))
    }

    fn load(&self) -> Result<Result<crds::Loaded, Verdict>, Error> {
        let metadata = &self.object.metadata;
        let document = json!({
            "apiVersion": format!("{}/{}", crds::GROUP, crds::VERSION),
            "kind": "StreamApp",
            "metadata": {"name": metadata.name, "namespace": metadata.namespace},
            "spec": self.object.data.get("spec"),
        });
        let text = serde_json::to_string_pretty(&document)?;
        Ok(crds::load(&text).map_err(|diagnostics| {
            let in_topology = diagnostics
                .iter()
                .any(|found| found.path.starts_with("spec.topology"));
            let told: Vec<_> = diagnostics
                .iter()
                .map(|found| {
                    let suggestion = found
                        .suggestion
                        .as_ref()
                        .map_or_else(String::new, |text| format!(" ({text})"));
                    format!("{}: {}{suggestion}", found.path, found.message)
                })
                .collect();
            let reason = if in_topology {
                "InvalidTopology"
            } else {
                "InvalidSpec"
            };
            Verdict::stalled(reason, told.join("; "))
        }))
    }

    /// Looks into the Secrets that the spec names.
    async fn kafka_config(
        &self,
        app: &crds::StreamApp,
    ) -> Result<Result<protocol::KafkaConfig, Verdict>, Error> {
        let mut secrets = BTreeMap::new();
        for name in app
            .secret_keys()
            .into_iter()
            .map(|key| key.secret)
            .collect::<BTreeSet<_>>()
        {
            let secret = self.api::<Secret>().get_opt(&name).await?;
            secrets.insert(name, secret.map(|secret| secret.data.unwrap_or_default()));
        }
        Ok(app.kafka_config(|key| {
            let missing = |what: &str| {
                let (path, secret, namespace) = (key.path, &key.secret, &self.owner.namespace);
                Verdict::stalled(
                    "SecretMissing",
                    format!("{path}: Secret `{secret}` of namespace {namespace} {what}"),
                )
            };
            let data = secrets
                .get(&key.secret)
                .and_then(Option::as_ref)
                .ok_or_else(|| missing("does not exist; create it"))?;
            let value = data
                .get(&key.key)
                .ok_or_else(|| missing(&format!("has no key `{}`", key.key)))?;
            String::from_utf8(value.0.clone()).map_err(|_| missing(&format!("key `{}` is no text", key.key)))
        }))
    }

    fn application(&self, app: &crds::StreamApp, kafka: protocol::KafkaConfig, replicas: u32) -> Application {
        let Owner { namespace, name, uid } = &self.owner;
        Application {
            id: ApplicationId(app.application_id().to_owned()),
            kafka,
            replication_factor: app.spec.kafka.internal_topics.replication_factor,
            replicas,
            claimant: Claimant {
                cluster: self.context.cluster.clone(),
                uid: Uid(uid.clone()),
                description: format!(
                    "StreamApp {namespace}/{name} of Kubernetes cluster {}",
                    self.context.cluster
                ),
            },
        }
    }

    /// Topics, claim and assignment; asked again when something that they depend on changed, and now and then.
    async fn settle(
        &self,
        application: &Application,
        plan: topology::Plan,
        children: &Children,
    ) -> Result<Result<Settled, Problem>, Error> {
        let uid = &self.owner.uid;
        let key = format!(
            "{} {} {}",
            self.object.metadata.generation.unwrap_or_default(),
            children.config.name_any(),
            application.replicas
        );
        let known = self.context.remember(uid, |memory| {
            let (known, since, settled) = memory.settled.as_ref()?;
            (*known == key && since.elapsed() < SETTLED).then(|| settled.clone())
        });
        if let Some(settled) = known {
            return Ok(Ok(settled));
        }
        let asked = application.clone();
        // Owners are looked up on this side: the blocking side knows nothing of Kubernetes. Where only some namespaces
        // are watched nobody can tell whether an owner lives, and its claim stands.
        let living: BTreeSet<String> = match self.context.apps.get() {
            Some(apps) => apps.state().iter().filter_map(|app| app.uid()).collect(),
            None => BTreeSet::new(),
        };
        let knows_all = self.context.apps.get().is_some();
        let settled = tokio::task::spawn_blocking(move || {
            asked.settle(&plan, |owner| !knows_all || living.contains(&owner.uid.0))
        })
        .await
        .map_err(|_| Error::CutOff)?;
        match settled {
            Ok(settled) => {
                if !settled.created.is_empty() {
                    let text = format!("created topics: {}", settled.created.join(", "));
                    self.event(EventType::Normal, "TopicsCreated", "Prepare", text)
                        .await;
                }
                if !settled.corrected.is_empty() {
                    let text = format!("somebody had changed {}", settled.corrected.join(", "));
                    self.event(EventType::Warning, "TopicsCorrected", "Prepare", text)
                        .await;
                }
                self.context.remember(uid, |memory| {
                    memory.settled = Some((key, Instant::now(), settled.clone()));
                });
                Ok(Ok(settled))
            }
            Err(problem) => Ok(Err(problem)),
        }
    }

    async fn apply_all(&self, children: &Children) -> Result<(), Error> {
        self.apply(&children.config).await?;
        self.apply(&children.service_account).await?;
        self.apply(&children.service).await?;
        self.apply(&children.disruption_budget).await?;
        self.apply(&children.network_policy).await?;
        self.apply(&children.stateful_set).await
    }

    /// Server-side apply: fields that nobody asked for stay other people's.
    async fn apply<K>(&self, child: &K) -> Result<(), Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let parameters = PatchParams::apply(names::MANAGER).force();
        self.api::<K>()
            .patch(&child.name_any(), &parameters, &Patch::Apply(child))
            .await?;
        Ok(())
    }

    async fn pods(&self) -> Result<Vec<PodView>, Error> {
        let selector = names::selector(&self.owner.name);
        let pods = self
            .api::<Pod>()
            .list(&ListParams::default().labels(&selector))
            .await?;
        let mut views: Vec<_> = pods
            .iter()
            .filter_map(|pod| observe::view(&self.owner.name, pod))
            .collect();
        views.sort_by_key(|pod| pod.ordinal);
        Ok(views)
    }

    /// Deletes a pod of another revision: exactly the one that was looked at.
    async fn replace(&self, pod: &PodView, revision: &str) -> Result<(), Error> {
        let exactly = DeleteParams::default().preconditions(Preconditions {
            uid: Some(pod.uid.clone()),
            resource_version: None,
        });
        match self.api::<Pod>().delete(&pod.name, &exactly).await {
            Ok(_) => {
                self.context.metrics.replaced.inc();
                let old = pod.revision.as_deref().unwrap_or("none");
                let text = format!("{}: revision {old} → {revision}", pod.name);
                self.event(EventType::Normal, "PodReplaced", "Roll", text).await;
                Ok(())
            }
            // Somebody else was faster.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes configurations that no pod was made of.
    async fn forget_old_configurations(&self, children: &Children) -> Result<(), Error> {
        let selector = ListParams::default().labels(&names::selector(&self.owner.name));
        let current = children.config.name_any();
        for secret in self.api::<Secret>().list_metadata(&selector).await? {
            let name = secret.name_any();
            if name != current && name.starts_with(&format!("{}-config-", self.owner.name)) {
                self.api::<Secret>()
                    .delete(&name, &DeleteParams::default())
                    .await?;
            }
        }
        Ok(())
    }

    async fn finalizer(&self) -> Result<(), Error> {
        let finalizers = self.object.finalizers();
        if finalizers.iter().any(|name| name == names::FINALIZER) {
            return Ok(());
        }
        let all: Vec<_> = finalizers
            .iter()
            .map(String::as_str)
            .chain([names::FINALIZER])
            .collect();
        self.set_finalizers(&all).await
    }

    async fn set_finalizers(&self, finalizers: &[&str]) -> Result<(), Error> {
        let patch = json!({"metadata": {
            "finalizers": finalizers,
            "resourceVersion": self.object.resource_version(),
        }});
        self.own_api()
            .patch(&self.owner.name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    /// Ends the workers, then lets go of the claim, then of the object. Has a deadline: it never hangs because Kafka or a
    /// node is away. Returns when to look again.
    async fn delete(&self) -> Result<Option<Duration>, Error> {
        if !self
            .object
            .finalizers()
            .iter()
            .any(|name| name == names::FINALIZER)
        {
            return Ok(None);
        }
        match self
            .api::<StatefulSet>()
            .delete(&self.owner.name, &DeleteParams::background())
            .await
        {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error.into()),
        }
        let overdue = self
            .object
            .metadata
            .deletion_timestamp
            .as_ref()
            .is_some_and(|since| {
                let age = Timestamp::now().duration_since(since.0);
                Duration::try_from(age).is_ok_and(|age| age > DELETION)
            });
        let pods = self.pods().await?;
        if !pods.is_empty() && !overdue {
            return Ok(Some(SOON));
        }
        if !pods.is_empty() {
            let left: Vec<_> = pods.iter().map(|pod| pod.name.as_str()).collect();
            let text = format!("not waiting any longer for {}", left.join(", "));
            self.event(EventType::Warning, "WorkersLeft", "Delete", text)
                .await;
        }
        if let Err(reason) = self.release().await? {
            if !overdue {
                tracing::info!(reason, "the claim cannot be released yet");
                return Ok(Some(SOON));
            }
            let text = format!(
                "the claim in Kafka stays: {reason}. An operator of this cluster takes it over when the id is used again"
            );
            self.event(EventType::Warning, "ClaimNotReleased", "Delete", text)
                .await;
        }
        let others: Vec<_> = self
            .object
            .finalizers()
            .iter()
            .map(String::as_str)
            .filter(|name| *name != names::FINALIZER)
            .collect();
        self.set_finalizers(&others).await?;
        Ok(None)
    }

    /// Releases the claim; the inner error says why not (yet).
    async fn release(&self) -> Result<Result<(), String>, Error> {
        // What cannot be read was never claimed under this spec.
        let Ok(loaded) = self.load()? else {
            return Ok(Ok(()));
        };
        let kafka = match self.kafka_config(&loaded.app).await? {
            Ok(kafka) => kafka,
            Err(verdict) => return Ok(Err(verdict.reason().to_owned())),
        };
        let application = self.application(&loaded.app, kafka, 0);
        let released = tokio::task::spawn_blocking(move || application.release());
        Ok(match tokio::time::timeout(RELEASE, released).await {
            Ok(Ok(released)) => released.map_err(|problem| problem.to_string()),
            Ok(Err(_)) | Err(_) => Err(format!("Kafka did not answer within {} s", RELEASE.as_secs())),
        })
    }

    /// An Event when what people are told has changed.
    async fn tell(&self, before: &crds::Status, verdict: &Verdict) {
        let earlier = before
            .conditions
            .iter()
            .find(|condition| condition.kind == "Ready")
            .map(|condition| condition.reason.clone());
        let reason = verdict.reason().to_owned();
        // The object that was read may be older than what this operator told last.
        let earlier = self
            .context
            .remember(&self.owner.uid, |memory| memory.told.replace(reason).or(earlier));
        if earlier.as_deref() == Some(verdict.reason()) {
            return;
        }
        let (kind, message) = match verdict {
            Verdict::Ready => (EventType::Normal, "every worker runs".to_owned()),
            Verdict::Progressing { message, .. } => (EventType::Normal, message.clone()),
            Verdict::Stalled { message, .. } => (EventType::Warning, message.clone()),
        };
        self.event(kind, verdict.reason(), "Reconcile", message).await;
    }

    /// Events help people; their loss stops nothing.
    async fn event(&self, kind: EventType, reason: &str, action: &str, note: String) {
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            note: Some(note.chars().take(NOTE_CHARS).collect()),
            action: action.to_owned(),
            secondary: None,
        };
        let about = self.object.object_ref(&resource());
        if let Err(error) = self.context.recorder.publish(&event, &about).await {
            tracing::debug!(%error, reason, "event not written");
        }
    }
}

/// Kubernetes' bound on the text of an Event, in bytes; characters here have up to four.
const NOTE_CHARS: usize = 250;

fn replicas_of(set: &StatefulSet) -> Option<u32> {
    u32::try_from(set.spec.as_ref()?.replicas?).ok()
}

fn image_of(set: &StatefulSet) -> Option<String> {
    let pod = set.spec.as_ref()?.template.spec.as_ref()?;
    pod.containers
        .iter()
        .find(|container| container.name == "worker")?
        .image
        .clone()
}

fn volume_size_of(set: &StatefulSet) -> Option<String> {
    let claim = set.spec.as_ref()?.volume_claim_templates.as_ref()?.first()?;
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    Some(requests.get("storage")?.0.clone())
}
