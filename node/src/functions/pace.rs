//! How long an actor's calls take, to tell beforehand whether one is worth a thread of its own.

use std::time::Duration;

/// A call that is expected to take less runs where it is asked for: others on that thread wait so long.
const QUICK: Duration = Duration::from_micros(500);

/// The last two calls, in nanoseconds per event; none: never called. The quicker of them counts, since what
/// else a machine does makes a call longer and never shorter.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace([Option<u64>; 2]);

impl Pace {
    pub fn note(&mut self, events: usize, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let [last, _] = self.0;
        self.0 = [Some(nanoseconds / (events as u64).max(1)), last];
    }

    /// Whether a call of so many events is expected to be over soon. Of a first one nothing is expected.
    pub fn is_quick(&self, events: usize) -> bool {
        let quicker = self.0.iter().flatten().min();
        quicker.is_some_and(|pace| u128::from(*pace) * (events as u128) < QUICK.as_nanos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_quick_when_one_of_the_last_two_says_so() {
        let mut pace = Pace::default();
        let micros = Duration::from_micros;
        assert!(!pace.is_quick(1), "nothing is known");
        pace.note(1, micros(30));
        assert!(pace.is_quick(16) && !pace.is_quick(17));
        pace.note(1, micros(9000));
        assert!(pace.is_quick(16), "one long call may be the machine's");
        pace.note(1, micros(9000));
        assert!(!pace.is_quick(1), "two are the function's");
        pace.note(256, micros(256));
        assert!(pace.is_quick(499) && !pace.is_quick(500));
    }
}
