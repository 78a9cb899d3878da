//! Reads the signatures of the library.

use super::Overload;
use crate::expr::node::{Call, Function};
use crate::expr::ty::Ty;

/// Reads `name(T, …) -> T` or `T.name(T, …) -> T`.
pub(super) fn read(signature: &'static str, call: Call) -> Option<(&'static str, Overload)> {
    let (head, result) = signature.split_once(" -> ")?;
    let open = matching(head)?;
    let (before, arguments) = (&head[..open], &head[open + 1..head.len() - 1]);
    let (receiver, name) = match before.rsplit_once('.') {
        Some((receiver, name)) if !matches!(receiver, "strings" | "base64" | "math" | "lists") => {
            (Some(receiver), name)
        }
        Some(_) | None => (None, before),
    };
    let mut parameters: Vec<_> = receiver.map(parse_type).into_iter().collect::<Option<_>>()?;
    for argument in split_types(arguments) {
        parameters.push(parse_type(argument)?);
    }
    let overload = Overload {
        signature,
        is_method: receiver.is_some(),
        parameters,
        result: parse_type(result)?,
        function: Function { name, call },
    };
    Some((name, overload))
}

/// Where the parenthesis opens that the last character closes.
fn matching(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices().rev() {
        match c {
            ')' => depth += 1,
            '(' if depth == 1 => return Some(at),
            '(' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

fn split_types(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() {
        parts.push(text[start..].trim());
    }
    parts
}

fn parse_type(text: &str) -> Option<Ty> {
    if let Some(inner) = text.strip_suffix('?') {
        return parse_type(inner).map(Ty::optional);
    }
    if let Some(inner) = text.strip_prefix("list(").and_then(|text| text.strip_suffix(')')) {
        return parse_type(inner).map(Ty::list);
    }
    if let Some(inner) = text.strip_prefix("map(").and_then(|text| text.strip_suffix(')')) {
        return match split_types(inner)[..] {
            [key, value] => Some(Ty::map(parse_type(key)?, parse_type(value)?)),
            _ => None,
        };
    }
    Some(match text {
        "bool" => Ty::Bool,
        "int" => Ty::Int,
        "uint" => Ty::Uint,
        "double" => Ty::Double,
        "string" => Ty::String,
        "bytes" => Ty::Bytes,
        "timestamp" => Ty::Timestamp,
        "duration" => Ty::Duration,
        "A" => Ty::Parameter(0),
        "B" => Ty::Parameter(1),
        _ => return None,
    })
}
