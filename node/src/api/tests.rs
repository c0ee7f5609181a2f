//! The HTTP door before a fake core, seen through the client that the command line uses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use dunlin_protocol::effect::{Input, RequestId};
use dunlin_protocol::event::{Event, Placed};
use dunlin_protocol::id::{Digest, Epoch, EventId, LogId, Name, NodeId, Position, Seq};
use dunlin_protocol::limits::PUBLISH_BYTES_MAX;
use dunlin_protocol::pipeline::manifest::{Connector, Durability, Source};
use dunlin_protocol::rpc::lines::{LineProducer, Lines};
use dunlin_protocol::rpc::tailed::{Run, Tailed};
use dunlin_protocol::rpc::{
    ActorStatus, Cursor, CursorAt, FanOut, Fault, FaultKind, PipelineState, Request, Response, Shown,
    StageStatus, Status, Superseded, Tail, TailEvent, TailFrom,
};
use dunlin_protocol::time::{Span, Time};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::answers::Doors;
use super::door::{Door, ModuleShelf, Sources};
use super::http;
use super::json::TailJson;
use super::metrics::Metrics;
use crate::cli::HttpClient;
use crate::cli::client::{Client, Failure};
use crate::inbox::Inbox;

#[derive(Debug)]
struct OneSource;

impl Sources for OneSource {
    fn source(&self, _: &Name, source: &Name) -> Result<Source, Fault> {
        match source.as_str() {
            "quotes" => Ok(Source {
                key: Some("flight".into()),
                time: None,
                lateness: Span(0),
                connector: Connector::Publish,
            }),
            _ => Err(Fault { kind: FaultKind::Unknown, detail: format!("there is no source '{source}'") }),
        }
    }
}

#[derive(Debug, Default)]
struct OneModule(AtomicBool);

impl ModuleShelf for OneModule {
    fn put(&self, bytes: Bytes) -> Result<Digest, Fault> {
        self.0.store(true, Ordering::Relaxed);
        Ok(Digest::of(&bytes))
    }

    fn has(&self, _: &Digest) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn log() -> LogId {
    LogId([5; 16])
}

fn tail_event(seq: u64, payload: &str) -> TailEvent {
    let id = EventId { log: log(), epoch: Epoch(1), seq: Seq(seq), index: 0 };
    let event = Event {
        key: "LH1".into(),
        time: Time(1_551_525_014_000),
        headers: vec![],
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    };
    let at = CursorAt { position: position(seq - 1), index: Some(0) };
    TailEvent { placed: Placed { id, event }, place: Cursor([(log(), at)].into()).into() }
}

fn position(seq: u64) -> Position {
    Position { epoch: Epoch(1), seq: Seq(seq), ..Position::START }
}

/// The same, as the core gives it: a record each.
fn tailed(first: u64, payloads: &[&str]) -> Tailed {
    let run = |(seq, payload): (u64, &&str)| Run {
        log: log(),
        position: position(seq),
        events: [(0, tail_event(seq, payload).placed.event)].into_iter().collect(),
    };
    let before = CursorAt { position: position(first - 1), index: None };
    let runs = (first..).zip(payloads).map(run).collect();
    Tailed { before: Cursor([(log(), before)].into()), runs }
}

fn shown() -> Shown {
    let actor = ActorStatus {
        actor: log(),
        node: NodeId([1; 32]),
        keepers: vec![NodeId([1; 32])],
        epoch: 1,
        committed: 9,
        events_in: 8,
        events_out: 7,
        lag: 6,
        watermark: Some(Time(1000)),
        parked: 0,
        dead: 2,
        rejected: 4,
        trouble: Some("it waits".into()),
    };
    Shown {
        pipeline: "fare-watch".parse().unwrap(),
        revision: Digest([2; 32]),
        state: PipelineState::Degraded,
        durability: Durability::Disk,
        copies: 1,
        stages: vec![StageStatus {
            stage: "clean".into(),
            from: vec!["quotes".into()],
            fan_out: Some(FanOut::Gossip { nodes: 7 }),
            actors: vec![actor],
        }],
        superseded: vec![Superseded { revision: Digest([3; 32]), node: NodeId([4; 32]) }],
    }
}

/// What the fake core says to each request.
fn answer(doors: &Doors, id: RequestId, request: Request) {
    let response = match request {
        Request::Status => Response::Status(Status {
            node: NodeId([1; 32]),
            mesh: "m".into(),
            version: "0".into(),
            peers: 2,
            pipelines: 1,
            rss_bytes: 3,
            disk_bytes: 4,
            uptime_ms: 5500,
            troubles: vec![],
        }),
        Request::Show { .. } => Response::Shown(shown()),
        Request::GivenUp { .. } => Response::GivenUp(vec![]),
        Request::Publish(publish) => Response::Published {
            log: log(),
            acknowledged: publish.events.len() as u64,
            last: publish.producer.map_or(0, |range| range.last),
            position: Position { seq: Seq(1), ..Position::START },
        },
        Request::Tail(tail) if tail.stream.base.as_str() == "broken" => {
            doors.answer(id, Response::Events { events: tailed(1, &["{}"]) }, false);
            Response::Failed(Fault { kind: FaultKind::Unavailable, detail: "retention let go".into() })
        }
        Request::Tail(_) => {
            doors.answer(id, Response::Events { events: tailed(1, &["{\"a\":1}"]) }, false);
            Response::Events { events: tailed(2, &["{\n\"b\": 0.1}", "no json"]) }
        }
        Request::State { key: Some(_), .. } => Response::State(vec![]),
        Request::State { .. } => Response::State(vec![("a/b".into(), Bytes::from_static(b"{\"n\":1}"))]),
        _ => {
            Response::Failed(Fault { kind: FaultKind::Busy { retry_after_ms: 1500 }, detail: "wait".into() })
        }
    };
    doors.answer(id, response, true);
}

/// A served door; gives the address and the inputs that were no requests.
async fn served() -> (String, mpsc::UnboundedReceiver<Input>) {
    let (inbox, mut inputs) = Inbox::new();
    let doors = Doors::new(inbox);
    let door = Door {
        doors: doors.clone(),
        sources: Arc::new(OneSource),
        shelf: Arc::new(OneModule::default()),
        metrics: Metrics::default(),
    };
    let (others, rest) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(input) = inputs.recv().await {
            match input {
                Input::Request { id, request } => answer(&doors, id, request),
                other => {
                    let _ = others.send(other);
                }
            }
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(http::serve(
        listener,
        http::router(door, "secret", watch::channel(true).1),
        std::future::pending(),
    ));
    (address, rest)
}

async fn with_client<T: Send + 'static>(
    bearer: &str,
    job: impl FnOnce(HttpClient) -> T + Send + 'static,
) -> T {
    let (address, _rest) = served().await;
    let client = HttpClient::new(&address, bearer);
    tokio::task::spawn_blocking(move || job(client)).await.unwrap()
}

fn lines(text: &str, producer: Option<u64>) -> Lines {
    let producer = producer.map(|first| LineProducer { producer: "me".parse().unwrap(), first });
    Lines {
        pipeline: "fare-watch".parse().unwrap(),
        source: "quotes".parse().unwrap(),
        producer,
        log: None,
        lines: Bytes::copy_from_slice(text.as_bytes()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_survives_its_json() {
    let response = with_client("secret", |client| {
        client.ask(Request::Show { pipeline: "fare-watch".parse().unwrap() }).unwrap()
    });
    assert_eq!(response.await, Response::Shown(shown()));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_without_the_bearer_token_except_to_the_health_paths() {
    let (address, _rest) = served().await;
    let statuses = tokio::task::spawn_blocking(move || {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let paths = ["/v1/status", "/metrics", "/", "/v1/nothing", "/v1/streams/a/b", "/healthz", "/readyz"];
        paths.map(|path| agent.get(format!("http://{address}{path}")).call().unwrap().status().as_u16())
    });
    assert_eq!(statuses.await.unwrap(), [401, 401, 401, 401, 401, 200, 200]);
    let failure = with_client("wrong", |client| client.ask(Request::Status).unwrap_err());
    assert!(failure.await.to_string().contains("bearer token"));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_lines_are_named_and_the_rest_goes_on() {
    let taken = with_client("secret", |client| {
        client.publish(lines("{\"flight\":\"a\"}\n[1]\n\n{\"flight\":\"b\"}\n{}\n", Some(11))).unwrap()
    });
    let taken = taken.await;
    assert_eq!((taken.acknowledged, taken.last, taken.log), (2, 15, Some(log())));
    assert_eq!(taken.rejected.iter().map(|line| line.line).collect::<Vec<_>>(), [2, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_come_back_as_they_were() {
    with_client("secret", |client| {
        let mut elsewhere = lines("{}", None);
        elsewhere.source = "other".parse().unwrap();
        let unknown = client.publish(elsewhere).unwrap_err();
        assert!(matches!(unknown, Failure::Refused(Fault { kind: FaultKind::Unknown, .. })), "{unknown:?}");
        assert_eq!(client.ask(Request::Pipelines).unwrap_err().busy_ms(), Some(1500));
        let large = client.publish(lines(&" ".repeat(PUBLISH_BYTES_MAX + 1), None)).unwrap_err();
        assert!(large.to_string().contains("at most"), "{large}");
        let zero = client.publish(lines("{\"flight\":\"a\"}", Some(0))).unwrap_err();
        assert!(zero.to_string().contains("start at 1"), "{zero}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_is_one_line_per_event_and_grants_credit_as_it_is_read() {
    let (address, mut rest) = served().await;
    let client = HttpClient::new(&address, "secret");
    let tail = Tail {
        pipeline: "fare-watch".parse().unwrap(),
        stream: super::streams::stream_name("outlook.scores").unwrap(),
        from: TailFrom::Start,
        limit: None,
        follow: false,
        credit: 1,
    };
    let events: Vec<TailEvent> =
        tokio::task::spawn_blocking(move || client.tail(tail).unwrap().collect::<Result<_, _>>().unwrap())
            .await
            .unwrap();
    assert_eq!(events.len(), 3);
    assert_eq!(events[0], tail_event(1, "{\"a\":1}"));
    assert_eq!(events[1].placed.event.payload, "{ \"b\": 0.1}");
    assert_eq!(events[2].placed.event.payload, "\"no json\"");
    assert!(matches!(rest.recv().await, Some(Input::TapCredit { bytes: 1.., .. })));
    insta::assert_snapshot!(
        serde_json::to_string(&TailJson::from(&events[0])).unwrap(),
        @r#"{"id":"05050505050505050505050505050505.1.1.0","key":"LH1","time":"2019-03-02T11:10:14Z","payload":{"a":1},"cursor":"AQUFBQUFBQUFBQUFBQUFBQUBAAAAAAAAAAAAAAAAAAAAAAABAA"}"#
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_cannot_go_on_says_why_and_is_no_end() {
    let taken = with_client("secret", |client| {
        let tail = Tail {
            pipeline: "fare-watch".parse().unwrap(),
            stream: super::streams::stream_name("broken").unwrap(),
            from: TailFrom::Start,
            limit: None,
            follow: true,
            credit: 1,
        };
        client.tail(tail).unwrap().collect::<Vec<_>>()
    });
    let taken = taken.await;
    assert_eq!(taken.len(), 2, "{taken:?}");
    assert!(taken[0].is_ok());
    let said = taken[1].as_ref().unwrap_err();
    assert!(matches!(said, Failure::Refused(fault) if fault.detail == "retention let go"), "{said:?}");
}

/// Method, path, headers, body.
type Asked = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static str);

#[tokio::test(flavor = "multi_thread")]
async fn every_error_is_a_problem_document() {
    let cases: &[(Asked, u16, &str)] = &[
        (("GET", "/v1/nothing", &[], ""), 404, "no path of this API"),
        (("PATCH", "/v1/status", &[], ""), 405, "does not take PATCH"),
        (("POST", "/healthz", &[], ""), 405, "does not take POST"),
        (("GET", "/v1/pipelines/%ff", &[], ""), 400, "the path cannot be read"),
        (("GET", "/v1/pipelines/no%20name", &[], ""), 400, "no name"),
        (("GET", "/v1/state/p/s?limit=many", &[], ""), 400, "the query cannot be read: limit: invalid digit"),
        (("GET", "/v1/state/p/s?lmit=1", &[], ""), 400, "unknown field `lmit`"),
        (("GET", "/v1/streams/p/s?form=start", &[], ""), 400, "unknown field `form`"),
        (("GET", "/v1/streams/p/s?from=yesterday", &[], ""), 400, "no place in a stream"),
        (("GET", "/v1/streams/p/s?follow=maybe", &[], ""), 400, "must be true or false"),
        (("POST", "/v1/streams/p/other", &[], "{}"), 404, "no source 'other'"),
        (
            ("POST", "/v1/streams/p/quotes", &[("content-type", "image/png")], "{}"),
            415,
            "does not take 'image/png'",
        ),
        (("POST", "/v1/streams/p/quotes", &[("content-encoding", "gzip")], "{}"), 415, "is packed"),
        (
            ("POST", "/v1/streams/p/quotes", &[("content-type", "application/cloudevents+json")], "{}"),
            501,
            "CloudEvents",
        ),
        (("POST", "/v1/streams/p/quotes", &[("producer", "me")], "{}"), 400, "go together"),
        (("POST", "/v1/streams/p/quotes", &[("log", "x")], "{}"), 400, "'x'"),
        (("PUT", "/v1/pipelines/p", &[("content-type", "text/html")], "x"), 415, "does not take 'text/html'"),
        (("PUT", "/v1/pipelines/p", &[("content-type", "application/json")], "{"), 400, "manifest"),
        (("PUT", "/v1/pipelines/p", &[], "name = "), 400, "pipeline.toml:1:"),
        (("PUT", "/v1/pipelines/p", &[], "name = \"q\"\n[source.s]\n"), 400, "make them the same"),
        (("GET", "/v1/modules/xyz", &[], ""), 400, "xyz"),
        (("GET", "/openapi.json", &[], ""), 501, "not there yet"),
        (("DELETE", "/v1/pipelines/p", &[], ""), 429, "wait"),
    ];
    let (address, _rest) = served().await;
    let checked = tokio::task::spawn_blocking(move || {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        for ((method, path, headers, body), status, words) in cases {
            let mut request = ureq::http::Request::builder()
                .method(*method)
                .uri(format!("http://{address}{path}"))
                .header("authorization", "Bearer secret");
            for (name, value) in *headers {
                request = request.header(*name, *value);
            }
            let mut response = agent.run(request.body(*body).unwrap()).unwrap();
            let text = response.body_mut().read_to_string().unwrap();
            assert_eq!(response.status().as_u16(), *status, "{method} {path}: {text}");
            assert_eq!(response.headers()["content-type"], "application/problem+json", "{method} {path}");
            let problem: super::problem::Problem = serde_json::from_str(&text).unwrap();
            assert!(problem.detail.contains(words), "{method} {path}: {text}");
            assert_eq!(problem.status, *status);
            assert_eq!(response.headers().contains_key("allow"), *status == 405, "{method} {path}");
            assert_eq!(response.headers().contains_key("retry-after"), *status == 429, "{method} {path}");
        }
    });
    checked.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn state_and_modules_are_looked_up() {
    with_client("secret", |client| {
        let state = |key: Option<&str>| Request::State {
            pipeline: "p".parse().unwrap(),
            stage: "s".parse().unwrap(),
            key: key.map(str::to_string),
            limit: 9,
        };
        let all = client.ask(state(None)).unwrap();
        assert_eq!(all, Response::State(vec![("a/b".into(), Bytes::from_static(b"{\"n\":1}"))]));
        let missing = client.ask(state(Some("a/b c"))).unwrap_err();
        assert!(missing.to_string().contains("'a/b c'"), "{missing}");
        let digest = Digest::of(b"module");
        assert!(!client.has_module(digest).unwrap());
        assert_eq!(client.put_module(b"module").unwrap(), digest);
        assert!(client.has_module(digest).unwrap());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_reads_as_documented() {
    let (address, _rest) = served().await;
    let text = tokio::task::spawn_blocking(move || {
        let request =
            ureq::get(format!("http://{address}/v1/status")).header("authorization", "Bearer secret");
        request.call().unwrap().body_mut().read_to_string().unwrap()
    });
    let text = text.await.unwrap().replace(&NodeId([1; 32]).to_string(), "NODE");
    insta::assert_snapshot!(
        text,
        @r#"{"node":"NODE","mesh":"m","version":"0","peers":2,"pipelines":1,"rss_bytes":3,"disk_bytes":4,"uptime_seconds":5.5,"troubles":[]}"#
    );
}
