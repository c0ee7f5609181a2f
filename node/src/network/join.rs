//! Joining: a token becomes a membership.

use std::time::Duration;

use dunlin_protocol::wire::token::{Token, TokenError};
use libp2p::Multiaddr;
use thiserror::Error;

use super::caller::{Caller, ReachError};
use super::hello::Credentials;
use super::hub::leads_to;
use super::identity::{Identity, MeshIdentity, now};
use super::transport::TransportError;

/// First and longest wait between two rounds over the token's addresses.
const WAIT_FIRST: Duration = Duration::from_millis(250);
const WAIT_LAST: Duration = Duration::from_secs(5);
/// One address is given up for the next after this.
const REACH_DEADLINE: Duration = Duration::from_secs(8);

/// The node did not join, and trying again with this token would change nothing.
#[derive(Debug, Error)]
pub enum JoinError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(
        "the token names no address that can be dialled; print one with `dunlin token` on a member that listens"
    )]
    NoAddress,
    #[error("the mesh refused this node: {0}")]
    Refused(String),
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// Asks the token's addresses, again and again while none can be reached. A malformed, expired or
/// refused token is an error at once.
pub async fn join(token: &str, identity: &Identity) -> Result<MeshIdentity, JoinError> {
    let token = Token::parse(token, now())?;
    let addresses: Vec<Multiaddr> = token
        .addresses
        .iter()
        .filter_map(|text| text.parse().ok())
        .filter(|address| !leads_to(address, identity.node()))
        .collect();
    if addresses.is_empty() {
        return Err(JoinError::NoAddress);
    }
    let mut caller = Caller::new(identity, Credentials::Joiner(token.clone()))?;
    let mut wait = WAIT_FIRST;
    loop {
        for address in &addresses {
            match tokio::time::timeout(REACH_DEADLINE, caller.reach(address.clone())).await {
                Ok(Ok((_, _, passed))) => {
                    if let Some(mesh) = passed.admission {
                        return Ok(mesh);
                    }
                }
                Ok(Err(ReachError::Refused(why))) => return Err(JoinError::Refused(why)),
                Ok(Err(ReachError::Unreachable(why))) => {
                    tracing::warn!("cannot reach {address} yet: {why}; trying again");
                }
                Err(_) => tracing::warn!("{address} does not answer yet; trying again"),
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(WAIT_LAST);
        // It may have expired while nobody could be reached.
        if token.expiry <= now() {
            return Err(TokenError::Expired(token.expiry).into());
        }
    }
}
