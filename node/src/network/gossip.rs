//! Gossip: what many nodes read at once, by libp2p's gossipsub behind the gate.
//!
//! It may lose, double and reorder as it likes: the core takes what follows on and pulls what is missing,
//! so gossipsub's own repair (IHAVE, IWANT) is off, and what it keeps is short. Every message is signed by
//! its author; only the topic's writer is passed on, and handed to the core.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use dunlin_protocol::effect::Input;
use dunlin_protocol::id::{NodeId, TopicId};
use dunlin_protocol::limits::{BROADCAST_BYTES_MAX, TOPICS_MAX};
use dunlin_protocol::wire::codec;
use dunlin_protocol::wire::message::Broadcast;
use libp2p::gossipsub::{
    self, AllowAllSubscriptionFilter, ConfigBuilder, IdentTopic, IdentityTransform,
    MaxCountSubscriptionFilter, MessageAcceptance, MessageAuthenticity, PublishError, TopicHash,
    ValidationMode,
};
use libp2p::identity::Keypair;
use tokio::sync::OwnedSemaphorePermit;

use super::counters::Counters;
use super::gate::node_id;
use super::transport::TransportError;
use crate::inbox::Inbox;

pub(super) type Behaviour =
    gossipsub::Behaviour<IdentityTransform, MaxCountSubscriptionFilter<AllowAllSubscriptionFilter>>;

/// Neighbours of a node in a topic: wanted, at least, at most. A writer sends each batch to so many,
/// however many there are.
const NEIGHBOURS: usize = 4;
const NEIGHBOURS_MIN: usize = 3;
const NEIGHBOURS_MAX: usize = 6;
const HEARTBEAT: Duration = Duration::from_millis(500);
/// What was passed on is kept for so many heartbeats.
const KEPT_HEARTBEATS: usize = 2;
/// Messages on their way to one peer. Beyond: they are dropped, and whoever lacks them pulls.
const QUEUE_MAX: usize = 64;
/// One message: a batch of the largest weight has some bytes more on the wire.
const MESSAGE_BYTES_MAX: usize = 2 * BROADCAST_BYTES_MAX as usize;
/// Topics of one peer: its own and those that it is in. Beyond: it is not heard of in them.
const TOPICS_OF_PEER_MAX: usize = 4 * TOPICS_MAX;
/// Ids of messages are known for so long.
const KNOWN: Duration = Duration::from_secs(30);
/// A node that left a topic, or that had neighbours enough, is asked again after this.
const BACKOFF: Duration = Duration::from_secs(5);

pub(super) fn behaviour(key: &Keypair) -> Result<Behaviour, TransportError> {
    let config = ConfigBuilder::default()
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        // To some neighbours, not to all that are in the topic: they pass it on.
        .flood_publish(false)
        .mesh_n(NEIGHBOURS)
        .mesh_n_low(NEIGHBOURS_MIN)
        .mesh_n_high(NEIGHBOURS_MAX)
        .mesh_outbound_min(0)
        .heartbeat_interval(HEARTBEAT)
        .heartbeat_initial_delay(HEARTBEAT)
        .history_length(KEPT_HEARTBEATS)
        .history_gossip(0)
        .gossip_lazy(0)
        .gossip_factor(0.0)
        .duplicate_cache_time(KNOWN)
        .prune_backoff(BACKOFF)
        .unsubscribe_backoff(BACKOFF)
        .max_transmit_size(MESSAGE_BYTES_MAX)
        .connection_handler_queue_len(QUEUE_MAX)
        .build()
        .map_err(|error| TransportError::Gossip(error.to_string()))?;
    let filter = MaxCountSubscriptionFilter {
        filter: AllowAllSubscriptionFilter::default(),
        max_subscribed_topics: TOPICS_OF_PEER_MAX,
        max_subscriptions_per_request: TOPICS_OF_PEER_MAX,
    };
    Behaviour::new_with_subscription_filter(MessageAuthenticity::Signed(key.clone()), config, filter)
        .map_err(|why| TransportError::Gossip(why.to_string()))
}

/// The topics that this node is in, and who may broadcast there.
#[derive(Debug, Default)]
pub(super) struct Topics(BTreeMap<TopicHash, (TopicId, NodeId)>);

/// What the core wants of gossip.
#[derive(Debug)]
pub(super) enum Spread {
    Join { topic: TopicId, writer: NodeId },
    Leave { topic: TopicId },
    Broadcast { topic: TopicId, bytes: Bytes, place: OwnedSemaphorePermit },
}

impl Topics {
    pub fn carry_out(&mut self, spread: Spread, gossip: &mut Behaviour, inbox: &Inbox, counters: &Counters) {
        match spread {
            Spread::Join { topic, writer } => {
                let named = named(topic);
                self.0.insert(named.hash(), (topic, writer));
                if let Err(error) = gossip.subscribe(&named) {
                    tracing::warn!(%topic, "the topic is not joined: {error}");
                }
            }
            Spread::Leave { topic } => {
                let named = named(topic);
                self.0.remove(&named.hash());
                gossip.unsubscribe(&named);
            }
            Spread::Broadcast { topic, bytes, place: _place } => {
                let size = bytes.len() as u64;
                match gossip.publish(named(topic).hash(), Vec::from(bytes)) {
                    Ok(_) => {
                        counters.broadcasts_out.one();
                        counters.broadcast_bytes_out.add(size);
                    }
                    Err(error) => {
                        counters.broadcasts_unheard.one();
                        tracing::debug!(%topic, "not broadcast: {error}");
                        // One that is known was sent before.
                        if !matches!(error, PublishError::Duplicate) {
                            tell(inbox, Input::NotBroadcast { topic });
                        }
                    }
                }
            }
        }
    }

    pub fn on_event(
        &mut self,
        event: gossipsub::Event,
        gossip: &mut Behaviour,
        inbox: &Inbox,
        counters: &Counters,
    ) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let known = self.0.get(&message.topic);
                let author = message.source.as_ref().and_then(node_id);
                let genuine = known.filter(|(_, writer)| Some(*writer) == author);
                let acceptance =
                    if genuine.is_some() { MessageAcceptance::Accept } else { MessageAcceptance::Reject };
                gossip.report_message_validation_result(&message_id, &propagation_source, acceptance);
                let Some((topic, author)) = genuine.copied() else {
                    counters.broadcasts_refused.one();
                    return;
                };
                counters.broadcasts_in.one();
                counters.broadcast_bytes_in.add(message.data.len() as u64);
                match codec::decode::<Broadcast>(&message.data) {
                    // A core that is busy pulls it later.
                    Ok(broadcast) => match inbox.offer(Input::Broadcast { author, topic, broadcast }) {
                        None => {}
                        Some(_) => counters.broadcasts_dropped.one(),
                    },
                    Err(error) => {
                        counters.broadcasts_refused.one();
                        tracing::warn!(%author, "a broadcast is not taken: {error}");
                    }
                }
            }
            gossipsub::Event::SlowPeer { peer_id, failed_messages } => {
                counters.broadcasts_dropped.one();
                tracing::debug!(%peer_id, ?failed_messages, "takes gossip more slowly than it comes");
            }
            gossipsub::Event::Subscribed { .. }
            | gossipsub::Event::Unsubscribed { .. }
            | gossipsub::Event::GossipsubNotSupported { .. } => {}
        }
    }
}

fn named(topic: TopicId) -> IdentTopic {
    IdentTopic::new(topic.to_string())
}

fn tell(inbox: &Inbox, input: Input) {
    let inbox = inbox.clone();
    tokio::spawn(async move { inbox.send(input).await });
}
