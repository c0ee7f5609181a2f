//! Golden bytes: what stands on a wire or a disk, pinned. And: no bytes make a decoder panic.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write;

use bytes::Bytes;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::event::Event;
use crate::id::{Digest, Epoch, EventId, Hash, LetterId, LogId, NodeId, Position, Seq, TopicId};
use crate::log::record::{
    Advance, Append, Body, Change, Commit, DeadLetter, Emitted, EpochStart, Inherit, Observed, Parked,
    ParkedId, Produced, Record, Replayed, TimerChange,
};
use crate::pipeline::plan::SlotRange;
use crate::rpc::frames::{RpcCall, RpcIn, RpcOut};
use crate::rpc::tailed::{Run, Tailed};
use crate::rpc::{Cursor, Fault, FaultKind, Question, Reply, Request, Response, Tail, TailFrom};
use crate::time::Time;
use crate::wire::frame::{self, HEADER_BYTES};
use crate::wire::handshake::{
    Admission, Answer, Certificate, Hello, HelloKind, MeshKey, Pass, Ready, Refusal, Secret, VERSIONS,
    Welcome,
};
use crate::wire::message::{
    AskId, Broadcast, EdgeId, Filter, From, Head, Mark, Message, Refusal as EdgeRefusal, Slice, SliceEvent,
};
use crate::wire::token::{Token, TokenId};
use crate::wire::{codec, parts, token::TokenError};

const NODE: NodeId = NodeId([0xaa; 32]);
const OTHER: NodeId = NodeId([0xbb; 32]);
const LOG: LogId = LogId([0xcc; 16]);
const AT: Position = Position { epoch: Epoch(1), seq: Seq(300), hash: Hash([0xdd; 16]) };

/// Lines of `name: hex`; each value must also come back from its bytes.
struct Golden(String);

impl Golden {
    #[track_caller]
    fn add<T: Serialize + DeserializeOwned + PartialEq + core::fmt::Debug>(&mut self, name: &str, value: &T) {
        let bytes = codec::encode(value);
        assert_eq!(&codec::decode::<T>(&bytes).unwrap(), value);
        both_ways(&bytes);
        write!(self.0, "{name}:").unwrap();
        bytes.iter().for_each(|byte| write!(self.0, " {byte:02x}").unwrap());
        self.0.push('\n');
    }
}

fn event() -> Event {
    Event {
        key: Bytes::from_static(b"LH1"),
        time: Time(1_551_525_014_000),
        headers: vec![("type".to_string(), Bytes::from_static(b"fare"))],
        payload: Bytes::from_static(b"{\"p\":1}"),
    }
}

fn id() -> EventId {
    EventId { log: LOG, epoch: Epoch(1), seq: Seq(9), index: 2 }
}

#[test]
fn messages_keep_their_bytes() {
    let mut golden = Golden(String::new());
    let edge = EdgeId(7);
    let ask = AskId(8);
    let digest = Digest([0xee; 32]);
    let slots = SlotRange::ALL;
    let heads = BTreeMap::from([(NODE, Head { seq: Seq(4), hash: Hash([5; 16]) })]);
    let slice = Slice {
        position: AT,
        events: vec![SliceEvent { index: 2, output: 1, event: event() }],
        mark: Some(Mark { watermark: Time(4), idle: false }),
        closed: None,
    };
    let body = Body::EpochStart(EpochStart { writer: NODE, keepers: vec![NODE], at: Time(3) });
    let records = vec![Record::after(Position::START, Epoch(1), &body)];
    for (name, message) in [
        ("swim", Message::Swim(Bytes::from_static(b"xyz"))),
        ("catalog heads", Message::CatalogHeads(heads)),
        ("catalog records", Message::CatalogRecords { node: NODE, records }),
        (
            "subscribe",
            Message::Subscribe {
                edge,
                log: LOG,
                reader: Some(LOG),
                filter: Filter { outputs: vec![0, 2], slots },
                from: From::After(AT),
                committed: Position::START,
                credit: 1 << 20,
            },
        ),
        ("credit", Message::Credit { edge, total: 70_000, received: AT, committed: Position::START }),
        ("unsubscribe", Message::Unsubscribe { edge }),
        (
            "batch",
            Message::Batch {
                edge,
                after: Position::START,
                slices: vec![slice.clone()],
                head: Seq(11),
                behind: 12,
            },
        ),
        ("subscribed", Message::Subscribed { edge, at: AT, head: Seq(11), behind: 12 }),
        ("fall back", Message::FallBack { edge, to: AT }),
        ("refused", Message::Refused { edge, why: EdgeRefusal::Gone { first: Seq(6) } }),
        ("ask", Message::Ask { ask, question: Question::Actors { pipeline: None } }),
        ("answer", Message::Answer { ask, reply: Reply::Actors(vec![]) }),
        ("want modules", Message::WantModules { ask, digests: vec![digest] }),
        ("modules", Message::Modules { ask, missing: vec![(digest, "gone".to_string())] }),
        ("offer", Message::Offer { log: LOG, outputs: vec![1] }),
        ("in topic", Message::InTopic { topic: TopicId::of(&LOG, &[1]) }),
        ("out of topic", Message::OutOfTopic { topic: TopicId::of(&LOG, &[1]) }),
        ("by gossip", Message::ByGossip { edge, at: AT }),
    ] {
        golden.add(name, &message);
    }
    golden.add("broadcast", &Broadcast { after: Position::START, slices: vec![slice], head: Seq(11) });
    insta::assert_snapshot!("messages", golden.0);
}

#[test]
fn records_keep_their_bytes() {
    let mut golden = Golden(String::new());
    let letter = LetterId { actor: LOG, number: 3 };
    let commit = Commit {
        frontier: vec![Advance { log: LOG, to: AT, watermark: Time(1), idle: true }],
        state: vec![
            Change { key: Bytes::from_static(b"k"), value: Some(Bytes::from_static(b"v")) },
            Change { key: Bytes::from_static(b"gone"), value: None },
        ],
        emitted: vec![Emitted { output: 1, event: event() }],
        timers: vec![TimerChange {
            key: Bytes::from_static(b"k"),
            name: "t".to_string(),
            due: Some(Time(9)),
        }],
        watermark: Time(2),
        idle: false,
        parked: vec![Parked {
            id: id(),
            input: 0,
            event: event(),
            attempts: 1,
            due: Time(5),
            reason: "trap".to_string(),
            replayed: Some(Replayed { letter, stage: "clean".to_string(), step: Some(1) }),
        }],
        unparked: vec![ParkedId { event: id(), replayed: Some(letter) }],
        dead: vec![DeadLetter {
            id: letter,
            cause: id(),
            input: 0,
            event: event(),
            stage: "clean".to_string(),
            step: None,
            attempts: 5,
            reason: "trap".to_string(),
            at: Time(6),
        }],
        undead: vec![letter],
        observed: vec![Observed::Now(Time(3)), Observed::Random(4)],
        events_in: 3,
        at: Time(7),
    };
    let append = Append {
        producer: Some(Produced { producer: "p".parse().unwrap(), first: 1, last: 2 }),
        events: vec![event()],
        watermark: Time(1),
        idle: false,
        at: Time(2),
    };
    let inherit =
        Inherit { from: LOG, closed_at: AT, fold: Bytes::from_static(b"fold"), revision: Digest([0xee; 32]) };
    for (name, body) in [
        (
            "epoch start",
            Body::EpochStart(EpochStart { writer: NODE, keepers: vec![NODE, OTHER], at: Time(3) }),
        ),
        ("append", Body::Append(append)),
        ("commit", Body::Commit(commit)),
        ("close", Body::Close { successor: LOG }),
        ("inherit", Body::Inherit(inherit)),
    ] {
        golden.add(name, &Record::after(AT, Epoch(2), &body));
    }
    insta::assert_snapshot!("records", golden.0);
}

#[test]
fn hello_keeps_its_bytes() {
    let mut golden = Golden(String::new());
    let mesh = MeshKey::from_secret(Secret([1; 32]));
    let token = mesh.token(
        TokenId([2; 8]),
        Time(1_000),
        vec!["/ip4/10.0.0.1/tcp/4001".to_string()],
        &Default::default(),
    );
    let certificate = mesh.certify(NODE, Time(77));
    let said = |kind| Hello { versions: VERSIONS, incarnation: 6, kind };
    let pass = Pass::new(&token, NODE, OTHER, [3; 16]);
    golden.add("certificate", &certificate);
    golden.add("hello of a member", &said(HelloKind::Member { certificate: certificate.clone() }));
    golden.add("hello of a joiner", &said(HelloKind::Joiner(pass)));
    golden.add("hello of a client", &said(HelloKind::Client(pass)));
    let admission = Admission { certificate: certificate.clone(), mesh_secret: mesh.secret() };
    let welcome = Welcome { version: 1, incarnation: 6, certificate, admission: Some(admission) };
    golden.add("welcome", &Answer::Welcome(welcome));
    golden.add("refused", &Answer::Refused { why: Refusal::WrongToken.to_string() });
    golden.add("ready", &Ready);
    golden.0.push_str(&token.to_text());
    insta::assert_snapshot!("hello", golden.0);
}

#[test]
fn rpc_keeps_its_bytes() {
    let mut golden = Golden(String::new());
    let id = 5;
    let digest = Digest([0xee; 32]);
    let tail = Tail {
        pipeline: "p".parse().unwrap(),
        stream: crate::pipeline::manifest::StreamName { base: "s".parse().unwrap(), side: None },
        from: TailFrom::Start,
        limit: Some(3),
        follow: true,
        credit: 1000,
    };
    golden.add("status", &RpcIn::Call { id, call: RpcCall::Request(Request::Status) });
    golden.add("tail", &RpcIn::Call { id, call: RpcCall::Request(Request::Tail(tail)) });
    golden.add("put module", &RpcIn::Call { id, call: RpcCall::PutModule(Bytes::from_static(b"\0asm")) });
    golden.add("has module", &RpcIn::Call { id, call: RpcCall::HasModule(digest) });
    golden.add("piece", &RpcIn::Piece { id, bytes: Bytes::from_static(b"\0asm") });
    golden.add("credit", &RpcIn::Credit { id, bytes: 9 });
    golden.add("cancel", &RpcIn::Cancel { id });
    let fault = Fault { kind: FaultKind::Busy { retry_after_ms: 20 }, detail: "busy".to_string() };
    golden.add("failed", &RpcOut::Answer { id, response: Response::Failed(fault), last: true });
    golden.add("module", &RpcOut::Module { id, digest, held: true });
    insta::assert_snapshot!("rpc", golden.0);
}

/// Decoded as parts of the bytes, they say what they say when they are copied.
fn both_ways(bytes: &[u8]) {
    let shared = Bytes::copy_from_slice(bytes);
    assert_eq!(parts::message(&shared).ok(), codec::decode::<Message>(bytes).ok());
    assert_eq!(parts::body(&shared).ok(), codec::decode::<Body>(bytes).ok());
    assert_eq!(parts::answer(&shared).ok(), codec::decode::<RpcOut>(bytes).ok());
}

/// Whether `part` lies within `whole`.
fn lies_within(part: &[u8], whole: &[u8]) -> bool {
    let (whole, part) = (whole.as_ptr_range(), part.as_ptr_range());
    whole.start <= part.start && part.end <= whole.end
}

#[test]
fn events_are_parts_of_the_bytes_that_they_came_in() {
    let slice_event = SliceEvent { index: 0, output: 0, event: event() };
    let slice = Slice { position: AT, events: vec![slice_event], mark: None, closed: None };
    let batch = Message::Batch { edge: EdgeId(7), after: AT, slices: vec![slice], head: Seq(1), behind: 0 };
    let frame = codec::encode(&batch);
    let Ok(Message::Batch { slices, .. }) = parts::message(&frame) else { panic!("a batch") };
    let in_batch = slices[0].events[0].event.clone();
    assert!(lies_within(&in_batch.payload, &frame) && lies_within(&in_batch.key, &frame));
    assert!(!lies_within(&in_batch.detached().payload, &frame));
    assert_eq!(in_batch.detached(), event());

    let frame = codec::encode(&Body::Append(Append { events: vec![event()], ..Append::default() }));
    let Ok(Body::Append(append)) = parts::body(&frame) else { panic!("an append") };
    assert!(lies_within(&append.events[0].payload, &frame));

    let emitted = vec![Emitted { output: 1, event: event() }];
    let state = vec![Change { key: Bytes::from_static(b"k"), value: Some(Bytes::from_static(b"v")) }];
    let frame = codec::encode(&Body::Commit(Commit { emitted, state, ..Commit::default() }));
    let Ok(Body::Commit(commit)) = parts::body(&frame) else { panic!("a commit") };
    assert!(lies_within(&commit.emitted[0].event.payload, &frame));
    assert!(lies_within(&commit.state[0].key, &frame));

    let run = Run { log: LOG, position: AT, events: [(3, event())].into_iter().collect() };
    let events = Tailed { before: Cursor::default(), runs: vec![run] };
    let frame = codec::encode(&RpcOut::Answer { id: 300, response: Response::Events { events }, last: true });
    let Ok(RpcOut::Answer { response: Response::Events { events }, .. }) = parts::answer(&frame) else {
        panic!("events")
    };
    assert!(events.events().all(|event| lies_within(&event.payload, &frame)));
}

fn every_decoder(bytes: &[u8]) {
    both_ways(bytes);
    let _ = codec::decode::<Message>(bytes);
    let _ = codec::decode::<Record>(bytes);
    let _ = codec::decode::<Body>(bytes);
    let _ = codec::decode::<Hello>(bytes);
    let _ = codec::decode::<Answer>(bytes);
    let _ = codec::decode::<Certificate>(bytes).map(|c| c.check(c.mesh, c.node));
    let _ = codec::decode::<Token>(bytes);
    let _ = codec::decode::<RpcIn>(bytes);
    let _ = codec::decode::<RpcOut>(bytes);
    if let Some(header) = bytes.first_chunk::<HEADER_BYTES>() {
        let _ = frame::body_bytes(*header, usize::MAX);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        every_decoder(&bytes);
    }

    /// Small first numbers reach deep into the enums, where plain noise seldom comes.
    #[test]
    fn nor_do_bytes_that_look_right(
        kind in 0u8..16,
        bytes in proptest::collection::vec(prop_oneof![0u8..8, any::<u8>()], 0..256),
    ) {
        let mut all: Vec<u8> = vec![kind];
        all.extend(bytes);
        every_decoder(&all);
    }

    #[test]
    fn no_text_makes_the_token_parser_panic(text in "\\PC{0,80}", tail in "[1-9A-HJ-NP-Za-km-z]{0,120}") {
        let _ = Token::decode(&text);
        let decoded = Token::decode(&alloc::format!("dunlin1{tail}"));
        prop_assert!(matches!(decoded, Err(TokenError::Malformed(_) | TokenError::Checksum)));
    }
}

#[test]
fn facts_about_members_keep_their_bytes() {
    use crate::mesh::catalog::{CatalogEntry, Removal};
    use crate::mesh::roll::Rotation;
    use crate::pipeline::plan::{Role, UnitId};
    let mut golden = Golden(String::new());
    let rotation = Rotation { before: 1, salt: [7; 32] };
    let members = [NODE, OTHER].into();
    golden.add("tokens rotated", &CatalogEntry::TokensRotated { rotation, members });
    golden.add("admitted", &CatalogEntry::Admitted { node: OTHER });
    let unit = UnitId { role: Role::Stage, name: "s".parse().unwrap() };
    let homes = BTreeMap::from([("p".parse().unwrap(), BTreeMap::from([(unit, vec![NODE])]))]);
    let removal = Removal { homes, others: vec![NODE] };
    golden.add("node removed", &CatalogEntry::NodeRemoved { node: OTHER, removal });
    insta::assert_snapshot!("facts", golden.0);
}
