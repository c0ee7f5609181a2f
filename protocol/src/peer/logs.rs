//! Appending and persisting: the one path by which anything comes to stand in a log of this node.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::Peer;
use crate::actor::fold::{LogFold, Memory};
use crate::effect::{Effect, Effects, Level};
use crate::id::{LogId, Position, Seq};
use crate::log::record::{Body, EpochStart};
use crate::log::writer::Kept;
use crate::mutation::{Mutation, planted};
use crate::pipeline::manifest::Durability;
use crate::wire::codec;

impl Peer {
    /// Begins this process's reign over a log: its epoch number is synced in every durability class.
    pub(super) fn start_epoch(&mut self, log: LogId, effects: &mut Effects) {
        let (me, at) = (self.me, self.now);
        let Some(writer) = self.logs.get_mut(&log) else { return };
        if writer.damage.is_some() || writer.open || writer.pending_bytes() > 0 {
            return;
        }
        if writer.closed.is_some() {
            writer.open = true;
            return;
        }
        let next = u64::from(!planted(Mutation::ReuseEpoch) || writer.epoch().0 == 0);
        let epoch = crate::id::Epoch(writer.epoch().0 + next);
        let record =
            writer.append(epoch, Body::EpochStart(EpochStart { writer: me, keepers: alloc::vec![me], at }));
        effects.push(Effect::Persist { log, records: alloc::vec![record], durability: Durability::Disk });
    }

    /// Appends to an open log of this node. None: it is not open, or closed, or about to be.
    pub(super) fn append(&mut self, log: LogId, body: Body, effects: &mut Effects) -> Option<Seq> {
        let writer = self.logs.get_mut(&log).filter(|writer| writer.open && writer.closed.is_none())?;
        if writer.handing_over() {
            return None;
        }
        // What hands a log over is synced in every durability class.
        let durability = match &body {
            Body::Close { .. } if planted(Mutation::LooseClose) => writer.durability,
            Body::Close { .. } | Body::Inherit(_) | Body::EpochStart(_) => Durability::Disk,
            Body::Append(_) | Body::Commit(_) | Body::Catalog { .. } => writer.durability,
        };
        let record = writer.append(writer.epoch(), body);
        let seq = record.seq;
        effects.push(Effect::Persist { log, records: alloc::vec![record], durability });
        if planted(Mutation::ServeEarly) {
            self.restless_logs.insert(log);
        }
        Some(seq)
    }

    pub(super) fn on_persisted(&mut self, log: LogId, seq: Seq, effects: &mut Effects) {
        if let Some(node) = self.catalog_logs.get(&log).copied() {
            return self.on_catalog_persisted(node, seq, effects);
        }
        let Some(writer) = self.logs.get_mut(&log) else { return };
        let stands = writer.on_persisted(seq, self.now);
        self.troubles.remove(&trouble_key(log));
        for kept in &stands {
            self.on_stands(log, kept, effects);
        }
        self.answer_publishers(log, seq, effects);
        self.restless_logs.insert(log);
        self.restless_actors.insert(log);
    }

    /// One record stands: memory takes it, keyed state too.
    fn on_stands(&mut self, log: LogId, kept: &Kept, effects: &mut Effects) {
        match &*kept.body {
            Body::EpochStart(_) => self.on_epoch_stands(log, kept.position, effects),
            Body::Append(append) => match self.sources.get_mut(&log) {
                Some(source) => source.persisted(append),
                None => self.rest(log, &kept.body, effects),
            },
            Body::Commit(_) if self.actors.contains_key(&log) => {
                self.on_commit_stands(log, kept.position, effects)
            }
            Body::Commit(_) => self.rest(log, &kept.body, effects),
            Body::Close { .. } => self.tend_line_of(log, effects),
            Body::Inherit(_) => self.rest(log, &kept.body, effects),
            Body::Catalog { .. } => {}
        }
    }

    /// A record of a log that nobody is at work on: what it remembers takes it all the same, and whoever is
    /// wanted there may have waited for that.
    fn rest(&mut self, log: LogId, body: &Body, effects: &mut Effects) {
        if let Some(memory) = self.resting.get_mut(&log) {
            memory.apply(body);
        }
        self.tend_line_of(log, effects);
    }

    fn on_epoch_stands(&mut self, log: LogId, at: Position, effects: &mut Effects) {
        if let Some(writer) = self.logs.get_mut(&log) {
            writer.open = writer.damage.is_none();
        }
        self.serve_early(log, effects);
        if self.actors.contains_key(&log) {
            self.host(log, at, effects);
        } else if self.sources.contains_key(&log) {
            self.source_opened(log, effects);
        } else {
            self.tend_line_of(log, effects);
        }
    }

    pub(super) fn on_persist_failed(
        &mut self,
        log: LogId,
        seq: Seq,
        full: bool,
        why: &str,
        effects: &mut Effects,
    ) {
        let what = if full { "disk_full" } else { "disk_failed" };
        self.report(Level::Error, what, format!("log {log} from record {} on: {why}", seq.0), effects);
        self.troubles.insert(trouble_key(log), why.to_string());
        if let Some(node) = self.catalog_logs.get(&log).copied() {
            if node == self.me {
                self.fail_unopened(full, why, effects);
            }
            return self.on_catalog_unwritten(node, why, effects);
        }
        let Some(writer) = self.logs.get_mut(&log) else { return };
        let dropped = writer.on_persist_failed(seq);
        if dropped.iter().any(|kept| matches!(&*kept.body, Body::Commit(_))) {
            self.on_commit_failed(log, why, effects);
        }
        self.fail_publishers(log, seq, full, why, effects);
        if self.is_own_source(&log) {
            self.fail_unopened(full, why, effects);
        }
        // A source's idle mark may have been among what failed: it is due again.
        self.restless_actors.insert(log);
    }

    /// Opens whatever could not be opened before (a full disk, a module that was missing).
    pub(super) fn retry_openings(&mut self, effects: &mut Effects) {
        if !self.phase.is_open() {
            return;
        }
        let closed: Vec<LogId> =
            self.logs.iter().filter(|(_, writer)| !writer.open).map(|(log, _)| *log).collect();
        for log in closed {
            self.start_epoch(log, effects);
        }
        let unhosted: Vec<LogId> =
            self.actors.iter().filter(|(_, actor)| !actor.is_ready()).map(|(log, _)| *log).collect();
        self.open_due(effects);
        self.tend_lines(effects);
        for log in unhosted {
            if let Some(writer) = self.logs.get(&log).filter(|writer| writer.open) {
                let at = writer.persisted();
                self.host(log, at, effects);
            }
        }
    }

    /// Snapshots that are due, and segments that may go.
    pub(super) fn keep_house(&mut self, effects: &mut Effects) {
        if !self.phase.is_open() {
            return;
        }
        // Of a damaged log nothing goes.
        let sound = self.logs.iter().filter(|(_, writer)| writer.damage.is_none());
        let logs: Vec<LogId> = sound.map(|(log, _)| *log).collect();
        for log in logs {
            self.snapshot_if_due(log, effects);
            if let Some(before) = self.logs.get_mut(&log).and_then(|writer| writer.truncatable(self.now)) {
                effects.push(Effect::Truncate { log, before });
            }
        }
    }

    /// A snapshot covers exactly what memory and keyed state have taken: everything persisted.
    fn snapshot_if_due(&mut self, log: LogId, effects: &mut Effects) {
        let Some(writer) = self.logs.get_mut(&log).filter(|writer| writer.wants_snapshot()) else { return };
        let (memory, state) = match (self.actors.get(&log), self.sources.get(&log)) {
            (Some(actor), _) if actor.is_ready() => (Memory::Actor(actor.memory.clone()), true),
            (None, Some(source)) => (Memory::Source(source.memory.clone()), false),
            (Some(_), _) | (None, None) => return,
        };
        let fold = LogFold::of(memory, writer.epochs.clone());
        let at = writer.persisted();
        writer.snapshot_asked();
        effects.push(Effect::Snapshot { log, at, fold: codec::encode(&fold), state });
    }

    pub(super) fn on_snapshotted(
        &mut self,
        log: LogId,
        at: Position,
        outcome: Result<(), String>,
        effects: &mut Effects,
    ) {
        let Some(writer) = self.logs.get_mut(&log) else { return };
        match outcome {
            Ok(()) => writer.snapshotted(Some(at)),
            Err(why) => {
                writer.snapshotted(None);
                self.report(Level::Warn, "snapshot_failed", format!("log {log}: {why}"), effects);
            }
        }
    }
}

/// Under which name `troubles` keeps what is wrong with a log.
pub(super) fn trouble_key(log: LogId) -> String {
    format!("log {log}")
}
