//! How fast `learn` predicts and learns in one share: a seeded stream like the fares', through the
//! operator with its state in memory, settling after 71 hours.
//!
//! `cargo run --release -p dunlin-operators --example learn_speed [events [batch]]`
#![allow(clippy::unwrap_used, reason = "a measurement that cannot run may stop")]

mod measure;

use std::time::Instant;

use bytes::Bytes;
use dunlin_operators::learn::Learn;
use dunlin_operators::memory_state::MemoryState;
use dunlin_operators::operator::Operator;
use dunlin_protocol::effect::Invoked;
use dunlin_protocol::event::{Event, Placed};
use dunlin_protocol::id::{Epoch, EventId, LogId, Seq};
use dunlin_protocol::pipeline::manifest::{F64, Label, LearnSpec};
use dunlin_protocol::time::{Span, Time};

use measure::processor_seconds;

const HOUR: u64 = 3_600_000;
const FLIGHTS: u64 = 800;

/// Every flight's fare each 12 hours: it stays, mostly, or moves to another rung.
fn stream(n: u32) -> Vec<Invoked> {
    let mut noise = 7u64;
    let mut random = move || {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        noise >> 33
    };
    let mut fares = vec![136.219_948_5; FLIGHTS as usize];
    let mut one = |index: u32| {
        let (round, flight) = (u64::from(index) / FLIGHTS, u64::from(index) % FLIGHTS);
        let time = Time(1_551_525_014_000 + round * 12 * HOUR + flight);
        let departure = Time(1_551_525_014_000 + (flight % 60 + round / 60 * 60) * 24 * HOUR);
        let fare = fares.get_mut(flight as usize).unwrap();
        if random() % 5 == 0 {
            *fare = 60.0 + 17.35 * (random() % 20) as f64;
        }
        let key = format!("LH{}_{}", 800 + flight % 40, flight);
        let payload = format!(
            r#"{{"observed_at":"{time}","flight":"{key}","departure":"{departure}","price":{fare}}}"#
        );
        let id = EventId { log: LogId([1; 16]), epoch: Epoch(1), seq: Seq(1), index };
        let event = Event { key: Bytes::from(key), time, headers: Vec::new(), payload: payload.into() };
        Invoked { input: 0, step: None, placed: Placed { id, event } }
    };
    (0..n).map(&mut one).collect()
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u32>().unwrap());
    let (n, batch) = (numbers.next().unwrap_or(50_000), numbers.next().unwrap_or(512) as usize);
    let events = stream(n);
    let mut learn = Learn::new(&LearnSpec {
        label: Label::Later { target: "price".into(), after: Span(71 * HOUR), rises_by: Some(F64(0.05)) },
        features: None,
        models: None,
        interval: None,
        seed: 0,
    })
    .unwrap();
    let mut state = MemoryState::new();
    let (mut predicted, mut settled, mut changed) = (0u64, 0u64, 0usize);
    let (began, used, mut inside) = (Instant::now(), processor_seconds(), Some(0.0));
    for batch in events.chunks(batch) {
        let before = processor_seconds();
        let handled = learn.handle(batch, Time(0), &mut state).unwrap();
        let passed = processor_seconds().zip(before).map(|(now, before)| now - before);
        inside = inside.zip(passed).map(|(sum, passed)| sum + passed);
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
        "{predicted} predictions, {settled} settled: {} by the clock, {} by the processor's time, {} without \
         what the state in memory takes to commit",
        per_second(wall),
        processor.map_or("unknown".to_owned(), per_second),
        inside.map_or("unknown".to_owned(), per_second),
    );
    println!(
        "profile {profile}, {} {}, {} cores, batches of {batch}, {} bytes of state changed per event",
        std::env::consts::OS,
        std::env::consts::ARCH,
        std::thread::available_parallelism().map_or(0, usize::from),
        changed / (n as usize).max(1),
    );
}
