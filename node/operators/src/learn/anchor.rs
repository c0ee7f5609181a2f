//! What a label of the same row is measured from: the row's own number that lies nearest to it.
//!
//! Many labels are a number of their row and then some: what left an hour late lands about an hour
//! late, what was quoted is about what is paid. Measured from that number, only the rest has to be
//! learned. Which number it is, or none, is seen from the labels: the one from which they stray least,
//! once its own usual distance is taken off.

use serde::{Deserialize, Serialize};

use super::cells::{named, text};
use super::moments::Moments;

/// Numbers of a row that are looked at.
pub const OWN_MAX: usize = 8;
/// Numbers for which lines may have another slope above their mean.
const BENT: usize = 4;
/// Deviations that a number goes from its mean at most.
const REACH: f64 = 5.0;
/// Labels until a choice is made.
const ENOUGH: f64 = 10.0;
/// A number is measured from when labels stray from it at most so much of what they stray at all.
const NEAR: f64 = 0.8;
/// Another one takes its place when labels stray from that at most so much of what they do now.
const NEARER: f64 = 0.9;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Anchors {
    /// Labels as they are.
    plain: Apart,
    fields: Vec<Field>,
    chosen: Option<usize>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Field {
    name: u64,
    value: Moments,
    label: Apart,
}

/// How far labels lie from something.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Apart {
    distance: Moments,
    /// Size of what is left when the mean distance is taken off.
    strays: Moments,
}

impl Apart {
    fn learn(&mut self, distance: f64) {
        if self.distance.n > 0.0 {
            self.strays.learn((distance - self.distance.mean).abs());
        }
        self.distance.learn(distance);
    }
}

/// What a change is counted from, and in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measure {
    pub anchor: f64,
    pub unit: f64,
}

impl Anchors {
    /// The row's own numbers by place; missing ones are NaN.
    pub fn own(&mut self, numbers: &[(u64, f64)]) -> Vec<f64> {
        let mut own = vec![f64::NAN; self.fields.len()];
        for (name, value) in numbers {
            let place = match self.fields.iter().position(|field| field.name == *name) {
                Some(place) => place,
                None if self.fields.len() >= OWN_MAX => continue,
                None => {
                    let (value, label) = (Moments::default(), Apart::default());
                    self.fields.push(Field { name: *name, value, label });
                    own.push(f64::NAN);
                    self.fields.len() - 1
                }
            };
            if let Some((own, field)) = own.get_mut(place).zip(self.fields.get_mut(place)) {
                *own = *value;
                field.value.learn(*value);
            }
        }
        own
    }

    /// A row's own numbers, by name and in deviations.
    pub fn standard<'a>(&'a self, own: &'a [f64]) -> impl Iterator<Item = (u64, Option<f64>)> + 'a {
        self.fields.iter().zip(own).map(|(field, own)| {
            let deviations = || f64::from(field.value.standard(*own, REACH));
            (field.name, own.is_finite().then(deviations))
        })
    }

    /// How far own numbers lie above their mean: what they tell there may be another thing than below.
    pub fn above<'a>(&'a self, own: &'a [f64]) -> impl Iterator<Item = (u64, f64)> + 'a {
        let above = |(name, z): (u64, Option<f64>)| Some((named(const { text("above") }, name), z?.max(0.0)));
        self.standard(own).take(BENT).filter_map(above)
    }

    /// The number that is measured from, by name; the outer one is none until there was a choice.
    pub fn chosen(&self) -> Option<Option<u64>> {
        let name = self.chosen.and_then(|place| self.fields.get(place)).map(|field| field.name);
        (self.plain.distance.n >= ENOUGH).then_some(name)
    }

    /// For a row with these own numbers.
    pub fn measure(&self, own: &[f64]) -> Measure {
        let Some((place, field)) = self.chosen.and_then(|place| Some((place, self.fields.get(place)?)))
        else {
            let distance = &self.plain.distance;
            return Measure { anchor: distance.mean, unit: distance.deviation() };
        };
        let value = own.get(place).copied().filter(|value| value.is_finite()).unwrap_or(field.value.mean);
        Measure { anchor: value + field.label.distance.mean, unit: field.label.distance.deviation() }
    }

    /// The label of a row with these own numbers. Says whether another number is measured from now.
    pub fn learn(&mut self, own: &[f64], label: f64) -> bool {
        self.plain.learn(label);
        for (field, value) in self.fields.iter_mut().zip(own).filter(|(_, value)| value.is_finite()) {
            field.label.learn(label - value);
        }
        if self.plain.distance.n < ENOUGH {
            return false;
        }
        let before = self.chosen;
        let strays = |place: usize| self.fields.get(place).map(|field| field.label.strays.mean);
        let plain = self.plain.strays.mean;
        let sound = self.chosen.filter(|place| strays(*place).is_some_and(|now| now <= plain));
        let bound = match sound.and_then(strays) {
            Some(now) => NEARER * now,
            None => NEAR * plain,
        };
        let known = |place: &usize| {
            self.fields.get(*place).is_some_and(|field| field.label.distance.n >= 0.5 * self.plain.distance.n)
        };
        let near = (0..self.fields.len())
            .filter(known)
            .filter_map(|place| Some((strays(place)?, place)))
            .filter(|(strays, _)| *strays < bound)
            .min_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        self.chosen = near.map(|(_, place)| place).or(sound);
        self.chosen != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(i: u64) -> f64 {
        (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / (1u64 << 24) as f64 - 0.5
    }

    #[track_caller]
    fn chooses(label: impl Fn(f64, f64, u64) -> f64, expect: Option<u64>) -> Anchors {
        let mut anchors = Anchors::default();
        for i in 0..400 {
            let (a, b) = (100.0 * noise(i), 50.0 + 3.0 * noise(i + 7000));
            let own = anchors.own(&[(1, a), (2, b)]);
            anchors.learn(&own, label(a, b, i));
        }
        assert_eq!(anchors.chosen(), Some(expect));
        anchors
    }

    #[test]
    fn labels_are_measured_from_the_number_they_follow() {
        let anchors = chooses(|a, _, i| a - 7.0 + noise(i + 99), Some(1));
        let Measure { anchor, unit } = anchors.measure(&[20.0, f64::NAN]);
        assert!((anchor - 13.0).abs() < 0.2 && unit < 0.5, "{anchor} {unit}");
        assert!((anchors.measure(&[f64::NAN, 1.0]).anchor + 7.0).abs() < 10.0);
        chooses(|_, b, i| b * 3.0 + noise(i) * 40.0, None);
        chooses(|_, _, _| 5.0, None);
    }

    #[test]
    fn a_number_that_labels_no_longer_follow_is_left() {
        let mut anchors = chooses(|a, _, i| a + noise(i), Some(1));
        let mut changes = 0;
        for i in 0..20_000 {
            let (a, b) = (100.0 * noise(i), 80.0 * noise(i + 7000));
            let own = anchors.own(&[(1, a), (2, b)]);
            changes += u32::from(anchors.learn(&own, b));
        }
        assert_eq!(anchors.chosen(), Some(Some(2)));
        assert!(changes <= 2, "to none, and to the other: {changes}");
    }
}
