//! What somebody gets who speaks libp2p and has nothing to show.

use futures::future::poll_fn;
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt as _};
use libp2p::core::transport::{DialOpts, PortUse, Transport as _};
use libp2p::core::{Endpoint, upgrade};
use libp2p::{Multiaddr, noise, tcp, yamux};

use super::*;

/// A libp2p node that is none of ours: a connection, and protocols asked for by hand.
struct Stranger(StreamMuxerBox);

impl Stranger {
    async fn dial(address: &str) -> Stranger {
        let key = libp2p::identity::Keypair::generate_ed25519();
        let mut transport = tcp::tokio::Transport::new(tcp::Config::default())
            .upgrade(upgrade::Version::V1)
            .authenticate(noise::Config::new(&key).unwrap())
            .multiplex(yamux::Config::default())
            .boxed();
        let mut address: Multiaddr = address.parse().unwrap();
        address.pop();
        let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        Stranger(transport.dial(address, options).unwrap().await.unwrap().1)
    }

    /// Negotiates by hand; true when the node would serve the protocol. `None`: connection closed.
    async fn ask(&mut self, protocol: &str) -> Option<bool> {
        let mut stream = poll_fn(|cx| self.0.poll_outbound_unpin(cx)).await.ok()?;
        let line = |text: &str| {
            let mut bytes = vec![u8::try_from(text.len() + 1).unwrap()];
            bytes.extend(text.as_bytes());
            bytes.push(b'\n');
            bytes
        };
        let version = line("/multistream/1.0.0");
        let talk = async {
            stream.write_all(&version).await.ok()?;
            stream.write_all(&line(protocol)).await.ok()?;
            stream.flush().await.ok()?;
            let mut answer = vec![0; version.len()];
            stream.read_exact(&mut answer).await.ok()?;
            let mut length = [0];
            stream.read_exact(&mut length).await.ok()?;
            let mut answer = vec![0; usize::from(length[0])];
            stream.read_exact(&mut answer).await.ok()?;
            Some(answer != b"na\n")
        };
        tokio::select! {
            answer = talk => answer,
            () = Stranger::closed(&mut self.0) => None,
        }
    }

    async fn closed(muxer: &mut StreamMuxerBox) {
        while poll_fn(|cx| muxer.poll_unpin(cx)).await.is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_gets_nothing_and_is_dropped() {
    let mut a = Node::first().await;
    let mut stranger = Stranger::dial(&a.tcp_address()).await;
    for protocol in [
        "/dunlin/peer/1",
        "/dunlin/rpc/1",
        "/dunlin/module/1",
        "/ipfs/id/1.0.0",
        "/ipfs/id/push/1.0.0",
        "/ipfs/ping/1.0.0",
    ] {
        assert_eq!(stranger.ask(protocol).await, Some(false), "{protocol}");
    }
    assert_eq!(stranger.ask("/dunlin/hello/1").await, Some(true));
    // Breaking hello off ends the connection at once; saying nothing at all ends it at the deadline.
    tokio::time::timeout(DEADLINE, Stranger::closed(&mut stranger.0)).await.unwrap();
    a.until("hellos_failed", 1).await;

    let mut silent = Stranger::dial(&a.tcp_address()).await;
    let started = std::time::Instant::now();
    tokio::time::timeout(DEADLINE, Stranger::closed(&mut silent.0)).await.unwrap();
    let waited = started.elapsed();
    assert!(waited > Duration::from_secs(4) && waited < Duration::from_secs(9), "{waited:?}");
    a.until("hellos_failed", 2).await;
    assert!(a.inputs.try_recv().is_none());
}
