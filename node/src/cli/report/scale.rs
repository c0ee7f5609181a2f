//! From values to places on paper: axes with round ticks, and how numbers and times are written.

use dunlin_protocol::time::Time;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// A stretch of values that becomes a stretch of paper.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    pub from: f64,
    pub to: f64,
}

/// A tick: where, and what stands there.
pub type Tick = (f64, String);

impl Scale {
    /// From the smallest to the largest, with some room at both ends; never empty.
    pub fn around(values: impl Iterator<Item = f64>) -> Scale {
        let (mut from, mut to) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite()) {
            (from, to) = (from.min(value), to.max(value));
        }
        if from > to {
            (from, to) = (0.0, 1.0);
        }
        let least = from.abs().max(to.abs()).max(1.0) * 1e-9;
        let room = if to - from > least { (to - from) * 0.05 } else { from.abs().max(1.0) * 0.05 };
        Scale { from: from - room, to: to + room }
    }

    /// From zero to what all but a few stay below: what is beyond runs off the paper.
    pub fn from_zero(values: impl Iterator<Item = f64>) -> Scale {
        let mut sorted: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let largest = sorted.last().copied().unwrap_or(1.0);
        let usual = sorted.get(sorted.len() * 97 / 100).copied().unwrap_or(largest);
        let to = largest.min(usual * 2.0) * 1.08;
        Scale { from: 0.0, to: if to > 0.0 { to } else { 1.0 } }
    }

    /// Between 0 and 1 for what lies between the ends.
    pub fn part(&self, value: f64) -> f64 {
        (value - self.from) / (self.to - self.from)
    }

    pub fn ticks(&self, about: f64) -> Vec<Tick> {
        let step = round_step((self.to - self.from) / about);
        let digits = (-step.log10().floor()).max(0.0) as usize;
        let first = (self.from / step).ceil();
        let count = ((self.to / step).floor() - first).clamp(0.0, 40.0) as u64;
        let tick = |index: u64| {
            let value = (first + index as f64) * step;
            (value, spelled(value, digits))
        };
        (0..=count).map(tick).collect()
    }

    /// The same for milliseconds since 1970.
    pub fn time_ticks(&self, about: f64) -> Vec<Tick> {
        let wanted = (self.to - self.from) / about;
        if wanted > 20.0 * DAY {
            return self.month_ticks((wanted / (30.0 * DAY)).ceil() as i64);
        }
        let step = STEPS.into_iter().find(|step| *step >= wanted).unwrap_or(14.0 * DAY);
        let first = (self.from / step).ceil();
        let count = ((self.to / step).floor() - first).clamp(0.0, 40.0) as u64;
        let tick = |index: u64| {
            let at = (first + index as f64) * step;
            let format = match step {
                _ if at % DAY == 0.0 => "%-d %b",
                step if step >= 60_000.0 => "%H:%M",
                step if step >= 1000.0 => "%H:%M:%S",
                _ => "%H:%M:%S%.f",
            };
            (at, written(at, format))
        };
        (0..=count).map(tick).collect()
    }

    fn month_ticks(&self, months: i64) -> Vec<Tick> {
        let months = [1, 2, 3, 6, 12, 24, 60, 120].into_iter().find(|step| *step >= months).unwrap_or(240);
        let begin = zoned(self.from).date();
        let year = if months < 12 { begin.year() } else { begin.year() - begin.year() % 10 };
        let Ok(mut date) = Date::new(year, 1, 1) else { return Vec::new() };
        let mut ticks = Vec::new();
        while let Ok(zoned) = date.to_zoned(TimeZone::UTC) {
            let at = zoned.timestamp().as_millisecond() as f64;
            if at > self.to || ticks.len() > 40 {
                break;
            }
            if at >= self.from {
                let format = if months >= 12 || date.month() == 1 { "%Y" } else { "%b" };
                ticks.push((at, written(at, format)));
            }
            let Ok(next) = date.checked_add(Span::new().months(months)) else { break };
            date = next;
        }
        ticks
    }
}

const DAY: f64 = 86_400_000.0;
/// Steps between ticks of time, in milliseconds.
const STEPS: [f64; 24] = [
    1.0,
    10.0,
    100.0,
    500.0,
    1000.0,
    2000.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    120_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
    7_200_000.0,
    10_800_000.0,
    21_600_000.0,
    43_200_000.0,
    DAY,
    2.0 * DAY,
    4.0 * DAY,
    7.0 * DAY,
    14.0 * DAY,
];

/// The next of 1, 2, 5 times a power of ten.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.max(f64::MIN_POSITIVE).log10().floor());
    let of = [1.0, 2.0, 5.0, 10.0].into_iter().find(|of| of * power >= step * 0.999);
    of.unwrap_or(10.0) * power
}

fn zoned(millis: f64) -> jiff::Zoned {
    Timestamp::from_millisecond(millis as i64).unwrap_or_default().to_zoned(TimeZone::UTC)
}

fn written(millis: f64, format: &str) -> String {
    zoned(millis).strftime(format).to_string()
}

/// A number on an axis: so many digits behind the point, large ones by letters.
fn spelled(value: f64, digits: usize) -> String {
    // No minus zero.
    let value = if value == 0.0 { 0.0 } else { value };
    match value.abs() {
        size if size >= 1e15 => format!("{value:e}"),
        size if size >= 1e4 => number(value),
        size if digits > 6 && size > 0.0 => format!("{value:.1e}"),
        _ => format!("{value:.digits$}"),
    }
}

/// A number for reading: four digits that count, large ones by letters.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_string();
    }
    let letters = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    match value.abs() {
        0.0 => "0".to_string(),
        size if !(1e-4..1e15).contains(&size) => format!("{value:.2e}"),
        size if size >= 1e4 => {
            let (unit, letter) = letters.into_iter().find(|(unit, _)| size >= *unit).unwrap_or((1.0, ""));
            format!("{}{letter}", significant(value / unit, 4))
        }
        _ => significant(value, 4),
    }
}

/// As exact as a reader may want it.
pub fn exact(value: f64) -> String {
    if (1e-6..1e12).contains(&value.abs()) { significant(value, 9) } else { value.to_string() }
}

fn significant(value: f64, digits: i32) -> String {
    let behind = (digits - 1 - value.abs().log10().floor() as i32).clamp(0, 12) as usize;
    let text = format!("{value:.behind$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    }
}

/// A count with its thousands apart.
pub fn count(n: u64) -> String {
    let text = n.to_string();
    let mut out = String::with_capacity(text.len() * 4 / 3);
    for (index, digit) in text.chars().enumerate() {
        if index > 0 && (text.len() - index).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

pub fn percent(part: f64) -> String {
    format!("{:.1} %", 100.0 * part)
}

pub fn moment(at: Time) -> String {
    written(at.0 as f64, "%Y-%m-%d %H:%M:%S").replace(" 00:00:00", "")
}

/// A length of time in its largest unit.
pub fn span(millis: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")];
    let (unit, name) = units.into_iter().find(|(unit, _)| millis >= *unit).unwrap_or((1, "ms"));
    format!("{} {name}", significant(millis as f64 / unit as f64, 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn ticks(from: f64, to: f64, expect: &[&str]) {
        let ticks = Scale { from, to }.ticks(5.0);
        assert_eq!(ticks.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), expect);
        assert!(ticks.iter().all(|(at, _)| (from..=to).contains(at)));
    }

    #[test]
    fn ticks_are_round() {
        ticks(0.0, 10.0, &["0", "2", "4", "6", "8", "10"]);
        ticks(-0.13, 0.21, &["-0.1", "0.0", "0.1", "0.2"]);
        ticks(0.0, 65_000.0, &["0", "20k", "40k", "60k"]);
        ticks(117.2, 118.1, &["117.2", "117.4", "117.6", "117.8", "118.0"]);
    }

    #[track_caller]
    fn times(from: &str, to: &str, expect: &[&str]) {
        let place = |text| Time::parse(text).unwrap().0 as f64;
        let ticks = Scale { from: place(from), to: place(to) }.time_ticks(5.0);
        assert_eq!(ticks.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn times_are_told_as_they_are_apart() {
        times("2026-03-01T22:10:00Z", "2026-03-02T03:00:00Z", &["23:00", "2 Mar", "01:00", "02:00", "03:00"]);
        times(
            "2026-03-01T00:00:01Z",
            "2026-03-01T00:00:11Z",
            &["00:00:02", "00:00:04", "00:00:06", "00:00:08", "00:00:10"],
        );
        times("2016-07-01T00:00:00Z", "2018-02-20T00:00:00Z", &["Jul", "2017", "Jul", "2018"]);
    }

    #[test]
    fn scales_are_never_empty() {
        for values in [vec![], vec![3.0], vec![f64::NAN], vec![0.0, 0.0]] {
            for scale in [Scale::around(values.iter().copied()), Scale::from_zero(values.iter().copied())] {
                assert!(scale.to > scale.from && scale.part(scale.from) == 0.0, "{scale:?}");
            }
        }
        // One stray of a hundred does not press the others flat.
        let strayed = (0..100).map(|i| if i == 50 { 1e6 } else { 1.0 });
        assert!(Scale::from_zero(strayed).to < 3.0);
    }

    #[test]
    fn numbers_read_well() {
        let texts = [0.0, 25.1749, 1234.56, 6_442_450_944.0, -0.00123, 1e-9].map(number);
        assert_eq!(texts, ["0", "25.17", "1235", "6.442G", "-0.00123", "1.00e-9"]);
        assert_eq!(
            (exact(136.22), exact(0.1 + 0.2), count(1_234_567)),
            ("136.22".into(), "0.3".into(), "1\u{202f}234\u{202f}567".into())
        );
        assert_eq!([span(255_600_000), span(10_000), span(90)], ["2.96 d", "10 s", "90 ms"]);
    }
}
