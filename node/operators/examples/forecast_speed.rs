//! How fast `forecast` settles, learns and predicts in one share: one target of eight keys, a value of
//! each per hour, through the operator with its state in memory.
//!
//! Wanted are 50,000 events a second with one horizon; measured were 83,000 by the processor's time,
//! and 173,000 without the networks (`rls fields`).
//!
//! `cargo run --release -p dunlin-operators --example forecast_speed [events [horizon [model …]]]`
#![allow(clippy::unwrap_used, reason = "a measurement that cannot run may stop")]

mod measure;

use std::time::Instant;

use bytes::Bytes;
use dunlin_operators::forecast::Forecast;
use dunlin_operators::memory_state::MemoryState;
use dunlin_operators::operator::Operator;
use dunlin_protocol::effect::Invoked;
use dunlin_protocol::event::{Event, Placed};
use dunlin_protocol::id::{Epoch, EventId, LogId, Seq};
use dunlin_protocol::pipeline::manifest::{ForecastSpec, Horizon};
use dunlin_protocol::time::Time;

use measure::processor_seconds;

const HOUR: u64 = 3_600_000;
const KEYS: u64 = 8;

/// A day's course and noise.
fn stream(n: u32) -> Vec<Invoked> {
    let mut noise = 7u64;
    let mut one = |index: u32| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (hour, key) = (u64::from(index) / KEYS, u64::from(index) % KEYS);
        let course = (hour as f64 * std::f64::consts::TAU / 24.0).sin() * 10.0;
        let value = course + key as f64 + (noise >> 40) as f64 / (1u64 << 23) as f64;
        let id = EventId { log: LogId([1; 16]), epoch: Epoch(1), seq: Seq(1), index };
        let key = Bytes::from(format!("k{key}"));
        let time = Time(1_600_000_000_000 + hour * HOUR);
        let payload = format!(r#"{{"v":{value:.4}}}"#).into();
        Invoked {
            input: 0,
            step: None,
            placed: Placed { id, event: Event { key, time, headers: Vec::new(), payload } },
        }
    };
    (0..n).map(&mut one).collect()
}

fn main() {
    let mut words = std::env::args().skip(1);
    let n: u32 = words.next().map_or(40_000, |text| text.parse().unwrap());
    let steps = words.next().map_or(1, |text| text.parse().unwrap());
    let models: Vec<String> = words.collect();
    let (events, batch) = (stream(n), 512);
    let mut forecast = Forecast::new(&ForecastSpec {
        targets: vec!["v".into()],
        horizon: Horizon::Steps(steps),
        features: None,
        models: (!models.is_empty()).then_some(models),
        interval: None,
        seed: 0,
    })
    .unwrap();
    let mut state = MemoryState::new();
    let (mut predicted, mut settled, mut changed) = (0u64, 0u64, 0usize);
    let (began, used) = (Instant::now(), processor_seconds());
    for batch in events.chunks(batch) {
        let handled = forecast.handle(batch, Time(0), &mut state).unwrap();
        for out in &handled.emitted {
            *(if out.side.is_none() { &mut predicted } else { &mut settled }) += 1;
        }
        let changes = state.stage();
        changed +=
            changes.iter().map(|c| c.key.len() + c.value.as_ref().map_or(0, Bytes::len)).sum::<usize>();
        state.commit();
    }
    let wall = began.elapsed().as_secs_f64();
    let processor = processor_seconds().zip(used).map(|(now, before)| now - before);
    let per_second = |seconds: f64| format!("{:.0} events/s", f64::from(n) / seconds);
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    println!(
        "{predicted} forecasts of {steps} steps, {settled} settled: {} by the clock, {} by the processor's time",
        per_second(wall),
        processor.map_or("unknown".to_owned(), per_second),
    );
    println!(
        "profile {profile}, {} {}, {} cores, batches of {batch}, {} bytes of state changed per event",
        std::env::consts::OS,
        std::env::consts::ARCH,
        std::thread::available_parallelism().map_or(0, usize::from),
        changed / (n as usize).max(1),
    );
}
