//! What a run does: the mesh, the pipeline, the faults. A seed draws what a scenario leaves open.

use dunlin_protocol::time::Span;

use crate::chance::Chance;
use crate::world::Climate;

/// How often faults strike, in milliseconds of virtual time between two of a kind; 0 for never.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub nodes: usize,
    pub publishers: usize,
    pub events_each: u64,
    pub chaos: Span,
    pub crash_every: u64,
    pub cut_every: u64,
    pub power_loss: bool,
    pub link_loss: u64,
    pub durability: &'static str,
    pub pipeline: &'static str,
    /// `[retention] bytes`, empty for the default.
    pub retention: &'static str,
    /// Bytes that fill each event up.
    pub padding: usize,
    /// One in so many messages is lost or comes twice while its link stands.
    pub message_loss: u64,
    /// What happens besides.
    pub trial: Trial,
}

/// One thing that a run tries besides its crashes and cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    None,
    /// The last node starts for the first time while events flow.
    LateJoin,
    /// The last node is down during the deploy, and again during the removal at the end.
    Absent,
    /// A disk is full for a while, again and again.
    FullDisk,
    /// A stage's outside is away for the whole phase of faults.
    Stalled,
    /// Changed files are deployed while events flow, on any node.
    Redeploy,
    /// The same, and the last node is away during the first deploy and some of the later ones.
    RedeployAbsent,
    /// The same, and the mesh is cut in two again and again while both sides deploy.
    Rivals,
    /// Changed files while disks are full.
    RedeployFull,
}

/// Source, filter, keyed stand-in guest, learning stage; every edge and every kind of home.
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

[sink.out]
from = ["twice"]
stdout = {}

[placement.count]
shares = 4

[placement.last]
shares = 3
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
    crash_every: 0,
    cut_every: 0,
    power_loss: false,
    link_loss: 0,
    durability: "disk",
    pipeline: PIPELINE,
    retention: "",
    padding: 0,
    message_loss: 0,
    trial: Trial::None,
};

pub const SCENARIOS: [Scenario; 21] = [
    CALM,
    Scenario { name: "links", cut_every: 1_500, link_loss: 400, ..CALM },
    Scenario { name: "crashes", crash_every: 1_500, link_loss: 2_000, ..CALM },
    Scenario { name: "power", crash_every: 1_200, power_loss: true, ..CALM },
    Scenario { name: "lone", nodes: 1, crash_every: 2_000, power_loss: true, ..CALM },
    Scenario { name: "messages", message_loss: 60, cut_every: 3_000, ..CALM },
    Scenario { name: "memory", crash_every: 1_200, durability: "memory", power_loss: true, ..CALM },
    Scenario { name: "page", crash_every: 1_200, durability: "page", power_loss: true, ..CALM },
    Scenario { name: "late-join", nodes: 4, crash_every: 3_000, trial: Trial::LateJoin, ..CALM },
    Scenario { name: "absent", crash_every: 4_000, trial: Trial::Absent, ..CALM },
    Scenario { name: "full-disk", trial: Trial::FullDisk, ..CALM },
    Scenario {
        name: "stalled-reader",
        retention: "256KiB",
        padding: 8_000,
        events_each: 300,
        trial: Trial::Stalled,
        ..CALM
    },
    Scenario { name: "no-credit", padding: 30_000, events_each: 200, trial: Trial::Stalled, ..CALM },
    REDEPLOY,
    Scenario { name: "redeploy-crashes", crash_every: 1_200, link_loss: 2_000, ..REDEPLOY },
    Scenario { name: "redeploy-power", crash_every: 1_000, power_loss: true, ..REDEPLOY },
    Scenario {
        name: "redeploy-memory",
        crash_every: 1_200,
        power_loss: true,
        durability: "memory",
        ..REDEPLOY
    },
    Scenario { name: "redeploy-absent", nodes: 4, crash_every: 3_000, trial: Trial::RedeployAbsent, ..CALM },
    Scenario { name: "redeploy-full", trial: Trial::RedeployFull, ..CALM },
    Scenario { name: "rivals", trial: Trial::Rivals, ..CALM },
    Scenario {
        name: "rivals-crashes",
        crash_every: 1_500,
        power_loss: true,
        message_loss: 200,
        trial: Trial::Rivals,
        ..CALM
    },
];

const REDEPLOY: Scenario = Scenario { name: "redeploy", cut_every: 2_500, trial: Trial::Redeploy, ..CALM };

impl Scenario {
    pub fn named(name: &str) -> Option<Scenario> {
        SCENARIOS.iter().find(|scenario| scenario.name == name).copied()
    }

    /// The scenario that a seed stands for when none is named.
    pub fn of_seed(seed: u64) -> Scenario {
        SCENARIOS[(seed % SCENARIOS.len() as u64) as usize]
    }

    pub fn climate(&self, chance: &mut Chance) -> Climate {
        Climate {
            latency_ms: chance.between(1, 12),
            sync_ms: chance.between(1, 8),
            call_ms: chance.between(0, 6),
            link_loss: self.link_loss,
            message_loss: self.message_loss,
            power_loss: self.power_loss,
        }
    }

    pub fn manifest_text(&self) -> String {
        let retention = match self.retention {
            "" => String::new(),
            bytes => format!("retention = {{ bytes = \"{bytes}\" }}"),
        };
        self.pipeline.replace("DURABILITY", self.durability).replace("RETENTION", &retention)
    }

    /// A crash may lose what was acknowledged, at a log's end.
    pub fn may_lose(&self) -> bool {
        self.durability != "disk"
    }
}
