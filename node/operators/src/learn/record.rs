//! A key's path as it stands in state: a JSON object that people can read, and that comes back to
//! the last bit.

use bytes::Bytes;
use dunlin_protocol::time::Time;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::series::Series;
use super::store::Unreadable;

/// From here on an instant is written as a number of milliseconds: texts end with the year 9999.
const TEXT_MAX: u64 = 253_000_000_000_000;

#[derive(Serialize, Deserialize)]
struct Record {
    count: u64,
    #[serde(flatten)]
    path: Option<Path>,
    waiting: u64,
}

#[derive(Serialize, Deserialize)]
struct Path {
    value: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    earlier: Option<f64>,
    min: f64,
    max: f64,
    mean: f64,
    changes: u64,
    first_at: Instant,
    last_at: Instant,
    changed_at: Instant,
}

struct Instant(Time);

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.0 < TEXT_MAX {
            serializer.serialize_str(&self.0.to_rfc3339())
        } else {
            serializer.serialize_u64(self.0.0)
        }
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Instant, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Text(String),
            Millis(u64),
        }
        match Either::deserialize(deserializer)? {
            Either::Millis(millis) => Ok(Instant(Time(millis))),
            Either::Text(text) => Time::parse(&text)
                .map(Instant)
                .ok_or_else(|| serde::de::Error::custom(format!("'{text}' is no instant"))),
        }
    }
}

pub fn write(series: &Series) -> Bytes {
    let path = series.value.map(|value| Path {
        value,
        previous: series.previous,
        earlier: series.earlier,
        min: series.min,
        max: series.max,
        mean: series.mean,
        changes: series.changes,
        first_at: Instant(series.first_at),
        last_at: Instant(series.last_at),
        changed_at: Instant(series.changed_at),
    });
    let record = Record { count: series.n, path, waiting: series.waiting };
    // Plain numbers and texts always serialise.
    Bytes::from(serde_json::to_vec(&record).unwrap_or_default())
}

pub fn read(bytes: &[u8]) -> Result<Series, Unreadable> {
    let record: Record = serde_json::from_slice(bytes).map_err(|error| Unreadable(error.to_string()))?;
    let series = Series { n: record.count, waiting: record.waiting, ..Series::default() };
    let path = match record.path {
        None if series.n == 0 => return Ok(series),
        None => return Err(Unreadable("a key's path lacks fields".to_string())),
        Some(path) => path,
    };
    Ok(Series {
        value: Some(path.value),
        previous: path.previous,
        earlier: path.earlier,
        min: path.min,
        max: path.max,
        mean: path.mean,
        changes: path.changes,
        first_at: path.first_at.0,
        last_at: path.last_at.0,
        changed_at: path.changed_at.0,
        ..series
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn comes_back(series: &Series) {
        assert_eq!(read(&write(series)), Ok(series.clone()));
    }

    #[test]
    fn a_path_comes_back_bit_for_bit() {
        let mut series = Series { waiting: 3, ..Series::default() };
        comes_back(&series);
        for (i, value) in [0.1 + 0.2, -0.0, 1e-300, 136.2199485, 9.999e99, 1.0 / 3.0].into_iter().enumerate()
        {
            series.observe(Time(1_551_525_014_000 + i as u64 * 12_345_678_901), value);
            comes_back(&series);
        }
        series.observe(Time::MAX, 7.0);
        comes_back(&series);
    }

    #[test]
    fn a_path_reads_well() {
        let mut series = Series::default();
        series.observe(Time(1_551_525_014_000), 136.25);
        let text = r#"{"count":1,"value":136.25,"min":136.25,"max":136.25,"mean":136.25,"changes":0,"#;
        let times = r#""first_at":"2019-03-02T11:10:14Z","last_at":"2019-03-02T11:10:14Z","changed_at":"2019-03-02T11:10:14Z","waiting":0}"#;
        assert_eq!(write(&series), format!("{text}{times}"));
    }
}
