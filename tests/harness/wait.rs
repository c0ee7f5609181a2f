//! Waiting for a condition, with a deadline.

use std::thread;
use std::time::{Duration, Instant};

const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// Looks again and again until there is something; panics with `what` when there is nothing in time.
#[track_caller]
pub fn wait_for<T>(what: &str, seconds: u64, look: impl FnMut() -> Option<T>) -> T {
    match try_for(seconds, look) {
        Some(found) => found,
        None => panic!("not within {seconds} s: {what}"),
    }
}

/// The same, for what need not come.
pub fn try_for<T>(seconds: u64, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(LOOK_AGAIN);
    }
}
