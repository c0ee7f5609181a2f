//! Events published on any node arrive at the keyed actor on another: in order, exactly once.

use std::collections::BTreeSet;

use dunlin_tests::Mesh;

use crate::counting::{Ledger, number, pipeline};

#[test]
fn two_hundred_thousand_events_are_counted_exactly_across_three_processes() {
    let mesh = Mesh::of(3);
    mesh.deploy(&pipeline("flow", ""));
    let mut ledger = Ledger::over(97);
    let publishing: Vec<_> = [66_000, 67_000, 67_000]
        .into_iter()
        .enumerate()
        .map(|(at, count)| {
            let file = mesh.write(&format!("events{at}.jsonl"), &ledger.write(at, count));
            let producer = format!("p{at}");
            let words = ["publish", "--json", "--producer", &producer, "flow/events", &file];
            (count, mesh[at].cli_started(&words, b""))
        })
        .collect();
    for (count, publishing) in publishing {
        let taken = publishing.wait(240).ok().json();
        assert_eq!((number(&taken["acknowledged"]), number(&taken["rejected"])), (count, 0));
    }
    ledger.check_counts(&mesh[1], "flow");
    ledger.check_order(&mesh[2], "flow");

    // Work was really spread: the keyed actors stand on all three nodes.
    let shown = mesh[0].show("flow");
    let seen = shown["stages"].as_array().unwrap().iter().find(|stage| stage["stage"] == "seen").unwrap();
    let homes: BTreeSet<_> =
        seen["actors"].as_array().unwrap().iter().map(|actor| actor["node"].as_str().unwrap()).collect();
    assert_eq!(homes.len(), 3, "{seen:#}");

    // The same file again, as the same producer: everything is known, and acknowledged like before.
    let file = mesh.file("events0.jsonl").display().to_string();
    let lines = std::fs::read_to_string(&file).unwrap();
    let words = ["publish", "--json", "--producer", "p0", "flow/events", &file];
    let taken = mesh[0].cli(&words).ok().json();
    let known = lines.lines().count() as u64;
    assert_eq!((number(&taken["acknowledged"]), number(&taken["rejected"])), (known, 0));
    ledger.check_counts(&mesh[0], "flow");
}
