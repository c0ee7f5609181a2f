//! What a run came to: one row of stable JSON, or of a table.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::machine::Machine;
use crate::cli::output::{Output, bytes_text};

/// One measured run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub scenario: &'static str,
    /// `memory`, `page`, `disk`; `none` where nothing is kept.
    pub durability: String,
    pub copies: u8,
    /// What came out at the far end, over all readers.
    pub events: u64,
    pub events_per_second: f64,
    pub cpu_seconds: Cpu,
    /// Driver and nodes together, per million events. None: `unmeasured` says why.
    pub cpu_seconds_per_million: Option<f64>,
    /// From when an event was due to when it was read. None: `unmeasured` says why.
    pub latency_us: Latency,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unmeasured: Unmeasured,
    /// Events that never came, and that came again. Anything but 0 is a failure.
    pub missing: u64,
    pub twice: u64,
    /// From the first event due to the last one read.
    pub seconds: f64,
    pub parameters: Parameters,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<CallCost>,
    pub machine: Machine,
}

/// Why a figure is null: a sentence for each that is.
pub type Unmeasured = BTreeMap<Figure, String>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    CpuSecondsPerMillion,
    LatencyUs,
}

impl Figure {
    /// Its columns in the table.
    fn columns(self) -> &'static str {
        match self {
            Figure::CpuSecondsPerMillion => "CPU S/M",
            Figure::LatencyUs => "P50 US, P99 US and P99.9 US",
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cpu {
    pub driver: f64,
    /// All of them. None: they are not this machine's.
    pub nodes: Option<f64>,
    /// Each of them; the publisher's is the first.
    pub each: Vec<f64>,
}

impl Cpu {
    /// Nobody's nodes: none are known.
    pub fn of(driver: f64, each: Vec<f64>) -> Cpu {
        let sum = (each.iter().sum::<f64>() * 1000.0).round() / 1000.0;
        Cpu { driver, nodes: (!each.is_empty()).then_some(sum), each }
    }

    /// Of driver and nodes together; an error says why nobody knows. The driver's part alone would look like a
    /// cheap mesh.
    pub fn per_million(&self, events: u64) -> Result<f64, String> {
        match self.nodes {
            None => Err("the CPU of nodes is known only where the bench started them, on Linux, and the driver's alone is not the \
                         whole cost"
                .to_string()),
            Some(_) if events == 0 => Err("no event was read".to_string()),
            Some(nodes) => Ok((self.driver + nodes) * 1e6 / events as f64),
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub p999: Option<f64>,
    pub max: Option<f64>,
}

impl Latency {
    /// Of a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Latency {
        if histogram.is_empty() {
            return Latency::default();
        }
        let us = |ns: u64| Some((ns as f64 / 100.0).round() / 10.0);
        Latency {
            p50: us(histogram.value_at_quantile(0.5)),
            p99: us(histogram.value_at_quantile(0.99)),
            p999: us(histogram.value_at_quantile(0.999)),
            max: us(histogram.max()),
        }
    }
}

/// What the run was told. Fields that say nothing in a scenario are left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Parameters {
    pub nodes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// Events per second; none: as fast as they are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hops: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readers: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actors: Option<u32>,
}

/// What nodes cost that have nothing to do: one number for each.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Idle {
    pub rss_bytes: Vec<u64>,
    pub cpu_percent: Vec<f64>,
}

/// What a function's call costs, per event.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CallCost {
    pub ns_per_event: f64,
    /// The same guest and batch in wasmtime alone, in turn with ours in this run.
    pub wasmtime_ns_per_event: f64,
    pub ratio: f64,
}

pub fn histogram() -> anyhow::Result<Histogram<u64>> {
    // A nanosecond to a minute in three digits; beyond counts as a minute.
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

/// All rows: an object a line, or one table.
pub fn print(rows: &[Row], out: &Output) -> anyhow::Result<()> {
    if out.json {
        return rows.iter().try_for_each(|row| out.object(row));
    }
    let Some(first) = rows.first() else { return Ok(()) };
    let m = &first.machine;
    out.line(&format!(
        "dunlin {} ({} build), {} cores of {}, {}, {}",
        m.version,
        m.build,
        m.cores,
        m.cpu,
        bytes_text(m.memory_bytes),
        m.system
    ))?;
    let mut header = vec!["SCENARIO", "CLASS"];
    header.extend([
        "EVENTS", "EVENTS/S", "CPU S/M", "DRIVER", "NODES", "P50 US", "P99 US", "P99.9 US", "LOST", "TWICE",
    ]);
    out.table(&header, rows.iter().map(cells).collect())?;
    notes(rows).iter().try_for_each(|text| out.line(text))?;
    for row in rows {
        if let Some(idle) = &row.idle {
            for (rss, cpu) in idle.rss_bytes.iter().zip(&idle.cpu_percent) {
                out.line(&format!("a node with nothing to do: {}, {cpu:.2} % of a core", bytes_text(*rss)))?;
            }
        }
        if let Some(call) = &row.call {
            out.line(&format!(
                "{:.0} ns per event, wasmtime alone {:.0} ns: ratio {:.2}",
                call.ns_per_event, call.wasmtime_ns_per_event, call.ratio
            ))?;
        }
    }
    Ok(())
}

/// Why figures are missing in the table: a line for each reason, however many rows have it.
fn notes(rows: &[Row]) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    for (figure, why) in rows.iter().flat_map(|row| &row.unmeasured) {
        let text = format!("{} -: {why}", figure.columns());
        if !notes.contains(&text) {
            notes.push(text);
        }
    }
    notes
}

fn cells(row: &Row) -> Vec<String> {
    let number =
        |value: Option<f64>, digits: usize| value.map_or("-".to_string(), |v| format!("{v:.digits$}"));
    let p = &row.parameters;
    let mut name = row.scenario.to_string();
    let parts = [
        p.size.map(|size| bytes_text(size as u64)),
        p.rate.map(|rate| format!("{rate:.0}/s")),
        p.keys.filter(|keys| *keys > 0).map(|keys| counted(keys, "key")),
        p.hops.map(|hops| counted(hops.into(), "hop")),
        p.readers.filter(|readers| *readers > 1).map(|readers| format!("{readers} readers")),
        p.batch.map(|batch| format!("batches of {batch}")),
        p.actors.map(|actors| counted(actors, "actor")),
    ];
    parts.into_iter().flatten().for_each(|part| name.push_str(&format!(" {part}")));
    vec![
        name,
        format!("{} x{}", row.durability, row.copies),
        row.events.to_string(),
        format!("{:.0}", row.events_per_second),
        number(row.cpu_seconds_per_million, 2),
        format!("{:.2} s", row.cpu_seconds.driver),
        row.cpu_seconds.nodes.map_or("-".to_string(), |seconds| format!("{seconds:.2} s")),
        number(row.latency_us.p50, 0),
        number(row.latency_us.p99, 0),
        number(row.latency_us.p999, 0),
        row.missing.to_string(),
        row.twice.to_string(),
    ]
}

fn counted(count: u32, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(parameters: Parameters, unmeasured: Unmeasured) -> Row {
        Row {
            scenario: "pipeline",
            durability: "memory".to_string(),
            copies: 1,
            events: 2_000_000,
            events_per_second: 1000.0,
            cpu_seconds: Cpu::of(1.0, Vec::new()),
            cpu_seconds_per_million: None,
            latency_us: Latency::default(),
            unmeasured,
            missing: 0,
            twice: 0,
            seconds: 1.0,
            parameters,
            idle: None,
            call: None,
            machine: Machine::this(),
        }
    }

    #[test]
    fn one_is_no_plural() {
        let name = |hops, keys, actors| {
            let (hops, keys, actors) = (Some(hops), Some(keys), Some(actors));
            let row = row(Parameters { hops, keys, actors, ..Parameters::default() }, Unmeasured::new());
            cells(&row).swap_remove(0)
        };
        assert_eq!(name(1, 1, 1), "pipeline 1 key 1 hop 1 actor");
        assert_eq!(name(3, 2, 0), "pipeline 2 keys 3 hops 0 actors");
    }

    #[test]
    fn the_drivers_cpu_alone_is_no_whole_cost() {
        let whole = Cpu::of(1.0, vec![2.0, 3.0]);
        assert_eq!(whole.per_million(2_000_000), Ok(3.0));
        assert!(whole.per_million(0).unwrap_err().contains("no event"));
        assert!(
            Cpu::of(1.0, Vec::new()).per_million(2_000_000).unwrap_err().contains("is not the whole cost")
        );
    }

    #[test]
    fn a_reason_stands_once_below_the_table_and_beside_its_figure_in_json() {
        let none = row(Parameters::default(), Unmeasured::new());
        assert!(notes(std::slice::from_ref(&none)).is_empty());
        assert!(serde_json::to_value(&none).unwrap().get("unmeasured").is_none());
        let why: Unmeasured = [(Figure::LatencyUs, "too small".to_string())].into();
        let rows = [none, row(Parameters::default(), why.clone()), row(Parameters::default(), why)];
        assert_eq!(notes(&rows), ["P50 US, P99 US and P99.9 US -: too small"]);
        let json = serde_json::to_value(&rows[1]).unwrap();
        assert_eq!(json["unmeasured"], serde_json::json!({ "latency_us": "too small" }));
    }
}
