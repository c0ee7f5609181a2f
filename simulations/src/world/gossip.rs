//! What nodes broadcast: it reaches whoever has joined its topic by way of links that stand, each in its own
//! time, so in any order; it gets lost, comes twice, and now and then somebody else broadcasts the same with
//! other events.

use std::collections::BTreeSet;

use dunlin_protocol::effect::Input;
use dunlin_protocol::id::TopicId;
use dunlin_protocol::time::Span;
use dunlin_protocol::wire::codec;
use dunlin_protocol::wire::message::Broadcast;

use super::{Happening, World};

impl World {
    /// The nodes that have joined the topic and are reached from this one over links of such nodes.
    fn reached(&self, from: usize, topic: TopicId) -> BTreeSet<usize> {
        let mut reached = BTreeSet::from([from]);
        let mut edge = vec![from];
        while let Some(node) = edge.pop() {
            for other in self.network.links_of(node) {
                let hears = self.nodes[other].topics.contains(&topic) && self.is_up(other);
                if hears && !self.network.is_silent(node, other, self.now) && reached.insert(other) {
                    edge.push(other);
                }
            }
        }
        reached.remove(&from);
        reached
    }

    pub(super) fn broadcast(&mut self, from: usize, topic: TopicId, broadcast: &Broadcast) {
        let bytes = codec::encode(broadcast);
        self.trace.bytes(&bytes);
        let reached = self.reached(from, topic);
        if reached.is_empty() {
            return self.input_soon(from, Input::NotBroadcast { topic });
        }
        self.broadcasts += 1;
        let author = self.nodes[from].id;
        for to in reached {
            let copies = match self.chance.one_in(self.climate.gossip_loss) {
                true => [0, 2][self.chance.between(0, 1) as usize],
                false => 1,
            };
            for _ in 0..copies {
                let broadcast = codec::decode(&bytes).expect("what one node encodes another decodes");
                self.hand(to, Input::Broadcast { author, topic, broadcast });
            }
            if self.chance.one_in(self.climate.forged) {
                let broadcast: Broadcast = codec::decode(&bytes).expect("it was decoded before");
                let others = self.nodes.len() as u64 - 1;
                let forger = (from + self.chance.between(1, others) as usize) % self.nodes.len();
                let author = self.nodes[forger].id;
                self.hand(to, Input::Broadcast { author, topic, broadcast: forged(broadcast) });
            }
        }
    }

    fn hand(&mut self, to: usize, input: Input) {
        // It may be passed on more than once.
        let span = self.climate.latency(&mut self.chance).0 * self.chance.between(1, 3);
        let life = self.nodes[to].life;
        self.after(Span(span), Happening::Input { node: to, life, input });
    }
}

/// The same records with other events.
fn forged(mut broadcast: Broadcast) -> Broadcast {
    for event in broadcast.slices.iter_mut().flat_map(|slice| &mut slice.events) {
        event.event.payload = "forged".into();
    }
    broadcast
}
