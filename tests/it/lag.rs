//! What `show` says of events that wait: all of them, and none when all is done.

use dunlin_tests::{Mesh, Node, try_for};

use crate::counting::number;
use crate::outside::{Outside, Says};

/// All events that wait for the stage's actors.
fn lag(node: &Node, pipeline: &str, stage: &str) -> u64 {
    let shown = node.show(pipeline);
    let stages = shown["stages"].as_array().unwrap();
    let actors = stages.iter().find(|shown| shown["stage"] == stage).unwrap()["actors"].as_array().unwrap();
    actors.iter().map(|actor| number(&actor["lag"])).sum()
}

/// The lag comes to be exactly this.
#[track_caller]
fn check(node: &Node, pipeline: &str, stage: &str, expect: u64) {
    let mut told = 0;
    let right = try_for(60, || {
        told = lag(node, pipeline, stage);
        (told == expect).then_some(())
    });
    assert!(right.is_some(), "{expect} events wait, the lag is {told}");
}

fn lines(count: u64, filling: usize) -> String {
    let filling = "x".repeat(filling);
    (0..count).map(|n| format!("{{\"k\":\"K{}\",\"n\":{n},\"x\":\"{filling}\"}}\n", n % 9)).collect()
}

#[test]
fn a_stuck_sink_shows_all_that_waits_also_what_its_credit_keeps_from_it() {
    let mut mesh = Mesh::of(1);
    let outside = Outside::start(Says::Nothing);
    mesh.deploy(&format!(
        r#"
name = "behind"
[source.events]
key = "k"
[sink.out]
from = ["events"]
http = {{ url = "{}" }}
"#,
        outside.url
    ));
    let publish = |mesh: &Mesh, text: &str| {
        mesh[0].cli(&["publish", "behind/events", &mesh.write("behind.jsonl", text)]).ok();
    };
    // Few events in many bytes, many in few: what a record holds says nothing of the next one.
    for filling in [30_000, 0, 1000, 7] {
        publish(&mesh, &lines(50, filling));
    }
    check(&mesh[0], "behind", "out", 200);
    publish(&mesh, &lines(20_000, 20));
    check(&mesh[0], "behind", "out", 20_200);
    for n in 0..50 {
        mesh[0].post("/v1/streams/behind/events", &[], &format!("{{\"k\":\"a\",\"n\":{n}}}\n"));
    }
    check(&mesh[0], "behind", "out", 20_250);
    mesh[0].kill();
    mesh[0].start();
    check(&mesh[0], "behind", "out", 20_250);
    outside.now(Says::Yes);
    check(&mesh[0], "behind", "out", 0);
}

#[test]
fn what_waits_for_a_node_that_is_away_is_shown_by_the_others() {
    let mut mesh = Mesh::of(2);
    mesh.deploy(
        r#"
name = "away"
[source.events]
key = "k"
[stage.cheap]
from  = ["events"]
learn = { target = "n", after = "1h" }
key   = "k"
[sink.out]
from = ["cheap"]
file = { path = "out.jsonl" }
[placement.cheap]
labels = { n = "1" }
shares = 4
"#,
    );
    let file = mesh.write("away.jsonl", &lines(1000, 10));
    mesh[0].cli(&["publish", "away/events", &file]).ok();
    check(&mesh[0], "away", "cheap", 0);
    check(&mesh[0], "away", "out", 0);
    mesh[1].kill();
    mesh[0].cli(&["publish", "away/events", &file]).ok();
    // Exact but for what each of the four shares is of the whole.
    let told = try_for(60, || (1000..=1004).contains(&lag(&mesh[0], "away", "cheap")).then_some(()));
    assert!(told.is_some(), "1000 events wait, the lag is {}", lag(&mesh[0], "away", "cheap"));
    // Its own node has all that there is for it.
    check(&mesh[0], "away", "out", 0);
    mesh[1].start();
    check(&mesh[0], "away", "cheap", 0);
    check(&mesh[0], "away", "out", 0);
}
