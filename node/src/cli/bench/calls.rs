//! `cold-start` and `wasm`: what a function's call costs, without a mesh around it.

use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::{Bytes, BytesMut};

use super::arguments::{CallArguments, WasmArguments};
use super::machine::{Machine, cpu_seconds};
use super::payload::Template;
use super::report::{self, CallCost, Cpu, Figure, Latency, Parameters, Row, Unmeasured};
use super::round::used;
use crate::functions::trial::Trial;

/// Calls before the first that counts: caches are warm in a node at work too.
const WARM_CALLS: u32 = 50;

/// One event each time, and a new instance: operator made, instantiated, called, dropped. The module is
/// compiled before.
pub fn cold_start(arguments: &CallArguments, guest: &'static [u8]) -> anyhow::Result<Vec<Row>> {
    let mut trial = trial(guest, arguments.size, 1)?;
    for _ in 0..WARM_CALLS {
        trial.cold_call().map_err(anyhow::Error::msg)?;
    }
    let row = measured("cold-start", arguments, 1, || {
        let began = Instant::now();
        Ok((trial.cold_call()?, began.elapsed()))
    })?;
    Ok(vec![row])
}

/// Ours and wasmtime's in turn, so that a noisy moment hits both.
pub fn wasm(arguments: &WasmArguments, guest: &'static [u8]) -> anyhow::Result<Vec<Row>> {
    let batch = arguments.batch.get();
    let mut trial = trial(guest, arguments.call.size, batch)?;
    for _ in 0..WARM_CALLS {
        trial.call().and_then(|_| trial.bare_call()).map_err(anyhow::Error::msg)?;
    }
    let (mut ours, mut alone) = (Duration::ZERO, Duration::ZERO);
    let mut row = measured("wasm", &arguments.call, batch, || {
        let began = Instant::now();
        let bare = trial.bare_call()?;
        let between = Instant::now();
        let events = trial.call()?;
        alone += between - began;
        let took = between.elapsed();
        ours += took;
        if bare == events {
            Ok((events, took))
        } else {
            Err(format!("wasmtime alone gave {bare} events, not {events}"))
        }
    })?;
    let per_event = |time: Duration| time.as_nanos() as f64 / row.events.max(1) as f64;
    let (ours, alone) = (per_event(ours), per_event(alone));
    // Of our own calls alone.
    row.events_per_second = (1e9 / ours.max(1.0)).round();
    row.cpu_seconds_per_million = None;
    row.unmeasured.insert(
        Figure::CpuSecondsPerMillion,
        "the processor's time is that of both, ours and wasmtime's alone".to_string(),
    );
    row.call = Some(CallCost {
        ns_per_event: ours.round(),
        wasmtime_ns_per_event: alone.round(),
        ratio: (ours / alone.max(1.0) * 100.0).round() / 100.0,
    });
    Ok(vec![row])
}

fn trial(guest: &'static [u8], size: usize, batch: u16) -> anyhow::Result<Trial> {
    let template = Template::new(size, 0);
    let payload = |number: u16| {
        let mut line = BytesMut::new();
        template.write(u64::from(number), 0, &mut line);
        line.truncate(line.len().saturating_sub(1));
        line.freeze()
    };
    let payloads: Vec<Bytes> = (0..batch).map(payload).collect();
    Trial::new(guest, payloads).map_err(anyhow::Error::msg)
}

/// Makes the calls, which say how many events came out and how long it took; every event has to.
fn measured(
    scenario: &'static str,
    arguments: &CallArguments,
    batch: u16,
    mut call: impl FnMut() -> Result<(usize, Duration), String>,
) -> anyhow::Result<Row> {
    let mut latency = report::histogram()?;
    let (began, before) = (Instant::now(), cpu_seconds(std::process::id()));
    let mut events = 0;
    for _ in 0..arguments.calls.get() {
        let (out, took) = call().map_err(anyhow::Error::msg)?;
        latency.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        ensure!(out == usize::from(batch), "of {batch} events {out} came out: report this");
        events += out as u64;
    }
    let seconds = began.elapsed().as_secs_f64();
    let driver = used(before, cpu_seconds(std::process::id()));
    Ok(Row {
        scenario,
        durability: "none".to_string(),
        copies: 0,
        events,
        events_per_second: (events as f64 / seconds).round(),
        cpu_seconds: Cpu { driver, nodes: Some(0.0), each: Vec::new() },
        cpu_seconds_per_million: Some(driver * 1e6 / events.max(1) as f64),
        latency_us: Latency::of(&latency),
        unmeasured: Unmeasured::new(),
        missing: 0,
        twice: 0,
        seconds,
        parameters: Parameters { size: Some(arguments.size), batch: Some(batch), ..Parameters::default() },
        idle: None,
        call: None,
        machine: Machine::this(),
    })
}
