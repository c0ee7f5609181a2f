//! What functions need of the storage: keyed state, modules and snapshots.
//!
//! All calls block and are made on threads that may. An error is a sentence.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_protocol::id::{Digest, LogId, Position};
use dunlin_protocol::log::record::Change;

pub type Pair = (Bytes, Bytes);

/// Committed keyed state, per log.
pub trait StateStore: Debug + Send + Sync {
    fn get(&self, log: LogId, key: &[u8]) -> Result<Option<Bytes>, String>;
    /// Pairs whose key begins with `prefix`, ascending, at most `limit`.
    fn scan(&self, log: LogId, prefix: &[u8], limit: usize) -> Result<Vec<Pair>, String>;
    /// The state moves on to `at`. Doing it twice does no harm.
    fn apply(&self, log: LogId, at: Position, changes: &[Change]) -> Result<(), String>;
    /// The state becomes that of `log` at `head`, from its log and snapshot where it is not.
    fn bring_up(&self, log: LogId, head: Position) -> Result<(), String>;
    /// All pairs, ascending.
    fn dump<'a>(&'a self, log: LogId) -> Box<dyn Iterator<Item = Result<Pair, String>> + 'a>;
}

pub trait ModuleStore: Debug + Send + Sync {
    fn get(&self, digest: Digest) -> Result<Option<Bytes>, String>;
}

pub trait SnapshotWriter: Debug + Send + Sync {
    /// A synced, checksummed snapshot of `log` at `at`.
    fn write(
        &self,
        log: LogId,
        at: Position,
        fold: &[u8],
        state: &mut dyn Iterator<Item = Result<Pair, String>>,
    ) -> Result<(), String>;
}

/// The storage, as functions see it.
#[derive(Debug, Clone)]
pub struct Ports {
    pub state: Arc<dyn StateStore>,
    pub modules: Arc<dyn ModuleStore>,
    pub snapshots: Arc<dyn SnapshotWriter>,
}
