//! Raw lines for a source: the one call that a node's door answers before the core sees it, because
//! the source's key and time are read with its spec, which the node has and a client has not.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{LogId, Name, Position};

/// One JSON object each. Blank lines count as lines and say nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    pub pipeline: Name,
    pub source: Name,
    pub producer: Option<LineProducer>,
    /// Forward to this log's writer; none: the asked node's own source log.
    pub log: Option<LogId>,
    pub lines: Bytes,
}

/// Who sends lines, and the sequence number of the first of them; the others follow one by one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineProducer {
    pub producer: Name,
    pub first: u64,
}

/// What became of a request's lines.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LinesTaken {
    /// The source log that took them; none when nothing was appended.
    pub log: Option<LogId>,
    pub acknowledged: u64,
    /// The producer's last sequence number that is covered; 0 without a producer.
    pub last: u64,
    pub position: Option<Position>,
    pub rejected: Vec<RejectedLine>,
}

/// A line that is no event. The lines around it were taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedLine {
    /// Its number in the request; the first is 1.
    pub line: u64,
    pub reason: String,
}
