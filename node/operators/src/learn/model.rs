//! The model of a share: every expert, their combination, and what one outcome teaches them.
//!
//! Experts speak in changes from an anchor, in units: for a later value the anchor is the key's
//! last value (and the unit that value, while all values are positive); for a label of the same row
//! it is the labels' mean. Cells live beside the model, each in its own entry of state.

use std::collections::BTreeMap;

use dunlin_protocol::time::Time;
use serde::{Deserialize, Serialize};

use super::cells::Cell;
use super::classes::{self, Means};
use super::hedge::{Hedge, weighted_median};
use super::interval::Residuals;
use super::median::MedianLine;
use super::rls::{Line, logit, sigmoid};
use super::row::Row;
use super::scores::Scores;
use super::settings::{self, EXPERTS, Settings};

/// Numbers that the lines take at most, the constant included. Later names are left out.
const INPUTS_MAX: usize = 32;
/// Encoded tokens that the lines take at most.
const ENCODED_MAX: usize = 10;
/// Changes beyond so many units teach no more than that.
const CHANGE_MAX: f64 = 20.0;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Model {
    names: BTreeMap<String, Moments>,
    target: Moments,
    all_positive: bool,
    /// Running mean of |change|: the step of the classes where no rise is asked for.
    moves: Moments,
    rises: Moments,
    rls: Line,
    median: MedianLine,
    logistic: Line,
    means: Means,
    hedge: Hedge,
    residuals: Residuals,
    pub scores: Scores,
    /// Predictions of same-row labels that wait, the next one's number, and the first due time.
    pub waiting: u64,
    pub next_id: u64,
    pub first_due: Time,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Moments {
    /// Position among the lines' inputs.
    slot: u16,
    n: f64,
    mean: f64,
    square: f64,
}

impl Moments {
    fn learn(&mut self, value: f64) {
        self.n = (self.n + 1.0).min(5000.0);
        let before = value - self.mean;
        self.mean += before / self.n;
        self.square += (before * (value - self.mean) - self.square) / self.n;
    }

    fn deviation(&self) -> f64 {
        self.square.max(0.0).sqrt()
    }

    fn standard(&self, value: f64) -> f32 {
        let deviation = self.deviation();
        if deviation > 1e-9 * self.mean.abs().max(1e-290) {
            ((value - self.mean) / deviation).clamp(-5.0, 5.0) as f32
        } else {
            0.0
        }
    }
}

/// A prediction with all that its settling needs, as it waits in state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    pub at: Time,
    pub due: Time,
    pub key: Vec<u8>,
    pub last_value: f64,
    pub value: f64,
    pub low: f64,
    pub high: f64,
    pub probability: Option<f64>,
    pub weights: [f64; EXPERTS.len()],
    /// The label of the same row, not looked at before it is due.
    pub truth: Option<f64>,
    experts: [f64; EXPERTS.len()],
    anchor: f64,
    unit: f64,
    step: f64,
    x: Vec<f32>,
    chances: Vec<f32>,
    pub tokens: Vec<u16>,
}

/// What is known before the row is made.
#[derive(Debug, Clone, Copy)]
pub struct Ground {
    pub last_value: f64,
    pub anchor: f64,
    pub unit: f64,
}

impl Model {
    pub fn new(settings: &Settings) -> Model {
        Model {
            names: BTreeMap::new(),
            target: Moments::default(),
            all_positive: true,
            moves: Moments::default(),
            rises: Moments::default(),
            rls: Line::new(0.9998),
            median: MedianLine::default(),
            logistic: Line::new(0.9998),
            means: Means::new(),
            hedge: Hedge::new(),
            residuals: Residuals::new(settings.coverage),
            scores: Scores::default(),
            waiting: 0,
            next_id: 0,
            first_due: Time::MAX,
        }
    }

    /// A value of the target, or a label that is now known.
    pub fn observe(&mut self, value: f64) {
        self.target.learn(value);
        self.all_positive &= value > 0.0;
    }

    pub fn ground(&self, last: Option<f64>, later: bool) -> Ground {
        let last_value = last.unwrap_or(self.target.mean);
        let anchor = if later { last_value } else { self.target.mean };
        let unit = if later && self.all_positive { last_value.abs() } else { self.target.deviation() };
        let tiny = 1e-6 * (self.target.mean.abs() + last_value.abs());
        let unit = unit.max(tiny);
        Ground { last_value, anchor, unit: if unit > 0.0 { unit } else { 1.0 } }
    }

    fn base(&self) -> f64 {
        (self.rises.mean * self.rises.n + 1.0) / (self.rises.n + 2.0)
    }

    fn inputs(&mut self, row: &Row, cells: &BTreeMap<u16, Cell>) -> Vec<f32> {
        let mut x = vec![0.0; self.names.len() + 1];
        if let Some(constant) = x.first_mut() {
            *constant = 1.0;
        }
        let encoded = row
            .encoded
            .iter()
            .take(ENCODED_MAX)
            .map(|(name, cell)| (name, cells.get(cell).map_or(0.0, Cell::mean)));
        for (name, value) in encoded.chain(row.numbers.iter().map(|(name, value)| (name, *value))) {
            if !value.is_finite() {
                continue;
            }
            let known = self.names.len();
            if !self.names.contains_key(name.as_str()) {
                if known + 1 >= INPUTS_MAX {
                    continue;
                }
                self.names.insert(name.clone(), Moments { slot: known as u16 + 1, ..Moments::default() });
            }
            let Some(moments) = self.names.get_mut(name.as_str()) else { continue };
            moments.learn(value);
            let standard = moments.standard(value);
            let slot = usize::from(moments.slot);
            if slot >= x.len() {
                x.resize(slot + 1, 0.0);
            }
            if let Some(input) = x.get_mut(slot) {
                *input = standard;
            }
        }
        x
    }

    pub fn predict(
        &mut self,
        settings: &Settings,
        ground: Ground,
        row: Row,
        cells: &BTreeMap<u16, Cell>,
    ) -> Prediction {
        let x = self.inputs(&row, cells);
        let step = settings.rises_by().filter(|by| *by > 0.0).unwrap_or(self.moves.mean.max(1e-6));
        let classes = classes::probabilities(row.tokens.iter().filter_map(|token| cells.get(token)));
        let Ground { last_value, anchor, unit } = ground;
        let value_of = |change: f64| anchor + unit * change.clamp(-CHANGE_MAX, CHANGE_MAX);
        let experts = [
            last_value,
            value_of(self.rls.predict(&x)),
            value_of(self.median.predict(&x)),
            value_of(self.means.median(&classes)),
        ];
        let weights = self.hedge.weights(&settings.active);
        let value = weighted_median(&experts, &weights);
        let width = self.residuals.width() * unit;
        let (mut probability, mut chances) = (None, Vec::new());
        if settings.rises_by().is_some() {
            let base = self.base();
            let above = |p: f64| (logit(p) - logit(base)).clamp(-4.0, 4.0) as f32;
            let classes_say = above(classes::above(&classes));
            chances.push(classes_say);
            let encoded = row
                .encoded
                .iter()
                .take(ENCODED_MAX)
                .map(|(_, cell)| above(cells.get(cell).map_or(base, |cell| cell.rises(base))));
            chances.extend(encoded);
            chances.resize(ENCODED_MAX + 1, 0.0);
            chances.extend_from_slice(&x);
            // Half of the classes' own word, half of the line that corrects it, around the base rate.
            let line = self.logistic.predict(&chances).clamp(-4.0, 4.0);
            probability = Some(sigmoid(logit(base) + 0.5 * f64::from(classes_say) + 0.5 * line));
        }
        Prediction {
            at: Time(0),
            due: Time(0),
            key: Vec::new(),
            last_value,
            value,
            low: value - width,
            high: value + width,
            probability,
            weights,
            truth: None,
            experts,
            anchor,
            unit,
            step,
            x,
            chances,
            tokens: row.tokens,
        }
    }

    /// Whether the truth lies above the last value by more than was asked for.
    pub fn happened(settings: &Settings, prediction: &Prediction, truth: f64) -> Option<bool> {
        let by = settings.rises_by()?;
        Some(truth - prediction.last_value > by * prediction.last_value.abs())
    }

    /// Scores the prediction as it was made, then learns. `cells`: those of its tokens, in order.
    pub fn settle(&mut self, settings: &Settings, prediction: &Prediction, truth: f64, cells: &mut [Cell]) {
        let happened = Model::happened(settings, prediction, truth);
        let error = (truth - prediction.value).abs();
        self.scores.add(error, (truth - prediction.last_value).abs(), prediction.probability.zip(happened));
        let Prediction { unit, step, .. } = *prediction;
        self.residuals.learn(error / unit, (prediction.low..=prediction.high).contains(&truth));
        let errors: [f64; EXPERTS.len()] = std::array::from_fn(|i| {
            prediction.experts.get(i).map_or(f64::NAN, |expert| (truth - expert).abs() / unit)
        });
        self.hedge.learn(&errors);

        let change = ((truth - prediction.anchor) / unit).clamp(-CHANGE_MAX, CHANGE_MAX);
        if settings.active.get(settings::RLS) == Some(&true) {
            self.rls.fit(&prediction.x, change);
        }
        if settings.active.get(settings::MEDIAN) == Some(&true) {
            self.median.fit(&prediction.x, change);
        }
        if let Some(happened) = happened {
            let base = self.base();
            self.logistic.fit_offset(&prediction.chances, logit(base), happened);
            self.rises.learn(f64::from(u8::from(happened)));
        }
        if settings.active.get(settings::CLASSES) == Some(&true) || happened.is_some() {
            let probabilities = classes::probabilities(cells.iter());
            let slope = classes::gradient(&probabilities, classes::class_of(change, step));
            for cell in cells.iter_mut() {
                classes::step(cell, &slope);
            }
            self.means.learn(change, step);
        }
        for cell in cells.iter_mut() {
            cell.learn(change, happened.unwrap_or(change > 0.0));
        }
        self.moves.learn(change.abs());
    }
}
