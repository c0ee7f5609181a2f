//! Effects: what is done at once, and when its completion comes.

use dunlin_protocol::effect::{Again, CallError, Effect, Input, Level, Report};
use dunlin_protocol::id::{LogId, NodeId, Seq};
use dunlin_protocol::limits::READ_BYTES_MAX;
use dunlin_protocol::log::record::{Body, Record};
use dunlin_protocol::log::writer::Kept;
use dunlin_protocol::pipeline::manifest::Durability;
use dunlin_protocol::time::Span;
use dunlin_protocol::wire::codec;
use dunlin_protocol::wire::message::Message;

use super::{Happening, World};
use crate::chance::Chance;
use crate::checkers::deleted;
use crate::disk::{Snapshot, Taken};
use crate::functions::{Hosted, Luck, Source};

/// What `memory` acknowledged and a full disk refused is tried again after this long.
const WRITE_AGAIN: Span = Span(1_000);

impl World {
    pub(super) fn carry_out(&mut self, node: usize, effect: Effect) {
        let life = self.nodes[node].life;
        let soon = Span(self.chance.between(0, 1));
        match effect {
            Effect::CreateLog { log, name } => {
                self.history.create((node, log), name.clone());
                self.nodes[node].disk.create(log, name);
            }
            Effect::Persist { log, records, durability } => self.persist(node, log, records, durability),
            Effect::WriteAnew { log, records } => self.write_anew(node, log, &records),
            Effect::Read { log, read, from, bytes_max } => {
                let outcome = self.nodes[node].disk.read(log, from, bytes_max);
                self.input_after(node, soon, Input::Read { log, read, outcome });
            }
            Effect::Snapshot { log, at, fold, state } => {
                let entries = match self.nodes[node].hosted.get(&log) {
                    Some(hosted) if state => {
                        assert_eq!(
                            hosted.applied(),
                            at,
                            "n{node} takes a snapshot of {log} at another place"
                        );
                        hosted.shelf.committed.clone()
                    }
                    Some(_) | None => Default::default(),
                };
                let took = self.climate.sync(&mut self.chance);
                let snapshot = Snapshot { fold, entries };
                self.after(took, Happening::Snapshot { node, life, log, at, snapshot });
            }
            Effect::Truncate { log, before } => {
                self.trace.line(self.now, format!("n{node} forgets log {log} before {}", before.0));
                self.nodes[node].disk.truncate(log, before);
                self.history.begins((node, log), before);
            }
            Effect::RemoveLog { log } => {
                self.trace.line(self.now, format!("n{node} removes log {log}"));
                self.watch.note(deleted::check(&self.history, node, log));
                self.nodes[node].disk.remove(log);
                self.nodes[node].stores.remove(&log);
                self.history.forget((node, log));
            }
            Effect::Host { actor, spec, head } => {
                let here = &mut self.nodes[node];
                let store = here.stores.remove(&actor);
                let disk = &here.disk;
                let source = Source {
                    snapshot: disk.newest_snapshot(actor).map(|(at, snapshot)| (at, snapshot.entries)),
                    read: &|from: Seq| disk.read(actor, from, READ_BYTES_MAX),
                    before: &|log, at| match spec.follows == Some(log) {
                        true => disk.state_at(log, at),
                        false => Ok(Default::default()),
                    },
                };
                let hosted = Hosted::brought_up(&spec, head, store, &source);
                let outcome = hosted.map(|hosted| {
                    here.hosted.insert(actor, hosted);
                });
                self.input_after(node, soon, Input::Hosted { actor, outcome });
            }
            Effect::Unhost { actor } => {
                self.nodes[node].hosted.remove(&actor);
            }
            Effect::Invoke { actor, call, batch, now } => {
                let Some(hosted) = self.nodes[node].hosted.get_mut(&actor) else { return };
                let traps = hosted.is_guest() && self.chance.one_in(self.climate.traps);
                let luck = Luck::Drawn(Chance::new(self.chance.draw()));
                let error = |reason: &str, again| {
                    Err(CallError { stage: hosted.stage.clone(), reason: reason.into(), again })
                };
                let outcome = match self.stalled {
                    Some(stage) if hosted.stage == stage => error("its outside is away", Again::Later),
                    Some(_) | None if traps => error("it trapped", Again::Maybe),
                    Some(_) | None => hosted.invoke(&batch, now, luck),
                };
                let took = self.climate.call(&mut self.chance);
                self.input_after(node, took, Input::Returned { actor, call, outcome });
            }
            Effect::Apply { actor, position } => {
                let told = self.history.past((node, actor)).map_or(Seq(0), |past| past.told());
                assert!(
                    position.seq <= told,
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
                self.input_after(node, soon, Input::LookedUp { look, entries });
            }
            Effect::Send { to, message } => {
                self.watch.say(node, to, &message, &self.history);
                self.post(node, to, &message);
            }
            Effect::JoinTopic { topic, .. } => _ = self.nodes[node].topics.insert(topic),
            Effect::LeaveTopic { topic } => _ = self.nodes[node].topics.remove(&topic),
            Effect::Broadcast { topic, broadcast } => {
                self.watch.broadcast(node, topic, &broadcast, &self.history);
                self.broadcast(node, topic, &broadcast);
            }
            Effect::Dial { node: to, .. } => {
                if let Some(other) = self.index_of(to) {
                    let span = Span(self.chance.between(1, 20));
                    self.after(span, Happening::Link { a: node, b: other });
                }
            }
            Effect::Disconnect { node: to } => {
                if let Some(other) = self.index_of(to) {
                    self.unlink(node, other);
                }
            }
            Effect::Answer { id, response, last } => self.answers.push_back((node, id, response, last)),
            Effect::SetTimer { timer, at } => {
                let at = self.nodes[node].clock.instant_of(at).max(self.now);
                if self.nodes[node].timers.insert(timer.clone(), at) != Some(at) {
                    self.later(at, Happening::Timer { node, life, timer });
                }
            }
            Effect::FetchModule { digest, .. } => {
                self.input_after(node, soon, Input::ModuleHeld { digest });
            }
            Effect::StartConnector { .. } | Effect::StopConnector { .. } => {}
            // Nobody is told here that it was removed: who was given up is dead.
            Effect::Stop { why } => self.errors.push(format!("n{node} stops: {why}")),
            Effect::Report(report) => self.report(node, report),
        }
    }

    fn report(&mut self, node: usize, report: Report) {
        let Report { level, what, detail } = report;
        self.trace.line(self.now, format!("n{node} reports {what}: {detail}"));
        if level == Level::Error && !self.excused.contains(what) {
            self.errors.push(format!("n{node} {what}: {detail}"));
        }
        self.reports.push((node, what, detail));
    }

    /// Memory counts at once, a page when it is written, the disk when it is synced.
    fn persist(&mut self, node: usize, log: LogId, records: Vec<Record>, durability: Durability) {
        let Some(seq) = records.last().map(|record| record.seq) else { return };
        self.history.write((node, log), &records, durability);
        let before = records.first().map_or(seq, |first| Seq(first.seq.0 - 1));
        let hands_over =
            |kept: &Kept| matches!(&*kept.body, Body::EpochStart(_) | Body::Close { .. } | Body::Inherit(_));
        let written = self.history.kept_behind((node, log), before);
        if durability != Durability::Disk && written.iter().any(hands_over) {
            self.watch.note(Err(format!(
                "n{node} does not sync what hands log {log} over, up to record {}",
                seq.0
            )));
        }
        let disk = &mut self.nodes[node].disk;
        if disk.persist(log, records, durability) == Taken::Early {
            self.input_soon(node, Input::Persisted { log, seq });
        }
        let soon = Span(self.chance.between(0, 1));
        self.wake_writer(node, soon);
    }

    /// A damaged log's files are replaced, or not.
    fn write_anew(&mut self, node: usize, log: LogId, records: &[Record]) {
        let Some(seq) = records.last().map(|record| record.seq) else { return };
        let here = &mut self.nodes[node].disk;
        let took = self.climate.sync(&mut self.chance);
        if here.full || self.chance.one_in(self.climate.failing_syncs) {
            let (full, why) = (here.full, "it cannot be written anew".into());
            return self.input_after(node, took, Input::PersistFailed { log, seq: Seq(1), full, why });
        }
        here.write_anew(log, records);
        self.trace.line(self.now, format!("n{node} writes log {log} anew, up to record {}", seq.0));
        let outcome = self.history.write_anew((node, log), records);
        self.watch.note(outcome.map_err(|why| format!("n{node} wrote log {log} anew: {why}")));
        self.input_after(node, took, Input::Persisted { log, seq });
    }

    fn wake_writer(&mut self, node: usize, after: Span) {
        let life = self.nodes[node].life;
        if !self.nodes[node].disk.busy {
            self.nodes[node].disk.busy = true;
            self.after(after, Happening::Write { node, life });
        }
    }

    pub(super) fn write(&mut self, node: usize) {
        let life = self.nodes[node].life;
        let took = self.climate.sync(&mut self.chance);
        let refused = self.nodes[node].disk.write();
        self.after(took, Happening::Settle { node, life });
        refused.into_iter().for_each(|input| self.input_soon(node, input));
    }

    pub(super) fn settle(&mut self, node: usize) {
        let (failing, chance) = (self.climate.failing_syncs, &mut self.chance);
        let told = self.nodes[node].disk.settle(|| chance.one_in(failing));
        self.nodes[node].disk.busy = false;
        for input in told {
            self.handle(node, input);
        }
        if self.is_up(node) && self.nodes[node].disk.has_work() {
            let again = if self.nodes[node].disk.is_queued() { Span(0) } else { WRITE_AGAIN };
            self.wake_writer(node, again);
        }
    }

    /// A message crosses the wire as bytes.
    fn post(&mut self, from: usize, to: NodeId, message: &Message) {
        let Some(to) = self.index_of(to) else { return };
        let Some(link) = self.network.life(from, to) else { return };
        if self.chance.one_in(self.climate.link_loss) {
            return self.unlink(from, to);
        }
        let bytes = codec::encode(message);
        self.trace.bytes(&bytes);
        if self.chance.one_in(self.climate.corrupt) {
            return self.corrupt(from, to, bytes.to_vec());
        }
        let copies = match self.chance.one_in(self.climate.message_loss) {
            true => [0, 2][self.chance.between(0, 1) as usize],
            false => 1,
        };
        for _ in 0..copies {
            let message: Message = codec::decode(&bytes).expect("what one node encodes another decodes");
            if let Some(at) = self.network.arrival(from, to, self.now, &self.climate, &mut self.chance) {
                self.later(at, Happening::Deliver { from, to, link, message });
            }
        }
    }

    /// Other bytes arrive than were sent: the transport sees it and ends the link. What they decode to,
    /// if to anything, nobody believes; decoding them must do no harm.
    fn corrupt(&mut self, from: usize, to: usize, mut bytes: Vec<u8>) {
        for _ in 0..self.chance.between(1, 4) {
            let at = self.chance.between(0, bytes.len() as u64 - 1) as usize;
            bytes[at] ^= 1 << self.chance.between(0, 7);
        }
        if self.chance.one_in(4) {
            bytes.truncate(self.chance.between(0, bytes.len() as u64) as usize);
        }
        let _ = codec::decode::<Message>(&bytes);
        self.trace.line(self.now, format!("a message from n{from} to n{to} is corrupt"));
        self.unlink(from, to);
    }
}
