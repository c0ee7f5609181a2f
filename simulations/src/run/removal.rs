//! A node that never comes back is given up: its process dies for good, node 0 is asked until it says
//! that the node is removed, and in some runs the dead node comes back all the same, and is not heard.

use std::collections::BTreeSet;

use dunlin_protocol::effect::RequestId;
use dunlin_protocol::log::record::Body;
use dunlin_protocol::mesh::catalog::LogName;
use dunlin_protocol::pipeline::plan::Role;
use dunlin_protocol::rpc::{FaultKind, Request, Response};
use dunlin_protocol::time::{Span, Time};

use super::{Broken, Run};
use crate::checkers::converged;
use crate::checkers::tail::{Numbered, lost, number_of};
use crate::scenario::Beside;

/// A suspicion of a moment is over after so many half seconds.
const SUSPICIONS: u32 = 8;

/// How the removal stands.
#[derive(Debug)]
pub struct Removal {
    pub victim: usize,
    /// Who is asked, and who has said that it is done.
    askers: Vec<Asker>,
    next_at: Time,
}

#[derive(Debug)]
struct Asker {
    node: usize,
    asked: Option<RequestId>,
    done: bool,
}

impl Asker {
    fn at(node: usize) -> Asker {
        Asker { node, asked: None, done: false }
    }
}

impl Run {
    /// A node's disk is wiped: whoever starts on that machine is a new node, which joins beside the old
    /// identity; that one is given up.
    pub(super) fn lose_the_disk(&mut self) {
        let new = self.last_node();
        self.dies_for_good(new - 1, &[0]);
        self.asleep.remove(&new);
    }

    /// The last node dies for good. Both sides of a cut may give it up.
    pub(super) fn die_for_good(&mut self, beside: Beside) {
        let victim = self.last_node();
        if !beside.is_cut() {
            return self.dies_for_good(victim, &[0]);
        }
        self.dies_for_good(victim, &[0, 1]);
        // Longer than a suspicion lasts.
        let until = self.world.now.after(Span(self.world.chance.between(8_000, 25_000)));
        self.world.trace.line(self.world.now, "the others are cut in two".into());
        for (a, b) in (0..victim).flat_map(|a| (a + 1..victim).map(move |b| (a, b))) {
            if a % 2 != b % 2 {
                self.world.network.cut(a, b, until);
                self.world.unlink(a, b);
            }
        }
    }

    /// What publishers at this node were acknowledged is all that they publish.
    fn dies_for_good(&mut self, victim: usize, askers: &[usize]) {
        self.world.crash(victim);
        self.asleep.insert(victim);
        self.publishers.iter_mut().filter(|publisher| publisher.node == victim).for_each(|one| one.retire());
        let next_at = self.world.now.after(Span(self.world.chance.between(500, 4_000)));
        let askers = askers.iter().map(|node| Asker::at(*node)).collect();
        self.removal = Some(Removal { victim, askers, next_at });
    }

    /// Asks until the removal is answered well.
    pub(super) fn ask_for_removal(&mut self) {
        let Some(removal) = &mut self.removal else { return };
        if self.world.now < removal.next_at {
            return;
        }
        let node = self.world.nodes[removal.victim].id;
        removal.next_at = self.world.now.after(Span(2_000));
        for asker in removal.askers.iter_mut().filter(|asker| !asker.done) {
            if self.world.is_up(asker.node) {
                asker.asked = Some(self.world.request(asker.node, Request::RemoveNode { node }));
            }
        }
    }

    /// True when the answer was for the removal.
    pub(super) fn on_removed(&mut self, id: RequestId, response: &Response) -> bool {
        let mut askers = self.removal.iter_mut().flat_map(|removal| &mut removal.askers);
        let Some(asker) = askers.find(|asker| asker.asked == Some(id)) else { return false };
        match response {
            Response::NodeRemoved(_) => asker.done = true,
            Response::Failed(fault) => match fault.kind {
                // It just started, or a catalog log is damaged there, or the dead one is not known to be gone yet.
                FaultKind::Busy { .. }
                | FaultKind::Conflict
                | FaultKind::Storage
                | FaultKind::Unavailable => {}
                FaultKind::Invalid | FaultKind::Unknown | FaultKind::NotYet => {
                    self.world.errors.push(format!("the removal was refused: {}", fault.detail));
                }
            },
            other => self.world.errors.push(format!("the removal was answered {other:?}")),
        }
        true
    }

    /// The node that was given up, if the run has one.
    pub(super) fn victim(&self) -> Option<usize> {
        self.removal.as_ref().map(|removal| removal.victim)
    }

    /// Whether the removal is through; the dead node may come back then, and nobody listens.
    pub(super) fn is_removed(&mut self) -> Result<(), String> {
        let Some(removal) = &self.removal else { return Ok(()) };
        match removal.askers.iter().all(|asker| asker.done) {
            true => Ok(()),
            false => Err("the dead node is not removed".into()),
        }
    }

    /// The dead node comes back all the same: nobody listens to it, and it changes nothing.
    pub(super) fn come_back_unheard(&mut self) -> Result<(), Broken> {
        let Some(victim) = self.victim() else { return Ok(()) };
        self.world.start(victim, Span(10));
        self.pass(Span(6_000));
        let id = self.world.nodes[victim].id;
        for (index, node) in self.world.nodes.iter().enumerate().filter(|(index, _)| *index != victim) {
            if node.peer.as_ref().is_some_and(|peer| peer.hears(id)) {
                return Err(Broken::Promise(format!("n{victim} was removed, and n{index} listens to it")));
            }
        }
        // On slow links one member may suspect another in just this instant.
        for _ in 0..SUSPICIONS {
            if converged::check(&self.world, Some(victim)).is_ok() {
                return Ok(());
            }
            self.pass(Span(500));
        }
        converged::check(&self.world, Some(victim)).map_err(Broken::NoProgress)
    }

    /// Whether both sides of a cut were asked to give the node up.
    pub(super) fn is_given_up_twice(&self) -> bool {
        self.removal.as_ref().is_some_and(|removal| removal.askers.len() > 1)
    }

    /// Every event that came out on the node that was given up: who had read it there need not do so again.
    pub(super) fn out_of_the_removed(&self) -> BTreeSet<Numbered> {
        let Some(victim) = self.victim() else { return BTreeSet::new() };
        let theirs = self.world.history.logs().filter(|((node, _), _)| *node == victim);
        lost(theirs.flat_map(|(_, past)| &past.kept))
    }

    /// Every event that entered on the node that was given up: it may be lost, and may have come out.
    pub(super) fn of_the_removed(&self) -> BTreeSet<Numbered> {
        let Some(victim) = self.victim() else { return BTreeSet::new() };
        let mut all = BTreeSet::new();
        for (_, past) in self.world.history.logs().filter(|((node, _), _)| *node == victim) {
            let LogName::Actor { unit, .. } = &past.name else { continue };
            if unit.role != Role::Source {
                continue;
            }
            for kept in &past.kept {
                if let Body::Append(append) = &*kept.body {
                    all.extend(append.events.iter().filter_map(number_of));
                }
            }
        }
        all
    }
}
