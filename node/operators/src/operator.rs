//! What a head function is: batches in; events, state changes and failures out.

use bytes::Bytes;
use dunlin_protocol::effect::{Again, CallError, FailedEvent, Invoked};
use dunlin_protocol::event::Event;
use dunlin_protocol::log::record::{Observed, TimerChange};
use dunlin_protocol::time::Time;
use serde_json::{Map, Value};

/// An actor's keyed state as one call sees it: what is committed, then what earlier calls of the
/// same commit staged, then what this call did. The host keeps the changes; a failed call's go.
pub trait State {
    fn get(&mut self, key: &[u8]) -> Option<Bytes>;
    fn put(&mut self, key: &[u8], value: Bytes);
    fn delete(&mut self, key: &[u8]);
    /// Pairs whose key begins with `prefix`, ascending, at most `limit`.
    fn scan(&mut self, prefix: &[u8], limit: usize) -> Vec<(Bytes, Bytes)>;
}

/// Where a stage keeps something of its own for a key: behind a zero byte, which look-ups do not show.
pub(crate) fn own_key(kind: u8, key: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(6 + key.len() + rest.len());
    name.extend_from_slice(&[0, kind]);
    name.extend_from_slice(&(key.len() as u32).to_be_bytes());
    name.extend_from_slice(key);
    name.extend_from_slice(rest);
    name
}

/// A head function.
pub trait Operator: Send {
    /// Runs on a batch. An `Err` undoes everything that the call did to `state`.
    fn handle(&mut self, batch: &[Invoked], now: Time, state: &mut dyn State) -> Result<Handled, CallError>;

    /// Staged state was discarded, or this call's was undone: whatever was kept in memory of it goes.
    fn forget(&mut self);
}

/// What a head gives to the steps behind it.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Handled {
    pub emitted: Vec<FromHead>,
    pub failed: Vec<FailedEvent>,
    pub timers: Vec<TimerChange>,
    pub observed: Vec<Observed>,
}

impl Handled {
    /// The fields of event `cause` of the batch, for the built-in of that name. An event that has none,
    /// or whose key is no text, fails alone and for good: it is noted here.
    pub fn fields_of(&mut self, cause: u32, event: &Event, built_in: &str) -> Option<Map<String, Value>> {
        let reason = match (core::str::from_utf8(&event.key), serde_json::from_slice(&event.payload)) {
            (Err(_), _) => "the event's key is no UTF-8 text: give it a text key".to_string(),
            (Ok(_), Ok(Value::Object(fields))) => return Some(fields),
            (Ok(_), Ok(_)) => format!("the payload is no JSON object: `{built_in}` needs its fields"),
            (Ok(_), Err(error)) => format!("the payload is no JSON object: {error}"),
        };
        let stage = String::new();
        self.failed.push(FailedEvent { index: cause, refused: None, stage, reason, again: Again::Never });
        None
    }
}

/// An event that a head emits.
#[derive(Debug, Clone, PartialEq)]
pub struct FromHead {
    /// Which event of the batch it came from.
    pub cause: u32,
    /// None: the main output. Some(n): side output n (`learn`'s `scores` is 0).
    pub side: Option<u16>,
    pub event: Event,
}
