//! Actors of this node: their functions, their commits, their retries.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Peer;
use crate::actor::machine::{Action, Full, Room};
use crate::effect::{CallError, CallId, Effect, Effects, Level, Outcome, Timer};
use crate::id::{LogId, Position};
use crate::limits::UNPERSISTED_BYTES_MAX;
use crate::log::record::{Append, Body};
use crate::mutation::{Mutation, planted};
use crate::pipeline::manifest::{Module, WasmSpec};
use crate::pipeline::plan::Head;

impl Peer {
    /// Asks for the actor's function, its keyed state at `head`; first for its module if it lacks.
    pub(super) fn host(&mut self, actor: LogId, head: Position, effects: &mut Effects) {
        let Some(machine) = self.actors.get_mut(&actor) else { return };
        if machine.hosting || machine.is_ready() {
            return;
        }
        let spec = machine.spec.clone();
        if let Head::Wasm { spec: WasmSpec { module: Module::Digest(digest), .. }, .. } = &spec.chain.head
            && !self.modules.contains(digest)
        {
            machine.trouble = Some(format!("module {digest} is not here yet; it is being fetched"));
            return self.fetch_module(*digest, effects);
        }
        machine.hosting = true;
        effects.push(Effect::Host { actor, spec, head });
    }

    pub(super) fn on_hosted(&mut self, actor: LogId, outcome: Result<(), String>, effects: &mut Effects) {
        let now = self.now;
        let Some(machine) = self.actors.get_mut(&actor) else {
            effects.push(Effect::Unhost { actor });
            return;
        };
        machine.hosting = false;
        if self.leaving.contains(&actor) {
            self.restless_actors.insert(actor);
        }
        match outcome {
            Ok(()) => {
                machine.opened(now);
                self.follow_upstreams(actor, effects);
                self.restless_actors.insert(actor);
            }
            Err(why) => {
                let first_time = machine.trouble.as_deref() != Some(why.as_str());
                machine.trouble = Some(why.clone());
                if first_time {
                    self.report(Level::Error, "function_unusable", format!("actor {actor}: {why}"), effects);
                }
                self.forget_bad_module(actor);
            }
        }
    }

    /// A module that the functions could not load is asked for again elsewhere.
    fn forget_bad_module(&mut self, actor: LogId) {
        if let Some(machine) = self.actors.get(&actor)
            && let Head::Wasm { spec: WasmSpec { module: Module::Digest(digest), .. }, .. } =
                &machine.spec.chain.head
        {
            self.modules.remove(digest);
        }
    }

    /// Lets an actor do what it can, and a source log look at its idleness.
    pub(super) fn step_actor(&mut self, log: LogId, effects: &mut Effects) {
        if !self.phase.is_open() {
            return;
        }
        if self.leaving.contains(&log) {
            return self.tend_line_of(log, effects);
        }
        if self.sources.contains_key(&log) {
            return self.mark_idle(log, effects);
        }
        let Some(writer) = self.logs.get(&log) else { return };
        let takes = writer.open && writer.pending_bytes() < UNPERSISTED_BYTES_MAX;
        let room = match (takes, writer.is_full()) {
            (true, false) => Room::All,
            (true, true) => Room::Letters,
            (false, _) => Room::None,
        };
        let Some(machine) = self.actors.get_mut(&log) else { return };
        let before = machine.full;
        let actions = machine.step(self.now, room);
        let full = machine.full.filter(|_| machine.full != before);
        self.act(log, actions, effects);
        match full {
            Some(Full::Dead) => {
                let why = format!("actor {log} keeps as many dead letters as it may and takes no new events");
                self.report(Level::Warn, "dead_letters_full", why, effects);
            }
            Some(Full::Parked) => {
                let why = format!("actor {log} has as many events waiting for another try as it may");
                self.report(Level::Warn, "parked_full", why, effects);
            }
            None => {}
        }
    }

    pub(super) fn act(&mut self, log: LogId, actions: Vec<Action>, effects: &mut Effects) {
        for action in actions {
            match action {
                Action::Invoke { call, batch } => {
                    effects.push(Effect::Invoke { actor: log, call, batch, now: self.now });
                }
                Action::Discard => effects.push(Effect::Discard { actor: log }),
                Action::Commit(mut commit) => {
                    if planted(Mutation::FrontierStands) {
                        commit.frontier.clear();
                    }
                    if planted(Mutation::ApplyEarly)
                        && let Some(writer) = self.logs.get(&log)
                    {
                        effects.push(Effect::Apply { actor: log, position: writer.persisted() });
                    }
                    // The actor steps only while its log is open, so the append is taken.
                    let _ = self.append(log, Body::Commit(commit), effects);
                }
                Action::Wake(at) => effects.push(Effect::SetTimer { timer: Timer::Actor(log), at }),
                Action::LettersMoved { order, moved, left } => {
                    self.on_letters_moved(log, order, moved, left, effects);
                }
            }
        }
    }

    pub(super) fn on_returned(
        &mut self,
        actor: LogId,
        call: CallId,
        outcome: Result<Outcome, CallError>,
        effects: &mut Effects,
    ) {
        let Some(machine) = self.actors.get_mut(&actor) else { return };
        let actions = machine.on_returned(call, outcome, self.now);
        self.act(actor, actions, effects);
        if self.leaving.contains(&actor) {
            self.restless_actors.insert(actor);
        }
    }

    /// The commit stands: staged state becomes state, credit goes back, the next batch begins.
    pub(super) fn on_commit_stands(&mut self, actor: LogId, position: Position, effects: &mut Effects) {
        let Some(machine) = self.actors.get_mut(&actor) else { return };
        let consumed = machine.on_committed();
        effects.push(Effect::Apply { actor, position });
        for (log, (bytes, committed)) in consumed {
            let Some(machine) = self.actors.get(&actor) else { return };
            let Some(edge) = machine.upstream.get(&log).map(|upstream| upstream.edge) else { continue };
            self.consumed(edge, bytes, committed, effects);
        }
        self.pass_closed(actor, effects);
        self.restless_actors.insert(actor);
    }

    pub(super) fn on_commit_failed(&mut self, actor: LogId, why: &str, effects: &mut Effects) {
        if let Some(machine) = self.actors.get_mut(&actor) {
            let actions = machine.on_commit_failed(why, self.now);
            self.act(actor, actions, effects);
        }
    }

    pub(super) fn on_actor_timer(&mut self, log: LogId, _effects: &mut Effects) {
        self.restless_actors.insert(log);
    }

    /// A source log that fell silent says so in its log, once.
    fn mark_idle(&mut self, log: LogId, effects: &mut Effects) {
        let Some(source) = self.sources.get(&log) else { return };
        match source.idle_mark(self.now) {
            Ok(append) => self.append_to_source(log, append, effects),
            Err(Some(at)) => effects.push(Effect::SetTimer { timer: Timer::Actor(log), at }),
            Err(None) => {}
        }
    }

    pub(super) fn append_to_source(&mut self, log: LogId, append: Append, effects: &mut Effects) {
        let open = self.logs.get(&log).is_some_and(|writer| writer.open);
        if let Some(source) = self.sources.get_mut(&log).filter(|_| open) {
            source.appended(&append);
            let _ = self.append(log, Body::Append(append), effects);
        }
    }
}
