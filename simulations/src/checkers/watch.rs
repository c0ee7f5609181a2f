//! The checkers that watch while the run goes on, at the doors of every node. The first thing that
//! they find broken is kept.

use dunlin_protocol::id::{NodeId, TopicId};
use dunlin_protocol::wire::message::{Broadcast, Message};

use super::credit::Credit;
use super::served::Served;
use crate::history::History;

#[derive(Debug, Default)]
pub struct Watch {
    pub credit: Credit,
    served: Served,
    pub broken: Option<String>,
}

impl Watch {
    /// A message reached a node.
    pub fn hear(&mut self, node: usize, from: NodeId, message: &Message) {
        self.credit.hear(node, from, message);
        self.served.hear(node, from, message);
    }

    /// A node sends a message.
    pub fn say(&mut self, node: usize, to: NodeId, message: &Message, history: &History) {
        let served = self.served.say(node, to, message, history);
        self.note(served);
        let credit = self.credit.say(node, to, message);
        self.note(credit);
    }

    /// A node broadcasts a batch.
    pub fn broadcast(&mut self, node: usize, topic: TopicId, broadcast: &Broadcast, history: &History) {
        self.note(self.served.broadcast(node, topic, broadcast, history));
    }

    /// The node's process is gone.
    pub fn forget(&mut self, node: usize) {
        self.credit.forget(node);
        self.served.forget(node);
    }

    pub fn note(&mut self, outcome: Result<(), String>) {
        if let Err(broken) = outcome {
            self.broken.get_or_insert(broken);
        }
    }
}
