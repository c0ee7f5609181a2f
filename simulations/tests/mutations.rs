//! The simulator finds bugs: each one planted in the core fails some of the first seeds of a scenario,
//! with the exit code of a broken promise (129) or of missing progress (128).
#![cfg(debug_assertions)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use dunlin_protocol::mutation::{MUTATIONS, Mutation, plant};
use dunlin_simulations::scenario::Scenario;
use dunlin_simulations::verdict::{self, Failure};

/// Seeds that may pass before one fails.
const SEEDS_MAX: u64 = 120;

/// Plants the bug and returns how the first seed that notices it ends.
fn first_failure(mutation: Mutation, scenario: &str) -> Failure {
    plant(Some(mutation));
    let found = (0..SEEDS_MAX).find_map(|seed| {
        let scenario = Scenario::named(scenario, seed).expect("a scenario of this name");
        verdict::once(seed, scenario, false).err()
    });
    plant(None);
    found.unwrap_or_else(|| panic!("{mutation:?} passed {SEEDS_MAX} seeds of {scenario}"))
}

#[track_caller]
fn check(mutation: Mutation, scenario: &str, code: u8, what: &str) {
    let failure = first_failure(mutation, scenario);
    assert_eq!(failure.code, code, "{mutation:?}: {}", failure.what);
    assert!(failure.what.contains(what), "{mutation:?}: {}", failure.what);
}

macro_rules! mutations {
    ($($test:ident $mutation:ident $scenario:literal $code:literal $what:literal)*) => {
        $(#[test] fn $test() { check(Mutation::$mutation, $scenario, $code, $what); })*
        const TESTED: &[Mutation] = &[$(Mutation::$mutation),*];
    };
}

mutations! {
    acknowledgement_before_persisted AcknowledgeEarly "power" 129 "is expected"
    readers_served_before_persisted ServeEarly "power" 129 ""
    skipped_position_check SkipPositionCheck "messages" 129 ""
    producers_forgotten ForgetProducers "crashes" 129 "stands 2 times"
    frontier_not_advanced FrontierStands "crashes" 128 "has read log"
    state_applied_before_persisted ApplyEarly "power" 129 ""
    memory_not_restored ForgetReplay "crashes" 129 ""
    reader_from_the_start_after_a_reconnect ReadFromStart "links" 129 ""
    close_not_synced LooseClose "redeploy-memory" 129 "does not sync what hands log"
    fold_not_inherited ForgetFold "redeploy" 129 ""
    state_not_copied ForgetState "redeploy" 129 ""
    successor_read_early PassEarly "redeploy-crashes" 129 ""
    unsynced_records_trusted TrustUnsynced "blackouts" 129 "promised to survive"
    damage_cut_away CutDamage "damage" 129 ""
    served_though_facts_are_damaged OpenThoughDamaged "damaged-facts" 129 "nobody removed it"
    size_of_a_log_ignored NeverFull "stalled-reader" 129 "unread bytes"
    unread_records_dropped TruncateUnread "full-log" 129 ""
    epoch_used_twice ReuseEpoch "crashes" 129 "began behind epoch"
    watermark_behind_an_idle_source WatermarkBack "crashes" 129 "goes back"
    full_log_asleep SleepWhenFull "full-log" 128 "are not done"
    hub_joined_anywhere JoinAnywhere "taps" 129 "a tap on"
    fallen_off_a_hub ForgetTheFallen "taps" 129 "and not"
    failures_not_counted ParkForever "refusals" 128 ""
    members_gone_for_ever StayGone "links" 128 ""
    modules_asked_for_once AskModulesOnce "messages" 128 "the deploy"
    idle_mark_by_another_clock IdleByOldClock "long-cuts" 128 "idle"
    parked_events_overtaken OvertakeParked "refusals" 129 "came out behind"
    credit_ignored IgnoreCredit "no-credit" 129 "granted bytes were sent"
    removed_node_awaited AwaitTheRemoved "given-up" 128 ""
    removed_node_heard HearTheRemoved "given-up" 129 "listens to it"
    older_copy_trusted TrustOldCopy "old-copy" 129 "older copy"
    floor_not_raised ForgetFloor "damage-retention" 129 "did not notice"
    broadcasts_of_anyone_taken TakeFromAnyone "fan-out-faults" 129 "with other bytes"
    broadcasts_taken_over_gaps TakeOverGaps "fan-out" 129 "and not"
    catalog_told_before_persisted TellCatalogEarly "crashes" 129 "does not stand on its disk"
}

#[test]
fn every_mutation_has_its_test() {
    let missing: Vec<&Mutation> = MUTATIONS.iter().filter(|mutation| !TESTED.contains(mutation)).collect();
    assert!(missing.is_empty(), "add to the list above: {missing:?}");
}
