//! Steps down a gradient, each number's by the running mean of its squares (RMSProp: Tieleman and
//! Hinton 2012), with that mean's first rows made up for as in Adam (Kingma and Ba 2015).

use serde::{Deserialize, Serialize};

/// What a square counts one step later.
const DECAY: f64 = 0.999;
/// Of a step so much is left after as many steps.
const EASES_AFTER: f64 = 2000.0;
/// Gradients below this are as good as none.
const TINY: f64 = 1e-8;
/// Gradients are clipped at so many times the root of that mean.
const CLIP: f64 = 5.0;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Steps {
    rate: f64,
    squares: Vec<f64>,
    taken: f64,
}

impl Steps {
    pub fn new(rate: f64, numbers: usize) -> Steps {
        Steps { rate, squares: vec![0.0; numbers], taken: 0.0 }
    }

    /// Moves `numbers` against their `gradient`. False: one of them has left all bounds.
    pub fn take<'a>(
        &mut self,
        numbers: impl Iterator<Item = &'a mut f64>,
        gradient: impl Iterator<Item = f64>,
    ) -> bool {
        self.taken += 1.0;
        let made_up = 1.0 / (1.0 - DECAY.powf(self.taken));
        // Never below a tenth, so that it can still follow.
        let rate = self.rate * (EASES_AFTER / (EASES_AFTER + self.taken)).max(0.1);
        let mut sound = true;
        for ((number, gradient), square) in numbers.zip(gradient).zip(&mut self.squares) {
            let known = (*square * made_up).sqrt();
            let bound = if known > TINY && self.taken > 20.0 { CLIP * known } else { f64::INFINITY };
            let gradient = gradient.clamp(-bound, bound);
            *square = DECAY * *square + (1.0 - DECAY) * gradient * gradient;
            *number -= rate * gradient / ((*square * made_up).sqrt() + TINY);
            sound &= number.abs() < 100.0;
        }
        sound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_down_to_the_lowest_place_whatever_the_units() {
        for by in [1e-3, 1.0, 1e4] {
            let (mut steps, mut place) = (Steps::new(0.05, 2), [3.0, -2.0]);
            for _ in 0..3000 {
                let gradient = [by * 2.0 * (place[0] - 1.0), by * 8.0 * (place[1] - 0.5)];
                assert!(steps.take(place.iter_mut(), gradient.into_iter()));
            }
            assert!((place[0] - 1.0).abs() < 0.1 && (place[1] - 0.5).abs() < 0.1, "{place:?} at {by}");
        }
    }
}
