//! A simulated disk: logs whose tail is lost when the power goes before it was synced.

use std::collections::BTreeMap;

use bytes::Bytes;
use dunlin_protocol::effect::{Input, RecoveredLog};
use dunlin_protocol::id::{LogId, Position, Seq};
use dunlin_protocol::log::record::{Body, Record};
use dunlin_protocol::mesh::catalog::LogName;

use crate::chance::Chance;
use crate::functions::Shelf;

#[derive(Debug, Default)]
pub struct Disk {
    pub logs: BTreeMap<LogId, DiskLog>,
    /// No space left: every write is refused.
    pub full: bool,
}

#[derive(Debug)]
pub struct DiskLog {
    pub name: LogName,
    pub records: Vec<Record>,
    /// How many of them are synced.
    synced: usize,
    /// A write was refused; until one follows on again, what was asked for behind it goes too.
    failing: bool,
    /// Its un-synced tail goes with the process, not only with the power: `memory`.
    pub volatile: bool,
    pub snapshot: Option<(Position, Bytes)>,
    first: Seq,
}

/// What becomes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Taken,
    /// No space: from its first record on nothing stands.
    Refused,
    /// It follows on what was refused and goes with it.
    Behind,
}

impl Disk {
    pub fn create(&mut self, log: LogId, name: LogName) {
        self.logs.entry(log).or_insert(DiskLog {
            name,
            records: Vec::new(),
            synced: 0,
            failing: false,
            volatile: false,
            snapshot: None,
            first: Seq(1),
        });
    }

    /// Writes without syncing. Panics when a record does not follow on: the core broke its promise.
    pub fn write(&mut self, log: LogId, records: &[Record]) -> Written {
        let full = self.full;
        let Some(found) = self.logs.get_mut(&log) else { return Written::Behind };
        let follows = records.first().is_some_and(|record| {
            let head = found.records.last().map_or(Position::START, Record::position);
            record.seq == head.seq.next() && record.previous == head.hash
        });
        if found.failing && !follows {
            return Written::Behind;
        }
        found.failing = full;
        if full {
            return Written::Refused;
        }
        for record in records {
            let (seq, hash) = found
                .records
                .last()
                .map_or((Seq(found.first.0 - 1), Default::default()), |last| (last.seq, last.hash()));
            assert_eq!(record.seq, seq.next(), "a record of log {log} is out of sequence");
            assert_eq!(record.previous, hash, "a record of log {log} breaks the chain");
            found.records.push(record.clone());
        }
        Written::Taken
    }

    pub fn sync(&mut self, log: LogId, seq: Seq) {
        if let Some(found) = self.logs.get_mut(&log) {
            let upto = found.records.iter().take_while(|record| record.seq <= seq).count();
            found.synced = found.synced.max(upto);
        }
    }

    /// The process dies; with `power` the machine too: un-synced tails are torn anywhere. Returns
    /// the records that are lost.
    pub fn crash(&mut self, power: bool, chance: &mut Chance) -> Vec<Record> {
        let mut lost = Vec::new();
        for log in self.logs.values_mut() {
            let loose = log.records.len() - log.synced;
            if (power || log.volatile) && loose > 0 {
                let kept = chance.between(0, loose as u64) as usize;
                lost.extend(log.records.drain(log.synced + kept..));
            }
            log.synced = log.records.len();
            log.failing = false;
        }
        lost
    }

    /// The keyed state that a log's records make up to a position, with what it took over from the log
    /// before it.
    pub fn state_at(&self, log: LogId, at: Position) -> BTreeMap<Bytes, Bytes> {
        let mut shelf = Shelf::default();
        let records = self.logs.get(&log).map(|log| log.records.as_slice()).unwrap_or_default();
        for record in records.iter().take_while(|record| record.seq <= at.seq) {
            match record.decode() {
                Ok(Body::Commit(commit)) => shelf.apply(&commit.state),
                Ok(Body::Inherit(inherit)) => {
                    shelf.committed = self.state_at(inherit.from, inherit.closed_at)
                }
                Ok(_) | Err(_) => {}
            }
        }
        shelf.committed
    }

    pub fn read(&self, log: LogId, from: Seq, bytes_max: usize) -> Vec<Record> {
        let Some(found) = self.logs.get(&log) else { return Vec::new() };
        let mut bytes = 0;
        let mut records = Vec::new();
        for record in found.records.iter().skip_while(|record| record.seq < from) {
            if bytes > bytes_max {
                break;
            }
            bytes += record.body.len();
            records.push(record.clone());
        }
        records
    }

    /// What a starting node is told.
    pub fn recovery(&self) -> Vec<Input> {
        let mut inputs = Vec::new();
        for (id, log) in &self.logs {
            let head = log.records.last().map_or(Position::START, Record::position);
            let covered = log.snapshot.as_ref().map_or(Seq(0), |(at, _)| at.seq);
            inputs.push(Input::Recovered(RecoveredLog {
                name: log.name.clone(),
                head,
                first: log.first,
                snapshot: log.snapshot.clone(),
                bytes: log.records.iter().map(|record| record.body.len() as u64).sum(),
                damage: None,
            }));
            let records = log.records.iter().filter(|record| record.seq > covered).cloned().collect();
            inputs.push(Input::Replay { log: *id, records });
        }
        inputs
    }
}
