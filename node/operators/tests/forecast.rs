//! What `forecast` promises whatever comes: no leak, all memory in state, finite numbers, never far
//! worse than the best naive line.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use bytes::Bytes;
use dunlin_operators::forecast::Forecast;
use dunlin_operators::memory_state::MemoryState;
use dunlin_operators::operator::{FromHead, Operator, State};
use dunlin_protocol::effect::Invoked;
use dunlin_protocol::event::{Event, Placed};
use dunlin_protocol::id::{Epoch, EventId, LogId, Seq};
use dunlin_protocol::pipeline::manifest::{ForecastSpec, Horizon};
use dunlin_protocol::time::{Span, Time};
use serde_json::Value;

const HOUR: u64 = 3_600_000;

fn spec(targets: &[&str], horizon: Horizon) -> ForecastSpec {
    ForecastSpec {
        targets: targets.iter().map(|target| (*target).to_owned()).collect(),
        horizon,
        features: None,
        models: None,
        interval: None,
        seed: 0,
    }
}

fn steps(steps: u16) -> ForecastSpec {
    spec(&["v"], Horizon::Steps(steps))
}

fn spans() -> ForecastSpec {
    spec(&["v", "w"], Horizon::Spans(vec![Span(HOUR), Span(5 * HOUR)]))
}

/// With the models that were there before the networks.
fn without_networks(spec: ForecastSpec) -> ForecastSpec {
    let names = ["last_value", "seasonal", "holt_winters", "rls", "fields"];
    ForecastSpec { models: Some(names.map(String::from).to_vec()), ..spec }
}

fn event(index: u32, key: &str, time: u64, payload: String) -> Invoked {
    let id = EventId { log: LogId([1; 16]), epoch: Epoch(1), seq: Seq(1), index };
    let key = Bytes::copy_from_slice(key.as_bytes());
    let event = Event { key, time: Time(time), headers: Vec::new(), payload: payload.into() };
    Invoked { input: 0, step: None, placed: Placed { id, event } }
}

/// Between -0.5 and 0.5.
fn noise(i: u64) -> f64 {
    let mixed = (i ^ (i >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 11) as f64 / (1u64 << 53) as f64 - 0.5
}

/// Three keys, two targets (one now and then missing), another field; `salt` changes the values.
fn events(n: u32, salt: u64) -> Vec<Invoked> {
    let one = |i: u32| {
        let (at, key) = (u64::from(i / 3), ["a", "b", ""][i as usize % 3]);
        let value = (at as f64 * 0.26).sin() * 10.0 + noise(u64::from(i) + salt * 1_000_003);
        let w = if i % 11 == 5 { "null".to_owned() } else { format!("{}", value * 2.0 + 1.0) };
        let payload = format!(r#"{{"v":{value},"w":{w},"n":{},"kind":"x"}}"#, i % 7);
        event(i, key, 1_600_000_000_000 + at * HOUR, payload)
    };
    (0..n).map(one).collect()
}

#[derive(Debug, PartialEq)]
struct Ran {
    out: Vec<FromHead>,
    state: Vec<(Bytes, Bytes)>,
}

fn run(spec: &ForecastSpec, events: &[Invoked], size: usize, reload: bool) -> Ran {
    let (mut forecast, mut state, mut out) = (Forecast::new(spec).unwrap(), MemoryState::new(), Vec::new());
    for batch in events.chunks(size) {
        let handled = forecast.handle(batch, Time(0), &mut state).unwrap();
        assert!(handled.failed.is_empty());
        state.stage();
        state.commit();
        // Causes count within their batch.
        out.extend(handled.emitted.into_iter().map(|one| FromHead { cause: 0, ..one }));
        if reload {
            forecast = Forecast::new(spec).unwrap();
        }
    }
    Ran { out, state: state.scan(b"", usize::MAX) }
}

fn payload(out: &FromHead) -> Value {
    serde_json::from_slice(&out.event.payload).unwrap()
}

#[test]
fn another_future_leaves_the_past_as_it_was_bit_for_bit() {
    for spec in [steps(4), spans(), without_networks(spans())] {
        let (now, then) = (events(300, 1), events(450, 2));
        let mixed: Vec<Invoked> = now.iter().take(200).chain(then.iter().skip(200)).cloned().collect();
        let until = |events: &[Invoked]| run(&spec, events, 64, false).out;
        let past = until(&now[..200]);
        assert!(past.iter().any(|one| one.side == Some(0)));
        assert_eq!(until(&now)[..past.len()], past[..]);
        assert_eq!(until(&mixed)[..past.len()], past[..]);
    }
}

#[test]
fn state_holds_everything_and_batches_have_no_edges() {
    // Long enough for two snapshots of each key, and for reads while one is in the making.
    for spec in [steps(3), spans(), without_networks(steps(3))] {
        let events = events(3 * 280, 3);
        let whole = run(&spec, &events, events.len(), false);
        assert_eq!(run(&spec, &events, 47, true), whole);
        assert_eq!(run(&spec, &events, 97, false), whole);
    }
}

#[test]
fn a_single_event_writes_little() {
    let spec = spec(&["v", "w"], Horizon::Steps(12));
    let (mut forecast, mut state) = (Forecast::new(&spec).unwrap(), MemoryState::new());
    let mut most = 0;
    for batch in events(3 * 200, 4).chunks(1) {
        forecast.handle(batch, Time(0), &mut state).unwrap();
        let changes = state.stage();
        state.commit();
        most = most.max(changes.iter().map(|c| c.key.len() + c.value.as_ref().map_or(0, Bytes::len)).sum());
    }
    let all: usize = state.scan(b"", usize::MAX).iter().map(|(_, value)| value.len()).sum();
    assert!(most < 16 << 10 && all > 8 * most, "{most} of {all}");
}

#[test]
fn an_undone_call_leaves_no_trace() {
    let spec = spans();
    let (events, strange) = (events(300, 4), events(300, 9));
    let (mut forecast, mut state) = (Forecast::new(&spec).unwrap(), MemoryState::new());
    let mut out = Vec::new();
    for (batch, other) in events.chunks(60).zip(strange.chunks(60)) {
        forecast.handle(other, Time(0), &mut state).unwrap();
        state.undo();
        forecast.forget();
        out.extend(forecast.handle(batch, Time(0), &mut state).unwrap().emitted);
        state.stage();
        state.commit();
    }
    out.iter_mut().for_each(|one| one.cause = 0);
    assert_eq!(Ran { out, state: state.scan(b"", usize::MAX) }, run(&spec, &events, 60, false));
}

#[test]
fn payloads_have_the_promised_fields() {
    let ran = run(&spans(), &events(90, 1), 30, false);
    let of = |side| ran.out.iter().rev().find(|one| one.side == side && &one.event.key[..] == b"a").unwrap();
    let (said, score) = (payload(of(None)), payload(of(Some(0))));
    for name in ["key", "at", "due", "forecast", "weights"] {
        assert!(said.get(name).is_some() && score.get(name).is_some(), "{name}");
    }
    for name in ["value", "low", "high", "last_value"] {
        assert!(said["forecast"]["w"].get(name).is_some(), "{name}");
    }
    assert_eq!(score["settled_at"], of(Some(0)).event.time.to_string());
    let v = &score["forecast"]["v"];
    for name in ["value", "low", "high", "truth", "absolute_error", "absolute_error_last_value"] {
        assert_eq!(v[name].as_array().unwrap().len(), 2, "{name}");
    }
    for name in ["mae", "mae_last_value", "rmse", "inside"] {
        assert_eq!(v["running"][name].as_array().unwrap().len(), 2, "{name}");
    }
    // What is scored is what was said.
    let made = ran
        .out
        .iter()
        .find(|one| one.side.is_none() && one.event.key == "a" && payload(one)["at"] == score["at"]);
    let made = payload(made.unwrap());
    assert_eq!((&made["forecast"]["v"]["value"], &made["weights"]), (&v["value"], &score["weights"]));
    let error = v["truth"][1].as_f64().unwrap() - v["value"][1].as_f64().unwrap();
    assert_eq!(v["absolute_error"][1].as_f64().unwrap(), error.abs());
}

#[test]
fn a_late_event_gets_a_forecast_and_teaches_nothing() {
    let spec = steps(2);
    let mut events = events(120, 1);
    let without = run(&spec, &events, 40, false);
    let late = event(999, "a", 1_600_000_000_000, r#"{"v":1e9}"#.into());
    events.insert(100, late);
    let with = run(&spec, &events, 40, false);
    assert_eq!(with.out.len(), without.out.len() + 1);
    assert_eq!(with.state, without.state);
}

#[test]
fn what_is_no_object_fails_alone_and_wrong_tables_are_refused() {
    let mut batch = events(3, 1);
    batch[1].placed.event.payload = Bytes::from_static(b"[1]");
    let handled = Forecast::new(&steps(1)).unwrap().handle(&batch, Time(0), &mut MemoryState::new()).unwrap();
    assert_eq!((handled.emitted.len(), handled.failed.len(), handled.failed[0].index), (2, 1, 1));
    let unknown = ForecastSpec { models: Some(vec!["oracle".into()]), ..steps(1) };
    assert!(Forecast::new(&unknown).unwrap_err().contains("holt_winters"));
    let misspelt = ForecastSpec { models: Some(vec!["elmann".into()]), ..steps(1) };
    assert!(Forecast::new(&misspelt).unwrap_err().contains("'elman'"));
}

#[test]
fn networks_take_weight_where_only_they_can_tell() {
    // Each value goes up or down as the last two moves were alike or not, or strays.
    let (mut moves, mut at, mut values) = ([1.0, -1.0], 0.0, Vec::new());
    for i in 0..6000u64 {
        let [one, two] = moves;
        let next: f64 = if noise(i) > 0.35 { noise(i + 9_000_000).signum() } else { one * two };
        moves = [two, next];
        at = 0.9 * at + next;
        values.push(at);
    }
    let one = |(i, value): (usize, &f64)| {
        event(i as u32, "k", 1_600_000_000_000 + i as u64 * HOUR, format!(r#"{{"v":{value}}}"#))
    };
    let events: Vec<Invoked> = values.iter().enumerate().map(one).collect();
    let mean = |spec: &ForecastSpec| {
        let out = run(spec, &events, 500, false).out;
        let said = out.iter().rev().find(|one| one.side == Some(0)).map(payload).unwrap();
        (said["forecast"]["v"]["running"]["mae"][0].as_f64().unwrap(), said["weights"].clone())
    };
    let ((without, weights), (with, named)) = (mean(&without_networks(steps(1))), mean(&steps(1)));
    assert!(weights.get("elman").is_none() && named.get("elman").is_some());
    assert!(with < 0.95 * without, "{with} with them, {without} without; {named}");
}

#[test]
fn no_key_can_reach_what_is_the_stages_own() {
    for key in ["", "\0h", "\0j\0\0"] {
        let events: Vec<Invoked> =
            (0..60).map(|i| event(i, key, u64::from(i) * HOUR, format!(r#"{{"v":{}}}"#, i % 3))).collect();
        let ran = run(&steps(2), &events, 60, false);
        assert_eq!(run(&steps(2), &events, 7, true), ran);
        assert!(ran.state.iter().all(|(key, _)| key.first() == Some(&0)));
    }
}

const AHEAD: usize = 6;

/// Root mean squared errors over a run from the 100th forecast on (four days: a naive line that is
/// given its season has an unfair start), by horizon: the ensemble's against those of "as it is" and
/// "as it was a day before".
#[track_caller]
fn holds(name: &str, values: &[Option<f64>]) {
    held(name, values, steps(AHEAD as u16));
    held(&format!("{name}, without networks"), values, without_networks(steps(AHEAD as u16)));
}

#[track_caller]
fn held(name: &str, values: &[Option<f64>], spec: ForecastSpec) {
    let (ahead, warm) = (AHEAD, 100usize);
    let events: Vec<Invoked> = values
        .iter()
        .enumerate()
        .map(|(i, value)| {
            let value = value.map_or("null".to_owned(), |value| format!("{value:e}"));
            event(i as u32, "k", 1_600_000_000_000 + i as u64 * HOUR, format!(r#"{{"v":{value}}}"#))
        })
        .collect();
    let ran = run(&spec, &events, 500, false);
    assert_eq!(ran.out.iter().filter(|one| one.side.is_none()).count(), values.len(), "{name}");
    let there: Vec<f64> = values.iter().flatten().copied().filter(|v| v.abs() < 1e100).collect();
    let mut squares = vec![[0.0; 3]; ahead];
    let mut made = 0;
    for one in &ran.out {
        let payload = payload(one);
        assert!(!payload.to_string().contains("null"), "{name}: {payload}");
        if one.side.is_none() {
            continue;
        }
        // Forecasts settle in the order in which they were made.
        let origin = made;
        made += 1;
        if origin < warm {
            continue;
        }
        for (horizon, squares) in squares.iter_mut().enumerate() {
            let truth = there[origin + horizon + 1];
            let said = payload["forecast"]["v"]["value"][horizon].as_f64().unwrap();
            for (sum, says) in squares.iter_mut().zip([said, there[origin], there[origin + horizon + 1 - 24]])
            {
                *sum += (truth - says).powi(2);
            }
        }
    }
    for (horizon, [ours, last, seasonal]) in squares.into_iter().enumerate() {
        let ratio = if ours > 0.0 { (ours / last.min(seasonal)).sqrt() } else { 1.0 };
        println!("{name} at {}: {ratio:.3} of the best naive line", horizon + 1);
        assert!(ratio <= 1.02, "{name} at {}: {ratio} of the best naive line", horizon + 1);
    }
}

#[test]
fn never_far_worse_than_the_best_naive_line() {
    let n = 1500u64;
    let walk = |scale: f64, shift: f64| {
        let mut at = 0.0;
        (0..n)
            .map(|i| {
                at += noise(i);
                Some(shift + scale * at)
            })
            .collect::<Vec<_>>()
    };
    holds("walk", &walk(1.0, 0.0));
    holds("walk, tiny, far away", &walk(1e-6, 1e3));
    holds("walk, huge", &walk(1e60, -1e61));
    holds("constant", &vec![Some(7.25); 400]);
    holds("noise", &(0..n).map(|i| Some(noise(i))).collect::<Vec<_>>());
    let day = |i: u64| (i as f64 * std::f64::consts::TAU / 24.0).sin() * 5.0;
    holds("day", &(0..n).map(|i| Some(day(i) + noise(i))).collect::<Vec<_>>());
    holds("jumps", &(0..n).map(|i| Some((i / 200 % 3) as f64 * 1e4 + noise(i))).collect::<Vec<_>>());
    holds("missing", &(0..n).map(|i| (i % 3 != 0).then_some(noise(i / 50))).collect::<Vec<_>>());
    holds("stays, mostly", &(0..n).map(|i| Some((noise(i / 40) * 9.0).round())).collect::<Vec<_>>());
    holds("explodes", &(0..n).map(|i| Some(noise(i) * (i as f64 * 0.01).exp())).collect::<Vec<_>>());
    holds("grows fast", &(0..n / 5).map(|i| Some((i as f64 * 0.7).exp())).collect::<Vec<_>>());
    holds("heavy tails", &(0..n).map(|i| Some(noise(i).recip().clamp(-1e6, 1e6))).collect::<Vec<_>>());
    holds("grows", &(0..n).map(|i| Some((i as f64 * 0.01).exp())).collect::<Vec<_>>());
    let spikes = |i: u64| if i % 97 == 50 { 1e90 } else { noise(i) };
    holds("spikes", &(0..n).map(|i| Some(spikes(i))).collect::<Vec<_>>());
    holds(
        "beyond all measure",
        &(0..n).map(|i| Some(if i % 50 == 9 { 1e300 } else { noise(i) })).collect::<Vec<_>>(),
    );
    holds(
        "to and fro",
        &(0..n).map(|i| Some(if i / 100 % 2 == 0 { (i % 2) as f64 } else { 0.5 })).collect::<Vec<_>>(),
    );
}
