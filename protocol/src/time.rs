//! Time as data: milliseconds since 1970 (UTC). The core never asks a clock; time comes in.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

/// An instant, in milliseconds since 1970-01-01T00:00:00Z. Printed as RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Time(pub u64);

impl Time {
    pub const MAX: Time = Time(u64::MAX);
    /// The last instant that has a spelling: near the end of the year 9999.
    pub const LATEST: Time = Time(253_402_207_200_000);

    pub fn after(self, span: Span) -> Time {
        Time(self.0.saturating_add(span.0))
    }

    pub fn before(self, span: Span) -> Time {
        Time(self.0.saturating_sub(span.0))
    }

    /// How long it is since `earlier`; zero when that lies ahead (clocks jump).
    pub fn since(self, earlier: Time) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }

    /// RFC 3339, or `YYYY-MM-DD HH:MM:SS` taken as UTC. Instants before 1970 are refused.
    pub fn parse(text: &str) -> Option<Time> {
        let instant = match text.parse::<jiff::Timestamp>() {
            Ok(instant) => instant,
            Err(_) => text
                .parse::<jiff::civil::DateTime>()
                .ok()?
                .to_zoned(jiff::tz::TimeZone::UTC)
                .ok()?
                .timestamp(),
        };
        u64::try_from(instant.as_millisecond()).ok().map(Time)
    }

    pub fn to_rfc3339(self) -> String {
        let mut text = Vec::with_capacity(24);
        self.spell(&mut text);
        String::from_utf8(text).unwrap_or_default()
    }

    /// The same, behind what stands in `text` already.
    pub fn spell(self, text: &mut Vec<u8>) {
        let millis = self.min(Time::LATEST).0;
        let (days, of_day) = (millis / 86_400_000, millis % 86_400_000);
        let (year, month, day) = date(days);
        let (seconds, thousandths) = (of_day / 1000, of_day % 1000);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        digits(text, year, 1000);
        for (before, part) in [(b'-', month), (b'-', day), (b'T', hour), (b':', minute), (b':', second)] {
            text.push(before);
            digits(text, part, 10);
        }
        if thousandths > 0 {
            text.push(b'.');
            digits(text, thousandths, 100);
            while text.pop_if(|digit| *digit == b'0').is_some() {}
        }
        text.push(b'Z');
    }
}

/// Year, month and day so many days after 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    // Years begin in March here, so that the day that comes and goes is their last one; they are counted
    // from the year 0, in rounds of 400.
    let days = days + 719_468;
    let (round, of_round) = (days / 146_097, days % 146_097);
    let year = (of_round - of_round / 1460 + of_round / 36_524 - of_round / 146_096) / 365;
    let of_year = of_round - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (400 * round + year + next, month, day)
}

/// A number as decimal digits; the first one counts so many.
fn digits(text: &mut Vec<u8>, number: u64, mut counts: u64) {
    while counts > 0 {
        text.push(b'0' + (number / counts % 10) as u8);
        counts /= 10;
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

/// A length of time in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Span(pub u64);

impl Span {
    pub const fn seconds(n: u64) -> Span {
        Span(n * 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_spellings_of_an_instant() {
        let time = Time(1_551_525_014_000);
        assert_eq!(Time::parse("2019-03-02T11:10:14Z"), Some(time));
        assert_eq!(Time::parse("2019-03-02 11:10:14"), Some(time));
        assert_eq!(Time::parse("2019-03-02T12:10:14+01:00"), Some(time));
        assert_eq!(time.to_rfc3339(), "2019-03-02T11:10:14Z");
        assert_eq!(Time::parse("yesterday"), None);
    }

    #[test]
    fn spelled_as_the_parser_spells_it() {
        let check = |millis: u64| {
            let instant = jiff::Timestamp::from_millisecond(millis as i64).unwrap();
            assert_eq!(Time(millis).to_rfc3339(), alloc::string::ToString::to_string(&instant));
        };
        // Each day up to the last one, at another time of the day each.
        let days = Time::LATEST.0 / 86_400_000;
        (0..days).for_each(|day| check(day * 86_400_000 + day * 86_399_987 % 86_400_000));
        (0..1000).for_each(|millis| check(1_551_525_014_000 + millis));
        [0, 1, 999, 86_399_999, Time::LATEST.0].into_iter().for_each(check);
    }

    #[test]
    fn the_latest_instant_is_the_last_that_can_be_read_back() {
        assert_eq!(Time::parse(&Time::LATEST.to_rfc3339()), Some(Time::LATEST));
        assert_eq!(Time::parse(&Time::MAX.to_rfc3339()), Some(Time::LATEST));
        assert!(jiff::Timestamp::from_millisecond(Time::LATEST.0 as i64 + 1).is_err());
    }
}
