//! All that is known of one key: its fields, and a track per target.

use dunlin_protocol::time::Time;
use dunlin_protocol::wire::codec;
use serde::{Deserialize, Serialize};

use super::fields::Fields;
use super::origin::Settled;
use super::settings::Settings;
use super::track::Track;
use crate::learn::pack::Unpack;

/// What a model takes from an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub at: Time,
    /// By target, then by field.
    pub targets: Vec<Option<f64>>,
    pub fields: Vec<Option<f64>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    head: Head,
    pub tracks: Vec<Track>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Head {
    /// Events so far.
    seen: u64,
    last_at: Time,
    fields: Fields,
    /// Each target's place among the fields.
    own: Vec<Option<usize>>,
}

impl Model {
    /// `names`: those of the fields.
    pub fn new(settings: &Settings, names: &[String]) -> Model {
        let own = settings.targets.iter().map(|target| names.iter().position(|name| name == target));
        let track = |_| Track::new(settings, names.len());
        Model {
            head: Head { seen: 0, last_at: Time(0), fields: Fields::new(names.len()), own: own.collect() },
            tracks: (0..settings.targets.len()).map(track).collect(),
        }
    }

    pub fn seen(&self) -> u64 {
        self.head.seen
    }

    pub fn last_at(&self) -> Time {
        self.head.last_at
    }

    /// Takes a row in. Gives, with their target's place, the forecasts whose last outcome it brought.
    pub fn observe(&mut self, settings: &Settings, row: &Row) -> Vec<(usize, Settled)> {
        let Head { seen, last_at, fields, own } = &mut self.head;
        *seen += 1;
        *last_at = row.at;
        if fields.observe(&row.fields) {
            self.tracks.iter_mut().for_each(|track| track.rescale_fields(fields));
        }
        let mut settled = Vec::new();
        for (index, (track, value)) in self.tracks.iter_mut().zip(&row.targets).enumerate() {
            let Some(value) = value else {
                track.pass();
                continue;
            };
            let own = own.get(index).copied().flatten();
            let done = track.observe(settings, row.at, *value, fields, own);
            settled.extend(done.into_iter().map(|one| (index, one)));
        }
        settled
    }

    pub fn pack(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let parts = core::iter::once(codec::encode(&self.head)).chain(self.tracks.iter().map(codec::encode));
        for part in parts {
            out.extend_from_slice(&(part.len() as u64).to_le_bytes());
            out.extend_from_slice(&part);
        }
        out
    }

    pub fn unpack(bytes: &[u8]) -> Option<Model> {
        let mut from = Unpack(bytes);
        let part = |from: &mut Unpack<'_>| {
            let length = usize::try_from(from.word()?).ok()?;
            Some(from.bytes(length)?.to_vec())
        };
        let head = codec::decode(&part(&mut from)?).ok()?;
        let mut tracks = Vec::new();
        while !from.0.is_empty() {
            tracks.push(codec::decode(&part(&mut from)?).ok()?);
        }
        Some(Model { head, tracks })
    }
}
