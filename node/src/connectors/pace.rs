//! A connector's clock, and the bell that ends it.

use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dunlin_protocol::time::{Span, Time};

/// The connector was told to end. State: everything acknowledged is in the source log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// Heard by the connector's thread: rings when its [`Leash`] is dropped.
#[derive(Debug)]
pub struct Stop(Receiver<Infallible>);

/// Held by whoever may end the connector.
#[derive(Debug)]
pub struct Leash {
    _held: Sender<Infallible>,
}

impl Stop {
    pub fn pair() -> (Leash, Stop) {
        let (sender, receiver) = channel();
        (Leash { _held: sender }, Stop(receiver))
    }

    pub fn check(&self) -> Result<(), Stopped> {
        match self.0.try_recv() {
            Err(TryRecvError::Empty) => Ok(()),
            Err(TryRecvError::Disconnected) => Err(Stopped),
            Ok(never) => match never {},
        }
    }

    fn wait(&self, span: Span) -> Result<(), Stopped> {
        match self.0.recv_timeout(Duration::from_millis(span.0)) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => Err(Stopped),
            Ok(never) => match never {},
        }
    }
}

/// Time for connectors, so that a test can have its own.
pub trait Clock: Debug + Send + Sync {
    fn now(&self) -> Time;
    /// Returns when `span` has passed, or at once when `stop` rings.
    fn wait(&self, span: Span, stop: &Stop) -> Result<(), Stopped>;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Time {
        // A clock before 1970 is a clock that was never set.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn wait(&self, span: Span, stop: &Stop) -> Result<(), Stopped> {
        stop.wait(span)
    }
}

/// Plays events at the speed of their own times: `times` faster than the clock.
#[derive(Debug)]
pub struct Metronome {
    times: u32,
    /// Event time and clock time of the first event that was played.
    began: Option<(Time, Time)>,
}

impl Metronome {
    pub fn new(times: u32) -> Metronome {
        Metronome { times: times.max(1), began: None }
    }

    /// How long an event of this time has to wait still. The first one sets the beat.
    pub fn due_in(&mut self, event: Time, now: Time) -> Span {
        let (first, began) = *self.began.get_or_insert((event, now));
        let offset = Span(event.since(first).0 / u64::from(self.times));
        began.after(offset).since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_wait_for_their_beat() {
        let mut metronome = Metronome::new(1000);
        assert_eq!(metronome.due_in(Time(50_000), Time(7)), Span(0));
        assert_eq!(metronome.due_in(Time(60_000), Time(7)), Span(10));
        assert_eq!(metronome.due_in(Time(60_000), Time(17)), Span(0));
        assert_eq!(metronome.due_in(Time(40_000), Time(20)), Span(0), "older than the first");
    }

    #[test]
    fn the_bell_ends_a_wait() {
        let (leash, stop) = Stop::pair();
        assert_eq!(stop.check(), Ok(()));
        drop(leash);
        assert_eq!(SystemClock.wait(Span::seconds(3600), &stop), Err(Stopped));
        assert_eq!(stop.check(), Err(Stopped));
    }
}
