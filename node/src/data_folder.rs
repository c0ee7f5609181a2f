//! The data folder's small files by which a client on the same machine finds its node: the HTTP
//! address and the bearer token. What else stands in the folder belongs to its own room.

use std::fs;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

/// Holds the address that HTTP listens on, as `127.0.0.1:7070`.
pub const HTTP_FILE: &str = "http";
/// Holds the bearer token; readable by its owner only.
pub const BEARER_FILE: &str = "bearer";
/// Holds the node's secret key in hexadecimal.
const IDENTITY_FILE: &str = "identity";
/// Holds the mesh's key and the node's certificate.
const MESH_FILE: &str = "mesh";
const LISTEN_FILE: &str = "listen";
const ADDRESSES_FILE: &str = "addresses";
/// Holds the rotations of tokens that the node knows: what its tokens are made with, beside the mesh's key.
const ROTATIONS_FILE: &str = "rotations";

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
    #[error("{0} is damaged; restore it from a backup, or start a new node with an empty data folder")]
    Damaged(String),
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

/// A data folder in which no node has lived yet. Unless one is born, what the attempt made goes
/// again, so that the next one (with another port, or a token) finds the folder as it was.
#[derive(Debug)]
pub struct Unborn {
    folder: PathBuf,
    was_there: bool,
    /// The folder is this process's, and nothing in it is a node's.
    ours: bool,
}

/// Everything that a start makes in its folder before a node is born.
const MADE: [&str; 14] = [
    "format",
    "lock",
    "logs",
    "born",
    "state",
    "modules",
    "cache",
    IDENTITY_FILE,
    MESH_FILE,
    LISTEN_FILE,
    ADDRESSES_FILE,
    ROTATIONS_FILE,
    HTTP_FILE,
    BEARER_FILE,
];

/// What else the node keeps in its folder.
const KEPT: [&str; 2] = ["sinks", "rejected"];

/// Whether a path, relative to the data folder, leads to something that is the node's own: no sink
/// may write there.
pub fn is_own(path: &str) -> bool {
    let mut parts: Vec<&std::ffi::OsStr> = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => parts.push(name),
            Component::ParentDir => _ = parts.pop(),
            Component::CurDir => {}
            // Not relative: whoever names a whole path knows where it leads.
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    let own = |name: &&std::ffi::OsStr| MADE.iter().chain(&KEPT).any(|own| *name == *own);
    parts.first().is_none_or(own)
}

impl Unborn {
    /// Before anything is made.
    pub fn look(folder: &Path) -> Unborn {
        Unborn { folder: folder.to_path_buf(), was_there: folder.exists(), ours: false }
    }

    /// The folder's lock is held: nobody else makes anything in it.
    pub fn locked(&mut self) {
        self.ours = !self.folder.join(IDENTITY_FILE).exists();
    }

    /// A node lives here: the folder stays whatever comes.
    pub fn born(&mut self) {
        self.ours = false;
        self.was_there = true;
    }
}

impl Drop for Unborn {
    fn drop(&mut self) {
        // Nothing more can be done about what cannot be removed; a later start goes on with it.
        if self.ours {
            for name in MADE {
                let path = self.folder.join(name);
                let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            }
        }
        if !self.was_there {
            // Only when it is empty.
            let _ = fs::remove_dir(&self.folder);
        }
    }
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

/// The node's secret key, made and kept on first use; readable by its owner only.
pub fn identity(folder: &Path, fresh: impl FnOnce() -> [u8; 32]) -> Result<[u8; 32], DataFolderError> {
    match read_identity(folder) {
        Err(DataFolderError::NoNode(_)) => {
            let secret = fresh();
            replace(
                &folder.join(IDENTITY_FILE),
                &format!("{}\n", dunlin_protocol::id::Digest(secret)),
                0o600,
            )?;
            Ok(secret)
        }
        known => known,
    }
}

pub fn read_identity(folder: &Path) -> Result<[u8; 32], DataFolderError> {
    let text = read_line(folder, IDENTITY_FILE)?;
    match text.parse::<dunlin_protocol::id::Digest>() {
        Ok(secret) => Ok(secret.0),
        Err(_) => Err(DataFolderError::Damaged(folder.join(IDENTITY_FILE).display().to_string())),
    }
}

/// Whether a node has lived here.
pub fn holds_logs(folder: &Path) -> bool {
    fs::read_dir(folder.join("logs")).is_ok_and(|mut logs| logs.next().is_some())
}

/// The mesh that the folder's node is a member of; none before it started or joined one.
pub fn read_mesh(folder: &Path) -> Result<Option<Vec<u8>>, DataFolderError> {
    read_bytes(&folder.join(MESH_FILE))
}

/// The rotations of tokens that the folder's node knows; none before the first.
pub fn read_rotations(folder: &Path) -> Result<Option<Vec<u8>>, DataFolderError> {
    read_bytes(&folder.join(ROTATIONS_FILE))
}

pub fn write_rotations(folder: &Path, rotations: &[u8]) -> Result<(), DataFolderError> {
    replace_bytes(&folder.join(ROTATIONS_FILE), rotations, 0o600)
}

fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, DataFolderError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(DataFolderError::File { path: path.display().to_string(), verb: "read", why }),
    }
}

pub fn write_mesh(folder: &Path, mesh: &[u8]) -> Result<(), DataFolderError> {
    replace_bytes(&folder.join(MESH_FILE), mesh, 0o600)
}

/// Where the node listens for members, so that the same ports are taken again.
pub fn write_listen(folder: &Path, addresses: &[String]) -> Result<(), DataFolderError> {
    replace(&folder.join(LISTEN_FILE), &lines_of(addresses), 0o644)
}

pub fn read_listen(folder: &Path) -> Result<Vec<String>, DataFolderError> {
    read_lines(folder, LISTEN_FILE)
}

/// The same with the node's peer id: what a token names.
pub fn write_addresses(folder: &Path, addresses: &[String]) -> Result<(), DataFolderError> {
    replace(&folder.join(ADDRESSES_FILE), &lines_of(addresses), 0o644)
}

pub fn read_addresses(folder: &Path) -> Result<Vec<String>, DataFolderError> {
    read_lines(folder, ADDRESSES_FILE)
}

/// A wish for any port (`/ip4/…/tcp/0`) gets the port that it got before, if it did.
pub fn remembered(wish: &str, before: &[String]) -> String {
    let open = |address: &str| -> Vec<String> {
        let mut parts: Vec<String> = address.split('/').map(str::to_string).collect();
        for index in 1..parts.len() {
            let port = matches!(parts.get(index - 1).map(String::as_str), Some("tcp" | "udp"));
            if let Some(part) = parts.get_mut(index).filter(|_| port) {
                *part = "0".to_string();
            }
        }
        parts
    };
    let asks_any = wish.contains("/tcp/0") || wish.contains("/udp/0");
    let same = before.iter().find(|address| asks_any && open(address) == open(wish));
    same.map_or_else(|| wish.to_string(), String::clone)
}

fn lines_of(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn read_lines(folder: &Path, name: &str) -> Result<Vec<String>, DataFolderError> {
    match read_line(folder, name) {
        Ok(text) => Ok(text.lines().map(str::to_string).collect()),
        Err(DataFolderError::NoNode(_)) => Ok(Vec::new()),
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
        // Every such file is plain text.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(DataFolderError::Damaged(path.display().to_string()))
        }
        Err(why) => Err(DataFolderError::File { path: path.display().to_string(), verb: "read", why }),
    }
}

fn replace(path: &Path, text: &str, mode: u32) -> Result<(), DataFolderError> {
    replace_bytes(path, text.as_bytes(), mode)
}

fn replace_bytes(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DataFolderError> {
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
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|why| DataFolderError::File { path: path.display().to_string(), verb: "written", why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_for_any_port_gets_the_earlier_one() {
        let before =
            vec!["/ip4/127.0.0.1/tcp/4001".to_string(), "/ip4/127.0.0.1/udp/4002/quic-v1".to_string()];
        assert_eq!(remembered("/ip4/127.0.0.1/tcp/0", &before), before[0]);
        assert_eq!(remembered("/ip4/127.0.0.1/udp/0/quic-v1", &before), before[1]);
        assert_eq!(remembered("/ip4/127.0.0.1/tcp/9", &before), "/ip4/127.0.0.1/tcp/9");
        assert_eq!(remembered("/ip4/10.0.0.1/tcp/0", &before), "/ip4/10.0.0.1/tcp/0");
    }

    #[test]
    fn a_start_that_came_to_nothing_leaves_the_folder_as_it_was() {
        let base = tempfile::tempdir().unwrap();
        let begin = |name: &str| {
            let folder = base.path().join(name);
            let mut unborn = Unborn::look(&folder);
            create(&folder).unwrap();
            unborn.locked();
            identity(&folder, || [7; 32]).unwrap();
            fs::create_dir_all(folder.join("logs/x")).unwrap();
            (folder, unborn)
        };
        let (folder, unborn) = begin("new");
        drop(unborn);
        assert!(!folder.exists());

        fs::create_dir(base.path().join("there")).unwrap();
        fs::write(base.path().join("there/notes"), "mine").unwrap();
        let (folder, unborn) = begin("there");
        drop(unborn);
        let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["notes"]);

        let (folder, mut unborn) = begin("there");
        unborn.born();
        drop(unborn);
        assert!(folder.join(IDENTITY_FILE).exists());
        // Another attempt on a node's folder touches nothing.
        let (folder, unborn) = begin("there");
        drop(unborn);
        assert_eq!(read_identity(&folder).unwrap(), [7; 32]);
        assert!(folder.join("logs/x").exists());
    }

    #[test]
    fn the_nodes_own_files_are_known() {
        for own in ["identity", "./mesh", "logs/x", "sinks", "out/../bearer", ".", "x/.."] {
            assert!(is_own(own), "{own}");
        }
        for other in ["out.jsonl", "out/identity", "/var/log/identity", "identity.jsonl"] {
            assert!(!is_own(other), "{other}");
        }
    }

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
