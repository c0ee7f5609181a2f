//! The latest values of a series.

use std::collections::VecDeque;

use dunlin_protocol::time::Time;
use serde::{Deserialize, Serialize};

use super::season::STEPS_MAX;

/// A season and what lies just before it.
const KEPT: usize = STEPS_MAX + 2;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Past {
    values: VecDeque<f64>,
    last_at: Time,
    seen: u64,
}

impl Past {
    pub fn push(&mut self, at: Time, value: f64) {
        if self.values.len() >= KEPT {
            self.values.pop_back();
        }
        self.values.push_front(value);
        self.last_at = at;
        self.seen += 1;
    }

    /// The value so many steps ago; 0 is the last one.
    pub fn back(&self, steps: usize) -> Option<f64> {
        self.values.get(steps).copied()
    }

    pub fn last_at(&self) -> Option<Time> {
        (self.seen > 0).then_some(self.last_at)
    }

    /// All values that ever came.
    pub fn seen(&self) -> u64 {
        self.seen
    }
}
