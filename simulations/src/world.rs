//! The world: nodes, links, disks and a clock. It carries out effects as the daemon's driver does,
//! in virtual time; besides `driver.rs` it is the only caller of `Peer::handle`.

use std::collections::{BTreeMap, VecDeque};

use dunlin_protocol::effect::{Again, CallError, Effect, Effects, Input, Level, RequestId, Timer};
use dunlin_protocol::id::{LogId, NodeId, Position, Seq};
use dunlin_protocol::log::record::{Body, Record};
use dunlin_protocol::mesh::catalog::NodeFacts;
use dunlin_protocol::peer::{Peer, PeerConfig};
use dunlin_protocol::pipeline::manifest::Durability;
use dunlin_protocol::rpc::Response;
use dunlin_protocol::time::{Span, Time};
use dunlin_protocol::wire::codec;
use dunlin_protocol::wire::message::Message;

use crate::chance::Chance;
use crate::checkers::credit::Credit;
use crate::disk::{Disk, Written};
use crate::functions::{Hosted, Store};
use crate::network::Network;
use crate::trace::Trace;

/// Effects of one input: more means that a node talks to itself without end.
const EFFECTS_MAX: usize = 200_000;

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
    /// A write reaches the platter; `tell`: only now it counts.
    Synced {
        node: usize,
        life: u64,
        log: LogId,
        seq: Seq,
        tell: bool,
    },
    Start {
        node: usize,
    },
}

#[derive(Debug)]
pub struct Node {
    pub id: NodeId,
    key: [u8; 32],
    pub peer: Option<Peer>,
    life: u64,
    pub disk: Disk,
    hosted: BTreeMap<LogId, Hosted>,
    /// Keyed state that earlier lives left behind.
    stores: BTreeMap<LogId, Store>,
    /// What this life was told to be persisted.
    told: BTreeMap<LogId, Seq>,
    timers: BTreeMap<Timer, Time>,
    /// The disk is busy until then.
    disk_until: Time,
}

/// How fast and how faulty this world is.
#[derive(Debug, Clone, Copy)]
pub struct Climate {
    pub latency_ms: u64,
    pub sync_ms: u64,
    pub call_ms: u64,
    /// One in so many messages takes its link down with it; 0 for never.
    pub link_loss: u64,
    /// One in so many messages is lost or comes twice while its link stands; 0 for never.
    pub message_loss: u64,
    /// Crashes take the machine's power too.
    pub power_loss: bool,
}

#[derive(Debug)]
pub struct World {
    pub now: Time,
    pub nodes: Vec<Node>,
    pub network: Network,
    pub chance: Chance,
    pub climate: Climate,
    pub trace: Trace,
    queue: BTreeMap<(Time, u64), Happening>,
    order: u64,
    /// Answers to clients, by (node, request), in order.
    pub answers: VecDeque<(usize, RequestId, Response, bool)>,
    requests: u64,
    /// Reports of level error: a run without disk faults has none.
    pub errors: Vec<String>,
    pub tails_lost: u64,
    /// What was in the tails that disks lost: only that may count again.
    pub lost: Vec<Record>,
    /// The stage whose outside is away: its calls are to be repeated later.
    pub stalled: Option<&'static str>,
    /// Some disk was full: nodes report that as an error, and may.
    pub was_full: bool,
    /// What readers granted, and what they were sent.
    pub credit: Credit,
}

impl World {
    pub fn new(seed: u64, nodes: usize, climate: Climate) -> World {
        let mut chance = Chance::new(seed);
        let nodes = (0..nodes)
            .map(|_| {
                let mut key = [0; 32];
                key.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&chance.draw().to_le_bytes()));
                Node {
                    id: id_of(key),
                    key,
                    peer: None,
                    life: 0,
                    disk: Disk::default(),
                    hosted: BTreeMap::new(),
                    stores: BTreeMap::new(),
                    told: BTreeMap::new(),
                    timers: BTreeMap::new(),
                    disk_until: Time(0),
                }
            })
            .collect();
        World {
            now: Time(1_000_000),
            nodes,
            network: Network::default(),
            chance,
            climate,
            trace: Trace::default(),
            queue: BTreeMap::new(),
            order: 0,
            answers: VecDeque::new(),
            requests: 0,
            errors: Vec::new(),
            tails_lost: 0,
            lost: Vec::new(),
            stalled: None,
            was_full: false,
            credit: Credit::default(),
        }
    }

    fn later(&mut self, at: Time, happening: Happening) {
        self.order += 1;
        self.queue.insert((at.max(self.now), self.order), happening);
    }

    pub fn index_of(&self, node: NodeId) -> Option<usize> {
        self.nodes.iter().position(|known| known.id == node)
    }

    pub fn is_up(&self, node: usize) -> bool {
        self.nodes[node].peer.is_some()
    }

    // --- what a run may do to the world ---

    pub fn start(&mut self, node: usize, after: Span) {
        self.later(self.now.after(after), Happening::Start { node });
    }

    /// The process is gone; what was not written is gone with it.
    pub fn crash(&mut self, node: usize) {
        if self.nodes[node].peer.take().is_none() {
            return;
        }
        self.trace.line(self.now, format!("n{node} crashes"));
        let victim = &mut self.nodes[node];
        victim.life += 1;
        victim.timers.clear();
        victim.told.clear();
        let left =
            std::mem::take(&mut victim.hosted).into_iter().map(|(log, hosted)| (log, hosted.left_behind()));
        victim.stores.extend(left);
        if self.climate.power_loss {
            // A store is never synced: it may be gone, or stand further than its log.
            victim.stores.retain(|_, _| !self.chance.one_in(2));
        }
        self.lost.extend(victim.disk.crash(self.climate.power_loss, &mut self.chance));
        self.credit.forget(node);
        for other in self.network.links_of(node) {
            self.unlink(node, other);
        }
    }

    pub fn unlink(&mut self, a: usize, b: usize) {
        if !self.network.drop_link(a, b) {
            return;
        }
        self.trace.line(self.now, format!("link n{a}-n{b} drops"));
        for (here, there) in [(a, b), (b, a)] {
            let gone = Input::Disconnected { node: self.nodes[there].id };
            self.input_soon(here, gone);
        }
    }

    /// Two nodes get to know of each other.
    pub fn meet(&mut self, a: usize, b: usize) {
        let at = self.now.after(Span(self.chance.between(1, 30)));
        self.later(at, Happening::Link { a, b });
    }

    pub fn request(&mut self, node: usize, request: dunlin_protocol::rpc::Request) -> RequestId {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.input_soon(node, Input::Request { id, request });
        id
    }

    pub fn input_soon(&mut self, node: usize, input: Input) {
        let life = self.nodes[node].life;
        self.later(self.now, Happening::Input { node, life, input });
    }

    // --- the clock ---

    /// Lets the next thing happen. False: nothing is left before `until`, and time stands there.
    pub fn step(&mut self, until: Time) -> bool {
        let Some((&(at, order), _)) = self.queue.first_key_value() else {
            self.now = until;
            return false;
        };
        if at > until {
            self.now = until;
            return false;
        }
        self.now = at;
        let happening = self.queue.remove(&(at, order)).expect("it was just seen");
        match happening {
            Happening::Input { node, life, input } => {
                if self.nodes[node].life == life && self.is_up(node) {
                    self.handle(node, input);
                }
            }
            Happening::Timer { node, life, timer } => {
                if self.nodes[node].life == life && self.nodes[node].timers.get(&timer) == Some(&at) {
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
                if self.is_up(a) && self.is_up(b) && self.network.connect(a, b) {
                    self.trace.line(self.now, format!("link n{a}-n{b} stands"));
                    for (here, there) in [(a, b), (b, a)] {
                        let node = self.nodes[there].id;
                        self.input_soon(here, Input::Connected { node });
                    }
                }
            }
            Happening::Synced { node, life, log, seq, tell } => {
                if self.nodes[node].life == life && self.is_up(node) {
                    self.nodes[node].disk.sync(log, seq);
                    if tell {
                        self.handle(node, Input::Persisted { log, seq });
                    }
                }
            }
            Happening::Start { node } => self.boot(node),
        }
        true
    }

    fn boot(&mut self, node: usize) {
        if self.is_up(node) {
            return;
        }
        self.trace.line(self.now, format!("n{node} starts"));
        let seed = self.chance.draw();
        let born = &mut self.nodes[node];
        born.disk_until = self.now;
        born.peer = Some(Peer::new(PeerConfig {
            key: (&born.key).into(),
            generation: self.now.0,
            seed,
            facts: NodeFacts {
                labels: BTreeMap::new(),
                addresses: vec![format!("sim/{node}")],
                cores: 2,
                version: "simulated".into(),
            },
            mesh: "simulated".into(),
            joined: node > 0,
        }));
        let inputs = born.disk.recovery();
        for input in inputs {
            self.handle(node, input);
        }
        self.handle(node, Input::Start);
    }

    fn handle(&mut self, node: usize, input: Input) {
        self.trace.line(self.now, format!("n{node} < {}", short(&input)));
        match &input {
            Input::Persisted { log, seq } => {
                self.nodes[node].told.insert(*log, *seq);
            }
            Input::Message { from, message } => self.credit.hear(node, *from, message),
            _ => {}
        }
        let Some(peer) = self.nodes[node].peer.as_mut() else { return };
        let mut effects = Effects::new();
        peer.handle(self.now, input, &mut effects);
        assert!(effects.len() < EFFECTS_MAX, "node {node} wants {} things done at once", effects.len());
        for effect in effects {
            self.carry_out(node, effect);
        }
    }

    fn carry_out(&mut self, node: usize, effect: Effect) {
        let life = self.nodes[node].life;
        let soon = self.now.after(Span(self.chance.between(0, 1)));
        match effect {
            Effect::CreateLog { log, name } => self.nodes[node].disk.create(log, name),
            Effect::Persist { log, records, durability } => self.persist(node, log, &records, durability),
            Effect::Read { log, read, from, bytes_max } => {
                let outcome = Ok(self.nodes[node].disk.read(log, from, bytes_max));
                self.later(soon, Happening::Input { node, life, input: Input::Read { log, read, outcome } });
            }
            Effect::Snapshot { log, at, fold, state: _ } => {
                if let Some(found) = self.nodes[node].disk.logs.get_mut(&log) {
                    found.snapshot = Some((at, fold));
                }
                let input = Input::Snapshotted { log, at, outcome: Ok(()) };
                self.later(soon, Happening::Input { node, life, input });
            }
            // A simulated disk keeps everything, so that checkers can read it all.
            Effect::Truncate { .. } => {}
            Effect::RemoveLog { log } => {
                self.nodes[node].disk.logs.remove(&log);
                self.nodes[node].stores.remove(&log);
            }
            Effect::Host { actor, spec, head } => {
                let records: Vec<Record> = self.nodes[node].disk.logs.get(&actor).map_or(Vec::new(), |log| {
                    log.records.iter().filter(|record| record.seq <= head.seq).cloned().collect()
                });
                let store = self.nodes[node].stores.remove(&actor);
                let before = |log: LogId, at: Position| self.nodes[node].disk.state_at(log, at);
                let outcome = Hosted::new(&spec, &records, store, &before).map(|hosted| {
                    self.nodes[node].hosted.insert(actor, hosted);
                });
                self.later(soon, Happening::Input { node, life, input: Input::Hosted { actor, outcome } });
            }
            Effect::Unhost { actor } => {
                self.nodes[node].hosted.remove(&actor);
            }
            Effect::Invoke { actor, call, batch, now } => {
                let Some(hosted) = self.nodes[node].hosted.get_mut(&actor) else { return };
                let outcome = match self.stalled {
                    Some(stage) if hosted.stage == stage => Err(CallError {
                        stage: stage.into(),
                        reason: "its outside is away".into(),
                        again: Again::Later,
                    }),
                    Some(_) | None => hosted.invoke(&batch, now),
                };
                let after = Span(self.chance.between(0, self.climate.call_ms));
                let input = Input::Returned { actor, call, outcome };
                self.later(self.now.after(after), Happening::Input { node, life, input });
            }
            Effect::Apply { actor, position } => {
                let stands = self.nodes[node].told.get(&actor).is_some_and(|seq| position.seq <= *seq);
                assert!(
                    stands,
                    "n{node} applies commit {} of {actor} before it is persisted",
                    position.seq.0
                );
                if let Some(hosted) = self.nodes[node].hosted.get_mut(&actor) {
                    hosted.apply(position);
                }
            }
            Effect::Discard { actor } => {
                if let Some(hosted) = self.nodes[node].hosted.get_mut(&actor) {
                    hosted.discard();
                }
            }
            Effect::LookUp { actor, look, key, limit } => {
                let state = self.nodes[node].hosted.get(&actor).map(|hosted| &hosted.shelf.committed);
                let entries =
                    state.into_iter().flatten().filter(|(at, _)| key.as_ref().is_none_or(|key| key == *at));
                let entries =
                    entries.take(limit as usize).map(|(key, value)| (key.clone(), value.clone())).collect();
                self.later(soon, Happening::Input { node, life, input: Input::LookedUp { look, entries } });
            }
            Effect::Send { to, message } => {
                self.credit.say(node, to, &message);
                self.post(node, to, &message);
            }
            Effect::Dial { node: to, .. } => {
                if let Some(other) = self.index_of(to) {
                    let at = self.now.after(Span(self.chance.between(1, 20)));
                    self.later(at, Happening::Link { a: node, b: other });
                }
            }
            Effect::Disconnect { node: to } => {
                if let Some(other) = self.index_of(to) {
                    self.unlink(node, other);
                }
            }
            Effect::Answer { id, response, last } => self.answers.push_back((node, id, response, last)),
            Effect::SetTimer { timer, at } => {
                let at = at.max(self.now);
                if self.nodes[node].timers.insert(timer.clone(), at) != Some(at) {
                    self.later(at, Happening::Timer { node, life, timer });
                }
            }
            Effect::FetchModule { digest, .. } => {
                self.later(soon, Happening::Input { node, life, input: Input::ModuleHeld { digest } });
            }
            Effect::StartConnector { .. } | Effect::StopConnector { .. } => {}
            Effect::Report(report) => {
                self.trace.line(self.now, format!("n{node} reports {}: {}", report.what, report.detail));
                self.tails_lost += u64::from(report.what == "tail_lost");
                let expected = self.was_full && report.what == "disk_full";
                if report.level == Level::Error && !expected {
                    self.errors.push(format!("n{node} {}: {}", report.what, report.detail));
                }
            }
        }
    }

    /// Memory counts at once, a page when it is written, the disk when it is synced; all of it is
    /// synced in the end, in order, by one disk.
    fn persist(&mut self, node: usize, log: LogId, records: &[Record], durability: Durability) {
        let life = self.nodes[node].life;
        let Some(seq) = records.last().map(|record| record.seq) else { return };
        let hands_over = |record: &Record| {
            matches!(record.decode(), Ok(Body::EpochStart(_) | Body::Close { .. } | Body::Inherit(_)))
        };
        if durability != Durability::Disk && records.iter().any(hands_over) {
            self.errors
                .push(format!("n{node} does not sync what hands log {log} over, up to record {}", seq.0));
        }
        let took = Span(self.chance.between(0, self.climate.sync_ms));
        let done = self.nodes[node].disk_until.max(self.now).after(took);
        self.nodes[node].disk_until = done;
        match self.nodes[node].disk.write(log, records) {
            Written::Taken => {}
            Written::Behind => return,
            Written::Refused => {
                let first = records.first().map_or(seq, |record| record.seq);
                let input = Input::PersistFailed { log, seq: first, full: true, why: "no space left".into() };
                return self.later(done, Happening::Input { node, life, input });
            }
        }
        if durability == Durability::Memory
            && let Some(found) = self.nodes[node].disk.logs.get_mut(&log)
        {
            found.volatile = true;
        }
        let tell = durability == Durability::Disk;
        self.later(done, Happening::Synced { node, life, log, seq, tell });
        if !tell {
            self.later(self.now, Happening::Input { node, life, input: Input::Persisted { log, seq } });
        }
    }

    /// A message crosses the wire as bytes; now and then its link breaks instead, or it is lost or
    /// comes twice.
    fn post(&mut self, from: usize, to: NodeId, message: &Message) {
        let Some(to) = self.index_of(to) else { return };
        let Some(link) = self.network.life(from, to) else { return };
        if self.chance.one_in(self.climate.link_loss) {
            return self.unlink(from, to);
        }
        let bytes = codec::encode(message);
        self.trace.bytes(&bytes);
        let copies = match self.chance.one_in(self.climate.message_loss) {
            true => [0, 2][self.chance.between(0, 1) as usize],
            false => 1,
        };
        for _ in 0..copies {
            let message: Message = codec::decode(&bytes).expect("what one node encodes another decodes");
            let at = self.network.arrival(from, to, self.now, self.climate.latency_ms, &mut self.chance);
            self.later(at, Happening::Deliver { from, to, link, message });
        }
    }

    /// Every committed body of one log, from the disk of its writer.
    pub fn bodies(&self, node: usize, log: LogId) -> Vec<(Record, Body)> {
        let found = self.nodes[node].disk.logs.get(&log);
        let records = found.map(|log| log.records.as_slice()).unwrap_or_default();
        records.iter().filter_map(|record| Some((record.clone(), record.decode().ok()?))).collect()
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
    })
    .me()
}

/// An input on one line: enough to follow, not every byte. Messages are hashed in full when posted.
fn short(input: &Input) -> String {
    use std::fmt::Write;
    let mut line = Line(String::new());
    // Ends with an error as soon as the line is long enough, so that the rest is not formatted.
    let _ = match input {
        Input::Message { from, message } => write!(line, "from {from:?} {message:?}"),
        other => write!(line, "{other:?}"),
    };
    line.0
}

struct Line(String);

impl std::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = 240 - self.0.chars().count();
        self.0.extend(text.chars().take(room));
        if text.chars().count() < room { Ok(()) } else { Err(std::fmt::Error) }
    }
}
