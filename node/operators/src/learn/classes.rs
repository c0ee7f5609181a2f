//! Classes of change: what moves rarely "stays", a class of its own; the others lie on both sides.
//!
//! A softmax over the classes, linear in the present tokens' cells, learned with AdaGrad. Its median
//! class, read out as that class's own mean change (at this value, and for its category), is an expert; the classes above the bound that
//! was asked for sum to a probability.

use serde::{Deserialize, Serialize};

use super::cells::Cell;

pub const CLASSES: usize = 13;
const STAYS: usize = CLASSES / 2;
/// Upper edges of the classes above "stays", in units of the step; the last class is open.
const EDGES: [f64; STAYS] = [0.02, 0.5, 1.0, 2.0, 4.0, 8.0];
const RATE: f32 = 0.1;
/// What the root of a cell's squares begins with: the larger, the slower the first steps.
const CAUTION: f32 = 1.0;
/// Weight decay per touch, against tokens that were seen once.
const EASE: f32 = 1e-4;
/// How sure one direction must be before "stays" is left. The outcomes of neighbouring predictions
/// overlap, so the probabilities sound surer than they are.
const DECISIVE: f64 = 0.75;
/// How much of what the decisive words gained is kept from one outcome to the next.
const LATELY: f64 = 0.999;

/// What is common to all cells: the mean change in each class, and whether to leave "stays" pays.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reader {
    n: [f64; CLASSES],
    mean: [f64; CLASSES],
    /// What decisive words would have gained over "stays" lately, in typical changes. Only while
    /// it is above zero are they followed: the classes begin, and fall back, as "it stays".
    gained: f64,
    typical: f64,
    seen: f64,
}

/// What the classes say of one row.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Word {
    /// The probability of the likelier direction.
    pub sure: f64,
    /// The change at which half of the probability is reached.
    pub lean: f64,
}

impl Reader {
    pub fn new() -> Reader {
        Reader { n: [0.0; CLASSES], mean: [0.0; CLASSES], gained: 0.0, typical: 0.0, seen: 0.0 }
    }

    /// `word`: what was said when the prediction was made.
    pub fn learn(&mut self, word: Word, change: f64, step: f64) {
        let class = class_of(change, step);
        if let (Some(n), Some(mean)) = (self.n.get_mut(class), self.mean.get_mut(class)) {
            *n = (*n + 1.0).min(500.0);
            *mean += (change.clamp(-16.0 * step, 16.0 * step) - *mean) / *n;
        }
        self.seen = (self.seen + 1.0).min(2000.0);
        self.typical += (change.abs() - self.typical) / self.seen;
        self.gained *= LATELY;
        if self.typical > 0.0 && word.sure >= DECISIVE {
            let gain = (change.abs() - (change - word.lean).abs()) / self.typical;
            self.gained += gain.clamp(-20.0, 20.0);
        }
    }

    /// `closer`: of a class, the mean change that is expected here, given that of all.
    pub fn word(&self, probabilities: &[f64; CLASSES], closer: impl Fn(usize, f64) -> f64) -> Word {
        let up: f64 = probabilities.iter().skip(STAYS + 1).sum();
        let down: f64 = probabilities.iter().take(STAYS).sum();
        let mut sum = 0.0;
        let mut lean = 0.0;
        for (class, (p, mean)) in probabilities.iter().zip(&self.mean).enumerate() {
            sum += p;
            if sum >= 0.5 {
                lean = if class == STAYS { 0.0 } else { closer(class, *mean) };
                break;
            }
        }
        Word { sure: up.max(down), lean }
    }

    /// The change that the word stands for: none while it is not decisive or that did not pay.
    pub fn change(&self, word: Word) -> f64 {
        if word.sure >= DECISIVE && self.gained > 0.0 { word.lean } else { 0.0 }
    }
}

/// Which class a change belongs to; `step` is the unit of the edges.
pub fn class_of(change: f64, step: f64) -> usize {
    let size = change.abs() / step;
    // A change of exactly the step is not beyond it.
    let away = EDGES.iter().take_while(|edge| size > **edge).count();
    if change < 0.0 { STAYS - away } else { STAYS + away }
}

/// The probability of each class, given the present tokens' cells.
pub fn probabilities<'a>(cells: impl Iterator<Item = &'a Cell>) -> [f64; CLASSES] {
    let mut scores = [0.0f32; CLASSES];
    for cell in cells {
        for (score, weight) in scores.iter_mut().zip(&cell.weights) {
            *score += *weight;
        }
    }
    softmax(scores.map(f64::from))
}

fn softmax(mut scores: [f64; CLASSES]) -> [f64; CLASSES] {
    let top = scores.iter().copied().fold(f64::MIN, f64::max);
    scores.iter_mut().for_each(|score| *score = (*score - top).exp());
    let sum: f64 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
    scores
}

/// The derivative of the log loss by each class's score.
pub fn gradient(probabilities: &[f64; CLASSES], truth: usize) -> [f64; CLASSES] {
    let mut slope = *probabilities;
    if let Some(hit) = slope.get_mut(truth) {
        *hit -= 1.0;
    }
    slope
}

/// One AdaGrad step of one present cell.
pub fn step(cell: &mut Cell, slope: &[f32; CLASSES]) {
    for ((weight, square), slope) in cell.weights.iter_mut().zip(&mut cell.squares).zip(slope) {
        let pull = *slope + EASE * *weight;
        *square += pull * pull;
        *weight -= RATE * pull / (square.sqrt() + CAUTION);
    }
}

/// The probability of a change by more than the step.
pub fn above(probabilities: &[f64; CLASSES]) -> f64 {
    // Edge 1.0 is the third: stays, up to half a step, up to the step, then beyond it.
    probabilities.iter().skip(STAYS + 3).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_lie_around_stays() {
        assert_eq!(class_of(0.0, 0.05), STAYS);
        assert_eq!(class_of(0.05, 0.05), STAYS + 2);
        assert_eq!(class_of(0.051, 0.05), STAYS + 3);
        assert_eq!(class_of(-1e9, 0.05), 0);
        assert_eq!(class_of(1e9, 0.05), CLASSES - 1);
    }

    #[test]
    fn stays_is_left_only_while_that_pays() {
        let (mut reader, word) = (Reader::new(), Word { sure: 0.9, lean: 0.2 });
        assert_eq!(reader.change(word), 0.0);
        reader.learn(word, 0.3, 0.05);
        assert_eq!(reader.change(word), 0.2);
        assert_eq!(reader.change(Word { sure: 0.7, ..word }), 0.0);
        (0..3).for_each(|_| reader.learn(word, -0.1, 0.05));
        assert_eq!(reader.change(word), 0.0);
    }

    #[test]
    fn the_gradient_is_the_numeric_one() {
        let scores: [f64; CLASSES] = std::array::from_fn(|i| (i as f64 * 0.7).sin());
        let slope = gradient(&softmax(scores), 4);
        for i in 0..CLASSES {
            let loss = |by: f64| {
                let mut scores = scores;
                scores[i] += by;
                -softmax(scores)[4].ln()
            };
            assert!(((loss(1e-6) - loss(-1e-6)) / 2e-6 - slope[i]).abs() < 1e-6);
        }
    }
}
