//! A guest's call: as a worker makes it, from a compiled module alone, and in wasmtime alone.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark says what is wrong by a panic")]

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dunlin::functions::RELAY_GUEST;
use dunlin::functions::trial::Trial;

fn guest(criterion: &mut Criterion) {
    let payloads = |count: u64| (0..count).map(|n| Bytes::from(format!("{n:0>100}"))).collect();
    let mut group = criterion.benchmark_group("guest");
    let mut one = Trial::new(RELAY_GUEST, payloads(1)).unwrap();
    group.bench_function("cold_start", |bench| bench.iter(|| one.cold_call().unwrap()));
    let mut many = Trial::new(RELAY_GUEST, payloads(256)).unwrap();
    group.throughput(Throughput::Elements(256));
    group.bench_function("call", |bench| bench.iter(|| many.call().unwrap()));
    group.bench_function("wasmtime_alone", |bench| bench.iter(|| many.bare_call().unwrap()));
    group.finish();
}

criterion_group!(benches, guest);
criterion_main!(benches);
