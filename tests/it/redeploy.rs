//! A pipeline changes while events flow through it: each event counts once, by the old stage or by the
//! new one, whatever dies meanwhile.

use std::fs;

use dunlin_tests::{Mesh, guest, wait_for};
use serde_json::Value;

use crate::counting::{Ledger, counts, number, pipeline, publish};

/// The guest `count` again, with other bytes: a section of notes behind it changes its digest.
fn another_count(mesh: &Mesh) -> String {
    let mut bytes = fs::read(guest("count")).unwrap();
    bytes.extend_from_slice(b"\x00\x05\x04note");
    let file = mesh.file("count-again.wasm");
    fs::write(&file, bytes).unwrap();
    file.display().to_string()
}

fn revision(mesh: &Mesh, at: usize, pipeline: &str) -> String {
    mesh[at].show(pipeline)["revision"].as_str().unwrap().to_string()
}

#[test]
fn a_node_that_freezes_during_a_deploy_is_planned_without() {
    let mesh = Mesh::of(3);
    // Nobody knows of it yet: it is asked to get the modules like the others.
    mesh[2].freeze();
    let deployed = mesh.deploy(&pipeline("cold", ""));
    assert_eq!(deployed["changed"], true);
    let stages = mesh[0].show("cold")["stages"].as_array().unwrap().clone();
    let keyed = stages.iter().filter(|stage| stage["stage"] == "seen");
    let homes: Vec<&Value> =
        keyed.flat_map(|stage| stage["actors"].as_array().unwrap()).map(|actor| &actor["node"]).collect();
    assert!(homes.len() == 6 && homes.iter().all(|home| **home != mesh[2].id.as_str()), "{homes:?}");
    let mut ledger = Ledger::over(31);
    publish(&mesh, 1, "cold/events", "p", &ledger.write(1, 500));
    ledger.check_counts(&mesh[0], "cold");
    mesh[2].thaw();
    mesh.meet();
    publish(&mesh, 2, "cold/events", "q", &ledger.write(2, 500));
    ledger.check_counts(&mesh[2], "cold");
}

#[test]
fn a_changed_filter_and_a_changed_module_take_over_while_a_node_is_killed() {
    let mut mesh = Mesh::of(3);
    let text = pipeline("alive", "");
    mesh.deploy(&text);
    let mut ledger = Ledger::over(31);
    let mut publishing = Vec::new();
    for at in [0, 1] {
        let file = mesh.write(&format!("alive{at}.jsonl"), &ledger.write(at, 60_000));
        let producer = format!("p{at}");
        let words = ["publish", "--json", "--producer", &producer, "alive/events", &file];
        publishing.push(mesh[at].cli_started(&words, b""));
    }
    wait_for("a part is through", 60, || {
        (counts(&mesh[2], "alive")?.values().sum::<u64>() > 1000).then_some(())
    });

    let count = guest("count").display().to_string();
    let changed = text.replace("event.n % 4 != 0", "event.n % 4 > 0").replace(&count, &another_count(&mesh));
    let file = mesh.write("changed.toml", &changed);
    let deploying = mesh[1].cli_started(&["deploy", "--json", &file], b"");
    mesh[2].kill();
    mesh[2].start();
    let deployed = deploying_result(deploying.wait(240).ok().json());
    assert_eq!(deployed.0, Value::Bool(true));

    // Another one at once: the source, and a stage fused in front of the keyed ones.
    let more = changed
        .replace("[source.events]", "[source.events]\nlateness = \"1s\"")
        .replace("from = [\"most\"]", "from = [\"all\"]")
        + "\n[stage.all]\nfrom = [\"most\"]\nfilter = \"event.n >= 0\"\n";
    let file = mesh.write("more.toml", &more);
    let deployed = deploying_result(mesh[0].cli(&["deploy", "--json", &file]).ok().json());
    assert_eq!(deployed.0, Value::Bool(true));
    for publisher in publishing {
        let taken = publisher.wait(240).ok().json();
        assert_eq!((number(&taken["acknowledged"]), number(&taken["rejected"])), (60_000, 0));
    }
    let lines = ledger.write(7, 500);
    publish(&mesh, 2, "alive/events", "late", &lines);
    ledger.check_counts(&mesh[2], "alive");
    ledger.check_order(&mesh[1], "alive");
    mesh.meet();
    for at in 0..3 {
        assert_eq!(Value::String(revision(&mesh, at, "alive")), deployed.1);
    }

    // The same file again changes nothing.
    let again = deploying_result(mesh[2].cli(&["deploy", "--json", &file]).ok().json());
    assert_eq!(again, (Value::Bool(false), deployed.1));

    // Killed all at once and started again, everything stands where it stood.
    mesh.iter_mut().for_each(|node| node.kill());
    mesh.iter_mut().for_each(|node| node.start());
    ledger.check_counts(&mesh[0], "alive");
    ledger.check_order(&mesh[2], "alive");
}

fn deploying_result(json: Value) -> (Value, Value) {
    (json["changed"].clone(), json["revision"].clone())
}

#[test]
fn a_node_that_is_away_holds_no_deploy_up_and_takes_it_when_it_is_back() {
    let mut mesh = Mesh::of(3);
    let text = pipeline("apart", "");
    mesh.deploy(&text);
    let mut ledger = Ledger::over(17);
    for at in 0..3 {
        let lines = ledger.write(at, 2_000);
        publish(&mesh, at, "apart/events", &format!("p{at}"), &lines);
    }
    mesh[2].stop();
    let count = guest("count").display().to_string();
    let changed = text.replace(&count, &another_count(&mesh));
    let manifest = mesh.write("apart.toml", &changed);
    let deployed = deploying_result(mesh[0].cli(&["deploy", "--json", &manifest]).ok().json());
    assert_eq!(deployed.0, Value::Bool(true));
    for at in 0..2 {
        let lines = ledger.write(at, 1_000);
        publish(&mesh, at, "apart/events", &format!("q{at}"), &lines);
    }
    mesh[2].start();
    ledger.check_counts(&mesh[2], "apart");
    ledger.check_order(&mesh[0], "apart");
    assert_eq!(Value::String(revision(&mesh, 2, "apart")), deployed.1);
}

#[test]
fn what_a_living_stage_cannot_take_over_is_refused_and_nothing_changes() {
    let mesh = Mesh::of(1);
    let text = pipeline("fixed", "");
    mesh.deploy(&text);
    let before = revision(&mesh, 0, "fixed");
    let refusals = [
        (
            "key  = \"flight\"\nwasm",
            "key  = \"from\"\nwasm",
            "has key = \"flight\"; changing that to key = \"from\"",
        ),
        ("shares = 6", "shares = 7", "has 6 shares; changing that to 7"),
        ("key = \"flight\"\n\n[stage.most]", "key = \"from\"\n\n[stage.most]", "source 'events' has key"),
        (
            "filter = \"event.n % 4 != 0\"",
            &format!("wasm = \"{}\"", guest("clean").display()),
            "is a filter or map stage",
        ),
    ];
    for (from, to, sentence) in refusals {
        assert!(text.contains(from), "{from}");
        let file = mesh.write("refused.toml", &text.replacen(from, to, 1));
        let refused = mesh[0].cli(&["deploy", &file]);
        assert_eq!(refused.code, Some(1), "{to}: {}", refused.stdout);
        assert!(refused.stderr.contains(sentence), "{}", refused.stderr);
    }
    assert_eq!(revision(&mesh, 0, "fixed"), before);
}
