//! What goes out: a prediction, and the same with its scores once it is settled.

use bytes::Bytes;
use dunlin_protocol::event::Event;
use dunlin_protocol::time::Time;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::prediction::Prediction;
use super::scores::Running;
use super::settings::{EXPERTS, Settings};

#[derive(Serialize)]
struct Line<'a> {
    key: &'a str,
    at: String,
    due: String,
    value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    probability: Option<f64>,
    low: f64,
    high: f64,
    last_value: f64,
    weights: Weights<'a>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    settled: Option<Settled>,
}

/// Those of the active experts, by name.
struct Weights<'a>(&'a Settings, &'a [f64; EXPERTS.len()]);

impl Serialize for Weights<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for ((name, weight), active) in EXPERTS.iter().zip(self.1).zip(self.0.active) {
            if active {
                map.serialize_entry(name, weight)?;
            }
        }
        map.end()
    }
}

/// How a prediction came out.
#[derive(Debug, Serialize)]
pub struct Settled {
    #[serde(serialize_with = "rfc3339")]
    pub settled_at: Time,
    /// What the interval was to cover.
    pub interval: f64,
    pub truth: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub happened: Option<bool>,
    pub absolute_error: f64,
    pub absolute_error_last_value: f64,
    /// Drift marks of the share so far.
    pub drifts: u64,
    pub running: Running,
}

fn rfc3339<S: Serializer>(at: &Time, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&at.to_rfc3339())
}

/// The event that carries `prediction`; at its own time, or at that of its settling.
pub fn event(settings: &Settings, prediction: &Prediction, settled: Option<Settled>) -> Event {
    let time = settled.as_ref().map_or(prediction.at, |settled| settled.settled_at);
    let line = Line {
        key: core::str::from_utf8(&prediction.key).unwrap_or(""),
        at: prediction.at.to_rfc3339(),
        due: prediction.due.to_rfc3339(),
        value: prediction.value,
        probability: prediction.probability,
        low: prediction.low,
        high: prediction.high,
        last_value: prediction.last_value,
        weights: Weights(settings, &prediction.weights),
        settled,
    };
    let mut payload = Vec::with_capacity(640);
    // Plain numbers and texts always serialise.
    if serde_json::to_writer(&mut payload, &line).is_err() {
        payload.clear();
    }
    Event { key: prediction.key.clone(), time, headers: Vec::new(), payload: Bytes::from(payload) }
}
