//! `memory` and `page` may lose a tail to a power loss: what is left is unbroken, readers that were
//! further fall back by rule, and it is said.

use std::fs;

use dunlin_tests::{Mesh, Node, guest, wait_for};
use serde_json::Value;

use crate::counting::{counts, number};

const EVENTS: u64 = 900;
/// What a segment begins with.
const HEADER: u64 = 72;

fn pipeline(name: &str, durability: &str) -> String {
    format!(
        r#"
name       = "{name}"
durability = "{durability}"
[source.events]
key = "k"
[stage.seen]
from = ["events"]
key  = "k"
wasm = "{}"
[placement.seen]
shares = 1
labels = {{ n = "1" }}
"#,
        guest("count").display()
    )
}

fn counter(node: &Node, name: &str) -> u64 {
    let text = node.get("/metrics").body;
    let line =
        text.lines().find_map(|line| line.strip_prefix(&format!("dunlin_{name}_total ")).map(str::to_string));
    line.map_or(0, |number| number.parse().unwrap())
}

/// A power loss takes what was not synced: here all behind this part of the file, in the middle of a record.
fn lose_tail(segment: &std::path::Path) {
    let length = fs::metadata(segment).unwrap().len();
    let kept = HEADER + (length - HEADER) * 3 / 5;
    fs::OpenOptions::new().write(true).open(segment).unwrap().set_len(kept).unwrap();
}

#[track_caller]
fn check(durability: &str) {
    let mut mesh = Mesh::of(2);
    mesh.deploy(&pipeline("tail", durability));
    let line = |n: u64| format!("{{\"k\":\"K{}\",\"n\":{n}}}\n", n % 3);
    for first in (0..EVENTS).step_by(30) {
        let lines: String = (first..first + 30).map(line).collect();
        let sequence = (first + 1).to_string();
        let headers = [("producer", "p"), ("sequence", sequence.as_str())];
        let answer = mesh[0].post("/v1/streams/tail/events", &headers, &lines);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let total = |mesh: &Mesh| counts(&mesh[1], "tail").map_or(0, |counts| counts.values().sum::<u64>());
    wait_for("the reader has all", 60, || (total(&mesh) == EVENTS).then_some(()));
    let shown = mesh[0].show("tail");
    let stages = shown["stages"].as_array().unwrap();
    let source =
        stages.iter().find(|stage| stage["stage"] == "events").unwrap()["actors"][0]["actor"].clone();
    mesh[0].kill();
    let folder = mesh[0].data().join("logs").join(source.as_str().unwrap());
    let segment = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|it| it == "seg"))
        .unwrap();
    lose_tail(&segment);
    mesh[0].start();
    mesh.meet();

    let left = |mesh: &Mesh| -> Vec<u64> {
        let events: Vec<Value> = mesh[0].tail("tail/events");
        events.iter().map(|event| number(&event["payload"]["n"])).collect()
    };
    let kept = left(&mesh).len() as u64;
    assert_eq!(left(&mesh), (0..kept).collect::<Vec<u64>>(), "{durability}: a tail is lost, never a middle");
    assert!(kept > 0 && kept < EVENTS, "{durability}: {kept} are left");
    assert!(mesh[0].logged().contains("a torn tail was cut"), "{durability}");
    wait_for("the reader says that it fell back", 30, || (counter(&mesh[1], "tail_lost") > 0).then_some(()));

    // A publisher that goes on behind what was lost is told where to begin, not believed.
    let sequence = (EVENTS + 1).to_string();
    let headers = [("producer", "p"), ("sequence", sequence.as_str())];
    let refused = mesh[0].post("/v1/streams/tail/events", &headers, &line(EVENTS));
    assert_eq!(refused.status, 409, "{durability}: {refused:?}");
    assert!(refused.body.contains(&(kept + 1).to_string()), "{durability}: {refused:?}");
    // The same file again brings what is missing, and only that.
    let file = mesh.write("all.jsonl", &(0..EVENTS).map(line).collect::<String>());
    let again = mesh[0].cli(&["publish", "--json", "--producer", "p", "tail/events", &file]).ok().json();
    assert_eq!(number(&again["rejected"]), 0, "{durability}");
    assert_eq!(left(&mesh), (0..EVENTS).collect::<Vec<u64>>(), "{durability}");
    // What the reader had counted of the lost tail may count again: reported above, bounded by it.
    let lost = EVENTS - kept;
    wait_for("the reader has what was sent again", 60, || (total(&mesh) >= EVENTS + lost).then_some(()));
    assert_eq!(total(&mesh), EVENTS + lost, "{durability}");
}

#[test]
fn memory_loses_at_most_a_tail_and_readers_fall_back() {
    check("memory");
}

#[test]
fn page_loses_at_most_a_tail_and_readers_fall_back() {
    check("page");
}
