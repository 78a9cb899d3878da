//! What is wrong with an expression, where, and what to write instead.

use super::*;

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
            "header",
            "unknown name `header`",
            "header",
            "did you mean `headers`?",
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
            "write `has(value.note) && value.note == 'x'`",
        ),
        (
            "has(value.note) || value.note == 'x'",
            "`value.note` may be absent: it has type string?",
            "value.note",
            "write `has(value.note) && value.note == 'x'`",
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
            "names: `key`, `value`, `ts`, `topic`, `partition`, `offset`, `headers`, `aggregate`",
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
            "nothing says its type: convert it, e.g. with `string(…)`; an empty list has one as `[0].filter(x, false)`",
        ),
        (
            "[]",
            "no record can hold the result, of type list(dyn)",
            "[]",
            "nothing says its type: convert it, e.g. with `string(…)`; an empty list has one as `[0].filter(x, false)`",
        ),
        (
            "[value.address].sort().size() > 0",
            "`sort` needs items that have an order, this has type list(Address?)",
            "[value.address]",
            "",
        ),
        (
            "value.note == 'x'",
            "`value.note` may be absent: it has type string?",
            "value.note",
            "write `has(value.note) && value.note == 'x'`",
        ),
        (
            "value.note != 'x'",
            "`value.note` may be absent: it has type string?",
            "value.note",
            "write `!has(value.note) || value.note != 'x'`",
        ),
        (
            "lower(key) == 'a'",
            "unknown function `lower`",
            "lower(key)",
            "write `value.field.lowerAscii(…)`",
        ),
        (
            "key.max()",
            "unknown method `max`",
            "key.max()",
            "write `math.greatest(x, …)`",
        ),
        (
            "(key + 'a')[0]",
            "`[ ]` does not work on string and int",
            "(key + 'a')[0]",
            "",
        ),
        (
            "key[5]",
            "`[ ]` does not work on string and int",
            "key[5]",
            "write `key.charAt(5)`",
        ),
        (
            "value.lines[key]",
            "`[ ]` does not work on list(Line) and string",
            "value.lines[key]",
            "",
        ),
        (
            "max(1, 2)",
            "unknown function `max`",
            "max(1, 2)",
            "write `math.greatest(x, …)`",
        ),
        (
            "abs(1)",
            "unknown function `abs`",
            "abs(1)",
            "write `math.abs(…)`",
        ),
        (
            "key.length()",
            "unknown method `length`",
            "key.length()",
            "write `value.field.size(…)`",
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
    let reference = include_str!("../../../../../docs/reference/expressions.md");
    assert!(reference.contains(&format!("nested at most {} deep", parse::MAX_DEPTH)));
    let ternaries = "true?1:".repeat(65) + "1";
    assert!(compile(&ternaries).unwrap_err().message.contains("conditionals"));
    let parentheses = format!("{}1+(1{}", "(1+".repeat(150), ")".repeat(151));
    assert!(compile(&parentheses).is_err());
}
