//! The CustomResourceDefinition: the structural schema that the API server checks, made of the same JSON schema that
//! files are checked against, with bounds, rules, columns and sub-resources.

use serde_json::{Map, Value, json};

use crate::app::{REFUSED_CLIENT_PROPERTIES, json_schema};

/// API group.
pub const GROUP: &str = "streamapp.dev";
/// Version.
pub const VERSION: &str = "v1alpha1";
/// Plural name, as in URLs.
pub const PLURAL: &str = "streamapps";

/// Longest string, list and map where the schema does not say: CEL rules are admitted by their worst cost.
const MAX_STRING: u32 = 1024;
const MAX_EXPRESSION: u32 = 8192;
const MAX_ITEMS: u32 = 256;
/// A StatefulSet's name goes into a label of its pods together with a hash.
const MAX_NAME: u32 = 52;
/// Ids that somebody else has certainly chosen, too.
const GENERIC_IDS: [&str; 8] = [
    "app",
    "application",
    "default",
    "kafka-streams",
    "my-app",
    "streamapp",
    "streams-app",
    "test",
];

/// The whole object, for `kubectl apply`.
#[must_use]
pub fn definition() -> Value {
    let column = |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
    let condition = |kind: &str, field: &str| format!(".status.conditions[?(@.type==\"{kind}\")].{field}");
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{PLURAL}.{GROUP}")},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": "StreamApp",
                "listKind": "StreamAppList",
                "plural": PLURAL,
                "singular": "streamapp",
                "shortNames": ["sapp"],
                "categories": ["streaming"],
            },
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": schema()},
                "subresources": {
                    "status": {},
                    "scale": {
                        "specReplicasPath": ".spec.replicas",
                        "statusReplicasPath": ".status.replicas",
                        "labelSelectorPath": ".status.selector",
                    },
                },
                "additionalPrinterColumns": [
                    column("Ready", "string", &condition("Ready", "status")),
                    column("Reason", "string", &condition("Ready", "reason")),
                    column("Revision", "string", ".status.revision"),
                    column("Lag", "integer", ".status.lag"),
                    column("Restoring", "integer", ".status.restoring"),
                    column("Application ID", "string", ".status.applicationId"),
                    column("Age", "date", ".metadata.creationTimestamp"),
                ],
            }],
        },
    })
}

fn schema() -> Value {
    let source = json_schema();
    let property = |name: &str| {
        structural(
            source
                .pointer(&format!("/properties/{name}"))
                .unwrap_or(&Value::Null),
        )
    };
    let mut spec = property("spec");
    let status = structural(&status_schema());
    lists_by_name(&mut spec);
    rules(&mut spec);
    json!({
        "type": "object",
        "description": source.get("description").cloned().unwrap_or_default(),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
        "x-kubernetes-validations": [{
            "rule": format!("size(self.metadata.name) <= {MAX_NAME}"),
            "message": format!("metadata.name has at most {MAX_NAME} characters: pods and their labels are named after it"),
        }],
    })
}

fn status_schema() -> Value {
    let settings =
        schemars::generate::SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings
        .into_generator()
        .into_root_schema_for::<crate::Status>()
        .into()
}

/// What a structural schema may say of what `schemars` says. Formats are left out: the API server would warn of ours.
fn structural(schema: &Value) -> Value {
    let described = |mut result: Value| {
        if let (Some(object), Some(text)) = (result.as_object_mut(), schema.get("description")) {
            object.insert("description".to_owned(), text.clone());
        }
        result
    };
    if let Some(inner) = without_null(schema) {
        return described(structural(inner));
    }
    if let Some(choices) = constants(schema) {
        return described(enumeration(schema, &choices));
    }
    let mut result = Map::new();
    for name in [
        "description",
        "required",
        "minimum",
        "maximum",
        "minProperties",
        "maxProperties",
        "minItems",
        "maxItems",
        "maxLength",
        "pattern",
    ] {
        if let Some(value) = schema.get(name) {
            result.insert(name.to_owned(), value.clone());
        }
    }
    let kind = type_of(schema);
    result.insert("type".to_owned(), json!(kind));
    let mut bound = |name: &str, value: u32| {
        result.entry(name).or_insert(json!(value));
    };
    match kind {
        "string" if schema.get("format") == Some(&json!("cel")) => bound("maxLength", MAX_EXPRESSION),
        "string" => bound("maxLength", MAX_STRING),
        "array" => {
            bound("maxItems", MAX_ITEMS);
            let items = structural(schema.get("items").unwrap_or(&Value::Null));
            result.insert("items".to_owned(), items);
        }
        "object" => {
            if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
                let properties: Map<_, _> = properties
                    .iter()
                    .map(|(name, property)| (name.clone(), structural(property)))
                    .collect();
                result.insert("properties".to_owned(), Value::Object(properties));
            }
            if let Some(values @ Value::Object(_)) = schema.get("additionalProperties") {
                result.entry("maxProperties").or_insert(json!(MAX_ITEMS));
                result.insert("additionalProperties".to_owned(), structural(values));
            }
        }
        _ => {}
    }
    Value::Object(result)
}

/// The schema beside `null`, of an optional value.
fn without_null(schema: &Value) -> Option<&Value> {
    let is_null = |schema: &&Value| schema.get("type") == Some(&json!("null"));
    let choices = schema.get("anyOf")?.as_array()?;
    choices.iter().find(|choice| !is_null(choice))
}

/// Values of an enumeration with their descriptions.
fn constants(schema: &Value) -> Option<Vec<(Value, Option<&str>)>> {
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return Some(
            values
                .iter()
                .filter(|value| !value.is_null())
                .map(|value| (value.clone(), None))
                .collect(),
        );
    }
    schema
        .get("oneOf")?
        .as_array()?
        .iter()
        .map(|choice| {
            let description = choice.get("description").and_then(Value::as_str);
            choice.get("const").map(|value| (value.clone(), description))
        })
        .collect()
}

fn enumeration(schema: &Value, choices: &[(Value, Option<&str>)]) -> Value {
    let values: Vec<_> = choices.iter().map(|(value, _)| value).collect();
    let told = choices.iter().filter_map(|(value, text)| {
        let text = (*text)?;
        Some(format!("`{}`: {text}", value.as_str().unwrap_or_default()))
    });
    let own = schema
        .get("description")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let description: Vec<_> = own.into_iter().chain(told).collect();
    json!({"type": "string", "enum": values, "description": description.join(" ")})
}

fn type_of(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(kind)) => kind,
        Some(Value::Array(kinds)) => kinds
            .iter()
            .filter_map(Value::as_str)
            .find(|kind| *kind != "null")
            .unwrap_or("object"),
        _ => "object",
    }
}

/// Lists whose items have names merge by name; what is not named stays atomic.
fn lists_by_name(spec: &mut Value) {
    for list in ["types", "streams", "tables", "pipelines"] {
        if let Some(list) = spec.pointer_mut(&format!("/properties/topology/properties/{list}")) {
            list["x-kubernetes-list-type"] = json!("map");
            list["x-kubernetes-list-map-keys"] = json!(["name"]);
        }
    }
}

fn rules(spec: &mut Value) {
    let rule = |rule: String, message: &str| json!({"rule": rule, "message": message});
    spec["x-kubernetes-validations"] = json!([rule(
        "has(self.applicationId) == has(oldSelf.applicationId) && (!has(self.applicationId) || self.applicationId == oldSelf.applicationId)"
            .to_owned(),
        "applicationId cannot change: offsets, stores and transactional ids belong to it, and under another id the application would begin anew. Create another StreamApp instead",
    )]);
    let mut at = |pointer: &str, edit: &dyn Fn(&mut Value)| {
        if let Some(schema) =
            spec.pointer_mut(&format!("/properties/{}", pointer.replace('.', "/properties/")))
        {
            edit(schema);
        }
    };
    // The scale sub-resource reads it, so it is always there.
    at("replicas", &|schema| schema["default"] = json!(1));
    at("standbys", &|schema| schema["default"] = json!(0));
    at("applicationId", &|schema| {
        schema["minLength"] = json!(1);
        schema["maxLength"] = json!(200);
        schema["pattern"] = json!("^[A-Za-z0-9._-]+$");
        schema["x-kubernetes-validations"] = json!([rule(
            format!("!(self in {})", json!(GENERIC_IDS)),
            "this id is so general that another application will choose it, too; name it after what the application does",
        )]);
    });
    at("state.volume.size", &|schema| {
        schema["pattern"] = json!("^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$");
        schema["maxLength"] = json!(32);
        schema["x-kubernetes-validations"] = json!([rule(
            "quantity(self).compareTo(quantity(oldSelf)) >= 0".to_owned(),
            "a volume can only grow",
        )]);
    });
    at("state.volume.storageClassName", &|schema| {
        schema["x-kubernetes-validations"] = json!([rule(
            "self == oldSelf".to_owned(),
            "storageClassName cannot change: the volumes exist",
        )]);
    });
    at("kafka.clientConfig", &|schema| {
        let refused: Vec<_> = REFUSED_CLIENT_PROPERTIES.iter().map(|(name, _)| name).collect();
        schema["x-kubernetes-validations"] = json!([rule(
            format!("!self.exists(name, name in {})", json!(refused)),
            "StreamApp sets transactional.id, acks, isolation.level, enable.idempotence, group.id, enable.auto.commit, auto.offset.reset and what has fields of its own (bootstrapServers, tls, authentication): leave them out",
        )]);
    });
    at("kafka.bootstrapServers", &|schema| {
        schema["minLength"] = json!(1);
        schema["pattern"] = json!("^[^\\s,/]+:[0-9]+(,[^\\s,/]+:[0-9]+)*$");
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(schema: &Value, path: &str, visit: &mut dyn FnMut(&str, &Value)) {
        visit(path, schema);
        for (name, property) in schema
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            walk(property, &format!("{path}.{name}"), visit);
        }
        for inner in ["items", "additionalProperties"] {
            if let Some(inner) = schema.get(inner) {
                walk(inner, &format!("{path}[]"), visit);
            }
        }
    }

    fn schema() -> Value {
        definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    #[test]
    fn every_string_list_and_map_has_a_bound_and_every_field_a_text() {
        walk(&schema(), "", &mut |path, schema| {
            let kind = schema["type"].as_str().unwrap();
            let bound = match kind {
                "string" => schema["maxLength"].is_u64() || schema["enum"].is_array(),
                "array" => schema["maxItems"].is_u64(),
                "object" => schema["additionalProperties"].is_null() || schema["maxProperties"].is_u64(),
                _ => true,
            };
            let exempt = ["", ".apiVersion", ".kind", ".metadata"].contains(&path);
            assert!(bound || exempt, "{path} has no bound");
            assert!(
                exempt || path.ends_with("[]") || schema["description"].is_string(),
                "{path} has no description"
            );
        });
    }

    #[test]
    fn nothing_is_said_that_a_structural_schema_may_not_say() {
        walk(&schema(), "", &mut |path, schema| {
            for name in [
                "oneOf", "anyOf", "allOf", "$ref", "const", "format", "$schema", "title",
            ] {
                assert!(schema.get(name).is_none(), "{path} has {name}");
            }
            assert_ne!(schema.get("additionalProperties"), Some(&json!(false)), "{path}");
        });
    }

    #[test]
    fn the_definition_stays_small() {
        let bytes = serde_json::to_vec(&definition()).unwrap().len();
        assert!(bytes < 110 * 1024, "{bytes} bytes");
    }

    #[test]
    fn rules_stand_where_they_should() {
        let schema = schema();
        for pointer in [
            "/properties/spec",
            "/properties/spec/properties/applicationId",
            "/properties/spec/properties/state/properties/volume/properties/size",
            "/properties/spec/properties/state/properties/volume/properties/storageClassName",
            "/properties/spec/properties/kafka/properties/clientConfig",
        ] {
            assert!(
                schema
                    .pointer(pointer)
                    .is_some_and(|at| at["x-kubernetes-validations"].is_array()),
                "{pointer}"
            );
        }
        assert_eq!(
            schema["properties"]["spec"]["properties"]["replicas"]["default"],
            1
        );
    }
}
