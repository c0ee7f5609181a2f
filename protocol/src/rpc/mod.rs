//! What clients ask a node and what it answers: one set of types behind HTTP and libp2p RPC.

pub mod frames;
pub mod lines;
pub mod tailed;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::event::{Event, Placed};
use crate::id::{Digest, EventId, LetterId, LogId, Name, NodeId, Position};
use crate::pipeline::manifest::{Durability, Manifest, StreamName};
use crate::time::Time;
use crate::wire::handshake::Secret;

/// A client's request to the node that it talks to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Status,
    Nodes,
    Pipelines,
    Show {
        pipeline: Name,
    },
    /// Modules were uploaded before; expressions were checked at the door.
    Deploy {
        manifest: Manifest,
    },
    Remove {
        pipeline: Name,
    },
    Publish(Publish),
    Tail(Tail),
    State {
        pipeline: Name,
        stage: Name,
        key: Option<String>,
        limit: u32,
    },
    DeadLetters {
        pipeline: Name,
        /// Only this one.
        letter: Option<LetterId>,
        limit: u32,
    },
    /// Replays or drops one dead letter, or all that the pipeline has.
    MoveLetters {
        pipeline: Name,
        letter: Option<LetterId>,
        does: LetterMove,
    },
    /// Tokens given before are refused from now on. `salt`: 32 bytes at random.
    RotateTokens {
        salt: Secret,
    },
    /// Give a node up for good.
    RemoveNode {
        node: NodeId,
    },
    /// What nodes that were given up leave behind, of one pipeline or all.
    GivenUp {
        pipeline: Option<Name>,
    },
}

/// What becomes of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LetterMove {
    /// Its event goes through the stage that refused it once more, with all attempts before it.
    Replay,
    Drop,
}

/// Events for a source, already parsed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    pub pipeline: Name,
    pub source: Name,
    pub producer: Option<ProducerRange>,
    /// Forward to this log's writer; none: this node's own source log.
    pub log: Option<LogId>,
    pub events: Vec<Event>,
}

/// The sequence numbers that this request covers, rejected lines included. A request whose last is
/// not beyond what the log has is acknowledged without effect; one that overlaps is cut, and
/// acknowledged whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerRange {
    pub producer: Name,
    pub first: u64,
    /// For each event in `events`, its sequence number, ascending, within `first..=last`.
    pub sequences: Vec<u64>,
    pub last: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    pub pipeline: Name,
    pub stream: StreamName,
    pub from: TailFrom,
    pub limit: Option<u64>,
    pub follow: bool,
    /// Bytes that may be sent before the client grants more.
    pub credit: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TailFrom {
    Start,
    Now,
    Cursor(Cursor),
}

/// Where a tap stands in each of the stream's logs. Text: base58 of its encoding.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor(pub BTreeMap<LogId, CursorAt>);

/// Events of the record after `position` up to and including `index` were seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CursorAt {
    pub position: Position,
    pub index: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    Status(Status),
    Nodes(Vec<NodeStatus>),
    Pipelines(Vec<PipelineStatus>),
    Shown(Shown),
    Deployed {
        pipeline: Name,
        revision: Digest,
        changed: bool,
        actors: u32,
    },
    Removed {
        pipeline: Name,
    },
    Published {
        log: LogId,
        acknowledged: u64,
        last: u64,
        position: Position,
    },
    /// Some of a tail; more follows unless the answer says it is the last. Ends when `follow` is
    /// off and every log's head at the time of asking was reached.
    Events {
        events: tailed::Tailed,
    },
    State(Vec<(String, Bytes)>),
    DeadLetters {
        letters: Vec<DeadLetterStatus>,
        /// Nodes that may have more and did not answer.
        missed: Vec<NodeId>,
    },
    Failed(Fault),
    LettersMoved(LettersMoved),
    TokensRotated(TokensRotated),
    NodeRemoved(NodeRemoved),
    GivenUp(Vec<GivenUp>),
}

/// A node was given up; the fact stands in the asked node's catalog log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRemoved {
    pub node: NodeId,
    /// Members that have not heard of it: they listen to the node until they do.
    pub unheard: Vec<NodeId>,
    pub given_up: Vec<GivenUp>,
}

/// What a node that was given up leaves behind in one pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    pub pipeline: Name,
    pub node: NodeId,
    /// Sources whose events entered there too: what no other node had read of them is lost.
    pub lost: Vec<Name>,
    /// Sources whose files were read there: nobody reads them on.
    pub ended: Vec<Name>,
    /// Stages and sinks that start anew elsewhere from what is kept of their inputs: their state and dead
    /// letters begin empty, and what came out of them before may come again. None: nobody was there.
    pub anew: Vec<(Name, Option<NodeId>)>,
}

/// The rotation stands in this node's catalog log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TokensRotated {
    /// How many there were by now.
    pub rotations: u32,
    /// Members that have not heard of it: they take tokens of before until they do.
    pub unheard: Vec<NodeId>,
}

/// What a request to replay or drop letters came to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LettersMoved {
    /// Letters whose replay or drop is committed.
    pub moved: u64,
    /// Letters that stay because as many events as may wait for another try.
    pub left: u64,
    /// Nodes whose letters were not reached, with the reason.
    pub missed: Vec<(NodeId, String)>,
}

/// An event as a tap sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailEvent {
    pub placed: Placed,
    pub place: tailed::Place,
}

/// A request that failed: one sentence (what, why, what to do). Nothing was changed unless said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub kind: FaultKind,
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// HTTP 400: the request is wrong in itself.
    Invalid,
    /// 404: no such pipeline, stream, key.
    Unknown,
    /// 409: it contradicts what stands (a gap in a producer's sequence, a superseded deploy).
    Conflict,
    /// 429: back-pressure; try again after so many milliseconds.
    Busy { retry_after_ms: u64 },
    /// 501: not in this version.
    NotYet,
    /// 503: something that is needed cannot be reached.
    Unavailable,
    /// 507: the disk is full or failing.
    Storage,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub node: NodeId,
    pub mesh: String,
    pub version: String,
    pub peers: u32,
    pub pipelines: u32,
    pub rss_bytes: u64,
    pub disk_bytes: u64,
    pub uptime_ms: u64,
    /// What is wrong now, a sentence each; empty when all is well.
    pub troubles: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Liveness {
    Alive,
    Suspect,
    Gone,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub node: NodeId,
    pub state: Liveness,
    pub labels: BTreeMap<String, String>,
    pub actors: u32,
    pub addresses: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PipelineState {
    Running,
    /// A node that holds an actor is not alive, or an actor is paused or damaged.
    Degraded,
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineStatus {
    pub pipeline: Name,
    pub revision: Digest,
    pub state: PipelineState,
    pub actors: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    pub pipeline: Name,
    pub revision: Digest,
    pub state: PipelineState,
    pub durability: Durability,
    pub copies: u8,
    /// In plan order. A fused stage stands under its own name with the actors that run it.
    pub stages: Vec<StageStatus>,
    /// Deploys on the other side of a cut that lost to the one that stands.
    pub superseded: Vec<Superseded>,
}

/// A deploy that lost to a rival of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superseded {
    pub revision: Digest,
    /// Where it was deployed.
    pub node: NodeId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageStatus {
    pub stage: String,
    /// The streams that it reads.
    pub from: Vec<String>,
    /// How its stream goes to the nodes that tap it; none if it has no stream.
    pub fan_out: Option<FanOut>,
    pub actors: Vec<ActorStatus>,
}

/// How a stream goes to those that tap it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FanOut {
    /// To each node for itself.
    Direct,
    /// To so many nodes by gossip, to the others directly.
    Gossip { nodes: u32 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorStatus {
    pub actor: LogId,
    pub node: NodeId,
    pub keepers: Vec<NodeId>,
    pub epoch: u64,
    /// The log's last committed sequence number.
    pub committed: u64,
    /// Events in and out since the log began, and events that wait upstream.
    pub events_in: u64,
    pub events_out: u64,
    pub lag: u64,
    pub watermark: Option<Time>,
    pub parked: u64,
    pub dead: u64,
    /// Of a source that a connector feeds: lines that are no events, since the connector started.
    pub rejected: u64,
    /// Why it stands still, if it does.
    pub trouble: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterStatus {
    pub id: LetterId,
    /// The event that the actor was at work on.
    pub cause: EventId,
    pub stage: String,
    pub reason: String,
    pub attempts: u32,
    pub event: Event,
}

/// What one node asks another on behalf of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// The actors of this pipeline (all when none is named) that live on the node asked.
    Actors {
        pipeline: Option<Name>,
    },
    Publish(Publish),
    State {
        log: LogId,
        key: Option<String>,
        limit: u32,
    },
    DeadLetters {
        pipeline: Name,
        letter: Option<LetterId>,
        limit: u32,
    },
    /// Of the letters that live on the node asked.
    MoveLetters {
        pipeline: Name,
        letter: Option<LetterId>,
        does: LetterMove,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Actors(Vec<ActorReport>),
    Published { log: LogId, acknowledged: u64, last: u64, position: Position },
    State(Vec<(String, Bytes)>),
    DeadLetters(Vec<DeadLetterStatus>),
    Failed(Fault),
    LettersMoved { moved: u64, left: u64 },
}

/// One actor as its node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorReport {
    pub pipeline: Name,
    pub unit: crate::pipeline::plan::UnitId,
    pub status: ActorStatus,
    /// Readers of its log on nodes that do not answer, each with about how many events of this log wait for
    /// it: they cannot tell themselves.
    pub waiting: Vec<(LogId, u64)>,
    /// Its streams that go by gossip now, and to which nodes.
    pub by_gossip: Vec<(StreamName, Vec<NodeId>)>,
}
