//! How a key's model is kept: a snapshot now and then, and the rows since.
//!
//! Every row changes nearly all of a model, which is large beside the row. So each event writes its
//! row, and the model is written out once in [`EVERY`] rows, a piece per event, so that no commit
//! grows large at once. Reading takes the newest whole snapshot and observes the rows behind it again:
//! the model is a function of its rows, so this gives the same model bit for bit.
//!
//! | key | value |
//! | --- | --- |
//! | 0 `u` | how the share does, for people (see `running`) |
//! | 0 `h` key | which snapshot is whole, and the fields' names |
//! | 0 `s` key turn piece | a piece of a snapshot (two turns: the whole one, the one in the making) |
//! | 0 `j` key slot | a row, in a ring of [`SLOTS`] |
//!
//! Each value begins with a version byte; in names the key has its length before it.

use bytes::Bytes;
use dunlin_protocol::wire::codec;
use serde::{Deserialize, Serialize};

use super::model::{Model, Row};
use super::settings::Settings;
use crate::operator::{State, own_key};

const VERSION: u8 = 3;
/// Rows from one snapshot to the next.
const EVERY: u64 = 128;
/// Pieces of a snapshot at most, one per event; and how long a piece is at least.
const PIECES: usize = 64;
const PIECE_BYTES_MIN: usize = 4 << 10;
/// Rows that are kept: those since the whole snapshot, while the next one is in the making.
const SLOTS: u64 = 256;

/// Why state could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the forecaster in keyed state cannot be read ({0}): give the stage another name, so that it learns anew"
)]
pub struct Unreadable(String);

/// What stands of a key's model in state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Header {
    names: Vec<String>,
    /// Rows that the whole snapshot holds; none: there is no snapshot yet.
    base: u64,
    turn: u8,
    pieces: u32,
}

/// A key's model in memory, and how far it is written.
#[derive(Debug)]
pub struct Kept {
    pub model: Model,
    header: Header,
    making: Option<Making>,
}

/// A snapshot that is being written.
#[derive(Debug)]
struct Making {
    base: u64,
    bytes: Vec<u8>,
    written: u32,
}

impl Kept {
    /// A key that was never seen before.
    pub fn new(settings: &Settings, names: Vec<String>) -> Kept {
        let model = Model::new(settings, &names);
        Kept { model, header: Header { names, base: 0, turn: 0, pieces: 0 }, making: None }
    }

    /// As it stands in state; none for a key that was never seen.
    pub fn read(settings: &Settings, key: &[u8], state: &mut dyn State) -> Result<Option<Kept>, Unreadable> {
        let Some(bytes) = state.get(&header_key(key)) else { return Ok(None) };
        let header: Header = decode(&bytes)?;
        let model = if header.base == 0 {
            Model::new(settings, &header.names)
        } else {
            let mut bytes = Vec::new();
            for piece in 0..header.pieces {
                let stored = state.get(&piece_key(key, header.turn, piece));
                let stored = stored.ok_or_else(|| Unreadable("a piece of the snapshot is missing".into()))?;
                bytes.extend_from_slice(body(&stored)?);
            }
            Model::unpack(&bytes).ok_or_else(|| Unreadable("the snapshot has another form".into()))?
        };
        if model.tracks.len() != settings.targets.len() {
            return Err(Unreadable("the snapshot has other targets".into()));
        }
        let mut kept = Kept { model, header, making: None };
        loop {
            let number = kept.model.seen() + 1;
            let Some(bytes) = state.get(&row_key(key, number)) else { break };
            let (written, row): (u64, Row) = decode(&bytes)?;
            if written != number {
                break;
            }
            kept.model.observe(settings, &row);
            kept.went_on(key, None);
        }
        Ok(Some(kept))
    }

    pub fn names(&self) -> &[String] {
        &self.header.names
    }

    /// The model has observed `row`: keeps that.
    pub fn wrote(&mut self, key: &[u8], row: &Row, state: &mut dyn State) {
        let number = self.model.seen();
        if number == 1 {
            put(state, &header_key(key), &codec::encode(&self.header));
        }
        put(state, &row_key(key, number), &codec::encode(&(number, row)));
        self.went_on(key, Some(state));
    }

    /// One row more. Without a state, what would be written stands there already.
    fn went_on(&mut self, key: &[u8], state: Option<&mut (dyn State + '_)>) {
        let number = self.model.seen();
        if let Some(making) = &mut self.making {
            let turn = self.header.turn ^ 1;
            let length = making.bytes.len().div_ceil(PIECES).max(PIECE_BYTES_MIN);
            let pieces = making.bytes.len().div_ceil(length) as u32;
            let from = making.written as usize * length;
            let to = making.bytes.len().min(from + length);
            let piece = making.bytes.get(from..to).unwrap_or(&[]);
            making.written += 1;
            let done = making.written >= pieces;
            if done {
                self.header = Header { base: making.base, turn, pieces, ..self.header.clone() };
            }
            if let Some(state) = state {
                put(state, &piece_key(key, turn, making.written - 1), piece);
                if done {
                    put(state, &header_key(key), &codec::encode(&self.header));
                }
            }
            if done {
                self.making = None;
            }
        }
        // Keys that are observed in step do not all do this at one event.
        let offset = key.iter().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
        if self.making.is_none() && number.wrapping_add(offset).is_multiple_of(EVERY) {
            self.making = Some(Making { base: number, bytes: self.model.pack(), written: 0 });
        }
    }
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    codec::decode(body(bytes)?).map_err(|error| Unreadable(error.to_string()))
}

/// What stands behind the version byte.
fn body(bytes: &[u8]) -> Result<&[u8], Unreadable> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => Ok(rest),
        Some((version, _)) => Err(Unreadable(format!("version {version}, and this is {VERSION}"))),
        None => Err(Unreadable("an empty entry".to_string())),
    }
}

fn put(state: &mut dyn State, name: &[u8], value: &[u8]) {
    let mut bytes = Vec::with_capacity(1 + value.len());
    bytes.push(VERSION);
    bytes.extend_from_slice(value);
    state.put(name, Bytes::from(bytes));
}

fn header_key(key: &[u8]) -> Vec<u8> {
    own_key(b'h', key, &[])
}

fn piece_key(key: &[u8], turn: u8, piece: u32) -> Vec<u8> {
    let [a, b, c, d] = piece.to_be_bytes();
    own_key(b's', key, &[turn, a, b, c, d])
}

fn row_key(key: &[u8], number: u64) -> Vec<u8> {
    own_key(b'j', key, &((number % SLOTS) as u16).to_be_bytes())
}
