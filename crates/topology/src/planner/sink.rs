//! Headers of the topics that are written, and which topic a record goes to.

use std::sync::Arc;

use super::PlanError;
use super::compile::{compile, compile_as};
use crate::declaration::SinkTopic;
use crate::plan::SinkHeaders;
use crate::{Env, Expr, Path, Type};

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
