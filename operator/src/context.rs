//! What all reconciles share: clients, metrics, and what each application was like last time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::DynamicObject;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::Store;
use kube::{Api, Client, ResourceExt as _};

use crate::http::Metrics;
use crate::kafka_state::Settled;
use crate::names;

/// What an application was like at its last reconcile.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// What was settled, when, and what came of it.
    pub(crate) settled: Option<(String, Instant, Settled)>,
    pub(crate) outcome: Option<&'static str>,
    /// The reason that people were told last.
    pub(crate) told: Option<String>,
    pub(crate) failures: u32,
}

/// What all reconciles share.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Metrics,
    pub(crate) worker_image: String,
    /// The cluster's id: the uid of its `kube-system` namespace.
    pub(crate) cluster: String,
    memory: Mutex<BTreeMap<String, Memory>>,
    /// Every StreamApp of the cluster; empty when only some namespaces are watched.
    pub(crate) apps: OnceLock<Store<DynamicObject>>,
}

impl Context {
    /// Looks up the cluster's id.
    ///
    /// # Errors
    /// When Kubernetes does not answer.
    pub(crate) async fn new(
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

    pub(crate) fn remember<T>(&self, uid: &str, change: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        change(memory.entry(uid.to_owned()).or_default())
    }

    pub(crate) fn note(&self, uid: &str, outcome: Option<&'static str>) {
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
