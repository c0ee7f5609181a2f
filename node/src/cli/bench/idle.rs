//! `idle`: what nodes cost that have nothing to do: three of them, or one that is home to many actors.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use dunlin_protocol::limits::{SHARES_MAX, STAGES_MAX};
use dunlin_protocol::pipeline::manifest::{Manifest, Module, Operator};
use indicatif::ProgressBar;

use super::arguments::IdleArguments;
use super::machine::{Machine, cpu_seconds};
use super::mesh::Mesh;
use super::report::{Cpu, Figure, Idle, Latency, Parameters, Row};
use super::round::{used, used_by_each};
use super::streams::OpenMesh;
use crate::cli::deploy::{self, PipelineFile};

const NODES: usize = 3;

/// `relay`: the guest that idle actors would run.
pub fn idle(
    arguments: &IdleArguments,
    relay: &'static [u8],
    open: OpenMesh<'_>,
    bar: &ProgressBar,
) -> anyhow::Result<Vec<Row>> {
    let mesh = open(if arguments.actors > 0 { 1 } else { NODES })?;
    if arguments.actors > 0 {
        bar.set_message("placing actors");
        place(&mesh, arguments.actors, relay)?;
    }
    bar.set_message("nothing happens");
    let began = Instant::now();
    let before = (cpu_seconds(std::process::id()), mesh.cpu_seconds());
    mesh.interrupt.pause(Duration::from_secs_f64(arguments.seconds))?;
    let after = (cpu_seconds(std::process::id()), mesh.cpu_seconds());
    let seconds = began.elapsed().as_secs_f64();
    let spent = used_by_each(before.1, after.1);
    ensure!(
        !spent.is_empty(),
        "what nodes cost is read from /proc, and this system has none: measure on Linux"
    );
    Ok(vec![Row {
        scenario: "idle",
        durability: "none".to_string(),
        copies: 0,
        events: 0,
        events_per_second: 0.0,
        cpu_seconds: Cpu::of(used(before.0, after.0), spent.clone()),
        cpu_seconds_per_million: None,
        latency_us: Latency::default(),
        unmeasured: [Figure::CpuSecondsPerMillion, Figure::LatencyUs]
            .map(|figure| (figure, "no event is sent".to_string()))
            .into(),
        missing: 0,
        twice: 0,
        seconds,
        parameters: Parameters {
            nodes: mesh.nodes(),
            actors: (arguments.actors > 0).then_some(arguments.actors),
            ..Parameters::default()
        },
        idle: Some(Idle {
            rss_bytes: mesh.resident_bytes(),
            cpu_percent: spent.iter().map(|spent| (spent * 10_000.0 / seconds).round() / 100.0).collect(),
        }),
        call: None,
        machine: Machine::this(),
    }])
}

/// Stages behind one source, each with as many shares as it may have.
fn place(mesh: &Mesh, actors: u32, relay: &'static [u8]) -> anyhow::Result<()> {
    let module = mesh.client.put_module(relay)?;
    let shares_max = u32::from(SHARES_MAX);
    // One pipeline holds so many stages at most.
    let per_pipeline = shares_max * STAGES_MAX as u32;
    for (number, first) in (0..actors).step_by(per_pipeline as usize).enumerate() {
        let here = (actors - first).min(per_pipeline);
        let mut text =
            format!("name = \"idle-{number}\"\ndurability = \"memory\"\n\n[source.in]\nkey = \"k\"\n");
        for (stage, begin) in (0..here).step_by(shares_max as usize).enumerate() {
            let shares = (here - begin).min(shares_max);
            text.push_str(&format!(
                "\n[stage.s{stage}]\nfrom = [\"in\"]\nkey = \"k\"\nwasm = \"relay.wasm\"\n\n[placement.s{stage}]\nshares = \
                 {shares}\n"
            ));
        }
        let mut manifest = Manifest::from_toml(&text, "idle.toml")?;
        for stage in manifest.stages.values_mut() {
            if let Operator::Wasm(wasm) = &mut stage.operator {
                wasm.module = Module::Digest(module);
            }
        }
        let file = PipelineFile { text: "", name: Path::new("idle"), base: Path::new("") };
        deploy::send(&*mesh.client, manifest, &file, &ProgressBar::hidden())?;
    }
    Ok(())
}
