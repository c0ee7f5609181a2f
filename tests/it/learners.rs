//! Stages that learn go on where they were when their node was killed, to the last bit.

use std::fmt::Write;

use dunlin_tests::Mesh;
use serde_json::Value;

const PIPELINE: &str = r#"
name = "learners"
[source.rows]
key  = "who"
time = "at"
[stage.later]
from  = ["rows"]
key   = "who"
learn = { target = "v", after = "1h" }
[stage.ahead]
from     = ["rows"]
key      = "who"
forecast = { target = "v", horizon = 3 }
[stage.odd]
from    = ["rows"]
key     = "who"
anomaly = { features = ["v", "w"], window = 40 }
"#;
const ROWS: u64 = 300;

fn rows(from: u64, to: u64) -> String {
    (from..to).fold(String::new(), |mut rows, n| {
        let who = ["a", "b"][n as usize % 2];
        let (v, w) = if n == 251 { (900, 900) } else { (100 + n * 7 % 13, 100 + n * 11 % 17) };
        let at = 1_772_000_000_000 + n * 600_000;
        writeln!(rows, r#"{{"who":"{who}","at":{at},"v":{v},"w":{w}}}"#).unwrap();
        rows
    })
}

/// What came of all rows; the node is killed as soon as it has taken half of them, or not.
fn said(killed: bool) -> Vec<Vec<Value>> {
    let mut mesh = Mesh::of(1);
    mesh.deploy(PIPELINE);
    for (name, from, to) in [("first", 0, ROWS / 2), ("second", ROWS / 2, ROWS)] {
        let file = mesh.write(name, &rows(from, to));
        mesh[0].cli(&["publish", "learners/rows", &file]).ok();
        if killed && from == 0 {
            mesh[0].kill();
            mesh[0].start();
        }
    }
    ["later", "ahead", "odd"].iter().for_each(|stage| mesh.wait_until_through("learners", stage, ROWS));
    let streams = ["later", "later.scores", "ahead", "ahead.scores", "odd"];
    let payloads = |stream: &&str| {
        let events = mesh[0].tail(&format!("learners/{stream}")).into_iter();
        events.map(|mut event| event["payload"].take()).collect()
    };
    streams.iter().map(payloads).collect()
}

#[test]
fn what_learning_stages_say_is_the_same_when_their_node_was_killed() {
    let (whole, killed) = (said(false), said(true));
    for (whole, killed) in whole.iter().zip(&killed) {
        assert!(whole.len() > 200, "{}", whole.len());
        assert_eq!(whole.len(), killed.len());
        whole.iter().zip(killed).for_each(|(one, other)| assert_eq!(one, other));
    }
    let odd = &whole[4];
    let tail = |event: &Value| event["tail_probability"].as_f64().unwrap();
    let rarest = odd.iter().min_by(|one, other| tail(one).total_cmp(&tail(other))).unwrap();
    assert_eq!(rarest["features"]["v"], 900.0, "{rarest}");
}
