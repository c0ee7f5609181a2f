//! Which logs were born on this disk, noted apart from them: this is how it is noticed that a log's folder
//! was taken away. An actor's or source's log is then as a damaged one until its folder is back or nobody
//! wants it any more; a catalog log is had from the other members again.
//!
//! ```text
//! born/<log id>       a line that says whose log it is, for people, and one with its name in hex
//! ```
//!
//! Nothing is synced here: a note that a crash took is made again at the next start.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dunlin_protocol::id::LogId;
use dunlin_protocol::mesh::catalog::LogName;
use dunlin_protocol::wire::codec;

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
        let named: String = codec::encode(name).iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!("{}\n{named}\n", whose(name));
        let noted = fs::create_dir_all(&self.folder).and_then(|()| fs::write(&path, text));
        if let Err(error) = noted {
            tracing::debug!(%log, %error, "the birth of a log is noted at the next start");
        }
    }

    /// The log is about to be removed: nobody misses it.
    pub fn forget(&self, log: LogId) {
        // There is none when it was never noted.
        let _ = fs::remove_file(self.folder.join(log.to_string()));
    }

    /// Compares with the logs that were found: those that are missing are given, those that were not noted
    /// are. A missing one that can be had again, or of which only the line for people is left, is forgotten.
    pub fn compare<'a>(&self, found: impl Iterator<Item = (LogId, &'a LogName)>) -> Vec<Missing> {
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
            let text = files::read_bounded(&path, NOTE_BYTES_MAX).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let name = text.lines().nth(1).and_then(decode).filter(|name| name.id() == log);
            let name = name.filter(|name| matches!(name, LogName::Actor { .. }));
            if name.is_none() {
                self.forget(log);
            }
            Missing { log, whose: text.lines().next().unwrap_or_default().to_owned(), name }
        });
        missing.collect()
    }
}

/// A log that was born on this disk and is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    pub log: LogId,
    pub whose: String,
    /// The name of one that stays out of use until its folder is back.
    pub name: Option<LogName>,
}

fn whose(name: &LogName) -> String {
    match name {
        LogName::Catalog(node) => format!("the catalog log of node {node}"),
        LogName::Actor { pipeline, unit, .. } => {
            format!("the log of '{}' of pipeline '{pipeline}'", unit.name)
        }
    }
}

fn decode(hex: &str) -> Option<LogName> {
    let bytes: Option<Vec<u8>> = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    codec::decode(&bytes?).ok()
}
