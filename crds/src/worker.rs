//! From a `StreamApp` to the configuration of its workers: the spec, with what it names in Secrets.

use std::path::PathBuf;

use protocol::{ApplicationId, KafkaConfig, WorkerConfig};

use crate::app::{Authentication, Guarantee, Mechanism, StreamApp};
use crate::quantity;

/// A value in a Secret that the spec refers to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretKey {
    /// Name of the Secret.
    pub secret: String,
    /// Key in it.
    pub key: String,
    /// The field that refers to it.
    pub path: &'static str,
}

/// Where a worker runs.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where stores live.
    pub state_dir: PathBuf,
    /// Address of the status endpoint.
    pub http_listen: String,
}

fn password(authentication: &Authentication) -> SecretKey {
    SecretKey {
        secret: authentication.password_secret.secret_name.clone(),
        key: authentication.password_secret.password.clone(),
        path: "spec.kafka.authentication.passwordSecret",
    }
}

impl StreamApp {
    /// Everything in Secrets that [`Self::kafka_config`] asks for.
    #[must_use]
    pub fn secret_keys(&self) -> Vec<SecretKey> {
        let passwords = self.spec.kafka.authentication.iter().map(password);
        passwords.chain(self.certificates()).collect()
    }

    fn certificates(&self) -> impl Iterator<Item = SecretKey> {
        let tls = self.spec.kafka.tls.iter();
        tls.flat_map(|tls| &tls.trusted_certificates)
            .map(|source| SecretKey {
                secret: source.secret_name.clone(),
                key: source.certificate.clone(),
                path: "spec.kafka.tls.trustedCertificates",
            })
    }

    /// The Kafka client's configuration. `value` looks into Secrets.
    ///
    /// # Errors
    /// What `value` says about the first value that is not there.
    pub fn kafka_config<E>(
        &self,
        mut value: impl FnMut(&SecretKey) -> Result<String, E>,
    ) -> Result<KafkaConfig, E> {
        let kafka = &self.spec.kafka;
        let mut properties = kafka.client_config.clone();
        let mut set = |name: &str, value: &str| properties.insert(name.to_owned(), value.to_owned());
        let protocol = match (&kafka.tls, &kafka.authentication) {
            (None, None) => None,
            (Some(_), None) => Some("ssl"),
            (None, Some(_)) => Some("sasl_plaintext"),
            (Some(_), Some(_)) => Some("sasl_ssl"),
        };
        if let Some(protocol) = protocol {
            set("security.protocol", protocol);
        }
        let certificates = self
            .certificates()
            .map(|key| value(&key))
            .collect::<Result<Vec<_>, _>>()?;
        if !certificates.is_empty() {
            set("ssl.ca.pem", &certificates.join("\n"));
        }
        if let Some(authentication) = &kafka.authentication {
            let mechanism = match authentication.mechanism {
                Mechanism::ScramSha512 => "SCRAM-SHA-512",
                Mechanism::ScramSha256 => "SCRAM-SHA-256",
                Mechanism::Plain => "PLAIN",
            };
            set("sasl.mechanism", mechanism);
            set("sasl.username", &authentication.username);
            let password = value(&password(authentication))?;
            set("sasl.password", password.trim_end_matches('\n'));
        }
        Ok(KafkaConfig {
            bootstrap_servers: kafka.bootstrap_servers.clone(),
            client_config: properties,
        })
    }

    /// The memory limit of a worker, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<u64> {
        let limit = self.spec.resources.as_ref()?.limits.get("memory")?;
        quantity::parse(limit).map(|bytes| bytes as u64)
    }

    /// The configuration of every worker.
    #[must_use]
    pub fn worker_config(&self, kafka: KafkaConfig, place: Place) -> WorkerConfig {
        let spec = &self.spec;
        WorkerConfig {
            application_id: ApplicationId(self.application_id().to_owned()),
            threads: spec.threads,
            guarantee: match spec.processing.guarantee {
                Guarantee::ExactlyOnceV2 => protocol::Guarantee::ExactlyOnceV2,
                Guarantee::AtLeastOnce => protocol::Guarantee::AtLeastOnce,
            },
            commit_interval_ms: spec.processing.commit_interval.as_millis(),
            transaction_timeout_ms: spec.processing.transaction_timeout.as_millis(),
            max_task_idle_ms: spec.processing.max_task_idle.map(|idle| idle.as_millis()),
            kafka,
            topology: spec.topology.clone(),
            memory_bytes: self.memory_bytes(),
            state_dir: place.state_dir,
            http_listen: place.http_listen,
        }
    }
}
