//! Keyed state: what stands where.
//!
//! | key | value |
//! | --- | --- |
//! | the event's key | the key's path as a JSON object, for people too (see `record`) |
//! | 0 `u` | how the share does, for people (see `running`) |
//! | 0 `m` part page | the model, in pages |
//! | 0 `c` number | a cell |
//! | 0 `l` number | what was left over lately, of a group |
//! | 0 `w` key | which of the key's predictions wait: the next number, then due and number of each |
//! | 0 `p` key number | a waiting prediction of a later value (key with its length before it) |
//! | 0 `d` due number | a waiting prediction of a same-row label, in the order of its time |
//! | 0 `k` key | the path of a key that is empty or itself begins with a zero byte |
//!
//! What begins with a zero byte is the stage's own; its values begin with a version byte. Model,
//! paths and cells are read once, kept, and what changed is written once per batch; waiting predictions go straight
//! through.

use bytes::Bytes;
use dunlin_protocol::time::Time;

use super::cells::Cells;
use super::keys::Keys;
use super::lately::Lately;
use super::model::{Model, PARTS};
use super::pages::Pages;
use super::prediction::Prediction;
use super::settings::Settings;
use crate::operator::State;

const VERSION: u8 = 9;

/// Why state could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the model in keyed state cannot be read ({0}): give the stage another name, so that it learns anew")]
pub struct Unreadable(pub String);

impl Unreadable {
    pub fn cut(what: &str) -> Unreadable {
        Unreadable(format!("{what} has another length than this version writes"))
    }
}

/// What is kept in memory from one batch to the next.
#[derive(Debug, Default)]
pub struct Cache {
    pub model: Option<Model>,
    /// The model as it stands in state.
    pages: [Pages; PARTS],
    pub cells: Cells,
    pub lately: Lately,
    pub keys: Keys,
}

impl Cache {
    pub fn clear(&mut self) {
        *self = Cache::default();
    }

    /// The model, in memory from here on.
    pub fn read_model(&mut self, settings: &Settings, state: &mut dyn State) -> Result<(), Unreadable> {
        if self.model.is_none() {
            // Versions up to 4 wrote it in one piece.
            if let Some(bytes) = state.get(&[0, b'm']) {
                body(&bytes)?;
            }
            let mut there = false;
            for (part, pages) in self.pages.iter_mut().enumerate() {
                let read = Pages::read(part_name(part), state)?;
                there |= read.is_some();
                *pages = read.unwrap_or_default();
            }
            let model = if there {
                Model::unpack(self.pages.each_ref().map(Pages::bytes))?
            } else {
                Model::new(settings)
            };
            self.model = Some(model);
        }
        Ok(())
    }

    /// Writes what this batch changed.
    pub fn flush(&mut self, state: &mut dyn State) {
        if let Some(model) = &self.model {
            for (part, (pages, bytes)) in self.pages.iter_mut().zip(model.pack()).enumerate() {
                pages.write(part_name(part), bytes, state);
            }
        }
        self.keys.flush(state);
        self.cells.flush(state);
        self.lately.flush(state);
    }
}

fn part_name(part: usize) -> [u8; 3] {
    [0, b'm', part as u8]
}

/// Where a key's path stands.
pub fn path_key(key: &Bytes) -> Bytes {
    match key.first() {
        None | Some(0) => Bytes::from(own(b'k', &[key])),
        Some(_) => key.clone(),
    }
}

pub fn cell_key(number: u16) -> [u8; 4] {
    let [high, low] = number.to_be_bytes();
    [0, b'c', high, low]
}

pub fn lately_key(number: u16) -> [u8; 4] {
    let [high, low] = number.to_be_bytes();
    [0, b'l', high, low]
}

/// Where it stands which predictions of the key wait.
pub fn index_key(key: &[u8]) -> Vec<u8> {
    own(b'w', &[key])
}

/// Where a waiting prediction of a later value stands.
pub fn waiting_key(key: &[u8], id: u64) -> Vec<u8> {
    own(b'p', &[&(key.len() as u32).to_be_bytes(), key, &id.to_be_bytes()])
}

/// Where a waiting prediction of a same-row label stands.
pub fn due_key(due: Time, id: u64) -> Vec<u8> {
    own(b'd', &[&due.0.to_be_bytes(), &id.to_be_bytes()])
}

fn own(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut name = Vec::with_capacity(2 + parts.iter().map(|part| part.len()).sum::<usize>());
    name.extend_from_slice(&[0, kind]);
    parts.iter().for_each(|part| name.extend_from_slice(part));
    name
}

/// The first waiting same-row prediction, with its key.
pub fn first_due(state: &mut dyn State) -> Result<Option<(Bytes, Prediction)>, Unreadable> {
    match state.scan(b"\0d", 1).into_iter().next() {
        Some((key, value)) => Ok(Some((key, unpack(&value)?))),
        None => Ok(None),
    }
}

pub fn prediction(state: &mut dyn State, name: &[u8]) -> Result<Option<Prediction>, Unreadable> {
    state.get(name).map(|bytes| unpack(&bytes)).transpose()
}

fn unpack(bytes: &[u8]) -> Result<Prediction, Unreadable> {
    Prediction::unpack(body(bytes)?).ok_or_else(|| Unreadable::cut("a waiting prediction"))
}

pub fn put_prediction(state: &mut dyn State, name: &[u8], prediction: &Prediction) {
    put(state, name, prediction.packed_len(), |out| prediction.pack(out));
}

/// What stands behind the version byte.
pub fn body(bytes: &[u8]) -> Result<&[u8], Unreadable> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => Ok(rest),
        Some((version, _)) => Err(Unreadable(format!("version {version}, and this is {VERSION}"))),
        None => Err(Unreadable("an empty entry".to_string())),
    }
}

/// `size`: how many bytes `write` will add.
pub fn put(state: &mut dyn State, key: &[u8], size: usize, write: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = Vec::with_capacity(1 + size);
    bytes.push(VERSION);
    write(&mut bytes);
    state.put(key, Bytes::from(bytes));
}

/// Entries of one size, written side by side: they share one piece of memory until they are stored.
pub fn put_all<const N: usize>(
    state: &mut dyn State,
    size: usize,
    entries: impl ExactSizeIterator<Item = ([u8; N], impl FnOnce(&mut Vec<u8>))>,
) {
    let mut bytes = Vec::with_capacity(entries.len() * (1 + size));
    let ends = entries.map(|(key, write)| {
        bytes.push(VERSION);
        write(&mut bytes);
        (key, bytes.len())
    });
    let ends: Vec<([u8; N], usize)> = ends.collect();
    let (mut bytes, mut begin) = (Bytes::from(bytes), 0);
    for (key, end) in ends {
        state.put(&key, bytes.split_to(end - begin));
        begin = end;
    }
}
