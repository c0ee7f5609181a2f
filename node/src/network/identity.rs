//! Who this node is: its own key, and its membership in a mesh.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dunlin_protocol::id::NodeId;
use dunlin_protocol::mesh::roll::Rotation;
use dunlin_protocol::time::Time;
use dunlin_protocol::wire::codec;
use dunlin_protocol::wire::handshake::{Certificate, MeshId, MeshKey, Secret};
use dunlin_protocol::wire::token::{Token, TokenId};
use ed25519_dalek::SigningKey;
use libp2p::identity::Keypair;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A node's key pair. Its public half is the node's id.
#[derive(Clone)]
pub struct Identity(SigningKey);

impl Identity {
    pub fn generate() -> Identity {
        Identity::from_bytes(rand::random())
    }

    pub fn from_bytes(secret: [u8; 32]) -> Identity {
        Identity(SigningKey::from_bytes(&secret))
    }

    /// The secret, to be stored where nobody else reads it.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    pub fn node(&self) -> NodeId {
        NodeId(self.0.verifying_key().to_bytes())
    }

    /// The key with which the node signs its own facts.
    pub fn signing_key(&self) -> &SigningKey {
        &self.0
    }

    pub(super) fn keypair(&self) -> Keypair {
        #[expect(clippy::expect_used, reason = "every 32 bytes are an ed25519 secret")]
        Keypair::ed25519_from_bytes(self.0.to_bytes()).expect("32 bytes are a secret key")
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.node())
    }
}

/// A node's membership: the mesh key, the node's certificate, and where it found the mesh.
#[derive(Debug, Clone)]
pub struct MeshIdentity {
    key: MeshKey,
    certificate: Certificate,
    addresses: Vec<String>,
}

/// Bytes that are no membership of this node. State unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadMeshIdentity {
    #[error(
        "the stored membership is damaged: {0}; restore it from a backup, or start with an empty data folder and a token"
    )]
    Damaged(String),
    #[error(
        "the file `mesh` in the data folder belongs to another identity than the file `identity` beside it; put the right one back, or start with an empty data folder and a token"
    )]
    OtherNode,
}

/// What is stored. The first byte is the format's version.
#[derive(Serialize, Deserialize)]
struct Stored {
    format: u8,
    secret: Secret,
    certificate: Certificate,
    addresses: Vec<String>,
}

const FORMAT: u8 = 1;

impl MeshIdentity {
    /// A new mesh, with `node` as its first member.
    pub fn create(node: NodeId) -> MeshIdentity {
        let key = MeshKey::from_secret(Secret(rand::random()));
        let certificate = key.certify(node, now());
        MeshIdentity::new(key, certificate, Vec::new())
    }

    pub(super) fn new(key: MeshKey, certificate: Certificate, addresses: Vec<String>) -> MeshIdentity {
        MeshIdentity { key, certificate, addresses }
    }

    pub fn mesh(&self) -> MeshId {
        self.key.id()
    }

    /// The addresses of the token with which this node joined: good to dial when no other is known.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    pub(super) fn key(&self) -> &MeshKey {
        &self.key
    }

    pub(super) fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// A token of this mesh that leads to `addresses` and expires after `lifetime`; `rotations` are those
    /// that its node knows.
    pub fn token(&self, addresses: Vec<String>, lifetime: Duration, rotations: &BTreeSet<Rotation>) -> Token {
        let lifetime = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        let expiry = Time(now().0.saturating_add(lifetime));
        self.key.token(TokenId(rand::random()), expiry, addresses, rotations)
    }

    /// The bytes to store. They hold the mesh key: nobody else may read them.
    pub fn encode(&self) -> Bytes {
        codec::encode(&Stored {
            format: FORMAT,
            secret: self.key.secret(),
            certificate: self.certificate.clone(),
            addresses: self.addresses.clone(),
        })
    }

    /// The membership of `node` in these bytes.
    pub fn decode(bytes: &[u8], node: NodeId) -> Result<MeshIdentity, BadMeshIdentity> {
        let damaged = |why: String| BadMeshIdentity::Damaged(why);
        match bytes.first() {
            Some(&FORMAT) => {}
            Some(format) => return Err(damaged(format!("format {format} is not known to this version"))),
            None => return Err(damaged("it is empty".into())),
        }
        let stored: Stored = codec::decode(bytes).map_err(|error| damaged(error.to_string()))?;
        let key = MeshKey::from_secret(stored.secret);
        if stored.certificate.node != node {
            return Err(BadMeshIdentity::OtherNode);
        }
        stored.certificate.check(key.id(), node).map_err(|error| damaged(error.to_string()))?;
        Ok(MeshIdentity::new(key, stored.certificate, stored.addresses))
    }
}

/// This machine's clock, for expiries and dates of issue only.
pub(super) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_membership_survives_its_bytes_and_no_other_node_takes_it() {
        let node = Identity::generate().node();
        let mesh = MeshIdentity::create(node);
        let bytes = mesh.encode();
        assert_eq!(MeshIdentity::decode(&bytes, node).map(|mesh| mesh.mesh()), Ok(mesh.mesh()));
        let other = Identity::generate().node();
        assert_eq!(MeshIdentity::decode(&bytes, other).map(|_| ()), Err(BadMeshIdentity::OtherNode));
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 0x10;
            assert!(MeshIdentity::decode(&changed, node).is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_identity_is_libp2ps() {
        let identity = Identity::generate();
        let peer = identity.keypair().public().to_peer_id();
        assert_eq!(peer.to_string(), identity.node().to_string());
        assert_eq!(Identity::from_bytes(identity.to_bytes()).node(), identity.node());
    }
}
