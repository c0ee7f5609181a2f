//! The data folder's small files by which a client on the same machine finds its node: the HTTP
//! address and the bearer token. What else stands in the folder belongs to its own room.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Holds the address that HTTP listens on, as `127.0.0.1:7070`.
pub const HTTP_FILE: &str = "http";
/// Holds the bearer token; readable by its owner only.
pub const BEARER_FILE: &str = "bearer";

/// A folder or file that cannot be used. State unchanged.
#[derive(Debug, Error)]
pub enum DataFolderError {
    #[error(
        "the data folder {path} cannot be {verb}: {why}; choose another with --data, or correct its permissions"
    )]
    Folder { path: String, verb: &'static str, why: io::Error },
    #[error("{path} cannot be {verb}: {why}; check that the folder belongs to the user who runs this")]
    File { path: String, verb: &'static str, why: io::Error },
    #[error(
        "no node has run with the data folder {0}: start one with 'dunlin run --data {0}', or name another folder"
    )]
    NoNode(String),
    #[error("this platform names no data folder: say where with --data DIR")]
    NoDefault,
}

/// Where data goes when nobody says: the platform's data folder for this user, `dunlin` in it.
pub fn default_folder() -> Result<PathBuf, DataFolderError> {
    let from = |variable: &str| {
        std::env::var_os(variable)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    let base = if cfg!(target_os = "macos") {
        from("HOME").map(|home| home.join("Library/Application Support"))
    } else if cfg!(windows) {
        from("LOCALAPPDATA")
    } else {
        from("XDG_DATA_HOME").or_else(|| from("HOME").map(|home| home.join(".local/share")))
    };
    base.map(|base| base.join("dunlin")).ok_or(DataFolderError::NoDefault)
}

/// Makes the folder if need be and makes sure that it can be read and written.
pub fn create(folder: &Path) -> Result<(), DataFolderError> {
    let fail = |verb| move |why| DataFolderError::Folder { path: folder.display().to_string(), verb, why };
    fs::create_dir_all(folder).map_err(fail("created"))?;
    fs::read_dir(folder).map_err(fail("read"))?;
    let probe = folder.join(".writable");
    fs::write(&probe, b"").map_err(fail("written"))?;
    fs::remove_file(&probe).map_err(fail("written"))
}

/// Says where HTTP listens. Replaced as a whole: a reader sees the old address or the new one.
pub fn write_http(folder: &Path, address: &str) -> Result<(), DataFolderError> {
    replace(&folder.join(HTTP_FILE), &format!("{address}\n"), 0o644)
}

/// The address that the folder's node listens on, or listened on last.
pub fn read_http(folder: &Path) -> Result<String, DataFolderError> {
    read_line(folder, HTTP_FILE)
}

/// Keeps the bearer token, mode 0600.
pub fn write_bearer(folder: &Path, bearer: &str) -> Result<(), DataFolderError> {
    replace(&folder.join(BEARER_FILE), &format!("{bearer}\n"), 0o600)
}

pub fn read_bearer(folder: &Path) -> Result<String, DataFolderError> {
    read_line(folder, BEARER_FILE)
}

/// The folder's bearer token; a new one of 32 random bytes is made and kept on first use.
pub fn bearer(folder: &Path, random: [u8; 32]) -> Result<String, DataFolderError> {
    match read_bearer(folder) {
        Ok(bearer) if !bearer.is_empty() => Ok(bearer),
        Ok(_) | Err(DataFolderError::NoNode(_)) => {
            let bearer = dunlin_protocol::id::Digest(random).to_string();
            write_bearer(folder, &bearer)?;
            Ok(bearer)
        }
        Err(error) => Err(error),
    }
}

fn read_line(folder: &Path, name: &str) -> Result<String, DataFolderError> {
    let path = folder.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(DataFolderError::NoNode(folder.display().to_string()))
        }
        Err(why) => Err(DataFolderError::File { path: path.display().to_string(), verb: "read", why }),
    }
}

fn replace(path: &Path, text: &str, mode: u32) -> Result<(), DataFolderError> {
    let new = path.with_extension("new");
    let write = || -> io::Result<()> {
        // A leftover of an earlier crash may carry other permissions.
        match fs::remove_file(&new) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        #[cfg(not(unix))]
        let _ = mode;
        let mut file = options.open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|why| DataFolderError::File { path: path.display().to_string(), verb: "written", why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_and_bearer_survive_and_the_bearer_is_private() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read_http(folder.path()), Err(DataFolderError::NoNode(_))));
        create(folder.path()).unwrap();
        write_http(folder.path(), "127.0.0.1:4").unwrap();
        assert_eq!(read_http(folder.path()).unwrap(), "127.0.0.1:4");
        let first = bearer(folder.path(), [1; 32]).unwrap();
        assert_eq!(bearer(folder.path(), [2; 32]).unwrap(), first);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(folder.path().join(BEARER_FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}
