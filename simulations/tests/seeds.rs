//! Seeds that once failed, and fresh ones of every scenario; each runs twice and leaves one trace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use dunlin_simulations::scenario::{SCENARIOS, Scenario};
use dunlin_simulations::verdict;

const REGRESSIONS: &str = include_str!("../seeds/regressions.txt");
/// Seeds of each scenario; `simulate --seeds` runs as many as one likes.
const FRESH: u64 = 5;

#[track_caller]
fn check(seed: u64, scenario: Scenario) {
    if let Err(failure) = verdict::twice(seed, scenario, false) {
        let replay = format!("cargo run -p dunlin-simulations -- --seed {seed} --scenario {}", scenario.name);
        panic!("seed {seed} of {}: exit {}, {}\nreplay: {replay}", scenario.name, failure.code, failure.what);
    }
}

#[track_caller]
fn check_all(name: &str) {
    let scenario = Scenario::named(name).expect("a scenario of this name");
    (0..FRESH).for_each(|seed| check(seed, scenario));
}

macro_rules! scenarios {
    ($($test:ident $name:literal)*) => {
        $(#[test] fn $test() { check_all($name); })*
        const TESTED: &[&str] = &[$($name),*];
    };
}

scenarios! {
    calm "calm"
    links "links"
    crashes "crashes"
    power "power"
    lone "lone"
    messages "messages"
    memory "memory"
    page "page"
    late_join "late-join"
    absent "absent"
    full_disk "full-disk"
    stalled_reader "stalled-reader"
    no_credit "no-credit"
    redeploy "redeploy"
    redeploy_crashes "redeploy-crashes"
    redeploy_power "redeploy-power"
    redeploy_memory "redeploy-memory"
    redeploy_absent "redeploy-absent"
    redeploy_full "redeploy-full"
    rivals "rivals"
    rivals_crashes "rivals-crashes"
}

#[test]
fn every_scenario_has_its_test() {
    let missing: Vec<&str> =
        SCENARIOS.iter().map(|scenario| scenario.name).filter(|name| !TESTED.contains(name)).collect();
    assert!(missing.is_empty(), "add to the list above: {missing:?}");
}

#[test]
fn seeds_that_once_failed_pass() {
    for line in REGRESSIONS.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let mut words = line.split_whitespace();
        let seed = words.next().and_then(|word| word.parse().ok()).expect("a line begins with its seed");
        let scenario = words.next().and_then(Scenario::named).expect("the second word is a scenario");
        check(seed, scenario);
    }
}
