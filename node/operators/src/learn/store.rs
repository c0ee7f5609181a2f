//! Keyed state: what stands where.
//!
//! | key | value |
//! | --- | --- |
//! | the event's key | the key's path as a JSON object, for people too (see `record`) |
//! | 0 `m` part page | the model without its lines, in pages |
//! | 0 `r` | the lines, as they were when they were written last |
//! | 0 `n` number | what they have been taught since |
//! | 0 `c` block | cells, likewise |
//! | 0 `l` block | what was left over lately, of groups, likewise |
//! | 0 `j` number | what cells and groups have been taught since (see `ring`) |
//! | 0 `w` key | which of the key's predictions wait: the next number, then due and number of each |
//! | 0 `p` key number | a waiting prediction of a later value (key with its length before it) |
//! | 0 `d` due number | a waiting prediction of a same-row label, in the order of its time |
//! | 0 `k` key | the path of a key that is empty or itself begins with a zero byte |
//!
//! What begins with a zero byte is the stage's own; its values begin with a version byte. Model,
//! paths and cells are read once, kept, and what changed is written, or noted, once per batch; waiting
//! predictions go straight through.

use bytes::Bytes;
use dunlin_protocol::time::Time;
use dunlin_protocol::wire::codec;

use super::blocks::BLOCKS;
use super::cells::Cells;
use super::keys::Keys;
use super::lately::Lately;
use super::lines::Lines;
use super::model::{Model, PARTS};
use super::notes;
use super::pages::Pages;
use super::prediction::Prediction;
use super::ring::Ring;
use super::settings::Settings;
use crate::operator::State;

const VERSION: u8 = 9;
/// Bytes of notes until the lines are written anew, and until the next block of cells or groups is.
const LESSONS: usize = 256 << 10;
const TURN: usize = 32 << 10;
const LINES_KEY: [u8; 2] = [0, b'r'];

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
    pub journal: Journal,
}

/// What was learned and is not written yet where it belongs.
#[derive(Debug)]
pub struct Journal {
    pub lessons: Ring<1>,
    /// Of cells, then of groups.
    pub places: Ring<{ 2 * BLOCKS }>,
}

impl Default for Journal {
    fn default() -> Journal {
        Journal { lessons: Ring::new(b'n', LESSONS), places: Ring::new(b'j', TURN) }
    }
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
            let mut model = if there {
                Model::unpack(self.pages.each_ref().map(Pages::bytes))?
            } else {
                Model::new(settings)
            };
            self.read_lines(&mut model.lines, state)?;
            self.read_places(state)?;
            self.model = Some(model);
        }
        Ok(())
    }

    fn read_lines(&mut self, lines: &mut Lines, state: &mut dyn State) -> Result<(), Unreadable> {
        if let Some(bytes) = state.get(&LINES_KEY) {
            *lines = codec::decode(body(&bytes)?).map_err(|error| Unreadable(error.to_string()))?;
        }
        for noted in self.journal.lessons.read(state)? {
            if self.journal.lessons.lacks(0, &noted) {
                notes::lessons(noted.notes(), |lesson| match lesson {
                    Some(lesson) => drop(lines.learn(lesson)),
                    None => lines.restart(),
                })?;
            }
        }
        Ok(())
    }

    fn read_places(&mut self, state: &mut dyn State) -> Result<(), Unreadable> {
        let Cache { cells, lately, journal: Journal { places, .. }, .. } = self;
        cells.read(state)?;
        lately.read(state)?;
        for noted in places.read(state)? {
            notes::again(noted.notes(), |note| {
                cells.learn(note, |block| places.lacks(block, &noted));
                lately.learn(note, |block| places.lacks(BLOCKS + block, &noted));
            })?;
        }
        Ok(())
    }

    /// Writes what this batch changed.
    pub fn flush(&mut self, state: &mut dyn State) {
        let Cache { model, pages, cells, lately, keys, journal: Journal { lessons, places } } = self;
        if let Some(model) = model {
            for (part, (pages, bytes)) in pages.iter_mut().zip(model.pack()).enumerate() {
                pages.write(part_name(part), bytes, state);
            }
            lessons.flush(state, |_, state| {
                put(state, &LINES_KEY, |out| out.extend_from_slice(&codec::encode(&model.lines)));
            });
        }
        places.flush(state, |unit, state| match unit.checked_sub(BLOCKS) {
            None => cells.write(unit, state),
            Some(block) => lately.write(block, state),
        });
        keys.flush(state);
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
    let mut bytes = Vec::with_capacity(1 + prediction.packed());
    bytes.push(VERSION);
    prediction.pack(&mut bytes);
    state.put(name, Bytes::from(bytes));
}

/// What stands behind the version byte.
pub fn body(bytes: &[u8]) -> Result<&[u8], Unreadable> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => Ok(rest),
        Some((version, _)) => Err(Unreadable(format!("version {version}, and this is {VERSION}"))),
        None => Err(Unreadable("an empty entry".to_string())),
    }
}

pub fn put(state: &mut dyn State, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = Vec::with_capacity(1024);
    bytes.push(VERSION);
    write(&mut bytes);
    state.put(key, Bytes::copy_from_slice(&bytes));
}
