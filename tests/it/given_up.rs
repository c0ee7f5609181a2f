//! A node that is gone for good is given up; and two sides that never saw each other deploy one name.

use std::collections::BTreeMap;

use dunlin_tests::{Mesh, Node, wait_for};
use serde_json::Value;

use crate::counting::{Ledger, counts, pipeline, publish};
use crate::tokens::joins;

fn state_of(at: &Node, id: &str) -> Option<String> {
    let nodes = at.cli(&["nodes", "--json"]).ok().lines();
    let line = nodes.iter().find(|line| line["node"] == id)?;
    Some(line["state"].as_str().unwrap().to_string())
}

/// The homes of a stage's actors.
fn homes(shown: &Value, stage: &str) -> Vec<String> {
    let stages = shown["stages"].as_array().unwrap();
    let stage = stages.iter().find(|shown| shown["stage"] == stage).unwrap();
    let actors = stage["actors"].as_array().unwrap().iter();
    actors.map(|actor| actor["node"].as_str().unwrap().to_string()).collect()
}

#[test]
fn what_lived_on_a_node_that_is_gone_starts_anew_and_its_identity_is_refused_for_ever() {
    let mut mesh = Mesh::of(3);
    // The keyed stages read each node's own filter: what starts anew has no counting stage behind it, which
    // would count again.
    mesh.deploy(&pipeline("lost", "").replace(r#"from = ["clean"]"#, r#"from = ["most"]"#));
    let mut ledger = Ledger::over(31);
    for at in 0..2 {
        let lines = ledger.write(at, 2000);
        publish(&mesh, at, "lost/events", &format!("p{at}"), &lines);
    }
    ledger.check_counts(&mesh[0], "lost");
    let gone = mesh[2].id.clone();
    assert!(homes(&mesh[0].show("lost"), "seen").contains(&gone));

    // One that is alive is not given up.
    let refused = mesh[0].cli(&["nodes", "remove", &gone]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("is alive"), "{refused:?}");
    assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
    let unknown = mesh[0].cli(&["nodes", "remove", "nobody"]);
    assert!(unknown.code == Some(1) && unknown.stderr.contains("names no node"), "{unknown:?}");

    mesh[2].kill();
    for at in 0..2 {
        wait_for("the others take it for gone", 60, || {
            (state_of(&mesh[at], &gone).as_deref() == Some("gone")).then_some(())
        });
    }
    // What it holds is not known: no figure stands there.
    let listed = mesh[0].cli(&["nodes"]).ok().stdout;
    let row = listed.lines().find(|line| line.contains(&gone)).unwrap().split_whitespace();
    assert_eq!(row.skip(1).take(2).collect::<Vec<_>>(), ["gone", "-"], "{listed}");
    let removed = mesh[1].cli(&["nodes", "remove", "--json", &gone]).ok().json();
    assert_eq!((&removed["node"], &removed["removed"]), (&gone.clone().into(), &true.into()));
    let given_up = removed["given_up"].as_array().unwrap();
    let anew: Vec<&Value> = given_up.iter().flat_map(|one| one["anew"].as_array().unwrap()).collect();
    assert!(anew.iter().any(|one| one["stage"] == "seen" && one["node"].is_string()), "{removed:#}");
    for at in 0..2 {
        wait_for("nobody lists it any more", 30, || state_of(&mesh[at], &gone).is_none().then_some(()));
    }

    // Everything that the other nodes took is counted, once, and the pipeline is whole again.
    let lines = ledger.write(0, 1000);
    publish(&mesh, 0, "lost/events", "late", &lines);
    ledger.check_counts(&mesh[1], "lost");
    wait_for("the pipeline runs", 60, || {
        let pipelines = mesh[0].cli(&["pipelines", "--json"]).ok().json();
        (pipelines["state"] == "running").then_some(())
    });
    for node in [&mesh[0], &mesh[1]] {
        let shown = node.show("lost");
        assert!(!homes(&shown, "seen").contains(&gone), "{shown:#}");
        assert_eq!(shown["given_up"][0]["node"], gone.as_str(), "{shown:#}");
        let said = node.cli(&["show", "lost"]).ok().stdout;
        assert!(said.contains("may come again") && said.contains(&gone), "{said}");
    }
    // A tail waits for nothing of it.
    mesh[0].cli(&["tail", "lost/ordered", "--limit", "5"]).ok();

    // It comes back: it is told, and ends rather than take what nobody would ever read.
    mesh[2].launch();
    let ended = mesh[2].wait_until_ended();
    assert_eq!(ended.code(), Some(1), "{}", mesh[2].logged());
    assert!(
        mesh[2].logged().contains("start it with an empty data folder and a token"),
        "{}",
        mesh[2].logged()
    );
    mesh[0].stop();
    mesh[1].stop();
    mesh[0].launch();
    mesh[1].launch();
    mesh[0].wait_until_ready();
    mesh[1].wait_until_ready();
    wait_for("the two are together again", 30, || (mesh[0].status()["peers"] == 1).then_some(()));
    for at in 0..2 {
        assert_eq!(state_of(&mesh[at], &gone), None);
        assert_eq!(mesh[at].status()["peers"], 1);
    }
    // Not even by a token, when all that it has left is its identity.
    let token = mesh[0].token();
    std::fs::remove_file(mesh[2].data().join("mesh")).unwrap();
    std::fs::remove_dir_all(mesh[2].data().join("logs")).unwrap();
    let refused = joins(mesh[2].data(), &token);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("was removed from the mesh"), "{refused:?}");
    ledger.check_counts(&mesh[0], "lost");
    // Said again it changes nothing.
    mesh[0].cli(&["nodes", "remove", &gone]).ok();
}

/// Which node writes each log, as this node shows it.
fn writers(node: &Node, pipeline: &str) -> BTreeMap<String, String> {
    let shown = node.show(pipeline);
    let stages = shown["stages"].as_array().unwrap();
    let actors = stages.iter().flat_map(|stage| stage["actors"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_string();
    actors.map(|actor| (text(&actor["actor"]), text(&actor["node"]))).collect()
}

#[test]
fn of_two_sides_that_deploy_one_name_one_wins_and_the_other_is_told() {
    let mut mesh = Mesh::of(2);
    let text = pipeline("rival", "");
    mesh.deploy(&text);
    let mut ledger = Ledger::over(17);
    for at in 0..2 {
        let lines = ledger.write(at, 500);
        publish(&mesh, at, "rival/events", &format!("p{at}"), &lines);
    }
    ledger.check_counts(&mesh[0], "rival");
    // Each deploys a change while the other one is away, and takes events by it.
    let mut deployed = Vec::new();
    for at in 0..2 {
        let other = 1 - at;
        mesh[other].stop();
        if deployed.len() == 1 {
            mesh[at].start();
        }
        let changed = text.replace("event.n % 4 != 0", "event.n % 4 > 0");
        let changed =
            changed.replace("[source.events]", &format!("[source.events]\nlateness = \"{}s\"", at + 1));
        let file = mesh.write(&format!("side{at}.toml"), &changed);
        let answer = mesh[at].cli(&["deploy", "--json", &file]).ok().json();
        assert_eq!(answer["changed"], true);
        deployed.push(answer["revision"].as_str().unwrap().to_string());
        let lines = ledger.write(at, 300);
        publish(&mesh, at, "rival/events", &format!("p{at}-alone"), &lines);
    }
    assert_ne!(deployed[0], deployed[1]);
    mesh[0].start();
    mesh.meet();
    let revision = |at: usize| mesh[at].show("rival")["revision"].as_str().unwrap().to_string();
    let winner =
        wait_for("both hold the same revision", 60, || (revision(0) == revision(1)).then(|| revision(0)));
    let loser = deployed.iter().position(|revision| *revision != winner).unwrap();
    assert_eq!(deployed[1 - loser], winner);
    wait_for("the loser's node says so", 60, || {
        let said = mesh[loser].logged();
        (said.contains(&format!("revision {} of 'rival'", deployed[loser])) && said.contains("lost to"))
            .then_some(())
    });
    // What both sides took is there, once, and every log has one writer on which both agree.
    let lines = ledger.write(0, 200);
    publish(&mesh, 0, "rival/events", "after", &lines);
    ledger.check_counts(&mesh[1], "rival");
    ledger.check_order(&mesh[0], "rival");
    assert_eq!(writers(&mesh[0], "rival"), writers(&mesh[1], "rival"));
    assert!(counts(&mesh[0], "rival").is_some());
}
