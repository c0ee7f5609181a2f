//! How a command talks to a node: one trait, two doors (HTTP here, libp2p in the network's room).

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use dunlin_protocol::id::Digest;
use dunlin_protocol::rpc::lines::{Lines, LinesTaken};
use dunlin_protocol::rpc::{Fault, FaultKind, Request, Response, Tail, TailEvent};
use thiserror::Error;

use super::http_client::HttpClient;
use crate::data_folder::{self, DataFolderError};

/// Where HTTP listens when nobody says.
pub const HTTP_DEFAULT: &str = "127.0.0.1:7070";

/// A node as a command sees it. Every call blocks until it is answered. Whatever the door, the
/// answers are the same.
pub trait Client: Send + Sync {
    /// Any request with one answer. `Response::Failed` comes as `Failure::Refused`.
    fn ask(&self, request: Request) -> Result<Response, Failure>;
    /// A stream's events until its end (or for ever with `follow`). Its credit is granted as
    /// events are taken, so `tail.credit` says only how many bytes may be under way.
    fn tail(&self, tail: Tail) -> Result<TailEvents, Failure>;
    /// Raw lines, parsed by the node.
    fn publish(&self, lines: Lines) -> Result<LinesTaken, Failure>;
    fn has_module(&self, digest: Digest) -> Result<bool, Failure>;
    fn put_module(&self, bytes: &[u8]) -> Result<Digest, Failure>;
}

/// A tail's events. An error is the last item.
pub type TailEvents = Box<dyn Iterator<Item = Result<TailEvent, Failure>> + Send>;

/// Why a call came to nothing.
#[derive(Debug, Error)]
pub enum Failure {
    #[error("{}", .0.detail)]
    Refused(Fault),
    /// Nothing was sent.
    #[error(
        "no node answers at {address} ({why}): start one with 'dunlin run', or name another with --node or --data"
    )]
    Unreachable { address: String, why: String },
    /// What was asked may have been done.
    #[error("the connection to {address} broke off ({why}): try again")]
    Broken { address: String, why: String },
    #[error("{0}")]
    Unreadable(String),
}

impl Failure {
    /// How long the node asks to wait, if that is all.
    pub fn busy_ms(&self) -> Option<u64> {
        match self {
            Failure::Refused(Fault { kind: FaultKind::Busy { retry_after_ms }, .. }) => Some(*retry_after_ms),
            Failure::Refused(_)
            | Failure::Unreachable { .. }
            | Failure::Broken { .. }
            | Failure::Unreadable(_) => None,
        }
    }
}

/// How long a busy node is asked again: one that has just started first hears of its own past.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks again while the node asks to wait.
pub fn ask_patiently(client: &dyn Client, request: Request) -> Result<Response, Failure> {
    let began = Instant::now();
    loop {
        let failure = match client.ask(request.clone()) {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        match failure.busy_ms() {
            Some(ms) if began.elapsed() < PATIENCE => sleep(Duration::from_millis(ms.clamp(10, 1000))),
            Some(_) | None => return Err(failure),
        }
    }
}

/// Which node a command is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Http {
        address: String,
        bearer: String,
    },
    /// A node's multiaddr and a mesh token.
    Multiaddr {
        address: String,
        token: String,
    },
}

/// What the command line says about it.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TargetArguments {
    /// Talk to the node whose data folder this is
    #[arg(long, value_name = "DIR", global = true, help_heading = "Node")]
    pub data: Option<PathBuf>,
    /// Talk to the node at this HTTP address, or at this multiaddr (with --token)
    #[arg(long, value_name = "ADDR", global = true, help_heading = "Node")]
    pub node: Option<String>,
    /// The mesh's token for a multiaddr; for an HTTP address the node's bearer token
    #[arg(long, value_name = "TOKEN", global = true, help_heading = "Node")]
    pub token: Option<String>,
}

/// A command line that names no node. Wrong usage: exit code 2.
#[derive(Debug, Error)]
pub enum TargetError {
    #[error("--node {0} is a multiaddr and needs --token: print one on a member with 'dunlin token'")]
    NeedsToken(String),
    #[error(
        "--node {0} needs the bearer token of that node: give it with --token (it is in the file 'bearer' of the node's \
         data folder), or name the folder with --data"
    )]
    NeedsBearer(String),
    #[error("--token goes with --node: name the node that it is for")]
    NeedsNode,
    #[error(transparent)]
    Folder(#[from] DataFolderError),
}

impl TargetArguments {
    /// The data folder that is meant.
    pub fn folder(&self) -> Result<PathBuf, DataFolderError> {
        match &self.data {
            Some(folder) => Ok(folder.clone()),
            None => data_folder::default_folder(),
        }
    }

    pub fn resolve(&self) -> Result<Target, TargetError> {
        match (&self.node, &self.token) {
            (Some(node), Some(token)) if node.starts_with('/') => {
                Ok(Target::Multiaddr { address: node.clone(), token: token.clone() })
            }
            (Some(node), None) if node.starts_with('/') => Err(TargetError::NeedsToken(node.clone())),
            (Some(node), Some(token)) => {
                Ok(Target::Http { address: http_address(node), bearer: token.clone() })
            }
            (Some(node), None) => {
                let bearer = match data_folder::read_bearer(&self.folder()?) {
                    Err(DataFolderError::NoNode(_)) if self.data.is_none() => {
                        return Err(TargetError::NeedsBearer(node.clone()));
                    }
                    read => read?,
                };
                Ok(Target::Http { address: http_address(node), bearer })
            }
            (None, Some(_)) => Err(TargetError::NeedsNode),
            (None, None) => {
                let folder = self.folder()?;
                let bearer = data_folder::read_bearer(&folder)?;
                let address = match data_folder::read_http(&folder) {
                    Ok(address) => address,
                    Err(DataFolderError::NoNode(_)) => HTTP_DEFAULT.to_string(),
                    Err(error) => return Err(error.into()),
                };
                Ok(Target::Http { address, bearer })
            }
        }
    }
}

fn http_address(node: &str) -> String {
    node.trim_start_matches("http://").trim_end_matches('/').to_string()
}

/// Opens the libp2p door: address, token. The network's room gives it.
pub type ConnectMultiaddr = fn(&str, &str) -> Result<Box<dyn Client>, Failure>;

/// The client of a target. HTTP connects with the first call.
pub fn connect(target: &Target, multiaddr: ConnectMultiaddr) -> Result<Box<dyn Client>, Failure> {
    match target {
        Target::Http { address, bearer } => Ok(Box::new(HttpClient::new(address, bearer))),
        Target::Multiaddr { address, token } => multiaddr(address, token),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_a_url_and_a_multiaddr_name_a_node() {
        let folder = tempfile::tempdir().unwrap();
        data_folder::write_bearer(folder.path(), "secret").unwrap();
        data_folder::write_http(folder.path(), "127.0.0.1:4012").unwrap();
        let data = Some(folder.path().to_path_buf());
        let by_folder = TargetArguments { data: data.clone(), ..TargetArguments::default() };
        let http =
            |address: &str, bearer: &str| Target::Http { address: address.into(), bearer: bearer.into() };
        assert_eq!(by_folder.resolve().unwrap(), http("127.0.0.1:4012", "secret"));
        let by_url = TargetArguments { data, node: Some("http://10.0.0.1:7070/".into()), token: None };
        assert_eq!(by_url.resolve().unwrap(), http("10.0.0.1:7070", "secret"));
        let multiaddr =
            TargetArguments { node: Some("/ip4/1.2.3.4/tcp/1".into()), ..TargetArguments::default() };
        assert!(matches!(multiaddr.resolve(), Err(TargetError::NeedsToken(_))));
        let with_token = TargetArguments { token: Some("t".into()), ..multiaddr };
        assert!(matches!(with_token.resolve(), Ok(Target::Multiaddr { .. })));
    }

    #[test]
    fn a_folder_without_a_node_is_a_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let arguments = TargetArguments { data: Some(folder.path().into()), ..TargetArguments::default() };
        let error = arguments.resolve().unwrap_err().to_string();
        assert!(error.contains("no node has run") && error.contains("dunlin run --data"), "{error}");
    }
}
