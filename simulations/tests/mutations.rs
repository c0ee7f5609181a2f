//! The simulator finds bugs: each one planted in the core fails some of the first seeds, with the exit
//! code of a broken promise.
#![cfg(debug_assertions)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use dunlin_protocol::mutation::{MUTATIONS, Mutation, plant};
use dunlin_simulations::scenario::Scenario;
use dunlin_simulations::verdict::{self, Failure};

/// Seeds that may pass before one fails.
const SEEDS_MAX: u64 = 40;

/// Plants the bug and returns how the first seed that notices it ends.
fn first_failure(mutation: Mutation, scenario: &str) -> Failure {
    let scenario = Scenario::named(scenario).expect("a scenario of this name");
    plant(Some(mutation));
    let found = (0..SEEDS_MAX).find_map(|seed| verdict::once(seed, scenario, false).err());
    plant(None);
    found.unwrap_or_else(|| panic!("{mutation:?} passed {SEEDS_MAX} seeds of {}", scenario.name))
}

#[track_caller]
fn check(mutation: Mutation, scenario: &str, code: u8, what: &str) {
    let failure = first_failure(mutation, scenario);
    assert_eq!(failure.code, code, "{mutation:?}: {}", failure.what);
    assert!(failure.what.contains(what), "{mutation:?}: {}", failure.what);
}

macro_rules! mutations {
    ($($test:ident $mutation:ident $scenario:literal $what:literal)*) => {
        $(#[test] fn $test() { check(Mutation::$mutation, $scenario, 129, $what); })*
        const TESTED: &[Mutation] = &[$(Mutation::$mutation),*];
    };
}

mutations! {
    acknowledgement_before_persisted AcknowledgeEarly "power" "is expected"
    readers_served_before_persisted ServeEarly "power" ""
    skipped_position_check SkipPositionCheck "messages" ""
    producers_forgotten ForgetProducers "crashes" "stands 2 times"
    frontier_not_advanced FrontierStands "crashes" ""
    state_applied_before_persisted ApplyEarly "power" ""
    memory_not_restored ForgetReplay "crashes" ""
    reader_from_the_start_after_a_reconnect ReadFromStart "links" ""
    credit_ignored IgnoreCredit "no-credit" "granted bytes"
    close_not_synced LooseClose "redeploy-memory" "does not sync what hands log"
    fold_not_inherited ForgetFold "redeploy" ""
    state_not_copied ForgetState "redeploy" ""
    successor_read_early PassEarly "redeploy" ""
}

#[test]
fn every_mutation_has_its_test() {
    let missing: Vec<&Mutation> = MUTATIONS.iter().filter(|mutation| !TESTED.contains(mutation)).collect();
    assert!(missing.is_empty(), "add to the list above: {missing:?}");
}
