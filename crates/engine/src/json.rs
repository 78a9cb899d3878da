//! JSON values of records: one pass over the bytes, only the wanted fields become values, everything else is skipped but
//! must be well-formed (RFC 8259). Strings without escapes are borrowed from the record.

use bumpalo::Bump;
use bumpalo::collections::{String as ArenaString, Vec as ArenaVec};
use topology::{StructType, Type, Value};

/// Nesting that a record may have.
const MAX_DEPTH: u32 = 128;

/// Why bytes are not the wanted record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("JSON, byte {at}: {reason}")]
pub struct JsonError {
    /// Offset of the byte.
    pub at: usize,
    /// What is wrong.
    pub reason: String,
}

/// A value that JSON cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} cannot be written as JSON")]
pub struct WriteError(String);

/// Reads an object; absent fields of optional types are null.
///
/// # Errors
/// [`JsonError`]: malformed JSON, a missing field, a value of another type.
pub fn read<'a>(ty: &StructType, bytes: &'a [u8], arena: &'a Bump) -> Result<Value<'a>, JsonError> {
    let mut reader = Reader {
        bytes,
        at: 0,
        depth: 0,
        arena,
    };
    reader.space();
    let value = reader.object(ty)?;
    reader.space();
    if reader.at < bytes.len() {
        return Err(reader.error("bytes follow the object"));
    }
    Ok(value)
}

/// Appends an object: fields in the type's order, no spaces, null for absent ones.
///
/// # Errors
/// [`WriteError`] for numbers that are not finite and for bytes.
pub fn write(ty: &StructType, value: Value<'_>, into: &mut Vec<u8>) -> Result<(), WriteError> {
    let Value::Struct(slots) = value else {
        return Err(WriteError(format!("a value that is no {}", ty.name)));
    };
    into.push(b'{');
    for (index, (field, slot)) in ty.fields.iter().zip(slots).enumerate() {
        if index > 0 {
            into.push(b',');
        }
        write_string(&field.name, into);
        into.push(b':');
        write_value(&field.ty, *slot, into)?;
    }
    into.push(b'}');
    Ok(())
}

fn write_value(ty: &Type, value: Value<'_>, into: &mut Vec<u8>) -> Result<(), WriteError> {
    match value {
        Value::Null => into.extend_from_slice(b"null"),
        Value::Bool(true) => into.extend_from_slice(b"true"),
        Value::Bool(false) => into.extend_from_slice(b"false"),
        Value::Int(value) | Value::Timestamp(value) => {
            into.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        }
        // serde_json's form: shortest that reads back, always with a point or an exponent.
        Value::Double(value) if value.is_finite() => {
            serde_json::to_writer(&mut *into, &value).map_err(|error| WriteError(error.to_string()))?;
        }
        Value::Double(value) => return Err(WriteError(value.to_string())),
        Value::String(text) => write_string(text, into),
        Value::Bytes(_) => return Err(WriteError("a value of type bytes".to_owned())),
        Value::Struct(_) => match ty {
            Type::Struct(ty) => write(ty, value, into)?,
            ty => return Err(WriteError(format!("a record where {ty} is wanted"))),
        },
    }
    Ok(())
}

fn write_string(text: &str, into: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    into.push(b'"');
    let mut plain = 0;
    let bytes = text.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        into.extend_from_slice(&bytes[plain..at]);
        plain = at + 1;
        match byte {
            b'"' | b'\\' => into.extend_from_slice(&[b'\\', byte]),
            b'\n' => into.extend_from_slice(b"\\n"),
            b'\r' => into.extend_from_slice(b"\\r"),
            b'\t' => into.extend_from_slice(b"\\t"),
            0x08 => into.extend_from_slice(b"\\b"),
            0x0c => into.extend_from_slice(b"\\f"),
            byte => {
                into.extend_from_slice(b"\\u00");
                into.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    into.extend_from_slice(&bytes[plain..]);
    into.push(b'"');
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: u32,
    arena: &'a Bump,
}

/// A string token: where its content lies, and whether it has escapes.
struct Raw {
    start: usize,
    end: usize,
    escaped: bool,
}

impl<'a> Reader<'a> {
    #[cold]
    fn error(&self, reason: impl Into<String>) -> JsonError {
        JsonError {
            at: self.at,
            reason: reason.into(),
        }
    }

    fn peek(&self) -> u8 {
        // NUL stands for the end: it is no token.
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    fn space(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.peek() == byte {
            self.at += 1;
            return Ok(());
        }
        Err(self.error(format!("expected `{}`, found {}", char::from(byte), self.found())))
    }

    fn found(&self) -> String {
        match self.bytes.get(self.at) {
            Some(byte) if byte.is_ascii_graphic() => format!("`{}`", char::from(*byte)),
            Some(byte) => format!("byte 0x{byte:02x}"),
            None => "the end".to_owned(),
        }
    }

    fn deeper(&mut self) -> Result<(), JsonError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            Err(self.error(format!("nested deeper than {MAX_DEPTH}")))
        } else {
            Ok(())
        }
    }

    fn object(&mut self, ty: &StructType) -> Result<Value<'a>, JsonError> {
        self.deeper()?;
        let mut slots = ArenaVec::with_capacity_in(ty.fields.len(), self.arena);
        slots.resize(ty.fields.len(), None);
        self.expect(b'{')?;
        self.space();
        let mut hint = 0;
        if self.peek() == b'}' {
            self.at += 1;
        } else {
            loop {
                let name = self.string()?;
                self.space();
                self.expect(b':')?;
                self.space();
                match self.slot(ty, &name, hint) {
                    Some(slot) => {
                        let field = &ty.fields[slot];
                        slots[slot] = Some(self.value(&field.ty, &field.name)?);
                        hint = slot + 1;
                    }
                    None => self.skip()?,
                }
                self.space();
                match self.peek() {
                    b',' => self.at += 1,
                    b'}' => break,
                    _ => return Err(self.error(format!("expected `,` or `}}`, found {}", self.found()))),
                }
                self.space();
            }
            self.at += 1;
        }
        self.depth -= 1;
        let mut values = ArenaVec::with_capacity_in(slots.len(), self.arena);
        for (field, slot) in ty.fields.iter().zip(slots) {
            match (slot, &field.ty) {
                (Some(value), _) => values.push(value),
                (None, Type::Optional(_)) => values.push(Value::Null),
                (None, _) => return Err(self.error(format!("field `{}` is missing", field.name))),
            }
        }
        Ok(Value::Struct(values.into_bump_slice()))
    }

    /// The slot of a field name. Records repeat their order, so the field after the last one is tried first.
    fn slot(&self, ty: &StructType, name: &Raw, hint: usize) -> Option<usize> {
        let raw = &self.bytes[name.start..name.end];
        let decoded;
        let wanted = if name.escaped {
            decoded = unescape(raw, self.arena)?;
            decoded.as_bytes()
        } else {
            raw
        };
        if ty
            .fields
            .get(hint)
            .is_some_and(|field| field.name.as_bytes() == wanted)
        {
            return Some(hint);
        }
        ty.fields.iter().position(|field| field.name.as_bytes() == wanted)
    }

    fn value(&mut self, ty: &Type, field: &str) -> Result<Value<'a>, JsonError> {
        let start = self.at;
        match ty {
            Type::Optional(_) if self.peek() == b'n' => {
                self.literal(b"null")?;
                Ok(Value::Null)
            }
            Type::Optional(inner) => self.value(inner, field),
            Type::String if self.peek() == b'"' => {
                let raw = self.string()?;
                let bytes = &self.bytes[raw.start..raw.end];
                let text = if raw.escaped {
                    unescape(bytes, self.arena)
                } else {
                    std::str::from_utf8(bytes).ok()
                };
                text.map(Value::String)
                    .ok_or_else(|| self.wrong(start, field, "a string with a lone surrogate"))
            }
            Type::Bool if self.peek() == b't' => self.literal(b"true").map(|()| Value::Bool(true)),
            Type::Bool if self.peek() == b'f' => self.literal(b"false").map(|()| Value::Bool(false)),
            Type::Int => Ok(Value::Int(self.integer(field)?)),
            Type::Timestamp => Ok(Value::Timestamp(self.integer(field)?)),
            Type::Double if matches!(self.peek(), b'-' | b'0'..=b'9') => {
                let (text, _) = self.number()?;
                let parsed: f64 = text.parse().map_err(|_| self.wrong(start, field, "a double"))?;
                if parsed.is_finite() {
                    Ok(Value::Double(parsed))
                } else {
                    Err(self.wrong(start, field, "a double (out of range)"))
                }
            }
            Type::Struct(ty) if self.peek() == b'{' => self.object(ty),
            ty => {
                let found = self.found();
                Err(self.wrong(start, field, &format!("{ty}, found {found}")))
            }
        }
    }

    #[cold]
    fn wrong(&self, at: usize, field: &str, wanted: &str) -> JsonError {
        JsonError {
            at,
            reason: format!("field `{field}`: expected {wanted}"),
        }
    }

    fn integer(&mut self, field: &str) -> Result<i64, JsonError> {
        let start = self.at;
        if !matches!(self.peek(), b'-' | b'0'..=b'9') {
            let found = self.found();
            return Err(self.wrong(start, field, &format!("int, found {found}")));
        }
        let (text, whole) = self.number()?;
        let parsed = if whole { text.parse().ok() } else { None };
        parsed.ok_or_else(|| self.wrong(start, field, "int (a whole number of at most 64 bits)"))
    }

    /// A number token; whether it is without fraction and exponent.
    fn number(&mut self) -> Result<(&'a str, bool), JsonError> {
        let start = self.at;
        let mut whole = true;
        if self.peek() == b'-' {
            self.at += 1;
        }
        match self.peek() {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits(),
            _ => return Err(self.error(format!("expected a digit, found {}", self.found()))),
        }
        if self.peek() == b'.' {
            whole = false;
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            whole = false;
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.some_digits()?;
        }
        let text = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default();
        Ok((text, whole))
    }

    fn digits(&mut self) {
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Result<(), JsonError> {
        if !self.peek().is_ascii_digit() {
            return Err(self.error(format!("expected a digit, found {}", self.found())));
        }
        self.digits();
        Ok(())
    }

    /// A string token, checked: UTF-8, escapes, no control characters.
    fn string(&mut self) -> Result<Raw, JsonError> {
        self.expect(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            let rest = &self.bytes[self.at..];
            let Some(next) = memchr::memchr2(b'"', b'\\', rest) else {
                self.at = self.bytes.len();
                return Err(self.error("the string does not end"));
            };
            if let Some(control) = rest[..next].iter().position(|byte| *byte < 0x20) {
                self.at += control;
                return Err(self.error("a control character within a string"));
            }
            self.at += next;
            if self.peek() == b'"' {
                break;
            }
            escaped = true;
            self.at += 1;
            match self.peek() {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
                b'u' => {
                    let hex = self.bytes.get(self.at + 1..self.at + 5);
                    if !hex.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) {
                        return Err(self.error("expected four hexadecimal digits"));
                    }
                    self.at += 5;
                }
                _ => return Err(self.error(format!("unknown escape {}", self.found()))),
            }
        }
        let raw = Raw {
            start,
            end: self.at,
            escaped,
        };
        if let Err(error) = std::str::from_utf8(&self.bytes[start..self.at]) {
            self.at = start + error.valid_up_to();
            return Err(self.error("not UTF-8"));
        }
        self.at += 1;
        Ok(raw)
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), JsonError> {
        if self.bytes[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.error(format!("expected {}", String::from_utf8_lossy(word))))
    }

    /// A value that nobody reads.
    fn skip(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            b'"' => {
                let raw = self.string()?;
                // A lone surrogate is no character, read or not.
                if raw.escaped && !surrogates_pair(&self.bytes[raw.start..raw.end]) {
                    self.at = raw.start;
                    return Err(self.error("a lone surrogate"));
                }
                Ok(())
            }
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            b'{' => self.skip_all(b'}', |reader| {
                let raw = reader.string()?;
                if raw.escaped && !surrogates_pair(&reader.bytes[raw.start..raw.end]) {
                    return Err(reader.error("a lone surrogate"));
                }
                reader.space();
                reader.expect(b':')?;
                reader.space();
                reader.skip()
            }),
            b'[' => self.skip_all(b']', Self::skip),
            b'-' | b'0'..=b'9' => self.number().map(|_| ()),
            _ => Err(self.error(format!("expected a value, found {}", self.found()))),
        }
    }

    fn skip_all(
        &mut self,
        close: u8,
        item: impl Fn(&mut Self) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        self.deeper()?;
        self.at += 1;
        self.space();
        if self.peek() != close {
            loop {
                item(self)?;
                self.space();
                match self.peek() {
                    b',' => self.at += 1,
                    byte if byte == close => break,
                    _ => {
                        return Err(self.error(format!(
                            "expected `,` or `{}`, found {}",
                            char::from(close),
                            self.found()
                        )));
                    }
                }
                self.space();
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }
}

/// Whether every surrogate escape has its other half. Allocates nothing: nobody reads the text.
fn surrogates_pair(raw: &[u8]) -> bool {
    let mut at = 0;
    while let Some(next) = memchr::memchr(b'\\', &raw[at..]) {
        at += next + 2;
        if raw[at - 1] != b'u' {
            continue;
        }
        let unit = hex(raw, at);
        at += 4;
        match unit {
            Some(0xD800..=0xDBFF) => {
                let low = (raw.get(at..at + 2) == Some(b"\\u"))
                    .then(|| hex(raw, at + 2))
                    .flatten();
                if !low.is_some_and(|low| (0xDC00..=0xDFFF).contains(&low)) {
                    return false;
                }
                at += 6;
            }
            Some(0xDC00..=0xDFFF) | None => return false,
            Some(_) => {}
        }
    }
    true
}

/// Content of a checked string token without its escapes; `None` for a lone surrogate.
fn unescape<'a>(raw: &[u8], arena: &'a Bump) -> Option<&'a str> {
    let mut text = ArenaString::with_capacity_in(raw.len(), arena);
    let mut at = 0;
    while at < raw.len() {
        let plain = memchr::memchr(b'\\', &raw[at..]).map_or(raw.len(), |next| at + next);
        text.push_str(std::str::from_utf8(&raw[at..plain]).ok()?);
        at = plain;
        if at == raw.len() {
            break;
        }
        let escape = raw[at + 1];
        at += 2;
        text.push(match escape {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = hex(raw, at)?;
                at += 4;
                match unit {
                    0xD800..=0xDBFF => {
                        let low = (raw.get(at..at + 2) == Some(b"\\u"))
                            .then(|| hex(raw, at + 2))
                            .flatten()?;
                        if !(0xDC00..=0xDFFF).contains(&low) {
                            return None;
                        }
                        at += 6;
                        char::from_u32(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00))?
                    }
                    unit => char::from_u32(unit)?,
                }
            }
            other => char::from(other),
        });
    }
    Some(text.into_bump_str())
}

fn hex(raw: &[u8], at: usize) -> Option<u32> {
    let digits = std::str::from_utf8(raw.get(at..at + 4)?).ok()?;
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use topology::Field;

    use super::*;

    fn order() -> StructType {
        let field = |name: &str, ty| Field {
            name: name.into(),
            ty,
        };
        StructType {
            name: "Order".into(),
            fields: vec![
                field("amount", Type::Int),
                field("note", Type::Optional(Box::new(Type::String))),
                field("rate", Type::Optional(Box::new(Type::Double))),
                field("id", Type::Optional(Box::new(Type::String))),
            ],
        }
    }

    fn show(text: &str) -> Result<String, String> {
        let arena = Bump::new();
        read(&order(), text.as_bytes(), &arena)
            .map(|value| format!("{value:?}"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn only_wanted_fields_become_values() {
        let text = r#" {"x":{"y":[1,2,{"z":null}]}, "id":"a\u00e9\ud83d\ude80\n", "amount" : -42 ,"rate":1.5e2,"t":true} "#;
        let expected = "Struct([Int(-42), Null, Double(150.0), String(\"aé🚀\\n\")])";
        assert_eq!(show(text).as_deref(), Ok(expected));
    }

    #[test]
    fn errors_name_the_field_and_the_byte() {
        for (text, reason) in [
            (r#"{"note":"x"}"#, "field `amount` is missing"),
            (
                r#"{"amount":1.5}"#,
                "byte 10: field `amount`: expected int (a whole number",
            ),
            (r#"{"amount":"1"}"#, "field `amount`: expected int, found `\"`"),
            (
                r#"{"amount":9223372036854775808}"#,
                "expected int (a whole number",
            ),
            (r#"{"amount":null}"#, "expected int, found `n`"),
            (r#"{"amount":1"#, "expected `,` or `}`, found the end"),
            (r#"{"amount":01}"#, "expected `,` or `}`"),
            (r#"{"amount":1}x"#, "bytes follow"),
            (r#"{"amount":1,}"#, "expected `\"`"),
            ("{\"amount\":1,\"x\":\"a\u{1}\"}", "control character"),
            (r#"{"amount":1,"x":"\q"}"#, "unknown escape"),
            (r#"{"amount":1,"id":"\ud800"}"#, "lone surrogate"),
            (r#"{"amount":1,"x":"\ud800"}"#, "lone surrogate"),
            ("null", "expected `{`"),
            ("", "expected `{`, found the end"),
        ] {
            let error = show(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
        let deep = format!("{{\"amount\":1,\"x\":{}{}}}", "[".repeat(200), "]".repeat(200));
        assert!(show(&deep).unwrap_err().contains("nested deeper"));
    }

    #[test]
    fn the_last_of_equal_names_wins() {
        assert_eq!(
            show(r#"{"amount":1,"amount":2}"#).unwrap(),
            "Struct([Int(2), Null, Null, Null])"
        );
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>()
                .prop_map(|n| serde_json::Number::from_f64(n).map_or(serde_json::Value::Null, Into::into)),
            ".{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::vec((".{0,4}", inner), 0..4)
                    .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Whatever serde_json accepts as an object is accepted, whatever it refuses is refused.
        #[test]
        fn mutated_json_is_judged_as_serde_json_judges_it(value in json(), amount in any::<i64>(), cut in any::<prop::sample::Index>(), byte in any::<u8>(), mutate in any::<bool>()) {
            let mut bytes = format!("{{\"skipped\":{value},\"amount\":{amount}}}").into_bytes();
            if mutate {
                let at = cut.index(bytes.len());
                bytes[at] = byte;
            }
            let arena = Bump::new();
            let found = read(&StructType { name: "T".into(), fields: vec![] }, &bytes, &arena);
            let reference = serde_json::from_slice::<serde_json::Value>(&bytes);
            // serde_json refuses numbers beyond a double; here nobody reads them.
            let out_of_range = reference.as_ref().is_err_and(|error| error.to_string().contains("number out of range"));
            prop_assert_eq!(found.is_ok(), reference.as_ref().is_ok_and(serde_json::Value::is_object) || out_of_range, "{:?} {:?}", found, reference);
        }

        #[test]
        fn what_is_written_reads_back(amount in any::<i64>(), note in proptest::option::of(".*"), rate in proptest::option::of(-1e300f64..1e300)) {
            let ty = order();
            let slots = [
                Value::Int(amount),
                note.as_deref().map_or(Value::Null, Value::String),
                rate.map_or(Value::Null, Value::Double),
                Value::String("\u{1}\"\\/\u{7f}"),
            ];
            let mut bytes = Vec::new();
            write(&ty, Value::Struct(&slots), &mut bytes).unwrap();
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
            let arena = Bump::new();
            prop_assert_eq!(read(&ty, &bytes, &arena).unwrap(), Value::Struct(&slots));
        }
    }
}
