//! Which logs were born on this disk, noted apart from them: a log whose folder was taken away begins
//! anew, and this is how it is noticed.
//!
//! ```text
//! born/<log id>       whose log it is, for people
//! ```
//!
//! Nothing is synced here: a note that a crash took is made again at the next start.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dunlin_protocol::id::LogId;
use dunlin_protocol::mesh::catalog::LogName;

use super::files;

const FOLDER: &str = "born";
const NOTE_BYTES_MAX: u64 = 1 << 10;

/// The notes of one data folder.
#[derive(Debug)]
pub(super) struct Births {
    folder: PathBuf,
}

impl Births {
    pub fn in_folder(data: &Path) -> Births {
        Births { folder: data.join(FOLDER) }
    }

    /// The log stands on the disk.
    pub fn note(&self, log: LogId, name: &LogName) {
        let path = self.folder.join(log.to_string());
        let whose = match name {
            LogName::Catalog(node) => format!("the catalog log of node {node}"),
            LogName::Actor { pipeline, unit, .. } => format!("'{}' of pipeline '{pipeline}'", unit.name),
        };
        let noted = fs::create_dir_all(&self.folder).and_then(|()| fs::write(&path, whose));
        if let Err(error) = noted {
            tracing::debug!(%log, %error, "the birth of a log is noted at the next start");
        }
    }

    /// The log is about to be removed: nobody misses it.
    pub fn forget(&self, log: LogId) {
        // There is none when it was never noted.
        let _ = fs::remove_file(self.folder.join(log.to_string()));
    }

    /// Compares with the logs that were found: those that are missing are given, with whose they were,
    /// and forgotten; those that were not noted are.
    pub fn compare<'a>(&self, found: impl Iterator<Item = (LogId, &'a LogName)>) -> Vec<(LogId, String)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut noted: BTreeMap<LogId, PathBuf> = entries
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
            .collect();
        for (log, name) in found {
            if noted.remove(&log).is_none() {
                self.note(log, name);
            }
        }
        let missing = noted.into_iter().map(|(log, path)| {
            let whose = files::read_bounded(&path, NOTE_BYTES_MAX).unwrap_or_default();
            self.forget(log);
            (log, String::from_utf8_lossy(&whose).into_owned())
        });
        missing.collect()
    }
}
