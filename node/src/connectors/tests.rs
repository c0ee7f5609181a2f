//! Sources against a log that behaves like the core's: each sequence once, gaps refused.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use dunlin_protocol::effect::SourceStream;
use dunlin_protocol::event::Event;
use dunlin_protocol::id::{LogId, NodeId};
use dunlin_protocol::pipeline::manifest::{Connector, Pace, Source};
use dunlin_protocol::rpc::{Fault, FaultKind, Publish};
use dunlin_protocol::time::{Span, Time};

use super::*;

const LOG: LogId = LogId([3; 16]);
const DEADLINE: Duration = Duration::from_secs(20);

/// What the door does with the next request instead of taking it.
enum Mishap {
    Fault(FaultKind),
    Panic,
    /// The request is taken, and its answer lost.
    NoAnswer,
}

#[derive(Default)]
struct Taken {
    last: u64,
    events: Vec<(u64, Event)>,
    /// Clock time and size of each request that was taken.
    requests: Vec<(Time, usize)>,
    mishaps: VecDeque<Mishap>,
    refused: u64,
}

#[derive(Clone)]
struct Log {
    taken: Arc<(Mutex<Taken>, Condvar)>,
    clock: Arc<Quick>,
}

impl PublishDoor for Log {
    fn publish(&self, publish: Publish) -> Result<Published, Fault> {
        assert_eq!(publish.log, Some(LOG));
        let range = publish.producer.unwrap();
        assert_eq!(range.producer.as_str(), "connector");
        assert_eq!(range.sequences.len(), publish.events.len());
        let mut taken = self.taken.0.lock().unwrap();
        let mishap = taken.mishaps.pop_front();
        match mishap {
            Some(Mishap::Panic) => {
                drop(taken);
                panic!("the door is jammed");
            }
            Some(Mishap::Fault(kind)) => {
                taken.refused += 1;
                self.taken.1.notify_all();
                return Err(Fault { kind, detail: "not now".into() });
            }
            Some(Mishap::NoAnswer) | None => {}
        }
        assert!(range.first <= taken.last + 1, "a gap before {}", range.first);
        let known = taken.last;
        let fresh = range.sequences.iter().copied().zip(publish.events).filter(|(seq, _)| *seq > known);
        taken.events.extend(fresh);
        taken.last = known.max(range.last);
        taken.requests.push((self.clock.now(), range.sequences.len()));
        self.taken.1.notify_all();
        if matches!(mishap, Some(Mishap::NoAnswer)) {
            return Err(Fault { kind: FaultKind::Unavailable, detail: "no answer".into() });
        }
        Ok(Published { log: LOG, acknowledged: range.sequences.len() as u64, last: taken.last })
    }
}

/// A clock on which waiting takes (nearly) no time.
#[derive(Debug, Default)]
struct Quick(AtomicU64);

impl Clock for Quick {
    fn now(&self) -> Time {
        Time(self.0.load(Ordering::SeqCst))
    }
    fn wait(&self, span: Span, stop: &Stop) -> Result<(), Stopped> {
        SystemClock.wait(Span(1), stop)?;
        self.0.fetch_add(span.0, Ordering::SeqCst);
        Ok(())
    }
}

struct Bench {
    folder: tempfile::TempDir,
    log: Log,
    connectors: Connectors<Log>,
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(Quick::default());
        let log = Log { taken: Arc::default(), clock: clock.clone() };
        let ground = Ground { node: NodeId([1; 32]), data_folder: folder.path().to_path_buf() };
        let connectors = Connectors::with_clock(log.clone(), ground, clock);
        Bench { folder, log, connectors }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn append(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn mishaps(&self, mishaps: impl IntoIterator<Item = Mishap>) {
        self.log.taken.0.lock().unwrap().mishaps.extend(mishaps);
    }

    fn start(&mut self, connector: Connector, next: u64) {
        let (key, time) = match connector {
            Connector::Host { .. } => (None, None),
            Connector::File { .. } | Connector::Publish => (Some("k".into()), Some("t".into())),
        };
        let source = Source { key, time, lateness: Span(0), connector: connector.clone() };
        let (pipeline, name) = ("p".parse().unwrap(), "s".parse().unwrap());
        self.connectors.start(LOG, Arc::new(SourceStream { pipeline, name, source, connector }), next);
    }

    fn file(&mut self, path: &str, pace: Pace, next: u64) {
        self.log.taken.0.lock().unwrap().last = next - 1;
        self.start(Connector::File { path: path.into(), pace }, next);
    }

    /// Waits for the log to be so; a test that fails here fails by its deadline.
    #[track_caller]
    fn until(&self, met: impl Fn(&Taken) -> bool) {
        let guard = self.log.taken.0.lock().unwrap();
        let (taken, waited) =
            self.log.taken.1.wait_timeout_while(guard, DEADLINE, |taken| !met(taken)).unwrap();
        assert!(!waited.timed_out(), "the log stands at {}", taken.last);
    }

    #[track_caller]
    fn until_last(&self, last: u64) {
        self.until(|taken| taken.last >= last);
        assert_eq!(self.log.taken.0.lock().unwrap().last, last);
    }

    fn keys(&self) -> Vec<(u64, String)> {
        let taken = self.log.taken.0.lock().unwrap();
        taken.events.iter().map(|(seq, e)| (*seq, String::from_utf8(e.key.to_vec()).unwrap())).collect()
    }

    fn until_trouble(&self, so: impl Fn(Option<String>) -> bool) {
        let deadline = std::time::Instant::now() + DEADLINE;
        while !so(self.tally().trouble) {
            assert!(std::time::Instant::now() < deadline, "{:?}", self.tally());
            std::thread::yield_now();
        }
    }

    fn tally(&self) -> Tally {
        self.connectors.tallies().remove(0)
    }
}

fn rows(range: std::ops::Range<u64>) -> String {
    range.map(|n| format!("k{n},{}\n", 1_000_000 + n * 1000)).collect()
}

fn expect(lines: impl IntoIterator<Item = u64>) -> Vec<(u64, String)> {
    lines.into_iter().map(|n| (n, format!("k{n}"))).collect()
}

#[test]
fn a_csv_is_published_line_by_line_in_bounded_requests() {
    let mut bench = Bench::new();
    bench.append("in.csv", &format!("k,t\n{}", rows(1..3001)));
    bench.file("in.csv", Pace::Fast, 1);
    bench.until_last(3000);
    assert_eq!(bench.keys(), expect(1..3001));
    let taken = bench.log.taken.0.lock().unwrap();
    assert_eq!(taken.requests.iter().map(|(_, size)| *size).collect::<Vec<_>>(), [1024, 1024, 952]);
    assert_eq!(&taken.events[0].1.payload[..], br#"{"k":"k1","t":1001000}"#);
}

#[test]
fn requests_are_bounded_in_bytes() {
    let mut bench = Bench::new();
    let pad = "x".repeat(100 << 10);
    (1..6).for_each(|n| bench.append("in", &format!("{{\"k\":\"k{n}\",\"t\":{n},\"pad\":\"{pad}\"}}\n")));
    bench.file("in", Pace::Fast, 1);
    bench.until_last(5);
    assert!(bench.log.taken.0.lock().unwrap().requests.iter().all(|(_, size)| *size <= 2));
}

#[test]
fn it_goes_on_at_the_next_line() {
    let mut bench = Bench::new();
    bench.append("in.csv", &format!("k,t\n{}", rows(1..11)));
    bench.file("in.csv", Pace::Fast, 8);
    bench.until_last(10);
    assert_eq!(bench.keys(), expect(8..11));
}

#[test]
fn rejected_lines_keep_their_numbers_and_are_counted() {
    let mut bench = Bench::new();
    bench.append(
        "in.jsonl",
        "{\"k\":\"k1\",\"t\":1}\nnonsense\n\n{\"t\":1}\n{\"k\":\"k5\",\"t\":1}\n{\"k\":\"x\"}\n",
    );
    bench.file("in.jsonl", Pace::Fast, 1);
    bench.until_last(6);
    assert_eq!(bench.keys(), expect([1, 5]));
    bench.append("in.jsonl", "{\"k\":\"k7\",\"t\":1}\n");
    bench.until_last(7);
    // The count follows the acknowledgement that the log has seen; the next one comes behind it.
    assert_eq!(bench.tally().rejected, 3);
}

#[test]
fn appended_lines_are_taken_when_they_are_whole() {
    let mut bench = Bench::new();
    bench.append("in.jsonl", "{\"k\":\"k1\",\"t\":1}\n{\"k\":\"k2\",");
    bench.file("in.jsonl", Pace::Fast, 1);
    bench.until_last(1);
    bench.append("in.jsonl", "\"t\":2}");
    bench.until_last(2);
    bench.append("in.jsonl", "\n{\"k\":\"k3\",\"t\":3}\n");
    bench.until_last(3);
    assert_eq!(bench.keys(), expect(1..4));
}

#[test]
fn a_missing_file_is_waited_for_and_a_replaced_one_read_on_by_number() {
    let mut bench = Bench::new();
    bench.file("in.csv", Pace::Fast, 1);
    bench.until_trouble(|trouble| trouble.is_some_and(|why| why.contains("in.csv' cannot be read")));
    fs::write(bench.path("new"), format!("k,t\n{}", rows(1..5))).unwrap();
    fs::rename(bench.path("new"), bench.path("in.csv")).unwrap();
    bench.until_last(4);
    bench.until_trouble(|trouble| trouble.is_none());
    fs::write(bench.path("new"), format!("k,t\n{}", rows(1..7))).unwrap();
    fs::rename(bench.path("new"), bench.path("in.csv")).unwrap();
    bench.until_last(6);
    assert_eq!(bench.keys(), expect(1..7));
}

#[test]
fn nothing_is_skipped_when_the_node_is_busy_or_fails() {
    let mut bench = Bench::new();
    bench.append("in.csv", &format!("k,t\n{}", rows(1..2001)));
    bench.mishaps([
        Mishap::Fault(FaultKind::Busy { retry_after_ms: 50 }),
        Mishap::Fault(FaultKind::Storage),
        Mishap::NoAnswer,
        Mishap::Fault(FaultKind::Conflict),
    ]);
    bench.file("in.csv", Pace::Fast, 1);
    bench.until_last(2000);
    assert_eq!(bench.keys(), expect(1..2001));
}

#[test]
fn a_panic_restarts_behind_the_last_acknowledged_line() {
    let mut bench = Bench::new();
    bench.append("in.csv", &format!("k,t\n{}", rows(1..3)));
    bench.file("in.csv", Pace::Fast, 1);
    bench.until_last(2);
    bench.mishaps([Mishap::Panic]);
    bench.append("in.csv", &rows(3..5));
    bench.until_last(4);
    assert_eq!(bench.keys(), expect(1..5));
    assert_eq!(bench.tally().restarts, 1);
}

#[test]
fn pace_follows_event_time() {
    let mut bench = Bench::new();
    bench.append("in.csv", "k,t\nk1,1000000\nk2,1010000\nk3,1010000\nk4,1030000\n");
    bench.file("in.csv", Pace::Times(10), 1);
    bench.until_last(4);
    let taken = bench.log.taken.0.lock().unwrap();
    let began = taken.requests[0].0;
    let seen: Vec<_> = taken.requests.iter().map(|(at, size)| (at.since(began).0, *size)).collect();
    assert_eq!(seen, [(0, 1), (1000, 2), (3000, 1)]);
}

#[test]
fn a_host_gives_samples_and_skips_those_that_do_not_fit() {
    let mut bench = Bench::new();
    bench.mishaps([Mishap::Fault(FaultKind::Busy { retry_after_ms: 5 })]);
    bench.start(Connector::Host { every: Span(1000) }, 1);
    bench.until(|taken| taken.last >= 3);
    let taken = bench.log.taken.0.lock().unwrap();
    let sequences: Vec<u64> = taken.events.iter().map(|(seq, _)| *seq).take(3).collect();
    assert_eq!((taken.refused, sequences), (1, vec![1, 2, 3]));
    let (_, event) = &taken.events[0];
    let payload: serde_json::Value = serde_json::from_slice(&event.payload).unwrap();
    assert_eq!(event.key, payload["node"].as_str().unwrap());
    assert_eq!(event.time, Time(1000));
    assert_eq!(bench.tally().skipped, 1);
}

#[test]
fn a_stopped_connector_lets_go_of_its_door() {
    let mut bench = Bench::new();
    bench.append("in.csv", &format!("k,t\n{}", rows(1..3)));
    bench.file("in.csv", Pace::Fast, 1);
    bench.until_last(2);
    bench.connectors.stop_all();
    assert!(bench.connectors.tallies().is_empty());
    let deadline = std::time::Instant::now() + DEADLINE;
    // The bench and its connectors hold one each.
    while Arc::strong_count(&bench.log.taken) > 2 {
        assert!(std::time::Instant::now() < deadline, "its thread is still there");
        std::thread::yield_now();
    }
}
