//! The world: nodes, links, disks and a clock. It carries out effects as the daemon's driver does,
//! in virtual time; besides `driver.rs` it is the only caller of `Peer::handle`.
//!
//! | file | what is there |
//! | --- | --- |
//! | `world` | what will happen, and the clock that lets it happen |
//! | `world/node` | a process with its disk and its own idea of the time |
//! | `world/carry_out` | effects, and when their completions come |
//! | `world/gossip` | what nodes broadcast, and whom it reaches |
//! | `world/deeds` | what a run may do to the world: start, crash, pause, cut, damage |

mod carry_out;
mod deeds;
mod gossip;
mod node;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dunlin_protocol::effect::{Effects, Input, RequestId, Timer};
use dunlin_protocol::id::{LogId, NodeId, Position};
use dunlin_protocol::peer::{GossipBounds, TapBounds};
use dunlin_protocol::rpc::Response;
use dunlin_protocol::time::{Span, Time};
use dunlin_protocol::wire::message::Message;

pub use node::{Clock, Kept, Node};

use crate::chance::Chance;
use crate::checkers::watch::Watch;
use crate::climate::Climate;
use crate::disk::{Snapshot, Wound};
use crate::history::History;
use crate::network::Network;
use crate::trace::Trace;

/// Effects of one input: more means that a node talks to itself without end.
const EFFECTS_MAX: usize = 200_000;
/// Virtual time begins here, so that clocks may be off by hours.
const BEGINNING: Time = Time(100_000_000);

/// What will happen, and when.
#[derive(Debug)]
enum Happening {
    /// An input for a node in one of its lives; later lives do not see it.
    Input {
        node: usize,
        life: u64,
        input: Input,
    },
    /// A timer, if it still stands at this instant.
    Timer {
        node: usize,
        life: u64,
        timer: Timer,
    },
    Deliver {
        from: usize,
        to: usize,
        link: u64,
        message: Message,
    },
    Link {
        a: usize,
        b: usize,
    },
    /// The disk's writer takes what is queued, or ends its group.
    Write {
        node: usize,
        life: u64,
    },
    Settle {
        node: usize,
        life: u64,
    },
    Snapshot {
        node: usize,
        life: u64,
        log: LogId,
        at: Position,
        snapshot: Snapshot,
    },
    Start {
        node: usize,
    },
    /// A pause ends.
    Wake {
        node: usize,
    },
}

impl Happening {
    /// The node to which it happens, if it waits while that node is paused.
    fn waits_for(&self) -> Option<usize> {
        match self {
            Happening::Input { node, .. }
            | Happening::Timer { node, .. }
            | Happening::Write { node, .. }
            | Happening::Settle { node, .. }
            | Happening::Snapshot { node, .. } => Some(*node),
            Happening::Deliver { to, .. } => Some(*to),
            Happening::Link { .. } | Happening::Start { .. } | Happening::Wake { .. } => None,
        }
    }
}

#[derive(Debug)]
pub struct World {
    pub now: Time,
    pub nodes: Vec<Node>,
    pub network: Network,
    pub chance: Chance,
    pub climate: Climate,
    pub trace: Trace,
    pub history: History,
    pub watch: Watch,
    queue: BTreeMap<(Time, u64), Happening>,
    order: u64,
    /// Answers to clients, by (node, request), in order.
    pub answers: VecDeque<(usize, RequestId, Response, bool)>,
    requests: u64,
    /// Reports of level error that no fault explains.
    pub errors: Vec<String>,
    /// Reports of level error that this run's faults explain, by their word.
    pub excused: BTreeSet<&'static str>,
    /// Every report: node, word, sentence.
    pub reports: Vec<(usize, &'static str, String)>,
    /// The stage whose outside is away: its calls are to be repeated later.
    pub stalled: Option<&'static str>,
    /// Broadcasts that reached somebody.
    pub broadcasts: u64,
    /// Damage that was done and not restored, by node.
    pub wounds: Vec<(usize, Wound)>,
}

impl World {
    pub fn new(seed: u64, nodes: usize, gossip: GossipBounds, climate: Climate, segment_bytes: u64) -> World {
        let mut chance = Chance::new(seed);
        // Drawn apart, so that a seed's other draws are the same whatever taps share.
        let mut apart = Chance::new(seed ^ 0x7a95);
        let taps = TapBounds {
            window_bytes: *apart.pick(&[0, 400, 4_000, TapBounds::default().window_bytes]),
            behind_max: *apart.pick(&[1, 2, 12]),
        };
        let nodes = (0..nodes).map(|_| Node::new(&mut chance, segment_bytes, taps, gossip)).collect();
        World {
            now: BEGINNING,
            nodes,
            network: Network::default(),
            chance,
            climate,
            trace: Trace::default(),
            history: History::default(),
            watch: Watch::default(),
            queue: BTreeMap::new(),
            order: 0,
            answers: VecDeque::new(),
            requests: 0,
            errors: Vec::new(),
            excused: BTreeSet::new(),
            reports: Vec::new(),
            stalled: None,
            broadcasts: 0,
            wounds: Vec::new(),
        }
    }

    fn later(&mut self, at: Time, happening: Happening) {
        self.order += 1;
        self.queue.insert((at.max(self.now), self.order), happening);
    }

    fn after(&mut self, span: Span, happening: Happening) {
        self.later(self.now.after(span), happening);
    }

    pub fn index_of(&self, node: NodeId) -> Option<usize> {
        self.nodes.iter().position(|known| known.id == node)
    }

    pub fn is_up(&self, node: usize) -> bool {
        self.nodes[node].peer.is_some()
    }

    /// How often the node's process has ended.
    pub fn life(&self, node: usize) -> u64 {
        self.nodes[node].life
    }

    fn lives(&self, node: usize, life: u64) -> bool {
        self.nodes[node].life == life && self.is_up(node)
    }

    /// Lets the next thing happen. False: nothing is left before `until`, and time stands there.
    pub fn step(&mut self, until: Time) -> bool {
        let next = self.queue.first_key_value().map(|(&(at, _), _)| at);
        let Some(at) = next.filter(|at| *at <= until) else {
            self.now = until;
            return false;
        };
        self.now = at;
        let Some((_, happening)) = self.queue.pop_first() else { return false };
        match happening.waits_for().filter(|node| self.nodes[*node].paused_until > self.now) {
            Some(node) => self.nodes[node].waiting.push_back(happening),
            None => self.happen(happening),
        }
        true
    }

    /// A node goes on: what waited for it happens in its order.
    fn wake(&mut self, node: usize) {
        while self.nodes[node].paused_until <= self.now
            && let Some(happening) = self.nodes[node].waiting.pop_front()
        {
            self.happen(happening);
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Input { node, life, input } => {
                if self.lives(node, life) {
                    self.handle(node, input);
                }
            }
            Happening::Timer { node, life, timer } => {
                // One that was set anew stands at another instant.
                let due = self.nodes[node].timers.get(&timer).is_some_and(|at| *at <= self.now);
                if self.lives(node, life) && due {
                    self.nodes[node].timers.remove(&timer);
                    self.handle(node, Input::Timer(timer));
                }
            }
            Happening::Deliver { from, to, link, message } => {
                if self.network.life(from, to) == Some(link) && self.is_up(to) {
                    let from = self.nodes[from].id;
                    self.handle(to, Input::Message { from, message });
                }
            }
            Happening::Link { a, b } => {
                if self.is_up(a) && self.is_up(b) && self.network.connect(a, b, self.now) {
                    self.trace.line(self.now, format!("link n{a}-n{b} stands"));
                    for (here, there) in [(a, b), (b, a)] {
                        let node = self.nodes[there].id;
                        self.input_soon(here, Input::Connected { node });
                    }
                }
            }
            Happening::Write { node, life } => {
                if self.lives(node, life) {
                    self.write(node);
                }
            }
            Happening::Settle { node, life } => {
                if self.lives(node, life) {
                    self.settle(node);
                }
            }
            Happening::Snapshot { node, life, log, at, snapshot } => {
                if self.lives(node, life) {
                    let outcome = self.nodes[node].disk.snapshot(log, at, &snapshot);
                    self.handle(node, Input::Snapshotted { log, at, outcome });
                }
            }
            Happening::Start { node } => self.boot(node),
            Happening::Wake { node } => self.wake(node),
        }
    }

    pub fn input_soon(&mut self, node: usize, input: Input) {
        let life = self.nodes[node].life;
        self.later(self.now, Happening::Input { node, life, input });
    }

    fn input_after(&mut self, node: usize, span: Span, input: Input) {
        let life = self.nodes[node].life;
        self.after(span, Happening::Input { node, life, input });
    }

    fn handle(&mut self, node: usize, input: Input) {
        let nodes = &self.nodes;
        let index_of = |id| nodes.iter().position(|known| known.id == id);
        self.trace.input(self.now, node, &input, index_of);
        match &input {
            Input::Persisted { log, seq } => self.history.stands((node, *log), *seq),
            Input::PersistFailed { log, seq, .. } => self.history.failed((node, *log), *seq),
            Input::Message { from, message } => self.watch.hear(node, *from, message),
            // It left the topic while this was on its way.
            Input::Broadcast { topic, .. } if !self.nodes[node].topics.contains(topic) => return,
            _ => {}
        }
        let now = self.nodes[node].clock.at(self.now);
        let Some(peer) = self.nodes[node].peer.as_mut() else { return };
        let mut effects = Effects::new();
        peer.handle(now, input, &mut effects);
        assert!(effects.len() < EFFECTS_MAX, "node {node} wants {} things done at once", effects.len());
        for effect in effects {
            // A process may die between any two effects.
            match &mut self.nodes[node].dies_after {
                Some(0) => return self.crash(node),
                Some(left) => *left -= 1,
                None => {}
            }
            self.carry_out(node, effect);
        }
    }
}
