//! `simulate --seed N` and `simulate --seeds A..B`: each seed runs twice and must leave one trace.
#![allow(clippy::unwrap_used, reason = "a tool of developers: what it does not expect stops it")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser;
use dunlin_simulations::run::{Broken, Good, Run};
use dunlin_simulations::scenario::{SCENARIOS, Scenario};

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
    let first = once(seed, scenario, arguments.trace)?;
    let second = once(seed, scenario, false)?;
    if first.hash != second.hash {
        println!("seed {seed}: two runs left different traces, {} and {}", first.hash, second.hash);
        return Err(ExitCode::from(129));
    }
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

fn once(seed: u64, scenario: Scenario, loud: bool) -> Result<Good, ExitCode> {
    let mut run = Run::new(seed, scenario);
    run.world.trace.loud = loud;
    let outcome = catch_unwind(AssertUnwindSafe(|| run.go()));
    let (what, code) = match outcome {
        Ok(Ok(good)) => return Ok(good),
        Ok(Err(broken @ Broken::NoProgress(_))) => (broken.to_string(), 128),
        Ok(Err(broken @ Broken::Promise(_))) => (broken.to_string(), 129),
        Err(_) => ("a node crashed (see the panic above)".to_string(), 127),
    };
    eprintln!("the last transitions:");
    run.world.trace.last_lines(40).for_each(|line| eprintln!("{line}"));
    println!("seed {seed}: {what}");
    println!("replay: cargo run -p dunlin-simulations -- --seed {seed} --scenario {}", scenario.name);
    Err(ExitCode::from(code))
}
