//! The client behind HTTP: `rpc` requests as paths, the stable JSON back to `rpc` answers.

use std::io::{BufRead, BufReader, ErrorKind};
use std::time::Duration;

use dunlin_protocol::id::Digest;
use dunlin_protocol::rpc::lines::{Lines, LinesTaken};
use dunlin_protocol::rpc::{Fault, FaultKind, LetterMove, Request, Response, Tail, TailFrom};
use serde::de::DeserializeOwned;
use ureq::http::StatusCode;
use ureq::{Agent, Body};

use super::client::{Client, Failure, TailEvents};
use crate::api::cursor;
use crate::api::json::{
    BadJson, DeadLetterJson, DeployedJson, GivenUpJson, LettersMovedJson, LinesTakenJson, ModuleJson,
    NOT_REACHED, NodeJson, NodeRemovedJson, PipelineJson, RemovedJson, ShownJson, StateJson, StatusJson,
    TailJson, TokensRotatedJson,
};
use crate::api::problem::Problem;

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// A deploy waits for modules to travel; the node gives up first.
const ANSWER_DEADLINE: Duration = Duration::from_secs(150);
/// An answer's JSON. Beyond: refused.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// A node's HTTP address with its bearer token. Connections are kept between calls.
#[derive(Debug, Clone)]
pub struct HttpClient {
    agent: Agent,
    address: String,
    authorization: String,
}

type HttpResponse = ureq::http::Response<Body>;

impl HttpClient {
    pub fn new(address: &str, bearer: &str) -> HttpClient {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_DEADLINE))
            .timeout_recv_response(Some(ANSWER_DEADLINE))
            .proxy(None)
            .build()
            .new_agent();
        HttpClient { agent, address: address.to_string(), authorization: format!("Bearer {bearer}") }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn get(&self, path: &str) -> Result<HttpResponse, Failure> {
        self.checked(self.agent.get(self.url(path)).header("authorization", &self.authorization).call())
    }

    fn put(&self, path: &str, content_type: &str, body: &[u8]) -> Result<HttpResponse, Failure> {
        let request = self
            .agent
            .put(self.url(path))
            .header("authorization", &self.authorization)
            .header("content-type", content_type);
        self.checked(request.send(body))
    }

    fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.json(self.get(path)?)
    }

    fn json<T: DeserializeOwned>(&self, mut response: HttpResponse) -> Result<T, Failure> {
        let bytes = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let bytes = bytes.map_err(|error| self.broken(error))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| unreadable(format!("the node's answer is not what was expected: {error}")))
    }

    /// An error status becomes the fault that its problem document tells.
    fn checked(&self, outcome: Result<HttpResponse, ureq::Error>) -> Result<HttpResponse, Failure> {
        let mut response = outcome.map_err(|error| self.failed(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.body_mut().read_to_string().unwrap_or_default();
        let fault = match serde_json::from_str::<Problem>(&text) {
            Ok(_) if status == StatusCode::UNAUTHORIZED => Fault {
                kind: FaultKind::Invalid,
                detail: format!(
                    "the node at {} does not know this bearer token: name the node's own folder with --data, or its \
                     token with --token",
                    self.address
                ),
            },
            Ok(problem) => problem.into_fault(),
            Err(_) => Fault {
                kind: FaultKind::Unavailable,
                detail: format!(
                    "what answers at {} with {status} is no dunlin node: name the right address with --node or --data",
                    self.address
                ),
            },
        };
        Err(Failure::Refused(fault))
    }

    fn failed(&self, error: ureq::Error) -> Failure {
        let never_there = match &error {
            ureq::Error::Io(io) => {
                let unreachable = [
                    ErrorKind::ConnectionRefused,
                    ErrorKind::HostUnreachable,
                    ErrorKind::NetworkUnreachable,
                    ErrorKind::AddrNotAvailable,
                ];
                // A name that nobody knows has no kind of its own.
                unreachable.contains(&io.kind()) || io.to_string().contains("lookup address")
            }
            ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::BadUri(_)
            | ureq::Error::Http(_)
            | ureq::Error::Timeout(ureq::Timeout::Connect) => true,
            _ => false,
        };
        if never_there {
            return Failure::Unreachable { address: self.address.clone(), why: error.to_string() };
        }
        self.broken(error)
    }

    fn broken(&self, error: impl ToString) -> Failure {
        Failure::Broken { address: self.address.clone(), why: error.to_string() }
    }
}

fn unreadable(why: String) -> Failure {
    Failure::Unreadable(why)
}

impl From<BadJson> for Failure {
    fn from(error: BadJson) -> Self {
        Failure::Unreadable(error.to_string())
    }
}

impl Client for HttpClient {
    fn ask(&self, request: Request) -> Result<Response, Failure> {
        match request {
            Request::Status => Ok(Response::Status(self.get_json::<StatusJson>("/v1/status")?.into_rpc()?)),
            Request::Nodes => {
                let nodes = self.get_json::<Vec<NodeJson>>("/v1/nodes")?.into_iter().map(NodeJson::into_rpc);
                Ok(Response::Nodes(nodes.collect::<Result<_, _>>()?))
            }
            Request::Pipelines => {
                let pipelines = self.get_json::<Vec<PipelineJson>>("/v1/pipelines")?;
                let pipelines = pipelines.into_iter().map(PipelineJson::into_rpc);
                Ok(Response::Pipelines(pipelines.collect::<Result<_, _>>()?))
            }
            Request::Show { pipeline } => {
                let shown = self.get_json::<ShownJson>(&format!("/v1/pipelines/{pipeline}"))?;
                Ok(Response::Shown(shown.into_rpc()?))
            }
            Request::Deploy { manifest } => {
                let path = format!("/v1/pipelines/{}", manifest.name);
                let response = self.put(&path, "application/json", manifest.to_json().as_bytes())?;
                let DeployedJson { pipeline, revision, changed, actors } = self.json(response)?;
                Ok(Response::Deployed { pipeline, revision, changed, actors })
            }
            Request::Remove { pipeline } => {
                let url = self.url(&format!("/v1/pipelines/{pipeline}"));
                let call = self.agent.delete(url).header("authorization", &self.authorization).call();
                let removed: RemovedJson = self.json(self.checked(call)?)?;
                Ok(Response::Removed { pipeline: removed.pipeline })
            }
            // Every share has one of these.
            Request::State { pipeline, stage, key: Some(key), .. } if key.starts_with('\0') => {
                let path = format!("/v1/state/{pipeline}/{stage}?key={}", percent(&key));
                let entries = self.get_json::<Vec<StateJson>>(&path)?;
                Ok(Response::State(entries.into_iter().map(StateJson::into_rpc).collect()))
            }
            Request::State { pipeline, stage, key: Some(key), .. } => {
                let path = format!("/v1/state/{pipeline}/{stage}/{}", percent(&key));
                Ok(Response::State(vec![self.get_json::<StateJson>(&path)?.into_rpc()]))
            }
            Request::State { pipeline, stage, key: None, limit } => {
                let path = format!("/v1/state/{pipeline}/{stage}?limit={limit}");
                let entries = self.get_json::<Vec<StateJson>>(&path)?;
                Ok(Response::State(entries.into_iter().map(StateJson::into_rpc).collect()))
            }
            Request::DeadLetters { pipeline, letter, limit } => {
                let id = letter.map_or(String::new(), |letter| format!("&id={letter}"));
                let path = format!("/v1/pipelines/{pipeline}/dead-letters?limit={limit}{id}");
                let response = self.get(&path)?;
                let named = response.headers().get(NOT_REACHED).and_then(|named| named.to_str().ok());
                let named = named.unwrap_or_default().split(", ");
                let missed = named.filter_map(|node| node.parse().ok()).collect();
                let letters: Vec<DeadLetterJson> = self.json(response)?;
                let letters = letters.into_iter().map(DeadLetterJson::into_rpc);
                Ok(Response::DeadLetters { letters: letters.collect::<Result<_, _>>()?, missed })
            }
            Request::MoveLetters { pipeline, letter, does } => {
                let id = letter.map_or(String::new(), |letter| format!("?id={letter}"));
                let verb = match does {
                    LetterMove::Replay => "replay",
                    LetterMove::Drop => "drop",
                };
                let url = self.url(&format!("/v1/pipelines/{pipeline}/dead-letters/{verb}{id}"));
                let call = self.agent.post(url).header("authorization", &self.authorization).send_empty();
                let moved: LettersMovedJson = self.json(self.checked(call)?)?;
                Ok(Response::LettersMoved(moved.into_rpc()?))
            }
            Request::RemoveNode { node } => {
                let url = self.url(&format!("/v1/nodes/{node}"));
                let call = self.agent.delete(url).header("authorization", &self.authorization).call();
                let removed: NodeRemovedJson = self.json(self.checked(call)?)?;
                Ok(Response::NodeRemoved(removed.into_rpc()?))
            }
            Request::GivenUp { pipeline } => {
                let given_up = match pipeline {
                    Some(pipeline) => {
                        self.get_json::<ShownJson>(&format!("/v1/pipelines/{pipeline}"))?.given_up
                    }
                    None => self.get_json::<Vec<GivenUpJson>>("/v1/nodes/given-up")?,
                };
                let given_up = given_up.into_iter().map(GivenUpJson::into_rpc);
                Ok(Response::GivenUp(given_up.collect::<Result<_, _>>()?))
            }
            // The node chooses the salt itself.
            Request::RotateTokens { .. } => {
                let url = self.url("/v1/tokens/rotate");
                let call = self.agent.post(url).header("authorization", &self.authorization).send_empty();
                let rotated: TokensRotatedJson = self.json(self.checked(call)?)?;
                Ok(Response::TokensRotated(rotated.into_rpc()?))
            }
            Request::Publish(_) | Request::Tail(_) => Err(unreadable(
                "over HTTP events go in as lines and come out as a stream: this is a fault of the program"
                    .into(),
            )),
        }
    }

    fn tail(&self, tail: Tail) -> Result<TailEvents, Failure> {
        let from = match &tail.from {
            TailFrom::Start => "start".to_string(),
            TailFrom::Now => "now".to_string(),
            TailFrom::Cursor(at) => cursor::to_text(at),
        };
        let limit = tail.limit.map_or(String::new(), |limit| format!("&limit={limit}"));
        let path = format!(
            "/v1/streams/{}/{}?from={from}&follow={}{limit}",
            tail.pipeline, tail.stream, tail.follow
        );
        let body = self.get(&path)?.into_body().into_with_config().limit(u64::MAX).reader();
        let client = self.clone();
        let mut reader = BufReader::with_capacity(1 << 16, body);
        let mut over = false;
        Ok(Box::new(std::iter::from_fn(move || {
            if over {
                return None;
            }
            let mut line = Vec::new();
            let item = match reader.read_until(b'\n', &mut line) {
                Ok(0) => None,
                Ok(_) if !line.ends_with(b"\n") => Some(Err(client.broken("in the middle of an event"))),
                Ok(_) => Some(parse_event(&line)),
                Err(error) => Some(Err(client.broken(error))),
            };
            over = !matches!(item, Some(Ok(_)));
            item
        })))
    }

    fn publish(&self, lines: Lines) -> Result<LinesTaken, Failure> {
        let url = self.url(&format!("/v1/streams/{}/{}", lines.pipeline, lines.source));
        let mut request = self
            .agent
            .post(url)
            .header("authorization", &self.authorization)
            .header("content-type", "application/x-ndjson");
        if let Some(producer) = &lines.producer {
            request = request
                .header("producer", producer.producer.as_str())
                .header("sequence", producer.first.to_string());
        }
        if let Some(log) = &lines.log {
            request = request.header("log", log.to_string());
        }
        let response = self.checked(request.send(&lines.lines[..]))?;
        Ok(self.json::<LinesTakenJson>(response)?.into_rpc()?)
    }

    fn has_module(&self, digest: Digest) -> Result<bool, Failure> {
        match self.get(&format!("/v1/modules/{digest}")) {
            Ok(_) => Ok(true),
            Err(Failure::Refused(Fault { kind: FaultKind::Unknown, .. })) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    fn put_module(&self, bytes: &[u8]) -> Result<Digest, Failure> {
        let module: ModuleJson = self.json(self.put("/v1/modules", "application/wasm", bytes)?)?;
        Ok(module.digest)
    }
}

fn parse_event(line: &[u8]) -> Result<dunlin_protocol::rpc::TailEvent, Failure> {
    /// What stands in the place of an event when the tail cannot go on.
    #[derive(serde::Deserialize)]
    struct Ended {
        problem: Problem,
    }
    match serde_json::from_slice::<TailJson>(line) {
        Ok(event) => Ok(event.into_rpc()?),
        Err(error) => Err(match serde_json::from_slice::<Ended>(line) {
            Ok(Ended { problem }) => Failure::Refused(problem.into_fault()),
            Err(_) => unreadable(format!("the node sent an event that cannot be read: {error}")),
        }),
    }
}

/// A path segment: everything but unreserved characters is percent-encoded (RFC 3986).
fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}
