//! Compiled modules on disk, so that a module is compiled once per node and version.
//!
//! An entry is named by the module's digest and by what its code depends on (wasmtime's version,
//! the configuration, the machine's features), so nothing is trusted across versions. Its first 32
//! bytes are the blake3 hash of the rest: an entry that was damaged is compiled again, never run.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use dunlin_protocol::id::Digest;
use wasmtime::Engine;
use wasmtime::component::Component;

const CHECKSUM_BYTES: usize = 32;

#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    /// Ends the names of the entries that this very engine wrote.
    suffix: String,
}

impl Cache {
    /// Entries of other versions go: nobody will read them again.
    pub(super) fn open(folder: &Path, engine: &Engine) -> std::io::Result<Cache> {
        fs::create_dir_all(folder)?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let suffix = format!("-{:016x}.cwasm", hasher.finish());
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if !name.to_string_lossy().ends_with(&suffix) && entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Cache { folder: folder.to_owned(), suffix })
    }

    pub(super) fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(format!("{digest}{}", self.suffix))
    }

    /// None when there is no entry, or none that can be trusted.
    pub(super) fn get(&self, engine: &Engine, digest: Digest) -> Option<Component> {
        let bytes = fs::read(self.path(digest)).ok()?;
        let (checksum, code) = bytes.split_at_checked(CHECKSUM_BYTES)?;
        if blake3::hash(code).as_bytes() != checksum {
            tracing::warn!(%digest, "a compiled module in the cache is damaged; it is compiled again");
            return None;
        }
        deserialize(engine, code)
    }

    /// The module is not needed any more.
    pub(super) fn remove(&self, digest: Digest) {
        match fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%digest, %error, "a compiled module that nobody needs could not be removed");
            }
            _ => {}
        }
    }

    /// The cache only saves time: that it cannot be written is said, and nothing else.
    pub(super) fn put(&self, digest: Digest, component: &Component) {
        let write = || -> Result<(), String> {
            let code = component.serialize().map_err(|error| error.to_string())?;
            let mut bytes = blake3::hash(&code).as_bytes().to_vec();
            bytes.extend_from_slice(&code);
            let path = self.path(digest);
            let draft = path.with_extension("draft");
            fs::write(&draft, &bytes).map_err(|error| error.to_string())?;
            fs::rename(&draft, &path).map_err(|error| error.to_string())
        };
        if let Err(error) = write() {
            tracing::warn!(%digest, %error, "a compiled module could not be cached");
        }
    }
}

#[expect(
    unsafe_code,
    reason = "native code cannot be verified; these bytes were written by this node, by this version of wasmtime, \
              and match the checksum that was written with them"
)]
fn deserialize(engine: &Engine, code: &[u8]) -> Option<Component> {
    unsafe { Component::deserialize(engine, code) }.ok()
}
