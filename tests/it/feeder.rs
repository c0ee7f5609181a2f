//! Publishers that do not give up: each request is sent again, with its sequence, until it is
//! acknowledged, whatever happens to the node meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dunlin_tests::{Node, try_request};

use crate::counting::Ledger;

/// Lines of one request.
const LINES: u64 = 20;
/// A node that does not answer for this long is lost.
const PATIENCE: Duration = Duration::from_secs(90);
const RETRY: Duration = Duration::from_millis(50);

/// A publisher at one node, on a thread of its own.
#[derive(Debug)]
pub struct Feeder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Ledger>>,
}

impl Feeder {
    /// Publishes to `PIPELINE/events` as producer `fPUBLISHER`, a request every `pace`.
    pub fn start(node: &Node, pipeline: &str, publisher: usize, keys: u64, pace: Duration) -> Feeder {
        let stop: Arc<AtomicBool> = Arc::default();
        let door = Door {
            address: node.http.clone(),
            bearer: node.bearer.clone(),
            path: format!("/v1/streams/{pipeline}/events"),
            producer: format!("f{publisher}"),
        };
        let stopping = stop.clone();
        let thread = thread::spawn(move || {
            let mut ledger = Ledger::over(keys);
            let mut sequence = 1;
            while !stopping.load(Ordering::Acquire) {
                door.send(sequence, &ledger.write(publisher, LINES));
                sequence += LINES;
                thread::sleep(pace);
            }
            ledger
        });
        Feeder { stop, thread: Some(thread) }
    }

    /// Waits for the last acknowledgement; what was published.
    #[track_caller]
    pub fn end(mut self) -> Ledger {
        self.stop.store(true, Ordering::Release);
        self.thread.take().unwrap().join().expect("a publisher was refused: its reason is above")
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

struct Door {
    address: String,
    bearer: String,
    path: String,
    producer: String,
}

impl Door {
    /// Until it is acknowledged. A gap (something acknowledged is not there any more) is a panic.
    fn send(&self, sequence: u64, lines: &str) {
        let sequence = sequence.to_string();
        let headers = [("producer", self.producer.as_str()), ("sequence", sequence.as_str())];
        let began = Instant::now();
        loop {
            let answer = try_request("POST", &self.address, &self.path, Some(&self.bearer), &headers, lines);
            match &answer {
                Ok(answer) if answer.status == 200 => return,
                // It waits for readers or its disk, or has just started.
                Ok(answer) if [429, 503, 507].contains(&answer.status) => {}
                Ok(answer) => panic!("{} at {sequence}: {answer:?}", self.producer),
                Err(_) => {}
            }
            assert!(began.elapsed() < PATIENCE, "{} at {sequence}: {answer:?}", self.producer);
            thread::sleep(RETRY);
        }
    }
}
