//! Tokens are revoked: by every node that can be reached, by those that come back, after restarts.

use std::path::Path;

use dunlin_tests::{Launch, Mesh, Node, Output, dunlin, wait_for};

/// A node that tries to come in by this token, with this data folder; it must end.
pub fn joins(data: &Path, token: &str) -> Output {
    let data = data.display().to_string();
    let listen = ["--http", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"];
    dunlin(&[&["run", "--data", &data], &listen[..], &["--join", token]].concat())
}

#[track_caller]
fn check_revoked(mesh: &Mesh, node: &Node, token: &str) {
    let began = std::time::Instant::now();
    let refused = joins(Path::new(&mesh.file("stranger")), token);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("the token was revoked"), "{refused:?}");
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    let client = dunlin(&["--node", &node.listen[0], "--token", token, "nodes"]);
    assert_eq!(client.code, Some(1), "{client:?}");
    assert!(client.stderr.contains("the token was revoked"), "{client:?}");
}

#[test]
fn a_rotation_revokes_the_tokens_of_before_on_every_node_for_good() {
    let mut mesh = Mesh::of(3);
    let before: Vec<String> = mesh.iter().map(Node::token).collect();
    // One is away meanwhile.
    mesh[2].stop();
    let rotated = mesh[1].cli(&["token", "--rotate", "--expires", "1h"]).ok();
    let after = rotated.stdout.trim().to_string();
    assert_eq!(rotated.stdout.lines().count(), 1, "{rotated:?}");
    assert!(after.starts_with("dunlin1"), "{rotated:?}");
    assert!(rotated.stderr.contains(&mesh[2].id), "it says who has not heard of it: {rotated:?}");
    for n in [0, 1] {
        check_revoked(&mesh, &mesh[n], &before[n]);
    }
    mesh[2].start();
    mesh.meet();
    check_revoked(&mesh, &mesh[2], &before[2]);

    // The new one lets in, and whoever came in by it is a member to all, also to those who start anew.
    let data = mesh.file("n3");
    let fourth = Launch::at(&data).join(&after).start();
    mesh.push(fourth);
    mesh.meet();
    for node in mesh.iter_mut() {
        node.stop();
    }
    for node in mesh.iter_mut() {
        node.launch();
    }
    for node in mesh.iter_mut() {
        node.wait_until_ready();
    }
    mesh.meet();
    for n in 0..3 {
        check_revoked(&mesh, &mesh[n], &before[n]);
    }
    let token = mesh[3].token();
    let client = dunlin(&["--node", &mesh[0].listen[0], "--token", &token, "nodes", "--json"]).ok();
    assert_eq!(client.lines().len(), 4);
    let mode = std::fs::metadata(mesh[0].data().join("rotations")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&mode) & 0o777, 0o600);

    // Once more: what was good until now is not any more.
    mesh[0].cli(&["token", "--rotate"]).ok();
    wait_for("the other nodes refuse it too", 30, || {
        let refused = dunlin(&["--node", &mesh[1].listen[0], "--token", &token, "nodes"]);
        (refused.code == Some(1)).then_some(())
    });
    check_revoked(&mesh, &mesh[1], &after);
    mesh.meet();
}
