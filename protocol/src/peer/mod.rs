//! `Peer`: one whole node as one machine. This file only routes: every input goes to the room that
//! knows it, then the node settles (messages to itself, actors that can step, readers to be served)
//! until nothing is left to do.
//!
//! | file | what the node does there |
//! | --- | --- |
//! | `start` | recovery, beginning, the beat |
//! | `facts` | members, the catalog, which logs live here |
//! | `logs` | appending, persisting, retention |
//! | `hand_over` | the way of each line through its logs: born, written, closed into the next |
//! | `edges`, `readers` | serving the readers of logs; reading the logs of others |
//! | `actors` | functions, commits, retries |
//! | `publish` | events entering |
//! | `taps` | clients that follow a stream |
//! | `hubs` | what taps of one log share |
//! | `fanout` | streams that many nodes tap, given to gossip |
//! | `topics` | what comes by gossip, taken |
//! | `letters` | dead letters: listed, replayed, dropped |
//! | `questions` | clients' questions, gathered from other nodes |
//! | `reports` | what this node answers of itself, its actors and the mesh |
//! | `deploy` | new revisions and removals |
//! | `old_copy` | a data folder that is older than what others have read of it stops |
//! | `members` | who belongs to the mesh: letting in, rotating tokens, giving nodes up |
//! | `wiring` | what the catalog makes of it: logs, streams, shares |
//!
//! Invariants: nothing is answered, served or applied before `Persisted`; the wiring of pipelines
//! is here and nowhere else; what is repeated does no harm.

mod actors;
mod deploy;
mod edges;
mod facts;
mod fanout;
mod hand_over;
mod hubs;
mod letters;
mod logs;
mod members;
mod old_copy;
mod publish;
mod questions;
mod readers;
mod reports;
mod start;
mod taps;
#[cfg(test)]
mod tests;
mod topics;
mod wiring;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use ed25519_dalek::SigningKey;

use crate::actor::fold::Memory;
use crate::actor::machine::Actor;
use crate::actor::source::{Asker, SourceLog};
use crate::edge::reader::{Ahead, Reader};
use crate::edge::writer::Subscription;
use crate::effect::{ConnectorState, Effect, Effects, Input, Level, LookId, ReadId, Report, RequestId};
use crate::id::{Digest, LogId, Name, NodeId, Seq, TopicId};
use crate::log::record::Record;
use crate::log::writer::Log;
use crate::mesh::catalog::{Catalog, NodeFacts};
use crate::mesh::membership::Membership;
use crate::pipeline::manifest::Manifest;
use crate::rpc::{Fault, FaultKind, LettersMoved, Publish, Reply, Response};
use crate::time::Time;
use crate::wire::message::{AskId, EdgeId, Message};

pub use fanout::GossipBounds;
pub use hubs::TapBounds;
pub use start::JUST_STARTED;

/// Who this node is. The same configuration and the same inputs give the same effects.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// The node's key; its public half is the node's id.
    pub key: SigningKey,
    /// Larger at every start of this node (its wall clock at start will do): SWIM tells lives apart.
    pub generation: u64,
    /// Randomness for everything that wants some.
    pub seed: u64,
    pub facts: NodeFacts,
    /// The mesh's name: its public key as text.
    pub mesh: String,
    /// It came into its mesh by a token, so there are others, whether it has heard of them or not.
    pub joined: bool,
    pub taps: TapBounds,
    pub gossip: GossipBounds,
}

pub struct Peer {
    me: NodeId,
    now: Time,
    started_at: Time,
    phase: start::Phase,
    joined: bool,
    mesh: String,
    own_facts: NodeFacts,
    catalog: Catalog,
    /// Catalog records on their way to disk, in order, by node; re-persisted after a failure.
    catalog_unwritten: BTreeMap<NodeId, VecDeque<Record>>,
    catalog_logs: BTreeMap<LogId, NodeId>,
    /// Catalog logs whose last persist failed.
    catalog_failed: BTreeSet<NodeId>,
    /// Peers that gave catalog records and may have more: they are told our heads.
    tell_back: BTreeSet<NodeId>,
    /// How many records the heads held for which each peer was last told ours.
    heads_answered: BTreeMap<NodeId, u64>,
    /// While the node settles: what each peer said last that it holds.
    settling: BTreeMap<NodeId, BTreeMap<NodeId, Seq>>,
    membership: Membership,
    connected: BTreeSet<NodeId>,
    modules: BTreeSet<Digest>,
    modules_asked: BTreeMap<Digest, Time>,
    wiring: wiring::Wiring,
    /// The catalog's version that `wiring` was made from.
    wired: Option<u64>,
    recovering: BTreeMap<LogId, start::Recovering>,
    logs: BTreeMap<LogId, Log>,
    /// What logs without an actor or source at work remember: not written now, or closed and not
    /// inherited from yet.
    resting: BTreeMap<LogId, Memory>,
    /// Logs that are to be closed as soon as their actors are at rest.
    leaving: BTreeSet<LogId>,
    /// Why a line cannot go on to the log that it should write.
    held_up: BTreeMap<LogId, String>,
    /// Closed logs for which this node has asked for another in their place.
    rebearing: BTreeSet<LogId>,
    /// Lost deploys of this node that were reported.
    superseded: BTreeSet<Digest>,
    actors: BTreeMap<LogId, Actor>,
    sources: BTreeMap<LogId, SourceLog>,
    readers: BTreeMap<EdgeId, Reader>,
    /// Those of them that put their credit off.
    owing: BTreeSet<EdgeId>,
    subscriptions: BTreeMap<(NodeId, EdgeId), Subscription>,
    /// How many of them each node holds.
    subscriptions_of: BTreeMap<NodeId, usize>,
    subscribers: BTreeMap<LogId, BTreeSet<(NodeId, EdgeId)>>,
    /// Those of them that have credit.
    willing: BTreeMap<LogId, BTreeSet<(NodeId, EdgeId)>>,
    /// Logs that keep more records in memory than others, for readers that are late.
    late_logs: BTreeSet<LogId>,
    /// Subscriptions to logs that are being opened.
    early: BTreeMap<LogId, BTreeMap<(NodeId, EdgeId), edges::Subscribing>>,
    reads: BTreeMap<ReadId, (NodeId, EdgeId)>,
    taps: BTreeMap<RequestId, taps::Tap>,
    hubs: hubs::Hubs,
    fanout: fanout::Fanout,
    /// The topics of others that this node is in.
    topics: BTreeMap<TopicId, topics::Topic>,
    gathers: BTreeMap<u64, questions::Gather>,
    asks: BTreeMap<AskId, questions::Asked>,
    /// Letters of this node that are being replayed or dropped.
    letter_orders: BTreeMap<u64, letters::Ordered>,
    looks: BTreeMap<LookId, Asker>,
    deploys: BTreeMap<u64, deploy::Deploying>,
    /// Facts about members that clients wait for.
    tellings: BTreeMap<u64, members::Telling>,
    /// Let in here since the start, and those of them of whom the catalog is still to be told.
    admitted: BTreeSet<NodeId>,
    unvouched: BTreeSet<NodeId>,
    /// Modules that another node waits for.
    module_wants: Vec<deploy::Wanted>,
    /// Publish requests that wait for their source log to open.
    unopened: VecDeque<(Asker, Publish)>,
    opening: BTreeSet<(Name, Name)>,
    /// Messages to this node itself.
    own: VecDeque<Message>,
    restless_actors: BTreeSet<LogId>,
    restless_logs: BTreeSet<LogId>,
    restless_edges: BTreeSet<(NodeId, EdgeId)>,
    restless_taps: BTreeSet<RequestId>,
    next: u64,
    measured: (u64, u64),
    /// What the connectors here said last, by source log.
    connectors: BTreeMap<LogId, ConnectorState>,
    troubles: BTreeMap<String, String>,
    /// The data folder is an older copy: why, and nothing in it is written or served.
    outdated: Option<String>,
}

impl core::fmt::Debug for Peer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Peer").field("me", &self.me).field("logs", &self.logs.len()).finish_non_exhaustive()
    }
}

impl Peer {
    pub fn new(config: PeerConfig) -> Peer {
        let me = NodeId(config.key.verifying_key().to_bytes());
        Peer {
            me,
            now: Time(0),
            started_at: Time(0),
            phase: start::Phase::Recovering,
            joined: config.joined,
            mesh: config.mesh,
            own_facts: config.facts,
            catalog: Catalog::new(me, config.key),
            catalog_unwritten: BTreeMap::new(),
            catalog_logs: BTreeMap::new(),
            catalog_failed: BTreeSet::new(),
            tell_back: BTreeSet::new(),
            heads_answered: BTreeMap::new(),
            settling: BTreeMap::new(),
            membership: Membership::new(me, config.generation, config.seed),
            connected: BTreeSet::new(),
            modules: BTreeSet::new(),
            modules_asked: BTreeMap::new(),
            wiring: wiring::Wiring::default(),
            wired: None,
            recovering: BTreeMap::new(),
            logs: BTreeMap::new(),
            resting: BTreeMap::new(),
            leaving: BTreeSet::new(),
            held_up: BTreeMap::new(),
            rebearing: BTreeSet::new(),
            superseded: BTreeSet::new(),
            actors: BTreeMap::new(),
            sources: BTreeMap::new(),
            readers: BTreeMap::new(),
            owing: BTreeSet::new(),
            subscriptions: BTreeMap::new(),
            subscriptions_of: BTreeMap::new(),
            subscribers: BTreeMap::new(),
            late_logs: BTreeSet::new(),
            willing: BTreeMap::new(),
            early: BTreeMap::new(),
            reads: BTreeMap::new(),
            taps: BTreeMap::new(),
            hubs: hubs::Hubs::new(config.taps),
            fanout: fanout::Fanout::new(config.gossip),
            topics: BTreeMap::new(),
            gathers: BTreeMap::new(),
            asks: BTreeMap::new(),
            letter_orders: BTreeMap::new(),
            looks: BTreeMap::new(),
            deploys: BTreeMap::new(),
            tellings: BTreeMap::new(),
            admitted: BTreeSet::new(),
            unvouched: BTreeSet::new(),
            module_wants: Vec::new(),
            unopened: VecDeque::new(),
            opening: BTreeSet::new(),
            own: VecDeque::new(),
            restless_actors: BTreeSet::new(),
            restless_logs: BTreeSet::new(),
            restless_edges: BTreeSet::new(),
            restless_taps: BTreeSet::new(),
            next: 0,
            measured: (0, 0),
            connectors: BTreeMap::new(),
            troubles: BTreeMap::new(),
            outdated: None,
        }
    }

    pub fn me(&self) -> NodeId {
        self.me
    }

    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// What is held on behalf of somebody who waits: all zero when nobody does any more.
    pub fn under_way(&self) -> [(&'static str, usize); 12] {
        [
            ("questions", self.asks.len()),
            ("gatherings", self.gathers.len()),
            ("look-ups", self.looks.len()),
            ("reads", self.reads.len()),
            ("hubs", self.hubs.len()),
            ("taps that wait for a hub", self.hubs.waiting()),
            ("topics", self.topics.len()),
            ("deploys", self.deploys.len()),
            ("facts to be told", self.tellings.len()),
            ("wanted modules", self.module_wants.len()),
            ("publish requests", self.unopened.len()),
            ("unwritten catalog records", self.catalog_unwritten.values().map(VecDeque::len).sum()),
        ]
    }

    /// Whether the node serves: recovered, started, and level with its peers' catalogs.
    pub fn is_open(&self) -> bool {
        self.phase.is_open()
    }

    /// Whether a connection with this node is taken for one with a member.
    pub fn hears(&self, node: NodeId) -> bool {
        self.connected.contains(&node)
    }

    /// What is deployed, as this node serves it.
    pub fn manifests(&self) -> BTreeMap<Name, Arc<Manifest>> {
        let layouts = self.wiring.assignment().pipelines().iter();
        layouts.map(|(name, layout)| (name.clone(), layout.manifest.clone())).collect()
    }

    /// The modules that a revision of a living pipeline names (those before the present one too:
    /// somebody may go back), or a deploy under way, or a member that waits for them. No other is
    /// needed here.
    pub fn modules_named(&self) -> BTreeSet<Digest> {
        let living = self.catalog.facts().pipelines().values().flat_map(|current| {
            let known = current.earlier.iter().chain(&current.superseded).map(|known| &known.revision);
            known.chain([&current.revision])
        });
        let content = living.filter_map(|revision| revision.content.as_ref());
        let mut named: BTreeSet<Digest> =
            content.flat_map(|content| content.manifest.modules()).chain(self.modules_under_way()).collect();
        named.extend(self.modules_asked.keys());
        named
    }

    /// Takes one input; appends what the node wants done. Never fails, never waits.
    pub fn handle(&mut self, now: Time, input: Input, effects: &mut Effects) {
        self.now = now;
        match input {
            Input::Recovered(found) => self.on_recovered(found, effects),
            Input::Replay { log, records } => self.on_replay(log, records, effects),
            Input::Start => self.on_start(effects),
            Input::Connected { node } => self.on_connected(node, effects),
            Input::Disconnected { node } => self.on_disconnected(node, effects),
            Input::Message { from, message } => self.on_message(from, message, effects),
            Input::Broadcast { author, topic, broadcast } => {
                self.on_broadcast(author, topic, broadcast, effects)
            }
            Input::NotBroadcast { topic } => self.on_not_broadcast(topic, effects),
            Input::Admitted { node } => self.on_admitted(node, effects),
            Input::SaidRemoved { by } => self.on_said_removed(by, effects),
            Input::Request { id, request } => self.on_request(id, request, effects),
            Input::TapCredit { id, bytes } => self.on_tap_credit(id, bytes, effects),
            Input::Cancelled { id } => self.on_cancelled(id, effects),
            Input::Persisted { log, seq } => self.on_persisted(log, seq, effects),
            Input::PersistFailed { log, seq, full, why } => {
                self.on_persist_failed(log, seq, full, &why, effects)
            }
            Input::Read { log, read, outcome } => self.on_read(log, read, outcome, effects),
            Input::Snapshotted { log, at, outcome } => self.on_snapshotted(log, at, outcome, effects),
            Input::Hosted { actor, outcome } => self.on_hosted(actor, outcome, effects),
            Input::Returned { actor, call, outcome } => self.on_returned(actor, call, outcome, effects),
            Input::ModuleHeld { digest } => self.on_module_held(digest, effects),
            Input::ModuleGone { digest } => _ = self.modules.remove(&digest),
            Input::ModuleMissing { digest, why } => self.on_module_missing(digest, &why, effects),
            Input::LookedUp { look, entries } => self.on_looked_up(look, entries, effects),
            Input::Timer(timer) => self.on_timer(timer, effects),
            Input::Measured { rss_bytes, disk_bytes, connectors } => {
                self.measured = (rss_bytes, disk_bytes);
                self.connectors = connectors.into_iter().map(|state| (state.log, state)).collect();
            }
        }
        self.settle(effects);
    }

    /// Lets everything come to rest that can: it ends because every step consumes something.
    fn settle(&mut self, effects: &mut Effects) {
        if !self.phase.is_running() {
            return;
        }
        self.rewire(effects);
        loop {
            if let Some(message) = self.own.pop_front() {
                self.on_message(self.me, message, effects);
            } else if let Some(log) = self.restless_actors.pop_first() {
                self.step_actor(log, effects);
            } else if let Some(log) = self.restless_logs.pop_first() {
                self.serve_readers(log, effects);
            } else if let Some(of) = self.restless_edges.pop_first() {
                self.serve_edge(of, effects);
            } else if let Some(id) = self.restless_taps.pop_first() {
                self.rouse_tap(id, effects);
            } else {
                return;
            }
            self.rewire(effects);
        }
    }

    fn on_message(&mut self, from: NodeId, message: Message, effects: &mut Effects) {
        if self.is_refused(from) {
            return self.turn_away(from, effects);
        }
        match message {
            Message::Swim(datagram) => self.on_swim(from, &datagram, effects),
            Message::CatalogHeads(heads) => self.on_catalog_heads(from, &heads, effects),
            Message::CatalogRecords { node, records } => {
                self.on_catalog_records(from, node, records, effects)
            }
            Message::Subscribe { edge, log, reader, filter, from: at, committed, credit } => {
                let request = edges::Subscribing { edge, log, reader, filter, from: at, committed, credit };
                self.on_subscribe(from, request, effects);
            }
            Message::Credit { edge, total, received, committed } => {
                self.on_credit(from, edge, total, received, committed, effects);
            }
            Message::Unsubscribe { edge } => self.unsubscribe(from, edge),
            Message::Subscribed { edge, at, head, behind } => {
                self.on_subscribed(from, edge, at, Ahead { head, behind }, effects);
            }
            Message::Batch { edge, after, slices, head, behind } => {
                self.on_batch(from, edge, after, slices, Ahead { head, behind }, effects)
            }
            Message::FallBack { edge, to } => self.on_fall_back(from, edge, to, effects),
            Message::Refused { edge, why } => self.on_refused(from, edge, why, effects),
            Message::Ask { ask, question } => self.on_ask(from, ask, question, effects),
            Message::Answer { ask, reply } => self.on_reply(from, ask, reply, effects),
            Message::WantModules { ask, digests } => self.on_want_modules(from, ask, digests, effects),
            Message::Modules { ask, missing } => self.on_modules(from, ask, missing, effects),
            Message::Offer { log, outputs } => self.on_offer(from, log, outputs, effects),
            Message::InTopic { topic } => self.on_in_topic(from, topic),
            Message::OutOfTopic { topic } => self.on_out_of_topic(from, topic, effects),
            Message::ByGossip { edge, at } => self.on_by_gossip(from, edge, at, effects),
        }
    }

    // --- what every room uses ---

    fn send(&mut self, to: NodeId, message: Message, effects: &mut Effects) {
        if to == self.me {
            self.own.push_back(message);
        } else if self.connected.contains(&to) {
            effects.push(Effect::Send { to, message });
        }
    }

    fn reachable(&self, node: NodeId) -> bool {
        node == self.me || self.connected.contains(&node)
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn answer(&mut self, asker: Asker, response: Response, effects: &mut Effects) {
        match asker {
            Asker::Client(id) => effects.push(Effect::Answer { id, response, last: true }),
            Asker::Node(node, ask) => {
                let reply = match response {
                    Response::Published { log, acknowledged, last, position } => {
                        Reply::Published { log, acknowledged, last, position }
                    }
                    Response::State(entries) => Reply::State(entries),
                    Response::DeadLetters { letters, .. } => Reply::DeadLetters(letters),
                    Response::LettersMoved(LettersMoved { moved, left, .. }) => {
                        Reply::LettersMoved { moved, left }
                    }
                    Response::Failed(fault) => Reply::Failed(fault),
                    Response::Status(_)
                    | Response::Nodes(_)
                    | Response::Pipelines(_)
                    | Response::Shown(_)
                    | Response::Deployed { .. }
                    | Response::Removed { .. }
                    | Response::TokensRotated(_)
                    | Response::NodeRemoved(_)
                    | Response::GivenUp(_)
                    | Response::Events { .. } => Reply::Failed(Fault {
                        kind: FaultKind::Invalid,
                        detail: "a node asked for what only clients are answered".into(),
                    }),
                };
                self.send(node, Message::Answer { ask, reply }, effects);
            }
        }
    }

    fn fail(&mut self, asker: Asker, kind: FaultKind, detail: impl Into<String>, effects: &mut Effects) {
        self.answer(asker, Response::Failed(Fault { kind, detail: detail.into() }), effects);
    }

    fn report(&self, level: Level, what: &'static str, detail: impl Into<String>, effects: &mut Effects) {
        effects.push(Effect::Report(Report { level, what, detail: detail.into() }));
    }
}

/// Shares an `Arc` of what is the same for many.
fn shared<T>(value: T) -> Arc<T> {
    Arc::new(value)
}

/// Unique in their order.
fn distinct<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    items.into_iter().collect::<BTreeSet<T>>().into_iter().collect()
}
