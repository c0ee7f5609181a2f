//! Many nodes tap one stream: it goes to them by gossip, every event once to each, whatever becomes of some
//! of them meanwhile.

use dunlin_tests::{Mesh, Node, Output, Running, wait_for};

use crate::counting::number;

const PIPELINE: &str = r#"
name = "fan"
[source.events]
key = "k"
"#;
/// The writer's node, and as many others as gossip is for.
const NODES: usize = 7;
const ALL: u64 = 900;

fn publish(node: &Node, from: u64, to: u64) {
    let lines: String = (from..to).map(|n| format!("{{\"k\":\"a\",\"n\":{n}}}\n")).collect();
    let answer = node.post("/v1/streams/fan/events", &[], &lines);
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn tap(node: &Node) -> Running {
    let limit = ALL.to_string();
    node.cli_started(&["tail", "fan/events", "--from", "start", "--follow", "--limit", &limit, "--json"], b"")
}

/// How the stream goes to the nodes that tap it, as its writer's node shows it.
#[track_caller]
fn wait_until_by_gossip(node: &Node, to: u64) {
    wait_for("the stream goes by gossip", 60, || {
        let shown = node.show("fan");
        let stage = shown["stages"].as_array()?.iter().find(|stage| stage["stage"] == "events")?.clone();
        (stage["fan_out"] == "gossip" && stage["gossip_nodes"].as_u64() == Some(to)).then_some(())
    });
}

fn counted(node: &Node, what: &str) -> u64 {
    let metrics = node.get("/metrics").body;
    let line = metrics.lines().find(|line| line.starts_with(&format!("dunlin_{what}_total ")));
    line.and_then(|line| line.split_whitespace().last()?.parse::<f64>().ok()).unwrap_or(0.0) as u64
}

/// What is broadcast before every node is among the topic's neighbours goes directly after all, and for a
/// while: event by event until one is broadcast, and then the rest.
#[track_caller]
fn publish_by_gossip(node: &Node, from: u64, to: u64) {
    let before = counted(node, "broadcasts_out");
    let mut next = from;
    wait_for("something is broadcast", 60, || {
        if counted(node, "broadcasts_out") > before {
            return Some(());
        }
        wait_until_by_gossip(node, NODES as u64 - 1);
        assert!(next < to, "nothing was broadcast of {} events", to - from);
        publish(node, next, next + 1);
        next += 1;
        None
    });
    publish(node, next, to);
}

#[track_caller]
fn check(output: Output) {
    let shown: Vec<u64> = output.ok().lines().iter().map(|event| number(&event["payload"]["n"])).collect();
    assert_eq!(shown, (0..ALL).collect::<Vec<u64>>());
}

#[test]
fn many_nodes_get_a_stream_by_gossip_and_fill_what_they_lack() {
    let mut mesh = Mesh::of(NODES);
    mesh.deploy(PIPELINE);
    publish(&mesh[0], 0, 100);
    let mut taps: Vec<Running> = mesh[1..].iter().map(tap).collect();
    wait_until_by_gossip(&mesh[0], NODES as u64 - 1);
    let table = mesh[0].cli(&["show", "fan"]).ok().stdout;
    assert!(table.contains("gossip to 6 nodes"), "{table}");
    publish_by_gossip(&mesh[0], 100, 300);

    // One stands still until its connections are given up, another one dies.
    mesh[2].freeze();
    mesh[5].kill();
    taps.remove(4);
    for from in (300..600).step_by(10) {
        publish(&mesh[0], from, from + 10);
    }
    wait_for("the frozen node counts as gone", 60, || {
        let nodes = mesh[0].get("/v1/nodes").body;
        (nodes.matches(r#""state":"alive""#).count() == NODES - 2).then_some(())
    });
    mesh[2].thaw();
    mesh[5].start();
    taps.push(tap(&mesh[5]));
    publish_by_gossip(&mesh[0], 600, ALL);
    for tap in taps {
        check(tap.wait(60));
    }
}

#[test]
fn few_nodes_get_a_stream_directly() {
    let mesh = Mesh::of(3);
    mesh.deploy(PIPELINE);
    let taps: Vec<Running> = mesh[1..].iter().map(tap).collect();
    publish(&mesh[0], 0, ALL);
    taps.into_iter().for_each(|tap| check(tap.wait(60)));
    assert!(mesh[0].cli(&["show", "fan"]).ok().stdout.contains("direct"));
    assert_eq!(counted(&mesh[0], "broadcasts_out"), 0);
}
