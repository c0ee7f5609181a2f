//! How a node begins: what the disk held becomes logs and memories again, then it settles, then it
//! opens. To settle is to compare catalogs with the other members (a removal is learned before
//! anything is served) until each of them holds what this node says of itself: whoever hears that
//! it is ready may count on all of them for the next deploy. Members that are away are not waited
//! for long.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::Peer;
use super::logs::trouble_key;
use crate::actor::fold::{ActorMemory, LogFold, Memory, SourceMemory};
use crate::effect::{Effect, Effects, Level, RecoveredLog, Timer};
use crate::id::{LogId, NodeId, Position, Seq};
use crate::limits::{CATALOG_REPEAT, EDGE_REPEAT};
use crate::log::record::Record;
use crate::log::writer::{Kept, Log, Recovered};
use crate::mesh::catalog::{CatalogEntry, LogName};
use crate::mutation::{Mutation, planted};
use crate::pipeline::manifest::{Durability, Retention};
use crate::pipeline::plan::Role;
use crate::rpc::{Fault, FaultKind, Liveness};
use crate::time::{Span, Time};
use crate::wire::message::Message;

/// What a node says to whoever asks before it has compared catalogs with its peers.
pub const JUST_STARTED: &str =
    "this node has just started and compares catalogs with its peers; try again in a moment";

/// How long a node that knows others waits for their catalogs before it serves.
const SETTLE_WAIT: Span = Span(2_000);
/// The same for one that has joined and heard of nobody yet: it was let in just now.
const JOIN_WAIT: Span = Span(10_000);
const RETENTION_EVERY: Span = Span(5_000);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Recovering,
    /// Started; catalogs are compared until then.
    Settling {
        until: Time,
    },
    Running,
}

impl Phase {
    pub(super) fn is_running(self) -> bool {
        self != Phase::Recovering
    }

    pub(super) fn is_open(self) -> bool {
        self == Phase::Running
    }
}

/// A log of the disk until the catalog says whose it is.
#[derive(Debug)]
pub(super) struct Recovering {
    pub log: Log,
    pub memory: Memory,
}

impl Peer {
    pub(super) fn on_recovered(&mut self, found: RecoveredLog, effects: &mut Effects) {
        let id = found.name.id();
        if let Some(damage) = &found.damage {
            let what = match &found.name {
                LogName::Catalog(_) => "catalog_damaged",
                LogName::Actor { .. } => "log_damaged",
            };
            self.report(Level::Error, what, format!("log {id}: {damage}"), effects);
        }
        match &found.name {
            LogName::Catalog(node) => {
                self.catalog_logs.insert(id, *node);
                if let Some(damage) = found.damage {
                    self.troubles.insert(trouble_key(id), damage.clone());
                    self.catalog.bar(*node, damage, found.noted);
                }
            }
            LogName::Actor { unit, .. } => {
                let mut memory = match unit.role {
                    Role::Source => Memory::Source(SourceMemory::default()),
                    Role::Behind | Role::Stage | Role::Sink => Memory::Actor(ActorMemory::default()),
                };
                let mut log = Log::new(found.name.clone(), Durability::Disk, Retention::default());
                let mut damage = found.damage;
                let mut covered = Position::START;
                if let Some((at, fold)) = found.snapshot {
                    match LogFold::read(&fold) {
                        Ok(fold) => {
                            memory = fold.memory;
                            log.epochs = fold.epochs;
                            covered = at;
                        }
                        Err(why) => damage = Some(damage.unwrap_or(why)),
                    }
                }
                let found = Recovered { head: found.head, first: found.first, covered, bytes: found.bytes };
                log.recover(found, damage, self.now);
                self.recovering.insert(id, Recovering { log, memory });
            }
        }
    }

    pub(super) fn on_replay(&mut self, log: LogId, records: Vec<Record>, effects: &mut Effects) {
        if let Some(node) = self.catalog_logs.get(&log).copied() {
            if let Err(fault) = self.catalog.restore(node, records) {
                self.report(Level::Error, "catalog_damaged", fault.to_string(), effects);
            }
            return;
        }
        let now = self.now;
        let Some(recovering) = self.recovering.get_mut(&log) else { return };
        for record in &records {
            match Kept::of(record) {
                Some(kept) => {
                    recovering.memory.apply(&kept.body);
                    recovering.log.replayed(kept, now);
                }
                None => {
                    let why = format!("record {} of log {log} does not decode", record.seq.0);
                    recovering.log.damage.get_or_insert(why);
                    return;
                }
            }
        }
    }

    pub(super) fn on_start(&mut self, effects: &mut Effects) {
        self.started_at = self.now;
        self.catalog.begin(self.now);
        let alone = self.catalog.facts().nodes().keys().all(|node| *node == self.me);
        let wait = if alone && self.joined { JOIN_WAIT } else { SETTLE_WAIT };
        self.phase = Phase::Settling { until: self.now.after(wait) };
        effects.push(Effect::SetTimer { timer: Timer::Beat, at: self.now });
        effects.push(Effect::SetTimer { timer: Timer::Retention, at: self.now.after(RETENTION_EVERY) });
    }

    pub(super) fn on_timer(&mut self, timer: Timer, effects: &mut Effects) {
        match timer {
            Timer::Swim(number) => self.on_swim_timer(number, effects),
            Timer::Beat => self.beat(effects),
            Timer::Actor(log) => self.on_actor_timer(log, effects),
            Timer::Credit => self.give_owed_credit(effects),
            Timer::Ask => self.expire_questions(effects),
            Timer::Broadcast => self.broadcasts_due(),
            Timer::Retention => {
                self.keep_house(effects);
                effects
                    .push(Effect::SetTimer { timer: Timer::Retention, at: self.now.after(RETENTION_EVERY) });
            }
        }
    }

    /// Once a second: whatever may have been lost is said again.
    fn beat(&mut self, effects: &mut Effects) {
        effects.push(Effect::SetTimer { timer: Timer::Beat, at: self.now.after(EDGE_REPEAT) });
        if let Phase::Settling { until } = self.phase
            && until <= self.now
        {
            self.open();
            // Once, when it would have opened.
            if !self.phase.is_open() && self.now.since(until) < EDGE_REPEAT {
                self.report(Level::Error, "catalog_damaged", self.not_open_yet().1, effects);
            }
        }
        self.mend_catalog(effects);
        self.tell_own_facts(effects);
        self.vouch(effects);
        self.repeat_membership(effects);
        self.repeat_unwritten(effects);
        self.dial_missing(effects);
        if self.now.since(self.started_at).0 % CATALOG_REPEAT.0 < EDGE_REPEAT.0 {
            self.tell_heads(effects);
        }
        self.repeat_edges(effects);
        self.take_turns(effects);
        self.tend_fanout(effects);
        self.tend_topics(effects);
        self.repeat_modules(effects);
        self.repeat_taking(effects);
        self.retry_openings(effects);
        self.retry_unopened(effects);
        self.expire_questions(effects);
        self.revisions_stand(effects);
        self.told(effects);
    }

    /// A peer told what it holds, or something of the catalog came to stand here: what is missing
    /// on either side is said at once, and the node opens when nothing is.
    pub(super) fn settle_down(&mut self, effects: &mut Effects) {
        let Phase::Settling { .. } = self.phase else { return };
        self.tell_own_facts(effects);
        self.dial_missing(effects);
        if self.is_known() {
            self.open();
        }
    }

    /// This node's facts stand here, and every other member is there, has told nothing that is not here, and holds this node's facts.
    fn is_known(&self) -> bool {
        let nodes = self.catalog.facts().nodes();
        let ours = self.catalog.heads();
        let own_end = ours.get(&self.me).map_or(Seq(0), |head| head.seq);
        let level = |heads: &BTreeMap<NodeId, Seq>| {
            heads.iter().all(|(node, seq)| ours.get(node).is_some_and(|our| our.seq >= *seq))
                && heads.get(&self.me).is_some_and(|seq| *seq >= own_end)
        };
        let mut others = nodes.keys().filter(|node| **node != self.me && !self.is_refused(**node)).peekable();
        nodes.get(&self.me) == Some(&self.own_facts)
            && (others.peek().is_some() || !self.joined)
            && others.all(|node| {
                self.connected.contains(node)
                    && self.liveness(*node) == Liveness::Alive
                    && self.settling.get(node).is_some_and(level)
            })
    }

    /// What a damaged catalog log says may forbid anything: until a member has given it, nothing is served.
    fn open(&mut self) {
        if self.catalog.damaged().is_none() || planted(Mutation::OpenThoughDamaged) {
            self.phase = Phase::Running;
            self.settling.clear();
        }
    }

    /// Why this node serves nothing yet, if it does not.
    pub fn closed(&self) -> Option<Fault> {
        let (kind, detail) = (!self.phase.is_open()).then(|| self.not_open_yet())?;
        Some(Fault { kind, detail })
    }

    /// Why this node serves nothing yet.
    pub(super) fn not_open_yet(&self) -> (FaultKind, String) {
        let waited = matches!(self.phase, Phase::Settling { until } if until <= self.now);
        if let Some((node, _)) = self.catalog.damaged().filter(|_| waited) {
            let log = LogName::Catalog(*node).id();
            let why = format!(
                "the catalog log of node {node} is damaged on this node's disk, and no member that is connected has all of it: this node does not know all that was decided, so it serves nothing; start a member that knows it, or stop this node and put the files of that one log (logs/{log}) back from a copy"
            );
            return (FaultKind::Unavailable, why);
        }
        (FaultKind::Busy { retry_after_ms: 200 }, String::from(JUST_STARTED))
    }

    /// What this node is stands in its own catalog log, once, and again when it changed.
    fn tell_own_facts(&mut self, effects: &mut Effects) {
        let said = self.catalog.facts().nodes().get(&self.me) == Some(&self.own_facts);
        let under_way = self.catalog_unwritten.get(&self.me).is_some_and(|records| !records.is_empty());
        if !said && !under_way && self.may_write_catalog() {
            self.append_fact(CatalogEntry::Node(self.own_facts.clone()), effects);
        }
    }

    pub(super) fn may_write_catalog(&self) -> bool {
        self.outdated.is_none() && self.catalog.ready_to_write(!self.connected.is_empty(), self.now)
    }

    fn dial_missing(&mut self, effects: &mut Effects) {
        let missing: Vec<(NodeId, Vec<String>)> = self
            .catalog
            .facts()
            .nodes()
            .iter()
            .filter(|(node, _)| {
                **node != self.me && !self.connected.contains(node) && !self.is_refused(**node)
            })
            .map(|(node, facts)| (*node, facts.addresses.clone()))
            .collect();
        for (node, addresses) in missing {
            effects.push(Effect::Dial { node, addresses });
        }
    }

    pub(super) fn tell_heads(&mut self, effects: &mut Effects) {
        let heads = self.catalog.heads();
        let peers: Vec<NodeId> = self.connected.iter().copied().collect();
        for peer in peers {
            self.send(peer, Message::CatalogHeads(heads.clone()), effects);
        }
    }
}
