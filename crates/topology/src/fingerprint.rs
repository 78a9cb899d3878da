//! Digests of what must not change while a store or an internal topic lives.

use std::fmt::Write as _;

use crate::Type;
use crate::plan::Format;

/// 16 hex digits of FNV-1a (64 bits) over the parts. Not cryptographic: it tells apart versions of one
/// declaration. <http://www.isthe.com/chongo/tech/comp/fnv/>
pub(crate) fn digest(parts: &[&str]) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    for part in parts {
        part.bytes().for_each(&mut add);
        add(0xff);
    }
    format!("{hash:016x}")
}

/// A text that is equal for two types exactly if their values are encoded alike; names of types do not count.
pub(crate) fn canonical_type(ty: &Type) -> String {
    match ty {
        Type::Struct(ty) => {
            let mut text = "{".to_owned();
            for field in &ty.fields {
                let _ = write!(text, "{:?}:{},", field.name, canonical_type(&field.ty));
            }
            text.push('}');
            text
        }
        Type::List(item) => format!("list({})", canonical_type(item)),
        Type::Map(value) => format!("map({})", canonical_type(value)),
        Type::Optional(inner) => format!("{}?", canonical_type(inner)),
        Type::Bool | Type::Int | Type::Double | Type::String | Type::Bytes | Type::Timestamp => {
            ty.to_string()
        }
    }
}

/// As [`canonical_type`], for a format.
pub(crate) fn canonical_format(format: &Format) -> String {
    match format {
        Format::String
        | Format::Bytes
        | Format::Long
        | Format::Integer
        | Format::Double
        | Format::Boolean
        | Format::Uuid => format.name().unwrap_or_default().to_owned(),
        Format::Json(ty) => format!("Json{}", canonical_type(&Type::Struct(ty.clone()))),
        Format::Row(ty) => format!("Row {}", canonical_type(ty)),
        Format::TimeWindowed { key, size_ms } => {
            format!("TimeWindowed {size_ms} {}", canonical_format(key))
        }
        Format::SessionWindowed { key } => format!("SessionWindowed {}", canonical_format(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_encoding_has_a_text_of_its_own() {
        let all = [
            Format::String,
            Format::Bytes,
            Format::Long,
            Format::Integer,
            Format::Double,
            Format::Boolean,
            Format::Uuid,
        ];
        let texts: std::collections::BTreeSet<_> = all.iter().map(canonical_format).collect();
        assert_eq!(texts.len(), all.len());
        assert!(texts.iter().all(|text| !text.is_empty()));
    }

    #[test]
    fn the_digest_is_fnv_1a() {
        assert_eq!(digest(&[]), "cbf29ce484222325");
        assert_ne!(digest(&["a", "b"]), digest(&["ab"]));
    }
}
