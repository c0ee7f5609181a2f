//! The lines of a file source that are no events: each one's number and why, in a file of its own.
//!
//! `rejected/LOG.txt` in the data folder, appended once the log covers the lines; it goes with the
//! log. It is there for people: what it cannot hold (a full disk, its bound) is still counted.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use dunlin_protocol::id::LogId;

/// What one file may hold. Beyond: a last line says so, and lines are only counted.
const BYTES_MAX: u64 = 4 << 20;

#[derive(Debug, Clone)]
pub struct RejectedLines {
    path: PathBuf,
    full: bool,
}

impl RejectedLines {
    pub fn new(data_folder: &Path, log: LogId) -> RejectedLines {
        let path = path(data_folder, log);
        // It is printed for people, whose own folder is another one.
        let path = std::path::absolute(&path).unwrap_or(path);
        RejectedLines { path, full: false }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds these lines, whole or not at all.
    pub fn add(&mut self, lines: &[String]) -> io::Result<()> {
        if self.full || lines.is_empty() {
            return Ok(());
        }
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        let mut text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        self.full = file.metadata()?.len() + text.len() as u64 > BYTES_MAX;
        if self.full {
            text = "further lines are counted, and not written down here\n".to_string();
        }
        file.write_all(text.as_bytes())
    }
}

/// The log is removed: what was noted of its lines goes with it.
pub fn forget(data_folder: &Path, log: LogId) {
    // Only file sources have one.
    let _ = fs::remove_file(path(data_folder, log));
}

fn path(data_folder: &Path, log: LogId) -> PathBuf {
    data_folder.join("rejected").join(format!("{log}.txt"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rejected_line_is_written_down_up_to_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let log = LogId([3; 16]);
        let mut rejected = RejectedLines::new(folder.path(), log);
        rejected.add(&[]).unwrap();
        assert!(!rejected.path().exists());
        rejected.add(&["line 2: no".into(), "line 9: no".into()]).unwrap();
        // Another start goes on behind what is there.
        let mut rejected = RejectedLines::new(folder.path(), log);
        rejected.add(&["line 11: no".into()]).unwrap();
        assert_eq!(fs::read_to_string(rejected.path()).unwrap(), "line 2: no\nline 9: no\nline 11: no\n");
        let long = "x".repeat(1 << 20);
        for _ in 0..6 {
            rejected.add(std::slice::from_ref(&long)).unwrap();
        }
        let text = fs::read_to_string(rejected.path()).unwrap();
        assert!(text.len() as u64 <= BYTES_MAX + 100 && text.ends_with("not written down here\n"));
        assert_eq!(text.matches("further lines").count(), 1);
        forget(folder.path(), log);
        assert!(!rejected.path().exists());
    }
}
