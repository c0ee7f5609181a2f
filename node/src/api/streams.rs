//! `/v1/streams` and `/v1/state`: events in, events out, keyed state.

use std::collections::VecDeque;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response as HttpResponse};
use dunlin_protocol::id::LogId;
use dunlin_protocol::limits::{EDGE_CREDIT_BYTES, PUBLISH_BYTES_MAX};
use dunlin_protocol::pipeline::manifest::StreamName;
use dunlin_protocol::rpc::lines::{LineProducer, Lines};
use dunlin_protocol::rpc::tailed::Tailed;
use dunlin_protocol::rpc::{Fault, FaultKind, Request, Response, Tail, TailEvent, TailFrom};
use dunlin_protocol::time::Time;
use serde::Deserialize;

use super::answers::CallHandle;
use super::cursor;
use super::door::unexpected;
use super::http::{self, Api};
use super::json::{LinesTakenJson, StateJson, TailJson};
use super::parts::{Fields, Segments, header_text, media_type};
use super::pipelines::{Limit, name};
use super::problem::Problem;

/// Who sends (`Producer`), the first line's number (`Sequence`), and the log that took the
/// producer's earlier lines (`Log`): with the first two a retry adds only what is missing.
const PRODUCER: &str = "producer";
const SEQUENCE: &str = "sequence";
const LOG: &str = "log";
const NDJSON: &str = "application/x-ndjson";
const EVENT_STREAM: &str = "text/event-stream";

/// A stream's name as it stands in a path: `clean` or `outlook.scores`.
pub fn stream_name(text: &str) -> Result<StreamName, String> {
    let (base, side) = match text.split_once('.') {
        None => (text, None),
        Some((base, side)) => (base, Some(side)),
    };
    let name = |text: &str| text.parse::<dunlin_protocol::id::Name>().map_err(|error| error.to_string());
    Ok(StreamName { base: name(base)?, side: side.map(name).transpose()? })
}

fn wall_clock() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

pub(super) async fn publish(
    State(api): State<Api>,
    Segments((pipeline, source)): Segments<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<LinesTakenJson>, Problem> {
    let content_type = header_text(&headers, "content-type")?.unwrap_or_default().to_ascii_lowercase();
    if content_type.starts_with("application/cloudevents") || headers.contains_key("ce-id") {
        return Err(Problem::not_yet("CloudEvents are not there yet: send one JSON object per line"));
    }
    media_type(&headers, &[NDJSON, "application/ndjson", "application/jsonl", "application/json"])?;
    let sequence = match header_text(&headers, SEQUENCE)? {
        None => None,
        Some(text) => Some(text.parse::<u64>().map_err(|_| {
            Problem::invalid(format!("the header Sequence is '{text}' and must be the first line's number"))
        })?),
    };
    let producer = match (header_text(&headers, PRODUCER)?, sequence) {
        (Some(producer), Some(first)) => Some(LineProducer { producer: name(producer)?, first }),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(Problem::invalid("the headers Producer and Sequence go together: send both or none"));
        }
    };
    let log = match header_text(&headers, LOG)? {
        None => None,
        Some(text) => Some(text.parse::<LogId>().map_err(|error| Problem::invalid(error.to_string()))?),
    };
    let (pipeline, source) = (name(&pipeline)?, name(&source)?);
    let lines = http::body("a request of events", body, PUBLISH_BYTES_MAX).await?;
    let taken = api.door.publish(Lines { pipeline, source, producer, log, lines }, wall_clock()).await?;
    Ok(Json(LinesTakenJson::from(&taken)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TailQuery {
    from: Option<String>,
    limit: Option<u64>,
    follow: Option<String>,
}

/// How events are written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Lines,
    ServerSent,
}

/// `from` as users write it.
pub fn tail_from(text: &str) -> Result<TailFrom, String> {
    match text {
        "start" => Ok(TailFrom::Start),
        "now" => Ok(TailFrom::Now),
        other => cursor::from_text(other).map(TailFrom::Cursor).ok_or_else(|| {
            format!("'{other}' is no place in a stream: use start, now, or the cursor of an event")
        }),
    }
}

pub(super) async fn tail(
    State(api): State<Api>,
    Segments((pipeline, stream)): Segments<(String, String)>,
    Fields(query): Fields<TailQuery>,
    headers: HeaderMap,
) -> Result<HttpResponse, Problem> {
    let accept = header_text(&headers, "accept")?.unwrap_or_default();
    let framing = if accept.contains(EVENT_STREAM) { Framing::ServerSent } else { Framing::Lines };
    // A browser that reconnects says where it was; an event source is there to be followed.
    let from = match (header_text(&headers, "last-event-id")?, &query.from) {
        (Some(cursor), _) => tail_from(cursor),
        (None, Some(from)) => tail_from(from),
        (None, None) => Ok(TailFrom::Start),
    };
    let follow = match query.follow.as_deref() {
        None => framing == Framing::ServerSent,
        Some("" | "true" | "1") => true,
        Some("false" | "0") => false,
        Some(other) => {
            return Err(Problem::invalid(format!("follow is '{other}' and must be true or false")));
        }
    };
    let tail = Tail {
        pipeline: name(&pipeline)?,
        stream: stream_name(&stream).map_err(Problem::invalid)?,
        from: from.map_err(Problem::invalid)?,
        limit: query.limit,
        follow,
        credit: EDGE_CREDIT_BYTES,
    };
    let mut call = api.door.doors.call(Request::Tail(tail)).await?;
    // The first answer tells whether there is such a stream. A tail that follows a silent one has
    // none for now, so its head goes out as soon as nothing contradicts it.
    let mut waiting = VecDeque::new();
    let first = match follow {
        true => tokio::time::timeout(FIRST_ANSWER, call.next()).await.ok(),
        false => Some(call.next().await),
    };
    match first {
        Some(Some((Response::Failed(fault), _))) => return Err(fault.into()),
        Some(Some((Response::Events { events }, last))) => waiting.push_back((events, last)),
        Some(Some((other, _))) => return Err(unexpected(&other).into()),
        Some(None) => return Err(Problem::from(broken_off())),
        None => {}
    }
    let media_type = match framing {
        Framing::Lines => NDJSON,
        Framing::ServerSent => EVENT_STREAM,
    };
    let feed = Feeding::Events(Feed { call, waiting, framing });
    let body = Body::from_stream(futures::stream::unfold(feed, Feeding::next));
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, "no-store")], body)
        .into_response())
}

/// A tail that follows answers its head after this long, whether there are events or not.
const FIRST_ANSWER: std::time::Duration = std::time::Duration::from_millis(500);
/// An event source that is silent gets a comment, so that what stands between keeps it open.
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(15);

fn broken_off() -> Fault {
    Fault {
        kind: FaultKind::Unavailable,
        detail: "the node is stopping: tail again from the last event's cursor when it runs".to_string(),
    }
}

/// How far a tail's body has come.
enum Feeding {
    Events(Feed),
    /// Why it ends was said; now the connection breaks off, so that nobody takes this for the end.
    Broken(Fault),
    Over,
}

impl Feeding {
    async fn next(self) -> Option<(io::Result<Bytes>, Feeding)> {
        match self {
            Feeding::Events(feed) => Some(feed.next().await),
            Feeding::Broken(fault) => {
                // An error throws away what was not sent yet: what was said goes out in this pause.
                tokio::task::yield_now().await;
                Some((Err(io::Error::other(fault.detail)), Feeding::Over))
            }
            Feeding::Over => None,
        }
    }
}

/// A tail on its way out: credit is granted when the connection asks for more, not before.
struct Feed {
    call: CallHandle,
    waiting: VecDeque<(Tailed, bool)>,
    framing: Framing,
}

impl Feed {
    async fn next(mut self) -> (io::Result<Bytes>, Feeding) {
        let batch = match (self.waiting.pop_front(), self.framing) {
            (Some(batch), _) => Ok(batch),
            (None, Framing::Lines) => self.batch().await,
            (None, Framing::ServerSent) => match tokio::time::timeout(KEEP_ALIVE, self.batch()).await {
                Ok(batch) => batch,
                Err(_) => return (Ok(Bytes::from_static(b": still here\n\n")), Feeding::Events(self)),
            },
        };
        let (events, last) = match batch {
            Ok(batch) => batch,
            // The head is out: what is wrong is the last thing said, and then there is no end.
            Err(fault) => return (Ok(self.framing.problem(&fault)), Feeding::Broken(fault)),
        };
        let mut out = Vec::new();
        let weight = events.weight();
        for event in events {
            self.framing.write(&mut out, &event);
        }
        self.call.credit(weight).await;
        (Ok(Bytes::from(out)), if last { Feeding::Over } else { Feeding::Events(self) })
    }

    async fn batch(&mut self) -> Result<(Tailed, bool), Fault> {
        match self.call.next().await {
            Some((Response::Events { events }, last)) => Ok((events, last)),
            Some((other, _)) => Err(unexpected(&other)),
            None => Err(broken_off()),
        }
    }
}

impl Framing {
    /// The problem document of a tail that cannot go on, in the place of an event.
    fn problem(self, fault: &Fault) -> Bytes {
        let json = serde_json::json!({ "problem": Problem::from(fault) });
        Bytes::from(match self {
            Framing::Lines => format!("{json}\n"),
            Framing::ServerSent => format!("event: problem\ndata: {json}\n\n"),
        })
    }

    fn write(self, out: &mut Vec<u8>, event: &TailEvent) {
        let line = TailJson::from(event);
        if self == Framing::ServerSent {
            out.extend_from_slice(format!("id: {}\ndata: ", line.cursor).as_bytes());
        }
        // Our own shapes are strings and checked JSON: writing them to memory cannot fail.
        let _ = serde_json::to_writer(&mut *out, &line);
        out.extend_from_slice(match self {
            Framing::Lines => b"\n",
            Framing::ServerSent => b"\n\n",
        });
    }
}

/// Keys from the first on, or one key of all shares that have it: of what is the stage's own each has one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateQuery {
    limit: Option<u32>,
    key: Option<String>,
}

pub(super) async fn state(
    State(api): State<Api>,
    Segments((pipeline, stage)): Segments<(String, String)>,
    Fields(StateQuery { limit, key }): Fields<StateQuery>,
) -> Result<Json<Vec<StateJson>>, Problem> {
    let limit = Limit::of(limit).get();
    let request = Request::State { pipeline: name(&pipeline)?, stage: name(&stage)?, key, limit };
    match api.door.ask(request).await? {
        Response::State(entries) => Ok(Json(entries.iter().map(StateJson::from).collect())),
        other => Err(unexpected(&other).into()),
    }
}

pub(super) async fn state_of_key(
    State(api): State<Api>,
    Segments((pipeline, stage, key)): Segments<(String, String, String)>,
) -> Result<Json<StateJson>, Problem> {
    let request =
        Request::State { pipeline: name(&pipeline)?, stage: name(&stage)?, key: Some(key.clone()), limit: 1 };
    match api.door.ask(request).await? {
        Response::State(entries) => match entries.first() {
            Some(entry) => Ok(Json(StateJson::from(entry))),
            None => Err(Problem::unknown(format!(
                "stage '{stage}' of '{pipeline}' keeps nothing under the key '{key}': list its keys with \
                 'dunlin state {pipeline}/{stage}'"
            ))),
        },
        other => Err(unexpected(&other).into()),
    }
}
