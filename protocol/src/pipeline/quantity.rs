//! Durations, byte counts and fuel as users write them: `"7d"`, `"64MiB"`, `"50M"`.

use alloc::format;
use alloc::string::String;

use crate::time::Span;

/// Units of one kind of quantity, the smallest first.
type Units = &'static [(&'static str, u64)];

const TIMES: Units = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const BYTES: Units = &[
    ("B", 1),
    ("KB", 1000),
    ("kB", 1000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
];
const COUNTS: Units = &[("", 1), ("k", 1000), ("K", 1000), ("M", 1_000_000), ("G", 1_000_000_000)];

/// `500ms`, `10s`, `5m`, `2h`, `7d`.
pub(super) fn span(text: &str) -> Option<Span> {
    quantity(text, TIMES).map(Span)
}

/// `64MiB`, `10GiB`, `1MB`, `512B`.
pub(super) fn bytes(text: &str) -> Option<u64> {
    quantity(text, BYTES)
}

/// `50M`, `1G`, `200k`, `1000`.
pub(super) fn count(text: &str) -> Option<u64> {
    quantity(text, COUNTS)
}

fn quantity(text: &str, units: Units) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The shortest spelling: `7d`, `71h`, `1500ms`.
pub(super) fn spell_span(span: Span) -> String {
    let whole = |factor: u64| span.0 > 0 && span.0.is_multiple_of(factor);
    match TIMES.iter().rev().find(|(_, factor)| whole(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", span.0 / factor),
        None => format!("{}ms", span.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_as_they_are_written() {
        assert_eq!(span("7d"), Some(Span::seconds(7 * 86_400)));
        assert_eq!(span("500ms"), Some(Span(500)));
        assert_eq!(span("71h").map(spell_span).as_deref(), Some("71h"));
        assert_eq!(span("1500ms").map(spell_span).as_deref(), Some("1500ms"));
        assert_eq!(span("48h").map(spell_span).as_deref(), Some("2d"));
        assert_eq!(spell_span(Span(0)), "0ms");
        assert_eq!(bytes("10GiB"), Some(10 << 30));
        assert_eq!(bytes("64 MiB"), Some(64 << 20));
        assert_eq!(count("50M"), Some(50_000_000));
        assert_eq!(count("50"), Some(50));
        for wrong in ["", "7", "d", "-1d", "1.5h", "7 days", "99999999999999999999d", "18446744073709551615d"]
        {
            assert_eq!(span(wrong), None, "{wrong}");
        }
        assert_eq!(bytes("10Gib"), None);
    }
}
