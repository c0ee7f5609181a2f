//! Dead letters: listed, replayed, dropped. Whatever node is asked, the letter's home does it, as a
//! commit of the actor that holds it; homes that were not reached are named in the answer.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::questions::Wants;
use super::{Peer, distinct};
use crate::actor::machine::Actor;
use crate::actor::source::Asker;
use crate::effect::Effects;
use crate::id::{LetterId, LogId, Name};
use crate::limits::{LETTERS_ANSWER_BYTES_MAX, REQUESTS_MAX};
use crate::log::record::DeadLetter;
use crate::mesh::catalog::LogName;
use crate::pipeline::plan::Role;
use crate::rpc::{DeadLetterStatus, Fault, FaultKind, LetterMove, LettersMoved, Question, Response};

/// A request for letters of this node, under way in its actors.
#[derive(Debug)]
pub(super) struct Ordered {
    asker: Asker,
    waiting: BTreeSet<LogId>,
    moved: u64,
    left: u64,
}

impl Peer {
    /// Every node that has a log of the pipeline is asked: a letter's id tells where it was written,
    /// and a redeploy may have moved it.
    pub(super) fn ask_for_letters(
        &mut self,
        asker: Asker,
        pipeline: &Name,
        question: Question,
        wants: Wants,
        effects: &mut Effects,
    ) {
        if !self.known_pipeline(asker, pipeline, effects) {
            return;
        }
        let nodes = distinct(self.wiring.logs_of(pipeline).map(|(_, node)| node).chain([self.me]));
        let questions = nodes.into_iter().map(|node| (node, question.clone())).collect();
        self.gather(asker, wants, questions, effects);
    }

    /// Why this node cannot tell which letters of the pipeline it has: one that a damaged log holds is not to
    /// pass for one that never was.
    pub(super) fn unreadable_letters(&self, pipeline: &Name) -> Option<String> {
        self.logs.iter().find_map(|(log, writer)| {
            let LogName::Actor { pipeline: of, unit, .. } = &writer.name else { return None };
            let damage = writer.damage.as_ref().filter(|_| of == pipeline && unit.role != Role::Source)?;
            Some(format!("the log of '{}' there cannot be read (log {log}: {damage})", unit.name))
        })
    }

    /// The letters of this node.
    pub(super) fn letters(
        &self,
        pipeline: &Name,
        letter: Option<LetterId>,
        limit: u32,
    ) -> Vec<DeadLetterStatus> {
        let mine = self.actors.values().filter(|actor| is_of(actor, pipeline));
        let letters = mine.flat_map(|actor| actor.memory.dead.values());
        let wanted = letters.filter(|dead| letter.is_none_or(|id| id == dead.id));
        first_letters(wanted.map(status_of), limit)
    }

    /// Has this node's actors replay or drop letters; the asker is answered when all of it is committed.
    pub(super) fn order_letters(
        &mut self,
        asker: Asker,
        pipeline: &Name,
        letter: Option<LetterId>,
        does: LetterMove,
        effects: &mut Effects,
    ) {
        let holders: Vec<LogId> = self
            .actors
            .iter()
            .filter(|(_, actor)| is_of(actor, pipeline) && actor.letters_of(letter.as_ref()) > 0)
            .map(|(log, _)| *log)
            .collect();
        let unready = holders.iter().find(|log| {
            !self.actors.get(log).is_some_and(Actor::is_ready)
                || !self.logs.get(log).is_some_and(|writer| writer.open)
        });
        if let Some(log) = unready {
            let why = format!(
                "actor {log} on node {} cannot commit now, so nothing was moved there; see `dunlin show {pipeline}` and try again",
                self.me
            );
            return self.fail(asker, FaultKind::Unavailable, why, effects);
        }
        if self.letter_orders.len() >= REQUESTS_MAX {
            let why = format!("node {} moves as many letters as it can; try again in a moment", self.me);
            return self.fail(asker, FaultKind::Busy { retry_after_ms: 500 }, why, effects);
        }
        let order = self.fresh();
        let waiting = holders.iter().copied().collect();
        self.letter_orders.insert(order, Ordered { asker, waiting, moved: 0, left: 0 });
        for log in holders {
            if let Some(actor) = self.actors.get_mut(&log) {
                actor.order_letters(order, does, letter);
                self.restless_actors.insert(log);
            }
        }
        self.finish_letters(order, effects);
    }

    pub(super) fn on_letters_moved(
        &mut self,
        actor: LogId,
        order: u64,
        moved: u64,
        left: u64,
        effects: &mut Effects,
    ) {
        if let Some(ordered) = self.letter_orders.get_mut(&order) {
            ordered.waiting.remove(&actor);
            ordered.moved += moved;
            ordered.left += left;
        }
        self.finish_letters(order, effects);
    }

    /// The actor is no longer here, and its letters are not either.
    pub(super) fn forget_letters(&mut self, actor: LogId, effects: &mut Effects) {
        let orders: Vec<u64> = self
            .letter_orders
            .iter()
            .filter(|(_, ordered)| ordered.waiting.contains(&actor))
            .map(|(order, _)| *order)
            .collect();
        for order in orders {
            self.on_letters_moved(actor, order, 0, 0, effects);
        }
    }

    fn finish_letters(&mut self, order: u64, effects: &mut Effects) {
        if self.letter_orders.get(&order).is_none_or(|ordered| !ordered.waiting.is_empty()) {
            return;
        }
        let Some(Ordered { asker, moved, left, .. }) = self.letter_orders.remove(&order) else { return };
        let moved = LettersMoved { moved, left, missed: Vec::new() };
        self.answer(asker, Response::LettersMoved(moved), effects);
    }
}

/// As many as one answer carries.
pub(super) fn first_letters(
    letters: impl IntoIterator<Item = DeadLetterStatus>,
    limit: u32,
) -> Vec<DeadLetterStatus> {
    let mut bytes = 0;
    let mut first = Vec::new();
    for letter in letters.into_iter().take(limit as usize) {
        bytes += (letter.event.weight() + letter.reason.len()) as u64;
        if bytes > LETTERS_ANSWER_BYTES_MAX && !first.is_empty() {
            break;
        }
        first.push(letter);
    }
    first
}

/// What the client hears: one letter that nobody has is a mistake, or is where nobody could look.
pub(super) fn moved_letters(letter: Option<LetterId>, moved: LettersMoved) -> Response {
    match (letter, moved.missed.first()) {
        (Some(id), None) if moved.moved + moved.left == 0 => Response::Failed(Fault {
            kind: FaultKind::Unknown,
            detail: format!(
                "there is no dead letter {id} in this pipeline: it may have been replayed or dropped already, `dunlin dead-letters` lists those there are"
            ),
        }),
        (Some(id), Some((node, why))) if moved.moved + moved.left == 0 => Response::Failed(Fault {
            kind: FaultKind::Unavailable,
            detail: format!("no node that answered has dead letter {id}, and node {node} may have it: {why}"),
        }),
        (Some(_) | None, _) => Response::LettersMoved(moved),
    }
}

fn status_of(letter: &DeadLetter) -> DeadLetterStatus {
    DeadLetterStatus {
        id: letter.id,
        cause: letter.cause,
        stage: letter.stage.clone(),
        reason: letter.reason.clone(),
        attempts: letter.attempts,
        event: letter.event.clone(),
    }
}

fn is_of(actor: &Actor, of: &Name) -> bool {
    match &actor.spec.name {
        LogName::Actor { pipeline, .. } => pipeline == of,
        LogName::Catalog(_) => false,
    }
}
