//! Time as data: milliseconds since 1970 (UTC). The core never asks a clock; time comes in.

use alloc::string::String;
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
        use alloc::string::ToString;
        let millis = i64::try_from(self.min(Time::LATEST).0).unwrap_or_default();
        jiff::Timestamp::from_millisecond(millis).unwrap_or_default().to_string()
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
    fn the_latest_instant_is_the_last_that_can_be_read_back() {
        assert_eq!(Time::parse(&Time::LATEST.to_rfc3339()), Some(Time::LATEST));
        assert_eq!(Time::parse(&Time::MAX.to_rfc3339()), Some(Time::LATEST));
        assert!(jiff::Timestamp::from_millisecond(Time::LATEST.0 as i64 + 1).is_err());
    }
}
