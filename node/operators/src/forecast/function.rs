//! The operator: an event's row joins its key's model, what it settles is scored, a forecast goes out.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dunlin_protocol::effect::{Again, CallError, Invoked};
use dunlin_protocol::event::Event;
use dunlin_protocol::limits::COMMIT_BYTES_MAX;
use dunlin_protocol::pipeline::manifest::{ForecastSpec, Horizon};
use dunlin_protocol::time::Time;
use serde_json::{Map, Value};

use super::fields::FIELDS_MAX;
use super::journal::{Kept, Unreadable};
use super::model::Row;
use super::origin::Settled;
use super::payload::{self, Said};
use super::settings::Settings;
use crate::learn::{number, path_key};
use crate::operator::{FromHead, Handled, Operator, State};
use crate::running::{Ahead, Running};

/// The side output `scores`.
const SCORES: u16 = 0;
/// Numbers that the models in memory may hold between batches. Beyond: those not used for longest go,
/// half of it all, and are read again when their key comes.
const NUMBERS_MAX: usize = 32 << 20;

/// The built-in `forecast`.
#[derive(Debug)]
pub struct Forecast {
    settings: Settings,
    keys: BTreeMap<Bytes, Entry>,
    /// Counts events: when a key was used.
    clock: u64,
    running: Running,
}

#[derive(Debug)]
struct Entry {
    kept: Kept,
    used: u64,
}

impl Forecast {
    /// An error is one sentence for whoever wrote the `forecast` table.
    pub fn new(spec: &ForecastSpec) -> Result<Forecast, String> {
        let (settings, running) = (Settings::of(spec)?, Running::default());
        Ok(Forecast { settings, keys: BTreeMap::new(), clock: 0, running })
    }

    fn one(
        &mut self,
        event: &Event,
        payload: &Map<String, Value>,
        state: &mut dyn State,
        mut emit: impl FnMut(Option<u16>, Event),
    ) -> Result<(), Unreadable> {
        let Forecast { settings, keys, clock, running } = &mut *self;
        let key = &event.key;
        if !keys.contains_key(key) {
            let kept = match Kept::read(settings, key, state)? {
                Some(kept) => kept,
                None => Kept::new(settings, names(settings, payload)),
            };
            // An event's key is a part of all that came with it.
            keys.insert(Bytes::copy_from_slice(key), Entry { kept, used: 0 });
        }
        let Some(Entry { kept, used }) = keys.get_mut(key) else { return Ok(()) };
        *clock += 1;
        *used = *clock;
        // An event older than the newest one of its key teaches nothing: it gets the newest forecast.
        let teaches = event.time >= kept.model.last_at();
        if teaches {
            let row = Row {
                at: event.time,
                targets: settings.targets.iter().map(|name| number(payload.get(name))).collect(),
                fields: kept.names().iter().map(|name| number(payload.get(name))).collect(),
            };
            let before: Vec<u64> = kept.model.tracks.iter().map(|track| track.drifts).collect();
            let settled = kept.model.observe(settings, &row);
            for ((name, track), before) in settings.targets.iter().zip(&kept.model.tracks).zip(before) {
                running.drifted(name, track.drifts - before);
            }
            kept.wrote(key, &row, state);
            settled.iter().for_each(|(target, one)| scored(running, settings, *target, one));
            let origins: BTreeSet<Time> = settled.iter().map(|(_, one)| one.forecast.at).collect();
            for at in origins {
                let of = settled.iter().filter(|(_, one)| one.forecast.at == at);
                let said: Vec<Said<'_>> = of
                    .filter_map(|(target, one)| {
                        let track = kept.model.tracks.get(*target)?;
                        let settled = Some((one, track));
                        Some(Said { target: *target, forecast: &one.forecast, tail: one.tail, settled })
                    })
                    .collect();
                emit(Some(SCORES), payload::event(settings, key, at, Some(event.time), &said));
            }
        }
        let tracks = kept.model.tracks.iter().enumerate();
        let said: Vec<Said<'_>> = tracks
            .filter_map(|(target, track)| {
                let forecast = track.latest()?;
                let tail = forecast.tail.filter(|_| teaches);
                Some(Said { target, forecast, tail, settled: None })
            })
            .collect();
        emit(None, payload::event(settings, key, event.time, None, &said));
        Ok(())
    }

    /// What people read of the keys that this batch touched.
    fn flush(&mut self, before: u64, state: &mut dyn State) {
        for (key, Entry { kept, .. }) in self.keys.iter().filter(|(_, entry)| entry.used > before) {
            let model = &kept.model;
            let record = payload::record(&self.settings, model.seen(), model.last_at(), &model.tracks);
            state.put(&path_key(key), record);
        }
        let each = self.settings.numbers();
        if self.keys.len().saturating_mul(each) > NUMBERS_MAX {
            let mut used: Vec<u64> = self.keys.values().map(|entry| entry.used).collect();
            used.sort_unstable();
            let from = used.get(used.len() / 2).copied().unwrap_or(0);
            self.keys.retain(|_, entry| entry.used > from);
        }
    }
}

/// The first, the middle and the last horizon of a forecast that is settled.
fn scored(running: &mut Running, settings: &Settings, target: usize, one: &Settled) {
    let Some(name) = settings.targets.get(target) else { return };
    let last = settings.horizons().saturating_sub(1);
    let mut places = vec![0, settings.horizons() / 2, last];
    if let Some(middle) = places.get_mut(1) {
        *middle = middle.saturating_sub(1);
    }
    places.dedup();
    let errors = places.into_iter().filter_map(|place| {
        let ahead = match &settings.horizon {
            Horizon::Steps(_) => Ahead::Steps(place as u64 + 1),
            Horizon::Spans(spans) => Ahead::Millis(spans.get(place)?.0),
        };
        let (truth, said) = (one.truth.get(place)?, one.forecast.value.get(place)?);
        Some((ahead, ((truth - said).abs(), (truth - one.forecast.last_value).abs())))
    });
    running.settled(name, errors);
}

/// The fields beside the targets: those asked for, or every number of a key's first event.
fn names(settings: &Settings, payload: &Map<String, Value>) -> Vec<String> {
    match &settings.features {
        Some(names) => names.iter().take(FIELDS_MAX).cloned().collect(),
        None => {
            let numbers = payload.iter().filter(|(_, value)| number(Some(value)).is_some());
            let names: Vec<String> = numbers.map(|(name, _)| name.clone()).take(FIELDS_MAX).collect();
            // The only target alone is no field beside itself.
            if names.iter().all(|name| settings.targets == [name.as_str()]) { Vec::new() } else { names }
        }
    }
}

impl Operator for Forecast {
    fn handle(&mut self, batch: &[Invoked], _now: Time, state: &mut dyn State) -> Result<Handled, CallError> {
        let mut handled = Handled::default();
        let (before, mut bytes) = (self.clock, 0usize);
        self.running.read(state);
        for (index, invoked) in batch.iter().enumerate() {
            let event = &invoked.placed.event;
            let cause = index as u32;
            let Some(payload) = handled.fields_of(cause, event, "forecast") else { continue };
            let out = &mut handled.emitted;
            self.one(event, &payload, state, |side, event| {
                bytes += event.payload.len() + event.key.len();
                out.push(FromHead { cause, side, event });
            })
            .map_err(|error| refused(error.to_string(), Again::Never))?;
            if bytes > COMMIT_BYTES_MAX && batch.len() > 1 {
                // Halves will be tried; there is no use in making the rest first.
                let reason = "the forecasts of one batch are more than a commit holds".to_string();
                return Err(refused(reason, Again::Maybe));
            }
        }
        self.flush(before, state);
        self.running.write(state);
        Ok(handled)
    }

    fn forget(&mut self) {
        self.keys.clear();
        self.running = Running::default();
    }
}

fn refused(reason: String, again: Again) -> CallError {
    CallError { stage: String::new(), reason, again }
}
