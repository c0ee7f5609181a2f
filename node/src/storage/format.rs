//! The data folder as a whole: who has it open, and which version wrote it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::Path;

use super::error::{Saying, StorageError};
use super::files;

/// The layout that this program writes. A newer one is refused, never guessed at.
const FORMAT: u32 = 1;
const PREFIX: &str = "dunlin data ";

/// Takes the folder for this process until the file is dropped, and checks its format.
pub(super) fn take(folder: &Path) -> Result<File, StorageError> {
    fs::create_dir_all(folder).saying("create the data folder", folder)?;
    let path = folder.join("lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .saying("open", &path)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StorageError::Locked(folder.to_owned())),
        Err(TryLockError::Error(source)) => return Err(source).saying("lock", &path),
    }
    check(folder)?;
    Ok(lock)
}

fn check(folder: &Path) -> Result<(), StorageError> {
    let path = folder.join("format");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if folder.join("logs").exists() {
                let why = "it holds logs but no 'format' file";
                return Err(StorageError::NotOurs { folder: folder.to_owned(), why });
            }
            return files::put(&path, format!("{PREFIX}{FORMAT}\n").as_bytes());
        }
        Err(error) => return Err(error).saying("read", &path),
    };
    let found = text.trim().strip_prefix(PREFIX).and_then(|number| number.parse().ok());
    match found {
        None => {
            Err(StorageError::NotOurs { folder: folder.to_owned(), why: "its 'format' file names no format" })
        }
        Some(found) if found > FORMAT => {
            Err(StorageError::NewerFormat { folder: folder.to_owned(), found, known: FORMAT })
        }
        Some(_) => Ok(()),
    }
}
