//! What happened, one readable line per transition, and the hash of it all: two runs of one seed must
//! agree on it.

use std::collections::VecDeque;
use std::fmt::Write;

use dunlin_protocol::effect::Input;
use dunlin_protocol::id::NodeId;
use dunlin_protocol::time::Time;
use dunlin_protocol::wire::message::Message;

/// Lines kept for a failure's report; all of them go into the hash.
const LINES_KEPT: usize = 400;
/// What an input may take of a line.
const LINE_BYTES: usize = 200;

#[derive(Debug)]
pub struct Trace {
    hasher: blake3::Hasher,
    lines: VecDeque<String>,
    /// Print every line as it comes.
    pub loud: bool,
}

impl Default for Trace {
    fn default() -> Self {
        Trace { hasher: blake3::Hasher::new(), lines: VecDeque::new(), loud: false }
    }
}

impl Trace {
    pub fn line(&mut self, now: Time, line: String) {
        let mut line = format!("{:>9} {line}", now.0);
        self.hasher.update(line.as_bytes());
        self.hasher.update(b"\n");
        line.truncate(line.floor_char_boundary(300));
        if self.loud {
            eprintln!("{line}");
        }
        self.lines.push_back(line);
        if self.lines.len() > LINES_KEPT {
            self.lines.pop_front();
        }
    }

    /// An input that a node takes. Messages are hashed in full when they are posted.
    pub fn input(
        &mut self,
        now: Time,
        node: usize,
        input: &Input,
        index_of: impl Fn(NodeId) -> Option<usize>,
    ) {
        let mut line = Line::new(format!("n{node} < "));
        let _ = match input {
            Input::Message { from, message } => {
                let from = index_of(*from).map_or("?".into(), |index| index.to_string());
                write!(line, "from n{from}: ").and_then(|()| say(&mut line, message, &index_of))
            }
            Input::Broadcast { author, topic, broadcast } => {
                let (author, after, last) =
                    (index_of(*author), broadcast.after.seq.0, broadcast.last().seq.0);
                write!(line, "broadcast of n{author:?} in {topic:?}: {}..={last}", after + 1)
            }
            Input::Persisted { log, seq } => write!(line, "log {log:?} stands up to {}", seq.0),
            Input::Timer(timer) => write!(line, "{timer:?}"),
            Input::Returned { actor, call, outcome: Ok(outcome) } => {
                write!(line, "call {} of {actor:?} gave {} events", call.0, outcome.emitted.len())
            }
            Input::Read { log, outcome: Ok(records), .. } => {
                write!(line, "{} records read of {log:?}", records.len())
            }
            Input::Replay { log, records } => write!(line, "{} records replayed of {log:?}", records.len()),
            other => write!(line, "{other:?}"),
        };
        self.line(now, line.text);
    }

    /// Bytes that only the hash takes: a message in full, the last link of a log.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    pub fn hash(&self) -> String {
        self.hasher.finalize().to_hex()[..16].to_string()
    }

    pub fn last_lines(&self, count: usize) -> impl Iterator<Item = &String> {
        self.lines.iter().skip(self.lines.len().saturating_sub(count))
    }
}

/// A message's kind and numbers, without its payloads.
fn say(line: &mut Line, message: &Message, index_of: &impl Fn(NodeId) -> Option<usize>) -> std::fmt::Result {
    let named = |node: NodeId| index_of(node).map_or("?".into(), |index| format!("n{index}"));
    match message {
        Message::Swim(datagram) => write!(line, "swim, {} bytes", datagram.len()),
        Message::CatalogHeads(heads) => {
            let heads = heads.iter().map(|(node, head)| format!("{} {}", named(*node), head.seq.0));
            write!(line, "catalog heads {}", heads.collect::<Vec<String>>().join(", "))
        }
        Message::CatalogRecords { node, records } => {
            let (first, last) = (records.first(), records.last());
            let seq = |record: Option<&dunlin_protocol::log::record::Record>| record.map_or(0, |it| it.seq.0);
            write!(line, "catalog records {}..={} of {}", seq(first), seq(last), named(*node))
        }
        Message::Batch { edge, after, slices, head, behind } => {
            let events: usize = slices.iter().map(|slice| slice.events.len()).sum();
            let to = slices.last().map_or(after.seq.0, |slice| slice.position.seq.0);
            write!(
                line,
                "batch on edge {}: {}..={to} of {}, {events} events, {behind} behind",
                edge.0,
                after.seq.0 + 1,
                head.0
            )
        }
        Message::Subscribe { edge, log, from, committed, .. } => {
            write!(line, "subscribe edge {} to {log:?} from {from:?}, committed {}", edge.0, committed.seq.0)
        }
        Message::Credit { edge, total, received, committed } => {
            let (received, committed) = (received.seq.0, committed.seq.0);
            write!(line, "credit {total} on edge {}: received {received}, committed {committed}", edge.0)
        }
        Message::Unsubscribe { .. }
        | Message::Subscribed { .. }
        | Message::FallBack { .. }
        | Message::Refused { .. }
        | Message::Ask { .. }
        | Message::Answer { .. }
        | Message::WantModules { .. }
        | Message::Modules { .. }
        | Message::Offer { .. }
        | Message::InTopic { .. }
        | Message::OutOfTopic { .. }
        | Message::ByGossip { .. } => write!(line, "{message:?}"),
    }
}

/// Ends with an error as soon as it is long enough, so that the rest is not even formatted.
struct Line {
    text: String,
    left: usize,
}

impl Line {
    fn new(text: String) -> Line {
        Line { text, left: LINE_BYTES }
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        if text.len() <= self.left {
            self.left -= text.len();
            self.text.push_str(text);
            return Ok(());
        }
        let end = text.floor_char_boundary(self.left);
        self.text.push_str(&text[..end]);
        self.left = 0;
        Err(std::fmt::Error)
    }
}
