//! What the network counts, for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Totals since the node started.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub(super) $name: Counter,)+
        }

        impl Counters {
            /// Every counter with its name.
            pub fn totals(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.total()),)+]
            }
        }
    };
}

counters! {
    /// Connections on which hello passed.
    hellos_passed,
    /// Connections dropped because hello did not pass.
    hellos_failed,
    /// Connections that were not taken: too many at once, or not of our transport.
    connections_refused,
    /// Joiners that were given a certificate.
    joiners_admitted,
    links_opened,
    links_lost,
    /// Links dropped because the peer took messages more slowly than they came.
    links_overflowed,
    messages_in,
    messages_out,
    /// Messages for a node to which no link stood.
    messages_unsent,
    bytes_in,
    bytes_out,
    /// Frames and messages that were not what they should be.
    frames_refused,
    dials,
    dials_failed,
    /// Orders of the core that found the swarm's task busy; the core repeats them.
    orders_dropped,
    /// Substreams refused because too many were open, or of a kind not meant for this side.
    substreams_refused,
    /// Batches by gossip that this node made and somebody was sent, and their bytes.
    broadcasts_out,
    broadcast_bytes_out,
    /// Batches that nobody was sent: nobody was in the topic, or all were busy.
    broadcasts_unheard,
    /// Batches by gossip that came for this node, and their bytes.
    broadcasts_in,
    broadcast_bytes_in,
    /// Not of the log's own node, or not to be decoded.
    broadcasts_refused,
    /// Left out because a peer, or this node's core, was too busy; they are pulled.
    broadcasts_dropped,
    rpc_calls,
    modules_fetched,
    modules_served,
    /// Modules whose bytes did not match their digest.
    modules_corrupt,
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn one(&self) {
        self.add(1);
    }

    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
