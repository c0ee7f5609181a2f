//! Keyed state: what stands where, and the cache over it.
//!
//! | key | value |
//! | --- | --- |
//! | `m` | the model |
//! | `k` key | the key's series |
//! | `c` number | a cell |
//! | `p` key id | a waiting prediction of a later value (key with its length before it) |
//! | `d` due id | a waiting prediction of a same-row label, in the order of its time |
//!
//! Every value begins with a version byte. Model, series and cells are read once, kept, and
//! written once per batch; waiting predictions go straight through.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dunlin_protocol::time::Time;
use dunlin_protocol::wire::codec;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cells::Cell;
use super::model::{Model, Prediction};
use super::series::Series;
use super::settings::Settings;
use crate::operator::State;

const VERSION: u8 = 1;
/// Series kept in memory from one batch to the next. Beyond: all are read again.
const SERIES_MAX: usize = 20_000;

/// Why state could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the model in keyed state cannot be read ({0}): give the stage another name, so that it learns anew")]
pub struct Unreadable(String);

#[derive(Debug, Default)]
pub struct Cache {
    pub model: Option<Model>,
    series: BTreeMap<Bytes, Series>,
    touched: BTreeSet<Bytes>,
    cells: BTreeMap<u16, Cell>,
    changed: BTreeSet<u16>,
}

impl Cache {
    pub fn clear(&mut self) {
        *self = Cache::default();
    }

    pub fn model(&mut self, settings: &Settings, state: &mut dyn State) -> Result<&mut Model, Unreadable> {
        let model = match self.model.take() {
            Some(model) => model,
            None => load(state, b"m")?.unwrap_or_else(|| Model::new(settings)),
        };
        Ok(self.model.insert(model))
    }

    /// The key's series, to be changed.
    pub fn series(&mut self, key: &Bytes, state: &mut dyn State) -> Result<&mut Series, Unreadable> {
        if !self.series.contains_key(key) {
            let series = load(state, &named(b'k', key))?.unwrap_or_default();
            self.series.insert(key.clone(), series);
        }
        if !self.touched.contains(key) {
            self.touched.insert(key.clone());
        }
        Ok(self.series.entry(key.clone()).or_default())
    }

    /// The cells with these numbers are in memory afterwards.
    pub fn load_cells(
        &mut self,
        numbers: impl Iterator<Item = u16>,
        state: &mut dyn State,
    ) -> Result<(), Unreadable> {
        for number in numbers {
            if let Entry::Vacant(place) = self.cells.entry(number) {
                place.insert(load(state, &named(b'c', &number.to_be_bytes()))?.unwrap_or_default());
            }
        }
        Ok(())
    }

    pub fn cells(&self) -> &BTreeMap<u16, Cell> {
        &self.cells
    }

    pub fn put_cell(&mut self, number: u16, cell: Cell) {
        self.cells.insert(number, cell);
        self.changed.insert(number);
    }

    /// Writes what this batch changed.
    pub fn flush(&mut self, state: &mut dyn State) {
        if let Some(model) = &self.model {
            save(state, b"m", model);
        }
        for key in core::mem::take(&mut self.touched) {
            if let Some(series) = self.series.get(&key) {
                save(state, &named(b'k', &key), series);
            }
        }
        for number in core::mem::take(&mut self.changed) {
            if let Some(cell) = self.cells.get(&number) {
                save(state, &named(b'c', &number.to_be_bytes()), cell);
            }
        }
        if self.series.len() > SERIES_MAX {
            self.series.clear();
        }
    }
}

/// Where a waiting prediction of a later value stands.
pub fn waiting_key(key: &[u8], id: u64) -> Vec<u8> {
    let mut name = vec![b'p'];
    name.extend_from_slice(&(key.len() as u32).to_be_bytes());
    name.extend_from_slice(key);
    name.extend_from_slice(&id.to_be_bytes());
    name
}

/// Where a waiting prediction of a same-row label stands.
pub fn due_key(due: Time, id: u64) -> Vec<u8> {
    let mut name = vec![b'd'];
    name.extend_from_slice(&due.0.to_be_bytes());
    name.extend_from_slice(&id.to_be_bytes());
    name
}

/// The first waiting same-row prediction, with its key.
pub fn first_due(state: &mut dyn State) -> Result<Option<(Bytes, Prediction)>, Unreadable> {
    match state.scan(b"d", 1).into_iter().next() {
        Some((key, value)) => Ok(Some((key, decode(&value)?))),
        None => Ok(None),
    }
}

fn named(kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(rest.len() + 1);
    name.push(kind);
    name.extend_from_slice(rest);
    name
}

pub fn load<T: DeserializeOwned>(state: &mut dyn State, key: &[u8]) -> Result<Option<T>, Unreadable> {
    state.get(key).map(|bytes| decode(&bytes)).transpose()
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => codec::decode(rest).map_err(|error| Unreadable(error.to_string())),
        Some((version, _)) => Err(Unreadable(format!("version {version}, and this is {VERSION}"))),
        None => Err(Unreadable("an empty entry".to_string())),
    }
}

pub fn save<T: Serialize>(state: &mut dyn State, key: &[u8], value: &T) {
    let encoded = codec::encode(value);
    let mut bytes = Vec::with_capacity(encoded.len() + 1);
    bytes.push(VERSION);
    bytes.extend_from_slice(&encoded);
    state.put(key, Bytes::from(bytes));
}
