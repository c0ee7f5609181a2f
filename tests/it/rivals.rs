//! Both sides of a cut deploy the same name: one of them stands afterwards, everywhere, and the other is
//! reported. Whatever either side acknowledged is counted once, and no log is written by two nodes.

use std::collections::BTreeMap;
use std::fs;

use dunlin_tests::{Cuttable, Mesh, wait_for};
use serde_json::Value;

use crate::counting::{Ledger, pipeline, publish};

const KEYS: u64 = 31;

fn deploy(mesh: &Mesh, at: usize, name: &str, text: &str) -> String {
    let file = mesh.write(&format!("{name}-{at}.toml"), text);
    mesh[at].cli(&["deploy", "--json", &file]).ok().json()["revision"].as_str().unwrap().to_string()
}

/// The revision that stands, and the deploys that lost, with their nodes.
fn outcome(shown: &Value) -> (String, Vec<(String, String)>) {
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let lost = shown["superseded"].as_array().unwrap();
    let lost = lost.iter().map(|lost| (text(&lost["revision"]), text(&lost["node"]))).collect();
    (text(&shown["revision"]), lost)
}

/// All nodes name one of the two as what stands, and the other one as superseded.
#[track_caller]
fn check_one_stands(mesh: &Mesh, name: &str, rivals: &[(String, String); 2]) {
    let settled = |shown: &Value| {
        let (stands, lost) = outcome(shown);
        let one = |won: usize| stands == rivals[won].0 && lost == [rivals[1 - won].clone()];
        shown["state"] == "running" && (one(0) || one(1))
    };
    for node in mesh.iter() {
        let mut last = Value::Null;
        let same = dunlin_tests::try_for(60, || {
            last = node.show(name);
            (settled(&last) && outcome(&last) == outcome(&mesh[0].show(name))).then_some(())
        });
        assert!(same.is_some(), "{rivals:?} at {}: {last:#}", node.data().display());
        let said = node.cli(&["show", name]).ok().stdout;
        assert!(said.contains("superseded: revision"), "{said}");
    }
}

#[test]
fn of_two_sides_that_deploy_one_name_one_stands_and_everything_counts_once() {
    let Some(network) = Cuttable::of(3) else { return };
    let mesh = Mesh::on(network, 3);
    let old = pipeline("changed", "");
    mesh.deploy(&old);
    let mut ledgers: BTreeMap<&str, Ledger> = BTreeMap::new();
    let mut feeds = 0;
    let mut feed = |at: usize, name: &'static str| {
        feeds += 1;
        let ledger = ledgers.entry(name).or_insert_with(|| Ledger::over(KEYS));
        publish(&mesh, at, &format!("{name}/events"), &format!("p{feeds}"), &ledger.write(at, 400));
    };
    feed(0, "changed");
    feed(2, "changed");

    let network = mesh.network();
    network.cut(2, 0);
    network.cut(2, 1);
    for (at, other) in [(0, 2), (1, 2), (2, 0), (2, 1)] {
        wait_for("the other side is missed", 60, || {
            let nodes = mesh[at].cli(&["nodes", "--json"]).ok().lines();
            let other = nodes.iter().find(|line| line["node"] == mesh[other].id.as_str())?;
            (other["state"] == "gone").then_some(())
        });
    }
    let fresh = pipeline("fresh", "");
    let rivals = ["changed", "fresh"].map(|name| {
        let text = if name == "fresh" { &fresh } else { &old };
        let sides = [(0, "event.n % 4 > 0"), (2, "event.n % 4 >= 1")];
        sides.map(|(at, words)| {
            let text = text.replace("event.n % 4 != 0", words);
            (deploy(&mesh, at, name, &text), mesh[at].id.clone())
        })
    });
    for name in ["changed", "fresh"] {
        feed(0, name);
        feed(2, name);
    }
    network.heal(2, 0);
    network.heal(2, 1);
    mesh.meet();

    check_one_stands(&mesh, "changed", &rivals[0]);
    check_one_stands(&mesh, "fresh", &rivals[1]);
    for name in ["changed", "fresh"] {
        feed(2, name);
        feed(1, name);
    }
    for (name, ledger) in &ledgers {
        ledger.check_counts(&mesh[1], name);
        ledger.check_order(&mesh[0], name);
    }
    check_one_writer(&mesh);

    // Deployed again on top of what stands, the loser is what stands, and nothing is lost any more.
    let (stands, lost) = outcome(&mesh[0].show("changed"));
    let side = if lost[0].1 == mesh[0].id { 0 } else { 2 };
    let file = mesh.file(&format!("changed-{side}.toml")).display().to_string();
    mesh[1].cli(&["deploy", &file]).ok();
    let after = outcome(&mesh[1].show("changed"));
    assert_eq!(after, (lost[0].0.clone(), vec![]), "{stands} stood");
    ledgers["changed"].check_counts(&mesh[2], "changed");
}

/// Each log's folder is in one node's data alone, but the catalog's: of each node's log every node has a copy.
#[track_caller]
fn check_one_writer(mesh: &Mesh) {
    let mut holders: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, node) in mesh.iter().enumerate() {
        for entry in fs::read_dir(node.data().join("logs")).unwrap() {
            let log = entry.unwrap().file_name().into_string().unwrap();
            holders.entry(log).or_default().push(at);
        }
    }
    let (copied, single): (Vec<_>, Vec<_>) = holders.values().partition(|nodes| nodes.len() > 1);
    assert!(copied.len() == 3 && single.len() > 20, "{holders:?}");
    assert!(copied.iter().all(|nodes| nodes.len() == 3), "{holders:?}");
}
