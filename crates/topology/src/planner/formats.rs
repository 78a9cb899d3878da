//! Formats of keys and values, as they are read, kept and written.

use super::PlanError;
use crate::declaration::{KeySerde, SinkTopic, ValueSerde};
use crate::plan::{Format, Windows};
use crate::{Env, Path, Type};

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

/// Of values that are read or written as they are declared; `None`: that depends on their type.
pub(super) fn declared_scalar(serde: ValueSerde) -> Option<Format> {
    Some(match serde {
        ValueSerde::Json => return None,
        ValueSerde::String => Format::String,
        ValueSerde::Bytes => Format::Bytes,
        ValueSerde::Long => Format::Long,
        ValueSerde::Integer => Format::Integer,
        ValueSerde::Double => Format::Double,
        ValueSerde::Boolean => Format::Boolean,
        ValueSerde::Uuid => Format::Uuid,
    })
}

/// As it is declared.
fn name(declared: Option<&Format>) -> &'static str {
    declared.and_then(Format::name).unwrap_or("Json")
}

/// The same of values of this type; `None`: that has no such values.
pub(super) fn declared_value(serde: ValueSerde, ty: &Type) -> Option<Format> {
    let format = match (declared_scalar(serde), ty) {
        (Some(format), _) => format,
        (None, Type::Struct(ty)) => Format::Json(ty.clone()),
        (None, _) => return None,
    };
    (format.ty() == *ty).then_some(format)
}

/// What the first steps see of records with such keys.
pub(super) fn env(serde: KeySerde, value: Type) -> Env {
    let key = declared_key(serde);
    Env {
        is_integer_key: key == Format::Integer,
        ..Env::of_record(key.ty(), value)
    }
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
        if env.is_integer_key {
            let message = "keys are read as Integer: say whether they are written so, or as Long";
            let error = PlanError::new(&path.field("key"), message);
            return Err(error.suggest("add `key: {serde: Integer}`"));
        }
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
        name(Some(&wanted))
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
    let declared = declared_scalar(serde);
    let message = format!(
        "the value has type {ty}, which {} does not write",
        name(declared.as_ref())
    );
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
