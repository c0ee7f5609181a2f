//! Staged state: what calls changed and no commit holds yet, laid over what is committed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dunlin_operators::operator::State;
use dunlin_protocol::id::LogId;
use dunlin_protocol::log::record::Change;

use super::ports::StateStore;

/// Final value per key; `None` is a deletion.
pub(super) type Changes = BTreeMap<Bytes, Option<Bytes>>;

/// The changes of an actor's calls since its last commit. Shared only so that it outlives a worker
/// that panics: the next one goes on with it. At most one worker holds it at a time.
#[derive(Debug, Clone, Default)]
pub(super) struct Staged(Arc<Mutex<Changes>>);

impl Staged {
    fn lock(&self) -> MutexGuard<'_, Changes> {
        // Every change under the lock is one map operation: a panic leaves nothing half-done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call has succeeded: its changes are seen by the calls after it.
    pub(super) fn add(&self, changes: Changes) {
        self.lock().extend(changes);
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    pub(super) fn changes(&self) -> Vec<Change> {
        listed(&self.lock())
    }
}

pub(super) fn listed(changes: &Changes) -> Vec<Change> {
    changes.iter().map(|(key, value)| Change { key: key.clone(), value: value.clone() }).collect()
}

/// The state as one call sees it: what is committed, then what is staged, then its own changes.
#[derive(Debug)]
pub(super) struct CallState {
    log: LogId,
    store: Arc<dyn StateStore>,
    staged: Staged,
    own: Changes,
    broken: Option<String>,
}

impl CallState {
    pub(super) fn new(log: LogId, store: Arc<dyn StateStore>, staged: Staged) -> CallState {
        CallState { log, store, staged, own: Changes::new(), broken: None }
    }

    /// What the call changed, or why the store could not be read: the call then counts for nothing.
    pub(super) fn finish(self) -> Result<Changes, String> {
        match self.broken {
            None => Ok(self.own),
            Some(why) => Err(why),
        }
    }

    fn or_broken<T: Default>(&mut self, read: Result<T, String>) -> T {
        read.unwrap_or_else(|why| {
            self.broken.get_or_insert(why);
            T::default()
        })
    }
}

impl State for CallState {
    fn get(&mut self, key: &[u8]) -> Option<Bytes> {
        if let Some(value) = self.own.get(key) {
            return value.clone();
        }
        if let Some(value) = self.staged.lock().get(key) {
            return value.clone();
        }
        let read = self.store.get(self.log, key);
        self.or_broken(read)
    }

    fn put(&mut self, key: &[u8], value: Bytes) {
        self.own.insert(Bytes::copy_from_slice(key), Some(value));
    }

    fn delete(&mut self, key: &[u8]) {
        self.own.insert(Bytes::copy_from_slice(key), None);
    }

    fn scan(&mut self, prefix: &[u8], limit: usize) -> Vec<(Bytes, Bytes)> {
        let mut over = with_prefix(&self.staged.lock(), prefix);
        over.extend(with_prefix(&self.own, prefix));
        // Each deletion may hide one committed pair, so that many more are read.
        let hidden = over.values().filter(|value| value.is_none()).count();
        let read = self.store.scan(self.log, prefix, limit.saturating_add(hidden));
        let mut merged: Changes =
            self.or_broken(read).into_iter().map(|(key, value)| (key, Some(value))).collect();
        merged.extend(over);
        merged.into_iter().filter_map(|(key, value)| Some((key, value?))).take(limit).collect()
    }
}

fn with_prefix(changes: &Changes, prefix: &[u8]) -> Changes {
    changes
        .range(Bytes::copy_from_slice(prefix)..)
        .take_while(|(key, _)| key.starts_with(prefix))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
