//! Places in the commit path at which a debug build can be told to die, for the tests of `tests/`.
//!
//! `DUNLIN_CRASH_AT=after-sync:3` ends the process the third time that it comes to `after-sync`, as
//! `kill -9` does: nothing is flushed, nothing is said, no destructor runs. Release builds do not
//! look at the variable.

/// A labelled place. The order is that of a commit's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The core wants records on the disk; the storage has not heard of them.
    BeforePersist,
    /// A new log's folder has its first note and no name.
    HalfBorn,
    /// The group is staged, no byte of it is in the file.
    BeforeWrite,
    /// Half of the group's bytes are in the file.
    HalfWrite,
    /// A new segment holds its header and nothing else.
    HalfSegment,
    /// All bytes are in the file, none is synced.
    AfterWrite,
    /// Synced; the note does not say so yet.
    AfterSync,
    /// Half of the note is written.
    HalfNote,
    /// The note stands, the core does not know.
    AfterNote,
    /// The core knows, its effects are not carried out.
    AfterPersisted,
    /// A publisher is about to be answered.
    BeforeAnswer,
    /// It was answered.
    AfterAnswer,
    /// Committed records are about to go to another node.
    BeforeSend,
    /// A function is about to run.
    BeforeInvoke,
    /// It ran; the core does not know the outcome.
    AfterInvoke,
    /// Half of a batch stands in a sink's file.
    HalfSink,
    /// All of it, synced; the commit that counts it is still to come.
    AfterSink,
    /// A commit stands in the log and not in the keyed state.
    BeforeApply,
    /// It stands in both.
    AfterApply,
    /// Half of a snapshot stands under its temporary name.
    HalfSnapshot,
    /// It is in its place, the older one too.
    AfterSnapshot,
    /// Segments are about to go.
    BeforeTruncate,
    /// The first of them is gone.
    AfterTruncate,
}

impl Point {
    pub const ALL: [Point; 23] = [
        Point::BeforePersist,
        Point::HalfBorn,
        Point::BeforeWrite,
        Point::HalfWrite,
        Point::HalfSegment,
        Point::AfterWrite,
        Point::AfterSync,
        Point::HalfNote,
        Point::AfterNote,
        Point::AfterPersisted,
        Point::BeforeAnswer,
        Point::AfterAnswer,
        Point::BeforeSend,
        Point::BeforeInvoke,
        Point::AfterInvoke,
        Point::HalfSink,
        Point::AfterSink,
        Point::BeforeApply,
        Point::AfterApply,
        Point::HalfSnapshot,
        Point::AfterSnapshot,
        Point::BeforeTruncate,
        Point::AfterTruncate,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Point::BeforePersist => "before-persist",
            Point::HalfBorn => "half-born",
            Point::BeforeWrite => "before-write",
            Point::HalfWrite => "half-write",
            Point::HalfSegment => "half-segment",
            Point::AfterWrite => "after-write",
            Point::AfterSync => "after-sync",
            Point::HalfNote => "half-note",
            Point::AfterNote => "after-note",
            Point::AfterPersisted => "after-persisted",
            Point::BeforeAnswer => "before-answer",
            Point::AfterAnswer => "after-answer",
            Point::BeforeSend => "before-send",
            Point::BeforeInvoke => "before-invoke",
            Point::AfterInvoke => "after-invoke",
            Point::HalfSink => "half-sink",
            Point::AfterSink => "after-sink",
            Point::BeforeApply => "before-apply",
            Point::AfterApply => "after-apply",
            Point::HalfSnapshot => "half-snapshot",
            Point::AfterSnapshot => "after-snapshot",
            Point::BeforeTruncate => "before-truncate",
            Point::AfterTruncate => "after-truncate",
        }
    }
}

pub use armed::{arm, at, halfway};

/// Release builds: nothing.
#[cfg(not(debug_assertions))]
mod armed {
    use super::Point;

    pub fn arm() -> Result<(), String> {
        Ok(())
    }

    pub fn at(_point: Point) {}

    pub fn halfway(_point: Point, _half: impl FnOnce()) {}
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    use super::Point;

    /// Where to die, and how often the node passes there before.
    struct Armed {
        point: Point,
        left: AtomicU64,
    }

    static ARMED: OnceLock<Armed> = OnceLock::new();

    const VARIABLE: &str = "DUNLIN_CRASH_AT";

    /// Reads the variable, once, when the node starts.
    pub fn arm() -> Result<(), String> {
        let Ok(text) = std::env::var(VARIABLE) else { return Ok(()) };
        let wrong = || {
            let labels = Point::ALL.map(Point::label).join(", ");
            format!("{VARIABLE} is '{text}' and must be LABEL:COUNT, with a label of: {labels}")
        };
        let (label, count) = text.split_once(':').ok_or_else(wrong)?;
        let point = Point::ALL.into_iter().find(|point| point.label() == label).ok_or_else(wrong)?;
        let count = count.parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?;
        tracing::warn!("{VARIABLE}: this node ends itself at {label}, the {count}. time it comes there");
        // Armed once per process; a second start in one process keeps the first.
        let _ = ARMED.set(Armed { point, left: AtomicU64::new(count) });
        Ok(())
    }

    /// Ends the process here, if it was told to and the count is up.
    pub fn at(point: Point) {
        if is_due(point) {
            die();
        }
    }

    /// The same, after doing a half of what comes next.
    pub fn halfway(point: Point, half: impl FnOnce()) {
        if is_due(point) {
            half();
            die();
        }
    }

    fn is_due(point: Point) -> bool {
        let Some(armed) = ARMED.get().filter(|armed| armed.point == point) else { return false };
        armed.left.fetch_sub(1, Ordering::AcqRel) == 1
    }

    fn die() {
        // The signal is delivered before the call returns; should it be refused, abort is the next best.
        let _ = kill_process(getpid(), Signal::KILL);
        std::process::abort();
    }
}
