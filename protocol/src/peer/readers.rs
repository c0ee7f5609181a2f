//! The reader's side of edges: reading the logs of others, and this node's own.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Peer;
use crate::edge::reader::{Ahead, Owner, Reader, Taken, Word};
use crate::effect::{Effect, Effects, Level, Timer};
use crate::id::{Epoch, NodeId, Position, Seq};
use crate::pipeline::manifest::Durability;
use crate::wire::message::{EdgeId, Message, Refusal, Slice};

impl Peer {
    /// Says again whatever has no answer yet.
    pub(super) fn repeat_edges(&mut self, effects: &mut Effects) {
        let edges: Vec<EdgeId> = self.readers.keys().copied().collect();
        for edge in edges {
            self.speak(edge, effects);
        }
    }

    pub(super) fn speak(&mut self, edge: EdgeId, effects: &mut Effects) {
        let Some(reader) = self.readers.get_mut(&edge) else { return };
        let writer = reader.writer;
        let reachable = writer == self.me || self.connected.contains(&writer);
        if let Some(message) = reader.beat(self.now, reachable) {
            self.send(writer, message, effects);
        }
    }

    /// A reader is done with so many bytes, and what it made of them stands at `committed`.
    pub(super) fn consumed(&mut self, edge: EdgeId, bytes: u64, committed: Position, effects: &mut Effects) {
        let Some(reader) = self.readers.get_mut(&edge) else { return };
        let writer = reader.writer;
        match reader.consumed(bytes, committed, self.now) {
            Word::Now(message) => self.send(writer, message, effects),
            Word::At(at) => {
                if self.owing.is_empty() {
                    effects.push(Effect::SetTimer { timer: Timer::Credit, at });
                }
                self.owing.insert(edge);
            }
            Word::Enough => {}
        }
    }

    pub(super) fn give_owed_credit(&mut self, effects: &mut Effects) {
        for edge in core::mem::take(&mut self.owing) {
            let Some(reader) = self.readers.get_mut(&edge) else { continue };
            let writer = reader.writer;
            if let Some(message) = reader.owed(self.now) {
                self.send(writer, message, effects);
            }
        }
    }

    fn reader_from(&mut self, node: NodeId, edge: EdgeId) -> Option<&mut Reader> {
        self.readers.get_mut(&edge).filter(|reader| reader.writer == node)
    }

    pub(super) fn on_subscribed(
        &mut self,
        node: NodeId,
        edge: EdgeId,
        at: Position,
        ahead: Ahead,
        effects: &mut Effects,
    ) {
        let now = self.now;
        let Some(reader) = self.reader_from(node, edge) else { return };
        let Ahead { head, behind } = ahead;
        let begins = reader.received() == Position::START && at.seq > Seq(0);
        reader.on_subscribed(at, head, now);
        let stands = reader.received() == at;
        let (owner, log) = (reader.owner, reader.log);
        if begins && self.may_have_lost(owner) && self.began_before(owner) {
            let detail = format!(
                "log {log} is read from record {} on, what came before is no longer kept: what a reader that lost its own tail had made of that is gone",
                at.seq.next().0
            );
            self.report(Level::Warn, "tail_gone", detail, effects);
        }
        match owner {
            Owner::Actor(actor) => {
                if let Some(upstream) =
                    self.actors.get_mut(&actor).and_then(|actor| actor.upstream.get_mut(&log))
                {
                    upstream.head = head;
                    // Told twice, it may be older than what came since.
                    if stands {
                        upstream.behind = behind;
                    }
                    upstream.trouble = None;
                }
            }
            Owner::Hub => self.on_hub_subscribed(edge, at, head, effects),
        }
    }

    pub(super) fn on_batch(
        &mut self,
        node: NodeId,
        edge: EdgeId,
        after: Position,
        slices: Vec<Slice>,
        ahead: Ahead,
        effects: &mut Effects,
    ) {
        let now = self.now;
        let Some(reader) = self.reader_from(node, edge) else {
            return self.send(node, Message::Unsubscribe { edge }, effects);
        };
        // One without slices tells where the log stands now; another one that is known is an old one.
        let tells_head = slices.is_empty();
        let tells = tells_head && after == reader.received();
        match reader.on_batch(after, slices, ahead.head, now) {
            Taken::Known => {
                if tells_head {
                    reader.on_head(ahead.head, after, now);
                }
                let (owner, log, head) = (reader.owner, reader.log, reader.head);
                if let Owner::Actor(actor) = owner
                    && let Some(upstream) =
                        self.actors.get_mut(&actor).and_then(|actor| actor.upstream.get_mut(&log))
                {
                    upstream.head = head;
                    if tells {
                        upstream.behind = ahead.behind;
                    }
                }
            }
            Taken::Gap => {
                reader.lost();
                self.speak(edge, effects);
            }
            Taken::Slices(slices) => {
                let (owner, log) = (reader.owner, reader.log);
                match owner {
                    Owner::Actor(actor) => {
                        if let Some(machine) = self.actors.get_mut(&actor) {
                            machine.on_slices(&log, slices, ahead, now);
                        }
                        self.restless_actors.insert(actor);
                    }
                    Owner::Hub => self.on_hub_slices(edge, slices, effects),
                }
            }
        }
    }

    pub(super) fn on_fall_back(&mut self, node: NodeId, edge: EdgeId, to: Position, effects: &mut Effects) {
        let Some(reader) = self.reader_from(node, edge) else { return };
        let (owner, log, was) = (reader.owner, reader.log, reader.received());
        reader.fall_back(to);
        if let Owner::Actor(actor) = owner
            && let Some(machine) = self.actors.get_mut(&actor)
        {
            let freed = machine.fall_back(&log, to);
            if let Some(reader) = self.readers.get_mut(&edge) {
                reader.release(freed);
            }
        }
        if owner == Owner::Hub {
            self.hub_falls_back(edge, to, effects);
        }
        let detail = format!(
            "log {log} lost its tail behind record {} (a reader had {}): what was computed from it may count again",
            to.seq.0, was.seq.0
        );
        self.report(Level::Warn, "tail_lost", detail, effects);
        self.speak(edge, effects);
    }

    /// Whether the reader's own log may lose a tail that those it reads had counted on.
    fn may_have_lost(&self, owner: Owner) -> bool {
        match owner {
            Owner::Actor(actor) => {
                self.logs.get(&actor).is_some_and(|log| log.durability != Durability::Disk)
            }
            Owner::Hub => false,
        }
    }

    /// The reader's own log had a reign before this one. One that is new has lost nothing yet.
    fn began_before(&self, owner: Owner) -> bool {
        match owner {
            Owner::Actor(actor) => self.logs.get(&actor).is_some_and(|log| log.epoch() > Epoch(1)),
            Owner::Hub => false,
        }
    }

    /// A log whose class may lose its tail lost it, and an upstream log has let go of what that tail had
    /// read: it goes on with what is kept there.
    fn skip(&mut self, edge: EdgeId, effects: &mut Effects) {
        if let Some(reader) = self.readers.get_mut(&edge) {
            reader.skip();
            self.speak(edge, effects);
        }
    }

    pub(super) fn on_refused(&mut self, node: NodeId, edge: EdgeId, why: Refusal, effects: &mut Effects) {
        let Some(reader) = self.reader_from(node, edge) else { return };
        let was_live = reader.is_live();
        let (log, owner) = (reader.log, reader.owner);
        match why {
            // Not there yet, or what was sent got lost: the next beat asks again, at once if it stood.
            Refusal::Unknown => {
                if was_live {
                    reader.lost();
                    self.speak(edge, effects);
                }
            }
            Refusal::TooMany => {}
            Refusal::Gone { .. } if self.may_have_lost(owner) => self.skip(edge, effects),
            Refusal::Gone { .. } | Refusal::Diverged | Refusal::Damaged => {
                if let (Owner::Hub, Refusal::Gone { first }) = (owner, why) {
                    let detail = format!(
                        "retention let go of what this tail had not read yet (log {log} is kept from record {} on); \
                         tail again with --from start for what is kept",
                        first.0
                    );
                    return self.fail_hub(edge, &detail, effects);
                }
                let what = match why {
                    Refusal::Gone { first } => format!("its records before {} are no longer kept", first.0),
                    Refusal::Diverged => String::from(
                        "its records are not those that were read before: an older copy of that node's data folder was probably put back; put the newest one back, or give the node up with 'dunlin nodes remove'",
                    ),
                    Refusal::Damaged | Refusal::Unknown | Refusal::TooMany => String::from(
                        "it is damaged on the disk there, or that disk holds an older copy of it: 'dunlin status' on that node says which, and what to do",
                    ),
                };
                let detail = format!("log {log} of node {node} cannot be read on: {what}");
                if let Owner::Actor(actor) = owner
                    && let Some(machine) = self.actors.get_mut(&actor)
                    && let Some(upstream) = machine.upstream.get_mut(&log)
                {
                    let first_time = upstream.trouble.as_ref() != Some(&detail);
                    upstream.trouble = Some(detail.clone());
                    if first_time {
                        self.report(Level::Error, "edge_stopped", detail, effects);
                    }
                } else if owner == Owner::Hub {
                    self.fail_hub(edge, &detail, effects);
                }
            }
        }
    }
}
