//! A stalled reader holds its writer back, memory stays flat, nodes end at once, removing frees.

use std::time::Duration;

use dunlin_tests::{Mesh, Node, wait_for};

use crate::counting::{number, pipeline};
use crate::outside::{Outside, Says};

const MIB: u64 = 1 << 20;
/// `retention.bytes` of the pipelines here.
const RETENTION: u64 = 2 * MIB;
/// How much a node's memory may grow while its publishers are refused.
const GROWTH_MAX: u64 = 48 * MIB;
const REQUEST_EVENTS: u64 = 100;
/// From each node, to be removed again.
const EVENTS: u64 = 30_000;

/// Requests of events with about a KiB each.
struct Publisher<'a> {
    node: &'a Node,
    path: &'a str,
    next: u64,
}

impl Publisher<'_> {
    /// One request; false when the node asks to wait.
    fn send(&mut self) -> bool {
        let filling = "x".repeat(1000);
        let line = |n| format!("{{\"k\":\"K{}\",\"n\":{n},\"x\":\"{filling}\"}}\n", n % 10);
        let lines: String = (self.next..self.next + REQUEST_EVENTS).map(line).collect();
        let sequence = (self.next + 1).to_string();
        let answer = self.node.post(self.path, &[("producer", "p"), ("sequence", &sequence)], &lines);
        match answer.status {
            200 => {
                assert_eq!(number(&answer.json()["acknowledged"]), REQUEST_EVENTS);
                self.next += REQUEST_EVENTS;
                true
            }
            429 => {
                let seconds: u64 = answer.retry_after.as_ref().expect("Retry-After").parse().unwrap();
                assert!(seconds >= 1 && answer.content_type == "application/problem+json", "{answer:?}");
                false
            }
            _ => panic!("{answer:?}"),
        }
    }

    /// Publishes until the node asks to wait for its reader (not only for its disk).
    fn fill(&mut self) {
        wait_for("the node asks to wait", 60, || (0..20).all(|_| !self.send()).then_some(()));
        let bytes = self.next * 1024;
        // What the reader took into its memory before it stalled counts as read.
        assert!((RETENTION / 2..=RETENTION + 3 * MIB).contains(&bytes), "{bytes} bytes were taken");
    }
}

#[test]
fn a_frozen_reader_blocks_publishers_in_flat_memory_until_it_thaws() {
    let mesh = Mesh::of(2);
    mesh.deploy(
        r#"
name       = "stall"
durability = "page"
retention  = { bytes = "2MiB" }
[source.events]
key = "k"
[stage.far]
from   = ["events"]
key    = "k"
learn  = { target = "n", after = "1h", features = ["n"] }
[placement.far]
labels = { n = "1" }
"#,
    );
    let mut publisher = Publisher { node: &mesh[0], path: "/v1/streams/stall/events", next: 0 };
    assert!(publisher.send());
    wait_for("it flows", 30, || (!mesh[1].tail("stall/far").is_empty()).then_some(()));
    mesh[1].freeze();
    publisher.fill();
    let before = mesh[0].resident_bytes();
    let taken = publisher.next;
    for _ in 0..300 {
        publisher.send();
    }
    let grown = mesh[0].resident_bytes().saturating_sub(before);
    assert!(publisher.next == taken, "{} more events were taken", publisher.next - taken);
    assert!(grown < GROWTH_MAX, "{grown} bytes more memory");

    mesh[1].thaw();
    wait_for("publishing goes on", 60, || publisher.send().then_some(()));
    let events = publisher.next;
    let read = || mesh[1].tail("stall/far").len() as u64;
    wait_for("everything is predicted", 60, || (read() >= events).then_some(()));
    assert_eq!(read(), events);
}

#[test]
fn an_http_sink_that_is_not_answered_blocks_publishers_and_nothing_is_lost() {
    let mesh = Mesh::of(1);
    let outside = Outside::start(Says::Nothing);
    mesh.deploy(&format!(
        r#"
name       = "out"
durability = "page"
retention  = {{ bytes = "2MiB" }}
[source.events]
key = "k"
[sink.post]
from = ["events"]
http = {{ url = "{}" }}
"#,
        outside.url
    ));
    let mut publisher = Publisher { node: &mesh[0], path: "/v1/streams/out/events", next: 0 };
    publisher.fill();
    let before = mesh[0].resident_bytes();
    for _ in 0..100 {
        assert!(!publisher.send());
    }
    assert!(mesh[0].resident_bytes().saturating_sub(before) < GROWTH_MAX);
    // The command waits as well, and tells a person so.
    let waiting = mesh[0].cli_started(&["publish", "out/events"], b"{\"k\":\"a\"}\n{\"k\":\"b\"}\n");
    wait_for("the command says that it waits", 60, || waiting.said().contains("waiting: ").then_some(()));
    outside.now(Says::Yes);
    let output = waiting.wait(90).ok();
    assert!(output.stdout.contains("2 acknowledged, 0 rejected"), "{output:?}");
    wait_for("publishing goes on", 90, || publisher.send().then_some(()));
    let events = publisher.next + 2;
    wait_for("everything is out", 90, || (outside.taken() >= events).then_some(()));
    assert_eq!(outside.taken(), events, "each event has one key");
}

#[test]
fn sigterm_ends_a_node_at_once_whatever_is_open() {
    let mut mesh = Mesh::of(2);
    mesh.deploy(&pipeline("busy", ""));
    let mut tail = mesh[0].cli_started(&["tail", "busy/ordered", "--follow"], b"");
    let lines: String =
        (0..20_000).map(|n| format!("{{\"flight\":\"F{}\",\"price\":1,\"n\":{n}}}\n", n % 9)).collect();
    let publishing = mesh[1].cli_started(&["publish", "busy/events"], lines.as_bytes());
    wait_for("it is at work", 60, || (!mesh[0].tail("busy/ordered").is_empty()).then_some(()));
    assert!(tail.is_running());
    for at in [0, 1] {
        let took = mesh[at].stop();
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    tail.wait(10);
    publishing.wait(10);
}

#[test]
fn the_same_file_changes_nothing_and_remove_frees_everything() {
    let mesh = Mesh::of(3);
    let told = |node: &Node| number(&node.status()["disk_bytes"]);
    let text = pipeline("gone", "");
    let deployed = mesh.deploy(&text);
    assert_eq!((&deployed["pipeline"], &deployed["changed"]), (&"gone".into(), &true.into()));
    let again = mesh.deploy(&text);
    assert_eq!((&again["changed"], &again["revision"]), (&false.into(), &deployed["revision"]));
    let empty: Vec<u64> = mesh.iter().map(Node::disk_in_use).collect();
    let lines: String = (0..EVENTS)
        .map(|n| format!("{{\"flight\":\"F{}\",\"price\":1,\"n\":{n},\"x\":\"{n:0200}\"}}\n", n % 9))
        .collect();
    let file = mesh.write("gone.jsonl", &lines);
    for node in mesh.iter() {
        node.cli(&["publish", "gone/events", &file]).ok();
    }
    mesh.wait_until_through("gone", "ordered", 3 * EVENTS / 4 * 3);
    assert!(mesh.iter().all(|node| node.logs_of("gone") > 0));
    let full: Vec<u64> = mesh.iter().map(Node::disk_in_use).collect();
    for ((node, empty), full) in mesh.iter().zip(&empty).zip(&full) {
        assert!(*full > empty + 5 * MIB, "{empty} bytes before, {full} now");
        wait_for("the node tells its disk as it is", 30, || {
            (told(node).abs_diff(node.disk_in_use()) < MIB).then_some(())
        });
    }

    // Somebody who follows is told, and is not left waiting.
    let follower = mesh[0].cli_started(&["tail", "gone/ordered", "--follow"], b"");
    mesh[2].cli(&["remove", "gone"]).ok();
    let told_so = follower.wait(30);
    assert_eq!(told_so.code, Some(1), "{}", told_so.stderr);
    assert!(told_so.stderr.contains("pipeline 'gone' was removed"), "{}", told_so.stderr);
    for ((node, empty), full) in mesh.iter().zip(&empty).zip(&full) {
        wait_for("its actors end", 30, || {
            let nodes = node.get("/v1/nodes").json();
            nodes.as_array().unwrap().iter().all(|node| number(&node["actors"]) == 0).then_some(())
        });
        wait_for("its logs go", 30, || (node.logs_of("gone") == 0).then_some(()));
        let freed = || (node.disk_in_use() < empty + MIB && told(node) < empty + MIB).then_some(());
        if dunlin_tests::try_for(30, freed).is_none() {
            panic!("{empty} bytes before, {full} full, {} left, {} told", node.disk_in_use(), told(node));
        }
        assert_eq!(node.get("/v1/pipelines").json(), serde_json::json!([]));
        assert_eq!(node.get("/v1/streams/gone/seen").status, 404);
    }
    // The name is free for something new.
    assert_eq!(mesh.deploy(&text)["changed"], true);
    assert!(mesh[0].tail("gone/ordered").is_empty());
}
