//! The leader's lease (`coordination.k8s.io/v1`): of several operators one acts. It is not a fence: what must not happen
//! twice is written to the control log with compare-and-set.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};

/// How long a lease holds after its last renewal.
const DURATION: Duration = Duration::from_secs(15);
/// How often it is renewed, and how often others look.
const PERIOD: Duration = Duration::from_secs(4);

/// A lease that is ours or wants to be.
pub(crate) struct Leadership {
    api: Api<Lease>,
    name: String,
    identity: String,
    /// What was last seen of another holder, and when: its clock is not trusted, only that it moves.
    seen: Option<(Option<MicroTime>, tokio::time::Instant)>,
}

/// What a try did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tried {
    Held,
    Other,
}

impl Leadership {
    /// A lease in the operator's own namespace.
    #[must_use]
    pub(crate) fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            seen: None,
        }
    }

    /// Waits until the lease is ours.
    pub(crate) async fn acquire(&mut self) {
        loop {
            match self.attempt().await {
                Ok(Tried::Held) => return,
                Ok(Tried::Other) => {}
                Err(error) => tracing::warn!(%error, lease = self.name, "the lease cannot be taken"),
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Renews the lease until it is lost.
    pub(crate) async fn hold(&mut self) {
        let mut renewed = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(PERIOD).await;
            match self.attempt().await {
                Ok(Tried::Held) => renewed = tokio::time::Instant::now(),
                Ok(Tried::Other) => return,
                Err(error) => tracing::warn!(%error, lease = self.name, "the lease cannot be renewed"),
            }
            if renewed.elapsed() > DURATION {
                return;
            }
        }
    }

    /// Gives the lease up, so that the next operator need not wait.
    pub(crate) async fn release(&self) {
        let released = async {
            let mut lease = self.api.get(&self.name).await?;
            if let Some(spec) = &mut lease.spec
                && spec.holder_identity.as_deref() == Some(&self.identity)
            {
                spec.holder_identity = None;
                self.api
                    .replace(&self.name, &PostParams::default(), &lease)
                    .await?;
            }
            Ok::<_, kube::Error>(())
        };
        if let Err(error) = released.await {
            tracing::warn!(%error, lease = self.name, "the lease was not released");
        }
    }

    async fn attempt(&mut self) -> Result<Tried, kube::Error> {
        let now = MicroTime(Timestamp::now());
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.claim(None, now)),
            };
            return self.written(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let ours = spec.holder_identity.as_deref() == Some(&self.identity);
        let free = spec.holder_identity.as_deref().is_none_or(str::is_empty);
        if !ours && !free && !self.is_expired(&spec) {
            return Ok(Tried::Other);
        }
        lease.spec = Some(self.claim(Some(spec), now));
        // The resource version makes it a compare-and-set.
        self.written(self.api.replace(&self.name, &PostParams::default(), &lease).await)
    }

    fn written(&self, result: Result<Lease, kube::Error>) -> Result<Tried, kube::Error> {
        match result {
            Ok(_) => Ok(Tried::Held),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Tried::Other),
            Err(error) => Err(error),
        }
    }

    fn claim(&self, before: Option<LeaseSpec>, now: MicroTime) -> LeaseSpec {
        let before = before.unwrap_or_default();
        let renews = before.holder_identity.as_deref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if renews {
                before.acquire_time
            } else {
                Some(now.clone())
            },
            renew_time: Some(now),
            lease_transitions: Some(if renews { transitions } else { transitions + 1 }),
            ..LeaseSpec::default()
        }
    }

    /// Whether the holder has not renewed for a whole duration, by our own clock.
    fn is_expired(&mut self, spec: &LeaseSpec) -> bool {
        match &self.seen {
            Some((renewed, since)) if *renewed == spec.renew_time => since.elapsed() > DURATION,
            _ => {
                self.seen = Some((spec.renew_time.clone(), tokio::time::Instant::now()));
                false
            }
        }
    }
}
