//! Declared record types.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::PlanError;
use crate::declaration::RecordType;
use crate::suggest::did_you_mean;
use crate::{Field, Path, StructType, Type};

/// Declared types by name. A type with an error is there too, without the fields that are wrong.
pub(crate) type Types = BTreeMap<String, Arc<StructType>>;

const SCALARS: [(&str, Type); 6] = [
    ("string", Type::String),
    ("int", Type::Int),
    ("double", Type::Double),
    ("bool", Type::Bool),
    ("bytes", Type::Bytes),
    ("timestampMillis", Type::Timestamp),
];

pub(crate) fn resolve(declared: &[RecordType], errors: &mut Vec<PlanError>) -> Types {
    let mut resolver = Resolver {
        declared,
        done: Types::new(),
        open: Vec::new(),
        errors,
    };
    for index in 0..declared.len() {
        resolver.record(index);
    }
    resolver.done
}

struct Resolver<'d> {
    declared: &'d [RecordType],
    done: Types,
    /// Types whose fields are being resolved, outermost first.
    open: Vec<usize>,
    errors: &'d mut Vec<PlanError>,
}

impl Resolver<'_> {
    fn record(&mut self, index: usize) -> Option<Arc<StructType>> {
        let declared = self.declared.get(index)?;
        if let Some(done) = self.done.get(&declared.name) {
            return Some(Arc::clone(done));
        }
        let path = Path::topology().field("types").index(index).field("fields");
        if declared.fields.is_empty() {
            self.errors.push(PlanError::new(
                &path,
                format!("type `{}` has no fields", declared.name),
            ));
        }
        self.open.push(index);
        let mut fields = Vec::with_capacity(declared.fields.len());
        for (name, text) in &declared.fields {
            if !is_identifier(name) {
                let message =
                    format!("field `{name}` cannot be named in an expression: use letters, digits and `_`");
                self.errors.push(PlanError::new(&path.field(name), message));
            }
            if let Some(ty) = self.type_of(text, &path.field(name)) {
                fields.push(Field {
                    name: name.clone(),
                    ty,
                });
            }
        }
        self.open.pop();
        let ty = Arc::new(StructType {
            name: declared.name.clone(),
            fields,
        });
        self.done.insert(declared.name.clone(), Arc::clone(&ty));
        Some(ty)
    }

    fn type_of(&mut self, text: &str, path: &Path) -> Option<Type> {
        if let Some(inner) = text.strip_suffix('?') {
            return self.type_of(inner, path).map(|ty| match ty {
                optional @ Type::Optional(_) => optional,
                Type::Bool
                | Type::Int
                | Type::Double
                | Type::String
                | Type::Bytes
                | Type::Timestamp
                | Type::List(_)
                | Type::Map(_)
                | Type::Struct(_) => Type::Optional(Box::new(ty)),
            });
        }
        let inside = |start| text.strip_prefix(start).and_then(|text| text.strip_suffix(')'));
        if let Some(item) = inside("list(") {
            return self.type_of(item.trim(), path).map(|ty| Type::List(Box::new(ty)));
        }
        if let Some(value) = inside("map(").and_then(|inner| inner.split_once(',')) {
            if value.0.trim() != "string" {
                let message = format!("a map's keys are strings, as JSON's are, not {}", value.0.trim());
                self.errors.push(PlanError::new(path, message));
                return None;
            }
            return self
                .type_of(value.1.trim(), path)
                .map(|ty| Type::Map(Box::new(ty)));
        }
        if let Some((_, ty)) = SCALARS.iter().find(|(name, _)| *name == text) {
            return Some(ty.clone());
        }
        let Some(index) = self.declared.iter().position(|record| record.name == text) else {
            self.errors.push(self.unknown(text, path));
            return None;
        };
        if self.open.contains(&index) {
            self.errors
                .push(PlanError::new(path, format!("type `{text}` contains itself")));
            return None;
        }
        self.record(index).map(Type::Struct)
    }

    fn unknown(&self, text: &str, path: &Path) -> PlanError {
        let scalars = SCALARS.iter().map(|(name, _)| *name);
        let known: Vec<_> = scalars
            .chain(self.declared.iter().map(|record| record.name.as_str()))
            .collect();
        let suggestion = match text {
            "long" | "integer" | "int64" | "int32" => Some("did you mean `int`?".to_owned()),
            "float" | "number" | "decimal" => Some("did you mean `double`?".to_owned()),
            "boolean" => Some("did you mean `bool`?".to_owned()),
            "timestamp" | "date" => Some("did you mean `timestampMillis`?".to_owned()),
            _ => did_you_mean(text, "types", &known),
        };
        PlanError {
            suggestion,
            ..PlanError::new(path, format!("unknown type `{text}`"))
        }
    }
}

pub(crate) fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}
