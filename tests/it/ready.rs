//! What the ready line and the answer of a deploy promise: whoever reads them may go on at once, at any node.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant, SystemTime};

use dunlin_tests::{Launch, Mesh, request, wait_for};
use tempfile::TempDir;

use crate::counting::pipeline;

#[test]
fn a_deploy_right_after_the_ready_lines_uses_all_nodes_and_all_know_it() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let first = Launch::at(&at("a")).start();
    let token = first.token();
    let nodes = [first, Launch::at(&at("b")).join(&token).start(), Launch::at(&at("c")).join(&token).start()];
    let file = at("pipeline.toml");
    fs::write(&file, pipeline("early", "")).unwrap();
    let file = file.display().to_string();
    // Nobody waits for anything: not for the members, not for the pipeline to be known elsewhere.
    nodes[0].cli(&["deploy", &file]).ok();
    let used: BTreeSet<String> = nodes[0].show("early")["stages"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|stage| stage["actors"].as_array().unwrap())
        .map(|actor| actor["node"].as_str().unwrap().to_string())
        .collect();
    assert_eq!(used, nodes.iter().map(|node| node.id.clone()).collect());
    for node in &nodes {
        assert_eq!(node.get("/v1/nodes").body.matches(r#""state":"alive""#).count(), 3, "{}", node.id);
        let taken = node.post("/v1/streams/early/events", &[], "{\"flight\":\"F1\",\"price\":1,\"n\":1}");
        assert_eq!(taken.status, 200, "{taken:?}");
    }
    nodes[1].cli(&["remove", "early"]).ok();
    for node in &nodes {
        assert_eq!(node.get("/v1/pipelines").body, "[]", "{}", node.id);
        assert_eq!(node.get("/v1/pipelines/early").status, 404);
    }
    assert_eq!(request("GET", &nodes[2].http, "/readyz", None, &[], "").status, 200);
}

#[test]
fn a_deploy_does_not_wait_for_a_member_that_is_away() {
    let mut mesh = Mesh::of(3);
    mesh[2].kill();
    let began = Instant::now();
    mesh.deploy(&pipeline("without", ""));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(mesh[0].show("without")["state"], "running");
    let modules = |number: usize| fs::read_dir(mesh[number].data().join("modules")).unwrap().count();
    assert_eq!((modules(0), modules(1)), (2, 2));
    mesh[2].start();
    // It learns of the pipeline, and gets the modules once it needs them.
    let taken = mesh[2].post("/v1/streams/without/events", &[], "{\"flight\":\"F1\",\"price\":1,\"n\":1}");
    assert_eq!(taken.status, 200, "{taken:?}");
    mesh.wait_until_through("without", "seen", 1);
}

#[test]
fn modules_that_nobody_names_go() {
    let mesh = Mesh::of(1);
    mesh.deploy(&pipeline("short", ""));
    let folder = mesh[0].data().join("modules");
    let count = || fs::read_dir(&folder).unwrap().count();
    assert_eq!(count(), 2);
    let age = || {
        for entry in fs::read_dir(&folder).unwrap() {
            let file = fs::File::options().append(true).open(entry.unwrap().path()).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
        }
    };
    // Old, but named: they stay over a round of looking.
    age();
    std::fs::write(folder.join(blake3_of(b"x")), b"x").unwrap();
    age();
    wait_for("what nobody names goes", 60, || (count() == 2).then_some(()));
    mesh[0].cli(&["remove", "short"]).ok();
    wait_for("the modules of a removed pipeline go", 60, || (count() == 0).then_some(()));
    let cached = fs::read_dir(mesh[0].data().join("cache")).unwrap().count();
    assert_eq!(cached, 0, "and what was compiled of them");
    // Nobody waits an hour for what a pipeline named and no longer does.
    mesh.deploy(&pipeline("again", ""));
    assert_eq!(count(), 2);
    mesh[0].cli(&["remove", "again"]).ok();
    wait_for("the modules of a removed pipeline go, young as they are", 90, || (count() == 0).then_some(()));
}

/// A file's name in the folder of modules.
fn blake3_of(bytes: &[u8]) -> String {
    dunlin_protocol::id::Digest::of(bytes).to_string()
}
