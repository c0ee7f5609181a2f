//! The trees of one key, with the scores that they gave lately.

use dunlin_protocol::wire::codec;
use serde::{Deserialize, Serialize};

use crate::models::half_space::HalfSpaceTrees;
use crate::models::state::{Kept, Unreadable};
use crate::tail::{Sides, Tail};

#[derive(Debug, Clone, PartialEq)]
pub struct Judge {
    trees: HalfSpaceTrees,
    scores: Tail,
    seen: u64,
}

/// What is said of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// From 0, where most rows lie, to 1, where none does; 0 until rows can be judged.
    pub score: f64,
    /// How likely so large a score is, among those of recent rows; 1 until that can be said.
    pub tail: f64,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    trees: Vec<u8>,
    scores: Tail,
    seen: u64,
}

impl Judge {
    pub fn new(inputs: usize, window: u32, seed: u64) -> Judge {
        Judge { trees: HalfSpaceTrees::new(inputs, window, seed), scores: Tail::default(), seen: 0 }
    }

    /// Rows so far.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Whether it takes the least room to be kept.
    pub fn begins(&self) -> bool {
        self.trees.begins()
    }

    /// Judges the row, then learns it. What is missing is NaN.
    pub fn observe(&mut self, row: &[f64]) -> Verdict {
        let mut verdict = Verdict { score: 0.0, tail: 1.0 };
        if self.trees.judges() {
            verdict.score = self.trees.score(row);
            verdict.tail = self.scores.probability(verdict.score, Sides::Upper);
            self.scores.learn(verdict.score);
        }
        self.trees.learn(row);
        self.seen += 1;
        verdict
    }

    pub fn pack(&self) -> Vec<u8> {
        let (scores, seen) = (self.scores.clone(), self.seen);
        codec::encode(&Stored { trees: self.trees.pack(), scores, seen }).to_vec()
    }

    pub fn unpack(bytes: &[u8]) -> Result<Judge, Unreadable> {
        let Stored { trees, scores, seen } = codec::decode(bytes).map_err(Unreadable::because)?;
        Ok(Judge { trees: HalfSpaceTrees::unpack(&trees)?, scores, seen })
    }
}
