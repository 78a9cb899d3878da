//! Names, labels and annotations of everything that belongs to an application.

use std::collections::BTreeMap;

/// Who sets fields (server-side apply) and writes events.
pub(crate) const MANAGER: &str = "streamapp-operator";
/// Keeps a StreamApp until its workers are gone and its claim is released.
pub(crate) const FINALIZER: &str = "streamapp.dev/release";
/// On a StreamApp: workers keep consumed records of repartition topics, for audits and checkers.
pub(crate) const KEEP_REPARTITION: &str = "streamapp.dev/keep-repartition-records";
/// On a StreamApp: the generation whose topology is taken though the application could not go on with it. A person has seen to it that
/// nothing is lost; what workers refuse they still refuse.
pub(crate) const ACCEPT_TOPOLOGY: &str = "streamapp.dev/accept-topology";
/// On a pod: the revision that it was made of.
pub(crate) const REVISION: &str = "streamapp.dev/revision";
/// On children: the application's identity in Kafka.
pub(crate) const APPLICATION_ID: &str = "streamapp.dev/application-id";
/// The port of `/livez /readyz /status /metrics`.
pub(crate) const WORKER_PORT: i32 = 8080;
/// Label whose value is the StreamApp's name.
pub(crate) const INSTANCE: &str = "app.kubernetes.io/instance";
/// Label that children share.
pub(crate) const COMPONENT: (&str, &str) = ("app.kubernetes.io/name", "streamapp-worker");

/// What selects an application's pods; never changes.
#[must_use]
pub(crate) fn selector_labels(app: &str) -> BTreeMap<String, String> {
    let (name, value) = COMPONENT;
    [(name, value), (INSTANCE, app)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// Labels of every child.
#[must_use]
pub(crate) fn labels(app: &str) -> BTreeMap<String, String> {
    let mut labels = selector_labels(app);
    labels.insert("app.kubernetes.io/managed-by".to_owned(), MANAGER.to_owned());
    labels
}

/// [`selector_labels`] as a query.
#[must_use]
pub(crate) fn selector(app: &str) -> String {
    let (name, value) = COMPONENT;
    format!("{name}={value},{INSTANCE}={app}")
}

/// The ordinal of a pod of the application.
#[must_use]
pub(crate) fn ordinal(app: &str, pod: &str) -> Option<u32> {
    pod.strip_prefix(app)?.strip_prefix('-')?.parse().ok()
}
