//! The operator: an event's numbers are judged among those before it, and what is said goes out.

use std::collections::BTreeMap;

use bytes::Bytes;
use dunlin_protocol::effect::{Again, CallError, Invoked};
use dunlin_protocol::event::Event;
use dunlin_protocol::pipeline::manifest::AnomalySpec;
use dunlin_protocol::time::Time;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::journal::Kept;
use super::judge::Verdict;
use crate::learn::{number, path_key};
use crate::models::half_space::INPUTS_MAX;
use crate::models::state::Unreadable;
use crate::operator::{FromHead, Handled, Operator, State};

/// Keys whose trees stay in memory between batches, some 300 KB each. Beyond: half of them go, those not
/// used for longest, and are read again when their key comes.
const KEYS_MAX: usize = 256;

/// The built-in `anomaly`.
#[derive(Debug)]
pub struct Anomaly {
    spec: AnomalySpec,
    keys: BTreeMap<Bytes, Entry>,
    /// Counts events: when a key was used.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    kept: Kept,
    used: u64,
    /// What was said last, and at what time.
    last: Option<(Time, Verdict)>,
}

#[derive(Serialize)]
struct Line<'a> {
    key: &'a str,
    at: String,
    score: f64,
    tail_probability: f64,
    features: Features<'a>,
}

/// What was judged; null where it was missing.
struct Features<'a>(&'a [String], &'a [f64]);

impl Serialize for Features<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0.iter().zip(self.1) {
            map.serialize_entry(name, &value.is_finite().then_some(*value))?;
        }
        map.end()
    }
}

/// What people see of a key.
#[derive(Serialize)]
struct Record {
    count: u64,
    last_at: String,
    score: f64,
    tail_probability: f64,
}

impl Anomaly {
    /// An error is one sentence for whoever wrote the `anomaly` table.
    pub fn new(spec: &AnomalySpec) -> Result<Anomaly, String> {
        if let Some(names) = &spec.features
            && names.len() > INPUTS_MAX
        {
            return Err(format!(
                "features names {} fields, more than {INPUTS_MAX}: make it several stages",
                names.len()
            ));
        }
        if spec.window == 0 {
            return Err("window = 0 compares with nothing: write how many events, as 250".to_string());
        }
        Ok(Anomaly { spec: spec.clone(), keys: BTreeMap::new(), clock: 0 })
    }

    fn one(
        &mut self,
        event: &Event,
        payload: &Map<String, Value>,
        state: &mut dyn State,
    ) -> Result<Event, Unreadable> {
        let Anomaly { spec, keys, clock } = &mut *self;
        let key = &event.key;
        if !keys.contains_key(key) {
            let kept = match Kept::read(key, spec.window, state)? {
                Some(kept) => kept,
                None => Kept::new(names(spec, payload), spec.window, spec.seed),
            };
            // An event's key is a part of all that came with it.
            keys.insert(Bytes::copy_from_slice(key), Entry { kept, used: 0, last: None });
        }
        let mut verdict = Verdict { score: 0.0, tail: 1.0 };
        let Some(Entry { kept, used, last }) = keys.get_mut(key) else {
            return Ok(said(event, &[], &[], verdict));
        };
        *clock += 1;
        *used = *clock;
        if kept.names.is_empty() && kept.seen() == 0 {
            // None of its events so far had a number.
            *kept = Kept::new(names(spec, payload), spec.window, spec.seed);
        }
        let value = |name: &String| number(payload.get(name)).unwrap_or(f64::NAN);
        let row: Vec<f64> = kept.names.iter().map(value).collect();
        if !row.is_empty() {
            verdict = kept.observe(key, row.clone(), state);
            *last = Some((event.time, verdict));
        }
        Ok(said(event, &kept.names, &row, verdict))
    }

    /// What people read of the keys that this batch touched.
    fn flush(&mut self, before: u64, state: &mut dyn State) {
        for (key, Entry { kept, last, .. }) in self.keys.iter().filter(|(_, entry)| entry.used > before) {
            let Some((at, Verdict { score, tail })) = *last else { continue };
            let record =
                Record { count: kept.seen(), last_at: at.to_rfc3339(), score, tail_probability: tail };
            let record = serde_json::to_vec(&record).unwrap_or_default();
            state.put(&path_key(key), Bytes::from(record));
        }
        if self.keys.len() > KEYS_MAX {
            let mut used: Vec<u64> = self.keys.values().map(|entry| entry.used).collect();
            used.sort_unstable();
            let from = used.get(used.len() / 2).copied().unwrap_or(0);
            self.keys.retain(|_, entry| entry.used > from);
        }
    }
}

fn said(event: &Event, names: &[String], row: &[f64], verdict: Verdict) -> Event {
    let line = Line {
        key: core::str::from_utf8(&event.key).unwrap_or(""),
        at: event.time.to_rfc3339(),
        score: verdict.score,
        tail_probability: verdict.tail,
        features: Features(names, row),
    };
    // Plain numbers and texts always serialise.
    let payload = serde_json::to_vec(&line).unwrap_or_default();
    Event { key: event.key.clone(), time: event.time, headers: Vec::new(), payload: Bytes::from(payload) }
}

/// The fields that are judged: those asked for, or every number of a key's first event.
fn names(spec: &AnomalySpec, payload: &Map<String, Value>) -> Vec<String> {
    match &spec.features {
        Some(names) => names.clone(),
        None => {
            let numbers = payload.iter().filter(|(_, value)| number(Some(value)).is_some());
            numbers.map(|(name, _)| name.clone()).take(INPUTS_MAX).collect()
        }
    }
}

impl Operator for Anomaly {
    fn handle(&mut self, batch: &[Invoked], _now: Time, state: &mut dyn State) -> Result<Handled, CallError> {
        let mut handled = Handled::default();
        let before = self.clock;
        for (index, invoked) in batch.iter().enumerate() {
            let event = &invoked.placed.event;
            let cause = index as u32;
            let Some(payload) = handled.fields_of(cause, event, "anomaly") else { continue };
            let event = self.one(event, &payload, state).map_err(|error| CallError {
                stage: String::new(),
                reason: error.to_string(),
                again: Again::Never,
            })?;
            handled.emitted.push(FromHead { cause, side: None, event });
        }
        self.flush(before, state);
        Ok(handled)
    }

    fn forget(&mut self) {
        self.keys.clear();
    }
}
