//! The model of a share: every expert, their combination, and what one outcome teaches them.
//!
//! Experts speak in changes from an anchor, in units: for a later value the anchor is the key's
//! last value (and the unit that value, while all values are positive); for a label of the same row,
//! see `anchor`. Cells live beside the model, each in its own entry of state.

use bytes::Bytes;
use dunlin_protocol::time::{Span, Time};
use dunlin_protocol::wire::codec;
use serde::{Deserialize, Serialize};

use super::anchor::{Anchors, Measure};
use super::cells::{Cell, Cells, behind};
use super::classes::{self, CLASSES, Reader};
use super::guard::Guard;
use super::hedge::{Hedge, weighted_median};
use super::interval::Residuals;
use super::lately::{GROUPS_MAX, Lately, MOVES, Residual, SHORT, SPANS};
use super::median::MedianLine;
use super::moments::Moments;
use super::prediction::Prediction;
use super::rls::{Line, logit, sigmoid};
use super::row::Row;
use super::scores::Scores;
use super::settings::{self, Settings};
use super::store::Unreadable;
use super::traffic::Traffic;
use super::trees::Trees;
use crate::drift::Drift;

/// Parts that the model is written in.
pub const PARTS: usize = 5;
/// Numbers that the lines take at most, the constant included. Later names are left out.
const INPUTS_MAX: usize = 44;
/// Numbers that the lines on what was left over take at most, the constant included.
const PLAIN_MAX: usize = 28;
/// Variances of coefficients before anything is known: of the lines, and of those on what was left over.
const RIDGE: f64 = 0.5;
const RIDGE_LATELY: f64 = 0.02;
/// Encoded tokens that the lines take at most.
const ENCODED_MAX: usize = 18;
/// Inputs of the logistic line that stand before those of the other lines.
const CHANCES: usize = ENCODED_MAX + 1;
/// Residuals that were settled until the early ones are no longer asked.
const ENOUGH: u64 = 100;
/// Half the interval's width while nothing at all is known, in units.
const UNKNOWN: f64 = 1.0;
/// Inputs are held within so many deviations. A label of the same row may follow an input as far as
/// it goes (what left hours late lands hours late); where a series goes from here does not.
const REACH_LATER: f64 = 5.0;
const REACH_SAME_ROW: f64 = 15.0;
/// Changes beyond so many units teach no more than that.
const CHANGE_MAX: f64 = 20.0;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Model {
    /// The numbers that the lines take, by hashed name, in the order of their inputs.
    names: Vec<Input>,
    target: Moments,
    /// Of labels of the same row.
    anchors: Anchors,
    traffic: Traffic,
    all_positive: bool,
    /// Running mean of |change|: the step of the classes where no rise is asked for.
    moves: Moments,
    rises: Moments,
    rls: Line,
    /// Robust lines: on the row's own numbers; with the long means of what that left over; and with
    /// the short ones of what this left over. And the groups they know, by slot.
    plain: Line,
    usual: Line,
    lately: Line,
    groups: Vec<u64>,
    median: MedianLine,
    logistic: Line,
    reader: Reader,
    hedge: Hedge,
    guard: Guard,
    drift: Drift,
    /// Drifts marked so far.
    pub drifts: u64,
    #[serde(skip)]
    residuals: Residuals,
    /// How far values strayed before any prediction was due.
    #[serde(skip)]
    early: Residuals,
    /// Predictions made.
    made: u64,
    #[serde(skip)]
    pub scores: Scores,
    #[serde(skip)]
    trees: Trees,
    /// Predictions of same-row labels that wait, the next one's number, and the first due time.
    pub waiting: u64,
    pub next_id: u64,
    pub first_due: Time,
}

/// A number that the lines take.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Input {
    name: u64,
    moments: Moments,
    /// The mean of a token's cell: what was left over tells the robust lines better.
    encoded: bool,
}

/// What is known of the row's tokens and groups, in memory.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    pub cells: &'a Cells,
    pub lately: &'a Lately,
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
            names: Vec::new(),
            target: Moments::default(),
            anchors: Anchors::default(),
            traffic: Traffic::default(),
            all_positive: true,
            moves: Moments::default(),
            rises: Moments::default(),
            rls: Line::new(0.9998, RIDGE),
            plain: Line::new(0.9998, RIDGE_LATELY),
            usual: Line::new(0.9999, RIDGE_LATELY),
            lately: Line::new(0.9999, RIDGE_LATELY),
            groups: Vec::new(),
            median: MedianLine::default(),
            logistic: Line::new(0.9998, RIDGE),
            reader: Reader::new(),
            hedge: Hedge::new(),
            guard: Guard::default(),
            drift: Drift::default(),
            drifts: 0,
            residuals: Residuals::new(settings.coverage),
            early: Residuals::new(settings.coverage),
            made: 0,
            scores: Scores::default(),
            trees: Trees::new(settings, INPUTS_MAX),
            waiting: 0,
            next_id: 0,
            first_due: Time::MAX,
        }
    }

    /// As bytes, in parts: in all but the first, an event changes little.
    pub fn pack(&self) -> [Bytes; PARTS] {
        let Model { residuals, early, scores, trees, .. } = self;
        let (own, scores, trees) = (codec::encode(self), codec::encode(scores), codec::encode(trees));
        [own, codec::encode(residuals), codec::encode(early), scores, trees]
    }

    pub fn unpack([rest, residuals, early, scores, trees]: [&[u8]; PARTS]) -> Result<Model, Unreadable> {
        fn read<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
            codec::decode(bytes).map_err(|error| Unreadable(error.to_string()))
        }
        let (mut residuals, mut early): (Residuals, Residuals) = (read(residuals)?, read(early)?);
        residuals.restore();
        early.restore();
        Ok(Model { residuals, early, scores: read(scores)?, trees: read(trees)?, ..read(rest)? })
    }

    /// A value of the target, or a label that is now known.
    pub fn observe(&mut self, value: f64) {
        self.target.learn(value);
        if self.all_positive && value <= 0.0 {
            self.all_positive = false;
            // Its losses were parts of the values.
            self.guard = Guard::default();
            self.drift = Drift::default();
        }
    }

    /// The label that the prediction's row has. What was learned from another anchor is of no use.
    pub fn observe_label(&mut self, prediction: &Prediction, label: f64) {
        self.observe(label);
        if self.anchors.learn(&prediction.own, label) {
            let Model { rls, plain, usual, lately, .. } = self;
            [rls, plain, usual, lately].into_iter().for_each(Line::restart);
            self.median = MedianLine::default();
        }
    }

    /// The number of its row that a label is measured from (see `Anchors::chosen`).
    pub fn measured_from(&self) -> Option<Option<u64>> {
        self.anchors.chosen()
    }

    /// How far a key has moved, in units, in `part` of the time that predictions look ahead. Says
    /// something while no prediction is due yet.
    pub fn stray(&mut self, distance: f64, part: f64) {
        let residual = distance / part.clamp(0.1, 1.0).sqrt();
        if self.residuals.seen() < ENOUGH && residual.is_finite() {
            self.early.remember(residual);
        }
    }

    fn width(&self) -> f64 {
        let settled = self.residuals.width();
        if self.residuals.seen() >= ENOUGH {
            return settled.unwrap_or(UNKNOWN);
        }
        match (settled, self.early.width()) {
            (Some(one), Some(other)) => one.max(other),
            (one, other) => one.or(other).unwrap_or(UNKNOWN),
        }
    }

    /// What a label of the same row is measured from, by the row's own numbers.
    fn measure(&self, own: &[f64]) -> Measure {
        let Measure { anchor, unit } = self.anchors.measure(own);
        let unit = unit.max(1e-6 * self.target.mean.abs());
        Measure { anchor, unit: if unit > 0.0 { unit } else { 1.0 } }
    }

    pub fn ground(&self, last: Option<f64>, later: bool) -> Ground {
        let last_value = last.unwrap_or(self.target.mean);
        let anchor = if later { last_value } else { self.target.mean };
        let unit = if later && self.all_positive { last_value.abs() } else { self.target.deviation() };
        let tiny = 1e-6 * (self.target.mean.abs() + last_value.abs());
        let unit = unit.max(tiny);
        Ground { last_value, anchor, unit: if unit > 0.0 { unit } else { 1.0 } }
    }

    /// What the guard counts in: parts of the value, or the target's own unit, since others grow.
    fn measured_in(&self, settings: &Settings, unit: f64) -> f64 {
        if settings.is_later() && self.all_positive { unit } else { 1.0 }
    }

    fn base(&self) -> f64 {
        (self.rises.mean * self.rises.n + 1.0) / (self.rises.n + 2.0)
    }

    /// Those of the logistic line: room for its own, then those of all lines.
    fn inputs(&mut self, settings: &Settings, row: &Row, more: &[(u64, f64)], cells: &Cells) -> Vec<f32> {
        let reach = if settings.is_later() { REACH_LATER } else { REACH_SAME_ROW };
        let mut inputs = Vec::with_capacity(CHANCES + INPUTS_MAX);
        inputs.resize(CHANCES, 0.0);
        inputs.push(1.0);
        inputs.resize(CHANCES + 1 + self.names.len(), 0.0);
        let encoded =
            row.encoded.iter().take(ENCODED_MAX).map(|(name, cell)| (*name, cells.get(*cell).mean(), true));
        // Rows bring their names in one order, mostly: the next is behind the last.
        let mut next = 0;
        let numbers = row.numbers.iter().chain(more).map(|(name, value)| (*name, *value, false));
        for (name, value, encoded) in encoded.chain(numbers) {
            if !value.is_finite() {
                continue;
            }
            let known = self.names.get(next).is_some_and(|other| other.name == name);
            let place =
                if known { Some(next) } else { self.names.iter().position(|other| other.name == name) };
            let place = match place {
                Some(place) => place,
                None if self.names.len() + 1 >= INPUTS_MAX => continue,
                None => {
                    self.names.push(Input { name, moments: Moments::default(), encoded });
                    inputs.push(0.0);
                    self.names.len() - 1
                }
            };
            next = place + 1;
            let Some(Input { moments, .. }) = self.names.get_mut(place) else { continue };
            moments.learn(value);
            if let Some(input) = inputs.get_mut(CHANCES + 1 + place) {
                *input = moments.standard(value, reach);
            }
        }
        inputs
    }

    /// The row's own numbers, then what was left over lately, by slot: a group keeps the slot that it
    /// came with first.
    fn wide(&mut self, x: &[f32], row: &Row, at: Time, lately: &Lately) -> Vec<f32> {
        let mut inputs = Vec::with_capacity(PLAIN_MAX + SPANS * GROUPS_MAX);
        inputs.push(1.0);
        let own = self.names.iter().zip(x.iter().skip(1)).filter(|(input, _)| !input.encoded);
        inputs.extend(own.map(|(_, value)| *value).take(PLAIN_MAX - 1));
        inputs.resize(PLAIN_MAX + SPANS * self.groups.len(), 0.0);
        for (name, place) in &row.groups {
            let slot = match self.groups.iter().position(|other| other == name) {
                Some(slot) => slot,
                None if self.groups.len() >= GROUPS_MAX => continue,
                None => {
                    self.groups.push(*name);
                    inputs.resize(PLAIN_MAX + SPANS * self.groups.len(), 0.0);
                    self.groups.len() - 1
                }
            };
            for (input, mean) in
                inputs.iter_mut().skip(PLAIN_MAX + SPANS * slot).zip(lately.means(*place, at))
            {
                *input = mean as f32;
            }
        }
        inputs
    }

    /// The prediction for a row at that time. When it is due and whose it is are the caller's to say.
    pub fn predict(
        &mut self,
        settings: &Settings,
        ground: Ground,
        row: &Row,
        at: Time,
        known: Known<'_>,
    ) -> Prediction {
        let Known { cells, lately } = known;
        let Ground { mut last_value, mut anchor, mut unit } = ground;
        let (mut own, mut passed) = (Vec::new(), Vec::new());
        if !settings.is_later() {
            own = self.anchors.own(&row.own);
            Measure { anchor, unit } = self.measure(&own);
            // Rows without a key have no last value of their own.
            if !row.keyed {
                last_value = anchor;
            }
            passed = self.traffic.pass(at, self.anchors.standard(&own));
            passed.extend(self.anchors.above(&own));
        }
        for moves in &row.moves {
            let means = lately.means(moves.place, at).into_iter().enumerate();
            let told = means.skip(MOVES.start).take(MOVES.len());
            passed.extend(told.map(|(span, mean)| (moves.name.wrapping_add(span as u64), mean)));
        }
        let mut inputs = self.inputs(settings, row, &passed, cells);
        let step = settings.rises_by().filter(|by| *by > 0.0).unwrap_or(self.moves.mean.max(1e-6));
        let classes = classes::probabilities(row.tokens.iter().map(|token| cells.get(*token)));
        let word = self.reader.word(&classes, |class, mean| {
            row.reads.iter().fold(mean, |mean, first| cells.get(behind(*first, class)).mean_from(mean))
        });
        let value_of = |change: f64| anchor + unit * change.clamp(-CHANGE_MAX, CHANGE_MAX);
        let x = lines(&inputs);
        let wide = self.wide(x, row, at, lately);
        let plain = self.plain.predict(plain(&wide));
        let [tree, forest] = self.trees.predict(x);
        let experts = [
            last_value,
            value_of(self.rls.predict(x)),
            value_of(self.median.predict(x)),
            value_of(self.reader.change(word)),
            value_of(self.lately.predict(&wide)),
            value_of(tree),
            value_of(forest),
        ];
        let weights = self.hedge.weights(&settings.active);
        let reach = self.guard.reach() * self.measured_in(settings, unit);
        let combined = weighted_median(&experts, &weights).clamp(last_value - reach, last_value + reach);
        let value = if self.guard.speaks() { combined } else { last_value };
        let width = self.width() * unit;
        let mut probability = None;
        if settings.rises_by().is_some() {
            let base = self.base();
            let middle = logit(base);
            let above = |p: f64| (logit(p) - middle).clamp(-4.0, 4.0) as f32;
            let classes_say = above(classes::above(&classes));
            let encoded =
                row.encoded.iter().take(ENCODED_MAX).map(|(_, cell)| above(cells.get(*cell).rises(base)));
            for (place, chance) in inputs.iter_mut().zip(core::iter::once(classes_say).chain(encoded)) {
                *place = chance;
            }
            // Half of the classes' own word, half of the line that corrects it, around the base rate.
            let line = self.logistic.predict(&inputs).clamp(-4.0, 4.0);
            probability = Some(sigmoid(middle + 0.5 * f64::from(classes_say) + 0.5 * line));
        }
        self.made += 1;
        Prediction {
            at,
            number: self.made,
            last_value,
            value,
            combined,
            low: value - width,
            high: value + width,
            probability,
            weights,
            experts,
            anchor,
            unit,
            step,
            word,
            inputs,
            tokens: row.tokens.clone(),
            groups: row.groups.iter().map(|(_, place)| *place).collect(),
            reads: row.reads.clone(),
            lately: wide,
            own,
            plain,
            ..Prediction::default()
        }
    }

    /// Whether the truth lies above the last value by more than was asked for.
    pub fn happened(settings: &Settings, prediction: &Prediction, truth: f64) -> Option<bool> {
        let by = settings.rises_by()?;
        Some(truth - prediction.last_value > by * prediction.last_value.abs())
    }

    /// Scores the prediction as it was made, then learns. Its cells and groups are in memory.
    pub fn settle(
        &mut self,
        settings: &Settings,
        prediction: &Prediction,
        truth: f64,
        cells: &mut Cells,
        lately: &mut Lately,
    ) {
        let happened = Model::happened(settings, prediction, truth);
        let error = (truth - prediction.value).abs();
        self.scores.add(error, (truth - prediction.last_value).abs(), prediction.probability.zip(happened));
        let Prediction { step, word, .. } = *prediction;
        // What was predicted before the labels' size was known is measured by what is known now.
        let later = settings.is_later();
        let now = self.ground(Some(prediction.last_value), later);
        let kept = later && self.all_positive;
        let (anchor, unit) = if later {
            (prediction.anchor, if kept { prediction.unit } else { now.unit })
        } else {
            let Measure { anchor, unit } = self.measure(&prediction.own);
            (anchor, unit)
        };
        if !kept && self.target.n < 2.0 {
            return;
        }
        let inside = (prediction.low..=prediction.high).contains(&truth);
        self.residuals.learn(error / unit, inside, self.made.saturating_sub(prediction.number));
        let errors = prediction.experts.map(|expert| (truth - expert).abs() / unit);
        self.hedge.learn(&errors);
        let part = self.measured_in(settings, unit);
        let apart = |said: f64| (truth - said).abs() / part;
        self.guard.learn(apart(prediction.last_value), apart(prediction.combined));
        self.drifts += u64::from(self.drift.learn(apart(prediction.value)));

        let change = ((truth - anchor) / unit).clamp(-CHANGE_MAX, CHANGE_MAX);
        let x = lines(&prediction.inputs);
        self.trees.learn(x, change);
        if settings.active.get(settings::RLS) == Some(&true) {
            self.rls.fit(x, change);
        }
        if settings.active.get(settings::LATELY) == Some(&true) {
            let wide = &prediction.lately;
            self.plain.fit_robust(plain(wide), change);
            self.usual.fit_robust(&usual(wide), change);
            self.lately.fit_robust(wide, change);
            let at = prediction.due;
            let of = prediction.at.after(Span(at.since(prediction.at).0 / 2));
            // Against what the usual line has learned by now: what it lacked then is not what is unlike it.
            let (short, long) = (change - self.usual.predict(&usual(wide)), change - prediction.plain);
            for place in &prediction.groups {
                lately.learn(*place, Residual { of, at, short, long });
            }
        }
        if settings.active.get(settings::MEDIAN) == Some(&true) {
            self.median.fit(x, change);
        }
        if let Some(happened) = happened {
            let base = self.base();
            self.logistic.fit_offset(&prediction.inputs, logit(base), happened);
            self.rises.learn(f64::from(u8::from(happened)));
        }
        let rose = happened.unwrap_or(change > 0.0);
        let mut slope = None;
        if settings.active.get(settings::CLASSES) == Some(&true) || happened.is_some() {
            let present = prediction.tokens.iter().map(|token| cells.get(*token));
            let probabilities: [f64; CLASSES] = classes::probabilities(present);
            let class = classes::class_of(change, step);
            let pull = classes::gradient(&probabilities, class);
            slope = Some(pull.map(|pull| pull as f32));
            self.reader.learn(word, change, step);
            for first in &prediction.reads {
                if let Some(cell) = cells.change(behind(*first, class)) {
                    cell.learn(change, rose);
                }
            }
        }
        for token in &prediction.tokens {
            let Some(cell) = cells.change(*token) else { continue };
            if let Some(slope) = &slope {
                classes::step(cell, slope);
            }
            Cell::learn(cell, change, rose);
        }
        self.moves.learn(change.abs());
    }
}

/// The row's own numbers.
fn plain(wide: &[f32]) -> &[f32] {
    wide.get(..PLAIN_MAX).unwrap_or(wide)
}

/// The row's own numbers, and the long means of what they left over.
fn usual(wide: &[f32]) -> Vec<f32> {
    let (plain, groups) = wide.split_at_checked(PLAIN_MAX).unwrap_or((wide, &[]));
    let long = groups.chunks(SPANS).flat_map(|spans| spans.iter().skip(SHORT));
    plain.iter().chain(long).copied().collect()
}

/// What of a prediction's inputs all lines take.
fn lines(inputs: &[f32]) -> &[f32] {
    inputs.get(CHANCES..).unwrap_or(&[])
}
