//! Frames on a substream: the moving of bytes that `dunlin_protocol::wire::frame` describes.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use dunlin_protocol::rpc::frames::RpcOut;
use dunlin_protocol::wire::frame::{self, FrameError, HEADER_BYTES};
use dunlin_protocol::wire::parts;
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The substream cannot be used any more.
#[derive(Debug, Error)]
pub(super) enum StreamError {
    #[error("the other side closed the substream")]
    Closed,
    #[error("nothing was heard for {} s", .0.as_secs())]
    Silent(Duration),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the substream broke: {0}")]
    Io(#[from] io::Error),
}

/// Reads frames of at most `max` bytes.
pub(super) struct FrameReader<R> {
    io: R,
    max: usize,
    /// How long the other side may say nothing at all.
    silence: Duration,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub fn new(io: R, max: usize, silence: Duration) -> Self {
        FrameReader { io, max, silence }
    }

    /// The next frame's body; empty for a sign of life.
    pub async fn body(&mut self) -> Result<Bytes, StreamError> {
        let mut header = [0; HEADER_BYTES];
        self.fill(&mut header).await?;
        let mut body = vec![0; frame::body_bytes(header, self.max)?];
        self.fill(&mut body).await?;
        Ok(Bytes::from(body))
    }

    pub async fn value<T: DeserializeOwned>(&mut self) -> Result<T, StreamError> {
        let body = self.body().await?;
        Ok(frame::open(&body)?)
    }

    /// What a called node answers, its events as parts of the frame.
    pub async fn answer(&mut self) -> Result<RpcOut, StreamError> {
        let body = self.body().await?;
        Ok(parts::answer(&body).map_err(FrameError::from)?)
    }

    /// Each single read has the deadline, so a slow link may take its time over a large frame.
    async fn fill(&mut self, mut into: &mut [u8]) -> Result<(), StreamError> {
        while !into.is_empty() {
            let read = tokio::time::timeout(self.silence, self.io.read(into)).await;
            let count = read.map_err(|_| StreamError::Silent(self.silence))??;
            if count == 0 {
                return Err(StreamError::Closed);
            }
            into = into.split_at_mut(count).1;
        }
        Ok(())
    }
}

/// Writes one value and flushes it.
pub(super) async fn write<T: Serialize, W: AsyncWrite + Unpin>(
    io: &mut W,
    value: &T,
) -> Result<(), StreamError> {
    let mut buffer = Vec::new();
    frame::seal(value, &mut buffer)?;
    io.write_all(&buffer).await?;
    io.flush().await?;
    Ok(())
}
