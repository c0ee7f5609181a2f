//! Simulated links: they stand or not, are slow, silent in one direction, or clogged. A lost link
//! loses what is under way.

use std::collections::BTreeMap;

use dunlin_protocol::time::Time;

use crate::chance::Chance;
use crate::climate::Climate;

/// A pair of nodes by index, the smaller first.
pub type Pair = (usize, usize);

#[derive(Debug, Default)]
pub struct Network {
    /// The life number of each link that stands: messages of earlier lives are lost.
    up: BTreeMap<Pair, u64>,
    lives: u64,
    /// Pairs that cannot connect before then.
    cut: BTreeMap<Pair, Time>,
    /// Directions in which everything is lost until then, while the link stands.
    silent: BTreeMap<(usize, usize), Time>,
    /// Directions in which nothing arrives before then.
    clogged: BTreeMap<(usize, usize), Time>,
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
    pub fn connect(&mut self, a: usize, b: usize, now: Time) -> bool {
        let at = pair(a, b);
        let cut = self.cut.get(&at).is_some_and(|until| now < *until);
        if a == b || cut || self.up.contains_key(&at) {
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

    pub fn cut(&mut self, a: usize, b: usize, until: Time) {
        self.cut.insert(pair(a, b), until);
    }

    pub fn silence(&mut self, from: usize, to: usize, until: Time) {
        self.silent.insert((from, to), until);
    }

    pub fn is_silent(&self, from: usize, to: usize, now: Time) -> bool {
        self.silent.get(&(from, to)).is_some_and(|until| now < *until)
    }

    pub fn clog(&mut self, from: usize, to: usize, until: Time) {
        self.clogged.insert((from, to), until);
    }

    /// Cuts and silences end; what is clogged comes when it said.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.silent.clear();
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

    /// When a message sent now arrives: behind all sent before it, unless it overtakes them. None:
    /// never.
    pub fn arrival(
        &mut self,
        from: usize,
        to: usize,
        now: Time,
        climate: &Climate,
        chance: &mut Chance,
    ) -> Option<Time> {
        let at = now.after(climate.latency(chance));
        if self.is_silent(from, to, now) {
            return None;
        }
        let clogged = self.clogged.get(&(from, to)).copied().unwrap_or_default();
        let at = at.max(clogged);
        if chance.one_in(climate.reorder) {
            return Some(at);
        }
        let last = self.last.entry((from, to)).or_default();
        *last = at.max(*last);
        Some(*last)
    }
}
