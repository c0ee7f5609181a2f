//! A publisher's retry through another node: it names the log that holds its sequences.

use dunlin_tests::{Mesh, Output, try_for, wait_for};

use crate::counting::{Ledger, pipeline};

fn log_of(published: &Output) -> String {
    published.json()["log"].as_str().unwrap().to_string()
}

#[test]
fn a_retry_through_another_node_is_stored_once_in_the_log_that_it_names() {
    let mut mesh = Mesh::of(3);
    mesh.deploy(&pipeline("else", ""));
    mesh.deploy(&pipeline("other", ""));
    let mut ledger = Ledger::over(5);
    let first = ledger.write(0, 1500);
    let more = first.clone() + &ledger.write(0, 1500);
    let (first, more) = (mesh.write("first.jsonl", &first), mesh.write("more.jsonl", &more));
    let publish = |mesh: &Mesh, node: usize, words: &[&str]| {
        let all = [&["publish", "--json", "--producer", "p"][..], words].concat();
        mesh[node].cli(&all)
    };
    let begun = publish(&mesh, 0, &["else/events", &first]).ok();
    let log = log_of(&begun);

    // The same and more, through another node: only what is missing is added, and there.
    let again = publish(&mesh, 1, &["--log", &log, "else/events", &more]).ok();
    assert_eq!(log_of(&again), log);
    ledger.check_counts(&mesh[1], "else");

    // A log of another stream is not meant.
    let wrong = publish(&mesh, 1, &["--log", &log, "other/events", &more]);
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    assert!(wrong.stderr.contains("is one of 'else/events'"), "{wrong:?}");
    // Nor is a log without a producer, whose lines would count again.
    assert_eq!(mesh[1].cli(&["publish", "--log", &log, "else/events", &more]).code, Some(2));

    // While the log's writer is away there is one sentence, and nothing is taken elsewhere.
    let late = std::fs::read_to_string(&more).unwrap() + &ledger.write(0, 1000);
    let late = mesh.write("late.jsonl", &late);
    let writer = mesh[0].id.clone();
    mesh[0].kill();
    for node in [1, 2] {
        let refused = wait_for("the other nodes know that it is away", 30, || {
            let refused = publish(&mesh, node, &["--log", &log, "else/events", &late]);
            assert_ne!(refused.code, Some(0), "{refused:?}");
            refused.stderr.contains("cannot be reached now").then_some(refused)
        });
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
        assert!(refused.stderr.contains(&writer) && refused.stderr.contains(&log), "{refused:?}");
    }

    // It comes back while others ask for it: whatever it says meanwhile, it never counts anything twice.
    mesh[0].launch();
    let taken = try_for(60, || {
        let published = publish(&mesh, 2, &["--log", &log, "else/events", &late]);
        (published.code == Some(0)).then_some(published)
    });
    let taken = taken.expect("the writer is back within a minute");
    assert_eq!(log_of(&taken), log);
    mesh[0].wait_until_ready();
    publish(&mesh, 1, &["--log", &log, "else/events", &late]).ok();
    publish(&mesh, 0, &["else/events", &late]).ok();
    ledger.check_counts(&mesh[2], "else");
    ledger.check_order(&mesh[2], "else");
}
