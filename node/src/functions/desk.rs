//! The desk: where a guest's call hands its state requests to whoever made the call.
//!
//! The state that a call works on is borrowed from its caller, and what a wasmtime store holds may
//! borrow nothing. So a state request is laid on the desk and the guest is set aside (its host
//! call is pending); the caller, on the same thread, answers from the state it holds and lets the
//! guest go on. No locks are waited for and no thread is switched.
//!
//! A guest that runs for long is set aside too, now and then: the caller then gives up whatever else its
//! thread was there for, and lets it go on.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use dunlin_operators::operator::State;
use tokio::runtime::{Handle, RuntimeFlavor};

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
    /// The guest asks nothing; it has run for a while.
    aside: bool,
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

    /// The guest has run for a while and waits for nothing.
    pub(super) fn set_aside(&self) {
        self.slot().aside = true;
    }

    /// The caller's side: drives `guest` to its end and answers what it asks. `None` when the guest
    /// waits for something that is not on the desk, which would be for ever.
    pub(super) fn serve<T>(&self, guest: impl Future<Output = T>, state: &mut dyn State) -> Option<T> {
        let mut guest = pin!(guest);
        match self.serve_quick(guest.as_mut(), state) {
            Served::Output(output) => Some(output),
            Served::Never => None,
            Served::Aside => aside(|| {
                loop {
                    match self.serve_quick(guest.as_mut(), state) {
                        Served::Output(output) => return Some(output),
                        Served::Never => return None,
                        Served::Aside => {}
                    }
                }
            }),
        }
    }

    /// Until the guest ends, or has run for a while.
    fn serve_quick<T>(
        &self,
        mut guest: Pin<&mut impl Future<Output = T>>,
        state: &mut dyn State,
    ) -> Served<T> {
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(output) = guest.as_mut().poll(&mut context) {
                return Served::Output(output);
            }
            let mut slot = self.slot();
            if std::mem::take(&mut slot.aside) {
                return Served::Aside;
            }
            let Some(ask) = slot.ask.take() else { return Served::Never };
            drop(slot);
            let told = answer(ask, state);
            self.slot().told = Some(told);
        }
    }
}

enum Served<T> {
    Output(T),
    Aside,
    /// It waits for something that never comes.
    Never,
}

/// Runs `work`, which takes long, where others on this thread do not wait for it.
fn aside<T>(work: impl FnOnce() -> T) -> T {
    let shared =
        Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
    if shared { tokio::task::block_in_place(work) } else { work() }
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
