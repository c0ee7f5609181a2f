//! An attack on a node, beside a probe that must not suffer.

use std::time::Duration;

use dunlin_protocol::id::NodeId;
use dunlin_protocol::time::Time;
use dunlin_protocol::wire::token::Token;
use dunlin_tests::{Mesh, Node, wait_for};
use tokio::runtime::Runtime;

use crate::latency::{Peak, Probe, calm_pipeline};

const MEMORY_MAX: u64 = 768 << 20;
const P99_MAX: Duration = Duration::from_secs(10);

pub fn mesh() -> Mesh {
    let mesh = Mesh::of(2);
    mesh.deploy(&calm_pipeline("calm"));
    // A first event bears each node's source log.
    for node in mesh.iter() {
        wait_for("the node takes an event", 30, || {
            (node.post("/v1/streams/calm/events", &[], "{\"k\":\"a\"}\n").status == 200).then_some(())
        });
    }
    mesh
}

/// Runs `attack` beside the probe, and says how the probe fared.
#[track_caller]
pub fn beside(node: &Node, what: &str, attack: impl FnOnce() + Send) {
    let mut probe = Probe::start(node, "calm");
    let before = probe.measure_events(100);
    let peak = Peak::of(node);
    let during = std::thread::scope(|scope| {
        let attacking = scope.spawn(attack);
        let during = probe.measure(Duration::from_millis(10), || attacking.is_finished());
        attacking.join().expect("the attack itself failed: its reason is above");
        during
    });
    let most = peak.bytes();
    eprintln!("{what}: alone {before}; meanwhile {during}; most memory {} MiB", most >> 20);
    assert!(during.p99 < P99_MAX, "{what}: {during}, alone {before}");
    assert!(most < MEMORY_MAX, "{what}: {most} bytes");
    assert_eq!(node.get("/healthz").status, 200, "{what}");
    assert!(!node.logged().contains("panicked"), "{what}");
}

/// A counter of `/metrics`; 0 when it was never counted.
pub fn counter(node: &Node, name: &str) -> u64 {
    let text = node.get("/metrics").body;
    let line =
        text.lines().find_map(|line| line.strip_prefix(&format!("dunlin_{name}_total ")).map(str::to_string));
    line.map_or(0, |number| number.parse().unwrap())
}

/// Counters are shown a few seconds late.
#[track_caller]
pub fn wait_until_counted(node: &Node, name: &str, least: u64) {
    wait_for(&format!("{name} counts {least}"), 60, || (counter(node, name) >= least).then_some(()));
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub fn token(node: &Node) -> Token {
    Token::parse(&node.token(), Time(0)).unwrap()
}

pub fn node_id(node: &Node) -> NodeId {
    node.id.parse().unwrap()
}
pub fn log_of(node: &Node, stage: &str) -> String {
    let shown = node.show("calm");
    let stages = shown["stages"].as_array().unwrap();
    let stage = stages.iter().find(|shown| shown["stage"] == stage).unwrap();
    let actors = stage["actors"].as_array().unwrap();
    let own = actors.iter().find(|actor| actor["node"] == node.id.as_str()).unwrap_or(&actors[0]);
    own["actor"].as_str().unwrap().to_string()
}
