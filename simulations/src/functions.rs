//! Functions as simulated nodes host them: the real operators; wasm guests have native stand-ins.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use dunlin_operators::chain::ChainRunner;
use dunlin_operators::operator::{FromHead, Handled, Operator, State};
use dunlin_protocol::effect::{ActorSpec, Again, CallError, Invoked, Outcome};
use dunlin_protocol::event::Event;
use dunlin_protocol::id::{LogId, Position, Seq};
use dunlin_protocol::log::record::{Body, Change, Observed, Record};
use dunlin_protocol::pipeline::plan::Head;
use dunlin_protocol::time::Time;

use crate::chance::Chance;

/// Keyed state: committed entries, staged changes over them, and the changes of the call under way.
#[derive(Debug, Default, Clone)]
pub struct Shelf {
    pub committed: BTreeMap<Bytes, Bytes>,
    staged: BTreeMap<Bytes, Option<Bytes>>,
    call: BTreeMap<Bytes, Option<Bytes>>,
}

impl Shelf {
    pub fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match &change.value {
                Some(value) => self.committed.insert(change.key.clone(), value.clone()),
                None => self.committed.remove(&change.key),
            };
        }
    }

    /// Applies the commits after `at` up to `head`, each checked to follow the one before.
    pub fn follow(&mut self, at: &mut Position, head: Position, source: &Source<'_>) -> Result<(), String> {
        while at.seq < head.seq {
            let records = (source.read)(at.seq.next())?;
            if records.is_empty() {
                return Err(format!("the log ends at record {}", at.seq.0));
            }
            for record in records.iter().take_while(|record| record.seq <= head.seq) {
                if record.previous != at.hash {
                    return Err(format!("record {} does not follow on the state", record.seq.0));
                }
                match record.decode().map_err(|error| error.to_string())? {
                    Body::Commit(commit) => self.apply(&commit.state),
                    Body::Inherit(inherit) => {
                        self.committed = (source.before)(inherit.from, inherit.closed_at)?;
                    }
                    Body::EpochStart(_) | Body::Append(_) | Body::Close { .. } | Body::Catalog { .. } => {}
                }
                *at = record.position();
            }
        }
        match *at == head {
            true => Ok(()),
            false => Err("the log holds another history than the state".into()),
        }
    }

    fn merged(&self) -> BTreeMap<Bytes, Bytes> {
        let mut all = self.committed.clone();
        for (key, value) in self.staged.iter().chain(&self.call) {
            match value {
                Some(value) => all.insert(key.clone(), value.clone()),
                None => all.remove(key),
            };
        }
        all
    }
}

impl State for Shelf {
    fn get(&mut self, key: &[u8]) -> Option<Bytes> {
        let changed = self.call.get(key).or_else(|| self.staged.get(key));
        changed.cloned().unwrap_or_else(|| self.committed.get(key).cloned())
    }

    fn put(&mut self, key: &[u8], value: Bytes) {
        self.call.insert(Bytes::copy_from_slice(key), Some(value));
    }

    fn delete(&mut self, key: &[u8]) {
        self.call.insert(Bytes::copy_from_slice(key), None);
    }

    fn scan(&mut self, prefix: &[u8], limit: usize) -> Vec<(Bytes, Bytes)> {
        self.merged().into_iter().filter(|(key, _)| key.starts_with(prefix)).take(limit).collect()
    }
}

/// Keyed state as a process leaves it behind, and the commit up to which it was applied.
#[derive(Debug, Clone)]
pub struct Store {
    applied: Position,
    entries: BTreeMap<Bytes, Bytes>,
}

/// Where keyed state is rebuilt from: the log's newest snapshot and its records.
pub struct Source<'a> {
    pub snapshot: Option<(Position, BTreeMap<Bytes, Bytes>)>,
    /// Some records from there on; an error says what is wrong with the log.
    pub read: &'a dyn Fn(Seq) -> Result<Vec<Record>, String>,
    /// The state of the closed log from which this one inherits, where it was closed.
    pub before: &'a dyn Fn(LogId, Position) -> Result<BTreeMap<Bytes, Bytes>, String>,
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}

/// One actor's function with its state.
pub struct Hosted {
    runner: ChainRunner,
    pub shelf: Shelf,
    applied: Position,
    /// The head's stage.
    pub stage: String,
    guest: bool,
    luck: Arc<Mutex<Luck>>,
}

impl std::fmt::Debug for Hosted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hosted").field("stage", &self.stage).finish_non_exhaustive()
    }
}

impl Hosted {
    /// The function of `spec` with no state.
    pub fn new(spec: &Arc<ActorSpec>) -> Result<Hosted, String> {
        let stage = match &spec.chain.head {
            Head::None | Head::Pass => String::new(),
            Head::Wasm { stage, .. }
            | Head::Learn { stage, .. }
            | Head::Forecast { stage, .. }
            | Head::Anomaly { stage, .. } => stage.to_string(),
            Head::Sink { sink, .. } => sink.to_string(),
        };
        let luck = Arc::new(Mutex::new(Luck::Recorded(VecDeque::new())));
        let runner = ChainRunner::new(&spec.chain, head_of(&spec.chain.head, &luck)?)?;
        let guest = matches!(spec.chain.head, Head::Wasm { .. });
        Ok(Hosted { runner, shelf: Shelf::default(), applied: Position::START, stage, guest, luck })
    }

    /// The function with the state that its log makes up to `head`: a store that is behind is brought
    /// up, one whose position the log lacks goes.
    pub fn brought_up(
        spec: &Arc<ActorSpec>,
        head: Position,
        store: Option<Store>,
        source: &Source<'_>,
    ) -> Result<Hosted, String> {
        let mut hosted = Hosted::new(spec)?;
        if let Some(Store { applied, entries }) = store
            && applied.seq <= head.seq
        {
            hosted.applied = applied;
            hosted.shelf.committed = entries;
            if hosted.follow(head, source).is_ok() {
                return Ok(hosted);
            }
        }
        (hosted.applied, hosted.shelf.committed) = source.snapshot.clone().unwrap_or_default();
        hosted.follow(head, source)?;
        Ok(hosted)
    }

    fn follow(&mut self, head: Position, source: &Source<'_>) -> Result<(), String> {
        self.shelf.follow(&mut self.applied, head, source)
    }

    /// Keyed state stands at this commit of its log.
    pub fn applied(&self) -> Position {
        self.applied
    }

    /// Its head is a guest, which may trap.
    pub fn is_guest(&self) -> bool {
        self.guest
    }

    /// What stays of it when the process dies.
    pub fn left_behind(self) -> Store {
        Store { applied: self.applied, entries: self.shelf.committed }
    }

    pub fn invoke(&mut self, batch: &[Invoked], now: Time, luck: Luck) -> Result<Outcome, CallError> {
        self.shelf.call.clear();
        *self.luck.lock().unwrap_or_else(PoisonError::into_inner) = luck;
        let mut outcome = self.runner.run(batch, now, &mut self.shelf);
        let call = std::mem::take(&mut self.shelf.call);
        match &mut outcome {
            Ok(outcome) => {
                outcome.changes = call
                    .iter()
                    .map(|(key, value)| Change { key: key.clone(), value: value.clone() })
                    .collect();
                self.shelf.staged.extend(call);
            }
            Err(_) => self.runner.forget(),
        }
        outcome
    }

    pub fn apply(&mut self, position: Position) {
        self.applied = position;
        let staged = std::mem::take(&mut self.shelf.staged);
        let changes: Vec<Change> = staged.into_iter().map(|(key, value)| Change { key, value }).collect();
        self.shelf.apply(&changes);
    }

    pub fn discard(&mut self) {
        self.shelf.staged.clear();
        self.runner.forget();
    }
}

fn head_of(head: &Head, luck: &Arc<Mutex<Luck>>) -> Result<Option<Box<dyn Operator>>, String> {
    match head {
        Head::None | Head::Pass => Ok(None),
        Head::Wasm { .. } => Ok(Some(Box::new(Counter { luck: Some(luck.clone()) }))),
        Head::Sink { .. } => Ok(Some(Box::new(Counter { luck: None }))),
        Head::Learn { spec, .. } => Ok(Some(Box::new(dunlin_operators::learn::Learn::new(spec)?))),
        Head::Forecast { spec, .. } => Ok(Some(Box::new(dunlin_operators::forecast::Forecast::new(spec)?))),
        Head::Anomaly { spec, .. } => Ok(Some(Box::new(dunlin_operators::anomaly::Anomaly::new(spec)?))),
    }
}

/// Stands in for a guest and for sinks: counts the events of each key and emits the count with the
/// event's own payload, so that a lost, doubled or disordered event shows in the output. A guest adds
/// a random number to each, so that nobody could compute its output a second time.
#[derive(Debug)]
struct Counter {
    /// Guests have luck; sinks have none.
    luck: Option<Arc<Mutex<Luck>>>,
}

/// Where a guest's random numbers come from.
#[derive(Debug)]
pub enum Luck {
    Drawn(Chance),
    /// As a commit recorded them.
    Recorded(VecDeque<u64>),
}

impl Luck {
    fn next(&mut self) -> u64 {
        match self {
            Luck::Drawn(chance) => chance.between(0, 1 << 40),
            Luck::Recorded(values) => values.pop_front().unwrap_or_default(),
        }
    }
}

/// What an event that guests refuse carries in its payload.
pub const POISON: &str = r#""poison":true,"#;

pub fn is_poison(payload: &[u8]) -> bool {
    payload.windows(POISON.len()).any(|window| window == POISON.as_bytes())
}

impl Operator for Counter {
    fn handle(&mut self, batch: &[Invoked], _now: Time, state: &mut dyn State) -> Result<Handled, CallError> {
        if self.luck.is_some() && batch.iter().any(|invoked| is_poison(&invoked.placed.event.payload)) {
            let (stage, reason) = ("count".into(), "it was poisoned".into());
            return Err(CallError { stage, reason, again: Again::Maybe });
        }
        let mut handled = Handled::default();
        for (cause, invoked) in (0u32..).zip(batch) {
            let event = &invoked.placed.event;
            let mut key = b"n/".to_vec();
            key.extend_from_slice(&event.key);
            let before = state
                .get(&key)
                .map_or(0, |value| u64::from_le_bytes(value[..].try_into().unwrap_or_default()));
            state.put(&key, Bytes::copy_from_slice(&(before + 1).to_le_bytes()));
            let mut payload: serde_json::Map<String, serde_json::Value> =
                serde_json::from_slice(&event.payload).unwrap_or_default();
            payload.insert("count".into(), (before + 1).into());
            if let Some(luck) = &self.luck {
                let drawn = luck.lock().unwrap_or_else(PoisonError::into_inner).next();
                payload.insert("luck".into(), drawn.into());
                handled.observed.push(Observed::Random(drawn));
            }
            let payload = Bytes::from(serde_json::to_vec(&payload).unwrap_or_default());
            handled.emitted.push(FromHead { cause, side: None, event: Event { payload, ..event.clone() } });
        }
        Ok(handled)
    }

    fn forget(&mut self) {}
}
