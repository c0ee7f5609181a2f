//! A swarm that only dials: for joining, and for clients that call over libp2p.

use std::sync::Arc;

use dunlin_protocol::id::NodeId;
use futures::StreamExt as _;
use libp2p::Multiaddr;
use libp2p::swarm::{ConnectionId, SwarmEvent};
use thiserror::Error;
use tokio::sync::watch;

use super::gate::GateEvent;
use super::hello::{Credentials, Greeter, HelloError, Passed};
use super::hub::dial_options;
use super::identity::Identity;
use super::transport::{self, GatedSwarm, TransportError};

pub(super) struct Caller {
    pub swarm: GatedSwarm,
}

/// One address did not lead to a hello that passed.
#[derive(Debug, Error)]
pub(super) enum ReachError {
    /// A node answered and said no: trying again changes nothing.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Unreachable(String),
}

impl Caller {
    pub fn new(identity: &Identity, credentials: Credentials) -> Result<Caller, TransportError> {
        // Whoever is not a member yet takes every member for one.
        let (_, roll) = watch::channel(Some(Arc::default()));
        let greeter = Greeter::new(identity.node(), credentials, roll);
        Ok(Caller { swarm: transport::swarm(identity.keypair(), Arc::new(greeter), false)? })
    }

    /// Dials one address and says hello. libp2p's own timeouts bound it to about ten seconds.
    pub async fn reach(&mut self, address: Multiaddr) -> Result<(NodeId, ConnectionId, Passed), ReachError> {
        let options = dial_options(address);
        let dialled = options.connection_id();
        self.swarm.dial(options).map_err(|error| ReachError::Unreachable(sentence(&error)))?;
        loop {
            match self.swarm.select_next_some().await {
                SwarmEvent::Behaviour(GateEvent::Passed { node, connection, passed })
                    if connection == dialled =>
                {
                    return Ok((node, connection, passed));
                }
                SwarmEvent::Behaviour(GateEvent::Failed { connection, error, .. })
                    if connection == dialled =>
                {
                    return Err(match error {
                        HelloError::Refused(why) => ReachError::Refused(why),
                        error => ReachError::Unreachable(error.to_string()),
                    });
                }
                SwarmEvent::OutgoingConnectionError { connection_id, error, .. }
                    if connection_id == dialled =>
                {
                    return Err(ReachError::Unreachable(sentence(&error)));
                }
                _ => {}
            }
        }
    }
}

/// libp2p's dial errors span several lines; the causes are what a person wants to read.
fn sentence(error: &libp2p::swarm::DialError) -> String {
    match error {
        libp2p::swarm::DialError::Transport(causes) => {
            let causes: Vec<String> = causes
                .iter()
                .map(|(_, cause)| {
                    let mut deepest: &dyn std::error::Error = cause;
                    while let Some(source) = deepest.source() {
                        deepest = source;
                    }
                    deepest.to_string()
                })
                .collect();
            causes.join("; ")
        }
        libp2p::swarm::DialError::WrongPeerId { obtained, .. } => {
            format!("another node ({obtained}) answers at that address")
        }
        other => other.to_string(),
    }
}
