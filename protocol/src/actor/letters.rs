//! Replaying and dropping an actor's dead letters. Both are commits like any other: a letter leaves
//! the dead place exactly once, and a replayed one stands among the parked events in the same
//! record, first of its key, with all its attempts before it.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::ToString;
use alloc::vec::Vec;

use super::machine::{Action, Actor, Committing, Phase};
use crate::id::LetterId;
use crate::limits::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, PARKED_MAX};
use crate::log::record::{Commit, DeadLetter, Parked, Replayed};
use crate::rpc::LetterMove;
use crate::time::Time;

/// What is asked of some of an actor's letters; done in commits of a bounded size.
#[derive(Debug)]
pub struct LetterOrder {
    order: u64,
    does: LetterMove,
    /// The letters that were there when the order came, and are still to be moved.
    letters: VecDeque<LetterId>,
    /// Letters of the last commit that was made for it, and of those before.
    under_way: u64,
    moved: u64,
}

impl Actor {
    /// Asks for one letter, or for all that are there now. Ends in `Action::LettersMoved`.
    pub fn order_letters(&mut self, order: u64, does: LetterMove, which: Option<LetterId>) {
        let letters = match which {
            Some(letter) => VecDeque::from([letter]),
            None => self.memory.dead.keys().copied().collect(),
        };
        self.orders.push_back(LetterOrder { order, does, letters, under_way: 0, moved: 0 });
    }

    /// How many letters an order would find.
    pub fn letters_of(&self, which: Option<&LetterId>) -> usize {
        match which {
            Some(letter) => usize::from(self.memory.dead.contains_key(letter)),
            None => self.memory.dead.len(),
        }
    }

    /// Takes the next commit's worth of the first order, between two commits of events: also while a
    /// sink waits for its outside.
    pub(super) fn move_letters(&mut self, now: Time, actions: &mut Vec<Action>) {
        while let Phase::Idle | Phase::Waiting { .. } = self.phase() {
            let Some(mut order) = self.orders.pop_front() else { return };
            order.moved += core::mem::take(&mut order.under_way);
            let commit = self.next_moves(&mut order, now);
            if commit.undead.is_empty() {
                let LetterOrder { order, letters, moved, .. } = order;
                actions.push(Action::LettersMoved { order, moved, left: letters.len() as u64 });
                continue;
            }
            self.orders.push_front(order);
            let resume = match core::mem::replace(self.phase(), Phase::Idle) {
                Phase::Waiting { until, work } => Some(Box::new((until, work))),
                Phase::Closed
                | Phase::Idle
                | Phase::Calling { .. }
                | Phase::Committing(_)
                | Phase::Unwritten { .. } => None,
            };
            self.commit(Committing { commit, consumed: BTreeMap::new(), resume }, now, actions);
        }
    }

    /// The actor goes: what is not moved stays for whoever follows. `stood`: its last commit did.
    pub(super) fn end_orders(&mut self, stood: bool) -> Vec<Action> {
        let ended = self.orders.drain(..).map(|ended| {
            let LetterOrder { order, letters, under_way, moved, .. } = ended;
            let (more, less) = if stood { (under_way, 0) } else { (0, under_way) };
            Action::LettersMoved { order, moved: moved + more, left: letters.len() as u64 + less }
        });
        ended.collect()
    }

    fn next_moves(&self, order: &mut LetterOrder, now: Time) -> Commit {
        let mut commit = Commit::default();
        let mut bytes = 0;
        while let Some(id) = order.letters.front() {
            // Somebody else moved it meanwhile.
            let Some(letter) = self.memory.dead.get(id) else {
                order.letters.pop_front();
                continue;
            };
            bytes += letter.weight() as usize;
            let much = commit.undead.len() >= BATCH_EVENTS_MAX || bytes > BATCH_BYTES_MAX;
            if much && !commit.undead.is_empty() {
                break;
            }
            match order.does {
                LetterMove::Drop => {}
                LetterMove::Replay if self.memory.parked.len() + commit.parked.len() >= PARKED_MAX => break,
                LetterMove::Replay => commit.parked.push(replayed(letter, now)),
            }
            commit.undead.push(*id);
            order.letters.pop_front();
            order.under_way += 1;
        }
        commit
    }
}

fn replayed(letter: &DeadLetter, now: Time) -> Parked {
    let DeadLetter { id, cause, input, event, stage, step, .. } = letter.clone();
    Parked {
        id: cause,
        input,
        event,
        attempts: 0,
        due: now,
        reason: "replayed".to_string(),
        replayed: Some(Replayed { letter: id, stage, step }),
    }
}
