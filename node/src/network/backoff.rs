//! How long to leave an address or a node alone after it could not be reached.

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(250);
const LAST: Duration = Duration::from_secs(8);
/// After a refusal: somebody has to change something first.
const REFUSED: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    next: Duration,
    due: Option<Instant>,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { next: FIRST, due: None }
    }
}

impl Backoff {
    pub fn is_due(&self) -> bool {
        self.due.is_none_or(|due| due <= Instant::now())
    }

    pub fn on_failure(&mut self) {
        self.due = Some(Instant::now() + self.next);
        self.next = (self.next * 2).min(LAST);
    }

    pub fn on_refusal(&mut self) {
        self.due = Some(Instant::now() + REFUSED);
        self.next = LAST;
    }
}
