//! WebAssembly components by their digest. Bytes that do not match are no module: they go, and the
//! module is missing, to be fetched again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dunlin_protocol::id::Digest;
use dunlin_protocol::limits::MODULE_BYTES_MAX;

use super::error::{Saying, StorageError};
use super::files;

/// The folder of modules.
#[derive(Debug, Clone)]
pub struct ModuleStore {
    folder: PathBuf,
}

impl ModuleStore {
    /// Opens `modules/` in the data folder.
    pub fn open(folder: &Path) -> Result<ModuleStore, StorageError> {
        let folder = folder.join("modules");
        fs::create_dir_all(&folder).saying("create", &folder)?;
        files::remove_temporary(&folder)?;
        Ok(ModuleStore { folder })
    }

    /// Keeps the bytes, synced. Putting the same ones again changes nothing.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, StorageError> {
        if bytes.len() > MODULE_BYTES_MAX {
            return Err(StorageError::ModuleTooLong { bytes: bytes.len(), limit: MODULE_BYTES_MAX });
        }
        let digest = Digest::of(bytes);
        if !self.has(digest) || self.get(digest)?.is_none() {
            files::put(&self.path(digest), bytes)?;
        }
        Ok(digest)
    }

    /// The module, if its bytes still match the digest.
    pub fn get(&self, digest: Digest) -> Result<Option<Bytes>, StorageError> {
        let path = self.path(digest);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = files::read_bounded(&path, MODULE_BYTES_MAX as u64 + 1)?;
        if Digest::of(&bytes) != digest {
            tracing::warn!(%digest, "a module's bytes do not match its digest; it is removed and counts as missing");
            files::remove(&path)?;
            return Ok(None);
        }
        Ok(Some(Bytes::from(bytes)))
    }

    /// The modules that are here, by the names of their files.
    pub fn list(&self) -> Result<Vec<Digest>, StorageError> {
        let entries = fs::read_dir(&self.folder).saying("read", &self.folder)?;
        let name =
            |entry: std::io::Result<fs::DirEntry>| entry.ok()?.path().file_stem()?.to_str()?.parse().ok();
        Ok(entries.filter_map(name).collect())
    }

    /// Those that were put here at least so long ago.
    pub fn older_than(&self, age: Duration) -> Result<Vec<Digest>, StorageError> {
        let old = |digest: &Digest| {
            let about = fs::metadata(self.path(*digest)).and_then(|about| about.modified());
            about.is_ok_and(|put| put.elapsed().is_ok_and(|since| since >= age))
        };
        Ok(self.list()?.into_iter().filter(old).collect())
    }

    pub fn remove(&self, digest: Digest) -> Result<(), StorageError> {
        files::remove(&self.path(digest))
    }

    /// Whether the module is here, for somebody who is about to name it: it counts as put anew.
    /// `get` checks its bytes.
    pub fn has(&self, digest: Digest) -> bool {
        let file = File::options().append(true).open(self.path(digest));
        file.is_ok_and(|file| {
            // Should that fail, the module may go an hour after it was put.
            let _ = file.set_modified(SystemTime::now());
            true
        })
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(digest.to_string())
    }
}
