//! The connectors that run on this node: one thread each, ended by letting go of its leash.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dunlin_protocol::effect::SourceStream;
use dunlin_protocol::id::{LogId, NodeId};
use dunlin_protocol::pipeline::manifest::Connector;
use dunlin_protocol::time::Span;

use super::feed::{Counts, Feed, PublishDoor};
use super::pace::{Clock, Leash, Stop, Stopped, SystemClock};
use super::{file_source, host_source};

/// Before a connector that panicked goes on.
const RESTART_WAIT: Span = Span::seconds(1);

/// Where connectors stand.
#[derive(Debug, Clone)]
pub struct Ground {
    pub node: NodeId,
    /// The node's data folder: a source's relative path begins here, and its disk is measured.
    pub data_folder: PathBuf,
}

/// The node's running connectors. Every call returns at once.
#[derive(Debug)]
pub struct Connectors<D> {
    doors: D,
    ground: Ground,
    clock: Arc<dyn Clock>,
    running: BTreeMap<LogId, Running>,
}

#[derive(Debug)]
struct Running {
    _leash: Leash,
    counts: Arc<Counts>,
}

/// What a connector did since it was started, for `/metrics` and `show`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    pub log: LogId,
    pub published: u64,
    pub rejected: u64,
    pub skipped: u64,
    pub restarts: u64,
    /// Why nothing comes through it, if so.
    pub trouble: Option<String>,
}

impl<D: PublishDoor> Connectors<D> {
    pub fn new(doors: D, ground: Ground) -> Connectors<D> {
        Connectors::with_clock(doors, ground, Arc::new(SystemClock))
    }

    pub fn with_clock(doors: D, ground: Ground, clock: Arc<dyn Clock>) -> Connectors<D> {
        Connectors { doors, ground, clock, running: BTreeMap::new() }
    }

    /// Feeds `log` from sequence `next` on. One that runs already for this log is ended first:
    /// should both be under way for a moment, the log takes each sequence once.
    pub fn start(&mut self, log: LogId, stream: Arc<SourceStream>, next: u64) {
        self.stop(log);
        if stream.connector == Connector::Publish {
            return;
        }
        let (leash, stop) = Stop::pair();
        let shown = format!("{}/{}", stream.pipeline, stream.name);
        let outside = (self.clock.clone(), stop);
        let feed = match Feed::new(self.doors.clone(), log, stream, next, outside, &self.ground.data_folder) {
            Ok(feed) => feed,
            Err(why) => return tracing::error!(source = %shown, "a connector cannot start: {why}"),
        };
        let counts = feed.counts().clone();
        let ground = self.ground.clone();
        let thread = std::thread::Builder::new().name(format!("connector {shown}"));
        // Not joined: it ends by itself at its next look at the bell.
        match thread.spawn(move || supervise(feed, &ground)) {
            Ok(_) => {
                self.running.insert(log, Running { _leash: leash, counts });
            }
            Err(why) => {
                tracing::error!(source = %shown, "a connector cannot start, the machine has no thread left ({why}); restart the node")
            }
        }
    }

    /// Ends the connector of this log. What it has under way may still be acknowledged.
    pub fn stop(&mut self, log: LogId) {
        self.running.remove(&log);
    }

    pub fn stop_all(&mut self) {
        self.running.clear();
    }

    pub fn tallies(&self) -> Vec<Tally> {
        let tally = |(log, running): (&LogId, &Running)| Tally {
            log: *log,
            published: running.counts.published.load(Ordering::Relaxed),
            rejected: running.counts.rejected.load(Ordering::Relaxed),
            skipped: running.counts.skipped.load(Ordering::Relaxed),
            restarts: running.counts.restarts.load(Ordering::Relaxed),
            trouble: running.counts.trouble(),
        };
        self.running.iter().map(tally).collect()
    }
}

/// Runs the connector until it is stopped; behind a panic it goes on where the log ends.
fn supervise<D: PublishDoor>(mut feed: Feed<D>, ground: &Ground) {
    loop {
        // `next` moves in one step, after an acknowledgement: no panic leaves it in between.
        if let Ok(Stopped) = catch_unwind(AssertUnwindSafe(|| run(&mut feed, ground))) {
            return;
        }
        feed.counts().restarts.fetch_add(1, Ordering::Relaxed);
        tracing::error!(source = %feed.shown(), next = feed.next(), "a connector panicked and is restarted");
        if feed.wait(RESTART_WAIT).is_err() {
            return;
        }
    }
}

fn run<D: PublishDoor>(feed: &mut Feed<D>, ground: &Ground) -> Stopped {
    let stream = feed.stream().clone();
    match &stream.connector {
        Connector::Publish => Stopped,
        Connector::File { path, pace } => {
            file_source::run(feed, &ground.data_folder.join(Path::new(path)), *pace)
        }
        Connector::Host { every } => host_source::run(feed, ground.node, &ground.data_folder, *every),
    }
}
