//! `learn` never diverges: whatever comes, its numbers are finite, and over the run it errs at most two
//! parts in a hundred more than the naive line that is printed beside it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use bytes::Bytes;
use dunlin_operators::learn::Learn;
use dunlin_operators::memory_state::MemoryState;
use dunlin_operators::operator::Operator;
use dunlin_protocol::effect::Invoked;
use dunlin_protocol::event::{Event, Placed};
use dunlin_protocol::id::{Epoch, EventId, LogId, Seq};
use dunlin_protocol::pipeline::manifest::{F64, Label, LearnSpec};
use dunlin_protocol::time::{Span, Time};
use serde_json::Value;

const HOUR: u64 = 3_600_000;
const AHEAD: usize = 5;

fn spec(label: Label) -> LearnSpec {
    LearnSpec { label, features: None, models: None, interval: None, seed: 7 }
}

fn later() -> LearnSpec {
    spec(Label::Later { target: "v".into(), after: Span(AHEAD as u64 * HOUR), rises_by: Some(F64(0.05)) })
}

fn same_row() -> LearnSpec {
    spec(Label::SameRow { label: "v".into(), label_at: Some("known".into()) })
}

/// Between -0.5 and 0.5.
fn noise(i: u64) -> f64 {
    let mixed = (i ^ (i >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 11) as f64 / (1u64 << 53) as f64 - 0.5
}

/// One row an hour: the value, a number that came before it, a category with bounds, one that was never
/// seen before, a time to come, and a number that is now and then missing.
fn event(i: u64, key: &str, value: Option<f64>, other: Option<f64>) -> Invoked {
    let text = |value: Option<f64>| value.map_or("null".to_owned(), |value| format!("{value:e}"));
    let time = Time(1_600_000_000_000 + i * HOUR);
    let payload = format!(
        r#"{{"v":{},"known":"{}","x":{},"kind":"k{}","new":"n{i}","until":"{}","gap":{}}}"#,
        text(value),
        time.after(Span((i % 4 + 1) * HOUR)),
        text(other),
        i % 5,
        time.after(Span((i % 30) * 24 * HOUR)),
        text((i % 3 != 1).then(|| noise(i))),
    );
    let id = EventId { log: LogId([1; 16]), epoch: Epoch(1), seq: Seq(1), index: i as u32 };
    let key = Bytes::copy_from_slice(key.as_bytes());
    let event = Event { key, time, headers: vec![], payload: payload.into() };
    Invoked { input: 0, step: None, placed: Placed { id, event } }
}

/// A stage under test, and how it fares.
struct Stage {
    learn: Learn,
    state: MemoryState,
    ours: f64,
    naive: f64,
    settled: usize,
    /// What was said last, and the naive line beside it.
    said: [f64; 2],
}

impl Stage {
    fn new(spec: &LearnSpec) -> Stage {
        let (learn, state) = (Learn::new(spec).unwrap(), MemoryState::new());
        Stage { learn, state, ours: 0.0, naive: 0.0, settled: 0, said: [0.0; 2] }
    }

    fn take(&mut self, batch: &[Invoked]) {
        let handled = self.learn.handle(batch, Time(0), &mut self.state).unwrap();
        assert!(handled.failed.is_empty());
        self.state.stage();
        self.state.commit_all();
        for out in handled.emitted {
            let payload: Value = serde_json::from_slice(&out.event.payload).unwrap();
            assert!(!payload.to_string().contains("null"), "{payload}");
            let at = |name: &str| payload[name].as_f64().filter(|value| value.is_finite()).unwrap();
            assert!(at("low") <= at("high"), "{payload}");
            if out.side.is_none() {
                self.said = [at("value"), at("last_value")];
                continue;
            }
            self.settled += 1;
            // Sums of numbers of any size stay finite.
            self.ours += at("absolute_error") * 1e-10;
            self.naive += at("absolute_error_last_value") * 1e-10;
        }
    }

    #[track_caller]
    fn holds(&self, name: &str) {
        let ratio = if self.ours > 0.0 { self.ours / self.naive } else { 1.0 };
        println!("{name}: {ratio:.4} of the naive line, {} settled", self.settled);
        assert!(ratio <= 1.02, "{name}: {ratio} of the naive line");
        assert!(self.settled > 100, "{name}: {} settled", self.settled);
    }
}

/// As a series, as a label of rows with a key, and of rows without.
#[track_caller]
fn hold(name: &str, values: &[Option<f64>]) {
    for (shape, spec, key) in
        [("later", later(), "k"), ("same row", same_row(), "k"), ("same row, no key", same_row(), "")]
    {
        let mut stage = Stage::new(&spec);
        let before = |i: usize| if i == 0 { None } else { values[i - 1] };
        let rows = values.iter().enumerate();
        let events: Vec<Invoked> = rows.map(|(i, value)| event(i as u64, key, *value, before(i))).collect();
        events.chunks(100).for_each(|batch| stage.take(batch));
        stage.holds(&format!("{name}, {shape}"));
    }
}

const N: u64 = 1500;

fn walk(scale: f64, shift: f64) -> Vec<Option<f64>> {
    let mut at = 0.0;
    let step = |i| {
        at += noise(i);
        Some(shift + scale * at)
    };
    (0..N).map(step).collect()
}

fn of(value: impl Fn(u64) -> f64) -> Vec<Option<f64>> {
    (0..N).map(|i| Some(value(i))).collect()
}

#[test]
fn scaled_shifted_and_constant_input() {
    hold("walk", &walk(1.0, 0.0));
    hold("walk, tiny, far away", &walk(1e-6, 1e3));
    hold("walk, huge", &walk(1e60, -1e61));
    hold("walk, minute", &walk(1e-60, 0.0));
    hold("walk, positive", &walk(1.0, 500.0));
    hold("constant", &vec![Some(7.25); 400]);
    hold("zero", &vec![Some(0.0); 400]);
}

#[test]
fn noise_days_and_jumps() {
    hold("noise", &of(noise));
    let day = |i: u64| (i as f64 * std::f64::consts::TAU / 24.0).sin() * 5.0;
    hold("day", &of(|i| day(i) + noise(i)));
    hold("jumps", &of(|i| (i / 200 % 3) as f64 * 1e4 + noise(i)));
    hold("stays, mostly", &of(|i| (noise(i / 40) * 9.0).round()));
    hold("stays, mostly, positive", &of(|i| 100.0 + (noise(i / 40) * 9.0).round()));
    hold("to and fro", &of(|i| if i / 100 % 2 == 0 { (i % 2) as f64 } else { 0.5 }));
}

#[test]
fn missing_and_exploding_input() {
    hold("missing", &(0..N).map(|i| (i % 3 != 0).then_some(noise(i / 50))).collect::<Vec<_>>());
    hold("explodes", &of(|i| noise(i) * (i as f64 * 0.01).exp()));
    hold("grows", &of(|i| (i as f64 * 0.01).exp()));
    hold("grows fast", &(0..N / 5).map(|i| Some((i as f64 * 0.7).exp())).collect::<Vec<_>>());
    hold("heavy tails", &of(|i| noise(i).recip().clamp(-1e6, 1e6)));
    hold("spikes", &of(|i| if i % 97 == 50 { 1e90 } else { noise(i) }));
    hold("one spike", &of(|i| if i == 300 { 1e99 } else { noise(i) }));
    hold("beyond all measure", &of(|i| if i % 50 == 9 { 1e300 } else { noise(i) }));
}

/// Each value is chosen so that what was just said is wrong.
#[test]
fn an_adversary_who_hears_every_word() {
    for (name, size) in [("adversary", 1.0), ("adversary, shy", 0.01)] {
        let (mut stage, mut value, mut waiting) = (Stage::new(&later()), 50.0, Vec::<[f64; 2]>::new());
        for i in 0..N {
            if let Some([said, last]) = waiting.len().checked_sub(AHEAD).map(|at| waiting[at]) {
                let against = if said > last { -size } else { size };
                value += if said == last { size * noise(i) } else { against };
            }
            stage.take(&[event(i, "k", Some(value), None)]);
            waiting.push(stage.said);
        }
        stage.holds(name);
    }
}
