//! Somebody who speaks libp2p and means no good: connections without hello, substreams whose every
//! byte is chosen here. It is no node: nothing of `dunlin` runs in it but the types of the wire.

use std::collections::VecDeque;
use std::io;
use std::task::Poll;
use std::time::Duration;

use dunlin_protocol::id::NodeId;
use dunlin_protocol::wire::frame;
use dunlin_protocol::wire::handshake::{
    Answer, Certificate, Hello, HelloKind, Pass, Ready, VERSIONS, Welcome,
};
use dunlin_protocol::wire::token::Token;
use futures::future::poll_fn;
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox};
use libp2p::core::transport::{DialOpts, PortUse};
use libp2p::core::upgrade::Version;
use libp2p::core::{Endpoint, Transport};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, noise, tcp, yamux};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub const HELLO: &str = "/dunlin/hello/1";
pub const PEER: &str = "/dunlin/peer/1";
pub const RPC: &str = "/dunlin/rpc/1";
pub const MODULE: &str = "/dunlin/module/1";
pub const GOSSIP: &str = "/meshsub/1.1.0";
const PING: &str = "/ipfs/ping/1.0.0";
const MULTISTREAM: &str = "/multistream/1.0.0";
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for what has to come.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// An identity of its own.
#[derive(Debug, Clone)]
pub struct Stranger {
    key: Keypair,
    pub id: NodeId,
}

/// One connection: Noise and yamux have passed, nothing was said yet.
#[derive(Debug)]
pub struct Connection {
    open: mpsc::UnboundedSender<oneshot::Sender<SubstreamBox>>,
    pub alive: JoinHandle<()>,
    /// The node's side.
    pub node: NodeId,
}

impl Stranger {
    pub fn new() -> Stranger {
        let key = Keypair::generate_ed25519();
        let id = NodeId(key.public().try_into_ed25519().unwrap().to_bytes());
        Stranger { key, id }
    }

    /// One whose id is smaller than the node's: of a pair, the smaller one opens the link.
    pub fn smaller_than(node: NodeId) -> Stranger {
        loop {
            let stranger = Stranger::new();
            if stranger.id < node {
                return stranger;
            }
        }
    }

    /// `address` as the ready line prints it, with the peer id.
    pub async fn connect(&self, address: &str) -> io::Result<Connection> {
        let mut address: Multiaddr = address.parse().unwrap();
        let Some(Protocol::P2p(peer)) = address.pop() else { panic!("no peer id in {address}") };
        let node = NodeId::from_peer_id_bytes(&peer.to_bytes()).unwrap();
        let mut transport = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
            .upgrade(Version::V1)
            .authenticate(noise::Config::new(&self.key).unwrap())
            .multiplex(yamux::Config::default())
            .boxed();
        let how = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let dial = transport.dial(address, how).map_err(|why| io::Error::other(why.to_string()))?;
        let (found, muxer) = tokio::time::timeout(DEADLINE, dial).await.map_err(io::Error::other)??;
        assert_eq!(found, peer);
        let (open, requests) = mpsc::unbounded_channel();
        let alive = tokio::spawn(drive(muxer, requests));
        Ok(Connection { open, alive, node })
    }

    fn hello(&self, kind: HelloKind) -> Hello {
        Hello { versions: VERSIONS, incarnation: self.id.0.iter().map(|byte| u64::from(*byte)).sum(), kind }
    }

    pub fn as_client(&self, token: &Token, node: NodeId) -> Hello {
        self.hello(HelloKind::Client(Pass::new(token, self.id, node, [7; 16])))
    }

    /// Becomes a member by the token; what a node that was taken over by somebody has.
    pub async fn join(&self, address: &str, token: &Token) -> Certificate {
        let connection = self.connect(address).await.unwrap();
        let pass = Pass::new(token, self.id, connection.node, [8; 16]);
        let (_stream, welcome) = connection.hello(&self.hello(HelloKind::Joiner(pass))).await.unwrap();
        welcome.admission.expect("an admission").certificate
    }

    pub fn as_member(&self, certificate: Certificate) -> Hello {
        self.hello(HelloKind::Member { certificate })
    }

    /// A frame of gossipsub: a message of this topic that says it is `author`'s, signed by this key.
    pub fn gossip(&self, author: &NodeId, topic: &str, data: &[u8], number: u64) -> Vec<u8> {
        let author = author.peer_id_bytes();
        let number = number.to_be_bytes();
        let fields: [&[u8]; 4] = [&author, data, &number, topic.as_bytes()];
        let mut message: Vec<u8> = (1..).zip(fields).flat_map(|(tag, bytes)| field(tag, bytes)).collect();
        let signature = self.key.sign(&[b"libp2p-pubsub:", message.as_slice()].concat()).unwrap();
        message.extend(field(5, &signature));
        gossip_frame(&field(2, &message))
    }
}

/// A frame of gossipsub: this node is in the topic.
pub fn gossip_subscription(topic: &str) -> Vec<u8> {
    gossip_frame(&field(1, &[vec![0x08, 1], field(2, topic.as_bytes())].concat()))
}

fn gossip_frame(content: &[u8]) -> Vec<u8> {
    [varint(content.len()), content.to_vec()].concat()
}

/// A field of protocol buffers: bytes.
fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
    [vec![tag << 3 | 2], varint(bytes.len()), bytes.to_vec()].concat()
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

impl Connection {
    /// A raw substream: not even the protocol is negotiated.
    pub async fn raw(&self) -> io::Result<SubstreamBox> {
        let (reply, stream) = oneshot::channel();
        self.open.send(reply).map_err(|_| io::Error::other("the connection is closed"))?;
        tokio::time::timeout(DEADLINE, stream)
            .await
            .map_err(io::Error::other)?
            .map_err(|_| io::Error::other("the connection is closed"))
    }

    /// A substream of this protocol; an error when the node does not serve it.
    pub async fn open(&self, protocol: &str) -> io::Result<SubstreamBox> {
        let mut stream = self.raw().await?;
        let negotiate = async {
            say(&mut stream, MULTISTREAM).await?;
            say(&mut stream, protocol).await?;
            assert_eq!(hear(&mut stream).await?, MULTISTREAM);
            match hear(&mut stream).await?.as_str() {
                "na" => Err(io::Error::other(format!("{protocol} is not served"))),
                agreed => {
                    assert_eq!(agreed, protocol);
                    Ok(())
                }
            }
        };
        tokio::time::timeout(DEADLINE, negotiate).await.map_err(io::Error::other)??;
        Ok(stream)
    }

    /// The whole hello; an error with the node's sentence when it is refused.
    pub async fn hello(&self, hello: &Hello) -> io::Result<(SubstreamBox, Welcome)> {
        let mut stream = self.open(HELLO).await?;
        write(&mut stream, hello).await?;
        match read(&mut stream).await? {
            Answer::Refused { why } => Err(io::Error::other(why)),
            Answer::Welcome(welcome) => {
                if welcome.admission.is_none() {
                    write(&mut stream, &Ready).await?;
                }
                Ok((stream, welcome))
            }
        }
    }

    /// Waits until the node has closed it.
    pub async fn closed(self) {
        in_time("the node closes the connection", self.alive).await.unwrap();
    }
}

pub async fn write<T: Serialize>(stream: &mut SubstreamBox, value: &T) -> io::Result<()> {
    let mut bytes = Vec::new();
    frame::seal(value, &mut bytes).map_err(io::Error::other)?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}

pub async fn read<T: serde::de::DeserializeOwned>(stream: &mut SubstreamBox) -> io::Result<T> {
    let whole = async {
        loop {
            let mut header = [0; frame::HEADER_BYTES];
            stream.read_exact(&mut header).await?;
            let bytes = frame::body_bytes(header, usize::MAX).map_err(io::Error::other)?;
            let mut body = vec![0; bytes];
            stream.read_exact(&mut body).await?;
            // Without a body it is a sign of life.
            if bytes > 0 {
                return frame::open(&body).map_err(io::Error::other);
            }
        }
    };
    tokio::time::timeout(DEADLINE, whole).await.map_err(io::Error::other)?
}

/// One line of multistream-select: its length, the text, a line end.
async fn say(stream: &mut SubstreamBox, text: &str) -> io::Result<()> {
    let length = u8::try_from(text.len() + 1).unwrap();
    stream.write_all(&[length]).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.write_all(b"\n").await?;
    stream.flush().await
}

async fn hear(stream: &mut SubstreamBox) -> io::Result<String> {
    let mut length = [0];
    stream.read_exact(&mut length).await?;
    let mut text = vec![0; usize::from(length[0])];
    stream.read_exact(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).trim_end().to_string())
}

/// Polls the connection, opens what is asked for, and answers the node's pings, so that it is not
/// dropped for being dead.
async fn drive(
    mut muxer: StreamMuxerBox,
    mut requests: mpsc::UnboundedReceiver<oneshot::Sender<SubstreamBox>>,
) {
    let mut waiting: VecDeque<oneshot::Sender<SubstreamBox>> = VecDeque::new();
    poll_fn(|cx| {
        loop {
            match requests.poll_recv(cx) {
                Poll::Ready(Some(reply)) => waiting.push_back(reply),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        loop {
            let mut opened = false;
            while !waiting.is_empty() {
                match muxer.poll_outbound_unpin(cx) {
                    Poll::Ready(Ok(stream)) => {
                        opened = true;
                        if let Some(reply) = waiting.pop_front() {
                            // Whoever asked may have given up.
                            let _ = reply.send(stream);
                        }
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            match muxer.poll_inbound_unpin(cx) {
                Poll::Ready(Ok(stream)) => {
                    opened = true;
                    drop(tokio::spawn(answer(stream)));
                }
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            // Last of all, and once more behind each new substream: only what was there then wakes
            // this task when it has something to send.
            match muxer.poll_unpin(cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending if !opened => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    })
    .await;
}

async fn answer(mut stream: SubstreamBox) -> io::Result<()> {
    assert_eq!(hear(&mut stream).await?, MULTISTREAM);
    say(&mut stream, MULTISTREAM).await?;
    loop {
        match hear(&mut stream).await?.as_str() {
            PING => break say(&mut stream, PING).await?,
            // What it says there is read and dropped.
            GOSSIP => {
                say(&mut stream, GOSSIP).await?;
                let mut bytes = vec![0; 64 << 10];
                while stream.read(&mut bytes).await? > 0 {}
                return Ok(());
            }
            _ => say(&mut stream, "na").await?,
        }
    }
    loop {
        let mut ball = [0; 32];
        stream.read_exact(&mut ball).await?;
        stream.write_all(&ball).await?;
        stream.flush().await?;
    }
}
