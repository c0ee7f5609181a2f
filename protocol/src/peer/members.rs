//! Who belongs to the mesh: whoever is let in is vouched for, tokens are rotated, and nobody listens to
//! those whom the facts refuse.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

use super::Peer;
use crate::actor::source::Asker;
use crate::effect::{Effect, Effects, Level};
use crate::id::{NodeId, Seq};
use crate::limits::NODES_MAX;
use crate::mesh::catalog::CatalogEntry;
use crate::mesh::roll::Rotation;
use crate::rpc::{FaultKind, Response, TokensRotated};
use crate::time::{Span, Time};
use crate::wire::handshake::Secret;

/// How long a fact that stands here waits for the connected members to hold it too, before it is answered.
const TELL_WAIT: Span = Span(3_000);

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
}

impl Peer {
    /// Whether this node is to be listened to: the facts may refuse it.
    pub(super) fn is_refused(&self, node: NodeId) -> bool {
        let roll = self.catalog.facts().roll();
        let vouched = || self.admitted.contains(&node) || roll.check_member(node).is_ok();
        node != self.me && (roll.check_identity(node).is_err() || !vouched())
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

    /// Writes a fact that a client waits for.
    fn tell(&mut self, asker: Asker, entry: CatalogEntry, what: Told, effects: &mut Effects) {
        if !self.may_write_catalog() {
            let why = "this node is still catching up with its own catalog; try again in a moment";
            return self.fail(asker, FaultKind::Busy { retry_after_ms: 500 }, why, effects);
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
