//! Hello: what two nodes say before anything else is served.
//!
//! The dialer says `Hello`, the listener answers `Welcome` or `Refused`, and a welcomed dialer says
//! `Ready`. Members show certificates: their peer id, signed by the mesh key. A joiner and a client
//! show that they hold a token. What is proven is bound to peer ids that Noise or TLS has proven.
//! The judging is pure; `node/src/network/hello.rs` only moves the bytes.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::NodeId;
use crate::mesh::roll::{Roll, Rotation};
use crate::time::Time;
use crate::wire::token::{Proof, Token, TokenId};

/// The wire versions that this build speaks.
pub const VERSIONS: Versions = Versions { min: 3, max: 3 };
/// Anything said in hello. Beyond: the connection is dropped.
pub const HELLO_BYTES_MAX: usize = 4 << 10;
/// Earlier rotations that a token is tried with, to say that it was revoked. Beyond: it is only wrong.
const REVOKED_SOUGHT_MAX: usize = 16;

/// 32 bytes that must not be printed.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("secret")
    }
}

/// A mesh: its public key. Printed as base58.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MeshId(pub [u8; 32]);

impl fmt::Display for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.0).into_string())
    }
}

impl fmt::Debug for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The mesh's key pair. Every member holds it; who holds it is a member.
#[derive(Clone)]
pub struct MeshKey(SigningKey);

impl fmt::Debug for MeshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshKey({})", self.id())
    }
}

impl MeshKey {
    pub fn from_secret(secret: Secret) -> MeshKey {
        MeshKey(SigningKey::from_bytes(&secret.0))
    }

    pub fn id(&self) -> MeshId {
        MeshId(self.0.verifying_key().to_bytes())
    }

    pub fn secret(&self) -> Secret {
        Secret(self.0.to_bytes())
    }

    /// A token that lets its holder in until `expiry`, or until the tokens are rotated again; `id` comes
    /// from outside, at random.
    pub fn token(
        &self,
        id: TokenId,
        expiry: Time,
        addresses: Vec<String>,
        rotations: &BTreeSet<Rotation>,
    ) -> Token {
        Token::new(self.id(), addresses, expiry, id, self.token_secret(id, expiry, rotations.iter()))
    }

    fn token_secret<'a>(
        &self,
        id: TokenId,
        expiry: Time,
        rotations: impl Iterator<Item = &'a Rotation>,
    ) -> Secret {
        let key = blake3::derive_key("dunlin 2026 token secret", &self.0.to_bytes());
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(&id.0);
        hasher.update(&expiry.0.to_le_bytes());
        rotations.for_each(|rotation| _ = hasher.update(&rotation.salt));
        Secret(*hasher.finalize().as_bytes())
    }

    /// Makes `node` a member.
    pub fn certify(&self, node: NodeId, issued: Time) -> Certificate {
        let signature = self.0.sign(&Certificate::signed_bytes(node, self.id(), issued));
        Certificate {
            node,
            mesh: self.id(),
            issued,
            signature: Bytes::copy_from_slice(&signature.to_bytes()),
        }
    }

    /// What a member answers to a hello that `from` said to `me`: the agreed wire version and what
    /// `from` may do here. `roll` is what the catalog says of who may come in.
    pub fn judge(
        &self,
        hello: &Hello,
        (from, me): (NodeId, NodeId),
        now: Time,
        roll: &Roll,
    ) -> Result<(u16, Role), Refusal> {
        let version = VERSIONS.agree(hello.versions)?;
        roll.check_identity(from)?;
        let role = match &hello.kind {
            HelloKind::Member { certificate } => {
                certificate.check(self.id(), from)?;
                roll.check_member(from)?;
                Role::Member
            }
            HelloKind::Joiner(pass) => {
                self.check_pass(pass, (from, me), now, roll)?;
                Role::Joiner
            }
            HelloKind::Client(pass) => {
                self.check_pass(pass, (from, me), now, roll)?;
                Role::Client
            }
        };
        Ok((version, role))
    }

    fn check_pass(
        &self,
        pass: &Pass,
        (from, me): (NodeId, NodeId),
        now: Time,
        roll: &Roll,
    ) -> Result<(), Refusal> {
        let holds = |known: usize| {
            let secret = self.token_secret(pass.token, pass.expiry, roll.rotations.iter().take(known));
            pass.proof.holds(&secret, from, me)
        };
        let known = roll.rotations.len();
        if !holds(known) {
            // Which of the rotations it was made before tells whoever holds it what to do.
            let revoked = (0..known).rev().take(REVOKED_SOUGHT_MAX).chain([0]).any(holds);
            return Err(if revoked { Refusal::RevokedToken } else { Refusal::WrongToken });
        }
        if pass.expiry <= now {
            return Err(Refusal::ExpiredToken(pass.expiry));
        }
        Ok(())
    }
}

/// A node's membership: its peer id under the mesh key's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    pub node: NodeId,
    pub mesh: MeshId,
    pub issued: Time,
    pub signature: Bytes,
}

impl Certificate {
    fn signed_bytes(node: NodeId, mesh: MeshId, issued: Time) -> Vec<u8> {
        let mut bytes = b"dunlin certificate 1".to_vec();
        bytes.extend_from_slice(&node.0);
        bytes.extend_from_slice(&mesh.0);
        bytes.extend_from_slice(&issued.0.to_le_bytes());
        bytes
    }

    /// Whether it makes `node` a member of `mesh`.
    pub fn check(&self, mesh: MeshId, node: NodeId) -> Result<(), Refusal> {
        if self.mesh != mesh {
            return Err(Refusal::OtherMesh { theirs: self.mesh, ours: mesh });
        }
        let signed = Certificate::signed_bytes(node, mesh, self.issued);
        let genuine = self.node == node
            && VerifyingKey::from_bytes(&mesh.0)
                .ok()
                .zip(Signature::from_slice(&self.signature).ok())
                .is_some_and(|(key, signature)| key.verify_strict(&signed, &signature).is_ok());
        if genuine { Ok(()) } else { Err(Refusal::WrongCertificate) }
    }
}

/// The oldest and the newest wire version that a build speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    pub min: u16,
    pub max: u16,
}

impl Versions {
    /// The newest version that both speak.
    pub fn agree(self, theirs: Versions) -> Result<u16, Refusal> {
        let version = self.max.min(theirs.max);
        if version < self.min || version < theirs.min {
            return Err(Refusal::Versions { ours: self, theirs });
        }
        Ok(version)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// The dialer's first word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub versions: Versions,
    /// A random number of this run of the node: another one means that older connections are dead.
    pub incarnation: u64,
    pub kind: HelloKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HelloKind {
    Member { certificate: Certificate },
    Joiner(Pass),
    Client(Pass),
}

/// What a token's holder shows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    pub token: TokenId,
    pub expiry: Time,
    pub proof: Proof,
}

impl Pass {
    pub fn new(token: &Token, from: NodeId, to: NodeId, nonce: [u8; 16]) -> Pass {
        Pass { token: token.id, expiry: token.expiry, proof: token.prove(from, to, nonce) }
    }
}

/// What the other side of a connection may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    Member,
    /// Becomes a member: it is given its certificate, and comes back with it.
    Joiner,
    /// A throw-away identity: RPC only.
    Client,
}

/// The listener's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Welcome(Welcome),
    /// A sentence for whoever started the dialer.
    Refused {
        why: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub version: u16,
    pub incarnation: u64,
    /// The listener's own.
    pub certificate: Certificate,
    /// For a joiner.
    pub admission: Option<Admission>,
}

/// What makes a joiner a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    pub certificate: Certificate,
    pub mesh_secret: Secret,
}

impl Admission {
    /// The mesh key, when all of it fits `mesh` and `node`.
    pub fn check(&self, mesh: MeshId, node: NodeId) -> Result<MeshKey, Refusal> {
        self.certificate.check(mesh, node)?;
        let key = MeshKey::from_secret(self.mesh_secret);
        if key.id() == mesh { Ok(key) } else { Err(Refusal::WrongCertificate) }
    }
}

/// The dialer's last word: its doors are open too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready;

/// Why somebody is not let in. The connection is dropped and counted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("no common wire version: one side speaks {ours}, the other {theirs}; update the older dunlin")]
    Versions { ours: Versions, theirs: Versions },
    #[error("the token is not one of this mesh; print one with `dunlin token` on a member")]
    WrongToken,
    #[error("the token expired at {0}; print a new one with `dunlin token` on a member")]
    ExpiredToken(Time),
    #[error("the certificate is of mesh {theirs}, this is mesh {ours}; join with a token of this mesh")]
    OtherMesh { theirs: MeshId, ours: MeshId },
    #[error("the certificate is not genuine; join again with a token")]
    WrongCertificate,
    #[error(
        "the token was revoked: tokens were rotated after it was made; print a new one with `dunlin token` on a member"
    )]
    RevokedToken,
    #[error(
        "no member vouches for this node, and since tokens were rotated the mesh key alone lets nobody in; join with a new token and an empty data folder"
    )]
    NotVouched,
    #[error(
        "this node was removed from the mesh for good (`dunlin nodes remove`); start it with an empty data folder and a token"
    )]
    Removed,
}

impl Refusal {
    /// Whether the other side's sentence says that this node was removed.
    pub fn says_removed(why: &str) -> bool {
        why == Refusal::Removed.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const ME: NodeId = NodeId([1; 32]);
    const YOU: NodeId = NodeId([2; 32]);

    fn mesh(seed: u8) -> MeshKey {
        MeshKey::from_secret(Secret([seed; 32]))
    }

    fn said(kind: HelloKind) -> Hello {
        Hello { versions: VERSIONS, incarnation: 3, kind }
    }

    #[track_caller]
    fn check(kind: HelloKind, expect: Result<Role, &str>) {
        let verdict = mesh(5).judge(&said(kind), (YOU, ME), Time(500), &Roll::default());
        assert_eq!(
            verdict.map(|(_, role)| role).map_err(|why| why.to_string()),
            expect.map_err(str::to_string)
        );
    }

    fn pass(token: &Token) -> Pass {
        Pass::new(token, YOU, ME, [4; 16])
    }

    #[test]
    fn a_member_shows_its_own_certificate() {
        check(HelloKind::Member { certificate: mesh(5).certify(YOU, Time(1)) }, Ok(Role::Member));
        let not_genuine = "the certificate is not genuine; join again with a token";
        check(HelloKind::Member { certificate: mesh(5).certify(ME, Time(1)) }, Err(not_genuine));
        let mut later = mesh(5).certify(YOU, Time(1));
        later.issued = Time(2);
        check(HelloKind::Member { certificate: later }, Err(not_genuine));
        let mut forged = mesh(6).certify(YOU, Time(1));
        forged.mesh = mesh(5).id();
        check(HelloKind::Member { certificate: forged }, Err(not_genuine));
    }

    #[test]
    fn another_mesh_is_named() {
        let verdict = mesh(6).certify(YOU, Time(1)).check(mesh(5).id(), YOU);
        assert_eq!(verdict, Err(Refusal::OtherMesh { theirs: mesh(6).id(), ours: mesh(5).id() }));
    }

    #[test]
    fn a_token_opens_until_it_expires() {
        let token = mesh(5).token(TokenId([7; 8]), Time(501), vec![], &BTreeSet::new());
        check(HelloKind::Joiner(pass(&token)), Ok(Role::Joiner));
        check(HelloKind::Client(pass(&token)), Ok(Role::Client));

        let expired = mesh(5).token(TokenId([7; 8]), Time(500), vec![], &BTreeSet::new());
        let sentence =
            "the token expired at 1970-01-01T00:00:00.5Z; print a new one with `dunlin token` on a member";
        check(HelloKind::Joiner(pass(&expired)), Err(sentence));

        let wrong = "the token is not one of this mesh; print one with `dunlin token` on a member";
        let mut stretched = pass(&expired);
        stretched.expiry = Time(9_999);
        check(HelloKind::Joiner(stretched), Err(wrong));
        let other = mesh(6).token(TokenId([7; 8]), Time(501), vec![], &BTreeSet::new());
        check(HelloKind::Client(pass(&other)), Err(wrong));
        check(HelloKind::Client(Pass::new(&token, ME, YOU, [4; 16])), Err(wrong));
    }

    fn rotated(times: u8) -> Roll {
        let rotation = |n: u8| Rotation { before: n.into(), salt: [n; 32] };
        Roll { rotations: (0..times).map(rotation).collect(), ..Roll::default() }
    }

    #[track_caller]
    fn check_with(roll: &Roll, kind: HelloKind, expect: Result<Role, Refusal>) {
        let verdict = mesh(5).judge(&said(kind), (YOU, ME), Time(500), roll);
        assert_eq!(verdict.map(|(_, role)| role), expect);
    }

    #[test]
    fn rotation_revokes_every_token_of_before() {
        let made =
            |times| pass(&mesh(5).token(TokenId([7; 8]), Time(501), vec![], &rotated(times).rotations));
        for known in 0..4 {
            for times in 0..4 {
                let expect = match times.cmp(&known) {
                    core::cmp::Ordering::Less => Err(Refusal::RevokedToken),
                    core::cmp::Ordering::Equal => Ok(Role::Joiner),
                    core::cmp::Ordering::Greater => Err(Refusal::WrongToken),
                };
                check_with(&rotated(known), HelloKind::Joiner(made(times)), expect.clone());
                let expect = expect.map(|_| Role::Client);
                check_with(&rotated(known), HelloKind::Client(made(times)), expect);
            }
        }
    }

    #[test]
    fn after_a_rotation_a_certificate_needs_somebody_who_vouches() {
        let certificate = || HelloKind::Member { certificate: mesh(5).certify(YOU, Time(1)) };
        let mut roll = rotated(1);
        check_with(&roll, certificate(), Err(Refusal::NotVouched));
        roll.vouched.insert(YOU);
        check_with(&roll, certificate(), Ok(Role::Member));
    }

    #[test]
    fn a_removed_identity_is_refused_whatever_it_shows() {
        let roll = Roll { removed: [YOU].into(), vouched: [YOU].into(), ..Roll::default() };
        let certificate = mesh(5).certify(YOU, Time(1));
        check_with(&roll, HelloKind::Member { certificate }, Err(Refusal::Removed));
        let token = mesh(5).token(TokenId([7; 8]), Time(501), vec![], &BTreeSet::new());
        check_with(&roll, HelloKind::Joiner(pass(&token)), Err(Refusal::Removed));
        check_with(&roll, HelloKind::Client(pass(&token)), Err(Refusal::Removed));
    }

    #[test]
    fn versions_meet_or_the_sentence_says_why_not() {
        let ours = Versions { min: 2, max: 4 };
        assert_eq!(ours.agree(Versions { min: 1, max: 3 }), Ok(3));
        assert_eq!(ours.agree(Versions { min: 4, max: 9 }), Ok(4));
        let error = ours.agree(Versions { min: 5, max: 6 }).unwrap_err().to_string();
        assert_eq!(
            error,
            "no common wire version: one side speaks 2 to 4, the other 5 to 6; update the older dunlin"
        );
        assert!(ours.agree(Versions { min: 1, max: 1 }).is_err());
    }

    #[test]
    fn an_admission_must_fit_the_mesh_and_the_node() {
        let good = Admission { certificate: mesh(5).certify(YOU, Time(1)), mesh_secret: mesh(5).secret() };
        assert_eq!(good.check(mesh(5).id(), YOU).unwrap().id(), mesh(5).id());
        assert!(good.check(mesh(5).id(), ME).is_err());
        let bad = Admission { mesh_secret: mesh(6).secret(), ..good };
        assert!(bad.check(mesh(5).id(), YOU).is_err());
    }
}
