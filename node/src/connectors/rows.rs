//! A line of a file as an event, by the same rules as a published line (`dunlin_operators::ingest`):
//! here is only what a file has and a request has not, a header and rows of cells.

use dunlin_operators::ingest::{event_from_csv, event_from_json};
use dunlin_protocol::event::Event;
use dunlin_protocol::limits::EVENT_BYTES_MAX;
use dunlin_protocol::pipeline::manifest::Source;
use dunlin_protocol::time::Time;

/// What some editors put in front of UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

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
        let columns = cells(unmarked(header))?;
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

    /// The field that the source needs and the header does not have.
    pub fn lacks<'a>(&self, source: &'a Source) -> Option<&'a str> {
        let Format::Csv(columns) = self else { return None };
        let needed = [&source.key, &source.time].into_iter().flatten();
        needed.map(|field| &**field).find(|field| columns.iter().all(|column| column != field))
    }

    /// Whether a file whose first line this is holds JSON lines.
    pub fn is_json(first: &[u8]) -> bool {
        unmarked(first).trim_ascii().starts_with(b"{")
    }

    /// The line as an event, `None` when it is blank; an error says why it is none.
    pub fn event(&self, line: &[u8], source: &Source, arrival: Time) -> Result<Option<Event>, String> {
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        let event = match self {
            Format::Json => event_from_json(source, line, arrival),
            Format::Csv(columns) => event_from_csv(source, columns, &cells(line)?, arrival),
        };
        event.map(Some).map_err(|reject| reject.0)
    }
}

fn unmarked(line: &[u8]) -> &[u8] {
    line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line)
}

pub fn too_long() -> String {
    format!("it is longer than the {} MiB that an event may have", EVENT_BYTES_MAX >> 20)
}

/// One line's cells. A quoted cell must end on its line: the line's number is its sequence.
fn cells(line: &[u8]) -> Result<Vec<String>, String> {
    if line.iter().filter(|byte| **byte == b'"').count() % 2 == 1 {
        return Err("a quoted cell does not end on its line".into());
    }
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(line);
    let mut record = csv::StringRecord::new();
    reader.read_record(&mut record).map_err(|why| match why.kind() {
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8 text".to_string(),
        _ => format!("it is no CSV row ({why})"),
    })?;
    Ok(record.iter().map(str::to_string).collect())
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
        row("7,1551525014000,NaN", Err("it has 3 fields, and the header has 4"));
        row("7,1551525014000,\"x,1", Err("does not end"));
        row(",1551525014000,1,1", Err("its key field 'flight' is null"));
        row("7,soon,1,1", Err("no instant between 1970 and 9999"));
        // The same rules as for a published line, cell by cell.
        row(
            "7,1551525014000,-05,1e999",
            Ok(r#"{"flight":7,"at":1551525014000,"a \"price\"":"-05","note":"1e999"}"#),
        );
        row(&format!("{},1551525014000,1,1", "k".repeat(1025)), Err("a key may have 1024"));
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
        let twice = Format::Json.event(br#"{"flight":"a","at":1,"x":1,"x":2}"#, &source(), Time(0));
        assert!(twice.unwrap_err().contains("'x' twice"));
        assert!(Format::is_json(b"\xef\xbb\xbf {\"a\":1}") && !Format::is_json(b"a,b"));
    }

    #[test]
    fn a_header_names_each_column_once() {
        assert!(Format::csv(b"a,b,a").is_err());
        assert!(Format::csv(b"a,,b").is_err());
    }
}
