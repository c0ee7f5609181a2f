//! Which protocols a connection negotiates: the gate's own and, once it stands open, the inner ones.

use futures::future::{BoxFuture, FutureExt as _};
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{InboundUpgradeSend, OutboundUpgradeSend, UpgradeInfoSend};
use libp2p::{Stream, StreamProtocol};

use super::protocols::GOSSIP;

/// The gate's own protocols, and those of `inner` when it is let in.
pub(super) struct Admit<U> {
    pub own: Vec<StreamProtocol>,
    pub inner: Option<U>,
    /// The other side is a member: gossip is for them alone.
    pub member: bool,
}

/// The name of a protocol on one of the two sides of the gate.
#[derive(Clone, Debug)]
pub(super) enum Side<T> {
    Own(StreamProtocol),
    Inner(T),
}

impl<T: AsRef<str>> AsRef<str> for Side<T> {
    fn as_ref(&self) -> &str {
        match self {
            Side::Own(protocol) => protocol.as_ref(),
            Side::Inner(protocol) => protocol.as_ref(),
        }
    }
}

/// What was negotiated.
pub(super) enum Admitted<T> {
    Own(StreamProtocol, Stream),
    Inner(T),
}

impl<U: UpgradeInfoSend> UpgradeInfo for Admit<U> {
    type Info = Side<U::Info>;
    type InfoIter = Vec<Side<U::Info>>;

    fn protocol_info(&self) -> Self::InfoIter {
        let inner = self.inner.iter().flat_map(|inner| inner.protocol_info());
        let inner = inner.filter(|info| self.member || !info.as_ref().starts_with(GOSSIP)).map(Side::Inner);
        self.own.iter().cloned().map(Side::Own).chain(inner).collect()
    }
}

impl<U: InboundUpgradeSend> InboundUpgrade<Stream> for Admit<U> {
    type Output = Admitted<U::Output>;
    type Error = U::Error;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, stream: Stream, info: Self::Info) -> Self::Future {
        match (info, self.inner) {
            (Side::Inner(info), Some(inner)) => {
                inner.upgrade_inbound(stream, info).map(|done| done.map(Admitted::Inner)).boxed()
            }
            // An inner protocol is only ever negotiated when `inner` listed it.
            (Side::Inner(_), None) => futures::future::pending().boxed(),
            (Side::Own(protocol), _) => futures::future::ready(Ok(Admitted::Own(protocol, stream))).boxed(),
        }
    }
}

/// What one substream is opened for: the gate or an inner behaviour.
pub(super) enum Request<U> {
    Own(StreamProtocol),
    Inner(U),
}

impl<U: UpgradeInfoSend> UpgradeInfo for Request<U> {
    type Info = Side<U::Info>;
    type InfoIter = Vec<Side<U::Info>>;

    fn protocol_info(&self) -> Self::InfoIter {
        match self {
            Request::Own(protocol) => vec![Side::Own(protocol.clone())],
            Request::Inner(inner) => inner.protocol_info().map(Side::Inner).collect(),
        }
    }
}

impl<U: OutboundUpgradeSend> OutboundUpgrade<Stream> for Request<U> {
    type Output = Admitted<U::Output>;
    type Error = U::Error;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, stream: Stream, info: Self::Info) -> Self::Future {
        match (info, self) {
            (Side::Inner(info), Request::Inner(inner)) => {
                inner.upgrade_outbound(stream, info).map(|done| done.map(Admitted::Inner)).boxed()
            }
            (Side::Own(protocol), _) => futures::future::ready(Ok(Admitted::Own(protocol, stream))).boxed(),
            (Side::Inner(_), Request::Own(_)) => futures::future::pending().boxed(),
        }
    }
}
