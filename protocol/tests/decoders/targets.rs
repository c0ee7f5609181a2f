//! The decoders, each by its name, and bytes to begin with.

use bytes::Bytes;
use dunlin_protocol::actor::fold::LogFold;
use dunlin_protocol::id::{Digest, Epoch, EventId, Hash, LogId, Name, NodeId, Position, Seq};
use dunlin_protocol::log::note::{Note, Noted};
use dunlin_protocol::log::record::Record;
use dunlin_protocol::log::scan::LogScan;
use dunlin_protocol::log::segment::{self, Header};
use dunlin_protocol::log::snapshot::{CHUNK_HEAD_BYTES, Decoder, Encoder, HEADER_BYTES, Piece};
use dunlin_protocol::mesh::catalog::CatalogEntry;
use dunlin_protocol::pipeline::manifest::Manifest;
use dunlin_protocol::rpc::Cursor;
use dunlin_protocol::rpc::frames::RpcIn;
use dunlin_protocol::time::Time;
use dunlin_protocol::wire::codec::{self, CodecError};
use dunlin_protocol::wire::frame;
use dunlin_protocol::wire::handshake::{Answer, Hello, MeshKey, Ready, Secret};
use dunlin_protocol::wire::message::{Broadcast, Message};
use dunlin_protocol::wire::parts;
use dunlin_protocol::wire::token::{Token, TokenId};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One decoder. `run` says whether the bytes were a value; it checks that they then come back.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]) -> bool,
}

pub const TARGETS: &[Target] = &[
    Target { name: "message", run: |bytes| parted(bytes, parts::message) },
    Target { name: "broadcast", run: coded::<Broadcast> },
    Target { name: "rpc-in", run: coded::<RpcIn> },
    Target { name: "rpc-out", run: |bytes| parted(bytes, parts::answer) },
    Target { name: "hello", run: coded::<Hello> },
    Target { name: "answer", run: coded::<Answer> },
    Target { name: "ready", run: coded::<Ready> },
    Target { name: "record", run: coded::<Record> },
    Target { name: "body", run: |bytes| parted(bytes, parts::body) },
    Target { name: "fact", run: coded::<CatalogEntry> },
    Target { name: "fold", run: coded::<LogFold> },
    Target { name: "cursor", run: coded::<Cursor> },
    Target { name: "frame", run: framed },
    Target { name: "segment", run: scanned },
    Target { name: "note", run: noted },
    Target { name: "snapshot", run: snapshot },
    Target { name: "token", run: token },
    Target { name: "ids", run: ids },
    Target { name: "manifest-toml", run: toml },
    Target { name: "manifest-json", run: json },
];

const LOG: LogId = LogId([0xcc; 16]);

fn coded<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> bool {
    let Ok(value) = codec::decode::<T>(bytes) else { return false };
    let again = codec::encode(&value);
    assert_eq!(codec::decode::<T>(&again).as_ref(), Ok(&value));
    true
}

/// The same for what is also decoded as parts of the bytes: both say the same.
fn parted<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    parts: fn(&Bytes) -> Result<T, CodecError>,
) -> bool {
    assert_eq!(parts(&Bytes::copy_from_slice(bytes)).ok(), codec::decode::<T>(bytes).ok());
    coded::<T>(bytes)
}

fn framed(bytes: &[u8]) -> bool {
    let Some((header, body)) = bytes.split_first_chunk() else { return false };
    match frame::body_bytes(*header, usize::MAX) {
        Ok(length) => body.get(..length).is_some_and(|body| frame::open::<Message>(body).is_ok()),
        Err(_) => false,
    }
}

/// The first bytes are the note, the rest is a segment.
fn scanned(bytes: &[u8]) -> bool {
    let header = Header::decode(bytes).is_ok();
    let _ = segment::verify(LOG, bytes);
    let _ = segment::body_length(LOG, bytes);
    let mut valid = false;
    for noted in [Noted::Unreadable, Noted::Known(Note::new(LOG))] {
        let mut scan =
            LogScan::new(LOG, noted, Position::START, dunlin_protocol::log::floor::decode(LOG, bytes));
        let mut records = 0;
        for first in [Seq(1), Seq(2), Seq(u64::MAX)] {
            scan.segment(first, bytes, &mut |framed| {
                records += 1;
                let record = framed.record();
                let _ = record.decode();
                assert_eq!(record.position(), framed.position);
            });
        }
        let scanned = scan.finish();
        assert!(scanned.damage.is_some() || scanned.head.seq.0 < u64::MAX);
        valid |= records > 0;
    }
    valid && header
}

fn noted(bytes: &[u8]) -> bool {
    match Note::read(LOG, bytes) {
        Noted::Known(note) => {
            let (at, slot) = note.encode();
            let at = usize::try_from(at).unwrap();
            assert_eq!(bytes[at..at + slot.len()], slot);
            true
        }
        Noted::Unreadable => false,
    }
}

fn snapshot(bytes: &[u8]) -> bool {
    let Ok(mut decoder) = Decoder::new(bytes) else { return false };
    let mut rest = bytes.get(HEADER_BYTES..).unwrap_or_default();
    loop {
        let Ok(head) = decoder.head(rest) else { return false };
        let end = CHUNK_HEAD_BYTES + head.payload_bytes();
        let Some(payload) = rest.get(CHUNK_HEAD_BYTES..end) else { return false };
        match decoder.chunk(&head, payload) {
            Ok(Piece::End) => return true,
            Ok(Piece::Fold(_) | Piece::Entries(_)) => rest = &rest[end..],
            Err(_) => return false,
        }
    }
}

fn token(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    match Token::decode(&text) {
        Ok(token) => {
            assert_eq!(Token::decode(&token.to_text()), Ok(token));
            true
        }
        Err(_) => false,
    }
}

fn ids(bytes: &[u8]) -> bool {
    fn back<T: std::str::FromStr + ToString + PartialEq + std::fmt::Debug>(text: &str) -> bool {
        let Ok(value) = text.parse::<T>() else { return false };
        let again = value.to_string().parse::<T>();
        assert!(again.is_ok_and(|again| again == value), "{text}");
        true
    }
    let text = String::from_utf8_lossy(bytes);
    let known = [
        back::<NodeId>(&text),
        back::<LogId>(&text),
        back::<Digest>(&text),
        back::<Hash>(&text),
        back::<EventId>(&text),
        back::<Name>(&text),
    ];
    let _ = Time::parse(&text);
    known.contains(&true)
}

fn toml(bytes: &[u8]) -> bool {
    manifest(Manifest::from_toml(&String::from_utf8_lossy(bytes), "p.toml").ok())
}

fn json(bytes: &[u8]) -> bool {
    manifest(Manifest::from_json(&String::from_utf8_lossy(bytes)).ok())
}

fn manifest(manifest: Option<Manifest>) -> bool {
    let Some(manifest) = manifest else { return false };
    assert_eq!(codec::decode::<Manifest>(&codec::encode(&manifest)).as_ref(), Ok(&manifest));
    true
}

const GOLDEN: [&str; 4] = [
    include_str!("../../src/wire/snapshots/dunlin_protocol__wire__golden__messages.snap"),
    include_str!("../../src/wire/snapshots/dunlin_protocol__wire__golden__records.snap"),
    include_str!("../../src/wire/snapshots/dunlin_protocol__wire__golden__rpc.snap"),
    include_str!("../../src/wire/snapshots/dunlin_protocol__wire__golden__hello.snap"),
];

/// All golden bytes: `name: 00 11 22 …` a line.
fn golden() -> Vec<Vec<u8>> {
    let byte = |text: &str| u8::from_str_radix(text, 16).ok();
    let line = |line: &str| -> Option<Vec<u8>> {
        let bytes: Option<Vec<u8>> = line.split_once(": ")?.1.split(' ').map(byte).collect();
        bytes.filter(|bytes| !bytes.is_empty())
    };
    GOLDEN.iter().flat_map(|snap| snap.lines()).filter_map(line).collect()
}

fn segment_of(bodies: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Header { log: LOG, after: Position::START }.encode().to_vec();
    let mut head = Position::START;
    for body in bodies {
        let record = Record::new(Epoch(1), head.seq.next(), head.hash, body.to_vec().into());
        head = segment::encode_group(LOG, head, &[record], &mut bytes).unwrap();
    }
    bytes
}

/// Bytes that the target takes, to be mutated.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let mut seeds = golden();
    match target {
        // Its only value has no bytes.
        "ready" => seeds.push(Vec::new()),
        "body" => {
            let records = seeds.iter().filter_map(|bytes| codec::decode::<Record>(bytes).ok());
            seeds = records.map(|record| record.body.to_vec()).collect();
        }
        "frame" => {
            for bytes in &mut seeds {
                let header = frame::header(bytes.len()).unwrap();
                bytes.splice(0..0, header);
            }
        }
        "segment" => {
            let bodies = golden();
            let parts: Vec<&[u8]> = bodies.iter().take(6).map(Vec::as_slice).collect();
            seeds = vec![segment_of(&[]), segment_of(&parts[..1]), segment_of(&parts)];
        }
        "note" => {
            let first = Note::new(LOG).next(Seq(1), 500, Position { seq: Seq(5), ..Position::START });
            let mut file = vec![0; 512 + 104];
            for note in [first, first.next(Seq(6), 900, Position { seq: Seq(9), ..Position::START })] {
                let (at, slot) = note.encode();
                file[at as usize..at as usize + slot.len()].copy_from_slice(&slot);
            }
            seeds = vec![file];
        }
        "snapshot" => {
            let mut file = Vec::new();
            let mut encoder = Encoder::new(LOG, Position { seq: Seq(9), ..Position::START }, &mut file);
            encoder.fold(&[1; 90], &mut file);
            for key in 0..20_u8 {
                encoder.entry(&[key], &[key; 9], &mut file).unwrap();
            }
            encoder.finish(&mut file);
            seeds = vec![file];
        }
        "token" => {
            let key = MeshKey::from_secret(Secret([5; 32]));
            let token = key.token(
                TokenId([1; 8]),
                Time(1_000),
                vec!["/ip4/127.0.0.1/tcp/4001".into()],
                &Default::default(),
            );
            seeds = vec![token.to_text().into_bytes()];
        }
        "ids" => {
            let event = EventId { log: LOG, epoch: Epoch(1), seq: Seq(9), index: 2 };
            let node = NodeId::from_peer_id_bytes(&NodeId([0xaa; 32]).peer_id_bytes()).unwrap();
            let texts = [event.to_string(), node.to_string(), Digest([1; 32]).to_string(), "a-name".into()];
            seeds = texts.into_iter().map(String::into_bytes).collect();
        }
        "manifest-toml" => {
            seeds = [
                include_str!("../../../examples/pipelines/fare-watch.toml"),
                include_str!("../../../examples/pipelines/flight-counts.toml"),
                include_str!("../../../examples/pipelines/host-watch.toml"),
            ]
            .map(|text| text.as_bytes().to_vec())
            .to_vec();
        }
        "manifest-json" => {
            let text = r#"{"name":"a","durability":"page","retention":{"age":"7d","bytes":"1MiB"},
                "source":{"events":{"key":"k"}},
                "stage":{"odd":{"from":["events"],"filter":"event.n % 2 == 1"},
                         "far":{"from":["odd"],"key":"k","learn":{"target":"n","after":"1h","features":["n"]}}},
                "sink":{"out":{"from":["odd"],"file":{"path":"out.jsonl"}}},
                "placement":{"far":{"shares":4,"labels":{"n":"1"}}}}"#;
            seeds = vec![text.as_bytes().to_vec()];
        }
        "fold" => {
            use dunlin_protocol::actor::fold::{ActorMemory, FOLD_VERSION, Memory, SourceMemory};
            let fold = |memory| LogFold { version: FOLD_VERSION, epochs: Vec::new(), memory };
            seeds.push(codec::encode(&fold(Memory::Actor(ActorMemory::default()))).to_vec());
            seeds.push(codec::encode(&fold(Memory::Source(SourceMemory::default()))).to_vec());
        }
        "fact" => {
            let entry = CatalogEntry::SourceOpened {
                pipeline: "calm".parse().unwrap(),
                source: "events".parse().unwrap(),
                born: dunlin_protocol::mesh::catalog::CatalogRef { node: NodeId([1; 32]), seq: Seq(3) },
            };
            seeds.push(codec::encode(&entry).to_vec());
        }
        "cursor" => seeds.push(codec::encode(&Cursor::default()).to_vec()),
        _ => {}
    }
    seeds
}
