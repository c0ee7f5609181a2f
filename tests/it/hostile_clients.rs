//! Clients that were let in and send what they must not: frames, places, requests.

use std::collections::BTreeMap;

use bytes::Bytes;
use dunlin_protocol::event::Event;
use dunlin_protocol::id::{Epoch, Hash, LogId, Position, Seq};
use dunlin_protocol::rpc::frames::{RpcCall, RpcIn, RpcOut};
use dunlin_protocol::rpc::lines::Lines;
use dunlin_protocol::rpc::{Cursor, CursorAt, Fault, Publish, Request, Response, Tail, TailFrom};
use dunlin_protocol::time::Time;
use dunlin_protocol::wire::codec;
use futures::{AsyncReadExt, AsyncWriteExt};

use crate::beside::{beside, counter, log_of, mesh, node_id, runtime, token, wait_until_counted};
use crate::stranger::{MODULE, PEER, RPC, Stranger, in_time, read, write};

#[test]
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
            // Many taps that are never granted anything.
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
            // Events that skip the node's own parsing, and lines for a log that nobody writes.
            let lines = Lines {
                pipeline: "calm".parse().unwrap(),
                source: "events".parse().unwrap(),
                producer: None,
                log: Some(LogId([1; 16])),
                lines: Bytes::from_static(b"{\"k\":\"a\"}\n"),
            };
            write(&mut stream, &RpcIn::Call { id: 301, call: RpcCall::Lines(lines) }).await.unwrap();
            let (mut parsed, mut misplaced) = (None, None);
            while parsed.is_none() || misplaced.is_none() {
                match read::<RpcOut>(&mut stream).await.unwrap() {
                    RpcOut::Answer { id: 300, response: Response::Failed(fault), .. } => parsed = Some(fault),
                    RpcOut::Answer { id: 300, response, .. } => panic!("{response:?}"),
                    RpcOut::Lines { id: 301, outcome } => misplaced = Some(outcome.unwrap_err()),
                    RpcOut::Answer { response: Response::Failed(_), .. } => busy += 1,
                    RpcOut::Answer { .. } | RpcOut::Module { .. } | RpcOut::Lines { .. } => {}
                }
            }
            assert_eq!(busy, 0, "200 taps are allowed");
            assert!(parsed.as_ref().is_some_and(|fault| fault.detail.contains("`Lines`")), "{parsed:?}");
            let unknown = |fault: &Fault| fault.detail.contains("is not known");
            assert!(misplaced.as_ref().is_some_and(unknown), "{misplaced:?}");
        });
    });
    wait_until_counted(node, "frames_refused", refused + 6);
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
