//! Functions as simulated nodes host them: the real operators; wasm guests have native stand-ins.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_operators::chain::ChainRunner;
use dunlin_operators::operator::{FromHead, Handled, Operator, State};
use dunlin_protocol::effect::{ActorSpec, CallError, Invoked, Outcome};
use dunlin_protocol::event::Event;
use dunlin_protocol::id::{LogId, Position};
use dunlin_protocol::log::record::{Body, Change, Record};
use dunlin_protocol::pipeline::plan::Head;
use dunlin_protocol::time::Time;

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

/// One actor's function with its state.
pub struct Hosted {
    runner: ChainRunner,
    pub shelf: Shelf,
    applied: Position,
    /// The head's stage.
    pub stage: String,
}

impl std::fmt::Debug for Hosted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hosted").finish_non_exhaustive()
    }
}

impl Hosted {
    /// The function of `spec` with the state that these records of its log make: an older store is
    /// brought up, one whose position the log lacks goes. `before` is the state of a closed log.
    pub fn new(
        spec: &Arc<ActorSpec>,
        records: &[Record],
        store: Option<Store>,
        before: &dyn Fn(LogId, Position) -> BTreeMap<Bytes, Bytes>,
    ) -> Result<Hosted, String> {
        let stage = match &spec.chain.head {
            Head::None | Head::Pass => String::new(),
            Head::Wasm { stage, .. } | Head::Learn { stage, .. } | Head::Forecast { stage, .. } => {
                stage.to_string()
            }
            Head::Sink { sink, .. } => sink.to_string(),
        };
        let runner = ChainRunner::new(&spec.chain, head_of(&spec.chain.head)?)?;
        let mut hosted = Hosted { runner, shelf: Shelf::default(), applied: Position::START, stage };
        let known = |store: &Store| records.iter().any(|record| record.position() == store.applied);
        if let Some(store) = store.filter(known) {
            hosted.applied = store.applied;
            hosted.shelf.committed = store.entries;
        }
        for record in records.iter().skip_while(|record| record.seq <= hosted.applied.seq) {
            match record.decode() {
                Ok(Body::Commit(commit)) => hosted.shelf.apply(&commit.state),
                Ok(Body::Inherit(inherit)) if spec.follows == Some(inherit.from) => {
                    hosted.shelf.committed = before(inherit.from, inherit.closed_at);
                }
                Ok(_) | Err(_) => {}
            }
        }
        hosted.applied = records.last().map_or(Position::START, Record::position);
        Ok(hosted)
    }

    /// What stays of it when the process dies.
    pub fn left_behind(self) -> Store {
        Store { applied: self.applied, entries: self.shelf.committed }
    }

    pub fn invoke(&mut self, batch: &[Invoked], now: Time) -> Result<Outcome, CallError> {
        self.shelf.call.clear();
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

fn head_of(head: &Head) -> Result<Option<Box<dyn Operator>>, String> {
    match head {
        Head::None | Head::Pass => Ok(None),
        Head::Wasm { .. } | Head::Sink { .. } => Ok(Some(Box::new(Counter))),
        Head::Learn { spec, .. } => Ok(Some(Box::new(dunlin_operators::learn::Learn::new(spec)?))),
        Head::Forecast { spec, .. } => Ok(Some(Box::new(dunlin_operators::forecast::Forecast::new(spec)?))),
    }
}

/// Stands in for a guest and for sinks: counts the events of each key and emits the count with the
/// event's own payload, so that a lost, doubled or disordered event shows in the output.
#[derive(Debug)]
struct Counter;

impl Operator for Counter {
    fn handle(&mut self, batch: &[Invoked], _now: Time, state: &mut dyn State) -> Result<Handled, CallError> {
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
            let payload = Bytes::from(serde_json::to_vec(&payload).unwrap_or_default());
            handled.emitted.push(FromHead { cause, side: None, event: Event { payload, ..event.clone() } });
        }
        Ok(handled)
    }

    fn forget(&mut self) {}
}
