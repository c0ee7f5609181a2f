//! The names of our protocols: substreams of one connection, told apart by libp2p's negotiation.

use libp2p::StreamProtocol;

/// Who are you? Before it has passed, nothing else is served.
pub(super) const HELLO: StreamProtocol = StreamProtocol::new("/dunlin/hello/1");
/// Messages between members; one long-lived substream per pair of nodes.
pub(super) const PEER: StreamProtocol = StreamProtocol::new("/dunlin/peer/1");
/// Requests of members and clients.
pub(super) const RPC: StreamProtocol = StreamProtocol::new("/dunlin/rpc/1");
/// Modules by digest, between members.
pub(super) const MODULE: StreamProtocol = StreamProtocol::new("/dunlin/module/1");

/// What gossipsub's protocols begin with: between members only.
pub(super) const GOSSIP: &str = "/meshsub/";

/// What a member may open, and what a client may.
pub(super) const FOR_MEMBERS: &[StreamProtocol] = &[PEER, RPC, MODULE];
pub(super) const FOR_CLIENTS: &[StreamProtocol] = &[RPC];
