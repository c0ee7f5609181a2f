//! The handle of the running network: what the driver calls, none of which waits.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_protocol::id::{Digest, NodeId, TopicId};
use dunlin_protocol::mesh::roll::Roll;
use dunlin_protocol::wire::codec;
use dunlin_protocol::wire::message::{Broadcast, Message};
use futures::StreamExt as _;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use super::counters::Counters;
use super::gate::peer_id;
use super::gossip::Spread;
use super::hello::{Credentials, Greeter};
use super::hub::{Hub, Order, State, leads_to};
use super::identity::{Identity, MeshIdentity};
use super::links::Links;
use super::modules::{Fetcher, Modules};
use super::rpc_door::RpcDoor;
use super::transport::{self, GatedSwarm, TransportError};
use crate::inbox::Inbox;

/// Orders that wait for the hub. Beyond: dropped and counted; the core repeats what matters.
const ORDERS_MAX: usize = 4096;
/// Broadcasts among them. Beyond: their stream goes directly for a while.
const BROADCASTS_MAX: usize = 64;
/// Binding takes no longer than this.
const LISTEN_DEADLINE: Duration = Duration::from_secs(10);
/// A stopping network is given this long to say goodbye.
const STOP_DEADLINE: Duration = Duration::from_secs(2);
const FREED_DEADLINE: Duration = Duration::from_millis(500);
const FREED_POLL: Duration = Duration::from_millis(5);

/// How the network is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Multiaddrs to listen on; port 0 picks one.
    pub listen: Vec<String>,
    /// Multiaddrs to dial while this node knows no other member.
    pub bootstrap: Vec<String>,
    /// Whether to look for nodes on the local network by multicast.
    pub mdns: bool,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        NetworkConfig {
            listen: vec!["/ip4/127.0.0.1/tcp/0".into(), "/ip4/127.0.0.1/udp/0/quic-v1".into()],
            bootstrap: Vec::new(),
            mdns: true,
        }
    }
}

/// What this node serves to others.
#[derive(Clone)]
pub struct Doors {
    pub rpc: Arc<dyn RpcDoor>,
    pub modules: Arc<dyn Modules>,
}

impl std::fmt::Debug for Doors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Doors")
    }
}

/// The network did not start. Nothing is listening.
#[derive(Debug, Error)]
pub enum NetworkError {
    #[error(
        "'{0}' is no multiaddr; write it like /ip4/127.0.0.1/tcp/4001 or /ip4/127.0.0.1/udp/4001/quic-v1"
    )]
    Address(String),
    #[error(
        "cannot listen on {address}: the port is in use; stop the program that holds it, or choose another port (0 picks a free one)"
    )]
    PortInUse { address: Multiaddr },
    #[error("cannot listen on {address}: {why}; choose an address and port that this machine may bind")]
    Listen { address: Multiaddr, why: String },
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// The running network. Clones are handles of the same one.
#[derive(Clone)]
pub struct Network {
    me: NodeId,
    orders: mpsc::Sender<Order>,
    links: Arc<Links>,
    listening: Arc<Mutex<Vec<Multiaddr>>>,
    counters: Arc<Counters>,
    /// Places of broadcasts that wait for the hub.
    broadcasts: Arc<Semaphore>,
    fetcher: Fetcher,
    roll: Arc<watch::Sender<Option<Arc<Roll>>>>,
    runtime: Handle,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Network {
    /// Binds every address, then runs until `stop`. Nobody is let in before `admit` has said who may come.
    /// Call it inside the runtime that shall carry it.
    pub async fn start(
        config: NetworkConfig,
        identity: &Identity,
        mesh: MeshIdentity,
        inbox: Inbox,
        doors: Doors,
    ) -> Result<Network, NetworkError> {
        let me = identity.node();
        let listen = parse(&config.listen)?;
        let mut bootstrap = parse(&config.bootstrap)?;
        bootstrap.retain(|address| !leads_to(address, me));
        let (roll, known) = watch::channel(None);
        let greeter = Arc::new(Greeter::new(me, Credentials::Member(mesh), known.clone()));
        let mut swarm = transport::swarm(identity.keypair(), greeter.clone(), config.mdns)?;
        let listening = listen_on(&mut swarm, listen).await?;

        let (orders, incoming) = mpsc::channel(ORDERS_MAX);
        let links = Arc::new(Links::default());
        let listening = Arc::new(Mutex::new(listening));
        let counters = Arc::new(Counters::default());
        let fetcher = Fetcher {
            modules: doors.modules.clone(),
            orders: orders.clone(),
            inbox: inbox.clone(),
            counters: counters.clone(),
            running: Arc::new(Mutex::new(BTreeSet::new())),
        };
        let hub = Hub {
            swarm,
            me,
            orders: incoming,
            links: links.clone(),
            listening: listening.clone(),
            inbox,
            doors,
            counters: counters.clone(),
            greeter,
            roll: known,
            state: State::new(bootstrap),
        };
        let task = tokio::spawn(hub.run());
        let runtime = Handle::current();
        let task = Arc::new(Mutex::new(Some(task)));
        let broadcasts = Arc::new(Semaphore::new(BROADCASTS_MAX));
        let roll = Arc::new(roll);
        Ok(Network { me, orders, links, listening, counters, broadcasts, fetcher, roll, runtime, task })
    }

    /// Who may come in from now on. Connections that may not stand any more end within a second.
    pub fn admit(&self, roll: &Roll) {
        self.roll.send_replace(Some(Arc::new(roll.clone())));
    }

    /// Queues a message for a member. Without a link it is lost; what is lost heals by repetition.
    pub fn send(&self, to: NodeId, message: Message) {
        self.links.send(to, message, &self.counters);
    }

    /// Tries to have a connection; does nothing when there is one, or a dial, or it failed just now.
    pub fn dial(&self, node: NodeId, addresses: Vec<String>) {
        self.order(Order::Dial { node, addresses });
    }

    pub fn disconnect(&self, node: NodeId) {
        self.links.end(node);
        self.order(Order::Disconnect { node });
    }

    /// Takes part in the topic: what `writer` broadcasts there comes as `Input::Broadcast`.
    pub fn join_topic(&self, topic: TopicId, writer: NodeId) {
        self.order(Order::Spread(Spread::Join { topic, writer }));
    }

    pub fn leave_topic(&self, topic: TopicId) {
        self.order(Order::Spread(Spread::Leave { topic }));
    }

    /// Queues a batch for all that are in the topic. False: there is no room for it. It ends in
    /// `Input::NotBroadcast` when nobody could be sent it.
    pub fn broadcast(&self, topic: TopicId, broadcast: &Broadcast) -> bool {
        let Ok(place) = self.broadcasts.clone().try_acquire_owned() else {
            self.counters.broadcasts_unheard.one();
            return false;
        };
        let bytes = codec::encode(broadcast);
        self.orders.try_send(Order::Spread(Spread::Broadcast { topic, bytes, place })).is_ok()
    }

    /// Ends in `ModuleHeld` or `ModuleMissing`.
    pub fn fetch_module(&self, digest: Digest, holders: Vec<NodeId>) {
        self.runtime.spawn(self.fetcher.clone().fetch(digest, holders));
    }

    /// The members to which a link stands.
    pub fn peers(&self) -> Vec<NodeId> {
        self.links.nodes()
    }

    /// Where this node listens, without its peer id.
    pub fn addresses(&self) -> Vec<String> {
        self.listening().iter().map(Multiaddr::to_string).collect()
    }

    /// Where this node listens, as others may dial it: the peer id at the end.
    pub fn dialable_addresses(&self) -> Vec<String> {
        let Some(peer) = peer_id(self.me) else { return Vec::new() };
        let listening = self.listening();
        listening
            .iter()
            .filter_map(|address| address.clone().with_p2p(peer).ok())
            .map(|a| a.to_string())
            .collect()
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Ends every link and connection; nothing listens any more. (A QUIC socket may hold its port for
    /// some seconds, for its farewells, unless the process ends.)
    pub async fn stop(&self) {
        // The hub may be gone already, or too busy to read orders: then the deadline decides.
        let _ = self.orders.send_timeout(Order::Stop, STOP_DEADLINE).await;
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let abort = task.abort_handle();
            if tokio::time::timeout(STOP_DEADLINE, task).await.is_err() {
                abort.abort();
            }
        }
        // A dial that is being given up may hold the listeners for a moment longer.
        let tcp = |address: &&Multiaddr| address.iter().any(|part| matches!(part, Protocol::Tcp(_)));
        let listening: Vec<Multiaddr> = self.listening().iter().filter(tcp).cloned().collect();
        let freed = async {
            while listening.iter().any(|address| try_bind(address).is_err()) {
                tokio::time::sleep(FREED_POLL).await;
            }
        };
        if tokio::time::timeout(FREED_DEADLINE, freed).await.is_err() {
            tracing::debug!("a port is still in use");
        }
    }

    fn order(&self, order: Order) {
        if self.orders.try_send(order).is_err() {
            self.counters.orders_dropped.one();
        }
    }

    fn listening(&self) -> std::sync::MutexGuard<'_, Vec<Multiaddr>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(addresses: &[String]) -> Result<Vec<Multiaddr>, NetworkError> {
    addresses.iter().map(|text| text.parse().map_err(|_| NetworkError::Address(text.clone()))).collect()
}

/// Listens on every address and gives back the real ones, ports picked.
async fn listen_on(
    swarm: &mut GatedSwarm,
    addresses: Vec<Multiaddr>,
) -> Result<Vec<Multiaddr>, NetworkError> {
    let mut waiting = Vec::new();
    for address in addresses {
        try_bind(&address)?;
        match swarm.listen_on(address.clone()) {
            Ok(listener) => waiting.push((listener, address)),
            Err(error) => return Err(NetworkError::Listen { address, why: error.to_string() }),
        }
    }
    let mut bound = Vec::new();
    let listening = async {
        while !waiting.is_empty() {
            match swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { listener_id, address } => {
                    waiting.retain(|(listener, _)| *listener != listener_id);
                    bound.push(address);
                }
                SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                    if let Some((_, address)) = waiting.iter().find(|(listener, _)| *listener == listener_id)
                    {
                        let why = reason.err().map_or("it was closed".into(), |error| error.to_string());
                        return Err(NetworkError::Listen { address: address.clone(), why });
                    }
                }
                // Connections that come this early say hello all the same; the hub hears of those
                // that pass only if it runs, so they are left to their deadline and come again.
                _ => {}
            }
        }
        Ok(())
    };
    let outcome = tokio::time::timeout(LISTEN_DEADLINE, listening).await;
    match outcome {
        Ok(outcome) => outcome?,
        Err(_) => {
            if let Some((_, address)) = waiting.into_iter().next() {
                return Err(NetworkError::Listen { address, why: "the system did not answer".into() });
            }
        }
    }
    Ok(bound)
}

/// libp2p shares ports between sockets of one user, so a second node on the same port would start
/// and take half of the first one's connections. A plain bind finds out.
fn try_bind(address: &Multiaddr) -> Result<(), NetworkError> {
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
        _ => return Ok(()),
    };
    let bound = match parts.next() {
        Some(Protocol::Tcp(port)) => TcpListener::bind(SocketAddr::new(ip, port)).map(drop),
        Some(Protocol::Udp(port)) => UdpSocket::bind(SocketAddr::new(ip, port)).map(drop),
        _ => return Ok(()),
    };
    bound.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => NetworkError::PortInUse { address: address.clone() },
        _ => NetworkError::Listen { address: address.clone(), why: error.to_string() },
    })
}
