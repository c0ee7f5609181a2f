//! A node of the world: its process while it has one, its disk always.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dunlin_protocol::effect::Timer;
use dunlin_protocol::id::{LogId, NodeId, TopicId};
use dunlin_protocol::mesh::catalog::NodeFacts;
use dunlin_protocol::peer::{GossipBounds, Peer, PeerConfig, TapBounds};
use dunlin_protocol::time::{Span, Time};

use super::Happening;
use crate::chance::Chance;
use crate::disk::Disk;
use crate::functions::{Hosted, Store};

#[derive(Debug)]
pub struct Node {
    pub id: NodeId,
    pub(super) key: [u8; 32],
    taps: TapBounds,
    gossip: GossipBounds,
    pub peer: Option<Peer>,
    pub(super) life: u64,
    pub disk: Disk,
    /// The last crash took the power, too.
    pub(super) lost_power: bool,
    pub(super) hosted: BTreeMap<LogId, Hosted>,
    /// Keyed state that earlier lives left behind.
    pub(super) stores: BTreeMap<LogId, Store>,
    pub(super) timers: BTreeMap<Timer, Time>,
    /// Topics that it has joined.
    pub(super) topics: BTreeSet<TopicId>,
    pub clock: Clock,
    /// Stopped until then: nothing reaches it and it does nothing.
    pub(super) paused_until: Time,
    /// What happens to it then.
    pub(super) waiting: VecDeque<Happening>,
    /// Dies after so many more effects.
    pub(super) dies_after: Option<u64>,
}

/// A node's data folder.
#[derive(Debug)]
pub struct Kept {
    pub disk: Disk,
    pub(super) stores: BTreeMap<LogId, Store>,
}

/// What a node takes for the time: it may be off, and run too fast or too slow. Like the daemon's it
/// never goes back while a process lives; at a start it may.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// The world's time and the node's at the process's start.
    started: Time,
    showed: Time,
    /// The node's milliseconds in 1000 of the world's.
    per_mille: u64,
}

impl Clock {
    pub fn new(started: Time, off_ms: i64, per_mille: u64) -> Clock {
        Clock { started, showed: Time(started.0.saturating_add_signed(off_ms)), per_mille }
    }

    pub fn at(&self, now: Time) -> Time {
        self.showed.after(Span(now.since(self.started).0 * self.per_mille / 1000))
    }

    /// When the node's clock will show `at`.
    pub fn instant_of(&self, at: Time) -> Time {
        let ahead = u128::from(at.since(self.showed).0) * 1000;
        let ahead = ahead.div_ceil(u128::from(self.per_mille));
        self.started.after(Span(u64::try_from(ahead).unwrap_or(u64::MAX)))
    }
}

impl Node {
    pub(super) fn new(
        chance: &mut Chance,
        segment_bytes: u64,
        taps: TapBounds,
        gossip: GossipBounds,
    ) -> Node {
        let mut key = [0; 32];
        key.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&chance.draw().to_le_bytes()));
        Node {
            id: id_of(key),
            key,
            taps,
            gossip,
            peer: None,
            life: 0,
            disk: Disk::new(segment_bytes),
            lost_power: false,
            hosted: BTreeMap::new(),
            stores: BTreeMap::new(),
            timers: BTreeMap::new(),
            topics: BTreeSet::new(),
            clock: Clock::new(Time(0), 0, 1000),
            paused_until: Time(0),
            waiting: VecDeque::new(),
            dies_after: None,
        }
    }

    /// The actor's function as it stands, if it is hosted.
    pub fn hosted(&self, actor: LogId) -> Option<&Hosted> {
        self.hosted.get(&actor)
    }

    pub(super) fn config(&self, index: usize, generation: u64, seed: u64) -> PeerConfig {
        PeerConfig {
            key: (&self.key).into(),
            generation,
            seed,
            facts: NodeFacts {
                labels: BTreeMap::new(),
                addresses: vec![format!("sim/{index}")],
                cores: 2,
                version: "simulated".into(),
            },
            mesh: "simulated".into(),
            joined: index > 0,
            taps: self.taps,
            gossip: self.gossip,
        }
    }
}

fn id_of(key: [u8; 32]) -> NodeId {
    Peer::new(PeerConfig {
        key: (&key).into(),
        generation: 0,
        seed: 0,
        facts: NodeFacts::default(),
        mesh: String::new(),
        joined: false,
        taps: TapBounds::default(),
        gossip: GossipBounds::default(),
    })
    .me()
}
