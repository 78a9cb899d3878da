//! Black-box environment of StreamApp: generator, checker, demo helpers and bench. It knows published documents and
//! Kafka only; it shares no code with the product.

mod app;
mod bare_loop;
mod bench;
mod broker;
#[cfg(test)]
mod broker_tests;
mod check;
mod cluster;
mod demo;
mod drained;
mod generate;
mod hit;
mod integration;
mod murmur2;
mod orders;
mod reader;
mod topics;
mod wait;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The bare loop is the limit of what a worker can reach: it allocates with the same library.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Debug, Parser)]
#[command(name = "streamapp-e2e", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create, delete and list topics
    #[command(subcommand)]
    Topics(topics::Topics),
    Generate(generate::Generate),
    Check(check::Check),
    WaitDrained(drained::WaitDrained),
    BareLoop(bare_loop::BareLoop),
    Bench(Box<bench::Bench>),
    Demo(Box<demo::Demo>),
    Integration(Box<integration::Integration>),
    ClusterDemo(Box<cluster::Demo>),
    ClusterTest(Box<cluster::Test>),
    ClusterFootprint(Box<cluster::Footprint>),
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("streamapp-e2e: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs one command; `false` is a judgement, an error means that there is none.
fn run(command: &Command) -> Result<bool> {
    match command {
        Command::Topics(command) => topics::run(command)?,
        Command::Generate(args) => println!("{}", serde_json::to_string(&generate::run(args)?)?),
        Command::Check(args) => return check::run(args),
        Command::WaitDrained(args) => drained::run(args)?,
        Command::Bench(args) => return bench::run(args),
        Command::Demo(args) => return demo::run(args),
        Command::Integration(args) => return integration::run(args),
        Command::ClusterDemo(args) => return cluster::run_demo(args),
        Command::ClusterFootprint(args) => return cluster::run_footprint(args),
        Command::ClusterTest(args) => return cluster::run_test(args),
        Command::BareLoop(args) => println!("{}", serde_json::to_string(&bare_loop::run(args)?)?),
    }
    Ok(true)
}
