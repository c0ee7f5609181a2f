//! The desk: where a guest's call hands its state requests to whoever made the call.
//!
//! The state that a call works on is borrowed from its caller, and what a wasmtime store holds may
//! borrow nothing. So a state request is laid on the desk and the guest is set aside (its host
//! call is pending); the caller, on the same thread, answers from the state it holds and lets the
//! guest go on. No locks are waited for and no thread is switched.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use dunlin_operators::operator::State;

#[derive(Debug)]
pub(super) enum Ask {
    Get { key: String },
    Put { key: String, value: Vec<u8> },
    Delete { key: String },
    Scan { prefix: String, limit: usize },
}

#[derive(Debug)]
pub(super) enum Told {
    Value(Option<Bytes>),
    Pairs(Vec<(Bytes, Bytes)>),
    Done,
}

#[derive(Debug, Default)]
struct Slot {
    ask: Option<Ask>,
    told: Option<Told>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Desk(Arc<Mutex<Slot>>);

impl Desk {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest's side.
    pub(super) async fn ask(&self, ask: Ask) -> Told {
        self.slot().ask = Some(ask);
        poll_fn(|_| self.slot().told.take().map_or(Poll::Pending, Poll::Ready)).await
    }

    /// The caller's side: drives `guest` to its end and answers what it asks. `None` when the guest
    /// waits for something that is not on the desk, which would be for ever.
    pub(super) fn serve<T>(&self, guest: impl Future<Output = T>, state: &mut dyn State) -> Option<T> {
        let mut guest = pin!(guest);
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(output) = guest.as_mut().poll(&mut context) {
                return Some(output);
            }
            let ask = self.slot().ask.take()?;
            let told = answer(ask, state);
            self.slot().told = Some(told);
        }
    }
}

fn answer(ask: Ask, state: &mut dyn State) -> Told {
    match ask {
        Ask::Get { key } => Told::Value(state.get(key.as_bytes())),
        Ask::Put { key, value } => {
            state.put(key.as_bytes(), Bytes::from(value));
            Told::Done
        }
        Ask::Delete { key } => {
            state.delete(key.as_bytes());
            Told::Done
        }
        Ask::Scan { prefix, limit } => Told::Pairs(scan(&prefix, limit, state)),
    }
}

/// `prefix` itself and what begins with it and a `/`: a longer key is another key.
fn scan(prefix: &str, limit: usize, state: &mut dyn State) -> Vec<(Bytes, Bytes)> {
    let mut pairs = Vec::new();
    if limit == 0 {
        return pairs;
    }
    if let Some(value) = state.get(prefix.as_bytes()) {
        pairs.push((Bytes::copy_from_slice(prefix.as_bytes()), value));
    }
    let below = if prefix.ends_with('/') { prefix.to_owned() } else { format!("{prefix}/") };
    let room = limit - pairs.len();
    pairs.extend(state.scan(below.as_bytes(), room).into_iter().filter(|(key, _)| key != prefix.as_bytes()));
    pairs
}
