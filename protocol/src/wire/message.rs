//! What members say to each other. In order while a connection stands; a lost link loses the tail.
//! Every exchange heals by repetition, so a lost, late or doubled message does no harm.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::id::{Digest, Hash, LogId, NodeId, Position, Seq, TopicId};
use crate::log::record::Record;
use crate::pipeline::plan::SlotRange;
use crate::rpc::{Question, Reply};
use crate::time::Time;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    // --- mesh ---
    /// A SWIM datagram.
    Swim(Bytes),
    /// Every catalog log that the sender holds, and how far.
    CatalogHeads(BTreeMap<NodeId, Head>),
    /// Records of `node`'s catalog log after the receiver's head.
    CatalogRecords {
        node: NodeId,
        records: Vec<Record>,
    },

    // --- edges: reader to writer ---
    /// Replaces the edge's earlier subscription. `credit` is the total granted since.
    /// `reader` is the log of the actor that reads; a tap has none and holds nothing back.
    Subscribe {
        edge: EdgeId,
        log: LogId,
        reader: Option<LogId>,
        filter: Filter,
        from: From,
        committed: Position,
        credit: u64,
    },
    /// Repeats what the reader has received and granted in all since it subscribed: idempotent.
    Credit {
        edge: EdgeId,
        total: u64,
        received: Position,
        committed: Position,
    },
    Unsubscribe {
        edge: EdgeId,
    },

    // --- edges: writer to reader ---
    /// The subscription stands: slices follow on `at`; the log ends at `head` now, with `behind` events
    /// for this reader.
    Subscribed {
        edge: EdgeId,
        at: Position,
        head: Seq,
        behind: u64,
    },
    /// Committed records, filtered. `after` is where the first slice follows on; the log ends at `head`
    /// now, so that the reader knows its lag.
    Batch {
        edge: EdgeId,
        after: Position,
        slices: Vec<Slice>,
        head: Seq,
        /// Events for this reader behind the last of these slices.
        behind: u64,
    },
    /// The reader was further than the log: its frontier falls back to `to`, by rule.
    FallBack {
        edge: EdgeId,
        to: Position,
    },
    /// The log is not here, or its end was reached and it is closed.
    Refused {
        edge: EdgeId,
        why: Refusal,
    },

    // --- questions between nodes ---
    Ask {
        ask: AskId,
        question: Question,
    },
    Answer {
        ask: AskId,
        reply: Reply,
    },
    /// Have these modules at hand, then answer `Modules`.
    WantModules {
        ask: AskId,
        digests: Vec<Digest>,
    },
    Modules {
        ask: AskId,
        missing: Vec<(Digest, String)>,
    },

    // --- fan-out ---
    /// Writer to reader: these outputs of the log, whole, go to many nodes: join their topic. Repeated;
    /// whoever hears it no more leaves.
    Offer {
        log: LogId,
        outputs: Vec<u16>,
    },
    /// Reader to writer: this node is in the topic, so gossip reaches it.
    InTopic {
        topic: TopicId,
    },
    /// Reader to writer: it is not.
    OutOfTopic {
        topic: TopicId,
    },
    /// Writer to reader: what follows on `at` comes by gossip, and nothing more over the edge until the
    /// reader subscribes again.
    ByGossip {
        edge: EdgeId,
        at: Position,
    },
}

/// A batch for every reader of a topic, signed by its writer's node: committed records, whole. `after`
/// is where the first slice follows on; the log ends at `head` now. It may be lost, doubled or late, and
/// anybody may send one: only what is the writer's own and follows on is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broadcast {
    pub after: Position,
    pub slices: Vec<Slice>,
    pub head: Seq,
}

impl Broadcast {
    /// The last position in it.
    pub fn last(&self) -> Position {
        self.slices.last().map_or(self.after, |slice| slice.position)
    }

    /// What it costs in memory, in bytes, roughly.
    pub fn weight(&self) -> u64 {
        self.slices.iter().map(Slice::weight).sum()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Head {
    pub seq: Seq,
    pub hash: Hash,
}

/// The reader's number for one edge: unique on the reader's node until it restarts. (node, edge)
/// names it at the writer, and a restarted reader's first message replaces what stood there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EdgeId(pub u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AskId(pub u64);

/// Which events of a log a reader wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Indices of the unit's outputs, ascending; a source log has only 0.
    pub outputs: Vec<u16>,
    pub slots: SlotRange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum From {
    After(Position),
    Start,
    Now,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// No such log here (yet); ask again later.
    Unknown,
    /// The hash at that position differs and no epoch explains it. The edge stops.
    Diverged,
    /// The records from there on are no longer kept.
    Gone { first: Seq },
    /// The log is damaged here and not served.
    Damaged,
    /// Too many subscriptions.
    TooMany,
}

/// How far event time has come in a log, and whether it counts for its readers' watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub watermark: Time,
    pub idle: bool,
}

/// One committed record as one reader sees it: its events filtered, its position always.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    pub position: Position,
    pub events: Vec<SliceEvent>,
    /// None: the record says nothing of time; what was known stays.
    pub mark: Option<Mark>,
    /// Set when this is the log's last record: the log that follows it.
    pub closed: Option<LogId>,
}

impl Slice {
    /// What it costs of an edge's credit, in bytes; reader and writer count alike.
    pub fn weight(&self) -> u64 {
        let events: usize = self.events.iter().map(|event| event.event.weight()).sum();
        (events + 48) as u64
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceEvent {
    /// The event's index in its record: (log, epoch, seq, index) is its id.
    pub index: u32,
    pub output: u16,
    pub event: Event,
}
