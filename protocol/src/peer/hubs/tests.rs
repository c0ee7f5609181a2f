//! Taps of a lone node: they share its edges, and each shows everything at its own pace.

use alloc::vec;
use alloc::vec::Vec;

use super::TapBounds;
use crate::effect::{Input, RequestId};
use crate::peer::tests::Lone;
use crate::pipeline::manifest::StreamName;
use crate::rpc::{Request, Tail, TailFrom};
use crate::time::Span;

const WHOLE: u64 = 1 << 30;

fn tap(node: &mut Lone, id: u64, from: TailFrom, credit: u64) {
    let stream = StreamName { base: "in".parse().unwrap(), side: None };
    let tail = Tail { pipeline: "p".parse().unwrap(), stream, from, limit: None, follow: true, credit };
    node.take(Input::Request { id: RequestId(id), request: Request::Tail(tail) });
}

/// The numbers of the events that the tap showed.
fn shown(node: &Lone, id: u64) -> Vec<u64> {
    let events = node.tailed.get(&RequestId(id)).into_iter().flatten();
    events.map(|event| event.placed.event.time.0).collect()
}

/// How many edges read the source's log for taps.
fn edges(node: &Lone) -> usize {
    node.peer.subscriptions.values().filter(|subscription| subscription.reader.is_none()).count()
}

fn node(window_bytes: u64, behind_max: usize) -> Lone {
    let mut node = Lone::deployed("memory", TapBounds { window_bytes, behind_max });
    node.publish(0, 10);
    node
}

#[test]
fn taps_of_one_log_share_one_edge_and_its_events() {
    let mut node = node(1 << 20, 2);
    for id in 10..60 {
        tap(&mut node, id, TailFrom::Start, WHOLE);
    }
    (1..5).for_each(|n| node.publish(n, 10));
    assert_eq!(edges(&node), 1);
    for id in 10..60 {
        assert_eq!(shown(&node, id), [0, 1, 2, 3, 4]);
    }
    let payload = |id| node.tailed[&RequestId(id)][4].placed.event.payload.as_ptr();
    assert_eq!(payload(10), payload(59), "no bytes of its own for a tap");
    (10..60).for_each(|id| node.take(Input::Cancelled { id: RequestId(id) }));
    assert_eq!((edges(&node), node.peer.hubs.len()), (0, 0));
}

#[test]
fn a_tap_from_now_shows_nothing_of_before() {
    let mut node = node(1 << 20, 2);
    tap(&mut node, 10, TailFrom::Start, WHOLE);
    tap(&mut node, 11, TailFrom::Now, WHOLE);
    node.publish(1, 10);
    assert_eq!((shown(&node, 10), shown(&node, 11)), (vec![0, 1], vec![1]));
    assert_eq!(edges(&node), 1);
}

#[test]
fn a_slow_tap_holds_nobody_up_falls_off_and_catches_up() {
    let mut node = node(20_000, 2);
    tap(&mut node, 10, TailFrom::Start, WHOLE);
    tap(&mut node, 11, TailFrom::Start, 1);
    (1..30).for_each(|n| node.publish(n, 2_000));
    let all: Vec<u64> = (0..30).collect();
    assert_eq!(shown(&node, 10), all);
    assert_eq!(shown(&node, 11), [0], "its client takes no more");
    let held: u64 =
        node.peer.hubs.hubs.values().filter_map(|hub| Some(hub.window.as_ref()?.done_bytes())).sum();
    assert!(held <= 20_000, "{held} bytes are kept for it");
    node.take(Input::TapCredit { id: RequestId(11), bytes: WHOLE });
    assert_eq!(shown(&node, 11), all);
    node.publish(30, 10);
    assert_eq!(edges(&node), 1, "it reads with the other one again");
    assert_eq!((shown(&node, 10).len(), shown(&node, 11).len()), (31, 31));
}

#[test]
fn taps_that_lag_take_turns() {
    let mut node = node(0, 1);
    tap(&mut node, 10, TailFrom::Start, WHOLE);
    (1..40).for_each(|n| node.publish(n, 1_000));
    // Each at a place of its own, with a client that takes one event at a time.
    for id in 11..17 {
        tap(&mut node, id, TailFrom::Start, 1);
        (0..id - 10).for_each(|_| node.take(Input::TapCredit { id: RequestId(id), bytes: 1_100 }));
    }
    assert!(edges(&node) <= 2, "{} edges", edges(&node));
    for _ in 0..400 {
        (11..17).for_each(|id| node.take(Input::TapCredit { id: RequestId(id), bytes: 1_100 }));
        node.pass(Span(500));
        assert!(edges(&node) <= 2, "{} edges", edges(&node));
    }
    let all: Vec<u64> = (0..40).collect();
    (10..17).for_each(|id| assert_eq!(shown(&node, id), all, "tap {id}"));
    assert_eq!(node.peer.hubs.waiting(), 0);
}

#[test]
fn a_tap_that_joins_from_far_ahead_does_not_starve_its_hub() {
    // More lies between the two than an edge has credit for.
    let large = 200_000;
    let bounds = TapBounds { window_bytes: 300_000, behind_max: 2 };
    let mut node = Lone::keeping(r#"{ bytes = "64MiB", age = "1d" }"#, "memory", bounds);
    node.publish(0, 10);
    tap(&mut node, 10, TailFrom::Start, WHOLE);
    tap(&mut node, 11, TailFrom::Start, 1);
    tap(&mut node, 12, TailFrom::Start, 30 * large);
    (1..=40).for_each(|n| node.publish_at_once(n, large as usize));
    let all: Vec<u64> = (0..=40).collect();
    assert_eq!(shown(&node, 10), all);
    assert!(shown(&node, 11).len() == 1 && (25..35).contains(&shown(&node, 12).len()), "both fell off");
    // The slower one reads by itself, a little; the other one stands ahead of it and joins.
    node.take(Input::TapCredit { id: RequestId(11), bytes: 1 });
    node.take(Input::TapCredit { id: RequestId(12), bytes: 1 });
    assert_eq!(edges(&node), 2, "they share one");
    node.take(Input::TapCredit { id: RequestId(12), bytes: WHOLE });
    assert_eq!((shown(&node, 11).len(), shown(&node, 12)), (2, all.clone()));
    node.take(Input::TapCredit { id: RequestId(11), bytes: WHOLE });
    assert_eq!(shown(&node, 11), all);
}
