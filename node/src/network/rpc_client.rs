//! The client's half of `/dunlin/rpc/1`: a throw-away identity and a token, one substream per call.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use dunlin_protocol::id::{Digest, NodeId};
use dunlin_protocol::limits::{FRAME_BYTES_MAX, MODULE_BYTES_MAX};
use dunlin_protocol::rpc::frames::{PIECE_BYTES, RpcCall, RpcIn, RpcOut};
use dunlin_protocol::rpc::lines::{Lines, LinesTaken};
use dunlin_protocol::rpc::{Fault, Request, Response};
use dunlin_protocol::wire::token::{Token, TokenError};
use futures::StreamExt as _;
use futures::io::{AsyncReadExt as _, ReadHalf, WriteHalf};
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, Stream};
use thiserror::Error;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::caller::{Caller, ReachError};
use super::door::Reply;
use super::frames::{self, FrameReader, StreamError};
use super::gate::GateEvent;
use super::hello::Credentials;
use super::identity::{Identity, now};
use super::line_calls::LineCalls;
use super::protocols::RPC;
use super::transport::InnerEvent;
use super::transport::TransportError;

const CONNECT_DEADLINE: Duration = Duration::from_secs(9);
const OPEN_DEADLINE: Duration = Duration::from_secs(10);
/// Answers may be a day apart; pings notice a node that is gone.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Answers and grants that wait between a call's task and its user.
const ANSWERS_MAX: usize = 16;
const GRANTS_MAX: usize = 64;
const OPENINGS_MAX: usize = 64;
/// Each call has its own substream, so every call may be number one.
const CALL: u64 = 1;

/// A call over libp2p did not come through. Whether the node did what was asked is not known
/// unless the sentence says so.
#[derive(Debug, Error)]
pub enum RpcError {
    #[error("'{0}' is no multiaddr; write it like /ip4/127.0.0.1/tcp/4001/p2p/12D3…")]
    Address(String),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("{address} cannot be reached: {why}; check that the node runs and listens there")]
    Unreachable { address: Multiaddr, why: String },
    #[error("{address} refused this client: {why}")]
    Refused { address: Multiaddr, why: String },
    #[error("the connection to the node was lost: {0}; ask again")]
    Lost(String),
    #[error("a module of {0} bytes is longer than the {MODULE_BYTES_MAX} bytes that a node takes")]
    TooLong(usize),
    #[error("{}", .0.detail)]
    Module(Fault),
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// A connection to one node, for calls. It closes when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct RpcClient {
    node: NodeId,
    openings: mpsc::Sender<Reply>,
    /// The substream that carries lines, once there were any.
    lines: Arc<Mutex<Option<LineCalls>>>,
}

impl RpcClient {
    /// Connects within ten seconds or says why not.
    pub async fn connect(address: &str, token: &str) -> Result<RpcClient, RpcError> {
        let multiaddr: Multiaddr = address.parse().map_err(|_| RpcError::Address(address.to_string()))?;
        let token = Token::parse(token, now())?;
        let mut caller = Caller::new(&Identity::generate(), Credentials::Client(token))?;
        let reached = tokio::time::timeout(CONNECT_DEADLINE, caller.reach(multiaddr.clone())).await;
        let (node, connection, _) = match reached {
            Ok(Ok(reached)) => reached,
            Ok(Err(ReachError::Refused(why))) => return Err(RpcError::Refused { address: multiaddr, why }),
            Ok(Err(ReachError::Unreachable(why))) => {
                return Err(RpcError::Unreachable { address: multiaddr, why });
            }
            Err(_) => {
                return Err(RpcError::Unreachable { address: multiaddr, why: "it does not answer".into() });
            }
        };
        let (openings, orders) = mpsc::channel(OPENINGS_MAX);
        tokio::spawn(run(caller, node, connection, orders));
        Ok(RpcClient { node, openings, lines: Arc::default() })
    }

    /// The node that answers.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Asks; the answers come one after the other. Dropping them cancels the call.
    pub async fn call(&self, request: Request) -> Result<Answers, RpcError> {
        let pause = if let Request::Tail(tail) = &request { tail.credit / 4 } else { 0 };
        let (reader, writer) = self.start(RpcCall::Request(request)).await?;
        let (to_user, answers) = mpsc::channel(ANSWERS_MAX);
        let (credit, grants) = mpsc::channel(GRANTS_MAX);
        tokio::spawn(carry(reader, writer, to_user, Grants { grants, pause }));
        Ok(Answers { answers, credit })
    }

    /// Gives the node a module; it says the digest.
    pub async fn put_module(&self, bytes: Bytes) -> Result<Digest, RpcError> {
        if bytes.len() > MODULE_BYTES_MAX {
            return Err(RpcError::TooLong(bytes.len()));
        }
        let mut stream = self.open().await?;
        let mut rest = bytes;
        while rest.len() > PIECE_BYTES {
            let piece = RpcIn::Piece { id: CALL, bytes: rest.split_to(PIECE_BYTES) };
            frames::write(&mut stream, &piece).await.map_err(lost)?;
        }
        let call = RpcIn::Call { id: CALL, call: RpcCall::PutModule(rest) };
        frames::write(&mut stream, &call).await.map_err(lost)?;
        module_answer(stream).await.map(|(digest, _)| digest)
    }

    pub async fn has_module(&self, digest: Digest) -> Result<bool, RpcError> {
        let mut stream = self.open().await?;
        let call = RpcIn::Call { id: CALL, call: RpcCall::HasModule(digest) };
        frames::write(&mut stream, &call).await.map_err(lost)?;
        module_answer(stream).await.map(|(_, held)| held)
    }

    /// Gives the node lines for a source; it says which it took. Many may be under way: they share one
    /// substream, and which of them is taken first is not said.
    pub async fn publish(&self, lines: Lines) -> Result<Result<LinesTaken, Fault>, RpcError> {
        let calls = {
            let mut open = self.lines.lock().await;
            match &*open {
                Some(calls) if !calls.is_over() => calls.clone(),
                Some(_) | None => open.insert(LineCalls::over(self.open().await?)).clone(),
            }
        };
        calls.publish(lines).await
    }

    async fn start(&self, call: RpcCall) -> Result<(ReadHalf<Stream>, WriteHalf<Stream>), RpcError> {
        let mut stream = self.open().await?;
        frames::write(&mut stream, &RpcIn::Call { id: CALL, call }).await.map_err(lost)?;
        Ok(stream.split())
    }

    async fn open(&self) -> Result<Stream, RpcError> {
        let gone = || RpcError::Lost("the node closed it".into());
        let (reply, stream) = oneshot::channel();
        self.openings.send(reply).await.map_err(|_| gone())?;
        match tokio::time::timeout(OPEN_DEADLINE, stream).await {
            Ok(Ok(Ok(stream))) => Ok(stream),
            Ok(Ok(Err(error))) => Err(RpcError::Lost(error.to_string())),
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err(RpcError::Lost("the node does not answer".into())),
        }
    }
}

pub(super) fn lost(error: StreamError) -> RpcError {
    RpcError::Lost(error.to_string())
}

async fn module_answer(stream: Stream) -> Result<(Digest, bool), RpcError> {
    let mut frames = FrameReader::new(stream, FRAME_BYTES_MAX, SILENCE_MAX);
    match frames.value::<RpcOut>().await.map_err(lost)? {
        RpcOut::Module { digest, held, .. } => Ok((digest, held)),
        RpcOut::Answer { response: Response::Failed(fault), .. } => Err(RpcError::Module(fault)),
        RpcOut::Answer { .. } | RpcOut::Lines { .. } => {
            Err(RpcError::Lost("the node answered something else".into()))
        }
    }
}

/// The answers to one call. Each is the response and whether it is the last.
#[derive(Debug)]
pub struct Answers {
    answers: mpsc::Receiver<Result<(Response, bool), RpcError>>,
    credit: mpsc::Sender<u64>,
}

impl Answers {
    /// The next answer; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<(Response, bool), RpcError>> {
        self.answers.recv().await
    }

    /// Lets a tap's node send so many bytes more.
    pub async fn credit(&self, bytes: u64) {
        // The call may be over.
        let _ = self.credit.send(bytes).await;
    }
}

impl futures::Stream for Answers {
    type Item = Result<(Response, bool), RpcError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.answers.poll_recv(cx)
    }
}

/// Credit on its way to the node. Each answer gives some back: less than `pause` waits for more.
struct Grants {
    grants: mpsc::Receiver<u64>,
    pause: u64,
}

impl Grants {
    async fn next(&mut self) -> Option<u64> {
        let mut bytes = 0;
        loop {
            bytes += self.grants.recv().await?;
            if bytes >= self.pause {
                return Some(bytes);
            }
        }
    }
}

/// Carries one call: answers to the user, grants to the node, until the last answer or the user's end.
async fn carry(
    reader: ReadHalf<Stream>,
    mut writer: WriteHalf<Stream>,
    to_user: mpsc::Sender<Result<(Response, bool), RpcError>>,
    mut grants: Grants,
) {
    let reading = async {
        let mut frames = FrameReader::new(reader, FRAME_BYTES_MAX, SILENCE_MAX);
        loop {
            let answer = match frames.answer().await {
                Ok(RpcOut::Answer { response, last, .. }) => Ok((response, last)),
                Ok(RpcOut::Module { .. } | RpcOut::Lines { .. }) => {
                    Err(RpcError::Lost("the node answered something else".into()))
                }
                Err(error) => Err(lost(error)),
            };
            let over = !matches!(answer, Ok((_, false)));
            if to_user.send(answer).await.is_err() || over {
                return;
            }
        }
    };
    let granting = async {
        while let Some(bytes) = grants.next().await {
            if frames::write(&mut writer, &RpcIn::Credit { id: CALL, bytes }).await.is_err() {
                break;
            }
        }
        futures::future::pending::<()>().await;
    };
    tokio::select! {
        () = reading => {}
        () = granting => {}
        () = to_user.closed() => {}
    }
}

/// Runs the client's swarm until the connection or the last handle is gone.
async fn run(
    mut caller: Caller,
    node: NodeId,
    connection: ConnectionId,
    mut openings: mpsc::Receiver<Reply>,
) {
    loop {
        tokio::select! {
            reply = openings.recv() => match reply {
                Some(reply) => caller.swarm.behaviour_mut().open(node, connection, RPC, reply),
                None => return,
            },
            event = caller.swarm.select_next_some() => match event {
                SwarmEvent::ConnectionClosed { connection_id, .. } if connection_id == connection => return,
                SwarmEvent::Behaviour(GateEvent::Inner(InnerEvent::Ping(ping))) if ping.result.is_err() => {
                    caller.swarm.close_connection(ping.connection);
                }
                _ => {}
            },
        }
    }
}
