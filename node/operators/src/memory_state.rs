//! An actor's keyed state in memory: what the simulator and tests use in place of the state store.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use dunlin_protocol::log::record::Change;

use crate::operator::State;

type Changes = BTreeMap<Bytes, Option<Bytes>>;

/// Three layers: what is committed, what calls staged behind one another, and what the call in hand
/// does. `State` reads through all three and writes into the last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryState {
    /// Copies, as a store makes them: a value may be a part of something large.
    committed: BTreeMap<Box<[u8]>, Box<[u8]>>,
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
        // All keys in one piece of memory.
        let mut keys = Vec::with_capacity(call.keys().map(Bytes::len).sum());
        call.keys().for_each(|key| keys.extend_from_slice(key));
        let mut keys = Bytes::from(keys);
        let change = |(key, value): (&Bytes, &Option<Bytes>)| Change {
            key: keys.split_to(key.len()),
            value: value.clone(),
        };
        let changes = call.iter().map(change).collect();
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
            let Some(value) = value else {
                self.committed.remove(&*key);
                continue;
            };
            match self.committed.get_mut(&*key) {
                Some(old) if old.len() == value.len() => old.copy_from_slice(&value),
                Some(old) => *old = (*value).into(),
                None => _ = self.committed.insert((*key).into(), (*value).into()),
            }
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

fn pair<T: AsRef<[u8]>>((key, value): (&T, &T)) -> (Bytes, Bytes) {
    (Bytes::copy_from_slice(key.as_ref()), Bytes::copy_from_slice(value.as_ref()))
}

impl State for MemoryState {
    fn get(&mut self, key: &[u8]) -> Option<Bytes> {
        match self.changed(key) {
            Some(value) => value.clone(),
            None => self.committed.get(key).map(|value| Bytes::copy_from_slice(value)),
        }
    }

    fn put(&mut self, key: &[u8], value: Bytes) {
        self.call.insert(Bytes::copy_from_slice(key), Some(value));
    }

    fn delete(&mut self, key: &[u8]) {
        self.call.insert(Bytes::copy_from_slice(key), None);
    }

    fn scan(&mut self, prefix: &[u8], limit: usize) -> Vec<(Bytes, Bytes)> {
        let within = |key: &[u8]| key.starts_with(prefix);
        let from = Bytes::copy_from_slice(prefix);
        let mut changed: Changes = Changes::new();
        for layer in self.staged.iter().chain([&self.call]) {
            let here = layer.range(from.clone()..).take_while(|(key, _)| within(key));
            changed.extend(here.map(|(key, value)| (key.clone(), value.clone())));
        }
        let committed = self.committed.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
        let committed = committed.take_while(|(key, _)| within(key));
        // At most the changed keys can take a committed pair's place.
        let mut merged: Changes = committed
            .take(limit.saturating_add(changed.len()))
            .map(|one| {
                let (key, value) = pair(one);
                (key, Some(value))
            })
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
