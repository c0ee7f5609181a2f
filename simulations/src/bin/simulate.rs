//! `simulate --seed N` and `simulate --seeds A..B`: each seed runs twice and must leave one trace.
#![allow(clippy::unwrap_used, reason = "a tool of developers: what it does not expect stops it")]

use std::process::ExitCode;

use clap::Parser;
use dunlin_simulations::scenario::{SCENARIOS, Scenario};
use dunlin_simulations::verdict::twice;

/// Drives whole Dunlin nodes through virtual time. Ends with 127 after a crash, 128 without progress, 129 when a promise is broken.
#[derive(Debug, Parser)]
struct Arguments {
    /// One seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// A range of seeds, the end left out: 0..100.
    #[arg(long)]
    seeds: Option<String>,
    /// A scenario by name; by default the seed chooses.
    #[arg(long)]
    scenario: Option<String>,
    #[arg(long)]
    nodes: Option<usize>,
    /// Length of the phase with faults.
    #[arg(long)]
    virtual_seconds: Option<u64>,
    /// Print every transition.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seeds = match (&arguments.seed, &arguments.seeds) {
        (Some(seed), _) => *seed..*seed + 1,
        (None, Some(range)) => match parse_range(range) {
            Some(range) => range,
            None => {
                eprintln!("--seeds takes a range such as 0..100, not '{range}'");
                return ExitCode::from(2);
            }
        },
        (None, None) => 0..1,
    };
    for seed in seeds {
        if let Err(code) = run_seed(seed, &arguments) {
            return code;
        }
    }
    ExitCode::SUCCESS
}

fn parse_range(text: &str) -> Option<std::ops::Range<u64>> {
    let (first, end) = text.split_once("..")?;
    Some(first.parse().ok()?..end.parse().ok()?)
}

fn run_seed(seed: u64, arguments: &Arguments) -> Result<(), ExitCode> {
    let mut scenario = match &arguments.scenario {
        None => Scenario::of_seed(seed),
        Some(name) => Scenario::named(name).ok_or_else(|| {
            let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            eprintln!("there is no scenario '{name}'; there are {}", names.join(", "));
            ExitCode::from(2)
        })?,
    };
    if let Some(nodes) = arguments.nodes {
        scenario.nodes = nodes.clamp(1, 64);
    }
    if let Some(seconds) = arguments.virtual_seconds {
        scenario.chaos = dunlin_protocol::time::Span::seconds(seconds);
    }
    let first = twice(seed, scenario, arguments.trace).map_err(|failure| {
        eprintln!("the last transitions:");
        failure.trace.iter().for_each(|line| eprintln!("{line}"));
        println!("seed {seed}: {}", failure.what);
        println!("replay: cargo run -p dunlin-simulations -- --seed {seed} --scenario {}", scenario.name);
        ExitCode::from(failure.code)
    })?;
    println!(
        "seed {seed}: ok, trace hash {} ({}, {} events, {} actors, {:.1} virtual seconds)",
        first.hash,
        scenario.name,
        first.events,
        first.actors,
        first.virtual_ms as f64 / 1000.0
    );
    Ok(())
}
