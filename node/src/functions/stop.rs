//! Why a guest was stopped, as a sentence for whoever wrote it.

use std::error::Error;
use std::fmt;

use dunlin_protocol::effect::{Again, CallError};
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::guest::Guest;

/// Frames of a guest's backtrace that stand in a reason.
const FRAMES_MAX: usize = 6;

/// The host's own reasons to stop a guest.
#[derive(Debug)]
pub(super) enum Stop {
    HostCalls { max: u64 },
    CommitBytes { max: usize },
    ForeignKey { key: String },
    LongKey { bytes: usize, max: usize },
    RandomBytes { max: u64 },
}

impl Error for Stop {}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::HostCalls { max } => {
                write!(f, "it called the host more than {max} times in one call; do more per host call")
            }
            Stop::CommitBytes { max } => {
                write!(f, "it emitted and changed more than {max} bytes in one call; emit less per event")
            }
            Stop::ForeignKey { key } => write!(
                f,
                "it reached for the state of '{key}', which is no key of its batch; \
                 use an event's key, or that key followed by '/'"
            ),
            Stop::LongKey { bytes, max } => {
                write!(f, "it used a state key of {bytes} bytes, and one may have {max}; use a shorter one")
            }
            Stop::RandomBytes { max } => {
                write!(f, "it asked for more than {max} random bytes at once; ask for fewer")
            }
        }
    }
}

/// What a call that wasmtime ended with `error` failed of. Another try may help: halves find the
/// event that is to blame.
pub(super) fn call_error(stage: &str, error: &wasmtime::Error, guest: &Guest) -> CallError {
    let reason = format!("the function was stopped: {}{}", cause(error, guest), backtrace(error));
    CallError { stage: stage.to_owned(), reason, again: Again::Maybe }
}

fn cause(error: &wasmtime::Error, guest: &Guest) -> String {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return stop.to_string();
    }
    if let Some(I32Exit(status)) = error.downcast_ref::<I32Exit>() {
        return format!("it ended itself with exit status {status} instead of returning");
    }
    let Some(trap) = error.downcast_ref::<Trap>() else {
        return format!("{:#}{}", error.root_cause(), guest.last_words());
    };
    match trap {
        Trap::OutOfFuel => {
            let fuel = guest.limits.fuel;
            format!("it used up its fuel of {fuel}; raise `limits.fuel` or do less per event")
        }
        Trap::Interrupt => {
            let seconds = guest.limits.call_time_max.as_secs_f64();
            format!("it ran longer than {seconds} s in one call; do less per event")
        }
        Trap::StackOverflow => "it used up its stack; recurse less deeply".to_owned(),
        Trap::MemoryOutOfBounds => {
            "it reached outside its memory, as a recursion that is too deep does".to_owned()
        }
        _ if guest.memory_refused() => {
            let mebibytes = guest.limits.memory as f64 / f64::from(1 << 20);
            format!("it needs more than its {mebibytes} MiB of memory; raise `limits.memory` or keep less")
        }
        trap => format!("{trap}{}", guest.last_words()),
    }
}

/// The innermost guest functions, ` (at f, called by g, called by h)`.
fn backtrace(error: &wasmtime::Error) -> String {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else { return String::new() };
    let names: Vec<String> = trace
        .frames()
        .iter()
        .filter_map(|frame| frame.func_name())
        .map(|symbol| format!("{:#}", rustc_demangle::demangle(symbol)))
        .filter(|name| !is_machinery(name))
        .take(FRAMES_MAX)
        .collect();
    if names.is_empty() {
        return String::new();
    }
    format!(" (at {})", names.join(", called by "))
}

/// What a panic runs through, in every Rust guest the same.
fn is_machinery(name: &str) -> bool {
    let paths = ["std::", "core::", "alloc::", "__rustc::", "<std::", "<core::", "<alloc::"];
    paths.iter().any(|path| name.starts_with(path)) || ["rust_panic", "abort"].contains(&name)
}
