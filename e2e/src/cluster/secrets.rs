//! Credentials in Secrets: missing, wrong, right, rotated.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::Outcome;
use super::app::{App, READY};
use super::kafka::change_password;
use super::kubectl::eventually;
use super::place::{Place, Setting};
use crate::integration::Counted;

const PASSWORD: &str = "kafka-user";
const CERTIFICATE: &str = "kafka-ca";

/// The secure listener of the tests' broker, as its script names it.
struct Listener {
    address: String,
    user: String,
    password: String,
    certificate: String,
}

impl Listener {
    fn from_environment() -> Result<Option<Self>> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (Some(address), Some(user), Some(password), Some(file)) = (
            variable("STREAMAPP_TEST_SECURE_KAFKA"),
            variable("STREAMAPP_TEST_SECURE_USER"),
            variable("STREAMAPP_TEST_SECURE_PASSWORD"),
            variable("STREAMAPP_TEST_SECURE_CA_FILE"),
        ) else {
            return Ok(None);
        };
        Ok(Some(Self {
            address,
            user,
            password,
            certificate: std::fs::read_to_string(&file).with_context(|| format!("read {file}"))?,
        }))
    }

    fn apply(&self, app: &App<'_>) -> Result<()> {
        app.apply_with(|object| {
            let kafka = &mut object["spec"]["kafka"];
            kafka["bootstrapServers"] = json!(self.address);
            kafka["authentication"] = json!({
                "type": "scram-sha-512",
                "username": self.user,
                "passwordSecret": {"secretName": PASSWORD, "password": "password"},
            });
            kafka["tls"] =
                json!({"trustedCertificates": [{"secretName": CERTIFICATE, "certificate": "ca.crt"}]});
        })
    }
}

fn secret(place: &Place<'_>, name: &str, key: &str, value: &str) -> Result<()> {
    place.cluster().apply(&json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": place.namespace},
        "stringData": {key: value},
    }))
}

/// Gives the user its first password back.
struct FirstPassword<'a>(&'a Setting, String);

impl Drop for FirstPassword<'_> {
    fn drop(&mut self) {
        if let Err(error) = change_password(self.0, &self.1) {
            eprintln!("cannot change the password back: {error:#}");
        }
    }
}

pub(super) fn secrets(place: &Place<'_>) -> Result<Outcome> {
    let Some(listener) = Listener::from_environment()? else {
        return Ok(Outcome::Skipped(
            "STREAMAPP_TEST_SECURE_KAFKA, …_USER, …_PASSWORD and …_CA_FILE do not name a secure listener"
                .to_owned(),
        ));
    };
    let app = place.app("orders", 2);
    app.create_topics()?;
    listener.apply(&app)?;
    let message = app.wait_told("Stalled", "True", "SecretMissing")?;
    ensure!(
        message.contains(PASSWORD) || message.contains(CERTIFICATE),
        "the message names no Secret: {message}"
    );
    ensure!(app.pods()?.is_empty(), "there are pods without credentials");

    secret(place, CERTIFICATE, "ca.crt", &listener.certificate)?;
    secret(place, PASSWORD, "password", "not-the-password")?;
    let message = app.wait_told("Stalled", "True", "AuthenticationFailed")?;
    ensure!(
        !message.contains("not-the-password"),
        "the message tells the password"
    );
    secret(place, PASSWORD, "password", &listener.password)?;
    app.wait_ready()?;
    app.process(0, 2_000)?;

    // A new password in Kafka first, as an administrator would: open connections stay, new ones need it.
    let before = app.identities()?;
    let rotated = format!("{}-rotated", listener.password);
    let _first = FirstPassword(place.setting, listener.password.clone());
    change_password(place.setting, &rotated)?;
    secret(place, PASSWORD, "password", &rotated)?;
    eventually("all pods to roll to the new password", READY, || {
        let now = app.identities()?;
        let old: Vec<_> = now
            .iter()
            .filter(|(_, uid, _)| before.iter().any(|(_, was, _)| was == uid))
            .map(|(name, _, _)| name)
            .collect();
        ensure!(
            old.is_empty() && now.len() == before.len(),
            "{} pods, of them old: {old:?}; {}",
            now.len(),
            super::app::told(&app.object()?)
        );
        Ok(())
    })?;
    app.wait_ready()?;
    app.process(2_000, 2_000)?;
    let counted: Counted = app.check(4_000)?;
    ensure!(
        !app.object()?.to_string().contains(&listener.password),
        "the StreamApp tells the password"
    );
    app.delete()?;
    app.wait_gone(std::time::Duration::from_secs(60))?;
    Ok(Outcome::Done(counted))
}
