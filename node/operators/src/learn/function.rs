//! The operator: settles what is due, predicts, and lets the prediction wait for its outcome.

use bytes::Bytes;
use dunlin_protocol::effect::{Again, CallError, FailedEvent, Invoked};
use dunlin_protocol::event::Event;
use dunlin_protocol::pipeline::manifest::{Label, LearnSpec};
use dunlin_protocol::time::{Span, Time};
use serde_json::{Map, Value};

use super::cells::Cell;
use super::model::{Model, Prediction};
use super::payload::{self, Settled};
use super::row::{self, Context, Row};
use super::settings::Settings;
use super::store::{self, Cache, Unreadable};
use crate::operator::{FromHead, Handled, Operator, State};

/// Predictions of same-row labels that may wait in a share. Beyond: a prediction goes out and is
/// neither scored nor learned from.
const DUE_MAX: u64 = 65_536;
/// The side output `scores`.
const SCORES: u16 = 0;
const DAY: f64 = 86_400_000.0;

/// The built-in `learn`.
#[derive(Debug)]
pub struct Learn {
    settings: Settings,
    cache: Cache,
}

impl Learn {
    /// An error is one sentence for whoever wrote the `learn` table.
    pub fn new(spec: &LearnSpec) -> Result<Learn, String> {
        Ok(Learn { settings: Settings::of(spec)?, cache: Cache::default() })
    }
}

impl Operator for Learn {
    fn handle(&mut self, batch: &[Invoked], _now: Time, state: &mut dyn State) -> Result<Handled, CallError> {
        let mut handled = Handled::default();
        for (index, invoked) in batch.iter().enumerate() {
            let event = &invoked.placed.event;
            let cause = index as u32;
            let payload = match read(event) {
                Ok(payload) => payload,
                Err(reason) => {
                    handled.failed.push(FailedEvent {
                        index: cause,
                        event: None,
                        stage: String::new(),
                        reason,
                        again: Again::Never,
                    });
                    continue;
                }
            };
            let mut step =
                Step { learn: self, state: &mut *state, event, payload, cause, out: &mut handled.emitted };
            step.run().map_err(unreadable)?;
        }
        self.cache.flush(state);
        Ok(handled)
    }

    fn forget(&mut self) {
        self.cache.clear();
    }
}

fn unreadable(error: Unreadable) -> CallError {
    CallError { stage: String::new(), reason: error.to_string(), again: Again::Never }
}

fn read(event: &Event) -> Result<Map<String, Value>, String> {
    if core::str::from_utf8(&event.key).is_err() {
        return Err("the event's key is no UTF-8 text: give it a text key".to_string());
    }
    match serde_json::from_slice(&event.payload) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err("the payload is no JSON object: `learn` needs its fields".to_string()),
        Err(error) => Err(format!("the payload is no JSON object: {error}")),
    }
}

/// One event on its way.
struct Step<'a> {
    learn: &'a mut Learn,
    state: &'a mut dyn State,
    event: &'a Event,
    payload: Map<String, Value>,
    cause: u32,
    out: &'a mut Vec<FromHead>,
}

impl Step<'_> {
    fn run(&mut self) -> Result<(), Unreadable> {
        match self.learn.settings.label.clone() {
            Label::Later { target, after, .. } => self.later(&target, after),
            Label::SameRow { label, label_at } => self.same_row(&label, label_at.as_deref()),
        }
    }

    fn later(&mut self, target: &str, after: Span) -> Result<(), Unreadable> {
        let truth = row::number(self.payload.get(target));
        let key = &self.event.key;
        if let Some(truth) = truth {
            while let Some(id) = self.learn.cache.series(key, self.state)?.take_due(self.event.time) {
                let name = store::waiting_key(key, id);
                if let Some(prediction) = store::load::<Prediction>(self.state, &name)? {
                    self.settle(&prediction, truth)?;
                    self.state.delete(&name);
                }
            }
            self.learn.cache.series(key, self.state)?.observe(self.event.time, truth);
            self.learn.cache.model(&self.learn.settings, self.state)?.observe(truth);
        }
        let mut prediction = self.predict(truth, [target, ""], after.0 as f64)?;
        prediction.due = self.event.time.after(after);
        self.emit(None, payload::event(&self.learn.settings, &prediction, None));
        if let Some(id) = self.learn.cache.series(key, self.state)?.wait(prediction.due) {
            store::save(self.state, &store::waiting_key(key, id), &prediction);
        }
        Ok(())
    }

    fn same_row(&mut self, label: &str, label_at: Option<&str>) -> Result<(), Unreadable> {
        self.settle_known()?;
        let mut prediction = self.predict(None, [label, label_at.unwrap_or("")], DAY)?;
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
        self.emit(None, payload::event(&self.learn.settings, &prediction, None));
        // Without a label, or without its time, there is nothing to settle by.
        let (Some(due), Some(truth)) = (due, prediction.truth) else { return Ok(()) };
        if due <= self.event.time {
            return self.settle_label(&prediction, truth);
        }
        let model = self.learn.cache.model(&self.learn.settings, self.state)?;
        if model.waiting < DUE_MAX {
            let id = model.next_id;
            model.next_id += 1;
            model.waiting += 1;
            model.first_due = model.first_due.min(due);
            store::save(self.state, &store::due_key(due, id), &prediction);
        }
        Ok(())
    }

    /// Settles every same-row label whose time has come.
    fn settle_known(&mut self) -> Result<(), Unreadable> {
        while self.learn.cache.model(&self.learn.settings, self.state)?.first_due <= self.event.time {
            let first = store::first_due(self.state)?;
            match &first {
                Some((name, prediction)) if prediction.due <= self.event.time => {
                    if let Some(truth) = prediction.truth {
                        self.settle_label(prediction, truth)?;
                    }
                    self.state.delete(name);
                    let model = self.learn.cache.model(&self.learn.settings, self.state)?;
                    model.waiting = model.waiting.saturating_sub(1);
                }
                other => {
                    let next = other.as_ref().map_or(Time::MAX, |(_, prediction)| prediction.due);
                    self.learn.cache.model(&self.learn.settings, self.state)?.first_due = next;
                }
            }
        }
        Ok(())
    }

    fn settle_label(&mut self, prediction: &Prediction, truth: f64) -> Result<(), Unreadable> {
        self.settle(prediction, truth)?;
        let key = Bytes::copy_from_slice(&prediction.key);
        self.learn.cache.series(&key, self.state)?.observe(prediction.due, truth);
        self.learn.cache.model(&self.learn.settings, self.state)?.observe(truth);
        Ok(())
    }

    fn predict(&mut self, now: Option<f64>, hidden: [&str; 2], span: f64) -> Result<Prediction, Unreadable> {
        let Learn { settings, cache } = &mut *self.learn;
        let last = now.or(cache.series(&self.event.key, self.state)?.value);
        let ground = cache.model(settings, self.state)?.ground(last, settings.is_later());
        let series = cache.series(&self.event.key, self.state)?;
        let row = Row::of(
            self.event,
            &self.payload,
            &Context {
                features: settings.features.as_deref(),
                hidden,
                seed: settings.seed,
                series,
                value: ground.last_value,
                unit: ground.unit,
                span: span.max(1.0),
                path: last.is_some(),
            },
        );
        let encoded = row.encoded.iter().map(|(_, cell)| *cell);
        cache.load_cells(row.tokens.iter().copied().chain(encoded), self.state)?;
        // Taken out so that the cells can be read while the model runs.
        let mut model = match cache.model.take() {
            Some(model) => model,
            None => Model::new(settings),
        };
        let cells = cache.cells();
        let mut prediction = model.predict(settings, ground, row, cells);
        cache.model = Some(model);
        prediction.at = self.event.time;
        prediction.key = self.event.key.to_vec();
        Ok(prediction)
    }

    fn settle(&mut self, prediction: &Prediction, truth: f64) -> Result<(), Unreadable> {
        let Learn { settings, cache } = &mut *self.learn;
        cache.load_cells(prediction.tokens.iter().copied(), self.state)?;
        let mut cells: Vec<Cell> = prediction
            .tokens
            .iter()
            .map(|number| cache.cells().get(number).cloned().unwrap_or_default())
            .collect();
        let model = cache.model(settings, self.state)?;
        model.settle(settings, prediction, truth, &mut cells);
        let settled = Settled {
            settled_at: self.event.time,
            truth,
            happened: Model::happened(settings, prediction, truth),
            absolute_error: (truth - prediction.value).abs(),
            absolute_error_last_value: (truth - prediction.last_value).abs(),
            running: model.scores.running(),
        };
        for (number, cell) in prediction.tokens.iter().zip(cells) {
            cache.put_cell(*number, cell);
        }
        let event = payload::event(settings, prediction, Some(settled));
        self.emit(Some(SCORES), event);
        Ok(())
    }

    fn emit(&mut self, side: Option<u16>, event: Event) {
        self.out.push(FromHead { cause: self.cause, side, event });
    }
}
