//! Names that cannot be mixed up: nodes, logs, events, digests, positions.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A text that does not name what it should. State unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{text}' is no {what}: {why}")]
pub struct BadName {
    pub text: String,
    pub what: &'static str,
    pub why: &'static str,
}

fn bad(text: &str, what: &'static str, why: &'static str) -> BadName {
    BadName { text: text.chars().take(80).collect(), what, why }
}

/// A node's identity: its ed25519 public key. Printed as the libp2p peer id `12D3…`, which is the
/// base58 of the same 32 bytes behind a fixed six-byte prefix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub [u8; 32]);

/// Multihash "identity" (0x00), 36 bytes, then the protobuf header of an ed25519 public key.
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

impl NodeId {
    /// The bytes of the libp2p peer id that stands for this node.
    pub fn peer_id_bytes(&self) -> [u8; 38] {
        let mut bytes = [0; 38];
        let (prefix, key) = bytes.split_at_mut(6);
        prefix.copy_from_slice(&PEER_ID_PREFIX);
        key.copy_from_slice(&self.0);
        bytes
    }

    /// The node behind a peer id's bytes; `None` when it is not an ed25519 key in identity form.
    pub fn from_peer_id_bytes(bytes: &[u8]) -> Option<NodeId> {
        let key = bytes.strip_prefix(&PEER_ID_PREFIX)?;
        Some(NodeId(key.try_into().ok()?))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.peer_id_bytes()).into_string())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_string();
        f.write_str(text.get(text.len().saturating_sub(6)..).unwrap_or("node"))
    }
}

impl FromStr for NodeId {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let bytes = bs58::decode(text).into_vec().map_err(|_| bad(text, "node id", "it is not base58"))?;
        NodeId::from_peer_id_bytes(&bytes)
            .ok_or_else(|| bad(text, "node id", "it is not the peer id of an ed25519 key"))
    }
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub [u8; $bytes]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                let bytes = unhex(text).ok_or_else(|| bad(text, $what, "it is not hexadecimal"))?;
                let bytes = bytes.try_into().map_err(|_| bad(text, $what, "it has the wrong length"))?;
                Ok($name(bytes))
            }
        }
    };
}

hex_id!(
    /// The blake3 digest of a module or of a revision.
    Digest, 32, "digest"
);
hex_id!(
    /// A log's short name: the first 16 bytes of the blake3 hash of its `LogName`.
    LogId, 16, "log id"
);
hex_id!(
    /// What a stream is called among those that get it by gossip: the first 16 bytes of the blake3 hash of
    /// its log and outputs.
    TopicId, 16, "topic id"
);
hex_id!(
    /// A link of a log's hash chain: the first 16 bytes of blake3(epoch, seq, previous, body).
    Hash, 16, "record hash"
);

impl TopicId {
    /// The topic of these outputs of a log's unit.
    pub fn of(log: &LogId, outputs: &[u16]) -> TopicId {
        let mut hasher = blake3::Hasher::new_derive_key("dunlin 2026 fan-out topic");
        hasher.update(&log.0);
        outputs.iter().for_each(|output| _ = hasher.update(&output.to_le_bytes()));
        let mut topic = TopicId::default();
        topic.0.iter_mut().zip(hasher.finalize().as_bytes()).for_each(|(to, from)| *to = *from);
        topic
    }
}

impl Digest {
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(*blake3::hash(bytes).as_bytes())
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// The number of a writer's reign over a log; the first is 1. Each opening begins a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// A record's number in its log; the first is 1, without gaps, across epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Seq(pub u64);

impl Seq {
    /// The last number stays where it is: no log comes that far, but somebody may name it.
    pub fn next(self) -> Seq {
        Seq(self.0.saturating_add(1))
    }
}

/// Where a log stands after one record. `Position::START` is before the first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Position {
    pub epoch: Epoch,
    pub seq: Seq,
    pub hash: Hash,
}

impl Position {
    pub const START: Position = Position { epoch: Epoch(0), seq: Seq(0), hash: Hash([0; 16]) };
}

/// Where an event was committed: stable across retries, restarts and failover, so it is the
/// idempotency key that sinks hand to the outside. Printed `log.epoch.seq.index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventId {
    pub log: LogId,
    pub epoch: Epoch,
    pub seq: Seq,
    pub index: u32,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.log, self.epoch.0, self.seq.0, self.index)
    }
}

impl FromStr for EventId {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let wrong = || bad(text, "event id", "it is not LOG.EPOCH.SEQ.INDEX");
        let mut parts = text.split('.');
        let mut part = || parts.next().ok_or_else(wrong);
        let id = EventId {
            log: part()?.parse()?,
            epoch: Epoch(part()?.parse().map_err(|_| wrong())?),
            seq: Seq(part()?.parse().map_err(|_| wrong())?),
            index: part()?.parse().map_err(|_| wrong())?,
        };
        if parts.next().is_some() {
            return Err(wrong());
        }
        Ok(id)
    }
}

/// A dead letter's name: the log of the actor in which it was written, and its number there, counted
/// from 1. Two letters of one event have two names, and so has an event that dies again. Printed
/// `log.number`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct LetterId {
    pub actor: LogId,
    pub number: u64,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.actor, self.number)
    }
}

impl FromStr for LetterId {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let wrong =
            || bad(text, "dead letter's id", "it is not LOG.NUMBER, as `dunlin dead-letters` prints it");
        let (actor, number) = text.split_once('.').ok_or_else(wrong)?;
        let actor = actor.parse().map_err(|_| wrong())?;
        Ok(LetterId { actor, number: number.parse().map_err(|_| wrong())? })
    }
}

/// A pipeline's, source's, stage's, sink's or producer's name: 1 to 63 of `a-z A-Z 0-9 _ -`, the
/// first a letter or digit. Output streams of a stage add a dot and a word (`outlook.scores`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if text.is_empty() || text.len() > 63 {
            return Err(bad(text, "name", "it must have 1 to 63 characters"));
        }
        if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) || !text.chars().all(legal) {
            return Err(bad(
                text,
                "name",
                "it may hold letters, digits, '_' and '-', and begins with a letter or digit",
            ));
        }
        Ok(Name(text.to_string()))
    }
}

impl TryFrom<String> for Name {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number of key slots; a share is a range of them.
pub const SLOTS: u16 = 1024;

/// A key's slot: the first two bytes of blake3(key), little-endian, mod 1024.
pub fn slot_of(key: &[u8]) -> u16 {
    let hash = blake3::hash(key);
    let [a, b, ..] = *hash.as_bytes();
    u16::from_le_bytes([a, b]) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_their_text() {
        let node = NodeId([7; 32]);
        assert!(node.to_string().starts_with("12D3KooW"));
        assert_eq!(node.to_string().parse(), Ok(node));
        let id = EventId { log: LogId([9; 16]), epoch: Epoch(2), seq: Seq(3), index: 4 };
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("a.b".parse::<EventId>().is_err());
        let letter = LetterId { actor: LogId([9; 16]), number: 12 };
        assert_eq!(letter.to_string().parse(), Ok(letter));
        assert!(id.to_string().parse::<LetterId>().is_err());
        assert!("-x".parse::<Name>().is_err());
        assert!("fare-watch".parse::<Name>().is_ok());
    }
}
