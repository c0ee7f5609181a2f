//! What `learn` promises whatever comes: no leak, all memory in state, finite numbers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use bytes::Bytes;
use dunlin_operators::learn::Learn;
use dunlin_operators::memory_state::MemoryState;
use dunlin_operators::operator::{FromHead, Operator};
use dunlin_protocol::effect::Invoked;
use dunlin_protocol::event::{Event, Placed};
use dunlin_protocol::id::{Epoch, EventId, LogId, Seq};
use dunlin_protocol::pipeline::manifest::{F64, Label, LearnSpec};
use dunlin_protocol::time::{Span, Time};

const HOUR: u64 = 3_600_000;

fn spec(label: Label) -> LearnSpec {
    LearnSpec { label, features: None, models: None, interval: None, seed: 7 }
}

fn later() -> LearnSpec {
    spec(Label::Later { target: "v".into(), after: Span(5 * HOUR), rises_by: Some(F64(0.05)) })
}

fn same_row() -> LearnSpec {
    spec(Label::SameRow { label: "v".into(), label_at: Some("known".into()) })
}

/// With the models that are silent by default.
fn with_trees(spec: LearnSpec) -> LearnSpec {
    let names = ["last_value", "rls", "median", "classes", "lately", "tree", "forest"];
    LearnSpec { models: Some(names.map(String::from).to_vec()), ..spec }
}

fn event(index: u32, hours: u64, key: &str, rest: &str) -> Invoked {
    let time = Time(1_600_000_000_000 + hours * HOUR);
    let known = time.after(Span((index as u64 % 9 + 1) * HOUR));
    let payload = format!(r#"{{"known":"{known}",{rest}}}"#);
    let id = EventId { log: LogId([1; 16]), epoch: Epoch(1), seq: Seq(1), index };
    let event =
        Event { key: Bytes::copy_from_slice(key.as_bytes()), time, headers: vec![], payload: payload.into() };
    Invoked { input: 0, step: None, placed: Placed { id, event } }
}

/// A deterministic restless series per key; `salt` changes the values.
fn events(n: u32, salt: u64) -> Vec<Invoked> {
    let one = |i: u32| {
        let noise = (u64::from(i) + salt * 977).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let v = 80 + noise % 5 * 10;
        event(
            i,
            u64::from(i / 3),
            ["a-1", "a-2", "b-1"][i as usize % 3],
            &format!(r#""v":{v},"n":{},"kind":"x{}""#, noise % 17, noise % 3),
        )
    };
    (0..n).map(one).collect()
}

fn run(spec: &LearnSpec, events: &[Invoked], size: usize, reload: bool) -> (Vec<FromHead>, MemoryState) {
    let (mut learn, mut state, mut out) = (Learn::new(spec).unwrap(), MemoryState::new(), Vec::new());
    for batch in events.chunks(size) {
        let handled = learn.handle(batch, Time(0), &mut state).unwrap();
        state.stage();
        state.commit_all();
        // Causes count within their batch.
        out.extend(handled.emitted.into_iter().map(|one| FromHead { cause: 0, ..one }));
        if reload {
            learn = Learn::new(spec).unwrap();
        }
    }
    (out, state)
}

#[test]
fn another_future_leaves_the_past_as_it_was_bit_for_bit() {
    for spec in [later(), same_row(), with_trees(same_row())] {
        let (now, then) = (events(600, 1), events(900, 2));
        let mixed: Vec<Invoked> = now.iter().take(400).chain(then.iter().skip(400)).cloned().collect();
        let until = |events: &[Invoked]| run(&spec, events, 64, false).0;
        let past = run(&spec, &now[..400], 64, false).0;
        assert!(past.iter().any(|one| one.side == Some(0)));
        assert_eq!(until(&now)[..past.len()], past[..]);
        assert_eq!(until(&mixed)[..past.len()], past[..]);
    }
}

#[test]
fn a_hidden_label_is_not_looked_at_before_its_time() {
    // The same rows with other labels: until the first one is due, every prediction is the same.
    let rows = |v: u32| {
        (0..6).map(|i| event(8, i, "k", &format!(r#""v":{},"n":{i}"#, v + i as u32))).collect::<Vec<_>>()
    };
    let (one, other) = (run(&same_row(), &rows(1), 6, false).0, run(&same_row(), &rows(500), 6, false).0);
    assert_eq!(one, other);
    assert!(one.iter().all(|one| one.side.is_none()));
}

#[test]
fn state_holds_everything_and_batches_have_no_edges() {
    for spec in [later(), same_row()] {
        let events = events(500, 3);
        let (out, state) = run(&spec, &events, 500, false);
        for size in [1, 37] {
            assert_eq!(
                (&out, &state),
                (&run(&spec, &events, size, true).0, &run(&spec, &events, size, true).1)
            );
            assert_eq!(out, run(&spec, &events, size, false).0);
        }
    }
}

#[test]
fn state_holds_the_trees_too() {
    let events = events(300, 3);
    let (out, state) = run(&with_trees(later()), &events, 300, false);
    let (other, other_state) = run(&with_trees(later()), &events, 75, true);
    assert_eq!((out, &state), (other, &other_state));
}

#[test]
fn an_undone_call_leaves_no_trace() {
    for spec in [later(), same_row()] {
        let (events, strange) = (events(300, 4), events(300, 9));
        let (mut learn, mut state) = (Learn::new(&spec).unwrap(), MemoryState::new());
        let mut out = Vec::new();
        for (batch, other) in events.chunks(50).zip(strange.chunks(50)) {
            learn.handle(other, Time(0), &mut state).unwrap();
            state.undo();
            learn.forget();
            out.extend(learn.handle(batch, Time(0), &mut state).unwrap().emitted);
            state.stage();
            state.commit_all();
        }
        out.iter_mut().for_each(|one| one.cause = 0);
        assert_eq!((out, state), run(&spec, &events, 50, false));
    }
}

#[test]
fn whatever_comes_the_numbers_stay_finite() {
    let values: [&dyn Fn(u32) -> String; 7] = [
        &|_| "3".into(),
        &|_| "0".into(),
        &|i| format!("{}", 1e12 + f64::from(i % 7)),
        &|i| format!("{:e}", f64::from(i % 7) * 1e-12),
        &|i| if i % 3 == 0 { "null".into() } else { format!("{}", i % 5) },
        &|i| if i % 50 == 49 { "1e99".into() } else { format!("-{}", i % 5) },
        &|i| if i % 40 == 0 { "1e308".into() } else { "\"text\"".into() },
    ];
    for spec in [later(), same_row(), with_trees(later()), with_trees(same_row())] {
        for value in &values {
            let events: Vec<Invoked> = (0..400)
                .map(|i| {
                    event(
                        i,
                        u64::from(i),
                        "k",
                        &format!(r#""v":{},"w":{},"far":"9999-12-30T00:00:00Z""#, value(i), value(i + 1)),
                    )
                })
                .collect();
            let (out, _) = run(&spec, &events, 100, false);
            assert_eq!(out.iter().filter(|one| one.side.is_none()).count(), 400);
            for one in out {
                let payload: serde_json::Value = serde_json::from_slice(&one.event.payload).unwrap();
                for name in ["value", "low", "high", "last_value"] {
                    assert!(payload[name].as_f64().is_some_and(f64::is_finite), "{name} of {payload}");
                }
                assert!(!payload.to_string().contains("null"), "{payload}");
            }
        }
    }
}

#[test]
fn trees_where_they_are_asked_for_say_what_lines_cannot() {
    // The label follows one number where another is small, and its opposite where that is large.
    let rows: Vec<Invoked> = (0..3000u32)
        .map(|i| {
            let number = |salt: u64| {
                let mixed = (u64::from(i) + salt * 7919).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) as f64 / u64::MAX as f64
            };
            let (a, b) = (number(1) - 0.5, number(2));
            let v = if b > 0.5 { 10.0 * a } else { -10.0 * a };
            event(i, u64::from(i), "", &format!(r#""v":{v},"a":{a},"b":{b}"#))
        })
        .collect();
    let last = |spec: &LearnSpec| -> serde_json::Value {
        let out = run(spec, &rows, 300, false).0;
        serde_json::from_slice(&out.iter().rev().find(|one| one.side == Some(0)).unwrap().event.payload)
            .unwrap()
    };
    let (without, with) = (last(&same_row()), last(&with_trees(same_row())));
    assert!(without["weights"].get("forest").is_none());
    let mae = |score: &serde_json::Value| score["running"]["mae"].as_f64().unwrap();
    assert!(mae(&with) < 0.9 * mae(&without), "{} {} {}", mae(&with), mae(&without), with["weights"]);
}

#[test]
fn a_drift_is_marked_where_errors_begin_to_grow() {
    let marks = |size: &dyn Fn(u64) -> f64| -> Vec<u64> {
        let one = |i: u64| {
            let mixed = (i ^ (i >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let noise = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) as f64 / u64::MAX as f64;
            event(i as u32, i, "k", &format!(r#""v":{}"#, 1000.0 + size(i) * (noise - 0.5)))
        };
        let events: Vec<Invoked> = (0..3000).map(one).collect();
        let out = run(&later(), &events, 500, false).0;
        let scores = out.iter().filter(|one| one.side == Some(0));
        let drifts = |one: &FromHead| {
            serde_json::from_slice::<serde_json::Value>(&one.event.payload).unwrap()["drifts"]
                .as_u64()
                .unwrap()
        };
        scores.map(drifts).collect()
    };
    assert_eq!(marks(&|_| 10.0).last(), Some(&0));
    let grown = marks(&|i| if i < 2000 { 10.0 } else { 50.0 });
    assert_eq!((grown[1990], grown.last()), (0, Some(&1)));
    assert!(grown[2200] == 1, "soon");
}

#[test]
fn payloads_have_the_promised_fields() {
    let (out, _) = run(&later(), &events(30, 1), 30, false);
    let score = out.iter().find(|one| one.side == Some(0)).unwrap();
    let payload: serde_json::Value = serde_json::from_slice(&score.event.payload).unwrap();
    for name in [
        "key",
        "at",
        "due",
        "value",
        "probability",
        "low",
        "high",
        "last_value",
        "weights",
        "settled_at",
        "truth",
        "happened",
        "absolute_error",
        "absolute_error_last_value",
        "drifts",
    ] {
        assert!(payload.get(name).is_some(), "{name}");
    }
    for name in ["n", "unscored", "mae", "mae_last_value", "rmse", "auc", "log_loss"] {
        assert!(payload["running"].get(name).is_some(), "{name}");
    }
    assert_eq!(payload["settled_at"], score.event.time.to_string());
    assert_eq!(payload["due"], payload["settled_at"]);
}

#[test]
fn what_is_no_object_fails_alone_and_wrong_tables_are_refused() {
    let mut batch = events(3, 1);
    batch[1].placed.event.payload = Bytes::from_static(b"[1]");
    let handled = Learn::new(&later()).unwrap().handle(&batch, Time(0), &mut MemoryState::new()).unwrap();
    assert_eq!((handled.emitted.len(), handled.failed.len(), handled.failed[0].index), (2, 1, 1));
    let leak = LearnSpec { features: Some(vec!["known".into()]), ..same_row() };
    assert!(Learn::new(&leak).unwrap_err().contains("known"));
    assert!(
        Learn::new(&LearnSpec { models: Some(vec!["oracle".into()]), ..later() })
            .unwrap_err()
            .contains("median")
    );
    assert!(Learn::new(&LearnSpec { interval: Some(F64(1.5)), ..later() }).is_err());
}

#[test]
fn a_keys_path_stands_under_the_key_and_all_else_behind_a_zero_byte() {
    for spec in [later(), same_row()] {
        let state = run(&spec, &events(120, 5), 50, true).1.look_up(None, usize::MAX);
        let keys = || state.iter().map(|(key, _)| key.as_ref());
        let plain: Vec<&[u8]> = keys().filter(|key| key[0] != 0).collect();
        assert_eq!(plain, [b"a-1", b"a-2", b"b-1"]);
        let path = |of: &[u8]| -> serde_json::Value {
            let (_, path) = state.iter().find(|(key, _)| key == of).unwrap();
            serde_json::from_slice(path).unwrap()
        };
        let waiting_of = |key: &[u8]| path(key)["waiting"].as_u64().unwrap() as usize;
        let waiting = keys().filter(|key| key.starts_with(b"\0p") || key.starts_with(b"\0d")).count();
        assert_eq!(waiting_of(b"a-1") + waiting_of(b"a-2") + waiting_of(b"b-1"), waiting);
        let path = path(b"a-1");
        for name in ["value", "count", "min", "max", "mean", "changes", "waiting"] {
            assert!(path[name].is_number(), "{name} of {path}");
        }
        for name in ["first_at", "last_at", "changed_at"] {
            assert!(Time::parse(path[name].as_str().unwrap()).is_some(), "{name} of {path}");
        }
    }
}

#[test]
fn no_key_can_reach_what_is_the_stages_own() {
    for key in ["", "\0m", "\0c\0\0"] {
        let events: Vec<Invoked> =
            (0..40).map(|i| event(i, u64::from(i), key, &format!(r#""v":{}"#, i % 3))).collect();
        for spec in [later(), same_row()] {
            let (out, state) = run(&spec, &events, 40, false);
            assert_eq!((out, &state), (run(&spec, &events, 7, true).0, &run(&spec, &events, 7, true).1));
            assert!(state.look_up(None, usize::MAX).iter().all(|(key, _)| key.first() == Some(&0)));
        }
    }
}

#[test]
fn a_prediction_that_finds_no_place_is_counted() {
    // 600 at one instant, of which 512 may wait; then the event that settles them.
    let mut events: Vec<Invoked> = (0..600).map(|i| event(i, 0, "k", r#""v":1"#)).collect();
    events.push(event(600, 6, "k", r#""v":2"#));
    let (out, _) = run(&later(), &events, 100, true);
    let score = out.iter().rev().find(|one| one.side == Some(0)).unwrap();
    let payload: serde_json::Value = serde_json::from_slice(&score.event.payload).unwrap();
    assert_eq!((&payload["running"]["n"], &payload["running"]["unscored"]), (&512.into(), &88.into()));
}
