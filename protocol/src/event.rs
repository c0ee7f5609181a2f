//! The event: what moves through a mesh.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::EventId;
use crate::time::Time;

/// A key, an event time, headers and a payload. The payload is a JSON object to whoever needs its
/// fields and bytes to everything else. An event's id is not stored in it: it is where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Event {
    /// UTF-8 text; empty when the source names no key.
    pub key: Bytes,
    pub time: Time,
    pub headers: Vec<(String, Bytes)>,
    pub payload: Bytes,
}

impl Event {
    /// The same event in bytes of its own: one that was decoded is a part of all that came with it.
    pub fn detached(&self) -> Event {
        let own = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
        let headers = self.headers.iter().map(|(name, value)| (name.clone(), own(value)));
        Event {
            key: own(&self.key),
            time: self.time,
            headers: headers.collect(),
            payload: own(&self.payload),
        }
    }

    /// What this event costs in memory and on a wire, in bytes, roughly.
    pub fn weight(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(k, v)| k.len() + v.len() + 16).sum();
        self.key.len() + self.payload.len() + headers + 24
    }
}

/// An event with where it was committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    pub id: EventId,
    pub event: Event,
}
