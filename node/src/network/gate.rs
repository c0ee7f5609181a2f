//! The one behaviour of the swarm: it wraps all others and denies them until hello has passed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};

use dunlin_protocol::id::NodeId;
use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{PeerId, Stream, StreamProtocol};
use thiserror::Error;

use super::door::{Door, FromDoor, Reply, Side, ToDoor};
use super::hello::{Greeter, HelloError, Passed};

/// Inbound connections that have not passed hello. Beyond: new ones are denied.
const STRANGERS_MAX: usize = 256;

/// What the gate tells the swarm's task.
#[derive(Debug)]
pub(super) enum GateEvent<T> {
    Inner(T),
    Passed { node: NodeId, connection: ConnectionId, passed: Passed },
    Failed { node: NodeId, connection: ConnectionId, error: HelloError },
    Opened { node: NodeId, connection: ConnectionId, protocol: StreamProtocol, stream: Stream },
}

/// A connection is not taken.
#[derive(Debug, Error)]
pub(super) enum Denied {
    #[error("the other side's identity is not an ed25519 key")]
    Identity,
    #[error("{STRANGERS_MAX} connections have not said hello yet; try again")]
    Strangers,
}

type Pending<B> = ToSwarm<GateEvent<<B as NetworkBehaviour>::ToSwarm>, ToDoor<THandlerInEvent<B>>>;

pub(super) struct Gate<B: NetworkBehaviour> {
    inner: B,
    greeter: Arc<Greeter>,
    /// Established, hello not passed.
    strangers: BTreeMap<ConnectionId, NodeId>,
    /// At most one failure per connection and what the swarm's task asks for.
    pending: VecDeque<Pending<B>>,
}

impl<B: NetworkBehaviour> Gate<B> {
    pub fn new(inner: B, greeter: Arc<Greeter>) -> Self {
        Gate { inner, greeter, strangers: BTreeMap::new(), pending: VecDeque::new() }
    }

    /// Opens a substream on this very connection. The reply is dropped if it is gone.
    pub fn open(&mut self, node: NodeId, connection: ConnectionId, protocol: StreamProtocol, reply: Reply) {
        if let Some(peer_id) = peer_id(node) {
            self.pending.push_back(ToSwarm::NotifyHandler {
                peer_id,
                handler: NotifyHandler::One(connection),
                event: ToDoor::Open { protocol, reply },
            });
        }
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Gate<B> {
    type ConnectionHandler = Door<THandler<B>>;
    type ToSwarm = GateEvent<B::ToSwarm>;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        if self.strangers.len() >= STRANGERS_MAX {
            return Err(ConnectionDenied::new(Denied::Strangers));
        }
        self.inner.handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let node = node_id(&peer).ok_or_else(|| ConnectionDenied::new(Denied::Identity))?;
        let inner = self.inner.handle_established_inbound_connection(connection, peer, local, remote)?;
        Ok(Door::new(inner, self.greeter.clone(), node, Side::Listener))
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let node = node_id(&peer).ok_or_else(|| ConnectionDenied::new(Denied::Identity))?;
        let inner =
            self.inner.handle_established_outbound_connection(connection, peer, address, role, port)?;
        Ok(Door::new(inner, self.greeter.clone(), node, Side::Dialer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionEstablished(established) = &event
            && let Some(node) = node_id(&established.peer_id)
        {
            self.strangers.insert(established.connection_id, node);
        }
        if let FromSwarm::ConnectionClosed(closed) = &event
            && let Some(node) = self.strangers.remove(&closed.connection_id)
        {
            let error = HelloError::Unanswered("the connection closed".into());
            let failed = GateEvent::Failed { node, connection: closed.connection_id, error };
            self.pending.push_back(ToSwarm::GenerateEvent(failed));
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let Some(node) = node_id(&peer) else { return };
        match event {
            FromDoor::Inner(event) => self.inner.on_connection_handler_event(peer, connection, event),
            FromDoor::Passed(passed) => {
                self.strangers.remove(&connection);
                let passed = GateEvent::Passed { node, connection, passed };
                self.pending.push_back(ToSwarm::GenerateEvent(passed));
            }
            FromDoor::Failed(error) => {
                self.strangers.remove(&connection);
                let failed = GateEvent::Failed { node, connection, error };
                self.pending.push_back(ToSwarm::GenerateEvent(failed));
            }
            FromDoor::Over => {
                let connection = CloseConnection::One(connection);
                self.pending.push_back(ToSwarm::CloseConnection { peer_id: peer, connection });
            }
            FromDoor::Opened { protocol, stream } => {
                let opened = GateEvent::Opened { node, connection, protocol, stream };
                self.pending.push_back(ToSwarm::GenerateEvent(opened));
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(event) = self.pending.pop_front() {
            return Poll::Ready(event);
        }
        self.inner.poll(cx).map(|event| event.map_out(GateEvent::Inner).map_in(ToDoor::Inner))
    }
}

/// The node behind a peer id, when it is an ed25519 key.
pub(super) fn node_id(peer: &PeerId) -> Option<NodeId> {
    NodeId::from_peer_id_bytes(&peer.to_bytes())
}

pub(super) fn peer_id(node: NodeId) -> Option<PeerId> {
    PeerId::from_bytes(&node.peer_id_bytes()).ok()
}
