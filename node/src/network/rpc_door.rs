//! The server's half of `/dunlin/rpc/1`: one task per substream between the frames and the door.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dunlin_protocol::id::NodeId;
use dunlin_protocol::limits::{FRAME_BYTES_MAX, MODULE_BYTES_MAX};
use dunlin_protocol::rpc::frames::{RpcCall, RpcIn, RpcOut};
use dunlin_protocol::wire::frame;
use dunlin_protocol::wire::handshake::Role;
use futures::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf};
use libp2p::Stream;
use tokio::sync::mpsc;

use super::counters::Counters;
use super::frames::{FrameReader, StreamError};
use super::links::WRITE_BYTES;

/// Frames that wait between a substream and the door. Beyond: the slower side makes the other wait.
const FRAMES_MAX: usize = 64;
/// Modules that one substream may be putting at once. Beyond: the substream is dropped.
const UPLOADS_MAX: usize = 4;
/// A caller may think for a day; pings notice one that is gone.
const SILENCE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RpcPeer {
    pub node: NodeId,
    /// A member, or a client with a throw-away identity and a token.
    pub member: bool,
}

impl RpcPeer {
    pub(super) fn new(node: NodeId, role: Role) -> RpcPeer {
        RpcPeer { node, member: role == Role::Member }
    }
}

/// What answers RPC on this node.
pub trait RpcDoor: Send + Sync {
    /// A substream was opened. Modules come whole, as `PutModule`; `Piece` never comes. `incoming`
    /// ends when the caller is gone: then all its calls are cancelled. The substream closes when
    /// `outgoing` and its clones are dropped. Must not block: work belongs into a task.
    fn open(&self, from: RpcPeer, incoming: mpsc::Receiver<RpcIn>, outgoing: mpsc::Sender<RpcOut>);
}

/// Serves one substream until either side ends it.
pub(super) async fn serve(door: Arc<dyn RpcDoor>, from: RpcPeer, stream: Stream, counters: Arc<Counters>) {
    let (to_door, incoming) = mpsc::channel(FRAMES_MAX);
    let (outgoing, from_door) = mpsc::channel(FRAMES_MAX);
    door.open(from, incoming, outgoing);
    let (reader, writer) = stream.split();
    let mut reading = std::pin::pin!(read(reader, to_door, &counters));
    let mut writing = std::pin::pin!(write(writer, from_door));
    let end = tokio::select! {
        end = &mut writing => end,
        end = &mut reading => match end {
            // A caller may close its half after its last call and still wait for the answers.
            Err(StreamError::Closed) => writing.await,
            end => end,
        },
    };
    match end {
        Ok(()) | Err(StreamError::Closed | StreamError::Io(_) | StreamError::Silent(_)) => {}
        Err(StreamError::Frame(error)) => {
            counters.frames_refused.one();
            tracing::warn!(node = %from.node, "an RPC substream was dropped: {error}");
        }
    }
}

async fn read(
    reader: ReadHalf<Stream>,
    door: mpsc::Sender<RpcIn>,
    counters: &Counters,
) -> Result<(), StreamError> {
    let mut frames = FrameReader::new(reader, FRAME_BYTES_MAX, SILENCE_MAX);
    let mut uploads = Uploads::default();
    loop {
        let input = match frames.value::<RpcIn>().await? {
            RpcIn::Piece { id, bytes } => {
                uploads.add(id, &bytes)?;
                continue;
            }
            RpcIn::Call { id, call: RpcCall::PutModule(last) } => {
                RpcIn::Call { id, call: RpcCall::PutModule(uploads.finish(id, last)?) }
            }
            RpcIn::Cancel { id } => {
                uploads.0.remove(&id);
                RpcIn::Cancel { id }
            }
            other @ (RpcIn::Call { .. } | RpcIn::Credit { .. }) => other,
        };
        if matches!(input, RpcIn::Call { .. }) {
            counters.rpc_calls.one();
        }
        if door.send(input).await.is_err() {
            return Ok(());
        }
    }
}

async fn write<W: AsyncWrite + Unpin>(
    mut io: W,
    mut door: mpsc::Receiver<RpcOut>,
) -> Result<(), StreamError> {
    let mut buffer = Vec::new();
    while let Some(output) = door.recv().await {
        buffer.clear();
        frame::seal(&output, &mut buffer)?;
        while buffer.len() < WRITE_BYTES
            && let Ok(output) = door.try_recv()
        {
            frame::seal(&output, &mut buffer)?;
        }
        io.write_all(&buffer).await?;
        io.flush().await?;
        if buffer.capacity() > 4 * WRITE_BYTES {
            buffer = Vec::new();
        }
    }
    // Best effort: the caller may already be gone.
    let _ = io.close().await;
    Ok(())
}

/// Modules whose pieces are coming in, by call.
#[derive(Default)]
struct Uploads(BTreeMap<u64, BytesMut>);

impl Uploads {
    fn add(&mut self, id: u64, piece: &[u8]) -> Result<(), StreamError> {
        if !self.0.contains_key(&id) && self.0.len() >= UPLOADS_MAX {
            return Err(std::io::Error::other("too many modules at once on one substream").into());
        }
        let module = self.0.entry(id).or_default();
        if module.len() + piece.len() > MODULE_BYTES_MAX {
            return Err(std::io::Error::other("the module is too long").into());
        }
        module.extend_from_slice(piece);
        Ok(())
    }

    fn finish(&mut self, id: u64, last: Bytes) -> Result<Bytes, StreamError> {
        if !self.0.contains_key(&id) {
            return Ok(last);
        }
        self.add(id, &last)?;
        Ok(self.0.remove(&id).unwrap_or_default().freeze())
    }
}
