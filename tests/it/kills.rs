//! `kill -9` at random moments and at every labelled point of the commit path, while publishers go
//! on: what was acknowledged is counted, once, under the id that it had.
//!
//! `DUNLIN_TESTS_SOAK_S=3600` makes the random kills go on for an hour.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use dunlin::crash::Point;
use dunlin_tests::{Mesh, Node, wait_for};
use serde_json::Value;

use crate::chance::Chance;
use crate::counting::{Ledger, number, pipeline};
use crate::feeder::Feeder;

const KEYS: u64 = 31;
const ROUNDS: u64 = 20;
/// Every so many rounds all nodes die at once.
const ALL_EVERY: u64 = 5;
/// Every so many rounds all that was given out so far is read again.
const READ_EVERY: u64 = 5;
const RANDOM_MS: u64 = 700;
/// Times that a node passes a point before it dies there.
const PASSES: u64 = 25;

/// `counting`'s pipeline, and a file on the first node with every event that passes.
fn with_file(name: &str, retention: &str) -> String {
    let sink = "\n[sink.lines]\nfrom = [\"clean\"]\nfile = { path = \"lines.jsonl\" }\n";
    pipeline(name, retention) + sink + "[placement.lines]\nlabels = { n = \"0\" }\n"
}

/// Every event that was ever seen keeps its id, and no event has two.
#[derive(Debug, Default)]
struct Ids(BTreeMap<(u64, u64), String>);

impl Ids {
    #[track_caller]
    fn read(&mut self, node: &Node, pipeline: &str) {
        let events = node.tail(&format!("{pipeline}/ordered"));
        let mut now = BTreeMap::new();
        for event in &events {
            let id = event["id"].as_str().unwrap().to_string();
            let twice = now.insert(identity(event), id);
            assert_eq!(twice, None, "{event} is there twice");
        }
        for (event, id) in &self.0 {
            assert_eq!(now.get(event), Some(id), "{event:?} had another id before");
        }
        self.0 = now;
    }
}

/// (publisher, number): what the ledger wrote into the payload.
fn identity(event: &Value) -> (u64, u64) {
    (number(&event["payload"]["from"]), number(&event["payload"]["n"]))
}

/// Waits until the file holds every passing event, each once.
#[track_caller]
fn check_file(node: &Node, ledger: &Ledger) {
    let path = node.data().join("lines.jsonl");
    let lines = || fs::read_to_string(&path).unwrap_or_default();
    wait_for("the file sink has written all", 60, || {
        (lines().lines().count() as u64 >= ledger.passing()).then_some(())
    });
    let mut seen = BTreeMap::new();
    for line in lines().lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
        let twice = seen.insert(identity(&event), line.to_string());
        assert_eq!(twice, None, "{line} is there twice");
    }
    assert_eq!(seen.len() as u64, ledger.passing());
}

fn soak() -> Option<Duration> {
    let seconds = env::var("DUNLIN_TESTS_SOAK_S").ok()?;
    Some(Duration::from_secs(seconds.parse().expect("DUNLIN_TESTS_SOAK_S is a number of seconds")))
}

fn start_all(mesh: &mut Mesh, which: &[usize]) {
    for node in which {
        mesh[*node].launch();
    }
    for node in which {
        mesh[*node].wait_until_ready();
    }
}

#[test]
fn nodes_that_die_at_random_lose_nothing_and_count_nothing_twice() {
    let soak = soak();
    let pace = Duration::from_millis(if soak.is_some() { 400 } else { 50 });
    let mut chance = Chance::new("random kills");
    let mut mesh = Mesh::of(3);
    mesh.deploy(&with_file("random", ""));
    let feeders: Vec<Feeder> = (0..3).map(|at| Feeder::start(&mesh[at], "random", at, KEYS, pace)).collect();
    let mut ids = Ids::default();
    let began = Instant::now();
    let mut round = 0;
    while round < ROUNDS || soak.is_some_and(|soak| began.elapsed() < soak) {
        round += 1;
        // A random moment, not a wait for something.
        thread::sleep(Duration::from_millis(chance.below(RANDOM_MS)));
        let victims: Vec<usize> = match round.is_multiple_of(ALL_EVERY) {
            true => vec![0, 1, 2],
            false => vec![chance.below(3) as usize],
        };
        for victim in &victims {
            mesh[*victim].kill();
        }
        start_all(&mut mesh, &victims);
        if round.is_multiple_of(READ_EVERY) && soak.is_none() {
            ids.read(&mesh[(round % 3) as usize], "random");
        }
    }
    let mut ledger = Ledger::over(KEYS);
    feeders.into_iter().for_each(|feeder| ledger.add(feeder.end()));
    mesh.meet();
    ledger.check_counts(&mesh[0], "random");
    ids.read(&mesh[1], "random");
    ledger.check_order(&mesh[2], "random");
    check_file(&mesh[0], &ledger);
    eprintln!("{round} rounds of kills, {} events, {:.0?}", ledger.passing(), began.elapsed());
}

#[test]
fn a_node_that_dies_at_a_labelled_point_loses_nothing_and_counts_nothing_twice() {
    if !cfg!(debug_assertions) {
        eprintln!("not checked: only debug builds can be told where to die");
        return;
    }
    let mut chance = Chance::new("labelled kills");
    let mut mesh = Mesh::of(3);
    // The small retention makes snapshots frequent.
    mesh.deploy(&with_file("labelled", "retention = { bytes = \"2MiB\" }"));
    let feeders: Vec<Feeder> =
        (0..3).map(|at| Feeder::start(&mesh[at], "labelled", at, KEYS, Duration::from_millis(50))).collect();
    for (round, point) in (0..).zip(Point::ALL) {
        let (victim, passes) = match point {
            // Segments are too large to end within this test: see `housekeeping` below.
            Point::BeforeTruncate | Point::AfterTruncate => continue,
            // New logs only.
            Point::HalfBorn | Point::HalfSegment => (round % 3, 1),
            Point::HalfSink | Point::AfterSink => (0, 1 + chance.below(5)),
            Point::HalfSnapshot | Point::AfterSnapshot => (round % 3, 1),
            _ => (round % 3, 1 + chance.below(PASSES)),
        };
        mesh[victim].kill();
        mesh[victim].launch_doomed(point, passes);
        let new_logs = matches!(point, Point::HalfBorn | Point::HalfSegment);
        let deploying = new_logs.then(|| {
            // Only a node that is there is given an actor.
            mesh[victim].wait_until_ready();
            mesh.meet();
            let file = mesh.write(&format!("new{round}.toml"), &pipeline(&format!("new{round}"), ""));
            mesh[(victim + 1) % 3].cli_started(&["deploy", &file], b"")
        });
        let label = point.label();
        wait_for(&format!("node {victim} dies at {label}, pass {passes}"), 60, || {
            mesh[victim].was_killed().then_some(())
        });
        mesh[victim].start();
        if let Some(deploying) = deploying {
            // Whatever became of the first try, the second one stands.
            drop(deploying);
            wait_for("the deploy goes through", 60, || {
                let file = mesh.file(&format!("new{round}.toml")).display().to_string();
                (mesh[(victim + 1) % 3].cli(&["deploy", &file]).code == Some(0)).then_some(())
            });
        }
    }
    let mut ledger = Ledger::over(KEYS);
    feeders.into_iter().for_each(|feeder| ledger.add(feeder.end()));
    mesh.meet();
    ledger.check_counts(&mesh[0], "labelled");
    check_file(&mesh[0], &ledger);
    ledger.check_order(&mesh[2], "labelled");
}

#[test]
fn a_node_that_dies_while_it_drops_old_segments_loses_nothing() {
    if !cfg!(debug_assertions) {
        eprintln!("not checked: only debug builds can be told where to die");
        return;
    }
    let mut mesh = Mesh::of(1);
    let text = r#"
name       = "housekeeping"
durability = "page"
retention  = { bytes = "1MiB" }
[source.events]
key = "k"
[sink.lines]
from = ["events"]
file = { path = "lines.jsonl" }
"#;
    mesh.deploy(text);
    let filling = "x".repeat(4000);
    let mut written = 0;
    for point in [Point::BeforeTruncate, Point::AfterTruncate] {
        mesh[0].kill();
        mesh[0].launch_doomed(point, 1);
        // More than a segment.
        let lines: String = (written..written + 6000)
            .map(|n| format!("{{\"k\":\"a\",\"from\":0,\"n\":{n},\"x\":\"{filling}\"}}\n"))
            .collect();
        let file = mesh.write(&format!("{}.jsonl", point.label()), &lines);
        written += 6000;
        let producer = point.label();
        let publishing =
            mesh[0].cli_started(&["publish", "--producer", producer, "housekeeping/events", &file], b"");
        wait_for(&format!("the node dies at {}", point.label()), 90, || mesh[0].was_killed().then_some(()));
        mesh[0].start();
        publishing.wait(240).ok();
    }
    let path = mesh[0].data().join("lines.jsonl");
    let mut numbers = Vec::new();
    wait_for("all lines are out", 60, || {
        let text = fs::read_to_string(&path).ok()?;
        let event = |line: &str| serde_json::from_str::<Value>(line).ok();
        numbers = text.lines().filter_map(event).map(|event| number(&event["payload"]["n"])).collect();
        (numbers.len() as u64 >= written).then_some(())
    });
    numbers.sort_unstable();
    assert_eq!(numbers, (0..written).collect::<Vec<u64>>());
}
