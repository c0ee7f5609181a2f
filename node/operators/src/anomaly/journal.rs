//! How a key's judge is kept: as it stood at the beginning of its window, and the rows since.
//!
//! Every row changes counts in all trees, so each event writes its row alone, and the judge is written
//! once in a window. Reading takes the judge and observes the rows behind it again: it is a function of
//! its rows, so this gives the same one bit for bit.
//!
//! | key | value |
//! | --- | --- |
//! | 0 `h` key | the fields' names, and the judge |
//! | 0 `j` key slot | a row, in a ring as long as a window |
//!
//! Each value begins with a version byte; in names the key has its length before it.

use bytes::Bytes;
use dunlin_protocol::wire::codec;
use serde::{Deserialize, Serialize};

use super::judge::{Judge, Verdict};
use crate::models::state::Unreadable;
use crate::operator::{State, own_key};

const VERSION: u8 = 1;

/// A key's judge in memory.
#[derive(Debug)]
pub struct Kept {
    pub names: Vec<String>,
    judge: Judge,
    window: u32,
}

#[derive(Serialize, Deserialize)]
struct Header {
    names: Vec<String>,
    judge: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    number: u64,
    row: Vec<f64>,
}

impl Kept {
    /// A key that was never seen before.
    pub fn new(names: Vec<String>, window: u32, seed: u64) -> Kept {
        Kept { judge: Judge::new(names.len(), window, seed), names, window }
    }

    /// As it stands in state; none for a key that was never seen.
    pub fn read(key: &[u8], window: u32, state: &mut dyn State) -> Result<Option<Kept>, Unreadable> {
        let Some(bytes) = state.get(&own_key(b'h', key, &[])) else { return Ok(None) };
        let Header { names, judge } = decode(&bytes)?;
        let mut kept = Kept { names, judge: Judge::unpack(&judge)?, window };
        loop {
            let number = kept.judge.seen() + 1;
            let Some(bytes) = state.get(&kept.slot(key, number)) else { break };
            let line: Line = decode(&bytes)?;
            if line.number != number {
                break;
            }
            kept.judge.observe(&line.row);
        }
        Ok(Some(kept))
    }

    /// Rows so far.
    pub fn seen(&self) -> u64 {
        self.judge.seen()
    }

    /// Judges a row of the key, learns it, and keeps that.
    pub fn observe(&mut self, key: &[u8], row: Vec<f64>, state: &mut dyn State) -> Verdict {
        if self.judge.begins() {
            let header = Header { names: self.names.clone(), judge: self.judge.pack() };
            put(state, &own_key(b'h', key, &[]), &header);
        }
        let verdict = self.judge.observe(&row);
        let number = self.judge.seen();
        put(state, &self.slot(key, number), &Line { number, row });
        verdict
    }

    fn slot(&self, key: &[u8], number: u64) -> Vec<u8> {
        let slot = (number % u64::from(self.window.max(1))) as u32;
        own_key(b'j', key, &slot.to_be_bytes())
    }
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => codec::decode(rest).map_err(Unreadable::because),
        Some((version, _)) => Err(Unreadable::because(format!("version {version}, and this is {VERSION}"))),
        None => Err(Unreadable::because("an empty entry")),
    }
}

fn put<T: Serialize>(state: &mut dyn State, name: &[u8], value: &T) {
    let body = codec::encode(value);
    let mut bytes = Vec::with_capacity(1 + body.len());
    bytes.push(VERSION);
    bytes.extend_from_slice(&body);
    state.put(name, Bytes::from(bytes));
}
