//! A key's own path: what it was, when it moved, and which of its predictions wait.

use dunlin_protocol::time::Time;
use serde::{Deserialize, Serialize};

/// Predictions of one key that may wait. Beyond: the prediction goes out and is neither scored nor
/// learned from (the oldest are kept, or nothing would ever settle).
pub const WAITING_MAX: usize = 512;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Series {
    pub n: u64,
    pub first_at: Time,
    pub last_at: Time,
    pub value: Option<f64>,
    pub changed_at: Time,
    /// The last value that differed from `value`, and the one before it.
    pub previous: Option<f64>,
    pub earlier: Option<f64>,
    pub max: f64,
    pub min: f64,
    pub mean: f64,
    pub changes: u64,
    /// (due, id) of waiting predictions, ascending.
    pub waiting: Vec<(u64, u64)>,
    pub next_id: u64,
}

impl Series {
    /// An observation older than the newest one adds nothing to the path.
    pub fn observe(&mut self, at: Time, value: f64) {
        if self.n == 0 {
            (self.first_at, self.changed_at) = (at, at);
            (self.max, self.min, self.mean) = (value, value, value);
        } else if at < self.last_at {
            return;
        }
        self.n += 1;
        self.last_at = at;
        self.max = self.max.max(value);
        self.min = self.min.min(value);
        self.mean += (value - self.mean) / self.n.min(1000) as f64;
        if let Some(before) = self.value
            && before != value
        {
            self.earlier = self.previous;
            self.previous = Some(before);
            self.changed_at = at;
            self.changes += 1;
        }
        self.value = Some(value);
    }

    /// The waiting prediction that is due first, if `now` has reached it.
    pub fn take_due(&mut self, now: Time) -> Option<u64> {
        match self.waiting.first() {
            Some((due, id)) if *due <= now.0 => {
                let id = *id;
                self.waiting.remove(0);
                Some(id)
            }
            _ => None,
        }
    }

    /// A place for a prediction that is due then; `None` when the key is full.
    pub fn wait(&mut self, due: Time) -> Option<u64> {
        if self.waiting.len() >= WAITING_MAX {
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        let at = self.waiting.partition_point(|other| *other <= (due.0, id));
        self.waiting.insert(at, (due.0, id));
        Some(id)
    }
}
