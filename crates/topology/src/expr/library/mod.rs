//! The functions of the language: what they take and give, and what they do.
//!
//! Names and meanings are those of CEL's standard library and of its `strings`, `math`, `lists` and `encoders`
//! extensions, `sum` is Kubernetes'; those that are ours say so.
//! <https://github.com/google/cel-spec/blob/master/doc/langdef.md#list-of-standard-definitions>,
//! <https://github.com/google/cel-go/blob/master/ext/README.md>

mod conversions;
mod lists;
mod numbers;
mod signature;
pub(crate) mod special;
mod strings;
mod times;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::EvalError;
use super::eval::Context;
use super::node::{Call, Function};
use super::ty::Ty;
use crate::Value;

type Evaluated<'a> = Result<Value<'a>, EvalError>;

/// One way to call a function.
#[derive(Debug)]
pub(crate) struct Overload {
    /// `name(T, …) -> T`, `T.name(T, …) -> T` on its first argument; `A` and `B` stand for any type.
    pub(crate) signature: &'static str,
    /// Whether it is called on its first argument.
    pub(crate) is_method: bool,
    /// Type parameters are numbered from 0.
    pub(crate) parameters: Vec<Ty>,
    pub(crate) result: Ty,
    pub(crate) function: Function,
}

/// Signatures of the operators; they have nodes of their own.
const OPERATORS: &[&str] = &[
    "+(int, int) -> int",
    "+(double, double) -> double",
    "+(string, string) -> string",
    "+(uint, uint) -> uint",
    "+(bytes, bytes) -> bytes",
    "+(list(A), list(A)) -> list(A)",
    "+(timestamp, duration) -> timestamp",
    "+(duration, timestamp) -> timestamp",
    "+(duration, duration) -> duration",
    "-(int, int) -> int",
    "-(double, double) -> double",
    "-(uint, uint) -> uint",
    "-(timestamp, timestamp) -> duration",
    "-(timestamp, duration) -> timestamp",
    "-(duration, duration) -> duration",
    "-(int) -> int",
    "-(double) -> double",
    "*(int, int) -> int",
    "*(double, double) -> double",
    "*(uint, uint) -> uint",
    "/(int, int) -> int",
    "/(double, double) -> double",
    "/(uint, uint) -> uint",
    "%(int, int) -> int",
    "%(uint, uint) -> uint",
    "==(A, A) -> bool",
    "!=(A, A) -> bool",
    "in(A, list(A)) -> bool",
    "in(A, map(A, B)) -> bool",
    "[](list(A), int) -> A",
    "[](map(A, B), A) -> B",
];

/// Types whose values have an order.
const ORDERED: [Ty; 8] = [
    Ty::Int,
    Ty::Double,
    Ty::String,
    Ty::Uint,
    Ty::Bytes,
    Ty::Bool,
    Ty::Timestamp,
    Ty::Duration,
];

/// The signatures of one name and its function, which decides by the values: their type may be known only per record.
type Entry = (&'static [&'static str], Call);

fn entries() -> impl Iterator<Item = Entry> {
    let tables = [
        conversions::FUNCTIONS,
        lists::FUNCTIONS,
        strings::FUNCTIONS,
        times::FUNCTIONS,
        numbers::FUNCTIONS,
    ];
    tables
        .into_iter()
        .flatten()
        .copied()
        .chain([(OPERATORS, no_call as Call)])
}

/// Overloads by name; of a namespace, with it.
static LIBRARY: LazyLock<BTreeMap<&'static str, Vec<Overload>>> = LazyLock::new(|| {
    let mut library = BTreeMap::<_, Vec<_>>::new();
    for (signatures, call) in entries() {
        for (name, overload) in signatures.iter().filter_map(|text| signature::read(text, call)) {
            library.entry(name).or_default().push(overload);
        }
    }
    for name in ["<", "<=", ">", ">="] {
        let overloads = ORDERED.iter().map(|ty| Overload {
            signature: name,
            is_method: false,
            parameters: vec![ty.clone(), ty.clone()],
            result: Ty::Bool,
            function: Function { name, call: no_call },
        });
        library.insert(name, overloads.collect());
    }
    library
});

/// Ways to call a function, or operator.
pub(crate) fn overloads(name: &str) -> &'static [Overload] {
    LIBRARY.get(name).map_or(&[], Vec::as_slice)
}

/// Names of functions, or of methods.
pub(crate) fn names(methods: bool) -> Vec<&'static str> {
    let is_name = |name: &str| name.starts_with(|c: char| c.is_alphabetic());
    let entries = LIBRARY.iter().filter(|(name, overloads)| {
        is_name(name) && overloads.iter().any(|overload| overload.is_method == methods)
    });
    entries.map(|(name, _)| *name).collect()
}

fn no_call<'a>(_: &Context<'_, 'a>, _: &[Value<'a>]) -> Evaluated<'a> {
    Err(EvalError::Layout("operator"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::expr::macros;

    #[test]
    fn every_signature_is_read() {
        for signature in entries().flat_map(|(signatures, _)| signatures) {
            assert!(signature::read(signature, no_call).is_some(), "{signature}");
        }
        let (name, overload) = signature::read("list(list(A)).flatten() -> list(A)", no_call).unwrap();
        assert_eq!((name, overload.is_method), ("flatten", true));
        assert_eq!(overload.parameters, [Ty::list(Ty::list(Ty::Parameter(0)))]);
    }

    /// Of several functions the first would be called with values of the others' types. Those of `sum` differ in what an
    /// empty list has.
    #[test]
    fn every_name_has_one_function() {
        let mut seen = BTreeSet::new();
        for (signatures, call) in entries() {
            let read = |signature: &&'static str| signature::read(signature, call).unwrap().0;
            let names: BTreeSet<_> = signatures.iter().map(read).collect();
            for name in names.into_iter().filter(|name| *name != "sum") {
                assert!(seen.insert(name), "{name}");
            }
        }
    }

    #[test]
    fn every_function_is_in_the_reference() {
        let reference = include_str!("../../../../../docs/reference/expressions.md");
        let is_told = |text: String| reference.contains(&text);
        for name in names(false).into_iter().chain(names(true)) {
            assert!(name == "in" || is_told(format!("`{name}`")), "{name} is not told");
        }
        for name in macros::names(false).into_iter().chain(macros::names(true)) {
            let told = is_told(format!("`{name}`")) || is_told(format!("{name}("));
            assert!(name == "in" || told, "{name} is not told");
        }
    }
}
