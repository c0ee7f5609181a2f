//! Networks that are cut and healed: both sides go on with what they have, and afterwards
//! everything arrives, once.
//!
//! `DUNLIN_TESTS_LONG=1` makes the long cut two minutes long.

use std::env;
use std::thread;
use std::time::Duration;

use dunlin_tests::{Cuttable, Mesh, Node, wait_for};

use crate::counting::{Ledger, number, pipeline};
use crate::feeder::Feeder;

const KEYS: u64 = 31;
const PACE: Duration = Duration::from_millis(50);
/// TCP alone gets over it.
const SHORT: Duration = Duration::from_secs(2);
/// Beyond what a link may be silent: connections end, members become suspect and gone.
const LONG: Duration = Duration::from_secs(15);

/// The commits of the actors of a stage that live on this node.
fn committed(node: &Node, pipeline: &str, stage: &str) -> u64 {
    let shown = node.show(pipeline);
    let stages = shown["stages"].as_array().unwrap();
    let stage = stages.iter().find(|shown| shown["stage"] == stage).unwrap();
    let actors = stage["actors"].as_array().unwrap();
    let own = actors.iter().filter(|actor| actor["node"] == node.id.as_str());
    own.map(|actor| number(&actor["events_in"])).sum()
}

/// This node's actors go on taking events in.
#[track_caller]
fn goes_on(node: &Node, pipeline: &str) {
    for stage in ["events", "seen"] {
        let before = committed(node, pipeline, stage);
        wait_for(&format!("'{stage}' goes on at {}", node.data().display()), 30, || {
            (committed(node, pipeline, stage) > before).then_some(())
        });
    }
}

fn state_of(at: &Node, of: &Node) -> String {
    let nodes = at.cli(&["nodes", "--json"]).ok().lines();
    let line = nodes.iter().find(|line| line["node"] == of.id.as_str());
    line.map(|line| line["state"].as_str().unwrap().to_string()).unwrap_or_default()
}

#[test]
fn both_sides_of_a_cut_go_on_and_afterwards_everything_is_there_once() {
    let Some(network) = Cuttable::of(3) else { return };
    let mesh = Mesh::on(network, 3);
    // The keyed stages read what each node's own filter gives out: every side has something to do.
    mesh.deploy(&pipeline("cut", "").replace(r#"from = ["clean"]"#, r#"from = ["most"]"#));
    let feeders: Vec<Feeder> = (0..3).map(|at| Feeder::start(&mesh[at], "cut", at, KEYS, PACE)).collect();
    wait_for("it flows", 60, || (committed(&mesh[2], "cut", "seen") > 0).then_some(()));
    let network = mesh.network();

    // One node alone, for a moment.
    network.cut(2, 0);
    network.cut(2, 1);
    thread::sleep(SHORT);
    network.heal(2, 0);
    network.heal(2, 1);
    goes_on(&mesh[0], "cut");

    // The same for long.
    network.cut(2, 0);
    network.cut(2, 1);
    let long = env::var_os("DUNLIN_TESTS_LONG").map_or(LONG, |_| Duration::from_secs(120));
    thread::sleep(long);
    for at in [0, 1] {
        wait_for("the lonely node is missed", 60, || {
            (state_of(&mesh[at], &mesh[2]) != "alive").then_some(())
        });
        wait_for("its neighbour is not", 60, || {
            (state_of(&mesh[at], &mesh[1 - at]) == "alive").then_some(())
        });
        wait_for("the others are missed", 60, || (state_of(&mesh[2], &mesh[at]) != "alive").then_some(()));
    }
    for node in mesh.iter() {
        goes_on(node, "cut");
    }
    // What the other side holds is refused with a sentence, not made up.
    let refused = mesh[2].cli(&["state", "cut/seen"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("cannot be reached"), "{refused:?}");
    network.heal(2, 0);
    network.heal(2, 1);
    mesh.meet();

    // A chain: 0 and 2 hear of each other through 1 alone.
    network.cut(0, 2);
    for node in mesh.iter() {
        goes_on(node, "cut");
    }
    thread::sleep(LONG / 2);
    network.heal(0, 2);

    // And a cut that only one side notices.
    network.cut_one_way(1, 0);
    thread::sleep(LONG / 2);
    for node in mesh.iter() {
        goes_on(node, "cut");
    }
    network.heal_one_way(1, 0);
    mesh.meet();

    let mut ledger = Ledger::over(KEYS);
    feeders.into_iter().for_each(|feeder| ledger.add(feeder.end()));
    ledger.check_counts(&mesh[0], "cut");
    ledger.check_order(&mesh[2], "cut");
}
