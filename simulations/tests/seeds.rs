//! Seeds that once failed, fresh ones of every scenario, and hundreds of the swarm; each runs twice and
//! leaves one trace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::ops::Range;

use dunlin_simulations::scenario::{SCENARIOS, Scenario};
use dunlin_simulations::verdict;

const REGRESSIONS: &str = include_str!("../seeds/regressions.txt");
/// Seeds of each named scenario; `simulate --seeds` runs as many as one likes.
const FRESH: u64 = 2;

#[track_caller]
fn check(seed: u64, name: &str) {
    let scenario = Scenario::named(name, seed).expect("a scenario of this name");
    if let Err(failure) = verdict::twice(seed, scenario, false) {
        let replay = verdict::replay(seed, name);
        panic!("seed {seed} of {name}: exit {}, {}\nreplay: {replay}", failure.code, failure.what);
    }
}

#[track_caller]
fn check_all(seeds: Range<u64>, name: &str) {
    seeds.for_each(|seed| check(seed, name));
}

macro_rules! scenarios {
    ($($test:ident $name:literal)*) => {
        $(#[test] fn $test() { check_all(0..FRESH, $name); })*
        const TESTED: &[&str] = &[$($name),*, "swarm", "swarm-redeploys", "swarm-removals", "swarm-gossip"];
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
    taps "taps"
    fan_out "fan-out"
    fan_out_faults "fan-out-faults"
    fan_out_memory "fan-out-memory"
    damage "damage"
    damage_retention "damage-retention"
    blackouts "blackouts"
    refusals "refusals"
    facts "facts"
    damaged_facts "damaged-facts"
    full_log "full-log"
    long_cuts "long-cuts"
    given_up "given-up"
    given_up_crashes "given-up-crashes"
    given_up_redeploys "given-up-redeploys"
    given_up_retention "given-up-retention"
    given_up_twice "given-up-twice"
    given_up_twice_redeploys "given-up-twice-redeploys"
    replaced "replaced"
    old_copy "old-copy"
    old_copy_crashes "old-copy-crashes"
    learners "learners"
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
fn swarm_first_hundred() {
    check_all(0..100, "swarm");
}

#[test]
fn swarm_second_hundred() {
    check_all(100..200, "swarm");
}

#[test]
fn swarm_third_hundred() {
    check_all(200..300, "swarm");
}

#[test]
fn swarm_of_removals() {
    check_all(0..30, "swarm-removals");
}

#[test]
fn swarm_of_gossip() {
    check_all(0..30, "swarm-gossip");
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
        check(seed, words.next().expect("the second word is a scenario"));
    }
}
