//! What an observer of the whole world saw: every record that was written to a log, kept when the
//! log itself forgets it. The checkers read here; what a disk gives back is compared with it. Each
//! record is decoded once, when it is written.

use std::collections::BTreeMap;

use dunlin_protocol::effect::RecoveredLog;
use dunlin_protocol::id::{LogId, Position, Seq};
use dunlin_protocol::log::record::Record;
use dunlin_protocol::log::writer::Kept;
use dunlin_protocol::mesh::catalog::LogName;
use dunlin_protocol::pipeline::manifest::Durability;

/// A log on one node: catalog logs stand on all of them.
pub type Place = (usize, LogId);

#[derive(Debug, Default)]
pub struct History {
    logs: BTreeMap<Place, Past>,
    /// What tails held that crashes took, by the log's place: only that may count again.
    pub lost: BTreeMap<Place, Vec<Kept>>,
}

#[derive(Debug, Clone)]
pub struct Past {
    pub name: LogName,
    /// All that was written and not taken back: as it was written, and decoded.
    pub records: Vec<Record>,
    pub kept: Vec<Kept>,
    /// The first records that it was kept from, one after another, as retention let go of those before.
    pub begins: Vec<Seq>,
    /// The last record that the core was told to stand.
    told: Seq,
    /// Told, and promised to survive the process; and the power, too.
    survives_process: Seq,
    survives_power: Seq,
    /// Persists under way: the last record of each, and its class.
    under_way: Vec<(Seq, Durability)>,
    /// Its node was told that it is damaged: nothing may be written to it or served from it.
    pub damaged: bool,
}

impl Past {
    fn new(name: LogName) -> Past {
        Past {
            name,
            records: Vec::new(),
            kept: Vec::new(),
            begins: Vec::new(),
            told: Seq(0),
            survives_process: Seq(0),
            survives_power: Seq(0),
            under_way: Vec::new(),
            damaged: false,
        }
    }

    pub fn head(&self) -> Position {
        self.kept.last().map(|kept| kept.position).unwrap_or_default()
    }

    pub fn told(&self) -> Seq {
        self.told
    }

    /// Where the log stood behind record `seq`.
    pub fn position(&self, seq: Seq) -> Option<Position> {
        match seq.0 {
            0 => Some(Position::START),
            n => self.kept.get(n as usize - 1).map(|kept| kept.position),
        }
    }

    fn begin(&mut self, first: Seq) {
        if self.begins.last().copied().unwrap_or(Seq(1)) != first {
            self.begins.push(first);
        }
    }

    fn cut(&mut self, last: Seq) -> Vec<Kept> {
        self.records.truncate(last.0 as usize);
        self.told = self.told.min(last);
        self.survives_process = self.survives_process.min(last);
        self.survives_power = self.survives_power.min(last);
        self.under_way.retain(|(seq, _)| *seq <= last);
        self.kept.split_off((last.0 as usize).min(self.kept.len()))
    }
}

impl History {
    pub fn logs(&self) -> impl Iterator<Item = (&Place, &Past)> {
        self.logs.iter()
    }

    pub fn past(&self, place: Place) -> Option<&Past> {
        self.logs.get(&place)
    }

    /// Every record of one log, from its first.
    pub fn kept(&self, place: Place) -> &[Kept] {
        self.logs.get(&place).map_or(&[], |past| &past.kept)
    }

    /// The same behind record `seq`.
    pub fn kept_behind(&self, place: Place, seq: Seq) -> &[Kept] {
        self.kept(place).get(seq.0 as usize..).unwrap_or_default()
    }

    pub fn create(&mut self, place: Place, name: LogName) {
        self.logs.entry(place).or_insert_with(|| Past::new(name));
    }

    /// Panics when a record does not follow or does not decode, or when the log is damaged: the core broke its promise.
    pub fn write(&mut self, place: Place, records: &[Record], durability: Durability) {
        let Some(past) = self.logs.get_mut(&place) else { return };
        assert!(!past.damaged, "n{} writes to log {}, which is damaged", place.0, place.1);
        for record in records {
            let head = past.head();
            if record.seq <= head.seq {
                // A catalog record that is tried again after a failure that came late.
                let known = past.position(record.seq) == Some(record.position());
                assert!(known, "record {} of log {} is written a second time", record.seq.0, place.1);
                continue;
            }
            // A catalog record behind one whose write failed: it is repeated together with that one.
            if record.seq > head.seq.next() && matches!(past.name, LogName::Catalog(_)) {
                return;
            }
            assert_eq!(record.seq, head.seq.next(), "a record of log {} is out of sequence", place.1);
            assert_eq!(record.previous, head.hash, "a record of log {} breaks the chain", place.1);
            past.kept.push(Kept::of(record).expect("a record that is written decodes"));
            past.records.push(record.clone());
        }
        if let Some(last) = records.last() {
            past.under_way.push((last.seq, durability));
        }
    }

    /// The core is told that the log stands up to `seq`.
    pub fn stands(&mut self, place: Place, seq: Seq) {
        let Some(past) = self.logs.get_mut(&place) else { return };
        past.told = past.told.max(seq);
        let done = past.under_way.iter().filter(|(last, _)| *last <= seq);
        // A sync takes everything before it along.
        for (last, durability) in done {
            match durability {
                Durability::Memory => {}
                Durability::Page => past.survives_process = past.survives_process.max(*last),
                Durability::Disk => {
                    past.survives_process = past.survives_process.max(*last);
                    past.survives_power = past.survives_power.max(*last);
                }
            }
        }
        past.under_way.retain(|(last, _)| *last > seq);
    }

    /// The core is told that nothing from `seq` on stands.
    pub fn failed(&mut self, place: Place, seq: Seq) {
        // A damaged one was to be written anew, and is as it was.
        if let Some(past) = self.logs.get_mut(&place).filter(|past| !past.damaged) {
            past.cut(Seq(seq.0 - 1));
        }
    }

    /// A damaged log is replaced by one of these records: they must be those that it held.
    pub fn write_anew(&mut self, place: Place, records: &[Record]) -> Result<(), String> {
        let Some(past) = self.logs.get_mut(&place) else { return Err("it is not known".into()) };
        if !past.damaged {
            return Err("it was not damaged".into());
        }
        let end = records.last().map_or(Seq(0), |record| record.seq);
        let first = past.told.max(past.survives_process);
        if end < first {
            return Err(format!("it held record {}, and ends at {} now", first.0, end.0));
        }
        past.cut(end);
        for record in records {
            match past.position(record.seq) {
                Some(at) if at != record.position() => {
                    return Err(format!("record {} is another one now", record.seq.0));
                }
                Some(_) => {}
                None => {
                    past.kept.push(Kept::of(record).ok_or("it does not decode")?);
                    past.records.push(record.clone());
                }
            }
        }
        past.under_way = vec![(end, Durability::Disk)];
        past.damaged = false;
        Ok(())
    }

    /// Its files were restored from a copy.
    pub fn restored(&mut self, place: Place) {
        if let Some(past) = self.logs.get_mut(&place) {
            past.damaged = false;
        }
    }

    /// From now on it is kept from this record on.
    pub fn begins(&mut self, place: Place, first: Seq) {
        if let Some(past) = self.logs.get_mut(&place) {
            past.begin(first);
        }
    }

    pub fn forget(&mut self, place: Place) {
        self.logs.remove(&place);
    }

    /// The node's folder is an older copy: its logs end there, those that it lacks are not born. Gives what
    /// had been written, for when the newest folder is put back.
    pub fn roll_back(&mut self, node: usize, ends: &BTreeMap<LogId, Seq>) -> BTreeMap<LogId, Past> {
        let places: Vec<Place> = self.logs.keys().filter(|(of, _)| *of == node).copied().collect();
        let mut before = BTreeMap::new();
        for place in places {
            let Some(past) = self.logs.remove(&place) else { continue };
            if let Some(end) = ends.get(&place.1) {
                let mut copied = past.clone();
                copied.cut(*end);
                self.logs.insert(place, copied);
            }
            before.insert(place.1, past);
        }
        before
    }

    /// The newest folder is there again.
    pub fn put_back(&mut self, node: usize, past: BTreeMap<LogId, Past>) {
        self.logs.retain(|(of, _), _| *of != node);
        self.logs.extend(past.into_iter().map(|(log, past)| ((node, log), past)));
    }

    /// What a starting node is told of a log must be what was written, and all that was promised to
    /// survive. What is missing behind it is lost.
    pub fn recovered(&mut self, node: usize, power: bool, found: &RecoveredLog) -> Result<(), String> {
        let log = found.name.id();
        let Some(past) = self.logs.get_mut(&(node, log)) else {
            return Err(format!("n{node} recovered log {log}, which was removed or never written"));
        };
        let at = past.position(found.head.seq);
        if at != Some(found.head) {
            return Err(format!(
                "n{node} recovered log {log} up to record {}, which is not the record that was written",
                found.head.seq.0
            ));
        }
        past.damaged = found.damage.is_some();
        if past.damaged {
            return Ok(());
        }
        let promised = if power { past.survives_power } else { past.survives_process };
        if found.head.seq < promised {
            return Err(format!(
                "n{node} recovered log {log} up to record {}, but record {} was promised to survive",
                found.head.seq.0, promised.0
            ));
        }
        past.begin(found.first);
        let lost = past.cut(found.head.seq);
        // Everything that is found is synced before it counts.
        (past.told, past.survives_process, past.survives_power) =
            (found.head.seq, found.head.seq, found.head.seq);
        past.under_way.clear();
        self.lost.entry((node, log)).or_default().extend(lost);
        Ok(())
    }
}
