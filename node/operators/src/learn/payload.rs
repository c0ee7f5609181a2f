//! What goes out: a prediction, and the same with its scores once it is settled.

use bytes::Bytes;
use dunlin_protocol::event::Event;
use dunlin_protocol::time::Time;

use super::json::Object;
use super::prediction::Prediction;
use super::scores::Running;
use super::settings::{EXPERTS, Settings};

/// How a prediction came out.
#[derive(Debug)]
pub struct Settled {
    pub settled_at: Time,
    /// What the interval was to cover.
    pub interval: f64,
    pub truth: f64,
    pub happened: Option<bool>,
    pub absolute_error: f64,
    pub absolute_error_last_value: f64,
    /// Drift marks of the share so far.
    pub drifts: u64,
    pub running: Running,
}

impl Settled {
    fn write(&self, out: &mut Object) {
        out.time("settled_at", self.settled_at);
        out.number("interval", self.interval);
        out.number("truth", self.truth);
        if let Some(happened) = self.happened {
            out.yes_or_no("happened", happened);
        }
        out.number("absolute_error", self.absolute_error);
        out.number("absolute_error_last_value", self.absolute_error_last_value);
        out.count("drifts", self.drifts);
        out.object("running", |out| {
            let Running { n, unscored, mae, mae_last_value, rmse, auc, log_loss } = self.running;
            out.count("n", n);
            out.count("unscored", unscored);
            out.number("mae", mae);
            out.number("mae_last_value", mae_last_value);
            out.number("rmse", rmse);
            for (name, value) in [("auc", auc), ("log_loss", log_loss)] {
                if let Some(value) = value {
                    out.number(name, value);
                }
            }
        });
    }
}

/// The event that carries `prediction`; at its own time, or at that of its settling.
pub fn event(settings: &Settings, prediction: &Prediction, settled: Option<Settled>) -> Event {
    let time = settled.as_ref().map_or(prediction.at, |settled| settled.settled_at);
    let mut out = Object::with_capacity(if settled.is_some() { 800 } else { 450 });
    out.text("key", core::str::from_utf8(&prediction.key).unwrap_or(""));
    out.time("at", prediction.at);
    out.time("due", prediction.due);
    out.number("value", prediction.value);
    if let Some(probability) = prediction.probability {
        out.number("probability", probability);
    }
    out.number("low", prediction.low);
    out.number("high", prediction.high);
    out.number("last_value", prediction.last_value);
    // Those of the active experts, by name.
    out.object("weights", |out| {
        for ((name, weight), active) in EXPERTS.iter().zip(prediction.weights).zip(settings.active) {
            if active {
                out.number(name, weight);
            }
        }
    });
    if let Some(settled) = settled {
        settled.write(&mut out);
    }
    Event { key: prediction.key.clone(), time, headers: Vec::new(), payload: Bytes::from(out.end()) }
}
