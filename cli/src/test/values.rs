//! Keys and values between a test file and Kafka's bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bumpalo::Bump;
use serde_json::{Map, Value as Json, json};
use topology::plan::Format;
use topology::{Type, Value};

/// The bytes of what a test file says; `None` for null.
///
/// # Errors
/// When it is nothing that the format can hold. Whether JSON has the fields of its type is for the topology to say.
pub(super) fn bytes(format: &Format, value: &Json) -> Result<Option<Vec<u8>>, String> {
    let found = |wanted| Err(format!("{wanted} is needed here, found `{value}`"));
    Ok(Some(match (format, value) {
        (_, Json::Null) => return Ok(None),
        (Format::Json(_), value) => value.to_string().into_bytes(),
        (Format::String | Format::Bytes, Json::String(text)) => text.clone().into_bytes(),
        (Format::String, _) => return found("a string"),
        (Format::Bytes, Json::Object(fields)) => match fields.get("base64").and_then(Json::as_str) {
            Some(text) if fields.len() == 1 => STANDARD
                .decode(text)
                .map_err(|error| format!("`{text}` is not base64: {error}"))?,
            Some(_) | None => return found("a string or `{base64: …}`"),
        },
        (Format::Bytes, _) => return found("a string or `{base64: …}`"),
        (Format::Uuid, Json::String(text)) => text.clone().into_bytes(),
        (Format::Uuid, _) => return found("a string"),
        (Format::Long, value) => match value.as_i64() {
            Some(number) => number.to_be_bytes().to_vec(),
            None => return found("a whole number"),
        },
        (Format::Integer, value) => match value.as_i64().and_then(|number| i32::try_from(number).ok()) {
            Some(number) => number.to_be_bytes().to_vec(),
            None => return found("a whole number of 32 bits"),
        },
        (Format::Double, value) => match value.as_f64().or_else(|| not_finite(value)) {
            Some(number) => number.to_be_bytes().to_vec(),
            None => return found("a number, `NaN`, `Infinity` or `-Infinity`"),
        },
        (Format::Boolean, Json::Bool(value)) => vec![u8::from(*value)],
        (Format::Boolean, _) => return found("true or false"),
        (Format::Row(_) | Format::TimeWindowed { .. } | Format::SessionWindowed { .. }, _) => {
            return found("nothing that a file can say");
        }
    }))
}

/// What a test file would say of these bytes.
pub(super) fn json(format: &Format, bytes: Option<&[u8]>) -> Json {
    let arena = Bump::new();
    match engine::decode(format, bytes, &arena) {
        Ok(value) => to_json(value, &format.ty()),
        // Only what is no result of this program can be read as something else.
        Err(_) => bytes.map_or(Json::Null, of_bytes),
    }
}

/// Whether these bytes may be a value that was written in a format. JSON has all fields of its type and no others.
pub(super) fn could_be(format: &Format, bytes: Option<&[u8]>) -> bool {
    match (format, bytes) {
        (Format::Json(ty), Some(bytes)) => match serde_json::from_slice(bytes) {
            Ok(Json::Object(fields)) => {
                let mut declared = ty.fields.iter();
                declared.len() == fields.len() && declared.all(|field| fields.contains_key(&field.name))
            }
            Ok(_) | Err(_) => false,
        },
        (format, bytes) => engine::decode(format, bytes, &Bump::new()).is_ok(),
    }
}

/// A typed value as JSON, fields of records by name.
pub(super) fn to_json(value: Value<'_>, ty: &Type) -> Json {
    match (value, ty) {
        (Value::Null, _) => Json::Null,
        (value, Type::Optional(inner)) => to_json(value, inner),
        (Value::Bool(value), _) => json!(value),
        (Value::Int(value) | Value::Timestamp(value) | Value::Duration(value), _) => json!(value),
        (Value::Uint(value), _) => json!(value),
        // JSON has none of them; a null would be a tombstone.
        (Value::Double(value), _) if value.is_nan() => json!("NaN"),
        (Value::Double(f64::INFINITY), _) => json!("Infinity"),
        (Value::Double(f64::NEG_INFINITY), _) => json!("-Infinity"),
        (Value::Double(value), _) => json!(value),
        (Value::String(text) | Value::Type(text), _) => json!(text),
        (Value::Bytes(bytes), _) => of_bytes(bytes),
        (Value::Struct(slots), Type::Struct(ty)) => {
            let fields = ty.fields.iter().zip(slots);
            let fields = fields.map(|(field, slot)| (field.name.clone(), to_json(*slot, &field.ty)));
            Json::Object(fields.collect())
        }
        (Value::List(items), Type::List(ty)) => items.iter().map(|item| to_json(*item, ty)).collect(),
        (Value::Map(entries), Type::Map(ty)) => {
            let name = |key| match to_json(key, &Type::String) {
                Json::String(name) => name,
                Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => {
                    String::new()
                }
            };
            let entries = entries
                .iter()
                .map(|(key, value)| (name(*key), to_json(*value, ty)));
            Json::Object(entries.collect())
        }
        (Value::Struct(_) | Value::List(_) | Value::Map(_), _) => Json::Null,
    }
}

fn not_finite(value: &Json) -> Option<f64> {
    match value.as_str()? {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

fn of_bytes(bytes: &[u8]) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({"base64": STANDARD.encode(bytes)}),
    }
}

/// The same value in one way: numbers without a fraction as whole ones, and no fields that are null, which readers take as
/// absent.
pub(super) fn canonical(value: &Json) -> Json {
    match value {
        Json::Number(number) => {
            let whole = number
                .as_f64()
                .filter(|number| number.fract() == 0.0 && number.abs() < 1e15);
            match whole {
                // In this range nothing is cut off.
                #[allow(clippy::cast_possible_truncation, reason = "checked above")]
                Some(whole) => json!(whole as i64),
                None => value.clone(),
            }
        }
        Json::Array(items) => items.iter().map(canonical).collect(),
        Json::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            Json::Object(
                fields
                    .map(|(name, value)| (name.clone(), canonical(value)))
                    .collect::<Map<_, _>>(),
            )
        }
        Json::Null | Json::Bool(_) | Json::String(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use topology::{Field, StructType};

    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let field = |name: &str, ty| Field {
            name: name.to_owned(),
            ty,
        };
        let record = Format::Json(Arc::new(StructType {
            name: "R".to_owned(),
            fields: vec![
                field("a", Type::Int),
                field("l", Type::List(Box::new(Type::Double))),
                field("m", Type::Map(Box::new(Type::Optional(Box::new(Type::Bool))))),
            ],
        }));
        for (format, value) in [
            (&Format::String, json!("é")),
            (&Format::Long, json!(-7)),
            (&Format::Integer, json!(-7)),
            (&Format::Double, json!(0.5)),
            (&Format::Double, json!("NaN")),
            (&Format::Double, json!("-Infinity")),
            (&Format::Boolean, json!(true)),
            (&Format::Uuid, json!("0198c82c-c000-7000-8000-0123456789ab")),
            (&Format::Bytes, json!("text")),
            (&Format::Bytes, json!({"base64": "/w=="})),
            (&Format::Bytes, Json::Null),
            (&record, json!({"a": 1, "l": [1.5], "m": {"x": true}})),
        ] {
            let bytes = bytes(format, &value).unwrap();
            assert_eq!(json(format, bytes.as_deref()), value);
        }
    }

    #[test]
    fn what_no_format_holds_is_refused() {
        let refused = |format, value| bytes(format, &value).unwrap_err();
        assert_eq!(
            refused(&Format::Long, json!("1")),
            "a whole number is needed here, found `\"1\"`"
        );
        assert_eq!(
            refused(&Format::Integer, json!(1_i64 << 31)),
            "a whole number of 32 bits is needed here, found `2147483648`"
        );
        assert_eq!(
            refused(&Format::String, json!(1)),
            "a string is needed here, found `1`"
        );
        assert!(refused(&Format::Bytes, json!({"base64": "?"})).contains("not base64"));
    }

    #[test]
    fn numbers_are_compared_by_value_and_null_is_absent() {
        let wanted = json!({"a": 5, "b": [0.5, 2]});
        assert_eq!(canonical(&json!({"a": 5.0, "b": [0.5, 2.0], "c": null})), wanted);
    }
}
