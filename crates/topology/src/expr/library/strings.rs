//! Strings: positions are counted in characters.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::{Entry, Evaluated};
use crate::Value;
use crate::expr::EvalError;
use crate::expr::eval::Context;
use crate::expr::operators::length;

pub(super) const FUNCTIONS: &[Entry] = &[
    (&["string.startsWith(string) -> bool"], starts_with),
    (&["string.endsWith(string) -> bool"], ends_with),
    (&["string.contains(string) -> bool"], contains_text),
    (&["string.charAt(int) -> string"], char_at),
    (
        &[
            "string.indexOf(string) -> int",
            "string.indexOf(string, int) -> int",
        ],
        index_of,
    ),
    (
        &[
            "string.lastIndexOf(string) -> int",
            "string.lastIndexOf(string, int) -> int",
        ],
        last_index_of,
    ),
    (&["string.lowerAscii() -> string"], lower_ascii),
    (&["string.upperAscii() -> string"], upper_ascii),
    (
        &[
            "string.replace(string, string) -> string",
            "string.replace(string, string, int) -> string",
        ],
        replace,
    ),
    (
        &[
            "string.split(string) -> list(string)",
            "string.split(string, int) -> list(string)",
        ],
        split,
    ),
    (
        &[
            "string.substring(int) -> string",
            "string.substring(int, int) -> string",
        ],
        substring,
    ),
    (&["string.trim() -> string"], trim),
    (
        &[
            "list(string).join() -> string",
            "list(string).join(string) -> string",
        ],
        join,
    ),
    (&["strings.quote(string) -> string"], quote),
    (&["base64.encode(bytes) -> string"], base64_encode),
    (&["base64.decode(string) -> bytes"], base64_decode),
];

fn starts_with<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::String(text), Value::String(start)] => Ok(Value::Bool(text.starts_with(start))),
        _ => Err(EvalError::NoOverload("startsWith")),
    }
}

fn ends_with<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::String(text), Value::String(end)] => Ok(Value::Bool(text.ends_with(end))),
        _ => Err(EvalError::NoOverload("endsWith")),
    }
}

fn contains_text<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::String(text), Value::String(part)] => {
            context.text(text.len())?;
            Ok(Value::Bool(text.contains(part)))
        }
        _ => Err(EvalError::NoOverload("contains")),
    }
}

/// The byte at which the character with this number starts; the end for the number behind the last.
fn byte_of(text: &str, number: i64) -> Result<usize, EvalError> {
    let outside = || EvalError::Index(number.to_string().into());
    let wanted = usize::try_from(number).map_err(|_| outside())?;
    let starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    starts.into_iter().nth(wanted).ok_or_else(outside)
}

fn characters(text: &str) -> i64 {
    length(text.chars().count())
}

fn char_at<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(text), Value::Int(number)] = arguments else {
        return Err(EvalError::NoOverload("charAt"));
    };
    let at = byte_of(text, *number)?;
    let end = text[at..].chars().next().map_or(at, |c| at + c.len_utf8());
    Ok(Value::String(&text[at..end]))
}

fn index_of<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let (text, part, from) = match arguments {
        [Value::String(text), Value::String(part)] => (text, part, 0),
        [Value::String(text), Value::String(part), Value::Int(from)] => (text, part, *from),
        _ => return Err(EvalError::NoOverload("indexOf")),
    };
    context.text(text.len())?;
    let start = byte_of(text, from)?;
    let found = text[start..]
        .find(part)
        .map(|at| from + characters(&text[start..start + at]));
    Ok(Value::Int(found.unwrap_or(-1)))
}

fn last_index_of<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let (text, part, from) = match arguments {
        [Value::String(text), Value::String(part)] => (text, part, characters(text)),
        [Value::String(text), Value::String(part), Value::Int(from)] => (text, part, *from),
        _ => return Err(EvalError::NoOverload("lastIndexOf")),
    };
    context.text(text.len())?;
    let last = byte_of(text, from)?;
    let starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    let mut found = None;
    for at in starts.take_while(|at| *at <= last) {
        context.text(part.len())?;
        if text[at..].starts_with(part) {
            found = Some(at);
        }
    }
    Ok(Value::Int(found.map_or(-1, |at| characters(&text[..at]))))
}

fn lower_ascii<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(text)] = arguments else {
        return Err(EvalError::NoOverload("lowerAscii"));
    };
    let mut out = context.new_string(text.len());
    out.extend(text.chars().map(|c| c.to_ascii_lowercase()));
    context.string(out)
}

fn upper_ascii<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(text)] = arguments else {
        return Err(EvalError::NoOverload("upperAscii"));
    };
    let mut out = context.new_string(text.len());
    out.extend(text.chars().map(|c| c.to_ascii_uppercase()));
    context.string(out)
}

/// A limit below 0 is none.
fn limit(value: i64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn replace<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let (text, from, to, most) = match arguments {
        [Value::String(text), Value::String(from), Value::String(to)] => (text, *from, to, -1),
        [
            Value::String(text),
            Value::String(from),
            Value::String(to),
            Value::Int(most),
        ] => (text, *from, to, *most),
        _ => return Err(EvalError::NoOverload("replace")),
    };
    let mut out = context.new_string(text.len());
    let mut rest = 0;
    for (at, _) in text.match_indices(from).take(limit(most)) {
        // Before it grows, not afterwards: an empty `from` matches everywhere.
        context.text(to.len())?;
        out.push_str(&text[rest..at]);
        out.push_str(to);
        rest = at + from.len();
    }
    out.push_str(&text[rest..]);
    context.string(out)
}

fn split<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let (text, by, most) = match arguments {
        [Value::String(text), Value::String(by)] => (*text, *by, usize::MAX),
        [Value::String(text), Value::String(by), Value::Int(most)] => (*text, *by, limit(*most)),
        _ => return Err(EvalError::NoOverload("split")),
    };
    context.text(text.len())?;
    let mut items = context.new_list(0);
    if by.is_empty() {
        // One character each.
        let mut rest = text;
        while !rest.is_empty() && items.len() < most {
            let next = if items.len() + 1 == most {
                rest.len()
            } else {
                rest.chars().next().map_or(0, char::len_utf8)
            };
            items.push(Value::String(&rest[..next]));
            rest = &rest[next..];
        }
    } else {
        items.extend(text.splitn(most, by).map(Value::String));
    }
    context.list(items)
}

fn substring<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let (text, from, to) = match arguments {
        [Value::String(text), Value::Int(from)] => (*text, *from, None),
        [Value::String(text), Value::Int(from), Value::Int(to)] => (*text, *from, Some(*to)),
        _ => return Err(EvalError::NoOverload("substring")),
    };
    let start = byte_of(text, from)?;
    let end = to.map_or(Ok(text.len()), |to| byte_of(text, to))?;
    let part = text.get(start..end);
    part.map(Value::String).ok_or_else(|| {
        let to = to.map_or_else(|| "the end".to_owned(), |to| to.to_string());
        EvalError::Index(format!("{from} to {to}").into())
    })
}

/// White space as Unicode has it.
fn trim<'a>(_: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    match arguments {
        [Value::String(text)] => Ok(Value::String(text.trim())),
        _ => Err(EvalError::NoOverload("trim")),
    }
}

fn join<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let (items, by) = match arguments {
        [Value::List(items)] => (items, ""),
        [Value::List(items), Value::String(by)] => (items, *by),
        _ => return Err(EvalError::NoOverload("join")),
    };
    let mut out = context.new_string(0);
    for (index, item) in items.iter().enumerate() {
        let Value::String(text) = item else {
            return Err(EvalError::NoOverload("join"));
        };
        context.text(text.len() + by.len())?;
        if index > 0 {
            out.push_str(by);
        }
        out.push_str(text);
    }
    context.string(out)
}

/// In double quotes, printable.
fn quote<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(text)] = arguments else {
        return Err(EvalError::NoOverload("quote"));
    };
    let mut out = context.new_string(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        let escaped = match c {
            '\u{7}' => "\\a",
            '\u{8}' => "\\b",
            '\u{c}' => "\\f",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\u{b}' => "\\v",
            '\\' => "\\\\",
            '"' => "\\\"",
            other => {
                out.push(other);
                continue;
            }
        };
        out.push_str(escaped);
    }
    out.push('"');
    context.string(out)
}

fn base64_encode<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::Bytes(bytes)] = arguments else {
        return Err(EvalError::NoOverload("base64.encode"));
    };
    let length = base64::encoded_len(bytes.len(), true).ok_or(EvalError::Steps)?;
    context.text(length)?;
    let encoded = context.scope.arena.alloc_slice_fill_copy(length, 0);
    let written = STANDARD.encode_slice(bytes, encoded);
    let text = written.ok().and_then(|_| std::str::from_utf8(encoded).ok());
    text.map(Value::String)
        .ok_or(EvalError::Conversion("base64.encode(bytes)"))
}

/// With or without padding.
fn base64_decode<'a>(context: &Context<'_, 'a>, arguments: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(text)] = arguments else {
        return Err(EvalError::NoOverload("base64.decode"));
    };
    let text = text.trim_end_matches('=');
    context.text(text.len() / 4 * 3)?;
    let room = base64::decoded_len_estimate(text.len());
    let decoded = context.scope.arena.alloc_slice_fill_copy(room, 0);
    match STANDARD_NO_PAD.decode_slice(text, decoded) {
        Ok(length) => Ok(Value::Bytes(&decoded[..length])),
        Err(_) => Err(EvalError::Conversion("base64.decode(string)")),
    }
}
