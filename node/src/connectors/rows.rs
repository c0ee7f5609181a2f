//! A line of a file as an event.
//!
//! JSON lines stand as they came. A CSV row becomes an object in column order: JSON numbers are
//! numbers (digit by digit), empty cells null, the rest strings.

use bytes::Bytes;
use dunlin_protocol::event::Event;
use dunlin_protocol::limits::EVENT_BYTES_MAX;
use dunlin_protocol::pipeline::manifest::Source;
use dunlin_protocol::time::Time;
use serde_json::{Map, Number, Value};

/// How a file's lines are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    Json,
    /// The columns' names, from the header line.
    Csv(Vec<String>),
}

impl Format {
    /// The columns of a header line; an error is a sentence.
    pub fn csv(header: &[u8]) -> Result<Format, String> {
        let columns = cells(header.strip_prefix(b"\xef\xbb\xbf").unwrap_or(header))?;
        for (at, column) in columns.iter().enumerate() {
            if column.is_empty() {
                return Err(format!("column {} of the header line has no name", at + 1));
            }
            if columns.iter().take(at).any(|earlier| earlier == column) {
                return Err(format!("the header line names column '{column}' twice"));
            }
        }
        Ok(Format::Csv(columns))
    }

    /// The line as an event, `None` when it is blank; an error says why it is none.
    pub fn event(&self, line: &[u8], source: &Source, arrival: Time) -> Result<Option<Event>, String> {
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(None);
        }
        let event = match self {
            Format::Json => event_of(Bytes::copy_from_slice(line), source, arrival)?,
            Format::Csv(columns) => event_of(object(columns, &cells(line)?)?, source, arrival)?,
        };
        Ok(Some(event))
    }
}

/// The event that carries this payload: its key and time are the fields that the source names.
pub fn event_of(payload: Bytes, source: &Source, arrival: Time) -> Result<Event, String> {
    let fields: Map<String, Value> =
        serde_json::from_slice(&payload).map_err(|why| format!("it is no JSON object ({why})"))?;
    let field = |role: &str, name: &str| match fields.get(name) {
        None | Some(Value::Null) => Err(format!("it has no field '{name}', which is the {role}")),
        Some(value) => Ok(value.clone()),
    };
    let key = match &source.key {
        None => String::new(),
        Some(name) => match field("key", name)? {
            Value::String(text) => text,
            value @ (Value::Number(_) | Value::Bool(_)) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                return Err(format!("its key '{name}' is neither text nor number"));
            }
        },
    };
    let time = match &source.time {
        None => arrival,
        Some(name) => {
            let value = field("time", name)?;
            instant(&value).ok_or_else(|| {
                format!("its time '{name}' ({value}) is neither RFC 3339, 'YYYY-MM-DD HH:MM:SS' nor epoch milliseconds")
            })?
        }
    };
    let event = Event { key: Bytes::from(key), time, headers: Vec::new(), payload };
    if event.weight() > EVENT_BYTES_MAX {
        return Err(too_long());
    }
    Ok(event)
}

pub fn too_long() -> String {
    format!("it is longer than the {} MiB that an event may have", EVENT_BYTES_MAX >> 20)
}

fn instant(value: &Value) -> Option<Time> {
    match value {
        Value::String(text) => Time::parse(text),
        Value::Number(number) => number.as_u64().map(Time),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// One line's cells. A quoted cell must end on its line: the line's number is its sequence.
fn cells(line: &[u8]) -> Result<Vec<String>, String> {
    if line.iter().filter(|byte| **byte == b'"').count() % 2 == 1 {
        return Err("a quoted cell does not end on its line".into());
    }
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(line);
    let mut record = csv::StringRecord::new();
    reader.read_record(&mut record).map_err(|why| format!("it is no CSV row ({why})"))?;
    Ok(record.iter().map(str::to_string).collect())
}

fn object(columns: &[String], cells: &[String]) -> Result<Bytes, String> {
    if columns.len() != cells.len() {
        return Err(format!("it has {} cells and the header line {}", cells.len(), columns.len()));
    }
    let mut text = String::from("{");
    for (column, cell) in columns.iter().zip(cells) {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&Value::from(column.as_str()).to_string());
        text.push(':');
        let plain = cell.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        if cell.is_empty() {
            text.push_str("null");
        } else if plain && serde_json::from_str::<Number>(cell).is_ok() {
            text.push_str(cell.trim_end());
        } else {
            text.push_str(&Value::from(cell.as_str()).to_string());
        }
    }
    text.push('}');
    Ok(Bytes::from(text))
}

#[cfg(test)]
mod tests {
    use dunlin_protocol::pipeline::manifest::Connector;
    use dunlin_protocol::time::Span;

    use super::*;

    fn source() -> Source {
        Source {
            key: Some("flight".into()),
            time: Some("at".into()),
            lateness: Span(0),
            connector: Connector::Publish,
        }
    }

    #[track_caller]
    fn row(line: &str, expect: Result<&str, &str>) {
        let format = Format::csv(b"flight,at,\"a \"\"price\"\"\",note").unwrap();
        match (format.event(line.as_bytes(), &source(), Time(0)), expect) {
            (Ok(Some(event)), Ok(payload)) => {
                assert_eq!(std::str::from_utf8(&event.payload).unwrap(), payload);
            }
            (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
            (got, expect) => panic!("{got:?}, not {expect:?}"),
        }
    }

    #[test]
    fn cells_become_numbers_nulls_and_strings() {
        row(
            r#"LH1,2019-03-02T11:10:14Z,136.2199485,"a ""b"", c""#,
            Ok(
                r#"{"flight":"LH1","at":"2019-03-02T11:10:14Z","a \"price\"":136.2199485,"note":"a \"b\", c"}"#,
            ),
        );
        row("7,1551525014000,,007", Ok(r#"{"flight":7,"at":1551525014000,"a \"price\"":null,"note":"007"}"#));
        row("7,1551525014000,NaN", Err("3 cells"));
        row("7,1551525014000,\"x,1", Err("does not end"));
        row(",1551525014000,1,1", Err("no field 'flight'"));
        row("7,soon,1,1", Err("neither RFC 3339"));
    }

    #[test]
    fn json_lines_stand_as_they_came() {
        let line = br#" {"flight": "LH1", "at": "2019-03-02 11:10:14", "p": 1.10} "#;
        let event = Format::Json.event(line, &source(), Time(0)).unwrap().unwrap();
        assert_eq!((event.key.as_ref(), event.time), (&b"LH1"[..], Time(1_551_525_014_000)));
        assert_eq!(event.payload, line.trim_ascii());
        assert_eq!(Format::Json.event(b"  ", &source(), Time(0)), Ok(None));
        assert!(Format::Json.event(b"[1]", &source(), Time(0)).is_err());
        assert!(Format::Json.event(br#"{"flight":{},"at":1}"#, &source(), Time(0)).is_err());
    }

    #[test]
    fn a_header_names_each_column_once() {
        assert!(Format::csv(b"a,b,a").is_err());
        assert!(Format::csv(b"a,,b").is_err());
    }
}
