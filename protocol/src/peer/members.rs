//! Who belongs to the mesh: whoever is let in is vouched for, tokens are rotated, nodes that are gone are
//! given up, and nobody listens to those whom the facts refuse.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Peer;
use crate::actor::source::Asker;
use crate::effect::{Effect, Effects, Level};
use crate::id::{Name, NodeId, Seq};
use crate::limits::NODES_MAX;
use crate::mesh::catalog::{CatalogEntry, Removal, Share};
use crate::mesh::placement::fit_for;
use crate::mesh::roll::Rotation;
use crate::mutation::{Mutation, planted};
use crate::pipeline::plan::Role;
use crate::rpc::{FaultKind, GivenUp, Liveness, NodeRemoved, Response, TokensRotated};
use crate::time::{Span, Time};
use crate::wire::handshake::Secret;

/// How long a fact that stands here waits for the connected members to hold it too, before it is answered.
const TELL_WAIT: Span = Span(3_000);

/// A node that has run for so long knows which members are gone: longer than any suspicion lasts.
const PROBED_AFTER: Span = Span(10_000);

/// A fact of this node's own log that a client waits for.
#[derive(Debug)]
pub(super) struct Telling {
    asker: Asker,
    seq: Seq,
    until: Time,
    what: Told,
}

#[derive(Debug, Clone)]
enum Told {
    Rotation,
    Removal(NodeId),
}

impl Peer {
    /// Whether this node is to be listened to: the facts may refuse it.
    pub(super) fn is_refused(&self, node: NodeId) -> bool {
        let roll = self.catalog.facts().roll();
        let vouched = || self.admitted.contains(&node) || roll.check_member(node).is_ok();
        let refused = roll.check_identity(node).is_err() || !vouched();
        node != self.me && refused && !planted(Mutation::HearTheRemoved)
    }

    /// A node that the facts refuse is connected.
    pub(super) fn turn_away(&self, node: NodeId, effects: &mut Effects) {
        if let Err(why) = self.catalog.facts().roll().check_member(node) {
            self.report(Level::Warn, "member_refused", format!("node {node}: {why}"), effects);
        }
        effects.push(Effect::Disconnect { node });
    }

    /// The facts changed: connections with nodes that they refuse from now on end, before anything is told.
    pub(super) fn expel(&mut self, effects: &mut Effects) {
        let refused: Vec<NodeId> =
            self.connected.iter().filter(|node| self.is_refused(**node)).copied().collect();
        for node in refused {
            self.turn_away(node, effects);
            self.on_disconnected(node, effects);
        }
    }

    /// A member says that this node was given up. It cannot be heard in any mesh any more, so it must not
    /// acknowledge either. Who was given up here is not listened to: of two that gave each other up, each goes
    /// on without the other.
    pub(super) fn on_said_removed(&mut self, by: NodeId, effects: &mut Effects) {
        if self.catalog.facts().nodes().contains_key(&by) && !self.is_refused(by) {
            let why = format!(
                "this node was removed from the mesh for good ('dunlin nodes remove'), says node {by}: what its data folder holds is not read or written any more; start it with an empty data folder and a token"
            );
            self.report(Level::Error, "removed", why.clone(), effects);
            effects.push(Effect::Stop { why });
        }
    }

    /// The door let a node in by a token: this node vouches for it.
    pub(super) fn on_admitted(&mut self, node: NodeId, effects: &mut Effects) {
        if self.admitted.len() < NODES_MAX && self.admitted.insert(node) {
            self.unvouched.insert(node);
        }
        self.vouch(effects);
    }

    /// Says of each node that was let in here that it was, as soon as that can be said.
    pub(super) fn vouch(&mut self, effects: &mut Effects) {
        if self.unvouched.is_empty() || !self.may_write_catalog() {
            return;
        }
        for node in core::mem::take(&mut self.unvouched) {
            if !self.catalog.facts().roll().vouched.contains(&node) {
                self.append_fact(CatalogEntry::Admitted { node }, effects);
            }
        }
    }

    pub(super) fn rotate_tokens(&mut self, asker: Asker, salt: Secret, effects: &mut Effects) {
        let facts = self.catalog.facts();
        let before = u32::try_from(facts.roll().rotations.len()).unwrap_or(u32::MAX);
        let rotation = Rotation { before, salt: salt.0 };
        let known = facts.nodes().keys().chain(&self.connected).chain([&self.me]);
        let members: BTreeSet<NodeId> =
            known.filter(|node| facts.roll().check_identity(**node).is_ok()).copied().collect();
        self.tell(asker, CatalogEntry::TokensRotated { rotation, members }, Told::Rotation, effects);
    }

    /// Gives a node up for good. Only one that is gone: whoever is alive would go on with what it has.
    pub(super) fn remove_node(&mut self, asker: Asker, node: NodeId, effects: &mut Effects) {
        let facts = self.catalog.facts();
        if facts.is_removed(&node) {
            let given_up = self.given_up(None, Some(node));
            let response = Response::NodeRemoved(NodeRemoved { node, unheard: Vec::new(), given_up });
            return self.answer(asker, response, effects);
        }
        if !facts.nodes().contains_key(&node) && !self.membership.members().contains_key(&node) {
            let why = format!("there is no node {node} in this mesh; see `dunlin nodes`");
            return self.fail(asker, FaultKind::Unknown, why, effects);
        }
        // Before the members have been probed all of them count as gone.
        if self.now.since(self.started_at) < PROBED_AFTER {
            let why = "this node has just started and does not know yet who is gone; try again in a moment";
            return self.fail(asker, FaultKind::Busy { retry_after_ms: 1_000 }, why, effects);
        }
        if self.reachable(node) || self.liveness(node) != Liveness::Gone {
            let why = format!(
                "node {node} is alive, or was a moment ago; only a node that is gone can be given up: stop it, wait until `dunlin nodes` says gone, and try again"
            );
            return self.fail(asker, FaultKind::Conflict, why, effects);
        }
        match self.removal_of(node) {
            Err(why) => self.fail(asker, FaultKind::Conflict, why, effects),
            Ok(removal) => {
                let entry = CatalogEntry::NodeRemoved { node, removal };
                self.tell(asker, entry, Told::Removal(node), effects);
            }
        }
    }

    /// Who may take over what lives on this node. The error is a sentence for the user.
    fn removal_of(&self, node: NodeId) -> Result<Removal, String> {
        let candidates = self.candidates();
        let mut homes: BTreeMap<Name, BTreeMap<_, _>> = BTreeMap::new();
        for (pipeline, layout) in self.wiring.assignment().pipelines() {
            for line in layout.lines.iter().filter(|line| line.node == node) {
                let Share::Slots { .. } = line.share else { continue };
                let rule = layout.manifest.placement.get(&line.unit.name);
                let fit = fit_for(&line.unit, rule, &candidates)
                    .map_err(|why| format!("'{}' of '{pipeline}' would have no node: {why}", line.unit.name));
                // What no revision wants any more needs nobody.
                match (fit, line.wanted) {
                    (Ok(fit), _) => {
                        _ = homes.entry(pipeline.clone()).or_default().insert(line.unit.clone(), fit)
                    }
                    (Err(why), Some(_)) => return Err(why),
                    (Err(_), None) => {}
                }
            }
        }
        Ok(Removal { homes, others: candidates.into_keys().collect() })
    }

    /// What nodes that were given up leave behind.
    pub(super) fn given_up(&self, pipeline: Option<&Name>, node: Option<NodeId>) -> Vec<GivenUp> {
        let mut all = Vec::new();
        for (name, layout) in self.wiring.assignment().pipelines() {
            if pipeline.is_some_and(|wanted| wanted != name) {
                continue;
            }
            let removed = self.catalog.facts().roll().removed.iter().copied();
            for node in removed.filter(|gone| node.is_none_or(|wanted| wanted == *gone)) {
                let sources =
                    layout.lines.iter().filter(|line| line.node == node && line.unit.role == Role::Source);
                let lost = super::distinct(sources.map(|line| line.unit.name.clone()));
                let ended = layout.files_read_by(&node);
                let anew = layout.anew.iter().filter(|one| one.from == node);
                let anew = super::distinct(anew.map(|one| (one.unit.id.name.clone(), one.heir)));
                if !(lost.is_empty() && ended.is_empty() && anew.is_empty()) {
                    all.push(GivenUp { pipeline: name.clone(), node, lost, ended, anew });
                }
            }
        }
        all
    }

    /// Writes a fact that a client waits for.
    fn tell(&mut self, asker: Asker, entry: CatalogEntry, what: Told, effects: &mut Effects) {
        if let Some((kind, why)) = self.speaks_of_no_facts() {
            return self.fail(asker, kind, why, effects);
        }
        let seq = self.catalog.next_reference().seq;
        self.append_fact(entry, effects);
        let number = self.fresh();
        let until = self.now.after(TELL_WAIT);
        self.tellings.insert(number, Telling { asker, seq, until, what });
    }

    /// This node's catalog log grew, or a member told what it holds of it: facts that stand, here and with
    /// all that are connected, are answered.
    pub(super) fn told(&mut self, effects: &mut Effects) {
        let stands = self.catalog.heads().get(&self.me).map_or(Seq(0), |head| head.seq);
        let due = |telling: &Telling| {
            let everywhere = self.connected.iter().all(|peer| self.catalog.claim(peer) >= Some(telling.seq));
            telling.seq <= stands && (everywhere || telling.until <= self.now)
        };
        let due: Vec<u64> =
            self.tellings.iter().filter(|(_, telling)| due(telling)).map(|(number, _)| *number).collect();
        for number in due {
            let Some(Telling { asker, seq, what, .. }) = self.tellings.remove(&number) else { continue };
            let response = match what {
                Told::Rotation => Response::TokensRotated(TokensRotated {
                    rotations: self.catalog.facts().roll().rotations.len() as u32,
                    unheard: self.unheard_of(seq),
                }),
                Told::Removal(node) => {
                    self.rewire(effects);
                    let given_up = self.given_up(None, Some(node));
                    Response::NodeRemoved(NodeRemoved { node, unheard: self.unheard_of(seq), given_up })
                }
            };
            self.answer(asker, response, effects);
        }
    }

    /// The members that have not said that they hold this record of this node's catalog log.
    fn unheard_of(&self, seq: Seq) -> Vec<NodeId> {
        let facts = self.catalog.facts();
        let others = facts.nodes().keys().filter(|node| **node != self.me && !self.is_refused(**node));
        others.filter(|node| self.catalog.claim(node) < Some(seq)).copied().collect()
    }

    /// The disk did not take this node's catalog record.
    pub(super) fn untold(&mut self, why: &str, effects: &mut Effects) {
        for telling in core::mem::take(&mut self.tellings).into_values() {
            let why = format!(
                "this node's disk did not take it ({why}); it is tried again until it does, see `dunlin status`"
            );
            self.fail(telling.asker, FaultKind::Storage, why, effects);
        }
    }
}
