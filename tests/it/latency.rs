//! How long an event takes from its publisher to a tap behind a stage, measured while something
//! else goes on.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dunlin_tests::{Node, guest, try_for, wait_for};
use serde_json::Value;

/// What an event may take before the probe counts as stuck.
const STUCK_S: u64 = 60;

/// A small pipeline that must not suffer: `events`, then a keyed WASM stage `calm`.
pub fn calm_pipeline(name: &str) -> String {
    format!(
        r#"
name = "{name}"
[source.events]
key = "k"
[stage.calm]
from = ["events"]
key  = "k"
wasm = "{}"
[placement.calm]
shares = 1
"#,
        guest("clean").display()
    )
}

/// Publishes single events to a `calm_pipeline` and sees them come out of its stage.
#[derive(Debug)]
pub struct Probe<'a> {
    node: &'a Node,
    pipeline: String,
    seen: Arc<Mutex<BTreeMap<u64, Instant>>>,
    tap: TcpStream,
    reader: Option<JoinHandle<()>>,
    next: u64,
}

/// Of one measurement.
#[derive(Debug, Clone, Copy)]
pub struct Quantiles {
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
    pub events: usize,
}

impl std::fmt::Display for Quantiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Quantiles { p50, p99, max, events } = self;
        write!(f, "p50 {p50:.1?}, p99 {p99:.1?}, longest {max:.1?} of {events} events")
    }
}

impl<'a> Probe<'a> {
    #[track_caller]
    pub fn start(node: &'a Node, pipeline: &str) -> Probe<'a> {
        let mut tap = TcpStream::connect(&node.http).unwrap();
        let request = format!(
            "GET /v1/streams/{pipeline}/calm?from=now&follow=true HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\r\n",
            node.http, node.bearer
        );
        tap.write_all(request.as_bytes()).unwrap();
        let seen: Arc<Mutex<BTreeMap<u64, Instant>>> = Arc::default();
        let (lines, noting) = (BufReader::new(tap.try_clone().unwrap()), seen.clone());
        let reader = thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let event: Option<Value> =
                    line.starts_with('{').then(|| serde_json::from_str(&line).ok()).flatten();
                if let Some(n) = event.and_then(|event| event["payload"]["n"].as_u64()) {
                    noting.lock().unwrap().entry(n).or_insert_with(Instant::now);
                }
            }
        });
        let mut probe =
            Probe { node, pipeline: pipeline.to_string(), seen, tap, reader: Some(reader), next: 0 };
        // The tap follows from when it is there: until then nothing comes.
        wait_for("the tap sees the probe's events", 60, || {
            probe.send();
            (!probe.seen.lock().unwrap().is_empty()).then_some(())
        });
        probe
    }

    fn send(&mut self) -> (u64, Instant) {
        let n = self.next;
        self.next += 1;
        let line = format!("{{\"k\":\"K{}\",\"n\":{n},\"price\":1.5}}\n", n % 7);
        let began = Instant::now();
        let answer = self.node.post(&format!("/v1/streams/{}/events", self.pipeline), &[], &line);
        assert_eq!(answer.status, 200, "{answer:?}");
        (n, began)
    }

    /// One event after another, each `pace` behind the last, until `done`; then what they took.
    #[track_caller]
    pub fn measure(&mut self, pace: Duration, mut done: impl FnMut() -> bool) -> Quantiles {
        let mut sent = Vec::new();
        while !done() {
            sent.push(self.send());
            thread::sleep(pace);
        }
        let mut took = Vec::new();
        for (n, began) in sent {
            let came = try_for(STUCK_S, || self.seen.lock().unwrap().get(&n).copied());
            took.push(came.unwrap_or_else(|| panic!("event {n} did not come out in {STUCK_S} s")) - began);
        }
        took.sort_unstable();
        let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
        Quantiles { p50: at(0.5), p99: at(0.99), max: at(1.0), events: took.len() }
    }

    /// So many events.
    #[track_caller]
    pub fn measure_events(&mut self, count: usize) -> Quantiles {
        let mut left = count;
        self.measure(Duration::from_millis(10), || {
            left = left.wrapping_sub(1);
            left == usize::MAX
        })
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        let _ = self.tap.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// The most memory that a node had while the value lived.
#[derive(Debug)]
pub struct Peak {
    stop: Arc<Mutex<bool>>,
    thread: Option<JoinHandle<u64>>,
}

impl Peak {
    pub fn of(node: &Node) -> Peak {
        let stop: Arc<Mutex<bool>> = Arc::default();
        let (stopping, statm) = (stop.clone(), node.statm());
        let thread = thread::spawn(move || {
            let mut most = 0;
            while !*stopping.lock().unwrap() {
                most = most.max(dunlin_tests::resident_bytes(&statm));
                thread::sleep(Duration::from_millis(20));
            }
            most
        });
        Peak { stop, thread: Some(thread) }
    }

    pub fn bytes(mut self) -> u64 {
        *self.stop.lock().unwrap() = true;
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        *self.stop.lock().unwrap() = true;
    }
}
