//! Checks of values that the schema cannot say.

use protocol::MemoryBudget;
use topology::{Duration, DurationError, Path};

use crate::app::{Mechanism, REFUSED_CLIENT_PROPERTIES, StreamApp};
use crate::quantity;

/// A message and what to write instead.
type Problem = (String, Option<String>);

/// Longest application id; internal topic names add to it.
const MAX_APPLICATION_ID_BYTES: usize = 200;

/// Checks a string that the schema gives one of our formats.
pub(crate) fn check_format(format: &str, text: &str) -> Result<(), Problem> {
    match format {
        "streamapp-duration" => duration(text.parse::<Duration>().map(drop)),
        "streamapp-duration-or-zero" => duration(text.parse::<Duration<0>>().map(drop)),
        "bootstrap-servers" => bootstrap_servers(text),
        "application-id" => application_id(text),
        "quantity" => quantity(text),
        _ => Ok(()),
    }
}

fn duration(parsed: Result<(), DurationError>) -> Result<(), Problem> {
    parsed.map_err(|error| (error.to_string(), None))
}

fn application_id(text: &str) -> Result<(), Problem> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.is_empty() || text.len() > MAX_APPLICATION_ID_BYTES || matches!(text, "." | "..") {
        let message = format!(
            "an application id has 1 to {MAX_APPLICATION_ID_BYTES} characters, this has {}",
            text.len()
        );
        return Err((message, None));
    }
    match text.chars().find(|c| !allowed(*c)) {
        Some(wrong) => {
            let message = format!(
                "`{wrong}` cannot be in an application id: letters, digits, `.`, `_`, `-` are allowed"
            );
            let fixed: String = text.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
            Err((message, Some(format!("e.g. `{fixed}`"))))
        }
        None => Ok(()),
    }
}

fn quantity(text: &str) -> Result<(), Problem> {
    match quantity::parse(text) {
        Some(_) => Ok(()),
        None => Err((
            format!("`{text}` is no quantity"),
            Some("e.g. `500m` of CPU, `1Gi` of memory".to_owned()),
        )),
    }
}

fn bootstrap_servers(text: &str) -> Result<(), Problem> {
    let format = "write `host:port`, several with commas".to_owned();
    for server in text.split(',') {
        if server.contains("://") {
            let message = format!("`{server}` has a protocol in front");
            return Err((
                message,
                Some("write only `host:port`; TLS is `tls: {}`".to_owned()),
            ));
        }
        if server.is_empty() || server.contains(char::is_whitespace) {
            return Err((format!("`{text}` is no list of servers"), Some(format)));
        }
        let Some((host, port)) = server.rsplit_once(':') else {
            return Err((
                format!("`{server}` has no port"),
                Some(format!("e.g. `{server}:9092`")),
            ));
        };
        if host.is_empty() || (host.contains(':') && !(host.starts_with('[') && host.ends_with(']'))) {
            return Err((format!("`{server}` has no host"), Some(format)));
        }
        if !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err((format!("`{port}` is no port: 1 to 65535"), Some(format)));
        }
    }
    Ok(())
}

/// Checks that look at more than one value, or at names of fields. Each with the place that it is about.
pub(crate) fn check(app: &StreamApp) -> Vec<(Path, Problem)> {
    let mut problems = Vec::new();
    let root = Path::default();
    let name = &app.metadata.name;
    if !is_kubernetes_name(name) {
        let message = format!(
            "`{name}` is no name for a Kubernetes object: lower-case letters, digits, `-` and `.`, at most 253"
        );
        problems.push((root.field("metadata").field("name"), (message, None)));
    } else if app.spec.application_id.is_none()
        && let Err(problem) = application_id(name)
    {
        problems.push((root.field("metadata").field("name"), problem));
    }
    let processing = &app.spec.processing;
    if processing.commit_interval >= processing.transaction_timeout {
        let path = root.field("spec").field("processing").field("commitInterval");
        let message = format!(
            "commitInterval {} needs to be shorter than transactionTimeout {}: the broker would abort each transaction",
            processing.commit_interval, processing.transaction_timeout
        );
        problems.push((path, (message, None)));
    }
    if let Some(authentication) = &app.spec.kafka.authentication
        && authentication.mechanism == Mechanism::Plain
        && app.spec.kafka.tls.is_none()
    {
        let path = root
            .field("spec")
            .field("kafka")
            .field("authentication")
            .field("type");
        let message = "`plain` would send the password unencrypted".to_owned();
        problems.push((
            path,
            (message, Some("set `tls`, or use `scram-sha-512`".to_owned())),
        ));
    }
    if let Some(limit) = app.memory_bytes()
        && let Err(too_small) = MemoryBudget::of(limit, app.spec.threads)
    {
        let limits = root.field("spec").field("resources").field("limits");
        problems.push((limits.field("memory"), (too_small.to_string(), None)));
    }
    let client_config = root.field("spec").field("kafka").field("clientConfig");
    for property in app.spec.kafka.client_config.keys() {
        if let Some((_, reason)) = REFUSED_CLIENT_PROPERTIES
            .iter()
            .find(|(refused, _)| refused == property)
        {
            let message = format!("`{property}` cannot be set here: {reason}");
            problems.push((
                client_config.field(property),
                (message, Some("leave it out".to_owned())),
            ));
        }
    }
    problems
}

fn is_kubernetes_name(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 253
        && name.split('.').all(|part| {
            part.starts_with(edge) && part.ends_with(edge) && part.chars().all(|c| edge(c) || c == '-')
        })
}
