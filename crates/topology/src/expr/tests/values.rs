//! What expressions give for one record.

use super::*;

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
        (
            "string(headers['trace']) + string(headers.origin)",
            r#"String("newweb")"#,
        ),
        ("headers.size() == 2 && !('gone' in headers)", "Bool(true)"),
        (
            "headers.?gone.optMap(value, string(value)).orValue('none')",
            r#"String("none")"#,
        ),
        ("headers['gone']", "error: no such key: 'gone'"),
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
    let scope = nothing(&arena);
    let error = |source: &str| compile(source).unwrap().eval(&scope).unwrap_err();
    assert_eq!(error("key"), EvalError::Null("key"));
    let found = |source: &str| compile(source).unwrap().eval_bool(&scope);
    assert_eq!(found("key == null"), Ok(true));
    assert_eq!(found("dyn(key) == null"), Ok(true));
    assert_eq!(found("key != null && key.startsWith('o-')"), Ok(false));
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
fn timestamps_are_read_as_rfc_3339_and_in_no_other_form() {
    let read = |text: &str| time::parse_timestamp(text).ok();
    for (text, millis) in [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.123456Z", 123),
        ("1969-12-31T23:59:59.9-00:00", -100),
        ("2018-05-11T21:58:33+02:30", 1_526_066_913_000),
    ] {
        assert_eq!(read(text), Some(millis), "{text}");
    }
    for text in [
        "",
        "1970-01-01",
        "1970-01-01T00:00Z",
        "1970-01-01T00:00:00",
        "1970-01-01t00:00:00z",
        "1970-01-01 00:00:00Z",
        "19700101T000000Z",
        "+001970-01-01T00:00:00Z",
        "1970-01-01T00:00:60Z",
        "1970-01-01T00:00:00.Z",
        "1970-01-01T00:00:00,5Z",
        "1970-01-01T00:00:00+02",
        "1970-01-01T00:00:00+0230",
        "1970-01-01T00:00:00+02:00:30",
        "1970-01-01T00:00:00+24:00",
        "1970-01-01T00:00:00-25:00",
        "1970-01-01T00:00:00Z[UTC]",
        "1970-02-30T00:00:00Z",
        "1970-01-01T00:00:0éZ",
    ] {
        assert_eq!(read(text), None, "{text}");
    }
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
