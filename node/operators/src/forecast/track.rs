//! One target of one key: its past, its experts, their combination, and the forecasts that wait.

use std::collections::VecDeque;
use std::f64::consts::TAU;

use dunlin_protocol::pipeline::manifest::Horizon;
use dunlin_protocol::time::Time;
use serde::{Deserialize, Serialize};

use super::band::Band;
use super::fields::{Fields, INPUT_MAX, PER_FIELD};
use super::guard::Guard;
use super::hedge::{ELMAN, EXPERTS, FAMILIES, FIELDS, FIELDS_MEMORY, Hedge, MEMORIES, SMOOTHINGS};
use super::holt_winters::HoltWinters;
use super::nets::{Nets, TAKES};
use super::origin::{Forecast, Origin, Settled, rounded};
use super::past::Past;
use super::rls::Rls;
use super::scale::Scale;
use super::scores::Scores;
use super::season::Season;
use super::settings::Settings;
use crate::drift::Drift;
use crate::tail::{Sides, Tail};

/// Values before the last one that the lines see.
const LAGS: usize = 24;
/// Sines and cosines of the season that the lines see.
const HARMONICS: usize = 4;
/// The constant, the level, the lags, the season, and the value one season ago.
pub const INPUTS: usize = 2 + LAGS + 2 * HARMONICS + 1;
/// What of these does not grow with the values.
const IN_UNITS: core::ops::Range<usize> = 1..2 + LAGS;
/// Forecasts of a target that may wait. Beyond: the oldest goes, and what of it was not settled is
/// neither scored nor learned from.
const ORIGINS_MAX: usize = 512;
/// Changes beyond so many units are neither said nor learned.
const CHANGE_MAX: f64 = 20.0;
/// Half the interval's width while no error is known, in units.
const UNKNOWN: f64 = 2.0;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Track {
    past: Past,
    scale: Scale,
    season: Season,
    /// The last value at each phase of the season.
    last_season: Vec<f64>,
    smoothings: Vec<HoltWinters>,
    /// The lines on the own past, and behind them the one with fields, if there are any.
    lines: Vec<Rls>,
    nets: Nets,
    hedges: Vec<Hedge>,
    guards: Vec<Guard>,
    bands: Vec<Band>,
    pub scores: Vec<Scores>,
    drift: Drift,
    /// Drifts marked so far.
    pub drifts: u64,
    /// Errors of the first horizon, and how unusual that of this event's value was.
    errors: Tail,
    tail: Option<f64>,
    origins: VecDeque<Origin>,
    /// For each horizon the number of origins that it has settled or lost.
    settled: Vec<u64>,
    /// Origins that are no longer in `origins`.
    gone: u64,
    /// Horizons of forecasts that will not be scored, since a bound was reached.
    pub unscored: u64,
    latest: Option<Forecast>,
}

impl Track {
    pub fn new(settings: &Settings, fields: usize) -> Track {
        let horizons = settings.horizons();
        let mut lines: Vec<Rls> = MEMORIES.iter().map(|memory| Rls::new(*memory, INPUTS, horizons)).collect();
        if fields > 0 {
            lines.push(Rls::new(FIELDS_MEMORY, INPUTS + PER_FIELD * fields, horizons));
        }
        Track {
            past: Past::default(),
            scale: Scale::default(),
            season: Season::default(),
            last_season: Vec::new(),
            smoothings: SMOOTHINGS.iter().map(|rate| HoltWinters::new(*rate)).collect(),
            lines,
            nets: Nets::new(settings),
            hedges: vec![Hedge::new(); horizons],
            guards: vec![Guard::new(); horizons],
            bands: vec![Band::new(); horizons],
            scores: vec![Scores::default(); horizons],
            drift: Drift::default(),
            drifts: 0,
            errors: Tail::default(),
            tail: None,
            origins: VecDeque::new(),
            settled: vec![0; horizons],
            gone: 0,
            unscored: 0,
            latest: None,
        }
    }

    /// The newest forecast; none before the first value.
    pub fn latest(&self) -> Option<&Forecast> {
        self.latest.as_ref()
    }

    /// Another unit of a field: its inputs, in the line that sees them and where they wait.
    pub fn rescale_fields(&mut self, fields: &Fields) {
        let by: Vec<f64> = [1.0; INPUTS].into_iter().chain(fields.factors()).collect();
        self.rescale(&by, 1.0);
    }

    fn rescale(&mut self, inputs: &[f64], outcomes: f64) {
        self.lines.iter_mut().for_each(|line| line.rescale(inputs, outcomes));
        self.origins.iter_mut().for_each(|origin| origin.rescale(inputs, outcomes));
    }

    /// An event came without a value.
    pub fn pass(&mut self) {
        if let Some(latest) = &mut self.latest {
            latest.tail = None;
        }
    }

    /// Takes a value in: settles what it brings the outcome of, learns, and forecasts anew. `own` is
    /// the target's place among the fields. Gives the forecasts whose last outcome this was.
    pub fn observe(
        &mut self,
        settings: &Settings,
        at: Time,
        value: f64,
        fields: &Fields,
        own: Option<usize>,
    ) -> Vec<Settled> {
        let error_max = if self.scale.unit > 0.0 { CHANGE_MAX * self.scale.unit } else { f64::MAX };
        let other_season = self.season.observe(at, value, error_max, &self.past);
        if let Some(factor) = self.scale.observe(value)
            && factor != 1.0
        {
            let mut by = vec![1.0; INPUTS + PER_FIELD * fields.len()];
            by.iter_mut().take(IN_UNITS.end).skip(IN_UNITS.start).for_each(|by| *by = factor);
            by.iter_mut().skip(INPUTS - 1).take(1).for_each(|by| *by = factor);
            self.rescale(&by, factor);
            self.bands.iter_mut().for_each(|band| band.rescale(factor));
            self.drift.rescale(factor);
            self.nets.rescale(factor);
        }
        if let Some(last) = self.past.back(0)
            && self.scale.unit > 0.0
        {
            self.nets.came(((value - last) / self.scale.unit).clamp(-CHANGE_MAX, CHANGE_MAX));
        }
        self.tail = None;
        let done = self.settle(settings, at, value);
        self.past.push(at, value);
        if other_season {
            self.begin_season(at);
        }
        let phase = self.phase(at, 0);
        self.smoothings.iter_mut().for_each(|smoothing| smoothing.observe(phase, value));
        if let Some(last) = self.last_season.get_mut(phase) {
            *last = value;
        }
        self.forecast(settings, at, value, fields, own);
        done
    }

    fn begin_season(&mut self, at: Time) {
        let steps = self.season.steps().unwrap_or(0);
        let mut recent = vec![0.0; steps];
        let phase = self.phase(at, 0);
        // The last value first; a phase that was never seen is as the oldest one that was.
        let mut value = 0.0;
        for back in 0..steps {
            value = self.past.back(back).unwrap_or(value);
            if let Some(place) = recent.get_mut((phase + steps - back) % steps) {
                *place = value;
            }
        }
        for smoothing in &mut self.smoothings {
            smoothing.begin_season(recent.clone());
        }
        self.last_season = recent;
    }

    /// Which phase of the season the value so many steps after `at` has.
    fn phase(&self, at: Time, later: usize) -> usize {
        match (self.season.phase(at), self.season.steps()) {
            (Some(part), Some(steps)) => ((part * steps as f64).round() as usize + later) % steps,
            _ => 0,
        }
    }

    fn settle(&mut self, settings: &Settings, at: Time, value: f64) -> Vec<Settled> {
        // This value's number among the target's.
        let number = self.past.seen() + 1;
        for horizon in 0..settings.horizons() {
            let due = |origin: &Origin| match &settings.horizon {
                Horizon::Steps(_) => number - origin.number > horizon as u64,
                Horizon::Spans(spans) => {
                    spans.get(horizon).is_some_and(|span| origin.forecast.at.after(*span) <= at)
                }
            };
            while let Some(next) = self.settled.get_mut(horizon) {
                let Some(origin) = self.origins.get_mut((*next - self.gone) as usize) else { break };
                if !due(origin) {
                    break;
                }
                *next += 1;
                let delay = (number - origin.number) as usize;
                if let Some(truth) = origin.truth.get_mut(horizon) {
                    *truth = value;
                }
                let outcome = (value - origin.forecast.last_value) / self.scale.unit;
                let said = origin.said.get(horizon).copied().unwrap_or_default();
                let errors = said.map(|said| outcome - f64::from(said));
                if let (Some(hedge), Some(guard)) =
                    (self.hedges.get_mut(horizon), self.guards.get_mut(horizon))
                {
                    let combined = origin.combined.get(horizon).copied().unwrap_or(0.0);
                    let [last, seasonal, ..] = errors;
                    guard.learn([last, seasonal, outcome - f64::from(combined)]);
                    hedge.learn(errors.into_iter());
                }
                let bounded = outcome.clamp(-CHANGE_MAX, CHANGE_MAX);
                for (line, gain) in self.lines.iter_mut().zip(&origin.gains) {
                    line.learn(horizon, &origin.inputs, gain, bounded);
                }
                self.nets.learn(horizon, &origin.nets, bounded);
                let says = (origin.forecast.value.get(horizon), origin.forecast.width.get(horizon));
                let (Some(said), Some(width)) = says else { continue };
                if horizon == 0 {
                    origin.tail = Some(self.errors.probability(value - said, Sides::Both));
                    self.tail = origin.tail;
                    self.errors.learn(value - said);
                }
                let error = (value - said).abs();
                let inside = error <= *width;
                if let Some(scores) = self.scores.get_mut(horizon) {
                    scores.add(error, (value - origin.forecast.last_value).abs(), inside);
                }
                if let Some(band) = self.bands.get_mut(horizon) {
                    band.learn(error / self.scale.unit, inside, delay, settings.coverage);
                }
                if horizon == 0 && self.drift.learn(error / self.scale.unit) {
                    self.drifts += 1;
                }
            }
        }
        let all = self.settled.iter().copied().min().unwrap_or(0);
        let mut done = Vec::new();
        while self.gone < all
            && let Some(origin) = self.origins.pop_front()
        {
            self.gone += 1;
            done.push(Settled { forecast: origin.forecast, truth: origin.truth, tail: origin.tail });
        }
        done
    }

    fn inputs(&self, at: Time, value: f64, fields: &Fields, own: Option<usize>) -> Vec<f64> {
        let mut x = Vec::with_capacity(INPUTS + PER_FIELD * fields.len());
        let unit = self.scale.unit;
        let in_units = |change: f64| {
            if unit > 0.0 { (change / unit).clamp(-INPUT_MAX, INPUT_MAX) } else { 0.0 }
        };
        let ago = |steps: usize| self.past.back(steps).map_or(0.0, |other| in_units(other - value));
        x.extend([1.0, in_units(value - self.scale.mean)]);
        x.extend((1..=LAGS).map(ago));
        let turn = self.season.phase(at).map(|part| part * TAU);
        x.extend((1..=HARMONICS).flat_map(|times| match turn {
            Some(turn) => [(turn * times as f64).sin(), (turn * times as f64).cos()],
            None => [0.0, 0.0],
        }));
        x.push(self.season.steps().filter(|steps| *steps > LAGS + 1).map_or(0.0, |steps| ago(steps - 1)));
        fields.inputs(own, &mut x);
        x
    }

    /// What the networks take in, of the lines' inputs.
    fn takes(inputs: &[f64]) -> [f64; TAKES] {
        // One ago less now, the level, sine and cosine of the season.
        [2, 1, 2 + LAGS, 3 + LAGS].map(|place| inputs.get(place).copied().unwrap_or(0.0))
    }

    fn forecast(&mut self, settings: &Settings, at: Time, value: f64, fields: &Fields, own: Option<usize>) {
        let unit = self.scale.unit;
        let inputs = self.inputs(at, value, fields, own);
        let takes = Track::takes(&inputs);
        let mut said = vec![[0.0f32; EXPERTS]; settings.horizons()];
        let in_units = |other: f64| {
            if unit > 0.0 { ((other - value) / unit).clamp(-CHANGE_MAX, CHANGE_MAX) as f32 } else { 0.0 }
        };
        for (horizon, said) in said.iter_mut().enumerate() {
            let phase = match &settings.horizon {
                Horizon::Steps(_) => self.phase(at, horizon + 1),
                Horizon::Spans(spans) => {
                    self.phase(at.after(spans.get(horizon).copied().unwrap_or_default()), 0)
                }
            };
            let seasonal = self.last_season.get(phase).copied().unwrap_or(value);
            let smooth = self.smoothings.iter().map(|smoothing| smoothing.predict(phase).unwrap_or(value));
            for (place, other) in said.iter_mut().skip(1).zip(core::iter::once(seasonal).chain(smooth)) {
                *place = in_units(other);
            }
        }
        let first = 2 + SMOOTHINGS.len();
        for (index, line) in self.lines.iter().enumerate() {
            for (said, expects) in said.iter_mut().zip(line.predict(&inputs)) {
                if let Some(place) = said.get_mut(first + index) {
                    *place = expects.clamp(-CHANGE_MAX, CHANGE_MAX) as f32;
                }
            }
        }
        for (index, net) in self.nets.step(&takes).into_iter().enumerate() {
            for (said, expects) in said.iter_mut().zip(net) {
                if let Some(place) = said.get_mut(ELMAN + index) {
                    *place = expects.clamp(-CHANGE_MAX, CHANGE_MAX) as f32;
                }
            }
        }
        let mut says = settings.active;
        // Without fields, there is no line that sees them.
        says.iter_mut().take(FIELDS + 1).skip(first + self.lines.len()).for_each(|says| *says = false);
        let mut forecast = Forecast { at, last_value: value, tail: self.tail, ..Forecast::default() };
        let mut combined = Vec::with_capacity(settings.horizons());
        for (((hedge, guard), band), said) in self.hedges.iter().zip(&self.guards).zip(&self.bands).zip(&said)
        {
            let mix = |weights: &[f64; EXPERTS]| -> f64 {
                weights.iter().zip(said).map(|(weight, said)| weight * f64::from(*said)).sum()
            };
            combined.push(mix(&hedge.weights(&says)) as f32);
            let weights = guard.weights(hedge, &says);
            let change = mix(&weights);
            let width = unit * band.width().unwrap_or(UNKNOWN);
            // Where it stays, it stays exactly.
            let says = if change == 0.0 { value } else { rounded(value + unit * change, width) };
            forecast.value.push(says);
            forecast.width.push(width);
            let mut rest = weights.as_slice();
            for (sum, (_, experts)) in forecast.weights.iter_mut().zip(FAMILIES) {
                let (mine, others) = rest.split_at_checked(experts).unwrap_or((rest, &[]));
                *sum += mine.iter().sum::<f64>() / settings.horizons() as f64;
                rest = others;
            }
        }
        if self.origins.len() >= ORIGINS_MAX {
            self.origins.pop_front();
            self.gone += 1;
            for settled in &mut self.settled {
                self.unscored += self.gone.saturating_sub(*settled).min(1);
                *settled = (*settled).max(self.gone);
            }
        }
        let gains = self.lines.iter_mut().map(|line| line.gain(line_inputs(&inputs, line))).collect();
        self.origins.push_back(Origin {
            forecast: forecast.clone(),
            number: self.past.seen(),
            inputs,
            gains,
            nets: self.nets.seen(),
            said,
            combined,
            truth: vec![0.0; settings.horizons()],
            tail: None,
        });
        self.latest = Some(forecast);
    }
}

/// The line with fields sees all inputs, the others those of the own past.
fn line_inputs<'a>(inputs: &'a [f64], line: &Rls) -> &'a [f64] {
    inputs.get(..line.inputs()).unwrap_or(inputs)
}
