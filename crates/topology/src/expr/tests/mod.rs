//! What the tests of expressions share: the types of an order, and one order.

mod generated;
mod messages;
mod values;

use std::sync::Arc;

use bumpalo::Bump;

use super::*;
use crate::{Field, Header};

fn optional(ty: Type) -> Type {
    Type::Optional(Box::new(ty))
}

fn struct_type(name: &str, fields: Vec<(&str, Type)>) -> Arc<StructType> {
    let fields = fields
        .into_iter()
        .map(|(name, ty)| Field {
            name: name.to_owned(),
            ty,
        })
        .collect();
    Arc::new(StructType {
        name: name.to_owned(),
        fields,
    })
}

fn order_type() -> Type {
    let address = struct_type("Address", vec![("city", Type::String)]);
    let line = struct_type(
        "Line",
        vec![("note", optional(Type::String)), ("quantity", Type::Int)],
    );
    Type::Struct(struct_type(
        "Order",
        vec![
            ("address", optional(Type::Struct(address))),
            ("amount", Type::Int),
            ("at", Type::Timestamp),
            ("customer", Type::String),
            ("labels", Type::Map(Box::new(Type::String))),
            ("lines", Type::List(Box::new(Type::Struct(line)))),
            ("note", optional(Type::String)),
            ("paid", Type::Bool),
            ("raw", Type::Bytes),
            ("weight", Type::Double),
        ],
    ))
}

fn env() -> Env {
    Env {
        aggregate: Some(Type::Int),
        ..Env::of_record(Type::String, order_type())
    }
}

/// One name twice, one without a value.
const HEADERS: [Header<'static>; 4] = [
    ("trace", Some(b"old")),
    ("origin", Some(b"web")),
    ("trace", Some(b"new")),
    ("gone", None),
];

/// A record without a value.
pub(super) fn nothing(arena: &Bump) -> Scope<'_> {
    Scope {
        key: Value::Null,
        value: Value::Null,
        aggregate: Value::Null,
        ts: 0,
        topic: "",
        partition: 0,
        offset: 0,
        headers: &[],
        arena,
    }
}

/// On errors, the first.
fn compile(source: &str) -> Result<Expr, ExprError> {
    Expr::compile(source, &env()).map_err(|errors| errors[0].clone())
}

/// Evaluates against one record and shows the result.
fn run(source: &str) -> String {
    let expr = compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
    let arena = Bump::new();
    let city = [Value::String("Oslo")];
    let labels = [
        (Value::String("a"), Value::String("x")),
        (Value::String("b"), Value::String("y")),
    ];
    let (first, second) = (
        [Value::Null, Value::Int(2)],
        [Value::String("gift"), Value::Int(5)],
    );
    let lines = [Value::Struct(&first), Value::Struct(&second)];
    let value = [
        Value::Struct(&city),
        Value::Int(7),
        Value::Timestamp(1_700_000_000_120),
        Value::String("çelik"),
        Value::Map(&labels),
        Value::List(&lines),
        Value::Null,
        Value::Bool(true),
        Value::Bytes(b"abc"),
        Value::Double(2.5),
    ];
    let scope = Scope {
        key: Value::String("k1"),
        value: Value::Struct(&value),
        aggregate: Value::Int(100),
        ts: 5,
        topic: "orders",
        partition: 3,
        offset: 42,
        headers: &HEADERS,
        arena: &arena,
    };
    match expr.eval(&scope) {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn reads_are_the_fields_that_an_expression_names() {
    let reads = |source: &str| compile(source).unwrap().reads().clone();
    let fields = |names: &[&str]| ValueReads::Fields(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(reads("value.amount + value.amount").value, fields(&["amount"]));
    assert_eq!(
        reads("has(value.note) && value.paid").value,
        fields(&["note", "paid"])
    );
    assert_eq!(
        reads("has(value.address) ? value.address.city : ''").value,
        fields(&["address"])
    );
    assert_eq!(reads("value").value, ValueReads::Whole);
    assert_eq!(
        reads("value.lines.map(key, key.quantity + value.amount).size()").value,
        fields(&["amount", "lines"])
    );
    assert!(reads("1 + 2").is_nothing());
    let all = reads("key == topic && aggregate > 0");
    assert_eq!(
        all,
        Reads {
            key: true,
            aggregate: true,
            coordinates: true,
            headers: false,
            value: ValueReads::Nothing
        }
    );
}

#[test]
fn a_built_struct_has_one_slot_per_expression() {
    let fields = vec![
        ("a".to_owned(), compile("value.amount").unwrap()),
        ("b".to_owned(), compile("'x' + key").unwrap()),
        ("c".to_owned(), compile("value.note").unwrap()),
    ];
    let expr = Expr::build_struct("Out", fields);
    let expected = vec![
        ("a", Type::Int),
        ("b", Type::String),
        ("c", optional(Type::String)),
    ];
    assert_eq!(*expr.ty(), Type::Struct(struct_type("Out", expected)));
}
