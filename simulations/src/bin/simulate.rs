//! `simulate --seed N` and `simulate --seeds A..B`: each seed runs twice and must leave one trace.
#![allow(clippy::unwrap_used, reason = "a tool of developers: what it does not expect stops it")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use dunlin_simulations::run::Good;
use dunlin_simulations::scenario::{SCENARIOS, Scenario};
use dunlin_simulations::verdict::{Failure, replay, twice};

/// Drives whole Dunlin nodes through virtual time. Ends with 127 after a crash, 128 without progress, 129 when a promise is broken.
#[derive(Debug, Parser)]
struct Arguments {
    /// One seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// A range of seeds, the end left out: 0..100.
    #[arg(long)]
    seeds: Option<String>,
    /// A scenario by name; `swarm` draws everything from the seed.
    #[arg(long, default_value = "swarm")]
    scenario: String,
    #[arg(long)]
    nodes: Option<usize>,
    /// Length of the phase with faults.
    #[arg(long)]
    virtual_seconds: Option<u64>,
    /// Print every transition, and at the end of a failing run every record of every log.
    #[arg(long)]
    trace: bool,
    /// Go on behind seeds that fail, and print a line for those only.
    #[arg(long)]
    sweep: bool,
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
    if Scenario::named(&arguments.scenario, 0).is_none() {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        eprintln!("there is no scenario '{}'; there are {}", arguments.scenario, names.join(", "));
        return ExitCode::from(2);
    }
    let (began, mut runs, mut virtual_ms, mut worst) = (Instant::now(), 0u32, 0, None);
    for seed in seeds {
        let scenario = drawn(seed, &arguments);
        match twice(seed, scenario, arguments.trace) {
            Ok(good) => {
                virtual_ms += 2 * good.virtual_ms;
                if !arguments.sweep {
                    tell(seed, &arguments.scenario, &good);
                }
            }
            Err(failure) => {
                tell_failure(seed, &arguments, &failure);
                worst = worst.max(Some(failure.code));
                if !arguments.sweep {
                    break;
                }
            }
        }
        runs += 1;
    }
    if arguments.sweep || runs > 1 {
        let worked = worked().unwrap_or_else(|| began.elapsed());
        let minutes = worked.as_secs_f64() / 60.0;
        eprintln!(
            "{runs} seeds, each twice, in {minutes:.1} minutes of CPU: {:.0} seeds and {:.1} virtual hours a minute",
            f64::from(runs) / minutes,
            virtual_ms as f64 / 3_600_000.0 / minutes
        );
    }
    worst.map_or(ExitCode::SUCCESS, ExitCode::from)
}

/// How long this process was on a CPU; None where the system does not tell.
fn worked() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
}

fn parse_range(text: &str) -> Option<std::ops::Range<u64>> {
    let (first, end) = text.split_once("..")?;
    Some(first.parse().ok()?..end.parse().ok()?)
}

fn drawn(seed: u64, arguments: &Arguments) -> Scenario {
    let mut scenario = Scenario::named(&arguments.scenario, seed).unwrap();
    if let Some(nodes) = arguments.nodes {
        scenario.nodes = nodes.clamp(1, 64);
    }
    if let Some(seconds) = arguments.virtual_seconds {
        scenario.chaos = dunlin_protocol::time::Span::seconds(seconds);
    }
    scenario
}

fn tell(seed: u64, scenario: &str, good: &Good) {
    println!(
        "seed {seed}: ok, trace hash {} ({scenario}, {} events, {} actors, {:.1} virtual seconds)",
        good.hash,
        good.events,
        good.actors,
        good.virtual_ms as f64 / 1000.0
    );
}

fn tell_failure(seed: u64, arguments: &Arguments, failure: &Failure) {
    if !arguments.sweep {
        eprintln!("the last transitions:");
        failure.trace.iter().for_each(|line| eprintln!("{line}"));
        failure.logs.iter().for_each(|line| eprintln!("{line}"));
    }
    println!("seed {seed}: exit {}, {}", failure.code, failure.what);
    println!("replay: {}", replay(seed, &arguments.scenario));
}
