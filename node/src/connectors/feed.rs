//! A connector's way into its source log: producer `connector`, one unbroken range after another.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dunlin_protocol::effect::SourceStream;
use dunlin_protocol::event::Event;
use dunlin_protocol::id::{LogId, Name};
use dunlin_protocol::limits::{RETRY_FIRST, RETRY_LAST};
use dunlin_protocol::pipeline::manifest::Source;
use dunlin_protocol::rpc::{Fault, FaultKind, ProducerRange, Publish};
use dunlin_protocol::time::{Span, Time};

use super::pace::{Clock, Stop, Stopped};
use super::rejected::RejectedLines;

/// Lines that one request covers, and its events' weight. Beyond: the next request.
pub const BATCH_LINES_MAX: usize = 1024;
pub const BATCH_BYTES_MAX: usize = 256 << 10;
/// The name under which connectors publish.
const PRODUCER: &str = "connector";
/// A node that answers Busy is asked again after this at the latest, whatever it says.
const BUSY_WAIT_MAX: Span = Span(10_000);

/// The door to this node's core, for a thread of its own: blocks until the answer is there.
pub trait PublishDoor: Clone + Send + 'static {
    fn publish(&self, publish: Publish) -> Result<Published, Fault>;
}

/// The log has everything up to and including `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    pub log: LogId,
    pub acknowledged: u64,
    pub last: u64,
}

/// What a connector did since it was started.
#[derive(Debug, Default)]
pub struct Counts {
    /// Events in acknowledged requests.
    pub published: AtomicU64,
    /// Lines that are no event; their numbers are covered.
    pub rejected: AtomicU64,
    /// Samples that could not be appended.
    pub skipped: AtomicU64,
    /// Times that a panic restarted it.
    pub restarts: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl Counts {
    /// Why nothing comes through now, if so.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// The next request: which lines it covers, and the events among them.
#[derive(Debug, Default)]
pub struct Batch {
    last: u64,
    lines: usize,
    bytes: usize,
    events: Vec<Event>,
    sequences: Vec<u64>,
    /// Each rejected line and why: at most one per line of the batch.
    rejected: Vec<String>,
}

/// Rejected lines of a request that the log names; all of them are written down beside it.
const REASONS_MAX: usize = 3;

impl Batch {
    pub fn event(&mut self, line: u64, event: Event) {
        self.blank(line);
        self.bytes += event.weight();
        self.events.push(event);
        self.sequences.push(line);
    }

    /// `place` is the line's number in its file, which may have others before the first that counts.
    pub fn reject(&mut self, line: u64, place: u64, why: &str) {
        self.blank(line);
        self.rejected.push(format!("line {place}: {why}"));
    }

    /// Covers the line's number, and nothing else.
    pub fn blank(&mut self, line: u64) {
        self.last = line;
        self.lines += 1;
    }

    /// Whether an event of this weight belongs into the next request.
    pub fn is_full_for(&self, weight: usize) -> bool {
        self.lines >= BATCH_LINES_MAX || (!self.events.is_empty() && self.bytes + weight > BATCH_BYTES_MAX)
    }
}

/// One connector's hold on its log.
#[derive(Debug)]
pub struct Feed<D> {
    door: D,
    producer: Name,
    log: LogId,
    stream: Arc<SourceStream>,
    /// The first sequence that the log does not have yet.
    next: u64,
    clock: Arc<dyn Clock>,
    stop: Stop,
    counts: Arc<Counts>,
    rejected: RejectedLines,
}

impl<D: PublishDoor> Feed<D> {
    /// `Err` when the fixed producer name is no name: never.
    pub fn new(
        door: D,
        log: LogId,
        stream: Arc<SourceStream>,
        next: u64,
        outside: (Arc<dyn Clock>, Stop),
        data_folder: &Path,
    ) -> Result<Feed<D>, dunlin_protocol::id::BadName> {
        let (clock, stop) = outside;
        let producer = PRODUCER.parse()?;
        let rejected = RejectedLines::new(data_folder, log);
        let counts = Arc::default();
        Ok(Feed { door, producer, log, stream, next: next.max(1), clock, stop, counts, rejected })
    }

    pub fn next(&self) -> u64 {
        self.next
    }

    pub fn source(&self) -> &Source {
        &self.stream.source
    }

    pub fn stream(&self) -> &Arc<SourceStream> {
        &self.stream
    }

    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    pub fn now(&self) -> Time {
        self.clock.now()
    }

    pub fn wait(&self, span: Span) -> Result<(), Stopped> {
        self.clock.wait(span, &self.stop)
    }

    pub fn check(&self) -> Result<(), Stopped> {
        self.stop.check()
    }

    /// `pipeline/source`, for logs.
    pub fn shown(&self) -> String {
        format!("{}/{}", self.stream.pipeline, self.stream.name)
    }

    /// Hands the batch in, again and again until it is acknowledged; nothing is ever skipped.
    pub fn publish(&mut self, batch: &mut Batch) -> Result<(), Stopped> {
        let batch = std::mem::take(batch);
        if batch.lines == 0 || batch.last < self.next {
            return Ok(());
        }
        let (events, count) = (batch.events, batch.sequences.len() as u64);
        let range = ProducerRange {
            producer: self.producer.clone(),
            first: self.next,
            sequences: batch.sequences,
            last: batch.last,
        };
        let mut backoff = RETRY_FIRST;
        loop {
            self.check()?;
            match self.ask(events.clone(), range.clone()) {
                Ok(published) => {
                    self.next = published.last.max(batch.last) + 1;
                    self.counts.set_trouble(None);
                    break;
                }
                Err(Fault { kind: FaultKind::Busy { retry_after_ms }, .. }) => {
                    self.wait(Span(retry_after_ms.clamp(1, BUSY_WAIT_MAX.0)))?;
                }
                Err(fault) => {
                    self.counts
                        .set_trouble(Some(format!("its events are not taken and wait: {}", fault.detail)));
                    tracing::warn!(
                        source = %self.shown(), next = self.next, wait_ms = backoff.0,
                        "a source's events are not taken and wait: {}", fault.detail
                    );
                    self.wait(backoff)?;
                    backoff = Span((backoff.0 * 2).min(RETRY_LAST.0));
                }
            }
        }
        self.counts.published.fetch_add(count, Ordering::Relaxed);
        self.reject(&batch.rejected);
        Ok(())
    }

    /// Counts the lines that were left out, writes each down, and says where.
    fn reject(&mut self, lines: &[String]) {
        if lines.is_empty() {
            return;
        }
        self.counts.rejected.fetch_add(lines.len() as u64, Ordering::Relaxed);
        let where_all = match self.rejected.add(lines) {
            Ok(()) => format!("all of them stand in {}", self.rejected.path().display()),
            Err(why) => format!("they could not be written to {} ({why})", self.rejected.path().display()),
        };
        let first: Vec<&str> = lines.iter().take(REASONS_MAX).map(String::as_str).collect();
        tracing::warn!(
            source = %self.shown(),
            "{} lines are no events and were left out: {}; {where_all}, and `dunlin show {}` counts them",
            lines.len(), first.join("; "), self.stream.pipeline
        );
    }

    /// Hands one event in, once. A refused one is not there, and its number is used again.
    pub fn offer(&mut self, event: Event) -> Result<(), Fault> {
        let range = ProducerRange {
            producer: self.producer.clone(),
            first: self.next,
            sequences: vec![self.next],
            last: self.next,
        };
        let published = self.ask(vec![event], range)?;
        self.next = published.last.max(self.next) + 1;
        self.counts.published.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn ask(&self, events: Vec<Event>, range: ProducerRange) -> Result<Published, Fault> {
        self.door.publish(Publish {
            pipeline: self.stream.pipeline.clone(),
            source: self.stream.name.clone(),
            producer: Some(range),
            log: Some(self.log),
            events,
        })
    }
}
