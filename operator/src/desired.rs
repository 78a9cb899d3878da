//! What a spec leads to: validated, dereferenced, settled in Kafka and built; or what is in the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::Claiming;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DynamicObject, ListParams};
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt as _};
use protocol::{ApplicationId, Claimant, Uid};
use serde_json::json;

use crate::build::{self, Children, Owner};
use crate::controller::{Error, resource};
use crate::decide::{Verdict, needs_migration};
use crate::kafka_state::{Application, Neighbour, Problem, Settled};
use crate::names;
use crate::reconcile::App;

/// How long topics, claim and assignment are taken for settled.
const SETTLED: Duration = Duration::from_secs(60);

/// What a spec that is in order leads to.
pub(crate) struct Desired {
    pub(crate) children: Children,
    pub(crate) application: Application,
    pub(crate) image: String,
    pub(crate) settled: Settled,
    /// What the spec wants and is not done (yet).
    pub(crate) pending: Option<Verdict>,
}

impl App<'_> {
    /// Validates, dereferences, settles the Kafka side and builds; or what is in the way.
    pub(crate) async fn desired(
        &self,
        existing: Option<&StatefulSet>,
    ) -> Result<Result<Desired, Verdict>, Error> {
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
        if let Some(verdict) = self.refused(&loaded, existing, &children).await? {
            return Ok(Err(verdict));
        }
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

    /// Why the application cannot go on with this topology, unless a person has accepted that. One that is in the configuration that
    /// the pods are made of is not looked at again.
    async fn refused(
        &self,
        loaded: &crds::Loaded,
        existing: Option<&StatefulSet>,
        children: &Children,
    ) -> Result<Option<Verdict>, Error> {
        let Some(running) = existing.and_then(build::config_name_of) else {
            return Ok(None);
        };
        let generation = self.object.metadata.generation.unwrap_or_default();
        let accepted = self.object.annotations().get(names::ACCEPT_TOPOLOGY);
        if running == children.config.name_any()
            || accepted.is_some_and(|accepted| *accepted == generation.to_string())
        {
            return Ok(None);
        }
        let secret = self.api::<Secret>().get_opt(running).await?;
        let running = secret.as_ref().and_then(build::topology_of);
        let new = topology::compare::Version {
            topology: &loaded.app.spec.topology,
            plan: &loaded.plan,
        };
        Ok(running.and_then(|running| needs_migration(&running, new, generation)))
    }

    pub(crate) fn load(&self) -> Result<Result<crds::Loaded, Verdict>, Error> {
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
    pub(crate) async fn kafka_config(
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

    pub(crate) fn application(
        &self,
        app: &crds::StreamApp,
        kafka: protocol::KafkaConfig,
        replicas: u32,
    ) -> Application {
        let Owner { namespace, name, uid } = &self.owner;
        Application {
            id: ApplicationId(app.application_id().to_owned()),
            kafka,
            replication_factor: app.spec.kafka.internal_topics.replication_factor,
            replicas,
            standbys: app.spec.standbys,
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

    /// Claim, topics and assignment; asked again when something that they depend on changed, and now and then.
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
        let plan = Arc::new(plan);
        let mut settled = settle(application, &plan, None).await?;
        if let Err(Problem::Claimed {
            owner,
            here: Neighbour::SameCluster,
            ..
        }) = &settled
            && self.is_gone(owner).await?
        {
            let text = format!(
                "taking over from {}, which does not exist any more",
                owner.description
            );
            self.event(EventType::Warning, "ClaimTakenOver", "Prepare", text)
                .await;
            settled = settle(application, &plan, Some(owner.clone())).await?;
        }
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
                let before = self.context.remember(uid, |memory| {
                    memory.settled.replace((key, Instant::now(), settled.clone()))
                });
                let is_news = before.is_none_or(|(_, _, before)| before.at_risk != settled.at_risk);
                if let Some(text) = control::at_risk(&settled.at_risk).filter(|_| is_news) {
                    self.event(EventType::Warning, "TopicsAtRisk", "Prepare", text)
                        .await;
                }
                Ok(Ok(settled))
            }
            Err(problem) => Ok(Err(problem)),
        }
    }

    /// Whether the owner of a claim is gone for good: a uid never comes back. Asked after the claim was read, since an owner
    /// exists before its claim does. Where only some namespaces are watched nobody can tell, and the claim stands.
    async fn is_gone(&self, owner: &Claimant) -> Result<bool, Error> {
        let is_owner = |uid: Option<String>| uid.is_some_and(|uid| uid == owner.uid.0);
        let Some(known) = self.context.apps.get() else {
            return Ok(false);
        };
        if known.state().iter().any(|app| is_owner(app.uid())) {
            return Ok(false);
        }
        let api = Api::<DynamicObject>::all_with(self.context.client.clone(), &resource());
        let all = api.list_metadata(&ListParams::default()).await?;
        Ok(!all.iter().any(|app| is_owner(app.uid())))
    }
}

/// Settles on a thread that may block; `gone` is an owner whose claim is taken over.
async fn settle(
    application: &Application,
    plan: &Arc<topology::Plan>,
    gone: Option<Claimant>,
) -> Result<Result<Settled, Problem>, Error> {
    let (application, plan) = (application.clone(), Arc::clone(plan));
    tokio::task::spawn_blocking(move || {
        let claiming = gone.as_ref().map_or(Claiming::Respect, Claiming::From);
        application.settle(&plan, claiming)
    })
    .await
    .map_err(|_| Error::CutOff)
}

pub(crate) fn replicas_of(set: &StatefulSet) -> Option<u32> {
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
