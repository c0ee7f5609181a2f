//! The operator: settles what is due, predicts, and lets the prediction wait for its outcome.

use bytes::Bytes;
use dunlin_protocol::effect::{Again, CallError, Invoked};
use dunlin_protocol::event::Event;
use dunlin_protocol::pipeline::manifest::{Label, LearnSpec};
use dunlin_protocol::time::{Span, Time};
use serde_json::{Map, Value};

use super::cells::{Cells, behind};
use super::classes::CLASSES;
use super::keys::Keys;
use super::lately::{Lately, Residual};
use super::model::{Known, Model};
use super::payload::{self, Settled};
use super::prediction::Prediction;
use super::row::{self, Context, Row};
use super::settings::Settings;
use super::store::{self, Cache, Unreadable};
use crate::operator::{FromHead, Handled, Operator, State};
use crate::running::{Ahead, Running};

/// Predictions of same-row labels that may wait in a share. Beyond: a prediction goes out and is
/// neither scored nor learned from, and is counted as unscored.
const DUE_MAX: u64 = 65_536;
/// The side output `scores`.
const SCORES: u16 = 0;
const DAY: f64 = 86_400_000.0;

/// The built-in `learn`.
#[derive(Debug)]
pub struct Learn {
    settings: Settings,
    cache: Cache,
    row: Row,
    running: Running,
}

impl Learn {
    /// An error is one sentence for whoever wrote the `learn` table.
    pub fn new(spec: &LearnSpec) -> Result<Learn, String> {
        let (settings, running) = (Settings::of(spec)?, Running::default());
        Ok(Learn { settings, cache: Cache::default(), row: Row::default(), running })
    }
}

impl Operator for Learn {
    fn handle(&mut self, batch: &[Invoked], _now: Time, state: &mut dyn State) -> Result<Handled, CallError> {
        let mut handled = Handled::default();
        let Learn { settings, cache, row, running } = self;
        running.read(state);
        cache.read_model(settings, state).map_err(unreadable)?;
        let Cache { model: Some(model), cells, lately, keys, .. } = &mut *cache else { return Ok(handled) };
        for (index, invoked) in batch.iter().enumerate() {
            let event = &invoked.placed.event;
            let cause = index as u32;
            let Some(payload) = handled.fields_of(cause, event, "learn") else { continue };
            let out = &mut handled.emitted;
            let mut step = Step {
                settings,
                model,
                cells,
                lately,
                keys,
                row,
                running,
                state: &mut *state,
                event,
                payload,
                cause,
                out,
            };
            step.run().map_err(unreadable)?;
        }
        cache.flush(state);
        running.write(state);
        Ok(handled)
    }

    fn forget(&mut self) {
        self.cache.clear();
        self.running = Running::default();
    }
}

fn unreadable(error: Unreadable) -> CallError {
    CallError { stage: String::new(), reason: error.to_string(), again: Again::Never }
}

/// One event on its way.
struct Step<'a> {
    settings: &'a Settings,
    model: &'a mut Model,
    cells: &'a mut Cells,
    lately: &'a mut Lately,
    keys: &'a mut Keys,
    row: &'a mut Row,
    running: &'a mut Running,
    state: &'a mut dyn State,
    event: &'a Event,
    payload: Map<String, Value>,
    cause: u32,
    out: &'a mut Vec<FromHead>,
}

impl Step<'_> {
    fn run(&mut self) -> Result<(), Unreadable> {
        let settings = self.settings;
        match &settings.label {
            Label::Later { target, after, .. } => self.later(target, *after),
            Label::SameRow { label, label_at } => self.same_row(label, label_at.as_deref()),
        }
    }

    fn later(&mut self, target: &str, after: Span) -> Result<(), Unreadable> {
        let truth = row::number(self.payload.get(target));
        let (key, now) = (&self.event.key, self.event.time);
        let mut before = None;
        if let Some(truth) = truth {
            while let Some(id) = self.keys.open(key, self.state)?.take_due(now) {
                let name = store::waiting_key(key, id);
                if let Some(mut prediction) = store::prediction(self.state, &name)? {
                    prediction.key = key.clone();
                    self.settle(&prediction, truth)?;
                    self.state.delete(&name);
                }
            }
            let series = &mut self.keys.open(key, self.state)?.series;
            before = series.value;
            series.observe(now, truth);
            self.model.observe(truth);
            if series.n > 1 {
                let unit = self.model.ground(Some(truth), true).unit;
                let age = now.since(series.first_at).0 as f64;
                let part = age / (after.0 as f64).max(1.0);
                self.model.stray((truth - series.min).max(series.max - truth) / unit, part);
            }
        }
        let mut prediction = self.predict(truth, before, [target, ""], after.0 as f64)?;
        if let Some((truth, before)) = truth.zip(before) {
            self.moved((truth - before) / prediction.unit);
        }
        prediction.due = now.after(after);
        prediction.key = key.clone();
        self.emit(None, payload::event(self.settings, &prediction, None));
        match self.keys.open(key, self.state)?.wait(prediction.due) {
            Some(id) => {
                // Its place names its key.
                prediction.key = Bytes::new();
                store::put_prediction(self.state, &store::waiting_key(key, id), &prediction);
            }
            None => self.model.scores.unscored += 1,
        }
        Ok(())
    }

    fn same_row(&mut self, label: &str, label_at: Option<&str>) -> Result<(), Unreadable> {
        self.settle_known()?;
        let mut prediction = self.predict(None, None, [label, label_at.unwrap_or("")], DAY)?;
        let due = match label_at {
            None => Some(self.event.time),
            Some(field) => match self.payload.get(field) {
                Some(Value::String(text)) => row::instant(text),
                Some(Value::Number(millis)) => millis.as_u64().map(Time),
                _ => None,
            },
        };
        prediction.due = due.unwrap_or(self.event.time);
        prediction.truth = row::number(self.payload.get(label));
        prediction.key = self.event.key.clone();
        self.emit(None, payload::event(self.settings, &prediction, None));
        // Without a label, or without its time, there is nothing to settle by.
        let (Some(due), Some(truth)) = (due, prediction.truth) else { return Ok(()) };
        if due <= self.event.time {
            return self.settle_label(&prediction, truth);
        }
        let model = &mut *self.model;
        if model.waiting >= DUE_MAX {
            model.scores.unscored += 1;
            return Ok(());
        }
        let id = model.next_id;
        model.next_id += 1;
        model.waiting += 1;
        model.first_due = model.first_due.min(due);
        store::put_prediction(self.state, &store::due_key(due, id), &prediction);
        self.keys.open(&self.event.key, self.state)?.series.waiting += 1;
        Ok(())
    }

    /// Settles every same-row label whose time has come.
    fn settle_known(&mut self) -> Result<(), Unreadable> {
        while self.model.first_due <= self.event.time {
            let first = store::first_due(self.state)?;
            match &first {
                Some((name, prediction)) if prediction.due <= self.event.time => {
                    let series = &mut self.keys.open(&prediction.key, self.state)?.series;
                    series.waiting = series.waiting.saturating_sub(1);
                    if let Some(truth) = prediction.truth {
                        self.settle_label(prediction, truth)?;
                    }
                    self.state.delete(name);
                    self.model.waiting = self.model.waiting.saturating_sub(1);
                }
                other => {
                    let next = other.as_ref().map_or(Time::MAX, |(_, prediction)| prediction.due);
                    self.model.first_due = next;
                }
            }
        }
        Ok(())
    }

    fn settle_label(&mut self, prediction: &Prediction, truth: f64) -> Result<(), Unreadable> {
        self.settle(prediction, truth)?;
        self.keys.open(&prediction.key, self.state)?.series.observe(prediction.due, truth);
        self.model.observe_label(prediction, truth);
        Ok(())
    }

    /// The row's series has moved by so many units; its groups remember that.
    fn moved(&mut self, change: f64) {
        let at = self.event.time;
        for moves in &self.row.moves {
            self.lately.learn(moves.from, Residual { of: at, at, short: change, long: change });
        }
    }

    /// `now`: the value that this event brought; `before`: the one before it.
    fn predict(
        &mut self,
        now: Option<f64>,
        before: Option<f64>,
        hidden: [&str; 2],
        span: f64,
    ) -> Result<Prediction, Unreadable> {
        let settings = self.settings;
        let series = &self.keys.open(&self.event.key, self.state)?.series;
        let last = now.or(series.value);
        let ground = self.model.ground(last, settings.is_later());
        let context = Context {
            features: settings.features.as_deref(),
            hidden,
            seed: settings.seed,
            series,
            value: ground.last_value,
            unit: ground.unit,
            before,
            span: span.max(1.0),
            measured_from: self.model.measured_from(),
            path: last.is_some() && (settings.is_later() || !self.event.key.is_empty()),
        };
        self.row.fill(self.event, &self.payload, &context);
        let encoded = self.row.encoded.iter().map(|(_, cell)| *cell);
        let reads = each_class(&self.row.reads);
        self.cells.load(self.row.tokens.iter().copied().chain(encoded).chain(reads), self.state)?;
        let moves = self.row.moves.iter().flat_map(|moves| [moves.place, moves.from]);
        self.lately.load(self.row.groups.iter().map(|(_, place)| *place).chain(moves), self.state)?;
        let known = Known { cells: self.cells, lately: self.lately };
        let prediction = self.model.predict(settings, ground, self.row, self.event.time, known);
        Ok(prediction)
    }

    fn settle(&mut self, prediction: &Prediction, truth: f64) -> Result<(), Unreadable> {
        let tokens = prediction.tokens.iter().copied();
        self.cells.load(tokens.chain(each_class(&prediction.reads)), self.state)?;
        self.lately.load(prediction.groups.iter().copied(), self.state)?;
        let before = self.model.drifts;
        self.model.settle(self.settings, prediction, truth, self.cells, self.lately);
        let drifts = self.model.drifts;
        let settled = Settled {
            settled_at: self.event.time,
            interval: self.settings.coverage,
            truth,
            happened: Model::happened(self.settings, prediction, truth),
            absolute_error: (truth - prediction.value).abs(),
            absolute_error_last_value: (truth - prediction.last_value).abs(),
            drifts,
            running: self.model.scores.running(),
        };
        let (target, ahead) = match &self.settings.label {
            Label::Later { target, after, .. } => (target, Ahead::Millis(after.0)),
            Label::SameRow { label, .. } => (label, Ahead::Known),
        };
        let errors = (settled.absolute_error, settled.absolute_error_last_value);
        self.running.drifted(target, drifts - before);
        self.running.settled(target, core::iter::once((ahead, errors)));
        let event = payload::event(self.settings, prediction, Some(settled));
        self.emit(Some(SCORES), event);
        Ok(())
    }

    fn emit(&mut self, side: Option<u16>, event: Event) {
        self.out.push(FromHead { cause: self.cause, side, event });
    }
}

/// The cells of all classes behind each of these.
fn each_class(first: &[u16]) -> impl Iterator<Item = u16> + '_ {
    first.iter().flat_map(|first| (0..CLASSES).map(|class| behind(*first, class)))
}
