//! The hub: the one task that runs the swarm. It moves events and never waits for a peer; whatever
//! takes time is a task of its own that reports back.
//!
//! Which substream carries a pair of nodes' messages is decided by one of them, so that dials from
//! both sides never end in two links: the node with the smaller id opens it, on any connection
//! that passed hello, and opens another only when that one is over. The other side takes what
//! comes; a newer substream replaces an older one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_protocol::effect::Input;
use dunlin_protocol::id::NodeId;
use dunlin_protocol::limits::NODES_MAX;
use dunlin_protocol::mesh::roll::Roll;
use dunlin_protocol::wire::handshake::{Refusal, Role};
use futures::StreamExt as _;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, mdns};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::backoff::Backoff;
use super::counters::Counters;
use super::door::{OpenError, Reply};
use super::gate::{GateEvent, node_id, peer_id};
use super::gossip::{Spread, Topics};
use super::hello::{Greeter, HelloError, Passed};
use super::links::{Ended, Link, LinkId, Links};
use super::modules;
use super::network::Doors;
use super::protocols::{MODULE, PEER, RPC};
use super::rpc_door::{self, RpcPeer};
use super::transport::{GatedSwarm, InnerEvent};
use crate::inbox::Inbox;

/// How often the hub looks for peers without a link and bootstrap addresses to dial.
const TICK: Duration = Duration::from_millis(500);
/// Addresses tried in one dial. Beyond: left out.
const ADDRESSES_MAX: usize = 16;
/// Found by mDNS and remembered. Beyond: not dialled.
const NEIGHBOURS_MAX: usize = 256;
/// Substreams served at once. Beyond: refused and counted.
pub(super) const RPC_STREAMS_MAX: usize = 1024;
pub(super) const MODULE_STREAMS_MAX: usize = 32;

/// What the rest of the node asks of the hub.
#[derive(Debug)]
pub(super) enum Order {
    Dial {
        node: NodeId,
        addresses: Vec<String>,
    },
    Disconnect {
        node: NodeId,
    },
    /// The reply is dropped when there is no connection to the node.
    Open {
        node: NodeId,
        protocol: StreamProtocol,
        reply: Reply,
    },
    Spread(Spread),
    Stop,
}

/// The outcome of opening a link's substream.
struct LinkOpened {
    node: NodeId,
    connection: ConnectionId,
    outcome: Option<Stream>,
}

pub(super) struct Hub {
    pub swarm: GatedSwarm,
    pub me: NodeId,
    pub orders: mpsc::Receiver<Order>,
    pub links: Arc<Links>,
    pub listening: Arc<Mutex<Vec<Multiaddr>>>,
    pub inbox: Inbox,
    pub doors: Doors,
    pub counters: Arc<Counters>,
    pub greeter: Arc<Greeter>,
    pub roll: watch::Receiver<Option<Arc<Roll>>>,
    pub state: State,
}

/// What the hub knows of the others.
pub(super) struct State {
    members: BTreeMap<NodeId, Member>,
    /// Connections that passed hello.
    passed: BTreeMap<ConnectionId, (NodeId, Passed)>,
    dials: BTreeMap<ConnectionId, Target>,
    bootstrap: Vec<(Multiaddr, Backoff)>,
    /// Found by mDNS: where, and whether to dial now.
    neighbours: BTreeMap<PeerId, (Multiaddr, Backoff)>,
    /// Rotations of tokens when connections were looked through last.
    rotations: usize,
    next_link: u64,
    topics: Topics,
    ended: (mpsc::Sender<Ended>, mpsc::Receiver<Ended>),
    opened: (mpsc::Sender<LinkOpened>, mpsc::Receiver<LinkOpened>),
    rpc_streams: Arc<Semaphore>,
    module_streams: Arc<Semaphore>,
}

#[derive(Default)]
struct Member {
    /// Oldest first.
    connections: Vec<ConnectionId>,
    link: Option<(LinkId, ConnectionId)>,
    /// Resolves when the newest link is over.
    over: Option<oneshot::Receiver<()>>,
    opening: bool,
    opened_at: Option<Instant>,
    backoff: Backoff,
}

/// Whom a dial was meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Member(NodeId),
    Bootstrap(usize),
    Neighbour(PeerId),
}

impl State {
    pub fn new(bootstrap: Vec<Multiaddr>) -> State {
        State {
            members: BTreeMap::new(),
            passed: BTreeMap::new(),
            dials: BTreeMap::new(),
            bootstrap: bootstrap.into_iter().map(|address| (address, Backoff::default())).collect(),
            neighbours: BTreeMap::new(),
            rotations: 0,
            next_link: 0,
            topics: Topics::default(),
            // Reports are taken as fast as they come; a full channel makes a finished task wait.
            ended: mpsc::channel(NODES_MAX),
            opened: mpsc::channel(NODES_MAX),
            rpc_streams: Arc::new(Semaphore::new(RPC_STREAMS_MAX)),
            module_streams: Arc::new(Semaphore::new(MODULE_STREAMS_MAX)),
        }
    }
}

impl Hub {
    /// Runs until `Order::Stop` or until every handle is gone.
    pub async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(Order::Stop) | None => break,
                    Some(order) => self.on_order(order),
                },
                event = self.swarm.select_next_some() => self.on_event(event),
                Some(ended) = self.state.ended.1.recv() => self.on_ended(ended),
                Some(opened) = self.state.opened.1.recv() => self.on_link_opened(opened),
                _ = tick.tick() => self.on_tick(),
            }
        }
        self.links.end_all();
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Dial { node, addresses } => self.on_dial(node, &addresses),
            Order::Disconnect { node } => {
                self.links.end(node);
                if let Some(peer) = peer_id(node) {
                    // An error says that there was no connection.
                    let _ = self.swarm.disconnect_peer_id(peer);
                }
            }
            Order::Open { node, protocol, reply } => {
                if let Some(connection) = self.state.members.get(&node).and_then(|m| m.connections.last()) {
                    self.swarm.behaviour_mut().open(node, *connection, protocol, reply);
                }
            }
            Order::Spread(spread) => {
                let gossip = &mut self.swarm.behaviour_mut().inner().gossip;
                self.state.topics.carry_out(spread, gossip, &self.inbox, &self.counters);
            }
            Order::Stop => {}
        }
    }

    fn on_dial(&mut self, node: NodeId, addresses: &[String]) {
        let Some(peer) = peer_id(node) else { return };
        let known = self.state.members.contains_key(&node);
        if node == self.me || self.is_dialling(Target::Member(node)) || (!known && self.is_full()) {
            return;
        }
        let member = self.state.members.entry(node).or_default();
        if !member.connections.is_empty() || !member.backoff.is_due() {
            return;
        }
        let addresses: Vec<Multiaddr> = addresses
            .iter()
            .take(ADDRESSES_MAX)
            .filter_map(|text| text.parse().ok())
            .filter_map(|address: Multiaddr| address.with_p2p(peer).ok())
            .collect();
        if addresses.is_empty() {
            return;
        }
        let options = DialOpts::peer_id(peer)
            .addresses(addresses)
            .condition(PeerCondition::NotDialing)
            .allocate_new_port()
            .build();
        self.dial(Target::Member(node), options);
    }

    fn is_full(&self) -> bool {
        self.state.members.len() >= NODES_MAX
    }

    fn is_dialling(&self, target: Target) -> bool {
        self.state.dials.values().any(|dial| *dial == target)
    }

    fn dial(&mut self, target: Target, options: DialOpts) {
        self.counters.dials.one();
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.state.dials.insert(connection, target);
            }
            Err(error) => {
                self.counters.dials_failed.one();
                tracing::debug!(?target, "not dialled: {error}");
                self.backoff(target, Backoff::on_failure);
            }
        }
    }

    fn backoff(&mut self, target: Target, change: fn(&mut Backoff)) {
        let backoff = match target {
            Target::Member(node) => self.state.members.get_mut(&node).map(|member| &mut member.backoff),
            Target::Bootstrap(index) => self.state.bootstrap.get_mut(index).map(|(_, backoff)| backoff),
            Target::Neighbour(peer) => self.state.neighbours.get_mut(&peer).map(|(_, backoff)| backoff),
        };
        if let Some(backoff) = backoff {
            change(backoff);
        }
    }

    /// The roll changed: connections of members that it refuses end, and after a rotation those of all
    /// clients, since the tokens that they came with are revoked.
    fn review(&mut self) {
        if !self.roll.has_changed().unwrap_or(false) {
            return;
        }
        self.roll.mark_unchanged();
        let Some(roll) = self.greeter.roll() else { return };
        let rotated =
            core::mem::replace(&mut self.state.rotations, roll.rotations.len()) < roll.rotations.len();
        let stands = |(node, passed): &(NodeId, Passed)| match passed.role {
            Role::Member => roll.check_member(*node).is_ok(),
            Role::Client | Role::Joiner => !rotated,
        };
        let over: Vec<ConnectionId> =
            self.state.passed.iter().filter(|(_, of)| !stands(of)).map(|(id, _)| *id).collect();
        for connection in over {
            self.swarm.close_connection(connection);
        }
    }

    fn on_tick(&mut self) {
        self.review();
        let members: Vec<NodeId> = self.state.members.keys().copied().collect();
        members.into_iter().for_each(|node| self.consider_link(node));
        let neighbours: Vec<PeerId> = self.state.neighbours.keys().copied().collect();
        neighbours.into_iter().for_each(|peer| self.consider_neighbour(peer));
        // Bootstrap addresses are for a node that is alone; the core dials the members that it knows.
        if self.state.passed.values().any(|(_, passed)| passed.role == Role::Member) {
            return;
        }
        for index in 0..self.state.bootstrap.len() {
            let Some((address, backoff)) = self.state.bootstrap.get(index) else { continue };
            let target = Target::Bootstrap(index);
            if backoff.is_due() && !self.is_dialling(target) {
                self.dial(target, dial_options(address.clone()));
            }
        }
    }

    /// Opens a link when this side is the one to do so and none stands.
    fn consider_link(&mut self, node: NodeId) {
        if node < self.me {
            return;
        }
        let Some(member) = self.state.members.get_mut(&node) else { return };
        let Some(connection) = member.connections.last().copied() else { return };
        let recently = member.opened_at.is_some_and(|at| at.elapsed() < TICK);
        if member.link.is_some() || member.opening || recently {
            return;
        }
        member.opening = true;
        member.opened_at = Some(Instant::now());
        let (reply, stream) = oneshot::channel::<Result<Stream, OpenError>>();
        self.swarm.behaviour_mut().open(node, connection, PEER, reply);
        let report = self.state.opened.0.clone();
        tokio::spawn(async move {
            let outcome = match stream.await {
                Ok(Ok(stream)) => Some(stream),
                Ok(Err(error)) => {
                    tracing::debug!(%node, "no link: {error}");
                    None
                }
                Err(_) => None,
            };
            // The hub may have ended.
            let _ = report.send(LinkOpened { node, connection, outcome }).await;
        });
    }

    fn on_link_opened(&mut self, opened: LinkOpened) {
        let LinkOpened { node, connection, outcome } = opened;
        if let Some(member) = self.state.members.get_mut(&node) {
            member.opening = false;
        }
        if let Some(stream) = outcome {
            self.start_link(node, connection, stream);
        }
    }

    fn start_link(&mut self, node: NodeId, connection: ConnectionId, stream: Stream) {
        let Some(member) = self.state.members.get_mut(&node) else { return };
        if !member.connections.contains(&connection) {
            return;
        }
        let id = LinkId(self.state.next_link);
        self.state.next_link += 1;
        let (over, is_over) = oneshot::channel();
        member.link = Some((id, connection));
        let link = Link {
            id,
            node,
            connection,
            previous: member.over.replace(is_over),
            over,
            inbox: self.inbox.clone(),
            counters: self.counters.clone(),
            ended: self.state.ended.0.clone(),
        };
        self.links.run(link, stream);
    }

    fn on_ended(&mut self, ended: Ended) {
        if ended.silent {
            self.swarm.close_connection(ended.connection);
        }
        if let Some(member) = self.state.members.get_mut(&ended.node)
            && member.link.is_some_and(|(link, _)| link == ended.link)
        {
            member.link = None;
        }
        self.consider_link(ended.node);
    }

    fn on_event(&mut self, event: SwarmEvent<GateEvent<InnerEvent>>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_gate(event),
            SwarmEvent::ConnectionClosed { connection_id, cause, .. } => {
                tracing::debug!(%connection_id, ?cause, "connection closed");
                self.on_closed(connection_id);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.counters.dials_failed.one();
                if let Some(target) = self.state.dials.remove(&connection_id) {
                    tracing::debug!(?target, "dial failed: {error}");
                    self.backoff(target, Backoff::on_failure);
                }
            }
            SwarmEvent::IncomingConnectionError { error, send_back_addr, .. } => {
                self.counters.connections_refused.one();
                tracing::debug!(from = %send_back_addr, "connection refused: {error}");
            }
            SwarmEvent::NewListenAddr { address, .. } => self.listening().push(address),
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.listening().retain(|known| *known != address)
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::warn!(?addresses, ?reason, "no longer listening");
                self.listening().retain(|known| !addresses.contains(known));
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!("listening: {error}"),
            // libp2p's enum is non-exhaustive; the rest only informs.
            _ => {}
        }
    }

    fn listening(&self) -> std::sync::MutexGuard<'_, Vec<Multiaddr>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_gate(&mut self, event: GateEvent<InnerEvent>) {
        match event {
            GateEvent::Passed { node, connection, passed } => self.on_passed(node, connection, passed),
            GateEvent::Failed { node, connection, error } => self.on_failed(node, connection, &error),
            GateEvent::Opened { node, connection, protocol, stream } => {
                self.on_substream(node, connection, &protocol, stream);
            }
            GateEvent::Inner(InnerEvent::Ping(ping)) => {
                if let Err(error) = ping.result {
                    tracing::debug!(peer = %ping.peer, "ping failed, connection closed: {error}");
                    self.swarm.close_connection(ping.connection);
                }
            }
            GateEvent::Inner(InnerEvent::Mdns(mdns::Event::Discovered(found))) => {
                found.into_iter().for_each(|(peer, address)| self.on_neighbour(peer, address));
            }
            GateEvent::Inner(InnerEvent::Mdns(mdns::Event::Expired(gone))) => {
                gone.iter().for_each(|(peer, _)| {
                    self.state.neighbours.remove(peer);
                });
            }
            GateEvent::Inner(InnerEvent::Gossip(event)) => {
                let gossip = &mut self.swarm.behaviour_mut().inner().gossip;
                self.state.topics.on_event(event, gossip, &self.inbox, &self.counters);
            }
            GateEvent::Inner(InnerEvent::Identify(_)) => {}
            GateEvent::Inner(InnerEvent::Limits(never) | InnerEvent::Memory(never)) => match never {},
        }
    }

    /// Nodes on one machine find each other by other means; a loopback address from elsewhere is wrong.
    fn on_neighbour(&mut self, peer: PeerId, address: Multiaddr) {
        let loopback = address.iter().any(|part| match part {
            Protocol::Ip4(ip) => ip.is_loopback(),
            Protocol::Ip6(ip) => ip.is_loopback(),
            _ => false,
        });
        let known = self.state.neighbours.contains_key(&peer);
        if loopback || (!known && self.state.neighbours.len() >= NEIGHBOURS_MAX) {
            return;
        }
        let backoff = self.state.neighbours.get(&peer).map(|(_, backoff)| *backoff).unwrap_or_default();
        self.state.neighbours.insert(peer, (address, backoff));
        self.consider_neighbour(peer);
    }

    fn consider_neighbour(&mut self, peer: PeerId) {
        let Some((address, backoff)) = self.state.neighbours.get(&peer) else { return };
        let target = Target::Neighbour(peer);
        if backoff.is_due() && !self.swarm.is_connected(&peer) && !self.is_dialling(target) {
            let options = DialOpts::peer_id(peer)
                .addresses(vec![address.clone()])
                .condition(PeerCondition::NotDialing)
                .allocate_new_port()
                .build();
            self.dial(target, options);
        }
    }

    fn on_passed(&mut self, node: NodeId, connection: ConnectionId, passed: Passed) {
        self.counters.hellos_passed.one();
        if let Some(target) = self.state.dials.remove(&connection) {
            self.backoff(target, |backoff| *backoff = Backoff::default());
        }
        let (role, incarnation) = (passed.role, passed.incarnation);
        self.state.passed.insert(connection, (node, passed));
        if role != Role::Member {
            return;
        }
        if !self.state.members.contains_key(&node) && self.is_full() {
            self.swarm.close_connection(connection);
            return;
        }
        let member = self.state.members.entry(node).or_default();
        member.connections.push(connection);
        member.opened_at = None;
        // Connections of an earlier run of that node are dead, whether or not TCP knows it.
        let stale: Vec<ConnectionId> = (member.connections.iter().copied())
            .filter(|id| self.state.passed.get(id).is_some_and(|(_, old)| old.incarnation != incarnation))
            .collect();
        for old in stale {
            let member = self.state.members.entry(node).or_default();
            if member.link.is_some_and(|(_, on)| on == old) {
                self.links.end(node);
            }
            self.swarm.close_connection(old);
        }
        self.consider_link(node);
    }

    fn on_failed(&mut self, node: NodeId, connection: ConnectionId, error: &HelloError) {
        let target = self.state.dials.remove(&connection);
        if matches!(error, HelloError::Admitted) {
            self.counters.joiners_admitted.one();
            tracing::info!(%node, "a node joined the mesh");
            let inbox = self.inbox.clone();
            tokio::spawn(async move { inbox.send(Input::Admitted { node }).await });
            return;
        }
        self.counters.hellos_failed.one();
        match target {
            Some(target) => {
                let refused = matches!(error, HelloError::Refused(_) | HelloError::Refusal(_));
                self.backoff(target, if refused { Backoff::on_refusal } else { Backoff::on_failure });
                tracing::warn!(%node, "connection dropped: {error}");
                if matches!(error, HelloError::Refused(why) if Refusal::says_removed(why)) {
                    let inbox = self.inbox.clone();
                    tokio::spawn(async move { inbox.send(Input::SaidRemoved { by: node }).await });
                }
            }
            None => tracing::info!(%node, "stranger turned away: {error}"),
        }
    }

    fn on_closed(&mut self, connection: ConnectionId) {
        if let Some(target) = self.state.dials.remove(&connection) {
            self.backoff(target, Backoff::on_failure);
        }
        let Some((node, _)) = self.state.passed.remove(&connection) else { return };
        if let Some(member) = self.state.members.get_mut(&node) {
            member.connections.retain(|id| *id != connection);
        }
        // The link's own substream tells it; the next one is considered when it has ended.
    }

    fn on_substream(
        &mut self,
        node: NodeId,
        connection: ConnectionId,
        protocol: &StreamProtocol,
        stream: Stream,
    ) {
        let Some((_, passed)) = self.state.passed.get(&connection) else { return };
        if *protocol == PEER {
            // The side with the larger id only takes links; to open one there is a mistake.
            match node < self.me {
                true => self.start_link(node, connection, stream),
                false => self.counters.substreams_refused.one(),
            }
            return;
        }
        let permits = if *protocol == MODULE { &self.state.module_streams } else { &self.state.rpc_streams };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            self.counters.substreams_refused.one();
            return;
        };
        let counters = self.counters.clone();
        if *protocol == MODULE {
            let modules = self.doors.modules.clone();
            tokio::spawn(async move {
                modules::serve(modules, stream, counters).await;
                drop(permit);
            });
        } else if *protocol == RPC {
            let (door, from) = (self.doors.rpc.clone(), RpcPeer::new(node, passed.role));
            tokio::spawn(async move {
                rpc_door::serve(door, from, stream, counters).await;
                drop(permit);
            });
        }
    }
}

/// Dials an address, whoever is there unless the address says so.
pub(super) fn dial_options(address: Multiaddr) -> DialOpts {
    let peer = address.iter().last().and_then(|part| match part {
        Protocol::P2p(peer) => Some(peer),
        _ => None,
    });
    match peer {
        Some(peer) => DialOpts::peer_id(peer)
            .addresses(vec![address])
            .condition(PeerCondition::NotDialing)
            .allocate_new_port()
            .build(),
        None => DialOpts::unknown_peer_id().address(address).allocate_new_port().build(),
    }
}

/// Whether the address names this very node.
pub(super) fn leads_to(address: &Multiaddr, node: NodeId) -> bool {
    address.iter().any(|part| matches!(part, Protocol::P2p(peer) if node_id(&peer) == Some(node)))
}
