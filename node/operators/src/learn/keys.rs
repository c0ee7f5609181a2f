//! The keys of a share that are in memory: each with its path and what waits of it.

use std::collections::HashMap;

use bytes::Bytes;
use dunlin_protocol::time::Time;

use super::pack::Unpack;
use super::record;
use super::series::Series;
use super::store::{self, Unreadable};
use crate::operator::State;

/// Keys kept in memory from one batch to the next. Beyond: all are read again.
const KEYS_MAX: usize = 20_000;
/// Predictions of one key that may wait. Beyond: the prediction goes out, is neither scored nor
/// learned from (the oldest are kept, or nothing would ever settle), and is counted as unscored.
pub const WAITING_MAX: usize = 512;

#[derive(Debug, Default)]
pub struct Keys {
    places: HashMap<Bytes, usize>,
    known: Vec<Known>,
    touched: Vec<usize>,
    last: usize,
}

#[derive(Debug, Default)]
pub struct Known {
    key: Bytes,
    touched: bool,
    pub series: Series,
    pub waiting: Waiting,
}

impl Keys {
    /// The key's path and what waits of it, to be changed.
    pub fn open(&mut self, key: &Bytes, state: &mut dyn State) -> Result<&mut Known, Unreadable> {
        if self.known.get(self.last).is_none_or(|known| known.key != *key) {
            self.last = match self.places.get(key) {
                Some(place) => *place,
                None => {
                    // An event's key is a part of all that came with it.
                    let key = &Bytes::copy_from_slice(key);
                    let known = Known::read(key, state)?;
                    self.places.insert(key.clone(), self.known.len());
                    self.known.push(known);
                    self.known.len() - 1
                }
            };
        }
        #[expect(clippy::indexing_slicing, reason = "`last` was just found or pushed")]
        let known = &mut self.known[self.last];
        if !known.touched {
            known.touched = true;
            self.touched.push(self.last);
        }
        Ok(known)
    }

    pub fn flush(&mut self, state: &mut dyn State) {
        for place in core::mem::take(&mut self.touched) {
            if let Some(known) = self.known.get_mut(place) {
                known.touched = false;
                known.write(state);
            }
        }
        if self.known.len() > KEYS_MAX {
            *self = Keys::default();
        }
    }
}

impl Known {
    fn read(key: &Bytes, state: &mut dyn State) -> Result<Known, Unreadable> {
        let series = match state.get(&store::path_key(key)) {
            Some(bytes) => record::read(&bytes)?,
            None => Series::default(),
        };
        let waiting = match state.get(&store::index_key(key)) {
            Some(bytes) => {
                Waiting::unpack(store::body(&bytes)?).ok_or_else(|| Unreadable::cut("an index"))?
            }
            None => Waiting::default(),
        };
        Ok(Known { key: key.clone(), touched: false, series, waiting })
    }

    fn write(&mut self, state: &mut dyn State) {
        state.put(&store::path_key(&self.key), record::write(&self.series));
        if !self.waiting.changed {
            return;
        }
        self.waiting.changed = false;
        let name = store::index_key(&self.key);
        if self.waiting.list.is_empty() {
            state.delete(&name);
        } else {
            store::put(state, &name, 8 + 16 * self.waiting.list.len(), |out| self.waiting.pack(out));
        }
    }

    /// The waiting prediction that is due first, if `now` has reached it.
    pub fn take_due(&mut self, now: Time) -> Option<u64> {
        let id = self.waiting.take_due(now)?;
        self.series.waiting = self.series.waiting.saturating_sub(1);
        Some(id)
    }

    /// A place for a prediction that is due then; `None` when the key is full.
    pub fn wait(&mut self, due: Time) -> Option<u64> {
        let id = self.waiting.wait(due)?;
        self.series.waiting += 1;
        Some(id)
    }
}

/// (due, number) of a key's waiting predictions, ascending.
#[derive(Debug, Default)]
pub struct Waiting {
    list: Vec<(u64, u64)>,
    next_id: u64,
    changed: bool,
}

impl Waiting {
    fn take_due(&mut self, now: Time) -> Option<u64> {
        let (_, id) = *self.list.first().filter(|(due, _)| *due <= now.0)?;
        self.list.remove(0);
        self.changed = true;
        Some(id)
    }

    fn wait(&mut self, due: Time) -> Option<u64> {
        if self.list.len() >= WAITING_MAX {
            return None;
        }
        // An empty list is not stored, so its numbers begin anew.
        let id = if self.list.is_empty() { 0 } else { self.next_id };
        self.next_id = id + 1;
        let at = self.list.partition_point(|other| *other <= (due.0, id));
        self.list.insert(at, (due.0, id));
        self.changed = true;
        Some(id)
    }

    fn pack(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.next_id.to_le_bytes());
        for (due, id) in &self.list {
            out.extend_from_slice(&due.to_le_bytes());
            out.extend_from_slice(&id.to_le_bytes());
        }
    }

    fn unpack(bytes: &[u8]) -> Option<Waiting> {
        let mut from = Unpack(bytes);
        let mut waiting = Waiting { next_id: from.word()?, ..Waiting::default() };
        while !from.0.is_empty() {
            waiting.list.push((from.word()?, from.word()?));
        }
        Some(waiting)
    }
}
