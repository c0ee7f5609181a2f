//! What strikes a run while it lasts, and how often.

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A process dies, now and then all of them at once.
    Crash,
    /// A process dies whose machine goes on: what was written and not synced is still there.
    Kill,
    /// A process dies between two effects of one input.
    CrashInside,
    /// A process stands still, and goes on as if nothing had been.
    Pause,
    /// Nodes are cut off from one another for a while.
    Cut,
    /// A cut that comes and goes.
    Flap,
    /// In one direction everything is lost, while the link stands.
    Silence,
    /// In one direction nothing arrives for a while, then everything.
    Clog,
    /// A disk has no space for a while.
    FullDisk,
    /// Bytes on a disk change; later they are restored from a copy.
    Damage,
    /// A stage's outside is away for a while.
    Stall,
    /// A client begins to follow a stream.
    Tap,
    /// Somebody deploys or removes another pipeline.
    Neighbour,
    /// Somebody replays or drops all dead letters.
    Letters,
}

pub const FAULTS: [Fault; 14] = [
    Fault::Crash,
    Fault::Kill,
    Fault::CrashInside,
    Fault::Pause,
    Fault::Cut,
    Fault::Flap,
    Fault::Silence,
    Fault::Clog,
    Fault::FullDisk,
    Fault::Damage,
    Fault::Stall,
    Fault::Tap,
    Fault::Neighbour,
    Fault::Letters,
];

/// How many milliseconds lie between two faults of a kind, on average; 0 for never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Faults([u64; FAULTS.len()]);

impl Faults {
    pub const NONE: Faults = Faults([0; FAULTS.len()]);

    pub const fn with(mut self, fault: Fault, every_ms: u64) -> Faults {
        self.0[fault as usize] = every_ms;
        self
    }

    pub fn every_ms(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }
}
