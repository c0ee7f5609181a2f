//! A pipeline whose outcome can be counted: filter, WASM, keyed stages, and the events for it.

use std::collections::BTreeMap;
use std::fmt::Write;

use dunlin_tests::{Mesh, Node, guest, wait_for};
use serde_json::Value;

const SETTLE_S: u64 = 90;

/// Three of four events pass `most`; `clean` (WASM) passes them on; `seen` counts them by key, and
/// `ordered` repeats them by key, so that their order can be read.
pub fn pipeline(name: &str, more: &str) -> String {
    let (clean, count) = (guest("clean"), guest("count"));
    let (clean, count) = (clean.display(), count.display());
    format!(
        r#"
name = "{name}"
{more}
[source.events]
key = "flight"

[stage.most]
from   = ["events"]
filter = "event.n % 4 != 0"

[stage.clean]
from = ["most"]
wasm = "{clean}"

[stage.seen]
from = ["clean"]
key  = "flight"
wasm = "{count}"

[stage.ordered]
from = ["clean"]
key  = "flight"
wasm = "{clean}"

[placement.clean]
spread = true

[placement.seen]
shares = 6
"#
    )
}

/// What was published where, and what has to come of it.
#[derive(Debug, Default)]
pub struct Ledger {
    keys: u64,
    /// The next `n` of each publisher.
    next: BTreeMap<usize, u64>,
    expected: BTreeMap<String, u64>,
}

impl Ledger {
    pub fn over(keys: u64) -> Ledger {
        Ledger { keys, ..Ledger::default() }
    }

    /// The next events of a publisher, as lines.
    pub fn write(&mut self, publisher: usize, count: u64) -> String {
        let next = self.next.entry(publisher).or_insert(0);
        let mut lines = String::new();
        for n in *next..*next + count {
            let flight = format!("F{}", (n * 7 + n / 11) % self.keys);
            let price = 50.0 + (n % 100) as f64;
            writeln!(lines, r#"{{"flight":"{flight}","price":{price},"from":{publisher},"n":{n}}}"#).unwrap();
            if n % 4 != 0 {
                *self.expected.entry(flight).or_insert(0) += 1;
            }
        }
        *next += count;
        lines
    }

    /// Takes over what another one has written.
    pub fn add(&mut self, other: Ledger) {
        for (publisher, next) in other.next {
            let before = self.next.insert(publisher, next);
            assert!(before.is_none_or(|before| before <= next), "publisher {publisher} goes back");
        }
        for (key, count) in other.expected {
            *self.expected.entry(key).or_insert(0) += count;
        }
    }

    pub fn passing(&self) -> u64 {
        self.expected.values().sum()
    }

    /// Waits until the keyed stage has counted as much as it must, then looks for too much.
    #[track_caller]
    pub fn check_counts(&self, node: &Node, pipeline: &str) {
        let mut last = BTreeMap::new();
        let whole = dunlin_tests::try_for(SETTLE_S, || {
            last = counts(node, pipeline)?;
            (last.values().sum::<u64>() >= self.passing()).then_some(())
        });
        let sum: u64 = last.values().sum();
        assert!(whole.is_some(), "{sum} of {} after {SETTLE_S} s: {}", self.passing(), node.show(pipeline));
        assert_eq!(last, self.expected);
    }

    /// Waits until `ordered` holds all; checks that each publisher's events of a key come in order,
    /// each once. Answers with the ids of all events, in the tail's order.
    #[track_caller]
    pub fn check_order(&self, node: &Node, pipeline: &str) -> Vec<String> {
        let stream = format!("{pipeline}/ordered");
        let passing = self.passing() as usize;
        wait_for("the ordered stage has given out all", SETTLE_S, || {
            (out(node, pipeline, "ordered") >= self.passing()).then_some(())
        });
        let events = node.tail(&stream);
        assert_eq!(events.len(), passing);
        let mut last: BTreeMap<(u64, String), u64> = BTreeMap::new();
        for event in &events {
            let (from, n) = (number(&event["payload"]["from"]), number(&event["payload"]["n"]));
            let key = (from, event["key"].as_str().unwrap().to_string());
            let before = last.insert(key, n);
            assert!(before.is_none_or(|before| before < n), "{event} behind {before:?}");
        }
        events.iter().map(|event| event["id"].as_str().unwrap().to_string()).collect()
    }
}

/// The events that a stage's actors gave out.
fn out(node: &Node, pipeline: &str, stage: &str) -> u64 {
    let shown = node.show(pipeline);
    let Some(stages) = shown["stages"].as_array() else { return 0 };
    let actors = stages.iter().filter(|shown| shown["stage"] == stage);
    actors
        .flat_map(|stage| stage["actors"].as_array().unwrap())
        .map(|actor| number(&actor["events_out"]))
        .sum()
}

/// `dunlin state PIPELINE/seen`; None while a node that holds a part of it is away.
pub fn counts(node: &Node, pipeline: &str) -> Option<BTreeMap<String, u64>> {
    let answer = node.get(&format!("/v1/state/{pipeline}/seen?limit=10000"));
    let entries: Vec<Value> = (answer.status == 200).then(|| serde_json::from_str(&answer.body).unwrap())?;
    Some(
        entries
            .iter()
            .map(|entry| (entry["key"].as_str().unwrap().to_string(), number(&entry["value"])))
            .collect(),
    )
}

pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no count: {value}"))
}

/// Publishes lines at one node of the mesh as a producer; everything has to be acknowledged.
#[track_caller]
pub fn publish(mesh: &Mesh, at: usize, target: &str, producer: &str, lines: &str) {
    let file = mesh.write(&format!("{producer}-{}.jsonl", lines.len()), lines);
    let taken = mesh[at].cli(&["publish", "--json", "--producer", producer, target, &file]).ok().json();
    assert_eq!(
        (number(&taken["acknowledged"]), number(&taken["rejected"])),
        (lines.lines().count() as u64, 0)
    );
}
