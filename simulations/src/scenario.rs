//! What a run does: the mesh, the pipeline, the weather, the faults. A seed draws what a scenario
//! leaves open; `swarm` leaves nearly everything open.

use dunlin_protocol::peer::GossipBounds;
use dunlin_protocol::time::Span;

use crate::chance::Chance;
use crate::climate::Climate;
use crate::faults::{Fault, Faults};
use crate::swarm;

#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub nodes: usize,
    pub publishers: usize,
    pub events_each: u64,
    /// How long faults strike.
    pub chaos: Span,
    pub durability: &'static str,
    pub pipeline: &'static str,
    /// Stages behind those of `pipeline`.
    pub more: &'static str,
    /// `[retention]`, empty for the default.
    pub retention: &'static str,
    /// A segment of the simulated disks is closed at this size.
    pub segment_bytes: u64,
    /// Bytes that fill each event up.
    pub padding: usize,
    /// One in so many events is refused by the guest of stage `count` whenever it sees it; 0 for none.
    pub poison: u64,
    /// From how many nodes on a stream goes by gossip.
    pub gossip: GossipBounds,
    pub climate: Climate,
    pub faults: Faults,
    /// What happens besides.
    pub trial: Trial,
}

/// One thing that a run tries besides its faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    None,
    /// The last node starts for the first time while events flow.
    LateJoin,
    /// The last node is down during the deploy, and again during the removal at the end.
    Absent,
    /// A disk is full for a while, again and again.
    FullDisk,
    /// This stage's outside is away for the whole phase of faults.
    Stalled(&'static str),
    /// Changed files are deployed while events flow, on any node.
    Redeploy,
    /// The same, and the last node is away during the first deploy and some of the later ones.
    RedeployAbsent,
    /// The same, and the mesh is cut in two again and again while both sides deploy.
    Rivals,
    /// Changed files while disks are full.
    RedeployFull,
    /// The last node dies for good, and is given up.
    GiveUp(Beside),
    /// A node's disk is wiped: it comes back as a new node, and the old one is given up.
    Replace,
    /// The last node's data folder is put back from an older copy, again and again.
    OldCopy,
    /// Clients of every node follow the same stream.
    Everywhere,
}

/// What happens beside a node's being given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    Nothing,
    /// Changed files are deployed.
    Redeploys,
    /// The others are cut in two, and both sides give the node up, each for itself.
    Cut,
    CutAndRedeploys,
}

impl Beside {
    pub fn redeploys(self) -> bool {
        matches!(self, Beside::Redeploys | Beside::CutAndRedeploys)
    }

    pub fn is_cut(self) -> bool {
        matches!(self, Beside::Cut | Beside::CutAndRedeploys)
    }
}

/// Source, filter, guest, fused map, learning stage, another guest, sink: every edge and every kind of
/// home.
pub const PIPELINE: &str = r#"
name = "sim"
durability = "DURABILITY"
RETENTION

[source.in]
key = "key"

[stage.some]
from = ["in"]
filter = "event.v >= 0"

[stage.count]
from = ["some"]
key = "key"
wasm = "0000000000000000000000000000000000000000000000000000000000000000"

[stage.twice]
from = ["count"]
map = { producer = "event.producer", n = "event.n", key = "event.key", v = "event.v * 2", count = "event.count" }

[stage.last]
from = ["twice"]
key = "v"
wasm = "0000000000000000000000000000000000000000000000000000000000000000"

[stage.guess]
from = ["twice"]
key = "key"
learn = { target = "v", after = "20s" }

[sink.out]
from = ["twice"]
stdout = {}

[placement.count]
shares = 4

[placement.last]
shares = 3

[placement.guess]
shares = 2
"#;

/// The pipeline as its file number `number` has it: one bit of `changes` for each place that may differ.
pub fn changed(text: &str, number: u64, changes: u64) -> String {
    let has = |bit: u64| changes & (1 << bit) != 0;
    let mut text = text.to_owned();
    let mut change = |bit: u64, from: &str, to: &str| {
        if has(bit) {
            assert!(text.contains(from), "the pipeline's text has no '{from}'");
            text = text.replacen(from, to, 1);
        }
    };
    change(0, "event.v >= 0", &format!("event.v >= 0 - {number}"));
    let config = format!("config = {{ revision = {number} }}");
    change(1, "key = \"key\"\nwasm", &format!("{config}\nkey = \"key\"\nwasm"));
    change(2, "key = \"v\"\nwasm", &format!("{config}\nkey = \"v\"\nwasm"));
    change(3, "event.v * 2", &format!("event.v * 2 + {number} - {number}"));
    change(4, "[source.in]", &format!("[source.in]\nlateness = \"{number}s\""));
    change(5, "[stage.count]\nfrom = [\"some\"]", BETWEEN);
    change(6, "[sink.out]", "[sink.more]\nfrom = [\"some\"]\nstdout = {}\n\n[sink.out]");
    change(7, "[sink.out]\nfrom = [\"twice\"]", "[sink.out]\nfrom = [\"twice\", \"count\"]");
    text
}

/// Stages that learn in other ways than `guess`, each of which keeps a journal of its own.
const LEARNERS: &str = r#"
[stage.ahead]
from = ["twice"]
key = "key"
forecast = { target = "v", horizon = 3 }

[stage.odd]
from = ["twice"]
key = "key"
anomaly = { features = ["v", "n"], window = 20 }

[placement.ahead]
shares = 2

[placement.odd]
shares = 2
"#;

/// One more stage fused in front of `count`.
const BETWEEN: &str = r#"[stage.between]
from = ["some"]
filter = "event.v >= 0"

[stage.count]
from = ["between"]"#;

const CALM: Scenario = Scenario {
    name: "calm",
    nodes: 3,
    publishers: 4,
    events_each: 500,
    chaos: Span(8_000),
    durability: "disk",
    pipeline: PIPELINE,
    more: "",
    retention: "",
    segment_bytes: 16 << 10,
    padding: 0,
    poison: 0,
    gossip: GossipBounds { from_nodes: 6, below_nodes: 5 },
    climate: Climate::FAIR,
    faults: Faults::NONE,
    trial: Trial::None,
};

const POWER: Climate = Climate { power_loss: true, ..Climate::FAIR };
const CRASHES: Faults = Faults::NONE.with(Fault::Crash, 1_200);

/// Every scenario by name; `swarm` is drawn anew for each seed.
pub static SCENARIOS: [Scenario; 47] = [
    CALM,
    Scenario {
        name: "links",
        climate: Climate { link_loss: 400, ..Climate::FAIR },
        faults: Faults::NONE.with(Fault::Cut, 1_500),
        ..CALM
    },
    Scenario {
        name: "crashes",
        climate: Climate { link_loss: 2_000, ..Climate::FAIR },
        faults: CRASHES.with(Fault::CrashInside, 3_000),
        ..CALM
    },
    Scenario { name: "power", climate: POWER, faults: CRASHES, ..CALM },
    Scenario {
        name: "lone",
        nodes: 1,
        climate: POWER,
        faults: Faults::NONE.with(Fault::Crash, 2_000),
        ..CALM
    },
    Scenario {
        name: "messages",
        climate: Climate { message_loss: 60, ..Climate::FAIR },
        faults: Faults::NONE.with(Fault::Cut, 3_000),
        ..CALM
    },
    Scenario { name: "memory", durability: "memory", climate: POWER, faults: CRASHES, ..CALM },
    Scenario { name: "page", durability: "page", climate: POWER, faults: CRASHES, ..CALM },
    Scenario {
        name: "late-join",
        nodes: 4,
        faults: Faults::NONE.with(Fault::Crash, 3_000),
        trial: Trial::LateJoin,
        ..CALM
    },
    Scenario { name: "absent", faults: Faults::NONE.with(Fault::Crash, 4_000), trial: Trial::Absent, ..CALM },
    Scenario { name: "full-disk", trial: Trial::FullDisk, ..CALM },
    Scenario {
        name: "stalled-reader",
        retention: r#"{ bytes = "256KiB" }"#,
        padding: 8_000,
        events_each: 300,
        trial: Trial::Stalled("last"),
        ..CALM
    },
    // More than a reader's window for each edge; what reads behind `twice` gets no padding.
    Scenario { name: "no-credit", padding: 30_000, events_each: 200, trial: Trial::Stalled("count"), ..CALM },
    // Many clients of one stream on one node, quick and slow ones, while links break and nodes die.
    Scenario {
        name: "taps",
        padding: 100,
        climate: Climate { link_loss: 1_000, ..Climate::FAIR },
        faults: Faults::NONE.with(Fault::Tap, 300).with(Fault::Cut, 2_500).with(Fault::Crash, 4_000),
        ..CALM
    },
    FAN_OUT,
    // Whatever may happen to what is broadcast, and to those who get it.
    Scenario {
        name: "fan-out-faults",
        climate: Climate { link_loss: 2_000, gossip_loss: 12, forged: 12, ..Climate::FAIR },
        faults: FAN_OUT_FAULTS,
        ..FAN_OUT
    },
    Scenario {
        name: "fan-out-memory",
        durability: "memory",
        climate: Climate { message_loss: 300, gossip_loss: 12, forged: 12, reorder: 50, ..POWER },
        faults: FAN_OUT_FAULTS,
        ..FAN_OUT
    },
    Scenario { name: "damage", faults: Faults::NONE.with(Fault::Damage, 2_500), ..CALM },
    // The same where retention removes from the front what a snapshot covers.
    Scenario {
        name: "damage-retention",
        retention: r#"{ bytes = "64KiB", age = "1s" }"#,
        padding: 1_000,
        segment_bytes: 2 << 10,
        events_each: 250,
        chaos: Span(20_000),
        faults: Faults::NONE.with(Fault::Damage, 1_500),
        ..CALM
    },
    // Processes die, and a moment after they are back the power goes.
    Scenario {
        name: "blackouts",
        durability: "page",
        climate: POWER,
        faults: Faults::NONE.with(Fault::Crash, 500).with(Fault::Kill, 400),
        ..CALM
    },
    Scenario {
        name: "refusals",
        poison: 20,
        climate: Climate { traps: 12, ..Climate::FAIR },
        faults: Faults::NONE.with(Fault::Crash, 3_000).with(Fault::Letters, 1_500),
        events_each: 250,
        ..CALM
    },
    // Pipelines come and go on all sides of cuts, while questions and answers are lost.
    Scenario {
        name: "facts",
        nodes: 4,
        events_each: 100,
        climate: Climate { message_loss: 60, ..Climate::FAIR },
        faults: Faults::NONE.with(Fault::Neighbour, 400).with(Fault::Cut, 1_500).with(Fault::Crash, 3_000),
        ..CALM
    },
    Scenario {
        name: "damaged-facts",
        events_each: 100,
        faults: Faults::NONE.with(Fault::Neighbour, 400).with(Fault::Damage, 1_500).with(Fault::Cut, 2_000),
        chaos: Span(20_000),
        ..CALM
    },
    // Logs reach their size while nodes restart and their readers are out of reach: an actor that may not write must be woken again.
    Scenario {
        name: "full-log",
        retention: r#"{ bytes = "96KiB" }"#,
        padding: 1_500,
        events_each: 250,
        faults: CRASHES.with(Fault::Stall, 1_000).with(Fault::Cut, 1_500),
        ..CALM
    },
    // Cuts that outlast suspicion, so that members take each other for gone; clocks that are off.
    Scenario {
        name: "long-cuts",
        climate: Climate { clock_off_ms: 3_600_000, clock_drift: 200, ..Climate::FAIR },
        faults: Faults::NONE.with(Fault::Cut, 6_000).with(Fault::Crash, 6_000),
        chaos: Span(40_000),
        ..CALM
    },
    REDEPLOY,
    Scenario {
        name: "redeploy-crashes",
        climate: Climate { link_loss: 2_000, ..Climate::FAIR },
        faults: CRASHES,
        ..REDEPLOY
    },
    Scenario { name: "redeploy-power", climate: POWER, faults: CRASHES, ..REDEPLOY },
    Scenario { name: "redeploy-memory", climate: POWER, faults: CRASHES, durability: "memory", ..REDEPLOY },
    Scenario {
        name: "redeploy-absent",
        nodes: 4,
        faults: Faults::NONE.with(Fault::Crash, 3_000),
        trial: Trial::RedeployAbsent,
        ..CALM
    },
    Scenario { name: "redeploy-full", trial: Trial::RedeployFull, ..CALM },
    Scenario { name: "rivals", trial: Trial::Rivals, ..CALM },
    Scenario {
        name: "rivals-crashes",
        climate: Climate { message_loss: 200, ..POWER },
        faults: Faults::NONE.with(Fault::Crash, 1_500),
        trial: Trial::Rivals,
        ..CALM
    },
    Scenario {
        name: "given-up",
        nodes: 4,
        chaos: Span(20_000),
        trial: Trial::GiveUp(Beside::Nothing),
        ..CALM
    },
    Scenario {
        name: "given-up-crashes",
        nodes: 4,
        chaos: Span(20_000),
        climate: Climate { message_loss: 200, ..POWER },
        faults: Faults::NONE.with(Fault::Crash, 4_000).with(Fault::Cut, 3_000),
        trial: Trial::GiveUp(Beside::Nothing),
        ..CALM
    },
    Scenario {
        name: "given-up-redeploys",
        nodes: 4,
        chaos: Span(20_000),
        trial: Trial::GiveUp(Beside::Redeploys),
        ..CALM
    },
    Scenario {
        name: "given-up-retention",
        nodes: 4,
        chaos: Span(20_000),
        retention: r#"{ bytes = "128KiB", age = "1s" }"#,
        padding: 500,
        segment_bytes: 2 << 10,
        trial: Trial::GiveUp(Beside::Nothing),
        ..CALM
    },
    Scenario {
        name: "given-up-twice",
        nodes: 5,
        chaos: Span(40_000),
        trial: Trial::GiveUp(Beside::Cut),
        ..CALM
    },
    Scenario {
        name: "given-up-twice-redeploys",
        nodes: 5,
        chaos: Span(40_000),
        trial: Trial::GiveUp(Beside::CutAndRedeploys),
        ..CALM
    },
    Scenario { name: "replaced", nodes: 5, chaos: Span(20_000), trial: Trial::Replace, ..CALM },
    Scenario { name: "old-copy", chaos: Span(30_000), events_each: 800, trial: Trial::OldCopy, ..CALM },
    // The machine's power goes each time, and others die meanwhile.
    Scenario {
        name: "old-copy-crashes",
        nodes: 4,
        chaos: Span(30_000),
        climate: POWER,
        events_each: 800,
        faults: Faults::NONE.with(Fault::Crash, 4_000),
        trial: Trial::OldCopy,
        ..CALM
    },
    Scenario {
        name: "learners",
        more: LEARNERS,
        events_each: 200,
        climate: POWER,
        faults: CRASHES.with(Fault::CrashInside, 3_000),
        ..CALM
    },
    Scenario { name: "swarm", ..CALM },
    Scenario { name: "swarm-redeploys", ..CALM },
    Scenario { name: "swarm-removals", ..CALM },
    Scenario { name: "swarm-gossip", ..CALM },
];

const REDEPLOY: Scenario = Scenario {
    name: "redeploy",
    faults: Faults::NONE.with(Fault::Cut, 2_500),
    trial: Trial::Redeploy,
    ..CALM
};

/// Taps on more nodes than get the stream directly, slow ones beside them.
const FAN_OUT: Scenario = Scenario {
    name: "fan-out",
    nodes: 9,
    publishers: 3,
    events_each: 700,
    chaos: Span(25_000),
    padding: 300,
    gossip: GossipBounds { from_nodes: 3, below_nodes: 2 },
    climate: Climate { gossip_loss: 30, ..Climate::FAIR },
    faults: Faults::NONE.with(Fault::Tap, 4_000),
    trial: Trial::Everywhere,
    ..CALM
};

const FAN_OUT_FAULTS: Faults = Faults::NONE
    .with(Fault::Tap, 2_000)
    .with(Fault::Cut, 6_000)
    .with(Fault::Crash, 6_000)
    .with(Fault::Pause, 5_000)
    .with(Fault::Silence, 8_000);

impl Scenario {
    /// The scenario of this name, as this seed draws it.
    pub fn named(name: &str, seed: u64) -> Option<Scenario> {
        let found = SCENARIOS.iter().find(|scenario| scenario.name == name).copied()?;
        let mut chance = Chance::new(seed ^ 0x5eed);
        Some(match found.name {
            "swarm" => swarm::drawn(&mut chance),
            "swarm-redeploys" => swarm::drawn_with_redeploys(&mut chance),
            "swarm-removals" => swarm::drawn_with_removal(&mut chance),
            "swarm-gossip" => swarm::drawn_with_gossip(&mut chance),
            _ => {
                let climate = Climate {
                    latency_ms: chance.between(1, 12),
                    sync_ms: chance.between(1, 8),
                    call_ms: chance.between(0, 6),
                    ..found.climate
                };
                Scenario { climate, ..found }
            }
        })
    }

    pub fn manifest_text(&self) -> String {
        let retention = match self.retention {
            "" => String::new(),
            some => format!("retention = {some}"),
        };
        let text = self.pipeline.replace("DURABILITY", self.durability).replace("RETENTION", &retention);
        text + self.more
    }

    /// A crash may lose what was acknowledged, at a log's end.
    pub fn may_lose(&self) -> bool {
        self.durability != "disk"
    }
}
