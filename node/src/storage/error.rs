//! What can go wrong on a disk, in sentences for the person who has to mend it.

use std::io;
use std::path::{Path, PathBuf};

use dunlin_protocol::id::{LogId, Position, Seq};
use thiserror::Error;

/// A failure of the storage. Each leaves what was persisted before as it was.
#[derive(Debug, Error)]
pub enum StorageError {
    #[error(
        "the data folder {} is in use by another running node; stop that one, or choose another folder with --data",
        .0.display()
    )]
    Locked(PathBuf),
    #[error(
        "the data folder {} is in format {found}, this program knows up to {known}; run the newer version again, or choose another folder with --data",
        .folder.display()
    )]
    NewerFormat { folder: PathBuf, found: u32, known: u32 },
    #[error("{} is no data folder of this program: {why}; choose another with --data", .folder.display())]
    NotOurs { folder: PathBuf, why: &'static str },
    #[error("cannot {what} {}: {source}; check the disk and the folder's permissions", .path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{0}")]
    Damaged(String),
    #[error("log {0} is not on this node")]
    NoLog(LogId),
    #[error("records of log {log} before {} are no longer kept; read from there on", .first.0)]
    Gone { log: LogId, first: Seq },
    #[error("snapshot {} cannot be used: {why}; an older one or the log is used instead", .path.display())]
    BadSnapshot { path: PathBuf, why: String },
    #[error("log {log} has no record {} of this history; its state cannot be brought there", .at.seq.0)]
    NotInLog { log: LogId, at: Position },
    #[error("the state store failed: {0}; it is rebuilt from the logs when the node starts again")]
    State(String),
    #[error("a module of {bytes} bytes is more than the limit of {limit}")]
    ModuleTooLong { bytes: usize, limit: usize },
    #[error("an entry of the keyed state cannot be read: {0}")]
    Entry(String),
    #[error("the storage is stopped")]
    Stopped,
}

impl StorageError {
    /// Whether the disk has no space left.
    pub fn is_full(&self) -> bool {
        matches!(self, StorageError::Io { source, .. } if full(source))
    }
}

fn full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Gives a failed call its sentence.
pub(super) trait Saying<T> {
    fn saying(self, what: &'static str, path: &Path) -> Result<T, StorageError>;
}

impl<T> Saying<T> for io::Result<T> {
    fn saying(self, what: &'static str, path: &Path) -> Result<T, StorageError> {
        self.map_err(|source| StorageError::Io { what, path: path.to_owned(), source })
    }
}

impl From<fjall::Error> for StorageError {
    fn from(error: fjall::Error) -> StorageError {
        StorageError::State(error.to_string())
    }
}
