//! The finalizer: a StreamApp goes when its workers have ended and its claim is released, or when a deadline is over.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::events::EventType;
use serde_json::json;

use crate::controller::Error;
use crate::names;
use crate::reconcile::{App, SOON};

/// How long a deletion may take before it goes on without its workers' end or Kafka: their grace period and some.
const DELETION: Duration = Duration::from_secs(75);
/// How long a claim's release may take.
const RELEASE: Duration = Duration::from_secs(15);

impl App<'_> {
    pub(crate) async fn finalizer(&self) -> Result<(), Error> {
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
    pub(crate) async fn delete(&self) -> Result<Option<Duration>, Error> {
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
}
