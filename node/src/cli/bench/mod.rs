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
use arguments::{FanoutArguments, Scenario};
use mesh::Mesh;
use report::Row;

use super::client::{ConnectMultiaddr, TargetArguments, TargetError};
use super::output::{Output, note, progress};
use super::{WrongUsage, not_yet};

pub fn run(
    arguments: &BenchArguments,
    target: &TargetArguments,
    connect: ConnectMultiaddr,
    out: &Output,
) -> anyhow::Result<()> {
    check(&arguments.scenario)?;
    check_target(&arguments.scenario, target)?;
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
    let begin = || {
        if cfg!(debug_assertions) {
            note("this is a debug build: its figures say nothing (build with --release)");
        }
    };
    let open = |nodes: usize| {
        begin();
        Mesh::open(target, connect, nodes, gossip_from, bar)
    };
    match scenario {
        Scenario::Publish(arguments) => streams::publish(arguments, &open, bar),
        Scenario::Pipeline(arguments) => {
            streams::pipeline(arguments, crate::functions::RELAY_GUEST, &open, bar)
        }
        Scenario::Fanout(arguments) => streams::fanout(arguments, &open, bar),
        Scenario::Idle(arguments) => idle::idle(arguments, crate::functions::RELAY_GUEST, &open, bar),
        Scenario::ColdStart(arguments) => {
            begin();
            calls::cold_start(arguments, crate::functions::RELAY_GUEST)
        }
        Scenario::Wasm(arguments) => {
            begin();
            calls::wasm(arguments, crate::functions::RELAY_GUEST)
        }
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
        copies => bail!("copies = {copies} is not there yet: measure with --copies 1"),
    }
}

/// What is said of a node must not go unheard.
fn check_target(scenario: &Scenario, target: &TargetArguments) -> anyhow::Result<()> {
    let (name, applies, why): (_, &[&str], _) = match scenario {
        Scenario::Publish(_) => ("publish", &STREAMS_TAKE, STREAMS_WHY),
        Scenario::Pipeline(_) => ("pipeline", &STREAMS_TAKE, STREAMS_WHY),
        Scenario::Fanout(_) => ("fanout", &STREAMS_TAKE, STREAMS_WHY),
        Scenario::Idle(_) => ("idle", &[], "which looks only at nodes that it has started: leave it out"),
        Scenario::ColdStart(_) => ("cold-start", &[], CALLS_WHY),
        Scenario::Wasm(_) => ("wasm", &[], CALLS_WHY),
        // `check` has refused it.
        Scenario::Failover(_) => return Ok(()),
    };
    let given = [
        ("--data", target.data.is_some()),
        ("--node", target.node.is_some()),
        ("--token", target.token.is_some()),
    ];
    for (argument, given) in given {
        if given && !applies.contains(&argument) {
            return Err(WrongUsage(format!("{argument} does not apply to 'bench {name}', {why}")).into());
        }
    }
    match (&target.node, scenario) {
        (Some(_), Scenario::Fanout(FanoutArguments { gossip_from: Some(_), .. })) => {
            let why = "--gossip-from does not apply to the mesh of --node, whose nodes have settings of their own: leave it out";
            Err(WrongUsage(why.to_string()).into())
        }
        (Some(_), _) => mesh::member(target).map(drop),
        (None, _) if target.token.is_some() => Err(TargetError::NeedsNode.into()),
        (None, _) => Ok(()),
    }
}

const STREAMS_TAKE: [&str; 2] = ["--node", "--token"];
const STREAMS_WHY: &str = "which starts nodes of its own in a temporary folder: leave it out, or name a member of a running mesh with \
                           --node MULTIADDR and --token TOKEN";
const CALLS_WHY: &str = "which measures in this process, without a node: leave it out";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::arguments::{Command, Invocation};

    /// A word per argument; an error is the sentence of wrong usage.
    fn checked(words: &str) -> Result<(), String> {
        let invocation = Invocation::try_parse_from(format!("dunlin bench {words}").split(' ')).unwrap();
        let Command::Bench(arguments) = invocation.command else { panic!("{words}") };
        check_target(&arguments.scenario, &invocation.target).map_err(|error| {
            let usage = error.is::<WrongUsage>() || error.is::<TargetError>();
            assert!(usage, "{error}");
            error.to_string()
        })
    }

    #[test]
    fn what_is_said_of_a_node_applies_or_is_refused() {
        for fine in ["publish", "idle", "wasm", "fanout --node /ip4/127.0.0.1/tcp/1 --token t"] {
            assert_eq!(checked(fine), Ok(()), "{fine}");
        }
        let cases = [
            ("publish --data d", "--data does not apply to 'bench publish'"),
            (
                "pipeline --data d --node /ip4/127.0.0.1/tcp/1 --token t",
                "--data does not apply to 'bench pipeline'",
            ),
            ("idle --data d", "--data does not apply to 'bench idle'"),
            ("idle --node /ip4/127.0.0.1/tcp/1 --token t", "--node does not apply to 'bench idle'"),
            ("wasm --node http://127.0.0.1:7070", "--node does not apply to 'bench wasm'"),
            ("cold-start --token t", "--token does not apply to 'bench cold-start'"),
            ("publish --token t", "--token goes with --node"),
            ("publish --node http://127.0.0.1:7070", "over libp2p, not over HTTP"),
            ("publish --node 127.0.0.1:7070 --token t", "over libp2p, not over HTTP"),
            ("publish --node /ip4/127.0.0.1/tcp/1", "needs --token"),
            ("fanout --gossip-from 3 --node /ip4/127.0.0.1/tcp/1 --token t", "--gossip-from does not apply"),
        ];
        for (words, sentence) in cases {
            let said = checked(words).unwrap_err();
            assert!(said.contains(sentence), "{words}: {said}");
            assert!(!said.contains("bearer"), "{words}: {said}");
        }
    }
}
