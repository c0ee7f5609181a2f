//! What a new user sees first: the demo, files in and out, and live input.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use dunlin_tests::{Mesh, Running, wait_for};
use serde_json::Value;

use crate::counting::number;

/// Long enough for a busy machine in the dev profile.
const DEMO_S: u64 = 150;

fn check_demo(arguments: &[&str], input: &str) {
    let mut words = vec!["demo", "--json"];
    words.extend(arguments);
    let output = Running::start(&words, b"").wait(DEMO_S).ok();
    assert_eq!(output.stdout.lines().count(), 1, "{output:?}");
    let summary = output.json();
    assert_eq!(summary["input"], input);
    let count = |field: &str| number(&summary[field]);
    assert!(count("events") > 0 && count("predictions") * 100 >= count("events") * 80, "{summary}");
    assert!(count("settled") * 2 >= count("predictions"), "{summary}");
    let float = |field: &str| summary[field].as_f64().unwrap_or_else(|| panic!("{field}: {summary}"));
    assert!(float("mae") <= 1.02 * float("mae_last_value"), "{summary}");
    assert!((0.0..=1.0).contains(&float("auc")) && float("seconds") > 0.0, "{summary}");
    let nodes = summary["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 3);
    for node in nodes {
        assert!(node["node"].as_str().unwrap().starts_with("12D3"), "{node}");
        assert!(number(&node["commits"]) > 0, "every node commits: {summary}");
        assert!(node["events_in"].is_u64() && node["events_out"].is_u64(), "{node}");
    }
}

#[test]
fn the_demo_predicts_simulated_fares() {
    check_demo(&[], "simulated");
}

/// With DUNLIN_DATA set to a folder that holds `fares/fares.csv`.
#[test]
fn the_demo_predicts_real_fares() {
    let file = std::env::var_os("DUNLIN_DATA").map(|data| PathBuf::from(data).join("fares/fares.csv"));
    match file.filter(|file| file.exists()) {
        Some(file) => check_demo(&["--fares", &file.display().to_string()], "real"),
        None => eprintln!("not checked: DUNLIN_DATA names no folder with fares/fares.csv"),
    }
}

#[test]
fn a_file_flows_through_to_a_file_exactly_once_across_a_restart() {
    const ROWS: u64 = 60_000;
    let mut mesh = Mesh::of(1);
    let mut rows = String::from("flight,n,note\n");
    for n in 0..ROWS {
        let note = if n % 5 == 0 { "" } else { "\"a, b\"" };
        writeln!(rows, "F{},{n},{note}", n % 7).unwrap();
    }
    mesh.write("rows.csv", &rows);
    mesh.deploy(
        r#"
name = "copy"
[source.rows]
key  = "flight"
file = { path = "rows.csv", pace = "fast" }
[stage.some]
from   = ["rows"]
filter = "event.n % 3 == 0"
[sink.out]
from = ["some"]
file = { path = "out.jsonl" }
"#,
    );
    let out = mesh[0].data().join("out.jsonl");
    let lines = || fs::read_to_string(&out).map_or(0, |text| text.lines().count() as u64);
    wait_for("lines come out", 60, || (lines() > 0).then_some(()));
    let early = lines();
    mesh[0].stop();
    mesh[0].start();
    wait_for("some more, then it dies", 60, || (lines() > early || lines() == ROWS / 3).then_some(()));
    mesh[0].kill();
    mesh[0].start();
    wait_for("all lines are out", 90, || (lines() >= ROWS / 3).then_some(()));
    mesh[0].stop();

    let text = fs::read_to_string(&out).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found: Vec<u64> = events.iter().map(|event| number(&event["payload"]["n"])).collect();
    let expected: Vec<u64> = (0..ROWS).filter(|n| n % 3 == 0).collect();
    assert_eq!(found.len(), expected.len());
    assert!(found == expected, "not in the file's order");
    assert_eq!(events[0]["payload"], serde_json::json!({ "flight": "F0", "n": 0, "note": null }));
    assert_eq!(events[1]["payload"]["note"], "a, b");
    assert_eq!(events[1]["key"], "F3");
    assert!(events.iter().all(|event| event["id"].is_string() && event["time"].is_string()));
}

#[test]
fn a_file_source_says_what_it_waits_for_and_what_it_left_out() {
    let mesh = Mesh::of(1);
    let file = mesh
        .write("late.toml", "name = \"late\"\n[source.rows]\nkey = \"k\"\nfile = { path = \"late.csv\" }\n");
    // The second time nothing changes, and it is said again.
    for _ in 0..2 {
        let deploy = mesh[0].cli(&["deploy", &file]);
        assert_eq!((deploy.code, deploy.stdout.as_str()), (Some(1), ""), "{deploy:?}");
        let said = "'late' is deployed, but its source 'rows' waits: the source's file '";
        assert!(
            deploy.stderr.contains(said) && deploy.stderr.contains("late.csv' cannot be read"),
            "{deploy:?}"
        );
    }
    let source = || mesh[0].show("late")["stages"][0]["actors"][0].clone();
    wait_for("the missing file is told", 30, || {
        source()["trouble"].as_str().is_some_and(|why| why.contains("late.csv' cannot be read")).then_some(())
    });
    mesh.write("late.csv", "key,n\na,1\n");
    wait_for("a header without the key is told", 30, || {
        source()["trouble"].as_str().is_some_and(|why| why.contains("has no column 'k'")).then_some(())
    });
    assert_eq!(source()["rejected"], 0);
    let rows: String = (0..10).map(|n| format!("k{n},{n}\n,no key\n")).collect();
    mesh.write("late.csv", &format!("k,n\n{rows}"));
    wait_for("rejected lines are counted", 30, || (source()["rejected"] == 10).then_some(()));
    assert_eq!((number(&source()["events_in"]), &source()["trouble"]), (10, &Value::Null));
    let table = mesh[0].cli(&["show", "late"]).ok().stdout;
    assert!(table.contains("10 rejected"), "{table}");
    // Every one of them can be found.
    let folder = mesh[0].data().join("rejected");
    let text = fs::read_to_string(fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path()).unwrap();
    assert_eq!(text.lines().count(), 10, "{text}");
    assert!(text.starts_with("line 3: ") && text.contains("line 21: "), "{text}");
    assert!(mesh[0].get("/metrics").body.contains("dunlin_connector_lines_rejected 10"));
    mesh[0].cli(&["remove", "late"]).ok();
    wait_for("and goes with the pipeline", 30, || {
        (fs::read_dir(&folder).unwrap().count() == 0).then_some(())
    });
}

#[test]
fn host_watch_predicts_what_every_node_measures() {
    let mesh = Mesh::of(2);
    // As it is, but one second ahead: nobody waits ten.
    let file = dunlin_tests::repository().join("examples/pipelines/host-watch.toml");
    let whole = fs::read_to_string(file).unwrap();
    let text = whole.replace(r#"after = "10s""#, r#"after = "1s""#);
    assert_ne!(text, whole, "the file says how far ahead it looks");
    assert_eq!(mesh.deploy(&text)["changed"], true);
    wait_for("predictions of both nodes settle", 60, || {
        let settled = mesh[1].tail("host-watch/load.scores");
        let keys: std::collections::BTreeSet<_> =
            settled.iter().map(|event| event["key"].as_str().unwrap().to_string()).collect();
        (keys.len() == 2).then_some(())
    });
    let sample = mesh[0].tail("host-watch/load").pop().unwrap();
    assert!(sample["payload"]["value"].is_number(), "{sample}");
}
