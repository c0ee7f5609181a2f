//! A data folder that an earlier version wrote must load in every later one: nothing of it is lost,
//! ids stay, producers are known, and it goes on from there.
//!
//! `tests/fixtures/data-N.hex` is such a folder, a file a line (`PATH: BYTES`, in hexadecimal), and
//! `data-N.jsonl` what it held. They are made once for each format, by
//!
//! ```text
//! DUNLIN_TESTS_MAKE_FIXTURE=1 cargo test -p dunlin-tests old_formats
//! ```
//!
//! and never again: a fixture that no longer loads is a broken promise, not an old file. The bytes of
//! the wire are pinned by the golden bytes of `protocol/src/wire/golden.rs`.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use dunlin_tests::{Launch, Node, repository, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::counting::number;

/// The format that this version writes.
const FORMAT: u32 = 1;
const EVENTS: u64 = 12;
/// What is rebuilt or made anew is no part of a fixture.
const LEFT_OUT: [&str; 4] = ["state", "cache", "lock", "modules"];

const PIPELINE: &str = r#"
name = "old"
[source.events]
key  = "k"
time = "at"
[stage.odd]
from   = ["events"]
filter = "event.n % 2 == 1"
[stage.guess]
from  = ["odd"]
key   = "k"
learn = { target = "n", after = "1h", features = ["n"] }
[sink.lines]
from = ["odd"]
file = { path = "lines.jsonl" }
[placement.guess]
shares = 1
"#;

fn fixture(format: u32, extension: &str) -> PathBuf {
    repository().join(format!("tests/fixtures/data-{format}.{extension}"))
}

/// The last one has no `n`: it ends as a dead letter.
fn lines(from: u64, to: u64) -> String {
    let line = |n| match n == EVENTS - 1 {
        true => format!("{{\"k\":\"a\",\"at\":{}}}\n", 1000 * n),
        false => format!("{{\"k\":\"K{}\",\"n\":{n},\"at\":{}}}\n", n % 3, 1000 * n),
    };
    (from..to).map(line).collect()
}

fn publish(node: &Node, first: u64, lines: &str) -> Value {
    let sequence = (first + 1).to_string();
    let headers = [("producer", "p"), ("sequence", sequence.as_str())];
    let answer = node.post("/v1/streams/old/events", &headers, lines);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// What users see of it: a line for each stream, sorted by id; the dead letters; the state's keys.
fn seen(node: &Node) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for stream in ["events", "odd", "guess"] {
        let mut events: Vec<Value> = node
            .tail(&format!("old/{stream}"))
            .into_iter()
            .map(|event| json!({ "id": event["id"], "key": event["key"], "time": event["time"], "payload": event["payload"] }))
            .collect();
        events.sort_by_key(|event| event["id"].to_string());
        all.insert(stream.to_string(), Value::from(events));
    }
    let letters = node.get("/v1/pipelines/old/dead-letters").json();
    all.insert("dead letters".into(), letters);
    let state = node.get("/v1/state/old/guess").json();
    let keys: Vec<Value> = state.as_array().unwrap().iter().map(|entry| entry["key"].clone()).collect();
    all.insert("state".into(), Value::from(keys));
    all
}

#[track_caller]
fn wait_until_through(node: &Node, events: u64) {
    wait_for("all went through", 30, || {
        let shown = node.show("old");
        let stages = shown["stages"].as_array()?;
        let sum = |stage: &str, field: &str| {
            let found = stages.iter().find(|shown| shown["stage"] == stage)?;
            found["actors"].as_array()?.iter().map(|actor| actor[field].as_u64()).sum::<Option<u64>>()
        };
        let lag = sum("odd", "lag")? + sum("guess", "lag")? + sum("lines", "lag")?;
        (sum("odd", "events_in")? == events && lag == 0).then_some(())
    });
}

fn add(folder: &Path, below: &Path, text: &mut String) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.strip_prefix(below).unwrap().display().to_string();
        if LEFT_OUT.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            add(&path, below, text);
        } else {
            *text += &name;
            *text += ": ";
            fs::read(&path).unwrap().iter().for_each(|byte| *text += &format!("{byte:02x}"));
            text.push('\n');
        }
    }
}

fn make() {
    let folder = TempDir::new().unwrap();
    let mut node = Launch::at(&folder.path().join("node")).start();
    let file = folder.path().join("old.toml");
    fs::write(&file, PIPELINE).unwrap();
    node.cli(&["deploy", &file.display().to_string()]).ok();
    for first in 0..EVENTS {
        publish(&node, first, &lines(first, first + 1));
    }
    wait_until_through(&node, EVENTS);
    wait_for("the dead letter is there", 30, || {
        node.get("/v1/pipelines/old/dead-letters").body.contains("\"id\"").then_some(())
    });
    let seen = seen(&node);
    node.stop();
    let mut text = String::new();
    add(node.data(), node.data(), &mut text);
    fs::create_dir_all(fixture(FORMAT, "hex").parent().unwrap()).unwrap();
    fs::write(fixture(FORMAT, "hex"), text).unwrap();
    let lines: String =
        seen.iter().map(|(what, value)| format!("{}\n", json!({ "what": what, "is": value }))).collect();
    fs::write(fixture(FORMAT, "jsonl"), lines).unwrap();
}

fn unpack(format: u32, to: &Path) {
    let text = fs::read_to_string(fixture(format, "hex")).expect("the fixture is part of the repository");
    for line in text.lines() {
        let (name, bytes) = line.split_once(": ").or(line.split_once(':')).unwrap();
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let bytes: Vec<u8> = bytes
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn folders_of_every_format_load_and_go_on() {
    if env::var_os("DUNLIN_TESTS_MAKE_FIXTURE").is_some() {
        make();
    }
    for format in 1..=FORMAT {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("node");
        unpack(format, &data);
        let mut node = Launch::at(&data).start();
        wait_until_through(&node, EVENTS);
        let expected: BTreeMap<String, Value> = fs::read_to_string(fixture(format, "jsonl"))
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|line| (line["what"].as_str().unwrap().to_string(), line["is"].clone()))
            .collect();
        let found = seen(&node);
        for (what, is) in &expected {
            assert_eq!(found.get(what), Some(is), "format {format}: {what}");
        }
        // The producer is known: of what it says again only the new counts.
        let taken = publish(&node, EVENTS - 2, &(lines(EVENTS - 2, EVENTS) + &lines(EVENTS + 1, EVENTS + 2)));
        assert_eq!(number(&taken["last"]), EVENTS + 1, "format {format}: {taken}");
        wait_until_through(&node, EVENTS + 1);
        assert_eq!(
            fs::read_to_string(data.join("lines.jsonl")).unwrap().lines().count() as u64,
            EVENTS / 2 - 1 + 1
        );
        node.stop();
    }
}

#[test]
fn a_folder_of_a_later_format_is_refused_and_left_as_it_is() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("node");
    unpack(FORMAT, &data);
    let later = format!("dunlin data {}\n", FORMAT + 1);
    fs::write(data.join("format"), &later).unwrap();
    let output =
        dunlin_tests::dunlin(&["run", "--data", &data.display().to_string(), "--http", "127.0.0.1:0"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains(&format!("in format {}", FORMAT + 1)), "{output:?}");
    assert!(output.stderr.contains("run the newer version again"), "{output:?}");
    assert_eq!(fs::read_to_string(data.join("format")).unwrap(), later);
}
