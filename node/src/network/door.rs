//! The handler of one connection: it holds the inner handlers behind hello.
//!
//! Until hello has passed, `/dunlin/hello/1` is the only protocol that is negotiated, the inner
//! handlers are not polled, and after `HELLO_DEADLINE` the connection is dropped. The door opens
//! for the remote's substreams as soon as this side is convinced, and for our own when the remote
//! has said that it is (`Ready`), so that neither side ever knocks too early.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use dunlin_protocol::id::NodeId;
use dunlin_protocol::wire::handshake::Role;
use futures::future::{self, BoxFuture, FutureExt as _};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound, ListenUpgradeError,
};
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol};
use libp2p::{Stream, StreamProtocol};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::admit::{Admit, Admitted, Request};
use super::hello::{Greeter, HelloError, Passed, TurnedAway};
use super::protocols::HELLO;

/// A connection on which hello has not passed by then is dropped and counted.
pub(super) const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// Substreams of ours that may wait to be opened on one connection. Beyond: refused.
const OPENING_MAX: usize = 64;

/// Who began the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Dialer,
    Listener,
}

/// Where a substream that was asked for is handed over.
pub(super) type Reply = oneshot::Sender<Result<Stream, OpenError>>;

/// A substream could not be opened. The connection stays as it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("the other side does not serve it")]
    Unsupported,
    #[error("it did not open: {0}")]
    Broken(String),
}

#[derive(Debug)]
pub(super) enum ToDoor<T> {
    Inner(T),
    Open { protocol: StreamProtocol, reply: Reply },
}

#[derive(Debug)]
pub(super) enum FromDoor<T> {
    Inner(T),
    Passed(Passed),
    Failed(HelloError),
    /// The connection may be closed.
    Over,
    Opened {
        protocol: StreamProtocol,
        stream: Stream,
    },
}

/// Why an outbound substream was asked for.
pub(super) enum Purpose<T> {
    Hello,
    Own(Reply),
    Inner(T),
}

pub(super) struct Door<H> {
    inner: H,
    greeter: Arc<Greeter>,
    remote: NodeId,
    side: Side,
    /// What the remote may ask for; set by the hello exchange when it is convinced.
    open: Arc<OnceLock<Role>>,
    stage: Stage,
    deadline: Option<Pin<Box<Sleep>>>,
    to_behaviour: VecDeque<Opened>,
    opening: VecDeque<(StreamProtocol, Reply)>,
}

type Opened = (StreamProtocol, Stream);

enum Stage {
    /// The dialer has not yet asked for the substream.
    Fresh,
    Waiting,
    Greeting(BoxFuture<'static, Result<Passed, TurnedAway>>),
    Failed(HelloError),
    Passed,
    /// The behaviour knows that hello failed; the answer is on its way.
    Lingering(BoxFuture<'static, ()>),
    /// The behaviour was told to close the connection.
    Over,
}

impl<H> fmt::Debug for Door<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("remote", &self.remote).field("open", &self.open).finish_non_exhaustive()
    }
}

impl<H: ConnectionHandler> Door<H> {
    pub fn new(inner: H, greeter: Arc<Greeter>, remote: NodeId, side: Side) -> Self {
        let stage = match side {
            Side::Dialer => Stage::Fresh,
            Side::Listener => Stage::Waiting,
        };
        Door {
            inner,
            greeter,
            remote,
            side,
            open: Arc::default(),
            stage,
            deadline: None,
            to_behaviour: VecDeque::new(),
            opening: VecDeque::new(),
        }
    }

    fn on_hello(&mut self, stream: Stream, side: Side) {
        // A second hello, or one that the listener began, has no meaning: its substream is dropped.
        if side == self.side && matches!(self.stage, Stage::Waiting) {
            let greeter = self.greeter.clone();
            let hello = match side {
                Side::Dialer => greeter.dial(self.remote, stream, self.open.clone()).boxed(),
                Side::Listener => greeter.listen(self.remote, stream, self.open.clone()).boxed(),
            };
            self.stage = Stage::Greeting(hello);
        }
    }

    /// The hello exchange's progress, and the connection's end when it did not pass.
    fn poll_hello<T>(&mut self, cx: &mut Context<'_>) -> Poll<FromDoor<T>> {
        let outcome = match &mut self.stage {
            Stage::Greeting(hello) => hello.poll_unpin(cx),
            Stage::Lingering(linger) => {
                ready!(linger.poll_unpin(cx));
                self.stage = Stage::Over;
                return Poll::Ready(FromDoor::Over);
            }
            Stage::Failed(_) => match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Failed(error) => Poll::Ready(Err(TurnedAway { error, linger: None })),
                stage => {
                    self.stage = stage;
                    Poll::Pending
                }
            },
            Stage::Fresh | Stage::Waiting | Stage::Passed | Stage::Over => Poll::Pending,
        };
        let outcome = match outcome {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => {
                let deadline =
                    self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(HELLO_DEADLINE)));
                ready!(deadline.as_mut().poll(cx));
                Err(TurnedAway { error: HelloError::TooLate, linger: None })
            }
        };
        self.deadline = None;
        Poll::Ready(match outcome {
            Ok(passed) => {
                self.stage = Stage::Passed;
                FromDoor::Passed(passed)
            }
            Err(TurnedAway { error, linger }) => {
                self.stage = Stage::Lingering(linger.unwrap_or_else(|| future::ready(()).boxed()));
                FromDoor::Failed(error)
            }
        })
    }
}

impl<H: ConnectionHandler> ConnectionHandler for Door<H> {
    type FromBehaviour = ToDoor<H::FromBehaviour>;
    type ToBehaviour = FromDoor<H::ToBehaviour>;
    type InboundProtocol = Admit<H::InboundProtocol>;
    type OutboundProtocol = Request<H::OutboundProtocol>;
    /// The inner info is there exactly when inner protocols were offered.
    type InboundOpenInfo = Option<H::InboundOpenInfo>;
    type OutboundOpenInfo = Purpose<H::OutboundOpenInfo>;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        let Some(role) = self.open.get() else {
            let own = match self.side {
                Side::Listener => vec![HELLO],
                Side::Dialer => vec![],
            };
            return SubstreamProtocol::new(Admit { own, inner: None, member: false }, None);
        };
        let own = self.greeter.serves(*role).to_vec();
        let inner = self.inner.listen_protocol();
        let timeout = *inner.timeout();
        let (upgrade, info) = inner.into_upgrade();
        SubstreamProtocol::new(Admit { own, inner: Some(upgrade), member: *role == Role::Member }, Some(info))
            .with_timeout(timeout)
    }

    fn connection_keep_alive(&self) -> bool {
        // Before hello its deadline decides; after it, substreams hold a connection, and one that
        // carries none closes after the idle timeout.
        match self.stage {
            Stage::Fresh | Stage::Waiting | Stage::Greeting(_) | Stage::Failed(_) | Stage::Lingering(_) => {
                true
            }
            Stage::Passed => self.inner.connection_keep_alive(),
            Stage::Over => false,
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        match self.stage {
            Stage::Passed => {}
            Stage::Over => return Poll::Pending,
            Stage::Fresh => {
                self.stage = Stage::Waiting;
                let protocol = SubstreamProtocol::new(Request::Own(HELLO), Purpose::Hello);
                return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
            }
            Stage::Waiting | Stage::Greeting(_) | Stage::Failed(_) | Stage::Lingering(_) => {
                return self.poll_hello(cx).map(ConnectionHandlerEvent::NotifyBehaviour);
            }
        }
        if let Some((protocol, stream)) = self.to_behaviour.pop_front() {
            let opened = FromDoor::Opened { protocol, stream };
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(opened));
        }
        if let Some((protocol, reply)) = self.opening.pop_front() {
            let protocol = SubstreamProtocol::new(Request::Own(protocol), Purpose::Own(reply));
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        self.inner.poll(cx).map(|event| {
            event
                .map_custom(FromDoor::Inner)
                .map_protocol(Request::Inner)
                .map_outbound_open_info(Purpose::Inner)
        })
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        self.inner.poll_close(cx).map(|event| event.map(FromDoor::Inner))
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        match event {
            ToDoor::Inner(event) => self.inner.on_behaviour_event(event),
            ToDoor::Open { protocol, reply } if self.opening.len() < OPENING_MAX => {
                self.opening.push_back((protocol, reply));
            }
            ToDoor::Open { reply, .. } => {
                let _ = reply.send(Err(OpenError::Broken("too many substreams are being opened".into())));
            }
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info }) => {
                match (protocol, info) {
                    (Admitted::Own(protocol, stream), _) if protocol == HELLO => {
                        self.on_hello(stream, Side::Listener);
                    }
                    (Admitted::Own(protocol, stream), _) => self.to_behaviour.push_back((protocol, stream)),
                    (Admitted::Inner(protocol), Some(info)) => {
                        let event = FullyNegotiatedInbound { protocol, info };
                        self.inner.on_connection_event(ConnectionEvent::FullyNegotiatedInbound(event));
                    }
                    (Admitted::Inner(_), None) => {}
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                match (protocol, info) {
                    (Admitted::Own(_, stream), Purpose::Hello) => self.on_hello(stream, Side::Dialer),
                    (Admitted::Own(_, stream), Purpose::Own(reply)) => {
                        // Whoever asked may have gone; then the substream is closed.
                        let _ = reply.send(Ok(stream));
                    }
                    (Admitted::Inner(protocol), Purpose::Inner(info)) => {
                        let event = FullyNegotiatedOutbound { protocol, info };
                        self.inner.on_connection_event(ConnectionEvent::FullyNegotiatedOutbound(event));
                    }
                    (Admitted::Own(..), Purpose::Inner(_))
                    | (Admitted::Inner(_), Purpose::Hello | Purpose::Own(_)) => {}
                }
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => match info {
                Purpose::Hello => {
                    let error = open_error(&error);
                    self.stage = Stage::Failed(HelloError::Unanswered(error.to_string()));
                }
                Purpose::Own(reply) => {
                    let _ = reply.send(Err(open_error(&error)));
                }
                Purpose::Inner(info) => {
                    let event = DialUpgradeError { info, error };
                    self.inner.on_connection_event(ConnectionEvent::DialUpgradeError(event));
                }
            },
            ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info: Some(info), error }) => {
                let event = ListenUpgradeError { info, error };
                self.inner.on_connection_event(ConnectionEvent::ListenUpgradeError(event));
            }
            ConnectionEvent::AddressChange(change) => {
                self.inner.on_connection_event(ConnectionEvent::AddressChange(change));
            }
            ConnectionEvent::LocalProtocolsChange(change) => {
                self.inner.on_connection_event(ConnectionEvent::LocalProtocolsChange(change));
            }
            ConnectionEvent::RemoteProtocolsChange(change) => {
                self.inner.on_connection_event(ConnectionEvent::RemoteProtocolsChange(change));
            }
            // libp2p's enum is non-exhaustive; what it may bring is none of the gate's business.
            _ => {}
        }
    }
}

fn open_error<E>(error: &StreamUpgradeError<E>) -> OpenError {
    match error {
        StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
        StreamUpgradeError::Timeout => OpenError::Broken("the other side did not answer in time".into()),
        StreamUpgradeError::Apply(_) => OpenError::Broken("the upgrade failed".into()),
        StreamUpgradeError::Io(error) => OpenError::Broken(error.to_string()),
    }
}
