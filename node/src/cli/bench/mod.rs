//! `dunlin bench`: an honest load driver, in a process of its own.
//!
//! The nodes are other processes (`dunlin run`, as a user starts them), the driver is a client like
//! any other: it publishes lines and taps streams over libp2p. The load is an **open loop**: when an event
//! is due is decided before the run (`load`), and its latency counts from then, so a stall shows in
//! full. Every run is **checked**: each reader keeps a ledger of which numbers came (`receipt`), and a run that
//! lost or doubled one ends with exit code 1. What the driver itself costs is told apart from what the
//! nodes cost (`machine`), and durability class and copies stand on every row (`report`).
//!
//! `cold-start` and `wasm` look at a function's call alone, in this process, as a node's worker makes it
//! (`functions/trial.rs`).
//!
//! The idea of the open loop and of what goes wrong without it: Gil Tene, "How NOT to measure latency"
//! (<https://github.com/HdrHistogram/HdrHistogram>).

mod arguments;
mod calls;
mod idle;
mod load;
mod machine;
mod mesh;
mod payload;
mod receipt;
mod report;
mod round;
mod streams;

use anyhow::bail;
use indicatif::ProgressBar;

pub use arguments::BenchArguments;
use arguments::Scenario;
use mesh::Mesh;
use report::Row;

use super::client::{ConnectMultiaddr, TargetArguments};
use super::output::{Output, note, progress};
use super::{WrongUsage, not_yet};

pub fn run(
    arguments: &BenchArguments,
    target: &TargetArguments,
    connect: ConnectMultiaddr,
    out: &Output,
) -> anyhow::Result<()> {
    check(&arguments.scenario)?;
    if cfg!(debug_assertions) {
        note("this is a debug build: its figures say nothing (build with --release)");
    }
    let bar = progress(None, "bench");
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    let rows = measure(&arguments.scenario, target, connect, &bar);
    bar.finish_and_clear();
    let rows = rows?;
    report::print(&rows, out)?;
    let wrong: u64 = rows.iter().map(|row| row.missing + row.twice).sum();
    if wrong > 0 {
        bail!("{wrong} events were lost or came twice: these figures do not count, report this");
    }
    Ok(())
}

fn measure(
    scenario: &Scenario,
    target: &TargetArguments,
    connect: ConnectMultiaddr,
    bar: &ProgressBar,
) -> anyhow::Result<Vec<Row>> {
    let gossip_from = match scenario {
        Scenario::Fanout(arguments) => arguments.gossip_from,
        _ => None,
    };
    let open = |nodes: usize| Mesh::open(target, connect, nodes, gossip_from, bar);
    match scenario {
        Scenario::Publish(arguments) => streams::publish(arguments, &open, bar),
        Scenario::Pipeline(arguments) => {
            streams::pipeline(arguments, crate::functions::RELAY_GUEST, &open, bar)
        }
        Scenario::Fanout(arguments) => streams::fanout(arguments, &open, bar),
        Scenario::Idle(arguments) => idle::idle(arguments, crate::functions::RELAY_GUEST, &open, bar),
        Scenario::ColdStart(arguments) => calls::cold_start(arguments, crate::functions::RELAY_GUEST),
        Scenario::Wasm(arguments) => calls::wasm(arguments, crate::functions::RELAY_GUEST),
        // `check` has refused it.
        Scenario::Failover(_) => Ok(Vec::new()),
    }
}

/// What no run should begin with.
fn check(scenario: &Scenario) -> anyhow::Result<()> {
    let stream = match scenario {
        Scenario::Publish(arguments) => &arguments.stream,
        Scenario::Pipeline(arguments) => &arguments.stream,
        Scenario::Fanout(arguments) => &arguments.stream,
        Scenario::Failover(_) => return not_yet("bench failover"),
        Scenario::ColdStart(_) | Scenario::Wasm(_) | Scenario::Idle(_) => return Ok(()),
    };
    match stream.copies {
        1 => Ok(()),
        3 | 5 => bail!("copies = {} is not there yet: measure with --copies 1", stream.copies),
        other => Err(WrongUsage(format!("copies are 1 or 3, not {other}")).into()),
    }
}
