//! `idle`: what three nodes cost that have nothing to do.

use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::ProgressBar;

use super::arguments::IdleArguments;
use super::machine::{Machine, cpu_seconds};
use super::report::{Cpu, Idle, Latency, Parameters, Row};
use super::round::used;
use super::streams::OpenMesh;

const NODES: usize = 3;

pub fn idle(arguments: &IdleArguments, open: OpenMesh<'_>, bar: &ProgressBar) -> anyhow::Result<Vec<Row>> {
    let mesh = open(NODES)?;
    bar.set_message("nothing happens");
    let began = Instant::now();
    let before = (cpu_seconds(std::process::id()), mesh.cpu_seconds());
    mesh.interrupt.pause(Duration::from_secs_f64(arguments.seconds))?;
    let after = (cpu_seconds(std::process::id()), mesh.cpu_seconds());
    let seconds = began.elapsed().as_secs_f64();
    let (before_nodes, after_nodes) =
        before.1.zip(after.1).context("only nodes of this machine can be looked at: leave --node out")?;
    let spent: Vec<f64> = after_nodes
        .iter()
        .zip(&before_nodes)
        .map(|(after, before)| used(Some(*before), Some(*after)))
        .collect();
    Ok(vec![Row {
        scenario: "idle",
        durability: "none".to_string(),
        copies: 0,
        events: 0,
        events_per_second: 0.0,
        cpu_seconds: Cpu { driver: used(before.0, after.0), nodes: Some(spent.iter().sum()) },
        cpu_seconds_per_million: None,
        latency_us: Latency::default(),
        missing: 0,
        twice: 0,
        seconds,
        parameters: Parameters { nodes: mesh.nodes(), ..Parameters::default() },
        idle: Some(Idle {
            rss_bytes: mesh.resident_bytes(),
            cpu_percent: spent.iter().map(|spent| (spent * 10_000.0 / seconds).round() / 100.0).collect(),
        }),
        call: None,
        machine: Machine::this(),
    }])
}
