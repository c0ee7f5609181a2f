//! Simulated links: in order while they stand, with latency; a lost link loses what is under way.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_protocol::time::{Span, Time};

use crate::chance::Chance;

/// A pair of nodes by index, the smaller first.
pub type Pair = (usize, usize);

#[derive(Debug, Default)]
pub struct Network {
    /// The life number of each link that stands: messages of earlier lives are lost.
    up: BTreeMap<Pair, u64>,
    lives: u64,
    /// Pairs that cannot connect now.
    cut: BTreeSet<Pair>,
    /// When the last message of each direction arrives: later ones arrive later.
    last: BTreeMap<(usize, usize), Time>,
}

pub fn pair(a: usize, b: usize) -> Pair {
    (a.min(b), a.max(b))
}

impl Network {
    pub fn life(&self, a: usize, b: usize) -> Option<u64> {
        self.up.get(&pair(a, b)).copied()
    }

    /// A new link, unless it stands or is cut. True when it was made.
    pub fn connect(&mut self, a: usize, b: usize) -> bool {
        let at = pair(a, b);
        if a == b || self.cut.contains(&at) || self.up.contains_key(&at) {
            return false;
        }
        self.lives += 1;
        self.up.insert(at, self.lives);
        self.last.remove(&(a, b));
        self.last.remove(&(b, a));
        true
    }

    pub fn drop_link(&mut self, a: usize, b: usize) -> bool {
        self.up.remove(&pair(a, b)).is_some()
    }

    pub fn cut(&mut self, a: usize, b: usize) {
        self.cut.insert(pair(a, b));
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }

    pub fn links_of(&self, node: usize) -> Vec<usize> {
        let other = |at: &Pair| match *at {
            (a, b) if a == node => Some(b),
            (a, b) if b == node => Some(a),
            _ => None,
        };
        self.up.keys().filter_map(other).collect()
    }

    pub fn links(&self) -> Vec<Pair> {
        self.up.keys().copied().collect()
    }

    /// When a message sent now arrives, behind all sent before it.
    pub fn arrival(
        &mut self,
        from: usize,
        to: usize,
        now: Time,
        slowest_ms: u64,
        chance: &mut Chance,
    ) -> Time {
        let delay = if chance.one_in(20) {
            chance.between(1, slowest_ms * 10)
        } else {
            chance.between(0, slowest_ms)
        };
        let last = self.last.entry((from, to)).or_default();
        *last = now.after(Span(delay)).max(*last);
        *last
    }
}
