//! Damage to a catalog log: the members hold it, too, so the node mends it from them by itself. Until one of them
//! can give it, the node serves nothing: it does not know what was decided.

use std::fs;
use std::path::{Path, PathBuf};

use dunlin_protocol::mesh::catalog::LogName;
use dunlin_tests::{Mesh, Node, wait_for};

use crate::beside::node_id;
use crate::counting::{Ledger, number, pipeline, publish};

/// The files of what `of` says, as `node` holds them.
fn copy_of(of: &Node, node: &Node) -> PathBuf {
    node.data().join("logs").join(LogName::Catalog(node_id(of)).id().to_string())
}

fn segment(folder: &Path) -> PathBuf {
    folder.join("00000000000000000001.seg")
}

/// Changes one byte of the first record.
fn flip(folder: &Path) -> Vec<u8> {
    let before = fs::read(segment(folder)).unwrap();
    let mut bytes = before.clone();
    bytes[150] ^= 4;
    fs::write(segment(folder), bytes).unwrap();
    before
}

#[test]
fn a_damaged_catalog_log_is_mended_from_the_members() {
    let mut mesh = Mesh::of(3);
    mesh.deploy(&pipeline("counted", ""));
    let mut ledger = Ledger::over(7);
    publish(&mesh, 0, "counted/events", "p", &ledger.write(0, 500));
    ledger.check_counts(&mesh[0], "counted");
    let revision = mesh[2].show("counted")["revision"].clone();
    // Its own, and that of the node that took the deploy.
    for of in [2, 0] {
        mesh[2].stop();
        let folder = copy_of(&mesh[of], &mesh[2]);
        flip(&folder);
        mesh[2].start();
        let said = mesh[2].logged();
        assert!(said.contains("is damaged in segment 1") && said.contains("it was written anew"), "{said}");
        let status = mesh[2].status();
        assert_eq!(status["troubles"].as_array().unwrap().len(), 0, "{status}");
        assert_eq!(mesh[2].show("counted")["revision"], revision);
        publish(&mesh, 2, "counted/events", &format!("q{of}"), &ledger.write(of, 100));
        ledger.check_counts(&mesh[2], "counted");
        // It stands on the disk: nothing is said of it again.
        mesh[2].stop();
        let told = mesh[2].logged().len();
        mesh[2].start();
        assert!(!mesh[2].logged()[told..].contains("damaged"), "{}", &mesh[2].logged()[told..]);
        assert!(segment(&folder).exists());
    }
    ledger.check_order(&mesh[1], "counted");
}

#[test]
fn who_cannot_read_what_was_decided_serves_nothing() {
    let mut mesh = Mesh::of(2);
    mesh.deploy(&pipeline("counted", ""));
    let mut ledger = Ledger::over(7);
    publish(&mesh, 1, "counted/events", "p", &ledger.write(0, 500));
    ledger.check_counts(&mesh[0], "counted");
    mesh[0].stop();
    mesh[1].stop();
    let folder = copy_of(&mesh[0], &mesh[1]);
    let before = flip(&folder);
    let damaged = fs::read(segment(&folder)).unwrap();
    mesh[1].launch();
    let lines = mesh.write("lines.jsonl", "{\"flight\":\"K1\",\"n\":1}\n");
    wait_for("it says why it serves nothing", 30, || {
        let refused = mesh[1].cli(&["pipelines"]);
        (refused.code == Some(1) && refused.stderr.contains("is damaged on this node's disk")).then_some(())
    });
    let words: [&[&str]; 7] = [
        &["pipelines"],
        &["nodes"],
        &["show", "counted"],
        &["publish", "counted/events", &lines],
        &["tail", "counted/events"],
        &["state", "counted/seen"],
        &["dead-letters", "counted"],
    ];
    for words in words {
        let refused = mesh[1].cli(words);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("is damaged on this node's disk"), "{refused:?}");
        assert_eq!(refused.stderr.trim_end().lines().count(), 1, "{refused:?}");
    }
    assert_eq!(mesh[1].get("/readyz").status, 503);
    assert_eq!(mesh[1].get("/healthz").status, 200);
    let status = mesh[1].status();
    assert!(status["troubles"].to_string().contains("damaged"), "{status}");
    assert_eq!(fs::read(segment(&folder)).unwrap(), damaged, "it is left as it is");

    // The file is put back: all is as it was.
    mesh[1].kill();
    fs::write(segment(&folder), before).unwrap();
    mesh[1].start();
    assert_eq!(mesh[1].tail("counted/events").len(), 500);

    // Or whoever knows it comes back.
    mesh[1].stop();
    flip(&folder);
    mesh[1].launch();
    wait_for("it says why it serves nothing", 30, || {
        let refused = mesh[1].cli(&["pipelines"]);
        refused.stderr.contains("is damaged on this node's disk").then_some(())
    });
    mesh[0].start();
    wait_for("it is ready", 30, || (mesh[1].get("/readyz").status == 200).then_some(()));
    mesh.meet();
    publish(&mesh, 1, "counted/events", "q", &ledger.write(1, 100));
    ledger.check_counts(&mesh[0], "counted");
    assert_eq!(number(&mesh[1].status()["peers"]), 1);
}
