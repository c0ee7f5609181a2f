//! Links: the one substream of messages to each member that is connected.
//!
//! A link is one task that reads, writes and ends as a whole. Towards the core it is a bracket:
//! `Connected`, then the peer's messages in order, then `Disconnected`; the next link to the same
//! node waits for the end of the one before it, so brackets never overlap. A link says a sign of
//! life every second, and one that hears nothing for six is dead: half-open connections end here.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_protocol::effect::Input;
use dunlin_protocol::id::NodeId;
use dunlin_protocol::limits::FRAME_BYTES_MAX;
use dunlin_protocol::log::record::Record;
use dunlin_protocol::rpc::Question;
use dunlin_protocol::wire::frame::{self, FrameError};
use dunlin_protocol::wire::message::Message;
use dunlin_protocol::wire::parts;
use futures::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf};
use libp2p::Stream;
use libp2p::swarm::ConnectionId;
use tokio::sync::{mpsc, oneshot};

use super::counters::Counters;
use super::frames::{FrameReader, StreamError};
use crate::inbox::{Inbox, Places};

/// Messages on their way to one peer, in bytes. Beyond: the link is dropped and counted; what was
/// lost heals by repetition.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// What is small is written together up to this size.
pub(super) const WRITE_BYTES: usize = 256 << 10;
/// Messages of one link that may wait for the core. Beyond: the link is read no further, so that one
/// that floods delays the others by this many and no more.
const LINK_INPUTS_MAX: usize = 128;
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
const SILENCE_MAX: Duration = Duration::from_secs(6);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LinkId(pub u64);

/// A link is over; its `Disconnected` has been said.
#[derive(Debug)]
pub(super) struct Ended {
    pub node: NodeId,
    pub connection: ConnectionId,
    pub link: LinkId,
    /// The connection is dead as well.
    pub silent: bool,
}

/// The way to every linked peer. The driver sends through it without waiting, which is why it is
/// shared and not a task of its own: the lock is held for a map look-up.
#[derive(Debug, Default)]
pub(super) struct Links(Mutex<BTreeMap<NodeId, Outlet>>);

#[derive(Debug)]
struct Outlet {
    link: LinkId,
    queue: mpsc::UnboundedSender<Message>,
    /// The weight of what is queued: this, not the channel, is the bound.
    queued: Arc<AtomicUsize>,
    /// Dropping it ends the link.
    _alive: oneshot::Sender<()>,
}

/// What a link's task needs.
pub(super) struct Link {
    pub id: LinkId,
    pub node: NodeId,
    pub connection: ConnectionId,
    /// Resolves when the node's link before this one is over.
    pub previous: Option<oneshot::Receiver<()>>,
    /// Dropped when this one is over.
    pub over: oneshot::Sender<()>,
    pub inbox: Inbox,
    pub counters: Arc<Counters>,
    pub ended: mpsc::Sender<Ended>,
}

impl Links {
    fn table(&self) -> MutexGuard<'_, BTreeMap<NodeId, Outlet>> {
        // The table is whole between any two statements, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message; never waits.
    pub fn send(&self, to: NodeId, message: Message, counters: &Counters) {
        let mut table = self.table();
        let Some(outlet) = table.get(&to) else {
            counters.messages_unsent.one();
            return;
        };
        let weight = weight(&message);
        if outlet.queued.fetch_add(weight, Ordering::Relaxed) + weight > QUEUE_BYTES_MAX {
            table.remove(&to);
            counters.links_overflowed.one();
        } else if outlet.queue.send(message).is_err() {
            counters.messages_unsent.one();
        }
    }

    /// Ends the link to a node, if there is one.
    pub fn end(&self, node: NodeId) {
        self.table().remove(&node);
    }

    pub fn end_all(&self) {
        self.table().clear();
    }

    pub fn nodes(&self) -> Vec<NodeId> {
        self.table().keys().copied().collect()
    }

    fn forget(&self, node: NodeId, link: LinkId) {
        let mut table = self.table();
        if table.get(&node).is_some_and(|outlet| outlet.link == link) {
            table.remove(&node);
        }
    }

    /// Runs a link over a fresh substream; an older link to the same node ends.
    pub fn run(self: &Arc<Self>, link: Link, stream: Stream) {
        let (queue, messages) = mpsc::unbounded_channel();
        let (alive, cancelled) = oneshot::channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let outlet = Outlet { link: link.id, queue, queued: queued.clone(), _alive: alive };
        self.table().insert(link.node, outlet);
        tokio::spawn(link.run(self.clone(), stream, Outgoing { messages, queued }, cancelled));
    }
}

struct Outgoing {
    messages: mpsc::UnboundedReceiver<Message>,
    queued: Arc<AtomicUsize>,
}

impl Link {
    async fn run(
        mut self,
        links: Arc<Links>,
        stream: Stream,
        mut outgoing: Outgoing,
        mut cancelled: oneshot::Receiver<()>,
    ) {
        if let Some(previous) = self.previous.take() {
            // It was ended when this one took its place; it only has to say so.
            let _ = previous.await;
        }
        outgoing.discard();
        let Link { id, node, connection, over, inbox, counters, ended, .. } = self;
        let mut silent = false;
        if inbox.send(Input::Connected { node }).await {
            counters.links_opened.one();
            let (incoming, writer) = stream.split();
            let end = tokio::select! {
                _ = &mut cancelled => None,
                error = read(incoming, node, &inbox, &counters) => error,
                error = outgoing.write(writer, &counters) => error,
            };
            if let Some(error) = end {
                tracing::debug!(%node, "link ended: {error}");
                silent = matches!(error, StreamError::Silent(_));
                if let StreamError::Frame(error) = &error {
                    counters.frames_refused.one();
                    tracing::warn!(%node, "link dropped: {error}");
                }
            }
            counters.links_lost.one();
            links.forget(node, id);
            inbox.send(Input::Disconnected { node }).await;
        }
        links.forget(node, id);
        drop(over);
        // The swarm's task may have ended before.
        let _ = ended.send(Ended { node, connection, link: id, silent }).await;
    }
}

/// Hands messages to the core until the link ends; `None` when the core has stopped.
async fn read(
    incoming: ReadHalf<Stream>,
    from: NodeId,
    inbox: &Inbox,
    counters: &Counters,
) -> Option<StreamError> {
    let mut frames = FrameReader::new(incoming, FRAME_BYTES_MAX, SILENCE_MAX);
    let places = Places::new(LINK_INPUTS_MAX);
    loop {
        let body = match frames.body().await {
            Ok(body) => body,
            Err(error) => return Some(error),
        };
        if body.is_empty() {
            continue;
        }
        counters.bytes_in.add(body.len() as u64);
        match parts::message(&body) {
            Ok(message) => {
                counters.messages_in.one();
                if !inbox.send_in(&places, Input::Message { from, message }).await {
                    return None;
                }
            }
            Err(error) => return Some(FrameError::from(error).into()),
        }
    }
}

impl Outgoing {
    /// What was queued before the core hears of this link belongs to the one before it.
    fn discard(&mut self) {
        while let Ok(message) = self.messages.try_recv() {
            self.queued.fetch_sub(weight(&message), Ordering::Relaxed);
        }
    }

    /// Writes what is queued until the link ends.
    async fn write<W: AsyncWrite + Unpin>(&mut self, mut io: W, counters: &Counters) -> Option<StreamError> {
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            let mut taken = 0;
            match tokio::time::timeout(SIGN_OF_LIFE, self.messages.recv()).await {
                Ok(Some(message)) => taken += push(&mut buffer, &message, counters),
                Ok(None) => return None,
                Err(_) => match frame::header(0) {
                    Ok(header) => buffer.extend_from_slice(&header),
                    Err(error) => return Some(error.into()),
                },
            }
            while buffer.len() < WRITE_BYTES {
                let Ok(message) = self.messages.try_recv() else { break };
                taken += push(&mut buffer, &message, counters);
            }
            if let Err(error) = io.write_all(&buffer).await {
                return Some(error.into());
            }
            if let Err(error) = io.flush().await {
                return Some(error.into());
            }
            self.queued.fetch_sub(taken, Ordering::Relaxed);
            counters.bytes_out.add(buffer.len() as u64);
            if buffer.capacity() > 4 * WRITE_BYTES {
                buffer = Vec::new();
            }
        }
    }
}

/// Appends a message's frame and gives back its weight. A message that no frame can hold is left
/// out: the core's own bounds should never let it come to that.
fn push(buffer: &mut Vec<u8>, message: &Message, counters: &Counters) -> usize {
    match frame::seal(message, buffer) {
        Ok(()) => counters.messages_out.one(),
        Err(error) => {
            counters.frames_refused.one();
            tracing::error!("a message was not sent: {error}");
        }
    }
    weight(message)
}

/// What a message costs in memory, in bytes, roughly; the same for the same message.
fn weight(message: &Message) -> usize {
    const BASE: usize = 128;
    let records = |records: &[Record]| records.iter().map(|record| record.body.len() + BASE).sum::<usize>();
    BASE + match message {
        Message::Swim(bytes) => bytes.len(),
        Message::CatalogHeads(heads) => heads.len() * 64,
        Message::Offer { outputs, .. } => outputs.len() * 2,
        Message::CatalogRecords { records: list, .. } => records(list),
        Message::Batch { slices, .. } => slices
            .iter()
            .map(|slice| BASE + slice.events.iter().map(|event| event.event.weight() + 16).sum::<usize>())
            .sum(),
        Message::Ask { question: Question::Publish(publish), .. } => {
            publish.events.iter().map(dunlin_protocol::event::Event::weight).sum()
        }
        Message::Ask { .. } => 0,
        Message::Answer { .. } => 16 << 10,
        Message::WantModules { digests, .. } => digests.len() * 32,
        Message::Modules { missing, .. } => missing.len() * 128,
        Message::Subscribe { .. }
        | Message::Subscribed { .. }
        | Message::Credit { .. }
        | Message::Unsubscribe { .. }
        | Message::FallBack { .. }
        | Message::Refused { .. }
        | Message::InTopic { .. }
        | Message::OutOfTopic { .. }
        | Message::ByGossip { .. } => 0,
    }
}
