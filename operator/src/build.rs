//! The children of a StreamApp, as pure data. Nothing here asks anybody anything.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, LocalObjectReference,
    ObjectFieldSelector, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodSecurityContext, PodSpec,
    PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, Secret, SecretVolumeSource,
    SecurityContext, Service, ServiceAccount, ServicePort, ServiceSpec, Volume, VolumeMount,
    VolumeResourceRequirements,
};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use protocol::WorkerConfig;
use topology::declaration::Topology;

use crate::names;

/// User and group of the worker process; no user of the image has it.
const USER: i64 = 65_532;
/// How long a worker may drain before it is killed: a commit and the flush of its stores take seconds.
const GRACE_SECONDS: i64 = 60;
/// Where the configuration is mounted.
const CONFIG_DIRECTORY: &str = "/etc/streamapp";
/// Where the volume is mounted; stores lie in a directory below, beside what the file system puts there.
const VOLUME_DIRECTORY: &str = "/var/lib/streamapp";
/// The volume claim's name in the StatefulSet.
const VOLUME: &str = "state";
/// The key of the configuration in its Secret.
const CONFIG_FILE: &str = "config.json";

/// The StreamApp that children belong to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Owner {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// Its uid.
    pub(crate) uid: String,
}

/// Everything that children depend on.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    /// The StreamApp.
    pub(crate) owner: &'a Owner,
    /// Its spec.
    pub(crate) spec: &'a crds::Spec,
    /// Image of the workers.
    pub(crate) image: &'a str,
    /// Worker pods.
    pub(crate) replicas: u32,
    /// What workers read at their start, with the values of Secrets.
    pub(crate) config: &'a WorkerConfig,
    /// Whether workers keep consumed records of repartition topics.
    pub(crate) keep_repartition_records: bool,
}

/// The children, and what pods are made of.
#[derive(Clone, Debug)]
pub(crate) struct Children {
    /// The workers' configuration.
    pub(crate) config: Secret,
    /// Without a token: workers do not talk to Kubernetes.
    pub(crate) service_account: ServiceAccount,
    /// Gives pods their names.
    pub(crate) service: Service,
    /// Evictions take one worker at a time.
    pub(crate) disruption_budget: PodDisruptionBudget,
    /// Only the status port is open.
    pub(crate) network_policy: NetworkPolicy,
    /// The workers.
    pub(crate) stateful_set: StatefulSet,
    /// Hash of what pods are made of.
    pub(crate) revision: String,
}

/// Where workers keep their stores and listen; part of [`WorkerConfig`].
#[must_use]
pub(crate) fn place() -> crds::Place {
    crds::Place {
        state_dir: format!("{VOLUME_DIRECTORY}/state").into(),
        http_listen: format!("0.0.0.0:{}", names::WORKER_PORT),
    }
}

/// Builds the children.
///
/// # Errors
/// When the configuration cannot be written as JSON.
pub(crate) fn children(input: &Input<'_>) -> Result<Children, serde_json::Error> {
    let config = serde_json::to_vec_pretty(input.config)?;
    let config_name = format!("{}-config-{}", input.owner.name, hash(&config));
    let revision = revision(input, &config_name)?;
    Ok(Children {
        config: Secret {
            metadata: meta(input.owner, &config_name),
            // A container of an older revision that starts again finds what its pod was made of.
            immutable: Some(true),
            data: Some(BTreeMap::from([(CONFIG_FILE.to_owned(), ByteString(config))])),
            ..Secret::default()
        },
        service_account: ServiceAccount {
            metadata: meta(input.owner, &input.owner.name),
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        },
        service: service(input.owner),
        disruption_budget: disruption_budget(input.owner),
        network_policy: network_policy(input.owner),
        stateful_set: stateful_set(input, &config_name, &revision),
        revision,
    })
}

/// The Secret with the configuration that a StatefulSet's pods are made of.
#[must_use]
pub(crate) fn config_name_of(set: &StatefulSet) -> Option<&str> {
    let pod = set.spec.as_ref()?.template.spec.as_ref()?;
    let volumes = pod.volumes.as_ref()?.iter();
    let secrets = volumes.filter_map(|volume| volume.secret.as_ref());
    secrets
        .into_iter()
        .find_map(|secret| secret.secret_name.as_deref())
}

/// The topology in such a Secret; none when it is of a version that this one does not read.
#[must_use]
pub(crate) fn topology_of(secret: &Secret) -> Option<Topology> {
    let bytes = secret.data.as_ref()?.get(CONFIG_FILE)?;
    let config: serde_json::Value = serde_json::from_slice(&bytes.0).ok()?;
    serde_json::from_value(config.get("topology")?.clone()).ok()
}

/// What makes a pod different from one of another revision. What an operator of another version adds by itself is not
/// part of it: its upgrade restarts nothing.
fn revision(input: &Input<'_>, config_name: &str) -> Result<String, serde_json::Error> {
    let parts = serde_json::json!([
        input.image,
        config_name,
        input.spec.resources,
        input.spec.pod_template,
        input.spec.image_pull_secrets,
        input.keep_repartition_records,
    ]);
    Ok(hash(&serde_json::to_vec(&parts)?))
}

fn hash(bytes: &[u8]) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(bytes))[..10].to_owned()
}

fn meta(owner: &Owner, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(owner.namespace.clone()),
        labels: Some(names::labels(&owner.name)),
        owner_references: Some(vec![OwnerReference {
            api_version: format!("{}/{}", crds::GROUP, crds::VERSION),
            kind: "StreamApp".to_owned(),
            name: owner.name.clone(),
            uid: owner.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]),
        ..ObjectMeta::default()
    }
}

fn pods_of(owner: &Owner) -> LabelSelector {
    LabelSelector {
        match_labels: Some(names::selector_labels(&owner.name)),
        ..LabelSelector::default()
    }
}

fn service(owner: &Owner) -> Service {
    Service {
        metadata: meta(owner, &owner.name),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            selector: Some(names::selector_labels(&owner.name)),
            // A worker that holds says so at its status endpoint: it needs a name then, too.
            publish_not_ready_addresses: Some(true),
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port: names::WORKER_PORT,
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn disruption_budget(owner: &Owner) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: meta(owner, &owner.name),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(pods_of(owner)),
            // A worker that cannot start must not keep its node from being drained.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}

/// In: the status port, from everywhere, for the operator and whoever collects metrics. Out: anything, Kafka's
/// addresses are not known here.
fn network_policy(owner: &Owner) -> NetworkPolicy {
    NetworkPolicy {
        metadata: meta(owner, &owner.name),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(pods_of(owner)),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![NetworkPolicyIngressRule {
                ports: Some(vec![NetworkPolicyPort {
                    port: Some(IntOrString::Int(names::WORKER_PORT)),
                    protocol: Some("TCP".to_owned()),
                    ..NetworkPolicyPort::default()
                }]),
                ..NetworkPolicyIngressRule::default()
            }]),
            ..NetworkPolicySpec::default()
        }),
    }
}

fn stateful_set(input: &Input<'_>, config_name: &str, revision: &str) -> StatefulSet {
    let retention = |wanted| match wanted {
        crds::Retention::Retain => Some("Retain".to_owned()),
        crds::Retention::Delete => Some("Delete".to_owned()),
    };
    let mut metadata = meta(input.owner, &input.owner.name);
    metadata.annotations = Some(BTreeMap::from([(
        names::APPLICATION_ID.to_owned(),
        input.config.application_id.0.clone(),
    )]));
    StatefulSet {
        metadata,
        spec: Some(StatefulSetSpec {
            replicas: Some(i32::try_from(input.replicas).unwrap_or(i32::MAX)),
            service_name: Some(input.owner.name.clone()),
            selector: pods_of(input.owner),
            // The operator replaces pods itself, one at a time and only when the others run.
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                ..StatefulSetUpdateStrategy::default()
            }),
            pod_management_policy: Some("Parallel".to_owned()),
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: retention(input.spec.retention_policy.when_deleted),
                when_scaled: retention(input.spec.retention_policy.when_scaled),
            }),
            template: template(input, config_name, revision),
            volume_claim_templates: Some(vec![claim(input)]),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

fn claim(input: &Input<'_>) -> PersistentVolumeClaim {
    let volume = &input.spec.state.volume;
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(VOLUME.to_owned()),
            labels: Some(names::selector_labels(&input.owner.name)),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOncePod".to_owned()]),
            storage_class_name: volume.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([(
                    "storage".to_owned(),
                    Quantity(volume.size.clone()),
                )])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

fn template(input: &Input<'_>, config_name: &str, revision: &str) -> PodTemplateSpec {
    let extra = input.spec.pod_template.clone().unwrap_or_default();
    let mut labels = extra.labels;
    labels.extend(names::labels(&input.owner.name));
    let mut annotations = extra.annotations;
    annotations.insert(names::REVISION.to_owned(), revision.to_owned());
    let pull_secrets = input.spec.image_pull_secrets.iter();
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            service_account_name: Some(input.owner.name.clone()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            node_selector: (!extra.node_selector.is_empty()).then_some(extra.node_selector),
            priority_class_name: extra.priority_class_name,
            image_pull_secrets: (!input.spec.image_pull_secrets.is_empty()).then(|| {
                pull_secrets
                    .map(|secret| LocalObjectReference {
                        name: secret.name.clone(),
                    })
                    .collect()
            }),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                fs_group: Some(USER),
                fs_group_change_policy: Some("OnRootMismatch".to_owned()),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    ..SeccompProfile::default()
                }),
                ..PodSecurityContext::default()
            }),
            containers: vec![container(input)],
            volumes: Some(vec![Volume {
                name: "config".to_owned(),
                secret: Some(SecretVolumeSource {
                    secret_name: Some(config_name.to_owned()),
                    default_mode: Some(0o440),
                    ..SecretVolumeSource::default()
                }),
                ..Volume::default()
            }]),
            ..PodSpec::default()
        }),
    }
}

fn container(input: &Input<'_>) -> Container {
    let mut args = vec!["--config".to_owned(), format!("{CONFIG_DIRECTORY}/{CONFIG_FILE}")];
    if input.keep_repartition_records {
        args.push("--keep-repartition-records".to_owned());
    }
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    Container {
        name: "worker".to_owned(),
        image: Some(input.image.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: Some(args),
        env: Some(vec![
            field(
                "STREAMAPP_ORDINAL",
                "metadata.labels['apps.kubernetes.io/pod-index']",
            ),
            field("STREAMAPP_POD_UID", "metadata.uid"),
        ]),
        ports: Some(vec![ContainerPort {
            name: Some("http".to_owned()),
            container_port: names::WORKER_PORT,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        liveness_probe: Some(probe("/livez", 10, 6)),
        readiness_probe: Some(probe("/readyz", 2, 1)),
        resources: input.spec.resources.as_ref().map(resources),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                ..Capabilities::default()
            }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![
            mount("config", CONFIG_DIRECTORY, true),
            mount(VOLUME, VOLUME_DIRECTORY, false),
        ]),
        // The reason of a worker that ends is read from its last words.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn resources(wanted: &crds::Resources) -> ResourceRequirements {
    let quantities = |map: &BTreeMap<String, String>| {
        let quantities = map
            .iter()
            .map(|(name, value)| (name.clone(), Quantity(value.clone())));
        (!map.is_empty()).then(|| quantities.collect())
    };
    ResourceRequirements {
        requests: quantities(&wanted.requests),
        limits: quantities(&wanted.limits),
        ..ResourceRequirements::default()
    }
}

fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

fn probe(path: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(names::WORKER_PORT),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failures),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

#[cfg(test)]
mod tests;
