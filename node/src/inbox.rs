//! The one way into the core: every room sends `Input`s here, only the driver takes them out.
//!
//! What waits is bounded by number and by bytes: a room that is faster than the core waits here,
//! and the driver never waits for a room (its own channels to the rooms are bounded by the core's
//! rules: one call per actor, `UNPERSISTED_BYTES_MAX` per log, credit per edge). An input's bytes
//! are those of what outsiders give: events, records, state.

use std::sync::Arc;

use dunlin_protocol::effect::{Input, Outcome};
use dunlin_protocol::event::Event;
use dunlin_protocol::log::record::Record;
use dunlin_protocol::rpc::{Publish, Question, Reply, Request};
use dunlin_protocol::wire::message::{Message, Slice};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Inputs that may wait for the core, and their bytes in all. Beyond: senders wait. One input that
/// is larger than all room waits until it is alone.
const INPUTS_MAX: usize = 4096;
const INPUT_BYTES_MAX: usize = 64 << 20;
/// Below this an input is only counted: `INPUTS_MAX` of them are not worth the lock.
const SMALL_BYTES: usize = 1 << 10;

#[derive(Debug, Clone)]
pub struct Inbox {
    sender: mpsc::Sender<Held>,
    room: Arc<Semaphore>,
}

/// The driver's end.
#[derive(Debug)]
pub struct Inputs {
    receiver: mpsc::Receiver<Held>,
    room: Arc<Semaphore>,
}

#[derive(Debug)]
struct Held {
    input: Input,
    /// Room that it takes until it is taken out.
    bytes: u32,
    /// Its sender's place, if that has only so many.
    _place: Option<OwnedSemaphorePermit>,
}

/// The places of a sender that may not fill the inbox alone: an event passes it several times on its
/// way, each time behind all that waits.
#[derive(Debug)]
pub struct Places(Arc<Semaphore>);

impl Places {
    pub fn new(count: usize) -> Places {
        Places(Arc::new(Semaphore::new(count)))
    }
}

impl Inbox {
    pub fn new() -> (Inbox, Inputs) {
        let (sender, receiver) = mpsc::channel(INPUTS_MAX);
        let room = Arc::new(Semaphore::new(INPUT_BYTES_MAX));
        (Inbox { sender, room: room.clone() }, Inputs { receiver, room })
    }

    /// From async code. False when the node is stopping and nobody listens any more.
    pub async fn send(&self, input: Input) -> bool {
        self.put(input, None).await
    }

    /// The same, in one of the sender's places; waits until one is free.
    pub async fn send_in(&self, places: &Places, input: Input) -> bool {
        match places.0.clone().acquire_owned().await {
            Ok(place) => self.put(input, Some(place)).await,
            Err(_) => false,
        }
    }

    async fn put(&self, input: Input, place: Option<OwnedSemaphorePermit>) -> bool {
        let bytes = room_of(&input);
        if bytes > 0 {
            match self.room.acquire_many(bytes).await {
                Ok(room) => room.forget(),
                Err(_) => return false,
            }
        }
        self.sender.send(Held { input, bytes, _place: place }).await.is_ok()
    }

    /// Without waiting: gives the input back when there is no room for it now.
    pub fn offer(&self, input: Input) -> Option<Input> {
        let bytes = room_of(&input);
        if bytes > 0 {
            match self.room.try_acquire_many(bytes) {
                Ok(room) => room.forget(),
                // Whoever waits for what comes after the end hears of it by `send`.
                Err(_) => return Some(input),
            }
        }
        match self.sender.try_send(Held { input, bytes, _place: None }) {
            Ok(()) => None,
            Err(TrySendError::Full(held) | TrySendError::Closed(held)) => {
                self.room.add_permits(bytes as usize);
                Some(held.input)
            }
        }
    }

    /// From a thread of its own; panics inside an async runtime.
    pub fn send_blocking(&self, input: Input) -> bool {
        futures::executor::block_on(self.send(input))
    }
}

impl Inputs {
    /// `None` once every sender is gone.
    pub async fn recv(&mut self) -> Option<Input> {
        let held = self.receiver.recv().await?;
        Some(self.taken(held))
    }

    /// What waits already.
    pub fn try_recv(&mut self) -> Option<Input> {
        let held = self.receiver.try_recv().ok()?;
        Some(self.taken(held))
    }

    /// From a thread of its own.
    pub fn blocking_recv(&mut self) -> Option<Input> {
        let held = self.receiver.blocking_recv()?;
        Some(self.taken(held))
    }

    /// Nothing more is let in; what waits can still be taken out.
    pub fn close(&mut self) {
        self.receiver.close();
        self.room.close();
    }

    fn taken(&self, held: Held) -> Input {
        self.room.add_permits(held.bytes as usize);
        held.input
    }
}

impl Drop for Inputs {
    fn drop(&mut self) {
        // Who waits for room learns that nobody takes anything out any more.
        self.room.close();
    }
}

fn room_of(input: &Input) -> u32 {
    match weight(input) {
        small if small < SMALL_BYTES => 0,
        large => u32::try_from(large.min(INPUT_BYTES_MAX)).unwrap_or(u32::MAX),
    }
}

/// The bytes of an input that its sender decides about.
fn weight(input: &Input) -> usize {
    match input {
        Input::Message { message, .. } => message_weight(message),
        Input::Request { request, .. } => match request {
            Request::Publish(publish) => publish_weight(publish),
            Request::Status
            | Request::Nodes
            | Request::Pipelines
            | Request::Show { .. }
            | Request::Deploy { .. }
            | Request::Remove { .. }
            | Request::Tail(_)
            | Request::State { .. }
            | Request::DeadLetters { .. }
            | Request::MoveLetters { .. }
            | Request::RotateTokens { .. }
            | Request::RemoveNode { .. }
            | Request::GivenUp { .. } => 0,
        },
        Input::Broadcast { broadcast, .. } => usize::try_from(broadcast.weight()).unwrap_or(usize::MAX),
        Input::Replay { records, .. } | Input::Read { outcome: Ok(records), .. } => records_weight(records),
        Input::Returned { outcome: Ok(outcome), .. } => outcome_weight(outcome),
        Input::LookedUp { entries, .. } => entries.iter().map(|(key, value)| key.len() + value.len()).sum(),
        Input::Recovered(_)
        | Input::Start
        | Input::Connected { .. }
        | Input::Disconnected { .. }
        | Input::NotBroadcast { .. }
        | Input::Admitted { .. }
        | Input::SaidRemoved { .. }
        | Input::TapCredit { .. }
        | Input::Cancelled { .. }
        | Input::Persisted { .. }
        | Input::PersistFailed { .. }
        | Input::Read { outcome: Err(_), .. }
        | Input::Snapshotted { .. }
        | Input::Hosted { .. }
        | Input::Returned { outcome: Err(_), .. }
        | Input::ModuleHeld { .. }
        | Input::ModuleGone { .. }
        | Input::ModuleMissing { .. }
        | Input::Timer(_)
        | Input::Measured { .. } => 0,
    }
}

fn message_weight(message: &Message) -> usize {
    match message {
        Message::Swim(datagram) => datagram.len(),
        Message::CatalogRecords { records, .. } => records_weight(records),
        Message::Batch { slices, .. } => slices.iter().map(|slice: &Slice| slice.weight() as usize).sum(),
        Message::Ask { question: Question::Publish(publish), .. } => publish_weight(publish),
        Message::Answer { reply, .. } => match reply {
            Reply::State(entries) => entries.iter().map(|(key, value)| key.len() + value.len()).sum(),
            Reply::DeadLetters(letters) => {
                letters.iter().map(|letter| letter.event.weight() + letter.reason.len()).sum()
            }
            Reply::Actors(_) | Reply::Published { .. } | Reply::LettersMoved { .. } | Reply::Failed(_) => 0,
        },
        Message::Offer { outputs, .. } => outputs.len() * 2,
        Message::CatalogHeads(_)
        | Message::InTopic { .. }
        | Message::OutOfTopic { .. }
        | Message::ByGossip { .. }
        | Message::Subscribe { .. }
        | Message::Credit { .. }
        | Message::Unsubscribe { .. }
        | Message::Subscribed { .. }
        | Message::FallBack { .. }
        | Message::Refused { .. }
        | Message::Ask {
            question:
                Question::Actors { .. }
                | Question::State { .. }
                | Question::DeadLetters { .. }
                | Question::MoveLetters { .. },
            ..
        }
        | Message::WantModules { .. }
        | Message::Modules { .. } => 0,
    }
}

fn publish_weight(publish: &Publish) -> usize {
    publish.events.iter().map(Event::weight).sum()
}

fn records_weight(records: &[Record]) -> usize {
    records.iter().map(|record| record.body.len()).sum()
}

fn outcome_weight(outcome: &Outcome) -> usize {
    let emitted: usize = outcome.emitted.iter().map(|emitted| emitted.event.weight()).sum();
    let changed = |value: &Option<bytes::Bytes>| value.as_ref().map_or(0, bytes::Bytes::len);
    let state: usize = outcome.changes.iter().map(|change| change.key.len() + changed(&change.value)).sum();
    let refused = outcome.failed.iter().filter_map(|failed| failed.refused.as_ref());
    emitted + state + refused.map(|refused| refused.event.weight()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_protocol::effect::RequestId;
    use futures::FutureExt;

    fn publish(bytes: usize) -> Input {
        let event = Event { payload: vec![b' '; bytes].into(), ..Event::default() };
        let (pipeline, source) = ("p".parse().unwrap(), "s".parse().unwrap());
        let publish = Publish { pipeline, source, producer: None, log: None, events: vec![event] };
        Input::Request { id: RequestId(1), request: Request::Publish(publish) }
    }

    #[test]
    fn a_sender_with_places_leaves_room_for_the_others() {
        let (inbox, mut inputs) = Inbox::new();
        let places = Places::new(3);
        let send = || inbox.send_in(&places, Input::Start).now_or_never();
        assert_eq!([send(), send(), send(), send()], [Some(true), Some(true), Some(true), None]);
        assert!(inbox.send(Input::Start).now_or_never().is_some(), "another one's goes in");
        assert!(inputs.try_recv().is_some());
        assert_eq!([send(), send()], [Some(true), None], "what is taken out makes room");
        drop(inputs);
        assert_eq!(send(), Some(false), "nobody listens any more");
    }

    #[test]
    fn what_waits_for_the_core_is_bounded_in_bytes() {
        let (inbox, mut inputs) = Inbox::new();
        let four = 4 << 20;
        let sent = (0..100).take_while(|_| inbox.send(publish(four)).now_or_never().is_some()).count();
        assert_eq!(sent, INPUT_BYTES_MAX / (four + 24), "the next one waits");
        assert!(inbox.send(Input::Start).now_or_never().is_some(), "small ones still go in");
        assert!(inputs.try_recv().is_some());
        assert!(inbox.send(publish(four)).now_or_never().is_some(), "what is taken out makes room");
        while inputs.try_recv().is_some() {}
        assert!(inbox.send(publish(2 * INPUT_BYTES_MAX)).now_or_never().is_some(), "alone it fits");
    }

    #[test]
    fn who_waits_for_room_hears_of_the_end() {
        let (inbox, inputs) = Inbox::new();
        while inbox.send(publish(4 << 20)).now_or_never().is_some() {}
        let waiting = std::thread::spawn(move || inbox.send_blocking(publish(4 << 20)));
        drop(inputs);
        assert!(!waiting.join().unwrap());
    }
}
