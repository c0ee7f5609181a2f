//! The swarm's parts: transports, the inner behaviours, and the limits on all of them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{NetworkBehaviour, Swarm};
use libp2p::{
    SwarmBuilder, connection_limits, identify, identity, mdns, memory_connection_limits, noise, ping, tcp,
    yamux,
};
use thiserror::Error;

use super::gate::Gate;
use super::gossip;
use super::hello::Greeter;

const IDENTIFY_PROTOCOL: &str = "/dunlin/1";
/// A connection that carries no substream closes after this.
const IDLE: Duration = Duration::from_secs(10);
/// Connections, established and on their way. Beyond: new ones are denied.
const ESTABLISHED_MAX: u32 = 4096;
const ESTABLISHED_PER_NODE_MAX: u32 = 8;
const PENDING_MAX: u32 = 256;
/// Above this part of the machine's memory in use by this process, new connections are denied.
const MEMORY_PART_MAX: f64 = 0.9;

/// The behaviours behind the gate.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub(super) struct Inner {
    limits: connection_limits::Behaviour,
    memory: memory_connection_limits::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    pub gossip: gossip::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

pub(super) type GatedSwarm = Swarm<Gate<Inner>>;

/// The swarm could not be made. Nothing is listening.
#[derive(Debug, Error)]
pub enum TransportError {
    #[error("the encrypted transport could not be set up: {0}")]
    Noise(#[from] noise::Error),
    #[error("gossip could not be set up: {0}")]
    Gossip(String),
}

pub(super) fn swarm(
    key: identity::Keypair,
    greeter: Arc<Greeter>,
    mdns: bool,
) -> Result<GatedSwarm, TransportError> {
    let inner = inner(&key, mdns)?;
    let gate = Gate::new(inner, greeter);
    let quic = |mut config: libp2p::quic::Config| {
        config.max_idle_timeout = 6_000;
        config.keep_alive_interval = Duration::from_secs(2);
        config
    };
    let swarm_config = |config: libp2p::swarm::Config| config.with_idle_connection_timeout(IDLE);
    let with_dns = SwarmBuilder::with_existing_identity(key.clone())
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_quic_config(quic)
        .with_dns();
    Ok(match with_dns {
        Ok(builder) => match builder.with_behaviour(|_| gate) {
            Ok(builder) => builder.with_swarm_config(swarm_config).build(),
        },
        // A machine without a resolver's configuration still has addresses of numbers.
        Err(error) => {
            tracing::warn!("names in addresses cannot be looked up: {error}");
            let plain: Result<_, Infallible> = SwarmBuilder::with_existing_identity(key)
                .with_tokio()
                .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
                .with_quic_config(quic)
                .with_behaviour(|_| gate);
            match plain {
                Ok(builder) => builder.with_swarm_config(swarm_config).build(),
            }
        }
    })
}

fn inner(key: &identity::Keypair, mdns: bool) -> Result<Inner, TransportError> {
    let public = key.public();
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_MAX))
        .with_max_pending_outgoing(Some(PENDING_MAX))
        .with_max_established(Some(ESTABLISHED_MAX))
        .with_max_established_per_peer(Some(ESTABLISHED_PER_NODE_MAX));
    let agent = concat!("dunlin/", env!("CARGO_PKG_VERSION")).to_string();
    let identify =
        identify::Config::new(IDENTIFY_PROTOCOL.to_string(), public.clone()).with_agent_version(agent);
    let ping = ping::Config::new().with_interval(Duration::from_secs(5)).with_timeout(Duration::from_secs(5));
    let mdns = match mdns.then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), public.to_peer_id())) {
        Some(Ok(behaviour)) => Some(behaviour),
        // Discovery is a convenience: a machine without multicast goes without it.
        Some(Err(error)) => {
            tracing::warn!("nodes on the local network are not looked for: {error}");
            None
        }
        None => None,
    };
    Ok(Inner {
        limits: connection_limits::Behaviour::new(limits),
        memory: memory_connection_limits::Behaviour::with_max_percentage(MEMORY_PART_MAX),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(ping),
        gossip: gossip::behaviour(key)?,
        mdns: Toggle::from(mdns),
    })
}
