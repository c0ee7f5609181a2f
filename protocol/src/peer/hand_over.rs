//! Lines of this node: the one way that each takes through its logs.
//!
//! A line begins with its first log. The log that nothing has closed is the one that stands; when the
//! facts want another one written, its actor takes nothing new, and once it is at rest the log gets its
//! last record, `Close`, which names the next. Only when that stands the next one is born: `EpochStart`,
//! then `Inherit` with everything that the closed log remembered. Both records are synced in every
//! durability class, so a crash at any instant leaves a log that is written, or a closed one whose
//! successor is named: whoever comes back walks to the end and goes on. No log ever has two writers,
//! because the one node that holds the line writes its logs one after the other.
//!
//! A log that the facts want again may be closed already (rival revisions that won in turn). The node
//! then says so in its catalog log, and that record bears another one in its place.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::start::Recovering;
use super::{Peer, shared};
use crate::actor::fold::{ActorMemory, LogFold, Memory, SourceMemory};
use crate::actor::machine::Actor;
use crate::actor::source::SourceLog;
use crate::effect::{ActorSpec, Effect, Effects, Level};
use crate::id::LogId;
use crate::limits::INHERIT_BYTES_MAX;
use crate::log::record::{Body, Inherit};
use crate::log::writer::Log;
use crate::mesh::assignment::{Assigned, Line};
use crate::mesh::catalog::CatalogEntry;
use crate::mutation::{Mutation, planted};
use crate::pipeline::manifest::{Module, WasmSpec};
use crate::pipeline::plan::{Head, Role, Unit};
use crate::wire::codec;

/// Where a line of this node stands.
struct Place {
    log: Arc<Assigned>,
    /// The closed log before it.
    before: Option<LogId>,
}

impl Peer {
    /// Every line of this node goes as far as it can. Those whose wanted log is at work are there.
    pub(super) fn tend_lines(&mut self, effects: &mut Effects) {
        let at_work = |log: &LogId| self.actors.contains_key(log) || self.sources.contains_key(log);
        let there =
            |line: &&Line| line.wanted.is_some_and(|log| at_work(&log) && !self.leaving.contains(&log));
        let lines = self.wiring.assignment().lines_on(self.me).filter(|line| !there(line));
        let lines: Vec<Line> = lines.cloned().collect();
        for line in &lines {
            self.tend(line, effects);
        }
    }

    pub(super) fn tend_line_of(&mut self, log: LogId, effects: &mut Effects) {
        if let Some(line) = self.wiring.assignment().line_of(&log).cloned() {
            self.tend(&line, effects);
        }
    }

    fn tend(&mut self, line: &Line, effects: &mut Effects) {
        if !self.phase.is_open() {
            return;
        }
        let Some(Place { log: at, before }) = self.walk(line, effects) else { return };
        let Some(writer) = self.logs.get(&at.id) else { return };
        if writer.handing_over() {
            return;
        }
        if let Some(before) = before {
            if !writer.inherited {
                return self.inherit(before, &at, effects);
            }
            self.resting.remove(&before);
        }
        let Some(wanted) = line.wanted().cloned() else { return self.put_to_rest(at.id, effects) };
        self.held_up.remove(&wanted.id);
        if wanted.id == at.id {
            self.leaving.remove(&at.id);
            self.employ(&at, before, effects);
        } else if self.logs.get(&wanted.id).is_some_and(|log| log.closed.is_some()) {
            self.bear_again(&wanted, effects);
        } else {
            self.leave(&at, &wanted, effects);
        }
    }

    /// Follows the closed logs to the one that nothing has closed; bears it when it is not born yet.
    /// None: the line has nothing to do here, or the facts that name its next log are still to come.
    fn walk(&mut self, line: &Line, effects: &mut Effects) -> Option<Place> {
        let mut at = line.first()?.clone();
        let mut before = None;
        for _ in 0..=line.logs.len() {
            if !self.logs.contains_key(&at.id) {
                // Of a revision that lost before this node began its log there is nothing to read, and that has to
                // be said: whoever has to read what there is would wait for it.
                if line.wanted.is_none() && before.is_none() && !line.read {
                    return None;
                }
                self.bear(&at, before, effects);
            }
            let log = self.logs.get_mut(&at.id)?;
            let Some(next) = log.closed else { return Some(Place { log: at, before }) };
            log.open = log.damage.is_none();
            before = Some(at.id);
            at = line.log(&next)?.clone();
        }
        None
    }

    /// The log is there, as the disk has it or new. Nobody is at work on it yet.
    fn bear(&mut self, assigned: &Assigned, follows: Option<LogId>, effects: &mut Effects) {
        let id = assigned.id;
        let (mut log, memory) = match self.recovering.remove(&id) {
            Some(Recovering { mut log, memory }) => {
                // What follows another log remembers the other one's events among its own.
                log.counted(follows.is_none().then(|| memory.events_out()));
                (log, Some(memory))
            }
            None => {
                effects.push(Effect::CreateLog { log: id, name: assigned.name.clone() });
                let manifest = &assigned.manifest;
                (Log::new(assigned.name.clone(), manifest.durability, manifest.retention.clone()), None)
            }
        };
        if let Some(damage) = log.damage.as_ref().filter(|damage| self.outdated.as_ref() != Some(*damage)) {
            self.report(Level::Error, "log_damaged", format!("log {id}: {damage}"), effects);
        }
        log.damage = log.damage.or_else(|| self.outdated.clone());
        self.logs.insert(id, log);
        self.expect_readers_of(id);
        let empty = || match assigned.unit.id.role {
            Role::Source => Memory::Source(SourceMemory::default()),
            Role::Behind | Role::Stage | Role::Sink => Memory::Actor(ActorMemory::default()),
        };
        let memory = memory.filter(|_| !planted(Mutation::ForgetReplay)).unwrap_or_else(empty);
        self.resting.insert(id, memory);
        self.start_epoch(id, effects);
    }

    /// The log's actor, or the source, goes to work with what the log remembers.
    fn employ(&mut self, assigned: &Assigned, follows: Option<LogId>, effects: &mut Effects) {
        let id = assigned.id;
        if self.actors.contains_key(&id) || self.sources.contains_key(&id) {
            return;
        }
        // What was put to rest and is wanted again may have work on its way to disk, which memory has not
        // taken: the same events would be taken once more.
        if self.logs.get(&id).is_some_and(Log::is_at_work) {
            return;
        }
        match (assigned.unit.id.role, self.resting.remove(&id)) {
            (Role::Source, memory) => {
                let memory = match memory {
                    Some(Memory::Source(memory)) => memory,
                    Some(Memory::Actor(_)) | None => SourceMemory::default(),
                };
                if let Some(stream) = self.source_stream(&assigned.name) {
                    self.sources.insert(id, SourceLog::new(id, stream, memory));
                }
            }
            (Role::Behind | Role::Stage | Role::Sink, memory) => {
                let chain = assigned.unit.chain.clone();
                let sink = matches!(chain.head, Head::Sink { .. });
                let follows = follows.filter(|_| !planted(Mutation::ForgetState));
                let spec = shared(ActorSpec { name: assigned.name.clone(), chain, follows });
                let mut actor = Actor::new(id, spec, sink);
                if let Some(Memory::Actor(memory)) = memory {
                    actor.memory = memory;
                }
                self.actors.insert(id, actor);
            }
        }
        let open = self.logs.get(&id).filter(|log| log.open).map(Log::persisted);
        match open {
            Some(at) if self.actors.contains_key(&id) => self.host(id, at, effects),
            Some(_) => self.source_opened(id, effects),
            None => self.start_epoch(id, effects),
        }
    }

    /// Nobody is at work on the log any more; what it remembers stays.
    fn put_to_rest(&mut self, log: LogId, effects: &mut Effects) {
        self.leaving.remove(&log);
        if let Some(machine) = self.actors.remove(&log) {
            effects.push(Effect::Unhost { actor: log });
            self.forget_letters(log, effects);
            self.resting.insert(log, Memory::Actor(machine.memory));
            for upstream in machine.upstream.into_values() {
                self.drop_reader(upstream.edge, effects);
            }
        }
        if let Some(mut source) = self.sources.remove(&log) {
            if source.connected {
                effects.push(Effect::StopConnector { log });
            }
            for waiting in source.due(crate::id::Seq(u64::MAX)).collect::<Vec<_>>() {
                let why = "this source is being replaced by a later deploy; send the same again in a moment";
                self.fail(waiting.asker, crate::rpc::FaultKind::Busy { retry_after_ms: 200 }, why, effects);
            }
            self.resting.insert(log, Memory::Source(source.memory));
        }
        // It is still served to those who have not read it to its end.
        self.start_epoch(log, effects);
    }

    /// The log is to close into the wanted one, as soon as that one can go to work and this one's actor
    /// is at rest.
    fn leave(&mut self, at: &Assigned, wanted: &Assigned, effects: &mut Effects) {
        let id = at.id;
        if let Some(damage) = self.logs.get(&id).and_then(|log| log.damage.clone()) {
            let why =
                format!("it should take over from log {id}, which is damaged on node {}: {damage}", self.me);
            self.held_up.insert(wanted.id, why);
            return;
        }
        if let Head::Wasm { spec: WasmSpec { module: Module::Digest(digest), .. }, .. } =
            &wanted.unit.chain.head
            && !self.modules.contains(digest)
        {
            let why = format!("module {digest} is not on node {} yet; it is being fetched", self.me);
            self.held_up.insert(wanted.id, why);
            return self.fetch_module(*digest, effects);
        }
        if !self.logs.get(&id).is_some_and(|log| log.open) {
            return self.start_epoch(id, effects);
        }
        self.leaving.insert(id);
        if let Some(machine) = self.actors.get_mut(&id) {
            let (rests, actions) = machine.leave();
            self.act(id, actions, effects);
            if !rests {
                return;
            }
        }
        // Appends on their way are waited for, and no new ones come: they go to the wanted log.
        if self.logs.get(&id).is_some_and(|log| log.pending_bytes() > 0) {
            return;
        }
        if let Some(bytes) = self.too_much(id) {
            self.leaving.remove(&id);
            let why = format!(
                "log {id} remembers {bytes} bytes of waiting events and dead letters, more than the {INHERIT_BYTES_MAX} that can be handed over; look at them with `dunlin dead-letters`"
            );
            self.held_up.insert(wanted.id, why);
            self.restless_actors.insert(id);
            return;
        }
        self.put_to_rest(id, effects);
        let _ = self.append(id, Body::Close { successor: wanted.id }, effects);
    }

    /// The weight of what the log remembers, when no record could carry it.
    fn too_much(&self, log: LogId) -> Option<usize> {
        let memory = match (self.actors.get(&log), self.resting.get(&log)) {
            (Some(machine), _) => Memory::Actor(machine.memory.clone()),
            (None, Some(memory)) => memory.clone(),
            (None, None) => return None,
        };
        let bytes = codec::encode(&memory).len();
        (bytes > INHERIT_BYTES_MAX).then_some(bytes)
    }

    /// The first thing that a log which follows another one says: what it takes over.
    fn inherit(&mut self, before: LogId, to: &Assigned, effects: &mut Effects) {
        if !self.logs.get(&to.id).is_some_and(|log| log.open) {
            return self.start_epoch(to.id, effects);
        }
        let (Some(from), Some(memory)) = (self.logs.get(&before), self.resting.get(&before)) else { return };
        let closed_at = from.persisted();
        let layout = self.wiring.assignment().layout_of(to);
        let (Some(layout), Some(old)) = (layout, self.wiring.assignment().log(&before)) else { return };
        let memory = match memory.clone() {
            Memory::Actor(_) if planted(Mutation::ForgetFold) => Memory::Actor(ActorMemory::default()),
            Memory::Source(memory) => Memory::Source(memory),
            Memory::Actor(mut memory) => {
                rewire_memory(&mut memory, &old.unit, &to.unit);
                // What is no input any more holds no watermark back.
                for (log, advance) in &mut memory.frontier {
                    let read = self.wiring.assignment().log(log).and_then(|log| layout.inputs(to, log));
                    advance.idle |= read.is_none();
                }
                Memory::Actor(memory)
            }
        };
        let fold = codec::encode(&LogFold::of(memory, Vec::new()));
        let inherit = Inherit { from: before, closed_at, fold, revision: layout.current.digest };
        let _ = self.append(to.id, Body::Inherit(inherit), effects);
    }

    /// The wanted log is closed already: the record of this fact bears another one in its place.
    fn bear_again(&mut self, wanted: &Assigned, effects: &mut Effects) {
        self.held_up.insert(
            wanted.id,
            String::from("its log was closed by another revision; a new one is being opened"),
        );
        if self.may_write_catalog() && self.rebearing.insert(wanted.id) {
            let entry =
                CatalogEntry::Reborn { pipeline: wanted.pipeline.clone(), log: wanted.id, born: wanted.born };
            self.append_fact(entry, effects);
        }
    }

    /// A reader of this log has passed every log before it.
    pub(super) fn passed_before(&mut self, log: LogId, reader: LogId) {
        let Some(line) = self.wiring.assignment().line_of(&log) else { return };
        let mut closed: BTreeMap<LogId, LogId> = line
            .logs
            .iter()
            .filter_map(|before| Some((self.logs.get(&before.id)?.closed?, before.id)))
            .collect();
        let mut at = log;
        while let Some(before) = closed.remove(&at) {
            if let Some(writer) = self.logs.get_mut(&before) {
                let end = writer.persisted();
                writer.reader_committed(reader, end);
            }
            at = before;
        }
    }
}

/// Events that wait for another try, and dead letters, came through inputs of the old unit: they go on by
/// that of the new one by which also comes what was on its way, so that what waits of a key stays before it.
fn rewire_memory(memory: &mut ActorMemory, old: &Unit, new: &Unit) {
    let place = |input: u16| old.inputs.get(usize::from(input)).map_or(0, |was| new.input_for(was));
    for parked in &mut memory.parked {
        parked.input = place(parked.input);
    }
    for letter in memory.dead.values_mut() {
        letter.input = place(letter.input);
    }
}

#[cfg(test)]
mod tests;
