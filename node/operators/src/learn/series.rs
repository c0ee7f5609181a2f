//! A key's own path: what it was and when it moved.

use dunlin_protocol::time::Time;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    /// Observations; with none, all below but `waiting` says nothing.
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
    /// Predictions that wait for their outcome.
    pub waiting: u64,
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
}
