//! One reconcile of one StreamApp: asks, decides by pure functions, acts.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::build::{Children, Owner};
use crate::context::Context;
use crate::controller::{Error, resource};
use crate::decide::{PodView, Verdict, judge, to_replace};
use crate::desired::replicas_of;
use crate::{names, observe, status};

/// When to look again at an application that runs: lag in its status is this old at most.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// When to look again while something is under way.
pub(crate) const SOON: Duration = Duration::from_secs(2);

/// Kubernetes' bound on the text of an Event, in bytes; characters here have up to four.
const NOTE_CHARS: usize = 250;

/// One StreamApp under reconcile.
pub(crate) struct App<'a> {
    pub(crate) object: &'a DynamicObject,
    pub(crate) context: &'a Context,
    pub(crate) owner: Owner,
}

impl<'a> App<'a> {
    pub(crate) fn new(object: &'a DynamicObject, context: &'a Context) -> Self {
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

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.context.client.clone(), &self.owner.namespace)
    }

    pub(crate) fn own_api(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.context.client.clone(), &self.owner.namespace, &resource())
    }

    pub(crate) async fn reconcile(&self) -> Result<(&'static str, Option<Duration>), Error> {
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
        if pods.iter().any(PodView::has_lost_kafka) {
            // Kafka is asked at the next look, not when its last answer has aged.
            self.context
                .remember(&self.owner.uid, |memory| memory.settled = None);
        }
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

    pub(crate) async fn pods(&self) -> Result<Vec<PodView>, Error> {
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
    pub(crate) async fn event(&self, kind: EventType, reason: &str, action: &str, note: String) {
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
