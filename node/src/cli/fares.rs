//! Fares for the demo: real ones from a file, or plausible ones from a seed.

use std::path::Path;

use anyhow::Context;
use dunlin_protocol::time::Time;
use serde_json::{Map, Value};

/// The columns of a file of fares.
const COLUMNS: [&str; 4] = ["observed_at", "flight", "departure", "price"];
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// The fares of a CSV file as JSON lines: numbers are numbers, empty is null, the rest strings.
pub fn real(file: &Path) -> anyhow::Result<Vec<String>> {
    let name = file.display().to_string();
    let mut reader = csv::Reader::from_path(file)
        .with_context(|| format!("{name} cannot be read: name a file of fares with --fares"))?;
    let columns = reader.headers().with_context(|| format!("{name} has no line of column names"))?.clone();
    if let Some(missing) = COLUMNS.into_iter().find(|wanted| !columns.iter().any(|column| column == *wanted))
    {
        anyhow::bail!("{name} has no column '{missing}': a file of fares has {}", COLUMNS.join(","));
    }
    let mut lines = Vec::new();
    for row in reader.records() {
        let row = row.with_context(|| format!("{name} has a row that cannot be read"))?;
        let fields = columns.iter().zip(row.iter()).map(|(column, text)| (column.to_string(), value(text)));
        lines.push(Value::Object(fields.collect::<Map<_, _>>()).to_string());
    }
    if lines.is_empty() {
        anyhow::bail!("{name} has no fares: it ends behind its column names");
    }
    Ok(lines)
}

fn value(text: &str) -> Value {
    if text.is_empty() {
        return Value::Null;
    }
    match serde_json::from_str::<serde_json::Number>(text) {
        Ok(number) => Value::Number(number),
        Err(_) => Value::String(text.to_string()),
    }
}

/// What the simulator makes. The same seed makes the same fares everywhere.
#[derive(Debug, Clone, Copy)]
pub struct Simulation {
    pub seed: u64,
    pub flights: u64,
    pub days: u64,
}

impl Default for Simulation {
    fn default() -> Self {
        Simulation { seed: 7, flights: 64, days: 40 }
    }
}

/// A flight on its way to its departure.
struct Flight {
    name: String,
    departure: u64,
    /// The rungs of its carrier's fare ladder, ascending; fares move from rung to rung.
    ladder: Vec<f64>,
    rung: usize,
    /// How full it is compared with how full it should be: what moves the fare.
    demand: f64,
}

/// Observations twice a day, in the order of time.
///
/// A fare stays on its rung most of the time, climbs as demand and the departure press, and falls
/// back to where it was more often than not after a climb: paths that a last value cannot follow
/// and a model can.
pub fn simulated(simulation: Simulation) -> Vec<String> {
    let mut random = Random(simulation.seed);
    // 2024-03-04, a Monday.
    let start = Time(1_709_510_400_000);
    let carriers = [("LH", 62.0), ("AF", 54.0), ("BA", 71.0), ("KL", 48.0)];
    let mut flights: Vec<Flight> = (0..simulation.flights)
        .map(|number| {
            let (carrier, base) = carriers.get((number % 4) as usize).copied().unwrap_or(("LH", 62.0));
            let base = base * (0.8 + 0.6 * random.unit());
            let days = simulation.days + 1 + random.below(simulation.days.max(1));
            let departure = start.0 + days * DAY_MS + (6 + random.below(16)) * HOUR_MS;
            Flight {
                name: format!(
                    "{carrier}{}_{}",
                    800 + number,
                    Time(departure).to_rfc3339().get(..10).unwrap_or("")
                ),
                departure,
                ladder: (0..12).map(|step| (base * 1.17f64.powi(step) * 100.0).round() / 100.0).collect(),
                rung: 3 + random.below(3) as usize,
                demand: random.unit() - 0.5,
            }
        })
        .collect();
    let mut lines = Vec::new();
    for half_day in 0..simulation.days * 2 {
        let at = start.0 + half_day * (DAY_MS / 2) + 7 * HOUR_MS;
        for (place, flight) in flights.iter_mut().enumerate() {
            flight.step(at, &mut random);
            let observed = Time(at + place as u64 * 20_000);
            let price = flight.ladder.get(flight.rung).copied().unwrap_or(0.0);
            lines.push(format!(
                r#"{{"observed_at":"{observed}","flight":"{}","departure":"{}","price":{price}}}"#,
                flight.name,
                Time(flight.departure),
            ));
        }
    }
    lines
}

impl Flight {
    fn step(&mut self, at: u64, random: &mut Random) {
        let days_left = self.departure.saturating_sub(at) as f64 / DAY_MS as f64;
        self.demand = 0.96 * self.demand + 0.12 * (random.unit() - 0.5);
        // Where the fare should be: it climbs in the last three weeks.
        let pressure = (1.0 - days_left / 21.0).max(0.0);
        let aim = 4.0 + 6.0 * self.demand + 4.0 * pressure * pressure;
        let gap = aim - self.rung as f64;
        let top = self.ladder.len() - 1;
        let draw = random.unit();
        if draw < (0.06 * gap).clamp(0.01, 0.45) {
            self.rung = (self.rung + 1).min(top);
        } else if draw > 1.0 - (-0.06 * gap).clamp(0.01, 0.45) {
            self.rung = self.rung.saturating_sub(1);
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): small, and the same on every machine for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, not including, 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// From 0 up to, not including, `n`, which is not 0.
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_makes_one_history_in_the_order_of_time() {
        let lines = simulated(Simulation::default());
        assert_eq!(lines, simulated(Simulation::default()));
        assert_ne!(lines, simulated(Simulation { seed: 8, ..Simulation::default() }));
        assert!(lines.len() >= 3000, "{}", lines.len());
        let rows: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let time = |row: &Value| Time::parse(row["observed_at"].as_str().unwrap()).unwrap();
        assert!(rows.windows(2).all(|pair| time(&pair[0]) <= time(&pair[1])));
        assert!(rows.iter().all(|row| row["price"].as_f64().unwrap() > 0.0));
    }

    #[test]
    fn fares_move_and_mostly_stay() {
        let lines = simulated(Simulation::default());
        let mut last = std::collections::BTreeMap::new();
        let (mut moves, mut rises, mut steps) = (0, 0, 0);
        for line in &lines {
            let row: Value = serde_json::from_str(line).unwrap();
            let price = row["price"].as_f64().unwrap();
            if let Some(before) = last.insert(row["flight"].to_string(), price) {
                steps += 1;
                moves += u32::from(before != price);
                rises += u32::from(price > before);
            }
        }
        assert!(moves * 20 > steps && moves * 2 < steps, "{moves} of {steps}");
        assert!(rises * 5 > moves && rises * 5 < moves * 4, "{rises} of {moves}");
    }

    #[test]
    fn a_file_of_fares_becomes_lines() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fares.csv");
        std::fs::write(&file, "observed_at,flight,departure,price\n2019-03-02T11:10:14Z,LH801,,136.2\n")
            .unwrap();
        insta::assert_snapshot!(
            real(&file).unwrap().join("\n"),
            @r#"{"departure":null,"flight":"LH801","observed_at":"2019-03-02T11:10:14Z","price":136.2}"#
        );
        std::fs::write(&file, "a,b\n1,2\n").unwrap();
        assert!(real(&file).unwrap_err().to_string().contains("no column 'observed_at'"));
    }
}
