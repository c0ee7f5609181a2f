//! The edge: a line of JSON or CSV becomes an event, or is rejected with a sentence.

use bytes::Bytes;
use dunlin_protocol::event::Event;
use dunlin_protocol::limits::EVENT_BYTES_MAX;
use dunlin_protocol::pipeline::manifest::Source;
use dunlin_protocol::time::Time;
use serde_json::Value;
use thiserror::Error;

use crate::field::{fields, key_text};

/// A line that is no event of its source. Nothing was taken from it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the line was rejected because {0}")]
pub struct Reject(pub String);

/// A JSON object as an event of `source`: its key and time are taken from the fields that the
/// source names, the payload is the line, trimmed, byte for byte.
pub fn event_from_json(source: &Source, line: &[u8], now: Time) -> Result<Event, Reject> {
    event(source, line, now, Bytes::copy_from_slice)
}

/// The same, of a line that is a part of a block of bytes: the payload shares them, so the event keeps the
/// whole block in memory for as long as it lives.
pub fn event_in_block(source: &Source, line: &Bytes, now: Time) -> Result<Event, Reject> {
    event(source, line, now, |payload| line.slice_ref(payload))
}

fn event(
    source: &Source,
    line: &[u8],
    now: Time,
    payload: impl FnOnce(&[u8]) -> Bytes,
) -> Result<Event, Reject> {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii();
    if line.is_empty() {
        return Err(Reject("it is empty".to_owned()));
    }
    too_large(line.len())?;
    let read = fields(line, [source.key.as_deref(), source.time.as_deref()]);
    // JSON is text: what was read as JSON needs no second look.
    let [key, time] = read.map_err(|why| match std::str::from_utf8(line) {
        Ok(_) => Reject(why),
        Err(_) => Reject("it is not UTF-8 text".to_owned()),
    })?;
    let event = Event {
        key: match &source.key {
            None => Bytes::new(),
            Some(field) => key_text(field, key.as_ref()).map_err(Reject)?,
        },
        time: match &source.time {
            None => now,
            Some(field) => event_time(field, time.as_ref()).map_err(Reject)?,
        },
        headers: Vec::new(),
        payload: payload(line),
    };
    too_large(event.weight())?;
    Ok(event)
}

fn too_large(bytes: usize) -> Result<(), Reject> {
    if bytes <= EVENT_BYTES_MAX {
        return Ok(());
    }
    Err(Reject(format!("it makes an event of {bytes} bytes, and {EVENT_BYTES_MAX} are allowed")))
}

fn event_time(field: &str, value: Option<&Value>) -> Result<Time, String> {
    let time = match value {
        None => return Err(format!("it has no field '{field}', which is its time")),
        Some(Value::Null) => return Err(format!("its time field '{field}' is null")),
        Some(Value::String(text)) => Time::parse(text.trim()),
        Some(Value::Number(number)) => match (number.as_u64(), number.as_f64()) {
            (Some(millis), _) => Some(Time(millis)),
            (None, Some(millis)) if (0.0..9.0e15).contains(&millis) => Some(Time(millis as u64)),
            (None, _) => None,
        },
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => None,
    };
    time.filter(|time| *time <= Time::LATEST).ok_or_else(|| {
        let shown: String = value.map(Value::to_string).unwrap_or_default().chars().take(60).collect();
        format!(
            "its time field '{field}' is {shown}, which is no instant between 1970 and 9999 (RFC 3339, \
             YYYY-MM-DD HH:MM:SS, or epoch milliseconds)"
        )
    })
}

/// A CSV row as an event of `source`: a JSON object of the header's names, in their order, in which
/// JSON numbers are numbers as they were written, empty is null, and the rest are strings.
pub fn event_from_csv<H, F>(source: &Source, header: &[H], row: &[F], now: Time) -> Result<Event, Reject>
where
    H: AsRef<str>,
    F: AsRef<str>,
{
    if header.len() != row.len() {
        return Err(Reject(format!("it has {} fields, and the header has {}", row.len(), header.len())));
    }
    let mut object = String::from("{");
    for (name, field) in header.iter().zip(row) {
        if object.len() > 1 {
            object.push(',');
        }
        object.push_str(&Value::from(name.as_ref()).to_string());
        object.push(':');
        match field.as_ref() {
            "" => object.push_str("null"),
            number if is_json_number(number) => object.push_str(number),
            text => object.push_str(&Value::from(text).to_string()),
        }
        too_large(object.len())?;
    }
    object.push('}');
    event_from_json(source, object.as_bytes(), now)
}

/// Exactly a JSON number: no spaces, no plus, no leading zero, and within what a double holds.
fn is_json_number(text: &str) -> bool {
    text.starts_with(|c: char| c == '-' || c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_digit())
        && serde_json::from_str::<serde_json::Number>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_protocol::pipeline::manifest::Connector;
    use dunlin_protocol::time::Span;

    const NOW: Time = Time(77);

    fn source(key: Option<&str>, time: Option<&str>) -> Source {
        let own = |text: &str| text.to_owned();
        Source { key: key.map(own), time: time.map(own), lateness: Span(0), connector: Connector::Publish }
    }

    fn json(line: &str) -> Result<Event, Reject> {
        event_from_json(&source(Some("k"), Some("t")), line.as_bytes(), NOW)
    }

    #[test]
    fn a_line_becomes_an_event_and_stays_as_it_was() {
        let event =
            json(" {\"t\": \"2019-03-02T11:10:14Z\", \"k\": \"LH1\", \"x\": [1.10, {}]}\r\n").unwrap();
        assert_eq!(event.key, "LH1");
        assert_eq!(event.time, Time(1_551_525_014_000));
        assert_eq!(event.payload, "{\"t\": \"2019-03-02T11:10:14Z\", \"k\": \"LH1\", \"x\": [1.10, {}]}");
        assert_eq!(json("{\"k\":7,\"t\":5}").unwrap().key, "7");
        assert_eq!(json("{\"k\":18446744073709551615,\"t\":5.0}").unwrap().key, "18446744073709551615");
        assert_eq!(
            json("{\"k\":\"a\",\"t\":\"2019-03-02 11:10:14\"}").unwrap().time,
            Time(1_551_525_014_000)
        );
        let bare = event_from_json(&source(None, None), b"{}", NOW).unwrap();
        assert_eq!((bare.key.len(), bare.time), (0, NOW));
    }

    #[test]
    fn what_is_no_event_says_why() {
        for (line, why) in [
            ("", "it is empty"),
            ("[1]", "it is not a JSON object"),
            ("5", "it is not a JSON object"),
            ("{\"k\":1,\"t\":1", "it is not JSON (EOF while parsing an object at character 12)"),
            ("{\"k\":1,\"t\":1} x", "it is not JSON (trailing characters"),
            ("{\"t\":1}", "it has no field 'k', which is its key"),
            ("{\"k\":null,\"t\":1}", "its key field 'k' is null"),
            (
                "{\"k\":123456789012345678901234567890,\"t\":1}",
                "its key field 'k' is a number too large to be kept exactly: write it as a string",
            ),
            ("{\"k\":true,\"t\":1}", "its key field 'k' is neither a string nor a number"),
            ("{\"k\":1}", "it has no field 't', which is its time"),
            ("{\"k\":1,\"t\":\"soon\"}", "its time field 't' is \"soon\", which is no instant"),
            ("{\"k\":1,\"t\":-5}", "its time field 't' is -5, which is no instant"),
            ("{\"k\":1,\"t\":253402207201000}", "its time field 't' is 253402207201000, which is no instant"),
            ("{\"k\":1,\"t\":1,\"t\":1}", "one of its objects has the field 't' twice"),
            (
                "{\"k\":1,\"t\":1,\"a\":[{\"x\":1,\"\\u0078\":2}]}",
                "one of its objects has the field 'x' twice",
            ),
            ("{\"k\":1,\"t\":1,\"a\":1e999}", "it is not JSON (number out of range"),
            ("{\"k\":1,\"t\":1,\"a\":\"\\ud800\"}", "it is not JSON ("),
            ("{\"k\":1,\"t\":1,\"a\":\"\0\"}", "it is not JSON (control character"),
            ("{\"k\":1,\"t\":1,\"a\":NaN}", "it is not JSON (expected value at character 18)"),
            ("{'k':1,'t':1}", "it is not JSON (key must be a string"),
        ] {
            let reject = json(line).unwrap_err().to_string();
            assert!(reject.starts_with(&format!("the line was rejected because {why}")), "{line}: {reject}");
        }
        let not_text = event_from_json(&source(None, None), b"{\"a\":\"\xff\"}", NOW);
        assert_eq!(not_text, Err(Reject("it is not UTF-8 text".to_owned())));
        let nested = |deep: usize| {
            let line = format!("{{\"k\":1,\"t\":1,\"a\":{}{}}}", "[".repeat(deep), "]".repeat(deep));
            json(&line).map(|event| crate::payload::Payload::parse(&event.payload).is_ok())
        };
        assert_eq!(nested(63), Ok(true), "what is taken can be read by the stages");
        assert!(nested(64).unwrap_err().0.contains("nested more than 64 deep"));
        let keyed = |bytes: usize| json(&format!("{{\"k\":\"{}\",\"t\":1}}", "k".repeat(bytes)));
        assert!(keyed(1024).is_ok());
        assert_eq!(keyed(1025).unwrap_err().0, "its key field 'k' has 1025 bytes, and a key may have 1024");
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(EVENT_BYTES_MAX));
        let large = event_from_json(&source(None, None), large.as_bytes(), NOW).unwrap_err();
        assert!(large.0.contains("are allowed"), "{large}");
    }

    #[test]
    fn a_row_becomes_an_object_of_its_columns() {
        let row = ["LH1", "136.2199485", "", "007", "-5", "1e5", " 5", "NaN", "say \"hi\"", "+1", "1e999"];
        let header = ["k", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
        let event = event_from_csv(&source(Some("k"), None), &header, &row, NOW).unwrap();
        assert_eq!(
            event.payload,
            r#"{"k":"LH1","a":136.2199485,"b":null,"c":"007","d":-5,"e":1e5,"f":" 5","g":"NaN","h":"say \"hi\"","i":"+1","j":"1e999"}"#
        );
        let short = event_from_csv(&source(None, None), &header, &row[1..], NOW).unwrap_err();
        assert_eq!(short.0, "it has 10 fields, and the header has 11");
    }
}
