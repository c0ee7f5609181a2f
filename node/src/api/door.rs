//! What is done before the core sees a request, the same for HTTP and for libp2p: lines become
//! events by their source's spec, expressions are checked, modules are kept.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_operators::{check, ingest};
use dunlin_protocol::id::{Digest, Name};
use dunlin_protocol::limits::{EVENT_BYTES_MAX, MODULE_BYTES_MAX, PUBLISH_BYTES_MAX, PUBLISH_EVENTS_MAX};
use dunlin_protocol::pipeline::manifest::{Manifest, Module, Operator, Outlet, Source};
use dunlin_protocol::rpc::lines::{Lines, LinesTaken, RejectedLine};
use dunlin_protocol::rpc::{Fault, FaultKind, ProducerRange, Publish, Request, Response};
use dunlin_protocol::time::Time;

use super::answers::Doors;
use super::metrics::Metrics;
use crate::data_folder;

/// Where a source's spec is found: a snapshot of what is deployed that the driver keeps.
pub trait Sources: Debug + Send + Sync {
    /// `Unknown` with a sentence when there is no such pipeline or source, or the source takes
    /// no published events.
    fn source(&self, pipeline: &Name, source: &Name) -> Result<Source, Fault>;
}

/// Where modules are kept. Both may take a while and touch the disk.
pub trait ModuleShelf: Debug + Send + Sync {
    /// Checks that the bytes are a component that can run here, keeps them, names them.
    fn put(&self, bytes: Bytes) -> Result<Digest, Fault>;
    fn has(&self, digest: &Digest) -> bool;
}

/// One node's door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Door {
    pub doors: Doors,
    pub sources: Arc<dyn Sources>,
    pub shelf: Arc<dyn ModuleShelf>,
    pub metrics: Metrics,
}

fn fault(kind: FaultKind, detail: impl Into<String>) -> Fault {
    Fault { kind, detail: detail.into() }
}

impl Door {
    /// Any request with one answer. A deploy is checked first.
    pub async fn ask(&self, request: Request) -> Result<Response, Fault> {
        if let Request::Deploy { manifest } = &request {
            self.check(manifest)?;
        }
        match self.doors.one(request).await {
            Response::Failed(fault) => Err(fault),
            answer => Ok(answer),
        }
    }

    /// Everything that this node can tell about a manifest without asking the mesh.
    fn check(&self, manifest: &Manifest) -> Result<(), Fault> {
        check::check(manifest).map_err(|error| fault(FaultKind::Invalid, error.to_string()))?;
        for (name, sink) in &manifest.sinks {
            if let Outlet::File { path } = &sink.outlet
                && data_folder::is_own(path)
            {
                let why = format!(
                    "sink '{name}' would write to '{path}' in the data folder, which is the node's own: name \
                     another file, as in \"out/{name}.jsonl\""
                );
                return Err(fault(FaultKind::Invalid, why));
            }
        }
        for (name, stage) in &manifest.stages {
            let Operator::Wasm(spec) = &stage.operator else { continue };
            match &spec.module {
                Module::Path(path) => {
                    return Err(fault(
                        FaultKind::Invalid,
                        format!(
                            "stage '{name}' names its module by the path '{path}': upload the file with PUT \
                             /v1/modules and put the digest in its place, or use 'dunlin deploy', which does so"
                        ),
                    ));
                }
                Module::Digest(digest) if !self.shelf.has(digest) => {
                    return Err(fault(
                        FaultKind::Invalid,
                        format!(
                            "module {digest} of stage '{name}' is not on this node: upload it with PUT \
                             /v1/modules, then deploy again"
                        ),
                    ));
                }
                Module::Digest(_) => {}
            }
        }
        Ok(())
    }

    pub async fn put_module(&self, bytes: Bytes) -> Result<Digest, Fault> {
        if bytes.len() > MODULE_BYTES_MAX {
            return Err(fault(
                FaultKind::Invalid,
                format!(
                    "the module has {} bytes, more than the {MODULE_BYTES_MAX} that are taken",
                    bytes.len()
                ),
            ));
        }
        let shelf = Arc::clone(&self.shelf);
        match tokio::task::spawn_blocking(move || shelf.put(bytes)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(fault(
                FaultKind::Unavailable,
                "the module could not be checked because the node is stopping or the check broke off: try again",
            )),
        }
    }

    /// Parses lines, publishes what are events, and says which are none.
    pub async fn publish(&self, lines: Lines, now: Time) -> Result<LinesTaken, Fault> {
        let source = self.sources.source(&lines.pipeline, &lines.source)?;
        let parsed = ParsedLines::parse(&source, &lines.lines, now)?;
        self.metrics.count("lines_rejected", parsed.rejected.len() as u64);
        let mut taken = LinesTaken { rejected: parsed.rejected, ..LinesTaken::default() };
        let producer = match lines.producer {
            None => None,
            Some(producer) => {
                let first = producer.first;
                if first == 0 {
                    return Err(fault(
                        FaultKind::Invalid,
                        "sequences start at 1: the first line's was given as 0",
                    ));
                }
                let Some(last) = first.checked_add(parsed.lines).and_then(|end| end.checked_sub(1)) else {
                    return Err(fault(
                        FaultKind::Invalid,
                        "the sequence number is beyond what can be counted",
                    ));
                };
                let sequences = parsed.numbers.iter().map(|line| first + line - 1).collect();
                Some(ProducerRange { producer: producer.producer, first, sequences, last })
            }
        };
        // Without a producer nothing is remembered of rejected lines, so there is nothing to say.
        if parsed.lines == 0 || (parsed.events.is_empty() && producer.is_none()) {
            return Ok(taken);
        }
        let publish = Publish {
            pipeline: lines.pipeline,
            source: lines.source,
            producer,
            log: lines.log,
            events: parsed.events,
        };
        match self.ask(Request::Publish(publish)).await? {
            Response::Published { log, acknowledged, last, position } => {
                self.metrics.count("events_published", acknowledged);
                taken.log = Some(log);
                taken.acknowledged = acknowledged;
                taken.last = last;
                taken.position = Some(position);
                Ok(taken)
            }
            other => Err(unexpected(&other)),
        }
    }
}

/// The core answered something else than was asked for: a fault of this program.
pub fn unexpected(response: &Response) -> Fault {
    let what = match response {
        Response::Failed(fault) => return fault.clone(),
        Response::Status(_) => "a status",
        Response::Nodes(_) => "nodes",
        Response::Pipelines(_) => "pipelines",
        Response::Shown(_) => "a pipeline",
        Response::Deployed { .. } => "a deploy",
        Response::Removed { .. } => "a removal",
        Response::Published { .. } => "an acknowledgement",
        Response::Events { .. } => "events",
        Response::State(_) => "state",
        Response::DeadLetters { .. } => "dead letters",
        Response::LettersMoved(_) => "moved letters",
        Response::TokensRotated(_) => "rotated tokens",
        Response::NodeRemoved(_) => "a removed node",
        Response::GivenUp(_) => "what was given up",
    };
    fault(
        FaultKind::Unavailable,
        format!("the node answered with {what}, which was not asked for: report this"),
    )
}

/// A request's lines, told apart. `events[i]` stood on line `numbers[i]`.
#[derive(Debug, Default, PartialEq)]
struct ParsedLines {
    lines: u64,
    events: Vec<dunlin_protocol::event::Event>,
    numbers: Vec<u64>,
    rejected: Vec<RejectedLine>,
}

impl ParsedLines {
    fn parse(source: &Source, body: &[u8], now: Time) -> Result<ParsedLines, Fault> {
        let mut parsed = ParsedLines::default();
        let mut weight = 0;
        // A line end behind the last line begins no further line.
        let body = body.strip_suffix(b"\n").unwrap_or(body);
        let empty = body.is_empty();
        let mut blocks = Blocks { body, block: Bytes::new(), start: 0 };
        let mut at = 0;
        let ends = memchr::memchr_iter(b'\n', body).chain([body.len()]);
        for end in ends.take(if empty { 0 } else { usize::MAX }) {
            let begin = at;
            let line = body.get(begin..end).unwrap_or_default();
            at = end + 1;
            parsed.lines += 1;
            if parsed.lines > PUBLISH_EVENTS_MAX as u64 {
                return Err(fault(
                    FaultKind::Invalid,
                    format!(
                        "a request takes at most {PUBLISH_EVENTS_MAX} lines: send fewer at once; none was taken"
                    ),
                ));
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let reason = match ingest::event_in_block(source, &blocks.line(begin, line.len()), now) {
                Ok(event) if event.weight() > EVENT_BYTES_MAX => {
                    format!(
                        "the event has {} bytes, more than the {EVENT_BYTES_MAX} that are taken",
                        event.weight()
                    )
                }
                Ok(event) => {
                    weight += event.weight();
                    parsed.events.push(event);
                    parsed.numbers.push(parsed.lines);
                    continue;
                }
                Err(reject) => reject.to_string(),
            };
            parsed.rejected.push(RejectedLine { line: parsed.lines, reason });
        }
        if weight > PUBLISH_BYTES_MAX {
            return Err(fault(
                FaultKind::Invalid,
                format!(
                    "the request's events weigh {weight} bytes, more than the {PUBLISH_BYTES_MAX} that one request \
                     may have: send fewer at once; none was taken"
                ),
            ));
        }
        Ok(parsed)
    }
}

/// Lines of one block share its memory: one allocation for many events, and an event that lives long
/// keeps no more than a block (or itself, if it is larger).
const BLOCK_BYTES: usize = 4 << 10;

/// A request's body, copied block by block as its lines are asked for in turn.
struct Blocks<'a> {
    body: &'a [u8],
    block: Bytes,
    /// Where in the body the block begins.
    start: usize,
}

impl Blocks<'_> {
    /// The line of this length that begins here.
    fn line(&mut self, at: usize, length: usize) -> Bytes {
        if at + length > self.start + self.block.len() {
            let rest = self.body.get(at..).unwrap_or_default();
            let near = rest.get(..BLOCK_BYTES).unwrap_or(rest);
            let whole_lines = memchr::memrchr(b'\n', near).unwrap_or(0);
            let bytes = whole_lines.max(length);
            self.block = Bytes::copy_from_slice(rest.get(..bytes).unwrap_or(rest));
            self.start = at;
        }
        self.block.slice(at - self.start..at - self.start + length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_their_own_bytes_whatever_block_they_stand_in() {
        for length in [1, 7, 100, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES] {
            let lines: Vec<String> =
                (0..50).map(|n| format!("{n:0>width$}", width = length - n % 2)).collect();
            let body = lines.join("\n");
            let mut blocks = Blocks { body: body.as_bytes(), block: Bytes::new(), start: 0 };
            let mut at = 0;
            for line in &lines {
                assert_eq!(blocks.line(at, line.len()), line.as_bytes());
                at += line.len() + 1;
                assert!(blocks.block.len() <= BLOCK_BYTES.max(line.len()));
            }
        }
    }
}
