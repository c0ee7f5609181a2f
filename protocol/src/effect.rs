//! READ FIRST. A node is one state machine: `Peer::handle(now, Input, &mut Effects)`.
//!
//! Inputs are everything that happens to a node; effects are everything that it wants done. Both
//! are plain values: they can be compared, printed, recorded and replayed. `handle` never fails
//! and never waits. What takes time is an effect with a completion:
//!
//! | effect | completion |
//! | --- | --- |
//! | `Persist`, `WriteAnew` | `Persisted` or `PersistFailed` |
//! | `Read` | `Read` |
//! | `Snapshot` | `Snapshotted` |
//! | `Host` | `Hosted` |
//! | `Invoke` | `Returned` |
//! | `FetchModule` | `ModuleHeld` or `ModuleMissing` |
//! | `LookUp` | `LookedUp` |
//! | `Broadcast` | none, or `NotBroadcast` |
//!
//! Nothing is acknowledged, served to a reader, or applied to keyed state before `Persisted`.
//! The real driver (`node/src/driver.rs`) and the simulator's world carry effects out; nothing
//! else calls `handle`.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::event::{Event, Placed};
use crate::id::{Digest, LogId, NodeId, Position, Seq, TopicId};
use crate::log::record::{Change, Emitted, Observed, Record, TimerChange};
use crate::mesh::catalog::LogName;
use crate::pipeline::manifest::{Connector, Durability, Source};
use crate::pipeline::plan::Chain;
use crate::rpc::{Request, Response};
use crate::time::Time;
use crate::wire::message::{Broadcast, Message};

/// Everything that happens to a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Before `Start`, for each log on the disk: what recovery found.
    Recovered(RecoveredLog),
    /// Before `Start`: the log's records behind its snapshot, in order, in chunks.
    Replay {
        log: LogId,
        records: Vec<Record>,
    },
    /// The disk has been told in full; the node begins.
    Start,
    /// A member (its certificate checked) is connected, or no longer is.
    Connected {
        node: NodeId,
    },
    Disconnected {
        node: NodeId,
    },
    Message {
        from: NodeId,
        message: Message,
    },
    /// A batch came by gossip; `author` signed it.
    Broadcast {
        author: NodeId,
        topic: TopicId,
        broadcast: Broadcast,
    },
    /// A broadcast of this node reached nobody: there was nobody to give it to, or no room.
    NotBroadcast {
        topic: TopicId,
    },
    /// The door let this node in by a token: it has its certificate.
    Admitted {
        node: NodeId,
    },
    /// This other node would not hear this one: it says that this one was removed from the mesh.
    SaidRemoved {
        by: NodeId,
    },
    Request {
        id: RequestId,
        request: Request,
    },
    /// A tap's client took so many bytes more.
    TapCredit {
        id: RequestId,
        bytes: u64,
    },
    /// The client went away.
    Cancelled {
        id: RequestId,
    },
    /// Everything up to and including `seq` stands in the log's durability class.
    Persisted {
        log: LogId,
        seq: Seq,
    },
    /// Nothing from `seq` on stands, and the storage has dropped it. `full`: no space left.
    PersistFailed {
        log: LogId,
        seq: Seq,
        full: bool,
        why: String,
    },
    Read {
        log: LogId,
        read: ReadId,
        outcome: Result<Vec<Record>, String>,
    },
    Snapshotted {
        log: LogId,
        at: Position,
        outcome: Result<(), String>,
    },
    /// The actor's function is ready to be invoked, its state store stands at the log's head.
    Hosted {
        actor: LogId,
        outcome: Result<(), String>,
    },
    Returned {
        actor: LogId,
        call: CallId,
        outcome: Result<Outcome, CallError>,
    },
    /// The module's bytes are here and match the digest.
    ModuleHeld {
        digest: Digest,
    },
    /// Nobody named the module any more (`Peer::modules_named`), and its bytes are not here now.
    ModuleGone {
        digest: Digest,
    },
    ModuleMissing {
        digest: Digest,
        why: String,
    },
    LookedUp {
        look: LookId,
        entries: Vec<(Bytes, Bytes)>,
    },
    /// A timer that `SetTimer` asked for. Late, early or twice does no harm.
    Timer(Timer),
    /// The driver's own measurements, for `status`.
    Measured {
        rss_bytes: u64,
        disk_bytes: u64,
        /// The connectors that run here.
        connectors: Vec<ConnectorState>,
    },
}

/// What a connector says of itself, for whoever asks how its source stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorState {
    pub log: LogId,
    /// Lines that it left out since it was started.
    pub rejected: u64,
    /// Why nothing comes through it, if so.
    pub trouble: Option<String>,
}

/// What recovery found of one log (see `log::segment`).
#[derive(Debug, Clone, PartialEq)]
pub struct RecoveredLog {
    pub name: LogName,
    /// Where the log ends; `START` when it has no record.
    pub head: Position,
    /// The first record that is still kept.
    pub first: Seq,
    /// The newest whole snapshot: the position that it covers and the encoded fold.
    pub snapshot: Option<(Position, Bytes)>,
    /// Bytes on disk.
    pub bytes: u64,
    /// A sentence when the log is damaged in the middle: it is kept as it is, not written, not served.
    pub damage: Option<String>,
    /// Where a damaged log was synced last, if its note can be read.
    pub noted: Option<Position>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookId(pub u64);

/// Everything that a node wants done, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Before a log's first `Persist`: its name, so that a restart can tell whose it is.
    CreateLog {
        log: LogId,
        name: LogName,
    },
    /// Append these records. Completions come in order per log.
    Persist {
        log: LogId,
        records: Vec<Record>,
        durability: Durability,
    },
    /// The log is damaged, and these are all of its records: its files are replaced by new ones that hold
    /// them, whole or not at all.
    WriteAnew {
        log: LogId,
        records: Vec<Record>,
    },
    /// Records from `from` on, at least one if there is one, about `bytes_max` in all.
    Read {
        log: LogId,
        read: ReadId,
        from: Seq,
        bytes_max: usize,
    },
    /// Write a synced, checksummed snapshot: the fold given here and, when `state`, the actor's keyed
    /// state exactly at `at` (everything applied up to there, nothing behind it).
    Snapshot {
        log: LogId,
        at: Position,
        fold: Bytes,
        state: bool,
    },
    /// Records before `before` may go (whole segments only). A snapshot covers them.
    Truncate {
        log: LogId,
        before: Seq,
    },
    /// The log, its snapshots and its keyed state go.
    RemoveLog {
        log: LogId,
    },
    /// Make the actor's function ready; keyed state is that of log `actor` at `head`: a store that
    /// is behind is brought up from the log, one that is ahead is rebuilt. Where the log says `Inherit`,
    /// its state there is that of the log named, at the position named.
    Host {
        actor: LogId,
        spec: Arc<ActorSpec>,
        head: Position,
    },
    Unhost {
        actor: LogId,
    },
    /// Run the function on a batch. State changes of calls that succeed are staged behind one
    /// another, unseen by `LookUp`, until `Apply`; a failed call stages nothing.
    Invoke {
        actor: LogId,
        call: CallId,
        batch: Arc<Vec<Invoked>>,
        now: Time,
    },
    /// The commit at `position` is persisted: what is staged enters the keyed state.
    Apply {
        actor: LogId,
        position: Position,
    },
    /// What is staged goes.
    Discard {
        actor: LogId,
    },
    /// Committed keyed state: one key, or all in order from the first.
    LookUp {
        actor: LogId,
        look: LookId,
        key: Option<Bytes>,
        limit: u32,
    },
    Send {
        to: NodeId,
        message: Message,
    },
    /// Get what `writer` broadcasts in this topic, and pass it on; from nobody else.
    JoinTopic {
        topic: TopicId,
        writer: NodeId,
    },
    LeaveTopic {
        topic: TopicId,
    },
    /// Give it to all that are in the topic. It may get lost on the way.
    Broadcast {
        topic: TopicId,
        broadcast: Broadcast,
    },
    /// Try to have a connection; repeated by the core until there is one.
    Dial {
        node: NodeId,
        addresses: Vec<String>,
    },
    Disconnect {
        node: NodeId,
    },
    Answer {
        id: RequestId,
        response: Response,
        last: bool,
    },
    /// Replaces an earlier instant of the same timer.
    SetTimer {
        timer: Timer,
        at: Time,
    },
    /// Get the module from one of these members, check it, keep it.
    FetchModule {
        digest: Digest,
        holders: Vec<NodeId>,
    },
    /// Feed this source log from outside, as producer `connector`, from sequence `next` on, by
    /// `Request::Publish`. Waits after `Busy`.
    StartConnector {
        log: LogId,
        stream: Arc<SourceStream>,
        next: u64,
    },
    StopConnector {
        log: LogId,
    },
    /// This node is no member any more: the process ends with this sentence. Nothing is to be written or served.
    Stop {
        why: String,
    },
    Report(Report),
}

pub type Effects = Vec<Effect>;

/// What an actor runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActorSpec {
    pub name: LogName,
    pub chain: Chain,
    /// The closed log before this one: its worker must have ended before this actor's keyed state is
    /// brought up, since that begins with a copy of that log's.
    pub follows: Option<LogId>,
}

/// A source that a connector feeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStream {
    pub pipeline: crate::id::Name,
    pub name: crate::id::Name,
    pub source: Source,
    pub connector: Connector,
}

/// One event handed to a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoked {
    /// Index into the unit's inputs.
    pub input: u16,
    /// The fused step at which it enters; none: the head. Set for replayed letters of that step.
    pub step: Option<u16>,
    pub placed: Placed,
}

/// What a call that ran to its end gives back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    pub emitted: Vec<Emitted>,
    pub changes: Vec<Change>,
    pub timers: Vec<TimerChange>,
    pub observed: Vec<Observed>,
    /// Events of the batch that failed alone (an expression's run-time error, a refused sink
    /// event), ascending by index; all others took effect.
    pub failed: Vec<FailedEvent>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedEvent {
    pub index: u32,
    /// Set when a fused step refused it: the work of the head and of other steps stands.
    pub refused: Option<Refused>,
    pub stage: String,
    pub reason: String,
    pub again: Again,
}

/// What a fused step could not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Index into the chain's steps.
    pub step: u16,
    /// The event as it came to that step.
    pub event: Event,
}

/// The call as a whole failed: nothing of it took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallError {
    pub stage: String,
    pub reason: String,
    pub again: Again,
}

/// Whether another try may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Never: a dead letter at once.
    Never,
    /// A trap or an exhausted limit: halves, then bounded tries.
    Maybe,
    /// The outside is not there (a sink): wait and repeat the whole batch, without counting.
    Later,
}

/// The core's timers. Each is set by whoever handles it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// SWIM's next step, by number: the core keeps what it means.
    Swim(u64),
    /// Compare catalog heads with a member, dial who is missing, repeat subscriptions and credit.
    Beat,
    /// Retry, unpark, mark idle: an actor or a source log looks at itself.
    Actor(LogId),
    /// Credit that was put off for a moment, so that it is told of several events at once.
    Credit,
    /// Give up the questions that are too old.
    Ask,
    /// Retention and snapshots.
    Retention,
    /// Broadcasts that waited for more to go with them.
    Broadcast,
}

/// Something to say in the log and to count; never the only trace of a loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub level: Level,
    /// A fixed word for the counter in `/metrics`.
    pub what: &'static str,
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}
