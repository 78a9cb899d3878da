//! Formats of topics.

use std::sync::Arc;

use super::PlanError;
use super::compile::{compile, compile_as};
use crate::declaration::{KeySerde, SinkTopic, ValueSerde};
use crate::plan::{Format, SinkHeaders, Windows};
use crate::{Env, Expr, Path, Type};

/// Of keys that are read or written as they are declared.
pub(super) fn declared_key(serde: KeySerde) -> Format {
    match serde {
        KeySerde::String => Format::String,
        KeySerde::Bytes => Format::Bytes,
        KeySerde::Long => Format::Long,
        KeySerde::Integer => Format::Integer,
        KeySerde::Uuid => Format::Uuid,
    }
}

/// Of values of this type that are read or written as they are declared; `None`: that has no such values.
pub(super) fn declared_value(serde: ValueSerde, ty: &Type) -> Option<Format> {
    let format = match (serde, ty) {
        (ValueSerde::Json, Type::Struct(ty)) => Format::Json(ty.clone()),
        (ValueSerde::Json, _) => return None,
        (ValueSerde::String, _) => Format::String,
        (ValueSerde::Bytes, _) => Format::Bytes,
        (ValueSerde::Long, _) => Format::Long,
        (ValueSerde::Integer, _) => Format::Integer,
        (ValueSerde::Double, _) => Format::Double,
        (ValueSerde::Boolean, _) => Format::Boolean,
        (ValueSerde::Uuid, _) => Format::Uuid,
    };
    (format.ty() == *ty).then_some(format)
}

/// The format of a key of this type in stores and internal topics: one for each type, so that equal keys of different topics are
/// equal there and lie in the same partition.
pub(crate) fn key_format(ty: &Type, path: &Path) -> Result<Format, PlanError> {
    if windowed(ty).is_some() {
        let message = format!("a key of type {ty} cannot be kept or sent on as it is");
        let error = PlanError::new(path, message);
        return Err(error.suggest("choose one with `selectKey`, e.g. `selectKey: key.key`"));
    }
    match ty {
        Type::String => Ok(Format::String),
        Type::Int => Ok(Format::Long),
        Type::Bytes => Ok(Format::Bytes),
        Type::Bool
        | Type::Double
        | Type::Timestamp
        | Type::List(_)
        | Type::Map(_)
        | Type::Struct(_)
        | Type::Optional(_) => {
            let message = format!("a key of type {ty} cannot be written");
            Err(PlanError::new(path, message))
        }
    }
}

/// How `to` writes keys.
pub(crate) fn key(to: &SinkTopic, env: &Env, path: &Path) -> Result<Format, PlanError> {
    let format = match (windowed(&env.key), env.windows) {
        (Some(key), Some(windows)) => {
            let key = Box::new(key_format(key, path)?);
            match windows {
                Windows::Time(windows) => Format::TimeWindowed {
                    key,
                    size_ms: windows.size_ms,
                },
                Windows::Sliding(windows) => Format::TimeWindowed {
                    key,
                    size_ms: windows.difference_ms,
                },
                // The others have no windowed keys.
                Windows::Session(_)
                | Windows::Join(_)
                | Windows::Suppress { .. }
                | Windows::Versions { .. }
                | Windows::Held { .. } => Format::SessionWindowed { key },
            }
        }
        _ => key_format(&env.key, path)?,
    };
    let Some(declared) = &to.key else {
        return Ok(format);
    };
    let wanted = declared_key(declared.serde);
    if wanted.ty() == format.ty() {
        return Ok(wanted);
    }
    let path = path.field("key").field("serde");
    let message = format!(
        "the key has type {}, which {} does not write",
        env.key,
        declared.serde.name()
    );
    let instead = match format.name() {
        None => "leave `key` out: it is written as Kafka Streams writes windowed keys".to_owned(),
        Some(name) => format!("write `serde: {name}`, or leave `key` out"),
    };
    Err(PlanError::new(&path, message).suggest(instead))
}

/// The type of the key in a windowed key: no other key is a record.
fn windowed(ty: &Type) -> Option<&Type> {
    let Type::Struct(ty) = ty else { return None };
    ty.field("key").map(|(_, field)| &field.ty)
}

/// How `to` writes values.
pub(crate) fn value(to: &SinkTopic, ty: &Type, path: &Path) -> Result<Format, PlanError> {
    let serde = to.value.serde;
    if let Some(format) = declared_value(serde, ty) {
        return Ok(format);
    }
    let path = path.field("value").field("serde");
    let message = format!("the value has type {ty}, which {} does not write", serde.name());
    let error = PlanError::new(&path, message);
    Err(match (serde, ty) {
        (_, Type::Struct(_)) => error.suggest("write `serde: Json`"),
        (ValueSerde::Json, _) => error.suggest("give it fields with `mapValues: {fields: {…}}`"),
        (_, Type::Int) => error.suggest("write `serde: Long`, or convert with `string(value)`"),
        (_, Type::String) => error.suggest("write `serde: String`"),
        (_, Type::Bytes) => error.suggest("write `serde: Bytes`"),
        (_, Type::List(_) | Type::Map(_)) => {
            error.suggest("give it fields with `mapValues: {fields: {…}}`, and write `serde: Json`")
        }
        (_, Type::Bool) => error.suggest("write `serde: Boolean`"),
        (_, Type::Double) => error.suggest("write `serde: Double`"),
        (_, Type::Timestamp | Type::Optional(_)) => {
            error.suggest("convert it with `mapValues: {expression: \"string(value)\"}`")
        }
    })
}

/// Which headers `to` writes. On errors: all of them.
pub(crate) fn headers(to: &SinkTopic, env: &Env, path: &Path) -> Result<SinkHeaders, Vec<PlanError>> {
    let path = path.field("headers");
    let (mut headers, mut errors) = (Vec::new(), Vec::new());
    for (name, source) in &to.headers {
        match header(name, source, env, &path.field(name)) {
            Ok(expr) => headers.push((Arc::from(name.as_str()), expr)),
            Err(wrong) => errors.extend(wrong),
        }
    }
    match (errors.is_empty(), headers.is_empty()) {
        (false, _) => Err(errors),
        (true, true) => Ok(SinkHeaders::None),
        (true, false) => Ok(SinkHeaders::Computed(headers)),
    }
}

fn header(name: &str, source: &str, env: &Env, path: &Path) -> Result<Expr, Vec<PlanError>> {
    if name.is_empty() || name.contains('\0') {
        return Err(PlanError::new(path, "a header needs a name, without a NUL").into());
    }
    let expr = compile(source, env, path)?;
    let ty = if let Type::Optional(inner) = expr.ty() {
        inner
    } else {
        expr.ty()
    };
    if matches!(ty, Type::String | Type::Bytes) {
        return Ok(expr);
    }
    let message = format!("a header needs string or bytes, the expression has type {ty}");
    Err(PlanError::new(path, message)
        .suggest("convert it, e.g. `string(…)`")
        .into())
}

/// How `to` chooses among its topics; `None`: it has one.
pub(crate) fn route(to: &SinkTopic, env: &Env, path: &Path) -> Result<Option<Expr>, Vec<PlanError>> {
    let error = |field: &str, message: &str, instead: &str| {
        let error = PlanError::new(&path.field(field), message);
        Err(error.suggest(instead).into())
    };
    match (&to.topic, to.topics.as_slice(), &to.topic_of) {
        (Some(_), [], None) => Ok(None),
        (None, [], None) => {
            let error = PlanError::new(path, "needs `topic`, or `topics` and `topicOf`");
            Err(error.into())
        }
        (Some(_), [_, ..], _) => error(
            "topics",
            "`topic` is one and `topics` are others",
            "write one of them",
        ),
        (_, [], Some(_)) => error("topicOf", "`topicOf` chooses one of `topics`", "list them"),
        (None, [_, ..], None) => error(
            "topics",
            "nothing says which record goes to which topic",
            "write `topicOf`, e.g. `topicOf: \"value.kind\"`",
        ),
        (None, topics, Some(source)) => {
            let again = topics
                .iter()
                .enumerate()
                .find(|(at, topic)| topics[..*at].contains(topic));
            if let Some((at, topic)) = again {
                let path = path.field("topics").index(at);
                return Err(PlanError::new(&path, format!("topic `{topic}` is there twice")).into());
            }
            compile_as(source, &Type::String, env, &path.field("topicOf")).map(Some)
        }
    }
}
