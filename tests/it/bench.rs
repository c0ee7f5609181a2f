//! The load driver on nodes of its own: its JSON is whole and its counts are exact. No figure is looked
//! at: a benchmark is no test.

use dunlin_tests::{Mesh, dunlin};
use serde_json::Value;

use crate::counting::number;

/// One row with all stable fields; every event was read once.
fn row(words: &[&str]) -> Value {
    let output = dunlin(&[&["bench", "--json"], words].concat()).ok();
    assert_eq!(output.stdout.lines().count(), 1, "{output:?}");
    let row = output.json();
    assert_eq!(row["scenario"], words[0], "{row}");
    assert!(row["durability"].is_string() && row["copies"].is_u64(), "{row}");
    assert!(row["events_per_second"].is_f64() && row["seconds"].as_f64().unwrap() > 0.0, "{row}");
    assert!(row["cpu_seconds"]["driver"].is_f64() && row["cpu_seconds"]["nodes"].is_f64(), "{row}");
    assert!(row["machine"]["cores"].is_u64() && row["machine"]["build"].is_string(), "{row}");
    assert_eq!((number(&row["missing"]), number(&row["twice"])), (0, 0), "{row}");
    for part in ["p50", "p99", "p999"] {
        assert_eq!(row["latency_us"][part].is_f64(), number(&row["events"]) > 0, "{part}: {row}");
    }
    row
}

#[test]
fn publish_counts_every_event_once() {
    let row = row(&["publish", "--rate", "200", "--seconds", "0.5", "--durability", "disk", "--size", "64"]);
    assert_eq!((number(&row["events"]), &row["durability"]), (100, &Value::from("disk")), "{row}");
    assert_eq!(number(&row["parameters"]["size"]), 64, "{row}");
}

#[test]
fn publish_as_fast_as_events_are_taken() {
    let row = row(&["publish", "--seconds", "0.2", "--keys", "3"]);
    assert!(number(&row["events"]) > 0, "{row}");
}

#[test]
fn pipeline_counts_what_came_through_all_hops() {
    let row = row(&["pipeline", "--hops", "2", "--rate", "100", "--seconds", "0.5"]);
    assert_eq!((number(&row["events"]), number(&row["parameters"]["hops"])), (50, 2), "{row}");
}

#[test]
fn fanout_counts_what_each_reader_got() {
    let row = row(&["fanout", "--taps", "5", "--rate", "100", "--seconds", "0.5"]);
    assert_eq!((number(&row["events"]), number(&row["parameters"]["readers"])), (250, 5), "{row}");
}

#[test]
fn idle_says_what_each_node_costs() {
    let row = row(&["idle", "--seconds", "0.2"]);
    for field in ["rss_bytes", "cpu_percent"] {
        assert_eq!(row["idle"][field].as_array().unwrap().len(), 3, "{row}");
    }
}

#[test]
fn a_curve_is_a_row_for_each_point() {
    let words = ["bench", "publish", "--sweep", "rate", "--seconds", "0.1", "--json"];
    let rows = dunlin(&words).ok().lines();
    let rates: Vec<bool> = rows.iter().map(|row| row["parameters"]["rate"].is_f64()).collect();
    assert_eq!(rates, [false, true, true, true], "the sustainable rate first, then parts of it");
    assert!(rows.iter().all(|row| number(&row["missing"]) + number(&row["twice"]) == 0), "{rows:?}");
}

#[test]
fn what_cannot_be_measured_is_one_sentence() {
    let cases: [(&[&str], i32, &str); 9] = [
        (&["publish", "--copies", "3"], 1, "copies = 3 is not there yet"),
        (&["failover", "--kills", "3"], 1, "'dunlin bench failover' is not there yet"),
        (&["publish", "--size", "5"], 2, "an event has 16 to 1048576 bytes"),
        (&["fanout", "--taps", "0"], 2, "'0' is no whole number from 1 to 65535"),
        (&["fanout", "--sweep", "hops"], 2, "does not vary along hops"),
        (
            &["publish", "--keys", "4000000000"],
            2,
            "4000000000 keys with 128 bytes each are more than the driver holds",
        ),
        (&["publish", "--data", "."], 2, "--data does not apply to 'bench publish'"),
        (&["publish", "--node", "http://127.0.0.1:7070"], 2, "name the multiaddr of a member"),
        (&["wasm", "--node", "http://127.0.0.1:7070"], 2, "--node does not apply to 'bench wasm'"),
    ];
    for (words, code, sentence) in cases {
        let output = dunlin(&[&["bench"], words].concat());
        assert!(output.code == Some(code) && output.stderr.contains(sentence), "{output:?}");
        // clap says usage below its sentences.
        let lines = output.stderr.lines().count();
        assert!(lines == 1 || output.stderr.starts_with("error: "), "{output:?}");
    }
}

#[test]
fn what_others_nodes_use_is_not_taken_for_nothing() {
    let mesh = Mesh::of(1);
    let (node, token) = (&mesh[0].listen[0], mesh[0].token());
    let words =
        ["bench", "--json", "publish", "--rate", "100", "--seconds", "0.5", "--node", node, "--token"];
    let row = dunlin(&[&words[..], &[&token]].concat()).ok().json();
    assert_eq!((number(&row["events"]), number(&row["missing"])), (50, 0), "{row}");
    assert!(row["cpu_seconds"]["driver"].is_f64() && row["latency_us"]["p50"].is_f64(), "{row}");
    assert!(row["cpu_seconds"]["nodes"].is_null() && row["cpu_seconds_per_million"].is_null(), "{row}");
    let why = row["unmeasured"]["cpu_seconds_per_million"].as_str().unwrap();
    assert!(why.contains("is not the whole cost"), "{row}");
    assert_eq!(
        mesh[0].cli(&["pipelines"]).ok().stdout.lines().count(),
        1,
        "the header alone: nothing is left"
    );
}

#[test]
fn a_latency_that_is_not_measured_has_its_reason() {
    let words = ["bench", "publish", "--size", "16", "--seconds", "0.1"];
    let output = dunlin(&words).ok();
    let why = "an event of 16 bytes has no room for when it was due";
    assert!(output.stdout.contains(&format!("P99.9 US -: {why}")), "{output:?}");
    let row = dunlin(&[&words[..], &["--json"]].concat()).ok().json();
    assert!(number(&row["events"]) > 0 && row["latency_us"]["p50"].is_null(), "{row}");
    assert!(row["unmeasured"]["latency_us"].as_str().unwrap().starts_with(why), "{row}");
    assert!(row["cpu_seconds_per_million"].is_f64(), "{row}");
}

#[test]
fn calls_give_out_every_event_beside_wasmtime_alone() {
    let cold = row(&["cold-start", "--calls", "20"]);
    assert_eq!(number(&cold["events"]), 20, "{cold}");
    let wasm = row(&["wasm", "--calls", "10", "--batch", "16"]);
    assert_eq!(number(&wasm["events"]), 160, "{wasm}");
    for field in ["ns_per_event", "wasmtime_ns_per_event", "ratio"] {
        assert!(wasm["call"][field].as_f64().unwrap() > 0.0, "{wasm}");
    }
}
