//! The shapes in which a network falls apart.

use crate::chance::Chance;
use crate::network::{Pair, pair};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Each node falls on one of two sides.
    Halves,
    /// One node against all others.
    Alone,
    /// Each node reaches its two neighbours only.
    Ring,
    /// Two sides that meet in one node.
    Bridge,
    /// One pair.
    Pair,
}

pub const SHAPES: [Shape; 5] = [Shape::Halves, Shape::Alone, Shape::Ring, Shape::Bridge, Shape::Pair];

impl Shape {
    /// The pairs that cannot reach each other.
    pub fn pairs(self, nodes: usize, chance: &mut Chance) -> Vec<Pair> {
        let pick = |chance: &mut Chance| chance.between(0, nodes as u64 - 1) as usize;
        let (one, other) = (pick(chance), pick(chance));
        let sides: Vec<bool> = (0..nodes).map(|_| chance.one_in(2)).collect();
        let apart = |a: usize, b: usize| match self {
            Shape::Halves => sides[a] != sides[b],
            Shape::Alone => a == one || b == one,
            Shape::Ring => b - a != 1 && b - a != nodes - 1,
            Shape::Bridge => sides[a] != sides[b] && a != one && b != one,
            Shape::Pair => (a, b) == pair(one, other),
        };
        let all = (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b)));
        all.filter(|(a, b)| apart(*a, *b)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_cut_what_they_say() {
        let mut chance = Chance::new(1);
        assert_eq!(Shape::Ring.pairs(4, &mut chance), [(0, 2), (1, 3)]);
        assert_eq!(Shape::Ring.pairs(3, &mut chance), []);
        assert_eq!(Shape::Alone.pairs(4, &mut chance).len(), 3);
        assert!(Shape::Pair.pairs(5, &mut chance).len() <= 1);
        for shape in SHAPES {
            assert_eq!(shape.pairs(1, &mut chance), []);
        }
    }
}
