//! An actor's keyed state in memory: what the simulator and tests use in place of the state store.

use std::collections::BTreeMap;

use bytes::Bytes;
use dunlin_protocol::log::record::Change;

use crate::operator::State;

type Changes = BTreeMap<Bytes, Option<Bytes>>;

/// Three layers: what is committed, what calls staged behind one another, and what the call in hand
/// does. `State` reads through all three and writes into the last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryState {
    committed: BTreeMap<Bytes, Bytes>,
    /// One entry per call that succeeded since the last commit, the oldest first.
    staged: Vec<Changes>,
    call: Changes,
}

impl MemoryState {
    pub fn new() -> MemoryState {
        MemoryState::default()
    }

    /// The call succeeded: its changes, in key order, are staged and given out for its commit.
    pub fn stage(&mut self) -> Vec<Change> {
        let call = std::mem::take(&mut self.call);
        let changes =
            call.iter().map(|(key, value)| Change { key: key.clone(), value: value.clone() }).collect();
        self.staged.push(call);
        changes
    }

    /// The call failed: its changes go.
    pub fn undo(&mut self) {
        self.call.clear();
    }

    /// The oldest staged call's commit is persisted: it enters the committed state.
    pub fn commit(&mut self) {
        if !self.staged.is_empty() {
            let oldest = self.staged.remove(0);
            self.enter(oldest);
        }
    }

    /// A single commit holds everything that is staged, and it is persisted.
    pub fn commit_all(&mut self) {
        for call in std::mem::take(&mut self.staged) {
            self.enter(call);
        }
    }

    fn enter(&mut self, call: Changes) {
        for (key, value) in call {
            match value {
                Some(value) => self.committed.insert(key, value),
                None => self.committed.remove(&key),
            };
        }
    }

    /// What is staged goes, and what the call in hand did.
    pub fn discard(&mut self) {
        self.staged.clear();
        self.call.clear();
    }

    /// Applies a commit's changes directly, as recovery does.
    pub fn apply(&mut self, changes: &[Change]) {
        self.enter(changes.iter().map(|change| (change.key.clone(), change.value.clone())).collect());
    }

    /// The committed state of one key, or all of it from the first key on.
    pub fn look_up(&self, key: Option<&[u8]>, limit: usize) -> Vec<(Bytes, Bytes)> {
        match key {
            Some(key) => self.committed.get_key_value(key).into_iter().map(pair).collect(),
            None => self.committed.iter().take(limit).map(pair).collect(),
        }
    }

    /// The newest change of this key that is not committed.
    fn changed(&self, key: &[u8]) -> Option<&Option<Bytes>> {
        self.call.get(key).or_else(|| self.staged.iter().rev().find_map(|call| call.get(key)))
    }
}

fn pair((key, value): (&Bytes, &Bytes)) -> (Bytes, Bytes) {
    (key.clone(), value.clone())
}

impl State for MemoryState {
    fn get(&mut self, key: &[u8]) -> Option<Bytes> {
        match self.changed(key) {
            Some(value) => value.clone(),
            None => self.committed.get(key).cloned(),
        }
    }

    fn put(&mut self, key: &[u8], value: Bytes) {
        self.call.insert(Bytes::copy_from_slice(key), Some(value));
    }

    fn delete(&mut self, key: &[u8]) {
        self.call.insert(Bytes::copy_from_slice(key), None);
    }

    fn scan(&mut self, prefix: &[u8], limit: usize) -> Vec<(Bytes, Bytes)> {
        let within = |key: &Bytes| key.starts_with(prefix);
        let from = Bytes::copy_from_slice(prefix);
        let mut changed: Changes = Changes::new();
        for layer in self.staged.iter().chain([&self.call]) {
            let here = layer.range(from.clone()..).take_while(|(key, _)| within(key));
            changed.extend(here.map(|(key, value)| (key.clone(), value.clone())));
        }
        let committed = self.committed.range(from..).take_while(|(key, _)| within(key));
        // At most the changed keys can take a committed pair's place.
        let mut merged: Changes = committed
            .take(limit.saturating_add(changed.len()))
            .map(|(key, value)| (key.clone(), Some(value.clone())))
            .collect();
        merged.append(&mut changed);
        merged.into_iter().filter_map(|(key, value)| Some((key, value?))).take(limit).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn a_call_sees_what_was_staged_before_it_and_an_undone_call_leaves_nothing() {
        let mut state = MemoryState::new();
        state.put(b"a", value("1"));
        assert_eq!(state.stage(), [Change { key: value("a"), value: Some(value("1")) }]);
        assert_eq!(state.get(b"a"), Some(value("1")));
        assert_eq!(state.look_up(Some(b"a"), 1), [], "staged is not committed");
        state.delete(b"a");
        state.put(b"b", value("2"));
        state.undo();
        assert_eq!(state.get(b"b"), None);
        state.delete(b"a");
        state.stage();
        assert_eq!(state.get(b"a"), None);
        state.commit();
        assert_eq!(state.look_up(None, 9), [(value("a"), value("1"))]);
        state.commit();
        assert_eq!(state.look_up(None, 9), []);
        state.put(b"c", value("3"));
        state.stage();
        state.discard();
        assert_eq!(state.get(b"c"), None);
    }

    #[test]
    fn a_scan_merges_its_layers_in_order() {
        let mut state = MemoryState::new();
        for key in ["k1", "k2", "k3", "k4", "l"] {
            state.put(key.as_bytes(), value("old"));
        }
        state.stage();
        state.commit_all();
        state.delete(b"k1");
        state.put(b"k2", value("new"));
        state.stage();
        state.put(b"k15", value("new"));
        let keys = |pairs: Vec<(Bytes, Bytes)>| {
            pairs.iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(keys(state.scan(b"k", 3)), ["k15", "k2", "k3"]);
        assert_eq!(keys(state.scan(b"", 9)), ["k15", "k2", "k3", "k4", "l"]);
        assert_eq!(state.scan(b"k2", 1), [(value("k2"), value("new"))]);
    }
}
