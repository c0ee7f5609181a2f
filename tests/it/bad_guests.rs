//! Functions that do what they must not, in a real node: each is stopped within its limits, the
//! poison event ends as one dead letter, and the neighbours go on.

use std::collections::BTreeMap;
use std::time::Duration;

use dunlin_tests::{Mesh, Node, guest, try_for, wait_for};
use serde_json::Value;

use crate::counting::number;
use crate::latency::{Peak, Probe, calm_pipeline};

const ATTEMPTS: u64 = 5;
/// All of a node's memory while its guests do their worst.
const MEMORY_MAX: u64 = 768 << 20;
/// A neighbour's event, on a machine that is busy with other tests as well.
const P99_MAX: Duration = Duration::from_secs(10);

/// What each kind's reason must say.
const KINDS: [(&str, &str); 10] = [
    ("panic", "this guest panics on purpose"),
    ("loop", "used up its fuel"),
    ("eat", "more than its 32 MiB of memory"),
    ("recurse", "recursion"),
    ("gigabyte", "memory"),
    ("flood-host", "called the host more than"),
    ("flood-state", "called the host more than"),
    ("big-output", "an event may have"),
    ("many-outputs", "more than its 32 MiB of memory"),
    ("exit", "exit status"),
];

fn wild(name: &str) -> String {
    format!(
        r#"
name = "{name}"
[source.events]
key = "k"
[stage.wild]
from   = ["events"]
wasm   = "{}"
limits = {{ fuel = "1000M", memory = "32MiB" }}
"#,
        guest("trouble").display()
    )
}

fn event(key: &str, word: &str) -> String {
    format!("{{\"k\":\"{key}\",\"do\":\"{word}\"}}\n")
}

fn dead_letters(node: &Node, pipeline: &str) -> Vec<Value> {
    node.cli(&["dead-letters", pipeline, "--json"]).ok().lines()
}

/// (taken in, given out, waiting) of the stage.
fn progress(node: &Node, pipeline: &str) -> Option<(u64, u64, u64)> {
    let shown = node.show(pipeline);
    let stage = shown["stages"].as_array()?.iter().find(|stage| stage["stage"] == "wild")?.clone();
    let sum = |field: &str| stage["actors"].as_array().unwrap().iter().map(|it| number(&it[field])).sum();
    Some((sum("events_in"), sum("events_out"), sum("lag")))
}

#[track_caller]
fn publish(mesh: &Mesh, pipeline: &str, lines: &str) {
    let file = mesh.write(&format!("{pipeline}.jsonl"), lines);
    mesh[0].cli(&["publish", &format!("{pipeline}/events"), &file]).ok();
}

#[test]
fn every_kind_of_trouble_ends_as_one_dead_letter_and_the_neighbours_go_on() {
    let mesh = Mesh::of(1);
    mesh.deploy(&calm_pipeline("calm"));
    mesh.deploy(&wild("wild"));
    let mut probe = Probe::start(&mesh[0], "calm");
    let before = probe.measure_events(200);

    // Two of 20,000 trap, and one event of each other kind is strewn in between.
    let mut lines = String::new();
    let mut good = 0;
    for n in 0..20_000 {
        if n % 10_000 == 5_000 {
            lines += &event(&format!("rare{n}"), "panic");
        }
        if n % 2_000 == 1_000 {
            let (word, _) = KINDS[n / 2_000];
            lines += &event(&format!("kind-{word}"), word);
        }
        lines += &event(&format!("K{}", n % 100), "nothing");
        good += 1;
    }
    let events = lines.lines().count() as u64;
    let peak = Peak::of(&mesh[0]);
    publish(&mesh, "wild", &lines);
    let mut last = None;
    let mut seen = 0;
    let during = probe.measure(Duration::from_millis(20), || {
        seen += 1;
        // Asked now and then: it is not what is measured.
        if seen % 25 == 0 {
            last = progress(&mesh[0], "wild");
        }
        last.is_some_and(|(taken, _, lag)| taken >= events && lag == 0) || seen > 9_000
    });
    let most = peak.bytes();
    eprintln!(
        "neighbours alone: {before}\nneighbours of bad guests: {during}\nmost memory: {} MiB",
        most >> 20
    );

    let letters = dead_letters(&mesh[0], "wild");
    let mut by_key: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for letter in &letters {
        assert_eq!(
            (letter["stage"].as_str(), number(&letter["attempts"])),
            (Some("wild"), ATTEMPTS),
            "{letter}"
        );
        by_key.entry(letter["event"]["key"].as_str().unwrap()).or_default().push(letter);
    }
    assert_eq!(letters.len(), KINDS.len() + 2, "{letters:#?}");
    for (word, reason) in KINDS {
        let letters = &by_key[format!("kind-{word}").as_str()];
        assert_eq!(letters.len(), 1, "{word}: {letters:?}");
        let said = letters[0]["reason"].as_str().unwrap();
        assert!(said.contains(reason), "{word}: '{reason}' is not in: {said}");
    }
    let (taken, out, lag) = progress(&mesh[0], "wild").unwrap();
    assert_eq!((taken, out, lag), (events, good, 0), "every good event was taken, once");
    assert!(most < MEMORY_MAX, "{most} bytes");
    assert!(during.p99 < P99_MAX, "{during}, alone {before}");
    assert_eq!(mesh[0].get("/healthz").status, 200);
}

#[test]
fn a_function_that_always_traps_holds_up_nobody() {
    let mut mesh = Mesh::of(1);
    mesh.deploy(&calm_pipeline("calm"));
    mesh.deploy(&wild("always"));
    let lines: String = (0..60).map(|n| event(&format!("K{n}"), "panic")).collect();
    publish(&mesh, "always", &lines);
    // Its retries are on the disk: a kill does not begin them anew, nor end them.
    wait_for("they wait for another try", 30, || {
        (mesh[0].show("always").to_string().contains("parked")).then_some(())
    });
    mesh[0].kill();
    mesh[0].start();
    let whole = try_for(60, || (dead_letters(&mesh[0], "always").len() >= 60).then_some(()));
    let letters = dead_letters(&mesh[0], "always");
    assert!(whole.is_some() && letters.len() == 60, "{} dead letters", letters.len());
    for letter in letters {
        assert_eq!(number(&letter["attempts"]), ATTEMPTS, "{letter}");
    }
    assert_eq!(progress(&mesh[0], "always"), Some((60, 0, 0)));
    let mut probe = Probe::start(&mesh[0], "calm");
    eprintln!("behind it: {}", probe.measure_events(50));
}
