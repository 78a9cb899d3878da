use std::sync::Arc;

use proptest::prelude::*;
use topology::{Field, StructType};

use super::*;

fn record(fields: Vec<Type>) -> Type {
    let field = |(at, ty)| Field {
        name: format!("f{at}"),
        ty,
    };
    let fields = fields.into_iter().enumerate().map(field).collect();
    Type::Struct(Arc::new(StructType {
        name: "R".into(),
        fields,
    }))
}

fn optional(ty: Type) -> Type {
    Type::Optional(Box::new(ty))
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The first three are the examples of `docs/reference/formats.md`.
#[test]
fn the_documented_examples_hold() {
    let row = |ty: &Type, value| {
        let mut bytes = Vec::new();
        encode(ty, value, &mut bytes).unwrap();
        hex(&bytes)
    };
    let one = record(vec![Type::Int]);
    assert_eq!(row(&one, Value::Struct(&[Value::Int(12_345)])), "01 f2 c0 01");
    let mut bytes = Vec::new();
    encode_timestamped(&Type::Int, 1_760_000_000_000, Value::Int(-1), &mut bytes).unwrap();
    assert_eq!(hex(&bytes), "01 00 00 01 99 c8 2c c0 00 01");
    let three = record(vec![Type::Bool, optional(Type::String), Type::String]);
    let slots = [Value::Bool(true), Value::Null, Value::String("é")];
    assert_eq!(row(&three, Value::Struct(&slots)), "01 01 00 02 c3 a9");
    let inner = [Value::Double(1.5), Value::Bytes(&[0xde, 0xad])];
    let nested = record(vec![
        Type::Timestamp,
        record(vec![Type::Double, optional(Type::Bytes)]),
    ]);
    assert_eq!(
        row(
            &nested,
            Value::Struct(&[Value::Timestamp(1_760_000_000_000), Value::Struct(&inner)])
        ),
        "01 80 80 e6 82 b9 66 3f f8 00 00 00 00 00 00 01 02 de ad"
    );
}

#[test]
fn what_is_no_row_is_refused() {
    let arena = Bump::new();
    let read = |bytes: &[u8]| decode(&Type::Int, bytes, &Bump::new()).unwrap_err();
    assert_eq!(read(&[]), RowError::Truncated(0));
    assert_eq!(read(&[2, 0]), RowError::Version(2));
    assert_eq!(read(&[1]), RowError::Truncated(1));
    assert_eq!(read(&[1, 0x80]), RowError::Truncated(2));
    assert_eq!(read(&[1, 0, 0]), RowError::Trailing(1));
    // More than 64 bits; more than ten bytes; a needless last byte.
    assert_eq!(
        read(&[1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2]),
        RowError::Malformed("number", 11)
    );
    assert_eq!(
        read(&[1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 129, 0]),
        RowError::Malformed("number", 11)
    );
    assert_eq!(read(&[1, 0x80, 0]), RowError::Malformed("number", 3));
    assert_eq!(
        decode(&Type::Bool, &[1, 2], &arena),
        Err(RowError::Malformed("flag", 2))
    );
    assert_eq!(
        decode(&optional(Type::Int), &[1, 3, 0], &arena),
        Err(RowError::Malformed("flag", 2))
    );
    assert_eq!(
        decode(&Type::String, &[1, 200, 1, 65], &arena),
        Err(RowError::Truncated(4))
    );
    assert_eq!(
        decode(&Type::String, &[1, 1, 0xff], &arena),
        Err(RowError::Malformed("string", 3))
    );
    assert_eq!(
        decode(&Type::Double, &[1, 0, 0, 0], &arena),
        Err(RowError::Truncated(4))
    );
}

#[test]
fn lists_and_maps_have_a_count_and_their_items() {
    let list = Type::List(Box::new(optional(Type::Int)));
    let map = Type::Map(Box::new(Type::Bool));
    let mut row = Vec::new();
    encode(&list, Value::List(&[Value::Int(1), Value::Null]), &mut row).unwrap();
    assert_eq!(hex(&row), "01 02 01 02 00");
    row.clear();
    let entries = [
        (Value::String("a"), Value::Bool(true)),
        (Value::String("b"), Value::Bool(false)),
    ];
    encode(&map, Value::Map(&entries), &mut row).unwrap();
    assert_eq!(hex(&row), "01 02 01 61 01 01 62 00");
    let arena = Bump::new();
    assert_eq!(decode(&map, &row, &arena), Ok(Value::Map(&entries)));
    // More items than bytes; keys out of order; one key twice.
    assert_eq!(
        decode(&list, &[1, 0xff, 0x7f, 0], &arena),
        Err(RowError::Truncated(4))
    );
    let swapped = [1, 2, 1, 0x62, 0, 1, 0x61, 1];
    assert_eq!(decode(&map, &swapped, &arena), Err(RowError::Malformed("map", 7)));
    let twice = [1, 2, 1, 0x61, 0, 1, 0x61, 1];
    assert_eq!(decode(&map, &twice, &arena), Err(RowError::Malformed("map", 7)));
}

#[test]
fn a_value_of_another_type_is_refused() {
    let mut into = Vec::new();
    assert_eq!(
        encode(&Type::Int, Value::Bool(true), &mut into),
        Err(RowError::Type("int".into()))
    );
    assert_eq!(
        encode(&Type::Int, Value::Null, &mut into),
        Err(RowError::Type("int".into()))
    );
    assert_eq!(
        encode(&record(vec![Type::Int]), Value::Struct(&[]), &mut into),
        Err(RowError::Type("R".into()))
    );
}

fn any_type() -> impl Strategy<Value = Type> {
    let leaf = prop_oneof![
        Just(Type::Bool),
        Just(Type::Int),
        Just(Type::Double),
        Just(Type::String),
        Just(Type::Bytes),
        Just(Type::Timestamp),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|ty| if matches!(ty, Type::Optional(_)) {
                ty
            } else {
                optional(ty)
            }),
            inner.clone().prop_map(|ty| Type::List(Box::new(with_bytes(ty)))),
            inner.clone().prop_map(|ty| Type::Map(Box::new(ty))),
            proptest::collection::vec(inner, 0..4).prop_map(record),
        ]
    })
}

/// Items of a list have bytes: a record without fields, which cannot be declared, has none.
fn with_bytes(ty: Type) -> Type {
    let mut row = Vec::new();
    encode(&ty, build(&ty, &mut std::iter::empty(), &Bump::new()), &mut row).unwrap();
    if row.len() > 1 { ty } else { Type::Bool }
}

/// A value of the type, chosen by a sequence of random numbers.
fn build<'a>(ty: &Type, random: &mut impl Iterator<Item = u64>, arena: &'a Bump) -> Value<'a> {
    let mut next = || random.next().unwrap_or(0);
    match ty {
        Type::Bool => Value::Bool(next() % 2 == 1),
        Type::Int => Value::Int(next().cast_signed() >> (next() % 64)),
        Type::Timestamp => Value::Timestamp(next().cast_signed() >> (next() % 64)),
        Type::Double => Value::Double(f64::from_bits(next())),
        Type::String => Value::String(arena.alloc_str(&"aé🚀".repeat((next() % 40) as usize))),
        Type::Bytes => Value::Bytes(arena.alloc_slice_copy(&next().to_be_bytes()[..(next() % 9) as usize])),
        Type::Optional(inner) => {
            if next() % 2 == 1 {
                build(inner, random, arena)
            } else {
                Value::Null
            }
        }
        Type::List(item) => {
            let count = next() % 4;
            let items: Vec<_> = (0..count).map(|_| build(item, random, arena)).collect();
            Value::List(arena.alloc_slice_copy(&items))
        }
        Type::Map(item) => {
            let count = next() % 4;
            let entry = |at| {
                (
                    Value::String(arena.alloc_str(&format!("k{at}"))),
                    build(item, random, arena),
                )
            };
            let entries: Vec<_> = (0..count).map(entry).collect();
            Value::Map(arena.alloc_slice_copy(&entries))
        }
        Type::Struct(record) => {
            let slots: Vec<_> = record
                .fields
                .iter()
                .map(|field| build(&field.ty, random, arena))
                .collect();
            Value::Struct(arena.alloc_slice_copy(&slots))
        }
    }
}

proptest! {
    /// Compared as text, where a NaN equals itself.
    #[test]
    fn every_value_comes_back(ty in any_type(), random in any::<[u64; 24]>(), ts in any::<i64>()) {
        let arena = Bump::new();
        let value = build(&ty, &mut random.into_iter().cycle().take(200), &arena);
        let mut row = Vec::new();
        encode(&ty, value, &mut row).unwrap();
        prop_assert_eq!(format!("{:?}", decode(&ty, &row, &arena).unwrap()), format!("{value:?}"));
        row.clear();
        encode_timestamped(&ty, ts, value, &mut row).unwrap();
        let (stamp, found) = decode_timestamped(&ty, &row, &arena).unwrap();
        prop_assert_eq!((stamp, format!("{found:?}")), (ts, format!("{value:?}")));
        // Every prefix is refused.
        for end in 0..row.len() {
            prop_assert!(decode_timestamped(&ty, &row[..end], &arena).is_err());
        }
    }

    /// What can be read is written again byte by byte: there is one encoding of a value.
    #[test]
    fn any_bytes_are_refused_or_are_the_encoding_of_what_they_mean(
        ty in any_type(),
        tail in any::<Vec<u8>>(),
    ) {
        let arena = Bump::new();
        let bytes = [&[VERSION], &tail[..]].concat();
        if let Ok(value) = decode(&ty, &bytes, &arena) {
            let mut again = Vec::new();
            encode(&ty, value, &mut again).unwrap();
            prop_assert_eq!(again, bytes);
        }
    }
}

#[test]
fn the_end_of_a_prefix_is_behind_all_that_begin_with_it() {
    for (prefix, wanted) in [(vec![1, 7], vec![1, 8]), (vec![1, 7, 0xff, 0xff], vec![1, 8])] {
        let mut end = prefix.clone();
        end_of_prefix(&mut end);
        assert_eq!(end, wanted);
        let last = [prefix.as_slice(), &[0xff; 9]].concat();
        assert!(prefix < last && last < end);
    }
}
