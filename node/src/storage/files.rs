//! Files and folders that survive a power loss: written whole or not at all, synced when asked.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use dunlin_protocol::id::Seq;

use super::error::{Saying, StorageError};

pub(super) const SEGMENT: &str = "seg";
pub(super) const SNAPSHOT: &str = "snap";
const TEMPORARY: &str = "tmp";

/// `00000000000000000001.seg`: names in the order of their numbers.
pub(super) fn numbered(folder: &Path, seq: Seq, extension: &str) -> PathBuf {
    folder.join(format!("{:020}.{extension}", seq.0))
}

/// The numbers of a folder's files with this extension, ascending.
pub(super) fn list(folder: &Path, extension: &str) -> Result<Vec<Seq>, StorageError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).saying("list", folder)? {
        let path = entry.saying("list", folder)?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let (Some(number), true) = (number, path.extension().is_some_and(|it| it == extension)) {
            found.push(Seq(number));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Removes what an interrupted write left.
pub(super) fn remove_temporary(folder: &Path) -> Result<(), StorageError> {
    for entry in fs::read_dir(folder).saying("list", folder)? {
        let path = entry.saying("list", folder)?.path();
        if path.extension().is_some_and(|it| it == TEMPORARY) {
            fs::remove_file(&path).saying("remove", &path)?;
        }
    }
    Ok(())
}

/// Reads a file; one longer than `bytes_max` is cut there (what follows cannot be right).
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, StorageError> {
    let file = File::open(path).saying("open", path)?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes).saying("read", path)?;
    Ok(bytes)
}

/// The name under which a file is written before it takes its place.
pub(super) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(TEMPORARY);
    PathBuf::from(name)
}

/// Puts a file in place whole: temporary name, sync, rename, sync of the folder.
pub(super) fn put(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let parked = temporary(path);
    let written = File::create(&parked)
        .and_then(|mut file| file.write_all(bytes).map(|()| file))
        .saying("write", &parked)
        .and_then(|file| sync(&file, &parked))
        .and_then(|()| fs::rename(&parked, path).saying("rename", &parked));
    if written.is_err() {
        let _ = fs::remove_file(&parked);
    }
    written?;
    path.parent().map_or(Ok(()), sync_folder)
}

pub(super) fn write_at(file: &mut File, path: &Path, at: u64, bytes: &[u8]) -> Result<(), StorageError> {
    file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(bytes)).saying("write", path)
}

/// Syncs a file's bytes. After a failure nothing unsynced of it may be trusted.
pub(super) fn sync(file: &File, path: &Path) -> Result<(), StorageError> {
    #[cfg(test)]
    fault::check().saying("sync", path)?;
    file.sync_data().saying("sync", path)
}

/// Makes the names in a folder survive a power loss.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StorageError> {
    if cfg!(unix) { File::open(folder).and_then(|it| it.sync_all()).saying("sync", folder) } else { Ok(()) }
}

/// Cuts a file to `length`, and syncs that.
pub(super) fn cut(path: &Path, length: u64) -> Result<(), StorageError> {
    let file = OpenOptions::new().write(true).open(path).saying("open", path)?;
    file.set_len(length).and_then(|()| file.sync_all()).saying("cut", path)
}

/// Removes a file that may be gone already.
pub(super) fn remove(path: &Path) -> Result<(), StorageError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).saying("remove", path),
        _ => Ok(()),
    }
}

/// Removes a folder with all that is in it, which may be gone already.
pub(super) fn remove_folder(path: &Path) -> Result<(), StorageError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).saying("remove", path),
        _ => Ok(()),
    }
}

/// Bytes in use below a folder: blocks that the system gave, not lengths, because a journal is as long
/// from the beginning as it may become. What disappears meanwhile does not count.
pub(super) fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(it) if it.is_dir() => bytes_below(&entry.path()),
            Ok(it) => in_use(&it),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(unix)]
fn in_use(file: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    // Of this size on every system, whatever the disk's own blocks are.
    const BLOCK_BYTES: u64 = 512;
    file.blocks() * BLOCK_BYTES
}

#[cfg(not(unix))]
fn in_use(file: &fs::Metadata) -> u64 {
    file.len()
}

/// Syncs that fail, in tests: the n-th one from now on this thread.
#[cfg(test)]
pub(super) mod fault {
    use std::cell::Cell;
    use std::io;

    thread_local!(static FAIL_IN: Cell<Option<u32>> = const { Cell::new(None) });

    pub fn fail_sync_in(n: u32) {
        FAIL_IN.set(Some(n));
    }

    pub fn check() -> io::Result<()> {
        match FAIL_IN.get() {
            Some(1) => {
                FAIL_IN.set(None);
                Err(io::Error::other("injected"))
            }
            left => {
                FAIL_IN.set(left.map(|n| n - 1));
                Ok(())
            }
        }
    }
}
