//! Members that lie: whatever one of them says is refused or bounded, all of it is counted, and the
//! data path does not notice.

use std::collections::BTreeMap;

use bytes::Bytes;
use dunlin_protocol::event::Event;
use dunlin_protocol::id::{Digest, Epoch, Hash, LogId, NodeId, Position, Seq, TopicId};
use dunlin_protocol::log::record::{Body, Record};
use dunlin_protocol::mesh::catalog::{CatalogEntry, CatalogRef};
use dunlin_protocol::pipeline::plan::SlotRange;
use dunlin_protocol::rpc::{Question, Reply};
use dunlin_protocol::time::Time;
use dunlin_protocol::wire::codec;
use dunlin_protocol::wire::message::{
    AskId, Broadcast, EdgeId, Filter, From, Head, Mark, Message, Refusal, Slice, SliceEvent,
};
use dunlin_protocol::wire::token::Token;
use dunlin_tests::{Mesh, wait_for};
use futures::{AsyncReadExt, AsyncWriteExt};

use crate::beside::{beside, log_of, mesh, node_id, runtime, token, wait_until_counted};
use crate::chance::Chance;
use crate::counting::number;
use crate::latency::calm_pipeline;
use crate::stranger::{GOSSIP, PEER, Stranger, gossip_subscription};

const SUBSCRIPTIONS: u64 = 1_000_000;

/// A member's link, whose messages are chosen here; what the node says is read and dropped.
struct Link {
    outgoing: futures::io::WriteHalf<libp2p::core::muxing::SubstreamBox>,
    connection: crate::stranger::Connection,
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
        Link { outgoing, connection }
    }

    /// False once the node has dropped the link.
    async fn say(&mut self, messages: &[Message]) -> bool {
        let mut bytes = Vec::new();
        for message in messages {
            dunlin_protocol::wire::frame::seal(message, &mut bytes).unwrap();
        }
        self.outgoing.write_all(&bytes).await.is_ok() && self.outgoing.flush().await.is_ok()
    }
}

#[test]
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
        let (epoch, seq) = (Epoch(awkward(self.chance)), Seq(awkward(self.chance)));
        let body = match self.chance.below(3) {
            0 => Bytes::from_static(&[0xff; 40]),
            _ => codec::encode(&body),
        };
        Record::new(epoch, seq, previous, body)
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
                behind: awkward(self.chance),
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
                    behind: awkward(self.chance),
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

/// The second node's source log goes to the first one by gossip, where a third member says what it likes.
#[test]
fn gossip_that_is_not_its_writers_is_refused_and_counted() {
    const FORGED: u64 = 3_000;
    const EVENTS: u64 = 300;
    let mesh = Mesh::with_settings(2, "gossip_from = 1\n");
    mesh.deploy(&calm_pipeline("calm"));
    let (node, writer) = (&mesh[0], &mesh[1]);
    for node in [node, writer] {
        wait_for("the node takes an event", 30, || {
            (node.post("/v1/streams/calm/events", &[], "{\"k\":\"a\"}\n").status == 200).then_some(())
        });
    }
    let log: LogId = log_of(writer, "events").parse().unwrap();
    let topic = TopicId::of(&log, &[0]).to_string();
    let _tap = node.cli_started(&["tail", "calm/events", "--from", "start", "--follow", "--json"], b"");
    wait_for("the stream goes by gossip", 60, || {
        let shown = writer.show("calm");
        let stage = shown["stages"].as_array()?.iter().find(|stage| stage["stage"] == "events")?.clone();
        (stage["fan_out"] == "gossip").then_some(())
    });
    let (address, token) = (node.listen[0].clone(), token(node));
    beside(node, "forged gossip", || {
        let mut chance = Chance::new("forged gossip");
        let forged = Broadcast { after: Position::START, slices: Vec::new(), head: Seq(u64::MAX) };
        let forged = codec::encode(&forged);
        runtime().block_on(async {
            let client = Stranger::new();
            let connection = client.connect(&address).await.unwrap();
            connection.hello(&client.as_client(&token, node_id(node))).await.unwrap();
            assert!(connection.open(GOSSIP).await.is_err(), "gossip is for members");

            let member = Stranger::smaller_than(node_id(node));
            let mut link = Link::of(&member, &address, &token).await;
            let mut stream = link.connection.open(GOSSIP).await.unwrap();
            for number in 0..FORGED {
                // Its own signature under the writer's name, or honestly its own; now and then noise.
                let author = if number % 3 == 0 { node_id(writer) } else { member.id };
                let mut bytes = member.gossip(&author, &topic, &forged, number);
                if number % 7 == 0 {
                    bytes.extend(gossip_subscription(&format!("topic {number}")));
                }
                if number % 1_000 == 999 {
                    bytes.extend((0..200).map(|_| chance.next() as u8));
                }
                let said = stream.write_all(&bytes).await.is_ok() && stream.flush().await.is_ok();
                if !said {
                    // It is heard no more on this connection.
                    link = Link::of(&member, &address, &token).await;
                    stream = link.connection.open(GOSSIP).await.unwrap();
                }
            }
        });
    });
    // What was said behind noise is lost with its substream, and a wrong signature is not even ours to count.
    wait_until_counted(node, "broadcasts_refused", FORGED / 5);
    let lines: String = (0..EVENTS).map(|n| format!("{{\"k\":\"genuine\",\"n\":{n}}}\n")).collect();
    assert_eq!(writer.post("/v1/streams/calm/events", &[], &lines).status, 200);
    wait_until_counted(node, "broadcasts_in", 1);
    let shown = node.tail("calm/events").into_iter().filter(|event| event["payload"]["k"] == "genuine");
    let shown: Vec<u64> = shown.map(|event| number(&event["payload"]["n"])).collect();
    assert_eq!(shown, (0..EVENTS).collect::<Vec<u64>>());
}
