//! Lines into events, and events through a filter and a map.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark says what is wrong by a panic")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dunlin_operators::chain::ChainRunner;
use dunlin_operators::ingest::event_in_block;
use dunlin_operators::memory_state::MemoryState;
use dunlin_protocol::effect::Invoked;
use dunlin_protocol::event::Placed;
use dunlin_protocol::id::{Epoch, EventId, LogId, Seq};
use dunlin_protocol::pipeline::manifest::Manifest;
use dunlin_protocol::pipeline::plan::{Plan, Role};
use dunlin_protocol::time::Time;

const EVENTS: u32 = 256;
const NOW: Time = Time(1_000_000);

const PIPELINE: &str = r#"
name = "p"

[source.in]
key = "flight"

[stage.cheap]
from   = ["in"]
filter = "event.price < 120.0"

[stage.euro]
from = ["cheap"]
map  = { flight = "event.flight", eur = "event.price * 0.9" }
"#;

fn line(n: u32) -> Bytes {
    Bytes::from(format!(
        r#"{{"flight":"LH{}","observed_at":"2019-03-02T11:10:14Z","price":{}.5}}"#,
        n % 20,
        n % 200
    ))
}

fn operators(criterion: &mut Criterion) {
    let manifest = Manifest::from_toml(PIPELINE, "bench.toml").unwrap();
    let source = manifest.sources.values().next().unwrap();
    let lines: Vec<Bytes> = (0..EVENTS).map(line).collect();
    let mut group = criterion.benchmark_group("operators");
    group.throughput(Throughput::Elements(EVENTS.into()));
    group.bench_function("ingest", |bench| {
        bench.iter(|| {
            lines.iter().filter_map(|line| event_in_block(source, black_box(line), NOW).ok()).count()
        });
    });
    let placed = |(index, line): (u32, &Bytes)| Invoked {
        input: 0,
        step: None,
        placed: Placed {
            id: EventId { log: LogId([3; 16]), epoch: Epoch(1), seq: Seq(9), index },
            event: event_in_block(source, line, NOW).unwrap(),
        },
    };
    let batch: Vec<Invoked> = (0..).zip(&lines).map(placed).collect();
    let plan = Plan::of(&manifest);
    let unit = plan.units.iter().find(|unit| unit.id.role == Role::Behind).unwrap();
    let mut chain = ChainRunner::new(&unit.chain, None).unwrap();
    group.bench_function("filter_and_map", |bench| {
        let mut state = MemoryState::new();
        bench.iter(|| chain.run(black_box(&batch), NOW, &mut state).unwrap());
    });
    group.finish();
}

criterion_group!(benches, operators);
criterion_main!(benches);
