//! The token: what lets a stranger in, as one line of text that a person can paste.
//!
//! Its secret is a keyed hash of the mesh's private key over (id, expiry). Any member can compute
//! it again, so no node keeps a list of tokens; nobody else can. The text is `dunlin1` and the
//! base58 of the encoded token with four bytes of its blake3 hash behind it.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::NodeId;
use crate::time::Time;
use crate::wire::codec;
use crate::wire::handshake::{MeshId, Secret};

const PREFIX: &str = "dunlin1";
const CHECKSUM_BYTES: usize = 4;
/// A token's text. Beyond: refused as malformed before it is decoded.
const TOKEN_CHARS_MAX: usize = 4096;
/// Addresses in a token. Beyond: the first ones are taken.
const ADDRESSES_MAX: usize = 8;

/// A token's number, chosen at random when it is issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenId(pub [u8; 8]);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub mesh: MeshId,
    /// Multiaddrs of members, as text, the peer id at their end.
    pub addresses: Vec<String>,
    pub expiry: Time,
    pub id: TokenId,
    pub secret: Secret,
}

/// A text that is no token that can be used. State unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    #[error("the token is malformed: {0}; copy the whole line that `dunlin token` prints")]
    Malformed(&'static str),
    #[error(
        "the token's checksum does not match: a character is wrong or missing; copy the whole line that `dunlin token` prints"
    )]
    Checksum,
    #[error("the token expired at {0}; print a new one with `dunlin token` on a member")]
    Expired(Time),
}

impl Token {
    pub(crate) fn new(
        mesh: MeshId,
        mut addresses: Vec<String>,
        expiry: Time,
        id: TokenId,
        secret: Secret,
    ) -> Token {
        addresses.truncate(ADDRESSES_MAX);
        Token { mesh, addresses, expiry, id, secret }
    }

    /// One line, without spaces or line end.
    pub fn to_text(&self) -> String {
        let mut bytes = codec::encode(self).to_vec();
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        let mut text = PREFIX.to_string();
        text.push_str(&bs58::encode(bytes).into_string());
        text
    }

    /// The token in a text, whether expired or not: the node that is asked has the last word.
    pub fn decode(text: &str) -> Result<Token, TokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TokenError::Malformed("it is empty"));
        }
        if text.len() > TOKEN_CHARS_MAX {
            return Err(TokenError::Malformed("it is too long"));
        }
        let body =
            text.strip_prefix(PREFIX).ok_or(TokenError::Malformed("it does not begin with 'dunlin1'"))?;
        let bytes = bs58::decode(body).into_vec().map_err(|_| TokenError::Malformed("it is not base58"))?;
        let (body, sum) = bytes
            .len()
            .checked_sub(CHECKSUM_BYTES)
            .and_then(|at| bytes.split_at_checked(at))
            .ok_or(TokenError::Malformed("it is too short"))?;
        if sum != checksum(body) {
            return Err(TokenError::Checksum);
        }
        let token: Token =
            codec::decode(body).map_err(|_| TokenError::Malformed("it does not hold what a token holds"))?;
        if token.addresses.len() > ADDRESSES_MAX {
            return Err(TokenError::Malformed("it names too many addresses"));
        }
        Ok(token)
    }

    /// The token in a text, if it can still be used at `now`.
    pub fn parse(text: &str, now: Time) -> Result<Token, TokenError> {
        let token = Token::decode(text)?;
        if token.expiry <= now {
            return Err(TokenError::Expired(token.expiry));
        }
        Ok(token)
    }

    /// Shows to `to` that `from` holds the token's secret, without telling it.
    pub fn prove(&self, from: NodeId, to: NodeId, nonce: [u8; 16]) -> Proof {
        Proof { nonce, tag: tag(&self.secret, from, to, &nonce) }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

/// Knowledge of a token's secret, bound to both ends of the connection. Noise and TLS have proven
/// both peer ids, so a proof that was overheard is of no use to anybody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    pub nonce: [u8; 16],
    pub tag: [u8; 32],
}

impl Proof {
    /// Whether it was made with `secret` by `from` for `to`. Takes the same time for every tag.
    pub(crate) fn holds(&self, secret: &Secret, from: NodeId, to: NodeId) -> bool {
        blake3::Hash::from_bytes(tag(secret, from, to, &self.nonce)) == blake3::Hash::from_bytes(self.tag)
    }
}

fn tag(secret: &Secret, from: NodeId, to: NodeId, nonce: &[u8; 16]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(&secret.0);
    hasher.update(b"dunlin token proof 1");
    hasher.update(&from.0);
    hasher.update(&to.0);
    hasher.update(nonce);
    *hasher.finalize().as_bytes()
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, ..] = *blake3::hash(bytes).as_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::handshake::MeshKey;
    use alloc::vec;

    fn token() -> Token {
        let address = "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooW".to_string();
        MeshKey::from_secret(Secret([5; 32])).token(
            TokenId([1; 8]),
            Time(1_000),
            vec![address],
            &Default::default(),
        )
    }

    #[test]
    fn text_comes_back_as_the_token() {
        let text = token().to_text();
        assert!(text.starts_with("dunlin1") && !text.contains(char::is_whitespace));
        assert_eq!(Token::parse(&alloc::format!(" {text}\n"), Time(999)), Ok(token()));
    }

    #[test]
    fn every_wrong_character_is_noticed() {
        let text = token().to_text();
        for at in 0..text.len() {
            let wrong = if &text[at..=at] == "z" { "y" } else { "z" };
            let mut changed = text.clone();
            changed.replace_range(at..=at, wrong);
            assert!(Token::parse(&changed, Time(0)).is_err(), "character {at}");
        }
        assert_eq!(Token::parse(&text[..text.len() - 2], Time(0)), Err(TokenError::Checksum));
    }

    #[test]
    fn an_expired_token_says_when() {
        let error = Token::parse(&token().to_text(), Time(1_000)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the token expired at 1970-01-01T00:00:01Z; print a new one with `dunlin token` on a member"
        );
    }

    #[test]
    fn a_proof_is_of_no_use_to_others() {
        let (a, b, c) = (NodeId([1; 32]), NodeId([2; 32]), NodeId([3; 32]));
        let token = token();
        let proof = token.prove(a, b, [9; 16]);
        assert!(proof.holds(&token.secret, a, b));
        assert!(!proof.holds(&token.secret, c, b));
        assert!(!proof.holds(&token.secret, a, c));
        assert!(!proof.holds(&Secret([0; 32]), a, b));
    }
}
