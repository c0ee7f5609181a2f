//! The node's clock: wall time at the start, then monotonic, so that it never goes back.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use dunlin_protocol::time::Time;

#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    at_start: u64,
}

impl Clock {
    pub fn start() -> Clock {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { started: Instant::now(), at_start: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
    }

    pub fn now(&self) -> Time {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Time(self.at_start.saturating_add(elapsed))
    }

    /// When the clock will show `at`; an instant in the past is now.
    pub fn instant_of(&self, at: Time) -> Instant {
        let ahead = at.0.saturating_sub(self.at_start);
        // A timer a month ahead is set again then.
        self.started
            + std::time::Duration::from_millis(
                ahead.min(self.started.elapsed().as_millis() as u64 + 2_592_000_000),
            )
    }
}
