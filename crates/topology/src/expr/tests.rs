use std::sync::Arc;

use bumpalo::Bump;
use proptest::prelude::*;

use super::*;
use crate::Field;

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
        key: Type::String,
        value: order_type(),
        aggregate: Some(Type::Int),
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
        arena: &arena,
    };
    match expr.eval(&scope) {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn expressions_have_the_values_that_cel_gives_them() {
    let cases = [
        ("1 + 2 * 3", "Int(7)"),
        ("(1 + 2) * 3", "Int(9)"),
        ("-7 / 2", "Int(-3)"),
        ("-7 % 2", "Int(-1)"),
        ("aggregate + value.amount", "Int(107)"),
        ("-value.amount", "Int(-7)"),
        ("2.0 * value.weight / 4.0 - 1.0 + 0.5", "Double(0.75)"),
        ("-value.weight", "Double(-2.5)"),
        ("1.0 / 0.0 > 5.0", "Bool(true)"),
        ("key", r#"String("k1")"#),
        ("'a' + key + ':' + string(value.amount)", r#"String("ak1:7")"#),
        (
            "string(1.5) + string(true) + string(3.0)",
            r#"String("1.5true3")"#,
        ),
        ("string(1.0 / 0.0)", r#"String("+Inf")"#),
        ("string(value.at)", r#"String("2023-11-14T22:13:20.12Z")"#),
        ("string(key)", r#"String("k1")"#),
        ("int(value.at) + 1", "Int(1700000000121)"),
        ("int('-12') + int(3.99) + int(-3.99)", "Int(-12)"),
        ("double(value.amount) + double('0.5')", "Double(7.5)"),
        ("value.at", "Timestamp(1700000000120)"),
        ("ts", "Timestamp(5)"),
        ("ts < value.at", "Bool(true)"),
        (
            "topic + string(partition) + '/' + string(offset)",
            r#"String("orders3/42")"#,
        ),
        ("value.amount == 7 && value.weight != 2.0", "Bool(true)"),
        ("'a' < 'b' && b'a' <= b'b' && !(true < false)", "Bool(true)"),
        ("value.raw", "Bytes([97, 98, 99])"),
        ("value.customer.size()", "Int(5)"),
        ("size(value.raw)", "Int(3)"),
        (
            "key.startsWith('k') && key.endsWith('1') && !key.contains('x')",
            "Bool(true)",
        ),
        ("value.amount in [1, 7] && key in ['k1']", "Bool(true)"),
        ("value.amount in [1, -7] || key in []", "Bool(false)"),
        ("value.paid ? 'yes' : 'no'", r#"String("yes")"#),
        ("has(value.note) ? value.note : 'none'", r#"String("none")"#),
        ("value.note == null ? 'none' : value.note", r#"String("none")"#),
        ("!has(value.note) || value.note == 'x'", "Bool(true)"),
        (
            "has(value.note) && value.note == 'x' && value.note != 'y'",
            "Bool(false)",
        ),
        ("has(value.address) && value.address.city == 'Oslo'", "Bool(true)"),
        (
            "has(value.address) ? value.address.city : key",
            r#"String("Oslo")"#,
        ),
        ("has(value.customer)", "Bool(true)"),
        ("value.note", "Null"),
        ("value.paid ? value.note : 'x'", "Null"),
        ("value.paid ? null : 3", "Null"),
        ("null == null", "Bool(true)"),
        ("value.lines.map(line, line.quantity)", "List([Int(2), Int(5)])"),
        (
            "value.lines.filter(line, has(line.note) && line.note == 'gift').size()",
            "Int(1)",
        ),
        ("value.lines[1].quantity * 2", "Int(10)"),
        ("value.lines.map(line, line.quantity * 3).sum()", "Int(21)"),
        ("[1.5].filter(x, false).sum()", "Double(0.0)"),
        ("[2.5, 0.5].sum() + value.weight", "Double(5.5)"),
        ("double(dyn([2.5, 0.5]).sum())", "Double(3.0)"),
        (
            "value.lines.map(l, l.?note.orValue('-')).join('+')",
            r#"String("-+gift")"#,
        ),
        (
            "value.lines.exists(line, line.quantity > value.amount - 3)",
            "Bool(true)",
        ),
        ("value.labels.b + value.labels['a']", r#"String("yx")"#),
        ("has(value.labels.c) || 'b' in value.labels", "Bool(true)"),
        ("value.labels.?c.orValue('none')", r#"String("none")"#),
        (
            "value.labels.transformMap(k, v, k != 'a', v + k)",
            r#"Map([(String("b"), String("yb"))])"#,
        ),
        ("value.?note.orValue('none')", r#"String("none")"#),
        ("value.?address.city.orValue('?')", r#"String("Oslo")"#),
        ("value.?note.optMap(n, n.size()).orValue(-1)", "Int(-1)"),
        ("value.?note.hasValue() || has(value.?address.city)", "Bool(true)"),
        ("int(ts - value.at) / 1000", "Int(-1700000000)"),
        ("value.at + duration('1h30m')", "Timestamp(1700005400120)"),
        ("value.at.getDayOfWeek('Europe/Oslo')", "Int(2)"),
        ("string(duration('90s'))", r#"String("90s")"#),
        (
            "[1, 2, 3].map(x, x * value.amount).exists(x, x == 21)",
            "Bool(true)",
        ),
        (
            "[3, 1, 2].sort().map(x, string(x)).join(',')",
            r#"String("1,2,3")"#,
        ),
        ("['b', 'a'].sortBy(x, x).first().orValue('')", r#"String("a")"#),
        ("{'b': 2, 'a': 1}.map(k, k).join()", r#"String("ab")"#),
        (
            "{'a': 1}.transformList(k, v, k + string(v)).join()",
            r#"String("a1")"#,
        ),
        (
            "[1, 2].exists(i, v, i == 1 && v == value.amount - 5)",
            "Bool(true)",
        ),
        ("[1, 2, 3].exists(key, key > 2) ? key : ''", r#"String("k1")"#),
        ("cel.bind(x, value.amount * 2, x + x)", "Int(28)"),
        ("key.matches('^k[0-9]+$')", "Bool(true)"),
        ("value.customer.upperAscii()", r#"String("çELIK")"#),
        ("value.customer.substring(1, 3)", r#"String("el")"#),
        ("math.greatest(value.amount, 9)", "Int(9)"),
        ("base64.encode(value.raw)", r#"String("YWJj")"#),
        ("id('a', 1)", r#"String("5031f24ab00526799accceeceb14b052")"#),
        ("id('a', 1) != id('a1')", "Bool(true)"),
        ("int(9u) + int(type(1) == int ? 1 : 2)", "Int(10)"),
    ];
    for (source, expected) in cases {
        assert_eq!(run(source), expected, "{source}");
    }
}

#[test]
fn what_has_no_value_is_an_error_and_never_wraps() {
    let cases = [
        (
            "9223372036854775807 + value.amount",
            "error: integer overflow in `+`",
        ),
        (
            "-9223372036854775808 - value.amount",
            "error: integer overflow in `-`",
        ),
        (
            "9223372036854775807 * value.amount",
            "error: integer overflow in `*`",
        ),
        (
            "-(-9223372036854775808 + value.amount - 7)",
            "error: integer overflow in `-`",
        ),
        (
            "(-9223372036854775808 + value.amount - 7) / -1",
            "error: integer overflow in `/`",
        ),
        (
            "(-9223372036854775808 + value.amount - 7) % -1",
            "error: integer overflow in `%`",
        ),
        ("1 / (value.amount - 7)", "error: division by zero in `/`"),
        ("1 % (value.amount - 7)", "error: division by zero in `%`"),
        (
            "int(9223372036854775808.0)",
            "error: `int(double)` cannot convert this value",
        ),
        ("int(0.0 / 0.0)", "error: `int(double)` cannot convert this value"),
        ("int('1.5')", "error: `int(string)` cannot convert this value"),
        ("double('x')", "error: `double(string)` cannot convert this value"),
        (
            "[9223372036854775807, value.amount].sum()",
            "error: integer overflow in `+`",
        ),
        ("[1, 2][value.amount]", "error: there is nothing at index 7"),
        ("{'a': 1}[key]", "error: no such key: 'k1'"),
        ("size({key: 1, 'k1': 2})", "error: the key 'k1' is there twice"),
        (
            "value.at.getHours('Mars/Base')",
            "error: unknown time zone 'Mars/Base'",
        ),
        ("value.?note.value()", "error: `value()` is null"),
        (
            "dyn(key) + 1 > 2",
            "error: `+` does not work on a value of this type",
        ),
        (
            "lists.range(2000000).size()",
            "error: the expression takes more than 1000000 steps for this record",
        ),
        (
            "lists.range(2000).all(x, lists.range(2000).all(y, true))",
            "error: the expression takes more than 1000000 steps for this record",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(run(source), expected, "{source}");
    }
}

#[test]
fn a_deciding_side_absorbs_the_error_of_the_other() {
    let error = "error: division by zero in `/`";
    let cases = [
        ("false && 1 / 0 > 0", "Bool(false)"),
        ("1 / 0 > 0 && false", "Bool(false)"),
        ("true || 1 / 0 > 0", "Bool(true)"),
        ("1 / 0 > 0 || true", "Bool(true)"),
        ("1 / 0 > 0 && true", error),
        ("true && 1 / 0 > 0", error),
        ("1 / 0 > 0 || false", error),
        ("1 / 0 > 0 && 1 % 0 > 0", error),
        ("1 / 0 > 0 ? true : true", error),
        ("true ? 1 : 1 / 0", "Int(1)"),
    ];
    for (source, expected) in cases {
        assert_eq!(run(source), expected, "{source}");
    }
}

#[test]
fn a_null_key_or_value_is_an_error_where_it_is_needed() {
    let arena = Bump::new();
    let null = Value::Null;
    let scope = Scope {
        key: null,
        value: null,
        aggregate: null,
        ts: 0,
        topic: "t",
        partition: 0,
        offset: 0,
        arena: &arena,
    };
    let error = |source: &str| compile(source).unwrap().eval(&scope).unwrap_err();
    assert_eq!(error("key"), EvalError::Null("key"));
    assert_eq!(error("value.amount + 1"), EvalError::Null("value"));
    assert_eq!(error("value"), EvalError::Null("value"));
    let wrong = Scope {
        value: Value::Int(1),
        ..scope
    };
    assert_eq!(
        compile("value.amount").unwrap().eval(&wrong),
        Err(EvalError::Layout("value"))
    );
    assert_eq!(
        compile("1").unwrap().eval_bool(&scope),
        Err(EvalError::NoOverload("bool"))
    );
}

/// Message, the part of the source that is marked, suggestion.
fn error_of(source: &str) -> (String, String, String) {
    let error = compile(source)
        .map(|expr| expr.ty().to_string())
        .expect_err(source);
    let marked = source
        .get(error.span.clone())
        .unwrap_or_else(|| panic!("{source}: {:?}", error.span))
        .to_owned();
    (error.message, marked, error.suggestion.unwrap_or_default())
}

#[test]
fn type_errors_mark_the_part_that_is_wrong_and_say_what_to_write() {
    let cases = [
        (
            "1 + value.weight",
            "`+` does not work on int and double",
            "1 + value.weight",
            "write `double(1) + value.weight`",
        ),
        (
            "true && 1.5 >= value.amount",
            "`>=` does not work on double and int",
            "1.5 >= value.amount",
            "write `1.5 >= double(value.amount)`",
        ),
        (
            "'a' + value.amount",
            "`+` does not work on string and int",
            "'a' + value.amount",
            "write `'a' + string(value.amount)`",
        ),
        (
            "(key + 'a') - 'b'",
            "`-` does not work on string and string",
            "(key + 'a') - 'b'",
            "",
        ),
        (
            "ts - value.at",
            "no record can hold the result, of type duration",
            "ts - value.at",
            "convert it with `int(…)`, to milliseconds, or with `string(…)`",
        ),
        (
            "value.weight % 2.0",
            "`%` does not work on double and double",
            "value.weight % 2.0",
            "",
        ),
        (
            "1 + value.amont * 2",
            "Order has no field `amont`",
            "amont",
            "did you mean `amount`?",
        ),
        (
            "amount > 1",
            "unknown name `amount`",
            "amount",
            "did you mean `value.amount`?",
        ),
        (
            "valeu.amount > 1",
            "unknown name `valeu`",
            "valeu",
            "did you mean `value`?",
        ),
        (
            "headers",
            "unknown name `headers`",
            "headers",
            "names: `key`, `value`, `ts`, `topic`, `partition`, `offset`, `aggregate`",
        ),
        (
            "key.x == 1",
            "`key` has type string, which has no fields",
            "x",
            "",
        ),
        (
            "ts.x == 1",
            "`ts` has type timestampMillis, which has no fields",
            "x",
            "",
        ),
        (
            "1 > 0 && value.note == 'x'",
            "`value.note` may be absent: it has type string?",
            "value.note",
            "write `(has(value.note) ? value.note : '')`",
        ),
        (
            "has(value.note) || value.note == 'x'",
            "`value.note` may be absent: it has type string?",
            "value.note",
            "write `(has(value.note) ? value.note : '')`",
        ),
        (
            "value.address.city",
            "`value.address` may be absent: it has type Address?",
            "value.address",
            "test `has(value.address)` first, or write `value.address.?city`",
        ),
        (
            "value.amount == null",
            "`value.amount` is never null: it has type int",
            "value.amount == null",
            "",
        ),
        (
            "value.note < null",
            "`null` has no order; only `==` and `!=` compare with it",
            "value.note < null",
            "",
        ),
        (
            "value.paid ? 1 : 'a'",
            "both branches of `? :` need one type, these have int and string",
            "value.paid ? 1 : 'a'",
            "",
        ),
        (
            "1 ? 2 : 3",
            "the condition before `?` needs bool, this has type int",
            "1",
            "",
        ),
        ("!key", "`!` needs bool, this has type string", "key", ""),
        ("key && true", "`&&` needs bool, this has type string", "key", ""),
        (
            "-key",
            "`-` needs int or double, this has type string",
            "-key",
            "",
        ),
        (
            "key.startWith('a')",
            "unknown method `startWith`",
            "key.startWith('a')",
            "did you mean `startsWith`?",
        ),
        (
            "strin(1) == key",
            "unknown function `strin`",
            "strin(1)",
            "did you mean `string`?",
        ),
        (
            "string() == key",
            "`string` does not take these arguments",
            "string()",
            "write `string(x)`",
        ),
        (
            "math.greatest() > 1",
            "`math.greatest` does not take these arguments",
            "math.greatest()",
            "write `math.greatest(x, …)`",
        ),
        (
            "value.lines.al(x, true)",
            "unknown method `al`",
            "value.lines.al(x, true)",
            "did you mean `all`?",
        ),
        (
            "value.lines.all(x)",
            "`all` does not take these arguments",
            "value.lines.all(x)",
            "write `items.all(x, condition)`",
        ),
        (
            "key.string() == key",
            "`string` is no method",
            "key.string()",
            "write `string(…)`",
        ),
        (
            "key.startsWith(1)",
            "`startsWith` does not take string, int",
            "key.startsWith(1)",
            "there is `string.startsWith(string) -> bool`",
        ),
        (
            "key.startsWith()",
            "`startsWith` takes 1 argument, not 0",
            "key.startsWith()",
            "",
        ),
        (
            "now() > ts",
            "`now` is not part of the language: there is no clock",
            "now()",
            "record time is `ts`",
        ),
        (
            "uint(1)",
            "no record can hold the result, of type uint",
            "uint(1)",
            "convert it with `int(…)`",
        ),
        (
            "string(value)",
            "`string(…)` cannot convert Order",
            "string(value)",
            "",
        ),
        (
            "has(key)",
            "`has` needs a field, e.g. `has(value.note)`",
            "key",
            "",
        ),
        (
            "value.amount in 5",
            "`in` does not work on int and int",
            "value.amount in 5",
            "",
        ),
        (
            "[1u, 2u]",
            "no record can hold the result, of type list(uint)",
            "[1u, 2u]",
            "convert it with `int(…)`",
        ),
        (
            "{1: 'a'}",
            "no record can hold the result, of type map(int, string)",
            "{1: 'a'}",
            "the keys of a record's map are strings",
        ),
        (
            "[1, value]",
            "Order is a record and cannot stand beside values of other types",
            "value",
            "",
        ),
        (
            "{'a': 1}.b.c",
            "`{'a': 1}.b` has type int, which has no fields",
            "c",
            "",
        ),
        (
            "{1.5: 1}.size()",
            "a map's key needs bool, int, uint or string, this has type double",
            "1.5",
            "",
        ),
        (
            "value['amount']",
            "Order is a record, its fields have names",
            "value['amount']",
            "write `value.field`",
        ),
        ("[1].all(x, x)", "`all` needs bool, this has type int", "x", ""),
        (
            "[1].exists(1, true)",
            "a variable needs to be a plain name",
            "1",
            "",
        ),
        (
            "[1].exists(x, x > 0) && x > 0",
            "unknown name `x`",
            "x",
            "names: `key`, `value`, `ts`, `topic`, `partition`, `offset`, `aggregate`",
        ),
        (
            "key.map(x, x)",
            "`map` needs a list or a map, this has type string",
            "key",
            "",
        ),
        (
            "key.matches('a(')",
            "this is no regular expression: unclosed group",
            "'a('",
            "",
        ),
        (
            "key.matches(value.customer)",
            "a pattern needs to be a constant string: it is compiled once",
            "value.customer",
            "",
        ),
        (
            "value.?note.size() > 1",
            "`value.?note` may be absent: it has type string?",
            "value.?note",
            "write `value.?note.orValue('')`",
        ),
        (
            "value.amount.orValue(1)",
            "`value.amount` is always there: it has type int",
            "value.amount",
            "",
        ),
        (
            "id(value.weight)",
            "`id` needs string, int, bool, bytes or timestampMillis, this has type double",
            "value.weight",
            "",
        ),
        (
            "size(1) > 1",
            "`size` does not take int",
            "size(1)",
            "there is `size(string) -> int`, `size(bytes) -> int`, `size(list(A)) -> int`, `size(map(A, B)) -> int`",
        ),
        (
            "1u + 1u",
            "no record can hold the result, of type uint",
            "1u + 1u",
            "convert it with `int(…)`",
        ),
        (
            "dyn(key)",
            "no record can hold the result, of type dyn",
            "dyn(key)",
            "its type is known only per record: convert it, e.g. with `string(…)`",
        ),
        ("null", "`null` alone has no type", "null", ""),
        ("   ", "the expression is empty", "   ", ""),
        ("1 +", "syntax error: mismatched input the end", "", ""),
        ("key == 'é' é", "syntax error: unexpected `é`", "é", ""),
    ];
    for (source, message, marked, suggestion) in cases {
        let expected = (message.to_owned(), marked.to_owned(), suggestion.to_owned());
        assert_eq!(error_of(source), expected, "{source}");
    }
}

#[test]
fn all_errors_of_an_expression_are_told_in_the_order_of_the_text() {
    let errors = Expr::compile("value.amont > 1 && (key + 1 == '' || !value.customer)", &env()).unwrap_err();
    let messages: Vec<_> = errors.iter().map(|error| error.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "Order has no field `amont`",
            "`+` does not work on string and int",
            "`!` needs bool, this has type string"
        ]
    );
}

/// Bindings that double a text each: 2 to the power of 40 bytes, if nothing stopped it.
#[test]
fn text_cannot_grow_without_bounds() {
    let mut source = "key + key".to_owned();
    for _ in 0..40 {
        source = format!("cel.bind(x, {source}, x + x)");
    }
    assert!(run(&format!("{source}.size()")).contains("more than 1000000 steps"));
    assert!(
        run("lists.range(1000).map(x, string(x)).join(lists.range(9000).map(x, 'xxxxxxxx').join()).size()")
            .contains("steps")
    );
}

#[test]
fn aggregate_exists_only_where_the_environment_has_it() {
    let env = Env {
        aggregate: None,
        ..env()
    };
    let errors = Expr::compile("aggregate + 1", &env).unwrap_err();
    assert_eq!(errors[0].message, "`aggregate` exists only in `aggregate.add`");
}

#[test]
fn sizes_and_depths_are_bounded() {
    let long = format!("'{}'", "x".repeat(5000));
    assert!(
        compile(&long)
            .unwrap_err()
            .message
            .starts_with("the expression has 5002 bytes")
    );
    let sum = vec!["1"; 500].join("+");
    assert!(compile(&sum).unwrap_err().message.contains("nested more than"));
    let reference = include_str!("../../../../docs/reference/expressions.md");
    assert!(reference.contains(&format!("nested at most {} deep", parse::MAX_DEPTH)));
    let ternaries = "true?1:".repeat(65) + "1";
    assert!(compile(&ternaries).unwrap_err().message.contains("conditionals"));
    let parentheses = format!("{}1+(1{}", "(1+".repeat(150), ")".repeat(151));
    assert!(compile(&parentheses).is_err());
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

#[test]
fn timestamps_print_as_rfc_3339() {
    let arena = Bump::new();
    let text = |millis: i64| {
        let mut out = bumpalo::collections::String::new_in(&arena);
        time::write_timestamp(millis, &mut out).map(|()| out.to_string())
    };
    assert_eq!(text(0).unwrap(), "1970-01-01T00:00:00Z");
    assert_eq!(text(-1).unwrap(), "1969-12-31T23:59:59.999Z");
    assert_eq!(text(951_782_400_500).unwrap(), "2000-02-29T00:00:00.5Z");
    assert_eq!(text(-62_135_596_800_000).unwrap(), "0001-01-01T00:00:00Z");
    assert_eq!(text(253_402_300_799_999).unwrap(), "9999-12-31T23:59:59.999Z");
    assert!(text(i64::MAX).is_err() && text(i64::MIN).is_err());
}

/// A naive reading of arithmetic: text and value, `None` for an error.
#[derive(Clone, Debug)]
struct Sample {
    text: String,
    value: Option<i64>,
}

fn sample() -> impl Strategy<Value = Sample> {
    let edges = prop_oneof![Just(i64::MAX), Just(i64::MIN), Just(0), Just(-1), -20_i64..20];
    let leaf = edges.prop_map(|value| Sample {
        text: format!("({value})"),
        value: Some(value),
    });
    leaf.prop_recursive(5, 40, 2, |inner| {
        (inner.clone(), inner, 0..5_usize).prop_map(|(a, b, how)| {
            let symbol = ["+", "-", "*", "/", "%"][how];
            let wide = a.value.zip(b.value).and_then(|(x, y)| {
                let (x, y) = (i128::from(x), i128::from(y));
                match how {
                    0 => Some(x + y),
                    1 => Some(x - y),
                    2 => Some(x * y),
                    _ if y == 0 => None,
                    3 => Some(x / y),
                    // CEL: the remainder overflows where the quotient does.
                    _ if i64::try_from(x / y).is_err() => None,
                    _ => Some(x % y),
                }
            });
            let value = wide.and_then(|value| i64::try_from(value).ok());
            Sample {
                text: format!("({} {symbol} {})", a.text, b.text),
                value,
            }
        })
    })
}

proptest! {
    #[test]
    fn arithmetic_agrees_with_wide_integers(sample in sample()) {
        let expr = Expr::compile(&sample.text, &env()).unwrap();
        let arena = Bump::new();
        let scope = Scope {
            key: Value::Null, value: Value::Null, aggregate: Value::Null,
            ts: 0, topic: "", partition: 0, offset: 0, arena: &arena,
        };
        prop_assert_eq!(expr.eval_int(&scope).ok(), sample.value, "{}", sample.text);
    }

    #[test]
    fn no_text_makes_the_compiler_panic(text in "\\PC{0,60}") {
        check_span(&text);
    }

    #[test]
    fn no_sequence_of_tokens_makes_the_compiler_panic(tokens in prop::collection::vec(token(), 0..40)) {
        check_span(&tokens.concat());
    }
}

fn check_span(text: &str) {
    for error in Expr::compile(text, &env()).err().into_iter().flatten() {
        assert!(text.get(error.span.clone()).is_some(), "{text:?}: {error:?}");
    }
}

fn token() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "value",
        "key",
        ".",
        "amount",
        "note",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "?",
        ":",
        " ",
        "+",
        "-",
        "*",
        "/",
        "%",
        "!",
        "&&",
        "||",
        "==",
        "<",
        "in",
        "1",
        "0x",
        "2.5",
        "1e9",
        "'a'",
        "b'\\xff'",
        "\"",
        "'",
        "has(",
        "size(",
        ",",
        "null",
        "true",
        "é",
        "\n",
        "//",
        "`",
        "ts",
        "r'",
        "'''",
        "9223372036854775808",
        "u",
        ".?",
        "all(x,",
        "@",
    ])
}

/// Expressions of a type, which both engines know, over constants.
fn generated(depth: u32) -> BoxedStrategy<[String; 4]> {
    let leaf = (
        prop_oneof!["-?[0-9]{1,2}", Just("9223372036854775807".to_owned())],
        "true|false",
        "'[a-cé]{0,3}'",
        prop_oneof![Just("[1, 2, 3]"), Just("[0]"), Just("[7, 7, -1]")],
    )
        .prop_map(|(int, bool, string, list)| [format!("({int})"), bool, string, list.to_owned()]);
    if depth == 0 {
        return leaf.boxed();
    }
    let inner = generated(depth - 1);
    let operands = (inner.clone(), inner.clone(), inner);
    let made = (operands, 0..12_usize).prop_map(|((a, b, c), how)| {
        let ([ai, ab, at, al], [bi, bb, bt, bl], [ci, cb, ct, cl]) = (a, b, c);
        let int = match how {
            0..5 => format!("({ai} {} {bi})", ["+", "-", "*", "/", "%"][how]),
            5 => format!("({ab} ? {bi} : {ci})"),
            6 => format!("size({at})"),
            7 => format!("{al}.size()"),
            8 => format!("{al}[{bi}]"),
            9 => format!("int(string({ai}))"),
            10 => format!("{{{at}: {ai}, 'z': {bi}}}[{ct}]"),
            _ => format!("{al}.map(x, x + {bi})[0]"),
        };
        let bool = match how {
            0..6 => format!("({ai} {} {bi})", ["==", "!=", "<", "<=", ">", ">="][how]),
            6 => format!("({ab} && {bb})"),
            7 => format!("({ab} || !{bb})"),
            8 => format!("{al}.exists(x, x > {bi})"),
            9 => format!("{al}.all(x, {ai} / x < {bi} || {cb})"),
            10 => format!("({ai} in {bl})"),
            _ => format!("{at}.startsWith({bt}) == {ct}.contains({bt})"),
        };
        let string = match how {
            0..4 => format!("({at} + {bt})"),
            4..6 => format!("string({ai})"),
            _ => format!("({ab} ? {bt} : {ct})"),
        };
        let list = match how {
            0..3 => format!("({al} + {bl})"),
            3..6 => format!("{al}.filter(x, x % 2 == {bi})"),
            6..9 => format!("[{ai}, {bi}]"),
            9 => format!("{cl}.filter(x, {ab})"),
            _ => format!("{al}.map(y, y * {bi})"),
        };
        [int, bool, string, list]
    });
    made.boxed()
}

/// What the `cel` crate's own evaluator says; `None` for an error.
fn reference(source: &str) -> Option<cel::Value> {
    let program = cel::Program::compile(source).ok()?;
    program.execute(&cel::Context::default()).ok()
}

fn agrees(ours: Value<'_>, theirs: &cel::Value) -> bool {
    match (ours, theirs) {
        (Value::Int(a), cel::Value::Int(b)) => a == *b,
        (Value::Bool(a), cel::Value::Bool(b)) => a == *b,
        (Value::String(a), cel::Value::String(b)) => a == b.as_str(),
        (Value::List(a), cel::Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| agrees(*a, b))
        }
        _ => false,
    }
}

proptest! {
    /// The standard library's sort panics when an order is none.
    #[test]
    fn lists_of_any_numbers_can_be_sorted(which in prop::collection::vec(0..12_usize, 0..60)) {
        const NUMBERS: [&str; 12] = [
            "0.0 / 0.0", "-0.0", "0", "0u", "1.0 / 0.0", "-1.0 / 0.0", "9007199254740993", "9007199254740992.0",
            "9007199254740992u", "-9223372036854775808", "18446744073709551615u", "1.5",
        ];
        let items: Vec<_> = which.into_iter().map(|at| NUMBERS[at]).collect();
        let items = items.join(", ");
        for sorted in [format!("[{items}].sort()"), format!("[{items}].sortBy(x, x)")] {
            let source = format!("{sorted}.size() == [{items}].size()");
            if source.len() < 4_096 {
                prop_assert_eq!(run(&source), "Bool(true)", "{}", source);
            }
        }
    }

    /// Two engines, one language.
    #[test]
    fn generated_expressions_have_the_value_that_another_engine_gives_them(sources in generated(3)) {
        for source in sources {
            let ast = parse::parse(&source).unwrap();
            let (typed, errors) = check::check(&source, &ast, &env(), Vec::new());
            prop_assert!(errors.is_empty(), "{source}: {errors:?}");
            let arena = Bump::new();
            let scope = Scope {
                key: Value::Null, value: Value::Null, aggregate: Value::Null,
                ts: 0, topic: "", partition: 0, offset: 0, arena: &arena,
            };
            let (ours, theirs) = (eval::evaluate(&scope, None, |context| typed.node.eval(context)), reference(&source));
            let same = match (&ours, &theirs) {
                (Ok(ours), Some(theirs)) => agrees(*ours, theirs),
                (Err(_), None) => true,
                _ => false,
            };
            prop_assert!(same, "{source}: {ours:?}, but {theirs:?}");
        }
    }
}
