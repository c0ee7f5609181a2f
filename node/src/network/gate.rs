//! The one behaviour of the swarm: it wraps all others and denies them until hello has passed.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use dunlin_protocol::id::NodeId;
use libp2p::core::multiaddr::Protocol;
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

/// Inbound connections that have not passed hello. Beyond: of the address that has the most of them the
/// oldest is closed, so that whoever sits there in silence keeps nobody out.
const STRANGERS_MAX: usize = 256;
/// Connections of one address that are being made. Beyond: its new ones are denied; those of others are not.
const KNOCKING_MAX: usize = 128;

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
    #[error("{KNOCKING_MAX} connections of this address are being made already; try again")]
    Knocking,
}

type Pending<B> = ToSwarm<GateEvent<<B as NetworkBehaviour>::ToSwarm>, ToDoor<THandlerInEvent<B>>>;

pub(super) struct Gate<B: NetworkBehaviour> {
    inner: B,
    greeter: Arc<Greeter>,
    /// Inbound and being made, by the address that they come from.
    knocking: BTreeMap<ConnectionId, Option<IpAddr>>,
    /// Established, hello not passed. Ids count up: the first is the oldest.
    strangers: BTreeMap<ConnectionId, Stranger>,
    /// At most one failure per connection and what the swarm's task asks for.
    pending: VecDeque<Pending<B>>,
}

/// A connection on which hello has not passed.
#[derive(Debug, Clone, Copy)]
struct Stranger {
    node: NodeId,
    /// Where it comes from; none for one that this node dialled.
    from: Option<Option<IpAddr>>,
}

impl<B: NetworkBehaviour> Gate<B> {
    pub fn new(inner: B, greeter: Arc<Greeter>) -> Self {
        let (knocking, strangers, pending) = Default::default();
        Gate { inner, greeter, knocking, strangers, pending }
    }

    pub fn inner(&mut self) -> &mut B {
        &mut self.inner
    }

    /// Places are short: the oldest stranger of the address that has the most goes.
    fn make_room(&mut self) {
        let mut of: BTreeMap<Option<IpAddr>, usize> = BTreeMap::new();
        let inbound = self.strangers.values().filter_map(|stranger| stranger.from);
        inbound.for_each(|from| *of.entry(from).or_default() += 1);
        if of.values().sum::<usize>() <= STRANGERS_MAX {
            return;
        }
        let crowd = of.into_iter().max_by_key(|(_, count)| *count).map(|(from, _)| from);
        let oldest =
            self.strangers.iter().find(|(_, stranger)| stranger.from.is_some() && stranger.from == crowd);
        let Some((connection, Stranger { node, .. })) = oldest.map(|(id, stranger)| (*id, *stranger)) else {
            return;
        };
        self.strangers.remove(&connection);
        let failed = GateEvent::Failed { node, connection, error: HelloError::Crowded };
        self.pending.push_back(ToSwarm::GenerateEvent(failed));
        if let Some(peer_id) = peer_id(node) {
            let connection = CloseConnection::One(connection);
            self.pending.push_back(ToSwarm::CloseConnection { peer_id, connection });
        }
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
        let from = ip_of(remote);
        if self.knocking.values().filter(|other| **other == from).count() >= KNOCKING_MAX {
            return Err(ConnectionDenied::new(Denied::Knocking));
        }
        self.inner.handle_pending_inbound_connection(connection, local, remote)?;
        self.knocking.insert(connection, from);
        Ok(())
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
            let endpoint = established.endpoint;
            let from = endpoint.is_listener().then(|| ip_of(endpoint.get_remote_address()));
            self.knocking.remove(&established.connection_id);
            self.strangers.insert(established.connection_id, Stranger { node, from });
            self.make_room();
        }
        if let FromSwarm::ListenFailure(failure) = &event {
            self.knocking.remove(&failure.connection_id);
        }
        if let FromSwarm::ConnectionClosed(closed) = &event
            && let Some(Stranger { node, .. }) = self.strangers.remove(&closed.connection_id)
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

fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    })
}

/// The node behind a peer id, when it is an ed25519 key.
pub(super) fn node_id(peer: &PeerId) -> Option<NodeId> {
    NodeId::from_peer_id_bytes(&peer.to_bytes())
}

pub(super) fn peer_id(node: NodeId) -> Option<PeerId> {
    PeerId::from_bytes(&node.peer_id_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use libp2p::core::ConnectedPoint;
    use libp2p::swarm::behaviour::{ConnectionEstablished, ListenFailure};
    use libp2p::swarm::{ListenError, dummy};

    use super::super::hello::Credentials;
    use super::super::identity::{Identity, MeshIdentity};
    use super::*;

    type Alone = Gate<dummy::Behaviour>;

    fn gate() -> Alone {
        let me = Identity::generate().node();
        let credentials = Credentials::Member(MeshIdentity::create(me));
        let roll = tokio::sync::watch::channel(None).1;
        Gate::new(dummy::Behaviour, Arc::new(Greeter::new(me, credentials, roll)))
    }

    fn address(text: &str) -> Multiaddr {
        format!("/ip4/{text}/tcp/1").parse().unwrap()
    }

    fn knock(gate: &mut Alone, id: usize, from: &str) -> bool {
        let id = ConnectionId::new_unchecked(id);
        gate.handle_pending_inbound_connection(id, &address("10.0.0.9"), &address(from)).is_ok()
    }

    fn established(gate: &mut Alone, id: usize, from: &str) {
        let endpoint =
            ConnectedPoint::Listener { local_addr: address("10.0.0.9"), send_back_addr: address(from) };
        let established = ConnectionEstablished {
            peer_id: peer_id(Identity::generate().node()).unwrap(),
            connection_id: ConnectionId::new_unchecked(id),
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established: 0,
        };
        gate.on_swarm_event(FromSwarm::ConnectionEstablished(established));
    }

    #[test]
    fn who_sits_there_in_silence_keeps_nobody_out() {
        let mut gate = gate();
        // A joiner from elsewhere, before all others, and one from the very address, last.
        established(&mut gate, 0, "10.0.0.2");
        for id in 1..=STRANGERS_MAX + 40 {
            established(&mut gate, id, "10.0.0.1");
        }
        let left: Vec<usize> = (0..=STRANGERS_MAX + 40)
            .filter(|id| gate.strangers.contains_key(&ConnectionId::new_unchecked(*id)))
            .collect();
        let youngest: Vec<usize> = (42..=STRANGERS_MAX + 40).collect();
        assert_eq!(left, [vec![0], youngest].concat());
        let closed = gate.pending.iter().filter(|it| matches!(it, ToSwarm::CloseConnection { .. })).count();
        let told = gate.pending.iter().filter(|it| {
            matches!(it, ToSwarm::GenerateEvent(GateEvent::Failed { error: HelloError::Crowded, .. }))
        });
        assert_eq!((closed, told.count()), (41, 41));
    }

    #[test]
    fn half_open_connections_of_one_address_leave_room_for_others() {
        let mut gate = gate();
        assert!((0..KNOCKING_MAX).all(|id| knock(&mut gate, id, "10.0.0.1")));
        assert!(!knock(&mut gate, KNOCKING_MAX, "10.0.0.1"));
        assert!(knock(&mut gate, KNOCKING_MAX + 1, "10.0.0.2"));
        // One of them came to nothing, one got through.
        gate.on_swarm_event(FromSwarm::ListenFailure(ListenFailure {
            local_addr: &address("10.0.0.9"),
            send_back_addr: &address("10.0.0.1"),
            error: &ListenError::Aborted,
            connection_id: ConnectionId::new_unchecked(0),
            peer_id: None,
        }));
        established(&mut gate, 1, "10.0.0.1");
        let next = KNOCKING_MAX + 2..KNOCKING_MAX + 5;
        let let_in: Vec<bool> = next.map(|id| knock(&mut gate, id, "10.0.0.1")).collect();
        assert_eq!(let_in, [true, true, false]);
    }
}
