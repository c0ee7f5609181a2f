//! More than can be taken: memory stays flat, publishers are held back and told, nothing is dropped.
//!
//! `DUNLIN_TESTS_LONG=1` lets ten million events go through.

use std::env;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use dunlin_tests::{Mesh, Node, guest, wait_for};
use serde_json::Value;

use crate::counting::number;
use crate::latency::{Peak, Probe, calm_pipeline};
use crate::outside::{Outside, Says};

const MIB: u64 = 1 << 20;
/// What a node's memory may grow by, however much goes through.
const GROWTH_MAX: u64 = 96 * MIB;
const P99_MAX: Duration = Duration::from_secs(10);

fn events() -> u64 {
    env::var_os("DUNLIN_TESTS_LONG").map_or(300_000, |_| 10_000_000)
}

fn dead_letters(node: &Node, pipeline: &str) -> usize {
    node.cli(&["dead-letters", pipeline, "--json"]).ok().lines().len()
}

fn stage(node: &Node, pipeline: &str, stage: &str) -> Value {
    stage_of(&node.show(pipeline), stage)
}

fn stage_of(shown: &Value, stage: &str) -> Value {
    let stages = shown["stages"].as_array().unwrap();
    stages.iter().find(|shown| shown["stage"] == stage).unwrap()["actors"][0].clone()
}

#[test]
fn a_tap_that_reads_nothing_holds_nobody_back_in_flat_memory() {
    let mesh = Mesh::of(1);
    let node = &mesh[0];
    mesh.deploy(
        r#"
name       = "wide"
durability = "page"
retention  = { bytes = "4MiB" }
[source.events]
key = "k"
[stage.odd]
from   = ["events"]
filter = "event.n % 2 == 1"
"#,
    );
    // Two taps: one reads nothing at all, one a byte a second.
    let mut taps: Vec<TcpStream> = ["events", "odd"]
        .iter()
        .map(|stream| {
            let mut tap = TcpStream::connect(&node.http).unwrap();
            let (host, bearer) = (&node.http, &node.bearer);
            let request = format!(
                "GET /v1/streams/wide/{stream}?follow=true HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {bearer}\r\n\r\n"
            );
            tap.write_all(request.as_bytes()).unwrap();
            tap
        })
        .collect();
    let total = events();
    let (mut sent, mut warm) = (0, 0);
    let mut peak = None;
    while sent < total {
        let count = 4000.min(total - sent);
        let lines: String =
            (sent..sent + count).map(|n| format!("{{\"k\":\"K{}\",\"n\":{n}}}\n", n % 50)).collect();
        let sequence = (sent + 1).to_string();
        let headers = [("producer", "p"), ("sequence", sequence.as_str())];
        wait_for("the node takes events", 60, || {
            let answer = node.post("/v1/streams/wide/events", &headers, &lines);
            assert!([200, 429].contains(&answer.status), "{answer:?}");
            (answer.status == 200).then_some(())
        });
        sent += count;
        if peak.is_none() && sent * 5 >= total {
            warm = node.resident_bytes();
            peak = Some(Peak::of(node));
        }
        let mut byte = [0];
        assert!(taps[1].read(&mut byte).unwrap() == 1);
    }
    wait_for("all went through", 60, || {
        let odd = stage(node, "wide", "odd");
        (number(&odd["events_in"]) == total && number(&odd["events_out"]) == total / 2).then_some(())
    });
    let grown = peak.unwrap().bytes().saturating_sub(warm);
    eprintln!(
        "{total} events beside a tap that reads nothing: {} MiB, and {} MiB more at most",
        warm / MIB,
        grown / MIB
    );
    assert!(grown < GROWTH_MAX, "{grown} bytes more memory");
}

#[test]
fn a_source_that_is_a_hundred_times_faster_waits_and_says_so_and_nothing_is_dropped() {
    let mesh = Mesh::of(1);
    let node = &mesh[0];
    // Some milliseconds for an event.
    mesh.deploy(&format!(
        r#"
name      = "slow"
retention = {{ bytes = "1MiB" }}
[source.events]
key = "k"
[stage.work]
from   = ["events"]
wasm   = "{}"
limits = {{ fuel = "1000G" }}
"#,
        guest("trouble").display()
    ));
    let total = 4000;
    let filling = "x".repeat(1000);
    let lines: String = (0..total)
        .map(|n| format!("{{\"k\":\"K{}\",\"n\":{n},\"do\":\"work\",\"x\":\"{filling}\"}}\n", n % 9))
        .collect();
    let file = mesh.write("slow.jsonl", &lines);
    let before = node.resident_bytes();
    let peak = Peak::of(node);
    let mut publishing = node.cli_started(&["publish", "--producer", "p", "slow/events", &file], b"");
    let mut refused = None;
    wait_for("the node asks to wait", 60, || {
        let answer = node.post("/v1/streams/slow/events", &[], "{\"k\":\"a\",\"do\":\"nothing\"}\n");
        if answer.status == 429 {
            refused = Some(answer);
        }
        (refused.is_some() || !publishing.is_running()).then_some(())
    });
    let refused = refused.expect("a 429 while the readers are behind");
    assert!(
        refused.retry_after.as_ref().is_some_and(|seconds| seconds.parse::<u64>().is_ok_and(|it| it >= 1))
    );
    assert!(
        refused.json()["detail"].as_str().unwrap().contains("readers of 'slow/events' are behind"),
        "{refused:?}"
    );
    // What waits is told in events, wherever it waits.
    let (waits, lag, shown) = wait_for("events wait", 60, || {
        let shown = node.show("slow");
        let (source, work) = (stage_of(&shown, "events"), stage_of(&shown, "work"));
        let waits = number(&source["events_out"]) - number(&work["events_in"]);
        (waits > 500).then(|| (waits, number(&work["lag"]), shown))
    });
    assert!(lag.abs_diff(waits) <= waits / 4, "{waits} events wait, lag {lag}: {shown}");
    let output = publishing.wait(300).ok();
    assert!(output.stdout.contains("4000 acknowledged, 0 rejected"), "{output:?}");
    wait_for("all is worked off", 300, || {
        let work = stage(node, "slow", "work");
        (number(&work["lag"]) == 0 && number(&work["events_out"]) >= total).then_some(())
    });
    let worked = node.tail("slow/work").len() as u64;
    assert!(worked >= total, "{worked}");
    assert_eq!(dead_letters(node, "slow"), 0);
    let grown = peak.bytes().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes more memory");
}

fn post(mesh: &Mesh, name: &str, url: &str) -> serde_json::Value {
    mesh.deploy(&format!(
        "name = \"{name}\"\n[source.events]\nkey = \"k\"\n[sink.post]\nfrom = [\"events\"]\nhttp = {{ url = \"{url}\" }}\n"
    ))
}

#[test]
fn a_sink_that_refuses_everything_pauses_and_one_that_refuses_one_goes_on() {
    let mesh = Mesh::of(1);
    let node = &mesh[0];
    let outside = Outside::start(Says::No);
    post(&mesh, "paused", &outside.url);
    let lines: String = (0..50).map(|n| format!("{{\"k\":\"K{n}\",\"n\":{n}}}\n")).collect();
    let file = mesh.write("paused.jsonl", &lines);
    node.cli(&["publish", "paused/events", &file]).ok();
    // Long enough for five tries of each, if it tried them.
    wait_for("it was refused again and again", 60, || (outside.refused() >= 300).then_some(()));
    assert_eq!(dead_letters(node, "paused"), 0, "a sink that refuses everything pauses");
    assert_eq!(number(&stage(node, "paused", "post")["events_in"]), 0, "nothing was taken");
    let trouble = node.show("paused").to_string();
    assert!(trouble.contains("400"), "it says why: {trouble}");
    // What was deployed already is not waited for: it would not become well by that.
    assert_eq!(post(&mesh, "paused", &outside.url)["changed"], false);
    outside.now(Says::Yes);
    wait_for("everything is out", 60, || (outside.taken() == 50).then_some(()));

    outside.now(Says::NoToBad);
    let mut more = String::from("{\"k\":\"x\",\"n\":100,\"what\":\"bad\"}\n");
    (101..140).for_each(|n| more += &format!("{{\"k\":\"K{n}\",\"n\":{n}}}\n"));
    let file = mesh.write("more.jsonl", &more);
    node.cli(&["publish", "paused/events", &file]).ok();
    wait_for("the good ones are out and the bad one is dead", 60, || {
        (outside.taken() == 89 && dead_letters(node, "paused") == 1).then_some(())
    });
    assert!(outside.keys().values().all(|times| *times == 1), "each once");
}

#[test]
fn sinks_that_are_never_answered_hold_up_only_themselves() {
    let mesh = Mesh::of(1);
    let node = &mesh[0];
    let outside = Outside::start(Says::Nothing);
    mesh.deploy(&calm_pipeline("calm"));
    let mut probe = Probe::start(node, "calm");
    let before = probe.measure_events(100);
    // More of them than the machine has cores.
    let sinks = 2 * std::thread::available_parallelism().map_or(2, usize::from);
    for n in 0..sinks {
        post(&mesh, &format!("stuck{n}"), &outside.url);
        let file = mesh.write("one.jsonl", "{\"k\":\"a\",\"n\":1}\n{\"k\":\"b\",\"n\":2}\n");
        node.cli(&["publish", &format!("stuck{n}/events"), &file]).ok();
    }
    let during = probe.measure_events(200);
    eprintln!("beside {sinks} stuck sinks: alone {before}; meanwhile {during}");
    assert!(during.p99 < P99_MAX, "{during}, alone {before}");
    outside.now(Says::Yes);
    wait_for("everything is out", 90, || (outside.taken() == 2 * sinks as u64).then_some(()));
}
