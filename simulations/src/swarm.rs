//! Swarm testing: each seed draws its own mix of faults and parameters, and leaves most of them out,
//! so that faults which hide one another strike apart in some seeds and together in others.
//! <https://users.cs.utah.edu/~regehr/papers/swarm12.pdf>

use dunlin_protocol::peer::GossipBounds;
use dunlin_protocol::time::Span;

use crate::chance::Chance;
use crate::climate::Climate;
use crate::faults::{FAULTS, Fault, Faults};
use crate::scenario::{Beside, PIPELINE, Scenario, Trial};

pub fn drawn(chance: &mut Chance) -> Scenario {
    let retention = *chance.pick(&[
        "",
        "",
        r#"{ bytes = "64KiB", age = "1s" }"#,
        r#"{ bytes = "256KiB", age = "3s" }"#,
        r#"{ age = "2s" }"#,
    ]);
    let padding = *chance.pick(&[0, 0, 0, 200, 1_000]);
    let mut scenario = Scenario {
        name: "swarm",
        nodes: *chance.pick(&[1, 2, 3, 3, 3, 4, 5]),
        publishers: chance.between(1, 4) as usize,
        events_each: chance.between(20, if padding > 200 { 150 } else { 300 }),
        chaos: Span(chance.between(2_000, 15_000)),
        durability: match chance.between(0, 4) {
            0 => "memory",
            1 => "page",
            _ => "disk",
        },
        pipeline: PIPELINE,
        more: "",
        retention,
        segment_bytes: *chance.pick(&[2 << 10, 8 << 10, 64 << 10]),
        padding,
        poison: maybe(chance, &[20, 60]),
        gossip: GossipBounds::default(),
        climate: climate(chance),
        faults: faults(chance),
        // The last draws, so that a seed's others are the same with them and without.
        trial: if chance.one_in(4) { Trial::Redeploy } else { Trial::None },
    };
    scenario.faults = scenario.faults.with(Fault::Letters, maybe(chance, &[400, 2_000]));
    scenario
}

/// The same with redeploys in every seed.
pub fn drawn_with_redeploys(chance: &mut Chance) -> Scenario {
    Scenario { name: "swarm-redeploys", trial: Trial::Redeploy, ..drawn(chance) }
}

/// The same, and the last node dies for good and is given up, in some seeds by both sides of a cut.
pub fn drawn_with_removal(chance: &mut Chance) -> Scenario {
    let scenario = drawn(chance);
    let nodes = scenario.nodes.max(3);
    let beside = *chance.pick(&[Beside::Nothing, Beside::Redeploys, Beside::Cut, Beside::CutAndRedeploys]);
    Scenario { name: "swarm-removals", nodes, trial: Trial::GiveUp(beside), ..scenario }
}

/// The same with gossip from the first or the second tapping node on; taps come and go more often.
pub fn drawn_with_gossip(chance: &mut Chance) -> Scenario {
    let scenario = drawn(chance);
    let from_nodes = *chance.pick(&[1, 2]);
    let climate = Climate {
        gossip_loss: maybe(chance, &[10, 100]),
        forged: maybe(chance, &[20, 200]),
        ..scenario.climate
    };
    Scenario {
        name: "swarm-gossip",
        nodes: scenario.nodes.max(2),
        gossip: GossipBounds { from_nodes, below_nodes: from_nodes },
        climate,
        faults: scenario.faults.with(Fault::Tap, *chance.pick(&[300, 1_000, 3_000])),
        ..scenario
    }
}

/// One of these values once in three times, else 0.
fn maybe(chance: &mut Chance, values: &[u64]) -> u64 {
    let value = *chance.pick(values);
    if chance.one_in(3) { value } else { 0 }
}

fn climate(chance: &mut Chance) -> Climate {
    Climate {
        latency_ms: *chance.pick(&[1, 5, 12, 60]),
        stragglers: *chance.pick(&[5, 20, 100]),
        link_loss: maybe(chance, &[200, 1_000]),
        message_loss: maybe(chance, &[30, 200]),
        gossip_loss: 0,
        forged: 0,
        reorder: maybe(chance, &[20, 200]),
        corrupt: maybe(chance, &[300, 2_000]),
        sync_ms: *chance.pick(&[1, 4, 20]),
        slow_syncs: maybe(chance, &[20, 200]),
        failing_syncs: maybe(chance, &[50, 400]),
        power_loss: chance.one_in(2),
        call_ms: *chance.pick(&[0, 3, 20]),
        slow_calls: maybe(chance, &[50, 500]),
        traps: maybe(chance, &[10, 100]),
        clock_off_ms: maybe(chance, &[2_000, 3_600_000]),
        clock_drift: maybe(chance, &[50, 400]),
    }
}

/// Each kind strikes in one seed of three, at a pace of its own.
fn faults(chance: &mut Chance) -> Faults {
    FAULTS.iter().filter(|fault| **fault != Fault::Letters).fold(Faults::NONE, |faults, fault| {
        let every = match fault {
            Fault::Crash | Fault::Kill | Fault::CrashInside => [800, 2_500],
            Fault::Pause | Fault::Cut | Fault::Silence | Fault::Clog => [1_000, 4_000],
            Fault::Flap | Fault::FullDisk | Fault::Stall => [2_000, 5_000],
            Fault::Damage => [3_000, 8_000],
            Fault::Tap => [500, 2_000],
            Fault::Neighbour | Fault::Letters => [500, 3_000],
        };
        faults.with(*fault, maybe(chance, &every))
    })
}
