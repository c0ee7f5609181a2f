//! The network: libp2p behind one gate. The only folder that names libp2p.
//!
//! ```text
//! driver --> Network (handle) --> Links --> one task per peer: /dunlin/peer/1 ----> the other node
//!               \--> orders --> Hub (the one swarm task) --> Gate --> Door per connection
//! Inbox <-- links, fetches           RpcDoor <-- /dunlin/rpc/1     Modules <-- /dunlin/module/1
//! ```
//!
//! * **Gate**: one behaviour wraps all others, one [`door`] per connection wraps their handlers.
//!   Until `/dunlin/hello/1` has passed, no other protocol is negotiated in either direction.
//! * **Hello** shows a certificate (members) or a token's proof (joiners, clients). What counts is
//!   judged in `dunlin_protocol::wire::handshake`; the peer ids come from Noise or TLS.
//! * **Links** carry the core's messages, at most one per pair of nodes, opened by the smaller id.
//! * **Gossip** carries what many nodes read at once, between members, behind the same gate.
//! * Nothing in the hub waits for a peer, and nothing that the driver calls waits at all.
//!
//! Substreams are opened by the door itself and not by `libp2p-stream`: that crate picks any
//! connection to a peer, dials by itself, drops accepted substreams when it lags, and keeps a
//! sender per connection for ever; the gate needs to know on which connection hello has passed.

mod admit;
mod backoff;
mod caller;
mod counters;
mod door;
mod frames;
mod gate;
mod gossip;
mod hello;
mod hub;
mod identity;
mod join;
mod line_calls;
mod links;
mod modules;
#[expect(clippy::module_inception, reason = "the handle is what the folder is named after")]
mod network;
mod protocols;
mod rpc_client;
mod rpc_door;
#[cfg(test)]
mod tests;
mod transport;

pub use counters::Counters;
pub use identity::{BadMeshIdentity, Identity, MeshIdentity};
pub use join::{JoinError, join};
pub use modules::Modules;
pub use network::{Doors, Network, NetworkConfig, NetworkError};
pub use rpc_client::{Answers, RpcClient, RpcError};
pub use rpc_door::{RpcDoor, RpcPeer};
pub use transport::TransportError;
