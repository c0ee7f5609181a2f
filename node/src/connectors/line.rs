//! An event as one line of JSON: the same from `tail --json`, the file sink and an HTTP body.
//!
//! `{"id":"LOG.EPOCH.SEQ.INDEX","key":"…","time":"RFC 3339","payload":{…}}`, and with a cursor a
//! last field `"cursor"`. The payload stands as it came, number by number and key by key; only line
//! ends between its tokens become spaces. A payload that is no JSON stands as a string.

use std::io::Write;

use dunlin_protocol::event::Placed;
use serde::de::IgnoredAny;

/// Appends the event without a line end.
pub fn write_event(out: &mut Vec<u8>, placed: &Placed, cursor: Option<&str>) {
    // Ids, times and cursors hold nothing that JSON would escape.
    push(out, format_args!("{{\"id\":\"{}\",\"key\":", placed.id));
    write_text(out, &placed.event.key);
    push(out, format_args!(",\"time\":\"{}\",\"payload\":", placed.event.time));
    write_payload(out, &placed.event.payload);
    if let Some(cursor) = cursor {
        out.extend_from_slice(b",\"cursor\":");
        write_text(out, cursor.as_bytes());
    }
    out.push(b'}');
}

/// Appends the event and a line end.
pub fn write_line(out: &mut Vec<u8>, placed: &Placed, cursor: Option<&str>) {
    write_event(out, placed, cursor);
    out.push(b'\n');
}

fn write_payload(out: &mut Vec<u8>, payload: &[u8]) {
    if serde_json::from_slice::<IgnoredAny>(payload).is_err() {
        return write_text(out, payload);
    }
    // In valid JSON a line end can only stand between tokens: inside strings it is escaped.
    out.extend(payload.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
}

fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    let text = serde_json::Value::from(String::from_utf8_lossy(text));
    push(out, format_args!("{text}"));
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec cannot fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::sink::tests::placed;

    #[track_caller]
    fn check(key: &str, payload: &str, expect: &str) {
        let mut out = Vec::new();
        write_event(&mut out, &placed(3, key, payload), None);
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    const ID: &str = "07070707070707070707070707070707.1.1.3";

    #[test]
    fn numbers_and_field_order_stay_as_they_came() {
        check(
            "LH1",
            r#"{"b":1.10,"a":12345678901234567890123}"#,
            &format!(
                r#"{{"id":"{ID}","key":"LH1","time":"2019-03-02T11:10:14Z","payload":{{"b":1.10,"a":12345678901234567890123}}}}"#
            ),
        );
    }

    #[test]
    fn a_payload_of_many_lines_becomes_one() {
        check(
            "a\"b",
            "{\r\n \"a\": \"x\\ny\"\n}",
            &format!(
                r#"{{"id":"{ID}","key":"a\"b","time":"2019-03-02T11:10:14Z","payload":{{   "a": "x\ny" }}}}"#
            ),
        );
    }

    #[test]
    fn what_is_no_json_is_a_string() {
        check(
            "",
            "hello\n",
            &format!(r#"{{"id":"{ID}","key":"","time":"2019-03-02T11:10:14Z","payload":"hello\n"}}"#),
        );
    }

    #[test]
    fn a_cursor_comes_last() {
        let mut out = Vec::new();
        write_line(&mut out, &placed(3, "k", "{}"), Some("abc"));
        assert!(out.ends_with(b"\"payload\":{},\"cursor\":\"abc\"}\n"));
    }
}
