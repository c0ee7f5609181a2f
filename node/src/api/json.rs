//! The stable JSON: what HTTP answers and what `--json` prints. More fields may come, these stay.
//!
//! Each shape is made from an `rpc` type and gives it back, so that a client behind HTTP and one
//! behind libp2p hold the same answers. Payloads are embedded as the JSON that they are.

mod members;
mod shown;

use std::collections::BTreeMap;

use bytes::Bytes;
use dunlin_protocol::event::{Event, Placed};
use dunlin_protocol::id::{Digest, Epoch, EventId, Hash, LetterId, LogId, Name, Position, Seq};
use dunlin_protocol::rpc::lines::{LinesTaken, RejectedLine};
use dunlin_protocol::rpc::{
    DeadLetterStatus, LetterMove, LettersMoved, Liveness, NodeStatus, PipelineState, PipelineStatus, Status,
    TailEvent,
};
use dunlin_protocol::time::Time;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

pub use self::members::{AnewJson, GivenUpJson, NodeRemovedJson, TokensRotatedJson};
pub use self::shown::{ActorJson, ShownJson, StageJson};
use super::cursor;

/// JSON that is not what its place asks for. Nothing was taken from it.
#[derive(Debug, Error)]
#[error("the node's answer cannot be read ({0}): the node may be of another version than this command")]
pub struct BadJson(String);

fn bad(what: &str, text: &str) -> BadJson {
    BadJson(format!("'{}' is no {what}", text.chars().take(80).collect::<String>()))
}

fn parsed<T: std::str::FromStr>(what: &str, text: &str) -> Result<T, BadJson> {
    text.parse().map_err(|_| bad(what, text))
}

/// Bytes as JSON: themselves when they are JSON (on one line), else text, else a string in hex.
pub fn raw(bytes: &[u8]) -> Box<RawValue> {
    let valid = serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok();
    let text = std::str::from_utf8(bytes);
    let json = match text {
        // In JSON a raw line end can only be white space between tokens.
        Ok(text) if valid && text.contains(['\n', '\r']) => {
            text.replace(['\n', '\r'], " ").trim().to_string()
        }
        Ok(text) if valid => text.trim().to_string(),
        Ok(text) => quoted(text),
        Err(_) => quoted(&bytes.iter().fold(String::from("0x"), |hex, byte| format!("{hex}{byte:02x}"))),
    };
    RawValue::from_string(json).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn unraw(value: &RawValue) -> Bytes {
    Bytes::copy_from_slice(value.get().as_bytes())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[derive(Debug, Serialize, Deserialize)]
pub struct StatusJson {
    pub node: String,
    pub mesh: String,
    pub version: String,
    pub peers: u32,
    pub pipelines: u32,
    pub rss_bytes: u64,
    pub disk_bytes: u64,
    pub uptime_seconds: f64,
    #[serde(default)]
    pub troubles: Vec<String>,
}

impl From<&Status> for StatusJson {
    fn from(status: &Status) -> Self {
        StatusJson {
            node: status.node.to_string(),
            mesh: status.mesh.clone(),
            version: status.version.clone(),
            peers: status.peers,
            pipelines: status.pipelines,
            rss_bytes: status.rss_bytes,
            disk_bytes: status.disk_bytes,
            uptime_seconds: status.uptime_ms as f64 / 1000.0,
            troubles: status.troubles.clone(),
        }
    }
}

impl StatusJson {
    pub fn into_rpc(self) -> Result<Status, BadJson> {
        Ok(Status {
            node: parsed("node id", &self.node)?,
            mesh: self.mesh,
            version: self.version,
            peers: self.peers,
            pipelines: self.pipelines,
            rss_bytes: self.rss_bytes,
            disk_bytes: self.disk_bytes,
            uptime_ms: (self.uptime_seconds * 1000.0).round() as u64,
            troubles: self.troubles,
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub struct NodeJson {
    pub node: String,
    pub state: String,
    pub labels: BTreeMap<String, String>,
    pub actors: u32,
    pub addresses: Vec<String>,
}

pub fn liveness_word(state: Liveness) -> &'static str {
    match state {
        Liveness::Alive => "alive",
        Liveness::Suspect => "suspect",
        Liveness::Gone => "gone",
    }
}

impl From<&NodeStatus> for NodeJson {
    fn from(node: &NodeStatus) -> Self {
        NodeJson {
            node: node.node.to_string(),
            state: liveness_word(node.state).to_string(),
            labels: node.labels.clone(),
            actors: node.actors,
            addresses: node.addresses.clone(),
        }
    }
}

impl NodeJson {
    pub fn into_rpc(self) -> Result<NodeStatus, BadJson> {
        let state = match self.state.as_str() {
            "alive" => Liveness::Alive,
            "suspect" => Liveness::Suspect,
            "gone" => Liveness::Gone,
            other => return Err(bad("state of a node", other)),
        };
        Ok(NodeStatus {
            node: parsed("node id", &self.node)?,
            state,
            labels: self.labels,
            actors: self.actors,
            addresses: self.addresses,
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub struct PipelineJson {
    pub pipeline: String,
    pub revision: String,
    pub state: String,
    pub actors: u32,
}

pub fn pipeline_word(state: PipelineState) -> &'static str {
    match state {
        PipelineState::Running => "running",
        PipelineState::Degraded => "degraded",
        PipelineState::Stopped => "stopped",
    }
}

fn pipeline_state(word: &str) -> Result<PipelineState, BadJson> {
    match word {
        "running" => Ok(PipelineState::Running),
        "degraded" => Ok(PipelineState::Degraded),
        "stopped" => Ok(PipelineState::Stopped),
        other => Err(bad("state of a pipeline", other)),
    }
}

impl From<&PipelineStatus> for PipelineJson {
    fn from(pipeline: &PipelineStatus) -> Self {
        PipelineJson {
            pipeline: pipeline.pipeline.to_string(),
            revision: pipeline.revision.to_string(),
            state: pipeline_word(pipeline.state).to_string(),
            actors: pipeline.actors,
        }
    }
}

impl PipelineJson {
    pub fn into_rpc(self) -> Result<PipelineStatus, BadJson> {
        Ok(PipelineStatus {
            pipeline: parsed("name", &self.pipeline)?,
            revision: parsed("digest", &self.revision)?,
            state: pipeline_state(&self.state)?,
            actors: self.actors,
        })
    }
}

/// What a deploy answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployedJson {
    pub pipeline: Name,
    #[serde(with = "as_text")]
    pub revision: Digest,
    pub changed: bool,
    pub actors: u32,
}

mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a request of lines answers over HTTP.
#[derive(Debug, Serialize, Deserialize)]
pub struct LinesTakenJson {
    pub acknowledged: u64,
    pub rejected: u64,
    pub log: Option<String>,
    pub last: u64,
    pub position: Option<PositionJson>,
    pub rejections: Vec<RejectedLineJson>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct PositionJson {
    pub epoch: u64,
    pub seq: u64,
    pub hash: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct RejectedLineJson {
    pub line: u64,
    pub reason: String,
}

impl From<&LinesTaken> for LinesTakenJson {
    fn from(taken: &LinesTaken) -> Self {
        let position =
            |at: &Position| PositionJson { epoch: at.epoch.0, seq: at.seq.0, hash: at.hash.to_string() };
        let rejections = taken
            .rejected
            .iter()
            .map(|line| RejectedLineJson { line: line.line, reason: line.reason.clone() });
        LinesTakenJson {
            acknowledged: taken.acknowledged,
            rejected: taken.rejected.len() as u64,
            log: taken.log.map(|log| log.to_string()),
            last: taken.last,
            position: taken.position.as_ref().map(position),
            rejections: rejections.collect(),
        }
    }
}

impl LinesTakenJson {
    pub fn into_rpc(self) -> Result<LinesTaken, BadJson> {
        let position = match self.position {
            None => None,
            Some(at) => Some(Position {
                epoch: Epoch(at.epoch),
                seq: Seq(at.seq),
                hash: parsed::<Hash>("record hash", &at.hash)?,
            }),
        };
        let rejected =
            self.rejections.into_iter().map(|line| RejectedLine { line: line.line, reason: line.reason });
        Ok(LinesTaken {
            log: self.log.map(|log| parsed::<LogId>("log id", &log)).transpose()?,
            acknowledged: self.acknowledged,
            last: self.last,
            position,
            rejected: rejected.collect(),
        })
    }
}

/// One event of a stream, as `tail` and the file sink print it.
#[derive(Debug, Serialize, Deserialize)]
pub struct TailJson {
    pub id: String,
    pub key: String,
    pub time: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    pub payload: Box<RawValue>,
    pub cursor: String,
}

impl From<&TailEvent> for TailJson {
    fn from(tail: &TailEvent) -> Self {
        let EventJson { key, time, headers, payload } = EventJson::from(&tail.placed.event);
        TailJson {
            id: tail.placed.id.to_string(),
            key,
            time,
            headers,
            payload,
            cursor: cursor::to_text(&tail.place.cursor()),
        }
    }
}

impl TailJson {
    pub fn into_rpc(self) -> Result<TailEvent, BadJson> {
        let id = parsed::<EventId>("event id", &self.id)?;
        let cursor = cursor::from_text(&self.cursor).ok_or_else(|| bad("cursor", &self.cursor))?;
        let TailJson { key, time, headers, payload, .. } = self;
        let event = EventJson { key, time, headers, payload }.into_rpc()?;
        Ok(TailEvent { placed: Placed { id, event }, place: cursor.into() })
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub struct EventJson {
    pub key: String,
    pub time: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    pub payload: Box<RawValue>,
}

impl From<&Event> for EventJson {
    fn from(event: &Event) -> Self {
        EventJson {
            key: text(&event.key),
            time: event.time.to_rfc3339(),
            headers: event.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
            payload: raw(&event.payload),
        }
    }
}

impl EventJson {
    fn into_rpc(self) -> Result<Event, BadJson> {
        Ok(Event {
            key: Bytes::from(self.key),
            time: Time::parse(&self.time).ok_or_else(|| bad("time", &self.time))?,
            headers: self.headers.into_iter().map(|(name, value)| (name, Bytes::from(value))).collect(),
            payload: unraw(&self.payload),
        })
    }
}

/// Header: nodes whose dead letters are not in the answer, because they did not give theirs.
pub const NOT_REACHED: &str = "not-reached";

#[derive(Debug, Serialize, Deserialize)]
pub struct DeadLetterJson {
    pub id: String,
    /// The id of the event that the actor was at work on.
    pub cause: String,
    pub stage: String,
    pub reason: String,
    pub attempts: u32,
    pub event: EventJson,
}

impl From<&DeadLetterStatus> for DeadLetterJson {
    fn from(letter: &DeadLetterStatus) -> Self {
        DeadLetterJson {
            id: letter.id.to_string(),
            cause: letter.cause.to_string(),
            stage: letter.stage.clone(),
            reason: letter.reason.clone(),
            attempts: letter.attempts,
            event: EventJson::from(&letter.event),
        }
    }
}

impl DeadLetterJson {
    pub fn into_rpc(self) -> Result<DeadLetterStatus, BadJson> {
        Ok(DeadLetterStatus {
            id: parsed::<LetterId>("dead letter's id", &self.id)?,
            cause: parsed("event id", &self.cause)?,
            stage: self.stage,
            reason: self.reason,
            attempts: self.attempts,
            event: self.event.into_rpc()?,
        })
    }
}

/// What replaying or dropping dead letters came to.
#[derive(Debug, Serialize, Deserialize)]
pub struct LettersMovedJson {
    pub pipeline: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
    /// Letters that stay because as many events as may wait for another try.
    pub left: u64,
    pub missed: Vec<MissedJson>,
}

/// A node whose letters were not reached.
#[derive(Debug, Serialize, Deserialize)]
pub struct MissedJson {
    pub node: String,
    pub why: String,
}

impl LettersMovedJson {
    pub fn new(pipeline: Name, does: LetterMove, moved: &LettersMoved) -> LettersMovedJson {
        let is = |of: LetterMove| (does == of).then_some(moved.moved);
        let missed = moved.missed.iter();
        LettersMovedJson {
            pipeline,
            replayed: is(LetterMove::Replay),
            dropped: is(LetterMove::Drop),
            left: moved.left,
            missed: missed
                .map(|(node, why)| MissedJson { node: node.to_string(), why: why.clone() })
                .collect(),
        }
    }

    pub fn into_rpc(self) -> Result<LettersMoved, BadJson> {
        let missed = self.missed.into_iter().map(|missed| Ok((parsed("node id", &missed.node)?, missed.why)));
        Ok(LettersMoved {
            moved: self.replayed.or(self.dropped).unwrap_or(0),
            left: self.left,
            missed: missed.collect::<Result<_, BadJson>>()?,
        })
    }
}

/// One key of a stage's state.
#[derive(Debug, Serialize, Deserialize)]
pub struct StateJson {
    pub key: String,
    pub value: Box<RawValue>,
}

impl From<&(String, Bytes)> for StateJson {
    fn from((key, value): &(String, Bytes)) -> Self {
        StateJson { key: key.clone(), value: raw(value) }
    }
}

impl StateJson {
    pub fn into_rpc(self) -> (String, Bytes) {
        let value = unraw(&self.value);
        (self.key, value)
    }
}

/// What an uploaded module is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleJson {
    #[serde(with = "as_text")]
    pub digest: Digest,
}

/// What a removal answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedJson {
    pub pipeline: Name,
    pub removed: bool,
}
