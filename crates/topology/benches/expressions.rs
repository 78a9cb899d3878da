//! What expressions cost on a record that is bound already: `make bench` prints it, reports/expression-bench.json has it.
#![allow(missing_docs, clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use bumpalo::Bump;
use streamapp_topology::{Env, Expr, Field, Scope, StructType, Type, Value};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ROUNDS: u32 = 7;
const RECORDS: u32 = 20_000;
/// Of each record: what it costs to bind it is not meant.
const EVALUATIONS: u32 = 100;

#[derive(Debug, serde::Serialize)]
struct Figures {
    /// `value.amount > 100`, nanoseconds, the median of the rounds; aim: 10.
    compare_ns: f64,
    /// Two comparisons and `&&`, one of them of strings.
    both_ns: f64,
    /// An object of three fields: an int, a string as it is, a text of three parts; aim: 150.
    object_ns: f64,
    /// `in` with three constants.
    in_ns: f64,
    /// A macro over a list of three constants.
    macro_ns: f64,
    /// `has` of a map's key that is not there.
    has_ns: f64,
    /// `id` of two parts.
    id_ns: f64,
    /// A timestamp as text.
    timestamp_ns: f64,
    /// Bytes that all evaluations of all lines took from the allocator, after the first round; aim: 0.
    allocations: u64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Reports are written where the workspace is; cargo runs benches in their package.
    std::env::set_current_dir("../..")?;
    let report = report::Report::begin("expression-bench", 0);
    let object = [
        ("amount", "value.amount * 2"),
        ("customer", "value.customer"),
        ("id", "'order:' + key + ':' + string(value.amount)"),
    ];
    let mut fields = Vec::new();
    for (name, source) in object {
        fields.push((name.to_owned(), compile(source)?));
    }
    let mut allocations = 0;
    let mut condition = |source| -> Result<f64, String> {
        let expr = compile(source)?;
        let (nanos, allocated) = measured(|scope| drop(black_box(expr.eval_bool(black_box(scope)))));
        allocations += allocated;
        Ok(nanos)
    };
    let compare_ns = condition("value.amount > 100")?;
    let both_ns = condition("value.amount > 100 && value.customer == 'c-17'")?;
    let in_ns = condition("value.amount in [17, 250, 3000]")?;
    let macro_ns = condition("[17, 250, 3000].exists(x, x > value.amount)")?;
    let has_ns = condition("has(value.labels.vip)")?;
    let mut made = |expr: Expr| {
        let (nanos, allocated) = measured(|scope| drop(black_box(expr.eval(black_box(scope)))));
        allocations += allocated;
        nanos
    };
    let object_ns = made(Expr::build_struct("Out", fields));
    let id_ns = made(compile("id('order', key)")?);
    let timestamp_ns = made(compile("string(ts)")?);
    let figures = Figures {
        compare_ns,
        both_ns,
        object_ns,
        in_ns,
        macro_ns,
        has_ns,
        id_ns,
        timestamp_ns,
        allocations,
    };
    let passed = figures.compare_ns <= 10.0 && figures.object_ns <= 150.0 && figures.allocations == 0;
    report.end(passed, &figures)?;
    println!(
        "expressions: compare_ns={:.1} both_ns={:.1} object_ns={:.1} in_ns={:.1} macro_ns={:.1} has_ns={:.1} id_ns={:.1} timestamp_ns={:.1} allocations={} aims_met={passed}",
        figures.compare_ns,
        figures.both_ns,
        figures.object_ns,
        figures.in_ns,
        figures.macro_ns,
        figures.has_ns,
        figures.id_ns,
        figures.timestamp_ns,
        figures.allocations
    );
    Ok(())
}

fn compile(source: &str) -> Result<Expr, String> {
    let field = |name: &str, ty| Field {
        name: name.to_owned(),
        ty,
    };
    let value = StructType {
        name: "Order".to_owned(),
        fields: vec![
            field("amount", Type::Int),
            field("customer", Type::String),
            field("labels", Type::Map(Box::new(Type::String))),
        ],
    };
    let env = Env::of_record(Type::String, Type::Struct(value.into()));
    Expr::compile(source, &env).map_err(|errors| format!("{source}: {errors:?}"))
}

/// Nanoseconds of one evaluation, and bytes allocated by all but those of the first round.
fn measured(run: impl for<'a> Fn(&Scope<'a>)) -> (f64, u64) {
    let mut arena = Bump::new();
    let mut rounds = Vec::new();
    let mut before = 0;
    for round in 0..=ROUNDS {
        if round == 1 {
            before = allocated();
        }
        let start = Instant::now();
        for number in 0..RECORDS {
            arena.reset();
            let labels = [(Value::String("tenant"), Value::String("t-3"))];
            let value = [
                Value::Int(i64::from(number)),
                Value::String("c-17"),
                Value::Map(&labels),
            ];
            let scope = Scope {
                key: Value::String("o-1"),
                value: Value::Struct(&value),
                aggregate: Value::Null,
                ts: 1_700_000_000_120,
                topic: "orders",
                partition: 0,
                offset: 0,
                headers: &[],
                arena: &arena,
            };
            for _ in 0..EVALUATIONS {
                run(&scope);
            }
        }
        if round > 0 {
            rounds.push(start.elapsed().as_nanos() as f64 / f64::from(RECORDS * EVALUATIONS));
        } else {
            rounds.reserve(ROUNDS as usize);
        }
    }
    let allocations = allocated() - before;
    rounds.sort_by(f64::total_cmp);
    (rounds[rounds.len() / 2], allocations)
}

/// Bytes that this thread has allocated so far.
fn allocated() -> u64 {
    tikv_jemalloc_ctl::thread::allocatedp::read().map_or(0, |bytes| bytes.get())
}
