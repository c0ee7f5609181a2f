//! The hot parts of the core: `Peer::handle` by input, the codec, the log. 1000 events of 128 bytes each.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark says what is wrong by a panic")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dunlin_protocol::effect::{Effect, Effects, Input, RequestId};
use dunlin_protocol::event::Event;
use dunlin_protocol::id::{Epoch, NodeId, Position, Seq};
use dunlin_protocol::log::record::{Append, Body};
use dunlin_protocol::log::writer::Log;
use dunlin_protocol::mesh::catalog::{LogName, NodeFacts};
use dunlin_protocol::peer::{GossipBounds, Peer, PeerConfig, TapBounds};
use dunlin_protocol::pipeline::manifest::{Durability, Manifest, Retention, StreamName};
use dunlin_protocol::rpc::{Publish, Request, Tail, TailFrom};
use dunlin_protocol::time::Time;
use dunlin_protocol::wire::codec;
use dunlin_protocol::wire::message::{EdgeId, Message, Slice, SliceEvent};

const EVENTS: u32 = 1000;
const NOW: Time = Time(1_000_000);

fn events() -> Vec<Event> {
    let event = |n: u32| Event {
        key: Bytes::from(n.to_string()),
        time: NOW,
        headers: Vec::new(),
        payload: Bytes::from(vec![b'x'; 128]),
    };
    (0..EVENTS).map(event).collect()
}

fn append() -> Body {
    Body::Append(Append { events: events(), ..Append::default() })
}

/// A lone node whose disk is at once and keeps nothing.
struct Lone {
    peer: Peer,
    effects: Effects,
    requests: u64,
}

impl Lone {
    fn new() -> Lone {
        let peer = Peer::new(PeerConfig {
            key: (&[7; 32]).into(),
            generation: 1,
            seed: 1,
            facts: NodeFacts::default(),
            mesh: "m".into(),
            joined: false,
            taps: TapBounds::default(),
            gossip: GossipBounds::default(),
        });
        let mut node = Lone { peer, effects: Effects::new(), requests: 0 };
        node.take(Input::Start);
        let text = "name = \"p\"\ndurability = \"page\"\n\n[source.in]\n";
        let manifest = Manifest::from_toml(text, "bench.toml").unwrap();
        node.ask(Request::Deploy { manifest });
        // Opens the source's log.
        node.ask(publish(Vec::from_iter(events().pop())));
        node
    }

    fn ask(&mut self, request: Request) {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.take(Input::Request { id, request });
    }

    fn take(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            self.peer.handle(NOW, input, &mut self.effects);
            for effect in self.effects.drain(..) {
                if let Effect::Persist { log, records, .. } = effect
                    && let Some(last) = records.last()
                {
                    inputs.push(Input::Persisted { log, seq: last.seq });
                }
            }
        }
    }
}

fn publish(events: Vec<Event>) -> Request {
    let (pipeline, source) = ("p".parse().unwrap(), "in".parse().unwrap());
    Request::Publish(Publish { pipeline, source, producer: None, log: None, events })
}

fn handle(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("peer");
    group.throughput(Throughput::Elements(EVENTS.into()));
    group.bench_function("publish_and_persisted", |bench| {
        let mut node = Lone::new();
        bench.iter_batched(|| publish(events()), |request| node.ask(request), BatchSize::LargeInput);
    });
    group.bench_function("publish_with_a_tap", |bench| {
        let mut node = Lone::new();
        node.ask(Request::Tail(Tail {
            pipeline: "p".parse().unwrap(),
            stream: StreamName { base: "in".parse().unwrap(), side: None },
            from: TailFrom::Start,
            limit: None,
            follow: true,
            credit: u64::MAX,
        }));
        bench.iter_batched(|| publish(events()), |request| node.ask(request), BatchSize::LargeInput);
    });
    group.finish();
}

fn batch() -> Message {
    let position = Position { epoch: Epoch(1), seq: Seq(1), ..Position::START };
    let slice_event = |(index, event)| SliceEvent { index, output: 0, event };
    let slice =
        Slice { position, events: (0..).zip(events()).map(slice_event).collect(), mark: None, closed: None };
    Message::Batch { edge: EdgeId(1), after: Position::START, slices: vec![slice], head: Seq(1), behind: 0 }
}

fn coding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(EVENTS.into()));
    let message = batch();
    let bytes = codec::encode(&message);
    group.bench_function("encode_batch", |bench| bench.iter(|| codec::encode(black_box(&message))));
    group.bench_function("decode_batch", |bench| {
        bench.iter(|| codec::decode::<Message>(black_box(&bytes)).unwrap());
    });
    group.finish();
}

fn log(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log");
    group.throughput(Throughput::Elements(EVENTS.into()));
    group.bench_function("append", |bench| {
        let name = LogName::Catalog(NodeId([1; 32]));
        let mut log = Log::new(name, Durability::Memory, Retention::default());
        log.open = true;
        bench.iter_batched(
            append,
            |body| {
                let record = log.append(Epoch(1), body);
                log.on_persisted(record.seq, NOW);
                record
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, handle, coding, log);
criterion_main!(benches);
