//! `dunlin publish`: lines from a file or a pipe to a source, acknowledged chunk by chunk.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use dunlin_protocol::id::{LogId, Name};
use dunlin_protocol::limits::EVENT_BYTES_MAX;
use dunlin_protocol::rpc::lines::{LineProducer, Lines, LinesTaken, RejectedLine};
use serde::Serialize;

use super::Said;
use super::arguments::{Place, PublishArguments};
use super::client::{Client, Failure};
use super::output::{Output, note, progress};

/// A chunk is sent at the first of the two.
const CHUNK_BYTES: usize = 1 << 20;
const CHUNK_LINES: u64 = 4096;
/// A longer line is rejected here; it is more than an event may weigh.
const LINE_BYTES_MAX: usize = EVENT_BYTES_MAX - 1024;
/// Rejected lines that are printed one by one; the rest is counted.
const REJECTED_SHOWN: u64 = 20;
/// With a producer a broken connection is tried again for this long: nothing can be taken twice.
const PATIENCE: Duration = Duration::from_secs(30);
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What `--json` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Published {
    pub acknowledged: u64,
    pub rejected: u64,
    pub seconds: f64,
    /// The log that took the last lines: with a producer, what a retry through another node names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

pub fn publish(client: &dyn Client, arguments: PublishArguments, out: &Output) -> anyhow::Result<()> {
    let PublishArguments { source, file, producer, log } = arguments;
    let named = producer.is_some();
    let (input, length): (Box<dyn Read>, Option<u64>) = if file == Path::new("-") {
        (Box::new(io::stdin().lock()), None)
    } else {
        let opened = File::open(&file).with_context(|| {
            format!("{} cannot be opened: name a file of JSON lines, or - for a pipe", file.display())
        })?;
        let found = opened.metadata().ok();
        if found.as_ref().is_some_and(std::fs::Metadata::is_dir) {
            bail!("{} is a directory: name a file of JSON lines, or - for a pipe", file.display());
        }
        let length = found.filter(std::fs::Metadata::is_file).map(|data| data.len());
        (Box::new(opened), length)
    };
    let bar = progress(length, &format!("{}/{}", source.pipeline, source.name));
    let mut chunks = Chunks::new(input, length.is_some());
    let mut publisher = Publisher::new(client, source, producer);
    publisher.log = log;
    let outcome = (|| -> anyhow::Result<()> {
        while let Some(chunk) = chunks.next().with_context(|| format!("{} cannot be read", file.display()))? {
            let bytes = chunk.lines.len() as u64;
            let rejected = publisher.send(chunk)?;
            bar.suspend(|| rejected.iter().for_each(|text| note(text)));
            bar.inc(bytes);
            bar.set_message(format!("{} acknowledged", publisher.acknowledged));
        }
        if publisher.lines == 0 {
            publisher.look()?;
        }
        Ok(())
    })();
    bar.finish_and_clear();
    let published = publisher.summary();
    if publisher.rejected > REJECTED_SHOWN {
        note(&format!("... and {} more rejected lines", publisher.rejected - REJECTED_SHOWN));
    }
    if publisher.rejected > 0
        && let Some(producer) = &publisher.producer
    {
        note(&format!(
            "with --producer a rejected line's number is used up: what is mended is not sent again under '{producer}', \
             publish it as a file of its own and another producer"
        ));
    }
    if let Err(error) = outcome {
        if published.acknowledged == 0 {
            return Err(error);
        }
        let so_far = match published.log.filter(|_| named) {
            Some(log) => format!("{} events were acknowledged before, in log {log}", published.acknowledged),
            None => format!("{} events were acknowledged before", published.acknowledged),
        };
        return Err(error.context(so_far));
    }
    match out.json {
        true => out.object(&published)?,
        false => {
            let log = published.log.filter(|_| named).map_or(String::new(), |log| format!(", log {log}"));
            out.line(&format!(
                "{} acknowledged, {} rejected, {:.1} s{log}",
                published.acknowledged, published.rejected, published.seconds
            ))?
        }
    }
    // The lines themselves were named above.
    if published.rejected > 0 { Err(Said.into()) } else { Ok(()) }
}

/// Sends chunks one after another, each until it is acknowledged.
pub struct Publisher<'a> {
    client: &'a dyn Client,
    source: Place,
    producer: Option<Name>,
    /// Forward to this log's writer.
    pub log: Option<LogId>,
    /// The log that took the last lines.
    taken_by: Option<LogId>,
    began: Instant,
    /// Lines of earlier chunks.
    lines: u64,
    pub acknowledged: u64,
    pub rejected: u64,
}

impl<'a> Publisher<'a> {
    pub fn new(client: &'a dyn Client, source: Place, producer: Option<Name>) -> Publisher<'a> {
        Publisher {
            client,
            source,
            producer,
            log: None,
            taken_by: None,
            began: Instant::now(),
            lines: 0,
            acknowledged: 0,
            rejected: 0,
        }
    }

    /// Waits for the acknowledgement. Answers with a sentence for each of the first rejected lines.
    pub fn send(&mut self, chunk: Chunk) -> Result<Vec<String>, Failure> {
        let before = self.lines;
        let producer = self.producer.clone().map(|producer| LineProducer { producer, first: before + 1 });
        let lines = Lines {
            pipeline: self.source.pipeline.clone(),
            source: self.source.name.clone(),
            producer,
            log: self.log,
            lines: chunk.lines,
        };
        let taken = self.until_taken(lines)?;
        self.lines += chunk.count;
        self.taken_by = taken.log.or(self.taken_by);
        self.acknowledged += taken.acknowledged;
        let mut rejected: Vec<RejectedLine> = chunk.too_long;
        rejected.extend(taken.rejected);
        rejected.sort_by_key(|line| line.line);
        let room = REJECTED_SHOWN.saturating_sub(self.rejected);
        self.rejected += rejected.len() as u64;
        let text = |line: RejectedLine| format!("line {}: {}", before + line.line, line.reason);
        Ok(rejected.into_iter().take(room as usize).map(text).collect())
    }

    /// Nothing was there to send: whether the source is there is asked all the same.
    fn look(&self) -> Result<(), Failure> {
        let Place { pipeline, name: source } = self.source.clone();
        let blank = Bytes::from_static(b"\n");
        self.until_taken(Lines { pipeline, source, producer: None, log: None, lines: blank }).map(|_| ())
    }

    fn until_taken(&self, lines: Lines) -> Result<LinesTaken, Failure> {
        let (began, mut heard) = (Instant::now(), Instant::now());
        let mut said = false;
        loop {
            let failure = match self.client.publish(lines.clone()) {
                Ok(taken) => return Ok(taken),
                Err(failure) => failure,
            };
            let pause = match (&failure, failure.busy_ms()) {
                (_, Some(ms)) => {
                    heard = Instant::now();
                    Duration::from_millis(ms.clamp(10, 30_000))
                }
                (Failure::Broken { .. } | Failure::Unreachable { .. }, None)
                    if lines.producer.is_some() && heard.elapsed() < PATIENCE =>
                {
                    RETRY_AFTER
                }
                _ => return Err(failure),
            };
            // Short waits are how back-pressure works; a person hears of long ones.
            if !said && began.elapsed() > Duration::from_secs(2) {
                note(&format!("waiting: {failure}"));
                said = true;
            }
            sleep(pause);
        }
    }

    pub fn summary(&self) -> Published {
        Published {
            acknowledged: self.acknowledged,
            rejected: self.rejected,
            seconds: self.began.elapsed().as_secs_f64(),
            log: self.taken_by.map(|log| log.to_string()),
        }
    }
}

/// Lines that go in one request.
#[derive(Debug, Default, PartialEq)]
pub struct Chunk {
    pub lines: Bytes,
    pub count: u64,
    /// Lines that were left out; blank lines stand in their place, so that numbers stay.
    pub too_long: Vec<RejectedLine>,
}

/// Cuts an input into chunks. From a pipe, what is there goes out without waiting for more.
pub struct Chunks<R> {
    input: BufReader<R>,
    whole: bool,
    over: bool,
    /// A long line that begins the next chunk.
    held: Option<Vec<u8>>,
}

impl<R: Read> Chunks<R> {
    /// `whole`: the input is there in full, so chunks may be waited for.
    pub fn new(input: R, whole: bool) -> Chunks<R> {
        Chunks { input: BufReader::with_capacity(CHUNK_BYTES, input), whole, over: false, held: None }
    }

    pub fn next(&mut self) -> io::Result<Option<Chunk>> {
        let mut lines = BytesMut::new();
        let mut chunk = Chunk::default();
        let mut line = Vec::new();
        while !self.over && lines.len() < CHUNK_BYTES && chunk.count < CHUNK_LINES {
            let waits = !self.whole && !self.input.buffer().contains(&b'\n');
            if waits && chunk.count > 0 {
                break;
            }
            line.clear();
            match self.held.take() {
                Some(held) => line = held,
                None => {
                    (&mut self.input).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)?;
                }
            }
            if line.is_empty() {
                self.over = true;
                break;
            }
            if chunk.count > 0 && lines.len() + line.len() > 2 * CHUNK_BYTES {
                self.held = Some(line);
                break;
            }
            chunk.count += 1;
            if line.len() > LINE_BYTES_MAX {
                if !line.ends_with(b"\n") {
                    self.skip_line()?;
                }
                let reason = format!("the line is longer than {LINE_BYTES_MAX} bytes");
                chunk.too_long.push(RejectedLine { line: chunk.count, reason });
                line.clear();
            }
            lines.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(&line));
            lines.extend_from_slice(b"\n");
        }
        chunk.lines = lines.freeze();
        Ok((chunk.count > 0).then_some(chunk))
    }

    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Ok(());
            }
            match buffer.iter().position(|byte| *byte == b'\n') {
                Some(at) => {
                    self.input.consume(at + 1);
                    return Ok(());
                }
                None => {
                    let length = buffer.len();
                    self.input.consume(length);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_keep_every_line_and_its_number() {
        let text: String = (0..10_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
        let mut chunks = Chunks::new(text.as_bytes(), true);
        let (mut counts, mut bytes) = (Vec::new(), Vec::new());
        while let Some(chunk) = chunks.next().unwrap() {
            counts.push(chunk.count);
            bytes.extend_from_slice(&chunk.lines);
        }
        assert_eq!(counts, [4096, 4096, 1808]);
        assert_eq!(bytes, text.as_bytes());
    }

    #[test]
    fn a_line_that_is_too_long_leaves_a_blank_in_its_place() {
        let text = format!("{{}}\n{}\n{{}}", "x".repeat(LINE_BYTES_MAX + 10));
        let mut chunks = Chunks::new(text.as_bytes(), true);
        assert_eq!(chunks.next().unwrap().unwrap().lines, "{}\n");
        let chunk = chunks.next().unwrap().unwrap();
        assert_eq!(chunk.lines, "\n{}\n");
        assert_eq!((chunk.count, chunk.too_long.len(), chunk.too_long[0].line), (2, 1, 1));
        assert_eq!(chunks.next().unwrap(), None);
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        // A reader that gives one line at a time, as a slow pipe does.
        struct Slow<'a>(std::slice::Iter<'a, &'a str>);
        impl Read for Slow<'_> {
            fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
                self.0.next().map_or(Ok(0), |line| line.as_bytes().read(to))
            }
        }
        let mut chunks = Chunks::new(Slow(["{}\n", "[]\n"].iter()), false);
        assert_eq!(chunks.next().unwrap().unwrap().lines, "{}\n");
        assert_eq!(chunks.next().unwrap().unwrap().lines, "[]\n");
        assert_eq!(chunks.next().unwrap(), None);
    }
}
