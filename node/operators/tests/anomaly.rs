//! What `anomaly` promises whatever comes: all memory in state, finite scores, the strange ones found.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use bytes::Bytes;
use dunlin_operators::anomaly::Anomaly;
use dunlin_operators::memory_state::MemoryState;
use dunlin_operators::operator::{Operator, State};
use dunlin_protocol::effect::Invoked;
use dunlin_protocol::event::{Event, Placed};
use dunlin_protocol::id::{Epoch, EventId, LogId, Seq};
use dunlin_protocol::pipeline::manifest::AnomalySpec;
use dunlin_protocol::time::Time;
use serde_json::Value;

fn spec(features: Option<&[&str]>, window: u32) -> AnomalySpec {
    let features = features.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
    AnomalySpec { features, window, seed: 0 }
}

fn event(index: u32, key: &str, payload: String) -> Invoked {
    let id = EventId { log: LogId([1; 16]), epoch: Epoch(1), seq: Seq(1), index };
    let key = Bytes::copy_from_slice(key.as_bytes());
    let time = Time(1_600_000_000_000 + u64::from(index) * 1000);
    let event = Event { key, time, headers: Vec::new(), payload: payload.into() };
    Invoked { input: 0, step: None, placed: Placed { id, event } }
}

/// Between -0.5 and 0.5.
fn noise(i: u64) -> f64 {
    let mixed = (i ^ (i >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 11) as f64 / (1u64 << 53) as f64 - 0.5
}

/// Two keys that go together by themselves, each at a level of its own.
fn usual(i: u32) -> (&'static str, f64, f64) {
    let key = ["a", "b"][i as usize % 2];
    let level = if key == "a" { 10.0 } else { 1e6 };
    let n = u64::from(i);
    let (one, other) = ((0..6).map(|k| noise(n * 6 + k)).sum::<f64>(), noise(n * 31 + 7));
    (key, level + one, level * 2.0 + 0.1 * one + other)
}

fn events(n: u32) -> Vec<Invoked> {
    let one = |i| {
        let (key, x, y) = usual(i);
        let y = if i % 17 == 3 { "null".to_owned() } else { y.to_string() };
        event(i, key, format!(r#"{{"x":{x},"y":{y},"name":"n"}}"#))
    };
    (0..n).map(one).collect()
}

fn run(
    spec: &AnomalySpec,
    events: &[Invoked],
    size: usize,
    reload: bool,
) -> (Vec<Value>, Vec<(Bytes, Bytes)>) {
    let (mut anomaly, mut state, mut out) = (Anomaly::new(spec).unwrap(), MemoryState::new(), Vec::new());
    for batch in events.chunks(size) {
        let handled = anomaly.handle(batch, Time(0), &mut state).unwrap();
        assert!(handled.failed.is_empty());
        state.stage();
        state.commit();
        out.extend(handled.emitted.iter().map(|one| serde_json::from_slice(&one.event.payload).unwrap()));
        if reload {
            anomaly = Anomaly::new(spec).unwrap();
        }
    }
    (out, state.scan(b"", usize::MAX))
}

fn number(said: &Value, field: &str) -> f64 {
    said[field].as_f64().unwrap_or_else(|| panic!("{field}: {said}"))
}

#[test]
fn state_holds_everything_and_batches_have_no_edges() {
    // Several windows of each key, and reads in the midst of them.
    let (spec, events) = (spec(None, 40), events(400));
    let whole = run(&spec, &events, 64, false);
    assert_eq!(run(&spec, &events, 7, true), whole);
    assert_eq!(run(&spec, &events, 1, true), whole);
    let other = AnomalySpec { seed: 1, ..spec };
    assert_ne!(run(&other, &events, 64, false).0, whole.0);
}

#[test]
fn what_is_strange_for_its_key_is_told_and_the_usual_is_not() {
    let mut events = events(8000);
    // None in the window before that is like it.
    let strange: Vec<u32> = (2000..8000).step_by(1000).collect();
    for (nth, i) in strange.iter().enumerate() {
        let (key, x, y) = usual(*i);
        // Usual for the other key, or far from both; an even number is key `a`.
        let x = if nth % 2 == 0 { 1e6 } else { x + 40.0 };
        events[*i as usize] = event(*i, key, format!(r#"{{"x":{x},"y":{y}}}"#));
    }
    let (said, _) = run(&spec(Some(&["x", "y"]), 250), &events, 64, false);
    assert_eq!(said.len(), events.len());
    assert!(
        said[..499].iter().all(|one| number(one, "score") == 0.0 && number(one, "tail_probability") == 1.0)
    );
    let rare = |level: f64| -> Vec<u32> {
        (2000..8000).filter(|i| number(&said[*i as usize], "tail_probability") < level).collect()
    };
    let told = rare(0.01);
    let found = strange.iter().filter(|i| told.contains(i)).count();
    assert!(found >= 5, "{found} of {strange:?}: {told:?}");
    assert!(told.len() < 180, "of 6000 about 60 by chance, and not {}", told.len());
    assert_eq!(said[2000]["key"], "a");
    assert_eq!(said[2000]["features"]["x"], 1e6);
    assert_eq!(said[2000]["at"], "2020-09-13T13:00:00Z");
}

#[test]
fn whatever_comes_scores_are_finite_and_within_their_bounds() {
    let values = ["1e308", "-1e308", "0", "null", "\"x\"", "1e-300", "5", "true", "[]", "1e99"];
    let one = |i: u32| {
        let value = |k: u32| values[((i * 7 + k * 3 + i / 10) % 10) as usize];
        event(i, ["", "\u{0}odd"][i as usize % 2], format!(r#"{{"x":{},"y":{}}}"#, value(0), value(1)))
    };
    let events: Vec<Invoked> = (0..1500).map(one).collect();
    for spec in [spec(None, 30), spec(Some(&["x", "y", "none"]), 30)] {
        let (said, _) = run(&spec, &events, 64, false);
        for one in &said {
            let (score, tail) = (number(one, "score"), number(one, "tail_probability"));
            assert!((0.0..=1.0).contains(&score) && tail > 0.0 && tail <= 1.0, "{one}");
        }
        assert_eq!(run(&spec, &events, 5, true).0, said);
    }
}

#[test]
fn an_event_that_is_no_object_fails_alone() {
    let events = [event(0, "a", "[1]".into()), event(1, "a", r#"{"x":1}"#.into())];
    let mut anomaly = Anomaly::new(&spec(None, 250)).unwrap();
    let handled = anomaly.handle(&events, Time(0), &mut MemoryState::new()).unwrap();
    assert_eq!((handled.failed.len(), handled.emitted.len()), (1, 1));
    assert!(handled.failed[0].reason.contains("`anomaly` needs its fields"));
}
