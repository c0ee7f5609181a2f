//! Strangers and hostile members: whoever is not let in costs a bounded little, whoever is let in
//! and lies is refused, all of it is counted, and the data path does not notice.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dunlin_protocol::event::Event;
use dunlin_protocol::id::{Digest, Epoch, Hash, LogId, NodeId, Position, Seq};
use dunlin_protocol::log::record::{Body, Record};
use dunlin_protocol::mesh::catalog::{CatalogEntry, CatalogRef};
use dunlin_protocol::pipeline::plan::SlotRange;
use dunlin_protocol::rpc::frames::{RpcCall, RpcIn, RpcOut};
use dunlin_protocol::rpc::{Cursor, CursorAt, Publish, Question, Reply, Request, Response, Tail, TailFrom};
use dunlin_protocol::time::Time;
use dunlin_protocol::wire::codec;
use dunlin_protocol::wire::handshake::{Hello, Versions};
use dunlin_protocol::wire::message::{
    AskId, EdgeId, Filter, From, Head, Mark, Message, Refusal, Slice, SliceEvent,
};
use dunlin_protocol::wire::token::Token;
use dunlin_tests::{Mesh, Node, wait_for};
use futures::{AsyncReadExt, AsyncWriteExt};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::runtime::Runtime;

use crate::chance::Chance;
use crate::latency::{Peak, Probe, calm_pipeline};
use crate::stranger::{HELLO, MODULE, PEER, RPC, Stranger, in_time, read, write};

const CONNECTIONS: usize = 2_000;
const SUBSCRIPTIONS: u64 = 1_000_000;
const MEMORY_MAX: u64 = 768 << 20;
const P99_MAX: Duration = Duration::from_secs(3);

/// A counter of `/metrics`; 0 when it was never counted.
fn counter(node: &Node, name: &str) -> u64 {
    let text = node.get("/metrics").body;
    let line =
        text.lines().find_map(|line| line.strip_prefix(&format!("dunlin_{name}_total ")).map(str::to_string));
    line.map_or(0, |number| number.parse().unwrap())
}

/// Counters are shown a few seconds late.
#[track_caller]
fn wait_until_counted(node: &Node, name: &str, least: u64) {
    wait_for(&format!("{name} counts {least}"), 20, || (counter(node, name) >= least).then_some(()));
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn token(node: &Node) -> Token {
    Token::parse(&node.token(), Time(0)).unwrap()
}

/// This process needs descriptors for its own end of every connection.
fn may_open(descriptors: u64) -> bool {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < descriptors) {
        limit.current = limit.maximum.map_or(Some(descriptors), |maximum| Some(maximum.min(descriptors)));
        let _ = setrlimit(Resource::Nofile, limit);
    }
    getrlimit(Resource::Nofile).current.is_none_or(|current| current >= descriptors)
}

/// `/ip4/127.0.0.1/tcp/4001/p2p/…` as `127.0.0.1:4001`.
fn socket(multiaddr: &str) -> String {
    let parts: Vec<&str> = multiaddr.split('/').collect();
    format!("{}:{}", parts[2], parts[4])
}

/// Runs `attack` beside the probe, and says how the probe fared.
#[track_caller]
fn beside(node: &Node, what: &str, attack: impl FnOnce() + Send) {
    let mut probe = Probe::start(node, "calm");
    let before = probe.measure_events(100);
    let peak = Peak::of(node);
    let during = std::thread::scope(|scope| {
        let attacking = scope.spawn(attack);
        let during = probe.measure(Duration::from_millis(10), || attacking.is_finished());
        attacking.join().expect("the attack itself failed: its reason is above");
        during
    });
    let most = peak.bytes();
    eprintln!("{what}: alone {before}; meanwhile {during}; most memory {} MiB", most >> 20);
    assert!(during.p99 < P99_MAX, "{what}: {during}, alone {before}");
    assert!(most < MEMORY_MAX, "{what}: {most} bytes");
    assert_eq!(node.get("/healthz").status, 200, "{what}");
    assert!(!node.logged().contains("panicked"), "{what}");
}

fn mesh() -> Mesh {
    let mesh = Mesh::of(2);
    mesh.deploy(&calm_pipeline("calm"));
    // A first event bears each node's source log.
    for node in mesh.iter() {
        wait_for("the node takes an event", 30, || {
            (node.post("/v1/streams/calm/events", &[], "{\"k\":\"a\"}\n").status == 200).then_some(())
        });
    }
    mesh
}

#[test]
fn two_thousand_connections_that_say_nothing_or_nonsense_cost_little() {
    if !may_open(2 * CONNECTIONS as u64 + 500) {
        eprintln!("not checked: this user may not open {CONNECTIONS} connections (ulimit -n)");
        return;
    }
    let mesh = mesh();
    let node = &mesh[0];
    let (mesh_port, http_port) = (socket(&node.listen[0]), node.http.clone());
    for (what, port) in
        [("2,000 half-open connections to the mesh's port", &mesh_port), ("the same to HTTP", &http_port)]
    {
        beside(node, what, || {
            let mut open = Vec::new();
            for n in 0..CONNECTIONS {
                // A refusal is an answer, too.
                let Ok(mut stream) = TcpStream::connect(port) else { continue };
                let bytes: &[u8] = match n % 4 {
                    0 => b"",
                    1 => b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX-Slow: ",
                    2 => &[0xff; 700],
                    _ => b"\x13/multistream/1.0.0\n",
                };
                let _ = stream.write_all(bytes);
                open.push(stream);
            }
            // A byte now and then, as a slow-loris does.
            for _ in 0..10 {
                for stream in open.iter_mut().step_by(7) {
                    let _ = stream.write_all(b"a");
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
    }
    // They are gone by themselves, and a member that comes back is let in.
    drop(mesh);
    let mut mesh = self::mesh();
    let port = socket(&mesh[0].listen[0]);
    let held: Vec<TcpStream> = (0..CONNECTIONS).filter_map(|_| TcpStream::connect(&port).ok()).collect();
    mesh[1].kill();
    mesh[1].start();
    mesh.meet();
    wait_for("idle strangers are dropped", 60, || {
        let dropped = |mut stream: &TcpStream| {
            stream.set_nonblocking(true).unwrap();
            // Bytes that the node said before it closed are taken first.
            let mut bytes = [0; 1024];
            matches!(stream.read(&mut bytes), Ok(0))
                || stream.read(&mut bytes).is_err_and(|why| why.kind() == std::io::ErrorKind::ConnectionReset)
        };
        held.iter().all(dropped).then_some(())
    });
    wait_until_counted(&mesh[0], "connections_refused", 1);
}

#[test]
fn nobody_is_let_in_by_a_hello_that_is_not_his() {
    let mesh = mesh();
    let node = &mesh[0];
    let (address, token) = (node.listen[0].clone(), token(node));
    let failed = counter(node, "hellos_failed");
    runtime().block_on(async {
        // Before hello nothing else is served.
        let stranger = Stranger::new();
        let connection = stranger.connect(&address).await.unwrap();
        for protocol in [PEER, RPC, MODULE, "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"] {
            assert!(connection.open(protocol).await.is_err(), "{protocol}");
        }
        // And who says none is dropped.
        connection.closed().await;

        // Somebody else's words, word by word.
        let genuine = stranger.as_client(&token, node_id(node));
        let thief = Stranger::new();
        let refused = thief.connect(&address).await.unwrap().hello(&genuine).await.unwrap_err();
        assert!(refused.to_string().contains("not one of this mesh"), "{refused}");
        let member = stranger.join(&address, &token).await;
        let refused = thief.connect(&address).await.unwrap();
        let refused = refused.hello(&thief.as_member(member.clone())).await.unwrap_err();
        assert!(refused.to_string().contains("not genuine"), "{refused}");
        // His own, to another node than it was meant for.
        let elsewhere = stranger.connect(&mesh[1].listen[0]).await.unwrap();
        let refused = elsewhere.hello(&genuine).await.unwrap_err();
        assert!(refused.to_string().contains("not one of this mesh"), "{refused}");

        // Another wire version is a sentence, not a riddle.
        let future = Hello { versions: Versions { min: 7, max: 9 }, ..stranger.as_member(member.clone()) };
        let refused = stranger.connect(&address).await.unwrap().hello(&future).await.unwrap_err();
        assert!(
            refused.to_string().contains("no common wire version: one side speaks 1 to 1, the other 7 to 9"),
            "{refused}"
        );
        // And one that speaks ours among others is agreed with.
        let both = Hello { versions: Versions { min: 1, max: 9 }, ..stranger.as_member(member) };
        let connection = stranger.connect(&address).await.unwrap();
        assert_eq!(connection.hello(&both).await.unwrap().1.version, 1);

        // Bytes that are no hello: too long, cut off, noise, a frame of another framing.
        let whole = codec::encode(&genuine);
        let mut cases: Vec<Vec<u8>> = vec![
            [&[0xff, 0xff, 0xff, 0x7f, 1][..], &[0; 4000]].concat(),
            [&[0, 0, 0, 0, 1][..], &whole].concat(),
            [&(whole.len() as u32 + 1).to_le_bytes()[..], &[2], &whole].concat(),
            vec![b'x'; 3000],
        ];
        for cut in [1, whole.len() / 2, whole.len() - 1] {
            // The frame is whole; what is in it is not.
            cases.push([&(cut as u32 + 1).to_le_bytes()[..], &[1], &whole[..cut]].concat());
        }
        for bytes in cases {
            let connection = Stranger::new().connect(&address).await.unwrap();
            let mut stream = connection.open(HELLO).await.unwrap();
            // The node may have closed before the last byte.
            let _ = stream.write_all(&bytes).await;
            let _ = stream.flush().await;
            connection.closed().await;
        }
        // One that is told in single bytes and never ends.
        let connection = Stranger::new().connect(&address).await.unwrap();
        let mut stream = connection.open(HELLO).await.unwrap();
        let began = Instant::now();
        let slow = async {
            for byte in [100, 0, 0, 0, 1].into_iter().chain(std::iter::repeat(7)) {
                if stream.write_all(&[byte]).await.is_err() || stream.flush().await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        };
        in_time("a slow hello is given up", slow).await;
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    });
    wait_until_counted(node, "hellos_failed", failed + 12);
    // The joiner was one; nobody else is a member.
    let members = node.get("/v1/nodes").body.matches("\"node\"").count();
    assert!(members <= 2, "a hello alone makes no member of the catalog: {}", node.get("/v1/nodes").body);
}

fn node_id(node: &Node) -> NodeId {
    node.id.parse().unwrap()
}

#[test]
#[ignore = "not seen to pass on a busy machine yet: run with --ignored"]
fn a_clients_frames_are_refused_before_they_cost_anything() {
    let mesh = mesh();
    let node = &mesh[0];
    let (address, token) = (node.listen[0].clone(), token(node));
    let refused = counter(node, "frames_refused");
    beside(node, "a client's bad frames", || {
        runtime().block_on(async {
            let client = Stranger::new();
            let connection = client.connect(&address).await.unwrap();
            let (_hello, _) = connection.hello(&client.as_client(&token, node_id(node))).await.unwrap();
            // A client is no member.
            for protocol in [PEER, MODULE] {
                assert!(connection.open(protocol).await.is_err(), "{protocol}");
            }
            let call = codec::encode(&RpcIn::Call { id: 1, call: RpcCall::Request(Request::Status) });
            let mut bad: Vec<Vec<u8>> = vec![
                // Lengths that are lies: 4 GiB, 9 MiB, none.
                vec![0xff, 0xff, 0xff, 0xff, 1],
                [&(9_u32 << 20).to_le_bytes()[..], &[1]].concat(),
                vec![0, 0, 0, 0, 1],
                // Another framing, noise, bytes behind the value.
                [&(call.len() as u32 + 1).to_le_bytes()[..], &[9], &call].concat(),
                [&101_u32.to_le_bytes()[..], &[1], &[0xfe; 100]].concat(),
                [&(call.len() as u32 + 3).to_le_bytes()[..], &[1], &call, &[0, 0]].concat(),
            ];
            // A vector that says that it is 2^60 long.
            bad.push([&12_u32.to_le_bytes()[..], &[1], &[0, 1, 1, 253, 0, 0, 0, 0, 0, 0, 0]].concat());
            for bytes in &bad {
                let mut stream = connection.open(RPC).await.unwrap();
                stream.write_all(bytes).await.unwrap();
                stream.flush().await.unwrap();
                let mut rest = Vec::new();
                in_time("the substream is dropped", stream.read_to_end(&mut rest)).await.ok();
                assert!(rest.is_empty(), "{bytes:?}");
            }
            // Half a frame holds one substream, no more.
            let mut half = connection.open(RPC).await.unwrap();
            half.write_all(&[&(8_u32 << 20).to_le_bytes()[..], &[1], &[0; 1000]].concat()).await.unwrap();
            half.flush().await.unwrap();

            // Places in a stream that nobody ever gave out.
            let log: LogId = log_of(node, "events").parse().unwrap();
            let mut stream = connection.open(RPC).await.unwrap();
            let places = [0, 1, u64::MAX - 1, u64::MAX].into_iter().flat_map(|seq| {
                [0, 1, u64::MAX].into_iter().map(move |epoch| Position {
                    epoch: Epoch(epoch),
                    seq: Seq(seq),
                    hash: Hash([9; 16]),
                })
            });
            for (id, position) in (1..).zip(places) {
                let at = CursorAt { position, index: Some(u32::MAX) };
                let tail = Tail {
                    pipeline: "calm".parse().unwrap(),
                    stream: dunlin_protocol::pipeline::manifest::StreamName {
                        base: "events".parse().unwrap(),
                        side: None,
                    },
                    from: TailFrom::Cursor(Cursor(BTreeMap::from([(log, at)]))),
                    limit: Some(1),
                    follow: false,
                    credit: u64::MAX,
                };
                write(&mut stream, &RpcIn::Call { id, call: RpcCall::Request(Request::Tail(tail)) })
                    .await
                    .unwrap();
                loop {
                    match read::<RpcOut>(&mut stream).await.unwrap() {
                        RpcOut::Answer { last: true, .. } => break,
                        RpcOut::Answer { .. } | RpcOut::Module { .. } | RpcOut::Lines { .. } => {}
                    }
                }
            }
            // More taps than there is room for: refused, with a sentence.
            let mut stream = connection.open(RPC).await.unwrap();
            let mut busy = 0;
            for id in 1..=200 {
                let tail = Tail {
                    pipeline: "calm".parse().unwrap(),
                    stream: dunlin_protocol::pipeline::manifest::StreamName {
                        base: "events".parse().unwrap(),
                        side: None,
                    },
                    from: TailFrom::Now,
                    limit: None,
                    follow: true,
                    credit: 0,
                };
                write(&mut stream, &RpcIn::Call { id, call: RpcCall::Request(Request::Tail(tail)) })
                    .await
                    .unwrap();
            }
            let publish = Publish {
                pipeline: "calm".parse().unwrap(),
                source: "events".parse().unwrap(),
                producer: None,
                log: Some(LogId([1; 16])),
                events: vec![Event {
                    key: Bytes::new(),
                    time: Time(u64::MAX),
                    headers: vec![],
                    payload: Bytes::new(),
                }],
            };
            write(&mut stream, &RpcIn::Call { id: 300, call: RpcCall::Request(Request::Publish(publish)) })
                .await
                .unwrap();
            loop {
                match read::<RpcOut>(&mut stream).await.unwrap() {
                    RpcOut::Answer { id: 300, response, .. } => {
                        let Response::Failed(fault) = response else { panic!("{response:?}") };
                        assert!(fault.detail.contains("is not known in this mesh"), "{fault:?}");
                        break;
                    }
                    RpcOut::Answer { response: Response::Failed(_), .. } => busy += 1,
                    RpcOut::Answer { .. } | RpcOut::Module { .. } | RpcOut::Lines { .. } => {}
                }
            }
            assert_eq!(busy, 0, "200 taps are allowed");
        });
    });
    wait_until_counted(node, "frames_refused", refused + 6);
}

fn log_of(node: &Node, stage: &str) -> String {
    let shown = node.show("calm");
    let stages = shown["stages"].as_array().unwrap();
    let stage = stages.iter().find(|shown| shown["stage"] == stage).unwrap();
    let actors = stage["actors"].as_array().unwrap();
    let own = actors.iter().find(|actor| actor["node"] == node.id.as_str()).unwrap_or(&actors[0]);
    own["actor"].as_str().unwrap().to_string()
}

/// A member's link, whose messages are chosen here; what the node says is read and dropped.
struct Link {
    outgoing: futures::io::WriteHalf<libp2p::core::muxing::SubstreamBox>,
    _connection: crate::stranger::Connection,
}

impl Link {
    async fn of(member: &Stranger, address: &str, token: &Token) -> Link {
        let certificate = member.join(address, token).await;
        let connection = member.connect(address).await.unwrap();
        let (_hello, _) = connection.hello(&member.as_member(certificate)).await.unwrap();
        let stream = connection.open(PEER).await.unwrap();
        let (mut incoming, outgoing) = stream.split();
        tokio::spawn(async move {
            let mut bytes = vec![0; 64 << 10];
            while incoming.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
        });
        Link { outgoing, _connection: connection }
    }

    /// False once the node has dropped the link.
    async fn say(&mut self, messages: &[Message]) -> bool {
        let mut bytes = Vec::new();
        for message in messages {
            let (header, body) = dunlin_protocol::wire::frame::seal(message).unwrap();
            bytes.extend_from_slice(&header);
            bytes.extend_from_slice(&body);
        }
        self.outgoing.write_all(&bytes).await.is_ok() && self.outgoing.flush().await.is_ok()
    }
}

#[test]
#[ignore = "not seen to pass on a busy machine yet: run with --ignored"]
fn a_member_with_a_million_subscriptions_is_bounded() {
    let mesh = mesh();
    let node = &mesh[0];
    let (address, token) = (node.listen[0].clone(), token(node));
    let logs: Vec<LogId> =
        ["events", "calm"].iter().map(|stage| log_of(node, stage).parse().unwrap()).collect();
    beside(node, "a million subscriptions", || {
        runtime().block_on(async {
            let member = Stranger::smaller_than(node_id(node));
            let mut link = Link::of(&member, &address, &token).await;
            let mut edge = 0;
            while edge < SUBSCRIPTIONS {
                let messages: Vec<Message> = (0..1000)
                    .map(|_| {
                        edge += 1;
                        Message::Subscribe {
                            edge: EdgeId(edge),
                            log: logs[(edge % 2) as usize],
                            reader: None,
                            filter: Filter { outputs: vec![0], slots: SlotRange::ALL },
                            from: if edge % 3 == 0 { From::Start } else { From::Now },
                            committed: Position::START,
                            credit: 0,
                        }
                    })
                    .collect();
                assert!(link.say(&messages).await, "the link was dropped at {edge}");
            }
        });
    });
    wait_until_counted(node, "subscriptions_refused", SUBSCRIPTIONS / 2);
}

/// Numbers that arithmetic stumbles over.
fn awkward(chance: &mut Chance) -> u64 {
    match chance.below(6) {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3 => u64::MAX - chance.below(3),
        4 => 1 << chance.below(64),
        _ => chance.below(2000),
    }
}

struct Liar<'a> {
    chance: &'a mut Chance,
    logs: &'a [LogId],
    nodes: &'a [NodeId],
}

impl Liar<'_> {
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.chance.below(from.len() as u64) as usize]
    }

    fn position(&mut self) -> Position {
        let hash = if self.chance.below(2) == 0 { Hash::default() } else { Hash([3; 16]) };
        Position { epoch: Epoch(awkward(self.chance)), seq: Seq(awkward(self.chance)), hash }
    }

    fn edge(&mut self) -> EdgeId {
        EdgeId(if self.chance.below(3) == 0 { awkward(self.chance) } else { self.chance.below(60) })
    }

    fn record(&mut self) -> Record {
        let entry = CatalogEntry::SourceOpened {
            pipeline: "calm".parse().unwrap(),
            source: "events".parse().unwrap(),
            born: CatalogRef { node: self.nodes[0], seq: Seq(1) },
        };
        let body = Body::Catalog { entry, signature: Bytes::from_static(&[6; 64]) };
        let previous = Hash(if self.chance.below(2) == 0 { [0; 16] } else { [7; 16] });
        Record {
            epoch: Epoch(awkward(self.chance)),
            seq: Seq(awkward(self.chance)),
            previous,
            body: if self.chance.below(3) == 0 {
                Bytes::from_static(&[0xff; 40])
            } else {
                codec::encode(&body)
            },
        }
    }

    fn message(&mut self) -> Message {
        let (logs, nodes) = (self.logs.to_vec(), self.nodes.to_vec());
        match self.chance.below(15) {
            0 | 1 => Message::Subscribe {
                edge: self.edge(),
                log: self.pick(&logs),
                reader: if self.chance.below(2) == 0 { None } else { Some(self.pick(&logs)) },
                filter: Filter {
                    outputs: vec![0, u16::MAX],
                    slots: SlotRange { first: self.chance.next() as u16, end: self.chance.next() as u16 },
                },
                from: match self.chance.below(3) {
                    0 => From::Start,
                    1 => From::Now,
                    _ => From::After(self.position()),
                },
                committed: self.position(),
                credit: awkward(self.chance),
            },
            2 | 3 => Message::Credit {
                edge: self.edge(),
                total: awkward(self.chance),
                received: self.position(),
                committed: self.position(),
            },
            4 => Message::Unsubscribe { edge: self.edge() },
            5 => Message::Subscribed {
                edge: self.edge(),
                at: self.position(),
                head: Seq(awkward(self.chance)),
            },
            6 => {
                let event = Event {
                    key: Bytes::from_static(b"K1"),
                    time: Time(awkward(self.chance)),
                    headers: vec![],
                    payload: Bytes::from_static(b"not json"),
                };
                let slice = Slice {
                    position: self.position(),
                    events: vec![SliceEvent { index: u32::MAX, output: 0, event }],
                    mark: Some(Mark { watermark: Time(awkward(self.chance)), idle: false }),
                    closed: Some(self.pick(&logs)),
                };
                Message::Batch {
                    edge: self.edge(),
                    after: self.position(),
                    slices: vec![slice; self.chance.below(3) as usize],
                    head: Seq(awkward(self.chance)),
                }
            }
            7 => Message::FallBack { edge: self.edge(), to: self.position() },
            8 => Message::Refused {
                edge: self.edge(),
                why: Refusal::Gone { first: Seq(awkward(self.chance)) },
            },
            9 => Message::Ask {
                ask: AskId(awkward(self.chance)),
                question: match self.chance.below(3) {
                    0 => Question::Actors { pipeline: None },
                    1 => Question::State { log: self.pick(&logs), key: None, limit: u32::MAX },
                    _ => Question::DeadLetters {
                        pipeline: "calm".parse().unwrap(),
                        limit: u32::MAX,
                        letter: None,
                    },
                },
            },
            10 => Message::Answer { ask: AskId(self.chance.below(500)), reply: Reply::State(Vec::new()) },
            11 => {
                Message::WantModules { ask: AskId(awkward(self.chance)), digests: vec![Digest([1; 32]); 40] }
            }
            12 => Message::Modules { ask: AskId(self.chance.below(500)), missing: vec![] },
            13 => {
                let head = Head { seq: Seq(awkward(self.chance)), hash: Hash([1; 16]) };
                Message::CatalogHeads(BTreeMap::from([(self.pick(&nodes), head)]))
            }
            _ => {
                let records = (0..self.chance.below(3)).map(|_| self.record()).collect();
                Message::CatalogRecords { node: self.pick(&nodes), records }
            }
        }
    }
}

#[test]
fn a_member_that_lies_changes_nothing() {
    let mesh = mesh();
    let node = &mesh[0];
    let (address, token) = (node.listen[0].clone(), token(node));
    let logs: Vec<LogId> =
        ["events", "calm"].iter().map(|stage| log_of(node, stage).parse().unwrap()).collect();
    let revision = mesh.iter().map(|node| node.get("/v1/pipelines").body).collect::<Vec<_>>();
    beside(node, "a member that lies", || {
        let mut chance = Chance::new("lies");
        let member = Stranger::smaller_than(node_id(node));
        let nodes = [node_id(node), mesh[1].id.parse().unwrap(), NodeId([9; 32])];
        runtime().block_on(async {
            let mut link = Link::of(&member, &address, &token).await;
            for _ in 0..200 {
                let mut liar = Liar { chance: &mut chance, logs: &logs, nodes: &nodes };
                let messages: Vec<Message> = (0..100).map(|_| liar.message()).collect();
                if !link.say(&messages).await {
                    // The node may drop a link that takes too little or says too much; it comes again.
                    link = Link::of(&member, &address, &token).await;
                }
            }
        });
    });
    wait_until_counted(node, "catalog_refused", 1);
    assert_eq!(mesh.iter().map(|node| node.get("/v1/pipelines").body).collect::<Vec<_>>(), revision);
    assert_eq!(mesh[1].get("/healthz").status, 200);
}

#[test]
#[ignore = "not seen to pass on a busy machine yet: run with --ignored"]
fn gossip_spam_from_a_member_is_counted_and_nobody_is_thought_gone() {
    let mesh = mesh();
    let node = &mesh[0];
    let (address, token) = (node.listen[0].clone(), token(node));
    beside(node, "gossip spam", || {
        let mut chance = Chance::new("spam");
        runtime().block_on(async {
            let member = Stranger::smaller_than(node_id(node));
            let mut link = Link::of(&member, &address, &token).await;
            for round in 0..300 {
                let messages: Vec<Message> = (0..200)
                    .map(|_| {
                        let length = if round % 50 == 0 { 40_000 } else { chance.below(300) };
                        Message::Swim((0..length).map(|_| chance.next() as u8).collect())
                    })
                    .collect();
                if !link.say(&messages).await {
                    link = Link::of(&member, &address, &token).await;
                }
            }
        });
    });
    wait_until_counted(node, "swim_refused", 50_000);
    // The hostile member said hello, and no more: the two nodes see each other as ever.
    for (one, other) in [(0, 1), (1, 0)] {
        wait_for("the nodes see each other", 30, || {
            let nodes = mesh[one].cli(&["nodes", "--json"]).ok().lines();
            nodes
                .iter()
                .any(|line| line["node"] == mesh[other].id.as_str() && line["state"] == "alive")
                .then_some(())
        });
    }
}

/// What a proxy or a browser might send: the JSON door has its bounds, too.
#[test]
fn deeply_nested_and_oversized_requests_are_refused_with_a_sentence() {
    let mesh = mesh();
    let node = &mesh[0];
    let nested =
        |open: &str, close: &str, depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    let path = "/v1/streams/calm/events";
    let deep = nested("{\"k\":", "}", 100_000);
    let answer = node.post(path, &[], &deep);
    assert_eq!(number_of(&answer.body, "rejected"), 1, "{answer:?}");
    for (depth, what) in [(100_000, "arrays"), (1_000, "fewer")] {
        let line = format!("{{\"k\":\"a\",\"x\":{}}}", nested("[", "]", depth));
        let answer = node.post(path, &[], &line);
        assert_eq!(number_of(&answer.body, "rejected"), 1, "{what}: {answer:?}");
    }
    let answer = node.post(path, &[], &"x".repeat(20 << 20));
    assert_eq!(answer.status, 413, "{}", answer.body);
    let bodies = [
        nested("[", "]", 50_000),
        format!("name = \"x\"\nx = {}", nested("[", "]", 50_000)),
        format!("name = \"x\"\n[{}]", vec!["a"; 20_000].join(".")),
        format!("name = \"x\"\n[stage.s]\nfrom = [\"s\"]\nfilter = \"{}\"", nested("(", ")", 400)),
        "\u{0}".repeat(1000),
        String::new(),
    ];
    for body in bodies {
        for kind in ["application/json", "application/toml"] {
            let answer = dunlin_tests::request(
                "PUT",
                &node.http,
                "/v1/pipelines/x",
                Some(&node.bearer),
                &[("content-type", kind)],
                &body,
            );
            assert_eq!(answer.status, 400, "{kind} {:.40}: {answer:?}", body);
            assert!(answer.body.len() < 4000, "a short sentence: {}", answer.body);
        }
    }
    assert_eq!(node.get("/healthz").status, 200);
    assert!(!node.logged().contains("panicked"));
}

fn number_of(body: &str, field: &str) -> u64 {
    let value: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    match &value[field] {
        serde_json::Value::Array(list) => list.len() as u64,
        other => other.as_u64().unwrap_or(u64::MAX),
    }
}
