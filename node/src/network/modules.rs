//! Modules between members: asked for by digest, sent in pieces, kept only when the digest matches.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dunlin_protocol::effect::Input;
use dunlin_protocol::id::{Digest, NodeId};
use dunlin_protocol::limits::{FRAME_BYTES_MAX, MODULE_BYTES_MAX};
use dunlin_protocol::rpc::frames::PIECE_BYTES;
use futures::io::AsyncWriteExt as _;
use libp2p::Stream;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::counters::Counters;
use super::door::OpenError;
use super::frames::{self, FrameReader, StreamError};
use super::hub::Order;
use super::protocols::MODULE;
use crate::inbox::Inbox;

/// A holder that sends nothing for so long is given up for the next.
const SILENCE_MAX: Duration = Duration::from_secs(5);
const QUESTION_BYTES_MAX: usize = 64;

/// Where modules are kept. Both may read and write files: they are called off the async threads.
pub trait Modules: Send + Sync {
    fn get(&self, digest: Digest) -> Option<Bytes>;
    /// Keeps the module. An error is a sentence; nothing was kept.
    fn put(&self, bytes: Bytes) -> Result<Digest, String>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Want {
    digest: Digest,
}

/// Comes first; `bytes` of the module follow in frames of `PIECE_BYTES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Found {
    Held { bytes: u64 },
    Missing,
}

/// One holder could not give the module. Nothing was kept.
#[derive(Debug, Error)]
enum FetchError {
    #[error("not connected")]
    Unconnected,
    #[error("{0}")]
    Open(#[from] OpenError),
    #[error("{0}")]
    Stream(#[from] StreamError),
    #[error("it does not hold the module")]
    Missing,
    #[error("it announced {0} bytes, more than a module may have")]
    TooLong(u64),
    #[error("its bytes do not match the digest")]
    Corrupt,
    #[error("the module could not be kept here: {0}")]
    Keep(String),
}

/// Serves one request of a member.
pub(super) async fn serve(modules: Arc<dyn Modules>, mut stream: Stream, counters: Arc<Counters>) {
    if let Err(error) = try_serve(modules, &mut stream, &counters).await {
        tracing::debug!("a module was not sent: {error}");
    }
}

async fn try_serve(
    modules: Arc<dyn Modules>,
    stream: &mut Stream,
    counters: &Counters,
) -> Result<(), StreamError> {
    let want: Want = FrameReader::new(&mut *stream, QUESTION_BYTES_MAX, SILENCE_MAX).value().await?;
    let held = tokio::task::spawn_blocking(move || modules.get(want.digest)).await.ok().flatten();
    let Some(module) = held else {
        frames::write(stream, &Found::Missing).await?;
        return Ok(stream.close().await?);
    };
    frames::write(stream, &Found::Held { bytes: module.len() as u64 }).await?;
    for piece in module.chunks(PIECE_BYTES) {
        frames::write(stream, &Bytes::copy_from_slice(piece)).await?;
    }
    counters.modules_served.one();
    Ok(stream.close().await?)
}

/// Fetches modules, each digest at most once at a time.
#[derive(Clone)]
pub(super) struct Fetcher {
    pub modules: Arc<dyn Modules>,
    pub orders: mpsc::Sender<Order>,
    pub inbox: Inbox,
    pub counters: Arc<Counters>,
    pub running: Arc<Mutex<BTreeSet<Digest>>>,
}

impl Fetcher {
    /// Asks the holders one after the other; the core is told how it ended.
    pub async fn fetch(self, digest: Digest, holders: Vec<NodeId>) {
        if !self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(digest) {
            return;
        }
        let outcome = self.try_fetch(digest, &holders).await;
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
        let input = match outcome {
            Ok(()) => Input::ModuleHeld { digest },
            Err(why) => Input::ModuleMissing { digest, why },
        };
        self.inbox.send(input).await;
    }

    async fn try_fetch(&self, digest: Digest, holders: &[NodeId]) -> Result<(), String> {
        let modules = self.modules.clone();
        let held = tokio::task::spawn_blocking(move || modules.get(digest).is_some()).await;
        if held.unwrap_or(false) {
            return Ok(());
        }
        let mut tried = Vec::new();
        for holder in holders {
            match self.ask_holder(digest, *holder).await {
                Ok(()) => {
                    self.counters.modules_fetched.one();
                    return Ok(());
                }
                Err(error) => {
                    if matches!(error, FetchError::Corrupt) {
                        self.counters.modules_corrupt.one();
                        tracing::warn!(node = %holder, module = %digest, "module refused: {error}");
                    }
                    tried.push(format!("{holder}: {error}"));
                }
            }
        }
        match tried.is_empty() {
            true => Err(format!("no member is known to hold module {digest}")),
            false => Err(format!("no member gave module {digest} ({})", tried.join("; "))),
        }
    }

    async fn ask_holder(&self, digest: Digest, holder: NodeId) -> Result<(), FetchError> {
        let (reply, stream) = oneshot::channel();
        let order = Order::Open { node: holder, protocol: MODULE, reply };
        self.orders.send(order).await.map_err(|_| FetchError::Unconnected)?;
        let mut stream = stream.await.map_err(|_| FetchError::Unconnected)??;
        frames::write(&mut stream, &Want { digest }).await?;
        let mut frames = FrameReader::new(stream, FRAME_BYTES_MAX, SILENCE_MAX);
        let bytes = match frames.value::<Found>().await? {
            Found::Missing => return Err(FetchError::Missing),
            Found::Held { bytes } => bytes,
        };
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        if length > MODULE_BYTES_MAX {
            return Err(FetchError::TooLong(bytes));
        }
        let mut module = BytesMut::new();
        while module.len() < length {
            let piece: Bytes = frames.value().await?;
            if piece.is_empty() || module.len() + piece.len() > length {
                return Err(FetchError::Corrupt);
            }
            module.extend_from_slice(&piece);
        }
        let (module, modules) = (module.freeze(), self.modules.clone());
        let kept = tokio::task::spawn_blocking(move || {
            if Digest::of(&module) != digest {
                return Err(FetchError::Corrupt);
            }
            modules.put(module).map_err(FetchError::Keep)
        });
        kept.await.map_err(|error| FetchError::Keep(error.to_string()))??;
        Ok(())
    }
}
