//! How well `forecast` does on two years of hourly transformer load (`ett/ETTh2.csv` in the folder
//! that `DUNLIN_DATA` names; by default `../shared/data` beside the repository).
//!
//! The first 14,400 rows, seven channels, standardised with the first 2,880 rows' mean and deviation.
//! One pass, each row is forecast before anything later is seen; scored are the forecasts made at rows
//! 3,599 to 14,399 - H, by the mean squared error over the channels and the H steps after each. The
//! operator's constants were chosen on the first 3,600 rows (`first` prints the error there).
//!
//! Measured at H = 1 / 24 / 48: 0.3132 / 1.4671 / 2.5051; without the networks (`rls fields`) 0.3145 /
//! 1.4740 / 2.5267; the last value 0.4043 / 1.8178 / 2.8522.
//!
//! `cargo run --release -p dunlin-operators --example forecast_bars [first] [MODEL …]`
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement that cannot run may stop")]

use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use dunlin_operators::forecast::Forecast;
use dunlin_operators::memory_state::MemoryState;
use dunlin_operators::operator::Operator;
use dunlin_protocol::effect::Invoked;
use dunlin_protocol::event::{Event, Placed};
use dunlin_protocol::id::{Epoch, EventId, LogId, Seq};
use dunlin_protocol::pipeline::manifest::{ForecastSpec, Horizon};
use dunlin_protocol::time::Time;

const ROWS: usize = 14_400;
const STANDARD: usize = 2_880;
const FIRST: usize = 3_600;
const AHEAD: usize = 48;

struct Table {
    names: Vec<String>,
    times: Vec<Time>,
    rows: Vec<Vec<f64>>,
}

fn table() -> Option<Table> {
    let root = std::env::var_os("DUNLIN_DATA").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    let text = std::fs::read_to_string(root.join("ett/ETTh2.csv")).ok()?;
    let mut lines = text.lines();
    let names = lines.next()?.split(',').skip(1).map(str::to_owned).collect();
    let (mut times, mut rows) = (Vec::new(), Vec::new());
    for line in lines.take(ROWS) {
        let mut cells = line.split(',');
        times.push(Time::parse(&format!("{}Z", cells.next()?.replace(' ', "T"))).unwrap());
        rows.push(cells.map(|cell| cell.parse().unwrap()).collect());
    }
    Some(Table { names, times, rows })
}

fn events(table: &Table) -> Vec<Invoked> {
    let one = |(index, (row, time)): (usize, (&Vec<f64>, &Time))| {
        let fields: Vec<String> =
            table.names.iter().zip(row).map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let id = EventId { log: LogId([1; 16]), epoch: Epoch(1), seq: Seq(1), index: index as u32 };
        let payload = format!("{{{}}}", fields.join(",")).into();
        let event = Event { key: Bytes::new(), time: *time, headers: Vec::new(), payload };
        Invoked { input: 0, step: None, placed: Placed { id, event } }
    };
    table.rows.iter().zip(&table.times).enumerate().map(one).collect()
}

fn main() {
    let Some(table) = table() else {
        println!("DUNLIN_DATA names no folder with ett/ETTh2.csv, so nothing was measured");
        return;
    };
    let first = std::env::args().any(|argument| argument == "first");
    let deviation = |channel: usize| {
        let values = || table.rows.iter().take(STANDARD).map(|row| row[channel]);
        let mean = values().sum::<f64>() / STANDARD as f64;
        (values().map(|value| (value - mean).powi(2)).sum::<f64>() / STANDARD as f64).sqrt()
    };
    let deviations: Vec<f64> = (0..table.names.len()).map(deviation).collect();
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "first").collect();
    let models = (!named.is_empty()).then_some(named);
    let mut forecast = Forecast::new(&ForecastSpec {
        targets: table.names.clone(),
        horizon: Horizon::Steps(AHEAD as u16),
        features: None,
        models,
        interval: None,
        seed: 0,
    })
    .unwrap();
    let events = events(&table);
    let (from, to) = if first { (1000, FIRST) } else { (FIRST - 1, ROWS) };
    let horizons = [1, 24, 48];
    let (mut squares, mut naive, mut counts) = ([0.0; 3], [0.0; 3], [0.0; 3]);
    let (mut inside, mut state, mut changed) = ([0.0; 3], MemoryState::new(), 0usize);
    let began = Instant::now();
    let mut index = 0;
    for batch in events[..to].chunks(64) {
        let handled = forecast.handle(batch, Time(0), &mut state).unwrap();
        for change in state.stage() {
            changed += change.key.len() + change.value.map_or(0, |value| value.len());
        }
        state.commit();
        for out in handled.emitted.iter().filter(|out| out.side.is_none()) {
            let row = index;
            index += 1;
            if row < from {
                continue;
            }
            let payload: serde_json::Value = serde_json::from_slice(&out.event.payload).unwrap();
            for (channel, name) in table.names.iter().enumerate() {
                let said = &payload["forecast"][name];
                let list = |field: &str| -> Vec<f64> {
                    said[field].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
                };
                let (value, low, high) = (list("value"), list("low"), list("high"));
                for (place, ahead) in horizons.into_iter().enumerate() {
                    if row + ahead >= to {
                        continue;
                    }
                    for step in 0..ahead {
                        let truth = table.rows[row + step + 1][channel];
                        squares[place] += ((truth - value[step]) / deviations[channel]).powi(2);
                        naive[place] += ((truth - table.rows[row][channel]) / deviations[channel]).powi(2);
                        inside[place] += f64::from(u8::from((low[step]..=high[step]).contains(&truth)));
                        counts[place] += 1.0;
                    }
                }
            }
        }
    }
    let list = |sums: [f64; 3]| {
        let means: Vec<String> = sums.iter().zip(counts).map(|(sum, n)| format!("{:.4}", sum / n)).collect();
        means.join(" / ")
    };
    println!("MSE at H = 1 / 24 / 48: {}", list(squares));
    println!("last value:             {}", list(naive));
    println!("truths in the interval: {} (0.9 asked for)", list(inside));
    println!(
        "{to} rows, forecasts made from row {from} on, {:.1} s by the clock, {} bytes of state changed per row",
        began.elapsed().as_secs_f64(),
        changed / to
    );
}
