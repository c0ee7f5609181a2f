//! WebAssembly components by their digest. Bytes that do not match are no module: they go, and the
//! module is missing, to be fetched again.

use std::fs;
use std::path::{Path, PathBuf};

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
        if self.get(digest)?.is_none() {
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

    /// Whether the module is here; `get` checks its bytes.
    /// The modules that are here, by the names of their files.
    pub fn list(&self) -> Result<Vec<Digest>, StorageError> {
        let entries = fs::read_dir(&self.folder).saying("read", &self.folder)?;
        let name =
            |entry: std::io::Result<fs::DirEntry>| entry.ok()?.path().file_stem()?.to_str()?.parse().ok();
        Ok(entries.filter_map(name).collect())
    }

    pub fn has(&self, digest: Digest) -> bool {
        self.path(digest).exists()
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(digest.to_string())
    }
}
