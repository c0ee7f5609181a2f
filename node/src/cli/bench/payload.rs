//! The events that are sent: JSON objects of one size, each with its number and when it was due.
//!
//! ```text
//! {"n":1000000042,"t":1000123456,"k":"7","p":"~~~…"}
//!      number          due              filling to the size
//! ```
//!
//! Both numbers have ten digits (the first is 1), so an event is a copy of a template with twenty digits
//! written over: the driver spends next to nothing on making and on reading one. Events that have no
//! room for `t` go without it; who sends and who reads is one process and knows the schedule.

use bytes::{BufMut, BytesMut};

/// Added to both numbers: ten digits whatever they are.
const BASE: u64 = 1_000_000_000;
const NUMBER_AT: usize = r#"{"n":"#.len();
const DUE_AT: usize = NUMBER_AT + DIGITS + r#","t":"#.len();
const DIGITS: usize = 10;
/// With both numbers and nothing else.
const BOTH_BYTES: usize = DUE_AT + DIGITS + 1;
/// The highest number, and the latest due time in microseconds, that ten digits hold.
pub const NUMBER_MAX: u64 = 9 * BASE - 1;

/// Lines for events of one size.
#[derive(Debug, Clone)]
pub struct Template {
    /// One line for each key, numbers to be filled in.
    lines: Vec<Vec<u8>>,
    timed: bool,
}

/// What is read off an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub number: u64,
    /// Microseconds since the run began, if the event had room for it.
    pub due_us: Option<u64>,
}

impl Template {
    /// `size`: bytes of the JSON object. Keys that do not fit make it longer.
    pub fn new(size: usize, keys: u32) -> Template {
        // All of them or none: who reads an event does not know its key.
        let timed = size >= timed_size_min(keys);
        let line = |key: Option<u32>| {
            let key = key.map_or(String::new(), key_text);
            let time = if timed { format!(r#","t":{BASE}"#) } else { String::new() };
            let mut line = format!(r#"{{"n":{BASE}{time}{key}"#);
            let filling = r#","p":"""#.len();
            match (size).checked_sub(line.len() + 1 + filling) {
                Some(rest) => line.push_str(&format!(r#","p":"{}""#, "~".repeat(rest))),
                // Spaces inside an object are free.
                None => line.push_str(&" ".repeat(size.saturating_sub(line.len() + 1))),
            }
            line.push_str("}\n");
            line.into_bytes()
        };
        let lines = match keys {
            0 => vec![line(None)],
            keys => (0..keys).map(|key| line(Some(key))).collect(),
        };
        Template { lines, timed }
    }

    /// Appends the line of event `number`.
    pub fn write(&self, number: u64, due_us: u64, out: &mut BytesMut) {
        let which = (number % self.lines.len().max(1) as u64) as usize;
        let Some(line) = self.lines.get(which) else { return };
        let start = out.len();
        out.put_slice(line);
        let Some(own) = out.get_mut(start..) else { return };
        write_digits(own, NUMBER_AT, number);
        if self.timed {
            write_digits(own, DUE_AT, due_us);
        }
    }

    /// Bytes of a line, its end included.
    pub fn line_bytes(&self) -> usize {
        self.lines.iter().map(Vec::len).max().unwrap_or(1)
    }
}

fn key_text(key: u32) -> String {
    format!(r#","k":"{key}""#)
}

/// The smallest event of so many keys that has room for when it was due.
pub fn timed_size_min(keys: u32) -> usize {
    BOTH_BYTES + keys.checked_sub(1).map_or(0, |longest| key_text(longest).len())
}

fn write_digits(line: &mut [u8], at: usize, value: u64) {
    let mut rest = BASE + value.min(NUMBER_MAX);
    for place in line.iter_mut().skip(at).take(DIGITS).rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// The numbers of an event that a template made; none: it is nobody's here.
pub fn read(payload: &[u8]) -> Option<Stamp> {
    let number = digits(payload, NUMBER_AT)?;
    let timed = payload.get(DUE_AT - 4..DUE_AT) == Some(b"\"t\":");
    Some(Stamp { number, due_us: if timed { digits(payload, DUE_AT) } else { None } })
}

fn digits(payload: &[u8], at: usize) -> Option<u64> {
    let text = payload.get(at..at + DIGITS)?;
    let value = text.iter().try_fold(0, |value: u64, digit| {
        digit.is_ascii_digit().then(|| value * 10 + u64::from(digit - b'0'))
    })?;
    value.checked_sub(BASE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_exact_json_and_comes_back() {
        for size in [16, 20, 31, 32, 38, 39, 40, 41, 100, 128, 1024, 1 << 20] {
            for keys in [0, 1, 10, 11] {
                let template = Template::new(size, keys);
                let mut out = BytesMut::new();
                template.write(7, 123_456, &mut out);
                let line = out.strip_suffix(b"\n").unwrap();
                serde_json::from_slice::<serde_json::Value>(line).unwrap();
                if keys == 0 || size > 41 {
                    assert_eq!(line.len(), size);
                }
                let stamp = read(line).unwrap();
                assert_eq!(stamp.number, 7);
                assert!(stamp.due_us.is_none_or(|due| due == 123_456), "{size}");
                let room = match keys {
                    0 => 31,
                    11 => 40,
                    _ => 39,
                };
                assert_eq!(
                    (stamp.due_us.is_some(), template.timed),
                    (size >= room, size >= room),
                    "{size} {keys}"
                );
                assert_eq!(timed_size_min(keys), room);
            }
        }
        assert_eq!(read(b"{}"), None);
        assert_eq!(read(b"{\"n\":0000000001}"), None);
    }
}
