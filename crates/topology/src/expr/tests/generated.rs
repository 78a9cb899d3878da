//! Properties of generated expressions, and another engine beside ours.

use proptest::prelude::*;

use super::*;

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
        let scope = nothing(&arena);
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
            let scope = nothing(&arena);
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
